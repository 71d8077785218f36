import json
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from infobehavior import InfoBehavior, embed, pretrain
from infobehavior.artefacts import refuse_interrupted
from infobehavior.data.schema import SET_SEPARATOR
from infobehavior.embedding import bundles, encode
from infobehavior.embedding import table as table_module
from infobehavior.embedding.earlier import METADATA_KEY
from infobehavior.errors import InputError
from small_minutes import (
    FIRST_DAY,
    NUM_DAYS,
    TIME_ZONE,
    Event,
    epoch_minute,
    folder_bytes,
    plain_minutes,
    random_events,
    small_minutes,
    small_schema,
    tiny_config,
    write_moments,
)

DAY = "2024-03-31"
DAY_END = datetime(2024, 4, 1, tzinfo=ZoneInfo(TIME_ZONE)).astimezone(UTC)
"""The day of the change to summer time has 23 hours."""

WINDOW_MINUTES = 3 * 1_440
EMBEDDING_DIM = 12


@pytest.fixture(scope="module")
def model(model_folder):
    return InfoBehavior.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def moments(events):
    """Several moments an entity, on several days, some inside a minute; entities without events; a row twice."""
    draw = np.random.default_rng(5)
    rows = [
        (f"user {draw.integers(10)}", FIRST_DAY + timedelta(seconds=int(draw.integers(NUM_DAYS * 86_400))))
        for _ in range(40)
    ]
    just_after = next(event for event in events if event.who == "user 4")
    rows += [("user 4", just_after.at), ("user 4", just_after.at + timedelta(minutes=1))]
    return [*rows, rows[0], ("nobody", DAY_END), ("user 1", FIRST_DAY - timedelta(days=9))]


@pytest.fixture(scope="module")
def table(minutes, model_folder, moments, tmp_path_factory):
    """The embeddings of those moments, and the summary."""
    folder = tmp_path_factory.mktemp("table")
    summary = embed(minutes.path, model_folder, folder / "out", as_of=write_moments(moments, folder / "as_of.parquet"))
    return folder / "out", summary


def rows_of(folder):
    """A table as plain rows by (entity, as_of)."""
    read = duckdb.sql(
        f"SELECT entity_id, epoch_us(as_of), embedding, num_events, num_minutes, num_spans, model_id, ds::VARCHAR "
        f"FROM read_parquet('{folder}/ds=*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    found = {(who, as_of): rest for who, as_of, *rest in read}
    assert len(found) == len(read)
    return found


def vectors(folder):
    return {key: np.array(row[0], dtype=np.float32) for key, row in rows_of(folder).items()}


def assert_equal_vectors(one, other, tolerance=0.0):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=0, atol=tolerance, err_msg=str(key))


def set_limits(monkeypatch, limits):
    """Set what limits batches, bundles, shards and row groups."""
    for name, limit in limits.items():
        (module,) = (module for module in (encode, bundles, table_module) if hasattr(module, name))
        monkeypatch.setattr(module, name, limit)


def table_bytes(folder):
    """The files of a table, but for what is kept of spans."""
    return {name: content for name, content in folder_bytes(folder).items() if name != "_spans.arrow"}


def microseconds(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def expected_counts(events, moments):
    """(num_events, num_minutes, num_spans) of each window, from the log and with loops."""
    plain = plain_minutes(events)
    counts = {}
    for who, moment in moments:
        end = epoch_minute(moment)
        own = {
            m: content for (entity, m), content in plain.items() if entity == who and end - WINDOW_MINUTES <= m < end
        }
        starts = range(end - WINDOW_MINUTES, end - 360 + 340, 340)
        spans = sum(any(start <= m < start + 360 for m in own) for start in starts)
        counts[who, microseconds(moment)] = (sum(m.behaviors.total() for m in own.values()), len(own), spans)
    return counts


# ---------------------------------------------------------------------------------------------- what is in it


def test_counts_and_moments_are_those_of_the_log(events, moments, table):
    folder, summary = table
    counts = expected_counts(events, moments)
    rows = rows_of(folder)
    assert {key: tuple(row[1:4]) for key, row in rows.items()} == {key: c for key, c in counts.items() if c[1]}
    assert summary.num_embedded == len(rows) > 20
    assert summary.num_without_events == len(counts) - len(rows) > 1
    assert {c[1] for c in counts.values()} > {0, 1}


def test_each_row_is_what_the_model_says_of_that_window_alone(minutes, model, model_folder, table, tmp_path):
    folder, _ = table
    for i, ((who, as_of), row) in enumerate(list(rows_of(folder).items())[::9]):
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=as_of)
        out = tmp_path / str(i)
        embed(minutes.path, model_folder, out, as_of=write_moments([(who, moment)], tmp_path / f"{i}.parquet"))
        ((alone, *_),) = rows_of(out).values()
        np.testing.assert_allclose(alone, row[0], rtol=0, atol=1e-5)
        assert np.abs(alone).max() > 0.1


def test_entities_without_events_are_listed_and_not_in_the_table(events, moments, table):
    folder, summary = table
    listed = duckdb.sql(
        "SELECT entity_id, epoch_us(as_of::TIMESTAMPTZ), filename "
        f"FROM read_csv('{folder}/_no_events/*.csv', filename = true)"
    ).fetchall()
    without = {key for key, counts in expected_counts(events, moments).items() if counts[1] == 0}
    assert {(who, as_of) for who, as_of, _ in listed} == without
    assert len(listed) == summary.num_without_events
    assert ("nobody", microseconds(DAY_END)) in without
    assert [name.endswith(f"/ds={DAY}.csv") for who, _, name in listed if who == "nobody"] == [True]
    assert not without & rows_of(folder).keys()


