"""What a folder of minutes was made of, by file and by day, so that only days whose events have changed are made again.

A file that hasn't changed since it was last looked at isn't read. Of the others each local day is told by what its
events are: a log that was written again with the same events changes nothing, and late events their own days alone.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self

import duckdb
from pydantic import BaseModel, ConfigDict, ValidationError

from infobehavior.artefacts import definition_hash, read_json, write_json
from infobehavior.data.cleaning import CleanEvents, clean_events, floor_divided
from infobehavior.data.clock import MICROSECONDS, SECONDS_PER_MINUTE, day_bounds, local_date
from infobehavior.data.coded_events import day_sql
from infobehavior.data.events import connect, find_files, only_row, open_events, readable
from infobehavior.data.minutes import days_of, num_events_of, partition_file
from infobehavior.data.schema import Schema
from infobehavior.data.survey import count_quarantined, refuse_unbelieved
from infobehavior.data.whole_files import stat_of_listed
from infobehavior.errors import InputError
from infobehavior.progress import progress

LEDGER_FILE = "_events.json"
FORMAT = 1
HASHES = 1 << 64

_MICROSECONDS_PER_MINUTE = SECONDS_PER_MINUTE * MICROSECONDS


class Stamp(BaseModel):
    """What tells without reading a file that it hasn't changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        """The stamp of a file."""
        return cls.of_stat(file.stat())

    @classmethod
    def of_stat(cls, found: os.stat_result) -> Self:
        """Likewise, of what the system says of it."""
        return cls(size=found.st_size, mtime_ns=found.st_mtime_ns)


class DayContents(BaseModel):
    """The usable events of a local day: how many, and a sum of their hashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_events: int = 0
    sum_of_hashes: int = 0

    def __add__(self, other: "DayContents") -> "DayContents":
        return DayContents(
            num_events=self.num_events + other.num_events,
            sum_of_hashes=(self.sum_of_hashes + other.sum_of_hashes) % HASHES,
        )


class FileRecord(BaseModel):
    """What was found in a file of the log.

    Attributes:
        stamp: of the file.
        num_rows: of the file, malformed ones too.
        time_reading: how its times are read, in words; None of a file without usable events.
        quarantined: rows set aside, by reason.
        days: its usable events.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: Stamp
    num_rows: int
    time_reading: str | None
    quarantined: dict[str, int]
    days: dict[date, DayContents]


class DayRecord(BaseModel):
    """What the minutes of a day were made of, by file of the log, and their own file, which others may write too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: dict[str, DayContents]
    minutes: Stamp

    @property
    def contents(self) -> DayContents:
        """Of all files."""
        return sum(self.sources.values(), DayContents())


class Ledger(BaseModel):
    """What a folder of minutes was made of.

    Attributes:
        format: of this file.
        reading: names what decides how events are read and told apart.
        files: of the log, when it was last looked at.
        days: of the folder of minutes.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    reading: str
    files: dict[str, FileRecord] = {}
    days: dict[date, DayRecord] = {}

    @classmethod
    def read(cls, folder: Path, reading: str) -> Self:
        """The ledger of a folder; one that isn't there, is damaged or is of another reading is as good as empty."""
        try:
            ledger = cls.model_validate(read_json(folder / LEDGER_FILE, "a folder of minutes"))
        except (InputError, ValidationError):
            return cls(reading=reading)
        return ledger if ledger.format == FORMAT and ledger.reading == reading else cls(reading=reading)

    def write(self, folder: Path) -> None:
        """Put it beside the minutes."""
        write_json(folder / LEDGER_FILE, self.model_dump(mode="json"))


