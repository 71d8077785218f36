import unicodedata
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.schema import (
    BEHAVIORS_PER_WORD,
    ONE_TIME,
    PAPER_FAST,
    PAPER_SLOW,
    Behavior,
    Columns,
    Failures,
    Schema,
    Time,
    decode_behaviors,
    read_schema,
    schema_text,
    write_schema,
)
from infobehavior.errors import InputError

COLUMNS = Columns(entity="who", timestamp="when", behavior="what")
EVENTS = '[columns]\nentity = "e"\ntimestamp = "t"\nbehavior = "b"\n'
ODD_NAMES = ["log in", 'say "hi"', "a_b", "😀", "back\\slash", "dotted.name", "ü"]

levels = st.one_of(
    st.just(ONE_TIME),
    st.integers(2, 50).flatmap(lambda m: st.builds(Behavior, medium=st.just(m), high=st.integers(m + 1, 99))),
)
names = st.text(st.characters(codec="utf-8"), min_size=1).map(lambda text: unicodedata.normalize("NFC", text))
schemas = st.builds(
    Schema,
    columns=st.builds(
        Columns,
        entity=names,
        timestamp=names,
        behavior=names,
        location=st.none() | names,
        outcome=names,
        extra=st.lists(st.sampled_from(["ip", "id card", "Größe"]), unique=True),
        entity_type=st.sampled_from([None, "integer", "text"]),
        timestamp_unit=st.sampled_from([None, "s", "ms", "us"]),
    ),
    time=st.builds(
        Time, time_zone=st.sampled_from(["UTC", "Asia/Kolkata"]), earliest=st.dates(date(1900, 1, 1), date(1999, 1, 1))
    ),
    failures=st.builds(Failures, outcomes=st.lists(names)),
    behaviors=st.dictionaries(names, levels, min_size=1),
)


@given(schemas)
def test_a_written_schema_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, schema: Schema) -> None:
    path = tmp_path_factory.mktemp("schema") / "schema.toml"
    write_schema(schema, path)
    assert read_schema(path) == schema
    assert Schema.model_validate(schema.definition()) == schema
    assert read_schema(path).hash == schema.hash


def test_presets_are_the_papers_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(
        f"{EVENTS}[behaviors]\n"
        'login = "paper-login"\npost = "paper-post"\nregister = "one-time"\nown = { medium = 2, high = 9 }\n'
    )
    assert read_schema(path).behaviors == {
        "login": Behavior(medium=2, high=3),
        "post": Behavior(medium=2, high=5),
        "register": Behavior(),
        "own": Behavior(medium=2, high=9),
    }
    assert (Behavior(medium=2, high=3), Behavior(medium=2, high=5)) == (PAPER_FAST, PAPER_SLOW)


def test_a_written_schema_explains_itself_and_names_presets() -> None:
    text = schema_text(Schema(columns=COLUMNS, behaviors={"log in": PAPER_FAST, "post": Behavior(medium=2, high=9)}))
    assert text.startswith("# The schema of an event log")
    assert '"log in" = "paper-login"\npost = { medium = 2, high = 9 }\n' in text


@pytest.mark.parametrize(("medium", "high"), [(1, 3), (3, 3), (4, 3), (2, None), (None, 3)])
def test_thresholds_must_rise(medium: int | None, high: int | None) -> None:
    with pytest.raises(ValueError, match="expected 2 <= medium < high"):
        Behavior(medium=medium, high=high)


