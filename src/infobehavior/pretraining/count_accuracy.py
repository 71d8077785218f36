"""How often the count tasks are right on windows that training never saw (4.2.5)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infobehavior.data.batches import Tokenizer
from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import end_of_day
from infobehavior.data.store import load_store
from infobehavior.data.windows import Windows
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.reproducible import reproducible
from infobehavior.pretext.labels import DomainLabel, domain_label, need_counts

WINDOWS_PER_BATCH = 256


@dataclass(frozen=True)
class Accuracy:
    """How often a count task is right.

    Attributes:
        task: its line in the configuration.
        accuracy: share of the windows whose class of counts is the one that is predicted.
        most_frequent: share that is right when the most frequent class is predicted always.
        num_windows: windows that were asked.
    """

    task: str
    accuracy: float
    most_frequent: float
    num_windows: int


def count_accuracy(model: str | Path, minutes: str | Path, entities: NDArray[Any], day: str) -> list[Accuracy]:
    """Ask the count tasks of a model about windows of entities that it has never seen.

    Args:
        model: folder that `pretrain` wrote.
        minutes: folder of minutes.
        entities: whose windows are asked; those without events in it are left out.
        day: last local day of the window.

    Returns:
        One for each count task that the model was trained with, but for those that tell what comes next.

    Raises:
        InputError: no entity has events in the window.
    """
    encoder, table = InfoBehavior.from_pretrained(model), open_minutes(minutes)
    encoder.check_minutes(table)
    told = [one for one in encoder.readouts.readouts if one.kind == "class" and not one.name.startswith("next:")]
    lines = [one.name for one in told]
    end = end_of_day(day, table.schema)
    window_minutes = encoder.config.window_minutes
    store = load_store(table, end - window_minutes, end, with_counts=need_counts(lines))
    entity = np.flatnonzero(np.isin(store.entities, entities))
    windows = Windows.cut(store, entity, np.full(len(entity), end), window_minutes)
    windows = windows.take(np.argsort(windows.num_minutes, kind="stable"))
    if len(windows) == 0:
        raise InputError(f"none of {len(entities)} entities has events in the window up to {day}")
    global_repr = _global_repr(encoder, encoder.tokenizer(store), windows)
    return [
        _accuracy(line, encoder.readouts.layer(line), domain_label(line, store, table.schema), windows, global_repr)
        for line in lines
    ]


def _global_repr(encoder: InfoBehavior, tokenizer: Tokenizer, windows: Windows) -> Tensor:
    parts = []
    with torch.inference_mode(), reproducible(encoder.num_threads):
        for first in range(0, len(windows), WINDOWS_PER_BATCH):
            batch = tokenizer.batch(windows.take(np.arange(first, min(first + WINDOWS_PER_BATCH, len(windows)))))
            nothing = torch.zeros(batch.num_spans, dtype=torch.bool)
            parts.append(encoder(batch, wanted=nothing).global_repr)
    return torch.cat(parts)


def _accuracy(line: str, layer: nn.Linear, label: DomainLabel, windows: Windows, global_repr: Tensor) -> Accuracy:
    with torch.inference_mode():
        is_right = layer(global_repr).argmax(1) == label.of(windows)
    frequent = torch.bincount(label.of(windows)).max() / len(windows)
    return Accuracy(line, float(is_right.double().mean()), float(frequent), len(windows))
