"""Late fusion: two models, each on features of its own, and the mean of what they say."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from contest.judging import Asked, Measured, classify
from contest.squares import QUADRATIC
from infobehavior.downstream.classifiers import CLASSIFIERS, Choice, Classifier, Part, Scores

LATE = "late: "
"""Before the name of the hand-made features, alone or with a representation."""

WITH_REPRESENTATION, MANUAL_ALONE, MANUAL_ON_VALUES = "late", "late, manual alone", "late, manual alone, on values"
"""What stands in place of a classifier. Beside LightGBM on manual, a logistic regression sees a representation; or
manual, too, with squares if better; or manual without squares. The goals take the better of the last two."""

_LINEAR = "logistic regression (with squares if better)"
LATE_TITLES = {
    WITH_REPRESENTATION: f"mean of two: LightGBM on manual, {_LINEAR} on the representation",
    MANUAL_ALONE: f"mean of two: LightGBM and {_LINEAR}, both on manual",
    MANUAL_ON_VALUES: "mean of two: LightGBM and logistic regression on values alone, both on manual",
}

LATE_VERSION = 2
"""Counts up when the rows are judged in another way. Until 1 the logistic regression saw no squares."""

LEAST_PROBABILITY = 1e-6
"""Nearer to 0 or to 1 than this, no model of the two is believed."""


def classify_late(
    asked: Asked, manual: NDArray[np.floating], vectors: NDArray[np.floating] | None, seed: int, grouped: bool
) -> Measured:
    """Metrics of each test fold of the part, as `classify` has them.

    Args:
        asked: the windows.
        manual: hand-made features, one row a moment.
        vectors: of a representation, likewise; None if the other model sees the hand-made features, too.
        seed: of the folds and models.
        grouped: whether a group is never on both sides of a split.
    """
    features = np.hstack([manual, manual if vectors is None else vectors])
    others = {WITH_REPRESENTATION: QUADRATIC}
    if vectors is None:
        others = {MANUAL_ALONE: QUADRATIC, MANUAL_ON_VALUES: CLASSIFIERS["lr"]}
    classifiers = {name: late_fusion(manual.shape[1], LATE_TITLES[name], other) for name, other in others.items()}
    return classify(asked, features, seed, grouped, classifiers)


def late_fusion(num_manual: int, title: str, other: Classifier) -> Classifier:
    """LightGBM on the first columns and another classifier on the others: the mean of their log-odds.

    Each chooses its own setting, as it does alone; that the two count alike is no choice.

    Args:
        num_manual: how many columns the first model sees.
        title: for people.
        other: what sees the other columns.
    """
    return Classifier(title, partial(_choose, num_manual, other), partial(_fit, num_manual, other))


def mean_of_two(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities whose log-odds are the means of those of two models."""
    log_odds = [logit(np.clip(scores, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)) for scores in (one, other)]
    mean: NDArray[np.float64] = expit((log_odds[0] + log_odds[1]) / 2)
    return mean


def _choose(num_manual: int, other: Classifier, train: Part, held_out: Part, seed: int) -> Choice:
    models = CLASSIFIERS["gbdt"], other
    pairs = zip(models, _apart(train, num_manual), _apart(held_out, num_manual), strict=True)
    choices = [model.choose(of_train, of_held_out, seed) for model, of_train, of_held_out in pairs]
    scores = mean_of_two(*(choice.held_out_scores for choice in choices))
    return Choice(tuple(choice.setting for choice in choices), scores, held_out.loss(scores))


def _fit(num_manual: int, other: Classifier, train: Part, settings: tuple[Any, Any], seed: int) -> Scores:
    parts = zip((CLASSIFIERS["gbdt"], other), _apart(train, num_manual), settings, strict=True)
    of_first, of_others = (model.fit(part, setting, seed) for model, part, setting in parts)
    return lambda features: mean_of_two(of_first(features[:, :num_manual]), of_others(features[:, num_manual:]))


def _apart(part: Part, num_manual: int) -> tuple[Part, Part]:
    """The same rows as each of the two sees them."""
    features = (part.features[:, :num_manual], part.features[:, num_manual:])
    one, other = (Part(columns, part.positive, part.weights) for columns in features)
    return one, other
