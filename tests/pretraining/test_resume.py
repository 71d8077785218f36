import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from infobehavior import pretrain
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import CONFIG_FILE
from infobehavior.pretraining.checkpoint import CHECKPOINT_FILE, read_state
from infobehavior.pretraining.pretrain import TRAINING_LOG, Training
from infobehavior.pretraining.training import prepare_training
from small_minutes import epoch_minute, folder_bytes, plain_minutes, small_minutes, tiny_config

PROGRAM = """
import json, os, signal, sys
from infobehavior import artefacts
from infobehavior.pretraining import checkpoint, config, pretrain

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killing_at(number, call, last=lambda *given, **options: die()):
    "Make the call of a number, counted from 1, the process's last one."
    calls = []
    def counted(*given, **options):
        calls.append(given)
        return last(*given, **options) if len(calls) == number else call(*given, **options)
    return counted

def half_a_file(path, content):
    path.write_bytes(content[: len(content) // 2])
    die()

minutes, settings, jobs = sys.argv[1], config.PretrainConfig.model_validate_json(sys.argv[2]), json.loads(sys.argv[3])
signals = []
for out, sabotage in jobs:
    child = os.fork()
    if child == 0:
        exec(sabotage, globals())
        pretrain.pretrain(minutes, out, config=settings)
        os._exit(0)
    signals.append(os.WTERMSIG(os.waitpid(child, 0)[1]))
print(json.dumps(signals))
"""
"""Trains in processes that kill themselves with -9 at a chosen point; they are forked, so torch is imported once."""

KILLS = {
    "before anything is written": (
        "pretrain.save_checkpoint = killing_at(1, pretrain.save_checkpoint)",
        None,
    ),
    "in the second step": (
        "pretrain.Training.step = killing_at(2, pretrain.Training.step)",
        0,
    ),
    "between two checkpoints": (
        "pretrain.Training.step = killing_at(4, pretrain.Training.step)",
        2,
    ),
    "in the middle of a checkpoint": (
        "artefacts._write_bytes = killing_at(3, artefacts._write_bytes, half_a_file)",
        2,
    ),
    "after the last step": (
        "pretrain.write_atomically = killing_at(1, pretrain.write_atomically)",
        4,
    ),
    "before the model's config": (
        "import infobehavior.model.infobehavior as home; home.write_json = killing_at(1, home.write_json)",
        4,
    ),
    "with the model written": (
        "from pathlib import Path; Path.unlink = (lambda unlink: lambda path, **options: "
        "die() if path.name == pretrain.CHECKPOINT_FILE else unlink(path, **options))(Path.unlink)",
        4,
    ),
}


@pytest.fixture
def interrupted(minutes, tmp_path, monkeypatch):
    """A folder in which a training was stopped after step 3, with a checkpoint of step 2."""
    step = Training.step

    def stop_at_4(training, number, given):
        if number == 3:
            raise KeyboardInterrupt
        return step(training, number, given)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "step", stop_at_4)
        with pytest.raises(KeyboardInterrupt):
            pretrain(minutes.path, tmp_path / "model", config=tiny_config())
    assert set(folder_bytes(tmp_path / "model")) == {CHECKPOINT_FILE}
    return tmp_path / "model"


@pytest.fixture(scope="module")
def killed(minutes, tmp_path_factory):
    """For each kill, the folder that it left."""
    folder = tmp_path_factory.mktemp("killed")
    jobs = [(str(folder / str(i)), sabotage) for i, (sabotage, _) in enumerate(KILLS.values())]
    words = [str(minutes.path), tiny_config().model_dump_json(), json.dumps(jobs)]
    process = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == [signal.SIGKILL] * len(jobs), process.stderr
    return {name: folder / str(i) for i, name in enumerate(KILLS)}


@pytest.mark.parametrize("name", KILLS)
def test_a_training_that_is_killed_and_resumed_ends_with_the_same_bytes(minutes, model_folder, killed, name):
    out, steps_kept = killed[name], KILLS[name][1]
    state = read_state(out)
    assert (None if state is None else len(state["log"])) == steps_kept
    pretrain(minutes.path, out, config=tiny_config(), resume=True)
    assert folder_bytes(out) == folder_bytes(model_folder)


def test_resuming_takes_only_the_steps_that_are_left(minutes, interrupted, monkeypatch):
    step, taken = Training.step, []

    def counted(training, number, given):
        taken.append(number)
        return step(training, number, given)

    monkeypatch.setattr(Training, "step", counted)
    pretrain(minutes.path, interrupted, config=tiny_config(), resume=True)
    assert taken == [2, 3, 4]


def test_without_resume_a_training_starts_anew(minutes, model_folder, interrupted):
    pretrain(minutes.path, interrupted, config=tiny_config())
    assert folder_bytes(interrupted) == folder_bytes(model_folder)


def test_resuming_where_nothing_is_starts(minutes, model_folder, tmp_path):
    pretrain(minutes.path, tmp_path / "new", config=tiny_config(), resume=True)
    assert folder_bytes(tmp_path / "new") == folder_bytes(model_folder)


def test_checkpoints_may_come_more_often_after_resuming(minutes, model_folder, interrupted):
    pretrain(minutes.path, interrupted, config=tiny_config(checkpoint_every=1), resume=True)
    one, other = folder_bytes(interrupted), folder_bytes(model_folder)
    assert {name: one[name] for name in one if name != CONFIG_FILE} == {
        name: other[name] for name in other if name != CONFIG_FILE
    }


