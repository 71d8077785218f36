"""`fuse train` and `fuse predict`: from examples to a fused classifier, and to its predictions (4.3, 4.4.2)."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infobehavior.artefacts import DEFINITION_FILE, unfinished, write_json, writing
from infobehavior.downstream.metrics import best_f1_threshold
from infobehavior.errors import InputError, refusing_long_paths
from infobehavior.fusion.classifier import FusionClassifier, rows_of
from infobehavior.fusion.config import FusionConfig, Validation, read_fusion_config
from infobehavior.fusion.examples import (
    OF_ALL,
    OUTSIDE,
    READ,
    USED,
    Examples,
    Period,
    days_of_examples,
    read_examples,
    with_tables,
    without_groups,
    without_missing_groups,
)
from infobehavior.fusion.features import GroupArray
from infobehavior.fusion.joining import Ages, age_lines, ages_in_days, no_match
from infobehavior.fusion.missing import GroupCounts, added, reasons, warnings_of
from infobehavior.fusion.model_folder import LAYOUT, FusedModel, load_model
from infobehavior.fusion.operating_point import choose_threshold
from infobehavior.fusion.packing import FUSION, GBDT
from infobehavior.fusion.parts import Parts, numbered, split_by_entity
from infobehavior.fusion.predictions import check_predictions, definition, write_day
from infobehavior.fusion.spaces import embedding_spaces, refuse_other_spaces, unknown_spaces
from infobehavior.fusion.zones import date_lines
from infobehavior.progress import progress


@dataclass(frozen=True)
class TrainSummary:
    """What `fuse_train` did.

    Attributes:
        out: folder of the model.
        model: what is in it.
        counts: examples, by what became of them.
        warnings: lines on what was joined.
    """

    out: Path
    model: FusedModel
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        """Whether the fusion network reaches the precision that is required."""
        return self.model.points[FUSION].is_met

    @property
    def not_met_line(self) -> str:
        """What to say if it doesn't."""
        return f"{self.model.points[FUSION].line}; the model is written nevertheless"

    def lines(self) -> list[str]:
        """For the terminal."""
        report = self.model.report
        return [
            *(f"{count} {reason}" for reason, count in self.counts.items()),
            *(f"{count} {reason}" for reason, count in reasons(self.model.trained_groups).items()),
            *age_lines(report["ages"]),
            *self.warnings,
            trained_positive_line(self.model),
            f"{report['num_training']} trained on, {report['num_validation']} for validation; "
            f"{report['num_epochs']} epochs, the best is number {report['best_epoch'] + 1}",
            *self._uncalibrated(),
            f"fusion network: {self.model.points[FUSION].line}",
            f"LightGBM on the same groups: {self.model.points[GBDT].line}",
            f"model: {self.out}",
        ]

    def _uncalibrated(self) -> list[str]:
        """A line for each classifier whose scores couldn't be made probabilities."""
        classifier, wanted = self.model.classifier, self.model.config.network.calibration
        used = {"fusion network": classifier.calibration_, "LightGBM": classifier.gbdt_.calibration}
        return [
            f"{name}: scores are as they came, since on the validation part higher ones aren't more often right"
            for name, calibration in used.items()
            if calibration.method != wanted
        ]


def positive_line(label: str, classes: Sequence[str], num_positives: int, num_examples: int) -> str:
    """Says which class is looked for, and how many there are."""
    return f"positive: {label} = {classes[1]}, {num_positives} of {num_examples}"


def trained_positive_line(model: FusedModel) -> str:
    """Of the examples that a model was trained on, the validation part among them."""
    report = model.report
    num_positives, num_examples = (
        report[f"num_training{what}"] + report[f"num_validation{what}"] for what in ("_positives", "")
    )
    return positive_line(model.config.examples.label, model.classes, num_positives, num_examples)


