"""Borders between two adjacent windows of an entity that both have enough minutes with events (section 4.1.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.clock import day_bounds, local_date
from infobehavior.data.store import MinuteStore

BorderOf = Callable[[NDArray[np.int64]], NDArray[np.int64]]


class Borders(Protocol):
    """The borders of each entity of a store, in order of time."""

    @property
    def num(self) -> NDArray[np.int64]:
        """How many each entity has."""
        ...

    @property
    def first(self) -> NDArray[np.int64]:
        """The UTC epoch minute of each entity's first border; says nothing where it has none."""
        ...

    def at(self, entity: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
        """The UTC epoch minutes of some borders, each told by its entity and its number, counted from 0."""
        ...


@dataclass(frozen=True)
class Enough:
    """What a window on either side of a border must have.

    Attributes:
        window_minutes: its length.
        min_minutes: how many minutes with events.
    """

    window_minutes: int
    min_minutes: int

    def holds(
        self, store: MinuteStore, entity: NDArray[np.int64], border: NDArray[np.int64], row: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether both windows have it.

        Args:
            store: the minutes.
            entity: whose border each one is.
            border: UTC epoch minute.
            row: the first row of the entity that is at the border or after it.
        """
        first, last = row - self.min_minutes, row + self.min_minutes - 1
        enough: NDArray[np.bool_] = (first >= store.offsets[entity]) & (last < store.offsets[entity + 1])
        first, last, border = first[enough], last[enough], border[enough]
        is_near = store.minute[first] >= border - self.window_minutes
        enough[enough] = is_near & (store.minute[last] < border + self.window_minutes)
        return enough


@dataclass(frozen=True)
class OneBorder:
    """The same border for all entities that have enough on both sides of it."""

    num: NDArray[np.int64]
    first: NDArray[np.int64]

    @classmethod
    def find(cls, store: MinuteStore, border: int, enough: Enough) -> "OneBorder":
        """Ask each entity of a store."""
        entity = np.arange(len(store.entities))
        at = np.full(len(entity), border)
        return cls(enough.holds(store, entity, at, store.first_row_at(entity, at)).astype(np.int64), at)

    def at(self, entity: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Borders`."""
        return self.first[entity]


@dataclass(frozen=True)
class BordersOfRows:
    """Borders that rows have: of an entity's rows with the same one, the last.

    What is kept of a row is whether it has one; which row a border is of is found when it is drawn.

    Attributes:
        num: see `Borders`.
        first: see `Borders`.
        has_border: of each row of the store.
        store: the minutes.
        border_of: gives the border of a row's minute: the minute itself or a later one.
    """

    num: NDArray[np.int64]
    first: NDArray[np.int64]
    has_border: NDArray[np.bool_]
    store: MinuteStore
    border_of: BorderOf

    @classmethod
    def find(cls, store: MinuteStore, border_of: BorderOf, enough: Enough) -> "BordersOfRows":
        """Ask each row of a store, block by block."""
        num = np.zeros(len(store.entities), dtype=np.int64)
        first = np.full(len(store.entities), np.iinfo(np.int64).max)

        def has_border(rows: slice) -> NDArray[np.bool_]:
            entity, minute = store.entity_of(rows), store.minute[rows].astype(np.int64)
            border = border_of(minute)
            following = np.arange(rows.start, rows.stop) + (border > minute)
            has = enough.holds(store, entity, border, following)
            has[has] = store.minute[following[has]] >= border[has]  # else a later row has the same border
            own, place, counts = np.unique(entity[has], return_index=True, return_counts=True)
            num[own] += counts
            first[own] = np.minimum(first[own], border[has][place])
            return has

        return cls(num, first, store.derive(has_border, np.bool_), store, border_of)

    def at(self, entity: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Borders`."""
        start, end = self.store.offsets[entity], self.store.offsets[entity + 1]
        place = [np.flatnonzero(self.has_border[a:b])[i] for a, b, i in zip(start, end, number, strict=True)]
        return self.border_of(self.store.minute[start + np.array(place, dtype=np.int64)].astype(np.int64))


def its_own_minute(minute: NDArray[np.int64]) -> NDArray[np.int64]:
    """The border of a row is its minute."""
    return minute


def end_of_its_day(store: MinuteStore, time_zone: str) -> BorderOf:
    """The border of a row is the end of the local day that it is in."""
    if store.num_minutes == 0:
        return its_own_minute
    first, last = (local_date(int(end), time_zone) for end in (store.minute.min(), store.minute.max()))
    days = (first + timedelta(days=i) for i in range((last - first).days + 1))
    ends = np.array([day_bounds(day, time_zone)[1] for day in days])
    return lambda minute: ends[np.searchsorted(ends, minute, side="right")]
