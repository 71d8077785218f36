from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infobehavior.data.events import connect
from infobehavior.data.tables import column_moments
from infobehavior.errors import InputError
from infobehavior.fusion.config import MOST_HOURS, ExampleColumns, Group
from infobehavior.fusion.joining import Keys, age_lines, ages_in_days, joined

NOON = datetime(2024, 3, 30, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOURS = timedelta(hours=1)


def micros(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // TICK


def asked(rows):
    entities = pa.array([None if who is None else str(who) for who, _ in rows], pa.string())
    return Keys(entities, np.array([micros(moment) for _, moment in rows], np.int64))


def write(rows, path, **types):
    """Rows of (entity, as_of, value), of any types."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "entity_id": pa.array([who for who, _, _ in rows], types.get("entity")),
        "as_of": pa.array([moment for _, moment, _ in rows], types.get("as_of", pa.timestamp("us", "UTC"))),
        "value": pa.array([value for _, _, value in rows], types.get("value", pa.int64())),
    }
    pq.write_table(pa.table(columns), path)
    return path


def columns_of(time_zone):
    return ExampleColumns(label="risky", moment="at", time_zone=time_zone)


def found(table, rows, *, time_zone="UTC", **fields):
    """The values that are joined, and how many examples have a row."""
    group = Group(**({"kind": "numbers", "table": table, "columns": ("value",)} | fields))
    with connect(threads=1) as connection:
        columns, ages = joined(connection, asked(rows), group, "g", columns_of(time_zone))
    return columns[columns.column_names[0]].to_pylist(), len(ages)


def plain_join(table, rows, max_age=None):
    """Of an entity the last row at or before the moment, unless it is too old."""
    values = []
    for who, moment in rows:
        last = None
        for entity, as_of, value in table:
            if who is None or entity is None or as_of is None or str(entity) != str(who) or as_of > moment:
                continue
            if last is None or as_of > last[0]:
                last = as_of, value
        is_there = last is not None and (max_age is None or moment - last[0] <= max_age)
        values.append(last[1] if is_there else None)
    return values


MOMENTS = st.integers(-60, 60).map(lambda steps: NOON + steps // 3 * HOURS + steps % 3 * TICK)
ENTITIES = st.one_of(st.none(), st.sampled_from(["7", "07", "a b", "ł"]))
TABLES = st.lists(st.tuples(ENTITIES.filter(bool), MOMENTS), min_size=1, max_size=25).map(
    lambda keys: [(who, moment, place) for place, (who, moment) in enumerate(dict.fromkeys(keys))]
)
ROWS = st.lists(st.tuples(ENTITIES, MOMENTS), min_size=1, max_size=15)
AGES = st.one_of(st.none(), st.sampled_from([HOURS, 5 * HOURS, timedelta(days=1)]))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, ROWS, AGES, st.integers(1, 3))
def test_rows_are_joined_as_by_plain_loops(tmp_path_factory, table, rows, max_age, num_files):
    folder = tmp_path_factory.mktemp("table")
    for number in range(num_files):
        if part := table[number::num_files]:
            write(part, folder / f"{number}.parquet", entity=pa.string())
    expected = plain_join(table, rows, max_age)
    options = {"max_age_days": max_age / timedelta(days=1)} if max_age else {}
    values, num_found = found(folder, rows, **options)
    assert values == expected
    assert num_found == sum(value is not None for value in expected)


ONE = [(7, NOON, 1)]


def test_a_row_at_the_moment_is_joined_and_one_a_microsecond_later_is_not(tmp_path):
    table = write(ONE, tmp_path / "t.parquet")
    assert found(table, [(7, NOON), (7, NOON - TICK)]) == ([1, None], 1)


def test_a_row_is_joined_until_its_last_microsecond(tmp_path):
    table = write(ONE, tmp_path / "t.parquet")
    last = NOON + timedelta(days=2)
    assert found(table, [(7, last), (7, last + TICK)], max_age_days=2)[0] == [1, None]
    assert found(table, [(7, NOON + HOURS), (7, NOON + HOURS + TICK)], max_age_days=1 / 24)[0] == [1, None]


def test_a_row_that_is_too_old_is_not_replaced_by_an_older_one(tmp_path):
    table = write([(7, NOON, 1), (7, NOON - 3 * HOURS, 2)], tmp_path / "t.parquet")
    assert found(table, [(7, NOON + timedelta(days=3))], max_age_days=1)[0] == [None]


def test_what_comes_later_changes_nothing(tmp_path):
    rows = [(7, NOON + HOURS), (8, NOON + HOURS)]
    table = [(7, NOON, 1), (8, NOON, 2)]
    before = found(write(table, tmp_path / "one.parquet"), rows)
    later = [(who, NOON + HOURS + TICK, 99) for who in (7, 8)] + [(9, NOON, 5), (7, NOON + 9 * HOURS, 3)]
    assert found(write(table + later, tmp_path / "other.parquet"), rows) == before == ([1, 2], 2)


@pytest.mark.parametrize(("entity", "who"), [(pa.int64(), "7"), (pa.int16(), 7), (pa.string(), 7)])
def test_entities_are_compared_as_text(tmp_path, entity, who):
    value = "7" if entity == pa.string() else 7
    assert found(write([(value, NOON, 1)], tmp_path / "t.parquet", entity=entity), [(who, NOON)]) == ([1], 1)


def test_the_age_of_what_is_joined_is_told(tmp_path):
    rows = [(7, NOON + 12 * HOURS), (7, NOON + 24 * HOURS), (7, NOON + 96 * HOURS), (8, NOON), (None, NOON)]
    group = Group(kind="numbers", table=write(ONE, tmp_path / "t.parquet"), columns=("value",))
    with connect(threads=1) as connection:
        _, ages = joined(connection, asked(rows), group, "g", columns_of("UTC"))
        _, none = joined(connection, asked(rows[3:]), group, "g", columns_of("UTC"))
    assert sorted(ages.tolist()) == [hours * HOURS // TICK for hours in (12, 24, 96)]
    days = ages_in_days({"g": ages, "h": none})
    assert days == {"g": {"median": 1.0, "largest": 4.0}}
    assert age_lines(days) == ["rows of g are 1.0 days old (median), 4.0 at most"]
    trained = {"g": {"median": 0.5, "largest": 0.75}}
    assert age_lines(days, trained)[0].endswith(", 4.0 at most; in the training 0.5 and 0.8")


def test_nobody_has_no_row(tmp_path):
    table = write([(7, NOON, 1)], tmp_path / "t.parquet", entity=pa.int64())
    assert found(table, [(None, NOON), (7, NOON)]) == ([None, 1], 1)


@pytest.mark.parametrize(("row", "column"), [((None, NOON, 1), "entity_id"), ((7, None, 2), "as_of")])
def test_rows_of_nobody_or_of_no_time_are_refused(tmp_path, row, column):
    table = write([row, (8, NOON, 3)], tmp_path / "t.parquet", entity=pa.int64())
    with pytest.raises(InputError, match=f"{column} is null in 1 of 2 rows; fill or remove them"):
        found(table, [(7, NOON)])


def test_a_row_is_there_some_hours_after_its_moment(tmp_path):
    table = write([(7, NOON, 1), (7, NOON - HOURS, 2)], tmp_path / "t.parquet")
    rows = [(7, NOON), (7, NOON + HOURS / 2 - TICK), (7, NOON + HOURS / 2), (7, NOON - HOURS / 2 - TICK)]
    assert found(table, rows, min_age_hours=0.5) == ([2, 2, 1, None], 3)
    assert found(table, [(7, NOON)], min_age_hours=0.5, max_age_days=1 / 30)[0] == [None]


def test_ages_of_a_hundred_years_and_more_are_no_trouble(tmp_path):
    table = write(ONE, tmp_path / "t.parquet")
    assert found(table, [(7, NOON + HOURS)], min_age_hours=MOST_HOURS) == ([None], 0)
    assert found(table, [(7, NOON + HOURS)], max_age_days=1e300) == ([1], 1)


def test_the_label_is_never_joined(tmp_path):
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"entity_id": [7], "as_of": [NOON], "risky": [1.0]}), table)
    for columns in ((), ("risky",)):
        with pytest.raises(InputError, match="has the label 'risky' among the columns of group g; name its columns"):
            found(table, [(7, NOON)], columns=columns)


def test_a_row_whose_value_is_null_is_a_row(tmp_path):
    table = write([(7, NOON, None), (7, NOON - HOURS, 1)], tmp_path / "t.parquet")
    assert found(table, [(7, NOON)]) == ([None], 1)


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize("kind", ["time", "csv", "nanoseconds"])
def test_moments_without_a_zone_are_local(tmp_path, time_zone, kind):
    """Also where the clocks change: 31 March 2024 in Berlin."""
    local = [datetime(2024, 3, day, hour, 30) for day in (30, 31) for hour in (1, 4, 12)]
    if kind == "csv":
        table = tmp_path / "t.csv"
        lines = [f"7,{moment.isoformat(' ')},{place}" for place, moment in enumerate(local)]
        table.write_text("entity_id,as_of,value\n" + "\n".join(lines) + "\n")
    else:
        unit = pa.timestamp("us" if kind == "time" else "ns")
        table = write([(7, moment, place) for place, moment in enumerate(local)], tmp_path / "t.parquet", as_of=unit)
    instants = [moment.replace(tzinfo=ZoneInfo(time_zone)).astimezone(UTC) for moment in local]
    rows = [(7, instant - late) for instant in instants for late in (TICK, 0 * TICK)]
    expected = plain_join([(7, instant, place) for place, instant in enumerate(instants)], rows)
    values, _ = found(table, rows, time_zone=time_zone)
    assert [None if value is None else int(value) for value in values] == expected


def local_rows(path, local, time_zone="Europe/Berlin"):
    """A row at a local time; and which of some instants, ten minutes apart, it is joined to."""
    if path.suffix == ".csv":
        path.write_text(f"entity_id,as_of,value\n7,{local},1\n")
    else:
        write([(7, local, 1)], path, as_of=pa.timestamp("us"))
    first = local.replace(tzinfo=UTC) - 4 * HOURS
    instants = [first + place * HOURS / 6 for place in range(30)]
    values, _ = found(path, [(7, instant) for instant in instants], time_zone=time_zone)
    return [instant for instant, value in zip(instants, values, strict=True) if value is not None]


def readings(local, time_zone="Europe/Berlin"):
    """The instants that a local time may mean."""
    return [local.replace(tzinfo=ZoneInfo(time_zone), fold=fold).astimezone(UTC) for fold in (0, 1)]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("minute", [0, 30, 50])
@pytest.mark.parametrize("day", [date(2024, 10, 27), date(2024, 3, 31), date(2024, 5, 5)])
def test_a_row_is_never_joined_before_the_later_of_what_its_moment_may_mean(tmp_path, ending, minute, day):
    """Clocks in Berlin showed two o'clock twice in October, and skipped it in March."""
    local = datetime(day.year, day.month, day.day, 2, minute)
    assert local_rows(tmp_path / f"t.{ending}", local)[0] == max(readings(local))


def test_in_the_hour_that_clocks_show_twice_an_example_comes_before_a_row(tmp_path):
    """Of one local time, which nobody can tell from the other."""
    local = datetime(2024, 10, 27, 2, 30)
    moments = column_moments(pa.chunked_array([pa.array([local])]), "Europe/Berlin", "rows")
    earlier, later = readings(local)
    assert moments.to_pylist() == [micros(earlier)]
    assert local_rows(tmp_path / "t.parquet", local)[0] == later == earlier + HOURS


def test_moments_of_a_csv_may_have_zones(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("entity_id,as_of,value\n7,2024-03-30T14:00:00+02:00,1\n7,2024-03-30T12:00:00.000001Z,2\n")
    assert found(table, [(7, NOON), (7, NOON + TICK)])[0] == ["1", "2"]


@pytest.mark.parametrize(
    ("as_of", "said"),
    [
        (pa.array([NOON.replace(tzinfo=None)]), "as_of is TIMESTAMP, without a time zone"),
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")), "as_of is TIMESTAMP_NS, without a time zone"),
        (pa.array([NOON.date()]), "as_of is DATE, without a time zone"),
        (pa.array(["2024-03-30 12:00"]), "as_of has 1 of 1 times without a time zone, such as '2024-03-30 12:00'"),
    ],
)
def test_a_table_s_moments_without_a_zone_need_one(tmp_path, as_of, said):
    """By a wrong zone, rows that came later would be joined, by up to fourteen hours."""
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"entity_id": [7], "as_of": as_of, "value": [1]}), table)
    with pytest.raises(InputError, match=rf"t\.parquet.*: {said}; give time_zone in \[examples\]"):
        found(table, [(7, NOON)], time_zone=None)
    assert found(table, [(7, NOON)], time_zone="UTC") == ([1], 1)