@refusing_long_paths()
def fuse_train(
    examples: str | Path,
    config: FusionConfig | str | Path,
    out: str | Path,
    *,
    since: str | None = None,
    until: str | None = None,
) -> TrainSummary:
    """Train a fused classifier, and LightGBM on the same groups, and choose an operating point for both.

    A part of the examples is not learnt from: it tells when to stop, what scores mean as probabilities, and which
    threshold does what is required. What that is worth on other examples, `fuse_evaluate` measures.

    Args:
        examples: Parquet or CSV: a file, a glob, a folder.
        config: groups of columns, network and operating point, or a TOML file of them.
        out: folder of the model.
        since: first local day of the examples' moments.
        until: last local day.

    Raises:
        InputError: something can't be read or written, or the examples don't suffice.
    """
    resolved = config if isinstance(config, FusionConfig) else read_fusion_config(Path(config))
    LAYOUT.check(Path(out))
    spaces = embedding_spaces(resolved.groups)
    read = read_examples(examples, resolved, labelled=True, period=Period(since, until))
    assert read.positive is not None
    for name, of in read.ages.items():
        if len(of) == 0:
            raise InputError(f"{examples}: {no_match(read.keys, resolved.groups[name], name, resolved.examples.zone)}")
    with faults_of(examples):
        parts = split(read, resolved.validation, resolved.network.seed)
    classifier = FusionClassifier(resolved.groups, resolved.network, gbdt=True)
    held_out, positive = rows_of(read.tables, parts.validation), read.positive[parts.validation]
    with faults_of(examples):
        classifier.fit_tables(read.tables, read.positive, parts)
        scores = probabilities(classifier, classifier.arrays(held_out))
    entity = entity_numbers(read)[parts.validation]
    model = FusedModel(
        resolved,
        classifier,
        {name: choose_threshold(positive, of, resolved.operating_point, entity) for name, of in scores.items()},
        {name: best_f1_threshold(positive, of) for name, of in scores.items()},
        read.classes,
        spaces,
        np.unique(example_numbers(read)),
        np.unique(account_numbers(read)),
        _report(read, parts, classifier),
    )
    model.save(Path(out))
    return TrainSummary(Path(out), model, read.counts, tuple(_lines_of_tables(resolved, spaces)))