@dataclass(frozen=True)
class Changes:
    """How a log differs from what a folder of minutes was made of.

    Attributes:
        ledger: knows all files of the log as they are now, and the days as they are in the folder.
        num_files: files of the log.
        read: those that are new or have changed, by name.
        gone: names of files that were there before.
        contents: of each day that has events now.
    """

    ledger: Ledger
    num_files: int
    read: Mapping[str, FileRecord] = field(repr=False)
    gone: Sequence[str]
    contents: Mapping[date, DayContents] = field(repr=False)

    @property
    def quarantined(self) -> dict[str, int]:
        """Rows of the files read that were set aside, by reason, the most frequent first."""
        total = Counter[str]()
        for record in self.read.values():
            total.update(record.quarantined)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def plan(self, folder: Path, until: date, allow_fewer: Collection[date]) -> "Plan":
        """What is to be done with the minutes of each day up to one, included.

        Args:
            folder: of the minutes.
            until: the last day.
            allow_fewer: days that are made of what the log has now, though it has fewer events than before, or none.
        """
        plan = Plan()
        for day in sorted(day for day in self.contents.keys() | set(days_of(folder)) if day <= until):
            if day not in self.contents:
                (plan.removed if day in allow_fewer else plan.kept).append(day)
            elif not self._is_up_to_date(folder, day):
                loses = day not in allow_fewer and self._would_lose(folder, day)
                (plan.left if loses else plan.made).append(day)
        return plan

    def sources(self, day: date) -> dict[str, DayContents]:
        """The events of a day, by file."""
        return {name: record.days[day] for name, record in self.ledger.files.items() if day in record.days}

    def files_of(self, days: Sequence[date]) -> list[Path]:
        """The files that have events of some days.

        Raises:
            InputError: their times are read in more than one way, so that together some would be set aside.
        """
        wanted = frozenset(days)
        records = {name: record for name, record in self.ledger.files.items() if not wanted.isdisjoint(record.days)}
        readings = {record.time_reading: name for name, record in records.items()}
        if len(readings) > 1:
            (one, first), (other, second), *_ = readings.items()
            raise InputError(
                f"{first} has {one}, but {second} has {other}: write their times alike, or set timestamp_unit in "
                "[columns] of the schema"
            )
        return [Path(name) for name in records]

    def sizes_of(self, files: Iterable[Path]) -> dict[Path, int]:
        """Of files, when they were looked through, in bytes."""
        return {file: self.ledger.files[str(file)].stamp.size for file in files}

    def refuse_fewer(self, day: date, num_events: int) -> None:
        """Refuse minutes of a day of fewer events than were looked through, before they are put into their place.

        Raises:
            InputError: files have lost events meanwhile.
        """
        expected = self.contents[day].num_events
        if num_events < expected:
            raise _lost(expected - num_events, expected, f", all of them of {day}")

    def refuse_losses(self, planned: Sequence[date], made: Sequence[date], num_events: int) -> None:
        """Refuse minutes of fewer events than were looked through.

        Args:
            planned: days that were to be made.
            made: those that were.
            num_events: that these hold; with duplicates that were dropped.

        Raises:
            InputError: files have lost events meanwhile. The minutes aren't recorded, so the next run makes them again.
        """
        expected = sum(self.contents[day].num_events for day in planned)
        if num_events < expected or not set(planned) <= set(made):
            lost = sorted(set(planned) - set(made))
            raise _lost(expected - num_events, expected, f", all of {lost[0]} among them" if lost else "")

    def record(self, folder: Path, days: Iterable[date]) -> None:
        """Write down what days have just been made of, and forget those whose minutes are gone."""
        for day in days:
            stamp = Stamp.of(partition_file(folder, day))
            self.ledger.days[day] = DayRecord(sources=self.sources(day), minutes=stamp)
        there = set(days_of(folder))
        self.ledger.days = {day: record for day, record in self.ledger.days.items() if day in there}
        self.ledger.write(folder)

    def _record_of(self, folder: Path, day: date) -> DayRecord | None:
        """What the minutes that are there were made of, if that is known."""
        record = self.ledger.days.get(day)
        try:
            return record if record and Stamp.of(partition_file(folder, day)) == record.minutes else None
        except OSError:
            return None

    def _is_up_to_date(self, folder: Path, day: date) -> bool:
        record = self._record_of(folder, day)
        return record is not None and record.contents == self.contents[day]

    def _would_lose(self, folder: Path, day: date) -> bool:
        """Whether events of the day's minutes aren't in the log any more, for all that is known."""
        record = self._record_of(folder, day)
        if record is None:
            # Where the file isn't the one that was written down, damaged or replaced, what that one held counts, too.
            held = num_events_of(partition_file(folder, day)) or 0
            if day in self.ledger.days:
                held = max(held, self.ledger.days[day].contents.num_events)
            return self.contents[day].num_events < held
        now, none = self.sources(day), DayContents()
        return any(
            now.get(name, none).num_events < then.num_events and then not in now.values()  # or it has another name now
            for name, then in record.sources.items()
        )


def _lost(num_lost: int, num_events: int, of_days: str) -> InputError:
    return InputError(
        f"files of the log lost {num_lost:,} of {num_events:,} events while they were read{of_days}: make them whole "
        "and run again"
    )


