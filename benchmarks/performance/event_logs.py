"""Generates event logs of any size, the same rows whatever the machine and its threads.

Each value is a hash of the row's number, so nothing depends on the order in which threads work. What the logs look
like follows real ones (commits in 67 public repositories: 6.0M events of 22,364 accounts; flights and purchases):

- `BURSTS`: the r-th most active entity has a share of 1/r (100,000 entities for 10M events, 1M for 100M); at 100M
  events the first has 5M. Events come in bursts within a minute: half of the minutes have one event and one in ten has
  six or more, up to 100 (the commits: median 1, 90 % 5, 99 % 43; 3.5 a minute on average). A minute has 1.7 behaviors
  on average (the commits: 1.4). The most active entities have several bursts a minute. One burst of several events in
  30 has two locations.
- `SPARSE`: entities are equally active and have one event a minute, as the flights do (1.00). It is the worst case of
  an aggregation: the result has as many rows as the log.

Both have 30 behaviors, of which the first makes up a quarter, 200 locations (2 % of the events have none), and 5 % of
failures. They last 30 days, one file a day, sorted by time.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb

NUM_DAYS = 30
EVENTS_PER_ENTITY = 100
FIRST_DAY = "2024-01-01"
NUM_LOCATIONS = 200
MAX_BURST = 100
FAILURE = "failure"

BEHAVIORS = (
    *("view", "search", "log_in", "post", "edit", "reply", "like", "follow", "message", "upload", "download", "share"),
    *("pay", "order", "cancel", "refund", "log_out", "register", "report", "block", "invite", "join", "leave", "rate"),
    *("subscribe", "verify", "change_name", "change_mail", "change_card", "change_password"),
)

DRAWS = ("size", "entity", "minute", "two locations", "two", "other behavior", "behavior", "moment", "place", "outcome")


@dataclass(frozen=True)
class Workload:
    """How the events of a log are spread over entities and minutes.

    Attributes:
        name: of the workload.
        bursts: True makes a few entities far more active than the others, and their events come in bursts.
    """

    name: str
    bursts: bool


BURSTS = Workload("bursts", True)
SPARSE = Workload("sparse", False)


def write_event_log(folder: Path, num_events: int, workload: Workload) -> None:
    """Write a log, a day at a time: `entity_id, timestamp, behavior, location, outcome`."""
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for day in range(NUM_DAYS):
            first, end = (num_events * edge // NUM_DAYS for edge in (day, day + 1))
            connection.execute(
                f"COPY ({_day_sql(day, end - first, num_events, workload)}) "
                f"TO '{folder / f'events-{day:02}.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
            )


def _day_sql(day: int, num_events_of_day: int, num_events: int, workload: Workload) -> str:
    """Bursts, each of an entity and a minute; then the events of each."""
    num_entities = max(1, num_events // EVENTS_PER_ENTITY)
    size = f"least({MAX_BURST}, greatest(1, floor(0.5 / {_random('size', 'burst')})))" if workload.bursts else "1"
    uniform = _random("entity", "burst")
    rank = f"{num_entities} ** {uniform}" if workload.bursts else f"{num_entities} * {uniform}"
    other_behavior = f"{_random('other behavior', 'event')} < 0.3"
    event_behavior = f"CASE WHEN {other_behavior} THEN {_behavior('event')} ELSE {_behavior('burst')} END"
    event_location = f"(home + (has_two AND {_random('two', 'event')} < 0.5)::INTEGER) % {NUM_LOCATIONS}"
    return f"""
        WITH bursts AS (
            SELECT burst, {size}::INTEGER AS size, sum({size}::INTEGER) OVER (ORDER BY burst) AS end_event,
                floor({rank})::BIGINT AS rank,
                floor(1440 * {_random("minute", "burst")})::BIGINT AS minute,
                {_random("two locations", "burst")} < 0.033 AS has_two
            FROM (SELECT {day}::BIGINT << 36 | i AS burst FROM range({num_events_of_day}) numbers(i))
        ), events AS (
            SELECT *, ({day}::BIGINT << 36 | (end_event - size + unnest(range(size)))) AS event,
                hash(-rank) % {NUM_LOCATIONS} AS home
            FROM bursts WHERE end_event - size < {num_events_of_day}
        )
        SELECT (hash(rank) >> 2)::BIGINT AS entity_id,
            TIMESTAMPTZ '{FIRST_DAY} 00:00:00+00' + to_days({day})
                + to_microseconds(((minute + {_random("moment", "event")}) * 60e6)::BIGINT) AS timestamp,
            {list(BEHAVIORS)}[1 + ({event_behavior})] AS behavior,
            CASE WHEN {_random("place", "event")} >= 0.02 THEN 'location ' || ({event_location}) END AS location,
            CASE WHEN {_random("outcome", "event")} < 0.05 THEN '{FAILURE}' ELSE 'success' END AS outcome
        FROM events WHERE (event & {2**36 - 1}) < {num_events_of_day}
        ORDER BY timestamp, event
    """


def _random(what: str, number: str) -> str:
    """SQL of a number in (0, 1), the same for the same row, independent of the row's other numbers."""
    return f"(((hash({number} * {len(DRAWS)} + {DRAWS.index(what)}) >> 11) + 0.5) / 2e0 ** 53)"


def _behavior(number: str) -> str:
    """SQL of the index of a behavior; the first have most of the events."""
    return f"floor({len(BEHAVIORS)} * ({_random('behavior', number)}) ** 2.6)::INTEGER"
