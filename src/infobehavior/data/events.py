"""Opens an event log: Parquet or CSV, one file or many."""

import glob
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior.data.csv_files import csv_header, is_csv, line_of_value, num_lines
from infobehavior.data.schema import Columns
from infobehavior.data.spill import spill_folder
from infobehavior.errors import InputError, one_line

PARQUET_SUFFIXES = (".parquet", ".pq")

ZONED_TIME_TYPES = frozenset({"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"})
NAIVE_TIME_TYPES = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"})
INTEGER_TYPES = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"} | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)
FRACTION_TYPES = ("FLOAT", "DOUBLE", "DECIMAL")
NUM_EXAMPLES = 3

MAX_OPEN_LINES = 3
"""A quote that is still open after so many lines was forgotten."""


@contextmanager
def connect(memory_limit: str | None = None, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that spills to a folder of its own, in UTC whatever the machine's time zone.

    Args:
        memory_limit: such as "4GB"; DuckDB's own choice by default.
        threads: how many; one per core by default.
    """
    with spill_folder() as spill, duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        # A log is read several times: keep what its files say of themselves, but not their contents, which the
        # operating system keeps.
        connection.execute("SET parquet_metadata_cache = true")
        connection.execute("SET enable_external_file_cache = false")
        connection.execute(f"SET temp_directory = {quoted_text(str(spill))}")
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
        num_malformed: lines of CSV rows with a wrong number of fields or broken quotes, which aren't among the rows.
        malformed_examples: some of them.
        description: what the caller called it, for messages.
        type_conflicts: what to say if a column is used whose type isn't the same in all files.
    """

    sql: str
    columns: dict[str, str]
    num_rows: int
    num_malformed: int
    malformed_examples: tuple[str, ...]
    description: str
    type_conflicts: Mapping[str, str] = field(default_factory=dict)

    def require(self, columns: Columns) -> None:
        """Check that the columns of a schema are there, in one type.

        Raises:
            InputError: one isn't; lists those that are.
        """
        missing = [repr(name) for name in columns.used() if name not in self.columns]
        if missing:
            there = ", ".join(self.columns)
            raise InputError(
                f"{self.description} has no column {', '.join(missing)}; it has {there}: edit [columns] of the schema"
            )
        for name in columns.used():
            if name in self.type_conflicts:
                raise InputError(self.type_conflicts[name])


@contextmanager
def readable(description: str) -> Iterator[None]:
    """Turn what DuckDB says about a log that it can't read into one line."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"{description} needs more memory or temporary space: raise the memory limit, use fewer threads, or set "
            f"TMPDIR to a larger disk ({first_line(error)})"
        ) from None
    except duckdb.Error as error:
        if "No space left on device" in str(error):
            raise InputError(
                f"the folder for temporary files, {tempfile.gettempdir()}, is full while {description} is read: set "
                "TMPDIR to a larger disk"
            ) from None
        raise InputError(f"can't read {description}: {first_line(error)}") from None


def first_line(error: Exception | str) -> str:
    """A message of DuckDB without the help that follows."""
    return one_line(next(iter(str(error).strip().splitlines()), ""))


def open_events(
    connection: duckdb.DuckDBPyConnection,
    source: str | Path,
    files: Sequence[Path] | None = None,
    *,
    may_be_empty: bool = False,
) -> EventSource:
    """Open an event log.

    Args:
        connection: from `connect`; what a CSV needs is kept in its temporary folder.
        source: a file, a glob, a folder, or a Hive-partitioned folder, of Parquet files or of CSV files. Files
            and folders whose names begin with ``_`` or ``.`` are left out.
        files: some of its files, sorted; all by default.
        may_be_empty: whether a log without rows is one.

    Raises:
        InputError: nothing is there, formats are mixed, a file can't be read, or there are no rows.
    """
    files = find_files(source) if files is None else files
    description = str(source)
    with readable(description):
        if is_parquet(files[0]):
            opened = _open_parquet(connection, files, description)
        else:
            opened = open_csv(connection, files, description)
    if not may_be_empty:
        refuse_empty(opened)
    return opened


def refuse_empty(source: EventSource) -> None:
    """Refuse a log without rows.

    Raises:
        InputError: there are none.
    """
    if source.num_rows == 0:
        malformed = f" that can be read ({source.num_malformed} malformed)" if source.num_malformed else ""
        raise InputError(f"{source.description} has no rows{malformed}")


def find_files(source: str | Path) -> list[Path]:
    """The files of an event log, sorted; see `open_events`.

    Raises:
        InputError: there are none, one is empty or neither Parquet nor CSV, or there are both.
    """
    matches = [Path(source)] if Path(source).exists() else _glob(str(source))
    odd = next((file for file in matches if file.is_file() and not is_parquet(file) and not is_csv(file)), None)
    if odd:
        raise InputError(f"{odd} is neither Parquet nor CSV; its name must end in .parquet, .csv or .csv.gz")
    # A glob such as events/** names folders, and what is in them too.
    files = sorted({file for match in matches for file in ([match] if match.is_file() else _files_under(match))})
    if not files:
        raise InputError(f"there are no events at {source}: no Parquet or CSV file was found")
    if len({is_parquet(file) for file in files}) > 1:
        raise InputError(f"{source} has both Parquet and CSV files; give a glob such as {source}/**/*.parquet")
    empty = next((file for file in files if file.stat().st_size == 0), None)
    if empty:
        raise InputError(f"{empty} is empty")
    if odd := next((file for file in files if not _is_utf8(file)), None):
        raise InputError(f"the log has a file whose name isn't UTF-8, {os.fsencode(odd)!r}: rename it")
    return files


def _is_utf8(file: Path) -> bool:
    try:
        return bool(str(file).encode())
    except UnicodeEncodeError:
        return False


def _files_under(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if is_parquet(file) or is_csv(file))
    return [file for file in files if file.is_file() and not is_hidden(file.relative_to(folder))]


def _glob(pattern: str) -> list[Path]:
    return [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (also absolute patterns)


def is_hidden(path: Path) -> bool:
    """Whether files below a log's folder, or folders on the way to them, are left out."""
    return any(part.startswith(("_", ".")) for part in path.parts)


def is_parquet(file: Path) -> bool:
    """True if a file's name says that it is Parquet."""
    return file.name.lower().endswith(PARQUET_SUFFIXES)


def _open_parquet(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], description: str) -> EventSource:
    kinds = _parquet_kinds(files[0])
    conflicts: dict[str, str] = {}
    for file in files[1:]:
        others = _parquet_kinds(file)
        absent = [repr(name) for name in kinds if name not in others]
        if absent:
            raise InputError(f"{file} has other columns than {files[0]}: no {', '.join(absent)}")
        for name in (name for name in kinds if kinds[name] != others[name]):
            conflicts.setdefault(name, _conflict(name, (files[0], kinds[name]), (file, others[name])))
    sql = f"read_parquet({_file_list(files)}, {hive_option(files, list(kinds))})"
    columns = described(connection, sql)
    return EventSource(sql, columns, _num_rows(connection, sql), 0, (), description, conflicts)


