"""What the representation is meant to reach, how that stands, and how both together stand against peers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean
from typing import Literal

from contest.contestants import BOTH, MANUAL, PEERS
from contest.found import NOTABLE, RECOMMENDED, TOGETHER, TWO_MODELS_ALONE, Found, Way, title_of, ways_alone
from contest.judging import FOLDS, LINKING, RANK, USED, p_value, p_value_of_blocks
from contest.late import LATE, WITH_REPRESENTATION
from contest.squares import WITH_SQUARES
from contest.tasks import NOT_UNSEEN

LEVEL = 0.05
TIED = 0.0005
"""Smaller differences are nothing: they wouldn't be seen in the figures of the page."""

Standing = Literal["missed", "tied", "reached"]
STANDINGS: tuple[Standing, ...] = ("missed", "tied", "reached")
METRICS = {"auc": "AUC", "average_precision": "average precision"}


@dataclass(frozen=True)
class Goal:
    """A claim and how it stands.

    Attributes:
        task: name of the task.
        rival: whose rows ours is compared with.
        claim: in words, with the figures.
        stands: what the means say of it.
        p: of a difference as large by chance.
        marks: what else to know before it is believed.
    """

    task: str
    rival: str
    claim: str
    stands: Standing
    p: float
    marks: tuple[str, ...] = ()

    def line(self, adjusted: float) -> str:
        """For the page; with p as `holm` adjusts it."""
        return f"- **{self.stands}**: {self.claim} ({'; '.join([_chance(self.p, adjusted), *self.marks])})"


def goal_lines(goals: Sequence[Goal]) -> list[str]:
    """Missed ones first."""
    adjusted = holm([goal.p for goal in goals])
    pairs = sorted(zip(goals, adjusted, strict=True), key=lambda pair: STANDINGS.index(pair[0].stands))
    return [goal.line(p) for goal, p in pairs]


def holm(values: Sequence[float]) -> list[float]:
    """P of several tests, adjusted for their number by Holm's method (1979), in the same order; each is a number."""
    adjusted, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = largest
    return adjusted


def _chance(p: float, adjusted: float) -> str:
    return f"p = {p:.2g}, by Holm {adjusted:.2g}" + ("" if adjusted < LEVEL else ", may be chance")


def goals_of(found: Found, validated: Found | None) -> Iterator[Goal]:
    """What the representation is meant to reach on a task."""
    for rival in [MANUAL, *PEERS]:
        if seeds := found.common_seeds(RECOMMENDED, rival):
            yield _beats(found, rival, seeds) if found.task.label else _links_better(found, rival, seeds)
    if found.task.label and (compared := _together_and_alone(found, validated)):
        yield _adds(found, *compared)


def _marks(found: Found, rival: str) -> tuple[str, ...]:
    """That ours had more time than a peer, and that a task wasn't unseen."""
    more = found.overtime(RECOMMENDED) if rival in PEERS else 0.0
    longer = [f"ours had {more * 100:.0f} % more time"] if more > NOTABLE else []
    known = [NOT_UNSEEN[found.task.name].mark] if found.task.name in NOT_UNSEEN else []
    return tuple(longer + known)


def _standing(ours: float, theirs: float) -> Standing:
    if abs(ours - theirs) < TIED:
        return "tied"
    return "reached" if ours > theirs else "missed"


def _alone(found: Found, name: str, seeds: Sequence[str]) -> list[Way]:
    """The ways of someone's vectors by themselves that have all of these seeds, logistic regression first."""
    return [way for way in ways_alone(name) if set(seeds) <= set(found.common_seeds(way.name))]


def _beats(found: Found, rival: str, seeds: list[str]) -> Goal:
    """With logistic regression, that with squares if it was measured; a rival in the way that is its best."""
    linear, *others = _alone(found, RECOMMENDED, seeds)
    way = next((other for other in others if other.classifier == WITH_SQUARES), linear)
    ours = _values(way, found, "auc", seeds)
    on_values = f" (on values alone {mean(_values(linear, found, 'auc', seeds)):.3f})" if way != linear else ""
    best = max(_alone(found, rival, seeds), key=lambda way: mean(_values(way, found, "auc", seeds)))
    theirs = _values(best, found, "auc", seeds)
    title = title_of(way.classifier)
    claim = (
        f"{found.task.title}: AUC of the representation with {title[0].lower()}{title[1:]} {mean(ours):.3f}{on_values}"
        f", of {rival} with {title_of(best.classifier)} {mean(theirs):.3f}"
    )
    p = p_value(ours, theirs, FOLDS)
    return Goal(found.task.name, rival, claim, _standing(mean(ours), mean(theirs)), p, _marks(found, rival))


def _links_better(found: Found, rival: str, seeds: list[str]) -> Goal:
    ours, theirs = ([found.values(name, LINKING, RANK, [seed]) for seed in seeds] for name in (RECOMMENDED, rival))
    means = [mean(chain.from_iterable(values)) for values in (ours, theirs)]
    claim = f"{found.task.title}: MRR of the representation {means[0]:.3f}, of {rival} {means[1]:.3f}"
    p = p_value_of_blocks(ours, theirs)
    return Goal(found.task.name, rival, claim, _standing(*means), p, _marks(found, rival))


