"""What the paper's case costs, by arithmetic from measured rates; writes docs/scale.md.

    PYTHONPATH=benchmarks python benchmarks/scale.py

Nothing is measured here: rates are those of docs/performance/*.json, each with the commit that measured it, and what an
account does is assumed and said. A rate that is measured anew changes the page when this is run again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ending import exit_with
from machine import ROOT
from performance.market import bytes_of_window

from infobehavior.artefacts import read_json, write_text

PAGE = ROOT / "docs" / "scale.md"
MEASURED = ROOT / "docs" / "performance"

SELLERS = 9_809_650
"""Of the paper (4.1.1), each with two consecutive months."""
TRAINED_ON = ("git_activity, 30 days", "lognormal", "all full")
"""Of the encoder's workloads, those of windows of a month whose minutes are about alike."""
PAIRS_TRAINED = 76_000 * 128
"""Steps of the paper's training, pairs a step (4.1.2)."""
PAPER_PAIRS_PER_SECOND = PAIRS_TRAINED / (40 * 3_600)
"""On eight GPUs of 2017, in the 40 hours that the paper tells."""
DAYS = 30
NIGHT_HOURS = 6
CORES_OF_MACHINE = 16
MEMORY_OF_MACHINE = 64e9
DISK_OF_MACHINE = 4e12
DISK_BYTES_PER_SECOND = 150e6
DAYS_OF_MINUTES = 92
"""Kept, so that two months can be trained on and a month be embedded."""
DAYS_OF_EMBEDDINGS = 30
"""Kept by `daily --keep-days`."""
MEASURED_CORES = 2
EMBEDDING_DIMS = {"paper": 192, "recommended": 1_086}
"""Numbers of an embedding; `recommended` has more, and how many depends on its tasks and the log."""
BYTES_PER_ENTITY_TRAINING = 120
BYTES_PER_MINUTE_ON_DISK = 21
"""Of training with `--minutes-in-memory` (docs/design.md, "Speed")."""
FACTORS = (1, 10, 100)


@dataclass(frozen=True)
class Case:
    """What an account does.

    Attributes:
        name: for the page.
        events: of an account in a month.
        minutes: with events, likewise.
    """

    name: str
    events: int
    minutes: int


QUIET = Case("quiet: 100 events a month", 100, 100)
BUSY = Case("busy: 10,000 events in 5,000 minutes", 10_000, 5_000)


@dataclass(frozen=True)
class Rates:
    """Seconds of CPU, and bytes.

    Attributes:
        event: to aggregate an event.
        by_account: events of logs that are sorted by account, and what it takes to aggregate one of them.
        window: to embed a window, however little is in it.
        minute: to embed a minute of a window.
        pairs: minutes of a window, and what the encoder takes to train on a pair of such; ascending.
        market: what a seller of our simulated market does.
        minute_bytes: of its minutes on disk.
        window_bytes: of memory, to decide what a night embeds.
        exponent: of the cost of an account as accounts become more.
        commits: that measured them.
    """

    event: float
    by_account: list[tuple[int, float]]
    window: float
    minute: float
    pairs: list[tuple[float, float]]
    market: Case
    minute_bytes: float
    window_bytes: float
    exponent: float
    commits: dict[str, str]

    @property
    def cases(self) -> tuple[Case, ...]:
        """What accounts may do."""
        return QUIET, self.market, BUSY


def main() -> int:
    """Read, reckon, write."""
    rates = read_rates()
    write_text(PAGE, page(rates))
    return 0


def read_rates() -> Rates:
    """The rates that the page reckons with."""
    names = ("growth", "encoder", "aggregation", "market")
    files = {name: read_json(MEASURED / f"{name}.json", "measurements") for name in names}
    growth = files["growth"]["result"]
    window, minute = _of_windows_and_minutes(growth["denser"][0], growth["denser"][1])
    runs = files["aggregation"]["result"]["runs"]
    largest = max(runs, key=lambda run: (run["num_events"], run["workload"] == "sparse"))
    workloads = [one for one in files["encoder"]["result"]["workloads"] if one["name"] in TRAINED_ON]
    markets = files["market"]["result"]["rows"]
    market = markets[-1]
    *_, first, last = growth["more"]
    return Rates(
        event=largest["sides"]["infobehavior"]["cpu_seconds"] / largest["num_events"],
        by_account=[(one["events"], one["aggregate"]["cpu_seconds"] / one["events"]) for one in markets],
        window=window,
        minute=minute,
        pairs=sorted(_of_pair(one) for one in workloads),
        market=_seller(market["of_a_month"]),
        minute_bytes=market["bytes"]["minutes"] / market["minutes"],
        window_bytes=bytes_of_window(market),
        exponent=math.log(_cpu(last) / _cpu(first)) / math.log(last["entities"] / first["entities"]),
        commits={name: content["machine"]["commit"] for name, content in files.items()},
    )


