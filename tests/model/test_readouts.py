"""What a model believes about a window, and how it becomes an embedding."""

import math

import pytest
import torch

from infobehavior.data.vocabulary import Vocabulary
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.model.readouts import Readout, Readouts
from infobehavior.model.transformer import span_statistics

from .reference import make_store

READOUTS = (
    Readout(name="count:edit.page", kind="class", num_outputs=4),
    Readout(name="histogram:hour", kind="shares", num_outputs=3),
    Readout(name="totals:behavior", kind="logarithms", num_outputs=2),
)
SMALL = {"num_layers": 1, "num_heads": 2, "head_dim": 3, "minute_dim": 4, "num_feature_maps": 2, "feedforward_dim": 4}


def make_model(pooling: str) -> InfoBehavior:
    torch.manual_seed(0)
    vocabulary = Vocabulary.fit(make_store([]), "0" * 16, min_count=1)
    return InfoBehavior(EncoderConfig(**SMALL, pooling=pooling), vocabulary, "UTC", READOUTS).eval()


def test_readings_are_of_counts_of_shares_and_of_totals() -> None:
    torch.manual_seed(0)
    readouts, g = Readouts(READOUTS, 5), torch.randn(2, 5)

    got = readouts(g)

    assert got.shape == (2, readouts.dim) == (2, 2 + 3 + 2)
    for row, vector in zip(got.tolist(), g, strict=True):
        counts, hours, totals = (readouts.layer(one.name)(vector).tolist() for one in READOUTS)
        weights = [math.exp(x) for x in counts]
        shares = [math.exp(x) / sum(map(math.exp, hours)) for x in hours]
        expected = [1 - weights[0] / sum(weights), sum(i * weights[i] for i in range(4)) / sum(weights)]
        expected += [math.log(share) for share in shares] + totals
        assert row == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "readouts", "cls_and_readouts", "cls_readouts_and_spans"])
def test_an_embedding_is_what_pooling_says(pooling: str) -> None:
    model = make_model(pooling)
    spans, index, lengths = torch.randn(5, 6), torch.tensor([0, 3, 4, 1, 126]), torch.tensor([3, 2])
    num_minutes = torch.tensor([7, 1, 2, 5, 3])
    with torch.no_grad():
        g, _ = model.transformer(spans, index, lengths, num_minutes)
        got = model.embed(spans, index, lengths, num_minutes)
        believed = model.readouts(g)
    statistics = torch.stack(
        [torch.cat([own.amax(0), own.amin(0), own.std(0, correction=0)]) for own in (spans[:3], spans[3:])]
    )
    expected = {
        "cls": g,
        "readouts": believed,
        "cls_and_readouts": torch.cat([g, believed], dim=1),
        "cls_readouts_and_spans": torch.cat([g, believed, statistics], dim=1),
    }[pooling]
    assert got.shape == (2, model.embedding_dim)
    torch.testing.assert_close(got, expected)


def test_readouts_are_kept_with_the_model(tmp_path) -> None:
    model = make_model("cls_and_readouts")
    model.save_pretrained(tmp_path)

    again = InfoBehavior.from_pretrained(tmp_path)

    assert again.readouts.readouts == READOUTS
    assert again.model_id == model.model_id
    assert torch.equal(again.readouts.layer("count:edit.page").weight, model.readouts.layer("count:edit.page").weight)


def test_statistics_of_few_spans() -> None:
    """One span differs from itself by nothing, and a window without spans has zeros."""
    spans = torch.randn(1, 4, requires_grad=True)

    got = span_statistics(spans, torch.tensor([0, 1, 0]))

    assert torch.equal(got[[0, 2]], torch.zeros(2, 12))
    torch.testing.assert_close(got[1, :8], torch.cat([spans[0], spans[0]]))
    assert got[1, 8:].tolist() == pytest.approx([0.001] * 4)
    got.sum().backward()
    assert torch.isfinite(spans.grad).all()
