"""`aggregate` beside a bare count, Polars and pandas, on generated logs (see `event_logs`).

Each side runs in a process of its own with its library's defaults, and the sides take turns. The time is that of the
work alone, without the start of the interpreter and its imports; the memory is the peak of the whole process.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from performance import event_logs
from performance.event_logs import BEHAVIORS, BURSTS, FAILURE, SPARSE, Workload, write_event_log
from performance.measure import goal, run_python, table

YARDSTICK = "group by"
OURS = "infobehavior"
PEERS = ("polars", "pandas")
SIDES = ("scan", YARDSTICK, OURS, *PEERS)
MAX_PEER_EVENTS = 20_000_000
BOUND = 2.0
MEDIUM, HIGH = 2, 5
"""The paper's levels of a slow behavior."""

TIME_ZONE = "Asia/Shanghai"
SEPARATOR = "\x1f"
MINUTE = "epoch_us(timestamp) // 60_000_000"


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """All sides on both workloads; Polars and pandas once, where a log is small enough for them."""
    sizes, repeats = ((20_000,), 1) if small else ((10_000_000, 100_000_000), 3)
    runs = [
        _measure_log(work / "aggregation", workload, size, repeats) for size in sizes for workload in (BURSTS, SPARSE)
    ]
    return {"cores": len(os.sched_getaffinity(0)), "duckdb": duckdb.__version__, "runs": runs}


def _measure_log(work: Path, workload: Workload, num_events: int, repeats: int) -> dict[str, Any]:
    log = work / f"{workload.name}-{num_events}"
    generator, made_by = sha256(Path(event_logs.__file__).read_bytes()).hexdigest(), log / "_SUCCESS"
    if not made_by.exists() or made_by.read_text(encoding="utf-8") != generator:
        shutil.rmtree(log, ignore_errors=True)
        write_event_log(log, num_events, workload)
        made_by.write_text(generator, encoding="utf-8")
    samples: dict[str, list[dict[str, float]]] = {}
    digests = {}
    for turn in range(repeats):
        for side in _sides(num_events) if turn == 0 else SIDES[:3]:
            with tempfile.TemporaryDirectory(dir=work) as folder:
                out = Path(folder) / "minutes"
                samples.setdefault(side, []).append(_run_side(side, log, out))
                if turn == 0 and side in (OURS, *PEERS):
                    digests[side] = _digest(out)
    return {
        "workload": workload.name,
        "num_events": num_events,
        "num_minutes": int(digests[OURS][0]),
        "equal": {side: digests[side] == digests[OURS] for side in PEERS if side in digests},
        "sides": {side: _medians(taken) for side, taken in samples.items()},
    }


def _sides(num_events: int) -> Sequence[str]:
    return (*SIDES[:3], *_installed_peers()) if num_events <= MAX_PEER_EVENTS else SIDES[:3]


def _installed_peers() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name)]


def _run_side(side: str, log: Path, out: Path) -> dict[str, float]:
    child = run_python(["-m", "performance.aggregation", side, log, out])
    return {**json.loads(child.output.splitlines()[-1]), "peak_bytes": child.peak_bytes}


def _medians(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians of times, and the highest peak."""
    medians = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
    return medians | {"peak_bytes": max(sample["peak_bytes"] for sample in samples), "runs": len(samples)}


def _digest(out: Path) -> list[str]:
    """The number of rows, and a sum that all their values decide, in whatever order and files they are."""
    columns = "entity_id, minute::INTEGER, num_events::INTEGER, num_failures::INTEGER, levels_0::BIGINT, location"
    row = duckdb.execute(
        f"SELECT count(*), sum(hash({columns}, counts::INTEGER[])) FROM read_parquet(?)", [str(out / "**/*.parquet")]
    ).fetchone()
    assert row is not None
    return [str(value) for value in row]


def main() -> None:
    """Run a side in this process, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    run = RUNNERS[given.side]()
    given.out.mkdir()
    cpu, wall = time.process_time(), time.perf_counter()
    run(str(given.log / "*.parquet"), given.out)
    spent = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(spent))


