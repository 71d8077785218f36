"""Runs the contest and writes docs/results.md.

    PYTHONPATH=benchmarks python -m contest                                 # all tasks and contestants, then the page
    PYTHONPATH=benchmarks python -m contest --task churn --seed 0
    PYTHONPATH=benchmarks python -m contest --part validation --contestant infobehavior-recommended
    PYTHONPATH=benchmarks python -m contest --page-only                     # the page from docs/results/*.json

The event logs aren't in the repository; `--data` names their folder, and what isn't there is left out. Contestants that
learn, learn for `--seconds` of wall time on two threads, so run nothing else meanwhile.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT, machine
from numpy.typing import NDArray

from contest.contestants import BOTH, CONTESTANTS, MANUAL, SUPERVISED, decided_by, vectors
from contest.corpora import Prepared, is_there, prepare
from contest.judging import Asked, Measured, asked, classify, classify_supervised, link
from contest.page import RESULTS, write_page
from contest.tasks import CORPORA, TASKS, Task
from contest.trials import TRIALS
from infobehavior.artefacts import read_json, write_json
from infobehavior.threads import spin_briefly

PAIRS_FILE = "alias_pairs.parquet"
USUAL = [*(name for name in CONTESTANTS if name not in TRIALS), SUPERVISED]


def main() -> int:
    """Run what was asked for, then write the page."""
    spin_briefly()
    given = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not given.page_only:
        for corpus in CORPORA.values():
            tasks = [task for task in TASKS if task.corpus == corpus.name and task.name in (given.task or [task.name])]
            if not tasks:
                continue
            if not is_there(corpus, given.data):
                print(f"{corpus.name} is left out: there is no {given.data / corpus.log}", file=sys.stderr)
                continue
            _hold(prepare(corpus, given.data, given.work), tasks, given)
    write_page()
    return 0


def _hold(prepared: Prepared, tasks: list[Task], given: argparse.Namespace) -> None:
    """All contestants on one corpus, one seed after the other."""
    for seed in given.seed:
        for contestant in given.contestant or USUAL:
            if contestant == SUPERVISED:
                for task in tasks:
                    _judge_supervised(prepared, task, seed, given)
                continue
            made = vectors(prepared, contestant, given.seconds, seed, given.work)
            manual = vectors(prepared, MANUAL, given.seconds, seed, given.work)
            for task in tasks:
                features = made.of_window if task.label else made.for_linking
                _judge(prepared, task, contestant, features, made.report, seed, given)
                if contestant != MANUAL and contestant not in TRIALS:
                    both = np.hstack([manual.of_window, features])
                    _judge(prepared, task, BOTH + contestant, both, made.report, seed, given)


def _judge(
    prepared: Prepared,
    task: Task,
    name: str,
    features: NDArray[np.floating],
    report: dict[str, Any],
    seed: int,
    given: argparse.Namespace,
) -> None:
    """Measure vectors, if they aren't yet."""
    if not _is_kept(task, name, seed, report["decided_by"], given):
        windows = asked(prepared, task, given.part)
        _keep(task, name, seed, windows, _measure(task, windows, features, seed, given), report, given)


def _judge_supervised(prepared: Prepared, task: Task, seed: int, given: argparse.Namespace) -> None:
    """Train and measure the supervised GRU, if it isn't yet."""
    key = decided_by(prepared, SUPERVISED, given.seconds, seed)
    if task.label and not _is_kept(task, SUPERVISED, seed, key, given):
        windows = asked(prepared, task, given.part)
        folder = prepared.folder / f"{SUPERVISED}-{task.name}-{given.part}-{given.seconds}s-seed{seed}"
        measured, report = classify_supervised(
            prepared, windows, bool(task.group), folder, given.seconds, seed, given.work
        )
        _keep(task, SUPERVISED, seed, windows, measured, {**report, "decided_by": key}, given)


def _is_kept(task: Task, name: str, seed: int, key: str, given: argparse.Namespace) -> bool:
    """Whether it was measured, and nothing that decides it has changed since."""
    run = _kept(task, given).get("runs", {}).get(name, {}).get(str(seed), {})
    return bool(run) and run["report"].get("decided_by") == key


def _kept(task: Task, given: argparse.Namespace) -> dict[str, Any]:
    file = RESULTS / given.part / f"{task.name}.json"
    return read_json(file, "results") if file.exists() else {}


def _keep(
    task: Task,
    name: str,
    seed: int,
    windows: Asked,
    measured: Measured,
    report: dict[str, Any],
    given: argparse.Namespace,
) -> None:
    """Write what was measured, and tell it."""
    kept = _kept(task, given)
    run = {"measured": measured, "report": report, "seconds": given.seconds, "machine": machine()}
    kept.setdefault("runs", {}).setdefault(name, {})[str(seed)] = run
    kept["accounts"], kept["positives"] = int(windows.is_in.sum()), int(windows.of_part().positive.sum())
    write_json(RESULTS / given.part / f"{task.name}.json", kept)
    for classifier, metrics in measured.items():
        means = ", ".join(f"{metric} {np.mean(values):.3f}" for metric, values in metrics.items())
        print(f"{task.name} ({given.part}), seed {seed}, {name}, {classifier}: {means}", flush=True)


def _measure(
    task: Task, windows: Asked, features: NDArray[np.floating], seed: int, given: argparse.Namespace
) -> Measured:
    if task.label:
        return classify(windows, features, seed, grouped=bool(task.group))
    return link(windows, features, given.data / CORPORA[task.corpus].log / PAIRS_FILE, given.part)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="+", choices=[task.name for task in TASKS], help="by default all")
    parser.add_argument(
        "--contestant", nargs="+", choices=[*USUAL, *TRIALS], help="by default all but the trials of settings"
    )
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2], help="of trainings, folds and classifiers")
    parser.add_argument("--seconds", type=int, default=300, help="of training of each contestant on each corpus")
    parser.add_argument("--part", choices=["validation", "test"], default="test", help="whose accounts are asked about")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the logs")
    parser.add_argument("--work", type=Path, default=ROOT / "contest-work", help="folder for all that is made")
    parser.add_argument("--page-only", action="store_true", help="only write the page")
    given = parser.parse_args()
    if given.part == "test" and (trials := [name for name in given.contestant or [] if name in TRIALS]):
        parser.error(f"{trials[0]!r} is for choosing, so it is never tried on the test part; add --part validation")
    return given


if __name__ == "__main__":
    sys.exit(main())
