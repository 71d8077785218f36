"""Moments that don't say all, of examples and of joined tables: those without a time zone, and days without a time"""

from collections.abc import Mapping
from pathlib import Path

import duckdb

from infobehavior.artefacts import DEFINITION_FILE
from infobehavior.data.events import (
    NAIVE_TIME_TYPES,
    EventSource,
    connect,
    only_row,
    open_events,
    quoted,
    quoted_text,
    readable,
)
from infobehavior.errors import InputError
from infobehavior.fusion.config import Group

HOURS_PER_DAY = 24
LETTERS_OF_A_DAY = len("2024-03-31")

MIDNIGHT = "^[0-9]{4}-?[0-9]{2}-?[0-9]{2}[Tt ]00(:?00){0,2}([.,]0+)?$"
ENDS_WITH_ZONE = "[Tt :][0-9:.,]+ *([Zz]|[+-][0-9]{2}(:?[0-9]{2}){0,2})$"


def require_zone(
    connection: duckdb.DuckDBPyConnection, source: EventSource, column: str, time_zone: str | None, where: str = "true"
) -> None:
    """Refuse to guess what moments without a zone mean: by a wrong one, what came later could be joined.

    Whether a column holds moments at all, who reads them has to tell.

    Args:
        connection: from `connect`.
        source: has the column.
        column: of moments.
        time_zone: of those without one, if the configuration says so.
        where: SQL of the rows that count.

    Raises:
        InputError: see above.
    """
    kind = source.columns[column]
    if time_zone is not None or kind not in NAIVE_TIME_TYPES | {"VARCHAR"}:
        return
    what = f"is {kind}, without a time zone"
    if kind == "VARCHAR":
        moment = quoted(column)
        without = f"{moment} IS NOT NULL AND NOT regexp_matches(trim({moment}), {quoted_text(ENDS_WITH_ZONE)})"
        sql = f"SELECT count(*), min({moment}) FROM {source.sql} WHERE {where} AND {without}"
        num_without, first = only_row(connection, sql)
        if num_without == 0:
            return
        what = f"has {num_without} of {source.num_rows} times without a time zone, such as {first!r}"
    raise InputError(f"{source.description}: {column} {what}; give time_zone in [examples], such as Asia/Shanghai")


def date_lines(groups: Mapping[str, Group], time_zone: str) -> list[str]:
    """A line for each joined table whose `as_of` are days: their beginning is meant, and often their end is held.

    Args:
        groups: by name.
        time_zone: of the days.
    """
    return [
        f"as_of of {name} are dates: each counts as the beginning of that day in {time_zone}{_advice(group)}"
        for name, group in groups.items()
        if group.table and _has_dates(group.table)
    ]


def _advice(group: Group) -> str:
    if group.min_age_hours >= HOURS_PER_DAY:
        return ""
    return f"; if rows hold what came later on that day, set min_age_hours = {HOURS_PER_DAY}"


def _has_dates(table: Path) -> bool:
    """Whether a table's moments are days, or midnights without a zone, in whatever type; those of our tables have one.

    Of a table that can't be joined for want of an `as_of` this says nothing.
    """
    if (table / DEFINITION_FILE).exists():
        return False
    with connect() as connection, readable(str(table)):
        source = open_events(connection, table)
        kind = source.columns.get("as_of")
        if kind == "VARCHAR":
            is_day = (
                f"length(trim(as_of)) <= {LETTERS_OF_A_DAY} OR regexp_matches(trim(as_of), {quoted_text(MIDNIGHT)})"
            )
        elif kind in NAIVE_TIME_TYPES:
            is_day = "as_of = date_trunc('day', as_of)"
        else:
            return False
        return bool(only_row(connection, f"SELECT bool_and({is_day}) FROM {source.sql}")[0])
