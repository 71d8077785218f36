import json
import shutil
from datetime import timedelta

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from downstream.examples import AS_OF, windows_of, write_embeddings
from infobehavior.downstream.embeddings import read_embeddings
from infobehavior.downstream.labels import join_labels, read_labels
from infobehavior.errors import InputError


@pytest.fixture
def table(tmp_path):
    """Writes a table of labels and reads it."""

    def write_and_read(columns, label="y", group=None, csv=False):
        path = tmp_path / ("labels.csv" if csv else "labels.parquet")
        if csv:
            pyarrow.csv.write_csv(pa.table(columns), path)
        else:
            pq.write_table(pa.table(columns), path)
        return read_labels(path, label, group, "Europe/Berlin")

    return write_and_read


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1, 1, None], ("0", "1")),
        ([False, True, True, None], ("False", "True")),
        ([0.0, 1.0, 1.0, None], ("0.0", "1.0")),
        (["fine", "fraud", "fraud", None], ("fine", "fraud")),
        (["0", "1", "1", None], ("0", "1")),
    ],
)
def test_kinds_of_labels(table, values, classes, csv):
    labels = table({"entity_id": [1, 2, 3, 4], "y": values}, csv=csv)
    assert labels.table["positive"].to_pylist() == [False, True, True, None]
    assert [name.lower().removesuffix(".0") for name in labels.classes] == [
        name.lower().removesuffix(".0") for name in classes
    ]


def test_nan_is_no_label(table):
    labels = table({"entity_id": [1, 2, 3], "y": [0.0, float("nan"), 1.0]})
    assert labels.table["positive"].to_pylist() == [False, None, True]


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 1, 1], r"column 'y' has one class: all labels are '?1'?$"),
        (["a", "a", None], r"column 'y' has one class: all labels are 'a'$"),
        (["a", "b", "c"], r"column 'y' has 3 classes \('a', 'b', 'c'\); expected two$"),
        ([0, 1, 2], r"column 'y' has 3 classes"),
        ([1, 2, 1], r"column 'y' has the numbers .*; expected 0 and 1"),
        ([-1, 1, 1], r"column 'y' has the numbers .*; expected 0 and 1"),
    ],
)
def test_bad_labels(table, values, message, csv):
    with pytest.raises(InputError, match=message):
        table({"entity_id": [1, 2, 3], "y": values}, csv=csv)


def test_no_label_at_all(table):
    with pytest.raises(InputError, match=r"column 'y' has no label: all 2 rows are null"):
        table({"entity_id": [1, 2], "y": pa.array([None, None], pa.int8())})


