"""Embedding, end to end, beside CoLES (GRU) of pytorch-lifestream: the same entities, windows, events and threads.

    PYTHONPATH=benchmarks:src python -m performance.embedding --data FOLDER --work DIR --out result.json

Ours goes from minutes on disk to the table on disk (`infobehavior embed`); theirs from the events of the same windows
on disk to a table on disk (`peers/coles_embed.py`, in a virtual environment of its own, made once in DIR). The sides
take turns, each in a process of its own. This process imports neither: it starts the others and looks at the clock.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from performance.embedding_steps import LAST_EVENTS, WORKLOADS

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "git_activity"
PEER = ROOT / "benchmarks" / "peers" / "coles_embed.py"
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements-coles.txt"
TARGET = 5.0
BATCH_SIZES = (2, 8, 32, 128, 512)
"""Tried from the smallest on until one is slower; 512 is the package's default."""

DEMO = {"max_events": 10_000, "sorted": False, "batch_size": 256}
"""What the package's demo does: the loader's default length, in batches of 256."""

MAX_STEPS_PER_BATCH = 1_000_000
"""Of entities times events: about 4 GB in the peer's GRU, whose batches are padded to their longest entity."""

LOOK_SECONDS = 0.02
CLOCKS = {"wall": "end to end", "warm": "without start-up", "inference": "inference alone"}


def main() -> int:
    """Measure, write the result and show it."""
    given = _arguments()
    result = measure(given.data, given.work, given.threads, given.repeats, given.workload)
    if result and given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(section(result))
    return 0


