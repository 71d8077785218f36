"""`daily`: from the events that are there tonight to the embeddings of a day (section 4.3).

Each part can be killed at any moment: what is whole stays, and the next run does what is left, whether it runs for the
same day or for a later one.
"""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date as Date
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from infobehavior.artefacts import DAILY_LOG, end_interrupted, refuse_unwritable, remove_all_leftovers, unfinished_day
from infobehavior.data.aggregation import aggregate_days
from infobehavior.data.events import connect, is_hidden
from infobehavior.data.ledger import Changes, Plan, find_changes
from infobehavior.data.minutes import days_of as days_of_minutes
from infobehavior.data.minutes import partition_file as minutes_file
from infobehavior.data.moments import end_of_day
from infobehavior.data.schema import Schema, read_schema
from infobehavior.data.whole_files import WholeFiles
from infobehavior.embedding.embed import Summary as Embedded
from infobehavior.embedding.embed import embed, refuse_kept_spans
from infobehavior.embedding.table import days_of, days_with_files, refuse_foreign_files, remove_day
from infobehavior.errors import BusyError, InputError, NoEventsError
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.nightly.drift import Drift, measure_drift
from infobehavior.nightly.stage_log import StageLog
from infobehavior.nightly.stale import SeenMinutes, stale_days
from infobehavior.spark import spark_context

LOCK_FILE = ".lock"
AGGREGATION = "the nightly aggregation"


