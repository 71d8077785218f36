"""Whether the data still are what a model was trained on: population stability of tokens, lengths and embeddings."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date as Date
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from infobehavior.artefacts import read_json, write_json
from infobehavior.data.clock import SECONDS_PER_MINUTE, local_date
from infobehavior.data.minutes import MinuteTable, open_minutes
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE, Moments, end_of_day
from infobehavior.data.ranges import evenly
from infobehavior.data.store import entities_of
from infobehavior.embedding.encode import embed_moments
from infobehavior.embedding.table import partition_file, read_chosen
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.nightly.profile import NUM_LENGTHS, NUM_PARTS, Profile

REFERENCE_FILE = "_reference.json"
NUM_WINDOWS = 5_000
"""So many windows tell what embeddings look like."""

SMALLEST_SHARE = 1e-4
"""A class without any has this share, or the index would be infinite."""


@dataclass(frozen=True)
class Drift:
    """How tonight's windows differ from the reference, and what the reference is.

    Population stability indices are sums over classes of (share now - share then) * ln(share now / share then); by
    custom, up to 0.1 is stable and from 0.25 on a model should be trained again.

    Attributes:
        reference: day with which the reference's windows end.
        is_training: whether that is the end of the model's training.
        behaviors: index of behavior tokens.
        locations: index of location tokens.
        lengths: index of the windows' numbers of minutes.
        embedding: mean index of the embedding's dimensions.
        embedding_worst: the largest of them.
        unknown_behaviors: share of minutes whose behavior the model doesn't know, not even in parts; then and now.
        unknown_locations: likewise, of their locations.
        not_in_schema: share of minutes with a behavior that the schema doesn't list; then and now.
        by_chance: about what the largest of `lengths` and `embedding` would be if nothing had changed, since so few
            windows were looked at.
    """

    reference: Date
    is_training: bool
    behaviors: float
    locations: float
    lengths: float
    embedding: float
    embedding_worst: float
    unknown_behaviors: tuple[float, float]
    unknown_locations: tuple[float, float]
    not_in_schema: tuple[float, float]
    by_chance: float

    @property
    def largest(self) -> float:
        """The largest index of behaviors, locations, lengths and (their mean) embeddings, less what chance explains."""
        of_windows = max(self.lengths, self.embedding) - self.by_chance
        return max(self.behaviors, self.locations, of_windows, 0.0)

    def lines(self) -> list[str]:
        """For the terminal."""
        since = f"{'the end of training' if self.is_training else 'the first night'}, {self.reference}"
        return [
            f"population stability since {since}: behaviors {self.behaviors:.3f}, locations {self.locations:.3f}, "
            f"lengths {self.lengths:.3f}, embeddings {self.embedding:.3f} (worst of a dimension "
            f"{self.embedding_worst:.3f}; by chance up to {self.by_chance:.3f}); from 0.25 on, train anew",
            "minutes with an unknown behavior: {1:.2%} ({0:.2%} then); ".format(*self.unknown_behaviors)
            + "location: {1:.2%} ({0:.2%}); ".format(*self.unknown_locations)
            + "with a behavior that the schema doesn't list: {1:.2%} ({0:.2%})".format(*self.not_in_schema),
        ]


def measure_drift(day: Date, minutes: Path, model: Path, out: Path, device: str = "cpu") -> Drift:
    """Compare the windows that end with a day with those at the end of the model's training.

    The reference is kept beside the table. Where the minutes of the training aren't in the folder, it is the day
    itself, so later nights are compared with the first one.

    Args:
        day: a day of the table.
        minutes: folder of minutes.
        model: folder of the model.
        out: folder of the table.
        device: where to encode.
    """
    table, encoder = open_minutes(minutes), InfoBehavior.from_pretrained(model)
    trained_until = _end_of_training(encoder)
    reference = _read_reference(out, encoder)
    if reference is None:
        profile = _profile_at_training(table, encoder, trained_until, device) if trained_until else None
        reference = profile or _profile_of_partition(day, table, encoder, out, None)
        content = {"model_id": encoder.model_id, "profile": reference.model_dump(mode="json")}
        write_json(out / REFERENCE_FILE, content)
    tonight = _profile_of_partition(day, table, encoder, out, reference)
    indices = [stability_index(*shares) for shares in zip(reference.embedding, tonight.embedding, strict=True)]
    return Drift(
        reference=reference.day,
        is_training=reference.day == trained_until,
        behaviors=_index_of_tokens(reference.behaviors, tonight.behaviors),
        locations=_index_of_tokens(reference.locations, tonight.locations),
        lengths=stability_index(reference.lengths, tonight.lengths),
        embedding=float(np.mean(indices)),
        embedding_worst=max(indices),
        unknown_behaviors=(reference.behaviors["unknown"], tonight.behaviors["unknown"]),
        unknown_locations=(reference.locations["unknown"], tonight.locations["unknown"]),
        not_in_schema=(reference.not_in_schema, tonight.not_in_schema),
        by_chance=_by_chance(reference, tonight),
    )


def stability_index(then: Iterable[float], now: Iterable[float]) -> float:
    """The population stability index of two distributions over the same classes.

    Example:
        >>> round(stability_index([0.5, 0.5], [0.25, 0.75]), 4)
        0.2747
    """
    a, b = (np.maximum(np.fromiter(shares, dtype=float), SMALLEST_SHARE) for shares in (then, now))
    return math.fsum((b - a) * np.log(b / a))


def _by_chance(then: Profile, now: Profile) -> float:
    """The index that two samples of one distribution have on average: (classes - 1) * (1 / n + 1 / m)."""
    if then.day == now.day:
        return 0.0
    lengths = (NUM_LENGTHS - 1) * (1 / then.num_windows + 1 / now.num_windows)
    return max(lengths, (NUM_PARTS - 1) * (1 / then.num_embeddings + 1 / now.num_embeddings))


def _index_of_tokens(then: Mapping[str, float], now: Mapping[str, float]) -> float:
    return stability_index(then.values(), [now[token] for token in then])


def _end_of_training(model: InfoBehavior) -> Date | None:
    """The last local day that training saw; None if that isn't recorded."""
    until = model.pretraining.get("trained_until")
    if not isinstance(until, str):
        return None
    end = int(datetime.fromisoformat(until).timestamp()) // SECONDS_PER_MINUTE
    return local_date(end - 1, model.time_zone)


