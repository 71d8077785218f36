"""The README does what it says: its commands and its Python example run on a small log, its tree is the package's."""

import re
import shlex
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import typer

from infobehavior.cli import main
from infobehavior.cli.commands import app
from source_tree import README, ROOT, package_files, readme_tree, source_tree

TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.startswith("infobehavior ")
]
FUSION = [command for command in COMMANDS if command[1] == "fuse"]
EXPERIMENT = [command for command in COMMANDS if "market" in " ".join(command)]
PATH = [command for command in COMMANDS if command not in FUSION + EXPERIMENT]
[TOML] = [block for language, block in BLOCKS if language == "toml"]
[PYTHON] = [block for language, block in BLOCKS if language == "python"]

# A training that is just long enough to be one.
SMALL = "--num-steps 2 --batch-size 8 --num-layers 1 --num-heads 2 --head-dim 8 --feedforward-dim 16 --num-threads 1"
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
NUM_DAYS = 91
NUM_ENTITIES = 60


def write_log(folder):
    """Three months of logins and posts; risky entities fail more often and work at night."""
    random = np.random.default_rng(0)
    risky = np.arange(NUM_ENTITIES) % 3 == 0
    entity = np.repeat(np.arange(NUM_ENTITIES), 120)
    hour = np.where(risky[entity], random.integers(0, 8, len(entity)), random.integers(8, 24, len(entity)))
    seconds = random.integers(0, 3_600, len(entity))
    day = random.integers(0, NUM_DAYS, len(entity))
    failed = random.random(len(entity)) < np.where(risky[entity], 0.5, 0.1)
    (folder / "events").mkdir()
    pd.DataFrame(
        {
            "entity_id": entity,
            "timestamp": [
                FIRST_DAY + timedelta(days=int(d), hours=int(h), seconds=int(s))
                for d, h, s in zip(day, hour, seconds, strict=True)
            ],
            "behavior": random.choice(["login", "post", "edit"], len(entity)),
            "location": random.choice(["Berlin", "Lagos", "Lima"], len(entity)),
            "outcome": np.where(failed, "failure", "success"),
        }
    ).to_parquet(folder / "events" / "part-0.parquet")
    labels = pd.DataFrame({"entity_id": np.arange(NUM_ENTITIES), "risky": risky.astype(int)})
    labels.to_parquet(folder / "labels.parquet")
    moments = FIRST_DAY + pd.to_timedelta(60 + np.arange(NUM_ENTITIES) % 30, unit="D")
    labels.assign(as_of=moments).to_parquet(folder / "decisions.parquet")
    write_products(folder, random, risky)


def write_products(folder, random, risky):
    """Two months of products after the log; those of risky entities break the rules, and their titles say so."""
    entity = np.tile(np.arange(NUM_ENTITIES), 8)
    word = np.where(risky[entity] & (random.random(len(entity)) < 0.7), "jackpot", "party")
    (folder / "products").mkdir()
    pd.DataFrame(
        {
            "product_id": np.arange(len(entity)),
            "entity_id": entity,
            "posted_at": FIRST_DAY + pd.to_timedelta(random.integers(91, 152, len(entity)), unit="D"),
            "title": [
                f"{first} {second}"
                for first, second in zip(word, random.choice(["set", "box"], len(word)), strict=True)
            ],
            "label_violation": risky[entity].astype(int),
        }
    ).to_parquet(folder / "products" / "part-0.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    write_log(folder)
    return folder


def test_the_path_is_there_in_its_order():
    assert [command[1] for command in PATH] == ["inspect", "aggregate", "pretrain", "embed", "evaluate", "daily"]
    assert [command[2] for command in FUSION] == ["train", "evaluate", "predict"]
    assert [command[1] for command in EXPERIMENT] == ["simulate", "inspect", "aggregate", "table1"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_commands_parse(command):
    group = typer.main.get_command(app)
    group.commands[command[1]].make_context(command[1], command[2:])


def test_commands_and_python_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for command in PATH:
        extra = shlex.split(SMALL) if command[1] == "pretrain" else []
        assert main([*command[1:], *extra]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out
    assert (folder / "report" / "metrics.json").is_file()
    assert (folder / "report" / "report.html").is_file()
    (folder / "fusion.toml").write_text(TOML.replace("0.95", "0.5"), encoding="utf-8")
    for command in FUSION:
        assert main(command[1:]) == 0, capsys.readouterr().err
    assert (folder / "fused-report" / "report.html").is_file()
    assert (folder / "predictions" / "ds=2024-05-31" / "predictions.parquet").is_file()
    exec(compile(PYTHON, "README.md", "exec"), names := {})
    assert names["pipeline"].predict_proba(names["decisions"][["entity_id", "as_of"]]).shape == (NUM_ENTITIES, 2)


def test_the_experiment_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    smaller = {
        "simulate": ["--num-sellers", "60", "--abnormal-share", "0.4", "--workers", "1"],
        "table1": [*shlex.split(SMALL), "--seeds", "1"],
    }
    for command in EXPERIMENT:
        assert main([*command[1:], *smaller.get(command[1], [])]) == 0, capsys.readouterr().err
    assert (tmp_path / "market" / "table1" / "table1.json").is_file()


def test_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"^make (\w+)", "\n".join(block for _, block in BLOCKS), re.MULTILINE)
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


def test_continuous_integration_runs_the_test_command():
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("\nmake test")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).is_file(), f"{document} links to {target}, which isn't there"


def test_the_tree_names_each_file_once_with_a_phrase():
    assert readme_tree(TEXT) == source_tree(), "run `make tree`"
    named = [line.split(maxsplit=1) for line in readme_tree(TEXT).splitlines()]
    assert len(named) == len(package_files())
    assert all(len(parts) == 2 for parts in named)
