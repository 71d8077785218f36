"""Domain-related tasks (section 3.3.3): tell a statistic of the whole window from its global representation.

The linear layers that read it off belong to the model (`model.readouts`) and are kept with it; the losses are here.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infobehavior.model.readouts import LabelKind
from infobehavior.pretext.labels import UNKNOWN_LABEL
from infobehavior.pretext.months import MonthPairs


class CountTask(nn.Module):
    """Equation 5: a softmax over classes of a count, averaged over the windows of the batch whose count is known.

    Args:
        name: key of the labels.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        labels = months.labels[self.name]
        is_known = labels != UNKNOWN_LABEL
        losses = F.cross_entropy(months.read[self.name][is_known], labels[is_known], reduction="sum")
        return losses / is_known.sum().clamp(min=1)


class TotalsTask(nn.Module):
    """Beyond the paper: logarithms of several totals at once, by half the squared error, summed over them.

    Args:
        name: key of the labels, (windows, totals).
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        labels = months.labels[self.name]
        return F.mse_loss(months.read[self.name], labels, reduction="sum") / (2 * len(labels))


class HistogramTask(nn.Module):
    """Beyond the paper: the distribution of a window's minutes, as a softmax; the loss is the divergence from it.

    Args:
        name: key of the labels, which are shares that sum to one.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        predicted = F.log_softmax(months.read[self.name], dim=1)
        return F.kl_div(predicted, months.labels[self.name], reduction="batchmean")


DOMAIN_TASKS: dict[LabelKind, type[CountTask | HistogramTask | TotalsTask]] = {
    "class": CountTask,
    "shares": HistogramTask,
    "logarithms": TotalsTask,
}
"""The task of each kind of label."""
