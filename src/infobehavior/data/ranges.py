"""Runs of positions, such as the rows of each window, one after the other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def positions(starts: NDArray[Any], lengths: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All positions of some runs, and of each which run it is from.

    Example:
        >>> positions(np.array([7, 2]), np.array([2, 1]))
        (array([7, 8, 2]), array([0, 0, 1]))
    """
    which = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return np.arange(len(which)) + (starts - before)[which], which
