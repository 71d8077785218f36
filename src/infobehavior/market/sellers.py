"""Who is in the simulated market: normal sellers, new ones, and the kinds of abnormal ones (section 3.3.3)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from infobehavior.market.config import MarketConfig
from infobehavior.market.habits import Indices

KINDS = ("normal", "bought", "burst", "camouflaged", "relapsing")

TAKEOVER_DAYS = 3
"""So long the one who took an account over verifies it and changes its password and profile."""

EPISODE_DAYS = (2, 5)
PAUSE_DAYS = (6, 15)
"""Of relapsing sellers, from and to (not in it)."""


@dataclass(frozen=True)
class Sellers:
    """Some sellers, a row each.

    Attributes:
        kind: place in `KINDS`.
        since: the day, from 0, from which on they are abnormal; beyond the log for normal ones.
        opened: the day on which they register and open their shop, before any on which they are abnormal; -1 if it
            was before the log.
        is_abnormal: on which days they behave so, (sellers, days).
        is_early: the first of each run of those days, on which accounts that were taken over are changed, likewise.
        moved: the day from which on they work in other cities, after the first one and `opened`; beyond the log if
            they don't.
        label: what a user of the log is told: 1 for sellers known to be abnormal.
    """

    kind: Indices
    since: Indices
    opened: Indices
    is_abnormal: NDArray[np.bool_]
    is_early: NDArray[np.bool_]
    moved: Indices
    label: Indices

    @classmethod
    def draw(cls, config: MarketConfig, count: int, random: np.random.Generator) -> Self:
        """Draw them; being abnormal has nothing to do with how a seller worked before."""
        days = np.arange(config.num_days)
        shares = np.array([getattr(config.kinds, kind) for kind in KINDS[1:]]) / config.kinds.total
        kind = np.where(
            random.random(count) < config.abnormal_share, 1 + random.choice(len(shares), count, p=shares), 0
        )
        first, last = (max(config.num_days - before, 0) for before in (config.earliest_begin, config.latest_begin))
        since = np.where(kind > 0, random.integers(first, last + 1, count), config.num_days)
        is_new = random.random(count) < config.new_share
        opened = np.where(is_new, np.minimum(random.integers(0, config.num_days, count), since - 1), -1)
        is_abnormal = days >= since[:, None]
        relapsing, burst = (np.flatnonzero(kind == KINDS.index(name)) for name in ("relapsing", "burst"))
        for seller in relapsing:
            is_abnormal[seller] = _episodes(int(since[seller]), config.num_days, random)
        is_early = is_abnormal & ~_later(is_abnormal, TAKEOVER_DAYS)
        is_abnormal[burst] &= random.random((len(burst), config.num_days)) < config.burst_days
        without = burst[~is_abnormal[burst].any(axis=1)]
        is_abnormal[without, since[without]] = True
        moves = random.random(count) < config.moving_share
        moved = np.where(moves, random.integers(np.maximum(opened, 0) + 1, config.num_days + 1), config.num_days)
        missed, false = random.random(count) < config.missed_labels, random.random(count) < config.false_labels
        label = np.where(kind > 0, ~missed, false).astype(np.int64)
        return cls(kind, since, opened, is_abnormal, is_early, moved, label)

    def are(self, *kinds: str) -> NDArray[np.bool_]:
        """Which sellers are of these kinds."""
        return np.isin(self.kind, [KINDS.index(kind) for kind in kinds])


def _episodes(since: int, num_days: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """The days of one relapsing seller."""
    is_abnormal, day = np.zeros(num_days, np.bool_), since
    while day < num_days:
        length = int(random.integers(*EPISODE_DAYS))
        is_abnormal[day : day + length] = True
        day += length + int(random.integers(*PAUSE_DAYS))
    return is_abnormal


def _later(days: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The same days, so many later."""
    later = np.zeros_like(days)
    later[:, by:] = days[:, :-by]
    return later