def test_resuming_a_finished_training_does_nothing(minutes, model_folder, monkeypatch):
    def files():
        return {path: path.stat().st_mtime_ns for path in model_folder.iterdir()}

    monkeypatch.delattr(Training, "step")
    before = files()
    model = pretrain(minutes.path, model_folder, config=tiny_config(), resume=True)
    assert model.model_id == json.loads((model_folder / CONFIG_FILE).read_text())["model_id"]
    assert files() == before


def test_a_checkpoint_of_another_configuration_is_refused(minutes, interrupted):
    before = folder_bytes(interrupted)
    with pytest.raises(InputError) as raised:
        pretrain(minutes.path, interrupted, config=tiny_config(seed=1), resume=True)
    there, here = re.findall(r"\b[0-9a-f]{16}\b", str(raised.value))
    assert there == read_state(interrupted)["key"] != here
    assert str(raised.value).endswith("use the same ones, or start again without --resume")
    assert folder_bytes(interrupted) == before


def test_a_checkpoint_of_other_minutes_is_refused(events, interrupted, tmp_path):
    others = small_minutes(tmp_path / "others", [replace(events[0], place="Bonn"), *events[1:]])
    with pytest.raises(InputError, match=r"is of training .*, but these minutes, this configuration and this"):
        pretrain(others.path, interrupted, config=tiny_config(), resume=True)


def test_a_finished_model_of_another_training_is_not_overwritten_by_resuming(minutes, model_folder):
    before = folder_bytes(model_folder)
    with pytest.raises(InputError, match=r"holds the finished model of training .*, but these minutes, this config"):
        pretrain(minutes.path, model_folder, config=tiny_config(seed=1), resume=True)
    assert folder_bytes(model_folder) == before


def test_another_training_begun_beside_a_finished_model_can_be_resumed(minutes, model_folder, tmp_path, interrupted):
    """The checkpoint is this training's, although the model is another's."""
    pretrain(minutes.path, tmp_path / "other", config=tiny_config(seed=1))
    (interrupted / CHECKPOINT_FILE).replace(tmp_path / "other" / CHECKPOINT_FILE)
    pretrain(minutes.path, tmp_path / "other", config=tiny_config(), resume=True)
    assert folder_bytes(tmp_path / "other") == folder_bytes(model_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"address": "10.9.9.9"},
        {"result": "no"},
        {"what": "sign up"},
        {"place": "Bonn"},
        {"who": "user 5"},
        {"at": timedelta(minutes=1)},
    ],
)
def test_the_key_tells_minutes_apart(events, minutes, tmp_path, change):
    """By all that tokens and labels depend on, also where the vocabulary stays the same."""
    config = tiny_config(domain_task=("switches:address", "count:login"))
    minute_of = [(event.who, epoch_minute(event.at)) for event in events]
    alone = next(
        event
        for event, minute in zip(events, minute_of, strict=True)
        if minute_of.count(minute) == 1 and (event.what, event.result) == ("login", "ok")
    )
    changed = replace(alone, **change | ({"at": alone.at + change["at"]} if "at" in change else {}))
    rest = [event for event in events if event is not alone]
    again, other = (small_minutes(tmp_path / str(i), [*rest, event]) for i, event in enumerate([alone, changed]))
    keys = [prepare_training(table.path, config, None, None).key for table in (minutes, again, other)]
    assert keys[0] == keys[1] != keys[2]


def test_the_names_of_entities_do_not_matter_but_their_borders_do(events, minutes, tmp_path):
    config = tiny_config()
    renamed = small_minutes(tmp_path / "renamed", [replace(event, who=f"account {event.who[-1]}") for event in events])
    last = max(minute for who, minute in plain_minutes(events) if who == "user 0")
    split = [
        replace(event, who="user 00") if event.who == "user 0" and epoch_minute(event.at) == last else event
        for event in events
    ]
    borders = small_minutes(tmp_path / "borders", split)
    keys = [prepare_training(table.path, config, None, None).key for table in (minutes, renamed, borders)]
    assert keys[0] == keys[1] != keys[2]


def damage_half(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_head(path):
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def damage_all(path):
    path.write_bytes(b"")


def other_kind(path):
    import safetensors.torch
    import torch

    safetensors.torch.save_file({"weight": torch.zeros(1)}, str(path))


@pytest.mark.parametrize("damage", [damage_half, damage_head, damage_all, other_kind])
def test_a_damaged_checkpoint(minutes, interrupted, damage):
    damage(interrupted / CHECKPOINT_FILE)
    with pytest.raises(InputError, match=rf"{CHECKPOINT_FILE} is not a checkpoint .* without --resume"):
        pretrain(minutes.path, interrupted, config=tiny_config(), resume=True)


def test_a_checkpoint_holds_the_log(interrupted):
    state = read_state(interrupted)
    assert [row["step"] for row in state["log"]] == [1, 2]
    assert not (interrupted / TRAINING_LOG).exists()


def test_a_folder_that_cannot_be_written_is_found_out_before_any_step(minutes, tmp_path, monkeypatch):
    (tmp_path / "model").write_text("not a folder")
    monkeypatch.delattr(Training, "step")
    with pytest.raises(InputError, match="it is a file"):
        pretrain(minutes.path, tmp_path / "model", config=tiny_config())


def test_a_full_disk_is_an_os_error(minutes, tmp_path):
    """A limit on the size of files stands for the disk."""
    program = """
import resource, sys
from infobehavior.pretraining import config, pretrain
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
try:
    pretrain.pretrain(sys.argv[1], sys.argv[2], config=config.PretrainConfig.model_validate_json(sys.argv[3]))
except OSError as error:
    sys.exit(error.strerror)
"""
    words = [str(minutes.path), str(tmp_path / "model"), tiny_config().model_dump_json()]
    process = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert process.stderr == "File too large\n"
    assert folder_bytes(tmp_path / "model") == {}
