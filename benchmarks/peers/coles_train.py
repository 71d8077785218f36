r"""Trains CoLES of pytorch-lifestream 0.5.3 on events without labels, for some seconds, and embeds windows.

    python coles_train.py events.parquet moments.parquet --window-days 90 --encoder gru --seconds 300 \
        --out embeddings.parquet --report report.json

It runs in a virtual environment of its own (`requirements-coles.txt`) and imports nothing of infobehavior. As in the
package's demo `coles-emb.ipynb`: `SampleSlices` of 5 slices with at most 200 events, no entities with fewer events than
the least slice, the contrastive loss with hard negatives, Adam at 0.001, StepLR (30 epochs, 0.9), a GRU of 256.
Otherwise than there:

- Slices have at least 10 events instead of 25, since many entities have fewer than 25.
- Batches have 64 entities, as in the authors' experiments; the demo's 256 leaves few steps to a CPU.
- An event has, beside its categories, the hour, the day of the week, and the time since the event before it.
- `sequences.py` stands for `PandasDataPreprocessor`.
- The Transformer is the package's `TransformerSeqEncoder` with 2 layers of 128, 4 heads, 256 inside, without dropout:
  as many weights as the GRU, and a step of training takes 1.6 times as long on a CPU. The authors' has 6 layers of 256
  and 8 heads; 4 layers of 128 with the default dropout take 6 times as long as the GRU.

A window is embedded from its last 1,600 events, as in the authors' experiments, whichever the encoder; a window without
events gets zeros. With `--steps`, a run is repeatable: the same table and threads give the same embeddings.
"""

import argparse
import json
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import torch
from lifestream import Budget, event_encoder, fit, outputs, parser, start, tensors
from ptls.frames import PtlsDataModule
from ptls.frames.coles import ColesDataset, CoLESModule
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.nn import RnnSeqEncoder, TransformerSeqEncoder
from sequences import (
    GAP,
    codes,
    end_of_day,
    moment_windows,
    read_log,
    read_moments,
    records,
    rows_inside,
    share_truncated,
    training_windows,
    write_vectors,
)
from stages import Stages, versions

SLICES, MIN_SLICE, MAX_SLICE = 5, 10, 200
GRU_DIM = 256
TRANSFORMER_DIM, NUM_LAYERS, NUM_HEADS, FEEDFORWARD_DIM = 128, 2, 4, 256
MAX_STEPS = {"gru": 2**17, "transformer": 2**14}
"""Records times events in a batch of embedding: about 1 GB, of the Transformer mostly its attention."""


def main() -> None:
    """Train, embed, write the table, and then the report."""
    given = _arguments()
    start(given.seed, given.threads)
    stages = Stages()
    with stages.time("reading"):
        log, moments = read_log(given.events, given.columns, given.time_zone), read_moments(given.moments)
    with stages.time("preprocessing"):
        until = None if given.until is None else end_of_day(given.until, given.time_zone)
        lives = training_windows(log, moments if given.cut else None, until)
        windows = moment_windows(log, moments, given.window_days)
        coded, sizes = codes(log, rows_inside(log, lives))
        train, embedded = records(log, coded, lives), records(log, coded, windows, given.max_events)
        train, embedded = tensors(train, MIN_SLICE), tensors(embedded)
    with stages.time("training"):
        model = make_model(given.encoder, sizes)
        trained = fit(model, slices(train, given.batch_size), Budget(given.seconds, given.steps), given.precision)
    with stages.time("embedding"):
        vectors = np.nan_to_num(outputs(model.eval(), embedded, MAX_STEPS[given.encoder]))
    with stages.time("writing"):
        write_vectors(given.out, {name: moments.table[name] for name in ("entity_id", "as_of")}, vectors)
    report = {
        "seconds": stages.seconds,
        **trained,
        "num_entities_trained_on": len(train),
        "num_events_trained_on": sum(len(record["event_time"]) for record in train),
        "num_windows": len(windows),
        "num_windows_without_events": int(np.sum(windows[:, 0] == windows[:, 1])),
        "share_windows_truncated": share_truncated(windows, given.max_events),
        "num_events_embedded": sum(len(record["event_time"]) for record in embedded),
        "embedding_dim": vectors.shape[1],
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": versions(),
    }
    given.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def make_model(encoder: str, sizes: dict[str, int]) -> CoLESModule:
    """CoLES with a GRU, or with a Transformer whose [CLS] is the embedding."""
    if encoder == "gru":
        sequence_encoder = RnnSeqEncoder(event_encoder(sizes, [GAP]), hidden_size=GRU_DIM, type="gru")
    else:
        sequence_encoder = TransformerSeqEncoder(
            event_encoder(sizes, [GAP], TRANSFORMER_DIM),
            n_layers=NUM_LAYERS,
            n_heads=NUM_HEADS,
            dim_hidden=FEEDFORWARD_DIM,
            dropout=0,
        )
    return CoLESModule(
        sequence_encoder,
        optimizer_partial=partial(torch.optim.Adam, lr=0.001),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=30, gamma=0.9),
    )


def slices(train: Any, batch_size: int) -> PtlsDataModule:
    """Slices of the entities; a last batch with fewer is left out, for hard negatives need other entities."""
    splitter = SampleSlices(split_count=SLICES, cnt_min=MIN_SLICE, cnt_max=MAX_SLICE)
    size = min(batch_size, len(train))
    return PtlsDataModule(train_data=ColesDataset(train, splitter), train_batch_size=size, train_drop_last=True)


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--encoder", choices=list(MAX_STEPS), default="gru")
    arguments.add_argument("--until", type=date.fromisoformat, help="last local day that training sees")
    arguments.add_argument("--cut", action="store_true", help="train on nothing of a moment's entity from it on")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
