"""Minutes made by Spark are, to the byte, those made by DuckDB."""

import operator
import random
import sys
from datetime import datetime, timedelta
from functools import partial

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infobehavior import InputError, aggregate
from infobehavior.data import spark_log, spark_plan, spark_tasks
from infobehavior.data.cleaning import TimeFacts, events_in_sql
from infobehavior.data.minutes import open_minutes
from infobehavior.spark import Failed, Guarded, hidden_folder, versions
from local_spark import ODD_SETTINGS
from small_minutes import folder_bytes, random_events, small_schema, write_parquet

TEXTS = ("Köln", "Ko\u0308ln", "😀\u200d", "a\x1fb", "", None, "NULL", "  ", "'quoted' {x: 1}", "ﬀ", "\ud7ff", "Ω")


@pytest.fixture(autouse=True)
def many_small_tasks(spark, monkeypatch):
    monkeypatch.setattr(spark_log, "EVENTS_PER_TASK", 150)
    monkeypatch.setattr(spark_log, "FILES_PER_TASK", 2)


def assert_same(log, schema, folder, **options):
    """Both engines write the same bytes, or add to what is there, and say the same of the log."""
    both = [
        aggregate(log, schema, folder / engine, engine=engine, threads=1, **options) for engine in ("duckdb", "spark")
    ]
    assert folder_bytes(folder / "duckdb") == folder_bytes(folder / "spark")
    by_duckdb, by_spark = ({name: value for name, value in vars(said).items() if name != "path"} for said in both)
    assert by_duckdb == by_spark
    return both[1]


def messy_rows(seed, zone_of_row=lambda draw: ""):
    """Rows of texts: odd places, nulls, repeated rows, times in other forms and around a change of the clocks."""
    draw = random.Random(seed)
    rows = []
    for event in random_events(seed, num_entities=6, minutes_each=15):
        local = (event.at + timedelta(hours=1)).replace(tzinfo=None)
        at = draw.choice([local.isoformat(" "), local.isoformat("T")]) + zone_of_row(draw)
        if draw.random() < 0.05:
            at = draw.choice(["", "soon", "2024-03-31 02:30:00", "1850-01-01", "2024-03-26 10:00:00 EST"])
        who = draw.choice(["", " ", None]) if draw.random() < 0.03 else event.who
        rows.append([who, at, event.what, draw.choice(TEXTS), event.result, draw.choice(TEXTS)])
    return rows + draw.sample(rows, 40)


