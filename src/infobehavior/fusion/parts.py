"""Which examples are learnt from, and which tell when to stop: an account is never in both parts."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.errors import InputError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Parts:
    """Which examples are learnt from, and which tell when to stop and what scores mean."""

    training: Mask
    validation: Mask


def numbered(entity: pa.Array) -> NDArray[np.int64]:
    """Equal numbers for rows of one entity, in the order of their names; a row without one (null) has its own."""
    encoded = entity.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    is_null = np.asarray(entity.is_null())
    number = np.empty(len(entity), np.int64)
    number[~is_null] = place[encoded.indices.drop_null().to_numpy()]
    number[is_null] = len(order) + np.arange(int(is_null.sum()))
    return number


def split_by_entity(number: NDArray[np.int64], positive: Mask, share: float, seed: int) -> Parts:
    """All rows of an entity in one part: of those with a positive one and of those without, a share is drawn each.

    Args:
        number: of each row's entity, from 0 on.
        positive: of each row.
        share: of the entities, for validation.
        seed: decides which.

    Raises:
        InputError: all positive rows are of one entity, which can be in one part only.
    """
    is_risky = np.zeros(int(number.max()) + 1, np.bool_)
    np.logical_or.at(is_risky, number, positive)
    if is_risky.sum() == 1:
        raise InputError(
            f"all positive examples ({int(positive.sum())}) are of one account, and an account is in one part only; "
            "give positive examples of 2 accounts at least"
        )
    chosen = np.zeros_like(is_risky)
    random = np.random.default_rng(seed)
    for of_class in (True, False):
        entities = np.flatnonzero(is_risky == of_class)
        wanted = max(1, round(share * len(entities))) if len(entities) > 1 else 0
        chosen[random.permutation(entities)[:wanted]] = True
    is_chosen = chosen[number]
    return Parts(~is_chosen, is_chosen)
