"""Labels of domain-related tasks equal plain loops over plain rows."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.behavior_counts import BehaviorCounts
from infobehavior.data.schema import ONE_TIME, PAPER_FAST, PAPER_SLOW, Columns, Schema, Time
from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import lag_tokens
from infobehavior.data.windows import Windows
from infobehavior.errors import InputError
from infobehavior.pretext.labels import (
    HISTOGRAMS,
    NUM_COUNT_CLASSES,
    NUM_LOCATION_BARS,
    NUM_TOKEN_BARS,
    UNKNOWN_LABEL,
    DomainLabel,
    check_domain_task,
    count_classes,
    domain_label,
    need_counts,
)

END = 22_720_000
LENGTH = 10 * 1_440
BEHAVIORS = {"login": PAPER_FAST, "post": PAPER_SLOW, "register": ONE_TIME} | {
    f"b{i:02}": PAPER_FAST for i in range(35)
}
SCHEMA = Schema(
    columns=Columns(entity="who", timestamp="when", behavior="what", location="where", extra=["ip"]),
    time=Time(time_zone="Asia/Kolkata"),
    behaviors=BEHAVIORS,
)


@dataclass(frozen=True)
class Row:
    """A minute of an entity; `counts` by the code of a behavior."""

    minute: int
    counts: dict[int, int]
    num_failures: int
    locations: frozenset[str]
    ips: frozenset[str]


def random_rows(random: np.random.Generator, num_rows: int) -> list[Row]:
    bursts = END + random.integers(-LENGTH - 500, 200, size=max(1, num_rows // 6))
    minutes = random.choice(bursts, num_rows) + random.integers(0, 90, num_rows)
    return [random_row(random, int(minute)) for minute in sorted(set(minutes.tolist()))]


def random_row(random: np.random.Generator, minute: int) -> Row:
    codes = random.choice(len(BEHAVIORS) + 1, size=random.integers(1, 4), replace=False)
    return Row(
        minute,
        {int(code): int(random.integers(1, 9)) for code in codes},
        int(random.integers(0, 4)),
        frozenset(f"place {i}" for i in random.integers(0, 90, size=random.choice([0, 1, 2]))),
        frozenset(f"10.0.0.{i}" for i in random.integers(0, 4, size=random.choice([0, 1, 1, 2]))),
    )


def make_store(entities: list[list[Row]]) -> MinuteStore:
    rows = [row for entity in entities for row in entity]
    composites = [(0, 0)] * len(rows)
    for i, row in enumerate(rows):
        words = [0, 0]
        for code, count in row.counts.items():
            words[code // 31] += min(count, 3) * 4 ** (code % 31)
        composites[i] = (words[0], words[1])
    distinct = list(dict.fromkeys(composites))
    location, location_sets = make_sets([row.locations for row in rows])
    ip, ip_sets = make_sets([row.ips for row in rows])
    return MinuteStore(
        entities=np.arange(len(entities)),
        offsets=np.cumsum([0, *map(len, entities)]),
        minute=np.array([row.minute for row in rows], dtype=np.int32),
        behavior=np.array([distinct.index(words) for words in composites], dtype=np.int32),
        location=location,
        num_events=np.array([sum(row.counts.values()) for row in rows], dtype=np.int32),
        num_failures=np.array([row.num_failures for row in rows], dtype=np.int32),
        composites=np.array(distinct, dtype=np.int64).reshape(-1, 2),
        location_sets=location_sets,
        extra={"ip": ip},
        extra_sets={"ip": ip_sets},
        behavior_counts=BehaviorCounts(
            code=np.array([code for row in rows for code in sorted(row.counts)], dtype=np.int32),
            count=np.array([row.counts[code] for row in rows for code in sorted(row.counts)], dtype=np.int32),
            offsets=np.cumsum([0, *(len(row.counts) for row in rows)]),
        ),
    )


def make_sets(sets: list[frozenset[str]]) -> tuple[np.ndarray, list[str]]:
    names = ["\x1f".join(sorted(members)) for members in sets]
    distinct = list(dict.fromkeys(name for name in names if name))
    return np.array([distinct.index(name) if name else -1 for name in names], dtype=np.int32), distinct


def entities() -> list[list[Row]]:
    """Busy ones, a single minute, none in the window, none at all."""
    random = np.random.default_rng(5)
    rows = [random_rows(random, size) for size in (80, 1, 300, 7)]
    rows += [[random_row(random, END - LENGTH - 1), random_row(random, END)], [random_row(random, END - 5)], []]
    return rows


def label_of(line: str, store: MinuteStore) -> tuple[DomainLabel, list[object]]:
    label = domain_label(line, store, SCHEMA)
    windows = Windows.cut(store, np.arange(len(store.entities)), np.full(len(store.entities), END), LENGTH)
    return label, label.of(windows).tolist()


def in_window(rows: list[Row]) -> list[Row]:
    return [row for row in rows if END - LENGTH <= row.minute < END]


def num_switches(sets: list[frozenset[str]]) -> int:
    switches, before = 0, None
    for members in sets:
        if members:
            if before is not None and members != before:
                switches += 1
            before = members
    return switches


COUNTS: dict[str, Callable[[list[Row]], int]] = {
    "failures": lambda rows: sum(row.num_failures for row in rows),
    "events": lambda rows: sum(sum(row.counts.values()) for row in rows),
    "minutes": lambda rows: len(rows),
    "days": lambda rows: len({local(row.minute).date() for row in rows}),
    "weeks": lambda rows: len({(END - row.minute) // (7 * 1_440) for row in rows}),
    "recency": lambda rows: min([END - row.minute for row in rows], default=LENGTH) // 60,
    "age": lambda rows: max([END - row.minute for row in rows], default=LENGTH) // 60,
    "count:login": lambda rows: sum(row.counts.get(SCHEMA.behavior_code("login"), 0) for row in rows),
    "count:b33": lambda rows: sum(row.counts.get(SCHEMA.behavior_code("b33"), 0) for row in rows),
    "switches:location": lambda rows: num_switches([row.locations for row in rows]),
    "switches:ip": lambda rows: num_switches([row.ips for row in rows]),
    "distinct:location": lambda rows: len({name for row in rows for name in row.locations}),
    "distinct:ip": lambda rows: len({name for row in rows for name in row.ips}),
}


def class_of(count: int) -> int:
    """Below 16 its own; then classes that begin at 16, 16 * 1.5, 16 * 1.5 ** 2, ...; 32 in all."""
    if count < 16:
        return count
    return min(31, 16 + sum(1 for i in range(1, 40) if count >= 16 * 1.5**i))


@pytest.mark.parametrize("line", COUNTS)
def test_counts(line: str) -> None:
    label, got = label_of(line, make_store(entities()))

    assert label.name == line
    assert label.readout.kind == "class"
    assert label.readout.num_outputs == NUM_COUNT_CLASSES
    assert got == [class_of(COUNTS[line](in_window(rows))) for rows in entities()]
    assert len(set(got)) > 2


def test_totals_of_all_behaviors() -> None:
    store = make_store(entities())
    label = domain_label("totals:behavior", store, SCHEMA)
    windows = Windows.cut(store, np.arange(len(store.entities)), np.full(len(store.entities), END), LENGTH)

    got = np.expm1(label.of(windows).numpy()).round().astype(int).tolist()

    assert (label.readout.kind, label.readout.num_outputs) == ("logarithms", len(BEHAVIORS))
    codes = [SCHEMA.behavior_code(name) for name in SCHEMA.behavior_names]
    assert got == [[sum(row.counts.get(code, 0) for row in in_window(rows)) for code in codes] for rows in entities()]


def shares(bars: list[list[int]], num_bars: int) -> list[float]:
    """Each minute may have several bars; all bars of all minutes weigh the same."""
    counts = Counter(bar for of_minute in bars for bar in of_minute)
    return [counts[bar] / max(1, counts.total()) for bar in range(num_bars)]


def local(minute: int) -> datetime:
    return datetime.fromtimestamp(60 * minute, UTC).astimezone(ZoneInfo("Asia/Kolkata"))


@pytest.mark.parametrize(
    ("what", "num_bars", "bars"),
    [
        ("hour", 24, lambda row: [local(row.minute).hour]),
        ("minute", 60, lambda row: [local(row.minute).minute]),
        ("weekday", 7, lambda row: [local(row.minute).weekday()]),
        ("age", 16, lambda row: [next(i for i in range(16) if END - row.minute <= (i + 1) * LENGTH / 16)]),
        ("behavior", len(BEHAVIORS) + 1, lambda row: sorted(row.counts)),
    ],
)
def test_histograms(what: str, num_bars: int, bars: Callable[[Row], list[int]]) -> None:
    label, got = label_of(f"histogram:{what}", make_store(entities()))

    assert label.readout.kind == "shares"
    assert label.readout.num_outputs == num_bars
    expected = [shares([bars(row) for row in in_window(rows)], num_bars) for rows in entities()]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_histogram_of_locations() -> None:
    """The most frequent have a bar each, by name where equally frequent; bar 0 is for all others, and for none."""
    everywhere = Counter(name for rows in entities() for row in rows for name in row.locations)
    frequent = sorted(everywhere, key=lambda name: (-everywhere[name], name))[: NUM_LOCATION_BARS - 1]
    assert len(everywhere) > len(frequent)

    label, got = label_of("histogram:location", make_store(entities()))

    def bars(row: Row) -> list[int]:
        return [frequent.index(name) + 1 if name in frequent else 0 for name in row.locations] or [0]

    assert label.readout.num_outputs == NUM_LOCATION_BARS
    expected = [shares([bars(row) for row in in_window(rows)], NUM_LOCATION_BARS) for rows in entities()]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_histogram_of_tokens() -> None:
    """The most frequent composites have a bar each; bar 0 is for all others."""
    store = make_store(entities())
    everywhere = Counter(tuple(store.composites[token].tolist()) for token in store.behavior)
    frequent = sorted(everywhere, key=lambda token: (-everywhere[token], token))[: NUM_TOKEN_BARS - 1]
    assert len(everywhere) > len(frequent)

    label, got = label_of("histogram:token", store)

    def bars(row: Row) -> list[int]:
        words = [0, 0]
        for code, count in row.counts.items():
            words[code // 31] += min(count, 3) * 4 ** (code % 31)
        return [frequent.index(tuple(words)) + 1 if tuple(words) in frequent else 0]

    assert label.readout.num_outputs == NUM_TOKEN_BARS
    expected = [shares([bars(row) for row in in_window(rows)], NUM_TOKEN_BARS) for rows in entities()]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_what_comes_next_is_known_of_second_windows_whose_future_may_be_seen() -> None:
    rows, horizon = entities(), 3 * 1_440
    store, end = make_store(rows), END - 5 * 1_440
    known_until = np.array([END, end + horizon, end + horizon - 1, END, END, END, END])
    label = domain_label("next:3", store, SCHEMA, known_until)
    second = Windows.cut(store, np.arange(len(rows)), np.full(len(rows), end), 1_440)
    first = Windows.cut(store, np.arange(len(rows)), np.full(len(rows), end - 1_440), 1_440)

    got = label.of(first.followed_by(second)).tolist()

    assert got[: len(rows)] == [UNKNOWN_LABEL] * len(rows)
    counts = [sum(end <= row.minute < end + horizon for row in of_entity) for of_entity in rows]
    expected = [class_of(count) for count in counts]
    expected[2] = UNKNOWN_LABEL
    assert got[len(rows) :] == expected
    assert len(set(expected)) > 2


def test_histogram_of_lags() -> None:
    """Bars of eight lag tokens; the first minute of a window has no lag and isn't counted."""
    label, got = label_of("histogram:lag", make_store(entities()))

    def bars(rows: list[Row]) -> list[list[int]]:
        lags = [b.minute - a.minute for a, b in pairwise(rows)]
        return [[int(lag_tokens(np.array([lag]))[0]) // 8] for lag in lags]

    assert label.readout.num_outputs == int(lag_tokens(np.array([10**8]))[0]) // 8 + 1
    expected = [shares(bars(in_window(rows)), label.readout.num_outputs) for rows in entities()]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


LINES = [*COUNTS, *(f"histogram:{what}" for what in ("behavior", "hour", "minute", "weekday", "lag", "age"))]


@pytest.mark.parametrize("line", LINES)
def test_a_label_does_not_depend_on_other_entities(line: str) -> None:
    _, together = label_of(line, make_store(entities()))

    for rows, expected in zip(entities(), together, strict=True):
        assert label_of(line, make_store([rows]))[1] == [expected]


@pytest.mark.parametrize("line", LINES)
def test_a_label_does_not_depend_on_what_is_outside_the_window(line: str) -> None:
    _, cut = label_of(line, make_store([in_window(rows) for rows in entities()]))

    assert label_of(line, make_store(entities()))[1] == cut


@pytest.mark.parametrize("what", HISTOGRAMS)
def test_shares_sum_to_one_or_to_nothing(what: str) -> None:
    _, got = label_of(f"histogram:{what}", make_store(entities()))

    least = 2 if what == "lag" else 1  # the first minute of a window has no lag
    expected = [1.0 if len(in_window(rows)) >= least else 0.0 for rows in entities()]
    assert 0.0 in expected
    np.testing.assert_allclose(np.sum(got, axis=1), expected, rtol=1e-6)


def test_a_location_that_no_entity_has_is_bar_0() -> None:
    rows = [Row(END - 3, {1: 1}, 0, frozenset(), frozenset())]

    _, got = label_of("histogram:location", make_store([rows]))

    assert got == [[1.0] + [0.0] * (NUM_LOCATION_BARS - 1)]
    assert label_of("switches:location", make_store([rows]))[1] == [0]
    assert label_of("distinct:ip", make_store([rows]))[1] == [0]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1))
