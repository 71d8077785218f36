"""Each task equals its equation, in value and in gradient."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from infobehavior.pretext.coarse import CoarseTask
from infobehavior.pretext.domain import CountTask, HistogramTask, TotalsTask
from infobehavior.pretext.fine import FineTask
from infobehavior.pretext.labels import UNKNOWN_LABEL
from infobehavior.pretext.months import MonthPairs, similarity

from .reference import Loops

DIM = 3
SIMILARITIES = [("dot", 1.0), ("dot", 2.5), ("cosine", 1.0), ("cosine", 0.1)]


def make_months(
    spans_per_window: list[int], masked: list[bool] | None = None, seed: int = 0, dim: int = DIM
) -> MonthPairs:
    """Windows with so many spans, first months, then second months, of which some are masked."""
    random = torch.Generator().manual_seed(seed)
    num_spans = sum(spans_per_window)
    global_repr, local_repr, span_repr = (
        torch.randn(n, dim, generator=random, dtype=torch.float64)
        for n in (len(spans_per_window), num_spans, num_spans)
    )
    if masked is None:
        masked = (torch.rand(num_spans, generator=random) < 0.5).tolist()
    window = torch.repeat_interleave(torch.arange(len(spans_per_window)), torch.tensor(spans_per_window))
    chosen = torch.tensor(masked, dtype=torch.bool)
    return MonthPairs(global_repr, local_repr[chosen], span_repr[chosen], window[chosen], {}, {})


def masked_spans(months: MonthPairs, vectors: Callable[[Tensor], Any]) -> list[list[list[tuple[Any, Any]]]]:
    """(l_i, s_i) of each masked span, by month and entity."""
    result = [[[] for _ in range(months.num_entities)] for _ in range(2)]
    locals_, spans = vectors(months.local_repr), vectors(months.span_repr)
    for i, window in enumerate(months.span_window.tolist()):
        month, entity = divmod(window, months.num_entities)
        result[month][entity].append((locals_[i], spans[i]))
    return result


def halves(rows: list[Any]) -> tuple[list[Any], list[Any]]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def numbers(x: Tensor) -> list[list[float]]:
    return x.tolist()


def scalars(x: Tensor) -> list[list[Tensor]]:
    """Rows of scalars that record gradients."""
    return [list(row.unbind()) for row in x.unbind()]


def with_gradients(months: MonthPairs) -> MonthPairs:
    names = ("global_repr", "local_repr", "span_repr")
    return replace(months, **{name: getattr(months, name).clone().requires_grad_() for name in names})


def assert_same_gradients(
    ours: Callable[[MonthPairs], Tensor], theirs: Callable[[MonthPairs], Tensor], months: MonthPairs
) -> None:
    """Values and gradients of a task and of its loops agree."""
    a, b = with_gradients(months), with_gradients(months)
    loss, expected = ours(a), theirs(b)
    torch.testing.assert_close(loss, torch.as_tensor(expected, dtype=loss.dtype))
    loss.backward()
    expected.backward()
    for name in ("global_repr", "local_repr", "span_repr"):
        got, want = getattr(a, name).grad, getattr(b, name).grad
        zero = torch.zeros_like(getattr(a, name))
        torch.testing.assert_close(zero if got is None else got, zero if want is None else want)


# The loops over scalars that record gradients; over plain numbers they are used as they are.
RECORDED = {"exp": torch.exp, "log": torch.log}


@pytest.mark.parametrize(("kind", "temperature"), SIMILARITIES)
@pytest.mark.parametrize("negatives", ["other_month", "both_months"])
@pytest.mark.parametrize("num_entities", [1, 2, 5])
def test_coarse_is_equations_1_and_2(kind: str, temperature: float, negatives: str, num_entities: int) -> None:
    months = make_months([1] * (2 * num_entities), seed=num_entities)
    task, loops = CoarseTask(kind, temperature, negatives), Loops(kind, temperature)

    first, second = halves(numbers(months.global_repr))

    assert task(months).item() == pytest.approx(loops.coarse(first, second, negatives == "both_months"), abs=1e-12)


@pytest.mark.parametrize("negatives", ["other_month", "both_months"])
@pytest.mark.parametrize(("kind", "temperature"), [("dot", 1.0), ("cosine", 0.1)])
def test_gradients_of_coarse(kind: str, temperature: float, negatives: str) -> None:
    loops = Loops(kind, temperature, **RECORDED)
    assert_same_gradients(
        CoarseTask(kind, temperature, negatives),
        lambda m: loops.coarse(*halves(scalars(m.global_repr)), negatives == "both_months"),
        make_months([1] * 8),
    )


def test_coarse_written_out_for_two_entities() -> None:
    g = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 1.0], [3.0, 0.0]])
    months = MonthPairs(g, g, g, torch.arange(4), {}, {})

    # phi(g1_0, g2_0) = .5, phi(g1_0, g2_1) = 3, phi(g1_1, g2_0) = 2, phi(g1_1, g2_1) = 0
    shares = [np.exp(0.5) / (np.exp(0.5) + np.exp(3)), 1 / (1 + np.exp(2))]
    shares += [np.exp(0.5) / (np.exp(0.5) + np.exp(2)), 1 / (1 + np.exp(3))]
    assert CoarseTask()(months).item() == pytest.approx(-np.log(shares).sum() / 2, rel=1e-6)


def test_coarse_counts_only_the_negatives_that_it_documents() -> None:
    """With all similarities equal, a loss is the log of the number of candidates."""
    months = replace(make_months([1] * 12), global_repr=torch.zeros(12, DIM, dtype=torch.float64))

    assert CoarseTask(negatives="other_month")(months).item() == pytest.approx(2 * np.log(6))
    assert CoarseTask(negatives="both_months")(months).item() == pytest.approx(2 * np.log(11))


def test_one_entity_has_nothing_to_be_told_from() -> None:
    assert CoarseTask()(make_months([1, 1])).item() == 0


@pytest.mark.parametrize(("kind", "temperature"), SIMILARITIES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(
    "spans_per_window", [[3, 5, 2, 4, 1, 6], [1, 1, 1, 1], [0, 4, 3, 0], [7, 7], [2, 0, 5, 0, 0, 3, 1, 2]]
)
def test_fine_is_equations_3_and_4(kind: str, temperature: float, reduction: str, spans_per_window: list[int]) -> None:
    months = make_months(spans_per_window)

    expected = Loops(kind, temperature).fine(masked_spans(months, numbers), reduction)

    assert FineTask(kind, temperature, reduction)(months).item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(st.data(), st.integers(1, 4), st.sampled_from(["sum", "mean"]))
def test_fine_for_any_spans_and_any_masks(data: st.DataObject, num_entities: int, reduction: str) -> None:
    spans_per_window = data.draw(st.lists(st.integers(0, 5), min_size=2 * num_entities, max_size=2 * num_entities))
    num_spans = sum(spans_per_window)
    masked = data.draw(st.lists(st.booleans(), min_size=num_spans, max_size=num_spans))
    months = make_months(spans_per_window, masked, seed=num_spans)

    expected = Loops().fine(masked_spans(months, numbers), reduction)

    assert FineTask(reduction=reduction)(months).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("kind", "temperature"), [("dot", 1.0), ("cosine", 0.1)])
def test_gradients_of_fine(kind: str, temperature: float, reduction: str) -> None:
    loops = Loops(kind, temperature, **RECORDED)
    assert_same_gradients(
        FineTask(kind, temperature, reduction),
        lambda m: loops.fine(masked_spans(m, scalars), reduction),
        make_months([3, 5, 2, 4, 1, 6]),
    )


def test_fine_counts_only_masked_spans_of_other_entities_in_the_same_month() -> None:
    """With all similarities equal, a loss is the log of the number of candidates."""
    masked = [*[True, True, False], *[True, False], *[True], *[False, False], *[True, True], *[True, True, True]]
    months = make_months([3, 2, 1, 2, 2, 3], masked)
    months = replace(months, local_repr=torch.zeros_like(months.local_repr))

    # First month: 2, 1 and 1 masked spans; second month: 0, 2 and 3.
    first = 2 * np.log(1 + 2) + np.log(1 + 3) + np.log(1 + 3)
    second = 2 * np.log(1 + 3) + 3 * np.log(1 + 2)
    assert FineTask()(months).item() == pytest.approx((first + second) / 3, rel=1e-6)
    assert FineTask(reduction="mean")(months).item() == pytest.approx(first / 4 + second / 5, rel=1e-6)


def test_spans_that_are_no_candidates_have_no_gradient() -> None:
    months = with_gradients(make_months([2, 2, 2, 2], [True, False, True, False, False, False, True, True]))

    FineTask()(months).backward()

    has_gradient = (months.span_repr.grad.abs().sum(1) > 0).tolist()  # type: ignore[union-attr]
    # In the second month only one entity has masked spans: there is nothing to be told from.
    assert has_gradient == [True, True, False, False]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("spans_per_window", [[2, 3, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
def test_no_masked_span_is_no_loss_and_no_gradient(reduction: str, spans_per_window: list[int]) -> None:
    months = with_gradients(make_months(spans_per_window, [False] * sum(spans_per_window)))

    loss = FineTask(reduction=reduction)(months)

    loss.backward()
    assert loss.item() == 0
    for gradient in (months.local_repr.grad, months.span_repr.grad):
        assert gradient is None or not gradient.any()


def make_domain(labels: Tensor) -> tuple[nn.Linear, MonthPairs]:
    """A task's layer, and months with its labels."""
    torch.manual_seed(0)
    months = make_months([1] * len(labels))
    return nn.Linear(DIM, 5).double(), replace(months, labels={"what": labels, "other": torch.zeros(1)})


