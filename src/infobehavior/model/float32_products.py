"""Products of float32 matrices on the processor: by the faster library that rounds no worse, and in few shapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MAX_RELATIVE_ERROR = 1e-5


def rounded_rows(num_rows: int) -> int:
    """A few more rows, so that products have few shapes: oneDNN prepares each shape and keeps what it prepared.

    Example:
        >>> rounded_rows(5), rounded_rows(1_000), rounded_rows(1_025)
        (16, 1024, 1088)
    """
    step = max(16, 1 << num_rows.bit_length() >> 5)
    return -(-num_rows // step) * step


def of_rows(layer: nn.Linear, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
    """A layer's output of some rows, by a product whose number of rows is rounded."""
    padded = F.pad(rows, (0, 0, 0, rounded_rows(len(rows)) - len(rows)))
    output: Tensor = layer(padded)
    return output[: len(rows)]


def rows_are_independent(
    product: Callable[[Tensor], Tensor], max_rows: int, row_dim: int, device: torch.device
) -> bool:
    """Whether a row's product has the same bytes whatever other rows are multiplied with it.

    Tried out, on the first and the last of many rows: with each of the small numbers of rows that `rounded_rows`
    gives, and from `max_rows` on with about half as many each time.

    Args:
        product: of rows (rows, row_dim) with a matrix.
        max_rows: as many as are ever multiplied at once.
        row_dim: size of a row.
        device: where they are multiplied.
    """
    many = torch.sin(torch.arange(rounded_rows(max_rows) * row_dim, device=device)).view(-1, row_dim)
    together = product(many)
    counts = {*range(16, 128, 16), *(rounded_rows(len(many) >> halvings) for halvings in range(len(many).bit_length()))}
    return all(
        torch.equal(product(many[:count]), together[:count]) and torch.equal(product(many[-count:]), together[-count:])
        for count in counts
    )


@contextmanager
def onednn_float32_products() -> Iterator[None]:
    """Let oneDNN multiply float32 matrices, where its results are float32's.

    PyTorch leaves these products to MKL, which runs AMD processors below their rate (`docs/performance.md` has both);
    it hands them to oneDNN when told that bfloat16 would do. On processors that multiply bfloat16 in tiles, oneDNN
    takes that at its word, and MKL stays; on all others it computes in float32. Which is the case is tried out, not
    guessed from a processor's name.
    """
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        if not _products_are_float32():
            setting.fp32_precision = before
        yield
    finally:
        setting.fp32_precision = before


def _products_are_float32() -> bool:
    """Whether products that are large enough to be handed on have float32's error, not bfloat16's of about 1e-3."""
    a = torch.sin(torch.arange(512 * 192, dtype=torch.float64)).view(512, 192)
    b = torch.cos(torch.arange(256 * 192, dtype=torch.float64)).view(256, 192)
    bias = torch.cos(torch.arange(256, dtype=torch.float64))
    products = (
        lambda a, b, bias: a @ b.T,
        lambda a, b, bias: F.linear(a, b, bias),
        lambda a, b, bias: torch.bmm(a.view(8, 64, 192), b.view(8, 32, 192).transpose(1, 2)),
    )
    return all(_error(product, a, b, bias) < MAX_RELATIVE_ERROR for product in products)


def _error(product: Callable[..., Tensor], *factors: Tensor) -> float:
    """Of a product in float32, relative to the largest number of the exact one."""
    exact = product(*factors)
    return float((product(*(x.float() for x in factors)).double() - exact).abs().max() / exact.abs().max())
