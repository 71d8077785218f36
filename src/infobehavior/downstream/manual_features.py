"""The baseline of 4.2.2: features that a fraud engineer would make by hand, from the minutes of the same windows."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb
import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infobehavior.artefacts import definition_hash
from infobehavior.data.clock import utc_offsets
from infobehavior.data.events import connect, quoted, quoted_text
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.data.moments import window_end
from infobehavior.data.schema import Schema
from infobehavior.data.store import reading_minutes
from infobehavior.errors import InputError

_TEMPLATE = "manual_features.sql.jinja"
NUM_TOP_PLACES = 100
NUM_TOP_TOKENS = 40


@dataclass(frozen=True)
class Feature:
    """A hand-made feature.

    Attributes:
        name: the column's name; ``share[Post]`` is the feature ``share`` of the behavior (or column) Post, ``share[]``
            that of the behaviors that the schema doesn't list.
        meaning: what it holds, in words.
    """

    name: str
    meaning: str


def manual_features(minutes: MinuteTable | Path | str, windows: pa.Table, window_minutes: int) -> pa.Table:
    """Make the hand-made features of windows, from the minutes alone, in one DuckDB query.

    A window holds the minutes ``end - window_minutes <= m < end`` with ``end = floor(as_of / 60 s)``: exactly what
    the representation sees, and nothing at or after `as_of`. Counts are logarithms and shares are relative to the
    window's own minutes, so that logistic regression can use them. The places and composite behaviors that have a
    feature of their own are the most common ones over all windows; no label is read.

    Args:
        minutes: the minutes, or their folder.
        windows: columns `entity_id` and `as_of` (timestamp, UTC); an entity may have several windows.
        window_minutes: length of a window.

    Returns:
        One column a feature (float64, never null), one row a window, in the order of `windows`. A field's metadata has
        its meaning and, for the most common places, the place. A window without minutes has the values of an account
        that was never seen: no counts, and lags as long as the window.

    Raises:
        InputError: a file of the minutes is missing or damaged, or holds a minute that another holds too.
    """
    table = minutes if isinstance(minutes, MinuteTable) else open_minutes(minutes)
    if windows.num_rows == 0:
        return pa.schema([_field(feature) for feature in describe_features(table.schema)]).empty_table()
    bounds = _bounds(windows, window_minutes)
    first, end = pc.min(bounds["start_minute"]).as_py(), pc.max(bounds["end_minute"]).as_py()
    of_days = table.files(first, end)
    text = _Text(table.schema, _source(of_days, table.schema))
    # One thread, since the order in which several add up floats is not the same from run to run.
    with reading_minutes(table.path, of_days), connect(threads=1) as connection:
        connection.register("windows", bounds)
        connection.register("offsets", _offsets(table.schema.time.time_zone, first, end))
        features = _described(_execute(connection, text.sql), text.columns)
    _refuse_repeated_minutes(features, windows, table)
    return features


def _refuse_repeated_minutes(features: pa.Table, windows: pa.Table, minutes: MinuteTable) -> None:
    """A minute that is there twice is no step after the one before, and the logarithm of its step is infinite."""
    is_finite = np.isfinite(features["step_log_mean"].to_numpy())
    if not is_finite.all():
        entity = windows["entity_id"][int(np.argmin(is_finite))]
        raise InputError(
            f"{minutes.path} has a minute of entity {entity} twice, so a day's file may be in the folder of another "
            "day; run `infobehavior aggregate` again"
        )


def window_counts(minutes: MinuteTable, windows: pa.Table, window_minutes: int) -> pa.Table:
    """Count the events and the minutes of windows, as the embeddings table has them.

    Args:
        minutes: the minutes.
        windows: at least one; see `manual_features`.
        window_minutes: length of a window.

    Returns:
        Columns `num_events` and `num_minutes`, one row a window, in the order of `windows`.

    Raises:
        InputError: a file of the minutes is missing or damaged.
    """
    bounds = _bounds(windows, window_minutes)
    of_days = minutes.files(pc.min(bounds["start_minute"]).as_py(), pc.max(bounds["end_minute"]).as_py())
    with reading_minutes(minutes.path, of_days), connect(threads=1) as connection:
        connection.register("windows", bounds)
        return connection.sql(
            "SELECT coalesce(sum(m.num_events), 0)::BIGINT AS num_events, count(m.minute) AS num_minutes "
            f"FROM windows AS w LEFT JOIN {_source(of_days, minutes.schema)} AS m "
            "ON m.entity_id = w.entity_id AND m.minute >= w.start_minute AND m.minute < w.end_minute "
            "GROUP BY w.row ORDER BY w.row"
        ).to_arrow_table()


def describe_features(schema: Schema) -> list[Feature]:
    """List the features that `manual_features` makes for a schema, in the order of its columns."""
    return [column.feature for column in _Text(schema, "minutes").columns]


def features_hash() -> str:
    """Names the text that makes the features, so that what was made by an older one is made again."""
    text = (files("infobehavior.downstream") / _TEMPLATE).read_text(encoding="utf-8")
    return definition_hash([text, NUM_TOP_PLACES, NUM_TOP_TOKENS])


@dataclass(frozen=True)
class _Column:
    """Where a feature is in the query's result: a column, or a place in the lists of a column."""

    feature: Feature
    column: str
    place: int | None = None


