"""What `performance.embedding` runs in processes of their own: preparing the logs, and embedding with a clock inside.

python -m performance.embedding_steps prepare LOG EVENTS WORK --threads 2
python -m performance.embedding_steps embed MINUTES --model MODEL --as-of MOMENTS --out OUT --report REPORT
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from machine import DIRTY

from infobehavior.threads import spin_briefly
from performance.simulated_log import Log

UNTIL = "TIMESTAMPTZ '2026-07-01 00:00:00+00'"
MAX_WINDOW_DAYS = 3_650
LAST_EVENTS = (200, 1_000, 10_000, 0)
"""How many events of each entity the peer is given, the last ones; 0 stands for all."""

BUSY = Log(20, 100_000)

MIN_COUNT = 5
"""Minutes in which a behavior or a location must occur to be a token: the default of `pretrain`."""


@dataclass(frozen=True)
class Workload:
    """Some entities and the window that is embedded of each.

    Attributes:
        name: also that of its folder.
        title: what it is, in words.
        log: of which log, by name.
        window_days: length of the windows.
        moments: SQL over `events`: entity_id and as_of, the end of its window.
    """

    name: str
    title: str
    log: str
    window_days: int
    moments: str


WORKLOADS = [
    Workload(
        name="month",
        title="the accounts with events in the 30 days before 2026-07-01",
        log="git_activity",
        window_days=30,
        moments=f"SELECT DISTINCT entity_id, {UNTIL} AS as_of FROM events "
        f"WHERE timestamp >= {UNTIL} - INTERVAL 30 day AND timestamp < {UNTIL}",
    ),
    Workload(
        name="year",
        title="the accounts with events in the 365 days before 2026-07-01",
        log="git_activity",
        window_days=365,
        moments=f"SELECT DISTINCT entity_id, {UNTIL} AS as_of FROM events "
        f"WHERE timestamp >= {UNTIL} - INTERVAL 365 day AND timestamp < {UNTIL}",
    ),
    Workload(
        name="long",
        title=f"the 100 accounts with most events, each with the {MAX_WINDOW_DAYS:,} days up to its own last event",
        log="git_activity",
        window_days=MAX_WINDOW_DAYS,
        moments="SELECT entity_id, time_bucket(INTERVAL 1 minute, max(timestamp)) + INTERVAL 1 minute AS as_of "
        "FROM events GROUP BY entity_id ORDER BY count(*) DESC, entity_id LIMIT 100",
    ),
    Workload(
        name="busy",
        title="20 simulated accounts that do something in nearly every minute of a month",
        log="busy",
        window_days=30,
        moments=f"SELECT DISTINCT entity_id, TIMESTAMPTZ '{BUSY.last_day + timedelta(days=1)} 00:00:00+00' AS as_of "
        "FROM events",
    ),
]


def main() -> None:
    """Run one step, with threads that wait as those of the command line do."""
    spin_briefly()
    given = _arguments()
    given.step(given)


def prepare(given: argparse.Namespace) -> None:
    """Aggregate a log, and write of each of its workloads moments, events and a model, unless they are there.

    The log of busy accounts is made first.
    """
    import infobehavior

    done = given.work / "prepared.json"
    made_of = {"threads": given.threads, "commit": given.commit, "events": str(given.events)}
    is_made = done.exists() and json.loads(done.read_text(encoding="utf-8")).get("made_of") == made_of
    if is_made and not given.commit.endswith(DIRTY):
        return
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    if given.log == "busy":
        BUSY.write(given.events)
    schema = infobehavior.inspect(given.events).schema
    started = time.perf_counter()
    summary = infobehavior.aggregate(given.events, schema, given.work / "minutes")
    seconds = time.perf_counter() - started
    mine = [workload for workload in WORKLOADS if workload.log == given.log]
    sizes = {workload.name: _prepare_workload(workload, given) for workload in mine}
    log = {"num_events": summary.num_kept, "num_minutes": summary.num_minutes, "aggregate_seconds": seconds}
    done.write_text(json.dumps({"made_of": made_of, "log": log, "workloads": sizes}), encoding="utf-8")


def _prepare_workload(workload: Workload, given: argparse.Namespace) -> dict[str, Any]:
    folder = given.work / workload.name
    folder.mkdir()
    sizes = _write_log(workload, given.events, folder)
    _write_model(workload, given, folder / "model")
    return sizes


def _write_log(workload: Workload, events: Path, folder: Path) -> dict[str, Any]:
    """Write the moments, and the events of their windows: the peer has nothing else to read."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.read_parquet(str(events)).create_view("events")
        connection.execute(f"CREATE TABLE moments AS SELECT * FROM ({workload.moments}) ORDER BY entity_id")
        connection.table("moments").write_parquet(str(folder / "moments.parquet"))
        log = connection.sql(
            "SELECT entity_id, timestamp, behavior, location, outcome FROM events JOIN moments USING (entity_id) "
            f"WHERE timestamp >= as_of - INTERVAL {workload.window_days} day AND timestamp < as_of "
            "ORDER BY timestamp, entity_id"
        )
        log.write_parquet(str(folder / "events.parquet"))
        connection.read_parquet(str(folder / "events.parquet")).create_view("inside")
        counts = "SELECT count(*) AS n FROM inside GROUP BY entity_id"
        ((*sizes,),) = connection.sql(f"SELECT sum(n), count(*), median(n), max(n) FROM ({counts})").fetchall()
        names = ("num_events", "num_entities", "median_events", "max_events")
        minutes = {str(last): _num_minutes(connection, last) for last in LAST_EVENTS}
    return {**dict(zip(names, map(int, sizes), strict=True)), "num_minutes_of_last": minutes}


