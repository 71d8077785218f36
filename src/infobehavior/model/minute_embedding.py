"""Minute-level representations (section 3.1.1, Figure 3): four embedded tokens, summed."""

import torch.nn.functional as F
from jaxtyping import Float, Int
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
        time_point: see `EncoderConfig.time_point`.
        minute_dim: size of the result.
    """

    def __init__(self, num_behavior_tokens: int, num_location_tokens: int, time_point: str, minute_dim: int) -> None:
        super().__init__()
        self.behavior = nn.EmbeddingBag(num_behavior_tokens, minute_dim, mode="sum")
        self.location = nn.EmbeddingBag(num_location_tokens, minute_dim, mode="sum")
        in_parts = time_point == "week_in_parts"
        self.time_point = WeekInParts(minute_dim) if in_parts else nn.Embedding(MINUTES_OF[time_point], minute_dim)
        self.time_lag = nn.Embedding(NUM_LAG_TOKENS, minute_dim)
        for table in (self.behavior, self.location, self.time_lag, *self.time_point.modules()):
            if isinstance(table, nn.Embedding | nn.EmbeddingBag):
                nn.init.normal_(table.weight, std=INITIAL_STD)

    def forward(self, batch: WindowBatch) -> Float[Tensor, "minutes minute_dim"]:
        """Embed each minute of each span."""
        return self.total(self.parts(batch))

    def parts(self, batch: WindowBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is summed: behavior, location, time point and time lag of each minute, (minutes, minute_dim) each."""
        return (
            _embed_rows(self.behavior, batch.behavior),
            _embed_rows(self.location, batch.location),
            self.time_point(batch.time_point),
            self.time_lag(batch.time_lag),
        )

    @staticmethod
    def total(parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """A minute's embedding: the sum of its parts."""
        behavior, location, time_point, time_lag = parts
        summed: Tensor = behavior + location + time_point + time_lag
        return summed


class WeekInParts(nn.Module):
    """Embeds a minute of the week as the sum of its weekday, its hour and its minute of the hour."""

    def __init__(self, minute_dim: int) -> None:
        super().__init__()
        self.weekday = nn.Embedding(7, minute_dim)
        self.hour = nn.Embedding(24, minute_dim)
        self.minute = nn.Embedding(60, minute_dim)

    def forward(self, minute_of_week: Int[Tensor, " minutes"]) -> Float[Tensor, "minutes minute_dim"]:
        """Embed minutes of the week, from 0 on Mondays."""
        hours = self.weekday.weight[:, None] + self.hour.weight
        whole_week = (hours[:, :, None] + self.minute.weight).flatten(0, 2)
        return F.embedding(minute_of_week, whole_week)


def _embed_rows(table: nn.EmbeddingBag, rows: Rows) -> Float[Tensor, "minutes minute_dim"]:
    """Embed each distinct row once, then hand it to the minutes that have it."""
    embedded = table(rows.tokens, rows.offsets, per_sample_weights=rows.weights.to(table.weight.dtype))
    return F.embedding(rows.of_minute, embedded)
