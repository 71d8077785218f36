"""The offline evaluation (section 4.2): learn from two months without labels, judge by the third."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from infobehavior.artefacts import (
    DEFINITION_FILE,
    UNFINISHED_FILE,
    definition_hash,
    is_simulated,
    write_atomically,
)
from infobehavior.data.clock import local_date
from infobehavior.data.minutes import MinuteTable, hash_of_day, open_minutes
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE, end_of_day
from infobehavior.data.store import entities_of
from infobehavior.data.tables import read_table
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.downstream.cross_validation import cross_validate, make_folds
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.downstream.labels import read_labels
from infobehavior.downstream.manual_features import as_matrix, manual_features
from infobehavior.downstream.metrics import clustering_nmi, kind_metrics
from infobehavior.embedding.embed import embed
from infobehavior.errors import InputError
from infobehavior.experiments.folder import mark_folder, refuse_foreign_folder
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.count_accuracy import Accuracy, count_accuracy
from infobehavior.pretraining.pretrain import pretrain

TEST_PARTS = 5
"""A fifth is for testing (4.2.1)."""

UNSEEN_SHARE = 0.02
"""Of those who are judged, so many take no part in pre-training: the count tasks are tried on them (4.2.5)."""

CLUSTERS = "clusters"

Scores = dict[str, float]
"""Metrics by name; those of one kind of positives are named `auc[kind]`."""


@dataclass(frozen=True)
class OfflineData:
    """The third month, and who is judged by it.

    Attributes:
        minutes: all minutes.
        folder: for everything that is made on the way.
        until: last local day of the third month.
        trained_until: last local day of the two months before.
        window_minutes: length of a month.
        windows: `entity_id` and `as_of` of those accounts with a label and events in the third month, by entity.
        positive: True for the positive class.
        kind: of each account; None if nothing is told of kinds.
        unseen: entities that take no part in pre-training.
        num_silent: labelled accounts without events in the third month, which are left out.
        num_left_out: negatives left out by `max_negatives`.
        simulated: whether minutes, labels or kinds lie in the folder of a simulated market.
    """

    minutes: MinuteTable
    folder: Path
    until: date
    trained_until: date
    window_minutes: int
    windows: pa.Table
    positive: NDArray[np.bool_]
    kind: NDArray[np.str_] | None
    unseen: NDArray[Any]
    num_silent: int
    num_left_out: int
    simulated: bool

    @cached_property
    def manual(self) -> NDArray[np.float64]:
        """The hand-made features of the third month, which no seed changes."""
        return as_matrix(manual_features(self.minutes, self.windows, self.window_minutes))

    @cached_property
    def hash(self) -> str:
        """Names the accounts, their months, labels and kinds."""
        kinds = None if self.kind is None else self.kind.tolist()
        return definition_hash([self.asked, self.window_minutes, self.positive.tolist(), kinds])

    @cached_property
    def asked(self) -> str:
        """Names the accounts that are judged, the moment, and all minutes up to it."""
        return definition_hash([self.windows["entity_id"].to_pylist(), str(self.until), self.minutes_up_to(self.until)])

    def minutes_up_to(self, day: date) -> str:
        """Names the minutes up to a day by their schema and contents: after a correction of the log they are others."""
        contents = [[str(one), found] for one, found in self.contents.items() if one <= day]
        return definition_hash([self.minutes.hash, contents])

    @cached_property
    def learnt(self) -> str:
        """Names what an encoder may learn from: the minutes of the months before, without the unseen accounts."""
        return definition_hash([self.minutes_up_to(self.trained_until), str(self.trained_until), self.unseen.tolist()])

    @property
    def evaluated_file(self) -> Path:
        """The table of `windows`; of other accounts it has another name, so that runs beside it can go on."""
        return self.folder / f"evaluated-{self.asked}.parquet"

    @property
    def unseen_file(self) -> Path:
        """The table that keeps the unseen accounts out of the pre-training."""
        return self.folder / f"unseen-{self.learnt}.parquet"

    def write_tables(self) -> None:
        """Write the tables that `pretrain` and `embed` are given."""
        before_all = pa.array(np.zeros(len(self.unseen), np.int64), pa.timestamp("us", "UTC"))
        never = pa.table({"entity_id": pa.array(self.unseen, self.windows["entity_id"].type), "as_of": before_all})
        write_atomically(self.evaluated_file, partial(pq.write_table, self.windows))
        write_atomically(self.unseen_file, partial(pq.write_table, never))

    @cached_property
    def contents(self) -> dict[date, str]:
        """What tells the minutes of a day from others, of each up to the last one that is looked at."""
        return {day: hash_of_day(self.minutes, day) for day in self.minutes.days if day <= self.until}

    def lines(self) -> list[str]:
        """What is judged, for the terminal."""
        told = "simulated: " if self.simulated else ""
        num_days = (self.trained_until - self.minutes.days[0]).days + 1
        return [
            f"{told}{len(self.positive):,} accounts, {int(self.positive.sum()):,} of them positive, judged by the "
            f"{self.window_minutes // 1_440} days up to {self.until}; the encoders learn from the {num_days:,} days up "
            f"to {self.trained_until}",
            f"left out: {self.num_silent:,} labelled accounts without events then, {self.num_left_out:,} negatives "
            "that weren't drawn",
        ]


def read_offline_data(
    minutes: str | Path,
    labels: str | Path,
    label: str,
    folder: str | Path,
    *,
    window_days: int = 30,
    until: str | date | None = None,
    max_negatives: int | None = None,
    kinds: str | Path | None = None,
) -> OfflineData:
    """Settle who is judged by which month.

    Args:
        minutes: folder of minutes, of three months: the third judges. Encoders learn from what lies before it: with
            `pairs = "latest"` from the last two months, with "anywhere" and "any_day" from all there is.
        labels: table of `entity_id` and the label, see `read_labels`; without `as_of`, since all are judged at once.
        label: the label's column.
        folder: for everything that is made on the way.
        window_days: length of a month.
        until: last local day of the third month; by default the last one there is.
        max_negatives: draw so many negatives at random (seed 0), as the paper does (4.2.1).
        kinds: table of `entity_id` and `kind`, to tell which kinds of positives are found.

    Raises:
        InputError: these parts don't belong together, or `folder` can't be written or holds something else.
    """
    table, folder = open_minutes(minutes), Path(folder)
    refuse_foreign_folder(folder)
    zone = table.schema.time.time_zone
    column = read_labels(Path(labels), label, None, zone)
    if column.has_as_of:
        raise InputError(f"{labels} has a column as_of, but here all accounts are judged at one moment; leave it out")
    end, window_minutes = end_of_day(until or table.days[-1], table.schema), window_days * 1_440
    last_day = local_date(end - 1, zone)
    trained_until = last_day - timedelta(days=window_days)
    if not any(day <= trained_until for day in table.days):
        raise InputError(f"{minutes} has no day up to {trained_until} to learn from; it begins {table.days[0]}")
    entities, _ = entities_of(table, end, first_minute=end - window_minutes)
    if len(entities) == 0:
        raise InputError(
            f"until is {last_day}, and {minutes} has no events in the {window_days} days up to it; expected a day with "
            f"events in those up to it, such as the last one, {table.days[-1]}"
        )
    active = pa.table({"entity_id": pa.array(entities), "entity": pa.array(entities).cast(pa.string())})
    labelled = column.table.filter(pc.and_(pc.is_valid(column.table["positive"]), pc.is_valid(column.table["entity"])))
    found = active.join(labelled.select(["entity", "positive"]), "entity", join_type="inner", use_threads=False)
    found = found.sort_by("entity_id")
    if len(found) > len(pc.unique(found["entity"])):
        raise InputError(f"{column.description} has several labels of one entity; keep one")
    if len(found) == 0:
        raise InputError(
            f"{column.description} matches none of {len(entities):,} entities with events in the {window_days} days up "
            f"to {last_day}"
        )
    positive = found["positive"].to_numpy(zero_copy_only=False).astype(np.bool_)
    drawn = _drawn(positive, max_negatives)
    make_folds(positive[drawn], None, TEST_PARTS, seed=0)  # refuses too few labels before anything is learnt
    kind = None if kinds is None else _kinds(Path(kinds), found["entity"].take(drawn))
    windows = pa.table(
        {
            "entity_id": found["entity_id"].take(drawn),
            "as_of": pa.array(np.full(len(drawn), end * MICROSECONDS_PER_MINUTE), pa.timestamp("us", "UTC")),
        }
    )
    is_unseen = np.random.default_rng(1).random(len(windows)) < UNSEEN_SHARE
    data = OfflineData(
        table,
        folder,
        last_day,
        trained_until,
        window_minutes,
        windows,
        positive[drawn],
        kind,
        windows["entity_id"].to_numpy()[is_unseen],
        len(labelled) - len(found),
        len(found) - len(drawn),
        is_simulated(minutes, labels, *([] if kinds is None else [kinds])),
    )
    mark_folder(folder)
    data.write_tables()
    return data


def _drawn(positive: NDArray[np.bool_], max_negatives: int | None) -> NDArray[np.intp]:
    """All positives and some negatives, in order."""
    negatives = np.flatnonzero(~positive)
    if max_negatives is not None and max_negatives < len(negatives):
        negatives = np.random.default_rng(0).choice(negatives, max_negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(positive), negatives]))


def _kinds(path: Path, entity: pa.ChunkedArray) -> NDArray[np.str_]:
    """The kind of each entity, "" where the table doesn't tell."""
    table = read_table(path)
    if missing := [name for name in ("entity_id", "kind") if name not in table.column_names]:
        raise InputError(f"{path} has no column {missing[0]!r}; it has {', '.join(table.column_names)}")
    known = table["entity_id"].cast(pa.string()).combine_chunks()
    counts = pc.value_counts(known.drop_null())
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise InputError(
            f"{path} has several rows of {len(repeated):,} entities, such as {repeated[0]}; keep one kind of each"
        )
    place = pc.index_in(entity, known)
    return np.array(table["kind"].cast(pa.string()).take(place).fill_null("").to_pylist())


