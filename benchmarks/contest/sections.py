"""What was found of each task, as tables."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from machine import in_words

from contest.commands import commands, commits, not_measured
from contest.contestants import MANUAL, OURS, SUPERVISED
from contest.found import NOTABLE, RECOMMENDED, Found, cell, title_of
from contest.judging import (
    FEW_LABELS,
    FOLDS,
    LINKING,
    RANK,
    STRONG_RANK,
    THIRDS,
    USED,
    Part,
    auc_with,
)
from contest.late import LATE
from contest.squares import SQUARES
from contest.tables import head
from contest.tasks import NOT_UNSEEN, Task
from contest.trials import TRIALS
from infobehavior.downstream.cross_validation import INNER_SPLITS

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


def section(found: Found, part: Part) -> str:
    """All that is told of a task."""
    task, content = found.task, found.content
    size = f"{content['accounts']:,} accounts" + (f", {content['positives']:,} positive" if task.label else "")
    folds = f"; {FOLDS} folds a seed" + (f", grouped by `{task.group}`" if task.group else "") if task.label else ""
    known = [NOT_UNSEEN[task.name].sentence, ""] if part == "test" and task.name in NOT_UNSEEN else []
    lines = [
        f"## {task.title}",
        "",
        f"{task.question} {size}{folds}.",
        "",
        *known,
        *_how(found, part, found.names),
    ]
    return "\n".join([*lines, *_results(found), *_by_labels(found), *_by_activity(found), *_by_kind(found)])


def _how(found: Found, part: Part, names: Sequence[str]) -> list[str]:
    """How rows were made: commands, machine, commits, and by how much ours trained longer."""
    made = ", ".join(f"`{command}`" for command in commands(found, part, names))
    runs = [run for name in names for run in found.content["runs"][name].values()]
    machines = dict.fromkeys(
        in_words({name: value for name, value in run["machine"].items() if name != "commit"}) for run in runs
    )
    lines = [f"{made}, {'; or '.join(machines)}.", "", f"Rows {commits(found, names)}.", ""]
    if missing := ", ".join(f"`{row}`" for row in not_measured(found, names)):
        lines += [f"Not measured yet, which the command measures as well: {missing}.", ""]
    if on_record := found.with_split():
        lines += [f"Rows that keep a hash of their accounts, labels and folds: {len(on_record)} of {len(names)}.", ""]
    if cut := [f"{100 * share:.1f} % by `{name}`" for name, share in found.truncated().items() if share]:
        lines += [f"Windows of which the first events aren't seen: {', '.join(cut)}.", ""]
    lines += _kept_of_supervised(found, names)
    longer = {name: found.overtime(name) for name in names if name in OURS}
    told = [f"`{name}` by {share * 100:.0f} %" for name, share in longer.items() if share > NOTABLE]
    if told:
        lines += [f"Trained longer than was given: {', '.join(told)}. This favours ours; CoLES stops by the clock.", ""]
    told = [f"`{name}` by {-share * 100:.0f} %" for name, share in longer.items() if share < -NOTABLE]
    if told:
        lines += [f"Trained shorter than was given: {', '.join(told)}. This is against ours.", ""]
    return lines


def _kept_of_supervised(found: Found, names: Sequence[str]) -> list[str]:
    """Which step's weights of `supervised-gru` are judged."""
    if SUPERVISED not in names:
        return []
    reports = [run["report"] for run in found.content["runs"][SUPERVISED].values()]
    kept = ", ".join(f"{one['best_step']:,} of {one['steps']:,}" for one in reports if "best_step" in one)
    if not kept:
        return []
    return [
        f"`{SUPERVISED}` is judged as it was after {kept} steps, where its loss was least on what it chooses by.",
        "",
    ]


def _results(found: Found) -> list[str]:
    """The main table."""
    task, runs_of = found.task, found.content["runs"]
    first = next(iter(runs_of[found.names[0]].values()))["measured"]
    metrics = [name for name in TITLES if name in next(iter(first.values()))]
    columns = ["features", "seeds", "steps", "trained for", "dimensions", "classifier"]
    lines = head([*columns, *(TITLES[name] for name in metrics)])
    for name in found.names:
        runs = [runs_of[name][seed] for seed in sorted(runs_of[name])]
        report = runs[0]["report"]
        steps = ", ".join(f"{run['report'].get('steps', 0):,}" for run in runs)
        spent = ", ".join(filter(None, (_spent(run["report"]) for run in runs)))
        dim = report.get("dim", "") if task.label else report.get("global_dim", report.get("dim", ""))
        trained = " | " if name in (MANUAL, SQUARES + MANUAL, LATE + MANUAL) else f"{steps} | {spent}"
        for classifier in found.classifiers(name):
            cells = (cell(found.values(name, classifier, metric)) for metric in metrics)
            lines.append(f"| {name} | {len(runs)} | {trained} | {dim} | {title_of(classifier)} | {' | '.join(cells)} |")
    blocks = len(next(iter(first.values()))[RANK]) if RANK in metrics else 0
    about = (
        f"Asked about are those with a known alias, in {blocks} blocks; accounts that are connected are in the same. "
        "Figures, MRR among them, are means of the blocks' means ± standard deviations over blocks."
    )
    return [*([about, ""] if blocks else []), *lines, ""]


