import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from infobehavior.data.aggregation import aggregate
from infobehavior.data.inspection import inspect
from infobehavior.data.schema import ONE_TIME, Behavior, Columns, read_schema
from infobehavior.errors import InputError

START = datetime(2024, 1, 1, tzinfo=UTC)


def some_events(num_entities: int = 30) -> dict[str, list[Any]]:
    """A log in which `register` happens once, `log in` now and then, and `post` in bursts of 1, 2, 4 and 8."""
    random_ = random.Random(3)
    rows: list[tuple[Any, ...]] = []
    for entity in range(num_entities):
        rows.append((entity, START, "register", None, "success"))
        for hour in range(1, 5):
            moment = START + timedelta(hours=hour)
            rows.append((entity, moment, "log in", random_.choice(["Berlin", "Jiangsu"]), "failure"))
            rows += [(entity, moment, "post", "Berlin", "success")] * 2 ** (hour - 1)
    random_.shuffle(rows)
    names = ("entity_id", "timestamp", "behavior", "location", "outcome")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def write(path: Path, events: dict[str, list[Any]], **renamed: str) -> Path:
    table = pa.table({renamed.get(name, name): values for name, values in events.items()})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def test_a_plain_log_needs_no_help(tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "events.parquet", some_events()), tmp_path / "schema.toml")
    assert (found.num_rows, found.num_entities) == (30 * (1 + 4 + 15), 30)
    assert (found.first, found.last) == (START, START + timedelta(hours=4))
    assert found.schema.columns == Columns(
        entity="entity_id",
        timestamp="timestamp",
        behavior="behavior",
        location="location",
        outcome="outcome",
        entity_type="integer",
    )
    assert found.schema.failures.outcomes == ["failure"]
    assert found.locations[0] == ("Berlin", found.locations[0][1])
    assert sum(count for _, count in found.locations) == 30 * (4 + 15)
    assert read_schema(tmp_path / "schema.toml") == found.schema


def test_levels_come_from_repeats_within_a_minute(tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "events.parquet", some_events()))
    # Minutes with at least two posts hold 2, 4 or 8: three quarters of them at most 8. Nobody logs in twice.
    assert found.schema.behaviors == {
        "register": ONE_TIME,
        "log in": Behavior(medium=2, high=3),
        "post": Behavior(medium=2, high=9),
    }
    post = found.behaviors[0]
    assert (post.name, post.num_events, post.quantiles) == ("post", 30 * 15, (2, 8, 8, 8))
    assert post.share == pytest.approx(15 / 20)


def test_a_csv_gives_the_same_proposal(tmp_path: Path) -> None:
    parquet = inspect(write(tmp_path / "events.parquet", some_events()))
    assert inspect(write(tmp_path / "events.csv", some_events())).schema == parquet.schema


def test_row_order_changes_nothing(tmp_path: Path) -> None:
    events = some_events()
    backwards = {name: values[::-1] for name, values in events.items()}
    forwards = inspect(write(tmp_path / "a.parquet", events), threads=1)
    found = inspect(write(tmp_path / "b.parquet", backwards), threads=2)
    assert found.schema == forwards.schema
    assert found.behaviors == forwards.behaviors


def test_the_proposal_aggregates(tmp_path: Path) -> None:
    source = write(tmp_path / "events.csv", some_events())
    inspect(source, tmp_path / "schema.toml")
    summary = aggregate(source, tmp_path / "schema.toml", tmp_path / "minutes")
    assert (summary.num_unknown, summary.quarantined) == (0, {})


@pytest.mark.parametrize(
    "names",
    [
        {
            "entity_id": "userId",
            "timestamp": "Created At",
            "behavior": "Action",
            "location": "city",
            "outcome": "Result",
        },
        {
            "entity_id": "seller",
            "timestamp": "ts",
            "behavior": "event_type",
            "location": "country",
            "outcome": "status",
        },
        {"entity_id": "k", "timestamp": "t", "behavior": "b", "location": "where", "outcome": "success"},
    ],
)
def test_columns_are_found_by_name_and_content(tmp_path: Path, names: dict[str, str]) -> None:
    events = some_events(num_entities=60)
    for suffix in ("parquet", "csv"):
        columns = inspect(write(tmp_path / f"events.{suffix}", events, **names)).schema.columns
        found = (columns.entity, columns.timestamp, columns.behavior, columns.location, columns.outcome)
        assert found == tuple(names.values())


def test_flags_decide(tmp_path: Path) -> None:
    events = some_events() | {"ip": ["10.0.0.1"] * 600, "device": ["phone"] * 600}
    path = write(tmp_path / "events.parquet", events)
    assert inspect(path).schema.columns.extra == ["ip", "device"]
    given = {"behavior": "device", "extra": ["outcome"], "time_zone": "Asia/Tokyo"}
    found = inspect(path, columns=given)
    assert found.schema.columns.behavior == "device"
    assert found.schema.columns.extra == ["outcome"]
    assert found.schema.columns.outcome is None
    assert found.schema.time.time_zone == "Asia/Tokyo"
    assert found.first.isoformat() == "2024-01-01T09:00:00+09:00"


