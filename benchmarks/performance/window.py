"""Sliding the daily window by a day, beside computing the month again.

What the day before left are the minutes, whose partitions are kept, and representations of long spans. A night
aggregates the new day, represents the long spans that are new, and contextualises all windows.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

import infobehavior
from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import end_of_day
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.embedding.kept_spans import MINUTES_OF_KEPT_SPANS
from infobehavior.embedding.spans_file import SPANS_FILE
from infobehavior.embedding.table import PARTITION_FILE
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from performance.batches import prepare_minutes
from performance.measure import alternate, goal, summary, table
from performance.quality import LabelledLog, measure_quality, quality_table, two_cores
from performance.simulated_log import FIRST_DAY, WINDOW_DAYS, Log

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
    Log(2, 10_000, num_days=WINDOW_DAYS + 1),
    repeats=1,
    quality_steps=3,
    quality_seeds=1,
)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Two simulated logs, of accounts that do little and of accounts that do something in most minutes; a real one.

    What spans that don't move cost in quality is measured on the real one, too.
    """
    sizes, folder, minutes = SMALL if small else FULL, work / "window", prepare_minutes(data, work)
    shutil.rmtree(folder, ignore_errors=True)
    simulated = {"sparse": sizes.sparse, "dense": sizes.dense}
    logs = [_measure_simulated(name, log, folder / name, sizes.repeats) for name, log in simulated.items()]
    if minutes is None:
        return {"logs": logs, "quality": None}
    return {
        "logs": [*logs, _measure_real(minutes, folder / "git_activity", sizes.repeats)],
        "quality": _measure_quality(LabelledLog(minutes, data / "git_activity"), work, sizes),
    }


