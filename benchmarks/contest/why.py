"""Where goals are missed, and what is known of why: only what is on disk."""

from collections.abc import Sequence
from statistics import mean

from contest.contestants import BOTH, MANUAL
from contest.found import RECOMMENDED, TOGETHER, TWO_MODELS_ALONE, Found, title_of
from contest.goals import METRICS, Goal
from contest.judging import FEW_LABELS, THIRDS, USED, auc_with
from contest.squares import SQUARES, WITH_SQUARES
from contest.trials import TRIALS

SHARES = {f"with {share * 100:.0f} % of the labels": auc_with(share) for share in sorted(FEW_LABELS)} | {
    "with all": "auc"
}
NOT_OF_A_KIND = "normal"
"""The kind of positives that are labelled so by mistake."""

ACTIVITY = {f"in the {name.removeprefix('auc of the ')}": name for name in THIRDS}


def why(every: Sequence[Found], goals: Sequence[Goal], validated: Sequence[Found]) -> list[str]:
    """A part of the page; nothing where no goal is missed."""
    lines = []
    for found in every:
        rivals = [goal.rival for goal in goals if goal.task == found.task.name and goal.stands == "missed"]
        if rivals and found.task.label:
            told = [_against(found, rival) for rival in dict.fromkeys([MANUAL, *rivals]) if rival != BOTH]
            lines.append(f"- {found.task.title}: {' '.join([*told, _two_models(found)])}")
    return [_ABOUT, *lines, "", _trials(validated), ""] if lines else []


def _against(found: Found, rival: str) -> str:
    """Where ours is ahead of a rival."""
    linear, other = USED
    kinds = {f"of {kind} ones": column for kind, column in found.kinds().items() if kind != NOT_OF_A_KIND}
    parts = [_differences(found, rival, columns, RECOMMENDED, linear) for columns in (SHARES, ACTIVITY, kinds)]
    parts += [
        _differences(
            found, rival, {"with all if ours has squares if better": "auc"}, SQUARES + RECOMMENDED, WITH_SQUARES
        ),
        _differences(found, rival, {f"with all if ours has {title_of(other)}": "auc"}, RECOMMENDED, other),
    ]
    return f"Against {rival}: {'; '.join(filter(None, parts))}."


def _differences(found: Found, rival: str, columns: dict[str, str], row: str, of_ours: str) -> str:
    """Of AUC, in a row of ours with a classifier, and with the better of two that the rival has there."""
    seeds = found.common_seeds(row, rival)
    told = []
    for title, column in columns.items():
        ours, *theirs = (
            found.values(name, classifier, column, seeds)
            for name, classifier in ((row, of_ours), *((rival, one) for one in USED))
        )
        if ours and all(theirs):
            told.append(f"{mean(ours) - max(map(mean, theirs)):+.3f} {title}")
    return ", ".join(told)


def _two_models(found: Found) -> str:
    """What a second model does without any representation."""
    seeds = found.common_seeds(*(way.name for way in (TOGETHER, *TWO_MODELS_ALONE)), MANUAL)
    if not seeds:
        return "The mean of two models isn't measured."
    added = []
    for ways in (TWO_MODELS_ALONE, (TOGETHER,)):
        differences = []
        for metric, title in METRICS.items():
            alone = max(mean(found.values(MANUAL, one, metric, seeds)) for one in USED)
            measured = [found.values(way.name, way.classifier, metric, seeds) for way in ways]
            differences.append(f"{max(map(mean, filter(None, measured))) - alone:+.3f} {title}")
        added.append(" and ".join(differences))
    return (
        f"Two models against the better of two classifiers on manual features: {added[0]} where both see manual "
        f"features, {added[1]} where one sees the representation."
    )


def _trials(validated: Sequence[Found]) -> str:
    """Of which settings of the recipe no trial is kept."""
    tried = {name: [found.task.name for found in validated if name in found.content["runs"]] for name in TRIALS}
    known = [f"`{_short(name)}` ({', '.join(tasks)})" for name, tasks in tried.items() if tasks]
    missing = [f"`{_short(name)}`" for name, tasks in tried.items() if not tasks]
    return (
        f"Of {len(TRIALS)} changes of one setting (`benchmarks/contest/trials.py`), measured on the validation part: "
        f"{', '.join(known) or 'none'}. Not measured, so nothing here tells what they are worth: "
        f"{', '.join(missing) or 'none'}."
    )


def _short(name: str) -> str:
    return name.removeprefix("trial: ")


_ABOUT = """\
## Why goals are missed

For each task with a missed goal, where ours is ahead (+) and where behind (-): AUC with logistic regression on the
values of the representation, less that of the rival with the better of logistic regression and LightGBM there. Many of
these differences of means are smaller than the spread between folds (see the tables), and they tell where ours falls
short, not why: causes would need trials.
"""
