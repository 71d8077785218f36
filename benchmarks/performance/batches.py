"""Batches to encode: windows of real accounts, and of made-up ones whose lengths are a worst case for someone."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import DIRTY, machine
from numpy.typing import NDArray

import infobehavior
from infobehavior.data.batches import WindowBatch
from infobehavior.data.minutes import open_minutes
from infobehavior.data.store import MinuteStore, load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import Windows
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.pretraining.pairs import PairSampler

SEED = 0
NUM_BEHAVIORS = 20
NUM_LOCATIONS = 50
END = 25_000_000
"""UTC epoch minute at which made-up windows end."""


@dataclass(frozen=True)
class Workload:
    """Windows for an encoder.

    Attributes:
        name: for tables.
        what: in words.
        model: an encoder for them, with the paper's sizes and untrained.
        batch: a batch by number.
        num_batches: how many different ones there are.
    """

    name: str
    what: str
    model: InfoBehavior
    batch: Callable[[int], WindowBatch]
    num_batches: int = 1


def real_windows(minutes: Path, window_days: int, num_pairs: int, num_batches: int) -> Workload:
    """Pairs of adjacent windows of real accounts, drawn as training draws them, anywhere in an account's history."""
    table = open_minutes(minutes)
    store = load_store(table)
    model = _model(store, table.hash, window_days)
    last = int(store.minute.max()) + 1
    sampler = PairSampler(store, model.config.window_minutes, "anywhere", last, 2, num_pairs, SEED, "UTC")
    tokenizer = model.tokenizer(store)
    return Workload(
        f"git_activity, {window_days} days",
        f"{num_pairs} pairs of adjacent windows of real accounts",
        model,
        lambda number: tokenizer.batch(sampler.windows(number)),
        num_batches,
    )


def lognormal_windows(num_windows: int) -> Workload:
    """Windows of 30 days whose numbers of minutes are lognormal."""
    random = np.random.default_rng(SEED)
    sizes = np.clip(random.lognormal(mean=4, sigma=1.5, size=num_windows), 1, 30_000).astype(np.int64)
    return _made_up("lognormal", f"{num_windows} windows of lognormal(4, 1.5) minutes, simulated", sizes)


def one_long_window(num_windows: int, full_minutes: int) -> Workload:
    """The worst case for padding: one window is full, the others hold a minute each."""
    sizes = np.ones(num_windows, dtype=np.int64)
    sizes[0] = full_minutes
    return _made_up("one full, others a minute", f"{num_windows} windows, simulated", sizes)


def full_windows(num_windows: int, full_minutes: int) -> Workload:
    """The worst case for packing: all windows are full, so that there is nothing to pad."""
    sizes = np.full(num_windows, full_minutes)
    return _made_up("all full", f"{num_windows} windows with events in each minute, simulated", sizes)


def prepare_minutes(data: Path, work: Path) -> Path | None:
    """Aggregate git_activity, unless this commit has done so before; None where it isn't there."""
    events = data / "git_activity" / "events.parquet"
    minutes, made_by = work / "git_activity-minutes", work / "git_activity-minutes.commit"
    if not events.exists():
        return None
    commit = machine()["commit"]
    if not made_by.exists() or made_by.read_text() != commit or commit.endswith(DIRTY):
        shutil.rmtree(minutes, ignore_errors=True)
        infobehavior.aggregate(events, infobehavior.inspect(events).schema, minutes)
        made_by.write_text(commit)
    return minutes


def _made_up(name: str, what: str, sizes: NDArray[np.int64]) -> Workload:
    store = _random_store(sizes)
    model = _model(store, "0" * 16, EncoderConfig().window_days)
    tokenizer = model.tokenizer(store)
    entity = np.arange(len(sizes))
    windows = Windows.cut(store, entity, np.full(len(sizes), END), model.config.window_minutes)
    batch = tokenizer.batch(windows)
    return Workload(name, what, model, lambda number: batch)


def _random_store(sizes: NDArray[np.int64]) -> MinuteStore:
    """Entities with so many minutes each in the 30 days before END."""
    random = np.random.default_rng(SEED)
    minute = np.concatenate([np.sort(minutes) for minutes in _minutes(sizes, random)])
    num_rows = len(minute)
    levels = random.integers(1, 4, num_rows)
    code = np.minimum(random.zipf(1.5, num_rows), NUM_BEHAVIORS) - 1
    composites, behavior = np.unique(levels << (2 * code), return_inverse=True)
    location = np.minimum(random.zipf(1.5, num_rows), NUM_LOCATIONS) - 1
    return MinuteStore(
        entities=np.arange(len(sizes)),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        minute=minute.astype(np.int32),
        behavior=behavior.astype(np.int32),
        location=location.astype(np.int32),
        num_events=np.ones(num_rows, dtype=np.int32),
        num_failures=np.zeros(num_rows, dtype=np.int32),
        composites=composites[:, None].astype(np.int64),
        location_sets=[f"place {i}" for i in range(NUM_LOCATIONS)],
    )


def _minutes(sizes: NDArray[np.int64], random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    length = EncoderConfig().window_minutes
    for size in sizes.tolist():
        yield END - 1 - random.choice(length, size, replace=False)


def _model(store: MinuteStore, minutes_hash: str, window_days: int) -> InfoBehavior:
    vocabulary = Vocabulary.fit(store, minutes_hash, min_count=5)
    return InfoBehavior(EncoderConfig(window_days=window_days), vocabulary)