@dataclass(frozen=True)
class Summary:
    """What a night did.

    Attributes:
        date: the last day asked for.
        dates: days whose embeddings were made, ascending.
        num_files: files of the log.
        num_files_read: those that were new or had changed.
        num_files_gone: files that the log had before.
        quarantined: rows of the files read that were set aside, by reason.
        days_aggregated: local days whose minutes were made, ascending.
        days_removed: local days of which the log has no events any more, as was meant.
        days_left: local days whose events have changed, but of which the log lacks some that their minutes hold; they
            stay as they were.
        num_days_kept: local days of which the log has no events any more; they stay.
        num_duplicates: rows of the files read for those days that were dropped because they repeat another.
        last_with_events: the last local day up to the date given of which there are minutes.
        skipped: days that were missed and whose windows have no events.
        embedded: what `embed` did for each of the dates.
        stale: days of the table whose windows hold minutes that have changed since its last night, and that stay as
            they were.
        dropped: days of the table that were dropped as too old.
        drift: how the last of the dates differs from what the model was trained on.
    """

    date: Date
    dates: tuple[Date, ...]
    num_files: int
    num_files_read: int
    num_files_gone: int
    quarantined: dict[str, int]
    days_aggregated: tuple[Date, ...]
    days_removed: tuple[Date, ...]
    days_left: tuple[Date, ...]
    num_days_kept: int
    num_duplicates: int
    last_with_events: Date
    skipped: tuple[Date, ...]
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
        if self.num_duplicates:
            lines.append(f"{self.num_duplicates:,} duplicate rows dropped")
        if self.days_removed:
            lines.append(f"minutes of {_days(self.days_removed)} are gone: the log has no events of them any more")
        if self.num_days_kept:
            lines.append(f"minutes of {self.num_days_kept:,} days stay, of which the log has no events any more")
        if self.days_left:
            lines.append(
                f"events of {_days(self.days_left)} have changed, but the log lacks some that the minutes hold, or "
                "held when they were last made of it; these stay as they were: give --allow-fewer "
                f"{self.days_left[0]} if that day is meant to lose them"
            )
        if self.last_with_events < self.date:
            lines.append(f"there are no events of {self.date}: the last up to then are of {self.last_with_events}")
        if self.skipped:
            lines.append(f"{_days(self.skipped)} can't be caught up: no account has events in those windows")
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
    allow_fewer: Collection[str | Date] = (),
    drop_duplicates: bool = False,
    device: str = "cpu",
    wait: float = 0.0,
    memory_limit: str | None = None,
    threads: int | None = None,
    minutes_per_shard: int | None = None,
    engine: str = "duckdb",
    master: str | None = None,
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
        allow_fewer: days whose minutes are made of what the log has now, though events are gone that they hold, or all.
            Other such days stay, since logs are removed after a while, and minutes are kept.
        drop_duplicates: see `aggregate`.
        device: see `embed`.
        wait: seconds to wait for another night in these folders to end.
        memory_limit: see `aggregate`; of DuckDB while it looks through the log and aggregates.
        threads: likewise.
        minutes_per_shard: see `embed`.
        engine: "spark" aggregates and embeds by Spark; what is new is looked for in this process.
        master: of Spark, see `spark_context`.

    Raises:
        BusyError: another night is at work in these folders.
        InputError: see `aggregate` and `embed`.
    """
    schema = schema if isinstance(schema, Schema) else read_schema(schema)
    minutes, out = Path(minutes), Path(out)
    if keep_days is not None and keep_days < 1:
        raise InputError(f"keep_days must be 1 or more, got {keep_days}")
    refuse_kept_spans(engine, master, keep_spans)
    last = _day(date, schema)
    first = None if since is None else _day(since, schema)
    if first and first > last:
        raise InputError(f"--since {first} is after --date {last}")
    window_days = _window_days(model, schema)
    refuse_unwritable(minutes, "minutes")
    refuse_unwritable(out, "embeddings")
    _refuse_shared(Path(events), minutes, out)
    refuse_foreign_files(out)
    with connect(memory_limit, threads):
        pass  # refuses a limit that DuckDB can't have, though no file may be new tonight
    with ExitStack() as stack:
        for folder in sorted((minutes, out)):
            stack.enter_context(_alone(folder, wait))
            remove_all_leftovers(folder)
        days_with_files(out)  # refuses what isn't a day before anything is done
        if engine == "spark":
            stack.enter_context(spark_context(master))  # one for all that follows
        log = StageLog(out / DAILY_LOG, date=last)
        aggregated = _aggregate(
            events,
            schema,
            minutes,
            last,
            log,
            {_day(day, schema) for day in allow_fewer},
            engine,
            drop_duplicates=drop_duplicates,
            memory_limit=memory_limit,
            threads=threads,
        )
        dates, embedded, skipped = _dates(out, first, last, keep_days), dict[Date, Embedded](), list[Date]()
        for day in dates:
            with log.stage("embed", ds=day) as facts:
                try:
                    embedded[day] = embed(
                        minutes,
                        model,
                        out,
                        date=day,
                        device=device,
                        keep_spans=keep_spans,
                        reuse=True,
                        minutes_per_shard=minutes_per_shard,
                        engine=engine,
                    )
                except NoEventsError as error:
                    if day == last:
                        raise
                    skipped.append(day)
                    facts["skipped"] = str(error)
                else:
                    facts |= _facts(embedded[day])
        with log.stage("drift", ds=last) as facts:
            drift = measure_drift(last, minutes, Path(model), out, device)
            facts |= vars(drift) | {"largest": drift.largest}
        dropped = _drop(out, last, keep_days, log)
        with log.stage("find stale") as facts:
            before = SeenMinutes.read(out)
            seen = SeenMinutes.look(minutes, out, window_days, before)
            changed = seen.changed_since(before) if before else aggregated.changed
            stale = facts["days"] = stale_days(out, changed, dates, window_days, schema)
        seen.write(out)  # what was told isn't told again
    return Summary(
        last,
        tuple(sorted(embedded)),
        aggregated.changes.num_files,
        len(aggregated.changes.read),
        len(aggregated.changes.gone),
        aggregated.changes.quarantined,
        tuple(aggregated.plan.made),
        tuple(aggregated.plan.removed),
        tuple(aggregated.plan.left),
        len(aggregated.plan.kept),
        aggregated.num_duplicates,
        aggregated.last_with_events or last,
        tuple(skipped),
        tuple(embedded[day] for day in sorted(embedded)),
        tuple(stale),
        tuple(dropped),
        drift,
    )


def _refuse_shared(events: Path, minutes: Path, out: Path) -> None:
    """Refuse folders that lie in each other: what one night writes there, the next one would read for something else.

    Raises:
        InputError: minutes and table lie in each other, or one of them where the log's files are looked for.
    """
    log, of_minutes, of_table = (folder.resolve() for folder in (events, minutes, out))
    if of_minutes.is_relative_to(of_table) or of_table.is_relative_to(of_minutes):
        raise InputError(f"--minutes {minutes} and --out {out} lie in each other: give each a folder of its own")
    for flag, folder, resolved in (("--minutes", minutes, of_minutes), ("--out", out, of_table)):
        if log.is_dir() and resolved.is_relative_to(log) and not is_hidden(resolved.relative_to(log)):
            raise InputError(f"{flag} {folder} lies in the log, {events}, where the next night would read it as events")


def _window_days(model: str | Path, schema: Schema) -> int:
    """Days of a model's windows; refuses a schema that isn't the model's before anything is aggregated by it."""
    encoder = InfoBehavior.from_pretrained(model)
    if encoder.vocabulary.minutes_hash != schema.hash:
        raise InputError(
            f"the model was trained on minutes of schema {encoder.vocabulary.minutes_hash}, but the schema given is "
            f"{schema.hash}: give the model's schema, or pre-train on minutes of this one"
        )
    return encoder.config.window_days


