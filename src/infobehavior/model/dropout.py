"""Dropout that draws little."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout as ever; on the processor four decisions share a random number, since drawing them takes longest.

    Args:
        probability: share of numbers that are set to zero in training, to 1 / 65,536.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.num_dropped = round(probability * 2**16)

    def forward(self, x: Float[Tensor, "rows model_dim"]) -> Float[Tensor, "rows model_dim"]:
        """Set some numbers to zero and scale the others up."""
        if not self.training or self.num_dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.num_dropped / 2**16)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = torch.ge(drawn[: x.numel()].view_as(x), self.num_dropped - 2**15, out=torch.empty_like(x))
        return x * kept.mul_(2**16 / (2**16 - self.num_dropped))
