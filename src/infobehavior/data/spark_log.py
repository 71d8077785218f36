"""A log that Spark reads: this process decides and puts files into their places, the executors do the work."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from infobehavior.artefacts import move_into_place, remove_leftovers
from infobehavior.data import spark_tasks as at
from infobehavior.data.cleaning import CleanEvents, TimeFacts, events_in_sql, quarantine_counts, time_facts_sql
from infobehavior.data.day_files import Accept
from infobehavior.data.event_log import NUM_UNKNOWN_SHOWN, Written
from infobehavior.data.events import (
    NUM_EXAMPLES,
    CsvFormat,
    CsvRows,
    EventSource,
    connect,
    csv_source,
    described,
    find_files,
    hive_option,
    is_parquet,
    open_events,
    readable,
    refuse_empty,
)
from infobehavior.data.minutes import partition_file
from infobehavior.data.schema import Schema
from infobehavior.data.spark_plan import Piece, Plan, runs_of_size
from infobehavior.data.survey import Survey, refuse_unusable, survey_of
from infobehavior.progress import progress
from infobehavior.spark import collected, hidden_folder, shuffled, spark_context, tasks, then

if TYPE_CHECKING:
    from pyspark import RDD

EVENTS_PER_TASK = 2_000_000
"""About how many rows of a log a task reads, and how many events it folds."""

BYTES_PER_TASK = 128 << 20
"""Of CSV files; a larger one is read by one task, since nothing tells where a quoted value ends."""

FILES_PER_TASK = 64
MEMORY_LIMIT = "1GB"
MAX_TASKS_OF_UNKNOWN = 16
"""At most so many add up the behaviors that the schema doesn't list."""


