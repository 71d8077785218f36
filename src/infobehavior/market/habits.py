"""Habits of simulated sellers: hours, weekdays, pace, mix and order of operations, tools, places."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from infobehavior.market.config import MarketConfig
from infobehavior.market.operations import (
    BURST_OPERATIONS,
    CHANGES,
    CITIES,
    CITY_WEIGHTS,
    OPERATIONS,
    REGULAR,
    TYPES,
    mix_weights,
)

MAX_STAFF = 3
MAX_PEAKS = 3
HOURS_BETWEEN_SELLERS = 1.2
"""Standard deviation of sellers' peaks around those of their type."""

NIGHT_PEAKS = (2.5, 1.0)
"""Mean and standard deviation of the peaks of those who work at night."""

RESTLESS_SPREAD = 1.0
"""Standard deviation of the logarithm of how often restless sellers verify or change something."""

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Habits:
    """How some sellers work, a row each.

    Attributes:
        sessions_per_day: on a mean day.
        weekday: activity on each day of the week, Mondays first; 1 on average.
        peaks: local hours of the day around which sessions begin, each as often.
        peak_width: standard deviation around them, in hours.
        ops_per_session: of the median session.
        mix: shares of the regular operations.
        usual_next: what usually follows each regular operation.
        habit: how often it does.
        gap_seconds: median time between two operations.
        city: place of each member of the staff; the first one works most.
        staff: shares of their sessions.
        failure: odds that operations fail, of the median seller's.
        bursts_per_day: of a tool.
        burst_size: operations of the median burst.
        burst_op: what the tool does.
        burst_hour: local hour at which it is started.
        changes_per_day: of each of `CHANGES`, by those who do it more often than others.
    """

    sessions_per_day: Numbers
    weekday: Numbers
    peaks: Numbers
    peak_width: Numbers
    ops_per_session: Numbers
    mix: Numbers
    usual_next: Indices
    habit: Numbers
    gap_seconds: Numbers
    city: Indices
    staff: Numbers
    failure: Numbers
    bursts_per_day: Numbers
    burst_size: Numbers
    burst_op: Indices
    burst_hour: Numbers
    changes_per_day: Numbers

    @classmethod
    def draw(cls, config: MarketConfig, count: int, random: np.random.Generator) -> Self:
        """Habits of normal sellers."""
        kind = random.choice(len(TYPES), count, p=[seller_type.share for seller_type in TYPES])
        weekend = np.array([seller_type.weekend for seller_type in TYPES])[kind] * random.lognormal(0, 0.3, count)
        weekday = np.column_stack([np.ones((count, 5)), weekend, weekend]) * random.lognormal(0, 0.25, (count, 7))
        has_tool = random.random(count) < config.tool_share
        return cls(
            sessions_per_day=random.lognormal(np.log(config.sessions_per_day), config.sessions_spread, count),
            weekday=weekday / weekday.mean(axis=1, keepdims=True),
            peaks=_peaks(config, kind, random),
            peak_width=random.uniform(0.5, 1.5, count),
            ops_per_session=random.lognormal(np.log(config.ops_per_session), 0.5, count),
            mix=_mixes(config, kind, random),
            usual_next=_usual_next(count, random),
            habit=np.clip(random.normal(config.habit, 0.1, count), 0, 0.95),
            gap_seconds=random.lognormal(np.log(25), 0.5, count),
            city=random.choice(len(CITIES), (count, MAX_STAFF), p=CITY_WEIGHTS / CITY_WEIGHTS.sum()),
            staff=_staff(config, count, random),
            failure=random.lognormal(0, config.failure_spread, count),
            bursts_per_day=np.where(has_tool, random.lognormal(np.log(0.15), 0.6, count), 0),
            burst_size=random.lognormal(np.log(60), 0.7, count),
            burst_op=random.choice([OPERATIONS.index(name) for name in BURST_OPERATIONS], count),
            burst_hour=random.uniform(7, 22, count),
            changes_per_day=_changes_per_day(config, count, random),
        )

    def blended(self, other: "Habits", strength: float, random: np.random.Generator) -> "Habits":
        """Habits of accounts that others took over: in other cities, with the others' staff, rhythm, pace and routine.

        Numbers move by `strength`, the mix by half as much; of what can't move by a part, each is theirs as often. The
        account's tools stay, how often the usual next operation is done, and how often it fails and is changed: what
        becomes of the last two has parameters of its own.
        """
        count = len(self.habit)
        taken = random.random((count, len(REGULAR))) < strength
        changes: dict[str, Any] = {
            name: _towards(getattr(self, name), getattr(other, name), strength)
            for name in ("sessions_per_day", "ops_per_session", "gap_seconds", "peak_width", "weekday")
        }
        changes["peaks"] = np.where(random.random((count, MAX_PEAKS)) < strength, other.peaks, self.peaks)
        changes["mix"] = (1 - strength / 2) * self.mix + strength / 2 * other.mix
        changes["usual_next"] = np.where(taken, other.usual_next, self.usual_next)
        changes |= {"city": _other_cities(self.city, random), "staff": other.staff}
        return Habits(**{field.name: changes.get(field.name, getattr(self, field.name)) for field in fields(self)})

    def elsewhere(self, config: MarketConfig, random: np.random.Generator) -> "Habits":
        """The same habits in other cities, with another staff."""
        staff = _staff(config, len(self.habit), random)
        return replace(self, city=_other_cities(self.city, random), staff=staff)

    def followed_by(self, other: "Habits") -> "Habits":
        """These rows and then others."""
        return Habits(
            *(np.concatenate([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self))
        )


def _towards(numbers: Numbers, others: Numbers, strength: float) -> Numbers:
    """By a part of the way, of positive numbers in logarithms."""
    moved: Numbers = numbers ** (1 - strength) * others**strength
    return moved


def _peaks(config: MarketConfig, kind: Indices, random: np.random.Generator) -> Numbers:
    """A seller's peaks are those of its type, moved together and each; types with fewer repeat some."""
    of_type = np.array([np.resize(seller_type.peaks, MAX_PEAKS) for seller_type in TYPES])[kind]
    together = random.normal(0, HOURS_BETWEEN_SELLERS, (len(kind), 1))
    is_night = random.random((len(kind), 1)) < config.night_share
    of_type = np.where(is_night, random.normal(*NIGHT_PEAKS, of_type.shape), of_type)
    return np.mod(of_type + together + random.normal(0, 0.5, (len(kind), MAX_PEAKS)), 24)


def _mixes(config: MarketConfig, kind: Indices, random: np.random.Generator) -> Numbers:
    """Dirichlet around the mix of the type."""
    weights = np.array([mix_weights(seller_type) for seller_type in TYPES])[kind]
    drawn = random.gamma(config.mix_concentration * weights) + 1e-9
    mixes: Numbers = drawn / drawn.sum(axis=1, keepdims=True)
    return mixes


def _usual_next(count: int, random: np.random.Generator) -> Indices:
    """A routine of each seller: all regular operations in an order of its own, again and again."""
    order = random.permuted(np.tile(np.arange(len(REGULAR)), (count, 1)), axis=1)
    usual = np.empty_like(order)
    np.put_along_axis(usual, order, np.roll(order, -1, axis=1), axis=1)
    return usual


def _changes_per_day(config: MarketConfig, count: int, random: np.random.Generator) -> Numbers:
    """Of each of `CHANGES`, by those who do it often; whoever verifies often need not change passwords often."""
    is_restless = random.random((count, len(CHANGES))) < config.restless_share
    return is_restless * random.lognormal(np.log(config.restless_changes), RESTLESS_SPREAD, is_restless.shape)


def _other_cities(city: Indices, random: np.random.Generator) -> Indices:
    """As many cities for each row, none of which is one of its own."""
    is_own = (city[:, :, None] == np.arange(len(CITIES))).any(axis=1)
    chances = np.cumsum(np.where(is_own, 0, CITY_WEIGHTS), axis=1)
    drawn = random.random(city.shape) * chances[:, -1:]
    others: Indices = (drawn[:, :, None] >= chances[:, None, :]).sum(axis=2)
    return others


def _staff(config: MarketConfig, count: int, random: np.random.Generator) -> Numbers:
    """Shares of the staff; most sellers are alone."""
    several = random.random(count) < config.staff_share
    others = random.uniform(0.05, 0.4, (count, MAX_STAFF - 1)) * several[:, None]
    others[:, 1] *= random.random(count) < 0.5
    return np.column_stack([1 - others.sum(axis=1), others])
