import pytest
from pydantic import ValidationError

from infobehavior.errors import InputError
from infobehavior.pretraining.config import PRESETS, PretrainConfig, preset


def test_the_paper_preset_has_the_numbers_of_the_paper():
    config = preset("paper")
    assert config == PretrainConfig()
    encoder = config.encoder
    assert (encoder.window_days, encoder.span_minutes, encoder.stride_minutes) == (30, 360, 340)
    assert (encoder.kernel_sizes, encoder.num_feature_maps) == ((3, 4, 5), 64)
    assert (encoder.num_layers, encoder.num_heads, encoder.head_dim) == (4, 4, 48)
    assert encoder.model_dim == encoder.num_feature_maps * len(encoder.kernel_sizes) == 192
    assert (config.similarity, config.pairs, config.negatives, config.fine_reduction) == (
        "dot",
        "latest",
        "other_month",
        "sum",
    )
    assert config.domain_task == ("failures",)
    assert config.coarse_task
    assert config.fine_task


def test_every_preset_survives_json():
    for config in PRESETS.values():
        assert PretrainConfig.model_validate_json(config.model_dump_json()) == config
    assert preset("two-cores") is PRESETS["two-cores"]


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match="no preset 'big'; one of paper, two-cores, recommended"):
        preset("big")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0),
        ("batch_size", 1),
        ("learning_rate", 0),
        ("weight_decay", -0.1),
        ("beta1", 1),
        ("beta2", -0.1),
        ("warmup_proportion", 1),
        ("clip_norm", 0),
        ("mask_rate", 0),
        ("mask_rate", 1),
        ("similarity", "euclid"),
        ("temperature", 0),
        ("negatives", "none"),
        ("fine_reduction", "max"),
        ("pairs", "first"),
        ("min_minutes", 0),
        ("min_count", 0),
        ("seed", -1),
        ("num_threads", 0),
        ("checkpoint_every", 0),
        ("num_stepps", 5),
        ("encoder", {"window_days": 0}),
        ("encoder", {"stride_minutes": 361}),
        ("encoder", {"dropout": 1}),
        ("encoder", {"kernel_sizes": [3, 0]}),
        ("encoder", {"time_point": "hour"}),
        ("encoder", {"layers": 3}),
    ],
)
def test_a_fault_is_told_by_its_field(name, value):
    with pytest.raises(ValidationError) as raised:
        PretrainConfig.model_validate({name: value})
    assert raised.value.errors()[0]["loc"][0] == name
    assert raised.value.error_count() == 1
