"""The operating point: a threshold that was chosen on one part, what it does on another, and how certain that is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from infobehavior.fusion.config import Operating

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NUM_RESAMPLES = 1_000
CONFIDENCE = 0.95
STEP = 1.5
"""Between numbers of alarms that are looked at for a required precision."""
ABOVE_ALL = float(np.nextafter(1.0, 2.0))
"""A threshold that no probability reaches."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it did on the part on which it was chosen.

    Attributes:
        threshold: an example is flagged when its probability reaches it.
        rule: by which it was chosen, in words.
        is_met: whether the required precision could be reached; if not, nothing is flagged.
        line: what to say about it.
    """

    threshold: float
    rule: str
    is_met: bool
    line: str


@dataclass(frozen=True)
class _Curve:
    """What each threshold does, from the highest to the lowest; rows of equal score are taken together.

    Attributes:
        thresholds: the scores.
        num_flagged: rows.
        num_hits: right ones of them.
        num_entities: that they are of.
        hits_squared: right alarms of an entity, squared, over entities.
        products: right alarms of an entity by its alarms, over entities.
        flagged_squared: alarms of an entity, squared, over entities.
        num_positives: of all rows.
    """

    thresholds: Floats
    num_flagged: NDArray[np.int64]
    num_hits: NDArray[np.int64]
    num_entities: NDArray[np.int64]
    hits_squared: NDArray[np.int64]
    products: NDArray[np.int64]
    flagged_squared: NDArray[np.int64]
    num_positives: int

    @classmethod
    def of(cls, positive: Mask, scores: Floats, entity: NDArray[Any]) -> "_Curve":
        order, last = _by_score(scores)
        right = positive[order]
        rows, hits = _by_entity(right, entity[order])
        return cls(
            thresholds=scores[order][last],
            num_flagged=last + 1,
            num_hits=np.cumsum(right, dtype=np.int64)[last],
            num_entities=np.cumsum(rows == 0)[last],
            hits_squared=np.cumsum(right * (2 * hits + 1))[last],
            products=np.cumsum(hits + right * (rows + 1))[last],
            flagged_squared=np.cumsum(2 * rows + 1)[last],
            num_positives=int(positive.sum()),
        )

    def few(self) -> "_Curve":
        """Of the thresholds those by which 1, 2, 3, 4, 6, … rows are flagged, half as many more each time, or all.

        The more thresholds are looked at, the likelier one of them reaches a precision by luck.
        """
        length = int(np.ceil(np.log(self.num_flagged[-1]) / np.log(STEP))) + 1
        places = np.searchsorted(self.num_flagged, np.ceil(STEP ** np.arange(length)))
        places = np.unique(np.minimum(places, len(self.thresholds) - 1))
        return _Curve(**{name: one if np.ndim(one) == 0 else one[places] for name, one in vars(self).items()})

    def least_precision(self, certainty: float) -> Floats:
        """Lower bounds of the precision, of entities that differ in size and in how often they are right.

        The precision is a ratio of sums over entities, so the bound is Fieller's (1954): the precision p at which the
        sum, over entities, of right alarms less p times alarms is as many of its standard deviations as the certainty
        asks for. One more entity is counted, of the mean size and with wrong alarms only, since a part in which there
        is no such entity doesn't show that there is none. No bound is above the exact one of as many independent rows,
        or of as many entities that are all right.
        """
        z, one_more = float(norm.ppf(certainty)), self.num_flagged / self.num_entities
        flagged, flagged_squared = self.num_flagged + one_more, self.flagged_squared + one_more**2
        hits, hits_squared, products = (
            one.astype(np.float64) for one in (self.num_hits, self.hits_squared, self.products)
        )
        spread = flagged**2 * hits_squared - 2 * hits * flagged * products + hits**2 * flagged_squared
        root = np.sqrt(np.maximum(spread - z**2 * (hits_squared * flagged_squared - products**2), 0.0))
        size = flagged**2 - z**2 * flagged_squared
        bound = np.divide(hits * flagged - z**2 * products - z * root, size, out=np.zeros(len(size)), where=size > 0)
        of_rows = precision_bound(self.num_hits, self.num_flagged, certainty)
        of_entities = precision_bound(self.num_entities, self.num_entities, certainty)
        return np.clip(np.minimum(np.minimum(bound, of_rows), of_entities), 0.0, 1.0)

    @property
    def precision(self) -> Floats:
        return np.asarray(self.num_hits / self.num_flagged)

    @property
    def recall(self) -> Floats:
        return np.asarray(self.num_hits / self.num_positives)

    @property
    def f1(self) -> Floats:
        return np.asarray(2 * self.num_hits / (self.num_flagged + self.num_positives))


def _by_score(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows from the highest score to the lowest, and the places in this order at which rows of one score end."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))


def _by_entity(positive: Mask, entity: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row: how many rows, and positives, of its entity are before it."""
    _, number = np.unique(entity, return_inverse=True)
    by_entity = np.argsort(number, kind="stable")
    begins = np.flatnonzero(np.append(True, np.diff(number[by_entity]) != 0))
    lengths = np.diff(np.append(begins, len(number)))
    rows, hits = np.empty(len(number), np.int64), np.empty(len(number), np.int64)
    rows[by_entity] = np.arange(len(number)) - np.repeat(begins, lengths)
    before: NDArray[np.int64] = np.cumsum(positive[by_entity]) - positive[by_entity]
    hits[by_entity] = before - np.repeat(before[begins], lengths)
    return rows, hits


