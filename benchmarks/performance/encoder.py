"""The encoder beside the paper's padded recipe, and beside the rate at which this machine multiplies matrices."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn

from infobehavior.data.batches import WindowBatch
from infobehavior.model.config import EncoderConfig
from infobehavior.model.device import find_device
from infobehavior.model.infobehavior import InfoBehavior, Representations
from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.masking import draw_mask
from infobehavior.pretraining.pairs import seeded
from performance.batches import (
    Workload,
    full_windows,
    lognormal_windows,
    one_long_window,
    prepare_minutes,
    real_windows,
)
from performance.measure import alternate, goal, summary, table
from performance.padded import PaddedInfoBehavior, as_torch_is

NUM_THREADS = 2
MASK_RATE = 0.15
GEMM_SIZE = 2_048
DIFFERENCES = ("outputs, float32", "gradients, float32", "outputs, float64", "gradients, float64")

MAX_DIFFERENCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""To the padded recipe, relative to the largest number; of float32 the outputs only, see `_differences`."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: pairs of windows, full windows and their minutes, batches of real windows, and repeats."""

    num_pairs: int = 128
    num_pairs_of_years: int = 32
    num_full: int = 8
    full_minutes: int = EncoderConfig().window_minutes
    num_batches: int = 8
    repeats: int = 3


SMALL = Sizes(num_pairs=4, num_pairs_of_years=2, num_full=1, full_minutes=3_000, num_batches=1, repeats=1)


def measure(data: Path, work: Path, small: bool, device: str = "cpu") -> dict[str, Any]:
    """All workloads; those on git_activity only where it is."""
    sizes, place = SMALL if small else Sizes(), find_device(device)
    workloads = [_measure(workload, sizes, place) for workload in _workloads(data, work, sizes)]
    card = torch.cuda.get_device_name(place) if place.type == "cuda" else None
    return {"threads": NUM_THREADS, "card": card, "workloads": workloads}


def _workloads(data: Path, work: Path, sizes: Sizes) -> Iterator[Workload]:
    minutes = prepare_minutes(data, work)
    if minutes is not None:
        for window_days in (30, 90):
            yield real_windows(minutes, window_days, sizes.num_pairs, sizes.num_batches)
        yield real_windows(minutes, 365, sizes.num_pairs_of_years, sizes.num_batches)
    yield lognormal_windows(2 * sizes.num_pairs)
    yield one_long_window(2 * sizes.num_pairs, sizes.full_minutes)
    yield full_windows(sizes.num_full, sizes.full_minutes)


def _measure(workload: Workload, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    ours = workload.model.to(device)
    padded = PaddedInfoBehavior(ours)
    batches = [workload.batch(number).to(device) for number in range(workload.num_batches)]
    result: dict[str, Any] = {
        "name": workload.name,
        "what": workload.what,
        "minutes": median(len(batch.time_point) for batch in batches),
        "spans": median(batch.num_spans for batch in batches),
        "windows": batches[0].num_windows,
        "longest_span": max(int(batch.span_lengths.max()) for batch in batches),
        "longest_window": max(int(batch.window_lengths.max()) for batch in batches),
        "difference": _differences(ours, batches[0]),
    }
    for what, training in (("forward", False), ("forward and backward", True)):
        encoders = {
            "ours": partial(_run, ours, batches, training),
            "padded": partial(_run, padded, batches, training),
            "padded, our settings": partial(_run, padded, batches, training),
        }
        if device.type == "cuda":
            encoders["ours, bfloat16"] = partial(_run, ours, batches, training)
        multiply = partial(_multiply, device)
        sides = {**encoders, "GEMM": multiply, "GEMM, our settings": multiply}
        seconds = alternate(sides, sizes.repeats, settings=SETTINGS)
        of_a_batch = {name: [time / len(batches) for time in seconds[name]] for name in encoders}
        needed = mean(
            _needed_operations(workload.model.config, batch, _masked(batch, number), training)
            for number, batch in enumerate(batches)
        )
        result[what] = {
            "seconds": {name: summary(times) for name, times in (seconds | of_a_batch).items()},
            "needed_gflop": needed / 1e9,
        }
    return result


@contextmanager
def _autocast() -> Iterator[None]:
    with reproducible(NUM_THREADS), torch.autocast("cuda", torch.bfloat16):
        yield


_OURS, _AS_TORCH_IS = partial(reproducible, NUM_THREADS), partial(as_torch_is, NUM_THREADS)
SETTINGS: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "ours": _OURS,
    "padded": _AS_TORCH_IS,
    "padded, our settings": _OURS,
    "ours, bfloat16": _autocast,
    "GEMM": _AS_TORCH_IS,
    "GEMM, our settings": _OURS,
}
"""By the names of what is timed; who sets them looks at the library's products first, which takes milliseconds."""


