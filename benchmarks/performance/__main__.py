"""Measures speed and memory, and writes docs/performance.md.

    make bench                        # all parts
    make bench PART=encoder           # one part
    make bench PART=encoder DEVICE=cuda
    python -m performance --page-only # the page from docs/performance/*.json

Each part measures its sides in turn in one run, and writes docs/performance/PART.json.
"""

import argparse
import importlib
import json
import logging
import time
from pathlib import Path

from ending import exit_with
from machine import ROOT, in_words, machine

from infobehavior.artefacts import write_atomically, write_json
from infobehavior.threads import spin_briefly
from performance.measure import MISSED, REACHED

ENCODER = "encoder"
ON_GPU = "-on-gpu"
PARTS = (ENCODER, "pretraining", "memory", "embedding", "growth", "aggregation", "window", "market")
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
        where = {"device": given.device} if part == ENCODER else {}
        result = importlib.import_module(f"performance.{part}").measure(given.data, given.work, given.small, **where)
        described = {"machine": measured_on, "minutes": round((time.monotonic() - started) / 60, 1), "result": result}
        name = part if given.device == "cpu" else part + ON_GPU
        write_json(given.results / f"{name}.json", described)
        print(_section(part, described), flush=True)
    if not given.small:
        write_page()
    return 0


def write_page() -> None:
    """Write docs/performance.md from docs/performance/*.json."""
    files = [RESULTS / f"{name}.json" for name in (ENCODER, ENCODER + ON_GPU, *PARTS[1:])]
    measured = [(file.stem.removesuffix(ON_GPU), json.loads(file.read_text())) for file in files if file.exists()]
    sections = [_section(part, described) for part, described in measured]
    absent = [file.stem for file in files if not file.exists()]
    commands = "; ".join(f"{name}: `make bench PART={_part_of(name)}`" for name in absent)
    not_measured = [_NOT_MEASURED.format(commands=commands)] if absent else []
    text = "\n\n".join([_HEADER, _goals(sections), *sections, *not_measured]) + "\n"
    write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))


def _section(part: str, described: dict) -> str:
    text = importlib.import_module(f"performance.{part}").section(described["result"])
    return f"{text}\n\nMeasured in {described['minutes']} minutes on {in_words(described['machine'])}."


def _part_of(name: str) -> str:
    """What makes a file, as options of `make bench`."""
    return f"{name.removesuffix(ON_GPU)} DEVICE=cuda" if name.endswith(ON_GPU) else name


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
    parser.add_argument(
        "--device", default="cpu", help="of the encoder: cpu, or a GPU as PyTorch calls it, such as cuda"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs; no page")
    parser.add_argument("--page-only", action="store_true", help="measure nothing")
    given = parser.parse_args()
    if given.device != "cpu" and given.part != [ENCODER]:
        parser.error("--device is for --part encoder alone")
    return given


_HEADER = """\
# Performance

Written by `make bench` from `docs/performance/*.json`; don't edit.

The sides of each ratio are measured in one run, taking turns where nothing else is said, and figures are medians.
Absolute times are of a small, shared machine: believe the ratios. What is simulated says so. git_activity, commits in
67 public repositories, isn't in this repository, since it describes people; where it isn't, its figures are left out.
How threads wait for each other is said below each part (`OMP_WAIT_POLICY=PASSIVE` and `GOMP_SPINCOUNT`, as the command
line sets them), and holds for all sides but CoLES's, whose threads spin on and on, as is the default."""

_NOT_MEASURED = """\
## Not measured yet

{commands}."""


if __name__ == "__main__":
    exit_with(main)
