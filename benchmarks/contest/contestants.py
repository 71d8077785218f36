"""Who takes part: each turns the windows of a corpus into vectors, and those that learn learn for the same time."""

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import machine
from numpy.typing import NDArray
from peer_environment import PEERS as PEER_SCRIPTS
from peer_environment import REQUIREMENTS, peer_python

import infobehavior
from contest.corpora import Prepared, window_keys
from contest.timed import train_within
from contest.trials import TRIALS, Recipe
from infobehavior.artefacts import definition_hash, write_json
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.downstream.manual_features import as_matrix, features_hash, manual_features
from infobehavior.model.device import multiplies_bfloat16

COLES_BATCH = 16
"""Entities in a batch of CoLES. The authors have 64; trials of a minute were better with 16, in its favour."""

PEER_PRECISION = {"gru": "bf16-mixed", "transformer": "32-true"}
"""Of the peers' products where the processor has bfloat16: 60 steps of CoLES's GRU took 0.7 times as long with it, of
the Transformer as long as without.

Command: `peers/coles_train.py --steps 60 --threads 1`, on git_activity, windows of 30 days; noted by hand.
"""

VERSION = 3
"""Counts up when the package makes other vectors with the same configuration, or trains otherwise: they are then made
again."""


@dataclass(frozen=True)
class Coles:
    """A variant of CoLES.

    Attributes:
        encoder: of its events' sequence.
        max_events: of a window so many are seen, the last ones; by default as many as in the authors' experiments.
    """

    encoder: str
    max_events: int | None = None


VECTORS_FILE, REPORT_FILE = "vectors.npy", "report.json"


@dataclass(frozen=True)
class Vectors:
    """What a contestant makes of the windows of a corpus.

    Attributes:
        of_window: a row for each of `Prepared.moments`; zeros where a window has no events.
        report: how it was trained.
    """

    of_window: NDArray[np.floating]
    report: dict[str, Any]

    @property
    def for_linking(self) -> NDArray[np.floating]:
        """What tells accounts apart: of ours the global representation, without what is read off it."""
        return self.of_window[:, : self.report.get("global_dim", self.of_window.shape[1])]

    def chance_of_none(self, task: str) -> NDArray[np.floating] | None:
        """Of each window, what the model believes of a counting domain-related task; None if it wasn't trained so."""
        first = self.report.get("global_dim", 0)
        for name, dim in self.report.get("readouts", []):
            if name == task:
                return 1 - self.of_window[:, first]
            first += dim
        return None


def vectors(prepared: Prepared, contestant: str, seconds: int, seed: int, work: Path) -> Vectors:
    """The vectors of a contestant, which are made once, and again if something that decides them has changed.

    Args:
        prepared: the corpus.
        contestant: one of `CONTESTANTS`.
        seconds: of training, for all alike.
        seed: of its training.
        work: folder in which the peers' environment is.
    """
    learnt = f"{re.sub('[^a-z0-9.]+', '-', contestant)}-{seconds}s-seed{seed}"
    folder = prepared.folder / (MANUAL if contestant == MANUAL else learnt)
    key = decided_by(prepared, contestant, seconds, seed)
    report = json.loads((folder / REPORT_FILE).read_text()) if (folder / REPORT_FILE).exists() else {}
    if report.get("decided_by") != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        made = CONTESTANTS[contestant](prepared, folder, seconds, seed, work)
        np.save(folder / VECTORS_FILE, made.of_window)
        report = {**made.report, "decided_by": key, "commit": machine()["commit"]}
        write_json(folder / REPORT_FILE, report)
    return Vectors(np.load(folder / VECTORS_FILE), report)


def decided_by(prepared: Prepared, contestant: str, seconds: int, seed: int) -> str:
    """Hash of what decides the vectors or scores of a contestant.

    Of the package's code, `VERSION` and the text of the hand-made features tell.
    """
    how: Any = [MANUAL, features_hash()]
    if contestant in OURS:
        recipe = OURS[contestant]
        config = recipe.config(prepared.corpus.window_days).model_dump(mode="json")
        how = [VERSION, config, seconds * recipe.times, seed]
    elif contestant != MANUAL:
        scripts = [*sorted(PEER_SCRIPTS.glob("*.py")), REQUIREMENTS]
        hashes = [hashlib.sha256(script.read_bytes()).hexdigest() for script in scripts]
        how = [contestant, COLES_BATCH, PEER_PRECISION, fastest_precision(), hashes, seconds, seed]
    return definition_hash([prepared.decided_by, how])


def _manual(prepared: Prepared, _folder: Path, _seconds: int, _seed: int, _work: Path) -> Vectors:
    """The hand-made features of the same windows."""
    windows = pq.read_table(prepared.moments)
    started = time.monotonic()
    features = as_matrix(manual_features(prepared.minutes, windows, prepared.corpus.window_days * 1_440))
    return Vectors(features, {"seconds": {"features": time.monotonic() - started}, "dim": features.shape[1]})


def fastest_precision() -> str:
    """Of the encoder's products: bfloat16 where the processor has it."""
    return "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"