def _run(encoder: Callable[..., Representations], batches: list[WindowBatch], training: bool) -> None:
    """Encode batches; in training, all that the pretext tasks read has a gradient."""
    assert isinstance(encoder, nn.Module)
    encoder.train(training)
    with torch.set_grad_enabled(training):
        for number, batch in enumerate(batches):
            masked = _masked(batch, number)
            encoded = encoder(batch, masked, wanted=masked)
            if training:
                encoder.zero_grad()
                _number(encoded, masked).backward()  # type: ignore[no-untyped-call]
    _wait(batches[0].time_point.device)


def _wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _masked(batch: WindowBatch, number: int) -> Tensor:
    masked = draw_mask(batch.window_lengths.cpu(), MASK_RATE, seeded(0, number))
    return masked.to(batch.window_lengths.device)


def _number(encoded: Representations, masked: Tensor) -> Tensor:
    """A number that depends on all that a training step reads of a batch."""
    parts = (encoded.global_repr, encoded.local_repr, encoded.span_repr[masked])
    return torch.stack([torch.sin(part).sum() for part in parts]).sum()


def _multiply(device: torch.device) -> None:
    a = torch.ones(GEMM_SIZE, GEMM_SIZE, device=device)
    for _ in range(5):
        a @ a
    _wait(device)


def _differences(ours: InfoBehavior, batch: WindowBatch) -> dict[str, float]:
    """To the padded recipe, of outputs and of gradients, relative to the largest number of each tensor; no dropout.

    Where two windows of a span are equally strong but for rounding, float32 may take one of them here and the other
    there, and their gradients differ as two minutes do. float64 rounds too finely for that, and tells an error.

    Raises:
        AssertionError: the outputs, or the gradients in float64, differ by more than rounding.
    """
    found = {}
    for dtype, limit in MAX_DIFFERENCE.items():
        model = copy.deepcopy(ours).to(dtype).eval()
        with _whole_float32():
            (our_outputs, our_gradients), (outputs, gradients) = (
                _outputs_and_gradients(encoder, model, batch) for encoder in (model, PaddedInfoBehavior(model).eval())
            )
        name = str(dtype).removeprefix("torch.")
        found[f"outputs, {name}"] = _relative(our_outputs, outputs)
        found[f"gradients, {name}"] = _relative(our_gradients, gradients)
        assert found[f"outputs, {name}"] < limit, found
    assert found["gradients, float64"] < MAX_DIFFERENCE[torch.float64], found
    return found


@contextmanager
def _whole_float32() -> Iterator[None]:
    """On GPUs PyTorch convolves float32 with ten of its 23 bits, unless it is told otherwise."""
    setting = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = setting.fp32_precision
    setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _outputs_and_gradients(
    encoder: Callable[..., Representations], model: InfoBehavior, batch: WindowBatch
) -> tuple[list[Tensor], list[Tensor]]:
    masked = _masked(batch, 0)
    model.zero_grad()
    encoded = encoder(batch, masked, wanted=masked)
    _number(encoded, masked).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    return [encoded.global_repr.detach(), encoded.local_repr.detach()], gradients


def _relative(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(ours, theirs, strict=True) if len(b)
    )


def _needed_operations(config: EncoderConfig, batch: WindowBatch, masked: Tensor, training: bool) -> float:
    """The fewest floating-point operations that products of a batch need: no padding, and nothing that isn't read.

    The last layer has outputs, and so queries, only at [CLS] and at masked spans. The backward pass of a product has
    two more of its size; that of the convolution only at the window that was the strongest of each span and map.
    """
    dim, rows = config.model_dim, batch.num_spans + batch.num_windows
    lengths = (batch.window_lengths + 1).double()
    wanted = 1 + torch.bincount(batch.span_window[masked], minlength=batch.num_windows).double()
    row_by_row = dim * dim + 2 * dim * config.feedforward_dim
    layer = rows * (3 * dim * dim + row_by_row) + 2 * float((lengths**2).sum()) * dim
    last = rows * 2 * dim * dim + float(wanted.sum()) * (dim * dim + row_by_row)
    last += 2 * float((wanted * lengths).sum()) * dim
    transformer = (config.num_layers - 1) * layer + last
    window = sum(config.kernel_sizes) * config.minute_dim * config.num_feature_maps
    forward = transformer + len(batch.time_point) * window
    backward = 2 * (transformer + batch.num_spans * window)
    return 2 * (forward + (backward if training else 0))


def section(result: dict[str, Any]) -> str:
    """The tables of the page."""
    shapes = [
        [
            w["name"], w["what"], w["windows"], f"{w['spans']:,.0f}", f"{w['minutes']:,.0f}", w["longest_window"],
            w["longest_span"], *(f"{w['difference'][name]:.0e}" for name in DIFFERENCES),
        ]
        for w in result["workloads"]
    ]  # fmt: skip
    parts = [
        _TEXT.format(threads=result["threads"], title=_title(result)),
        table(
            ["workload", "what", "windows", "spans", "minutes", "longest window, spans", "longest span, minutes",
             "outputs differ by", "gradients by", "in float64, outputs by", "gradients by"],
            shapes,
        ),
    ]  # fmt: skip
    for what in ("forward", "forward and backward"):
        parts += [f"**{what.capitalize()}**, a batch:", _table_of(what, result["workloads"], result.get("card"))]
    parts.append(_ON_GPU if result.get("card") else "\n".join(_goals(result["workloads"])))
    return "\n\n".join(parts)


