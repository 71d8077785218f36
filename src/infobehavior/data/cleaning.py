"""Reads an event log by its schema, in SQL, and says why a row can't be used."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from infobehavior.data.clock import MICROSECONDS, SECONDS_PER_DAY, SECONDS_PER_MINUTE, parse_moment, wall_offsets
from infobehavior.data.events import (
    FRACTION_TYPES,
    INTEGER_TYPES,
    NAIVE_TIME_TYPES,
    NUM_EXAMPLES,
    ZONED_TIME_TYPES,
    EventSource,
    only_row,
    quoted,
    quoted_text,
    readable,
)
from infobehavior.data.schema import SET_SEPARATOR, Columns, Schema

MALFORMED = "malformed CSV row"
NO_ENTITY = "no entity"
ENTITY_NOT_INTEGER = "entity is not an integer"
NO_BEHAVIOR = "no behavior"
NO_TIME = "no time"
BAD_TIME = "time doesn't parse"
NO_ZONE = "time without a zone where others have one"
HAS_ZONE = "time with a zone where others have none"
OUT_OF_RANGE = "time out of range"

_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_ZONE_PATTERN = r"(?i)\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?|[A-Z]+/[A-Z0-9_/+-]+)$"
# DuckDB reads what follows such a time as local time too: EST as if it weren't there, and 'epoch' as a word.
_NAIVE_PATTERN = r"(?i)^\d+[-/ ]\d+[-/ ]\d+([T ]\s*\d[\d:.,]*)?$"


_MAKE = {"TIMESTAMP WITH TIME ZONE": "make_timestamptz", "TIMESTAMP": "make_timestamp"}
"""What makes a time of these types of microseconds; those of others can't be compared before they are parsed."""


@dataclass(frozen=True)
class CleanEvents:
    """SQL that reads a log by a schema.

    The columns of its queries: ``entity_id``, ``microsecond`` and ``epoch`` (whole seconds), ``behavior``,
    ``location``, ``failed``, ``extra_0``, ... (one per extra column), ``usable``, ``reason`` (null, or why the row is
    set aside) and ``raw`` (the row as text). Beside ``location`` and ``extra_0``, which are null if there is none,
    ``location_text`` and ``extra_0_text`` are empty then: DuckDB evaluates plain functions once a value where a column
    is stored with a dictionary, but not what makes an empty text null.

    Attributes:
        entity_type: BIGINT or VARCHAR.
        time_reading: how times were read, in words.
        timestamp_unit: of epoch numbers.
    """

    source: str
    before: str
    after: str
    time_column: str
    time_type: str
    entity_type: str
    time_reading: str
    timestamp_unit: str | None

    @property
    def sql(self) -> str:
        """All rows of the log."""
        return f"{self.before}{self.source}{self.after}"

    @property
    def is_scanned_whole(self) -> bool:
        """Whether all of the log is read, and its times parsed, for the events of any day."""
        return self.time_type not in _MAKE

    def between(self, first: int, end: int) -> str:
        """The usable events of the epoch seconds [first, end)."""
        skim = f"(SELECT * FROM {self.source} WHERE {self._row_group_filter(first, end)})"
        return f"SELECT * FROM ({self.before}{skim}{self.after}) WHERE usable AND {_inside(first, end)}"

    def _row_group_filter(self, first: int, end: int) -> str:
        """A condition on the raw column, which lets DuckDB skip the row groups that are certainly outside."""
        make = _MAKE.get(self.time_type)
        if make is None:
            return "true"
        slack = 0 if make == "make_timestamptz" else SECONDS_PER_DAY  # no zone is a day away from UTC
        bounds = (f"{make}({second * MICROSECONDS}::BIGINT)" for second in (first - slack, end + slack))
        return "{0} >= {1} AND {0} < {2}".format(quoted(self.time_column), *bounds)


@dataclass(frozen=True)
class StagedEvents:
    """The usable events of a log in a file of their own, whose row groups tell their times.

    Attributes:
        path: Parquet, with those columns of `CleanEvents` that an event is made of.
    """

    path: Path

    @property
    def sql(self) -> str:
        """All events."""
        return f"SELECT * FROM read_parquet({quoted_text(str(self.path))})"

    def between(self, first: int, end: int) -> str:
        """The events of the epoch seconds [first, end)."""
        return f"{self.sql} WHERE {_inside(first, end)}"


