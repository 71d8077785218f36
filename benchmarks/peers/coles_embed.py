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
from pathlib import Path
from typing import Any

from stages import Stages, versions

CATEGORIES = ["behavior", "location", "outcome"]
WHOLE = 2**62
SECONDS_PER_DAY = 86_400


def main() -> None:
    """Embed, write the table, and then the report."""
    given = _arguments()
    stages = Stages()
    with stages.time("import"):
        _import_package(given.threads)
        from sequences import write_vectors
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
        write_vectors(given.out, {"entity_id": [record["entity_id"] for record in records]}, vectors)
    report = {
        "seconds": stages.seconds,
        "num_entities": len(records),
        "num_events": num_events,
        **_sizes_seen([len(record["event_time"]) for record in records], given),
        "embedding_dim": vectors.shape[1],
        "versions": versions(),
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
    from lifestream import event_encoder
    from ptls.frames.coles import CoLESModule
    from ptls.nn import RnnSeqEncoder

    torch.manual_seed(0)
    trx_encoder = event_encoder(sizes, ["event_time"])
    return CoLESModule(RnnSeqEncoder(trx_encoder=trx_encoder, hidden_size=hidden, type="gru")).eval()


def embed(model: Any, records: list[dict[str, Any]], max_events: int, batch_size: int) -> Any:
    """The vector of each record, through the package's own inference loader."""
    import torch
    from ptls.data_load.datasets import inference_data_loader

    loader = inference_data_loader(records, max_seq_len=max_events, num_workers=0, batch_size=batch_size)
    with torch.inference_mode():
        return torch.vstack([model(batch) for batch in loader]).numpy()


def _sizes_seen(lengths: list[int], given: argparse.Namespace) -> dict[str, int]:
    """How many events the encoder saw, and over how many steps, padding included."""
    seen = [min(length, given.max_events or length) for length in lengths]
    batches = [seen[first : first + given.batch_size] for first in range(0, len(seen), given.batch_size)]
    return {"num_events_seen": sum(seen), "num_steps_padded": sum(max(batch) * len(batch) for batch in batches)}


def _import_package(threads: int) -> None:
    """Load what the stages use, once."""
    import lifestream  # noqa: F401
    import torch
    from ptls.data_load.datasets import inference_data_loader  # noqa: F401
    from ptls.frames.coles import CoLESModule  # noqa: F401
    from ptls.preprocessing import PandasDataPreprocessor  # noqa: F401

    torch.set_num_threads(threads)


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
