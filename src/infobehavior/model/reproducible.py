"""Torch set up so that equal inputs give equal bytes, and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.utils.deterministic

from infobehavior.model.float32_products import onednn_float32_products

DEFAULT_THREADS = 2


@contextmanager
def reproducible(num_threads: int) -> Iterator[None]:
    """Use deterministic operations and a fixed number of threads: the last digits of a product depend on it.

    Memory that is about to be written isn't filled first, which torch does otherwise when it is deterministic.
    """
    threads, debug_mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(num_threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import a compiler, for a second
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with onednn_float32_products():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(debug_mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
