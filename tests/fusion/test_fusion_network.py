import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.fusion import training
from infobehavior.fusion.config import Network
from infobehavior.fusion.network import DynamicMasking, FusionNetwork, GroupBatch, GroupShape

PROBABILITIES = (0.1, 0.3, 0.6)


def plain_draw(random, is_there, probabilities):
    """The rule of masking, one row and one group after the other."""
    rows = []
    for numbers, there in zip(random, is_there, strict=True):
        kept = [False] * len(there)
        nearest, best = None, None
        for place, (number, is_group_there) in enumerate(zip(numbers, there, strict=True)):
            if not is_group_there:
                continue
            margin = np.float32(number) - np.float32(probabilities[place])
            kept[place] = bool(margin >= 0)
            if best is None or margin > best:
                nearest, best = place, margin
        if nearest is not None:
            kept[nearest] = True
        rows.append(kept)
    return rows


@st.composite
def draws(draw):
    num_groups = draw(st.integers(1, 5))
    probabilities = draw(st.lists(st.floats(0, 0.99), min_size=num_groups, max_size=num_groups))
    row = st.lists(st.booleans(), min_size=num_groups, max_size=num_groups)
    return probabilities, draw(st.lists(row, min_size=1, max_size=8)), draw(st.integers(0, 2**31))


@given(draws())
def test_masks_are_those_of_plain_loops(drawn):
    probabilities, is_there, seed = drawn
    masking = DynamicMasking(probabilities, 2)
    torch.manual_seed(seed)
    seen = masking.draw(torch.tensor(is_there)) & torch.tensor(is_there)
    torch.manual_seed(seed)
    random = torch.rand(len(is_there), len(probabilities)).tolist()
    assert seen.tolist() == plain_draw(random, is_there, probabilities)
    assert all(any(row) == any(there) for row, there in zip(seen.tolist(), is_there, strict=True))


def shares_seen(is_there, num_rows=40_000):
    torch.manual_seed(0)
    rows = torch.tensor([is_there]).expand(num_rows, -1)
    return (DynamicMasking(PROBABILITIES, 2).draw(rows) & rows).double().mean(dim=0)


def test_each_group_is_masked_with_its_probability():
    """Only the rows that would see nothing differ: each of these sees one."""
    all_masked = float(np.prod(PROBABILITIES))
    shares = shares_seen([True] * 3)
    for share, probability in zip(shares.tolist(), PROBABILITIES, strict=True):
        spread = 4 * np.sqrt(0.25 / 40_000)
        assert 1 - probability - spread < share < 1 - probability + all_masked + spread
    assert shares.sum().item() == pytest.approx(sum(1 - p for p in PROBABILITIES) + all_masked, abs=0.02)


def test_the_only_group_that_is_there_is_always_seen():
    assert shares_seen([False, False, True], 1_000).tolist() == [0, 0, 1]


def encoded_rows(num_rows=6):
    return torch.arange(1.0, num_rows * 3 * 2 + 1).reshape(num_rows, 3, 2)


def test_masked_groups_are_what_stands_for_them():
    masking = DynamicMasking(PROBABILITIES, 2)
    torch.nn.init.normal_(masking.missing)
    encoded, is_there = encoded_rows(), torch.rand(6, 3) < 0.7
    torch.manual_seed(1)
    out = masking(encoded, is_there)
    torch.manual_seed(1)
    seen = masking.draw(is_there) & is_there
    assert 0 < seen.sum() < is_there.sum()
    for row in range(6):
        for group in range(3):
            expected = encoded[row, group] if seen[row, group] else masking.missing[group]
            assert out[row, group].tolist() == expected.tolist()


def test_after_training_only_missing_groups_are_masked():
    masking = DynamicMasking([0.99] * 3, 2).eval()
    encoded, is_there = encoded_rows(), torch.rand(6, 3) < 0.5
    assert torch.equal(masking(encoded, is_there), torch.where(is_there[..., None], encoded, 0.0))


SHAPES = {"a": GroupShape(3, masking=0.5), "b": GroupShape(2, (4, 5), 0.5), "c": GroupShape(1, masking=0.5)}


