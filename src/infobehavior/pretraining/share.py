"""What each of several processes has of a step's windows and masked spans, and the whole step out of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from infobehavior.pretext.months import MonthPairs
from infobehavior.pretraining.masking import draw_mask
from infobehavior.pretraining.processes import Part, Processes


@dataclass(frozen=True)
class Share:
    """What this process has of a step; a process alone has all of it.

    Attributes:
        windows: its windows among those of the step.
        masked_spans: its masked spans among those of the step.
        span_window: window, among those of the step, of each masked span of the step.
    """

    windows: Part
    masked_spans: Part
    span_window: Int[Tensor, " masked"]

    def to(self, device: torch.device) -> "Share":
        """The same share on a device."""
        return Share(self.windows.to(device), self.masked_spans.to(device), self.span_window.to(device))


def draw_share(
    windows: Part,
    window_lengths: Int[Tensor, " own_windows"],
    mask_rate: float,
    generator: np.random.Generator,
    processes: Processes,
) -> tuple[Share, Bool[Tensor, " own_spans"]]:
    """Draw the mask of the whole step, so that it is the one that one process would draw, and take one's own part.

    Args:
        windows: the process's windows among those of the step.
        window_lengths: spans of each of them.
        mask_rate: share of a window's spans.
        generator: decides which.
        processes: those that take the step.

    Returns:
        The share, and True where a span of the process's own windows is masked.
    """
    lengths = processes.whole(window_lengths, windows)
    masked = draw_mask(lengths, mask_rate, generator)
    span_window = torch.repeat_interleave(torch.arange(windows.num_rows), lengths)
    has = torch.zeros(windows.num_rows, dtype=torch.bool).index_fill_(0, windows.place, True)
    is_own = has[span_window]
    masked_spans = Part(is_own[masked].nonzero().squeeze(1), int(masked.sum()))
    return Share(windows, masked_spans, span_window[masked]), masked[is_own]


def whole_step(own: MonthPairs, share: Share, processes: Processes) -> MonthPairs:
    """The months of all processes, in the places that they have in one process.

    What the processes have of windows travels as one table, with the labels: classes are small numbers, which float32
    holds exactly.
    """
    if processes.size == 1:
        return own
    columns = [own.global_repr, *own.read.values(), *map(_as_columns, own.labels.values())]
    table = processes.whole(torch.cat(columns, dim=1), share.windows)
    global_repr, *rest = torch.split(table, [column.shape[1] for column in columns], dim=1)
    read, labels = rest[: len(own.read)], rest[len(own.read) :]
    spans = processes.whole(torch.cat([own.local_repr, own.span_repr], dim=1), share.masked_spans)
    local_repr, span_repr = spans.chunk(2, dim=1)
    return MonthPairs(
        global_repr=global_repr,
        local_repr=local_repr,
        span_repr=span_repr,
        span_window=share.span_window,
        labels={
            name: label.detach().to(like.dtype).reshape(-1, *like.shape[1:])
            for (name, like), label in zip(own.labels.items(), labels, strict=True)
        },
        read=dict(zip(own.read, read, strict=True)),
    )


def _as_columns(label: Tensor) -> Float[Tensor, "windows columns"]:
    return (label[:, None] if label.dim() == 1 else label).float()
