import math

import numpy as np
import operating_point
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from infobehavior.downstream.metrics import recall_at_precision
from infobehavior.fusion.config import Operating
from infobehavior.fusion.operating_point import (
    ABOVE_ALL,
    NUM_RESAMPLES,
    at_threshold,
    choose_threshold,
    precision_bound,
    recall_intervals,
    resampled,
    threshold_intervals,
)


@st.composite
def judged(draw):
    """Answers of both classes with probabilities, many of them equal."""
    rows = draw(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40))
    positive = np.array([answer for _, answer in rows])
    positive[:2] = True, False
    return positive, np.array([number / 12 for number, _ in rows])


def outcomes(positive, scores):
    """Of each threshold, from the highest: how many are flagged, and how many of them are positive."""
    for threshold in sorted(set(scores.tolist()), reverse=True):
        flagged = [answer for answer, score in zip(positive, scores, strict=True) if score >= threshold]
        yield threshold, len(flagged), sum(map(bool, flagged))


def chosen(positive, scores, **operating):
    return choose_threshold(positive, scores, Operating(**operating))


PRECISIONS = st.fractions(0, 1, max_denominator=20).filter(lambda share: 0 < share < 1)


def least_precision(hits, count, certainty):
    """The precision at which so many hits or more have a chance of 1 - certainty, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binom.sf(hits - 1, count, middle) < 1 - certainty else (low, middle)
    return low


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0.01, 0.99))
def test_the_bound_of_a_precision_is_that_of_the_binomial_test(count, share, certainty):
    hits = round(share * count)
    bound = precision_bound(np.array([hits]), np.array([count]), certainty)[0]
    interval = binomtest(hits, count, alternative="greater").proportion_ci(certainty, method="exact")
    assert bound == pytest.approx(interval.low, abs=1e-9)
    assert bound == pytest.approx(least_precision(hits, count, certainty) if hits else 0, abs=1e-9)


def least_precision_of_accounts(flagged, certainty):
    """Of (account, answer): the precision from which accounts differ by so much as chance allows, by halving."""
    accounts = {}
    for who, answer in flagged:
        accounts.setdefault(who, []).append(bool(answer))
    of_accounts = [(sum(answers), len(answers)) for answers in accounts.values()]
    hits, count, num_accounts = sum(answer for _, answer in flagged), len(flagged), len(accounts)
    of_accounts.append((0, count / num_accounts))
    z = norm.ppf(certainty)

    def is_reached(precision):
        differences = [right - precision * of for right, of in of_accounts]
        return sum(differences) >= z * math.sqrt(sum(one**2 for one in differences))

    low, high = 0.0, hits / sum(of for _, of in of_accounts)
    if not is_reached(0.0) or sum(of for _, of in of_accounts) ** 2 <= z**2 * sum(of**2 for _, of in of_accounts):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_reached(middle) else (low, middle)
    return min(low, least_precision(hits, count, certainty), least_precision(num_accounts, num_accounts, certainty))


@settings(max_examples=50)
@given(judged(), st.integers(1, 40), st.sampled_from([0.21, 0.51, 0.79]), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_threshold_of_a_certain_precision(drawn, num_accounts, precision, certainty):
    positive, scores = drawn
    entity = np.arange(len(positive)) ** 2 % num_accounts
    looked_at, allowed = [], []
    for number in (1, 2, 3, 4, 6, 8, 12, 18, 26, 39, 58):
        enough = [threshold for threshold, count, _ in outcomes(positive, scores) if count >= number]
        looked_at.append(enough[0] if enough else scores.min())
    for threshold, count, hits in outcomes(positive, scores):
        flagged = [
            (who, answer) for who, answer, score in zip(entity, positive, scores, strict=True) if score >= threshold
        ]
        is_certain = hits and least_precision_of_accounts(flagged, certainty) >= precision
        allowed += [(hits, -count, threshold)] if is_certain and threshold in looked_at else []
    point = choose_threshold(positive, scores, Operating(precision=precision, certainty=certainty), entity)
    assert point.is_met == bool(allowed)
    if allowed:
        assert point.threshold == max(allowed)[2]
        assert point.rule.endswith(f"or more with certainty {certainty:g}")


COSTS = st.integers(0, 20).map(lambda number: number / 4)


@given(judged(), COSTS, COSTS)
def test_the_threshold_has_the_lowest_cost(drawn, of_false_alarm, of_miss):
    positive, scores = drawn
    costs = {
        threshold: of_false_alarm * (count - hits) + of_miss * (positive.sum() - hits)
        for threshold, count, hits in outcomes(positive, scores)
    }
    nothing = of_miss * positive.sum()
    operating = Operating(cost_of_false_alarm=of_false_alarm, cost_of_miss=of_miss)
    point = choose_threshold(positive, scores, operating)
    assert point.is_met
    cost = at_threshold(positive, scores, operating, point.threshold)["cost"] * len(positive)
    assert cost == pytest.approx(min(nothing, *costs.values()))
    assert (point.threshold > 1) == (nothing < min(costs.values()))


@given(judged())
def test_the_threshold_has_the_best_f1(drawn):
    positive, scores = drawn
    best = max(2 * hits / (count + int(positive.sum())) for _, count, hits in outcomes(positive, scores))
    point = chosen(positive, scores)
    assert at_threshold(positive, scores, Operating(), point.threshold)["f1"] == pytest.approx(best)


def test_what_was_required_and_found_is_said():
    positive, scores = np.array([True, True, False, True]), np.array([0.9, 0.8, 0.7, 0.6])
    point = chosen(positive, scores, precision=0.5, certainty=0.7)
    assert point.line == (
        "threshold 0.8 by the highest recall with a precision of 0.5 or more with certainty 0.7; on the validation "
        "part it flags 2 and finds 2 of 3 positives: precision 1.000, recall 0.667"
    )


def test_a_precision_that_can_not_be_reached():
    positive, scores = np.array([True, False, True, False]), np.array([0.9, 0.9, 0.5, 0.1])
    point = chosen(positive, scores, precision=0.9)
    assert (point.is_met, point.threshold > 1) == (False, True)
    assert point.line == (
        "a precision of 0.9 can't be reached on the validation part (2 positives): the best, 0.667 of 3 alarms, is "
        "certain at 0.268 only; nothing will be flagged. Require less, or give more accounts with positives, or better "
        "features"
    )


def test_one_right_alarm_is_no_precision():
    positive, scores = np.array([True, *[False] * 9]), np.linspace(1, 0, 10)
    assert not chosen(positive, scores, precision=0.95).is_met


def of_accounts(*alarms):
    """Answers, scores and accounts of alarms, highest scores first: of each account how many are right and wrong."""
    entity = np.repeat(np.arange(len(alarms)), [right + wrong for right, wrong in alarms])
    positive = np.concatenate([np.arange(right + wrong) < right for right, wrong in alarms])
    return positive, np.linspace(0.99, 0.1, len(entity)), entity


def test_a_wrong_alarm_of_another_account_is_no_evidence():
    positive, scores, entity = of_accounts((50, 0), (0, 1), *[(1, 0), (0, 1)] * 3)
    for certainty in (0.8, 0.95):
        point = choose_threshold(positive, scores, Operating(precision=0.9, certainty=certainty), entity)
        assert not point.is_met


def test_two_large_accounts_that_are_right_are_no_evidence():
    positive, scores, entity = of_accounts((100, 0), (0, 1), (100, 0), (0, 1))
    assert not choose_threshold(positive, scores, Operating(precision=0.95, certainty=0.95), entity).is_met


@pytest.mark.parametrize("size", [1, 20])
def test_so_many_accounts_are_needed_as_of_right_alarms(size):
    """0.8 to the power of 8 is less than 0.2."""
    for num_accounts, is_enough in ((7, False), (12, True)):
        positive, scores, entity = of_accounts(*[(size, 0)] * num_accounts, (0, 1))
        assert choose_threshold(positive, scores, Operating(precision=0.8, certainty=0.8), entity).is_met == is_enough


@pytest.mark.parametrize(
    ("size", "reached", "least_claims"),
    [
        ("8 each", "hardly", 0.3),
        ("lognormal, sigma 1.5", "easily", 0.9),
        ("lognormal, sigma 1.5", "barely", 0.4),
    ],
)
def test_a_certainty_is_how_often_the_precision_is_truly_there(size, reached, least_claims):
    """Simulated: accounts that differ in size and in how often they are right; the truth is that of many accounts."""
    found = operating_point.simulated(300, size, 0.8, reached, num_validations=150)
    for certainty, kept in found.items():
        assert kept.wrong <= 1 - certainty
    assert found[0.8].claims >= least_claims


def test_the_table_of_the_benchmark_has_a_row_for_each_setting(monkeypatch):
    monkeypatch.setattr(operating_point, "SIZES", {"1 each": operating_point.SIZES["1 each"]})
    monkeypatch.setattr(operating_point, "ACCOUNTS", (40, 80))
    head, rule, *rows = operating_point.lines(2)
    assert [row.split(" | ")[:2] for row in rows] == [["| 1 each", "0.5"], ["| 1 each", "0.8"], ["| 1 each", "0.95"]]
    assert {line.count("|") for line in (head, rule, *rows)} == {13}


def test_an_interval_knows_that_few_right_alarms_prove_little():
    positive = np.array([True] * 10 + [False] * 90)
    scores, entity = np.where(positive, 0.9, 0.1), np.arange(100)
    interval = threshold_intervals(positive, scores, entity, Operating(), 0.5, 0)["precision"]
    assert interval == pytest.approx((0.692, 1.0), abs=1e-3)


@pytest.mark.parametrize("name", ["precision", "recall"])
@pytest.mark.parametrize("right", [True, False])
def test_an_interval_of_all_or_nothing_is_not_a_point(name, right):
    """Of five accounts with two examples each all were right alarms, or found; or none was."""
    of, outcome = np.repeat([True, False], [10, 90]), np.repeat([right, True, False], [10, 45, 45])
    outcome[10:] = False if name == "precision" and right else outcome[10:]
    flagged, positive = (of, outcome) if name == "precision" else (outcome, of)
    found = threshold_intervals(positive, flagged.astype(float), np.arange(100) // 2, Operating(), 0.5, 0)[name]
    exact = binomtest(5 if right else 0, 5).proportion_ci(0.95, method="exact")
    assert found == pytest.approx((exact.low, exact.high), abs=1e-3)


def test_all_found_at_a_precision_is_not_certain_either():
    positive = np.arange(100) < 5
    found = recall_intervals(positive, positive.astype(float), np.arange(100), 0.5, seed=0)
    assert found == pytest.approx((0.478, 1.0), abs=1e-3)


def test_where_nothing_is_flagged_there_is_no_precision():
    positive, scores, entity = np.arange(40) < 20, np.full(40, 0.3), np.arange(40)
    assert at_threshold(positive, scores, Operating(), 0.5) == {"precision": None, "recall": 0.0, "f1": 0.0}
    found = threshold_intervals(positive, scores, entity, Operating(), 0.5, 0)
    assert found["precision"] is None
    assert found["recall"] == pytest.approx((0.0, 0.168), abs=1e-3)
    assert threshold_intervals(positive, scores, entity, Operating(), ABOVE_ALL, 0)["recall"] == (0.0, 0.0)


@pytest.mark.parametrize(("num_accounts", "is_certain"), [(2, False), (8, True)])
def test_draws_without_an_alarm_do_not_make_few_accounts_look_certain(num_accounts, is_certain):
    """Each account that is flagged has four right alarms and a wrong one, so that all draws with an alarm agree."""
    entity = np.arange(500) // 5
    flagged, positive = entity < num_accounts, np.arange(500) % 5 > 0
    found = threshold_intervals(positive, flagged.astype(float), entity, Operating(), 0.5, 0)["precision"]
    assert found == pytest.approx((0.8, 0.8) if is_certain else (0.0, 1.0))


def test_even_a_probability_of_1_is_not_flagged_by_a_precision_that_was_not_reached():
    positive, scores = np.array([False, True]), np.array([1.0, 0.5])
    point = chosen(positive, scores, precision=0.9)
    assert not (scores >= point.threshold).any()
    assert at_threshold(positive, scores, Operating(), point.threshold) == {"precision": None, "recall": 0.0, "f1": 0.0}


def test_where_alarms_cost_more_than_they_save():
    positive, scores = np.array([True, False, False]), np.array([0.5, 0.9, 0.9])
    point = chosen(positive, scores, cost_of_false_alarm=10.0, cost_of_miss=1.0)
    assert (point.is_met, (scores >= point.threshold).any()) == (True, False)
    assert "it is cheapest to flag nothing" in point.line


@given(judged(), st.floats(0, 1))
def test_what_a_threshold_does_is_counted(drawn, threshold):
    positive, scores = drawn
    hits = sum(bool(p) and s >= threshold for p, s in zip(positive, scores, strict=True))
    alarms = sum(not p and s >= threshold for p, s in zip(positive, scores, strict=True))
    misses = sum(bool(p) and s < threshold for p, s in zip(positive, scores, strict=True))
    told = at_threshold(positive, scores, Operating(cost_of_false_alarm=1, cost_of_miss=5), threshold)
    assert told == {
        "precision": pytest.approx(hits / (hits + alarms)) if hits + alarms else None,
        "recall": pytest.approx(hits / (hits + misses)),
        "f1": pytest.approx(2 * hits / (2 * hits + alarms + misses)),
        "cost": pytest.approx((alarms + 5 * misses) / len(positive)),
    }


def plain_bootstrap(entity, measure, seed):
    """Entities are drawn with replacement; of each draw all of its rows are taken as often."""
    names = sorted(set(entity))
    random = np.random.default_rng([seed, len(names)])
    runs = []
    for _ in range(NUM_RESAMPLES):
        drawn = [names[place] for place in random.integers(0, len(names), len(names))]
        runs.append(measure([row for name in drawn for row, of in enumerate(entity) if of == name]))
    return [float(np.quantile(runs, share)) for share in (0.025, 0.975)]


ENTITIES = ["b", "a", "a", "c", "d", "d", "d", "e", "b", "f"]
POSITIVE = np.array([True, False, True, True, False, False, True, True, False, False])
SCORED = np.array([0.9, 0.8, 0.8, 0.7, 0.3, 0.6, 0.6, 0.2, 0.1, 0.9])


def test_intervals_of_a_threshold_are_those_of_plain_loops():
    found = threshold_intervals(POSITIVE, SCORED, np.array(ENTITIES), Operating(), 0.6, seed=3)

    def recall(rows):
        hits = sum(POSITIVE[row] and SCORED[row] >= 0.6 for row in rows)
        positives = sum(POSITIVE[row] for row in rows)
        return hits / positives if positives else 0.0

    assert found["recall"] == pytest.approx(plain_bootstrap(ENTITIES, recall, 3))


def test_intervals_of_the_recall_at_a_precision_are_those_of_plain_loops():
    def recall(rows):
        positive, scores = POSITIVE[rows], SCORED[rows]
        return recall_at_precision(positive, scores, 0.7) if positive.any() else 0.0

    found = recall_intervals(POSITIVE, SCORED, np.array(ENTITIES), 0.7, seed=5)
    assert found == pytest.approx(plain_bootstrap(ENTITIES, recall, 5))
    assert found[0] < found[1]


@settings(max_examples=20)
@given(judged(), PRECISIONS)
def test_with_one_entity_the_interval_is_the_recall_at_the_precision(drawn, precision):
    positive, scores = drawn
    expected = recall_at_precision(positive, scores, float(precision))
    entity = np.zeros(len(positive), np.int64)
    low, high = recall_intervals(positive, scores, entity, float(precision), seed=0)
    # One account proves nothing where all is found, or nothing.
    assert low == pytest.approx(expected if expected < 1 else 0.025)
    assert high == pytest.approx(expected if expected > 0 else 0.975)


def test_a_precision_that_is_just_reached_counts_in_the_interval():
    positive, scores = np.arange(100) < 55, np.ones(100)
    assert recall_intervals(positive, scores, np.zeros(100, np.int64), 0.55, seed=0)[1] == 1.0


def test_draws_are_by_the_seed_and_by_entity():
    def mean(weights):
        return {"mean": float(weights @ SCORED / weights.sum())}

    alone = np.arange(10)
    assert resampled(alone, mean, 1) == resampled(alone, mean, 1)
    assert resampled(alone, mean, 1) != resampled(alone, mean, 2)
    # Rows of one entity go together: fewer of them are independent, so the interval is wider.
    scores, entity = np.repeat([0.0, 1.0] * 10, 10), np.repeat(np.arange(20), 10)

    def share(weights):
        return {"mean": float(weights @ scores / weights.sum())}

    (by_entity,), (by_row,) = (resampled(of, share, 0).values() for of in (entity, np.arange(200)))
    assert math.sqrt(5) < (by_entity[1] - by_entity[0]) / (by_row[1] - by_row[0]) < math.sqrt(20)
