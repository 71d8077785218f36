"""The contest in one table: each task a row, and who took part a column."""

from collections.abc import Sequence
from statistics import mean

from contest.contestants import MANUAL, PEERS, SUPERVISED
from contest.found import RECOMMENDED, TOGETHER, TWO_MODELS_ALONE, Found, Way, ways_alone
from contest.judging import ITSELF, LINKING, RANK
from contest.squares import SQUARES, WITH_SQUARES
from contest.tables import head

PAPER = "infobehavior-paper"
BY_ITSELF = (MANUAL, RECOMMENDED, SQUARES + RECOMMENDED, PAPER, *PEERS, SUPERVISED)
TWO_ALONE, TWO_TOGETHER = "manual, mean of two models", "manual and infobehavior-recommended, mean of two models"
METRICS = {"auc": "AUC; of linking MRR", "average_precision": "average precision"}

_ABOUT = """\
## At a glance

Means over folds and seeds of the test part, by logistic regression for ours (`squares: …`: with squares if better), and
for the others by the best of logistic regression, with squares and without, and LightGBM *on the test part*.
`supervised-gru` is one training on the first fold, so its figure isn't of the same accounts as the others' means.
*Two models* on manual features alone are, in each metric, the better of two ways of theirs on the test part.
Spreads, what may be chance and everything else are below. Empty: not measured, or not asked.
"""


def overview(every: Sequence[Found]) -> list[str]:
    """A table for each metric; nothing where nothing was found."""
    lines = []
    for metric, title in METRICS.items():
        columns = [title, "positive, of accounts", *BY_ITSELF, TWO_ALONE, TWO_TOGETHER]
        if rows := list(filter(None, (_row(found, metric) for found in every))):
            lines += [*head(columns), *rows, ""]
    return [_ABOUT, *lines] if lines else []


def _row(found: Found, metric: str) -> str:
    """Of a task; empty if none of its figures is this one."""
    asked = metric if found.task.label else RANK
    if metric != "auc" and asked == RANK:
        return ""
    cells = [_cell(found, _ways(found, name), asked) for name in BY_ITSELF]
    cells += [
        _cell(found, TWO_MODELS_ALONE, asked),
        _cell(found, [TOGETHER], asked),
    ]
    positives = f"{found.content['positives']:,} of " if found.task.label else ""
    size = f"{positives}{found.content['accounts']:,}"
    return f"| {found.task.title} | {size} | {' | '.join(cells)} |"


def _ways(found: Found, name: str) -> Sequence[Way]:
    """Rows and classifiers of which the best is shown."""
    if not found.task.label:
        return [Way(name, LINKING)]
    if name == SUPERVISED:
        return [Way(name, ITSELF)]
    if name.startswith(SQUARES):
        return [Way(name, WITH_SQUARES)]
    if name in (RECOMMENDED, PAPER):
        return ways_alone(name)[:1]
    return ways_alone(name)


def _cell(found: Found, ways: Sequence[Way], metric: str) -> str:
    means = [mean(values) for way in ways if (values := found.values(way.name, way.classifier, metric))]
    return f"{max(means):.3f}" if means else ""
