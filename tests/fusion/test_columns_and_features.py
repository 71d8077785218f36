import math
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.errors import InputError
from infobehavior.fusion import features as features_module
from infobehavior.fusion.columns import numbers_of, texts_of, vectors_of
from infobehavior.fusion.config import Group
from infobehavior.fusion.features import FEATURES, FURTHEST, NO_VALUE, UNKNOWN, Standard
from infobehavior.fusion.missing import GroupCounts


def fitted(kind, table, **fields):
    columns = tuple(table.column_names)
    return FEATURES[kind].fit(table, Group(kind=kind, columns=columns, **fields), "g", 0)


def column(values, kind=None):
    return pa.table({"x": pa.array(values, kind)})


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 3], pa.int32(), [1, None, 3]),
        ([2**60 + 1, -5], pa.int64(), [2.0**60, -5]),
        ([2**64 - 1], pa.uint64(), [2.0**64]),
        ([1.5, math.nan, math.inf, -math.inf, None], pa.float32(), [1.5, None, None, None, None]),
        ([True, False, None], pa.bool_(), [1, 0, None]),
        ([" 1.5", "", "  ", None, "1e3", "nan", "-7"], pa.string(), [1.5, None, None, None, 1000, None, -7]),
        (["2"], pa.large_string(), [2]),
        ([Decimal("1.25"), None], pa.decimal128(10, 2), [1.25, None]),
        ([None, None], pa.null(), [None, None]),
    ],
)
def test_what_counts_as_a_number(values, kind, expected):
    found = numbers_of(column(values, kind), "group g")[:, 0]
    assert [None if math.isnan(value) else value for value in found] == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1", "cheap", "dear", "cheap", None], "has 3 of 5 values that aren't numbers, such as 'cheap', 'dear'; mend"),
        ([date(2024, 1, 1)], "has type date32"),
        ([[1.0]], "has type list"),
        ([b"1"], "has type binary"),
    ],
)
def test_what_is_not_a_number(values, said):
    with pytest.raises(InputError, match="group g, column 'x' ") as raised:
        numbers_of(column(values), "group g")
    assert said in str(raised.value)


LISTS = [[1, 2], None, [3, 4], [5, None], [math.nan, 1], [math.inf, 1]]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 2)])
def test_vectors_in_a_column_of_lists(kind):
    vectors, is_there = vectors_of(column(LISTS, kind), "group g")
    assert is_there.tolist() == [True, False, True, False, False, False]
    assert vectors.tolist() == [[1, 2], [0, 0], [3, 4], [0, 0], [0, 0], [0, 0]]
    assert vectors.dtype == np.float32


def test_vectors_of_large_integers():
    vectors, is_there = vectors_of(column([[2**30 + 1, 3]], pa.list_(pa.int64())), "group g")
    assert (vectors.tolist(), is_there.tolist()) == ([[2.0**30, 3]], [True])


def test_vectors_in_several_columns():
    table = pa.table({"x": [1.0, None, 3.0, 1e300], "y": [2, 2, 4, 4]})
    vectors, is_there = vectors_of(table, "group g")
    assert (vectors[[0, 2]].tolist(), is_there.tolist()) == ([[1, 2], [3, 4]], [True, False, True, False])
    assert not vectors[~is_there].any()


def test_vectors_in_parts_of_a_column():
    chunks = pa.chunked_array([[[1.0, 2.0], None], [], [[3.0, 4.0]]], pa.list_(pa.float32()))
    vectors, is_there = vectors_of(pa.table({"x": chunks}).slice(1), "group g")
    assert (vectors.tolist(), is_there.tolist()) == ([[0, 0], [3, 4]], [False, True])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1.0], [1.0, 2.0], [3.0], [1.0, 2.0]], "different lengths: 1 values, but 2 of 4 have others, such as 2"),
        ([["a"]], "has lists of string; expected lists of numbers"),
        ([[[1.0]]], "expected lists of numbers"),
    ],
)
def test_what_is_not_a_vector(values, said):
    with pytest.raises(InputError, match="group g, column 'x' has ") as raised:
        vectors_of(column(values), "group g")
    assert said in str(raised.value)


