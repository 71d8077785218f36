import json
import math
import shutil
from datetime import timedelta
from statistics import stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from downstream.examples import AS_OF, aggregated, random_events, windows_of, write_embeddings
from infobehavior.artefacts import MARKET_FILE
from infobehavior.data.minutes import open_minutes
from infobehavior.downstream import evaluate, metric_lines, summary_lines
from infobehavior.downstream.cross_validation import CrossValidated
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.downstream.evaluation import _row, seen_later
from infobehavior.errors import InputError

METRICS = ("auc", "average_precision", "recall_at_precision_95", "recall_at_precision_50", "f1", "nmi")


@pytest.fixture(scope="session")
def rows(evaluated):
    return json.loads((evaluated / "metrics.json").read_text())


def test_nine_rows_with_their_keys(rows):
    assert [(row["features"], row["classifier"]) for row in rows] == [
        (features, classifier)
        for features in ("manual", "infobehavior", "both")
        for classifier in ("lr", "gbdt", "mlp")
    ]
    wanted = {"features", "classifier", "num_entities", "num_positives", "folds", "seed"}
    wanted |= set(METRICS) | {f"{metric}_std" for metric in METRICS}
    for row in rows:
        assert set(row) == wanted
        assert (row["num_entities"], row["num_positives"], row["folds"], row["seed"]) == (58, 15, 3, 0)
        assert all(0 <= row[metric] <= 1 for metric in METRICS)


def test_classifiers_of_a_feature_set_share_its_nmi(rows):
    by_features = {row["features"]: row["nmi"] for row in rows}
    assert all(row["nmi"] == by_features[row["features"]] for row in rows)
    assert len(set(by_features.values())) > 1


def test_what_the_features_know_is_found(rows):
    auc = {(row["features"], row["classifier"]): row["auc"] for row in rows}
    assert auc["manual", "gbdt"] > 0.75
    assert auc["infobehavior", "lr"] > 0.75
    assert auc["both", "lr"] > 0.75


def test_the_same_inputs_give_the_same_bytes(evaluated, embeddings, labels, account_minutes, tmp_path):
    copied = shutil.copytree(embeddings, tmp_path / "elsewhere")
    out = tmp_path / "again"
    rows = evaluate(copied, labels, "bot", str(account_minutes.path), out, group="person", folds=3)
    assert rows == json.loads((evaluated / "metrics.json").read_text())
    names = sorted(path.name for path in evaluated.iterdir())
    assert names == ["_definition.json", "metrics.json", "report.html"]
    for name in names:
        assert (out / name).read_bytes() == (evaluated / name).read_bytes(), name


def test_the_definition_says_where_the_figures_come_from(evaluated, labels, account_minutes):
    definition = json.loads((evaluated / "_definition.json").read_text())
    assert definition["model_id"] == "0123456789abcdef"
    assert definition["minutes_hash"] == account_minutes.hash
    assert (definition["labels"], definition["label"], definition["group"]) == (labels.name, "bot", "person")
    assert definition["positive_class"] == "1"
    assert definition["first_as_of"] == definition["last_as_of"] == "2024-04-14T00:00:00+00:00"
    assert definition["counts"]["labels without an embedding"] == 4


def test_metric_lines_are_aligned(rows):
    lines = metric_lines(rows)
    assert len(lines) == 10
    assert {line.index("±") for line in lines[1:]} == {lines[1].index("±")}
    assert f"{rows[0]['auc']:.3f} ± {rows[0]['auc_std']:.3f}" in lines[1]


def test_summary_lines_say_what_was_found_and_left_out(evaluated, tmp_path):
    lines = summary_lines(evaluated)
    assert lines[0].startswith("Alone, the representation"), "nothing is simulated"
    assert "4 labels without an embedding" in lines
    assert "positive: bot = 1, negative: bot = 0" in lines
    with pytest.raises(InputError, match=r"is not the folder of an evaluation"):
        summary_lines(tmp_path)


