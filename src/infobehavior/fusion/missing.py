"""How often groups are missing, and whether that is as it was in the training, which the threshold was chosen on"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MORE_OFTEN, MORE_BY = 2.0, 0.05
"""What is missing more than so many times as often as in the training, and by more than this share, is told."""


UNSURE = "what the threshold was chosen for may not hold"


@dataclass(frozen=True)
class GroupCounts:
    """What of a group is missing.

    Attributes:
        num_examples: of all.
        without: of them, those without the whole group.
        not_finite: numbers that are infinite or NaN, or vectors with such values or nulls: all taken as missing.
        unknown: categories that the training doesn't know.
        empty: of each column of numbers or categories that some lack who have the group: how many.
    """

    num_examples: int
    without: int
    not_finite: int = 0
    unknown: int = 0
    empty: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        """Of both."""
        return GroupCounts(
            self.num_examples + other.num_examples,
            self.without + other.without,
            self.not_finite + other.not_finite,
            self.unknown + other.unknown,
            dict(Counter(self.empty) + Counter(other.empty)),
        )

    @property
    def share(self) -> float:
        """Of the examples that are without the group."""
        return self.without / max(1, self.num_examples)

    @property
    def share_unknown(self) -> float:
        """Unknown categories for each example that has the group."""
        return self.unknown / max(1, self.num_examples - self.without)

    def share_empty(self, column: str) -> float:
        """Of the examples that have the group, those that lack a column of it."""
        return self.empty.get(column, 0) / max(1, self.num_examples - self.without)


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
    """A line for each group that is missing or unknown far more often than in the training, or of which columns are."""
    return [line for name, of in counts.items() for line in _warnings_of_group(name, of, trained[name])]


def _warnings_of_group(name: str, of: GroupCounts, trained: GroupCounts) -> list[str]:
    lines = [_warning(f"{name} is", of.share, trained.share)] if _is_more(of.share, trained.share) else []
    emptier = {
        column: of.share_empty(column)
        for column in of.empty
        if _is_more(of.share_empty(column), trained.share_empty(column))
    }
    if emptier:
        worst = max(emptier, key=lambda column: (emptier[column], column))
        others = f" and {len(emptier) - 1} more of its columns are" if len(emptier) > 1 else " is"
        lines.append(_warning(f"column {worst!r} of {name}{others}", emptier[worst], trained.share_empty(worst)))
    if _is_more(of.share_unknown, trained.share_unknown):
        lines.append(
            f"warning: {name} has {of.unknown} values in {of.num_examples} examples that training doesn't know, in the "
            f"training {trained.unknown} in {trained.num_examples}; {UNSURE}"
        )
    return lines


def _is_more(now: float, trained: float) -> bool:
    return now > MORE_OFTEN * trained and now > trained + MORE_BY


def _warning(what: str, now: float, trained: float) -> str:
    shares = f"{100 * now:.1f} % of the examples, in the training in {100 * trained:.1f} %"
    return f"warning: {what} missing in {shares}; {UNSURE}"
