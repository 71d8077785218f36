from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from infobehavior import BehaviorTransformer, embed
from infobehavior.errors import InputError
from small_minutes import FIRST_DAY, small_minutes, small_schema, write_moments

EMBEDDING_DIM = 12


@pytest.fixture(scope="module")
def transformer(minutes, model_folder):
    return BehaviorTransformer(minutes.path, model_folder).fit(None)


@pytest.fixture(scope="module")
def rows():
    """Not sorted, with several moments an entity, the same row twice, and rows without events."""
    frame = pd.DataFrame(
        [(f"user {(7 * i) % 10}", FIRST_DAY + timedelta(days=2 + i % 7, seconds=977 * i)) for i in range(24)],
        columns=["entity_id", "as_of"],
    )
    far = pd.DataFrame({"entity_id": ["nobody", "user 1"], "as_of": [FIRST_DAY, FIRST_DAY - timedelta(days=50)]})
    return pd.concat([frame, far, frame[3:5]], ignore_index=True)


@pytest.fixture(scope="module")
def matrix(transformer, rows):
    return transformer.transform(rows)


def test_rows_are_those_of_the_table_in_the_order_asked_for(minutes, model_folder, rows, matrix, tmp_path):
    path = write_moments(list(rows.itertuples(index=False, name=None)), tmp_path / "as_of.parquet")
    embed(minutes.path, model_folder, tmp_path / "out", as_of=path)
    read = duckdb.sql(f"SELECT entity_id, epoch_us(as_of), embedding FROM '{tmp_path}/out/ds=*/*.parquet'").fetchall()
    vectors = {(who, as_of): vector for who, as_of, vector in read}
    assert matrix.shape == (len(rows), EMBEDDING_DIM)
    assert matrix.dtype == np.float32
    for (who, as_of), vector in zip(rows.itertuples(index=False, name=None), matrix, strict=True):
        expected = vectors.get((who, int(as_of.timestamp() * 1e6)), [0] * EMBEDDING_DIM)
        np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-6)
    assert len(read) > 15


def test_duplicates_and_rows_without_events(matrix):
    assert (matrix[-2:] == matrix[3:5]).all()
    assert matrix[3:5].any(axis=1).all()
    assert not matrix[24:26].any()


def test_the_order_of_rows_is_kept(transformer, rows, matrix):
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(transformer.transform(rows.iloc[order]), matrix[order])


def test_frames_and_arrays_and_ways_to_write_a_moment(transformer, rows, matrix):
    local = rows["as_of"].dt.tz_convert("Europe/Berlin")
    ways = [
        rows[["as_of", "entity_id"]].assign(more=1),
        rows.to_numpy(),
        rows.to_numpy().tolist(),
        np.array([rows["entity_id"], rows["as_of"].map(str)], dtype=object).T,
        np.array([rows["entity_id"], rows["as_of"].map(pd.Timestamp.isoformat)]).T,
        rows.assign(as_of=local),
        rows.assign(as_of=local.dt.tz_localize(None)),
        rows.astype({"entity_id": "category"}),
        rows.set_index(np.arange(len(rows)) * 3),
    ]
    for way in ways:
        np.testing.assert_array_equal(transformer.transform(way), matrix)


def test_a_date_is_its_local_midnight(transformer):
    one, other = transformer.transform([("user 3", date(2024, 4, 2)), ("user 3", datetime(2024, 4, 2))])
    assert one.any()
    assert (one == other).all()


def test_no_rows(transformer):
    nothing = transformer.transform(pd.DataFrame({"entity_id": [], "as_of": []}))
    assert nothing.shape == (0, EMBEDDING_DIM)
    assert transformer.transform(np.empty((0, 2), dtype=object)).shape == (0, EMBEDDING_DIM)


def test_in_a_pipeline(minutes, model_folder, rows):
    label = np.arange(len(rows)) % 2
    pipeline = make_pipeline(BehaviorTransformer(minutes.path, model_folder), StandardScaler(), LogisticRegression())
    probability = pipeline.fit(rows, label).predict_proba(rows)
    assert probability.shape == (len(rows), 2)
    np.testing.assert_allclose(clone(pipeline).fit(rows, label).predict_proba(rows), probability)
    names = pipeline[:-1].get_feature_names_out()
    assert names.tolist() == [f"infobehavior_{i}" for i in range(EMBEDDING_DIM)]


def test_a_frame_on_request(minutes, model_folder, rows, matrix):
    framed = BehaviorTransformer(minutes.path, model_folder).set_output(transform="pandas").fit_transform(rows)
    assert list(framed.columns) == [f"infobehavior_{i}" for i in range(EMBEDDING_DIM)]
    assert (framed.index == rows.index).all()
    np.testing.assert_array_equal(framed.to_numpy(), matrix)


def test_clones_are_not_fitted(transformer, rows):
    other = clone(transformer)
    assert (
        other.get_params() == transformer.get_params() == {"minutes": transformer.minutes, "model": transformer.model}
    )
    with pytest.raises(NotFittedError):
        other.transform(rows)
    with pytest.raises(NotFittedError):
        other.get_feature_names_out()


def test_null_and_unreadable_rows(transformer):
    with pytest.raises(InputError, match="as_of is null in 1 of 2 rows"):
        transformer.transform(pd.DataFrame({"entity_id": ["a", "b"], "as_of": [pd.NaT, pd.Timestamp("2024-04-01")]}))
    with pytest.raises(InputError, match="entity_id is null in 1 of 1 rows"):
        transformer.transform([(None, "2024-04-01")])
    with pytest.raises(InputError, match="as_of can't be read as a moment: 'soon'"):
        transformer.transform([("user 1", "soon")])


def test_a_frame_without_the_columns(transformer, rows):
    with pytest.raises(InputError, match=r"have no column as_of; they have \['entity_id', 'moment'\]"):
        transformer.transform(rows.rename(columns={"as_of": "moment"}))


def test_an_array_of_another_shape(transformer):
    with pytest.raises(InputError, match="two columns"):
        transformer.transform(np.array([["user 1"]]))


def test_fitting_checks_that_minutes_and_model_belong_together(events, minutes, model_folder, tmp_path):
    other = small_minutes(tmp_path, events, small_schema(extra=[]))
    with pytest.raises(InputError, match=f"schema {minutes.hash}, but .* has schema {other.hash}"):
        BehaviorTransformer(other.path, model_folder).fit(None)
    with pytest.raises(InputError, match="is not a model"):
        BehaviorTransformer(minutes.path, tmp_path).fit(None)