@pytest.mark.parametrize("time_zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize(
    ("as_of", "what"),
    [
        (pa.array([1_711_800_000]), "an integer"),
        (pa.array([1_711_800_000.0]), "a fraction"),
        (pa.array([True]), "a boolean"),
        (pa.array([NOON.time()]), "time"),
        (pa.array([b"2024-03-30"]), "bytes"),
    ],
)
def test_what_is_no_moment_is_not_asked_for_its_zone(tmp_path, as_of, what, time_zone):
    pq.write_table(pa.table({"entity_id": [7], "as_of": as_of, "value": [1]}), tmp_path / "t.parquet")
    said = rf"t\.parquet: as_of can't be read as a moment: expected a date, a time or text, got {what}$"
    with pytest.raises(InputError, match=said):
        found(tmp_path / "t.parquet", [(7, NOON)], time_zone=time_zone)


WITH_ZONES = [pa.array([text]) for text in ("2024-03-30T12:00:00Z", "2024-03-30t12:00:00z", "2024-03-30 12:00z")]


@pytest.mark.parametrize("as_of", [pa.array([NOON], pa.timestamp("us", "UTC")), *WITH_ZONES])
def test_moments_with_a_zone_need_no_other(tmp_path, as_of):
    pq.write_table(pa.table({"entity_id": [7], "as_of": as_of, "value": [1]}), tmp_path / "t.parquet")
    assert found(tmp_path / "t.parquet", [(7, NOON), (7, NOON - TICK)], time_zone=None) == ([1, None], 1)


