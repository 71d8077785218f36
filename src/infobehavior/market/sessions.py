"""What sellers do in their sessions, and what their tools do: events from habits, for many sellers at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infobehavior.market.config import MAX_OPS
from infobehavior.market.habits import Habits, Indices, Numbers
from infobehavior.market.operations import FAILURE_RATES, LOGIN, OPERATIONS

SECONDS_PER_HOUR = 3_600
SECONDS_PER_DAY = 86_400

_ODDS: Numbers = np.array([rate / (1 - rate) for rate in (FAILURE_RATES.get(name, 0.0) for name in OPERATIONS)])
"""That an operation of the median seller fails."""


@dataclass(frozen=True)
class Events:
    """Events of some sellers, in any order.

    Attributes:
        seller: row of the seller.
        day: local day, from 0.
        second: of that local day; those after its end are of the next one.
        operation: place in `OPERATIONS`.
        city: place in `CITIES`.
        failed: whether it is a failed operation.
    """

    seller: Indices
    day: Indices
    second: Numbers
    operation: Indices
    city: Indices
    failed: NDArray[np.bool_]

    def take(self, which: NDArray[np.bool_] | Indices) -> "Events":
        """Some of them."""
        return Events(*(column[which] for column in vars(self).values()))

    @classmethod
    def joined(cls, parts: list["Events"]) -> "Events":
        """All events of some parts."""
        return cls(*(np.concatenate(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))


def work(habits: Habits, row: Indices, failure: Numbers, num_sessions: Indices, random: np.random.Generator) -> Events:
    """Sessions of some sellers.

    Args:
        habits: of sellers, in rows.
        row: habits of each seller on each day, (sellers, days).
        failure: odds that operations fail then, of the habits', likewise.
        num_sessions: likewise.
        random: draws everything.
    """
    seller, day = (np.repeat(x.ravel(), num_sessions.ravel()) for x in np.indices(num_sessions.shape))
    rows = row[seller, day]
    length = 1 + np.minimum(random.lognormal(np.log(habits.ops_per_session[rows]), 0.7), MAX_OPS - 1).astype(np.int64)
    operation, second = _operations(habits, rows, length, random)
    start = _starts(habits, rows, random)
    member = (random.random(len(rows))[:, None] > np.cumsum(habits.staff[rows], axis=1)[:, :-1]).sum(axis=1)
    session = np.repeat(np.arange(len(rows)), length)
    return Events(
        seller[session],
        day[session],
        start[session] + second,
        operation,
        habits.city[rows, member][session],
        random.random(len(session)) < chance_to_fail(operation, (habits.failure[rows] * failure[seller, day])[session]),
    )


def chance_to_fail(operation: Indices | int, times: Numbers) -> Numbers:
    """How often operations fail where the odds are so many times the median seller's."""
    with np.errstate(divide="ignore"):
        chance: Numbers = 1 / (1 + 1 / (_ODDS[operation] * times))
    return chance


def bursts(habits: Habits, row: Indices, num_bursts: Indices, size: float, random: np.random.Generator) -> Events:
    """What tools do.

    Args:
        habits: of sellers, in rows.
        row: habits of each seller on each day, (sellers, days).
        num_bursts: likewise.
        size: of the bursts, of those that the habits tell.
        random: draws everything.
    """
    seller, day = (np.repeat(x.ravel(), num_bursts.ravel()) for x in np.indices(num_bursts.shape))
    rows = row[seller, day]
    length = 2 + random.lognormal(np.log(habits.burst_size[rows] * size), 0.4).astype(np.int64)
    burst = np.repeat(np.arange(len(rows)), length)
    start = np.mod(habits.burst_hour[rows] + random.normal(0, 0.3, len(rows)), 24) * SECONDS_PER_HOUR
    second = _sums_within(random.exponential(random.uniform(0.2, 2.0, len(rows))[burst]), length)
    return Events(
        seller[burst],
        day[burst],
        start[burst] + second,
        habits.burst_op[rows][burst],
        habits.city[rows, 0][burst],
        np.zeros(len(burst), np.bool_),
    )


def _starts(habits: Habits, rows: Indices, random: np.random.Generator) -> Numbers:
    """Local second of the day at which sessions begin."""
    peak = habits.peaks[rows, random.integers(habits.peaks.shape[1], size=len(rows))]
    hour = np.mod(peak + habits.peak_width[rows] * random.normal(size=len(rows)), 24)
    return hour * SECONDS_PER_HOUR


def _operations(habits: Habits, rows: Indices, length: Indices, random: np.random.Generator) -> tuple[Indices, Numbers]:
    """Operations of sessions, one session after the other, and how many seconds after its start each is.

    A session begins with a login. Then the usual next operation follows, or one that is drawn from the seller's mix.
    """
    first = np.cumsum(length) - length
    operation = np.full(length.sum(), OPERATIONS.index(LOGIN))
    chances = np.cumsum(habits.mix, axis=1)
    current = np.zeros(len(rows), np.int64)
    for step in range(1, int(length.max(initial=0))):
        session = np.flatnonzero(length > step)
        row = rows[session]
        drawn = (random.random(len(session))[:, None] > chances[row][:, :-1]).sum(axis=1)
        is_usual = (random.random(len(session)) < habits.habit[row]) & (step > 1)
        current[session] = np.where(is_usual, habits.usual_next[row, current[session]], drawn)
        operation[first[session] + step] = current[session]
    gaps = random.lognormal(np.log(np.repeat(habits.gap_seconds[rows], length)), 1.0)
    gaps[first] = 0
    return operation, _sums_within(gaps, length)


def _sums_within(numbers: Numbers, length: Indices) -> Numbers:
    """Sums of the numbers so far, in each of some runs."""
    sums: Numbers = np.cumsum(numbers)
    before = np.concatenate([[0.0], sums])[np.cumsum(length) - length]
    sums -= np.repeat(before, length)
    return sums
