"""Markdown tables."""

from collections.abc import Sequence


def head(columns: Sequence[str]) -> list[str]:
    """The first two lines."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
