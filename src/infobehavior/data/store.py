"""The minutes of many entities: one array a column, in memory or mapped from disk, sorted by entity and minute."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infobehavior.artefacts import definition_hash
from infobehavior.data.behavior_counts import BehaviorCounts
from infobehavior.data.column_files import column_on_disk, expect_reads_at_random
from infobehavior.data.events import connect, quoted, readable
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.ranges import blocks
from infobehavior.data.schema import Schema
from infobehavior.errors import InputError, one_line


@dataclass(frozen=True)
class Occurrences:
    """In how many minutes each distinct composite and each distinct set of locations occurs."""

    composites: NDArray[np.int64]
    location_sets: NDArray[np.int64]


@dataclass(frozen=True)
class MinuteStore:
    """Minutes by entity: those of entity `e` are rows `offsets[e]` to `offsets[e + 1]` of each column.

    Attributes:
        entities: ids, sorted.
        offsets: first row of each entity, and the number of rows.
        minute: UTC epoch minute of each row.
        behavior: index of each row's behavior in `composites`.
        location: index of each row's set of locations in `location_sets`, -1 for none.
        num_events: events of each row.
        num_failures: failed operations of each row.
        composites: packed words of each distinct behavior token.
        location_sets: the distinct sets of locations, members joined with SET_SEPARATOR.
        extra: of each extra column, the index of each row's set in its `extra_sets`, -1 for none.
        extra_sets: the distinct sets of each extra column.
        behavior_counts: how often each behavior occurs in each row, if that was asked for.
        elsewhere: occurrences in minutes that belong to these but that other processes hold, if there are any.
        folder: on whose file system the columns are; None where they are in memory.
    """

    entities: NDArray[Any]
    offsets: NDArray[np.int64]
    minute: NDArray[np.int32]
    behavior: NDArray[np.int32]
    location: NDArray[np.int32]
    num_events: NDArray[np.int32]
    num_failures: NDArray[np.int32]
    composites: NDArray[np.int64]
    location_sets: list[str]
    extra: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    extra_sets: dict[str, list[str]] = field(default_factory=dict)
    behavior_counts: BehaviorCounts | None = None
    elsewhere: Occurrences | None = None
    folder: Path | None = None

    @property
    def num_minutes(self) -> int:
        """Rows of the store."""
        return len(self.minute)

    @property
    def row_entity(self) -> NDArray[np.int64]:
        """Index of each row's entity; made anew each time, since it takes as much as two columns."""
        return np.repeat(np.arange(len(self.entities)), np.diff(self.offsets))

    def entity_of(self, rows: slice) -> NDArray[np.int64]:
        """Index of the entity of each of some rows, which are at least one and follow each other."""
        first, last = np.searchsorted(self.offsets, [rows.start, rows.stop - 1], side="right") - 1
        bounds = np.clip(self.offsets[first : last + 2], rows.start, rows.stop)
        return np.repeat(np.arange(first, last + 1), bounds[1:] - bounds[:-1])

    def derive(self, of: Callable[[slice], NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
        """A further column, made block by block; it is where the others are.

        Args:
            of: gives the values of some rows.
            dtype: of the values.
        """
        if self.folder is not None:
            return column_on_disk(self.folder, (of(rows) for rows in blocks(self.num_minutes)), dtype)
        column = np.empty(self.num_minutes, dtype)
        for rows in blocks(self.num_minutes):
            column[rows] = of(rows)
        return column

    def renumbered(self, column: NDArray[np.int32], number: NDArray[np.int32]) -> NDArray[np.int32]:
        """A column of numbers with another number for each; `number` ends with the one for -1 where there is any."""
        return self.derive(lambda rows: number[column[rows]], np.int32)

    def expect_windows(self) -> None:
        """Say that from now on only the rows of some windows are read at a time, where they are on disk."""
        counts = self.behavior_counts
        of_counts = () if counts is None else (counts.code, counts.count, counts.offsets)
        expect_reads_at_random([self.minute, self.behavior, self.location, self.num_events, self.num_failures])
        expect_reads_at_random([*self.extra.values(), *of_counts])

    @cached_property
    def occurrences(self) -> Occurrences:
        """In how many minutes each composite and each set of locations occurs, elsewhere too."""
        composites = _num_of_each(self.behavior, len(self.composites))
        sets = _num_of_each(self.location, len(self.location_sets))
        if self.elsewhere is None:
            return Occurrences(composites, sets)
        return Occurrences(composites + self.elsewhere.composites, sets + self.elsewhere.location_sets)

    def first_row_at(self, entity: NDArray[np.int64], minute: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row of each entity (by index) at a UTC minute or after it; the end of its rows if none is.

        Bisects the rows of all entities at the same time.
        """
        low, high = self.offsets[entity], self.offsets[entity + 1]
        while (is_open := low < high).any():
            middle = (low + high) // 2
            is_before = self.minute[np.minimum(middle, self.num_minutes - 1)] < minute
            low = np.where(is_open & is_before, middle + 1, low)
            high = np.where(is_open & ~is_before, middle, high)
        return low

    def select(self, keep: NDArray[np.bool_]) -> "MinuteStore":
        """The rows of a mask, of the same entities, even those that lose all of theirs."""
        num_kept = np.bincount(self.row_entity[keep], minlength=len(self.entities))
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(num_kept)]).astype(np.int64),
            minute=self.minute[keep],
            behavior=self.behavior[keep],
            location=self.location[keep],
            num_events=self.num_events[keep],
            num_failures=self.num_failures[keep],
            extra={name: ids[keep] for name, ids in self.extra.items()},
            behavior_counts=None if self.behavior_counts is None else self.behavior_counts.select(keep),
        )


def _num_of_each(ids: NDArray[np.int32], num_ids: int) -> NDArray[np.int64]:
    """How often each of the numbers from 0 on occurs; -1 may occur too."""
    counts = np.zeros(num_ids + 1, dtype=np.int64)
    for rows in blocks(len(ids)):
        counts += np.bincount(ids[rows] + 1, minlength=num_ids + 1)
    return counts[1:]


def load_store(
    minutes: MinuteTable,
    first_minute: int | None = None,
    end_minute: int | None = None,
    *,
    with_counts: bool = False,
    first_entity: Any = None,
    last_entity: Any = None,
    entities: NDArray[Any] | None = None,
) -> MinuteStore:
    """Read minutes from their daily partitions.

    Args:
        minutes: the table.
        first_minute: UTC epoch minute before which nothing is read.
        end_minute: UTC epoch minute from which on nothing is read.
        with_counts: whether exact counts of behaviors are wanted.
        first_entity: entities before this one, in sorting order, are not read.
        last_entity: entities after this one are not read.
        entities: of others nothing is kept; sorted.

    Raises:
        InputError: a file is missing or damaged, or holds a minute that another holds too, or other counts.
    """
    schema = minutes.schema
    files = minutes.files(first_minute, end_minute)
    if not files:
        return _empty_store(minutes, with_counts)
    columns = [
        *("entity_id", "minute", "num_events", "num_failures", "location"),
        *_word_columns(schema),
        *(quoted(name) for name in schema.columns.extra),
        *(["counts"] if with_counts else []),
    ]
    if entities is not None and len(entities):
        first_entity, last_entity = _plain(entities[0]), _plain(entities[-1])
    where, bounds = _within(first_minute, end_minute, first_entity, last_entity)
    with reading_minutes(minutes.path, files), connect() as connection:
        source = "read_parquet(?, hive_partitioning = false)"
        if entities is not None:
            connection.register("chosen", pa.table({"entity_id": entities}))
            source += " SEMI JOIN chosen USING (entity_id)"
        table = connection.sql(
            f"SELECT {', '.join(columns)} FROM {source} WHERE {where} ORDER BY entity_id, minute",
            params=[files, *bounds],
        ).to_arrow_table()
    store = _from_arrow(table, schema, with_counts)
    _refuse_repeated_minutes(store, minutes.path)
    _refuse_other_counts(store, minutes.path)
    return store


def _plain(entity: object) -> object:
    """A NumPy number as Python's own."""
    return int(entity) if isinstance(entity, np.integer) else entity


def _within(first_minute: int | None, end_minute: int | None, first: Any, last: Any) -> tuple[str, list[Any]]:
    """A condition on minutes and entities, and its parameters; None is no bound."""
    bounds = {"minute >=": first_minute, "minute <": end_minute, "entity_id >=": first, "entity_id <=": last}
    given = {comparison: value for comparison, value in bounds.items() if value is not None}
    return " AND ".join(f"{comparison} ?" for comparison in given) or "true", list(given.values())


def _refuse_repeated_minutes(store: MinuteStore, folder: Path) -> None:
    repeated = np.diff(store.minute, prepend=-1) == 0
    repeated[store.offsets[:-1]] = False
    if repeated.any():
        row = int(np.argmax(repeated))
        [entity] = store.entities[store.entity_of(slice(row, row + 1))]
        raise InputError(
            f"{folder} has a minute of entity {entity} twice, so a day's file may be in the folder of another day; "
            "run `infobehavior aggregate` again"
        )


def _refuse_other_counts(store: MinuteStore, folder: Path) -> None:
    counts = store.behavior_counts
    if counts is not None and len(counts.count) != counts.offsets[-1]:
        raise InputError(
            f"{folder} has {len(counts.count):,} counts of behaviors for {counts.offsets[-1]:,} behaviors, so a file "
            "is damaged; run `infobehavior aggregate` again"
        )


def entities_of(
    minutes: MinuteTable,
    end_minute: int | None = None,
    *,
    first_minute: int | None = None,
    until: tuple[NDArray[Any], NDArray[np.int64]] | None = None,
    first_entity: Any = None,
    last_entity: Any = None,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All entities that have minutes from `first_minute` on and before `end_minute`, sorted, and how many each has.

    Args:
        minutes: the table.
        end_minute: UTC epoch minute from which on nothing counts.
        first_minute: UTC epoch minute before which nothing counts.
        until: some entities, each once, and the UTC epoch minute from which on nothing of them counts.
        first_entity: entities before this one, in sorting order, don't count.
        last_entity: entities after this one don't count.

    Raises:
        InputError: a file is missing or damaged.
    """
    files = minutes.files(first_minute, end_minute)
    if not files:
        return np.array([], dtype=object), np.array([], dtype=np.int64)
    with reading_minutes(minutes.path, files), connect() as connection:
        source = "read_parquet(?, hive_partitioning = false)"
        where, bounds = _within(first_minute, end_minute, first_entity, last_entity)
        if until is not None:
            connection.register("cuts", pa.table({"entity_id": until[0], "until": until[1]}))
            source += " LEFT JOIN cuts USING (entity_id)"
            where += " AND minute < coalesce(cuts.until, minute + 1)"
        table = connection.sql(
            f"SELECT entity_id, count(*) AS n FROM {source} WHERE {where} GROUP BY entity_id ORDER BY entity_id",
            params=[files, *bounds],
        ).to_arrow_table()
    return table["entity_id"].to_numpy(), table["n"].to_numpy()


def contents_of(
    minutes: MinuteTable, end_minute: int, *, first_minute: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint64]]:
    """All entities that have minutes in [first_minute, end_minute), sorted, and what tells their minutes from others.

    Returns:
        Entities, how many minutes each has, and two sums over these (entities, 2), of hashes of what the encoder sees
        of a minute. They are DuckDB's own, so those of another version of it may differ.

    Raises:
        InputError: a file is missing or damaged.
    """
    files = minutes.files(first_minute, end_minute)
    if not files:
        return np.array([], dtype=object), np.array([], dtype=np.int64), np.zeros((0, 2), dtype=np.uint64)
    seen = ", ".join(["minute", "num_events", *_word_columns(minutes.schema), "location"])
    with reading_minutes(minutes.path, files), connect() as connection:
        table = connection.sql(
            f"SELECT entity_id, count(*), {_sum_of_hashes(f'hash({seen})')}, {_sum_of_hashes(f'hash(0, {seen})')} "
            "FROM read_parquet(?, hive_partitioning = false) WHERE minute < ? AND minute >= ? "
            "GROUP BY entity_id ORDER BY entity_id",
            params=[files, end_minute, first_minute],
        ).to_arrow_table()
    entity, count, *sums = (column.to_numpy() for column in table.columns)
    return entity, count, np.column_stack(sums)


def count_composites(
    minutes: MinuteTable, first_minute: int, end_minute: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct behavior tokens of the minutes [first_minute, end_minute), and how many minutes have each.

    Raises:
        InputError: a file is missing or damaged.
    """
    files, words = minutes.files(first_minute, end_minute), _word_columns(minutes.schema)
    if not files:
        return np.zeros((0, len(words)), np.int64), np.zeros(0, np.int64)
    with reading_minutes(minutes.path, files), connect() as connection:
        table = connection.sql(
            f"SELECT {', '.join(words)}, count(*) AS n {_MINUTES_BETWEEN} GROUP BY ALL ORDER BY ALL",
            params=[files, first_minute, end_minute],
        ).to_arrow_table()
    return np.column_stack([table[word].to_numpy() for word in words]), table["n"].to_numpy()


@dataclass(frozen=True)
class LocationCounts:
    """How many minutes have which location.

    Attributes:
        nowhere: minutes without one.
        of_known: those with each of the known sets.
        from_parts: those with another set, of which a part is known.
        unknown: those with another one.
    """

    nowhere: int
    of_known: NDArray[np.int64]
    from_parts: int
    unknown: int


def count_locations(minutes: MinuteTable, first_minute: int, end_minute: int, known: Sequence[str]) -> LocationCounts:
    """Count the sets of locations of the minutes [first_minute, end_minute), however many there are.

    Args:
        minutes: the table.
        first_minute: UTC epoch minute.
        end_minute: UTC epoch minute.
        known: the sets of locations that have a token.

    Raises:
        InputError: a file is missing or damaged.
    """
    of_known = np.zeros(len(known), dtype=np.int64)
    files = minutes.files(first_minute, end_minute)
    if not files:
        return LocationCounts(0, of_known, 0, 0)
    with reading_minutes(minutes.path, files), connect() as connection:
        number = pa.array(np.arange(len(known)), pa.int64())
        connection.register("known", pa.table({"location": pa.array(known, pa.string()), "number": number}))
        found = connection.execute(
            f"WITH sets AS (SELECT location, count(*) AS n {_MINUTES_BETWEEN} GROUP BY location), "
            "others AS (SELECT location FROM sets ANTI JOIN known USING (location)), "
            "parts AS (SELECT location AS whole, unnest(string_split(location, chr(31))) AS location FROM others), "
            "partly AS (SELECT DISTINCT whole AS location FROM parts SEMI JOIN known USING (location)) "
            "SELECT CASE WHEN location IS NULL THEN 'nowhere' WHEN number IS NOT NULL THEN 'known' "
            "WHEN partly.location IS NOT NULL THEN 'from parts' ELSE 'unknown' END AS kind, number, sum(n)::BIGINT "
            "FROM sets LEFT JOIN known USING (location) LEFT JOIN partly USING (location) GROUP BY ALL",
            [files, first_minute, end_minute],
        ).fetchall()
    for kind, at, count in found:
        if kind == "known":
            of_known[at] = count
    total = {kind: count for kind, _, count in found if kind != "known"}
    return LocationCounts(total.get("nowhere", 0), of_known, total.get("from parts", 0), total.get("unknown", 0))


_MINUTES_BETWEEN = "FROM read_parquet(?, hive_partitioning = false) WHERE minute >= ? AND minute < ?"


def _sum_of_hashes(sql: str) -> str:
    return f"(sum({sql}::HUGEINT) % 18446744073709551616)::UBIGINT"


@contextmanager
def reading_minutes(folder: Path, files: Sequence[str]) -> Iterator[None]:
    """Turn what DuckDB says about minutes that it can't read into one line.

    Args:
        folder: of the minutes.
        files: those that are read; the first that can't be is named.

    Raises:
        InputError: see above.
    """
    with readable(f"the minutes in {folder}"):
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise InputError(
                f"{_first_unreadable(files) or f'a file of {folder}'} is missing or damaged ({one_line(error)}); run "
                "`infobehavior aggregate` again"
            ) from None


def _first_unreadable(files: Sequence[str]) -> str | None:
    for file in files:
        try:
            pq.read_table(file, partitioning=None)
        except (OSError, pa.ArrowException):
            return file
    return None


def content_hash(store: MinuteStore) -> str:
    """Tells one set of minutes from another that has the same vocabulary.

    It depends on the rows alone: not on tokens, sets or entities that have no row, such as those that `as_of` cut off.
    """
    num_minutes = np.diff(store.offsets)
    sets = {"location": (store.location, store.location_sets)}
    sets |= {name: (ids, store.extra_sets[name]) for name, ids in store.extra.items()}
    columns = {
        "num_minutes": num_minutes[num_minutes > 0],
        **{name: getattr(store, name) for name in ("minute", "num_events", "num_failures")},
        **({} if store.behavior_counts is None else {"counts": store.behavior_counts.count}),
    }
    hashes = {name: _hash_of(column[rows] for rows in blocks(len(column))) for name, column in columns.items()}
    behavior = (store.composites[store.behavior[rows]] for rows in blocks(store.num_minutes))
    hashes["behavior"] = _hash_of(behavior)
    return definition_hash([hashes, {name: _sets_hash(ids, names) for name, (ids, names) in sets.items()}])


def _hash_of(parts: Iterable[NDArray[Any]]) -> str:
    """The SHA-256 of the bytes of some arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _sets_hash(ids: NDArray[np.int32], names: list[str]) -> str:
    """Hash of a column of sets, whatever the numbers that stand for them."""
    used = np.flatnonzero(_num_of_each(ids, len(names)))
    by_name = sorted(used.tolist(), key=lambda i: names[i])
    rank = np.full(len(names) + 1, -1, dtype=np.int32)
    rank[by_name] = np.arange(len(by_name))
    return definition_hash([[names[i] for i in by_name], _hash_of(rank[ids[rows]] for rows in blocks(len(ids)))])


def _word_columns(schema: Schema) -> list[str]:
    return [f"levels_{i}" for i in range(schema.num_words)]


def _from_arrow(table: pa.Table, schema: Schema, with_counts: bool) -> MinuteStore:
    entities, starts = _runs(table["entity_id"])
    behavior, composites = _composites(table, schema.num_words)
    location, location_sets = _dictionary(table["location"])
    extra = {name: _dictionary(table[name]) for name in schema.columns.extra}
    return MinuteStore(
        entities=entities,
        offsets=np.append(starts, table.num_rows),
        minute=table["minute"].to_numpy(),
        behavior=behavior,
        location=location,
        num_events=table["num_events"].to_numpy(),
        num_failures=table["num_failures"].to_numpy(),
        composites=composites,
        location_sets=location_sets,
        extra={name: ids for name, (ids, _) in extra.items()},
        extra_sets={name: sets for name, (_, sets) in extra.items()},
        behavior_counts=BehaviorCounts.of(behavior, composites, _flat(table["counts"])) if with_counts else None,
    )


def _flat(lists: pa.ChunkedArray) -> NDArray[np.int32]:
    """The numbers of all lists, one list after the other."""
    numbers: NDArray[np.int32] = pc.list_flatten(lists).to_numpy().astype(np.int32, copy=False)
    return numbers


def _runs(column: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct values of a sorted column, and the row at which each begins."""
    codes, values = _dictionary(column)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return np.array(values, dtype=object if is_text else np.int64), starts


def _dictionary(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[Any]]:
    """Index of each value among the distinct ones, in order of appearance, -1 for null; and the distinct ones."""
    chunks = column.dictionary_encode().unify_dictionaries().chunks
    if not chunks:
        return np.array([], dtype=np.int32), []
    indices = [chunk.indices.fill_null(-1).to_numpy().astype(np.int32) for chunk in chunks]
    return np.concatenate(indices), chunks[0].dictionary.to_pylist()


def _composites(table: pa.Table, num_words: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Index of each row's behavior among the distinct ones, and their words."""
    words = np.stack([table[f"levels_{i}"].to_numpy() for i in range(num_words)], axis=1)
    ids = np.zeros(len(words), dtype=np.int64)
    for column in words.T:
        _, codes = np.unique(column, return_inverse=True)
        _, ids = np.unique(ids * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    _, first = np.unique(ids, return_index=True)
    return ids.astype(np.int32), words[first]


def _empty_store(minutes: MinuteTable, with_counts: bool) -> MinuteStore:
    none = np.array([], dtype=np.int32)
    is_text = minutes.entity_type != "BIGINT"
    return MinuteStore(
        entities=np.array([], dtype=object if is_text else np.int64),
        offsets=np.array([0], dtype=np.int64),
        minute=none,
        behavior=none,
        location=none,
        num_events=none,
        num_failures=none,
        composites=np.zeros((0, minutes.schema.num_words), dtype=np.int64),
        location_sets=[],
        extra=dict.fromkeys(minutes.schema.columns.extra, none),
        extra_sets={name: [] for name in minutes.schema.columns.extra},
        behavior_counts=BehaviorCounts(none, none, np.array([0], dtype=np.int64)) if with_counts else None,
    )
