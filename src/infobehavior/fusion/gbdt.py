"""The competitor: LightGBM on the same groups, training part and validation part as the fusion network."""

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from infobehavior.downstream.classifiers import CLASSIFIERS, Part
from infobehavior.downstream.classifiers import train_gbdt as train_trees
from infobehavior.fusion.calibration import Calibration, calibrate
from infobehavior.fusion.config import Network
from infobehavior.fusion.features import GroupArray
from infobehavior.fusion.training import Labelled

Floats = NDArray[np.float64]
LEAST_PROBABILITY = 1e-9


@dataclass(frozen=True)
class FusedTrees:
    """Trees over all groups, calibrated as the network is.

    Attributes:
        booster: LightGBM's.
        num_codes: of each group of categories, how many codes its columns have.
        calibration: of the logits of its probabilities.
    """

    booster: lightgbm.Booster
    num_codes: dict[str, tuple[int, ...]]
    calibration: Calibration

    def probability(self, arrays: Mapping[str, GroupArray]) -> Floats:
        """Of the positive class."""
        return self.calibration(_logits(self.booster, as_matrix(arrays, self.num_codes)))


def train_gbdt(
    num_codes: dict[str, tuple[int, ...]], training: Labelled, validation: Labelled, config: Network
) -> FusedTrees:
    """Choose the number of trees by the validation part, and train.

    It is that of the lowest log loss of raw scores, with the weights of the training; the network's epochs are chosen
    by the loss of calibrated scores, without weights (`training.calibrated_loss`).
    """
    learnt, held_out = (
        Part(as_matrix(part.arrays, num_codes), part.positive, part.weights) for part in (training, validation)
    )
    choice = CLASSIFIERS["gbdt"].choose(learnt, held_out, config.seed)
    booster = train_trees(learnt, choice.setting, config.seed)
    scores = _logits(booster, held_out.features)
    return FusedTrees(booster, num_codes, calibrate(config.calibration, scores, held_out.positive))


def _logits(booster: lightgbm.Booster, matrix: Floats) -> Floats:
    probability = np.asarray(booster.predict(matrix, num_threads=1))
    return np.asarray(logit(np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)))


def as_matrix(arrays: Mapping[str, GroupArray], num_codes: Mapping[str, tuple[int, ...]]) -> Floats:
    """All groups side by side, (rows, columns): categories one-hot, and NaN where a group is missing.

    Args:
        arrays: of the groups.
        num_codes: of each group of categories.
    """
    parts = []
    for name, array in arrays.items():
        values = _one_hot(array.values, num_codes[name]) if name in num_codes else array.values.astype(np.float64)
        parts.append(np.where(array.is_there[:, None], values, np.nan))
    return np.hstack(parts)


def _one_hot(codes: NDArray[np.int64], num_codes: tuple[int, ...]) -> Floats:
    """A column for each code."""
    return np.hstack(
        [(codes[:, place, None] == np.arange(count)).astype(np.float64) for place, count in enumerate(num_codes)]
    )
