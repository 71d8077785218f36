"""Domain-related tasks (section 3.3.3): read a statistic of the whole window off its global representation."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infobehavior.pretext.labels import UNKNOWN_LABEL
from infobehavior.pretext.months import MonthPairs


class CountTask(nn.Module):
    """Equation 5: a linear layer and a softmax over classes of a count, averaged over the windows of the batch
    whose count is known.

    Args:
        name: key of the labels.
        model_dim: size of a global representation.
        num_classes: M of equation 5.
    """

    def __init__(self, name: str, model_dim: int, num_classes: int) -> None:
        super().__init__()
        self.name = name
        self.classifier = nn.Linear(model_dim, num_classes)

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        labels = months.labels[self.name]
        is_known = labels != UNKNOWN_LABEL
        losses = F.cross_entropy(self.classifier(months.global_repr[is_known]), labels[is_known], reduction="sum")
        return losses / is_known.sum().clamp(min=1)


class TotalsTask(nn.Module):
    """Beyond the paper: logarithms of several totals at once, by squared error, summed over them.

    Args:
        name: key of the labels, (windows, totals).
        model_dim: size of a global representation.
        num_classes: totals.
    """

    def __init__(self, name: str, model_dim: int, num_classes: int) -> None:
        super().__init__()
        self.name = name
        self.regressor = nn.Linear(model_dim, num_classes)

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        labels = months.labels[self.name]
        return F.mse_loss(self.regressor(months.global_repr), labels, reduction="sum") / (2 * len(labels))


class HistogramTask(nn.Module):
    """Beyond the paper: the distribution of a window's minutes, as a softmax; the loss is the divergence from it.

    Args:
        name: key of the labels, which are shares that sum to one.
        model_dim: size of a global representation.
        num_classes: bars of the histogram.
    """

    def __init__(self, name: str, model_dim: int, num_classes: int) -> None:
        super().__init__()
        self.name = name
        self.classifier = nn.Linear(model_dim, num_classes)

    def forward(self, months: MonthPairs) -> Float[Tensor, ""]:
        """The loss of a batch."""
        predicted = F.log_softmax(self.classifier(months.global_repr), dim=1)
        return F.kl_div(predicted, months.labels[self.name], reduction="batchmean")
