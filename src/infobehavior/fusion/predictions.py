"""The table of predictions: partitioned by the local day of the examples' moments, like the embeddings table (4.3)."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior.artefacts import (
    DEFINITION_FILE,
    UNFINISHED_FILE,
    read_json,
    refuse_interrupted,
    refuse_unwritable,
    write_atomically,
)
from infobehavior.errors import InputError
from infobehavior.fusion.operating_point import OperatingPoint

KIND, FORMAT = "predictions", 1
PARTITION_FILE = "predictions.parquet"


def definition(
    model_id: str, ids: Sequence[str], label: str, positive_class: str, point: OperatingPoint
) -> dict[str, Any]:
    """What a table of predictions says of itself."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "model_id": model_id,
        "id": list(ids),
        "label": label,
        "positive_class": positive_class,
        "threshold": point.threshold,
        "is_met": point.is_met,
    }


def check_predictions(out: Path, told: dict[str, Any]) -> None:
    """Refuse a folder that can't be written, or that has something else, such as predictions of another model.

    Raises:
        InputError: see above.
    """
    refuse_unwritable(out, KIND)
    if not (out / DEFINITION_FILE).exists():
        if out.exists() and any(not _may_be_left(path) for path in out.iterdir()):
            raise InputError(f"{out} has files that aren't {KIND} (no {DEFINITION_FILE}); give a new folder")
        return
    there = read_json(out / DEFINITION_FILE, f"a folder of {KIND}")
    kind = there.get("kind") if isinstance(there, dict) else None
    if kind != KIND:
        raise InputError(f"{out} holds {kind or 'something else'}, not {KIND}; choose another --out")
    if differing := [name for name in told if there.get(name) != told[name]]:
        name = differing[0]
        raise InputError(
            f"{out} holds {KIND} with {name} {there.get(name)}, but now it would be {told[name]}: choose another --out"
        )


def _may_be_left(path: Path) -> bool:
    return path.name.startswith(".") or path.name == UNFINISHED_FILE


def write_day(out: Path, day: date, rows: pa.Table) -> None:
    """Put the predictions of a day into their place, at once."""
    target = out / f"ds={day}" / PARTITION_FILE
    write_atomically(target, lambda path: pq.write_table(rows, path, compression="zstd", store_schema=False))


def read_predictions(table: Path) -> pa.Table:
    """All predictions, by day.

    Raises:
        InputError: it isn't a table of predictions, is unfinished, or has no day yet.
    """
    told = read_json(table / DEFINITION_FILE, f"a folder of {KIND}")
    if not isinstance(told, dict) or told.get("kind") != KIND:
        raise InputError(f"{table} is not a folder of {KIND}")
    refuse_interrupted(table)
    files = sorted(table.glob(f"ds=*/{PARTITION_FILE}"))
    if not files:  # the first day of all was interrupted, and one day needs no mark
        raise InputError(f"{table} has no day of {KIND} yet; run `infobehavior fuse predict` again")
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
