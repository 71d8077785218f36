"""A block of simulated sellers: their habits, what becomes of abnormal ones, and all their events."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.clock import SECONDS_PER_MINUTE
from infobehavior.market.config import MarketConfig
from infobehavior.market.habits import Habits, Indices, Numbers
from infobehavior.market.operations import CHANGES, MODIFY_PASSWORD, OPEN_SHOP, OPERATIONS, REGISTER
from infobehavior.market.products import Products, draw_products
from infobehavior.market.sellers import Sellers
from infobehavior.market.sessions import SECONDS_PER_HOUR, Events, bursts, chance_to_fail, work

PROMOTIONS = {(6, 18): 2.0, (8, 18): 1.5, (9, 9): 1.6, (11, 11): 3.0, (12, 12): 2.0}
"""Activity on days of promotion, by month and day; the day before has half of what they add."""

HOLIDAYS = {(10, day): 0.6 for day in range(1, 8)}
"""Likewise, in the week of the national holiday."""

USUAL_CHANGES = {MODIFY_PASSWORD: 0.01}
"""How often a day everybody does what isn't a part of sessions."""

NIGHT = (0, 6)
"""Local hours between which abnormal tools are started; normal ones are in the daytime."""


@dataclass(frozen=True)
class Block:
    """Some sellers, their events and their products, by seller and time.

    Attributes:
        sellers: a row each.
        events: of all of them.
        products: of all of them.
    """

    sellers: Sellers
    events: Events
    products: Products


def block_sellers(config: MarketConfig, number: int, count: int) -> Sellers:
    """The sellers of a block, without what they do."""
    return Sellers.draw(config, count, np.random.default_rng([config.seed, number, 0]))


def simulate_block(config: MarketConfig, number: int, count: int) -> Block:
    """Simulate a block; it depends on the configuration and its number alone."""
    sellers = block_sellers(config, number, count)
    random = np.random.default_rng([config.seed, number, 1])
    own = Habits.draw(config, count, random)
    takers = own.blended(Habits.draw(config, count, random), config.strength, random)
    habits = own.followed_by(takers).followed_by(own.elsewhere(config, random))
    is_other = sellers.is_abnormal & sellers.are("bought", "relapsing")[:, None]
    has_moved = np.arange(config.num_days) >= sellers.moved[:, None]
    row = np.arange(count)[:, None] + count * np.where(is_other, 1, 2 * has_moved)
    failure = np.where(is_other, config.failure_factor, 1.0)
    is_open = np.arange(config.num_days) > sellers.opened[:, None]
    mean = is_open * habits.sessions_per_day[row] * _seasons(config) * _weekdays(config, habits, row)
    parts = [
        work(habits, row, failure, random.poisson(mean), random),
        bursts(habits, row, random.poisson(is_open * habits.bursts_per_day[row]), 1.0, random),
        bursts(_at_night(habits, random), row, _abnormal_bursts(sellers, random), config.burst_size, random),
        _changes(habits, row, sellers, is_open, failure, config, random),
        _openings(habits, row, sellers, random),
    ]
    events = _camouflaged(Events.joined(parts), sellers, random)
    order = np.lexsort((events.operation, events.second, events.day, events.seller))
    events = events.take(order)
    return Block(
        sellers, events, draw_products(config, sellers, events, np.random.default_rng([config.seed, number, 2]))
    )


def _seasons(config: MarketConfig) -> Numbers:
    """Activity on each day: a slow wave over the year, promotions and holidays."""
    days = [config.first_day + timedelta(days=i) for i in range(config.num_days)]
    wave = 1 + 0.1 * np.sin(2 * np.pi * np.array([day.timetuple().tm_yday for day in days]) / 365.25)
    special = []
    for day in days:
        eve = PROMOTIONS.get(((day + timedelta(days=1)).month, (day + timedelta(days=1)).day), 1.0)
        special.append(HOLIDAYS.get((day.month, day.day), PROMOTIONS.get((day.month, day.day), (1 + eve) / 2)))
    seasons: Numbers = wave * np.array(special)
    return seasons


def _weekdays(config: MarketConfig, habits: Habits, row: Indices) -> Numbers:
    weekday = (config.first_day.weekday() + np.arange(config.num_days)) % 7
    return habits.weekday[row, weekday]


def _at_night(habits: Habits, random: np.random.Generator) -> Habits:
    """The same habits, but tools are started at night."""
    return replace(habits, burst_hour=random.uniform(*NIGHT, len(habits.burst_hour)))


