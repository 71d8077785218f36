"""Ours trains by the clock, as the peers do: as many steps as fit into the time, and an end when it is up."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.training import Training, prepare_training

TRIAL_STEPS = 60
"""Steps by which the number of steps that fit into the time is told; the first two aren't timed. Batches differ: by
twelve steps a year's windows took a quarter longer than told."""


def train_within(
    seconds: float, minutes: Path, config: PretrainConfig, seen: dict[str, Any], out: Path
) -> tuple[InfoBehavior, dict[str, Any]]:
    """Train, and write the model.

    Args:
        seconds: of steps; reading, preparing and the trial aren't counted, as the peers' aren't.
        minutes: to train on.
        config: how, but for the number of steps, which the trial tells: the schedule of the learning rate needs to know
            it. If the machine is slower afterwards, the training ends before its schedule does.
        seen: `until` and `as_of`, see `infobehavior.pretrain`.
        out: folder of the model.

    Returns:
        The model, and what it took: seconds, steps, and steps that were planned.
    """
    started = time.monotonic()
    with reproducible(config.num_threads):
        planned = _steps_within(seconds, prepare_training(minutes, config, **seen))
        config = config.model_copy(update={"num_steps": planned})
        training = prepare_training(minutes, config, **seen)
        prepared = time.monotonic()
        steps = _steps_until(prepared + seconds, training)
    took = {"prepare": prepared - started, "pretrain": time.monotonic() - prepared}
    training.model.pretraining = training.record
    training.model.save_pretrained(out)
    return training.model.eval(), {"seconds": took, "steps": steps, "planned_steps": planned}


def _steps_within(seconds: float, training: Training) -> int:
    """How many steps fit into the time, as a trial tells."""
    training.model.train()
    took = []
    for step in range(TRIAL_STEPS):
        started = time.monotonic()
        training.step(step)
        took.append(time.monotonic() - started)
    return max(1, round(seconds / float(np.mean(took[2:]))))


def _steps_until(deadline: float, training: Training) -> int:
    """Take the training's steps, but begin none after the deadline; how many were taken."""
    training.model.train()
    for step in range(training.config.num_steps):
        training.step(step)
        if time.monotonic() >= deadline:
            return step + 1
    return training.config.num_steps
