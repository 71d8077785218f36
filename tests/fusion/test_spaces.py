"""Embeddings of another model than that of the training are refused, however they are given."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusion.examples import MODEL, small_config, write_embeddings
from infobehavior.errors import InputError
from infobehavior.fusion.config import Group
from infobehavior.fusion.evaluation import fuse_evaluate
from infobehavior.fusion.fuse import fuse_predict, fuse_train
from infobehavior.fusion.model_folder import load_model
from infobehavior.fusion.spaces import embedding_space, embedding_spaces, unknown_spaces
from small_minutes import folder_bytes

OTHER = "f" * 16
UNKNOWN = "warning: nothing tells which model made the embeddings of seller, so those of another one aren't noticed"


@pytest.mark.parametrize(
    ("definition", "space"),
    [
        ('{"model_id": "m"}', "m"),
        ('{"model_id": "m", "aligned": {"old_model": "old"}}', "old"),
        ("{}", None),
    ],
)
def test_the_space_of_a_table(tmp_path, definition, space):
    assert embedding_space(tmp_path) is None
    (tmp_path / "_definition.json").write_text(definition)
    assert embedding_space(tmp_path) == space


@pytest.mark.parametrize("definition", ["[1]", "{", ""])
def test_a_damaged_definition(tmp_path, definition):
    (tmp_path / "_definition.json").write_text(definition)
    with pytest.raises(InputError, match=r"_definition\.json is damaged"):
        embedding_space(tmp_path)


def space_of(table, **group):
    return embedding_spaces({"g": Group(**({"kind": "representation", "table": table} | group))}).get("g")


def as_folder_of_day(table):
    return table / "ds=2024-03-30"


def as_file_of_day(table):
    return table / "ds=2024-03-30" / "embeddings.parquet"


def as_plain_folder(table):
    (table / "_definition.json").unlink()
    return table


def as_one_file(table):
    rows = [pq.read_table(path, partitioning=None) for path in sorted(table.glob("ds=*/*.parquet"))]
    pq.write_table(pa.concat_tables(rows), table.parent / "all.parquet")
    return table.parent / "all.parquet"


FORMS = [as_folder_of_day, as_file_of_day, as_plain_folder, as_one_file]


@pytest.mark.parametrize("kind", ["representation", "vector"])
@pytest.mark.parametrize("form", FORMS)
def test_the_space_is_known_in_whatever_form_a_table_is_given(tmp_path, form, kind):
    """A group of vectors without columns takes the embeddings too."""
    assert space_of(form(write_embeddings(tmp_path / "sellers")), kind=kind) == MODEL


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_day_of_an_aligned_table_is_in_the_older_space(tmp_path, form):
    """Its rows have the name of the alignment."""
    table = write_embeddings(tmp_path / "sellers", model="a" * 16)
    definition = {"kind": "embeddings", "model_id": "a" * 16, "aligned": {"old_model": MODEL}}
    (table / "_definition.json").write_text(json.dumps(definition))
    assert space_of(form(table)) == MODEL


def test_rows_of_several_models_are_refused(tmp_path):
    table = as_plain_folder(write_embeddings(tmp_path / "sellers"))
    other = as_file_of_day(write_embeddings(tmp_path / "other", model=OTHER))
    shutil.move(other, as_folder_of_day(table) / "more.parquet")
    said = f"sellers has embeddings of several models, such as {MODEL} and {OTHER}; keep those of one"
    with pytest.raises(InputError, match=said):
        space_of(table)
    assert space_of(table, kind="numbers", columns=("score",)) is None  # there it may mean anything
    for columns in ((), ("embedding",)):
        with pytest.raises(InputError, match=said):
            space_of(table, kind="vector", columns=columns)


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
@pytest.mark.parametrize("form", FORMS)
def test_embeddings_of_another_model_are_refused_in_any_form(later, fused, tmp_path, command, form):
    table = form(write_embeddings(tmp_path / "sellers", model=OTHER))
    said = f"group seller was trained on embeddings of model {MODEL}, but .* has those of {OTHER}: "
    with pytest.raises(InputError, match=said + "`infobehavior align` them, or train again"):
        command(later, fused, tmp_path / "out", tables={"seller": table})
    assert not (tmp_path / "out").exists()


def as_vectors(table, columns=()):
    """A configuration that takes embeddings for any vectors, as it takes those of pictures."""
    return small_config(table, groups={"seller": {"kind": "vector", "table": str(table), "columns": list(columns)}})


@pytest.fixture(scope="module")
def fused_vectors(listed, tmp_path_factory):
    """Trained on one file, which tells of the model in its rows alone."""
    folder = tmp_path_factory.mktemp("vectors")
    fuse_train(listed, as_vectors(as_one_file(write_embeddings(folder / "sellers"))), folder / "model")
    return folder / "model"


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
@pytest.mark.parametrize("form", FORMS)
def test_embeddings_of_another_model_are_refused_as_any_vectors_too(later, fused_vectors, tmp_path, command, form):
    table = form(write_embeddings(tmp_path / "sellers", model=OTHER))
    with pytest.raises(InputError, match=f"group seller was trained on embeddings of model {MODEL}, but .* of {OTHER}"):
        command(later, fused_vectors, tmp_path / "out", tables={"seller": table})


@pytest.mark.parametrize("columns", [(), ("picture",)])
@pytest.mark.parametrize("models", [None, ["camera one", "camera two"]])
def test_vectors_that_are_no_embeddings_are_joined_as_they_are(listed, later, tmp_path, columns, models):
    """Such as those of pictures, whose models may be cameras."""
    path = without_models(write_embeddings(tmp_path / "sellers"))
    table = pq.read_table(path).rename_columns({"embedding": "picture"})
    if models:
        table = table.append_column("model_id", pa.array([models[i % 2] for i in range(len(table))]))
    pq.write_table(table, path)
    trained = fuse_train(listed, as_vectors(path, columns=columns), tmp_path / "model")
    predicted = fuse_predict(later, tmp_path / "model", tmp_path / "out")
    assert not any("which model made" in line for line in (*trained.lines(), *predicted.lines()))
    assert trained.model.spaces == {}
    assert predicted.num_examples == 120


def without_models(table):
    """A table that tells of no model."""
    path = as_one_file(table)
    pq.write_table(pq.read_table(path).drop_columns(["model_id"]), path)
    return path


@pytest.mark.parametrize("command", [fuse_predict, fuse_evaluate])
def test_a_table_that_tells_of_no_model_is_warned_of(later, fused, tmp_path, command):
    tables = {"seller": without_models(write_embeddings(tmp_path / "sellers"))}
    lines = command(later, fused, tmp_path / "out", tables=tables).lines()
    assert lines.count(UNKNOWN) == 1
    told = command(later, fused, tmp_path / "usual").lines()
    assert UNKNOWN not in told
    assert {*lines} - {*told} == {UNKNOWN, lines[-1]}


def test_a_training_that_does_not_know_the_model_warns_of_it_and_so_do_its_predictions(listed, later, tmp_path):
    table = write_embeddings(tmp_path / "sellers")
    unnamed = without_models(table)
    trained = fuse_train(listed, small_config(unnamed), tmp_path / "model")
    assert UNKNOWN in trained.lines()
    assert load_model(tmp_path / "model").spaces == {}
    named = fuse_predict(later, tmp_path / "model", tmp_path / "one", tables={"seller": table})
    assert UNKNOWN in named.lines()
    fuse_predict(later, tmp_path / "model", tmp_path / "other", tables={"seller": unnamed})
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "other")


def test_groups_that_are_no_embeddings_are_not_warned_of(tmp_path):
    groups = {
        "totals": Group(kind="numbers", table=tmp_path / "totals.parquet"),
        "price": Group(kind="numbers", columns=("price",)),
        "own": Group(kind="representation", columns=("vector",)),
    }
    assert unknown_spaces(groups, {}) == []
