"""Bundles: entities that are encoded together, told from ids and minutes alone, whatever the shards, workers or engine.

The last digits of a product can depend on what else is multiplied, so it must be the same each time. A bundle begins at
an entity whose id hashes to a certain number, and where it would be too large it is cut; so an entity that comes or
goes, or does more, changes its own bundle, and of bundles that were cut those up to the next such entity.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.clock import utc_offsets
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import Moments
from infobehavior.data.store import contents_of, entities_of

ENTITIES_PER_BUNDLE = 1_024
"""On average: one id in so many begins a bundle."""

MINUTES_PER_BUNDLE = 500_000
MOMENTS_PER_BUNDLE = 65_536
"""About where a bundle is cut, between two entities."""


@dataclass(frozen=True)
class Bundles:
    """Runs of moments, each of whole entities.

    Attributes:
        starts: the first moment of each bundle, and the number of moments.
        num_minutes: of each bundle, the minutes that its entities have in the time that all windows span together:
            all of them are read.
        contents: names what the windows of each bundle hold, for the encoder; empty where that wasn't asked for.
    """

    starts: NDArray[np.int64]
    num_minutes: NDArray[np.int64]
    contents: list[str]

    @classmethod
    def of(cls, minutes: MinuteTable, moments: Moments, window_minutes: int, *, with_contents: bool = False) -> Self:
        """Cut moments into bundles.

        Args:
            minutes: the table.
            moments: sorted by entity.
            window_minutes: length of the windows that end at them.
            with_contents: name what the windows hold; they must all end at the same moment.
        """
        if len(moments) == 0:
            return cls(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), [])
        entity, first = np.unique(moments.entity_id, return_index=True)
        start, end = int(moments.end.min()) - window_minutes, int(moments.end.max())
        if with_contents:
            known, counts, sums = contents_of(minutes, end, first_minute=start)
        else:
            known, counts = entities_of(minutes, end, first_minute=start)
        num_minutes = _placed(counts, known, entity)
        begins = np.array([_begins_bundle(who) for who in entity.tolist()])
        begins[0] = True
        run = np.cumsum(begins) - 1
        size = np.stack([_in_run(num_minutes, begins, run), _in_run(np.diff(first, append=len(moments)), begins, run)])
        part = (size // [[MINUTES_PER_BUNDLE], [MOMENTS_PER_BUNDLE]]).sum(axis=0)
        is_start = (np.diff(run, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0)
        starts = first[is_start]
        totals = np.add.reduceat(num_minutes, np.flatnonzero(is_start))
        bundles = cls(np.append(starts, len(moments)), totals, [""] * len(starts))
        if not with_contents:
            return bundles
        assert start == int(moments.end.max()) - window_minutes
        local_time = [part.tobytes() for part in utc_offsets(minutes.schema.time.time_zone, start, end)]
        return replace(bundles, contents=list(_contents(bundles, moments, _placed(sums, known, entity), local_time)))

    def __len__(self) -> int:
        return len(self.num_minutes)

    def take(self, which: slice) -> "Bundles":
        """Some bundles, one after the other."""
        return Bundles(self.starts[which.start : which.stop + 1], self.num_minutes[which], self.contents[which])

    def moments(self, start: int, end: int) -> slice:
        """The moments of some bundles, one after the other."""
        return slice(int(self.starts[start]), int(self.starts[end]))

    def shards(self, minutes_per_shard: int, moments_per_shard: int) -> Iterator[slice]:
        """Runs of bundles that together have about so many minutes and moments, or one bundle that has more."""
        start = 0
        before = np.concatenate([[0], np.cumsum(self.num_minutes)])
        while start < len(self):
            by_minutes = np.searchsorted(before, before[start] + minutes_per_shard, side="right") - 1
            by_moments = np.searchsorted(self.starts, self.starts[start] + moments_per_shard, side="right") - 1
            end = max(start + 1, int(min(by_minutes, by_moments)))
            yield slice(start, end)
            start = end


def _begins_bundle(entity: object) -> bool:
    digest = hashlib.blake2b(str(entity).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % ENTITIES_PER_BUNDLE == 0


def _in_run(sizes: NDArray[np.int64], begins: NDArray[np.bool_], run: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is before each entity in its run."""
    before = np.cumsum(sizes) - sizes
    result: NDArray[np.int64] = before - before[begins][run]
    return result


def _placed(values: NDArray[Any], known: NDArray[Any], entity: NDArray[Any]) -> NDArray[Any]:
    """The value of each entity, zeros where it isn't known; both are sorted."""
    result = np.zeros((len(entity), *values.shape[1:]), dtype=values.dtype)
    if len(known):
        place = np.minimum(np.searchsorted(known, entity), len(known) - 1)
        is_known = known[place] == entity
        result[is_known] = values[place[is_known]]
    return result


def _contents(bundles: Bundles, moments: Moments, sums: NDArray[np.uint64], local_time: list[bytes]) -> Iterator[str]:
    """Names who is in each bundle, where their windows end, what these hold, and what local time is in them."""
    for at in range(len(bundles)):
        which = bundles.moments(at, at + 1)
        named = [moments.take(which).hash.encode(), sums[which].tobytes()]
        yield hashlib.blake2b(b"".join([*named, *local_time]), digest_size=16).hexdigest()
