"""The package's encoder equals the reference: values and gradients, whatever the windows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import Windows
from infobehavior.model.config import EncoderConfig
from infobehavior.model.float32_products import rounded_rows
from infobehavior.model.infobehavior import InfoBehavior, Representations

from .reference import Minute, ReferenceEncoder, Window, make_store

END = 22_720_000  # a UTC minute in 2013; not a midnight anywhere
PLACES = ("Berlin", "Lyon", "Oslo", "Turin", "Zagreb")
SMALL: dict[str, Any] = {
    "window_days": 2,
    "minute_dim": 6,
    "num_feature_maps": 4,
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 3,
    "feedforward_dim": 7,
}


def random_minute(random: np.random.Generator, minute: int, num_behaviors: int) -> Minute:
    behaviors = random.choice(num_behaviors + 1, size=random.integers(1, min(4, num_behaviors + 2)), replace=False)
    return Minute(
        minute,
        {int(code): int(random.integers(1, 4)) for code in behaviors},
        frozenset(random.choice(PLACES, size=random.choice([0, 1, 1, 2]), replace=False).tolist()),
    )


def random_entity(random: np.random.Generator, num_minutes: int, length: int, num_behaviors: int) -> list[Minute]:
    """Minutes in bursts, before, in and after the window of `length` minutes that ends at END."""
    bursts = END + random.integers(-int(1.2 * length), 200, size=max(1, num_minutes // 8))
    minutes = random.choice(bursts, num_minutes) + random.integers(0, 40, num_minutes)
    return [random_minute(random, int(minute), num_behaviors) for minute in sorted(set(minutes.tolist()))]


def edge_entities(length: int) -> list[list[Minute]]:
    """One minute; the first and the last minute of the window; a single span; none in the window; none at all."""
    login = {1: 1}
    return [
        [Minute(END - 77, login, frozenset(["Oslo"]))],
        [Minute(END - length, login), Minute(END - 1, {1: 2})],
        [Minute(END - length + 3, login), Minute(END - length + 5, login), Minute(END - length + 6, {0: 1})],
        [Minute(END - length - 1, login), Minute(END, login)],
        [],
    ]


def make_case(
    config: EncoderConfig, num_behaviors: int = 5, seed: int = 0, time_zone: str = "Europe/Berlin"
) -> tuple[InfoBehavior, list[list[Minute]], int]:
    """A model and entities; the vocabulary knows only some of what they do."""
    random = np.random.default_rng(seed)
    length = config.window_minutes
    entities = edge_entities(length)
    entities += [random_entity(random, size, length, num_behaviors) for size in (2, 9, 30, 160)]
    num_words = num_behaviors // 31 + 1
    known = make_store(entities[::2], num_words)
    vocabulary = Vocabulary.fit(known, "0" * 16, min_count=2)
    torch.manual_seed(seed)
    model = InfoBehavior(config, vocabulary, time_zone)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval(), entities, num_words


def encode_with_package(
    model: InfoBehavior, entities: list[list[Minute]], num_words: int, masked: list[bool] | None = None
) -> tuple[Representations, list[int]]:
    store = make_store(entities, num_words)
    windows = Windows.cut(store, np.arange(len(entities)), np.full(len(entities), END), model.config.window_minutes)
    batch = model.tokenizer(store).batch(windows)
    mask = None if masked is None else torch.tensor(masked, dtype=torch.bool)
    return model(batch, mask), batch.window_lengths.tolist()


def encode_with_reference(
    model: InfoBehavior, entities: list[list[Minute]], masked: list[bool] | None = None
) -> tuple[Representations, list[int], dict[str, Tensor]]:
    parameters = {name: tensor.detach().clone().requires_grad_() for name, tensor in model.named_parameters()}
    encoder = ReferenceEncoder(model.config, model.vocabulary, model.time_zone, parameters)
    *outputs, lengths = encoder.encode([Window(minutes, END) for minutes in entities], masked)
    return Representations(*outputs), lengths, parameters


def weighted_sum(representations: Representations) -> Tensor:
    """One number that depends on all outputs, each with a weight of its own."""
    generator = torch.Generator().manual_seed(1)
    outputs = (representations.global_repr, representations.local_repr, representations.span_repr)
    return torch.stack([(o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs]).sum()


def assert_same_values(ours: Representations, theirs: Representations, tolerance: float) -> None:
    for name in ("global_repr", "local_repr", "span_repr"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=tolerance, atol=tolerance)


def draw_half(num_spans: int) -> list[bool]:
    drawn: list[bool] = (np.random.default_rng(3).random(num_spans) < 0.5).tolist()
    return drawn


CASES = {
    "small": ({}, 5),
    "one day, spans don't divide it": ({"window_days": 1}, 5),
    "no overlap": ({"span_minutes": 360, "stride_minutes": 360}, 5),
    "short spans": ({"span_minutes": 180, "stride_minutes": 160}, 5),
    "long spans": ({"span_minutes": 720, "stride_minutes": 700}, 5),
    "a minute in three spans": ({"span_minutes": 300, "stride_minutes": 100}, 5),
    "a span longer than the window": ({"window_days": 1, "span_minutes": 2_000, "stride_minutes": 1_900}, 5),
    "seven days": ({"window_days": 7}, 5),
    "45 days": ({"window_days": 45}, 5),
    "spans that don't move": ({"span_origin": "epoch"}, 5),
    "spans that don't move, a minute in three": (
        {"span_origin": "epoch", "span_minutes": 300, "stride_minutes": 100},
        5,
    ),
    "minute of week": ({"window_days": 7, "time_point": "minute_of_week"}, 5),
    "week in parts": ({"window_days": 7, "time_point": "week_in_parts"}, 5),
    "mean of a span": ({"span_pooling": "max_and_mean"}, 5),
    "mean of a span, no projection": ({"span_pooling": "max_and_mean", "num_feature_maps": 2}, 5),
    "means of a span": ({"span_pooling": "max_and_means"}, 5),
    "a summary in [CLS]": ({"cls_input": "summary"}, 5),
    "statistics in [CLS]": ({"cls_input": "statistics"}, 5),
    "means, and statistics": ({"span_pooling": "max_and_means", "cls_input": "statistics"}, 5),
    "composite and parts": ({"behavior_rows": "composite_and_parts"}, 5),
    "one kernel of one minute": ({"kernel_sizes": (1,)}, 5),
    "kernels in any order": ({"kernel_sizes": (7, 2, 4)}, 5),
    "no projection needed": ({"kernel_sizes": (3, 4, 5), "num_feature_maps": 2}, 5),
    "two words of behaviors": ({}, 31),
    "200 behaviors": ({"behavior_rows": "composite_and_parts"}, 200),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_in_values_and_gradients(name: str) -> None:
    changes, num_behaviors = CASES[name]
    model, entities, num_words = make_case(EncoderConfig(**(SMALL | changes)), num_behaviors)
    model.double()
    num_spans = sum(encode_with_package(model, entities, num_words)[1])
    masked = draw_half(num_spans)

    ours, our_lengths = encode_with_package(model, entities, num_words, masked)
    theirs, their_lengths, parameters = encode_with_reference(model, entities, masked)

    assert our_lengths == their_lengths
    assert 0 in our_lengths
    # A minute alone in its window, in as few spans as a minute can be.
    assert min(filter(None, our_lengths)) <= model.config.span_minutes // model.config.stride_minutes
    assert max(our_lengths) >= 4 or model.grid.num_spans < 5
    # Weights of fallbacks, 1 / sqrt(n), are held in float32.
    assert_same_values(ours, theirs, 1e-6)
    weighted_sum(ours).backward()
    weighted_sum(theirs).backward()
    for which, parameter in model.named_parameters():
        got, expected = parameter.grad, parameters[which].grad
        assert got is not None, which
        assert expected is not None, which
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6, err_msg=which)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference_to_the_last_digits_where_nothing_falls_back(seed: int) -> None:
    model, entities, num_words = make_case(EncoderConfig(**SMALL), seed=seed)
    vocabulary = Vocabulary.fit(make_store(entities, num_words), "0" * 16, min_count=1)
    model = InfoBehavior(model.config, vocabulary, "America/New_York").eval().double()

    ours, _ = encode_with_package(model, entities, num_words)
    theirs, _, _ = encode_with_reference(model, entities)

    assert_same_values(ours, theirs, 1e-12)


def test_equals_the_reference_in_single_precision_at_the_papers_sizes() -> None:
    model, entities, num_words = make_case(EncoderConfig())
    torch.manual_seed(0)
    model = InfoBehavior(EncoderConfig(), model.vocabulary, "UTC").eval()

    with torch.no_grad():
        ours, _ = encode_with_package(model, entities, num_words)
        theirs, _, _ = encode_with_reference(model, entities)

    assert model.grid.num_spans == 127
    assert ours.global_repr.shape == (len(entities), 192)
    assert_same_values(ours, theirs, 1e-5)


@pytest.mark.parametrize("draw", [lambda _: None, draw_half])
def test_autocast_with_a_projection(draw: Callable[[int], list[bool] | None]) -> None:
    model, entities, num_words = make_case(EncoderConfig(**SMALL))
    exact, lengths = encode_with_package(model, entities, num_words)
    masked = draw(sum(lengths))
    exact, _ = encode_with_package(model, entities, num_words, masked)

    with torch.autocast("cpu", torch.bfloat16):
        near, _ = encode_with_package(model, entities, num_words, masked)

    assert not isinstance(model.span_projection, torch.nn.Identity)
    assert near.global_repr.dtype == torch.float32
    assert_same_values(near.float(), exact, 0.2)


def test_the_products_of_a_projection_have_few_shapes() -> None:
    model, entities, num_words = make_case(EncoderConfig(**SMALL))
    met: list[int] = []
    model.span_projection.register_forward_pre_hook(lambda _, given: met.append(len(given[0])))

    num_spans = [sum(encode_with_package(model, entities[:count], num_words)[1]) for count in range(1, 10)]

    assert len(set(num_spans)) > 5
    assert met == [rounded_rows(count) for count in num_spans]


def test_all_spans_masked_leaves_only_their_places() -> None:
    model, entities, num_words = make_case(EncoderConfig(**SMALL))
    num_spans = sum(encode_with_package(model, entities, num_words)[1])

    ours, _ = encode_with_package(model, entities, num_words, [True] * num_spans)
    theirs, _, _ = encode_with_reference(model, entities, [True] * num_spans)

    assert_same_values(ours, theirs, 1e-5)


def test_windows_without_events_have_the_representation_of_nothing() -> None:
    model, entities, num_words = make_case(EncoderConfig(**SMALL))

    encoded, lengths = encode_with_package(model, entities, num_words)

    empty = [i for i, length in enumerate(lengths) if length == 0]
    assert len(empty) == 2
    torch.testing.assert_close(encoded.global_repr[empty[0]], encoded.global_repr[empty[1]])


def test_a_batch_of_nothing_but_empty_windows() -> None:
    model, _, num_words = make_case(EncoderConfig(**SMALL))
    entities: list[list[Minute]] = [[], [Minute(END, {1: 1})], []]

    encoded, lengths = encode_with_package(model, entities, num_words)
    theirs, _, _ = encode_with_reference(model, entities)

    assert lengths == [0, 0, 0]
    assert_same_values(encoded, theirs, 1e-5)
    weighted_sum(encoded).backward()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_is_not_wanted_changes_nothing_else(share: float) -> None:
    model, entities, num_words = make_case(EncoderConfig(**SMALL))
    model.double()
    store = make_store(entities, num_words)
    windows = Windows.cut(store, np.arange(len(entities)), np.full(len(entities), END), model.config.window_minutes)
    batch = model.tokenizer(store).batch(windows)
    masked = torch.tensor(draw_half(batch.num_spans))
    wanted = torch.from_numpy(np.random.default_rng(4).random(batch.num_spans) < share)

    everything, some = model(batch, masked), model(batch, masked, wanted)

    expected = Representations(everything.global_repr, everything.local_repr[wanted], everything.span_repr)
    assert_same_values(some, expected, 1e-9)
    gradients = [torch.autograd.grad(weighted_sum(y), list(model.parameters())) for y in (some, expected)]
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
