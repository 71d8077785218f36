"""Span representations (section 3.1.2): a multi-window convolution over a span's minutes, and max-pooling (TextCNN)."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from infobehavior.model.span_pooling import strongest_windows


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
        strongest = strongest_windows(minutes, span_lengths, self.kernel())
        return F.relu(strongest + bias)  # equals the maximum over ReLU outputs, since both only ever grow

    def kernel(self) -> Float[Tensor, "widest minute_dim span_dim"]:
        """All convolutions as one: narrower kernels see the last minutes of the widest window."""
        wide = [F.pad(c.weight, (self.widest - c.kernel_size[0], 0)) for c in self.convolutions]
        return torch.cat(wide).permute(2, 1, 0)
