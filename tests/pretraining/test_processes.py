"""Several processes train one model; these tests start real ones."""

import json
import subprocess
import sys
from datetime import timedelta
from functools import cache

import pytest
import safetensors
import tomli_w
import torch

import one_of_several
from infobehavior import InfoBehavior, pretrain
from infobehavior.cli import main
from infobehavior.errors import InputError
from infobehavior.pretraining.checkpoint import read_state
from infobehavior.pretraining.config import RECOMMENDED
from infobehavior.pretraining.launch import num_processes, process_rank
from infobehavior.pretraining.pretrain import TRAINING_LOG
from infobehavior.pretraining.processes import joined
from one_of_several import NUM_STEPS, learn
from small_minutes import (
    FIRST_DAY,
    folder_bytes,
    random_events,
    small_minutes,
    tiny_config,
    write_moments,
)

LABELS = (
    "next:1",
    "distinct:address",
    "switches:location",
    "count:edit.page",
    "histogram:weekday",
    "histogram:lag",
    "histogram:location",
    "histogram:token",
)
CUT = "moments, without what comes later"
MOMENTS_CONFIG = tiny_config(dropout=0, domain_task=("failures", "next:1"))
CONFIGS = {
    "paper": tiny_config(pairs="latest", dropout=0, batch_size=5),
    "recommended": tiny_config(
        **{name: value for name, value in RECOMMENDED.items() if name not in {"encoder", "num_steps"}},
        **(RECOMMENDED["encoder"].model_dump(exclude_defaults=True) | {"dropout": 0}),
        batch_size=7,
    ),
    "other labels, other windows": tiny_config(
        domain_task=LABELS, lengths="several", pairs="any_day", dropout=0, batch_size=7, negatives="both_months"
    ),
    "two entities a step": tiny_config(dropout=0, batch_size=2, fine_task=False, domain_task=("failures", "minutes")),
    "moments": MOMENTS_CONFIG,
    CUT: MOMENTS_CONFIG,
    "two entities": tiny_config(dropout=0, domain_task=("totals:behavior", "histogram:location")),
}
"""In each, some process has another number of windows than the others, or none."""

TRAINED = tiny_config(dropout=0.2)
WITHOUT_DROPOUT = tiny_config(dropout=0, num_steps=8)
TRAININGS = {"once": TRAINED, "again": TRAINED, "without dropout": WITHOUT_DROPOUT}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Minutes of two entities."""
    return small_minutes(tmp_path_factory.mktemp("few"), random_events(seed=3, num_entities=2))


MOMENTS = {f"user {i}": FIRST_DAY + timedelta(days=4 + i) for i in range(0, 8, 2)}


@pytest.fixture(scope="module")
def cut(events, tmp_path_factory):
    """Minutes without what happens after the moments."""
    seen = [event for event in events if event.at < MOMENTS.get(event.who, event.at + timedelta(1))]
    return small_minutes(tmp_path_factory.mktemp("cut"), seen)


@pytest.fixture(scope="module")
def learnt_alone(minutes, few, cut, tmp_path_factory):
    """For each configuration, what is to be learnt, and what one process learns."""
    moments = str(write_moments(MOMENTS.items(), tmp_path_factory.mktemp("moments") / "moments.parquet"))
    others, as_of = {"two entities": few, CUT: cut}, dict.fromkeys(("moments", CUT), moments)
    jobs = {name: (str(others.get(name, minutes).path), config, as_of.get(name)) for name, config in CONFIGS.items()}
    return jobs, {name: learn(*job) for name, job in jobs.items()}


def torchrun(num_processes, *words):
    """Start processes and wait for them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made_by(minutes, learnt_alone, tmp_path_factory):
    """The folder that holds what a number of processes make."""

    @cache
    def make(num_processes):
        out = tmp_path_factory.mktemp(f"{num_processes}-processes")
        order = {
            "learn": [(path, config.model_dump_json(), as_of) for path, config, as_of in learnt_alone[0].values()],
            "train": [(str(minutes.path), one.model_dump_json(), str(out / name)) for name, one in TRAININGS.items()],
            "out": str(out),
        }
        process = torchrun(num_processes, one_of_several.__file__, json.dumps(order))
        assert process.returncode == 0, process.stderr
        return out

    return make


