import dataclasses
import json
import math
import random
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tomli_w

from downstream.test_report import Page
from fusion.examples import (
    MODEL,
    START,
    TIME_ZONE,
    TYPES,
    config_content,
    products,
    small_config,
    table_of,
    write_embeddings,
    write_rows,
)
from infobehavior.artefacts import MARKET_FILE, UNFINISHED_FILE, write_json
from infobehavior.cli import main
from infobehavior.downstream.metrics import best_f1_threshold
from infobehavior.errors import InputError
from infobehavior.fusion.config import Group, checked_config
from infobehavior.fusion.evaluation import fuse_evaluate
from infobehavior.fusion.examples import Period, days_of_examples, read_examples
from infobehavior.fusion.fuse import entity_numbers, example_numbers, fuse_predict, fuse_train, probabilities, split
from infobehavior.fusion.model_folder import load_model
from infobehavior.fusion.operating_point import OperatingPoint, choose_threshold
from infobehavior.fusion.predictions import read_predictions, write_day
from infobehavior.fusion.zones import date_lines
from small_minutes import folder_bytes


@pytest.fixture(scope="module")
def predictions(later, fused, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions") / "table"
    fuse_predict(later, fused, out)
    return out


@pytest.fixture(scope="module")
def evaluation(later, fused, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "report"
    fuse_evaluate(later, fused, out)
    return out


@pytest.fixture(scope="module")
def metrics(evaluation):
    return json.loads((evaluation / "metrics.json").read_text())


def local_day(moment):
    return moment.astimezone(ZoneInfo(TIME_ZONE)).date()


def later_rows():
    return [row | {"product": 1_000 + row["product"]} for row in products(120, seed=1)]


def shuffled(rows):
    return random.Random(0).sample(rows, len(rows))


def as_one_file(rows, folder):
    return write_rows(shuffled(rows), folder / "all.parquet")


def as_many_files(rows, folder):
    for place, part in enumerate((rows[90:], rows[:7], rows[7:90])):
        write_rows(part, folder / "parts" / f"{place}.parquet")
    return folder / "parts"


def as_partitions(rows, folder):
    for row in rows:
        path = folder / f"month={row['product'] % 3}" / "rows.parquet"
        write_rows([other for other in rows if other["product"] % 3 == row["product"] % 3], path)
    return folder


LAYOUTS = [as_one_file, as_many_files, as_partitions]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_files_and_groups_in_another_order_give_the_same_bytes(
    listed, later, fused, predictions, evaluation, seller_embeddings, layout, tmp_path
):
    content = config_content(seller_embeddings)
    turned = tmp_path / "turned.toml"
    turned.write_text(tomli_w.dumps(content | {"groups": dict(reversed(content["groups"].items()))}))
    fuse_train(layout(products(), tmp_path / "listed"), turned, tmp_path / "model")
    assert folder_bytes(tmp_path / "model") == folder_bytes(fused)
    others = layout(later_rows(), tmp_path / "later")
    fuse_predict(others, tmp_path / "model", tmp_path / "predictions")
    assert folder_bytes(tmp_path / "predictions") == folder_bytes(predictions)
    fuse_evaluate(others, tmp_path / "model", tmp_path / "report")
    assert folder_bytes(tmp_path / "report") == folder_bytes(evaluation)


def test_the_order_of_rows_of_a_joined_table_changes_nothing(listed, fused, seller_embeddings, tmp_path):
    table = tmp_path / "sellers"
    for path in sorted(seller_embeddings.glob("ds=*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        for place, part in enumerate((rows.slice(20), rows.slice(0, 20).take(list(range(19, -1, -1))))):
            target = table / path.parent.name / f"{place}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, target)
    fuse_predict(listed, fused, tmp_path / "one")
    shutil.copy(seller_embeddings / "_definition.json", table)
    fuse_predict(listed, fused, tmp_path / "other", tables={"seller": table})
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "other")


def test_rows_that_come_later_change_nothing(listed, fused, predictions, later, seller_embeddings, tmp_path):
    table = shutil.copytree(seller_embeddings, tmp_path / "sellers")
    last = max(row["listed"] for row in later_rows()) + timedelta(microseconds=1)
    columns = {
        "entity_id": list(range(40)),
        "as_of": pa.array([last] * 40, pa.timestamp("us", "UTC")),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.full(160, 9.0, np.float32)), 4),
        "model_id": [MODEL] * 40,
    }
    pq.write_table(pa.table(columns), table / "ds=2024-04-01" / "late.parquet")
    fuse_predict(later, fused, tmp_path / "out", tables={"seller": table})
    assert folder_bytes(tmp_path / "out") == folder_bytes(predictions)


def test_the_partitions_are_local_days(predictions):
    days = {str(local_day(row["listed"])) for row in later_rows()}
    assert {path.name.removeprefix("ds=") for path in predictions.glob("ds=*")} == days
    for path in predictions.glob("ds=*"):
        rows = pq.read_table(path / "predictions.parquet", partitioning=None)
        assert {str(local_day(moment)) for moment in rows["as_of"].to_pylist()} == {path.name.removeprefix("ds=")}


def test_each_example_has_its_prediction(predictions, fused):
    rows = {row["product"]: row for row in read_predictions(predictions).to_pylist()}
    model = load_model(fused)
    for example in later_rows():
        row = rows.pop(example["product"])
        assert (row["entity_id"], row["as_of"]) == (str(example["seller"]), example["listed"])
        assert row["is_flagged"] == (row["probability"] >= model.points["fusion"].threshold)
        assert row["model_id"] == model.model_id
    assert not rows
    definition = json.loads((predictions / "_definition.json").read_text())
    assert (definition["model_id"], definition["positive_class"]) == (model.model_id, "1")
    assert definition["threshold"] == model.points["fusion"].threshold
    assert definition["is_met"]


def test_the_same_probabilities_are_evaluated_and_predicted(predictions, metrics):
    """The examples of all days together, and those of each day alone."""
    (row, _) = metrics["rows"]
    found = read_predictions(predictions)
    labels = {example["product"]: example["risky"] for example in later_rows()}
    positive = np.array([labels[product] for product in found["product"].to_pylist()])
    assert sum(found["is_flagged"].to_pylist()) == row["num_flagged"]
    assert row["brier"] == pytest.approx(np.mean((positive - found["probability"].to_numpy()) ** 2))


def test_a_day_is_predicted_as_all_days_are(later, fused, predictions, tmp_path):
    summary = fuse_predict(later, fused, tmp_path / "out", since="2024-03-30", until="2024-03-31")
    assert [str(day) for day in summary.days] == ["2024-03-30", "2024-03-31"]
    for day in ("ds=2024-03-30", "ds=2024-03-31"):
        assert folder_bytes(tmp_path / "out" / day) == folder_bytes(predictions / day)
    num_outside = sum(str(local_day(row["listed"])) not in ("2024-03-30", "2024-03-31") for row in later_rows())
    assert summary.counts["outside of the days asked for"] == num_outside
    assert summary.num_examples == 120 - num_outside


def test_days_that_are_there_are_replaced_and_others_stay(later, fused, predictions, tmp_path):
    out = tmp_path / "table"
    shutil.copytree(predictions, out)
    rows = [row | {"price": 50.0} for row in later_rows() if str(local_day(row["listed"])) == "2024-03-30"][:3]
    fuse_predict(write_rows(rows, tmp_path / "few.parquet"), fused, out)
    assert read_predictions(out).num_rows < 120
    there, before = folder_bytes(out), folder_bytes(predictions)
    assert {name for name in before if there[name] != before[name]} == {"ds=2024-03-30/predictions.parquet"}


def interrupt(monkeypatch, *words, **days):
    """Predict, and be killed before the second day is written."""
    written = []

    def dying(*given):
        if written:
            raise KeyboardInterrupt
        written.append(given)
        write_day(*given)

    with monkeypatch.context() as patch:
        patch.setattr("infobehavior.fusion.fuse.write_day", dying)
        with pytest.raises(KeyboardInterrupt):
            fuse_predict(*words, **days)


def test_a_run_that_was_interrupted_is_brought_to_its_end(later, fused, predictions, tmp_path, monkeypatch):
    out = tmp_path / "table"
    interrupt(monkeypatch, later, fused, out)
    with pytest.raises(InputError, match="is unfinished"):
        read_predictions(out)
    first, second, *_, last = (day.isoformat() for day in days_of_examples(later, load_model(fused).config))
    with pytest.raises(InputError, match=f"for {first} to {last} was interrupted; run that again first"):
        fuse_predict(later, fused, out, since=second)
    with pytest.raises(InputError, match="is unfinished"):
        read_predictions(out)
    fuse_predict(later, fused, out)
    assert folder_bytes(out) == folder_bytes(predictions)


def test_an_open_end_may_have_moved_since_a_run_was_interrupted(later, fused, predictions, tmp_path, monkeypatch):
    """The same command, when there are examples of more days."""
    out, days = tmp_path / "table", days_of_examples(later, load_model(fused).config)
    rows = [row for row in later_rows() if local_day(row["listed"]) < days[-1]]
    interrupt(monkeypatch, write_rows(rows, tmp_path / "rows.parquet"), fused, out, since=str(days[0]))
    summary = fuse_predict(later, fused, out, since=str(days[0]))
    assert summary.days == tuple(days)
    assert folder_bytes(out) == folder_bytes(predictions)


def test_a_table_that_others_left_unfinished_is_told_by_a_day(later, fused, predictions, tmp_path, monkeypatch, capsys):
    """The day is written: what was interrupted is not its fault."""
    out, days = tmp_path / "table", [str(day) for day in days_of_examples(later, load_model(fused).config)]
    interrupt(monkeypatch, later, fused, out, until=days[2])
    words = ("fuse", "predict", later, "--model", fused, "--out", out, "--since", days[3], "--until", days[3])
    code, said, _ = run(capsys, *words)
    (line,) = (line for line in said.splitlines() if "can't be read yet" in line)
    model_id = load_model(fused).model_id
    assert line == (
        f"warning: {out} can't be read yet: predictions of model {model_id} for {days[0]} to {days[2]} is still "
        "running or was interrupted; run that again"
    )
    assert code == 0
    assert folder_bytes(out / f"ds={days[3]}") == folder_bytes(predictions / f"ds={days[3]}")
    assert not fuse_predict(later, fused, out, until=days[2]).warnings
    assert read_predictions(out).num_rows == len(later_rows()) - sum(
        str(local_day(row["listed"])) > days[3] for row in later_rows()
    )


def test_a_first_day_that_was_interrupted_leaves_no_table_to_read(later, fused, predictions, tmp_path, monkeypatch):
    def dying(*_):
        raise KeyboardInterrupt

    day = days_of_examples(later, load_model(fused).config)[0].isoformat()
    with monkeypatch.context() as patch:
        patch.setattr("infobehavior.fusion.fuse.write_day", dying)
        with pytest.raises(KeyboardInterrupt):
            fuse_predict(later, fused, tmp_path / "out", since=day, until=day)
    with pytest.raises(InputError, match=r"out has no day of predictions yet; run `infobehavior fuse predict` again"):
        read_predictions(tmp_path / "out")
    fuse_predict(later, fused, tmp_path / "out", since=day, until=day)
    assert folder_bytes(tmp_path / "out" / f"ds={day}") == folder_bytes(predictions / f"ds={day}")


def test_predictions_of_another_model_are_refused(later, listed, fused, predictions, seller_embeddings, tmp_path):
    fuse_train(listed, small_config(seller_embeddings, network={"seed": 1}), tmp_path / "other")
    before = folder_bytes(predictions)
    with pytest.raises(InputError, match=r"holds predictions with model_id .*: choose another --out"):
        fuse_predict(later, tmp_path / "other", predictions)
    assert folder_bytes(predictions) == before


def test_other_folders_are_refused(later, listed, fused, config_file, evaluation, seller_embeddings, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out, said in ((seller_embeddings, "holds embeddings"), (evaluation, "holds evaluation"), (tmp_path, "files")):
        before = folder_bytes(out)
        with pytest.raises(InputError, match=said):
            fuse_predict(later, fused, out)
        assert folder_bytes(out) == before
    with pytest.raises(InputError, match=r"holds embeddings, not an evaluation"):
        fuse_evaluate(later, fused, seller_embeddings)
    with pytest.raises(InputError, match=r"has files that aren't a fused classifier's \(no fusion\.json\)"):
        fuse_train(listed, config_file, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_table_may_be_replaced_by_one_of_the_same_model(later, fused, predictions, tmp_path):
    table = write_embeddings(tmp_path / "sellers", sellers=range(3))
    summary = fuse_predict(later, fused, tmp_path / "out", tables={"seller": table})
    num_with = sum(row["seller"] < 3 for row in later_rows())
    assert summary.counts["of them with a row of seller in time"] == num_with
    assert summary.groups["seller"].without == 120 - num_with
    assert f"{120 - num_with} without seller, which counts as masked" in summary.lines()
    same = (
        read_predictions(tmp_path / "out")["probability"].to_numpy()
        == read_predictions(predictions)["probability"].to_numpy()
    )
    assert same.any()
    assert not same.all()


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
def test_embeddings_of_another_model_are_refused(later, fused, tmp_path, command):
    table = write_embeddings(tmp_path / "sellers", model="f" * 16)
    said = f"group seller was trained on embeddings of model {MODEL}, but .*sellers has those of {'f' * 16}: "
    with pytest.raises(InputError, match=said + "`infobehavior align` them, or train again"):
        command(later, fused, tmp_path / "out", tables={"seller": table})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["listing", "sellers"])
def test_only_groups_that_are_joined_have_a_table(later, fused, tmp_path, name):
    with pytest.raises(InputError, match=f"no group {name} is joined from a table; those that are: seller"):
        fuse_predict(later, fused, tmp_path / "out", tables={name: tmp_path})


def odd_rows():
    """Examples of which some have no label, moment or entity, or are of another task."""
    rows = products()
    for place, changes in enumerate(
        [{"risky": None}] * 2
        + [{"listed": None}] * 3
        + [{"seller": None}] * 4
        + [{"task": "weapons"}] * 5
        + [{"task": None}]
    ):
        rows[place * 7] |= changes
    return rows


def test_what_is_left_out_is_counted(seller_embeddings, tmp_path):
    path = write_rows(odd_rows(), tmp_path / "odd.parquet")
    until = "2024-03-31"
    rows = [row for row in odd_rows() if row["task"] == "gambling"]
    outside = sum(row["listed"] is not None and str(local_day(row["listed"])) > until for row in rows)
    used = [
        row
        for row in rows
        if row["listed"] is not None and row["risky"] is not None and str(local_day(row["listed"])) <= until
    ]
    read = read_examples(path, small_config(seller_embeddings), labelled=True, period=Period(until=until))
    assert len(read) == len(used)
    with_row = sum(row["seller"] is not None and row["seller"] < 35 for row in used)
    expected = {
        "examples read": 160,
        "of another task (where)": 6,
        "whose moment is null": 3,
        "outside of the days asked for": outside,
        "without a label": sum(
            row["risky"] is None and row["listed"] is not None and str(local_day(row["listed"])) <= until
            for row in rows
        ),
        "whose entity is null": sum(row["seller"] is None for row in used),
        "of them with a row of seller in time": with_row,
        "examples used": len(used),
    }
    assert read.counts == {reason: count for reason, count in expected.items() if count}


def test_predictions_count_the_same_and_keep_those_without_an_entity(fused, tmp_path):
    path = write_rows(odd_rows(), tmp_path / "odd.parquet")
    summary = fuse_predict(path, fused, tmp_path / "out")
    rows = [row for row in odd_rows() if row["task"] == "gambling"]
    assert summary.counts["whose moment is null"] == 3
    assert summary.counts["of another task (where)"] == 6
    assert summary.counts["whose entity is null"] == sum(row["seller"] is None for row in rows) == 4
    assert summary.counts["examples used"] == summary.num_examples == len(rows) - 3
    assert "outside of the days asked for" not in summary.counts
    found = read_predictions(tmp_path / "out")
    assert found["entity_id"].null_count == 4
    assert found["probability"].null_count == 0


def test_csv_and_parquet_give_the_same_probabilities(fused, predictions, tmp_path):
    """Vectors aren't in a CSV: this group is missing in both."""
    rows = table_of(later_rows()).drop_columns(["picture"])
    for name in ("csv", "parquet"):
        path = tmp_path / f"rows.{name}"
        with_pictures = rows.append_column(
            "picture", pa.nulls(len(rows), pa.string() if name == "csv" else pa.list_(pa.float32()))
        )
        (pa.csv.write_csv if name == "csv" else pq.write_table)(with_pictures, path)
        fuse_predict(path, fused, tmp_path / name)
    one, other = (
        {int(row["product"]): row["probability"] for row in read_predictions(tmp_path / name).to_pylist()}
        for name in ("csv", "parquet")
    )
    assert one == other


def test_the_moments_of_a_csv_are_local(seller_embeddings, tmp_path):
    """The first instant of 31 March in Berlin is still 30 March in UTC."""
    path = tmp_path / "rows.csv"
    path.write_text(
        "seller,listed,task,price\n1,2024-03-31 00:00:00,gambling,1\n2,2024-03-30 23:59:59.999999,gambling,2\n"
    )
    groups = {"listing": {"kind": "numbers", "columns": ["price"]}}
    config = small_config(seller_embeddings, groups=groups)
    config = config.model_copy(update={"examples": config.examples.model_copy(update={"id": ()})})
    read = read_examples(path, config, labelled=False, period=Period(since="2024-03-31"))
    assert read.keys.moment.tolist() == [int(datetime(2024, 3, 30, 23, tzinfo=UTC).timestamp()) * 10**6]
    assert read.counts["outside of the days asked for"] == 1


@pytest.mark.parametrize("by", ["entity", "moment"])
def test_validation_has_whole_entities_or_the_last_examples(listed, seller_embeddings, by):
    config = small_config(seller_embeddings, validation={"by": by, "share": 0.25})
    read = read_examples(listed, config, labelled=True)
    parts = split(read, config.validation, 0)
    assert (parts.training != parts.validation).all()
    if by == "moment":
        assert read.keys.moment[parts.training].max() < read.keys.moment[parts.validation].min()
        assert parts.validation.sum() == 40
        return
    entity = np.array(read.keys.entity.to_pylist())
    training, validation = set(entity[parts.training]), set(entity[parts.validation])
    assert not training & validation
    risky = {name for name, positive in zip(entity.tolist(), read.positive.tolist(), strict=True) if positive}
    num_fine = len(set(entity)) - len(risky)
    assert len(validation & risky) == round(0.25 * len(risky))
    assert len(validation - risky) == round(0.25 * num_fine)
    assert (split(read, config.validation, 1).validation != parts.validation).any()


@pytest.fixture(scope="module")
def validation_scores(listed, fused):
    """Of both classifiers on the validation part, by plain filters; the answers, and the accounts."""
    model = load_model(fused)
    read = read_examples(listed, model.config, labelled=True)
    rows = split(read, model.config.validation, 0).validation
    arrays = model.classifier.arrays({name: table.filter(pa.array(rows)) for name, table in read.tables.items()})
    scores = {
        "fusion": model.classifier.probability_of(arrays),
        "gbdt": model.classifier.gbdt_.probability(arrays),
    }
    return scores, read.positive[rows], entity_numbers(read)[rows]


@pytest.mark.parametrize("name", ["fusion", "gbdt"])
def test_the_threshold_is_that_of_the_validation_part(name, fused, validation_scores):
    model, (scores, positive, entity) = load_model(fused), validation_scores
    point = choose_threshold(positive, scores[name], model.config.operating_point, entity)
    assert point == model.points[name]
    assert (scores[name] >= point.threshold).any()
    assert point.rule == "the highest recall with a precision of 0.5 or more with certainty 0.8"


@pytest.mark.parametrize("name", ["fusion", "gbdt"])
def test_nothing_is_chosen_by_the_examples_that_are_evaluated(name, later, fused, validation_scores, metrics):
    model, (scores, positive, _) = load_model(fused), validation_scores
    threshold = best_f1_threshold(positive, scores[name])
    assert model.f1_thresholds[name] == threshold
    read = read_examples(later, model.config, labelled=True)
    told = probabilities(model.classifier, model.classifier.arrays(read.tables))[name]
    flagged = told >= threshold
    right = (flagged & read.positive).sum()
    [row] = [row for row in metrics["rows"] if row["classifier"] == name]
    assert row["best_f1"] == pytest.approx(2 * right / (flagged.sum() + read.positive.sum()))
    assert row["threshold"] == model.points[name].threshold


def test_metrics_are_of_the_network_and_of_lightgbm(metrics, fused):
    assert [row["classifier"] for row in metrics["rows"]] == ["fusion", "gbdt"]
    model = load_model(fused)
    for row in metrics["rows"]:
        assert row["threshold"] == model.points[row["classifier"]].threshold
        assert row["num_positives"] == sum(example["risky"] for example in later_rows())
        assert row["num_entities"] == len({example["seller"] for example in later_rows()})
        for name in ("precision", "recall", "f1", "cost", "recall_at_precision_50"):
            low, high = row[f"{name}_interval"]
            assert low <= high
        assert sum(one["count"] for one in row["reliability"]) == 120
    assert set(metrics["without"]) == {"seller", "picture", "listing", "look", "title"}


def test_an_evaluation_beside_a_simulated_market_says_so(later, fused, tmp_path):
    market = tmp_path / "market"
    market.mkdir()
    (market / MARKET_FILE).write_text("{}")
    examples = shutil.copy(later, market)
    assert fuse_evaluate(examples, fused, tmp_path / "report").lines()[0] == "the data are simulated"
    assert "The data are simulated." in (tmp_path / "report" / "report.html").read_text()


def test_examples_of_the_training_are_counted(listed, fused, evaluation, tmp_path):
    summary = fuse_evaluate(listed, fused, tmp_path / "report")
    seen = "of them seen in training, which flatters the classifier"
    assert summary.definition["counts"][seen] == 160
    accounts = "of accounts that were trained on"
    assert summary.definition["counts"][accounts] == 160
    later = json.loads((evaluation / "_definition.json").read_text())["counts"]
    assert 0 < later[accounts] <= 120
    assert seen not in json.loads((evaluation / "_definition.json").read_text())["counts"]


def test_examples_of_the_training_are_known_again_in_a_file_of_other_types(listed, fused, tmp_path):
    model = load_model(fused)
    read = read_examples(listed, model.config, labelled=True)
    numbers = {name: pa.chunked_array([pa.array(range(len(read)))]) for name in read.ids.column_names}
    texts = {name: column.cast(pa.string()) for name, column in numbers.items()}
    one, other = (example_numbers(replace(read, ids=pa.table(ids))) for ids in (numbers, texts))
    assert one.tolist() == other.tolist()
    assert len(set(one.tolist())) == len(read)


def test_a_day_is_written_whatever_became_of_other_days(later, fused, predictions, tmp_path):
    """A day's file is the old one or the new one; the mark of an interrupted run of many days stays."""
    days = sorted(path.name.removeprefix("ds=") for path in predictions.glob("ds=*"))
    out = tmp_path / "table"
    fuse_predict(later, fused, out, since=days[0], until=days[0])
    write_json(out / UNFINISHED_FILE, {"what": "predictions of other days"})
    fuse_predict(later, fused, out, since=days[1], until=days[1])
    assert (out / UNFINISHED_FILE).exists()
    for day in days[:2]:
        assert folder_bytes(out / f"ds={day}") == folder_bytes(predictions / f"ds={day}")


def test_other_classes_than_those_of_the_training_are_refused(fused, tmp_path):
    rows = table_of(later_rows())
    names = pa.array(["risky" if answer else "fine" for answer in rows["risky"].to_pylist()])
    pq.write_table(rows.drop_columns(["risky"]).append_column("risky", names), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="has the classes fine and risky, but the model was trained for 0 and 1"):
        fuse_evaluate(tmp_path / "rows.parquet", fused, tmp_path / "report")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_days_with_one_class_can_not_be_evaluated(fused, tmp_path, ending):
    day = "2024-03-30"
    rows = [row for row in later_rows() if not (row["risky"] and str(local_day(row["listed"])) == day)]
    table = table_of(rows)
    if ending == "csv":
        table = table.drop_columns(["picture"]).append_column("picture", pa.nulls(len(table), pa.string()))
    path = tmp_path / f"rows.{ending}"
    (pa.csv.write_csv if ending == "csv" else pq.write_table)(table, path)
    with pytest.raises(InputError, match=r"rows\.\w+(, column 'risky')? has one class: all "):
        fuse_evaluate(path, fused, tmp_path / "report", since=day, until=day)
    assert not (tmp_path / "report").exists()


def with_labels(rows, negative, positive):
    """Examples whose answers are other words."""
    answers = pa.array([positive if answer else negative for answer in rows["risky"].to_pylist()])
    return rows.drop_columns(["risky"]).append_column("risky", answers)


def with_positive(embeddings, positive):
    config = config_content(embeddings)
    return checked_config(config | {"examples": config["examples"] | {"positive": positive}}, "fusion.toml")


def test_the_positive_class_of_texts_has_to_be_named(listed, seller_embeddings, tmp_path):
    """It isn't the alphabetically last."""
    path = tmp_path / "rows.parquet"
    pq.write_table(with_labels(pq.read_table(listed), "legit", "fraud"), path)
    num = sum(row["risky"] for row in products())
    classes = rf"column 'risky' has the classes 'fraud' \({num} rows\) and 'legit' \({160 - num}\)"
    with pytest.raises(InputError, match=f"{classes}: set examples.positive to the one to find"):
        fuse_train(path, small_config(seller_embeddings), tmp_path / "model")
    with pytest.raises(InputError, match=f"{classes}, but examples.positive is 'Fraud'; set it to one of them"):
        fuse_train(path, with_positive(seller_embeddings, "Fraud"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_named_class_is_the_one_that_is_found(listed, later, fused, metrics, seller_embeddings, tmp_path):
    """As 1 is, to the last digit."""
    for path in (listed, later):
        target = tmp_path / path.parent.name.rstrip("0123456789") / "rows.parquet"
        target.parent.mkdir()
        pq.write_table(with_labels(pq.read_table(path), "legit", "fraud"), target)
    trained = fuse_train(
        tmp_path / "listed" / "rows.parquet", with_positive(seller_embeddings, "fraud"), tmp_path / "model"
    )
    num = sum(row["risky"] for row in products())
    assert f"positive: risky = fraud, {num} of 160" in trained.lines()
    assert trained.model.points == load_model(fused).points
    predicted = fuse_predict(later, tmp_path / "model", tmp_path / "predictions")
    assert f"positive: risky = fraud, {num} of 160 in training" in predicted.lines()
    found = fuse_evaluate(tmp_path / "later" / "rows.parquet", tmp_path / "model", tmp_path / "report")
    assert f"positive: risky = fraud, {sum(row['risky'] for row in later_rows())} of 120" in found.lines()
    assert found.rows == metrics["rows"]


@pytest.mark.parametrize(
    ("classes", "given", "names"),
    [
        ((0, 1), None, ("0", "1")),
        ((0.0, 1.0), None, ("0", "1")),
        ((False, True), None, ("0", "1")),
        (("false", "true"), None, ("0", "1")),
        (("0", "1"), 0, ("1", "0")),
        (("False", "True"), "false", ("1", "0")),
        (("a", "b"), "a", ("b", "a")),
    ],
)
def test_one_is_positive_unless_another_class_is_named(listed, seller_embeddings, tmp_path, classes, given, names):
    pq.write_table(with_labels(pq.read_table(listed), *classes), tmp_path / "rows.parquet")
    config = with_positive(seller_embeddings, given) if given is not None else small_config(seller_embeddings)
    read = read_examples(tmp_path / "rows.parquet", config, labelled=True)
    assert read.classes == names
    num = sum(row["risky"] for row in products())
    assert int(read.positive.sum()) == (num if given is None else 160 - num)


def page_of(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_nothing_of_the_report_is_loaded_from_elsewhere(evaluation):
    page = page_of(evaluation)
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "data"} & set(attributes)
    assert len(re.findall(r"plotly\.js v\d", (evaluation / "report.html").read_text(encoding="utf-8"))) == 1
    assert {path.name for path in evaluation.iterdir()} == {"metrics.json", "report.html", "_definition.json"}


def test_the_report_has_its_tables_charts_and_legends(evaluation, metrics, fused):
    page = page_of(evaluation)
    assert ("html", {"lang": "en"}) in page.tags
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)] == ["h1", *["h2"] * 5]
    assert [tag for tag, _ in page.tags].count("table") == 4
    charts = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(charts) == 2
    assert all(len(attributes["aria-label"]) > 40 for attributes in charts)
    assert sum(attributes.get("class") == "legend" for _, attributes in page.tags) == 2
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    row = metrics["rows"][0]
    for words in (
        "How well is risky found?",
        "120 examples of",
        load_model(fused).model_id,
        *(f"Fusion network, without {name}" for name in metrics["without"]),
        f"{row['auc']:.3f}",
        f"{row['precision_interval'][0]:.3f} to {row['precision_interval'][1]:.3f}",
        "Recall at 50 % precision",
        "Cost an example",
        "seller (representation, 0.1)",
        "Rule: the highest recall with a precision of 0.5 or more with certainty 0.8.",
    ):
        assert words in page.text, words


def test_names_with_markup_stay_text(listed, seller_embeddings, tmp_path):
    label = "<script>alert(1)</script>"
    rows = table_of(products())
    names = pa.array(["<b>" if answer else "'\"&" for answer in rows["risky"].to_pylist()])
    pq.write_table(rows.append_column(label, names), tmp_path / "rows.parquet")
    config = small_config(seller_embeddings)
    changes = {"label": label, "positive": "<b>"}
    config = config.model_copy(update={"examples": config.examples.model_copy(update=changes)})
    fuse_train(tmp_path / "rows.parquet", config, tmp_path / "model")
    fuse_evaluate(tmp_path / "rows.parquet", tmp_path / "model", tmp_path / "report")
    page = page_of(tmp_path / "report")
    assert f"How well is {label} found?" in page.text
    assert "b" not in [tag for tag, _ in page.tags]


def run(capsys, *words):
    """Run a command line; give its exit code and what it prints."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_the_command_line_does_the_same(
    listed, later, config_file, fused, predictions, evaluation, seller_embeddings, tmp_path, capsys
):
    model, table, report = (tmp_path / name for name in ("model", "table", "report"))
    code, said, _ = run(capsys, "fuse", "train", listed, "--config", config_file, "--out", model)
    assert code == 0
    assert "160 examples used" in said
    assert "fusion network: threshold " in said
    assert folder_bytes(model) == folder_bytes(fused)
    override = f"seller={seller_embeddings}"
    code, said, _ = run(capsys, "fuse", "predict", later, "--model", model, "--out", table, "--table", override)
    assert code == 0
    assert "120 predictions" in said
    assert folder_bytes(table) == folder_bytes(predictions)
    code, said, _ = run(capsys, "fuse", "evaluate", later, "--model", model, "--out", report, "--table", override)
    assert code == 0
    assert "recall at precision 50 %" in said
    assert "without seller: auc " in said
    assert folder_bytes(report) == folder_bytes(evaluation)


def test_a_precision_that_is_not_reached_exits_with_3_and_all_is_written(
    listed, later, seller_embeddings, tmp_path, capsys
):
    content = config_content(seller_embeddings, operating_point={"precision": 0.99, "certainty": 0.999999})
    (tmp_path / "fusion.toml").write_text(tomli_w.dumps(content))
    words = ("fuse", "train", listed, "--config", tmp_path / "fusion.toml", "--out", tmp_path / "model")
    code, said, line = run(capsys, *words)
    assert code == 3
    assert "160 examples used" in said
    last = line.splitlines()[-1]
    assert last.startswith("a precision of 0.99 can't be reached on the validation part")
    assert last.endswith("the model is written nevertheless")
    model = load_model(tmp_path / "model")
    assert not model.points["fusion"].is_met
    code, said, line = run(capsys, "fuse", "predict", later, "--model", tmp_path / "model", "--out", tmp_path / "table")
    assert code == 3
    assert "120 predictions, 0 flagged" in said
    assert "fusion network: a precision of 0.99 can't be reached on the validation part" in said
    assert line.splitlines()[-1].endswith("the predictions are written nevertheless")
    assert not any(read_predictions(tmp_path / "table")["is_flagged"].to_pylist())
    assert json.loads((tmp_path / "table" / "_definition.json").read_text())["is_met"] is False
    found = fuse_evaluate(later, tmp_path / "model", tmp_path / "report")
    assert not any(row["is_met"] or row["num_flagged"] for row in found.rows)
    assert "not reached in training, so nothing is flagged" in page_of(tmp_path / "report").text


def test_where_nothing_is_flagged_no_precision_is_told(later, fused, tmp_path, monkeypatch):
    model = load_model(fused)
    never = OperatingPoint(0.999999, "a rule", True, "")
    model = dataclasses.replace(model, points=dict.fromkeys(model.points, never))
    monkeypatch.setattr("infobehavior.fusion.evaluation.open_model", lambda *_: (model, model.config, []))
    lines = "\n".join(fuse_evaluate(later, fused, tmp_path / "report").lines())
    assert "fusion network, threshold 0.999999: 0 flagged, precision –, recall 0.000 (0.000 to " in lines
    row = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))["rows"][0]
    assert (row["precision"], row["precision_interval"], row["recall"]) == (None, None, 0.0)
    assert "Fusion network flags nothing at its threshold of 1." in page_of(tmp_path / "report").text
    assert (tmp_path / "report" / "report.html").read_text(encoding="utf-8").count("<td>–</td>") == 2


def without_label(rows):
    return table_of(rows).drop_columns(["risky"])


def fails(capsys, *words):
    code, said, line = run(capsys, *words)
    assert (code, said) == (2, "")
    assert line.startswith("infobehavior: error: ")
    assert line.count("\n") == 1
    return line


BAD_EXAMPLES = {
    "no label": (without_label(products()), "rows.parquet has no column 'risky'; it has product"),
    "one class": (
        table_of([row | {"risky": 0} for row in products()]),
        "rows.parquet, column 'risky' has one class: all labels are 0",
    ),
    "no class": (table_of([row | {"risky": None} for row in products()]), "column 'risky' has no label: all 160 rows"),
    "three classes": (
        table_of([row | {"risky": row["product"] % 3} for row in products()]),
        "column 'risky' has the numbers|column 'risky' has 3 classes (0, 1, 2); expected two",
    ),
    "another task": (
        table_of([row | {"task": "weapons"} for row in products()]),
        "rows.parquet has no example that can be used: 160 examples read, 160 of another task (where)",
    ),
    "no moment": (
        table_of([row | {"listed": None} for row in products()]),
        "rows.parquet has no example that can be used: 160 examples read, 160 whose moment is null",
    ),
    "moments": (
        table_of(products()).set_column(2, "listed", pa.array(["soon"] * 160)),
        "rows.parquet, listed: ",
    ),
    "numbers": (
        table_of(products()).set_column(5, "price", pa.array(["cheap"] * 80 + ["1"] * 80)),
        "rows.parquet: group listing, column 'price' has ",
    ),
    "few positives": (
        table_of([row | {"risky": int(row["product"] == 0)} for row in products()]),
        "rows.parquet: all positive examples (1) are of one account",
    ),
    "nothing": (table_of([]), "rows.parquet has no rows"),
}


@pytest.mark.parametrize("what", BAD_EXAMPLES)
def test_bad_examples_end_in_one_line(what, config_file, tmp_path, capsys):
    table, said = BAD_EXAMPLES[what]
    pq.write_table(table, tmp_path / "rows.parquet")
    words = ("fuse", "train", tmp_path / "rows.parquet", "--config", config_file, "--out", tmp_path / "model")
    line = fails(capsys, *words)
    assert any(part in line for part in said.split("|"))
    assert not (tmp_path / "model").exists()


def test_malformed_rows_of_a_csv_are_told(config_file, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("product,seller,listed,risky\n1,2,2024-01-01,0\n1,2\n")
    line = fails(capsys, "fuse", "train", tmp_path / "rows.csv", "--config", config_file, "--out", tmp_path / "model")
    assert "rows.csv" in line
    assert "mend this row (1 can't be read)" in line


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
@pytest.mark.parametrize(
    ("days", "said"),
    [
        (("--since", "yesterday"), "'yesterday' is not a date; expected YYYY-MM-DD"),
        (("--until", "2024-9-30"), "'2024-9-30' is not a date; expected YYYY-MM-DD"),
        (("--since", "2030-01-01"), "no example"),
        (("--since", "2024-03-31", "--until", "2024-03-30"), "since 2024-03-31 is after until 2024-03-30"),
    ],
)
def test_bad_days(command, days, said, listed, config_file, fused, tmp_path, capsys):
    how = ("--config", config_file) if command == "train" else ("--model", fused)
    line = fails(capsys, "fuse", command, listed, *how, "--out", tmp_path / "out", *days)
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict", "{listed}", "--model", "{no}", "--out", "{out}"), "is not a fused classifier"),
        (("predict", "{no}", "--model", "{fused}", "--out", "{out}"), "there are no examples at "),
        (("evaluate", "{no}", "--model", "{fused}", "--out", "{out}"), "there are no examples at "),
        (("train", "{no}", "--config", "{config}", "--out", "{out}"), "there are no examples at "),
        (("train", "{listed}", "--config", "{no}", "--out", "{out}"), "there is no file "),
        (("predict", "{listed}", "--model", "{fused}", "--out", "{out}", "--table", "seller"), "expected GROUP=TABLE"),
        (
            ("predict", "{listed}", "--model", "{fused}", "--out", "{out}", "--table", "seller={no}"),
            "there is no table",
        ),
        (("predict", "{listed}", "--model", "{fused}", "--out", "{listed}"), "is a file"),
        (("train", "{listed}", "--config", "{config}", "--out", "{listed}"), "is a file"),
        (("evaluate", "{listed}", "--model", "{fused}", "--out", "{listed}"), "is a file"),
    ],
)
def test_bad_input_ends_in_one_line(words, said, listed, config_file, fused, tmp_path, capsys):
    places = {"listed": listed, "config": config_file, "fused": fused, "out": tmp_path / "out", "no": tmp_path / "no"}
    assert said in fails(capsys, "fuse", *(word.format(**places) for word in words))
    assert list(tmp_path.iterdir()) == []


TOO_LONG = ["a" * 300, "/".join(["b" * 100] * 60)]


@pytest.mark.parametrize("name", TOO_LONG)
@pytest.mark.parametrize("command", [fuse_train, fuse_predict, fuse_evaluate])
@pytest.mark.parametrize("place", ["examples", "how", "out", "table"])
def test_paths_that_are_too_long(command, place, name, listed, config_file, fused, tmp_path):
    paths = {"examples": listed, "how": config_file if command is fuse_train else fused, "out": tmp_path / "out"}
    tables = {}
    if place != "table":
        paths[place] = tmp_path / name
    elif command is fuse_train:
        paths["how"] = tmp_path / "fusion.toml"
        paths["how"].write_text(tomli_w.dumps(config_content(tmp_path / name)))
    else:
        tables = {"tables": {"seller": tmp_path / name}}
    with pytest.raises(InputError, match=f"{name}.*: File name too long; give a") as raised:
        command(*paths.values(), **tables)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", TOO_LONG)
def test_paths_that_are_too_long_end_in_one_line(name, config_file, tmp_path, capsys):
    words = ("fuse", "train", tmp_path / name, "--config", config_file, "--out", tmp_path / "out")
    assert fails(capsys, *words).endswith("File name too long; give a shorter path\n")


def test_columns_that_predictions_need(later, fused, tmp_path):
    table = table_of(later_rows()).drop_columns(["risky"])
    pq.write_table(table, tmp_path / "rows.parquet")
    fuse_predict(tmp_path / "rows.parquet", fused, tmp_path / "out")
    pq.write_table(table.drop_columns(["price"]), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet has no column 'price'; it has product"):
        fuse_predict(tmp_path / "rows.parquet", fused, tmp_path / "other")


def test_the_days_are_those_of_the_examples(listed, seller_embeddings):
    read = read_examples(listed, small_config(seller_embeddings), labelled=True)
    assert (np.diff(read.keys.moment) >= 0).all()
    assert read.keys.moment[0] >= START.timestamp() * 10**6


def test_entities_that_are_in_no_table_are_told(listed, seller_embeddings, tmp_path):
    """Of whole numbers with nulls, pandas makes fractions."""
    rows = pq.read_table(listed)
    path = tmp_path / "rows.parquet"
    start = f"rows.parquet: group seller: no row of {seller_embeddings} is joined to any of 160 examples: "
    sellers = rows["seller"].to_pylist()
    first = min(f"{seller}.0" for seller in sellers if seller < 35)
    for names, said in (
        (
            [f"{seller}.0" for seller in sellers],
            f"no entity is in both; the examples have some such as '{first}', the table such as '{first[:-2]}' "
            "(one number, written in two ways: write both as whole numbers)",
        ),
        (["a"] * 160, "no entity is in both; the examples have some such as 'a', the table such as '0'"),
        ([None] * 160, "all of them are without an entity"),
    ):
        pq.write_table(rows.set_column(1, "seller", pa.array(names, pa.string())), path)
        with pytest.raises(InputError) as raised:
            fuse_train(path, small_config(seller_embeddings), tmp_path / "model")
        assert str(raised.value).endswith(start + said)
    pq.write_table(rows.set_column(2, "listed", pa.array([START - timedelta(days=9)] * 160, TYPES.field(2).type)), path)
    with pytest.raises(InputError, match=r"entities such as '0' are in both, but its rows, of 2024-03-27 .* are later"):
        fuse_train(path, small_config(seller_embeddings), tmp_path / "model")


def test_predictions_without_any_moment_are_refused(fused, tmp_path):
    path = write_rows([row | {"listed": None} for row in later_rows()], tmp_path / "rows.parquet")
    said = "rows.parquet has no example with a moment in column 'listed': 120 examples read, 120 whose moment is null"
    with pytest.raises(InputError, match=said):
        fuse_predict(path, fused, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_examples_of_one_id_are_refused(command, config_file, fused, tmp_path, capsys):
    """Also where they are of different days; those that aren't used may repeat."""
    rows = products()
    path = write_rows([*rows, rows[7], rows[9], rows[9] | {"listed": START}], tmp_path / "rows.parquet")
    how = ("--config", config_file) if command == "train" else ("--model", fused)
    line = fails(capsys, "fuse", command, path, *how, "--out", tmp_path / "out")
    said = (
        r"rows\.parquet has 5 of 163 examples whose id \(product\) another one has too, such as product (7|9); keep one"
    )
    assert re.search(said, line)
    assert not (tmp_path / "out").exists()
    write_rows([*rows, rows[7] | {"task": "weapons"}, rows[9] | {"listed": None}], path)
    assert run(capsys, "fuse", command, path, *how, "--out", tmp_path / "out")[0] == 0


def test_an_id_of_a_day_that_is_not_asked_for_may_repeat(later, fused, tmp_path):
    rows = later_rows()
    path = write_rows([*rows, rows[0] | {"listed": START + timedelta(days=20)}], tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=rf"such as product {rows[0]['product']}; keep one of each"):
        fuse_predict(path, fused, tmp_path / "out")
    assert fuse_predict(path, fused, tmp_path / "out", until="2024-04-10").num_examples == 120


def with_moments(moments, embeddings, folder, time_zone=None):
    """Examples of a CSV, and a configuration for them."""
    path = folder / "rows.csv"
    lines = [f"{place},{moment},gambling,1" for place, moment in enumerate(moments)]
    path.write_text("\n".join(["seller,listed,task,price", *lines, ""]))
    config = small_config(embeddings, groups={"listing": {"kind": "numbers", "columns": ["price"]}})
    changes = {"id": (), "time_zone": time_zone}
    return path, config.model_copy(update={"examples": config.examples.model_copy(update=changes)})


ZONED = ["2024-04-23 07:28:35Z", "2024-04-23T09:28:35+02:00", "2024-04-23 09:28:35.0+0200", "20240423T072835z", ""]


def test_moments_of_a_csv_may_have_their_zones(seller_embeddings, tmp_path):
    read = read_examples(*with_moments(ZONED, seller_embeddings, tmp_path), labelled=False)
    assert read.keys.moment.tolist() == [int(datetime(2024, 4, 23, 7, 28, 35, tzinfo=UTC).timestamp()) * 10**6] * 4


@pytest.mark.parametrize("moment", ["2024-04-23", "2024-04-23 07:28:35", "2024-04-23T07:28", "2024-04-23 07"])
def test_moments_without_a_zone_need_one(seller_embeddings, tmp_path, moment):
    path, config = with_moments([*ZONED, moment], seller_embeddings, tmp_path)
    said = (
        rf"rows\.csv.*: listed has 1 of 6 times without a time zone, such as '{moment}'; give time_zone in \[examples"
    )
    with pytest.raises(InputError, match=said):
        read_examples(path, config, labelled=False)
    assert len(read_examples(*with_moments([moment], seller_embeddings, tmp_path, "UTC"), labelled=False)) == 1


@pytest.mark.parametrize(("values", "what"), [(range(160), "an integer"), ([True, False] * 80, "a boolean")])
def test_what_is_no_moment_is_not_asked_for_its_zone(seller_embeddings, tmp_path, values, what):
    pq.write_table(table_of(products()).set_column(2, "listed", pa.array(values)), tmp_path / "rows.parquet")
    _, config = with_moments([], seller_embeddings, tmp_path)
    said = rf"rows\.parquet, listed: as_of can't be read as a moment: expected a date, a time or text, got {what}"
    with pytest.raises(InputError, match=said):
        read_examples(tmp_path / "rows.parquet", config, labelled=False)
    with pytest.raises(InputError, match=said):
        days_of_examples(tmp_path / "rows.parquet", config)


def without_column(path, column, target):
    pq.write_table(pq.read_table(path).drop_columns([column]), target)
    return target


def test_groups_that_are_not_there_are_masked_and_counted(later, fused, tmp_path):
    untitled = without_column(later, "title", tmp_path / "untitled.parquet")
    absent = fuse_predict(untitled, fused, tmp_path / "absent")
    masked = fuse_predict(later, fused, tmp_path / "masked", without=["title"])
    assert folder_bytes(tmp_path / "absent") == folder_bytes(tmp_path / "masked")
    assert absent.lines()[:-1] == masked.lines()[:-1]
    assert f"{absent.num_examples} without title, which counts as masked" in absent.lines()
    whole = fuse_predict(later, fused, tmp_path / "whole")
    assert whole.num_examples == absent.num_examples
    assert folder_bytes(tmp_path / "whole") != folder_bytes(tmp_path / "absent")


def test_an_evaluation_without_a_group_is_that_of_masking_it(later, fused, evaluation, tmp_path):
    untitled = without_column(later, "title", tmp_path / "untitled.parquet")
    found = fuse_evaluate(untitled, fused, tmp_path / "evaluation")
    known = json.loads((evaluation / "metrics.json").read_text())["without"]["title"]
    assert found.rows[0]["auc"] == known["auc"]
    assert set(found.without) == set(load_model(fused).config.groups) - {"title"}
    assert any(line.endswith("120 without title, which counts as masked") for line in found.lines())


def test_what_is_missing_in_the_training_is_counted_and_kept(listed, fused, config_file, tmp_path):
    rows = products()
    lines = fuse_train(listed, config_file, tmp_path / "model").lines()
    num_without = sum(row["color"] is None for row in rows)
    assert f"{num_without} without look, which counts as masked" in lines
    assert load_model(fused).trained_groups["look"].without == num_without
    assert not any(line.startswith("warning") for line in lines)


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
def test_a_group_that_is_missing_more_often_than_in_the_training_is_told(later, fused, tmp_path, command):
    rows = later_rows()
    for place, row in enumerate(rows):
        row |= {"title": None if place < 60 else row["title"], "color": "lilac", "price": math.inf, "views": None}
    summary = command(write_rows(rows, tmp_path / "rows.parquet"), fused, tmp_path / "out")
    lines = summary.lines()
    assert "60 without title, which counts as masked" in lines
    assert "120 values of look that training doesn't know" in lines
    assert "120 values of listing that are infinite or NaN, which count as missing" in lines
    told = {line.split()[1] for line in lines if line.startswith("warning: ")}
    assert told == {"title", "listing", "look"}
    assert not any(line.startswith("warning") for line in command(later, fused, tmp_path / "usual").lines())
    if command is fuse_evaluate:
        assert "warning: title is missing in 50.0 % of the examples" in page_of(tmp_path / "out").text


def test_without_a_group_the_threshold_is_worth_something_else(later, fused, evaluation, metrics, tmp_path):
    """As it is when the group is missing."""
    summary = fuse_evaluate(later, fused, tmp_path / "report", without=["title"])
    for name in ("precision", "recall"):
        assert metrics["without"]["title"][name] == summary.rows[0][name]
    lines = fuse_evaluate(later, fused, tmp_path / "again").lines()
    (line,) = (line for line in lines if line.startswith("without title: "))
    assert f"at the threshold precision {summary.rows[0]['precision']:.3f}, recall " in line


def plain_ages(rows):
    """In days: of sellers that have embeddings, those of the last midnight before a product, up to that of 1 April."""
    last = START.replace(hour=0) + timedelta(days=3)
    ages = [
        (row["listed"] - min(row["listed"].replace(hour=0, minute=0, second=0, microsecond=0), last))
        / timedelta(days=1)
        for row in rows
        if row["seller"] < 35
    ]
    return f"{np.median(ages):.1f} days old (median), {max(ages):.1f} at most"


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
def test_the_age_of_what_is_joined_is_told_beside_that_of_the_training(listed, later, fused, tmp_path, command):
    in_training = load_model(fused).report["ages"]["seller"]
    known = f"{in_training['median']:.1f} days old (median), {in_training['largest']:.1f} at most"
    assert known == plain_ages(products())
    rows = [row | {"listed": row["listed"] + timedelta(days=30)} for row in later_rows()]
    lines = command(write_rows(rows, tmp_path / "rows.parquet"), fused, tmp_path / "out").lines()
    expected = f"rows of seller are {plain_ages(rows)}; in the training "
    assert [line for line in lines if line.startswith("rows of ")] == [line for line in lines if expected in line]
    assert any(expected in line for line in lines)


def test_a_table_that_is_not_there_tonight(later, fused, tmp_path, capsys):
    gone = (
        "fuse",
        "predict",
        later,
        "--model",
        fused,
        "--out",
        tmp_path / "out",
        "--table",
        f"seller={tmp_path / 'gone'}",
    )
    expected = (
        f"there is no table {tmp_path / 'gone'} for group seller; --table seller=PATH names another, and --without "
        "seller goes on without\n"
    )
    assert expected in fails(capsys, *(str(word) for word in gone))
    code, said, _ = run(capsys, *gone, "--without", "seller")
    assert code == 0
    assert "without seller, which counts as masked" in said


def test_paths_of_tables_are_relative_to_the_working_directory(
    listed, later, seller_embeddings, tmp_path, monkeypatch, capsys
):
    """Also those that a model keeps: who predicts elsewhere is told."""
    (tmp_path / "fusion.toml").write_text(tomli_w.dumps(config_content(seller_embeddings.name)))
    monkeypatch.chdir(seller_embeddings.parent)
    fuse_train(listed, tmp_path / "fusion.toml", tmp_path / "model")
    fuse_predict(later, tmp_path / "model", tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    missing = f"there is no table {seller_embeddings.name} for group seller in {tmp_path}, the working directory"
    words = (later, "--model", tmp_path / "model", "--out", tmp_path / "there")
    assert f"{missing}; --table seller=PATH names another" in fails(capsys, "fuse", "predict", *words)
    line = fails(capsys, "fuse", "train", listed, "--config", tmp_path / "fusion.toml", "--out", tmp_path / "other")
    assert line.endswith(f"{missing}\n")
    fuse_predict(later, tmp_path / "model", tmp_path / "there", tables={"seller": seller_embeddings})
    assert folder_bytes(tmp_path / "there") == folder_bytes(tmp_path / "here")


def totals_of_days(path, kind, late=timedelta(0)):
    """A row of each seller a day, in Parquet or CSV; `late` after midnight are all rows of the last day."""
    days = [(START + timedelta(days=day)).replace(hour=0, tzinfo=None) for day in range(-1, 4)]
    rows = [(seller, day + late * (day == days[-1]), seller % 7) for seller in range(40) for day in days]
    columns = dict(zip(("entity_id", "as_of", "total"), map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns | {"as_of": pa.array(columns["as_of"], pa.timestamp("us")).cast(kind)})
    (pq.write_table if path.suffix == ".parquet" else pa.csv.write_csv)(table, path)
    return path


def told_of_dates(summary):
    return [line for line in summary.lines() if "are dates" in line]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("hours", [0, 24])
def test_days_of_a_joined_table_are_told_to_be_their_beginnings(
    listed, later, seller_embeddings, tmp_path, ending, hours
):
    """By all commands, since those after the training may have another table."""
    table = totals_of_days(tmp_path / f"totals.{ending}", pa.date32())
    groups = {"totals": {"kind": "numbers", "table": str(table), "min_age_hours": hours}}
    trained = fuse_train(listed, small_config(seller_embeddings, groups=groups), tmp_path / "model")
    expected = f"as_of of totals are dates: each counts as the beginning of that day in {TIME_ZONE}"
    advice = "; if rows hold what came later on that day, set min_age_hours = 24"
    assert told_of_dates(trained) == [expected if hours else expected + advice]
    for command in (fuse_predict, fuse_evaluate):
        assert told_of_dates(command(later, tmp_path / "model", tmp_path / command.__name__)) == told_of_dates(trained)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("s"), pa.timestamp("ns"), pa.string()])
def test_midnights_without_a_zone_are_dates_if_all_moments_are(tmp_path, ending, kind):
    group = Group(kind="numbers", table=totals_of_days(tmp_path / f"totals.{ending}", kind))
    assert len(date_lines({"totals": group}, TIME_ZONE)) == 1
    totals_of_days(group.table, kind, late=timedelta(seconds=1))
    assert date_lines({"totals": group}, TIME_ZONE) == []


@pytest.mark.parametrize("moment", ["2024-03-30T00:00Z", "2024-03-30 00:00:00+00:00", "2024-03-30 10:00"])
def test_texts_that_are_no_midnights_without_a_zone(tmp_path, moment):
    pq.write_table(pa.table({"entity_id": [1], "as_of": [moment], "total": [1]}), tmp_path / "t.parquet")
    assert date_lines({"totals": Group(kind="numbers", table=tmp_path / "t.parquet")}, TIME_ZONE) == []


def test_moments_of_a_joined_table_need_no_telling(listed, config_file, tmp_path):
    assert not fuse_train(listed, config_file, tmp_path / "model").warnings


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
def test_a_later_table_without_moments_is_refused(later, fused, tmp_path, command):
    pq.write_table(pa.table({"entity_id": [1], "embedding": [[1.0]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet has no column 'as_of'"):
        command(later, fused, tmp_path / "out", tables={"seller": tmp_path / "t.parquet"})
    pq.write_table(pa.table({"entity_id": [1], "as_of": pa.array([None], pa.string())}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet.* has no column 'embedding'"):
        command(later, fused, tmp_path / "out", tables={"seller": tmp_path / "t.parquet"})


def test_groups_that_can_not_be_left_out(later, fused, tmp_path):
    groups = list(load_model(fused).config.groups)
    with pytest.raises(InputError, match="there is no group nobody to leave out; there are "):
        fuse_predict(later, fused, tmp_path / "out", without=["nobody"])
    with pytest.raises(InputError, match="all groups are left out; leave one"):
        fuse_predict(later, fused, tmp_path / "out", without=groups)
