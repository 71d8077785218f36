"""`simulate`: a seller market of any size on disk, the same bytes for any number of workers."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infobehavior.artefacts import (
    MARKET_FILE,
    UNFINISHED_FILE,
    definition_hash,
    read_json,
    refuse_another_run,
    refuse_unwritable,
    remove_all_leftovers,
    write_atomically,
    write_json,
    writing,
)
from infobehavior.data.clock import SECONDS_PER_MINUTE, day_bounds
from infobehavior.errors import InputError
from infobehavior.market.block import block_sellers, simulate_block
from infobehavior.market.config import MarketConfig
from infobehavior.market.operations import CITIES, OPERATIONS
from infobehavior.market.products import CATEGORIES, PICTURE_DIM, Products
from infobehavior.market.sellers import KINDS, Sellers
from infobehavior.market.sessions import Events
from infobehavior.progress import progress

VERSION = 3
"""Of what is simulated; raised with each change of it, so that no market is made of two versions' blocks. 3 has the
events of 2, and other titles and pictures of products."""

SELLERS_PER_BLOCK = 1_000
"""A block is simulated by one worker and becomes one file."""

EVENTS_FOLDER, PRODUCTS_FOLDER, LABELS_FILE, TRUTH_FILE = "events", "products", "labels.parquet", "truth.parquet"
MILLISECONDS = 1_000
BLOCK_FILE, ANY_BLOCK = "part-{:06}.parquet", "part-*.parquet"


@dataclass(frozen=True)
class Market:
    """A simulated market on disk.

    Attributes:
        events: folder of the log.
        products: folder of tables (product_id, entity_id, posted_at, category, title, picture, label_violation).
        labels: table (entity_id, label_abnormal), as a platform knows them, errors included.
        truth: table (entity_id, kind, since), which no platform has; for analysis only.
        num_events: of the log.
        num_abnormal: sellers that are abnormal.
    """

    events: Path
    products: Path
    labels: Path
    truth: Path
    num_events: int
    num_abnormal: int

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            f"simulated: {self.num_events:,} events in {self.events}, products in {self.products}",
            f"labels: {self.labels}; {self.num_abnormal:,} sellers are abnormal, which {self.truth} tells",
        ]


def simulate(out: str | Path, config: MarketConfig | None = None, *, workers: int = 1) -> Market:
    """Simulate a market of sellers, normal and abnormal, over some months.

    Each thousand sellers are a file of their own, which a rerun with the same configuration keeps. A run that ended
    before the first of these files leaves no market, so another one may take its place.

    Args:
        out: the folder to write.
        config: the market; by default `MarketConfig()`.
        workers: processes.

    Raises:
        InputError: `out` can't be written or holds something else.
    """
    config, folder = config or MarketConfig(), Path(out)
    definition = _definition(config)
    what = f"the simulation of market {definition_hash(definition)}"
    refuse_unwritable(folder, "a market")
    _take(folder, definition, what)
    blocks = range(-(-config.num_sellers // SELLERS_PER_BLOCK))
    with writing(folder, what):
        with progress("simulating sellers", config.num_sellers) as advance:
            tables, num_events = [], 0
            for sellers, num_events_of_block in _in_processes(partial(_write_block, folder, config), blocks, workers):
                tables.append(sellers)
                num_events += num_events_of_block
                advance(len(sellers))
        sellers = pa.concat_tables(tables)
        write_atomically(folder / LABELS_FILE, partial(_write, sellers.select(["entity_id", "label_abnormal"])))
        write_atomically(folder / TRUTH_FILE, partial(_write, sellers.select(["entity_id", "kind", "since"])))
    num_abnormal = len(sellers) - sellers["kind"].to_pylist().count("normal")
    return Market(
        folder / EVENTS_FOLDER,
        folder / PRODUCTS_FOLDER,
        folder / LABELS_FILE,
        folder / TRUTH_FILE,
        num_events,
        num_abnormal,
    )


def _definition(config: MarketConfig) -> dict[str, Any]:
    return {
        "kind": "market",
        "simulated": True,
        "made by": version("infobehavior"),
        "version": VERSION,
        "config": config.model_dump(mode="json"),
    }


def _take(folder: Path, definition: dict[str, Any], what: str) -> None:
    """Make a folder this market's; the definition comes before the mark and the blocks, and says whose they are.

    Args:
        folder: need not be there yet.
        definition: of this market.
        what: names this run in the mark.

    Raises:
        InputError: it holds blocks of another market, or anything else.
    """
    if (folder / MARKET_FILE).exists():
        if read_json(folder / MARKET_FILE, "a market") == definition:
            return
        if any(folder.glob(f"*/{ANY_BLOCK}")):
            raise _another(folder)
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)
        remove_all_leftovers(folder)
    elif folder.exists() and any(_is_foreign(entry) for entry in folder.iterdir()):
        raise InputError(f"{folder} has files that aren't a market's (no {MARKET_FILE}); give a new folder")
    refuse_another_run(folder, what)
    write_json(folder / MARKET_FILE, definition)


def _another(folder: Path) -> InputError:
    return InputError(
        f"{folder} holds another market, or one of another version of the simulator; choose another --out, or remove "
        "that folder first"
    )


def _is_foreign(entry: Path) -> bool:
    """Whether it is neither a mark nor what a kill left of one."""
    return entry.name != UNFINISHED_FILE and not entry.name.startswith(".")


def _in_processes(
    work: Callable[[int], tuple[pa.Table, int]], blocks: Iterable[int], workers: int
) -> Iterator[tuple[pa.Table, int]]:
    """In the order of the blocks."""
    if workers == 1:
        yield from map(work, blocks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(work, blocks)


def _write_block(folder: Path, config: MarketConfig, number: int) -> tuple[pa.Table, int]:
    """Write a block, if it isn't there or its files were cut; its sellers, and how many events they have."""
    first = number * SELLERS_PER_BLOCK
    count = min(SELLERS_PER_BLOCK, config.num_sellers - first)
    of_events, of_products = (folder / name / BLOCK_FILE.format(number) for name in (EVENTS_FOLDER, PRODUCTS_FOLDER))
    num_events = _num_rows(of_events)
    if num_events is not None and _num_rows(of_products) is not None:
        return _seller_table(config, block_sellers(config, number, count), first), num_events
    block = simulate_block(config, number, count)
    events, products = _event_table(config, block.events, first), _product_table(config, block.products, first)
    write_atomically(of_events, partial(_write_own, folder, config, events))
    write_atomically(of_products, partial(_write_own, folder, config, products))
    return _seller_table(config, block.sellers, first), len(events)


