"""docs/results.md: what the contest and the paper's tables found, misses first."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from machine import ROOT, in_words

from contest.contestants import BOTH, MANUAL, OURS, PEERS, SUPERVISED
from contest.judging import FOLDS, ITSELF, USED, p_value, paired_p_value
from contest.tasks import TASKS, Task
from infobehavior.artefacts import write_atomically
from infobehavior.downstream.classifiers import CLASSIFIERS

RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
RECOMMENDED = "infobehavior-recommended"
LEVEL = 0.05
LINKING = "cosine"
TITLES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "recall_at_precision_95": "recall at 95 % precision",
    "recall_at_precision_50": "at 50 %",
    "reciprocal_rank": "MRR",
    "recall_at_1": "recall at 1",
    "recall_at_10": "recall at 10",
}


@dataclass(frozen=True)
class Found:
    """What is on disk of one task.

    Attributes:
        task: the task.
        content: of its JSON file.
    """

    task: Task
    content: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Those who took part, in the order of the contest."""
        order = [MANUAL, *OURS, *PEERS, SUPERVISED]
        every = [*order, *(BOTH + name for name in order)]
        return [name for name in every if name in self.content["runs"]]

    def values(self, name: str, classifier: str, metric: str, seeds: list[str] | None = None) -> list[float]:
        """A metric of all folds of all seeds."""
        runs = self.content["runs"].get(name, {})
        chosen = sorted(runs) if seeds is None else seeds
        return [value for seed in chosen for value in runs[seed]["measured"].get(classifier, {}).get(metric, [])]

    def common_seeds(self, *names: str) -> list[str]:
        """Seeds that all of them have."""
        return sorted(set.intersection(*(set(self.content["runs"].get(name, {})) for name in names)))

    def classifiers(self, name: str = MANUAL) -> list[str]:
        """Those that were used on someone's vectors."""
        measured = next(iter(self.content["runs"][name].values()))["measured"]
        return [classifier for classifier in (*USED, LINKING, ITSELF) if classifier in measured]


@dataclass(frozen=True)
class Goal:
    """A claim and how it stands.

    Attributes:
        claim: in words, with the figures.
        reached: whether the means have it.
        p: of a difference as large by chance.
    """

    claim: str
    reached: bool
    p: float

    def line(self) -> str:
        """For the page."""
        sure = "" if self.p < LEVEL else "; the difference may be chance"
        return f"- **{'reached' if self.reached else 'missed'}**: {self.claim} (p = {self.p:.2g}{sure})"


def write_page() -> None:
    """Write docs/results.md from docs/results/*/*.json."""
    found, validated = _read("test"), _read("validation")
    goals = [goal for one in found for goal in _goals(one)]
    parts = [_HEADER, "## Goals, missed ones first", ""]
    parts += [goal.line() for goal in sorted(goals, key=lambda goal: goal.reached)]
    parts += ["", *(_section(one) for one in found)]
    parts += [_VALIDATION, *(_section(one) for one in validated)] if validated else []
    write_atomically(PAGE, lambda path: _write_text(path, "\n".join(parts)))


def _read(part: str) -> list[Found]:
    """What is on disk of a part, in the order of the tasks."""
    files = ((task, RESULTS / part / f"{task.name}.json") for task in TASKS)
    return [Found(task, json.loads(file.read_text())) for task, file in files if file.exists()]


def _goals(found: Found) -> Iterator[Goal]:
    """What the representation is meant to reach on a task."""
    for rival in [MANUAL, *PEERS]:
        if not (seeds := found.common_seeds(RECOMMENDED, rival)):
            continue
        if found.task.label:
            used = ("lr", "gbdt") if rival == MANUAL else ("lr", "lr")
            ours, theirs = (
                found.values(name, classifier, "auc", seeds)
                for name, classifier in zip((RECOMMENDED, rival), used, strict=True)
            )
            yield _goal(
                found, f"representation with {used[0].upper()}", ours, f"{rival} with {used[1].upper()}", theirs
            )
        else:
            ours, theirs = (found.values(name, LINKING, "reciprocal_rank", seeds) for name in (RECOMMENDED, rival))
            yield _goal(found, "MRR of the representation", ours, rival, theirs)
    if found.task.label and (seeds := found.common_seeds(BOTH + RECOMMENDED, MANUAL)):
        yield _adds(found, seeds)


def _goal(found: Found, us: str, ours: list[float], them: str, theirs: list[float]) -> Goal:
    test = p_value(ours, theirs, FOLDS) if found.task.label else paired_p_value(ours, theirs)
    claim = f"{found.task.title}: {us} {mean(ours):.3f}, {them} {mean(theirs):.3f}"
    return Goal(claim, mean(ours) >= mean(theirs), test)