def read_by(layer: nn.Linear, months: MonthPairs) -> MonthPairs:
    """The same months with what the layer reads off them."""
    return replace(months, read={"what": layer(months.global_repr)})


def weights(layer: nn.Linear, read: Callable[[Tensor], Any]) -> tuple[Any, Any]:
    bias = layer.bias
    return read(layer.weight), bias.tolist() if read is numbers else list(bias.unbind())


COUNTS = torch.tensor([0, 4, 2, 2])
SHARES = torch.tensor([[1, 0, 0, 0, 0], [0.2] * 5, [0, 0.5, 0, 0.25, 0.25], [0, 0, 0, 0, 0]], dtype=torch.float64)


def test_count_is_equation_5() -> None:
    layer, months = make_domain(COUNTS)

    expected = Loops().count(numbers(months.global_repr), COUNTS.tolist(), *weights(layer, numbers))

    assert CountTask("what")(read_by(layer, months)).item() == pytest.approx(expected, abs=1e-12)


def test_histogram_is_the_divergence() -> None:
    layer, months = make_domain(SHARES)

    expected = Loops().histogram(numbers(months.global_repr), SHARES.tolist(), *weights(layer, numbers))

    assert HistogramTask("what")(read_by(layer, months)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("kind", "labels"), [(CountTask, COUNTS), (HistogramTask, SHARES)])
