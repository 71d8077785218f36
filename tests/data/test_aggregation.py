import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infobehavior.data import aggregation, coded_events, day_files, embedded_log
from infobehavior.data.aggregation import Summary, aggregate
from infobehavior.data.minutes import open_minutes
from infobehavior.data.schema import (
    ONE_TIME,
    PAPER_FAST,
    PAPER_SLOW,
    Behavior,
    Columns,
    Failures,
    Schema,
    Time,
    write_schema,
)
from infobehavior.errors import InputError

Row = dict[str, Any]

SCHEMA = Schema(
    columns=Columns(entity="who", timestamp="when", behavior="what", location="where", outcome="ended", extra=["ip"]),
    failures=Failures(outcomes=["failure", "denied"]),
    behaviors={
        "log in": PAPER_FAST,
        "post": PAPER_SLOW,
        "é😀": Behavior(medium=3, high=4),
        "a_b": PAPER_FAST,
        "register": ONE_TIME,
    },
)
TYPES = pa.schema(
    {
        "who": pa.int64(),
        "when": pa.timestamp("us", "UTC"),
        "what": pa.string(),
        "where": pa.string(),
        "ended": pa.string(),
        "ip": pa.string(),
    }
)


def write_rows(rows: list[Row], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, TYPES), path)
    return path


def read_minutes(folder: Path) -> list[Row]:
    """All minutes, day by day, in the order on disk, each with the day of its folder."""
    table = open_minutes(folder)
    return [row | {"ds": day} for day in table.days for row in pq.ParquetFile(table.file(day)).read().to_pylist()]


def file_hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def expected_minutes(rows: list[Row], schema: Schema) -> list[Row]:
    """Section 3.1.1 with loops over dictionaries."""
    zone = ZoneInfo(schema.time.time_zone)
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["who"] is None or not (row["what"] or "").strip() or row["when"] is None:
            continue
        if not schema.time.earliest <= row["when"].astimezone(zone).date() < schema.time.latest:
            continue
        groups[row["who"], (row["when"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(minutes=1)].append(row)
    tokens = [_expected_token(who, minute, events, schema) for (who, minute), events in groups.items()]
    return sorted(tokens, key=lambda token: (token["ds"], token["entity_id"], token["minute"]))


def _expected_token(who: int, minute: int, events: list[Row], schema: Schema) -> Row:
    counts = Counter(schema.behavior_code(event["what"]) for event in events)
    words = [0] * schema.num_words
    for code, count in counts.items():
        behavior = ONE_TIME if code == 0 else schema.behaviors[schema.behavior_names[code - 1]]
        level = 1
        if behavior.medium is not None and behavior.high is not None:
            level = 1 + (count >= behavior.medium) + (count >= behavior.high)
        words[code // 31] |= level << (2 * (code % 31))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return {
        "entity_id": who,
        "minute": minute,
        "num_events": len(events),
        "num_failures": sum(event["ended"] in schema.failures.outcomes for event in events),
        **{f"levels_{i}": word for i, word in enumerate(words)},
        "counts": [counts[code] for code in sorted(counts)],
        "location": _expected_set(events, "where"),
        "ip": _expected_set(events, "ip"),
        "ds": moment.astimezone(ZoneInfo(schema.time.time_zone)).date(),
    }


def _expected_set(events: list[Row], column: str) -> str | None:
    members = {unicodedata.normalize("NFC", event[column]).replace("\x1f", " ") for event in events if event[column]}
    return "\x1f".join(sorted(members)) if members else None


# Few entities within few hours, so that minutes are shared, around a change of the clocks and around 1970.
moments = st.one_of(
    st.datetimes(datetime(2024, 3, 31), datetime(2024, 3, 31, 2)),
    st.datetimes(datetime(1969, 12, 31, 23, 58), datetime(1970, 1, 1, 0, 2)),
    st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)),
).map(lambda moment: moment.replace(tzinfo=UTC))
places = st.none() | st.sampled_from(["", "Berlin", "Jiangsu", "Cafe\u0301", "Caf\u00e9", "a\x1fb", "Zürich", "😀"])
rows_of_events = st.lists(
    st.fixed_dictionaries(
        {
            "who": st.none() | st.sampled_from([-5, 0, 2**62]),
            "when": st.none() | moments,
            "what": st.none() | st.sampled_from([*SCHEMA.behaviors, "e\u0301😀", "never seen", "", "  "]),
            "where": places,
            "ended": st.sampled_from([None, "success", "failure", "denied", ""]),
            "ip": places,
        }
    ),
    max_size=30,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=rows_of_events,
    repeats=st.integers(1, 5),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]),
)
def test_minutes_are_those_of_the_plain_reference(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], repeats: int, time_zone: str
) -> None:
    folder = tmp_path_factory.mktemp("aggregation")
    rows = rows + rows[:3] * repeats
    schema = SCHEMA.model_copy(update={"time": Time(time_zone=time_zone, earliest=date(1960, 1, 1))})
    expected = expected_minutes(rows, schema)
    source = write_rows(rows, folder / "events.parquet")
    if not expected:
        with pytest.raises(InputError, match=r"no usable event|no rows"):
            aggregate(source, schema, folder / "minutes")
        return
    summary = aggregate(source, schema, folder / "minutes")
    assert read_minutes(folder / "minutes") == expected
    assert summary.num_read == len(rows)
    assert summary.num_kept == sum(row["num_events"] for row in expected)
    assert summary.num_kept + sum(summary.quarantined.values()) == len(rows)
    assert summary.num_minutes == len(expected)


