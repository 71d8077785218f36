"""Representations of spans on disk, found by key: what an earlier run kept, and what a later one will find."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infobehavior.artefacts import beside, move_into_place

SPANS_FILE = "_spans.arrow"

SPANS_PER_WRITE = 4_096

DIGEST = b"digest of the representations"
"""What the metadata of a batch call it."""

Keys = NDArray[np.uint64]
"""128 bits for each span, as two columns."""

Vectors = NDArray[np.float32]
"""A representation for each span, (spans, model_dim)."""


class EarlierSpans:
    """What an earlier run kept; only the keys are in memory.

    Args:
        keys: of all spans.
        chunks: their representations, chunk by chunk.
        digests: what each chunk was when it was written.
    """

    def __init__(self, keys: Keys, chunks: list[Vectors], digests: list[str]) -> None:
        self._chunks, self._digests = chunks, digests
        self._first_of_chunk = np.cumsum([0, *map(len, chunks)])[:-1]
        self._order = np.argsort(keys[:, 0], kind="stable")
        self._keys = keys[self._order]
        self._is_whole: dict[int, bool] = {}

    @classmethod
    def read(cls, path: Path, schema: pa.Schema) -> Self:
        """Read the keys of a file; one of another schema, or that is damaged, is as good as none."""
        dim = schema.field("representation").type.list_size
        nothing = np.zeros((0, 2), np.uint64), np.zeros((0, dim), np.float32), ""
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            is_ours = reader.schema.equals(schema, check_metadata=True)
            numbers = range(reader.num_record_batches if is_ours else 0)
            batches = [nothing, *(_read_batch(reader, number, dim) for number in numbers)]
        except (OSError, ValueError, pa.ArrowException):
            batches = [nothing]
        keys, chunks, digests = (list(part) for part in zip(*batches, strict=True))
        return cls(np.concatenate(keys), chunks, digests)

    def find(self, keys: Keys) -> tuple[NDArray[np.bool_], Vectors]:
        """Look some spans up.

        Returns:
            True for each span that was kept, and the representations of those.
        """
        at = np.searchsorted(self._keys[:, 0], keys[:, 0])
        is_known = at < len(self._keys)
        is_known[is_known] = (self._keys[at[is_known]] == keys[is_known]).all(axis=1)
        row = self._order[at[is_known]]
        chunk = np.searchsorted(self._first_of_chunk, row, side="right") - 1
        is_whole = np.isin(chunk, [i for i in np.unique(chunk).tolist() if self._check(i)])
        is_known[is_known] = is_whole
        row, chunk = row[is_whole], chunk[is_whole]
        known = np.empty((len(row), self._chunks[0].shape[1]), dtype=np.float32)
        for i in np.unique(chunk):
            known[chunk == i] = self._chunks[i][row[chunk == i] - self._first_of_chunk[i]]
        return is_known, known

    def all(self) -> Iterator[tuple[Keys, Vectors]]:
        """What was kept, chunk by chunk; what is damaged isn't among it."""
        first_of_chunk = [*self._first_of_chunk.tolist(), len(self._keys)]
        keys = np.empty_like(self._keys)
        keys[self._order] = self._keys
        for chunk, (start, end) in enumerate(pairwise(first_of_chunk)):
            if self._check(chunk):
                yield keys[start:end], self._chunks[chunk]

    def _check(self, chunk: int) -> bool:
        """Whether a chunk is still what was written; looked at once, when it is first used."""
        if chunk not in self._is_whole:
            self._is_whole[chunk] = _digest(self._chunks[chunk]) == self._digests[chunk]
        return self._is_whole[chunk]


class LaterSpans:
    """What a later run will find, first beside its place.

    It is only a saving, so an error of the disk ends it and nothing else.

    Args:
        path: its place.
        schema: of its batches.

    Attributes:
        error: why nothing is kept; None where there is no reason.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.error: OSError | None = None
        self._path, self._schema = path, schema
        self._stack = ExitStack()
        self._file: _OpenFile | None = None
        self._pending: list[tuple[Keys, Vectors]] = []
        self._num_pending = 0

    def add(self, keys: Keys, representations: Vectors) -> None:
        """Keep some spans."""
        if len(keys) == 0 or self.error:
            return
        self._pending.append((keys, representations))
        self._num_pending += len(keys)
        if self._num_pending >= SPANS_PER_WRITE:
            self._try(self._write)

    def end(self, is_whole: bool) -> None:
        """Take the place of what was kept before, if all of it is here; if not, or if it is nothing, that stays."""
        if is_whole and not self.error:
            self._try(self._move)
        self._try(self._stack.close)

    def _try(self, step: Callable[[], None]) -> None:
        """After an error nothing is left, so that the table has what room there is."""
        try:
            step()
        except OSError as error:
            self.error = self.error or error
            with suppress(OSError):
                self._stack.close()

    def _write(self) -> None:
        if self._pending:
            self._file = self._file or _OpenFile(self._path, self._schema, self._stack)
            self._file.write(*(np.concatenate(part) for part in zip(*self._pending, strict=True)))
            self._pending, self._num_pending = [], 0

    def _move(self) -> None:
        self._write()
        if self._file:
            self._file.move()


class _OpenFile:
    """A file that is written beside its place.

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

    def write(self, keys: Keys, representations: Vectors) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(representations.ravel()), representations.shape[1])
        batch = pa.record_batch([pa.array(keys[:, 0]), pa.array(keys[:, 1]), vectors], schema=self._schema)
        self._writer.write_batch(batch, custom_metadata={DIGEST: _digest(representations)})

    def move(self) -> None:
        self._open.close()
        move_into_place(self._temporary, self._path)


def spans_schema(definition: str, model_dim: int) -> pa.Schema:
    """Of a file of representations.

    Args:
        definition: what decides the bytes of a representation, but for the span.
        model_dim: numbers of a representation.
    """
    columns = [("key_0", pa.uint64()), ("key_1", pa.uint64()), ("representation", pa.list_(pa.float32(), model_dim))]
    return pa.schema(columns, metadata={"made by": definition})


def _read_batch(reader: Any, number: int, dim: int) -> tuple[Keys, Vectors, str]:
    batch, metadata = reader.get_batch_with_custom_metadata(number)
    batch.validate()
    keys = np.column_stack([batch[0].to_numpy(), batch[1].to_numpy()])
    vectors = batch[2].flatten().to_numpy().reshape(len(keys), dim)
    return keys, vectors, dict(metadata or {}).get(DIGEST, b"").decode(errors="replace")


def _digest(representations: Vectors) -> str:
    return hashlib.blake2b(representations.tobytes(), digest_size=16).hexdigest()
