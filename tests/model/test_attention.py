"""Attention among packed sequences equals attention within each sequence by itself, gradient included."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infobehavior.model import attention
from infobehavior.model.attention import BLOCK_ROWS, FUSED_ROWS, PackedSequences, attend, attend_from_first

NUM_HEADS, HEAD_DIM = 2, 3
TOLERANCE = {"atol": 1e-10, "rtol": 1e-10}


def one_by_one(query_key_value: Tensor, lengths: list[int]) -> Tensor:
    """Each sequence by itself, with PyTorch's own attention."""
    outputs = []
    for rows in query_key_value.split(lengths):
        query, key, value = rows.view(len(rows), 3, NUM_HEADS, HEAD_DIM).permute(1, 2, 0, 3)
        outputs.append(F.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1))
    return torch.cat(outputs)


def assert_same(lengths: list[int]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(sum(lengths), 3 * NUM_HEADS * HEAD_DIM, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(sum(lengths), NUM_HEADS * HEAD_DIM, dtype=torch.float64)

    ours = attend(rows, PackedSequences.of(torch.tensor(lengths), NUM_HEADS))
    theirs = one_by_one(rows, lengths)

    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    ours_gradient, theirs_gradient = (torch.autograd.grad(y, rows, upstream)[0] for y in (ours, theirs))
    torch.testing.assert_close(ours_gradient, theirs_gradient, **TOLERANCE)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 3 * BLOCK_ROWS) | st.integers(1, 6), min_size=1, max_size=30))
def test_any_lengths(lengths: list[int]) -> None:
    assert_same(lengths)


@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [BLOCK_ROWS],
        [BLOCK_ROWS + 1],
        [BLOCK_ROWS - 1, 1, 1],
        [1] * (2 * BLOCK_ROWS + 1),
        [500, 1, 500, 499, 430, 2],
        [FUSED_ROWS - 1, FUSED_ROWS, FUSED_ROWS + 1],
    ],
)
def test_borders_of_blocks(lengths: list[int]) -> None:
    assert_same(lengths)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3 * BLOCK_ROWS) | st.integers(1, 6), min_size=1, max_size=30))
def test_the_first_row_alone_gets_what_it_gets_among_all(sizes: list[int]) -> None:
    torch.manual_seed(0)
    lengths, dim = torch.tensor(sizes), NUM_HEADS * HEAD_DIM
    rows = torch.randn(sum(sizes), 3 * dim, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(len(sizes), dim, dtype=torch.float64)
    first = torch.cumsum(lengths, 0) - lengths

    alone = attend_from_first(rows[first, :dim], rows[:, dim:], lengths, NUM_HEADS)
    among_all = one_by_one(rows, sizes)[first]

    torch.testing.assert_close(alone, among_all, **TOLERANCE)
    ours, theirs = (torch.autograd.grad(y, rows, upstream)[0] for y in (alone, among_all))
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_long_sequences_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * NUM_HEADS * FUSED_ROWS**2)

    assert_same([FUSED_ROWS + i for i in range(7)])


@pytest.mark.parametrize("lengths", [[3, 5, 40], [FUSED_ROWS, FUSED_ROWS + 9]])
def test_bfloat16_is_near(lengths: list[int]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(sum(lengths), 3 * NUM_HEADS * HEAD_DIM, requires_grad=True)
    sequences = PackedSequences.of(torch.tensor(lengths), NUM_HEADS)

    exact, near = attend(rows, sequences), attend(rows.bfloat16(), sequences).float()

    torch.testing.assert_close(near, exact, atol=0.05, rtol=0.05)
    exact_gradient, near_gradient = (torch.autograd.grad(y.sum(), rows)[0] for y in (exact, near))
    torch.testing.assert_close(near_gradient, exact_gradient, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("max_scores", [1, NUM_HEADS * BLOCK_ROWS**2, 3 * NUM_HEADS * BLOCK_ROWS**2])
def test_what_is_in_memory_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch, max_scores: int) -> None:
    monkeypatch.setattr(attention, "MAX_SCORES", max_scores)

    assert_same([40] * 7 + [100, 101, 102])


def test_little_is_padded_when_sequences_are_short() -> None:
    sequences = PackedSequences.of(torch.tensor([4] * 1_000), 1)

    assert [blocks.num_rows for blocks in sequences.blocks] == [BLOCK_ROWS]
    assert len(sequences.output_padding) < 0.05 * 4_000
