"""Minutes that are too many for memory change no byte of a model, and nothing is left of them."""

import logging
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from performance.measure import run_python
from performance.simulated_minutes import Minutes

from infobehavior import pretrain
from infobehavior.cli import main
from infobehavior.data import ranges
from infobehavior.errors import InputError
from infobehavior.pretraining.checkpoint import CHECKPOINT_FILE
from infobehavior.pretraining.config import RECOMMENDED
from infobehavior.pretraining.own_minutes import MemoryLimit
from infobehavior.pretraining.pretrain import Training
from infobehavior.pretraining.training import prepare_training
from small_minutes import FIRST_DAY, folder_bytes, tiny_config, write_moments

ALL_LABELS = (
    *("failures", "events", "minutes", "days", "weeks", "recency", "age", "totals:behavior", "next:1", "next:2"),
    *("count:login", "count:edit.page", "switches:location", "switches:address", "distinct:location"),
    *("distinct:address", "histogram:behavior", "histogram:token", "histogram:hour", "histogram:minute"),
    *("histogram:weekday", "histogram:lag", "histogram:location", "histogram:age"),
)
CONFIGS = {
    "paper": tiny_config(pairs="latest"),
    "recommended": tiny_config(
        **{name: value for name, value in RECOMMENDED.items() if name not in {"encoder", "num_steps"}},
        **RECOMMENDED["encoder"].model_dump(exclude_defaults=True),
    ),
    "all labels": tiny_config(domain_task=ALL_LABELS, lengths="several", pairs="any_day", batch_size=7),
    "several lengths": tiny_config(domain_task=("count:login", "next:1"), lengths="several", min_minutes=3),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the columns are kept."""
    folder = tmp_path / "columns"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def mapped_in(folder) -> int:
    """How many files of a folder are mapped here, with or without a name."""
    return Path("/proc/self/maps").read_text().count(f" {folder}/")


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """Of some entities a moment in the middle, of one before all that it does."""
    rows = [(f"user {i}", FIRST_DAY + timedelta(days=4 + i)) for i in range(0, 8, 2)] + [("user 9", FIRST_DAY)]
    return write_moments(rows, tmp_path_factory.mktemp("moments") / "moments.parquet")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cut", [False, True])
def test_the_same_bytes(minutes, moments, folder, tmp_path, monkeypatch, name, cut):
    given = {"config": CONFIGS[name], "as_of": moments if cut else None}
    pretrain(minutes.path, tmp_path / "memory", **given)
    for most, rows_at_once in [(1, ranges.ROWS_AT_ONCE), (60, 7)]:
        monkeypatch.setattr(ranges, "ROWS_AT_ONCE", rows_at_once)
        pretrain(minutes.path, tmp_path / f"{most}", **given, minutes_in_memory=most)
        assert folder_bytes(tmp_path / f"{most}") == folder_bytes(tmp_path / "memory")
    assert mapped_in(folder) == 0, "nothing is left when it has ended"


def test_columns_are_on_disk_only_if_there_are_more_minutes(minutes, folder, caplog):
    caplog.set_level(logging.INFO, "infobehavior")
    num_minutes = prepare_training(minutes.path, tiny_config(), None, None).record["num_minutes"]
    for most, is_on_disk in [(num_minutes, False), (num_minutes - 1, True)]:
        caplog.clear()
        training = prepare_training(minutes.path, tiny_config(), None, None, limit=MemoryLimit(most, folder))
        assert (training.sampler.store.folder == folder) == (mapped_in(folder) > 0) == is_on_disk
        assert (f"{num_minutes} minutes are kept on disk, in {folder}" in caplog.text) == is_on_disk
        assert list(folder.iterdir()) == []


def test_a_training_in_memory_goes_on_on_disk(minutes, model_folder, folder, tmp_path, monkeypatch):
    step = Training.step

    def stop_at_4(training, number, given):
        if number == 3:
            raise KeyboardInterrupt
        return step(training, number, given)

    for i, (before, after) in enumerate([(None, 20), (20, None)]):
        out = tmp_path / str(i)
        with monkeypatch.context() as patched:
            patched.setattr(Training, "step", stop_at_4)
            with pytest.raises(KeyboardInterrupt):
                pretrain(minutes.path, out, config=tiny_config(), minutes_in_memory=before)
        assert set(folder_bytes(out)) == {CHECKPOINT_FILE}
        pretrain(minutes.path, out, config=tiny_config(), resume=True, minutes_in_memory=after)
        assert folder_bytes(out) == folder_bytes(model_folder)


# ------------------------------------------------------------------------------------------ nothing is left behind


def test_nothing_is_left_after_an_error(minutes, folder, tmp_path):
    with pytest.raises(InputError, match="pre-training needs two or more"):
        pretrain(minutes.path, tmp_path / "model", config=tiny_config(min_minutes=10**6), minutes_in_memory=9)
    assert mapped_in(folder) == 0
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "model").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from infobehavior.data import joined_runs
from infobehavior.pretraining import config, pretrain

def die(*given, **options):
    print(Path("/proc/self/maps").read_text().count(f" {sys.argv[4]}/"), len(os.listdir(sys.argv[4])), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

exec(sys.argv[5])
settings = config.PretrainConfig.model_validate_json(sys.argv[3])
pretrain.pretrain(sys.argv[1], sys.argv[2], config=settings, minutes_in_memory=9)
"""


@pytest.mark.parametrize("where", ["joined_runs._JoinedRuns.store = die", "pretrain.Training.step = die"])
def test_nothing_is_left_by_a_kill(minutes, folder, tmp_path, where):
    """The files have no names, so the operating system frees them."""
    words = [minutes.path, tmp_path / "model", tiny_config().model_dump_json(), folder, where]
    command = [sys.executable, "-c", KILLED, *map(str, words)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    num_mapped, num_named = map(int, process.stdout.split())
    assert (num_mapped > 0) == ("step" in where)
    assert num_named == 0
    assert list(folder.iterdir()) == []


def test_without_tmpdir_the_columns_are_where_the_model_will_be(minutes, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "infobehavior")
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for out in (Path("models/new"), tmp_path / "models" / "new"):
        caplog.clear()
        pretrain(minutes.path, out, config=tiny_config(num_steps=1), minutes_in_memory=9)
        expected = tmp_path if not out.is_absolute() else tmp_path / "models" / "new"
        assert f"minutes are kept on disk, in {expected}" in caplog.text


# ------------------------------------------------------------------------------------------------------ bad values


@pytest.mark.parametrize("value", [0, -5])
def test_a_number_of_minutes_that_is_none(minutes, tmp_path, value):
    with pytest.raises(InputError, match=f"minutes_in_memory must be 1 or more, got {value}"):
        pretrain(minutes.path, tmp_path / "model", config=tiny_config(), minutes_in_memory=value)
    assert not (tmp_path / "model").exists()


def run(capsys, minutes, out, value):
    code = main(["pretrain", str(minutes.path), "--out", str(out), "--minutes-in-memory", value])
    return code, [line for line in capsys.readouterr().err.splitlines() if line.startswith("infobehavior: error: ")]


@pytest.mark.parametrize("value", ["0", "many", "1e6"])
def test_bad_values_on_the_command_line(minutes, tmp_path, capsys, value):
    code, [line] = run(capsys, minutes, tmp_path / "model", value)
    assert code == 2
    assert "--minutes-in-memory" in line


def test_a_folder_for_columns_that_is_not_there(minutes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    code, [line] = run(capsys, minutes, tmp_path / "model", "9")
    assert code == 2
    assert f"{tmp_path / 'nowhere'} (No such file or directory): set TMPDIR" in line


# ---------------------------------------------------------------------------------------------------------- memory

TRAIN = """
import sys
import duckdb, pyarrow.parquet
from infobehavior.pretraining import config, pretrain
from performance.measure import anonymous_bytes
print(anonymous_bytes(), flush=True)
most = int(sys.argv[4]) or None
settings = config.PretrainConfig.model_validate_json(sys.argv[3])
pretrain.pretrain(sys.argv[1], sys.argv[2], config=settings, minutes_in_memory=most)
"""


def test_memory_is_bounded(folder, tmp_path):
    """Memory that isn't a file's, beyond what the libraries take."""
    log = Minutes(num_entities=5_000, minutes_a_day=20, num_days=30)
    log.write(tmp_path / "minutes")
    config = tiny_config(num_steps=3, domain_task=("failures", "totals:behavior", "histogram:hour"), min_minutes=3)

    def peak(most):
        words = [tmp_path / "minutes", tmp_path / str(most), config.model_dump_json(), most]
        child = run_python(["-c", TRAIN, *words], {"OMP_NUM_THREADS": "1"})
        return child.peak_anonymous_bytes - int(child.output.split()[0])

    bound = 60 * log.total
    assert peak(100_000) < bound < peak(0)
    assert len({folder_bytes(tmp_path / out)["config.json"] for out in ("100000", "0")}) == 1
