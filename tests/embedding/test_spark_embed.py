"""Embeddings made by Spark's executors are, to the byte, those made in this process."""

import shutil
from datetime import timedelta

import numpy as np
import pytest

from infobehavior import InputError, embed
from infobehavior.embedding import bundles, spark_embed
from small_minutes import FIRST_DAY, NUM_DAYS, folder_bytes, random_events, small_minutes, write_moments

DAY = "2024-03-31"


@pytest.fixture(autouse=True)
def many_small_tasks(spark, monkeypatch):
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 2)
    monkeypatch.setattr(spark_embed, "MINUTES_PER_TASK", 30)


def assert_same(minutes, model_folder, folder, **options):
    """Both engines write the same bytes and say the same."""
    duckdb, spark = (
        embed(minutes, model_folder, folder / engine, engine=engine, **options) for engine in ("duckdb", "spark")
    )
    assert folder_bytes(folder / "duckdb") == folder_bytes(folder / "spark")
    assert {**vars(spark), "out": None} == {**vars(duckdb), "out": None}
    return spark


@pytest.fixture
def sent(monkeypatch):
    """How many runs of bundles went to executors."""
    counts, whole = [], spark_embed.tasks
    monkeypatch.setattr(spark_embed, "tasks", lambda context, runs: counts.append(len(runs)) or whole(context, runs))
    return counts


def test_a_day_and_what_late_events_change_of_it(events, minutes, model_folder, tmp_path, sent):
    first = assert_same(minutes.path, model_folder, tmp_path, date=DAY, reuse=True)
    assert first.num_reused == 0
    assert sent[0] > 2
    late = [*events, *random_events(3, num_entities=1, minutes_each=80)]
    now = small_minutes(tmp_path / "late", late).path
    again = assert_same(now, model_folder, tmp_path, date=DAY, reuse=True)
    assert 0 < again.num_reused < again.num_embedded
    assert sent == [sent[0], 1]
    assert assert_same(now, model_folder, tmp_path, date=DAY, reuse=True).num_reused == again.num_embedded
    assert len(sent) == 2


def test_moments_of_several_days(minutes, model_folder, tmp_path):
    draw = np.random.default_rng(1)
    rows = [(f"user {who}", FIRST_DAY + timedelta(minutes=int(draw.integers(NUM_DAYS * 1_440)))) for who in range(12)]
    assert_same(minutes.path, model_folder, tmp_path, as_of=write_moments(rows, tmp_path / "as_of.parquet"))


def test_what_goes_wrong_is_one_line_and_leaves_nothing(minutes, model_folder, tmp_path):
    with pytest.raises(InputError, match="keep_spans is for the engine duckdb"):
        embed(minutes.path, model_folder, tmp_path / "out", date=DAY, engine="spark", keep_spans=True)
    damaged = tmp_path / "minutes"
    shutil.copytree(minutes.path, damaged)
    file = damaged / f"ds={DAY}" / "minutes.parquet"
    said = []
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    for engine in ("duckdb", "spark"):
        with pytest.raises(InputError) as caught:
            embed(damaged, model_folder, tmp_path / "out", date=DAY, engine=engine)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert not (tmp_path / "out").exists()


def test_machines_of_another_kind_are_told_and_nothing_of_them_is_reused(
    minutes, model_folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("infobehavior.embedding.embed.made_by", lambda model: "another kind of machine")
    embed(minutes.path, model_folder, tmp_path / "out", date=DAY, engine="spark")
    assert "machines aren't all like the driver's" in caplog.text
    assert embed(minutes.path, model_folder, tmp_path / "out", date=DAY, engine="spark", reuse=True).num_reused == 0


def test_another_model_at_the_executors_is_refused(minutes, model_folder, tmp_path):
    encoder = spark_embed.Encoder(minutes, model_folder, "the driver's", "cpu", tmp_path)
    with pytest.raises(InputError, match=f"executors find model .* in {model_folder}, the driver found the driver's"):
        list(spark_embed.embed_run(encoder, iter([None])))