def some_rows(number: int = 400, seed: int = 1) -> list[Row]:
    random_ = random.Random(seed)
    start = datetime(2024, 3, 30, 12, tzinfo=UTC)
    return [
        {
            "who": random_.randrange(5),
            "when": start + timedelta(seconds=random_.randrange(60) * 60 * 37, microseconds=random_.randrange(10**6)),
            "what": random_.choice([*SCHEMA.behaviors, "never seen"]),
            "where": random_.choice([None, "Berlin", "Jiangsu", "Zürich, CH", 'the "Hub"']),
            "ended": random_.choice([None, "success", "failure"]),
            "ip": random_.choice([None, "10.0.0.1", "10.0.0.2"]),
        }
        for _ in range(number)
    ]


def write_csv(rows: list[Row], path: Path) -> Path:
    texts = [row | {"who": str(row["who"]), "when": row["when"].isoformat()} for row in rows]
    pyarrow.csv.write_csv(pa.Table.from_pylist(texts), path)
    return path


@pytest.fixture
def other_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference")
    aggregate(write_rows(some_rows(), folder / "events.parquet"), integer_schema(), folder / "minutes", threads=1)
    return file_hashes(folder / "minutes")


def integer_schema() -> Schema:
    columns = Columns(**(SCHEMA.columns.model_dump() | {"entity_type": "integer"}))
    return SCHEMA.model_copy(update={"columns": columns, "time": Time(time_zone="Europe/Berlin")})


def _shuffled(rows: list[Row], folder: Path) -> Path:
    return write_rows(random.Random(2).sample(rows, len(rows)), folder / "events.parquet")


def _split(rows: list[Row], folder: Path) -> Path:
    for i in range(3):
        write_rows(rows[i::3], folder / f"part-{i}.parquet")
    return folder