def test_texts_of_several_columns_are_one():
    table = pa.table({"title": ["red", None, " ", "cafe\u0301"], "price": [1, None, None, 2]})
    assert texts_of(table, "group g")[0] == ["red 1", " ", "  ", "caf\u00e9 2"]
    assert texts_of(table, "group g")[1].tolist() == [True, False, False, True]


@pytest.mark.parametrize("kind", ["text", "categories"])
@pytest.mark.parametrize("values", [[[1.0]], [b"a"], [{"a": 1}]])
def test_what_is_not_a_text(kind, values):
    with pytest.raises(InputError, match=r"group g, column 'x' holds values of type .*; expected one text or number"):
        fitted(kind, column(values * 4))


@st.composite
def matrices(draw):
    number = st.one_of(st.none(), st.floats(-1e6, 1e6))
    rows = st.lists(st.tuples(number, number), min_size=1, max_size=8)
    return draw(rows.filter(lambda drawn: any(value is not None for row in drawn for value in row)))


@given(matrices())
def test_numbers_are_standardised_by_plain_loops(rows):
    table = pa.table({"x": pa.array([x for x, _ in rows], pa.float64()), "y": pa.array([y for _, y in rows])})
    array = fitted("numbers", table).transform(table, "g")
    for place, name in enumerate(table.column_names):
        known = [value for value in table[name].to_pylist() if value is not None]
        with_group = [row[place] for row in rows if any(value is not None for value in row)]
        tells = len({value is None for value in with_group}) == 2
        mean = sum(known) / max(len(known), 1)
        scale = math.sqrt(sum((value - mean) ** 2 for value in known) / max(len(known), 1))
        for row, value in enumerate(table[name].to_pylist()):
            assert array.values[row, 2 + place] == (tells and value is None)
            if scale > 1e-9 * max(1, abs(mean)):
                expected = 0 if value is None else max(-FURTHEST, min(FURTHEST, (value - mean) / scale))
                assert array.values[row, place] == pytest.approx(expected, abs=1e-4)
    assert array.is_there.tolist() == [any(value is not None for value in row) for row in rows]


def test_numbers_that_are_far_from_those_of_training_are_cut():
    features = fitted("numbers", column([0.0, 1.0]))
    assert features.transform(column([1e9, -1e9, None]), "g").values[:, 0].tolist() == [FURTHEST, -FURTHEST, 0]


def test_a_column_that_does_not_vary_in_training_is_zero_whatever_comes_later():
    table = pa.table({"x": [7.0, 7.0], "y": [1.0, 2.0]})
    later = pa.table({"x": [7.0, 8.0, -1e300, None], "y": [1.5] * 4})
    assert fitted("numbers", table).transform(later, "g").values.tolist() == [[0, 0, 0, 0]] * 4
    vectors = fitted("vector", column([[7.0, 1.0], [7.0, 2.0]]))
    assert vectors.transform(column([[9.0, 1.5]]), "g").values.tolist() == [[0, 0]]


def test_that_a_number_is_missing_says_nothing_if_training_could_not_learn_it():
    table = pa.table({"x": [1.0, 2.0, 3.0], "y": [1.0, None, 2.0], "z": pa.nulls(3, pa.float64())})
    features = fitted("numbers", table)
    later = pa.table({"x": [None, None], "y": [None, 1.5], "z": [1.0, 2.0]})
    assert features.transform(later, "g").values[:, 3:].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_many_rows_are_standardised_as_few_are(monkeypatch):
    random = np.random.default_rng(0)
    matrix = np.where(random.random((50, 4)) < 0.2, np.nan, random.normal(size=(50, 4)))
    at_once = Standard.fit(matrix)
    monkeypatch.setattr(features_module, "ROWS_AT_A_TIME", 7)
    in_blocks = Standard.fit(matrix)
    np.testing.assert_allclose(in_blocks.mean, np.nanmean(matrix, axis=0))
    np.testing.assert_allclose(in_blocks.scale, np.nanstd(matrix, axis=0))
    np.testing.assert_allclose(in_blocks.transform(matrix), at_once.transform(matrix), rtol=1e-6)


