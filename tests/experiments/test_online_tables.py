"""Products that break the rules, by what was known when they were posted (4.3)."""

import json
import shutil
from datetime import date
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infobehavior import InputError, aggregate, inspect, pretrain
from infobehavior.artefacts import UNFINISHED_FILE, move_into_place
from infobehavior.cli import main
from infobehavior.data.clock import day_bounds
from infobehavior.experiments import online, online_tables
from infobehavior.experiments.online import (
    BASIC,
    KNOWN,
    LISTING,
    NEW,
    NEW_HELD_OUT,
    ONLINE_TABLES,
    TRAIN,
    USUAL_MASKING,
    WITH_BEHAVIOR,
    WITH_MANUAL,
    Masking,
    Run,
    fusion_config,
    judge_run,
    read_online_data,
)
from infobehavior.experiments.online_tables import SETTINGS, online_table
from infobehavior.market.config import MarketConfig
from infobehavior.market.simulate import simulate
from small_minutes import folder_bytes, tiny_config

ZONE = "Asia/Shanghai"
MARKET = MarketConfig(
    num_sellers=220,
    num_days=70,
    abnormal_share=0.5,
    earliest_begin=60,
    products_per_seller=30.0,
    honest_violations=0.1,
)
TASKS = ONLINE_TABLES["table3"]
CATEGORIES = [task.category for task in TASKS]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("online")
    market = simulate(folder / "market", MARKET)
    schema = inspect(market.events, columns={"time_zone": ZONE}).schema
    aggregate(market.events, schema, folder / "minutes")
    pretrain(folder / "minutes", folder / "model", config=tiny_config(num_steps=1), until="2019-09-09")
    return folder, market


@pytest.fixture(scope="module")
def data(market):
    folder, made = market
    return read_online_data(made.products, folder / "minutes", folder / "model", folder / "table3", CATEGORIES)


def read(data, part):
    return pq.read_table(data.parts[part])


def test_parts_are_days_and_sellers(data):
    assert data.test_since == date(2019, 9, 10)
    middle = day_bounds(data.test_since, ZONE)[0] * 60_000_000
    first = day_bounds(date(2019, 8, 11), ZONE)[0] * 60_000_000
    sellers = {}
    for part in (TRAIN, KNOWN, NEW, NEW_HELD_OUT):
        posted = read(data, part)["posted_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        assert (
            (posted >= middle).all() if part in (NEW, NEW_HELD_OUT) else ((posted >= first) & (posted < middle)).all()
        )
        sellers[part] = set(read(data, part)["entity_id"].to_pylist())
        products = read(data, part).select(["category", "label_violation"]).to_pylist()
        of_category = {
            category: [one["label_violation"] for one in products if one["category"] == category]
            for category in CATEGORIES
        }
        assert data.counts[part] == {name: (len(of), sum(of)) for name, of in of_category.items()}
        assert any(line.startswith(f"{part}: {len(posted):,} products, ") for line in data.lines())
    assert not sellers[TRAIN] & (sellers[KNOWN] | sellers[NEW_HELD_OUT])
    assert sellers[NEW_HELD_OUT] < sellers[NEW]
    assert set(read(data, TRAIN)["category"].to_pylist()) == set(CATEGORIES)


def test_what_is_told_of_a_listing_is_what_was_before_it(market, data):
    _, made = market
    everything = pa.concat_tables([pq.read_table(file) for file in sorted(made.products.glob("*.parquet"))]).to_pylist()
    for row in read(data, TRAIN).slice(0, 60).to_pylist():
        before = [
            one for one in everything if one["entity_id"] == row["entity_id"] and one["posted_at"] < row["posted_at"]
        ]
        of_week = [one for one in before if (row["posted_at"] - one["posted_at"]).total_seconds() <= 7 * 86_400]
        alike = [one for one in before if one["category"] == row["category"]]
        assert row["listings_before"] == pytest.approx(np.log1p(len(before)))
        assert row["listings_of_week"] == pytest.approx(np.log1p(len(of_week)))
        assert row["share_of_category"] == pytest.approx(len(alike) / max(len(before), 1))
        assert row["title_words"] == len(row["title"].split(" "))
        signs = [letter for letter in row["title"] if not (letter.isascii() and (letter.isalpha() or letter == " "))]
        assert row["title_signs"] == pytest.approx(len(signs) / len(row["title"]))
        foreign = [letter for letter in row["title"] if not " " <= letter <= "~"]
        assert row["title_foreign"] == pytest.approx(len(foreign) / len(row["title"]))


