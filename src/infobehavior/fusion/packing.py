"""A fused classifier as what files can hold: a description for JSON, arrays for safetensors, and LightGBM's text"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import lightgbm
import torch

from infobehavior.fusion.calibration import Calibration
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import Group, Network
from infobehavior.fusion.features import FEATURES, Tensors
from infobehavior.fusion.gbdt import FusedTrees
from infobehavior.fusion.training import make_network
from infobehavior.fusion.trees_text import check_trees

FUSION, GBDT = "fusion", "gbdt"
"""The network and LightGBM, where each has something of its own."""


@dataclass(frozen=True)
class Packed:
    """A trained classifier.

    Attributes:
        features: of each group, what JSON can hold of how it becomes an array.
        calibrations: of the network, and of LightGBM if it was trained: the method.
        tensors: all arrays.
        trees: LightGBM's text; None if it wasn't trained.
    """

    features: dict[str, dict[str, Any]]
    calibrations: dict[str, Literal["platt", "isotonic", "none"]]
    tensors: Tensors
    trees: str | None

    @property
    def described(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {"features": self.features, "calibrations": self.calibrations}


def pack(classifier: FusionClassifier) -> Packed:
    """Take a trained classifier apart."""
    tensors: Tensors = {}
    for name, tensor in classifier.network_.state_dict().items():
        tensors[f"network.{name}"] = tensor.numpy()
    for name, features in classifier.features_.items():
        tensors |= {f"features.{name}.{key}": array for key, array in features.tensors().items()}
    calibrations: dict[str, Calibration] = {FUSION: classifier.calibration_}
    trees = getattr(classifier, "gbdt_", None)
    if trees is not None:
        calibrations[GBDT] = trees.calibration
    for name, calibration in calibrations.items():
        tensors |= {f"calibration.{name}.x": calibration.x, f"calibration.{name}.y": calibration.y}
    return Packed(
        {name: features.described() for name, features in classifier.features_.items()},
        {name: calibration.method for name, calibration in calibrations.items()},
        tensors,
        None if trees is None else str(trees.booster.model_to_string()),
    )


def unpack(packed: Packed, groups: Mapping[str, Group], config: Network) -> FusionClassifier:
    """Put a classifier together; its `classes_` are left to the caller.

    Raises:
        KeyError, ValueError, TypeError, RuntimeError, IndexError: the parts don't fit together.
    """
    classifier = FusionClassifier(groups, config, gbdt=packed.trees is not None)
    classifier.features_ = {
        name: FEATURES[group.kind].restored(packed.features[name], _below(packed.tensors, f"features.{name}."))
        for name, group in groups.items()
    }
    network = make_network(classifier.features_, groups, config)
    state = {name: torch.from_numpy(array.copy()) for name, array in _below(packed.tensors, "network.").items()}
    network.load_state_dict(state, strict=True)
    classifier.network_ = network.eval()
    calibrations = {
        name: Calibration(method, packed.tensors[f"calibration.{name}.x"], packed.tensors[f"calibration.{name}.y"])
        for name, method in packed.calibrations.items()
    }
    classifier.calibration_ = calibrations[FUSION]
    if packed.trees is not None:
        # A text that isn't whole would end the process inside LightGBM.
        check_trees(packed.trees, sum(sum(of.num_codes) or of.dim for of in classifier.features_.values()))
        booster = lightgbm.Booster(model_str=packed.trees)
        classifier.gbdt_ = FusedTrees(booster, classifier.num_codes, calibrations[GBDT])
    return classifier


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
