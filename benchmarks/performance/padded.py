"""The paper's own recipe with this package's parameters: pad, convolve, pad again, Transformer.

What the fast path is measured against. Each span is padded to the longest of the batch and goes through one `Conv1d`
a window size (3.1.2); each sequence is padded to the longest of the batch (dynamic padding, 3.4.1), and padding is
masked in attention (footnote 4). It uses PyTorch's fused attention and embeds no padding, so it isn't slower than it
must be.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infobehavior.data.batches import WindowBatch
from infobehavior.model.infobehavior import InfoBehavior, Representations
from infobehavior.model.readouts import Readouts
from infobehavior.model.transformer import TransformerLayer


class PaddedInfoBehavior(nn.Module):
    """Encodes what `InfoBehavior` encodes, with its parameters, to the same numbers.

    Args:
        model: whose parameters are used.
    """

    def __init__(self, model: InfoBehavior) -> None:
        super().__init__()
        self.model = model

    @property
    def readouts(self) -> Readouts:
        """The layers of the domain-related tasks, which are the model's."""
        return self.model.readouts

    def forward(
        self, batch: WindowBatch, masked: Tensor | None = None, wanted: Tensor | None = None
    ) -> Representations:
        """As `InfoBehavior.forward`; all local representations are computed, whether wanted or not."""
        span_repr = self.model.span_projection(self._encode_spans(batch))
        x = span_repr if masked is None else torch.where(masked[:, None], self.model.transformer.mask, span_repr)
        outputs, is_span = self._transform(x, batch)
        local_repr = outputs[is_span]
        return Representations(outputs[:, 0], local_repr if wanted is None else local_repr[wanted], span_repr)

    def _encode_spans(self, batch: WindowBatch) -> Tensor:
        """Span representations (spans, span_dim), each span padded to the longest."""
        is_minute = _places(batch.span_lengths)
        minutes = self.model.minute_embedding(batch)
        padded = minutes.new_zeros(*is_minute.shape, minutes.shape[1])
        padded[is_minute] = minutes
        channels_first = padded.transpose(1, 2)
        pooled = []
        for convolution in self.model.span_cnn.convolutions:
            convolved = convolution(F.pad(channels_first, (convolution.kernel_size[0] - 1, 0)))
            pooled.append(F.relu(convolved).masked_fill(~is_minute[:, None], 0).amax(2))
        return torch.cat(pooled, dim=1)

    def _transform(self, span_repr: Tensor, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Outputs (windows, longest, model_dim) and which of them are a span's."""
        transformer = self.model.transformer
        is_row = _places(batch.window_lengths + 1)
        is_span = is_row.clone()
        is_span[:, 0] = False
        x = span_repr.new_zeros(*is_row.shape, span_repr.shape[1])
        x[is_span] = span_repr + transformer.position(batch.span_index)
        x[:, 0] = transformer.cls
        x = self._dropout(transformer.input_norm(x))
        for layer in transformer.layers:
            x = self._layer(layer, x, is_row)
        return x, is_span

    def _layer(self, layer: TransformerLayer, x: Tensor, is_row: Tensor) -> Tensor:
        heads = self.model.config.num_heads
        query, key, value = layer.query_key_value(x).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=is_row[:, None, None])
        attended = attended.transpose(1, 2).flatten(2)
        x = layer.attention_norm(x + self._dropout(layer.attention_output(attended)))
        return layer.feedforward_norm(x + self._dropout(layer.feedforward(x)))

    def _dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.model.config.dropout, self.training)


def as_torch_is(num_threads: int) -> AbstractContextManager[None]:
    """PyTorch with the libraries that it chooses itself, for the padded recipe as anyone would run it."""
    torch.set_num_threads(num_threads)
    return nullcontext()


def _places(lengths: Tensor) -> Tensor:
    """True where a place (rows, longest) isn't padding."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
