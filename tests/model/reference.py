"""The encoder straight from the paper: placeholders, padding and loops. Slow, and obvious on purpose.

It shares only the parameters with the package (a state dict), and what the configuration and the vocabulary say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import torch
from torch import Tensor

from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.model.config import EncoderConfig

Parameters = dict[str, Tensor]
LARGE_NEGATIVE = -1e9
LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Minute:
    """What an entity did in one minute.

    Attributes:
        minute: UTC epoch minute.
        behaviors: level (1, 2 or 3) of each behavior, by code.
        locations: where, in any order.
    """

    minute: int
    behaviors: dict[int, int]
    locations: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Window:
    """The minutes of one entity in a window that ends at `end`."""

    minutes: list[Minute]
    end: int


@dataclass
class Span:
    """The minutes with events of one span, and which span of its window it is."""

    index: int
    minutes: list[Minute] = field(default_factory=list)


def make_store(entities: Sequence[Sequence[Minute]], num_words: int = 1) -> MinuteStore:
    """The same minutes as the package wants them."""
    rows = [minute for minutes in entities for minute in sorted(minutes, key=lambda m: m.minute)]
    words = [_pack(row.behaviors, num_words) for row in rows]
    sets = ["\x1f".join(sorted(row.locations)) for row in rows]
    composites = list(dict.fromkeys(words))
    location_sets = list(dict.fromkeys(name for name in sets if name))
    return MinuteStore(
        entities=np.arange(len(entities)),
        offsets=np.cumsum([0, *(len(minutes) for minutes in entities)]),
        minute=np.array([row.minute for row in rows], dtype=np.int32),
        behavior=np.array([composites.index(word) for word in words], dtype=np.int32),
        location=np.array([location_sets.index(name) if name else -1 for name in sets], dtype=np.int32),
        num_events=np.array([sum(row.behaviors.values()) for row in rows], dtype=np.int32),
        num_failures=np.zeros(len(rows), dtype=np.int32),
        composites=np.array(composites, dtype=np.int64).reshape(-1, num_words),
        location_sets=location_sets,
    )


def _pack(behaviors: dict[int, int], num_words: int) -> tuple[int, ...]:
    words = [0] * num_words
    for code, level in behaviors.items():
        words[code // 31] += level * 4 ** (code % 31)
    return tuple(words)


def _unpack(words: Sequence[int]) -> frozenset[tuple[int, int]]:
    parts = set()
    for place, word in enumerate(words):
        for position in range(31):
            level = word // 4**position % 4
            if level:
                parts.add((31 * place + position, level))
    return frozenset(parts)


@dataclass(frozen=True)
class ReferenceEncoder:
    """Section 3.1.1 (second half), 3.1.2 and 3.2."""

    config: EncoderConfig
    vocabulary: Vocabulary
    time_zone: str
    parameters: Parameters

    def encode(
        self, windows: Sequence[Window], masked: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Global, local and span representations, and the number of valid spans of each window."""
        split = [self.split(window) for window in windows]
        lengths = [len(spans) for spans in split]
        lags = [time_lags(window, self.config.window_minutes) for window in windows]
        span_repr = [[self.encode_span(span, lag) for span in spans] for spans, lag in zip(split, lags, strict=True)]
        global_repr, local_repr = self.transform(
            [[span.index for span in spans] for spans in split],
            [[len(span.minutes) for span in spans] for spans in split],
            span_repr,
            masked or [False] * sum(lengths),
        )
        return global_repr, local_repr, self._stack([s for spans in span_repr for s in spans]), lengths

    # Hierarchical grouping -----------------------------------------------------------------------------------------

    def split(self, window: Window) -> list[Span]:
        """Footnote 2: expand to every minute with placeholders, then split. Footnote 3: keep spans with behaviors."""
        window_start = window.end - self.config.window_minutes
        first = window_start
        if self.config.span_origin == "epoch":
            first -= self.config.span_minutes - 1
            first += -first % self.config.stride_minutes
        length = window.end - first
        expanded: list[Minute | None] = [None] * length
        for minute in window.minutes:
            if window_start <= minute.minute < window.end:
                expanded[minute.minute - first] = minute
        spans, start, index = [], 0, 0
        while start < length:
            fragment = expanded[start : start + self.config.span_minutes]
            present = [minute for minute in fragment if minute is not None]
            if present:
                spans.append(Span(index, present))
            if self.config.span_origin == "window" and start + self.config.span_minutes >= length:
                break
            start += self.config.stride_minutes
            index += 1
        return spans

    def embed_minute(self, minute: Minute, lag: int | None) -> Tensor:
        """Figure 3: four tokens, four vectors, one sum."""
        behavior, location, time_point, time_lag = self.parts_of_minute(minute, lag)
        return behavior + location + time_point + time_lag

    def parts_of_minute(self, minute: Minute, lag: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four vectors."""
        return (
            self._scaled_sum("minute_embedding.behavior.weight", self._behavior_rows(minute)),
            self._scaled_sum("minute_embedding.location.weight", self._location_rows(minute)),
            self._embed_time_point(minute),
            self.parameters["minute_embedding.time_lag.weight"][lag_token(lag)],
        )

    def _scaled_sum(self, table: str, rows: list[int]) -> Tensor:
        """The sum of some rows, scaled so that a sum of independent rows is as long as one."""
        total = self.parameters[table][rows[0]]
        for row in rows[1:]:
            total = total + self.parameters[table][row]
        return total / math.sqrt(len(rows))

    def _behavior_rows(self, minute: Minute) -> list[int]:
        row_of = {_unpack(words): row for row, words in enumerate(self.vocabulary.behaviors, start=1)}
        whole = frozenset(minute.behaviors.items())
        parts = [row_of[frozenset([part])] for part in sorted(whole) if frozenset([part]) in row_of]
        if whole not in row_of:
            return parts or [0]
        if self.config.behavior_rows == "composite_and_parts" and len(whole) > 1:
            return [row_of[whole], *parts]
        return [row_of[whole]]

    def _location_rows(self, minute: Minute) -> list[int]:
        row_of = {frozenset(name.split("\x1f")): row for row, name in enumerate(self.vocabulary.locations, start=2)}
        if not minute.locations:
            return [1]
        if minute.locations in row_of:
            return [row_of[minute.locations]]
        parts = [row_of[frozenset([name])] for name in sorted(minute.locations) if frozenset([name]) in row_of]
        return parts or [0]

    def _embed_time_point(self, minute: Minute) -> Tensor:
        moment = datetime.fromtimestamp(minute.minute * 60, UTC).astimezone(ZoneInfo(self.time_zone))
        name, of_day = "minute_embedding.time_point", 60 * moment.hour + moment.minute
        if self.config.time_point == "week_in_parts":
            parts = {"weekday": moment.weekday(), "hour": moment.hour, "minute": moment.minute}
            rows = [self.parameters[f"{name}.{part}.weight"][row] for part, row in parts.items()]
            return rows[0] + rows[1] + rows[2]
        row = of_day if self.config.time_point == "minute_of_day" else 1_440 * moment.weekday() + of_day
        return self.parameters[f"{name}.weight"][row]

    def encode_span(self, span: Span, lags: dict[int, int | None]) -> Tensor:
        """Section 3.1.2 (TextCNN): multi-window convolution, ReLU, max over time."""
        embedded = [self.embed_minute(minute, lags[minute.minute]) for minute in span.minutes]
        pooled = []
        for which, size in enumerate(self.config.kernel_sizes):
            weight = self.parameters[f"span_cnn.convolutions.{which}.weight"]
            bias = self.parameters[f"span_cnn.convolutions.{which}.bias"]
            padded = [torch.zeros_like(embedded[0])] * (size - 1) + embedded
            outputs = []
            for last in range(len(embedded)):
                total = bias
                for offset in range(size):
                    total = total + weight[:, :, offset] @ padded[last + offset]
                outputs.append(total.clamp(min=0))
            pooled.append(torch.stack(outputs).amax(0))
        represented = torch.cat(pooled)
        if "span_projection.weight" in self.parameters:
            represented = self._linear("span_projection", represented)
        if self.config.span_pooling != "max":
            log_minutes = represented.new_tensor([math.log(1 + len(embedded))])
            parts = [self.parts_of_minute(minute, lags[minute.minute]) for minute in span.minutes]
            of_parts = [sum(part) / len(span.minutes) for part in zip(*parts, strict=True)]
            means = of_parts if self.config.span_pooling == "max_and_means" else [sum(of_parts)]
            represented = represented + self._linear("span_mean", torch.cat([*means, log_minutes]))
        return represented

    # Bidirectional Transformer -------------------------------------------------------------------------------------

    def transform(
        self,
        places: list[list[int]],
        num_minutes: list[list[int]],
        span_repr: list[list[Tensor]],
        masked: Sequence[bool],
    ) -> tuple[Tensor, Tensor]:
        """[CLS] and spans, padded to the longest sequence of the batch (3.4.1), masked by addition (footnote 4)."""
        remaining, also_masked = iter(masked), iter(masked)
        sequences = [
            [self._cls(window_places, window_minutes, spans, [next(also_masked) for _ in spans])]
            + [
                (self.parameters["transformer.mask"] if next(remaining) else span)
                + self.parameters["transformer.position.weight"][place]
                for place, span in zip(window_places, spans, strict=True)
            ]
            for window_places, window_minutes, spans in zip(places, num_minutes, span_repr, strict=True)
        ]
        longest = max(len(sequence) for sequence in sequences)
        padding = torch.zeros_like(self.parameters["transformer.cls"])
        x = torch.stack([torch.stack(s + [padding] * (longest - len(s))) for s in sequences])
        mask = x.new_tensor([[0.0] * len(s) + [LARGE_NEGATIVE] * (longest - len(s)) for s in sequences])
        x = self._layer_norm("transformer.input_norm", x)
        for layer in range(self.config.num_layers):
            x = self._layer(f"transformer.layers.{layer}", x, mask)
        outputs = [x[window, : len(sequence)] for window, sequence in enumerate(sequences)]
        return torch.stack([output[0] for output in outputs]), torch.cat([output[1:] for output in outputs])

    def _cls(self, places: list[int], num_minutes: list[int], spans: list[Tensor], masked: list[bool]) -> Tensor:
        """[CLS], beyond the paper with a summary of what isn't masked."""
        cls = self.parameters["transformer.cls"]
        of_spans = zip(places, num_minutes, spans, masked, strict=True)
        seen = [(place, minutes, span) for place, minutes, span, is_masked in of_spans if not is_masked]
        if self.config.cls_input == "learned":
            return cls
        if not seen:
            nothing = cls.new_zeros(self.parameters["transformer.summary.weight"].shape[1])
            return cls + self._linear("transformer.summary", nothing)
        from_end = [len(self.parameters["transformer.position.weight"]) - place for place, *_ in seen]
        ages = [place * 16 // len(self.parameters["transformer.position.weight"]) for place, *_ in seen]
        counts = [len(seen), max(from_end), min(from_end), *(ages.count(age) for age in range(16))]
        numbers = [math.log(1 + count) for count in counts]
        mean = torch.stack([span for *_, span in seen]).sum(0) / len(seen)
        parts = [mean, mean.new_tensor(numbers)]
        if self.config.cls_input == "statistics":
            total = sum(minutes for _, minutes, _ in seen)
            by_minutes = torch.stack([minutes * span for _, minutes, span in seen]).sum(0) / total
            spans = torch.stack([span for *_, span in seen])
            deviation = torch.sqrt(((spans - mean) ** 2).mean(0).clamp(min=1e-6))
            parts += [by_minutes, mean.new_tensor([math.log(1 + total)]), spans.amax(0), spans.amin(0), deviation]
        return cls + self._linear("transformer.summary", torch.cat(parts))

    def _layer(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        x = self._layer_norm(f"{name}.attention_norm", x + self._attend(name, x, mask))
        hidden = self._linear(f"{name}.feedforward.0", x)
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return self._layer_norm(f"{name}.feedforward_norm", x + self._linear(f"{name}.feedforward.2", hidden))

    def _attend(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        dim, head_dim = self.config.model_dim, self.config.head_dim
        together = self._linear(f"{name}.query_key_value", x)
        query, key, value = together[..., :dim], together[..., dim : 2 * dim], together[..., 2 * dim :]
        heads = []
        for head in range(self.config.num_heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(head_dim)
            scores = torch.exp(scores + mask[:, None, :] - scores.amax(2, keepdim=True).detach())
            heads.append(scores / scores.sum(2, keepdim=True) @ value[..., part])
        return self._linear(f"{name}.attention_output", torch.cat(heads, dim=2))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def _layer_norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = torch.sqrt((centred**2).mean(-1, keepdim=True) + LAYER_NORM_EPSILON)
        return centred / deviation * self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"]

    def _stack(self, rows: list[Tensor]) -> Tensor:
        empty = self.parameters["transformer.cls"].new_zeros(0, self.config.model_dim)
        return torch.stack(rows) if rows else empty


def time_lags(window: Window, window_minutes: int) -> dict[int, int | None]:
    """Minutes since the minute with events before it in the window; None for the first one."""
    lags: dict[int, int | None] = {}
    before = None
    for minute in sorted(m.minute for m in window.minutes):
        if window.end - window_minutes <= minute < window.end:
            lags[minute] = None if before is None else minute - before
            before = minute
    return lags


def lag_token(lag: int | None) -> int:
    """0 for the first minute; then one token a minute up to an hour, and tokens that grow by a tenth up to a year."""
    if lag is None:
        return 0
    year, steps = 527_040, 95
    begins = {*range(1, 61), *(round(60 * (year / 60) ** (i / steps)) for i in range(steps + 1))}
    return sum(1 for begin in begins if begin <= lag)
