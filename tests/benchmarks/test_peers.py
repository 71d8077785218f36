"""The peers that train: which events a window, a training and a code may see; and whole runs where the package is."""

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"
PEER_PYTHON = ROOT / "bench-work" / "embedding" / "coles" / "bin" / "python"
"""Where `make bench PART=embedding` puts the peer's virtual environment."""

SECOND, MINUTE, DAY = 10**6, 60 * 10**6, 86_400 * 10**6
COLUMNS = ["behavior", "outcome"]


def _import(name: str) -> ModuleType:
    sys.path.append(str(PEERS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PEERS))


sequences = _import("sequences")


def write_events(path: Path, rows: list[tuple[int, int, str, str | None]]) -> Path:
    """A log of (entity, microseconds, behavior, outcome)."""
    entities, micros, behaviors, outcomes = zip(*rows, strict=True)
    columns = {
        "entity_id": pa.array(entities, pa.int64()),
        "timestamp": pa.array(micros, pa.timestamp("us", tz="UTC")),
        "behavior": pa.array(behaviors),
        "outcome": pa.array(outcomes, pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def write_moments(path: Path, rows: list[tuple[int, int]], **columns: list[Any]) -> Path:
    """Moments of (entity, microseconds), and further columns."""
    entities, micros = zip(*rows, strict=True)
    moments = {"entity_id": pa.array(entities, pa.int64()), "as_of": pa.array(micros, pa.timestamp("us", tz="UTC"))}
    pq.write_table(pa.table({**moments, **columns}), path)
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Two accounts, their events in no order; account 7 has two events in the minute of day 3."""
    rows = [
        (7, 3 * DAY + 20 * SECOND, "edit", "success"),
        (5, 2 * DAY, "post", None),
        (7, 1 * DAY, "edit", "success"),
        (7, 3 * DAY, "post", "failure"),
        (5, 1 * DAY, "edit", "success"),
        (7, 0, "edit", None),
    ]
    return write_events(tmp_path / "events.parquet", rows)


def test_a_log_is_by_entity_and_time(events: Path) -> None:
    log = sequences.read_log(events, COLUMNS)

    assert log.entities.tolist() == [5, 7]
    assert log.starts.tolist() == [0, 2, 6]
    assert log.micros.tolist() == [DAY, 2 * DAY, 0, DAY, 3 * DAY, 3 * DAY + 20 * SECOND]
    named = [log.names["outcome"][value] for value in log.values["outcome"]]
    assert named == ["success", None, None, "success", "failure", "success"]


def test_hours_and_weekdays_are_of_the_time_zone(events: Path) -> None:
    utc = sequences.read_log(events, COLUMNS).calendar
    tokyo = sequences.read_log(events, COLUMNS, "Asia/Tokyo").calendar

    assert utc["hour"].tolist() == [0] * 6
    assert utc["weekday"].tolist() == [4, 5, 3, 4, 6, 6]
    assert tokyo["hour"].tolist() == [9] * 6


@pytest.mark.parametrize(
    ("end", "days", "expected"),
    [
        (3 * DAY, 3, [0, DAY]),
        (3 * DAY + 59 * SECOND, 3, [0, DAY]),
        (3 * DAY + MINUTE, 3, [DAY, 3 * DAY, 3 * DAY + 20 * SECOND]),
        (2 * DAY, 1, [DAY]),
        (DAY, 1, [0]),
        (0, 1, []),
    ],
)
def test_a_window_ends_before_the_minute_of_its_moment(
    end: int, days: int, expected: list[int], events: Path, tmp_path: Path
) -> None:
    log = sequences.read_log(events, COLUMNS)
    moments = sequences.read_moments(write_moments(tmp_path / "moments.parquet", [(7, end)]))

    [(first, stop)] = sequences.moment_windows(log, moments, days)

    assert log.micros[first:stop].tolist() == expected


def test_an_account_that_the_log_lacks_has_an_empty_window(events: Path, tmp_path: Path) -> None:
    log = sequences.read_log(events, COLUMNS)
    moments = sequences.read_moments(write_moments(tmp_path / "moments.parquet", [(9, DAY), (6, DAY), (1, DAY)]))

    assert sequences.moment_windows(log, moments, 30).tolist() == [[0, 0]] * 3
    assert sequences.training_windows(log, moments).tolist() == [[0, 2], [2, 6]]


def test_the_cut_is_at_the_first_moment_of_an_account_and_leaves_others_whole(events: Path, tmp_path: Path) -> None:
    log = sequences.read_log(events, COLUMNS)
    rows = [(7, 9 * DAY), (7, 3 * DAY + 30 * SECOND), (7, 8 * DAY)]
    cut = sequences.read_moments(write_moments(tmp_path / "moments.parquet", rows))

    whole, seen = sequences.training_windows(log), sequences.training_windows(log, cut)

    assert whole.tolist() == [[0, 2], [2, 6]]
    assert seen.tolist() == [[0, 2], [2, 4]]
    until = int(log.micros[4])
    assert sequences.training_windows(log, until=until).tolist() == [[0, int((log.micros[:2] < until).sum())], [2, 4]]
    assert sequences.rows_inside(log, seen).tolist() == [True] * 4 + [False] * 2


def test_a_day_ends_at_local_midnight() -> None:
    assert sequences.end_of_day(date(1970, 1, 1), "UTC") == 86_400_000_000
    assert sequences.end_of_day(date(2024, 3, 31), "Europe/Berlin") == 1_711_922_400_000_000


def test_codes_are_by_frequency_and_unseen_values_share_the_last(events: Path) -> None:
    log = sequences.read_log(events, COLUMNS)
    seen = np.array([True, True, True, True, False, True])

    coded, sizes = sequences.codes(log, seen)

    assert coded["behavior"].tolist() == [1, 2, 1, 1, 2, 1]
    assert coded["outcome"].tolist() == [1, 2, 2, 1, 3, 1]
    assert sizes == {"behavior": 3, "outcome": 4, "hour": 25, "weekday": 8}
    assert coded["weekday"].tolist() == [5, 6, 4, 5, 7, 7]


def test_a_record_keeps_the_last_events_and_knows_nothing_before_its_window(events: Path) -> None:
    log = sequences.read_log(events, COLUMNS)
    coded, _ = sequences.codes(log, np.ones(6, dtype=bool))

    def gaps(first: int, stop: int, max_events: int | None = None) -> list[float]:
        [record] = sequences.records(log, coded, np.array([[first, stop]]), max_events)
        assert {len(column) for column in record.values()} == {len(record["event_time"])}
        return np.expm1(record["log_gap"]).round().tolist()

    assert gaps(2, 6) == [0, 86_400, 2 * 86_400, 20]
    assert gaps(3, 6) == [0, 2 * 86_400, 20]
    assert gaps(3, 6, max_events=2) == [2 * 86_400, 20]
    assert gaps(3, 3) == []
    assert sequences.share_truncated(np.array([[2, 6], [3, 5]]), 2) == 0.5


def test_what_comes_after_the_cut_changes_no_record_of_training(tmp_path: Path) -> None:
    before = [(entity, day * DAY, "ab"[day % 2], None) for entity in (1, 2) for day in range(6)]
    after = [(1, 9 * DAY, name, "failure") for name in "bbbbbz"]
    cut = sequences.read_moments(write_moments(tmp_path / "moments.parquet", [(1, 9 * DAY)]))

    def trained_on(rows: list[tuple[int, int, str, str | None]]) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
        log = sequences.read_log(write_events(tmp_path / "events.parquet", rows), COLUMNS)
        windows = sequences.training_windows(log, cut)
        coded, sizes = sequences.codes(log, sequences.rows_inside(log, windows))
        return sequences.records(log, coded, windows), sizes

    (short, short_sizes), (long, long_sizes) = trained_on(before), trained_on(after + before)

    np.testing.assert_equal(long, short)
    known = {name: max(record[name].max() for record in short) for name in COLUMNS}
    assert all(known[name] < long_sizes[name] for name in known)
    assert {name: short_sizes[name] + 1 for name in COLUMNS} == {name: long_sizes[name] for name in COLUMNS}


@given(lengths=st.lists(st.integers(0, 50), max_size=40), max_steps=st.integers(1, 200))
def test_batches_by_length_hold_each_record_with_events_once(lengths: list[int], max_steps: int) -> None:
    batches = list(sequences.batches_by_length(np.array(lengths, dtype=np.int64), max_steps))

    assert sorted(i for batch in batches for i in batch) == [i for i, length in enumerate(lengths) if length]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_steps


@given(num=st.integers(1, 200), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_shuffled_batches_hold_each_record_once_an_epoch(num: int, batch_size: int, seed: int) -> None:
    lengths = np.arange(num) % 7
    batches = sequences.ShuffledByLength(lengths, batch_size, seed)

    first, second = list(batches), list(batches)

    assert len(first) == len(batches)
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch) == list(range(num))
    assert list(sequences.ShuffledByLength(lengths, batch_size, seed)) == first


@pytest.fixture(scope="session")
def peer_python() -> str:
    """A Python that has pytorch-lifestream."""
    if importlib.util.find_spec("ptls"):
        return sys.executable
    if PEER_PYTHON.exists():
        return str(PEER_PYTHON)
    pytest.skip("pytorch-lifestream isn't here: `make bench PART=embedding` makes its environment")


def run(python: str, script: str, folder: Path, *options: object) -> tuple[pa.Table, dict[str, Any]]:
    """A peer's table and report, of the events and the moments of a folder."""
    out, report = folder / "out.parquet", folder / "report.json"
    inputs = [folder / "events.parquet", folder / "moments.parquet", "--columns", *COLUMNS, "--window-days", 30]
    finished = subprocess.run(
        [python, *map(str, [PEERS / script, *inputs, *options, "--threads", 1, "--out", out, "--report", report])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return pq.read_table(out), json.loads(report.read_text())


def lives(num: int) -> list[tuple[int, int, str, str | None]]:
    """Accounts with 30 events in as many days; odd ones do something else."""
    return [(entity, day * DAY, "abcd"[day % 2 + 2 * (entity % 2)], None) for entity in range(num) for day in range(30)]


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_embeddings_repeat_and_see_nothing_from_the_moment_on(encoder: str, peer_python: str, tmp_path: Path) -> None:
    moments = [(3, 20 * DAY), (99, 20 * DAY), *((entity, 20 * DAY) for entity in range(20) if entity != 3)]
    write_moments(tmp_path / "moments.parquet", moments)
    options = ["--encoder", encoder, "--steps", 2, "--batch-size", 8, "--cut"]

    write_events(tmp_path / "events.parquet", lives(20))
    table, report = run(peer_python, "coles_train.py", tmp_path, *options)
    later = [(entity, 25 * DAY + entity, "a", None) for entity in range(20) for _ in range(50)]
    write_events(tmp_path / "events.parquet", later + lives(20))
    again, _ = run(peer_python, "coles_train.py", tmp_path, *options)

    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    assert table["entity_id"].to_pylist() == [entity for entity, _ in moments]
    assert table.equals(again)
    assert not vectors[1].any()
    assert vectors.any(axis=1).sum() == 20
    assert report["steps"] == len(report["last_losses"]) == 2
    assert report["num_windows_without_events"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "events.parquet",
        "moments.parquet",
        "out.parquet",
        "report.json",
    }


def test_the_supervised_peer_learns_what_is_plain_and_scores_the_test_part(peer_python: str, tmp_path: Path) -> None:
    entities = [99, *range(60)]
    part = ["test"] + [("train", "choose", "test")[entity // 2 % 3] for entity in range(60)]
    positive = [entity % 2 == 1 for entity in entities]
    write_events(tmp_path / "events.parquet", lives(60))
    write_moments(tmp_path / "moments.parquet", [(e, 30 * DAY) for e in entities], part=part, positive=positive)

    table, report = run(peer_python, "gru_supervised.py", tmp_path, "--steps", 20, "--batch-size", 8)

    tested = [entity for entity, name in zip(entities, part, strict=True) if name == "test"]
    assert table["entity_id"].to_pylist() == tested
    scores = table["score"].to_numpy()
    assert scores[0] == pytest.approx(4 / 5)
    is_odd = np.array(tested[1:]) % 2 == 1
    assert scores[1:][is_odd].min() > scores[1:][~is_odd].max()
    assert report["steps"] == 20
    assert "20" in report["choose_losses"]
    assert report["choose_losses"][str(report["best_step"])] == min(report["choose_losses"].values())
