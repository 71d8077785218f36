"""Every minute of a window belongs to a span, for any length of window (section 3.1.2, footnote 2)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infobehavior.data.windows import SpanGrid


@st.composite
def grids(draw: st.DrawFn) -> SpanGrid:
    span = draw(st.integers(1, 900))
    return SpanGrid(span, draw(st.integers(1, span)), draw(st.integers(1, 4_000)))


def covering(grid: SpanGrid, minute: int) -> set[int]:
    """The spans that cover a minute, by looking at each span."""
    spans = range(grid.num_spans)
    return {k for k in spans if k * grid.stride_minutes <= minute < k * grid.stride_minutes + grid.span_minutes}


@settings(max_examples=60)
@given(grids(), st.randoms(use_true_random=False))
def test_a_minute_is_in_all_spans_that_cover_it_and_in_at_least_one(grid: SpanGrid, random: object) -> None:
    minutes = np.arange(grid.window_minutes)

    positions, spans = grid.place(minutes)

    assert len(np.unique(positions * grid.num_spans + spans)) == len(positions)
    assert np.array_equal(np.unique(positions), minutes)
    assert spans.min() >= 0
    assert spans.max() == grid.num_spans - 1
    for minute in random.sample(range(grid.window_minutes), min(20, grid.window_minutes)):  # type: ignore[attr-defined]
        assert set(spans[positions == minute].tolist()) == covering(grid, minute)


@given(grids())
def test_the_last_span_is_the_first_one_to_reach_the_end(grid: SpanGrid) -> None:
    last_start = (grid.num_spans - 1) * grid.stride_minutes

    assert last_start + grid.span_minutes >= grid.window_minutes
    assert grid.num_spans == 1 or last_start - grid.stride_minutes + grid.span_minutes < grid.window_minutes


def test_the_papers_month_has_127_spans() -> None:
    assert SpanGrid(360, 340, 43_200).num_spans == 127


def test_any_order_and_any_repeats_of_minutes() -> None:
    positions, spans = SpanGrid(300, 100, 1_000).place(np.array([999, 5, 250, 250]))

    placed = sorted(zip(positions.tolist(), spans.tolist(), strict=True))
    assert placed == [(0, 7), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]


def test_no_minutes_are_in_no_spans() -> None:
    positions, spans = SpanGrid(360, 340, 43_200).place(np.array([], dtype=np.int64))

    assert len(positions) == len(spans) == 0
