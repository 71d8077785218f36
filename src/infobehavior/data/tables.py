"""Small tables that users bring, of moments or of labels: Parquet or CSV, read whole."""

from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from infobehavior.data.clock import parse_moment
from infobehavior.data.csv_files import is_csv
from infobehavior.data.events import connect, first_line, first_malformed, open_csv, quoted_text, readable
from infobehavior.errors import InputError

# Whole years within those of `datetime`, so that each moment has a local time in every zone.
EARLIEST_MOMENT, LATEST_MOMENT = (parse_moment(date(year, 1, 1), "UTC") for year in (2, 9999))


def read_table(path: Path) -> pa.Table:
    """Read a table; of a CSV all columns are text.

    Raises:
        InputError: there is no such file, it can't be read, or a row of a CSV is malformed.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give one file of Parquet or CSV")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    with connect(threads=1) as connection:
        return _read_csv(connection, path) if is_csv(path) else _read_parquet(connection, path)


def _read_csv(connection: duckdb.DuckDBPyConnection, path: Path) -> pa.Table:
    with readable(str(path)):
        opened = open_csv(connection, [path], str(path))
        malformed = first_malformed(connection)
        if malformed:
            raise InputError(f"{malformed}; mend this row ({opened.num_malformed} can't be read)")
        return connection.sql(f"SELECT * FROM {opened.sql}").to_arrow_table()


def _read_parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> pa.Table:
    try:
        source = f"read_parquet({quoted_text(str(path))}, hive_partitioning = false)"
        return connection.sql(f"SELECT * FROM {source}").to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"can't read {path} as Parquet: {first_line(error)}") from None


def column_moments(column: pa.ChunkedArray, time_zone: str, where: str, *, latest: bool = False) -> pa.Array:
    """Microseconds since the epoch of each value, null for null; few are distinct, so each distinct one is read once.

    Args:
        column: times with or without a zone, dates, or text.
        time_zone: of times without one.
        where: the table, for messages.
        latest: which of the moments that one local time may mean, see `parse_moment`.

    Raises:
        InputError: a value isn't a moment, or lies outside the years 2 to 9998.
    """
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    chunks = column.dictionary_encode().unify_dictionaries().chunks
    values = chunks[0].dictionary.to_pylist() if chunks else []
    moments = pa.array([as_moment(value, time_zone, where, latest=latest) for value in values], pa.int64())
    return pa.concat_arrays([moments.take(chunk.indices) for chunk in chunks]) if chunks else moments


def as_moment(value: object, time_zone: str, where: str, *, latest: bool = False) -> int:
    """Microseconds since the epoch of one value; see `column_moments`."""
    try:
        moment = parse_moment(value, time_zone, latest=latest)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: as_of can't be read as a moment: {error}") from None
    if not EARLIEST_MOMENT <= moment < LATEST_MOMENT:
        raise InputError(
            f"{where}: as_of {value} is outside of the years 2 to 9998; leave rows out that stand for never"
        )
    return moment


def numpy_moments(moments: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Moments without nulls, as an array."""
    array: np.ndarray[tuple[int], np.dtype[np.int64]] = moments.to_numpy(zero_copy_only=False).astype(np.int64)
    return array
