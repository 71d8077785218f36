"""The minutes that one of several processes reads: those of a run of entities, about as many as any other reads."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import Moments, first_moments
from infobehavior.data.store import MinuteStore, Occurrences, entities_of, load_store
from infobehavior.pretraining.processes import Processes


def load_own(
    minutes: MinuteTable,
    first_minute: int | None,
    end_minute: int,
    moments: Moments | None,
    *,
    with_counts: bool,
    processes: Processes,
) -> MinuteStore:
    """Read the minutes of a process's entities; a process may have none. See `load_store`.

    An entity belongs to the process in whose share of all minutes its first one lies. What is after an entity's first
    moment is read, but doesn't count.
    """
    if processes.size == 1:
        return load_store(minutes, first_minute, end_minute, with_counts=with_counts)
    until = None if moments is None else first_moments(moments)
    entities, num_minutes = entities_of(minutes, end_minute, first_minute=first_minute, until=until)
    before = np.cumsum(num_minutes) - num_minutes
    own = entities[before * processes.size // max(1, num_minutes.sum()) == processes.rank]
    if len(own) == 0:
        return load_store(minutes, end_minute, end_minute, with_counts=with_counts)
    first, last = own[0], own[-1]
    return load_store(minutes, first_minute, end_minute, with_counts=with_counts, first_entity=first, last_entity=last)


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
        behavior=composite_id[own.behavior],
        composites=composites,
        location=np.append(set_id, np.int32(-1))[own.location],
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
