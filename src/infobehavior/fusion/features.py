"""Groups of columns as arrays for a network or trees; what is learnt for that is learnt from training rows"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.errors import InputError
from infobehavior.fusion.columns import (
    Floats,
    Mask,
    categories_of,
    missing_numbers,
    numbers_of,
    texts_of,
    vectors_of,
)
from infobehavior.fusion.config import Group
from infobehavior.fusion.missing import GroupCounts
from infobehavior.fusion.text import SENTENCE_DIM, SentenceText, TfidfText

Tensors = dict[str, NDArray[Any]]

FURTHEST = 10.0
"""Standard deviations from the mean; what is further away counts as so far."""
HUGE = 1e100
"""The squares of larger numbers may overflow, and those of numbers below its inverse be zero."""
LEAST_VARIATION = 1e-12
"""Of a column's largest number; a smaller standard deviation may come from rounding."""
ROWS_AT_A_TIME = 8_192
"""Of a matrix, while each row is in 64 bits."""
UNKNOWN, NO_VALUE, FIRST_KNOWN = 0, 1, 2
"""Codes of categories."""
MOST_CATEGORIES = 200
"""Of each column so many are known, the most frequent ones: trees have a column for each."""
LEAST_EXAMPLES = 2
"""A category that fewer training rows have isn't known, so that the unknown one is learnt too."""


@dataclass(frozen=True)
class GroupArray:
    """A group of some examples.

    Attributes:
        values: float32 (rows, dimensions); of categories int64 codes (rows, columns).
        is_there: False where the whole group is missing; its values mean nothing there.
    """

    values: NDArray[Any]
    is_there: Mask

    def rows(self, index: NDArray[Any]) -> "GroupArray":
        """The rows of these positions."""
        return GroupArray(self.values[index], self.is_there[index])


