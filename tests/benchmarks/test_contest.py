"""The contest: who is asked in which part, ranks of aliases, tests of significance, and the page."""

import json
import math
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from contest import __main__ as contest
from contest import contestants, corpora, fused, judging, page, sections, tasks, timed, trials
from contest.commands import commands, commits, not_measured
from contest.contestants import BOTH, MANUAL, SUPERVISED, Vectors
from contest.found import RECOMMENDED, Found
from contest.fused import FUSED, classify_fused
from contest.goals import beside_lines, goal_lines, goals_of, holm
from contest.judging import LINKING, RANK, Asked, asked, classify, link, p_value, p_value_of_blocks
from contest.late import LATE, MANUAL_ALONE, MANUAL_ON_VALUES, WITH_REPRESENTATION, late_fusion, mean_of_two
from contest.overview import overview
from contest.squares import QUADRATIC, SQUARES, WITH_SQUARES, with_squares
from contest.tasks import CORPORA, NOT_UNSEEN, Corpus, Task
from contest.why import why
from machine import ROOT, machine
from pydantic import ValidationError
from scipy.stats import ttest_1samp

from infobehavior.downstream.classifiers import CLASSIFIERS, Part
from infobehavior.downstream.cross_validation import make_folds
from infobehavior.experiments.tables import Row
from infobehavior.fusion.config import Network
from infobehavior.model.infobehavior import InfoBehavior
from infobehavior.pretraining.config import preset

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
NUM_ACCOUNTS = 90
OTHER = "infobehavior-paper"
PARTS = ("train", "choose", "test")
CORPUS = Corpus("small-5", "small", 5, ("behavior", "outcome"))
AS_OF = FIRST + timedelta(days=8)
BAD = Task(
    "bad",
    "small-5",
    "label_bad",
    "small, bad ones",
    "Is it bad?",
    f"SELECT entity_id, TIMESTAMPTZ '{AS_OF}' AS as_of, label_bad, person_id FROM labels ORDER BY entity_id",
    "person_id",
    "next:5",
)
LINKED = Task(
    "linked",
    "small-5",
    "",
    "small, linking",
    "Which is the other?",
    f"SELECT entity_id, TIMESTAMPTZ '{AS_OF}' AS as_of, repo, person_id FROM labels ORDER BY entity_id",
    "person_id",
)


@pytest.fixture
def data(tmp_path):
    """Accounts of 30 persons in two repositories; every third is bad and works on other things."""
    folder = tmp_path / "data" / "small"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    entity = np.repeat(np.arange(NUM_ACCOUNTS), 40)
    bad = np.arange(NUM_ACCOUNTS) % 3 == 0
    chosen = random.random(len(entity)) < np.where(bad[entity], 0.6, 0.4)
    events = {
        "entity_id": entity,
        "timestamp": [FIRST + timedelta(minutes=int(m)) for m in random.integers(0, 8 * 1_440, len(entity))],
        "behavior": np.where(chosen, "edit", "post"),
        "location": random.choice(["Lima", "Oslo"], len(entity)),
        "outcome": random.choice(["success", "failure"], len(entity)),
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    account = np.arange(NUM_ACCOUNTS)
    labels = {
        "entity_id": account,
        "label_bad": bad.astype(int),
        "person_id": account // 3,
        "repo": np.where(account < 45, "a", "b"),
    }
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    pairs = [(account, account + 1, "mailmap_or_login") for account in range(0, NUM_ACCOUNTS, 3)]
    write_pairs(folder / "alias_pairs.parquet", pairs)
    return tmp_path / "data"


@pytest.fixture
def small_contest(monkeypatch, tmp_path):
    for module in (tasks, corpora, contest, page):
        monkeypatch.setattr(module, "TASKS", (BAD, LINKED))
    for module in (tasks, corpora, contest):
        monkeypatch.setattr(module, "CORPORA", {CORPUS.name: CORPUS})
    monkeypatch.setattr(corpora, "CHOSEN_BY", ("bad",))
    for module in (contest, page):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "results.md")


