"""The embeddings table: Hive-partitioned Parquet that DuckDB, Spark and pandas read as it is (section 4.3).

Each Parquet file of the folder is a partition, so that any glob finds the table and nothing else. The windows without
events are listed beside it as CSV, `_no_events/ds=….csv`.
"""

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infobehavior.artefacts import (
    DAILY_LOG,
    DEFINITION_FILE,
    TRAINING_LOG,
    UNFINISHED_FILE,
    beside,
    move_into_place,
    read_json,
    refuse_interrupted,
    refuse_unwritable,
    write_atomically,
    write_json,
    writing,
)
from infobehavior.data.minutes import MinuteTable, day_of_name, days_that_have
from infobehavior.data.moments import Moments, day_before
from infobehavior.data.schema import Schema
from infobehavior.embedding.earlier import PartitionLog
from infobehavior.embedding.encode import EmbeddedWindows, Fallbacks
from infobehavior.errors import InputError, one_line
from infobehavior.model.infobehavior import InfoBehavior

PARTITION_FILE = "embeddings.parquet"
NO_EVENTS_FOLDER = "_no_events"
KIND = "embeddings"
FORMAT = 1
KEYS = ["entity_id", "as_of"]
COLUMNS = [*KEYS, "embedding", "num_events", "num_minutes", "num_spans", "model_id"]
BYTES_PER_ROW_GROUP = 64 << 20
"""Of embeddings; a row group is so large whatever is written at a time, so that shards change no byte."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Written:
    """What `write_partitions` did.

    Attributes:
        days: whose partitions were written, ascending.
        num_embedded: windows with events; each is a row.
        num_without_events: windows without.
        num_removed: windows that those partitions had before and don't have now.
        fallbacks: unknown tokens met.
    """

    days: tuple[date, ...]
    num_embedded: int
    num_without_events: int
    num_removed: int
    fallbacks: Fallbacks


def partition_file(out: Path, day: date) -> Path:
    """Where the embeddings of a day are."""
    return out / f"ds={day}" / PARTITION_FILE


def days_of(out: Path) -> tuple[date, ...]:
    """The days of a table, ascending; none if it isn't there.

    Raises:
        InputError: it has a folder that isn't a day.
    """
    return days_that_have(out, PARTITION_FILE)


def read_definition(table: Path) -> dict[str, Any]:
    """What a table that is whole says of itself.

    Raises:
        InputError: it isn't one, or was interrupted.
    """
    definition = read_json(table / DEFINITION_FILE, "a folder of embeddings")
    if not isinstance(definition, dict) or definition.get("kind") != KIND or "model_id" not in definition:
        raise InputError(f"{table} is not a folder of embeddings")
    refuse_interrupted(table)
    return definition


@contextmanager
def reading_partition(file: Path) -> Iterator[None]:
    """Say which partition is damaged, while it is read.

    Raises:
        InputError: it is.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is damaged ({one_line(error)}); embed that day again") from None


def open_partition(file: Path) -> pq.ParquetFile:
    """Open a partition that has the columns that we write.

    Raises:
        InputError: it is damaged, or something else wrote it.
    """
    with reading_partition(file):
        opened = pq.ParquetFile(file)
        schema = opened.schema_arrow
    if missing := [name for name in COLUMNS if name not in schema.names]:
        raise InputError(f"{file} has no column {', '.join(missing)}; embed that day again")
    return opened


def vectors_of(rows: pa.Table, file: Path) -> NDArray[np.float32]:
    """The embeddings of some rows of a partition, one a row.

    Args:
        rows: with the column.
        file: the partition, for the message.

    Raises:
        InputError: they aren't lists of one length, or some are null.
    """
    kind = rows.schema.field("embedding").type
    if not (pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()):
        raise InputError(f"{file} has embeddings of type {kind}, expected lists of float32 of one length")
    column = rows["embedding"].combine_chunks()
    values = column.flatten()
    if column.null_count or values.null_count:
        raise InputError(f"{file} has embeddings that are null; embed that day again")
    vectors: NDArray[np.float32] = values.to_numpy().reshape(len(column), kind.list_size)
    return vectors


def read_chosen(file: Path, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The embeddings of some rows of a partition; of the others, a row group at a time is in memory.

    Args:
        file: the partition.
        rows: ascending.

    Raises:
        InputError: it is damaged, or something else wrote it.
    """
    opened = open_partition(file)
    found, first = [vectors_of(opened.schema_arrow.empty_table(), file)], 0
    with reading_partition(file):
        for group in range(opened.num_row_groups):
            after = first + opened.metadata.row_group(group).num_rows
            inside = rows[(rows >= first) & (rows < after)] - first
            if len(inside):
                found.append(vectors_of(opened.read_row_group(group, ["embedding"]).take(pa.array(inside)), file))
            first = after
    return np.concatenate(found)


def remove_day(out: Path, day: date) -> None:
    """Take a day out of a table: no reader finds a part of it."""
    (out / NO_EVENTS_FOLDER / f"ds={day}.csv").unlink(missing_ok=True)
    partition_file(out, day).unlink(missing_ok=True)
    with suppress(OSError):
        partition_file(out, day).parent.rmdir()


def days_with_files(out: Path) -> list[date]:
    """The days of a table, and those of which a kill has left something while they were taken out; ascending.

    Raises:
        InputError: it has a folder or a list that isn't a day.
    """
    names = {path.name for path in out.glob("ds=*")}
    names |= {path.name.removesuffix(".csv") for path in out.glob(f"{NO_EVENTS_FOLDER}/ds=*.csv")}
    return sorted(day_of_name(out, name) for name in names)


def definition(model: InfoBehavior, minutes: MinuteTable) -> dict[str, Any]:
    """What the table says of itself."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "model_id": model.model_id,
        "minutes_hash": minutes.hash,
        "window_minutes": model.config.window_minutes,
        "embedding_dim": model.embedding_dim,
        "time_zone": minutes.schema.time.time_zone,
        "trained_until": model.pretraining.get("trained_until"),
    }


