"""What the peers that train share: arguments, the encoder of events, a quiet trainer, outputs by length.

The scripts' Lightning is 2, which refuses modules that still have the hooks of 1 for the end of an epoch. The package's
modules do, and use them only to log metrics, so `fit` hides them.
"""

import argparse
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from ptls.data_load.datasets import MemoryMapDataset
from ptls.data_load.iterable_processing import SeqLenFilter, ToTorch
from ptls.data_load.utils import collate_feature_dict
from ptls.nn import TrxEncoder
from sequences import batches_by_length
from torch import nn

CATEGORY_DIM = 16
OLD_HOOKS = ("training_epoch_end", "validation_epoch_end", "test_epoch_end")


class Budget(pl.Callback):
    """Stops training after some seconds of it or, if given, after exactly so many steps; keeps the losses.

    Args:
        seconds: wall time from the first batch's loading, without what is done inside `paused`.
        steps: 0 leaves it to the seconds.
    """

    def __init__(self, seconds: float, steps: int) -> None:
        self.seconds, self.steps = seconds, steps
        self.losses: list[float] = []
        self.spent = self.pause = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if time or steps are used up."""
        self.losses.append(float(outputs["loss"]))
        self.spent = time.perf_counter() - self.started - self.pause
        trainer.should_stop = len(self.losses) >= self.steps if self.steps else self.spent >= self.seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Don't count what is done inside."""
        started = time.perf_counter()
        yield
        self.pause += time.perf_counter() - started


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments of every peer that trains."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("events", type=Path, help="Parquet: entity_id, timestamp and the columns")
    made.add_argument("moments", type=Path, help="Parquet: entity_id, as_of, and for supervision positive and part")
    made.add_argument("--window-days", type=int, required=True, help="days before a moment that are seen")
    made.add_argument("--columns", nargs="+", default=["behavior", "location", "outcome"], help="categories")
    budget = made.add_mutually_exclusive_group(required=True)
    budget.add_argument("--seconds", type=float, default=0, help="of training; reading and preprocessing not counted")
    budget.add_argument("--steps", type=int, default=0, help="of training, exactly, instead of seconds")
    made.add_argument("--time-zone", default="UTC", help="of hours and days of the week")
    made.add_argument("--max-events", type=int, default=1_600, help="last events of a window that are seen")
    made.add_argument("--batch-size", type=int, default=64, help="entities or windows in a batch of training")
    made.add_argument(
        "--precision", choices=["32-true", "bf16-mixed"], default="32-true", help="of the products of training"
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=os.cpu_count())
    made.add_argument("--out", type=Path, required=True, help="table to write: entity_id, as_of, and what was made")
    made.add_argument("--report", type=Path, required=True, help="JSON to write: seconds, steps, losses, sizes")
    return made


def event_encoder(sizes: dict[str, int], numbers: Iterable[str], dim: int = 0) -> Any:
    """The package's encoder of single events, as in its demos: 16 numbers for a category, and a little noise.

    Args:
        sizes: of each categorical column, how many codes it has.
        numbers: columns taken as they are, batch-normalised.
        dim: size of what comes out, through a linear layer; 0 leaves the layer out.
    """
    return TrxEncoder(
        embeddings_noise=0.003,
        numeric_values=dict.fromkeys(numbers, "identity"),
        embeddings={name: {"in": size, "out": CATEGORY_DIM} for name, size in sizes.items()},
        linear_projection_size=dim,
    )


def start(seed: int, threads: int) -> None:
    """Seed everything, set the threads, and silence what Lightning says of idle cores and torch of its prototypes."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
    torch.set_num_threads(threads)
    pl.seed_everything(seed, verbose=False)


def fit(module: Any, data: Any, budget: Budget, precision: str, *callbacks: pl.Callback) -> dict[str, Any]:
    """Train on the CPU until the budget is used up, leave nothing on disk, and tell how it went."""
    for hook in OLD_HOOKS:
        setattr(module, hook, None)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        callbacks=[budget, *callbacks],
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    steps = len(budget.losses)
    return {
        "steps": steps,
        "epochs": steps / trainer.num_training_batches,
        "training_seconds": budget.spent,
        "precision": precision,
        "last_losses": budget.losses[-20:],
    }


def tensors(records: list[dict[str, Any]], min_events: int = 0) -> MemoryMapDataset:
    """The package's data set of the records that have enough events."""
    return MemoryMapDataset(records, i_filters=[ToTorch(), SeqLenFilter(min_seq_len=min_events)])


def outputs(model: nn.Module, records: MemoryMapDataset, max_steps: int) -> NDArray[np.float32]:
    """What the model makes of each record, in their order, without gradients; NaN for records without events.

    Args:
        model: from a padded batch to one row per record.
        records: as of `tensors`.
        max_steps: as of `batches_by_length`.
    """
    lengths = np.array([len(record["event_time"]) for record in records])
    if not lengths.any():
        raise ValueError("records: expected at least one with events, got none")
    made: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for batch in batches_by_length(lengths, max_steps):
            made.update(zip(batch, model(collate_feature_dict([records[i] for i in batch])).numpy(), strict=True))
    without_events = np.full_like(next(iter(made.values())), np.nan)
    return np.stack([made.get(i, without_events) for i in range(len(records))])
