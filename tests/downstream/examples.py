"""A small log of accounts, of which some are bots; its minutes, and an embeddings table made by hand."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior.data.aggregation import aggregate
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.data.schema import Behavior, Columns, Failures, Schema, Time
from infobehavior.data.store import load_store

START = datetime(2024, 3, 20, tzinfo=UTC)
WINDOW_DAYS = 20
AS_OF = START + timedelta(days=25)
SCHEMA = Schema(
    columns=Columns(entity="who", timestamp="when", behavior="what", location="where", outcome="ended", extra=["ip"]),
    # The clocks change on 31 March, inside the windows.
    time=Time(time_zone="Europe/Berlin"),
    failures=Failures(outcomes=["failure"]),
    behaviors={
        "post": Behavior(medium=2, high=4),
        'it\'s "odd" 😀': Behavior(medium=2, high=3),
        "register": Behavior(),
    },
)

Event = dict[str, Any]


def random_events(num_entities: int = 60, seed: int = 0) -> list[Event]:
    """Every fourth entity is a bot: it posts more, at night, and fails more often."""
    random = np.random.default_rng(seed)
    behaviors = [*SCHEMA.behaviors, "unlisted"]
    events = []
    for entity in range(num_entities):
        is_bot = entity % 4 == 0
        for _ in range(int(random.integers(3, 25))):
            moment = START + timedelta(minutes=int(random.integers(0, 30 * 1440)))
            moment = moment.replace(hour=int(random.integers(0, 8 if is_bot else 24)))
            for _ in range(int(random.integers(1, 6))):
                events.append(
                    {
                        "who": entity,
                        "when": moment + timedelta(seconds=int(random.integers(0, 90))),
                        "what": str(random.choice(behaviors, p=[0.6, 0.2, 0.1, 0.1])),
                        "where": None if random.random() < 0.2 else str(random.choice(["DE", "FR", "US"])),
                        "ended": "failure" if random.random() < (0.4 if is_bot else 0.1) else "success",
                        "ip": str(random.integers(0, 4)),
                    }
                )
    return events


def aggregated(events: list[Event], folder: Path, schema: Schema = SCHEMA) -> MinuteTable:
    types = pa.schema(
        {
            "who": pa.int64(),
            "when": pa.timestamp("us", "UTC"),
            **dict.fromkeys(["what", "where", "ended", "ip"], pa.string()),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(events, types), folder / "events.parquet")
    aggregate(folder / "events.parquet", schema, folder / "minutes")
    return open_minutes(folder / "minutes")


def windows_of(entities: list[int], as_of: datetime = AS_OF) -> pa.Table:
    return pa.table({"entity_id": entities, "as_of": pa.array([as_of] * len(entities), pa.timestamp("us", "UTC"))})


def with_counts(windows: pa.Table, minutes: MinuteTable) -> pa.Table:
    """The events and minutes of each window, by looking at each minute."""
    store, counts = load_store(minutes), []
    for window in windows.to_pylist():
        end = int(window["as_of"].timestamp()) // 60
        inside = (store.minute >= end - WINDOW_DAYS * 1440) & (store.minute < end)
        inside &= store.entities[store.row_entity] == window["entity_id"]
        counts.append((int(store.num_events[inside].sum()), int(inside.sum())))
    num_events, num_minutes = zip(*counts, strict=True)
    windows = windows.append_column("num_events", pa.array(num_events, pa.int64()))
    return windows.append_column("num_minutes", pa.array(num_minutes, pa.int32()))


def write_embeddings(
    folder: Path, windows: pa.Table, minutes: MinuteTable, day: str = "2024-04-14", signal: float = 0.5
) -> Path:
    """Random vectors; one of the eight numbers knows who is a bot."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(windows.num_rows, 8)).astype(np.float32)
    vectors[:, 0] += signal * 4 * np.array([int(entity) % 4 == 0 for entity in windows["entity_id"].to_pylist()])
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    (folder / f"ds={day}").mkdir(parents=True, exist_ok=True)
    windows = with_counts(windows, minutes).append_column("embedding", embedding)
    pq.write_table(windows, folder / f"ds={day}" / "embeddings.parquet")
    definition = {
        "kind": "embeddings",
        "format": 1,
        "model_id": "0123456789abcdef",
        "minutes_hash": minutes.hash,
        "window_minutes": WINDOW_DAYS * 1440,
        "embedding_dim": 8,
        "time_zone": "Europe/Berlin",
    }
    (folder / "_definition.json").write_text(json.dumps(definition))
    log = [{"step": i, "loss": 3 / i, "coarse": 2 / i, "failures": 1 / i, "learning_rate": 0.1} for i in range(1, 9)]
    (folder / "_training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return folder
