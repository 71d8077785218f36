import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from fusion.examples import GROUPS, number_group, products, table_of, tiny_network
from infobehavior.downstream.classifiers import CLASSIFIERS, Part, train_gbdt
from infobehavior.errors import InputError
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.config import Network
from infobehavior.fusion.gbdt import as_matrix
from infobehavior.fusion.parts import numbered, split_by_entity
from infobehavior.fusion.training import calibrated_loss

TABLE = table_of(products())


def fitted(table=TABLE, groups=GROUPS, **network):
    return FusionClassifier(groups, tiny_network(**network)).fit(table, table["risky"])


@pytest.fixture(scope="module")
def model():
    return fitted()


def weights_of(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.network_.state_dict().items()}


def matrix(num=200, seed=0):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num, 2))
    return rows, (rows[:, 0] > 0.5).astype(int)


def test_an_easy_task_is_learnt():
    rows, answers = matrix()
    model = FusionClassifier(number_group("0", "1"), tiny_network(max_epochs=30)).fit(rows, answers)
    others, expected = matrix(seed=1)
    assert model.score(others, expected) > 0.95
    probability = model.predict_proba(others)
    assert probability.sum(axis=1) == pytest.approx(1)
    assert (model.predict(others) == (probability[:, 1] >= 0.5)).all()


def test_in_a_pipeline():
    rows, answers = matrix()
    steps = [("scale", StandardScaler()), ("fuse", FusionClassifier(number_group("0", "1"), tiny_network()))]
    pipeline = Pipeline(steps).fit(rows, answers)
    assert pipeline.predict(rows).shape == (200,)
    assert pipeline.predict_proba(rows).shape == (200, 2)
    assert pipeline.classes_.tolist() == [0, 1]


def test_a_clone_is_untrained_and_learns_the_same(model):
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        copy.predict(TABLE)
    assert weights_of(copy.fit(TABLE, TABLE["risky"])) == weights_of(model)


def test_parameters_can_be_set():
    model = FusionClassifier(GROUPS).set_params(network=tiny_network(seed=3), gbdt=True)
    assert (model.network.seed, model.gbdt) == (3, True)


def test_equal_seeds_give_equal_bytes_and_others_do_not(model):
    again = fitted()
    assert weights_of(again) == weights_of(model)
    assert again.predict_proba(TABLE).tobytes() == model.predict_proba(TABLE).tobytes()
    assert again.losses_ == model.losses_
    assert weights_of(fitted(seed=1)) != weights_of(model)


def test_the_order_of_groups_changes_nothing(model):
    assert weights_of(fitted(groups=dict(reversed(GROUPS.items())))) == weights_of(model)