def _inside(first: int, end: int) -> str:
    return f"microsecond >= {first * MICROSECONDS} AND microsecond < {end * MICROSECONDS}"


def read_once(connection: duckdb.DuckDBPyConnection, clean: CleanEvents) -> StagedEvents:
    """Read a log that is scanned whole for any day, and keep its usable events in the folder to which DuckDB spills."""
    (spill,) = only_row(connection, "SELECT current_setting('temp_directory')")
    path = Path(spill) / "events.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    unneeded = "epoch, reason, usable, raw, no_entity, no_behavior, no_time, odd_zone"
    connection.execute(
        f"COPY (SELECT * EXCLUDE ({unneeded}) FROM ({clean.sql}) WHERE usable) TO {quoted_text(str(path))} "
        "(FORMAT parquet, COMPRESSION zstd)"
    )
    return StagedEvents(path)


@dataclass(frozen=True)
class _Reading:
    """How a column of times is read: SQL of its epoch microseconds and of what is wrong with it."""

    microsecond: str
    how: str
    missing: str
    odd_zone: str = "false"
    odd_reason: str = NO_ZONE
    unit: str | None = None


def clean_events(
    connection: duckdb.DuckDBPyConnection,
    source: EventSource,
    schema: Schema,
    *,
    drop_duplicates: bool = False,
) -> CleanEvents:
    """Say in SQL which rows of a log are usable, and what they hold in the schema's terms.

    Text is NFC-normalised; an empty location or extra value is null. A column of epoch numbers has one unit: the
    schema's `timestamp_unit`, or the one that makes most of its values fall between 1973 and 5138.

    Args:
        connection: from `connect`.
        source: the log.
        schema: which column is what.
        drop_duplicates: True keeps one of several rows that are equal in all the columns that the schema names.

    Raises:
        InputError: a column is missing.
    """
    source.require(schema.columns)
    with readable(source.description):
        facts = find_time_facts(connection, source.sql, source.columns, schema)
    return events_in_sql(source, facts, schema, drop_duplicates=drop_duplicates)


def events_in_sql(
    source: EventSource, facts: "TimeFacts", schema: Schema, *, drop_duplicates: bool = False
) -> CleanEvents:
    """`clean_events`, of a log whose times are known."""
    columns = schema.columns
    time = _read_time(facts, source.columns[columns.timestamp], schema)
    entity_type = _entity_type(columns, source.columns[columns.entity])
    used = ", ".join(quoted(name) for name in columns.used())
    members = {"location": columns.location} | {f"extra_{i}": name for i, name in enumerate(columns.extra)}
    fields = {
        "entity_id": _entity_sql(quoted(columns.entity), source.columns[columns.entity], entity_type),
        "no_entity": _is_blank(columns.entity, source.columns[columns.entity]),
        "behavior": _text(columns.behavior),
        "no_behavior": _is_blank(columns.behavior, source.columns[columns.behavior]),
        "microsecond": time.microsecond,
        "no_time": time.missing,
        "odd_zone": time.odd_zone,
        "failed": _failed_sql(schema),
        **{f"{name}_text": _text(column) for name, column in members.items()},
        **{name: f"nullif({_text(column)}, '')" for name, column in members.items()},
        "raw": f"CAST(struct_pack({', '.join(f'{quoted(n)} := {quoted(n)}' for n in columns.used())}) AS VARCHAR)",
    }
    listed = ", ".join(f"{sql} AS {name}" for name, sql in fields.items())
    faults = _faults(schema, time)
    distinct = "DISTINCT" if drop_duplicates else ""
    return CleanEvents(
        source=source.sql,
        before=f"SELECT *, {floor_divided('microsecond', MICROSECONDS)} AS epoch, "
        f"{_reason_sql(faults)} AS reason, NOT ({' OR '.join(faults)}) AS usable "
        f"FROM (SELECT {listed} FROM (SELECT {distinct} {used} FROM ",
        after="))",
        time_column=columns.timestamp,
        time_type=source.columns[columns.timestamp],
        entity_type=entity_type,
        time_reading=time.how,
        timestamp_unit=time.unit,
    )


