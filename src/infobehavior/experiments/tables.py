"""Tables 1 and 2 of the paper (4.2.4, 4.2.5), beside the paper's figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infobehavior.artefacts import definition_hash, read_json, write_json
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.downstream.manual_features import features_hash
from infobehavior.experiments.offline import CLUSTERS, OfflineData, Scores, judge, representation, tried_counts
from infobehavior.experiments.processes import in_processes
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.training import check_settings

SCORES_FOLDER = "scores"
JUDGED = 2
"""Counts up when something is measured in another way: kept scores are then made again. Until 2, NMI was of all
positives, also where they were more frequent than 1:20."""
FEATURE_SETS = ("manual", "infobehavior", "both")


@dataclass(frozen=True)
class Ablation:
    """A row of Table 2: the optimal setting with something changed.

    Attributes:
        name: as the paper has it.
        changes: to the configuration; those of the encoder by `encoder`.
        paper: NMI, and the AUC of LR, GBDT and MLP.
    """

    name: str
    changes: dict[str, Any]
    paper: tuple[float, float, float, float]

    def of(self, config: PretrainConfig) -> PretrainConfig:
        """The configuration with these changes."""
        values = config.model_dump()
        changed = {**values, **self.changes, "encoder": {**values["encoder"], **self.changes.get("encoder", {})}}
        return PretrainConfig.model_validate(changed)


ABLATIONS = (
    Ablation("optimal setting", {}, (0.1825, 0.8993, 0.9146, 0.9171)),
    Ablation(
        "span of 180", {"encoder": {"span_minutes": 180, "stride_minutes": 160}}, (0.1394, 0.8933, 0.9185, 0.8974)
    ),
    Ablation(
        "span of 720", {"encoder": {"span_minutes": 720, "stride_minutes": 700}}, (0.1319, 0.8934, 0.9188, 0.8975)
    ),
    Ablation("no overlap", {"encoder": {"span_minutes": 360, "stride_minutes": 360}}, (0.1504, 0.8845, 0.9137, 0.9142)),
    Ablation("no coarse-grained task", {"coarse_task": False}, (0.0492, 0.8510, 0.8937, 0.8686)),
    Ablation("no fine-grained task", {"fine_task": False}, (0.1427, 0.8925, 0.9042, 0.9064)),
    Ablation("no domain-related task", {"domain_task": ()}, (0.0851, 0.8813, 0.9121, 0.9180)),
)
"""Table 2. The first row is the configuration as it is given."""

PAPER_TABLE_1 = {
    ("manual", "lr"): 0.8266,
    ("infobehavior", "lr"): 0.8993,
    ("manual", "gbdt"): 0.9099,
    ("infobehavior", "gbdt"): 0.9146,
    ("infobehavior", "mlp"): 0.9171,
}
"""AUC. The paper has no MLP on manual features, and no row with both; here they stand below its five."""

PAPER_COUNT_ACCURACY = 0.9752
"""Of the number of failed operations (4.2.5)."""


@dataclass(frozen=True)
class Row:
    """A row of a table: what was measured, over seeds.

    Attributes:
        name: what it is of.
        values: of each column, one a seed; None where there is nothing to tell, as the precision of no alarm.
        paper: the paper's figure of each column, where it has one.
    """

    name: str
    values: Mapping[str, Sequence[float | None]]
    paper: dict[str, float]

    def cell(self, column: str) -> str:
        """Mean and standard deviation over the seeds that tell something, and the paper's figure."""
        values = self.values.get(column)
        if not values:
            return ""
        return over_seeds(values) + (f" ({self.paper[column]:.4f})" if column in self.paper else "")


def over_seeds(values: Sequence[float | None], sign: str = "") -> str:
    """Mean ± standard deviation, "–" if there is nothing; of how many seeds it is, if not of all.

    Example:
        >>> over_seeds([0.5, None, 0.75])
        '0.6250 ± 0.177 (2 of 3 seeds)'
    """
    told = [value for value in values if value is not None]
    if not told:
        return "–"
    spread = f" ± {stdev(told):.3f}" if len(told) > 1 else ""
    of = f" ({len(told)} of {len(values)} seeds)" if len(told) < len(values) else ""
    return f"{mean(told):{sign}.4f}{spread}{of}"


def table1(data: OfflineData, config: PretrainConfig, seeds: Sequence[int], workers: int = 1) -> list[Row]:
    """Manual features and the representation, by the paper's classifiers; each seed pre-trains, splits and classifies.

    Args:
        data: who is judged by which month.
        config: how to pre-train, but for the seed.
        seeds: at least one.
        workers: processes, each of which has one seed's encoder at a time; they change no figure.
    """
    pairs = [*PAPER_TABLE_1, ("manual", "mlp"), *(("both", classifier) for classifier in CLASSIFIERS)]
    runs = _all_scores(data, [_seeded(config, seed) for seed in seeds], FEATURE_SETS, workers)
    rows = []
    for features, classifier in pairs:
        found = [run[features][classifier] | run[features][CLUSTERS] for run in runs]
        values = {column: [scores[column] for scores in found if column in scores] for column in _columns(found)}
        figure = PAPER_TABLE_1.get((features, classifier))
        title = f"{features}, {CLASSIFIERS[classifier].title}"
        rows.append(Row(title, values, {} if figure is None else {"auc": figure}))
    return rows


