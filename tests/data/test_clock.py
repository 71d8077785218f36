from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infobehavior.data.clock import (
    day_bounds,
    day_offsets,
    local_date,
    local_minutes,
    parse_moment,
    utc_offsets,
    wall_offsets,
)
from infobehavior.errors import InputError

ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Africa/Casablanca",
]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
zones = st.sampled_from(ZONES)
minutes = st.integers(-30_000_000, 60_000_000)  # 1912 to 2084


def clock(minute: int, time_zone: str) -> datetime:
    """What a clock on the wall shows."""
    return (EPOCH + timedelta(minutes=minute)).astimezone(ZoneInfo(time_zone)).replace(tzinfo=None)


@given(st.lists(minutes, max_size=5), zones)
def test_local_minutes_are_those_of_zoneinfo(of: list[int], time_zone: str) -> None:
    expected = [(clock(m, time_zone) - datetime(1970, 1, 1)) // timedelta(minutes=1) for m in of]
    assert local_minutes(np.array(of, dtype=np.int64), time_zone).tolist() == expected


@given(minutes, zones)
def test_a_minute_is_inside_its_local_day(minute: int, time_zone: str) -> None:
    day = local_date(minute, time_zone)
    first, end = day_bounds(day, time_zone)
    assert first <= minute < end
    # Only the hour that a clock shows a second time, after midnight, belongs to a day that it doesn't show.
    assert day - clock(minute, time_zone).date() in (timedelta(0), timedelta(days=1))


@given(minutes, zones)
def test_day_offsets_give_the_local_date(minute: int, time_zone: str) -> None:
    starts, offsets = day_offsets(time_zone, minute - 500_000, minute + 500_000)
    offset = offsets[np.searchsorted(starts, minute, side="right") - 1]
    number = (minute + int(offset)) // 1440
    assert date(1970, 1, 1) + timedelta(days=number) == local_date(minute, time_zone)


@given(st.dates(date(1912, 1, 1), date(2084, 1, 1)), zones)
def test_days_follow_each_other_without_a_gap(day: date, time_zone: str) -> None:
    assert day_bounds(day, time_zone)[1] == day_bounds(day + timedelta(days=1), time_zone)[0]


@pytest.mark.parametrize(
    ("day", "time_zone", "hours"),
    [
        (date(2024, 3, 31), "Europe/Berlin", 23),
        (date(2024, 10, 27), "Europe/Berlin", 25),
        (date(2024, 6, 1), "Europe/Berlin", 24),
        (date(2024, 4, 7), "Australia/Lord_Howe", 24.5),
        (date(2011, 12, 30), "Pacific/Apia", 0),
        (date(2018, 11, 4), "America/Sao_Paulo", 23),
    ],
)
def test_days_are_as_long_as_the_clocks_say(day: date, time_zone: str, hours: float) -> None:
    first, end = day_bounds(day, time_zone)
    assert (end - first) / 60 == hours


def test_before_1970_is_rounded_down() -> None:
    assert local_date(-1, "UTC") == date(1969, 12, 31)
    assert parse_moment("1969-12-31T23:59:59.999999", "UTC") == -1
    assert day_bounds(date(1969, 12, 31), "UTC") == (-1440, 0)


@given(st.datetimes(datetime(1912, 1, 1), datetime(2084, 1, 1)), zones)
def test_wall_offsets_are_those_of_zoneinfo(wall: datetime, time_zone: str) -> None:
    minute = (wall - datetime(1970, 1, 1)) // timedelta(minutes=1)
    starts, offsets = wall_offsets(time_zone, minute, minute)
    expected = ZoneInfo(time_zone).utcoffset(wall.replace(second=0, microsecond=0))
    assert expected is not None
    assert offsets[np.searchsorted(starts, minute, side="right") - 1] == expected // timedelta(minutes=1)


@given(minutes, st.integers(0, 5_000_000), zones)
def test_pieces_cover_what_was_asked(first: int, length: int, time_zone: str) -> None:
    starts, offsets = utc_offsets(time_zone, first, first + length)
    assert starts[0] <= first
    assert (np.diff(starts) > 0).all()
    assert (np.diff(offsets) != 0).all()


@pytest.mark.parametrize(
    ("value", "time_zone", "expected"),
    [
        ("1970-01-02", "UTC", 86_400_000_000),
        (date(1970, 1, 1), "America/New_York", 5 * 3_600_000_000),
        (datetime(1970, 1, 1, 1), "Europe/Berlin", 0),
        ("1970-01-01T01:00:00+01:00", "Asia/Tokyo", 0),
        (" 1970-01-01T00:00:00.000001Z ", "Asia/Tokyo", 1),
        ("1970-01-01t00:00:01z", "Asia/Tokyo", 1_000_000),
        (datetime(1970, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata")), "UTC", -330 * 60_000_000),
    ],
)
def test_moments_are_read_in_local_time(value: str | date | datetime, time_zone: str, expected: int) -> None:
    assert parse_moment(value, time_zone) == expected


@pytest.mark.parametrize("hour", range(5))
@pytest.mark.parametrize("day", [date(2024, 3, 31), date(2024, 10, 27), date(2024, 5, 5)])
def test_the_latest_of_what_a_local_time_may_mean(day: date, hour: int) -> None:
    """Of one that Berlin's clocks skipped, it is what is read anyhow; a zone leaves no doubt."""
    local = datetime(day.year, day.month, day.day, hour, 30)
    folds = [parse_moment(local.replace(tzinfo=ZoneInfo("Europe/Berlin"), fold=fold), "UTC") for fold in (0, 1)]
    assert parse_moment(local, "Europe/Berlin") == folds[0]
    assert parse_moment(local, "Europe/Berlin", latest=True) == max(folds)
    assert parse_moment(f"{local}+02:00", "Europe/Berlin", latest=True) == parse_moment(f"{local}+02:00", "UTC")


@pytest.mark.parametrize("value", ["yesterday", "", "z", "2013-12-31z", "2013-13-01"])
def test_a_moment_that_is_none_is_named(value: str) -> None:
    with pytest.raises(InputError, match="is not a moment"):
        parse_moment(value, "UTC")


@pytest.mark.parametrize(("value", "name"), [(7, "an integer"), (1.5, "a fraction"), (None, "NoneType")])
def test_what_is_no_moment_at_all(value: object, name: str) -> None:
    with pytest.raises(InputError, match=f"expected a date, a time or text, got {name}"):
        parse_moment(value, "UTC")