def test_the_largest_numbers_do_not_overflow():
    array = fitted("numbers", column([1e300, -1e300, 1.0])).transform(column([1e300, 0.0]), "g")
    assert np.isfinite(array.values).all()
    assert array.values[0, 0] > 1


SIZES = [1e-310, 1e-200, 1e-99, 1e-30, 1e-13, 1e-5, 1.0, 1e30, 1e99, 1e200, 1e308]


@pytest.mark.parametrize("size", SIZES)
def test_a_column_s_unit_decides_nothing(size):
    """Also where its numbers' squares, or they themselves, are too small or too large for 64 bits."""
    numbers = np.random.default_rng(0).uniform(-1, 1, 50)
    plain = fitted("numbers", column(numbers.tolist())).transform(column(numbers.tolist()), "g").values
    given = column((numbers * size).tolist())
    np.testing.assert_allclose(fitted("numbers", given).transform(given, "g").values, plain, rtol=1e-5)


@pytest.mark.parametrize("size", [0.0, 5e-324, *SIZES])
def test_a_column_that_varies_by_rounding_alone_does_not_vary(size):
    """The mean of equal numbers is another one in the last digits."""
    features = fitted("numbers", column([0.1 * size] * 10_007))
    assert np.isinf(features.standard.scale).all()
    assert not features.transform(column([0.1 * size, size, 0.0]), "g").values.any()


def test_the_smallest_numbers_do_not_divide_by_zero():
    given = column([0.0] * 9 + [5e-324])
    assert np.isfinite(fitted("numbers", given).transform(given, "g").values).all()


def test_vectors_are_standardised_and_missing_ones_are_zero():
    table = column([[1.0, 5.0], None, [3.0, 5.0]])
    array = fitted("vector", table).transform(table, "g")
    assert array.values.tolist() == [[-1, 0], [0, 0], [1, 0]]
    assert array.is_there.tolist() == [True, False, True]


@pytest.mark.parametrize("values", [pa.array([None, None], pa.list_(pa.float32())), pa.nulls(2)])
def test_vectors_may_all_be_missing_at_prediction(values):
    array = fitted("vector", column([[1.0, 5.0], [3.0, 5.0]])).transform(pa.table({"x": values}), "g")
    assert (array.values.tolist(), array.is_there.tolist()) == ([[0, 0], [0, 0]], [False, False])


@pytest.mark.parametrize("values", [[None, None], [[], []]])
def test_vectors_may_not_all_be_missing_in_training(values):
    with pytest.raises(InputError, match="group g has no vector in any of 2 training rows; remove the group"):
        fitted("vector", column(values, pa.list_(pa.float32())))


def test_vectors_of_another_length_than_in_training():
    with pytest.raises(InputError, match="group g has vectors of 2 values, but was trained on vectors of 1"):
        fitted("vector", column([[1.0], [2.0]])).transform(column([[1.0, 2.0]]), "g")


