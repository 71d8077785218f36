"""Runs of positions, such as the rows of each window, one after the other; and the blocks of a long column."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 1 << 18
"""Rows of a column that are worked on at once, so that what is made of them on the way stays small."""


def blocks(length: int) -> Iterator[slice]:
    """All positions of a column, ROWS_AT_ONCE at a time.

    Example:
        >>> list(blocks(300_000))
        [slice(0, 262144, None), slice(262144, 300000, None)]
    """
    for start in range(0, length, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, length))


def evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """So many of some rows, by number, evenly spaced; all where there are no more.

    Example:
        >>> evenly(9, 3)
        array([0, 4, 8])
    """
    return np.unique(np.linspace(0, max(0, count - 1), min(count, at_most)).astype(np.int64))


def positions(starts: NDArray[Any], lengths: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All positions of some runs, and of each which run it is from.

    Example:
        >>> positions(np.array([7, 2]), np.array([2, 1]))
        (array([7, 8, 2]), array([0, 0, 1]))
    """
    which = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return np.arange(len(which)) + (starts - before)[which], which
