"""`daily`: from the events that are there tonight to the embeddings of a day (section 4.3).

Each part can be killed at any moment: what is whole stays, and the next run does what is left, whether it runs for the
same day or for a later one.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from infobehavior.artefacts import DAILY_LOG, refuse_unwritable, unfinished_day
from infobehavior.data.aggregation import aggregate_days
from infobehavior.data.ledger import Changes, DayRecord, Stamp, find_changes
from infobehavior.data.minutes import days_of as days_of_minutes
from infobehavior.data.minutes import partition_file as minutes_file
from infobehavior.data.moments import end_of_day
from infobehavior.data.schema import Schema, read_schema
from infobehavior.embedding.embed import Summary as Embedded
from infobehavior.embedding.embed import embed
from infobehavior.embedding.table import days_of, remove_day
from infobehavior.errors import BusyError, InputError
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.nightly.drift import Drift, measure_drift
from infobehavior.nightly.stage_log import StageLog

LOCK_FILE = ".lock"
AGGREGATION = "the nightly aggregation"


@dataclass(frozen=True)
class Summary:
    """What a night did.

    Attributes:
        dates: days whose embeddings were made, ascending.
        num_files: files of the log.
        num_files_read: those that were new or had changed.
        num_files_gone: files that the log had before.
        quarantined: rows of the files read that were set aside, by reason.
        days_aggregated: local days whose minutes were made, ascending.
        days_removed: local days that have no events any more.
        days_left: local days that have fewer events now than their minutes were made of, and stay as they were.
        embedded: what `embed` did for each of the dates.
        stale: days of the table whose windows hold minutes that were made again now, and that stay as they were.
        dropped: days of the table that were dropped as too old.
        drift: how the last of the dates differs from what the model was trained on.
    """

    dates: tuple[Date, ...]
    num_files: int
    num_files_read: int
    num_files_gone: int
    quarantined: dict[str, int]
    days_aggregated: tuple[Date, ...]
    days_removed: tuple[Date, ...]
    days_left: tuple[Date, ...]
    embedded: tuple[Embedded, ...]
    stale: tuple[Date, ...]
    dropped: tuple[Date, ...]
    drift: Drift

    def lines(self) -> list[str]:
        """For the terminal."""
        gone = f", {self.num_files_gone:,} are gone" if self.num_files_gone else ""
        lines = [f"{self.num_files_read:,} of {self.num_files:,} files are new or have changed{gone}"]
        lines += [f"set aside: {count:,} rows, {reason}" for reason, count in self.quarantined.items()]
        lines.append(f"minutes of {_days(self.days_aggregated)} were made")
        if self.days_removed:
            lines.append(f"minutes of {_days(self.days_removed)} are gone: the log has no events of them any more")
        if self.days_left:
            lines.append(
                f"the log has fewer events of {_days(self.days_left)} than their minutes were made of; these stay as "
                "they were: give --allow-fewer if that is meant"
            )
        for embedded in self.embedded:
            lines += embedded.lines()
        if self.stale:
            lines.append(
                f"late events lie in the windows of {_days(self.stale)} too, which stay as they were: give --since "
                f"{self.stale[0]} to make them again"
            )
        if self.dropped:
            lines.append(f"embeddings of {_days(self.dropped)} were dropped as too old")
        return lines + self.drift.lines()


def daily(
    events: str | Path,
    schema: Schema | str | Path,
    model: str | Path,
    minutes: str | Path,
    out: str | Path,
    *,
    date: str | Date,
    since: str | Date | None = None,
    keep_days: int | None = None,
    keep_spans: bool = False,
    allow_fewer: bool = False,
    drop_duplicates: bool = False,
    device: str = "cpu",
    wait: float = 0.0,
    memory_limit: str | None = None,
    threads: int | None = None,
    minutes_per_shard: int | None = None,
) -> Summary:
    """Do what a night has to do: aggregate what is new or late, and embed each entity's window that ends with a day.

    Run again, it writes the same bytes. Days since the last one of the table are caught up.

    Args:
        events: the log, see `aggregate`; its files may grow, change, come and go. Events after `date` are left for
            later.
        schema: a schema or its file.
        model: folder of a model.
        minutes: folder of minutes; is made, or brought up to date.
        out: folder of the embeddings table.
        date: the last local day of the windows.
        since: the first of the days whose embeddings are made; by default the day after the last one that the table has
            before `date`.
        keep_days: embeddings of so many days, up to `date`, stay; older ones are dropped. By default all stay.
        keep_spans: see `embed`.
        allow_fewer: make a day's minutes again though the log has fewer events of it than before. By default they stay,
            since logs are removed after a while, and minutes are kept.
        drop_duplicates: see `aggregate`.
        device: see `embed`.
        wait: seconds to wait for another night in these folders to end.
        memory_limit: see `aggregate`.
        threads: see `aggregate`.
        minutes_per_shard: see `embed`.

    Raises:
        BusyError: another night is at work in these folders.
        InputError: see `aggregate` and `embed`.
    """
    schema = schema if isinstance(schema, Schema) else read_schema(schema)
    minutes, out = Path(minutes), Path(out)
    if keep_days is not None and keep_days < 1:
        raise InputError(f"keep_days must be 1 or more, got {keep_days}")
    last = _day(date, schema)
    first = None if since is None else _day(since, schema)
    if first and first > last:
        raise InputError(f"--since {first} is after --date {last}")
    window_days = InfoBehavior.from_pretrained(model).config.window_days
    refuse_unwritable(minutes, "minutes")
    refuse_unwritable(out, "embeddings")
    with ExitStack() as stack:
        for folder in sorted({minutes, out}):
            stack.enter_context(_alone(folder, wait))
        log = StageLog(out / DAILY_LOG, date=last)
        aggregated = _aggregate(
            events,
            schema,
            minutes,
            last,
            log,
            allow_fewer,
            drop_duplicates=drop_duplicates,
            memory_limit=memory_limit,
            threads=threads,
        )
        dates = _dates(out, first, last)
        embedded = []
        for day in dates:
            with log.stage("embed", ds=day) as facts:
                summary = embed(
                    minutes,
                    model,
                    out,
                    date=day,
                    device=device,
                    keep_spans=keep_spans,
                    reuse=True,
                    minutes_per_shard=minutes_per_shard,
                )
                facts |= _facts(summary)
            embedded.append(summary)
        with log.stage("drift", ds=last) as facts:
            drift = measure_drift(last, minutes, Path(model), out, device)
            facts |= vars(drift) | {"largest": drift.largest}
        dropped = _drop(out, last, keep_days, log)
    return Summary(
        tuple(sorted(dates)),
        aggregated.changes.num_files,
        len(aggregated.changes.read),
        len(aggregated.changes.gone),
        aggregated.changes.quarantined,
        tuple(aggregated.made),
        tuple(aggregated.removed),
        tuple(aggregated.left),
        tuple(embedded),
        _stale(out, [*aggregated.made, *aggregated.removed], dates, window_days),
        tuple(dropped),
        drift,
    )


@dataclass(frozen=True)
class _Aggregated:
    """What became of the minutes: of which days they were made, removed, or left though the log has fewer events."""

    changes: Changes
    made: list[Date]
    removed: list[Date]
    left: list[Date]


def _aggregate(
    events: str | Path, schema: Schema, minutes: Path, last: Date, log: StageLog, allow_fewer: bool, **how: Any
) -> _Aggregated:
    """Bring the minutes up to date, up to a day."""
    with log.stage("look through") as facts:
        changes = find_changes(events, schema, minutes, **how)
        stale = changes.stale_days(minutes, last)
        left = [] if allow_fewer else changes.fewer(stale)
        facts |= {"files": changes.num_files, "read": len(changes.read), "gone": len(changes.gone)}
        facts |= {"rows_read": sum(record.num_rows for record in changes.read.values())}
        facts |= {"quarantined": changes.quarantined}
    made = [day for day in stale if day in changes.contents and day not in left]
    removed = [day for day in stale if day not in changes.contents and day not in left]
    with log.stage("aggregate", days=made, removed=removed, left=left) as facts:
        if made:
            files = changes.files_of(made)
            summary = aggregate_days(events, schema, minutes, files=files, days=made, run=AGGREGATION, **how)
            facts |= {"events": summary.num_kept, "minutes": summary.num_minutes}
        elif not days_of_minutes(minutes):
            raise InputError(f"{events} has no events up to {last}: there is nothing to embed")
        for day in removed:
            minutes_file(minutes, day).unlink(missing_ok=True)
            changes.ledger.days.pop(day, None)
        for day in made:
            stamp = Stamp.of(minutes_file(minutes, day))
            changes.ledger.days[day] = DayRecord(contents=changes.contents[day], minutes=stamp)
        changes.ledger.write(minutes)
    return _Aggregated(changes, made, removed, left)


def _dates(out: Path, first: Date | None, last: Date) -> list[Date]:
    """The days to embed, ascending, but first the one at which an earlier run was interrupted."""
    before = [day for day in days_of(out) if day < last]
    first = first or (before[-1] + timedelta(days=1) if before else last)
    dates = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    interrupted = unfinished_day(out)
    return [interrupted, *(day for day in dates if day != interrupted)] if interrupted else dates


def _stale(out: Path, changed: Sequence[Date], dates: Sequence[Date], window_days: int) -> tuple[Date, ...]:
    """Days of the table that weren't made now, though minutes of their windows were."""
    return tuple(
        ds
        for ds in days_of(out)
        if ds not in dates and any(ds - timedelta(days=window_days) < day <= ds for day in changed)
    )


