"""Keeping representations of spans changes what a day costs, and nothing else."""

import json
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain

import numpy as np
import pytest
import torch

from infobehavior import InfoBehavior, InputError, embed, pretrain
from infobehavior.cli import main
from infobehavior.data.store import load_store
from infobehavior.data.windows import Windows
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.embedding import bundles, encode, kept_spans, spans_file
from infobehavior.embedding import embed as embed_module
from infobehavior.embedding.kept_spans import SpanContents
from infobehavior.embedding.spans_file import SPANS_FILE
from infobehavior.model.float32_products import rows_are_independent
from infobehavior.model.reproducible import reproducible
from infobehavior.model.span_cnn import SpanCNN
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


@pytest.fixture(scope="module")
def keepable(model_folder):
    """The model, where the machine allows to keep what it makes of spans."""
    skip_where_rows_depend(model_folder)
    return model_folder


def skip_where_rows_depend(model_folder):
    model = InfoBehavior.from_pretrained(model_folder)
    with torch.inference_mode(), reproducible(model.num_threads):
        try:
            encode._refuse_dependent_rows(model)
        except InputError as error:
            pytest.skip(str(error))


@pytest.fixture(autouse=True, scope="module")
def nearly_all_spans_are_long():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept_spans, "MINUTES_OF_KEPT_SPANS", 2)
        yield


def table_bytes(folder):
    return {name: content for name, content in folder_bytes(folder).items() if name != SPANS_FILE}


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


def test_a_table_has_the_same_bytes(minutes, keepable, tmp_path):
    first, *later = embed_days(minutes, keepable, tmp_path / "kept", keep_spans=True)
    embed_days(minutes, keepable, tmp_path / "anew", keep_spans=False)
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
    assert first.kept_spans[0] == 0 < first.kept_spans[1]
    for summary in later:
        found, long = summary.kept_spans
        assert 0.4 < found / long < 1, "of three days, two were there before"
        assert f"{found:,} of {long:,} long spans were kept" in " ".join(summary.lines())


def test_a_model_with_statistics_of_spans(minutes, tmp_path):
    """Pre-trained, saved, and embedded with kept spans and without: the same bytes, and the model's own numbers."""
    beyond = {"pooling": "cls_readouts_and_spans", "cls_input": "statistics", "span_pooling": "max_and_means"}
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(span_origin="epoch", **beyond))
    skip_where_rows_depend(tmp_path / "model")
    embed_days(minutes, tmp_path / "model", tmp_path / "kept", keep_spans=True)
    embed_days(minutes, tmp_path / "model", tmp_path / "anew", keep_spans=False)
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
    model, kept = InfoBehavior.from_pretrained(tmp_path / "model"), read_embeddings(tmp_path / "kept")
    dim = model.config.model_dim
    assert kept.vectors.shape[1] == model.embedding_dim == dim + model.readouts.dim + 3 * dim
    largest, smallest, deviation = np.split(kept.vectors[:, -3 * dim :], 3, axis=1)
    assert (largest >= smallest).all()
    assert (deviation <= largest - smallest + 0.001).all()
    assert (largest > smallest).any()


def test_a_day_again_finds_everything(minutes, keepable, tmp_path):
    embed_days(minutes, keepable, tmp_path, keep_spans=True)
    before = folder_bytes(tmp_path)
    (again,) = embed_days(minutes, keepable, tmp_path, keep_spans=True, days=DAYS[-1:])
    assert again.kept_spans[0] == again.kept_spans[1] > 0
    assert folder_bytes(tmp_path) == before


def test_an_earlier_day_and_a_gap_are_no_obstacle(minutes, keepable, tmp_path):
    days = (DAYS[2], DAYS[0], "2024-04-04")
    embed_days(minutes, keepable, tmp_path / "kept", True, days)
    embed_days(minutes, keepable, tmp_path / "anew", False, days)
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")


def test_events_that_come_late_are_seen(events, minutes, keepable, tmp_path):
    late = [replace(event, what="login", place="Łódź") if i % 7 == 0 else event for i, event in enumerate(events)]
    late = [event for i, event in enumerate(late) if i % 11]
    changed = small_minutes(tmp_path / "late", late)
    embed_days(minutes, keepable, tmp_path / "kept", True, DAYS[:1])
    (summary,) = embed_days(changed, keepable, tmp_path / "kept", True, DAYS[:1])
    embed_days(changed, keepable, tmp_path / "anew", False, DAYS[:1])
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
    assert 0 < summary.kept_spans[0] < summary.kept_spans[1]


