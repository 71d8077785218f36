"""The commands. What takes seconds to load (torch, scikit-learn) is loaded by the command that needs it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from infobehavior import __version__
from infobehavior.cli.config_flags import replaced_by_flags, resolve_config, with_config_flags
from infobehavior.cli.fuse_commands import fuse
from infobehavior.errors import InputError
from infobehavior.market.config import MarketConfig
from infobehavior.pretraining.config import PRESETS, PretrainConfig
from infobehavior.pretraining.launch import num_processes, process_rank

EXIT_DRIFTED = 3
FUSE = "fuse"


class _InOrder(TyperGroup):
    """Lists the commands in the order of the path; typer itself puts groups of commands first."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [name for name in super().list_commands(ctx) if name != FUSE]
        names.insert(names.index("evaluate") + 1, FUSE)
        return names


app = typer.Typer(cls=_InOrder, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(fuse, name=FUSE)

Events = Annotated[
    str,
    typer.Argument(help="events: a Parquet or CSV file, a glob, a folder or a partitioned folder", metavar="EVENTS"),
]
Device = Annotated[str, typer.Option(help="where to encode: cpu, cuda or cuda:N")]
Engine = Annotated[Literal["duckdb", "spark"], typer.Option(help="what does the work; both write the same bytes")]
Master = Annotated[
    str | None,
    typer.Option(
        help="of Spark, such as spark://HOST:7077; by default what spark-submit or Spark's configuration say, else "
        "this machine",
        metavar="URL",
    ),
]
Minutes = Annotated[Path, typer.Argument(help="a folder that `aggregate` wrote", metavar="MINUTES")]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"infobehavior {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="show the version and exit", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Learn representations of accounts from their behavior logs."""
    if num_processes() > 1 and context.invoked_subcommand != "pretrain":
        raise InputError(f"{context.invoked_subcommand} is the work of one process: run it without torchrun")


@app.command()
def inspect(
    events: Events,
    out: Annotated[Path | None, typer.Option(help="write the proposed schema here", metavar="SCHEMA.toml")] = None,
    entity: Annotated[str | None, typer.Option(help="column that says who")] = None,
    timestamp: Annotated[str | None, typer.Option(help="column that says when")] = None,
    behavior: Annotated[str | None, typer.Option(help="column that says what")] = None,
    location: Annotated[str | None, typer.Option(help="column that says where")] = None,
    outcome: Annotated[str | None, typer.Option(help="column that says whether it failed")] = None,
    extra: Annotated[list[str] | None, typer.Option(help="a further column to keep; may be repeated")] = None,
    time_zone: Annotated[str | None, typer.Option(help="local time of the accounts, such as Asia/Shanghai")] = None,
) -> None:
    """Show what a table of events holds and propose a schema for it."""
    from infobehavior.data.inspection import inspect as run

    columns = {
        "entity": entity,
        "timestamp": timestamp,
        "behavior": behavior,
        "location": location,
        "outcome": outcome,
        "extra": extra or None,
        "time_zone": time_zone,
    }
    _print(run(events, out, columns={name: column for name, column in columns.items() if column is not None}).lines())


@app.command()
def aggregate(
    events: Events,
    schema: Annotated[Path, typer.Option(help="schema of the events (`inspect` proposes one)", metavar="SCHEMA.toml")],
    out: Annotated[Path, typer.Option(help="folder of daily partitions to write", metavar="MINUTES")],
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="keep one of rows that are equal in the schema's columns")
    ] = False,
    memory_limit: Annotated[
        str | None, typer.Option(help="memory that DuckDB may use, such as 2GB; by Spark, in each task")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads that DuckDB may use; by Spark, in each task")
    ] = None,
    engine: Engine = "duckdb",
    master: Master = None,
) -> None:
    """Turn events into minute tokens, one file a day (3.1.1)."""
    from infobehavior.data.aggregation import aggregate as run

    summary = run(
        events,
        schema,
        out,
        drop_duplicates=drop_duplicates,
        memory_limit=memory_limit,
        threads=threads,
        engine=engine,
        master=master,
    )
    _print(summary.lines())


