"""The part of docs/market.md that lists the market's parameters.

Run as a script (`make features`), it writes that part; a test compares.
"""

from infobehavior.cli.config_flags import config_fields
from infobehavior.market.config import MarketConfig
from source_tree import ROOT

PAGE = ROOT / "docs" / "market.md"
BEGIN, END = "<!-- written by tests/market_parameters_page.py -->\n", "<!-- parameters until here -->\n"


def part() -> str:
    """The list as it should be."""
    rows = ["| parameter | default | what it is |\n", "|---|---|---|\n"]
    for path, field in config_fields(MarketConfig):
        rows.append(f"| `--{path[-1].replace('_', '-')}` | {field.default} | {field.description} |\n")
    return "".join(rows)


def part_of_page() -> str:
    """The list as it is."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + part() + END + rest.partition(END)[2], encoding="utf-8")