@dataclass(frozen=True)
class _Aggregated:
    """What became of the minutes; `changed` are days whose file isn't the same any more."""

    changes: Changes
    plan: Plan
    changed: list[Date]
    num_duplicates: int
    last_with_events: Date | None


def _aggregate(
    events: str | Path,
    schema: Schema,
    minutes: Path,
    last: Date,
    log: StageLog,
    allow_fewer: set[Date],
    engine: str,
    **how: Any,
) -> _Aggregated:
    """Bring the minutes up to date, up to a day."""
    with log.stage("look through") as facts:
        changes = find_changes(events, schema, minutes, **how)
        plan = changes.plan(minutes, last, allow_fewer)
        files = changes.files_of(plan.made)
        facts |= {"files": changes.num_files, "read": len(changes.read), "gone": len(changes.gone)}
        facts |= {"rows_read": sum(record.num_rows for record in changes.read.values())}
        facts |= {"quarantined": changes.quarantined}
    touched = [*plan.made, *plan.removed]
    with log.stage("aggregate", days=plan.made, removed=plan.removed, left=plan.left, kept=len(plan.kept)) as facts:
        before, num_duplicates = _hashes(minutes, touched), 0
        if plan.made:
            log_files = WholeFiles(changes.sizes_of(files))

            def accept(day: Date, num_events: int) -> None:
                log_files.refuse_shrunk()  # or what grows elsewhere would make up for what is lost
                if not how["drop_duplicates"]:  # else a day's events aren't those of its files together
                    changes.refuse_fewer(day, num_events)

            summary = aggregate_days(
                events,
                schema,
                minutes,
                files=files,
                days=plan.made,
                run=AGGREGATION,
                engine=engine,
                accept=accept,
                **how,
            )
            facts |= {"events": summary.num_kept, "minutes": summary.num_minutes}
            num_duplicates = facts["duplicates"] = summary.num_duplicates
            changes.refuse_losses(
                plan.made, summary.days, summary.num_kept + (num_duplicates if how["drop_duplicates"] else 0)
            )
        elif not days_of_minutes(minutes):
            raise InputError(f"{events} has no events up to {last}{_why(changes)}")
        else:
            end_interrupted(minutes, AGGREGATION)
        for day in plan.removed:
            minutes_file(minutes, day).unlink(missing_ok=True)
        changes.record(minutes, plan.made)
        after = _hashes(minutes, touched)
        changed = [day for day in touched if before[day] != after[day]]
        last_with_events = max((day for day in days_of_minutes(minutes) if day <= last), default=None)
        facts |= {"changed": changed, "last_with_events": last_with_events}
    return _Aggregated(changes, plan, changed, num_duplicates, last_with_events)


def _why(changes: Changes) -> str:
    """Why there is nothing to embed: events come later, or their rows can't be used."""
    told = [f"the first are of {min(changes.contents)}"] if changes.contents else []
    told += [f"set aside: {count:,} rows, {reason}" for reason, count in changes.quarantined.items()]
    return f": {'; '.join(told)}" if told else ""


def _hashes(minutes: Path, days: Sequence[Date]) -> dict[Date, str | None]:
    """Names the bytes of the minutes of days; None of a day without."""
    found: dict[Date, str | None] = dict.fromkeys(days)
    for day in days:
        with suppress(FileNotFoundError), minutes_file(minutes, day).open("rb") as file:
            found[day] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _dates(out: Path, first: Date | None, last: Date, keep_days: int | None) -> list[Date]:
    """The days to embed, ascending, but first the one at which an earlier run was interrupted.

    Days that would be dropped as too old aren't made.
    """
    before = [day for day in days_of(out) if day < last]
    first = first or (before[-1] + timedelta(days=1) if before else last)
    if keep_days is not None:
        first = max(first, _oldest(last, keep_days))
    dates = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    interrupted = unfinished_day(out)
    return [interrupted, *(day for day in dates if day != interrupted)] if interrupted else dates


def _drop(out: Path, last: Date, keep_days: int | None, log: StageLog) -> list[Date]:
    if keep_days is None:
        return []
    old = [day for day in days_with_files(out) if day < _oldest(last, keep_days)]
    with log.stage("drop", days=old):
        for day in old:
            remove_day(out, day)
    return old


def _oldest(last: Date, keep_days: int) -> Date:
    """The first of so many days up to one."""
    return Date.fromordinal(max(1, last.toordinal() - keep_days + 1))


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
