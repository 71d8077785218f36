"""The minutes that a process trains on: all, or of several processes those of a run of entities; in memory or not."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.joined_runs import join_runs, runs_of
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import Moments, cut_at, first_moments, known_until
from infobehavior.data.store import MinuteStore, Occurrences, entities_of, load_store
from infobehavior.pretraining.processes import Processes

logger = logging.getLogger("infobehavior")


@dataclass(frozen=True)
class MemoryLimit:
    """How many minutes a process may have in memory, and where it keeps more; it changes no byte of a model.

    Attributes:
        minutes: a process that has more of them keeps their columns on disk, and reads so many at once to get there.
        folder: on whose file system.
    """

    minutes: int
    folder: Path


def load_own(
    minutes: MinuteTable,
    first_minute: int | None,
    end_minute: int,
    moments: Moments | None,
    *,
    with_counts: bool,
    processes: Processes,
    limit: MemoryLimit | None = None,
) -> MinuteStore:
    """Read the minutes of a process's entities that training may see; a process may have none. See `load_store`.

    An entity belongs to the process in whose share of all minutes its first one lies. What is after an entity's first
    moment is read and left out, and doesn't count.
    """

    def read(first_entity: object, last_entity: object) -> MinuteStore:
        store = load_store(
            minutes,
            first_minute,
            end_minute,
            with_counts=with_counts,
            first_entity=first_entity,
            last_entity=last_entity,
        )
        return store if moments is None else cut_at(store, known_until(store, moments, end_minute))

    run = _own_run(minutes, first_minute, end_minute, moments, processes)
    if run is None:
        return load_store(minutes, end_minute, end_minute, with_counts=with_counts)
    if limit is None:
        return read(*run)
    first, last = run
    entities, num_minutes = entities_of(
        minutes, end_minute, first_minute=first_minute, first_entity=first, last_entity=last
    )
    if num_minutes.sum() <= limit.minutes:
        return read(*run)
    logger.info("%d minutes are kept on disk, in %s", num_minutes.sum(), limit.folder)
    return join_runs(read, runs_of(entities, num_minutes, limit.minutes), limit.folder)


def _own_run(
    minutes: MinuteTable, first_minute: int | None, end_minute: int, moments: Moments | None, processes: Processes
) -> tuple[Any, Any] | None:
    """The first and the last entity of a process, two times None if it has all, None if it has none."""
    if processes.size == 1:
        return None, None
    until = None if moments is None else first_moments(moments)
    entities, num_minutes = entities_of(minutes, end_minute, first_minute=first_minute, until=until)
    before = np.cumsum(num_minutes) - num_minutes
    own = np.flatnonzero(before * processes.size // max(1, num_minutes.sum()) == processes.rank)
    if len(own) == 0:
        return None
    first, last = entities[own[[0, -1]]].tolist()
    return first, last


def with_all_tokens(own: MinuteStore, processes: Processes) -> MinuteStore:
    """The same minutes, with the composites and sets of locations of all processes and how often each occurs there.

    So the vocabulary and the bars of histograms are those that one process would find.
    """
    if processes.size == 1:
        return own
    composites, composite_id, num_behavior = _merged_composites(own, processes)
    sets, set_id, num_location = _merged_sets(own, processes)
    merged = replace(
        own,
        behavior=own.renumbered(own.behavior, composite_id),
        composites=composites,
        location=own.renumbered(own.location, np.append(set_id, np.int32(-1))),
        location_sets=sets,
    )
    here = merged.occurrences
    return replace(merged, elsewhere=Occurrences(num_behavior - here.composites, num_location - here.location_sets))


def _merged_composites(
    own: MinuteStore, processes: Processes
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """The distinct composites of all processes, which of them each of this one's is, and how often each occurs."""
    every, first = processes.concatenate(own.composites)
    counts, _ = processes.concatenate(own.occurrences.composites)
    distinct, index = np.unique(every, axis=0, return_inverse=True)
    index = index.reshape(-1)
    return distinct, index[first : first + len(own.composites)].astype(np.int32), _sums(index, counts, len(distinct))


def _merged_sets(own: MinuteStore, processes: Processes) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64]]:
    """Likewise, the distinct sets of locations."""
    every = [name for names in processes.gather(own.location_sets) for name in names]
    counts, first = processes.concatenate(own.occurrences.location_sets)
    distinct = sorted(set(every))
    number = {name: i for i, name in enumerate(distinct)}
    index = np.array([number[name] for name in every], dtype=np.int64)
    return distinct, index[first : first + len(own.location_sets)].astype(np.int32), _sums(index, counts, len(distinct))


def _sums(index: NDArray[Any], counts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    sums = np.zeros(length, dtype=np.int64)
    np.add.at(sums, index, counts)
    return sums
