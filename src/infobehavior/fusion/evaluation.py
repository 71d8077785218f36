"""`fuse evaluate`: what a fused classifier and its operating point are worth on examples that it didn't learn from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from infobehavior.artefacts import DEFINITION_FILE, as_json, is_simulated, simulated_lines, write_together
from infobehavior.downstream.evaluation import check_out
from infobehavior.downstream.metrics import recall_at_precision
from infobehavior.errors import refusing_long_paths
from infobehavior.fusion.calibration import expected_calibration_error, reliability
from infobehavior.fusion.classifier import masked
from infobehavior.fusion.config import FusionConfig
from infobehavior.fusion.examples import Examples, Period, read_examples, without_missing_groups
from infobehavior.fusion.fuse import (
    account_numbers,
    entity_numbers,
    example_numbers,
    faults_of,
    open_model,
    positive_line,
    probabilities,
)
from infobehavior.fusion.joining import age_lines, ages_in_days
from infobehavior.fusion.missing import GroupCounts, reasons, warnings_of
from infobehavior.fusion.model_folder import FusedModel
from infobehavior.fusion.operating_point import at_threshold, recall_intervals, threshold_intervals
from infobehavior.fusion.packing import FUSION, GBDT
from infobehavior.fusion.report import ReportContent, fusion_report_page

KIND, FORMAT = "evaluation of a fused classifier", 1
METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
TITLES = {FUSION: "fusion network", GBDT: "LightGBM"}
PAPER_PRECISIONS = (0.95, 0.5)
"""Of Tables 3 and 4; recall is told at these, if none is required."""

AT_THRESHOLD = ("precision", "recall")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EvaluateSummary:
    """What `fuse_evaluate` found.

    Attributes:
        out: folder of ``metrics.json`` and ``report.html``.
        rows: metrics of the network and of LightGBM.
        without: metrics of the network as if a group were missing, by group.
        definition: of what, on what.
    """

    out: Path
    rows: list[dict[str, Any]]
    without: dict[str, dict[str, float | None]]
    definition: dict[str, Any]

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            *simulated_lines(self.definition),
            *(f"{count} {reason}" for reason, count in self.definition["counts"].items()),
            *age_lines(self.definition["ages"], self.definition["trained_ages"]),
            *self.definition["warnings"],
            positive_line(
                self.definition["label"],
                self.definition["classes"],
                self.rows[0]["num_positives"],
                self.rows[0]["num_examples"],
            ),
            *(line for row in self.rows for line in _row_lines(row)),
            *(f"without {name}: {_told(metrics)}" for name, metrics in self.without.items()),
            f"report: {self.out / REPORT_FILE}",
        ]


@refusing_long_paths()
def fuse_evaluate(
    examples: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    since: str | None = None,
    until: str | None = None,
    tables: Mapping[str, str | Path] | None = None,
    without: Collection[str] = (),
) -> EvaluateSummary:
    """Measure a fused classifier, and LightGBM on the same groups, on labelled examples.

    Nothing is chosen here: thresholds and calibration are those of the validation part of the training. The recall at a
    required precision is told beside them as the paper has it (Tables 3 and 4), its threshold chosen on these examples.
    Intervals are of the bootstrap over entities.

    Args:
        examples: with labels; those of the training are counted, since they flatter the classifier.
        model: folder of a fused classifier.
        out: folder for ``metrics.json``, ``report.html`` and ``_definition.json``.
        since: first local day of the examples' moments.
        until: last local day.
        tables: other tables for groups that are joined, by name of the group.
        without: groups to mask; one none of whose columns is there is masked too.

    Raises:
        InputError: something can't be read or written, or doesn't fit the model.
    """
    out = Path(out)
    check_out(out, KIND)
    fused, config, warnings = open_model(model, tables, without)
    config = without_missing_groups(examples, config)
    read = read_examples(examples, config, labelled=True, period=Period(since, until), known_classes=fused.classes)
    with faults_of(examples):
        arrays = fused.classifier.arrays(read.tables)
        groups = fused.classifier.counted(arrays, read.tables)
    scores = probabilities(fused.classifier, arrays)
    rows = [measured(name, of, read, fused) for name, of in scores.items()]
    without = {
        name: _without(read, fused.classifier.probability_of(masked(arrays, name)), fused) for name in config.groups
    }
    joined = [group.table for group in config.groups.values() if group.table]
    definition = {**_definition(read, fused, groups, since, until), "simulated": is_simulated(examples, *joined)}
    definition["warnings"] = [*warnings, *definition["warnings"]]
    assert read.positive is not None
    content = ReportContent(rows, without, definition, scores, read.positive, fused)
    write_together(
        {
            out / METRICS_FILE: as_json({"rows": rows, "without": without}),
            out / REPORT_FILE: fusion_report_page(content),
            out / DEFINITION_FILE: as_json(definition),
        }
    )
    return EvaluateSummary(out, rows, without, definition)


def measured(name: str, scores: Floats, examples: Examples, fused: FusedModel) -> dict[str, Any]:
    """The metrics of a classifier on examples, each with its interval as `<metric>_interval`."""
    positive, operating, seed = examples.positive, fused.config.operating_point, fused.config.network.seed
    assert positive is not None
    entity = entity_numbers(examples)
    bins = reliability(positive, scores)
    threshold = fused.points[name].threshold
    row: dict[str, Any] = {
        "classifier": name,
        "num_examples": len(positive),
        "num_positives": int(positive.sum()),
        "num_entities": int(entity.max()) + 1,
        **_short(examples, scores, fused.config),
        "best_f1": at_threshold(positive, scores, operating, fused.f1_thresholds[name])["f1"],
        "brier": float(brier_score_loss(positive, scores)),
        "calibration_error": expected_calibration_error(bins),
        "reliability": [vars(one) for one in bins],
        "threshold": threshold,
        "rule": fused.points[name].rule,
        "is_met": fused.points[name].is_met,
        "num_flagged": int((scores >= threshold).sum()),
        **at_threshold(positive, scores, operating, threshold),
    }
    intervals = threshold_intervals(positive, scores, entity, operating, threshold, seed)
    row |= {f"{metric}_interval": interval and list(interval) for metric, interval in intervals.items()}
    for precision in precisions(fused.config):
        recall = f"recall_at_precision_{100 * precision:g}"
        row[f"{recall}_interval"] = list(recall_intervals(positive, scores, entity, precision, seed))
    return row


def precisions(config: FusionConfig) -> tuple[float, ...]:
    """At which recall is told: the required one, or the paper's."""
    required = config.operating_point.precision
    return PAPER_PRECISIONS if required is None else (required,)