@contextmanager
def faults_of(examples: str | Path) -> Iterator[None]:
    """What is wrong with columns is wrong with those of a table."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{examples}: {error}") from None


def probabilities(classifier: FusionClassifier, arrays: Mapping[str, GroupArray]) -> dict[str, NDArray[np.float64]]:
    """Of the network, and of LightGBM where it was trained, for the same examples."""
    of_trees = {GBDT: classifier.gbdt_probability_of(arrays)} if classifier.gbdt else {}
    return {FUSION: classifier.probability_of(arrays), **of_trees}


def split(examples: Examples, validation: Validation, seed: int) -> Parts:
    """Training and validation part.

    By entity, see `split_by_entity`; examples without one stand for themselves. By moment: the last examples.

    Raises:
        InputError: all positive examples are of one entity.
    """
    assert examples.positive is not None
    if validation.by == "moment":
        first = np.quantile(examples.keys.moment, 1 - validation.share, method="higher")
        is_last = examples.keys.moment >= first
        return Parts(~is_last, is_last)
    return split_by_entity(entity_numbers(examples), examples.positive, validation.share, seed)


def entity_numbers(examples: Examples) -> NDArray[np.int64]:
    """Equal numbers for examples of one entity; an example without one has its own."""
    return numbered(examples.keys.entity)


def example_numbers(examples: Examples) -> NDArray[np.uint64]:
    """A number for each example, of its entity, moment and id: it tells those that a model was trained on."""
    columns = [examples.keys.entity.to_pylist(), examples.keys.moment.tolist()]
    columns += [_as_texts(examples.ids[name]) for name in examples.ids.column_names]
    return _numbers(zip(*columns, strict=True))


def _as_texts(column: pa.ChunkedArray) -> list[str | None]:
    """A CSV and a Parquet file may have other types for the same ids."""
    return [None if value is None else str(value) for value in column.to_pylist()]


def account_numbers(examples: Examples) -> NDArray[np.uint64]:
    """A number for each example, of its entity alone: it tells accounts that a model was trained on."""
    return _numbers([(name,) for name in examples.keys.entity.to_pylist()])


def _numbers(rows: Iterable[tuple[Any, ...]]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(repr(row).encode(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _report(examples: Examples, parts: Parts, classifier: FusionClassifier) -> dict[str, Any]:
    assert examples.positive is not None
    return {
        "num_training": int(parts.training.sum()),
        "num_training_positives": int(examples.positive[parts.training].sum()),
        "num_validation": int(parts.validation.sum()),
        "num_validation_positives": int(examples.positive[parts.validation].sum()),
        "num_epochs": len(classifier.losses_),
        "best_epoch": classifier.best_epoch_,
        "losses": [list(pair) for pair in classifier.losses_],
        "num_trees": classifier.gbdt_.booster.num_trees(),
        "counts": examples.counts,
        "groups": {name: vars(of) for name, of in classifier.counts_.items()},
        "ages": ages_in_days(examples.ages),
        "last_moment": int(examples.keys.moment.max()),
    }


@dataclass(frozen=True)
class PredictSummary:
    """What `fuse_predict` did.

    Attributes:
        out: folder of the table.
        days: that were written.
        num_examples: predictions.
        num_flagged: of them, those that reach the threshold.
        counts: examples, by what became of them.
        groups: what of each was missing.
        ages: of the rows that were joined, by group: median and largest, in days.
        model: that predicted.
        warnings: lines on the table and on what was joined.
    """

    out: Path
    days: tuple[date, ...]
    num_examples: int
    num_flagged: int
    counts: dict[str, int]
    groups: dict[str, GroupCounts]
    ages: dict[str, dict[str, float]]
    model: FusedModel
    warnings: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        """Whether the model reached the precision that is required; if not, nothing is flagged."""
        return self.model.points[FUSION].is_met

    @property
    def not_met_line(self) -> str:
        """What to say if it didn't."""
        return f"{self.model.points[FUSION].line}; the predictions are written nevertheless"

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            *(f"{count} {reason}" for reason, count in self.counts.items()),
            f"{trained_positive_line(self.model)} in training",
            *(f"{count} {reason}" for reason, count in reasons(self.groups).items()),
            *age_lines(self.ages, self.model.report["ages"]),
            *warnings_of(self.groups, self.model.trained_groups),
            *self.warnings,
            f"fusion network: {self.model.points[FUSION].line}",
            f"{self.num_examples} predictions, {self.num_flagged} flagged, {len(self.days)} days: {self.out}",
        ]


@refusing_long_paths()
def fuse_predict(
    examples: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    since: str | None = None,
    until: str | None = None,
    tables: Mapping[str, str | Path] | None = None,
    without: Collection[str] = (),
) -> PredictSummary:
    """Write predictions, a partition for each local day of the examples' moments; a day that is there is replaced.

    A group none of whose columns is there is masked, and counted.

    Args:
        examples: as for training, but without labels; a day of them is in memory at a time.
        model: folder of a fused classifier.
        out: folder of the table.
        since: first local day of the examples' moments.
        until: last local day.
        tables: other tables for groups that are joined, by name of the group.
        without: groups to mask, such as one whose table isn't there tonight.

    Raises:
        InputError: something can't be read or written, or doesn't fit the model.
    """
    out = Path(out)
    fused, config, warnings = open_model(model, tables, without)
    described = definition(
        fused.model_id, config.examples.id, config.examples.label, fused.classes[1], fused.points[FUSION]
    )
    check_predictions(out, described)
    period = Period(since, until)
    config = without_missing_groups(examples, config)
    days = days_of_examples(examples, config, period)
    if not days:
        raise InputError(f"{examples} has no example of the days asked for ({since or 'any'} to {until or 'any'})")
    counts: dict[str, int] = {}
    groups: dict[str, GroupCounts] = {}
    ages: dict[str, list[Ages]] = {}
    num_flagged = 0
    with _marked(out, fused.model_id, days), progress("predicting", len(days)) as advance:
        write_json(out / DEFINITION_FILE, described)
        for day in days:
            rows, of_groups, of_day = _predicted(examples, config, fused, day, counts)
            groups = added(groups, of_groups)
            ages = {name: [*ages.get(name, []), of] for name, of in of_day.items()}
            write_day(out, day, rows)
            num_flagged += int(np.count_nonzero(rows["is_flagged"].to_numpy(zero_copy_only=False)))
            advance(note=str(day))
    outside = counts[READ] - counts[USED] - sum(counts.get(reason, 0) for reason in OF_ALL if reason != READ)
    counts |= {OUTSIDE: outside} if outside else {}
    in_days = ages_in_days({name: np.concatenate(of) for name, of in ages.items()})
    told = (*warnings, *_warnings_of_table(out))
    return PredictSummary(out, tuple(days), counts[USED], num_flagged, counts, groups, in_days, fused, told)


