"""Logistic regression that may also see the squares of what it is given."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from infobehavior.downstream.classifiers import CLASSIFIERS, Choice, Classifier, Part, Scores

SQUARES = "squares: "
"""Before the name of a representation, or of the hand-made features."""

WITH_SQUARES = "lr, squares if better"
"""What stands in place of a classifier."""

FARTHEST = 4.0
"""Standard deviations; what is farther from the mean is squared as if it were so far."""


def with_squares(standardised: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised features, and then the square of each: how far an account is from the average, either way."""
    return np.hstack([standardised, np.clip(standardised, -FARTHEST, FARTHEST) ** 2])


def _choose(train: Part, held_out: Part, seed: int) -> Choice:
    """The setting says whether squares are seen, and C of the logistic regression."""
    choices = []
    for sees_squares in (False, True):
        view = _view(train, sees_squares)
        choice = _linear().choose(_seen(train, view), _seen(held_out, view), seed)
        choices.append(Choice((sees_squares, choice.setting), choice.held_out_scores, choice.loss))
    return min(choices, key=lambda choice: choice.loss)


def _fit(train: Part, setting: tuple[bool, float], seed: int) -> Scores:
    sees_squares, strength = setting
    view = _view(train, sees_squares)
    scores = _linear().fit(_seen(train, view), strength, seed)
    return lambda features: scores(view(features))


def _view(train: Part, sees_squares: bool) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Features, as the logistic regression gets them; the scale of squares is that of the rows that are learnt from."""
    if not sees_squares:
        return lambda features: features
    scaler = StandardScaler().fit(train.features)
    return lambda features: with_squares(scaler.transform(features))


def _seen(part: Part, view: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Part:
    return Part(view(part.features), part.positive, part.weights)


def _linear() -> Classifier:
    return CLASSIFIERS["lr"]


QUADRATIC = Classifier("Logistic regression (with squares if better)", _choose, _fit)
"""Whether squares are seen is chosen as C is: by the held-out part of the training fold."""
