from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.moments import (
    Moments,
    as_moments,
    cut_at,
    day_before,
    distinct_moments,
    end_of_day,
    known_until,
    read_moments,
)
from infobehavior.data.store import load_store
from infobehavior.data.windows import Windows
from infobehavior.errors import InputError
from small_minutes import (
    FIRST_DAY,
    TIME_ZONE,
    Event,
    epoch_minute,
    plain_minutes,
    random_events,
    small_minutes,
    small_schema,
    write_moments,
)

ZONE = ZoneInfo(TIME_ZONE)
SECOND = 1_000_000


def microseconds(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def pairs(moments):
    return list(zip(moments.entity_id.tolist(), moments.as_of.tolist(), strict=True))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Minutes whose entities are integers."""
    events = [Event(int(event.who.split()[1]), event.at, event.what) for event in random_events(seed=2)]
    return small_minutes(tmp_path_factory.mktemp("numbered"), events)


@pytest.mark.parametrize(
    ("day", "hours", "end"),
    [
        (date(2024, 3, 30), 24, datetime(2024, 3, 30, 23, tzinfo=UTC)),
        ("2024-03-31", 23, datetime(2024, 3, 31, 22, tzinfo=UTC)),
        ("2024-10-27", 25, datetime(2024, 10, 27, 23, tzinfo=UTC)),
    ],
)
def test_a_day_ends_at_the_local_midnight_after_it(day, hours, end):
    schema = small_schema()
    assert end_of_day(day, schema) == epoch_minute(end)
    before = date.fromisoformat(str(day)) - timedelta(days=1)
    assert end_of_day(day, schema) - end_of_day(before, schema) == hours * 60
    assert day_before(microseconds(end), schema) == date.fromisoformat(str(day))
    assert day_before(microseconds(end) + 1, schema) == date.fromisoformat(str(day)) + timedelta(days=1)


@pytest.mark.parametrize("day", ["2024-02-30", "yesterday", " ", "2024-03-31T00:00:00", "9999-12-31"])
def test_what_is_not_a_day(day):
    with pytest.raises(InputError, match=day):
        end_of_day(day, small_schema())


@pytest.mark.parametrize(
    ("as_of", "last"),
    [
        (timedelta(minutes=1), True),
        (timedelta(seconds=59), False),
        (timedelta(microseconds=1), False),
        (timedelta(0), False),
        (timedelta(seconds=119, microseconds=999_999), True),
    ],
)
def test_a_minute_that_a_moment_cuts_in_two_is_left_out_whole(minutes, as_of, last):
    """`last` says whether the window of `as_of` after the begin of a minute holds that minute."""
    store = load_store(minutes)
    minute = int(store.minute[5])
    begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    moments = Moments(store.entities[:1], np.array([microseconds(begin + as_of)]))
    windows = Windows.cut(store, np.array([0]), moments.end, 30 * 1_440)
    assert (minute in store.minute[windows.first_row[0] : windows.end_row[0]]) == last


INSTANT = datetime(2024, 4, 1, 22, tzinfo=UTC)
MIDNIGHT = datetime(2024, 4, 2)


@pytest.mark.parametrize(
    "column",
    [
        [INSTANT],
        [INSTANT.astimezone(timezone(timedelta(hours=-7)))],
        [MIDNIGHT],
        [MIDNIGHT.date()],
        ["2024-04-02"],
        ["2024-04-02T00:00:00"],
        ["2024-04-02 00:00"],
        ["2024-04-01T22:00:00Z"],
        ["2024-04-02T05:30:00+07:30"],
        pa.array([MIDNIGHT], pa.timestamp("ns")),
        pa.array([MIDNIGHT], pa.timestamp("s")),
        pa.array([INSTANT], pa.timestamp("ms", "Asia/Tokyo")),
    ],
)
def test_ways_to_write_a_moment(minutes, tmp_path, column):
    """Without a zone it is local time, and a date is its local midnight."""
    path = tmp_path / "moments.parquet"
    pq.write_table(pa.table({"entity_id": ["user 1"], "as_of": column, "label": [1]}), path)
    assert pairs(read_moments(path, minutes)) == [("user 1", microseconds(INSTANT))]


@pytest.mark.parametrize("name", ["moments.csv", "moments.csv.gz", "moments.parquet", "it's a table.csv"])
def test_parquet_and_csv(minutes, tmp_path, name):
    """Entities like 007 stay text in a CSV."""
    text = "('007', '2024-04-02', 1), ('user, 1', '2024-04-01T22:00:00+00:00', 0), ('é', '2024-04-01 13:30:15.25', 1)"
    copied = str(tmp_path / name).replace("'", "''")
    duckdb.execute(f"COPY (SELECT * FROM (VALUES {text}) AS t(entity_id, as_of, risky)) TO '{copied}'")
    assert pairs(read_moments(tmp_path / name, minutes)) == [
        ("007", microseconds(INSTANT)),
        ("user, 1", microseconds(INSTANT)),
        ("é", microseconds(datetime(2024, 4, 1, 13, 30, 15, 250_000, tzinfo=ZONE))),
    ]


def test_the_time_zone_of_the_process_changes_nothing(minutes, tmp_path, monkeypatch):
    path = write_moments([("user 1", MIDNIGHT)], tmp_path / "moments.parquet")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    assert read_moments(path, minutes).as_of.tolist() == [microseconds(INSTANT)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3))))
def test_each_pair_is_kept_once_in_order(rows):
    entity_id = np.array([who for who, _ in rows], dtype=object)
    moments = distinct_moments(entity_id, np.array([moment for _, moment in rows], dtype=np.int64))
    assert pairs(moments) == sorted(set(rows))
    assert len(moments) == len(set(rows))


def test_duplicate_rows_of_a_table(minutes, tmp_path):
    rows = [("user 2", MIDNIGHT), ("user 1", MIDNIGHT), ("user 2", MIDNIGHT), ("user 2", datetime(2024, 3, 30))]
    moments = read_moments(write_moments(rows, tmp_path / "moments.parquet"), minutes)
    assert [who for who, _ in pairs(moments)] == ["user 1", "user 2", "user 2"]
    assert moments.as_of[1] < moments.as_of[2]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([3, 1], [1, 3]), (["3", "1"], [1, 3]), ([3.0, 1.0], [1, 3]), (pa.array([3, 1], pa.uint8()), [1, 3])],
)
def test_labels_of_another_type_than_integer_entities(numbered, tmp_path, ids, expected):
    path = tmp_path / "moments.parquet"
    pq.write_table(pa.table({"entity_id": ids, "as_of": [MIDNIGHT] * 2}), path)
    moments = read_moments(path, numbered)
    assert moments.entity_id.dtype == np.int64
    assert moments.entity_id.tolist() == expected


def test_integer_labels_of_text_entities(minutes, tmp_path):
    path = write_moments([(10, MIDNIGHT), (9, MIDNIGHT)], tmp_path / "moments.parquet")
    assert read_moments(path, minutes).entity_id.tolist() == ["10", "9"]


@pytest.mark.parametrize("ids", [["user 1"], [1.5], [""]])
def test_entities_that_are_no_integers(numbered, tmp_path, ids):
    path = write_moments([(who, MIDNIGHT) for who in ids], tmp_path / "moments.parquet")
    with pytest.raises(InputError, match=r"moments.parquet: entity_id is an integer in the minutes, but here: "):
        read_moments(path, numbered)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"entity_id": ["a"], "moment": [1]}, "has no column as_of; it has entity_id, moment"),
        ({"who": ["a"], "moment": [1]}, "has no column entity_id and as_of; it has who, moment"),
        ({"entity_id": ["a", "b"], "as_of": [None, MIDNIGHT]}, "as_of is null in 1 of 2 rows"),
        ({"entity_id": ["a", None, None], "as_of": [MIDNIGHT] * 3}, "entity_id is null in 2 of 3 rows"),
        ({"entity_id": ["a", "b"], "as_of": ["2024-04-02", "soon"]}, "as_of can't be read as a moment: 'soon' is not"),
        (
            {"entity_id": ["a"], "as_of": [20_240_402]},
            "as_of can't be read as a moment: expected a date, a time or text, got an integer",
        ),
        ({"entity_id": ["a"], "as_of": ["9999-12-31T23:59:59-10:00"]}, "as_of can't be read as a moment"),
        ({"entity_id": ["a"], "as_of": ["9999-12-31"]}, "as_of 9999-12-31 is outside of the years 2 to 9998"),
        ({"entity_id": ["a", "b"], "as_of": ["2024-04-02", "0001-06-01"]}, "as_of 0001-06-01 is outside of the years"),
        ({"entity_id": pa.array([], pa.string()), "as_of": pa.array([], pa.timestamp("us"))}, "has no rows"),
    ],
)
def test_tables_that_cannot_be_used(minutes, tmp_path, columns, message):
    path = tmp_path / "moments.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=f"moments.parquet:? {message}"):
        read_moments(path, minutes)


@pytest.mark.parametrize("content", [b"PAR1 and then nothing", b""])
def test_a_table_that_is_not_whole(minutes, tmp_path, content):
    (tmp_path / "moments.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"can't read .*moments.parquet as Parquet: ") as raised:
        read_moments(tmp_path / "moments.parquet", minutes)
    assert "\n" not in str(raised.value)


def test_a_folder_in_place_of_a_table(minutes, tmp_path):
    with pytest.raises(InputError, match=r"is a folder; give one file of Parquet or CSV"):
        read_moments(tmp_path, minutes)


def test_no_table(minutes):
    with pytest.raises(InputError, match=r"there is no file nowhere.csv"):
        read_moments("nowhere.csv", minutes)


def test_an_empty_field_of_a_csv_is_null(minutes, tmp_path):
    (tmp_path / "moments.csv").write_text("entity_id,as_of\nuser 1,2024-04-02\nuser 2,\n")
    with pytest.raises(InputError, match="as_of is null in 1 of 2 rows; fill or remove them"):
        read_moments(tmp_path / "moments.csv", minutes)


def test_values_of_python_each_by_itself(minutes):
    values = [
        INSTANT,
        MIDNIGHT,
        MIDNIGHT.date(),
        "2024-04-02",
        pd.Timestamp(MIDNIGHT),
        pd.Timestamp(INSTANT).tz_convert("Asia/Tokyo"),
        np.datetime64("2024-04-02T00:00:00.000000000"),
        np.datetime64("2024-04-02"),
    ]
    entity_id, as_of = as_moments(["user 1"] * len(values), values, minutes)
    assert entity_id.tolist() == ["user 1"] * len(values)
    assert as_of.tolist() == [microseconds(INSTANT)] * len(values)


def test_no_values(minutes, numbered):
    assert [len(array) for array in as_moments([], [], minutes)] == [0, 0]
    assert [len(array) for array in as_moments([], [], numbered)] == [0, 0]


@pytest.mark.parametrize("missing", [None, pd.NaT, np.datetime64("NaT"), float("nan")])
def test_missing_values_of_python(minutes, missing):
    with pytest.raises(InputError, match="as_of is null in 1 of 2 rows"):
        as_moments(["user 1", "user 2"], [INSTANT, missing], minutes)


def test_values_of_python_that_cannot_be_used(minutes, numbered):
    with pytest.raises(InputError, match="entity_id is null in 1 of 1 rows"):
        as_moments([None], [INSTANT], minutes)
    with pytest.raises(InputError, match="entity_id has values of several types"):
        as_moments(["user 1", 2], [INSTANT, INSTANT], numbered)
    with pytest.raises(InputError, match="entity_id is an integer in the minutes, but here"):
        as_moments(["user 1"], [INSTANT], numbered)
    with pytest.raises(InputError, match="as_of can't be read as a moment"):
        as_moments(["user 1"], [7], minutes)


def test_cutting_entities_at_their_first_moment(events, minutes):
    first, second = FIRST_DAY + timedelta(days=4, seconds=30), FIRST_DAY + timedelta(days=6)
    rows = [("user 3", first), ("user 3", second), ("user 7", second), ("nobody", first), ("zoe", first)]
    moments = distinct_moments(
        np.array([who for who, _ in rows], dtype=object), np.array([microseconds(moment) for _, moment in rows])
    )
    store = load_store(minutes)
    horizon = epoch_minute(second) - 1
    until = known_until(store, moments, horizon)
    assert until[store.entities == "user 3"] == epoch_minute(first)
    assert (until[~np.isin(store.entities, ["user 3", "zoe"])] == horizon).all(), (
        "user 7 is known no longer than others"
    )
    assert (known_until(store, None, horizon) == horizon).all()
    cut = cut_at(store, known_until(store, moments, int(store.minute.max()) + 1))
    end = {"user 3": epoch_minute(first), "user 7": epoch_minute(second)}
    kept = [(who, minute) for who, minute in plain_minutes(events) if who not in end or minute < end[who]]
    assert list(zip(cut.entities[cut.row_entity], cut.minute, strict=True)) == kept
    assert 0 < cut.num_minutes < store.num_minutes
    assert cut.entities.tolist() == store.entities.tolist()


def test_cutting_a_store_without_minutes(minutes):
    store = load_store(minutes, 0, 1)
    until = known_until(store, Moments(np.array(["a"], dtype=object), np.array([5])), 7)
    assert cut_at(store, until).num_minutes == 0