def test_the_list_of_entities_without_events_is_plain_text_and_can_be_embedded_later(minutes, model_folder, tmp_path):
    names = ['a "b", c', "line\nbreak", "Łódź"]
    rows = [("user 1", DAY_END), *((who, DAY_END + timedelta(microseconds=7)) for who in names)]
    embed(minutes.path, model_folder, tmp_path / "out", as_of=write_moments(rows, tmp_path / "as_of.parquet"))
    file = tmp_path / "out" / "_no_events" / "ds=2024-04-01.csv"
    moment = "2024-03-31T22:00:00.000007+00:00"
    assert file.read_bytes().decode() == (
        f'entity_id,as_of\n"a ""b"", c",{moment}\n"line\nbreak",{moment}\nŁódź,{moment}\n'
    )
    with pytest.raises(InputError, match="none of 3 windows"):
        embed(minutes.path, model_folder, tmp_path / "again", as_of=file)


def test_rows_are_in_the_partition_of_the_last_instant_before_their_moment(table):
    folder, summary = table
    for (_, as_of), row in rows_of(folder).items():
        last = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=as_of - 1)
        assert row[-1] == str(last.astimezone(ZoneInfo(TIME_ZONE)).date())
    days = {path.name.removeprefix("ds=") for path in folder.glob("ds=*")}
    assert [str(day) for day in summary.days] == sorted(days)


def test_rows_are_sorted_within_a_partition(table):
    folder, _ = table
    sizes = []
    for path in folder.glob("ds=*/*.parquet"):
        rows = pq.read_table(path, partitioning=None).select(["entity_id", "as_of"]).to_pylist()
        keys = [(row["entity_id"], row["as_of"]) for row in rows]
        assert keys == sorted(keys)
        sizes.append(len(keys))
    assert max(sizes) > 2


def test_the_definition_and_the_training_log(table, model, minutes, model_folder):
    folder, summary = table
    assert json.loads((folder / "_definition.json").read_text()) == {
        "kind": "embeddings",
        "format": 1,
        "model_id": model.model_id,
        "minutes_hash": minutes.hash,
        "window_minutes": WINDOW_MINUTES,
        "embedding_dim": EMBEDDING_DIM,
        "time_zone": TIME_ZONE,
        "trained_until": model.pretraining["trained_until"],
    }
    assert summary.model_id == model.model_id
    assert (folder / "_training_log.jsonl").read_bytes() == (model_folder / "_training_log.jsonl").read_bytes()


# ---------------------------------------------------------------------------------------------- who can read it

COLUMNS = ["entity_id", "as_of", "embedding", "num_events", "num_minutes", "num_spans", "model_id"]


def test_duckdb_reads_it(table, model):
    folder, summary = table
    with duckdb.connect() as connection:
        described = connection.sql(
            f"DESCRIBE SELECT * FROM read_parquet('{folder}/ds=*/*.parquet', hive_partitioning = true)"
        ).fetchall()
        assert {row[0]: row[1] for row in described} == {
            "entity_id": "VARCHAR",
            "as_of": "TIMESTAMP WITH TIME ZONE",
            "embedding": "FLOAT[]",
            "num_events": "BIGINT",
            "num_minutes": "INTEGER",
            "num_spans": "INTEGER",
            "model_id": "VARCHAR",
            "ds": "DATE",
        }
        everything = f"read_parquet('{folder}/**/ds=*/*.parquet', hive_partitioning = true)"
        seen = connection.sql(f"SELECT count(*), min(len(embedding)), any_value(model_id) FROM {everything}").fetchall()
    assert seen == [(summary.num_embedded, EMBEDDING_DIM, model.model_id)]


@pytest.mark.parametrize("glob", ["ds=*/*.parquet", "*/*.parquet", "**/*.parquet"])
def test_any_glob_finds_the_table_and_nothing_else(table, glob):
    folder, summary = table
    assert summary.num_without_events > 0
    with duckdb.connect() as connection:
        seen = connection.sql(f"SELECT ds::VARCHAR, count(*) FROM '{folder}/{glob}' GROUP BY ds").fetchall()
    assert dict(seen) == Counter(row[-1] for row in rows_of(folder).values())
    assert sum(count for _, count in seen) == summary.num_embedded


def test_pandas_reads_the_folder(table):
    folder, summary = table
    frame = pd.read_parquet(folder)
    assert list(frame.columns) == [*COLUMNS, "ds"]
    assert len(frame) == summary.num_embedded
    assert str(frame["as_of"].dt.tz) == "UTC"
    assert np.stack(frame["embedding"]).shape == (len(frame), EMBEDDING_DIM)
    assert not frame.isna().any().any()


def test_pyarrow_reads_the_folder(table):
    folder, summary = table
    dataset = ds.dataset(folder, partitioning="hive")
    assert dataset.schema.remove(dataset.schema.get_field_index("ds")) == pa.schema(
        {
            "entity_id": pa.string(),
            "as_of": pa.timestamp("us", "UTC"),
            "embedding": pa.list_(pa.float32(), EMBEDDING_DIM),
            "num_events": pa.int64(),
            "num_minutes": pa.int32(),
            "num_spans": pa.int32(),
            "model_id": pa.string(),
        }
    )
    assert dataset.count_rows() == summary.num_embedded
    assert (
        dataset.count_rows(ds.field("ds") == "2024-04-02")
        == sum(row[-1] == "2024-04-02" for row in rows_of(folder).values())
        > 0
    )


