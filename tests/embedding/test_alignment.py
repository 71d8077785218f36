import json
import shutil
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import safetensors.numpy
from sklearn.linear_model import LogisticRegression

from infobehavior import InputError, align, embed, pretrain
from infobehavior.artefacts import read_json, write_json
from infobehavior.cli import main
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.embedding.alignment import ALIGNMENT_FILE, Alignment
from infobehavior.embedding.earlier import digest_of
from small_minutes import folder_bytes, random_events, small_minutes, tiny_config, write_moments

DAYS = ("2024-03-30", "2024-03-31", "2024-04-01")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Embeddings of 40 accounts by two trainings of other seeds, on three days."""
    folder = tmp_path_factory.mktemp("tables")
    minutes = small_minutes(folder, random_events(seed=6, num_entities=40, minutes_each=30))
    for seed in (0, 1):
        pretrain(minutes.path, folder / f"model {seed}", config=tiny_config(seed=seed))
        for day in DAYS:
            embed(minutes.path, folder / f"model {seed}", folder / f"table {seed}", date=day)
    return folder / "table 0", folder / "table 1"


def turned(table, out, noise=0.0, dim=None, seed=0):
    """The same accounts in a space that is turned, reflected, shifted and stretched."""
    draw = np.random.default_rng(seed)
    shutil.copytree(table, out)
    definition = read_json(out / "_definition.json", "a table")
    old_dim = definition["embedding_dim"]
    dim = dim or old_dim
    turn, _ = np.linalg.qr(draw.normal(size=(max(dim, old_dim), max(dim, old_dim))))
    write_json(out / "_definition.json", definition | {"model_id": "another", "embedding_dim": dim})
    for file in out.glob("ds=*/*.parquet"):
        rows = pq.ParquetFile(file).read()
        old = np.array(rows["embedding"].to_pylist(), dtype=np.float32)
        new = 3 * (old @ turn[:old_dim, :dim]) + 5 + noise * draw.normal(size=(len(old), dim))
        column = pa.FixedSizeListArray.from_arrays(pa.array(new.astype(np.float32).ravel()), dim)
        pq.write_table(rows.set_column(2, "embedding", column).replace_schema_metadata(None), file)
    return out


def vectors(table, day):
    return read_embeddings(table, day).vectors


def test_a_space_that_is_turned_reflected_shifted_and_stretched_is_found(tables, tmp_path):
    other = turned(tables[0], tmp_path / "other")
    summary = align(other, tmp_path / "out", to=tables[0], date=DAYS[0])
    assert summary.told["residual"] < 1e-5
    assert (summary.told["num_fitted"], summary.told["num_held_out"]) == (32, 8)
    assert summary.days == tuple(map(date.fromisoformat, DAYS))
    for day in DAYS:
        assert vectors(tmp_path / "out", day) == pytest.approx(vectors(tables[0], day), abs=1e-5)
        windows = [read_embeddings(table, day).windows for table in (tmp_path / "out", tables[0])]
        assert windows[0].equals(windows[1])


@pytest.mark.parametrize("dims", [(12, 12), (20, 8), (8, 20)])
def test_the_scale_is_the_best_for_the_turn(dims):
    """Of spaces of other sizes too, with noise in all dimensions: no other scale that is tried has a smaller error."""
    draw = np.random.default_rng(3)
    new, mixed = draw.normal(size=(400, dims[0])).astype(np.float32), draw.normal(size=dims)
    old = (new @ mixed + draw.normal(size=(400, dims[1]))).astype(np.float32)
    found = Alignment.fit(new, old)
    best = found.residual(new, old)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert replace(found, scale=found.scale * factor).residual(new, old) > best


def test_windows_of_other_moments_are_not_compared(minutes, model_folder, tmp_path):
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(seed=4))
    at = {}
    for hour in ("02", "03"):
        rows = [(f"user {i}", f"2024-04-01T{hour}:00:00Z") for i in range(10)]
        at[hour] = write_moments(rows, tmp_path / f"{hour}.parquet")
    embed(minutes.path, model_folder, tmp_path / "old", as_of=at["02"])
    embed(minutes.path, tmp_path / "model", tmp_path / "new", as_of=at["03"])
    with pytest.raises(InputError, match="have 0 accounts in common"):
        align(tmp_path / "new", tmp_path / "out", to=tmp_path / "old")


def test_a_partition_that_changes_is_known_whatever_its_size(minutes, model_folder, tmp_path):
    """Of a table of moments, whose partitions have no bundles to tell."""
    rows = [(f"user {i}", moment) for i in range(10) for moment in ("2024-04-01T02:00:00Z", "2024-04-01T03:00:00Z")]
    path = write_moments(rows, tmp_path / "as_of.parquet")
    embed(minutes.path, model_folder, tmp_path / "table", as_of=path)
    (partition,) = (tmp_path / "table").glob("ds=*/*.parquet")
    first = digest_of(partition)
    embed(minutes.path, model_folder, tmp_path / "table", as_of=path)
    assert digest_of(partition) == first
    pretrain(minutes.path, tmp_path / "model", config=tiny_config(seed=4))
    embed(minutes.path, tmp_path / "model", tmp_path / "other", as_of=path)
    (other,) = (tmp_path / "other").glob("ds=*/*.parquet")
    assert digest_of(other) != first


@pytest.mark.parametrize("dim", [8, 20])
def test_spaces_of_other_sizes(tables, tmp_path, dim):
    """One with more dimensions holds all; of one with fewer, what it has."""
    other = turned(tables[0], tmp_path / "other", dim=dim)
    residual = align(other, tmp_path / "out", to=tables[0]).told["residual"]
    assert residual < 1e-5 if dim == 20 else 0.01 < residual < 1
    assert vectors(tmp_path / "out", DAYS[0]).shape == vectors(tables[0], DAYS[0]).shape


def test_the_fit_is_the_best_turn(tables):
    """No other turn that is tried has a smaller error."""
    draw = np.random.default_rng(0)
    new, old = (vectors(table, DAYS[-1]) for table in tables)
    found = Alignment.fit(new, old)
    assert found.turn.T @ found.turn == pytest.approx(np.eye(len(found.turn)), abs=1e-5)
    best = found.residual(new, old)
    for _ in range(100):
        small, _ = np.linalg.qr(np.eye(len(found.turn)) + 0.05 * draw.normal(size=found.turn.shape))
        other = Alignment(found.new_mean, found.old_mean, (found.turn @ small).astype(np.float32), found.scale)
        assert other.residual(new, old) > best


def test_a_classifier_survives_a_retraining_as_far_as_the_residual_says(tables, tmp_path):
    """Accounts of two kinds, told apart by a classifier that only knows the old space."""
    old = turned(tables[0], tmp_path / "old", noise=0.5, seed=1)
    before = vectors(old, DAYS[-1])
    kind = before[:, 0] > np.median(before[:, 0])
    classifier = LogisticRegression(C=100, max_iter=10_000).fit(before, kind)
    other = turned(old, tmp_path / "new", noise=0.1, seed=2)
    write_json(other / "_definition.json", read_json(other / "_definition.json", "") | {"model_id": "a third"})
    align(other, tmp_path / "out", to=old, date=DAYS[0])
    assert classifier.score(vectors(tmp_path / "out", DAYS[-1]), kind) > 0.9
    assert classifier.score(vectors(other, DAYS[-1]), kind) < 0.8


def test_two_trainings_are_aligned_a_day_after_the_other_and_again_to_the_same_bytes(tables, tmp_path):
    old, new = shutil.copytree(tables[0], tmp_path / "old"), shutil.copytree(tables[1], tmp_path / "new")
    later = tmp_path / "later" / DAYS[-1]
    later.parent.mkdir()
    (new / f"ds={DAYS[-1]}").rename(later)
    assert main(["align", str(new), "--to", str(old), "--out", str(tmp_path / "out"), "--date", DAYS[0]]) == 0
    shutil.rmtree(old)
    later.rename(new / f"ds={DAYS[-1]}")
    summary = align(new, tmp_path / "out")
    assert summary.days == (date.fromisoformat(DAYS[-1]),)
    assert 0 < summary.told["residual_of_fit"] < summary.told["residual"] < 2
    align(tables[1], tmp_path / "anew", to=tables[0], date=DAYS[0])
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "anew")
    assert align(new, tmp_path / "out").days == ()
    rows = pq.ParquetFile(new / f"ds={DAYS[1]}" / "embeddings.parquet").read()
    pq.write_table(rows.slice(0, 5), new / f"ds={DAYS[1]}" / "embeddings.parquet")
    assert align(new, tmp_path / "out").days == (date.fromisoformat(DAYS[1]),)
    assert len(vectors(tmp_path / "out", DAYS[1])) == 5
    assert {row["model_id"] for row in pq.read_table(tmp_path / "out" / f"ds={DAYS[1]}").to_pylist()} == {
        summary.told["model_id"]
    }


def test_what_does_not_fit_is_refused(tables, tmp_path):
    old, new = tables
    with pytest.raises(InputError, match="has no alignment yet: give the table of the older model"):
        align(new, tmp_path / "out")
    with pytest.raises(InputError, match="embeddings of the same model"):
        align(new, tmp_path / "out", to=new)
    with pytest.raises(InputError, match="of 2020-01-01: they share 2024-03-30 to 2024-04-01"):
        align(new, tmp_path / "out", to=old, date="2020-01-01")
    with pytest.raises(InputError, match="is not a folder of embeddings"):
        align(new, tmp_path / "out", to=tmp_path)
    assert not (tmp_path / "out" / ALIGNMENT_FILE).exists()
    before = [folder_bytes(table) for table in tables]
    for taken in tables:
        with pytest.raises(InputError, match="has files that aren't an aligned table"):
            align(new, taken, to=old)
    assert [folder_bytes(table) for table in tables] == before
    align(new, tmp_path / "out", to=old)
    with pytest.raises(InputError, match="was aligned by the day 2024-04-01, not 2024-03-30"):
        align(new, tmp_path / "out", date=DAYS[0])
    with pytest.raises(InputError, match="give another --out"):
        align(old, tmp_path / "out")
    with pytest.raises(InputError, match="aligns to model"):
        align(new, tmp_path / "out", to=turned(old, tmp_path / "other"))
    (tmp_path / "out" / ALIGNMENT_FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not an alignment"):
        align(new, tmp_path / "out")
    alone = shutil.copytree(new, tmp_path / "alone")
    for file in alone.glob("ds=*/*.parquet"):
        rows = pq.ParquetFile(file).read()
        pq.write_table(rows.set_column(0, "entity_id", pa.array([f"other {i}" for i in range(len(rows))])), file)
    with pytest.raises(InputError, match="have 0 accounts in common on 2024-04-01: too few to align"):
        align(alone, tmp_path / "out 2", to=old)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda told, tensors: told.pop("new_model"), "new_model: Field required"),
        (lambda told, tensors: told.update(residual="small"), "residual: Input should be a valid number"),
        (lambda told, tensors: told.update(old_dim=5), "its tensors are"),
        (lambda told, tensors: tensors.update(turn=tensors["turn"][:3].copy()), "its tensors are"),
        (lambda told, tensors: tensors.update(turn=tensors["turn"].astype(np.int32)), "its tensors are"),
        (lambda told, tensors: tensors.pop("turn"), "turn"),
    ],
)
def test_an_alignment_that_lacks_a_part_is_told_in_a_line(tables, tmp_path, damage, message):
    align(tables[1], tmp_path / "out", to=tables[0])
    path = tmp_path / "out" / ALIGNMENT_FILE
    with safetensors.safe_open(str(path), framework="numpy") as file:
        told = json.loads(file.metadata()["alignment"])
        tensors = {name: file.get_tensor(name) for name in ("new_mean", "old_mean", "turn")}
    damage(told, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"alignment": json.dumps(told)}))
    shutil.rmtree(tmp_path / "out" / f"ds={DAYS[0]}")
    with pytest.raises(InputError, match=f"is not an alignment .*{message}"):
        align(tables[1], tmp_path / "out")


def as_lists(rows):
    return rows.set_column(2, "embedding", rows["embedding"].cast(pa.list_(pa.float32())))


def shorter(rows):
    return rows.set_column(2, "embedding", pa.array([[1.0]] * len(rows), pa.list_(pa.float32(), 1)))


def some_null(rows):
    dim = rows["embedding"].type.list_size
    return rows.set_column(2, "embedding", pa.array([None, *([[1.0] * dim] * (len(rows) - 1))], rows["embedding"].type))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop_columns(["embedding"]), "has no column embedding; embed that day again"),
        (lambda rows: rows.drop_columns(["entity_id", "model_id"]), "has no column entity_id, model_id"),
        (as_lists, r"embeddings.parquet has embeddings of type list<.*>, expected lists of float32 of one length"),
        (shorter, "has embeddings of 1 numbers, but the alignment is of"),
        (some_null, r"embeddings.parquet has embeddings that are null"),
        (None, "is damaged .*; embed that day again"),
    ],
)
def test_a_partition_that_something_else_wrote_is_told_in_a_line(tables, tmp_path, change, message):
    new, out = shutil.copytree(tables[1], tmp_path / "new"), tmp_path / "out"
    partition = new / f"ds={DAYS[-1]}" / "embeddings.parquet"
    whole = pq.ParquetFile(partition).read()
    align(new, out, to=tables[0])
    if change:
        pq.write_table(change(whole), partition)
    else:
        partition.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=message):
        align(new, out)
    if change is not shorter:
        with pytest.raises(InputError, match=message):
            align(new, tmp_path / "other", to=tables[0], date=DAYS[-1])
    pq.write_table(whole.slice(0, 0), partition)
    assert align(new, out).days == (date.fromisoformat(DAYS[-1]),)
    assert pq.read_metadata(out / f"ds={DAYS[-1]}" / "embeddings.parquet").num_rows == 0
