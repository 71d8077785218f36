"""What every pretext task reads: two months of each of some entities, encoded."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from infobehavior.data.batches import WindowBatch
from infobehavior.model.infobehavior import Representations
from infobehavior.model.readouts import Readouts


@dataclass(frozen=True)
class MonthPairs:
    """Windows `X_1` of all entities and then windows `X_2` of the same entities in the same order (Figure 4).

    Attributes:
        global_repr: of each window; the first half are `g^1`, the second `g^2`.
        local_repr: of each masked span of all windows.
        span_repr: of each masked span, from the CNN.
        span_window: window of each masked span.
        labels: of each domain-related task, the label of each window.
        read: of each domain-related task, what its layer reads off each window's global representation.
    """

    global_repr: Float[Tensor, "windows model_dim"]
    local_repr: Float[Tensor, "masked model_dim"]
    span_repr: Float[Tensor, "masked model_dim"]
    span_window: Int[Tensor, " masked"]
    labels: Mapping[str, Shaped[Tensor, "windows ..."]]
    read: Mapping[str, Float[Tensor, "windows outputs"]]

    @property
    def num_entities(self) -> int:
        """Entities, each with two windows."""
        return len(self.global_repr) // 2


def pair_months(
    batch: WindowBatch,
    encoded: Representations,
    masked: Bool[Tensor, " spans"],
    labels: Mapping[str, Shaped[Tensor, "windows ..."]],
    readouts: Readouts,
) -> MonthPairs:
    """Put first months, followed by second months, into the form that tasks read.

    Args:
        batch: the windows.
        encoded: their representations; local ones of the masked spans.
        masked: True where a span was replaced by [MASK].
        labels: of each domain-related task, the label of each window.
        readouts: the model's layers for these tasks.
    """
    places = masked.nonzero().squeeze(1)
    span_repr, span_window = encoded.span_repr.index_select(0, places), batch.span_window.index_select(0, places)
    read = {name: readouts.layer(name)(encoded.global_repr) for name in labels}
    return MonthPairs(encoded.global_repr, encoded.local_repr, span_repr, span_window, labels, read)


def similarity(
    a: Float[Tensor, "rows model_dim"], b: Float[Tensor, "columns model_dim"], kind: str, temperature: float
) -> Float[Tensor, "rows columns"]:
    """Phi of equations 1 and 3 for all pairs: the dot product ("dot"), or that of unit vectors ("cosine").

    Args:
        a: some representations.
        b: others.
        kind: "dot" or "cosine".
        temperature: divides the result.
    """
    if kind == "cosine":
        a, b = torch.nn.functional.normalize(a, dim=1), torch.nn.functional.normalize(b, dim=1)
    return a @ b.T / temperature
