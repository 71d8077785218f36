"""Embeds all windows that end with the last day, as a process of its own whose memory can be measured.

    python -m performance.embedding_memory_steps MINUTES WORK WINDOW_DAYS
    python -m performance.embedding_memory_steps MINUTES WORK WINDOW_DAYS MINUTES_PER_SHARD

The first makes an encoder, small and untrained: what is asked is the memory that minutes take. The second embeds by it,
and prints one line of JSON at the end.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import infobehavior
from infobehavior.data.clock import day_bounds
from infobehavior.data.minutes import open_minutes
from infobehavior.data.store import load_store
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior
from performance.measure import AnonymousPeak, anonymous_bytes

TINY = {"num_layers": 1, "num_heads": 2, "head_dim": 8, "feedforward_dim": 32, "num_feature_maps": 8, "minute_dim": 16}


def main() -> int:
    """Make an encoder, or embed and say what it took."""
    minutes, work, window_days, *limit = sys.argv[1:]
    table, model, out = open_minutes(minutes), Path(work) / "model", Path(work) / "embeddings"
    last = table.days[-1]
    if not limit:
        first_minute, _ = day_bounds(last, table.schema.time.time_zone)
        vocabulary = Vocabulary.fit(load_store(table, first_minute), table.hash, min_count=1)
        config = EncoderConfig.model_validate({**TINY, "window_days": int(window_days)})
        InfoBehavior(config, vocabulary, table.schema.time.time_zone).save_pretrained(model)
        return 0
    shutil.rmtree(out, ignore_errors=True)
    idle, started = anonymous_bytes(), time.perf_counter()
    with AnonymousPeak() as peak:
        summary = infobehavior.embed(minutes, model, out, date=last, minutes_per_shard=int(limit[0]))
    seconds = time.perf_counter() - started
    told = {"idle_bytes": idle, "peak": peak.num_bytes, "seconds": seconds, "windows": summary.num_embedded}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