def test_the_state_of_random_numbers_is_left_alone():
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fitted(max_epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_tables_frames_and_dictionaries_of_groups_are_alike(model):
    frame = TABLE.to_pandas()
    other = FusionClassifier({name: group.model_dump() for name, group in GROUPS.items()}, tiny_network())
    assert weights_of(other.fit(frame, frame["risky"])) == weights_of(model)
    assert np.array_equal(other.predict_proba(frame), model.predict_proba(TABLE))


def test_a_data_frame_of_polars_is_alike(model):
    frame = pl.from_arrow(TABLE)
    assert weights_of(fitted(frame)) == weights_of(model)
    assert np.array_equal(model.predict_proba(frame), model.predict_proba(TABLE))
    enough = [name for columns in COLUMNS.values() for name in columns]
    assert np.array_equal(model.predict_proba(frame.select(enough)), model.predict_proba(TABLE))


def test_columns_that_nobody_asks_for_may_repeat(model):
    frame = pd.concat([TABLE.to_pandas(), pd.DataFrame({"task": ["other"] * len(TABLE)})], axis=1)
    assert np.array_equal(model.predict_proba(frame), model.predict_proba(TABLE))


def test_other_columns_may_hold_anything(model):
    frame = TABLE.to_pandas().assign(note=[{1}, "two", 3.0, None] * (len(TABLE) // 4))
    assert np.array_equal(model.predict_proba(frame), model.predict_proba(TABLE))


def test_classes_may_be_texts():
    rows, answers = matrix()
    names = np.where(answers, "risky", "fine")
    model = FusionClassifier(number_group("0", "1"), tiny_network(max_epochs=30)).fit(rows, names)
    assert model.classes_.tolist() == ["fine", "risky"]
    assert (model.predict(rows) == names).mean() > 0.95


def without(table, *names):
    for name in names:
        place = table.column_names.index(name)
        table = table.set_column(place, table.field(place), pa.nulls(len(table), table.field(place).type))
    return table


COLUMNS = {"listing": ("price", "views"), "look": ("color",), "picture": ("picture",), "title": ("title",)}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_that_is_missing_is_a_masked_one(model, name):
    tables = {group: TABLE.select(COLUMNS[group]) for group in GROUPS}
    expected = model.probability(tables, without=name)
    assert np.array_equal(model.predict_proba(without(TABLE, *COLUMNS[name]))[:, 1], expected)


def test_all_groups_may_be_missing(model):
    found = model.predict_proba(without(TABLE, *sum(COLUMNS.values(), ())))
    assert np.isfinite(found).all()
    assert len(np.unique(found[:, 1])) == 1


def test_no_rows_have_no_probabilities(model):
    assert model.predict_proba(TABLE.slice(0, 0)).shape == (0, 2)


def test_a_probability_does_not_depend_on_the_other_rows(model):
    """Not even its last digit: an example that is at the threshold stays there."""
    together = model.predict_proba(TABLE)
    alone = np.concatenate([model.predict_proba(TABLE.slice(row, 1)) for row in range(40)])
    assert np.array_equal(alone, together[:40])
    assert np.array_equal(model.predict_proba(TABLE.slice(7, 100)), together[7:107])


def test_validation_rows_are_never_learnt_from():
    """Their values change nothing of what is learnt from values; that no epoch is better than the first, neither."""
    is_validation = np.arange(len(TABLE)) % 5 == 0
    changed = [
        row | {"price": 1e6, "views": 10**6, "color": "pink", "title": "zebra zebra", "picture": [9.0, 9.0, 9.0]}
        if is_validation[place]
        else row
        for place, row in enumerate(products())
    ]
    models = [
        FusionClassifier(GROUPS, tiny_network(max_epochs=1, calibration="none")).fit(
            table, table["risky"], is_validation=is_validation
        )
        for table in (TABLE, table_of(changed))
    ]
    one, other = ({name: f.described() for name, f in model.features_.items()} for model in models)
    assert one == other
    for name in GROUPS:
        one, other = (model.features_[name].tensors() for model in models)
        assert {key: array.tobytes() for key, array in one.items()} == {k: a.tobytes() for k, a in other.items()}
    assert weights_of(models[0]) == weights_of(models[1])
    assert models[0].num_training_ == (~is_validation).sum()


def test_lightgbm_learns_from_the_training_rows_alone():
    is_validation = np.arange(len(TABLE)) % 5 == 0
    model = FusionClassifier(GROUPS, tiny_network(), gbdt=True)
    model.fit(TABLE, TABLE["risky"], is_validation=is_validation)
    positive = np.array(TABLE["risky"]) == 1
    arrays = model.arrays({name: TABLE.select(list(group.columns)) for name, group in model.checked_groups().items()})
    matrix, weights = as_matrix(arrays, model.num_codes), np.where(positive, 4.0, 1.0)
    learnt, held_out = (Part(matrix[rows], positive[rows], weights[rows]) for rows in (~is_validation, is_validation))
    num_trees = CLASSIFIERS["gbdt"].choose(learnt, held_out, 0).setting
    expected = train_gbdt(learnt, num_trees, 0)
    assert model.gbdt_.booster.model_to_string() == expected.model_to_string()
    everything = Part(matrix, positive, weights)
    assert train_gbdt(everything, num_trees, 0).model_to_string() != expected.model_to_string()


def test_the_kept_epoch_has_the_lowest_loss_of_the_validation_part():
    model = fitted(max_epochs=40, patience=3, learning_rate=0.05)
    losses = [loss for _, loss in model.losses_]
    assert losses[model.best_epoch_] == min(losses)
    assert len(losses) < 40
    assert len(losses) == model.best_epoch_ + 3 + 1


def test_the_loss_of_the_validation_part_is_that_of_calibrated_probabilities():
    is_validation = np.arange(len(TABLE)) % 5 == 0
    model = FusionClassifier(GROUPS, tiny_network(calibration="platt"))
    model.fit(TABLE, TABLE["risky"], is_validation=is_validation)
    total = 0.0
    for row in np.flatnonzero(is_validation).tolist():
        probability = model.predict_proba(TABLE.slice(row, 1))[0, 1]
        total -= np.log(probability if TABLE["risky"][row].as_py() == 1 else 1 - probability)
    assert model.losses_[model.best_epoch_][1] == pytest.approx(total / is_validation.sum(), rel=1e-5)


def test_scores_that_are_too_sure_but_well_ordered_do_not_end_the_training():
    positive = np.array([False] * 30 + [True] * 10)
    scores = np.where(positive, 1.0, -1.0) + np.random.default_rng(0).normal(size=40)
    assert calibrated_loss(50 * scores + 7, positive) == pytest.approx(calibrated_loss(scores, positive), rel=1e-4)
    assert calibrated_loss(scores, positive) < calibrated_loss(np.random.default_rng(1).permutation(scores), positive)


def test_the_loss_of_what_went_astray_is_not_a_number():
    assert np.isnan(calibrated_loss(np.array([0.0, np.inf]), np.array([False, True])))


def test_balanced_weights_make_the_classes_equal():
    """So many copies as make them equal give the same as saying the number."""
    is_validation = np.arange(len(TABLE)) % 5 == 0
    positive = np.asarray(TABLE["risky"])[~is_validation] == 1
    models = [
        FusionClassifier(GROUPS, tiny_network(positive_weight=weight)).fit(
            TABLE, TABLE["risky"], is_validation=is_validation
        )
        for weight in ("balanced", float((~positive).sum() / positive.sum()))
    ]
    assert weights_of(models[0]) == weights_of(models[1])


def test_masking_and_weights_change_what_is_learnt(model):
    assert weights_of(fitted(dynamic_masking=False)) != weights_of(model)
    assert weights_of(fitted(positive_weight=1.0)) != weights_of(model)


@pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
def test_lightgbm_learns_from_the_same_groups(calibration):
    model = FusionClassifier(GROUPS, tiny_network(calibration=calibration), gbdt=True).fit(TABLE, TABLE["risky"])
    arrays = model.arrays({group: TABLE.select(COLUMNS[group]) for group in GROUPS})
    found = model.gbdt_probability_of(arrays)
    assert ((found >= 0) & (found <= 1)).all()
    positive = np.asarray(TABLE["risky"]) == 1
    assert found[positive].mean() > found[~positive].mean() + 0.1


def test_a_training_that_diverges():
    with pytest.raises(InputError, match=r"the loss is no longer a number: lower network\.learning_rate"):
        fitted(learning_rate=1e30)


def test_few_examples_are_enough():
    rows = np.array([[0.0], [1.0], [0.2], [0.9]])
    model = FusionClassifier(number_group("0"), tiny_network()).fit(rows, [0, 1, 0, 1])
    assert model.num_training_ == 2
    assert np.isfinite(model.predict_proba(rows)).all()


FOUR = pa.table({"x": [1.0, 2.0, 3.0, 4.0], "t": ["a", "b", "a", "b"]})


@pytest.mark.parametrize(
    ("groups", "rows", "answers", "said"),
    [
        ({}, FOUR, [0, 1, 0, 1], "no groups are given; expected at least one"),
        (number_group("y"), FOUR, [0, 1, 0, 1], "there is no column 'y' for group numbers; there are x, t"),
        (number_group("t"), FOUR, [0, 1, 0, 1], "group numbers, column 't' has 2 of 2 values that aren't numbers"),
        (number_group("x"), FOUR, [0, 0, 0, 0], r"y has 1 classes \(0\); expected two"),
        (number_group("x"), FOUR, [0, 1, 2, 3], r"y has 4 classes \(0, 1, 2, 3\); expected two"),
        (number_group("x"), FOUR, [0, 1, None, 1], "y has 1 of 4 answers that are null; leave these rows out"),
        (number_group("x"), FOUR, [0, 1, np.nan, 1], "y has 1 of 4 answers that are null; leave these rows out"),
        (number_group("x"), FOUR, [0, 0, 0, 1], "1 of 4 examples are positive: a fifth of each class"),
        (number_group("x"), FOUR, [0, 1, 0], r"y has shape \(3,\); expected \(4,\), an answer a row"),
        (number_group("x"), FOUR, [[0], [1], [0], [1]], r"y has shape \(4, 1\); expected \(4,\), an answer a row"),
        (number_group("0"), np.zeros(4), [0, 1, 0, 1], r"the given rows have shape \(4,\); expected a table"),
        (number_group("x"), FOUR, [1, "a", "a", 1], r"y has answers of several types \(int, str\); give them one"),
        (number_group("x"), FOUR, pd.Series([1, "a", "a", 1]), r"y has answers of several types \(int, str\)"),
        (number_group("x"), FOUR, np.array([np.datetime64(n, "ns") for n in (0, 1, 0, 1)], object), "y has times; "),
        (number_group("x"), FOUR, ["a", np.nan, "b", "a"], "y has 1 of 4 answers that are null"),
        (number_group("0"), csr_array(np.eye(4)), [0, 1, 0, 1], r"are a sparse matrix; .*: give rows\.toarray\(\)"),
        (number_group("x"), FOUR.append_column("x", FOUR["x"]), [0, 1, 0, 1], "there are 2 columns 'x'; expected one"),
        (number_group("x"), pd.DataFrame(np.eye(4), columns=list("xxyz")), [0, 1, 0, 1], "there are 2 columns 'x'"),
        (number_group("0"), pd.DataFrame(np.eye(4), columns=[0, "0", 2, 3]), [0, 1, 0, 1], "there are 2 columns '0'"),
        (number_group("x"), pl.LazyFrame({"x": [1, 2, 3, 4]}), [0, 1, 0, 1], "are a LazyFrame; expected a data frame"),
        (
            {"a": {"kind": "representation", "table": "t"}},
            FOUR,
            [0, 1, 0, 1],
            "group a is joined from t, which `infobehavior fuse` does",
        ),
    ],
)
def test_what_can_not_be_learnt_from(groups, rows, answers, said):
    with pytest.raises(InputError, match=said):
        FusionClassifier(groups, tiny_network()).fit(rows, answers)


@pytest.mark.parametrize(
    "given",
    [
        [np.bool_(False), np.bool_(True)],
        [np.int64(0), np.int64(1)],
        [np.float64(0), np.float64(1)],
        [np.str_("a"), np.str_("b")],
        [False, np.bool_(True)],
        [0, np.uint8(1)],
    ],
)
@pytest.mark.parametrize("null", [None, np.nan, np.float32(np.nan), pd.NA])
def test_answers_may_be_scalars_of_numpy(given, null):
    """They are the values of Python that they are equal to."""
    answers = np.empty(40, dtype=object)
    answers[:] = given * 20
    rows = pa.table({"x": [0.0, 1.0] * 20})
    model = FusionClassifier(number_group("x"), tiny_network(max_epochs=1)).fit(rows, answers)
    assert model.classes_.tolist() == given
    assert not any(isinstance(name, np.bool_ | np.number | np.str_) for name in model.classes_.tolist())
    answers[3] = null
    with pytest.raises(InputError, match="y has 1 of 40 answers that are null; leave these rows out"):
        FusionClassifier(number_group("x"), tiny_network()).fit(rows, answers)


MASKED = np.ma.masked_array([0, 1, 0, 1], mask=[False, True, False, False])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"X": np.ma.masked_array(np.eye(4), mask=np.eye(4) > 0)},
            r"rows are a masked array, whose mask would be lost: give rows\.astype\(float\)\.filled\(np\.nan\), ",
        ),
        ({"y": MASKED}, "y is a masked array, whose mask would be lost: leave the rows out that it masks"),
        ({"entity": MASKED}, r"entity is a masked array, whose mask would be lost: give entity\.tolist\(\)"),
        ({"is_validation": MASKED}, r"is_validation is a masked array, .*: give is_validation\.filled\(False\)"),
    ],
)
def test_masked_arrays_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        FusionClassifier(number_group("0"), tiny_network()).fit(**({"X": np.eye(4), "y": [0, 1, 0, 1]} | given))


