"""What a model believes about a window: the linear layers of its domain-related tasks (section 3.3.3)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from infobehavior.model.float32_products import of_rows

LabelKind = Literal["class", "shares", "logarithms"]
"""What a task tells of a window: the class of a count, shares of a histogram's bars, or logarithms of totals."""


class Readout(BaseModel):
    """One task's layer.

    Attributes:
        name: the task's line in the configuration.
        kind: what it tells.
        num_outputs: classes of a count, bars of a histogram, or totals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: LabelKind
    num_outputs: PositiveInt

    @property
    def dim(self) -> int:
        """Numbers that it adds to an embedding."""
        return 2 if self.kind == "class" else self.num_outputs


class Readouts(nn.Module):
    """The layers of all tasks of a model.

    Args:
        readouts: each by its task.
        model_dim: size of a global representation.
    """

    def __init__(self, readouts: Sequence[Readout], model_dim: int) -> None:
        super().__init__()
        self.readouts = tuple(readouts)
        self.layers = nn.ModuleDict({module_key(one.name): nn.Linear(model_dim, one.num_outputs) for one in readouts})

    @property
    def dim(self) -> int:
        """Numbers that all of them add to an embedding."""
        return sum(one.dim for one in self.readouts)

    def layer(self, name: str) -> nn.Linear:
        """The layer of a task."""
        layer = self.layers[module_key(name)]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, global_repr: Float[Tensor, "windows model_dim"]) -> Float[Tensor, "windows readout_dim"]:
        """What is believed of each window.

        Of a count: how probable it is that it isn't nought, and its expected class. Of a histogram: logarithms of
        shares. Of totals: logarithms.
        """
        parts = [_believed(one.kind, of_rows(self.layer(one.name), global_repr)) for one in self.readouts]
        return torch.cat(parts, dim=1) if parts else global_repr[:, :0]


def _believed(kind: LabelKind, outputs: Float[Tensor, "windows outputs"]) -> Float[Tensor, "windows readout_dim"]:
    if kind == "class":
        probable = outputs.softmax(1)
        classes = torch.arange(outputs.shape[1], dtype=probable.dtype, device=probable.device)
        return torch.stack([probable[:, 1:].sum(1), (probable * classes).sum(1)], dim=1)
    return outputs.log_softmax(1) if kind == "shares" else outputs


def module_key(name: str) -> str:
    """A task's name without dots, which a module's key can't have and a behavior's name can."""
    return name.replace("%", "%25").replace(".", "%2E")
