import os
import shutil
import signal
import subprocess
import sys
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infobehavior import InputError, embed, pretrain, publish
from infobehavior.cli import main
from small_minutes import folder_bytes, tiny_config

deltalake = pytest.importorskip("deltalake")

DAYS = ("2024-03-31", "2024-04-01")


@pytest.fixture(scope="module")
def table(minutes, model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    for day in DAYS:
        embed(minutes.path, model_folder, folder / "table", date=day)
    return folder / "table"


def rows_of(arrow):
    return sorted(
        (row["ds"], row["entity_id"], tuple(row["embedding"]), row["num_events"]) for row in arrow.to_pylist()
    )


def delta_rows(path):
    return rows_of(deltalake.DeltaTable(str(path)).to_pyarrow_table())


def local_rows(table):
    return rows_of(
        duckdb.sql(f"SELECT * FROM read_parquet('{table}/ds=*/*.parquet', hive_types = {{ds: DATE}})").to_arrow_table()
    )


def test_the_rows_of_all_days_are_there_once(table, tmp_path, capsys):
    assert main(["publish", str(table), "--to", str(tmp_path / "delta")]) == 0
    assert "2 days, 2024-03-31 to 2024-04-01, written" in capsys.readouterr().out
    assert delta_rows(tmp_path / "delta") == local_rows(table)
    assert deltalake.DeltaTable(str(tmp_path / "delta")).metadata().partition_columns == ["ds"]


def test_what_is_there_is_not_written_again_and_what_changed_is(minutes, model_folder, table, tmp_path):
    copy, to = shutil.copytree(table, tmp_path / "table"), str(tmp_path / "delta")
    first = publish(copy, to)
    again = publish(copy, to)
    assert (again.days, again.num_there, again.version) == ((), 2, first.version)
    partition = copy / f"ds={DAYS[0]}" / "embeddings.parquet"
    whole = pq.read_table(partition, partitioning=None)
    pq.write_table(whole.slice(0, 3), partition)
    assert publish(copy, to).days == (date.fromisoformat(DAYS[0]),)
    assert delta_rows(to) == local_rows(copy)
    shutil.rmtree(copy / f"ds={DAYS[1]}")
    embed(minutes.path, model_folder, copy, date="2024-04-02")
    assert publish(copy, to).days == (date(2024, 4, 2),)
    days = [row[0] for row in delta_rows(to)]
    assert {day.isoformat(): days.count(day) for day in days}[DAYS[0]] == 3
    assert {day.isoformat() for day in days} == {*DAYS, "2024-04-02"}


def test_a_day_that_was_deleted_or_restored_away_is_written_again(table, tmp_path):
    to = str(tmp_path / "delta")
    publish(table, to)
    changes = (
        (lambda there: there.delete(f"ds = '{DAYS[0]}'"), DAYS[:1]),
        (
            lambda there: there.delete(f"ds = '{DAYS[1]}' AND num_events = 1 OR ds = '{DAYS[1]}' AND num_events > 1"),
            DAYS[1:],
        ),
        (lambda there: there.restore(0), DAYS),
    )
    for change, days in changes:
        change(deltalake.DeltaTable(to))
        assert delta_rows(to) != local_rows(table)
        assert publish(table, to).days == tuple(map(date.fromisoformat, days))
        assert delta_rows(to) == local_rows(table)
        assert publish(table, to).days == ()


def test_a_day_of_as_many_rows_that_was_restored_away_is_written_again(table, tmp_path):
    copy, to = shutil.copytree(table, tmp_path / "table"), str(tmp_path / "delta")
    publish(copy, to)
    before = deltalake.DeltaTable(to).version()
    partition = copy / f"ds={DAYS[0]}" / "embeddings.parquet"
    whole = pq.read_table(partition, partitioning=None)
    counts = pa.array([count + 1 for count in whole["num_events"].to_pylist()], whole.schema.field("num_events").type)
    pq.write_table(whole.set_column(whole.schema.get_field_index("num_events"), "num_events", counts), partition)
    assert publish(copy, to).days == (date.fromisoformat(DAYS[0]),)
    deltalake.DeltaTable(to).restore(before)
    assert delta_rows(to) != local_rows(copy)
    publish(copy, to)
    assert delta_rows(to) == local_rows(copy)
    assert publish(copy, to).days == ()


def test_a_table_whose_files_were_put_together_is_as_it_was(table, tmp_path):
    to = str(tmp_path / "delta")
    publish(table, to)
    deltalake.DeltaTable(to).optimize.compact()
    assert publish(table, to).days == ()


def test_other_tables_are_refused(minutes, table, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a folder of embeddings"):
        publish(tmp_path, str(tmp_path / "delta"))
    deltalake.write_deltalake(tmp_path / "theirs", pq.read_table(minutes.file(minutes.days[0]), partitioning=None))
    with pytest.raises(InputError, match="is a Delta table of something else"):
        publish(table, str(tmp_path / "theirs"))
    publish(table, str(tmp_path / "delta"))
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(seed=5))
    embed(minutes.path, tmp_path / "model", tmp_path / "other", date=DAYS[0])
    with pytest.raises(InputError, match="has embeddings of model"):
        publish(tmp_path / "other", str(tmp_path / "delta"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to the Delta table"):
        publish(table, str(tmp_path / "file"))
    with pytest.raises(InputError, match="can't write to the Delta table"):
        publish(table, "nowhere://bucket/table")
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InputError, match=r"publish needs deltalake: pip install 'infobehavior\[delta\]'"):
        publish(table, str(tmp_path / "delta"))


def test_what_deltalake_says_is_told_in_a_line_without_its_traces(table, tmp_path):
    to = tmp_path / "delta"
    publish(table, str(to))
    (to / "_delta_log" / f"{0:020}.json").write_text("garbage")
    with pytest.raises(InputError, match="can't write to the Delta table") as raised:
        publish(table, str(to))
    assert not any(sign in str(raised.value) for sign in ("\n", " 0: ", "start_thread", "\x1b"))


def test_a_table_is_not_published_into_itself(minutes, table):
    """Or `ds=*/*.parquet` would find each row twice."""
    before = folder_bytes(table)
    for to in (str(table), f"file://{table}", str(minutes.path)):
        with pytest.raises(InputError, match="is a folder of infobehavior's own; give another one"):
            publish(table, to)
    assert folder_bytes(table) == before


def test_a_partition_that_lacks_a_column_or_is_damaged_is_told_in_a_line(table, tmp_path):
    copy = shutil.copytree(table, tmp_path / "table")
    partition = copy / f"ds={DAYS[0]}" / "embeddings.parquet"
    pq.write_table(pq.ParquetFile(partition).read().drop_columns(["entity_id"]), partition)
    with pytest.raises(InputError, match=rf"{DAYS[0]}/embeddings\.parquet has no column entity_id"):
        publish(copy, str(tmp_path / "delta"))
    partition.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=rf"{DAYS[0]}/embeddings\.parquet is damaged"):
        publish(copy, str(tmp_path / "delta"))
    assert not (tmp_path / "delta").exists()


def test_a_writer_that_others_were_in_the_way_of_looks_again(table, tmp_path, monkeypatch):
    """Another commits the same day, or another one, or makes the table, at the moment of the commit."""
    to, write = str(tmp_path / "delta"), deltalake.write_deltalake
    others = iter([lambda: publish(table, to), lambda: None])

    def in_the_way(*given, **options):
        next(others, lambda: None)()
        return write(*given, **options)

    monkeypatch.setattr(deltalake, "write_deltalake", in_the_way)
    summary = publish(table, to)
    assert (summary.days, summary.num_there) == ((), 2)
    assert delta_rows(to) == local_rows(table)


PUBLISH = "import sys; from infobehavior import publish; publish(*sys.argv[1:])"


def test_two_writers_at_once_leave_each_day_once(table, tmp_path):
    to = str(tmp_path / "delta")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    tables = [shutil.copytree(table, tmp_path / f"table {i}") for i in range(2)]
    shutil.rmtree(tables[0] / f"ds={DAYS[0]}")
    publish(table, to)
    partition = tables[0] / f"ds={DAYS[1]}" / "embeddings.parquet"
    pq.write_table(pq.read_table(partition, partitioning=None).slice(0, 4), partition)
    partition = tables[1] / f"ds={DAYS[0]}" / "embeddings.parquet"
    pq.write_table(pq.read_table(partition, partitioning=None).slice(0, 5), partition)
    shutil.rmtree(tables[1] / f"ds={DAYS[1]}")
    writers = [subprocess.Popen([sys.executable, "-c", PUBLISH, str(one), to], env=environment) for one in tables]
    assert [writer.wait() for writer in writers] == [0, 0]
    days = [row[0].isoformat() for row in delta_rows(to)]
    assert (days.count(DAYS[0]), days.count(DAYS[1])) == (5, 4)


KILLED = """
import os, signal, sys
import pyarrow as pa
from infobehavior import publish
from infobehavior.embedding import delta

rows = delta._rows

def dying(partition, day):
    reader = rows(partition, day)
    def batches():
        for batch in reader:
            yield batch
        if str(day) == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
    return pa.RecordBatchReader.from_batches(reader.schema, batches())

delta._rows = dying
publish(*sys.argv[1:3])
"""


def test_a_kill_leaves_the_version_before_and_a_rerun_goes_on(table, tmp_path):
    to = str(tmp_path / "delta")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(table), to, DAYS[1]]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert {row[0].isoformat() for row in delta_rows(to)} == {DAYS[0]}
    assert publish(table, to).days == (date.fromisoformat(DAYS[1]),)
    assert delta_rows(to) == local_rows(table)
