"""Minute-level aggregation (section 3.1.1): all that an entity does in a minute becomes one token.

The SQL below is the definition. It knows UTC epoch minutes only; local days come from `zoneinfo` as numbers.
"""

from collections import deque
from collections.abc import Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

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
from infobehavior.data.cleaning import (
    CleanEvents,
    clean_events,
    floor_divided,
    quarantine_counts,
    quarantine_examples,
    stepwise,
)
from infobehavior.data.clock import (
    MINUTES_PER_DAY,
    SECONDS_PER_MINUTE,
    day_bounds,
    day_of_number,
    day_offsets,
    local_minutes,
)
from infobehavior.data.events import (
    EventSource,
    connect,
    open_events,
    quoted,
    quoted_text,
    readable,
)
from infobehavior.data.minutes import (
    FORMAT,
    KIND,
    SUMMARY_FILE,
    partition_file,
    read_definition,
)
from infobehavior.data.schema import BEHAVIORS_PER_WORD, BITS_PER_BEHAVIOR, SET_SEPARATOR, Schema, read_schema
from infobehavior.data.summary import Replaced, Summary
from infobehavior.errors import InputError
from infobehavior.progress import progress

MIN_EVENTS_PER_CHUNK = 2_500_000
MAX_EVENTS_PER_CHUNK = 20_000_000
CHUNKS = 8
"""Consecutive days are aggregated together: in so many chunks, but in chunks neither tiny nor larger than memory.

A log that isn't sorted by time is scanned once a chunk; one that is, once in all.
"""

NUM_WRITERS = 4
"""A small day's file is done when the disk has confirmed it: several days wait together."""

ROW_GROUP_ROWS = 131_072
NUM_UNKNOWN_SHOWN = 20

_SURVEY_MINUTES = 15
_BATCH_ROWS = 131_072


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
            survey = _survey(connection, source, clean, schema)
            try:
                _remove_failed(folder)
                older = _num_events(connection, folder, existing & survey.days)
                log = definition_hash([survey.first_day, survey.events_of_day, drop_duplicates])
                with writing(folder, f"the aggregation of {source.description} (log {log[:8]})"):
                    _write_definition(folder, schema, clean.entity_type)
                    rows_of_day = _write_minutes(connection, clean, schema, survey, folder)
                    replaced = Replaced(
                        num_days=len(existing & rows_of_day.keys()),
                        num_events_before=sum(older.get(day, 0) for day in rows_of_day),
                        num_events_now=sum(_num_events(connection, folder, existing & rows_of_day.keys()).values()),
                        num_days_left=len(existing - rows_of_day.keys()),
                    )
                    summary = _summarize(connection, source, clean, schema, survey, folder, rows_of_day, replaced)
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


@dataclass(frozen=True)
class _Survey:
    """What one pass over the log tells: how much is usable, and when it happened."""

    quarantined: dict[str, int]
    num_kept: int
    num_unknown: int
    num_duplicates: int
    first_day: int
    events_of_day: list[int]

    @property
    def days(self) -> frozenset[date]:
        """The local days that may have events."""
        return frozenset(
            day_of_number(self.first_day + i) for i, num_events in enumerate(self.events_of_day) if num_events
        )


def _survey(connection: duckdb.DuckDBPyConnection, source: EventSource, clean: CleanEvents, schema: Schema) -> _Survey:
    known = ", ".join(quoted_text(name) for name in schema.behavior_names)
    slot = floor_divided("epoch", _SURVEY_MINUTES * SECONDS_PER_MINUTE)
    rows = connection.execute(
        f"SELECT reason, count(*), CASE WHEN reason IS NULL THEN {slot} END AS slot, "
        f"count(*) FILTER (behavior NOT IN ({known})) FROM ({clean.sql}) GROUP BY ALL"
    ).fetchall()
    quarantined = quarantine_counts(rows, source.num_malformed)
    kept = [row for row in rows if row[0] is None]
    if not kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
        raise InputError(f"{source.description} has no usable event: {reasons}")
    counts = np.array([row[1] for row in kept], dtype=np.int64)
    slots = np.array([row[2] for row in kept], dtype=np.int64)
    days = local_minutes(slots * _SURVEY_MINUTES, schema.time.time_zone) // MINUTES_PER_DAY
    # A day of margin: a slot may lie across a midnight.
    first_day = int(days.min()) - 1
    per_day = np.zeros(int(days.max()) - first_day + 2, dtype=np.int64)
    np.add.at(per_day, days - first_day, counts)
    return _Survey(
        quarantined=quarantined,
        num_kept=int(counts.sum()),
        num_unknown=sum(row[3] for row in kept),
        num_duplicates=source.num_rows - sum(row[1] for row in rows),
        first_day=first_day,
        events_of_day=per_day.tolist(),
    )


