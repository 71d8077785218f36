"""Span representations (section 3.1.2): a multi-window convolution over a span's minutes, and max-pooling (TextCNN)."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class SpanCNN(nn.Module):
    """Encodes each span by itself.

    A window of size `k` ends at each minute of its span and begins `k - 1` rows earlier; rows before the span's first
    minute are zero. So a span of `n` minutes has `n` windows of each size, and what other spans are in the batch
    doesn't matter.

    Args:
        minute_dim: size of a minute's embedding.
        kernel_sizes: sizes of the windows.
        num_feature_maps: feature maps of each size; a span representation has one number for each map of each size.
    """

    def __init__(self, minute_dim: int, kernel_sizes: tuple[int, ...], num_feature_maps: int) -> None:
        super().__init__()
        self.convolutions: Sequence[nn.Conv1d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv1d(minute_dim, num_feature_maps, size) for size in kernel_sizes
        )
        self.widest = max(kernel_sizes)

    def forward(
        self, minutes: Float[Tensor, "minutes minute_dim"], span_lengths: Int[Tensor, " spans"]
    ) -> Float[Tensor, "spans span_dim"]:
        """Encode packed spans: the first `span_lengths[0]` minutes are the first span's, and so on."""
        bias = torch.cat([cast(Tensor, convolution.bias) for convolution in self.convolutions])
        if len(span_lengths) == 0:  # no window has events, and torch refuses to convolve nothing
            return bias.expand(0, -1)
        strongest = segment_max(convolve_spans(minutes, span_lengths, self._kernel()), span_lengths)
        return F.relu(strongest + bias)  # equals the maximum over ReLU outputs, since both only ever grow

    def _kernel(self) -> Float[Tensor, "widest minute_dim span_dim"]:
        """All convolutions as one: narrower kernels see the last minutes of the widest window."""
        wide = [F.pad(c.weight, (self.widest - c.kernel_size[0], 0)) for c in self.convolutions]
        return torch.cat(wide).permute(2, 1, 0)


def convolve_spans(
    minutes: Float[Tensor, "minutes minute_dim"],
    span_lengths: Int[Tensor, " spans"],
    kernel: Float[Tensor, "widest minute_dim span_dim"],
) -> Float[Tensor, "minutes span_dim"]:
    """Convolve each span with zeros before it; the result at a minute is that of the window which ends there."""
    widest = len(kernel)
    span = torch.repeat_interleave(torch.arange(len(span_lengths), device=minutes.device), span_lengths)
    row = torch.arange(len(minutes), device=minutes.device) + (span + 1) * (widest - 1)
    laid_out = minutes.new_zeros(len(minutes) + len(span_lengths) * (widest - 1), minutes.shape[1])
    laid_out = laid_out.index_copy(0, row, minutes)
    convolved = F.conv1d(laid_out.T.unsqueeze(0), kernel.permute(2, 1, 0)).squeeze(0).T
    return F.embedding(row - (widest - 1), convolved)


def segment_max(
    values: Float[Tensor, "minutes span_dim"], lengths: Int[Tensor, " spans"]
) -> Float[Tensor, "spans span_dim"]:
    """The maximum over each run of rows; no run may be empty."""
    return torch.segment_reduce(values, "max", lengths=lengths, axis=0)
