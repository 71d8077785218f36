"""Aggregates a log and embeds its accounts, as a process of its own whose memory can be measured.

The libraries of both stages are loaded before either is timed.

    python -m performance.path EVENTS SCHEMA MODEL WORK LAST_DAY AS_OF MINUTES_PER_SHARD

AS_OF is a table of moments, or "-" for the end of LAST_DAY. Prints one line of JSON at the end.
"""

import json
import sys
import time
from pathlib import Path

import infobehavior
import infobehavior.data.aggregation
import infobehavior.embedding.embed


def main() -> int:
    """Run both stages and say what each took."""
    events, schema, model, work, last_day, as_of, limit = sys.argv[1:]
    minutes, embeddings = Path(work) / "minutes", Path(work) / "embeddings"
    started, cpu = time.perf_counter(), time.process_time()
    num_minutes = infobehavior.aggregate(events, schema, minutes).num_minutes
    aggregated, aggregated_cpu = time.perf_counter() - started, time.process_time() - cpu
    started, cpu = time.perf_counter(), time.process_time()
    moments = {"date": last_day} if as_of == "-" else {"as_of": as_of}
    summary = infobehavior.embed(minutes, model, embeddings, **moments, minutes_per_shard=int(limit))
    embedded, embedded_cpu = time.perf_counter() - started, time.process_time() - cpu
    result = {
        "num_minutes": num_minutes,
        "num_windows": summary.num_embedded,
        "aggregate": {"seconds": aggregated, "cpu_seconds": aggregated_cpu},
        "embed": {"seconds": embedded, "cpu_seconds": embedded_cpu},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