def test_dates_are_the_beginning_of_local_days(tmp_path):
    table = write([(7, date(2024, 3, 30), 1)], tmp_path / "t.parquet", as_of=pa.date32())
    midnight = datetime(2024, 3, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert found(table, [(7, midnight), (7, midnight - TICK)], time_zone="Europe/Berlin")[0] == [1, None]


def test_lists_and_all_columns_but_the_keys(tmp_path):
    path = tmp_path / "ds=2024-03-30" / "e.parquet"
    path.parent.mkdir()
    columns = {
        "entity_id": [7],
        "as_of": pa.array([NOON], pa.timestamp("us", "UTC")),
        "model_id": ["m"],
        "embedding": [[1.0, 2.0]],
        "num_events": [5],
    }
    pq.write_table(pa.table(columns), path)
    with connect(threads=1) as connection:
        group = Group(kind="numbers", table=tmp_path)
        table, _ = joined(connection, asked([(7, NOON)]), group, "g", columns_of("UTC"))
        assert table.column_names == ["embedding", "num_events"]
        group = Group(kind="representation", table=tmp_path)
        table, _ = joined(connection, asked([(7, NOON), (8, NOON)]), group, "g", columns_of("UTC"))
    assert table.to_pydict() == {"embedding": [[1.0, 2.0], None]}


def test_columns_may_be_called_anything(tmp_path):
    names = ["row", "is_there", "entity", "moment", "Found", 'a "b"']
    keys = {"entity_id": [7], "as_of": pa.array([NOON], pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(keys | {name: [place] for place, name in enumerate(names)}), tmp_path / "t.parquet")
    with connect(threads=1) as connection:
        group = Group(kind="numbers", table=tmp_path / "t.parquet")
        table, _ = joined(connection, asked([(7, NOON)]), group, "g", columns_of("UTC"))
    assert table.to_pylist() == [{name: place for place, name in enumerate(names)}]


def daily(folder, days, value="ds", definition=True):
    """A row of entity 7 at each midnight, in a folder of the day."""
    for day in days:
        midnight = datetime(2024, 3, day, tzinfo=UTC)
        write([(7, midnight, day)], folder / f"{value}={midnight.date()}" / "t.parquet")
    if definition:
        (folder / "_definition.json").write_text('{"kind": "embeddings", "model_id": "m"}')
    return folder


@pytest.mark.parametrize("definition", [True, False])
@pytest.mark.parametrize("max_age_days", [None, 1, 3, 1_000_000_000])
def test_partitions_of_days_change_nothing(tmp_path, definition, max_age_days):
    table = daily(tmp_path, range(10, 29, 2), definition=definition)
    rows = [(7, datetime(2024, 3, day, hour, tzinfo=UTC)) for day in (5, 14, 15, 27) for hour in (0, 23)]
    plain = [(7, datetime(2024, 3, day, tzinfo=UTC), day) for day in range(10, 29, 2)]
    max_age = None if max_age_days is None or max_age_days > 1_000 else timedelta(days=max_age_days)
    options = {"max_age_days": max_age_days} if max_age_days else {}
    assert found(table, rows, **options)[0] == plain_join(plain, rows, max_age)
    for row in rows:
        assert found(table, [row], **options)[0] == plain_join(plain, [row], max_age)


def test_folders_of_days_that_are_not_those_of_as_of(tmp_path):
    """In a table that isn't ours, the day may be that on which a file was written."""
    for day in (1, 20):
        write([(7, NOON - timedelta(days=day), day)], tmp_path / f"ds=2024-05-{day:02}" / "t.parquet")
    write([(7, NOON + HOURS, 0)], tmp_path / "ds=2024-03-01" / "t.parquet")
    assert found(tmp_path, [(7, NOON)]) == ([1], 1)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"as_of": [1]}, "has no column 'entity_id'; it has as_of"),
        ({"entity_id": [1]}, "has no column 'as_of'; it has entity_id"),
        ({"entity_id": [1], "as_of": ["2024-01-01"]}, "has no column 'value' for group g; it has entity_id, as_of"),
        ({"entity_id": [1], "as_of": ["soon"], "value": [1]}, "as_of can't be read as a moment"),
        ({"entity_id": [1], "as_of": [3.5], "value": [1]}, "as_of can't be read as a moment"),
        ({"entity_id": [], "as_of": [], "value": []}, "has no rows"),
    ],
)
def test_tables_that_lack_something(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said) as raised:
        found(tmp_path / "t.parquet", [(1, NOON)])
    assert "t.parquet" in str(raised.value)


def test_several_rows_at_one_moment(tmp_path):
    table = write([(7, NOON, 1), (7, NOON, 2), (8, NOON, 3)], tmp_path / "t.parquet")
    assert found(table, [(8, NOON), (7, NOON - TICK)])[0] == [3, None]
    with pytest.raises(InputError, match=r"t\.parquet has several rows of entity 7 at one as_of; keep one of each"):
        found(table, [(8, NOON), (7, NOON)])


def test_tables_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no table .*nothing"):
        found(tmp_path / "nothing", [(7, NOON)])
    (tmp_path / "t.csv").write_text("entity_id,as_of,value\n7,2024-01-01,1,2\n7,2024-01-01,1\n")
    with pytest.raises(InputError, match=r"t\.csv has 1 rows that can't be read; mend them"):
        found(tmp_path / "t.csv", [(7, NOON)])


def test_an_unfinished_table_is_refused(tmp_path):
    daily(tmp_path, [20])
    (tmp_path / "_unfinished.json").write_text('{"what": "embeddings"}')
    with pytest.raises(InputError, match="is unfinished"):
        found(tmp_path, [(7, NOON)])
