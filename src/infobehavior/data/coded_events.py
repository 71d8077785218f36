"""Reads the usable events of some days as numbers.

The SQL below is, with that of `cleaning`, the definition of an event. It knows UTC epoch minutes only; local days come
from `zoneinfo` as numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from infobehavior.data.cleaning import CleanEvents, StagedEvents
from infobehavior.data.clock import MICROSECONDS, SECONDS_PER_MINUTE
from infobehavior.data.events import only_row
from infobehavior.data.schema import SET_SEPARATOR, Schema
from infobehavior.data.tokens import CodedEvents, Members

MAX_NUMBERED_VALUES = 65_536
"""A column with at most so many values has them numbered once; of others each chunk of the log brings its own."""

NUM_SAMPLED = 1_000_000
"""Events that tell whether a column has more values than that, before all are looked at."""

_MICROSECONDS_PER_MINUTE = SECONDS_PER_MINUTE * MICROSECONDS


@dataclass(frozen=True)
class SetColumn:
    """A column whose values are kept as a set per minute.

    Attributes:
        name: in the minutes.
        column: in the cleaned events.
        values: all its values, ascending; None if they are many. They are a type of DuckDB's, called like `column`.
    """

    name: str
    column: str
    values: tuple[str, ...] | None

    @property
    def sql(self) -> str:
        """The value's number, from 1 (null if there is none), or the value itself."""
        return self.column if self.values is None else _number(f"{self.column}_text", self.column)

    def members(self, column: pa.ChunkedArray) -> Members:
        """What `sql` gave."""
        if self.values is None:
            return Members.of_texts(column.combine_chunks())
        return Members(column.to_numpy(), pa.array(self.values, pa.string()))


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


def read_coded_events(
    connection: duckdb.DuckDBPyConnection,
    events: CleanEvents | StagedEvents,
    sets: Sequence[SetColumn],
    first: int,
    end: int,
    share: str = "true",
) -> CodedEvents:
    """The events of the UTC epoch minutes [first, end).

    Args:
        connection: where the values were numbered.
        events: the log.
        sets: from `number_values`.
        first: the first minute.
        end: the minute after the last.
        share: SQL that says which of the events.
    """
    inside = events.between(first * SECONDS_PER_MINUTE, end * SECONDS_PER_MINUTE)
    # No event is before the first minute, so that a plain division rounds down.
    minute = f"{first} + (microsecond - {first * _MICROSECONDS_PER_MINUTE}) // {_MICROSECONDS_PER_MINUTE}"
    members = "".join(f", {column.sql} AS {column.column}" for column in sets)
    table = connection.sql(
        f"SELECT entity_id, ({minute})::INTEGER AS minute, {_number('behavior', 'behavior')} AS code, "
        f"failed::UTINYINT AS failed{members} FROM ({inside}) WHERE {share}"
    ).to_arrow_table()
    minute, code, failed = (table[name].to_numpy() for name in ("minute", "code", "failed"))
    return CodedEvents(
        entity_id=table["entity_id"].combine_chunks(),
        minute=minute,
        code=code,
        failed=failed,
        members={column.name: column.members(table[column.column]) for column in sets},
    )
