"""Folds events into minute tokens (section 3.1.1): counts runs of equal ones among events that are sorted.

An event is its day, its entity, and one integer, the most significant bits first: minute, behavior, whether it failed,
and its value of one of the columns that are kept as sets, such as its location. DuckDB sorts by the three.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.data.ranges import positions
from infobehavior.data.schema import BEHAVIORS_PER_WORD, BITS_PER_BEHAVIOR, MAX_REPEATS, SET_SEPARATOR, Schema

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Members:
    """What each event adds to a set.

    Attributes:
        number: the position of each event's value in `values`, counted from 1; 0 if it has none.
        values: ascending.
    """

    number: NDArray[np.integer]
    values: pa.Array

    @classmethod
    def of_texts(cls, texts: pa.Array) -> Self:
        """Number each event's value (null if it has none)."""
        encoded = texts.dictionary_encode()
        order = pc.array_sort_indices(encoded.dictionary).to_numpy()  # by code point
        rank = np.zeros(len(order) + 1, np.int64)
        rank[order] = np.arange(1, len(order) + 1)
        return cls(rank[encoded.indices.fill_null(len(order)).to_numpy()], encoded.dictionary.take(pa.array(order)))

    @property
    def bits(self) -> int:
        """How many bits a number takes."""
        return len(self.values).bit_length()

    @property
    def mask(self) -> int:
        """Those bits."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class SetColumn:
    """A column whose values are kept as a set per minute.

    Attributes:
        name: in the minutes.
        column: in the events.
        values: all its values, ascending, whose numbers (from 1, 0 for none) the events have; None if they are many,
            and the events have the values themselves (null for none).
    """

    name: str
    column: str
    values: tuple[str, ...] | None

    def members(self, column: pa.Array) -> Members:
        """What events add to the set."""
        if self.values is None:
            return Members.of_texts(column)
        return Members(column.to_numpy(), self.texts)

    @cached_property
    def texts(self) -> pa.Array:
        """The values for `Members`, made once for all batches."""
        return pa.array(self.values, pa.string())


@dataclass(frozen=True)
class Layout:
    """How an event is told by numbers.

    Attributes:
        code_bits: bits of a behavior's code.
        sets: the columns that are kept as sets, as they are in the minutes.
        beside: the one of them that is in the event's integer; None if there is none with numbers.
    """

    code_bits: int
    sets: tuple[SetColumn, ...]
    beside: SetColumn | None

    @classmethod
    def of(cls, schema: Schema, sets: Sequence[SetColumn]) -> Self:
        """Room for the schema's behaviors, and for the first set whose values have numbers."""
        beside = next((column for column in sets if column.values is not None), None)
        return cls(len(schema.behaviors).bit_length(), tuple(sets), beside)

    @property
    def others(self) -> tuple[SetColumn, ...]:
        """The sets that have a column of their own beside the integer."""
        return tuple(column for column in self.sets if column is not self.beside)

    @property
    def member_bits(self) -> int:
        """Bits of a value's number."""
        return len(self.beside.values or ()).bit_length() if self.beside else 0

    @property
    def bits_below_minute(self) -> int:
        """Bits of all that is less significant than the minute."""
        return self.code_bits + 1 + self.member_bits

    def packed_sql(self, minute: str, code: str, failed: str, member: str) -> str:
        """SQL of an event's integer, from SQL of its parts."""
        return (
            f"((({minute})::BIGINT * {1 << self.code_bits} + {code}) * 2 + {failed}) * {1 << self.member_bits} "
            f"+ {member}"
        )


@dataclass(frozen=True)
class Minutes:
    """Some minutes.

    Attributes:
        day: of each.
        rows: what happened in each.
        num_unknown: events of a behavior outside the schema.
    """

    day: NDArray[np.int32]
    rows: pa.Table
    num_unknown: int


def whole_minutes(batches: Iterable[pa.RecordBatch], layout: Layout) -> Iterator[pa.RecordBatch]:
    """Cut events anew, so that no minute is in two batches.

    Args:
        batches: events with ``entity_id`` and ``packed``, sorted as `fold_events` wants them.
        layout: of ``packed``.

    Yields:
        The same events in the same order; as many at a time as came, but for those of a minute that goes on.
    """
    rest: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            start = _start_of_last_minute(batch, layout)
            if start:
                yield pa.concat_batches([*rest, batch.slice(0, start)])
                rest = []
            rest.append(batch.slice(start))
    if rest:
        yield pa.concat_batches(rest)


def _start_of_last_minute(events: pa.RecordBatch, layout: Layout) -> int:
    """The first event of the minute that is the last one; a minute of a chunk is one of its days."""
    minute = events["packed"].to_numpy() >> layout.bits_below_minute
    is_last = (minute == minute[-1]) & _as_numpy(pc.equal(events["entity_id"], events["entity_id"][-1]))
    return int(np.argmax(is_last))


