"""A folder of JSON, safetensors and LightGBM's text: what a classifier is kept in; a stranger's can't run code"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

import lightgbm
import numpy as np
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from infobehavior.artefacts import definition_hash, read_json, refuse_unwritable, write_bytes, write_json
from infobehavior.errors import InputError, one_line
from infobehavior.fusion.features import Tensors
from infobehavior.fusion.packing import FUSION, GBDT, Packed

FAULTS_OF_CONTENT = (
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    IndexError,
    lightgbm.basic.LightGBMError,
    safetensors.SafetensorError,
)
OWN_FILE = re.compile(r"(weights|trees)-[0-9a-f]{16}\.(safetensors|txt)")
FILE_NAMES = ("weights_file", "trees_file", "model_id")
"""What the JSON says beside the content that names the model."""


class Strict(BaseModel):
    """Part of a JSON file of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Card(Strict):
    """What the JSON says of any classifier; `trees_file` is null if LightGBM wasn't trained."""

    kind: str
    format: int
    features: dict[str, dict[str, Any]]
    calibrations: dict[Literal["fusion", "gbdt"], Literal["platt", "isotonic", "none"]]
    weights_file: str
    trees_file: str | None
    model_id: str

    @model_validator(mode="after")
    def _check_calibrations(self) -> Self:
        if set(self.calibrations) != ({FUSION} if self.trees_file is None else {FUSION, GBDT}):
            raise ValueError("calibrations: expected one of fusion, and one of gbdt if there are trees")
        return self

    def packed(self, tensors: Tensors, trees: str | None) -> Packed:
        """The classifier."""
        return Packed(self.features, {str(name): of for name, of in self.calibrations.items()}, tensors, trees)


CardOf = TypeVar("CardOf", bound=Card)


@dataclass(frozen=True)
class Content:
    """What a folder holds.

    Attributes:
        card: what the JSON says, but for names of files and the model's own.
        tensors: all arrays.
        trees: LightGBM's text, if it was trained.
    """

    card: dict[str, Any]
    tensors: Tensors
    trees: str | None

    @property
    def weights(self) -> bytes:
        """The arrays as a file."""
        return safetensors.numpy.save({name: np.ascontiguousarray(self.tensors[name]) for name in sorted(self.tensors)})

    @property
    def trees_file(self) -> str | None:
        """The name of the file of the text."""
        return None if self.trees is None else f"trees-{_digest(self.trees.encode())}.txt"

    @property
    def model_id(self) -> str:
        """Names the model by its content."""
        return name_of(self.card, self.weights, self.trees_file)


def name_of(card: dict[str, Any], weights: bytes, trees_file: str | None) -> str:
    """The id of a model: of what its JSON says, its weights and its trees, whose file is named by their hash."""
    return definition_hash([card, hashlib.sha256(weights).hexdigest(), trees_file])


@dataclass(frozen=True)
class Layout(Generic[CardOf]):
    """How a folder of one kind looks.

    Attributes:
        file: the name of the JSON.
        kind: what it says that it is.
        format: counts up when older readers can't read it.
        card: what the JSON holds.
    """

    file: str
    kind: str
    format: int
    card: type[CardOf]

    def content(self, packed: Packed, own: dict[str, Any], tensors: Tensors | None = None) -> Content:
        """Of a classifier, with what else a folder of this kind holds: for its JSON, and as arrays."""
        card = {"kind": self.kind, "format": self.format, **packed.described, **own}
        return Content(card, {**(tensors or {}), **packed.tensors}, packed.trees)

    def write(self, folder: Path, content: Content) -> None:
        """Write the folder; one that holds an older model changes in one step, when the JSON does.

        Raises:
            InputError: see `check`.
        """
        self.check(folder)
        weights = content.weights
        names = {"weights_file": f"weights-{_digest(weights)}.safetensors", "trees_file": content.trees_file}
        write_bytes(folder / str(names["weights_file"]), weights)
        if content.trees is not None:
            write_bytes(folder / str(names["trees_file"]), content.trees.encode())
        write_json(folder / self.file, {**content.card, **names, "model_id": content.model_id})
        for path in folder.iterdir():
            if OWN_FILE.fullmatch(path.name) and path.name not in names.values():
                path.unlink()

    def check(self, folder: Path) -> None:
        """Refuse to write where something else is.

        Raises:
            InputError: see above, or `folder` can't be written.
        """
        refuse_unwritable(folder, f"a {self.kind}")
        if (folder / self.file).exists():
            self._card(folder)
        elif folder.exists() and any(not _may_be_left(path) for path in folder.iterdir()):
            raise InputError(f"{folder} has files that aren't a {self.kind}'s (no {self.file}); give a new folder")

    def read(self, folder: Path) -> tuple[CardOf, Content]:
        """What `write` wrote: nothing is made of it before its name was found to be right.

        Raises:
            InputError: the folder holds no such model, or a damaged one.
        """
        card, said = self._card(folder)
        weights = _read_own(folder / card.weights_file)
        trees = None if card.trees_file is None else _read_own(folder / card.trees_file)
        with self.damaged(folder):
            own = {key: value for key, value in said.items() if key not in FILE_NAMES}
            self.refuse_edited(folder, card, name_of(own, weights, card.trees_file))
            content = Content(own, safetensors.numpy.load(weights), None if trees is None else trees.decode())
        return card, content

    def refuse_edited(self, folder: Path, card: CardOf, model_id: str) -> None:
        """Refuse a folder that holds another model than its JSON says.

        Raises:
            InputError: see above.
        """
        if model_id != card.model_id:
            raise InputError(f"{folder / self.file} was edited: it describes another model than {card.model_id}")

    @contextmanager
    def damaged(self, folder: Path) -> Iterator[None]:
        """What can't be made of a folder's content is a line."""
        try:
            yield
        except InputError:
            raise
        except FAULTS_OF_CONTENT as error:
            raise InputError(f"{folder} is damaged: {one_line(error)}; train again") from None

    def _card(self, folder: Path) -> tuple[CardOf, dict[str, Any]]:
        """The JSON, checked and as it is."""
        file = folder / self.file
        said = read_json(file, f"a {self.kind}")
        kind = said.get("kind") if isinstance(said, dict) else None
        if kind == self.kind and said.get("format") != self.format:
            raise InputError(
                f"{file} is of format {said.get('format')}, of another version; expected a {self.kind} of format "
                f"{self.format}: train again"
            )
        if kind != self.kind:
            raise InputError(f"{file} is of kind {kind!r}; expected a {self.kind} of format {self.format}: train again")
        try:
            card = self.card.model_validate(said)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InputError(f"{file} is damaged: {one_line(faults)}") from None
        for name in (card.weights_file, card.trees_file):
            if name is not None and not OWN_FILE.fullmatch(name):
                raise InputError(f"{file} names a file that isn't a model's: {name}")
        return card, said


def _may_be_left(path: Path) -> bool:
    """Whether a write that was killed may have left a file."""
    return path.name.startswith(".") or bool(OWN_FILE.fullmatch(path.name))


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