@contextmanager
def open_spark_log(
    events: str | Path,
    schema: Schema,
    *,
    master: str | None,
    files: Sequence[Path] | None,
    drop_duplicates: bool,
    memory_limit: str | None,
    threads: int | None,
) -> Iterator["SparkLog"]:
    """Open a log with Spark; see `aggregate_days`."""
    # Executors work in folders of their own. What folders called key=value mean is told from the paths that are read.
    files = [file.absolute() for file in (find_files(events) if files is None else files)]
    description = str(events)
    limits = (memory_limit or MEMORY_LIMIT, threads or 1)
    with connect(*limits), spark_context(master) as context:  # what is wrong with the limits is said first
        reader, source = _reader_of(files, description, schema, limits)
        pieces = tasks(context, _pieces(files, source, reader))
        with progress("looking through the log", pieces.getNumPartitions()) as advance:
            source, facts = _look_into(pieces, source, reader)
            advance(pieces.getNumPartitions())
        refuse_empty(source)
        clean = events_in_sql(source, facts, schema, drop_duplicates=drop_duplicates)
        if drop_duplicates:
            num_partitions = -(-source.num_rows // EVENTS_PER_TASK)
            pieces = shuffled(pieces, partial(at.send_rows, reader, num_partitions), num_partitions)
        yield SparkLog(pieces, source, clean, reader)


def _reader_of(
    files: Sequence[Path], description: str, schema: Schema, limits: tuple[str, int]
) -> tuple[at.Reader, EventSource]:
    """How the log is read; and what the files say of themselves, whose rows nobody has read."""
    if is_parquet(files[0]):
        with connect() as connection:
            source = open_events(connection, description, files, may_be_empty=True)
        names = pq.read_schema(files[0]).names
        form, hive = None, hive_option(files, names)
    else:
        form = CsvFormat.of(files)
        hive = form.hive
        with connect() as connection, readable(description):
            source = csv_source(described(connection, form.scan(files)), "", CsvRows(), description)
    source.require(schema.columns)
    return at.Reader(description, schema, source.columns, form, hive, *limits), source


def _pieces(files: Sequence[Path], source: EventSource, reader: at.Reader) -> Iterator[Piece]:
    """A log in parts of about the same size."""
    if reader.form:
        sizes = [file.stat().st_size for file in files]
        for run in runs_of_size(sizes, BYTES_PER_TASK, FILES_PER_TASK):
            yield Piece(tuple(files[run]))
        return
    counts = [pq.read_metadata(file).num_rows for file in files]
    can_part = "file_row_number" not in source.columns
    for run in runs_of_size(counts, EVENTS_PER_TASK, FILES_PER_TASK):
        if can_part and counts[run.start] > EVENTS_PER_TASK:
            yield from _parts(files[run.start])
        else:
            yield Piece(tuple(files[run]))


def _parts(file: Path) -> Iterator[Piece]:
    """Runs of whole row groups of a Parquet file."""
    metadata = pq.read_metadata(file)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    for run in runs_of_size(sizes, EVENTS_PER_TASK, len(sizes)):
        yield Piece((file,), (sum(sizes[: run.start]), sum(sizes[: run.stop])))


def _look_into(pieces: "RDD[Any]", source: EventSource, reader: at.Reader) -> tuple[EventSource, TimeFacts]:
    """What the log decides by all of its rows; those of Parquet files are read only where they decide anything."""
    if not reader.form and not time_facts_sql(reader.columns[reader.schema.columns.timestamp], reader.schema):
        return source, TimeFacts()
    found = collected(then(pieces, partial(at.look_into, reader)))
    facts = reduce(add, (times for _, times in found))
    if not reader.form:
        return source, facts
    rows = reduce(add, (rows for rows, _ in found))
    rows.refuse_lost()
    return csv_source(source.columns, "", rows, source.description), facts


@dataclass(frozen=True)
class SparkLog:
    """See `EventLog`.

    Attributes:
        parts: of the log, each of which a task reads; where duplicates are dropped, equal rows are in the same one.
        source: what was found in the files.
        clean: the SQL that reads them; each task puts its own source into it.
        reader: of the parts.
    """

    parts: "RDD[Any]"
    source: EventSource
    clean: CleanEvents
    reader: at.Reader

    def survey(self) -> Survey:
        """When its events happened."""
        counts = collected(then(self.parts, partial(at.count_events, self.reader, self.clean)))
        if not any(part.any_usable for part in counts):
            refuse_unusable(
                self.source.description, quarantine_counts(self.reasons().items(), self.source.num_malformed)
            )
        slots = Counter[int | None]()
        for part in counts:
            slots.update(part.slots)
        return survey_of(slots, self.reader.schema)

    def write_minutes(self, survey: Survey, folder: Path, accept: Accept) -> Written:
        """Have the minutes of each day written beside the days, and put them into their places."""
        plan = Plan.of(survey, self.reader.schema.time.time_zone, EVENTS_PER_TASK)
        events = shuffled(self.parts, partial(at.send_events, self.reader, self.clean, plan), plan.num_tasks)
        minutes = shuffled(events, partial(at.send_minutes, self.reader, plan), len(plan.chunks))
        written = Written()
        with (
            hidden_folder(folder) as hidden,
            progress("Aggregating minutes", sum(bool(count) for count in survey.events_of_day)) as advance,
        ):
            for done in collected(then(minutes, partial(at.write_days, self.reader, plan, hidden))):
                if isinstance(done, at.Tally):
                    written.num_kept += done.num_kept
                    written.num_unknown += done.num_unknown
                else:
                    accept(done.day, done.num_events)
                    _put(done, folder)
                    written.rows_of_day[done.day] = done.num_rows
                    advance(1, done.day.isoformat())
        return written

    def reasons(self) -> dict[str, int]:
        """Rows set aside, by reason, without malformed ones."""
        return dict(reduce(add, (Counter(reasons) for reasons, _ in self._unusable), Counter[str]()))

    def examples(self) -> dict[str, tuple[str, ...]]:
        """A few rows of each of these reasons."""
        found: dict[str, list[str]] = {}
        for _, examples in self._unusable:
            for reason, texts in examples.items():
                found.setdefault(reason, []).extend(texts)
        return {reason: tuple(sorted(texts)[:NUM_EXAMPLES]) for reason, texts in found.items()}

    @cached_property
    def _unusable(self) -> list[tuple[dict[str, int], dict[str, tuple[str, ...]]]]:
        return collected(then(self.parts, partial(at.look_at_unusable, self.reader, self.clean)))

    def unknown_behaviors(self) -> dict[str, int]:
        """The behaviors that the schema doesn't list, the most frequent first, and not too many."""
        num_tasks = min(MAX_TASKS_OF_UNKNOWN, self.parts.getNumPartitions())
        count = partial(at.send_unknown_behaviors, self.reader, self.clean, num_tasks)
        added_up = then(shuffled(self.parts, count, num_tasks), partial(at.most_frequent, NUM_UNKNOWN_SHOWN))
        found = collected(added_up)
        return dict(sorted(found, key=lambda item: (-item[1], item[0]))[:NUM_UNKNOWN_SHOWN])


def _put(done: at.DayDone, folder: Path) -> None:
    """Put a day into its place. Executors never do, so one that was given up can't harm a later run."""
    target = partition_file(folder, done.day)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    move_into_place(partition_file(done.folder, done.day), target)
