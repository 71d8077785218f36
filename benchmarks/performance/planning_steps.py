"""Decides what a night embeds, as a process of its own whose memory can be measured.

    python -m performance.planning_steps MINUTES WINDOW_DAYS

Ids, moments and bundles of the windows that end with the last day; prints one line of JSON.
"""

import json
import sys

import numpy as np

from infobehavior.data.clock import MINUTES_PER_DAY
from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE, Moments, end_of_day
from infobehavior.data.store import entities_of
from infobehavior.embedding.bundles import Bundles
from performance.measure import AnonymousPeak, anonymous_bytes


def main() -> int:
    """Decide, and say what it took."""
    path, window_days = sys.argv[1:]
    table, window_minutes = open_minutes(path), int(window_days) * MINUTES_PER_DAY
    before = anonymous_bytes()
    with AnonymousPeak() as peak:
        end = end_of_day(table.days[-1], table.schema)
        entities, _ = entities_of(table, end, first_minute=end - 2 * window_minutes)
        moments = Moments(entities, np.full(len(entities), end * MICROSECONDS_PER_MINUTE))
        bundles = Bundles.of(table, moments, window_minutes, with_contents=True)
        kept = anonymous_bytes()
    told = {"windows": len(moments), "bundles": len(bundles), "before": before, "peak": peak.num_bytes, "kept": kept}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
