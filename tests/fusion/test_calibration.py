import math
from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from infobehavior.fusion.calibration import calibrate, expected_calibration_error, reliability

SCORES = st.floats(-8, 8)


@st.composite
def scored(draw, scores=SCORES):
    """Logits, some of them equal, and answers of both classes."""
    values = draw(st.lists(st.tuples(scores, st.booleans()), min_size=4, max_size=40))
    logits = np.array([round(score, 1) for score, _ in values])
    positive = np.array([answer for _, answer in values])
    positive[:2] = True, False
    return logits, positive


@st.composite
def neighbouring(draw):
    """Logits of which many are equal, and many differ in the last digit alone."""
    places = st.tuples(st.sampled_from([-3.0, 0.0, 0.1, 0.3, 5.0]), st.integers(-3, 3), st.integers(1, 4))
    drawn = draw(st.lists(places, min_size=2, max_size=12, unique_by=lambda place: place[:2]))
    logits = np.repeat([beside(base, ulps) for base, ulps, _ in drawn], [count for *_, count in drawn])
    positive = np.array(draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits))))
    positive[:2] = True, False
    return logits, positive


def beside(number, ulps):
    """So many numbers of 64 bits further."""
    for _ in range(abs(ulps)):
        number = np.nextafter(number, np.copysign(np.inf, ulps))
    return number


def platt_loss(slope, intercept, logits, positive):
    """Cross entropy with Platt's targets, row by row."""
    num_positives = sum(positive)
    num_negatives = len(positive) - num_positives
    total = 0.0
    for logit, is_positive in zip(logits, positive, strict=True):
        target = (num_positives + 1) / (num_positives + 2) if is_positive else 1 / (num_negatives + 2)
        score = slope * logit + intercept
        total += math.log1p(math.exp(-abs(score))) + max(score, 0) - target * score
    return total


def plain_platt(logits, positive, steps=200):
    """Newton's method in the two numbers, halving steps that lead up."""
    found, num_positives = np.zeros(2), positive.sum()
    target = np.where(positive, (num_positives + 1) / (num_positives + 2), 1 / (len(positive) - num_positives + 2))
    rows = np.column_stack([logits, np.ones(len(logits))])
    for _ in range(steps):
        probability = expit(rows @ found)
        hessian = rows.T @ (rows * (probability * (1 - probability))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, rows.T @ (probability - target))
        while platt_loss(*(found - step), logits, positive) > platt_loss(*found, logits, positive) + 1e-12:
            step /= 2
        found = found - step
    return found


def test_platt_is_the_plain_reference():
    random = np.random.default_rng(0)
    logits = random.normal(size=300)
    positive = random.random(300) < expit(2 * logits - 1)
    calibration = calibrate("platt", logits, positive)
    assert calibration.x == pytest.approx(plain_platt(logits, positive), abs=2e-3)


@pytest.mark.parametrize("num_positives", [3, 150, 297])
def test_platt_has_the_share_of_positives_on_average(num_positives):
    """But for his targets, which aren't quite 0 and 1."""
    logits = np.random.default_rng(1).normal(size=300)
    positive = np.zeros(300, np.bool_)
    positive[np.argsort(-logits + np.random.default_rng(2).normal(size=300))[:num_positives]] = True
    mean = calibrate("platt", logits, positive)(logits).mean()
    targets = (num_positives + 1) / (num_positives + 2), 1 / (300 - num_positives + 2)
    assert mean == pytest.approx(np.where(positive, *targets).mean(), abs=1e-4)


