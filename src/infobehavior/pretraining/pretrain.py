"""`pretrain`: from minutes to a model, with checkpoints on the way (section 4.1)."""

import json
import logging
import os
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from infobehavior.artefacts import TRAINING_LOG, write_atomically
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import CONFIG_FILE, InfoBehavior, check_model_folder
from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.checkpoint import CHECKPOINT_FILE, load_checkpoint, read_state, save_checkpoint
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.own_minutes import MemoryLimit
from infobehavior.pretraining.processes import joined
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
    minutes_in_memory: int | None = None,
) -> InfoBehavior:
    """Train an encoder on minutes, without labels.

    Processes that `torchrun` has started train one model together: each reads a part of the minutes, and the first one
    writes. All must see the same folders.

    Args:
        minutes: folder of minutes.
        out: folder for the model; it also holds the training log, and a checkpoint while training goes on.
        config: how to train; by default the paper's numbers.
        resume: go on from the checkpoint in `out`, to the same weights as if nothing had happened; start if none is
            there. There must be as many processes as before.
        until: last local day that training may see (YYYY-MM-DD); by default the last one there is.
        as_of: table of (entity_id, as_of); of the entities in it nothing at or after their (first) moment is used,
            neither for training nor for the vocabulary. Entities that aren't in it are used up to `until`.
        minutes_in_memory: how many minutes with events a process may have in memory; by default all of its own. If it
            has more, their columns are on disk, in files without a name, which are gone when it ends, however it ends:
            in the folder that the environment's TMPDIR names, or else on the file system of `out`. They take 21
            bytes a minute, and some 20 more where counts of behaviors are a task. It changes no byte.

    Returns:
        The trained model, as written to `out`.

    Raises:
        InputError: the minutes or the configuration can't be used, or `resume` finds another training's checkpoint.
        ProcessLostError: another process has ended.
    """
    config, out = config or PretrainConfig(), Path(out)
    if minutes_in_memory is not None and minutes_in_memory < 1:
        raise InputError(f"minutes_in_memory must be 1 or more, got {minutes_in_memory}")
    check_model_folder(out)  # refuses a folder of something else before any work is done
    limit = None if minutes_in_memory is None else MemoryLimit(minutes_in_memory, _folder_of_columns(out))
    with reproducible(config.num_threads), joined(config.device) as processes:
        training = prepare_training(Path(minutes), config, until, as_of, processes, limit)
        finished = _finished(out, training) if resume else None
        log = _start(training, out, resume) if finished is None else []
        processes.agree_on_what_is_given(
            {"minutes": training.key, "models or checkpoints": [finished is None, len(log)]}
        )
        if finished is None:
            _train(training, out, log)
        else:
            logger.info("%s is already trained", out)
        if processes.is_first:
            _finish(training, out, has_model=finished is not None)
    return finished or training.model.eval()


def _folder_of_columns(out: Path) -> Path:
    """Where minutes go that are too many for memory; not simply to /tmp, which is often in memory too."""
    if chosen := os.environ.get("TMPDIR"):
        return Path(chosen)
    return next(folder for folder in (out, *out.absolute().parents) if folder.exists())


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
            f"{out} holds the finished model of training {key}, but these minutes, this configuration "
            f"and this number of processes make {training.key}: use the same ones, or start again without --resume"
        )
    return None


def _finish(training: Training, out: Path, *, has_model: bool) -> None:
    """Write the model, if it isn't there, and then remove the training's own checkpoint."""
    if has_model:
        state = read_state(out)
        if state is None or state["key"] != training.key:
            return
    else:
        training.model.pretraining = training.record
        training.model.save_pretrained(out)
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)


def _start(training: Training, out: Path, resume: bool) -> list[dict[str, float]]:
    """The log so far: empty, or, after restoring everything else, that of the checkpoint."""
    state = read_state(out) if resume else None
    if state is None:
        return []
    if state["key"] != training.key:
        raise InputError(
            f"{out / CHECKPOINT_FILE} is of training {state['key']}, but these minutes, this configuration "
            f"and this number of processes make {training.key}: use the same ones, or start again without --resume"
        )
    load_checkpoint(out, training.modules, training.optimizer)
    log: list[dict[str, float]] = state["log"]
    logger.info("going on after step %d of %d", len(log), training.config.num_steps)
    return log


def _train(training: Training, out: Path, log: list[dict[str, float]]) -> None:
    """Take the steps that are left, with a checkpoint now and then, and write the log."""
    config, is_first = training.config, training.processes.is_first
    training.model.train()
    if not log:  # so that a disk that is full or can't be written to is found out before any work is done
        _keep(training, out, log)
    started, before = time.monotonic(), len(log)
    with progress("pre-training", config.num_steps - before, told=is_first) as advance:
        steps = range(before, config.num_steps)
        with closing(training.read_ahead(steps)) as read:
            for step, given in zip(steps, read, strict=True):
                log.append(training.step(step, given))
                pairs_per_second = (len(log) - before) * config.batch_size / (time.monotonic() - started)
                advance(note=f"loss {log[-1]['loss']:.3f}, {pairs_per_second:.0f} pairs/s")
                if (step + 1) % config.checkpoint_every == 0:
                    _keep(training, out, log)
    if is_first:
        write_atomically(out / TRAINING_LOG, lambda path: _write_log(path, log))


def _keep(training: Training, out: Path, log: list[dict[str, float]]) -> None:
    """Write a checkpoint: the first process does, once it is known that the weights of all are the same."""
    processes = training.processes
    if processes.size > 1:
        weights = sha256(b"".join(one.detach().cpu().numpy().tobytes() for one in training.modules.parameters()))
        processes.agree(
            weights.hexdigest(),
            f"after {len(log)} steps the processes have different weights: use machines of one kind, with one version "
            "of PyTorch",
        )
    if processes.is_first:
        save_checkpoint(out, training.modules, training.optimizer, {"key": training.key, "log": log})


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