def test_integer_entities_stay_integers(model_folder, tmp_path):
    events = [replace(event, who=int(event.who[-1]) * 3) for event in random_events()]
    minutes = small_minutes(tmp_path, events)
    embed(minutes.path, model_folder, tmp_path / "out", as_of=write_moments([("3", DAY_END)], tmp_path / "a.parquet"))
    file = tmp_path / "out" / f"ds={DAY}" / "embeddings.parquet"
    assert pq.read_schema(file).field("entity_id").type == pa.int64()
    assert pq.read_table(file, partitioning=None)["entity_id"].to_pylist() == [3]
    by_day = embed(minutes.path, model_folder, tmp_path / "day", date=DAY)
    assert by_day.num_embedded + by_day.num_without_events == 10


# ---------------------------------------------------------------------------------------------- windows


def test_a_day_is_in_its_window(events, minutes, model_folder, tmp_path):
    summary = embed(minutes.path, model_folder, tmp_path / "by_day", date=date.fromisoformat(DAY))
    known = {who for who, minute in plain_minutes(events) if minute < epoch_minute(DAY_END)}
    path = write_moments([(who, DAY_END) for who in known], tmp_path / "as_of.parquet")
    embed(minutes.path, model_folder, tmp_path / "by_table", as_of=path)
    assert folder_bytes(tmp_path / "by_day") == folder_bytes(tmp_path / "by_table")
    assert summary.days == (date.fromisoformat(DAY),)
    assert {key[1] for key in rows_of(tmp_path / "by_day")} == {microseconds(DAY_END)}
    counts = expected_counts(events, [(who, DAY_END) for who in known])
    assert {key: tuple(row[1:4]) for key, row in rows_of(tmp_path / "by_day").items()} == {
        key: c for key, c in counts.items() if c[1]
    }
    assert summary.num_without_events == sum(c[1] == 0 for c in counts.values())


def test_who_was_silent_for_two_windows_is_not_listed(events, model_folder, tmp_path):
    """So a night reads two windows of entities, however long the history."""
    window = timedelta(minutes=WINDOW_MINUTES)
    silent_since = {"user 0": DAY_END - 2 * window, "user 1": DAY_END - window}
    minutes = small_minutes(tmp_path, [e for e in events if e.who not in silent_since or e.at < silent_since[e.who]])
    summary = embed(minutes.path, model_folder, tmp_path / "out", date=DAY)
    listed = (tmp_path / "out" / "_no_events" / f"ds={DAY}.csv").read_text()
    assert "user 1" in listed
    assert "user 0" not in listed
    assert summary.num_embedded + summary.num_without_events == 9


@pytest.fixture(scope="module", params=["window", "epoch"])
def model_of_origin(request, minutes, model_folder, tmp_path_factory):
    """A model whose spans begin at the window's start, and one whose spans don't move."""
    if request.param == "window":
        return model_folder
    folder = tmp_path_factory.mktemp("epoch")
    pretrain(minutes.path, folder, config=tiny_config(span_origin="epoch"))
    return folder


def test_nothing_at_or_after_the_moment_changes_a_byte(events, model_of_origin, tmp_path):
    """Not even an event in the minute that the moment cuts in two, nor one at the moment itself."""
    moment = DAY_END + timedelta(hours=5, seconds=30)
    before = [event for event in events if event.at < moment]
    after = [event for event in events if event.at >= moment]
    for who in ("user 2", "user 3", "aaron"):
        after += [Event(who, moment + timedelta(microseconds=i), "sign up", "Bonn", "no", "::1") for i in range(3)]
        after += [Event(who, moment + timedelta(hours=i), "never seen", "Aachen") for i in range(3)]
    path = write_moments([(f"user {i}", moment) for i in range(10)], tmp_path / "as_of.parquet")
    for name, log in (("without", before), ("with", after + before)):
        embed(small_minutes(tmp_path / name, log).path, model_of_origin, tmp_path / name / "out", as_of=path)
    assert folder_bytes(tmp_path / "with" / "out") == folder_bytes(tmp_path / "without" / "out")
    early = [*before, Event("user 2", moment - timedelta(minutes=1), "login")]
    embed(small_minutes(tmp_path / "early", early).path, model_of_origin, tmp_path / "early" / "out", as_of=path)
    assert folder_bytes(tmp_path / "early" / "out") != folder_bytes(tmp_path / "without" / "out")


def test_moments_at_the_ends_of_the_calendar(minutes, model_folder, tmp_path):
    """Those windows have no events, and the others stay as they are."""
    rows = [(who, moment) for who in ("user 1", "user 9") for moment in ("9998-12-31", "0002-01-02", "2024-04-01")]
    summary = embed(minutes.path, model_folder, tmp_path / "out", as_of=write_moments(rows, tmp_path / "as_of.parquet"))
    assert (summary.num_embedded, summary.num_without_events) == (2, 4)
    embed(minutes.path, model_folder, tmp_path / "day", date=DAY)
    whole = vectors(tmp_path / "day")
    assert_equal_vectors(
        vectors(tmp_path / "out"), {key: whole[key] for key in whole if key[0] in ("user 1", "user 9")}, 1e-5
    )


