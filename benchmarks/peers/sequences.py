"""Sequences of events, as pytorch-lifestream's data sets want them: which events, which codes, one record each.

It takes the place of the package's `PandasDataPreprocessor`, which makes one pandas series per entity and column and
knows neither windows nor a time before which it may look. Categories are coded as there: 0 pads, 1 is the most frequent
value, missing is a value, and what training never saw shares the last code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

MICROS_PER_SECOND = 1_000_000
MICROS_PER_MINUTE = 60 * MICROS_PER_SECOND
MICROS_PER_DAY = 1_440 * MICROS_PER_MINUTE
CALENDAR = {"hour": 24, "weekday": 7}
"""Categories made of the time, and how many values each has."""

GAP = "log_gap"
"""The number: log(1 + seconds since the previous event of the window); 0 for its first."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """Events by entity and time; events of one time stay in the order of the file.

    Attributes:
        entities: distinct ids, ascending.
        starts: the row where each entity starts, then the number of rows.
        micros: time of each event, in microseconds since 1970.
        values: of each categorical column, the index of each event's value in `names`.
        names: of each categorical column, its values; None is missing.
        calendar: `CALENDAR` of each event in the log's time zone, from 0.
    """

    entities: Ints
    starts: Ints
    micros: Ints
    values: dict[str, NDArray[np.int32]]
    names: dict[str, list[str | None]]
    calendar: dict[str, NDArray[np.int32]]

    def __len__(self) -> int:
        """Number of events."""
        return len(self.micros)

    def find(self, entities: Ints) -> Ints:
        """The index of each in `entities`; -1 for those that the log lacks."""
        if not len(self.entities):
            return np.full(len(entities), -1)
        index = np.searchsorted(self.entities, entities).clip(max=len(self.entities) - 1)
        return np.where(self.entities[index] == entities, index, -1)

    def row_at(self, index: int, micros: int) -> int:
        """The first row of an entity, given by its index, at or after a time."""
        first, stop = self.starts[index], self.starts[index + 1]
        return int(first + np.searchsorted(self.micros[first:stop], micros))


@dataclass(frozen=True)
class Moments:
    """Ends of windows, in the order of their table.

    Attributes:
        table: the table as read.
        entities: the entity of each.
        micros: the end of each, floored to its minute.
    """

    table: pa.Table
    entities: Ints
    micros: Ints


def read_log(path: Path, columns: Sequence[str], time_zone: str = "UTC") -> Log:
    """Read events: entity_id, timestamp and the categorical columns."""
    table = pq.read_table(path, columns=["entity_id", "timestamp", *columns])
    entities, micros = table["entity_id"].to_numpy().astype(np.int64), _micros(table["timestamp"])
    order = np.lexsort((micros, entities))
    entities, micros = entities[order], micros[order]
    distinct, starts = np.unique(entities, return_index=True)
    encoded = {
        name: table[name].cast(pa.string()).combine_chunks().dictionary_encode(null_encoding="encode")
        for name in columns
    }
    local = pa.array(micros, pa.timestamp("us", tz=time_zone))
    return Log(
        entities=distinct,
        starts=np.append(starts, len(micros)),
        micros=micros,
        values={name: column.indices.to_numpy()[order] for name, column in encoded.items()},
        names={name: column.dictionary.to_pylist() for name, column in encoded.items()},
        calendar={
            "hour": pc.hour(local).to_numpy().astype(np.int32),
            "weekday": pc.day_of_week(local).to_numpy().astype(np.int32),
        },
    )


def end_of_day(day: date, time_zone: str) -> int:
    """Microseconds since the epoch at which a local day has just ended."""
    midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(time_zone))
    return int(midnight.timestamp()) * 1_000_000


def read_moments(path: Path) -> Moments:
    """Read moments: entity_id, as_of and whatever else the table has."""
    table = pq.read_table(path)
    micros = _micros(table["as_of"]) // MICROS_PER_MINUTE * MICROS_PER_MINUTE
    return Moments(table, table["entity_id"].to_numpy().astype(np.int64), micros)


def moment_windows(log: Log, moments: Moments, window_days: int) -> Ints:
    """The rows [first, stop) of each moment's window: from `window_days` before its minute, without the minute."""
    windows = np.zeros((len(moments.micros), 2), dtype=np.int64)
    for window, index, end in zip(windows, log.find(moments.entities), moments.micros, strict=True):
        if index >= 0:
            window[:] = log.row_at(index, end - window_days * MICROS_PER_DAY), log.row_at(index, end)
    return windows


