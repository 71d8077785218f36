"""Several processes that train one model: what each has of a step, they put together; alone, all of it does nothing."""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from infobehavior.errors import InputError, one_line
from infobehavior.model.device import find_device
from infobehavior.pretraining.launch import (
    ProcessLostError,
    is_first_to_fail,
    meeting_place,
    num_processes,
    process_rank,
)

logger = logging.getLogger("infobehavior")
_number_of_group = count()


@dataclass(frozen=True)
class Part:
    """Which rows of a table this process has, while the other processes have the other rows.

    Attributes:
        place: row of the whole table of each of its rows, ascending.
        num_rows: rows of the whole table.
    """

    place: Int[Tensor, " own"]
    num_rows: int

    def to(self, device: torch.device) -> "Part":
        """The same part on a device."""
        return Part(self.place.to(device), self.num_rows)


@dataclass(frozen=True)
class Processes:
    """All processes of a training. Each must call the same methods in the same order.

    Attributes:
        device: where this process trains.
        rank: which one this is, counted from 0.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def sum(self, tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The sum over all processes, the same bytes in each; no gradient flows through it.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size == 1:
            return tensor
        total = tensor.detach().to(self.device, copy=True)
        try:
            dist.all_reduce(total)
        except RuntimeError as error:
            raise ProcessLostError(str(error)) from error
        return total.to(tensor.device)

    def total(self, number: int) -> int:
        """The sum of a number over all processes."""
        return int(self.sum(torch.tensor(number)))

    def whole(self, own: Shaped[Tensor, "own ..."], part: Part) -> Shaped[Tensor, "rows ..."]:
        """A table of which each process has some rows; gradients flow back to those that are its own.

        Every process is to make the same loss of it. Then the gradients of its weights are a part of the whole
        gradient, and the sum over all processes (`sum_gradients`) is the gradient that one process would have.
        """
        if self.size == 1:
            return own
        table: Tensor = _Whole.apply(own, part, self)  # type: ignore[no-untyped-call]
        return table

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients; it has none if it has none in any process."""
        if self.size == 1:
            return
        parameters = list(parameters)
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        has_gradient = torch.tensor([float(one.grad is not None) for one in parameters], device=self.device)
        total = self.sum(torch.cat([*(gradient.flatten() for gradient in gradients), has_gradient]))
        *sums, anywhere = torch.split(total, [*(one.numel() for one in parameters), len(parameters)])
        for parameter, gradient, is_there in zip(parameters, sums, anywhere.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if is_there else None

    def concatenate(self, own: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """The rows of all processes, by rank; and the place of this one's first row."""
        if self.size == 1:
            return own, 0
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(own)
        ends = self.sum(lengths).cumsum(0)
        first = int(ends[self.rank]) - len(own)
        rows = torch.zeros((int(ends[-1]), *own.shape[1:]), dtype=torch.from_numpy(own).dtype)
        rows[first : first + len(own)] = torch.from_numpy(own)
        return self.sum(rows).numpy(), first

    def gather(self, own: Any) -> list[Any]:
        """What each process has, by rank, of whatever JSON can hold."""
        if self.size == 1:
            return [own]
        line = bytearray(json.dumps(own), "ascii") + b"\n"
        lines, _ = self.concatenate(np.frombuffer(line, dtype=np.uint8))
        return [json.loads(one) for one in lines.tobytes().splitlines()]

    def agree(self, own: Any, otherwise: str) -> None:
        """Make sure that all processes have the same of something that JSON can hold.

        Args:
            own: what this process has.
            otherwise: the message if they differ.

        Raises:
            InputError: they differ.
        """
        if any(other != own for other in self.gather(own)):
            raise InputError(otherwise)

    def agree_on_what_is_given(self, own: Mapping[str, Any]) -> None:
        """Make sure that all processes were given the same, before they go separate ways and wait for each other.

        Args:
            own: what this process was given, which JSON can hold, by what it is, in words.

        Raises:
            InputError: they were given different things; says which.
        """
        others = self.gather(own)
        if differing := [name for name in own if any(other[name] != others[0][name] for other in others)]:
            raise InputError(
                f"the processes were given different {' and '.join(differing)}, or don't see the same folders: run the "
                "same command on each machine, where all see the same files"
            )


ALONE = Processes(torch.device("cpu"))
"""A process that trains by itself, on the processor."""


class _Whole(torch.autograd.Function):
    """Rows of all processes in their places: each adds its own to zeros, so that it may have any number of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, part: Part, processes: Processes) -> Tensor:
        ctx.place = part.place
        table = own.new_zeros((part.num_rows, *own.shape[1:]))
        return processes.sum(table.index_copy_(0, part.place, own))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.place), None, None


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes that `torchrun` has started, if it has; a process group that is there is used.

    Only the first one logs meanwhile. At the end each waits for all.

    Args:
        device: where to train: "cpu", "cuda" (of several processes each takes the GPU of its local rank) or "cuda:N".

    Raises:
        InputError: there is no such device, or it names one GPU for several processes, or these can't reach each other.
        ProcessLostError: another process has ended.
    """
    rank, size = process_rank(), num_processes()
    if size == 1:
        yield Processes(find_device(device))
        return
    processes = Processes(find_device(_own_device(device, size)), rank, size)
    is_ours = not dist.is_initialized()
    if is_ours:
        _make_group(processes)
    is_done = False
    try:
        with _silent(not processes.is_first):
            yield processes
        processes.total(0)  # waits for all
        is_done = True
    except ProcessLostError:
        raise
    except Exception:
        is_first_to_fail()
        raise
    finally:
        if is_ours and (is_done or processes.device.type == "cpu"):  # NCCL would wait for processes that may be gone
            dist.destroy_process_group()


def _own_device(name: str, size: int) -> str:
    if name == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name.startswith("cuda:"):
        raise InputError(f"device {name} is one GPU for {size} processes: give cuda, and each takes one of its own")
    return name


def _make_group(processes: Processes) -> None:
    # Some builds of PyTorch lack these. The second, loaded later, would hold the group for ever by defaults of its
    # functions, and a group that outlives `destroy_process_group` sometimes aborts the process at its end.
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.nn import functional  # noqa: F401

    on_gpu = processes.device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(processes.device)
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=PrefixStore(f"training {next(_number_of_group)}", meeting_place()),
            rank=processes.rank,
            world_size=processes.size,
            device_id=processes.device if on_gpu else None,
        )
    except RuntimeError as error:
        raise InputError(
            f"the {processes.size} processes of the training can't reach each other ({one_line(error)}): see that all "
            "are started, by torchrun, and that the machines know each other's names"
        ) from error


@contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    def nothing(record: logging.LogRecord) -> bool:
        return not wanted

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