def write_text(rows, path, *more):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join('"' + (value or "").replace('"', '""') + '"' for value in row) for row in rows]
    path.write_text("\n".join(["who,at,what,place,result,address", *lines, *more]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_messy_text_in_many_files(tmp_path, drop_duplicates):
    rows = messy_rows(1)
    for i in range(5):
        malformed = ["one,two", f"1,2,3,4,5,6,7,{i}"] if i % 2 else []
        write_text(rows[i::5] + rows[:10], tmp_path / "log" / f"{i}.csv", *malformed)
    write_text([], tmp_path / "log" / "only-names.csv")
    write_text(rows[:20], tmp_path / "log" / "open.csv", '1,2024-03-27 10:00:00,"login')
    found = assert_same(tmp_path / "log", small_schema(), tmp_path, drop_duplicates=drop_duplicates)
    assert found.num_kept > 150
    assert len(found.quarantined) == 4
    assert bool(found.num_duplicates) == drop_duplicates


def test_what_most_times_are_is_told_from_all_files(tmp_path):
    zoned = messy_rows(2, lambda draw: draw.choice(["Z", "+05:30", " America/St_Johns"]))
    write_text(zoned[:80], tmp_path / "log" / "0.csv")
    write_text(messy_rows(3)[:60], tmp_path / "log" / "1.csv")
    write_text(zoned[80:], tmp_path / "log" / "2.csv")
    assert_same(tmp_path / "log", small_schema(), tmp_path).quarantined["time without a zone where others have one"]
    for number, unit in enumerate([1, 1_000, 1_000]):
        seconds = [1_711_600_000 + 977 * i for i in range(60)]
        write_text(
            [["a", str(second * unit), "login", "", "", ""] for second in seconds], tmp_path / "n" / f"{number}.csv"
        )
    assert assert_same(tmp_path / "n", small_schema(), tmp_path / "of numbers").num_kept == 120


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_numbers_and_times_of_other_widths(tmp_path, drop_duplicates):
    rows = [
        row
        for row in messy_rows(4)
        if (row[0] or "").startswith("user") and len(row[1]) > 18 and row[1][:4] == "2024" and "EST" not in row[1]
    ]
    for i, (id_type, unit) in enumerate([("int64", "us"), ("int16", "ns"), ("uint32", "ms")]):
        some = rows[i::3] + rows[:12]
        table = pa.table(
            {
                "who": pa.array(
                    [int(row[0].split()[1]) if row[5] != "Ω" else None for row in some], getattr(pa, id_type)()
                ),
                "at": pa.array(
                    [datetime.fromisoformat(row[1]).replace(microsecond=0) for row in some], pa.timestamp(unit)
                ),
                **{name: pa.array([row[at] for row in some], pa.string()) for at, name in ((2, "what"), (3, "place"))},
                **{
                    name: pa.array([row[at] for row in some], pa.string())
                    for at, name in ((4, "result"), (5, "address"))
                },
            }
        )
        folder = tmp_path / "log" / f"part={i}"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "rows.parquet", row_group_size=30)
    schema = small_schema(extra=["address", "part"])
    found = assert_same(tmp_path / "log", schema, tmp_path, drop_duplicates=drop_duplicates)
    assert bool(found.num_duplicates) == drop_duplicates
    assert found.quarantined == {"no entity": found.num_read - found.num_duplicates - found.num_kept}


def test_a_folder_above_the_log_says_nothing_of_it(tmp_path, monkeypatch):
    rows = messy_rows(11)
    write_text(rows, tmp_path / "place=elsewhere" / "log" / "part=1" / "a.csv")
    write_text(rows, tmp_path / "place=elsewhere" / "log" / "part=2" / "a.csv")
    monkeypatch.chdir(tmp_path / "place=elsewhere")
    assert_same("log", small_schema(), tmp_path)


def test_days_are_replaced_and_others_stay(tmp_path):
    rows = messy_rows(5)
    write_text(rows, tmp_path / "log.csv")
    assert_same(tmp_path / "log.csv", small_schema(), tmp_path)
    write_text([row for row in rows if row[1].startswith("2024-03-3")], tmp_path / "log.csv")
    (tmp_path / "spark" / ".spark.by-a-killed-run.0.tmp").mkdir()
    replaced = assert_same(tmp_path / "log.csv", small_schema(), tmp_path).replaced
    assert replaced.num_days
    assert replaced.num_days_left
    assert not list((tmp_path / "spark").glob(".*"))


def test_runs_at_the_same_time_leave_each_other_what_they_write(tmp_path):
    out = tmp_path / "not yet" / "there"
    with hidden_folder(out) as one:
        (one / "a").touch()
        with hidden_folder(out) as other:
            assert other != one
        assert (one / "a").exists()
    assert not (tmp_path / "not yet").exists()


def test_executors_that_see_other_folders_are_told(tmp_path):
    with pytest.raises(
        InputError, match=f"executors don't see the driver's {tmp_path}: give folders that all machines"
    ):
        list(spark_tasks.write_days(None, None, tmp_path / "hidden", iter([])))
    assert not list(tmp_path.iterdir())


def test_an_entity_with_two_million_events(tmp_path, monkeypatch):
    monkeypatch.setattr(spark_log, "EVENTS_PER_TASK", 600_000)
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT CASE WHEN i < 2000000 THEN 'robot' ELSE 'user ' || (i % 3000) END AS who, "
            "make_timestamptz(1711600000000000 + (i * 7919) % 259200000 * 1000) AS at, "
            "CASE i % 5 WHEN 0 THEN 'login' WHEN 1 THEN 'edit.page' ELSE 'log_in' END AS what, "
            "'place ' || (i % 7) AS place, 'ok' AS result, NULL::VARCHAR AS address FROM range(2010000) rows(i)) "
            f"TO '{tmp_path / 'log.parquet'}' (FORMAT parquet, ROW_GROUP_SIZE 100000)"
        )
    assert assert_same(tmp_path / "log.parquet", small_schema(), tmp_path).num_kept == 2_010_000


def bad_logs(folder):
    """Logs that can't be used, each in its own way."""
    write_text([["", "soon", "login", "", "", ""]] * 3, folder / "no usable event" / "a.csv")
    write_text([], folder / "no rows" / "a.csv", "1,2")
    write_text(messy_rows(6), folder / "open quote" / "a.csv", '1,"2024', *["1,2,3,4,5,6"] * 9)
    write_text(messy_rows(6), folder / "swallowed" / "a.csv", '1,2024,login,a,ok,"b', *["1,2,3,4,5,6"] * 9, '"')
    write_text(messy_rows(6), folder / "other columns" / "a.csv")
    (folder / "other columns" / "b.csv").write_text("who,when\n")
    (folder / "columns missing").mkdir()
    pq.write_table(pa.table({"who": [1], "at": [1]}), folder / "columns missing" / "a.parquet")
    (folder / "nothing").mkdir()
    (folder / "damaged").mkdir()
    table = pa.table(
        {name: ["2024-03-26 10:00:00"] * 300 for name in ("who", "at", "what", "place", "result", "address")}
    )
    pq.write_table(table, folder / "damaged" / "a.parquet", compression="zstd")
    content = bytearray((folder / "damaged" / "a.parquet").read_bytes())
    content[20:60] = bytes(40)
    (folder / "damaged" / "a.parquet").write_bytes(content)
    return sorted(folder.iterdir())