def test_parts_share_no_person_and_are_the_same_in_all_tasks(data, small_contest, tmp_path):
    prepared = corpora.prepare(CORPUS, data, tmp_path / "work")
    events = pq.read_table(prepared.events).to_pylist()
    for row, count in zip(pq.read_table(prepared.moments).to_pylist(), prepared.num_minutes(), strict=True):
        own = [one["timestamp"] for one in events if one["entity_id"] == row["entity_id"]]
        since = row["as_of"] - timedelta(days=CORPUS.window_days)
        assert count == len({at.replace(second=0, microsecond=0) for at in own if since <= at < row["as_of"]})
    for task in (BAD, LINKED):
        validation, test = (asked(prepared, task, part) for part in ("validation", "test"))
        assert (validation.is_in != test.is_in).all()
        persons = [set(of.of_part().entity // 3) for of in (validation, test)]
        assert [len(of_part) for of_part in persons] == [10, 20]
        assert not persons[0] & persons[1]
        if task is BAD:
            of_bad = persons
        assert persons == of_bad
        assert (test.row == test.entity).all(), "moments are sorted by entity"
    assert (test.repo == np.where(test.entity < 45, "a", "b")).all()
    assert "Lima" not in str(list(pq.read_table(next(prepared.minutes.glob("*/*.parquet")))["location"]))


def test_what_is_prepared_is_made_again_for_another_question(data, small_contest, tmp_path, monkeypatch):
    prepared = corpora.prepare(CORPUS, data, tmp_path / "work")
    before = prepared.moments.stat().st_mtime_ns
    assert corpora.prepare(CORPUS, data, tmp_path / "work") == prepared
    assert prepared.moments.stat().st_mtime_ns == before
    other, linked = (
        replace(task, moments=task.moments.replace("ORDER BY", "WHERE entity_id < 60 ORDER BY"))
        for task in (BAD, LINKED)
    )
    monkeypatch.setattr(corpora, "TASKS", (other, linked))
    again = corpora.prepare(CORPUS, data, tmp_path / "work")
    assert again.decided_by != prepared.decided_by
    assert len(pq.read_table(again.labelled(other))) == len(again.num_minutes()) == 60


def asked_about(num: int, **columns) -> Asked:
    """Accounts, each of a person of its own."""
    given = {
        "row": np.arange(num),
        "entity": np.arange(num),
        "group": np.arange(num),
        "is_in": np.ones(num, bool),
        "positive": np.zeros(num, bool),
        "repo": np.array([""] * num),
        "num_minutes": np.arange(num) % 7,
    }
    return Asked(**(given | columns))


def write_pairs(path, pairs):
    one, other, source = zip(*pairs, strict=True)
    pq.write_table(pa.table({"entity_a": one, "entity_b": other, "source": source}), path)
    return path


def test_ranks_of_aliases_among_all_accounts_of_the_repository(tmp_path):
    """Accounts on a line of angles: the nearer in angle, the more alike."""
    angles = np.array([0.0, 0.1, 0.2, 0.9, 0.05])
    features = np.column_stack([np.cos(angles), np.sin(angles), -np.cos(angles), -np.sin(angles)])
    who = asked_about(5, entity=np.array([7, 8, 9, 10, 11]), repo=np.array(list("aaaab")))
    pairs = write_pairs(tmp_path / "pairs.parquet", [(7, 9, "mailmap_or_login"), (9, 99, "same_full_name")])
    found = link(who, features, pairs, "test")["cosine"]
    numbers = (features - features.mean(0)) / features.std(0)
    numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
    nearness = numbers @ numbers.T
    ranks = [1 + sum(nearness[i, k] >= nearness[i, j] for k in {0, 1, 2, 3} - {i, j}) for i, j in ((0, 2), (2, 0))]
    assert found["reciprocal_rank"] == found["reciprocal_rank_of_strong"] == [np.mean([1 / rank for rank in ranks])]
    assert found["recall_at_1"] == [np.mean([rank <= 1 for rank in ranks])]
    assert found["recall_at_10"] == [1.0], "both are in one block, since they are connected"


def test_connected_accounts_are_looked_for_in_one_part(tmp_path, monkeypatch):
    """0-1 and 2-3 are pairs, and 3 and 4 are one person's; 4 is in the validation part."""
    looked_for = []
    monkeypatch.setattr(judging, "_rank", lambda numbers, repo, account, aliases: looked_for.append(int(account)) or 1)
    features = np.random.default_rng(0).normal(size=(6, 3))
    pairs = write_pairs(tmp_path / "pairs.parquet", [(0, 1, "same_full_name"), (2, 3, "mailmap_or_login")])
    group, is_validation = np.array([0, 1, 2, 3, 3, 4]), np.array([0, 0, 0, 0, 1, 0], bool)
    for part in ("validation", "test"):
        link(asked_about(6, group=group, is_in=is_validation == (part == "validation")), features, pairs, part)
    assert looked_for == [2, 3, 0, 1]


def test_the_corrected_test_is_stricter_than_the_plain_one():
    random = np.random.default_rng(0)
    theirs = random.normal(0.8, 0.02, 15)
    ours = theirs + random.normal(0.01, 0.02, 15)
    difference = ours - theirs
    statistic = difference.mean() / np.sqrt((1 / 15 + 1 / 4) * difference.var(ddof=1))
    plain = ttest_1samp(difference, 0)
    assert abs(statistic) < abs(plain.statistic)
    assert plain.pvalue < p_value(ours.tolist(), theirs.tolist(), 5) < 1
    assert p_value([0.5] * 5, [0.5] * 5, 5) == 1
    assert p_value([0.6] * 5, [0.5] * 5, 5) == 0


def test_blocks_are_compared_in_pairs_after_runs_are_averaged():
    random = np.random.default_rng(1)
    blocks, noise = random.normal(size=20), random.normal(0, 0.1, size=20)
    runs = [(blocks + 0.2 + noise).tolist(), (blocks + 0.2 - noise + random.normal(0, 0.1, 20)).tolist()]
    assert p_value_of_blocks(runs, [blocks.tolist()] * 2) < 0.001
    assert p_value_of_blocks([(blocks + noise).tolist()], [blocks.tolist()]) > 0.05
    assert p_value_of_blocks([blocks.tolist()], [blocks.tolist()]) == 1


def test_classifiers_are_tested_on_each_fold():
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.4
    features = positive[:, None] + random.normal(size=(200, 3))
    who = asked_about(200, positive=positive, group=np.arange(200) // 2)
    measured = classify(who, features, 0, grouped=True)
    assert list(measured) == ["lr", "gbdt"]
    assert all(len(values) == 5 for metrics in measured.values() for values in metrics.values())
    assert 0.6 < np.mean(measured["lr"]["auc"]) < 1


def test_accounts_are_told_apart_by_activity():
    random = np.random.default_rng(0)
    positive, num_minutes = random.random(600) < 0.3, random.integers(1, 100, 600)
    is_seen = positive & (num_minutes > 60)
    who = asked_about(600, positive=positive, num_minutes=num_minutes)
    features = is_seen[:, None] + random.normal(0, 0.1, size=(600, 2))
    measured = classify(who, features, 0, grouped=False)["lr"]
    least, most = (np.mean(measured[f"auc of the {which} active third"]) for which in ("least", "most"))
    assert least < 0.6
    assert most > 0.9


def test_kinds_of_positives_are_told_apart():
    random = np.random.default_rng(0)
    kind = random.choice(["normal", "normal", "seen", "unseen"], 400)
    positive = kind != "normal"
    features = (kind == "seen")[:, None] + random.normal(0, 0.3, size=(400, 2))
    who = asked_about(400, positive=positive, kind=kind)
    measured = classify(who, features, 0, grouped=False)["lr"]
    assert np.mean(measured["auc[seen]"]) > 0.9
    assert np.mean(measured["auc[unseen]"]) < 0.6


def test_late_fusion_is_the_mean_of_what_two_models_say_by_themselves():
    random = np.random.default_rng(0)
    positive = random.random(400) < 0.3
    features = positive[:, None] * [1.0, 1.0, 0.0, 1.0, 1.0] + random.normal(size=(400, 5))
    parts = [Part(columns, positive, np.ones(400)) for columns in (features[:, :3], features[:, 3:], features)]
    train, held_out, test = np.arange(200), np.arange(200, 300), np.arange(300, 400)
    settings, held_out_scores, scores = [], [], []
    for classifier, part in zip((CLASSIFIERS["gbdt"], QUADRATIC), parts, strict=False):
        choice = classifier.choose(part.rows(train), part.rows(held_out), 0)
        settings.append(choice.setting)
        held_out_scores.append(choice.held_out_scores)
        scores.append(classifier.fit(part.rows(train), choice.setting, 0)(part.features[test]))
    late = late_fusion(3, "two", QUADRATIC)
    choice = late.choose(parts[2].rows(train), parts[2].rows(held_out), 0)
    assert choice.setting == tuple(settings)
    fitted = late.fit(parts[2].rows(train), choice.setting, 0)(features[test])
    for found, of_models in ((choice.held_out_scores, held_out_scores), (fitted, scores)):
        log_odds = [math.log(a / (1 - a)) / 2 + math.log(b / (1 - b)) / 2 for a, b in zip(*of_models, strict=True)]
        assert found == pytest.approx([1 / (1 + math.exp(-one)) for one in log_odds])


def test_the_fusion_network_is_judged_on_the_same_folds_by_a_threshold_of_the_part_to_choose_by(monkeypatch):
    monkeypatch.setattr(fused, "Network", partial(Network, max_epochs=3))
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.4
    informative = positive[:, None] * 1.0 + random.normal(size=(200, 3))
    measured = classify_fused(asked_about(200, positive=positive), random.normal(size=(200, 2)), informative, 0, False)
    assert set(measured) == {"fusion", "fusion, no masking"}
    for metrics in measured.values():
        assert len(metrics["auc"]) == 5
        assert np.mean(metrics["auc"]) > 0.7
    assert measured["fusion"]["auc"] != measured["fusion, no masking"]["auc"]


def test_with_squares_a_linear_model_sees_what_is_far_from_the_usual_either_way():
    random = np.random.default_rng(0)
    features = random.normal(5.0, 2.0, size=(600, 3))
    positive = np.abs(features[:, 0] - 5.0) > 2.0
    who = asked_about(600, positive=positive)
    of_values = classify(who, features, 0, False, {"lr": CLASSIFIERS["lr"]})["lr"]
    of_squares = classify(who, features, 0, False, {WITH_SQUARES: QUADRATIC})[WITH_SQUARES]
    assert np.mean(of_values["auc"]) < 0.65
    assert np.mean(of_squares["auc"]) > 0.95
    assert with_squares(np.array([[-2.0, 9.0]])).tolist() == [[-2.0, 9.0, 4.0, 16.0]]


def test_whether_squares_are_seen_is_chosen_by_the_held_out_part():
    random = np.random.default_rng(0)
    features, noise = random.normal(size=(600, 20)), random.normal(size=600)
    train, held_out = np.arange(200), np.arange(200, 600)
    either_way, one_way = np.abs(features[:, 0]) > 1.0, features[:, :4].sum(axis=1) + noise > 0
    for positive, sees_squares in ((either_way, True), (one_way, False)):
        part = Part(features, positive, np.ones(600))
        choice = QUADRATIC.choose(part.rows(train), part.rows(held_out), 0)
        assert choice.setting[0] is sees_squares
        assert choice.loss == pytest.approx(part.rows(held_out).loss(choice.held_out_scores))
        if not sees_squares:
            linear = CLASSIFIERS["lr"].choose(part.rows(train), part.rows(held_out), 0)
            assert choice.setting[1] == linear.setting


def test_the_scale_of_squares_is_that_of_the_rows_that_are_learnt_from():
    random = np.random.default_rng(0)
    part = Part(random.normal(size=(100, 2)), random.random(100) < 0.5, np.ones(100))
    far = part.features + 1_000.0
    scores = QUADRATIC.fit(part, (True, 1.0), 0)
    assert scores(far[:1]) == pytest.approx(scores(far)[:1]), "whatever else is asked about"


def test_goals_take_ours_with_squares_where_they_were_measured_and_a_rival_in_its_best_way():
    runs = {MANUAL: measured_run(lr={"auc": 0.7}, gbdt={"auc": 0.8}), RECOMMENDED: measured_run(lr={"auc": 0.81})}
    found = Found(BAD, {"runs": runs})
    [goal] = goals_of(found, None)
    assert goal.stands == "reached"
    assert "with logistic regression 0.810, of manual with LightGBM 0.800" in goal.claim
    runs[SQUARES + RECOMMENDED] = measured_run(**{WITH_SQUARES: {"auc": 0.79}})
    [goal] = goals_of(found, None)
    assert goal.stands == "missed", "though values alone are ahead: which way counts was decided beforehand"
    assert "with logistic regression (with squares if better) 0.790 (on values alone 0.810), of manual" in goal.claim
    runs[SQUARES + MANUAL] = measured_run(**{WITH_SQUARES: {"auc": 0.85}})
    [goal] = goals_of(found, None)
    assert "of manual with Logistic regression (with squares if better) 0.850" in goal.claim


def test_no_model_of_two_is_believed_without_bound():
    certain, doubtful = np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.5, 1.0])
    assert mean_of_two(certain, doubtful) == pytest.approx([1 / 1001, 1000 / 1001, 0.5], rel=1e-3)


def measured_run(**of_classifier):
    """As the file of a task has it, with the same value in each fold."""
    values = {
        name: {metric: [value] * 5 for metric, value in metrics.items()} for name, metrics in of_classifier.items()
    }
    return {"0": {"measured": values, "report": {}}}


def test_both_together_are_one_way_that_is_fixed_and_manual_alone_its_best():
    low, high = {"auc": 0.80, "average_precision": 0.30}, {"auc": 0.85, "average_precision": 0.50}
    runs = {MANUAL: measured_run(lr=low, gbdt=low), BOTH + RECOMMENDED: measured_run(lr=low, gbdt=high)}
    found = Found(BAD, {"runs": runs})
    [side_by_side] = goals_of(found, None)
    assert side_by_side.stands == "missed", "logistic regression, where nothing of the validation part is known"
    assert "alone, by the best of 2 ways, 0.800 and 0.300" in side_by_side.claim
    [side_by_side] = goals_of(found, found)
    assert side_by_side.stands == "reached", "LightGBM is better on the validation part"
    runs[LATE + BOTH + RECOMMENDED] = measured_run(**{WITH_REPRESENTATION: {"auc": 0.83, "average_precision": 0.32}})
    runs[LATE + MANUAL] = measured_run(**{MANUAL_ALONE: {"auc": 0.81, "average_precision": 0.31}})
    [fixed] = goals_of(found, found)
    assert "AUC 0.830 and average precision 0.320" in fixed.claim, "though LightGBM on both has more"
    assert "alone, by the best of 3 ways, 0.810 and 0.310" in fixed.claim
    assert fixed.stands == "reached"
    high, low = {"auc": 0.825, "average_precision": 0.31}, {"auc": 0.81, "average_precision": 0.31}
    runs[LATE + MANUAL] = measured_run(**{MANUAL_ALONE: low, MANUAL_ON_VALUES: high})
    [by_two_models] = goals_of(found, found)
    assert "alone, by the best of 4 ways, 0.825 and 0.310" in by_two_models.claim
    assert by_two_models.stands == "missed", "what two models reach on manual features alone isn't the representation's"


def test_the_first_table_has_ours_by_logistic_regression_and_others_by_their_better_classifier():
    low, high = {"auc": 0.80, "average_precision": 0.30}, {"auc": 0.85, "average_precision": 0.50}
    runs = {MANUAL: measured_run(lr=low, gbdt=high), RECOMMENDED: measured_run(lr=low, gbdt=high)}
    labelled = Found(BAD, {"runs": runs, "accounts": 1_200, "positives": 30})
    linking = Found(LINKED, {"runs": {MANUAL: measured_run(**{LINKING: {RANK: 0.2}})}, "accounts": 7})
    lines = overview([labelled, linking])
    assert f"| {BAD.title} | 30 of 1,200 | 0.850 | 0.800 |  |  |  |  |  |  |  |  |" in lines
    assert f"| {BAD.title} | 30 of 1,200 | 0.500 | 0.300 |  |  |  |  |  |  |  |  |" in lines
    assert [line for line in lines if LINKED.title in line] == [
        f"| {LINKED.title} | 7 | 0.200 |  |  |  |  |  |  |  |  |  |"
    ]
    for name, auc in ((MANUAL, 0.86), (RECOMMENDED, 0.87)):
        runs[SQUARES + name] = measured_run(**{WITH_SQUARES: {"auc": auc, "average_precision": 0.1}})
    assert f"| {BAD.title} | 30 of 1,200 | 0.860 | 0.800 | 0.870 |  |  |  |  |  |  |  |" in overview([labelled])
    assert overview([]) == []


def trained_run(report, auc=0.8, judged="b", seeds=("0",)):
    """As the file of a task has a row, by commit `judged`."""
    run = measured_run(lr={"auc": auc, "average_precision": auc / 2}, gbdt={"auc": 0.7, "average_precision": 0.3})["0"]
    return {seed: run | {"report": {"seconds_given": 300} | report, "machine": {"commit": judged}} for seed in seeds}


def test_each_command_makes_its_rows_and_no_other_seed():
    trial = "trial: four times the time"
    runs = {
        MANUAL: trained_run({}),
        BOTH + "coles-gru": trained_run({}, seeds=("10", "9")),
        SUPERVISED: trained_run({}),
        trial: trained_run({"seconds_given": 1_200.0}),
    }
    start = "PYTHONPATH=benchmarks python -m contest --task bad --part validation --seconds 300 --seed"
    assert commands(Found(BAD, {"runs": runs}), "validation", list(runs)) == [
        f"{start} 0 --contestant manual supervised-gru '{trial}'",
        f"{start} 9 10 --contestant coles-gru",
    ]
    found = Found(BAD, {"runs": runs})
    assert not_measured(found, list(runs)) == [
        SQUARES + MANUAL,
        LATE + MANUAL,
        "coles-gru",
        SQUARES + "coles-gru",
        LATE + BOTH + "coles-gru",
    ]
    assert not_measured(Found(LINKED, {"runs": runs}), [MANUAL, BOTH + "coles-gru"]) == ["coles-gru"]


def test_commits_are_told_of_the_rows_that_they_made():
    retrained = trained_run({"commit": "a"}) | {"1": trained_run({"commit": "c"})["0"]}
    runs = {
        MANUAL: trained_run({"commit": "a"}),
        OTHER: trained_run({"commit": "b"}),
        SUPERVISED: trained_run({}),
        RECOMMENDED: retrained,
    }
    assert commits(Found(BAD, {"runs": runs}), list(runs)) == (
        f"made by commit a, judged by b: `manual`, `{RECOMMENDED}` (seed 0); "
        f"made and judged by commit b: `{OTHER}`, `supervised-gru`; "
        f"made by commit c, judged by b: `{RECOMMENDED}` (seed 1)"
    )


def test_p_is_adjusted_for_the_number_of_goals():
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_rows_of_one_seed_are_by_the_same_accounts_labels_and_folds():
    positive = np.arange(60) % 3 == 0
    split = asked_about(60, positive=positive).split(0, grouped=False)
    assert split == asked_about(60, positive=positive).split(0, grouped=False)
    others = [
        asked_about(60, positive=positive).split(1, grouped=False),
        asked_about(60, positive=np.arange(60) % 3 == 1).split(0, grouped=False),
        asked_about(60, positive=positive, entity=np.arange(60) + 1).split(0, grouped=False),
        asked_about(60, positive=positive, is_in=np.arange(60) > 5).split(0, grouped=False),
    ]
    assert len({split, *others}) == 5
    runs = {MANUAL: trained_run({}), RECOMMENDED: trained_run({}), "coles-gru": trained_run({})}
    runs[MANUAL]["0"]["split"] = runs["coles-gru"]["0"]["split"] = split
    assert Found(BAD, {"runs": runs}).with_split() == [MANUAL, "coles-gru"]
    runs[RECOMMENDED]["0"]["split"] = others[0]
    with pytest.raises(ValueError, match="bad: rows of one seed were judged by different accounts or folds"):
        Found(BAD, {"runs": runs}).with_split()


def test_what_is_not_equal_is_told():
    runs = {
        RECOMMENDED: trained_run({"seconds": {"pretrain": 240.0}}),
        "coles-gru": trained_run({"share_windows_truncated": 0.0724}),
        "coles-gru-10000": trained_run({"share_windows_truncated": 0.0}),
    }
    for of_seed in runs.values():
        of_seed["0"]["machine"] = machine()
    text = "\n".join(sections._how(Found(BAD, {"runs": runs}), "test", list(runs)))
    assert "Windows of which the first events aren't seen: 7.2 % by `coles-gru`.\n" in text
    assert f"Trained shorter than was given: `{RECOMMENDED}` by 20 %. This is against ours." in text
    assert "on record" not in text


def contest_of(ours, task=BAD, seconds=372.0):
    """Manual features, a preset and a peer, of which manual has an AUC of 0.8 and the peer of 0.81."""
    report = {"seconds": {"pretrain": seconds}}
    runs = {
        MANUAL: trained_run({}),
        RECOMMENDED: trained_run(report, ours),
        "coles-gru": trained_run({"seconds": {"training": 400.0}}, 0.81),
        BOTH + RECOMMENDED: trained_run(report, ours),
        BOTH + "coles-gru": trained_run({}, 0.81),
    }
    return Found(task, {"runs": runs})


def test_means_that_differ_by_nothing_are_tied_and_more_time_is_told(monkeypatch):
    against_manual, against_peer, adds = goals_of(contest_of(0.8004), None)
    assert [goal.stands for goal in (against_manual, against_peer, adds)] == ["tied", "missed", "missed"]
    assert not against_manual.marks, "hand-made features have no time"
    assert against_peer.marks == ("ours had 24 % more time",)
    monkeypatch.setitem(NOT_UNSEEN, "bad", tasks.NotUnseen("seen before", ""))
    against_manual, against_peer, _ = goals_of(contest_of(0.9, seconds=310.0), None)
    assert [goal.stands for goal in (against_manual, against_peer)] == ["reached", "reached"]
    assert against_manual.marks == against_peer.marks == ("seen before",)
    lines = goal_lines([against_manual, *goals_of(contest_of(0.7), None)])
    assert [line.split("**")[1] for line in lines] == ["missed", "missed", "missed", "reached"]
    assert lines[-1].endswith("(p = 0, by Holm 0; seen before)")


def test_both_together_are_compared_with_a_peers_by_the_same_way(monkeypatch):
    found = contest_of(0.8)
    [line] = beside_lines([found, Found(LINKED, found.content)])
    assert line.startswith("- **AUC behind, average precision behind**: small, bad ones, side by side, of each metric")
    assert "manual features with ours and with coles-gru: AUC 0.800 and 0.810 (p = 0, by Holm 0)" in line
    assert line.endswith("(ours had 24 % more time)")
    late = measured_run(**{WITH_REPRESENTATION: {"auc": 0.9, "average_precision": 0.405}})
    found.content["runs"][LATE + BOTH + RECOMMENDED] = late
    assert "side by side" in beside_lines([found])[0], "where one of them has no mean of two models"
    found.content["runs"][LATE + BOTH + "coles-gru"] = measured_run(
        **{WITH_REPRESENTATION: {"auc": 0.8, "average_precision": 0.405}}
    )
    [line] = beside_lines([found])
    assert line.startswith("- **AUC ahead, average precision tied**: small, bad ones, mean of two models")


def test_what_is_known_of_missed_goals_is_told_from_what_was_measured():
    found = contest_of(0.79)
    runs = found.content["runs"]
    for name, few in ((MANUAL, 0.6), (RECOMMENDED, 0.65)):
        for classifier in ("lr", "gbdt"):
            runs[name]["0"]["measured"][classifier]["auc with 5% of the labels"] = [few] * 5
    goals = list(goals_of(found, None))
    tried = Found(BAD, {"runs": {"trial: dropout 0.1": trained_run({})}})
    _, line, _, told, _ = why([found], goals, [tried])
    assert (
        "Against manual: +0.050 with 5 % of the labels, -0.010 with all; -0.100 with all if ours has LightGBM." in line
    )
    assert "Against coles-gru: -0.020 with all; -0.110 with all if ours has LightGBM." in line
    assert line.endswith("The mean of two models isn't measured.")
    assert "validation part: `dropout 0.1` (bad). Not measured" in told
    assert "`learned [CLS]`" in told
    runs[LATE + MANUAL] = measured_run(**{MANUAL_ALONE: {"auc": 0.82, "average_precision": 0.41}})
    runs[LATE + BOTH + RECOMMENDED] = measured_run(**{WITH_REPRESENTATION: {"auc": 0.79, "average_precision": 0.5}})
    control = "+0.020 AUC and +0.010 average precision where both see manual features, -0.010 AUC and +0.100 average"
    assert control in why([found], goals, [])[1]
    assert not why([found], [goal for goal in goals if goal.stands != "missed"], [])


def test_blocks_of_linking_have_a_spread():
    values = {"reciprocal_rank": [0.1, 0.3], "reciprocal_rank_of_strong": [0.2], "recall_at_1": [0.0, 0.5]}
    runs = {MANUAL: {"0": {"measured": {"cosine": values}, "report": {"dim": 3}}}}
    text = "\n".join(sections._results(Found(LINKED, {"runs": runs})))
    assert "in 2 blocks" in text
    assert "| cosine | 0.200 ± 0.141 | 0.200 | 0.250 ± 0.354 |" in text


def run(data, tmp_path, *arguments, monkeypatch):
    line = ["contest", "--data", str(data), "--work", str(tmp_path / "work"), "--seconds", "1", *arguments]
    monkeypatch.setattr("sys.argv", line)
    assert contest.main() == 0


def test_the_whole_and_its_page(data, small_contest, tmp_path, monkeypatch, capsys):
    def vectors_of_labels(prepared, *_):
        random = np.random.default_rng(0)
        label = pq.read_table(prepared.labelled(BAD))["label_bad"].to_numpy()
        vectors = label[:, None] + random.normal(0, 0.3, (len(label), 4))
        return Vectors(vectors, {"dim": 4, "steps": 7, "global_dim": 3, "readouts": [["next:5", 1]]})

    monkeypatch.setitem(contestants.CONTESTANTS, "infobehavior-recommended", vectors_of_labels)
    chosen = ["--seed", "0", "1", "--contestant", MANUAL, "infobehavior-recommended"]
    run(data, tmp_path, *chosen, monkeypatch=monkeypatch)
    assert "bad (test), seed 1, manual + infobehavior-recommended, lr: auc" in capsys.readouterr().out
    runs = json.loads((tmp_path / "results" / "test" / "bad.json").read_text())["runs"]
    of_ours = {before + "infobehavior-recommended" for before in ("", SQUARES, BOTH, FUSED, LATE + BOTH)}
    assert set(runs) == {MANUAL, SQUARES + MANUAL, LATE + MANUAL, *of_ours}
    linked = json.loads((tmp_path / "results" / "test" / "linked.json").read_text())["runs"]
    assert not any(name.startswith((LATE, SQUARES)) for name in linked)
    assert all(set(of_seed) == {"0", "1"} for of_seed in runs.values())
    assert len({of_seed["0"]["split"] for of_seed in runs.values()}) == 1
    text = (tmp_path / "results.md").read_text()
    assert "- **reached**: small, bad ones: AUC of the representation with logistic regression" in text
    two_models = "mean of two: LightGBM on manual, logistic regression (with squares if better) on the representation"
    assert f"the representation ({two_models})" in text
    assert "| late: manual | 2 |  |  |" in text
    assert "## small, linking" in text
    assert "| infobehavior-recommended | 2 | 7, 7 |  | 4 | Logistic regression |" in text
    assert "| infobehavior-recommended | 2 | 7, 7 |  | 4 | no labels | 0." in text
    assert "| fused: manual + infobehavior-recommended | 2 | 7, 7 |  | 4 | fusion, no masking |" in text
    assert "AUC where a share of both classes' labels is known" in text
    assert "AUC among accounts of a third, by minutes with events in the window:" in text
    run(data, tmp_path, *chosen, monkeypatch=monkeypatch)
    assert "seed" not in capsys.readouterr().out, "what is measured isn't measured again"
    monkeypatch.setitem(contestants.CONTESTANTS, "trial: learned [CLS]", vectors_of_labels)
    run(data, tmp_path, *chosen, "trial: learned [CLS]", "--part", "validation", monkeypatch=monkeypatch)
    assert (tmp_path / "results" / "validation" / "bad.json").is_file()
    text = (tmp_path / "results.md").read_text()
    assert "| recipe | seeds | bad, Logistic regression | bad, LightGBM | linked, MRR |" in text
    assert re.search(r"\| trial: learned \[CLS\] \| 2( \| \+0\.000 ± 0\.000){3} \|", text), "the same vectors"


def test_flights_of_the_package_have_the_numbers_of_the_log(tmp_path):
    corpus, nothing = CORPORA["flights-365"], tmp_path / "none"
    assert corpora.is_there(corpus, nothing), "they can be made"
    events, labels = corpora._log(corpus, nothing, tmp_path)
    found, made = pq.read_table(events), pq.read_table(labels)
    assert found.num_rows == 658_183
    assert pc.unique(found["entity_id"]).to_pylist() == list(range(3_423))
    built = dict(zip(made["entity_id"].to_pylist(), made["year_built"].to_pylist(), strict=True))
    assert len(built) == 2_721
    assert (built[1], built[2], 0 in built) == (2001, 1998, False)
    written = [file.stat().st_mtime_ns for file in (events, labels)]
    corpora._log(corpus, nothing, tmp_path)
    assert [file.stat().st_mtime_ns for file in (events, labels)] == written


def test_what_contestants_are_not_told_is_not_in_the_schema(data):
    events = data / CORPUS.log / "events.parquet"
    told = corpora._schema(replace(CORPUS, columns=("behavior", "location", "outcome")), events)
    assert told.columns.outcome == "outcome"
    assert told.failures.outcomes
    untold = corpora._schema(replace(CORPUS, columns=("behavior",)), events)
    assert (untold.columns.location, untold.columns.outcome) == (None, None)
    assert not untold.failures.outcomes
    assert "outcome" not in CORPORA["git-365-cut"].columns


def test_a_task_without_a_validation_part_is_left_out_of_it(data, small_contest, tmp_path, monkeypatch, capsys):
    other = replace(BAD, chosen_by="linked")
    monkeypatch.setattr(contest, "TASKS", (other,))
    run(data, tmp_path, "--contestant", MANUAL, "--part", "validation", monkeypatch=monkeypatch)
    assert not (tmp_path / "results" / "validation").exists()
    with pytest.raises(SystemExit):
        run(data, tmp_path, "--task", "bad", "--part", "validation", monkeypatch=monkeypatch)
    assert "'bad' has no validation part; what is chosen for it is by 'linked'" in capsys.readouterr().err


def test_the_supervised_peer_is_tried_on_the_first_fold(data, small_contest, tmp_path, monkeypatch, capsys):
    given = []

    def scores(prepared, moments, *_):
        given.append(moments)
        labels = moments.filter(pc.equal(moments["part"], "test"))["positive"].to_numpy(zero_copy_only=False)
        return labels.astype(float), {"steps": 3}

    monkeypatch.setattr(judging, "supervised_scores", scores)
    run(data, tmp_path, "--contestant", MANUAL, SUPERVISED, "--seed", "0", monkeypatch=monkeypatch)
    [moments] = given
    assert moments.column_names == ["entity_id", "as_of", "positive", "part"]
    persons = [set(moments["entity_id"].filter(pc.equal(moments["part"], part)).to_numpy() // 3) for part in PARTS]
    assert all(persons)
    assert sum(map(len, persons)) == len(set.union(*persons)), "no person is in two parts"
    assert "bad (test), seed 0, supervised-gru, itself: auc 1.000" in capsys.readouterr().out
    assert "| supervised-gru | 1 | 3 |  |  | itself | 1.000 |" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(("pooling", "num_statistics"), [("cls_and_readouts", 0), ("cls_readouts_and_spans", 36)])
def test_ours_learns_and_embeds(data, small_contest, tmp_path, monkeypatch, pooling, num_statistics):
    from small_minutes import tiny_config

    tasks = ("failures", "next:1")
    monkeypatch.setattr(
        trials, "preset", lambda name: tiny_config(domain_task=tasks, pairs="anywhere", pooling=pooling)
    )
    monkeypatch.setattr(timed, "TRIAL_STEPS", 3)
    prepared = corpora.prepare(CORPUS, data, tmp_path / "work")
    made = contestants.vectors(prepared, OTHER, 1, 0, tmp_path / "work")
    assert made.of_window.shape == (NUM_ACCOUNTS, 12 + 2 + 2 + num_statistics)
    assert (made.of_window != 0).any(axis=1).all()
    assert made.report["steps"] >= 1
    assert made.chance_of_none("next:1") == pytest.approx(1 - made.of_window[:, 14])
    assert made.chance_of_none("next:2") is None
    monkeypatch.setitem(contestants.CONTESTANTS, OTHER, lambda *_: Vectors(np.zeros((NUM_ACCOUNTS, 1)), {"dim": 1}))
    again = contestants.vectors(prepared, OTHER, 1, 0, tmp_path / "work")
    assert (again.of_window == made.of_window).all()
    monkeypatch.setattr(trials, "preset", lambda name: tiny_config(batch_size=5))
    other = contestants.vectors(prepared, OTHER, 1, 0, tmp_path / "work")
    assert other.of_window.shape == (NUM_ACCOUNTS, 1), "the preset has changed, so they are made again"


def test_training_ends_when_the_time_is_up(data, small_contest, tmp_path, monkeypatch):
    from small_minutes import tiny_config

    prepared = corpora.prepare(CORPUS, data, tmp_path / "work")
    seen = {"until": None, "as_of": None}
    monkeypatch.setattr(timed, "_steps_within", lambda *_: 10**6)
    model, told = timed.train_within(0.2, prepared.minutes, tiny_config(), seen, tmp_path / "model")
    assert (told["planned_steps"], told["seconds"]["pretrain"] >= 0.2) == (10**6, True)
    assert 1 <= told["steps"] < 10**6
    assert InfoBehavior.from_pretrained(tmp_path / "model").model_id == model.model_id
    monkeypatch.setattr(timed, "_steps_within", lambda *_: 2)
    _, told = timed.train_within(600, prepared.minutes, tiny_config(), seen, tmp_path / "other")
    assert told["steps"] == 2
    assert told["seconds"]["pretrain"] < 600


def page_with_table(tmp_path, name, content):
    """The text of the page once a table of the paper is among the results."""
    file = tmp_path / "results" / "tables" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    page.write_page()
    return (tmp_path / "results.md").read_text()


def test_a_table_of_the_paper_is_on_the_page(small_contest, tmp_path):
    row = Row("manual, LightGBM", {"auc": [0.8, 0.9], "nmi": [0.1, 0.2]}, {"auc": 0.9099})
    content = {
        "counts": [asdict(Row("failures, 9 accounts never seen", {"accuracy": [0.5]}, {"accuracy": 0.9752}))],
        "rows": [asdict(row)],
        "data": ["10 accounts"],
        "seeds": [0, 1],
        "config": preset("paper").model_dump(mode="json") | {"num_steps": 7, "batch_size": 100},
        "simulator": 2,
        "market": {"num_sellers": 1_000, "seed": 3, "abnormal_share": 0.0472},
        "preset": "paper",
        "table": "table1",
        "machine": machine(),
    }
    text = page_with_table(tmp_path, "table1.paper.json", content)
    assert "## Table 1 on the simulated market, preset `paper`" in text
    assert "1,000 sellers of seed 3, 4.72% of them abnormal, by version 2 of the simulator; products" in text
    assert "| manual, LightGBM | 0.8500 ± 0.071 (0.9099) | 0.1500 ± 0.071 |" in text
    assert "| failures, 9 accounts never seen | 0.5000 (0.9752) |" in text
    nearly = "nearly untrained: 7 steps of 100 pairs, 0.70 passes over 1,000 sellers and 0.01 % of the paper's 76,000"
    assert nearly in text
    assert "Less *" not in text
    other = Row("no overlap", {"auc": [0.7, 0.9], "nmi": [0.2, 0.3]}, {})
    table2 = content | {"table": "table2", "rows": [asdict(row), asdict(other)]}
    text = page_with_table(tmp_path, "table2.paper.json", table2)
    assert "Less *manual, LightGBM* of the same seed: mean ± standard deviation over 2 seeds." in text
    assert "| no overlap | -0.0500 ± 0.071 | +0.1000 ± 0.000 |" in text
    assert "changes two things" not in text
    recommended = table2 | {"config": preset("recommended").model_dump(mode="json"), "preset": "recommended"}
    text = page_with_table(tmp_path, "table2.recommended.json", recommended)
    assert text.count("*no domain-related task* changes two things: the pre-training, and the embedding") == 1


def test_a_table_of_the_online_tasks_is_on_the_page(small_contest, tmp_path):
    some, none = {"precision by threshold": [0.5, None]}, {"precision by threshold": [None, None]}
    of_basic, of_more = ({"auc": [low, 0.9], "recall": [low - 0.7, 0.3]} for low in (0.8, 0.9))
    basic = Row("Hats, basic feature set, LightGBM", of_basic | some, {"recall": 0.25})
    more = Row("Hats, + manual behavior features, LightGBM", of_more | none, {})
    masked = [Row(f"Hats, {name}", {"recall, new tricks": [0.5]}, {}) for name in ("no masking", "content 0.3")]
    content = {
        "rows": [asdict(basic), asdict(more)],
        "masking": [asdict(row) for row in masked],
        "data": ["simulated: the last part begins 2019-10-02"],
        "seeds": [0, 1],
        "pretraining": {"num_steps": 7},
        "simulator": 3,
        "market": {"num_sellers": 1_000, "seed": 2, "abnormal_share": 0.05},
        "table": "table4",
        "machine": machine(),
    }
    text = page_with_table(tmp_path, "table4.json", content)
    assert "## Table 4 on the simulated market" in text
    assert "Simulated: the last part begins 2019-10-02." in text
    assert "|  | recall | auc | precision by threshold |" in text
    one = "0.5000 (1 of 2 seeds)"
    assert f"| Hats, basic feature set, LightGBM | 0.2000 ± 0.141 (0.2500) | 0.8500 ± 0.071 | {one} |" in text
    assert "| Hats, + manual behavior features, LightGBM | 0.2500 ± 0.071 | 0.9000 ± 0.000 | – |" in text
    assert "| Hats, + manual behavior features, LightGBM | +0.0500 ± 0.071 | +0.0500 ± 0.071 | – |" in text
    assert "| Hats, content 0.3 | +0.0000 |" in text
    assert "| Hats, no masking | 0.5000 |" in text
    assert "No threshold reached" not in text
    assert "Is a network more general" not in text, "of one seed nothing can be told"
    known, new = ("average precision, known tricks", "average precision, new tricks")
    of_masking = [
        Row("Hats, no masking", {known: [0.5, 0.6, 0.5, 0.6], new: [0.3, 0.4, 0.3, 0.4]}, {}),
        Row("Hats, content 0.3", {known: [0.5, 0.6, 0.5, 0.6], new: [0.35, 0.45, 0.35, 0.45]}, {}),
        Row("Hats, content 0.5", {known: [0.6, 0.7, 0.6, 0.7], new: [0.3, 0.5, 0.3, 0.4]}, {}),
    ]
    text = page_with_table(tmp_path, "table4.json", content | {"masking": [asdict(row) for row in of_masking]})
    assert (
        "Of 2 ways and categories, masking changes the average precision on new tricks by more than chance in 1" in text
    )
    assert (
        "| Hats, content 0.3 | +0.0000 | +0.0500 | 2e-" in text
        or "| Hats, content 0.3 | +0.0000 | +0.0500 | 0 |" in text
    )
    assert "| Hats, content 0.5 | +0.1000 | +0.0250 | 0.39 | -0.0750 |" in text
    never = Row("Hats, basic feature set, LightGBM", {"recall by threshold": [0.0, 0.0]}, {})
    text = page_with_table(tmp_path, "table4.json", content | {"rows": [asdict(never)], "masking": []})
    assert "No threshold reached the precision on a validation part, so nothing is flagged by one" in text


def test_the_page_is_what_the_results_in_the_repository_make(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "PAGE", tmp_path / "results.md")
    page.write_page()
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text(), "--page-only writes it"


def test_a_log_that_is_not_there_is_left_out(small_contest, tmp_path, monkeypatch, capsys):
    run(tmp_path / "nothing", tmp_path, monkeypatch=monkeypatch)
    assert f"small-5 is left out: there is no {tmp_path / 'nothing' / 'small'}" in capsys.readouterr().err


def test_fewer_labels_are_of_both_classes_and_of_the_same_test_fold():
    random = np.random.default_rng(0)
    positive = random.random(300) < 0.1
    fold = make_folds(positive, np.arange(300) // 2, 5, 0)[0]
    fewer = judging._with_fewer_labels(fold, positive, 0.2, 0)
    assert (fewer.test == fold.test).all()
    assert len(fewer.train) == pytest.approx(0.2 * len(fold.train), abs=4)
    assert set(fewer.train) <= set(fold.train)
    for part, whole in ((fewer.inner_train, fold.inner_train), (fewer.held_out, fold.held_out)):
        assert set(fewer.train[part]) <= set(fold.train[whole])
        assert positive[fewer.train[part]].any()
        assert not positive[fewer.train[part]].all()
    assert not set(fewer.inner_train) & set(fewer.held_out)


def test_what_the_model_believes_is_judged_without_labels():
    believed = np.array([[9.0, 9.0, 0.2, 0.1, 0.7], [9.0, 9.0, 0.3, 0.2, 0.1]])
    made = Vectors(believed, {"global_dim": 2, "readouts": [["events", 2], ["next:180", 1]]})
    assert made.chance_of_none("next:180").tolist() == pytest.approx([0.3, 0.9])
    assert made.chance_of_none("next:30") is None
    positive = np.arange(100) % 3 == 0
    measured = judging.without_labels(asked_about(100, positive=positive), positive * 0.5, 0, grouped=False)
    assert measured["no labels"]["auc"] == [1.0] * 5


def test_a_trial_of_a_setting_is_never_judged_by_the_test_part(data, small_contest, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run(data, tmp_path, "--contestant", "trial: learned [CLS]", monkeypatch=monkeypatch)
    assert error.value.code == 2
    assert "never tried on the test part" in capsys.readouterr().err


def test_a_column_of_the_market_says_that_it_is_simulated():
    of_markets = [sections._named(task) for task in tasks.TASKS if tasks.CORPORA[task.corpus].market]
    assert len(of_markets) == 2
    assert all("(simulated)" in name for name in of_markets)


TWO_AT_ONCE = {"trial: no contrastive task"}


@pytest.mark.parametrize("name", trials.TRIALS)
def test_a_trial_changes_one_thing_of_recommended(name):
    recipe = trials.TRIALS[name]
    usual, changed = (one.config(90).model_dump() for one in (trials.Recipe("recommended"), recipe))
    of_encoder = {field for field, value in changed["encoder"].items() if value != usual["encoder"][field]}
    others = {field for field, value in changed.items() if value != usual[field]} - {"encoder"}
    assert of_encoder == set(recipe.encoder)
    assert others == set(recipe.training) | ({"domain_task"} if recipe.without_tasks else set())
    assert len(of_encoder) + len(others) + (recipe.times != 1) == (2 if name in TWO_AT_ONCE else 1)
    assert set(recipe.without_tasks) <= set(usual["domain_task"])


def test_a_recipe_with_a_fault_is_refused():
    with pytest.raises(ValidationError, match="lengths"):
        trials.Recipe("recommended", training={"lengths": "severel"}).config(30)
