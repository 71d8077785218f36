"""An embedding depends on its own window alone: not on batch mates, not on what comes at its end or later."""

from functools import cache
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infobehavior.data.batches import Rows, WindowBatch
from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import Windows
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior, Representations

from .reference import Minute, make_store

END = 22_720_000
LENGTH = 3 * 1_440
PLACES = ("Berlin", "Lyon", "Oslo")

behaviors = st.dictionaries(st.integers(0, 4), st.integers(1, 3), min_size=1, max_size=3)
locations = st.frozensets(st.sampled_from(PLACES), max_size=2)


def entity(first: int, last: int, max_size: int = 40) -> st.SearchStrategy[list[Minute]]:
    """Minutes from END - `first` to END - `last`."""
    minute = st.builds(Minute, st.integers(END - first, END - last), behaviors, locations)
    return st.lists(minute, max_size=max_size, unique_by=lambda m: m.minute)


@cache
def model() -> InfoBehavior:
    config = EncoderConfig(
        window_days=3,
        span_minutes=300,
        stride_minutes=250,
        minute_dim=16,
        num_feature_maps=16,
        num_layers=2,
        num_heads=2,
        head_dim=24,
        feedforward_dim=32,
    )
    known = [[Minute(END - i, {i % 5: 1 + i % 3}, frozenset(PLACES[: i % 3])) for i in range(200)]]
    vocabulary = Vocabulary.fit(make_store(known), "0" * 16, min_count=2)
    torch.manual_seed(0)
    return InfoBehavior(config, vocabulary).eval()


def window_of(store: MinuteStore, which: list[int], end: int = END) -> WindowBatch:
    windows = Windows.cut(store, np.array(which), np.full(len(which), end), LENGTH)
    return model().tokenizer(store).batch(windows)


@torch.no_grad()
def encode(batch: WindowBatch, masked: Tensor | None = None) -> Representations:
    return model()(batch, masked)


def tokens_of_minutes(rows: Rows) -> list[tuple[list[int], list[float]]]:
    """Tokens and weights of each minute, however the distinct rows are numbered."""
    bags = [slice(a, b) for a, b in pairwise([*rows.offsets.tolist(), len(rows.tokens)])]
    return [(rows.tokens[bags[i]].tolist(), rows.weights[bags[i]].tolist()) for i in rows.of_minute.tolist()]


def content(batch: WindowBatch) -> dict[str, object]:
    tensors = ("time_point", "time_lag", "span_lengths", "span_index", "window_lengths")
    return {
        "behavior": tokens_of_minutes(batch.behavior),
        "location": tokens_of_minutes(batch.location),
        **{name: getattr(batch, name).tolist() for name in tensors},
    }


@settings(max_examples=25)
@given(st.lists(entity(LENGTH + 50, -50), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_alone_or_in_a_batch_the_representations_are_the_same(entities: list[list[Minute]], seed: int) -> None:
    together = window_of(make_store(entities), list(range(len(entities))))
    masked = torch.from_numpy(np.random.default_rng(seed).random(together.num_spans) < 0.3)

    encoded = encode(together, masked)

    for i, minutes in enumerate(entities):
        of_window = together.span_window == i
        alone = encode(window_of(make_store([minutes]), [0]), masked[of_window])
        torch.testing.assert_close(encoded.global_repr[i : i + 1], alone.global_repr, rtol=0, atol=1e-5)
        torch.testing.assert_close(encoded.local_repr[of_window], alone.local_repr, rtol=0, atol=1e-5)
        torch.testing.assert_close(encoded.span_repr[of_window], alone.span_repr, rtol=0, atol=1e-5)


def test_very_uneven_batch_mates_change_nothing() -> None:
    busy = [Minute(END - i, {1 + i % 3: 1}) for i in range(1, LENGTH)]
    quiet = [Minute(END - 700, {2: 1}), Minute(END - 698, {3: 2})]

    alone = encode(window_of(make_store([quiet]), [0])).global_repr
    beside = encode(window_of(make_store([busy, quiet, busy]), [0, 1, 2])).global_repr[1:2]

    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(st.lists(entity(LENGTH, 1), min_size=1, max_size=4), st.data())
def test_events_at_or_after_the_end_change_nothing(entities: list[list[Minute]], data: st.DataObject) -> None:
    which = list(range(len(entities)))
    later = [data.draw(entity(0, -5_000, max_size=10)) for _ in entities]
    known, longer = make_store(entities), make_store([a + b for a, b in zip(entities, later, strict=True)])

    before, after = window_of(known, which), window_of(longer, which)

    assert content(before) == content(after)
    assert torch.equal(encode(before).global_repr, encode(after).global_repr)


@settings(max_examples=25)
@given(entity(LENGTH, 1), entity(LENGTH + 5_000, LENGTH + 1, max_size=10))
def test_events_before_the_window_change_nothing(minutes: list[Minute], earlier: list[Minute]) -> None:
    assert content(window_of(make_store([minutes]), [0])) == content(window_of(make_store([earlier + minutes]), [0]))


@settings(max_examples=25)
@given(st.lists(entity(LENGTH, 1, max_size=15), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_windows_is_the_order_of_representations(entities: list[list[Minute]], random: object) -> None:
    store, which = make_store(entities), list(range(len(entities)))
    shuffled = which + which[:1]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    expected = encode(window_of(store, which)).global_repr[shuffled]

    torch.testing.assert_close(encode(window_of(store, shuffled)).global_repr, expected, rtol=0, atol=1e-5)


def test_one_entity_at_several_moments() -> None:
    minutes = [Minute(END - i * 37, {1 + i % 4: 1}) for i in range(1, 300)]
    store, ends = make_store([minutes]), np.array([END - 2_000, END, END - 9_000])

    batch = model().tokenizer(store).batch(Windows.cut(store, np.zeros(3, dtype=np.int64), ends, LENGTH))

    encoded = encode(batch).global_repr
    for i, end in enumerate(ends.tolist()):
        alone = encode(window_of(store, [0], end)).global_repr
        torch.testing.assert_close(encoded[i : i + 1], alone, rtol=0, atol=1e-5)


def test_training_draws_dropout_but_evaluation_does_not() -> None:
    batch = window_of(make_store([[Minute(END - i, {1: 1}) for i in range(1, 900)]]), [0])

    assert torch.equal(encode(batch).global_repr, encode(batch).global_repr)
    model().train()
    try:
        assert not torch.equal(encode(batch).global_repr, encode(batch).global_repr)
    finally:
        model().eval()