def table2(data: OfflineData, config: PretrainConfig, seeds: Sequence[int], workers: int = 1) -> list[Row]:
    """The optimal setting, and the same with each of its parts changed; see `table1`."""
    configs = [_seeded(ablation.of(config), seed) for ablation in ABLATIONS for seed in seeds]
    runs = _all_scores(data, configs, ("infobehavior",), workers)
    rows = []
    for place, ablation in enumerate(ABLATIONS):
        scores = [run["infobehavior"] for run in runs[place * len(seeds) : (place + 1) * len(seeds)]]
        values = {"nmi": [one[CLUSTERS]["nmi"] for one in scores]}
        values |= {classifier: [one[classifier]["auc"] for one in scores] for classifier in CLASSIFIERS}
        rows.append(Row(ablation.name, values, dict(zip(values, ablation.paper, strict=True))))
    return rows


def _seeded(config: PretrainConfig, seed: int) -> PretrainConfig:
    return config.model_copy(update={"seed": seed})


def _all_scores(
    data: OfflineData, configs: Sequence[PretrainConfig], feature_sets: Sequence[str], workers: int
) -> list[dict[str, dict[str, Scores]]]:
    """The scores of each feature set with each configuration; those that are kept aren't made again."""
    missing = {
        config.model_dump_json(): config  # Two rows of a table may have the same one.
        for config in configs
        if not all(_score_file(data, features, config).exists() for features in feature_sets)
    }
    for config in missing.values():
        check_settings(config, data.minutes.schema)
    if missing and "manual" in feature_sets:
        _ = data.manual  # Made once, before other processes get it.
    work = partial(_score_sets, data, feature_sets)
    in_processes("training and judging encoders", work, list(missing.values()), workers)
    return [
        {features: read_json(_score_file(data, features, config), "scores")["scores"] for features in feature_sets}
        for config in configs
    ]


def _score_sets(data: OfflineData, feature_sets: Sequence[str], config: PretrainConfig) -> None:
    learnt = cache(partial(representation, data, config))
    for features in feature_sets:
        _score(data, features, config, learnt)


def _score(data: OfflineData, features: str, config: PretrainConfig, learnt: Callable[[], NDArray[np.float32]]) -> None:
    """How well a feature set does with the seed of a configuration; kept, so that a rerun goes on where it stopped."""
    file = _score_file(data, features, config)
    if not file.exists():
        scores = judge(_features(data, features, learnt), data.positive, config.seed, kind=data.kind)
        write_json(file, {"features": features, "decided by": _decides(features, config), "scores": scores})


def _score_file(data: OfflineData, features: str, config: PretrainConfig) -> Path:
    by_hand = [] if features == "infobehavior" else [features_hash()]
    key = definition_hash([JUDGED, data.hash, features, _decides(features, config), *by_hand])
    return data.folder / SCORES_FOLDER / f"{key}.json"


def _decides(features: str, config: PretrainConfig) -> dict[str, Any]:
    """What decides the scores of a feature set, beside the data."""
    return {"seed": config.seed} if features == "manual" else config.model_dump(mode="json")


def _features(data: OfflineData, features: str, learnt: Callable[[], NDArray[np.float32]]) -> NDArray[np.floating]:
    if features == "manual":
        return data.manual
    return np.hstack([data.manual, learnt()]) if features == "both" else learnt()


def _columns(found: Sequence[Scores]) -> list[str]:
    """The names of all metrics that some of them have."""
    return list(dict.fromkeys(name for scores in found for name in scores))


TABLES = {"table1": table1, "table2": table2}


def as_lines(rows: Sequence[Row]) -> list[str]:
    """A table for the terminal: means ± standard deviations over seeds, and the paper's figures in brackets."""
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    table = [["", *columns], *([row.name, *(row.cell(column) for column in columns)] for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def count_rows(data: OfflineData, config: PretrainConfig, seeds: Sequence[int]) -> list[Row]:
    """How often the count tasks are right on accounts that pre-training never saw, once their encoders are trained."""
    found = [tried_counts(data, _seeded(config, seed)) for seed in seeds]
    rows = []
    for of_task in zip(*found, strict=True):
        values = {
            "accuracy": [one.accuracy for one in of_task],
            "most frequent": [one.most_frequent for one in of_task],
        }
        paper = {"accuracy": PAPER_COUNT_ACCURACY} if of_task[0].task == "failures" else {}
        rows.append(Row(f"{of_task[0].task}, {of_task[0].num_windows:,} accounts never seen", values, paper))
    return rows


def write_table(
    path: Path,
    data: OfflineData,
    config: PretrainConfig,
    seeds: Sequence[int],
    rows: Sequence[Row],
    counts: Sequence[Row] = (),
    **told: Any,
) -> None:
    """The same as JSON, each value a seed, with what decided it, and what else is told."""
    content = {
        "simulated": data.simulated,
        "judged": JUDGED,
        "counts": [asdict(row) for row in counts],
        "data": data.lines(),
        "config": config.model_dump(mode="json", exclude={"seed"}),
        "seeds": list(seeds),
        "rows": [asdict(row) for row in rows],
    }
    write_json(path, content | told)
