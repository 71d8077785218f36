"""How good vectors are, on one part of the accounts: classifiers with cross-validation, or the rank of an alias."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from contest.contestants import supervised_scores
from contest.corpora import Prepared, window_keys
from contest.tasks import PART_SEED, Task
from infobehavior.artefacts import definition_hash
from infobehavior.downstream.classifiers import CLASSIFIERS, Classifier
from infobehavior.downstream.cross_validation import Fold, cross_validate, make_folds
from infobehavior.downstream.metrics import fold_metrics, kind_metrics

Part = Literal["validation", "test"]
"""Whose accounts are asked about, see `tasks.CHOSEN_BY`."""

VERSION = 2
"""Counts up when something is measured that wasn't, or in another way: what was kept is then measured again."""

FOLDS = 5
USED = ("lr", "gbdt")
USED_CLASSIFIERS = {name: CLASSIFIERS[name] for name in USED}
FEW_LABELS = (0.05, 0.2)
"""Shares of the training rows, for learning curves."""
THIRDS = tuple(f"auc of the {which} third" for which in ("least active", "middle", "most active"))
JOBS = 2
"""Processes that judge; no encoder learns meanwhile, and results don't depend on them."""
ALIAS_RANKS = (1, 10)
LINKING, RANK, STRONG_RANK = "cosine", "reciprocal_rank", "reciprocal_rank_of_strong"
BLOCKS = 20
STRONG = "mailmap_or_login"
"""Source of the pairs of which more than a name tells that they are one person's."""
ITSELF = "itself"
"""In place of a classifier, for what classifies by itself."""

UNLABELLED = "no labels"
"""Likewise, for what is told without any label."""

Measured = dict[str, dict[str, list[float]]]
"""Values by classifier (or "cosine") and metric, one a fold (or a block of accounts whose aliases are looked for);
of parts of the accounts, one a fold that has both classes of them."""


@dataclass(frozen=True)
class Asked:
    """The windows of a task.

    Attributes:
        row: of each window in `Prepared.moments`.
        entity: its account.
        group: whose it is, as numbers.
        is_in: whether it is in the part that is asked about.
        positive: its label; nothing for linking.
        repo: where its account is; nothing but for linking.
        num_minutes: with events in it.
        kind: of its account; None where nobody knows.
    """

    row: NDArray[np.intp]
    entity: NDArray[np.int64]
    group: NDArray[np.int64]
    is_in: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    repo: NDArray[np.str_]
    num_minutes: NDArray[np.int64]
    kind: NDArray[np.str_] | None = None

    def of_part(self) -> "Asked":
        """Those in the part alone."""
        kind = None if self.kind is None else self.kind[self.is_in]
        columns = (self.row, self.entity, self.group, self.is_in, self.positive, self.repo, self.num_minutes)
        return Asked(*(column[self.is_in] for column in columns), kind)

    def folds(self, seed: int, grouped: bool) -> list[Fold]:
        """The same for everyone; if grouped, a group is never on both sides of a split."""
        return make_folds(self.positive, self.group if grouped else None, FOLDS, seed)

    def split(self, seed: int, grouped: bool) -> str:
        """Hash of the accounts that are asked about, their labels and their folds: rows are compared by equal ones."""
        asked = self.of_part()
        folds = [fold.test.tolist() for fold in asked.folds(seed, grouped)] if asked.positive.any() else []
        return definition_hash([asked.entity.tolist(), asked.group.tolist(), asked.positive.tolist(), folds])

    def third(self) -> NDArray[np.intp]:
        """0, 1 or 2: whether a window is among the least, the middle or the most active; equal counts are together."""
        edges = np.quantile(self.num_minutes, (1 / 3, 2 / 3))
        thirds: NDArray[np.intp] = np.searchsorted(edges, self.num_minutes)
        return thirds

    def size(self) -> dict[str, Any]:
        """How many windows and positives there are, in all and in each third."""
        third = self.third()
        in_thirds = [
            {
                "least_minutes": int(self.num_minutes[third == number].min(initial=10**9)),
                "most_minutes": int(self.num_minutes[third == number].max(initial=0)),
                "accounts": int(np.count_nonzero(third == number)),
                "positives": int(np.count_nonzero(self.positive[third == number])),
            }
            for number in range(len(THIRDS))
        ]
        return {"accounts": len(self.row), "positives": int(self.positive.sum()), "thirds": in_thirds}


def asked(prepared: Prepared, task: Task, part: Part) -> Asked:
    """The windows of a task, and which of them belong to a part; a person's accounts are all in the same part."""
    table, moments = pq.read_table(prepared.labelled(task)), pq.read_table(prepared.moments)
    place = {key: row for row, key in enumerate(window_keys(moments))}
    group = table[task.group or "entity_id"].to_numpy()
    is_validation = np.isin(group, pq.read_table(prepared.validation)["group"].to_numpy())
    row = np.array([place[key] for key in window_keys(table)])
    return Asked(
        row=row,
        entity=table["entity_id"].to_numpy(),
        group=np.unique(group, return_inverse=True)[1],
        is_in=is_validation == (part == "validation"),
        positive=table[task.label].to_numpy() > 0 if task.label else np.zeros(len(table), np.bool_),
        repo=np.array(table["repo"].to_pylist() if not task.label else [""] * len(table)),
        num_minutes=prepared.num_minutes()[row],
        kind=np.array(table["kind"].to_pylist()) if "kind" in table.column_names else None,
    )


