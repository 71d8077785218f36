"""The strongest windows of packed spans are those of each span by itself, gradient included."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infobehavior.model import span_pooling
from infobehavior.model.span_pooling import strongest_windows

TOLERANCE = {"atol": 1e-10, "rtol": 1e-10}


def one_by_one(minutes: Tensor, lengths: list[int], kernel: Tensor) -> Tensor:
    """Zeros before each span, PyTorch's convolution, and the maximum over its results."""
    widest = len(kernel)
    return torch.stack(
        [F.conv1d(F.pad(span.T, (widest - 1, 0)), kernel.permute(2, 1, 0)).amax(1) for span in minutes.split(lengths)]
    )


def assert_same(lengths: list[int], widest: int = 5) -> None:
    torch.manual_seed(0)
    minutes = torch.randn(sum(lengths), 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(widest, 3, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(len(lengths), 4, dtype=torch.float64)

    ours = strongest_windows(minutes, torch.tensor(lengths), kernel)
    theirs = one_by_one(minutes, lengths, kernel)

    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    assert torch.equal(strongest_windows(minutes.detach(), torch.tensor(lengths), kernel.detach()), ours)
    ours_gradients, theirs_gradients = (torch.autograd.grad(y, (minutes, kernel), upstream) for y in (ours, theirs))
    for got, want in zip(ours_gradients, theirs_gradients, strict=True):
        torch.testing.assert_close(got, want, **TOLERANCE)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 60) | st.integers(1, 4), min_size=1, max_size=30), st.integers(1, 6))
def test_any_lengths(lengths: list[int], widest: int) -> None:
    assert_same(lengths, widest)


@pytest.mark.parametrize("lengths", [[360], [359, 1, 340], [31, 32, 33], [33] * 40])
def test_long_spans(lengths: list[int]) -> None:
    assert_same(lengths)


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_what_is_convolved_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(span_pooling, "WINDOWS_AT_ONCE", at_once)

    assert_same([1, 30, 2, 31, 29, 1, 1, 5])


@pytest.mark.parametrize("rows", [2, 7])
def test_in_how_many_rows_nothing_is_summed_does_not_matter(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """As a GPU does it, in chunks of a few windows, and with long spans of which only the winners are looked at."""
    monkeypatch.setattr(span_pooling, "rows_of_nothing_on", lambda device: rows)
    monkeypatch.setattr(span_pooling, "WINDOWS_AT_ONCE", 100)

    assert_same([1, 30, 2, 31, 29, 1, 1, 5, 360])


def test_bfloat16_sums_over_chunks_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 300 chunks adds the same to the kernel's gradient; sums in bfloat16 would stop growing at 256."""
    monkeypatch.setattr(span_pooling, "WINDOWS_AT_ONCE", 1)
    minutes, kernel = torch.ones(300, 1), torch.ones(1, 1, 1, requires_grad=True)

    with torch.autocast("cpu", torch.bfloat16):
        strongest_windows(minutes, torch.ones(300, dtype=torch.int64), kernel).float().sum().backward()

    assert kernel.grad is not None
    assert kernel.grad.item() == 300


def test_equal_windows_share_no_gradient() -> None:
    """Where two windows are equally strong one of them gets it all, so that the gradient isn't counted twice."""
    minutes = torch.ones(4, 1, requires_grad=True)

    strongest_windows(minutes, torch.tensor([4]), torch.ones(1, 1, 1)).sum().backward()

    assert minutes.grad is not None
    assert sorted(minutes.grad.flatten().tolist()) == [0, 0, 0, 1]
