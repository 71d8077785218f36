"""`make bench` works on a small scale: each part measures, writes its JSON and tells it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

ROOT = Path(__file__).parents[2]
NUM_ACCOUNTS = 40
NUM_EVENTS = 6_000
UNTIL = datetime(2026, 7, 1, tzinfo=UTC)


def run(module: str, *arguments: object) -> str:
    """Run a module of the benchmarks; what it printed."""
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])
    finished = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def bench(part: str, data: Path, work: Path) -> tuple[str, dict[str, Any]]:
    """Run a part; what it printed and what it wrote."""
    printed = run("performance", "--small", "--part", part, "--data", data, "--work", work, "--results", work)
    return printed, json.loads((work / f"{part}.json").read_text())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A log with the columns of git_activity, and labels of its accounts."""
    folder = tmp_path / "data" / "git_activity"
    folder.mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        first = UNTIL - timedelta(days=400)
        connection.execute(
            f"COPY (SELECT i % {NUM_ACCOUNTS} AS entity_id, "
            f"TIMESTAMPTZ '{first}' + to_minutes((hash(i) % {400 * 1440})::BIGINT) AS timestamp, "
            "'behavior ' || (hash(i + 1) % 5) AS behavior, 'place ' || (hash(i + 2) % 3) AS location, "
            f"'success' AS outcome FROM range({NUM_EVENTS}) t(i)) TO '{folder}/events.parquet'"
        )
        connection.execute(
            f"COPY (SELECT i AS entity_id, i % 2 = 0 AS label_corp, i AS person_id FROM range({NUM_ACCOUNTS}) t(i)) "
            f"TO '{folder}/labels.parquet'"
        )
    return folder.parent


@pytest.mark.parametrize(
    ("part", "title"),
    [
        ("encoder", "## Encoder"),
        ("pretraining", "## Pre-training"),
        ("growth", "## Growth"),
        ("memory", "## Training on more minutes than memory holds"),
        ("market", "## The simulated market"),
    ],
)
def test_each_part(part: str, title: str, data: Path, tmp_path: Path) -> None:
    printed, written = bench(part, data, tmp_path / "work")

    assert title in printed
    assert written["machine"]["commit"]
    assert written["result"]


def test_the_daily_window_finds_spans_where_accounts_do_much(data: Path, tmp_path: Path) -> None:
    printed, written = bench("window", data, tmp_path / "work")

    assert "## The daily window" in printed
    assert "| with the window (paper) |" in printed
    found = {log["name"]: log["kept"] for log in written["result"]["logs"]}
    assert list(found) == ["sparse", "dense", "git_activity"]
    assert found["dense"][1] > found["dense"][0] > 0


def test_all_sides_of_the_aggregation_make_the_same_minutes(tmp_path: Path) -> None:
    _, written = bench("aggregation", tmp_path, tmp_path / "work")

    for log in written["result"]["runs"]:
        assert "pandas" in log["equal"]
        assert all(log["equal"].values())


def test_the_embedding_is_timed_from_inside(data: Path, tmp_path: Path) -> None:
    logs, report = tmp_path / "logs", tmp_path / "report.json"
    events = data / "git_activity" / "events.parquet"
    run("performance.embedding_steps", "prepare", "git_activity", events, logs, "--threads", 1)
    arguments = [logs / "minutes", "--model", logs / "month" / "model", "--as-of", logs / "month" / "moments.parquet"]
    run("performance.embedding_steps", "embed", *arguments, "--out", tmp_path / "out", "--report", report)

    told = json.loads(report.read_text())
    assert told["num_entities"] == NUM_ACCOUNTS
    seconds = told["seconds"]
    assert 0 < seconds["inference"] < seconds["shards"] < seconds["embed"]


@pytest.mark.parametrize("part", ["pretraining", "embedding"])
def test_a_log_that_is_not_there_is_said_so(part: str, tmp_path: Path) -> None:
    printed, _ = bench(part, tmp_path / "nowhere", tmp_path / "work")

    assert "Not measured: git_activity isn't here." in printed
