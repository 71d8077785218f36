"""Training and embedding on more minutes than memory holds, beside few that it holds. The minutes are simulated."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infobehavior.pretraining.config import PretrainConfig, preset
from performance.measure import gigabytes, goal, run_python, table
from performance.simulated_minutes import Minutes

NUM_DAYS = 100


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        few: minutes that fit into memory.
        many: those that are kept on disk.
        limits: how many may be in memory.
        num_steps: steps of each training.
        config: how to train.
    """

    few: Minutes
    many: Minutes
    limits: tuple[int, int]
    num_steps: int
    config: PretrainConfig


LARGE = Sizes(
    few=Minutes(num_entities=20_000, minutes_a_day=10, num_days=NUM_DAYS),
    many=Minutes(num_entities=200_000, minutes_a_day=10, num_days=NUM_DAYS),
    limits=(10_000_000, 2_500_000),
    num_steps=10,
    config=preset("recommended"),
)
SMALL = Sizes(
    few=Minutes(num_entities=20, minutes_a_day=3, num_days=NUM_DAYS),
    many=Minutes(num_entities=200, minutes_a_day=3, num_days=NUM_DAYS),
    limits=(3_000, 600),
    num_steps=2,
    config=preset("recommended").model_copy(update={"batch_size": 4}),
)


def measure(data: Path, work: Path, small: bool) -> dict[str, Any]:
    """Rows of trainings, of few minutes in memory and on disk, and of many on disk; and of embeddings likewise."""
    sizes, folder = SMALL if small else LARGE, work / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = folder / "config.json"
    config.write_text(sizes.config.model_dump_json())
    rows, embedded = [], []
    for minutes, limits in ((sizes.few, (0, sizes.limits[0])), (sizes.many, sizes.limits)):
        minutes.write(folder / "minutes")
        rows += [_measure(minutes, limit, folder, config, sizes.num_steps) for limit in limits]
        embedded += [_measure_embedding(minutes, limit, folder) for limit in limits if limit]
        shutil.rmtree(folder / "minutes")
    return {"rows": rows, "embedded": embedded, "num_steps": sizes.num_steps, "batch_size": sizes.config.batch_size}


def _measure(minutes: Minutes, limit: int, folder: Path, config: Path, num_steps: int) -> dict[str, Any]:
    arguments = [folder / "minutes", config, limit, folder, num_steps]
    child = run_python(["-m", "performance.training_steps", *arguments])
    return {
        "accounts": minutes.num_entities,
        "minutes": minutes.total,
        "limit": limit,
        "peak_bytes": child.peak_bytes,
        "peak_anonymous_bytes": child.peak_anonymous_bytes,
        **json.loads(child.output.splitlines()[-1]),
    }


def _measure_embedding(minutes: Minutes, limit: int, folder: Path) -> dict[str, Any]:
    arguments = ["-m", "performance.embedding_memory_steps", folder / "minutes", folder, NUM_DAYS]
    run_python(arguments)
    child = run_python([*arguments, limit])
    told = json.loads(child.output.splitlines()[-1])
    return {"accounts": minutes.num_entities, "minutes": minutes.total, "limit": limit, **told}


def section(result: dict[str, Any]) -> str:
    """The table of the page."""
    rows = result["rows"]
    header = ["accounts", "minutes", "in memory at once", "to prepare, s", "a step, s", "reading in it, s"]
    header += ["memory to prepare", "memory of all", "with pages of files"]
    body = [
        [
            f"{row['accounts']:,}",
            f"{row['minutes']:,}",
            f"{row['limit']:,}" if row["limit"] else "all",
            f"{row['prepare']:.1f}",
            f"{row['step']:.2f}",
            f"{row['read']:.3f}",
            gigabytes(row["peak_to_prepare"]),
            gigabytes(row["peak_anonymous_bytes"]),
            gigabytes(row["peak_bytes"]),
        ]
        for row in rows
    ]
    text = _TEXT.format(**result, idle=gigabytes(rows[0]["idle_bytes"]))
    embedding = _EMBEDDING.format(days=NUM_DAYS, idle=gigabytes(result["embedded"][0]["idle_bytes"]))
    goals = [*_goals(rows), _goal_of_embedding(result["embedded"])]
    return "\n\n".join(
        [text, table(header, body), embedding, _table_of_embedding(result["embedded"]), "\n".join(goals)]
    )


def _table_of_embedding(rows: list[dict[str, Any]]) -> str:
    header = ["accounts", "minutes, all embedded", "in memory at once", "to embed, s", "memory"]
    body = [
        [
            f"{row['windows']:,}",
            f"{row['minutes']:,}",
            f"{row['limit']:,}",
            f"{row['seconds']:.0f}",
            gigabytes(row["peak"]),
        ]
        for row in rows
    ]
    return table(header, body)


def _goal_of_embedding(rows: list[dict[str, Any]]) -> str:
    few, many, _ = rows
    peaks = [row["peak"] for row in rows]
    times = many["minutes"] / few["minutes"]
    return goal(
        f"the memory of `embed` is bounded by a setting: {times:.0f} × the minutes and accounts take "
        f"at most 1.2 × as much, and a smaller setting takes less ({', '.join(map(gigabytes, peaks))})",
        peaks[1] <= 1.2 * peaks[0] and peaks[2] < peaks[1],
    )


def _goals(rows: list[dict[str, Any]]) -> list[str]:
    _, few, many, less = rows
    peaks = [row["peak_to_prepare"] for row in (few, many, less)]
    listed = ", ".join(map(gigabytes, peaks))
    times = many["minutes"] / few["minutes"]
    is_bounded = peaks[1] <= 1.2 * peaks[0] and peaks[2] < peaks[1]
    share = many["read"] / many["step"]
    return [
        goal(
            f"the memory of `pretrain` is bounded by a setting: to prepare, {times:.0f} × the minutes take at most "
            f"1.2 × as much, and a smaller setting takes less ({listed})",
            is_bounded,
        ),
        goal(
            f"of a step, reading from {many['minutes']:,} minutes on disk takes less than 5 % ({share:.1%})",
            share < 0.05,
        ),
    ]


_TEXT = """\
## Training on more minutes than memory holds

`make bench PART=memory`, on simulated minutes of equally active accounts; the preset `recommended`, {num_steps} steps
of {batch_size} accounts, each row in a process of its own, one after another. What is in memory at once is
`pretrain --minutes-in-memory`. Memory is the most that was resident and no file's, of which the libraries take {idle}
before anything is read, and most of the rest the encoder's step; pages of files, in the last column too, the kernel
takes back where memory is short. Steps and reading are medians; how long reading takes where the files aren't in memory
any more depends on the disk."""


_EMBEDDING = """\
**Embedding**: windows of {days} days of all accounts, all minutes of which are read and encoded, by a small encoder
that learnt nothing, a process each; what is in memory at once is `embed --minutes-per-shard`. The libraries take {idle}
before."""
