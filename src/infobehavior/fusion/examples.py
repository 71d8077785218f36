"""Reads a table of examples: who, when, the answer if there is one, and the columns of each group, joined in time"""

import glob
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.data.clock import MINUTES_PER_DAY, SECONDS_PER_MINUTE, day_bounds, day_of_number, local_minutes
from infobehavior.data.events import (
    NAIVE_TIME_TYPES,
    ZONED_TIME_TYPES,
    EventSource,
    connect,
    first_malformed,
    only_row,
    open_events,
    quoted,
    quoted_text,
    readable,
)
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE
from infobehavior.data.tables import column_moments
from infobehavior.downstream.labels import binary_labels
from infobehavior.errors import InputError
from infobehavior.fusion.config import ExampleColumns, FusionConfig, groups_without_columns
from infobehavior.fusion.joining import Ages, Keys, joined
from infobehavior.fusion.zones import require_zone

Mask = NDArray[np.bool_]
READ, USED, OUTSIDE = "examples read", "examples used", "outside of the days asked for"
NO_MOMENT, OTHER_TASK = "whose moment is null", "of another task (where)"
OF_ALL = (READ, NO_MOMENT, OTHER_TASK)
"""What is counted of all examples, whatever days are asked for."""


@dataclass(frozen=True)
class Examples:
    """Examples, ordered by moment, entity, id and content, whatever the order of rows and files.

    Attributes:
        keys: entity and moment of each.
        ids: the columns that name them.
        tables: the columns of each group.
        positive: True for the positive class; None if they weren't asked for.
        classes: what the two classes are called.
        counts: what was read, left out by reason, and joined.
        ages: of the rows that are joined, by group, in microseconds.
    """

    keys: Keys
    ids: pa.Table
    tables: dict[str, pa.Table]
    positive: Mask | None
    classes: tuple[str, str]
    counts: dict[str, int]
    ages: dict[str, Ages]

    def __len__(self) -> int:
        return len(self.keys.moment)


@dataclass(frozen=True)
class Period:
    """Local days of the moments of examples; None is no bound.

    Attributes:
        since: first.
        until: last.
    """

    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        """Refuse a period that ends before it begins."""
        if self.since is not None and self.until is not None and as_day(self.since) > as_day(self.until):
            raise InputError(f"since {self.since} is after until {self.until}")


def read_examples(
    path: str | Path,
    config: FusionConfig,
    *,
    labelled: bool,
    period: Period | None = None,
    known_classes: tuple[str, str] | None = None,
) -> Examples:
    """Read examples and join what their groups have in tables.

    Args:
        path: Parquet or CSV: a file, a glob, a folder, a partitioned folder.
        config: names the columns.
        labelled: whether answers are needed; examples without one are then left out, and counted.
        period: of the examples; others are left out, and counted.
        known_classes: what a model calls the negative and the positive class; by default the configuration says which.

    Raises:
        InputError: something can't be read, a column isn't there, nothing says which class is positive, or nothing is
            left.
    """
    with connect() as connection:
        raw, counts = _read(connection, path, config, labelled=labelled, period=period or Period())
        moment = column_moments(raw["moment"], config.examples.zone, f"{path}, {config.examples.moment}")
        keep = np.asarray(moment.is_valid()) & _is_within(moment, period or Period(), config.examples.zone)
        counts |= _if_any(NO_MOMENT, moment.null_count)
        outside = counts.pop(OUTSIDE) + int((~keep).sum()) - moment.null_count
        counts |= _if_any(OUTSIDE, outside)
        _refuse_none(path, keep, counts)
        positive, classes = None, ("", "")
        if labelled:
            where = f"{path}, column {config.examples.label!r}"
            answers, classes = _answers(raw["label"], where, config.examples.positive, known_classes)
            counts |= _if_any("without a label", int((keep & np.asarray(pc.is_null(answers))).sum()))
            keep &= np.asarray(pc.is_valid(answers))
            positive = np.asarray(answers.fill_null(False))[keep]
            _refuse_none(path, keep, counts)
            if len(np.unique(positive)) == 1:
                only = classes[int(positive[0])]
                raise InputError(f"{path} has one class: all {len(positive)} examples that can be used are {only!r}")
        raw = raw.filter(pa.array(keep))
        _refuse_repeated(path, raw, config.examples)
        keys = Keys(raw["entity"].combine_chunks(), np.asarray(moment.filter(pa.array(keep)).to_numpy()))
        counts |= _if_any("whose entity is null", keys.entity.null_count) | {USED: len(raw)}
        tables, ages = _tables(connection, raw, keys, config, counts)
    ids = raw.select([f"id_{i}" for i in range(len(config.examples.id))]).rename_columns(list(config.examples.id))
    return Examples(keys, ids, tables, positive, classes, counts, ages)