def test_entities_of_any_name_find_their_minutes(events, model_folder, tmp_path, monkeypatch):
    """Their order is that of code points for whoever sorts them, and quotes don't matter."""
    names = ["Z", "a", "a'b", 'a"b', "é", "e\u0301", "\uff61", "\U0001f600", "1", "-"]
    renamed = [replace(event, who=names[int(event.who[-1])]) for event in events]
    minutes = small_minutes(tmp_path, renamed)
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 2)
    monkeypatch.setattr(encode, "MINUTES_PER_SHARD", 40)
    rows = [(who, DAY_END) for who in names]
    embed(minutes.path, model_folder, tmp_path / "out", as_of=write_moments(rows, tmp_path / "as_of.parquet"))
    counts = {key: tuple(row[1:4]) for key, row in rows_of(tmp_path / "out").items()}
    assert counts == {key: c for key, c in expected_counts(renamed, rows).items() if c[1]}
    assert len(counts) > 6


def test_what_is_before_the_window_changes_nothing(events, minutes, model_of_origin, tmp_path):
    """Only the vectors are compared: numbers of known tokens may differ, and so the last digits."""
    start = DAY_END - timedelta(minutes=WINDOW_MINUTES)
    inside = small_minutes(tmp_path, [event for event in events if event.at >= start])
    path = write_moments([(f"user {i}", DAY_END) for i in range(10)], tmp_path / "as_of.parquet")
    embed(minutes.path, model_of_origin, tmp_path / "all", as_of=path)
    embed(inside.path, model_of_origin, tmp_path / "inside", as_of=path)
    assert_equal_vectors(vectors(tmp_path / "all"), vectors(tmp_path / "inside"), 1e-5)


def test_twelve_months_and_200_kinds_of_behavior(tmp_path):
    kinds = [f"kind {i}" for i in range(200)]
    events = random_events(seed=4, num_entities=5, minutes_each=60, behaviors=kinds, days=730)
    minutes = small_minutes(tmp_path, events, small_schema(dict.fromkeys(kinds, "paper-login")))
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(window_days=365, num_steps=1))
    summary = embed(minutes.path, tmp_path / "model", tmp_path / "out", date="2026-03-20")
    assert summary.num_embedded == 5
    end = epoch_minute(datetime(2026, 3, 21, tzinfo=ZoneInfo(TIME_ZONE)))
    for (who, _), row in rows_of(tmp_path / "out").items():
        own = [m for entity, m in plain_minutes(events) if entity == who and end - 365 * 1_440 <= m < end]
        assert row[2] == len(own) > 10
        assert np.isfinite(row[0]).all()


# ---------------------------------------------------------------------------------------------- same bytes


def test_a_rerun_and_the_order_of_rows_change_no_byte(minutes, model_folder, moments, table, tmp_path):
    folder, _ = table
    path = write_moments(moments[::-1] + moments[:5], tmp_path / "as_of.parquet")
    embed(minutes.path, model_folder, tmp_path / "out", as_of=path)
    assert folder_bytes(tmp_path / "out") == folder_bytes(folder)
    embed(minutes.path, model_folder, tmp_path / "out", as_of=path)
    assert folder_bytes(tmp_path / "out") == folder_bytes(folder)


@pytest.mark.parametrize(
    "limits",
    [
        {"MINUTES_PER_BATCH": 1},
        {"MINUTES_PER_BATCH": 70},
        {"MINUTES_OF_PART": 10},
        {"WINDOWS_PER_BATCH": 3},
        {"ENTITIES_PER_BUNDLE": 1},
        {"ENTITIES_PER_BUNDLE": 3, "MINUTES_PER_SHARD": 1},
        {"MINUTES_PER_BUNDLE": 30, "WINDOWS_PER_BATCH": 2, "MINUTES_PER_SHARD": 1},
        {"MOMENTS_PER_BUNDLE": 3, "MOMENTS_PER_SHARD": 1},
    ],
)
def test_other_batches_and_bundles_change_last_digits_at_most(
    minutes, model_folder, moments, table, tmp_path, monkeypatch, limits
):
    folder, expected = table
    set_limits(monkeypatch, limits)
    path = write_moments(moments, tmp_path / "as_of.parquet")
    summary = embed(minutes.path, model_folder, tmp_path / "out", as_of=path)
    assert_equal_vectors(vectors(tmp_path / "out"), vectors(folder), 1e-5)
    assert {key: row[1:] for key, row in rows_of(tmp_path / "out").items()} == {
        key: row[1:] for key, row in rows_of(folder).items()
    }
    assert summary.fallbacks == expected.fallbacks


