"""`pretrain`: from minutes to a model, with checkpoints on the way (section 4.1)."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from infobehavior.artefacts import TRAINING_LOG, write_atomically
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import CONFIG_FILE, InfoBehavior, check_model_folder
from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.checkpoint import CHECKPOINT_FILE, load_checkpoint, read_state, save_checkpoint
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.training import Training, prepare_training
from infobehavior.progress import progress

logger = logging.getLogger("infobehavior")


def pretrain(
    minutes: str | Path,
    out: str | Path,
    *,
    config: PretrainConfig | None = None,
    resume: bool = False,
    until: str | None = None,
    as_of: str | Path | None = None,
) -> InfoBehavior:
    """Train an encoder on minutes, without labels.

    Args:
        minutes: folder of minutes.
        out: folder for the model; it also holds the training log, and a checkpoint while training goes on.
        config: how to train; by default the paper's numbers.
        resume: go on from the checkpoint in `out`, to the same weights as if nothing had happened; start if none is
            there.
        until: last local day that training may see (YYYY-MM-DD); by default the last one there is.
        as_of: table of (entity_id, as_of); of the entities in it nothing at or after their (first) moment is used,
            neither for training nor for the vocabulary. Entities that aren't in it are used up to `until`.

    Returns:
        The trained model, as written to `out`.

    Raises:
        InputError: the minutes or the configuration can't be used, or `resume` finds another training's checkpoint.
    """
    config, out = config or PretrainConfig(), Path(out)
    check_model_folder(out)  # refuses a folder of something else before any work is done
    with reproducible(config.num_threads):
        training = prepare_training(Path(minutes), config, until, as_of)
        if resume and (finished := _finished(out, training)):
            logger.info("%s is already trained", out)
            _remove_own_checkpoint(out, training)
            return finished
        _train(training, out, _start(training, out, resume))
    training.model.pretraining = training.record
    training.model.save_pretrained(out)
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return training.model.eval()


def _finished(out: Path, training: Training) -> InfoBehavior | None:
    """The model in `out`, if this very training made it; another's is not overwritten by mistake."""
    if not (out / CONFIG_FILE).exists():
        return None
    model = InfoBehavior.from_pretrained(out)
    key = model.pretraining.get("key")
    if key == training.key:
        return model
    if not (out / CHECKPOINT_FILE).exists():
        raise InputError(
            f"{out} holds the finished model of training {key}, but these minutes and this configuration make "
            f"{training.key}: use the same ones, or start again without --resume"
        )
    return None


def _remove_own_checkpoint(out: Path, training: Training) -> None:
    """Remove what a kill between the model and the end of its training left."""
    state = read_state(out)
    if state is not None and state["key"] == training.key:
        (out / CHECKPOINT_FILE).unlink()


def _start(training: Training, out: Path, resume: bool) -> list[dict[str, float]]:
    """The log so far: empty, or, after restoring everything else, that of the checkpoint."""
    state = read_state(out) if resume else None
    if state is None:
        return []
    if state["key"] != training.key:
        raise InputError(
            f"{out / CHECKPOINT_FILE} is of training {state['key']}, but these minutes and this configuration make "
            f"{training.key}: use the same ones, or start again without --resume"
        )
    load_checkpoint(out, training.modules, training.optimizer)
    log: list[dict[str, float]] = state["log"]
    logger.info("going on after step %d of %d", len(log), training.config.num_steps)
    return log


def _train(training: Training, out: Path, log: list[dict[str, float]]) -> None:
    """Take the steps that are left, with a checkpoint now and then, and write the log."""
    config = training.config
    training.model.train()
    if not log:  # so that a disk that is full or can't be written to is found out before any work is done
        save_checkpoint(out, training.modules, training.optimizer, {"key": training.key, "log": log})
    started, before = time.monotonic(), len(log)
    with progress("pre-training", config.num_steps - before) as advance:
        for step in range(before, config.num_steps):
            log.append(training.step(step))
            pairs_per_second = (len(log) - before) * config.batch_size / (time.monotonic() - started)
            advance(note=f"loss {log[-1]['loss']:.3f}, {pairs_per_second:.0f} pairs/s")
            if (step + 1) % config.checkpoint_every == 0:
                save_checkpoint(out, training.modules, training.optimizer, {"key": training.key, "log": log})
    write_atomically(out / TRAINING_LOG, lambda path: _write_log(path, log))


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