def check_table(out: Path, model: InfoBehavior, minutes: MinuteTable) -> None:
    """Refuse a folder in which no table can be written, and to put embeddings of one model beside those of another.

    Raises:
        InputError: `out` is a file or can't be written, holds something else, or holds a table that was made
            otherwise; says which two things disagree.
    """
    refuse_unwritable(out, KIND)
    refuse_foreign_files(out)
    if not (out / DEFINITION_FILE).exists():
        return
    there, here = read_json(out / DEFINITION_FILE, "an embeddings table"), definition(model, minutes)
    kind = there.get("kind") if isinstance(there, dict) else None
    if kind != KIND:
        raise InputError(f"{out} holds {kind or 'something else'}, not {KIND}; choose another --out")
    if differing := [name for name in here if there.get(name) != here[name]]:
        name = differing[0]
        raise InputError(
            f"{out} holds embeddings with {name} {there.get(name)}, but now it would be {here[name]}: choose another "
            "--out, or remove that folder first, since the two can't be compared"
        )


def refuse_foreign_files(out: Path) -> None:
    """Refuse a folder that is no table and holds anything but what a run that was interrupted at its start left.

    Raises:
        InputError: see above.
    """
    entries = out.iterdir() if out.exists() and not (out / DEFINITION_FILE).exists() else iter(())
    if any(not entry.name.startswith(".") and entry.name not in (UNFINISHED_FILE, DAILY_LOG) for entry in entries):
        raise InputError(f"{out} has files that aren't {KIND} (no {DEFINITION_FILE}); give a new folder")


def write_partitions(
    out: Path,
    run: str,
    model: InfoBehavior,
    minutes: MinuteTable,
    moments: Moments,
    shards: Iterable[EmbeddedWindows],
    model_folder: Path,
    made_by: str | None = None,
) -> Written:
    """Write the partition of each day among the windows, the entities that had no events, and the training curve.

    The files are written beside their targets while the windows are embedded; the table can't be read only while they
    are moved into place.

    Args:
        out: folder of the table.
        run: what embeds, in words, see `artefacts.writing`.
        model: what embedded them.
        minutes: what they were made of.
        moments: of all windows.
        shards: the windows, in the moments' order. Those of a single moment go to disk shard by shard; those of
            several days, which a table of moments asks for, are gathered first.
        model_folder: whose training curve is kept with its embeddings, for the report.
        made_by: where the contents of bundles are named; the partition then tells of them, see `earlier`.
    """
    counts, model_id = _Counts(), model.model_id
    counted = (counts.count(shard) for shard in shards)
    only_day = day_before(int(moments.as_of[0]), minutes.schema) if moments.are_one else None
    if only_day:
        windows_of_day: dict[date, Iterator[EmbeddedWindows]] = {only_day: counted}
    else:
        windows_of_day = _by_day(list(counted), minutes.schema)
    with ExitStack() as stack:
        partitions = [_Partition(out, day, stack) for day in windows_of_day]
        for partition, windows in zip(partitions, windows_of_day.values(), strict=True):
            partition.write(windows, model_id, PartitionLog(made_by))
        with writing(out, run, only_day):
            write_json(out / DEFINITION_FILE, definition(model, minutes))
            for partition in partitions:
                partition.move()
            _copy_training_log(model_folder, out)
    num_removed = sum(partition.num_removed for partition in partitions)
    return Written(tuple(windows_of_day), num_removed=num_removed, **vars(counts))


@dataclass
class _Counts:
    """What `Written` says, as shards pass by."""

    num_embedded: int = 0
    num_without_events: int = 0
    fallbacks: Fallbacks = field(default_factory=Fallbacks)

    def count(self, shard: EmbeddedWindows) -> EmbeddedWindows:
        num_embedded = int(np.count_nonzero(shard.num_minutes))
        self.num_embedded += num_embedded
        self.num_without_events += len(shard.moments) - num_embedded
        for bundle in shard.bundles:
            self.fallbacks.include(bundle.fallbacks)
        return shard