def floor_divided(sql: str, divisor: int) -> str:
    """SQL of a division that rounds down, where DuckDB's ``//`` rounds towards zero."""
    return f"(({sql}) // {divisor} - (({sql}) % {divisor} < 0)::INTEGER)"


def _faults(schema: Schema, time: _Reading) -> dict[str, str]:
    """What makes a row unusable, as SQL, and in words; the first that is true is the reason."""
    zone = schema.time.time_zone
    earliest, latest = (parse_moment(day, zone) for day in (schema.time.earliest, schema.time.latest))
    return {
        "no_entity": NO_ENTITY,
        "entity_id IS NULL": ENTITY_NOT_INTEGER,
        "no_behavior": NO_BEHAVIOR,
        "no_time": NO_TIME,
        "odd_zone": time.odd_reason,
        "microsecond IS NULL": BAD_TIME,
        f"microsecond < {earliest} OR microsecond >= {latest}": OUT_OF_RANGE,
    }


def _reason_sql(faults: dict[str, str]) -> str:
    return f"CASE {' '.join(f'WHEN {test} THEN {quoted_text(name)}' for test, name in faults.items())} END"


def _is_blank(column: str, given: str) -> str:
    if given in INTEGER_TYPES:
        return f"{quoted(column)} IS NULL"
    return f"coalesce(trim(CAST({quoted(column)} AS VARCHAR)), '') = ''"


def _text(column: str | None) -> str:
    if column is None:
        return "CAST(NULL AS VARCHAR)"
    text = f"replace(CAST({quoted(column)} AS VARCHAR), {quoted_text(SET_SEPARATOR)}, ' ')"
    return f"nfc_normalize({text})"


def _entity_type(columns: Columns, given: str) -> str:
    if columns.entity_type is None:
        return "BIGINT" if given in INTEGER_TYPES else "VARCHAR"
    return "BIGINT" if columns.entity_type == "integer" else "VARCHAR"


def _entity_sql(column: str, given: str, entity_type: str) -> str:
    if entity_type == "VARCHAR":
        return f"CAST({column} AS VARCHAR)"
    if given.startswith(FRACTION_TYPES):
        return f"CASE WHEN {column} = floor({column}) THEN TRY_CAST({column} AS BIGINT) END"
    if given in INTEGER_TYPES:
        return f"TRY_CAST({column} AS BIGINT)"
    text = f"trim(CAST({column} AS VARCHAR))"
    return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN TRY_CAST({text} AS BIGINT) END"


def _failed_sql(schema: Schema) -> str:
    if schema.columns.outcome is None or not schema.failures.outcomes:
        return "false"
    outcome = f"nfc_normalize(CAST({quoted(schema.columns.outcome)} AS VARCHAR))"
    failed = f"coalesce({outcome} IN ({_texts(schema.failures.outcomes)}), false)"
    if schema.failures.behaviors:
        failed += f" AND coalesce({_text(schema.columns.behavior)} IN ({_texts(schema.failures.behaviors)}), false)"
    return failed


def _texts(values: Sequence[str]) -> str:
    return ", ".join(quoted_text(value) for value in values)


@dataclass(frozen=True)
class TimeFacts:
    """What a log's column of times holds, as far as it decides how that is read; of several parts, added up.

    Attributes:
        num_s: epoch numbers that would be seconds between 1973 and 5138.
        num_ms: that would be milliseconds.
        num_us: that would be microseconds.
        num_numbers: texts that are numbers.
        num_zoned: texts that end with a time zone.
        num_naive: texts of times without one.
        first: the first local time, as microseconds; None where there is none, or none is needed.
        last: the last one.
    """

    num_s: int = 0
    num_ms: int = 0
    num_us: int = 0
    num_numbers: int = 0
    num_zoned: int = 0
    num_naive: int = 0
    first: int | None = None
    last: int | None = None

    def __add__(self, other: "TimeFacts") -> "TimeFacts":
        counts = {name: count + getattr(other, name) for name, count in vars(self).items() if name.startswith("num_")}
        moments = [moment for facts in (self, other) for moment in (facts.first, facts.last) if moment is not None]
        return TimeFacts(**counts, first=min(moments, default=None), last=max(moments, default=None))

    @property
    def unit(self) -> str:
        """The unit that most epoch numbers suggest."""
        counts = [self.num_s, self.num_ms, self.num_us]
        return list(_UNITS)[counts.index(max(counts))]


