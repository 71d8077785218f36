import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from infobehavior.pretraining.masking import draw_mask
from infobehavior.pretraining.pairs import seeded

RATES = st.floats(0.01, 0.99)


@example([2, 1, 3, 0], 0.9, 0)
@given(st.lists(st.integers(0, 60), max_size=8), RATES, st.integers(0, 99))
def test_each_window_has_its_share(lengths, mask_rate, seed):
    masked = draw_mask(torch.tensor(lengths, dtype=torch.int64), mask_rate, seeded(seed))
    assert masked.dtype == torch.bool
    assert len(masked) == sum(lengths)
    for length, own in zip(lengths, masked.split(lengths), strict=True):
        num_masked = int(own.sum())
        if length < 2:
            assert num_masked == 0
        else:
            assert 1 <= num_masked < length, "at least one, and never all"
            assert abs(num_masked - length * mask_rate) <= 0.5 or num_masked in (1, length - 1)


def test_spans_are_drawn_evenly():
    lengths = torch.tensor([20, 2, 5])
    drawn = np.stack([draw_mask(lengths, 0.15, seeded(7, step)).numpy() for step in range(3_000)])
    assert np.abs(drawn[:, :20].mean(0) - 3 / 20).max() < 0.03
    assert np.abs(drawn[:, 20:22].mean(0) - 1 / 2).max() < 0.04
    assert np.abs(drawn[:, 22:].mean(0) - 1 / 5).max() < 0.03


def test_the_generator_decides():
    lengths = torch.tensor([30, 30])
    assert draw_mask(lengths, 0.15, seeded(1)).tolist() == draw_mask(lengths, 0.15, seeded(1)).tolist()
    assert draw_mask(lengths, 0.15, seeded(1)).tolist() != draw_mask(lengths, 0.15, seeded(2)).tolist()
