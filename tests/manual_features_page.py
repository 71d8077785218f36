"""docs/manual_features.md: each hand-made feature and what it means.

Run as a script (`make features`), it writes the page; a test compares.
"""

from itertools import groupby

from infobehavior.data.schema import PAPER_FAST, Columns, Schema
from infobehavior.downstream.manual_features import describe_features
from source_tree import ROOT

PAGE = ROOT / "docs" / "manual_features.md"
SCHEMA = Schema(
    columns=Columns(entity="who", timestamp="when", behavior="what", location="where"),
    behaviors={"BEHAVIOR": PAPER_FAST},
)
HEADER = """\
# Hand-made features

Written by `make features` from `describe_features`; don't edit.

The baseline of 4.2.2: what a fraud engineer would count, from the minutes of a window, in one SQL text
(`src/infobehavior/downstream/manual_features.sql.jinja`). A log with one behavior and a place has {count} of them.
Those with `[BEHAVIOR]` are there once for each behavior of the schema, and once, with `[]`, for all that it doesn't
list; those with `[location]` for each extra column too.

| feature | what it is |
|---|---|
"""


def page() -> str:
    """The page as it should be; neighbours that mean the same share a row."""
    features = describe_features(SCHEMA)
    told = [feature for feature in features if not feature.name.endswith("[]")]
    rows = []
    for meaning, alike in groupby(told, key=lambda feature: feature.meaning):
        first, *_, last = names = [feature.name for feature in alike] * 2
        shown = f"`{first}`" if first == last else f"`{first}` to `{last}`, {len(names) // 2} of them"
        rows.append(f"| {shown} | {meaning} |\n")
    return HEADER.format(count=len(features)) + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
