import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infobehavior.data.minutes import MinuteTable
from infobehavior.data.schema import BEHAVIORS_PER_WORD, ONE_TIME, SET_SEPARATOR
from infobehavior.data.store import MinuteStore, content_hash, entities_of, load_store
from infobehavior.errors import InputError
from small_minutes import (
    BEHAVIORS,
    FIRST_DAY,
    Event,
    epoch_minute,
    joined,
    plain_minutes,
    random_events,
    small_minutes,
    small_schema,
)

LEVELS = {"login": (2, 3), "log_in": (2, 3), "edit.page": (2, 5)}


def plain_words(behaviors, schema):
    """A token, from the design's description."""
    words = [0] * schema.num_words
    by_code = {}
    for name, count in behaviors.items():
        code = 0 if name not in schema.behaviors else 1 + sorted(schema.behaviors).index(name)
        by_code[code] = by_code.get(code, 0) + count
    for code, count in by_code.items():
        medium, high = LEVELS.get(([None, *sorted(schema.behaviors)])[code], (np.inf, np.inf))
        level = 1 + (count >= medium) + (count >= high)
        words[code // BEHAVIORS_PER_WORD] |= level << (2 * (code % BEHAVIORS_PER_WORD))
    return tuple(words)


def rows_of(store: MinuteStore):
    """A store as plain rows."""

    def name(ids, names, row):
        return None if ids[row] < 0 else names[ids[row]]

    return [
        (
            store.entities[store.row_entity[row]],
            int(store.minute[row]),
            tuple(store.composites[store.behavior[row]].tolist()),
            name(store.location, store.location_sets, row),
            {column: name(ids, store.extra_sets[column], row) for column, ids in store.extra.items()},
            int(store.num_events[row]),
            int(store.num_failures[row]),
            counts_of(store, row),
        )
        for row in range(store.num_minutes)
    ]


def counts_of(store, row):
    """Events of each behavior by code, if the store has them."""
    if store.behavior_counts is None:
        return None
    own = slice(*store.behavior_counts.offsets[row : row + 2])
    codes, counts = store.behavior_counts.code[own].tolist(), store.behavior_counts.count[own].tolist()
    assert codes == sorted(set(codes))
    return dict(zip(codes, counts, strict=True))


def plain_counts(behaviors, schema):
    """The same of a row of a log."""
    codes = Counter()
    for name, count in behaviors.items():
        codes[schema.behavior_code(name)] += count
    return dict(codes)


def plain_rows(events, schema, with_counts=False):
    """The rows that a store of a log should have."""
    return [
        (
            who,
            minute,
            plain_words(content.behaviors, schema),
            joined(content.places),
            {"address": joined(content.addresses)},
            sum(content.behaviors.values()),
            content.num_failures,
            plain_counts(content.behaviors, schema) if with_counts else None,
        )
        for (who, minute), content in plain_minutes(events).items()
    ]


def test_a_store_holds_the_minutes_of_the_log(events, minutes):
    store = load_store(minutes, with_counts=True)
    assert rows_of(store) == plain_rows(events, minutes.schema, with_counts=True)
    assert any(SET_SEPARATOR in name for name in store.location_sets)
    assert store.num_minutes == len(store.minute) == store.offsets[-1]


def test_what_an_entity_has_lies_between_its_offsets(events, minutes):
    store = load_store(minutes)
    plain = plain_minutes(events)
    assert store.entities.tolist() == sorted({who for who, _ in plain})
    for i, who in enumerate(store.entities):
        own = store.minute[store.offsets[i] : store.offsets[i + 1]]
        assert own.tolist() == [minute for entity, minute in plain if entity == who]


@settings(max_examples=25)
@given(
    st.integers(0, 12 * 1_440),
    st.integers(0, 12 * 1_440),
    st.sampled_from([None, "", "user 3", "user 30", "z"]),
    st.sampled_from([None, "user 6", "user 66", "a"]),
)
def test_a_part_of_the_minutes(events, minutes, first, length, first_entity, last_entity):
    first += epoch_minute(FIRST_DAY)
    store = load_store(minutes, first, first + length, first_entity=first_entity, last_entity=last_entity)
    assert rows_of(store) == [
        row
        for row in plain_rows(events, minutes.schema)
        if first <= row[1] < first + length
        and (first_entity is None or row[0] >= first_entity)
        and (last_entity is None or row[0] <= last_entity)
    ]


@pytest.mark.parametrize("bounds", [(0, 10), (epoch_minute(FIRST_DAY), epoch_minute(FIRST_DAY))])
def test_a_range_without_minutes(minutes, bounds):
    store = load_store(minutes, *bounds, with_counts=True)
    assert (store.num_minutes, len(store.entities), store.offsets.tolist()) == (0, 0, [0])
    assert store.entities.dtype == object
    assert store.composites.shape == (0, minutes.schema.num_words)
    assert set(store.extra) == set(store.extra_sets) == {"address"}
    assert store.behavior_counts.offsets.tolist() == [0]
    assert store.behavior_counts.count.tolist() == []
    nobody = np.array([], dtype=np.int64)
    assert store.first_row_at(nobody, nobody).tolist() == []
    assert store.select(np.array([], dtype=bool)).num_minutes == 0


def test_a_range_with_files_but_no_minutes(events, minutes):
    first = min(minute for _, minute in plain_minutes(events))
    store = load_store(minutes, first - 5, first)
    assert minutes.files(first - 5, first), "the range must touch a file"
    assert (store.num_minutes, store.offsets.tolist(), store.location_sets) == (0, [0], [])


@pytest.fixture(scope="module")
def many_behaviors(tmp_path_factory):
    """200 kinds of behavior, in seven words, with integer entities."""
    names = [f"kind {i}" for i in range(200)]
    schema = small_schema(dict.fromkeys(names, ONE_TIME) | BEHAVIORS)
    events = [
        Event(int(event.who.split()[1]) - 3, event.at, event.what)
        for event in random_events(seed=1, minutes_each=60, behaviors=(*names, *BEHAVIORS))
    ]
    return events, small_minutes(tmp_path_factory.mktemp("many"), events, schema)


def test_exact_counts_of_behaviors_in_several_words(many_behaviors):
    events, minutes = many_behaviors
    assert minutes.schema.num_words == 7
    store = load_store(minutes, with_counts=True)
    plain = plain_minutes(events)
    assert max(len(minute.behaviors) for minute in plain.values()) > 3
    expected = [plain_counts(minute.behaviors, minutes.schema) for minute in plain.values()]
    assert [counts_of(store, row) for row in range(store.num_minutes)] == expected


@pytest.fixture(scope="module")
def many_counts(many_behaviors):
    return load_store(many_behaviors[1], with_counts=True)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_totals_of_groups_of_rows(many_counts, seed):
    store = many_counts
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.integers(0, store.num_minutes, draw.integers(0, 30)))
    group = np.sort(draw.integers(0, 4, len(rows)))
    expected = np.zeros((4, 256), np.int64)
    for row, of in zip(rows, group, strict=True):
        for code, count in counts_of(store, row).items():
            expected[of, code] += count
    assert (store.behavior_counts.totals(rows, group, 4, 256) == expected).all()


