"""Looks through a log before it is aggregated: when its events happened, and which days to read together."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NoReturn

import duckdb
import numpy as np

from infobehavior.data.cleaning import CleanEvents, quarantine_counts
from infobehavior.data.clock import (
    MICROSECONDS,
    MINUTES_PER_DAY,
    SECONDS_PER_MINUTE,
    day_of_number,
    local_minutes,
    parse_moment,
)
from infobehavior.data.events import EventSource
from infobehavior.data.schema import Schema
from infobehavior.errors import InputError

_SLOT_MINUTES = 15
_SLOT_MICROSECONDS = _SLOT_MINUTES * SECONDS_PER_MINUTE * MICROSECONDS


@dataclass(frozen=True)
class Survey:
    """What one pass over the times of a log tells.

    Attributes:
        num_rows: rows, without the duplicates that are dropped.
        first_day: the first local day that may have events, as days since 1970.
        events_of_day: how many events that day and each following one has at most; those near a midnight may be the
            other day's. None of a day that isn't wanted.
    """

    num_rows: int
    first_day: int
    events_of_day: Sequence[int | None]

    @property
    def days(self) -> frozenset[date]:
        """The local days that may have events."""
        return frozenset(
            day_of_number(self.first_day + i) for i, num_events in enumerate(self.events_of_day) if num_events
        )

    def only(self, days: Collection[date] | None) -> "Survey":
        """The same of some days alone, which are read even if no event seems to be theirs; None wants all."""
        if days is None:
            return self
        counted = enumerate(self.events_of_day, start=self.first_day)
        counts = [max(1, count or 0) if day_of_number(number) in days else None for number, count in counted]
        return replace(self, events_of_day=counts)


def survey_events(
    connection: duckdb.DuckDBPyConnection, source: EventSource, clean: CleanEvents, schema: Schema
) -> Survey:
    """Count the events of each day.

    Raises:
        InputError: no event is usable.
    """
    if not connection.execute(f"SELECT 1 FROM ({clean.sql}) WHERE usable LIMIT 1").fetchall():
        refuse_unusable(source.description, count_quarantined(connection, source, clean))
    return survey_of(count_slots(connection, clean, schema), schema)


def count_slots(connection: duckdb.DuckDBPyConnection, clean: CleanEvents, schema: Schema) -> dict[int | None, int]:
    """Rows by when they happened: the quarter hour since the first moment that the schema believes, None for others."""
    earliest, latest = _believed(schema)
    return dict(
        connection.execute(
            f"SELECT CASE WHEN microsecond >= {earliest} AND microsecond < {latest} "
            f"THEN (microsecond - ({earliest})) // {_SLOT_MICROSECONDS} END AS slot, count(*) "
            f"FROM ({clean.sql}) GROUP BY ALL"
        ).fetchall()
    )


def survey_of(count_of_slot: Mapping[int | None, int], schema: Schema) -> Survey:
    """What `count_slots` of a log tells; one of them is usable."""
    found = [(slot, count) for slot, count in count_of_slot.items() if slot is not None]
    slots, counts = np.array(found, dtype=np.int64).T
    earliest, _ = _believed(schema)
    refuse_unbelieved(earliest + int(slots.min()) * _SLOT_MICROSECONDS, schema)
    refuse_unbelieved(earliest + int(slots.max()) * _SLOT_MICROSECONDS, schema)
    minutes = earliest // (SECONDS_PER_MINUTE * MICROSECONDS) + slots * _SLOT_MINUTES
    days = local_minutes(minutes, schema.time.time_zone) // MINUTES_PER_DAY
    # A day of margin: a slot may lie across a midnight.
    first_day = int(days.min()) - 1
    per_day = np.zeros(int(days.max()) - first_day + 2, dtype=np.int64)
    np.add.at(per_day, days - first_day, counts)
    return Survey(sum(count_of_slot.values()), first_day, per_day.tolist())


def refuse_unbelieved(microsecond: int, schema: Schema) -> None:
    """Refuse a time of a usable event that the schema doesn't believe, as none should be.

    DuckDB doesn't look at times of which a file's statistics say that all are believed; of a damaged file they may lie.

    Raises:
        InputError: it is such a time.
    """
    earliest, latest = _believed(schema)
    if not earliest <= microsecond < latest:
        raise InputError(
            "the log has a time that the statistics of its own file exclude: a file is damaged; write it again"
        )


def _believed(schema: Schema) -> tuple[int, int]:
    """The microseconds [earliest, latest) that a schema believes."""
    zone = schema.time.time_zone
    return parse_moment(schema.time.earliest, zone), parse_moment(schema.time.latest, zone)


def refuse_unusable(description: str, quarantined: Mapping[str, int]) -> NoReturn:
    """Say why no event of a log is usable.

    Raises:
        InputError: always.
    """
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
    raise InputError(f"{description} has no usable event: {reasons}")


def count_quarantined(connection: duckdb.DuckDBPyConnection, source: EventSource, clean: CleanEvents) -> dict[str, int]:
    """Rows set aside, by reason."""
    return quarantine_counts(count_reasons(connection, clean).items(), source.num_malformed)


def count_reasons(connection: duckdb.DuckDBPyConnection, clean: CleanEvents) -> dict[str, int]:
    """The same without malformed rows, in any order."""
    return dict(
        connection.execute(f"SELECT reason, count(*) FROM ({clean.sql}) WHERE NOT usable GROUP BY reason").fetchall()
    )


def chunks(survey: Survey, num_events: int) -> Iterator[range]:
    """Consecutive days (since 1970) with at most so many events together, or one day with more."""
    first, so_far = survey.first_day, 0
    for day, num_events_of_day in enumerate(survey.events_of_day, start=survey.first_day):
        is_wanted = num_events_of_day is not None
        if so_far and not (is_wanted and so_far + (num_events_of_day or 0) <= num_events):
            yield range(first, day)
            first, so_far = day, 0
        if is_wanted:
            so_far += num_events_of_day or 0
        else:
            first = day + 1
    if so_far:
        yield range(first, survey.first_day + len(survey.events_of_day))
