r"""Trains a GRU with labels on the windows themselves, for some seconds, and scores the windows of the test part.

    python gru_supervised.py events.parquet moments.parquet --window-days 90 --seconds 300 \
        --out scores.parquet --report report.json

The moments have, beside entity_id and as_of, positive (bool) and part (train, choose or test). It runs in the virtual
environment of pytorch-lifestream 0.5.3 (`requirements-coles.txt`) and imports nothing of infobehavior: the package's
`SequenceToTarget` over its `RnnSeqEncoder` of 256 and its linear head, Adam at 0.001. The events are those of
`coles_train.py`, and the codes of their categories are made from the windows of the train part.

A window is its last 1,600 events, in training as in scoring; the authors train on random slices of 250 to 350, which
may miss the end. Windows of like length share a batch of 64, which the package's loader doesn't do. A positive counts
four times. The weights that are kept are those with the least loss on the choose part, which is looked at each epoch,
at least every 50 steps, and at the end; looking isn't counted in the seconds. A window without events isn't trained on,
and its score is the share of positives in the train part, a positive counting four times.
"""

import copy
import json
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from lifestream import Budget, event_encoder, fit, outputs, parser, start, tensors
from numpy.typing import NDArray
from ptls.data_load.datasets import MemoryMapDataset
from ptls.frames.supervised import SeqToTargetDataset, SequenceToTarget
from ptls.nn import Head, RnnSeqEncoder
from sequences import (
    GAP,
    ShuffledByLength,
    codes,
    moment_windows,
    read_log,
    read_moments,
    records,
    rows_inside,
    share_truncated,
)
from stages import Stages, versions
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

PARTS = ("train", "choose", "test")
POSITIVE_WEIGHT = 4.0
GRU_DIM = 256
STEPS_BETWEEN_LOOKS = 50
MAX_STEPS = 2**17
"""Records times events in a batch of scoring."""


class Best(pl.Callback):
    """Keeps the weights with the least loss on the choose part.

    Args:
        choose: records of the choose part.
        positive: their labels.
        budget: of training, which doesn't pay for this.
    """

    def __init__(self, choose: MemoryMapDataset, positive: NDArray[np.bool_], budget: Budget) -> None:
        self.choose, self.positive, self.budget = choose, positive, budget
        self.losses: dict[int, float] = {}
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, where it is time to."""
        every = min(STEPS_BETWEEN_LOOKS, trainer.num_training_batches)
        if trainer.should_stop or trainer.global_step % every == 0:
            with self.budget.paused():
                self._look(pl_module, trainer.global_step)

    def _look(self, module: pl.LightningModule, step: int) -> None:
        module.eval()
        loss = weighted_loss(outputs(module, self.choose, MAX_STEPS), self.positive)
        module.train()
        if loss < min(self.losses.values(), default=np.inf):
            self.weights = copy.deepcopy(module.state_dict())
        self.losses[step] = loss


def main() -> None:
    """Train, score, write the table, and then the report."""
    given = parser(__doc__.splitlines()[0]).parse_args()
    start(given.seed, given.threads)
    stages = Stages()
    with stages.time("reading"):
        log, moments = read_log(given.events, given.columns, given.time_zone), read_moments(given.moments)
    part = moments.table["part"].to_numpy(zero_copy_only=False)
    positive = moments.table["positive"].to_numpy(zero_copy_only=False).astype(bool)
    with stages.time("preprocessing"):
        windows = moment_windows(log, moments, given.window_days)
        has_events = windows[:, 0] < windows[:, 1]
        rows = {name: np.flatnonzero((part == name) & (has_events | (name == "test"))) for name in PARTS}
        coded, sizes = codes(log, rows_inside(log, windows[rows["train"]]))
        data = {name: tensors(records(log, coded, windows[rows[name]], given.max_events)) for name in PARTS}
    with stages.time("training"):
        model, budget = make_model(sizes), Budget(given.seconds, given.steps)
        best = Best(data["choose"], positive[rows["choose"]], budget)
        loader = training_batches(data["train"], positive[rows["train"]], given.batch_size, given.seed)
        trained = fit(model, loader, budget, given.precision, best)
    with stages.time("scoring"):
        model.load_state_dict(best.weights)
        logits = outputs(model.eval(), data["test"], MAX_STEPS)
        scores = 1 / (1 + np.exp(-np.where(np.isnan(logits), prior(positive[part == "train"]), logits)))
    with stages.time("writing"):
        tested = moments.table.select(["entity_id", "as_of"]).take(rows["test"])
        pq.write_table(tested.append_column("score", pa.array(scores)), given.out, compression="zstd")
    report = {
        "seconds": {**stages.seconds, "choosing": budget.pause},
        **trained,
        "choose_losses": best.losses,
        "best_step": min(best.losses, key=lambda step: best.losses[step]),
        "num_windows": {name: int(np.sum(part == name)) for name in PARTS},
        "num_positives": {name: int(np.sum(positive & (part == name))) for name in PARTS},
        "num_windows_without_events": {name: int(np.sum((part == name) & ~has_events)) for name in PARTS},
        "share_windows_truncated": {name: share_truncated(windows[rows[name]], given.max_events) for name in PARTS},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": versions(),
    }
    given.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def make_model(sizes: dict[str, int]) -> SequenceToTarget:
    """A GRU and a linear layer, from a padded batch to one logit per record."""
    return SequenceToTarget(
        RnnSeqEncoder(event_encoder(sizes, [GAP]), hidden_size=GRU_DIM, type="gru"),
        head=Head(GRU_DIM, objective="regression"),
        loss=torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POSITIVE_WEIGHT)),
        metric_list={},
        optimizer_partial=partial(torch.optim.Adam, lr=0.001),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=30, gamma=0.9),
    )


def training_batches(
    train: MemoryMapDataset, positive: NDArray[np.bool_], batch_size: int, seed: int
) -> DataLoader[Any]:
    """The records with their labels, in batches of like length."""
    labelled = [
        {**record, "target_positive": float(label)} for record, label in zip(train, positive.tolist(), strict=True)
    ]
    dataset = SeqToTargetDataset(labelled, target_col_name="target_positive")
    lengths = np.array([len(record["event_time"]) for record in labelled])
    batches = ShuffledByLength(lengths, batch_size, seed)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=dataset.collate_fn)


def weighted_loss(logits: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """The loss of training, over all windows at once."""
    target, weight = torch.from_numpy(positive).float(), torch.tensor(POSITIVE_WEIGHT)
    return float(binary_cross_entropy_with_logits(torch.from_numpy(logits), target, pos_weight=weight))


def prior(positive: NDArray[np.bool_]) -> float:
    """The logit of the share of positives, a positive counting as much as in the loss."""
    return float(np.log(POSITIVE_WEIGHT * positive.sum() / (~positive).sum()))


if __name__ == "__main__":
    main()
