import itertools
import math

import numpy as np
import pytest

from infobehavior.downstream import metrics
from infobehavior.downstream.metrics import (
    _undersampled,
    best_f1_threshold,
    clustering_nmi,
    fold_metrics,
    recall_at_precision,
)

POSITIVE = np.array([True, True, False, True, False, False])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1])


def loops(positive, scores):
    """(threshold, precision, recall) of each threshold."""
    for threshold in sorted(set(scores)):
        flagged = [score >= threshold for score in scores]
        hits = sum(f and p for f, p in zip(flagged, positive, strict=True))
        yield threshold, hits / sum(flagged), hits / sum(positive)


@pytest.mark.parametrize(("precision", "recall"), [(1.0, 2 / 3), (0.95, 2 / 3), (0.75, 1.0), (0.5, 1.0)])
def test_recall_at_precision_by_hand(precision, recall):
    assert recall_at_precision(POSITIVE, SCORES, precision) == pytest.approx(recall)


def test_recall_is_zero_where_no_threshold_is_precise_enough():
    assert recall_at_precision(POSITIVE, -SCORES, 0.95) == 0.0


def test_equal_scores_are_taken_together():
    assert recall_at_precision(np.array([True, False]), np.array([0.5, 0.5]), 0.95) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_recall_and_threshold_equal_loops(seed):
    random = np.random.default_rng(seed)
    positive = np.append(random.random(30) < 0.3, [True, False])
    scores = random.integers(0, 12, 32) / 12
    curve = list(loops(positive, scores))
    for precision in (0.95, 0.5):
        best = max((r for _, p, r in curve if p >= precision), default=0.0)
        assert recall_at_precision(positive, scores, precision) == pytest.approx(best)
    threshold = best_f1_threshold(positive, scores)
    f1 = {t: 2 * p * r / (p + r) if p + r else 0.0 for t, p, r in curve}
    assert f1[threshold] == pytest.approx(max(f1.values()))


def test_fold_metrics_by_hand():
    metrics = fold_metrics(POSITIVE, SCORES, 0.65)
    pairs = list(itertools.product(SCORES[POSITIVE], SCORES[~POSITIVE]))
    assert metrics["auc"] == pytest.approx(sum(a > b for a, b in pairs) / len(pairs))
    assert metrics["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert metrics["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_a_threshold_that_flags_nobody_has_f1_zero():
    assert fold_metrics(POSITIVE, SCORES, 2.0)["f1"] == 0.0


def test_nmi_is_one_for_clusters_that_are_the_classes_and_near_zero_for_noise():
    random = np.random.default_rng(0)
    positive = np.arange(200) < 60
    mean, spread = clustering_nmi(random.normal(size=(200, 3)) + 20 * positive[:, None], positive, seed=0)
    assert (mean, spread) == (pytest.approx(1.0), pytest.approx(0.0))
    assert clustering_nmi(random.normal(size=(200, 3)), positive, seed=0)[0] < 0.1


def test_the_spread_of_nmi_is_that_of_a_sample_of_five_seeds(monkeypatch):
    found = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    monkeypatch.setattr(metrics, "normalized_mutual_info_score", lambda *_: next(found))
    mean, spread = clustering_nmi(np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) < 5, seed=0)
    assert (mean, spread) == (pytest.approx(0.3), pytest.approx(math.sqrt(0.1 / 4)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e12])
def test_nmi_of_features_that_are_all_equal_is_zero(value):
    assert clustering_nmi(np.full((50, 3), value), np.arange(50) < 20, seed=2**32 - 1) == (0.0, 0.0)


def test_nmi_under_samples_negatives_to_one_in_twenty():
    # 5 positives in one place, 100 of 4000 negatives are kept; with all of them NMI would be lower.
    random = np.random.default_rng(0)
    positive = np.arange(4005) < 5
    features = np.where(positive, 1.0, 0.0)[:, None] * 50 + random.normal(size=(4005, 1)) * 0.01
    assert clustering_nmi(features, positive, seed=0)[0] == pytest.approx(1.0)


def test_nmi_draws_positives_as_well_where_the_ratio_is_to_be_exact():
    # Half of the rows are positive, in two places; of 100 negatives there are 5 positives, and all in one place.
    positive = np.arange(200) < 100
    rows = _undersampled(positive, np.random.default_rng(0), True)
    assert (positive[rows].sum(), (~positive[rows]).sum()) == (5, 100)
    assert len(np.unique(rows)) == 105
    assert len(_undersampled(positive, np.random.default_rng(0), False)) == 200
    rows = _undersampled(np.arange(12) < 7, np.random.default_rng(0), True)
    assert (np.arange(12) < 7)[rows].sum() == 1
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 2)) + 20 * positive[:, None]
    assert clustering_nmi(features, positive, seed=0, exactly=True)[0] == pytest.approx(1.0)


def test_nmi_equals_its_definition():
    # Clusters {0, 0, 1, 1} against classes {0, 1, 1, 1}: I / mean of entropies (Strehl and Ghosh).
    features = np.array([[0.0], [0.1], [9.0], [9.1]])
    positive = np.array([False, True, True, True])
    joint = {(0, 0): 1 / 4, (0, 1): 1 / 4, (1, 1): 2 / 4}
    cluster, label = {0: 1 / 2, 1: 1 / 2}, {0: 1 / 4, 1: 3 / 4}
    information = sum(p * math.log(p / (cluster[a] * label[b])) for (a, b), p in joint.items())
    entropies = [-sum(p * math.log(p) for p in shares.values()) for shares in (cluster, label)]
    assert clustering_nmi(features, positive, seed=0)[0] == pytest.approx(information / (sum(entropies) / 2))
