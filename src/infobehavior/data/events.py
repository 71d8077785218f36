"""Opens an event log: Parquet or CSV, one file or many."""

import csv
import glob
import gzip
import io
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior.data.schema import Columns
from infobehavior.errors import InputError, one_line

PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")

ZONED_TIME_TYPES = frozenset({"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"})
NAIVE_TIME_TYPES = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"})
INTEGER_TYPES = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"} | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)
FRACTION_TYPES = ("FLOAT", "DOUBLE", "DECIMAL")
NUM_EXAMPLES = 3


@contextmanager
def connect(memory_limit: str | None = None, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that spills to a folder of its own, in UTC whatever the machine's time zone.

    Args:
        memory_limit: such as "4GB"; DuckDB's own choice by default.
        threads: how many; one per core by default.
    """
    with (
        tempfile.TemporaryDirectory(prefix="infobehavior-") as spill,
        duckdb.connect(":memory:") as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"SET temp_directory = {quoted_text(spill)}")
        _set(connection, "memory_limit", memory_limit)
        _set(connection, "threads", threads)
        yield connection


def _set(connection: duckdb.DuckDBPyConnection, setting: str, value: str | int | None) -> None:
    if value is None:
        return
    try:
        connection.execute(f"SET {setting} = {quoted_text(str(value))}")
    except duckdb.Error as error:
        raise InputError(f"{setting} can't be {value!r}: {one_line(error)}") from None


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """A string as SQL."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class EventSource:
    """An event log that was found to be readable.

    Attributes:
        sql: what stands after FROM.
        columns: DuckDB's type of each column; of a CSV all are VARCHAR.
        num_rows: well-formed rows.
        num_malformed: CSV rows with a wrong number of fields or broken quotes, which aren't among the rows.
        malformed_examples: some of them.
        description: what the caller called it, for messages.
    """

    sql: str
    columns: dict[str, str]
    num_rows: int
    num_malformed: int
    malformed_examples: tuple[str, ...]
    description: str

    def require(self, columns: Columns) -> None:
        """Check that the columns of a schema are there.

        Raises:
            InputError: one isn't; lists those that are.
        """
        missing = [repr(name) for name in columns.used() if name not in self.columns]
        if missing:
            there = ", ".join(self.columns)
            raise InputError(
                f"{self.description} has no column {', '.join(missing)}; it has {there}: edit [columns] of the schema"
            )


@contextmanager
def readable(description: str) -> Iterator[None]:
    """Turn what DuckDB says about a log that it can't read into one line."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"{description} needs more memory or temporary space: raise the memory limit, use fewer threads, or set "
            f"TMPDIR to a larger disk ({one_line(error)})"
        ) from None
    except duckdb.Error as error:
        raise InputError(f"can't read {description}: {one_line(error)}") from None


def open_events(connection: duckdb.DuckDBPyConnection, source: str | Path) -> EventSource:
    """Open an event log.

    Args:
        connection: from `connect`; what a CSV needs is kept in its temporary folder.
        source: a file, a glob, a folder, or a Hive-partitioned folder, of Parquet files or of CSV files. Files
            and folders whose names begin with ``_`` or ``.`` are left out.

    Raises:
        InputError: nothing is there, formats are mixed, a file can't be read, or there are no rows.
    """
    files = _find_files(source)
    description = str(source)
    with readable(description):
        if _is_parquet(files[0]):
            opened = _open_parquet(connection, files, description)
        else:
            opened = _open_csv(connection, files, description)
    if opened.num_rows == 0:
        raise InputError(f"{description} has no rows that can be read ({opened.num_malformed} malformed)")
    return opened


def _find_files(source: str | Path) -> list[Path]:
    matches = [Path(source)] if Path(source).exists() else _glob(str(source))
    odd = next((file for file in matches if file.is_file() and not _is_parquet(file) and not _is_csv(file)), None)
    if odd:
        raise InputError(f"{odd} is neither Parquet nor CSV; its name must end in .parquet, .csv or .csv.gz")
    files = [file for match in matches for file in ([match] if match.is_file() else _files_under(match))]
    if not files:
        raise InputError(f"there are no events at {source}: no Parquet or CSV file was found")
    if len({_is_parquet(file) for file in files}) > 1:
        raise InputError(f"{source} has both Parquet and CSV files; give a glob such as {source}/**/*.parquet")
    empty = next((file for file in files if file.stat().st_size == 0), None)
    if empty:
        raise InputError(f"{empty} is empty")
    return sorted(files)


def _files_under(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if _is_parquet(file) or _is_csv(file))
    return [file for file in files if file.is_file() and not _is_hidden(file.relative_to(folder))]


def _glob(pattern: str) -> list[Path]:
    return [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (also absolute patterns)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.parts)


def _is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET_SUFFIXES)


def _is_csv(file: Path) -> bool:
    return file.name.lower().endswith(CSV_SUFFIXES)


def _open_parquet(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], description: str) -> EventSource:
    names = _parquet_columns(files[0])
    for file in files[1:]:
        absent = [repr(name) for name in names if name not in set(_parquet_columns(file))]
        if absent:
            raise InputError(f"{file} has other columns than {files[0]}: no {', '.join(absent)}")
    sql = f"read_parquet({_file_list(files)}, {_hive(files, names)})"
    return _described(connection, sql, description, 0, ())


def _parquet_columns(file: Path) -> list[str]:
    try:
        names: list[str] = pq.read_schema(file).names
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is not a whole Parquet file ({one_line(error)}); write it again") from None
    return names


def _described(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    description: str,
    num_malformed: int,
    examples: Sequence[str],
) -> EventSource:
    columns = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()}
    num_rows = only_row(connection, f"SELECT count(*) FROM {sql}")[0]
    return EventSource(sql, columns, num_rows, num_malformed, tuple(examples), description)


def only_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """The row of a query that has one."""
    row: tuple[Any, ...] | None = connection.execute(sql).fetchone()
    assert row is not None
    return row


def _file_list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(quoted_text(str(file)) for file in files) + "]"


def _hive(files: Sequence[Path], names: Sequence[str]) -> str:
    """Folders called ``key=value`` are columns, unless the files have them too."""
    keys = {part.split("=", 1)[0] for part in files[0].parts[:-1] if "=" in part}
    use = bool(keys) and not keys & set(names)
    return (
        f"hive_partitioning = {str(use).lower()}, hive_types_autocast = false" if use else "hive_partitioning = false"
    )


def _open_csv(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], description: str) -> EventSource:
    """Copy the well-formed rows to a temporary Parquet file, so that each later query sees the same ones."""
    header, delimiter = _csv_header(files[0])
    for file in files[1:]:
        if _csv_header(file) != (header, delimiter):
            raise InputError(f"{file} has other columns than {files[0]}: {_csv_header(file)[0]}, not {header}")
    types = "{" + ", ".join(f"{quoted_text(name)}: 'VARCHAR'" for name in header) + "}"
    scan = (
        f"read_csv({_file_list(files)}, auto_detect = false, header = true, delim = {quoted_text(delimiter)}, "
        f"quote = '\"', escape = '\"', columns = {types}, store_rejects = true, rejects_limit = 0, "
        f"{_hive(files, header)})"
    )
    folder = only_row(connection, "SELECT current_setting('temp_directory')")[0]
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".parquet", delete=False) as copy:
        pass
    connection.execute(f"COPY (SELECT * FROM {scan}) TO {quoted_text(copy.name)} (FORMAT parquet)")
    num_malformed, examples = only_row(
        connection,
        f"SELECT count(DISTINCT (file_id, line)), min(DISTINCT csv_line, {NUM_EXAMPLES}) FROM reject_errors",
    )
    sql = f"read_parquet({quoted_text(copy.name)})"
    return _described(connection, sql, description, num_malformed, examples or ())


def _csv_header(file: Path) -> tuple[list[str], str]:
    """The names of the columns, and the delimiter: the one of four that the first line has most of."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
            line = text.readline()
            delimiter = max(",\t;|", key=line.count)
            header = next(csv.reader(chain([line], text), delimiter=delimiter, strict=True), [])
            text.detach()
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise InputError(f"can't read the first line of {file}: {one_line(error)}") from None
    if "" in header or len(set(header)) < len(header) or not header or "\ufffd" in line:
        raise InputError(f"the first line of {file} must name each column, once, in UTF-8: got {line.strip()[:200]!r}")
    return header, delimiter
