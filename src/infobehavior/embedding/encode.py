"""Windows to global representations, shard by shard, bundle by bundle and batch by batch, without gradients."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infobehavior.data.batches import Spans, Tokenizer
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import Moments
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import FROM_NOTHING, FROM_PARTS
from infobehavior.data.windows import Windows
from infobehavior.embedding.bundles import Bundles
from infobehavior.embedding.kept_spans import KeptSpans, Represent
from infobehavior.errors import InputError
from infobehavior.model.device import find_device
from infobehavior.model.float32_products import rows_are_independent
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.reproducible import reproducible
from infobehavior.model.span_pooling import windows_at_once
from infobehavior.progress import progress

MINUTES_PER_BATCH = 10_000
MINUTES_OF_PART = 100_000
WINDOWS_PER_BATCH = 1_024
MINUTES_PER_SHARD = 10_000_000
MOMENTS_PER_SHARD = 500_000
LEVEL_OF_CODE_0 = 3
"""The bits, in the first word of a behavior token, of the behaviors that the schema doesn't list."""


@dataclass
class Fallbacks:
    """How many of the minutes read had a token that the model doesn't know as it is, or that says less than the log.

    Attributes:
        minutes: all.
        behavior_from_parts: the composite behavior is unknown; parts of it are known.
        behavior_unknown: nothing of it is known.
        behavior_not_in_schema: an event's behavior isn't listed in the schema; all those share one code, which the
            model knows if its training had some.
        location_from_parts: the set of locations is unknown; some of them are known.
        location_unknown: none of them is known.
    """

    minutes: int = 0
    behavior_from_parts: int = 0
    behavior_unknown: int = 0
    behavior_not_in_schema: int = 0
    location_from_parts: int = 0
    location_unknown: int = 0

    def add(self, tokenizer: Tokenizer, rows: NDArray[np.int64]) -> None:
        """Count some rows of a store."""
        composite = tokenizer.store.behavior[rows]
        behavior = tokenizer.behavior_bags.origin[composite]
        location = tokenizer.location_bags.origin[tokenizer.store.location[rows] + 1]
        self.minutes += len(rows)
        self.behavior_from_parts += int(np.count_nonzero(behavior == FROM_PARTS))
        self.behavior_unknown += int(np.count_nonzero(behavior == FROM_NOTHING))
        self.behavior_not_in_schema += int(np.count_nonzero(tokenizer.store.composites[composite, 0] & LEVEL_OF_CODE_0))
        self.location_from_parts += int(np.count_nonzero(location == FROM_PARTS))
        self.location_unknown += int(np.count_nonzero(location == FROM_NOTHING))

    def include(self, other: "Fallbacks") -> None:
        """Count what another one counted."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)

    def shares(self) -> dict[str, float]:
        """Each as a share of the minutes."""
        total = max(1, self.minutes)
        return {name: round(count / total, 6) for name, count in vars(self).items() if name != "minutes"}


@dataclass(frozen=True)
class EmbeddedBundle:
    """What was embedded together, see `bundles`.

    Attributes:
        contents: names what its windows hold; empty where that wasn't asked for.
        num_moments: its windows.
        fallbacks: unknown tokens met.
    """

    contents: str
    num_moments: int
    fallbacks: Fallbacks


@dataclass
class EmbeddedWindows:
    """One row per moment, in the moments' order; those without events have zeros everywhere.

    Attributes:
        moments: entity and end of each window.
        embedding: float32 (windows, embedding_dim).
        num_events: events of each window.
        num_minutes: minutes with events.
        num_spans: spans with events.
        bundles: the bundles that they are, one after the other; not of some of the windows.
    """

    moments: Moments
    embedding: NDArray[np.float32]
    num_events: NDArray[np.int64]
    num_minutes: NDArray[np.int32]
    num_spans: NDArray[np.int32]
    bundles: list[EmbeddedBundle] = field(default_factory=list)

    @classmethod
    def zeros(cls, moments: Moments, embedding_dim: int) -> "EmbeddedWindows":
        """Nothing embedded yet."""
        count = len(moments)
        return cls(
            moments,
            embedding=np.zeros((count, embedding_dim), dtype=np.float32),
            num_events=np.zeros(count, dtype=np.int64),
            num_minutes=np.zeros(count, dtype=np.int32),
            num_spans=np.zeros(count, dtype=np.int32),
        )

    @property
    def bundle_starts(self) -> list[int]:
        """The first window of each bundle, and the number of windows."""
        return list(accumulate((bundle.num_moments for bundle in self.bundles), initial=0))

    def take(self, which: slice | NDArray[Any]) -> "EmbeddedWindows":
        """Some of the windows, by position or by a mask."""
        return EmbeddedWindows(
            self.moments.take(which),
            embedding=self.embedding[which],
            num_events=self.num_events[which],
            num_minutes=self.num_minutes[which],
            num_spans=self.num_spans[which],
        )


class FindBundle(Protocol):
    """Gives the windows of a bundle that need not be encoded, told by what they hold and where they end."""

    def __call__(self, contents: str, moments: Moments) -> EmbeddedWindows | None: ...


def embed_moments(
    minutes: MinuteTable,
    model: InfoBehavior,
    moments: Moments,
    device: str = "cpu",
    kept: KeptSpans | None = None,
    minutes_per_shard: int | None = None,
    find: FindBundle | None = None,
    with_contents: bool = False,
) -> Iterator[EmbeddedWindows]:
    """Embed the window of each moment, shard by shard; a shard's minutes and embeddings are all that is in memory.

    Args:
        minutes: the table.
        model: the encoder.
        moments: at which windows end; the shards are runs of them.
        device: where to encode.
        kept: representations of spans that need not be computed again.
        minutes_per_shard: about how many minutes are in memory at once, at least a bundle's; MINUTES_PER_SHARD by
            default. It changes no byte.
        find: looks for bundles that need not be encoded, by their contents.
        with_contents: name the contents of bundles; the moments must all be the same.

    Raises:
        InputError: there is no such device, or the minutes can't be read, or representations of spans can't be kept.
    """
    model.eval().to(find_device(device))
    if kept:
        with torch.inference_mode(), reproducible(model.num_threads):
            _refuse_dependent_rows(model)
    bundles = Bundles.of(minutes, moments, model.config.window_minutes, with_contents=with_contents)
    with progress("embedding", len(moments)) as advance:
        for shard in bundles.shards(minutes_per_shard or MINUTES_PER_SHARD, MOMENTS_PER_SHARD):
            part = bundles.take(shard)
            for run in runs_of_shard(moments, part, find):
                embedded = run
                if isinstance(embedded, slice):
                    embedded = embed_shard(minutes, model, moments, part.take(embedded), kept)
                yield embedded
                advance(len(embedded.moments))


def runs_of_shard(moments: Moments, bundles: Bundles, find: FindBundle | None) -> Iterator[slice | EmbeddedWindows]:
    """The bundles of a shard in their order: those that are found, and runs of others, which are to be encoded."""
    start = 0
    for at, contents in enumerate(bundles.contents if find else []):
        found = find(contents, moments.take(bundles.moments(at, at + 1))) if find else None
        if found:
            if start < at:
                yield slice(start, at)
            yield found
            start = at + 1
    if start < len(bundles):
        yield slice(start, len(bundles))


def _refuse_dependent_rows(model: InfoBehavior) -> None:
    """Refuse to keep representations where a product's last digits depend on what else is in its batch.

    Raises:
        InputError: this is such a machine.
    """
    grid, kernel = model.grid, model.span_cnn.kernel().flatten(0, 1)
    spans_of_minute = -(-grid.span_minutes // grid.stride_minutes)
    max_windows = windows_at_once(kernel.device) + grid.span_minutes
    max_spans = max(spans_of_minute * MINUTES_PER_BATCH, grid.num_spans)
    are_independent = rows_are_independent(lambda rows: rows @ kernel, max_windows, len(kernel), kernel.device)
    for layer in (model.span_projection, model.span_mean):
        if are_independent and isinstance(layer, torch.nn.Linear):
            are_independent = rows_are_independent(layer, max_spans, layer.in_features, kernel.device)
    if not are_independent:
        raise InputError(
            "on this machine the last digits of a product depend on what else is in its batch, so kept "
            "representations would not be the ones that are computed anew; embed without keep_spans"
        )


def embed_shard(
    minutes: MinuteTable, model: InfoBehavior, moments: Moments, bundles: Bundles, kept: KeptSpans | None
) -> EmbeddedWindows:
    """Embed some bundles, reading all their minutes at once."""
    with torch.inference_mode(), reproducible(model.num_threads):
        moments = moments.take(bundles.moments(0, len(bundles)))
        starts = bundles.starts - bundles.starts[0]
        result = EmbeddedWindows.zeros(moments, model.embedding_dim)
        result.bundles = [
            EmbeddedBundle(contents, int(count), Fallbacks())
            for contents, count in zip(bundles.contents, np.diff(starts), strict=True)
        ]
        tokenizer, windows, place = _open_shard(minutes, model, moments)
        device = next(model.parameters()).device

        def represent(spans: Spans) -> Tensor:
            parts = [model.represent_spans(tokenizer.tokens(part).to(device)) for part in _parts(spans)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        represent_unknown = kept.reusing(represent, tokenizer) if kept else represent
        bundle = np.searchsorted(starts, place, side="right") - 1
        for chosen in _batches(windows, bundle):
            fallbacks = result.bundles[bundle[chosen[0]]].fallbacks
            _embed_batch(model, tokenizer, represent_unknown, windows.take(chosen), place[chosen], result, fallbacks)
        return result


def _parts(spans: Spans) -> Iterator[Spans]:
    """The spans of a batch, which is more than MINUTES_OF_PART where one window has so many."""
    part = np.cumsum(spans.lengths) // MINUTES_OF_PART
    if len(part) == 0 or part[-1] == 0:
        yield spans
        return
    for number in np.unique(part):
        yield spans.take(part == number)


def _open_shard(
    minutes: MinuteTable, model: InfoBehavior, moments: Moments
) -> tuple[Tokenizer, Windows, NDArray[np.int64]]:
    """Read the minutes of a shard's moments; give its windows that have events, and the moment of each."""
    entity_id, end = moments.entity_id, moments.end
    store = load_store(
        minutes,
        int(end.min()) - model.config.window_minutes,
        int(end.max()),
        entities=np.unique(entity_id),
    )
    entity = np.searchsorted(store.entities, entity_id)
    is_known = entity < len(store.entities)
    is_known[is_known] = store.entities[entity[is_known]] == entity_id[is_known]
    place = np.flatnonzero(is_known)
    windows = Windows.cut(store, entity[place], end[place], model.config.window_minutes)
    has_events = windows.num_minutes > 0
    return model.tokenizer(store), windows.take(has_events), place[has_events]