def _num_rows(file: Path) -> int | None:
    """Rows of a file; None where it isn't there, or what Parquet files end with can't be read."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return None


def _event_table(config: MarketConfig, events: Events, first: int) -> pa.Table:
    """Events as a log has them; what is after the last day isn't there."""
    starts = _day_starts(config)
    moment = starts[events.day] * MILLISECONDS + (events.second * MILLISECONDS).astype(np.int64)
    keep = moment < starts[-1] * MILLISECONDS
    events = events.take(keep)
    columns = {
        "entity_id": pa.array(first + events.seller),
        "timestamp": pa.array(moment[keep], pa.timestamp("ms", "UTC")),
        "behavior": _names(events.operation, OPERATIONS),
        "location": _names(events.city, CITIES),
        "outcome": _names(events.failed.astype(np.int64), ("success", "failure")),
    }
    return pa.table(columns)


def _product_table(config: MarketConfig, products: Products, first: int) -> pa.Table:
    """Products; ids are those of their seller and their number among the seller's."""
    moment = _day_starts(config)[products.day] * MILLISECONDS + (products.second * MILLISECONDS).astype(np.int64)
    number = np.arange(len(moment)) - np.searchsorted(products.seller, products.seller)
    entity = first + products.seller
    columns = {
        "product_id": pa.array([f"{of}-{place}" for of, place in zip(entity, number, strict=True)], pa.string()),
        "entity_id": pa.array(entity),
        "posted_at": pa.array(moment, pa.timestamp("ms", "UTC")),
        "category": _names(products.category, tuple(category.name for category in CATEGORIES)),
        "title": pa.array(products.title, pa.string()),
        "picture": pa.FixedSizeListArray.from_arrays(pa.array(products.picture.ravel()), PICTURE_DIM),
        "label_violation": pa.array(products.is_violation.astype(np.int8)),
    }
    return pa.table(columns)


def _seller_table(config: MarketConfig, sellers: Sellers, first: int) -> pa.Table:
    is_normal = sellers.kind == 0
    since = _day_starts(config)[sellers.since] * MILLISECONDS
    return pa.table(
        {
            "entity_id": pa.array(first + np.arange(len(sellers.kind))),
            "label_abnormal": pa.array(sellers.label, pa.int8()),
            "kind": _names(sellers.kind, KINDS),
            "since": pa.array(since, pa.timestamp("ms", "UTC"), mask=is_normal),
        }
    )


def _day_starts(config: MarketConfig) -> NDArray[np.int64]:
    """UTC epoch second at which each local day begins, and the end of the last one."""
    days = [config.first_day + timedelta(days=i) for i in range(config.num_days + 1)]
    return np.array([day_bounds(day, config.time_zone)[0] for day in days]) * SECONDS_PER_MINUTE


def _names(places: NDArray[np.int64], names: tuple[str, ...]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(places))


def _write_own(folder: Path, config: MarketConfig, table: pa.Table, path: Path) -> None:
    """Write a file of a block, unless another run has taken the folder meanwhile."""
    _write(table, path)
    if read_json(folder / MARKET_FILE, "a market") != _definition(config):
        raise _another(folder)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", store_schema=False)