@app.command()
@with_config_flags(PretrainConfig)
def pretrain(
    minutes: Minutes,
    out: Annotated[Path, typer.Option(help="folder of the model to write", metavar="MODEL")],
    preset: Annotated[str, typer.Option(help=f"values to start from: {', '.join(PRESETS)}")] = "paper",
    config: Annotated[
        Path | None,
        typer.Option(help="values that replace the preset's; flags replace these", metavar="FILE.toml"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint in MODEL")] = False,
    until: Annotated[str | None, typer.Option(help="use nothing after this local day", metavar="YYYY-MM-DD")] = None,
    as_of: Annotated[
        Path | None,
        typer.Option(help="table (entity_id, as_of): use nothing of an entity from its moment on", metavar="TABLE"),
    ] = None,
    minutes_in_memory: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="keep the minutes on disk if a process has more, in TMPDIR if the environment names it, else beside "
            "MODEL; by default they are in memory",
        ),
    ] = None,
    **fields: Any,
) -> None:
    """Learn the encoder from minutes, without labels (3.1.2 to 3.4)."""
    resolved = resolve_config(preset, config, fields)
    from infobehavior.pretraining.pretrain import pretrain as run

    run(minutes, out, config=resolved, resume=resume, until=until, as_of=as_of, minutes_in_memory=minutes_in_memory)
    if process_rank() == 0:
        typer.echo(f"model: {out}")


@app.command()
def embed(
    minutes: Minutes,
    model: Annotated[Path, typer.Option(help="a folder that `pretrain` wrote", metavar="MODEL")],
    out: Annotated[Path, typer.Option(help="folder of the embeddings table to write", metavar="EMBEDDINGS")],
    date: Annotated[
        str | None, typer.Option(help="each entity's window ends with this local day", metavar="YYYY-MM-DD")
    ] = None,
    as_of: Annotated[
        Path | None, typer.Option(help="table (entity_id, as_of): a window for each row", metavar="TABLE")
    ] = None,
    device: Device = "cpu",
    keep_spans: Annotated[
        bool,
        typer.Option(
            "--keep-spans",
            help="keep what the next day needs again of long spans, and use what is kept; for models with "
            "--span-origin epoch",
        ),
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse", help="keep the embeddings that the table has of DATE, but of accounts whose minutes have changed"
        ),
    ] = False,
    minutes_per_shard: Annotated[
        int | None,
        typer.Option(min=1, help="about how many minutes to have in memory at once; default 10 million, by Spark 2"),
    ] = None,
    engine: Engine = "duckdb",
    master: Master = None,
) -> None:
    """Write each entity's global representation as a table."""
    from infobehavior.embedding.embed import embed as run

    summary = run(
        minutes,
        model,
        out,
        date=date,
        as_of=as_of,
        device=device,
        keep_spans=keep_spans,
        reuse=reuse,
        minutes_per_shard=minutes_per_shard,
        engine=engine,
        master=master,
    )
    _print(summary.lines())


