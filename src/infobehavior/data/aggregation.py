"""Minute-level aggregation (section 3.1.1): all that an entity does in a minute becomes one token.

A few days at a time: `coded_events` has their events sorted, `tokens` folds these into minutes, batch by batch.
"""

from collections.abc import Collection, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TypedDict

import duckdb

from infobehavior.artefacts import (
    DEFINITION_FILE,
    UNFINISHED_FILE,
    definition_hash,
    mark_days,
    unfinished,
    write_json,
    writing,
)
from infobehavior.data.cleaning import quarantine_counts, with_malformed
from infobehavior.data.day_files import Accept, accept_any
from infobehavior.data.embedded_log import open_embedded_log
from infobehavior.data.event_log import EventLog, Written
from infobehavior.data.events import connect, find_files, readable
from infobehavior.data.minutes import FORMAT, KIND, SUMMARY_FILE, num_events_of, partition_file, read_definition
from infobehavior.data.schema import Schema, read_schema
from infobehavior.data.spark_log import open_spark_log
from infobehavior.data.summary import Replaced, Summary
from infobehavior.data.survey import Survey
from infobehavior.data.whole_files import WholeFiles
from infobehavior.errors import InputError
from infobehavior.spark import check_engine


def aggregate(
    events: str | Path,
    schema: Schema | str | Path,
    out: str | Path,
    *,
    drop_duplicates: bool = False,
    memory_limit: str | None = None,
    threads: int | None = None,
    engine: str = "duckdb",
    master: str | None = None,
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
        memory_limit: of DuckDB, such as "4GB"; more is spilled to TMPDIR. With Spark, of each task; 1GB by default.
        threads: of DuckDB. With Spark, of each task; 1 by default.
        engine: "duckdb", in this process, or "spark"; they write the same bytes.
        master: of Spark, see `spark_context`.

    Raises:
        InputError: the events can't be read or none is usable, the schema has a fault, or `out` holds minutes of
            another schema.
    """
    schema = schema if isinstance(schema, Schema) else read_schema(schema)
    files = find_files(events)
    log = WholeFiles.of(files)
    summary = aggregate_days(
        events,
        schema,
        Path(out),
        files=files,
        drop_duplicates=drop_duplicates,
        memory_limit=memory_limit,
        threads=threads,
        engine=engine,
        master=master,
        accept=log.accept,
    )
    log.refuse_shrunk()  # or days of which nothing was left would not be missed
    return summary


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
    engine: str = "duckdb",
    master: str | None = None,
    accept: Accept = accept_any,
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
        engine: see `aggregate`.
        master: see `aggregate`.
        accept: is asked before a day is replaced.
    """
    options = _Options(files=files, drop_duplicates=drop_duplicates, memory_limit=memory_limit, threads=threads)
    with _open_log(events, schema, engine, master, options) as log:
        existing = _existing_days(folder, schema, log.clean.entity_type)
        with readable(log.source.description):
            survey = log.survey().only(days)
            try:
                _remove_failed(folder)
                older = _num_events(folder, existing & survey.days)
                log_hash = definition_hash([survey.first_day, survey.events_of_day, drop_duplicates])
                what = f"the aggregation of {log.source.description} (log {log_hash[:8]})"
                was_unfinished = unfinished(folder) is not None
                with writing(folder, run or what):
                    _write_definition(folder, schema, log.clean.entity_type)
                    written = _write_minutes(log, survey, folder, accept, is_first=not was_unfinished)
                    rows_of_day = written.rows_of_day
                    replaced = Replaced(
                        num_days=len(existing & rows_of_day.keys()),
                        num_events_before=sum(older.get(day, 0) for day in rows_of_day),
                        num_events_now=sum(_num_events(folder, existing & rows_of_day.keys()).values()),
                        num_days_left=len(existing - rows_of_day.keys()),
                    )
                    summary = _summarize(log, survey, folder, written, replaced)
                    write_json(folder / SUMMARY_FILE, summary.as_json())
            except OSError as error:
                raise InputError(f"can't write to {folder}: {error.strerror or error}") from error
    return summary


def _write_minutes(log: EventLog, survey: Survey, folder: Path, accept: Accept, *, is_first: bool) -> Written:
    """Write all days; where one isn't accepted, a folder of which none was replaced is as whole as before.

    Where some were replaced, the mark stays, but any log with events of all these days may end what was begun: the one
    that was refused is another one when it has been mended.

    Args:
        is_first: whether no earlier run was interrupted here.
    """
    accepted: list[date] = []

    def asking(day: date, num_events: int) -> None:
        accept(day, num_events)
        accepted.append(day)

    try:
        return log.write_minutes(survey, folder, asking)
    except InputError:
        if accepted:
            mark_days(folder, survey.days)
        elif is_first:
            (folder / UNFINISHED_FILE).unlink()
        raise


class _Options(TypedDict):
    """How a log is opened, by whichever engine."""

    files: Sequence[Path] | None
    drop_duplicates: bool
    memory_limit: str | None
    threads: int | None


@contextmanager
def _open_log(
    events: str | Path, schema: Schema, engine: str, master: str | None, options: _Options
) -> Iterator[EventLog]:
    if check_engine(engine, master):
        with open_spark_log(events, schema, master=master, **options) as spark_log:
            yield spark_log
    else:
        with open_embedded_log(events, schema, **options) as embedded_log:
            yield embedded_log


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


def _summarize(log: EventLog, survey: Survey, folder: Path, written: Written, replaced: Replaced) -> Summary:
    source = log.source
    some_are_set_aside = source.num_malformed or written.num_kept < survey.num_rows
    quarantined = quarantine_counts(log.reasons().items(), source.num_malformed) if some_are_set_aside else {}
    return Summary(
        path=folder,
        num_read=source.num_rows + source.num_malformed,
        num_kept=written.num_kept,
        num_duplicates=source.num_rows - survey.num_rows,
        quarantined=quarantined,
        num_unknown=written.num_unknown,
        unknown_behaviors=log.unknown_behaviors() if written.num_unknown else {},
        num_minutes=sum(written.rows_of_day.values()),
        days=tuple(sorted(written.rows_of_day)),
        replaced=replaced,
        examples=with_malformed(log.examples(), source) if quarantined else {},
    )


def _num_events(folder: Path, days: Set[date]) -> dict[date, int]:
    """Events of days that are there and not damaged."""
    if not days:
        return {}
    day_of = {str(partition_file(folder, day)): day for day in days}
    try:
        with connect() as connection:
            rows = connection.execute(
                "SELECT filename, sum(num_events)::BIGINT "
                "FROM read_parquet(?, filename = true, hive_partitioning = false) GROUP BY filename",
                [sorted(day_of)],
            ).fetchall()
    except duckdb.Error:  # a file is damaged: it is replaced, and what it held isn't known
        rows = [(file, num_events_of(Path(file))) for file in day_of]
    return {day_of[file]: count for file, count in rows if count is not None}