def find_time_facts(
    connection: duckdb.DuckDBPyConnection, source: str, columns: Mapping[str, str], schema: Schema
) -> TimeFacts:
    """Look through the times of a log, or of some of its files, where they decide anything.

    Args:
        connection: from `connect`.
        source: what stands after FROM.
        columns: DuckDB's type of each column.
        schema: of the log.
    """
    wanted = time_facts_sql(columns[schema.columns.timestamp], schema)
    if not wanted:
        return TimeFacts()
    found = only_row(connection, f"SELECT {', '.join(wanted.values())} FROM {source}")
    return TimeFacts(**dict(zip(wanted, found, strict=True)))


def time_facts_sql(given: str, schema: Schema) -> dict[str, str]:
    """Aggregates over a column of times, by the names of the facts that they tell; none where none decides anything."""
    column = quoted(schema.columns.timestamp)
    if given in ZONED_TIME_TYPES:
        return {}
    if given in NAIVE_TIME_TYPES:
        return _range_sql(_naive_sql(column), schema)
    if given in INTEGER_TYPES or given.startswith(FRACTION_TYPES):
        return _units_sql(column, schema)
    text = _TimeText(f"trim(CAST({column} AS VARCHAR))")
    return {
        **_units_sql(text.number, schema),
        "num_numbers": f"count({text.number})",
        "num_zoned": f"count(*) FILTER ({text.has_zone})",
        "num_naive": f"count(*) FILTER ({text.is_naive})",
        **_range_sql(text.naive, schema),
    }


def _units_sql(number: str, schema: Schema) -> dict[str, str]:
    if schema.columns.timestamp_unit:
        return {}
    size = f"abs(CAST({number} AS DOUBLE))"
    return {
        "num_s": f"count(*) FILTER ({size} < 1e11)",
        "num_ms": f"count(*) FILTER ({size} >= 1e11 AND {size} < 1e14)",
        "num_us": f"count(*) FILTER ({size} >= 1e14 AND isfinite({size}))",
    }


def _range_sql(naive: str, schema: Schema) -> dict[str, str]:
    """The range of local microseconds, in which a zone's offsets are needed."""
    return {} if schema.time.time_zone == "UTC" else {"first": f"min({naive})", "last": f"max({naive})"}


def _naive_sql(column: str) -> str:
    return f"epoch_us(CAST({column} AS TIMESTAMP))"


@dataclass(frozen=True)
class _TimeText:
    """SQL of what a text may be: a number, a moment with a zone, a local time."""

    sql: str

    @property
    def number(self) -> str:
        return f"TRY_CAST({self.sql} AS DOUBLE)"

    @property
    def has_zone(self) -> str:
        return self._matches(_ZONE_PATTERN)

    @property
    def is_naive(self) -> str:
        return self._matches(_NAIVE_PATTERN)

    @property
    def zoned(self) -> str:
        compact = f"regexp_replace({self.sql}, '\\s+([+-])', '\\1')"
        return f"CASE WHEN {self.has_zone} THEN epoch_us(TRY_CAST({compact} AS TIMESTAMPTZ)) END"

    @property
    def naive(self) -> str:
        return f"CASE WHEN {self.is_naive} THEN epoch_us(TRY_CAST({self.sql} AS TIMESTAMP)) END"

    def _matches(self, pattern: str) -> str:
        return f"coalesce(regexp_matches({self.sql}, {quoted_text(pattern)}), false)"


def _read_time(facts: TimeFacts, given: str, schema: Schema) -> _Reading:
    column = quoted(schema.columns.timestamp)
    missing = f"{column} IS NULL"
    if given in ZONED_TIME_TYPES:
        return _Reading(f"epoch_us(CAST({column} AS TIMESTAMPTZ))", "moments with a time zone", missing)
    if given in NAIVE_TIME_TYPES:
        return _Reading(_to_utc(facts, _naive_sql(column), schema), f"local time of {schema.time.time_zone}", missing)
    if given in INTEGER_TYPES or given.startswith(FRACTION_TYPES):
        return _read_numbers(facts, column, missing, schema)
    return _read_text(facts, _TimeText(f"trim(CAST({column} AS VARCHAR))"), schema)


