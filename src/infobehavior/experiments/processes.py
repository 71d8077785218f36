"""Runs of an experiment in processes of their own, a few at a time."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import TypeVar

from infobehavior.progress import log_lines_of_worker, logger, progress

T = TypeVar("T")


def in_processes(what: str, work: Callable[[T], None], runs: Sequence[T], workers: int) -> None:
    """Call for each run; none waits in a queue, from which it couldn't be taken back once one has failed.

    Args:
        what: is done, in a few words.
        work: is called with each run, in this process if there is one worker; otherwise it is pickled.
        runs: what to do.
        workers: processes.
    """
    if workers == 1:
        for run in runs:
            work(run)
        return
    lines = (logger.isEnabledFor(logging.INFO),)
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), log_lines_of_worker, lines, max_tasks_per_child=1) as pool,
        progress(what, len(runs)) as advance,
    ):
        running: set[Future[None]] = set()
        for run in runs:
            if len(running) == workers:
                running = _after_the_next(running, advance)
            running.add(pool.submit(work, run))
        while running:
            running = _after_the_next(running, advance)


def _after_the_next(running: set[Future[None]], advance: Callable[[int], None]) -> set[Future[None]]:
    """Those that still run when the next one is done."""
    done, running = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        advance(1)
    return running
