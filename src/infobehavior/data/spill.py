"""A folder for what DuckDB can't hold in memory; what a killed process left is removed by the next one."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "infobehavior-spill-"
LOCK_FILE = "lock"
SECONDS_UNTIL_LOCKED = 60
"""A folder that is younger may not have been locked yet."""


@contextmanager
def spill_folder() -> Iterator[Path]:
    """A folder in TMPDIR, which is gone afterwards; after a kill, when the next one is made.

    It is locked meanwhile: the operating system frees the lock of a process that ends, however it ends.
    """
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, ExitStack() as stack:
        with suppress(NotImplementedError, OSError):  # a file system without locks; then nobody else removes it
            stack.enter_context(FileLock(Path(name) / LOCK_FILE, thread_local=False))
        yield Path(name)


def _remove_left() -> None:
    """Remove the folders that nobody has locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(Timeout, NotImplementedError, OSError):  # it is in use, or somebody else's
            if time.time() - folder.stat().st_mtime > SECONDS_UNTIL_LOCKED:
                with FileLock(folder / LOCK_FILE, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
