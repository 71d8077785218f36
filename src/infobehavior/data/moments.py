"""Moments at which windows end (point in time): the end of a day, or a table of (entity_id, as_of)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infobehavior.data.clock import day_bounds, local_date
from infobehavior.data.events import INTEGER_TYPES
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.schema import Schema
from infobehavior.data.store import MinuteStore
from infobehavior.data.tables import as_moment, column_moments, numpy_moments, read_table
from infobehavior.errors import InputError

MICROSECONDS_PER_MINUTE = 60_000_000


@dataclass(frozen=True)
class Moments:
    """Pairs of an entity and a moment, distinct, sorted by entity and moment.

    Attributes:
        entity_id: who, in the type that the minutes have.
        as_of: microseconds since the epoch; the window that ends then doesn't contain it.
    """

    entity_id: NDArray[Any]
    as_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.entity_id)

    def take(self, which: slice | NDArray[Any]) -> "Moments":
        """Some of them, in their order."""
        return Moments(self.entity_id[which], self.as_of[which])

    @property
    def are_one(self) -> bool:
        """Whether all windows end at the same moment."""
        return len(self) > 0 and bool((self.as_of == self.as_of[0]).all())

    @property
    def hash(self) -> str:
        """Tells one table of moments from another."""
        digest = hashlib.sha256(self.as_of.tobytes())
        is_text = self.entity_id.dtype == object
        for part in (f"{entity}\0".encode() for entity in self.entity_id) if is_text else [self.entity_id.tobytes()]:
            digest.update(part)
        return digest.hexdigest()[:16]

    @property
    def end(self) -> NDArray[np.int64]:
        """UTC epoch minute at which each window ends: a minute that `as_of` cuts in two is left out whole."""
        return window_end(self.as_of)


def window_end(as_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """UTC epoch minute at which the windows of moments (microseconds since the epoch) end."""
    return as_of // MICROSECONDS_PER_MINUTE


def end_of_day(day: date | str, schema: Schema) -> int:
    """UTC epoch minute at which a local day has just ended.

    Raises:
        InputError: the text isn't a date.
    """
    if isinstance(day, str):
        try:
            day = date.fromisoformat(day)
        except ValueError:
            raise InputError(f"{day!r} is not a date; expected YYYY-MM-DD") from None
    try:
        return day_bounds(day, schema.time.time_zone)[1]
    except OverflowError:
        raise InputError(f"{day} is too early or too late for a calendar; expected a day of the events") from None


def read_moments(path: str | Path, minutes: MinuteTable) -> Moments:
    """Read a Parquet or CSV table with the columns `entity_id` and `as_of`.

    An `as_of` without a time zone is local time of the minutes' schema; a date is its local midnight, so nothing of
    that day is in its window.

    Raises:
        InputError: the table can't be read, lacks a column, has no rows, or has an entity or a moment that is null or
            can't be read.
    """
    path = Path(path)
    table = read_table(path)
    missing = [name for name in ("entity_id", "as_of") if name not in table.column_names]
    if missing:
        raise InputError(f"{path} has no column {' and '.join(missing)}; it has {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows; expected at least one (entity_id, as_of)")
    for name in ("entity_id", "as_of"):
        _refuse_nulls(name, table[name].null_count, table.num_rows, path)
    moments = column_moments(table["as_of"], minutes.schema.time.time_zone, str(path))
    return distinct_moments(_entity_ids(table["entity_id"], minutes, path), numpy_moments(moments))


def as_moments(
    entity_ids: Sequence[Any], moments: Sequence[Any], minutes: MinuteTable
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Python values as the entities and moments (microseconds since the epoch) of some minutes.

    Each moment is read by itself, so dates may stand beside times, and times with a zone beside times without one.

    Raises:
        InputError: one is null or can't be read as such.
    """
    where = Path("the given rows")
    for name, values in (("entity_id", entity_ids), ("as_of", moments)):
        _refuse_nulls(name, sum(map(_is_null, values)), len(values), where)
    try:
        column = pa.chunked_array([pa.array(entity_ids)])
    except (pa.ArrowException, TypeError) as error:
        raise InputError(f"{where}: entity_id has values of several types: {error}") from None
    zone = minutes.schema.time.time_zone
    parsed = [as_moment(_plain(value), zone, str(where)) for value in moments]
    return _entity_ids(column, minutes, where), np.array(parsed, dtype=np.int64)


def distinct_moments(entity_id: NDArray[Any], as_of: NDArray[np.int64]) -> Moments:
    """Sort pairs and keep each once."""
    order = np.lexsort((as_of, entity_id))
    entity_id, as_of = entity_id[order], as_of[order]
    if len(order) == 0:
        return Moments(entity_id, as_of)
    is_new = np.append(True, (entity_id[1:] != entity_id[:-1]) | (as_of[1:] != as_of[:-1]))
    return Moments(entity_id[is_new], as_of[is_new])


def known_until(store: MinuteStore, moments: Moments | None, end: int) -> NDArray[np.int64]:
    """UTC epoch minute from which on nothing of each entity may be known: its first moment, but at most `end`."""
    until = np.full(len(store.entities), end, dtype=np.int64)
    if moments is None or len(store.entities) == 0:
        return until
    entity, first_end = first_moments(moments)
    place = np.minimum(np.searchsorted(store.entities, entity), len(store.entities) - 1)
    is_there = store.entities[place] == entity
    until[place[is_there]] = np.minimum(first_end[is_there], end)
    return until


def first_moments(moments: Moments) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Each entity once, sorted, and the UTC epoch minute at which the window of its first moment ends."""
    entity, first = np.unique(moments.entity_id, return_index=True)
    return entity, moments.end[first]


def cut_at(store: MinuteStore, until: NDArray[np.int64]) -> MinuteStore:
    """Leave out, of each entity, all minutes from a UTC epoch minute on; see `known_until`."""
    return store.select(store.minute < np.repeat(until, np.diff(store.offsets)))


def _entity_ids(column: pa.ChunkedArray, minutes: MinuteTable, path: Path) -> NDArray[Any]:
    """Entities in the type that the minutes have."""
    is_text = minutes.entity_type not in INTEGER_TYPES
    try:
        if is_text:
            return np.array(column.cast(pa.string()).to_pylist(), dtype=object)
        return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
    except pa.ArrowException as error:
        kind = "text" if is_text else "an integer"
        raise InputError(f"{path}: entity_id is {kind} in the minutes, but here: {error}") from None


def _refuse_nulls(name: str, num_nulls: int, num_rows: int, path: Path) -> None:
    if num_nulls:
        raise InputError(f"{path}: {name} is null in {num_nulls} of {num_rows} rows; fill or remove them")


def _is_null(value: Any) -> bool:
    """True for None, NaN and NaT, the last two of which differ from themselves."""
    return value is None or bool(value != value)


def _plain(value: Any) -> Any:
    """A NumPy moment as Python's own."""
    return value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value


def day_before(moment: int, schema: Schema) -> date:
    """Local date of the last instant before a moment (microseconds since the epoch)."""
    return local_date((moment - 1) // MICROSECONDS_PER_MINUTE, schema.time.time_zone)
