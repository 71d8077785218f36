"""How cost and memory grow: with the events of an account, with its history, and with the number of accounts.

All logs here are simulated.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import infobehavior
from infobehavior.data.minutes import open_minutes
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.embedding.encode import MINUTES_PER_SHARD, MOMENTS_PER_SHARD
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.reproducible import DEFAULT_THREADS
from infobehavior.pretraining.config import PretrainConfig
from performance.measure import gigabytes, goal, run_python, table
from performance.simulated_log import WINDOW_DAYS, Log

BYTES_PER_MOMENT = 16
"""Of a number that names an account, and a moment."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: events of all logs of a series, the logs, limits of memory, and repeats of each."""

    total: int = 1_000_000
    events_per_entity: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    num_entities: tuple[int, ...] = (1_000, 10_000, 100_000)
    minutes_per_shard: tuple[int, ...] = (MINUTES_PER_SHARD // 4, MINUTES_PER_SHARD // 16)
    repeats: int = 3


SMALL = Sizes(total=2_000, events_per_entity=(100, 1_000), num_entities=(10, 20), minutes_per_shard=(500,), repeats=1)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Three series of logs, and training on a million events a month."""
    sizes, folder = SMALL if small else Sizes(), work / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    schema, model = _make_model(folder)
    denser = [Log(max(1, sizes.total // n), n) for n in sizes.events_per_entity]
    longer = [Log(max(1, sizes.total // n), n, -(-n // 120), 3_600) for n in sizes.events_per_entity]
    more = [Log(n, 100) for n in sizes.num_entities]
    return {
        "denser": [_measure(log, folder, schema, model, sizes.repeats, by_window=False) for log in denser],
        "longer": [_measure(log, folder, schema, model, sizes.repeats, by_window=True) for log in longer],
        "more": [_measure(log, folder, schema, model, sizes.repeats, by_window=False) for log in more],
        "shards": [
            _measure(more[-1], folder, schema, model, 1, by_window=False, minutes_per_shard=limit)
            for limit in sizes.minutes_per_shard
        ],
        "training": _measure_training(sizes, folder, schema),
        "idle_bytes": run_python(["-c", "import infobehavior.embedding.embed"]).peak_bytes,
        "limits": {"MINUTES_PER_SHARD": MINUTES_PER_SHARD, "MOMENTS_PER_SHARD": MOMENTS_PER_SHARD},
    }


def _make_model(folder: Path) -> tuple[Path, Path]:
    """A schema for all logs, and an encoder of the paper's sizes, untrained."""
    events, schema, model = folder / "schema.parquet", folder / "schema.toml", folder / "model"
    Log(100, 1_000).write(events)
    infobehavior.inspect(events, schema)
    infobehavior.aggregate(events, schema, folder / "schema-minutes")
    minutes = open_minutes(folder / "schema-minutes")
    vocabulary = Vocabulary.fit(load_store(minutes), minutes.hash, min_count=5)
    InfoBehavior(EncoderConfig(), vocabulary, minutes.schema.time.time_zone).save_pretrained(model)
    return schema, model


def _measure(
    log: Log,
    folder: Path,
    schema: Path,
    model: Path,
    repeats: int,
    by_window: bool,
    minutes_per_shard: int = MINUTES_PER_SHARD,
) -> dict[str, Any]:
    events, as_of = folder / "events.parquet", folder / "as_of.parquet"
    log.write(events)
    log.write_moments(as_of)
    moments = str(as_of) if by_window else "-"
    runs = []
    for _ in range(repeats):
        shutil.rmtree(folder / "run", ignore_errors=True)
        arguments = [events, schema, model, folder / "run", log.last_day, moments, minutes_per_shard]
        child = run_python(["-m", "performance.path", *arguments])
        runs.append({**json.loads(child.output.splitlines()[-1]), "peak_bytes": child.peak_bytes})
    return {
        "entities": log.num_entities,
        "events": log.num_events,
        "days": log.num_days,
        "minutes_per_shard": minutes_per_shard,
        "minutes": runs[0]["num_minutes"],
        "windows": runs[0]["num_windows"],
        "aggregate": median(run["aggregate"]["cpu_seconds"] for run in runs),
        "embed": median(run["embed"]["cpu_seconds"] for run in runs),
        "seconds": median(run["aggregate"]["seconds"] + run["embed"]["seconds"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }


def _measure_training(sizes: Sizes, folder: Path, schema: Path) -> dict[str, Any]:
    """Memory of steps on two accounts with two months of many events each."""
    log = Log(2, 2 * sizes.events_per_entity[-1], num_days=2 * WINDOW_DAYS)
    events, minutes = folder / "events.parquet", folder / "training-minutes"
    log.write(events)
    infobehavior.aggregate(events, schema, minutes)
    (folder / "config.json").write_text(PretrainConfig(num_steps=3, batch_size=2, min_count=1).model_dump_json())
    program = (
        "import sys, infobehavior; from infobehavior.pretraining.config import PretrainConfig; "
        "infobehavior.pretrain(sys.argv[1], sys.argv[2], "
        "config=PretrainConfig.model_validate_json(open(sys.argv[3]).read()))"
    )
    child = run_python(["-c", program, minutes, folder / "trained", folder / "config.json"])
    return {"entities": 2, "events_a_month": sizes.events_per_entity[-1], "peak_bytes": child.peak_bytes}


def section(result: dict[str, Any]) -> str:
    """The tables of the page."""
    training = result["training"]
    return "\n\n".join(
        [
            _TEXT.format(idle=gigabytes(result["idle_bytes"]), threads=DEFAULT_THREADS),
            "**Denser**: the same number of events in a month, by fewer and fewer accounts; one window each. The cost "
            "falls, since events that share a minute or a span cost less.",
            _table(result["denser"]),
            "**Longer**: an hour of activity a day with two events a minute, for more and more days; windows of 30 "
            "days that together hold all events once.",
            _table(result["longer"]),
            _cost_of_a_day(result["longer"]),
            "**More accounts**, of 100 events in a month each:",
            _table(result["more"]),
            _memory(result),
            _arithmetic(result),
            "\n".join(_goals(result)),
            f"Training (batches of {training['entities']} accounts with two months of "
            f"{training['events_a_month']:,} events a month each) takes {gigabytes(training['peak_bytes'])}.",
        ]
    )


def _table(rows: list[dict[str, Any]]) -> str:
    header = ["accounts", "events of each", "days", "minutes", "windows", "aggregate, µs of CPU an event"]
    header += ["embed, µs an event", "together", "against the first", "time, s", "peak memory"]
    costs = _costs(rows)
    body = []
    for row, cost in zip(rows, costs, strict=True):
        total = row["entities"] * row["events"] / 1e6
        body.append(
            [
                f"{row['entities']:,}",
                f"{row['events']:,}",
                f"{row['days']:,}",
                f"{row['minutes']:,}",
                f"{row['windows']:,}",
                f"{row['aggregate'] / total:.2f}",
                f"{row['embed'] / total:.2f}",
                f"{cost:.2f}",
                f"{cost / costs[0]:.2f} ×",
                f"{row['seconds']:.1f}",
                gigabytes(row["peak_bytes"]),
            ]
        )
    return table(header, body)


def _costs(rows: list[dict[str, Any]]) -> list[float]:
    """Microseconds of CPU an event."""
    return [(row["aggregate"] + row["embed"]) / row["entities"] / row["events"] * 1e6 for row in rows]


def _goals(result: dict[str, Any]) -> list[str]:
    goals = []
    for series in ("denser", "longer", "more"):
        costs = _costs(result[series])
        least, most = min(costs) / costs[0], max(costs) / costs[0]
        text = (
            f"growth, {series}: the cost of an event is flat within 1.5 ({least:.2f} to {most:.2f} × the first row's)"
        )
        goals.append(goal(text, most / least <= 1.5))
    last = result["denser"][-1]
    what = f"a month of {last['events']:,} events in one account takes less than 2 GB"
    goals.append(goal(f"{what} ({gigabytes(last['peak_bytes'])})", last["peak_bytes"] < 2e9))
    peaks = [row["peak_bytes"] for row in (result["more"][-1], *result["shards"])]
    listed = ", ".join(map(gigabytes, peaks))
    goals.append(
        goal(f"the memory of `aggregate` and `embed` is bounded by a setting ({listed})", peaks == sorted(peaks)[::-1])
    )
    return goals


def _memory(result: dict[str, Any]) -> str:
    """What the largest log takes with fewer minutes at once."""
    rows = [result["more"][-1], *result["shards"]]
    listed = "; ".join(f"{row['minutes_per_shard']:,} minutes: {gigabytes(row['peak_bytes'])}" for row in rows)
    return (
        f"The same {rows[0]['entities']:,} accounts by the minutes that `embed` has in memory at once "
        f"(`--minutes-per-shard`; the last rows are one run each): {listed}."
    )


def _cost_of_a_day(rows: list[dict[str, Any]]) -> str:
    """What a day's own file costs, from the log with the fewest days and the one with the most."""
    first, *_, last = rows
    seconds = {
        part: (last[part] - first[part] * last["events"] * last["entities"] / first["events"] / first["entities"])
        / (last["days"] - first["days"])
        for part in ("aggregate", "embed")
    }
    return (
        f"A day has a file of its own, synchronised to disk and read again, however little happened: between the first "
        f"row and the last, {seconds['aggregate'] * 1e3:.1f} ms of CPU a day to write it and "
        f"{seconds['embed'] * 1e3:.1f} ms to read it, whatever the number of accounts. In the last row all of "
        f"{last['days']:,} days are one account's."
    )


def _arithmetic(result: dict[str, Any]) -> str:
    """What ten million accounts would take, from what was measured."""
    *_, before, last = result["more"]
    seconds, more_bytes, more_accounts = (
        now - then
        for now, then in (
            (last["aggregate"] + last["embed"], before["aggregate"] + before["embed"]),
            (last["peak_bytes"], before["peak_bytes"]),
            (last["entities"], before["entities"]),
        )
    )
    minutes = last["minutes"] / last["entities"] * 1e7
    shards = max(minutes / result["limits"]["MINUTES_PER_SHARD"], 1e7 / result["limits"]["MOMENTS_PER_SHARD"])
    return (
        f"Between the last two rows an account costs {seconds / more_accounts * 1e3:.2f} ms of CPU and "
        f"{more_bytes / more_accounts / 1e3:.1f} kB. By arithmetic, 10,000,000 such accounts take "
        f"{seconds / more_accounts * 1e7 / 3600:.1f} CPU-hours; their {minutes / 1e6:,.0f} M minutes are embedded in "
        f"{shards:.0f} shards (at most {result['limits']['MINUTES_PER_SHARD']:,} minutes or "
        f"{result['limits']['MOMENTS_PER_SHARD']:,} windows each). A shard takes what the last row takes, and the ids "
        f"and moments of all windows {1e7 * BYTES_PER_MOMENT / 1e9:.2f} GB. Ten million accounts weren't run."
    )


_TEXT = """\
## Growth

`make bench PART=growth`, on simulated logs. `aggregate` and `embed` in a process of their own; CPU-seconds without
the loading of libraries, medians over repeats, and the time of both; rows are measured one after another. The peak is
that of the whole process, which has {idle} before it does anything.
The encoder has the paper's sizes and isn't trained; torch has {threads} threads."""
