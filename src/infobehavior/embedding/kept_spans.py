"""Representations of long spans, kept from one day to the next, so that a day represents only those that are new.

A representation is found again by what its span contains, so one whose minutes have changed since is never found; and
it is kept only where computing it again would give the same bytes.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from infobehavior.data.batches import Spans, Tokenizer
from infobehavior.data.vocabulary import NUM_LAG_TOKENS
from infobehavior.embedding.made_by import made_by
from infobehavior.embedding.spans_file import SPANS_FILE, EarlierSpans, Keys, LaterSpans, spans_schema
from infobehavior.errors import InputError
from infobehavior.model.device import find_device
from infobehavior.model.infobehavior import InfoBehavior

MINUTES_OF_KEPT_SPANS = 32
"""Minutes with events from which on a span is kept. There are many shorter ones: keeping them would save little and
fill the disk, where each takes 784 bytes for the paper's encoder."""

Represent = Callable[[Spans], Float[Tensor, "spans model_dim"]]


class KeptSpans:
    """What an earlier run kept, and what this one will.

    Args:
        path: the file. One of another definition, or that is damaged, is as good as none.
        definition: what decides the bytes of a representation, but for the span.
        model_dim: numbers of a representation.

    Attributes:
        num_long: long spans met so far.
        num_found: those of them that were found.
    """

    def __init__(self, path: Path, definition: str, model_dim: int) -> None:
        self.num_long = self.num_found = 0
        self._met: list[Keys] = []
        schema = spans_schema(definition, model_dim)
        self._earlier, self._later = EarlierSpans.read(path, schema), LaterSpans(path, schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After a run that came to its end, what it met takes the place of what was kept before."""
        self._later.end(is_whole=kind is None)

    def keep_earlier(self) -> None:
        """Keep what an earlier run kept beside what this one met, which wasn't all that a later one will ask for."""
        met = _as_one(np.concatenate(self._met)) if self._met else _as_one(np.zeros((0, 2), np.uint64))
        for keys, representations in self._earlier.all():
            is_new = ~np.isin(_as_one(keys), met)
            self._later.add(keys[is_new], representations[is_new])

    @property
    def error(self) -> OSError | None:
        """Why nothing is kept for a later run; None where there is no reason."""
        return self._later.error

    def reusing(self, represent: Represent, tokenizer: Tokenizer) -> Represent:
        """The same representations, computed only where they aren't kept.

        Args:
            represent: computes those of some spans.
            tokenizer: of the store that the spans are from.
        """
        contents = SpanContents(tokenizer)

        def represent_unknown(spans: Spans) -> Tensor:
            is_long = spans.lengths >= MINUTES_OF_KEPT_SPANS
            keys = contents.keys(spans.take(is_long))
            is_known = is_long.copy()
            is_known[is_long], known = self._earlier.find(keys)
            computed = represent(spans.take(~is_known))
            representations = computed.new_empty(len(is_long), computed.shape[1])
            representations[torch.from_numpy(~is_known)] = computed
            representations[torch.from_numpy(is_known)] = torch.from_numpy(known).to(computed)
            self._met.append(keys)
            self._later.add(keys, representations[torch.from_numpy(is_long)].cpu().numpy())
            self.num_long += len(keys)
            self.num_found += len(known)
            return representations

        return represent_unknown


def keep_spans_beside(table: Path, model: InfoBehavior, device: str) -> KeptSpans:
    """What is kept beside a table of embeddings.

    Args:
        table: its folder.
        model: the encoder; is brought to the device.
        device: where to encode.

    Raises:
        InputError: the model's spans move with the window, or there is no such device.
    """
    if model.config.span_origin != "epoch":
        raise InputError(
            "this model's spans begin at the window's start, so those of one day aren't those of the next: pre-train "
            "one with span_origin epoch, or embed without keep_spans"
        )
    model.eval().to(find_device(device))
    return KeptSpans(table / SPANS_FILE, made_by(model), model.config.model_dim)


class SpanContents:
    """Names the contents of spans of a store by numbers: equal ones mean that the encoder sees the same.

    Args:
        tokenizer: of the store.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        store = tokenizer.store
        self._tokenizer = tokenizer
        self._behavior = _digests(row.tobytes() for row in store.composites)
        self._location = _digests([b"", *(f"at {name}".encode() for name in store.location_sets)])

    def keys(self, spans: Spans) -> Keys:
        """The keys of some spans."""
        store, row = self._tokenizer.store, spans.row
        since_start = store.minute[row] - np.repeat(spans.start, spans.lengths)
        assert NUM_LAG_TOKENS <= 1 << 8
        when = (since_start << 32) + (self._tokenizer.time_point(row) << 8) + spans.time_lag
        behavior, location = self._behavior[store.behavior[row]], self._location[store.location[row] + 1]
        minute = _mixed(_mixed(_mixed(when.astype(np.uint64))[:, None] + location) + behavior)
        first = np.cumsum(spans.lengths) - spans.lengths
        return np.add.reduceat(minute, first, axis=0) if len(first) else minute


def _as_one(keys: Keys) -> NDArray[Any]:
    """Both halves of each key as one value."""
    return np.ascontiguousarray(keys).view([("high", np.uint64), ("low", np.uint64)]).ravel()


def _digests(contents: Iterable[bytes]) -> Keys:
    """128 bits of each content."""
    digests = b"".join(hashlib.blake2b(content, digest_size=16).digest() for content in contents)
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


def _mixed(bits: Keys) -> Keys:
    """Each number's bits spread over all 64, each number to another one."""
    bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return bits ^ (bits >> np.uint64(32))
