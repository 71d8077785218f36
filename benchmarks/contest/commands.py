"""By which commands and commits the rows of a task were made."""

import shlex
from collections.abc import Sequence

from contest.contestants import BOTH, MANUAL, PRESETS, SUPERVISED
from contest.found import Found
from contest.fused import FUSED
from contest.judging import Part
from contest.late import LATE
from contest.squares import SQUARES
from contest.tasks import Task
from contest.trials import TRIALS


def rows_of(contestant: str, task: Task) -> list[str]:
    """What a task measures of a contestant: itself, with its squares, and together with the hand-made features."""
    if contestant in (SUPERVISED, *TRIALS):
        rows = [contestant]
    elif contestant == MANUAL:
        rows = [MANUAL, SQUARES + MANUAL, LATE + MANUAL]
    else:
        fused = [FUSED + contestant] if contestant in PRESETS else []
        rows = [contestant, SQUARES + contestant, BOTH + contestant, *fused, LATE + BOTH + contestant]
    return [row for row in rows if task.label or not row.startswith((SUPERVISED, SQUARES, FUSED, LATE))]


def contestant_of(row: str) -> str:
    """Whose vectors are in a row, beside the hand-made features."""
    for before in (SQUARES, LATE, FUSED, BOTH):
        row = row.removeprefix(before)
    return row


def commands(found: Found, part: Part, names: Sequence[str]) -> list[str]:
    """What makes rows: one command for all contestants that had the same seconds of training and the same seeds."""
    together: dict[tuple[int, tuple[str, ...]], dict[str, None]] = {}
    for name in names:
        by_seconds: dict[int, list[str]] = {}
        for seed, run in found.content["runs"][name].items():
            by_seconds.setdefault(_asked_seconds(name, run["report"]["seconds_given"]), []).append(seed)
        for seconds, seeds in by_seconds.items():
            together.setdefault((seconds, tuple(sorted(seeds, key=int))), {})[contestant_of(name)] = None
    return [
        f"PYTHONPATH=benchmarks python -m contest --task {found.task.name} --part {part} --seconds {seconds} "
        f"--seed {' '.join(seeds)} --contestant {shlex.join(contestants)}"
        for (seconds, seeds), contestants in together.items()
    ]


def _asked_seconds(name: str, given: float) -> int:
    """`--seconds`, of which a trial may have had some times as many."""
    return round(given / TRIALS[name].times) if name in TRIALS else round(given)


def not_measured(found: Found, names: Sequence[str]) -> list[str]:
    """Rows that the commands would make as well, which aren't there yet."""
    contestants = dict.fromkeys(map(contestant_of, names))
    return [row for contestant in contestants for row in rows_of(contestant, found.task) if row not in names]


def commits(found: Found, names: Sequence[str]) -> str:
    """By which commit vectors were made and by which rows were judged, and which rows those are."""
    rows: dict[tuple[str, str], dict[str, None]] = {}
    for name in names:
        of_seed = _made_and_judged(found, name)
        is_one = len(set(of_seed.values())) == 1
        for seed, pair in of_seed.items():
            rows.setdefault(pair, {})[f"`{name}`" if is_one else f"`{name}` (seed {seed})"] = None
    return "; ".join(f"{_by(*pair)}: {', '.join(of_pair)}" for pair, of_pair in rows.items())


def _made_and_judged(found: Found, name: str) -> dict[str, tuple[str, str]]:
    """The commits, by seed; what has scores and no vectors is trained when it is judged."""
    runs = found.content["runs"][name]
    judged = {seed: runs[seed]["machine"]["commit"] for seed in sorted(runs, key=int)}
    return {seed: (runs[seed]["report"].get("commit", commit), commit) for seed, commit in judged.items()}


def _by(made: str, judged: str) -> str:
    return f"made and judged by commit {made}" if made == judged else f"made by commit {made}, judged by {judged}"
