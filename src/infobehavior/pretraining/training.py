"""A training: its parts, made from minutes and a configuration, and its step (sections 3.3.4, 3.4.2 and 4.1.2)."""

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infobehavior.artefacts import definition_hash
from infobehavior.data.batches import Tokenizer, WindowBatch
from infobehavior.data.clock import MINUTES_PER_DAY
from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import cut_at, end_of_day, known_until, read_moments
from infobehavior.data.store import content_hash, load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.errors import InputError
from infobehavior.model.device import find_device, multiplies_bfloat16
from infobehavior.model.infobehavior import InfoBehavior, Representations
from infobehavior.model.readouts import module_key
from infobehavior.pretext.coarse import CoarseTask
from infobehavior.pretext.domain import DOMAIN_TASKS
from infobehavior.pretext.fine import FineTask
from infobehavior.pretext.labels import DomainLabel, check_domain_task, days_of_next, domain_label, need_counts
from infobehavior.pretext.months import MonthPairs, pair_months
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.masking import draw_mask
from infobehavior.pretraining.pairs import PairSampler, seeded
from infobehavior.pretraining.schedule import learning_rate_at

logger = logging.getLogger("infobehavior")


@dataclass(frozen=True)
class StepInput:
    """What a step reads: a pure function of (seed, step).

    Attributes:
        batch: first windows, then second windows of the same entities.
        masked: True where a span is hidden from the Transformer.
        labels: of each domain-related task, the label of each window.
    """

    batch: WindowBatch
    masked: Tensor
    labels: Mapping[str, Tensor]


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
        record: what the model's card says of its training, for auditors: what it was allowed to see, and how.
    """

    config: PretrainConfig
    key: str
    model: InfoBehavior
    tasks: nn.ModuleDict
    sampler: PairSampler
    tokenizer: Tokenizer
    labels: list[DomainLabel]
    optimizer: torch.optim.Optimizer
    record: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return torch.device(self.config.device)

    @property
    def modules(self) -> nn.ModuleDict:
        """The encoder and the tasks' own layers."""
        return nn.ModuleDict({"model": self.model, "tasks": self.tasks})

    def read(self, step: int) -> StepInput:
        """Draw a step's windows and masks, and make tokens and labels of them."""
        windows = self.sampler.windows(step)
        batch = self.tokenizer.batch(windows)
        masked = draw_mask(batch.window_lengths, self.config.mask_rate, seeded(self.config.seed, 2, step))
        device = self.device
        labels = {label.name: label.of(windows).to(device) for label in self.labels}
        return StepInput(batch.to(device), masked.to(device), labels)

    def encode(self, given: StepInput) -> MonthPairs:
        """Encode what a step reads, in the precision that was asked for."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            encoded: Representations = self.model(given.batch, given.masked, wanted=given.masked)
        return pair_months(given.batch, encoded.float(), given.masked, given.labels, self.model.readouts)

    def step(self, step: int) -> dict[str, float]:
        """Take one step: equation 6, clipping, AdamW; gives each task's loss."""
        config, given = self.config, self.read(step)
        torch.manual_seed(int(seeded(config.seed, 3, step).integers(2**62)))
        months = self.encode(given)
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
        if not math.isfinite(total.item()):
            raise InputError(f"the loss of step {step + 1} is {total.item()}: use a lower learning_rate")
        return {"step": step + 1, "loss": total.item(), **parts, "learning_rate": rate}


def prepare_training(path: Path, config: PretrainConfig, until: str | None, as_of: str | Path | None) -> Training:
    """Read the minutes that training may see, and make everything that a step needs from them; see `pretrain`."""
    minutes, device = open_minutes(path), find_device(config.device)
    if config.precision == "bfloat16" and not multiplies_bfloat16(device):
        logger.warning("%s has no instructions for bfloat16: float32 would be faster, and more precise", device)
    for line in config.domain_task:
        check_domain_task(line, minutes.schema)
    end = end_of_day(until or minutes.days[-1], minutes.schema)
    first = end - 2 * config.encoder.window_minutes if config.pairs == "latest" else None
    store = load_store(minutes, first, end, with_counts=need_counts(config.domain_task))
    until_of = known_until(store, None if as_of is None else read_moments(as_of, minutes), end)
    if as_of is not None:
        store = cut_at(store, until_of)
    if store.num_minutes == 0:
        raise InputError(
            f"nothing is left to train on up to {until or minutes.days[-1]}; {path} begins {minutes.days[0]}"
        )
    vocabulary = Vocabulary.fit(store, minutes.hash, config.min_count)
    torch.manual_seed(config.seed)
    sampler = PairSampler(
        store,
        config.encoder.window_minutes,
        config.pairs,
        end,
        config.min_minutes,
        config.batch_size,
        config.seed,
        minutes.schema.time.time_zone,
        config.lengths,
    )
    lines = _known_tasks(config, sampler, until_of)
    labels = [domain_label(line, store, minutes.schema, until_of) for line in lines]
    readouts = [label.readout for label in labels]
    model = InfoBehavior(config.encoder, vocabulary, minutes.schema.time.time_zone, readouts)
    tasks = _tasks(config, labels)
    for module in (model, tasks):
        module.to(device)
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
    decided_by = [config.model_dump(exclude={"checkpoint_every"}), vocabulary.hash, end, content_hash(store)]
    if any(days_of_next(line) is not None for line in lines):
        decided_by.append(hashlib.sha256(until_of.tobytes()).hexdigest())
    key = definition_hash(decided_by)
    record = {
        "config": config.model_dump(mode="json"),
        "key": key,
        "trained_until": _iso(end),
        "as_of_sha256": None if as_of is None else hashlib.sha256(Path(as_of).read_bytes()).hexdigest(),
        "first_minute": _iso(int(store.minute.min())),
        "last_minute": _iso(int(store.minute.max())),
        "num_minutes": store.num_minutes,
        "num_entities_with_pairs": sampler.num_entities,
        "torch": torch.__version__,
    }
    return Training(config, key, model, tasks, sampler, model.tokenizer(store), labels, optimizer, record)


def _known_tasks(config: PretrainConfig, sampler: PairSampler, until_of: NDArray[np.int64]) -> list[str]:
    """The domain-related tasks that have a label to learn from; what comes next may lie where training can't see."""
    known = []
    for line in config.domain_task:
        days = days_of_next(line)
        if days is None or sampler.is_followed(days * MINUTES_PER_DAY, until_of):
            known.append(line)
        else:
            logger.info("%s is left out: no second window is followed by %d days that training may see", line, days)
    return known


def _iso(minute: int) -> str:
    """A UTC epoch minute for people."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).isoformat(timespec="minutes")


def _tasks(config: PretrainConfig, labels: list[DomainLabel]) -> nn.ModuleDict:
    """The tasks that the configuration leaves in; each key tells the task's name in the log."""
    tasks = nn.ModuleDict()
    if config.coarse_task:
        tasks["coarse"] = CoarseTask(config.similarity, config.temperature, config.negatives)
    if config.fine_task:
        tasks["fine"] = FineTask(config.similarity, config.temperature, config.fine_reduction)
    for label in labels:
        tasks[module_key(label.name)] = DOMAIN_TASKS[label.readout.kind](label.name)
    if not tasks:
        raise InputError("no pretext task is left: leave the coarse or fine task in, or name a --domain-task")
    return tasks


def _task_name(key: str) -> str:
    return key.replace("%2E", ".").replace("%25", "%")
