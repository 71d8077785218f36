"""Tokens of minutes (section 3.1.1): which are known, and what an unknown one falls back to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from infobehavior.artefacts import definition_hash, read_json, write_json
from infobehavior.data.ranges import positions
from infobehavior.data.schema import SET_SEPARATOR
from infobehavior.data.store import MinuteStore

UNKNOWN = 0
NO_LOCATION = 1
FIRST_LOCATION = 2

KNOWN, FROM_PARTS, FROM_NOTHING = 0, 1, 2

# A lag of up to an hour is its own token; longer ones share tokens that grow by a tenth, up to a year.
LAG_EDGES: NDArray[np.int64] = np.unique(
    np.concatenate([np.arange(1, 61), np.geomspace(60, 527_040, 96).round()]).astype(np.int64)
)
FIRST_OF_WINDOW = 0
NUM_LAG_TOKENS = len(LAG_EDGES) + 1

Composite = tuple[int, ...]
BehaviorRows = Literal["composite", "composite_and_parts"]
Name = TypeVar("Name", Composite, str)


@dataclass(frozen=True)
class Bags:
    """Token ids of each distinct behavior, or location set, of a store: bag `i` is `tokens[offsets[i]:offsets[i + 1]]`.

    Attributes:
        tokens: token ids of all bags, one after the other.
        offsets: where each bag begins, and the end of the last one.
        origin: of each bag, whether it is KNOWN, made FROM_PARTS, or FROM_NOTHING (the unknown token).
    """

    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    origin: NDArray[np.int8]

    @classmethod
    def of(cls, bags: Sequence[tuple[list[int], int]]) -> Self:
        """Lay bags, each a list of token ids and an origin, one after the other."""
        lengths = [len(tokens) for tokens, _ in bags]
        return cls(
            tokens=np.array([token for tokens, _ in bags for token in tokens], dtype=np.int64),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
            origin=np.array([origin for _, origin in bags], dtype=np.int8),
        )

    def take(self, which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens and the offsets (without the last end) of some bags, in the order asked for."""
        starts, lengths = self.offsets[which], np.diff(self.offsets)[which]
        position, _ = positions(starts, lengths)
        return self.tokens[position], np.cumsum(lengths) - lengths


class Vocabulary(BaseModel):
    """The composites of behaviors and the sets of locations that have a row of their own.

    Attributes:
        minutes_hash: the definition of the minutes that it was fitted on.
        behaviors: packed words of each known composite; the token of the first is 1, after UNKNOWN.
        locations: each known set of locations; the token of the first is 2, after UNKNOWN and NO_LOCATION.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes_hash: str
    behaviors: tuple[Composite, ...] = Field(repr=False)
    locations: tuple[str, ...] = Field(repr=False)

    @classmethod
    def fit(cls, store: MinuteStore, minutes_hash: str, min_count: int) -> Self:
        """Keep what occurs in at least `min_count` minutes of the store.

        A rare composite counts for each of its parts instead, so a part that only ever occurs inside rare composites
        still gets a row, and that row is trained.
        """
        composites, counts = [tuple(row) for row in store.composites.tolist()], store.occurrences
        sets = store.location_sets
        return cls(
            minutes_hash=minutes_hash,
            behaviors=_frequent(composites, counts.composites.tolist(), behavior_parts, min_count),
            locations=_frequent(sets, counts.location_sets.tolist(), location_parts, min_count),
        )

    @property
    def num_behavior_tokens(self) -> int:
        """Rows of the behavior table."""
        return len(self.behaviors) + 1

    @property
    def num_location_tokens(self) -> int:
        """Rows of the location table."""
        return len(self.locations) + FIRST_LOCATION

    @cached_property
    def hash(self) -> str:
        """Names this vocabulary."""
        return definition_hash(self.model_dump())

    def behavior_bags(self, composites: NDArray[np.int64], rows: BehaviorRows) -> Bags:
        """Tokens of each composite: its own row; where it has none, the rows of its parts; else UNKNOWN."""
        ids = {composite: token for token, composite in enumerate(self.behaviors, start=UNKNOWN + 1)}
        return Bags.of(
            [_bag(tuple(row), behavior_parts(tuple(row)), ids, rows) for row in composites.tolist()],
        )

    def location_bags(self, location_sets: Sequence[str]) -> Bags:
        """Tokens of NO_LOCATION and then of each set of locations, so set `i` is bag `i + 1`."""
        ids = {name: token for token, name in enumerate(self.locations, start=FIRST_LOCATION)}
        nowhere: tuple[list[int], int] = ([NO_LOCATION], KNOWN)
        return Bags.of([nowhere] + [_bag(name, location_parts(name), ids, "composite") for name in location_sets])

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, self.model_dump())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls.model_validate(read_json(path, "a model"))


def behavior_parts(composite: Composite) -> list[Composite]:
    """The composites of one behavior each (with its level) that make up a composite."""
    parts = []
    for word, packed in enumerate(composite):
        for shift in range(0, 62, 2):
            level = packed & (3 << shift)
            if level:
                parts.append(tuple(level if i == word else 0 for i in range(len(composite))))
    return parts


def location_parts(location_set: str) -> list[str]:
    """The locations of a set."""
    return location_set.split(SET_SEPARATOR)


def lag_tokens(lags: NDArray[np.int64]) -> NDArray[np.int64]:
    """Token of each time lag, in minutes (at least 1); FIRST_OF_WINDOW is never among them."""
    return np.searchsorted(LAG_EDGES, lags, side="right")


def _bag(name: Name, parts: list[Name], ids: Mapping[Name, int], rows: BehaviorRows) -> tuple[list[int], int]:
    known_parts: list[int] = [ids[part] for part in parts if part in ids]
    if name in ids:
        with_parts = rows == "composite_and_parts" and len(parts) > 1
        return [ids[name], *known_parts] if with_parts else [ids[name]], KNOWN
    return (known_parts, FROM_PARTS) if known_parts else ([UNKNOWN], FROM_NOTHING)


def _frequent(
    names: Sequence[Name], counts: list[int], parts_of: Callable[[Name], list[Name]], min_count: int
) -> tuple[Name, ...]:
    """Names with at least `min_count` occurrences, and parts of the others with as many; the most frequent first."""
    kept = {name: count for name, count in zip(names, counts, strict=True) if count >= min_count}
    parts: dict[Name, int] = {}
    for name, count in zip(names, counts, strict=True):
        if name not in kept:
            for part in parts_of(name):
                parts[part] = parts.get(part, 0) + count
    for part, count in parts.items():
        if part not in kept and count >= min_count:
            kept[part] = count
    return tuple(sorted(kept, key=lambda name: (-kept[name], name)))