def test_what_cannot_be_decided_names_the_candidates_and_the_flag(tmp_path: Path) -> None:
    events = some_events()
    two = {"buyer_id": events["entity_id"], "seller_id": events["entity_id"]}
    rest = {name: values for name, values in events.items() if name != "entity_id"}
    path = write(tmp_path / "events.parquet", two | rest)
    with pytest.raises(InputError, match=r"says who; it may be 'buyer_id', 'seller_id': give --entity"):
        inspect(path)
    assert inspect(path, columns={"entity": "seller_id"}).schema.columns.entity == "seller_id"
    with pytest.raises(InputError, match=r"has no column 'nobody'; it has buyer_id"):
        inspect(path, columns={"entity": "nobody"})
    untimed = {name: values for name, values in events.items() if name != "timestamp"}
    with pytest.raises(InputError, match=r"says when.*--timestamp"):
        inspect(write(tmp_path / "untimed.parquet", untimed))


@pytest.mark.parametrize(
    ("column", "values", "failures"),
    [
        ("outcome", ["OK", "Failed", "Denied"], ["Denied", "Failed"]),
        ("success", [True, False], ["false"]),
        ("failed", [True, False], ["true"]),
        ("status", [200, 302, 404, 503], ["404", "503"]),
        ("ok", [0, 1], ["0"]),
        ("result", ["a", "b"], []),
    ],
)
def test_failures_by_their_wording(tmp_path: Path, column: str, values: list[Any], failures: list[str]) -> None:
    events = some_events()
    del events["outcome"]
    events[column] = (values * 600)[:600]
    found = inspect(write(tmp_path / "events.parquet", events))
    assert found.schema.columns.outcome == column
    assert found.schema.failures.outcomes == failures


def test_epoch_numbers_get_their_unit(tmp_path: Path) -> None:
    events = some_events()
    events["timestamp"] = [int(moment.timestamp() * 1000) for moment in events["timestamp"]]
    for suffix in ("parquet", "csv"):
        found = inspect(write(tmp_path / f"events.{suffix}", events))
        assert found.schema.columns.timestamp_unit == "ms"
        assert found.first == START


def test_an_edited_schema_is_not_overwritten(tmp_path: Path) -> None:
    source, out = write(tmp_path / "events.parquet", some_events()), tmp_path / "schema.toml"
    inspect(source, out)
    inspect(source, out)
    out.write_text(out.read_text() + "# mine\n")
    with pytest.raises(InputError, match=r"schema.toml is there with other content"):
        inspect(source, out)


def test_lines_show_what_was_found(tmp_path: Path) -> None:
    events = some_events()
    events["behavior"][0] = None
    path = write(tmp_path / "events.csv", events)
    path.write_text(path.read_text() + "1,2\n")
    text = "\n".join(inspect(path, tmp_path / "schema.toml").lines())
    for part in [
        "601 rows, 30 entities",
        "top locations (location): Berlin",
        "failures: failure",
        "M from 2, H from 9",
        "one-time",
        "set aside: 1 rows, malformed CSV row",
        "set aside: 1 rows, no behavior",
        f"schema written to {tmp_path / 'schema.toml'}",
    ]:
        assert part in text


def test_no_usable_row_is_one_line(tmp_path: Path) -> None:
    events = some_events()
    events["timestamp"] = [datetime(1970, 1, 1, tzinfo=UTC)] * 600
    with pytest.raises(InputError, match=r"no usable event: 600 time out of range"):
        inspect(write(tmp_path / "events.parquet", events))


def test_ids_that_need_64_bits_without_a_sign_are_text(tmp_path: Path) -> None:
    for ids, kind in (([2**63 + i for i in range(30)], "text"), (list(range(30)), "integer")):
        events = some_events()
        events["entity_id"] = pa.array([ids[entity] for entity in events["entity_id"]], pa.uint64())
        source = write(tmp_path / f"{kind}.parquet", events)
        assert inspect(source, tmp_path / f"{kind}.toml").schema.columns.entity_type == kind
        summary = aggregate(source, tmp_path / f"{kind}.toml", tmp_path / f"{kind} minutes")
        assert summary.num_kept == summary.num_read == 600


def test_a_name_counts_before_a_type(tmp_path: Path) -> None:
    """Integers with a null are fractions to pandas."""
    events = some_events()
    events["entity_id"] = [None, *map(float, events["entity_id"][1:])]
    found = inspect(write(tmp_path / "events.parquet", events))
    assert (found.schema.columns.entity, found.schema.columns.entity_type) == ("entity_id", "integer")
    assert found.quarantined == {"no entity": 1}


def test_an_edited_schema_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text("# mine\n")
    with pytest.raises(InputError, match=r"schema.toml is there with other content"):
        inspect(tmp_path / "no events at all.parquet", tmp_path / "schema.toml")


def test_a_behavior_with_a_line_break_is_one_line(tmp_path: Path) -> None:
    events = some_events()
    events["behavior"] = [name.replace("log in", "log\nin") for name in events["behavior"]]
    lines = inspect(write(tmp_path / "events.parquet", events)).lines()
    assert not any("\n" in line for line in lines)
    assert any(line.startswith("log\\nin ") for line in lines)


def test_a_loss_of_most_rows_is_the_first_line_here_too(tmp_path: Path) -> None:
    events = some_events()
    events["timestamp"] = events["timestamp"][:200] + [None] * 400
    first = inspect(write(tmp_path / "events.parquet", events)).lines()[0]
    assert first == "WARNING: 400 of 600 rows are set aside: no time"
