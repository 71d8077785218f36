"""Windows of an entity's behavior that end at a moment (point in time), and their spans (section 3.1.2)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.ranges import positions
from infobehavior.data.store import MinuteStore


@dataclass(frozen=True)
class Windows:
    """Some entities' minutes `m` with `end - window_minutes <= m < end`.

    Attributes:
        entity: index of each window's entity in the store.
        end: UTC epoch minute at which each window ends; not in it.
        first_row: first row of each window in the store.
        end_row: row after the last one of each window.
        window_minutes: length of each window.
    """

    entity: NDArray[np.int64]
    end: NDArray[np.int64]
    first_row: NDArray[np.int64]
    end_row: NDArray[np.int64]
    window_minutes: int

    @classmethod
    def cut(cls, store: MinuteStore, entity: NDArray[Any], end: NDArray[Any], window_minutes: int) -> Self:
        """Cut a window for each pair of an entity (by index) and an end (UTC epoch minute)."""
        entity, end = entity.astype(np.int64), end.astype(np.int64)
        return cls(
            entity=entity,
            end=end,
            first_row=store.first_row_at(entity, end - window_minutes),
            end_row=store.first_row_at(entity, end),
            window_minutes=window_minutes,
        )

    def __len__(self) -> int:
        return len(self.entity)

    @property
    def num_minutes(self) -> NDArray[np.int64]:
        """Minutes with events of each window."""
        return self.end_row - self.first_row

    def take(self, which: NDArray[Any]) -> "Windows":
        """Some of the windows, by position or by a mask."""
        return Windows(
            self.entity[which],
            self.end[which],
            self.first_row[which],
            self.end_row[which],
            self.window_minutes,
        )

    def last(self, minutes: NDArray[np.int64], store: MinuteStore) -> "Windows":
        """The same windows, of which only the last minutes (so many of each) are seen; the rest is as if empty."""
        first_row = np.maximum(self.first_row, store.first_row_at(self.entity, self.end - minutes))
        return Windows(self.entity, self.end, first_row, self.end_row, self.window_minutes)

    def followed_by(self, other: "Windows") -> "Windows":
        """These windows and then others of the same length."""
        assert self.window_minutes == other.window_minutes
        return Windows(
            np.concatenate([self.entity, other.entity]),
            np.concatenate([self.end, other.end]),
            np.concatenate([self.first_row, other.first_row]),
            np.concatenate([self.end_row, other.end_row]),
            self.window_minutes,
        )

    def sums(self, column: NDArray[np.int32]) -> NDArray[np.int64]:
        """Sum of a column of the store over each window."""
        rows, window = self.rows
        return np.bincount(window, weights=column[rows], minlength=len(self)).astype(np.int64)

    @cached_property
    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows of all windows, one window after the other, and the window of each."""
        return positions(self.first_row, self.num_minutes)


@dataclass(frozen=True)
class SpanGrid:
    """Overlapping spans of equal length.

    Span `k` holds the minutes `k * stride_minutes` to `k * stride_minutes + span_minutes` of its window, counted from
    where the window's first span begins. With the origin "window" that is the window's start, and the last span is the
    first one to reach the window's end, so each minute belongs to a span whatever the length of the window. With the
    origin "epoch" all spans begin at multiples of the stride since 1970, and the first one is the earliest that
    reaches into the window; so a span that lies in two windows has the same minutes in both.

    Example:
        >>> SpanGrid(span_minutes=360, stride_minutes=340, window_minutes=43_200).num_spans
        127
    """

    span_minutes: int
    stride_minutes: int
    window_minutes: int
    origin: Literal["window", "epoch"] = "window"

    @property
    def num_spans(self) -> int:
        """Spans of a window, with and without events; of the origin "epoch" the most that a window can have."""
        if self.origin == "epoch":
            return (self.span_minutes + self.window_minutes - 2) // self.stride_minutes + 1
        beyond_first = max(0, self.window_minutes - self.span_minutes)
        return -(-beyond_first // self.stride_minutes) + 1

    def start(self, window_start: NDArray[np.int64]) -> NDArray[np.int64]:
        """UTC epoch minute at which the first span of each window begins.

        Args:
            window_start: UTC epoch minute at which each window begins.
        """
        if self.origin == "window":
            return window_start
        return ((window_start - self.span_minutes) // self.stride_minutes + 1) * self.stride_minutes

    def place(self, minute: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Put minutes, counted from the start of their window's first span, into all spans that cover them.

        Returns:
            Positions in `minute`, and a span for each; a minute that two spans share stands twice.
        """
        latest = np.minimum(minute // self.stride_minutes, self.num_spans - 1)
        places, spans = [], []
        for back in range(-(-self.span_minutes // self.stride_minutes)):
            span = latest - back
            covered = (span >= 0) & (minute < span * self.stride_minutes + self.span_minutes)
            places.append(np.flatnonzero(covered))
            spans.append(span[covered])
        return np.concatenate(places), np.concatenate(spans)