def test_classes_of_counts_rise_and_are_what_the_loop_says(counts: list[int]) -> None:
    classes = count_classes(np.sort(np.array(counts))).tolist()

    assert classes == sorted(classes)
    assert classes == [class_of(count) for count in sorted(counts)]


def test_classes_of_counts_leave_no_class_out() -> None:
    assert sorted(set(count_classes(np.arange(20_000)).tolist())) == list(range(NUM_COUNT_CLASSES))


def test_lines_that_need_counts() -> None:
    assert need_counts(["failures", "count:post"])
    assert need_counts(["totals:behavior"])
    assert not need_counts(["failures", "histogram:behavior"])


@pytest.mark.parametrize("line", [*LINES, "histogram:location", "histogram:token", "count:register", "next:30"])
def test_lines_that_are_understood(line: str) -> None:
    check_domain_task(line, SCHEMA)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "unknown kind ''"),
        ("failure", "unknown kind 'failure'"),
        ("Failures", "unknown kind 'Failures'"),
        ("failures:login", "failures takes nothing after it"),
        ("count", "count takes b00, "),
        ("count:", "count takes b00, "),
        ("count:nothing", "'nothing' is not known"),
        ("switches:ID card", "switches takes location, ip"),
        ("distinct:behavior", "distinct takes location, ip"),
        ("histogram:second", "histogram takes behavior, token, hour, minute, weekday, lag, location, age"),
        ("totals", "totals takes behavior"),
        ("next", "next takes a number of days"),
        ("next:0", "next takes a number of days from 1 to 3650"),
        ("next:-1", "next takes a number of days"),
        ("next:99999", "next takes a number of days"),
        ("histogram", "histogram takes behavior"),
        ("two\nlines", r"two\nlines"),
        ("count:two\nlines", r"two\nlines"),
    ],
)
def test_lines_that_are_refused(line: str, told: str) -> None:
    for refuse in (
        lambda: check_domain_task(line, SCHEMA),
        lambda: domain_label(line, make_store(entities()), SCHEMA),
    ):
        with pytest.raises(InputError) as error:
            refuse()
        assert told in str(error.value)
        assert "\n" not in str(error.value)
        assert repr(line) in str(error.value)


def test_a_schema_without_locations_has_no_locations_to_count() -> None:
    schema = Schema(columns=Columns(entity="who", timestamp="when", behavior="what"), behaviors={"login": PAPER_FAST})

    for line in ("switches:location", "distinct:location"):
        with pytest.raises(InputError, match="takes nothing after it"):
            check_domain_task(line, schema)
