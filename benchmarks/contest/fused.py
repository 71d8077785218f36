"""Hand-made features and a representation in the fusion network (4.4.2), on the same folds as the classifiers."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contest.judging import Asked, Measured
from infobehavior.artefacts import definition_hash
from infobehavior.downstream.cross_validation import Fold
from infobehavior.downstream.metrics import best_f1_threshold, fold_metrics
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import Group, Network
from infobehavior.fusion.parts import Parts

FUSED = "fused: manual + "
"""Before the name of a representation."""

VERSION = 3
"""Of how the fusion network learns; raised with each change of it, so that rows of before are measured again."""

NETWORKS = {"fusion": True, "fusion, no masking": False}
"""Whether groups are masked at random in training, by what stands in place of a classifier."""


def decided_by_network() -> str:
    """Names what decides a row beside what decides its vectors."""
    return definition_hash([VERSION, Network().model_dump(mode="json")])


def classify_fused(
    asked: Asked, manual: NDArray[np.floating], vectors: NDArray[np.floating], seed: int, grouped: bool
) -> Measured:
    """Metrics of each test fold of the part.

    The part of a training fold by which classifiers choose is for stopping and calibrating here, and isn't learnt from
    afterwards, which theirs is.

    Args:
        asked: the windows.
        manual: hand-made features, one row a moment.
        vectors: of a representation, likewise.
        seed: of the folds and networks.
        grouped: whether a group is never on both sides of a split.
    """
    asked = asked.of_part()
    tables = {"manual": _table(manual[asked.row]), "behavior": _table(vectors[asked.row])}
    measured: Measured = {}
    for name, dynamic_masking in NETWORKS.items():
        of_folds = [
            _of_fold(tables, asked.positive, fold, Network(seed=seed, dynamic_masking=dynamic_masking))
            for fold in asked.folds(seed, grouped)
        ]
        measured[name] = {metric: [metrics[metric] for metrics in of_folds] for metric in of_folds[0]}
    return measured


def _table(matrix: NDArray[np.floating]) -> pa.Table:
    values = pa.array(matrix.astype(np.float32).ravel())
    return pa.table({"vector": pa.FixedSizeListArray.from_arrays(values, matrix.shape[1])})


def _of_fold(
    tables: dict[str, pa.Table], positive: NDArray[np.bool_], fold: Fold, network: Network
) -> dict[str, float]:
    groups = {
        "manual": Group(kind="vector", columns=("vector",)),
        "behavior": Group(kind="representation", columns=("vector",)),
    }
    chosen_by = fold.train[fold.held_out]
    parts = Parts(*(np.isin(np.arange(len(positive)), rows) for rows in (fold.train[fold.inner_train], chosen_by)))
    classifier = FusionClassifier(groups, network).fit_tables(tables, positive, parts)
    scores = classifier.probability(tables)
    threshold = best_f1_threshold(positive[chosen_by], scores[chosen_by])
    return fold_metrics(positive[fold.test], scores[fold.test], threshold)