@pytest.mark.parametrize("moments_of", ["a day", "a table"])
@pytest.mark.parametrize("limits", [{"MINUTES_PER_SHARD": 1}, {"MINUTES_PER_SHARD": 60}, {"MOMENTS_PER_SHARD": 7}])
def test_shards_change_no_byte(minutes, model_folder, moments, tmp_path, monkeypatch, limits, moments_of):
    """Whatever is in memory at once, the same entities are encoded together and the same rows are a row group."""
    set_limits(monkeypatch, {"ENTITIES_PER_BUNDLE": 3, "BYTES_PER_ROW_GROUP": 4 * EMBEDDING_DIM * 4})
    path = write_moments(moments, tmp_path / "as_of.parquet")
    given = {"date": DAY} if moments_of == "a day" else {"as_of": path}
    embed(minutes.path, model_folder, tmp_path / "whole", **given)
    opened, embed_shard = [], encode.embed_shard
    monkeypatch.setattr(encode, "embed_shard", lambda *args: opened.append(args) or embed_shard(*args))
    set_limits(monkeypatch, limits)
    embed(minutes.path, model_folder, tmp_path / "out", **given)
    assert len(opened) > 1
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    files = list((tmp_path / "out").glob("ds=*/*.parquet"))
    assert sum(pq.ParquetFile(file).num_row_groups for file in files) > len(files)


@pytest.mark.parametrize("keep_spans", [False, True])
def test_after_late_events_only_what_they_touch_is_encoded(
    events, minutes, model_of_origin, tmp_path, monkeypatch, keep_spans
):
    """To the same bytes as if all were, whatever the shards; and what kept spans a later day finds is as much."""
    set_limits(monkeypatch, {"ENTITIES_PER_BUNDLE": 2})
    monkeypatch.setattr("infobehavior.embedding.kept_spans.MINUTES_OF_KEPT_SPANS", 2)
    keep_spans = keep_spans and InfoBehavior.from_pretrained(model_of_origin).config.span_origin == "epoch"
    given, sizes = {"date": DAY, "keep_spans": keep_spans}, []
    out = tmp_path / "out"
    first = embed(minutes.path, model_of_origin, out, reuse=True, **given)
    assert first.num_reused == 0
    encoded, embed_batch = [], encode._embed_batch
    monkeypatch.setattr(encode, "_embed_batch", lambda *args: encoded.append(len(args[3])) or embed_batch(*args))
    before = folder_bytes(out)
    again = embed(minutes.path, model_of_origin, out, reuse=True, **given)
    assert (again.num_reused, encoded) == (first.num_embedded, [])
    assert replace(again, num_reused=0, kept_spans=first.kept_spans) == first
    assert folder_bytes(out) == before
    late = [*events, Event("user 4", DAY_END - timedelta(days=1), "login"), Event("user 4", DAY_END, "login")]
    changed = small_minutes(tmp_path / "late", late)
    embed(changed.path, model_of_origin, tmp_path / "anew", **given)
    encoded.clear()
    summary = embed(changed.path, model_of_origin, out, reuse=True, **given)
    assert 0 < sum(encoded) == first.num_embedded - summary.num_reused < first.num_embedded
    assert table_bytes(out) == table_bytes(tmp_path / "anew") != before
    assert summary.fallbacks == embed(changed.path, model_of_origin, tmp_path / "anew", **given).fallbacks
    if keep_spans:
        given["date"] = "2024-04-01"
        nights = [embed(changed.path, model_of_origin, folder, **given) for folder in (out, tmp_path / "anew")]
        assert nights[0].kept_spans == nights[1].kept_spans
        for _ in range(2):  # what is kept doesn't grow with each late event
            embed(minutes.path, model_of_origin, out, reuse=True, **given)
            embed(changed.path, model_of_origin, out, reuse=True, **given)
            sizes.append((out / "_spans.arrow").stat().st_size)
        assert sizes[0] == sizes[1]


def test_a_minute_that_says_something_else_is_encoded_anew(events, minutes, model_folder, tmp_path, monkeypatch):
    """Though the account has as many minutes and events: another place, another behavior, another minute."""
    set_limits(monkeypatch, {"ENTITIES_PER_BUNDLE": 1})
    alone = Event("user 4", DAY_END - timedelta(hours=30), "login", "Bonn")
    embed(small_minutes(tmp_path / "log", [*events, alone]).path, model_folder, tmp_path / "out", date=DAY)
    changes = {"place": "Aachen", "what": "sign up", "at": alone.at + timedelta(minutes=1)}
    for name, value in changes.items():
        other = small_minutes(tmp_path / name, [*events, replace(alone, **{name: value})])
        shutil.copytree(tmp_path / "out", tmp_path / name / "out")
        summary = embed(other.path, model_folder, tmp_path / name / "out", date=DAY, reuse=True)
        assert summary.num_reused == summary.num_embedded - 1
        embed(other.path, model_folder, tmp_path / name / "anew", date=DAY)
        assert folder_bytes(tmp_path / name / "out") == folder_bytes(tmp_path / name / "anew")


