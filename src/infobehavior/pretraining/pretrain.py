"""`pretrain`: from minutes to a model (sections 3.3.4, 3.4 and 4.1)."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infobehavior.artefacts import definition_hash, write_atomically
from infobehavior.data.batches import Tokenizer
from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import cut_at, end_of_day, read_moments
from infobehavior.data.store import MinuteStore, load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.pretext.coarse import CoarseTask
from infobehavior.pretext.domain import CountTask, HistogramTask
from infobehavior.pretext.fine import FineTask
from infobehavior.pretext.labels import DomainLabel, check_domain_task, counted_behaviors, domain_label
from infobehavior.pretext.months import pair_months
from infobehavior.pretraining.checkpoint import CHECKPOINT_FILE, load_checkpoint, read_state, save_checkpoint
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.masking import draw_mask
from infobehavior.pretraining.pairs import PairSampler, seeded
from infobehavior.pretraining.schedule import learning_rate_at
from infobehavior.progress import progress

logger = logging.getLogger("infobehavior")
TRAINING_LOG = "_training_log.jsonl"


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
    torch.set_num_threads(config.num_threads)
    torch.use_deterministic_algorithms(True)
    training = _prepare(Path(minutes), config, until, as_of)
    if resume and (finished := _finished(out, training)):
        logger.info("%s is already trained", out)
        _remove_own_checkpoint(out, training)
        return finished
    _train(training, out, _start(training, out, resume))
    training.model.pretraining = {"config": config.model_dump(mode="json"), "key": training.key}
    training.model.save_pretrained(out)
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return training.model.eval()


@dataclass
class Training:
    """Everything that a step needs.

    Attributes:
        config: how to train.
        key: hash of whatever decides the result: data, vocabulary, configuration.
        model: the encoder.
        tasks: pretext tasks by name; leaving one out ablates it.
        sampler: which windows a step has.
        tokenizer: makes batches of windows.
        labels: labels of the domain-related tasks.
        optimizer: AdamW over encoder and tasks.
    """

    config: PretrainConfig
    key: str
    model: InfoBehavior
    tasks: nn.ModuleDict
    sampler: PairSampler
    tokenizer: Tokenizer
    labels: list[DomainLabel]
    optimizer: torch.optim.Optimizer

    @property
    def modules(self) -> nn.ModuleDict:
        """The encoder and the tasks' own layers."""
        return nn.ModuleDict({"model": self.model, "tasks": self.tasks})

    def step(self, step: int) -> dict[str, float]:
        """Take one step: equation 6, clipping, AdamW; gives each task's loss."""
        config = self.config
        windows = self.sampler.windows(step)
        batch = self.tokenizer.batch(windows)
        masked = draw_mask(batch.window_lengths, config.mask_rate, seeded(config.seed, 2, step))
        torch.manual_seed(int(seeded(config.seed, 3, step).integers(2**62)))
        labels: Mapping[str, Tensor] = {label.name: label.of(windows) for label in self.labels}
        months = pair_months(batch, self.model(batch, masked), masked, labels)
        losses = {_task_name(key): task(months) for key, task in self.tasks.items()}
        total = torch.stack(list(losses.values())).sum()
        rate = learning_rate_at(step, config.num_steps, config.learning_rate, config.warmup_proportion)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.modules.parameters(), config.clip_norm)
        self.optimizer.step()
        parts = {name: loss.item() for name, loss in losses.items()}
        return {"step": step + 1, "loss": total.item(), **parts, "learning_rate": rate}


