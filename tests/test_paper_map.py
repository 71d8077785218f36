"""The paper map names symbols that exist, and leaves no part of the paper out."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "paper_map.md").read_text(encoding="utf-8")
SYMBOLS = sorted(set(re.findall(r"`([a-z_.]+:[A-Za-z_.]+)`", TEXT)))
SECTIONS = [
    "3.1.1",
    "3.1.2",
    "3.2",
    "3.3.1",
    "3.3.2",
    "3.3.3",
    "3.3.4",
    "3.4.1",
    "3.4.2",
    "4.1.1",
    "4.1.2",
    "4.2.1",
    "4.2.2",
]
SECTIONS += ["4.2.3", "4.2.4", "4.2.5", "4.3", "4.3.1", "4.3.2", "4.4.1", "4.4.2"]
NUMBERED = [f"{what} {n}" for what, last in [("Figure", 5), ("Table", 4), ("Footnote", 6)] for n in range(1, last + 1)]


@cache
def first_cells() -> str:
    return "\n".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_symbols_exist(symbol: str) -> None:
    module, _, path = symbol.partition(":")
    owner = import_module(f"infobehavior.{module}")
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)

    assert hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


@pytest.mark.parametrize("part", [*SECTIONS, *NUMBERED, *(f"Equation {n}" for n in range(1, 7))])
def test_parts_of_the_paper_are_listed(part: str) -> None:
    assert re.search(rf"\b{re.escape(part)}\b", first_cells())
