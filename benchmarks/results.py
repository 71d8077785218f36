"""Measures the whole path on real data and writes docs/results.md from what was measured.

    python benchmarks/results.py                        # all tasks, then the page
    python benchmarks/results.py --task git_activity.label_bot
    python benchmarks/results.py --page-only            # the page from docs/results/*.json

The event logs aren't in the repository; `--data` names their folder. Each task writes docs/results/TASK.json.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from machine import ROOT, machine

import infobehavior
from infobehavior.artefacts import write_atomically, write_json
from infobehavior.downstream.evaluation import metric_lines
from infobehavior.pretraining.config import PretrainConfig, preset
from infobehavior.threads import spin_briefly

RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
PRESET = "two-cores"
MIN_MINUTES_OF_BOTS = 5


@dataclass(frozen=True)
class Task:
    """One label of one log.

    Attributes:
        log: folder of the log.
        label: column of its labels.
        question: what the label asks, in words.
        window_days: length of the windows that are trained on and embedded.
        num_steps: steps of pre-training; chosen to stay below 20 minutes on two cores, before any evaluation.
        moments: SQL of the labelled windows: entity_id, as_of, the label and the group.
        group: column that keeps accounts of one person in one fold; "" if each stands alone.
        figures: AUC of count features that came with the data (LightGBM, logistic regression), to beat.
        cut_training: whether training must not see an account's events from its moment on.
    """

    log: str
    label: str
    question: str
    window_days: int
    num_steps: int
    moments: str
    group: str
    figures: tuple[float, float]
    cut_training: bool

    @property
    def name(self) -> str:
        """Log and label."""
        return f"{self.log}.{self.label}"


TASKS = [
    Task(
        log="git_activity",
        label="label_bot",
        question="Is the account a bot? One window each, ending with the minute of its last event; accounts with "
        f"at least {MIN_MINUTES_OF_BOTS} minutes with events in it.",
        window_days=90,
        num_steps=2_000,
        moments=f"""
            WITH last AS (
              SELECT entity_id, time_bucket(INTERVAL 1 minute, max(timestamp)) + INTERVAL 1 minute AS as_of
              FROM events GROUP BY entity_id
            )
            SELECT entity_id, as_of, label_bot, person_id
            FROM events JOIN last USING (entity_id) JOIN labels USING (entity_id)
            WHERE label_bot IS NOT NULL AND timestamp >= as_of - INTERVAL 90 day
            GROUP BY ALL HAVING count(DISTINCT time_bucket(INTERVAL 1 minute, timestamp)) >= {MIN_MINUTES_OF_BOTS}
            ORDER BY entity_id""",
        group="person_id",
        figures=(0.959, 0.960),
        cut_training=False,
    ),
    Task(
        log="git_activity",
        label="label_churn",
        question="Will the person never come back? Windows end at the label's own split date.",
        window_days=365,
        num_steps=1_000,
        moments="SELECT entity_id, split_date AS as_of, label_churn, person_id FROM labels "
        "WHERE label_churn IS NOT NULL ORDER BY entity_id",
        group="person_id",
        figures=(0.845, 0.836),
        cut_training=True,
    ),
    Task(
        log="nyc_flights",
        label="label_old",
        question="Was the aircraft built in 2000 or before? Windows end with 2013.",
        window_days=365,
        num_steps=400,
        moments="SELECT entity_id, TIMESTAMPTZ '2014-01-01 00:00:00+00' AS as_of, label_old FROM labels "
        "WHERE label_old IS NOT NULL ORDER BY entity_id",
        group="",
        figures=(0.934, 0.862),
        cut_training=False,
    ),
]


def main() -> int:
    """Measure, then write the page."""
    spin_briefly()
    given = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not given.page_only:
        for task in TASKS:
            if given.task in (None, task.name):
                measure(task, given.data / task.log, given.work / task.name)
    write_page()
    return 0


def measure(task: Task, data: Path, work: Path) -> None:
    """Run the path for one task, as a user would, and write what came out."""
    if not data.is_dir():
        print(f"{task.name} is left out: there is no {data}; name the folder of the logs with --data", file=sys.stderr)
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    events, labels, minutes = data / "events.parquet", work / "labels.parquet", work / "minutes"
    _write_labels(task, data, labels)
    config = _config(task)
    seconds: dict[str, float] = {}
    schema = infobehavior.inspect(events).schema
    with_time(seconds, "aggregate", lambda: infobehavior.aggregate(events, schema, minutes))
    cut = {"as_of": labels} if task.cut_training else {}
    with_time(seconds, "pretrain", lambda: infobehavior.pretrain(minutes, work / "model", config=config, **cut))
    with_time(seconds, "embed", lambda: infobehavior.embed(minutes, work / "model", work / "embeddings", as_of=labels))
    rows = with_time(
        seconds,
        "evaluate",
        lambda: infobehavior.evaluate(
            work / "embeddings", labels, task.label, minutes, work / "report", group=task.group or None
        ),
    )
    print(*metric_lines(rows), sep="\n")
    definition = json.loads((work / "report" / "_definition.json").read_text())
    result = {"rows": rows, "seconds": seconds, "counts": definition["counts"], "machine": machine()}
    write_json(RESULTS / f"{task.name}.json", {**result, "config": config.model_dump(mode="json")})


def with_time(seconds: dict[str, float], step: str, run: Callable[[], Any]) -> Any:
    """Run a step and note how long it took."""
    started = time.monotonic()
    result = run()
    seconds[step] = round(time.monotonic() - started, 1)
    return result


def write_page() -> None:
    """Write docs/results.md from docs/results/*.json."""
    parts = [_HEADER]
    for task in TASKS:
        path = RESULTS / f"{task.name}.json"
        if path.exists():
            parts.append(_section(task, json.loads(path.read_text())))
    write_atomically(PAGE, lambda path: _write_text(path, "\n".join(parts)))


def _section(task: Task, result: dict[str, Any]) -> str:
    rows, machine, config = result["rows"], result["machine"], result["config"]
    lightgbm, logistic = task.figures
    lines = [
        f"## {task.log}, `{task.label}`",
        f"{task.question} Windows of {task.window_days} days; {rows[0]['num_entities']} accounts, "
        f"{rows[0]['num_positives']} positive; {rows[0]['folds']} folds"
        + (f" grouped by `{task.group}`." if task.group else "."),
        "",
        f"`python benchmarks/results.py --task {task.name}`: seed {config['seed']}, one run; preset `{PRESET}` with "
        f"{config['num_steps']} steps. Seconds: "
        + ", ".join(f"{step} {value:.0f}" for step, value in result["seconds"].items())
        + f". {machine['cores']} cores ({machine['processor']}), Python {machine['python']}, torch {machine['torch']}, "
        f"commit {machine['commit']}.",
        "",
        "| features | classifier | AUC | average precision | recall at 95 % precision | at 50 % | F1 | NMI |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(row) for row in rows),
        "",
        f"Figures that came with the data (count features by other code, of whole histories instead of these windows): "
        f"LightGBM {lightgbm:.3f}, logistic regression {logistic:.3f} AUC.",
        "",
    ]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    names = ("auc", "average_precision", "recall_at_precision_95", "recall_at_precision_50", "f1", "nmi")
    metrics = (f"{row[name]:.3f} ± {row[name + '_std']:.3f}" for name in names)
    return f"| {row['features']} | {row['classifier']} | {' | '.join(metrics)} |"


def _config(task: Task) -> PretrainConfig:
    base = preset(PRESET)
    encoder = base.encoder.model_copy(update={"window_days": task.window_days})
    return base.model_copy(update={"encoder": encoder, "num_steps": task.num_steps})


def _write_labels(task: Task, data: Path, target: Path) -> None:
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in ("events", "labels"):
            connection.read_parquet(str(data / f"{table}.parquet")).create_view(table)
        rows = connection.sql(task.moments)
        write_atomically(target, lambda path: rows.write_parquet(str(path)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[task.name for task in TASKS])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "results-work")
    parser.add_argument("--page-only", action="store_true")
    return parser.parse_args()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


_HEADER = """\
# Results

Written by `python benchmarks/results.py` from `docs/results/*.json`; don't edit.

Each table is the nine rows of `metrics.json`: mean ± standard deviation over folds (of NMI: over seeds). `manual` are
the hand-made features of `downstream/manual_features.sql.jinja`, from the same windows of the same minutes. Nothing
was chosen on the test folds: what a classifier chooses it chooses on a part of its training fold, and the preset was
chosen on another label of git_activity, `label_corp`, which isn't reported here. One run a row, so differences below
a standard deviation are not to be believed. The encoder saw the windows that are evaluated, without labels, except
for churn, where it saw nothing of a labelled account from its moment on. The data sets are real; git_activity isn't
in this repository, since it describes people.
"""


if __name__ == "__main__":
    sys.exit(main())
