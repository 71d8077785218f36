from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from infobehavior import embed, pretrain
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE, Moments
from infobehavior.embedding import bundles, encode
from infobehavior.embedding.bundles import Bundles
from small_minutes import FIRST_DAY, epoch_minute, random_events, small_minutes, tiny_config, write_moments

END = epoch_minute(FIRST_DAY) + 40 * 1_440
WINDOW_MINUTES = 60 * 1_440


@pytest.fixture(scope="module")
def log():
    """Forty accounts, of which a few do much."""
    events = random_events(seed=1, num_entities=40, minutes_each=4)
    return events + [replace(event, who="user 7") for event in random_events(seed=2, num_entities=1, minutes_each=90)]


def moments_of(names, each=1):
    names = sorted(names)
    ends = [END + i for _ in names for i in range(each)]
    return Moments(np.repeat(np.array(names, dtype=object), each), np.array(ends) * MICROSECONDS_PER_MINUTE)


def members(minutes, moments):
    """The entities of each bundle, checked against what it says of them."""
    found = Bundles.of(minutes, moments, WINDOW_MINUTES)
    assert found.starts[0] == 0
    assert found.starts[-1] == len(moments)
    assert len(found) == len(found.starts) - 1
    return [tuple(moments.entity_id[a:b]) for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]


def test_bundles_are_runs_of_whole_entities(log, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 6)
    found = members(small_minutes(tmp_path, log), moments_of({event.who for event in log}, each=3))
    assert 3 < len(found) < 14
    assert sum(found, ()) == tuple(moments_of({event.who for event in log}, each=3).entity_id)
    assert all(set(one).isdisjoint(other) for i, one in enumerate(found) for other in found[:i])


def test_who_comes_goes_or_does_more_changes_its_own_bundle_alone(log, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 6)
    names = {event.who for event in log}
    before = set(members(small_minutes(tmp_path / "before", log), moments_of(names)))
    more = [*log, *(replace(log[0], who="user 20", at=log[0].at + timedelta(minutes=i)) for i in range(300))]
    assert set(members(small_minutes(tmp_path / "more", more), moments_of(names))) == before
    for changed in (names - {"user 20"}, names | {"user 20b"}):
        after = set(members(small_minutes(tmp_path / str(len(changed)), log), moments_of(changed)))
        assert len(after - before) <= 2
        assert len(before - after) <= 2


def test_a_bundle_is_cut_where_it_is_large(log, tmp_path, monkeypatch):
    minutes, moments = small_minutes(tmp_path, log), moments_of({event.who for event in log})
    monkeypatch.setattr(bundles, "MINUTES_PER_BUNDLE", 50)
    found = Bundles.of(minutes, moments, WINDOW_MINUTES)
    assert len(found) > 3
    by_itself = [n for n in found.num_minutes if n > 50 + 4]
    assert all(n > 90 for n in by_itself), "only an entity that has more is more"
    monkeypatch.setattr(bundles, "MOMENTS_PER_BUNDLE", 5)
    assert np.diff(Bundles.of(minutes, moments, WINDOW_MINUTES).starts).max() <= 5


@pytest.mark.parametrize(("minutes_per_shard", "moments_per_shard"), [(1, 10**9), (10**9, 1), (60, 9), (10**9, 10**9)])
def test_shards_are_all_bundles_in_order(log, tmp_path, monkeypatch, minutes_per_shard, moments_per_shard):
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 3)
    found = Bundles.of(small_minutes(tmp_path, log), moments_of({event.who for event in log}, each=2), WINDOW_MINUTES)
    shards = list(found.shards(minutes_per_shard, moments_per_shard))
    assert [i for shard in shards for i in range(shard.start, shard.stop)] == list(range(len(found)))
    for shard in shards:
        is_small = found.num_minutes[shard].sum() <= minutes_per_shard
        is_small &= found.starts[shard.stop] - found.starts[shard.start] <= moments_per_shard
        assert is_small or shard.stop == shard.start + 1


def test_nobody_has_no_bundle(log, tmp_path):
    nothing = Bundles.of(small_minutes(tmp_path, log), moments_of(()), WINDOW_MINUTES)
    assert len(nothing) == 0
    assert list(nothing.shards(1, 1)) == []


def test_whole_numbers_are_bundled_as_texts_are(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 5)
    assert [bundles._begins_bundle(i) for i in range(99)] == [bundles._begins_bundle(str(i)) for i in range(99)]
    assert 5 < sum(bundles._begins_bundle(i) for i in range(99)) < 40


def test_what_is_read_of_a_few_accounts_is_theirs_alone(log, tmp_path, monkeypatch):
    """Not what lies between them: a table of moments may name a few of many."""
    minutes, loaded = small_minutes(tmp_path, log), []
    load_store = encode.load_store
    monkeypatch.setattr(
        encode, "load_store", lambda *args, **given: loaded.append(load_store(*args, **given)) or loaded[-1]
    )
    pretrain(minutes.path, tmp_path / "model", config=tiny_config())
    path = write_moments([("user 0", "2024-04-05"), ("user 9", "2024-04-05")], tmp_path / "as_of.parquet")
    embed(minutes.path, tmp_path / "model", tmp_path / "out", as_of=path)
    assert {who for store in loaded for who in store.entities} <= {"user 0", "user 9"}
    assert loaded


def test_local_time_is_part_of_what_a_window_holds(log, tmp_path, monkeypatch):
    """Rules of a time zone change now and then, and the encoder sees local time."""
    minutes, moments = small_minutes(tmp_path, log), moments_of({event.who for event in log})
    before = Bundles.of(minutes, moments, WINDOW_MINUTES, with_contents=True).contents
    assert Bundles.of(minutes, moments, WINDOW_MINUTES, with_contents=True).contents == before
    monkeypatch.setattr(bundles, "utc_offsets", lambda *_: (np.array([0]), np.array([60])))
    after = Bundles.of(minutes, moments, WINDOW_MINUTES, with_contents=True).contents
    assert set(after).isdisjoint(before)
