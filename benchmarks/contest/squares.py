"""Logistic regression that also sees the squares of what it is given."""

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from infobehavior.downstream.classifiers import CLASSIFIERS, Choice, Classifier, Part, Scores

SQUARES = "squares: "
"""Before the name of a representation, or of the hand-made features."""

WITH_SQUARES = "lr, squares"
"""What stands in place of a classifier."""

FARTHEST = 4.0
"""Standard deviations; what is farther from the mean is squared as if it were so far."""


def with_squares(standardised: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised features, and then the square of each: how far an account is from the average, either way."""
    return np.hstack([standardised, np.clip(standardised, -FARTHEST, FARTHEST) ** 2])


def _choose(train: Part, held_out: Part, seed: int) -> Choice:
    scaler = StandardScaler().fit(train.features)
    return _linear().choose(_widened(train, scaler), _widened(held_out, scaler), seed)


def _fit(train: Part, strength: float, seed: int) -> Scores:
    scaler = StandardScaler().fit(train.features)
    scores = _linear().fit(_widened(train, scaler), strength, seed)
    return lambda features: scores(with_squares(scaler.transform(features)))


def _linear() -> Classifier:
    return CLASSIFIERS["lr"]


def _widened(part: Part, scaler: StandardScaler) -> Part:
    return Part(with_squares(scaler.transform(part.features)), part.positive, part.weights)


QUADRATIC = Classifier("Logistic regression on values and squares", _choose, _fit)
