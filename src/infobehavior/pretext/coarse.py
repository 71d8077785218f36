"""Coarse-grained prediction (section 3.3.1): which two months are the same entity's?"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infobehavior.pretext.months import MonthPairs, similarity


class CoarseTask(nn.Module):
    """Equations 1 and 2, averaged over the entities of the batch.

    Args:
        kind: similarity, "dot" as in the paper or "cosine".
        temperature: divides similarities.
        negatives: "other_month": the other entities' opposite month, as equation 1 pairs them;
            "both_months": the other entities' same month as well.
    """

    def __init__(self, kind: str = "dot", temperature: float = 1.0, negatives: str = "other_month") -> None:
        super().__init__()
        self.kind = kind
        self.temperature = temperature
        self.negatives = negatives

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        first, second = torch.split(months.global_repr, months.num_entities)
        return self.one_way(first, second) + self.one_way(second, first)

    def one_way(
        self, anchors: Float[Tensor, "entities model_dim"], others: Float[Tensor, "entities model_dim"]
    ) -> Float[Tensor, ""]:
        """Equation 1: pick each anchor's own other month among all entities' other months."""
        logits = similarity(anchors, others, self.kind, self.temperature)
        if self.negatives == "both_months":
            same_month = similarity(anchors, anchors, self.kind, self.temperature)
            itself = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
            logits = torch.cat([logits, same_month.masked_fill(itself, -torch.inf)], dim=1)
        return F.cross_entropy(logits, torch.arange(len(anchors), device=anchors.device))