def _partitioned(rows: list[Row], folder: Path) -> Path:
    for i, name in enumerate(["b", "a"]):
        (folder / f"shard={name}").mkdir()
        write_rows(rows[i::2], folder / f"shard={name}" / "part.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def _globbed(rows: list[Row], folder: Path) -> Path:
    write_csv(rows[:100], folder / "1.csv")
    write_csv(rows[100:], folder / "2.csv")
    (folder / "notes.md").write_text("not events")
    return folder / "*.csv"


def _as_csv(rows: list[Row], folder: Path) -> Path:
    return write_csv(rows, folder / "events.csv")


@pytest.mark.parametrize("layout", [_shuffled, _split, _partitioned, _globbed, _as_csv])
def test_layout_of_the_input_changes_no_byte(tmp_path: Path, reference: dict[str, str], layout: Any) -> None:
    (tmp_path / "events").mkdir()
    aggregate(layout(some_rows(), tmp_path / "events"), integer_schema(), tmp_path / "minutes")
    assert file_hashes(tmp_path / "minutes") == reference


@pytest.mark.usefixtures("other_time_zone")
def test_time_zone_of_the_machine_and_threads_change_no_byte(tmp_path: Path, reference: dict[str, str]) -> None:
    assert os.environ["TZ"] == "Pacific/Auckland"
    assert duckdb.connect().sql("SELECT current_setting('TimeZone')").fetchall() == [("Pacific/Auckland",)]
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    aggregate(source, integer_schema(), tmp_path / "minutes", threads=2, memory_limit="200MB")
    assert file_hashes(tmp_path / "minutes") == reference


@pytest.mark.parametrize(("per_chunk", "per_batch"), [(50, 7), (10_000, 1), (1, 10_000)])
def test_sizes_of_chunks_and_batches_change_no_byte(
    tmp_path: Path, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch, per_chunk: int, per_batch: int
) -> None:
    monkeypatch.setattr(embedded_log, "EVENTS_PER_CHUNK", per_chunk)
    monkeypatch.setattr(coded_events, "EVENTS_PER_BATCH", per_batch)
    aggregate(write_rows(some_rows(), tmp_path / "events.parquet"), integer_schema(), tmp_path / "minutes")
    assert file_hashes(tmp_path / "minutes") == reference


def test_row_groups_do_not_depend_on_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_files, "ROW_GROUP_ROWS", 10)
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    aggregate(source, SCHEMA, tmp_path / "minutes")
    monkeypatch.setattr(coded_events, "EVENTS_PER_BATCH", 3)
    aggregate(source, SCHEMA, tmp_path / "again")
    assert file_hashes(tmp_path / "again") == file_hashes(tmp_path / "minutes")
    groups = [
        [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        for file in map(pq.ParquetFile, (tmp_path / "minutes").rglob("*.parquet"))
    ]
    assert max(map(len, groups)) > 2
    assert {rows for of_day in groups for rows in of_day[:-1]} == {10}


def test_a_chunk_that_does_not_fit_in_memory_is_spilled(tmp_path: Path) -> None:
    rows = [row | {"who": i, "when": datetime(2024, 3, 30, 8, tzinfo=UTC)} for i, row in enumerate(some_rows())]
    source = write_rows(rows * 2_000, tmp_path / "events.parquet")
    summary = aggregate(source, SCHEMA, tmp_path / "minutes", memory_limit="40MB", threads=1)
    assert summary.num_kept == 2_000 * len(rows)
    assert read_minutes(tmp_path / "minutes") == expected_minutes(rows * 2_000, SCHEMA)


@pytest.mark.parametrize("name", ["events.parquet", "events.csv"])
@pytest.mark.parametrize("num_left", [100, 1])
def test_a_file_that_shrinks_while_it_is_read_costs_no_day_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, num_left: int
) -> None:
    """Though it is whole again, with fewer events, or hardly any day has one."""
    write = write_csv if name.endswith("csv") else write_rows
    source = write(some_rows(), tmp_path / name)
    aggregate(source, SCHEMA, tmp_path / "minutes")
    before = {day: content for day, content in file_hashes(tmp_path / "minutes").items() if day.startswith("ds=")}
    write_minutes = embedded_log.EmbeddedLog.write_minutes

    def shrink_then_write(self: embedded_log.EmbeddedLog, *given: Any) -> Any:
        write(some_rows()[:num_left], source)
        return write_minutes(self, *given)

    monkeypatch.setattr(embedded_log.EmbeddedLog, "write_minutes", shrink_then_write)
    with pytest.raises(InputError) as raised:
        aggregate(source, SCHEMA, tmp_path / "minutes")
    assert str(source) in str(raised.value)
    after = file_hashes(tmp_path / "minutes")
    assert {day: content for day, content in after.items() if day.startswith("ds=")} == before
    monkeypatch.undo()
    assert len(open_minutes(tmp_path / "minutes").days) == len(before), "what is there can be read as before"
    aggregate(source, SCHEMA, tmp_path / "minutes")


