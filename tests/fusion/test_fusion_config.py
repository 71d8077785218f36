import pytest
import tomli_w

from fusion.examples import config_content, small_config
from infobehavior.errors import InputError
from infobehavior.fusion.config import MASKING, Group, checked_config, read_fusion_config


def faults(changes, tmp_path):
    """What is said of a configuration with changes, by field, of one that is right."""
    content = config_content(tmp_path / "embeddings")
    for path, value in changes.items():
        *tables, name = path.split(".")
        table = content
        for key in tables:
            table = table.setdefault(key, {})
        table[name] = value
    with pytest.raises(InputError) as raised:
        checked_config(content, "fusion.toml")
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("fusion.toml: ")
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"groups.listing.colums": ["price"]},
            "groups.listing.colums: there is no such setting; expected one of kind, columns, table, ",
        ),
        ({"examples.lable": "risky"}, "examples.lable: there is no such setting; expected one of label, positive, "),
        ({"netwrok": {}}, "netwrok: there is no such setting; expected one of examples, groups, network, validation, "),
        ({"groups.listing": {"kind": "numbers"}}, "groups.listing: neither columns nor table is given"),
        ({"groups.listing.kind": "number"}, "groups.listing.kind: Input should be 'representation'"),
        ({"groups.listing.max_age_days": 3}, "max_age_days and min_age_hours are for what a table holds"),
        (
            {"groups.seller.min_age_hours": 30, "groups.seller.max_age_days": 1},
            "more than max_age_days: no row could be",
        ),
        (
            {"groups.seller.min_age_hours": 1e15},
            "groups.seller.min_age_hours: Input should be less than or equal to 878400",
        ),
        (
            {"groups.seller.min_age_hours": -1},
            "groups.seller.min_age_hours: Input should be greater than or equal to 0",
        ),
        ({"groups.seller.max_age_days": 0}, "groups.seller.max_age_days: Input should be greater than 0"),
        ({"groups.look.table": "t", "groups.look.columns": []}, "a table of categories needs columns"),
        ({"groups.listing.text_dim": 8}, "text_dim are for text, not for numbers"),
        ({"groups.listing.encoder": "wordllama"}, "encoder and text_dim are for text"),
        ({"groups.listing.masking": 1.0}, "groups.listing.masking: Input should be less than 1"),
        ({"groups.listing.columns": ["price", "risky"]}, "groups.listing has the label 'risky' among its columns"),
        ({"groups.listing.columns": ["price", "price"]}, "'price' is named twice"),
        ({"groups": {}}, "groups: Dictionary should have at least 1 item"),
        ({"groups.a b": {"kind": "numbers", "columns": ["price"]}}, "String should match pattern"),
        ({"examples.id": ["probability"]}, "probability is a column that predictions have anyway"),
        ({"examples.id": ["product", "product"]}, "a column is named twice"),
        ({"examples.time_zone": "Berlin"}, "no time zone is called Berlin"),
        ({"validation.share": 1}, "validation.share: Input should be less than 1"),
        ({"validation.by": "account"}, "validation.by: Input should be 'entity' or 'moment'"),
        ({"operating_point": {"cost_of_miss": 5}}, "one of cost_of_false_alarm and cost_of_miss is given"),
        ({"operating_point": {"certainty": 1}}, "operating_point.certainty: Input should be less than 1"),
        ({"operating_point.precision": 95}, "operating_point.precision: Input should be less than 1"),
        ({"network.learning_rate": float("nan")}, "network.learning_rate: Input should be a finite number"),
        ({"network.seed": -1}, "network.seed: Input should be greater than or equal to 0"),
        ({"network.positive_weight": "equal"}, "network.positive_weight"),
    ],
)
def test_faults_are_named(changes, said, tmp_path):
    assert said in faults(changes, tmp_path)


def test_all_faults_are_in_the_line(tmp_path):
    said = faults({"network.dropout": 2, "examples.time_zone": "?", "groups.look.kind": "colors"}, tmp_path)
    assert all(field in said for field in ("network.dropout", "examples.time_zone", "groups.look.kind"))


@pytest.mark.parametrize("content", [{}, {"examples": 3}, [], None])
def test_what_is_not_a_configuration(content):
    with pytest.raises(InputError, match=r"^fusion\.toml: "):
        checked_config(content, "fusion.toml")


@pytest.mark.parametrize("content", [b"[groups", b"\xff\xfe"])
def test_a_file_that_is_not_toml(tmp_path, content):
    (tmp_path / "fusion.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"fusion\.toml is not TOML: "):
        read_fusion_config(tmp_path / "fusion.toml")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*fusion\.toml"):
        read_fusion_config(tmp_path / "fusion.toml")


def test_the_order_of_groups_decides_nothing(tmp_path):
    content = config_content(tmp_path / "embeddings")
    turned = content | {"groups": dict(reversed(content["groups"].items()))}
    (tmp_path / "one.toml").write_text(tomli_w.dumps(content))
    (tmp_path / "other.toml").write_text(tomli_w.dumps(turned))
    one, other = (read_fusion_config(tmp_path / f"{name}.toml") for name in ("one", "other"))
    assert one.model_dump_json() == other.model_dump_json()
    assert list(one.groups) == sorted(content["groups"])


def test_a_configuration_is_its_json(tmp_path):
    config = small_config(tmp_path / "embeddings", validation={"by": "moment", "share": 0.3})
    assert checked_config(config.model_dump(mode="json"), "fusion.json") == config


def test_the_representation_is_masked_less_than_others():
    """4.4.2: its probability is "relatively small"."""
    assert all(MASKING["representation"] < MASKING[kind] for kind in MASKING if kind != "representation")


def test_a_group_may_say_its_own_masking():
    assert Group(kind="numbers", columns=("price",)).masking_probability == MASKING["numbers"]
    assert Group(kind="numbers", columns=("price",), masking=0).masking_probability == 0
