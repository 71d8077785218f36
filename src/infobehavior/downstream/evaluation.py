"""`evaluate`: do the embeddings find what hand-made features find, and do they add to them? (section 4.2)"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from infobehavior.artefacts import (
    DEFINITION_FILE,
    TRAINING_LOG,
    as_json,
    is_simulated,
    read_json,
    refuse_unwritable,
    simulated_lines,
    write_together,
)
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.downstream.charts import ReportContent, read_training_log
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.downstream.cross_validation import OVERSAMPLE, CrossValidated, cross_validate, make_folds
from infobehavior.downstream.embeddings import Embeddings, read_embeddings
from infobehavior.downstream.labels import (
    LabelledWindows,
    join_labels,
    read_labels,
)
from infobehavior.downstream.manual_features import as_matrix, manual_features, window_counts
from infobehavior.downstream.metrics import MOST_SEED, clustering_nmi
from infobehavior.downstream.report import headline, report_page
from infobehavior.errors import InputError
from infobehavior.progress import progress

KIND = "evaluation"
FEATURE_SETS = ("manual", "infobehavior", "both")
SEEN_LATER = "windows that end before the encoder's training did (it may have seen later events, never labels)"
METRICS = ("auc", "average_precision", "recall_at_precision_95", "recall_at_precision_50", "f1")


@dataclass(frozen=True)
class Results:
    """All that was computed.

    Attributes:
        rows: the content of ``metrics.json``.
        cross_validated: by feature set and classifier.
        manual: the hand-made features, with their names.
    """

    rows: list[dict[str, Any]]
    cross_validated: dict[tuple[str, str], CrossValidated]
    manual: pa.Table


def evaluate(
    embeddings: str | Path,
    labels: str | Path,
    label: str,
    minutes: str | Path,
    out: str | Path,
    *,
    group: str | None = None,
    date: str | date | None = None,
    folds: int = 5,
    seed: int = 0,
    oversample: int = OVERSAMPLE,
) -> list[dict[str, Any]]:
    """Compare embeddings with hand-made features of the same windows, and with both together.

    Three classifiers on three feature sets, each cross-validated with the same folds. What is chosen (penalties,
    numbers of trees and epochs, the threshold of F1) is chosen on a fifth of the training fold that is held out, by
    the same rule for all feature sets; then the classifier is trained again on the whole training fold.

    The paper "over-samples the positive samples by duplicating the positive data points for 4 times" (4.2.3). We read
    it as: each positive is there 4 times. Weights of 4 stand in for the copies, in training and choosing only.

    Args:
        embeddings: folder of embeddings.
        labels: Parquet or CSV with `entity_id`, the label and, if present, `as_of` (see `read_labels`).
        label: the label's column.
        minutes: the minutes that the embeddings were made from.
        out: folder for ``metrics.json``, ``report.html`` and ``_definition.json``.
        group: column whose equal values stay on one side of each split, such as the person behind accounts.
        date: evaluate only the embeddings of this day (``ds=``).
        folds: of the cross-validation.
        seed: of folds and classifiers, 0 to 2**32 - 1.
        oversample: in how many copies a positive counts in training; 1 turns it off.

    Returns:
        The rows of ``metrics.json``: one per feature set and classifier; metrics are means over folds, and
        ``<metric>_std`` is their standard deviation over folds (``nmi_std``: over seeds), that of a sample (n - 1).

    Raises:
        InputError: the inputs don't belong together, the label is of no use, or `out` can't be written.
    """
    if oversample < 1:
        raise InputError(f"oversample must be 1 or more, got {oversample}")
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed must be from 0 to {MOST_SEED}, got {seed}")
    check_out(Path(out))
    table = open_minutes(minutes)
    embedded = read_embeddings(Path(embeddings), date)
    _check_same_minutes(embedded, table)
    column = read_labels(Path(labels), label, group, table.schema.time.time_zone)
    data = join_labels(embedded, column, group)
    _check_counts(embedded, table, data.windows)
    settings: dict[str, Any] = {"folds": folds, "seed": seed, "oversample": oversample, "label": label, "group": group}
    settings["simulated"] = is_simulated(embeddings, labels, minutes)
    definition = _definition(embedded, Path(labels), data, settings)
    log = read_training_log(embedded.path / TRAINING_LOG)
    # One thread: a sum over several is not the same from run to run, and their pools fight over the cores.
    with threadpool_limits(1):
        results = _results(data, table, _window_minutes(embedded), folds=folds, seed=seed, oversample=oversample)
        _write(Path(out), data, results, definition, log)
    return results.rows


def metric_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows of ``metrics.json`` as an aligned table for the terminal."""
    titles = ["features", "classifier", "AUC", "AP", "recall at 95 %", "recall at 50 %", "F1", "NMI"]
    table = [titles]
    for row in rows:
        metrics = (f"{row[name]:.3f} ± {row[name + '_std']:.3f}" for name in (*METRICS, "nmi"))
        table.append([row["features"], row["classifier"], *metrics])
    widths = [max(len(line[column]) for line in table) for column in range(len(titles))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def summary_lines(out: str | Path) -> list[str]:
    """What an evaluation found, and what it left out, for the terminal.

    Args:
        out: the folder that `evaluate` wrote.

    Raises:
        InputError: it isn't one.
    """
    definition = read_json(Path(out) / DEFINITION_FILE, "the folder of an evaluation")
    classes = "positive: {label} = {positive_class}, negative: {label} = {negative_class}".format(**definition)
    counts = (f"{count} {reason}" for reason, count in definition["counts"].items())
    return [*simulated_lines(definition), *definition["headline"], classes, *counts]


def check_out(out: Path, kind: str = KIND) -> None:
    """Refuse a folder that can't be written, or that holds something else than an evaluation of a kind.

    Raises:
        InputError: see above.
    """
    refuse_unwritable(out, "an evaluation")
    if (out / DEFINITION_FILE).exists():
        there = read_json(out / DEFINITION_FILE, "the folder of an evaluation")
        found = there.get("kind") if isinstance(there, dict) else None
        if found != kind:
            raise InputError(f"{out} holds {found or 'something else'}, not an {kind}; choose another --out")


def _check_same_minutes(embeddings: Embeddings, minutes: MinuteTable) -> None:
    recorded = embeddings.definition.get("minutes_hash")
    if recorded != minutes.hash:
        raise InputError(
            f"{embeddings.path} was made from minutes of definition {recorded}, but {minutes.path} has definition "
            f"{minutes.hash}; give the minutes that the embeddings were made from"
        )


def _check_counts(embeddings: Embeddings, minutes: MinuteTable, windows: pa.Table) -> None:
    """Another log may have the same schema: its windows hold other events."""
    found = window_counts(minutes, windows, _window_minutes(embeddings))
    names = found.column_names
    is_other = np.any([found[name].to_numpy() != windows[name].to_numpy() for name in names], axis=0)
    if is_other.any():
        row = int(np.argmax(is_other))
        was, now = ("{} events in {} minutes".format(*(table[n][row] for n in names)) for table in (windows, found))
        raise InputError(
            f"entity {windows['entity_id'][row]} had {was} when it was embedded, but has {now} in {minutes.path}: the "
            "minutes are not those that were embedded, or days are missing"
        )


def _window_minutes(embeddings: Embeddings) -> int:
    window_minutes = embeddings.definition.get("window_minutes")
    if not isinstance(window_minutes, int) or window_minutes < 1:
        raise InputError(f"{embeddings.path} has no usable window_minutes in _definition.json: {window_minutes!r}")
    return window_minutes


def _results(
    data: LabelledWindows, minutes: MinuteTable, window_minutes: int, *, folds: int, seed: int, oversample: int
) -> Results:
    split = make_folds(data.positive, data.groups, folds, seed)
    manual = manual_features(minutes, data.windows, window_minutes)
    sets = _feature_sets(as_matrix(manual), data.vectors)
    pairs = [(features, classifier) for features in FEATURE_SETS for classifier in CLASSIFIERS]
    with progress("Cross-validating", len(pairs) * folds) as advance:
        found = {
            (features, classifier): cross_validate(
                sets[features],
                data.positive,
                split,
                CLASSIFIERS[classifier],
                oversample=oversample,
                seed=seed,
                advance=partial(advance, 1, f"{features}, {classifier}"),
            )
            for features, classifier in pairs
        }
        nmi = {features: clustering_nmi(sets[features], data.positive, seed) for features in FEATURE_SETS}
    common = {
        "num_entities": len(data.positive),
        "num_positives": int(data.positive.sum()),
        "folds": folds,
        "seed": seed,
    }
    return Results([_row(pair, found[pair], nmi[pair[0]], common) for pair in pairs], found, manual)


def _feature_sets(manual: NDArray[np.float64], vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    learnt = vectors.astype(np.float64)
    return {"manual": manual, "infobehavior": learnt, "both": np.hstack([manual, learnt])}


def _row(
    pair: tuple[str, str], found: CrossValidated, nmi: tuple[float, float], common: dict[str, int]
) -> dict[str, Any]:
    row: dict[str, Any] = {"features": pair[0], "classifier": pair[1], **common}
    for metric in METRICS:
        row[metric] = float(found.values(metric).mean())
        row[f"{metric}_std"] = float(found.values(metric).std(ddof=1))
    row["nmi"], row["nmi_std"] = nmi
    return row


def _definition(
    embeddings: Embeddings, labels: Path, data: LabelledWindows, settings: dict[str, Any]
) -> dict[str, Any]:
    """Where the figures come from; without paths and dates of today, so that equal inputs give equal bytes."""
    ends_of = data.windows["as_of"].cast(pa.int64()).to_numpy()
    return {
        "kind": KIND,
        "format": 1,
        "model_id": embeddings.definition.get("model_id"),
        "minutes_hash": embeddings.definition.get("minutes_hash"),
        "trained_until": embeddings.definition.get("trained_until"),
        "window_minutes": _window_minutes(embeddings),
        "embedding_dim": int(data.vectors.shape[1]),
        "labels": labels.name,
        "labels_hash": hashlib.sha256(labels.read_bytes()).hexdigest()[:16],
        "negative_class": data.classes[0],
        "positive_class": data.classes[1],
        "first_as_of": _iso(int(ends_of.min())),
        "last_as_of": _iso(int(ends_of.max())),
        "counts": data.counts | seen_later(embeddings, ends_of),
        **settings,
    }


def seen_later(embeddings: Embeddings, as_of: NDArray[np.int64]) -> dict[str, int]:
    """How many windows end before the training of the encoder did, if any do.

    Raises:
        InputError: the table doesn't tell when that was.
    """
    trained_until = embeddings.definition.get("trained_until")
    if trained_until is None:
        return {}
    try:
        until = datetime.fromisoformat(trained_until).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{embeddings.path} has no usable trained_until in _definition.json: {trained_until!r}"
        ) from None
    count = int(np.count_nonzero(as_of < until * 1_000_000))
    return {SEEN_LATER: count} if count else {}


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat(timespec="seconds")


def _write(
    out: Path,
    data: LabelledWindows,
    results: Results,
    definition: dict[str, Any],
    log: list[dict[str, float]],
) -> None:
    """The definition comes last: a folder that has one has all."""
    content = ReportContent(
        rows=results.rows,
        cross_validated=results.cross_validated,
        positive=data.positive,
        vectors=data.vectors,
        manual=results.manual,
        definition=definition,
        training_log=log,
    )
    write_together(
        {
            out / "report.html": report_page(content),
            out / "metrics.json": as_json(results.rows),
            out / DEFINITION_FILE: as_json({**definition, "headline": headline(content)}),
        }
    )
