import errno
import os
import re
import subprocess
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import typer

from infobehavior import __version__
from infobehavior.cli import main
from infobehavior.cli.commands import app
from infobehavior.cli.config_flags import config_fields, resolve_config
from infobehavior.cli.error_lines import error_line
from infobehavior.errors import InputError
from infobehavior.pretraining.config import PRESETS, PretrainConfig
from infobehavior.pretraining.launch import ProcessLostError

EVALUATE = ["evaluate", "e", "--labels", "l", "--label", "y", "--minutes", "m", "--out", "r"]
COMMANDS = [
    *("inspect", "aggregate", "pretrain", "embed", "daily", "align", "publish", "evaluate", "fuse"),
    *("simulate", "table1", "table2", "table3", "table4", "demo"),
]
FUSE_COMMANDS = ["train", "predict", "evaluate"]
FIELDS = {path[-1]: path for path, _ in config_fields(PretrainConfig)}


@pytest.fixture
def pretrain_call(monkeypatch):
    """What the command `pretrain` passes on."""
    call = {}

    def pretrain(minutes, out, **options):
        call.update(minutes=minutes, out=out, **options)

    monkeypatch.setattr("infobehavior.pretraining.pretrain.pretrain", pretrain)
    return call


def fails_in_one_line(capsys, *arguments):
    """Run a command that must fail; give the line it prints."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("infobehavior: error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("infobehavior: error: ").rstrip("\n")


def test_the_commands_are_those_of_the_path(capsys):
    group = typer.main.get_command(app)
    assert group.list_commands(typer.Context(group)) == COMMANDS
    assert set(group.commands) == set(COMMANDS)
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert re.findall(r"(?m)^  ([a-z]\w*) ", listed.partition("Commands:")[2]) == COMMANDS


def test_the_commands_of_fuse(capsys):
    assert list(typer.main.get_command(app).commands["fuse"].commands) == FUSE_COMMANDS
    assert main(["fuse", "--help"]) == 0
    listed = capsys.readouterr().out
    assert re.findall(r"(?m)^  ([a-z]\w*) ", listed.partition("Commands:")[2]) == FUSE_COMMANDS


@pytest.mark.parametrize("names", [*((name,) for name in COMMANDS), *(("fuse", name) for name in FUSE_COMMANDS)])
def test_each_command_explains_itself_and_each_option(names):
    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{names} {parameter.name}"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"infobehavior {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'"),
        (["aggregate"], "EVENTS"),
        (["pretrain", "minutes", "--out", "model", "--num-stepps", "3"], "--num-steps"),
        (["pretrain", "minutes", "--out", "model", "--num-steps", "many"], "--num-steps"),
        (["pretrain", "minutes", "--out", "model", "--similarity", "euclid"], "'dot', 'cosine'"),
        (["pretrain", "minutes", "--out", "model", "--preset", "huge"], "two-cores, recommended"),
        (["pretrain", "minutes", "--out", "model", "--config", "missing.toml"], "missing.toml"),
        (["pretrain", "no-minutes", "--out", "model"], "no-minutes"),
        (["inspect", "no-events.parquet"], "no-events.parquet"),
        (["aggregate", "no-events.parquet", "--schema", "none.toml", "--out", "minutes"], "none.toml"),
        (["embed", "no-minutes", "--model", "no-model", "--out", "e", "--date", "2024-01-01"], "no-m"),
        (["embed", "no-minutes", "--model", "no-model", "--out", "e"], "as_of"),
        *[([*EVALUATE, "--seed", seed], "--seed") for seed in ("-1", "4294967296")],
        (
            ["evaluate", "no-e", "--labels", "no-l", "--label", "risky", "--minutes", "no-m", "--out", "report"],
            "no-",
        ),
        (["fuse"], "Missing command. (see infobehavior fuse --help)"),
        (["fuse", "fly"], "No such command 'fly'"),
        (["fuse", "train", "no-examples", "--out", "model"], "--config"),
        (["fuse", "train", "no-examples", "--config", "none.toml", "--out", "model"], "none.toml"),
        (["fuse", "predict", "no-examples", "--model", "no-model", "--out", "table"], "no-model"),
        (["fuse", "evaluate", "no-examples", "--model", "no-model", "--out", "report"], "no-model"),
        (
            ["fuse", "predict", "e", "--model", "m", "--out", "o", "--table", "=t"],
            "--table is '=t'; expected GROUP=TABLE",
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails_in_one_line(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_process_itself_exits_with_2_and_no_traceback():
    command = [sys.executable, "-m", "infobehavior", "inspect", "missing.csv"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("infobehavior: error: ")
    assert process.stderr.count("\n") == 1


def test_torchrun_is_for_pretrain_alone(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert fails_in_one_line(capsys, *EVALUATE) == "evaluate is the work of one process: run it without torchrun"


def test_processes_that_can_not_meet(capsys, monkeypatch, minutes, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = fails_in_one_line(capsys, "pretrain", str(minutes.path), "--out", str(tmp_path / "model"))
    assert line.endswith(
        "MASTER_ADDR expected, but not set, though RANK and WORLD_SIZE are: start the processes by torchrun"
    )


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("INFOBEHAVIOR_DEBUG", "1")
    with pytest.raises(InputError):
        main(["pretrain", "no-minutes", "--out", "model"])


def test_an_interruption_exits_with_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("infobehavior.pretraining.pretrain.pretrain", interrupted)
    assert main(["pretrain", "minutes", "--out", "model"]) == 130


def test_a_fault_of_the_program_is_not_taken_for_bad_input(monkeypatch):
    def broken(*_, **__):
        raise KeyError("nobody's fault but ours")

    monkeypatch.setattr("infobehavior.pretraining.pretrain.pretrain", broken)
    with pytest.raises(KeyError):
        main(["pretrain", "minutes", "--out", "model"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("two\nlines"), "two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "minutes/x"), "minutes/x: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "model"), "model: Permission denied"),
        (duckdb.IOException("IO Error: can't write\n\nLINE 1: COPY"), "IO Error: can't write"),
        (duckdb.OutOfMemoryException("Out of Memory Error: 2 GB\nPossible solutions"), "Out of Memory Error: 2 GB"),
        (pa.ArrowInvalid("Parquet magic bytes\nnot found"), "Parquet magic bytes not found"),
        (MemoryError("7 GB"), "not enough memory: 7 GB"),
        (
            ProcessLostError("closed"),
            "another process of the training has ended; the same command with --resume goes on from its checkpoint",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "not enough memory: DefaultCPUAllocator: can't allocate"),
        (ValueError("of the program"), None),
    ],
)
def test_error_lines(error, line):
    assert error_line(error) == line


def test_a_process_that_is_killed():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.raises(BrokenExecutor) as raised:
        pool.submit(os._exit, 9).result()
    assert error_line(raised.value).startswith(
        "a process was killed, probably since memory ran out: give fewer --workers"
    )


def test_all_faults_of_a_configuration_are_in_the_line(capsys):
    flags = ["--num-steps", "0", "--dropout", "1.5", "--span-minutes", "-3"]
    line = fails_in_one_line(capsys, "pretrain", "minutes", "--out", "model", *flags)
    assert "num_steps: Input should be greater than 0 (got 0)" in line
    assert "encoder.dropout: Input should be less than 1 (got 1.5)" in line
    assert "encoder.span_minutes" in line


def test_faults_of_two_fields_together_are_told(capsys):
    line = fails_in_one_line(capsys, "pretrain", "minutes", "--out", "model", "--stride-minutes", "400")
    assert line.startswith("encoder: stride_minutes (400) is larger than span_minutes (360)")


def test_each_field_is_a_flag_with_its_description():
    flags = {parameter.name: parameter for parameter in typer.main.get_command(app).commands["pretrain"].params}
    for path, field in config_fields(PretrainConfig):
        flag = flags[path[-1]]
        assert f"--{path[-1].replace('_', '-')}" in flag.opts
        assert flag.help == field.description
        assert flag.default is None
    assert {"encoder", "num_layers"} & set(FIELDS) == {"num_layers"}
    assert len(FIELDS) == len(list(config_fields(PretrainConfig))), "two models have a field of the same name"


def as_words(name, value):
    """A field's value on the command line."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    values = value if isinstance(value, tuple) else (value,)
    return [word for each in values for word in (flag, str(each))]


