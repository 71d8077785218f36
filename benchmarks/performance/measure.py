"""Timings that can be compared: sides take turns, and medians are reported."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

from machine import ROOT

LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class ChildRun:
    """What a process cost.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: of all its threads.
        peak_bytes: largest resident size.
        peak_anonymous_bytes: the most that was resident and no file's, as often as it was looked at; the kernel takes
            pages of files back where memory is short.
        output: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    peak_anonymous_bytes: int
    output: str


def alternate(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int = 1,
    settings: Mapping[str, Callable[[], AbstractContextManager[object]]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each repeat of each side; the sides take turns, so that a drift of the machine meets them all.

    Args:
        sides: what to run, by name.
        repeats: rounds that count.
        warm_up: rounds before them that don't.
        settings: under which sides run that need some; to set them isn't timed.
    """
    settings = settings or {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + repeats):
        for name, run in sides.items():
            with settings.get(name, nullcontext)():
                started = time.perf_counter()
                run()
                took = time.perf_counter() - started
            if number >= warm_up:
                seconds[name].append(took)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "repeats": len(seconds)}


def gigabytes(num_bytes: float) -> str:
    """For a page."""
    return f"{num_bytes / 1e9:.2f} GB"


def run(command: Sequence[object], environment: Mapping[str, str | None] | None = None) -> ChildRun:
    """Run a command, and account for what it took.

    Args:
        command: the program and its arguments.
        environment: variables to change; None takes one away.

    Raises:
        RuntimeError: it failed; what it printed is in the message.
    """
    parts = [str(part) for part in command]
    changed = {**os.environ, **(environment or {})}
    kept = {name: value for name, value in changed.items() if value is not None}
    with tempfile.TemporaryFile() as printed:
        started = time.perf_counter()
        child = subprocess.Popen(parts, stdout=printed, stderr=subprocess.STDOUT, env=kept)
        status, used, peaks = _wait(child.pid)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        output = printed.read().decode(errors="replace")
    if child.returncode:
        raise RuntimeError(f"{' '.join(parts)} failed with {child.returncode}:\n{output[-2_000:]}")
    return ChildRun(seconds, used.ru_utime + used.ru_stime, *peaks, output)


def run_python(arguments: Sequence[object], environment: Mapping[str, str | None] | None = None) -> ChildRun:
    """`run` this Python, which finds the package and the benchmarks."""
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "src")])}
    return run([sys.executable, *arguments], {**path, **(environment or {})})


def _wait(pid: int) -> tuple[int, resource.struct_rusage, tuple[int, int]]:
    """The status and the usage of a child, and its peaks: the kernel's own counts memory of the process before it."""
    peak = peak_anonymous = 0
    while True:
        peak, peak_anonymous = max(peak, peak_bytes(pid)), max(peak_anonymous, anonymous_bytes(pid))
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, used, (peak, peak_anonymous)
        time.sleep(LOOK_SECONDS)


def peak_bytes(pid: int | str = "self") -> int:
    """Largest resident size of a process so far; 0 of one that has ended."""
    return _bytes_of("VmHWM", pid)


def anonymous_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process that is no file's, now; 0 of one that has ended."""
    return _bytes_of("RssAnon", pid)


class AnonymousPeak:
    """The most `anonymous_bytes` that this process has while a block runs, as often as it is looked at."""

    def __enter__(self) -> Self:
        self.num_bytes, self._ended, self._thread = anonymous_bytes(), Event(), Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.num_bytes = max(self.num_bytes, anonymous_bytes())

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.num_bytes = max(self.num_bytes, anonymous_bytes())


def _bytes_of(what: str, pid: int | str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:")), 0)


REACHED, MISSED = "- Reached: ", "- **Missed**: "
"""How the lines of `goal` begin."""


def goal(text: str, reached: bool) -> str:
    """A line that says whether a goal was reached."""
    return f"{REACHED if reached else MISSED}{text}."


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