def test_a_masked_array_is_refused_at_prediction_too():
    """As it is advised there, what is masked is missing."""
    rows = np.arange(40.0)[:, None]
    model = FusionClassifier(number_group("0"), tiny_network(max_epochs=1)).fit(rows, rows[:, 0] > 20)
    given = np.ma.masked_array([[1], [2]], mask=[[True], [False]])
    with pytest.raises(InputError, match="the given rows are a masked array"):
        model.predict_proba(given)
    expected = model.predict_proba(np.array([[np.nan], [2.0]]))
    assert np.array_equal(model.predict_proba(given.astype(float).filled(np.nan)), expected)


LARGE = [2**63, 2**64, -(2**63) - 1, 10**75]


@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize("kind", ["numbers", "categories", "text"])
def test_whole_numbers_of_more_than_64_bits(kind, large):
    """They are as their digits are, as text."""
    values = [large, 5, None, large, large, 5, 7, 5] * 5
    texts = [None if value is None else str(value) for value in values]
    frames = [pd.DataFrame({"x": pd.Series(given, dtype=object)}) for given in (values, texts)]
    group = {"kind": kind, "columns": ["x"]} | ({"text_dim": 2} if kind == "text" else {})
    answers = [value == large for value in values]
    first, second = (FusionClassifier({"g": group}, tiny_network()).fit(frame, answers) for frame in frames)
    assert weights_of(first) == weights_of(second)
    assert np.array_equal(first.predict_proba(frames[0]), second.predict_proba(frames[1]))