@pytest.fixture(scope="module", params=[2, 3])
def together(request, made_by):
    """How many processes there were, and the folder that holds what they made."""
    return request.param, made_by(request.param)


def learnt_together(out, name):
    with safetensors.safe_open(out / f"{list(CONFIGS).index(name)}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def test_what_comes_after_a_moment_changes_no_byte(together):
    (one, about_one), (other, about_other) = (learnt_together(together[1], name) for name in ("moments", CUT))
    assert about_one == about_other
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradient_are_those_of_one_process(learnt_alone, together, name):
    found, about = learnt_alone[1][name]
    got, about_got = learnt_together(together[1], name)
    assert about_got["known"] == about["known"]
    torch.testing.assert_close(got, found, rtol=2e-5, atol=2e-6)
    assert len([key for key in found if "loss" in key]) >= 2 * NUM_STEPS


def test_a_training_comes_to_nearly_the_same(minutes, together, tmp_path):
    num_processes, out = together
    pretrain(minutes.path, tmp_path, config=WITHOUT_DROPOUT)
    alone, made = InfoBehavior.from_pretrained(tmp_path), InfoBehavior.from_pretrained(out / "without dropout")
    assert made.vocabulary == alone.vocabulary
    assert made.pretraining["num_processes"] == num_processes
    assert made.pretraining["key"] != alone.pretraining["key"]
    logs = [(folder / TRAINING_LOG).read_text().splitlines() for folder in (tmp_path, out / "without dropout")]
    assert len(logs[0]) == WITHOUT_DROPOUT.num_steps
    for one, other in zip(*logs, strict=True):
        assert json.loads(one) == pytest.approx(json.loads(other), rel=1e-5)
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], weight, rtol=0, atol=1e-4)


def test_each_process_draws_its_own_dropout(minutes, together, tmp_path):
    pretrain(minutes.path, tmp_path, config=TRAINED)
    logs = [(folder / TRAINING_LOG).read_text().splitlines() for folder in (tmp_path, together[1] / "once")]
    losses = [json.loads(log[0])["loss"] for log in logs]
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_the_same_processes_make_the_same_bytes(together):
    _, out = together
    assert folder_bytes(out / "once") == folder_bytes(out / "again")


def test_what_processes_share(together):
    size, out = together
    for rank, got in enumerate(json.loads((out / "shared.json").read_text())):
        whole = [[0.0, 0.0]] * size**2
        for other in range(size):
            for i in range(other):
                whole[i * size + other] = [float(other)] * 2
        assert got["whole"] == whole
        assert got["gradient"] == [[float(i * size + rank)] * 2 for i in range(rank)]
        assert got["sums"] == [None, [5.0, 5.0]]
        assert got["rows"] == [[other] * 2 for other in range(size) for _ in range(other)]
        assert got["first"] == sum(range(rank))
        assert got["said"] == "they differ"
        assert got["total"] == sum(range(size))


# ---------------------------------------------------------------------------------------------- kills and errors


def lines_of_ours(process):
    """What the processes themselves say, without what torchrun says of them."""
    return [line for line in process.stderr.splitlines() if line.startswith("infobehavior: ")]


@pytest.fixture(scope="module")
def command(minutes, tmp_path_factory):
    """A training, as the command line has it; the folder is to be added."""
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(tomli_w.dumps(TRAINED.model_dump(mode="json")))
    return ["pretrain", str(minutes.path), "--config", str(file)]


KILL = """
import os, signal
from infobehavior.pretraining.training import Training
step = Training.step

def step_unless_fourth(training, number, given):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(training, number, given)

Training.step = step_unless_fourth
"""