def _prepare(path: Path, config: PretrainConfig, until: str | None, as_of: str | Path | None) -> Training:
    minutes = open_minutes(path)
    for line in config.domain_task:
        check_domain_task(line, minutes.schema)
    end = end_of_day(until or minutes.days[-1], minutes.schema)
    first = end - 2 * config.encoder.window_minutes if config.pairs == "latest" else None
    store = load_store(minutes, first, end, counted_behaviors=counted_behaviors(config.domain_task))
    if as_of is not None:
        store = cut_at(store, read_moments(as_of, minutes))
    vocabulary = Vocabulary.fit(store, minutes.hash, config.min_count)
    torch.manual_seed(config.seed)
    model = InfoBehavior(config.encoder, vocabulary, minutes.schema.time.time_zone)
    labels = [domain_label(line, store, minutes.schema) for line in config.domain_task]
    tasks = _tasks(config, labels)
    sampler = PairSampler(
        store, config.encoder.window_minutes, config.pairs, end, config.min_minutes, config.batch_size, config.seed
    )
    logger.info(
        "%d minutes of %d entities, %d with a pair of windows; %d behavior and %d location tokens",
        store.num_minutes,
        len(store.entities),
        sampler.num_entities,
        vocabulary.num_behavior_tokens,
        vocabulary.num_location_tokens,
    )
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *tasks.parameters()],
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    key = definition_hash([config.model_dump(exclude={"checkpoint_every"}), vocabulary.hash, end, _content_hash(store)])
    return Training(config, key, model, tasks, sampler, model.tokenizer(store), labels, optimizer)


def _tasks(config: PretrainConfig, labels: list[DomainLabel]) -> nn.ModuleDict:
    """The tasks that the configuration leaves in; each key tells the task's name in the log."""
    tasks = nn.ModuleDict()
    if config.coarse_task:
        tasks["coarse"] = CoarseTask(config.similarity, config.temperature, config.negatives)
    if config.fine_task:
        tasks["fine"] = FineTask(config.similarity, config.temperature, config.fine_reduction)
    for label in labels:
        make = HistogramTask if label.is_histogram else CountTask
        tasks[_module_key(label.name)] = make(label.name, config.encoder.model_dim, label.num_classes)
    if not tasks:
        raise InputError("no pretext task is left: leave the coarse or fine task in, or name a --domain-task")
    return tasks


def _module_key(name: str) -> str:
    """A task's name without dots, which a module's key can't have and a behavior's name can."""
    return name.replace("%", "%25").replace(".", "%2E")


def _task_name(key: str) -> str:
    return key.replace("%2E", ".").replace("%25", "%")


def _content_hash(store: MinuteStore) -> str:
    """Tells one set of minutes from another that has the same vocabulary.

    It depends on the rows alone: not on tokens, sets or entities that have no row, such as those that `as_of` cut off.
    """
    num_minutes = np.diff(store.offsets)
    sets = {"location": (store.location, store.location_sets)}
    sets |= {name: (ids, store.extra_sets[name]) for name, ids in store.extra.items()}
    columns = {
        "num_minutes": num_minutes[num_minutes > 0],
        **{name: getattr(store, name) for name in ("minute", "num_events", "num_failures")},
        **{f"count:{name}": counts for name, counts in store.behavior_counts.items()},
        "behavior": store.composites[store.behavior],
    }
    hashes = {name: hashlib.sha256(column.tobytes()).hexdigest() for name, column in columns.items()}
    return definition_hash([hashes, {name: _sets_hash(ids, names) for name, (ids, names) in sets.items()}])


def _sets_hash(ids: NDArray[np.int32], names: list[str]) -> str:
    """Hash of a column of sets, whatever the numbers that stand for them."""
    used = np.unique(ids[ids >= 0])
    by_name = sorted(used.tolist(), key=lambda i: names[i])
    rank = np.full(len(names) + 1, -1, dtype=np.int32)
    rank[by_name] = np.arange(len(by_name))
    return definition_hash([[names[i] for i in by_name], hashlib.sha256(rank[ids].tobytes()).hexdigest()])


def _finished(out: Path, training: Training) -> InfoBehavior | None:
    """The model in `out`, if this very training made it; another's is not overwritten by mistake."""
    if not (out / "config.json").exists():
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