@pytest.mark.parametrize("others", [["a"], [True], [1.5], [10**5_000], [object()]])
def test_whole_numbers_of_more_than_64_bits_beside_something_else(others):
    frame = pd.DataFrame({"x": pd.Series([2**63, 2**64, 1, *others], dtype=object)})
    with pytest.raises(InputError, match="column 'x' "):
        FusionClassifier(number_group("x"), tiny_network()).fit(frame, [0, 1, 0, 1])


def test_a_validation_part_that_does_not_say_of_each_row():
    chosen = pd.array([True, False, None, True], dtype="boolean")
    with pytest.raises(InputError, match="is_validation can't be read: "):
        FusionClassifier(number_group("x"), tiny_network()).fit(FOUR, [0, 1, 0, 1], is_validation=chosen)


@pytest.mark.parametrize("first", [2**63, 2**64])
def test_ids_of_accounts_may_have_more_than_64_bits(first):
    """As they may in a table of examples, where they are read as text."""
    ids = [None if seller is None else first + seller for seller in TABLE["seller"].to_pylist()]
    as_given = [ids, [None if name is None else str(name) for name in ids]]
    if first == 2**63:
        as_given += [np.array(ids, np.uint64), pd.Series(ids, dtype="uint64"), pa.array(ids, pa.uint64())]
    models = [FusionClassifier(GROUPS, tiny_network(max_epochs=1)) for _ in as_given]
    weights = [
        weights_of(model.fit(TABLE, TABLE["risky"], entity=of)) for model, of in zip(models, as_given, strict=True)
    ]
    assert all(of == weights[0] for of in weights)


