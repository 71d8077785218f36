"""The commands of `infobehavior fuse`: a classifier over the representation and other features (4.3, 4.4.2)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Protocol

import typer

from infobehavior.errors import InputError

EXIT_NOT_MET = 3
"""All is written, but the precision that is required wasn't reached."""

fuse = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fuse the representation with other features into a classifier with an operating point (4.3, 4.4.2).",
)

Examples = Annotated[
    str,
    typer.Argument(
        help="examples: a Parquet or CSV file, a glob, a folder or a partitioned folder", metavar="EXAMPLES"
    ),
]
Since = Annotated[str | None, typer.Option(help="first local day of the examples' moments", metavar="YYYY-MM-DD")]
Until = Annotated[str | None, typer.Option(help="last local day of the examples' moments", metavar="YYYY-MM-DD")]
Model = Annotated[Path, typer.Option(help="a folder that `fuse train` wrote", metavar="FUSED")]
Tables = Annotated[
    list[str] | None,
    typer.Option(help="another table for a group that is joined; may be repeated", metavar="GROUP=TABLE"),
]

Without = Annotated[
    list[str] | None, typer.Option(help="mask this group in all examples; may be repeated", metavar="GROUP")
]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


class _Summary(Protocol):
    """Of a training or of predictions."""

    @property
    def is_met(self) -> bool: ...

    @property
    def not_met_line(self) -> str: ...

    def lines(self) -> list[str]: ...


def _end(summary: _Summary) -> None:
    """Say what was done, and that the required precision wasn't reached if so."""
    _print(summary.lines())
    if not summary.is_met:
        typer.echo(summary.not_met_line, err=True)
        raise typer.Exit(EXIT_NOT_MET)


def _tables(given: list[str] | None) -> dict[str, Path]:
    tables = {}
    for text in given or []:
        name, is_there, table = text.partition("=")
        if not is_there or not name or not table:
            raise InputError(f"--table is {text!r}; expected GROUP=TABLE")
        tables[name] = Path(table)
    return tables


@fuse.command()
def train(
    examples: Examples,
    config: Annotated[Path, typer.Option(help="groups of columns, network, operating point", metavar="FUSION.toml")],
    out: Annotated[Path, typer.Option(help="folder of the fused classifier to write", metavar="FUSED")],
    since: Since = None,
    until: Until = None,
) -> None:
    """Train a fused classifier, and choose its threshold on a part that it doesn't learn from."""
    from infobehavior.fusion.fuse import fuse_train as run

    _end(run(examples, config, out, since=since, until=until))


@fuse.command()
def predict(
    examples: Examples,
    model: Model,
    out: Annotated[Path, typer.Option(help="folder of the table of predictions to write", metavar="PREDICTIONS")],
    since: Since = None,
    until: Until = None,
    table: Tables = None,
    without: Without = None,
) -> None:
    """Write probabilities and flags, a partition for each local day of the examples."""
    from infobehavior.fusion.fuse import fuse_predict as run

    _end(run(examples, model, out, since=since, until=until, tables=_tables(table), without=without or ()))


@fuse.command()
def evaluate(
    examples: Examples,
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for metrics.json and report.html", metavar="REPORT")],
    since: Since = None,
    until: Until = None,
    table: Tables = None,
    without: Without = None,
) -> None:
    """Measure a fused classifier and its operating point on examples that it didn't learn from."""
    from infobehavior.fusion.evaluation import fuse_evaluate as run

    _print(run(examples, model, out, since=since, until=until, tables=_tables(table), without=without or ()).lines())