def test_categories_have_codes_and_those_of_one_row_are_unknown():
    table = pa.table({"color": ["red", "red", "blue", None], "size": ["s", "s", "m", "m"]})
    features = fitted("categories", table)
    assert features.num_codes == (3, 4)
    array = features.transform(pa.table({"size": ["m", "s", None, None], "color": ["red", "?", "blue", None]}), "g")
    assert array.values.tolist() == [[2, 2], [UNKNOWN, 3], [UNKNOWN, NO_VALUE], [NO_VALUE, NO_VALUE]]
    assert array.is_there.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, 1, 2], pa.int8()),
        pa.array([1.0, 2.0, 1.0, 2.0]),
        pa.array(["1", "2", "1", "2"], pa.large_string()),
        pa.array(["1", "2", "1", "2"]).dictionary_encode(),
        pa.array(pd.Categorical(["1", "2", "1", "2"])),
    ],
)
def test_categories_are_compared_as_text(values):
    features = fitted("categories", column(["1", "1", "2", "2"]))
    assert features.transform(pa.table({"x": values}), "g").values[:, 0].tolist() == [2, 3, 2, 3]


@pytest.mark.parametrize("kind", ["numbers", "vector", "categories", "text"])
def test_a_column_of_the_training_is_missing(kind):
    features = fitted(kind, column(["1", "2", "1", "2"]))
    with pytest.raises(InputError, match="group g was trained with column 'x', which isn't there"):
        features.transform(pa.table({"y": ["1"]}), "g")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numbers", [1.5, None, 4.0, 4.5]),
        ("vector", [[1.0, 2.0], None, [3.0, 5.0], [4.0, 1.0]]),
        ("categories", ["red", "red", None, "blue"]),
        ("text", ["red chair", "red table", None, "blue chair"]),
    ],
)
def test_what_is_kept_makes_the_same_arrays(kind, values):
    table = column(values)
    features = fitted(kind, table)
    restored = FEATURES[kind].restored(features.described(), features.tensors())
    assert (restored.dim, restored.num_codes) == (features.dim, features.num_codes)
    one, other = features.transform(table, "g"), restored.transform(table, "g")
    assert np.array_equal(one.values, other.values)
    assert one.is_there.tolist() == other.is_there.tolist() == [value is not None for value in values]


@pytest.mark.parametrize("kind", ["numbers", "vector", "categories", "text"])
def test_no_rows_are_no_rows(kind):
    table = column(["1", "2", "1", "2"])
    features = fitted(kind, table)
    array = features.transform(table.slice(0, 0), "g")
    assert (array.values.shape, array.is_there.shape) == ((0, features.dim), (0,))


@pytest.mark.parametrize(
    ("kind", "what", "values"),
    [
        ("numbers", "number", [None, math.nan, math.inf]),
        ("categories", "category", pa.array([None] * 3, pa.string())),
        ("vector", "vector", pa.array([None] * 3, pa.list_(pa.float32()))),
        ("text", "text", ["", " ", None]),
    ],
)
def test_a_group_without_any_value_is_refused(kind, what, values):
    with pytest.raises(InputError, match=f"group g has no {what} in any of 3 training rows; remove the group"):
        fitted(kind, pa.table({"x": values}))


@pytest.mark.parametrize(
    ("kind", "table", "expected"),
    [
        (
            "numbers",
            {"x": [1.0, math.nan, None, math.inf, None], "y": [1, 2, None, 3, 4]},
            GroupCounts(5, 1, not_finite=2, empty={"x": 3}),
        ),
        ("numbers", {"x": ["1", "inf", "", None, "nan"]}, GroupCounts(5, 4, not_finite=2)),
        ("vector", {"x": LISTS}, GroupCounts(6, 4, not_finite=3)),
        ("vector", {"x": [1.0, None, None, math.inf], "y": [1.0, 2.0, None, 1.0]}, GroupCounts(4, 3, not_finite=2)),
        (
            "categories",
            {"x": ["a", "a", "b", None], "y": ["c", "c", None, None]},
            GroupCounts(4, 1, unknown=1, empty={"y": 1}),
        ),
        ("text", {"x": ["red", "red", " ", None]}, GroupCounts(4, 2)),
    ],
)
def test_what_is_missing_is_counted(kind, table, expected):
    table = pa.table(table)
    features = fitted(kind, table, **({"text_dim": 2} if kind == "text" else {}))
    assert features.counted(features.transform(table, "g"), table, "g") == expected