@given(scored())
def test_platt_keeps_the_order_of_all_scores(drawn):
    logits, positive = drawn
    found = calibrate("platt", logits, positive)(logits)
    order = np.argsort(logits, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_scores_that_are_the_wrong_way_round_are_left():
    logits = np.array([-2.0, -1.0, 1.0, 2.0] * 5)
    calibration = calibrate("platt", logits, logits < 0)
    assert calibration.method == "none"
    assert calibration(logits) == pytest.approx(expit(logits))


@pytest.mark.parametrize("logit", [0.0, -3.25, 1e6])
def test_scores_that_are_all_equal(logit):
    logits = np.full(10, logit)
    found = calibrate("platt", logits, np.arange(10) < 3)(logits)
    assert np.isfinite(found).all()
    assert len(np.unique(found)) == 1


def plain_isotonic(logits, positive):
    """Pools neighbours that violate the order; rows of one score are one block from the beginning."""
    blocks = []
    for score in sorted(set(logits.tolist())):
        answers = positive[logits == score]
        blocks.append([float(answers.sum()), len(answers), [score]])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            hits, count, scores = blocks.pop()
            blocks[-1] = [blocks[-1][0] + hits, blocks[-1][1] + count, blocks[-1][2] + scores]
    return {score: hits / count for hits, count, scores in blocks for score in scores}


@given(scored())
def test_isotonic_is_the_plain_reference(drawn):
    """In the middle of each step; between two of them it is between theirs."""
    logits, positive = drawn
    calibration = calibrate("isotonic", logits, positive)
    step_of = plain_isotonic(logits, positive)
    scores_of_step = {}
    for score in logits.tolist():
        scores_of_step.setdefault(step_of[score], []).append(Fraction(score))
    for step, scores in scores_of_step.items():
        expected = (step * len(logits) + 0.5) / (len(logits) + 1)
        assert calibration(np.array([float(sum(scores) / len(scores))])) == pytest.approx(expected, abs=1e-9)
    found = calibration(logits)
    assert found == pytest.approx(np.clip(found, 0.25 / (len(logits) + 1), 1 - 0.25 / (len(logits) + 1)))


@given(scored())
def test_isotonic_ties_no_scores_of_the_validation_part(drawn):
    logits, positive = drawn
    distinct = np.unique(logits)
    assert (np.diff(calibrate("isotonic", logits, positive)(distinct)) > 0).all()


@given(scored() | neighbouring(), st.lists(st.floats(-20, 20) | st.sampled_from([-np.inf, np.inf]), min_size=2))
def test_isotonic_turns_no_order_around(drawn, others):
    logits, positive = drawn
    near = [beside(logit, ulps) for logit in np.unique(logits) for ulps in (-1, 0, 1)]
    calibration = calibrate("isotonic", logits, positive)
    found = calibration(np.sort([*near, *others]))
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()
    assert (np.diff(calibration.x) > 0).all()
    assert (np.diff(calibration.y) > 0).all()


@pytest.mark.parametrize("count", range(2, 50))
def test_equal_scores_have_the_share_of_their_step(count):
    """The sum of so many tenths over their number isn't always a tenth."""
    hits = [0, count // 2, count]
    logits = np.repeat([0.1, 0.5, 0.9], count)
    positive = np.concatenate([np.arange(count) < of_step for of_step in hits])
    found = calibrate("isotonic", logits, positive)(np.array([0.1, 0.5, 0.9]))
    assert found == pytest.approx([(3 * of_step + 0.5) / (3 * count + 1) for of_step in hits], abs=1e-12)


def test_without_calibration_it_is_the_logistic_function():
    logits = np.array([-1.0, 0.0, 2.0])
    assert calibrate("none", logits, logits > 0)(logits) == pytest.approx(1 / (1 + np.exp(-logits)))


def plain_reliability(positive, probabilities):
    """Nine edges; a row is in the first bin whose edge it doesn't exceed."""
    ordered, edges = sorted(probabilities), []
    for tenth in range(1, 10):
        place = (len(ordered) - 1) * tenth / 10
        below = ordered[math.floor(place)]
        edge = below + (ordered[math.ceil(place)] - below) * (place - math.floor(place))
        if not edges or edge > edges[-1]:
            edges.append(edge)
    bins = {}
    for answer, probability in zip(positive, probabilities, strict=True):
        number = bisect_right(edges, probability)
        number -= number > 0 and edges[number - 1] == probability
        bins.setdefault(number, []).append((probability, answer))
    return [
        (sum(p for p, _ in rows) / len(rows), sum(a for _, a in rows) / len(rows), len(rows))
        for _, rows in sorted(bins.items())
    ]


@given(scored(st.integers(0, 64).map(lambda number: number / 64)))
def test_bins_are_those_of_plain_loops(drawn):
    probabilities, positive = drawn
    bins = reliability(positive, probabilities)
    expected = plain_reliability(positive.tolist(), probabilities.tolist())
    assert [(b.probability, b.share, b.count) for b in bins] == [pytest.approx(one) for one in expected]
    error = sum(count * abs(probability - share) for probability, share, count in expected) / len(positive)
    assert expected_calibration_error(bins) == pytest.approx(error)


def test_bins_are_about_equal_and_hold_all():
    probabilities = np.random.default_rng(0).random(1_000)
    bins = reliability(np.random.default_rng(1).random(1_000) < probabilities, probabilities)
    assert [one.count for one in bins] == [100] * 10
    assert expected_calibration_error(bins) < 0.06


def test_equal_probabilities_are_in_one_bin():
    (only,) = reliability(np.arange(30) < 12, np.full(30, 0.25))
    assert (only.probability, only.share, only.count) == (0.25, 0.4, 30)
