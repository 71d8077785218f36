"""`align`: embeddings of a new model, turned into the space of an older one, for classifiers that know that one.

Two trainings find spaces that differ by a turn, a reflection, a shift, a scale, and by what the models see otherwise.
The first four are found by orthogonal Procrustes on accounts that both have embedded on the same day (Schönemann,
1966); what is left is the residual. The alignment is kept with the table that it made, so the older model isn't needed
on later days.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infobehavior.artefacts import (
    DEFINITION_FILE,
    beside,
    definition_hash,
    move_into_place,
    refuse_unwritable,
    write_bytes,
    write_json,
)
from infobehavior.data.ranges import evenly
from infobehavior.embedding.earlier import digest_of
from infobehavior.embedding.table import (
    KEYS,
    KIND,
    days_of,
    open_partition,
    partition_file,
    read_chosen,
    read_definition,
    reading_partition,
    vectors_of,
)
from infobehavior.errors import InputError, one_line
from infobehavior.progress import progress

ALIGNMENT_FILE = "_alignment.safetensors"
MADE_OF = b"infobehavior made of"
"""What the metadata of a partition call the one that it was made of."""

MAX_ACCOUNTS = 50_000
"""So many accounts are enough for a turn of some thousand dimensions."""

HELD_OUT = 5
"""One account in so many isn't fitted on, and tells the residual."""

Vectors = Float[NDArray[np.float32], "accounts dim"]