def test_all_faults_are_in_one_line_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        '[columns]\nentity = "e"\ntimestamp = 3\ncolour = "c"\n[time]\ntime_zone = "Mars/Olympus"\n'
        '[behaviors]\na = { medium = 2, high = 1 }\nb = "paper"\n'
    )
    with pytest.raises(InputError) as caught:
        read_schema(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in [
        str(path),
        "columns.timestamp",
        "columns.behavior",
        "columns.colour",
        "Mars/Olympus",
        "behaviors.a",
        "'paper'",
    ]:
        assert part in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "columns: Field required"),
        ("[columns", "is not TOML"),
        (EVENTS + "[behaviors]", "at least one behavior"),
        (EVENTS + 'extra=["Minute"]\n[behaviors]\na="one-time"', "'Minute'"),
        (
            EVENTS + 'extra=["levels_3"]\n[behaviors]\na="one-time"',
            "levels_3",
        ),
        (EVENTS + 'extra=["ip","IP"]\n[behaviors]\na="one-time"', "twice"),
        (
            EVENTS + '[behaviors]\n"\\u00e9"="one-time"\n"e\\u0301"="one-time"',
            "twice (the names are the same in NFC form)",
        ),
        (
            EVENTS + '[failures]\noutcomes=["x"]\n[behaviors]\na="one-time"',
            "set columns.outcome",
        ),
        (
            EVENTS + 'outcome="o"\n[failures]\nbehaviors=["z"]\n[behaviors]\na="one-time"',
            "'z' is not among the behaviors",
        ),
        (
            EVENTS + '[time]\nearliest=2100-01-01\n[behaviors]\na="one-time"',
            "earliest",
        ),
    ],
)
def test_each_fault_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=str(path)) as caught:
        read_schema(path)
    assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no schema file"):
        read_schema(tmp_path / "none.toml")


def test_codes_follow_the_names_by_code_point() -> None:
    schema = Schema(columns=COLUMNS, behaviors=dict.fromkeys(ODD_NAMES, PAPER_FAST))
    assert schema.behavior_names == tuple(sorted(ODD_NAMES))
    assert [schema.behavior_code(name) for name in schema.behavior_names] == list(range(1, len(ODD_NAMES) + 1))
    assert schema.behavior_code("never seen") == 0
    assert schema.behavior_code(unicodedata.normalize("NFD", "ü")) == schema.behavior_code("ü") > 0


@pytest.mark.parametrize(("num_behaviors", "num_words"), [(1, 1), (30, 1), (31, 2), (61, 2), (62, 3)])
def test_words_hold_31_behaviors_with_the_unknown_one(num_behaviors: int, num_words: int) -> None:
    behaviors = {f"b{i}": ONE_TIME for i in range(num_behaviors)}
    assert Schema(columns=COLUMNS, behaviors=behaviors).num_words == num_words


@given(st.dictionaries(st.integers(0, 3 * BEHAVIORS_PER_WORD - 1), st.integers(1, 3)))
def test_decoding_inverts_packing(levels_of_code: dict[int, int]) -> None:
    words = [0, 0, 0]
    for code, level in levels_of_code.items():
        words[code // 31] |= level << (2 * (code % 31))
    assert all(-(2**63) <= word < 2**63 for word in words)
    assert decode_behaviors(words) == sorted(levels_of_code.items())


def test_display_is_the_papers_token() -> None:
    schema = Schema(columns=COLUMNS, behaviors={"Edit": PAPER_SLOW, "Post": PAPER_SLOW, "Register": ONE_TIME})
    assert schema.display([2 << 2 | 3 << 4]) == "EditM_PostH"
    assert schema.display([1 << 6 | 1]) == "?_Register"


def test_the_hash_tells_what_decides_a_token() -> None:
    plain = Schema(columns=COLUMNS, behaviors={"a": PAPER_FAST, "b": PAPER_SLOW})
    assert plain.hash == Schema(columns=COLUMNS, behaviors={"b": PAPER_SLOW, "a": PAPER_FAST}).hash
    assert plain.hash != Schema(columns=COLUMNS, behaviors={"a": PAPER_FAST, "b": PAPER_FAST}).hash
    assert plain.hash != plain.model_copy(update={"time": Time(time_zone="Asia/Tokyo")}).hash


@pytest.mark.parametrize("time", ["earliest = 0001-01-01", "earliest = 1899-12-31", "latest = 2200-01-02"])
def test_days_that_no_log_has(tmp_path: Path, time: str) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(f'{EVENTS}[time]\ntime_zone = "Asia/Tokyo"\n{time}\n[behaviors]\na = "one-time"\n')
    with pytest.raises(InputError, match=r"time: expected earliest and latest between 1900-01-01 and 2200-01-01, got"):
        read_schema(path)


def test_thresholds_that_no_minute_reaches() -> None:
    assert Behavior(medium=2, high=2**31 - 1).high == 2**31 - 1
    with pytest.raises(ValueError, match="expected high to be at most 2147483647, got 99999999999"):
        Behavior(medium=2, high=99_999_999_999)