def _chunks(survey: _Survey) -> Iterator[tuple[int, int]]:
    """Consecutive days [first, end), as days since 1970, of a bounded number of events (or one day)."""
    limit = min(max(survey.num_kept // CHUNKS, MIN_EVENTS_PER_CHUNK), MAX_EVENTS_PER_CHUNK)
    first, num_events = survey.first_day, 0
    for day, num_events_of_day in enumerate(survey.events_of_day, start=survey.first_day):
        if num_events and num_events + num_events_of_day > limit:
            yield first, day
            first, num_events = day, 0
        num_events += num_events_of_day
    if num_events:
        yield first, survey.first_day + len(survey.events_of_day)


def _write_minutes(
    connection: duckdb.DuckDBPyConnection, clean: CleanEvents, schema: Schema, survey: _Survey, folder: Path
) -> dict[date, int]:
    """Write all days; returns the rows of each."""
    rows_of_day: dict[date, int] = {}
    _make_behaviors_table(connection, schema)
    with (
        progress("Aggregating minutes", sum(count > 0 for count in survey.events_of_day)) as advance,
        ThreadPoolExecutor(NUM_WRITERS) as pool,
    ):
        for first_day, end_day in _chunks(survey):
            days = day_of_number(first_day), day_of_number(end_day)
            first, end = (day_bounds(day, schema.time.time_zone)[0] for day in days)
            _make_minutes_table(connection, clean, schema, first, end)
            pending: deque[Future[None]] = deque()
            for day, table in _days(connection, schema, first, end):
                write = partial(_write_parquet, table)
                pending.append(pool.submit(write_atomically, partition_file(folder, day), write))
                rows_of_day[day] = table.num_rows
                while len(pending) > NUM_WRITERS:
                    pending.popleft().result()
                advance(1, day.isoformat())
            for written in pending:
                written.result()
    return rows_of_day


def _make_behaviors_table(connection: duckdb.DuckDBPyConnection, schema: Schema) -> None:
    """One row a behavior: its code and where M and H begin; the behaviors outside the schema share code 0."""
    rows: list[tuple[str | None, int, int | None, int | None]] = [(None, 0, None, None)]
    for name in schema.behavior_names:
        behavior = schema.behaviors[name]
        rows.append((name, schema.behavior_code(name), behavior.medium, behavior.high))
    connection.execute("CREATE TEMP TABLE behaviors (name VARCHAR, code INTEGER, medium INTEGER, high INTEGER)")
    connection.executemany("INSERT INTO behaviors VALUES (?, ?, ?, ?)", rows)


def _set_columns(schema: Schema) -> dict[str, str]:
    """The columns that are kept as sets: our name for each in the cleaned events, and the one in the minutes."""
    names = {"location": "location"} if schema.columns.location else {}
    return names | {f"extra_{i}": name for i, name in enumerate(schema.columns.extra)}


def _make_minutes_table(
    connection: duckdb.DuckDBPyConnection, clean: CleanEvents, schema: Schema, first: int, end: int
) -> None:
    """The tokens of the UTC epoch minutes [first, end), and the sets with more than one member."""
    events = clean.between(first * SECONDS_PER_MINUTE, end * SECONDS_PER_MINUTE)
    minute = f"{floor_divided('epoch', SECONDS_PER_MINUTE)}::INTEGER"
    sets = _set_columns(schema)
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE minutes AS
        WITH repeats AS (
            SELECT entity_id, {minute} AS minute, coalesce(code, 0) AS code, count(*) AS n,
                count(*) FILTER (failed) AS failures
                {_each(sets, ", min({0}) AS {0}_low, max({0}) AS {0}_high")}
            FROM ({events}) LEFT JOIN behaviors ON behavior = name
            GROUP BY ALL
        ), levels AS (
            SELECT repeats.*, CASE WHEN medium IS NULL OR n < medium THEN 1 WHEN n < high THEN 2 ELSE 3 END AS level
            FROM repeats JOIN behaviors USING (code)
        )
        SELECT entity_id, minute, sum(n)::INTEGER AS num_events, sum(failures)::INTEGER AS num_failures
            {"".join(f", {_word_sql(word)}" for word in range(schema.num_words))},
            list_transform(list_sort(list(code::BIGINT << 32 | n)), lambda x: (x & {2**32 - 1})::INTEGER) AS counts
            {_each(sets, ", min({0}_low) AS {0}_low, max({0}_high) AS {0}_high")}
        FROM levels GROUP BY entity_id, minute
        """
    )
    for name in sets:
        _make_sets_table(connection, name, f"SELECT entity_id, {minute} AS minute, {name} AS member FROM ({events})")


def _make_sets_table(connection: duckdb.DuckDBPyConnection, name: str, members: str) -> None:
    """The exact sets, only of the minutes that hold more than one value: the log is read again just for these."""
    several = f"SELECT entity_id, minute FROM minutes WHERE {name}_low <> {name}_high"
    if not connection.execute(f"{several} LIMIT 1").fetchall():
        members = "SELECT entity_id, minute, '' AS member FROM minutes WHERE false"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE several_{name} AS
        SELECT entity_id, minute, string_agg(DISTINCT member, {quoted_text(SET_SEPARATOR)} ORDER BY member) AS members
        FROM ({members}) SEMI JOIN ({several}) USING (entity_id, minute)
        WHERE member IS NOT NULL GROUP BY entity_id, minute
        """
    )


def _each(names: dict[str, str], sql: str) -> str:
    return "".join(sql.format(name) for name in names)


def _word_sql(word: int) -> str:
    first = word * BEHAVIORS_PER_WORD
    bits = f"level::BIGINT << ({BITS_PER_BEHAVIOR} * (code - {first}))"
    inside = f"code BETWEEN {first} AND {first + BEHAVIORS_PER_WORD - 1}"
    return f"bit_or(CASE WHEN {inside} THEN {bits} ELSE 0 END)::BIGINT AS levels_{word}"


def _days(
    connection: duckdb.DuckDBPyConnection, schema: Schema, first: int, end: int
) -> Iterator[tuple[date, pa.Table]]:
    """The rows of each day with events in [first, end), ascending; streamed, one day in memory."""
    starts, offsets = day_offsets(schema.time.time_zone, first, end)
    shifted = f"minute + {stepwise('minute', list(zip(starts.tolist(), offsets.tolist(), strict=True)))}"
    sets = _set_columns(schema)
    words = "".join(f", levels_{word}" for word in range(schema.num_words))
    members = "".join(
        f", coalesce(several_{ours}.members, {ours}_low) AS {quoted(name)}" for ours, name in sets.items()
    )
    location = "" if "location" in sets else ", CAST(NULL AS VARCHAR) AS location"
    joins = _each(sets, " LEFT JOIN several_{0} USING (entity_id, minute)")
    reader = connection.sql(
        f"SELECT {floor_divided(shifted, MINUTES_PER_DAY)} AS day, entity_id, minute, num_events, num_failures{words}, "
        f"counts{location}{members} FROM minutes{joins} ORDER BY day, entity_id, minute"
    ).to_arrow_reader(_BATCH_ROWS)
    for day, parts in groupby(_cut_at_days(reader), key=itemgetter(0)):
        table = pa.Table.from_batches([part for _, part in parts]).drop_columns("day").combine_chunks()
        yield day_of_number(day), table.replace_schema_metadata(None)


def _cut_at_days(batches: pa.RecordBatchReader) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in batches:
        days = batch.column("day").to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), batch.num_rows]
        for start, end in pairwise(cuts):
            if end > start:
                yield int(days[start]), batch.slice(start, end - start)


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Compact, and the same bytes for the same rows."""
    is_text = {name: pa.types.is_string(table.schema.field(name).type) for name in table.column_names}
    texts = [name for name, text in is_text.items() if text]
    integers = ["counts.list.element" if name == "counts" else name for name, text in is_text.items() if not text]
    pq.write_table(
        table,
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=texts,
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        store_schema=False,
    )


def _summarize(
    connection: duckdb.DuckDBPyConnection,
    source: EventSource,
    clean: CleanEvents,
    schema: Schema,
    survey: _Survey,
    folder: Path,
    rows_of_day: dict[date, int],
    replaced: Replaced,
) -> Summary:
    days = tuple(sorted(rows_of_day))
    return Summary(
        path=folder,
        num_read=source.num_rows + source.num_malformed,
        num_kept=survey.num_kept,
        num_duplicates=survey.num_duplicates,
        quarantined=survey.quarantined,
        num_unknown=survey.num_unknown,
        unknown_behaviors=_unknown_behaviors(connection, clean, schema) if survey.num_unknown else {},
        num_minutes=sum(rows_of_day.values()),
        days=days,
        replaced=replaced,
        examples=quarantine_examples(connection, source, clean) if survey.quarantined else {},
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
            f"SELECT behavior, count(*) AS n FROM ({clean.sql}) WHERE reason IS NULL AND behavior NOT IN ({known}) "
            f"GROUP BY behavior ORDER BY n DESC, behavior LIMIT {NUM_UNKNOWN_SHOWN}"
        ).fetchall()
    )
