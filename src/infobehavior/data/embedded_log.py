"""A log that DuckDB reads in this process: a few days at a time, as three stages of work that run at the same time."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import duckdb
import pyarrow as pa

from infobehavior.data.cleaning import CleanEvents, StagedEvents, clean_events, find_examples, read_once
from infobehavior.data.clock import day_bounds, day_of_number
from infobehavior.data.coded_events import number_values, read_sorted_events
from infobehavior.data.day_files import Accept, DayFile, write_day
from infobehavior.data.event_log import EVENTS_PER_CHUNK, NUM_UNKNOWN_SHOWN, Written
from infobehavior.data.events import EventSource, connect, open_events, quoted_text
from infobehavior.data.schema import Schema
from infobehavior.data.stages import ahead, in_order
from infobehavior.data.survey import Survey, chunks, count_reasons, survey_events
from infobehavior.data.tokens import Layout, fold_events, run_starts, whole_minutes
from infobehavior.progress import progress

NUM_WRITERS = 4
"""A small day's file is done when the disk has confirmed it: several days wait together."""

NUM_AHEAD = 4
"""Batches that are read, and folded, before the next stage takes them."""


@contextmanager
def open_embedded_log(
    events: str | Path,
    schema: Schema,
    *,
    files: Sequence[Path] | None,
    drop_duplicates: bool,
    memory_limit: str | None,
    threads: int | None,
) -> Iterator["EmbeddedLog"]:
    """Open a log with a DuckDB of its own; see `aggregate_days`."""
    with connect(memory_limit, threads) as connection:
        source = open_events(connection, events, files)
        clean = clean_events(connection, source, schema, drop_duplicates=drop_duplicates)
        yield EmbeddedLog(connection, source, clean, schema)


@dataclass(frozen=True)
class EmbeddedLog:
    """See `EventLog`."""

    connection: duckdb.DuckDBPyConnection
    source: EventSource
    clean: CleanEvents
    schema: Schema

    def survey(self) -> Survey:
        """When its events happened."""
        return survey_events(self.connection, self.source, self.clean, self.schema)

    def write_minutes(self, survey: Survey, folder: Path, accept: Accept) -> Written:
        """Write all days. What is read, folded and written at a time is a few batches of events."""
        connection, written = self.connection, Written()
        is_read_once = self.clean.is_scanned_whole and survey.num_rows > EVENTS_PER_CHUNK
        events = read_once(connection, self.clean) if is_read_once else self.clean
        layout = Layout.of(self.schema, number_values(connection, events, self.schema))
        with (
            progress("Aggregating minutes", sum(bool(count) for count in survey.events_of_day)) as advance,
            ahead(_read_batches(connection, events, layout, self.schema, survey), NUM_AHEAD) as batches,
            ahead(_fold_batches(batches, layout, self.schema, written), NUM_AHEAD) as minutes,
            ThreadPoolExecutor(NUM_WRITERS) as writers,
        ):
            try:
                files = (
                    write_day(folder, day, map(itemgetter(1), rows), accept)
                    for day, rows in groupby(minutes, itemgetter(0))
                )
                for file in in_order(writers, NUM_WRITERS, DayFile.finish, files):
                    written.rows_of_day[file.day] = file.num_rows
                    advance(1, file.day.isoformat())
            except BaseException:
                connection.interrupt()  # or the end would wait for a sort that nobody needs
                raise
        return written

    def reasons(self) -> dict[str, int]:
        """Rows set aside, by reason, without malformed ones."""
        return count_reasons(self.connection, self.clean)

    def examples(self) -> dict[str, tuple[str, ...]]:
        """A few rows of each of these reasons."""
        return find_examples(self.connection, self.clean)

    def unknown_behaviors(self) -> dict[str, int]:
        """The behaviors that the schema doesn't list, the most frequent first, and not too many."""
        counted = unknown_behaviors_sql(self.clean, self.schema)
        return dict(
            self.connection.execute(f"{counted} ORDER BY n DESC, behavior LIMIT {NUM_UNKNOWN_SHOWN}").fetchall()
        )


def unknown_behaviors_sql(clean: CleanEvents, schema: Schema) -> str:
    """SQL of the events of each behavior that a schema doesn't list."""
    known = ", ".join(quoted_text(name) for name in schema.behavior_names)
    return (
        f"SELECT behavior, count(*) AS n FROM ({clean.sql}) WHERE usable AND behavior NOT IN ({known}) "
        "GROUP BY behavior"
    )


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
    batches: Iterable[_Batch], layout: Layout, schema: Schema, written: Written
) -> Iterator[tuple[date, pa.Table]]:
    """The minutes of a day at a time, or some of them, by day, entity and minute; counts what they are made of."""
    for batch in batches:
        minutes = fold_events(batch.events, batch.first_minute, layout, schema)
        written.num_kept += batch.events.num_rows
        written.num_unknown += minutes.num_unknown
        for start, end in pairwise([*run_starts(minutes.day).tolist(), len(minutes.day)]):
            yield batch.days[minutes.day[start]], minutes.rows.slice(start, end - start)
