"""Trains the fusion network on one part and stops by another."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infobehavior.fusion.calibration import calibrate
from infobehavior.fusion.config import Group, Network
from infobehavior.fusion.features import GroupArray, GroupFeatures
from infobehavior.fusion.network import CategoryEmbeddings, FusionNetwork, GroupBatch, GroupShape
from infobehavior.progress import progress

Arrays = Mapping[str, GroupArray]
ROWS_AT_A_TIME = 256
STEPS_OF_EPOCH, LEAST_BATCH = 32, 16
"""Of few examples a step has fewer than it might: epochs are what is chosen, and must be fine enough."""
TINY = 1e-12


@dataclass(frozen=True)
class Labelled:
    """Some examples with their answers.

    Attributes:
        arrays: of each group.
        positive: True for the positive class.
        weights: in how many copies each counts.
    """

    arrays: Arrays
    positive: NDArray[np.bool_]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A network and how it came to be.

    Attributes:
        network: of the epoch with the lowest loss of the validation part.
        losses: for each epoch, that of the training part, masks and dropout included, and that of the validation part,
            calibrated.
        best_epoch: from 0.
    """

    network: FusionNetwork
    losses: list[tuple[float, float]]
    best_epoch: int


def make_network(features: Mapping[str, GroupFeatures], groups: Mapping[str, Group], config: Network) -> FusionNetwork:
    """A network for groups, with weights that are yet to be learnt."""
    shapes = {
        name: GroupShape(features[name].dim, features[name].num_codes, group.masking_probability)
        for name, group in groups.items()
    }
    return FusionNetwork(
        shapes,
        group_dim=config.group_dim,
        hidden_dim=config.hidden_dim,
        dropout=config.dropout,
        dynamic_masking=config.dynamic_masking,
    )


def train(
    features: Mapping[str, GroupFeatures],
    groups: Mapping[str, Group],
    config: Network,
    training: Labelled,
    validation: Labelled,
) -> Trained:
    """Train until the validation part's loss hasn't fallen for some epochs; equal inputs give equal weights.

    It is the loss once scores are calibrated. Of few examples a network is soon too sure of itself, while it still
    learns to order them; calibration mends the one, so only the other may decide (as Berta et al., 2025, argue).

    Args:
        features: how each group became an array.
        groups: what they are, for the masking.
        config: the network and its training.
        training: what is learnt from.
        validation: what tells when to stop.
    """
    with torch.random.fork_rng(devices=[]), progress("training the fusion network", config.max_epochs) as advance:
        torch.manual_seed(config.seed)
        network = make_network(features, groups, config)
        optimizer = torch.optim.AdamW(_parameters(network, config), weight_decay=config.weight_decay)
        shares = {name: _shares(features[name].num_codes, training.arrays[name]) for name in network.names}
        losses: list[tuple[float, float]] = []
        best, best_epoch = copy.deepcopy(network.state_dict()), 0
        for epoch in range(config.max_epochs):
            seen = _train_epoch(network, optimizer, training, config, epoch)
            _average_unseen(network, shares)
            losses.append((seen, calibrated_loss(logits(network, validation.arrays), validation.positive)))
            if losses[-1][1] <= min(loss for _, loss in losses):
                best, best_epoch = copy.deepcopy(network.state_dict()), epoch
            elif epoch - best_epoch >= config.patience:
                break
            advance(1, f"loss {losses[-1][1]:.4f}")
        network.load_state_dict(best)
    return Trained(network.eval(), losses, best_epoch)


def _shares(num_codes: tuple[int, ...], array: GroupArray) -> list[Tensor]:
    """Of each column of categories, how often examples that have the group have each code, of 1."""
    codes = array.values[array.is_there]
    return [
        torch.from_numpy(np.bincount(codes[:, place], minlength=count) / max(1, len(codes))).float()
        for place, count in enumerate(num_codes)
    ]


def _average_unseen(network: FusionNetwork, shares: Mapping[str, list[Tensor]]) -> None:
    for name, encoder in zip(network.names, network.encoders, strict=True):
        for layer in encoder.modules():
            if isinstance(layer, CategoryEmbeddings):
                layer.average_unseen(shares[name])


def _parameters(network: FusionNetwork, config: Network) -> list[dict[str, Any]]:
    """What learns, and how fast.

    A step of Adam moves each weight alike, so what a group says of an example moves by as much as it has inputs. At one
    rate a representation of a thousand numbers is learnt by heart before a title is understood, and training stops
    there. So the first layer of a wide group learns slower, by the ratio of widths (as Yang et al., 2021, have it for
    layers of growing width).
    """
    rates = {
        id(layer.weight): config.learning_rate * min(1.0, config.full_rate_inputs / layer.in_features)
        for encoder in network.encoders
        for layer in encoder.modules()
        if isinstance(layer, nn.Linear)
    }
    return [{"params": [one], "lr": rates.get(id(one), config.learning_rate)} for one in network.parameters()]


def _train_epoch(
    network: FusionNetwork, optimizer: torch.optim.Optimizer, training: Labelled, config: Network, epoch: int
) -> float:
    network.train()
    total = 0.0
    order = np.random.default_rng([config.seed, epoch]).permutation(len(training.positive))
    batch_size = int(np.clip(len(order) // STEPS_OF_EPOCH, LEAST_BATCH, config.batch_size))
    for first in range(0, len(order), batch_size):
        rows = np.sort(order[first : first + batch_size])
        weights = torch.from_numpy(training.weights[rows]).float()
        target = torch.from_numpy(training.positive[rows]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(
            network(_batch(training.arrays, rows)), target, weight=weights, reduction="sum"
        )
        optimizer.zero_grad()
        (loss / weights.sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach())
    return total / float(training.weights.sum())


def calibrated_loss(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Log loss of logits after Platt's sigmoid, learnt from the same examples; NaN of a training that went astray."""
    if not np.isfinite(scores).all():
        return float("nan")
    probability = np.clip(calibrate("platt", scores, positive)(scores), TINY, 1 - TINY)
    return float(-np.log(np.where(positive, probability, 1 - probability)).mean())


def logits(network: FusionNetwork, arrays: Arrays) -> NDArray[np.float64]:
    """The logits of any examples; one's has the same bytes whatever others are with it.

    The last digits of a product depend on the number of rows, so it is always the same: the last row is repeated.
    """
    network.eval()
    num_rows = len(next(iter(arrays.values())).is_there)
    parts: list[NDArray[np.float64]] = [np.zeros(0)]
    with torch.inference_mode():
        for rows in _runs(num_rows):
            parts.append(network(_batch(arrays, rows)).double().numpy())
    return np.concatenate(parts)[:num_rows]


def _runs(num_rows: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, num_rows, ROWS_AT_A_TIME):
        yield np.minimum(np.arange(first, first + ROWS_AT_A_TIME), num_rows - 1)


def _batch(arrays: Arrays, rows: NDArray[np.int64]) -> dict[str, GroupBatch]:
    return {
        name: GroupBatch(_tensor(array.values[rows]), torch.from_numpy(array.is_there[rows]))
        for name, array in arrays.items()
    }


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