def test_a_column_of_a_frame_that_has_no_type():
    frame = pd.DataFrame({"x": [1.0, "two", None, {3}]})
    with pytest.raises(InputError, match="column 'x'"):
        FusionClassifier(number_group("x"), tiny_network()).fit(frame, [0, 1, 0, 1])


def test_numbers_of_another_type_at_prediction(model):
    frame = TABLE.to_pandas()
    texts = frame.assign(price=frame["price"].map(lambda price: "" if np.isnan(price) else repr(price)))
    assert np.array_equal(model.predict_proba(texts), model.predict_proba(frame))
    with pytest.raises(InputError, match="group listing, column 'price' has 160 of 160 values that aren't numbers"):
        model.predict_proba(frame.assign(price="cheap"))


@pytest.mark.parametrize(
    ("is_validation", "said"),
    [
        ([True] * 4, "the training part has 0 examples and no positive one"),
        ([False] * 4, "the validation part has 0 examples and no positive one"),
        ([True, False, True, False], "the training part has 2 examples and no negative one"),
        ([True] * 3, r"is_validation has shape \(3,\); expected \(4,\), as y"),
    ],
)
def test_parts_that_lack_a_class(is_validation, said):
    with pytest.raises(InputError, match=said):
        FusionClassifier(number_group("x"), tiny_network()).fit(FOUR, [0, 1, 0, 1], is_validation=is_validation)


