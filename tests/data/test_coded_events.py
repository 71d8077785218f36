import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.coded_events import day_sql


@given(
    st.lists(st.sampled_from([0, 1_380, 1_440, 1_440, 1_440, 1_500, 2_820]), min_size=1, max_size=8),
    st.integers(-(10**7), 10**7),
)
def test_days_of_any_length(lengths: list[int], first: int) -> None:
    """In some zones a day was skipped, or came twice."""
    starts = np.cumsum([first, *lengths])
    minutes = sorted({int(x) for start in starts for x in (start - 1, start, start + 700) if first <= x < starts[-1]})
    if not minutes:
        return
    values = ", ".join(f"({minute - first})" for minute in minutes)
    rows = duckdb.sql(f"SELECT {day_sql('m', starts.tolist())} FROM (VALUES {values}) t(m)").fetchall()
    assert [day for (day,) in rows] == (np.searchsorted(starts, minutes, side="right") - 1).tolist()


@pytest.mark.parametrize("num_days", [1, 400])
def test_days_of_24_hours_take_one_division(num_days: int) -> None:
    assert day_sql("m", [1_440 * i for i in range(num_days + 1)]).count("WHEN") == 1
