"""Representations of long spans, kept from one day to the next, so that a day costs what is new in its windows.

A representation is found again by what its span contains, so one whose minutes have changed since is never found; and
it is kept only where computing it again would give the same bytes.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from infobehavior.artefacts import beside, move_into_place
from infobehavior.data.batches import Spans, Tokenizer
from infobehavior.errors import InputError
from infobehavior.model.float32_products import rows_are_independent
from infobehavior.model.infobehavior import InfoBehavior

FILE = "_spans.arrow"

LONG_SPAN = 32
"""Minutes with events from which on a span is kept; encoding fewer costs little, and each span takes 4 bytes a number
on disk, 768 in all for the paper's encoder."""

SPANS_PER_WRITE = 4_096

Keys = NDArray[np.uint64]
"""128 bits for each span, as two columns."""

Represent = Callable[[Spans], Float[Tensor, "spans model_dim"]]


class KeptSpans:
    """What an earlier run kept, and what this one will.

    Args:
        path: the file; one that another model, machine or version of PyTorch wrote is as good as none.
        definition: what wrote it.
        embedding_dim: numbers of a representation.

    Attributes:
        num_long: long spans met so far.
        num_found: those of them that were found.
    """

    def __init__(self, path: Path, definition: str, embedding_dim: int) -> None:
        self.num_long = self.num_found = 0
        self._path, self._schema = path, _schema(definition, embedding_dim)
        self._before = _Before.read(path, self._schema)
        self._pending: list[tuple[Keys, NDArray[np.float32]]] = []
        self._new: _NewFile | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After a run that came to its end, what it met takes the place of what was kept before."""
        with self._stack:
            if kind is None:
                self._write()
                if self._new:
                    self._new.move()

    def before(self, represent: Represent, tokenizer: Tokenizer) -> Represent:
        """The same representations, computed only where they aren't kept.

        Args:
            represent: computes those of some spans.
            tokenizer: of the store that the spans are from.
        """
        contents = SpanContents(tokenizer)

        def represent_unknown(spans: Spans) -> Tensor:
            is_long = spans.lengths >= LONG_SPAN
            keys = contents.keys(spans.take(is_long))
            is_known = is_long.copy()
            is_known[is_long], known = self._before.find(keys)
            computed = represent(spans.take(~is_known))
            representations = computed.new_empty(len(is_long), computed.shape[1])
            representations[torch.from_numpy(~is_known)] = computed
            representations[torch.from_numpy(is_known)] = torch.from_numpy(known).to(computed)
            self._add(keys, representations[torch.from_numpy(is_long)].cpu().numpy(), len(known))
            return representations

        return represent_unknown

    def _add(self, keys: Keys, representations: NDArray[np.float32], num_found: int) -> None:
        self.num_long += len(keys)
        self.num_found += num_found
        self._pending.append((keys, representations))
        if sum(len(keys) for keys, _ in self._pending) >= SPANS_PER_WRITE:
            self._write()

    def _write(self) -> None:
        if self._pending:
            self._new = self._new or _NewFile(self._path, self._schema, self._stack)
            self._new.write(*(np.concatenate(part) for part in zip(*self._pending, strict=True)))
            self._pending = []


def keep_spans_beside(table: Path, model: InfoBehavior, device: str) -> KeptSpans:
    """What is kept beside a table of embeddings.

    Raises:
        InputError: the model's spans move with the window.
    """
    if model.config.span_origin != "epoch":
        raise InputError(
            "this model's spans begin at the window's start, so those of one day aren't those of the next: pre-train "
            "one with span_origin epoch, or embed without keep_spans"
        )
    return KeptSpans(table / FILE, _definition(model, device), model.config.model_dim)


def refuse_dependent_rows(model: InfoBehavior) -> None:
    """Refuse to keep representations where a product's last digits depend on what else is in its batch.

    Raises:
        InputError: this is such a machine.
    """
    factors = [model.span_cnn.kernel().flatten(0, 1)]
    if isinstance(model.span_projection, torch.nn.Linear):
        factors.append(model.span_projection.weight.T)
    if not all(rows_are_independent(factor) for factor in factors):
        raise InputError(
            "on this machine the last digits of a product depend on what else is in its batch, so kept "
            "representations would not be the ones that are computed anew; embed without keep_spans"
        )


class SpanContents:
    """Names the contents of spans of a store by numbers: equal ones for spans that the encoder can't tell apart.

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
        when = (since_start << 32) + (self._tokenizer.time_point[row].astype(np.int64) << 8) + spans.time_lag
        behavior, location = self._behavior[store.behavior[row]], self._location[store.location[row] + 1]
        minute = _mixed(_mixed(_mixed(when.astype(np.uint64))[:, None] + location) + behavior)
        first = np.cumsum(spans.lengths) - spans.lengths
        return np.add.reduceat(minute, first, axis=0) if len(first) else minute


