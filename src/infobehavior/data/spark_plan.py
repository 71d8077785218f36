"""How the work on a log is divided among Spark's tasks: what each reads, and where its events go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.clock import MICROSECONDS, SECONDS_PER_MINUTE, day_bounds, day_of_number
from infobehavior.data.survey import Survey, chunks

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Some files of a log, or some rows of a Parquet file, which one task reads.

    Attributes:
        files: at least one.
        rows: of the only file, the first and the end; all by default.
    """

    files: tuple[Path, ...]
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Chunk:
    """Consecutive days, whose events go to one task, or by their entities to several.

    Attributes:
        days: at least one.
        starts: UTC epoch minute at which each begins, and the end of the last one.
        num_tasks: how many.
    """

    days: tuple[date, ...]
    starts: tuple[int, ...]
    num_tasks: int


@dataclass(frozen=True)
class Plan:
    """Which event goes where. A minute never crosses a day, so that an entity with many events has many tasks.

    Attributes:
        chunks: ascending.
    """

    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, survey: Survey, time_zone: str, events_per_task: int) -> "Plan":
        """Tasks with at most so many events each, or those of a day that an entity has alone."""
        found = []
        for numbers in chunks(survey, events_per_task):
            counts = survey.events_of_day[numbers.start - survey.first_day : numbers.stop - survey.first_day]
            num_tasks = -(-sum(count or 0 for count in counts) // events_per_task)
            days = tuple(day_of_number(number) for number in numbers)
            ends = (*days, day_of_number(numbers.stop))
            found.append(Chunk(days, tuple(day_bounds(day, time_zone)[0] for day in ends), max(1, num_tasks)))
        return cls(tuple(found))

    @property
    def num_tasks(self) -> int:
        """Of all chunks."""
        return int(self.first_task[-1])

    @cached_property
    def first_task(self) -> Integers:
        """Of each chunk, and the number of tasks."""
        return np.cumsum([0, *(chunk.num_tasks for chunk in self.chunks)])

    def chunk_of(self, task: int) -> int:
        """The chunk, by its position, of which a task has events."""
        return int(np.searchsorted(self.first_task, task, side="right")) - 1

    def task_of(self, microsecond: Integers, entity_hash: NDArray[np.uint64]) -> Integers:
        """Where each event goes; -1 for those of days that aren't wanted."""
        starts, ends = (
            np.array([chunk.starts[at] for chunk in self.chunks]) * SECONDS_PER_MINUTE * MICROSECONDS for at in (0, -1)
        )
        chunk = np.searchsorted(starts, microsecond, side="right") - 1
        is_wanted = (chunk >= 0) & (microsecond < ends[chunk])
        num_tasks = np.diff(self.first_task)[chunk].astype(np.uint64)
        return np.where(is_wanted, self.first_task[chunk] + (entity_hash % num_tasks).astype(np.int64), -1)


def runs_of_size(sizes: Sequence[int], at_once: int, most: int) -> Iterator[slice]:
    """Runs of things that have about so much together, at most `most` of them each, or one that has more."""
    start, total = 0, 0
    for at, size in enumerate(sizes):
        if at > start and (total + size > at_once or at - start == most):
            yield slice(start, at)
            start, total = at, 0
        total += size
    if len(sizes):
        yield slice(start, len(sizes))