def test_a_file_that_grows_while_it_is_read_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_csv(some_rows(), tmp_path / "events.csv")
    survey = embedded_log.EmbeddedLog.survey

    def survey_then_grow(self: embedded_log.EmbeddedLog) -> Any:
        found = survey(self)
        with source.open("a") as file:
            file.write(source.read_text().splitlines()[1] + "\n")
        return found

    monkeypatch.setattr(embedded_log.EmbeddedLog, "survey", survey_then_grow)
    assert aggregate(source, SCHEMA, tmp_path / "minutes").num_kept >= len(some_rows())


@pytest.mark.parametrize("options", [{}, {"drop_duplicates": True}])
def test_a_log_that_is_parsed_once_gives_the_same_bytes(
    tmp_path: Path, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    """A CSV of many chunks isn't parsed once a chunk."""
    monkeypatch.setattr(embedded_log, "EVENTS_PER_CHUNK", 50)
    read = []
    read_once = embedded_log.read_once
    monkeypatch.setattr(embedded_log, "read_once", lambda *args: read.append(args) or read_once(*args))
    aggregate(write_csv(some_rows(), tmp_path / "events.csv"), integer_schema(), tmp_path / "minutes", **options)
    assert len(read) == 1
    assert file_hashes(tmp_path / "minutes") == reference


def test_entities_of_type_text_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows()
    source, schema = write_csv(rows, tmp_path / "events.csv"), SCHEMA.model_copy(update={"time": Time(time_zone="UTC")})
    aggregate(source, schema, tmp_path / "whole")
    monkeypatch.setattr(coded_events, "EVENTS_PER_BATCH", 3)
    aggregate(source, schema, tmp_path / "batches")
    assert open_minutes(tmp_path / "batches").entity_type == "VARCHAR"
    assert file_hashes(tmp_path / "batches") == file_hashes(tmp_path / "whole")


def test_a_chunk_of_unusable_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(60)
    unusable = [row | {"what": "", "when": row["when"] + timedelta(days=20)} for row in rows]
    monkeypatch.setattr(embedded_log, "EVENTS_PER_CHUNK", 10)
    summary = aggregate(write_rows(rows + unusable, tmp_path / "events.parquet"), SCHEMA, tmp_path / "minutes")
    assert (summary.num_kept, summary.quarantined) == (60, {"no behavior": 60})
    assert read_minutes(tmp_path / "minutes") == expected_minutes(rows, SCHEMA)


@pytest.mark.parametrize("texts", [("",), ("", None), (None,), ("a\0b", ""), ("\x1f", "a"), ("'; --", '"')])
def test_odd_places_in_neighbouring_minutes(tmp_path: Path, texts: tuple[str | None, ...]) -> None:
    start = datetime(2024, 3, 1, tzinfo=UTC)
    rows = [
        {"who": 1, "when": start + timedelta(seconds=20 * i), "what": "post", "where": place, "ended": "", "ip": place}
        for i, place in enumerate(texts * 9)
    ]
    aggregate(write_rows(rows, tmp_path / "events.parquet"), SCHEMA, tmp_path / "minutes")
    assert read_minutes(tmp_path / "minutes") == expected_minutes(rows, SCHEMA)


def test_columns_of_many_values_are_not_numbered_beforehand(
    tmp_path: Path, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded_events, "MAX_NUMBERED_VALUES", 1)
    aggregate(write_rows(some_rows(), tmp_path / "events.parquet"), integer_schema(), tmp_path / "minutes")
    assert file_hashes(tmp_path / "minutes") == reference


def test_more_behaviors_than_a_word_holds(tmp_path: Path) -> None:
    names = [f"b{i:03}" for i in range(70)]
    schema = SCHEMA.model_copy(update={"behaviors": dict.fromkeys(names, PAPER_FAST), "failures": Failures()})
    rows = [row | {"what": name} for row, name in zip(some_rows(210), names * 3, strict=True)]
    aggregate(write_rows(rows, tmp_path / "events.parquet"), schema, tmp_path / "minutes")
    assert read_minutes(tmp_path / "minutes") == expected_minutes(rows, schema)


def test_only_listed_behaviors_fail(tmp_path: Path) -> None:
    rows = [row | {"who": 1, "ended": "failure"} for row in some_rows(60)]
    schema = SCHEMA.model_copy(update={"failures": Failures(outcomes=["failure"], behaviors=["log in"])})
    aggregate(write_rows(rows, tmp_path / "events.parquet"), schema, tmp_path / "minutes")
    failures = sum(row["num_failures"] for row in read_minutes(tmp_path / "minutes"))
    assert failures == sum(row["what"] == "log in" for row in rows) > 0


def test_duplicates_are_kept_unless_asked(tmp_path: Path) -> None:
    rows = some_rows(50)
    source = write_rows(rows + rows[:20], tmp_path / "events.parquet")
    assert aggregate(source, SCHEMA, tmp_path / "kept").num_kept == 70
    dropped = aggregate(source, SCHEMA, tmp_path / "dropped", drop_duplicates=True)
    assert (dropped.num_kept, dropped.num_duplicates) == (50, 20)
    assert "20 duplicate rows dropped" in dropped.lines()
    assert read_minutes(tmp_path / "dropped") == expected_minutes(rows, SCHEMA)


def test_entities_that_are_text_stay_as_they_are(tmp_path: Path) -> None:
    ids = [" 7", "007", "7", "e\u0301"]
    rows = [{"who": name, "when": datetime(2024, 1, 1), "what": "post"} for name in ids]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    columns = Columns(entity="who", timestamp="when", behavior="what")
    schema = Schema(columns=columns, behaviors={"post": PAPER_SLOW})
    aggregate(tmp_path / "events.parquet", schema, tmp_path / "minutes")
    assert [row["entity_id"] for row in read_minutes(tmp_path / "minutes")] == ids
    assert open_minutes(tmp_path / "minutes").entity_type == "VARCHAR"


def test_the_schema_may_be_a_file(tmp_path: Path) -> None:
    write_schema(SCHEMA, tmp_path / "schema.toml")
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    aggregate(str(source), tmp_path / "schema.toml", str(tmp_path / "minutes"))
    assert open_minutes(tmp_path / "minutes").schema == SCHEMA


def test_minutes_of_another_schema_are_not_mixed(tmp_path: Path) -> None:
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    aggregate(source, SCHEMA, tmp_path / "minutes")
    before = file_hashes(tmp_path / "minutes")
    with pytest.raises(InputError, match=f"{SCHEMA.hash}.*{integer_schema().hash}"):
        aggregate(source, integer_schema(), tmp_path / "minutes")
    assert file_hashes(tmp_path / "minutes") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    with pytest.raises(InputError, match="has files that aren't minutes"):
        aggregate(source, SCHEMA, tmp_path)
    with pytest.raises(InputError, match="it is a file"):
        aggregate(source, SCHEMA, source)


def test_new_events_replace_the_days_they_touch(tmp_path: Path) -> None:
    old = some_rows()
    days = sorted({row["when"].date() for row in old})
    new = [row | {"who": 77} for row in old if row["when"].date() == days[1]]
    new.append(new[0] | {"when": datetime(2025, 1, 1, tzinfo=UTC)})
    aggregate(write_rows(old, tmp_path / "old.parquet"), SCHEMA, tmp_path / "minutes")
    summary = aggregate(write_rows(new, tmp_path / "new.parquet"), SCHEMA, tmp_path / "minutes")
    assert (len(summary.days), summary.replaced.num_days) == (2, 1)
    before = sum(row["when"].date() == days[1] for row in old)
    assert (summary.replaced.num_events_before, summary.replaced.num_events_now) == (before, len(new) - 1)
    assert summary.replaced.num_days_left == len(days) - 1
    assert "1 days replaced older ones, which held" in "\n".join(summary.lines())
    kept = [row for row in old if row["when"].date() != days[1]]
    assert read_minutes(tmp_path / "minutes") == expected_minutes(kept + new, SCHEMA)


def test_an_interrupted_run_is_not_ended_by_another_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is the same, the log in it isn't: days of the first would be taken for days of the second."""
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(aggregation, "write_json", interrupt_at_summary(aggregation.write_json))
        with pytest.raises(KeyboardInterrupt):
            aggregate(source, SCHEMA, tmp_path / "minutes")
    write_rows(some_rows()[:50], source)
    with pytest.raises(InputError, match="was interrupted"):
        aggregate(source, SCHEMA, tmp_path / "minutes")
    write_rows(some_rows(), source)
    aggregate(source, SCHEMA, tmp_path / "minutes")
    assert read_minutes(tmp_path / "minutes") == expected_minutes(some_rows(), SCHEMA)


def interrupt_at_summary(write):
    def interrupted(target, content):
        if target.name == "_summary.json":
            raise KeyboardInterrupt
        write(target, content)

    return interrupted


def test_the_summary_counts_all_rows(tmp_path: Path) -> None:
    rows = some_rows(100)
    bad = [rows[0] | {"who": None}, rows[0] | {"what": " "}, rows[0] | {"when": None}]
    bad += [rows[0] | {"when": datetime(1970, 1, 1, tzinfo=UTC)}, rows[0] | {"when": datetime(2100, 1, 1, tzinfo=UTC)}]
    summary = aggregate(write_rows(rows + bad, tmp_path / "events.parquet"), SCHEMA, tmp_path / "minutes")
    assert summary.quarantined == {"time out of range": 2, "no behavior": 1, "no entity": 1, "no time": 1}
    assert len(summary.examples["time out of range"]) == 2
    assert summary.num_unknown == sum(row["what"] == "never seen" for row in rows)
    assert summary.unknown_behaviors == {"never seen": summary.num_unknown}
    recorded = json.loads((tmp_path / "minutes" / "_summary.json").read_text())
    assert recorded == summary.as_json()
    assert recorded["events_read"] == 105
    assert recorded["events_kept"] == 100
    assert_lines_tell_all(summary)


def assert_lines_tell_all(summary: Summary) -> None:
    text = "\n".join(summary.lines())
    assert "105 events read, 100 kept" in text
    assert "set aside: 2 rows, time out of range" in text
    assert "'never seen'" in text


def test_stored_as_the_design_says(tmp_path: Path) -> None:
    aggregate(write_rows(some_rows(), tmp_path / "events.parquet"), SCHEMA, tmp_path / "minutes")
    table = open_minutes(tmp_path / "minutes")
    file = pq.ParquetFile(table.file(table.days[0]))
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert list(types) == [
        *("entity_id", "minute", "num_events", "num_failures", "levels_0", "counts", "location", "ip"),
    ]
    assert types["entity_id"] == "int64"
    assert {types[name] for name in ("minute", "num_events", "num_failures")} == {"int32"}
    assert (types["levels_0"], types["location"], types["ip"]) == ("int64", "string", "string")
    assert types["counts"] == "list<element: int32>"
    column = file.metadata.row_group(0).column(1)
    assert (column.compression, "DELTA_BINARY_PACKED" in column.encodings) == ("ZSTD", True)
    query = f"SELECT count(*) FROM read_parquet('{tmp_path}/minutes/ds=*/*.parquet')"
    assert duckdb.sql(query).fetchall() == [(len(read_minutes(tmp_path / "minutes")),)]


def test_files_of_a_window_are_those_of_its_days(tmp_path: Path) -> None:
    schema = SCHEMA.model_copy(update={"time": Time(time_zone="Asia/Tokyo")})
    rows = [row | {"when": datetime(2024, 1, day, tzinfo=UTC)} for day, row in enumerate(some_rows(5), start=1)]
    aggregate(write_rows(rows, tmp_path / "events.parquet"), schema, tmp_path / "minutes")
    table = open_minutes(tmp_path / "minutes")
    first = int(datetime(2024, 1, 2, 15, tzinfo=UTC).timestamp()) // 60  # Midnight of 3 January in Tokyo.
    assert [Path(file).parent.name for file in table.files(first, first + 1440)] == ["ds=2024-01-03"]
    assert [Path(file).parent.name for file in table.files(first - 1, first + 1)] == ["ds=2024-01-02", "ds=2024-01-03"]
    assert len(table.files()) == len(table.files(None, first + 10**6)) == 5
    assert table.files(first, first) == table.files(0, 1) == []


def test_what_is_not_a_folder_of_minutes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder of minutes"):
        open_minutes(tmp_path)
    (tmp_path / "_definition.json").write_text('{"kind": "embeddings"}')
    with pytest.raises(InputError, match="kind = 'embeddings'"):
        open_minutes(tmp_path)
    definition = {"kind": "minutes", "format": 1, "schema": SCHEMA.definition(), "entity_type": "BIGINT"}
    (tmp_path / "_definition.json").write_text(json.dumps(definition | {"hash": SCHEMA.hash}))
    with pytest.raises(InputError, match="has no days"):
        open_minutes(tmp_path)
    (tmp_path / "_definition.json").write_text(json.dumps(definition | {"hash": "0" * 16}))
    with pytest.raises(InputError, match=f"0000000000000000.*{SCHEMA.hash}"):
        open_minutes(tmp_path)
    (tmp_path / "_definition.json").write_text(json.dumps(definition | {"format": 2}))
    with pytest.raises(InputError, match="format 2"):
        open_minutes(tmp_path)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path, schema: pa.Schema) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(day_files, "_parquet_writer", no_space)
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    with pytest.raises(InputError, match=r"can't write to .*minutes: No space left on device"):
        aggregate(source, SCHEMA, tmp_path / "minutes")
    assert not list((tmp_path / "minutes").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Out of Memory Error: could not allocate block", "needs more memory or temporary space"),
        ("IO Error: a page is damaged", "a page is damaged"),
    ],
)
def test_an_error_while_sorted_events_are_read_is_told_as_duckdbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, said: str
) -> None:
    class Failing:
        def __init__(self, reader: pa.RecordBatchReader) -> None:
            self.reader = reader

        def __enter__(self) -> Iterator[pa.RecordBatch]:
            yield_first = iter(self.reader)

            def batches() -> Iterator[pa.RecordBatch]:
                yield next(yield_first)
                raise OSError(error)

            return batches()

        def __exit__(self, *_: object) -> None:
            self.reader.close()

    real = duckdb.DuckDBPyRelation.to_arrow_reader
    monkeypatch.setattr(coded_events, "EVENTS_PER_BATCH", 20)
    monkeypatch.setattr(duckdb.DuckDBPyRelation, "to_arrow_reader", lambda self, size: Failing(real(self, size)))
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    with pytest.raises(InputError, match=said) as caught:
        aggregate(source, SCHEMA, tmp_path / "minutes")
    assert "can't write" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "minutes" / "_unfinished.json").exists()
    assert not list((tmp_path / "minutes").rglob("*.tmp"))