def test_missing_columns_and_files(table, tmp_path):
    columns = {"entity_id": [1, 2], "y": [0, 1], "person": ["a", "b"]}
    with pytest.raises(InputError, match=r"has no column 'z'; it has entity_id, y, person"):
        table(columns, label="z")
    with pytest.raises(InputError, match=r"has no column 'people'; it has entity_id, y, person"):
        table(columns, group="people")
    with pytest.raises(InputError, match=r"has no column 'entity_id'; it has who"):
        table({"who": [1]})
    with pytest.raises(InputError, match=r"there is no file "):
        read_labels(tmp_path / "none.csv", "y", None, "UTC")
    (tmp_path / "half.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(InputError, match=r"can't read .*half.parquet as Parquet") as caught:
        read_labels(tmp_path / "half.parquet", "y", None, "UTC")
    assert "\n" not in str(caught.value)


def test_ids_of_a_csv_keep_their_zeros(table):
    labels = table({"entity_id": ["007", "7"], "y": [0, 1]}, csv=True)
    assert labels.table["entity"].to_pylist() == ["007", "7"]


def test_as_of_without_a_zone_is_local_time(table):
    labels = table({"entity_id": [1, 2], "y": [0, 1], "as_of": ["2024-04-14 02:00", "2024-04-14T00:00:00Z"]})
    assert labels.table["as_of"].to_pylist() == [int(AS_OF.timestamp() * 1e6)] * 2


def test_an_as_of_that_is_no_moment(table):
    with pytest.raises(InputError, match=r"as_of can't be read as a moment: 'soon' is not a moment"):
        table({"entity_id": [1, 2], "y": [0, 1], "as_of": ["2024-01-01", "soon"]})


def test_join_counts_what_is_left_out(embeddings, labels):
    data = join_labels(read_embeddings(embeddings), read_labels(labels, "bot", "person", "UTC"), "person")
    assert data.windows["entity_id"].to_pylist() == [0, *range(3, 60)]
    assert data.positive.tolist() == [entity % 4 == 0 for entity in [0, *range(3, 60)]]
    assert data.counts == {
        "windows with an embedding and a label": 58,
        "embeddings without a label": 2,
        "labels without an embedding": 4,
        "rows whose label is null": 2,
        "windows without a group, each with its entity": 1,
    }


def test_groups_are_those_of_the_column_and_null_is_alone(embeddings, labels):
    data = join_labels(read_embeddings(embeddings), read_labels(labels, "bot", "person", "UTC"), "person")
    entities = data.windows["entity_id"].to_pylist()
    for a, group_a in zip(entities, data.groups, strict=True):
        for b, group_b in zip(entities, data.groups, strict=True):
            assert (group_a == group_b) == (a == b or (a % 20 == b % 20 and 3 not in (a, b)))


@pytest.mark.parametrize("column", ["entity_id", "y", "person"])
def test_a_column_of_lists(table, column):
    columns = {"entity_id": [1, 2], "y": [0, 1], "person": ["a", "b"]}
    columns[column] = [[value] for value in columns[column]]
    with pytest.raises(InputError, match=rf"labels.parquet, column '{column}' holds values of type list<"):
        table(columns, group="person")


def test_a_column_that_is_no_text(table):
    columns = {"entity_id": [1, 2], "y": [0, 1], "person": pa.array([b"\xff", b"\xfe"], pa.binary())}
    with pytest.raises(InputError, match=r"labels.parquet, column 'person' can't be read as text: .*UTF"):
        table(columns, group="person")


@pytest.mark.parametrize("csv", [False, True])
def test_labels_of_nobody_are_left_out_and_counted(embeddings, table, csv):
    labels = table({"entity_id": [None, 5, None, 6, 7, None], "y": [0, 0, 1, 1, None, None]}, csv=csv)
    data = join_labels(read_embeddings(embeddings), labels, None)
    assert data.windows["entity_id"].to_pylist() == [5, 6]
    assert data.counts == {
        "windows with an embedding and a label": 2,
        "embeddings without a label": 58,
        "labels without an embedding": 0,
        "rows whose label is null": 2,
        "labels whose entity_id is null": 2,
    }


def test_the_order_of_labels_changes_nothing(embeddings, table):
    orders = [list(range(60)), list(range(59, -1, -1))]
    joined = [
        join_labels(read_embeddings(embeddings), table({"entity_id": ids, "y": [i % 2 for i in ids]}), None)
        for ids in orders
    ]
    assert joined[0].windows.equals(joined[1].windows)
    assert joined[0].positive.tolist() == joined[1].positive.tolist()


def test_text_and_integer_ids_meet(embeddings, table):
    labels = table({"entity_id": [str(i) for i in range(60)], "y": [i % 2 for i in range(60)]})
    assert len(join_labels(read_embeddings(embeddings), labels, None).positive) == 60


def test_labels_that_match_no_entity(embeddings, table):
    labels = table({"entity_id": ["u1", "u2"], "y": [0, 1]})
    with pytest.raises(InputError, match=r"matches no entity of .* \(2 labels, 60 embeddings\).* such as u1, .* as 0$"):
        join_labels(read_embeddings(embeddings), labels, None)


def test_labels_that_match_at_no_moment(embeddings, table):
    labels = table({"entity_id": [1, 2], "y": [0, 1], "as_of": ["2024-01-01", "2024-01-01"]})
    with pytest.raises(InputError, match=r"matches no window .* such as 1 are in both, but at another as_of"):
        join_labels(read_embeddings(embeddings), labels, None)


def test_several_labels_of_an_entity(embeddings, table):
    with pytest.raises(
        InputError, match=r"column 'y' has several labels of entity 5 and has no column as_of; keep one"
    ):
        join_labels(read_embeddings(embeddings), table({"entity_id": [5, 6, 5], "y": [0, 1, 1]}), None)
    twice = table({"entity_id": [5, 6, 5], "y": [0, 1, 1], "as_of": [AS_OF] * 3})
    with pytest.raises(InputError, match=r"several labels of entity 5 at one as_of"):
        join_labels(read_embeddings(embeddings), twice, None)


@pytest.fixture
def two_days(account_minutes, tmp_path):
    write_embeddings(tmp_path, windows_of(list(range(8)), AS_OF), account_minutes, "2024-04-13")
    return write_embeddings(tmp_path, windows_of(list(range(8)), AS_OF + timedelta(days=1)), account_minutes)


def test_several_windows_need_as_of_or_a_day(two_days, table):
    by_entity = table({"entity_id": list(range(8)), "y": [0, 1] * 4})
    with pytest.raises(
        InputError, match=r"has several windows of entity 0, .* add it to the labels, or pick .* --date"
    ):
        join_labels(read_embeddings(two_days), by_entity, None)
    assert len(join_labels(read_embeddings(two_days, "2024-04-13"), by_entity, None).positive) == 8


def test_labels_with_as_of_pick_their_own_window(two_days, table):
    moments = [AS_OF + timedelta(days=i % 2) for i in range(8)]
    labels = table({"entity_id": list(range(8)), "y": [0, 1] * 4, "as_of": moments})
    found = join_labels(read_embeddings(two_days), labels, None)
    assert found.windows["as_of"].to_pylist() == [moment.replace(tzinfo=None) for moment in moments]


def test_a_day_that_has_no_embeddings(two_days):
    with pytest.raises(InputError, match=r"no embeddings of 2024-05-01; it has 2024-04-13, 2024-04-14"):
        read_embeddings(two_days, "2024-05-01")


def test_what_is_no_embeddings_table(embeddings, tmp_path):
    with pytest.raises(InputError, match=r"is not a folder of embeddings: it has no _definition.json"):
        read_embeddings(tmp_path)
    (tmp_path / "_definition.json").write_text(json.dumps({"kind": "minutes"}))
    with pytest.raises(InputError, match=r"is not a folder of embeddings: .* kind = 'minutes'"):
        read_embeddings(tmp_path)


def test_damaged_embeddings(embeddings, tmp_path):
    broken = shutil.copytree(embeddings, tmp_path / "broken")
    (broken / "ds=2024-04-14" / "embeddings.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"embeddings.parquet is damaged .*embed again"):
        read_embeddings(broken)
    lists = pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32()))
    uneven = windows_of([1, 2]).append_column("num_events", pa.array([1, 1]))
    pq.write_table(uneven, broken / "ds=2024-04-14" / "embeddings.parquet")
    with pytest.raises(InputError, match=r"embeddings.parquet has no column num_minutes, embedding; embed again"):
        read_embeddings(broken)
    uneven = uneven.append_column("num_minutes", pa.array([1, 1])).append_column("embedding", lists)
    pq.write_table(uneven, broken / "ds=2024-04-14" / "embeddings.parquet")
    with pytest.raises(InputError, match=r"embeddings of different lengths"):
        read_embeddings(broken)