def _seller(month: dict[str, float]) -> Case:
    """What a seller of the market does in a month."""
    events, minutes = round(month["events"]), round(month["minutes"])
    return Case(f"as in our simulated market: {events:,} events in {minutes:,} minutes", events, minutes)


def _of_pair(workload: dict[str, Any]) -> tuple[float, float]:
    """Minutes of a window, and seconds of CPU that a pair takes, forward and backward."""
    seconds = workload["forward and backward"]["seconds"]["ours"]["median"] * MEASURED_CORES
    return workload["minutes"] / workload["windows"], seconds / (workload["windows"] / 2)


def _pair(rates: Rates, minutes: float) -> float:
    """Between what was measured, on logarithmic scales."""
    known, seconds = (np.log(column) for column in zip(*rates.pairs, strict=True))
    return float(np.exp(np.interp(np.log(minutes), known, seconds)))


def _of_windows_and_minutes(many: dict[str, Any], few: dict[str, Any]) -> tuple[float, float]:
    """What a window and a minute cost, if the cost is a sum of both, from two logs of as many events."""
    seconds = [row["embed"] for row in (many, few)]
    windows, minutes = ([row[name] for row in (many, few)] for name in ("windows", "minutes"))
    determinant = windows[0] * minutes[1] - windows[1] * minutes[0]
    window = (seconds[0] * minutes[1] - seconds[1] * minutes[0]) / determinant
    return window, (windows[0] * seconds[1] - windows[1] * seconds[0]) / determinant


def _cpu(row: dict[str, Any]) -> float:
    """Seconds of CPU to aggregate and embed."""
    return float(row["aggregate"] + row["embed"])


def page(rates: Rates) -> str:
    """docs/scale.md."""
    parts = [
        _HEADER.format(sellers=SELLERS, commits=", ".join(f"{name} {one}" for name, one in rates.commits.items())),
        _rates_table(rates),
        "## The paper's case, by arithmetic\n",
        f"{SELLERS:,} accounts. A machine has {CORES_OF_MACHINE} cores like those that were measured, all at work and "
        f"none in another's way, which was not measured beyond {MEASURED_CORES} cores: a bound from below.\n",
        _night_table(rates),
        _training_table(rates),
        "## What breaks first, at 10 and at 100 times as many accounts\n",
        _breaks_table(rates),
        _FOOTER,
    ]
    return "\n".join(parts)


def _rates_table(rates: Rates) -> str:
    rows = [
        ("aggregate an event", f"{rates.event * 1e6:.2f} µs of CPU", "aggregation: the largest log there"),
        (
            "aggregate an event of a log that is sorted by account",
            ", ".join(f"{one * 1e6:.2f} µs of CPU among {events / 1e6:,.0f} M" for events, one in rates.by_account),
            "market: each file has all days, so that the times of all are read again for every 4 M events; not "
            "reckoned with below, since a night's new files have few days",
        ),
        (
            "embed a window",
            f"{rates.window * 1e3:.2f} ms of CPU",
            "growth, *denser*: its first two rows, solved for both",
        ),
        ("embed a minute of it", f"{rates.minute * 1e6:.1f} µs of CPU", "likewise"),
        (
            "train the encoder on a pair of windows",
            ", ".join(f"{seconds * 1e3:,.1f} ms of CPU at {minutes:,.0f} minutes" for minutes, seconds in rates.pairs),
            f"encoder, forward and backward, float32: its seconds on {MEASURED_CORES} threads, times {MEASURED_CORES}; "
            "the tasks, the optimizer and reading aren't in it",
        ),
        ("a minute on disk", f"{rates.minute_bytes:.1f} bytes", "market: its larger log"),
        ("decide on a window", f"{rates.window_bytes:.0f} bytes of memory", "likewise"),
        (
            "exponent: cost against accounts",
            f"{rates.exponent:.2f}",
            "growth, *more*: from 10,000 to 100,000 accounts; below it is taken as 1",
        ),
    ]
    return _table(["what", "measured", "where"], rows)