class _Told(BaseModel):
    """What is told of an alignment, beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    new_model: str
    old_model: str
    model_id: str
    old_dim: int
    day: str
    num_fitted: int
    num_held_out: int
    residual: float
    residual_of_fit: float
    scale: Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Alignment:
    """x of the new space is `(x - new_mean) @ turn * scale + old_mean` in the old one.

    Attributes:
        new_mean: mean of the new embeddings.
        old_mean: mean of the old ones.
        turn: (new dim, old dim), with orthonormal columns or rows.
        scale: of lengths.
    """

    new_mean: Float[NDArray[np.float32], " new_dim"]
    old_mean: Float[NDArray[np.float32], " old_dim"]
    turn: Float[NDArray[np.float32], "new_dim old_dim"]
    scale: float

    @classmethod
    def fit(cls, new: Vectors, old: Vectors) -> Self:
        """Turn new embeddings so that they agree best with the old ones of the same rows, by their inner products.

        That is the least squared error too, unless the new space has more dimensions.
        """
        new_mean, old_mean = (part.mean(axis=0, dtype=np.float64) for part in (new, old))
        centered, target = new - new_mean, old - old_mean
        left, values, right = np.linalg.svd(centered.T @ target, full_matrices=False)
        turn = left @ right
        scale = float(values.sum() / max(np.square(centered @ turn).sum(), np.finfo(float).tiny))
        means = new_mean.astype(np.float32), old_mean.astype(np.float32)
        return cls(*means, turn=turn.astype(np.float32), scale=scale)

    def apply(self, new: Vectors) -> Vectors:
        """New embeddings in the old space."""
        aligned: Vectors = ((new - self.new_mean) @ self.turn * np.float32(self.scale) + self.old_mean).astype(
            np.float32
        )
        return aligned

    def residual(self, new: Vectors, old: Vectors) -> float:
        """Root of the squared error over that of the old mean: 0 is the same, 1 no better than the mean."""
        error, spread = (
            np.square(part, dtype=np.float64).sum() for part in (self.apply(new) - old, old - self.old_mean)
        )
        return float(np.sqrt(error / max(spread, np.finfo(float).tiny)))

    @property
    def hash(self) -> str:
        """Names the space that it makes, as a model's id names its own."""
        parts = (self.new_mean, self.old_mean, self.turn, np.float64(self.scale))
        return definition_hash(["aligned", *(hashlib.sha256(part.tobytes()).hexdigest() for part in parts)])

    def save(self, path: Path, told: dict[str, Any]) -> None:
        """Write it as safetensors, with what is told of it as JSON in the metadata."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in ("new_mean", "old_mean", "turn")}
        told = told | {"scale": self.scale}
        write_bytes(path, safetensors.numpy.save(tensors, metadata={"alignment": json.dumps(told, sort_keys=True)}))

    @classmethod
    def read(cls, path: Path) -> tuple[Self, dict[str, Any]]:
        """Read what `save` wrote.

        Raises:
            InputError: it is damaged.
        """
        try:
            with safetensors.safe_open(str(path), framework="numpy") as file:
                told = _Told.model_validate_json((file.metadata() or {})["alignment"])
                tensors = {name: file.get_tensor(name) for name in ("new_mean", "old_mean", "turn")}
            shapes = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
            dims = (len(tensors["new_mean"]), told.old_dim)
            expected = {"new_mean": dims[:1], "old_mean": dims[1:], "turn": dims}
            if shapes != {name: ("float32", shape) for name, shape in expected.items()}:
                raise ValueError(f"its tensors are {shapes}")
            return cls(**tensors, scale=told.scale), told.model_dump()
        except ValidationError as error:
            fault = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            fault = one_line(error)
        raise InputError(f"{path} is not an alignment ({fault}); remove its folder and align again")


@dataclass(frozen=True)
class Summary:
    """What `align` did.

    Attributes:
        out: the table.
        told: of the alignment: both models, the day and the accounts of the fit, and the residuals.
        days: that were written, ascending.
    """

    out: Path
    told: dict[str, Any]
    days: tuple[Date, ...]

    def lines(self) -> list[str]:
        """For the terminal."""
        written = f"{len(self.days)} days, {self.days[0]} to {self.days[-1]}," if self.days else "no day"
        return [
            "embeddings of model {new_model} in the space of {old_model}: fitted on {num_fitted:,} accounts, {day}; "
            "residual {residual:.3f} on {num_held_out:,} others ({residual_of_fit:.3f} on those), where 0 is the same "
            "and 1 no better than the mean".format(**self.told),
            f"{written} written to {self.out}",
        ]


def align(new: str | Path, out: str | Path, *, to: str | Path | None = None, date: str | None = None) -> Summary:
    """Write a table of a new model's embeddings in the space of an older model.

    The first time an alignment is fitted, and kept in the table; later the days are written that the new table has and
    this one hasn't, or has had from another partition.

    Args:
        new: table of the new model.
        out: folder of the table to write; it reads as any table of embeddings.
        to: table of the older model; needed the first time.
        date: day of the fit; by default the last one that both have.

    Raises:
        InputError: these tables don't belong together, or have too few accounts in common.
    """
    new, out = Path(new), Path(out)
    definition = read_definition(new)
    refuse_unwritable(out, KIND)
    if not (out / ALIGNMENT_FILE).exists():
        _refuse_foreign(out)
        if to is None:
            raise InputError(f"{out} has no alignment yet: give the table of the older model (--to)")
        _fit(new, Path(to), out, date)
    alignment, told = Alignment.read(out / ALIGNMENT_FILE)
    if told["new_model"] != definition["model_id"]:
        raise InputError(
            f"{out} aligns embeddings of model {told['new_model']}, but {new} has those of {definition['model_id']}: "
            "give another --out"
        )
    if date is not None and date != told["day"]:
        raise InputError(f"{out} was aligned by the day {told['day']}, not {date}: give another --out")
    if to is not None and (older := read_definition(Path(to))["model_id"]) != told["old_model"]:
        raise InputError(
            f"{out} aligns to model {told['old_model']}, but {to} has embeddings of {older}: give another --out"
        )
    write_json(out / DEFINITION_FILE, _aligned_definition(definition, told))
    stale = [day for day in days_of(new) if not _is_up_to_date(new, out, day)]
    with progress("aligning", len(stale)) as advance:
        for day in stale:
            _align_day(alignment, new, out, day, str(told["model_id"]))
            advance(note=str(day))
    return Summary(out, told, tuple(stale))


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds anything but an aligned table."""
    if out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise InputError(f"{out} has files that aren't an aligned table (no {ALIGNMENT_FILE}); give a new folder")


