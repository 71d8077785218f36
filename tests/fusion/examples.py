"""A small table of products to judge, a table of embeddings to join, and a configuration of tiny networks."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infobehavior.fusion.config import FusionConfig, Group, Network, checked_config

START = datetime(2024, 3, 29, 6, tzinfo=UTC)
NUM_DAYS = 4
TIME_ZONE = "Europe/Berlin"
"""Its clocks changed on 31 March 2024, within these days."""
MODEL = "0123456789abcdef"

Row = dict[str, Any]
TYPES = pa.schema(
    {
        "product": pa.int64(),
        "seller": pa.int64(),
        "listed": pa.timestamp("us", "UTC"),
        "risky": pa.int64(),
        "task": pa.string(),
        "price": pa.float64(),
        "views": pa.int64(),
        "color": pa.string(),
        "title": pa.string(),
        "picture": pa.list_(pa.float32()),
    }
)

GROUPS = {
    "listing": Group(kind="numbers", columns=("price", "views")),
    "look": Group(kind="categories", columns=("color",)),
    "picture": Group(kind="vector", columns=("picture",)),
    "title": Group(kind="text", columns=("title",), text_dim=4),
}
"""One of each kind that columns of the examples can be."""


def products(num: int = 160, seed: int = 0) -> list[Row]:
    """Sellers 0 to 39 list products; the price, the title and the seller's embedding tell of the risky ones."""
    random = np.random.default_rng(seed)
    rows = []
    for product in range(num):
        seller = int(random.integers(40))
        is_risky = random.random() < (0.6 if seller % 4 == 0 else 0.15)
        rows.append(
            {
                "product": product,
                "seller": seller,
                "listed": START + timedelta(microseconds=int(random.integers(NUM_DAYS * 86_400_000_000))),
                "risky": int(is_risky),
                "task": "gambling",
                "price": None if random.random() < 0.1 else float(random.normal(2.0 * is_risky)),
                "views": int(random.integers(100)),
                "color": None if random.random() < 0.2 else str(random.choice(["red", "blue", "green"])),
                "title": "lucky poker chips" if is_risky and random.random() < 0.7 else f"blue garden chair {seller}",
                "picture": None if random.random() < 0.1 else random.normal(size=3).tolist(),
            }
        )
    return rows


def table_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, TYPES)


def write_rows(rows: list[Row], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(rows), path)
    return path


def write_embeddings(folder: Path, *, model: str = MODEL, seed: int = 0, sellers: range = range(35)) -> Path:
    """Daily embeddings of most sellers, from two days before the first product; one number knows the risky sellers."""
    random = np.random.default_rng(seed)
    for day in range(-2, NUM_DAYS):
        as_of = (START + timedelta(days=day)).replace(hour=0)
        vectors = random.normal(size=(len(sellers), 4)).astype(np.float32)
        vectors[:, 0] += 3 * np.array([seller % 4 == 0 for seller in sellers])
        path = folder / f"ds={as_of.date()}" / "embeddings.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "entity_id": list(sellers),
            "as_of": pa.array([as_of] * len(sellers), pa.timestamp("us", "UTC")),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4),
            "model_id": [model] * len(sellers),
        }
        pq.write_table(pa.table(columns), path)
    definition = {"kind": "embeddings", "format": 1, "model_id": model, "embedding_dim": 4}
    (folder / "_definition.json").write_text(json.dumps(definition))
    return folder


TINY = {"group_dim": 4, "hidden_dim": 8, "max_epochs": 6, "batch_size": 32, "learning_rate": 0.02}
EXAMPLES = {
    "label": "risky",
    "entity": "seller",
    "moment": "listed",
    "time_zone": TIME_ZONE,
    "id": ["product"],
    "where": {"task": "gambling"},
}


def group_fields(embeddings: Path) -> dict[str, dict[str, Any]]:
    """A group of each kind, as in a configuration file."""
    return {
        "seller": {"kind": "representation", "table": str(embeddings)},
        "picture": {"kind": "vector", "columns": ["picture"]},
        "listing": {"kind": "numbers", "columns": ["price", "views"]},
        "look": {"kind": "categories", "columns": ["color"]},
        "title": {"kind": "text", "columns": ["title"], "text_dim": 4},
    }


def config_content(embeddings: Path, **changes: Any) -> dict[str, Any]:
    """What a configuration file holds; `changes` replace whole tables of it, but for the network's."""
    network = TINY | changes.pop("network", {})
    content = {"examples": {**EXAMPLES}, "groups": group_fields(embeddings), "network": network}
    content["operating_point"] = {"precision": 0.5, "cost_of_false_alarm": 1.0, "cost_of_miss": 5.0}
    return content | changes


def small_config(embeddings: Path, **changes: Any) -> FusionConfig:
    return checked_config(config_content(embeddings, **changes), "fusion.toml")


def tiny_network(**changes: Any) -> Network:
    return Network(**(TINY | changes))


def number_group(*columns: str) -> dict[str, Group]:
    return {"numbers": Group(kind="numbers", columns=columns)}
