"""A training: its parts, made from minutes and a configuration, and its step (sections 3.3.4, 3.4.2 and 4.1.2)."""

import hashlib
import logging
import math
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infobehavior.artefacts import definition_hash
from infobehavior.data.batches import Tokenizer, WindowBatch
from infobehavior.data.clock import MINUTES_PER_DAY
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.data.moments import end_of_day, known_until, read_moments
from infobehavior.data.schema import Schema
from infobehavior.data.store import MinuteStore, content_hash
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
from infobehavior.pretraining.own_minutes import MemoryLimit, load_own, with_all_tokens
from infobehavior.pretraining.pairs import PairSampler, seeded
from infobehavior.pretraining.processes import Part, Processes
from infobehavior.pretraining.schedule import learning_rate_at
from infobehavior.pretraining.share import Share, draw_share, whole_step

logger = logging.getLogger("infobehavior")

NO_TASK = "no pretext task is left: leave the coarse or fine task in, or name a --domain-task"


@dataclass(frozen=True)
class StepInput:
    """What a process reads of a step: a pure function of (seed, step), and of which entities the process has.

    Attributes:
        batch: first windows, then second windows of the same entities.
        masked: True where a span is hidden from the Transformer.
        labels: of each domain-related task, the label of each window.
        share: which windows and masked spans of the whole step these are.
    """

    batch: WindowBatch
    masked: Tensor
    labels: Mapping[str, Tensor]
    share: Share


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
        processes: those that train it.
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
    processes: Processes

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.processes.device

    @property
    def modules(self) -> nn.ModuleDict:
        """The encoder and the tasks' own layers."""
        return nn.ModuleDict({"model": self.model, "tasks": self.tasks})

    def read(self, step: int) -> StepInput:
        """Draw a step's windows and masks, and make tokens and labels of them."""
        windows = self.sampler.windows(step)
        part = Part(torch.from_numpy(self.sampler.places(step)), 2 * self.sampler.num_pairs)
        batch = self.tokenizer.batch(windows)
        generator = seeded(self.config.seed, 2, step)
        share, masked = draw_share(part, batch.window_lengths, self.config.mask_rate, generator, self.processes)
        device = self.device
        labels = {label.name: label.of(windows).to(device) for label in self.labels}
        return StepInput(batch.to(device), masked.to(device), labels, share.to(device))

    def encode(self, given: StepInput) -> MonthPairs:
        """Encode what a step reads, in the precision that was asked for; gives the whole step in each process."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            encoded: Representations = self.model(given.batch, given.masked, wanted=given.masked)
        own = pair_months(given.batch, encoded.float(), given.masked, given.labels, self.model.readouts)
        return whole_step(own, given.share, self.processes)

    def read_ahead(self, steps: range) -> Generator[StepInput | None]:
        """What each step reads: while a GPU computes one step, a thread reads the next. None where a step is to read.

        The processor, where it computes, has no time for both; and several processes, which talk while they read, must
        all say the same in the same order.
        """
        if self.device.type == "cpu" or self.processes.size > 1:
            yield from repeat(None, len(steps))
            return
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self.read, step) for step in steps[:1]]
            for step in steps:
                given = coming.pop().result()
                coming += [reader.submit(self.read, following) for following in range(step + 1, steps.stop)[:1]]
                yield given

    def step(self, step: int, given: StepInput | None = None) -> dict[str, float]:
        """Take one step: equation 6, clipping, AdamW; gives each task's loss.

        Args:
            step: which one, counted from 0.
            given: what `read` gave of it, if it has been read.

        Of several processes each makes all losses of the whole step, of which it encodes a part; the sum of their
        gradients is that of the whole. So all take the same step.
        """
        config, given = self.config, given or self.read(step)
        # Dropout of the first of several processes is drawn as that of one alone: a last 0 changes no draw.
        torch.manual_seed(int(seeded(config.seed, 3, step, self.processes.rank).integers(2**62)))
        months = self.encode(given)
        losses = {_task_name(key): task(months) for key, task in self.tasks.items()}
        total = torch.stack(list(losses.values())).sum()
        rate = learning_rate_at(step, config.num_steps, config.learning_rate, config.warmup_proportion)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.processes.sum_gradients(self.modules.parameters())
        nn.utils.clip_grad_norm_(self.modules.parameters(), config.clip_norm)
        self.optimizer.step()
        parts = {name: loss.item() for name, loss in losses.items()}
        if not math.isfinite(total.item()):
            raise InputError(f"the loss of step {step + 1} is {total.item()}: use a lower learning_rate")
        return {"step": step + 1, "loss": total.item(), **parts, "learning_rate": rate}


def check_settings(config: PretrainConfig, schema: Schema) -> None:
    """Refuse what can't be trained with minutes of this schema on this machine, before any work is done.

    Raises:
        InputError: there is no such device, a domain-related task isn't known, or no task is left.
    """
    find_device(config.device)
    for line in config.domain_task:
        check_domain_task(line, schema)
    if not (config.coarse_task or config.fine_task or config.domain_task):
        raise InputError(NO_TASK)


def prepare_training(
    path: Path,
    config: PretrainConfig,
    until: str | None,
    as_of: str | Path | None,
    processes: Processes | None = None,
    limit: MemoryLimit | None = None,
) -> Training:
    """Read the minutes that training may see, and make everything that a step needs from them; see `pretrain`.

    Args:
        path: folder of minutes.
        config: how to train.
        until: see `pretrain`.
        as_of: see `pretrain`.
        processes: those that train, each with a part of the minutes; by default this one alone.
        limit: how many minutes a process may have in memory; by default all.
    """
    processes = processes or Processes(find_device(config.device))
    minutes, device = open_minutes(path), processes.device
    if config.precision == "bfloat16" and not multiplies_bfloat16(device):
        logger.warning("%s has no instructions for bfloat16: float32 would be faster, and more precise", device)
    check_settings(config, minutes.schema)
    until = until or minutes.days[-1].isoformat()
    end = end_of_day(until, minutes.schema)
    store, until_of = _seen(minutes, config, end, as_of, processes, limit)
    if processes.total(store.num_minutes) == 0:
        raise InputError(f"nothing is left to train on up to {until}; {path} begins {minutes.days[0]}")
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
        processes,
    )
    lines = _known_tasks(config, sampler, until_of)
    labels = [domain_label(line, store, minutes.schema, until_of) for line in lines]
    readouts = [label.readout for label in labels]
    model = InfoBehavior(config.encoder, vocabulary, minutes.schema.time.time_zone, readouts)
    tasks = _tasks(config, labels)
    for module in (model, tasks):
        module.to(device)
    parts = processes.gather(_part_seen(store, until_of, lines))
    num_minutes = sum(part["num_minutes"] for part in parts)
    logger.info(
        "%d minutes of %d entities, %d with a pair of windows; %d behavior and %d location tokens",
        num_minutes,
        sum(part["num_entities"] for part in parts),
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
    hashes = [one for part in parts for one in part["hashes"]]
    key = definition_hash([config.model_dump(exclude={"checkpoint_every"}), vocabulary.hash, end, *hashes])
    record = {
        "config": config.model_dump(mode="json"),
        "key": key,
        "trained_until": _iso(end),
        "as_of_sha256": None if as_of is None else hashlib.sha256(Path(as_of).read_bytes()).hexdigest(),
        "first_minute": _iso(min(minute for part in parts for minute in part["first_and_last"])),
        "last_minute": _iso(max(minute for part in parts for minute in part["first_and_last"])),
        "num_minutes": num_minutes,
        "num_entities_with_pairs": sampler.num_entities,
        "torch": torch.__version__,
        **({"num_processes": processes.size} if processes.size > 1 else {}),
    }
    tokenizer = model.tokenizer(store)
    store.expect_windows()
    return Training(config, key, model, tasks, sampler, tokenizer, labels, optimizer, record, processes)


def _seen(
    minutes: MinuteTable,
    config: PretrainConfig,
    end: int,
    as_of: str | Path | None,
    processes: Processes,
    limit: MemoryLimit | None,
) -> tuple[MinuteStore, NDArray[np.int64]]:
    """The minutes of this process that training may see, and until when anything may be known of each entity."""
    first = end - 2 * config.encoder.window_minutes if config.pairs == "latest" else None
    moments = None if as_of is None else read_moments(as_of, minutes)
    processes.agree_on_what_is_given(
        {
            "settings": config.model_dump(mode="json"),
            "last days": end,
            "moments": moments and moments.hash,
            "minutes": _told_apart(minutes, first, end),
        }
    )
    with_counts = need_counts(config.domain_task)
    store = load_own(minutes, first, end, moments, with_counts=with_counts, processes=processes, limit=limit)
    return with_all_tokens(store, processes), known_until(store, moments, end)


def _told_apart(minutes: MinuteTable, first: int | None, end: int) -> str:
    """Names the minutes that are read, by their schema and the sizes of their files, before any is read.

    Each process decides by itself which entities are its own: of other minutes it would decide otherwise.
    """
    files = [Path(file) for file in minutes.files(first, end)]
    return definition_hash([minutes.hash, [(file.parent.name, file.stat().st_size) for file in files]])


def _part_seen(store: MinuteStore, until_of: NDArray[np.int64], lines: list[str]) -> dict[str, Any]:
    """What a process tells the others of its minutes: how many there are, from when to when, and what names them."""
    hashes = [content_hash(store)]
    if any(days_of_next(line) is not None for line in lines):
        hashes.append(hashlib.sha256(until_of.tobytes()).hexdigest())
    return {
        "num_minutes": store.num_minutes,
        "num_entities": len(store.entities),
        "first_and_last": [int(store.minute.min()), int(store.minute.max())] if store.num_minutes else [],
        "hashes": hashes,
    }


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
        raise InputError(NO_TASK)
    return tasks


def _task_name(key: str) -> str:
    return key.replace("%2E", ".").replace("%25", "%")
