"""On a GPU the same code says the same; these tests run where PyTorch sees one."""

import json

import numpy as np
import pytest
import torch

from infobehavior import embed, pretrain
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.errors import InputError
from infobehavior.model.span_pooling import strongest_windows
from infobehavior.pretraining.checkpoint import CHECKPOINT_FILE
from infobehavior.pretraining.config import PRESETS
from infobehavior.pretraining.pretrain import TRAINING_LOG, Training
from infobehavior.pretraining.training import prepare_training
from small_minutes import folder_bytes, tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")

DAY = "2024-03-31"
PRESET_SETTINGS = {name: config.model_dump(exclude={"encoder", "num_steps"}) for name, config in PRESETS.items()}


def of_preset(name, **changes):
    """A tiny encoder in the manner of a preset."""
    encoder = PRESETS[name].encoder.model_dump()
    sizes = tiny_config().encoder.model_dump(exclude_defaults=True)
    settings = {key: value for key, value in encoder.items() if key not in sizes}
    return tiny_config(**{**PRESET_SETTINGS[name], "min_minutes": 1, "batch_size": 8, **settings, **changes})


def trained(minutes, out, config):
    pretrain(minutes.path, out, config=config)
    return folder_bytes(out)


def losses(files):
    return [json.loads(line)["loss"] for line in files[TRAINING_LOG].decode().splitlines()]


def vectors(table):
    return read_embeddings(table).vectors


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_training_has_the_loss_and_gradients_of_the_processor(minutes, name):
    found = {}
    for device in ("cpu", "cuda"):
        training = prepare_training(minutes.path, of_preset(name, device=device, dropout=0.0), None, None)
        loss = training.step(0)["loss"]
        weights = training.modules.named_parameters()
        found[device] = (loss, {key: weight.grad.cpu() for key, weight in weights if weight.grad is not None})
    (on_cpu, expected), (on_gpu, gradients) = found["cpu"], found["cuda"]
    assert on_gpu == pytest.approx(on_cpu, rel=1e-4)
    assert gradients.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in gradients.items():
        assert torch.allclose(gradient, expected[key], rtol=1e-2, atol=1e-3 * largest), key


@pytest.mark.parametrize("lengths", [[1, 2, 3] * 50, [360, 1, 359, 40]])
def test_spans_have_the_maxima_and_gradients_of_the_processor(lengths):
    torch.manual_seed(0)
    drawn = [torch.randn(size, dtype=torch.float64) for size in ((sum(lengths), 3), (5, 3, 4), (len(lengths), 4))]
    found = []
    for device in ("cpu", "cuda"):
        minutes, kernel, upstream = (one.to(device) for one in drawn)
        inputs = [minutes.requires_grad_(), kernel.requires_grad_()]
        strongest = strongest_windows(minutes, torch.tensor(lengths, device=device), kernel)
        found.append([strongest, *torch.autograd.grad(strongest, inputs, upstream)])
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", PRESETS)
def test_training_twice_makes_the_same_bytes(minutes, tmp_path, name):
    config = of_preset(name, device="cuda")
    assert trained(minutes, tmp_path / "one", config) == trained(minutes, tmp_path / "other", config)


def test_training_goes_on_from_a_checkpoint_to_the_same_bytes(minutes, tmp_path, monkeypatch):
    config = tiny_config(device="cuda", checkpoint_every=2, num_steps=5)
    undisturbed = trained(minutes, tmp_path / "undisturbed", config)
    step, taken, stopped_at = Training.step, [], 3

    def noting(self, number, *args):
        if number == stopped_at and stopped_at not in taken:
            taken.append(number)
            raise KeyboardInterrupt
        taken.append(number)
        return step(self, number, *args)

    monkeypatch.setattr(Training, "step", noting)
    with pytest.raises(KeyboardInterrupt):
        pretrain(minutes.path, tmp_path / "stopped", config=config)
    assert (tmp_path / "stopped" / CHECKPOINT_FILE).exists()
    pretrain(minutes.path, tmp_path / "stopped", config=config, resume=True)
    assert taken == [0, 1, 2, 3, 2, 3, 4]
    assert folder_bytes(tmp_path / "stopped") == undisturbed


def test_bfloat16_trains_to_nearly_the_same(minutes, tmp_path):
    exact = losses(trained(minutes, tmp_path / "float32", tiny_config(device="cuda", num_steps=20)))
    rough = losses(
        trained(minutes, tmp_path / "bfloat16", tiny_config(device="cuda", num_steps=20, precision="bfloat16"))
    )
    assert rough[-1] == pytest.approx(exact[-1], rel=0.05)
    assert rough != exact


@pytest.mark.parametrize("name", PRESETS)
def test_embeddings_are_those_of_the_processor_but_for_rounding(minutes, tmp_path, name):
    model = tmp_path / "model"
    pretrain(minutes.path, model, config=of_preset(name, device="cuda"))
    for out, device in (("cpu", "cpu"), ("cuda", "cuda"), ("again", "cuda")):
        embed(minutes.path, model, tmp_path / out, date=DAY, device=device)
    expected = vectors(tmp_path / "cpu")
    assert np.abs(vectors(tmp_path / "cuda") - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert folder_bytes(tmp_path / "cuda") == folder_bytes(tmp_path / "again")


def test_kept_spans_make_the_same_bytes_or_are_refused(minutes, tmp_path):
    model = tmp_path / "model"
    pretrain(minutes.path, model, config=tiny_config(device="cuda", span_origin="epoch"))
    embed(minutes.path, model, tmp_path / "anew", date=DAY, device="cuda")
    try:
        embed(minutes.path, model, tmp_path / "kept", date=DAY, device="cuda", keep_spans=True)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is None:
        assert np.array_equal(vectors(tmp_path / "kept"), vectors(tmp_path / "anew"))
    else:
        assert "depend on what else is in its batch" in refusal