def _adds(found: Found, seeds: list[str]) -> Goal:
    """Both together against manual features alone, each with the classifier that is its best on average."""
    best = {}
    for metric in ("auc", "average_precision"):
        of_both, of_manual = (
            max((found.values(name, c, metric, seeds) for c in found.classifiers()), key=mean)
            for name in (BOTH + RECOMMENDED, MANUAL)
        )
        best[metric] = (of_both, of_manual)
    (auc, manual_auc), (precision, manual_precision) = best["auc"], best["average_precision"]
    reached = mean(auc) >= mean(manual_auc) + 0.01 or mean(precision) >= 1.1 * mean(manual_precision)
    claim = (
        f"{found.task.title}: manual features and the representation, AUC {mean(auc):.3f} and average precision "
        f"{mean(precision):.3f}; manual features alone {mean(manual_auc):.3f} and {mean(manual_precision):.3f}; meant "
        "to be 0.01 AUC or a tenth of the average precision more"
    )
    return Goal(claim, reached, p_value(auc, manual_auc, FOLDS))


def _section(found: Found) -> str:
    task, content = found.task, found.content
    some = next(iter(content["runs"].values()))
    first = some[min(some)]
    size = f"{content['accounts']:,} accounts" + (f", {content['positives']:,} positive" if task.label else "")
    metrics = [name for name in TITLES if name in next(iter(first["measured"].values()))]
    lines = [
        f"## {task.title}",
        "",
        f"{task.question} {size}"
        + (f"; {FOLDS} folds a seed" + (f", grouped by `{task.group}`." if task.group else ".") if task.label else "."),
        "",
        f"`PYTHONPATH=benchmarks python -m contest --task {task.name}`; {first['seconds']} seconds of training. "
        f"{in_words(first['machine'])}.",
        "",
        f"| features | seeds | steps | dimensions | classifier | {' | '.join(TITLES[name] for name in metrics)} |",
        "|---|---|---|---|---|" + "---|" * len(metrics),
    ]
    for name in found.names:
        runs = content["runs"][name]
        steps = ", ".join(f"{runs[seed]['report'].get('steps', 0):,}" for seed in sorted(runs))
        dim = runs[min(runs)]["report"].get("dim", "")
        for classifier in found.classifiers(name):
            cells = (_cell(found.values(name, classifier, metric), bool(task.label)) for metric in metrics)
            shown = CLASSIFIERS[classifier].title if classifier in CLASSIFIERS else classifier
            trained = "" if name == MANUAL else steps
            lines.append(f"| {name} | {len(runs)} | {trained} | {dim} | {shown} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_kinds(found)])


def _kinds(found: Found) -> list[str]:
    """AUC by kind of positives, where kinds are known."""
    measured = found.content["runs"][MANUAL]
    kinds = [name for name in next(iter(measured.values()))["measured"].get(USED[0], {}) if name.startswith("auc[")]
    if not kinds:
        return []
    lines = ["AUC of each kind of abnormal accounts against all normal ones:", ""]
    lines += [
        f"| features | classifier | {' | '.join(kind[4:-1] for kind in kinds)} |",
        "|---|---|" + "---|" * len(kinds),
    ]
    for name in found.names:
        for classifier in (one for one in USED if one in found.classifiers(name)):
            cells = (_cell(found.values(name, classifier, kind), True) for kind in kinds)
            lines.append(f"| {name} | {CLASSIFIERS[classifier].title} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(values: list[float], with_spread: bool) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if with_spread and len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


_VALIDATION = """\
# The validation part

The same, of the accounts by which the recipe was chosen: figures to choose by, not to believe.
"""

_HEADER = """\
# Results

Written by `python -m contest --page-only` from `docs/results/test/*.json`; don't edit.

Representations that are learnt without labels, ours and the peers', and hand-made features, on the same windows, the
same splits and with the same classifiers. Encoders learn for the same wall time on two threads, one after the other.

- `manual`: the features of `downstream/manual_features.sql.jinja`.
- `infobehavior-paper`, `infobehavior-recommended`: the two presets, with as many steps as fit into the time.
- `coles-gru`, `coles-transformer`: CoLES of pytorch-lifestream 0.5.3 in an environment of its own (`benchmarks/peers`).
- `supervised-gru`: the package's GRU, trained with labels on the first fold of each seed.
- `manual + …`: the hand-made features beside a representation.

A third of the accounts of each question (all of a person's together) is the validation part: the recipe
`recommended` was chosen on those, and no figure here is of them. All here are of the other two thirds. What a
classifier chooses it chooses inside its training fold. Means ± standard deviations are over all folds of all seeds;
a seed trains, splits and classifies anew. p is of a corrected resampled t-test (Nadeau and Bengio, 2003), of linking a
sign-flip test over accounts. Encoders see the windows that are evaluated, without labels, except for churn, where they
see nothing of a labelled account from its moment on, and the simulated market, where they see the two months before.
The logs are real but for the market, which is simulated; git_activity isn't in this repository: it describes people.
"""
