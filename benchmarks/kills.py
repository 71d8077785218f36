"""Kills each command with -9 at random moments while a reader reads what it writes, and tells what became of it.

    make kills                                              # 50 kills a command, writes docs/kills.md
    PYTHONPATH=benchmarks python benchmarks/kills.py --command daily --kills 5

Each kill is of a real process and of all that it started, at a moment that is drawn anew between its first step and its
end. Meanwhile a reader reads every file that is there, again and again: it must find each as it was before or as an
undisturbed run leaves it. Then the same command runs again, and must leave the bytes of an undisturbed run and nothing
else.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import deltalake
import duckdb
import pyarrow.compute as pc
from ending import exit_with
from machine import ROOT, in_words, machine

from infobehavior.artefacts import read_json, write_json, write_text

PAGE = ROOT / "docs" / "kills.md"
RESULTS = ROOT / "docs" / "kills.json"
FIRST, SECOND = "2019-08-30", "2019-08-31"
TINY = (
    "--num-steps 40 --batch-size 16 --num-layers 1 --num-heads 2 --head-dim 8 --feedforward-dim 16 --num-threads 1 "
    "--checkpoint-every 5 --preset two-cores --min-minutes 1"
)
KILLS = 50
BY_ROWS = "delta"
"""Of a Delta table names and bytes of files differ each time: what its last version holds is compared."""

UNTOLD = ("_daily.jsonl", ".lock", "_events.json", "_minutes.json", "_unfinished.json", "_checkpoint.safetensors")
"""What tells of the run, not of what it made."""

CHILD = """
import sys
import infobehavior.embedding.alignment, infobehavior.downstream.evaluation, infobehavior.market.simulate
import infobehavior.nightly.daily, infobehavior.pretraining.pretrain
from infobehavior.cli import main
print("ready", flush=True)
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Case:
    """A command that is killed.

    Attributes:
        name: of the command.
        arguments: of it; `{}` is the folder that it works in.
        written: what it writes there.
        needs: what it reads there.
    """

    name: str
    arguments: str
    written: tuple[str, ...]
    needs: tuple[str, ...] = ()


CASES = (
    Case("simulate", "simulate --out {}/market --num-sellers 300 --workers 2 --seed 5", ("market",)),
    Case(
        "aggregate", "aggregate {}/late --schema {}/schema.toml --out {}/minutes", ("minutes",), ("late", "schema.toml")
    ),
    Case(
        "pretrain",
        f"pretrain {{}}/minutes --out {{}}/new-model --resume {TINY}",
        ("new-model",),
        ("minutes",),
    ),
    Case(
        "embed",
        f"embed {{}}/late-minutes --model {{}}/model --out {{}}/embeddings --date {FIRST}",
        ("embeddings",),
        ("late-minutes", "model"),
    ),
    Case(
        "daily",
        "daily {}/late --schema {}/schema.toml --minutes {}/minutes --model {}/model --out {}/embeddings "
        f"--since {FIRST} --date {SECOND} --keep-days 2",
        ("minutes", "embeddings"),
        ("late", "schema.toml", "model"),
    ),
    Case(
        "align",
        "align {}/other-embeddings --to {}/embeddings --out {}/aligned",
        ("aligned",),
        ("other-embeddings", "embeddings"),
    ),
    Case("publish", "publish {}/embeddings --to {}/delta", ("delta",), ("embeddings",)),
    Case(
        "evaluate",
        "evaluate {}/embeddings --labels {}/labels.parquet --label label_abnormal --minutes {}/minutes --out {}/report "
        f"--date {FIRST}",
        ("report",),
        ("embeddings", "labels.parquet", "minutes"),
    ),
)


