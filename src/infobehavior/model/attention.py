"""Self-attention among packed sequences of very different lengths, none padded to the longest (section 3.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

BLOCK_ROWS = 64
"""Short sequences share a block of so many rows, in which each attends to itself alone."""

BLOCK_GROWTH = 1.2
"""A longer sequence has a block of its own, padded like others that are shorter by less than this factor."""

FUSED_ROWS = 256
"""Blocks of so many rows or more are left to PyTorch's fused attention, which takes longer for shorter ones."""

MAX_SCORES = 1 << 24
"""Attention scores that are computed at once; in training all probabilities are kept, but for fused attention's."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of a common length, which attention computes as one.

    Attributes:
        num_blocks: how many.
        num_rows: length of each.
        forbidden: minus infinity where a row (second axis) must not attend to another (third axis), else 0. Where each
            block is one sequence, only padding is forbidden, and to all alike.
    """

    num_blocks: int
    num_rows: int
    forbidden: Float[Tensor, "blocks one_or_rows rows"]


@dataclass(frozen=True)
class PackedSequences:
    """Where the rows of packed sequences lie while they attend to each other; all other operations see them packed.

    A part is a row's share of one head, in its query, its key, its value or its output. Parts are gathered to their
    places, where those of one head of a block are neighbours. Each part has one place, so gradients are gathered back
    likewise. Padding repeats the first part, and nothing must come back from it.

    Of two heads and a block of rows 0 and 1 and one of padding, outputs have four parts: `2 * row + head` is a head's
    share of a row. Their places are head by head, so `output_part_at` is (0, 2, padding, 1, 3, padding),
    `output_place_of` is (0, 3, 1, 4) and `output_padding` is (2, 5). Queries, keys and values are the same three times.

    Attributes:
        num_heads: heads.
        blocks: all blocks, those of a common length together.
        part_at: part at each place of queries, keys and values: of each `Blocks` first its queries, by block and head.
        place_of: place of each part of queries, keys and values.
        output_part_at: part at each place of outputs.
        output_place_of: place of each part of outputs.
        output_padding: places of outputs that are padding.
    """

    num_heads: int
    blocks: tuple[Blocks, ...]
    part_at: Int[Tensor, " places"]
    place_of: Int[Tensor, " parts"]
    output_part_at: Int[Tensor, " output_places"]
    output_place_of: Int[Tensor, " output_parts"]
    output_padding: Int[Tensor, " output_padding"]

    @classmethod
    def of(cls, lengths: Int[Tensor, " sequences"], num_heads: int) -> Self:
        """Lay out sequences of these lengths, each at least 1."""
        sizes = lengths.cpu().numpy()
        sequence = np.repeat(np.arange(len(sizes)), sizes)
        rows_of_blocks = list(_rows_of_blocks(sizes))
        blocks = tuple(_blocks(rows, sequence, lengths.device) for rows in rows_of_blocks)
        part_at, place_of, _ = _parts_and_places(rows_of_blocks, 3, num_heads)
        indices = (part_at, place_of, *_parts_and_places(rows_of_blocks, 1, num_heads))
        return cls(num_heads, blocks, *(torch.from_numpy(index).to(lengths.device) for index in indices))


def attend(
    query_key_value: Float[Tensor, "rows three_model_dims"], sequences: PackedSequences
) -> Float[Tensor, "rows model_dim"]:
    """Multi-head self-attention: each row attends to the rows of its own sequence.

    Equals `scaled_dot_product_attention` of each sequence by itself, and is several times faster where most are short.
    """
    attended: Tensor = _Attention.apply(query_key_value, sequences)  # type: ignore[no-untyped-call]
    return attended


def attend_from_first(
    query: Float[Tensor, "sequences model_dim"],
    key_value: Float[Tensor, "rows two_model_dims"],
    lengths: Int[Tensor, " sequences"],
    num_heads: int,
) -> Float[Tensor, "sequences model_dim"]:
    """Multi-head attention of the first row of each sequence alone to all rows of it.

    Equals those rows of `attend`, for the price of reading each row once.
    """
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    query = query.view(len(query), num_heads, -1)
    key, value = key_value.view(len(key_value), 2, num_heads, -1).unbind(1)
    scores = (query[sequence] * key).sum(2) * query.shape[2] ** -0.5
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    largest = torch.segment_reduce(scores, "max", lengths=lengths)
    weight = torch.exp(scores - largest[sequence])
    total = torch.segment_reduce(weight, "sum", lengths=lengths)
    weighted = torch.segment_reduce(weight[:, :, None] * value, "sum", lengths=lengths)
    return (weighted / total[:, :, None]).to(value.dtype).flatten(1)


