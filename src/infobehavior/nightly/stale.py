"""Which embeddings of earlier days late events would change, whichever run brought them into the minutes.

A table keeps what the minutes of each day were when its last night ended. A night that was interrupted, or another
table's, may have made them anew since: the next night of this table finds the difference.
"""

import hashlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infobehavior.artefacts import read_json, write_json
from infobehavior.data.clock import MINUTES_PER_DAY, day_bounds
from infobehavior.data.ledger import Stamp
from infobehavior.data.minutes import days_of as days_of_minutes
from infobehavior.data.minutes import partition_file as minutes_file
from infobehavior.data.moments import end_of_day
from infobehavior.data.schema import Schema
from infobehavior.embedding.table import days_of

SEEN_FILE = "_minutes.json"


class _SeenDay(BaseModel):
    """The minutes of a day: what tells without reading them that they are the same, and what tells it surely."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: Stamp
    sha256: str


class SeenMinutes(BaseModel):
    """What the minutes of a table were, day by day; those before its first window are left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: dict[date, _SeenDay]

    @classmethod
    def read(cls, out: Path) -> "SeenMinutes | None":
        """What the last night of a table saw; None where there was none, or its file is damaged."""
        with suppress(ValueError):  # an InputError or a ValidationError
            return cls.model_validate(read_json(out / SEEN_FILE, "a table"))
        return None

    @classmethod
    def look(cls, minutes: Path, out: Path, window_days: int, before: "SeenMinutes | None") -> "SeenMinutes":
        """What they are now; those whose file hasn't changed aren't read."""
        first = min(days_of(out), default=date.max) - timedelta(days=window_days)
        known = before.days if before else {}
        return cls(days={day: _look(minutes, day, known) for day in days_of_minutes(minutes) if day >= first})

    def changed_since(self, before: "SeenMinutes") -> list[date]:
        """Days whose minutes are others, or are there only now or then; ascending."""
        hashes = [{day: seen.sha256 for day, seen in looked.days.items()} for looked in (before, self)]
        return sorted(day for day in hashes[0].keys() | hashes[1] if hashes[0].get(day) != hashes[1].get(day))

    def write(self, out: Path) -> None:
        """Keep it beside the table."""
        write_json(out / SEEN_FILE, self.model_dump(mode="json"))


def _look(minutes: Path, day: date, known: Mapping[date, _SeenDay]) -> _SeenDay:
    file = minutes_file(minutes, day)
    stamp = Stamp.of(file)
    if day in known and known[day].minutes == stamp:
        return known[day]
    with file.open("rb") as opened:
        return _SeenDay(minutes=stamp, sha256=hashlib.file_digest(opened, "sha256").hexdigest())


def stale_days(
    out: Path, changed: Collection[date], made: Collection[date], window_days: int, schema: Schema
) -> list[date]:
    """Days of a table that weren't made now, though minutes of their windows have changed; ascending."""
    bounds = [day_bounds(day, schema.time.time_zone) for day in changed]
    found = []
    for ds in days_of(out):
        end = end_of_day(ds, schema)
        start = end - window_days * MINUTES_PER_DAY
        if ds not in made and any(first < end and after > start for first, after in bounds):
            found.append(ds)
    return found