def choose_threshold(
    positive: Mask, scores: Floats, operating: Operating, entity: NDArray[Any] | None = None
) -> OperatingPoint:
    """Choose by the required precision; else by the costs of errors; else by F1.

    For a required precision a few thresholds are looked at, and of those whose lower bound reaches it the one with the
    highest recall is taken. How often that claims too much was simulated, see ``docs/design.md``.

    Args:
        positive: of the validation part; both classes are there.
        scores: probabilities.
        operating: what the threshold has to do.
        entity: of each example, since those of one go together; by default each stands alone.
    """
    curve = _Curve.of(positive, scores, np.arange(len(positive)) if entity is None else entity)
    if operating.precision is not None:
        return _by_precision(curve, operating.precision, operating.certainty)
    if operating.cost_of_false_alarm is not None and operating.cost_of_miss is not None:
        return _by_cost(curve, operating.cost_of_false_alarm, operating.cost_of_miss)
    best = int(np.argmax(curve.f1))
    return _point(curve, best, "the best F1")


def _by_precision(curve: _Curve, precision: float, certainty: float) -> OperatingPoint:
    curve = curve.few()
    reached = curve.least_precision(certainty)
    rule = f"the highest recall with a precision of {precision:g} or more with certainty {certainty:g}"
    allowed = np.flatnonzero(reached >= precision)
    if len(allowed) == 0:
        best = int(np.argmax(reached))
        line = (
            f"a precision of {precision:g} can't be reached on the validation part ({curve.num_positives} positives): "
            f"the best, {curve.precision[best]:.3f} of {curve.num_flagged[best]} alarms, is certain at "
            f"{reached[best]:.3f} only; nothing will be flagged. Require less, or give more accounts with "
            "positives, or better features"
        )
        return OperatingPoint(ABOVE_ALL, rule, False, line)
    best = int(allowed[np.argmax(curve.num_hits[allowed])])
    return _point(curve, best, rule)


def _by_cost(curve: _Curve, of_false_alarm: float, of_miss: float) -> OperatingPoint:
    costs = of_false_alarm * (curve.num_flagged - curve.num_hits) + of_miss * (curve.num_positives - curve.num_hits)
    rule = f"the lowest cost, {of_false_alarm:g} for a false alarm and {of_miss:g} for a miss"
    best = int(np.argmin(costs))
    if of_miss * curve.num_positives < costs[best]:
        line = f"by {rule}, it is cheapest to flag nothing: each alarm costs more than it saves on the validation part"
        return OperatingPoint(ABOVE_ALL, rule, True, line)
    return _point(curve, best, rule)


def _point(curve: _Curve, place: int, rule: str) -> OperatingPoint:
    line = (
        f"threshold {curve.thresholds[place]:.6g} by {rule}; on the validation part it flags "
        f"{curve.num_flagged[place]} and finds {curve.num_hits[place]} of {curve.num_positives} positives: precision "
        f"{curve.precision[place]:.3f}, recall {curve.recall[place]:.3f}"
    )
    return OperatingPoint(float(curve.thresholds[place]), rule, True, line)


def precision_bound(
    num_hits: NDArray[np.number[Any]], num_flagged: NDArray[np.number[Any]], certainty: float
) -> Floats:
    """Exact lower bound of a precision of independent examples (Clopper and Pearson, 1934); counts may be fractions.

    Example:
        >>> precision_bound(np.array([19]), np.array([20]), 0.9).round(3)
        array([0.819])
    """
    bound = beta.ppf(1 - certainty, num_hits, num_flagged - num_hits + 1)
    return np.where(num_hits > 0, bound, 0.0)


