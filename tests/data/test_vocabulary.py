from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.schema import SET_SEPARATOR
from infobehavior.data.store import Occurrences, load_store
from infobehavior.data.vocabulary import (
    FIRST_OF_WINDOW,
    FROM_NOTHING,
    FROM_PARTS,
    KNOWN,
    NO_LOCATION,
    NUM_LAG_TOKENS,
    UNKNOWN,
    Bags,
    Vocabulary,
    behavior_parts,
    lag_tokens,
    location_parts,
)
from infobehavior.errors import InputError

LOGIN, POST, BUY = (0b01, 0), (0b1000, 0), (0, 0b11)
LOGIN_POST, LOGIN_BUY, POST_BUY = (0b1001, 0), (0b01, 0b11), (0b1000, 0b11)
LOGIN_POST_BUY = (0b1001, 0b11)


def store_of(behaviors, locations=()):
    """What `Vocabulary.fit` reads of a store: minutes with these behaviors and these sets of locations."""
    composites = list(dict.fromkeys(behaviors))
    sets = list(dict.fromkeys(place for place in locations if place is not None))
    return SimpleNamespace(
        composites=np.array(composites, dtype=np.int64).reshape(len(composites), -1),
        location_sets=sets,
        occurrences=Occurrences(
            np.array([behaviors.count(name) for name in composites], dtype=np.int64),
            np.array([list(locations).count(name) for name in sets], dtype=np.int64),
        ),
    )


def fit(behaviors, locations=(), min_count=3):
    return Vocabulary.fit(store_of(behaviors, locations), "minutes", min_count)


def several(*members):
    return SET_SEPARATOR.join(members)


def test_parts_of_a_composite():
    assert behavior_parts(LOGIN_POST_BUY) == [LOGIN, POST, BUY]
    assert behavior_parts(BUY) == [BUY]
    assert behavior_parts((3 << 60, 1)) == [(3 << 60, 0), (0, 1)]
    assert location_parts(several("a", "b")) == ["a", "b"]


def test_the_cut_off_is_the_number_of_minutes():
    known = fit([LOGIN] * 3 + [POST] * 2, ["Rome"] * 3 + ["Oslo"] * 2)
    assert known.behaviors == (LOGIN,)
    assert known.locations == ("Rome",)
    assert (known.num_behavior_tokens, known.num_location_tokens) == (2, 3)


def test_rare_composites_count_for_their_parts():
    """Post never occurs alone, but in three rare composites; buy in two; login's own row has its own count."""
    known = fit([LOGIN] * 9 + [LOGIN_POST] * 2 + [LOGIN_POST_BUY] + [LOGIN_BUY] + [POST_BUY] * 0)
    assert known.behaviors == (LOGIN, POST)
    known = fit([LOGIN_POST] * 3, [several("Oslo", "Rome")] * 2 + [several("Bonn", "Rome")])
    assert known.behaviors == (LOGIN_POST,), "a frequent composite doesn't count for its parts"
    assert known.locations == ("Rome",)


def test_the_most_frequent_comes_first_and_names_break_ties():
    known = fit([POST] * 4 + [LOGIN] * 4 + [BUY] * 5, ["Rome"] * 4 + ["Bonn"] * 4 + [None] * 5)
    assert known.behaviors == (BUY, LOGIN, POST)
    assert known.locations == ("Bonn", "Rome")


@given(st.permutations([LOGIN] * 5 + [POST] * 3 + [LOGIN_POST] * 2 + [POST_BUY] * 2 + [BUY]))
def test_the_order_of_minutes_changes_nothing(behaviors):
    known = fit(behaviors, ["a" if sum(name) % 2 else several("a", "b") for name in behaviors])
    again = fit(sorted(behaviors), ["a" if sum(name) % 2 else several("a", "b") for name in sorted(behaviors)])
    assert known == again
    assert known.hash == again.hash


@given(
    st.lists(st.sampled_from([LOGIN, POST, BUY, LOGIN_POST, LOGIN_BUY, POST_BUY, LOGIN_POST_BUY])), st.integers(1, 4)
)
def test_what_has_a_row(behaviors, min_count):
    """The definition, with plain loops."""
    counts = Counter(behaviors)
    kept = {name for name, count in counts.items() if count >= min_count}
    rare_parts = Counter(part for name in behaviors if name not in kept for part in behavior_parts(name))
    expected = kept | {part for part, count in rare_parts.items() if count >= min_count}
    found = fit(behaviors, min_count=min_count).behaviors if behaviors else ()
    assert set(found) == expected
    assert len(found) == len(expected)


