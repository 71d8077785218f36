"""Shows what an event log holds and proposes a schema for it, levels from the log's own statistics included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from infobehavior.data.cleaning import (
    CleanEvents,
    clean_events,
    floor_divided,
    quarantine_counts,
    quarantine_examples,
)
from infobehavior.data.clock import SECONDS_PER_MINUTE
from infobehavior.data.columns import (
    MAX_BEHAVIORS,
    ColumnProfile,
    failing_outcomes,
    find_columns,
    profile_columns,
    proposed_entity_type,
)
from infobehavior.data.events import EventSource, connect, only_row, open_events, quoted, readable
from infobehavior.data.schema import ONE_TIME, Behavior, Schema, parse_schema, read_schema, schema_text, write_schema
from infobehavior.data.summary import quarantine_lines, warning_lines
from infobehavior.errors import InputError

ONE_TIME_SHARE = 0.99
"""A behavior is one-time if so many of its entities do it once, and no minute holds it twice."""

HIGH_QUANTILE = 0.75
"""H begins above this quantile of the repeats of the minutes that hold a behavior at least twice."""

NUM_LOCATIONS_SHOWN = 10
NUM_BEHAVIORS_SHOWN = 40


@dataclass(frozen=True)
class BehaviorProfile:
    """How often a behavior occurs, and how often within one minute of an entity.

    Attributes:
        name: NFC-normalised.
        num_events: its events.
        share: of all usable events.
        quantiles: repeats within a minute that has it: median, 90 %, 99 %, most.
        levels: what is proposed.
    """

    name: str
    num_events: int
    share: float
    quantiles: tuple[int, int, int, int]
    levels: Behavior


@dataclass(frozen=True)
class Inspection:
    """What was found in a log.

    Attributes:
        description: what the caller called the log.
        num_rows: rows, malformed ones too.
        num_entities: entities with usable events.
        first: first usable event, in the schema's time zone.
        last: last usable event.
        columns: profiles of all columns.
        behaviors: profiles, the most frequent first.
        locations: the most frequent locations with their counts.
        outcomes: values of the outcome column with their counts.
        quarantined: rows that the schema would set aside, by reason.
        schema: the proposal.
        out: where it was written.
    """

    description: str
    num_rows: int
    num_entities: int
    first: datetime
    last: datetime
    columns: tuple[ColumnProfile, ...]
    behaviors: tuple[BehaviorProfile, ...]
    num_other_behaviors: int
    locations: tuple[tuple[str, int], ...]
    outcomes: tuple[tuple[str, int], ...]
    quarantined: dict[str, int]
    time_reading: str
    schema: Schema
    out: Path | None
    examples: dict[str, tuple[str, ...]] = field(repr=False)

    def lines(self) -> list[str]:
        """For the terminal."""
        chosen = self.schema.columns
        lines = [
            *warning_lines(self.quarantined, self.num_rows),
            f"{self.description}: {self.num_rows:,} rows, {self.num_entities:,} entities",
            f"{self.first} to {self.last} (read as {self.time_reading})",
            "",
            *_table(
                ("column", "type", "nulls", "distinct", "is"),
                [
                    (_shown(c.name), c.type, f"{c.num_nulls:,}", f"~{c.num_distinct:,}", _role(self.schema, c.name))
                    for c in self.columns
                ],
            ),
            "",
            *_table(
                ("behavior", "events", "share", "in a minute: 50 %", "90 %", "99 %", "most", "levels"),
                [_behavior_cells(profile) for profile in self.behaviors[:NUM_BEHAVIORS_SHOWN]],
            ),
        ]
        hidden = len(self.behaviors) - NUM_BEHAVIORS_SHOWN
        if hidden > 0:
            lines.append(f"... and {hidden} more")
        if self.num_other_behaviors:
            lines.append(
                f"{self.num_other_behaviors:,} rarer behaviors are left out of the schema; is {chosen.behavior!r} the "
                "right column? (--behavior)"
            )
        if self.locations:
            lines += ["", f"top locations ({chosen.location}): {_counts(self.locations)}"]
        if self.outcomes:
            failures = ", ".join(self.schema.failures.outcomes) or "none recognised: edit [failures]"
            lines += [f"outcomes ({chosen.outcome}): {_counts(self.outcomes)}; failures: {failures}"]
        lines += quarantine_lines(self.quarantined, self.examples)
        return [*lines, f"schema written to {self.out}"] if self.out else lines


def inspect(
    events: str | Path,
    out: str | Path | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    memory_limit: str | None = None,
    threads: int | None = None,
) -> Inspection:
    """Look at an event log and propose a schema.

    Columns are found by their names and by what they hold. Levels come from the log: M begins at 2 repeats within
    a minute, as in the paper, and H above the `HIGH_QUANTILE` of the repeats of those minutes that have at least
    2, but not below 3. A behavior that no minute holds twice, and that `ONE_TIME_SHARE` of its entities do once,
    is one-time.

    Args:
        events: Parquet or CSV; a file, a glob, a folder, or a Hive-partitioned folder.
        out: schema file to write; it isn't overwritten if a person has changed it.
        columns: what is known already: `entity`, `timestamp`, `behavior`, `location`, `outcome`, `extra` (a list),
            `time_zone`.
        memory_limit: of DuckDB, such as "4GB".
        threads: of DuckDB.

    Raises:
        InputError: the events can't be read, a column can't be told from others, or none of the rows is usable.
    """
    given = dict(columns or {})
    time_zone = given.pop("time_zone", "UTC")
    if out is not None:
        _refuse_edited(Path(out))
    with connect(memory_limit, threads) as connection:
        connection.execute("SET preserve_insertion_order = true")  # The sample is the first rows, always.
        source = open_events(connection, events)
        with readable(source.description):
            inspection = _inspect(connection, source, given, time_zone, None if out is None else Path(out))
    if inspection.out is not None:
        _write(inspection.schema, inspection.out)
    return inspection


def _refuse_edited(out: Path) -> None:
    """Before the work: what can't be a proposal as it was written can't be the one to come either."""
    if not out.exists():
        return
    try:
        untouched = schema_text(read_schema(out)) == out.read_text(encoding="utf-8")
    except InputError:
        untouched = False
    if not untouched:
        raise _edited(out)


def _edited(out: Path) -> InputError:
    return InputError(f"{out} is there with other content, perhaps edited; remove it or give another name")


def _write(schema: Schema, out: Path) -> None:
    if out.exists() and out.read_text(encoding="utf-8") != schema_text(schema):
        raise _edited(out)
    try:
        write_schema(schema, out)
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror or error}") from error


def _inspect(
    connection: duckdb.DuckDBPyConnection,
    source: EventSource,
    given: dict[str, Any],
    time_zone: str,
    out: Path | None,
) -> Inspection:
    profiles = profile_columns(connection, source)
    roles = find_columns(connection, source, profiles, given)
    outcomes = (
        _top(connection, source.sql, f"CAST({quoted(roles['outcome'])} AS VARCHAR)") if "outcome" in roles else []
    )
    content: dict[str, Any] = {
        "columns": roles | {"entity_type": proposed_entity_type(connection, source, roles["entity"])},
        "time": {"time_zone": time_zone},
        "behaviors": {"?": ONE_TIME},
    }
    if outcomes:
        content["failures"] = {"outcomes": failing_outcomes(roles["outcome"], [value for value, _ in outcomes])}
    clean = clean_events(connection, source, parse_schema(content, "the proposed schema"))
    if clean.timestamp_unit:
        content["columns"]["timestamp_unit"] = clean.timestamp_unit
    quarantined = _quarantined(connection, source, clean)
    behaviors = _profile_behaviors(connection, clean)
    kept = behaviors[:MAX_BEHAVIORS]
    content["behaviors"] = {profile.name: profile.levels for profile in kept}
    first, last = only_row(connection, "SELECT min(minute), max(minute) FROM repeats")
    usable = f"(SELECT * FROM ({clean.sql}) WHERE reason IS NULL)"
    return Inspection(
        description=source.description,
        num_rows=source.num_rows + source.num_malformed,
        num_entities=only_row(connection, "SELECT count(DISTINCT entity_id) FROM repeats")[0],
        first=_moment(first, time_zone),
        last=_moment(last, time_zone),
        columns=tuple(profiles),
        behaviors=tuple(kept),
        num_other_behaviors=len(behaviors) - len(kept),
        locations=tuple(_top(connection, usable, "location")[:NUM_LOCATIONS_SHOWN] if "location" in roles else []),
        outcomes=tuple(outcomes[:NUM_LOCATIONS_SHOWN]),
        quarantined=quarantined,
        time_reading=clean.time_reading,
        schema=parse_schema(content, "the proposed schema"),
        out=out,
        examples=quarantine_examples(connection, source, clean) if quarantined else {},
    )


def _top(connection: duckdb.DuckDBPyConnection, relation: str, value: str) -> list[tuple[str, int]]:
    return connection.execute(
        f"SELECT {value} AS value, count(*) AS n FROM {relation} WHERE {value} IS NOT NULL "
        "GROUP BY value ORDER BY n DESC, value LIMIT 100"
    ).fetchall()


def _moment(minute: int, time_zone: str) -> datetime:
    return datetime.fromtimestamp(minute * SECONDS_PER_MINUTE, UTC).astimezone(ZoneInfo(time_zone))


def _quarantined(connection: duckdb.DuckDBPyConnection, source: EventSource, clean: CleanEvents) -> dict[str, int]:
    rows = connection.execute(f"SELECT reason, count(*) FROM ({clean.sql}) GROUP BY reason").fetchall()
    quarantined = quarantine_counts(rows, source.num_malformed)
    if all(reason is not None for reason, _ in rows):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
        raise InputError(f"{source.description} has no usable event: {reasons}")
    return quarantined


def _profile_behaviors(connection: duckdb.DuckDBPyConnection, clean: CleanEvents) -> list[BehaviorProfile]:
    minute = floor_divided("epoch", SECONDS_PER_MINUTE)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE repeats AS SELECT entity_id, behavior, {minute} AS minute, count(*) AS n "
        f"FROM ({clean.sql}) WHERE reason IS NULL GROUP BY ALL"
    )
    rows = connection.execute(
        f"""
        SELECT behavior, sum(n)::BIGINT AS num_events, quantile_disc(n, [0.5, 0.9, 0.99, 1]) AS quantiles,
            quantile_disc(n, {HIGH_QUANTILE}) FILTER (n >= 2) AS often, any_value(once) AS once
        FROM repeats JOIN (
            SELECT behavior, avg((num_events = 1)::INTEGER) AS once
            FROM (SELECT behavior, sum(n) AS num_events FROM repeats GROUP BY behavior, entity_id) GROUP BY behavior
        ) USING (behavior)
        GROUP BY behavior ORDER BY num_events DESC, behavior
        """
    ).fetchall()
    total = sum(row[1] for row in rows)
    return [
        BehaviorProfile(name, num_events, num_events / total, tuple(quantiles), _levels(often, once))
        for name, num_events, quantiles, often, once in rows
    ]


def _levels(often: int | None, once: float) -> Behavior:
    """Thresholds from the repeats of the minutes with at least two, None if there are none."""
    if often is None and once >= ONE_TIME_SHARE:
        return ONE_TIME
    return Behavior(medium=2, high=max(3, (often or 0) + 1))


def _role(schema: Schema, name: str) -> str:
    columns = schema.columns
    roles = [
        role for role in ("entity", "timestamp", "behavior", "location", "outcome") if getattr(columns, role) == name
    ]
    return ", ".join(roles + (["extra"] if name in columns.extra else []))


def _behavior_cells(profile: BehaviorProfile) -> tuple[str, ...]:
    levels = profile.levels
    text = f"M from {levels.medium}, H from {levels.high}" if levels.has_levels else "one-time"
    return (_shown(profile.name), f"{profile.num_events:,}", f"{profile.share:.2%}", *map(str, profile.quantiles), text)


def _counts(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{_shown(value)} ({count:,})" for value, count in counts)


def _shown(text: str) -> str:
    """A name in one line: line breaks and the like as escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns side by side, the first and the last to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        middle = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return lines
