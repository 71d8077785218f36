"""Which library multiplies float32 matrices on the processor: the faster one, where it rounds no worse."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MAX_RELATIVE_ERROR = 1e-5


@contextmanager
def onednn_float32_products() -> Iterator[None]:
    """Let oneDNN multiply float32 matrices, where its results are float32's.

    PyTorch leaves these products to MKL, which runs AMD processors at half their rate; it hands them to oneDNN when
    told that bfloat16 would do. On processors that multiply bfloat16 in tiles, oneDNN takes that at its word, and MKL
    stays; on all others it computes in float32. Which is the case is tried out, not guessed from a processor's name.
    """
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    if not _products_are_float32():
        setting.fp32_precision = before
    try:
        yield
    finally:
        setting.fp32_precision = before


def _products_are_float32() -> bool:
    """Whether a product that is large enough to be handed on has float32's error, not bfloat16's of about 1e-3."""
    a = torch.sin(torch.arange(512 * 192, dtype=torch.float64)).view(512, 192)
    b = torch.cos(torch.arange(192 * 256, dtype=torch.float64)).view(192, 256)
    exact = a @ b
    error = (a.float() @ b.float()).double() - exact
    return bool(error.abs().max() < MAX_RELATIVE_ERROR * exact.abs().max())