def test_behavior_is_of_windows_that_end_before_the_day_of_the_product(data):
    row = read(data, TRAIN)
    for one in row.slice(0, 50).to_pylist():
        midnight = day_bounds(one["posted_at"].astimezone(online_zone()).date(), ZONE)[0]
        assert int(one["as_of"].timestamp()) == midnight * 60
        assert one["as_of"] <= one["posted_at"]
    embedded = pa.concat_tables(
        [pq.read_table(file, partitioning=None) for file in sorted(data.embeddings.glob("ds=*/*.parquet"))]
    )
    asked = {(one["entity_id"], one["as_of"]) for part in (TRAIN, KNOWN, NEW) for one in read(data, part).to_pylist()}
    assert {(one["entity_id"], one["as_of"]) for one in embedded.select(["entity_id", "as_of"]).to_pylist()} <= asked
    manual = pq.read_table(data.manual)
    assert {(one["entity_id"], one["as_of"]) for one in manual.select(["entity_id", "as_of"]).to_pylist()} == asked


def test_behavior_is_made_again_for_other_minutes(market, data, tmp_path):
    folder, made = market
    minutes = shutil.copytree(folder / "minutes", tmp_path / "minutes")
    again = read_online_data(made.products, minutes, folder / "model", folder / "table3", CATEGORIES)
    assert (again.hash, again.embeddings, again.manual) == (data.hash, data.embeddings, data.manual)
    file = sorted(minutes.glob("ds=*/*.parquet"))[40]
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(rows.slice(0, len(rows) - 1), file)
    other = read_online_data(made.products, minutes, folder / "model", folder / "table3", CATEGORIES)
    assert len({data.hash, other.hash}) == len({data.embeddings, other.embeddings}) == 2
    assert other.manual != data.manual


def online_zone():
    from zoneinfo import ZoneInfo

    return ZoneInfo(ZONE)


def test_settings_differ_in_one_group(data):
    groups = {setting: fusion_config(data, Run(TASKS[0], setting, USUAL_MASKING, 0)).groups for setting in SETTINGS}
    assert set(groups[BASIC]) == {"listing", "picture", "title"}
    for setting, kind in ((WITH_MANUAL, "numbers"), (WITH_BEHAVIOR, "representation")):
        assert set(groups[setting]) - set(groups[BASIC]) == {"behavior"}
        assert groups[setting]["behavior"].kind == kind
        assert groups[setting]["behavior"].masking_probability == 0.1
        assert groups[setting]["title"].masking_probability == 0.3
    assert groups[BASIC]["listing"].columns == LISTING
    off = fusion_config(data, Run(TASKS[0], WITH_BEHAVIOR, Masking(None, 0.0), 3))
    assert not off.network.dynamic_masking
    assert off.network.seed == 3


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_is_measured_on_what_it_has_not_seen(data, setting):
    scores = judge_run(data, Run(TASKS[0], setting, USUAL_MASKING, 0))
    assert set(scores) == {"fusion", "gbdt"}
    for parts in scores.values():
        assert set(parts) == {KNOWN, NEW, NEW_HELD_OUT}
        assert all(value is None or 0 <= value <= 1 for metrics in parts.values() for value in metrics.values())
        assert {name for metrics in parts.values() for name, value in metrics.items() if value is None} <= {
            "precision by threshold"
        }
    assert max(parts[NEW]["auc"] for parts in scores.values()) > 0.6


def test_trees_are_not_trained_again_for_each_way_of_masking(data):
    assert set(judge_run(data, Run(TASKS[0], BASIC, Masking(None, 0.0), 0))) == {"fusion"}


def test_a_table_has_the_paper_s_rows_and_keeps_its_scores(data, monkeypatch):
    asked = []

    def judge(_, run):
        asked.append(run)
        metrics = {"recall": 0.5 + run.seed / 10, "f1": 0.4, "average precision": 0.3, "auc": 0.9}
        return {name: dict.fromkeys((KNOWN, NEW, NEW_HELD_OUT), metrics) for name in ("fusion", "gbdt")}

    monkeypatch.setattr(online_tables, "judge_run", judge)
    monkeypatch.setattr(online_tables, "VERSION", "of this test")
    rows, masked = online_table(data, TASKS, range(2))
    assert len(asked) == 2 * 2 * (len(SETTINGS) + len(online.MASKINGS) - 1)
    assert not [run for place, run in enumerate(asked) if run in asked[:place]]
    assert [row.name for row in rows[:2]] == [
        "Accounts, basic feature set, fusion network",
        "Accounts, basic feature set, LightGBM",
    ]
    assert rows[0].values["recall"] == [0.5, 0.6]
    assert rows[0].paper == {"recall": 0.5210, "f1": 0.6729}
    assert not rows[1].paper
    assert [row.name for row in masked[:2]] == ["Accounts, no masking", "Accounts, content 0.15, behavior 0.05"]
    again, _ = online_table(data, TASKS, range(2))
    assert again == rows
    assert len(asked) == 2 * 2 * (len(SETTINGS) + len(online.MASKINGS) - 1)


