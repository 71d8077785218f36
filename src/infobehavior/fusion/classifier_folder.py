"""A `FusionClassifier` by itself on disk, without pickle"""

from pathlib import Path

import numpy as np
from pydantic import Field, StrictBool, StrictInt, StrictStr

from infobehavior.errors import InputError, refusing_long_paths
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import Group, Network
from infobehavior.fusion.folder import Card, Content, Layout
from infobehavior.fusion.packing import pack, unpack

KINDS_OF_CLASSES = "biuU"
"""NumPy's kinds of classes that JSON can hold: truth values, whole numbers, texts."""


class _Card(Card):
    """What `classifier.json` says."""

    groups: dict[str, Group] = Field(min_length=1)
    network: Network
    classes: tuple[StrictBool, StrictBool] | tuple[StrictInt, StrictInt] | tuple[StrictStr, StrictStr]
    num_training: int
    losses: list[tuple[float, float]]
    best_epoch: int


LAYOUT = Layout("classifier.json", "fusion classifier", 2, _Card)


@refusing_long_paths()
def save_classifier(classifier: FusionClassifier, folder: str | Path) -> None:
    """Write a trained classifier; a folder that holds an older one changes in one step.

    Raises:
        InputError: it isn't trained, its classes are neither truth values, whole numbers nor texts, or the folder can't
            be written or holds something else.
    """
    LAYOUT.write(Path(folder), _content(classifier))


@refusing_long_paths()
def load_classifier(folder: str | Path) -> FusionClassifier:
    """Read what `save_classifier` wrote.

    Raises:
        InputError: the folder holds no such classifier, or a damaged one.
    """
    folder = Path(folder)
    card, content = LAYOUT.read(folder)
    with LAYOUT.damaged(folder):
        classifier = unpack(card.packed(content.tensors, content.trees), card.groups, card.network)
        classifier.classes_ = np.array(card.classes)
        classifier.num_training_, classifier.best_epoch_ = card.num_training, card.best_epoch
        classifier.losses_ = card.losses
        LAYOUT.refuse_edited(folder, card, _content(classifier).model_id)
    return classifier


def _content(classifier: FusionClassifier) -> Content:
    if not classifier.__sklearn_is_fitted__():
        raise InputError("the classifier isn't trained; call fit before it is saved")
    classes = np.asarray(classifier.classes_.tolist())
    if classes.dtype.kind not in KINDS_OF_CLASSES:
        shown = ", ".join(repr(name) for name in classes.tolist())
        raise InputError(f"classes {shown} can't be saved; train on truth values, whole numbers or texts")
    own = {
        "groups": {name: group.model_dump(mode="json") for name, group in classifier.checked_groups().items()},
        "network": (classifier.network or Network()).model_dump(mode="json"),
        "classes": classes.tolist(),
        "num_training": classifier.num_training_,
        "losses": [list(pair) for pair in classifier.losses_],
        "best_epoch": classifier.best_epoch_,
    }
    return LAYOUT.content(pack(classifier), own)
