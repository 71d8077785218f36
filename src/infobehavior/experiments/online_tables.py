"""Tables 3 and 4 of the paper (4.3.1, 4.3.2), beside the paper's figures; and what dynamic masking does (4.4.2)."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from infobehavior.artefacts import definition_hash, read_json, write_json
from infobehavior.experiments.online import (
    BASIC,
    KNOWN,
    MASKINGS,
    NEW,
    NEW_HELD_OUT,
    USUAL_MASKING,
    WITH_BEHAVIOR,
    WITH_MANUAL,
    Metrics,
    OnlineData,
    OnlineTask,
    Run,
    described,
    fusion_config,
    judge_run,
)
from infobehavior.experiments.processes import in_processes
from infobehavior.experiments.tables import Row
from infobehavior.fusion.config import Network

SCORES_FOLDER = "scores"
SETTINGS = (BASIC, WITH_MANUAL, WITH_BEHAVIOR)
TITLES = {"fusion": "fusion network", "gbdt": "LightGBM"}
VERSION = 6
"""Of how a run is trained and judged; raised with each change of it."""


def online_table(
    data: OnlineData, tasks: Sequence[OnlineTask], seeds: Sequence[int], workers: int = 1
) -> tuple[list[Row], list[Row]]:
    """Products that break the rules, by three feature sets; then by ways of masking.

    Args:
        data: products and behavior.
        tasks: the table's categories.
        seeds: at least one.
        workers: processes; they change no figure.

    Returns:
        The paper's rows, for the fusion network and for LightGBM, on new tricks; and rows of the network with the
        representation, on known and on new tricks of sellers that weren't learnt from, for each way of masking.
    """
    runs = [Run(task, setting, USUAL_MASKING, seed) for task in tasks for setting in SETTINGS for seed in seeds]
    masked = [Run(task, WITH_BEHAVIOR, masking, seed) for task in tasks for masking in MASKINGS for seed in seeds]
    missing = {str(_score_file(data, run)): run for run in [*runs, *masked] if not _score_file(data, run).exists()}
    in_processes("training fused classifiers", partial(_score, data), list(missing.values()), workers)
    rows = [
        _row(data, task, setting, classifier, seeds) for task in tasks for setting in SETTINGS for classifier in TITLES
    ]
    return rows, [_masked_row(data, task, place, seeds) for task in tasks for place in range(len(MASKINGS))]


def _row(data: OnlineData, task: OnlineTask, setting: str, classifier: str, seeds: Sequence[int]) -> Row:
    scores = [_scores(data, Run(task, setting, USUAL_MASKING, seed))[classifier][NEW] for seed in seeds]
    recall, f1 = task.paper[setting]
    paper = {"recall": recall, "f1": f1} if classifier == "fusion" else {}
    values = {name: [one[name] for one in scores] for name in scores[0]}
    held_out = [_scores(data, Run(task, setting, USUAL_MASKING, seed))[classifier][NEW_HELD_OUT] for seed in seeds]
    values |= {f"{name}, sellers held out": [one[name] for one in held_out] for name in ("recall", "f1")}
    return Row(f"{task.category}, {setting}, {TITLES[classifier]}", values, paper)


def _masked_row(data: OnlineData, task: OnlineTask, place: int, seeds: Sequence[int]) -> Row:
    masking = MASKINGS[place]
    scores = [_scores(data, Run(task, WITH_BEHAVIOR, masking, seed))["fusion"] for seed in seeds]
    values = {
        f"{name}, {part.partition(',')[0]}": [one[part][name] for one in scores]
        for name in ("recall", "average precision", "auc")
        for part in (KNOWN, NEW_HELD_OUT)
    }
    return Row(f"{task.category}, {masking.name}", values, {})


def _score(data: OnlineData, run: Run) -> None:
    """Kept, so that a rerun goes on where it stopped."""
    write_json(_score_file(data, run), {"run": described(run), "scores": judge_run(data, run)})


def _scores(data: OnlineData, run: Run) -> dict[str, dict[str, Metrics]]:
    scores: dict[str, dict[str, Metrics]] = read_json(_score_file(data, run), "scores")["scores"]
    return scores


def _score_file(data: OnlineData, run: Run) -> Path:
    config = fusion_config(data, run).model_dump(mode="json", exclude={"groups": {"__all__": {"table"}}})
    key = definition_hash([VERSION, data.hash, described(run), config])
    return data.folder / SCORES_FOLDER / f"{key}.json"


def write_online_table(
    path: Path, data: OnlineData, seeds: Sequence[int], rows: Sequence[Row], masked: Sequence[Row], **told: Any
) -> None:
    """The same as JSON, each value a seed, with what decided it."""
    content = {
        "judged": VERSION,
        "simulated": data.simulated,
        "data": data.lines(),
        "network": Network().model_dump(mode="json", exclude={"seed"}),
        "seeds": list(seeds),
        "rows": [asdict(row) for row in rows],
        "masking": [asdict(row) for row in masked],
    }
    write_json(path, content | told)