class _Before:
    """What an earlier run kept, on disk; only its keys are in memory.

    Args:
        keys: of all spans.
        chunks: their representations, chunk by chunk.
    """

    def __init__(self, keys: Keys, chunks: list[NDArray[np.float32]]) -> None:
        self.chunks = chunks
        self.first_of_chunk = np.cumsum([0, *map(len, chunks)])[:-1]
        self.order = np.argsort(keys[:, 0], kind="stable")
        self.keys = keys[self.order]

    @classmethod
    def read(cls, path: Path, schema: pa.Schema) -> Self:
        dim = schema.field("representation").type.list_size
        nothing = cls(np.zeros((0, 2), np.uint64), [np.zeros((0, dim), np.float32)])
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (OSError, pa.ArrowInvalid):
            return nothing
        if not reader.schema.equals(schema, check_metadata=True):
            return nothing
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        keys = [np.column_stack([batch[0].to_numpy(), batch[1].to_numpy()]) for batch in batches]
        chunks = [batch[2].flatten().to_numpy().reshape(-1, dim) for batch in batches]
        return cls(np.concatenate(keys), chunks) if keys else nothing

    def find(self, keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        at = np.searchsorted(self.keys[:, 0], keys[:, 0])
        is_known = at < len(self.keys)
        is_known[is_known] = (self.keys[at[is_known]] == keys[is_known]).all(axis=1)
        row = self.order[at[is_known]]
        chunk = np.searchsorted(self.first_of_chunk, row, side="right") - 1
        known = np.empty((len(row), self.chunks[0].shape[1]), dtype=np.float32)
        for i in np.unique(chunk):
            known[chunk == i] = self.chunks[i][row[chunk == i] - self.first_of_chunk[i]]
        return is_known, known


class _NewFile:
    """The file for a later run, first beside its place.

    Args:
        path: its place.
        schema: of its batches.
        stack: at whose end it is closed, and removed if it wasn't moved.
    """

    def __init__(self, path: Path, schema: pa.Schema, stack: ExitStack) -> None:
        self._path, self._schema = path, schema
        self._temporary = stack.enter_context(beside(path))
        self._open = stack.enter_context(ExitStack())
        sink = self._open.enter_context(pa.OSFile(str(self._temporary), "wb"))
        self._writer = self._open.enter_context(pa.ipc.new_file(sink, schema))

    def write(self, keys: Keys, representations: NDArray[np.float32]) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(representations.ravel()), representations.shape[1])
        columns = [pa.array(keys[:, 0]), pa.array(keys[:, 1]), vectors]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def move(self) -> None:
        self._open.close()
        move_into_place(self._temporary, self._path)


def _definition(model: InfoBehavior, device: str) -> str:
    """Whatever decides the bytes of a representation, but for the span."""
    return f"{model.model_id}, {device}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def _schema(definition: str, embedding_dim: int) -> pa.Schema:
    columns = [
        ("key_0", pa.uint64()),
        ("key_1", pa.uint64()),
        ("representation", pa.list_(pa.float32(), embedding_dim)),
    ]
    return pa.schema(columns, metadata={"made by": definition})


def _digests(contents: Iterable[bytes]) -> Keys:
    """128 bits of each content."""
    digests = b"".join(hashlib.blake2b(content, digest_size=16).digest() for content in contents)
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


def _mixed(bits: Keys) -> Keys:
    """Each number's bits spread over all 64, each number to another one."""
    bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return bits ^ (bits >> np.uint64(32))
