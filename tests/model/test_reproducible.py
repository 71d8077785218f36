"""What `reproducible` sets, and that it puts everything back."""

import pytest
import torch
from torch.utils import deterministic

from infobehavior.model import float32_products
from infobehavior.model.float32_products import onednn_float32_products
from infobehavior.model.reproducible import reproducible


def state() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        deterministic.fill_uninitialized_memory,
        torch.backends.mkldnn.matmul.fp32_precision,
    )


def test_everything_is_put_back_even_after_an_error() -> None:
    before = state()
    inside = []

    def fail() -> None:
        with reproducible(1):
            inside.extend(state())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert inside[:3] == [1, True, False]
    assert state() == before


def test_products_have_the_error_of_float32() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1_000, 192), torch.randn(192, 576)

    with onednn_float32_products():
        product = a @ b

    exact = a.double() @ b.double()
    assert (product - exact).abs().max() < 1e-6 * exact.abs().max()


def test_a_library_that_rounds_more_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    monkeypatch.setattr(float32_products, "_products_are_float32", lambda: False)

    with onednn_float32_products():
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_the_check_tells_bfloat16_from_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert float32_products._products_are_float32()

    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: product(a.bfloat16(), b.bfloat16()).float() if a.dtype == torch.float32 else product(a, b),
    )
    assert not float32_products._products_are_float32()
