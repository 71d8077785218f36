"""How many processes train one model, and which of them this is, as `torchrun` tells them.

PyTorch is loaded where it is needed, so that the command line may ask.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from infobehavior.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

SECONDS_TO_TELL = 10


class ProcessLostError(RuntimeError):
    """Another process of the training has ended, so that this one can't go on."""


def num_processes() -> int:
    """Processes that train together; 1 without `torchrun`."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else 1


def process_rank() -> int:
    """Which of them this is, counted from 0: the first one writes and tells."""
    return int(os.environ["RANK"]) if num_processes() > 1 else 0


@cache
def meeting_place() -> "Store":
    """What all processes can reach before they are a group, and after one of them has failed.

    Raises:
        InputError: the environment doesn't say where it is.
    """
    from torch.distributed.rendezvous import rendezvous

    try:
        store: Store = next(rendezvous("env://"))[0]
    except ValueError as error:
        raise InputError(f"{error}, though RANK and WORLD_SIZE are: start the processes by torchrun") from None
    return store


@cache
def is_first_to_fail() -> bool:
    """Whether no other process of the training has failed before; it stays what it is when it is first asked.

    A process that fails asks before it leaves the others, who fail then too and would be faster to say so.
    """
    store = _reached()
    if store is not None:
        with suppress(RuntimeError):
            return store.add("failed", 1) == 1
    return True


def tell_once(tell: Callable[[], None]) -> None:
    """Let the first process that has failed say why; the others, which fail with it or after it, wait until it has.

    Args:
        tell: prints the line.
    """
    if num_processes() == 1:
        tell()
        return
    store = None if is_first_to_fail() else _reached()
    if store is not None:
        with suppress(RuntimeError):  # who was first hasn't told
            store.wait(["told"], timedelta(seconds=SECONDS_TO_TELL))
            return
    tell()
    if (store := _reached()) is not None:
        with suppress(RuntimeError):
            store.set("told", "")


@cache
def _reached() -> "Store | None":
    """The meeting place, if there is one by now: elsewhere than under `torchrun`, only the training's start makes it.

    Whatever other command ends in such an environment would wait for processes that never come.
    """
    if not meeting_place.cache_info().currsize and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    with suppress(RuntimeError, OSError, InputError):
        return meeting_place()
    return None
