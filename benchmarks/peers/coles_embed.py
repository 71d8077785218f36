"""Embeds the events of each entity with CoLES (GRU) of pytorch-lifestream 0.5.3, as its documentation does.

    python coles_embed.py events.parquet --out embeddings.parquet --report report.json --max-events 1000

It runs in a virtual environment of its own (`requirements-coles.txt`) and imports nothing of infobehavior. The path is
that of the package's demo `coles-emb.ipynb`: `PandasDataPreprocessor`, then `inference_data_loader`, then the
`CoLESModule` without gradients. The weights are untrained: speed doesn't depend on them.

What the package cuts: `inference_data_loader` keeps the last 10,000 events of an entity unless told otherwise, for
fear of running out of memory; the authors' own experiments keep the last 1,600, and the demo trains on slices of 25 to
200. The loader neither sorts nor buckets by length, so a batch is padded to its longest entity; `--sort` gives it the
entities by length, which it doesn't do itself.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CATEGORIES = ["behavior", "location", "outcome"]
CATEGORY_DIM = 16
WHOLE = 2**62
SECONDS_PER_DAY = 86_400


@dataclass
class Stages:
    """Seconds of each stage, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time the stage inside."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def main() -> None:
    """Embed, write the table, and then the report."""
    given = _arguments()
    stages = Stages()
    with stages.time("import"):
        _import_package(given.threads)
    with stages.time("reading"):
        events = read_events(given.events)
    num_events = len(events)
    with stages.time("preprocessing"):
        records, sizes = preprocess(events)
        if given.sort:
            records.sort(key=lambda record: len(record["event_time"]))
    del events
    with stages.time("model"):
        model = make_model(sizes, given.hidden)
    with stages.time("inference"):
        vectors = embed(model, records, given.max_events or WHOLE, given.batch_size)
    with stages.time("writing"):
        write_table(given.out, records, vectors)
    report = {
        "seconds": stages.seconds,
        "num_entities": len(records),
        "num_events": num_events,
        **_sizes_seen([len(record["event_time"]) for record in records], given),
        "embedding_dim": vectors.shape[1],
        "versions": _versions(),
    }
    given.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def read_events(path: Path) -> Any:
    """The events as a data frame; time is in days, which the preprocessor takes as it is.

    `DatetimeToTimestamp` of 0.5.3 makes every time 1 with pandas 2, so times are given to it as numbers.
    """
    import pyarrow.parquet as pq

    frame = pq.read_table(path, columns=["entity_id", "timestamp", *CATEGORIES]).to_pandas()
    seconds = frame.pop("timestamp").astype("datetime64[us, UTC]").astype("int64") / 1e6
    frame["event_time"] = (seconds - seconds.max()) / SECONDS_PER_DAY
    return frame


def preprocess(events: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The package's own preprocessing: one record per entity, in the order of entities, and the categories' sizes."""
    from ptls.preprocessing import PandasDataPreprocessor

    preprocessor = PandasDataPreprocessor(
        col_id="entity_id",
        col_event_time="event_time",
        event_time_transformation="none",
        cols_category=CATEGORIES,
        return_records=True,
    )
    records = preprocessor.fit_transform(events)
    return records, preprocessor.get_category_dictionary_sizes()


def make_model(sizes: dict[str, int], hidden: int) -> Any:
    """CoLES with a GRU, shaped as in the package's demo."""
    import torch
    from ptls.frames.coles import CoLESModule
    from ptls.nn import RnnSeqEncoder, TrxEncoder

    torch.manual_seed(0)
    trx_encoder = TrxEncoder(
        embeddings_noise=0.003,
        numeric_values={"event_time": "identity"},
        embeddings={name: {"in": size, "out": CATEGORY_DIM} for name, size in sizes.items()},
    )
    return CoLESModule(RnnSeqEncoder(trx_encoder=trx_encoder, hidden_size=hidden, type="gru")).eval()


def embed(model: Any, records: list[dict[str, Any]], max_events: int, batch_size: int) -> Any:
    """The vector of each record, through the package's own inference loader."""
    import torch
    from ptls.data_load.datasets import inference_data_loader

    loader = inference_data_loader(records, max_seq_len=max_events, num_workers=0, batch_size=batch_size)
    with torch.inference_mode():
        return torch.vstack([model(batch) for batch in loader]).numpy()


def write_table(path: Path, records: list[dict[str, Any]], vectors: Any) -> None:
    """Write (entity_id, embedding)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    entities = pa.array([record["entity_id"] for record in records])
    pq.write_table(pa.table({"entity_id": entities, "embedding": embedding}), path, compression="zstd")


def _sizes_seen(lengths: list[int], given: argparse.Namespace) -> dict[str, int]:
    """How many events the encoder saw, and over how many steps, padding included."""
    seen = [min(length, given.max_events or length) for length in lengths]
    batches = [seen[first : first + given.batch_size] for first in range(0, len(seen), given.batch_size)]
    return {"num_events_seen": sum(seen), "num_steps_padded": sum(max(batch) * len(batch) for batch in batches)}


def _import_package(threads: int) -> None:
    """Load what the stages use, once."""
    import pyarrow.parquet  # noqa: F401
    import torch
    from ptls.data_load.datasets import inference_data_loader  # noqa: F401
    from ptls.frames.coles import CoLESModule  # noqa: F401
    from ptls.preprocessing import PandasDataPreprocessor  # noqa: F401

    torch.set_num_threads(threads)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("pytorch-lifestream", "torch", "pandas", "numpy")}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path, help="Parquet: entity_id, timestamp, behavior, location, outcome")
    parser.add_argument("--out", type=Path, required=True, help="table to write: entity_id, embedding")
    parser.add_argument("--report", type=Path, required=True, help="JSON to write: seconds of each stage, memory")
    parser.add_argument("--max-events", type=int, default=0, help="last events kept of each entity; 0 keeps all")
    parser.add_argument("--hidden", type=int, default=192, help="size of the GRU and so of the vectors")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sort", action="store_true", help="give the loader the entities by length")
    return parser.parse_args()


if __name__ == "__main__":
    main()
