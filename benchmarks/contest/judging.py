"""How good vectors are, on one part of the accounts: classifiers with cross-validation, or the rank of an alias."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from contest.contestants import supervised_scores
from contest.corpora import Prepared, window_keys
from contest.tasks import Task
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.downstream.cross_validation import Fold, cross_validate, make_folds
from infobehavior.downstream.metrics import fold_metrics, kind_metrics

Part = Literal["validation", "test"]
PARTS = 3
"""One part of this many of the groups of each task is for choosing, and what is reported is of the others."""
PART_SEED = 12_345

FOLDS = 5
OVERSAMPLE = 4
USED = ("lr", "gbdt")
ALIAS_RANKS = (1, 10)
ITSELF = "itself"
"""In place of a classifier, for what classifies by itself."""

Measured = dict[str, dict[str, list[float]]]
"""Values by classifier (or "cosine") and metric, one a fold (or an account whose alias is looked for)."""


@dataclass(frozen=True)
class Asked:
    """The windows of a task that are in one part.

    Attributes:
        row: of each window in `Prepared.moments`.
        positive: its label; nothing for linking.
        group: whose it is, as numbers.
        entity: its account.
        repo: where its account is; nothing but for linking.
        kind: of its account; None where nobody knows.
    """

    row: NDArray[np.intp]
    positive: NDArray[np.bool_]
    group: NDArray[np.int64]
    entity: NDArray[np.int64]
    repo: NDArray[np.str_]
    kind: NDArray[np.str_] | None = None


def asked(prepared: Prepared, task: Task, part: Part) -> Asked:
    """The windows of a task that belong to a part; whose accounts are one person's are all in the same."""
    table, moments = pq.read_table(prepared.labelled(task)), pq.read_table(prepared.moments)
    place = {key: row for row, key in enumerate(window_keys(moments))}
    row = np.array([place[key] for key in window_keys(table)])
    group = table[task.group or "entity_id"].to_numpy()
    groups = np.unique(group)
    drawn = np.random.default_rng(PART_SEED).permutation(groups)[: len(groups) // PARTS]
    is_in = np.isin(group, drawn) == (part == "validation")
    positive = table[task.label].to_numpy() > 0 if task.label else np.zeros(len(table), np.bool_)
    repo = np.array(table["repo"].to_pylist() if not task.label else [""] * len(table))
    group = np.unique(group[is_in], return_inverse=True)[1]
    entity = table["entity_id"].to_numpy()
    kind = np.array(table["kind"].to_pylist())[is_in] if "kind" in table.column_names else None
    return Asked(row[is_in], positive[is_in], group, entity[is_in], repo[is_in], kind)


def classify(asked: Asked, features: NDArray[np.floating], seed: int, grouped: bool) -> Measured:
    """Metrics of each test fold, by classifier."""
    folds = make_folds(asked.positive, asked.group if grouped else None, FOLDS, seed)
    numbers: NDArray[np.float64] = features[asked.row].astype(np.float64)
    measured: Measured = {}
    with threadpool_limits(1):
        for name in USED:
            found = cross_validate(
                numbers,
                asked.positive,
                folds,
                CLASSIFIERS[name],
                oversample=OVERSAMPLE,
                seed=seed,
                advance=lambda: None,
            )
            measured[name] = {metric: found.values(metric).tolist() for metric in found.metrics[0]}
            if asked.kind is not None:
                measured[name] |= _by_kind(asked.positive, found.scores, asked.kind, folds)
    return measured


def _by_kind(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], kind: NDArray[np.str_], folds: list[Fold]
) -> dict[str, list[float]]:
    """AUC of each kind of positives in each test fold that has some."""
    of_folds = [kind_metrics(positive[fold.test], scores[fold.test], kind[fold.test]) for fold in folds]
    names = sorted({name for of_fold in of_folds for name in of_fold})
    return {name: [of_fold[name] for of_fold in of_folds if name in of_fold] for name in names}


