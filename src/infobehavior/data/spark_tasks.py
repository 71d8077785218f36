"""What Spark's executors do with an event log: DuckDB and the embedded engine's own functions, on a part of it.

What goes from task to task are batches of rows as bytes (Arrow's), so Spark decides nothing about a value.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import numpy as np
import pyarrow as pa

from infobehavior.data.cleaning import CleanEvents, StagedEvents, TimeFacts, find_examples, find_time_facts
from infobehavior.data.clock import SECONDS_PER_MINUTE
from infobehavior.data.coded_events import arrow_batches, number_values, read_sorted_events
from infobehavior.data.day_files import write_day
from infobehavior.data.embedded_log import unknown_behaviors_sql
from infobehavior.data.events import (
    CsvFormat,
    CsvRows,
    connect,
    copy_csv,
    look_into_csv,
    only_row,
    quoted,
    quoted_text,
    readable,
)
from infobehavior.data.schema import Schema
from infobehavior.data.spark_plan import Integers, Piece, Plan
from infobehavior.data.survey import count_reasons, count_slots
from infobehavior.data.tokens import Layout, fold_events, run_starts, whole_minutes
from infobehavior.spark import refuse_unseen

ROWS_PER_BATCH = 262_144
"""Rows that a task has at once, beside those in DuckDB's memory."""


@dataclass(frozen=True)
class Reader:
    """How a part of a log is read: a piece, or rows that another task sent.

    Attributes:
        description: of the log.
        schema: of the log.
        columns: DuckDB's type of each column of the whole log.
        form: of CSV files; None of Parquet.
        hive: what DuckDB is told of folders called ``key=value``.
        memory_limit: of DuckDB, in each task.
        threads: of DuckDB, in each task.
    """

    description: str
    schema: Schema
    columns: Mapping[str, str]
    form: CsvFormat | None
    hive: str
    memory_limit: str
    threads: int

    @contextmanager
    def connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB whose errors are told as those of the embedded engine."""
        with connect(self.memory_limit, self.threads) as connection, readable(self.description):
            yield connection

    def source(self, connection: duckdb.DuckDBPyConnection, items: Iterator[Any]) -> str | None:
        """What stands after FROM, for what is in a partition; None where nothing is."""
        first = next(items, None)
        if first is None:
            return None
        if isinstance(first, Piece):
            return copy_csv(connection, self.form, first.files) if self.form else self._parquet(first)
        connection.register("sent", _received(chain([first], items)))
        connection.execute(f"CREATE TEMP TABLE log AS SELECT {self.used} FROM sent")
        return "log"

    @property
    def used(self) -> str:
        """SQL of the schema's columns, in the types that they have in the whole log, whatever those of a file are."""
        names = self.schema.columns.used()
        return ", ".join(f"CAST({quoted(name)} AS {self.columns[name]}) AS {quoted(name)}" for name in names)

    def _parquet(self, piece: Piece) -> str:
        """File by file, since DuckDB gives all files the types of the first."""
        rows = ""
        options = self.hive
        if piece.rows:
            options += ", file_row_number = true"
            rows = f" WHERE file_row_number >= {piece.rows[0]} AND file_row_number < {piece.rows[1]}"
        files = (f"read_parquet({quoted_text(str(file))}, {options}){rows}" for file in piece.files)
        return f"({' UNION ALL '.join(f'SELECT {self.used} FROM {file}' for file in files)})"


def look_into(reader: Reader, items: Iterator[Any]) -> Iterator[tuple[CsvRows, TimeFacts]]:
    """What a part of a log decides by all of its rows."""
    with reader.connected() as connection:
        for piece in items:
            source = reader.source(connection, iter([piece]))
            assert source is not None
            rows = look_into_csv(connection, source, reader.form, piece.files) if reader.form else CsvRows()
            yield rows, find_time_facts(connection, source, reader.columns, reader.schema)


