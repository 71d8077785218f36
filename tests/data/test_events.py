import os
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infobehavior.data.cleaning import clean_events
from infobehavior.data.events import connect, open_events, readable
from infobehavior.data.schema import ONE_TIME, Columns, Schema, Time
from infobehavior.errors import InputError

COLUMNS = Columns(entity="who", timestamp="when", behavior="what")
SCHEMA = Schema(columns=COLUMNS, behaviors={"post": ONE_TIME})


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


def write_table(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def write_times(path: Path, times: Any) -> Path:
    return write_table(path, who=pa.array([1] * len(times)), when=times, what=pa.array(["post"] * len(times)))


def read_times(connection: duckdb.DuckDBPyConnection, path: Path, schema: Schema = SCHEMA) -> list[Any]:
    """The epoch second of each row, or why it is set aside."""
    clean = clean_events(connection, open_events(connection, path), schema)
    rows = connection.execute(f"SELECT reason, epoch FROM ({clean.sql})").fetchall()
    return [epoch if reason is None else reason for reason, epoch in rows]


def in_zone(time_zone: str, **columns: Any) -> Schema:
    columns = COLUMNS.model_dump() | columns
    time = Time(time_zone=time_zone, earliest=date(1900, 1, 1))
    return SCHEMA.model_copy(update={"time": time, "columns": Columns(**columns)})


# ---------------------------------------------------------------------------------------------- nothing to read


def test_nothing_there(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for source in (tmp_path / "none.parquet", tmp_path, tmp_path / "*.csv"):
        with pytest.raises(InputError, match="there are no events at"):
            open_events(connection, source)


def test_a_name_that_is_not_utf8(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_times(tmp_path / "a.parquet", [1_700_000_000]).rename(tmp_path / os.fsdecode(b"a\xff.parquet"))
    with pytest.raises(InputError, match=r"a file whose name isn't UTF-8, b'.*a\\xff.parquet': rename it"):
        open_events(connection, tmp_path)


def test_a_file_is_read_once_however_often_a_glob_names_it(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    write_times(tmp_path / "events" / "day=1" / "a.parquet", [1_700_000_000])
    write_times(tmp_path / "events" / "b.parquet", [1_700_000_000])
    for glob in ("events/**", "events/**/*.parquet", "*"):
        assert open_events(connection, tmp_path / glob).num_rows == 2


def test_neither_parquet_nor_csv(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "events.xlsx").write_text("x")
    with pytest.raises(InputError, match=r"events.xlsx is neither Parquet nor CSV"):
        open_events(connection, tmp_path / "events.xlsx")


def test_empty_files(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "nothing.csv").touch()
    with pytest.raises(InputError, match=r"nothing.csv is empty"):
        open_events(connection, tmp_path / "nothing.csv")
    (tmp_path / "header.csv").write_text("who,when,what\n")
    with pytest.raises(InputError, match=r"header.csv has no rows"):
        open_events(connection, tmp_path / "header.csv")
    with pytest.raises(InputError, match=r"none.parquet has no rows"):
        open_events(connection, write_times(tmp_path / "none.parquet", pa.array([], pa.int64())))


def test_mixed_formats(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_times(tmp_path / "a.parquet", pa.array([1]))
    (tmp_path / "b.csv").write_text("who,when,what\n1,2024-01-01,post\n")
    with pytest.raises(InputError, match="both Parquet and CSV"):
        open_events(connection, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_parquet_file_is_named(connection: duckdb.DuckDBPyConnection, tmp_path: Path, damage: str) -> None:
    write_times(tmp_path / "a.parquet", pa.array([1]))
    bad = write_times(tmp_path / "b.parquet", pa.array([1]))
    bad.write_bytes(bad.read_bytes()[:-20] if damage == "cut" else b"who,when,what")
    with pytest.raises(InputError, match=r"b.parquet is not a whole Parquet file") as caught:
        open_events(connection, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_page_is_one_line(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write_times(tmp_path / "a.parquet", pa.array(["2024-01-01T00:00:00Z"] * 100))
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"can't read .*a.parquet") as caught:
        read_times(connection, path)
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_those_there_are(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", who=[1], time=[1], what=["post"])
    with pytest.raises(InputError, match="has no column 'when'; it has who, time, what"):
        read_times(connection, path)


def test_files_with_other_columns_are_one_line(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_times(tmp_path / "a.parquet", pa.array([1_700_000_000]))
    write_table(tmp_path / "b.parquet", who=[1], label=[0])
    with pytest.raises(InputError, match=r"b\.parquet has other columns than .*a\.parquet: no 'when', 'what'"):
        open_events(connection, tmp_path)


def test_hidden_files_and_folders_are_left_out(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_times(tmp_path / "ds=1" / "a.parquet", pa.array([1]))
    write_times(tmp_path / "_delta_log" / "a.parquet", pa.array([1]))
    write_times(tmp_path / "ds=1" / ".a.parquet", pa.array([1]))
    assert open_events(connection, tmp_path).num_rows == 1


def test_folder_names_are_columns(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for name in ("post", "edit"):
        write_table(tmp_path / f"what={name}" / "a.parquet", who=[1], when=[1_700_000_000])
    (tmp_path / "csv" / "what=007").mkdir(parents=True)
    (tmp_path / "csv" / "what=007" / "a.csv").write_text("who,when\n1,1700000000\n")
    source = open_events(connection, tmp_path / "what=*")
    assert source.columns["what"] == "VARCHAR"
    assert sorted(connection.execute(f"SELECT what FROM {source.sql}").fetchall()) == [("edit",), ("post",)]
    source = open_events(connection, tmp_path / "csv")
    assert connection.execute(f"SELECT what, who FROM {source.sql}").fetchall() == [("007", "1")]


# ---------------------------------------------------------------------------------------------- CSV


def test_malformed_rows_are_counted(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "who,when,what\n1,2024-01-01,post\n2,2024-01-01\n3,2024-01-01,post,more\n4,,\n"
        '"5, ""five""\nand on",2024-01-01,post\n'
    )
    source = open_events(connection, path)
    assert (source.num_rows, source.num_malformed) == (3, 2)
    assert source.malformed_examples == ("2,2024-01-01", "3,2024-01-01,post,more")
    rows = connection.execute(f"SELECT who, what FROM {source.sql} ORDER BY who").fetchall()
    assert rows == [("1", "post"), ("4", None), ('5, "five"\nand on', "post")]


def test_malformed_rows_at_any_place_of_a_long_file(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = [f"{i},2024-01-01,post" + (",more" if i % 1000 == 7 else "") for i in range(100_000)]
    (tmp_path / "events.csv").write_text("\n".join(["who,when,what", *lines]))
    source = open_events(connection, tmp_path / "events.csv")
    assert (source.num_rows, source.num_malformed) == (99_900, 100)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_delimiters_and_byte_order_marks(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, delimiter: str, start: str
) -> None:
    (tmp_path / "events.csv").write_text(
        start + "who,when,what\r\n007,2024-01-01,post\r\n".replace(",", delimiter), encoding="utf-8"
    )
    source = open_events(connection, tmp_path / "events.csv")
    assert connection.execute(f"SELECT who, what FROM {source.sql}").fetchall() == [("007", "post")]


@pytest.mark.parametrize("header", ["who,when,", "who,who,what", "who,,what"])
def test_each_column_has_one_name(connection: duckdb.DuckDBPyConnection, tmp_path: Path, header: str) -> None:
    (tmp_path / "events.csv").write_text(header + "\n1,2,3\n")
    with pytest.raises(InputError, match="must name each column, once"):
        open_events(connection, tmp_path / "events.csv")


def test_csv_files_agree_on_their_columns(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,when,what\n1,2,3\n")
    (tmp_path / "b.csv").write_text("who,what,when\n1,2,3\n")
    with pytest.raises(InputError, match=r"b.csv has other columns than .*a.csv"):
        open_events(connection, tmp_path)


def test_bytes_that_are_not_text_are_malformed(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"who,when,what\n1,2024-01-01,p\xff\xfest\n2,2024-01-01,post\n")
    source = open_events(connection, tmp_path / "a.csv")
    assert (source.num_rows, source.num_malformed) == (1, 1)


def write_csv(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["who,when,what", *rows, ""]))
    return path


def plain_rows(number: int = 6000) -> list[str]:
    return [f"{i},2024-01-01,post" for i in range(number)]


@pytest.mark.parametrize("row", ['4,2024-01-01,"post', '"4,2024-01-01,post'])
@pytest.mark.parametrize("number", [30, 6000])
def test_an_open_quote_is_not_one_malformed_row(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, row: str, number: int
) -> None:
    rows = plain_rows(number)
    rows[4] = row
    path = write_csv(tmp_path / "events.csv", rows)
    with pytest.raises(
        InputError, match=rf"events.csv, line 6: a quote opens that isn't closed, and {number - 5:,} lines"
    ):
        open_events(connection, path)


def test_an_open_quote_in_a_file_larger_than_a_buffer(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = [f"{i},2024-01-01,{'post' * 100}" for i in range(100_000)]
    rows[4] = '4,2024-01-01,"post'
    with pytest.raises(InputError, match=r"events.csv, line 6: a quote opens that isn't closed"):
        open_events(connection, write_csv(tmp_path / "events.csv", rows))


def test_a_later_quote_does_not_hide_an_open_one(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = plain_rows()
    rows[4], rows[2000] = '4,2024-01-01,"post', '2000,2024-01-01,post"'
    write_csv(tmp_path / "a.csv", plain_rows(10))
    write_csv(tmp_path / "b.csv", rows)
    message = r"b.csv, line 6: the quote that opens in column 'what' swallows 1,996 lines that look like rows"
    with pytest.raises(InputError, match=message):
        open_events(connection, tmp_path)
    rows[2000] = '2000,2024-01-01,"post"'
    with pytest.raises(InputError, match=r"b.csv, line 6: a quote opens that isn't closed"):
        open_events(connection, write_csv(tmp_path / "b.csv", rows))


def test_the_few_lines_of_an_open_quote_at_the_end_are_counted(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    source = open_events(connection, write_csv(tmp_path / "a.csv", [*plain_rows(10), '1,2024-01-01,"post', "2,2,2"]))
    assert (source.num_rows, source.num_malformed) == (10, 2)


@pytest.mark.parametrize("number", [2, 5, 13])
def test_open_quotes_are_found_in_any_number_of_files(tmp_path: Path, number: int) -> None:
    for i in range(number):
        write_csv(tmp_path / f"{i:02}.csv", [*plain_rows(10), '1,2024-01-01,"post'])
    with connect(threads=1) as connection:
        source = open_events(connection, tmp_path)
        assert (source.num_rows, source.num_malformed) == (10 * number, number)
        write_csv(tmp_path / "last.csv", [*plain_rows(10), '1,2024-01-01,"post', *plain_rows(10)])
        with pytest.raises(InputError, match=r"last.csv, line 12: a quote opens that isn't closed, and 10 lines"):
            open_events(connection, tmp_path)


def test_quotes_in_values_and_values_of_many_lines_are_no_open_quotes(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    trace = '"' + "\n".join(f'at line {i}, in ""f""' for i in range(50)) + '"'
    rows = [*plain_rows(10), f"1,2024-01-01,{trace}", *['2,2024-01-01,"5" disk'] * 9, *plain_rows(10)]
    source = open_events(connection, write_csv(tmp_path / "a.csv", rows))
    assert (source.num_rows, source.num_malformed) == (21, 9)


def test_a_full_folder_for_temporary_files_is_named() -> None:
    cause = 'IO Error: Async write failed: {"exception_message":"Could not write file: No space left on device"}'
    with (
        pytest.raises(InputError, match=r"the folder for temporary files, .*, is full while a log is read: set TMPDIR"),
        readable("a log"),
    ):
        raise duckdb.IOException(cause)


# ---------------------------------------------------------------------------------------------- types


TIMES = [datetime(2024, 1, 1)]


@pytest.mark.parametrize(
    ("column", "first", "other", "said"),
    [
        ("when", TIMES, pa.array(TIMES, pa.timestamp("us", "UTC")), ("a time without a zone", "a time with a zone")),
        ("when", [date(2024, 1, 1)], TIMES, ("a date", "a time without a zone")),
        ("who", ["1"], [1], ("text", "an integer")),
        ("who", [1], [1.5], ("an integer", "a fraction")),
    ],
)
def test_columns_have_one_type_in_all_files(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, column: str, first: Any, other: Any, said: Any
) -> None:
    plain: dict[str, Any] = {"who": [1], "when": TIMES, "what": ["post"], "note": [1]}
    for name, values in (("a", first), ("b", other)):
        write_table(tmp_path / f"{name}.parquet", **(plain | {column: values}))
    message = rf"column '{column}' is {said[0]} in .*a\.parquet, but {said[1]} in .*b\.parquet"
    with pytest.raises(InputError, match=message):
        read_times(connection, tmp_path)


def test_widths_units_and_unused_columns_may_differ(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", who=pa.array([1], pa.int64()), when=TIMES, what=["post"], note=[1])
    times = pa.array(TIMES, pa.timestamp("ms"))
    texts = pa.array(["post"]).dictionary_encode()
    write_table(tmp_path / "b.parquet", who=pa.array([1], pa.int32()), when=times, what=texts, note=["7"])
    assert read_times(connection, tmp_path) == [utc(2024, 1, 1)] * 2


# ---------------------------------------------------------------------------------------------- times


def utc(*parts: int) -> int:
    return int((datetime(*parts) - datetime(1970, 1, 1)).total_seconds() // 1)  # type: ignore[arg-type]


def test_moments_with_a_zone_ignore_the_schemas(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    times = pa.array([datetime(2024, 1, 1, 0, 0, 0, 999_999)], pa.timestamp("us", "America/New_York"))
    path = write_times(tmp_path / "a.parquet", times)
    assert read_times(connection, path, in_zone("Asia/Tokyo")) == [utc(2024, 1, 1)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_naive_timestamps_are_local(connection: duckdb.DuckDBPyConnection, tmp_path: Path, unit: str) -> None:
    walls = [datetime(2024, 1, 1), datetime(2024, 7, 1), datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30)]
    path = write_times(tmp_path / "a.parquet", pa.array(walls, pa.timestamp(unit)))
    expected = [utc(2023, 12, 31, 23), utc(2024, 6, 30, 22), utc(2024, 3, 31, 1, 30), utc(2024, 10, 27, 0, 30)]
    assert read_times(connection, path, in_zone("Europe/Berlin")) == expected
    texts = pa.array([wall.isoformat() for wall in walls])
    assert read_times(connection, write_times(tmp_path / "b.parquet", texts), in_zone("Europe/Berlin")) == expected


def test_dates_are_local_midnights(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write_times(tmp_path / "a.parquet", pa.array([date(2024, 1, 1)]))
    assert read_times(connection, path, in_zone("Asia/Kolkata")) == [utc(2023, 12, 31, 18, 30)]


def test_seconds_before_1970_are_rounded_down(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write_times(tmp_path / "a.parquet", pa.array([-1, -1_000_000, -1_000_001], pa.timestamp("us", "UTC")))
    assert read_times(connection, path, in_zone("UTC")) == [-1, -1, -2]


def test_text_with_zones(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    times = [
        *("2024-01-01T00:00:00Z", "2024-01-01 01:00:00+01:00", "2024-01-01T05:30:00 +0530", "2023-12-31 16:00:00.5-08"),
        *("2024-01-01 00:00:00", "2024-01-01", "soon", " ", "2024-13-01T00:00:00Z"),
    ]
    moment = utc(2024, 1, 1)
    assert read_times(connection, write_times(tmp_path / "a.parquet", pa.array(times)), in_zone("Asia/Tokyo")) == [
        *(moment, moment, moment, moment),
        *["time without a zone where others have one"] * 2,
        *("time doesn't parse", "no time", "time doesn't parse"),
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_with_a_zone_in_any_unit(connection: duckdb.DuckDBPyConnection, tmp_path: Path, unit: str) -> None:
    moments = pa.array([datetime(2024, 1, 1), datetime(2024, 7, 1)], pa.timestamp(unit, "UTC"))
    path = write_times(tmp_path / "a.parquet", moments)
    assert read_times(connection, path, in_zone("Europe/Berlin")) == [utc(2024, 1, 1), utc(2024, 7, 1)]


def test_names_of_zones(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    names = [
        "Z",
        " UTC",
        " GMT",
        " gmt",
        " Europe/London",
        " Etc/GMT+0",
        "+00:00",
        " EST",
        " CEST",
        " PM",
        " Mars/Base",
    ]
    path = write_times(tmp_path / "a.parquet", pa.array([f"2024-03-01 03:48:10{name}" for name in names]))
    expected = [utc(2024, 3, 1, 3, 48, 10)] * 7 + ["time doesn't parse"] * 4
    assert read_times(connection, path, in_zone("Asia/Tokyo")) == expected


@pytest.mark.parametrize("zone", ["EST", "CEST", "PM", "UTC+3", "EST5", "(BC)"])
def test_an_abbreviation_of_a_zone_is_not_local_time(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, zone: str
) -> None:
    path = write_times(tmp_path / "a.parquet", pa.array([f"2024-03-01 03:48:10 {zone}", "2024-03-01 03:48:10"]))
    assert read_times(connection, path) == ["time doesn't parse", utc(2024, 3, 1, 3, 48, 10)]


def test_the_rarer_form_of_times_is_the_odd_one(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    times = ["2024-01-01 00:00:00Z", "2024-01-01 00:00:00", "2024-01-01 09:00"]
    path = write_times(tmp_path / "a.parquet", pa.array(times))
    odd = "time with a zone where others have none"
    assert read_times(connection, path, in_zone("Asia/Tokyo")) == [odd, utc(2023, 12, 31, 15), utc(2024, 1, 1)]


def test_words_are_no_times(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    times = pa.array(["2024-01-01", "epoch", "infinity", "-infinity", "2024-02-30", None])
    assert read_times(connection, write_times(tmp_path / "a.parquet", times)) == [
        utc(2024, 1, 1),
        *["time doesn't parse"] * 4,
        "no time",
    ]


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000])
@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string()])
def test_epoch_numbers_by_magnitude(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, factor: int, kind: pa.DataType
) -> None:
    seconds = [1_700_000_000, 1_700_000_061, 3]
    path = write_times(tmp_path / "a.parquet", pa.array([second * factor for second in seconds]).cast(kind))
    assert read_times(connection, path) == [1_700_000_000, 1_700_000_061, "time out of range"]


def test_epoch_numbers_in_the_schemas_unit(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write_times(tmp_path / "a.parquet", pa.array([-1, 1999, 10**18]))
    expected = [-1, 1, "time doesn't parse"]
    assert read_times(connection, path, in_zone("UTC", timestamp_unit="ms")) == expected


def test_fractions_of_seconds(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write_times(tmp_path / "a.parquet", pa.array([1_700_000_000.999, float("nan"), float("inf"), None]))
    assert read_times(connection, path) == [1_700_000_000, "time doesn't parse", "time doesn't parse", "no time"]


def test_range_is_of_local_days_without_the_last(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    time = Time(time_zone="Asia/Tokyo", earliest=date(2024, 1, 1), latest=date(2024, 1, 2))
    first = utc(2023, 12, 31, 15)
    path = write_times(tmp_path / "a.parquet", pa.array([first - 1, first, first + 86_399, first + 86_400]))
    out = "time out of range"
    assert read_times(connection, path, SCHEMA.model_copy(update={"time": time})) == [out, first, first + 86_399, out]


# ---------------------------------------------------------------------------------------------- values


def test_integers_in_text_and_in_fractions(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    schema = in_zone("UTC", entity_type="integer")
    texts = write_table(tmp_path / "a.parquet", who=["7", "-8", "1.5", "x", "9" * 30], when=[0] * 5, what=["post"] * 5)
    clean = clean_events(connection, open_events(connection, texts), schema)
    bad = (None, "entity is not an integer")
    assert connection.execute(f"SELECT entity_id, reason FROM ({clean.sql})").fetchall() == [
        *((7, None), (-8, None)),
        *(bad, bad, bad),
    ]
    fractions = write_table(tmp_path / "b.parquet", who=[7.0, 7.5, None], when=[0] * 3, what=["post"] * 3)
    clean = clean_events(connection, open_events(connection, fractions), schema)
    assert connection.execute(f"SELECT entity_id, reason FROM ({clean.sql})").fetchall() == [
        *((7, None), bad, (None, "no entity")),
    ]


def test_columns_of_any_name_and_type(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    names = {
        "entity": 'the "who"',
        "timestamp": "when {0}",
        "behavior": "reason",
        "location": "raw",
        "outcome": "epoch",
    }
    pq.write_table(
        pa.table(
            {names["entity"]: [1], names["timestamp"]: [0], "reason": [404], "raw": [""], "epoch": [False], "N": [1.5]}
        ),
        tmp_path / "a.parquet",
    )
    columns = Columns(**names, extra=["N"])
    schema = Schema(
        columns=columns,
        time=Time(earliest=date(1970, 1, 1)),
        failures={"outcomes": ["false"], "behaviors": ["404"]},  # type: ignore[arg-type]
        behaviors={"404": ONE_TIME},
    )
    clean = clean_events(connection, open_events(connection, tmp_path / "a.parquet"), schema)
    query = f"SELECT entity_id, epoch, behavior, location, failed, extra_0, reason FROM ({clean.sql})"
    assert connection.execute(query).fetchall() == [(1, 0, "404", None, True, "1.5", None)]


def test_between_holds_just_those_seconds(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    seconds = [utc(2024, 3, 30) + 3600 * i for i in range(72)]
    for kind, times in {
        "zoned": pa.array([second * 10**6 for second in seconds], pa.timestamp("us", "UTC")),
        "naive": pa.array([second * 10**6 for second in seconds], pa.timestamp("us")),
        "numbers": pa.array(seconds),
    }.items():
        path = write_times(tmp_path / f"{kind}.parquet", times)
        clean = clean_events(connection, open_events(connection, path), in_zone("Europe/Berlin"))
        everything = connection.execute(f"SELECT epoch FROM ({clean.sql}) ORDER BY 1").fetchall()
        first, end = everything[20][0], everything[50][0]
        found = connection.execute(f"SELECT epoch FROM ({clean.between(first, end)}) ORDER BY 1").fetchall()
        assert found == everything[20:50]


def test_settings_that_duckdb_refuses() -> None:
    with pytest.raises(InputError, match="memory_limit can't be 'lots'"), connect(memory_limit="lots"):
        pass