@pytest.mark.parametrize("damage", ["another model", "half", "nothing", "no Arrow", "one number"])
def test_a_file_that_is_not_of_use_is_replaced(minutes, keepable, tmp_path, damage):
    embed_days(minutes, keepable, tmp_path / "out", True, DAYS[:1])
    good = (tmp_path / "out" / SPANS_FILE).read_bytes()
    if damage == "another model":
        pretrain(minutes.path, tmp_path / "other", config=tiny_config(span_origin="epoch", seed=9))
        embed_days(minutes, tmp_path / "other", tmp_path / "others", True, DAYS[:1])
        bad = (tmp_path / "others" / SPANS_FILE).read_bytes()
    else:
        middle = len(good) // 2
        number = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        half = good[:middle]
        bad = {"half": half, "nothing": b"", "no Arrow": b"Lorem ipsum", "one number": number}[damage]
    (tmp_path / "out" / SPANS_FILE).write_bytes(bad)
    (summary,) = embed_days(minutes, keepable, tmp_path / "out", True, DAYS[:1])
    assert summary.kept_spans[0] == 0
    assert (tmp_path / "out" / SPANS_FILE).read_bytes() == good != bad


def test_damage_in_the_middle_costs_time_and_nothing_else(minutes, keepable, tmp_path, monkeypatch):
    monkeypatch.setattr(spans_file, "SPANS_PER_WRITE", 3)
    monkeypatch.setattr(encode, "MINUTES_PER_BATCH", 50)
    embed_days(minutes, keepable, tmp_path, True, DAYS[:1])
    before, file = folder_bytes(tmp_path), tmp_path / SPANS_FILE
    found = []
    for place in range(len(before[SPANS_FILE]) // 3, len(before[SPANS_FILE]) // 2, 160):
        damaged = bytearray(before[SPANS_FILE])
        damaged[place] ^= 128
        file.write_bytes(damaged)
        (summary,) = embed_days(minutes, keepable, tmp_path, True, DAYS[:1])
        found.append(summary.kept_spans[0])
        assert folder_bytes(tmp_path) == before
    assert any(0 < count < summary.kept_spans[1] for count in found), "damage in the numbers of some spans"


def test_what_another_encoder_of_the_same_name_made_is_not_found(minutes, keepable, tmp_path, monkeypatch):
    """As another processor, library or version of this package may be."""
    embed_days(minutes, keepable, tmp_path, True, DAYS[:1])
    encode_spans = SpanCNN.forward
    with monkeypatch.context() as patched:
        patched.setattr(SpanCNN, "forward", lambda cnn, *given: encode_spans(cnn, *given) * (1 + 1e-6))
        (other,) = embed_days(minutes, keepable, tmp_path, True, DAYS[1:2])
        (again,) = embed_days(minutes, keepable, tmp_path, True, DAYS[1:2])
    assert other.kept_spans[0] == 0 < again.kept_spans[0]
    monkeypatch.setattr("infobehavior.embedding.made_by.version", lambda _: "another")
    (other,) = embed_days(minutes, keepable, tmp_path, True, DAYS[1:2])
    assert other.kept_spans[0] == 0


def test_shards_and_many_writes_change_nothing(minutes, keepable, tmp_path, monkeypatch):
    monkeypatch.setattr(spans_file, "SPANS_PER_WRITE", 3)
    monkeypatch.setattr(encode, "MINUTES_PER_BATCH", 50)
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 1)
    monkeypatch.setattr(encode, "MINUTES_PER_SHARD", 200)
    shards, embed_shard = [], encode.embed_shard
    monkeypatch.setattr(encode, "embed_shard", lambda *given: shards.append(given) or embed_shard(*given))
    _, *later = embed_days(minutes, keepable, tmp_path / "kept", keep_spans=True)
    assert len(shards) == 2 * len(DAYS)
    embed_days(minutes, keepable, tmp_path / "anew", keep_spans=False)
    assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
    assert all(found > long / 3 > 10 for found, long in (summary.kept_spans for summary in later))