def test_gradients_of_domain_tasks(kind: type[Any], labels: Tensor) -> None:
    (ours, months), (theirs, _) = make_domain(labels), make_domain(labels)
    loops = Loops(**RECORDED)
    equation = loops.count if kind is CountTask else loops.histogram

    assert_same_gradients(
        lambda m: kind("what")(read_by(ours, m)),
        lambda m: equation(scalars(m.global_repr), labels.tolist(), *weights(theirs, scalars)),
        months,
    )
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert got.grad is not None
        assert want.grad is not None
        torch.testing.assert_close(got.grad, want.grad)


def test_a_count_that_is_not_known_has_no_part_in_the_loss() -> None:
    known = torch.tensor([True, False, True, False])
    layer, months = make_domain(COUNTS.where(known, UNKNOWN_LABEL))
    g = [row for row, is_known in zip(numbers(months.global_repr), known, strict=True) if is_known]

    expected = Loops().count(g, [0, 2], *weights(layer, numbers))

    assert CountTask("what")(read_by(layer, months)).item() == pytest.approx(expected, abs=1e-12)


def test_no_known_count_is_no_loss_and_no_gradient() -> None:
    layer, months = make_domain(torch.full((4,), UNKNOWN_LABEL))

    loss = CountTask("what")(read_by(layer, months))

    loss.backward()
    assert loss.item() == 0
    assert not any(parameter.grad.any() for parameter in layer.parameters() if parameter.grad is not None)


def test_totals_are_half_the_squared_errors() -> None:
    labels = torch.rand(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    layer, months = make_domain(labels)
    rows, bias = weights(layer, numbers)

    total = 0.0
    for g, of_window in zip(numbers(months.global_repr), labels.tolist(), strict=True):
        for row, b, label in zip(rows, bias, of_window, strict=True):
            total += (sum(w * x for w, x in zip(row, g, strict=True)) + b - label) ** 2 / 2

    assert TotalsTask("what")(read_by(layer, months)).item() == pytest.approx(total / 4, abs=1e-12)


def test_a_perfect_histogram_has_no_loss() -> None:
    layer, months = make_domain(SHARES[1:2].repeat(4, 1))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    assert HistogramTask("what")(read_by(layer, months)).item() == pytest.approx(0, abs=1e-12)


def test_the_whole_objective_is_equation_6() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    layer, _ = make_domain(labels)
    tasks = nn.ModuleDict({"coarse": CoarseTask(), "fine": FineTask(), "failures": CountTask("what")})
    months = read_by(layer, replace(make_months([3, 5, 2, 4, 1, 6]), labels={"what": labels}))
    g, loops = numbers(months.global_repr), Loops()

    total = sum(task(months) for task in tasks.values())

    expected = loops.coarse(*halves(g))
    expected += loops.fine(masked_spans(months, numbers))
    expected += loops.count(g, labels.tolist(), *weights(layer, numbers))
    assert total.item() == pytest.approx(expected, abs=1e-12)


def test_extreme_similarities_stay_finite() -> None:
    months = with_gradients(make_months([2, 2, 2, 2], [True] * 8))
    large = replace(months, global_repr=months.global_repr * 1e4, local_repr=months.local_repr * 1e4)

    loss = CoarseTask()(large) + FineTask()(large)

    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(months.global_repr.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(months.local_repr.grad).all()  # type: ignore[arg-type]


def test_cosine_of_nothing_is_zero() -> None:
    nothing = torch.zeros(2, DIM, requires_grad=True)

    similar = similarity(nothing, torch.ones(3, DIM), "cosine", 0.1)

    similar.sum().backward()
    assert similar.tolist() == [[0.0] * 3] * 2
    assert torch.isfinite(nothing.grad).all()  # type: ignore[arg-type]
