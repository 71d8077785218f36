"""Timings that can be compared: sides take turns, and medians are reported."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ChildRun:
    """What a process cost.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: of all its threads.
        peak_bytes: largest resident size.
        output: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def alternate(sides: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each repeat of each side; the sides take turns, so that a drift of the machine meets them all.

    Args:
        sides: what to run, by name.
        repeats: rounds that count.
        warm_up: rounds before them that don't.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + repeats):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "repeats": len(seconds)}


def run_python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> ChildRun:
    """Run this Python with some arguments, and account for what it took.

    Raises:
        RuntimeError: it failed; what it printed is in the message.
    """
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed with {child.returncode}:\n{output}")
    return ChildRun(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, output)


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
