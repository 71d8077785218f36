"""The paper's Tables 1 and 2 on a simulated market, for docs/results.md.

    PYTHONPATH=benchmarks python benchmarks/paper_tables.py --table table1 --preset recommended
    PYTHONPATH=benchmarks python benchmarks/paper_tables.py --table table2 --preset paper --num-steps 300

It does what `infobehavior simulate`, `inspect`, `aggregate` and `table1` or `table2` do, on a market of 50,000 sellers,
a tenth of the paper's, with as many abnormal ones; the encoders are trained for fewer steps than the paper's 76,000:
on the processor with products in bfloat16 where it has them, on a GPU (`--device cuda`) in float32, which is no slower
there. Another number of steps than the usual has a file, and a section of the page, of its own.
"""

import argparse
import logging
from pathlib import Path

import torch
from contest.contestants import fastest_precision
from contest.page import RESULTS, write_page
from ending import exit_with
from machine import ROOT, machine

from infobehavior.experiments.tables import TABLES, count_rows, write_table
from infobehavior.market.simulate import VERSION
from infobehavior.pretraining.config import PRESETS, preset
from market import TENTH, third_month

MARKET = TENTH.model_copy(update={"seed": 1})
"""Nothing was chosen by this market: of its seed 0 the difficulty, and a part of the recipe."""

NUM_STEPS = 300
MAX_NEGATIVES = 10_000
"""Of the normal sellers so many are judged; the paper judges about 500,000."""


def main() -> int:
    """Simulate, train, judge, and write the page."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given = _arguments()
    changes = {
        "num_steps": given.num_steps,
        "device": given.device,
        "precision": fastest_precision() if given.device == "cpu" else "float32",
        "num_threads": given.num_threads,
    }
    config = preset(given.preset).model_copy(update=changes)
    _, data = third_month(MARKET, given.work, MAX_NEGATIVES)
    seeds = range(given.seeds)
    rows = TABLES[given.table](data, config, seeds, given.workers)
    unusual = "" if given.num_steps == NUM_STEPS else f".steps-{given.num_steps}"
    unusual += "" if given.device == "cpu" else ".gpu"
    file = RESULTS / "tables" / f"{given.table}.{given.preset}{unusual}.json"
    told = {
        "machine": machine() | _card(given.device),
        "market": MARKET.model_dump(mode="json"),
        "simulator": VERSION,
        "preset": given.preset,
        "table": given.table,
        "workers": given.workers,
    }
    write_table(file, data, config, seeds, rows, count_rows(data, config, seeds) if len(data.unseen) else [], **told)
    write_page()
    return 0


def _card(device: str) -> dict[str, str]:
    """The GPU that it is, to be told with the machine."""
    return {} if device == "cpu" else {"card": torch.cuda.get_device_name(device)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=list(TABLES), required=True)
    parser.add_argument("--preset", choices=list(PRESETS), required=True)
    parser.add_argument("--num-steps", type=int, default=NUM_STEPS, help="of each pre-training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes, an encoder each")
    parser.add_argument("--num-threads", type=int, default=1, help="of each process, when it trains")
    parser.add_argument("--device", default="cpu", help="where to train and embed: cpu or cuda")
    parser.add_argument("--work", type=Path, default=ROOT / "tables-work", help="folder for all that is made")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
