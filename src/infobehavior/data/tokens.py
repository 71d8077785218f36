"""Folds events into minute tokens (section 3.1.1): sorts them as integers and counts runs of equal ones.

An event is one integer, its most significant bits first: day, entity, minute, behavior, whether it failed, and where
there is room its location. Sorting such integers costs a tenth of grouping and sorting the same events in a database.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.data.ranges import positions
from infobehavior.data.schema import BEHAVIORS_PER_WORD, BITS_PER_BEHAVIOR, MAX_REPEATS, SET_SEPARATOR, Schema

Integers = NDArray[np.int64]

_MAX_BITS = 63


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
        values, rank = _ranks(pc.fill_null(texts, ""))
        if len(values) and values[0].as_py() == "":
            return cls(rank, values[1:])
        return cls(rank + 1, values)

    @property
    def bits(self) -> int:
        """How many bits a number takes."""
        return len(self.values).bit_length()

    @property
    def mask(self) -> int:
        """Those bits."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class CodedEvents:
    """Usable events as numbers, in any order.

    Attributes:
        entity_id: of each event.
        minute: UTC epoch minute of each event.
        code: of each event's behavior.
        failed: 1 if the event is a failed operation, else 0.
        members: for each column that is kept as a set, by its name in the minutes.
    """

    entity_id: pa.Array
    minute: NDArray[np.integer]
    code: NDArray[np.integer]
    failed: NDArray[np.integer]
    members: Mapping[str, Members]


def fold_events(events: CodedEvents, day_starts: Integers, schema: Schema) -> Iterator[tuple[int, pa.Table]]:
    """Make the minutes of some days.

    Args:
        events: the events.
        day_starts: UTC epoch minute at which each day begins, ascending; no event is before the first.
        schema: where the levels of the behaviors begin.

    Yields:
        For each day that has events, ascending: its position in `day_starts`, and its rows by (entity_id, minute).
    """
    if not len(events.minute):
        return
    spare_bits = max([_code_bits(schema) + 1, *(members.bits for members in events.members.values())])
    keys = _MinuteKeys.of(events, day_starts, spare_bits)
    beside = next(iter(events.members), None)
    if beside and keys.bits + _code_bits(schema) + 1 + events.members[beside].bits > _MAX_BITS:
        beside = None
    rows, tokens, set_beside = _tokens(keys, events, schema, beside)
    sets = {name: set_beside if name == beside else _sets(keys, members) for name, members in events.members.items()}
    day, entity_id, minute = keys.fields(rows, day_starts)
    columns = {"entity_id": entity_id, "minute": pa.array(minute, pa.int32()), **tokens}
    table = pa.table(columns | {"location": pa.nulls(len(rows), pa.string())} | sets)
    for start, end in _bounds(day):
        yield int(day[start]), table.slice(start, end - start)


def _bounds(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    return pairwise([*_run_starts(values).tolist(), len(values)])


def _run_starts(values: NDArray[Any]) -> Integers:
    """Where each run of equal values begins."""
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])


@dataclass(frozen=True)
class _MinuteKeys:
    """Day, entity and minute of each event as one integer, which sorts as they do.

    Attributes:
        of_event: the key of each event.
        entities: ascending; the key has positions in it.
        entity_bits: how many bits of the key such a position takes.
        minute_bits: likewise, for the minute of the day.
        distinct: None, or the distinct keys: then `of_event` has positions in them, which take fewer bits.
    """

    of_event: Integers
    entities: pa.Array
    entity_bits: int
    minute_bits: int
    distinct: Integers | None = None

    @property
    def bits(self) -> int:
        """How many bits a key takes."""
        return int(self.of_event.max()).bit_length()

    @classmethod
    def of(cls, events: CodedEvents, day_starts: Integers, spare_bits: int) -> Self:
        """Keys that leave so many bits for what else is said of an event."""
        entities, entity = _ranks(events.entity_id)
        day = _days(events.minute, day_starts)
        minute = events.minute - (day_starts[0] if len(day_starts) == 1 else day_starts.astype(np.int32)[day])
        entity_bits, minute_bits = len(entities).bit_length(), int(minute.max()).bit_length()
        key = _packed(_packed(day, entity, entity_bits), minute, minute_bits)
        fits = len(day_starts).bit_length() + entity_bits + minute_bits + spare_bits <= _MAX_BITS
        distinct = None if fits else np.unique(key)
        positions = key if distinct is None else np.searchsorted(distinct, key)
        return cls(positions, entities, entity_bits, minute_bits, distinct)

    def fields(self, keys: Integers, day_starts: Integers) -> tuple[Integers, pa.Array, Integers]:
        """Take keys apart into day, entity and minute."""
        whole = keys if self.distinct is None else self.distinct[keys]
        minute = whole & ((1 << self.minute_bits) - 1)
        entity = (whole >> self.minute_bits) & ((1 << self.entity_bits) - 1)
        day = whole >> (self.minute_bits + self.entity_bits)
        return day, self.entities.take(pa.array(entity)), day_starts[day] + minute


