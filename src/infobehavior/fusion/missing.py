"""How often groups are missing, and whether that is as it was in the training, which the threshold was chosen on"""

from collections.abc import Mapping
from dataclasses import dataclass

MORE_OFTEN, MORE_BY = 2.0, 0.05
"""A group that is missing more than so many times as often as in the training, and by more than this share, is told."""


@dataclass(frozen=True)
class GroupCounts:
    """What of a group is missing.

    Attributes:
        num_examples: of all.
        without: of them, those without the whole group.
        not_finite: numbers that are infinite or NaN, or vectors with such values or nulls: all taken as missing.
        unknown: categories that the training doesn't know.
    """

    num_examples: int
    without: int
    not_finite: int = 0
    unknown: int = 0

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        """Of both."""
        return GroupCounts(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def share(self) -> float:
        """Of the examples that are without the group."""
        return self.without / max(1, self.num_examples)


def reasons(counts: Mapping[str, GroupCounts]) -> dict[str, int]:
    """What is told of groups, by name; what never happened isn't."""
    told: dict[str, int] = {}
    for name, of in counts.items():
        told[f"without {name}, which counts as masked"] = of.without
        told[f"values of {name} that are infinite or NaN, which count as missing"] = of.not_finite
        told[f"values of {name} that training doesn't know"] = of.unknown
    return {reason: count for reason, count in told.items() if count}


def added(total: Mapping[str, GroupCounts], counts: Mapping[str, GroupCounts]) -> dict[str, GroupCounts]:
    """Both, by name."""
    return {name: total[name] + of if name in total else of for name, of in counts.items()}


def warnings_of(counts: Mapping[str, GroupCounts], trained: Mapping[str, GroupCounts]) -> list[str]:
    """A line for each group that is missing far more often than in the training."""
    return [
        f"warning: {name} is missing in {100 * of.share:.1f} % of the examples, in the training in "
        f"{100 * trained[name].share:.1f} %; what the threshold was chosen for may not hold"
        for name, of in counts.items()
        if of.share > MORE_OFTEN * trained[name].share and of.share > trained[name].share + MORE_BY
    ]