def _drop(out: Path, last: Date, keep_days: int | None, log: StageLog) -> list[Date]:
    if keep_days is None:
        return []
    old = [day for day in days_of(out) if day <= last - timedelta(days=keep_days)]
    with log.stage("drop", days=old):
        for day in old:
            remove_day(out, day)
    return old


def _alone(folder: Path, wait: float) -> ExitStack:
    """Keep other nights out of a folder; the operating system ends it, whatever ends the process."""
    folder.mkdir(parents=True, exist_ok=True)
    stack = ExitStack()
    try:
        stack.enter_context(FileLock(folder / LOCK_FILE).acquire(timeout=wait))
    except Timeout:
        raise BusyError(f"another nightly run is at work in {folder}: let it end, or give --wait SECONDS") from None
    return stack


def _day(day: str | Date, schema: Schema) -> Date:
    end_of_day(day, schema)
    return Date.fromisoformat(day) if isinstance(day, str) else day


def _days(days: Sequence[Date]) -> str:
    """Days in words: how many, the first and the last."""
    if len(days) == 1:
        return str(days[0])
    return f"{len(days):,} days, {days[0]} to {days[-1]}," if days else "no day"


def _facts(summary: Embedded) -> dict[str, Any]:
    return {
        "model": summary.model_id,
        "embedded": summary.num_embedded,
        "reused": summary.num_reused,
        "without_events": summary.num_without_events,
        "removed": summary.num_removed,
        "fallbacks": summary.fallbacks,
    }