def _short(examples: Examples, scores: Floats, config: FusionConfig) -> dict[str, float]:
    positive = examples.positive
    assert positive is not None
    recalls = {
        f"recall_at_precision_{100 * precision:g}": recall_at_precision(positive, scores, precision)
        for precision in precisions(config)
    }
    return {
        "auc": float(roc_auc_score(positive, scores)),
        "average_precision": float(average_precision_score(positive, scores)),
        **recalls,
    }


def _without(examples: Examples, scores: Floats, fused: FusedModel) -> dict[str, float | None]:
    """Metrics of the network as if a group were missing, at its threshold too if that was met; None is no precision."""
    point, positive = fused.points[FUSION], examples.positive
    assert positive is not None
    told = at_threshold(positive, scores, fused.config.operating_point, point.threshold) if point.is_met else {}
    return {**_short(examples, scores, fused.config), **{name: told[name] for name in AT_THRESHOLD if name in told}}


def _definition(
    examples: Examples, fused: FusedModel, groups: Mapping[str, GroupCounts], since: str | None, until: str | None
) -> dict[str, Any]:
    """On what it was measured; without paths and dates of today, so that equal inputs give equal bytes."""
    num_seen = int(np.isin(example_numbers(examples), fused.trained_on).sum())
    has_account = np.asarray(examples.keys.entity.is_valid())
    num_of_known = int((np.isin(account_numbers(examples), fused.accounts) & has_account).sum())
    counts = examples.counts | (
        {"of them seen in training, which flatters the classifier": num_seen} if num_seen else {}
    )
    counts |= {"of accounts that were trained on": num_of_known} if num_of_known else {}
    counts |= reasons(groups)
    return {
        "kind": KIND,
        "format": FORMAT,
        "model_id": fused.model_id,
        "label": fused.config.examples.label,
        "classes": list(fused.classes),
        "since": since,
        "until": until,
        "counts": counts,
        "ages": ages_in_days(examples.ages),
        "trained_ages": fused.report["ages"],
        "warnings": warnings_of(groups, fused.trained_groups),
    }


def _row_lines(row: dict[str, Any]) -> list[str]:
    title = TITLES[row["classifier"]]
    recalls = (_with_interval(row, name, name.replace("_", " ") + " %") for name in row if _is_recall(name))
    lines = [
        f"{title}: AUC {row['auc']:.3f}, average precision {row['average_precision']:.3f}, {', '.join(recalls)}, "
        f"F1 {row['best_f1']:.3f}; Brier score {row['brier']:.4f}, calibration error {row['calibration_error']:.4f}"
    ]
    if row["is_met"]:
        parts = [_with_interval(row, name, name) for name in ("precision", "recall", "f1", "cost") if name in row]
        lines.append(f"{title}, threshold {row['threshold']:.6g}: {row['num_flagged']} flagged, {', '.join(parts)}")
    else:
        lines.append(f"{title}: {row['rule']} wasn't reached in training, so nothing is flagged")
    return lines


def _is_recall(name: str) -> bool:
    return name.startswith("recall_at_precision") and not name.endswith("_interval")


def _with_interval(row: dict[str, Any], name: str, title: str) -> str:
    if row[name] is None:
        return f"{title} –"
    low, high = row[f"{name}_interval"]
    return f"{title} {row[name]:.3f} ({low:.3f} to {high:.3f})"


def _told(metrics: dict[str, float | None]) -> str:
    told = (
        f"{'at the threshold ' if name == AT_THRESHOLD[0] else ''}{name.replace('_', ' ')}{' %' * _is_recall(name)} "
        f"{'–' if value is None else format(value, '.3f')}"
        for name, value in metrics.items()
    )
    return ", ".join(told)
