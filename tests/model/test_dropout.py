"""Dropout drops its share, keeps the mean, and is decided by the seed."""

import pytest
import torch

from infobehavior.model.dropout import Dropout

SHAPE = (3_001, 193)  # not a multiple of four numbers


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_share_and_mean(probability: float) -> None:
    torch.manual_seed(0)

    dropped = Dropout(probability)(torch.ones(SHAPE))

    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.003)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert len(dropped.unique()) == 2


def test_decisions_are_independent_of_their_neighbours() -> None:
    """The four decisions that share a random number, and each with the next number's."""
    torch.manual_seed(0)
    dropped = (Dropout(0.1)(torch.ones(400_000, 1)).flatten() == 0).float()

    for distance in (1, 2, 3, 4):
        both = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert both == pytest.approx(0.01, abs=0.001)


def test_the_gradient_goes_where_the_numbers_went() -> None:
    x = torch.ones(SHAPE, requires_grad=True)

    y = Dropout(0.1)(x)
    y.sum().backward()

    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_nothing_is_dropped_at_evaluation_or_with_probability_zero() -> None:
    x = torch.randn(SHAPE)

    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_the_seed_decides() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return Dropout(0.3)(torch.ones(SHAPE))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
