"""Measures how difficult the simulated market is for hand-made features, and writes that part of docs/market.md.

    python benchmarks/market.py --work market-work

Nothing is learnt from the market here: the difficulty is set by features that count, not by what beats them.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean, stdev

from machine import ROOT, in_words, machine

import infobehavior
from infobehavior.artefacts import write_atomically, write_json
from infobehavior.downstream.classifiers import CLASSIFIERS
from infobehavior.experiments.offline import judge, read_offline_data
from infobehavior.market.config import MarketConfig
from infobehavior.market.sellers import KINDS
from infobehavior.market.simulate import simulate

PAGE = ROOT / "docs" / "market.md"
RESULT = ROOT / "docs" / "results" / "market.json"
BEGIN, END = "<!-- written by benchmarks/market.py -->\n", "<!-- until here -->\n"
MARKET = MarketConfig(num_sellers=20_000, abnormal_share=0.04)
CLASSIFIERS_TRIED = ("lr", "gbdt")
SEEDS = range(3)


def main() -> int:
    """Simulate, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "market-work", help="folder for the market")
    work = parser.parse_args().work
    market = simulate(work / "market", MARKET)
    schema = infobehavior.inspect(market.events, columns={"time_zone": MARKET.time_zone}).schema
    infobehavior.aggregate(market.events, schema, work / "minutes")
    data = read_offline_data(work / "minutes", market.labels, "label_abnormal", work / "experiment", kinds=market.truth)
    runs = [judge(data.manual, data.positive, seed, CLASSIFIERS_TRIED, kind=data.kind) for seed in SEEDS]
    columns = ["auc", *(f"auc[{kind}]" for kind in KINDS[1:])]
    scores = {name: {column: [run[name][column] for run in runs] for column in columns} for name in CLASSIFIERS_TRIED}
    described = {
        "config": MARKET.model_dump(mode="json"),
        "num_events": market.num_events,
        "accounts": data.lines()[0],
        "num_features": data.manual.shape[1],
        "seeds": list(SEEDS),
        "scores": scores,
        "machine": machine(),
    }
    write_json(RESULT, described)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page = before + BEGIN + _part(described) + END + after
    write_atomically(PAGE, lambda path: _write_text(path, page))
    return 0


def _part(described: dict) -> str:
    scores, config = described["scores"], described["config"]
    lines = [
        f"`python benchmarks/market.py`, simulated: {config['num_sellers']:,} sellers, {config['abnormal_share']:.0%} "
        f"of them abnormal, all else by default, {described['num_events']:,} events; {described['num_features']} "
        f"features of the last 30 days; AUC, mean ± standard deviation over {len(described['seeds'])} splits of 80/20. "
        f"{in_words(described['machine'])}.",
        "",
        f"| | all | {' | '.join(KINDS[1:])} |",
        "|---|" + "---|" * len(KINDS),
    ]
    for name, of_column in scores.items():
        cells = (f"{mean(values):.3f} ± {stdev(values):.3f}" for values in of_column.values())
        lines.append(f"| {CLASSIFIERS[name].title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
