"""Bidirectional Transformer over packed sequences (section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infobehavior.model.attention import PackedSequences, attend, attend_from_first
from infobehavior.model.dropout import Dropout
from infobehavior.model.float32_products import of_rows
from infobehavior.model.packed_windows import PackedWindows

NUM_STATISTICS = 3
"""Maxima, minima and standard deviations."""

SMALLEST_VARIANCE = 1e-6
"""Below it a root has no useful gradient."""

NUM_AGES = 16
NUM_SUMMARIES = 3 + NUM_AGES
"""Numbers of a summary, as logarithms: of spans, of positions from the window's end to the first and the last one, and
of spans in each sixteenth of the window."""


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
        cls_input: see `EncoderConfig.cls_input`.
    """

    def __init__(
        self,
        num_positions: int,
        model_dim: int,
        num_layers: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
        cls_input: str = "learned",
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
        self.cls_input = cls_input
        num_inputs = {
            "learned": 0,
            "summary": model_dim + NUM_SUMMARIES,
            "statistics": (2 + NUM_STATISTICS) * model_dim + NUM_SUMMARIES + 1,
        }[cls_input]
        self.summary = nn.Linear(num_inputs, model_dim) if num_inputs else None
        for weight in (self.cls, self.mask, self.position.weight):
            nn.init.normal_(weight, std=0.02)

    def forward(
        self,
        span_repr: Float[Tensor, "spans model_dim"],
        span_index: Int[Tensor, " spans"],
        window_lengths: Int[Tensor, " windows"],
        span_lengths: Int[Tensor, " spans"],
        masked: Bool[Tensor, " spans"] | None = None,
        wanted: Bool[Tensor, " spans"] | None = None,
    ) -> tuple[Float[Tensor, "windows model_dim"], Float[Tensor, "wanted model_dim"]]:
        """Contextualise packed spans.

        Args:
            span_repr: spans of all windows, one window after the other.
            span_index: place of each span in its window.
            window_lengths: spans of each window.
            span_lengths: minutes of each span.
            masked: True where a span is replaced by [MASK].
            wanted: True where the output at a span is wanted; by default everywhere.

        Returns:
            The outputs of each window's [CLS] and of each span that is wanted.
        """
        cls = (
            self.cls[None]
            if self.summary is None
            else self._summarised(span_repr, span_index, window_lengths, span_lengths, masked)
        )
        if masked is not None:
            span_repr = torch.where(masked[:, None], self.mask, span_repr)
        windows = PackedWindows.of(window_lengths, len(span_repr))
        x = windows.rows(cls, span_repr + self.position(span_index))
        x = self.dropout(self.input_norm(x))
        sequences = PackedSequences.of(windows.lengths, self.num_heads)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, sequences)
        if wanted is not None and not bool(wanted.any()):
            x = last.of_first(x, windows.lengths, windows.first, self.num_heads)
            return x[: windows.num_windows], x[:0]
        num_wanted = len(span_index) if wanted is None else int(wanted.sum())
        x = last(x, sequences, windows.wanted_rows(wanted))
        return x[: windows.num_windows], x[len(windows.first) :][:num_wanted]

    def _summarised(
        self,
        span_repr: Float[Tensor, "spans model_dim"],
        span_index: Int[Tensor, " spans"],
        window_lengths: Int[Tensor, " windows"],
        span_lengths: Int[Tensor, " spans"],
        masked: Bool[Tensor, " spans"] | None,
    ) -> Float[Tensor, "windows model_dim"]:
        """[CLS] of each window, with a summary of those of its spans that the layers may see."""
        assert self.summary is not None
        window = torch.repeat_interleave(torch.arange(len(window_lengths), device=span_repr.device), window_lengths)
        if masked is not None:
            seen = ~masked
            span_repr, span_index, span_lengths, window = (
                x[seen] for x in (span_repr, span_index, span_lengths, window)
            )
        num_seen = torch.bincount(window, minlength=len(window_lengths))
        has_any = num_seen > 0
        from_end = (self.position.num_embeddings - span_index).to(span_repr.dtype)
        extremes = [run_reduce(from_end, how, num_seen) for how in ("max", "min")]
        age = span_index * NUM_AGES // self.position.num_embeddings
        of_age = torch.bincount(window * NUM_AGES + age, minlength=len(window_lengths) * NUM_AGES).view(-1, NUM_AGES)
        numbers = torch.log1p(torch.cat([torch.stack([num_seen, *extremes], dim=1), of_age], dim=1))
        parts = torch.cat([run_reduce(span_repr, "mean", num_seen), numbers], dim=1)
        if self.cls_input == "statistics":
            weight = span_lengths.to(span_repr.dtype)[:, None]
            num_minutes = run_reduce(weight, "sum", num_seen)
            mean = run_reduce(span_repr * weight, "sum", num_seen) / num_minutes
            parts = torch.cat([parts, mean, torch.log1p(num_minutes), span_statistics(span_repr, num_seen)], dim=1)
        summarised: Tensor = self.cls + of_rows(self.summary, parts.where(has_any[:, None], 0.0))
        return summarised


def span_statistics(
    span_repr: Float[Tensor, "spans model_dim"], window_lengths: Int[Tensor, " windows"]
) -> Float[Tensor, "windows statistics"]:
    """Maxima, minima and standard deviations of the span representations of each window; zeros if it has none."""
    largest, smallest, mean = (run_reduce(span_repr, how, window_lengths) for how in ("max", "min", "mean"))
    apart = span_repr - mean.repeat_interleave(window_lengths, dim=0)
    deviation = run_reduce(apart**2, "mean", window_lengths).clamp(min=SMALLEST_VARIANCE).sqrt()
    return torch.cat([largest, smallest, deviation], dim=1).where((window_lengths > 0)[:, None], 0.0)


def run_reduce(rows: Tensor, how: str, lengths: Int[Tensor, " runs"]) -> Tensor:
    """Reduce each of some runs of rows; a result doesn't depend on other runs. Those of empty runs mean nothing."""
    reduced: Tensor = torch.segment_reduce(rows, how, lengths=lengths, unsafe=True)
    return reduced