def test_days_far_apart_are_read_together(tmp_path: Path) -> None:
    rows = some_rows(60)
    far = [row | {"when": row["when"] - timedelta(days=12_000)} for row in rows]
    aggregate(write_rows(rows + far, tmp_path / "events.parquet"), SCHEMA, tmp_path / "minutes")
    assert read_minutes(tmp_path / "minutes") == expected_minutes(rows + far, SCHEMA)


def test_a_run_that_wrote_no_day_blocks_no_other_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path, schema: pa.Schema) -> None:
        raise OSError(28, "No space left on device")

    source = write_rows(some_rows(), tmp_path / "events.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(day_files, "_parquet_writer", no_space)
        with pytest.raises(InputError, match="No space left"):
            aggregate(source, SCHEMA, tmp_path / "minutes")
    other = write_rows(some_rows(seed=2), tmp_path / "other.parquet")
    aggregate(other, integer_schema(), tmp_path / "minutes")
    aggregate(other, integer_schema(), tmp_path / "undisturbed")
    assert file_hashes(tmp_path / "minutes") == file_hashes(tmp_path / "undisturbed")


KILLED = """
import os, signal, sys
from pathlib import Path
from infobehavior.data import aggregation, day_files

def begin(path, schema):
    if "ds=2024-03-31" in str(path):
        path.write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, schema)

whole, day_files._parquet_writer = day_files._parquet_writer, begin
aggregation.aggregate(sys.argv[1], sys.argv[2], sys.argv[3])
"""


def test_a_killed_run_is_refused_and_runs_again_to_the_same_bytes(tmp_path: Path) -> None:
    source = write_rows(some_rows(), tmp_path / "events.parquet")
    write_schema(SCHEMA, tmp_path / "schema.toml")
    arguments = [str(path) for path in (source, tmp_path / "schema.toml", tmp_path / "minutes")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=os.environ | {"TMPDIR": str(tmp_path)})
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "minutes").rglob("*.tmp"))
    with pytest.raises(InputError, match="is unfinished: the aggregation of") as caught:
        open_minutes(tmp_path / "minutes")
    assert "\n" not in str(caught.value)
    aggregate(*arguments)
    aggregate(source, SCHEMA, tmp_path / "undisturbed")
    assert file_hashes(tmp_path / "minutes") == file_hashes(tmp_path / "undisturbed")
    assert not list((tmp_path / "minutes").rglob("*.tmp"))


def test_a_loss_of_most_rows_is_the_first_line(tmp_path: Path) -> None:
    rows = some_rows(100)
    far = [row | {"when": datetime(1970, 1, 1, tzinfo=UTC)} for row in rows]
    summary = aggregate(write_rows(rows + far, tmp_path / "half.parquet"), SCHEMA, tmp_path / "half")
    assert "WARNING" not in "\n".join(summary.lines())
    summary = aggregate(write_rows(rows[1:] + far, tmp_path / "most.parquet"), SCHEMA, tmp_path / "most")
    assert summary.lines()[0] == "WARNING: 100 of 199 rows are set aside: time out of range"


def test_examples_are_one_short_line(tmp_path: Path) -> None:
    rows = some_rows(10)
    rows.append(rows[0] | {"when": None, "where": "a\nb" + "x" * 1000})
    lines = aggregate(write_rows(rows, tmp_path / "events.parquet"), SCHEMA, tmp_path / "minutes").lines()
    example = lines[lines.index("set aside: 1 rows, no time") + 1].strip()
    assert len(example) == 200
    assert example.endswith("x...")
    assert not any("\n" in line for line in lines)