class _Night:
    """The embedding of a day, as often as one likes: with the spans that the day before kept, and anew.

    Args:
        before: minutes up to the day before.
        now: minutes up to the day.
        day: the day.
        folder: for what is made.
    """

    def __init__(self, before: Path, now: Path, day: date, folder: Path) -> None:
        self.now, self.day = now, day
        self.kept, self.anew, self.spans_before = folder / "kept", folder / "anew", folder / "kept-before.arrow"
        self.model = _make_model(before, folder / "model")
        self.found: set[tuple[int, int] | None] = set()
        self.num_windows = 0
        infobehavior.embed(before, self.model, self.kept, date=day - timedelta(days=1), keep_spans=True)
        if (self.kept / SPANS_FILE).exists():
            (self.kept / SPANS_FILE).rename(self.spans_before)

    def restore(self) -> None:
        """Put back what the day before kept; it is then in the page cache."""
        (self.kept / SPANS_FILE).unlink(missing_ok=True)
        if self.spans_before.exists():
            shutil.copyfile(self.spans_before, self.kept / SPANS_FILE)

    def embed_with_kept_spans(self) -> None:
        """Embed the day with what is kept."""
        embedded = infobehavior.embed(self.now, self.model, self.kept, date=self.day, keep_spans=True)
        self.found.add(embedded.kept_spans)
        self.num_windows = embedded.num_embedded

    def embed_anew(self) -> None:
        """Embed the day without."""
        infobehavior.embed(self.now, self.model, self.anew, date=self.day)

    def check(self) -> None:
        """Both ways gave the same bytes, and each round found the same spans."""
        partition = f"ds={self.day}/{PARTITION_FILE}"
        assert (self.kept / partition).read_bytes() == (self.anew / partition).read_bytes()
        assert len(self.found) == 1

    @property
    def sides(self) -> dict[str, Callable[[], None]]:
        """What takes turns."""
        return {
            "restore": self.restore,
            "embed with kept spans": self.embed_with_kept_spans,
            "embed": self.embed_anew,
            "check": self.check,
        }

    def result(self, name: str, what: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
        """A row of the table."""
        minutes, end = open_minutes(self.now), end_of_day(self.day, open_minutes(self.now).schema)
        files = [Path(file) for file in minutes.files(end - EncoderConfig().window_minutes, end)]
        spans = self.kept / SPANS_FILE
        return {
            "name": name,
            "what": what,
            "windows": self.num_windows,
            "seconds": {side: summary(times) for side, times in seconds.items() if side not in ("restore", "check")},
            "kept": self.found.pop(),
            "bytes": {
                "minutes": sum(file.stat().st_size for file in files),
                "spans": spans.stat().st_size if spans.exists() else 0,
            },
        }


def _measure_simulated(name: str, log: Log, folder: Path, repeats: int) -> dict[str, Any]:
    """From events to embeddings."""
    (folder / "days").mkdir(parents=True)
    _write_days(log, folder / "days")
    schema = infobehavior.inspect(folder / "days").schema
    before, slid = folder / "before", folder / "slid"
    infobehavior.aggregate(_days(folder, FIRST_DAY, LAST_DAY - timedelta(days=1)), schema, before)
    night = _Night(before, slid, LAST_DAY, folder)

    def copy() -> None:
        shutil.rmtree(slid, ignore_errors=True)
        shutil.copytree(before, slid)

    def slide() -> None:
        infobehavior.aggregate(_days(folder, LAST_DAY, LAST_DAY), schema, slid)

    def again() -> None:
        shutil.rmtree(folder / "again", ignore_errors=True)
        infobehavior.aggregate(_days(folder, FIRST_DAY + timedelta(days=1), LAST_DAY), schema, folder / "again")

    seconds = alternate({"copy": copy, "slide": slide, "again": again, **night.sides}, repeats)
    what = f"{log.num_entities:,} accounts with {log.num_events:,} events, simulated"
    return night.result(name, what, {side: times for side, times in seconds.items() if side != "copy"})


def _measure_real(minutes: Path, folder: Path, repeats: int) -> dict[str, Any]:
    """From minutes to embeddings of the last day, for all accounts."""
    folder.mkdir(parents=True)
    night = _Night(minutes, minutes, open_minutes(minutes).days[-1], folder)
    seconds = alternate(night.sides, repeats)
    return night.result("git_activity", f"{night.num_windows:,} accounts with events in these days", seconds)


def _measure_quality(log: LabelledLog, work: Path, sizes: Sizes) -> dict[str, Any]:
    """Spans that move with the window, and spans that don't."""
    origins = {"with the window (paper)": "window", "never": "epoch"}
    configs = {
        name: two_cores({"span_origin": origin}, num_steps=sizes.quality_steps) for name, origin in origins.items()
    }
    return measure_quality(log, work, configs, sizes.quality_seeds)


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
    header = ["log", "accounts", "aggregate the month, s", "aggregate the new day, s", "ratio"]
    header += ["embed anew, s", "embed with kept spans, s", "ratio", "the night, ratio", "long spans found"]
    header += ["minutes on disk", "kept spans on disk"]
    parts = [_TEXT.format(long=MINUTES_OF_KEPT_SPANS), table(header, [_row(log) for log in result["logs"]])]
    parts.append("\n".join(_goal(log) for log in result["logs"]))
    if result["quality"]:
        parts.append(quality_table("What spans that don't move cost in quality.", "spans move", result["quality"]))
    return "\n\n".join(parts)


def _goal(log: dict[str, Any]) -> str:
    """A day is a thirtieth of a month; a third of its cost is more than enough for what comes with it."""
    ratio = _night(log)
    return goal(
        f"window, {log['name']}: a night costs what changed, at most a third of the month ({1 / ratio:.0%})", ratio >= 3
    )


def _night(log: dict[str, Any]) -> float:
    """How many times as long as the night everything anew takes; only embedding where minutes weren't measured."""
    seconds = {side: times["median"] for side, times in log["seconds"].items()}
    anew, changed = seconds["embed"], seconds["embed with kept spans"]
    return (anew + seconds.get("again", 0)) / (changed + seconds.get("slide", 0))


def _row(log: dict[str, Any]) -> list[str]:
    seconds = {side: times["median"] for side, times in log["seconds"].items()}
    embed, with_kept = seconds["embed"], seconds["embed with kept spans"]
    aggregation, whole_night = ["—", "—", "—"], "—"
    if "again" in seconds:
        month, new_day = seconds["again"], seconds["slide"]
        aggregation = [f"{month:.2f}", f"{new_day:.2f}", f"**{month / new_day:.1f} ×**"]
        whole_night = f"**{_night(log):.1f} ×**"
    found, long = log["kept"]
    return [
        log["name"],
        log["what"],
        *aggregation,
        *(f"{embed:.2f}", f"{with_kept:.2f}", f"**{embed / with_kept:.1f} ×**"),
        whole_night,
        f"{found:,} of {long:,}",
        *(f"{log['bytes'][what] / 1e6:.1f} MB" for what in ("minutes", "spans")),
    ]


_TEXT = """\
## The daily window

`make bench PART=window`, on two simulated logs of 31 days, one file a day, and on the last day of git_activity, whose
minutes are there. A night aggregates the new day only, since the minutes of the others are there. The paper's spans
begin at their window's start, and a day (1,440 minutes) isn't a multiple of the stride (340), so tomorrow's spans are
all new. With `span_origin = "epoch"` spans stay where they are, and `embed --keep-spans` represents only the long ones
that are new; spans of fewer than {long} minutes are always represented, since keeping them would save little and fill
the disk. Both ways give the same bytes, which each round checks. The file of the day before is in the page cache. All
minutes of a window are read and the Transformer sees all its spans each night, whatever is kept: for accounts that do
little that is nearly all there is."""