def send_rows(reader: Reader, num_partitions: int, items: Iterator[Any]) -> Iterator[tuple[int, bytes]]:
    """The rows of a part of a log, so that equal ones come together."""
    with reader.connected() as connection:
        source = reader.source(connection, items)
        names = [quoted(name) for name in reader.schema.columns.used()]
        rows = connection.sql(f"SELECT {reader.used}, hash({', '.join(names)}) % {num_partitions} FROM {source}")
        for batch in arrow_batches(rows, ROWS_PER_BATCH):
            place = batch.column(len(names)).to_numpy().astype(np.int64)
            yield from _sent(batch.select(list(range(len(names)))), place)


@dataclass(frozen=True)
class Counts:
    """What `CleanEvents` makes of a part of a log: whether any row is usable, and rows by quarter hour."""

    any_usable: bool
    slots: Mapping[int | None, int]


def count_events(reader: Reader, clean: CleanEvents, items: Iterator[Any]) -> Iterator[Counts]:
    """Count the rows of a part of a log."""
    with reader.connected() as connection:
        source = reader.source(connection, items)
        if source is None:
            return
        part = replace(clean, source=source)
        usable = connection.execute(f"SELECT 1 FROM ({part.sql}) WHERE usable LIMIT 1").fetchall()
        yield Counts(bool(usable), count_slots(connection, part, reader.schema))


def look_at_unusable(
    reader: Reader, clean: CleanEvents, items: Iterator[Any]
) -> Iterator[tuple[dict[str, int], dict[str, tuple[str, ...]]]]:
    """Rows of a part of a log that are set aside, by reason, and some of them."""
    with reader.connected() as connection:
        source = reader.source(connection, items)
        if source is not None:
            part = replace(clean, source=source)
            yield count_reasons(connection, part), find_examples(connection, part)


def send_unknown_behaviors(
    reader: Reader, clean: CleanEvents, num_partitions: int, items: Iterator[Any]
) -> Iterator[tuple[int, tuple[str, int]]]:
    """The behaviors of a part of a log that the schema doesn't list, with their counts."""
    with reader.connected() as connection:
        source = reader.source(connection, items)
        if source is not None:
            rows = connection.execute(unknown_behaviors_sql(replace(clean, source=source), reader.schema)).fetchall()
            yield from ((crc32(behavior.encode()) % num_partitions, (behavior, count)) for behavior, count in rows)


def most_frequent(num_shown: int, items: Iterator[Any]) -> Iterator[tuple[str, int]]:
    """The behaviors with the highest counts, of those that came here."""
    total: dict[str, int] = {}
    for _, (behavior, count) in items:
        total[behavior] = total.get(behavior, 0) + count
    yield from sorted(total.items(), key=lambda item: (-item[1], item[0]))[:num_shown]


def send_events(reader: Reader, clean: CleanEvents, plan: Plan, items: Iterator[Any]) -> Iterator[tuple[int, bytes]]:
    """The usable events of a part of a log, to the tasks of their days and entities."""
    first, end = plan.chunks[0].starts[0], plan.chunks[-1].starts[-1]
    columns = ["entity_id", "microsecond", "behavior", "failed", *_set_texts(reader.schema)]
    with reader.connected() as connection:
        source = reader.source(connection, items)
        if source is None:
            return
        part = replace(clean, source=source).between(first * SECONDS_PER_MINUTE, end * SECONDS_PER_MINUTE)
        events = connection.sql(f"SELECT {', '.join(columns)}, hash(entity_id) AS entity_hash FROM ({part})")
        for batch in arrow_batches(events, ROWS_PER_BATCH):
            task = plan.task_of(batch["microsecond"].to_numpy(), batch["entity_hash"].to_numpy())
            yield from _sent(batch.select(columns), task)


@dataclass(frozen=True)
class Tally:
    """Of some usable events, how many there are, and how many have a behavior that the schema doesn't list."""

    num_kept: int
    num_unknown: int


def send_minutes(reader: Reader, plan: Plan, items: Iterator[Any]) -> Iterator[tuple[int, bytes | Tally]]:
    """The minutes of the events of a task, to their chunk."""
    first = next(items, None)
    if first is None:
        return
    at, schema = plan.chunk_of(first[0]), reader.schema
    starts = plan.chunks[at].starts
    with reader.connected() as connection:
        events = _staged(connection, chain([first], items), schema)
        layout = Layout.of(schema, number_values(connection, events, schema))
        for batch in whole_minutes(read_sorted_events(connection, events, layout, starts), layout):
            minutes = fold_events(batch, starts[0], layout, schema)
            yield at, Tally(batch.num_rows, minutes.num_unknown)
            yield at, _as_bytes(minutes.rows.append_column("day", pa.array(minutes.day)))