def _answers(
    column: pa.ChunkedArray, where: str, positive: str | None, known: tuple[str, str] | None
) -> tuple[pa.Array, tuple[str, str]]:
    """True where the label is the positive class, null where there is none; and both classes, the positive one last."""
    answers, classes = binary_labels(column, where)
    if (_bit(classes[0]), _bit(classes[1])) == ("0", "1"):
        classes, positive = ("0", "1"), positive and (_bit(positive) or positive)
    if known is not None:
        if set(classes) != set(known):
            there, expected = (" and ".join(sorted(names)) for names in (classes, known))
            raise InputError(f"{where} has the classes {there}, but the model was trained for {expected}")
        positive = known[1]
    if positive is None and classes != ("0", "1"):
        raise InputError(
            f"{where} has the classes {_counted(answers, classes)}: set examples.positive to the one to find"
        )
    if positive is not None and positive not in classes:
        raise InputError(
            f"{where} has the classes {_counted(answers, classes)}, but examples.positive is {positive!r}; set it to "
            "one of them"
        )
    return (pc.invert(answers), (classes[1], classes[0])) if positive == classes[0] else (answers, classes)


def _bit(name: str) -> str | None:
    """0 and 1 as such, in whatever type a file has them; so are false and true. None for other names."""
    if name.casefold() in ("false", "true"):
        return "01"[name.casefold() == "true"]
    try:
        return {0.0: "0", 1.0: "1"}.get(float(name))
    except ValueError:
        return None


def _counted(answers: pa.Array, classes: tuple[str, str]) -> str:
    num_last = pc.sum(answers).as_py()
    return f"{classes[0]!r} ({len(answers) - answers.null_count - num_last} rows) and {classes[1]!r} ({num_last})"


def _refuse_none(path: str | Path, keep: Mask, counts: Mapping[str, int]) -> None:
    if not keep.any():
        left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise InputError(f"{path} has no example that can be used: {left_out}")


def _refuse_repeated(path: str | Path, raw: pa.Table, columns: ExampleColumns) -> None:
    """Refuse examples that have one name."""
    names = [f"id_{place}" for place in range(len(columns.id))]
    if not names:
        return
    counted = raw.group_by(names, use_threads=False).aggregate([([], "count_all")])
    repeated = counted.filter(pc.greater(counted["count_all"], 1)).sort_by([(name, "ascending") for name in names])
    if len(repeated):
        example = ", ".join(f"{name} {repeated[ours][0]}" for name, ours in zip(columns.id, names, strict=True))
        raise InputError(
            f"{path} has {pc.sum(repeated['count_all'])} of {len(raw)} examples whose id ({', '.join(columns.id)}) "
            f"another one has too, such as {example}; keep one of each, or name more columns in examples.id"
        )


def with_tables(config: FusionConfig, tables: Mapping[str, Path]) -> FusionConfig:
    """The configuration with other tables for some groups.

    Raises:
        InputError: there is no such group, or it isn't joined from a table.
    """
    groups = dict(config.groups)
    for name, table in tables.items():
        if name not in groups or groups[name].table is None:
            those = ", ".join(name for name, group in groups.items() if group.table) or "none is"
            raise InputError(f"no group {name} is joined from a table; those that are: {those}")
        groups[name] = groups[name].model_copy(update={"table": table})
    return config.model_copy(update={"groups": groups})