def test_bad_logs_are_told_as_duckdb_tells_them(tmp_path):
    for log in bad_logs(tmp_path / "logs"):
        said = []
        for engine in ("duckdb", "spark"):
            with pytest.raises(InputError) as caught:
                aggregate(log, small_schema(), tmp_path / engine, engine=engine)
            said.append(str(caught.value))
        assert said[0] == said[1]
        assert "\n" not in said[1]
        assert not list((tmp_path / "spark").glob("ds=*"))


def test_a_session_that_is_there_stays_as_it_is(spark, tmp_path):
    write_text(messy_rows(7), tmp_path / "log.csv")
    before = spark.sparkContext.getConf().getAll()
    aggregate(tmp_path / "log.csv", small_schema(), tmp_path / "minutes", engine="spark")
    with pytest.raises(InputError, match=r"session on local\[2\]: stop it, or leave the master spark://else out"):
        aggregate(tmp_path / "log.csv", small_schema(), tmp_path / "minutes", engine="spark", master="spark://else")
    assert sorted(spark.sparkContext.getConf().getAll()) == sorted(before)
    assert {name: spark.conf.get(name) for name in ODD_SETTINGS} == ODD_SETTINGS
    assert spark.sparkContext.parallelize([1, 2]).sum() == 3


def test_executors_that_differ_or_fail_are_one_line(tmp_path, monkeypatch):
    write_text(messy_rows(9), tmp_path / "log.csv")

    def said():
        with pytest.raises(InputError) as caught:
            aggregate(tmp_path / "log.csv", small_schema(), tmp_path / "minutes", engine="spark")
        return str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr("infobehavior.spark.versions", lambda: {"duckdb": "0.1"})
        assert said().startswith(
            f"the executors have duckdb {duckdb.__version__}, the driver has 0.1: install the same"
        )
    monkeypatch.setattr(spark_tasks, "write_days", operator.truediv)
    assert said() == "Spark gave up: TypeError: truediv expected 2 arguments, got 4"
    assert not list((tmp_path / "minutes").glob(".*"))
    with pytest.raises(InputError, match=f"{tmp_path / 'minutes'} has no days"):
        open_minutes(tmp_path / "minutes")


def test_several_attempts_at_a_task_write_files_of_their_own(tmp_path):
    write_text(messy_rows(10), tmp_path / "log.csv")
    schema = small_schema()
    with spark_log.open_spark_log(
        tmp_path / "log.csv", schema, master=None, files=None, drop_duplicates=False, memory_limit=None, threads=None
    ) as log:
        plan = spark_plan.Plan.of(log.survey(), schema.time.time_zone, 10_000)
        [piece] = spark_log._pieces([tmp_path / "log.csv"], log.source, log.reader)
        events = list(spark_tasks.send_events(log.reader, log.clean, plan, iter([piece])))
        minutes = list(spark_tasks.send_minutes(log.reader, plan, iter(events)))
        (tmp_path / "h").mkdir()
        first, second = (list(spark_tasks.write_days(log.reader, plan, tmp_path / "h", iter(minutes))) for _ in "12")
    assert first[0].folder != second[0].folder
    assert folder_bytes(first[0].folder) == folder_bytes(second[0].folder)


def test_an_error_of_what_comes_to_a_task_is_not_told_as_one_of_its_log(tmp_path):
    """DuckDB reads what comes, and tells of its errors in words of its own."""
    file = write_parquet(random_events(), tmp_path / "log.parquet")
    reader, source = spark_log._reader_of([file], "the log", small_schema(), ("1GB", 1))
    clean = events_in_sql(source, TimeFacts(), small_schema())
    count = Guarded(partial(spark_tasks.count_events, reader, clean), versions())

    def sent(last):
        yield from spark_tasks.send_rows(reader, 1, spark_log._pieces([file], source, reader))
        yield last()

    def lost():
        raise EOFError("a worker is lost")

    assert list(count(sent(lambda: (0, Failed("an earlier task's line"))))) == [Failed("an earlier task's line")]
    with pytest.raises(EOFError, match="a worker is lost"):  # so that Spark tries again
        list(count(sent(lost)))


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    write_text(messy_rows(8), tmp_path / "log.csv")

    def said(**options):
        with pytest.raises(InputError) as caught:
            aggregate(tmp_path / "log.csv", small_schema(), tmp_path / "minutes", **options)
        return str(caught.value)

    assert said(engine="dask") == "engine must be duckdb or spark, got 'dask'"
    assert "for the engine spark" in said(master="local")
    assert "Spark Connect" in said(engine="spark", master="sc://host")
    assert "memory_limit can't be 'much'" in said(engine="spark", memory_limit="much")
    with monkeypatch.context() as patch:
        from pyspark import SparkContext

        patch.setattr(SparkContext, "_active_spark_context", None)
        patch.setenv("PATH", "")
        patch.delenv("JAVA_HOME", raising=False)
        patch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
        assert said(engine="spark") == "Spark needs Java 17 or later: install it, or set JAVA_HOME"
        patch.setitem(sys.modules, "pyspark", None)
        assert said(engine="spark") == "the engine spark needs pyspark: pip install 'infobehavior[spark]'"
