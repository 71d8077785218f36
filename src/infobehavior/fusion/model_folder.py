"""A fused classifier on disk: safetensors, JSON and LightGBM's text; a folder from a stranger can't run code."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightgbm
import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from infobehavior.artefacts import definition_hash, read_json, refuse_unwritable, write_bytes, write_json
from infobehavior.errors import InputError, one_line
from infobehavior.fusion.calibration import Calibration
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import FusionConfig
from infobehavior.fusion.features import FEATURES, Tensors
from infobehavior.fusion.gbdt import FusedTrees
from infobehavior.fusion.operating_point import OperatingPoint
from infobehavior.fusion.training import make_network

FILE = "fusion.json"
KIND, FORMAT = "fused classifier", 1
OWN_FILE = re.compile(r"(weights|trees)-[0-9a-f]{16}\.(safetensors|txt)")


@dataclass(frozen=True)
class FusedModel:
    """A trained classifier, with all that its decisions depend on.

    Attributes:
        config: what it was trained by.
        classifier: the network, and LightGBM as `gbdt_`.
        points: the operating point of each, "fusion" and "gbdt".
        f1_thresholds: likewise, the thresholds of the best F1 of the validation part.
        classes: what the negative and the positive class are called.
        spaces: of groups of embeddings, which model's space they are in.
        trained_on: a number for each example of the training and the validation part, sorted.
        report: how it was trained.
    """

    config: FusionConfig
    classifier: FusionClassifier
    points: dict[str, OperatingPoint]
    f1_thresholds: dict[str, float]
    classes: tuple[str, str]
    spaces: dict[str, str]
    trained_on: NDArray[np.uint64]
    report: dict[str, Any]

    @property
    def model_id(self) -> str:
        """Names the model by its content."""
        return definition_hash([self._card_content(), hashlib.sha256(self._weights()).hexdigest()])

    def save(self, folder: Path) -> None:
        """Write the folder; one that holds an older model changes in one step.

        Raises:
            InputError: the folder can't be written or holds something else.
        """
        check_model_folder(folder)
        weights, trees = self._weights(), self.classifier.gbdt_.booster.model_to_string().encode()
        names = {
            "weights_file": f"weights-{_digest(weights)}.safetensors",
            "trees_file": f"trees-{_digest(trees)}.txt",
        }
        write_bytes(folder / names["weights_file"], weights)
        write_bytes(folder / names["trees_file"], trees)
        write_json(folder / FILE, {**self._card_content(), **names, "model_id": self.model_id})
        for path in folder.iterdir():
            if OWN_FILE.fullmatch(path.name) and path.name not in names.values():
                path.unlink()

    def _card_content(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "features": {name: features.described() for name, features in self.classifier.features_.items()},
            "calibrations": {
                "fusion": self.classifier.calibration_.method,
                "gbdt": self.classifier.gbdt_.calibration.method,
            },
            "points": {name: vars(point) for name, point in self.points.items()},
            "f1_thresholds": self.f1_thresholds,
            "classes": list(self.classes),
            "spaces": self.spaces,
            "report": self.report,
        }

    def _weights(self) -> bytes:
        tensors: Tensors = {"trained_on": self.trained_on}
        for name, tensor in self.classifier.network_.state_dict().items():
            tensors[f"network.{name}"] = tensor.numpy()
        for name, features in self.classifier.features_.items():
            tensors |= {f"features.{name}.{key}": array for key, array in features.tensors().items()}
        for name, calibration in self._calibrations().items():
            tensors |= {f"calibration.{name}.x": calibration.x, f"calibration.{name}.y": calibration.y}
        return safetensors.numpy.save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})

    def _calibrations(self) -> dict[str, Calibration]:
        return {"fusion": self.classifier.calibration_, "gbdt": self.classifier.gbdt_.calibration}


class _Point(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    threshold: float
    rule: str
    is_met: bool
    line: str


class _Card(BaseModel):
    """What `fusion.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    format: int
    config: FusionConfig
    features: dict[str, dict[str, Any]]
    calibrations: dict[str, Literal["platt", "isotonic", "none"]]
    points: dict[str, _Point]
    f1_thresholds: dict[str, float]
    classes: tuple[str, str]
    spaces: dict[str, str]
    report: dict[str, Any]
    weights_file: str
    trees_file: str
    model_id: str


def check_model_folder(folder: Path) -> None:
    """Refuse to write a model where something else is.

    Raises:
        InputError: see above, or `folder` can't be written.
    """
    refuse_unwritable(folder, "a fused classifier")
    if (folder / FILE).exists():
        _read_card(folder)
    elif folder.exists() and any(not _may_be_left(path) for path in folder.iterdir()):
        raise InputError(f"{folder} has files that aren't a fused classifier's (no {FILE}); give a new folder")


def _may_be_left(path: Path) -> bool:
    """Whether a save that was killed may have left a file."""
    return path.name.startswith(".") or bool(OWN_FILE.fullmatch(path.name))


def load_model(folder: str | Path) -> FusedModel:
    """Read what `FusedModel.save` wrote.

    Raises:
        InputError: the folder holds no such model, or a damaged one.
    """
    folder = Path(folder)
    card = _read_card(folder)
    tensors = _read_tensors(folder / card.weights_file)
    trees = _read_own(folder / card.trees_file)
    try:
        model = _assembled(card, tensors, trees.decode())
    except (KeyError, ValueError, TypeError, RuntimeError, lightgbm.basic.LightGBMError) as error:
        raise InputError(f"{folder} is damaged: {one_line(error)}; train again") from None
    if model.model_id != card.model_id:
        raise InputError(f"{folder / FILE} was edited: it describes another model than {card.model_id}")
    return model


def _assembled(card: _Card, tensors: Tensors, trees: str) -> FusedModel:
    groups = card.config.groups
    classifier = FusionClassifier(groups, card.config.network, gbdt=True)
    classifier.classes_ = np.array(card.classes)
    classifier.features_ = {
        name: FEATURES[group.kind].restored(card.features[name], _below(tensors, f"features.{name}."))
        for name, group in groups.items()
    }
    network = make_network(classifier.features_, groups, card.config.network)
    state = {name: torch.from_numpy(array.copy()) for name, array in _below(tensors, "network.").items()}
    network.load_state_dict(state, strict=True)
    classifier.network_ = network.eval()
    calibrations = {
        name: Calibration(method, tensors[f"calibration.{name}.x"], tensors[f"calibration.{name}.y"])
        for name, method in card.calibrations.items()
    }
    classifier.calibration_ = calibrations["fusion"]
    booster = lightgbm.Booster(model_str=trees)
    classifier.gbdt_ = FusedTrees(booster, classifier.num_codes, calibrations["gbdt"])
    points: dict[str, OperatingPoint] = {
        name: OperatingPoint(**point.model_dump()) for name, point in card.points.items()
    }
    return FusedModel(
        card.config,
        classifier,
        points,
        card.f1_thresholds,
        card.classes,
        card.spaces,
        tensors["trained_on"],
        card.report,
    )


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _read_card(folder: Path) -> _Card:
    content = read_json(folder / FILE, "a fused classifier")
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind != KIND or content.get("format") != FORMAT:
        raise InputError(f"{folder / FILE} is of kind {kind!r}; expected a {KIND} of format {FORMAT}: train again")
    try:
        card = _Card.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{folder / FILE} is damaged: {one_line(faults)}") from None
    for name in (card.weights_file, card.trees_file):
        if not OWN_FILE.fullmatch(name):
            raise InputError(f"{folder / FILE} names a file that isn't a model's: {name}")
    return card


def _read_own(path: Path) -> bytes:
    """The content of a file whose name has its hash."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not whole: it has no {path.name}; train again") from None
    if _digest(content) not in path.name:
        raise InputError(f"{path} is damaged: its hash is not the one in its name; train again")
    return content


def _read_tensors(path: Path) -> Tensors:
    try:
        return dict(safetensors.numpy.load(_read_own(path)))
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {one_line(error)}; train again") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
