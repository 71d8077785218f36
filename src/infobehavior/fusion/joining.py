"""Joins tables to examples, point in time: of an example's entity, the last row that was there at its moment."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infobehavior.artefacts import DEFINITION_FILE, refuse_interrupted
from infobehavior.data.clock import local_date
from infobehavior.data.events import (
    ZONED_TIME_TYPES,
    EventSource,
    connect,
    find_files,
    only_row,
    open_events,
    quoted,
    readable,
)
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE
from infobehavior.data.tables import column_moments
from infobehavior.errors import InputError
from infobehavior.fusion.config import ExampleColumns, Group
from infobehavior.fusion.zones import require_zone

KEYS = ("entity_id", "as_of")
UNASKED = (*KEYS, "ds", "model_id")
"""Columns of a table that aren't taken for features, unless they are named."""
EMBEDDING = "embedding"
MICROSECONDS_PER_DAY = 24 * 60 * MICROSECONDS_PER_MINUTE
MOST_DAYS = 10_000 * 366
"""No two moments are so far apart."""
Ages = NDArray[np.int64]
DAY_FOLDER = re.compile(r"ds=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class Keys:
    """Whose row is asked for, and of when.

    Attributes:
        entity: of each example, as text; null if there is none.
        moment: of each example, microseconds since the epoch.
    """

    entity: pa.Array
    moment: NDArray[np.int64]


def joined(
    connection: duckdb.DuckDBPyConnection, keys: Keys, group: Group, name: str, examples: ExampleColumns
) -> tuple[pa.Table, Ages]:
    """The columns of a group for each example, null where the table has no row of the entity in time.

    Taken is the row with the last `as_of` that is at or before the example's moment, or `min_age_hours` before it; rows
    at one `as_of` hold what was known until then. Entities are compared as text.

    Args:
        connection: from `connect`.
        keys: of the examples.
        group: has a table.
        name: of the group, for messages.
        examples: names the label, which no group may have, and the time zone of an `as_of` without one.

    Returns:
        The columns, in the order of the examples, and how old the rows of those that have one are, in microseconds.

    Raises:
        InputError: the table can't be read, lacks a column, has several rows of an entity at one moment, a key is
            null, or nothing says in which time zone an `as_of` is.
    """
    assert group.table is not None
    source = _open(connection, group, keys, examples.zone)
    columns = _columns(source, group, name)
    if examples.label in columns:
        raise InputError(
            f"{source.description} has the label {examples.label!r} among the columns of group {name}; name its columns"
        )
    with readable(str(group.table)):
        _refuse_nulls(connection, source)
        moments = _moments(connection, source, examples.time_zone)
        connection.register("asked", _asked(keys, group))
        found = connection.sql(_text(source, columns, moments, group)).to_arrow_table()
        connection.unregister("asked")
    if len(found) > len(keys.moment):
        repeated = _first_repeated(found["row"].to_numpy())
        raise InputError(
            f"{group.table} has several rows of entity {keys.entity[repeated]} at one as_of; keep one of each"
        )
    values = found.select([f"value_{place}" for place in range(len(columns))]).rename_columns(columns)
    return values, found["age"].drop_null().to_numpy()


def no_match(keys: Keys, group: Group, name: str, time_zone: str) -> str:
    """Why no row of a group's table is joined to any example."""
    num = len(keys.moment)
    entities = pa.table({"entity": keys.entity}).filter(keys.entity.is_valid())
    what = f"group {name}: no row of {group.table} is joined to any of {num} examples"
    if len(entities) == 0:
        return f"{what}: all of them are without an entity"
    with connect() as connection, readable(str(group.table)):
        source = _open(connection, group, Keys(keys.entity.slice(0, 0), keys.moment[:0]), time_zone)
        connection.register("asked", entities)
        there = f"(SELECT DISTINCT entity_id::VARCHAR AS entity FROM {source.sql})"
        ours, theirs, shared = only_row(
            connection,
            f"SELECT (SELECT min(entity) FROM asked), (SELECT min(entity) FROM {there}), "
            f"(SELECT min(entity) FROM asked SEMI JOIN {there} AS there USING (entity))",
        )
        if shared is not None:
            first, last = only_row(connection, f"SELECT min(as_of), max(as_of) FROM {source.sql}")
            return (
                f"{what}: entities such as {shared!r} are in both, but its rows, of {first} to {last}, are later than "
                "the examples or too old (see max_age_days and min_age_hours)"
            )
        alike = only_row(
            connection,
            f"SELECT min(asked.entity), min(there.entity) FROM asked JOIN {there} AS there "
            "ON TRY_CAST(asked.entity AS DOUBLE) = TRY_CAST(there.entity AS DOUBLE)",
        )
    if alike[0] is not None:
        ours, theirs = alike
    cause = " (one number, written in two ways: write both as whole numbers)" if alike[0] is not None else ""
    return f"{what}: no entity is in both; the examples have some such as {ours!r}, the table such as {theirs!r}{cause}"


def ages_in_days(ages: Mapping[str, Ages]) -> dict[str, dict[str, float]]:
    """Median and largest age of what is joined, by group; one of which nothing is joined isn't among them."""
    return {
        name: {
            "median": float(np.median(of)) / MICROSECONDS_PER_DAY,
            "largest": float(of.max()) / MICROSECONDS_PER_DAY,
        }
        for name, of in ages.items()
        if len(of)
    }


def age_lines(
    days: Mapping[str, Mapping[str, float]], trained: Mapping[str, Mapping[str, float]] | None = None
) -> list[str]:
    """What is told of ages, beside those of the training."""
    lines = []
    for name, of in days.items():
        line = f"rows of {name} are {of['median']:.1f} days old (median), {of['largest']:.1f} at most"
        if known := (trained or {}).get(name):
            line += f"; in the training {known['median']:.1f} and {known['largest']:.1f}"
        lines.append(line)
    return lines


def _refuse_nulls(connection: duckdb.DuckDBPyConnection, source: EventSource) -> None:
    """Refuse rows of which nobody can say whose they are or from when on they are known."""
    counted = ", ".join(f"count(*) - count({column})" for column in KEYS)
    for column, count in zip(KEYS, only_row(connection, f"SELECT {counted} FROM {source.sql}"), strict=True):
        if count:
            raise InputError(
                f"{source.description}: {column} is null in {count} of {source.num_rows} rows; fill or remove them"
            )


def _open(connection: duckdb.DuckDBPyConnection, group: Group, keys: Keys, time_zone: str) -> EventSource:
    table = group.table
    assert table is not None
    if not table.exists():
        raise InputError(f"there is no table {table}")
    if (table / DEFINITION_FILE).exists():
        refuse_interrupted(table)
    files = find_files(table)
    if (table / DEFINITION_FILE).exists():  # one of ours, whose days are those of as_of
        files = _files_in_time(files, keys, group.max_age_days, time_zone)
    source = open_events(connection, table, files)
    for column in KEYS:
        if column not in source.columns:
            raise InputError(f"{table} has no column {column!r}; it has {', '.join(source.columns)}")
    if source.num_malformed:
        raise InputError(f"{table} has {source.num_malformed} rows that can't be read; mend them")
    return source


def _files_in_time(files: list[Path], keys: Keys, max_age_days: float | None, time_zone: str) -> list[Path]:
    """Leave out partitions of days that no example can need, in whatever time zone; all if none would be left."""
    if len(keys.moment) == 0:
        return files
    last = local_date(int(keys.moment.max()) // MICROSECONDS_PER_MINUTE, time_zone) + timedelta(days=2)
    first = date.min
    if max_age_days is not None:
        first = local_date(int(keys.moment.min()) // MICROSECONDS_PER_MINUTE, time_zone)
        first -= timedelta(days=min(int(max_age_days) + 4, (first - date.min).days))
    needed = [file for file in files if (day := _day_of(file)) is None or first <= day <= last]
    return needed or files


def _day_of(file: Path) -> date | None:
    matched = DAY_FOLDER.fullmatch(file.parent.name)
    try:
        return date.fromisoformat(matched[1]) if matched else None
    except ValueError:
        return None


def _columns(source: EventSource, group: Group, name: str) -> list[str]:
    """The columns that are asked for, or all that may be features."""
    columns = list(group.columns)
    if not columns:
        columns = [EMBEDDING] if group.kind == "representation" else [c for c in source.columns if c not in UNASKED]
    if missing := [column for column in columns if column not in source.columns]:
        raise InputError(
            f"{source.description} has no column {missing[0]!r} for group {name}; it has {', '.join(source.columns)}"
        )
    for column in (*KEYS, *columns):
        if column in source.type_conflicts:
            raise InputError(source.type_conflicts[column])
    return columns


def _moments(connection: duckdb.DuckDBPyConnection, source: EventSource, time_zone: str | None) -> str:
    """SQL of `as_of` in microseconds since the epoch.

    A local time that clocks show twice is the later one here, and the earlier one in examples: never is a row joined
    that came after its example.
    """
    if source.columns["as_of"] in ZONED_TIME_TYPES:
        return "epoch_us(source.as_of)"
    require_zone(connection, source, "as_of", time_zone)
    distinct = connection.sql(f"SELECT DISTINCT as_of FROM {source.sql} WHERE as_of IS NOT NULL").to_arrow_table()
    moments = column_moments(distinct["as_of"], time_zone or "UTC", source.description, latest=True)
    connection.register("moments_of_table", distinct.append_column("moment", moments))
    return "(SELECT m.moment FROM moments_of_table AS m WHERE m.as_of = source.as_of)"


def _asked(keys: Keys, group: Group) -> pa.Table:
    """Whose row each example asks for, and until which `as_of` it was there at the example's moment."""
    until = keys.moment - round(group.min_age_hours * MICROSECONDS_PER_DAY / 24)
    columns = {"row": np.arange(len(until)), "entity": keys.entity, "moment": keys.moment, "until": until}
    return pa.table(columns)


def _text(source: EventSource, columns: Sequence[str], moment: str, group: Group) -> str:
    """First only keys are joined, as of each moment; then the rows that were found bring their columns."""
    oldest = "true"
    if group.max_age_days is not None:
        max_age = int(min(group.max_age_days, MOST_DAYS) * MICROSECONDS_PER_DAY)
        oldest = f"latest.moment - latest.as_of <= {max_age}"
    wanted = ", ".join(f"found.value_{place}" for place in range(len(columns)))
    selected = ", ".join(f"source.{quoted(column)} AS value_{place}" for place, column in enumerate(columns))
    return f"""
        WITH entities AS (SELECT DISTINCT entity FROM asked WHERE entity IS NOT NULL),
        there AS (
          SELECT source.entity_id::VARCHAR AS entity, {moment} AS as_of FROM {source.sql} AS source
          WHERE source.as_of IS NOT NULL AND source.entity_id::VARCHAR IN (FROM entities)
        ),
        latest AS (
          SELECT asked.row, asked.entity, there.as_of, asked.moment
          FROM asked ASOF JOIN there ON asked.entity = there.entity AND asked.until >= there.as_of
        ),
        found AS (
          SELECT latest.row, latest.moment - latest.as_of AS age, {selected}
          FROM {source.sql} AS source JOIN latest
          ON source.entity_id::VARCHAR = latest.entity AND {moment} = latest.as_of
          WHERE {oldest}
        )
        SELECT asked.row, found.age, {wanted}
        FROM asked LEFT JOIN found ON asked.row = found.row ORDER BY asked.row"""


def _first_repeated(rows: NDArray[Any]) -> int:
    return int(rows[1:][rows[1:] == rows[:-1]][0])
