"""Brings embeddings and labels together: which windows have both, and what is left out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from infobehavior.data.tables import column_moments, read_table
from infobehavior.downstream.embeddings import Embeddings, shortened
from infobehavior.errors import InputError, one_line


@dataclass(frozen=True)
class LabelColumn:
    """The labels of a file.

    Attributes:
        table: `entity` (text or null), `as_of` (microseconds since the epoch, null without that column), `positive`
            (null without a label), `group` (text or null).
        description: file and column, for messages.
        has_as_of: True if each label has a moment of its own.
        classes: the value of the negative class and that of the positive one.
    """

    table: pa.Table
    description: str
    has_as_of: bool
    classes: tuple[str, str]


@dataclass(frozen=True)
class LabelledWindows:
    """Windows that have an embedding and a label, sorted by entity and moment.

    Attributes:
        windows: `entity_id` and `as_of`.
        vectors: the embeddings.
        positive: True for the positive class.
        groups: equal numbers stay on one side of a split; None if each window stands alone.
        classes: the value of the negative class and that of the positive one.
        counts: rows used and rows left out, by reason.
    """

    windows: pa.Table
    vectors: NDArray[np.float32]
    positive: NDArray[np.bool_]
    groups: NDArray[np.int64] | None
    classes: tuple[str, str]
    counts: dict[str, int]


def read_labels(path: Path, label: str, group: str | None, time_zone: str) -> LabelColumn:
    """Read a table of labels: `entity_id`, the label, and if present `as_of` and a group.

    A label is a boolean, a number (0 or 1) or one of two texts, of which the alphabetically last is the positive
    class. Null and NaN mean "no label".

    Args:
        path: Parquet or CSV.
        label: the label's column.
        group: the column whose equal values must not be split between training and test.
        time_zone: of an `as_of` without one.

    Raises:
        InputError: the file can't be read, lacks a column, or the label doesn't have two classes.
    """
    raw = read_table(path)
    missing = [name for name in ("entity_id", label, *([group] if group else [])) if name not in raw.column_names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it has {shortened(', '.join(raw.column_names))}")
    description = f"{path}, column {label!r}"
    positive, classes = binary_labels(raw[label], description)
    has_as_of = "as_of" in raw.column_names
    table = pa.table(
        {
            "entity": _as_text(raw["entity_id"], f"{path}, column 'entity_id'"),
            "as_of": column_moments(raw["as_of"], time_zone, str(path))
            if has_as_of
            else pa.nulls(len(raw), pa.int64()),
            "positive": positive,
            "group": _as_text(raw[group], f"{path}, column {group!r}") if group else pa.nulls(len(raw), pa.string()),
        }
    )
    return LabelColumn(table, description, has_as_of, classes)


def binary_labels(column: pa.ChunkedArray, description: str) -> tuple[pa.Array, tuple[str, str]]:
    """True where the label is positive, null where there is none; and what the two classes are called.

    Raises:
        InputError: there aren't two classes.
    """
    _refuse_nested(column, description)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    values = pc.unique(column.drop_null()).to_pylist()
    if not values:
        raise InputError(f"{description} has no label: all {len(column)} rows are null")
    if len(values) > 2:
        shown = shortened(", ".join(repr(value) for value in sorted(values, key=str)))
        raise InputError(f"{description} has {len(values)} classes ({shown}); expected two")
    numbers = _numbers(values)
    if numbers is None:
        ordered = sorted(values, key=str)
        if len(ordered) == 1:
            raise InputError(f"{description} has one class: all labels are {ordered[0]!r}")
        negative, positive = ordered
    elif set(numbers) <= {0.0, 1.0}:
        by_number = dict(zip(numbers, values, strict=True))
        if len(by_number) == 1:
            raise InputError(f"{description} has one class: all labels are {values[0]!r}")
        negative, positive = by_number[0.0], by_number[1.0]
    else:
        raise InputError(f"{description} has the numbers {values}; expected 0 and 1 (or two texts)")
    return pc.equal(column, pa.scalar(positive, column.type)), (str(negative), str(positive))


def _numbers(values: list[Any]) -> list[float] | None:
    """The values as numbers, or None if one isn't a number (of a CSV all are text)."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _as_text(column: pa.ChunkedArray, description: str) -> pa.ChunkedArray:
    _refuse_nested(column, description)
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise InputError(f"{description} can't be read as text: {one_line(error)}") from None


def _refuse_nested(column: pa.ChunkedArray, description: str) -> None:
    if pa.types.is_nested(column.type):
        raise InputError(f"{description} holds values of type {column.type}; expected one value a row")


