"""What the windows that end with a day look like to a model: their tokens, their lengths and their embeddings."""

from datetime import date as Date
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import end_of_day
from infobehavior.data.store import TokenCounts, count_tokens
from infobehavior.data.vocabulary import FROM_NOTHING, FROM_PARTS, KNOWN, Bags
from infobehavior.embedding.encode import LEVEL_OF_CODE_0
from infobehavior.model.infobehavior import InfoBehavior

NUM_TOKENS = 20
"""So many of the most frequent tokens are told apart."""

NUM_LENGTHS = 21
"""Windows with 1 minute, 2 to 3, 4 to 7, and so on; the last class has all that are longer."""

NUM_PARTS = 10
"""Each number of an embedding is told by which tenth of the reference it falls in."""

ORIGIN_NAMES = {FROM_PARTS: "from parts", FROM_NOTHING: "unknown"}


class Profile(BaseModel):
    """Shares that add up to 1 each.

    Attributes:
        day: with which the windows end.
        behaviors: of the minutes, by behavior token: the most frequent ones by number, "other", "from parts" (the
            composite is unknown, some of its parts are known) and "unknown".
        locations: likewise, by location token.
        not_in_schema: share of the minutes with a behavior that the schema doesn't list.
        num_minutes: minutes of the windows.
        num_windows: windows.
        num_embeddings: those whose embeddings were looked at.
        lengths: of the windows, by number of minutes with events.
        edges: the numbers between the tenths of each dimension of the reference's embeddings.
        embedding: of the windows, by those, for each dimension.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: Date
    behaviors: dict[str, float]
    locations: dict[str, float]
    not_in_schema: float
    num_minutes: int
    num_windows: int
    num_embeddings: int
    lengths: tuple[float, ...]
    edges: tuple[tuple[float, ...], ...]
    embedding: tuple[tuple[float, ...], ...]

    @classmethod
    def of(
        cls,
        day: Date,
        minutes: MinuteTable,
        model: InfoBehavior,
        num_minutes: NDArray[np.integer[Any]],
        embedding: Float[NDArray[np.float32], "windows embedding_dim"],
        edges: tuple[tuple[float, ...], ...] | None = None,
    ) -> Self:
        """Look at the windows that end with a day.

        Args:
            day: a local day.
            minutes: the table.
            model: what the tokens are known to.
            num_minutes: with events, of each window.
            embedding: of each window, or of some of them.
            edges: of the reference; by default the tenths of these embeddings themselves.
        """
        end = end_of_day(day, minutes.schema)
        counts = count_tokens(minutes, end - model.config.window_minutes, end)
        behavior_bags = model.vocabulary.behavior_bags(counts.composites, "composite")
        location_bags = model.vocabulary.location_bags(counts.location_sets)
        lengths = np.bincount(np.minimum(np.log2(num_minutes).astype(int), NUM_LENGTHS - 1), minlength=NUM_LENGTHS)
        if edges is None:
            tenths = np.arange(1, NUM_PARTS) / NUM_PARTS
            edges = tuple(map(tuple, np.quantile(embedding, tenths, axis=0).T.astype(np.float32).tolist()))
        parts = [
            np.bincount(np.searchsorted(edge, column, side="right"), minlength=NUM_PARTS)
            for edge, column in zip(np.array(edges, dtype=np.float32), embedding.T, strict=True)
        ]
        return cls(
            day=day,
            behaviors=_shares_of_tokens(behavior_bags, counts.of_composite),
            locations=_shares_of_tokens(location_bags, counts.of_location_set),
            not_in_schema=_share_not_in_schema(counts),
            num_minutes=int(counts.of_composite.sum()),
            num_windows=len(num_minutes),
            num_embeddings=len(embedding),
            lengths=_shares(lengths),
            edges=edges,
            embedding=tuple(map(_shares, parts)),
        )


def _share_not_in_schema(counts: TokenCounts) -> float:
    is_outside = (counts.composites[:, 0] & LEVEL_OF_CODE_0) != 0
    return float(counts.of_composite[is_outside].sum() / max(1, counts.of_composite.sum()))


def _shares_of_tokens(bags: Bags, counts: NDArray[np.int64]) -> dict[str, float]:
    tokens = bags.tokens[np.minimum(bags.offsets[:-1], len(bags.tokens) - 1)]
    is_known = bags.origin == KNOWN
    is_frequent = is_known & (tokens <= NUM_TOKENS)
    total = max(1, int(counts.sum()))
    shares = {
        str(token): int(counts[is_frequent & (tokens == token)].sum()) / total for token in range(1, NUM_TOKENS + 1)
    }
    shares["other"] = int(counts[is_known & ~is_frequent].sum()) / total
    return shares | {name: int(counts[bags.origin == origin].sum()) / total for origin, name in ORIGIN_NAMES.items()}


def _shares(counts: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple((counts / max(1, counts.sum())).tolist())
