"""A simulated log of equally active accounts, over days or over years."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

FIRST_DAY = date(2024, 1, 1)
WINDOW_DAYS = 30
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Log:
    """A simulated log.

    Attributes:
        num_entities: accounts.
        num_events: events of each.
        num_days: over how many days they spread, from FIRST_DAY on.
        active_seconds: of each day, the seconds from noon on in which things happen.
    """

    num_entities: int
    num_events: int
    num_days: int = WINDOW_DAYS
    active_seconds: int = SECONDS_PER_DAY

    @property
    def total(self) -> int:
        """Events of all accounts."""
        return self.num_entities * self.num_events

    @property
    def last_day(self) -> date:
        """The last day with events."""
        return FIRST_DAY + timedelta(days=self.num_days - 1)

    def write(self, events: Path) -> None:
        """Write it, sorted by time; each number is a hash of the event's own, so the log is always the same."""
        start = int(datetime.combine(FIRST_DAY, datetime.min.time(), UTC).timestamp())
        offset = 0 if self.active_seconds == SECONDS_PER_DAY else SECONDS_PER_DAY // 2
        share = "(hash(i * 10 + {0}) % 1000000007) / 1000000007.0"
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
            connection.execute(
                f"""COPY (
                    SELECT i % {self.num_entities} AS entity_id,
                        to_timestamp({start} + {offset}
                            + {SECONDS_PER_DAY} * floor({share.format(0)} * {self.num_days})
                            + floor({share.format(1)} * {self.active_seconds})) AS timestamp,
                        'behavior ' || floor(20 * pow({share.format(2)}, 2))::INT AS behavior,
                        'place ' || floor(10 * pow({share.format(3)}, 2))::INT AS location,
                        CASE WHEN {share.format(4)} < 0.02 THEN 'failure' ELSE 'success' END AS outcome
                    FROM range({self.total}) t(i) ORDER BY timestamp, i
                ) TO '{events}' (FORMAT parquet)"""
            )

    def write_moments(self, target: Path) -> None:
        """The end of each run of WINDOW_DAYS days, for each account: together all events, each once."""
        first_end = FIRST_DAY + timedelta(days=WINDOW_DAYS)
        num_windows = -(-self.num_days // WINDOW_DAYS)
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT e.range AS entity_id, DATE '{first_end}' + ({WINDOW_DAYS} * w.range)::INT AS as_of "
                f"FROM range({self.num_entities}) e, range({num_windows}) w) TO '{target}' (FORMAT parquet)"
            )
