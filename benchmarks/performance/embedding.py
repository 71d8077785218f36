"""Embedding, end to end, beside CoLES (GRU) of pytorch-lifestream: the same entities, windows, events and threads.

Ours goes from minutes on disk to the table on disk (`infobehavior embed`); theirs from the events of the same windows
on disk to a table on disk (`peers/coles_embed.py`, in a virtual environment of its own, made once). The sides take
turns, each in a process of its own.
"""

import json
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import machine
from peer_environment import PEERS, peer_python

from infobehavior.model.config import EncoderConfig
from performance.embedding_steps import LAST_EVENTS, WORKLOADS, Workload
from performance.measure import ChildRun, goal, run, run_python, table

PEER = PEERS / "coles_embed.py"
TARGET = 5.0
BATCH_SIZES = (2, 8, 32, 128, 512)
"""Tried from the smallest on until one is clearly slower; 512 is the package's default."""

CLEARLY = 1.1
"""Times as long as the fastest: less may be noise."""

DEMO = {"max_events": 10_000, "sorted": False, "batch_size": 256}
"""What the package's demo does: the loader's default length, in batches of 256."""

MAX_STEPS_PER_BATCH = 1_000_000
"""Of entities times events, in a batch padded to its longest entity: about 4 GB in the peer's GRU."""

SLOW_SECONDS = 60
"""What takes longer than this runs once; all else takes turns."""

PEER_DIM, PEER_INPUT = 192, 49
"""Of the peer's GRU: its state, and what it reads of an event (three categories of 16, and a time)."""

CLOCKS = ("wall", "warm", "inference")
"""End to end; without start-up and imports; without reading and writing."""


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Both sides on windows of git_activity, where it is, and on a simulated log."""
    folder = (work / "embedding").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    git_activity = (data / "git_activity" / "events.parquet").absolute()
    logs = {"git_activity": git_activity} if git_activity.exists() else {}
    logs |= {} if small else {"busy": folder / "busy.parquet"}
    threads, repeats = os.cpu_count() or 1, 1 if small else 3
    runner = Runner(folder, threads)
    prepared = {log: runner.prepare(log, events) for log, events in logs.items()}
    workloads = [
        _measure(runner, workload, prepared[workload.log], repeats)
        for workload in (WORKLOADS[:1] if small else WORKLOADS)
        if workload.log in prepared
    ]
    return {"threads": threads, "repeats": repeats, "workloads": workloads}


class Runner:
    """Starts the processes that are measured.

    Args:
        work: folder for what they write.
        threads: of each.
    """

    def __init__(self, work: Path, threads: int) -> None:
        self.work, self.threads = work, threads
        # Where threads sleep, the small products of a GRU take up to three times as long: CoLES has the default, while
        # our command sets how its threads wait.
        self.environment = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": None,
            "GOMP_SPINCOUNT": None,
        }

    def prepare(self, log: str, events: Path) -> dict[str, Any]:
        """Minutes, moments, events and models, if they aren't there from an earlier run of this commit."""
        command = ["-m", "performance.embedding_steps", "prepare", log, events, self.work / "logs" / log]
        run_python([*command, "--threads", self.threads, "--commit", machine()["commit"]], self.environment)
        return _read(self.work / "logs" / log / "prepared.json")

    def ours(self, workload: Workload) -> dict[str, Any]:
        """`infobehavior embed`, as a user starts it, and once more with a clock inside."""
        report, arguments = self.work / "ours.json", self._arguments(workload)
        shutil.rmtree(self.work / "ours", ignore_errors=True)
        command = run_python(["-m", "infobehavior", "embed", *arguments], self.environment)
        shutil.rmtree(self.work / "ours")
        run_python(["-m", "performance.embedding_steps", "embed", *arguments, "--report", report], self.environment)
        inside = _read(report)
        parts = inside["seconds"]
        return {**inside, **_cost(command, parts["embed"], parts["inference"])}

    def theirs(self, workload: Workload, variant: Mapping[str, Any]) -> dict[str, Any]:
        """The peer, from the events of the windows to its table."""
        report, out = self.work / "theirs.json", self.work / "theirs.parquet"
        events = self.work / "logs" / workload.log / workload.name / "events.parquet"
        options = ["--max-events", variant["max_events"], "--batch-size", variant["batch_size"]]
        options += ["--out", out, "--report", report, "--threads", self.threads]
        options += ["--sort"] if variant["sorted"] else []
        command = run([peer_python(self.work), PEER, events, *options], self.environment)
        inside = _read(report)
        parts = inside["seconds"]
        warm = sum(value for name, value in parts.items() if name != "import")
        return {**inside, **_cost(command, warm, parts["inference"])}

    def _arguments(self, workload: Workload) -> list[Any]:
        log = self.work / "logs" / workload.log
        folder = log / workload.name
        options = ["--model", folder / "model", "--as-of", folder / "moments.parquet", "--out", self.work / "ours"]
        return [log / "minutes", *options]


