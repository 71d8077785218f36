"""What was kept is found again as it was, or not at all."""

import numpy as np
import pyarrow as pa
import pytest

from infobehavior.embedding import spans_file
from infobehavior.embedding.spans_file import EarlierSpans, LaterSpans, spans_schema

DIM = 5
SCHEMA = spans_schema("a test", DIM)


def random_spans(count, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 2**64, (count, 2), dtype=np.uint64), draw.random((count, DIM), dtype=np.float32)


def write(path, keys, vectors, at_once=4):
    later = LaterSpans(path, SCHEMA)
    for first in range(0, len(keys), at_once):
        later.add(keys[first : first + at_once], vectors[first : first + at_once])
    later.end(is_whole=True)
    assert later.error is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(spans_file, "SPANS_PER_WRITE", 6)
    return tmp_path / "spans.arrow"


def test_what_is_written_is_found_and_nothing_else(path):
    keys, vectors = random_spans(30)
    write(path, keys[:20], vectors[:20])
    order = np.random.default_rng(1).permutation(30)
    is_known, found = EarlierSpans.read(path, SCHEMA).find(keys[order])
    assert is_known.tolist() == (order < 20).tolist()
    np.testing.assert_array_equal(found, vectors[order[order < 20]])
    with pa.memory_map(str(path)) as file:
        assert pa.ipc.open_file(file).num_record_batches == 3


def test_a_key_is_all_of_its_bits(path):
    keys, vectors = random_spans(4)
    write(path, keys, vectors)
    keys[1:, 1] ^= np.uint64(1)
    assert EarlierSpans.read(path, SCHEMA).find(keys)[0].tolist() == [True, False, False, False]


def test_nothing_is_found_for_another_definition_or_size(path):
    keys, vectors = random_spans(4)
    write(path, keys, vectors)
    for schema in (spans_schema("another test", DIM), spans_schema("a test", DIM + 1)):
        is_known, found = EarlierSpans.read(path, schema).find(keys)
        assert not is_known.any()
        assert len(found) == 0


@pytest.mark.parametrize("damage", [b"\xff" * 8, b"\x00" * 8, b"\x01"])
def test_wherever_a_file_is_damaged_nothing_wrong_is_found(path, damage):
    keys, vectors = random_spans(20)
    write(path, keys, vectors)
    good, num_found = path.read_bytes(), []
    for place in range(0, len(good) - len(damage), 4):
        path.write_bytes(good[:place] + damage + good[place + len(damage) :])
        is_known, found = EarlierSpans.read(path, SCHEMA).find(keys)
        np.testing.assert_array_equal(found, vectors[is_known])
        num_found.append(len(found))
    assert {0, 20} < set(num_found)
    assert max(num_found) == 20


def test_a_file_that_was_cut_off_is_as_good_as_none(path):
    keys, vectors = random_spans(20)
    write(path, keys, vectors)
    good = path.read_bytes()
    for size in range(0, len(good), 16):
        path.write_bytes(good[:size])
        assert not EarlierSpans.read(path, SCHEMA).find(keys)[0].any()


def test_what_is_not_whole_or_is_nothing_leaves_what_was_there(path):
    keys, vectors = random_spans(20)
    write(path, keys, vectors)
    good = path.read_bytes()
    for count, is_whole in ((0, True), (20, False)):
        later = LaterSpans(path, SCHEMA)
        later.add(keys[:count], vectors[:count] + 1)
        later.end(is_whole)
        assert path.read_bytes() == good
        assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (spans_file, "beside"),
        (spans_file.pa, "OSFile"),
        (spans_file._OpenFile, "write"),
        (spans_file._OpenFile, "move"),
        (spans_file, "move_into_place"),
    ],
)
def test_an_error_of_the_disk_is_kept_and_leaves_what_was_there(path, monkeypatch, owner, name):
    keys, vectors = random_spans(20)
    write(path, keys, vectors)
    good = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, name, fail)
    later = LaterSpans(path, SCHEMA)
    for _ in range(3):
        later.add(keys[:7], vectors[:7])
    assert (later.error is None) == ("move" in name)
    later.end(is_whole=True)
    assert later.error.strerror == "No space left on device"
    assert path.read_bytes() == good
    assert [file.name for file in path.parent.iterdir()] == [path.name]