def measure(
    data: Path, work: Path, threads: int | None = None, repeats: int = 3, workloads: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure both sides on git_activity.

    Args:
        data: folder with `events.parquet`.
        work: folder for everything that is made on the way; what is there already is used again.
        threads: of each process; all cores by default.
        repeats: turns of each side; the result has medians, and the values of each turn.
        workloads: names of `WORKLOADS`; all by default.

    Returns:
        What `section` shows; nothing if there is no log.
    """
    events, threads = data / "events.parquet", threads or os.cpu_count() or 1
    if not events.exists():
        print(f"embedding is left out: there is no {events}; name its folder with --data", file=sys.stderr)
        return {}
    work.mkdir(parents=True, exist_ok=True)
    runner = Runner(work.absolute(), threads)
    prepared = runner.prepare(events.absolute())
    peer = runner.peer()
    chosen = [workload for workload in WORKLOADS if workloads is None or workload.name in workloads]
    return {
        "machine": _machine(),
        "threads": threads,
        "repeats": repeats,
        "load_before": os.getloadavg()[0],
        "log": prepared["log"],
        "workloads": [
            {
                "name": workload.name,
                "title": workload.title,
                "window_days": workload.window_days,
                **(sizes := prepared["workloads"][workload.name]),
                **_measure_workload(runner, peer, workload.name, sizes, repeats),
            }
            for workload in chosen
        ],
    }


class Runner:
    """Starts the processes that are measured.

    Args:
        work: folder for what they write.
        threads: of each.
    """

    def __init__(self, work: Path, threads: int) -> None:
        self.work, self.threads = work, threads
        path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])
        cores = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.environment = {**os.environ, "PYTHONPATH": path, **cores}
        # Waiting passively, the small products of a GRU take up to three times as long: both sides have the default.
        self.environment.pop("OMP_WAIT_POLICY", None)

    def prepare(self, events: Path) -> dict[str, Any]:
        """Minutes, moments, events and models, if they aren't there from an earlier run."""
        command = ["performance.embedding_steps", "prepare", events, self.work / "logs", "--threads", self.threads]
        self._run([sys.executable, "-m", *command])
        content: dict[str, Any] = json.loads((self.work / "logs" / "prepared.json").read_text(encoding="utf-8"))
        return content

    def peer(self) -> Path:
        """The Python of the peer's virtual environment, which is made if it isn't there."""
        folder = self.work / "coles"
        python, mark = folder / "bin" / "python", folder / ".installed"
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
            venv.create(folder, clear=True, with_pip=True)
            self._run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", REQUIREMENTS])
            mark.write_text(wanted, encoding="utf-8")
        return python

    def command(self, workload: str) -> dict[str, Any]:
        """`infobehavior embed`, as a user starts it."""
        return self._clocked([sys.executable, "-m", "infobehavior", "embed", *self._arguments(workload)])

    def inside(self, workload: str) -> dict[str, Any]:
        """The same from inside, with the times of its parts."""
        report = self.work / "ours.json"
        command = ["performance.embedding_steps", "embed", *self._arguments(workload), "--report", report]
        return {**self._clocked([sys.executable, "-m", *command]), **_read(report)}

    def coles(self, peer: Path, workload: str, variant: Mapping[str, Any]) -> dict[str, Any]:
        """The peer, from the events of the windows to its table."""
        report, table = self.work / "theirs.json", self.work / "theirs.parquet"
        events = self.work / "logs" / workload / "events.parquet"
        sizes = ["--max-events", variant["max_events"], "--batch-size", variant["batch_size"]]
        options = ["--out", table, "--report", report, "--threads", self.threads, *sizes]
        run = self._clocked([peer, PEER, events, *options, *(["--sort"] if variant["sorted"] else [])])
        return {**run, **_read(report)}

    def _arguments(self, workload: str) -> list[Any]:
        logs, out = self.work / "logs", self.work / "ours"
        shutil.rmtree(out, ignore_errors=True)
        moments = logs / workload / "moments.parquet"
        return [logs / "minutes", "--model", logs / workload / "model", "--as-of", moments, "--out", out]

    def _run(self, command: Iterable[Any]) -> None:
        subprocess.run([str(part) for part in command], env=self.environment, check=True)

    def _clocked(self, command: Iterable[Any]) -> dict[str, Any]:
        """Run a command; give its seconds, its processor's seconds and the most memory that it held."""
        parts = [str(part) for part in command]
        with (self.work / "log.txt").open("wb") as log:
            started = time.perf_counter()
            process = subprocess.Popen(parts, env=self.environment, stdout=log, stderr=log)
            status, usage, peak = _watch(process.pid)
            wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            tail = (self.work / "log.txt").read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise RuntimeError(f"{' '.join(parts)} ended with {process.returncode}:\n{tail}")
        return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_bytes": peak}


def _watch(pid: int) -> tuple[int, Any, int]:
    """Wait for a process; the kernel's own maximum would count the memory of the process that started it."""
    peak = 0
    while True:
        peak = max(peak, _peak_bytes(pid))
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage, peak
        time.sleep(LOOK_SECONDS)


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _measure_workload(runner: Runner, peer: Path, name: str, sizes: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """Both sides in turn, after the peer's best batch size was looked for."""
    variants = [_with_best_batch(runner, peer, name, sizes, variant) for variant in _variants(sizes)]
    ours: list[dict[str, Any]] = []
    theirs: list[list[dict[str, Any]]] = [[] for _ in variants]
    for _ in range(repeats):
        ours.append(_ours(runner, name))
        for variant, runs in zip(variants, theirs, strict=True):
            _say(name, f"CoLES, {_label(variant)}")
            runs.append(_theirs(runner.coles(peer, name, variant)))
    mine = _summary(ours, sizes["num_minutes_of_last"]["0"])
    others = [
        {**variant, **_summary(runs, sizes["num_minutes_of_last"][str(variant["max_events"])])}
        for variant, runs in zip(variants, theirs, strict=True)
    ]
    for other in others:
        other["ratios"] = {clock: other["seconds"][clock] / mine["seconds"][clock] for clock in CLOCKS}
    return {"ours": mine, "theirs": others}


def _variants(sizes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the peer is given: the last events of each entity where that cuts, and all, also sorted by length."""
    cut = [{"max_events": last, "sorted": False} for last in LAST_EVENTS if 0 < last < sizes["max_events"] / 2]
    return [*cut, {"max_events": 0, "sorted": False}, {"max_events": 0, "sorted": True}, DEMO]


def _with_best_batch(
    runner: Runner, peer: Path, name: str, sizes: Mapping[str, Any], variant: Mapping[str, Any]
) -> dict[str, Any]:
    """The variant with the batch size whose inference was fastest, tried once each."""
    if "batch_size" in variant:
        return {**variant, "inference_seconds_by_batch_size": {}}
    longest = min(variant["max_events"] or sizes["max_events"], sizes["max_events"])
    tried: dict[int, float] = {}
    for size in BATCH_SIZES:
        if size * longest > MAX_STEPS_PER_BATCH or list(tried.values()) != sorted(tried.values(), reverse=True):
            break
        _say(name, f"CoLES, {_label(variant)}, in batches of {size}")
        tried[size] = runner.coles(peer, name, {**variant, "batch_size": size})["seconds"]["inference"]
    best = min(tried, key=lambda size: tried[size])
    return {**variant, "batch_size": best, "inference_seconds_by_batch_size": tried}


def _ours(runner: Runner, name: str) -> dict[str, Any]:
    _say(name, "infobehavior")
    command, inside = runner.command(name), runner.inside(name)
    seconds = {"wall": command["wall"], "warm": inside["seconds"]["embed"], "inference": inside["seconds"]["inference"]}
    return {**inside, **command, "seconds": seconds, "parts": inside["seconds"]}


def _theirs(run: Mapping[str, Any]) -> dict[str, Any]:
    parts = run["seconds"]
    warm = sum(value for name, value in parts.items() if name != "import")
    seconds = {"wall": run["wall"], "warm": warm, "inference": parts["inference"]}
    return {**run, "seconds": seconds, "parts": parts}


def _summary(runs: Sequence[Mapping[str, Any]], num_minutes: int) -> dict[str, Any]:
    """Medians over the runs of one side, its rates from them, and each run's end-to-end seconds."""
    seconds = {clock: statistics.median(run["seconds"][clock] for run in runs) for clock in CLOCKS}
    seen = {
        "entities": runs[0]["num_entities"],
        "events": runs[0]["num_events_seen"],
        "minutes": num_minutes,
    }
    return {
        "seconds": seconds,
        "seconds_of_each": {clock: [run["seconds"][clock] for run in runs] for clock in CLOCKS},
        "parts": {part: statistics.median(run["parts"][part] for run in runs) for part in runs[0]["parts"]},
        "cpu_seconds": statistics.median(run["cpu"] for run in runs),
        "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
        "seen": seen,
        "rates": {clock: {what: count / seconds[clock] for what, count in seen.items()} for clock in CLOCKS},
        **{name: runs[0][name] for name in ("num_spans_seen", "num_steps_padded", "versions") if name in runs[0]},
    }


def section(result: Mapping[str, Any]) -> str:
    """The result as Markdown; nothing of nothing."""
    if not result:
        return ""
    return "\n".join([*_introduction(result), *(_workload(workload) for workload in result["workloads"])])


def _introduction(result: Mapping[str, Any]) -> list[str]:
    machine, log = result["machine"], result["log"]
    versions = result["workloads"][0]["theirs"][0]["versions"]
    return [
        "## Embedding, beside CoLES (GRU) of pytorch-lifestream",
        "",
        f"git_activity ({log['num_events']:,} events, {log['num_minutes']:,} minutes). infobehavior: the command "
        "`embed`, from minutes on disk to the table on disk, the paper's encoder, whole windows. CoLES: "
        f"pytorch-lifestream {versions['pytorch-lifestream']} on torch {versions['torch']} in its own process and "
        "environment, from the events of the same windows on disk (a file that holds nothing else) through its own "
        "preprocessing and inference loader to a table on disk. Vectors of 192 on both sides, weights untrained on "
        "both, since speed doesn't depend on them; for CoLES the fastest of several batch sizes, and its demo's. Its "
        "loader keeps the last 10,000 events of an entity by default, its authors' experiments the last 1,600. It "
        "doesn't sort by length: the row that says sorted was helped. Minutes come from events once: the whole log "
        f"took {log['aggregate_seconds']:.0f} s, which no column counts.",
        "",
        f"{result['threads']} threads a process, {machine['cores']} cores ({machine['processor']}), Python "
        f"{machine['python']}; median of {result['repeats']} turns; load before the first {result['load_before']:.1f}. "
        "Without start-up leaves out the start of the process and its imports. Inference alone leaves out "
        "reading and writing, of CoLES also its preprocessing, of infobehavior not the making of tokens. "
        "The ratios are their time over ours: above 1 we are faster.",
        "",
    ]


def _workload(workload: Mapping[str, Any]) -> str:
    ours = workload["ours"]
    lines = [
        f"### {workload['name'].capitalize()}: {workload['title']}",
        "",
        f"{workload['num_entities']:,} entities, {workload['num_events']:,} events in the windows of "
        f"{workload['window_days']:,} days; the median entity has {workload['median_events']:,}, the longest "
        f"{workload['max_events']:,}.",
        "",
        "| | events seen | entities/s | minutes/s | events/s | seconds | ratio "
        "| without start-up | ratio | inference alone | ratio | CPU-s | peak GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        _row("infobehavior, whole", ours, workload, {}),
        *(_row(f"CoLES, {_label(other)}", other, workload, other["ratios"]) for other in workload["theirs"]),
        "",
        *_verdicts(workload),
        "",
    ]
    return "\n".join(lines)


def _row(name: str, side: Mapping[str, Any], workload: Mapping[str, Any], ratios: Mapping[str, float]) -> str:
    share = side["seen"]["events"] / workload["num_events"]
    rates = (f"{side['rates']['wall'][what]:,.0f}" for what in ("entities", "minutes", "events"))
    clocks = (
        cell for clock in CLOCKS for cell in (f"{side['seconds'][clock]:.1f}", f"{ratios[clock]:.2f}" if ratios else "")
    )
    cells = [name, f"{side['seen']['events']:,} ({share:.0%})", *rates, *clocks]
    return f"| {' | '.join(cells)} | {side['cpu_seconds']:.1f} | {side['peak_bytes'] / 1e9:.1f} |"


def _verdicts(workload: Mapping[str, Any]) -> list[str]:
    """For each clock, which rows reach the target and which don't."""
    lines = []
    for clock, name in CLOCKS.items():
        reached = [_label(other) for other in workload["theirs"] if other["ratios"][clock] >= TARGET]
        missed = [_label(other) for other in workload["theirs"] if other["ratios"][clock] < TARGET]
        lines.append(
            f"- {name.capitalize()}, at least {TARGET:g} times as fast: {'; '.join(reached) or 'against none'}. "
            f"Not: {'; '.join(missed) or 'none'}."
        )
    return lines


def _label(variant: Mapping[str, Any]) -> str:
    kept = f"last {variant['max_events']:,} events" if variant["max_events"] else "whole"
    if not variant.get("inference_seconds_by_batch_size", True):
        return f"as in its demo ({kept}, batches of {variant['batch_size']})"
    return kept + (", sorted by length" if variant["sorted"] else "")


def _say(workload: str, what: str) -> None:
    print(f"{workload}: {what}", file=sys.stderr, flush=True)


def _read(report: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    content.pop("peak_bytes", None)
    return content


def _machine() -> dict[str, Any]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cores": os.cpu_count(),
        "processor": next(named, platform.processor()),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    run = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return run.stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of git_activity's events.parquet")
    parser.add_argument("--work", type=Path, default=ROOT / "results-work" / "embedding")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--threads", type=int, help="of each process; all cores by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workload", action="append", choices=[workload.name for workload in WORKLOADS])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