def at_threshold(positive: Mask, scores: Floats, operating: Operating, threshold: float) -> dict[str, float | None]:
    """Its `precision` (None if nothing is flagged), `recall`, `f1`, and `cost` an example if costs are given."""
    told = _told(np.ones(len(positive)), positive, scores >= threshold, operating)
    return {name: None if np.isnan(value) else value for name, value in told.items()}


def _told(weights: Floats, positive: Mask, flagged: Mask, operating: Operating) -> dict[str, float]:
    hits = float(weights[positive & flagged].sum())
    num_flagged, num_positives = float(weights[flagged].sum()), float(weights[positive].sum())
    told = {
        "precision": hits / num_flagged if num_flagged else float("nan"),
        "recall": hits / num_positives if num_positives else float("nan"),
        "f1": 2 * hits / (num_flagged + num_positives) if num_flagged + num_positives else 0.0,
    }
    if operating.cost_of_false_alarm is not None and operating.cost_of_miss is not None:
        cost = operating.cost_of_false_alarm * (num_flagged - hits) + operating.cost_of_miss * (num_positives - hits)
        told["cost"] = cost / float(weights.sum())
    return told


def threshold_intervals(
    positive: Mask, scores: Floats, entity: NDArray[Any], operating: Operating, threshold: float, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Intervals of what `at_threshold` tells, see `resampled` and `_widened`; None of what it doesn't tell."""
    flagged = scores >= threshold
    intervals: dict[str, tuple[float, float] | None] = {
        **resampled(entity, lambda weights: _told(weights, positive, flagged, operating), seed)
    }
    for name, right, of in (("precision", positive, flagged), ("recall", flagged, positive)):
        interval = intervals[name]
        assert interval is not None
        share = float(right[of].mean()) if of.any() else float("nan")
        intervals[name] = _widened(interval, share, entity[of]) if of.any() else None
    if threshold >= ABOVE_ALL:
        intervals["recall"] = (0.0, 0.0)
    return intervals


def _widened(interval: tuple[float, float], share: float, entity: NDArray[Any]) -> tuple[float, float]:
    """Where all or none are right no resample differs: then the exact bound of as many examples as entities."""
    num_entities = np.array([len(np.unique(entity))])
    bound = float(precision_bound(num_entities, num_entities, (1 + CONFIDENCE) / 2)[0])
    low, high = interval
    return min(low, bound) if share == 1 else low, max(high, 1 - bound) if share == 0 else high


def recall_intervals(
    positive: Mask, scores: Floats, entity: NDArray[Any], precision: float, seed: int
) -> tuple[float, float]:
    """Interval of the recall at a required precision, the threshold chosen anew in each resample; see `_widened`."""
    order, last = _by_score(scores)
    ordered = positive[order]

    def recall(weights: Floats) -> dict[str, float]:
        of = weights[order]
        flagged, hits = np.cumsum(of)[last], np.cumsum(of * ordered)[last]
        allowed = hits / np.maximum(flagged, 1) >= precision
        return {"recall": float(hits[allowed].max(initial=0.0) / hits[-1]) if hits[-1] else float("nan")}

    interval = resampled(entity, recall, seed)["recall"]
    return _widened(interval, recall(np.ones(len(positive)))["recall"], entity[positive])


def resampled(
    entity: NDArray[Any], measure: Callable[[Floats], dict[str, float]], seed: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals by the bootstrap: entities are drawn with replacement, since the examples of one go together.

    A draw of which a share can't be told (NaN), as the precision of one without alarms, counts as 0 for the lower end
    and as 1 for the upper: left out, few entities with alarms would look certain.

    Args:
        entity: of each example.
        measure: metrics, by how often each example is there.
        seed: of the draws.
    """
    _, number = np.unique(entity, return_inverse=True)
    count = int(number.max()) + 1
    random = np.random.default_rng([seed, count])
    runs = [
        measure(np.bincount(random.integers(0, count, count), minlength=count)[number].astype(np.float64))
        for _ in range(NUM_RESAMPLES)
    ]
    return {name: _middle(np.array([run[name] for run in runs])) for name in runs[0]}


def _middle(values: Floats) -> tuple[float, float]:
    low, high = np.nan_to_num(values, nan=0.0), np.nan_to_num(values, nan=1.0)
    return float(np.quantile(low, (1 - CONFIDENCE) / 2)), float(np.quantile(high, (1 + CONFIDENCE) / 2))
