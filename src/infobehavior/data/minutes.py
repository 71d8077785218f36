"""A folder of minute tokens: what is in it, and which of its daily files a window needs."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infobehavior.artefacts import DEFINITION_FILE, read_json, refuse_interrupted
from infobehavior.data.clock import day_bounds
from infobehavior.data.schema import Schema, parse_schema
from infobehavior.errors import InputError

KIND = "minutes"
FORMAT = 1
SUMMARY_FILE = "_summary.json"
PARTITION_FILE = "minutes.parquet"


@dataclass(frozen=True)
class MinuteTable:
    """Minutes on disk, one file a local day.

    Attributes:
        path: the folder.
        schema: what decided the tokens.
        hash: of the schema's definition.
        entity_type: BIGINT or VARCHAR.
        days: the local days that have events, ascending.
    """

    path: Path
    schema: Schema
    hash: str
    entity_type: str
    days: tuple[date, ...]

    def file(self, day: date) -> Path:
        """The file of a local day."""
        return partition_file(self.path, day)

    def files(self, first_minute: int | None = None, end_minute: int | None = None) -> list[str]:
        """The files that can hold the UTC epoch minutes [first_minute, end_minute), by ascending day.

        Args:
            first_minute: no lower bound by default.
            end_minute: no upper bound by default.
        """
        found = []
        for day in self.days:
            first, end = day_bounds(day, self.schema.time.time_zone)
            if (first_minute is None or end > first_minute) and (end_minute is None or first < end_minute):
                found.append(str(self.file(day)))
        return found


def partition_file(folder: Path, day: date) -> Path:
    """Where the minutes of a local day are."""
    return folder / f"ds={day.isoformat()}" / PARTITION_FILE


def open_minutes(path: str | Path) -> MinuteTable:
    """Open a folder of minutes.

    Raises:
        InputError: it isn't one, it has no days, or its schema was changed after it was written.
    """
    folder = Path(path)
    table = read_definition(folder)
    refuse_interrupted(folder)
    if not table.days:
        raise InputError(f"{folder} has no days (ds=.../{PARTITION_FILE}); run `infobehavior aggregate` again")
    return table


def read_definition(folder: Path) -> MinuteTable:
    """Like `open_minutes`, of a folder that may have no days yet."""
    what = "a folder of minutes"
    definition = read_json(folder / DEFINITION_FILE, what)
    if not isinstance(definition, dict) or definition.get("kind") != KIND:
        kind = definition.get("kind") if isinstance(definition, dict) else None
        raise InputError(f"{folder} is not {what}: its {DEFINITION_FILE} says kind = {kind!r}")
    if definition.get("format") != FORMAT:
        raise InputError(
            f"{folder} has format {definition.get('format')!r}, this version reads {FORMAT}; aggregate again"
        )
    schema = parse_schema(definition.get("schema"), str(folder / DEFINITION_FILE))
    if definition.get("hash") != schema.hash:
        raise InputError(
            f"{folder / DEFINITION_FILE} was edited: it records hash {definition.get('hash')}, but its schema has "
            f"{schema.hash}; aggregate again"
        )
    return MinuteTable(folder, schema, schema.hash, str(definition.get("entity_type")), days_of(folder))


def hash_of_day(minutes: MinuteTable, day: date) -> str:
    """Tells the minutes of a local day from others; equal events make equal bytes, in whatever order they came.

    Raises:
        InputError: the file can't be read.
    """
    try:
        with minutes.file(day).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{minutes.file(day)} can't be read ({error.strerror or error}); run `infobehavior aggregate` again"
        ) from None


def num_events_of(file: Path) -> int | None:
    """Events of a day's minutes; None where the file isn't there or is damaged."""
    try:
        column = pq.read_table(file, columns=["num_events"], partitioning=None)["num_events"]
        return int(pc.sum(column).as_py() or 0)
    except (OSError, KeyError, pa.ArrowException):
        return None


def days_of(folder: Path) -> tuple[date, ...]:
    """The local days that a folder has minutes of, ascending."""
    return days_that_have(folder, PARTITION_FILE)


def days_that_have(folder: Path, file_name: str) -> tuple[date, ...]:
    """The local days of which a folder has such a file, ascending.

    Raises:
        InputError: it has a folder that isn't a day.
    """
    return tuple(sorted(day_of_name(folder, file.parent.name) for file in folder.glob(f"ds=*/{file_name}")))


def day_of_name(folder: Path, name: str) -> date:
    """The local day that a name in a folder tells, ds=YYYY-MM-DD.

    Raises:
        InputError: it isn't a day, or is written otherwise, so that it would be looked for elsewhere.
    """
    text = name.removeprefix("ds=")
    with suppress(ValueError):
        if (day := date.fromisoformat(text)).isoformat() == text:
            return day
    raise InputError(f"{folder} has {name}, which isn't a day, ds=YYYY-MM-DD: remove or rename it")
