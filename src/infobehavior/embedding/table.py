"""The embeddings table: Hive-partitioned Parquet that DuckDB, Spark and pandas read as it is (section 4.3).

Each Parquet file of the folder is a partition, so that any glob finds the table and nothing else. The windows without
events are listed beside it as CSV, `_no_events/ds=….csv`.
"""

import csv
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infobehavior.artefacts import (
    DEFINITION_FILE,
    TRAINING_LOG,
    UNFINISHED_FILE,
    read_json,
    refuse_unwritable,
    write_atomically,
    write_json,
)
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import day_before
from infobehavior.embedding.encode import EmbeddedWindows
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import InfoBehavior

PARTITION_FILE = "embeddings.parquet"
NO_EVENTS_FOLDER = "_no_events"
KIND = "embeddings"
FORMAT = 1
KEYS = ["entity_id", "as_of"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Written:
    """What `write_partitions` did.

    Attributes:
        days: whose partitions were written, ascending.
        num_removed: windows that those partitions had before and don't have now.
    """

    days: tuple[date, ...]
    num_removed: int


def definition(model: InfoBehavior, minutes: MinuteTable) -> dict[str, Any]:
    """What the table says of itself."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "model_id": model.model_id,
        "minutes_hash": minutes.hash,
        "window_minutes": model.config.window_minutes,
        "embedding_dim": model.config.model_dim,
        "time_zone": minutes.schema.time.time_zone,
        "trained_until": model.pretraining.get("trained_until"),
    }


def check_table(out: Path, model: InfoBehavior, minutes: MinuteTable) -> None:
    """Refuse a folder in which no table can be written, and to put embeddings of one model beside those of another.

    Raises:
        InputError: `out` is a file or can't be written, holds something else, or holds a table that was made
            otherwise; says which two things disagree.
    """
    refuse_unwritable(out, KIND)
    if not (out / DEFINITION_FILE).exists():
        _refuse_foreign_files(out)
        return
    there, here = read_json(out / DEFINITION_FILE, "an embeddings table"), definition(model, minutes)
    kind = there.get("kind") if isinstance(there, dict) else None
    if kind != KIND:
        raise InputError(f"{out} holds {kind or 'something else'}, not {KIND}; choose another --out")
    if differing := [name for name in here if there.get(name) != here[name]]:
        name = differing[0]
        raise InputError(
            f"{out} holds embeddings with {name} {there.get(name)}, but now it would be {here[name]}: choose another "
            "--out, or remove that folder first, since the two can't be compared"
        )


def _refuse_foreign_files(out: Path) -> None:
    """Refuse a folder that holds anything but what a run that was interrupted at its start left."""
    entries = out.iterdir() if out.exists() else iter(())
    if any(not entry.name.startswith(".") and entry.name != UNFINISHED_FILE for entry in entries):
        raise InputError(f"{out} has files that aren't {KIND} (no {DEFINITION_FILE}); give a new folder")


def write_partitions(out: Path, model: InfoBehavior, minutes: MinuteTable, windows: EmbeddedWindows) -> Written:
    """Write the partition of each day among the windows, and beside it the entities that had no events."""
    write_json(out / DEFINITION_FILE, definition(model, minutes))
    model_id = model.model_id
    moments, day_of = np.unique(windows.moments.as_of, return_inverse=True)
    days = np.array([day_before(moment, minutes.schema) for moment in moments.tolist()])[day_of]
    has_events = windows.num_minutes > 0
    num_removed = 0
    for day in (written := sorted(set(days.tolist()))):
        partition, chosen = out / f"ds={day}" / PARTITION_FILE, days == day
        rows, without = _rows(windows, chosen & has_events, model_id), _keys(windows, chosen & ~has_events)
        num_removed += _num_removed(partition, rows)
        _write(rows, partition)
        _write_no_events(without, out / NO_EVENTS_FOLDER / f"ds={day}.csv")
    return Written(tuple(written), num_removed)


def _num_removed(partition: Path, rows: pa.Table) -> int:
    """Windows of a partition that are not among the rows that replace it; none are known of a damaged one."""
    try:
        before = pq.read_table(partition, columns=KEYS, partitioning=None)
        return len(before.join(rows.select(KEYS), KEYS, join_type="left anti", use_threads=False))
    except (OSError, pa.ArrowException):
        return 0


def copy_training_log(model_folder: Path, out: Path) -> None:
    """Keep the model's training curve with its embeddings, for the report."""
    if (model_folder / TRAINING_LOG).exists():
        write_atomically(out / TRAINING_LOG, lambda path: _copy(model_folder / TRAINING_LOG, path))


def _rows(windows: EmbeddedWindows, chosen: NDArray[np.bool_], model_id: str) -> pa.Table:
    embedding = windows.embedding[chosen]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1])
    rows = _keys(windows, chosen).append_column("embedding", vectors)
    for name in ("num_events", "num_minutes", "num_spans"):
        rows = rows.append_column(name, pa.array(getattr(windows, name)[chosen]))
    return rows.append_column("model_id", pa.array([model_id] * len(embedding), pa.string()))


def _keys(windows: EmbeddedWindows, chosen: NDArray[np.bool_]) -> pa.Table:
    is_text = windows.moments.entity_id.dtype == object
    return pa.table(
        {
            "entity_id": pa.array(windows.moments.entity_id[chosen], pa.string() if is_text else pa.int64()),
            "as_of": pa.array(windows.moments.as_of[chosen], pa.timestamp("us", "UTC")),
        }
    )


def _write(rows: pa.Table, target: Path) -> None:
    write_atomically(target, lambda path: pq.write_table(rows, path, compression="zstd"))


def _write_no_events(keys: pa.Table, target: Path) -> None:
    write_atomically(target, lambda path: _write_csv(keys, path))


def _write_csv(keys: pa.Table, path: Path) -> None:
    """Entities, and moments as ISO 8601 in UTC, each to the microsecond so that all have one form."""
    moments = (EPOCH + timedelta(microseconds=moment) for moment in keys["as_of"].cast(pa.int64()).to_pylist())
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(KEYS)
        for entity, moment in zip(keys["entity_id"].to_pylist(), moments, strict=True):
            writer.writerow([entity, moment.isoformat(timespec="microseconds")])


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
