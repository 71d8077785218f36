"""[CLS] and spans of windows of very different lengths as the rows of one matrix, none padded to the longest."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from infobehavior.model.float32_products import rounded_rows


@dataclass(frozen=True)
class PackedWindows:
    """Where [CLS] and the spans of each window are among the rows.

    After the windows come a few short sequences that nobody reads, so that the numbers of rows, which are shapes of
    products, are few.

    Attributes:
        num_windows: windows that are read.
        lengths: rows of each sequence, of those that nobody reads too.
        first: row of the [CLS] of each.
        span_rows: row of each span.
    """

    num_windows: int
    lengths: Int[Tensor, " sequences"]
    first: Int[Tensor, " sequences"]
    span_rows: Int[Tensor, " spans"]

    @classmethod
    def of(cls, window_lengths: Int[Tensor, " windows"], num_spans: int) -> Self:
        """Lay out windows of so many spans each."""
        num_windows, device = len(window_lengths), window_lengths.device
        window = torch.repeat_interleave(torch.arange(num_windows, device=device), window_lengths)
        span_rows = torch.arange(num_spans, device=device) + window + 1
        unread = _unread(num_spans + num_windows, num_windows).to(window_lengths)
        lengths = torch.cat([window_lengths + 1, unread])
        return cls(num_windows, lengths, torch.cumsum(lengths, 0) - lengths, span_rows)

    def rows(
        self, cls: Float[Tensor, "#windows model_dim"], spans: Float[Tensor, "spans model_dim"]
    ) -> Float[Tensor, "rows model_dim"]:
        """The rows: before the spans of each window its [CLS]."""
        x = spans.new_zeros(int(self.lengths.sum()), spans.shape[1])
        x.index_copy_(0, self.span_rows, spans)
        return x.index_copy_(0, self.first[: self.num_windows], cls.expand(self.num_windows, -1))

    def wanted_rows(self, wanted: Bool[Tensor, " spans"] | None) -> Int[Tensor, " wanted_rows"]:
        """The rows of each [CLS] and then of the spans that are wanted, all by default; some more are at the end."""
        rows = torch.cat([self.first, self.span_rows if wanted is None else self.span_rows[wanted]])
        return F.pad(rows, (0, rounded_rows(len(rows)) - len(rows)))


def _unread(num_rows: int, num_sequences: int) -> Int[Tensor, " sequences"]:
    """Lengths of sequences that nobody reads, which round the number of sequences, and that of all rows."""
    more = rounded_rows(num_sequences + 1) - num_sequences
    more_rows = rounded_rows(num_rows + more) - num_rows
    return torch.arange(more_rows, more_rows + more) // more  # about equally long