def test_a_model_with_a_projection_and_few_new_spans(events, minutes, tmp_path, monkeypatch):
    """The projection's product has a row for each span that is represented: first of all spans, then of a handful."""
    monkeypatch.setattr(kept_spans, "MINUTES_OF_KEPT_SPANS", 1)
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(span_origin="epoch", num_feature_maps=16))
    assert isinstance(InfoBehavior.from_pretrained(tmp_path / "model").span_projection, torch.nn.Linear)
    skip_where_rows_depend(tmp_path / "model")
    embed_days(minutes, tmp_path / "model", tmp_path / "kept", True, DAYS[:1])
    before = datetime.fromisoformat(DAYS[0]).replace(tzinfo=UTC)
    latest_first = sorted(events, key=lambda event: (event.at >= before, before - event.at))
    for count in (1, 2, 5, 11):
        changed = [replace(event, place="Bonn") for event in latest_first[:count]] + latest_first[count:]
        late = small_minutes(tmp_path / f"{count} late", changed)
        (summary,) = embed_days(late, tmp_path / "model", tmp_path / "kept", True, DAYS[:1])
        embed_days(late, tmp_path / "model", tmp_path / "anew", False, DAYS[:1])
        assert table_bytes(tmp_path / "kept") == table_bytes(tmp_path / "anew")
        found, all_spans = summary.kept_spans
        assert 0 < all_spans - found < 16


def test_a_run_that_breaks_off_leaves_what_was_kept(minutes, keepable, tmp_path, monkeypatch):
    embed_days(minutes, keepable, tmp_path / "out", True, DAYS[:1])
    before = folder_bytes(tmp_path)
    monkeypatch.setattr(spans_file, "SPANS_PER_WRITE", 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embed_module, "write_partitions", lambda *given: list(given[5]) and fail())
    with pytest.raises(OSError, match="No space left"):
        embed_days(minutes, keepable, tmp_path / "out", True, DAYS[1:])
    assert folder_bytes(tmp_path) == before


def test_a_day_without_long_spans_leaves_what_was_kept(minutes, keepable, tmp_path, monkeypatch):
    embed_days(minutes, keepable, tmp_path, True, DAYS[:1])
    before = (tmp_path / SPANS_FILE).read_bytes()
    monkeypatch.setattr(kept_spans, "MINUTES_OF_KEPT_SPANS", 99)
    (summary,) = embed_days(minutes, keepable, tmp_path, True, DAYS[1:2])
    assert summary.kept_spans == (0, 0)
    assert (tmp_path / SPANS_FILE).read_bytes() == before


def test_two_runs_at_once_leave_both_days(minutes, keepable, tmp_path, monkeypatch):
    """And what the one kept that ended last."""
    monkeypatch.setattr(spans_file, "SPANS_PER_WRITE", 1)
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 1)
    monkeypatch.setattr(encode, "MINUTES_PER_SHARD", 200)
    embed_days(minutes, keepable, tmp_path / "anew", False, DAYS[:2])
    write_partitions, others = embed_module.write_partitions, []

    def write(*given):
        if not others:
            others.append(None)
            shards = iter(given[5])
            first = next(shards)
            assert len(list((tmp_path / "out").glob(f".{SPANS_FILE}.*.tmp"))) == 1
            others[:] = embed_days(minutes, keepable, tmp_path / "out", True, DAYS[1:2])
            given = (*given[:5], chain([first], shards), *given[6:])
        return write_partitions(*given)

    monkeypatch.setattr(embed_module, "write_partitions", write)
    (one,) = embed_days(minutes, keepable, tmp_path / "out", True, DAYS[:1])
    assert table_bytes(tmp_path / "out") == table_bytes(tmp_path / "anew")
    assert (others[0].not_kept, one.not_kept) == (None, None)
    (again,) = embed_days(minutes, keepable, tmp_path / "out", True, DAYS[:1])
    assert again.kept_spans[0] == again.kept_spans[1] > 0


