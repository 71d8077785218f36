"""Tables 1 and 2 on a small simulated market: who is judged by what, what is kept, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infobehavior import InputError, aggregate, inspect
from infobehavior.cli import main
from infobehavior.embedding import table as embeddings_table
from infobehavior.experiments import offline, tables
from infobehavior.experiments.offline import judge, read_offline_data
from infobehavior.experiments.tables import ABLATIONS, PAPER_TABLE_1, as_lines, count_rows, table1, table2
from infobehavior.market.config import MarketConfig
from infobehavior.market.simulate import simulate
from small_minutes import folder_bytes, tiny_config

WINDOW_DAYS = 5
NUM_DAYS = 15
MARKET = MarketConfig(num_sellers=120, num_days=NUM_DAYS, abnormal_share=0.3, missed_labels=0, false_labels=0)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("market") / "out", MARKET)


@pytest.fixture(scope="module")
def minutes(market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("minutes") / "out"
    schema = inspect(market.events, columns={"time_zone": MARKET.time_zone}).schema
    aggregate(market.events, schema, folder)
    return folder


def config(**changes):
    return tiny_config(window_days=WINDOW_DAYS, domain_task=("failures",), **changes)


def read(market, minutes, folder, **options):
    return read_offline_data(
        minutes, market.labels, "label_abnormal", folder, window_days=WINDOW_DAYS, kinds=market.truth, **options
    )


@pytest.fixture
def data(market, minutes, tmp_path):
    return read(market, minutes, tmp_path / "out")


def test_the_third_month_judges_those_who_are_active_in_it(market, minutes, data):
    assert data.trained_until == date(2019, 8, 10)
    assert data.until == date(2019, 8, 15)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        active = connection.sql(
            f"SELECT DISTINCT entity_id, label_abnormal, kind FROM '{market.events}/*.parquet' "
            f"JOIN '{market.labels}' USING (entity_id) JOIN '{market.truth}' USING (entity_id) "
            "WHERE timestamp >= '2019-08-11' ORDER BY entity_id"
        ).fetchall()
    assert data.windows["entity_id"].to_pylist() == [entity for entity, _, _ in active]
    assert data.positive.tolist() == [label == 1 for _, label, _ in active]
    assert data.kind is not None
    assert data.kind.tolist() == [kind for _, _, kind in active]
    assert set(data.windows["as_of"].to_pylist()) == {datetime(2019, 8, 15, 16, tzinfo=UTC)}


def test_other_kinds_are_other_data(market, minutes, data):
    assert data.kind is not None
    others = replace(data, kind=np.where(data.kind == "burst", "relapsing", data.kind))
    assert len({data.hash, replace(data).hash, others.hash, replace(data, kind=None).hash}) == 3


def test_negatives_are_drawn_and_positives_kept(market, minutes, data, tmp_path):
    drawn = read(market, minutes, tmp_path / "drawn", max_negatives=20)
    assert drawn.positive.sum() == data.positive.sum()
    assert (~drawn.positive).sum() == 20
    assert drawn.num_left_out == len(data.positive) - len(drawn.positive)
    assert drawn.windows["entity_id"].equals(
        read(market, minutes, tmp_path / "again", max_negatives=20).windows["entity_id"]
    )


def test_table1_has_the_papers_rows_and_pre_trains_once_a_seed(data, monkeypatch):
    trained = []
    pretrain = offline.pretrain
    monkeypatch.setattr(
        offline, "pretrain", lambda *args, **options: trained.append(options["until"]) or pretrain(*args, **options)
    )
    rows = table1(data, config(), range(2))
    assert [row.name for row in rows[:5]] == [
        "manual, Logistic regression",
        "infobehavior, Logistic regression",
        "manual, LightGBM",
        "infobehavior, LightGBM",
        "infobehavior, MLP",
    ]
    assert [row.paper["auc"] for row in rows[:5]] == list(PAPER_TABLE_1.values())
    assert len(rows) == 9
    assert all(len(row.values["auc"]) == len(row.values["nmi"]) == 2 for row in rows)
    assert set(trained) == {"2019-08-10"}
    kinds = {name for row in rows for name in row.values if name.startswith("auc[")}
    assert kinds == {f"auc[{kind}]" for kind in ("bought", "burst", "camouflaged", "relapsing")}
    kept = folder_bytes(data.folder)
    trained.clear()
    again = table1(data, config(), range(2))
    assert again == rows
    assert not trained
    assert folder_bytes(data.folder) == kept


def test_the_same_figures_again_elsewhere_and_with_more_workers(market, minutes, data, tmp_path):
    rows = table1(data, config(), range(2))
    for workers in (1, 2):
        other = read(market, minutes, tmp_path / str(workers))
        assert table1(other, config(), range(2), workers) == rows


def test_a_run_that_was_interrupted_goes_on(data, monkeypatch):
    judged = []

    def fail_at_the_second(*args, **options):
        judged.append(args)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return judge(*args, **options)

    monkeypatch.setattr(tables, "judge", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        table1(data, config(), range(1))
    assert len(table1(data, config(), range(1))) == 9
    assert len(judged) == 4  # the first of three isn't judged again


def interrupted(*_):
    raise KeyboardInterrupt


def test_embeddings_that_were_interrupted_while_they_were_moved_are_made_again(data, monkeypatch):
    expected = offline.representation(data, config(num_steps=1))
    shutil.rmtree(data.folder / "embeddings")
    with monkeypatch.context() as patched:
        patched.setattr(embeddings_table, "move_into_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            offline.representation(data, config(num_steps=1))
    [mark] = data.folder.glob("embeddings/*/_unfinished.json")
    assert (mark.parent / "_definition.json").exists()
    assert np.array_equal(offline.representation(data, config(num_steps=1)), expected)
    assert not mark.exists()


def all_in_one_place(market, folder, since):
    """Minutes of the same log, its rows in another order, if since a day everybody had been in one place."""
    (folder / "events").mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        location = f"CASE WHEN timestamp >= '{since}' THEN 'Beijing' ELSE location END AS location"
        connection.execute(
            f"COPY (SELECT * REPLACE ({location}) FROM '{market.events}/*.parquet' "
            f"ORDER BY hash(timestamp, entity_id)) TO '{folder}/events/part-0.parquet'"
        )
    schema = inspect(market.events, columns={"time_zone": MARKET.time_zone}).schema
    aggregate(folder / "events", schema, folder / "minutes")
    return folder / "minutes"


def judge_by_sum(features, *_, **__):
    return {name: {"auc": float(features.sum()), "nmi": 0.0} for name in ("lr", "gbdt", "mlp", "clusters")}


def test_the_same_events_in_another_order_are_the_same_data(market, data, tmp_path):
    again = read(market, all_in_one_place(market, tmp_path, since="2100-01-01"), tmp_path / "out")
    assert again.minutes.path != data.minutes.path
    assert again.hash == data.hash


def test_corrected_events_are_represented_and_judged_again(market, minutes, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "judge", judge_by_sum)
    corrected = all_in_one_place(market, tmp_path, since="2019-08-13")
    runs = [(minutes, "out"), (corrected, "out"), (corrected, "elsewhere"), (minutes, "out")]
    given = [read(market, folder, tmp_path / out) for folder, out in runs]
    assert all(one.minutes.hash == given[0].minutes.hash for one in given)
    assert all(one.windows.equals(given[0].windows) for one in given)
    before, after, elsewhere, again = (table1(one, config(num_steps=1), range(1)) for one in given)
    assert after == elsewhere
    assert again == before
    changed = [one.name for one, other in zip(before, after, strict=True) if one.values != other.values]
    assert changed == [row.name for row in before]


def test_runs_on_other_accounts_days_and_events_share_a_folder(market, minutes, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "judge", judge_by_sum)
    corrected = all_in_one_place(market, tmp_path, since="2019-08-08")
    runs = [(minutes, {}), (minutes, {"max_negatives": 20}), (minutes, {"until": "2019-08-14"}), (corrected, {})]
    given = [read(market, folder, tmp_path / "out", **options) for folder, options in runs]
    assert len({tuple(one.unseen) for one in given}) > 1
    found = [table1(one, config(num_steps=1), range(1)) for one in given]
    counts = [count_rows(one, config(num_steps=1), range(1)) for one in given if len(one.unseen)]
    for place, (folder, options) in enumerate(runs):
        alone = read(market, folder, tmp_path / str(place), **options)
        assert table1(alone, config(num_steps=1), range(1)) == found[place]
    assert len({str(rows) for rows in found}) == len(runs)
    monkeypatch.setattr(offline, "embed", lambda *_, **__: pytest.fail("embedded again"))
    monkeypatch.setattr(tables, "SCORES_FOLDER", "no scores are kept")
    assert [table1(one, config(num_steps=1), range(1)) for one in given] == found
    assert [count_rows(one, config(num_steps=1), range(1)) for one in given if len(one.unseen)] == counts


def test_scores_of_hand_made_features_are_made_again_when_their_text_changes(data, monkeypatch):
    judged = []

    def judge_quickly(features, *_, **__):
        judged.append(features.shape[1])
        return {name: {"auc": 0.5, "nmi": 0.0} for name in ("lr", "gbdt", "mlp", "clusters")}

    monkeypatch.setattr(tables, "judge", judge_quickly)
    monkeypatch.setattr(tables, "representation", lambda data, _: np.zeros((len(data.positive), 4), np.float32))
    table1(data, config(), range(1))
    manual, learnt, both = judged
    assert (learnt, both) == (4, manual + 4)
    monkeypatch.setattr(tables, "features_hash", lambda: "of another text")
    table1(data, config(), range(1))
    assert judged[3:] == [manual, both]


def test_settings_of_all_rows_are_checked_before_anything_is_learnt(data, monkeypatch):
    monkeypatch.setattr(tables, "representation", lambda *_: pytest.fail("something is learnt"))
    monkeypatch.setattr(tables, "judge", lambda *_, **__: pytest.fail("something is judged"))
    with pytest.raises(InputError, match="no pretext task is left"):
        table2(data, config(coarse_task=False, fine_task=False), range(1))
    with pytest.raises(InputError, match="unknown kind 'nonsense'"):
        table1(data, config().model_copy(update={"domain_task": ("nonsense",)}), range(1))
    with pytest.raises(InputError, match="'abacus' is not a device"):
        table1(data, config(device="abacus"), range(1))


def test_table2_changes_what_the_paper_changes(data, monkeypatch):
    given = []

    def represent(data, config):
        given.append(config)
        return np.random.default_rng(len(given)).normal(size=(len(data.positive), 4)).astype(np.float32)

    monkeypatch.setattr(tables, "representation", represent)
    rows = table2(data, config(), range(1))
    assert [row.name for row in rows] == [ablation.name for ablation in ABLATIONS]
    assert [(c.encoder.span_minutes, c.encoder.stride_minutes) for c in given] == [
        (360, 340), (180, 160), (720, 700), (360, 360), (360, 340), (360, 340), (360, 340),
    ]  # fmt: skip
    assert [(c.coarse_task, c.fine_task, bool(c.domain_task)) for c in given[4:]] == [
        (False, True, True),
        (True, False, True),
        (True, True, False),
    ]
    assert [list(row.values) for row in rows] == [["nmi", "lr", "gbdt", "mlp"]] * 7
    assert rows[0].paper == {"nmi": 0.1825, "lr": 0.8993, "gbdt": 0.9146, "mlp": 0.9171}
    assert "(0.1825)" in as_lines(rows)[1]


def test_scores_of_table2_stand_in_the_row_and_at_the_seed_of_their_configuration(data, monkeypatch):
    judged = []

    def judge_by_config(features, *_, **__):
        return {name: {"auc": float(features[0, 0]), "nmi": 0.0} for name in ("lr", "gbdt", "mlp", "clusters")}

    def represent(_, config):
        judged.append(config)
        return np.full((2, 1), config.encoder.span_minutes + config.seed / 10, np.float32)

    monkeypatch.setattr(tables, "representation", represent)
    monkeypatch.setattr(tables, "judge", judge_by_config)
    base = config(span_minutes=180, stride_minutes=160)
    rows = table2(data, base, range(2))
    assert [row.values["lr"] for row in rows[:4]] == [
        pytest.approx([span, span + 0.1]) for span in (180, 180, 720, 360)
    ]
    assert len(judged) == 2 * (len(ABLATIONS) - 1), "two rows have one configuration"


def test_table2_with_two_rows_of_one_configuration_and_two_processes(market, minutes, tmp_path, caplog, capfd):
    caplog.set_level("INFO", "infobehavior")
    base = config(span_minutes=180, stride_minutes=160, checkpoint_every=5)
    one, two = (table2(read(market, minutes, tmp_path / str(n)), base, range(1), n) for n in (1, 2))
    assert one == two
    assert re.search(r"SpawnProcess-\d+: pre-training: ", capfd.readouterr().err)
    assert "training and judging encoders: 6 of 6" in caplog.text


def test_a_split_is_four_fifths_and_one_and_the_seed_decides():
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.3
    features = positive[:, None] + random.normal(size=(200, 2))
    one, again, other = (judge(features, positive, seed, ["lr"]) for seed in (0, 0, 1))
    assert one == again != other
    assert 0.6 < one["lr"]["auc"] < 1


def test_the_command_prints_and_writes(market, minutes, tmp_path, capsys):
    toml = tmp_path / "config.toml"
    toml.write_text(
        "num_steps = 2\nbatch_size = 4\nmin_count = 2\nnum_threads = 1\npairs = 'anywhere'\n"
        "[encoder]\nwindow_days = 5\nnum_layers = 1\nnum_heads = 2\nhead_dim = 6\nnum_feature_maps = 4\n"
        "minute_dim = 8\nfeedforward_dim = 16\n"
    )
    arguments = ["table1", minutes, "--labels", market.labels, "--label", "label_abnormal", "--out", tmp_path / "out"]
    arguments += ["--seeds", "1", "--config", toml]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "judged by the 5 days up to 2019-08-15" in printed
    assert "(0.8266)" in printed
    written = json.loads((tmp_path / "out" / "table1.json").read_text())
    assert written["seeds"] == [0]
    assert len(written["rows"]) == 9
    assert printed.startswith("simulated: ")
    assert written["simulated"] is True
    assert written["data"][0].startswith("simulated: ")


def test_only_what_lies_in_the_folder_of_a_market_is_told_to_be_simulated(market, minutes, data, tmp_path):
    assert data.simulated, "its labels are a market's, though its minutes lie elsewhere"
    labels = shutil.copy(market.labels, tmp_path / "labels.parquet")
    elsewhere = read_offline_data(minutes, labels, "label_abnormal", tmp_path / "a", window_days=WINDOW_DAYS)
    assert not elsewhere.simulated
    assert elsewhere.lines()[0][0].isdigit()
    (tmp_path / "link").symlink_to(market.labels)
    linked = read_offline_data(minutes, tmp_path / "link", "label_abnormal", tmp_path / "b", window_days=WINDOW_DAYS)
    assert linked.lines()[0].startswith("simulated: ")


def run_table(name, minutes, labels, out, *more):
    words = [name, minutes, "--labels", labels, "--label", "label_abnormal", "--out", out, "--window-days", 5, *more]
    return main([str(word) for word in words])


@pytest.mark.parametrize("table", ["table1", "table2"])
def test_too_few_labels_are_told_before_anything_is_learnt(market, minutes, tmp_path, capsys, monkeypatch, table):
    monkeypatch.setattr(offline, "pretrain", lambda *_, **__: pytest.fail("pre-trained"))
    labels = pq.read_table(market.labels)
    positive = np.flatnonzero(labels["label_abnormal"].to_numpy())
    few = labels.take(np.concatenate([np.flatnonzero(labels["label_abnormal"].to_numpy() == 0), positive[:2]]))
    pq.write_table(few, tmp_path / "few.parquet")
    assert run_table(table, minutes, tmp_path / "few.parquet", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "only 2 positives among" in said
    assert "5 folds need at least 5" in said
    assert said.count("\n") == 1
    assert run_table(table, minutes, market.labels, tmp_path / "out", "--max-negatives", 3) == 2
    assert "only 3 negatives among" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", ["table1", "table2"])
def test_a_month_without_events_is_told(market, minutes, tmp_path, capsys, table):
    assert run_table(table, minutes, market.labels, tmp_path / "out", "--until", "2030-01-01") == 2
    said = capsys.readouterr().err
    assert f"until is 2030-01-01, and {minutes} has no events in the 5 days up to it" in said
    assert "such as the last one, 2019-08-15" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_line(market, minutes, data, tmp_path, capsys):
    with_moments = pq.read_table(market.labels)
    with_moments = with_moments.append_column("as_of", pa.array([date(2019, 8, 15)] * len(with_moments)))
    pq.write_table(with_moments, tmp_path / "moments.parquet")
    with pytest.raises(InputError, match="has a column as_of"):
        read_offline_data(minutes, tmp_path / "moments.parquet", "label_abnormal", tmp_path / "out")
    with pytest.raises(InputError, match=r"no day up to .* to learn from; it begins 2019-08-01"):
        read_offline_data(minutes, market.labels, "label_abnormal", tmp_path / "out", window_days=30)
    with pytest.raises(InputError, match="no column 'kind'"):
        read_offline_data(
            minutes, market.labels, "label_abnormal", tmp_path / "out", window_days=WINDOW_DAYS, kinds=market.labels
        )
    twice = pq.read_table(market.truth)
    pq.write_table(pa.concat_tables([twice, twice.slice(3, 2)]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"twice.parquet has several rows of 2 entities, such as .*; keep one kind"):
        read_offline_data(
            minutes,
            market.labels,
            "label_abnormal",
            tmp_path / "out",
            window_days=WINDOW_DAYS,
            kinds=tmp_path / "twice.parquet",
        )
    arguments = ["table1", minutes, "--labels", market.labels, "--label", "label_abnormal", "--out", tmp_path / "out"]
    assert main([str(argument) for argument in [*arguments, "--seed", "1"]]) == 2
    assert "--seeds" in capsys.readouterr().err