@app.command()
def daily(
    events: Events,
    schema: Annotated[Path, typer.Option(help="schema of the events", metavar="SCHEMA.toml")],
    model: Annotated[Path, typer.Option(help="a folder that `pretrain` wrote", metavar="MODEL")],
    minutes: Annotated[Path, typer.Option(help="folder of minutes to bring up to date", metavar="MINUTES")],
    out: Annotated[Path, typer.Option(help="folder of the embeddings table", metavar="EMBEDDINGS")],
    date: Annotated[str, typer.Option(help="the last local day of the windows", metavar="YYYY-MM-DD")],
    since: Annotated[
        str | None,
        typer.Option(
            help="make embeddings of each day from this one to DATE; by default of those since the last one there",
            metavar="YYYY-MM-DD",
        ),
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option(min=1, help="keep embeddings of so many days; by default of all")
    ] = None,
    keep_spans: Annotated[bool, typer.Option("--keep-spans", help="see `embed`")] = False,
    allow_fewer: Annotated[
        list[str] | None,
        typer.Option(
            help="make this day of what the log has now, though it lacks events that it had; may be repeated",
            metavar="YYYY-MM-DD",
        ),
    ] = None,
    drop_duplicates: Annotated[bool, typer.Option("--drop-duplicates", help="see `aggregate`")] = False,
    device: Device = "cpu",
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for another nightly run to end")] = 0.0,
    memory_limit: Annotated[
        str | None,
        typer.Option(help="memory that DuckDB may use while it looks through the log and aggregates, such as 2GB"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads that DuckDB may use then")] = None,
    minutes_per_shard: Annotated[int | None, typer.Option(min=1, help="see `embed`")] = None,
    engine: Engine = "duckdb",
    master: Master = None,
    max_drift: Annotated[
        float | None,
        typer.Option(min=0, help="exit with 3, after all is written, if a population stability index is larger"),
    ] = None,
) -> None:
    """Aggregate what is new or late, and embed the windows that end with a day: for cron."""
    from infobehavior.nightly.daily import daily as run

    summary = run(
        events,
        schema,
        model,
        minutes,
        out,
        date=date,
        since=since,
        keep_days=keep_days,
        keep_spans=keep_spans,
        allow_fewer=allow_fewer or (),
        drop_duplicates=drop_duplicates,
        device=device,
        wait=wait,
        memory_limit=memory_limit,
        threads=threads,
        minutes_per_shard=minutes_per_shard,
        engine=engine,
        master=master,
    )
    _print(summary.lines())
    if max_drift is not None and summary.drift.largest > max_drift:
        typer.echo(
            f"the data have drifted: {summary.drift.largest:.3f} is more than --max-drift {max_drift:g}", err=True
        )
        raise typer.Exit(EXIT_DRIFTED)


@app.command()
def align(
    new: Annotated[Path, typer.Argument(help="embeddings of the new model", metavar="NEW")],
    out: Annotated[Path, typer.Option(help="folder of the table to write", metavar="ALIGNED")],
    to: Annotated[
        Path | None, typer.Option(help="embeddings of the older model; needed the first time", metavar="OLD")
    ] = None,
    date: Annotated[
        str | None, typer.Option(help="day of the fit; by default the last that both have", metavar="YYYY-MM-DD")
    ] = None,
) -> None:
    """Turn a new model's embeddings into the space of an older one."""
    from infobehavior.embedding.alignment import align as run

    _print(run(new, out, to=to, date=date).lines())


@app.command()
def publish(
    embeddings: Annotated[Path, typer.Argument(help="a folder of embeddings", metavar="EMBEDDINGS")],
    to: Annotated[
        str, typer.Option(help="folder or URL of a Delta Lake table, such as s3://bucket/table", metavar="DELTA")
    ],
) -> None:
    """Write the days of a table to Delta Lake: object stores, several writers."""
    from infobehavior.embedding.delta import publish as run

    _print(run(embeddings, to).lines())


@app.command()
def evaluate(
    embeddings: Annotated[Path, typer.Argument(help="a folder that `embed` wrote", metavar="EMBEDDINGS")],
    labels: Annotated[Path, typer.Option(help="table of labels, Parquet or CSV", metavar="LABELS")],
    label: Annotated[
        str,
        typer.Option(
            help="column of LABELS: 0 and 1, or two texts, the alphabetically last positive",
            metavar="COLUMN",
        ),
    ],
    minutes: Annotated[Path, typer.Option(help="the minutes that were embedded", metavar="MINUTES")],
    out: Annotated[Path, typer.Option(help="folder for metrics.json and report.html", metavar="REPORT")],
    group: Annotated[
        str | None, typer.Option(help="column of LABELS: rows of a group stay in one fold", metavar="COLUMN")
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(help="which day of EMBEDDINGS to take, if it has several", metavar="YYYY-MM-DD"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="folds of the cross-validation")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of folds and classifiers")] = 0,
    oversample: Annotated[int, typer.Option(min=1, help="copies of each positive in training (4.2.3)")] = 4,
) -> None:
    """Compare the representation with hand-made features (4.2)."""
    from infobehavior.downstream.evaluation import evaluate as run
    from infobehavior.downstream.evaluation import metric_lines, summary_lines

    rows = run(
        embeddings, labels, label, minutes, out, group=group, date=date, folds=folds, seed=seed, oversample=oversample
    )
    _print([*metric_lines(rows), *summary_lines(out), f"report: {out / 'report.html'}"])


@app.command()
@with_config_flags(MarketConfig, shows_defaults=True)
def simulate(
    out: Annotated[Path, typer.Option(help="folder of the market to write", metavar="MARKET")],
    workers: Annotated[int, typer.Option(min=1, help="processes; they change no byte")] = 1,
    **fields: Any,
) -> None:
    """Simulate a market of sellers, some of them abnormal."""
    config = MarketConfig.model_validate(replaced_by_flags(MarketConfig, {}, fields))
    from infobehavior.market.simulate import simulate as run

    _print(run(out, config, workers=workers).lines())


def _offline_evaluation(name: str, what: str) -> None:
    """Add the command of a table of the paper; all read the same and differ in what they train."""

    @app.command(name, help=what)
    @with_config_flags(PretrainConfig)
    def command(
        minutes: Minutes,
        labels: Annotated[Path, typer.Option(help="table (entity_id, COLUMN), Parquet or CSV", metavar="LABELS")],
        label: Annotated[str, typer.Option(help="column of LABELS, with two classes", metavar="COLUMN")],
        out: Annotated[
            Path, typer.Option(help="folder for models, embeddings, scores and the table as JSON", metavar="OUT")
        ],
        seeds: Annotated[int, typer.Option(min=1, help="from 0 on: each pre-trains, splits and classifies anew")] = 3,
        workers: Annotated[
            int, typer.Option(min=1, help="processes, an encoder and --num-threads each; they change no figure")
        ] = 1,
        max_negatives: Annotated[
            int | None, typer.Option(min=1, help="draw so many negatives at random (4.2.1); by default all")
        ] = None,
        kinds: Annotated[
            Path | None, typer.Option(help="table (entity_id, kind), for an AUC of each kind", metavar="TABLE")
        ] = None,
        preset: Annotated[str, typer.Option(help=f"values to start from: {', '.join(PRESETS)}")] = "paper",
        config: Annotated[
            Path | None, typer.Option(help="values that replace the preset's; flags replace these", metavar="FILE.toml")
        ] = None,
        until: Annotated[
            str | None, typer.Option(help="last local day of the third month", metavar="YYYY-MM-DD")
        ] = None,
        **fields: Any,
    ) -> None:
        resolved = resolve_config(preset, config, fields)
        if "seed" in fields and fields["seed"] is not None:
            raise InputError(f"{name} takes seeds from 0 on: give their number by --seeds, not one of them by --seed")
        from infobehavior.experiments.offline import read_offline_data
        from infobehavior.experiments.tables import TABLES, as_lines, count_rows, write_table

        data = read_offline_data(
            minutes,
            labels,
            label,
            out,
            window_days=resolved.encoder.window_days,
            until=until,
            max_negatives=max_negatives,
            kinds=kinds,
        )
        _print(data.lines())
        rows = TABLES[name](data, resolved, range(seeds), workers)
        counts = count_rows(data, resolved, range(seeds)) if len(data.unseen) else []
        write_table(out / f"{name}.json", data, resolved, range(seeds), rows, counts)
        _print([*as_lines(rows), *(as_lines(counts) if counts else [])])
        typer.echo(f"means over seeds ± standard deviations (the paper's): {out / f'{name}.json'}")


_offline_evaluation("table1", "Judge the representation by a third month, beside hand-made features (Table 1).")
_offline_evaluation("table2", "Judge the representation with each of its parts changed (Table 2).")


def _online_evaluation(name: str, what: str) -> None:
    """Add the command of a table of the online tasks."""

    @app.command(name, help=what)
    def command(
        products: Annotated[str, typer.Argument(help="the market's products, with labels", metavar="PRODUCTS")],
        minutes: Annotated[Path, typer.Option(help="minutes of their sellers", metavar="MINUTES")],
        model: Annotated[Path, typer.Option(help="pre-trained on what was before the last 30 days", metavar="MODEL")],
        out: Annotated[
            Path, typer.Option(help="folder for embeddings, features, scores and the table as JSON", metavar="OUT")
        ],
        seeds: Annotated[int, typer.Option(min=1, help="from 0 on: each validates, trains and draws anew")] = 5,
        workers: Annotated[int, typer.Option(min=1, help="processes; they change no figure")] = 1,
    ) -> None:
        from infobehavior.experiments.online import ONLINE_TABLES, read_online_data
        from infobehavior.experiments.online_tables import online_table, write_online_table
        from infobehavior.experiments.tables import as_lines

        tasks = ONLINE_TABLES[name]
        data = read_online_data(products, minutes, model, out, [task.category for task in tasks])
        _print(data.lines())
        rows, masked = online_table(data, tasks, range(seeds), workers)
        write_online_table(out / f"{name}.json", data, range(seeds), rows, masked)
        _print([*as_lines(rows), "", *as_lines(masked)])
        typer.echo(f"means over seeds ± standard deviations (the paper's): {out / f'{name}.json'}")


_online_evaluation("table3", "Find restricted products, with and without behavior (Table 3).")
_online_evaluation("table4", "Find counterfeits, with and without behavior (Table 4).")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for everything that the demo writes")] = Path("demo-output"),
) -> None:
    """Run the whole path on a year of flights."""
    from infobehavior.apps.demo import demo as run

    run(out)