def _fit(new: Path, old: Path, out: Path, date: str | None) -> None:
    """Fit an alignment and keep it."""
    models = [read_definition(table)["model_id"] for table in (new, old)]
    if models[0] == models[1]:
        raise InputError(f"{new} and {old} have embeddings of the same model, {models[0]}: there is nothing to align")
    common = sorted(set(days_of(new)) & set(days_of(old)))
    days = [day for day in common if date is None or str(day) == date]
    if not days:
        found = f"they share {common[0]} to {common[-1]}" if common else "they share no day"
        raise InputError(
            f"{new} and {old} don't both have embeddings of {date or 'any day'}: {found}; embed one with both"
        )
    vectors, accounts = _in_common(partition_file(new, days[-1]), partition_file(old, days[-1]))
    is_held_out = np.arange(accounts) % HELD_OUT == HELD_OUT - 1
    if accounts < HELD_OUT:
        raise InputError(f"{new} and {old} have {accounts} accounts in common on {days[-1]}: too few to align")
    alignment = Alignment.fit(*(part[~is_held_out] for part in vectors))
    told = {
        "new_model": models[0],
        "old_model": models[1],
        "model_id": alignment.hash,
        "old_dim": int(vectors[1].shape[1]),
        "day": str(days[-1]),
        "num_fitted": int((~is_held_out).sum()),
        "num_held_out": int(is_held_out.sum()),
        "residual": alignment.residual(*(part[is_held_out] for part in vectors)),
        "residual_of_fit": alignment.residual(*(part[~is_held_out] for part in vectors)),
    }
    alignment.save(out / ALIGNMENT_FILE, told)


def _in_common(new: Path, old: Path) -> tuple[tuple[Vectors, Vectors], int]:
    """The embeddings of windows that two partitions have, or of some of them, evenly spaced."""
    keys = [_keys_of(file) for file in (new, old)]
    if keys[0].schema.field("entity_id").type != keys[1].schema.field("entity_id").type:
        raise InputError(f"entity_id is of another type in {new} than in {old}: both need the same minutes")
    numbered = [part.append_column(f"row_{i}", pa.array(np.arange(len(part)))) for i, part in enumerate(keys)]
    common = numbered[0].join(numbered[1], KEYS, join_type="inner").sort_by("row_0")
    some = evenly(len(common), MAX_ACCOUNTS)
    first, second = (read_chosen(file, common[f"row_{i}"].to_numpy()[some]) for i, file in enumerate((new, old)))
    return (first, second), len(some)


def _keys_of(partition: Path) -> pa.Table:
    with reading_partition(partition):
        return open_partition(partition).read(KEYS)


def _aligned_definition(new: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """As of any table, with a model of its own, and what it was made of."""
    return new | {"model_id": told["model_id"], "embedding_dim": told["old_dim"], "aligned": told}


def _is_up_to_date(new: Path, out: Path, day: Date) -> bool:
    """Whether a day was made of the partition that is there."""
    try:
        metadata = pq.read_schema(partition_file(out, day)).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return bool(metadata.get(MADE_OF) == _digest_of(partition_file(new, day)))


def _digest_of(partition: Path) -> bytes:
    with reading_partition(partition):
        return digest_of(partition).encode()


def _align_day(alignment: Alignment, new: Path, out: Path, day: Date, model_id: str) -> None:
    """Write a day, a row group in memory at a time."""
    source, target = partition_file(new, day), partition_file(out, day)
    target.parent.mkdir(parents=True, exist_ok=True)
    made_of = _digest_of(source)  # before it is read: what replaces it meanwhile is another one
    # Not in the partition's folder: a kill must leave nothing that looks like a table of another kind.
    with beside(out / f"{day}.parquet") as temporary, ExitStack() as stack:
        writer = None
        for rows in _row_groups(source):
            new_vectors = vectors_of(rows, source)
            if new_vectors.shape[1] != len(alignment.new_mean):
                raise InputError(
                    f"{source} has embeddings of {new_vectors.shape[1]} numbers, but the alignment is of "
                    f"{len(alignment.new_mean)}: embed that day again, or give another --out"
                )
            vectors = alignment.apply(new_vectors)
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            rows = rows.set_column(rows.schema.get_field_index("embedding"), "embedding", column)
            named = pa.array([model_id] * len(rows), pa.string())
            rows = rows.set_column(rows.schema.get_field_index("model_id"), "model_id", named)
            if writer is None:
                schema = rows.schema.with_metadata({MADE_OF: made_of})
                writer = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
            writer.write_table(rows.cast(schema), row_group_size=max(1, len(rows)))
        stack.close()
        move_into_place(temporary, target)


def _row_groups(file: Path) -> Iterator[pa.Table]:
    opened = open_partition(file)
    if opened.num_row_groups == 0:
        yield opened.read()
    for group in range(opened.num_row_groups):
        with reading_partition(file):
            rows = opened.read_row_group(group)
        yield rows