def classify(
    asked: Asked,
    features: NDArray[np.floating],
    seed: int,
    grouped: bool,
    classifiers: Mapping[str, Classifier] = USED_CLASSIFIERS,
) -> Measured:
    """Metrics of each test fold of the part, by classifier; and AUC where there are fewer labels to learn from."""
    asked = asked.of_part()
    folds = asked.folds(seed, grouped)
    numbers: NDArray[np.float64] = features[asked.row].astype(np.float64)
    work = [(name, share) for name in classifiers for share in (1.0, *FEW_LABELS)]
    found = Parallel(n_jobs=JOBS)(
        delayed(_cross_validate)(numbers, asked.positive, folds, classifiers[name], share, seed) for name, share in work
    )
    measured: Measured = {name: {} for name in classifiers}
    for (name, share), (metrics, scores) in zip(work, found, strict=True):
        if share < 1:
            measured[name][auc_with(share)] = metrics["auc"]
            continue
        measured[name] |= metrics | _by_activity(asked, scores, folds)
        if asked.kind is not None:
            measured[name] |= _by_kind(asked.positive, scores, asked.kind, folds)
    return measured


def without_labels(asked: Asked, scores: NDArray[np.floating], seed: int, grouped: bool) -> Measured:
    """Metrics of scores that no label has made, on the same test folds."""
    asked = asked.of_part()
    folds = asked.folds(seed, grouped)
    of_folds = [
        fold_metrics(asked.positive[fold.test], scores[asked.row][fold.test].astype(np.float64), threshold=0.5)
        for fold in folds
    ]
    return {UNLABELLED: {name: [metrics[name] for metrics in of_folds] for name in of_folds[0]}}


def auc_with(share: float) -> str:
    """Name of the AUC where a share of the labels is known."""
    return "auc" if share == 1 else f"auc with {share:.0%} of the labels"


def _cross_validate(
    features: NDArray[np.float64],
    positive: NDArray[np.bool_],
    folds: list[Fold],
    classifier: Classifier,
    share: float,
    seed: int,
) -> tuple[dict[str, list[float]], NDArray[np.float64]]:
    """Metrics by fold, and the scores of all rows."""
    folds = [_with_fewer_labels(fold, positive, share, seed) for fold in folds]
    with threadpool_limits(1):
        found = cross_validate(features, positive, folds, classifier, seed=seed)
    return {metric: found.values(metric).tolist() for metric in found.metrics[0]}, found.scores


def _with_fewer_labels(fold: Fold, positive: NDArray[np.bool_], share: float, seed: int) -> Fold:
    """The same test rows, and a share of both classes of what is learnt from and of what is chosen by."""
    if share == 1:
        return fold
    random = np.random.default_rng(seed)  # The same one, so that a smaller share is a part of a larger one.
    parts = []
    for part in (fold.inner_train, fold.held_out):
        of_class = (random.permutation(part[positive[fold.train[part]] == wanted]) for wanted in (False, True))
        parts.append(np.sort(np.concatenate([rows[: math.ceil(share * len(rows))] for rows in of_class])))
    kept = np.sort(np.concatenate(parts))
    return Fold(fold.train[kept], fold.test, *(np.searchsorted(kept, part) for part in parts))


def _by_activity(asked: Asked, scores: NDArray[np.float64], folds: list[Fold]) -> dict[str, list[float]]:
    """AUC among accounts that are about equally active, in each test fold that has both classes of them."""
    third = asked.third()
    found: dict[str, list[float]] = {}
    for number, name in enumerate(THIRDS):
        rows = [fold.test[third[fold.test] == number] for fold in folds]
        found[name] = [
            float(roc_auc_score(asked.positive[of_fold], scores[of_fold]))
            for of_fold in rows
            if len(np.unique(asked.positive[of_fold])) == 2
        ]
    return {name: values for name, values in found.items() if values}


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
    asked = asked.of_part()
    fold = asked.folds(seed, grouped)[0]
    part = np.full(len(asked.row), "train", dtype=object)
    part[fold.test], part[fold.train[fold.held_out]] = "test", "choose"
    moments = pq.read_table(prepared.moments).take(pa.array(asked.row))
    moments = moments.append_column("positive", pa.array(asked.positive)).append_column("part", pa.array(part))
    scores, report = supervised_scores(prepared, moments, folder, seconds, seed, work)
    metrics = fold_metrics(asked.positive[part == "test"], scores, threshold=0.5)
    return {ITSELF: {name: [value] for name, value in metrics.items() if name != "f1"}}, report


