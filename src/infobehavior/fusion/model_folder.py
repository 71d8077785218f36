"""A fused classifier on disk: safetensors, JSON and LightGBM's text; a folder from a stranger can't run code."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import lightgbm
import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from infobehavior.artefacts import definition_hash, read_json, refuse_unwritable, write_bytes, write_json
from infobehavior.errors import InputError, one_line
from infobehavior.fusion.calibration import Calibration
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import FusionConfig
from infobehavior.fusion.features import FEATURES, Tensors
from infobehavior.fusion.gbdt import FusedTrees
from infobehavior.fusion.operating_point import OperatingPoint
from infobehavior.fusion.training import make_network
from infobehavior.fusion.trees_text import check_trees

FILE = "fusion.json"
Value = TypeVar("Value")

KIND, FORMAT = "fused classifier", 1
LIBRARY_ERRORS = (lightgbm.basic.LightGBMError, safetensors.SafetensorError)
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
        accounts: likewise, for each entity.
        report: how it was trained.
    """

    config: FusionConfig
    classifier: FusionClassifier
    points: dict[str, OperatingPoint]
    f1_thresholds: dict[str, float]
    classes: tuple[str, str]
    spaces: dict[str, str]
    trained_on: NDArray[np.uint64]
    accounts: NDArray[np.uint64]
    report: dict[str, Any]

    @property
    def model_id(self) -> str:
        """Names the model by its content."""
        return name_of(self._card_content(), self._weights(), _trees_file(self._trees()))

    def save(self, folder: Path) -> None:
        """Write the folder; one that holds an older model changes in one step.

        Raises:
            InputError: the folder can't be written or holds something else.
        """
        check_model_folder(folder)
        weights, trees = self._weights(), self._trees()
        names = {"weights_file": f"weights-{_digest(weights)}.safetensors", "trees_file": _trees_file(trees)}
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
        tensors: Tensors = {"trained_on": self.trained_on, "accounts": self.accounts}
        for name, tensor in self.classifier.network_.state_dict().items():
            tensors[f"network.{name}"] = tensor.numpy()
        for name, features in self.classifier.features_.items():
            tensors |= {f"features.{name}.{key}": array for key, array in features.tensors().items()}
        for name, calibration in self._calibrations().items():
            tensors |= {f"calibration.{name}.x": calibration.x, f"calibration.{name}.y": calibration.y}
        return safetensors.numpy.save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})

    def _trees(self) -> bytes:
        return str(self.classifier.gbdt_.booster.model_to_string()).encode()

    def _calibrations(self) -> dict[str, Calibration]:
        return {"fusion": self.classifier.calibration_, "gbdt": self.classifier.gbdt_.calibration}


def name_of(card_content: dict[str, Any], weights: bytes, trees_file: str) -> str:
    """The id of a model: of what its JSON says, its weights and its trees, whose file is named by their hash."""
    return definition_hash([card_content, hashlib.sha256(weights).hexdigest(), trees_file])


def _trees_file(trees: bytes) -> str:
    return f"trees-{_digest(trees)}.txt"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Point(_Strict):
    threshold: float
    rule: str
    is_met: bool
    line: str


class _Report(_Strict):
    num_training: int
    num_training_positives: int
    num_validation: int
    num_validation_positives: int
    num_epochs: int
    best_epoch: int
    losses: list[tuple[float, float]]
    num_trees: int
    counts: dict[str, int]
    last_moment: int


def _of_both(named: dict[str, Value]) -> dict[str, Value]:
    if set(named) != {"fusion", "gbdt"}:
        raise ValueError("expected one of fusion and one of gbdt")
    return named


class _Card(_Strict):
    """What `fusion.json` says."""

    kind: str
    format: int
    config: FusionConfig
    features: dict[str, dict[str, Any]]
    calibrations: Annotated[dict[str, Literal["platt", "isotonic", "none"]], AfterValidator(_of_both)]
    points: Annotated[dict[str, _Point], AfterValidator(_of_both)]
    f1_thresholds: Annotated[dict[str, float], AfterValidator(_of_both)]
    classes: tuple[str, str]
    spaces: dict[str, str]
    report: _Report
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
    weights, trees = _read_own(folder / card.weights_file), _read_own(folder / card.trees_file)
    edited = InputError(f"{folder / FILE} was edited: it describes another model than {card.model_id}")
    try:
        # Before anything is made of them: what LightGBM is given must be what was saved.
        if name_of(_without_names(folder), weights, card.trees_file) != card.model_id:
            raise edited
        model = _assembled(card, safetensors.numpy.load(weights), trees.decode())
        if model.model_id != card.model_id:
            raise edited
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError, *LIBRARY_ERRORS) as error:
        raise InputError(f"{folder} is damaged: {one_line(error)}; train again") from None
    return model


def _without_names(folder: Path) -> dict[str, Any]:
    """What the JSON says, but for the names of the files and its own."""
    content = read_json(folder / FILE, "a fused classifier")
    return {key: value for key, value in content.items() if key not in ("weights_file", "trees_file", "model_id")}


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
    check_trees(trees, sum(sum(of.num_codes) or of.dim for of in classifier.features_.values()))
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
        tensors["accounts"],
        card.report.model_dump(mode="json"),
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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
