"""Looks into delimited text itself: the names in its first line, its number of lines, where a quote begins."""

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import IO

from infobehavior.errors import InputError, one_line

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def is_csv(file: Path) -> bool:
    """True if a file's name says that it is delimited text."""
    return file.name.lower().endswith(CSV_SUFFIXES)


def csv_header(file: Path) -> tuple[list[str], str]:
    """The names of the columns, and the delimiter: the one of four that the first line has most of.

    Raises:
        InputError: the file is empty or can't be read, or its first line doesn't name each column, once.
    """
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty")
    try:
        with _text_of(file) as text:
            line = text.readline()
            delimiter = max(",\t;|", key=line.count)
            header = next(csv.reader(chain([line], text), delimiter=delimiter, strict=True), [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise InputError(f"can't read the first line of {file}: {one_line(error)}") from None
    if "" in header or len(set(header)) < len(header) or not header or "\ufffd" in line:
        raise InputError(f"the first line of {file} must name each column, once, in UTF-8: got {line.strip()[:200]!r}")
    return header, delimiter


def num_lines(file: Path) -> int:
    """Lines below the first that aren't blank."""
    with _text_of(file) as text:
        return sum(not line.isspace() for line in text) - 1


def line_of_value(files: Sequence[Path], value: str) -> str:
    """Where a quoted value of several lines begins, for messages: the file, and the line if it is found."""
    first, second = value.replace('"', '""').splitlines()[:2]
    for file in files:
        with _text_of(file) as text:
            for number, (line, after) in enumerate(pairwise(text), start=1):
                if line.rstrip("\r\n").endswith(f'"{first}') and after.rstrip("\r\n") == second:
                    return f"{file}, line {number}"
    return str(files[0]) if len(files) == 1 else f"one of {len(files)} files"


def _text_of(file: Path) -> IO[str]:
    if file.suffix.lower() == ".gz":
        return io.TextIOWrapper(gzip.open(file), encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")
