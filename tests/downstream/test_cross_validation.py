import numpy as np
import pytest

from infobehavior.downstream.classifiers import CLASSIFIERS, Part
from infobehavior.downstream.cross_validation import cross_validate, make_folds
from infobehavior.errors import InputError


def example(num=120, seed=0):
    random = np.random.default_rng(seed)
    positive = random.random(num) < 0.3
    features = random.normal(size=(num, 4)) + positive[:, None]
    return features, positive, random.integers(0, num // 3, num)


@pytest.mark.parametrize("seed", range(10))
def test_a_group_is_never_on_both_sides(seed):
    _, positive, groups = example(seed=seed)
    for fold in make_folds(positive, groups, folds=5, seed=seed):
        assert not set(groups[fold.train]) & set(groups[fold.test])
        inner = groups[fold.train]
        assert not set(inner[fold.inner_train]) & set(inner[fold.held_out])


@pytest.mark.parametrize("grouped", [False, True])
def test_each_row_is_tested_once_and_never_trained_on_in_its_fold(grouped):
    _, positive, groups = example()
    folds = make_folds(positive, groups if grouped else None, folds=5, seed=0)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(120))
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(120))
        assert sorted([*fold.inner_train, *fold.held_out]) == list(range(len(fold.train)))
        for rows in (fold.test, fold.train[fold.held_out], fold.train[fold.inner_train]):
            assert positive[rows].any()
            assert not positive[rows].all()


def test_a_fifth_of_the_training_fold_is_held_out():
    _, positive, _ = example(500)
    for fold in make_folds(positive, None, folds=5, seed=0):
        assert len(fold.held_out) / len(fold.train) == pytest.approx(0.2, abs=0.01)


def test_the_seed_decides_the_folds():
    _, positive, _ = example()
    tests = [make_folds(positive, None, 5, seed)[0].test.tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1]
    assert tests[0] != tests[2]


@pytest.mark.parametrize(
    ("num_positives", "folds", "message"),
    [
        (3, 5, r"only 3 positives among 100 windows that have a label: 5 folds need at least 5"),
        (97, 5, r"only 3 negatives among 100"),
        (2, 2, r"only 2 positives among 100 windows that have a label: 2 folds need at least 4"),
        (0, 5, r"the 100 windows that have a label are of one class: no positives"),
        (100, 5, r"are of one class: no negatives"),
        (30, 1, r"folds must be 2 or more, got 1"),
    ],
)
def test_too_few_rows_of_a_class(num_positives, folds, message):
    with pytest.raises(InputError, match=message):
        make_folds(np.arange(100) < num_positives, None, folds, seed=0)


@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_too_few_groups_of_a_class(num_groups):
    positive = np.arange(100) < 20
    groups = np.where(positive, np.arange(100) % num_groups, np.arange(100))
    with pytest.raises(InputError, match=rf"the positives are in {num_groups} groups .* use fewer folds or a finer"):
        make_folds(positive, groups, 5, seed=0)


@pytest.mark.parametrize("num_groups", [1, 4])
def test_too_few_groups_in_all(num_groups):
    positive = np.arange(100) % 7 < 2
    with pytest.raises(InputError, match=rf"only {num_groups} groups among 100 windows .*: 5 folds need at least 5"):
        make_folds(positive, np.arange(100) % num_groups, 5, seed=0)


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_the_fewest_positives_that_are_allowed_suffice(folds):
    positive = np.arange(40) < 4
    assert len(make_folds(positive, None, folds, seed=0)) == folds


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_test_fold_decides_nothing(name):
    features, positive, _ = example()
    folds = make_folds(positive, None, folds=3, seed=0)[:1]
    spoiled = features.copy()
    spoiled[folds[0].test] = 1e3
    flipped = positive.copy()
    flipped[folds[0].test] = ~positive[folds[0].test]
    settings = [
        cross_validate(x, y, folds, CLASSIFIERS[name], seed=0).settings
        for x, y in ((features, positive), (spoiled, flipped))
    ]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_find_what_is_there_and_repeat_themselves(name):
    features, positive, groups = example(300)
    folds = make_folds(positive, groups, folds=3, seed=0)
    runs = [cross_validate(features, positive, folds, CLASSIFIERS[name], seed=0) for _ in range(2)]
    assert runs[0].values("auc").min() > 0.8
    assert runs[0].metrics == runs[1].metrics
    assert np.array_equal(runs[0].scores, runs[1].scores)
    assert ((runs[0].scores > 0) & (runs[0].scores < 1)).all()


def test_weights_are_as_good_as_copies():
    features, positive, _ = example()
    weights = np.where(positive, 4.0, 1.0)
    copies = np.repeat(np.arange(120), weights.astype(int))
    # The scaler doesn't weigh rows, so that both see the same scale only for standardised features of the copies.
    features = features - features[copies].mean(axis=0)
    fit = CLASSIFIERS["lr"].fit
    weighted = fit(Part(features, positive, weights), 1e6, 0)(features)
    copied = fit(Part(features[copies], positive[copies], np.ones(len(copies))), 1e6, 0)(features)
    assert weighted == pytest.approx(copied, abs=2e-3)


def test_advance_is_called_once_a_fold():
    features, positive, _ = example()
    calls = []
    folds = make_folds(positive, None, folds=4, seed=0)
    cross_validate(features, positive, folds, CLASSIFIERS["lr"], oversample=1, seed=0, advance=lambda: calls.append(1))
    assert len(calls) == 4
