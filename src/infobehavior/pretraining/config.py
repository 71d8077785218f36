"""How to pre-train; the defaults are the paper's numbers (section 4.1.2), the presets name whole settings."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from infobehavior.errors import InputError
from infobehavior.model.config import EncoderConfig


class PretrainConfig(BaseModel):
    """What decides a pre-training, beside the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    encoder: EncoderConfig = EncoderConfig()
    num_steps: PositiveInt = Field(76_000, description="training steps")
    batch_size: int = Field(128, ge=2, description="entities of a step, each with two windows, over all processes")
    learning_rate: PositiveFloat = Field(1e-4, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    beta1: float = Field(0.9, ge=0, lt=1, description="first beta of AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="second beta of AdamW")
    warmup_proportion: float = Field(0.1, ge=0, lt=1, description="share of steps in which the learning rate rises")
    clip_norm: PositiveFloat = Field(1.0, description="gradients with a larger L2 norm are scaled down to it")
    mask_rate: float = Field(0.15, gt=0, lt=1, description="share of a window's spans that are masked")
    coarse_task: bool = Field(True, description="train on the coarse-grained prediction task")
    fine_task: bool = Field(True, description="train on the fine-grained prediction task")
    domain_task: tuple[str, ...] = Field(
        ("failures",),
        description="a domain-related task: failures, events, minutes, days, weeks, recency, age, count:BEHAVIOR, "
        "switches:COLUMN, distinct:COLUMN, next:DAYS, totals:behavior, "
        "histogram:behavior|token|hour|minute|weekday|lag|location|age; repeat for several",
    )
    similarity: Literal["dot", "cosine"] = Field("dot", description="similarity of the contrastive tasks")
    temperature: PositiveFloat = Field(1.0, description="divides similarities")
    negatives: Literal["other_month", "both_months"] = Field(
        "other_month", description="which months of the other entities are coarse negatives"
    )
    fine_reduction: Literal["sum", "mean"] = Field(
        "sum", description="over an entity's masked spans: their sum (equation 3), or the mean over all"
    )
    pairs: Literal["latest", "anywhere", "any_day"] = Field(
        "latest",
        description="two adjacent windows: the latest two before --until, the same for all (paper); or drawn anew at "
        "each step in an entity's history, anywhere or where any of its days ends",
    )
    lengths: Literal["whole", "several"] = Field(
        "whole",
        description="how much is seen of a pair's windows: all (paper), or all, a half, a quarter or an eighth, drawn "
        "anew for each step: what is nearest to the border between them",
    )
    min_minutes: PositiveInt = Field(1, description="minutes with events that each of the two windows must have")
    min_count: PositiveInt = Field(5, description="minutes in which a behavior or location must occur to be a token")
    seed: NonNegativeInt = Field(0, le=2**32 - 1, description="seed of weights, batches, masks and dropout")
    device: str = Field("cpu", description="where to train: cpu, cuda (each of several processes its own) or cuda:N")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the encoder's products; weights and losses are in float32 either way"
    )
    num_threads: PositiveInt = Field(2, description="processor threads; results depend on it in the last digits")
    checkpoint_every: PositiveInt = Field(100, description="steps between checkpoints")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := {line for line in self.domain_task if self.domain_task.count(line) > 1}:
            raise ValueError(f"domain_task {sorted(twice)[0]!r} is given twice")
        return self


TWO_CORES: dict[str, Any] = {
    "encoder": EncoderConfig(behavior_rows="composite_and_parts"),
    "num_steps": 2_000,
    "learning_rate": 1e-3,
    "similarity": "cosine",
    "temperature": 0.1,
    "fine_reduction": "mean",
    "pairs": "anywhere",
    "negatives": "both_months",
    "min_minutes": 2,
    "domain_task": (
        "failures",
        "events",
        "minutes",
        "histogram:behavior",
        "histogram:hour",
        "histogram:weekday",
        "histogram:lag",
        "histogram:location",
    ),
}
"""For minutes of training on two cores; `docs/paper_map.md` says why each differs from the paper."""

RECOMMENDED: dict[str, Any] = {
    **TWO_CORES,
    "encoder": EncoderConfig(
        behavior_rows="composite_and_parts",
        time_point="week_in_parts",
        span_scale="window",
        span_pooling="max_and_means",
        cls_input="statistics",
        pooling="cls_readouts_and_spans",
        dropout=0.0,
    ),
    "domain_task": (
        *TWO_CORES["domain_task"],
        "days",
        "weeks",
        "recency",
        "age",
        "totals:behavior",
        "next:30",
        "next:90",
        "next:180",
        "histogram:token",
        "histogram:minute",
        "histogram:age",
    ),
}
"""What trials on a validation part chose; `docs/paper_map.md` says what is known of each setting."""

PRESETS: dict[str, PretrainConfig] = {
    "paper": PretrainConfig(),
    "two-cores": PretrainConfig(**TWO_CORES),
    "recommended": PretrainConfig(**RECOMMENDED),
}


def preset(name: str) -> PretrainConfig:
    """The configuration of a name.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; one of {', '.join(PRESETS)}")
    return PRESETS[name]
