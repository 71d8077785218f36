"""Minute-level aggregation (section 3.1.1): all that an entity does in a minute becomes one token.

A few days at a time: `coded_events` has their events sorted, `tokens` folds these into minutes, batch by batch.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import duckdb
import pyarrow as pa

from infobehavior.artefacts import (
    DEFINITION_FILE,
    UNFINISHED_FILE,
    definition_hash,
    write_json,
    writing,
)
from infobehavior.data.cleaning import CleanEvents, StagedEvents, clean_events, quarantine_examples, read_once
from infobehavior.data.clock import day_bounds, day_of_number
from infobehavior.data.coded_events import number_values, read_sorted_events
from infobehavior.data.day_files import DayFile, write_day
from infobehavior.data.events import EventSource, connect, open_events, quoted_text, readable
from infobehavior.data.minutes import (
    FORMAT,
    KIND,
    SUMMARY_FILE,
    partition_file,
    read_definition,
)
from infobehavior.data.schema import Schema, read_schema
from infobehavior.data.stages import ahead, in_order
from infobehavior.data.summary import Replaced, Summary
from infobehavior.data.survey import Survey, chunks, count_quarantined, survey_events
from infobehavior.data.tokens import Layout, fold_events, run_starts, whole_minutes
from infobehavior.errors import InputError
from infobehavior.progress import progress

EVENTS_PER_CHUNK = 4_000_000
"""Consecutive days are read and sorted together, up to so many events, and at least one day.

A log that isn't sorted by time is scanned once a chunk; one that is, once in all. DuckDB needs about 40 bytes an event
to sort a chunk, or spills it.
"""

NUM_WRITERS = 4
"""A small day's file is done when the disk has confirmed it: several days wait together."""

NUM_AHEAD = 4
"""Batches that are read, and folded, before the next stage takes them."""

NUM_UNKNOWN_SHOWN = 20


def aggregate(
    events: str | Path,
    schema: Schema | str | Path,
    out: str | Path,
    *,
    drop_duplicates: bool = False,
    memory_limit: str | None = None,
    threads: int | None = None,
) -> Summary:
    """Turn an event log into minute tokens, one Parquet file a local day.

    The same rows give the same bytes, whatever their order, files and format, the number of threads, and the time
    zone of the machine. A folder that has minutes of the same schema is added to: each day that the new events
    touch is replaced whole, the other days stay, and `_summary.json` tells of the last run.

    Args:
        events: Parquet or CSV; a file, a glob, a folder, or a Hive-partitioned folder.
        schema: a schema or its file.
        out: the folder to write.
        drop_duplicates: True counts rows that are equal in all columns of the schema once.
        memory_limit: of DuckDB, such as "4GB"; more is spilled to TMPDIR.
        threads: of DuckDB.

    Raises:
        InputError: the events can't be read or none is usable, the schema has a fault, or `out` holds minutes of
            another schema.
    """
    return aggregate_days(
        events,
        schema if isinstance(schema, Schema) else read_schema(schema),
        Path(out),
        drop_duplicates=drop_duplicates,
        memory_limit=memory_limit,
        threads=threads,
    )