def _staged(connection: duckdb.DuckDBPyConnection, items: Iterable[Any], schema: Schema) -> StagedEvents:
    """Events that were sent, in a file, since they are read more than once."""
    (spill,) = only_row(connection, "SELECT current_setting('temp_directory')")
    path = Path(spill) / "events.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    sets = "".join(f", nullif({name}, '') AS {name.removesuffix('_text')}" for name in _set_texts(schema))
    connection.register("sent", _received(items))
    connection.execute(f"COPY (SELECT *{sets} FROM sent) TO {quoted_text(str(path))} (FORMAT parquet)")
    return StagedEvents(path)


def _set_texts(schema: Schema) -> list[str]:
    """The columns of events of which a minute keeps a set."""
    location = ["location_text"] if schema.columns.location else []
    return location + [f"extra_{i}_text" for i in range(len(schema.columns.extra))]


@dataclass(frozen=True)
class DayDone:
    """Minutes of a day that a task wrote.

    Attributes:
        day: whose they are.
        num_rows: how many.
        num_events: that they hold.
        folder: a folder of minutes that has this day; below it, nothing else knows the file.
    """

    day: date
    num_rows: int
    num_events: int
    folder: Path


def write_days(reader: Reader, plan: Plan, hidden: Path, items: Iterator[Any]) -> Iterator[DayDone | Tally]:
    """Write the minutes of a chunk, each day sorted and to a file that no other attempt at this task writes."""
    refuse_unseen(hidden)
    tallies: list[Tally] = []
    first = next(items, None)
    if first is None:
        return
    days = plan.chunks[first[0]].days
    minutes = _received(_without_tallies(chain([first], items), tallies))
    names = [name for name in minutes.schema.names if name != "day"]
    rows_schema = pa.schema([minutes.schema.field(name) for name in names])
    folder = hidden / uuid.uuid4().hex
    with reader.connected() as connection:
        connection.register("sent", minutes)
        ordered = connection.sql("SELECT * FROM sent ORDER BY day, entity_id, minute")
        batches = _by_day(arrow_batches(ordered, ROWS_PER_BATCH), rows_schema)
        for day, tables in groupby(batches, itemgetter(0)):
            file = write_day(folder, days[day], map(itemgetter(1), tables)).finish()
            yield DayDone(file.day, file.num_rows, file.num_events, folder)
    yield from tallies


def _by_day(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each day, as they were folded."""
    for batch in batches:
        if batch.num_rows:
            day = batch["day"].to_numpy()
            rows = pa.Table.from_batches([batch.select(schema.names)]).cast(schema)
            starts = run_starts(day).tolist()
            for start, end in zip(starts, [*starts[1:], len(day)], strict=True):
                yield int(day[start]), rows.slice(start, end - start)


def _without_tallies(items: Iterable[Any], tallies: list[Tally]) -> Iterator[Any]:
    for item in items:
        if isinstance(item[1], Tally):
            tallies.append(item[1])
        else:
            yield item


def _sent(batch: pa.RecordBatch, place: Integers) -> Iterator[tuple[int, bytes]]:
    """The rows of each place as bytes; those of a negative one go nowhere."""
    if batch.num_rows == 0:
        return
    order = np.argsort(place, kind="stable")
    rows, place = batch.take(pa.array(order)), place[order]
    starts = run_starts(place).tolist()
    for start, end in zip(starts, [*starts[1:], len(place)], strict=True):
        if place[start] >= 0:
            yield int(place[start]), _as_bytes(rows.slice(start, end - start))


def _as_bytes(rows: pa.RecordBatch | pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _received(items: Iterable[Any]) -> pa.RecordBatchReader:
    """What was sent, batch by batch; at least one."""
    batches = (batch for _, content in items for batch in pa.ipc.open_stream(content))
    first = next(batches)
    return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