Runner = Callable[[str, Path], None]


def _scan() -> Runner:
    columns = "sum(entity_id), max(timestamp), max(length(behavior)), max(length(location)), max(length(outcome))"
    return lambda files, _: _query(f"SELECT {columns} FROM read_parquet('{files}')")


def _group_by() -> Runner:
    def run(files: str, _: Path) -> None:
        groups = f"SELECT entity_id, {MINUTE} AS minute, count(*) AS n FROM read_parquet('{files}') GROUP BY ALL"
        _query(f"SELECT count(*), sum(n) FROM ({groups})")

    return run


def _query(sql: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(sql).fetchall()


def _infobehavior() -> Runner:
    from infobehavior.data.aggregation import aggregate
    from infobehavior.data.schema import Behavior, Columns, Failures, Schema, Time

    schema = Schema(
        columns=Columns(
            entity="entity_id", timestamp="timestamp", behavior="behavior", location="location", outcome="outcome"
        ),
        time=Time(time_zone=TIME_ZONE),
        failures=Failures(outcomes=[FAILURE]),
        behaviors=dict.fromkeys(BEHAVIORS, Behavior(medium=MEDIUM, high=HIGH)),
    )

    def run(files: str, out: Path) -> None:
        aggregate(files, schema, out)

    return run


def _polars() -> Runner:
    import polars as pl

    codes = {name: code for code, name in enumerate(sorted(BEHAVIORS), start=1)}
    n, code = pl.col("n"), pl.col("code")
    level = 1 + (n >= MEDIUM).cast(pl.Int64) + (n >= HIGH).cast(pl.Int64)
    unit = code.replace_strict({code: 4**code for code in codes.values()}, return_dtype=pl.Int64)

    def run(files: str, out: Path) -> None:
        events = pl.scan_parquet(files).select(
            "entity_id",
            (pl.col("timestamp").dt.epoch("us") // 60_000_000).cast(pl.Int32).alias("minute"),
            pl.col("behavior").replace_strict(codes, return_dtype=pl.Int16).alias("code"),
            "location",
            (pl.col("outcome") == FAILURE).alias("failed"),
        )
        repeats = events.group_by("entity_id", "minute", "code").agg(
            pl.len().alias("n"), pl.col("failed").sum(), pl.col("location").drop_nulls().unique()
        )
        location = pl.col("location").explode().drop_nulls().unique().sort()
        minutes = repeats.group_by("entity_id", "minute").agg(
            n.sum().alias("num_events"),
            pl.col("failed").sum().alias("num_failures"),
            (level * unit).sum().alias("levels_0"),
            n.sort_by(code).alias("counts"),
            location,
        )
        joined = pl.when(pl.col("location").list.len() > 0).then(pl.col("location").list.join(SEPARATOR))
        frame = minutes.with_columns(joined.alias("location")).sort("entity_id", "minute").collect(engine="streaming")
        frame.write_parquet(out / "minutes.parquet", compression="zstd")

    return run


def _pandas() -> Runner:
    import pandas as pd

    codes = {name: code for code, name in enumerate(sorted(BEHAVIORS), start=1)}
    key = ["entity_id", "minute"]

    def run(files: str, out: Path) -> None:
        events = pd.read_parquet(
            Path(files).parent, columns=["entity_id", "timestamp", "behavior", "location", "outcome"]
        )
        events["minute"] = events.pop("timestamp").astype("int64") // 60_000_000
        events["code"] = events.pop("behavior").map(codes).astype("int16")
        events["failed"] = events.pop("outcome") == FAILURE
        places = events[[*key, "location"]].dropna().drop_duplicates().sort_values([*key, "location"])
        repeats = events.groupby([*key, "code"]).agg(n=("code", "size"), failed=("failed", "sum")).reset_index()
        level = 1 + (repeats["n"] >= MEDIUM) + (repeats["n"] >= HIGH)
        repeats["bits"] = level.astype("int64").to_numpy() << (2 * repeats["code"].astype("int64").to_numpy())
        groups = repeats.groupby(key)
        minutes = groups.agg(num_events=("n", "sum"), num_failures=("failed", "sum"), levels_0=("bits", "sum"))
        minutes["counts"] = groups["n"].agg(list)
        minutes["location"] = places.groupby(key)["location"].agg(SEPARATOR.join)
        minutes.reset_index().to_parquet(out / "minutes.parquet", compression="zstd")

    return run


RUNNERS: dict[str, Callable[[], Runner]] = {
    "scan": _scan,
    YARDSTICK: _group_by,
    OURS: _infobehavior,
    "polars": _polars,
    "pandas": _pandas,
}


def section(result: dict[str, Any]) -> str:
    """The part of a page that tells the result."""
    text = _TEXT.format(cores=result["cores"], duckdb=result["duckdb"])
    return "\n\n".join([text, *(_log_section(run) for run in result["runs"])])


def _log_section(run: dict[str, Any]) -> str:
    num_events, num_minutes = run["num_events"], run["num_minutes"]
    title = f"### {_name(run)}: {num_events / num_minutes:.1f} in a minute"
    header = ["side", "CPU seconds", "ratio", "time, s", "ratio", "peak memory, GB", "runs"]
    rows = [_row(side, figures, run["sides"][YARDSTICK]) for side, figures in run["sides"].items()]
    return "\n\n".join([title, table(header, rows), "\n".join(_goals(run)), _peers(run)])


def _name(run: dict[str, Any]) -> str:
    return f"{run['num_events'] / 1e6:,.0f}M events, {run['workload']}"


def _row(side: str, figures: dict[str, float], yardstick: dict[str, float]) -> list[str]:
    cpu, wall = figures["cpu_seconds"], figures["wall_seconds"]
    return [
        f"`{side}`",
        f"{cpu:.2f}",
        f"{cpu / yardstick['cpu_seconds']:.1f} ×",
        f"{wall:.2f}",
        f"{wall / yardstick['wall_seconds']:.1f} ×",
        f"{figures['peak_bytes'] / 1e9:.2f}",
        f"{figures['runs']:.0f}",
    ]


def _goals(run: dict[str, Any]) -> list[str]:
    ours, yardstick = run["sides"][OURS], run["sides"][YARDSTICK]
    ratio, gigabytes = ours["wall_seconds"] / yardstick["wall_seconds"], ours["peak_bytes"] / 1e9
    log = _name(run)
    return [
        goal(f"{log}: minutes take at most {BOUND:.0f} × as long as `{YARDSTICK}` ({ratio:.1f} ×)", ratio <= BOUND),
        goal(f"{log}: and at most 1 GB ({gigabytes:.2f} GB)", gigabytes <= 1),
    ]


def _peers(run: dict[str, Any]) -> str:
    if run["num_events"] > MAX_PEER_EVENTS:
        limit = f"{MAX_PEER_EVENTS / 1e6:.0f}M events"
        return (
            f"`polars` and `pandas` take part up to {limit}: they hold all events, and ten times their peaks at 10M "
            "are more than this machine has."
        )
    absent = [side for side in PEERS if side not in run["equal"]]
    unequal = [side for side, equal in run["equal"].items() if not equal]
    return " ".join(
        [
            *([f"Not installed: {', '.join(absent)} (the extra `bench`)."] if absent else []),
            f"Not the same minutes: {', '.join(unequal)}."
            if unequal
            else "Sides that make minutes make the same ones.",
        ]
    )


_TEXT = """\
## Aggregation

`make bench PART=aggregation`, on generated logs of 30 days (`benchmarks/performance/event_logs.py`); {cores} cores,
DuckDB {duckdb}, medians (of `polars` and `pandas` one run). The logs are Parquet, sorted by time, with times in UTC:
others are read once more first. `scan` reads the columns that are used. `group by` counts the events of each entity
and minute in DuckDB and sums the counts: the yardstick of both ratios; it neither sorts nor writes. `infobehavior`
makes minutes: levels, counts, failures and sets of locations, sorted, in a Parquet file a local day. `polars` and
`pandas` make the same rows, in one Parquet file."""


if __name__ == "__main__":
    main()