def aggregate_days(
    events: str | Path,
    schema: Schema,
    folder: Path,
    *,
    files: Sequence[Path] | None = None,
    days: Collection[date] | None = None,
    run: str | None = None,
    drop_duplicates: bool = False,
    memory_limit: str | None = None,
    threads: int | None = None,
) -> Summary:
    """`aggregate`, of some days of some files alone.

    Args:
        events: the log.
        schema: its schema.
        folder: the folder to write.
        files: those of its files that have events of the days; all by default.
        days: of other days nothing is written; all by default.
        run: what aggregates, in words, see `artefacts.writing`; by default each log is a run of its own.
        drop_duplicates: see `aggregate`.
        memory_limit: see `aggregate`.
        threads: see `aggregate`.
    """
    with connect(memory_limit, threads) as connection:
        source = open_events(connection, events, files)
        clean = clean_events(connection, source, schema, drop_duplicates=drop_duplicates)
        existing = _existing_days(folder, schema, clean.entity_type)
        with readable(source.description):
            survey = survey_events(connection, source, clean, schema).only(days)
            try:
                _remove_failed(folder)
                older = _num_events(connection, folder, existing & survey.days)
                log = definition_hash([survey.first_day, survey.events_of_day, drop_duplicates])
                with writing(folder, run or f"the aggregation of {source.description} (log {log[:8]})"):
                    _write_definition(folder, schema, clean.entity_type)
                    written = _write_minutes(connection, clean, schema, survey, folder)
                    rows_of_day = written.rows_of_day
                    replaced = Replaced(
                        num_days=len(existing & rows_of_day.keys()),
                        num_events_before=sum(older.get(day, 0) for day in rows_of_day),
                        num_events_now=sum(_num_events(connection, folder, existing & rows_of_day.keys()).values()),
                        num_days_left=len(existing - rows_of_day.keys()),
                    )
                    summary = _summarize(connection, source, clean, schema, survey, folder, written, replaced)
                    write_json(folder / SUMMARY_FILE, summary.as_json())
            except OSError as error:
                raise InputError(f"can't write to {folder}: {error.strerror or error}") from error
    return summary


def _existing_days(folder: Path, schema: Schema, entity_type: str) -> frozenset[date]:
    """The days that are there; refuses to mix minutes of two definitions in one folder."""
    if not (folder / DEFINITION_FILE).exists():
        if folder.exists() and not folder.is_dir():
            raise InputError(f"can't write minutes to {folder}: it is a file; give a folder")
        if folder.exists() and any(_is_foreign(entry) for entry in folder.iterdir()):
            raise InputError(f"{folder} has files that aren't minutes (no {DEFINITION_FILE}); give a new folder")
        return frozenset()
    table = read_definition(folder)
    if not table.days:
        return frozenset()
    if table.hash != schema.hash:
        raise InputError(
            f"{folder} has minutes of schema {table.hash}, but the schema given is {schema.hash}: give another folder, "
            "or remove this one first"
        )
    if table.entity_type != entity_type:
        raise InputError(
            f"{folder} has entities of type {table.entity_type}, the new events of type {entity_type}: set entity_type "
            "in [columns] of the schema"
        )
    return frozenset(table.days)


def _remove_failed(folder: Path) -> None:
    """A run that failed before its first day leaves no minutes, so another schema may take its place."""
    if not (folder / DEFINITION_FILE).exists() or not read_definition(folder).days:
        (folder / DEFINITION_FILE).unlink(missing_ok=True)
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)


def _is_foreign(entry: Path) -> bool:
    return not entry.name.startswith(".") and entry.name != UNFINISHED_FILE


def _write_definition(folder: Path, schema: Schema, entity_type: str) -> None:
    definition = {
        "kind": KIND,
        "format": FORMAT,
        "schema": schema.definition(),
        "entity_type": entity_type,
        "hash": schema.hash,
    }
    if not (folder / DEFINITION_FILE).exists():
        write_json(folder / DEFINITION_FILE, definition)


@dataclass
class _Written:
    """What became of the usable events.

    Attributes:
        rows_of_day: minutes of each day.
        num_kept: usable events.
        num_unknown: those whose behavior the schema doesn't list.
    """

    rows_of_day: dict[date, int] = field(default_factory=dict)
    num_kept: int = 0
    num_unknown: int = 0


def _write_minutes(
    connection: duckdb.DuckDBPyConnection, clean: CleanEvents, schema: Schema, survey: Survey, folder: Path
) -> _Written:
    """Write all days. What is read, folded and written at a time is a few batches of events."""
    written = _Written()
    events = read_once(connection, clean) if clean.is_scanned_whole and survey.num_rows > EVENTS_PER_CHUNK else clean
    layout = Layout.of(schema, number_values(connection, events, schema))
    with (
        progress("Aggregating minutes", sum(bool(count) for count in survey.events_of_day)) as advance,
        ahead(_read_batches(connection, events, layout, schema, survey), NUM_AHEAD) as batches,
        ahead(_fold_batches(batches, layout, schema, written), NUM_AHEAD) as minutes,
        ThreadPoolExecutor(NUM_WRITERS) as writers,
    ):
        try:
            files = (write_day(folder, day, map(itemgetter(1), rows)) for day, rows in groupby(minutes, itemgetter(0)))
            for file in in_order(writers, NUM_WRITERS, DayFile.finish, files):
                written.rows_of_day[file.day] = file.num_rows
                advance(1, file.day.isoformat())
        except BaseException:
            connection.interrupt()  # or the end would wait for a sort that nobody needs
            raise
    return written


