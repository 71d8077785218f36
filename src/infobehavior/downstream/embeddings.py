"""Reads an embeddings table: the files, never the model."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infobehavior.artefacts import DEFINITION_FILE, read_json, refuse_interrupted
from infobehavior.errors import InputError, one_line

WHAT = "a folder of embeddings"
WINDOW_COLUMNS = ["entity_id", "as_of", "num_events", "num_minutes"]


@dataclass(frozen=True)
class Embeddings:
    """An embeddings table in memory.

    Attributes:
        path: its folder.
        definition: its ``_definition.json``.
        windows: `entity_id` and `as_of` of each row, sorted by both; `num_events` and `num_minutes` of its window.
        vectors: one row a window.
    """

    path: Path
    definition: dict[str, Any]
    windows: pa.Table
    vectors: NDArray[np.float32]


def read_embeddings(path: Path, day: date | str | None = None) -> Embeddings:
    """Read an embeddings table.

    Args:
        path: its folder.
        day: only the partition of this local day (``ds=``).

    Raises:
        InputError: it isn't one, a file is damaged, or it has no rows (of that day).
    """
    definition = read_json(path / DEFINITION_FILE, WHAT)
    if not isinstance(definition, dict) or definition.get("kind") != "embeddings":
        kind = definition.get("kind") if isinstance(definition, dict) else None
        raise InputError(f"{path} is not {WHAT}: its _definition.json says kind = {kind!r}")
    if definition.get("format") != 1:
        raise InputError(f"{path} has format {definition.get('format')!r}, this version reads 1; embed again")
    refuse_interrupted(path)
    partitions = sorted(path.glob("ds=*/embeddings.parquet"))
    files = [file for file in partitions if day is None or file.parent.name == f"ds={day}"]
    if not files:
        there = ", ".join(file.parent.name.removeprefix("ds=") for file in partitions)
        raise InputError(f"{path} has no embeddings of {day or 'any day'}; it has {shortened(there) or 'none'}")
    table = pa.concat_tables([_read_partition(file) for file in files])
    table = table.sort_by([("entity_id", "ascending"), ("as_of", "ascending")])
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows in {len(files)} file(s): no entity had events in its window")
    return Embeddings(path, definition, table.select(WINDOW_COLUMNS), _matrix(table["embedding"], path))


def _read_partition(file: Path) -> pa.Table:
    columns = [*WINDOW_COLUMNS, "embedding"]
    try:
        if missing := [name for name in columns if name not in pq.read_schema(file).names]:
            raise InputError(f"{file} has no column {', '.join(missing)}; embed again")
        table = pq.read_table(file, columns=columns, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is damaged ({one_line(error)}); embed again") from None
    return table.set_column(1, "as_of", table["as_of"].cast(pa.timestamp("us")))


def _matrix(column: pa.ChunkedArray, path: Path) -> NDArray[np.float32]:
    values = pc.list_flatten(column).to_numpy().astype(np.float32)
    if len(values) % len(column) or not np.isfinite(values).all():
        raise InputError(f"{path} has embeddings of different lengths, or with null or NaN in them; embed again")
    matrix: NDArray[np.float32] = values.reshape(len(column), -1)
    return matrix


def shortened(text: str, most: int = 200) -> str:
    """A long text without its end."""
    return text if len(text) <= most else text[:most] + " …"
