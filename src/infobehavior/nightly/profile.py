"""What the windows that end with a day look like to a model: their tokens, their lengths and their embeddings."""

from datetime import date as Date
from typing import Annotated, Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import end_of_day
from infobehavior.data.store import LocationCounts, count_composites, count_locations
from infobehavior.data.vocabulary import FROM_NOTHING, FROM_PARTS, KNOWN, Bags
from infobehavior.embedding.encode import LEVEL_OF_CODE_0
from infobehavior.model.infobehavior import InfoBehavior

NUM_TOKENS = 20
"""So many of the most frequent tokens are told apart."""

NUM_LENGTHS = 21
"""Windows with 1 minute, 2 to 3, 4 to 7, and so on; the last class has all that are longer."""

NUM_PARTS = 10
"""Each number of an embedding is told by which tenth of the reference it falls in."""

TOKENS = (*map(str, range(1, NUM_TOKENS + 1)), "other", "from parts", "unknown")

Share = Annotated[float, Field(ge=0, le=1)]
Edge = Annotated[float, Field(allow_inf_nan=False)]
Counted = Annotated[int, Field(gt=0)]


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
    behaviors: dict[str, Share]
    locations: dict[str, Share]
    not_in_schema: Share
    num_minutes: Counted
    num_windows: Counted
    num_embeddings: Counted
    lengths: tuple[Share, ...]
    edges: tuple[tuple[Edge, ...], ...]
    embedding: tuple[tuple[Share, ...], ...]

    @model_validator(mode="after")
    def _has_all_classes(self) -> Self:
        """One that was read from a damaged file may lack some, and two profiles are compared class by class."""
        is_whole = (
            self.behaviors.keys() == self.locations.keys() == set(TOKENS)
            and len(self.lengths) == NUM_LENGTHS
            and len(self.edges) == len(self.embedding)
            and all(len(edges) == NUM_PARTS - 1 and list(edges) == sorted(edges) for edges in self.edges)
            and all(len(shares) == NUM_PARTS for shares in self.embedding)
        )
        if not is_whole:
            raise ValueError("a profile lacks classes, or has some that it shouldn't have")
        return self

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
        start = end - model.config.window_minutes
        composites, counts = count_composites(minutes, start, end)
        locations = count_locations(minutes, start, end, model.vocabulary.locations)
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
            behaviors=_shares_of_behaviors(model.vocabulary.behavior_bags(composites, "composite"), counts),
            locations=_shares_of_locations(locations),
            not_in_schema=float(counts[_is_outside_schema(composites)].sum() / max(1, counts.sum())),
            num_minutes=int(counts.sum()),
            num_windows=len(num_minutes),
            num_embeddings=len(embedding),
            lengths=_shares(lengths),
            edges=edges,
            embedding=tuple(map(_shares, parts)),
        )


def _is_outside_schema(composites: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether there is a behavior that the schema doesn't list."""
    is_outside: NDArray[np.bool_] = (composites[:, 0] & LEVEL_OF_CODE_0) != 0
    return is_outside


def _shares_of_behaviors(bags: Bags, counts: NDArray[np.int64]) -> dict[str, float]:
    tokens = bags.tokens[np.minimum(bags.offsets[:-1], len(bags.tokens) - 1)]
    is_known = bags.origin == KNOWN
    of_token = np.bincount(tokens[is_known], weights=counts[is_known], minlength=NUM_TOKENS + 1)[1:]
    from_parts, unknown = (int(counts[bags.origin == origin].sum()) for origin in (FROM_PARTS, FROM_NOTHING))
    return _named_shares(of_token, from_parts, unknown)


def _shares_of_locations(counts: LocationCounts) -> dict[str, float]:
    of_token = np.concatenate([[counts.nowhere], counts.of_known])
    return _named_shares(of_token, counts.from_parts, counts.unknown)


def _named_shares(of_token: NDArray[Any], from_parts: int, unknown: int) -> dict[str, float]:
    """Shares of the most frequent tokens by number, from 1, of all others together, and of what isn't known."""
    total = max(1, int(of_token.sum()) + from_parts + unknown)
    frequent = np.zeros(NUM_TOKENS)
    frequent[: len(of_token)] = of_token[:NUM_TOKENS]
    counts = (*frequent.astype(int).tolist(), int(of_token[NUM_TOKENS:].sum()), from_parts, unknown)
    return {name: count / total for name, count in zip(TOKENS, counts, strict=True)}


def _shares(counts: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple((counts / max(1, counts.sum())).tolist())