def test_minutes_of_another_definition(embeddings, labels, account_minutes, tmp_path):
    other = shutil.copytree(embeddings, tmp_path / "other")
    definition = json.loads((other / "_definition.json").read_text())
    (other / "_definition.json").write_text(json.dumps(definition | {"minutes_hash": "feedfeedfeedfeed"}))
    with pytest.raises(InputError, match=r"made from minutes of definition feed\w+, but .* has definition") as caught:
        evaluate(other, labels, "bot", account_minutes.path, tmp_path / "out")
    assert account_minutes.hash in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "bott"}, r"has no column 'bott'; it has entity_id, bot, person"),
        ({"group": "people"}, r"has no column 'people'"),
        ({"label": "person"}, r"has 20 classes"),
        ({"date": "2024-01-01"}, r"no embeddings of 2024-01-01; it has 2024-04-14"),
        ({"folds": 16}, r"only 15 positives among 58 windows that have a label: 16 folds need at least 16"),
        ({"folds": 1}, r"folds must be 2 or more, got 1"),
        ({"seed": -1}, r"seed must be from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, r"seed must be from 0 to 4294967295, got 4294967296"),
        ({"oversample": 0}, r"oversample must be 1 or more, got 0"),
        ({"minutes": "/nowhere"}, r"/nowhere is not a folder of minutes"),
        ({"embeddings": "/nowhere"}, r"/nowhere is not a folder of embeddings"),
        ({"labels": "/nowhere.csv"}, r"there is no file /nowhere.csv"),
    ],
)
def test_bad_input_is_one_clear_line(embeddings, labels, account_minutes, tmp_path, change, message):
    inputs = {"embeddings": embeddings, "labels": labels, "label": "bot", "minutes": account_minutes.path}
    with pytest.raises(InputError, match=message) as caught:
        evaluate(**{**inputs, **change}, out=tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_one_class_among_the_windows_that_match(embeddings, account_minutes, tmp_path):
    # The only positives are accounts without an embedding.
    table = pa.table({"entity_id": list(range(64)), "bot": [entity >= 60 for entity in range(64)]})
    pq.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(InputError, match=r"60 windows that have a label are of one class: no positives"):
        evaluate(embeddings, tmp_path / "labels.parquet", "bot", account_minutes.path, tmp_path / "out")


def test_minutes_of_another_log_with_the_same_schema(embeddings, labels, account_events, tmp_path):
    shifted = [dict(event, who=(event["who"] + 4) % 60) for event in account_events]
    other = aggregated(shifted, tmp_path)
    message = (
        r"entity 0 had \d+ events in \d+ minutes when it was embedded, but has \d+ events in \d+ minutes in .*: the "
    )
    with pytest.raises(InputError, match=message + "minutes are not those that were embedded, or days are missing"):
        evaluate(embeddings, labels, "bot", other.path, tmp_path / "out")


def test_a_day_that_is_missing_or_in_the_place_of_another(embeddings, labels, account_minutes, tmp_path):
    for name in ("missing", "copied"):
        minutes = open_minutes(shutil.copytree(account_minutes.path, tmp_path / name))
        if name == "missing":
            shutil.rmtree(minutes.file(minutes.days[8]).parent)
        else:
            shutil.copyfile(minutes.file(minutes.days[9]), minutes.file(minutes.days[8]))
        with pytest.raises(InputError, match=r"the minutes are not those that were embedded, or days are missing"):
            evaluate(embeddings, labels, "bot", minutes.path, tmp_path / "out")


def test_groups_that_are_fewer_than_the_folds(embeddings, account_minutes, tmp_path):
    table = pa.table({"entity_id": list(range(60)), "bot": [i % 4 == 0 for i in range(60)], "zone": ["a", "b"] * 30})
    pq.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(InputError, match=r"only 2 groups among 60 windows that have a label: 5 folds need at least 5"):
        evaluate(embeddings, tmp_path / "labels.parquet", "bot", account_minutes.path, tmp_path / "out", group="zone")


def test_features_that_are_constant_leak_no_warning(tmp_path):
    """All entities do the same; warnings are errors here."""
    event = random_events(1)[0] | {"when": AS_OF - timedelta(days=3)}
    minutes = aggregated([event | {"who": entity} for entity in range(40)], tmp_path)
    embedded = write_embeddings(tmp_path / "embeddings", windows_of(list(range(40))), minutes)
    table = pa.table({"entity_id": list(range(40)), "bot": ["bot" if i % 4 == 0 else "human" for i in range(40)]})
    pq.write_table(table, tmp_path / "labels.parquet")
    out = tmp_path / "out"
    rows = evaluate(embedded, tmp_path / "labels.parquet", "bot", minutes.path, out, folds=2, seed=2**32 - 1)
    assert {(row["auc"], row["nmi"]) for row in rows if row["features"] == "manual"} == {(0.5, 0.0)}
    assert "positive: bot = human, negative: bot = bot" in summary_lines(out)


def test_an_evaluation_beside_a_simulated_market_says_so(tmp_path):
    minutes = aggregated(random_events(20), tmp_path)
    embedded = write_embeddings(tmp_path / "embeddings", windows_of(list(range(20))), minutes)
    market = tmp_path / "market"
    market.mkdir()
    (market / MARKET_FILE).write_text("{}")
    pq.write_table(pa.table({"entity_id": list(range(20)), "bot": [0, 1] * 10}), market / "labels.parquet")
    evaluate(embedded, market / "labels.parquet", "bot", minutes.path, tmp_path / "out", folds=2)
    assert summary_lines(tmp_path / "out")[0] == "the data are simulated"
    assert "The data are simulated." in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/none/out"])
def test_a_folder_that_can_not_be_written_is_found_before_the_work(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"can't write an evaluation to .*; give a"):
        evaluate("no-embeddings", "no-labels", "bot", "no-minutes", tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("trained_until", "counts"),
    [
        (None, {}),
        ("2024-04-14T00:00+00:00", {}),
        (
            "2024-04-14T00:01+00:00",
            {"windows that end before the encoder's training did (it may have seen later events, never labels)": 60},
        ),
    ],
)
def test_windows_that_end_before_the_training_are_counted(embeddings, trained_until, counts):
    embedded = read_embeddings(embeddings)
    embedded.definition["trained_until"] = trained_until
    assert seen_later(embedded, embedded.windows["as_of"].cast(pa.int64()).to_numpy()) == counts


@pytest.mark.parametrize("trained_until", ["2024-13-01", 5])
def test_an_end_of_training_that_is_no_moment(embeddings, trained_until):
    embedded = read_embeddings(embeddings)
    embedded.definition["trained_until"] = trained_until
    with pytest.raises(InputError, match=f"no usable trained_until in _definition.json: {trained_until!r}"):
        seen_later(embedded, np.zeros(1, dtype=np.int64))


def test_an_embeddings_table_without_a_window_length(embeddings, labels, account_minutes, tmp_path):
    other = shutil.copytree(embeddings, tmp_path / "other")
    definition = json.loads((other / "_definition.json").read_text())
    del definition["window_minutes"]
    (other / "_definition.json").write_text(json.dumps(definition))
    with pytest.raises(InputError, match=r"no usable window_minutes in _definition.json: None"):
        evaluate(other, labels, "bot", account_minutes.path, tmp_path / "out")


def test_a_damaged_training_log_is_found_before_the_work(embeddings, labels, account_minutes, tmp_path):
    other = shutil.copytree(embeddings, tmp_path / "other")
    (other / "_training_log.jsonl").write_text('{"step": 1, "lo')
    with pytest.raises(InputError, match=r"_training_log.jsonl is damaged"):
        evaluate(other, labels, "bot", account_minutes.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_means_and_spreads_are_over_folds(rows):
    # An AUC of 3 folds, one of them at the other end, has the largest spread.
    assert all(0 < row["auc_std"] <= stdev([0, 0, 1]) for row in rows)
    assert np.std([row["auc"] for row in rows]) > 0


def test_a_spread_is_that_of_a_sample():
    of_folds = [0.2, 0.4, 0.9]
    found = CrossValidated([dict.fromkeys(METRICS, value) for value in of_folds], np.zeros(3), [])
    row = _row(("manual", "lr"), found, (0.5, 0.1), {})
    assert row["auc"] == pytest.approx(0.5)
    assert row["auc_std"] == pytest.approx(math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2))