def _together_and_alone(found: Found, validated: Found | None) -> tuple[Way, list[Way], list[str]] | None:
    """What stands for both together, the ways of manual features alone, and the seeds that all of them have.

    Both together are the mean of two models, which the validation part decided once for all tasks, and then manual
    features may have two models as well. Where that wasn't measured, they are side by side in one classifier.
    """
    if seeds := found.common_seeds(TOGETHER.name, LATE + MANUAL, MANUAL):
        two_models = [way for way in TWO_MODELS_ALONE if _values(way, found, "auc", seeds)]
        return TOGETHER, [*_alone(found, MANUAL, seeds), *two_models], seeds
    if seeds := found.common_seeds(BOTH + RECOMMENDED, MANUAL):
        return Way(BOTH + RECOMMENDED, _chosen(validated)), _alone(found, MANUAL, seeds), seeds
    return None


def _chosen(validated: Found | None) -> str:
    """The classifier for both side by side: the better one on the validation part, where that was measured."""
    name = BOTH + RECOMMENDED
    if validated is None or name not in validated.content["runs"]:
        return USED[0]
    return max(USED, key=lambda classifier: mean(validated.values(name, classifier, "auc")))


def _adds(found: Found, together: Way, alone: list[Way], seeds: list[str]) -> Goal:
    """Both together against manual features in the way that is their best, of each metric and of the test part."""
    pairs = {
        metric: (_best([together], found, metric, seeds), _best(alone, found, metric, seeds)) for metric in METRICS
    }
    means = {metric: [mean(values) for values in pair] for metric, pair in pairs.items()}
    (auc, manual_auc), (precision, manual_precision) = means["auc"], means["average_precision"]
    by_precision = precision >= 1.1 * manual_precision
    claim = (
        f"{found.task.title}: manual features and the representation ({title_of(together.classifier)}), AUC "
        f"{auc:.3f} and average precision {precision:.3f}; manual features alone, by the best of {len(alone)} ways, "
        f"{manual_auc:.3f} and {manual_precision:.3f}; meant to be 0.01 AUC or a tenth of the average precision more"
    )
    decisive = pairs["average_precision" if by_precision else "auc"]
    stands: Standing = "reached" if by_precision or auc >= manual_auc + 0.01 else "missed"
    return Goal(found.task.name, BOTH, claim, stands, p_value(*decisive, FOLDS), _marks(found, BOTH))


def _best(ways: list[Way], found: Found, metric: str, seeds: list[str]) -> list[float]:
    """The values of the way whose mean is the highest."""
    return max((_values(way, found, metric, seeds) for way in ways), key=mean)


def _values(way: Way, found: Found, metric: str, seeds: Sequence[str]) -> list[float]:
    """Of all folds of these seeds."""
    return found.values(way.name, way.classifier, metric, list(seeds))


@dataclass(frozen=True)
class Beside:
    """Manual features and ours against manual features and a peer.

    Attributes:
        about: the task, the way and the peer, in words.
        pairs: of each metric, ours and the peer's of each fold.
        marks: as a goal has them.
    """

    about: str
    pairs: dict[str, tuple[list[float], list[float]]]
    marks: tuple[str, ...] = ()

    @property
    def p(self) -> list[float]:
        """Of each metric."""
        return [p_value(*pair, FOLDS) for pair in self.pairs.values()]

    def line(self, adjusted: Sequence[float]) -> str:
        """For the page; with p of each metric as `holm` adjusts them."""
        words = {"missed": "behind", "tied": "tied", "reached": "ahead"}
        means = {METRICS[metric]: (mean(ours), mean(theirs)) for metric, (ours, theirs) in self.pairs.items()}
        stands = ", ".join(f"{title} {words[_standing(*pair)]}" for title, pair in means.items())
        figures = [
            f"{title} {ours:.3f} and {theirs:.3f} (p = {p:.2g}, by Holm {holms:.2g})"
            for (title, (ours, theirs)), p, holms in zip(means.items(), self.p, adjusted, strict=True)
        ]
        marks = f" ({'; '.join(self.marks)})" if self.marks else ""
        return f"- **{stands}**: {self.about}: {', '.join(figures)}{marks}"


def beside_lines(every: Sequence[Found]) -> list[str]:
    """A line for each task and peer."""
    compared = [one for found in every if found.task.label for one in _beside(found)]
    adjusted = iter(holm([p for one in compared for p in one.p]))
    return [one.line([next(adjusted) for _ in one.p]) for one in compared]


def _beside(found: Found) -> Iterator[Beside]:
    """By the mean of two models where both have it; else by the better of two classifiers on both side by side."""
    for peer in PEERS:
        for before, classifiers, way in (
            (LATE + BOTH, (WITH_REPRESENTATION,), "mean of two models"),
            (BOTH, USED, "side by side, of each metric by the better of two classifiers"),
        ):
            if seeds := found.common_seeds(before + RECOMMENDED, before + peer):
                ours, theirs = ([Way(before + who, one) for one in classifiers] for who in (RECOMMENDED, peer))
                pairs = {
                    metric: (_best(ours, found, metric, seeds), _best(theirs, found, metric, seeds))
                    for metric in METRICS
                }
                about = f"{found.task.title}, {way}, manual features with ours and with {peer}"
                yield Beside(about, pairs, _marks(found, peer))
                break
