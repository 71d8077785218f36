"""Small random event logs, their minutes as plain Python reads them, and a tiny encoder."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior import PretrainConfig, aggregate
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.data.schema import (
    ONE_TIME,
    PAPER_FAST,
    PAPER_SLOW,
    SET_SEPARATOR,
    Behavior,
    Columns,
    Failures,
    Schema,
    Time,
)

FIRST_DAY = datetime(2024, 3, 25, tzinfo=UTC)
NUM_DAYS = 12
TIME_ZONE = "Europe/Berlin"
"""Its clocks changed on 31 March 2024, within these days."""

BEHAVIORS = {"login": PAPER_FAST, "edit.page": PAPER_SLOW, "sign up": ONE_TIME, "log_in": PAPER_FAST}
PLACES = ("Berlin", "Köln", "Łódź", None)

TINY = {
    "num_steps": 5,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "min_count": 2,
    "num_threads": 1,
    "checkpoint_every": 2,
    "pairs": "anywhere",
    "encoder": {
        "window_days": 3,
        "num_layers": 1,
        "num_heads": 2,
        "head_dim": 6,
        "num_feature_maps": 4,
        "minute_dim": 8,
        "feedforward_dim": 16,
    },
}


@dataclass(frozen=True)
class Event:
    """One row of a log."""

    who: str | int
    at: datetime
    what: str
    place: str | None = None
    result: str = "ok"
    address: str | None = None


@dataclass
class Minute:
    """What an entity does in a minute."""

    behaviors: Counter = field(default_factory=Counter)
    num_failures: int = 0
    places: set = field(default_factory=set)
    addresses: set = field(default_factory=set)


def tiny_config(**changes):
    """A pre-training of a few steps; fields of the encoder may be given beside the others."""
    encoder = {name: changes.pop(name) for name in list(changes) if name in ENCODER_FIELDS}
    return PretrainConfig.model_validate(TINY | changes | {"encoder": TINY["encoder"] | encoder})


ENCODER_FIELDS = frozenset(type(PretrainConfig().encoder).model_fields)


def small_schema(behaviors: dict[str, Behavior] = BEHAVIORS, **columns) -> Schema:
    """The schema of the logs below."""
    named = {"entity": "who", "timestamp": "at", "behavior": "what", "location": "place", "outcome": "result"}
    return Schema(
        columns=Columns(**(named | {"extra": ["address"]} | columns)),
        time=Time(time_zone=TIME_ZONE),
        failures=Failures(outcomes=["no"]),
        behaviors=behaviors,
    )


def random_events(
    seed: int = 0, num_entities: int = 10, minutes_each: int = 25, behaviors=tuple(BEHAVIORS), days=NUM_DAYS
):
    """A log in which minutes have one event or several, failures, several places, and behaviors outside the schema."""
    draw = np.random.default_rng(seed)
    events = []
    for entity in range(num_entities):
        for minute in draw.integers(0, days * 1_440, minutes_each):
            for _ in range(1 + int(draw.integers(5)) * int(draw.integers(2))):
                events.append(
                    Event(
                        who=f"user {entity}",
                        at=FIRST_DAY + timedelta(minutes=int(minute), seconds=float(draw.integers(600)) / 10),
                        what=str(draw.choice([*behaviors, "?"] if draw.random() < 0.1 else behaviors)),
                        place=PLACES[draw.integers(len(PLACES))],
                        result="no" if draw.random() < 0.2 else "ok",
                        address=f"10.0.0.{draw.integers(4)}" if draw.random() < 0.8 else None,
                    )
                )
    return events


def arrow_table(events) -> pa.Table:
    """A log as a table."""
    return pa.table(
        {
            "who": [event.who for event in events],
            "at": pa.array([event.at for event in events], pa.timestamp("us", "UTC")),
            "what": pa.array([event.what for event in events], pa.string()),
            "place": pa.array([event.place for event in events], pa.string()),
            "result": pa.array([event.result for event in events], pa.string()),
            "address": pa.array([event.address for event in events], pa.string()),
        }
    )


def write_parquet(events, path: Path) -> Path:
    """A log as one Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow_table(events), path)
    return path


def write_csv(events, path: Path) -> Path:
    """A log as one CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "at", "what", "place", "result", "address"])
        for event in events:
            writer.writerow(
                [event.who, event.at.isoformat(), event.what, event.place or "", event.result, event.address or ""]
            )
    return path


def small_minutes(folder: Path, events, schema: Schema | None = None) -> MinuteTable:
    """Aggregate a log into `folder`/minutes."""
    source = write_parquet(events, folder / "events.parquet")
    aggregate(source, schema or small_schema(), folder / "minutes", threads=1)
    return open_minutes(folder / "minutes")


def plain_minutes(events) -> dict[tuple[str | int, int], Minute]:
    """The minutes of a log by (entity, UTC epoch minute), sorted, read without any of the package."""
    found: dict[tuple[str | int, int], Minute] = {}
    for event in events:
        minute = found.setdefault((event.who, epoch_minute(event.at)), Minute())
        minute.behaviors[event.what] += 1
        minute.num_failures += event.result == "no"
        minute.places |= {event.place} - {None}
        minute.addresses |= {event.address} - {None}
    return dict(sorted(found.items()))


def epoch_minute(moment: datetime) -> int:
    """The UTC epoch minute that holds a moment."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(minutes=1)


def joined(members: set[str]) -> str | None:
    """A set as the minutes have it."""
    return SET_SEPARATOR.join(sorted(members)) if members else None


def write_moments(rows, path: Path) -> Path:
    """A Parquet table of (entity_id, as_of)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"entity_id": [who for who, _ in rows], "as_of": [moment for _, moment in rows]}), path)
    return path


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Each file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