@dataclass(frozen=True)
class _Batch:
    """Sorted events, all events of a minute among them.

    Attributes:
        days: the local days of the chunk that it is from.
        first_minute: the UTC epoch minute at which the first of them begins.
        events: see `read_sorted_events`.
    """

    days: list[date]
    first_minute: int
    events: pa.RecordBatch


def _read_batches(
    connection: duckdb.DuckDBPyConnection,
    events: CleanEvents | StagedEvents,
    layout: Layout,
    schema: Schema,
    survey: Survey,
) -> Iterator[_Batch]:
    for numbers in chunks(survey, EVENTS_PER_CHUNK):
        days = [day_of_number(number) for number in numbers]
        starts = [day_bounds(day, schema.time.time_zone)[0] for day in [*days, day_of_number(numbers.stop)]]
        for batch in whole_minutes(read_sorted_events(connection, events, layout, starts), layout):
            yield _Batch(days, starts[0], batch)


def _fold_batches(
    batches: Iterable[_Batch], layout: Layout, schema: Schema, written: _Written
) -> Iterator[tuple[date, pa.Table]]:
    """The minutes of a day at a time, or some of them, by day, entity and minute; counts what they are made of."""
    for batch in batches:
        minutes = fold_events(batch.events, batch.first_minute, layout, schema)
        written.num_kept += batch.events.num_rows
        written.num_unknown += minutes.num_unknown
        for start, end in pairwise([*run_starts(minutes.day).tolist(), len(minutes.day)]):
            yield batch.days[minutes.day[start]], minutes.rows.slice(start, end - start)


def _summarize(
    connection: duckdb.DuckDBPyConnection,
    source: EventSource,
    clean: CleanEvents,
    schema: Schema,
    survey: Survey,
    folder: Path,
    written: _Written,
    replaced: Replaced,
) -> Summary:
    some_are_set_aside = source.num_malformed or written.num_kept < survey.num_rows
    quarantined = count_quarantined(connection, source, clean) if some_are_set_aside else {}
    return Summary(
        path=folder,
        num_read=source.num_rows + source.num_malformed,
        num_kept=written.num_kept,
        num_duplicates=source.num_rows - survey.num_rows,
        quarantined=quarantined,
        num_unknown=written.num_unknown,
        unknown_behaviors=_unknown_behaviors(connection, clean, schema) if written.num_unknown else {},
        num_minutes=sum(written.rows_of_day.values()),
        days=tuple(sorted(written.rows_of_day)),
        replaced=replaced,
        examples=quarantine_examples(connection, source, clean) if quarantined else {},
    )


def _num_events(connection: duckdb.DuckDBPyConnection, folder: Path, days: Set[date]) -> dict[date, int]:
    """Events of days that are there."""
    if not days:
        return {}
    day_of = {str(partition_file(folder, day)): day for day in days}
    rows = connection.execute(
        "SELECT filename, sum(num_events)::BIGINT FROM read_parquet(?, filename = true, hive_partitioning = false) "
        "GROUP BY filename",
        [sorted(day_of)],
    ).fetchall()
    return {day_of[file]: count for file, count in rows}


def _unknown_behaviors(connection: duckdb.DuckDBPyConnection, clean: CleanEvents, schema: Schema) -> dict[str, int]:
    known = ", ".join(quoted_text(name) for name in schema.behavior_names)
    return dict(
        connection.execute(
            f"SELECT behavior, count(*) AS n FROM ({clean.sql}) WHERE usable AND behavior NOT IN ({known}) "
            f"GROUP BY behavior ORDER BY n DESC, behavior LIMIT {NUM_UNKNOWN_SHOWN}"
        ).fetchall()
    )