def test_a_process_that_is_killed_loses_nothing(made_by, command, tmp_path):
    killed = {"command": [*command, "--out", str(tmp_path)], "sabotage": {"1": KILL}}
    process = torchrun(2, one_of_several.__file__, json.dumps(killed))
    assert process.returncode != 0
    assert len(read_state(tmp_path)["log"]) == 2, process.stderr
    resumed = torchrun(2, "-m", "infobehavior", *command, "--out", tmp_path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert folder_bytes(tmp_path) == folder_bytes(made_by(2) / "once")
    assert resumed.stdout == f"model: {tmp_path}\n"
    assert resumed.stderr.count("going on after step 2 of 5") == 1


def test_processes_may_keep_their_minutes_on_disk(made_by, command, tmp_path):
    words = [*command, "--out", tmp_path / "model", "--minutes-in-memory", 30]
    process = torchrun(2, "-m", "infobehavior", *words)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("minutes are kept on disk") == 1
    assert folder_bytes(tmp_path / "model") == folder_bytes(made_by(2) / "once")


def test_another_number_of_processes_is_refused(made_by, command):
    """The last digits depend on it. Processes that fail alike say why once."""
    out = made_by(2) / "again"
    before = folder_bytes(out)
    process = torchrun(3, "-m", "infobehavior", *command, "--out", out, "--resume")
    assert process.returncode != 0
    [line] = lines_of_ours(process)
    assert "this configuration and this number of processes make" in line
    assert folder_bytes(out) == before


@pytest.mark.parametrize("what", ["minutes", "settings"])
def test_processes_that_are_given_different_things_are_refused(command, few, tmp_path, what):
    """They would wait for each other for ever, or train on some entities twice and on others never."""
    other = {
        "minutes": f"order['command'][1] = {str(few.path)!r}",
        "settings": "order['command'] += ['--domain-task', 'next:1']",
    }
    order = {"command": [*command, "--until", "2024-04-03", "--out", str(tmp_path / "model")]}
    process = torchrun(2, one_of_several.__file__, json.dumps(order | {"sabotage": {"1": other[what]}}))
    assert process.returncode != 0
    [line] = lines_of_ours(process)
    assert f"the processes were given different {what}, or don't see the same folders" in line
    assert not (tmp_path / "model").exists()


FAIL = """
from infobehavior.cli import main
from infobehavior.errors import InputError
from infobehavior.pretraining import training
def fail(*given, **options):
    raise InputError("a file is damaged")
training.load_own = fail
"""


SLOW_TO_TELL = """
from contextlib import suppress
from datetime import timedelta
import torch.distributed as dist
from infobehavior.pretraining.launch import meeting_place
end = dist.destroy_process_group
def end_and_wait_until_another_has_told():
    end()
    with suppress(RuntimeError):
        meeting_place().wait(["told"], timedelta(seconds=2))
dist.destroy_process_group = end_and_wait_until_another_has_told
"""


@pytest.mark.parametrize("how", [FAIL, FAIL + SLOW_TO_TELL], ids=["at once", "slowly"])
def test_an_error_of_one_process_ends_all_in_its_line(command, tmp_path, how):
    order = {"command": [*command, "--out", str(tmp_path / "model")], "sabotage": {"1": how}}
    process = torchrun(2, one_of_several.__file__, json.dumps(order))
    assert process.returncode != 0
    assert lines_of_ours(process) == ["infobehavior: error: a file is damaged"]
    assert "exitcode  : 2" in process.stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "there is no device cuda:64"),
        ("cuda:0", "device cuda:0 is one GPU for 65 processes: give cuda, and each takes one of its own"),
    ],
)
def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch, device, message):
    for name, value in {"RANK": "64", "LOCAL_RANK": "64", "WORLD_SIZE": "65"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), joined(device):
        pass


def test_processes_that_cannot_reach_each_other_are_told(monkeypatch):
    def fail(*given, **options):
        raise RuntimeError("no route\nto host")

    for name, value in {"RANK": "1", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("infobehavior.pretraining.processes.meeting_place", fail)
    with (
        pytest.raises(InputError, match=r"the 3 processes .* can't reach each other \(no route to host\)"),
        joined("cpu"),
    ):
        pass


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (num_processes(), process_rank()) == (1, 0)
    monkeypatch.setenv("RANK", "3")
    assert (num_processes(), process_rank()) == (4, 3)


def test_what_fails_where_no_other_process_is_to_be_met_is_told_at_once(monkeypatch, capsys):
    """A cluster may set these for each command that it runs."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "infobehavior.pretraining.launch.meeting_place", cache(pytest.fail)
    )  # it would wait for minutes
    assert main(["embed", "/nowhere", "--model", "/nowhere", "--out", "/nowhere/out", "--date", "2024-03-31"]) == 2
    assert capsys.readouterr().err.startswith("infobehavior: error: ")
