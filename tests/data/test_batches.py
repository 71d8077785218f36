from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch

from infobehavior.data.batches import Tokenizer
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import FIRST_OF_WINDOW, Vocabulary, lag_tokens
from infobehavior.data.windows import SpanGrid, Windows
from small_minutes import FIRST_DAY, TIME_ZONE, epoch_minute

WINDOW_MINUTES = 4 * 1_440
GRID = SpanGrid(span_minutes=360, stride_minutes=340, window_minutes=WINDOW_MINUTES)
START = epoch_minute(FIRST_DAY)


@pytest.fixture(scope="module")
def store(minutes):
    return load_store(minutes)


@pytest.fixture(scope="module")
def vocabulary(minutes, store):
    return Vocabulary.fit(store, minutes.hash, min_count=4)


@pytest.fixture(scope="module")
def windows(store):
    """Each entity at four moments, among them windows without events."""
    end = START + np.array([0, 3_000, 9_001, 20_000])
    entity = np.repeat(np.arange(len(store.entities)), len(end))
    return Windows.cut(store, entity, np.tile(end, len(store.entities)), WINDOW_MINUTES)


def tokenizer_of(store, vocabulary, time_point="minute_of_day", behavior_rows="composite"):
    return Tokenizer(store, vocabulary, GRID, time_zone=TIME_ZONE, time_point=time_point, behavior_rows=behavior_rows)


@pytest.fixture(scope="module")
def spans(store, windows):
    """(window, span, rows of the store) of each span with events, with loops over all spans."""
    minute, spans = store.minute.tolist(), []
    for i in range(len(windows)):
        start = windows.end[i] - WINDOW_MINUTES
        for k in range(GRID.num_spans):
            first, end = start + k * 340, start + k * 340 + 360
            rows = [r for r in range(windows.first_row[i], windows.end_row[i]) if first <= minute[r] < end]
            if rows:
                spans.append((i, k, rows))
    return spans


def unpacked(rows):
    """The tokens of each minute of a batch, and their weights."""
    ends = [*rows.offsets[1:].tolist(), len(rows.tokens)]
    bags = [(rows.tokens[a:b].tolist(), rows.weights[a:b].tolist()) for a, b in zip(rows.offsets, ends, strict=True)]
    return [bags[i] for i in rows.of_minute.tolist()]


def test_spans_are_packed_in_order(store, vocabulary, windows, spans):
    batch = tokenizer_of(store, vocabulary).batch(windows)
    assert batch.num_windows == len(windows)
    assert batch.num_spans == len(spans)
    assert batch.span_window.tolist() == [window for window, _, _ in spans]
    assert batch.span_index.tolist() == [span for _, span, _ in spans]
    assert batch.span_lengths.tolist() == [len(rows) for _, _, rows in spans]
    assert batch.window_lengths.tolist() == [sum(w == i for w, _, _ in spans) for i in range(len(windows))]
    assert 0 in batch.window_lengths
    assert len(batch.time_point) == batch.span_lengths.sum() > sum(windows.num_minutes), "spans overlap"


@pytest.mark.parametrize("behavior_rows", ["composite", "composite_and_parts"])
def test_behaviors_and_locations(store, vocabulary, windows, spans, behavior_rows):
    tokenizer = tokenizer_of(store, vocabulary, behavior_rows=behavior_rows)
    batch = tokenizer.batch(windows)
    rows = [row for _, _, own in spans for row in own]
    for packed, bags, ids in (
        (batch.behavior, tokenizer.behavior_bags, store.behavior),
        (batch.location, tokenizer.location_bags, store.location + 1),
    ):
        expected = [bags.tokens[bags.offsets[ids[row]] : bags.offsets[ids[row] + 1]].tolist() for row in rows]
        assert [tokens for tokens, _ in unpacked(packed)] == expected
        for tokens, weights in unpacked(packed):
            assert weights == pytest.approx([1 / np.sqrt(len(tokens))] * len(tokens))
        assert len(packed.offsets) == len(torch.unique(packed.of_minute)), "each distinct row stands once"


@pytest.mark.parametrize(("time_point", "size"), [("minute_of_day", 1_440), ("minute_of_week", 10_080)])
def test_time_points_are_local(store, vocabulary, windows, spans, time_point, size):
    batch = tokenizer_of(store, vocabulary, time_point).batch(windows)
    expected, offsets = [], set()
    for row in (row for _, _, own in spans for row in own):
        local = datetime.fromtimestamp(int(store.minute[row]) * 60, UTC).astimezone(ZoneInfo(TIME_ZONE))
        offsets.add(local.utcoffset())
        expected.append(((local.weekday() * 24 + local.hour) * 60 + local.minute) % size)
    assert batch.time_point.tolist() == expected
    assert len(offsets) == 2, "the clocks changed between two of these minutes"


def test_lags_are_since_the_minute_before_in_the_window(store, vocabulary, windows, spans):
    batch = tokenizer_of(store, vocabulary).batch(windows)
    expected = []
    for window, _, rows in spans:
        for row in rows:
            is_first = row == windows.first_row[window]
            lag = 0 if is_first else int(store.minute[row]) - int(store.minute[row - 1])
            expected.append(FIRST_OF_WINDOW if is_first else int(lag_tokens(np.array([lag]))[0]))
    assert batch.time_lag.tolist() == expected


def test_no_windows_make_an_empty_batch(store, vocabulary, windows):
    batch = tokenizer_of(store, vocabulary).batch(windows.take(np.array([], dtype=np.int64)))
    assert (batch.num_windows, batch.num_spans, len(batch.time_lag)) == (0, 0, 0)
