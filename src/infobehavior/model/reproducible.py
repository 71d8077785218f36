"""Torch set up so that equal inputs give equal bytes, and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DEFAULT_THREADS = 2


@contextmanager
def reproducible(num_threads: int) -> Iterator[None]:
    """Use deterministic operations and a fixed number of threads: the last digits of a product depend on it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