def representation(data: OfflineData, config: PretrainConfig) -> NDArray[np.float32]:
    """Learn an encoder from the two months, and represent the third month of those who are judged.

    What an earlier run made of the same minutes, accounts and configuration is used again.

    Args:
        data: the months.
        config: how to learn.
    """
    folder = _model_folder(data, config)
    model = pretrain(
        data.minutes.path,
        folder,
        config=config,
        resume=True,
        until=str(data.trained_until),
        as_of=data.unseen_file if len(data.unseen) else None,
    )
    out = data.folder / "embeddings" / definition_hash([folder.name, model.model_id, data.asked])
    if not (out / DEFINITION_FILE).exists() or (out / UNFINISHED_FILE).exists():
        embed(data.minutes.path, folder, out, as_of=data.evaluated_file, device=config.device)
    embedded = read_embeddings(out)
    if not embedded.windows["entity_id"].equals(data.windows["entity_id"]):
        raise InputError(f"{out} has embeddings of other accounts than those that are judged; remove it and run again")
    return embedded.vectors


def _model_folder(data: OfflineData, config: PretrainConfig) -> Path:
    """Named by whatever decides the training, so that a run on other data, which needs another model, is no trouble."""
    return data.folder / "models" / definition_hash([data.learnt, config.model_dump(mode="json")])


