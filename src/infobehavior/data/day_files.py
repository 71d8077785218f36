"""Writes the minutes of a day as one Parquet file, row group by row group, and puts it into its place at once."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infobehavior.artefacts import beside, move_into_place
from infobehavior.data.minutes import partition_file

ROW_GROUP_ROWS = 131_072


Accept = Callable[[date, int], None]
"""Raises an InputError if a day isn't to be replaced by one of so many events; called before it is."""


def accept_any(day: date, num_events: int) -> None:
    """Every day is taken as it came."""


def write_day(folder: Path, day: date, tables: Iterable[pa.Table], accept: Accept = accept_any) -> "DayFile":
    """Write the minutes of a day beside their place, a row group at a time."""
    file = DayFile(folder, day)
    with file.removed_after_an_error():
        for rows in _row_groups(tables):
            file.write(rows)
        accept(day, file.num_events)
    return file


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, ROW_GROUP_ROWS at a time, so that a file doesn't depend on how its day was cut."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        while sum(map(len, pending)) >= ROW_GROUP_ROWS:
            rows = pa.concat_tables(pending)
            yield rows.slice(0, ROW_GROUP_ROWS).combine_chunks()
            pending = [rows.slice(ROW_GROUP_ROWS)]
    if any(map(len, pending)):
        yield pa.concat_tables(pending).combine_chunks()


class DayFile:
    """The file of a day, first beside its place, then there.

    Args:
        folder: of the minutes.
        day: whose they are.
    """

    def __init__(self, folder: Path, day: date) -> None:
        self.day, self.num_rows, self.num_events = day, 0, 0
        self._target = partition_file(folder, day)
        self._stack = ExitStack()
        self._temporary = self._stack.enter_context(beside(self._target))
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Write a row group."""
        self._writer = self._writer or self._stack.enter_context(_parquet_writer(self._temporary, rows.schema))
        self._writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
        self.num_rows += len(rows)
        self.num_events += pc.sum(rows["num_events"]).as_py()

    def finish(self) -> Self:
        """Put it into its place, when the disk has confirmed it."""
        with self._stack:
            assert self._writer is not None
            self._writer.close()
            move_into_place(self._temporary, self._target)
        return self

    @contextmanager
    def removed_after_an_error(self) -> Iterator[None]:
        """If what is done here fails, nothing is left of the file."""
        with ExitStack() as stack:
            stack.push(self._stack)
            yield
            stack.pop_all()


def _parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Compact, and the same bytes for the same rows."""
    repetitive = [name for name in schema.names if _is_repetitive(schema.field(name))]
    numbers = ["counts.list.element" if name == "counts" else name for name in schema.names]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=repetitive,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in numbers if name not in repetitive},
        store_schema=False,
    )


def _is_repetitive(column: pa.Field) -> bool:
    """Whether values are written once: texts, and tokens, whose bits have no small differences."""
    return bool(pa.types.is_string(column.type)) or column.name.startswith("levels_")