def _batches(windows: Windows, bundle: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Windows of a bundle that have about the same size; the order, and so each byte, depends on the bundle alone."""
    order = np.lexsort((windows.end, windows.entity, windows.num_minutes, bundle))
    sizes, bundle = np.cumsum(windows.num_minutes[order]), bundle[order]
    start = 0
    while start < len(order):
        before = sizes[start - 1] if start else 0
        end = int(np.searchsorted(sizes, before + MINUTES_PER_BATCH, side="right"))
        of_bundle = int(np.searchsorted(bundle, bundle[start], side="right"))
        end = min(max(end, start + 1), start + WINDOWS_PER_BATCH, of_bundle)
        yield order[start:end]
        start = end


def _embed_batch(
    model: InfoBehavior,
    tokenizer: Tokenizer,
    represent: Represent,
    windows: Windows,
    place: NDArray[np.int64],
    result: EmbeddedWindows,
    fallbacks: Fallbacks,
) -> None:
    spans = tokenizer.spans(windows)
    span_repr = represent(spans)
    places = (spans.index, spans.window_lengths, spans.lengths)
    embedded = model.embed(span_repr, *(torch.from_numpy(part).to(span_repr.device) for part in places))
    result.embedding[place] = embedded.cpu().numpy()
    fallbacks.add(tokenizer, windows.rows[0])
    result.num_events[place] = windows.sums(tokenizer.store.num_events)
    result.num_minutes[place] = windows.num_minutes
    result.num_spans[place] = spans.window_lengths
