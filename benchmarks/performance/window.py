"""Sliding the daily window by a day, beside computing the month again.

What the day before left is the minutes: their partitions are kept, so a night aggregates the new day only. A window's
spans move with its end, so span representations are computed again; what keeping them could save at most is measured.
"""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch

import infobehavior
from infobehavior.data.batches import Tokenizer
from infobehavior.data.minutes import open_minutes
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import Windows
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.reproducible import DEFAULT_THREADS, reproducible
from performance.growth import FIRST_DAY, WINDOW_DAYS, Log
from performance.measure import alternate, summary, table

LAST_DAY = FIRST_DAY + timedelta(days=WINDOW_DAYS)
"""The new day: the day after a month of them."""


@dataclass(frozen=True)
class Sizes:
    """Accounts and events of the two simulated logs, and repeats."""

    sparse: Log
    dense: Log
    repeats: int


FULL = Sizes(Log(20_000, 100, num_days=WINDOW_DAYS + 1), Log(50, 40_000, num_days=WINDOW_DAYS + 1), repeats=3)
SMALL = Sizes(Log(50, 100, num_days=WINDOW_DAYS + 1), Log(2, 1_000, num_days=WINDOW_DAYS + 1), repeats=1)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Two simulated logs, one of accounts that do little and one of accounts that do something in most minutes."""
    sizes = SMALL if small else FULL
    return {
        "logs": [
            _measure(name, log, work / "window" / name, sizes.repeats)
            for name, log in (("sparse", sizes.sparse), ("dense", sizes.dense))
        ]
    }


def _measure(name: str, log: Log, folder: Path, repeats: int) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "days").mkdir(parents=True)
    _write_days(log, folder / "days")
    schema = infobehavior.inspect(folder / "days").schema
    before, slid = folder / "before", folder / "slid"
    infobehavior.aggregate(_days(folder, FIRST_DAY, LAST_DAY - timedelta(days=1)), schema, before)
    model = _make_model(before, folder / "model")

    def again() -> None:
        shutil.rmtree(folder / "again", ignore_errors=True)
        infobehavior.aggregate(_days(folder, FIRST_DAY + timedelta(days=1), LAST_DAY), schema, folder / "again")

    def slide() -> None:
        infobehavior.aggregate(_days(folder, LAST_DAY, LAST_DAY), schema, slid)

    def copy() -> None:
        shutil.rmtree(slid, ignore_errors=True)
        shutil.copytree(before, slid)

    copy()
    seconds = alternate({"copy": copy, "slide": slide, "again": again}, repeats)
    seconds |= alternate({"embed": lambda: _embed(slid, model, folder / "embeddings")}, repeats)
    with reproducible(DEFAULT_THREADS), torch.inference_mode():
        parts = alternate(_parts(*_windows(slid, model)), repeats)
    return {
        "name": name,
        "accounts": log.num_entities,
        "events": log.num_events,
        "seconds": {side: summary(times) for side, times in (seconds | parts).items()},
    }


def _write_days(log: Log, folder: Path) -> None:
    """One file a day, as logs arrive."""
    log.write(folder.parent / "all.parquet")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for number in range(log.num_days):
            day = FIRST_DAY + timedelta(days=number)
            connection.execute(
                f"COPY (SELECT * FROM '{folder.parent}/all.parquet' WHERE timestamp >= TIMESTAMPTZ '{day} 00:00+00' "
                f"AND timestamp < TIMESTAMPTZ '{day + timedelta(days=1)} 00:00+00' ORDER BY timestamp, entity_id) "
                f"TO '{folder}/{day}.parquet'"
            )


def _days(folder: Path, first: date, last: date) -> Path:
    """A folder with the files of some days."""
    chosen = folder / f"from-{first}-to-{last}"
    chosen.mkdir(exist_ok=True)
    for number in range((last - first).days + 1):
        name = f"{first + timedelta(days=number)}.parquet"
        if not (chosen / name).exists():
            (chosen / name).hardlink_to(folder / "days" / name)
    return chosen


def _make_model(minutes: Path, target: Path) -> Path:
    table = open_minutes(minutes)
    vocabulary = Vocabulary.fit(load_store(table), table.hash, min_count=5)
    InfoBehavior(EncoderConfig(), vocabulary, table.schema.time.time_zone).save_pretrained(target)
    return target


def _embed(minutes: Path, model: Path, out: Path) -> None:
    infobehavior.embed(minutes, model, out, date=LAST_DAY)


def _windows(minutes: Path, model: Path) -> tuple[InfoBehavior, Tokenizer, Windows]:
    """Some of the windows of the new day, and what encodes them."""
    table, encoder = open_minutes(minutes), InfoBehavior.from_pretrained(model)
    store = load_store(table)
    entity = np.arange(min(len(store.entities), 100))
    end = np.full(len(entity), int(store.minute.max()) + 1)
    windows = Windows.cut(store, entity, end, encoder.config.window_minutes)
    return encoder, encoder.tokenizer(store), windows


def _parts(encoder: InfoBehavior, tokenizer: Tokenizer, windows: Windows) -> dict[str, Any]:
    batch = tokenizer.batch(windows)
    nothing = torch.zeros(batch.num_spans, dtype=torch.bool)
    return {
        "tokens": lambda: tokenizer.batch(windows),
        "spans": lambda: encoder.span_cnn(encoder.minute_embedding(batch), batch.span_lengths),
        "whole encoder": lambda: encoder(batch, wanted=nothing),
    }


def section(result: dict[str, Any]) -> str:
    """The table of the page."""
    rows = []
    for log in result["logs"]:
        seconds = {side: times["median"] for side, times in log["seconds"].items()}
        night, month = seconds["slide"] + seconds["embed"], seconds["again"] + seconds["embed"]
        rows.append(
            [
                log["name"],
                f"{log['accounts']:,} of {log['events']:,} events",
                f"{seconds['again']:.2f}",
                f"{seconds['slide']:.2f}",
                f"**{seconds['again'] / seconds['slide']:.1f} ×**",
                f"{seconds['embed']:.2f}",
                f"{month / night:.1f} ×",
                f"{(seconds['tokens'] + seconds['spans']) / (seconds['tokens'] + seconds['whole encoder']):.0%}",
            ]
        )
    header = ["log, simulated", "accounts", "aggregate the month, s", "aggregate the new day, s", "ratio", "embed, s"]
    header += ["aggregate and embed, ratio", "share of tokens and spans in encoding"]
    return f"{_TEXT}\n\n{table(header, rows)}"


_TEXT = """\
## The daily window

`make bench PART=window`, on two simulated logs of 31 days, one file a day. A night aggregates the new day only; the
minutes of the others are there. Embedding is computed whole: a window's spans are laid from its own start, and a day
(1,440 minutes) isn't a multiple of the stride (340), so yesterday's spans aren't today's. Keeping span representations
on a grid that doesn't move with the window would save most of the share in the last column, which is that of making
tokens and encoding spans in encoding whole, and some of the reading of minutes; it costs 768 bytes a span on disk. It
isn't built: see "Speed" in the design."""