def _days(minute: NDArray[np.integer], day_starts: Integers) -> Integers:
    """The day of each minute, as a position in `day_starts`."""
    if len(day_starts) == 1:
        return np.zeros(len(minute), np.int64)
    return np.searchsorted(day_starts[1:], minute, side="right")


def _packed(key: Integers, field: NDArray[np.integer], bits: int) -> Integers:
    """Put a field below a key, in place: arrays as long as a log's day are what costs memory."""
    key <<= bits
    key |= field
    return key


def _ranks(values: pa.Array) -> tuple[pa.Array, NDArray[np.int32]]:
    """The distinct values, ascending (text by code point), and the position of each value among them."""
    encoded = values.dictionary_encode()
    is_text = pa.types.is_string(values.type)
    order = (
        pc.array_sort_indices(encoded.dictionary).to_numpy() if is_text else np.argsort(encoded.dictionary.to_numpy())
    )
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy()]


def _code_bits(schema: Schema) -> int:
    return len(schema.behaviors).bit_length()


def _tokens(
    keys: _MinuteKeys, events: CodedEvents, schema: Schema, beside: str | None
) -> tuple[Integers, dict[str, pa.Array], pa.Array | None]:
    """The key of each minute, ascending; what happened in it; and the set that is sorted beside it, if one is."""
    code_bits, members = _code_bits(schema), events.members[beside] if beside else None
    runs = _packed(_packed(keys.of_event.copy(), events.code, code_bits), events.failed, 1)
    if members:
        runs = _packed(runs, members.number, members.bits)
    runs.sort()
    starts = _run_starts(runs)
    repeats = np.diff(starts, append=len(runs))
    runs = runs[starts]
    if members:
        number = runs & members.mask
        runs >>= members.bits
    failures = np.where(runs & 1, repeats, 0)

    behaviors = _run_starts(runs >> 1)
    counts = np.add.reduceat(repeats, behaviors)
    code = (runs[behaviors] >> 1) & ((1 << code_bits) - 1)

    key_of_behavior = runs[behaviors] >> (code_bits + 1)
    minutes = _run_starts(key_of_behavior)
    words = _words(code, counts, minutes, schema)
    tokens = {
        "num_events": pa.array(np.add.reduceat(counts, minutes), pa.int32()),
        "num_failures": pa.array(np.add.reduceat(failures, behaviors[minutes]), pa.int32()),
        **{f"levels_{i}": pa.array(word) for i, word in enumerate(words)},
        "counts": _lists(counts, minutes),
    }
    set_beside = _set_texts(members, number, behaviors[minutes]) if members else None
    return key_of_behavior[minutes], tokens, set_beside


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


def _sets(keys: _MinuteKeys, members: Members) -> pa.Array:
    """The set of each minute as text, by ascending key."""
    pairs = _packed(keys.of_event.copy(), members.number, members.bits)
    pairs.sort()
    pairs = pairs[_run_starts(pairs)]
    return _set_texts(members, pairs & members.mask, _run_starts(pairs >> members.bits))


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
    pairs = np.unique(_packed(place, number[position], members.bits))
    pairs = pairs[pairs & members.mask > 0]
    offsets = np.append(_run_starts(pairs >> members.bits), len(pairs)) if len(pairs) else np.zeros(1, np.int64)
    texts = members.values.take(pa.array((pairs & members.mask) - 1))
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts), SET_SEPARATOR)
    return pa.concat_arrays([pa.nulls(1, pa.string()), members.values, joined]).take(pa.array(which))
