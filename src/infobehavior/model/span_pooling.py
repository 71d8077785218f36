"""Convolution and max-pooling over packed spans of very different lengths, none padded to the longest (3.1.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from infobehavior.model.float32_products import rounded_rows

LENGTH_GROWTH = 1.1
"""Spans are padded to a common length with those that are longer by less than this factor; short ones not at all."""

WINDOWS_AT_ONCE = 16_384
"""Windows that are convolved at once, so that what is needed on the way stays in the processor's cache."""

WINDOWS_AT_ONCE_ON_GPU = 1 << 18
"""Likewise on a GPU, which would wait for many small chunks to be handed to it."""

ROWS_OF_NOTHING_ON_GPU = 4_096
"""On a GPU sums into one row wait for each other where they are to be the same bytes each time. So the gradients of
what lies before spans, which nobody reads, go to many rows."""

MINUTES_OF_LONG_SPANS = 32
"""From this average on, only windows that were the strongest take part in the backward pass."""


def strongest_windows(
    minutes: Float[Tensor, "minutes minute_dim"],
    span_lengths: Int[Tensor, " spans"],
    kernel: Float[Tensor, "widest minute_dim span_dim"],
) -> Float[Tensor, "spans span_dim"]:
    """Convolve each span with zeros before it, and take the maximum over its windows, one of which ends at each minute.

    Equals `conv1d` over each span by itself, and `amax`. The convolution is never in memory whole, and no span is
    padded to the longest one. A gradient goes to the one window that was the strongest.

    Args:
        minutes: of all spans, one after the other.
        span_lengths: minutes of each span, at least 1.
        kernel: of all feature maps; its last row meets the minute at which a window ends.
    """
    if torch.is_autocast_enabled(minutes.device.type):
        minutes, kernel = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (minutes, kernel))
    strongest: Tensor = _StrongestWindows.apply(minutes, span_lengths, kernel)  # type: ignore[no-untyped-call]
    return strongest


def windows_at_once(device: torch.device) -> int:
    """How many windows are convolved at once."""
    return WINDOWS_AT_ONCE if device.type == "cpu" else WINDOWS_AT_ONCE_ON_GPU


def rows_of_nothing_on(device: torch.device) -> int:
    """How many rows take the gradients of what lies before spans."""
    return 1 if device.type == "cpu" else ROWS_OF_NOTHING_ON_GPU


class _StrongestWindows(torch.autograd.Function):
    """Goes through the spans chunk by chunk, and keeps of each only which windows were the strongest."""

    @staticmethod
    def forward(ctx: Any, minutes: Tensor, span_lengths: Tensor, kernel: Tensor) -> Tensor:
        and_nothing = _and_nothing(minutes)
        strongest = minutes.new_empty(len(span_lengths), kernel.shape[2])
        winner = torch.empty_like(strongest, dtype=torch.int64)  # left as it is where nobody asks for gradients
        ctx.chunks = list(_chunks(span_lengths, len(kernel)))
        for chunk in ctx.chunks:
            convolved = _windows(and_nothing, chunk.minute) @ kernel.flatten(0, 1)
            groups = chunk.groups(convolved)
            if any(ctx.needs_input_grad):
                values, winners = zip(*(_strongest(part, length) for part, length in groups), strict=True)
                places = torch.minimum(torch.cat(winners), chunk.last[:, None]).add_(chunk.first[:, None])
                winner.index_copy_(0, chunk.span, places)
            else:
                values = tuple(part.view(-1, length, part.shape[1]).amax(1) for part, length in groups)
            strongest.index_copy_(0, chunk.span, torch.cat(values))
        ctx.save_for_backward(minutes, kernel, winner)
        return strongest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        minutes, kernel, winner = ctx.saved_tensors
        and_nothing, flat_kernel = _and_nothing(minutes), kernel.flatten(0, 1)
        # Sums over many chunks, which bfloat16 would round away.
        precise = torch.promote_types(minutes.dtype, torch.float32)
        rows_of_nothing = rows_of_nothing_on(minutes.device)
        of_minutes = minutes.new_zeros(len(minutes) + rows_of_nothing, minutes.shape[1], dtype=precise)
        of_kernel = torch.zeros_like(flat_kernel, dtype=precise)
        for chunk in ctx.chunks:
            minute, place = _winning(chunk, winner.index_select(0, chunk.span))
            of_convolved = gradient.new_zeros(len(minute), kernel.shape[2])
            of_convolved.scatter_(0, place, gradient.index_select(0, chunk.span))
            of_kernel += _windows(and_nothing, minute).T @ of_convolved
            of_windows = (of_convolved @ flat_kernel.T).view(-1, minutes.shape[1])
            row = _spread_nothing(minute.flatten(), len(minutes), rows_of_nothing)
            of_minutes.index_add_(0, row, of_windows.to(precise))
        return of_minutes[: len(minutes)].to(minutes.dtype), None, of_kernel.view_as(kernel).to(kernel.dtype)


