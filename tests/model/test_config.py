"""The encoder's defaults are the numbers of section 4.1.2; what can't be built is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from infobehavior.data.vocabulary import Vocabulary
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior


def test_the_papers_numbers() -> None:
    config = EncoderConfig()

    assert (config.window_minutes, config.span_minutes, config.stride_minutes) == (43_200, 360, 340)
    assert (config.kernel_sizes, config.num_feature_maps) == ((3, 4, 5), 64)
    assert (config.num_layers, config.num_heads, config.head_dim) == (4, 4, 48)
    assert config.model_dim == 192


def test_the_papers_model() -> None:
    model = InfoBehavior(EncoderConfig(), Vocabulary(minutes_hash="0" * 16, behaviors=((4,),), locations=("Oslo",)))

    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["transformer.position.weight"] == (127, 192)
    assert [shapes[f"span_cnn.convolutions.{i}.weight"] for i in range(3)] == [(64, 64, 3), (64, 64, 4), (64, 64, 5)]
    assert shapes["minute_embedding.time_point.weight"] == (1_440, 64)
    assert shapes["minute_embedding.behavior.weight"] == (2, 64)
    assert shapes["minute_embedding.location.weight"] == (3, 64)
    assert not [name for name in shapes if name.startswith("span_projection")]
    assert len([name for name in shapes if name.endswith("query_key_value.weight")]) == 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stride_minutes": 361}, r"stride_minutes \(361\) is larger than span_minutes \(360\)"),
        ({"window_days": 0}, "window_days"),
        ({"kernel_sizes": ()}, "kernel_sizes"),
        ({"kernel_sizes": (3, 0)}, "kernel_sizes"),
        ({"dropout": 1.0}, "dropout"),
        ({"time_point": "hour"}, "time_point"),
        ({"behavior_rows": "parts"}, "behavior_rows"),
        ({"spans": 3}, "spans"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EncoderConfig(**changes)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        EncoderConfig().window_days = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("days", "span_minutes", "stride_minutes", "num_spans"),
    [(7, 360, 340, 30), (30, 360, 340, 127), (90, 1_080, 1_020, 127), (365, 4_380, 4_137, 127)],
)
def test_spans_that_grow_are_as_many_as_in_a_month(days, span_minutes, stride_minutes, num_spans):
    vocabulary = Vocabulary(minutes_hash="0" * 16, behaviors=((4,),), locations=("Oslo",))
    grid = InfoBehavior(EncoderConfig(window_days=days, span_scale="window"), vocabulary).grid
    assert (grid.span_minutes, grid.stride_minutes, grid.num_spans) == (span_minutes, stride_minutes, num_spans)
    assert EncoderConfig(window_days=days).scaled_span == (360, 340)
