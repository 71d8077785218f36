"""One store of many runs of entities, of which one at a time is in memory; its columns are on disk."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.behavior_counts import BehaviorCounts
from infobehavior.data.column_files import ColumnFile
from infobehavior.data.store import MinuteStore

EQUAL_COLUMNS = ("minute", "num_events", "num_failures")
"""Those that are the same in a run as in the whole."""


def runs_of(
    entities: NDArray[Any], num_minutes: NDArray[np.int64], most_minutes: int
) -> Iterator[tuple[object, object]]:
    """The first and the last entity of runs with at most so many minutes, or of one entity that has more.

    Args:
        entities: sorted.
        num_minutes: of each.
        most_minutes: of a run.
    """
    before, start = np.concatenate([[0], np.cumsum(num_minutes)]), 0
    while start < len(entities):
        end = max(start + 1, int(np.searchsorted(before, before[start] + most_minutes, side="right")) - 1)
        first, *_, last = entities[[start, start, end - 1]].tolist()
        yield first, last
        start = end


def join_runs(
    read: Callable[[object, object], MinuteStore], runs: Iterable[tuple[object, object]], folder: Path
) -> MinuteStore:
    """The store that would have been read at once, number for number.

    Args:
        read: reads the entities from a first to a last one.
        runs: see `runs_of`; at least one.
        folder: on whose file system the columns are.
    """
    joined = _JoinedRuns(folder)
    for first, last in runs:
        joined.append(read(first, last))
    return joined.store()


class _Numbers:
    """Numbers for distinct values, in order of appearance over all runs."""

    def __init__(self) -> None:
        self.number: dict[Hashable, int] = {}

    def of(self, values: Iterable[Hashable]) -> NDArray[np.int32]:
        """Those of some values; they end with -1, which stands for none, so that an index of -1 finds it."""
        return np.array([*(self.number.setdefault(value, len(self.number)) for value in values), -1], dtype=np.int32)


class _JoinedRuns:
    """What is kept of the runs so far: the columns on disk; entities and distinct tokens in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, ColumnFile] = {}
        self._entities: list[NDArray[Any]] = []
        self._num_minutes: list[NDArray[np.int64]] = []
        self._num_words = self._num_counts = 0
        self._composites, self._location_sets = _Numbers(), _Numbers()
        self._extra_sets: dict[str, _Numbers] = {}

    def append(self, run: MinuteStore) -> None:
        """Write a run's columns after those of the runs before it."""
        self._entities.append(run.entities)
        self._num_minutes.append(run.offsets[1:] - run.offsets[:-1])
        self._num_words = run.composites.shape[1]
        for name in EQUAL_COLUMNS:
            self._write(name, getattr(run, name))
        self._write("behavior", self._composites.of(map(tuple, run.composites.tolist()))[run.behavior])
        self._write("location", self._location_sets.of(run.location_sets)[run.location])
        for name, ids in run.extra.items():
            numbers = self._extra_sets.setdefault(name, _Numbers())
            self._write(f"extra {name}", numbers.of(run.extra_sets[name])[ids])
        if run.behavior_counts is not None:
            self._append_counts(run.behavior_counts)

    def _append_counts(self, counts: BehaviorCounts) -> None:
        is_first = "code" not in self._files
        self._write("code", counts.code)
        self._write("count", counts.count)
        self._write("offsets", counts.offsets[0 if is_first else 1 :] + self._num_counts)
        self._num_counts += int(counts.offsets[-1])

    def _write(self, name: str, values: NDArray[Any]) -> None:
        if name not in self._files:
            self._files[name] = ColumnFile(self._folder, values.dtype)
        self._files[name].append(values)

    def store(self) -> MinuteStore:
        """All runs as one store; nothing can be appended after it."""
        columns = {name: file.column() for name, file in self._files.items()}
        appeared = np.array(list(self._composites.number), dtype=np.int64).reshape(-1, self._num_words)
        composites, number = np.unique(appeared, axis=0, return_inverse=True)
        store = MinuteStore(
            entities=np.concatenate(self._entities),
            offsets=np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *self._num_minutes])),
            minute=columns["minute"],
            behavior=columns["behavior"],
            location=columns["location"],
            num_events=columns["num_events"],
            num_failures=columns["num_failures"],
            composites=composites,
            location_sets=_texts(self._location_sets),
            extra={name: columns[f"extra {name}"] for name in self._extra_sets},
            extra_sets={name: _texts(numbers) for name, numbers in self._extra_sets.items()},
            behavior_counts=_counts(columns),
            folder=self._folder,
        )
        return replace(store, behavior=store.renumbered(store.behavior, number.reshape(-1).astype(np.int32)))


def _counts(columns: dict[str, NDArray[Any]]) -> BehaviorCounts | None:
    if "code" not in columns:
        return None
    return BehaviorCounts(columns["code"], columns["count"], columns["offsets"])


def _texts(numbers: _Numbers) -> list[str]:
    return [str(text) for text in numbers.number]
