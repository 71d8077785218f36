"""Minute-level aggregation (section 3.1.1): all that an entity does in a minute becomes one token.

A few days at a time: `coded_events` reads their events as numbers, `tokens` folds these into minutes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior.artefacts import (
    DEFINITION_FILE,
    UNFINISHED_FILE,
    definition_hash,
    write_atomically,
    write_json,
    writing,
)
from infobehavior.data.cleaning import CleanEvents, StagedEvents, clean_events, quarantine_examples, read_once
from infobehavior.data.clock import day_bounds, day_of_number
from infobehavior.data.coded_events import SetColumn, number_values, read_coded_events
from infobehavior.data.events import EventSource, connect, open_events, quoted_text, readable
from infobehavior.data.minutes import (
    FORMAT,
    KIND,
    SUMMARY_FILE,
    partition_file,
    read_definition,
)
from infobehavior.data.schema import Schema, read_schema
from infobehavior.data.summary import Replaced, Summary
from infobehavior.data.survey import Chunk, Survey, chunks, count_quarantined, survey_events
from infobehavior.data.tokens import CodedEvents, fold_events
from infobehavior.errors import InputError
from infobehavior.progress import progress

EVENTS_PER_CHUNK = 2_000_000
"""Consecutive days are read together, up to so many events, and at least one day.

A log that isn't sorted by time is scanned once a chunk; one that is, once in all.
"""

EVENTS_PER_SHARE = 4_000_000
"""A day of more events is read in shares by entity. A share takes about 100 bytes an event while it is folded; three
are in memory at once, one read, one folded and one written, and so are all minutes of the day."""

NUM_WRITERS = 4
"""A small day's file is done when the disk has confirmed it: several days wait together."""

ROW_GROUP_ROWS = 131_072
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
    schema = schema if isinstance(schema, Schema) else read_schema(schema)
    folder = Path(out)
    with connect(memory_limit, threads) as connection:
        source = open_events(connection, events)
        clean = clean_events(connection, source, schema, drop_duplicates=drop_duplicates)
        existing = _existing_days(folder, schema, clean.entity_type)
        with readable(source.description):
            survey = survey_events(connection, source, clean, schema)
            try:
                _remove_failed(folder)
                older = _num_events(connection, folder, existing & survey.days)
                log = definition_hash([survey.first_day, survey.events_of_day, drop_duplicates])
                with writing(folder, f"the aggregation of {source.description} (log {log[:8]})"):
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
    """Write all days. While a chunk is folded, the next one is read."""
    written = _Written()
    events = read_once(connection, clean) if clean.is_scanned_whole and survey.num_rows > EVENTS_PER_CHUNK else clean
    sets = number_values(connection, events, schema)
    with (
        progress("Aggregating minutes", sum(count > 0 for count in survey.events_of_day)) as advance,
        ThreadPoolExecutor(1) as folders,
        ThreadPoolExecutor(NUM_WRITERS) as writers,
    ):
        read = partial(_read_chunk, connection, events, sets, schema.time.time_zone)
        parts = map(read, chunks(survey, EVENTS_PER_CHUNK, EVENTS_PER_SHARE))
        folded = _in_order(folders, 2, partial(_fold_part, schema), parts)
        for _, shares in groupby(folded, key=attrgetter("first_day")):
            minutes = _joined(list(shares))
            written.num_kept += minutes.num_events
            written.num_unknown += minutes.num_unknown
            for day, num_rows in _in_order(writers, NUM_WRITERS, partial(_write_day, folder), minutes.tables.items()):
                written.rows_of_day[day] = num_rows
                advance(1, day.isoformat())
    return written


Item = TypeVar("Item")
Result = TypeVar("Result")


def _in_order(
    pool: Executor, num_pending: int, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Like `map`, a few items at a time, and none of them long before its result is taken."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) == num_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@dataclass(frozen=True)
class _Part:
    """The events of a chunk.

    Attributes:
        days: local days, ascending.
        starts: the UTC epoch minute at which each begins.
        events: their events, or a share of them.
    """

    days: list[date]
    starts: list[int]
    events: CodedEvents


def _read_chunk(
    connection: duckdb.DuckDBPyConnection,
    events: CleanEvents | StagedEvents,
    sets: Sequence[SetColumn],
    time_zone: str,
    chunk: Chunk,
) -> _Part:
    days = [day_of_number(number) for number in range(chunk.first_day, chunk.end_day + 1)]
    *starts, end = (day_bounds(day, time_zone)[0] for day in days)
    return _Part(days[:-1], starts, read_coded_events(connection, events, sets, starts[0], end, chunk.share_sql))


@dataclass(frozen=True)
class _Minutes:
    """The minutes of a chunk.

    Attributes:
        first_day: of the chunk, with or without rows.
        tables: the rows of each day that has some, ascending.
        num_events: how many events they have.
        num_unknown: how many of them are of a behavior outside the schema.
    """

    first_day: date
    tables: dict[date, pa.Table]
    num_events: int
    num_unknown: int


def _fold_part(schema: Schema, part: _Part) -> _Minutes:
    code = part.events.code
    tables = {part.days[i]: table for i, table in fold_events(part.events, np.array(part.starts), schema)}
    return _Minutes(part.days[0], tables, len(code), int(np.count_nonzero(code == 0)))


def _joined(shares: list[_Minutes]) -> _Minutes:
    """Put the shares of a chunk together."""
    if len(shares) == 1:
        return shares[0]
    days = sorted(set().union(*(share.tables for share in shares)))
    tables = {
        day: pa.concat_tables([share.tables[day] for share in shares if day in share.tables]).sort_by(
            [("entity_id", "ascending"), ("minute", "ascending")]
        )
        for day in days
    }
    num_events, num_unknown = (sum(map(attrgetter(name), shares)) for name in ("num_events", "num_unknown"))
    return _Minutes(shares[0].first_day, tables, num_events, num_unknown)


def _write_day(folder: Path, minutes: tuple[date, pa.Table]) -> tuple[date, int]:
    day, table = minutes
    write_atomically(partition_file(folder, day), lambda path: _write_parquet(table, path))
    return day, table.num_rows


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Compact, and the same bytes for the same rows."""
    repetitive = [name for name in table.column_names if _is_repetitive(table.schema.field(name))]
    numbers = ["counts.list.element" if name == "counts" else name for name in table.column_names]
    pq.write_table(
        table,
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=repetitive,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in numbers if name not in repetitive},
        store_schema=False,
    )


def _is_repetitive(column: pa.Field) -> bool:
    """Whether values are written once: texts, and tokens, whose bits have no small differences."""
    return bool(pa.types.is_string(column.type)) or column.name.startswith("levels_")


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