def _title(result: dict[str, Any]) -> str:
    return f"Encoder, on {result['card']}" if result.get("card") else "Encoder"


def _goals(workloads: list[dict[str, Any]]) -> list[str]:
    goals = []
    real = [workload for workload in workloads if workload["name"].startswith("git_activity")]
    batch = max((workload["windows"] // 2 for workload in real), default=0)
    of_batch = [workload for workload in real if workload["windows"] == 2 * batch]
    for what in ("forward", "forward and backward") if real else ():
        ratios = [_median(workload, what, "padded") / _median(workload, what, "ours") for workload in of_batch]
        listed = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        text = f"encoder, {what}: at least 10 × as fast as padded on git_activity, {batch} pairs ({listed})"
        goals.append(goal(text, min(ratios) >= 10))
    for product, library in (("GEMM", "PyTorch's own"), ("GEMM, our settings", "oneDNN's")):
        shares = [_share(workload, "forward and backward", product) for workload in workloads]
        listed = ", ".join(f"{share:.0%}" for share in shares)
        goals.append(goal(f"encoder, in training: at least 60 % of {library} GEMM rate ({listed})", min(shares) >= 0.6))
    return goals


def _median(workload: dict[str, Any], what: str, side: str) -> float:
    return float(workload[what]["seconds"][side]["median"])


def _share(workload: dict[str, Any], what: str, product: str) -> float:
    """Of the rate of a product, that we reach."""
    rate = workload[what]["needed_gflop"] / _median(workload, what, "ours")
    return rate / (_gemm_gflop() / _median(workload, what, product))


def _table_of(what: str, workloads: list[dict[str, Any]], card: str | None) -> str:
    """On a GPU without the rate of the library that is for the processor, and with bfloat16."""
    rows = []
    for workload in workloads:
        ours, padded, set_alike = (_median(workload, what, side) for side in ("ours", "padded", "padded, our settings"))
        gemm, our_gemm = (
            f"{_share(workload, what, name):.0%} of {_gemm_gflop() / _median(workload, what, name):.0f}"
            for name in ("GEMM", "GEMM, our settings")
        )
        times = [f"{ours:.3f}", f"{padded:.3f}", f"**{padded / ours:.1f} ×**", f"{set_alike / ours:.1f} ×"]
        times += [f"{_median(workload, what, 'ours, bfloat16'):.3f}"] if card else []
        rates = [gemm] if card else [gemm, our_gemm]
        rows.append([workload["name"], *times, f"{workload[what]['needed_gflop'] / ours:.0f}", *rates])
    header = ["workload", "ours, s", "padded, s", "padded / ours", "padded with our settings / ours"]
    header += ["ours under autocast (GPUs), s"] if card else []
    header += ["ours, GFLOP/s needed", "of torch's own GEMM rate", *([] if card else ["of oneDNN's GEMM rate"])]
    return table(header, rows)


def _gemm_gflop() -> float:
    return 5 * 2 * GEMM_SIZE**3 / 1e9


_ON_GPU = """\
With `DEVICE=cuda`. *Our settings* are deterministic operations, the choice of a library that is for the processor, and,
in these figures, to set them: two to four milliseconds each time, in which the processor's products are looked at, for
*ours* as for *padded with our settings*. It has since been left out of what is timed, but no GPU was at hand to measure
again. PyTorch lets *padded* convolve in TF32, which it does by default; the differences
are of float32. A GPU is good at padding: nothing here is faster than *padded*, which fills it with few large products.
Ours has many small ones, waits for the processor to hand them over, and leaves the GPU idle most of the time (by
PyTorch's profiler, of a training step, noted by hand); so bfloat16 gains nothing. No goal was set."""

_TEXT = """\
## {title}

`make bench PART=encoder`. Medians over repeats of the seconds for a batch, float32, {threads} threads, dropout on in
training. *Padded* is the paper's recipe with the same parameters (`benchmarks/performance/padded.py`): spans padded to
the batch's longest for `Conv1d`, sequences to the longest for the Transformer, with PyTorch's fused attention. It runs
with PyTorch's default libraries, and once more with this package's settings (oneDNN for float32 products,
deterministic); by commits before ef9d52f the time holds how long these are set, a few milliseconds. The rate counts
the fewest operations that the products need: no padding, the last layer only where it is read, backward through the
convolution only where a window was the strongest. Beside it is the rate of a {threads}-thread product of two
2,048 × 2,048 matrices in the same process, by PyTorch's default and by the library that we choose. A year's windows
come in 32 pairs: padded, 128 of them take minutes and many gigabytes a round.

Differences are relative to the largest number of a tensor, the largest of all tensors. In float32 two windows of a long
span can be equally strong but for rounding, and then their gradients go to different minutes; float64 tells an error
from that."""
