import errno
import json
from pathlib import Path

import pytest

from infobehavior.nightly.stage_log import StageLog


def num_writes():
    """How often this thread has written anything so far."""
    lines = Path("/proc/thread-self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["syscw"])


def told(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_written_at_once_however_long(tmp_path):
    """Or a kill would leave a part of it."""
    log = StageLog(tmp_path / "new" / "log.jsonl", date="2024-03-31")
    with log.stage("first"):
        pass
    before = num_writes()
    with log.stage("aggregate", days=["2024-03-31"] * 10_000) as facts:
        facts["events"] = 3
    assert num_writes() == before + 1
    first, second = told(tmp_path / "new" / "log.jsonl")
    assert (first["stage"], first["date"]) == ("first", "2024-03-31")
    assert (len(second["days"]), second["events"]) == (10_000, 3)


def test_a_line_that_was_cut_is_ended_and_an_error_is_told(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"stage": "em')
    with pytest.raises(ValueError, match="of a file"), StageLog(path).stage("look through"):
        raise ValueError("of a file\nsuch as \udcff")
    cut, line = path.read_text().splitlines()
    assert cut == '{"stage": "em'
    assert json.loads(line)["error"] == "of a file such as \udcff"


def test_a_full_disk_is_told_of_the_log_unless_something_else_went_wrong_first(tmp_path, monkeypatch):
    log = StageLog(tmp_path / "log.jsonl")

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "_add", fail)
    with pytest.raises(OSError, match="No space left on device") as raised, log.stage("one"):
        pass
    assert raised.value.filename == str(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="the first"), log.stage("two"):
        raise ValueError("the first")