@dataclass(frozen=True)
class Plan:
    """What is to be done with the minutes of days.

    Attributes:
        made: their events have changed.
        left: their events have changed, but some that their minutes hold aren't in the log any more.
        kept: the log has no events of them any more.
        removed: likewise, and that is meant.
    """

    made: list[date] = field(default_factory=list)
    left: list[date] = field(default_factory=list)
    kept: list[date] = field(default_factory=list)
    removed: list[date] = field(default_factory=list)


def find_changes(
    events: str | Path,
    schema: Schema,
    folder: Path,
    *,
    drop_duplicates: bool = False,
    memory_limit: str | None = None,
    threads: int | None = None,
) -> Changes:
    """Look through those files of a log that are new or have changed.

    Args:
        events: the log, see `aggregate`.
        schema: its schema.
        folder: of the minutes.
        drop_duplicates: see `aggregate`.
        memory_limit: of DuckDB.
        threads: of DuckDB.

    Raises:
        InputError: the log can't be read, or a file has gone meanwhile.
    """
    files = find_files(events)
    # How DuckDB hashes may change with its version.
    reading = definition_hash([schema.hash, schema.definition(), drop_duplicates, duckdb.__version__])
    before = Ledger.read(folder, reading)
    records = dict[str, FileRecord]()
    read = dict[str, FileRecord]()
    with progress("looking through the log", len(files)) as advance:
        for file in files:
            name, stamp = str(file), Stamp.of_stat(stat_of_listed(file))
            known = before.files.get(name)
            if known is None or known.stamp != stamp:
                known = read[name] = _look_through(file, stamp, schema, drop_duplicates, memory_limit, threads)
            records[name] = known
            advance(note=file.name)
    contents = dict[date, DayContents]()
    for record in records.values():
        for day, found in record.days.items():
            contents[day] = contents.get(day, DayContents()) + found
    ledger = Ledger(reading=reading, files=records, days=before.days)
    return Changes(ledger, len(files), read, sorted(before.files.keys() - records.keys()), contents)


def _look_through(
    file: Path, stamp: Stamp, schema: Schema, drop_duplicates: bool, memory_limit: str | None, threads: int | None
) -> FileRecord:
    """What is in a file. What changes meanwhile is found by its stamp the next time."""
    with connect(memory_limit, threads) as connection, readable(str(file)):
        source = open_events(connection, file, [file], may_be_empty=True)
        clean = clean_events(connection, source, schema, drop_duplicates=drop_duplicates)
        days = _contents_of_days(connection, clean, schema, drop_duplicates)
        return FileRecord(
            stamp=stamp,
            num_rows=source.num_rows + source.num_malformed,
            time_reading=clean.time_reading if days else None,
            quarantined=count_quarantined(connection, source, clean),
            days=days,
        )


def _contents_of_days(
    connection: duckdb.DuckDBPyConnection, clean: CleanEvents, schema: Schema, drop_duplicates: bool
) -> dict[date, DayContents]:
    usable = f"FROM ({clean.sql}) WHERE usable"
    first, last = only_row(connection, f"SELECT min(microsecond), max(microsecond) {usable}")
    if first is None:
        return {}
    refuse_unbelieved(first, schema)
    refuse_unbelieved(last, schema)
    zone = schema.time.time_zone
    first_day, last_day = (local_date(moment // _MICROSECONDS_PER_MINUTE, zone) for moment in (first, last))
    numbers = range(first_day.toordinal(), last_day.toordinal() + 1)
    days = [date.fromordinal(number) for number in numbers]
    starts = [*(day_bounds(day, zone)[0] for day in days), day_bounds(last_day, zone)[1]]
    minute = f"(microsecond - ({starts[0] * _MICROSECONDS_PER_MINUTE})) // {_MICROSECONDS_PER_MINUTE}"
    extra = "".join(f", extra_{i}" for i in range(len(schema.columns.extra)))
    extra += ", raw" if drop_duplicates else ""  # duplicates are equal in more than what minutes tell
    told_by = (
        f"hash(entity_id, {floor_divided('microsecond', _MICROSECONDS_PER_MINUTE)}, behavior, location, failed{extra})"
    )
    sum_of_hashes = f"(sum({told_by}::HUGEINT) % {HASHES})::HUGEINT"
    rows = connection.execute(
        f"SELECT {day_sql(minute, starts)} AS day, count(*), {sum_of_hashes} {usable} GROUP BY day"
    ).fetchall()
    return {days[day]: DayContents(num_events=count, sum_of_hashes=int(total)) for day, count, total in rows}
