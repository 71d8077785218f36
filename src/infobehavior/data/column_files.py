"""Columns on disk, in files without a name: what is read of them is in memory as long as there is room for it."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infobehavior.errors import InputError


class ColumnFile:
    """A column that is written to disk part by part.

    Its file has no name, so the operating system frees it as soon as nobody has the column any more, and when the
    process ends, however it ends. It is written, not mapped, so a disk that is full is an error like any other.

    Args:
        folder: on whose file system it is.
        dtype: of the values.

    Raises:
        InputError: nothing can be written there.
    """

    def __init__(self, folder: Path, dtype: Any) -> None:
        self._folder, self._dtype = folder, np.dtype(dtype)
        with _telling(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (`column` closes it)

    def append(self, values: NDArray[Any]) -> None:
        """Write some values after those that are there.

        Raises:
            InputError: the disk is full.
        """
        assert values.dtype == self._dtype
        with _telling(self._folder):
            self._file.write(np.ascontiguousarray(values).data)

    def column(self) -> NDArray[Any]:
        """The column, which can't be written to; this ends the writing."""
        with _telling(self._folder), self._file:
            self._file.flush()
            if self._file.tell() == 0:
                return np.zeros(0, self._dtype)
            return np.frombuffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ), self._dtype)


def column_on_disk(folder: Path, parts: Iterable[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """A column of some parts, one after the other.

    Args:
        folder: on whose file system it is.
        parts: its values.
        dtype: of the values.
    """
    file = ColumnFile(folder, dtype)
    for part in parts:
        file.append(part)
    return file.column()


def expect_reads_at_random(columns: Iterable[NDArray[Any]]) -> None:
    """Tell the operating system that what follows a value that is read will hardly be wanted, so not to read ahead."""
    for column in columns:
        mapped = column.base.obj if isinstance(column.base, memoryview) else None
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Say where an error happened, which a file without a name can't, and what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"can't keep minutes in {folder} ({error.strerror or error}): set TMPDIR to a folder on a disk with "
            "room for them"
        ) from error