def _marked(out: Path, model_id: str, days: Sequence[date]) -> AbstractContextManager[None]:
    """Marks a table in which several days are written as unfinished; one day is written at once, and needs no mark.

    The mark of an interrupted run is taken over by one that writes its days too: examples of later days may have come
    meanwhile.
    """
    several = f"predictions of model {model_id} for {days[0]} to {days[-1]}"
    return writing(out, several, days=days) if len(days) > 1 else nullcontext()


def _warnings_of_table(out: Path) -> list[str]:
    """A day is written whatever became of others, but who reads the table is refused as long as those are missing."""
    left = unfinished(out)
    if left is None:
        return []
    return [f"warning: {out} can't be read yet: {left} is still running or was interrupted; run that again"]


def open_model(
    model: str | Path, tables: Mapping[str, str | Path] | None, without: Collection[str]
) -> tuple[FusedModel, FusionConfig, list[str]]:
    """A model, its configuration with other tables for groups that are joined and without some groups, and warnings.

    Raises:
        InputError: it can't be read, or a table's embeddings are in another space than those of the training.
    """
    fused = load_model(model)
    config = with_tables(fused.config, {name: Path(table) for name, table in (tables or {}).items()})
    config = without_groups(config, without)
    spaces = embedding_spaces(config.groups, is_trained=True)
    refuse_other_spaces(config.groups, spaces, fused.spaces)
    return fused, config, _lines_of_tables(config, spaces, fused.spaces)


def _lines_of_tables(config: FusionConfig, *known_spaces: Mapping[str, str]) -> list[str]:
    """What is told of joined tables: whose embeddings nobody knows, and whose moments are days."""
    return [*unknown_spaces(config.groups, *known_spaces), *date_lines(config.groups, config.examples.zone)]


def _predicted(
    path: str | Path,
    config: FusionConfig,
    fused: FusedModel,
    day: date,
    counts: dict[str, int],
) -> tuple[pa.Table, dict[str, GroupCounts], dict[str, Ages]]:
    """The rows of a day, what of groups is missing in them, and how old what was joined is.

    What became of its examples is added to the counts.
    """
    read = read_examples(path, config, labelled=False, period=Period(day.isoformat(), day.isoformat()))
    with faults_of(path):
        arrays = fused.classifier.arrays(read.tables)
        groups = fused.classifier.counted(arrays, read.tables)
    probability = fused.classifier.probability_of(arrays)
    _add_counts(counts, read.counts)
    columns = {name: read.ids[name] for name in read.ids.column_names}
    ours = {
        "entity_id": read.keys.entity,
        "as_of": pa.array(read.keys.moment, pa.timestamp("us", "UTC")),
        "probability": pa.array(probability),
        "is_flagged": pa.array(probability >= fused.points[FUSION].threshold),
        "model_id": pa.array([fused.model_id] * len(read), pa.string()),
    }
    return pa.table(columns | ours), groups, read.ages


def _add_counts(total: dict[str, int], counts: Mapping[str, int]) -> None:
    """What is told of all examples each time stands; what is told of a day's is added up."""
    total |= {reason: count for reason, count in counts.items() if reason in OF_ALL}
    _add(total, {reason: count for reason, count in counts.items() if reason not in (*OF_ALL, OUTSIDE)})


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for reason, count in counts.items():
        total[reason] = total.get(reason, 0) + count
