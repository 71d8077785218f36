"""Exact counts of behaviors in rows of minutes, of which most rows have one or two."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from infobehavior.data.ranges import positions
from infobehavior.data.schema import decode_behaviors


@dataclass(frozen=True)
class BehaviorCounts:
    """How often each behavior occurs in each row: row `r` has entries `offsets[r]` to `offsets[r + 1]`.

    Attributes:
        code: of the behavior of each entry, as in the schema; ascending within a row.
        count: its events.
        offsets: first entry of each row, and the number of entries.
    """

    code: NDArray[np.int32]
    count: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, behavior: NDArray[np.int32], composites: NDArray[np.int64], count: NDArray[np.int32]) -> Self:
        """Tell from each row's composite whose counts are whose.

        Args:
            behavior: index of each row's composite.
            composites: packed words of each.
            count: events of the behaviors of all rows, one row after the other, by ascending code.
        """
        codes = [[code for code, _ in decode_behaviors(words)] for words in composites.tolist()]
        length = np.array([len(of_composite) for of_composite in codes], dtype=np.int64)
        every_code = np.array([code for of_composite in codes for code in of_composite], dtype=np.int32)
        position, _ = positions((np.cumsum(length) - length)[behavior], length[behavior])
        offsets = np.concatenate([[0], np.cumsum(length[behavior])]).astype(np.int64)
        return cls(every_code[position], count, offsets)

    def select(self, keep: NDArray[np.bool_]) -> "BehaviorCounts":
        """Those of the rows of a mask."""
        length = np.diff(self.offsets)
        entries = np.repeat(keep, length)
        offsets = np.concatenate([[0], np.cumsum(length[keep])]).astype(np.int64)
        return BehaviorCounts(self.code[entries], self.count[entries], offsets)

    def totals(
        self, rows: NDArray[np.int64], group: NDArray[np.int64], num_groups: int, num_codes: int
    ) -> NDArray[np.int64]:
        """Events of each behavior in groups of rows, (groups, codes).

        Args:
            rows: of some groups.
            group: of each of these rows.
            num_groups: of all.
            num_codes: one more than the largest code.
        """
        entry, place = positions(self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows])
        cell = group[place] * num_codes + self.code[entry]
        totals = np.bincount(cell, weights=self.count[entry], minlength=num_groups * num_codes)
        return totals.astype(np.int64).reshape(num_groups, num_codes)
