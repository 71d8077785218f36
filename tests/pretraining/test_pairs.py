from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infobehavior.data.store import load_store
from infobehavior.errors import InputError
from infobehavior.pretraining.pairs import PairSampler, seeded
from small_minutes import FIRST_DAY, NUM_DAYS, TIME_ZONE, epoch_minute, plain_minutes

KINDS = ("latest", "anywhere", "any_day")
WINDOW = 3 * 1_440
UNTIL = epoch_minute(FIRST_DAY) + (NUM_DAYS - 1) * 1_440


@pytest.fixture(scope="module")
def store(minutes):
    return load_store(minutes, end_minute=UNTIL)


def sampler_of(store, **changes):
    settings = {"pairs": "anywhere", "until": UNTIL, "min_minutes": 1, "batch_size": 4, "seed": 0} | changes
    return PairSampler(store, WINDOW, **settings, time_zone=TIME_ZONE)


def drawn(sampler, step):
    """Entities and ends of the windows of a step."""
    windows = sampler.windows(step)
    return windows.entity.tolist(), windows.end.tolist()


@settings(max_examples=20)
@given(st.sampled_from(KINDS), st.integers(0, 2**40), st.integers(0, 10**6), st.permutations(range(4)))
def test_a_step_depends_on_the_seed_and_its_number_alone(store, pairs, seed, step, others):
    one, other = (sampler_of(store, pairs=pairs, seed=seed) for _ in range(2))
    for before in others:
        other.windows(before)
    assert drawn(one, step) == drawn(other, step)


def test_other_seeds_and_steps_draw_others(store):
    sampler = sampler_of(store)
    assert len({str(drawn(sampler, step)) for step in range(20)}) == 20
    assert drawn(sampler, 3) != drawn(sampler_of(store, seed=1), 3)


@pytest.mark.parametrize("pairs", KINDS)
@pytest.mark.parametrize("min_minutes", [1, 4])
@pytest.mark.parametrize("batch_size", [2, 3, 4, 9, 64])
def test_what_a_step_holds(events, store, pairs, min_minutes, batch_size):
    sampler = sampler_of(store, pairs=pairs, min_minutes=min_minutes, batch_size=batch_size)
    plain = list(plain_minutes(events))
    size = min(batch_size, sampler.num_entities)
    for step in range(5):
        windows = sampler.windows(step)
        assert len(windows) == 2 * size
        assert len(set(windows.entity[:size].tolist())) == size, "an entity stands once in a step"
        assert windows.entity[:size].tolist() == windows.entity[size:].tolist()
        assert (windows.end[:size] + WINDOW == windows.end[size:]).all(), "the second begins where the first ends"
        for i in range(len(windows)):
            end = windows.end[i]
            own = [m for who, m in plain if who == store.entities[windows.entity[i]] and end - WINDOW <= m < end]
            own = [m for m in own if m < UNTIL]
            assert store.minute[windows.first_row[i] : windows.end_row[i]].tolist() == own
            assert len(own) >= min_minutes


def test_the_latest_pair_ends_at_the_last_moment(store):
    sampler = sampler_of(store, pairs="latest")
    for step in range(3):
        entities, ends = drawn(sampler, step)
        half = len(ends) // 2
        assert ends == [UNTIL - WINDOW] * half + [UNTIL] * half
        assert entities[:half] == entities[half:]


