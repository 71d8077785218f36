"""Pre-training end to end: pairs a second, what isn't the model, bfloat16, and the learning curve against the clock."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.training import Training, prepare_training
from performance.batches import prepare_minutes
from performance.measure import alternate, goal, summary, table
from performance.padded import PaddedInfoBehavior, as_torch_is
from performance.quality import WINDOW_DAYS, LabelledLog, measure_quality, quality_table, two_cores

SIDES = ("ours", "ours, bfloat16", "padded")
OUR_SETTINGS = "padded, our settings"
"""The padded recipe with oneDNN and deterministic; *padded* is with PyTorch's own choices."""

NUM_THREADS = PretrainConfig().num_threads
FIRST_VALIDATION_STEP = 1_000_000
"""Validation batches are those of steps that no training reaches."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        batch_size: entities of a step.
        repeats: timed steps of each side.
        curve_seconds: how long each side trains for the learning curve.
        curve_points: how often it is validated on the way.
        quality_steps: steps of each training whose precision is compared.
        quality_seeds: how many of them.
    """

    batch_size: int = 128
    repeats: int = 15
    curve_seconds: float = 120
    curve_points: int = 6
    quality_steps: int = 400
    quality_seeds: int = 3


SMALL = Sizes(batch_size=4, repeats=2, curve_seconds=2, curve_points=2, quality_steps=3, quality_seeds=1)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Everything of this part, on git_activity; nothing where it isn't."""
    minutes, sizes = prepare_minutes(data, work), SMALL if small else Sizes()
    if minutes is None:
        return {"absent": True}
    steps = _steps(minutes, sizes)
    curves = {side: _learning_curve(minutes, side, steps, sizes) for side in SIDES}
    precisions = {
        precision: two_cores(batch_size=sizes.batch_size, num_steps=sizes.quality_steps, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    quality = measure_quality(LabelledLog(minutes, data / "git_activity"), work, precisions, sizes.quality_seeds)
    return {"sizes": vars(sizes), "steps": steps, "curves": curves, "quality": quality}


def _training(minutes: Path, side: str, sizes: Sizes, num_steps: int) -> Training:
    """A training by our encoder or by the padded one, to the same weights but for rounding."""
    precision = "bfloat16" if side == "ours, bfloat16" else "float32"
    config = two_cores(batch_size=sizes.batch_size, num_steps=num_steps, precision=precision)
    training = prepare_training(minutes, config, None, None)
    if side.startswith("padded"):
        padded: Any = PaddedInfoBehavior(training.model)
        return replace(training, model=padded)
    return training


def _settings(side: str) -> AbstractContextManager[None]:
    """What PyTorch is told while a side runs."""
    return (as_torch_is if side == "padded" else reproducible)(NUM_THREADS)


def _steps(minutes: Path, sizes: Sizes) -> dict[str, Any]:
    """Seconds of a step of each side, and of what in it isn't the model."""
    trainings = {side: _training(minutes, side, sizes, 1_000) for side in (*SIDES, OUR_SETTINGS)}
    for training in trainings.values():
        training.model.train()
    runs = {side: _next_step(side, training.step) for side, training in trainings.items()}
    seconds = alternate({**runs, "reading": _next_step("ours", trainings["ours"].read)}, sizes.repeats, warm_up=2)
    return {
        "seconds": {side: summary(times) for side, times in seconds.items()},
        "pairs": trainings["ours"].sampler.windows(0).entity.size // 2,
    }


def _next_step(side: str, run: Callable[[int], object]) -> Callable[[], None]:
    """Each call runs the next step; all sides see the same ones."""
    steps = iter(range(1_000))

    def take() -> None:
        with _settings(side):
            run(next(steps))

    return take


def _learning_curve(minutes: Path, side: str, steps: dict[str, Any], sizes: Sizes) -> list[dict[str, float]]:
    """Validation loss on the way; the learning rate falls to nothing at the end, whose step `_steps` foretold."""
    num_steps = max(2, int(sizes.curve_seconds / steps["seconds"][side]["median"]))
    training, curve, spent = _training(minutes, side, sizes, num_steps), [], 0.0
    for step in range(num_steps):
        training.model.train()
        with _settings(side):
            started = time.perf_counter()
            training.step(step)
            spent += time.perf_counter() - started
        if (step + 1) * sizes.curve_points // num_steps > step * sizes.curve_points // num_steps:
            curve.append({"seconds": spent, "steps": step + 1, "loss": _validation_loss(training)})
    return curve


@torch.no_grad()
def _validation_loss(training: Training) -> float:
    training.model.eval()
    losses = []
    for step in range(FIRST_VALIDATION_STEP, FIRST_VALIDATION_STEP + 3):
        months = training.encode(training.read(step))
        losses.append(sum(task(months).item() for task in training.tasks.values()))
    return mean(losses)


def section(result: dict[str, Any]) -> str:
    """The tables of the page."""
    if "absent" in result:
        return "## Pre-training\n\nNot measured: git_activity isn't here."
    seconds = {side: times["median"] for side, times in result["steps"]["seconds"].items()}
    pairs, share = result["steps"]["pairs"], seconds["reading"] / seconds["ours"]
    rates = [
        [
            side,
            f"{seconds[side]:.3f} ({times['min']:.3f} to {times['max']:.3f})",
            f"{pairs / seconds[side]:.0f}",
            f"{seconds['padded'] / seconds[side]:.1f} ×",
        ]
        for side, times in result["steps"]["seconds"].items()
        if side != "reading"
    ]
    return "\n\n".join(
        [
            _TEXT.format(pairs=pairs, days=WINDOW_DAYS, threads=NUM_THREADS, repeats=result["sizes"]["repeats"]),
            table(["side", "seconds a step (least to most)", "pairs a second", "faster than padded"], rates),
            f"Reading a step's windows, tokens, masks and labels takes {seconds['reading']:.4f} s.",
            goal(f"reading takes less than 5 % of our step ({share:.1%})", share < 0.05),
            _curve_table(result),
            quality_table("What bfloat16 costs in quality.", "precision", result["quality"]),
        ]
    )


def _curve_table(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{number} of {result['sizes']['curve_points']}",
            *(f"{p['loss']:.2f} ({p['seconds']:.0f} s, {p['steps']} steps)" for p in points),
        ]
        for number, points in enumerate(zip(*(result["curves"][side] for side in SIDES), strict=False), start=1)
    ]
    text = (
        f"**Learning curve.** Each side trains for as many steps as {result['sizes']['curve_seconds']:.0f} s have by "
        "the medians above, with the learning rate falling to nothing at the end; the sum of all tasks' losses on "
        "three batches of windows of the same accounts, drawn by seeds that training doesn't use, without dropout; one "
        "seed; the sides train one after another, on a machine whose speed changes, so each cell has its own seconds:"
    )
    return f"{text}\n\n{table(['point', *SIDES], rows)}"


_TEXT = """\
## Pre-training

`make bench PART=pretraining`, on git_activity, windows of {days} days, preset `two-cores`, {pairs} pairs a step,
{threads} threads, medians of {repeats} steps that take turns. A step is all that training does: drawing windows,
tokens, masks and labels, encoder, tasks, backward, clipping, AdamW. *Padded* is the same training with the paper's
padded recipe for an encoder, by the libraries that PyTorch chooses; *padded, our settings* by those that we choose, and
deterministic."""
