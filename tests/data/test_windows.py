from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.store import load_store
from infobehavior.data.windows import SpanGrid, Windows
from small_minutes import FIRST_DAY, NUM_DAYS, epoch_minute, plain_minutes

START = epoch_minute(FIRST_DAY)


@pytest.fixture(scope="module")
def store(minutes):
    return load_store(minutes)


def minutes_in(store, windows, i):
    return store.minute[windows.first_row[i] : windows.end_row[i]].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(-100, (NUM_DAYS + 1) * 1_440)), max_size=6),
    st.sampled_from([1, 600, 1_440, 30 * 1_440, 365 * 1_440]),
)
def test_a_window_holds_the_minutes_before_its_end(events, store, places, length):
    entity = np.array([who for who, _ in places], dtype=np.int64)
    end = np.array([START + after for _, after in places], dtype=np.int64)
    windows = Windows.cut(store, entity, end, length)
    plain = list(plain_minutes(events))
    for i in range(len(places)):
        own = [m for who, m in plain if who == store.entities[entity[i]] and end[i] - length <= m < end[i]]
        assert minutes_in(store, windows, i) == own
        assert windows.num_minutes[i] == len(own)
    rows, window = windows.rows
    assert store.minute[rows].tolist() == [m for i in range(len(places)) for m in minutes_in(store, windows, i)]
    assert window.tolist() == [i for i in range(len(places)) for _ in range(windows.num_minutes[i])]


def test_the_end_is_not_in_a_window_and_its_start_is(store):
    minute = int(store.minute[store.offsets[3] + 7])
    three = np.array([3, 3, 3, 3])
    windows = Windows.cut(store, three, np.array([minute, minute + 1, minute + 60, minute + 61]), 60)
    assert [minute in minutes_in(store, windows, i) for i in range(4)] == [False, True, True, False]


def test_taking_and_joining(store):
    windows = Windows.cut(store, np.arange(10), np.full(10, START + 8_000), 4_000)
    some = windows.take(np.array([7, 2]))
    assert minutes_in(store, some, 1) == minutes_in(store, windows, 2)
    assert len(windows.take(windows.num_minutes > 0)) == np.count_nonzero(windows.num_minutes)
    joined = some.followed_by(windows)
    assert joined.entity.tolist() == [7, 2, *range(10)]
    assert joined.num_minutes.tolist() == [*some.num_minutes, *windows.num_minutes]
    with pytest.raises(AssertionError):
        some.followed_by(Windows.cut(store, np.arange(1), np.full(1, START), 10))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200))
def test_each_minute_is_in_all_spans_that_cover_it_and_in_one_at_least(span_minutes, stride_minutes, window_minutes):
    stride_minutes = min(span_minutes, stride_minutes)
    grid = SpanGrid(span_minutes, stride_minutes, window_minutes)
    position, span = grid.place(np.arange(window_minutes))
    starts = [k * stride_minutes for k in range(grid.num_spans)]
    expected = {
        (m, k)
        for m, (k, start) in product(range(window_minutes), enumerate(starts))
        if start <= m < start + span_minutes
    }
    found = list(zip(position.tolist(), span.tolist(), strict=True))
    assert set(found) == expected
    assert len(found) == len(expected)
    assert {m for m, _ in found} == set(range(window_minutes))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200))
def test_the_last_span_is_the_first_to_reach_the_end(span_minutes, stride_minutes, window_minutes):
    stride_minutes = min(span_minutes, stride_minutes)
    last = (SpanGrid(span_minutes, stride_minutes, window_minutes).num_spans - 1) * stride_minutes
    assert last + span_minutes >= window_minutes
    assert last == 0 or last - stride_minutes + span_minutes < window_minutes


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200), st.integers(-500, 500))
def test_spans_that_do_not_move(span_minutes, stride_minutes, window_minutes, window_start):
    stride_minutes = min(span_minutes, stride_minutes)
    grid = SpanGrid(span_minutes, stride_minutes, window_minutes, "epoch")
    start = int(grid.start(np.array(window_start)))
    minutes = np.arange(window_start, window_start + window_minutes)
    position, span = grid.place(minutes - start)
    multiples = range(window_start - span_minutes + 1, window_start + window_minutes)
    expected = {
        (m, (first - start) // stride_minutes)
        for m, first in product(minutes.tolist(), [m for m in multiples if m % stride_minutes == 0])
        if first <= m < first + span_minutes
    }
    found = list(zip(minutes[position].tolist(), span.tolist(), strict=True))
    assert set(found) == expected
    assert len(found) == len(expected)
    assert min(span) == 0
    assert max(span) < grid.num_spans


def test_a_moving_window_needs_all_positions_of_spans_that_do_not_move():
    grid = SpanGrid(360, 340, 43_200, "epoch")
    starts = np.arange(340)
    last = [grid.place(np.array([start + 43_199]) - grid.start(start))[1].max() for start in starts]
    assert max(last) == grid.num_spans - 1 == 128


@pytest.mark.parametrize(("days", "num_spans"), [(30, 127), (7, 30), (90, 382), (365, 1_546), (1, 5)])
def test_spans_of_the_paper_and_of_other_lengths(days, num_spans):
    assert SpanGrid(span_minutes=360, stride_minutes=340, window_minutes=days * 1_440).num_spans == num_spans


def test_no_minutes_are_in_no_spans():
    position, span = SpanGrid(360, 340, 43_200).place(np.array([], dtype=np.int64))
    assert (position.tolist(), span.tolist()) == ([], [])
