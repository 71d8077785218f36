"""Checkpoints without pickle: one safetensors file holds weights, optimizer and step, so it is whole or absent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from infobehavior.artefacts import write_bytes
from infobehavior.errors import InputError

CHECKPOINT_FILE = "_checkpoint.safetensors"


def save_checkpoint(
    folder: Path, modules: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write the weights, the optimizer's state, and whatever else JSON can hold (the step, hashes, the log)."""
    tensors = {f"weight.{name}": tensor.contiguous() for name, tensor in modules.state_dict().items()}
    names = [name for name, _ in modules.named_parameters()]
    for index, values in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{names[index]}.{key}": value.contiguous() for key, value in values.items()})
    content = safetensors.torch.save(tensors, metadata={"state": json.dumps(state)})
    write_bytes(folder / CHECKPOINT_FILE, content)


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` was given as state; None if there is no checkpoint.

    Raises:
        InputError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            return state
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a checkpoint ({error}); remove it and start again without --resume") from None


def load_checkpoint(folder: Path, modules: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights and optimizer state back."""
    tensors = safetensors.torch.load_file(str(folder / CHECKPOINT_FILE))
    modules.load_state_dict(_under(tensors, "weight."), strict=True)
    restored = optimizer.state_dict()
    restored["state"] = {
        index: _under(tensors, f"optimizer.{name}.") for index, (name, _) in enumerate(modules.named_parameters())
    }
    optimizer.load_state_dict(restored)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