def test_what_an_unseen_behavior_falls_back_to():
    known = Vocabulary(minutes_hash="", behaviors=(LOGIN, POST, LOGIN_BUY), locations=())
    bags = known.behavior_bags(np.array([LOGIN, LOGIN_POST, LOGIN_BUY, POST_BUY, BUY]), "composite")
    tokens = [bags.tokens[a:b].tolist() for a, b in zip(bags.offsets, bags.offsets[1:], strict=False)]
    assert tokens == [[1], [1, 2], [3], [2], [UNKNOWN]]
    assert bags.origin.tolist() == [KNOWN, FROM_PARTS, KNOWN, FROM_PARTS, FROM_NOTHING]


def test_known_composites_beside_their_known_parts():
    known = Vocabulary(minutes_hash="", behaviors=(LOGIN, POST, LOGIN_BUY, LOGIN_POST), locations=())
    bags = known.behavior_bags(np.array([LOGIN, LOGIN_BUY, LOGIN_POST]), "composite_and_parts")
    tokens = [bags.tokens[a:b].tolist() for a, b in zip(bags.offsets, bags.offsets[1:], strict=False)]
    assert tokens == [[1], [3, 1], [4, 1, 2]]
    assert bags.origin.tolist() == [KNOWN] * 3


def test_what_an_unseen_location_falls_back_to():
    known = Vocabulary(minutes_hash="", behaviors=(), locations=("Rome", several("Oslo", "Rome"), "Bonn"))
    bags = known.location_bags(["Rome", several("Oslo", "Rome"), several("Bonn", "Oslo", "Rome"), "Oslo"])
    tokens = [bags.tokens[a:b].tolist() for a, b in zip(bags.offsets, bags.offsets[1:], strict=False)]
    assert tokens == [[NO_LOCATION], [2], [3], [4, 2], [UNKNOWN]]
    assert bags.origin.tolist() == [KNOWN, KNOWN, KNOWN, FROM_PARTS, FROM_NOTHING]


@given(st.lists(st.lists(st.integers(0, 9), max_size=4)), st.data())
def test_bags_are_taken_in_the_order_asked_for(contents, data):
    bags = Bags.of([(tokens, KNOWN) for tokens in contents])
    which = data.draw(st.lists(st.integers(0, len(contents) - 1)) if contents else st.just([]))
    tokens, offsets = bags.take(np.array(which, dtype=np.int64))
    ends = [*offsets.tolist(), len(tokens)][1:]
    assert [tokens[a:b].tolist() for a, b in zip(offsets, ends, strict=True)] == [contents[i] for i in which]


def test_lag_tokens_tell_each_minute_of_an_hour_and_ever_longer_steps_after_it():
    lags = np.arange(1, 600_000)
    tokens = lag_tokens(lags)
    assert tokens[:60].tolist() == list(range(1, 61))
    assert set(np.unique(np.diff(tokens))) == {0, 1}
    assert tokens.max() == NUM_LAG_TOKENS - 1 == lag_tokens(np.array([10**9]))[0]
    assert FIRST_OF_WINDOW not in tokens
    widths = np.bincount(tokens)[60:-1]
    assert (widths[1:] <= np.ceil(widths[:-1] * 1.2) + 1).all()


@pytest.mark.parametrize(
    "change",
    [{"minutes_hash": "other"}, {"behaviors": (POST, LOGIN)}, {"locations": ("Rome",)}, {"behaviors": (LOGIN,)}],
)
def test_the_hash_changes_with_the_content(change):
    content = {"minutes_hash": "minutes", "behaviors": (LOGIN, POST), "locations": ("Rome", "Oslo")}
    known = Vocabulary(**content)
    assert known.hash != Vocabulary(**content | change).hash
    assert known.hash == Vocabulary.model_validate(known.model_dump()).hash


def test_save_and_load(tmp_path, minutes):
    known = Vocabulary.fit(load_store(minutes), minutes.hash, min_count=2)
    assert any(SET_SEPARATOR in name for name in known.locations)
    known.save(tmp_path / "vocabulary.json")
    again = Vocabulary.load(tmp_path / "vocabulary.json")
    assert again == known
    assert again.hash == known.hash
    with pytest.raises(InputError, match=r"is not a model: it has no other.json"):
        Vocabulary.load(tmp_path / "other.json")
