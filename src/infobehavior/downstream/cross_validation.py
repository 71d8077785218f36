"""Cross-validation in which a test fold decides nothing: all that is chosen is chosen inside the training fold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from infobehavior.downstream.classifiers import Classifier, Part
from infobehavior.downstream.metrics import best_f1_threshold, fold_metrics
from infobehavior.errors import InputError

INNER_SPLITS = 5
"""One part of this many of a training fold is held out to choose by."""

OVERSAMPLE = 4
"""In how many copies a positive counts in training (4.2.3)."""


@dataclass(frozen=True)
class Fold:
    """Rows of one round.

    Attributes:
        train: the whole training fold.
        test: only ever predicted.
        inner_train: positions within `train` to train on while choosing.
        held_out: positions within `train` to choose by.
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    inner_train: NDArray[np.intp]
    held_out: NDArray[np.intp]


@dataclass(frozen=True)
class CrossValidated:
    """What one classifier reached on one feature set.

    Attributes:
        metrics: the metrics of each test fold.
        scores: for each row, the probability from the model that didn't see its fold.
        settings: what was chosen in each fold.
    """

    metrics: list[dict[str, float]]
    scores: NDArray[np.float64]
    settings: list[Any]

    def values(self, metric: str) -> NDArray[np.float64]:
        """One metric, by fold."""
        return np.array([fold[metric] for fold in self.metrics])


def make_folds(positive: NDArray[np.bool_], groups: NDArray[np.int64] | None, folds: int, seed: int) -> list[Fold]:
    """Split rows into folds with about the same share of positives; a group is never on both sides of a split.

    Args:
        positive: True for the positive class.
        groups: equal numbers stay together; None if each row stands alone.
        folds: at least 2.
        seed: decides the shuffle.

    Raises:
        InputError: too few rows, or groups, of a class, or too few groups in all.
    """
    _require_enough(positive, folds)
    if groups is not None and (num_groups := len(np.unique(groups))) < folds:
        raise InputError(
            f"only {num_groups} groups among {len(positive)} windows that have a label: {folds} folds need at least "
            f"{folds}; use fewer folds or a finer group"
        )
    made = []
    for train, test in _splits(positive, groups, folds, seed):
        inner_groups = None if groups is None else groups[train]
        if not _has_both(positive[test]):
            raise InputError(_too_few_groups(positive, groups, folds))
        inner = _inner_split(positive[train], inner_groups, seed)
        if inner is None:
            raise InputError(_too_few_groups(positive, groups, folds))
        made.append(Fold(train, test, *inner))
    return made


def _require_enough(positive: NDArray[np.bool_], folds: int) -> None:
    if folds < 2:
        raise InputError(f"folds must be 2 or more, got {folds}")
    # A training fold must hold two of each class: one to train on and one to choose by.
    needed = max(folds, 4)
    num_positives = int(positive.sum())
    rarer = min((num_positives, "positives"), (len(positive) - num_positives, "negatives"))
    if rarer[0] == 0:
        raise InputError(f"the {len(positive)} windows that have a label are of one class: no {rarer[1]} among them")
    if rarer[0] < needed:
        raise InputError(
            f"only {rarer[0]} {rarer[1]} among {len(positive)} windows that have a label: {folds} folds need at least "
            f"{needed}"
        )


def _splits(
    positive: NDArray[np.bool_], groups: NDArray[np.int64] | None, folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    rows = np.zeros(len(positive))
    return list(splitter(folds, shuffle=True, random_state=seed).split(rows, positive, groups))


def _inner_split(
    positive: NDArray[np.bool_], groups: NDArray[np.int64] | None, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """The first split of a training fold whose two parts both hold both classes."""
    rarest = int(min(positive.sum(), (~positive).sum()))
    if groups is not None:
        rarest = min(rarest, len(np.unique(groups)))
    if rarest < 2:
        return None
    splits = _splits(positive, groups, min(INNER_SPLITS, rarest), seed)
    usable = ((a, b) for a, b in splits if _has_both(positive[a]) and _has_both(positive[b]))
    return next(usable, None)


def _has_both(positive: NDArray[np.bool_]) -> bool:
    return bool(positive.any() and not positive.all())


def _too_few_groups(positive: NDArray[np.bool_], groups: NDArray[np.int64] | None, folds: int) -> str:
    assert groups is not None, "rows of their own can always be spread over the folds"
    of_positives, of_negatives = (len(np.unique(groups[rows])) for rows in (positive, ~positive))
    return (
        f"the positives are in {of_positives} groups and the negatives in {of_negatives}: too few, or too unequal, for "
        f"{folds} folds with both classes in each; use fewer folds or a finer group"
    )


def cross_validate(
    features: NDArray[np.float64],
    positive: NDArray[np.bool_],
    folds: list[Fold],
    classifier: Classifier,
    *,
    seed: int,
    oversample: int = OVERSAMPLE,
    advance: Callable[[], None] = lambda: None,
) -> CrossValidated:
    """Choose, refit and test a classifier in each fold.

    Args:
        features: one row an entity.
        positive: True for the positive class.
        folds: from `make_folds`.
        classifier: what to train.
        seed: of the classifier.
        oversample: in how many copies a positive counts in training and choosing; a test fold counts each row once.
        advance: is called after each fold.
    """
    data = Part(features, positive, np.where(positive, float(oversample), 1.0))
    scores, metrics, settings = np.zeros(len(positive)), [], []
    for fold in folds:
        train = data.rows(fold.train)
        held_out = train.rows(fold.held_out)
        choice = classifier.choose(train.rows(fold.inner_train), held_out, seed)
        threshold = best_f1_threshold(held_out.positive, choice.held_out_scores)
        scores[fold.test] = classifier.fit(train, choice.setting, seed)(features[fold.test])
        metrics.append(fold_metrics(positive[fold.test], scores[fold.test], threshold))
        settings.append(choice.setting)
        advance()
    return CrossValidated(metrics, scores, settings)