def _read_numbers(facts: TimeFacts, number: str, missing: str, schema: Schema) -> _Reading:
    """Epoch numbers: in the unit of the schema, or in the one that most of the column's values suggest."""
    unit = schema.columns.timestamp_unit or facts.unit
    scaled = f"floor(CAST({number} AS DOUBLE) * {_UNITS[unit]})"
    return _Reading(f"TRY_CAST({scaled} AS BIGINT)", f"epoch numbers in {unit}", missing, unit=unit)


def _read_text(facts: TimeFacts, text: _TimeText, schema: Schema) -> _Reading:
    """Numbers, moments with a zone, or local times: whichever most values are; the others are odd."""
    missing = f"coalesce({text.sql}, '') = ''"
    if schema.columns.timestamp_unit or facts.num_numbers > facts.num_zoned + facts.num_naive:
        return _read_numbers(facts, text.number, missing, schema)
    if facts.num_zoned and facts.num_zoned >= facts.num_naive:
        return _Reading(text.zoned, "text with a time zone", missing, f"({text.naive}) IS NOT NULL", NO_ZONE)
    how = f"text in local time of {schema.time.time_zone}"
    odd_zone = f"({text.zoned}) IS NOT NULL" if facts.num_zoned else "false"
    return _Reading(_to_utc(facts, text.naive, schema), how, missing, odd_zone, HAS_ZONE)


def _to_utc(facts: TimeFacts, naive: str, schema: Schema) -> str:
    """SQL that subtracts the zone's offset from local microseconds, as `zoneinfo` knows it for their range."""
    zone = schema.time.time_zone
    if facts.first is None or facts.last is None:
        return naive
    limits = [parse_moment(day, "UTC") for day in (schema.time.earliest, schema.time.latest)]
    first, last = (
        min(max(moment, limits[0]), limits[1]) // (SECONDS_PER_MINUTE * MICROSECONDS)
        for moment in (facts.first, facts.last)
    )
    starts, offsets = wall_offsets(zone, first, last)
    steps = list(
        zip(
            (starts * SECONDS_PER_MINUTE * MICROSECONDS).tolist(),
            (offsets * SECONDS_PER_MINUTE * MICROSECONDS).tolist(),
            strict=True,
        )
    )
    return f"({naive}) - {stepwise(naive, steps)}"


def stepwise(sql: str, steps: Sequence[tuple[int, int]]) -> str:
    """SQL of a step function, as a balanced tree of comparisons.

    Args:
        sql: the argument.
        steps: (argument from which on it holds, value), ascending; the first holds below too.
    """
    if len(steps) == 1:
        return str(steps[0][1])
    middle = len(steps) // 2
    low, high = stepwise(sql, steps[:middle]), stepwise(sql, steps[middle:])
    return f"CASE WHEN {sql} < {steps[middle][0]} THEN {low} ELSE {high} END"


def quarantine_counts(counted: Iterable[tuple[Any, ...]], num_malformed: int) -> dict[str, int]:
    """Rows set aside, by reason, the most frequent first; what is counted begins with (reason, count)."""
    counts = {MALFORMED: num_malformed} if num_malformed else {}
    for reason, count, *_ in counted:
        if reason is not None:
            counts[reason] = counts.get(reason, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def quarantine_examples(
    connection: duckdb.DuckDBPyConnection, source: EventSource, clean: CleanEvents
) -> dict[str, tuple[str, ...]]:
    """A few rows of each reason; the first ones by their text, so that their order in the files doesn't matter."""
    return with_malformed(find_examples(connection, clean), source)


def find_examples(connection: duckdb.DuckDBPyConnection, clean: CleanEvents) -> dict[str, tuple[str, ...]]:
    """The same without malformed rows."""
    rows = connection.execute(
        f"SELECT reason, min(raw, {NUM_EXAMPLES}) FROM ({clean.sql}) WHERE reason IS NOT NULL GROUP BY reason"
    ).fetchall()
    return {reason: tuple(texts) for reason, texts in rows}


def with_malformed(examples: Mapping[str, tuple[str, ...]], source: EventSource) -> dict[str, tuple[str, ...]]:
    """Examples of the log's malformed rows beside others."""
    return {**examples, **({MALFORMED: source.malformed_examples} if source.num_malformed else {})}
