"""`publish`: a table of embeddings as a Delta Lake table, for object stores and for several writers.

A day is one commit, which readers see whole or not at all, and which says what it was made of; so a day that is there
already isn't written again. Needs the extra `delta`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from infobehavior.artefacts import DEFINITION_FILE
from infobehavior.embedding.earlier import digest_of
from infobehavior.embedding.table import days_of, open_partition, partition_file, read_definition, reading_partition
from infobehavior.errors import InputError, one_line
from infobehavior.progress import progress

if TYPE_CHECKING:
    from deltalake import DeltaTable

ATTEMPTS = 5
"""Tries of a commit that others were in the way of."""

DAY = "infobehavior.ds"
"""Under this name the history says which day a commit wrote."""

UNDOING = frozenset({"UPDATE", "MERGE", "RESTORE"})
"""Operations of others after which a day may have as many rows as before and not be what its last transaction made it.
What is deleted is told by the rows that a day has left, so that other days aren't written again for it."""

DESCRIPTION = "infobehavior embeddings of model "


@dataclass(frozen=True)
class Summary:
    """What `publish` did.

    Attributes:
        to: the Delta table.
        days: that were written, ascending.
        num_there: days that were there already.
        version: of the Delta table.
    """

    to: str
    days: tuple[Date, ...]
    num_there: int
    version: int

    def lines(self) -> list[str]:
        """For the terminal."""
        written = f"{len(self.days)} days, {self.days[0]} to {self.days[-1]}," if self.days else "no day"
        return [f"{written} written to {self.to}, now version {self.version}; {self.num_there} were there already"]


def publish(table: str | Path, to: str) -> Summary:
    """Write the days of a table of embeddings to a Delta Lake table, partitioned by `ds`.

    Args:
        table: folder of the embeddings.
        to: folder or URL of the Delta table, such as s3://bucket/embeddings; credentials come from the environment. It
            is made, or holds embeddings of the same model: days that aren't in `table` stay. A day of which it has
            another number of rows is written again, and so is each that was committed before the last time that others
            changed rows or restored an older version.

    Raises:
        InputError: deltalake isn't installed, `table` isn't one, or `to` can't be written or holds something else.
    """
    try:
        import deltalake
    except ImportError:
        raise InputError("publish needs deltalake: pip install 'infobehavior[delta]'") from None
    table = Path(table)
    _refuse_own_folder(to)
    model_id = str(read_definition(table)["model_id"])
    days = days_of(table)
    if not days:
        raise InputError(f"{table} has no embeddings of any day; run `infobehavior embed` first")
    written = []
    try:
        undone = _undone(to, days)
        with progress("publishing", len(days)) as advance:
            for day in days:
                if _publish_day(partition_file(table, day), day, to, model_id, day in undone):
                    written.append(day)
                advance(note=str(day))
        version = deltalake.DeltaTable(to).version()
    except (deltalake.exceptions.DeltaError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"can't write to the Delta table {to}: {_without_traces(str(error))}") from None
    return Summary(to, tuple(written), len(days) - len(written), version)


def _without_traces(said: str) -> str:
    """What deltalake says, in one line, without the tracebacks and colors that it may add."""
    plain = re.sub("\\x1b\\[[0-9;]*m↳?", "", said)
    return one_line(re.split(r"Detail: Python exception|\n\s+0: ", plain)[0])


def _undone(to: str, days: Iterable[Date]) -> frozenset[Date]:
    """The days that may not be what was committed any more, since others undid something; transactions outlive that."""
    from deltalake import DeltaTable

    history = DeltaTable(to).history() if DeltaTable.is_deltatable(to) else []
    undone_at = max((entry["version"] for entry in history if entry.get("operation") in UNDOING), default=None)
    if undone_at is None:
        return frozenset()
    committed_since = {entry.get(DAY) for entry in history if entry["version"] > undone_at}
    return frozenset(day for day in days if str(day) not in committed_since)


def _publish_day(partition: Path, day: Date, to: str, model_id: str, is_undone: bool) -> bool:
    """Commit a day, unless it is there; when others were in the way, look again."""
    from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    # The last commit of a day names what it was made of by a number, which is what Delta has for writers.
    writer = f"infobehavior ds={day}"
    with reading_partition(partition):
        contents = int(digest_of(partition)[:15], 16)
        num_rows = open_partition(partition).metadata.num_rows
    attempts = 0
    while True:
        attempts += 1
        there = DeltaTable(to) if DeltaTable.is_deltatable(to) else None
        if there is not None:
            _refuse_others(there, to, model_id)
            is_there = there.transaction_version(writer) == contents and _has(there, day, num_rows)
            if is_there and not is_undone:
                return False
        made_of = CommitProperties(custom_metadata={DAY: str(day)}, app_transactions=[Transaction(writer, contents)])
        rows = _rows(partition, day)
        try:
            if there is None:
                described = DESCRIPTION + model_id
                write_deltalake(
                    to, rows, partition_by=["ds"], mode="error", description=described, commit_properties=made_of
                )
            else:
                write_deltalake(there, rows, mode="overwrite", predicate=f"ds = '{day}'", commit_properties=made_of)
            return True
        except DeltaError as error:
            was_made_meanwhile = there is None and DeltaTable.is_deltatable(to)
            if attempts == ATTEMPTS or not (isinstance(error, CommitFailedError) or was_made_meanwhile):
                raise


def _refuse_own_folder(to: str) -> None:
    """Refuse a folder of minutes or embeddings: what reads it would take Delta's files for its own."""
    folder = Path(to.removeprefix("file://"))
    if (folder / DEFINITION_FILE).exists():
        raise InputError(f"{to} is a folder of infobehavior's own; give another one for the Delta table")


def _refuse_others(there: "DeltaTable", to: str, model_id: str) -> None:
    """Refuse to put embeddings of one model beside those of another, or into a table of something else."""
    described = there.metadata().description or ""
    if not described.startswith(DESCRIPTION):
        raise InputError(f"{to} is a Delta table of something else; give another one")
    if (other := described.removeprefix(DESCRIPTION)) != model_id:
        raise InputError(f"{to} has embeddings of model {other}, not of {model_id}: give another Delta table")


def _has(there: "DeltaTable", day: Date, num_rows: int) -> bool:
    """Whether the table has so many rows of a day now: what was committed may have been deleted or restored away."""
    files = pa.table(there.get_add_actions(flatten=True))
    counts = files.filter(pc.equal(files["partition.ds"], pa.scalar(day, pa.date32())))["num_records"]
    return len(counts) > 0 and (counts.null_count > 0 or pc.sum(counts).as_py() == num_rows)


def _rows(partition: Path, day: Date) -> pa.RecordBatchReader:
    """The rows of a partition, a row group in memory at a time; lists of any length, as Delta has them."""
    file = open_partition(partition)
    kept = [field for field in file.schema_arrow if field.name != "embedding"]
    schema = pa.schema([*kept, pa.field("embedding", pa.list_(pa.float32())), pa.field("ds", pa.date32())])

    def batches() -> Iterator[Any]:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            rows = rows.append_column("ds", pa.array([day] * len(rows), pa.date32())).select(schema.names)
            yield from rows.cast(schema).combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