def network(**changes):
    torch.manual_seed(0)
    options = {"group_dim": 4, "hidden_dim": 8, "dropout": 0.0, "dynamic_masking": True} | changes
    made = FusionNetwork(SHAPES, **options)
    torch.nn.init.normal_(made.masking.missing)
    return made


def batch(num_rows=8, seed=0, **is_there):
    random = torch.Generator().manual_seed(seed)
    values = {
        "a": torch.randn(num_rows, 3, generator=random),
        "b": torch.randint(4, (num_rows, 2), generator=random),
        "c": torch.randn(num_rows, 1, generator=random),
    }
    whole = torch.ones(num_rows, dtype=torch.bool)
    return {name: GroupBatch(value, is_there.get(name, whole)) for name, value in values.items()}


def test_logits_are_those_of_plain_steps():
    made, groups = network().eval(), batch(c=torch.arange(8) % 2 == 0)
    (a, *_), (embeddings, b, *_), (c, *_) = made.encoders
    for row, logit in enumerate(made(groups).tolist()):
        codes = groups["b"].values[row]
        vectors = [column.weight[code] for column, code in zip(embeddings.columns, codes, strict=True)]
        encoded = [
            torch.relu(a(groups["a"].values[row])),
            torch.relu(b(torch.cat(vectors))),
            torch.relu(c(groups["c"].values[row])) if row % 2 == 0 else made.masking.missing[2],
        ]
        hidden, *_, last = made.fusion
        assert logit == pytest.approx(last(torch.relu(hidden(torch.cat(encoded)))).item(), abs=1e-5)


def test_what_a_missing_group_holds_changes_nothing():
    made, missing = network().eval(), torch.zeros(8, dtype=torch.bool)
    one, other = batch(a=missing), batch(a=missing)
    other["a"] = GroupBatch(torch.full((8, 3), 1e6), missing)
    assert torch.equal(made(one), made(other))


def test_what_is_masked_in_training_has_no_gradient():
    made, groups = network(), batch(64)
    values = groups["a"].values.requires_grad_()
    torch.manual_seed(3)
    made(groups).sum().backward()
    torch.manual_seed(3)
    seen = made.masking.draw(torch.ones(64, 3, dtype=torch.bool))[:, 0]
    assert 0 < seen.sum() < 64
    assert values.grad.abs().sum(dim=1)[~seen].tolist() == [0.0] * int((~seen).sum())
    assert values.grad.abs().sum(dim=1)[seen].gt(0).any()


def test_without_dynamic_masking_nothing_is_masked_in_training():
    made, groups = network(dynamic_masking=False).train(), batch()
    assert torch.equal(made(groups), made.eval()(groups))


def test_with_it_something_is():
    made, groups = network().train(), batch(64)
    assert not torch.equal(made(groups), made.eval()(groups))


def test_a_logit_does_not_depend_on_the_other_rows():
    made, groups = network().eval(), batch(40, c=torch.arange(40) % 3 == 0)
    together = made(groups)
    for row in range(40):
        alone = {name: GroupBatch(g.values[row : row + 1], g.is_there[row : row + 1]) for name, g in groups.items()}
        assert made(alone).item() == pytest.approx(together[row].item(), abs=1e-6)


def test_the_first_layer_of_a_wide_group_learns_slower():
    shapes = {"few": GroupShape(dim=16), "many": GroupShape(dim=64), "colors": GroupShape(dim=1, num_codes=(5,))}
    network = FusionNetwork(shapes, group_dim=4, hidden_dim=8, dropout=0.0, dynamic_masking=True)
    config = Network(learning_rate=0.01, full_rate_inputs=16)
    rates = {id(one["params"][0]): one["lr"] for one in training._parameters(network, config)}
    named = {name: rates[id(one)] for name, one in network.named_parameters()}
    assert set(named) == {name for name, _ in network.named_parameters()}
    assert named["encoders.1.0.weight"] == pytest.approx(0.0025)
    others = {name: rate for name, rate in named.items() if name != "encoders.1.0.weight"}
    assert set(others.values()) == {0.01}
    plain = Network(learning_rate=0.01, full_rate_inputs=10**6)
    assert {one["lr"] for one in training._parameters(network, plain)} == {0.01}
