"""Labels of domain-related tasks (sections 3.3.3 and 4.4.1): statistics of a window, from a line of configuration.

| a line | the label of a window |
|---|---|
| `failures` | failed operations (the paper's) |
| `events`, `minutes`, `days`, `weeks` | events; minutes, local days, and weeks before the window's end with events |
| `recency`, `age` | hours from the last, or the first, minute with events to the window's end |
| `count:BEHAVIOR` | events of a behavior of the schema |
| `switches:COLUMN` | adjacent minutes, of those with a value, whose sets in `location` or an extra column differ |
| `distinct:COLUMN` | distinct values of `location` or an extra column |
| `next:DAYS` | minutes with events in the days after the window; unknown where training may not see all of them |
| `totals:behavior` | logarithms of one more than the events of each behavior of the schema |
| `histogram:WHAT` | shares among the window's minutes; WHAT is one of `HISTOGRAMS` |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infobehavior.data.batches import MINUTES_SINCE_MONDAY
from infobehavior.data.clock import MINUTES_PER_DAY, local_minutes
from infobehavior.data.schema import SET_SEPARATOR, Schema, decode_behaviors
from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import Bags, lag_tokens
from infobehavior.data.windows import Windows
from infobehavior.errors import InputError
from infobehavior.model.readouts import LabelKind, Readout

NUM_COUNT_CLASSES = 32
EXACT_COUNTS = 16
NUM_LOCATION_BARS = 64
LAG_BAR_WIDTH = 8
MOST_DAYS = 3_650
_TOTALS = ("events", "minutes", "days", "weeks", "recency", "age")
NUM_TOKEN_BARS = 64
NUM_AGE_BARS = 16
TOTALS = "totals:behavior"
HISTOGRAMS = ("behavior", "token", "hour", "minute", "weekday", "lag", "location", "age")
"""What a histogram may be of: single and composite behaviors, local hours, minutes of the hour, weekdays, lags,
locations, and sixteenths of the window."""
MINUTES_PER_HOUR = 60
UNKNOWN_LABEL = -1
"""Class of a count that is not known; it has no part in the loss."""


@dataclass(frozen=True)
class DomainLabel:
    """One domain-related task's labels.

    Attributes:
        readout: what they are: the task's line, and the class of a count, shares of bars, or logarithms of totals.
        of: labels of windows.
    """

    readout: Readout
    of: Callable[[Windows], Tensor]

    @property
    def name(self) -> str:
        """The task's line in the configuration."""
        return self.readout.name