QueryKeyValue = Float[Tensor, "3 heads rows head_dim"]
Output = Float[Tensor, "heads rows head_dim"]
Forbidden = Float[Tensor, "blocks one_or_rows rows"]


class _Attention(torch.autograd.Function):
    """Attention block by block; what its backward pass needs of each is kept, blocks' probabilities among it."""

    @staticmethod
    def forward(ctx: Any, query_key_value: Tensor, sequences: PackedSequences) -> Tensor:
        head_dim = query_key_value.shape[1] // (3 * sequences.num_heads)
        parts = query_key_value.reshape(-1, head_dim).index_select(0, sequences.part_at)
        outputs = parts.new_empty(len(sequences.output_part_at), head_dim)
        ctx.kept = []
        for part, output, forbidden in _slices(sequences, parts, outputs):
            computed: _Fused | _Probabilities
            if part.shape[2] >= FUSED_ROWS:
                computed = _Fused.of(part, forbidden, ctx.needs_input_grad[0])
                output.copy_(computed.output)
            else:
                computed = _Probabilities.of(part, forbidden)
                torch.bmm(computed.probabilities, part[2], out=output)
            if ctx.needs_input_grad[0]:
                ctx.kept.append(computed)
        ctx.sequences = sequences
        ctx.save_for_backward(parts)
        return outputs.index_select(0, sequences.output_place_of).view(len(query_key_value), -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        sequences: PackedSequences = ctx.sequences
        (parts,) = ctx.saved_tensors
        output_gradients = gradient.reshape(-1, parts.shape[1]).index_select(0, sequences.output_part_at)
        output_gradients.index_fill_(0, sequences.output_padding, 0)
        gradients = torch.empty_like(parts)
        for kept, (of_part, of_output, _) in zip(
            ctx.kept, _slices(sequences, gradients, output_gradients), strict=True
        ):
            kept.differentiate(of_output, of_part)
        return gradients.index_select(0, sequences.place_of).view(len(gradient), -1), None


@dataclass(frozen=True)
class _Fused:
    """PyTorch's own attention in some blocks, with what it keeps for its backward pass.

    Attributes:
        part: queries, keys and values.
        output: what came out.
    """

    part: QueryKeyValue
    output: Output

    @classmethod
    def of(cls, part: QueryKeyValue, forbidden: Forbidden, requires_grad: bool) -> Self:
        with torch.set_grad_enabled(requires_grad):
            part = part.detach().requires_grad_(requires_grad)
            query, key, value = part.view(3, len(forbidden), -1, *part.shape[2:])
            mask = forbidden[:, None].to(part.dtype)
            return cls(part, F.scaled_dot_product_attention(query, key, value, mask).flatten(0, 1))

    def differentiate(self, of_output: Output, of_part: QueryKeyValue) -> None:
        """Write the gradients of queries, keys and values, from those of outputs."""
        of_part.copy_(torch.autograd.grad(self.output, self.part, of_output)[0])


@dataclass(frozen=True)
class _Probabilities:
    """How much each row attends to each other row of its block, for each head of each block.

    Attributes:
        part: queries, keys and values.
        probabilities: of each query, over the keys.
    """

    part: QueryKeyValue
    probabilities: Float[Tensor, "heads rows rows"]

    @classmethod
    def of(cls, part: QueryKeyValue, forbidden: Forbidden) -> Self:
        query, key, _ = part
        shape = (len(forbidden), len(query) // len(forbidden), query.shape[1], query.shape[1])
        scores = forbidden[:, None].to(query.dtype).expand(shape).flatten(0, 1)
        scores = torch.baddbmm(scores, query, key.transpose(1, 2), alpha=query.shape[2] ** -0.5)
        precise = torch.promote_types(scores.dtype, torch.float32)
        return cls(part, torch.softmax(scores, -1, dtype=precise).to(scores.dtype))

    def differentiate(self, of_output: Output, of_part: QueryKeyValue) -> None:
        """Write the gradients of queries, keys and values, from those of outputs."""
        (query, key, value), (of_query, of_key, of_value) = self.part, of_part
        torch.bmm(self.probabilities.transpose(1, 2), of_output, out=of_value)
        of_probabilities = torch.bmm(of_output, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_probabilities, self.probabilities, -1, query.dtype)
        of_scores *= query.shape[2] ** -0.5
        torch.bmm(of_scores, key, out=of_query)
        torch.bmm(of_scores.transpose(1, 2), query, out=of_key)


def _slices(
    sequences: PackedSequences, parts: Float[Tensor, "places head_dim"], outputs: Float[Tensor, "out_places head_dim"]
) -> Iterator[tuple[QueryKeyValue, Output, Forbidden]]:
    """Views of a few blocks at a time: queries, keys and values; outputs; what is forbidden."""
    heads, head_dim = sequences.num_heads, parts.shape[1]
    sizes = [heads * blocks.num_blocks * blocks.num_rows for blocks in sequences.blocks]
    of_blocks = zip(
        sequences.blocks, torch.split(parts, [3 * n for n in sizes]), torch.split(outputs, sizes), strict=True
    )
    for blocks, some_parts, some_outputs in of_blocks:
        three = some_parts.view(3, -1, blocks.num_rows, head_dim)
        output = some_outputs.view(-1, blocks.num_rows, head_dim)
        step = max(1, MAX_SCORES // (heads * blocks.num_rows**2))
        for first in range(0, blocks.num_blocks, step):
            some = slice(first * heads, (first + step) * heads)
            yield three[:, some], output[some], blocks.forbidden[first : first + step]


def _rows_of_blocks(sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Packed row at each place of the blocks of one length (blocks, rows), -1 where there is none; length by length."""
    block, row_of_block = _fill_blocks(sizes)
    used = np.bincount(block)
    length_class = np.ceil(np.log(np.maximum(used / BLOCK_ROWS, 1)) / np.log(BLOCK_GROWTH))
    for alike in np.unique(length_class):
        members = np.flatnonzero(length_class == alike)  # neighbours, since blocks come in order of length
        mine = np.flatnonzero((block >= members[0]) & (block <= members[-1]))
        rows = np.full((len(members), used[members].max()), -1)
        rows[block[mine] - members[0], row_of_block[mine]] = mine
        yield rows


def _fill_blocks(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The block of each packed row, and its place there; sequences fill blocks in order of length."""
    order = np.argsort(sizes, kind="stable")
    ends = np.cumsum(sizes[order])
    starts = ends - sizes[order]
    firsts = [0]
    while (after := _first_that_does_not_fit(starts, ends, firsts[-1])) < len(sizes):
        firsts.append(after)
    block_in_order = np.repeat(np.arange(len(firsts)), np.diff([*firsts, len(sizes)]))
    place_in_order = starts - starts[firsts][block_in_order]
    first_row = np.cumsum(sizes) - sizes
    block, place = np.empty(sizes.sum(), dtype=np.int64), np.empty(sizes.sum(), dtype=np.int64)
    in_order = np.arange(ends[-1]) - np.repeat(starts, sizes[order])
    rows = np.repeat(first_row[order], sizes[order]) + in_order
    block[rows] = np.repeat(block_in_order, sizes[order])
    place[rows] = np.repeat(place_in_order, sizes[order]) + in_order
    return block, place


def _first_that_does_not_fit(starts: NDArray[np.int64], ends: NDArray[np.int64], first: int) -> int:
    """The sequence after those that share a block with the one that begins it."""
    return max(first + 1, int(np.searchsorted(ends, starts[first] + BLOCK_ROWS, side="right")))


def _blocks(rows: NDArray[np.int64], sequence: NDArray[np.int64], device: torch.device) -> Blocks:
    of_row = np.where(rows >= 0, sequence[rows], -1)
    is_shared = bool((np.diff(of_row, axis=1)[rows[:, 1:] >= 0] != 0).any())
    allowed = of_row[:, :, None] == of_row[:, None, :] if is_shared else (rows >= 0)[:, None, :]
    forbidden = np.where(allowed, 0, -np.inf).astype(np.float32)
    return Blocks(rows.shape[0], rows.shape[1], torch.from_numpy(forbidden).to(device))


def _parts_and_places(
    rows_of_blocks: list[NDArray[np.int64]], num_kinds: int, num_heads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The part at each place, the place of each part, and the places that are padding.

    Kinds are query, key and value, or the output alone.
    """
    kind, head = np.arange(num_kinds)[:, None, None, None], np.arange(num_heads)[:, None]
    part_at = [
        np.where(rows >= 0, (rows * num_kinds + kind) * num_heads + head, -1).ravel()
        for rows in (rows[:, None, :] for rows in rows_of_blocks)
    ]
    part = np.concatenate(part_at)
    taken = np.flatnonzero(part >= 0)
    place_of = np.empty(len(taken), dtype=np.int64)
    place_of[part[taken]] = taken
    return np.maximum(part, 0), place_of, np.flatnonzero(part < 0)