@dataclass
class Found:
    """What became of a command that was killed.

    Attributes:
        kills: times that it was started to be killed.
        at_work: of them, those in which it hadn't ended before.
        reads: files that the reader read meanwhile.
        half: of them, those that were neither as before nor as after, or missing though they are there both times.
        unreadable: times that the table as a whole couldn't be read.
        failed: runs after a kill that failed.
        unequal: runs after a kill that left other bytes.
        leftovers: temporary files, and marks of unfinished folders, that were left after those.
        seconds: of an undisturbed run, from its first step.
    """

    kills: int = 0
    at_work: int = 0
    reads: int = 0
    half: int = 0
    unreadable: int = 0
    failed: int = 0
    unequal: int = 0
    leftovers: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Keep a few words of what went wrong."""
        if len(self.examples) < 3:
            self.examples.append(what)


def main() -> int:
    """Prepare, kill, and write the page."""
    given = _arguments()
    base = given.work / "base"
    if not (base / "done").exists():
        shutil.rmtree(base, ignore_errors=True)
        prepare(base)
    found = {}
    for case in CASES:
        if given.command and case.name not in given.command:
            continue
        killed = asdict(kill_often(case, base, given.work / case.name, given.kills, given.seed))
        found[case.name] = {**killed, "seed": given.seed, "machine": machine()}
        print(case.name, found[case.name], flush=True)
        before = read_json(RESULTS, "results")["commands"] if RESULTS.exists() and given.command else {}
        if not given.dry_run:
            write_json(RESULTS, {"commands": before | found})
            write_page()
    return 0


def prepare(base: Path) -> None:
    """A small market, its minutes, two models, their embeddings, a report; and the same log with late events."""
    _run(f"simulate --out {base}/market --num-sellers 300 --seed 4 --abnormal-share 0.2", base)
    _run(f"inspect {base}/market/events --time-zone Asia/Shanghai --out {base}/schema.toml", base)
    shutil.copytree(base / "market" / "events", base / "late")
    (first, *_) = sorted((base / "late").rglob("*.parquet"))
    rows = f"SELECT * FROM read_parquet('{first}', hive_partitioning = false) LIMIT 500"
    duckdb.execute(f"COPY ({rows}) TO '{first.with_name('late.parquet')}' (FORMAT parquet)")
    shutil.copy(base / "market" / "labels.parquet", base / "labels.parquet")
    _run(f"aggregate {base}/market/events --schema {base}/schema.toml --out {base}/minutes", base)
    _run(f"aggregate {base}/late --schema {base}/schema.toml --out {base}/late-minutes", base)
    for seed, model, table in ((0, "model", "embeddings"), (1, "other-model", "other-embeddings")):
        _run(f"pretrain {base}/minutes --out {base}/{model} --seed {seed} {TINY}", base)
        _run(f"embed {base}/minutes --model {base}/{model} --out {base}/{table} --date {FIRST}", base)
    told = f"--labels {base}/labels.parquet --label label_abnormal --minutes {base}/minutes --date {FIRST}"
    _run(f"evaluate {base}/other-embeddings {told} --out {base}/report", base)
    night = f"daily {base}/market/events --schema {base}/schema.toml --minutes {base}/minutes --model {base}/model"
    _run(f"{night} --out {base}/embeddings --since 2019-08-28 --date {FIRST}", base)
    (base / "done").touch()


def kill_often(case: Case, base: Path, work: Path, kills: int, seed: int) -> Found:
    """Kill a command again and again, each time from the same beginning, until so many kills have met it at work."""
    found, draw = Found(), random.Random(f"{seed} {case.name}")
    after_folder = _fresh(case, base, work / "undisturbed")
    before = _bytes(case, after_folder)
    child = _start(case, after_folder)
    started = time.monotonic()
    assert child.wait() == 0, f"{case.name} fails undisturbed"
    found.seconds = round(time.monotonic() - started, 3)
    after = _bytes(case, after_folder)
    while found.at_work < kills and found.kills < 4 * kills:
        number, found.kills = found.kills, found.kills + 1
        folder = _fresh(case, base, work / "killed")
        child = _start(case, folder)
        with _reading(case, folder, before, after, found):
            time.sleep(draw.uniform(0, found.seconds))
            os.killpg(child.pid, signal.SIGKILL)
            found.at_work += child.wait() == -signal.SIGKILL
        again = _start(case, folder)
        if again.wait() != 0:
            found.failed += 1
            found.note(f"kill {number}: exit code {again.returncode}")
        left = _bytes(case, folder)
        if other := sorted(name for name in left.keys() | after.keys() if left.get(name) != after.get(name)):
            found.unequal += 1
            found.note(f"kill {number}: other bytes in {other[:3]}")
        found.leftovers += len(_left_behind(folder))
    shutil.rmtree(work)
    return found


class _reading:  # noqa: N801 (a context)
    """Reads all that a command writes, in a thread, as long as it lasts."""

    def __init__(self, case: Case, folder: Path, before: dict[str, str], after: dict[str, str], found: Found) -> None:
        self._case, self._folder, self._found = case, folder, found
        self._allowed = {name: {before.get(name), after.get(name)} for name in before.keys() | after.keys()}
        self._always = before.keys() & after.keys()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while True:
            is_last = self._stop.is_set()  # what is there after the kill is read once more
            try:
                read = _bytes(self._case, self._folder)
            except Exception as error:  # whatever it is, or the thread would end and count nothing
                is_listed_again = isinstance(error, FileNotFoundError) and not is_last  # a folder went meanwhile
                self._found.unreadable += not is_listed_again
                if not is_listed_again:
                    self._tell(f"unreadable: {error}")
                if is_last:
                    return
                continue
            if missing := self._always - read.keys():
                self._found.half += len(missing)
                self._found.note(f"missing: {sorted(missing)[0]}")
            for name, content in read.items():
                self._found.reads += 1
                if content not in self._allowed.get(name, set()):
                    self._found.half += 1
                    self._found.note(f"half: {name}")
            self._read_tables()
            if is_last:
                return

    def _tell(self, said: str) -> None:
        """Keep the first line of what went wrong, whatever folder it was in."""
        self._found.note(said.splitlines()[0].replace(f"{self._folder}/", ""))

    def _read_tables(self) -> None:
        for name in self._case.written:
            if any((self._folder / name).glob("ds=*/*.parquet")):
                try:
                    duckdb.connect().execute(f"SELECT count(*) FROM '{self._folder / name}/ds=*/*.parquet'").fetchall()
                except duckdb.Error as error:
                    self._found.unreadable += 1
                    self._tell(str(error))


def _fresh(case: Case, base: Path, folder: Path) -> Path:
    """A folder with what a command needs, linked, and what was there before of what it writes, copied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in case.needs:
        (folder / name).symlink_to(base / name)
    for name in case.written:
        if (base / name).exists() and name != "market":
            shutil.copytree(base / name, folder / name)
    return folder


