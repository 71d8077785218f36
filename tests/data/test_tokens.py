from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infobehavior.data import tokens
from infobehavior.data.schema import ONE_TIME, PAPER_SLOW, Columns, Schema
from infobehavior.data.tokens import CodedEvents, Members, fold_events

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


def coded(rows: list[tuple[int, int, int, int, int]]) -> CodedEvents:
    who, minute, code, failed, place = (np.array(column) for column in zip(*rows, strict=True))
    members = {"location": Members(place, pa.array(PLACES))}
    return CodedEvents(pa.array(who), minute.astype(np.int32), code, failed, members)


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


@pytest.mark.parametrize("max_bits", [63, 20])
@settings(max_examples=100, deadline=None)
@given(rows=events_of_log)
def test_rows_are_those_of_plain_loops(max_bits: int, rows: list[tuple[int, int, int, int, int]]) -> None:
    """Also where a key has too few bits left for what else is said of an event."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_MAX_BITS", max_bits)
        folded = [
            (day, row) for day, table in fold_events(coded(rows), DAY_STARTS, SCHEMA) for row in table.to_pylist()
        ]
    assert [{"day": day} | row for day, row in folded] == expected(rows)


def test_no_events_have_no_days() -> None:
    nothing = np.array([], np.int32)
    events = CodedEvents(pa.array([], pa.int64()), nothing, nothing, nothing, {})
    assert list(fold_events(events, DAY_STARTS, SCHEMA)) == []


@given(texts=st.lists(st.none() | st.text(max_size=2).filter(bool), min_size=1))
def test_texts_are_numbered_by_code_point(texts: list[str | None]) -> None:
    members = Members.of_texts(pa.array(texts, pa.string()))
    values = members.values.to_pylist()
    assert values == sorted({text for text in texts if text is not None})
    assert [None if number == 0 else values[number - 1] for number in members.number] == texts
