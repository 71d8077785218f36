"""Fine-grained prediction (section 3.3.2): which masked span belongs at this place?"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from infobehavior.pretext.months import MonthPairs, similarity


class FineTask(nn.Module):
    """Equations 3 and 4, averaged over the entities of the batch.

    A masked span competes with the masked spans of the other entities in the same month of the batch, never with
    those of its own entity.

    Args:
        kind: similarity, "dot" as in the paper or "cosine".
        temperature: divides similarities.
        reduction: "sum" over an entity's masked spans, as equation 3 has it, or the "mean" over all masked spans.
    """

    def __init__(self, kind: str = "dot", temperature: float = 1.0, reduction: str = "sum") -> None:
        super().__init__()
        self.kind = kind
        self.temperature = temperature
        self.reduction = reduction

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        in_first_month = months.span_window < months.num_entities
        return self.one_month(months, in_first_month) + self.one_month(months, ~in_first_month)

    def one_month(self, months: MonthPairs, in_month: Bool[Tensor, " spans"]) -> Float[Tensor, ""]:
        """Equation 3 for one of the two months."""
        chosen = in_month.nonzero().squeeze(1)
        window = months.span_window[chosen]
        logits = similarity(months.local_repr[chosen], months.span_repr[chosen], self.kind, self.temperature)
        is_negative = window[:, None] != window[None, :]
        is_positive = torch.eye(len(chosen), dtype=torch.bool, device=chosen.device)
        logits = logits.masked_fill(~(is_negative | is_positive), -torch.inf)
        losses = F.cross_entropy(logits, torch.arange(len(chosen), device=chosen.device), reduction="sum")
        return losses / max(1, months.num_entities if self.reduction == "sum" else len(chosen))