def _conflict(name: str, first: tuple[Path, str], other: tuple[Path, str]) -> str:
    return (
        f"column {name!r} is {first[1]} in {first[0]}, but {other[1]} in {other[0]}: write them "
        "alike, or give them one by one"
    )


def _parquet_kinds(file: Path) -> dict[str, str]:
    """What each column holds, in words, without the width of integers and the unit of times."""
    try:
        return {column.name: _kind(column.type) for column in pq.read_schema(file)}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is not a whole Parquet file ({one_line(error)}); write it again") from None


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_timestamp(kind):
        return "a time without a zone" if kind.tz is None else "a time with a zone"
    tests = {
        "an integer": pa.types.is_integer,
        "a fraction": lambda kind: pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        "text": lambda kind: (
            pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        ),
        "a date": pa.types.is_date,
    }
    return next((name for name, holds in tests.items() if holds(kind)), str(kind))


def described(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, str]:
    """DuckDB's type of each column of what stands after FROM."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()}


def _num_rows(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(only_row(connection, f"SELECT count(*) FROM {sql}")[0])


def only_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """The row of a query that has one."""
    (row,) = connection.execute(sql).fetchall()  # all of them, or DuckDB waits for more to be fetched
    found: tuple[Any, ...] = row
    return found


def _file_list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(quoted_text(str(file)) for file in files) + "]"


def hive_option(files: Sequence[Path], names: Sequence[str]) -> str:
    """Folders called ``key=value`` are columns, unless the files have them too."""
    keys = {part.split("=", 1)[0] for part in files[0].parts[:-1] if "=" in part}
    use = bool(keys) and not keys & set(names)
    return (
        f"hive_partitioning = {str(use).lower()}, hive_types_autocast = false" if use else "hive_partitioning = false"
    )


@dataclass(frozen=True)
class CsvFormat:
    """How the CSV files of a log are read, whichever of them are read together.

    Attributes:
        header: the names in their first line.
        delimiter: between two values.
        hive: what DuckDB is told of folders called ``key=value``.
    """

    header: tuple[str, ...]
    delimiter: str
    hive: str

    @classmethod
    def of(cls, files: Sequence[Path]) -> Self:
        """The format of files.

        Raises:
            InputError: they have different columns.
        """
        header, delimiter = csv_header(files[0])
        for file in files[1:]:
            if csv_header(file) != (header, delimiter):
                raise InputError(f"{file} has other columns than {files[0]}: {csv_header(file)[0]}, not {header}")
        return cls(tuple(header), delimiter, hive_option(files, header))

    def scan(self, files: Sequence[Path]) -> str:
        """What stands after FROM, for some of the files."""
        types = "{" + ", ".join(f"{quoted_text(name)}: 'VARCHAR'" for name in self.header) + "}"
        return (
            f"read_csv({_file_list(files)}, auto_detect = false, header = true, delim = {quoted_text(self.delimiter)}, "
            f"quote = '\"', escape = '\"', columns = {types}, store_rejects = true, rejects_limit = 0, {self.hive})"
        )


@dataclass(frozen=True)
class OpenQuote:
    """A quote that isn't closed: where, and how many line breaks DuckDB shows behind it."""

    file: str
    line: int
    num_breaks: int


