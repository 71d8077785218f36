import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infobehavior.artefacts import definition_hash
from infobehavior.errors import InputError
from infobehavior.fusion import folder as model_files
from infobehavior.fusion.examples import read_examples
from infobehavior.fusion.fuse import fuse_train
from infobehavior.fusion.model_folder import LAYOUT, load_model
from small_minutes import folder_bytes

FILE = LAYOUT.file


@pytest.fixture
def copy(fused, tmp_path):
    return shutil.copytree(fused, tmp_path / "model")


def card_of(folder):
    return json.loads((folder / FILE).read_text())


def refused(folder):
    """What is said of a folder that can't be read, in one line."""
    with pytest.raises(InputError) as raised:
        load_model(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def test_what_was_saved_is_loaded(fused, later, tmp_path):
    model = load_model(fused)
    model.save(tmp_path / "again")
    assert folder_bytes(tmp_path / "again") == folder_bytes(fused)
    again = load_model(tmp_path / "again")
    assert (again.config, again.points, again.classes, again.report) == (
        model.config,
        model.points,
        model.classes,
        model.report,
    )
    tables = read_examples(later, model.config, labelled=False).tables
    arrays = model.classifier.arrays(tables)
    for name in ("probability_of", "gbdt_probability_of"):
        one, other = (getattr(of.classifier, name)(arrays) for of in (model, again))
        assert np.array_equal(one, other)


def test_the_loaded_classifier_is_the_trained_one(listed, config_file, later, tmp_path):
    trained = fuse_train(listed, config_file, tmp_path / "model").model
    loaded = load_model(tmp_path / "model")
    assert loaded.model_id == trained.model_id
    arrays = trained.classifier.arrays(read_examples(later, trained.config, labelled=False).tables)
    for name in ("probability_of", "gbdt_probability_of"):
        assert np.array_equal(getattr(trained.classifier, name)(arrays), getattr(loaded.classifier, name)(arrays))


def test_the_files_are_of_formats_that_hold_no_code(fused):
    names = sorted(path.name.partition("-")[0].partition(".")[0] for path in fused.iterdir())
    assert names == ["fusion", "trees", "weights"]
    weights, trees = fused / card_of(fused)["weights_file"], fused / card_of(fused)["trees_file"]
    assert (weights.suffix, trees.suffix) == (".safetensors", ".txt")
    assert trees.read_text().startswith("tree\n")
    assert "trained_on" in safetensors.numpy.load(weights.read_bytes())


@pytest.mark.parametrize("folder", ["none", "empty", "a file"])
def test_what_is_not_a_folder_of_a_model(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("")
    assert "is not a fused classifier" in refused(tmp_path / folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged, not JSON"),
        ("[]", "is of kind None; expected a fused classifier of format 3: train again"),
        ('{"kind": "model"}', "is of kind 'model'"),
        ('{"kind": "fused classifier", "format": 3}', "is damaged: features: Field required"),
    ],
)
def test_another_card(copy, content, said):
    (copy / FILE).write_text(content)
    assert said in refused(copy)


def test_another_format_says_what_to_do(copy):
    (copy / FILE).write_text(json.dumps(card_of(copy) | {"format": 1}))
    assert "is of format 1, of another version; expected a fused classifier of format 3: train again" in refused(copy)


@pytest.mark.parametrize("name", ["weights_file", "trees_file"])
def test_files_that_are_missing_or_damaged(copy, name):
    path = copy / card_of(copy)[name]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "is damaged: its hash is not the one in its name; train again" in refused(copy)
    path.unlink()
    assert f"is not whole: it has no {path.name}; train again" in refused(copy)


def paths_of(content, path=()):
    """Where the values of a card are, but for its names of files and of itself."""
    if isinstance(content, dict) and content:
        return [found for key in content for found in paths_of(content[key], (*path, key))]
    if isinstance(content, list) and content:
        return [found for place in range(len(content)) for found in paths_of(content[place], (*path, place))]
    return [path]


def edited(card, path, value):
    card = json.loads(json.dumps(card))
    *tables, last = path
    inner = card
    for key in tables:
        inner = inner[key]
    inner[last] = value
    return card


def other_value(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else "other"


def test_whatever_is_edited_is_noticed(copy):
    """Each value of the card, one after the other."""
    card = card_of(copy)
    paths = [path for path in paths_of(card) if path[0] != "features" or path[-1] in (0, "scale")]
    assert len(paths) > 50
    for path in paths:
        value = card
        for key in path:
            value = value[key]
        (copy / FILE).write_text(json.dumps(edited(card, path, other_value(value))))
        refused(copy)
    (copy / FILE).write_text(json.dumps(card))
    assert load_model(copy).model_id == card["model_id"]


def replaced(folder, name, content):
    """Another file of a model, under a name that has its hash."""
    card = card_of(folder)
    stem, ending = {"weights_file": ("weights", "safetensors"), "trees_file": ("trees", "txt")}[name]
    file = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}.{ending}"
    (folder / file).write_bytes(content)
    (folder / FILE).write_text(json.dumps(card | {name: file}))


def test_other_weights_under_a_right_name_are_noticed(copy):
    path = copy / card_of(copy)["weights_file"]
    tensors = safetensors.numpy.load(path.read_bytes())
    changed = tensors | {"network.masking.missing": tensors["network.masking.missing"] + 1}
    replaced(copy, "weights_file", safetensors.numpy.save(changed))
    assert "was edited: it describes another model" in refused(copy)
    fewer = {name: array for name, array in tensors.items() if name != "network.masking.missing"}
    for content, said in ((safetensors.numpy.save(fewer), "Missing key"), (b"not safetensors", "header")):
        replaced(copy, "weights_file", content)
        assert "was edited: it describes another model" in refused(copy)
        (copy / FILE).write_text(json.dumps(signed(card_of(copy), content)))
        assert said in refused(copy)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"tree\nversion=v4\nnonsense\n", b"not trees"])
