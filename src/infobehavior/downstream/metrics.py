"""The metrics of 4.2.3, and recall at a fixed precision: what a risk team works by."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    normalized_mutual_info_score,
    precision_recall_curve,
    roc_auc_score,
)
from sklearn.preprocessing import StandardScaler

MOST_SEED = 2**32 - 1
"""What scikit-learn takes as a seed goes from 0 to this."""
NMI_SEEDS = 5
NMI_NEGATIVES_PER_POSITIVE = 20


def recall_at_precision(positive: NDArray[np.bool_], scores: NDArray[np.float64], precision: float) -> float:
    """The highest recall of a threshold whose precision is at least `precision`; 0 if no threshold has it.

    Entities of equal score are taken or left together.

    Example:
        >>> recall_at_precision(np.array([True, True, False, True]), np.array([0.9, 0.8, 0.7, 0.6]), 0.95)
        0.6666666666666666
    """
    precisions, recalls, _ = precision_recall_curve(positive, scores)
    # The last point (precision 1, recall 0) belongs to no threshold; its recall of 0 changes no maximum.
    return float(recalls[precisions >= precision].max())


def best_f1_threshold(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """The threshold with the best F1: an entity counts as positive when its score reaches it."""
    precisions, recalls, thresholds = precision_recall_curve(positive, scores)
    total = precisions + recalls
    f1 = np.divide(2 * precisions * recalls, total, out=np.zeros_like(total), where=total > 0)
    return float(thresholds[np.argmax(f1[:-1])])


def fold_metrics(positive: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """The metrics of one test fold, which must hold both classes.

    Args:
        positive: True for the positive class.
        scores: higher is more likely positive.
        threshold: for F1; chosen on other data.
    """
    return {
        "auc": float(roc_auc_score(positive, scores)),
        "average_precision": float(average_precision_score(positive, scores)),
        "recall_at_precision_95": recall_at_precision(positive, scores, 0.95),
        "recall_at_precision_50": recall_at_precision(positive, scores, 0.50),
        "f1": float(f1_score(positive, scores >= threshold, zero_division=0.0)),
    }


def kind_metrics(positive: NDArray[np.bool_], scores: NDArray[np.float64], kind: NDArray[np.str_]) -> dict[str, float]:
    """`auc[kind]` of each kind of positives, against all negatives."""
    found = {}
    for name in np.unique(kind[positive]):
        rows = ~positive | (kind == name)
        found[f"auc[{name}]"] = float(roc_auc_score(positive[rows], scores[rows]))
    return found


def clustering_nmi(
    features: NDArray[np.floating], positive: NDArray[np.bool_], seed: int, *, exactly: bool = False
) -> tuple[float, float]:
    """NMI of k-means clusters and classes: how well features separate the classes without a classifier (4.2.3).

    As many clusters as classes, on standardised features. Where positives are rarer than 1:20, negatives are
    under-sampled to that ratio, as the paper does.

    Args:
        features: one row an entity.
        positive: True for the positive class.
        seed: of what is drawn, and of k-means.
        exactly: whether positives that are more frequent than 1:20 are drawn, too, so that the ratio is the paper's.

    Returns:
        Mean and standard deviation (of a sample, n - 1) over 5 seeds of under-sampling and k-means.
    """
    values = []
    for run in range(NMI_SEEDS):
        rows = _undersampled(positive, np.random.default_rng([seed, run]), exactly)
        clusters = _clusters(StandardScaler().fit_transform(features[rows].astype(np.float64)), seed + run)
        values.append(normalized_mutual_info_score(positive[rows], clusters))
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _clusters(standardised: NDArray[np.float64], seed: int) -> NDArray[np.integer]:
    """The cluster of each row, of two; of equal rows there is one."""
    if (standardised == standardised[0]).all():
        return np.zeros(len(standardised), dtype=np.int64)
    clusters: NDArray[np.integer] = KMeans(2, n_init=4, random_state=seed % (MOST_SEED + 1)).fit_predict(standardised)
    return clusters


def _undersampled(positive: NDArray[np.bool_], random: np.random.Generator, exactly: bool) -> NDArray[np.intp]:
    """Positive rows and at most 20 negative rows for each; all positive ones, unless the ratio is to be exact."""
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    if exactly:
        fewest = max(1, len(negatives) // NMI_NEGATIVES_PER_POSITIVE)
        positives = _at_most(fewest, positives, random)
    negatives = _at_most(NMI_NEGATIVES_PER_POSITIVE * len(positives), negatives, random)
    return np.sort(np.concatenate([positives, negatives]))


def _at_most(count: int, rows: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.intp]:
    return random.choice(rows, count, replace=False) if len(rows) > count else rows
