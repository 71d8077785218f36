"""Bidirectional Transformer over packed sequences (section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infobehavior.model.attention import PackedSequences, attend, attend_from_first
from infobehavior.model.float32_products import rounded_rows


class Dropout(nn.Module):
    """Dropout as ever; on the processor four decisions share a random number, since drawing them takes longest.

    Args:
        probability: share of numbers that are set to zero in training, to 1 / 65,536.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.num_dropped = round(probability * 2**16)

    def forward(self, x: Float[Tensor, "rows model_dim"]) -> Float[Tensor, "rows model_dim"]:
        """Set some numbers to zero and scale the others up."""
        if not self.training or self.num_dropped == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.num_dropped / 2**16)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = torch.ge(drawn[: x.numel()].view_as(x), self.num_dropped - 2**15, out=torch.empty_like(x))
        return x * kept.mul_(2**16 / (2**16 - self.num_dropped))


class TransformerLayer(nn.Module):
    """Multi-head self-attention and a position-wise feed-forward network; each with a residual, then a layer norm."""

    def __init__(self, model_dim: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(model_dim, 3 * model_dim)
        self.attention_output = nn.Linear(model_dim, model_dim)
        self.attention_norm = nn.LayerNorm(model_dim)
        self.feedforward = nn.Sequential(
            nn.Linear(model_dim, feedforward_dim), nn.GELU(), nn.Linear(feedforward_dim, model_dim)
        )
        self.feedforward_norm = nn.LayerNorm(model_dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "rows model_dim"],
        sequences: PackedSequences,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float[Tensor, "rows_or_wanted model_dim"]:
        """Each row attends to its sequence; everything else is row by row, so only for those rows that are wanted."""
        attended = attend(self.query_key_value(x), sequences)
        if wanted is not None:
            x, attended = x[wanted], attended[wanted]
        return self._row_by_row(x, attended)

    def of_first(
        self,
        x: Float[Tensor, "rows model_dim"],
        lengths: Int[Tensor, " sequences"],
        first: Int[Tensor, " sequences"],
        num_heads: int,
    ) -> Float[Tensor, "sequences model_dim"]:
        """The same of the first row of each sequence alone, which needs no query of any other."""
        dim = x.shape[1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        query, key_value = F.linear(x[first], weight[:dim], bias[:dim]), F.linear(x, weight[dim:], bias[dim:])
        return self._row_by_row(x[first], attend_from_first(query, key_value, lengths, num_heads))

    def _row_by_row(
        self, x: Float[Tensor, "rows model_dim"], attended: Float[Tensor, "rows model_dim"]
    ) -> Float[Tensor, "rows model_dim"]:
        x = self.attention_norm(x + self.dropout(self.attention_output(attended)))
        normed: Tensor = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return normed


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
        self.num_heads = num_heads
        self.cls = nn.Parameter(torch.empty(model_dim))
        self.mask = nn.Parameter(torch.empty(model_dim))
        self.position = nn.Embedding(num_positions, model_dim)
        self.input_norm = nn.LayerNorm(model_dim)
        self.dropout = Dropout(dropout)
        self.layers: Sequence[TransformerLayer] = nn.ModuleList(  # type: ignore[assignment]
            TransformerLayer(model_dim, feedforward_dim, dropout) for _ in range(num_layers)
        )
        for weight in (self.cls, self.mask, self.position.weight):
            nn.init.normal_(weight, std=0.02)

    def forward(
        self,
        span_repr: Float[Tensor, "spans model_dim"],
        span_index: Int[Tensor, " spans"],
        window_lengths: Int[Tensor, " windows"],
        masked: Bool[Tensor, " spans"] | None = None,
        wanted: Bool[Tensor, " spans"] | None = None,
    ) -> tuple[Float[Tensor, "windows model_dim"], Float[Tensor, "wanted model_dim"]]:
        """Contextualise packed spans.

        Args:
            span_repr: spans of all windows, one window after the other.
            span_index: place of each span in its window.
            window_lengths: spans of each window.
            masked: True where a span is replaced by [MASK].
            wanted: True where the output at a span is wanted; by default everywhere.

        Returns:
            The outputs of each window's [CLS] and of each span that is wanted.
        """
        if masked is not None:
            span_repr = torch.where(masked[:, None], self.mask, span_repr)
        window = torch.repeat_interleave(torch.arange(len(window_lengths), device=span_repr.device), window_lengths)
        span_rows = torch.arange(len(span_repr), device=span_repr.device) + window + 1
        num_windows = len(window_lengths)
        padding = _padding(len(span_repr) + num_windows, num_windows)
        lengths = torch.cat([window_lengths + 1, padding.to(window_lengths)])
        first = torch.cumsum(lengths, 0) - lengths
        spans = span_repr + self.position(span_index)
        x = spans.new_zeros(int(lengths.sum()), spans.shape[1])
        x.index_copy_(0, span_rows, spans).index_copy_(0, first[:num_windows], self.cls.expand(num_windows, -1))
        x = self.dropout(self.input_norm(x))
        sequences = PackedSequences.of(lengths, self.num_heads)
        for layer in self.layers[:-1]:
            x = layer(x, sequences)
        if wanted is not None and not bool(wanted.any()):
            x = self.layers[-1].of_first(x, lengths, first, self.num_heads)
            return x[:num_windows], x[:0]
        wanted_spans = span_rows if wanted is None else span_rows[wanted]
        num_wanted = len(first) + len(wanted_spans)
        x = self.layers[-1](
            x, sequences, F.pad(torch.cat([first, wanted_spans]), (0, rounded_rows(num_wanted) - num_wanted))
        )
        return x[:num_windows], x[len(first) : num_wanted]


def _padding(num_rows: int, num_sequences: int) -> Int[Tensor, " sequences"]:
    """Lengths of sequences that nobody reads, which round the number of sequences, and that of all rows."""
    more = rounded_rows(num_sequences + 1) - num_sequences
    more_rows = rounded_rows(num_rows + more) - num_rows
    return torch.arange(more_rows, more_rows + more) // more  # about equally long
