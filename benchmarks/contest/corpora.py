"""Events, minutes and moments of a corpus on disk, made once."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import infobehavior
from contest import flights
from contest.tasks import CHOSEN_BY, CORPORA, PART_SEED, PARTS, TASKS, Corpus, Task
from infobehavior.apps.flights import flights_are_installed
from infobehavior.artefacts import definition_hash, write_atomically
from infobehavior.data.clock import MINUTES_PER_DAY
from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE
from infobehavior.data.schema import Schema
from infobehavior.data.store import load_store
from infobehavior.data.windows import Windows
from infobehavior.market.simulate import LABELS_FILE, TRUTH_FILE, simulate

NUM_MINUTES_FILE = "num_minutes.parquet"


@dataclass(frozen=True)
class Prepared:
    """A corpus on disk.

    Attributes:
        corpus: which one.
        folder: of everything that is made from it.
        events: file, or folder of files, of the log.
        minutes: folder of minutes.
        moments: table (entity_id, as_of) of all windows that any task asks about.
        validation: table (group) of those whose accounts are for choosing.
        decided_by: hash of what decides all of these.
    """

    corpus: Corpus
    folder: Path
    events: Path
    minutes: Path
    moments: Path
    validation: Path
    decided_by: str

    def labelled(self, task: Task) -> Path:
        """Table of a task's windows, with label and group."""
        return self.folder / f"{task.name}.parquet"

    def num_minutes(self) -> NDArray[np.int64]:
        """Minutes with events in each window of `moments`."""
        counts: NDArray[np.int64] = pq.read_table(self.folder / NUM_MINUTES_FILE)["num_minutes"].to_numpy()
        return counts


def is_there(corpus: Corpus, data: Path) -> bool:
    """Whether the corpus' log is in the folder of the logs, or can be made."""
    if corpus.market is not None or (data / corpus.log).is_dir():
        return True
    return corpus.log == flights.NAME and flights_are_installed()


def prepare(corpus: Corpus, data: Path, work: Path) -> Prepared:
    """Write what isn't there yet, or was made of other events or for other questions."""
    events, labels = _log(corpus, data, work)
    folder = work / corpus.name
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [task for task in TASKS if task.corpus == corpus.name]
    choosing = [task for task in TASKS if task.name in CHOSEN_BY and CORPORA[task.corpus].log == corpus.log]
    files = [labels, *(sorted(events.rglob("*.parquet")) if events.is_dir() else [events])]
    sizes = [file.stat().st_size for file in files]
    key = definition_hash([str(asdict(corpus)), [task.moments for task in (*tasks, *choosing)], sizes])
    moments, validation = folder / "moments.parquet", folder / "validation.parquet"
    prepared = Prepared(corpus, folder, events, folder / "minutes", moments, validation, key)
    done = folder / "decided_by.txt"
    if not done.exists() or done.read_text(encoding="utf-8") != key or not (folder / NUM_MINUTES_FILE).exists():
        done.unlink(missing_ok=True)
        shutil.rmtree(prepared.minutes, ignore_errors=True)
        infobehavior.aggregate(events, _schema(corpus, events), prepared.minutes)
        windows = {task.name: _windows(task, events, labels) for task in (*tasks, *choosing)}
        for task in tasks:
            _write(windows[task.name], prepared.labelled(task))
        _write(_distinct([windows[task.name].select(["entity_id", "as_of"]) for task in tasks]), moments)
        _write(_num_minutes(prepared), folder / NUM_MINUTES_FILE)
        drawn = np.concatenate([np.array([], np.int64), *(_drawn(windows[task.name], task) for task in choosing)])
        _write(pa.table({"group": np.unique(drawn)}), validation)
        done.write_text(key, encoding="utf-8")
    return prepared


def _log(corpus: Corpus, data: Path, work: Path) -> tuple[Path, Path]:
    """The events and the labels of a corpus."""
    if corpus.market is not None:
        market = simulate(work / corpus.log, corpus.market)
        return market.events, market.events.parent / LABELS_FILE
    if not (data / corpus.log).is_dir():
        flights.make_flights(work / corpus.log)
        data = work
    return data / corpus.log / "events.parquet", data / corpus.log / "labels.parquet"


def _schema(corpus: Corpus, events: Path) -> Schema:
    """What `inspect` proposes, without what contestants aren't told."""
    schema = infobehavior.inspect(events, columns={"time_zone": corpus.time_zone}).schema
    untold = {name: None for name in ("location", "outcome") if name not in corpus.columns}
    failures = type(schema.failures)() if "outcome" in untold else schema.failures
    columns = schema.columns.model_copy(update=untold)
    return schema.model_copy(update={"columns": columns, "failures": failures})


def _windows(task: Task, events: Path, labels: Path) -> pa.Table:
    """The windows that a task asks about."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.read_parquet(_as_glob(events)).create_view("events")
        connection.read_parquet(str(labels)).create_view("labels")
        if (truth := labels.parent / TRUTH_FILE).exists():
            connection.read_parquet(str(truth)).create_view("truth")
        return connection.sql(task.moments).to_arrow_table()


def _as_glob(events: Path) -> str:
    return f"{events}/*.parquet" if events.is_dir() else str(events)


def _drawn(windows: pa.Table, task: Task) -> NDArray[np.int64]:
    """The groups of a task whose accounts are for choosing."""
    groups = np.unique(windows[task.group or "entity_id"].to_numpy())
    return np.random.default_rng(PART_SEED).permutation(groups)[: len(groups) // PARTS].astype(np.int64)


def _distinct(windows: list[pa.Table]) -> pa.Table:
    """Each window once, by entity and moment."""
    distinct = pa.concat_tables(windows).group_by(["entity_id", "as_of"]).aggregate([])
    distinct = distinct.sort_by([("entity_id", "ascending"), ("as_of", "ascending")])
    as_of = pc.cast(distinct["as_of"], pa.timestamp("us", "UTC"))
    return pa.table({"entity_id": distinct["entity_id"], "as_of": as_of})


def _num_minutes(prepared: Prepared) -> pa.Table:
    """How many minutes with events each moment's window has."""
    moments, store = pq.read_table(prepared.moments), load_store(open_minutes(prepared.minutes))
    place = {entity: row for row, entity in enumerate(store.entities)}
    entity = np.array([place[number] for number in moments["entity_id"].to_pylist()])
    end = moments["as_of"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_MINUTE
    window_minutes = prepared.corpus.window_days * MINUTES_PER_DAY
    return moments.append_column("num_minutes", pa.array(Windows.cut(store, entity, end, window_minutes).num_minutes))


def _write(table: pa.Table, target: Path) -> None:
    write_atomically(target, lambda path: pq.write_table(table, path))


def window_keys(table: pa.Table) -> list[tuple[int, int]]:
    """Entity and moment (microseconds since the epoch) of each window of a table."""
    as_of = table["as_of"].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return list(zip(table["entity_id"].to_pylist(), as_of.to_pylist(), strict=True))
