import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.pretraining import schedule
from infobehavior.pretraining.schedule import learning_rate_at


def test_the_example():
    result = doctest.testmod(schedule)
    assert (result.attempted, result.failed) == (1, 0)


def test_it_rises_to_the_peak_and_falls_to_zero():
    rates = [learning_rate_at(step, 1_000, 1e-4, 0.1) for step in range(1_000)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[99:101] == pytest.approx([1e-4, 1e-4])
    assert max(rates) == pytest.approx(1e-4)
    assert rates[999] == pytest.approx(1e-4 / 900)
    assert learning_rate_at(1_000, 1_000, 1e-4, 0.1) == 0
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)


@given(st.integers(1, 300), st.floats(0, 0.999))
def test_no_step_is_without_a_rate(num_steps, warmup_proportion):
    rates = [learning_rate_at(step, num_steps, 1.0, warmup_proportion) for step in range(num_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1