@dataclass(frozen=True)
class _Chunk:
    """Some spans, shorter ones first, padded to a few lengths by repeating their last window.

    Attributes:
        shapes: number and padded length of the spans of each length.
        span: which spans.
        first: place of the first window of each.
        last: of each, how many windows come before the last one that isn't repeated.
        minute: minute at each place of each window; the number of minutes stands for nothing, before a span. A few
            windows of nothing are at the end.
    """

    shapes: tuple[tuple[int, int], ...]
    span: Int[Tensor, " spans"]
    first: Int[Tensor, " spans"]
    last: Int[Tensor, " spans"]
    minute: Int[Tensor, "windows widest"]

    def groups(self, convolved: Float[Tensor, "windows span_dim"]) -> Iterator[tuple[Tensor, int]]:
        """What belongs to the spans of each length, and that length."""
        sizes = [num_spans * length for num_spans, length in self.shapes]
        parts = torch.split(convolved[: sum(sizes)], sizes)
        return zip(parts, (length for _, length in self.shapes), strict=True)


def _and_nothing(minutes: Float[Tensor, "minutes minute_dim"]) -> Float[Tensor, "minutes_and_one minute_dim"]:
    """Minutes and, after them, the zeros that lie before each span."""
    return torch.cat([minutes, minutes.new_zeros(1, minutes.shape[1])])


def _spread_nothing(minute: Int[Tensor, " places"], num_minutes: int, rows_of_nothing: int) -> Int[Tensor, " places"]:
    """The row of each minute; what stands for nothing has each of the rows after them in turn."""
    if rows_of_nothing == 1:
        return minute
    in_turn = torch.arange(len(minute), device=minute.device) % rows_of_nothing
    return torch.where(minute < num_minutes, minute, num_minutes + in_turn)


def _windows(
    minutes: Float[Tensor, "minutes_and_one minute_dim"], minute: Int[Tensor, "windows widest"]
) -> Float[Tensor, "windows width"]:
    """The minutes of each window side by side."""
    return minutes.index_select(0, minute.flatten()).view(len(minute), -1)


def _winning(
    chunk: _Chunk, winner: Int[Tensor, "spans span_dim"]
) -> tuple[Int[Tensor, "winning widest"], Int[Tensor, "spans span_dim"]]:
    """The windows that were the strongest somewhere, by their minutes, and the winners' places among them.

    In a span of an hour most windows never are; where spans are short, looking for those costs more than it saves.
    """
    if len(chunk.minute) < MINUTES_OF_LONG_SPANS * len(chunk.span):
        return chunk.minute, winner
    won = torch.zeros(len(chunk.minute), dtype=torch.bool, device=winner.device)
    won.index_fill_(0, winner.flatten(), True)
    place, minute = torch.cumsum(won, 0) - 1, chunk.minute[won]
    nothing = minute[:1].expand(rounded_rows(len(minute)) - len(minute), -1)  # of which no gradient comes
    return torch.cat([minute, nothing]), place[winner]


def _strongest(
    convolved: Float[Tensor, "windows span_dim"], length: int
) -> tuple[Float[Tensor, "spans span_dim"], Int[Tensor, "spans span_dim"]]:
    """The maximum over each run of `length` windows, and which it is."""
    if length == 1:
        return convolved, torch.zeros_like(convolved, dtype=torch.int64)
    values, places = convolved.view(-1, length, convolved.shape[1]).max(1)
    return values, places


def _chunks(span_lengths: Int[Tensor, " spans"], widest: int) -> Iterator[_Chunk]:
    """Cut the spans, in order of length, into chunks of about as many windows as the device takes at once."""
    lengths = span_lengths.cpu().numpy()
    at_once = windows_at_once(span_lengths.device)
    first_minute = np.cumsum(lengths) - lengths
    order = np.argsort(lengths, kind="stable")
    padded = _padded_lengths(lengths[order])
    first_window = np.cumsum(padded) - padded
    for chunk in np.split(np.arange(len(order)), np.flatnonzero(np.diff(first_window // at_once)) + 1):
        span, last = order[chunk], lengths[order[chunk]] - 1
        minute = _minutes_of_windows(first_minute[span], last, padded[chunk], widest)
        minute = np.pad(minute, ((0, rounded_rows(len(minute)) - len(minute)), (0, 0)), constant_values=-1)
        minute[minute < 0] = lengths.sum()
        lengths_here, counts = np.unique(padded[chunk], return_counts=True)
        arrays = (span, first_window[chunk] - first_window[chunk[0]], last, minute)
        shapes = tuple(zip(counts.tolist(), lengths_here.tolist(), strict=True))
        yield _Chunk(shapes, *(torch.from_numpy(array).to(span_lengths.device) for array in arrays))


def _padded_lengths(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each of some ascending lengths, or the longest one that is like it."""
    alike = np.floor(np.log(lengths) / np.log(LENGTH_GROWTH) + 1e-9)
    longest = np.append(np.flatnonzero(np.diff(alike)), len(lengths) - 1)
    padded: NDArray[np.int64] = lengths[longest[np.searchsorted(longest, np.arange(len(lengths)))]]
    return padded


def _minutes_of_windows(
    first_minute: NDArray[np.int64], last: NDArray[np.int64], padded: NDArray[np.int64], widest: int
) -> NDArray[np.int64]:
    """The minutes (windows, widest) of the windows of some spans; -1 where a window reaches beyond its span's first."""
    span = np.repeat(np.arange(len(padded)), padded)
    place = np.arange(len(span)) - np.repeat(np.cumsum(padded) - padded, padded)
    in_span = np.minimum(place, last[span])[:, None] + np.arange(1 - widest, 1)
    return np.where(in_span >= 0, first_minute[span][:, None] + in_span, -1)
