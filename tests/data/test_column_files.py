import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infobehavior.data.column_files import ColumnFile, column_on_disk, expect_reads_at_random
from infobehavior.errors import InputError

PARTS = [np.arange(5), np.arange(0), np.arange(70_000) - 5]


def mapped_in(folder) -> int:
    """How many files of a folder are mapped here, with or without a name."""
    return Path("/proc/self/maps").read_text().count(f" {folder}/")


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.bool_])
def test_a_column_is_its_parts(tmp_path, dtype):
    column = column_on_disk(tmp_path, (part.astype(dtype) for part in PARTS), dtype)
    expect_reads_at_random([column, np.arange(3)])
    assert column.dtype == dtype
    np.testing.assert_array_equal(column, np.concatenate(PARTS).astype(dtype))
    with pytest.raises(ValueError, match="read-only"):
        column[0] = 1


def test_a_column_without_values(tmp_path):
    column = ColumnFile(tmp_path, np.int32).column()
    expect_reads_at_random([column])
    assert column.dtype == np.int32
    assert len(column) == 0


def test_a_file_has_no_name_and_is_gone_with_its_last_reader(tmp_path):
    column = column_on_disk(tmp_path, PARTS, np.int64)
    tail = column[-3:]
    assert list(tmp_path.iterdir()) == []
    del column
    assert tail.tolist() == [69_992, 69_993, 69_994]
    assert mapped_in(tmp_path) == 1
    del tail
    assert mapped_in(tmp_path) == 0


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=f"in {tmp_path / 'nowhere'} .No such file or directory.: set TMPDIR"):
        ColumnFile(tmp_path / "nowhere", np.int32)


def test_a_full_disk_is_a_line_that_says_where_and_what_to_do(tmp_path):
    """A limit on the size of files stands for the disk."""
    program = """
import resource, sys
from pathlib import Path
import numpy as np
from infobehavior.data.column_files import column_on_disk
from infobehavior.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
try:
    column_on_disk(Path(sys.argv[1]), [np.arange(int(sys.argv[2]))], np.int64)
except InputError as error:
    sys.exit(str(error))
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    for num_values in (600, 60_000):
        words = [str(tmp_path), str(num_values)]
        process = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        assert process.stderr == (
            f"can't keep minutes in {tmp_path} (File too large): set TMPDIR to a folder on a disk with room for them\n"
        )
