import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infobehavior.fusion.trees_text import check_trees


def grown(num_rows=300, num_columns=4, num_trees=3, **settings):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(num_rows, num_columns))
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    answers = (np.nan_to_num(matrix[:, 0]) + random.normal(size=num_rows) > 0).astype(float)
    given_settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5} | settings
    return lightgbm.train(given_settings, lightgbm.Dataset(matrix, answers), num_trees).model_to_string()


TEXT = grown()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_rows": 5},
        {"num_trees": 1, "num_leaves": 2},
        {"num_trees": 40, "num_leaves": 63, "lambda_l2": 1.0},
        {"num_columns": 1},
    ],
)
def test_what_lightgbm_writes_is_right(options):
    text = grown(**options)
    num_columns = options.get("num_columns", 4)
    check_trees(text, num_columns)
    check_trees(lightgbm.Booster(model_str=text).model_to_string(), num_columns)
    with pytest.raises(ValueError, match=f"the number of columns, {num_columns + 1} expected, isn't as LightGBM"):
        check_trees(text, num_columns + 1)


def changed(name, change, tree=0):
    """The text with another value of a field of a tree, and the lengths of its trees put right."""
    head, *trees = TEXT.partition("end of trees")[0].split("Tree=")
    lines = trees[tree].split("\n")
    lines = [f"{name}={change(line.partition('=')[2])}" if line.startswith(f"{name}=") else line for line in lines]
    trees[tree] = "\n".join(lines)
    trees = [f"Tree={one}" for one in trees]
    sizes = " ".join(str(len(one)) for one in trees)
    head = "\n".join(f"tree_sizes={sizes}" if line.startswith("tree_sizes=") else line for line in head.split("\n"))
    return head + "".join(trees) + "end of trees" + TEXT.partition("end of trees")[2]


def first(value):
    return lambda text: " ".join([value, *text.split()[1:]])


def test_the_change_itself_is_right():
    assert changed("shrinkage", str) == TEXT
    check_trees(changed("leaf_value", first("0.25")), 4)


@pytest.mark.parametrize("tree", [0, 2])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *[(name, first(value)) for name in ("left_child", "right_child") for value in ("0", "1000", "-1000", "x", "")],
        *[("split_feature", first(value)) for value in ("-1", "4", "1e9", "")],
        *[("decision_type", first(value)) for value in ("1", "3", "-2", "16")],
        *[("leaf_value", first(value)) for value in ("nan", "inf", "x", "1 2", "")],
        *[("threshold", first(value)) for value in ("x", "")],
        *[("num_leaves", first(value)) for value in ("0", "-1", "2", "1000000000")],
        ("num_cat", first("1")),
        ("is_linear", first("1")),
    ],
)
def test_wrong_trees(name, change, tree):
    with pytest.raises(ValueError, match=r"isn't as LightGBM writes it|invalid literal|could not convert"):
        check_trees(changed(name, change, tree), 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_class=1", "num_class=2"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=3"),
        ("objective=binary sigmoid:1", "objective=regression"),
        ("max_feature_idx=3", "max_feature_idx=300000000"),
        ("Column_1 ", "Column_1 Column_1 "),
        ("tree_sizes=", "tree_sizes=1 "),
        ("label_index=0\n", ""),
        ("num_cat=0\n", "num_cat=0\ncat_threshold=1\n"),
        ("end of trees", "end"),
        ("pandas_categorical:null", "pandas_categorical:[[1]]"),
        ("Tree=1", "Tree=2"),
    ],
)
def test_wrong_parts(old, new):
    assert old in TEXT
    with pytest.raises(ValueError, match="isn't as LightGBM writes it"):
        check_trees(TEXT.replace(old, new), 4)


@settings(max_examples=200)
@given(st.floats(0, 1), st.text("0123456789-. \n=[]xT", max_size=8), st.integers(0, 8))
def test_what_passes_can_be_read(where, other, length):
    """In this process: it would end, were LightGBM given what it can't read."""
    start = int(where * TEXT.index("parameters:"))
    text = TEXT[:start] + other + TEXT[start + length :]
    try:
        check_trees(text, 4)
    except ValueError:
        return
    assert lightgbm.Booster(model_str=text).predict(np.zeros((3, 4)), num_threads=1).shape == (3,)
