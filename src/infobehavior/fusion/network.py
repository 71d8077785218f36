"""The fusion network: an encoder for each group, the dynamic masking layer (4.4.2), and layers over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

CATEGORY_DIM = 16
"""Dimensions of the embedding of each column of categories."""


@dataclass(frozen=True)
class GroupShape:
    """What a group's encoder takes.

    Attributes:
        dim: values a row; of categories columns.
        num_codes: of categories, how many codes each column has.
        masking: share of training rows that don't see the group.
    """

    dim: int
    num_codes: tuple[int, ...] = ()
    masking: float = 0.0


@dataclass(frozen=True)
class GroupBatch:
    """A group of some examples, see `features.GroupArray`."""

    values: Tensor
    is_there: Bool[Tensor, " batch"]


class CategoryEmbeddings(nn.Module):
    """An embedding for each column of categories, side by side."""

    def __init__(self, num_codes: Sequence[int]) -> None:
        super().__init__()
        self.columns = nn.ModuleList(nn.Embedding(count, CATEGORY_DIM) for count in num_codes)

    def forward(self, codes: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch dim"]:
        """The embeddings of each row, one after the other."""
        return torch.cat([column(codes[:, place]) for place, column in enumerate(self.columns)], dim=1)

    def average_unseen(self, shares: Sequence[Float[Tensor, " codes"]]) -> None:
        """Let codes that training doesn't have be as the average of those that it has.

        Nothing is learnt of them, so they would stay what they were by chance.

        Args:
            shares: of each column, how often training has each code, of 1.
        """
        with torch.no_grad():
            for column, share in zip(self.columns, shares, strict=True):
                assert isinstance(column, nn.Embedding)
                column.weight[share == 0] = share @ column.weight


class DynamicMasking(nn.Module):
    """Replaces whole groups by what stands for a missing one (4.4.2).

    In training each group of a row is masked at random, by a probability of its own; a row that would see nothing keeps
    the group that was nearest to being kept. Afterwards only groups that are missing are masked.

    Args:
        probabilities: of the groups, in order.
        dim: of an encoded group.
    """

    def __init__(self, probabilities: Sequence[float], dim: int) -> None:
        super().__init__()
        self.probabilities: Tensor
        self.register_buffer("probabilities", torch.tensor(probabilities), persistent=False)
        self.missing = nn.Parameter(torch.zeros(len(probabilities), dim))

    def forward(
        self, encoded: Float[Tensor, "batch groups dim"], is_there: Bool[Tensor, "batch groups"]
    ) -> Float[Tensor, "batch groups dim"]:
        """The groups, those that are masked or missing replaced."""
        seen = is_there & self.draw(is_there) if self.training else is_there
        return torch.where(seen[..., None], encoded, self.missing)

    def draw(self, is_there: Bool[Tensor, "batch groups"]) -> Bool[Tensor, "batch groups"]:
        """Which groups aren't masked: of those that are there, at least one a row."""
        margin = torch.rand(is_there.shape) - self.probabilities
        margin = margin.masked_fill(~is_there, -2.0)
        nearest = nn.functional.one_hot(margin.argmax(dim=1), margin.shape[1]).bool()
        return (margin >= 0) | nearest


class FusionNetwork(nn.Module):
    """Groups in, the logit of the positive class out.

    Args:
        shapes: of each group.
        group_dim: dimensions of each group once it is encoded.
        hidden_dim: hidden units.
        dropout: in the encoders and after the hidden layer.
        dynamic_masking: whether whole groups are masked in training.
    """

    def __init__(
        self,
        shapes: Mapping[str, GroupShape],
        *,
        group_dim: int,
        hidden_dim: int,
        dropout: float,
        dynamic_masking: bool,
    ) -> None:
        super().__init__()
        self.names = tuple(shapes)
        self.encoders = nn.ModuleList(_encoder(shape, group_dim, dropout) for shape in shapes.values())
        probabilities = [shape.masking if dynamic_masking else 0.0 for shape in shapes.values()]
        self.masking = DynamicMasking(probabilities, group_dim)
        self.fusion = nn.Sequential(
            nn.Linear(len(shapes) * group_dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, 1)
        )

    def forward(self, groups: Mapping[str, GroupBatch]) -> Float[Tensor, " batch"]:
        """A logit a row."""
        encoded = torch.stack(
            [encoder(groups[name].values) for name, encoder in zip(self.names, self.encoders, strict=True)], dim=1
        )
        is_there = torch.stack([groups[name].is_there for name in self.names], dim=1)
        logits: Tensor = self.fusion(self.masking(encoded, is_there).flatten(1)).squeeze(1)
        return logits


def _encoder(shape: GroupShape, group_dim: int, dropout: float) -> nn.Module:
    """A linear layer over values, or over the embeddings of categories."""
    if shape.num_codes:
        first: list[nn.Module] = [CategoryEmbeddings(shape.num_codes)]
        dim = CATEGORY_DIM * len(shape.num_codes)
    else:
        first, dim = [], shape.dim
    return nn.Sequential(*first, nn.Linear(dim, group_dim), nn.ReLU(), nn.Dropout(dropout))
