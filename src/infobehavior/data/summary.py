"""What became of the rows of a log: for `_summary.json` and for the terminal."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from infobehavior.errors import one_line

EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Replaced:
    """What became of the days that a folder of minutes had before.

    Attributes:
        num_days: days that were replaced, each of them whole.
        num_events_before: events that those days held.
        num_events_now: events that they hold now.
        num_days_left: other days; they stay as they were.
    """

    num_days: int = 0
    num_events_before: int = 0
    num_events_now: int = 0
    num_days_left: int = 0

    def lines(self) -> list[str]:
        """For the terminal."""
        lines = []
        if self.num_days:
            lines.append(
                f"{self.num_days:,} days replaced older ones, which held {self.num_events_before:,} events and now "
                f"hold {self.num_events_now:,}; a day is replaced whole, so give all events of a local day together"
            )
        if self.num_days_left:
            lines.append(f"{self.num_days_left:,} other days that were there stay as they were")
        return lines


@dataclass(frozen=True)
class Summary:
    """What became of a log.

    Attributes:
        path: the folder of minutes.
        num_read: rows of the log, malformed ones too.
        num_kept: events that are in the minutes.
        num_duplicates: rows that were dropped because they repeat another (on request only).
        quarantined: rows set aside, by reason.
        num_unknown: events kept whose behavior the schema doesn't list.
        unknown_behaviors: the most frequent of those behaviors, with their counts.
        num_minutes: rows written.
        days: local days written, ascending.
        replaced: what became of older days.
        examples: a few rows of each quarantine reason, as text.
    """

    path: Path
    num_read: int
    num_kept: int
    num_duplicates: int
    quarantined: dict[str, int]
    num_unknown: int
    unknown_behaviors: dict[str, int]
    num_minutes: int
    days: tuple[date, ...]
    replaced: Replaced
    examples: dict[str, tuple[str, ...]] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """What `_summary.json` records; the same for the same rows in whatever order and format."""
        return {
            "events_read": self.num_read,
            "events_kept": self.num_kept,
            "duplicates_dropped": self.num_duplicates,
            "quarantined": self.quarantined,
            "unknown_behavior_events": self.num_unknown,
            "unknown_behaviors": self.unknown_behaviors,
            "minutes": self.num_minutes,
            "days": len(self.days),
            "first_day": self.days[0].isoformat(),
            "last_day": self.days[-1].isoformat(),
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        lines = [
            *warning_lines(self.quarantined, self.num_read),
            f"{self.num_read:,} events read, {self.num_kept:,} kept: {self.num_minutes:,} minutes in {self.path}",
            f"{len(self.days):,} days with events, {self.days[0]} to {self.days[-1]}",
            *self.replaced.lines(),
        ]
        if self.num_duplicates:
            lines.append(f"{self.num_duplicates:,} duplicate rows dropped")
        lines += quarantine_lines(self.quarantined, self.examples)
        if self.num_unknown:
            names = ", ".join(f"{name!r} ({count:,})" for name, count in self.unknown_behaviors.items())
            share = self.num_unknown / self.num_kept
            lines.append(f"{self.num_unknown:,} events ({share:.2%}) have a behavior outside the schema: {names}")
        return lines


def warning_lines(quarantined: dict[str, int], num_read: int) -> list[str]:
    """What can't be meant, for the top of the terminal: most rows are set aside for one reason."""
    return [
        f"WARNING: {count:,} of {num_read:,} rows are set aside: {reason}"
        for reason, count in quarantined.items()
        if count > num_read / 2
    ]


def quarantine_lines(quarantined: dict[str, int], examples: dict[str, tuple[str, ...]]) -> list[str]:
    """What was set aside, with examples, for the terminal."""
    lines = []
    for reason, count in quarantined.items():
        lines.append(f"set aside: {count:,} rows, {reason}")
        lines += [f"    {_shortened(one_line(example))}" for example in examples.get(reason, ())]
    return lines


def _shortened(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else text[: EXAMPLE_CHARACTERS - 3] + "..."