def without_groups(config: FusionConfig, names: Collection[str]) -> FusionConfig:
    """The configuration without some groups.

    Raises:
        InputError: there is no such group, or none is left.
    """
    if unknown := [name for name in names if name not in config.groups]:
        raise InputError(f"there is no group {unknown[0]} to leave out; there are {', '.join(config.groups)}")
    groups = {name: group for name, group in config.groups.items() if name not in names}
    if not groups:
        raise InputError("all groups are left out; leave one")
    return config.model_copy(update={"groups": groups})


def without_missing_groups(path: str | Path, config: FusionConfig) -> FusionConfig:
    """The configuration without the groups none of whose columns is in the examples, unless that are all groups.

    Raises:
        InputError: the examples can't be read.
    """
    with connect() as connection:
        missing = groups_without_columns(config.groups, _open(connection, path).columns)
    return without_groups(config, missing) if len(missing) < len(config.groups) else config


def _read(
    connection: duckdb.DuckDBPyConnection, path: str | Path, config: FusionConfig, *, labelled: bool, period: Period
) -> tuple[pa.Table, dict[str, int]]:
    """The columns that are needed, under names of ours, in their order; and how many rows there were."""
    source = _open(connection, path)
    columns = config.examples
    named = {"entity": columns.entity, "moment": columns.moment, **({"label": columns.label} if labelled else {})}
    named |= {f"id_{i}": name for i, name in enumerate(columns.id)}
    for group, place in _placed(config):
        named[place] = group
    _require(source, [*named.values(), *columns.where])
    require_zone(connection, source, columns.moment, columns.time_zone, _where(columns))
    selected = ", ".join(
        f"{quoted(name)}{'::VARCHAR' if ours == 'entity' else ''} AS {quoted(ours)}" for ours, name in named.items()
    )
    content = ", ".join(quoted(ours) for ours in named)
    ids = "".join(f", id_{i}" for i in range(len(columns.id)))
    of_task = f"SELECT {selected} FROM {source.sql} WHERE {_where(columns)}"
    within = _within(period, columns.zone, source.columns[columns.moment])
    with readable(str(path)):
        num_of_task = only_row(connection, f"SELECT count(*) FROM ({of_task})")[0]
        raw = connection.sql(
            f"SELECT * FROM ({of_task}) WHERE {within} ORDER BY moment, entity{ids}, hash({content})"
        ).to_arrow_table()
    counts = {READ: source.num_rows, OUTSIDE: num_of_task - len(raw)}
    return raw, counts | _if_any(OTHER_TASK, source.num_rows - num_of_task)


def _open(connection: duckdb.DuckDBPyConnection, path: str | Path) -> EventSource:
    if not (Path(path).exists() or glob.glob(str(path), recursive=True)):  # noqa: PTH207 (also absolute patterns)
        raise InputError(f"there are no examples at {path}")
    source = open_events(connection, path)
    if malformed := first_malformed(connection) if source.num_malformed else None:
        raise InputError(f"{malformed}; mend this row ({source.num_malformed} can't be read)")
    return source


