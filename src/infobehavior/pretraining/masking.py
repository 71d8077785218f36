"""Dynamic masking (section 3.4.2): spans are chosen anew at each step."""

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


def draw_mask(
    window_lengths: Int[Tensor, " windows"], mask_rate: float, generator: np.random.Generator
) -> Bool[Tensor, " spans"]:
    """Choose the spans to mask: of each window its share, rounded, at least one and never all.

    A window with a single span keeps it: nothing would be left to predict it from, nor to build `g` from.

    Args:
        window_lengths: spans of each window.
        mask_rate: share of a window's spans.
        generator: decides which.

    Returns:
        True where a span is masked.
    """
    lengths = window_lengths.numpy()
    window = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((generator.random(len(window)), window))
    rank = np.empty(len(window), dtype=np.int64)
    rank[order] = np.arange(len(window)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    num_masked = np.where(lengths > 1, np.clip(np.rint(lengths * mask_rate), 1, lengths - 1), 0)
    return torch.from_numpy(rank < num_masked[window])
