"""What the simulated market costs, and how large it is: to simulate, to aggregate, to decide what a night embeds."""

import json
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from infobehavior.data.minutes import PARTITION_FILE, days_of
from infobehavior.market.config import MarketConfig
from infobehavior.market.simulate import EVENTS_FOLDER, PRODUCTS_FOLDER
from performance.measure import ChildRun, gigabytes, run_python, table

WINDOW_DAYS = 30
WORKERS = 2


@dataclass(frozen=True)
class Sizes:
    """How much is measured: sellers of each market, and its days."""

    num_sellers: tuple[int, ...]
    num_days: int


LARGE = Sizes(num_sellers=(20_000, 200_000), num_days=MarketConfig().num_days)
SMALL = Sizes(num_sellers=(20, 40), num_days=5)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """A row for each market."""
    sizes, folder = SMALL if small else LARGE, work / "market"
    rows = []
    for num_sellers in sizes.num_sellers:
        shutil.rmtree(folder, ignore_errors=True)
        rows.append(_measure(folder, num_sellers, sizes.num_days))
    shutil.rmtree(folder, ignore_errors=True)
    return {"num_days": sizes.num_days, "workers": WORKERS, "rows": rows}


def _measure(folder: Path, num_sellers: int, num_days: int) -> dict[str, Any]:
    market, schema, minutes = folder / "market", folder / "schema.toml", folder / "minutes"
    what = ["--num-sellers", num_sellers, "--num-days", num_days, "--workers", WORKERS]
    simulated = _command("simulate", "--out", market, *what)
    events = market / EVENTS_FOLDER
    _command("inspect", events, "--time-zone", MarketConfig().time_zone, "--out", schema)
    aggregated = _command("aggregate", events, "--schema", schema, "--out", minutes)
    planned = run_python(["-m", "performance.planning_steps", minutes, min(WINDOW_DAYS, num_days)])
    files = sorted(minutes.glob(f"ds=*/{PARTITION_FILE}"))
    return {
        "sellers": num_sellers,
        "events": _rows_of(events),
        "minutes": sum(pq.read_metadata(file).num_rows for file in files),
        "bytes": {
            "events": _bytes_of(events),
            "products": _bytes_of(market / PRODUCTS_FOLDER),
            "minutes": sum(file.stat().st_size for file in files),
        },
        "of_a_month": _of_a_month(minutes),
        "simulate": _cost(simulated),
        "aggregate": _cost(aggregated),
        "plan": json.loads(planned.output.splitlines()[-1]),
    }


def _command(*arguments: object) -> ChildRun:
    return run_python(["-m", "infobehavior", *arguments])


def _cost(child: ChildRun) -> dict[str, float]:
    """Of a command, with the start of the interpreter; memory of its first process."""
    return {"seconds": child.seconds, "cpu_seconds": child.cpu_seconds, "peak_bytes": child.peak_anonymous_bytes}


def _rows_of(folder: Path) -> int:
    return sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.parquet"))


def _of_a_month(minutes: Path) -> dict[str, float]:
    """Means of the sellers with events in the last month."""
    first = days_of(minutes)[-1] - timedelta(days=WINDOW_DAYS - 1)
    files = f"read_parquet('{minutes}/ds=*/{PARTITION_FILE}', hive_types = {{ds: DATE}})"
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT count(DISTINCT entity_id), count(*), sum(num_events) FROM {files} WHERE ds >= DATE '{first}'"
        ).fetchone()
    assert found is not None
    sellers, num_minutes, events = found
    return {"sellers": sellers, "minutes": num_minutes / sellers, "events": int(events) / sellers}


def bytes_of_window(row: dict[str, Any]) -> float:
    """Of memory that the process that decides takes for each window."""
    return float((row["plan"]["peak"] - row["plan"]["before"]) / row["plan"]["windows"])


def section(result: dict[str, Any]) -> str:
    """The table of the page."""
    header = ["sellers", "events", "minutes", "events on disk", "an event", "minutes on disk", "a minute"]
    header += ["simulate, s", "a seller, ms of CPU", "memory", "aggregate, s", "an event, µs of CPU"]
    header += ["a seller's month, events", "minutes", "windows to decide on", "memory for it", "a window, bytes"]
    body = []
    for row in result["rows"]:
        size, month = row["bytes"], row["of_a_month"]
        body.append(
            [
                f"{row['sellers']:,}",
                f"{row['events']:,}",
                f"{row['minutes']:,}",
                gigabytes(size["events"]),
                f"{size['events'] / row['events']:.1f} bytes",
                gigabytes(size["minutes"]),
                f"{size['minutes'] / row['minutes']:.1f} bytes",
                f"{row['simulate']['seconds']:.0f}",
                f"{row['simulate']['cpu_seconds'] / row['sellers'] * 1e3:.1f}",
                gigabytes(row["simulate"]["peak_bytes"]),
                f"{row['aggregate']['seconds']:.0f}",
                f"{row['aggregate']['cpu_seconds'] / row['events'] * 1e6:.2f}",
                f"{month['events']:.0f}",
                f"{month['minutes']:.0f}",
                f"{row['plan']['windows']:,}",
                gigabytes(row["plan"]["peak"] - row["plan"]["before"]),
                f"{bytes_of_window(row):.0f}",
            ]
        )
    return "\n\n".join([_TEXT.format(**result), table(header, body)])


_TEXT = """\
## The simulated market

`make bench PART=market`: `infobehavior simulate` with {workers} workers, `inspect`, and `aggregate`, by the command
line, once each; markets of {num_days} days, all else by default, simulated. Times hold the start of the interpreter.
Memory of `simulate` is that of its first process, which holds a row a seller. *To decide* is what `embed` and `daily`
do before they embed: ids and moments of all windows that end with the last day, and what names the contents of each
bundle of them, read from all minutes; memory of it is the most that was taken meanwhile, DuckDB's own included.
Events and minutes of a seller's month are means of the last 30 days. The market's files are of a thousand sellers and
all days, so that `aggregate`, which takes a few days at a time, reads the times of all events again for every four
million of them: its cost of an event grows with their number, which it doesn't where files or row groups are of few
days ("Aggregation")."""
