from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infobehavior.data import day_files
from infobehavior.data.day_files import write_day
from infobehavior.data.minutes import partition_file
from infobehavior.errors import InputError

DAY = date(2024, 3, 31)


def tables(*sizes: int) -> list[pa.Table]:
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    minutes = [list(range(first, first + size)) for first, size in zip(firsts, sizes, strict=True)]
    return [
        pa.table({"minute": pa.array(of_table, pa.int32()), "num_events": pa.array([2] * len(of_table), pa.int64())})
        for of_table in minutes
    ]


@pytest.fixture(autouse=True)
def row_groups_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_files, "ROW_GROUP_ROWS", 10)
    monkeypatch.setattr(day_files, "_parquet_writer", lambda path, schema: pq.ParquetWriter(path, schema))


def test_a_file_is_in_its_place_when_it_is_finished(tmp_path: Path) -> None:
    file = write_day(tmp_path, DAY, iter(tables(4, 25, 0, 3)))
    assert not partition_file(tmp_path, DAY).exists()
    assert file.finish() is file
    written = pq.ParquetFile(partition_file(tmp_path, DAY))
    assert [written.metadata.row_group(i).num_rows for i in range(written.num_row_groups)] == [10, 10, 10, 2]
    assert written.read()["minute"].to_pylist() == list(range(32))
    assert (file.day, file.num_rows, file.num_events) == (DAY, 32, 64)
    assert left_over(tmp_path) == [partition_file(tmp_path, DAY)]


def test_a_day_that_is_not_accepted_is_left_as_it_was(tmp_path: Path) -> None:
    write_day(tmp_path, DAY, iter(tables(4))).finish()
    before = partition_file(tmp_path, DAY).read_bytes()

    def refuse(day: date, num_events: int) -> None:
        raise InputError(f"{day} has {num_events} events")

    with pytest.raises(InputError, match="2024-03-31 has 24 events"):
        write_day(tmp_path, DAY, iter(tables(12)), refuse)
    assert left_over(tmp_path) == [partition_file(tmp_path, DAY)]
    assert partition_file(tmp_path, DAY).read_bytes() == before


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def second_time(real: Callable[..., object]) -> Callable[..., object]:
    calls = []

    def write(*given: object, **named: object) -> object:
        calls.append(given)
        return real(*given, **named) if len(calls) == 1 else full_disk()

    return write


def test_a_disk_that_is_full_at_the_second_row_group_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pq.ParquetWriter, "write_table", second_time(pq.ParquetWriter.write_table))
    with pytest.raises(OSError, match="No space left") as caught:
        write_day(tmp_path, DAY, iter(tables(15, 15)))
    assert caught.value.filename == str(partition_file(tmp_path, DAY))
    assert left_over(tmp_path) == []


def test_rows_that_can_not_be_made_leave_nothing(tmp_path: Path) -> None:
    def fail() -> object:
        yield from tables(15)
        raise OSError("Out of Memory Error: of DuckDB")

    with pytest.raises(OSError, match="of DuckDB") as caught:
        write_day(tmp_path, DAY, fail())
    assert caught.value.filename is None
    assert left_over(tmp_path) == []


def test_a_disk_that_is_full_at_the_end_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_day(tmp_path, DAY, iter(tables(5))).finish()
    before = partition_file(tmp_path, DAY).read_bytes()
    file = write_day(tmp_path, DAY, iter(tables(15)))
    monkeypatch.setattr(day_files, "move_into_place", full_disk)
    with pytest.raises(OSError, match="No space left"):
        file.finish()
    assert partition_file(tmp_path, DAY).read_bytes() == before
    assert left_over(tmp_path) == [partition_file(tmp_path, DAY)]
