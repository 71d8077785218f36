"""What a setting costs in quality: embeddings of a short training, and what a linear classifier makes of them."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import duckdb
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import infobehavior
from infobehavior.pretraining.config import PretrainConfig, preset
from performance.measure import table

WINDOW_DAYS = 90


@dataclass(frozen=True)
class LabelledLog:
    """A log with `label_corp`.

    Attributes:
        minutes: made of it.
        data: folder of its events and labels.
    """

    minutes: Path
    data: Path


def measure_quality(
    log: LabelledLog, work: Path, configs: Mapping[str, PretrainConfig], num_seeds: int
) -> dict[str, Any]:
    """Each configuration with each seed.

    Returns:
        Steps and accounts, and for each configuration its name and the area under the curve by seed.
    """
    labels = work / "labels.parquet"
    num_accounts = _write_labels(log.data, labels)
    configurations = [
        {"name": name, "aucs": [_auc(log, labels, work / f"quality-{name}", config, seed) for seed in range(num_seeds)]}
        for name, config in configs.items()
    ]
    num_steps = next(iter(configs.values())).num_steps
    return {"steps": num_steps, "accounts": num_accounts, "configurations": configurations}


def two_cores(encoder: Mapping[str, Any] | None = None, **changes: Any) -> PretrainConfig:
    """Preset `two-cores` with windows of WINDOW_DAYS, for git_activity.

    Args:
        encoder: changes of the encoder.
        changes: of everything else.
    """
    base = preset("two-cores")
    changed = base.encoder.model_copy(update={"window_days": WINDOW_DAYS, **(encoder or {})})
    return base.model_copy(update={"encoder": changed, **changes})


def _write_labels(data: Path, target: Path) -> int:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        written = connection.execute(
            f"COPY (SELECT entity_id, max(timestamp) + INTERVAL 1 minute AS as_of, label_corp, person_id "
            f"FROM '{data}/events.parquet' JOIN '{data}/labels.parquet' USING (entity_id) "
            f"WHERE label_corp IS NOT NULL GROUP BY ALL ORDER BY entity_id) TO '{target}'"
        )
        return int(written.fetchall()[0][0])


def _auc(log: LabelledLog, labels: Path, folder: Path, config: PretrainConfig, seed: int) -> float:
    """Area under the curve for `label_corp` of a logistic regression on embeddings of a training."""
    shutil.rmtree(folder, ignore_errors=True)
    infobehavior.pretrain(log.minutes, folder / "model", config=config.model_copy(update={"seed": seed}))
    infobehavior.embed(log.minutes, folder / "model", folder / "embeddings", as_of=labels)
    with duckdb.connect() as connection:
        rows = connection.sql(
            f"SELECT embedding, label_corp, person_id FROM read_parquet('{folder}/embeddings/*/*.parquet') "
            f"JOIN '{labels}' USING (entity_id) ORDER BY entity_id"
        ).fetchnumpy()
    y, classifier = rows["label_corp"].astype(int), make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    scores = cross_val_predict(
        classifier, np.stack(rows["embedding"]), y, groups=rows["person_id"], cv=GroupKFold(5), method="predict_proba"
    )
    return float(roc_auc_score(y, scores[:, 1]))


def quality_table(title: str, what: str, quality: Mapping[str, Any]) -> str:
    """A row for each configuration.

    Args:
        title: of the table.
        what: is compared, for the header.
        quality: from `measure_quality`.
    """
    text = (
        f"**{title}** {quality['steps']} steps from the same seeds, then `label_corp` of {quality['accounts']:,} "
        "accounts by logistic regression on their embeddings (5 folds grouped by person; embeddings in float32), AUC:"
    )
    configurations = quality["configurations"]
    seeds = [f"seed {seed}" for seed in range(len(configurations[0]["aucs"]))]
    rows = [[c["name"], *(f"{auc:.4f}" for auc in c["aucs"]), f"{mean(c['aucs']):.4f}"] for c in configurations]
    return f"{text}\n\n{table([what, *seeds, 'mean'], rows)}"
