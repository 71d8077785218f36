"""The shape of the encoder; the defaults are the numbers of section 4.1.2."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from infobehavior.data.clock import MINUTES_PER_DAY

LATER = ("span_origin", "span_scale", "span_pooling", "cls_input", "pooling")
"""Fields that models of version 0.1.0 don't have."""

DAYS_OF_MONTH = 30
"""Of the paper's window, for which its spans were chosen."""


class EncoderConfig(BaseModel):
    """What decides the encoder's parameters and what it computes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    window_days: PositiveInt = Field(30, le=3_650, description="length of a window, in days")
    span_minutes: PositiveInt = Field(360, description="length of a span, in minutes")
    stride_minutes: PositiveInt = Field(340, description="from one span's start to the next one's, in minutes")
    span_origin: Literal["window", "epoch"] = Field(
        "window",
        description="where spans begin: at the window's start, or at multiples of the stride since 1970, so that "
        "representations of spans can be kept from one day to the next",
    )
    span_scale: Literal["fixed", "window"] = Field(
        "fixed",
        description="whether spans are as long as they are told to be, or grow with a window of more than 30 days, so "
        "that it has about as many spans as a month",
    )
    minute_dim: PositiveInt = Field(64, description="size of a minute's embedding")
    kernel_sizes: tuple[PositiveInt, ...] = Field(
        (3, 4, 5), min_length=1, description="windows of the span CNN, in minutes with events"
    )
    num_feature_maps: PositiveInt = Field(64, description="feature maps of each window of the span CNN")
    num_layers: PositiveInt = Field(4, description="layers of the Transformer")
    num_heads: PositiveInt = Field(4, description="attention heads of a layer")
    head_dim: PositiveInt = Field(48, description="size of an attention head")
    feedforward_dim: PositiveInt = Field(768, description="hidden size of a layer's feed-forward network")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout of the Transformer")
    time_point: Literal["minute_of_day", "minute_of_week", "week_in_parts"] = Field(
        "minute_of_day",
        description="what a time point token tells, in the schema's time zone; week_in_parts: the minute of the week, "
        "as the sum of its weekday, its hour and its minute of the hour",
    )
    behavior_rows: Literal["composite", "composite_and_parts"] = Field(
        "composite",
        description="rows that make a behavior's embedding: the composite's own, or its parts where it is unseen; "
        "or always both",
    )

    span_pooling: Literal["max", "max_and_mean", "max_and_means"] = Field(
        "max",
        description="how a span's minutes become one vector: the strongest windows of the CNN, or also the mean of its "
        "minutes and how many there are, or the means of the four embeddings of a minute, each by itself",
    )
    cls_input: Literal["learned", "summary", "statistics"] = Field(
        "learned",
        description="what [CLS] is before the first layer: one learned vector, or also a summary of the spans that "
        "aren't masked: their mean, how many they are, and where in the window; or more statistics of them: also their "
        "mean in which each counts by its minutes, how many those are, their maxima, minima and standard deviations",
    )
    pooling: Literal["cls", "readouts", "cls_and_readouts", "cls_readouts_and_spans"] = Field(
        "cls",
        description="the embedding of a window: its global representation; or what the domain-related tasks read off "
        "it; or both; or both and the maxima, minima and standard deviations of its span representations",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride_minutes > self.span_minutes:
            raise ValueError(
                f"stride_minutes ({self.stride_minutes}) is larger than span_minutes ({self.span_minutes}): "
                "minutes between two spans would be lost"
            )
        return self

    def definition(self) -> dict[str, Any]:
        """What names a model; a field that came later counts where it isn't its default, so older models keep names."""
        fields = type(self).model_fields
        return self.model_dump(exclude={name for name in LATER if getattr(self, name) == fields[name].default})

    @property
    def window_minutes(self) -> int:
        """Length of a window, in minutes."""
        return self.window_days * MINUTES_PER_DAY

    @property
    def scaled_span(self) -> tuple[int, int]:
        """Length and stride of a span, in minutes, as `span_scale` has them."""
        days = max(self.window_days, DAYS_OF_MONTH) if self.span_scale == "window" else DAYS_OF_MONTH
        span, stride = (-(-minutes * days // DAYS_OF_MONTH) for minutes in (self.span_minutes, self.stride_minutes))
        return span, stride

    @property
    def model_dim(self) -> int:
        """Size of span, local and global representations."""
        return self.num_heads * self.head_dim