@pytest.mark.parametrize("pairs", ["anywhere", "any_day"])
def test_a_pair_is_drawn_from_all_borders_of_its_entity(events, store, pairs):
    sampler = sampler_of(store, pairs=pairs, min_minutes=2, batch_size=64)
    found: dict[str, set[int]] = {}
    for step in range(300):
        entities, ends = drawn(sampler, step)
        for entity, end in zip(entities[: len(ends) // 2], ends, strict=False):
            found.setdefault(store.entities[entity], set()).add(end)
    plain = [(who, m) for who, m in plain_minutes(events) if m < UNTIL]
    for who in store.entities:
        own = [m for other, m in plain if other == who]
        expected = {
            border
            for border in (own if pairs == "anywhere" else map(end_of_its_day, own))
            if sum(border - WINDOW <= m < border for m in own) >= 2 <= sum(border <= m < border + WINDOW for m in own)
        }
        assert found.get(who, set()) == expected


def end_of_its_day(minute):
    """Of a local day, of which one has 23 hours."""
    day = datetime.fromtimestamp(minute * 60, ZoneInfo(TIME_ZONE)).date() + timedelta(days=1)
    return epoch_minute(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(TIME_ZONE)).astimezone(UTC))


@pytest.mark.parametrize("batch_size", [2, 3, 4, 7])
def test_each_pass_has_an_entity_once_at_most(store, batch_size):
    sampler = sampler_of(store, batch_size=batch_size)
    steps_of_a_pass = sampler.num_entities // batch_size
    left_out = set()
    for number in range(4):
        steps = range(number * steps_of_a_pass, (number + 1) * steps_of_a_pass)
        seen = Counter(entity for step in steps for entity in sampler.windows(step).entity[:batch_size].tolist())
        assert set(seen.values()) == {1}
        left_out |= set(range(len(store.entities))) - set(seen)
    if sampler.num_entities % batch_size == 0:
        assert not left_out


@pytest.mark.parametrize("pairs", KINDS)
@pytest.mark.parametrize("num_entities", [0, 1])
def test_too_few_entities(store, pairs, num_entities):
    few = store.select(store.row_entity < num_entities)
    with pytest.raises(InputError, match=f"{num_entities} of 10 entities have two adjacent windows of 3 days with at"):
        sampler_of(few, pairs=pairs)


def test_too_few_minutes(store):
    with pytest.raises(InputError, match="with at least 1000 minutes of events each; pre-training needs two or more"):
        sampler_of(store, min_minutes=1_000)


def test_two_entities_are_enough(store):
    sampler = sampler_of(store.select(store.row_entity < 2))
    assert sampler.num_entities == 2
    assert sorted(drawn(sampler, 0)[0]) == [0, 0, 1, 1]


def test_generators_of_different_numbers_differ():
    draws = {seeded(*numbers).integers(2**62) for numbers in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 1, 1)]}
    assert len(draws) == 5
    assert seeded(1, 2).integers(2**62) == seeded(1, 2).integers(2**62)
    assert np.isin(seeded(5).integers(3, size=9), [0, 1, 2]).all()


@pytest.mark.parametrize("min_minutes", [1, 4])
def test_several_lengths_hold_what_is_nearest_to_the_border(store, min_minutes):
    whole, several = (
        sampler_of(store, lengths=lengths, min_minutes=min_minutes, batch_size=64) for lengths in ("whole", "several")
    )
    lengths = set()
    for step in range(30):
        windows, all_of = several.windows(step), whole.windows(step)
        size = len(windows) // 2
        border = windows.end[:size]
        assert windows.entity.tolist() == all_of.entity.tolist()
        assert border.tolist() == all_of.end[:size].tolist(), "lengths don't change which borders are drawn"
        length = windows.end[size:] - border
        lengths |= set(length.tolist())
        assert (windows.num_minutes >= min_minutes).all()
        for i in range(len(windows)):
            low, high = (border[i] - length[i], border[i]) if i < size else (border[i - size], windows.end[i])
            own = store.entities[windows.entity[i]] == store.entities[store.row_entity]
            expected = store.minute[own & (store.minute >= low) & (store.minute < high)]
            assert store.minute[windows.first_row[i] : windows.end_row[i]].tolist() == expected.tolist()
    every = {WINDOW >> halvings for halvings in range(4)}
    assert lengths == every if min_minutes == 1 else {WINDOW} < lengths < every
