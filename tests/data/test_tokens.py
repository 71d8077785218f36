from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infobehavior.data.schema import ONE_TIME, PAPER_SLOW, Columns, Schema
from infobehavior.data.tokens import Layout, Members, SetColumn, fold_events, whole_minutes

SCHEMA = Schema(
    columns=Columns(entity="who", timestamp="when", behavior="what", location="where"),
    behaviors={f"b{i:02}": ONE_TIME if i == 3 else PAPER_SLOW for i in range(40)},
)
DAY_STARTS = np.array([-1440, 0, 1440, 1440, 2820])  # One day is skipped, and one has 23 hours.
PLACES = ["a", "b\u00e9", "\U0001f600"]

events_of_log = st.lists(
    st.tuples(
        st.sampled_from([-(2**62), 5, 7]),
        st.sampled_from([-1440, -1, 0, 1439, 1440, 2819, 2820, 4000]),
        st.sampled_from([0, 1, 4, 30, 31, 40]),
        st.integers(0, 1),
        st.integers(0, len(PLACES)),
    ),
    min_size=1,
    max_size=40,
)


SETS = (SetColumn("location", "location", tuple(PLACES)), SetColumn("also", "also", None))


def sorted_events(rows: list[tuple[int, int, int, int, int]], layout: Layout) -> pa.RecordBatch:
    """The rows as DuckDB sorts them; their second set has the same values, as texts."""
    shift, member_bits = layout.code_bits + 1, layout.member_bits
    keys = sorted(
        (
            _day(minute),
            who,
            (((minute + 1_440) << shift | code << 1 | failed) << member_bits) | place * bool(member_bits),
            place,
        )
        for who, minute, code, failed, place in rows
    )
    day, who, packed, place = zip(*keys, strict=True)
    columns = {
        "day": pa.array(day, pa.int32()),
        "entity_id": pa.array(who, pa.int64()),
        "packed": pa.array(packed, pa.int64()),
    }
    texts = [None if number == 0 else PLACES[number - 1] for number in place]
    numbers = {
        column.column: pa.array(texts, pa.string()) if column.values is None else pa.array(place)
        for column in layout.others
    }
    return pa.RecordBatch.from_pydict(columns | numbers)


def expected(rows: list[tuple[int, int, int, int, int]]) -> list[dict[str, object]]:
    """Section 3.1.1 with loops."""
    result = []
    for day, who, minute in sorted({(_day(row[1]), *row[:2]) for row in rows}):
        events = [row for row in rows if row[:2] == (who, minute)]
        counts = Counter(code for _, _, code, _, _ in events)
        words = [0, 0]
        for code, count in counts.items():
            level = 1 if code in (0, 4) else 1 + (count >= 2) + (count >= 5)
            words[code // 31] |= level << (2 * (code % 31))
        places = sorted({PLACES[place - 1] for *_, place in events if place})
        result.append(
            {
                "day": day,
                "entity_id": who,
                "minute": minute,
                "num_events": len(events),
                "num_failures": sum(failed for _, _, _, failed, _ in events),
                "levels_0": words[0],
                "levels_1": words[1],
                "counts": [counts[code] for code in sorted(counts)],
                "location": "\x1f".join(places) if places else None,
            }
        )
    return result


def _day(minute: int) -> int:
    return max(i for i, start in enumerate(DAY_STARTS) if start <= minute)


@pytest.mark.parametrize("sets", [SETS, SETS[::-1], SETS[1:], ()])
@settings(max_examples=60, deadline=None)
@given(rows=events_of_log, per_batch=st.integers(1, 41))
def test_rows_are_those_of_plain_loops(
    sets: tuple[SetColumn, ...], rows: list[tuple[int, int, int, int, int]], per_batch: int
) -> None:
    """However the events are cut, and whether a set lies beside or has a column of its own."""
    layout = Layout.of(SCHEMA, sets)
    events = sorted_events(rows, layout)
    batches = [events.slice(first, per_batch) for first in range(0, len(events), per_batch)]
    folded = [fold_events(batch, -1_440, layout, SCHEMA) for batch in whole_minutes(batches, layout)]
    found = [
        {"day": day} | row
        for minutes in folded
        for day, row in zip(minutes.day.tolist(), minutes.rows.to_pylist(), strict=True)
    ]
    names = {column.name for column in sets}
    for row in (wanted := expected(rows)):
        row["also"] = row["location"]
        row |= {} if "location" in names else {"location": None}
    assert found == [{name: row[name] for name in row if name != "also" or name in names} for row in wanted]
    assert sum(minutes.num_unknown for minutes in folded) == sum(code == 0 for _, _, code, _, _ in rows)


def test_no_events_have_no_minutes() -> None:
    layout = Layout.of(SCHEMA, SETS)
    nothing = sorted_events([(5, 0, 1, 0, 0)], layout).slice(1)
    assert list(whole_minutes([nothing, nothing], layout)) == []
    assert list(whole_minutes([], layout)) == []


@given(texts=st.lists(st.none() | st.text(max_size=2).filter(bool), min_size=1))
def test_texts_are_numbered_by_code_point(texts: list[str | None]) -> None:
    members = Members.of_texts(pa.array(texts, pa.string()))
    values = members.values.to_pylist()
    assert values == sorted({text for text in texts if text is not None})
    assert [None if number == 0 else values[number - 1] for number in members.number] == texts
