"""Embeds on Spark's executors: each takes a run of bundles, and writes their embeddings beside the table."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infobehavior.data.minutes import MinuteTable
from infobehavior.data.moments import Moments
from infobehavior.embedding.bundles import Bundles
from infobehavior.embedding.encode import (
    MOMENTS_PER_SHARD,
    EmbeddedBundle,
    EmbeddedWindows,
    Fallbacks,
    FindBundle,
    embed_shard,
    runs_of_shard,
)
from infobehavior.embedding.made_by import made_by
from infobehavior.errors import InputError
from infobehavior.model.device import find_device
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.progress import progress
from infobehavior.spark import collected, hidden_folder, refuse_unseen, spark_context, tasks, then

if TYPE_CHECKING:
    from pyspark import SparkContext

MINUTES_PER_TASK = 2_000_000
"""About how many minutes with events a task reads at once, at least a bundle's."""

COLUMNS = ("embedding", "num_events", "num_minutes", "num_spans")
COUNTS = tuple(count.name for count in fields(Fallbacks))

logger = logging.getLogger("infobehavior")


@dataclass(frozen=True)
class Encoder:
    """What an executor encodes, and with what.

    Attributes:
        minutes: the table.
        folder: of the model.
        model_id: which must be there.
        device: where to encode.
        hidden: where to write what was encoded.
    """

    minutes: MinuteTable
    folder: Path
    model_id: str
    device: str
    hidden: Path


@dataclass(frozen=True)
class Run:
    """Bundles, one after the other, and their moments; `bundles` counts from the first of these."""

    moments: Moments
    bundles: Bundles

    @classmethod
    def of(cls, moments: Moments, bundles: Bundles) -> "Run":
        """Some bundles of all moments."""
        starts = bundles.starts - bundles.starts[0]
        return cls(moments.take(bundles.moments(0, len(bundles))), replace(bundles, starts=starts))

    def embedded(self, file: Path) -> EmbeddedWindows:
        """What an executor wrote of them."""
        with np.load(file, allow_pickle=False) as stored:
            bundles = [
                EmbeddedBundle(contents, int(num_moments), Fallbacks(*counts))
                for contents, num_moments, counts in zip(
                    self.bundles.contents, np.diff(self.bundles.starts), stored["fallbacks"].tolist(), strict=True
                )
            ]
            return EmbeddedWindows(self.moments, **{name: stored[name] for name in COLUMNS}, bundles=bundles)


@dataclass(frozen=True)
class Piece:
    """A run that was embedded.

    Attributes:
        file: where it is.
        made_by: see `made_by`.
    """

    file: Path
    made_by: str


@dataclass
class SparkEmbedding:
    """The embeddings of moments, made on executors.

    Attributes:
        context: of Spark.
        encoder: what executors need.
        makers: what made the embeddings, known when the first of them is there; see `made_by`.
    """

    context: "SparkContext"
    encoder: Encoder
    makers: set[str] = field(default_factory=set)

    def embed(
        self,
        model: InfoBehavior,
        moments: Moments,
        minutes_per_shard: int | None = None,
        find: FindBundle | None = None,
        with_contents: bool = False,
    ) -> Iterator[EmbeddedWindows]:
        """Embed the window of each moment, see `embed_moments`; bundles that are found aren't sent to executors."""
        minutes_per_task = minutes_per_shard or MINUTES_PER_TASK
        bundles = Bundles.of(self.encoder.minutes, moments, model.config.window_minutes, with_contents=with_contents)

        def runs() -> Iterator[Run | EmbeddedWindows]:
            for shard in bundles.shards(minutes_per_task, MOMENTS_PER_SHARD):
                part = bundles.take(shard)
                for run in runs_of_shard(moments, part, find):
                    yield Run.of(moments, part.take(run)) if isinstance(run, slice) else run

        with progress("embedding", len(moments)) as advance:
            pieces = iter(self._embed([run for run in runs() if isinstance(run, Run)]))
            for run in runs():
                embedded = run.embedded(next(pieces).file) if isinstance(run, Run) else run
                yield embedded
                advance(len(embedded.moments))

    def _embed(self, runs: list[Run]) -> list[Piece]:
        pieces: list[Piece] = []
        if runs:
            pieces = collected(then(tasks(self.context, runs), partial(embed_run, self.encoder)))
        self.makers = {piece.made_by for piece in pieces}
        return pieces

    def is_made_by(self, maker: str) -> bool:
        """Whether all were made as the driver would have made them, to the byte; logs where they weren't."""
        if self.makers <= {maker}:
            return True
        logger.warning(
            "the executors' machines aren't all like the driver's: last digits of the embeddings can differ from those "
            "of the engine duckdb, and a later run can't reuse them"
        )
        return False


@contextmanager
def spark_embedding(
    minutes: MinuteTable, model_folder: str | Path, model: InfoBehavior, out: Path, device: str, master: str | None
) -> Iterator[SparkEmbedding]:
    """Ready executors to embed; what they write is gone afterwards.

    Args:
        minutes: the table.
        model_folder: of the model.
        model: what was found there.
        out: folder of the table of embeddings.
        device: where to encode.
        master: see `spark_context`.
    """
    there = replace(minutes, path=minutes.path.absolute())
    with spark_context(master) as context, hidden_folder(out) as hidden:
        yield SparkEmbedding(context, Encoder(there, Path(model_folder).absolute(), model.model_id, device, hidden))


def embed_run(encoder: Encoder, items: Iterator[Any]) -> Iterator[Piece]:
    """Embed runs, on an executor. Each attempt writes a file of its own, so several of them do no harm."""
    refuse_unseen(encoder.hidden)
    for run in items:
        model, maker = _model(encoder.folder, encoder.model_id, encoder.device)
        embedded = embed_shard(encoder.minutes, model, run.moments, run.bundles, None)
        file = encoder.hidden / f"{uuid.uuid4().hex}.npz"
        counts = [[getattr(bundle.fallbacks, name) for name in COUNTS] for bundle in embedded.bundles]
        np.savez(file, **{name: getattr(embedded, name) for name in COLUMNS}, fallbacks=np.array(counts, np.int64))
        yield Piece(file, maker)


@lru_cache(maxsize=1)
def _model(folder: Path, model_id: str, device: str) -> tuple[InfoBehavior, str]:
    """The model, loaded once a process, and what it makes here, see `made_by`."""
    model = InfoBehavior.from_pretrained(folder)
    if model.model_id != model_id:
        raise InputError(f"executors find model {model.model_id} in {folder}, the driver found {model_id}")
    model.eval().to(find_device(device))
    return model, made_by(model)
