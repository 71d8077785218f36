"""Moments without a time zone, of examples and of joined tables: nobody guesses which one was meant"""

import duckdb

from infobehavior.data.events import ZONED_TIME_TYPES, EventSource, only_row, quoted, quoted_text
from infobehavior.errors import InputError

ENDS_WITH_ZONE = "[T :][0-9:.,]+ *(Z|[+-][0-9]{2}(:?[0-9]{2}){0,2})$"


def require_zone(
    connection: duckdb.DuckDBPyConnection, source: EventSource, column: str, time_zone: str | None, where: str = "true"
) -> None:
    """Refuse to guess what moments without a zone mean: by a wrong one, what came later could be joined.

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
    if time_zone is not None or kind in ZONED_TIME_TYPES:
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
