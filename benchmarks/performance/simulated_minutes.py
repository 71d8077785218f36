"""A simulated folder of minutes of equally active accounts, written as it lies on disk, without any events."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from infobehavior.artefacts import DEFINITION_FILE, write_json
from infobehavior.data.clock import MINUTES_PER_DAY
from infobehavior.data.day_files import ROW_GROUP_ROWS
from infobehavior.data.minutes import FORMAT, KIND, partition_file
from infobehavior.data.schema import ONE_TIME, Columns, Schema

FIRST_DAY = date(2024, 1, 1)
NUM_BEHAVIORS = 20
NUM_LOCATIONS = 30
SCHEMA = Schema(
    columns=Columns(entity="entity_id", timestamp="timestamp", behavior="behavior", location="location"),
    behaviors={f"behavior {i:02}": ONE_TIME for i in range(NUM_BEHAVIORS)},
)


@dataclass(frozen=True)
class Minutes:
    """Simulated minutes.

    Attributes:
        num_entities: accounts.
        minutes_a_day: of each, on each day.
        num_days: from FIRST_DAY on.
    """

    num_entities: int
    minutes_a_day: int
    num_days: int

    @property
    def total(self) -> int:
        """Minutes of all accounts."""
        return self.num_entities * self.minutes_a_day * self.num_days

    def write(self, folder: Path) -> None:
        """Write the folder; each number is a hash of the row's own, so the minutes are always the same."""
        with duckdb.connect() as connection:
            for day in range(self.num_days):
                self._write_day(folder, FIRST_DAY + timedelta(days=day), connection)
        definition = {"kind": KIND, "format": FORMAT, "schema": SCHEMA.definition(), "entity_type": "BIGINT"}
        write_json(folder / DEFINITION_FILE, {**definition, "hash": SCHEMA.hash})

    def _write_day(self, folder: Path, day: date, connection: duckdb.DuckDBPyConnection) -> None:
        """A minute has one behavior, or, one in four, two; behaviors and locations with small numbers are frequent."""
        target = partition_file(folder, day)
        target.parent.mkdir(parents=True)
        first_minute = (day - date(1970, 1, 1)).days * MINUTES_PER_DAY
        apart = MINUTES_PER_DAY // self.minutes_a_day
        share = "((hash(i * 10 + {0} + " + str(first_minute) + "::BIGINT * 1000000007) % 1000003) / 1000003.0)"
        connection.execute(
            f"""COPY (
                WITH drawn AS (
                    SELECT i // {self.minutes_a_day} AS entity_id,
                        ({first_minute} + i % {self.minutes_a_day} * {apart} + floor({share.format(0)} * {apart}))::INT
                            AS minute,
                        floor({NUM_BEHAVIORS} * pow({share.format(1)}, 2))::INT AS behavior,
                        {share.format(2)} < 0.25 AS has_two,
                        floor({NUM_LOCATIONS} * pow({share.format(3)}, 2))::INT AS place,
                        ({share.format(4)} < 0.02)::INT AS num_failures
                    FROM range({self.num_entities * self.minutes_a_day}) t(i)
                )
                SELECT entity_id, minute, 1 + has_two::INT AS num_events, num_failures,
                    (1::BIGINT << 2 * (1 + behavior))
                        | CASE WHEN has_two THEN 1::BIGINT << 2 * (1 + (behavior + 1) % {NUM_BEHAVIORS}) ELSE 0 END
                        AS levels_0,
                    CASE WHEN has_two THEN [1, 1] ELSE [1] END::INTEGER[] AS counts,
                    CASE WHEN place = 0 THEN NULL ELSE 'place ' || place END AS location
                FROM drawn
            ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"""
        )
