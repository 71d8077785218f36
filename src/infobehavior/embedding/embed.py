"""`embed`: from minutes and a model to the table of embeddings (section 4.3)."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path

import duckdb
import numpy as np

from infobehavior.artefacts import refuse_another_run, remove_leftovers
from infobehavior.data.clock import MINUTES_PER_DAY
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE, Moments, day_before, end_of_day, read_moments
from infobehavior.data.schema import Schema
from infobehavior.data.store import entities_of
from infobehavior.embedding.earlier import EarlierDay
from infobehavior.embedding.encode import EmbeddedWindows, embed_moments
from infobehavior.embedding.kept_spans import keep_spans_beside
from infobehavior.embedding.made_by import made_by
from infobehavior.embedding.spans_file import SPANS_FILE
from infobehavior.embedding.spark_embed import spark_embedding
from infobehavior.embedding.table import NO_EVENTS_FOLDER, check_table, partition_file, write_partitions
from infobehavior.errors import InputError, NoEventsError
from infobehavior.model.device import find_device
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.spark import check_engine


@dataclass(frozen=True)
class Summary:
    """What `embed` did.

    Attributes:
        out: the table.
        model_id: the model.
        num_embedded: windows with events; each is a row.
        num_without_events: windows without; listed in `_no_events/ds=….csv`.
        num_removed: windows that the table had on these days before and doesn't have now.
        days: partitions written, ascending.
        fallbacks: shares of minutes whose behavior or location the model doesn't know as it is, see `Fallbacks`.
        kept_spans: of the long spans, how many an earlier run had kept, and all; None where none are kept.
        not_kept: why those of this run couldn't be kept for a later one; None where they were, or weren't to be.
        num_reused: embeddings that an earlier run for that day had made of the same minutes; None where they weren't
            looked for.
    """

    out: Path
    model_id: str
    num_embedded: int
    num_without_events: int
    num_removed: int
    days: tuple[Date, ...]
    fallbacks: dict[str, float]
    kept_spans: tuple[int, int] | None = None
    not_kept: str | None = None
    num_reused: int | None = None

    def lines(self) -> list[str]:
        """For the terminal."""
        days = str(self.days[0]) if len(self.days) == 1 else f"{self.days[0]} to {self.days[-1]}"
        lines = [
            f"{self.num_embedded} embeddings of model {self.model_id} in {self.out}, ds = {days}",
            f"{self.num_without_events} windows had no events"
            + (f"; they are listed in {self.out / NO_EVENTS_FOLDER}" if self.num_without_events else ""),
            "minutes whose behavior fell back to its parts: {behavior_from_parts:.2%}, was unknown: "
            "{behavior_unknown:.2%}; location: {location_from_parts:.2%}, {location_unknown:.2%}".format(
                **self.fallbacks
            ),
            "minutes with a behavior that the schema doesn't list: {behavior_not_in_schema:.2%}".format(
                **self.fallbacks
            ),
        ]
        if self.kept_spans:
            lines.append("representations of {:,} of {:,} long spans were kept from before".format(*self.kept_spans))
        if self.not_kept:
            lines.append(f"representations of long spans could not be kept for a later day: {self.not_kept}")
        if self.num_reused is not None:
            lines.append(f"{self.num_reused} of them are from before: the minutes of those accounts are the same")
        if self.num_removed:
            lines.append(
                f"{self.num_removed} embeddings that the table had of these days are gone: not among these windows"
            )
        return lines


def embed(
    minutes: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    date: str | Date | None = None,
    as_of: str | Path | None = None,
    device: str = "cpu",
    keep_spans: bool = False,
    reuse: bool = False,
    minutes_per_shard: int | None = None,
    engine: str = "duckdb",
    master: str | None = None,
) -> Summary:
    """Write the global representation of entities for the windows that end with a day, or at each row of a table.

    Args:
        minutes: folder of minutes.
        model: folder of a model.
        out: folder of the table; partitions of other days stay as they are.
        date: last local day of the windows, for all entities that have minutes in them or in as many days before; so a
            night's cost doesn't grow with the history that is on disk.
        as_of: table of (entity_id, as_of), see `read_moments`; the partitions of its days are replaced.
        device: where to encode: "cpu", "cuda" or "cuda:N".
        keep_spans: with a date, keep the representations of long spans beside the table, and take those that an
            earlier run kept; the embeddings are the same bytes. Needs a model whose `span_origin` is "epoch". Where
            they can't be kept, the table is written all the same.
        reuse: with a date, take the embeddings that an earlier run for the same day made of the same minutes, bundle by
            bundle (see `bundles`), so that after late events only those that they touch are encoded; the embeddings are
            the same bytes.
        minutes_per_shard: about how many minutes with events are in memory at once, 10 million by default; those of a
            bundle (see `bundles`) are never parted. It changes no byte. With Spark, in each task, and 2 million by
            default.
        engine: "duckdb", in this process, or "spark"; on machines of one kind they write the same bytes.
        master: of Spark, see `spark_context`.

    Raises:
        InputError: these parts don't belong together, or no window has any events.
    """
    if (date is None) == (as_of is None):
        raise InputError("give either a date or a table of moments (as_of), not both and not neither")
    if minutes_per_shard is not None and minutes_per_shard < 1:
        raise InputError(f"minutes_per_shard must be 1 or more, got {minutes_per_shard}")
    if keep_spans and date is None:
        raise InputError("keep_spans is for one day after another: give a date, not a table of moments (as_of)")
    if reuse and date is None:
        raise InputError("reuse is for a day that is embedded again: give a date, not a table of moments (as_of)")
    refuse_kept_spans(engine, master, keep_spans)
    table, encoder, out = open_minutes(minutes), InfoBehavior.from_pretrained(model), Path(out)
    encoder.check_minutes(table)
    check_table(out, encoder, table)
    moments = (
        _moments_of_day(table, date, encoder.config.window_minutes)
        if date is not None
        else read_moments(as_of or "", table)
    )
    # A day's embedding is brought to its end by that of the same day, even if more events have come meanwhile.
    which = str(date) if date is not None else f"{as_of} ({moments.hash[:8]})"
    run = f"the embedding by model {encoder.model_id} for {which}"
    refuse_another_run(out, run)
    remove_leftovers(out / SPANS_FILE)
    encoder.eval().to(find_device(device))
    maker = made_by(encoder)
    made = f"{maker}, DuckDB {duckdb.__version__}" if moments.are_one else None
    earlier = EarlierDay(_partition_of(out, moments, table.schema), made) if reuse and made else None
    with ExitStack() as stack:
        kept = stack.enter_context(keep_spans_beside(out, encoder, device)) if keep_spans else None
        find, with_contents = (earlier.find if earlier else None), made is not None
        by_spark = None
        if engine == "spark":
            by_spark = stack.enter_context(spark_embedding(table, model, encoder, out, device, master))
            embedded = by_spark.embed(encoder, moments, minutes_per_shard, find, with_contents)
        else:
            embedded = embed_moments(table, encoder, moments, device, kept, minutes_per_shard, find, with_contents)
        shards = _from_the_first_event(embedded)
        if shards is None:
            window = f"{encoder.config.window_days} days"
            raise NoEventsError(f"none of {len(moments)} windows of {window} {_why(table, moments)}")
        if by_spark and not by_spark.is_made_by(maker):
            made = None
        written = write_partitions(out, run, encoder, table, moments, shards, Path(model), made)
        if kept and kept.num_long and earlier and earlier.num_found:
            kept.keep_earlier()
    return Summary(
        out,
        encoder.model_id,
        written.num_embedded,
        written.num_without_events,
        written.num_removed,
        written.days,
        written.fallbacks.shares(),
        (kept.num_found, kept.num_long) if kept else None,
        str(kept.error.strerror or kept.error) if kept and kept.error else None,
        earlier.num_found if earlier else None,
    )


def refuse_kept_spans(engine: str, master: str | None, keep_spans: bool) -> None:
    """Refuse to keep representations of spans on executors.

    Raises:
        InputError: see above, and `check_engine`.
    """
    if check_engine(engine, master) and keep_spans:
        raise InputError("keep_spans is for the engine duckdb: the engine spark keeps no representations of spans")


def _partition_of(out: Path, moments: Moments, schema: Schema) -> Path:
    """The partition of the day that ends at all moments."""
    return partition_file(out, day_before(int(moments.as_of[0]), schema))


def _from_the_first_event(shards: Iterator[EmbeddedWindows]) -> Iterator[EmbeddedWindows] | None:
    """All shards, once one of them has events, so that nothing is written if none has."""
    before = []
    for shard in shards:
        before.append(shard)
        if shard.num_minutes.any():
            return _after(before, shards)
    return None


def _after(before: list[EmbeddedWindows], shards: Iterator[EmbeddedWindows]) -> Iterator[EmbeddedWindows]:
    """Some shards and then others, none of which is kept."""
    while before:
        yield before.pop(0)
    yield from shards


def _why(table: MinuteTable, moments: Moments) -> str:
    """Why no window has events: ids of another kind, or moments of another time."""
    known, _ = entities_of(table)
    if not np.isin(moments.entity_id, known).any():
        return f"has any events: as_of has ids such as {moments.entity_id[0]}, {table.path} such as {known[0]}"
    return f"has any events; {table.path} has events from {table.days[0]} to {table.days[-1]}"


def _moments_of_day(table: MinuteTable, date: str | Date, window_minutes: int) -> Moments:
    """The end of a day, for each entity that has minutes in the window before it or in the one before that."""
    end = end_of_day(date, table.schema)
    entities, _ = entities_of(table, end, first_minute=end - 2 * window_minutes)
    if len(entities) == 0:
        raise NoEventsError(
            f"no entity has events in the {2 * window_minutes // MINUTES_PER_DAY} days up to {date}; {table.path} has "
            f"events from {table.days[0]} to {table.days[-1]}"
        )
    return Moments(entities, np.full(len(entities), end * MICROSECONDS_PER_MINUTE))
