import importlib.util
from datetime import UTC, datetime

import duckdb
import pytest

from infobehavior.apps.flights import write_flights
from infobehavior.errors import InputError


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_flights(tmp_path_factory.mktemp("it's a folder"))


def rows(query, *paths):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query, [str(path) for path in paths]).fetchall()


def test_sizes(tables):
    count = "SELECT count(*), count(DISTINCT entity_id) FROM read_parquet(?)"
    assert rows(count, tables.events) == [(658_183, 3_423)]
    assert rows(count, tables.labels) == [(2_721, 2_721)]


def test_columns(tables):
    describe = "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))"
    assert rows(describe, tables.events) == [
        ("entity_id", "VARCHAR"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("behavior", "VARCHAR"),
        ("location", "VARCHAR"),
        ("outcome", "VARCHAR"),
        ("flight", "INTEGER"),
        ("distance", "INTEGER"),
    ]


def test_behaviors_and_what_is_a_failure(tables):
    query = "SELECT behavior, outcome, count(*) FROM read_parquet(?) GROUP BY ALL ORDER BY ALL"
    assert rows(query, tables.events) == [
        ("arr_early", "success", 158_076),
        ("arr_late15", "failure", 49_496),
        ("arr_late60", "failure", 27_609),
        ("arr_ontime", "success", 89_908),
        ("cancelled", "failure", 5_687),
        ("dep_early", "success", 69_165),
        ("dep_late15", "failure", 43_909),
        ("dep_late60", "failure", 26_390),
        ("dep_ontime", "success", 186_784),
        ("diverted", "failure", 1_159),
    ]


def test_moments_are_utc_in_winter_and_in_summer(tables):
    """UA 1545 left Newark on 1 January at 05:17 EST; US 1431 on 4 July at 04:54 EDT, and flew 88 minutes."""
    query = """
        SELECT timestamp, behavior, location FROM read_parquet(?)
        WHERE flight = 1545 AND timestamp < TIMESTAMPTZ '2013-01-02 00:00:00+00'
           OR entity_id = 'N172US' AND timestamp BETWEEN TIMESTAMPTZ '2013-07-04 00:00:00+00'
              AND TIMESTAMPTZ '2013-07-04 12:00:00+00'
        ORDER BY timestamp
    """
    assert rows(query, tables.events) == [
        (datetime(2013, 1, 1, 10, 17, tzinfo=UTC), "dep_ontime", "EWR"),
        (datetime(2013, 1, 1, 14, 14, tzinfo=UTC), "arr_ontime", "IAH"),
        (datetime(2013, 7, 4, 8, 54, tzinfo=UTC), "dep_early", "EWR"),
        (datetime(2013, 7, 4, 10, 32, tzinfo=UTC), "arr_ontime", "CLT"),
    ]


def test_labels_follow_the_year_of_construction(tables):
    query = (
        "SELECT label_old, count(*), min(year_built), max(year_built) FROM read_parquet(?) GROUP BY ALL ORDER BY ALL"
    )
    assert rows(query, tables.labels) == [(0, 1_552, 2001, 2013), (1, 1_169, 1956, 2000)]


def test_the_same_bytes_each_time(tables, tmp_path):
    again = write_flights(tmp_path)
    assert again.events.read_bytes() == tables.events.read_bytes()
    assert again.labels.read_bytes() == tables.labels.read_bytes()


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'infobehavior\[demo\]'"):
        write_flights(tmp_path)
