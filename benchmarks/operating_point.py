"""How often an operating point claims too much: simulated validations, for docs/design.md.

    PYTHONPATH=benchmarks python benchmarks/operating_point.py

Accounts differ in size and in how often they are right; a claim is wrong if the population, very many such accounts,
doesn't have the required precision at the threshold that was chosen.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ending import exit_with
from numpy.typing import NDArray

from infobehavior.fusion.calibration import calibrate
from infobehavior.fusion.config import Operating
from infobehavior.fusion.operating_point import choose_threshold

BAD_SHARE = 0.12
POPULATION = 60_000
ACCOUNTS = (150, 300, 1_000)
PRECISIONS = (0.5, 0.8, 0.95)
CERTAINTIES = (0.8, 0.95)
SIZES: dict[str, Callable[[np.random.Generator, int], NDArray[Any]]] = {
    "1 each": lambda _, count: np.ones(count, int),
    "8 each": lambda _, count: np.full(count, 8),
    "lognormal, sigma 1": lambda random, count: np.maximum(1, random.lognormal(2, 1.0, count).astype(int)),
    "lognormal, sigma 1.5": lambda random, count: np.maximum(1, random.lognormal(2, 1.5, count).astype(int)),
}
"""Examples of a bad account; the others have 1 to 5."""
REACHED: dict[str, Callable[[float], float]] = {
    "easily": lambda precision: precision + 0.7 * (1 - precision),
    "barely": lambda precision: precision,
    "hardly": lambda precision: precision - 0.02,
}
"""The share of violations in bad accounts, by the precision that is required."""

Validation = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True)
class Kept:
    """What became of the validations of one setting, as shares of them.

    Attributes:
        claims: that claim the precision.
        wrong: that claim it wrongly.
        recall: mean recall, of that of the best threshold; 0 without a claim.
    """

    claims: float
    wrong: float
    recall: float


def draw(num_accounts: int, size: str, bad_precision: float, seed: int) -> Validation:
    """Answers, scores and accounts; bad accounts have the high scores, and a share of violations each."""
    random = np.random.default_rng([seed, num_accounts])
    bad = random.random(num_accounts) < BAD_SHARE
    sizes = np.where(bad, SIZES[size](random, num_accounts), random.integers(1, 6, num_accounts))
    entity = np.repeat(np.arange(num_accounts), sizes)
    share = np.where(bad, random.beta(3.75 * bad_precision, 3.75 * (1 - bad_precision), num_accounts), 0.02)
    positive = random.random(len(entity)) < share[entity]
    noise = random.normal(0, 1, num_accounts)[entity] + random.normal(0, 0.3, len(entity))
    return positive, 2.5 * bad[entity] + 0.5 * positive + noise, entity


def simulated(
    num_accounts: int,
    size: str,
    precision: float,
    reached: str,
    num_validations: int,
    population: int = POPULATION,
    method: Literal["isotonic", "none"] = "none",
) -> dict[float, Kept]:
    """What becomes of validations, by the certainty that is asked for.

    Args:
        num_accounts: of each validation.
        size: examples of a bad account.
        precision: that is required.
        reached: how well the population reaches it.
        num_validations: how many.
        population: its accounts.
        method: of calibration, by the examples that the threshold is chosen by; Platt's, like none, keeps the order.
    """
    bad_precision = REACHED[reached](precision)
    positive, scores, _ = draw(population, size, bad_precision, 0)
    order = np.argsort(-scores)
    hits = np.cumsum(positive[order])
    precisions, recalls = hits / np.arange(1, len(order) + 1), hits / hits[-1]
    possible = recalls[precisions >= precision].max(initial=0.0)
    found: dict[float, list[tuple[bool, bool, float]]] = {certainty: [] for certainty in CERTAINTIES}
    for seed in range(1, num_validations + 1):
        answers, raw, accounts = draw(num_accounts, size, bad_precision, seed)
        calibration = calibrate(method, raw, answers)
        validated, ranked = calibration(raw), calibration(scores[order])
        for certainty, outcomes in found.items():
            rule = Operating(precision=precision, certainty=certainty)
            point = choose_threshold(answers, validated, rule, accounts)
            place = int(np.searchsorted(-ranked, -point.threshold, side="right")) - 1
            wrong = point.is_met and (place < 0 or precisions[place] < precision)
            outcomes.append((point.is_met, bool(wrong), recalls[place] if point.is_met and place >= 0 else 0.0))
    means = {certainty: np.mean(outcomes, axis=0) for certainty, outcomes in found.items()}
    return {certainty: Kept(claims, wrong, recall / possible) for certainty, (claims, wrong, recall) in means.items()}


def lines(num_validations: int, method: Literal["isotonic", "none"] = "none") -> Iterator[str]:
    """A table in Markdown: a row for each size of accounts and required precision."""
    told = ("wrong", "most", "of claims", "claims", "recall")
    columns = ["examples of a bad account", "precision", *(f"{one:g}: {name}" for one in CERTAINTIES for name in told)]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for size in SIZES:
        for precision in PRECISIONS:
            kept = {
                (reached, count): simulated(count, size, precision, reached, num_validations, method=method)
                for reached in REACHED
                for count in ACCOUNTS
            }
            cells = [cell for one in CERTAINTIES for cell in _cells({key: of[one] for key, of in kept.items()})]
            yield f"| {size} | {precision:g} | {' | '.join(cells)} |"


def _cells(kept: Mapping[tuple[str, int], Kept]) -> list[str]:
    """Wrong claims on average, at most, and among claims; claims and recall where the precision is easily reached."""
    wrong, claims = (float(np.mean([getattr(one, name) for one in kept.values()])) for name in ("wrong", "claims"))
    easily = [one for (reached, _), one in kept.items() if reached == "easily"]
    return [
        f"{wrong:.2f}",
        f"{max(one.wrong for one in kept.values()):.2f}",
        f"{wrong / claims:.2f}" if claims else "–",
        f"{np.mean([one.claims for one in easily]):.2f}",
        f"{np.mean([one.recall for one in easily]):.2f}",
    ]


def main() -> int:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validations", type=int, default=150, help="of each setting")
    parser.add_argument("--calibration", choices=["isotonic", "none"], default="none", help="Platt's is as none")
    given = parser.parse_args()
    for line in lines(given.validations, given.calibration):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    exit_with(main)
