"""Names of devices, and what is said of those that aren't there."""

import pytest
import torch

from infobehavior.errors import InputError
from infobehavior.model.device import find_device


def test_cuda_is_the_current_gpu_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert find_device("cuda") == torch.device("cuda:1")
    assert find_device("cuda:0") == torch.device("cuda:0")


def test_the_processor_is_always_there() -> None:
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu", "'gpu' is not a device; expected cpu, cuda or cuda:N"),
        ("meta", "'meta' is not a device that infobehavior runs on"),
        ("cuda:64", "there is no device cuda:64: PyTorch"),
    ],
)
def test_other_devices_are_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_device(name)
