"""Stages of work that run at the same time, in threads of their own."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


@contextmanager
def ahead(items: Iterable[Item], num_ahead: int) -> Iterator[Iterator[Item]]:
    """The same items, made by a thread of its own, at most so many before they are taken.

    At the end the thread finishes the item that it is at, if nobody interrupts it, and a generator is closed.
    """
    iterator, pool = iter(items), ThreadPoolExecutor(1)
    try:
        yield _made_ahead(pool, iterator, num_ahead)
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()


def _made_ahead(pool: Executor, items: Iterator[Item], num_ahead: int) -> Iterator[Item]:
    pending: deque[Future[Any]] = deque(pool.submit(next, items, _END) for _ in range(num_ahead))
    while (item := pending.popleft().result()) is not _END:
        pending.append(pool.submit(next, items, _END))
        yield item


def in_order(
    pool: Executor, num_pending: int, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Like `map`, a few items at a time, and none of them long before its result is taken."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) == num_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
