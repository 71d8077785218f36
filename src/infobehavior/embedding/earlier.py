"""What a partition says of its bundles, so that a later run for the same day encodes only those that have changed.

It stands in the metadata of the partition's file, where other readers pass it over and it can't be another file's.
"""

import hashlib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infobehavior.data.moments import Moments
from infobehavior.embedding.encode import EmbeddedBundle, EmbeddedWindows, Fallbacks

METADATA_KEY = b"infobehavior bundles"
DIGEST_KEY = b"infobehavior digest"


class _Bundle(BaseModel):
    """What is said of a bundle: what its windows hold, its rows, what they are, and the unknown tokens met."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contents: str
    num_rows: Annotated[int, Field(ge=0)]
    digest: str
    fallbacks: dict[str, int]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    made_by: str
    bundles: list[_Bundle]


class EarlierDay:
    """The embeddings of a day that an earlier run wrote.

    Args:
        partition: its file. One that isn't there, is damaged, or was made by another model, version or processor is as
            good as empty.
        made_by: see `made_by`.
    """

    def __init__(self, partition: Path, made_by: str) -> None:
        self._found = set[str]()
        self._first_row: dict[str, int] = {}
        self._bundles: dict[str, _Bundle] = {}
        try:
            self._file = pq.ParquetFile(partition)
            said = _Said.model_validate_json((self._file.metadata.metadata or {}).get(METADATA_KEY, b""))
        except (OSError, ValidationError, pa.ArrowException):
            return
        first = 0
        for bundle in said.bundles if said.made_by == made_by else []:
            self._bundles[bundle.contents], self._first_row[bundle.contents] = bundle, first
            first += bundle.num_rows
        self._row_group = lru_cache(maxsize=2)(self._file.read_row_group)

    @property
    def num_found(self) -> int:
        """Windows that were found."""
        return sum(self._bundles[contents].num_rows for contents in self._found)

    def find(self, contents: str, moments: Moments) -> EmbeddedWindows | None:
        """The windows of a bundle, if they held the same.

        Args:
            contents: names what they hold now.
            moments: at which they end.
        """
        bundle = self._bundles.get(contents)
        if bundle is None or bundle.num_rows == 0:
            return None
        try:
            rows = self._rows(self._first_row[contents], bundle.num_rows)
            fallbacks = Fallbacks(**bundle.fallbacks)
        except (OSError, KeyError, TypeError, pa.ArrowException):
            return None
        found = _as_windows(rows, moments)
        if found is None or _digest(found) != bundle.digest:
            return None
        self._found.add(contents)
        found.bundles = [EmbeddedBundle(contents, len(moments), fallbacks)]
        return found

    def _rows(self, start: int, num_rows: int) -> pa.Table:
        """Some rows of the file, whichever row groups they are in."""
        ends = np.cumsum([self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)])
        first, last = np.searchsorted(ends, [start, start + num_rows - 1], side="right").tolist()
        if last == len(ends):
            raise KeyError(f"row {start + num_rows - 1}")
        rows = pa.concat_tables([self._row_group(group) for group in range(first, last + 1)])
        return rows.slice(start - (int(ends[first - 1]) if first else 0), num_rows)


class PartitionLog:
    """Gathers what a partition says of its rows and its bundles, as its windows pass by.

    Args:
        made_by: see `made_by`; None where nothing is to be said of bundles.
    """

    def __init__(self, made_by: str | None) -> None:
        self._made_by = made_by
        self._bundles: list[_Bundle] = []
        self._all = hashlib.blake2b(digest_size=16)

    def add(self, windows: EmbeddedWindows) -> None:
        """Describe the bundles of some windows."""
        if self._made_by is None:
            return
        for bundle, (start, end) in zip(windows.bundles, pairwise(windows.bundle_starts), strict=True):
            of_bundle = windows.take(slice(start, end))
            self._bundles.append(
                _Bundle(
                    contents=bundle.contents,
                    num_rows=int(np.count_nonzero(of_bundle.num_minutes)),
                    digest=_digest(of_bundle),
                    fallbacks=vars(bundle.fallbacks),
                )
            )

    def add_rows(self, rows: pa.Table) -> None:
        """Take a row group into the digest of all rows."""
        self._all.update("\0".join(map(str, rows["entity_id"].to_pylist())).encode(errors="surrogatepass"))
        for name in ("as_of", "num_events", "num_minutes", "num_spans"):
            self._all.update(rows[name].to_numpy().tobytes())
        self._all.update(pc.list_flatten(rows["embedding"]).to_numpy().tobytes())

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """For the partition's file."""
        said = {DIGEST_KEY: self._all.hexdigest().encode()}
        if self._made_by is not None:
            said[METADATA_KEY] = _Said(made_by=self._made_by, bundles=self._bundles).model_dump_json().encode()
        return said


def digest_of(partition: Path) -> str:
    """Names the rows of a partition: by what it says of them, or by its bytes where something else wrote it."""
    metadata = pq.read_metadata(partition)
    said = (metadata.metadata or {}).get(DIGEST_KEY)
    if said is None:
        with partition.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    # Whoever writes some of the rows again may keep what is said of all.
    return hashlib.sha256(said + f" {metadata.num_rows} {partition.stat().st_size}".encode()).hexdigest()


def _as_windows(rows: pa.Table, moments: Moments) -> EmbeddedWindows | None:
    """Rows of a partition as all windows of a bundle; None where a row is none of them."""
    entity_id = rows["entity_id"].to_numpy()
    embedding = rows["embedding"].combine_chunks()
    place = np.minimum(np.searchsorted(moments.entity_id, entity_id), len(moments) - 1)
    if not np.array_equal(moments.entity_id[place], entity_id):
        return None
    windows = EmbeddedWindows.zeros(moments, embedding.type.list_size)
    windows.embedding[place] = embedding.flatten().to_numpy().reshape(len(rows), -1)
    for name in ("num_events", "num_minutes", "num_spans"):
        getattr(windows, name)[place] = rows[name].to_numpy()
    return windows


def _digest(windows: EmbeddedWindows) -> str:
    """Names the rows of a bundle."""
    digest = hashlib.blake2b(digest_size=16)
    for column in (
        windows.moments.as_of,
        windows.embedding,
        windows.num_events,
        windows.num_minutes,
        windows.num_spans,
    ):
        digest.update(column.tobytes())
    return digest.hexdigest()
