"""Keeping representations of spans changes what a day costs, and nothing else."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from infobehavior import InfoBehavior, InputError, embed, pretrain
from infobehavior.cli import main
from infobehavior.data.store import load_store
from infobehavior.data.windows import Windows
from infobehavior.embedding import kept_spans
from infobehavior.embedding.kept_spans import FILE, SpanContents
from infobehavior.model.float32_products import rows_are_independent
from small_minutes import folder_bytes, random_events, small_minutes, tiny_config

DAYS = ("2024-03-31", "2024-04-01", "2024-04-02")


@pytest.fixture(scope="module")
def events():
    return random_events(seed=3, minutes_each=150)


@pytest.fixture(scope="module")
def minutes(events, tmp_path_factory):
    return small_minutes(tmp_path_factory.mktemp("minutes"), events)


@pytest.fixture(scope="module")
def model_folder(minutes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pretrain(minutes.path, folder, config=tiny_config(span_origin="epoch"))
    return folder


@pytest.fixture(autouse=True)
def nearly_all_spans_are_long(monkeypatch):
    monkeypatch.setattr(kept_spans, "LONG_SPAN", 2)


def table_bytes(folder):
    return {name: content for name, content in folder_bytes(folder).items() if name != FILE}


def embed_days(minutes, model_folder, out, keep_spans, days=DAYS):
    return [embed(minutes.path, model_folder, out, date=day, keep_spans=keep_spans) for day in days]


def contents(tokenizer, spans):
    """What the encoder sees of each span."""
    batch, sees = tokenizer.tokens(spans), []
    ends = np.cumsum(spans.lengths)
    for first, end in zip(ends - spans.lengths, ends, strict=True):
        behavior, location = (rows.of_minute[first:end].tolist() for rows in (batch.behavior, batch.location))
        sees.append((*behavior, *location, *batch.time_point[first:end].tolist(), *batch.time_lag[first:end].tolist()))
    return sees


def test_a_table_has_the_same_bytes(minutes, model_folder, tmp_path):
    first, *later = embed_days(minutes, model_folder, tmp_path / "kept", keep_spans=True)
    embed_days(minutes, model_folder, tmp_path / "anew", keep_spans=False)
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
    assert first.kept_spans[0] == 0 < first.kept_spans[1]
    for summary in later:
        found, long = summary.kept_spans
        assert 0.4 < found / long < 1, "of three days, two were there before"
        assert f"{found:,} of {long:,} long spans were kept" in " ".join(summary.lines())


def test_a_day_again_finds_everything(minutes, model_folder, tmp_path):
    embed_days(minutes, model_folder, tmp_path, keep_spans=True)
    before = folder_bytes(tmp_path)
    (again,) = embed_days(minutes, model_folder, tmp_path, keep_spans=True, days=DAYS[-1:])
    assert again.kept_spans[0] == again.kept_spans[1] > 0
    assert table_bytes(tmp_path) == {name: before[name] for name in before if name != FILE}


def test_an_earlier_day_and_a_gap_are_no_obstacle(minutes, model_folder, tmp_path):
    days = (DAYS[2], DAYS[0], "2024-04-04")
    embed_days(minutes, model_folder, tmp_path / "kept", True, days)
    embed_days(minutes, model_folder, tmp_path / "anew", False, days)
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")


def test_events_that_come_late_are_seen(events, minutes, model_folder, tmp_path):
    late = [replace(event, what="login", place="Łódź") if i % 7 == 0 else event for i, event in enumerate(events)]
    late = [event for i, event in enumerate(late) if i % 11]
    changed = small_minutes(tmp_path / "late", late)
    embed_days(minutes, model_folder, tmp_path / "kept", True, DAYS[:1])
    (summary,) = embed_days(changed, model_folder, tmp_path / "kept", True, DAYS[:1])
    embed_days(changed, model_folder, tmp_path / "anew", False, DAYS[:1])
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
    assert 0 < summary.kept_spans[0] < summary.kept_spans[1]


@pytest.mark.parametrize("damage", ["another model", "half", "nothing", "no Arrow"])
def test_a_file_that_is_not_of_use_is_replaced(minutes, model_folder, tmp_path, damage):
    embed_days(minutes, model_folder, tmp_path / "out", True, DAYS[:1])
    good = (tmp_path / "out" / FILE).read_bytes()
    if damage == "another model":
        pretrain(minutes.path, tmp_path / "other", config=tiny_config(span_origin="epoch", seed=9))
        embed_days(minutes, tmp_path / "other", tmp_path / "others", True, DAYS[:1])
        bad = (tmp_path / "others" / FILE).read_bytes()
    else:
        bad = {"half": good[: len(good) // 2], "nothing": b"", "no Arrow": b"Lorem ipsum"}[damage]
    (tmp_path / "out" / FILE).write_bytes(bad)
    (summary,) = embed_days(minutes, model_folder, tmp_path / "out", True, DAYS[:1])
    assert summary.kept_spans[0] == 0
    assert (tmp_path / "out" / FILE).read_bytes() == good != bad


def test_many_writes_are_found_again(minutes, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_spans, "SPANS_PER_WRITE", 3)
    monkeypatch.setattr("infobehavior.embedding.encode.MINUTES_PER_BATCH", 50)
    embed_days(minutes, model_folder, tmp_path / "out", True, DAYS[:1])
    (summary,) = embed_days(minutes, model_folder, tmp_path / "out", True, DAYS[:1])
    assert summary.kept_spans[0] == summary.kept_spans[1] > 20
    with pa.memory_map(str(tmp_path / "out" / FILE)) as file:
        assert pa.ipc.open_file(file).num_record_batches > 5


def test_a_run_that_breaks_off_leaves_what_was_kept(minutes, model_folder, tmp_path, monkeypatch):
    embed_days(minutes, model_folder, tmp_path / "out", True, DAYS[:1])
    before = folder_bytes(tmp_path)
    monkeypatch.setattr(kept_spans, "SPANS_PER_WRITE", 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("infobehavior.embedding.embed.write_partitions", lambda *given: list(given[5]) and fail())
    with pytest.raises(OSError, match="No space left"):
        embed_days(minutes, model_folder, tmp_path / "out", True, DAYS[1:])
    assert folder_bytes(tmp_path) == before


def test_nothing_is_written_where_no_window_has_events(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="has any events"):
        embed_days(minutes, model_folder, tmp_path / "out", True, ["2025-03-31"])
    assert not (tmp_path / "out").exists()


def test_keys_tell_contents_apart_and_nothing_else(minutes, model_folder):
    model, store = InfoBehavior.from_pretrained(model_folder), load_store(minutes)
    tokenizer = model.tokenizer(store)
    ends = int(store.minute.min()) + 340 * np.arange(10, 40)
    entity = np.repeat(np.arange(len(store.entities)), len(ends))
    spans = tokenizer.spans(Windows.cut(store, entity, np.tile(ends, len(store.entities)), model.config.window_minutes))
    keys = SpanContents(tokenizer).keys(spans)
    contents_of_key, keys_of_content = defaultdict(set), defaultdict(set)
    for key, content in zip(map(tuple, keys.tolist()), contents(tokenizer, spans), strict=True):
        contents_of_key[key].add(content)
        keys_of_content[content].add(key)
    assert all(len(found) == 1 for found in contents_of_key.values())
    assert len(contents_of_key) < len(keys) / 3, "spans lie in many windows"
    # Tokens that the model doesn't know are all alike to it, and still have keys of their own.
    assert len(keys_of_content) <= len(contents_of_key) < 1.1 * len(keys_of_content)


def test_keys_do_not_depend_on_what_else_is_in_the_store(minutes, model_folder):
    model = InfoBehavior.from_pretrained(model_folder)
    whole = load_store(minutes)
    part = load_store(minutes, first_entity=whole.entities[4], last_entity=whole.entities[5])
    end = np.array([int(whole.minute.max()) - 2_000])
    keys = []
    for store in (whole, part):
        entity = np.searchsorted(store.entities, whole.entities[5:6])
        tokenizer = model.tokenizer(store)
        spans = tokenizer.spans(Windows.cut(store, entity, end, model.config.window_minutes))
        keys.append(SpanContents(tokenizer).keys(spans).tolist())
    assert keys[0] == keys[1] != []


def test_spans_of_a_window_that_are_taken_are_still_the_windows(minutes, model_folder):
    model, store = InfoBehavior.from_pretrained(model_folder), load_store(minutes)
    end = np.full(len(store.entities), int(store.minute.max()))
    spans = model.tokenizer(store).spans(Windows.cut(store, np.arange(len(end)), end, model.config.window_minutes))
    long = spans.lengths > 3
    taken, rest = spans.take(long), spans.take(~long)
    assert 0 < len(taken.lengths) < len(spans.lengths)
    assert (taken.lengths > 3).all()
    assert len(taken.row) == taken.lengths.sum()
    assert (taken.window_lengths + rest.window_lengths).tolist() == spans.window_lengths.tolist()


def test_rows_of_products_are_independent_here_and_dependence_is_noticed(monkeypatch):
    factor = torch.randn(320, 192, generator=torch.Generator().manual_seed(0))
    assert rows_are_independent(factor)
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(a, b) * (1 + 1e-7 * (len(a) % 128 == 0)))
    assert not rows_are_independent(factor)


def test_where_rows_depend_on_others_nothing_is_kept(minutes, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_spans, "rows_are_independent", lambda factor: False)
    with pytest.raises(InputError, match="the last digits of a product depend on what else is in its batch"):
        embed_days(minutes, model_folder, tmp_path / "out", True)
    assert not (tmp_path / "out").exists()


def test_a_model_whose_spans_move_is_refused(minutes, tmp_path, capsys):
    pretrain(minutes.path, tmp_path / "model", config=tiny_config())
    given = [str(part) for part in (minutes.path, "--model", tmp_path / "model", "--out", tmp_path / "out")]
    assert main(["embed", *given, "--date", DAYS[0], "--keep-spans"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_table_of_moments_is_refused(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="give a date, not a table of moments"):
        embed(minutes.path, model_folder, tmp_path / "out", as_of=tmp_path / "as_of.parquet", keep_spans=True)
