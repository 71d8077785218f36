"""Checks a text of LightGBM's trees before LightGBM reads it, which trusts it: a wrong one may end the process"""

import math
import re

HEADER = (
    *("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx"),
    *("objective", "feature_names", "feature_infos", "tree_sizes"),
)
OF_SPLITS = ("split_gain", "threshold", "internal_value", "internal_weight", "internal_count")
TREE = (
    *("num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child"),
    *("right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight"),
    *("internal_count", "is_linear", "shrinkage"),
)
DECISIONS = range(0, 16, 2)
"""How missing values go; odd numbers are of categories, which these trees don't split."""
END = re.compile(
    r"end of trees\n\nfeature_importances:\n(\w+=\d+\n)*\nparameters:\n(\[\w+: [^\n]*\]\n)*\nend of parameters\n"
    r"(\n?pandas_categorical:null\n)?"
)


def check_trees(text: str, num_columns: int) -> None:
    """Check that a text is as LightGBM writes trees of two classes over columns of numbers.

    Args:
        text: what `Booster.model_to_string` gave.
        num_columns: of the matrix that the trees are for.

    Raises:
        ValueError: it isn't.
    """
    head, _, _ = text.partition("\n\n")
    header = _fields(head, "tree", HEADER, "the header of the trees")
    names = " ".join(f"Column_{place}" for place in range(num_columns))
    _require(text.isascii() and header["objective"] == "binary sigmoid:1", "the objective")
    _require((header["num_class"], header["num_tree_per_iteration"]) == ("1", "1"), "the number of classes")
    _require(int(header["max_feature_idx"]) == num_columns - 1, f"the number of columns, {num_columns} expected,")
    _require(header["feature_names"] == names, "the names of the columns")
    _require(len(header["feature_infos"].split()) == num_columns, "the ranges of the columns")
    place = len(head) + 2
    for number, size in enumerate(_integers(header["tree_sizes"])):
        _require(size > 0, "the length of a tree")
        _check_tree(text[place : place + size], number, num_columns)
        place += size
    _require(END.fullmatch(text, place) is not None, "the end of the trees")


def _check_tree(text: str, number: int, num_columns: int) -> None:
    what = f"tree {number}"
    _require(text.endswith("\n\n\n"), f"the length of {what}")
    tree = _fields(text[:-3], f"Tree={number}", TREE, what)
    num_leaves = int(tree["num_leaves"])
    num_splits = num_leaves - 1
    _require(num_leaves > 0 and (tree["num_cat"], tree["is_linear"]) == ("0", "0"), what)
    of_leaves = [tree[name] for name in ("leaf_weight", "leaf_count") if num_splits or tree[name]]
    _require(all(len(_floats(values)) == num_leaves for values in (tree["leaf_value"], *of_leaves)), what)
    _require(all(math.isfinite(value) for value in _floats(tree["leaf_value"])), f"a leaf of {what}")
    _require(all(len(_floats(tree[name])) == num_splits for name in OF_SPLITS), what)
    features, decisions = _integers(tree["split_feature"]), _integers(tree["decision_type"])
    _require(len(features) == len(decisions) == num_splits, what)
    _require(all(0 <= feature < num_columns for feature in features), f"a column of {what}")
    _require(all(decision in DECISIONS for decision in decisions), f"a split of {what}")
    for name in ("left_child", "right_child"):
        children = _integers(tree[name])
        _require(len(children) == num_splits, what)
        for parent, child in enumerate(children):
            _require(parent < child < num_splits or 0 <= ~child < num_leaves, f"a split of {what}")


def _fields(text: str, first: str, names: tuple[str, ...], what: str) -> dict[str, str]:
    """Lines of ``name=value`` in their order, below a first line."""
    line, *lines = text.split("\n")
    fields = dict(one.partition("=")[::2] for one in lines)
    _require(line == first and tuple(fields) == names and len(lines) == len(names), what)
    return fields


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} isn't as LightGBM writes it")


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


def _floats(text: str) -> list[float]:
    return [float(number) for number in text.split()]
