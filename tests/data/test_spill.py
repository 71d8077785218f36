"""Nothing that DuckDB spilled piles up."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from infobehavior.data.spill import LOCK_FILE, PREFIX, SECONDS_UNTIL_LOCKED, spill_folder

KILLED = """
import os, signal
from infobehavior.data.spill import spill_folder
with spill_folder() as folder:
    (folder / "events.parquet").touch()
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def grow_old(folder):
    then = folder.stat().st_mtime - 2 * SECONDS_UNTIL_LOCKED
    os.utime(folder, (then, then))


def test_what_a_kill_left_is_removed_by_the_next_process(temporary):
    process = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    [left] = temporary.iterdir()
    assert process.stdout == f"{left}\n"
    with spill_folder():
        assert left.exists(), "it may be about to be locked"
    grow_old(left)
    with spill_folder() as folder:
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_what_is_in_use_or_not_ours_stays(temporary):
    (temporary / "infobehavior-results").mkdir()
    with spill_folder() as one:
        (one / "events.parquet").touch()
        for folder in temporary.iterdir():
            grow_old(folder)
        with spill_folder() as other:
            assert other != one
        assert (one / "events.parquet").exists()
    assert [path.name for path in temporary.iterdir()] == ["infobehavior-results"]


def test_a_file_system_without_locks(temporary, monkeypatch):
    def acquire(*given, **options):
        raise NotImplementedError

    left = temporary / f"{PREFIX}0"
    left.mkdir()
    (left / LOCK_FILE).touch()
    grow_old(left)
    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with spill_folder() as folder:
        assert folder.exists()
    assert list(temporary.iterdir()) == [left]