class GroupFeatures(ABC):
    """How a group of one kind becomes an array."""

    @classmethod
    @abstractmethod
    def fit(cls, table: pa.Table, group: Group, name: str, seed: int) -> Self:
        """Learn what is needed from the columns of the training rows.

        Raises:
            InputError: a column holds something else than the group's kind.
        """

    @abstractmethod
    def transform(self, table: pa.Table, name: str) -> GroupArray:
        """The array of any rows."""

    def counted(self, array: GroupArray, table: pa.Table | None, name: str) -> GroupCounts:
        """What of the group is missing in any rows: their array, and the columns that it was made of, if any were."""
        return GroupCounts(len(array.is_there), int((~array.is_there).sum()))

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimensions of the array; of categories its columns."""

    @property
    def num_codes(self) -> tuple[int, ...]:
        """Of categories, how many codes each column has."""
        return ()

    def missing(self, num_rows: int) -> GroupArray:
        """The array of rows that all lack the group."""
        values = np.full((num_rows, self.dim), NO_VALUE) if self.num_codes else np.zeros((num_rows, self.dim), "f4")
        return GroupArray(values, np.zeros(num_rows, np.bool_))

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What is kept as JSON."""

    @abstractmethod
    def tensors(self) -> Tensors:
        """What is kept as arrays."""

    @classmethod
    @abstractmethod
    def restored(cls, described: dict[str, Any], tensors: Tensors) -> Self:
        """From what was kept."""


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of each column.

    A column that doesn't vary, but for rounding, has an infinite deviation, so that it is 0 whatever comes later:
    nothing is learnt of it, and the weights of a network that were never used are chance.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, matrix: NDArray[np.floating[Any]]) -> Self:
        """Of what isn't NaN in each column."""
        count = np.maximum(_summed(matrix, lambda rows: ~np.isnan(rows)), 1)
        largest = np.maximum.reduce([np.abs(_zeroed(rows)).max(axis=0, initial=0) for rows in _blocks(matrix)])
        unit = np.where((largest > HUGE) | ((largest > 0) & (largest < 1 / HUGE)), largest, 1.0)
        mean = _summed(matrix, lambda rows: _zeroed(rows) / unit) / count
        scale = np.sqrt(_summed(matrix, lambda rows: _zeroed(rows / unit - mean) ** 2) / count) * unit
        return cls(mean * unit, np.where(scale > LEAST_VARIATION * largest, scale, np.inf))

    def transform(self, matrix: NDArray[np.floating[Any]]) -> Floats:
        """Standardised, within `FURTHEST`; NaN stays."""
        values = np.empty(matrix.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, into in zip(_blocks(matrix), _blocks(values), strict=True):
                into[:] = np.clip((rows - self.mean) / self.scale, -FURTHEST, FURTHEST)
        return values

    def tensors(self) -> Tensors:
        """Both."""
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def restored(cls, tensors: Tensors) -> Self:
        """From `tensors`; a ValueError if they don't fit together."""
        if tensors["mean"].ndim != 1 or tensors["mean"].shape != tensors["scale"].shape:
            raise ValueError("means and scales of different shapes")
        return cls(tensors["mean"], tensors["scale"])


def _blocks(matrix: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some rows at a time, at least once."""
    return (matrix[first : first + ROWS_AT_A_TIME] for first in range(0, max(1, len(matrix)), ROWS_AT_A_TIME))


def _summed(matrix: NDArray[Any], of: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.float64]:
    """The sum of something of each row, which is never in memory for all rows."""
    total = np.zeros(matrix.shape[1])
    for rows in _blocks(matrix):
        total += of(rows).sum(axis=0, dtype=np.float64)
    return total


def _zeroed(matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """0 in place of NaN."""
    return np.where(np.isnan(matrix), np.float64(0), matrix)


@dataclass(frozen=True)
class _Standardised(GroupFeatures):
    """What is learnt of columns is how to standardise them."""

    columns: tuple[str, ...]
    standard: Standard

    def described(self) -> dict[str, Any]:
        """See `GroupFeatures`."""
        return {"columns": list(self.columns)}

    def tensors(self) -> Tensors:
        """See `GroupFeatures`."""
        return self.standard.tensors()

    @classmethod
    def restored(cls, described: dict[str, Any], tensors: Tensors) -> Self:
        """See `GroupFeatures`."""
        return cls(tuple(described["columns"]), Standard.restored(tensors))


@dataclass(frozen=True)
class Numbers(_Standardised):
    """Columns of numbers, standardised; a missing one is the mean, and a column of its own says that it is missing.

    Attributes:
        tells: whether that it is missing was learnt of each: in training it sometimes was, and sometimes wasn't.
    """

    tells: Mask

    @classmethod
    def fit(cls, table: pa.Table, group: Group, name: str, seed: int) -> Self:
        """See `GroupFeatures`."""
        matrix = numbers_of(table, f"group {name}")
        is_missing = np.isnan(matrix)
        is_there = np.logical_not(is_missing.all(axis=1))
        if not is_there.any():
            raise InputError(f"group {name} has no number in any of {table.num_rows} training rows; remove the group")
        num_missing = is_missing[is_there].sum(axis=0)
        tells = (num_missing > 0) & (num_missing < is_there.sum())
        return cls(tuple(table.column_names), Standard.fit(matrix), tells)

    def transform(self, table: pa.Table, name: str) -> GroupArray:
        """See `GroupFeatures`."""
        matrix = numbers_of(_same_columns(table, self.columns, name), f"group {name}")
        is_missing = np.isnan(matrix)
        values = np.nan_to_num(self.standard.transform(matrix), copy=False)
        told = (is_missing & self.tells).astype(np.float32)
        return GroupArray(np.hstack([values, told]), np.logical_not(is_missing.all(axis=1)))

    def counted(self, array: GroupArray, table: pa.Table | None, name: str) -> GroupCounts:
        """See `GroupFeatures`."""
        counts = super().counted(array, table, name)
        if table is None:
            return counts
        num_not_finite, lacking = missing_numbers(_same_columns(table, self.columns, name), f"group {name}")
        return replace(counts, not_finite=num_not_finite, empty=_beside_the_group(lacking, counts))

    @property
    def dim(self) -> int:
        """Two for each column."""
        return 2 * len(self.columns)

    def tensors(self) -> Tensors:
        """See `GroupFeatures`."""
        return {**super().tensors(), "tells": self.tells}

    @classmethod
    def restored(cls, described: dict[str, Any], tensors: Tensors) -> Self:
        """See `GroupFeatures`."""
        columns, standard = tuple(described["columns"]), Standard.restored(tensors)
        if len(columns) != len(standard.mean) or tensors["tells"].shape != standard.mean.shape:
            raise ValueError(f"{len(columns)} columns of numbers, but {len(standard.mean)} means")
        return cls(columns, standard, tensors["tells"].astype(np.bool_))


@dataclass(frozen=True)
class Vectors(_Standardised):
    """A vector a row, such as a picture's or a representation, standardised."""

    @classmethod
    def fit(cls, table: pa.Table, group: Group, name: str, seed: int) -> Self:
        """See `GroupFeatures`."""
        vectors, is_there = vectors_of(table, f"group {name}")
        if not vectors[is_there].size:
            raise InputError(f"group {name} has no vector in any of {table.num_rows} training rows; remove the group")
        return cls(tuple(table.column_names), Standard.fit(vectors[is_there]))

    def transform(self, table: pa.Table, name: str) -> GroupArray:
        """See `GroupFeatures`."""
        vectors, is_there = vectors_of(_same_columns(table, self.columns, name), f"group {name}")
        if not is_there.any():
            vectors = np.zeros((len(vectors), self.dim), np.float32)
        if vectors.shape[1] != self.dim:
            raise InputError(
                f"group {name} has vectors of {vectors.shape[1]} values, but was trained on vectors of {self.dim}"
            )
        values = self.standard.transform(vectors)
        values[~is_there] = 0
        return GroupArray(values, is_there)

    def counted(self, array: GroupArray, table: pa.Table | None, name: str) -> GroupCounts:
        """See `GroupFeatures`."""
        counts = super().counted(array, table, name)
        if table is None:
            return counts
        columns = _same_columns(table, self.columns, name).columns
        has_values = np.any([column.is_valid().to_numpy() for column in columns], axis=0)
        return replace(counts, not_finite=int((has_values & ~array.is_there).sum()))

    @property
    def dim(self) -> int:
        """See `GroupFeatures`."""
        return len(self.standard.mean)


@dataclass(frozen=True)
class Text(GroupFeatures):
    """Texts as vectors, standardised by one number, so that the first dimensions stay the largest.

    Attributes:
        columns: of the texts.
        tfidf: what was learnt from the training texts; None for the sentence encoder, which learns nothing.
        scale: root mean square of all values of the training rows.
        dim_: dimensions.
    """

    columns: tuple[str, ...]
    tfidf: TfidfText | None
    scale: float
    dim_: int

    @classmethod
    def fit(cls, table: pa.Table, group: Group, name: str, seed: int) -> Self:
        """See `GroupFeatures`."""
        texts, is_there = texts_of(table, f"group {name}")
        texts = [text for text, there in zip(texts, is_there.tolist(), strict=True) if there]
        tfidf = TfidfText.fit(texts, group.text_dim, seed) if group.encoder == "tfidf" else None
        vectors = (tfidf or SentenceText()).transform(texts)
        if vectors.size == 0:
            what = "piece of text that two rows share" if texts else "text"
            raise InputError(f"group {name} has no {what} in any of {table.num_rows} training rows; remove the group")
        scale = float(np.sqrt(np.mean(vectors.astype(np.float64) ** 2))) or 1.0
        return cls(tuple(table.column_names), tfidf, scale, vectors.shape[1])

    @cached_property
    def _encoder(self) -> TfidfText | SentenceText:
        return self.tfidf or SentenceText()

    def transform(self, table: pa.Table, name: str) -> GroupArray:
        """See `GroupFeatures`."""
        texts, is_there = texts_of(_same_columns(table, self.columns, name), f"group {name}")
        return GroupArray((self._encoder.transform(texts) / self.scale).astype(np.float32), is_there)

    @property
    def dim(self) -> int:
        """See `GroupFeatures`."""
        return self.dim_

    def described(self) -> dict[str, Any]:
        """See `GroupFeatures`."""
        ngrams = list(self.tfidf.ngrams) if self.tfidf else None
        return {"columns": list(self.columns), "scale": self.scale, "ngrams": ngrams}

    def tensors(self) -> Tensors:
        """See `GroupFeatures`."""
        return {"idf": self.tfidf.idf, "components": self.tfidf.components} if self.tfidf else {}

    @classmethod
    def restored(cls, described: dict[str, Any], tensors: Tensors) -> Self:
        """See `GroupFeatures`."""
        columns, ngrams, scale = tuple(described["columns"]), described["ngrams"], float(described["scale"])
        if ngrams is None:
            return cls(columns, None, scale, SENTENCE_DIM)
        tfidf = TfidfText(tuple(ngrams), tensors["idf"], tensors["components"])
        if tfidf.idf.shape != (len(ngrams),) or tfidf.components.shape[1:] != (len(ngrams),):
            raise ValueError(f"{len(ngrams)} pieces of text, but weights of another number")
        return cls(columns, tfidf, scale, len(tfidf.components))


@dataclass(frozen=True)
class Categories(GroupFeatures):
    """Columns of categories as codes: 0 is one that training didn't know, 1 is none.

    Attributes:
        known: of each column, the categories that have codes from 2 on, sorted.
    """

    known: dict[str, tuple[str, ...]]

    @classmethod
    def fit(cls, table: pa.Table, group: Group, name: str, seed: int) -> Self:
        """See `GroupFeatures`."""
        columns = categories_of(table, f"group {name}")
        if all(column.null_count == len(column) for column in columns):
            raise InputError(f"group {name} has no category in any of {table.num_rows} training rows; remove the group")
        return cls({name: _known(column) for name, column in zip(table.column_names, columns, strict=True)})

    def transform(self, table: pa.Table, name: str) -> GroupArray:
        """See `GroupFeatures`."""
        columns = categories_of(_same_columns(table, tuple(self.known), name), f"group {name}")
        codes = np.column_stack(
            [_codes(column, known) for column, known in zip(columns, self.known.values(), strict=True)]
        )
        return GroupArray(codes, (codes != NO_VALUE).any(axis=1))

    def counted(self, array: GroupArray, table: pa.Table | None, name: str) -> GroupCounts:
        """See `GroupFeatures`."""
        counts = super().counted(array, table, name)
        lacking = dict(zip(self.known, (array.values == NO_VALUE).sum(axis=0).tolist(), strict=True))
        return replace(counts, unknown=int((array.values == UNKNOWN).sum()), empty=_beside_the_group(lacking, counts))

    @property
    def dim(self) -> int:
        """See `GroupFeatures`."""
        return len(self.known)

    @property
    def num_codes(self) -> tuple[int, ...]:
        """See `GroupFeatures`."""
        return tuple(FIRST_KNOWN + len(known) for known in self.known.values())

    def described(self) -> dict[str, Any]:
        """See `GroupFeatures`."""
        return {"known": [[name, list(known)] for name, known in self.known.items()]}

    def tensors(self) -> Tensors:
        """See `GroupFeatures`."""
        return {}

    @classmethod
    def restored(cls, described: dict[str, Any], tensors: Tensors) -> Self:
        """See `GroupFeatures`."""
        return cls({name: tuple(known) for name, known in described["known"]})


def _beside_the_group(lacking: Mapping[str, int], counts: GroupCounts) -> dict[str, int]:
    """How many rows lack each column that aren't without the whole group; columns that none lacks aren't named."""
    return {name: number - counts.without for name, number in lacking.items() if number > counts.without}


def _known(column: pa.ChunkedArray) -> tuple[str, ...]:
    counts = Counter(column.drop_null().to_pylist())
    frequent = sorted(counts, key=lambda category: (-counts[category], category))[:MOST_CATEGORIES]
    return tuple(sorted(category for category in frequent if counts[category] >= LEAST_EXAMPLES))


def _codes(column: pa.ChunkedArray, known: tuple[str, ...]) -> NDArray[np.int64]:
    places = pc.index_in(column, pa.array(known, pa.string()))
    codes = pc.if_else(column.is_valid(), pc.add(places, FIRST_KNOWN).fill_null(UNKNOWN), NO_VALUE)
    return np.asarray(codes.to_numpy(), dtype=np.int64)


def _same_columns(table: pa.Table, columns: tuple[str, ...], name: str) -> pa.Table:
    if missing := [column for column in columns if column not in table.column_names]:
        raise InputError(f"group {name} was trained with column {missing[0]!r}, which isn't there")
    return table.select(list(columns))


FEATURES: dict[str, type[GroupFeatures]] = {
    "representation": Vectors,
    "vector": Vectors,
    "numbers": Numbers,
    "categories": Categories,
    "text": Text,
}
"""By kind of group."""