def test_the_defaults_are_those_of_the_configuration():
    model = FusionClassifier(number_group("x"))
    assert (model.network, model.gbdt) == (None, False)
    assert Network().dynamic_masking


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_without_columns_is_a_group_of_nulls(model, name):
    columns = list(GROUPS[name].columns)
    there = TABLE.drop_columns(columns)
    nulls = there
    for column in columns:
        nulls = nulls.append_column(TABLE.schema.field(column), pa.nulls(len(TABLE), TABLE[column].type))
    with pytest.warns(UserWarning, match=f"no column of {name} is there; all rows count as without"):
        probability = model.predict_proba(there)
    assert np.array_equal(probability, model.predict_proba(nulls))
    assert not np.array_equal(probability, model.predict_proba(TABLE))


def test_part_of_a_group_or_nothing_at_all_is_refused(model):
    with pytest.raises(InputError, match="there is no column 'views' for group listing"):
        model.predict_proba(TABLE.drop_columns(["views"]))
    with pytest.raises(InputError, match="there is no column 'price' for group listing"):
        model.predict_proba(TABLE.select(["product"]))
    with pytest.raises(InputError, match="there is no column 'title' for group title"):
        fitted(TABLE.drop_columns(["title"]))


@pytest.mark.parametrize(
    "as_given", [lambda column: column, lambda column: column.to_pandas(), lambda column: column.to_pylist()]
)
def test_all_rows_of_an_account_are_in_the_same_part(as_given):
    model = FusionClassifier(GROUPS, tiny_network(max_epochs=1))
    model.fit(TABLE, TABLE["risky"], entity=as_given(TABLE["seller"]))
    number = numbered(TABLE["seller"].cast(pa.string()).combine_chunks())
    parts = split_by_entity(number, TABLE["risky"].to_numpy() == 1, 0.2, 0)
    assert not set(number[parts.training]) & set(number[parts.validation])
    assert model.num_training_ == parts.training.sum()
    given = FusionClassifier(GROUPS, tiny_network(max_epochs=1))
    given.fit(TABLE, TABLE["risky"], is_validation=parts.validation)
    assert weights_of(given) == weights_of(model)


def parts_of(num_positives, num_all, seed=0):
    model = FusionClassifier(number_group("0"), tiny_network(seed=seed))
    return model._parts(np.arange(num_all) < num_positives, None, None)


@pytest.mark.parametrize("num_positives", [1, 2, 998, 999])
def test_too_few_examples_of_a_class_for_two_parts(num_positives):
    said = f"{num_positives} of 1000 examples are positive: .*; give 3 of each class or more, or say is_validation"
    with pytest.raises(InputError, match=said):
        parts_of(num_positives, 1_000)


