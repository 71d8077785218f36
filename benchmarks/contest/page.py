"""docs/results.md: what the contest and the paper's tables found, misses first."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from machine import ROOT, in_words

from contest.contestants import BOTH, MANUAL, PEERS, PRESETS, SUPERVISED
from contest.judging import (
    FEW_LABELS,
    FOLDS,
    ITSELF,
    LINKING,
    RANK,
    STRONG_RANK,
    THIRDS,
    UNLABELLED,
    USED,
    Part,
    fewer,
    p_value,
    p_value_of_blocks,
)
from contest.tasks import TASKS, Task
from contest.trials import TRIALS
from infobehavior.artefacts import write_text
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.experiments.tables import Row

RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
RECOMMENDED = "infobehavior-recommended"
LEVEL = 0.05
TITLES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "recall_at_precision_95": "recall at 95 % precision",
    "recall_at_precision_50": "at 50 %",
    RANK: "MRR",
    STRONG_RANK: "MRR, surer pairs",
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
        order = [MANUAL, *PRESETS, *PEERS, SUPERVISED]
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
        return [classifier for classifier in (*USED, LINKING, UNLABELLED, ITSELF) if classifier in measured]


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
    by_name = {one.task.name: one for one in validated}
    goals = [goal for one in found for goal in _goals(one, by_name.get(one.task.name))]
    parts = [_HEADER, "## Goals, missed ones first", ""]
    parts += [goal.line() for goal in sorted(goals, key=lambda goal: goal.reached)]
    parts += ["", *(_section(one, "test") for one in found)]
    parts += [_table(json.loads(file.read_text())) for file in sorted((RESULTS / "tables").glob("*.json"))]
    parts += (
        [_VALIDATION, *_trials(validated), *(_section(one, "validation") for one in validated)] if validated else []
    )
    write_text(PAGE, "\n".join(parts))


def _read(part: str) -> list[Found]:
    """What is on disk of a part, in the order of the tasks."""
    files = ((task, RESULTS / part / f"{task.name}.json") for task in TASKS)
    return [Found(task, json.loads(file.read_text())) for task, file in files if file.exists()]


def _goals(found: Found, validated: Found | None) -> Iterator[Goal]:
    """What the representation is meant to reach on a task."""
    for rival in [MANUAL, *PEERS]:
        if seeds := found.common_seeds(RECOMMENDED, rival):
            yield _beats(found, rival, seeds) if found.task.label else _links_better(found, rival, seeds)
    if found.task.label and (seeds := found.common_seeds(BOTH + RECOMMENDED, MANUAL)):
        yield _adds(found, _chosen(validated), seeds)


def _beats(found: Found, rival: str, seeds: list[str]) -> Goal:
    """With logistic regression, a rival with the classifier that is its best."""
    ours = found.values(RECOMMENDED, "lr", "auc", seeds)
    best = max(USED, key=lambda classifier: mean(found.values(rival, classifier, "auc", seeds)))
    theirs = found.values(rival, best, "auc", seeds)
    claim = (
        f"{found.task.title}: AUC of the representation with logistic regression {mean(ours):.3f}, of {rival} with "
        f"{CLASSIFIERS[best].title} {mean(theirs):.3f}"
    )
    return Goal(claim, mean(ours) >= mean(theirs), p_value(ours, theirs, FOLDS))


def _links_better(found: Found, rival: str, seeds: list[str]) -> Goal:
    ours, theirs = ([found.values(name, LINKING, RANK, [seed]) for seed in seeds] for name in (RECOMMENDED, rival))
    means = [mean(value for of_seed in values for value in of_seed) for values in (ours, theirs)]
    claim = f"{found.task.title}: MRR of the representation {means[0]:.3f}, of {rival} {means[1]:.3f}"
    return Goal(claim, means[0] >= means[1], p_value_of_blocks(ours, theirs))


def _chosen(validated: Found | None) -> str:
    """The classifier for both together: the better one on the validation part, where that was measured."""
    name = BOTH + RECOMMENDED
    if validated is None or name not in validated.content["runs"]:
        return USED[0]
    return max(USED, key=lambda classifier: mean(validated.values(name, classifier, "auc")))


def _adds(found: Found, classifier: str, seeds: list[str]) -> Goal:
    """Both together against manual features with the classifier that is their best."""
    pairs = {}
    for metric in ("auc", "average_precision"):
        manual = max((found.values(MANUAL, one, metric, seeds) for one in USED), key=mean)
        pairs[metric] = (found.values(BOTH + RECOMMENDED, classifier, metric, seeds), manual)
    means = {metric: [mean(values) for values in pair] for metric, pair in pairs.items()}
    (auc, manual_auc), (precision, manual_precision) = means["auc"], means["average_precision"]
    by_precision = precision >= 1.1 * manual_precision
    claim = (
        f"{found.task.title}: manual features and the representation with {CLASSIFIERS[classifier].title}, AUC "
        f"{auc:.3f} and average precision {precision:.3f}; manual features alone, by the better of two classifiers, "
        f"{manual_auc:.3f} and {manual_precision:.3f}; meant to be 0.01 AUC or a tenth of the average precision more"
    )
    decisive = pairs["average_precision" if by_precision else "auc"]
    return Goal(claim, by_precision or auc >= manual_auc + 0.01, p_value(*decisive, FOLDS))


def _section(found: Found, part: Part) -> str:
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
        f"`PYTHONPATH=benchmarks python -m contest --task {task.name} --part {part} --seconds {first['seconds']}`, "
        f"{in_words(first['machine'])}.",
        "",
        "| features | seeds | steps | trained for | dimensions | classifier | "
        + " | ".join(TITLES[name] for name in metrics)
        + " |",
        "|---|---|---|---|---|---|" + "---|" * len(metrics),
    ]
    for name in found.names:
        runs = content["runs"][name]
        steps = ", ".join(f"{runs[seed]['report'].get('steps', 0):,}" for seed in sorted(runs))
        report = runs[min(runs)]["report"]
        dim = report.get("dim", "") if task.label else report.get("global_dim", report.get("dim", ""))
        spent = ", ".join(filter(None, (_spent(runs[seed]["report"]) for seed in sorted(runs))))
        for classifier in found.classifiers(name):
            cells = (_cell(found.values(name, classifier, metric), bool(task.label)) for metric in metrics)
            shown = CLASSIFIERS[classifier].title if classifier in CLASSIFIERS else classifier
            trained = " | " if name == MANUAL else f"{steps} | {spent}"
            lines.append(f"| {name} | {len(runs)} | {trained} | {dim} | {shown} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_curves(found), *_kinds(found)])


def _trials(validated: list[Found]) -> list[str]:
    """What the change of one setting of the recipe does to each task."""
    measures = [
        (found, classifier, metric)
        for found in validated
        for classifier, metric in ([(one, "auc") for one in USED] if found.task.label else [(LINKING, RANK)])
        if any(name in found.content["runs"] for name in TRIALS)
    ]
    if not measures:
        return []
    titles = (
        f"{found.task.name}, {CLASSIFIERS[one].title if one in CLASSIFIERS else TITLES[metric]}"
        for found, one, metric in measures
    )
    lines = [
        "## One setting changed at a time",
        "",
        f"`PYTHONPATH=benchmarks python -m contest --part validation --contestant {RECOMMENDED} 'trial: …'`; AUC, of "
        "linking MRR.",
        "",
        f"| recipe | {' | '.join(titles)} |",
        "|---|" + "---|" * len(measures),
    ]
    for name in (RECOMMENDED, *TRIALS):
        values = [found.values(name, classifier, metric) for found, classifier, metric in measures]
        if any(values):
            lines.append(f"| {name} | {' | '.join(_cell(one, with_spread=False) for one in values)} |")
    return ["\n".join([*lines, ""])]


def _curves(found: Found) -> list[str]:
    """AUC by how many labels are known, and by how active accounts are."""
    shares = {f"{share:.0%}": fewer("auc", share) for share in sorted(FEW_LABELS)} | {"100%": "auc"}
    thirds = {third.removeprefix("auc of the ").removesuffix(" third"): third for third in THIRDS}
    return [
        *_columns(found, "AUC where a share of the labels is known:", shares),
        *_columns(found, "AUC among a third of the accounts, by minutes with events in the window:", thirds),
    ]


def _columns(found: Found, about: str, columns: dict[str, str]) -> list[str]:
    """A table of some metrics (by their titles), with a row for each classifier of everyone who has them all."""
    lines = []
    for name in found.names:
        for classifier in found.classifiers(name):
            values = [found.values(name, classifier, column) for column in columns.values()]
            if all(values):
                cells = " | ".join(_cell(one, with_spread=True) for one in values)
                lines.append(f"| {name} | {CLASSIFIERS[classifier].title} | {cells} |")
    head = [about, "", f"| features | classifier | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    return [*head, *lines, ""] if lines else []


def _kinds(found: Found) -> list[str]:
    """AUC by kind of positives, where kinds are known."""
    runs = [run["measured"].get(USED[0], {}) for of_name in found.content["runs"].values() for run in of_name.values()]
    kinds = sorted({name for run in runs for name in run if name.startswith("auc[")})
    if not kinds:
        return []
    about = (
        "AUC of each kind of accounts that are labelled abnormal against all that are labelled normal (of `normal`, "
        "which are labelled by mistake):"
    )
    return _columns(found, about, {kind[4:-1]: kind for kind in kinds})


def _table(content: dict[str, Any]) -> str:
    """A table of the paper, which `paper_tables.py` made."""
    rows, counts = ([Row(**row) for row in content[name]] for name in ("rows", "counts"))
    steps, preset, table = content["config"]["num_steps"], content["preset"], content["table"]
    lines = [
        f"## {table.replace('table', 'Table ')} on the simulated market, preset `{preset}`",
        "",
        " ".join(f"{line}." for line in content["data"]),
        f"Means ± standard deviations over {len(content['seeds'])} seeds, each of which pre-trains, splits and "
        "classifies anew; in brackets the paper's figures, on its own data.",
        "",
        f"`PYTHONPATH=benchmarks python benchmarks/paper_tables.py --table {table} --preset {preset} "
        f"--num-steps {steps} --seeds {len(content['seeds'])}`, simulated, {in_words(content['machine'])}.",
        "",
    ]
    return "\n".join([*lines, *_markdown(rows), "", *(_markdown(counts) if counts else []), ""])


def _markdown(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    return lines + [f"| {row.name} | {' | '.join(row.cell(column) for column in columns)} |" for row in rows]


def _spent(report: dict[str, Any]) -> str:
    """Seconds of training."""
    seconds = report.get("seconds", {})
    took = seconds.get("pretrain", seconds.get("training"))
    return "" if took is None else f"{took:.0f} s"


def _cell(values: list[float], with_spread: bool) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if with_spread and len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


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
- `infobehavior-paper`, `infobehavior-two-cores`, `infobehavior-recommended`: the presets, with as many steps as fit
  into the time, which is told by a trial of twelve steps: *trained for* is what it took, reading and preparing
  included, which the peers' isn't. The encoder's products are in bfloat16 where the processor has it (peers have no
  such setting).
- `coles-gru`, `coles-transformer`: CoLES of pytorch-lifestream 0.5.3 in an environment of its own (`benchmarks/peers`).
- `supervised-gru`: the package's GRU, trained with labels on the first fold of each seed.
- `manual + …`: the hand-made features beside a representation.
- *no labels* in place of a classifier: the chance that nothing follows, as the model tells it, which no label has
  taught.

Accounts are in two parts, and a person's are all in the same: a third of the persons of bots and a third of those of
churn (of aircraft and of sellers, a third) are the validation part, by which the recipe `recommended` was chosen; all
figures here are of the others, but for those at the end. `two-cores`, on which it builds, was chosen earlier by
`label_corp` of all accounts, so that label is not unseen. What a classifier chooses it chooses inside its training
fold. For linking, ours is the global representation alone, which was better on the validation part than with what is
read off it. Means ± standard deviations are over all folds of all seeds; a seed trains, splits and classifies anew. p
is of a corrected resampled t-test (Nadeau and Bengio, 2003), of linking of a paired t-test over 20 blocks of accounts
that nothing connects; it isn't adjusted for the number of goals. Encoders see the windows that are evaluated, without
labels, except for churn, where they see nothing of a labelled account from its moment on, and the simulated market,
where they see the two months before. CoLES embeds the last 1,600 events of a window. The logs are real but for the
market, which is simulated; git_activity isn't in this repository: it describes people.
"""
