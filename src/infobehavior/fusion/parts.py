"""Which examples are learnt from, and which tell when to stop: an account is never in both parts."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Parts:
    """Which examples are learnt from, and which tell when to stop and what scores mean."""

    training: Mask
    validation: Mask


def numbered(entity: pa.Array) -> NDArray[np.int64]:
    """Equal numbers for rows of one entity, in the order of their names; a row without one (null) has its own."""
    names = np.array(["" if name is None else name for name in entity.to_pylist()], dtype=object)
    _, number = np.unique(names.astype(str), return_inverse=True)
    is_null = np.asarray(entity.is_null())
    number[is_null] = len(names) + np.arange(int(is_null.sum()))
    return np.unique(number, return_inverse=True)[1].astype(np.int64)


def split_by_entity(number: NDArray[np.int64], positive: Mask, share: float, seed: int) -> Parts:
    """All rows of an entity in one part: of those with a positive one and of those without, a share is drawn each.

    Args:
        number: of each row's entity, from 0 on.
        positive: of each row.
        share: of the entities, for validation.
        seed: decides which.
    """
    is_risky = np.zeros(int(number.max()) + 1, np.bool_)
    np.logical_or.at(is_risky, number, positive)
    chosen = np.zeros_like(is_risky)
    random = np.random.default_rng(seed)
    for of_class in (True, False):
        entities = np.flatnonzero(is_risky == of_class)
        wanted = max(1, round(share * len(entities))) if len(entities) > 1 else 0
        chosen[random.permutation(entities)[:wanted]] = True
    is_chosen = chosen[number]
    return Parts(~is_chosen, is_chosen)