def _read_reference(out: Path, model: InfoBehavior) -> Profile | None:
    """The reference of a table; one that isn't there, is damaged, or is of another model is made anew."""
    try:
        content = read_json(out / REFERENCE_FILE, "a table")
        profile, model_id = Profile.model_validate(content["profile"]), content["model_id"]
    except (InputError, ValidationError, KeyError, TypeError):
        return None
    return profile if model_id == model.model_id and len(profile.embedding) == model.embedding_dim else None


def _profile_at_training(table: MinuteTable, model: InfoBehavior, day: Date, device: str) -> Profile | None:
    """The profile at the end of training; None unless all days of those windows could be in the folder."""
    first = day - timedelta(days=model.config.window_days - 1)
    if first < table.days[0] or day > table.days[-1]:
        return None
    end = end_of_day(day, table.schema)
    entities, num_minutes = entities_of(table, end, first_minute=end - model.config.window_minutes)
    if len(entities) == 0:
        return None
    chosen = entities[evenly(len(entities), NUM_WINDOWS)]
    moments = Moments(chosen, np.full(len(chosen), end * MICROSECONDS_PER_MINUTE))
    embedding = np.concatenate([shard.embedding for shard in embed_moments(table, model, moments, device)])
    return Profile.of(day, table, model, num_minutes, embedding)


def _profile_of_partition(
    day: Date, table: MinuteTable, model: InfoBehavior, out: Path, reference: Profile | None
) -> Profile:
    file = partition_file(out, day)
    num_minutes = pq.read_table(file, columns=["num_minutes"], partitioning=None)["num_minutes"].to_numpy()
    embedding = read_chosen(file, evenly(len(num_minutes), NUM_WINDOWS))
    return Profile.of(day, table, model, num_minutes, embedding, reference.edges if reference else None)
