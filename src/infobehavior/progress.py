"""A progress bar when a person watches, log lines when not."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Protocol

from rich.console import Console
from rich.progress import Progress, TextColumn

logger = logging.getLogger("infobehavior")
SECONDS_BETWEEN_LINES = 30.0


class Advance(Protocol):
    """Reports that `done` more units are finished; `note` is a short text shown beside the count."""

    def __call__(self, done: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(description: str, total: int, *, told: bool = True) -> Iterator[Advance]:
    """Show how far a long piece of work is.

    Args:
        description: what is being done, in a few words.
        total: how many units there are.
        told: False where another process that does the same work shows it.

    Yields:
        The function to call when units are finished.
    """
    if not told:
        yield lambda done=1, note="": None
    elif sys.stderr.isatty() and parent_process() is None:
        with Progress(
            *Progress.get_default_columns(), TextColumn("{task.fields[note]}"), console=Console(stderr=True)
        ) as bar:
            task = bar.add_task(description, total=total, note="")
            yield lambda done=1, note="": bar.update(task, advance=done, note=note)
    else:
        yield _lines(description, total)


def log_lines_of_worker(enabled: bool) -> None:
    """Let a process that works for another tell what it does, a line at a time and without a bar of its own.

    Args:
        enabled: whether the other one's log lines are shown.
    """
    if enabled:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(processName)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def _lines(description: str, total: int) -> Advance:
    finished, last_line = 0, time.monotonic()

    def advance(done: int = 1, note: str = "") -> None:
        nonlocal finished, last_line
        finished += done
        if finished >= total or time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            logger.info("%s: %d of %d %s", description, finished, total, note)

    return advance
