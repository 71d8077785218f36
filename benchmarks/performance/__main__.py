"""Measures speed and memory, and writes docs/performance.md.

    make bench                        # all parts
    make bench PART=encoder           # one part
    python -m performance --page-only # the page from docs/performance/*.json

Each part measures its sides in turn in one run, and writes docs/performance/PART.json.
"""

import argparse
import importlib
import json
import logging
import sys
import time
from pathlib import Path

from machine import ROOT, in_words, machine

from infobehavior.artefacts import write_atomically, write_json
from infobehavior.threads import spin_briefly
from performance.measure import MISSED, REACHED

PARTS = ("encoder", "pretraining", "embedding", "growth", "aggregation", "window")
RESULTS = ROOT / "docs" / "performance"
PAGE = ROOT / "docs" / "performance.md"


def main() -> int:
    """Measure, then write the page."""
    spin_briefly()
    given, measured_on = _arguments(), machine()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for part in () if given.page_only else given.part or PARTS:
        print(f"== {part}", flush=True)
        started = time.monotonic()
        given.work.mkdir(parents=True, exist_ok=True)
        result = importlib.import_module(f"performance.{part}").measure(given.data, given.work, given.small)
        described = {"machine": measured_on, "minutes": round((time.monotonic() - started) / 60, 1), "result": result}
        write_json(given.results / f"{part}.json", described)
        print(_section(part, described), flush=True)
    if not given.small:
        write_page()
    return 0


def write_page() -> None:
    """Write docs/performance.md from docs/performance/*.json."""
    measured = [(part, RESULTS / f"{part}.json") for part in PARTS]
    sections = [_section(part, json.loads(path.read_text())) for part, path in measured if path.exists()]
    absent = [part for part, path in measured if not path.exists()]
    not_measured = [f"## Not measured yet\n\nParts of `make bench`: {', '.join(absent)}."] if absent else []
    text = "\n\n".join([_HEADER, _goals(sections), *sections, *not_measured]) + "\n"
    write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))


def _section(part: str, described: dict) -> str:
    text = importlib.import_module(f"performance.{part}").section(described["result"])
    return f"{text}\n\nMeasured in {described['minutes']} minutes on {in_words(described['machine'])}."


def _goals(sections: list[str]) -> str:
    """All goals of the sections, those that were missed first."""
    lines = [line for section in sections for line in section.splitlines()]
    missed, reached = ([line for line in lines if line.startswith(beginning)] for beginning in (MISSED, REACHED))
    return "\n".join(["## Goals, missed and reached", "", *missed, *reached])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="one part; may be repeated; by default all")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the event logs")
    parser.add_argument("--work", type=Path, default=ROOT / "bench-work", help="folder for what is made on the way")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON files")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs; no page")
    parser.add_argument("--page-only", action="store_true", help="measure nothing")
    return parser.parse_args()


_HEADER = """\
# Performance

Written by `make bench` from `docs/performance/*.json`; don't edit.

The sides of each ratio are measured in one run, taking turns where nothing else is said, and figures are medians.
Absolute times are of a small, shared machine: believe the ratios. What is simulated says so. git_activity, commits in
67 public repositories, isn't in this repository, since it describes people; where it isn't, its figures are left out.
How threads wait for each other is said below each part (`OMP_WAIT_POLICY=PASSIVE` and `GOMP_SPINCOUNT`, as the command
line sets them), and holds for all sides but CoLES's, whose threads spin on and on, as is the default."""


if __name__ == "__main__":
    sys.exit(main())