def _night_table(rates: Rates) -> str:
    lines = [
        "### A night\n",
        "The day's events become minutes, and each account's window of 30 days is embedded, by an encoder of the "
        "paper's sizes. Not in it: to look through the log's new files, to compare the last day with the training "
        "(drift), and to read from all minutes of the windows what names their contents, which one process does.\n",
    ]
    rows = []
    for case in rates.cases:
        aggregate = SELLERS * case.events / DAYS * rates.event / 3_600
        embed = SELLERS * (rates.window + case.minutes * rates.minute) / 3_600
        machines = math.ceil((aggregate + embed) / (NIGHT_HOURS * CORES_OF_MACHINE))
        rows.append(
            (
                case.name,
                f"{SELLERS * case.events / DAYS / 1e6:,.0f} M",
                f"{aggregate:,.2f}",
                f"{embed:,.1f}",
                f"{(aggregate + embed) / CORES_OF_MACHINE:,.1f}",
                f"{machines:,}",
                _bytes(SELLERS * case.minutes / DAYS * rates.minute_bytes),
            )
        )
    columns = [
        *("an account does", "events a day", "aggregate, CPU-hours", "embed, CPU-hours"),
        *(f"hours on one machine of {CORES_OF_MACHINE} cores", f"machines for {NIGHT_HOURS} hours", "minutes, a day"),
    ]
    sizes = ", ".join(f"{_bytes(SELLERS * dim * 4)} ({name}, {dim} numbers)" for name, dim in EMBEDDING_DIMS.items())
    return "\n".join(
        [
            *lines,
            _table(columns, rows),
            f"A day's embeddings: {sizes}, before compression, of which nothing is reckoned here.\n",
        ]
    )


def _training_table(rates: Rates) -> str:
    lines = [
        "### Pre-training, once\n",
        f"The paper's training sees {PAIRS_TRAINED / 1e6:.2f} M pairs of months, {PAPER_PAIRS_PER_SECOND:.1f} a second "
        "on eight GPUs (its 40 hours), so it is as if each account were seen once. The cost of a pair is "
        "read between those that were measured, on logarithmic scales, and is a bound from below: see the table of "
        "rates.\n",
    ]
    rows = []
    for case in rates.cases:
        pair = _pair(rates, case.minutes)
        hours = PAIRS_TRAINED * pair / 3_600
        minutes = SELLERS * case.minutes * 2
        rows.append(
            (
                case.name,
                f"{CORES_OF_MACHINE / pair:,.0f}",
                f"{hours:,.0f}",
                f"{hours / CORES_OF_MACHINE:,.0f}",
                f"{minutes / 1e9:,.1f} G",
                _bytes(minutes * BYTES_PER_MINUTE_ON_DISK),
                _bytes(SELLERS * BYTES_PER_ENTITY_TRAINING),
            )
        )
    columns = [
        *("an account does", f"pairs a second, {CORES_OF_MACHINE} cores", "CPU-hours"),
        f"hours on one machine of {CORES_OF_MACHINE} cores",
        *("minutes", "on disk, `--minutes-in-memory`", "in memory for accounts"),
    ]
    return "\n".join([*lines, _table(columns, rows)])


@dataclass(frozen=True)
class Need:
    """What grows with the number of accounts.

    Attributes:
        name: for the page.
        amount: of the paper's number of accounts.
        limit: what a machine has.
        told: a number as text.
        then: what to do where it ends.
    """

    name: str
    amount: float
    limit: float
    told: Callable[[float], str]
    then: str

    def row(self) -> tuple[str, ...]:
        """Of the table; in bold what a machine doesn't have."""
        amounts = (self.amount * factor for factor in FACTORS)
        cells = (f"**{self.told(one)}**" if one > self.limit else self.told(one) for one in amounts)
        return (self.name, *cells, f"{self.limit / self.amount:,.1f} ×", self.then)


