"""Domain-related tasks (section 3.3.3): tell a statistic of the whole window from its global representation.

The linear layers that read it off belong to the model (`model.readouts`) and are kept with it; the losses are here.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infobehavior.model.readouts import LabelKind
from infobehavior.pretext.labels import UNKNOWN_LABEL
from infobehavior.pretext.months import MonthPairs


class DomainTask(nn.Module):
    """What all of them have.

    Args:
        name: key of the labels, and of what is read off the windows to tell them.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class CountTask(DomainTask):
    """Equation 5: a softmax over classes of a count, averaged over the windows of the batch whose count is known."""

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        labels = months.labels[self.name]
        is_known = labels != UNKNOWN_LABEL
        losses = F.cross_entropy(months.read[self.name][is_known], labels[is_known], reduction="sum")
        return losses / is_known.sum().clamp(min=1)


class TotalsTask(DomainTask):
    """Beyond the paper: logarithms of several totals at once, by half the squared error, summed over them."""

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        labels = months.labels[self.name]
        return F.mse_loss(months.read[self.name], labels, reduction="sum") / (2 * len(labels))


class HistogramTask(DomainTask):
    """Beyond the paper: the distribution of a window's minutes, as a softmax; the loss is the divergence from it."""

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        predicted = F.log_softmax(months.read[self.name], dim=1)
        return F.kl_div(predicted, months.labels[self.name], reduction="batchmean")


DOMAIN_TASKS: dict[LabelKind, type[DomainTask]] = {
    "class": CountTask,
    "shares": HistogramTask,
    "logarithms": TotalsTask,
}
"""The task of each kind of label."""
