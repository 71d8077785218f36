"""A fused classifier with its operating point, and all that its decisions depend on, on disk"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator

from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import FusionConfig
from infobehavior.fusion.folder import Card, Content, Layout, Strict
from infobehavior.fusion.missing import GroupCounts
from infobehavior.fusion.operating_point import OperatingPoint
from infobehavior.fusion.packing import FUSION, GBDT, pack, unpack

Value = TypeVar("Value")


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
    def trained_groups(self) -> dict[str, GroupCounts]:
        """What of each group was missing in the training."""
        return {name: GroupCounts(**of) for name, of in self.report["groups"].items()}

    @property
    def model_id(self) -> str:
        """Names the model by its content."""
        return self._content().model_id

    def save(self, folder: Path) -> None:
        """Write the folder; one that holds an older model changes in one step.

        Raises:
            InputError: the folder can't be written or holds something else.
        """
        LAYOUT.write(folder, self._content())

    def _content(self) -> Content:
        own = {
            "config": self.config.model_dump(mode="json"),
            "points": {name: vars(point) for name, point in self.points.items()},
            "f1_thresholds": self.f1_thresholds,
            "classes": list(self.classes),
            "spaces": self.spaces,
            "report": self.report,
        }
        return LAYOUT.content(pack(self.classifier), own, {"trained_on": self.trained_on, "accounts": self.accounts})


class _Point(Strict):
    threshold: float
    rule: str
    is_met: bool
    line: str


class _GroupCounts(Strict):
    num_examples: int
    without: int
    not_finite: int
    unknown: int
    empty: dict[str, int]


class _Days(Strict):
    median: float
    largest: float


class _Report(Strict):
    num_training: int
    num_training_positives: int
    num_validation: int
    num_validation_positives: int
    num_epochs: int
    best_epoch: int
    losses: list[tuple[float, float]]
    num_trees: int
    counts: dict[str, int]
    groups: dict[str, _GroupCounts]
    ages: dict[str, _Days]
    last_moment: int


def _of_both(named: dict[str, Value]) -> dict[str, Value]:
    if set(named) != {FUSION, GBDT}:
        raise ValueError("expected one of fusion and one of gbdt")
    return named


class _Card(Card):
    """What `fusion.json` says."""

    config: FusionConfig
    points: Annotated[dict[str, _Point], AfterValidator(_of_both)]
    f1_thresholds: Annotated[dict[str, float], AfterValidator(_of_both)]
    classes: tuple[str, str]
    spaces: dict[str, str]
    report: _Report
    trees_file: str

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if set(self.report.groups) != set(self.config.groups):
            raise ValueError("report.groups: expected each group of the configuration")
        return self


LAYOUT = Layout("fusion.json", "fused classifier", 3, _Card)


def load_model(folder: str | Path) -> FusedModel:
    """Read what `FusedModel.save` wrote.

    Raises:
        InputError: the folder holds no such model, or a damaged one.
    """
    folder = Path(folder)
    card, content = LAYOUT.read(folder)
    with LAYOUT.damaged(folder):
        model = _assembled(card, content)
        LAYOUT.refuse_edited(folder, card, model.model_id)
    return model


def _assembled(card: _Card, content: Content) -> FusedModel:
    classifier = unpack(card.packed(content.tensors, content.trees), card.config.groups, card.config.network)
    classifier.classes_ = np.array(card.classes)
    return FusedModel(
        card.config,
        classifier,
        {name: OperatingPoint(**point.model_dump()) for name, point in card.points.items()},
        card.f1_thresholds,
        card.classes,
        card.spaces,
        content.tensors["trained_on"],
        content.tensors["accounts"],
        card.report.model_dump(mode="json"),
    )