def classify_supervised(
    prepared: Prepared, asked: Asked, grouped: bool, folder: Path, seconds: int, seed: int, work: Path
) -> tuple[Measured, dict[str, Any]]:
    """Metrics of the supervised GRU on the first test fold, and how it was trained."""
    fold = make_folds(asked.positive, asked.group if grouped else None, FOLDS, seed)[0]
    part = np.full(len(asked.row), "train", dtype=object)
    part[fold.test], part[fold.train[fold.held_out]] = "test", "choose"
    moments = pq.read_table(prepared.moments).take(pa.array(asked.row))
    moments = moments.append_column("positive", pa.array(asked.positive)).append_column("part", pa.array(part))
    scores, report = supervised_scores(prepared, moments, folder, seconds, seed, work)
    metrics = fold_metrics(asked.positive[part == "test"], scores, threshold=0.5)
    return {ITSELF: {name: [value] for name, value in metrics.items() if name != "f1"}}, report


def link(asked: Asked, features: NDArray[np.floating], pairs: Path) -> Measured:
    """Rank of each account's alias among the accounts of its repository; where it has several, of the nearest one."""
    numbers = StandardScaler().fit_transform(features[asked.row].astype(np.float64))
    numbers /= np.maximum(np.linalg.norm(numbers, axis=1, keepdims=True), 1e-12)
    place = {entity: row for row, entity in enumerate(asked.entity.tolist())}
    aliases: dict[int, list[int]] = {}
    table = pq.read_table(pairs)
    for one, other in zip(table["entity_a"].to_pylist(), table["entity_b"].to_pylist(), strict=True):
        if one in place and other in place:
            aliases.setdefault(place[one], []).append(place[other])
            aliases.setdefault(place[other], []).append(place[one])
    ranks = [_rank(numbers, asked.repo, account, others) for account, others in sorted(aliases.items())]
    hits = {f"recall_at_{most}": [float(rank <= most) for rank in ranks] for most in ALIAS_RANKS}
    return {"cosine": {"reciprocal_rank": [1 / rank for rank in ranks], **hits}}


def _rank(numbers: NDArray[np.float64], repo: NDArray[np.str_], account: int, others: list[int]) -> int:
    """One more than the accounts of the repository that are nearer than the nearest alias; ties count against it."""
    rivals = np.flatnonzero(repo == repo[account])
    rivals = rivals[~np.isin(rivals, [account, *others])]
    nearest = float((numbers[others] @ numbers[account]).max())
    return 1 + int(np.count_nonzero(numbers[rivals] @ numbers[account] >= nearest))


def p_value(ours: list[float], theirs: list[float], num_folds: int) -> float:
    """Two-sided, by the corrected resampled t-test (Nadeau and Bengio, 2003): folds share their training rows.

    Args:
        ours: a metric of each fold of each run.
        theirs: of the same folds.
        num_folds: of a run; a test fold is one over this many of the rows.
    """
    difference = np.array(ours) - np.array(theirs)
    if np.ptp(difference) == 0:
        return 1.0 if difference[0] == 0 else 0.0
    share = 1 / (num_folds - 1)
    deviation = np.sqrt((1 / len(difference) + share) * difference.var(ddof=1))
    return float(2 * student.sf(abs(difference.mean() / deviation), len(difference) - 1))


def paired_p_value(ours: list[float], theirs: list[float], seed: int = 0, num_resamples: int = 10_000) -> float:
    """Two-sided, by flipping signs of the differences at random: for accounts that are independent of each other."""
    difference = np.array(ours) - np.array(theirs)
    random = np.random.default_rng(seed)
    drawn = np.abs([(difference * random.choice([-1, 1], len(difference))).mean() for _ in range(num_resamples)])
    return float((1 + np.count_nonzero(drawn >= abs(difference.mean()) - 1e-12)) / (1 + num_resamples))
