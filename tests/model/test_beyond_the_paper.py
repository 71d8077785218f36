"""With all options beyond the paper's, too, batch mates change nothing, and what is masked isn't seen."""

import numpy as np
import pytest
import torch

from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import Windows
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior, Representations

from .reference import Minute, make_store

END = 22_720_000
CONFIG = EncoderConfig(
    window_days=3,
    minute_dim=8,
    num_feature_maps=8,
    num_layers=2,
    num_heads=2,
    head_dim=12,
    feedforward_dim=16,
    time_point="week_in_parts",
    behavior_rows="composite_and_parts",
    span_pooling="max_and_mean",
    cls_input="summary",
)


MORE = {"span_pooling": "max_and_means", "cls_input": "statistics"}


@pytest.fixture(scope="module", params=[{}, MORE], ids=["summary", "statistics"])
def model(request: pytest.FixtureRequest) -> InfoBehavior:
    known = make_store([[Minute(END - i, {i % 5: 1 + i % 3}) for i in range(200)]])
    torch.manual_seed(0)
    config = CONFIG.model_copy(update=request.param)
    return InfoBehavior(config, Vocabulary.fit(known, "0" * 16, min_count=2)).eval()


def entities(seed: int) -> list[list[Minute]]:
    """Busy ones, quiet ones, one with a single span, and one that did nothing in the window."""
    random = np.random.default_rng(seed)
    sizes = [(300, 4_300), (5, 4_300), (40, 300), (0, 1)]
    return [
        [
            Minute(END - int(m), {int(m) % 5: 1 + int(m) % 3})
            for m in sorted(set(random.integers(1, reach, size).tolist()))
        ]
        for size, reach in sizes
    ]


def encode(
    model: InfoBehavior, store: MinuteStore, masked: torch.Tensor | None = None
) -> tuple[Representations, torch.Tensor]:
    count = len(store.entities)
    windows = Windows.cut(store, np.arange(count), np.full(count, END), CONFIG.window_minutes)
    batch = model.tokenizer(store).batch(windows)
    with torch.no_grad():
        return model(batch, masked), batch.span_window


@pytest.mark.parametrize("seed", range(3))
def test_batch_mates_change_nothing(model: InfoBehavior, seed: int) -> None:
    together, window = encode(model, make_store(entities(seed)))

    for place, minutes in enumerate(entities(seed)):
        alone, _ = encode(model, make_store([minutes]))
        torch.testing.assert_close(together.global_repr[place : place + 1], alone.global_repr, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.local_repr[window == place], alone.local_repr, rtol=0, atol=1e-5)
    assert torch.isfinite(together.global_repr).all()


def test_what_is_done_in_a_masked_span_is_not_seen(model: InfoBehavior) -> None:
    """The last span is masked; what is done in it changes neither [CLS] nor its own local representation."""
    early = [Minute(END - m, {1: 1}) for m in range(1_500, 1_600, 7)]
    late = [[Minute(END - m, {code: level}) for m in range(5, 50, 9)] for code, level in ((2, 1), (4, 3))]
    masked = torch.tensor([False, False, True])

    (one, _), (other, _) = (encode(model, make_store([early + minutes]), masked) for minutes in late)

    assert not torch.equal(one.span_repr[2], other.span_repr[2])
    assert torch.equal(one.global_repr, other.global_repr)
    assert torch.equal(one.local_repr, other.local_repr)


def test_a_window_whose_only_span_is_masked_has_finite_representations_and_gradients(model: InfoBehavior) -> None:
    store = make_store([[Minute(END - 5, {1: 1})], []])
    windows = Windows.cut(store, np.arange(2), np.full(2, END), CONFIG.window_minutes)
    batch = model.tokenizer(store).batch(windows)

    encoded = model(batch, torch.tensor([True]))
    (encoded.global_repr.sum() + encoded.local_repr.sum()).backward()

    assert torch.isfinite(encoded.global_repr).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