def test_integer_entities_are_sorted_as_numbers(many_behaviors):
    events, minutes = many_behaviors
    store = load_store(minutes, first_entity=-2, last_entity=3)
    assert store.entities.dtype == np.int64
    assert store.entities.tolist() == [-2, -1, 0, 1, 2, 3]
    entities, num_minutes = entities_of(minutes)
    assert entities.tolist() == list(range(-3, 7))
    plain = [who for who, _ in plain_minutes(events)]
    assert num_minutes.tolist() == [plain.count(who) for who in entities]


def test_entities_before_a_moment(events, minutes):
    end = epoch_minute(FIRST_DAY) + 500
    plain = [who for who, minute in plain_minutes(events) if minute < end]
    entities, num_minutes = entities_of(minutes, end)
    assert entities.tolist() == sorted(set(plain))
    assert num_minutes.tolist() == [plain.count(who) for who in entities]
    assert entities_of(minutes, 0)[0].tolist() == []


def test_entities_that_count_until_moments_of_their_own(events, minutes):
    first, own = epoch_minute(FIRST_DAY), {"user 1": 0, "user 3": 2_000, "user 30": 9}
    until = (np.array(list(own), dtype=object), np.array([first + length for length in own.values()]))
    plain = [who for who, minute in plain_minutes(events) if minute < first + own.get(who, 10**6)]
    entities, num_minutes = entities_of(minutes, until=until)
    assert entities.tolist() == sorted(set(plain))
    assert "user 1" not in plain
    assert num_minutes.tolist() == [plain.count(who) for who in entities]


def store_of(minutes_of):
    """A store with nothing but minutes, given by entity."""
    lengths = [len(own) for own in minutes_of]
    minute = np.array([m for own in minutes_of for m in own], dtype=np.int32)
    zeros = np.zeros(len(minute), dtype=np.int32)
    return MinuteStore(
        entities=np.arange(len(lengths)),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        minute=minute,
        behavior=zeros,
        location=zeros,
        num_events=zeros,
        num_failures=zeros,
        composites=np.zeros((1, 1), dtype=np.int64),
        location_sets=["x"],
    )


