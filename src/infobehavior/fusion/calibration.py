"""Scores as probabilities, learnt from the validation part; and how far probabilities are from what happens."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NUM_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities.

    Attributes:
        method: "none" leaves the logistic function.
        x: of "platt" slope and intercept; of "isotonic" the logits between which it is interpolated.
        y: of "isotonic" the probabilities there.
    """

    method: Literal["platt", "isotonic", "none"]
    x: Floats
    y: Floats

    def __post_init__(self) -> None:
        expected = {"none": (0,), "platt": (2,), "isotonic": self.y.shape}[self.method]
        if self.x.ndim != 1 or self.x.shape != expected:
            raise ValueError(f"a calibration by {self.method} has {self.x.shape} numbers")

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of the positive class."""
        if self.method == "isotonic":
            next_place = np.minimum(np.searchsorted(self.x, logits, side="right"), len(self.x) - 1)
            return np.minimum(np.interp(logits, self.x, self.y), self.y[next_place])  # rounding may lead beyond
        slope, intercept = self.x if self.method == "platt" else (1.0, 0.0)
        return np.asarray(expit(slope * logits + intercept))


UNCALIBRATED = Calibration("none", np.zeros(0), np.zeros(0))


def calibrate(method: Literal["platt", "isotonic", "none"], logits: Floats, positive: Mask) -> Calibration:
    """Learn a calibration; where Platt's would turn the order of scores around, they are left as they are.

    Args:
        method: Platt's sigmoid has one shape; isotonic regression has any that doesn't fall, and needs many positives.
            Both keep the order of all scores of the validation part.
        logits: of the validation part.
        positive: True for the positive class; both classes are there.
    """
    if method == "none":
        return UNCALIBRATED
    if method == "isotonic":
        return Calibration("isotonic", *_isotonic(logits, positive))
    slope, intercept = _platt(logits, positive)
    return Calibration("platt", np.array([slope, intercept]), np.zeros(0)) if slope > 0 else UNCALIBRATED


def _isotonic(logits: Floats, positive: Mask) -> tuple[Floats, Floats]:
    """Centred isotonic regression (Oron and Flournoy, 2017): straight lines between the middles of its steps.

    Plain isotonic regression gives all scores of a step one probability, and steps end where the answers of the
    validation part happen to turn. A threshold that is chosen by the same answers could then only stand at such lucky
    places, and would claim a precision too often. So nothing is tied, at both ends neither, but for scores that are
    nearer to each other than probabilities can be.
    """
    rank = np.unique(logits, return_inverse=True)[1]  # scikit-learn takes scores for equal that hardly differ
    fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(rank.astype(np.float64), positive)
    step, place, count = np.unique(fitted, return_inverse=True, return_counts=True)
    middle = np.clip(np.bincount(place, weights=logits) / count, *_ends(place, logits))
    share = (step * len(logits) + 0.5) / (len(logits) + 1)  # never 0 or 1, and there is room beside the outermost
    margin = 0.25 / (len(logits) + 1)
    x = np.array([logits.min(), *middle, logits.max()])
    y = np.array([share[0] - margin, *share, share[-1] + margin])
    rises = np.concatenate([[x[0] < middle[0]], np.ones(len(middle), np.bool_), [middle[-1] < x[-1]]])
    return x[rises], y[rises]


def _ends(place: NDArray[np.intp], logits: Floats) -> tuple[Floats, Floats]:
    """The lowest and the highest logit of each step; the mean of equal ones is beside them in the last digit."""
    lowest, highest = np.full(place.max() + 1, np.inf), np.full(place.max() + 1, -np.inf)
    np.minimum.at(lowest, place, logits)
    np.maximum.at(highest, place, logits)
    return lowest, highest


def _platt(logits: Floats, positive: Mask) -> tuple[float, float]:
    """Platt's sigmoid, with his targets, which aren't quite 0 and 1 (Platt, 1999): each row is half of both classes."""
    num_positives = int(positive.sum())
    target = np.where(positive, (num_positives + 1) / (num_positives + 2), 1 / (len(positive) - num_positives + 2))
    rows = np.concatenate([logits, logits])[:, None]
    classes = np.repeat([True, False], len(logits))
    scale = max(float(np.std(logits)), 1e-12)
    model = LogisticRegression(C=1e6, max_iter=1_000)
    model.fit(rows / scale, classes, sample_weight=np.concatenate([target, 1 - target]))
    return float(model.coef_[0, 0] / scale), float(model.intercept_[0])


@dataclass(frozen=True)
class ReliabilityBin:
    """Examples of like probability.

    Attributes:
        probability: their mean.
        share: of them that are positive.
        count: how many they are.
    """

    probability: float
    share: float
    count: int


def reliability(positive: Mask, probabilities: Floats) -> list[ReliabilityBin]:
    """Examples in ten bins of about equal size, by probability; those of equal probability are in one bin."""
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, probabilities, side="left")
    return [
        ReliabilityBin(
            float(probabilities[bins == number].mean()),
            float(positive[bins == number].mean()),
            int((bins == number).sum()),
        )
        for number in np.unique(bins)
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """How far probabilities are from shares, on average over the examples of `reliability`."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.probability - one.share) for one in bins) / total
