"""Reads the usable events of some days as numbers, sorted.

The SQL below is, with that of `cleaning`, the definition of an event. It knows UTC epoch minutes only; local days come
from `zoneinfo` as numbers.
"""

from collections.abc import Iterable, Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from infobehavior.data.cleaning import CleanEvents, StagedEvents
from infobehavior.data.clock import MICROSECONDS, MINUTES_PER_DAY, SECONDS_PER_MINUTE
from infobehavior.data.events import only_row
from infobehavior.data.schema import SET_SEPARATOR, Schema
from infobehavior.data.tokens import Layout, SetColumn

MAX_NUMBERED_VALUES = 65_536
"""A column with at most so many values has them numbered once; of others each batch brings its own."""

NUM_SAMPLED = 1_000_000
"""Events that tell whether a column has more values than that, before all are looked at."""

EVENTS_PER_BATCH = 131_072
"""Sorted events are folded so many at a time, while they are in the processor's cache."""

_MICROSECONDS_PER_MINUTE = SECONDS_PER_MINUTE * MICROSECONDS


def number_values(
    connection: duckdb.DuckDBPyConnection, events: CleanEvents | StagedEvents, schema: Schema
) -> list[SetColumn]:
    """Number the behaviors of the schema and the values of the sets, which DuckDB then looks up once a value.

    It evaluates a function once a value where a column is stored with a dictionary, which a join doesn't have.
    """
    _make_type(connection, "behavior", schema.behavior_names)
    names = {"location": "location"} if schema.columns.location else {}
    names |= {f"extra_{i}": name for i, name in enumerate(schema.columns.extra)}
    return [SetColumn(name, column, _number_values(connection, events, column)) for column, name in names.items()]


def _number_values(
    connection: duckdb.DuckDBPyConnection, events: CleanEvents | StagedEvents, column: str
) -> tuple[str, ...] | None:
    texts = f"SELECT {column}_text FROM ({events.sql})"
    (num_sampled,) = only_row(connection, f"SELECT count(DISTINCT {column}_text) FROM ({texts} LIMIT {NUM_SAMPLED})")
    if num_sampled > MAX_NUMBERED_VALUES:
        return None
    rows = connection.execute(
        f"SELECT DISTINCT {column}_text FROM ({texts}) LIMIT {MAX_NUMBERED_VALUES + 1}"
    ).fetchall()
    if len(rows) > MAX_NUMBERED_VALUES:
        return None
    values = tuple(sorted(value for (value,) in rows if value))
    _make_type(connection, column, values)
    return values


def _make_type(connection: duckdb.DuckDBPyConnection, name: str, values: Iterable[str]) -> None:
    """An empty type isn't allowed: it has a value that no text of an event equals."""
    listed = list(values) or [SET_SEPARATOR]
    connection.execute(f"CREATE TEMP TABLE {name}_listed (value VARCHAR)")
    connection.execute(f"INSERT INTO {name}_listed SELECT unnest(?::VARCHAR[])", [listed])
    connection.execute(f"CREATE TYPE {name}_values AS ENUM (SELECT value FROM {name}_listed ORDER BY rowid)")
    connection.execute(f"DROP TABLE {name}_listed")


def _number(text: str, name: str) -> str:
    return f"coalesce(enum_code(TRY_CAST({text} AS {name}_values))::INTEGER + 1, 0)"


def read_sorted_events(
    connection: duckdb.DuckDBPyConnection,
    events: CleanEvents | StagedEvents,
    layout: Layout,
    day_starts: Sequence[int],
) -> Iterator[pa.RecordBatch]:
    """The usable events of some consecutive days, sorted: by day, entity, minute, behavior and so on, see `Layout`.

    DuckDB sorts them, and spills what doesn't fit in its memory.

    Args:
        connection: where the values were numbered.
        events: the log.
        layout: of the events.
        day_starts: UTC epoch minute at which each day begins, and the end of the last one.

    Yields:
        Events with the columns ``day`` (from 0), ``entity_id``, ``packed``, and those of `layout.others`.
    """
    first, end = day_starts[0], day_starts[-1]
    inside = events.between(first * SECONDS_PER_MINUTE, end * SECONDS_PER_MINUTE)
    # No event is before the first minute, so that a plain division rounds down.
    minute = f"(microsecond - ({first * _MICROSECONDS_PER_MINUTE})) // {_MICROSECONDS_PER_MINUTE}"
    member = _value(layout.beside) if layout.beside else "0"
    packed = layout.packed_sql(minute, _number("behavior", "behavior"), "failed::INTEGER", member)
    num_bits = (end - first).bit_length() + layout.bits_below_minute
    day, key = ("0", "") if len(day_starts) == 2 else (day_sql(minute, day_starts), "day, ")
    others = "".join(f", {_value(column)} AS {column.column}" for column in layout.others)
    result = connection.sql(
        f"SELECT ({day})::INTEGER AS day, entity_id, ({packed})::{'INTEGER' if num_bits < 32 else 'BIGINT'} AS packed"
        f"{others} FROM ({inside}) ORDER BY {key}entity_id, packed"
    )
    yield from arrow_batches(result, EVENTS_PER_BATCH)


def arrow_batches(result: duckdb.DuckDBPyRelation, num_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a query, so many at a time.

    Raises:
        duckdb.Error: it failed.
    """
    with result.to_arrow_reader(num_rows) as batches:
        try:
            yield from batches
        except (OSError, pa.ArrowException) as error:  # as which pyarrow passes DuckDB's errors on
            kind = duckdb.OutOfMemoryException if "Out of Memory" in str(error) else duckdb.Error
            raise kind(str(error)) from error


def _value(column: SetColumn) -> str:
    """SQL of an event's value: its number, or itself."""
    return column.column if column.values is None else _number(f"{column.column}_text", column.column)


def day_sql(minute: str, day_starts: Sequence[int]) -> str:
    """SQL of an event's day, from 0, by its minute since the first one begins.

    One division where all days have 1,440 minutes, and one more after each that hasn't.
    """
    lengths = np.diff(day_starts)
    firsts = [0, *(np.flatnonzero(lengths[:-1] != MINUTES_PER_DAY) + 1).tolist()]
    ends = [*firsts[1:], len(lengths)]
    cases = [
        f"WHEN {minute} >= {day_starts[first] - day_starts[0]} THEN {first} "
        f"+ least(({minute} - {day_starts[first] - day_starts[0]}) // {MINUTES_PER_DAY}, {end - first - 1})"
        for first, end in zip(firsts, ends, strict=True)
    ]
    return f"CASE {' '.join(reversed(cases))} END"