@pytest.mark.parametrize("num_all", [6, 9, 12, 16, 1_000])
def test_three_examples_of_a_class_are_enough_for_two_parts(num_all):
    """As is said where there are fewer; with any seed."""
    for num_positives in (3, 4, num_all - 3):
        for seed in range(5):
            parts = parts_of(num_positives, num_all, seed)
            positive = np.arange(num_all) < num_positives
            assert all(len(set(positive[rows].tolist())) == 2 for rows in (parts.training, parts.validation))


def test_one_positive_account_is_in_one_part_only():
    """No seed helps, nor does another share."""
    positive = np.array(TABLE["seller"]) == 8
    model = FusionClassifier(GROUPS, tiny_network())
    said = rf"all positive examples \({positive.sum()}\) are of one account, and an account is in one part only; give"
    with pytest.raises(InputError, match=said):
        model.fit(TABLE, positive, entity=TABLE["seller"])


def plain_numbers(names):
    """In the order of the names; those who have none come last, each by itself."""
    ordered = sorted({name for name in names if name is not None})
    nobody = iter(range(len(ordered), len(ordered) + len(names)))
    return [next(nobody) if name is None else ordered.index(name) for name in names]


NAMES = ["b", None, "a", "", "ab", "a\0", "a", "ł", "\U0001f600", "\uffff", "10", "9", None, "B", "b", "x" * 5_000]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(NAMES), max_size=20))
@example([None, None])
@example(NAMES)
def test_accounts_are_numbered_by_their_names(names):
    """Whatever the order of rows; ids may be long, and differ by what C takes for an end."""
    assert numbered(pa.array(names, pa.string())).tolist() == plain_numbers(names)


def test_one_long_id_takes_no_memory_of_the_others():
    """Padded to the longest, these would take 40 GB."""
    names = pa.array([*map(str, range(10_000)), "x" * 1_000_000])
    assert len(np.unique(numbered(names))) == 10_001


def test_accounts_that_do_not_fit_are_refused():
    model = FusionClassifier(GROUPS, tiny_network())
    with pytest.raises(InputError, match="entity has 3 rows; expected 160, as y"):
        model.fit(TABLE, TABLE["risky"], entity=[1, 2, 3])
    with pytest.raises(InputError, match="is_validation and entity are given; expected one of them"):
        model.fit(TABLE, TABLE["risky"], entity=TABLE["seller"], is_validation=np.zeros(160, bool))
    with pytest.raises(InputError, match="column 'entity' can't be read"):
        model.fit(TABLE, TABLE["risky"], entity=[{}, *([1] * 159)])


def chances_of_a_new_category(seed):
    """Of a category that training had, that it didn't have, of none, and of another that it had."""
    random = np.random.default_rng(0)
    color = random.choice(["red", "blue"], size=200)
    size = random.normal(size=200)
    risky = (color == "red") & (size > -1)
    groups = {"look": {"kind": "categories", "columns": ["color", "size of"]}}
    table = pa.table({"color": color, "size of": np.where(size > 0, "large", "small"), "risky": risky})
    network = tiny_network(max_epochs=30, group_dim=32, hidden_dim=32, seed=seed)
    model = FusionClassifier(groups, network).fit(table, risky)
    colors = ["blue", "green", None, "red"]
    return model, model.predict_proba(pa.table({"color": colors, "size of": ["large"] * 4}))[:, 1]


@pytest.mark.parametrize("seed", range(5))
def test_a_category_that_training_does_not_have_is_as_the_average_of_those_that_it_has(seed):
    model, (blue, green, none, red) = chances_of_a_new_category(seed)
    assert blue <= green <= red
    assert blue < red
    assert green == none
    weights = model.network_.encoders[0][0].columns[0].weight
    unknown, no_value, *known = weights.detach().numpy()
    assert np.array_equal(unknown, no_value)
    between = (unknown - known[0]) / (known[1] - known[0])
    assert between == pytest.approx(between[0], abs=1e-4)
    assert 0.3 < between[0] < 0.7