@dataclass(frozen=True)
class CsvRows:
    """What was found in some CSV files; of several, added up.

    Attributes:
        num_rows: well-formed rows.
        num_malformed: lines of rows that aren't.
        examples: some of those, ascending.
        num_lost: lines of the files with an open quote that are neither.
        open_quote: the one with the most lines behind it.
    """

    num_rows: int = 0
    num_malformed: int = 0
    examples: tuple[str, ...] = ()
    num_lost: int = 0
    open_quote: OpenQuote | None = None

    def __add__(self, other: "CsvRows") -> "CsvRows":
        quotes = [quote for quote in (self.open_quote, other.open_quote) if quote]
        return CsvRows(
            self.num_rows + other.num_rows,
            self.num_malformed + other.num_malformed,
            tuple(sorted({*self.examples, *other.examples})[:NUM_EXAMPLES]),
            self.num_lost + other.num_lost,
            min(quotes, key=lambda quote: (-quote.num_breaks, quote.file, quote.line), default=None),
        )

    def refuse_lost(self) -> None:
        """Refuse to lose more than a few lines.

        DuckDB cuts the text of a rejected record, so what an open quote swallowed is told by counting lines.

        Raises:
            InputError: a quote swallowed more.
        """
        quote = self.open_quote
        if quote and max(self.num_lost, quote.num_breaks) > MAX_OPEN_LINES:
            raise InputError(
                f"{quote.file}, line {quote.line}: a quote opens that isn't closed, and "
                f"{self.num_lost + quote.num_breaks:,} lines after it are lost; close it, or double each quote inside "
                "of a value"
            )


def open_csv(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], description: str) -> EventSource:
    """Copy the well-formed rows to a temporary Parquet file, so that each later query sees the same ones.

    Raises:
        InputError: the files have different columns, or a quote that is never closed has swallowed rows.
    """
    form = CsvFormat.of(files)
    sql = copy_csv(connection, form, files)
    rows = look_into_csv(connection, sql, form, files)
    rows.refuse_lost()
    return csv_source(described(connection, sql), sql, rows, description)


def csv_source(columns: dict[str, str], sql: str, rows: CsvRows, description: str) -> EventSource:
    """A log of CSV files in which so much was found."""
    return EventSource(sql, columns, rows.num_rows, rows.num_malformed + rows.num_lost, rows.examples, description)


