import shlex
from pathlib import Path

import pytest

from infobehavior.apps import demo as demo_module
from infobehavior.apps.demo import MARKER, NUM_STEPS, demo
from infobehavior.cli import main
from infobehavior.errors import InputError

HOMES = {
    "inspect": "infobehavior.data.inspection",
    "aggregate": "infobehavior.data.aggregation",
    "pretrain": "infobehavior.pretraining.pretrain",
    "embed": "infobehavior.embedding.embed",
    "evaluate": "infobehavior.downstream.evaluation",
}


class Nothing:
    """What each step gives back here."""

    def lines(self):
        return ["done"]

    def __iter__(self):
        return iter(())


@pytest.fixture
def calls(monkeypatch):
    """The calls of the steps, which do nothing: (name, arguments that aren't None or the function's default)."""
    calls = []

    def recorder(name):
        def record(*args, **options):
            given = {option: value for option, value in options.items() if value not in (None, False)}
            calls.append((name, [str(arg) for arg in args], given))
            return Nothing()

        return record

    for name, home in HOMES.items():
        monkeypatch.setattr(f"{home}.{name}", recorder(name))
        monkeypatch.setattr(demo_module, name, recorder(name))
    monkeypatch.setattr("infobehavior.downstream.evaluation.metric_lines", lambda rows: [])
    monkeypatch.setattr(demo_module, "metric_lines", lambda rows: [])
    monkeypatch.setattr("infobehavior.downstream.evaluation.summary_lines", lambda out: [])
    monkeypatch.setattr(demo_module, "summary_lines", lambda out: [])
    return calls


DEFAULTS_OF_FLAGS = {
    "aggregate": {"engine": "duckdb"},
    "evaluate": {"folds": 5, "oversample": 4},
    "embed": {"device": "cpu", "engine": "duckdb"},
}


def test_the_printed_commands_do_what_the_demo_does(calls, capsys, tmp_path):
    report = demo(tmp_path / "it's out")
    printed = [line.removeprefix("$ ") for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    assert report == tmp_path / "it's out" / "report" / "report.html"
    assert [name for name, _, _ in calls] == list(HOMES)
    of_the_demo = calls.copy()
    calls.clear()
    for line in printed:
        assert main(shlex.split(line)[1:]) == 0
    for (name, args, options), (name_demo, args_demo, options_demo) in zip(calls, of_the_demo, strict=True):
        assert (name, args) == (name_demo, args_demo)
        assert options == options_demo | DEFAULTS_OF_FLAGS.get(name, {})


def test_the_number_of_steps_is_passed_on(calls, tmp_path):
    demo(tmp_path / "out", num_steps=3)
    [config] = [options["config"] for name, _, options in calls if name == "pretrain"]
    assert config.num_steps == 3 != NUM_STEPS


def test_a_second_demo_replaces_the_first_and_leaves_what_is_not_its_own(calls, tmp_path):
    demo(tmp_path)
    (tmp_path / "minutes").mkdir()
    (tmp_path / "minutes" / "old").touch()
    (tmp_path / "notes.txt").touch()
    demo(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {MARKER, "events.parquet", "labels.parquet", "notes.txt"}


@pytest.mark.parametrize("occupant", ["folder", "file"])
def test_a_folder_of_something_else_is_not_touched(calls, tmp_path, occupant):
    out = tmp_path / "out"
    mine = out / "mine" if occupant == "folder" else out
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="isn't an earlier demo's"):
        demo(out)
    assert Path(mine).read_text() == "mine"
    assert calls == []
