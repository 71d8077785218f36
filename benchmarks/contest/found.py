"""What is on disk of one task, and how its figures are told."""

from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from contest.contestants import BOTH, MANUAL, PEERS, PRESETS, SUPERVISED
from contest.fused import FUSED, NETWORKS
from contest.judging import ITSELF, LINKING, UNLABELLED, USED
from contest.late import LATE, LATE_TITLES, MANUAL_ALONE, MANUAL_ON_VALUES, WITH_REPRESENTATION
from contest.squares import QUADRATIC, SQUARES, WITH_SQUARES
from contest.tasks import Task
from infobehavior.downstream.classifiers import CLASSIFIERS

RECOMMENDED = "infobehavior-recommended"
NOTABLE = 0.05
"""Ours trained longer or shorter than was given by more than this share of it: the page says so."""


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
        squares, both, fused, late = (
            [before + name for name in order] for before in (SQUARES, BOTH, FUSED, LATE + BOTH)
        )
        every = [*order, *squares, *both, *fused, LATE + MANUAL, *late]
        return [name for name in every if name in self.content["runs"]]

    def values(self, name: str, classifier: str, metric: str, seeds: list[str] | None = None) -> list[float]:
        """A metric of all folds of all seeds."""
        runs = self.content["runs"].get(name, {})
        chosen = sorted(runs) if seeds is None else seeds
        return [value for seed in chosen for value in runs[seed]["measured"].get(classifier, {}).get(metric, [])]

    def with_split(self) -> list[str]:
        """Those of whose rows it is on record by which accounts, labels and folds they were judged.

        Raises:
            ValueError: rows of the same seed are by others.
        """
        runs = [
            (name, seed, run.get("split")) for name in self.names for seed, run in self.content["runs"][name].items()
        ]
        splits = {(seed, split) for _, seed, split in runs if split}
        if len(splits) > len({seed for seed, _ in splits}):
            raise ValueError(f"{self.task.name}: rows of one seed were judged by different accounts or folds")
        without = {name for name, _, split in runs if not split}
        return [name for name in self.names if name not in without]

    def truncated(self) -> dict[str, float]:
        """Of those that see so many last events of a window at most: the share of windows that are cut, of one seed."""
        reports = {
            name: next(iter(self.content["runs"][name].values()))["report"] for name in PEERS if name in self.names
        }
        return {name: report.get("share_windows_truncated", 0.0) for name, report in reports.items()}

    def common_seeds(self, *names: str) -> list[str]:
        """Seeds that all of them have."""
        return sorted(set.intersection(*(set(self.content["runs"].get(name, {})) for name in names)))

    def classifiers(self, name: str = MANUAL) -> list[str]:
        """Those that were used on someone's vectors."""
        measured = next(iter(self.content["runs"][name].values()))["measured"]
        every = (*USED, WITH_SQUARES, LINKING, UNLABELLED, ITSELF, *NETWORKS, *LATE_TITLES)
        return [classifier for classifier in every if classifier in measured]

    def kinds(self) -> dict[str, str]:
        """Metrics of each kind of positives against all that are labelled negative, by kind, where kinds are known."""
        runs = [
            run["measured"].get(USED[0], {}) for of_name in self.content["runs"].values() for run in of_name.values()
        ]
        columns = sorted({name for run in runs for name in run if name.startswith("auc[")})
        return {column[len("auc[") : -1]: column for column in columns}

    def overtime(self, name: str) -> float:
        """By which share ours trained longer than was given, in the mean over seeds; others stop by the clock: 0."""
        reports = [run["report"] for run in self.content["runs"][name].values()]
        ours = [report for report in reports if "pretrain" in report.get("seconds", {})]
        took = [report["seconds"]["pretrain"] / report["seconds_given"] for report in ours]
        return mean(took) - 1 if took else 0.0


@dataclass(frozen=True)
class Way:
    """Rows of someone with a classifier.

    Attributes:
        name: of the rows.
        classifier: its key.
    """

    name: str
    classifier: str


TOGETHER = Way(LATE + BOTH + RECOMMENDED, WITH_REPRESENTATION)
"""Manual features and ours, by two models."""

TWO_MODELS_ALONE = (Way(LATE + MANUAL, MANUAL_ALONE), Way(LATE + MANUAL, MANUAL_ON_VALUES))
"""What a second model adds without any representation."""


def ways_alone(name: str) -> list[Way]:
    """The ways of someone's vectors by themselves, logistic regression first."""
    return [*(Way(name, classifier) for classifier in USED), Way(SQUARES + name, WITH_SQUARES)]


def title_of(classifier: str) -> str:
    """Of what stands in the column of classifiers."""
    if classifier in CLASSIFIERS:
        return CLASSIFIERS[classifier].title
    return {WITH_SQUARES: QUADRATIC.title, **LATE_TITLES}.get(classifier, classifier)


def cell(values: list[float], out_of: int = 0) -> str:
    """Mean and spread; and of how many folds, if some of `out_of` have no value."""
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    of_some = f" ({len(values)} of {out_of} folds)" if len(values) < out_of else ""
    return f"{mean(values):.3f}{spread}{of_some}"