def _abnormal_bursts(sellers: Sellers, random: np.random.Generator) -> Indices:
    """One to three on each abnormal day of sellers whose tools are."""
    is_burst = sellers.is_abnormal & sellers.are("burst")[:, None]
    return np.where(is_burst, random.integers(1, 4, is_burst.shape), 0)


def _changes(
    habits: Habits,
    row: Indices,
    sellers: Sellers,
    is_open: NDArray[np.bool_],
    failure: Numbers,
    config: MarketConfig,
    random: np.random.Generator,
) -> Events:
    """Verifications, and changes of passwords and profiles: many on the first days of each taking over."""
    is_early = sellers.is_early & sellers.are("bought", "relapsing")[:, None]
    parts = []
    for place, (name, weight) in enumerate(CHANGES.items()):
        usual = USUAL_CHANGES.get(name, 0.0) + habits.changes_per_day[row, place]
        counts = random.poisson(is_open * (usual + np.where(is_early, config.changes * weight, 0)))
        seller, day = (np.repeat(x.ravel(), counts.ravel()) for x in np.indices(counts.shape))
        rows = row[seller, day]
        hour = np.mod(habits.peaks[rows, 0] + random.normal(0, 1, len(rows)), 24)
        operation = np.full(len(rows), OPERATIONS.index(name))
        failed = random.random(len(rows)) < chance_to_fail(operation, failure[seller, day] * habits.failure[rows])
        parts.append(Events(seller, day, hour * SECONDS_PER_HOUR, operation, habits.city[rows, 0], failed))
    return Events.joined(parts)


def _openings(habits: Habits, row: Indices, sellers: Sellers, random: np.random.Generator) -> Events:
    """New sellers register, verify themselves and open their shop on one day, and begin to work on the next."""
    new = np.flatnonzero(sellers.opened >= 0)
    rows = row[new, sellers.opened[new]]
    start = random.uniform(8, 20, len(new)) * SECONDS_PER_HOUR
    parts = []
    for minutes, name in ((0, REGISTER), (3, "verify"), (20, OPEN_SHOP)):
        second = start + 60 * minutes * random.uniform(0.7, 1.5, len(new))
        operation = np.full(len(new), OPERATIONS.index(name))
        failed = random.random(len(new)) < chance_to_fail(operation, habits.failure[rows])
        parts.append(Events(new, sellers.opened[new], second, operation, habits.city[rows, 0], failed))
    return Events.joined(parts)


def _camouflaged(events: Events, sellers: Sellers, random: np.random.Generator) -> Events:
    """Camouflaged sellers do what they would have done, in another order: the minutes of a day exchange what was done.

    Only minutes at one and the same place and with as many events do, so that sums over sessions stay too. When they
    do something, from where, and what they do within a minute stays; what they do when is another thing.
    """
    is_theirs = sellers.are("camouflaged")[events.seller] & sellers.is_abnormal[events.seller, events.day]
    theirs = events.take(is_theirs)
    day = theirs.seller * (sellers.is_abnormal.shape[1] + 1) + theirs.day
    minute = (theirs.second // SECONDS_PER_MINUTE).astype(np.int64)
    in_time = np.lexsort((theirs.second, minute, day))
    theirs, day, minute = theirs.take(in_time), day[in_time], minute[in_time]
    is_first = (np.diff(day, prepend=-1) != 0) | (np.diff(minute, prepend=-1) != 0)
    first, of_minute = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    moved = np.arange(len(first))
    if len(first):
        city = theirs.city[first]
        at_one_place = np.flatnonzero(
            np.maximum.reduceat(theirs.city, first) == np.minimum.reduceat(theirs.city, first)
        )
        num_events = np.diff(first, append=len(day))
        alike = (num_events[at_one_place], city[at_one_place], day[first][at_one_place])
        shuffled = np.lexsort((random.random(len(at_one_place)), *alike))
        moved[at_one_place[shuffled]] = at_one_place[np.lexsort(alike)]
    there = first[moved[of_minute]]
    second = minute[there] * SECONDS_PER_MINUTE + theirs.second % SECONDS_PER_MINUTE
    exchanged = Events(theirs.seller, theirs.day, second, theirs.operation, theirs.city, theirs.failed)
    return Events.joined([events.take(~is_theirs), exchanged])
