"""The embeddings table: Hive-partitioned Parquet that DuckDB, Spark and pandas read as it is (section 4.3)."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infobehavior.artefacts import read_json, write_atomically, write_json
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import day_before
from infobehavior.embedding.encode import EmbeddedWindows
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import InfoBehavior

DEFINITION_FILE = "_definition.json"
PARTITION_FILE = "embeddings.parquet"
NO_EVENTS_FOLDER = "_no_events"
TRAINING_LOG = "_training_log.jsonl"
FORMAT = 1


def definition(model: InfoBehavior, minutes: MinuteTable) -> dict[str, Any]:
    """What the table says of itself."""
    return {
        "kind": "embeddings",
        "format": FORMAT,
        "model_id": model.model_id,
        "minutes_hash": minutes.hash,
        "window_minutes": model.config.window_minutes,
        "embedding_dim": model.config.model_dim,
        "time_zone": minutes.schema.time.time_zone,
        "trained_until": model.pretraining.get("trained_until"),
    }


def check_table(out: Path, model: InfoBehavior, minutes: MinuteTable) -> None:
    """Refuse to put embeddings of one model beside those of another.

    Raises:
        InputError: `out` is a file, or holds a table that was made otherwise; says which two things disagree.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"can't write embeddings to {out}: it is a file; give a folder")
    if not (out / DEFINITION_FILE).exists():
        return
    there, here = read_json(out / DEFINITION_FILE, "an embeddings table"), definition(model, minutes)
    if differing := [name for name in here if there.get(name) != here[name]]:
        name = differing[0]
        raise InputError(
            f"{out} holds embeddings with {name} {there.get(name)}, but now it would be {here[name]}: choose another "
            "--out, since the two can't be compared"
        )


def write_partitions(out: Path, model: InfoBehavior, minutes: MinuteTable, windows: EmbeddedWindows) -> list[date]:
    """Write the partition of each day among the windows, and beside it the entities that had no events.

    Returns:
        The days, ascending.
    """
    write_json(out / DEFINITION_FILE, definition(model, minutes))
    model_id = model.model_id
    moments, day_of = np.unique(windows.moments.as_of, return_inverse=True)
    days = np.array([day_before(moment, minutes.schema) for moment in moments.tolist()])[day_of]
    has_events = windows.num_minutes > 0
    for day in (written := sorted(set(days.tolist()))):
        chosen = days == day
        _write(_rows(windows, chosen & has_events, model_id), out / f"ds={day}" / PARTITION_FILE)
        _write(_keys(windows, chosen & ~has_events), out / NO_EVENTS_FOLDER / f"ds={day}.parquet")
    return written


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


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