@pytest.mark.parametrize("preset", PRESETS)
def test_flags_that_repeat_a_preset_make_that_preset(pretrain_call, preset):
    words = []
    for path, _ in config_fields(PretrainConfig):
        value = PRESETS[preset]
        for name in path:
            value = getattr(value, name)
        words += as_words(path[-1], value)
    assert main(["pretrain", "minutes", "--out", "model", *words]) == 0
    assert pretrain_call["config"] == PRESETS[preset]


def test_what_is_not_given_comes_from_the_preset(pretrain_call):
    assert main(["pretrain", "minutes", "--out", "model"]) == 0
    assert pretrain_call == {
        "minutes": Path("minutes"),
        "out": Path("model"),
        "config": PRESETS["paper"],
        "resume": False,
        "until": None,
        "as_of": None,
        "minutes_in_memory": None,
    }


def test_flags_replace_a_file_and_a_file_replaces_the_preset(pretrain_call, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('num_steps = 7\nseed = 7\ndomain_task = ["events"]\n[encoder]\nnum_layers = 7\nnum_heads = 7\n')
    words = [
        "--seed",
        "3",
        "--num-layers",
        "3",
        "--domain-task",
        "failures",
        "--domain-task",
        "switches:location",
        "--no-fine-task",
    ]
    command = ["pretrain", "minutes", "--out", "model", "--preset", "two-cores", "--config", str(file)]
    assert main([*command, *words, "--resume", "--until", "2024-01-31"]) == 0
    config, preset = pretrain_call["config"], PRESETS["two-cores"]
    assert (config.num_steps, config.seed) == (7, 3)
    assert (config.encoder.num_layers, config.encoder.num_heads) == (3, 7)
    assert config.domain_task == ("failures", "switches:location")
    assert config.fine_task is False
    assert config.learning_rate == preset.learning_rate
    assert (pretrain_call["resume"], pretrain_call["until"]) == (True, "2024-01-31")


def test_a_configuration_file_with_an_unknown_field_is_refused(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("num_stepps = 7\n")
    with pytest.raises(InputError, match=r"config\.toml: num_stepps"):
        resolve_config("paper", file, {})


@pytest.mark.parametrize("content", [b"num_steps =", b"\xff\xfe"])
def test_a_configuration_file_that_is_not_toml_is_refused(tmp_path, content):
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.toml is not TOML"):
        resolve_config("paper", file, {})
