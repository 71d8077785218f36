"""Equations 1 to 6 with plain loops over plain numbers; no matrix, no library function but exp and log.

Vectors are lists of numbers: floats, or scalars that record gradients, with an `exp` and a `log` of their own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Number = Any
Vector = Sequence[Number]
Function = Callable[[Number], Number]


@dataclass(frozen=True)
class Loops:
    """The equations, with the similarity that the tasks may be asked for.

    Attributes:
        kind: "dot", as in the paper, or "cosine".
        temperature: divides similarities.
        exp: exponential function of the numbers.
        log: logarithm of the numbers.
    """

    kind: str = "dot"
    temperature: float = 1.0
    exp: Function = math.exp
    log: Function = math.log

    def phi(self, a: Vector, b: Vector) -> Number:
        if self.kind == "cosine":
            return dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5 / self.temperature
        return dot(a, b) / self.temperature

    def choice(self, anchor: Vector, positive: Vector, negatives: Sequence[Vector]) -> Number:
        """What equations 1 and 3 have in common: minus the log of the positive's share."""
        numerator = self.exp(self.phi(anchor, positive))
        denominator = numerator
        for negative in negatives:
            denominator = denominator + self.exp(self.phi(anchor, negative))
        return -self.log(numerator / denominator)

    def coarse(self, g1: Sequence[Vector], g2: Sequence[Vector], both_months: bool = False) -> Number:
        """Equations 1 and 2, averaged over entities."""
        total = 0.0
        for anchors, others in ((g1, g2), (g2, g1)):
            for i, anchor in enumerate(anchors):
                negatives = [others[j] for j in range(len(others)) if j != i]
                if both_months:
                    negatives += [anchors[j] for j in range(len(anchors)) if j != i]
                total = total + self.choice(anchor, others[i], negatives)
        return total / len(g1)

    def fine(self, months: Sequence[Sequence[Sequence[tuple[Vector, Vector]]]], reduction: str = "sum") -> Number:
        """Equations 3 and 4; `months[m][e]` has (l_i, s_i) of each masked span of entity e in month m."""
        total = 0.0
        for month in months:
            loss, num_masked = 0.0, 0
            for e, masked_spans in enumerate(month):
                negatives = [s for other in range(len(month)) if other != e for _, s in month[other]]
                for local_repr, span_repr in masked_spans:
                    loss = loss + self.choice(local_repr, span_repr, negatives)
                    num_masked += 1
            total = total + loss / (len(month) if reduction == "sum" else max(1, num_masked))
        return total

    def count(self, g: Sequence[Vector], c: Sequence[int], weight: Sequence[Vector], bias: Vector) -> Number:
        """Equation 5, averaged over windows: one linear layer and a softmax over the M classes."""
        total = 0.0
        for vector, label in zip(g, c, strict=True):
            p = self.softmax(self.linear(vector, weight, bias))
            for m in range(len(bias)):
                y = 1 if label == m else 0
                total = total - y * self.log(p[m])
        return total / len(g)

    def histogram(
        self, g: Sequence[Vector], shares: Sequence[Sequence[float]], weight: Sequence[Vector], bias: Vector
    ) -> Number:
        """Kullback-Leibler divergence of the predicted from the true shares, averaged over windows."""
        total = 0.0
        for vector, share in zip(g, shares, strict=True):
            p = self.softmax(self.linear(vector, weight, bias))
            for m in range(len(bias)):
                if share[m] > 0:
                    total = total + share[m] * (math.log(share[m]) - self.log(p[m]))
        return total / len(g)

    def linear(self, x: Vector, weight: Sequence[Vector], bias: Vector) -> list[Number]:
        return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]

    def softmax(self, logits: Vector) -> list[Number]:
        exponentials = [self.exp(logit) for logit in logits]
        return [e / sum(exponentials) for e in exponentials]


def dot(a: Vector, b: Vector) -> Number:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total = total + x * y
    return total