def _start(case: Case, folder: Path) -> subprocess.Popen:
    """Start a command in a group of its own; returns when it is at its first step."""
    arguments = case.arguments.replace("{}", str(folder)).split()
    with (folder.parent / "stderr").open("w") as errors:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            text=True,
        )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    threading.Thread(target=_drain, args=(child.stdout,), daemon=True).start()
    return child


def _drain(stream: IO[str]) -> None:
    """Read what is printed to its end, so that nobody waits for a reader."""
    with stream:
        stream.read()


def _bytes(case: Case, folder: Path) -> dict[str, str]:
    """A hash of each file that a command writes, but for what tells of its run."""
    if BY_ROWS in case.written:
        return _rows_of_days(folder / BY_ROWS)
    return {
        str(path.relative_to(folder)): content
        for name in case.written
        for path in sorted((folder / name).rglob("*"))
        if not path.name.startswith(".") and path.name not in UNTOLD
        for content in _hash(path)
    }


def _left_behind(folder: Path) -> list[Path]:
    """Temporary files, and marks of folders that are unfinished, though the run has come to its end."""
    return [path for path in folder.rglob("*") if ".tmp" in path.name or path.name == "_unfinished.json"]


def _rows_of_days(table: Path) -> dict[str, str]:
    """A hash of the rows of each day of a Delta table."""
    if not deltalake.DeltaTable.is_deltatable(str(table)):
        return {}
    rows = (
        deltalake.DeltaTable(str(table)).to_pyarrow_table().sort_by([("ds", "ascending"), ("entity_id", "ascending")])
    )
    days = {day: rows.filter(pc.equal(rows["ds"], day)) for day in rows["ds"].unique().to_pylist()}
    return {str(day): hashlib.sha256(str(of_day.to_pydict()).encode()).hexdigest() for day, of_day in days.items()}


def _hash(path: Path) -> Iterator[str]:
    try:
        yield hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, IsADirectoryError):  # it has gone since it was listed
        return


def _run(line: str, base: Path) -> None:
    base.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", CHILD, *line.split()], check=True, stdout=subprocess.DEVNULL)


def write_page() -> None:
    """Write docs/kills.md from docs/kills.json."""
    results = read_json(RESULTS, "results")
    columns: dict[str, Callable[[dict], object]] = {
        "command": lambda row: f"`{row['name']}`",
        "kills": lambda row: row["kills"],
        "while at work": lambda row: row["at_work"],
        "files read meanwhile": lambda row: f"{row['reads']:,}",
        "half": lambda row: row["half"],
        "tables unreadable": lambda row: row["unreadable"],
        "reruns that failed": lambda row: row["failed"],
        "with other bytes": lambda row: row["unequal"],
        "temporary files and marks left": lambda row: row["leftovers"],
        "an undisturbed run": lambda row: f"{row['seconds']:.1f} s",
        "commit": lambda row: row["machine"]["commit"],
    }
    rows = [{"name": name, **row} for name, row in results["commands"].items()]
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(cell(row)) for cell in columns.values()) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    examples = [f"- `{row['name']}`: {example}" for row in rows for example in row["examples"]]
    seeds = sorted({row["seed"] for row in rows})
    machines = {in_words({name: of for name, of in row["machine"].items() if name != "commit"}) for row in rows}
    told = f"Seed {', '.join(map(str, seeds))}, {'; or '.join(sorted(machines))}."
    header = HEADER.format(untold=", ".join(f"`{name}`" for name in UNTOLD), kills=KILLS)
    write_text(PAGE, "\n\n".join([header, table, *examples, told]) + "\n")


HEADER = """# Kills

`make kills` kills these commands with -9, and all processes that they started, at random moments, while a reader reads
each file that is there again and again. The reader must find each file as it was before, or as an undisturbed run
leaves it; the command is then run again, and must leave the bytes of an undisturbed run, no temporary file and no mark
of an unfinished folder. What tells of a run and not of what it made isn't compared: {untold}. Of a Delta table the
rows of its last version are; files that a kill left there and no commit names stay until Delta's `vacuum(full=True)`,
and aren't counted. Each command is killed until {kills} kills have met it at work; where fewer did, the row is
of an older commit, which counted those that came too late. Other commands aren't here: in the tests a worker of Spark,
a process of `torchrun` and `fuse predict` are killed, once each; `inspect`, the rest of `fuse`, `table1` to `table4`
and `demo` nowhere. The log is simulated (300 sellers). Power failures are another matter: files are flushed before they
are moved, but that was not tried."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--kills", type=int, default=KILLS, help="of each command, that meet it at work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "kills-work", help="folder for all that is made")
    parser.add_argument("--dry-run", action="store_true", help="write no page")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