def _by_labels(found: Found) -> list[str]:
    """Learning curves: what there is to learn from are the training rows less those to choose by."""
    shares = {}
    for share in (*sorted(FEW_LABELS), 1.0):
        learnt = found.content.get("positives", 0) * share * (FOLDS - 1) / FOLDS * (INNER_SPLITS - 1) / INNER_SPLITS
        shares[f"{share:.0%} (about {max(1, round(learnt))} positives)"] = auc_with(share)
    about = "AUC where a share of both classes' labels is known (and how many positives are left to learn from):"
    return _columns(found, about, shares)


def _by_activity(found: Found) -> list[str]:
    """Accounts of about the same activity."""
    if not found.task.label:
        return []
    thirds = {}
    for third, size in zip(THIRDS, found.content["thirds"], strict=True):
        told = third.removeprefix("auc of the ").removesuffix(" third")
        minutes = f"{size['least_minutes']:,} to {size['most_minutes']:,}"
        thirds[f"{told}, {minutes} ({size['accounts']:,} accounts, {size['positives']:,} positive)"] = third
    return _columns(found, "AUC among accounts of a third, by minutes with events in the window:", thirds)


def _by_kind(found: Found) -> list[str]:
    """AUC by kind of positives, where kinds are known."""
    about = (
        "AUC of each kind of accounts that are labelled abnormal against all that are labelled normal (of `normal`, "
        "which are labelled by mistake):"
    )
    return _columns(found, about, found.kinds())


def _columns(found: Found, about: str, columns: dict[str, str]) -> list[str]:
    """A table of some metrics (by their titles), with a row for each classifier of everyone who has any of them."""
    lines = []
    for name in found.names:
        for classifier in found.classifiers(name):
            values = {column: found.values(name, classifier, column) for column in columns.values()}
            if any(of_column for column, of_column in values.items() if column != "auc"):
                num_folds = len(found.values(name, classifier, "auc"))
                cells = (cell(one, out_of=num_folds) for one in values.values())
                lines.append(f"| {name} | {title_of(classifier)} | {' | '.join(cells)} |")
    return [about, "", *head(["features", "classifier", *columns]), *lines, ""] if lines else []


def trials(validated: list[Found]) -> list[str]:
    """What the change of one setting of the recipe does to each task: AUC or MRR, less that of the recipe itself."""
    measures = [
        (found, classifier, metric)
        for found in validated
        for classifier, metric in ([(one, "auc") for one in USED] if found.task.label else [(LINKING, RANK)])
        if RECOMMENDED in found.content["runs"] and any(name in found.content["runs"] for name in TRIALS)
    ]
    if not measures:
        return []
    titles = [
        f"{_named(found.task)}, {title_of(one) if found.task.label else TITLES[metric]}"
        for found, one, metric in measures
    ]
    asked = dict.fromkeys(
        command
        for found, *_ in measures
        for command in commands(found, "validation", [n for n in (RECOMMENDED, *TRIALS) if n in found.content["runs"]])
    )
    lines = [
        "## One setting changed at a time",
        "",
        f"{', '.join(f'`{command}`' for command in asked)}. First AUC (of linking: MRR) of the recipe; below, how much "
        "more or less there is of it with one setting changed, of the same seeds and folds: mean ± standard deviation "
        "over folds.",
        "",
        *head(["recipe", "seeds", *titles]),
    ]
    own = [found.values(RECOMMENDED, classifier, metric) for found, classifier, metric in measures]
    seeds = max(len(found.content["runs"][RECOMMENDED]) for found, *_ in measures)
    lines.append(f"| {RECOMMENDED} | {seeds} | {' | '.join(cell(one) for one in own)} |")
    for name in TRIALS:
        common = [found.common_seeds(RECOMMENDED, name) for found, *_ in measures]
        if any(common):
            cells = (_difference(*measure, name, seeds) for measure, seeds in zip(measures, common, strict=True))
            lines.append(f"| {name} | {max(map(len, common))} | {' | '.join(cells)} |")
    return ["\n".join([*lines, ""])]


def _named(task: Task) -> str:
    """The name of a task, for a column; it says what is simulated, as the title does."""
    return task.name + " (simulated)" * ("(simulated)" in task.title)


def _difference(found: Found, classifier: str, metric: str, name: str, seeds: list[str]) -> str:
    """Of a changed recipe and the recipe itself, fold by fold."""
    theirs, ours = (found.values(who, classifier, metric, seeds) for who in (name, RECOMMENDED))
    values = [their - our for their, our in zip(theirs, ours, strict=True)]
    return f"{mean(values):+.3f} ± {stdev(values):.3f}" if len(values) > 1 else ""


def _spent(report: dict[str, Any]) -> str:
    """Seconds of training."""
    seconds = report.get("seconds", {})
    took = seconds.get("pretrain", seconds.get("training"))
    return "" if took is None else f"{took:.0f} s"
