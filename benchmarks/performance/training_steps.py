"""Prepares a training and takes some steps, as a process of its own whose memory can be measured.

The libraries are loaded before anything is measured.

    python -m performance.training_steps MINUTES CONFIG LIMIT FOLDER NUM_STEPS

LIMIT is how many minutes may be in memory, or 0 for all; more are kept on disk in FOLDER. Prints one line of
JSON at the end.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import duckdb  # noqa: F401
import pyarrow.parquet  # noqa: F401

from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.own_minutes import MemoryLimit
from infobehavior.pretraining.training import prepare_training
from performance.measure import AnonymousPeak, anonymous_bytes

FIRST_STEP_READ = 1_000_000
"""Reading is timed of steps that aren't taken, so that nobody has read their rows before."""


def main() -> int:
    """Prepare, take the steps, and say what each took."""
    minutes, settings, most, folder, num_steps = sys.argv[1:]
    config = PretrainConfig.model_validate_json(Path(settings).read_text())
    limit = MemoryLimit(int(most), Path(folder)) if int(most) else None
    idle = anonymous_bytes()
    with reproducible(config.num_threads):
        started = time.perf_counter()
        with AnonymousPeak() as peak:
            training = prepare_training(Path(minutes), config, None, None, limit=limit)
        prepared = time.perf_counter() - started
        training.model.train()
        taken = _seconds(training.step, range(int(num_steps)))
        read = _seconds(training.read, range(FIRST_STEP_READ, FIRST_STEP_READ + int(num_steps)))
    result = {
        "idle_bytes": idle,
        "peak_to_prepare": peak.num_bytes,
        "prepare": prepared,
        "step": median(taken),
        "read": median(read),
        "key": training.key,
    }
    print(json.dumps(result))
    return 0


def _seconds(work: Callable[[int], object], steps: Iterable[int]) -> list[float]:
    """How long each piece of work took."""
    seconds = []
    for step in steps:
        started = time.perf_counter()
        work(step)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
