"""An experiment never writes into a folder of something else."""

import pytest

from infobehavior.errors import InputError
from infobehavior.experiments.folder import EXPERIMENT_FILE, mark_folder, refuse_foreign_folder


def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "part-000000.parquet").write_bytes(b"events")
    with pytest.raises(InputError, match="has files that aren't an experiment's"):
        refuse_foreign_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["part-000000.parquet"]


def test_a_new_folder_an_empty_one_and_one_of_an_experiment_are_taken(tmp_path):
    for folder in (tmp_path / "new", tmp_path):
        refuse_foreign_folder(folder)
    assert list(tmp_path.iterdir()) == []
    mark_folder(tmp_path)
    (tmp_path / "evaluated.parquet").write_bytes(b"")
    mark = (tmp_path / EXPERIMENT_FILE).read_bytes()
    refuse_foreign_folder(tmp_path)
    mark_folder(tmp_path)
    assert (tmp_path / EXPERIMENT_FILE).read_bytes() == mark


def test_what_a_kill_left_of_the_first_file_is_no_hindrance(tmp_path):
    (tmp_path / f".{EXPERIMENT_FILE}.1-00000000.{'0' * 32}.tmp").write_bytes(b"{")
    refuse_foreign_folder(tmp_path)