def _cost(command: ChildRun, warm: float, inference: float) -> dict[str, Any]:
    return {
        "clocks": {"wall": command.seconds, "warm": warm, "inference": inference},
        "cpu_seconds": command.cpu_seconds,
        "peak_bytes": command.peak_bytes,
    }


def _measure(runner: Runner, workload: Workload, prepared: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """Both sides in turn, after the peer's best batch size was looked for."""
    sizes = prepared["workloads"][workload.name]
    variants = [_with_best_batch(runner, workload, sizes, variant) for variant in _variants(sizes)]
    ours: list[dict[str, Any]] = []
    theirs: list[list[dict[str, Any]]] = [[] for _ in variants]
    for _ in range(repeats):
        ours.append(runner.ours(workload))
        for variant, runs in zip(variants, theirs, strict=True):
            if not runs or runs[0]["clocks"]["wall"] < SLOW_SECONDS:
                runs.append(runner.theirs(workload, variant))
    mine = _summary(ours, sizes["num_minutes_of_last"]["0"])
    others = [
        {**variant, **_summary(runs, sizes["num_minutes_of_last"][str(variant["max_events"])])}
        for variant, runs in zip(variants, theirs, strict=True)
    ]
    for other in others:
        other["ratios"] = {clock: other["seconds"][clock] / mine["seconds"][clock] for clock in CLOCKS}
    described = {"name": workload.name, "title": workload.title, "window_days": workload.window_days}
    return {**described, "log": {"name": workload.log, **prepared["log"]}, **sizes, "ours": mine, "theirs": others}


def _variants(sizes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the peer is given: the last events of each entity where that cuts, and all, also sorted by length."""
    cut = [{"max_events": last, "sorted": False} for last in LAST_EVENTS if 0 < last < sizes["max_events"] / 2]
    whole = [{"max_events": 0, "sorted": False}, {"max_events": 0, "sorted": True}]
    fits = DEMO["batch_size"] * min(DEMO["max_events"], sizes["max_events"]) <= MAX_STEPS_PER_BATCH
    return [*cut, *whole, *([DEMO] if fits else [])]


def _with_best_batch(
    runner: Runner, workload: Workload, sizes: Mapping[str, Any], variant: Mapping[str, Any]
) -> dict[str, Any]:
    """The variant with the batch size whose inference was fastest, tried once each until one is clearly slower."""
    if "batch_size" in variant:
        return {**variant, "inference_seconds_by_batch_size": {}}
    longest = min(variant["max_events"] or sizes["max_events"], sizes["max_events"])
    tried: dict[int, float] = {}
    for size in BATCH_SIZES:
        slower = tried and list(tried.values())[-1] > CLEARLY * min(tried.values())
        if size * longest > MAX_STEPS_PER_BATCH or slower:
            break
        tried[size] = runner.theirs(workload, {**variant, "batch_size": size})["clocks"]["inference"]
    best = min(tried, key=lambda size: tried[size])
    return {**variant, "batch_size": best, "inference_seconds_by_batch_size": tried}


def _summary(runs: Sequence[Mapping[str, Any]], num_minutes: int) -> dict[str, Any]:
    """Medians over the runs of one side, its rates from them, and each run's seconds."""
    seconds = {clock: statistics.median(run["clocks"][clock] for run in runs) for clock in CLOCKS}
    seen = {"entities": runs[0]["num_entities"], "events": runs[0]["num_events_seen"], "minutes": num_minutes}
    return {
        "seconds": seconds,
        "seconds_of_each": {clock: [run["clocks"][clock] for run in runs] for clock in CLOCKS},
        "parts": {part: statistics.median(run["seconds"][part] for run in runs) for part in runs[0]["seconds"]},
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
        "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
        "seen": seen,
        "rates": {clock: {what: count / seconds[clock] for what, count in seen.items()} for clock in CLOCKS},
        **{name: runs[0][name] for name in ("num_spans_seen", "num_steps_padded", "versions") if name in runs[0]},
    }


def section(result: Mapping[str, Any]) -> str:
    """The tables of the page."""
    if not result["workloads"]:
        return "## Embedding, beside CoLES (GRU)\n\nNot measured: git_activity isn't here."
    versions = result["workloads"][0]["theirs"][0]["versions"]
    text = _TEXT.format(
        threads=result["threads"],
        repeats=result["repeats"],
        ptls=versions["pytorch-lifestream"],
        torch=versions["torch"],
        event=_flop_of_event() / 1e6,
        span=_flop_of_span() / 1e6,
    )
    return "\n\n".join([text, *map(_workload_section, result["workloads"])])


def _workload_section(workload: Mapping[str, Any]) -> str:
    sides = [("infobehavior, whole", workload["ours"], {})]
    sides += [(f"CoLES, {_label(other)}{_tried(other)}", other, other["ratios"]) for other in workload["theirs"]]
    return "\n\n".join(
        [
            f"### {workload['name'].capitalize()}: {workload['title']}",
            f"Of {_LOG.format(**workload['log'])}: "
            f"{workload['num_entities']:,} entities, {workload['num_events']:,} events in the windows of "
            f"{workload['window_days']:,} days; the median entity has {workload['median_events']:,}, the longest "
            f"{workload['max_events']:,}.",
            table(_HEADER, [_row(name, side, workload, ratios) for name, side, ratios in sides]),
            _goal(workload),
        ]
    )


def _row(name: str, side: Mapping[str, Any], workload: Mapping[str, Any], ratios: Mapping[str, float]) -> list[str]:
    share = side["seen"]["events"] / workload["num_events"]
    cells = [name, f"{side['seen']['events']:,} ({share:.0%})"]
    cells += [f"{side['rates']['wall'][what]:,.0f}" for what in ("entities", "minutes", "events")]
    for clock in CLOCKS:
        cells += [f"{side['seconds'][clock]:.1f}", f"{ratios[clock]:.2f} ×" if ratios else ""]
    return [*cells, f"{side['cpu_seconds']:.1f}", f"{side['peak_bytes'] / 1e9:.1f}"]


def _goal(workload: Mapping[str, Any]) -> str:
    """Whether we are fast enough beside whatever the peer was given, end to end."""
    ratios = {_label(other): other["ratios"]["wall"] for other in workload["theirs"]}
    listed = "; ".join(f"{label}: {ratio:.1f}" for label, ratio in ratios.items())
    text = f"{workload['name']}: embedding is at least {TARGET:g} × as fast as CoLES, end to end ({listed})"
    return goal(text, min(ratios.values()) >= TARGET)


def _label(variant: Mapping[str, Any]) -> str:
    kept = f"last {variant['max_events']:,} events" if variant["max_events"] else "whole"
    if not variant.get("inference_seconds_by_batch_size", True):
        return f"as in its demo ({kept}, batches of {variant['batch_size']})"
    return kept + (", sorted by length" if variant["sorted"] else "")


def _tried(variant: Mapping[str, Any]) -> str:
    """The batch size, and which ones were tried for it."""
    tried = variant["inference_seconds_by_batch_size"]
    return f"; batches of {variant['batch_size']}, of {', '.join(map(str, tried))}" if tried else ""


def _flop_of_event() -> float:
    """Floating-point operations of the peer's GRU for an event: three gates, each of the input and the state."""
    return 2 * 3 * PEER_DIM * (PEER_INPUT + PEER_DIM)


def _flop_of_span() -> float:
    """Those of the paper's Transformer for a span: keys and values only in the last layer, which [CLS] alone leaves."""
    config = EncoderConfig()
    dim, layer = config.model_dim, 4 * config.model_dim**2 + 2 * config.model_dim * config.feedforward_dim
    return 2 * ((config.num_layers - 1) * layer + 2 * dim * dim)


def _read(report: Path) -> dict[str, Any]:
    return dict(json.loads(report.read_text(encoding="utf-8")))


_HEADER = ["", "events seen", "entities/s", "minutes/s", "events/s", "seconds", "ratio", "without start-up", "ratio"]
_HEADER += ["inference alone", "ratio", "CPU-s", "peak GB"]

_LOG = "{name} ({num_events:,} events, made {num_minutes:,} minutes in {aggregate_seconds:.0f} s)"

_TEXT = """\
## Embedding, beside CoLES (GRU)

`make bench PART=embedding`, on git_activity and on a simulated log; {threads} threads a process, medians of {repeats}
turns, or one where that took longer than a minute. infobehavior: the command `embed`, from minutes on disk to the table
on disk, the paper's encoder, whole windows. CoLES: pytorch-lifestream {ptls} on
torch {torch} in its own process and environment, from the events of the same windows on disk (a file that holds
nothing else) through its own preprocessing and inference loader to a table on disk. Vectors of 192 on both sides,
weights untrained on both, since speed doesn't depend on them; for CoLES the fastest of several batch sizes, and its
demo's where that needs no more than about 4 GB. Its loader keeps the last 10,000 events of an entity by default, its
authors' experiments the last 1,600. It doesn't sort by length: the row that says sorted was helped. Minutes come
from events once, which no column counts; it is told of each log.

The ratios are their time over ours: above 1 we are faster. *Without start-up* leaves out the start of the process
and its imports. *Inference alone* leaves out reading and writing, of CoLES also its preprocessing, of infobehavior
not the making of tokens.

By arithmetic this GRU needs {event:.1f} MFLOP an event, and the paper's Transformer {span:.1f} MFLOP a span of six
hours, however many events it has. Most accounts of git_activity do less than ten things in six hours, so there the GRU
has less to do; busy accounts are what the paper's grouping is for."""
