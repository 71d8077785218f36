import json
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from infobehavior import artefacts
from infobehavior.artefacts import (
    UNFINISHED_FILE,
    beside,
    definition_hash,
    read_json,
    refuse_another_run,
    refuse_interrupted,
    unfinished,
    unfinished_day,
    write_atomically,
    write_json,
    write_text,
    write_together,
    writing,
)
from infobehavior.errors import InputError


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    target = tmp_path / "new folder" / "file.txt"
    write_text(target, "old")
    write_text(target, "new")
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(target, fail)
    assert error.value.filename == str(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_the_file_system_names_the_target(tmp_path):
    target = tmp_path / "of a folder" / "a.json"
    target.mkdir(parents=True)
    (target / "something").touch()
    with pytest.raises(OSError, match="directory") as raised:
        write_atomically(target, lambda path: path.write_text("new"))
    assert raised.value.filename == str(target)
    assert ".tmp" not in str(raised.value.filename)


def test_files_that_are_written_together_are_all_whole_before_the_first_is_moved(tmp_path, monkeypatch):
    one, other = tmp_path / "one.json", tmp_path / "other.html"
    write_together({one: "old", other: "old"})
    moved, move = [], artefacts.move_into_place

    def die_at_the_second(temporary, target):
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        move(temporary, target)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "move_into_place", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            write_together({one: "new", other: "new"})
    assert (one.read_text(), other.read_text()) == ("new", "old")
    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "_write_bytes", fail)
        with pytest.raises(OSError, match="No space left"):
            write_together({one: "newer", other: "newer"})
    assert (one.read_text(), other.read_text()) == ("new", "old")
    write_together({one: "new", other: "new"})
    assert other.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_the_temporary_file_is_hidden_and_beside_the_target(tmp_path):
    seen = []
    write_atomically(tmp_path / "a.parquet", lambda path: (seen.append(path), path.write_text("x")))
    [temporary] = seen
    assert temporary.parent == tmp_path
    assert temporary.name.startswith(".a.parquet.")


def test_a_kill_leaves_the_old_file_and_the_next_write_clears_up(tmp_path):
    target = tmp_path / "file.txt"
    write_text(target, "old")
    program = (
        "import os, signal, sys; from pathlib import Path; from infobehavior.artefacts import write_atomically\n"
        "def die(path): path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), die)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_text(target, "new")
    assert list(tmp_path.iterdir()) == [target]


def test_json_is_readable_sorted_and_without_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1\n  ],\n  "b": "ä"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json", "a test") == {"a": [1], "b": "ä"}