def days_of_examples(path: str | Path, config: FusionConfig, period: Period | None = None) -> list[date]:
    """The local days of the moments of examples, ascending.

    Args:
        path: see `read_examples`.
        config: likewise.
        period: of the days; other ones are left out.

    Raises:
        InputError: see `read_examples`; also if examples of several days have one id.
    """
    columns = config.examples
    with connect() as connection:
        source = _open(connection, path)
        _require(source, [columns.moment, *columns.id, *columns.where])
        require_zone(connection, source, columns.moment, columns.time_zone, _where(columns))
        with readable(str(path)):
            ids = "".join(f", {quoted(name)} AS id_{place}" for place, name in enumerate(columns.id))
            found = connection.sql(
                f"SELECT {quoted(columns.moment)} AS moment{ids} FROM {source.sql} WHERE {_where(columns)}"
            ).to_arrow_table()
    moments = column_moments(found["moment"], columns.zone, f"{path}, {columns.moment}")
    if moments.null_count == len(moments):
        counts = _if_any(OTHER_TASK, source.num_rows - len(found)) | _if_any(NO_MOMENT, len(found))
        left_out = ", ".join(f"{count} {reason}" for reason, count in ({READ: source.num_rows} | counts).items())
        raise InputError(f"{path} has no example with a moment in column {columns.moment!r}: {left_out}")
    keep = np.asarray(moments.is_valid()) & _is_within(moments, period or Period(), columns.zone)
    _refuse_repeated(path, found.filter(pa.array(keep)), columns)
    minutes = np.unique(np.asarray(moments.filter(pa.array(keep)).to_numpy()) // MICROSECONDS_PER_MINUTE)
    return [day_of_number(int(day)) for day in np.unique(local_minutes(minutes, columns.zone) // MINUTES_PER_DAY)]


def _placed(config: FusionConfig) -> list[tuple[str, str]]:
    """Each column of the groups that come with the examples, and what it is called meanwhile."""
    return [
        (column, f"{number}_{place}")
        for number, group in enumerate(config.groups.values())
        if group.table is None
        for place, column in enumerate(group.columns)
    ]


def _where(columns: ExampleColumns) -> str:
    wanted = [f"{quoted(name)}::VARCHAR = {quoted_text(value)}" for name, value in columns.where.items()]
    return " AND ".join(wanted) or "true"


def _require(source: EventSource, names: list[str]) -> None:
    if missing := [name for name in names if name not in source.columns]:
        raise InputError(f"{source.description} has no column {missing[0]!r}; it has {', '.join(source.columns)}")
    for name in names:
        if name in source.type_conflicts:
            raise InputError(source.type_conflicts[name])


def _within(period: Period, time_zone: str, kind: str) -> str:
    """SQL that holds for moments of a period, and for those without a moment, to be counted.

    Of moments without a zone it holds a day longer on both sides; of text always.
    """
    if kind not in ZONED_TIME_TYPES | NAIVE_TIME_TYPES:
        return "true"
    first, end = _ends(period, time_zone)
    more = 0 if kind in ZONED_TIME_TYPES else MINUTES_PER_DAY
    moment = "moment" if kind in ZONED_TIME_TYPES else "moment::TIMESTAMP AT TIME ZONE 'UTC'"
    since = [f"{moment} >= to_timestamp({(first - more) * SECONDS_PER_MINUTE})"] if first is not None else []
    until = [f"{moment} < to_timestamp({(end + more) * SECONDS_PER_MINUTE})"] if end is not None else []
    return f"moment IS NULL OR ({' AND '.join([*since, *until, 'true'])})"


def _is_within(moment: pa.Array, period: Period, time_zone: str) -> Mask:
    minute = moment.fill_null(0).to_numpy() // MICROSECONDS_PER_MINUTE
    first, end = _ends(period, time_zone)
    keep = np.ones(len(minute), np.bool_)
    return keep & (minute >= first if first is not None else True) & (minute < end if end is not None else True)


def _ends(period: Period, time_zone: str) -> tuple[int | None, int | None]:
    """UTC epoch minutes at which a period begins and ends."""
    first = None if period.since is None else _bounds(period.since, time_zone)[0]
    return first, None if period.until is None else _bounds(period.until, time_zone)[1]


def _bounds(day: str, time_zone: str) -> tuple[int, int]:
    try:
        return day_bounds(as_day(day), time_zone)
    except OverflowError:
        raise InputError(f"{day} is too far away; expected a day of the examples") from None


def as_day(text: str) -> date:
    """A day that was asked for.

    Raises:
        InputError: it isn't written as one.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a date; expected YYYY-MM-DD") from None


def _tables(
    connection: duckdb.DuckDBPyConnection, raw: pa.Table, keys: Keys, config: FusionConfig, counts: dict[str, int]
) -> tuple[dict[str, pa.Table], dict[str, Ages]]:
    tables, ages = {}, {}
    for number, (name, group) in enumerate(config.groups.items()):
        if group.table is None:
            places = [f"{number}_{place}" for place in range(len(group.columns))]
            tables[name] = raw.select(places).rename_columns(list(group.columns))
        else:
            tables[name], ages[name] = joined(connection, keys, group, name, config.examples)
            counts |= {f"of them with a row of {name} in time": len(ages[name])}
    return tables, ages


def _if_any(reason: str, count: int) -> dict[str, int]:
    return {reason: count} if count else {}
