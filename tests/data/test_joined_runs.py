from dataclasses import fields
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data import ranges
from infobehavior.data.behavior_counts import BehaviorCounts
from infobehavior.data.joined_runs import join_runs, runs_of
from infobehavior.data.schema import ONE_TIME
from infobehavior.data.store import MinuteStore, content_hash, entities_of, load_store
from small_minutes import FIRST_DAY, Event, random_events, small_minutes, small_schema

MANY = {f"behavior {i}": ONE_TIME for i in range(70)}
"""Their tokens take three words."""


def assert_equal(one, other):
    """All that two stores, or two of their parts, hold is the same, number for number."""
    for name in (field.name for field in fields(one) if field.name != "folder"):
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, BehaviorCounts):
            assert_equal(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, name)
        elif isinstance(a, dict) and name == "extra":
            assert list(a) == list(b)
            for column in a:
                np.testing.assert_array_equal(a[column], b[column], column)
        else:
            assert a == b, name


def joined(minutes, most_minutes, folder, with_counts=True, cut=lambda store: store) -> MinuteStore:
    def read(first, last):
        return cut(load_store(minutes, with_counts=with_counts, first_entity=first, last_entity=last))

    return join_runs(read, runs_of(*entities_of(minutes), most_minutes), folder)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 40))
def test_runs_are_all_entities_in_order(sizes, most):
    entities, num_minutes = np.arange(len(sizes)) * 3, np.array(sizes, dtype=np.int64)
    runs = [range(first // 3, last // 3 + 1) for first, last in runs_of(entities, num_minutes, most)]
    assert [i for run in runs for i in run] == list(range(len(sizes)))
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        assert len(run) == 1 or sum(sizes[i] for i in run) <= most
        assert following is None or sum(sizes[i] for i in run) + sizes[following[0]] > most, "no run is cut early"


@pytest.mark.parametrize("most_minutes", [1, 30, 77, 10**6])
@pytest.mark.parametrize("with_counts", [True, False])
def test_joined_runs_are_what_is_read_at_once(minutes, tmp_path, most_minutes, with_counts):
    whole = load_store(minutes, with_counts=with_counts)
    runs = joined(minutes, most_minutes, tmp_path, with_counts)
    assert_equal(runs, whole)
    assert content_hash(runs) == content_hash(whole)


def test_several_words_and_numbers_as_entities(tmp_path):
    events = [
        Event(int(event.who[5:]) - 3, event.at, event.what, event.place, address=event.address)
        for event in random_events(seed=4, behaviors=tuple(MANY))
    ]
    minutes = small_minutes(tmp_path / "log", events, small_schema(MANY, entity_type="integer"))
    whole = load_store(minutes, with_counts=True)
    assert whole.composites.shape[1] == 3
    assert whole.entities.dtype == np.int64
    assert_equal(joined(minutes, 40, tmp_path), whole)


def test_columns_without_any_value(tmp_path):
    """No location, no row that is left."""
    events = [Event(who, FIRST_DAY + timedelta(minutes=i), "login") for who in "ab" for i in range(3)]
    minutes = small_minutes(tmp_path / "log", events)
    assert_equal(joined(minutes, 2, tmp_path), load_store(minutes, with_counts=True))
    nothing = joined(minutes, 2, tmp_path, cut=lambda store: store.select(store.minute < 0))
    assert nothing.entities.tolist() == ["a", "b"]
    assert nothing.num_minutes == len(nothing.behavior_counts.count) == 0
    assert nothing.offsets.tolist() == [0, 0, 0]
    assert nothing.behavior_counts.offsets.tolist() == [0]


def test_what_is_made_block_by_block_is_what_is_made_at_once(minutes, tmp_path, monkeypatch):
    whole, entity = load_store(minutes, with_counts=True), load_store(minutes).row_entity
    plain = np.bincount(whole.behavior), np.bincount(whole.location[whole.location >= 0]), content_hash(whole)
    monkeypatch.setattr(ranges, "ROWS_AT_ONCE", 7)
    for store in (load_store(minutes, with_counts=True), joined(minutes, 60, tmp_path)):
        np.testing.assert_array_equal(store.occurrences.composites, plain[0])
        np.testing.assert_array_equal(store.occurrences.location_sets, plain[1])
        assert content_hash(store) == plain[2]
        np.testing.assert_array_equal(store.derive(store.entity_of, np.int64), entity)
        assert_equal(store, whole)


@pytest.mark.parametrize("most_minutes", [10, 10**9])
def test_any_entity_at_any_minute(minutes, tmp_path, most_minutes):
    store = joined(minutes, most_minutes, tmp_path)
    random = np.random.default_rng(0)
    entity = random.integers(len(store.entities), size=500)
    minute = np.append(random.choice(store.minute, 400), random.choice(store.minute, 100) + 1).astype(np.int64)
    expected = [
        a + np.searchsorted(store.minute[a:b], m)
        for a, b, m in zip(store.offsets[entity], store.offsets[entity + 1], minute, strict=True)
    ]
    assert store.first_row_at(entity, minute).tolist() == expected