def join_labels(embeddings: Embeddings, labels: LabelColumn, group: str | None) -> LabelledWindows:
    """Pair each embedding with its label: by entity and moment if the labels have `as_of`, else by entity.

    Entities are compared as text, so 7 and '7' are the same. The windows of an entity stay together, and so do
    those of a group; a window without a group stays with its entity's.

    Raises:
        InputError: an entity has several windows or several labels and nothing says which belong together, or no
            window has a label.
    """
    keys = ("entity", "as_of") if labels.has_as_of else ("entity",)
    windows = _keyed(embeddings.windows)
    labelled = labels.table.filter(pc.is_valid(labels.table["positive"]))
    usable = labelled.filter(pc.is_valid(labelled["entity"]))
    if not labels.has_as_of:
        _require_one_window(windows, embeddings.path)
    _require_unique(usable, keys, labels.description)
    found = _joined(windows, usable, keys)
    if found.num_rows == 0:
        raise InputError(_no_match(embeddings, usable, labels))
    rows = found["row"].to_numpy()
    return LabelledWindows(
        windows=embeddings.windows.take(rows),
        vectors=embeddings.vectors[rows],
        positive=found["positive"].to_numpy(zero_copy_only=False).astype(np.bool_),
        groups=_belonging_together(found["entity"], found["group"]),
        classes=labels.classes,
        counts={
            "windows with an embedding and a label": found.num_rows,
            "embeddings without a label": windows.num_rows - found.num_rows,
            "labels without an embedding": usable.num_rows - found.num_rows,
            "rows whose label is null": labels.table.num_rows - labelled.num_rows,
            **_if_any("labels whose entity_id is null", labelled.num_rows - usable.num_rows),
            **({"windows without a group, each with its entity": found["group"].null_count} if group else {}),
        },
    )


def _if_any(reason: str, count: int) -> dict[str, int]:
    return {reason: count} if count else {}


def _keyed(windows: pa.Table) -> pa.Table:
    return pa.table(
        {
            "row": np.arange(windows.num_rows),
            "entity": windows["entity_id"].cast(pa.string()),
            "as_of": windows["as_of"].cast(pa.int64()),
        }
    )


def _joined(windows: pa.Table, usable: pa.Table, keys: tuple[str, ...]) -> pa.Table:
    columns = usable.select([*keys, "positive", "group"])
    if not keys[1:]:
        windows = windows.drop_columns(["as_of"])
    return windows.join(columns, list(keys), join_type="inner", use_threads=False).sort_by("row")


def _require_one_window(windows: pa.Table, path: Path) -> None:
    several = _first_repeated(windows, ("entity",))
    if several is not None:
        raise InputError(
            f"{path} has several windows of entity {several['entity']}, and the labels have no column as_of: add it "
            "to the labels, or pick a day with --date"
        )


def _require_unique(usable: pa.Table, keys: tuple[str, ...], description: str) -> None:
    several = _first_repeated(usable, keys)
    if several is not None:
        what = f"entity {several['entity']}" + (" at one as_of" if keys[1:] else " and has no column as_of")
        raise InputError(f"{description} has several labels of {what}; keep one")


def _first_repeated(table: pa.Table, keys: tuple[str, ...]) -> dict[str, Any] | None:
    counted = table.group_by(list(keys), use_threads=False).aggregate([([], "count_all")])
    repeated = counted.filter(pc.greater(counted["count_all"], 1)).sort_by("entity")
    return repeated.slice(0, 1).to_pylist()[0] if repeated.num_rows else None


def _no_match(embeddings: Embeddings, usable: pa.Table, labels: LabelColumn) -> str:
    ids = _keyed(embeddings.windows)["entity"]
    shared = ids.filter(pc.is_in(ids, usable["entity"].combine_chunks()))
    counts = f"{len(usable)} labels, {len(ids)} embeddings"
    if len(shared):
        return (
            f"{labels.description} matches no window of {embeddings.path} ({counts}): entities such as {shared[0]} are "
            "in both, but at another as_of; embed with --as-of of this table"
        )
    return (
        f"{labels.description} matches no entity of {embeddings.path} ({counts}): the labels have ids such as "
        f"{usable['entity'][0]}, the embeddings such as {ids[0]}"
    )


def _belonging_together(entity: pa.ChunkedArray, group: pa.ChunkedArray) -> NDArray[np.int64] | None:
    """Equal numbers for windows that must stay on one side of a split: those of an entity, and those of a group.

    An entity whose windows are in two groups joins the two. None if each window stands alone.
    """
    entities, groups = _codes(entity), _codes(group)
    num_entities = int(entities.max()) + 1
    has_group = groups >= 0
    edges = (np.ones(int(has_group.sum())), (entities[has_group], num_entities + groups[has_group]))
    num_nodes = num_entities + int(groups.max(initial=-1)) + 1
    _, component = connected_components(coo_array(edges, shape=(num_nodes, num_nodes)), directed=False)
    numbers = component[entities].astype(np.int64)
    return numbers if len(np.unique(numbers)) < len(numbers) else None


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Equal numbers for equal values, -1 for null."""
    codes: NDArray[np.int64] = (
        pc.index_in(column, pc.unique(column.drop_null())).fill_null(-1).to_numpy().astype(np.int64)
    )
    return codes