def test_a_full_disk_costs_what_would_have_been_kept_and_not_the_table(minutes, keepable, tmp_path):
    """A limit on the size of files stands for the disk."""
    embed_days(minutes, keepable, tmp_path / "anew", False, DAYS[:1])
    limit = max(map(len, table_bytes(tmp_path / "anew").values()))
    program = f"""
import resource
from infobehavior import cli
from infobehavior.embedding import kept_spans
kept_spans.MINUTES_OF_KEPT_SPANS = 2
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
cli.main()
"""
    words = ["embed", minutes.path, "--model", keepable, "--out", tmp_path / "out", "--date", DAYS[0]]
    process = subprocess.run(
        [sys.executable, "-c", program, *map(str, words), "--keep-spans"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "could not be kept for a later day: " in process.stdout
    assert "File too large" in process.stdout
    assert folder_bytes(tmp_path / "out") == table_bytes(tmp_path / "anew")


PROGRAM = """
import json, os, signal, sys
from infobehavior.embedding import embed, kept_spans, spans_file, table

def killing_at(number, call):
    "Make the call of a number, counted from 1, the process's last one."
    calls = []
    def counted(*given):
        calls.append(given)
        return os.kill(os.getpid(), signal.SIGKILL) if len(calls) == number else call(*given)
    return counted

minutes, model, day, jobs = *sys.argv[1:4], json.loads(sys.argv[4])
kept_spans.MINUTES_OF_KEPT_SPANS, spans_file.SPANS_PER_WRITE = 2, 3
signals = []
for out, sabotage in jobs:
    child = os.fork()
    if child == 0:
        exec(sabotage, globals())
        embed.embed(minutes, model, out, date=day, keep_spans=True)
        os._exit(0)
    signals.append(os.WTERMSIG(os.waitpid(child, 0)[1]))
print(json.dumps(signals))
"""
"""Embeds in processes that kill themselves with -9 at a chosen point; they are forked, so torch is imported once."""

KILLS = {
    "while spans are written": "spans_file._OpenFile.write = killing_at(1, spans_file._OpenFile.write)",
    "while the table is moved": "table.move_into_place = killing_at(1, table.move_into_place)",
    "with the table written": "spans_file.move_into_place = killing_at(1, spans_file.move_into_place)",
    "at the end": "embed.Summary = killing_at(1, embed.Summary)",
}


@pytest.fixture(scope="module")
def killed(minutes, keepable, tmp_path_factory):
    """For each kill on the second day, the folder that it left."""
    folder = tmp_path_factory.mktemp("killed")
    embed_days(minutes, keepable, folder / "first day", True, DAYS[:1])
    assert (folder / "first day" / SPANS_FILE).exists()
    jobs = [(str(folder / name), sabotage) for name, sabotage in KILLS.items()]
    for out, _ in jobs:
        shutil.copytree(folder / "first day", out)
    words = [str(minutes.path), str(keepable), DAYS[1], json.dumps(jobs)]
    process = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == [signal.SIGKILL] * len(jobs), process.stderr
    return folder


@pytest.mark.parametrize("name", KILLS)
def test_a_run_that_was_killed_runs_again_to_the_same_bytes(minutes, keepable, killed, tmp_path, monkeypatch, name):
    monkeypatch.setattr(spans_file, "SPANS_PER_WRITE", 3)
    leftovers = [path for path in folder_bytes(killed / name) if path.startswith(f".{SPANS_FILE}.")]
    assert len(leftovers) == (name != "at the end")
    shutil.copytree(killed / name, tmp_path / "out")
    (again,) = embed_days(minutes, keepable, tmp_path / "out", True, DAYS[1:2])
    assert (again.kept_spans[0] == again.kept_spans[1]) == (name == "at the end")
    embed_days(minutes, keepable, tmp_path / "undisturbed", True, DAYS[:2])
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "undisturbed")


def test_what_a_kill_left_goes_away_also_where_nothing_is_kept(minutes, keepable, killed, tmp_path):
    shutil.copytree(killed / "while spans are written", tmp_path / "out")
    embed_days(minutes, keepable, tmp_path / "out", False, DAYS[1:2])
    embed_days(minutes, keepable, tmp_path / "undisturbed", False, DAYS[:2])
    assert table_bytes(tmp_path / "out") == folder_bytes(tmp_path / "undisturbed")


def test_nothing_is_written_where_no_window_has_events(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="no entity has events in the 6 days"):
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
    # A minute where two spans overlap may be alone in both: the encoder sees the same, at two places in the span.
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


@pytest.mark.parametrize("num_rows", [16, 48, 1_152, 9_216])
def test_rows_that_depend_on_their_number_are_noticed(num_rows):
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))

    def row_by_row(rows):
        return (rows[:, :, None] * weight).sum(1)

    given = (18_000, 12, torch.device("cpu"))
    assert rows_are_independent(row_by_row, *given)
    assert not rows_are_independent(lambda rows: row_by_row(rows) * (1 + 1e-6 * (len(rows) == num_rows)), *given)


def test_where_rows_depend_on_others_nothing_is_kept(minutes, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "rows_are_independent", lambda *_: False)
    with pytest.raises(InputError, match="the last digits of a product depend on what else is in its batch"):
        embed_days(minutes, model_folder, tmp_path / "out", True)
    assert not (tmp_path / "out").exists()


def test_a_model_whose_spans_move_is_refused(minutes, tmp_path, capsys):
    pretrain(minutes.path, tmp_path / "model", config=tiny_config())
    given = [str(part) for part in (minutes.path, "--model", tmp_path / "model", "--out", tmp_path / "out")]
    capsys.readouterr()  # what training logged
    assert main(["embed", *given, "--date", DAYS[0], "--keep-spans"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_table_of_moments_is_refused(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="give a date, not a table of moments"):
        embed(minutes.path, model_folder, tmp_path / "out", as_of=tmp_path / "as_of.parquet", keep_spans=True)