def training_windows(log: Log, cut: Moments | None = None, until: int | None = None) -> Ints:
    """The rows [first, stop) that training may see of each entity, in the order of `log.entities`.

    Args:
        log: the events.
        cut: moments whose entities are seen only before their first one; other entities are seen whole.
        until: microseconds since the epoch from which on nothing is seen of anyone.
    """
    windows = np.stack([log.starts[:-1], log.starts[1:]], axis=1)
    if until is not None:
        windows[:, 1] = [log.row_at(index, until) for index in range(len(windows))]
    if cut is None:
        return windows
    for index, end in zip(log.find(cut.entities), cut.micros, strict=True):
        if index >= 0:
            windows[index, 1] = min(windows[index, 1], log.row_at(index, end))
    return windows


def rows_inside(log: Log, windows: Ints) -> NDArray[np.bool_]:
    """True for each event that lies in at least one window."""
    steps = np.zeros(len(log) + 1, dtype=np.int64)
    np.add.at(steps, windows[:, 0], 1)
    np.add.at(steps, windows[:, 1], -1)
    return np.cumsum(steps[:-1]) > 0


def codes(log: Log, seen: NDArray[np.bool_]) -> tuple[dict[str, NDArray[np.int32]], dict[str, int]]:
    """The code of each event in each categorical column, and how many codes each column has, padding included.

    Args:
        log: the events.
        seen: True for the events that the codes may be made of.
    """
    coded, sizes = {}, {}
    for name, values in log.values.items():
        code = _code_of_value(log.names[name], np.bincount(values[seen], minlength=len(log.names[name])))
        coded[name], sizes[name] = code[values], int(code.max(initial=0)) + 1
    for name, size in CALENDAR.items():
        coded[name], sizes[name] = log.calendar[name] + 1, size + 1
    return coded, sizes


def records(
    log: Log, coded: dict[str, NDArray[np.int32]], windows: Ints, max_events: int | None = None
) -> list[dict[str, Any]]:
    """One record per window: arrays of its last events, by name. A window knows nothing of what came before it.

    Args:
        log: the events.
        coded: their codes.
        windows: rows [first, stop).
        max_events: events kept of each window, from its end; None keeps all.
    """
    gaps = np.log1p(np.diff(log.micros, prepend=log.micros[:1]).clip(min=0) / MICROS_PER_SECOND)
    made = []
    for first, stop in windows.tolist():
        kept = slice(first if max_events is None else max(first, stop - max_events), stop)
        gap = gaps[kept].astype(np.float32)
        if kept.start == first:
            gap[:1] = 0
        made.append({"event_time": log.micros[kept], **{name: code[kept] for name, code in coded.items()}, GAP: gap})
    return made


def batches_by_length(lengths: Ints, max_steps: int) -> Iterator[list[int]]:
    """Indices of records in batches, from short to long; those without events are left out.

    Args:
        lengths: events of each record.
        max_steps: of records times events, padding included, in a batch; a longer record is a batch of its own.
    """
    batch: list[int] = []
    for index in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[index] > max_steps:
            yield batch
            batch = []
        if lengths[index]:
            batch.append(index)
    if batch:
        yield batch


class ShuffledByLength:
    """Batches for training, anew each epoch: records of like length together, batches in any order.

    Records are shuffled and sorted by length within `CHUNK` batches at a time.

    Args:
        lengths: events of each record.
        batch_size: records in a batch; the last one may have fewer.
        seed: of the shuffling.
    """

    CHUNK = 16

    def __init__(self, lengths: Ints, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size = lengths, batch_size
        self.random = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """One epoch."""
        order, size = self.random.permutation(len(self.lengths)), self.batch_size
        chunks = [order[first : first + size * self.CHUNK] for first in range(0, len(order), size * self.CHUNK)]
        order = np.concatenate([chunk[np.argsort(self.lengths[chunk], kind="stable")] for chunk in chunks])
        for batch in self.random.permutation(len(self)):
            yield order[batch * size : (batch + 1) * size].tolist()


def share_truncated(windows: Ints, max_events: int) -> float:
    """The share of windows that have more events than are kept."""
    return float(np.mean(windows[:, 1] - windows[:, 0] > max_events)) if len(windows) else 0.0


def write_vectors(path: Path, keys: dict[str, Any], vectors: NDArray[np.float32]) -> None:
    """Write the keys and, beside them, the vectors as `embedding`."""
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({**keys, "embedding": embedding}), path, compression="zstd")


def _code_of_value(names: list[str | None], counts: Ints) -> NDArray[np.int32]:
    """By frequency, then by name, so that values which training never saw move no code of another."""
    ranked = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], names[i] is not None, names[i]))
    code = np.full(len(names), len(ranked) + 1, dtype=np.int32)
    code[ranked] = np.arange(1, len(ranked) + 1)
    return code


def _micros(column: pa.ChunkedArray) -> Ints:
    micros: Ints = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()
    return micros