def count_classes(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Class of each count: counts below 16 are their own class, larger ones share classes that grow by half.

    Example:
        >>> count_classes(np.array([0, 3, 15, 16, 23, 24, 10**9])).tolist()
        [0, 3, 15, 16, 16, 17, 31]
    """
    growing = np.floor(np.log(np.maximum(counts, EXACT_COUNTS) / EXACT_COUNTS) / np.log(1.5) + 1e-9)
    classes = np.where(counts < EXACT_COUNTS, counts, EXACT_COUNTS + growing)
    return np.minimum(classes, NUM_COUNT_CLASSES - 1).astype(np.int64)


def need_counts(lines: Sequence[str]) -> bool:
    """Whether some of the lines ask for exact counts of behaviors."""
    return any(line == TOTALS or line.startswith("count:") for line in lines)


def domain_label(
    line: str, store: MinuteStore, schema: Schema, known_until: NDArray[np.int64] | None = None
) -> DomainLabel:
    """Understand one line of the configuration.

    Args:
        line: of one of the forms above.
        store: the minutes.
        schema: theirs.
        known_until: of each entity of the store, the UTC epoch minute from which on nothing is known of it; `next`
            needs it.

    Raises:
        InputError: it isn't one of the forms above, or names what the minutes don't have.
    """
    check_domain_task(line, schema)
    kind, _, what = line.partition(":")
    if (days := days_of_next(line)) is not None:
        assert known_until is not None, "without it, what comes next is not known of anyone"
        return _label(line, "class", NUM_COUNT_CLASSES, _next(days * MINUTES_PER_DAY, store, known_until))
    if kind == "totals":
        return _label(line, "logarithms", len(schema.behavior_names), _log_totals(store, schema))
    if kind == "histogram":
        return _histogram(line, what, store, schema)
    count = _count(kind, what, store, schema)
    return _label(line, "class", NUM_COUNT_CLASSES, lambda windows: torch.from_numpy(count_classes(count(windows))))


def _label(line: str, kind: LabelKind, num_outputs: int, of: Callable[[Windows], Tensor]) -> DomainLabel:
    return DomainLabel(Readout(name=line, kind=kind, num_outputs=num_outputs), of)


def days_of_next(line: str) -> int | None:
    """The days of a line `next:DAYS`; None for all other lines."""
    kind, _, what = line.partition(":")
    return int(what) if kind == "next" else None


def check_domain_task(line: str, schema: Schema) -> None:
    """Refuse a line that can't be understood, before any work is done.

    Raises:
        InputError: as `domain_label`.
    """
    kind, colon, what = line.partition(":")
    columns = [*(["location"] if schema.columns.location else []), *schema.columns.extra]
    choices: dict[str, Sequence[str]] = {
        **{total: [""] for total in ("failures", *_TOTALS)},
        "count": schema.behavior_names,
        "switches": columns,
        "distinct": columns,
        "totals": ["behavior"],
        "histogram": HISTOGRAMS,
    }
    if kind == "next":
        if not (what.isdecimal() and 0 < int(what) <= MOST_DAYS):
            raise InputError(f"domain task {line!r}: next takes a number of days from 1 to {MOST_DAYS}, as in next:30")
        return
    if kind not in choices:
        raise InputError(f"domain task {line!r}: unknown kind {kind!r}; one of {', '.join([*choices, 'next'])}")
    if what not in choices[kind] or (colon and not what):
        named = ", ".join(filter(None, choices[kind])) or "nothing after it"
        raise InputError(f"domain task {line!r}: {what!r} is not known to the minutes' schema; {kind} takes {named}")


def _count(kind: str, what: str, store: MinuteStore, schema: Schema) -> Callable[[Windows], NDArray[np.int64]]:
    """The statistic of each window that a line names."""
    if kind == "minutes":
        return lambda windows: windows.num_minutes
    if kind == "days":
        return lambda windows: _num_distinct_per_window(windows, _local(windows, store, schema) // MINUTES_PER_DAY)
    if kind == "weeks":
        return lambda windows: _num_distinct_per_window(windows, _ages(windows, store) // (7 * MINUTES_PER_DAY))
    if kind in ("recency", "age"):
        return lambda windows: _hours_since(windows, store, "last" if kind == "recency" else "first")
    if kind in ("switches", "distinct"):
        ids, sets = _column(what, store)
        if kind == "switches":
            return lambda windows: _per_window(windows, ids, _num_switches)
        members = [np.array(row) for row in _member_ids(sets)]
        return lambda windows: _per_window(windows, ids, lambda present: _num_distinct(present, members))
    if kind == "count":
        code = schema.behavior_code(what)
        return lambda windows: _totals(windows, store, schema)[:, code]
    column = {"failures": store.num_failures, "events": store.num_events}[kind]
    return lambda windows: windows.sums(column)


def _local(windows: Windows, store: MinuteStore, schema: Schema) -> NDArray[np.int64]:
    """Local minute of each row of each window."""
    return local_minutes(store.minute[windows.rows[0]], schema.time.time_zone)


def _ages(windows: Windows, store: MinuteStore) -> NDArray[np.int64]:
    """Minutes from each row of each window to the window's end, at least 1."""
    rows, window = windows.rows
    ages: NDArray[np.int64] = windows.end[window] - store.minute[rows]
    return ages


def _num_distinct_per_window(windows: Windows, ascending: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct values of each window's rows, which ascend or descend within it."""
    _, window = windows.rows
    is_new = (np.diff(ascending, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0)
    return np.bincount(window[is_new], minlength=len(windows))


def _hours_since(windows: Windows, store: MinuteStore, which: Literal["first", "last"]) -> NDArray[np.int64]:
    """Whole hours from the first or last minute of each window to its end; the window's length if it has none."""
    has_events = windows.num_minutes > 0
    row = np.where(has_events, windows.first_row if which == "first" else windows.end_row - 1, 0)
    minutes = np.full(len(windows), windows.window_minutes)
    minutes[has_events] = (windows.end - store.minute[row])[has_events] if len(store.minute) else 0
    return minutes // MINUTES_PER_HOUR


def _next(horizon: int, store: MinuteStore, known_until: NDArray[np.int64]) -> Callable[[Windows], Tensor]:
    """Classes of the number of minutes with events in the `horizon` minutes after each window.

    Of two windows of an entity the first is followed by the second, which always has events: only the second tells.
    """

    def classes(windows: Windows) -> Tensor:
        after = Windows.cut(store, windows.entity, windows.end + horizon, horizon)
        is_known = windows.end + horizon <= known_until[windows.entity]
        is_known &= np.arange(len(windows)) >= len(windows) // 2
        return torch.from_numpy(np.where(is_known, count_classes(after.num_minutes), UNKNOWN_LABEL))

    return classes


def _totals(windows: Windows, store: MinuteStore, schema: Schema) -> NDArray[np.int64]:
    """Events of each behavior in each window, (windows, codes)."""
    assert store.behavior_counts is not None, "the store was read without counts"
    rows, window = windows.rows
    return store.behavior_counts.totals(rows, window, len(windows), 1 + len(schema.behavior_names))


def _log_totals(store: MinuteStore, schema: Schema) -> Callable[[Windows], Tensor]:
    codes = [schema.behavior_code(name) for name in schema.behavior_names]
    return lambda windows: torch.from_numpy(np.log1p(_totals(windows, store, schema)[:, codes]).astype(np.float32))


def _per_window(
    windows: Windows, ids: NDArray[np.int32], statistic: Callable[[NDArray[np.int32]], int]
) -> NDArray[np.int64]:
    """A statistic of the values that each window has, in order of time, without missing ones."""
    bounds = zip(windows.first_row.tolist(), windows.end_row.tolist(), strict=True)
    return np.array([statistic(ids[a:b][ids[a:b] >= 0]) for a, b in bounds], dtype=np.int64)


def _num_switches(present: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(np.diff(present)))


def _num_distinct(present: NDArray[np.int32], members: list[NDArray[np.int64]]) -> int:
    distinct = np.unique(present)
    return len(np.unique(np.concatenate([members[i] for i in distinct]))) if len(distinct) else 0


def _column(name: str, store: MinuteStore) -> tuple[NDArray[np.int32], list[str]]:
    """The sets that each row has in `location` or in an extra column."""
    if name in store.extra:
        return store.extra[name], store.extra_sets[name]
    return store.location, store.location_sets


def _member_ids(sets: Sequence[str]) -> list[list[int]]:
    """Of each set, its members as numbers."""
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(name, len(numbers)) for name in text.split(SET_SEPARATOR)] for text in sets]


def _histogram(line: str, what: str, store: MinuteStore, schema: Schema) -> DomainLabel:
    """A histogram: each row has an id, and each id one bar or several."""
    ids_of, bars, num_bars = _bars(what, store, schema)

    def shares(windows: Windows) -> Tensor:
        ids, window = ids_of(windows), windows.rows[1]
        if what == "lag":  # what lies before a window doesn't count, so its first minute has no lag
            has_lag = np.diff(window, prepend=-1) == 0
            ids, window = ids[has_lag], window[has_lag]
        bar, offsets = bars.take(ids.astype(np.int64))
        of_window = np.repeat(window, np.diff(np.append(offsets, len(bar))))
        counts = np.bincount(of_window * num_bars + bar, minlength=len(windows) * num_bars).reshape(-1, num_bars)
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return torch.from_numpy((counts / totals).astype(np.float32))

    return _label(line, "shares", num_bars, shares)


def _bars(what: str, store: MinuteStore, schema: Schema) -> tuple[Callable[[Windows], NDArray[np.integer]], Bags, int]:
    """The id of each row of windows; the bars of each id; and how many bars there are."""
    if what == "behavior":
        bars = [[code for code, _ in decode_behaviors(row)] for row in store.composites.tolist()]
        return lambda w: store.behavior[w.rows[0]], Bags.of([(b, 0) for b in bars]), len(schema.behavior_names) + 1
    if what == "token":
        return lambda w: store.behavior[w.rows[0]], _token_bars(store), NUM_TOKEN_BARS
    if what == "location":
        return lambda w: store.location[w.rows[0]] + 1, _location_bars(store), NUM_LOCATION_BARS
    ids_of, num_bars = _ids_and_bars(what, store, schema)
    return ids_of, Bags.of([([bar], 0) for bar in range(num_bars)]), num_bars


def _ids_and_bars(
    what: str, store: MinuteStore, schema: Schema
) -> tuple[Callable[[Windows], NDArray[np.integer]], int]:
    """The bar of each row of windows, where it is one, and how many bars there are."""

    def since_monday(windows: Windows) -> NDArray[np.int64]:
        return _local(windows, store, schema) + MINUTES_SINCE_MONDAY

    choices: dict[str, tuple[Callable[[Windows], NDArray[np.integer]], int]] = {
        "lag": (lambda w: _lag_bars(w, store), int(lag_tokens(np.array([10**9]))[0]) // LAG_BAR_WIDTH + 1),
        "age": (lambda w: _age_bars(w, store), NUM_AGE_BARS),
        "hour": (lambda w: since_monday(w) // MINUTES_PER_HOUR % 24, 24),
        "minute": (lambda w: since_monday(w) % MINUTES_PER_HOUR, MINUTES_PER_HOUR),
        "weekday": (lambda w: since_monday(w) // MINUTES_PER_DAY % 7, 7),
    }
    return choices[what]


def _lag_bars(windows: Windows, store: MinuteStore) -> NDArray[np.int64]:
    """Bar of the time from the row before to each row; of the first row of a window it says nothing."""
    minute = store.minute[windows.rows[0]].astype(np.int64)
    return lag_tokens(np.maximum(1, np.diff(minute, prepend=0))) // LAG_BAR_WIDTH


def _age_bars(windows: Windows, store: MinuteStore) -> NDArray[np.int64]:
    """Sixteenth of its window in which each row is, counted from the end."""
    return (_ages(windows, store) - 1) * NUM_AGE_BARS // windows.window_minutes


def _token_bars(store: MinuteStore) -> Bags:
    """The most frequent composites have a bar each; bar 0 is for all others."""
    counts = store.occurrences.composites
    frequent = sorted(range(len(counts)), key=lambda i: (-counts[i], store.composites[i].tolist()))
    bar = {token: place for place, token in enumerate(frequent[: NUM_TOKEN_BARS - 1], start=1)}
    return Bags.of([([bar.get(token, 0)], 0) for token in range(len(counts))])


def _location_bars(store: MinuteStore) -> Bags:
    """The most frequent locations have a bar each; bar 0 is for all others, and for none."""
    occurrences: dict[str, int] = {}
    per_set = store.occurrences.location_sets.tolist()
    for text, count in zip(store.location_sets, per_set, strict=True):
        for name in text.split(SET_SEPARATOR):
            occurrences[name] = occurrences.get(name, 0) + count
    frequent = sorted(occurrences, key=lambda name: (-occurrences[name], name))[: NUM_LOCATION_BARS - 1]
    bar = {name: i for i, name in enumerate(frequent, start=1)}
    sets = [[bar.get(name, 0) for name in text.split(SET_SEPARATOR)] for text in store.location_sets]
    return Bags.of([([0], 0)] + [(bars, 0) for bars in sets])