class _Text:
    """The SQL for a schema, and the features that it selects.

    Attributes:
        sql: the text.
        columns: the features, in the order in which the text names them.
    """

    def __init__(self, schema: Schema, minutes: str) -> None:
        self.columns: list[_Column] = []
        self._schema = schema
        self._per_behavior: list[str] = []
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("infobehavior.downstream", "."), undefined=jinja2.StrictUndefined
        )
        self.sql = environment.get_template(_TEMPLATE).render(
            minutes=minutes,
            num_words=schema.num_words,
            num_codes=len(schema.behaviors) + 1,
            columns=["location", *schema.columns.extra],
            num_top_places=NUM_TOP_PLACES,
            num_top_tokens=NUM_TOP_TOKENS,
            feature=self._feature,
            behavior_feature=self._behavior_feature,
            per_behavior=self._per_behavior,
            quoted=quoted,
        )

    def _feature(self, expression: str, name: str, meaning: str) -> str:
        self.columns.append(_Column(Feature(name, " ".join(meaning.split())), name))
        return f"{expression} AS {quoted(name)}"

    def _behavior_feature(self, expression: str, name: str, meaning: str, levelled: bool = False) -> str:
        """The same feature of each behavior; `levelled`: only of those that have levels."""
        self._per_behavior.append(name)
        for code, behavior in enumerate(["", *self._schema.behavior_names]):
            if not levelled or (code and self._schema.behaviors[behavior].has_levels):
                self.columns.append(_Column(Feature(f"{name}[{behavior}]", meaning), name, code))
        return f"list({expression} ORDER BY codes.code) AS {quoted(name)}"


def _bounds(windows: pa.Table, window_minutes: int) -> pa.Table:
    as_of = windows["as_of"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    end = window_end(as_of)
    return pa.table(
        {
            "row": np.arange(windows.num_rows),
            "entity_id": windows["entity_id"],
            "start_minute": end - window_minutes,
            "end_minute": end,
        }
    )


def _source(of_days: list[str], schema: Schema) -> str:
    """A table expression of the minutes' files; of none, an empty table of the same columns."""
    if of_days:
        names = ", ".join(quoted_text(file) for file in of_days)
        return f"read_parquet([{names}], hive_partitioning = false)"
    words = "".join(f", 0::BIGINT AS levels_{word}" for word in range(schema.num_words))
    extra = "".join(f", ''::VARCHAR AS {quoted(name)}" for name in schema.columns.extra)
    return (
        "(SELECT '' AS entity_id, 0 AS minute, 0 AS num_events, 0 AS num_failures, [0] AS counts, "
        f"'' AS location{words}{extra} WHERE false)"
    )


def _offsets(time_zone: str, first: int, end: int) -> pa.Table:
    from_minute, offset_minutes = utc_offsets(time_zone, first, end)
    return pa.table({"from_minute": from_minute, "offset_minutes": offset_minutes})


def _execute(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """By way of a table, since a relation would plan the text twice."""
    connection.execute(f"CREATE TEMP TABLE features AS {sql}")
    return connection.sql("FROM features ORDER BY row").to_arrow_table()


def _described(selected: pa.Table, columns: list[_Column]) -> pa.Table:
    """The features as floats, each with its meaning (and its place, if it is about one) in its field's metadata."""
    places = selected["places"][0].as_py()
    about = {f"place_share_{rank:02d}": place for rank, place in enumerate(places, start=1)}
    matrices = {
        name: pc.list_flatten(selected[name]).to_numpy().reshape(selected.num_rows, -1)
        for name in dict.fromkeys(column.column for column in columns if column.place is not None)
    }
    values = [
        selected[column.column].cast(pa.float64())
        if column.place is None
        else pa.array(matrices[column.column][:, column.place], pa.float64())
        for column in columns
    ]
    fields = [_field(column.feature, about.get(column.feature.name)) for column in columns]
    return pa.table(values, schema=pa.schema(fields))


def _field(feature: Feature, place: str | None = None) -> pa.Field:
    metadata = {"meaning": feature.meaning}
    if place is not None:
        metadata = {"meaning": f"share of minutes at {place}", "place": place}
    return pa.field(feature.name, pa.float64(), nullable=False, metadata=metadata)


def as_matrix(features: pa.Table) -> NDArray[np.float64]:
    """The features as a matrix, one row a window."""
    return np.column_stack([features[name].to_numpy() for name in features.column_names])
