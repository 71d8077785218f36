"""`make bench` works on a small scale: each part measures, writes its JSON and tells it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).parents[2]
NUM_ACCOUNTS = 40
NUM_EVENTS = 6_000
UNTIL = datetime(2026, 7, 1, tzinfo=UTC)


def bench(part: str, data: Path, work: Path) -> tuple[str, dict]:
    """Run a part; what it printed and what it wrote."""
    options = ["--small", "--part", part, "--data", str(data), "--work", str(work), "--results", str(work / "results")]
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])
    run = subprocess.run(
        [sys.executable, "-m", "performance", *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads((work / "results" / f"{part}.json").read_text())


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
        ("aggregation", "## Aggregation"),
        ("window", "## The daily window"),
    ],
)
def test_each_part(part: str, title: str, data: Path, tmp_path: Path) -> None:
    printed, written = bench(part, data, tmp_path / "work")

    assert title in printed
    assert written["machine"]["commit"] is not None
    assert written["result"]


@pytest.mark.parametrize("part", ["pretraining", "embedding"])
def test_a_log_that_is_not_there_is_said_so(part: str, tmp_path: Path) -> None:
    printed, _ = bench(part, tmp_path / "nowhere", tmp_path / "work")

    assert "Not measured: git_activity isn't here." in printed
