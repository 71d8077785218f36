"""Sliding the daily window by a day, beside computing the month again.

What the day before left are the minutes, whose partitions are kept, and representations of long spans. A night
aggregates the new day, represents the spans that are new, and contextualises all windows.
"""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

import infobehavior
from infobehavior.data.minutes import open_minutes
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.embedding.kept_spans import FILE, LONG_SPAN
from infobehavior.embedding.table import PARTITION_FILE
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.pretraining.config import preset
from performance.batches import prepare_minutes
from performance.growth import FIRST_DAY, WINDOW_DAYS, Log
from performance.measure import alternate, summary, table
from performance.quality import LabelledLog, measure_quality, quality_table

LAST_DAY = FIRST_DAY + timedelta(days=WINDOW_DAYS)
"""The new day: the day after a month of them."""


@dataclass(frozen=True)
class Sizes:
    """The two simulated logs, repeats, and trainings whose quality is compared: their steps and seeds."""

    sparse: Log
    dense: Log
    repeats: int
    quality_steps: int
    quality_seeds: int


FULL = Sizes(
    Log(20_000, 100, num_days=WINDOW_DAYS + 1),
    Log(50, 40_000, num_days=WINDOW_DAYS + 1),
    repeats=3,
    quality_steps=400,
    quality_seeds=3,
)
SMALL = Sizes(
    Log(50, 100, num_days=WINDOW_DAYS + 1),
    Log(2, 1_000, num_days=WINDOW_DAYS + 1),
    repeats=1,
    quality_steps=3,
    quality_seeds=1,
)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Two simulated logs, of accounts that do little and of accounts that do something in most minutes; and quality."""
    sizes = SMALL if small else FULL
    logs = {"sparse": sizes.sparse, "dense": sizes.dense}
    return {
        "logs": [_measure(name, log, work / "window" / name, sizes.repeats) for name, log in logs.items()],
        "quality": _measure_quality(data, work, sizes),
    }


def _measure(name: str, log: Log, folder: Path, repeats: int) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "days").mkdir(parents=True)
    _write_days(log, folder / "days")
    schema = infobehavior.inspect(folder / "days").schema
    before, slid, anew, kept = (folder / part for part in ("before", "slid", "anew", "kept"))
    infobehavior.aggregate(_days(folder, FIRST_DAY, LAST_DAY - timedelta(days=1)), schema, before)
    model = _make_model(before, folder / "model")
    infobehavior.embed(before, model, kept, date=LAST_DAY - timedelta(days=1), keep_spans=True)
    kept_before = folder / "kept-before.arrow"
    shutil.copyfile(kept / FILE, kept_before) if (kept / FILE).exists() else kept_before.touch()
    found = []

    def again() -> None:
        shutil.rmtree(folder / "again", ignore_errors=True)
        infobehavior.aggregate(_days(folder, FIRST_DAY + timedelta(days=1), LAST_DAY), schema, folder / "again")

    def slide() -> None:
        infobehavior.aggregate(_days(folder, LAST_DAY, LAST_DAY), schema, slid)

    def copy() -> None:
        shutil.rmtree(slid, ignore_errors=True)
        shutil.copytree(before, slid)
        shutil.copyfile(kept_before, kept / FILE)

    def embed_with_kept() -> None:
        found.append(infobehavior.embed(slid, model, kept, date=LAST_DAY, keep_spans=True).kept_spans)

    seconds = alternate(
        {
            "copy": copy,
            "slide": slide,
            "embed with kept spans": embed_with_kept,
            "again": again,
            "embed": lambda: infobehavior.embed(slid, model, anew, date=LAST_DAY),
        },
        repeats,
    )
    partition = f"ds={LAST_DAY}/{PARTITION_FILE}"
    assert (kept / partition).read_bytes() == (anew / partition).read_bytes()
    return {
        "name": name,
        "accounts": log.num_entities,
        "events": log.num_events,
        "seconds": {side: summary(times) for side, times in seconds.items()},
        "kept": found[0],
        "bytes": {
            "minutes": sum(path.stat().st_size for path in slid.rglob("*.parquet")),
            "spans": (kept / FILE).stat().st_size,
        },
    }


def _measure_quality(data: Path, work: Path, sizes: Sizes) -> dict[str, Any] | None:
    """Spans that move with the window, and spans that don't; None where git_activity isn't."""
    minutes = prepare_minutes(data, work)
    if minutes is None:
        return None
    base = preset("two-cores")
    configs = {}
    for name, origin in (("with the window (paper)", "window"), ("never", "epoch")):
        encoder = base.encoder.model_copy(update={"window_days": 90, "span_origin": origin})
        configs[name] = base.model_copy(update={"encoder": encoder, "num_steps": sizes.quality_steps})
    return measure_quality(LabelledLog(minutes, data / "git_activity"), work, configs, sizes.quality_seeds)


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
    InfoBehavior(EncoderConfig(span_origin="epoch"), vocabulary, table.schema.time.time_zone).save_pretrained(target)
    return target


def section(result: dict[str, Any]) -> str:
    """The tables of the page."""
    rows = []
    for log in result["logs"]:
        seconds = {side: times["median"] for side, times in log["seconds"].items()}
        month, night = seconds["again"] + seconds["embed"], seconds["slide"] + seconds["embed with kept spans"]
        found, long = log["kept"]
        rows.append(
            [
                log["name"],
                f"{log['accounts']:,} of {log['events']:,} events",
                *(f"{seconds[side]:.2f}" for side in ("again", "slide")),
                f"**{seconds['again'] / seconds['slide']:.1f} ×**",
                *(f"{seconds[side]:.2f}" for side in ("embed", "embed with kept spans")),
                f"**{seconds['embed'] / seconds['embed with kept spans']:.1f} ×**",
                f"**{month / night:.1f} ×**",
                f"{found:,} of {long:,}",
                *(f"{log['bytes'][what] / 1e6:.1f} MB" for what in ("minutes", "spans")),
            ]
        )
    header = ["log, simulated", "accounts", "aggregate the month, s", "aggregate the new day, s", "ratio"]
    header += ["embed anew, s", "embed with kept spans, s", "ratio", "the night, ratio", "long spans found"]
    header += ["minutes on disk", "kept spans on disk"]
    parts = [_TEXT.format(long=LONG_SPAN), table(header, rows)]
    if result["quality"]:
        parts.append(quality_table("What spans that don't move cost in quality.", "spans move", result["quality"]))
    return "\n\n".join(parts)


_TEXT = """\
## The daily window

`make bench PART=window`, on two simulated logs of 31 days, one file a day. A night aggregates the new day only, since
the minutes of the others are there. The paper's spans begin at their window's start, and a day (1,440 minutes) isn't a
multiple of the stride (340), so tomorrow's spans are all new. With `span_origin = "epoch"` spans stay where they are,
and `embed --keep-spans` represents only those that are new; spans of fewer than {long} minutes are always represented,
as that costs less than keeping them would. Both ways give the same bytes, which each run checks. The Transformer reads
all spans of a window each night, whatever is kept: for accounts that do little it is nearly all there is."""
