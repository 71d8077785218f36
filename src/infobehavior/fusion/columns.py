"""Columns of a group: what counts as a number, a vector, a category or a text, and what as missing."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.errors import InputError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
NUM_SHOWN = 3


def numbers_of(table: pa.Table, where: str) -> NDArray[np.float64]:
    """Columns of numbers, booleans, or text that says numbers.

    Args:
        table: the columns.
        where: the group, for messages.

    Returns:
        (rows, columns); NaN where there is none: null, NaN or infinite.

    Raises:
        InputError: a column holds something else; says how often.
    """
    matrix = np.full((table.num_rows, table.num_columns), np.nan)
    for place, name in enumerate(table.column_names):
        matrix[:, place] = _numbers(table[name], f"{where}, column {name!r}").fill_null(np.nan).to_numpy()
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def missing_numbers(table: pa.Table, where: str) -> tuple[int, dict[str, int]]:
    """How many values of columns of numbers are there, but infinite or NaN; and how many each column lacks, with these.

    Raises:
        InputError: see `numbers_of`.
    """
    num_not_finite, lacking = 0, {}
    for name in table.column_names:
        column = _numbers(table[name], f"{where}, column {name!r}")
        num_finite = int(pc.sum(pc.is_finite(column), min_count=0).as_py())
        num_not_finite += len(column) - column.null_count - num_finite
        lacking[name] = len(column) - num_finite
    return num_not_finite, lacking


def _numbers(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """As float64."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(column, where)
    if not (
        pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
        or pa.types.is_decimal(column.type)
        or pa.types.is_null(column.type)
    ):
        raise InputError(f"{where} has type {column.type}; expected numbers")
    return column.cast(pa.float64(), safe=False)  # large integers are rounded, not refused


def _parsed(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Text as numbers; an empty text is none."""
    stripped = pc.utf8_trim_whitespace(column)
    stripped = pc.if_else(pc.equal(stripped, ""), None, stripped)
    try:
        return stripped.cast(pa.float64())
    except pa.ArrowInvalid:
        wrong = [text for text in stripped.to_pylist() if text is not None and not _is_number(text)]
        shown = ", ".join(repr(text) for text in sorted(set(wrong))[:NUM_SHOWN])
        raise InputError(
            f"{where} has {len(wrong)} of {len(column)} values that aren't numbers, such as {shown}; mend them, or "
            "make it a group of categories"
        ) from None


def _is_number(text: str) -> bool:
    try:
        pa.scalar(text).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def vectors_of(table: pa.Table, where: str) -> tuple[Floats, Mask]:
    """A column of lists of one length, or several columns of numbers.

    Returns:
        float32 (rows, dimensions), zeros where a vector is missing; and whether it is there: not null, and without
        nulls, NaN and values that are infinite as float32. Without any vector it has no dimensions.

    Raises:
        InputError: vectors have different lengths, or a column holds something else.
    """
    if table.num_columns == 1 and _is_list(table.column(0).type):
        return _lists(table.column(0), f"{where}, column {table.column_names[0]!r}")
    with np.errstate(over="ignore"):
        vectors = numbers_of(table, where).astype(np.float32)
    is_there: Mask = np.asarray(np.isfinite(vectors).all(axis=1))
    vectors[~is_there] = 0
    return vectors, is_there


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lists(column: pa.ChunkedArray, where: str) -> tuple[Floats, Mask]:
    is_there = column.is_valid().to_numpy().astype(np.bool_)
    lists = column.drop_null()
    lengths = pc.list_value_length(lists)
    length = lengths[0].as_py() if len(lists) else 0
    if len(others := lists.filter(pc.not_equal(lengths, length))):
        raise InputError(
            f"{where} has vectors of different lengths: {length} values, but {len(others)} of {len(lists)} have "
            f"others, such as {pc.list_value_length(others)[0].as_py()}"
        )
    kind = column.type.value_type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise InputError(f"{where} has lists of {kind}; expected lists of numbers")
    flat = pc.list_flatten(lists).cast(pa.float32(), safe=False)
    values = flat.fill_null(np.nan).to_numpy().reshape(len(lists), length)
    vectors = np.zeros((len(column), length), np.float32)
    vectors[is_there] = values
    is_there[is_there] = np.isfinite(values).all(axis=1)
    vectors[~is_there] = 0
    return vectors, is_there


def texts_of(table: pa.Table, where: str) -> tuple[list[str], Mask]:
    """The texts of the columns, one after the other; and whether there is more in them than white space.

    Raises:
        InputError: a column can't be read as text.
    """
    columns = [_as_text(table[name], f"{where}, column {name!r}").fill_null("") for name in table.column_names]
    joined = pc.utf8_normalize(pc.binary_join_element_wise(*columns, " "), form="NFC")
    return joined.to_pylist(), np.asarray(pc.utf8_length(pc.utf8_trim_whitespace(joined)).to_numpy() > 0)


def categories_of(table: pa.Table, where: str) -> Sequence[pa.ChunkedArray]:
    """The columns as text, null where there is none.

    Raises:
        InputError: a column can't be read as text.
    """
    return [_as_text(table[name], f"{where}, column {name!r}") for name in table.column_names]


def _as_text(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise InputError(f"{where} holds values of type {column.type}; expected one text or number a row")
    return column.cast(pa.string())