def tried_counts(data: OfflineData, config: PretrainConfig) -> list[Accuracy]:
    """How often the count tasks of a representation are right, on the third month of accounts it has never seen."""
    return count_accuracy(_model_folder(data, config), data.minutes.path, data.unseen, str(data.until))


def judge(
    features: NDArray[np.floating],
    positive: NDArray[np.bool_],
    seed: int,
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    kind: NDArray[np.str_] | None = None,
) -> dict[str, Scores]:
    """Train classifiers on four fifths, test them on the last fifth; and cluster without any.

    Args:
        features: fixed, one row an account.
        positive: True for the positive class.
        seed: of the split, the classifiers and the clusters.
        classifiers: which ones.
        kind: of each account; if given, there is an AUC of each kind of positives against all negatives.

    Returns:
        The metrics of each classifier, and of `CLUSTERS` the NMI at 1:20.
    """
    fold = make_folds(positive, None, TEST_PARTS, seed)[0]
    numbers: NDArray[np.float64] = features.astype(np.float64)
    scores: dict[str, Scores] = {}
    # One thread: a sum over several is not the same from run to run.
    with threadpool_limits(1):
        for name in classifiers:
            found = cross_validate(numbers, positive, [fold], CLASSIFIERS[name], seed=seed)
            scores[name] = dict(found.metrics[0])
            if kind is not None:
                scores[name] |= kind_metrics(positive[fold.test], found.scores[fold.test], kind[fold.test])
        scores[CLUSTERS] = {"nmi": clustering_nmi(numbers, positive, seed, exactly=True)[0]}
    return scores