def _by_day(shards: Sequence[EmbeddedWindows], schema: Schema) -> dict[date, Iterator[EmbeddedWindows]]:
    """The windows of each day, ascending, shard by shard."""
    day_of_moment = {
        moment: day_before(moment, schema) for shard in shards for moment in set(shard.moments.as_of.tolist())
    }
    days = [np.array([day_of_moment[moment] for moment in shard.moments.as_of.tolist()]) for shard in shards]
    return {day: _of_day(day, shards, days) for day in sorted(set(day_of_moment.values()))}


def _of_day(day: date, shards: Sequence[EmbeddedWindows], days: Sequence[NDArray[Any]]) -> Iterator[EmbeddedWindows]:
    return (shard.take(of_shard == day) for shard, of_shard in zip(shards, days, strict=True))


class _Partition:
    """A day's partition and its list of windows without events, first beside their places, then there.

    Args:
        out: folder of the table.
        day: of the partition.
        stack: at whose end what wasn't moved is removed.
    """

    def __init__(self, out: Path, day: date, stack: ExitStack) -> None:
        self.target = partition_file(out, day)
        self.without_target = out / NO_EVENTS_FOLDER / f"ds={day}.csv"
        # Not in the partition's folder: a kill must leave nothing that looks like a table of another kind.
        self.temporary = stack.enter_context(beside(out / f"{day}.parquet"))
        self.keys_without: list[pa.Table] = []
        self.num_removed = 0
        """Windows that are gone from the partition once it is moved."""

    def write(self, shards: Iterable[EmbeddedWindows], model_id: str, log: PartitionLog) -> None:
        """Write the windows that have events, shard by shard, and what is to be said of their bundles."""
        keys: list[pa.Table] = []
        with ExitStack() as stack:
            writer = None
            for rows in _row_groups(self._rows_of(shards, keys, model_id, log)):
                writer = writer or stack.enter_context(
                    pq.ParquetWriter(self.temporary, rows.schema, compression="zstd")
                )
                log.add_rows(rows)
                writer.write_table(rows, row_group_size=max(1, len(rows)))
            if writer:
                writer.add_key_value_metadata(log.metadata)
        self.num_removed = _num_removed(self.target, pa.concat_tables(keys))

    def _rows_of(
        self, shards: Iterable[EmbeddedWindows], keys: list[pa.Table], model_id: str, log: PartitionLog
    ) -> Iterator[pa.Table]:
        for shard in shards:
            log.add(shard)
            embedded = shard.take(shard.num_minutes > 0)
            keys.append(_keys(embedded))
            self.keys_without.append(_keys(shard.take(shard.num_minutes == 0)))
            yield _rows(embedded, model_id)

    def move(self) -> None:
        """Put both into their places."""
        self.target.parent.mkdir(exist_ok=True)
        move_into_place(self.temporary, self.target)
        _write_no_events(pa.concat_tables(self.keys_without), self.without_target)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of one size; the last is smaller, and the only one where there are no rows."""
    waiting: pa.Table | None = None
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        size = max(1, BYTES_PER_ROW_GROUP // (4 * waiting.schema.field("embedding").type.list_size))
        while len(waiting) > size:
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
    if waiting is not None:
        yield waiting


def _num_removed(partition: Path, keys: pa.Table) -> int:
    """Windows of a partition that are not among those that replace it; none are known of a damaged one."""
    try:
        before = pq.read_table(partition, columns=KEYS, partitioning=None)
        return len(before.join(keys, KEYS, join_type="left anti", use_threads=False))
    except (OSError, pa.ArrowException):
        return 0


def _copy_training_log(model_folder: Path, out: Path) -> None:
    if (model_folder / TRAINING_LOG).exists():
        write_atomically(out / TRAINING_LOG, lambda path: _copy(model_folder / TRAINING_LOG, path))


def _rows(windows: EmbeddedWindows, model_id: str) -> pa.Table:
    embedding = windows.embedding
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1])
    rows = _keys(windows).append_column("embedding", vectors)
    for name in ("num_events", "num_minutes", "num_spans"):
        rows = rows.append_column(name, pa.array(getattr(windows, name)))
    return rows.append_column("model_id", pa.array([model_id] * len(embedding), pa.string()))


def _keys(windows: EmbeddedWindows) -> pa.Table:
    is_text = windows.moments.entity_id.dtype == object
    return pa.table(
        {
            "entity_id": pa.array(windows.moments.entity_id, pa.string() if is_text else pa.int64()),
            "as_of": pa.array(windows.moments.as_of, pa.timestamp("us", "UTC")),
        }
    )


def _write_no_events(keys: pa.Table, target: Path) -> None:
    write_atomically(target, lambda path: _write_csv(keys, path))


def _write_csv(keys: pa.Table, path: Path) -> None:
    """Entities, and moments as ISO 8601 in UTC, each to the microsecond so that all have one form."""
    moments = (EPOCH + timedelta(microseconds=moment) for moment in keys["as_of"].cast(pa.int64()).to_pylist())
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(KEYS)
        for entity, moment in zip(keys["entity_id"].to_pylist(), moments, strict=True):
            writer.writerow([entity, moment.isoformat(timespec="microseconds")])


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written)  # so that a full disk isn't said to be the source's
