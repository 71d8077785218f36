"""Where the encoder runs: on the processor, or on a GPU by the same code."""

import os

import torch

from infobehavior.errors import InputError

# Without it cuBLAS may give other digits at each run; it is read when the first product is made on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def find_device(name: str) -> torch.device:
    """The device of a name, such as "cpu", "cuda" or "cuda:1"; "cuda" is the caller's current GPU, by its number.

    Raises:
        InputError: PyTorch has no such device, or can't use it here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"{name!r} is not a device; expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{name!r} is not a device that infobehavior runs on; expected cpu, cuda or cuda:N")
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise InputError(
            f"there is no device {name}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs here; use "
            "cpu, or install a CUDA build of PyTorch"
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())  # another thread's current one may be another
    return device


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for it; without them PyTorch multiplies in float32 and converts."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