def fold_events(events: pa.RecordBatch, first_minute: int, layout: Layout, schema: Schema) -> Minutes:
    """Make minutes of events.

    Args:
        events: at least one; ``day``, ``entity_id`` and ``packed``, sorted by these, and the columns of
            `layout.others`. All events of a minute are here.
        first_minute: the UTC epoch minute from which on minutes are counted in ``packed``.
        layout: of ``packed``.
        schema: where the levels of the behaviors begin.
    """
    packed = events["packed"].to_numpy().astype(np.int64)
    minute = packed >> layout.bits_below_minute
    is_first = np.ones(len(packed), np.bool_)
    entity_id = events["entity_id"]
    is_first[1:] = (minute[1:] != minute[:-1]) | _as_numpy(pc.not_equal(entity_id[1:], entity_id[:-1]))
    first = np.flatnonzero(is_first)
    place = np.cumsum(is_first) - 1
    below = packed & ((1 << layout.bits_below_minute) - 1)
    tokens, sets, num_unknown = _tokens((place << layout.bits_below_minute) | below, layout, schema)
    sets |= {column.name: _sets(place, column.members(events[column.column])) for column in layout.others}
    location = {"location": pa.nulls(len(first), pa.string())}
    columns = {
        "entity_id": entity_id.take(pa.array(first)),
        "minute": pa.array(first_minute + minute[first], pa.int32()),
        **tokens,
        **(location | {column.name: sets[column.name] for column in layout.sets}),
    }
    return Minutes(events["day"].to_numpy()[first], pa.table(columns), num_unknown)


def _as_numpy(column: pa.BooleanArray) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False)
    return flags


def run_starts(values: NDArray[Any]) -> Integers:
    """Where each run of equal values begins."""
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])


def _tokens(runs: Integers, layout: Layout, schema: Schema) -> tuple[dict[str, pa.Array], dict[str, pa.Array], int]:
    """Tokens of sorted events that begin with their minute's number; the set beside them; how many are unknown."""
    starts = run_starts(runs)
    repeats = np.diff(starts, append=len(runs))
    runs = runs[starts]
    number = runs & ((1 << layout.member_bits) - 1)
    runs >>= layout.member_bits
    failures = np.where(runs & 1, repeats, 0)

    behaviors = run_starts(runs >> 1)
    counts = np.add.reduceat(repeats, behaviors)
    code = (runs[behaviors] >> 1) & ((1 << layout.code_bits) - 1)

    minutes = run_starts(runs[behaviors] >> (layout.code_bits + 1))
    words = _words(code, counts, minutes, schema)
    tokens = {
        "num_events": pa.array(np.add.reduceat(counts, minutes), pa.int32()),
        "num_failures": pa.array(np.add.reduceat(failures, behaviors[minutes]), pa.int32()),
        **{f"levels_{i}": pa.array(word) for i, word in enumerate(words)},
        "counts": _lists(counts, minutes),
    }
    sets = {}
    if layout.beside:
        sets[layout.beside.name] = _set_texts(Members(number, layout.beside.texts), number, behaviors[minutes])
    return tokens, sets, int(counts[code == 0].sum())


def _words(code: Integers, counts: Integers, minutes: Integers, schema: Schema) -> list[Integers]:
    """Two bits a behavior; see "Minutes on disk" in the design."""
    known = [schema.behaviors[name] for name in schema.behavior_names]
    never = MAX_REPEATS + 1
    medium = np.array([never] + [behavior.medium or never for behavior in known])
    high = np.array([never] + [behavior.high or never for behavior in known])
    level = 1 + (counts >= medium[code]) + (counts >= high[code])
    bits = level << (BITS_PER_BEHAVIOR * (code % BEHAVIORS_PER_WORD))
    word_of_behavior = code // BEHAVIORS_PER_WORD
    return [
        np.bitwise_or.reduceat(np.where(word_of_behavior == word, bits, 0), minutes) for word in range(schema.num_words)
    ]


def _lists(counts: Integers, starts: Integers) -> pa.Array:
    offsets = pa.array(np.append(starts, len(counts)), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(counts, pa.int32()))


def _sets(place: Integers, members: Members) -> pa.Array:
    """The set of each minute as text, from the minute of each event."""
    pairs = np.unique((place << members.bits) | members.number)
    return _set_texts(members, pairs & members.mask, run_starts(pairs >> members.bits))


def _set_texts(members: Members, number: Integers, starts: Integers) -> pa.Array:
    """Each set as text.

    Args:
        members: what the numbers stand for.
        number: of the members of all sets, in any order, even several times, and 0 beside them or alone.
        starts: where each set begins.
    """
    which, greatest = np.minimum.reduceat(number, starts), np.maximum.reduceat(number, starts)
    several = np.flatnonzero(which != greatest)
    which[several] = len(members.values) + 1 + np.arange(len(several))
    position, place = positions(starts[several], np.diff(starts, append=len(number))[several])
    pairs = np.unique((place << members.bits) | number[position])
    pairs = pairs[pairs & members.mask > 0]
    offsets = np.append(run_starts(pairs >> members.bits), len(pairs)) if len(pairs) else np.zeros(1, np.int64)
    texts = members.values.take(pa.array((pairs & members.mask) - 1))
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts), SET_SEPARATOR)
    return pa.concat_arrays([pa.nulls(1, pa.string()), members.values, joined]).take(pa.array(which))