def copy_csv(connection: duckdb.DuckDBPyConnection, form: CsvFormat, files: Sequence[Path]) -> str:
    """SQL of a copy of files; what it left out is in the view `malformed`, one row a record."""
    folder, threads = only_row(connection, "SELECT current_setting('temp_directory'), current_setting('threads')")
    # Of more files than two a thread at once, DuckDB forgets the rows behind an open quote.
    copies = [
        _copy_csv(connection, form, files[i : i + 2 * threads], folder) for i in range(0, len(files), 2 * threads)
    ]
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW malformed AS SELECT file_path, line, min(error_message) AS error, "
        "bool_or(error_message LIKE '%unterminated quote%') AS is_open, "
        "any_value(trim(csv_line, chr(10) || chr(13))) AS text "
        "FROM reject_errors JOIN reject_scans USING (scan_id, file_id) GROUP BY scan_id, file_id, file_path, line"
    )
    return f"read_parquet({_file_list(copies)})"


def _copy_csv(connection: duckdb.DuckDBPyConnection, form: CsvFormat, files: Sequence[Path], folder: str) -> Path:
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".parquet", delete=False) as copy:
        pass
    connection.execute(f"COPY (SELECT * FROM {form.scan(files)}) TO {quoted_text(copy.name)} (FORMAT parquet)")
    return Path(copy.name)


def look_into_csv(connection: duckdb.DuckDBPyConnection, sql: str, form: CsvFormat, files: Sequence[Path]) -> CsvRows:
    """What `copy_csv` found in files.

    Raises:
        InputError: a quote has swallowed rows, which look like a value.
    """
    _refuse_swallowed_rows(connection, sql, form, files)
    num_malformed, examples = only_row(
        connection,
        f"SELECT coalesce(sum({_num_breaks('text')} + 1), 0)::BIGINT, min(DISTINCT text, {NUM_EXAMPLES}) "
        "FROM malformed",
    )
    found = CsvRows(_num_rows(connection, sql), num_malformed, tuple(examples or ()))
    quotes = connection.execute(
        f"SELECT file_path, line, {_num_breaks('text')} AS breaks FROM malformed WHERE is_open "
        "ORDER BY breaks DESC, file_path, line"
    ).fetchall()
    if not quotes:
        return found
    num_lost = sum(_num_lost(form, Path(file)) for file in {file for file, *_ in quotes})
    return replace(found, num_lost=num_lost, open_quote=OpenQuote(*quotes[0]))


def first_malformed(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The first row that `open_csv` left out: its file, its line and what is wrong; None if there is none."""
    row = connection.execute("SELECT file_path, line, error FROM malformed ORDER BY file_path, line LIMIT 1").fetchone()
    return None if row is None else f"{row[0]}, line {row[1]}: {first_line(row[2])}"


def _refuse_swallowed_rows(
    connection: duckdb.DuckDBPyConnection, sql: str, form: CsvFormat, files: Sequence[Path]
) -> None:
    """An open quote that a later one closes makes one value of all the rows between, which looks well-formed."""
    header = form.header
    breaks = [f"count(*) FILTER (contains({quoted(name)}, chr(10)))" for name in header]
    counts = only_row(connection, f"SELECT {', '.join(breaks)} FROM {sql}")
    for name in (name for name, count in zip(header, counts, strict=True) if count and len(header) > 1):
        value = quoted(name)
        delimiters = f"(length({value}) - length(replace({value}, {quoted_text(form.delimiter)}, '')))"
        found = connection.execute(
            f"SELECT {value} FROM {sql} WHERE {_num_breaks(value)} > {MAX_OPEN_LINES} "
            f"AND {delimiters} >= 0.9 * ({_num_breaks(value)} - 1) * {len(header) - 1} LIMIT 1"
        ).fetchone()
        if found:
            lines = found[0].count("\n")
            raise InputError(
                f"{line_of_value(files, found[0])}: the quote that opens in column {name!r} swallows {lines:,} lines "
                "that look like rows; close it there, or double each quote inside of a value"
            )


def _num_breaks(sql: str) -> str:
    """SQL of the number of line breaks in a text."""
    return f"(length({sql}) - length(replace({sql}, chr(10), '')))"


def _num_lost(form: CsvFormat, file: Path) -> int:
    """Lines of a file that are neither in rows nor in malformed ones."""
    inside = " + ".join(f"coalesce(sum({_num_breaks(quoted(name))}), 0)" for name in form.header)
    with connect() as connection:
        (in_rows,) = only_row(connection, f"SELECT count(*) + {inside} FROM {copy_csv(connection, form, [file])}")
        (malformed,) = only_row(connection, f"SELECT coalesce(sum({_num_breaks('text')} + 1), 0) FROM malformed")
    return max(0, num_lines(file) - int(in_rows) - int(malformed))