def test_what_is_damaged_or_made_otherwise_is_not_reused(minutes, model_folder, tmp_path, monkeypatch):
    set_limits(monkeypatch, {"ENTITIES_PER_BUNDLE": 2})
    out = tmp_path / "out"
    embed(minutes.path, model_folder, out, date=DAY)
    before = folder_bytes(out)
    partition = out / f"ds={DAY}" / "embeddings.parquet"
    whole = partition.read_bytes()
    rows = pq.ParquetFile(partition)
    table = rows.read()
    changed = table.set_column(
        2,
        "embedding",
        pa.FixedSizeListArray.from_arrays(
            pa.array(table["embedding"].combine_chunks().flatten().to_numpy() + np.float32(1)), EMBEDDING_DIM
        ),
    )

    def write_changed(path):
        pq.write_table(changed.replace_schema_metadata(rows.metadata.metadata), path)

    def write_told(then, now):
        said = rows.metadata.metadata[METADATA_KEY]
        assert then in said
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: said.replace(then, now)}), partition)

    for damage in (
        write_changed,
        lambda _: write_told(b'"minutes":', b'"minuten":'),
        lambda _: write_told(b'"num_rows":', b'"num_rows":-'),
        lambda path: pq.write_table(table.replace_schema_metadata(None), path),
        lambda path: path.write_bytes(whole[: len(whole) // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ):
        damage(partition)
        assert embed(minutes.path, model_folder, out, date=DAY, reuse=True).num_reused == 0
        assert folder_bytes(out) == before
    assert embed(minutes.path, model_folder, out, date=DAY, reuse=True).num_reused > 0
    monkeypatch.setattr("infobehavior.embedding.made_by.version", lambda _: "another")
    assert embed(minutes.path, model_folder, out, date=DAY, reuse=True).num_reused == 0


def test_reuse_is_for_a_day(minutes, model_folder, moments, tmp_path):
    with pytest.raises(InputError, match="reuse is for a day that is embedded again: give a date"):
        embed(
            minutes.path,
            model_folder,
            tmp_path / "out",
            as_of=write_moments(moments, tmp_path / "a.parquet"),
            reuse=True,
        )


@pytest.mark.parametrize("limit", [1, 40])
def test_fewer_minutes_at_once_change_nothing(minutes, model_folder, moments, table, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 1)
    opened = []
    embed_shard = encode.embed_shard
    monkeypatch.setattr(encode, "embed_shard", lambda *args: opened.append(args) or embed_shard(*args))
    path = write_moments(moments, tmp_path / "as_of.parquet")
    embed(minutes.path, model_folder, tmp_path / "out", as_of=path, minutes_per_shard=limit)
    assert len(opened) > 3
    assert_equal_vectors(vectors(tmp_path / "out"), vectors(table[0]), 1e-5)
    with pytest.raises(InputError, match="minutes_per_shard must be 1 or more, got 0"):
        embed(minutes.path, model_folder, tmp_path / "out", as_of=path, minutes_per_shard=0)


@pytest.mark.parametrize("limits", [{"MOMENTS_PER_SHARD": 2}, {"MINUTES_PER_SHARD": 1}])
def test_a_day_that_is_written_shard_by_shard_is_the_same_day(minutes, model_folder, tmp_path, monkeypatch, limits):
    expected = embed(minutes.path, model_folder, tmp_path / "whole", date="2024-04-02")
    set_limits(monkeypatch, {"ENTITIES_PER_BUNDLE": 1, **limits})
    summary = embed(minutes.path, model_folder, tmp_path / "out", date="2024-04-02")
    assert rows_of(tmp_path / "out").keys() == rows_of(tmp_path / "whole").keys()
    assert_equal_vectors(vectors(tmp_path / "out"), vectors(tmp_path / "whole"), 1e-5)
    assert replace(summary, out=expected.out) == expected
    listed = [folder / "_no_events" / "ds=2024-04-02.csv" for folder in (tmp_path / "out", tmp_path / "whole")]
    assert listed[0].read_text() == listed[1].read_text()


def test_a_table_can_be_read_while_a_day_is_embedded_and_is_untouched_if_that_stops(
    minutes, model_folder, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    embed(minutes.path, model_folder, out, date="2024-04-01")
    before = folder_bytes(out)
    set_limits(monkeypatch, {"ENTITIES_PER_BUNDLE": 1, "MOMENTS_PER_SHARD": 2})
    shards = iter([encode.embed_shard, encode.embed_shard])

    def embed_shard(*args):
        refuse_interrupted(out)
        return next(shards)(*args)

    monkeypatch.setattr(encode, "embed_shard", embed_shard)
    with pytest.raises(RuntimeError, match="StopIteration"):
        embed(minutes.path, model_folder, out, date="2024-04-02")
    assert folder_bytes(out) == before


def test_a_device_that_is_not_there_is_refused(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="there is no device cuda:64"):
        embed(minutes.path, model_folder, tmp_path / "out", date="2024-04-02", device="cuda:64")
    assert not (tmp_path / "out").exists()


def test_other_entities_change_nothing(minutes, model_folder, moments, table, tmp_path):
    some = [row for row in moments if row[0] in ("user 1", "user 8", "nobody")]
    embed(minutes.path, model_folder, tmp_path / "out", as_of=write_moments(some, tmp_path / "as_of.parquet"))
    whole = vectors(table[0])
    some_of_whole = {key: whole[key] for key in whole if key[0] in ("user 1", "user 8")}
    assert_equal_vectors(vectors(tmp_path / "out"), some_of_whole, 1e-5)


def test_days_are_added_and_replaced(minutes, model_folder, tmp_path):
    out = tmp_path / "out"
    for day in ("2024-03-29", "2024-03-30"):
        embed(minutes.path, model_folder, out, date=day)
    first = folder_bytes(out)
    embed(minutes.path, model_folder, out, as_of=write_moments([("user 1", DAY_END)], tmp_path / "a.parquet"))
    assert {name: content for name, content in folder_bytes(out).items() if DAY not in name} == first
    embed(minutes.path, model_folder, out, as_of=write_moments([("user 2", DAY_END)], tmp_path / "b.parquet"))
    assert [who for who, as_of in rows_of(out) if as_of == microseconds(DAY_END)] == ["user 2"]


def test_rows_that_a_new_partition_does_not_have_are_counted(minutes, model_folder, tmp_path):
    out, later = tmp_path / "out", DAY_END - timedelta(hours=3)
    first = [("user 1", DAY_END), ("user 1", later), ("user 3", DAY_END), ("nobody", DAY_END)]
    second = [("user 1", DAY_END), ("user 2", DAY_END), ("user 1", DAY_END - timedelta(days=1))]
    removed = []
    for i, rows in enumerate((first, second, second)):
        path = write_moments(rows, tmp_path / f"{i}.parquet")
        summary = embed(minutes.path, model_folder, out, as_of=path)
        removed.append((summary.num_removed, [line for line in summary.lines() if "are gone" in line]))
    line = "2 embeddings that the table had of these days are gone: not among these windows"
    assert removed == [(0, []), (2, [line]), (0, [])]


def test_a_damaged_partition_is_replaced(minutes, model_folder, tmp_path):
    embed(minutes.path, model_folder, tmp_path, date=DAY)
    before = folder_bytes(tmp_path)
    (tmp_path / f"ds={DAY}" / "embeddings.parquet").write_bytes(b"PAR1")
    assert embed(minutes.path, model_folder, tmp_path, date=DAY).num_removed == 0
    assert folder_bytes(tmp_path) == before


# ---------------------------------------------------------------------------------------------- fallbacks


def test_shares_of_tokens_that_the_model_does_not_know(events, minutes, model, model_folder, table, tmp_path):
    """Counted over the minutes of all windows, from the names in the vocabulary."""
    new = [Event("user 1", DAY_END - timedelta(minutes=5 * i), "log_in", "Rome") for i in range(1, 8)]
    mixed = [
        Event("user 1", DAY_END - timedelta(hours=30, minutes=9), "edit.page", place) for place in ("Rome", "Berlin")
    ]
    log = events + new + mixed
    table = small_minutes(tmp_path, log)
    rows = [(f"user {i}", DAY_END) for i in range(3)]
    summary = embed(table.path, model_folder, tmp_path / "out", as_of=write_moments(rows, tmp_path / "as_of.parquet"))
    known = set(model.vocabulary.locations)
    from_parts = unknown = total = 0
    for (who, minute), content in plain_minutes(log).items():
        if who in ("user 0", "user 1", "user 2") and 0 < epoch_minute(DAY_END) - minute <= WINDOW_MINUTES:
            total += 1
            if content.places and SET_SEPARATOR.join(sorted(content.places)) not in known:
                from_parts += bool(content.places & known)
                unknown += not content.places & known
    assert from_parts > 0
    assert unknown == len(new)
    assert summary.fallbacks["location_from_parts"] == pytest.approx(from_parts / total, abs=1e-6)
    assert summary.fallbacks["location_unknown"] == pytest.approx(unknown / total, abs=1e-6)
    shown = summary.lines()[2]
    assert f"{unknown / total:.2%}" in shown


def test_behaviors_that_the_model_has_never_seen(tmp_path):
    """Alone, in a composite with a known part, and as a known composite."""
    behaviors = ("known", "new", "rare")
    schema = small_schema(dict.fromkeys(behaviors, "one-time"))
    old = [
        Event(f"user {i}", FIRST_DAY + timedelta(hours=7 * j, minutes=i), "known") for i in range(3) for j in range(20)
    ]
    minutes = small_minutes(tmp_path / "old", old, schema)
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(num_steps=1))
    hour = timedelta(hours=1)
    new = [Event("user 0", DAY_END - i * hour, what) for i, what in enumerate(["new"] * 3 + ["known"] * 6, start=1)]
    new += [Event("user 0", DAY_END - i * hour, what) for i in (20, 21) for what in ("known", "rare")]
    later = small_minutes(tmp_path / "new", new, schema)
    summary = embed(later.path, tmp_path / "model", tmp_path / "out", date=DAY)
    assert summary.fallbacks == {
        "behavior_from_parts": round(2 / 11, 6),
        "behavior_unknown": round(3 / 11, 6),
        "behavior_not_in_schema": 0,
        "location_from_parts": 0,
        "location_unknown": 0,
    }
    assert "fell back to its parts: 18.18%, was unknown: 27.27%" in summary.lines()[2]


def test_behaviors_that_the_schema_does_not_list_are_counted_though_the_model_knows_their_token(tmp_path):
    hour = timedelta(hours=1)
    schema = small_schema(dict.fromkeys([f"kind {i:02}" for i in range(40)], "one-time"))
    kinds = ["kind 03", "kind 35", "new", "newer"]
    old = [Event(f"user {i}", FIRST_DAY + 7 * j * hour, what) for i in range(3) for j, what in enumerate(kinds * 5)]
    pretrain(small_minutes(tmp_path / "old", old, schema).path, tmp_path / "model", config=tiny_config(num_steps=1))
    new = [Event("user 0", DAY_END - j * hour, what) for j, what in enumerate([*kinds, *kinds, "kind 03"], start=1)]
    new.append(Event("user 0", DAY_END - hour, "newest"))
    later = small_minutes(tmp_path / "new", new, schema)
    summary = embed(later.path, tmp_path / "model", tmp_path / "out", date=DAY)
    assert summary.fallbacks["behavior_unknown"] == 0
    assert summary.fallbacks["behavior_not_in_schema"] == round(5 / 9, 6)
    assert "minutes with a behavior that the schema doesn't list: 55.56%" in summary.lines()


# ---------------------------------------------------------------------------------------------- what is refused


def test_a_model_of_another_schema(events, minutes, model, model_folder, tmp_path):
    other = small_minutes(tmp_path, events, small_schema(extra=[]))
    with pytest.raises(InputError) as raised:
        embed(other.path, model_folder, tmp_path / "out", date=DAY)
    assert minutes.hash in str(raised.value)
    assert other.hash in str(raised.value)
    assert minutes.hash != other.hash
    assert not (tmp_path / "out").exists()


def test_another_model_in_the_same_table(minutes, model, table, tmp_path):
    folder, _ = table
    before = folder_bytes(folder)
    other = pretrain(minutes.path, tmp_path, config=tiny_config(num_steps=1))
    with pytest.raises(
        InputError, match=f"with model_id {model.model_id}, but now it would be {other.model_id}: choose"
    ):
        embed(minutes.path, tmp_path, folder, date=DAY)
    assert folder_bytes(folder) == before


def test_windows_without_any_events(minutes, model_folder, tmp_path):
    path = write_moments([("nobody", DAY_END), ("user 1", DAY_END - timedelta(days=99))], tmp_path / "as_of.parquet")
    with pytest.raises(
        InputError, match=r"none of 2 windows of 3 days has any events; .* has events from 2024-03-25 to"
    ):
        embed(minutes.path, model_folder, tmp_path / "out", as_of=path)
    with pytest.raises(InputError, match="none of 10 windows"):
        embed(minutes.path, model_folder, tmp_path / "out", date="2024-04-09")
    with pytest.raises(InputError, match=r"no entity has events in the 6 days up to 2025-01-01; .* to 2024-04-06"):
        embed(minutes.path, model_folder, tmp_path / "out", date="2025-01-01")
    with pytest.raises(InputError, match=r"no entity has events in the 6 days up to 2024-03-01; .* from 2024-03-25 to"):
        embed(minutes.path, model_folder, tmp_path / "out", date="2024-03-01")
    assert not (tmp_path / "out").exists()


def test_ids_of_another_kind_are_shown(minutes, model_folder, tmp_path):
    path = write_moments([(7, DAY_END), (8, DAY_END)], tmp_path / "as_of.parquet")
    with pytest.raises(
        InputError, match=r"none of 2 windows of 3 days has any events: as_of has ids such as 7, .* such as user 0$"
    ):
        embed(minutes.path, model_folder, tmp_path / "out", as_of=path)


@pytest.mark.parametrize("options", [{}, {"date": DAY, "as_of": "as_of.parquet"}])
def test_a_date_or_a_table_and_not_both(minutes, model_folder, tmp_path, options):
    with pytest.raises(InputError, match="give either a date or a table of moments"):
        embed(minutes.path, model_folder, tmp_path / "out", **options)


def test_folders_of_another_kind(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="is not a folder of minutes"):
        embed(model_folder, model_folder, tmp_path, date=DAY)
    with pytest.raises(InputError, match="is not a model"):
        embed(minutes.path, minutes.path, tmp_path, date=DAY)
    with pytest.raises(InputError, match="holds minutes, not embeddings; choose another --out"):
        embed(minutes.path, model_folder, minutes.path, date=DAY)
    with pytest.raises(InputError, match="it is a file; give a folder"):
        embed(minutes.path, model_folder, minutes.path / "_definition.json", date=DAY)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", r"file: it is a file; give a folder"),
        ("file/below/it", r"it: .*/file is a file; give a folder"),
        ("/proc/none/out", r"can't write embeddings to /proc/none/out: .*; give another folder"),
        ("full", r"full has files that aren't embeddings \(no _definition.json\); give a new folder"),
        ("listed", r"listed holds something else, not embeddings"),
    ],
)
def test_a_folder_that_can_not_be_written_is_found_before_the_work(
    minutes, model_folder, tmp_path, monkeypatch, out, message
):
    (tmp_path / "file").touch()
    for folder, name in (("full", "photo.jpg"), ("listed", "_definition.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("[]")
    before = folder_bytes(tmp_path)
    monkeypatch.setattr("infobehavior.embedding.embed.embed_moments", None)
    with pytest.raises(InputError, match=message):
        embed(minutes.path, model_folder, tmp_path / out, date=DAY)
    assert folder_bytes(tmp_path) == before


def test_hidden_files_are_no_obstacle_but_a_table_without_its_definition_is(minutes, model_folder, tmp_path):
    embed(minutes.path, model_folder, tmp_path, date=DAY)
    (tmp_path / "._notes").touch()
    embed(minutes.path, model_folder, tmp_path, date=DAY)
    definition = tmp_path / "_definition.json"
    definition.unlink()
    with pytest.raises(InputError, match="aren't embeddings"):
        embed(minutes.path, model_folder, tmp_path, date=DAY)


@pytest.mark.parametrize(
    ("row", "message"), [(("user 1", None), "as_of is null"), (("user 1", "soon"), "can't be read as a moment")]
)
def test_bad_moments(minutes, model_folder, tmp_path, row, message):
    path = tmp_path / "as_of.csv"
    path.write_text("entity_id,as_of\nuser 2,2024-04-01\n" + ",".join(word or "" for word in row) + "\n")
    with pytest.raises(InputError, match=message):
        embed(minutes.path, model_folder, tmp_path / "out", as_of=path)