def link(asked: Asked, features: NDArray[np.floating], pairs: Path, part: Part) -> Measured:
    """Rank of each account's alias among all accounts of its repository; where it has several, of the nearest one.

    Accounts that pairs or a person connect are in the same part, the validation part if one of them is, and in the
    same of `BLOCKS` blocks. What is told are means over blocks, so that nothing is told of single accounts.
    """
    numbers = StandardScaler().fit_transform(features[asked.row].astype(np.float64))
    numbers /= np.maximum(np.linalg.norm(numbers, axis=1, keepdims=True), 1e-12)
    one, other, is_strong = _pairs(asked.entity, pairs)
    connected = _connected(asked.group, one, other)
    num_in, num_all = (np.bincount(connected, weights=weights) for weights in (asked.is_in, None))
    is_asked = (num_in > 0 if part == "validation" else num_in == num_all)[connected]
    accounts = np.unique(np.concatenate([one, other])[np.concatenate([is_asked[one], is_asked[other]])])
    ranks, has_strong = np.zeros(len(accounts)), np.zeros(len(accounts), np.bool_)
    for place, account in enumerate(accounts):
        ranks[place] = _rank(
            numbers, asked.repo, account, np.concatenate([other[one == account], one[other == account]])
        )
        has_strong[place] = is_strong[(one == account) | (other == account)].any()
    block = _blocks(connected[accounts])
    told = {RANK: 1 / ranks, **{f"recall_at_{most}": ranks <= most for most in ALIAS_RANKS}}
    means = {name: _block_means(values, block) for name, values in told.items()}
    return {LINKING: {**means, STRONG_RANK: _block_means(1 / ranks[has_strong], block[has_strong])}}


def _blocks(connected: NDArray[np.int64]) -> NDArray[np.int64]:
    """A block for each account, the same for those that are connected."""
    numbers, place = np.unique(connected, return_inverse=True)
    blocks: NDArray[np.int64] = np.random.default_rng(PART_SEED).permutation(len(numbers))[place] % BLOCKS
    return blocks


def _block_means(values: NDArray[Any], block: NDArray[np.int64]) -> list[float]:
    """Means of those blocks that have values."""
    return [float(values[block == number].mean()) for number in np.unique(block)]


def _pairs(entity: NDArray[np.int64], pairs: Path) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """The places of the accounts of each pair, and whether more than a name tells that they are one person's."""
    table = pq.read_table(pairs)
    place = {account: row for row, account in enumerate(entity.tolist())}
    rows = zip(*(table[name].to_pylist() for name in ("entity_a", "entity_b", "source")), strict=True)
    known = [(place[a], place[b], source == STRONG) for a, b, source in rows if a in place and b in place]
    one, other, is_strong = (np.array(column) for column in zip(*known, strict=True))
    return one, other, is_strong


def _connected(group: NDArray[np.int64], one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.int64]:
    """A number for each account, the same where a group or a chain of pairs connects them."""
    first_of_group = np.unique(group, return_index=True)[1][group]
    ends = (np.concatenate([one, np.arange(len(group))]), np.concatenate([other, first_of_group]))
    graph = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(len(group), len(group)))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers


def _rank(numbers: NDArray[np.float64], repo: NDArray[np.str_], account: int, aliases: NDArray[np.intp]) -> int:
    """One more than the accounts of the repository that are nearer than the nearest alias; ties count against it."""
    candidates = np.flatnonzero(repo == repo[account])
    nearness = numbers[candidates] @ numbers[account]
    is_alias = np.isin(candidates, aliases)
    is_rival = ~is_alias & (candidates != account)
    return 1 + int(np.count_nonzero(nearness[is_rival] >= nearness[is_alias].max()))


def p_value(ours: list[float], theirs: list[float], num_folds: int) -> float:
    """Two-sided, by the corrected resampled t-test (Nadeau and Bengio, 2003): folds share their training rows.

    Args:
        ours: a metric of each fold of each run.
        theirs: of the same folds.
        num_folds: of a run; a test fold is one over this many of the rows.
    """
    return _p_of(np.array(ours) - np.array(theirs), 1 / (num_folds - 1))


def p_value_of_blocks(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Two-sided, by a paired t-test over blocks, which share no accounts.

    Args:
        ours: of each run, a value of each block.
        theirs: likewise.
    """
    return _p_of(np.mean(ours, axis=0) - np.mean(theirs, axis=0), 0)


def _p_of(difference: NDArray[np.float64], shared: float) -> float:
    """Two-sided, by a t-test; `shared` is what shared training rows add to the one over n of the mean's variance."""
    if np.ptp(difference) == 0:
        return 1.0 if difference[0] == 0 else 0.0
    deviation = np.sqrt((1 / len(difference) + shared) * difference.var(ddof=1))
    return float(2 * student.sf(abs(difference.mean() / deviation), len(difference) - 1))