def _ours(recipe: Recipe, prepared: Prepared, folder: Path, seconds: int, seed: int, _work: Path) -> Vectors:
    """A preset or a change of it, with as many steps as fit into the time."""
    changes = {"seed": seed, "precision": fastest_precision()}
    config = recipe.config(prepared.corpus.window_days).model_copy(update=changes)
    seen: dict[str, Any] = {
        "until": None if prepared.corpus.until is None else str(prepared.corpus.until),
        "as_of": prepared.moments if prepared.corpus.is_cut else None,
    }
    model, told = train_within(seconds * recipe.times, prepared.minutes, config, seen, folder / "model")
    started = time.monotonic()
    infobehavior.embed(prepared.minutes, folder / "model", folder / "embeddings", as_of=prepared.moments)
    told["seconds"]["embed"] = time.monotonic() - started
    embedded, model_dim = read_embeddings(folder / "embeddings"), config.encoder.model_dim
    made = _in_order(embedded.windows, embedded.vectors, prepared)
    report = {
        **told,
        "seconds_given": seconds * recipe.times,
        "dim": made.shape[1],
        "global_dim": model_dim,
        "readouts": [[one.name, one.dim] for one in model.readouts.readouts] if model.embedding_dim > model_dim else [],
        "config": config.model_copy(update={"num_steps": told["planned_steps"]}).model_dump(mode="json"),
    }
    return Vectors(made, report)


def _coles(coles: Coles, prepared: Prepared, folder: Path, seconds: int, seed: int, work: Path) -> Vectors:
    """CoLES of pytorch-lifestream."""
    corpus = prepared.corpus
    options: list[Any] = ["--batch-size", COLES_BATCH, "--encoder", coles.encoder]
    options += ["--cut"] if corpus.is_cut else []
    options += ["--until", corpus.until] if corpus.until else []
    options += ["--max-events", coles.max_events] if coles.max_events else []
    options += _precision(coles.encoder)
    table, report = _run_peer("coles_train.py", prepared, prepared.moments, folder, seconds, seed, work, options)
    dim = table["embedding"].type.list_size
    matrix = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    return Vectors(_in_order(table, matrix, prepared), {**report, "dim": dim})


def _precision(encoder: str) -> list[str]:
    """Of a peer's products."""
    return ["--precision", PEER_PRECISION[encoder]] if fastest_precision() == "bfloat16" else []


def supervised_scores(
    prepared: Prepared, moments: pa.Table, folder: Path, seconds: int, seed: int, work: Path
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Scores of pytorch-lifestream's supervised GRU for those windows whose part is "test", and how it was trained.

    Args:
        prepared: the corpus.
        moments: entity_id, as_of, positive and part ("train", "choose" or "test").
        folder: for what it writes.
        seconds: of training.
        seed: of training.
        work: folder in which the peers' environment is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, options = folder / "moments.parquet", _precision("gru")
    pq.write_table(moments, file)
    table, report = _run_peer("gru_supervised.py", prepared, file, folder, seconds, seed, work, options)
    return table["score"].to_numpy(), report


def _run_peer(
    script: str,
    prepared: Prepared,
    moments: Path,
    folder: Path,
    seconds: int,
    seed: int,
    work: Path,
    options: Sequence[Any],
) -> tuple[pa.Table, dict[str, Any]]:
    """Run a peer in its own environment; the table and the report that it wrote."""
    corpus, out, report = prepared.corpus, folder / "table.parquet", folder / "peer.json"
    command: list[Any] = [peer_python(work), PEER_SCRIPTS / script, prepared.events, moments, *options]
    command += ["--window-days", corpus.window_days, "--columns", *corpus.columns, "--time-zone", corpus.time_zone]
    command += ["--seconds", seconds, "--seed", seed, "--threads", 2]
    subprocess.run([str(part) for part in [*command, "--out", out, "--report", report]], check=True)
    return pq.read_table(out), json.loads(report.read_text())


def _in_order(windows: pa.Table, matrix: NDArray[np.floating], prepared: Prepared) -> NDArray[np.floating]:
    """Rows in the order of the moments; zeros for windows that aren't there."""
    moments = pq.read_table(prepared.moments)
    keys = [window_keys(table) for table in (windows, moments)]
    place = {key: row for row, key in enumerate(keys[0])}
    ordered = np.zeros((len(moments), matrix.shape[1]), matrix.dtype)
    for row, key in enumerate(keys[1]):
        if key in place:
            ordered[row] = matrix[place[key]]
    return ordered


MANUAL = "manual"
BOTH = "manual + "
"""Before a contestant's name: its vectors beside the hand-made features."""
PRESETS = {f"infobehavior-{name}": Recipe(name) for name in ("paper", "two-cores", "recommended")}
OURS = {**PRESETS, **TRIALS}
SUPERVISED = "supervised-gru"
"""Trains with labels on a split, so it has scores and no vectors; on the first fold of a seed alone."""
PEERS = {
    "coles-gru": Coles("gru"),
    "coles-transformer": Coles("transformer"),
    "coles-gru-10000": Coles("gru", max_events=10_000),
}

CONTESTANTS: dict[str, Callable[[Prepared, Path, int, int, Path], Vectors]] = {
    MANUAL: _manual,
    **{contestant: partial(_ours, recipe) for contestant, recipe in OURS.items()},
    **{contestant: partial(_coles, coles) for contestant, coles in PEERS.items()},
}