FAR = 10**8
MINUTES_BY_ENTITY = st.lists(
    st.lists(st.integers(-FAR, FAR), unique=True, max_size=6).map(sorted), min_size=1, max_size=5
)


@given(MINUTES_BY_ENTITY, st.data())
def test_first_row_at(minutes_of, data):
    store = store_of(minutes_of)
    entity = data.draw(st.integers(0, len(minutes_of) - 1))
    near = [m + shift for own in minutes_of for m in own for shift in (-1, 0, 1)]
    minute = data.draw(st.sampled_from(near) | st.integers(-FAR, FAR) if near else st.integers(-FAR, FAR))
    before = sum(m < minute for m in minutes_of[entity])
    assert store.first_row_at(np.array([entity]), np.array([minute])) == [store.offsets[entity] + before]


@given(MINUTES_BY_ENTITY, st.randoms(use_true_random=False))
def test_select_keeps_entities_and_their_order(minutes_of, random):
    kept = [[(m, random.random() < 0.5) for m in own] for own in minutes_of]
    store = store_of(minutes_of).select(np.array([keep for own in kept for _, keep in own], dtype=bool))
    expected = store_of([[m for m, keep in own if keep] for own in kept])
    assert store.entities.tolist() == expected.entities.tolist()
    assert store.offsets.tolist() == expected.offsets.tolist()
    assert store.minute.tolist() == expected.minute.tolist()


def test_select_takes_the_rows_of_every_column(minutes):
    store = load_store(minutes, with_counts=True)
    keep = store.num_failures > 0
    assert rows_of(store.select(keep)) == [row for row, kept in zip(rows_of(store), keep, strict=True) if kept]


def test_minutes_before_the_epoch(tmp_path):
    schema = small_schema()
    schema = schema.model_copy(
        update={"time": schema.time.model_copy(update={"earliest": datetime(1960, 1, 1).date()})}
    )
    start = datetime(1969, 12, 31, 23, 30, tzinfo=UTC)
    events = [Event("a", start + timedelta(minutes=17 * i, seconds=-1), "login") for i in range(4)]
    minutes: MinuteTable = small_minutes(tmp_path, events, schema)
    assert load_store(minutes).minute.tolist() == [-31, -14, 3, 20]
    assert load_store(minutes, -14, 4).minute.tolist() == [-14, 3]


@pytest.fixture
def spoiled(events, tmp_path):
    """Minutes of which a day can be spoiled."""
    return small_minutes(tmp_path, events)


@pytest.mark.parametrize("read", [load_store, entities_of])
@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"PAR1 half")])
def test_a_day_that_is_missing_or_damaged_is_named(spoiled, read, spoil):
    spoil(spoiled.file(spoiled.days[3]))
    with pytest.raises(
        InputError,
        match=rf"ds={spoiled.days[3]}/minutes.parquet is missing or damaged \(.*run `infobehavior aggregate`",
    ) as raised:
        read(spoiled)
    assert "\n" not in str(raised.value)


def test_a_day_with_other_columns(spoiled):
    pq.write_table(pa.table({"entity_id": ["a"], "minute": [1]}), spoiled.file(spoiled.days[0]))
    with pytest.raises(
        InputError, match=rf"a file of {spoiled.path} is missing or damaged .*run `infobehavior aggregate`"
    ):
        load_store(spoiled)


def test_counts_that_are_not_the_behaviors(spoiled):
    file = spoiled.file(spoiled.days[2])
    table = pq.read_table(file, partitioning=None)
    counts = table["counts"].to_pylist()
    longer = pa.array([counts[0] + [1], *counts[1:]], table.schema.field("counts").type)
    pq.write_table(table.set_column(table.column_names.index("counts"), "counts", longer), file)
    load_store(spoiled)
    with pytest.raises(InputError, match=r"has [\d,]+ counts of behaviors for [\d,]+ behaviors, so a file is damaged"):
        load_store(spoiled, with_counts=True)


def test_a_day_in_the_folder_of_another(spoiled):
    shutil.copyfile(spoiled.file(spoiled.days[4]), spoiled.file(spoiled.days[3]))
    with pytest.raises(
        InputError, match=r"has a minute of entity user \d twice, so a day's file may be in the folder of"
    ):
        load_store(spoiled)


def test_counts_are_a_part_of_the_content(many_counts):
    counts = many_counts.behavior_counts
    other = replace(many_counts, behavior_counts=replace(counts, count=counts.count[::-1]))
    assert content_hash(many_counts) == content_hash(replace(many_counts))
    assert content_hash(other) != content_hash(many_counts)