def _num_minutes(connection: Any, last: int) -> int:
    """Minutes with events among the last events of each entity; 0 takes all events."""
    ranked = "SELECT *, row_number() OVER (PARTITION BY entity_id ORDER BY timestamp DESC) AS place FROM inside"
    kept = f"SELECT DISTINCT entity_id, time_bucket(INTERVAL 1 minute, timestamp) FROM ({ranked})"
    (row,) = connection.sql(f"SELECT count(*) FROM ({kept} WHERE {last} = 0 OR place <= {last})").fetchall()
    return int(row[0])


def _write_model(workload: Workload, given: argparse.Namespace, folder: Path) -> None:
    """Write an untrained model of the paper's shape, its vocabulary fitted on the whole log."""
    import torch

    from infobehavior import InfoBehavior
    from infobehavior.data.minutes import open_minutes
    from infobehavior.data.store import load_store
    from infobehavior.data.vocabulary import Vocabulary
    from infobehavior.model.config import EncoderConfig

    minutes = open_minutes(given.work / "minutes")
    vocabulary = Vocabulary.fit(load_store(minutes), minutes.hash, MIN_COUNT)
    torch.manual_seed(0)
    model = InfoBehavior(EncoderConfig(window_days=workload.window_days), vocabulary, minutes.schema.time.time_zone)
    model.pretraining = {"config": {"num_threads": given.threads}}
    model.save_pretrained(folder)


def embed(given: argparse.Namespace) -> None:
    """Embed as the command does, and write how long the parts took.

    Inference is everything but the reading of minutes and the writing of the table: it includes the turning of
    minutes into tokens and batches.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    import pyarrow.parquet as pq

    from infobehavior.embedding import embed as command
    from infobehavior.embedding import encode

    seconds["import"] = time.perf_counter() - started
    for owner, name, stage in (
        (encode, "load_store", "reading"),
        (encode, "embed_shard", "shards"),
        (command, "embed", "embed"),
    ):
        setattr(owner, name, _timed(getattr(owner, name), stage, seconds))
    command.embed(given.minutes, given.model, given.out, as_of=given.as_of)
    seconds["inference"] = seconds["shards"] - seconds["reading"]
    rows = pq.read_table(given.out, columns=["num_events", "num_minutes", "num_spans"])
    report = {
        "seconds": seconds,
        "num_entities": len(rows),
        **{f"{name}_seen": int(rows[name].to_numpy().sum()) for name in ("num_events", "num_minutes", "num_spans")},
    }
    given.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _timed(function: Callable[..., Any], stage: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """The function, with its time added to a stage."""

    def run(*args: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **keywords)
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
        return result

    return run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(required=True)
    preparing = steps.add_parser("prepare")
    preparing.add_argument("log", choices=sorted({workload.log for workload in WORKLOADS}))
    preparing.add_argument("events", type=Path)
    preparing.add_argument("work", type=Path)
    preparing.add_argument("--threads", type=int, default=os.cpu_count())
    preparing.add_argument("--commit", default="", help="of the code; with another one all is made again")
    preparing.set_defaults(step=prepare)
    embedding = steps.add_parser("embed")
    embedding.add_argument("minutes", type=Path)
    for name in ("model", "as-of", "out", "report"):
        embedding.add_argument(f"--{name}", type=Path, required=True)
    embedding.set_defaults(step=embed)
    return parser.parse_args()


if __name__ == "__main__":
    main()
