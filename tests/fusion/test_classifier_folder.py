import hashlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.examples import GROUPS, number_group, products, table_of, tiny_network
from infobehavior.errors import InputError
from infobehavior.fusion.classifier import FusionClassifier
from infobehavior.fusion.classifier_folder import LAYOUT, load_classifier, save_classifier
from infobehavior.fusion.folder import name_of
from small_minutes import folder_bytes

TABLE = table_of(products())


@pytest.fixture(scope="module", params=[False, True], ids=["network alone", "with trees"])
def trained(request):
    return FusionClassifier(GROUPS, tiny_network(), gbdt=request.param).fit(TABLE, TABLE["risky"])


@pytest.fixture
def folder(trained, tmp_path):
    save_classifier(trained, tmp_path / "saved")
    return tmp_path / "saved"


def refused(folder):
    with pytest.raises(InputError) as raised:
        load_classifier(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def test_what_was_saved_is_loaded(trained, folder, tmp_path):
    loaded = load_classifier(folder)
    others = table_of(products(seed=1))
    assert loaded.predict_proba(others).tobytes() == trained.predict_proba(others).tobytes()
    assert loaded.predict(others).tolist() == trained.predict(others).tolist()
    if trained.gbdt:
        ours, theirs = (model.gbdt_probability_of(model.arrays(_split(others))) for model in (trained, loaded))
        assert np.array_equal(ours, theirs)
    for name in ("classes_", "losses_", "best_epoch_", "num_training_"):
        assert np.array_equal(getattr(loaded, name), getattr(trained, name))
    save_classifier(loaded, tmp_path / "again")
    assert folder_bytes(tmp_path / "again") == folder_bytes(folder)


def _split(table):
    return {name: table.select(list(group.columns)) for name, group in GROUPS.items()}


@pytest.mark.parametrize("classes", [(False, True), (3, 7), ("fine", "risky")])
def test_classes_keep_their_kind(classes, tmp_path):
    rows = np.random.default_rng(0).normal(size=(80, 2))
    answers = np.array(classes)[(rows[:, 0] > 0).astype(int)]
    model = FusionClassifier(number_group("0", "1"), tiny_network(max_epochs=2)).fit(rows, answers)
    save_classifier(model, tmp_path / "saved")
    loaded = load_classifier(tmp_path / "saved")
    assert loaded.classes_.dtype == model.classes_.dtype
    assert loaded.predict(rows).tolist() == model.predict(rows).tolist()


def test_classes_that_json_can_not_hold_are_refused(tmp_path):
    rows = np.random.default_rng(0).normal(size=(80, 2))
    answers = np.where(rows[:, 0] > 0, np.datetime64("2024-01-02"), np.datetime64("2024-01-01"))
    model = FusionClassifier(number_group("0", "1"), tiny_network(max_epochs=1)).fit(rows, answers)
    with pytest.raises(InputError, match="can't be saved; train on truth values, whole numbers or texts"):
        save_classifier(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_what_is_not_trained_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="isn't trained; call fit"):
        save_classifier(FusionClassifier(GROUPS), tmp_path / "saved")


def test_paths_that_are_too_long(trained, tmp_path):
    for work in (load_classifier, lambda path: save_classifier(trained, path)):
        with pytest.raises(InputError, match="File name too long; give a"):
            work(tmp_path / ("a" * 300))


def test_a_later_classifier_takes_the_place_of_an_older_one(trained, folder):
    other = FusionClassifier(GROUPS, tiny_network(seed=5)).fit(TABLE, TABLE["risky"])
    save_classifier(other, folder)
    assert load_classifier(folder).predict_proba(TABLE).tobytes() == other.predict_proba(TABLE).tobytes()
    assert len(list(folder.iterdir())) == 2


def test_a_folder_of_something_else_stays_as_it_is(trained, fused, tmp_path):
    copy = shutil.copytree(fused, tmp_path / "model")
    with pytest.raises(InputError, match="has files that aren't a fusion classifier's"):
        save_classifier(trained, copy)
    assert folder_bytes(copy) == folder_bytes(fused)
    assert "is not a fusion classifier" in refused(copy)


def test_each_value_that_is_edited_is_noticed(folder):
    file = folder / LAYOUT.file
    card = json.loads(file.read_text())
    for key, value in card.items():
        other = value + 1 if isinstance(value, int) else [*value, 1] if isinstance(value, list) else "other"
        file.write_text(json.dumps(card | {key: other}))
        refused(folder)


HOSTILE = {
    "a larger network": {"network": {"hidden_dim": 9}},
    "no group": {"groups": {}},
    "a group that is joined": {"groups": {"listing": {"kind": "numbers", "table": "/etc/passwd"}}},
    "no features": {"features": {}},
    "no trees, but their calibration": {"trees_file": None, "calibrations": {"fusion": "none", "gbdt": "none"}},
    "no calibration": {"calibrations": {}},
    "three classes": {"classes": [1, 2, 3]},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_stranger_who_names_it_rightly_gets_a_line_too(folder, what):
    file = folder / LAYOUT.file
    card = json.loads(file.read_text()) | HOSTILE[what]
    own = {key: value for key, value in card.items() if key not in ("model_id", "weights_file", "trees_file")}
    weights = (folder / card["weights_file"]).read_bytes()
    file.write_text(json.dumps(card | {"model_id": name_of(own, weights, card["trees_file"])}))
    refused(folder)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), other=st.binary(min_size=1, max_size=30), which=st.integers(0, 2))
def test_any_bytes_in_a_file_are_noticed(folder, tmp_path_factory, where, other, which):
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("damaged") / "saved")
    path = sorted(copy.iterdir())[which % len(list(copy.iterdir()))]
    content = path.read_bytes()
    start = int(where * len(content))
    changed = content[:start] + other + content[start + len(other) :]
    path.write_bytes(changed)
    if hashlib.sha256(changed).digest() == hashlib.sha256(content).digest():
        load_classifier(copy)
    else:
        refused(copy)
