"""Minute-level representations (section 3.1.1, Figure 3): four embedded tokens, summed."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infobehavior.data.batches import MINUTES_OF, Rows, WindowBatch
from infobehavior.data.vocabulary import NUM_LAG_TOKENS

INITIAL_STD = 0.5


class MinuteEmbedding(nn.Module):
    """Embeds behavior, location, time point and time lag, and adds the four.

    The sum is linear, so that a part that was never seen beside another still has its meaning. A behavior or location
    that falls back to several known tokens has the sum of their rows over the square root of their number.

    Args:
        num_behavior_tokens: rows of the behavior table.
        num_location_tokens: rows of the location table.
        time_point: "minute_of_day" or "minute_of_week".
        minute_dim: size of the result.
    """

    def __init__(self, num_behavior_tokens: int, num_location_tokens: int, time_point: str, minute_dim: int) -> None:
        super().__init__()
        self.behavior = nn.EmbeddingBag(num_behavior_tokens, minute_dim, mode="sum")
        self.location = nn.EmbeddingBag(num_location_tokens, minute_dim, mode="sum")
        self.time_point = nn.Embedding(MINUTES_OF[time_point], minute_dim)
        self.time_lag = nn.Embedding(NUM_LAG_TOKENS, minute_dim)
        for table in (self.behavior, self.location, self.time_point, self.time_lag):
            nn.init.normal_(table.weight, std=INITIAL_STD)

    def forward(self, batch: WindowBatch) -> Float[Tensor, "minutes minute_dim"]:
        """Embed each minute of each span."""
        behavior = _embed_rows(self.behavior, batch.behavior)
        location = _embed_rows(self.location, batch.location)
        total: Tensor = behavior + location + self.time_point(batch.time_point) + self.time_lag(batch.time_lag)
        return total


def _embed_rows(table: nn.EmbeddingBag, rows: Rows) -> Float[Tensor, "minutes minute_dim"]:
    """Embed each distinct row once, then hand it to the minutes that have it."""
    embedded = table(rows.tokens, rows.offsets, per_sample_weights=rows.weights.to(table.weight.dtype))
    return F.embedding(rows.of_minute, embedded)