def test_other_trees_under_a_right_name_are_noticed(copy, content):
    replaced(copy, "trees_file", content)
    assert refused(copy)


def test_trees_of_another_model_are_noticed(copy):
    trees = (copy / card_of(copy)["trees_file"]).read_text()
    changed = trees.replace("leaf_value=", "leaf_value=1", 1).encode()
    assert changed != trees.encode()
    replaced(copy, "trees_file", changed)
    assert "was edited: it describes another model" in refused(copy)
    weights = (copy / card_of(copy)["weights_file"]).read_bytes()
    (copy / FILE).write_text(json.dumps(signed(card_of(copy), weights)))
    assert "is damaged: the length of tree 0 isn't as LightGBM writes it; train again" in refused(copy)


@pytest.mark.parametrize("name", ["../weights-0123456789abcdef.safetensors", "/etc/passwd", "weights.pkl", ""])
@pytest.mark.parametrize("which", ["weights_file", "trees_file"])
def test_no_other_file_is_ever_opened(copy, name, which):
    (copy / FILE).write_text(json.dumps(card_of(copy) | {which: name}))
    assert "names a file that isn't a model's" in refused(copy)


def signed(card, weights):
    """A card as a stranger would write it who knows how models are named."""
    content = {key: value for key, value in card.items() if key not in ("model_id", "weights_file", "trees_file")}
    return card | {"model_id": model_files.name_of(content, weights, card["trees_file"])}


HOSTILE = {
    "no points": (("points",), {}),
    "no thresholds": (("f1_thresholds",), {}),
    "no report": (("report",), {}),
    "no calibrations": (("calibrations",), {}),
    "no features": (("features",), {}),
    "half a text": (("report", "counts"), {"\ud800": 1}),
    "other columns": (("features", "listing", "columns"), ["price"]),
    "columns that are a number": (("features", "listing", "columns"), 5),
    "categories that are none": (("features", "look", "known"), [1, 2]),
    "other categories": (("features", "look", "known"), [["color", ["red"]]]),
    "other pieces of text": (("features", "title", "ngrams"), ["a"]),
    "a sentence encoder": (("features", "title", "ngrams"), None),
    "a scale that is no number": (("features", "title", "scale"), "large"),
    "a larger network": (("config", "network", "hidden_dim"), 9),
    "spaces that are no text": (("spaces",), {"seller": 3}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_stranger_who_names_the_model_rightly_gets_a_line_too(copy, later, what):
    path, value = HOSTILE[what]
    card = edited(card_of(copy), path, value)
    (copy / FILE).write_text(json.dumps(card))
    try:
        weights = (copy / card["weights_file"]).read_bytes()
        (copy / FILE).write_text(json.dumps(signed(card, weights)))
    except UnicodeEncodeError:
        assert what == "half a text"
    refused(copy)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), other=st.binary(min_size=1, max_size=30), which=st.integers(0, 2))
def test_any_bytes_in_a_file_are_noticed(fused, tmp_path_factory, where, other, which):
    folder = shutil.copytree(fused, tmp_path_factory.mktemp("damaged") / "model")
    path = sorted(folder.iterdir())[which]
    content = path.read_bytes()
    start = int(where * len(content))
    changed = content[:start] + other + content[start + len(other) :]
    path.write_bytes(changed)
    if changed == content:
        load_model(folder)
    else:
        refused(folder)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("written", range(3))
def test_a_kill_leaves_the_old_model_or_the_new_one(listed, fused, copy, config_file, tmp_path, monkeypatch, written):
    """The JSON comes last, and what it doesn't name is removed after it."""
    other = tmp_path / "other.toml"
    other.write_text(config_file.read_text().replace("max_epochs = 6", "max_epochs = 5"))
    replace, moves = os.replace, []

    def dying(self, target):
        if len(moves) == written:
            raise Killed
        moves.append(target.name)
        replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", dying)
        with pytest.raises(Killed):
            fuse_train(listed, other, copy)
    assert load_model(copy).model_id == load_model(fused).model_id
    fuse_train(listed, other, copy)
    fuse_train(listed, other, tmp_path / "new")
    assert folder_bytes(copy) == folder_bytes(tmp_path / "new") != folder_bytes(fused)


def test_a_first_save_that_was_killed_can_be_done_again(listed, fused, config_file, tmp_path, monkeypatch):
    def dying(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(model_files, "write_json", dying)
        with pytest.raises(Killed):
            fuse_train(listed, config_file, tmp_path / "model")
    assert "is not a fused classifier" in refused(tmp_path / "model")
    fuse_train(listed, config_file, tmp_path / "model")
    assert folder_bytes(tmp_path / "model") == folder_bytes(fused)


def test_the_identity_is_of_all_that_is_kept(fused):
    card = card_of(fused)
    content = {key: value for key, value in card.items() if key not in ("model_id", "weights_file", "trees_file")}
    assert card["model_id"] != definition_hash(content)
    weights = (fused / card["weights_file"]).read_bytes()
    assert card["model_id"] == model_files.name_of(content, weights, card["trees_file"])
    assert card["model_id"] != model_files.name_of(content, weights, "trees-0123456789abcdef.txt")
    assert card["model_id"] != model_files.name_of(content, weights + b" ", card["trees_file"])
