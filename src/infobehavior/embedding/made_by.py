"""Names what decides the bytes of a representation beside what it represents: model, versions, processor, threads."""

import hashlib
from importlib.metadata import version

import torch
from jaxtyping import Int
from torch import Tensor

from infobehavior.data.batches import MINUTES_OF, Rows, WindowBatch
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.reproducible import reproducible

SPANS_OF_TRIAL = (1, 40, 360)
"""Minutes of the spans whose representations name what makes them."""


def made_by(model: InfoBehavior) -> str:
    """Names whatever decides the bytes of a representation, of a span or of a window, but for what is in it.

    Described are the model and the versions; processor, device, libraries and threads are known by the bytes that they
    give.

    Args:
        model: where it encodes.
    """
    with torch.inference_mode(), reproducible(model.num_threads):
        batch = _trial_batch(model)
        span_repr = model.represent_spans(batch)
        window = model.embed(span_repr, batch.span_index, batch.window_lengths, batch.span_lengths)
        tried = b"".join(part.cpu().numpy().tobytes() for part in (span_repr, window))
    sha256 = hashlib.sha256(tried).hexdigest()
    return f"infobehavior {version('infobehavior')}, torch {torch.__version__}, model {model.model_id}, {sha256}"


def _trial_batch(model: InfoBehavior) -> WindowBatch:
    """A few spans of made-up minutes."""
    embedding, spans = model.minute_embedding, torch.arange(len(SPANS_OF_TRIAL))
    minute = torch.arange(sum(SPANS_OF_TRIAL))
    batch = WindowBatch(
        behavior=_sums_of_two(embedding.behavior.num_embeddings, minute),
        location=_sums_of_two(embedding.location.num_embeddings, minute),
        time_point=minute % MINUTES_OF[model.config.time_point],
        time_lag=minute % embedding.time_lag.num_embeddings,
        span_lengths=torch.tensor(SPANS_OF_TRIAL),
        span_index=spans,
        window_lengths=torch.tensor([len(spans)]),
    )
    return batch.to(next(model.parameters()).device)


def _sums_of_two(num_tokens: int, minute: Int[Tensor, " minutes"]) -> Rows:
    """Each minute's own row, the scaled sum of two tokens."""
    tokens = torch.arange(2 * len(minute)) % num_tokens
    return Rows(tokens, offsets=2 * minute, weights=torch.full(tokens.shape, 0.7), of_minute=minute)
