"""Windows as packed token ids: what the encoder reads (sections 3.1.1 and 3.1.2)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from infobehavior.data.clock import MINUTES_PER_DAY, local_minutes
from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import FIRST_OF_WINDOW, Bags, BehaviorRows, Vocabulary, lag_tokens
from infobehavior.data.windows import SpanGrid, Windows

MINUTES_OF = {
    "minute_of_day": MINUTES_PER_DAY,
    **dict.fromkeys(("minute_of_week", "week_in_parts"), 7 * MINUTES_PER_DAY),
}
"""Of each kind of time point, how many there are."""
# Epoch day 0 was a Thursday; weeks begin on Mondays.
MINUTES_SINCE_MONDAY = 3 * MINUTES_PER_DAY


@dataclass(frozen=True)
class Rows:
    """Distinct rows to embed as scaled sums of a table's rows, and which of them each minute has.

    Attributes:
        tokens: token ids of all rows, one row after the other.
        offsets: where each row begins in `tokens`.
        weights: weight of each token: one over the square root of its row's number of tokens.
        of_minute: row of each minute.
    """

    tokens: Int[Tensor, " tokens"]
    offsets: Int[Tensor, " rows"]
    weights: Float[Tensor, " tokens"]
    of_minute: Int[Tensor, " minutes"]

    def to(self, device: torch.device) -> "Rows":
        """The same rows on a device."""
        return Rows(*(part.to(device) for part in (self.tokens, self.offsets, self.weights, self.of_minute)))


@dataclass(frozen=True)
class WindowBatch:
    """Windows without padding: the minutes of all spans of all windows, one after the other.

    Attributes:
        behavior: behavior tokens of each minute.
        location: location tokens of each minute.
        time_point: time point token of each minute.
        time_lag: time lag token of each minute.
        span_lengths: minutes with events of each span; at least 1, since only valid spans are here (footnote 3).
        span_index: place of each span in its window, counted from the window's first span, with empty spans.
        window_lengths: valid spans of each window; 0 for a window without events.
    """

    behavior: Rows
    location: Rows
    time_point: Int[Tensor, " minutes"]
    time_lag: Int[Tensor, " minutes"]
    span_lengths: Int[Tensor, " spans"]
    span_index: Int[Tensor, " spans"]
    window_lengths: Int[Tensor, " windows"]

    @property
    def num_windows(self) -> int:
        """Windows of the batch."""
        return len(self.window_lengths)

    @property
    def num_spans(self) -> int:
        """Valid spans of all windows."""
        return len(self.span_lengths)

    @cached_property
    def span_window(self) -> Int[Tensor, " spans"]:
        """Window of each span."""
        windows = torch.arange(self.num_windows, device=self.window_lengths.device)
        return torch.repeat_interleave(windows, self.window_lengths)

    def to(self, device: torch.device) -> "WindowBatch":
        """The same batch on a device."""
        rest = (self.time_point, self.time_lag, self.span_lengths, self.span_index, self.window_lengths)
        return WindowBatch(self.behavior.to(device), self.location.to(device), *(part.to(device) for part in rest))


@dataclass(frozen=True)
class Spans:
    """The valid spans of some windows, as rows of a store, in order of window, place and minute.

    Attributes:
        row: row of each minute of each span; a minute that two spans share stands twice.
        time_lag: time lag token of each.
        lengths: minutes with events of each span, at least 1.
        index: place of each span in its window.
        start: UTC epoch minute at which each span begins.
        window_lengths: valid spans of each window.
    """

    row: NDArray[np.int64]
    time_lag: NDArray[np.int64]
    lengths: NDArray[np.int64]
    index: NDArray[np.int64]
    start: NDArray[np.int64]
    window_lengths: NDArray[np.int64]

    def take(self, chosen: NDArray[np.bool_]) -> "Spans":
        """Some of the spans, of the same windows."""
        minute = np.repeat(chosen, self.lengths)
        window = np.repeat(np.arange(len(self.window_lengths)), self.window_lengths)
        return Spans(
            self.row[minute],
            self.time_lag[minute],
            self.lengths[chosen],
            self.index[chosen],
            self.start[chosen],
            np.bincount(window[chosen], minlength=len(self.window_lengths)),
        )


class Tokenizer:
    """Turns windows of a store into batches of token ids.

    Args:
        store: the minutes.
        vocabulary: the known tokens.
        grid: how windows are split into spans.
        time_zone: IANA name of the zone in which a time point is told.
        time_point: see `EncoderConfig.time_point`.
        behavior_rows: see `EncoderConfig.behavior_rows`.
    """

    def __init__(
        self,
        store: MinuteStore,
        vocabulary: Vocabulary,
        grid: SpanGrid,
        *,
        time_zone: str,
        time_point: str,
        behavior_rows: BehaviorRows,
    ) -> None:
        self.store = store
        self.grid = grid
        self.behavior_bags = vocabulary.behavior_bags(store.composites, behavior_rows)
        self.location_bags = vocabulary.location_bags(store.location_sets)
        self._time_zone, self._num_time_points = time_zone, MINUTES_OF[time_point]

    def batch(self, windows: Windows) -> WindowBatch:
        """Token ids of some windows."""
        return self.tokens(self.spans(windows))

    def spans(self, windows: Windows) -> Spans:
        """The valid spans of some windows."""
        row, window = windows.rows
        start = self.grid.start(windows.end - windows.window_minutes)
        position, span = self.grid.place(self.store.minute[row] - start[window])
        key = window[position] * self.grid.num_spans + span
        order = np.lexsort((position, key))
        key, position = key[order], position[order]
        spans, lengths = np.unique(key, return_counts=True)
        of_span, index = np.divmod(spans, self.grid.num_spans)
        return Spans(
            row=row[position],
            time_lag=self._lags(row, window)[position],
            lengths=lengths,
            index=index,
            start=start[of_span] + index * self.grid.stride_minutes,
            window_lengths=np.bincount(of_span, minlength=len(windows)),
        )

    def tokens(self, spans: Spans) -> WindowBatch:
        """Token ids of some spans, in their order."""
        return WindowBatch(
            behavior=_rows(self.behavior_bags, self.store.behavior[spans.row]),
            location=_rows(self.location_bags, self.store.location[spans.row] + 1),
            time_point=_tensor(self.time_point(spans.row)),
            time_lag=_tensor(spans.time_lag),
            span_lengths=_tensor(spans.lengths),
            span_index=_tensor(spans.index),
            window_lengths=_tensor(spans.window_lengths),
        )

    def time_point(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Time point token of each of some rows of the store."""
        return (local_minutes(self.store.minute[row], self._time_zone) + MINUTES_SINCE_MONDAY) % self._num_time_points

    def _lags(self, row: NDArray[np.int64], window: NDArray[np.int64]) -> NDArray[np.int64]:
        """Time lag token of each minute of each window; the first one of a window has none before it."""
        minute = self.store.minute[row].astype(np.int64)
        tokens = lag_tokens(np.maximum(1, np.diff(minute, prepend=0)))
        tokens[np.diff(window, prepend=-1) > 0] = FIRST_OF_WINDOW
        return tokens


def _rows(bags: Bags, of_minute: NDArray[np.int32]) -> Rows:
    distinct, inverse = np.unique(of_minute, return_inverse=True)
    tokens, offsets = bags.take(distinct.astype(np.int64))
    lengths = np.diff(np.append(offsets, len(tokens)))
    weights = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    return Rows(_tensor(tokens), _tensor(offsets), torch.from_numpy(weights), _tensor(inverse))


def _tensor(array: NDArray[np.integer]) -> Int[Tensor, "..."]:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
