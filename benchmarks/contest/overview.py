"""The contest in one table: each task a row, and who took part a column."""

from collections.abc import Sequence
from statistics import mean

from contest.contestants import BOTH, MANUAL, PEERS, SUPERVISED
from contest.found import RECOMMENDED, Found
from contest.judging import ITSELF, LINKING, RANK, USED
from contest.late import LATE, MANUAL_ALONE, WITH_REPRESENTATION
from contest.tables import head

PAPER = "infobehavior-paper"
BY_ITSELF = (MANUAL, RECOMMENDED, PAPER, *PEERS, SUPERVISED)
ALONE, TOGETHER = "manual, mean of two models", "manual and infobehavior-recommended, mean of two models"
METRICS = {"auc": "AUC; of linking MRR", "average_precision": "average precision"}

_ABOUT = """\
## At a glance

Means over folds and seeds of the test part, by logistic regression for ours, and for the others by the better of
logistic regression and LightGBM *on the test part*. `supervised-gru` is one training on the first fold, so its figure
isn't of the same accounts as the others' means. Spreads, what may be chance and everything else are below. Empty: not
measured, or not asked.
"""


def overview(every: Sequence[Found]) -> list[str]:
    """A table for each metric; nothing where nothing was found."""
    lines = []
    for metric, title in METRICS.items():
        columns = [title, "positive, of accounts", *BY_ITSELF, ALONE, TOGETHER]
        if rows := list(filter(None, (_row(found, metric) for found in every))):
            lines += [*head(columns), *rows, ""]
    return [_ABOUT, *lines] if lines else []


def _row(found: Found, metric: str) -> str:
    """Of a task; empty if none of its figures is this one."""
    asked = metric if found.task.label else RANK
    if metric != "auc" and asked == RANK:
        return ""
    cells = [_cell(found, name, _classifiers(found, name), asked) for name in BY_ITSELF]
    cells += [
        _cell(found, LATE + MANUAL, (MANUAL_ALONE,), asked),
        _cell(found, LATE + BOTH + RECOMMENDED, (WITH_REPRESENTATION,), asked),
    ]
    positives = f"{found.content['positives']:,} of " if found.task.label else ""
    size = f"{positives}{found.content['accounts']:,}"
    return f"| {found.task.title} | {size} | {' | '.join(cells)} |"


def _classifiers(found: Found, name: str) -> Sequence[str]:
    """Among which the better one is shown."""
    if not found.task.label:
        return (LINKING,)
    if name == SUPERVISED:
        return (ITSELF,)
    return USED[:1] if name in (RECOMMENDED, PAPER) else USED


def _cell(found: Found, name: str, classifiers: Sequence[str], metric: str) -> str:
    means = [mean(values) for one in classifiers if (values := found.values(name, one, metric))]
    return f"{max(means):.3f}" if means else ""