@pytest.mark.parametrize("content", [b"{", b"\xff", b"", b"[" * 100_000, b"9" * 5_000])
def test_json_that_is_damaged(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read_json(tmp_path / "a.json", "a test")
    with pytest.raises(InputError, match=r"is not a test: it has no b\.json"):
        read_json(tmp_path / "b.json", "a test")


def test_an_unfinished_folder_is_refused_until_the_same_run_ends(tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(KeyboardInterrupt), writing(folder, "the writing of a"):
        raise KeyboardInterrupt
    assert json.loads((folder / UNFINISHED_FILE).read_text()) == {"what": "the writing of a"}
    with pytest.raises(InputError, match="is unfinished: the writing of a is still running or was interrupted"):
        refuse_interrupted(folder)
    with pytest.raises(InputError, match="the writing of a was interrupted"), writing(folder, "the writing of b"):
        pytest.fail("another run must not begin")
    with writing(folder, "the writing of a"):
        pass
    refuse_interrupted(folder)
    assert list(folder.iterdir()) == []


def test_hashes_name_contents_whatever_their_order():
    assert definition_hash({"a": 1, "b": [2]}) == definition_hash({"b": [2], "a": 1})
    assert len({definition_hash(content) for content in ({"a": 1}, {"a": 2}, {"b": 1}, [1], "1", 1)}) == 6


def test_a_run_of_days_may_be_taken_over_by_one_of_these_days_and_more(tmp_path):
    days = [date(2024, 3, day) for day in (30, 31)]
    with pytest.raises(KeyboardInterrupt), writing(tmp_path, "both days", days=days):
        raise KeyboardInterrupt
    assert unfinished(tmp_path) == "both days"
    for others in ((), days[:1], [days[0], date(2024, 4, 1)]):
        with pytest.raises(InputError, match="both days was interrupted"), writing(tmp_path, "others", days=others):
            pytest.fail("another run must not begin")
    with writing(tmp_path, "three days", days=[*days, date(2024, 4, 1)]):
        assert unfinished(tmp_path) == "three days"
    assert unfinished(tmp_path) is None


@pytest.mark.parametrize("content", ['{"whit": "x"}', '["what"]', '{"what": "x", "day": "noon"}', "what"])
def test_a_damaged_mark_is_told_in_a_line(tmp_path, content):
    (tmp_path / UNFINISHED_FILE).write_text(content)
    for read in (refuse_interrupted, unfinished_day, lambda folder: refuse_another_run(folder, "x")):
        with pytest.raises(InputError, match="is damaged"):
            read(tmp_path)


def test_the_day_of_an_interrupted_run_is_known(tmp_path):
    assert unfinished_day(tmp_path) is None
    with pytest.raises(OSError, match="no room"), writing(tmp_path, "a day", date(2024, 3, 31)):
        raise OSError("no room")
    assert unfinished_day(tmp_path) == date(2024, 3, 31)
    with writing(tmp_path, "a day", date(2024, 3, 31)):
        pass
    assert unfinished_day(tmp_path) is None


def test_what_others_are_writing_stays_and_what_kills_left_goes(tmp_path):
    """Two runs at once into one folder; runs that were killed, here and elsewhere."""
    target = tmp_path / "file.txt"
    machine = artefacts._writer().partition("-")[2]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        left = {
            "at work": tmp_path / f".file.txt.{alive.pid}-{machine}.1.tmp",
            "dead": tmp_path / f".file.txt.{dead.pid}-{machine}.2.tmp",
            "of this process, but long ago": tmp_path / f".file.txt.{os.getpid()}-{machine}.3.tmp",
            "elsewhere": tmp_path / ".file.txt.1-another0.4.tmp",
            "elsewhere, long ago": tmp_path / ".file.txt.1-another0.5.tmp",
            "of an older version": tmp_path / ".file.txt.6.tmp",
        }
        for path in left.values():
            path.write_text("half")
        os.utime(left["elsewhere, long ago"], (0, 0))
        with beside(target) as own:
            own.write_text("half")
            write_text(target, "whole")
            assert own.exists()
            assert {name for name, path in left.items() if path.exists()} == {"at work", "elsewhere"}
        assert not own.exists()
    write_text(target, "whole")
    assert {name for name, path in left.items() if path.exists()} == {"elsewhere"}


def test_what_kills_left_beside_files_that_are_not_written_again_goes_too(tmp_path):
    machine = artefacts._writer().partition("-")[2]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    unique = "0" * 32
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive,
        beside(tmp_path / "a") as own,
    ):
        stay = {
            own,
            tmp_path / f".2024-03-31.parquet.{alive.pid}-{machine}.{unique}.tmp",
            tmp_path / ".of something else.tmp",
            tmp_path / "ds=2024-03-31" / "minutes.parquet",
        }
        go = {
            tmp_path / f".2024-03-30.parquet.{dead.pid}-{machine}.{unique}.tmp",
            tmp_path / "ds=2024-03-31" / f".minutes.parquet.{dead.pid}-{machine}.{unique}.tmp",
            tmp_path / "_no_events" / f".ds=2024-03-31.csv.{dead.pid}-{machine}.{unique}.tmp",
        }
        for path in stay | go:
            path.parent.mkdir(exist_ok=True)
            path.write_text("half")
        artefacts.remove_all_leftovers(tmp_path)
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == stay
