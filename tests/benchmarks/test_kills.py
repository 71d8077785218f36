import json

import kills
import pytest


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """What the commands that are killed start from."""
    folder = tmp_path_factory.mktemp("kills") / "base"
    folder.mkdir()
    kills.prepare(folder)
    return folder


@pytest.mark.parametrize(("command", "times"), [("simulate", 2), ("align", 2), ("evaluate", 1)])
def test_a_command_that_is_killed_leaves_nothing_half_and_runs_again_to_the_same_bytes(base, tmp_path, command, times):
    """The others are killed in tests of their own."""
    (case,) = (case for case in kills.CASES if case.name == command)
    found = kills.kill_often(case, base, tmp_path / "work", times, seed=1)
    assert found.at_work == times
    assert found.reads > 0
    bad = (found.half, found.unreadable, found.failed, found.unequal, found.leftovers)
    assert bad == (0, 0, 0, 0, 0), found.examples


@pytest.fixture
def case(tmp_path):
    """A command that writes a table, and the folder in which it stands half-way."""
    (tmp_path / "table" / "ds=1").mkdir(parents=True)
    return kills.Case("one", "", ("table",)), tmp_path


def test_the_reader_finds_what_is_neither_old_nor_new(case):
    one, folder = case
    (folder / "table" / "a.json").write_text("old")
    before = kills._bytes(one, folder)
    (folder / "table" / "a.json").write_text("new")
    after = kills._bytes(one, folder)
    for content, half in (("old", False), ("new", False), ("ne", True)):
        (folder / "table" / "a.json").write_text(content)
        found = kills.Found()
        with kills._reading(one, folder, before, after, found):
            pass
        assert found.reads > 0
        assert (found.half > 0) == half
    (folder / "table" / "a.json").write_text("new")
    (folder / "table" / "b.json").write_text("neither before nor after")
    (folder / "table" / "ds=1" / "c.parquet").write_bytes(b"PAR1 and no more")
    found = kills.Found()
    with kills._reading(one, folder, before, after, found):
        pass
    assert found.half > 0
    assert found.unreadable > 0
    assert {example.split(":")[0] for example in found.examples} >= {"half"}


def test_what_the_reader_can_not_read_is_counted(case, monkeypatch):
    """A Delta table that can't be opened, for one."""

    def fail(*_):
        raise ValueError("no such version")

    monkeypatch.setattr(kills, "_bytes", fail)
    found = kills.Found()
    with kills._reading(*case, {}, {}, found):
        pass
    assert found.unreadable > 0
    assert found.examples[0] == "unreadable: no such version"


def test_a_mark_that_stays_is_left_behind(case):
    _, folder = case
    for name in (".a.tmp", "_unfinished.json", "a.json"):
        (folder / "table" / name).write_text("")
    assert sorted(path.name for path in kills._left_behind(folder)) == [".a.tmp", "_unfinished.json"]


def test_what_tells_of_a_run_is_not_compared(case):
    one, folder = case
    for name in (".a.tmp", "_daily.jsonl", "_unfinished.json"):
        (folder / "table" / name).write_text("")
    assert kills._bytes(one, folder) == {}


def test_the_page_shows_all_that_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "RESULTS", tmp_path / "kills.json")
    monkeypatch.setattr(kills, "PAGE", tmp_path / "kills.md")
    found = kills.Found(kills=50, at_work=49, reads=12_345, half=1, failed=2, seconds=1.5, examples=["half: a.json"])
    rows = {
        name: {**vars(found), "seed": 7, "machine": {**kills.machine(), "commit": commit}}
        for name, commit in (("daily", "0123abc"), ("embed", "4567def"))
    }
    (tmp_path / "kills.json").write_text(json.dumps({"commands": rows}))
    kills.write_page()
    page = (tmp_path / "kills.md").read_text()
    assert "| `daily` | 50 | 49 | 12,345 | 1 | 0 | 2 | 0 | 0 | 1.5 s | 0123abc |" in page
    assert "1.5 s | 4567def |" in page
    assert "- `daily`: half: a.json" in page
    assert page.count("Seed 7, ") == 1
