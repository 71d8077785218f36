"""Measures how difficult the simulated market is for hand-made features, and writes that part of docs/market.md.

    python benchmarks/market.py --work market-work

Nothing is learnt from the market here: the difficulty is set by features that count, not by what beats them.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ending import exit_with
from machine import ROOT, in_words, machine

import infobehavior
from infobehavior.artefacts import write_json, write_text
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.downstream.manual_features import describe_features
from infobehavior.experiments.offline import OfflineData, judge, read_offline_data
from infobehavior.market.config import Kinds, MarketConfig
from infobehavior.market.sellers import KINDS
from infobehavior.market.simulate import Market, simulate

PAGE = ROOT / "docs" / "market.md"
RESULT = ROOT / "docs" / "results" / "market.json"
BEGIN, END = "<!-- written by benchmarks/market.py -->\n", "<!-- until here -->\n"
TENTH = MarketConfig(num_sellers=50_000, abnormal_share=0.0472)
"""Ten times the paper's share, in a tenth of its sellers: as many abnormal ones to learn from as it has, 2,361."""

MARKETS = {
    "all kinds": TENTH,
    "camouflaged alone": TENTH.model_copy(update={"kinds": Kinds(bought=0, burst=0, camouflaged=1, relapsing=0)}),
}
CLASSIFIERS_TRIED = ("lr", "gbdt")
OF_ORDER = ("token_change_share", "token_pair_top_share", "token_pair_entropy", "token_next_entropy")
"""The hand-made features that tell in which order things are done."""
SEEDS = range(3)


def main() -> int:
    """Simulate, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "market-work", help="folder for the markets")
    work = parser.parse_args().work
    measured = {name: _measure(config, work / name.replace(" ", "-")) for name, config in MARKETS.items()}
    described = {"markets": measured, "seeds": list(SEEDS), "machine": machine()}
    write_json(RESULT, described)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(PAGE, before + BEGIN + _part(described) + END + after)
    return 0


def third_month(config: MarketConfig, work: Path, max_negatives: int | None = None) -> tuple[Market, OfflineData]:
    """A market, and who is judged by its third month; see `read_offline_data`."""
    market = simulate(work / "market", config, workers=2)
    schema = infobehavior.inspect(market.events, columns={"time_zone": config.time_zone}).schema
    infobehavior.aggregate(market.events, schema, work / "minutes")
    data = read_offline_data(
        work / "minutes",
        market.labels,
        "label_abnormal",
        work / "experiment",
        max_negatives=max_negatives,
        kinds=market.truth,
    )
    return market, data


def _measure(config: MarketConfig, work: Path) -> dict[str, Any]:
    """How well hand-made features do on a market."""
    market, data = third_month(config, work)
    is_count = [feature.name not in OF_ORDER for feature in describe_features(data.minutes.schema)]
    columns = ["auc", *(f"auc[{kind}]" for kind in KINDS[1:] if getattr(config.kinds, kind) > 0)]
    scores = {}
    for named, features in (("", data.manual), (f", without the {len(OF_ORDER)} of order", data.manual[:, is_count])):
        runs = [judge(features, data.positive, seed, CLASSIFIERS_TRIED, kind=data.kind) for seed in SEEDS]
        for name in CLASSIFIERS_TRIED:
            of_column = {column: [run[name][column] for run in runs] for column in columns}
            scores[CLASSIFIERS[name].title + named] = of_column
    return {
        "config": config.model_dump(mode="json"),
        "num_events": market.num_events,
        "num_positives": int(data.positive.sum()),
        "num_features": data.manual.shape[1],
        "scores": scores,
    }


def _part(described: dict[str, Any]) -> str:
    """The part of the page."""
    num_features = next(iter(described["markets"].values()))["num_features"]
    lines = [
        f"`python benchmarks/market.py`, simulated; AUC of the {num_features} hand-made features of the last 30 days, "
        f"mean ± standard deviation over {len(described['seeds'])} splits of 80/20, which overlap; those of order are "
        f"{', '.join(f'`{name}`' for name in OF_ORDER)}. {in_words(described['machine'])}.",
        "",
        f"| market | positives | | all | {' | '.join(KINDS[1:])} |",
        "|---|---|---|---|" + "---|" * len(KINDS[1:]),
    ]
    for market, measured in described["markets"].items():
        for title, of_column in measured["scores"].items():
            cells = (_cell(of_column.get(column, [])) for column in ("auc", *(f"auc[{kind}]" for kind in KINDS[1:])))
            lines.append(f"| {market} | {measured['num_positives']:,} | {title} | {' | '.join(cells)} |")
    config = next(iter(described["markets"].values()))["config"]
    sizes = (
        f"Both have {config['num_sellers']:,} sellers, {config['abnormal_share']:.2%} of them abnormal, and all else "
        "by default."
    )
    return "\n".join([*lines, "", sizes, "", ""])


def _cell(values: list[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if values else ""


if __name__ == "__main__":
    exit_with(main)
