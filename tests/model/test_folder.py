"""A model's folder: what is in it, what every kind of damage says, and what a kill leaves behind."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import infobehavior.model.infobehavior as module
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.schema import PAPER_FAST, Columns, Schema
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import Windows
from infobehavior.errors import InputError
from infobehavior.model.config import EncoderConfig
from infobehavior.model.infobehavior import InfoBehavior

from .reference import Minute, make_store

END = 22_720_000
CONFIG = EncoderConfig(
    window_days=2, minute_dim=4, num_feature_maps=4, num_layers=1, num_heads=2, head_dim=3, feedforward_dim=5
)
STORE = make_store(
    [[Minute(END - 9 * i, {i % 4: 1 + i % 3}, frozenset(["Köln", "Oslo"][: i % 3])) for i in range(1, 300)]]
)


def make_model(seed: int = 0, min_count: int = 2, **changes: Any) -> InfoBehavior:
    torch.manual_seed(seed)
    vocabulary = Vocabulary.fit(STORE, "0123456789abcdef", min_count)
    model = InfoBehavior(CONFIG.model_copy(update=changes), vocabulary, "Europe/Oslo")
    model.pretraining = {"config": {"seed": seed}, "key": "a key"}
    return model.eval()


@torch.no_grad()
def embed(model: InfoBehavior) -> torch.Tensor:
    windows = Windows.cut(STORE, np.array([0, 0]), np.array([END, END - 500]), CONFIG.window_minutes)
    return model(model.tokenizer(STORE).batch(windows)).global_repr


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds a model."""
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def read(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return card


def edit(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(read(folder) | changes))


# What comes back -----------------------------------------------------------------------------------------------------


def test_what_comes_back_is_what_was_saved(folder: Path) -> None:
    saved, loaded = make_model(), InfoBehavior.from_pretrained(folder)

    assert loaded.state_dict().keys() == saved.state_dict().keys()
    for name, weight in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert loaded.config == saved.config
    assert loaded.vocabulary == saved.vocabulary
    assert loaded.time_zone == "Europe/Oslo"
    assert loaded.pretraining == saved.pretraining
    assert loaded.model_id == saved.model_id
    assert not loaded.training
    assert torch.equal(embed(loaded), embed(saved))


def test_only_safetensors_and_json(folder: Path) -> None:
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert len(names(folder)) == 3
    safetensors.torch.load_file(only(folder, "*.safetensors"))
    for path in folder.glob("*.json"):
        json.loads(path.read_text())


def test_same_model_same_bytes(folder: Path, tmp_path: Path) -> None:
    InfoBehavior.from_pretrained(folder).save_pretrained(tmp_path / "again")

    assert names(folder) == names(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_id_changes_with_whatever_decides_the_embeddings() -> None:
    models = [
        make_model(),
        make_model(seed=1),
        make_model(min_count=60),
        make_model(behavior_rows="composite_and_parts"),
        make_model(span_scale="window"),
        make_model(),
    ]
    models[-1].time_zone = "Asia/Kolkata"

    assert len({model.model_id for model in models}) == len(models)
    assert make_model().model_id == make_model().model_id


def test_a_folder_may_be_given_as_text(tmp_path: Path) -> None:
    make_model().save_pretrained(str(tmp_path / "deep" / "model"))

    assert InfoBehavior.from_pretrained(str(tmp_path / "deep" / "model")).model_id == make_model().model_id


# Damage --------------------------------------------------------------------------------------------------------------


def lose(pattern: str) -> Callable[[Path], None]:
    return lambda folder: only(folder, pattern).unlink()


def truncate(pattern: str) -> Callable[[Path], None]:
    return lambda folder: only(folder, pattern).write_bytes(only(folder, pattern).read_bytes()[:-7])


def put(pattern: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: only(folder, pattern).write_bytes(content)


def change(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **changes)


def forget(field: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        card = read(folder)
        del card[field]
        (folder / "config.json").write_text(json.dumps(card))

    return damage


def take_from(pattern: str, **changes: Any) -> Callable[[Path], None]:
    """Put another model's file in the place of this one's."""

    def damage(folder: Path) -> None:
        other = make_model(**changes)
        other.save_pretrained(folder.parent / "other")
        only(folder, pattern).write_bytes(only(folder.parent / "other", pattern).read_bytes())

    return damage


def replace_weights(make: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """Other weights, with the hash that they should have."""

    def damage(folder: Path) -> None:
        path = only(folder, "*.safetensors")
        content = safetensors.torch.save(make(safetensors.torch.load_file(path)))
        path.write_bytes(content)
        edit(folder, weights_sha256=hashlib.sha256(content).hexdigest())

    return damage


def not_safetensors(folder: Path) -> None:
    only(folder, "*.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    edit(folder, weights_sha256=hashlib.sha256(b"PK\x03\x04 a pickle").hexdigest())


def edit_vocabulary(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = only(folder, "vocabulary-*.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def transposed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "transformer.layers.0.feedforward.0.weight"
    return weights | {name: weights[name].T.contiguous()}


def without_cls(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if name != "transformer.cls"}


def with_one_more(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {"extra.weight": torch.zeros(1)}


ENCODER = CONFIG.model_dump(mode="json")

DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no card": (lose("config.json"), "is not a model: it has no config.json"),
    "another time zone": (change(time_zone="Europe/Berlin"), "was edited"),
    "no time zone": (change(time_zone="Mars/Base"), "time_zone: .*no such time zone"),
    "training that ended in month 13": (
        change(pretraining={"trained_until": "2024-13-01"}),
        "pretraining: .*month",
    ),
    "training that ended at no place": (
        change(pretraining={"trained_until": "2024-12-01"}),
        "pretraining: .*its zone",
    ),
    "an end of training that is a number": (change(pretraining={"trained_until": 5}), "pretraining: .*its zone"),
    "no configuration": (change(pretraining={"config": None}), "pretraining: .*num_threads"),
    "threads that are a text": (change(pretraining={"config": {"num_threads": "x"}}), "pretraining: .*num_threads"),
    "too many threads": (change(pretraining={"config": {"num_threads": 10**9}}), "pretraining: .*num_threads"),
    "an encoder that was edited": (change(encoder=ENCODER | {"behavior_rows": "composite_and_parts"}), "was edited"),
    "no weights": (lose("*.safetensors"), "is not whole: it has no weights-"),
    "no vocabulary": (lose("vocabulary-*.json"), "it has no vocabulary-"),
    "half of the weights": (truncate("*.safetensors"), "is damaged: its SHA-256"),
    "no bytes in the weights": (put("*.safetensors", b""), "is damaged: its SHA-256"),
    "half of the card": (truncate("config.json"), "is damaged, not JSON"),
    "half of the vocabulary": (truncate("vocabulary-*.json"), "is damaged, not JSON"),
    "bytes that are no text": (put("config.json", b"\xff\xfe\x00"), "is damaged, not JSON"),
    "a card that is a list": (put("config.json", b"[]"), "is not a model's"),
    "a card that is a number": (put("config.json", b"7"), "is not a model's"),
    "a card of another kind": (change(kind="minutes"), "holds a minutes of format 1; expected a model"),
    "a card of a later format": (change(format=2), "holds a model of format 2; expected a model of format 1"),
    "a field too many": (change(surprise=1), "surprise: Extra inputs are not permitted"),
    "a field too few": (forget("weights_file"), "weights_file: Field required"),
    "an encoder that cannot be": (change(encoder=ENCODER | {"num_heads": 0}), "encoder.num_heads"),
    "an encoder with a field too many": (change(encoder=ENCODER | {"depth": 3}), "encoder.depth"),
    "strides that lose minutes": (change(encoder=ENCODER | {"stride_minutes": 400}), "minutes between two spans"),
    "a folder above": (change(weights_file="../weights.safetensors"), "names a file outside its folder"),
    "a folder elsewhere": (change(vocabulary_file="/etc/passwd"), "names a file outside its folder"),
    "the folder above": (change(weights_file=".."), "names a file outside its folder"),
    "the folder itself": (change(vocabulary_file="."), "names a file outside its folder"),
    "no file": (change(weights_file=""), "names a file outside its folder"),
    "another model's weights": (take_from("*.safetensors", seed=1), "is damaged: its SHA-256"),
    "another model's vocabulary": (take_from("vocabulary-*.json", min_count=60), "two different models"),
    "a vocabulary without a behavior": (edit_vocabulary(behaviors=[]), "two different models"),
    "a vocabulary of other minutes": (edit_vocabulary(minutes_hash="f" * 16), "two different models"),
    "a vocabulary with a field too many": (edit_vocabulary(surprise=1), "is damaged: it is not a vocabulary"),
    "a vocabulary that is none": (put("vocabulary-*.json", b"3"), "is damaged: it is not a vocabulary"),
    "a card of other minutes": (change(minutes_hash="f" * 16), "two different models"),
    "no safetensors": (not_safetensors, "is not a safetensors file"),
    "a weight of another shape": (
        replace_weights(transposed),
        r"feedforward.0.weight should be of shape \(5, 6\) and is of shape \(6, 5\)",
    ),
    "a weight too few": (replace_weights(without_cls), r"transformer.cls should be of shape \(6,\) and is absent"),
    "a weight too many": (replace_weights(with_one_more), r"extra.weight should be absent and is of shape \(1,\)"),
    "weights of another encoder": (change(encoder=ENCODER | {"minute_dim": 5}), r"should be of shape .* and is"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_an_input_error_of_one_line(name: str, folder: Path) -> None:
    damage, told = DAMAGES[name]
    damage(folder)

    with pytest.raises(InputError, match=told) as error:
        InfoBehavior.from_pretrained(folder)

    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is not a model: it has no config\.json"):
        InfoBehavior.from_pretrained(tmp_path / "nowhere")


def minutes_of(model_hash: str) -> MinuteTable:
    schema = Schema(columns=Columns(entity="who", timestamp="when", behavior="what"), behaviors={"login": PAPER_FAST})
    return MinuteTable(Path("MINUTES"), schema, model_hash, "BIGINT", ())


def test_minutes_of_another_schema(folder: Path) -> None:
    model = InfoBehavior.from_pretrained(folder)
    model.check_minutes(minutes_of("0123456789abcdef"))

    with pytest.raises(InputError, match="schema 0123456789abcdef, but MINUTES has schema ffffffffffffffff"):
        model.check_minutes(minutes_of("f" * 16))


# Saving over an older model, and kills -------------------------------------------------------------------------------


def test_an_older_model_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    newer = make_model(seed=1, min_count=60)
    newer.save_pretrained(folder)
    newer.save_pretrained(tmp_path / "fresh")

    assert names(folder) == names(tmp_path / "fresh")
    assert InfoBehavior.from_pretrained(folder).model_id == newer.model_id


def test_files_that_are_not_the_models_stay(folder: Path) -> None:
    (folder / "training_log.jsonl").write_text("{}\n")

    make_model(seed=1).save_pretrained(folder)

    assert (folder / "training_log.jsonl").read_text() == "{}\n"


class Killed(BaseException):
    """Stands for a kill: nothing of the package may catch it."""


def refuse(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("where", ["write_bytes", "write_json", "_remove_others", "Vocabulary.save"])
def test_a_kill_between_two_writes_leaves_a_whole_model(
    where: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = make_model(), make_model(seed=1, min_count=60)
    with monkeypatch.context() as patch:
        owner = module.Vocabulary if where == "Vocabulary.save" else module
        patch.setattr(owner, where.removeprefix("Vocabulary."), refuse)
        with pytest.raises(Killed):
            newer.save_pretrained(folder)

    expected = newer if where == "_remove_others" else older
    assert torch.equal(embed(InfoBehavior.from_pretrained(folder)), embed(expected))
    newer.save_pretrained(folder)
    assert len(names(folder)) == 3
    assert InfoBehavior.from_pretrained(folder).model_id == newer.model_id


def test_a_full_disk_leaves_the_older_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path, content: bytes) -> None:
        Path.write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    before = names(folder)
    monkeypatch.setattr("infobehavior.artefacts._write_bytes", half)

    with pytest.raises(OSError, match="No space left"):
        make_model(seed=1).save_pretrained(folder)

    assert names(folder) == before
    assert InfoBehavior.from_pretrained(folder).model_id == make_model().model_id
