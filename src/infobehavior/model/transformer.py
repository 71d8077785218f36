"""Bidirectional Transformer over packed sequences (section 3.2)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

# Sequences share a bucket when their lengths differ by less than this factor, so little is padded in attention.
BUCKET_GROWTH = 1.2


@dataclass(frozen=True)
class PackedSequences:
    """How sequences of different lengths, packed one after the other, are padded for attention alone.

    Sequences of about the same length share a bucket, padded to the longest of them. The places of all buckets
    lie one after the other, so that one gather fills them all and one brings the results back.

    Attributes:
        packed_row: packed row at each place; padding repeats row 0.
        is_padding: whether a place is padding.
        place: place of each packed row.
        buckets: number of sequences and padded length of each bucket.
    """

    packed_row: Int[Tensor, " places"]
    is_padding: Bool[Tensor, " places"]
    place: Int[Tensor, " rows"]
    buckets: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Int[Tensor, " sequences"]) -> Self:
        """Lay out sequences of these lengths, each at least 1."""
        sizes = lengths.cpu().numpy()
        starts = np.cumsum(sizes) - sizes
        bucket_of = np.ceil(np.log(sizes) / np.log(BUCKET_GROWTH)).astype(np.int64)
        rows, paddings, buckets = [], [], []
        for bucket in np.unique(bucket_of):
            members = np.flatnonzero(bucket_of == bucket)
            column = np.arange(sizes[members].max())
            is_padding = column >= sizes[members, None]
            rows.append(np.where(is_padding, 0, starts[members, None] + column).ravel())
            paddings.append(is_padding.ravel())
            buckets.append(is_padding.shape)
        packed_row, padding = np.concatenate(rows), np.concatenate(paddings)
        place = np.empty(sizes.sum(), dtype=np.int64)
        place[packed_row[~padding]] = np.flatnonzero(~padding)
        on_device = [torch.from_numpy(array).to(lengths.device) for array in (packed_row, padding, place)]
        return cls(on_device[0], on_device[1], on_device[2], tuple(buckets))


class TransformerLayer(nn.Module):
    """Multi-head self-attention and a position-wise feed-forward network; each with a residual, then a layer norm."""

    def __init__(self, model_dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(model_dim, 3 * model_dim)
        self.attention_output = nn.Linear(model_dim, model_dim)
        self.attention_norm = nn.LayerNorm(model_dim)
        self.feedforward = nn.Sequential(
            nn.Linear(model_dim, feedforward_dim), nn.GELU(), nn.Linear(feedforward_dim, model_dim)
        )
        self.feedforward_norm = nn.LayerNorm(model_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "rows model_dim"], sequences: PackedSequences
    ) -> Float[Tensor, "rows model_dim"]:
        """Linear layers see packed rows; only attention sees sequences."""
        x = self.attention_norm(x + self.dropout(self.attention_output(self._attend(x, sequences))))
        normed: Tensor = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return normed

    def _attend(
        self, x: Float[Tensor, "rows model_dim"], sequences: PackedSequences
    ) -> Float[Tensor, "rows model_dim"]:
        """Each row attends to the rows of its own sequence."""
        places = F.embedding(sequences.packed_row, self.query_key_value(x))
        sizes = [num_sequences * length for num_sequences, length in sequences.buckets]
        attended = [
            self._attend_in_bucket(bucket.view(*shape, -1), is_padding.view(shape))
            for bucket, is_padding, shape in zip(
                torch.split(places, sizes), torch.split(sequences.is_padding, sizes), sequences.buckets, strict=True
            )
        ]
        return F.embedding(sequences.place, torch.cat(attended))

    def _attend_in_bucket(
        self,
        query_key_value: Float[Tensor, "sequences length three_dims"],
        is_padding: Bool[Tensor, "sequences length"],
    ) -> Float[Tensor, "places model_dim"]:
        """Multi-head self-attention over padded sequences; padding is masked (footnote 4)."""
        num_sequences, length = is_padding.shape
        query, key, value = query_key_value.view(num_sequences, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        may_attend = ~is_padding[:, None, None, :] if is_padding.any() else None
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=may_attend)
        return attended.transpose(1, 2).reshape(num_sequences * length, -1)


class BidirectionalTransformer(nn.Module):
    """[CLS], spans with their positions, and a stack of layers.

    A position is the place of a span in its window, counted with the empty spans, so gaps keep their length.

    Args:
        num_positions: spans of a window, with and without events.
        model_dim: size of a span representation, and of everything after it.
        num_layers: layers of the stack.
        num_heads: heads of each layer.
        feedforward_dim: hidden size of the feed-forward networks.
        dropout: after each sub-layer and on the input, in training.
    """

    def __init__(
        self, num_positions: int, model_dim: int, num_layers: int, num_heads: int, feedforward_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(model_dim))
        self.mask = nn.Parameter(torch.empty(model_dim))
        self.position = nn.Embedding(num_positions, model_dim)
        self.input_norm = nn.LayerNorm(model_dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(model_dim, num_heads, feedforward_dim, dropout) for _ in range(num_layers)
        )
        for weight in (self.cls, self.mask, self.position.weight):
            nn.init.normal_(weight, std=0.02)

    def forward(
        self,
        span_repr: Float[Tensor, "spans model_dim"],
        span_index: Int[Tensor, " spans"],
        window_lengths: Int[Tensor, " windows"],
        masked: Bool[Tensor, " spans"] | None = None,
    ) -> tuple[Float[Tensor, "windows model_dim"], Float[Tensor, "spans model_dim"]]:
        """Contextualise packed spans.

        Args:
            span_repr: spans of all windows, one window after the other.
            span_index: place of each span in its window.
            window_lengths: spans of each window.
            masked: True where a span is replaced by [MASK].

        Returns:
            The outputs of each window's [CLS] and of each span.
        """
        if masked is not None:
            span_repr = torch.where(masked[:, None], self.mask, span_repr)
        window = torch.repeat_interleave(torch.arange(len(window_lengths), device=span_repr.device), window_lengths)
        span_rows = torch.arange(len(span_repr), device=span_repr.device) + window + 1
        cls_rows = torch.cumsum(window_lengths + 1, 0) - (window_lengths + 1)
        x = span_repr.new_empty(len(span_rows) + len(cls_rows), span_repr.shape[1])
        x = x.index_copy(0, span_rows, span_repr + self.position(span_index))
        x = x.index_copy(0, cls_rows, self.cls.expand(len(cls_rows), -1))
        x = self.dropout(self.input_norm(x))
        sequences = PackedSequences.of(window_lengths + 1)
        for layer in self.layers:
            x = layer(x, sequences)
        return x[cls_rows], x[span_rows]
