"""What aggregation asks of a log, whichever engine reads it."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

from infobehavior.data.cleaning import CleanEvents
from infobehavior.data.day_files import Accept
from infobehavior.data.events import EventSource
from infobehavior.data.survey import Survey

EVENTS_PER_CHUNK = 4_000_000
"""Consecutive days are read and sorted together, up to so many events, and at least one day.

A log that isn't sorted by time is scanned once a chunk; one that is, once in all. DuckDB needs about 40 bytes an event
to sort a chunk, or spills it.
"""

NUM_UNKNOWN_SHOWN = 20


@dataclass
class Written:
    """What became of the usable events.

    Attributes:
        rows_of_day: minutes of each day.
        num_kept: usable events.
        num_unknown: those whose behavior the schema doesn't list.
    """

    rows_of_day: dict[date, int] = field(default_factory=dict)
    num_kept: int = 0
    num_unknown: int = 0


class EventLog(Protocol):
    """A log that was opened with a schema."""

    @property
    def source(self) -> EventSource:
        """What was found in its files."""

    @property
    def clean(self) -> CleanEvents:
        """The SQL that reads it."""

    def survey(self) -> Survey:
        """When its events happened.

        Raises:
            InputError: none is usable.
        """

    def write_minutes(self, survey: Survey, folder: Path, accept: Accept) -> Written:
        """Write all days that are wanted, up to the first that isn't accepted."""

    def reasons(self) -> dict[str, int]:
        """Rows set aside, by reason, without malformed ones."""

    def examples(self) -> dict[str, tuple[str, ...]]:
        """A few rows of each of these reasons."""

    def unknown_behaviors(self) -> dict[str, int]:
        """The behaviors that the schema doesn't list, the most frequent first, and not too many."""