@pytest.mark.parametrize(("threshold", "precision"), [(0.5, 0.5), (0.7, 0.0), (0.95, None)])
def test_the_precision_of_a_threshold_is_that_of_its_alarms(data, threshold, precision):
    config = fusion_config(data, Run(TASKS[0], BASIC, USUAL_MASKING, 0))
    examples = SimpleNamespace(positive=np.array([True, False, False]))
    found = online._metrics(examples, np.array([0.6, 0.9, 0.1]), threshold, 0.5, config)
    assert found["precision by threshold"] == precision


def test_the_command_writes_the_table(market, monkeypatch, capsys):
    folder, made = market
    monkeypatch.setattr(online_tables, "MASKINGS", (USUAL_MASKING,))
    words = [str(made.products), "--minutes", str(folder / "minutes"), "--model", str(folder / "model")]
    assert main(["table3", *words, "--out", str(folder / "table3"), "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Gamble, + InfoBehavior representation, fusion network" in printed
    content = json.loads((folder / "table3" / "table3.json").read_text(encoding="utf-8"))
    assert len(content["rows"]) == 12
    assert content["seeds"] == [0]
    assert printed.startswith("simulated: the last part begins 2019-09-10\n")
    assert content["simulated"] is True
    assert content["data"][0].startswith("simulated: ")


def test_a_model_that_has_seen_the_test_or_does_not_say_is_refused():
    begins = date(2019, 9, 10)
    for told, said in (
        ({}, "the model doesn't say until when it learnt, and the test begins with 2019-09-10"),
        ({"trained_until": None}, "the model doesn't say until when it learnt"),
        ({"trained_until": "2019-09-10T00:00:01+08:00"}, "learnt from events until 2019-09-10T00:00:01"),
    ):
        with pytest.raises(InputError, match=f"{said}.*: pre-train (it|one) with --until 2019-09-09"):
            online._refuse_seen(SimpleNamespace(pretraining=told), begins, ZONE)
    online._refuse_seen(SimpleNamespace(pretraining={"trained_until": "2019-09-10T00:00:00+08:00"}), begins, ZONE)


def test_embeddings_that_were_interrupted_while_they_were_moved_are_made_again(market, data, tmp_path, monkeypatch):
    folder, made = market
    given, moved = (made.products, folder / "minutes", folder / "model", tmp_path, CATEGORIES), []

    def dying(*paths):
        if moved:
            raise KeyboardInterrupt
        moved.append(paths)
        move_into_place(*paths)

    with monkeypatch.context() as patch:
        patch.setattr("infobehavior.embedding.table.move_into_place", dying)
        with pytest.raises(KeyboardInterrupt):
            read_online_data(*given)
    embeddings = tmp_path / data.embeddings.name
    assert (embeddings / UNFINISHED_FILE).exists()
    assert len(list(embeddings.glob("ds=*/*.parquet"))) == 1
    assert read_online_data(*given).embeddings == embeddings
    assert folder_bytes(embeddings) == folder_bytes(data.embeddings)


def test_products_of_another_time_or_form_are_told(market, tmp_path):
    folder, made = market
    with pytest.raises(InputError, match="has no products of Boats"):
        read_online_data(made.products, folder / "minutes", folder / "model", tmp_path, ["Boats"])
    table = pq.read_table(next(iter(sorted(made.products.glob("*.parquet")))))
    pq.write_table(table.drop_columns(["picture"]), tmp_path / "some.parquet")
    with pytest.raises(InputError, match="has no column 'picture'"):
        read_online_data(tmp_path / "some.parquet", folder / "minutes", folder / "model", tmp_path / "x", CATEGORIES)
    early = table.filter(
        pc.less(table["posted_at"], pa.scalar(0, table["posted_at"].type).cast(table["posted_at"].type))
    )
    pq.write_table(early, tmp_path / "none.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read_online_data(tmp_path / "none.parquet", folder / "minutes", folder / "model", tmp_path / "x", CATEGORIES)