def _breaks_table(rates: Rates) -> str:
    case = rates.market
    night = SELLERS * (case.events / DAYS * rates.event + rates.window + case.minutes * rates.minute) / 3_600
    day_of_minutes = SELLERS * case.minutes / DAYS * rates.minute_bytes
    day_of_embeddings = {name: SELLERS * dim * 4 for name, dim in EMBEDDING_DIMS.items()}
    two_months = SELLERS * case.minutes * 2 * BYTES_PER_MINUTE_ON_DISK
    needs = [
        Need(
            f"CPU-hours of a night, `paper`; a machine has {NIGHT_HOURS * CORES_OF_MACHINE} in {NIGHT_HOURS} hours",
            night,
            NIGHT_HOURS * CORES_OF_MACHINE,
            lambda hours: f"{hours:,.0f}",
            "`--engine spark`, tested on one machine's cluster, not on several",
        ),
        *(
            Need(
                f"embeddings of {DAYS_OF_EMBEDDINGS} days, `{name}`",
                DAYS_OF_EMBEDDINGS * size,
                DISK_OF_MACHINE,
                _bytes,
                "a smaller `--keep-days`, or a shared disk",
            )
            for name, size in day_of_embeddings.items()
        ),
        Need(
            "hours to write a day's embeddings, `recommended`: one process puts the file together, whatever the engine "
            f"(assumed: {DISK_BYTES_PER_SECOND / 1e6:.0f} MB/s)",
            day_of_embeddings["recommended"] / DISK_BYTES_PER_SECOND / 3_600,
            NIGHT_HOURS,
            lambda hours: f"{hours:,.1f}",
            "several tables, each of a part of the accounts",
        ),
        Need(
            f"minutes of {DAYS_OF_MINUTES} days",
            DAYS_OF_MINUTES * day_of_minutes,
            DISK_OF_MACHINE,
            _bytes,
            "a shared disk",
        ),
        Need(
            "ids, moments and contents of a night's windows, in memory of one process, whatever the engine",
            SELLERS * rates.window_bytes,
            MEMORY_OF_MACHINE,
            _bytes,
            "likewise several tables",
        ),
        Need(
            "training: accounts in memory of one process",
            SELLERS * BYTES_PER_ENTITY_TRAINING,
            MEMORY_OF_MACHINE,
            _bytes,
            "`torchrun`, each process with its part of the accounts",
        ),
        Need(
            "training: minutes of two months, `--minutes-in-memory`",
            two_months,
            DISK_OF_MACHINE,
            _bytes,
            "draw fewer accounts: the paper's training sees each once",
        ),
    ]
    columns = ["what grows", *(f"{factor} ×" for factor in FACTORS), "a machine ends at", "then"]
    in_order = sorted(needs, key=lambda need: need.limit / need.amount)
    lines = [
        f"Accounts as in our market, on a machine of {CORES_OF_MACHINE} cores, {_bytes(MEMORY_OF_MACHINE)} of memory "
        f"and {_bytes(DISK_OF_MACHINE)} of disk; what ends first stands first, **bold** is more than it has. A night "
        "of `recommended` isn't here: what its encoder costs was not measured at this size.\n",
        _table(columns, [need.row() for need in in_order]),
    ]
    return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e6:,.0f} MB"


def _table(columns: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, ""])


_HEADER = """\
# Scale

Written by `PYTHONPATH=benchmarks python benchmarks/scale.py`; don't edit.

What {sellers:,} accounts, the paper's number (4.1.1), would cost. **Measured** are the rates of the first table, on two
cores of a small shared machine, by the commits that [performance.md](performance.md) names ({commits}); **all else is
arithmetic** from them and from what an account is said to do, which the paper doesn't tell. Nothing of this size was
run.

## Rates
"""

_FOOTER = """\
What was tried of "many": Spark in local mode and as a cluster of a master and two workers on one machine, to the same
bytes, one worker killed; training by several processes on one machine, to the same loss and gradient. One
GPU, an NVIDIA H200, trained three encoders side by side, 1,813 pairs a second each (noted by hand), on our simulated
market (results.md, Table 1 of 5,000 steps): the paper's 9.73 M pairs would take it an hour and a half, by arithmetic.
The largest simulated market that was made is that of [performance.md](performance.md), "The simulated market". Not
tried: several machines, object stores at size, several GPUs. Skewed accounts are not a limit of their own: a month
of a million events in one account takes seconds (performance.md, "Growth"). To aggregate a long log at once whose files
are sorted by account is: its cost grows with the square of its events (see the rates); by files of a day each it
doesn't.
"""

if __name__ == "__main__":
    exit_with(main)
