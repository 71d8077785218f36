"""Local time from UTC minutes, by `zoneinfo` alone: no session's or machine's time zone is ever asked."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
from numpy.typing import NDArray

from infobehavior.errors import InputError

MINUTES_PER_DAY = 24 * 60
SECONDS_PER_MINUTE = 60
SECONDS_PER_DAY = MINUTES_PER_DAY * SECONDS_PER_MINUTE
MICROSECONDS = 1_000_000

FEW_PIECES = 12
"""Up to so many pieces of constant offset, comparing with each is faster than looking each minute up."""

_EPOCH = datetime(1970, 1, 1)
_TYPE_NAMES = {int: "an integer", float: "a fraction", bool: "a boolean"}


def known_time_zone(name: str) -> str:
    """The name of a time zone, if there is one of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in available_timezones():
        raise ValueError(f"no time zone is called {name}; expected an IANA name such as Asia/Shanghai")
    return name


def local_minutes(minute: NDArray[np.integer], time_zone: str) -> NDArray[np.int64]:
    """Turn UTC epoch minutes into local ones, so that ``% 1440`` is the time of day.

    Args:
        minute: UTC epoch minutes, of any shape and order.
        time_zone: IANA name.

    Example:
        >>> local_minutes(np.array([0]), "Asia/Kolkata")
        array([330])
    """
    utc = np.asarray(minute, dtype=np.int64)
    if utc.size == 0 or time_zone == "UTC":
        return utc.copy()
    starts, offsets = utc_offsets(time_zone, int(utc.min()), int(utc.max()))
    if len(starts) > FEW_PIECES:
        return utc + offsets[np.searchsorted(starts, utc, side="right") - 1]
    local: NDArray[np.int64] = utc + offsets[0]
    for start, change in zip(starts[1:], np.diff(offsets), strict=True):
        local += change * (utc >= start)
    return local


def utc_offsets(time_zone: str, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pieces of constant offset from UTC that cover the UTC epoch minutes `first` to `last`.

    Returns:
        The first minute of each piece (the first piece begins at or before `first`), and its offset in minutes,
        rounded down where a zone of long ago had seconds.
    """
    return _joined(_utc_year, time_zone, first, last)


def wall_offsets(time_zone: str, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Like `utc_offsets`, by local (wall clock) epoch minutes.

    A time that a clock shows twice is the earlier one; a time that it skips is read with the offset before the
    jump (``fold=0``).
    """
    return _joined(_wall_year, time_zone, first, last)


def _joined(
    of_year: Callable[[str, int], tuple[tuple[int, int], ...]], time_zone: str, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    years = range(_naive(first).year, _naive(last).year + 1)
    pieces: list[tuple[int, int]] = []
    for year in years:
        for piece in of_year(time_zone, year):
            if not pieces or piece[1] != pieces[-1][1]:
                pieces.append(piece)
    starts, offsets = zip(*pieces, strict=True)
    return np.array(starts, dtype=np.int64), np.array(offsets, dtype=np.int64)


@lru_cache(maxsize=4096)
def _utc_year(time_zone: str, year: int) -> tuple[tuple[int, int], ...]:
    zone = ZoneInfo(time_zone)

    def offset(minute: int) -> int:
        # The offset of an instant, also in the first and last years that `datetime` knows.
        instant = _naive(minute).replace(tzinfo=UTC)
        return _whole_minutes(instant.astimezone(zone).utcoffset())

    return _pieces_of_year(offset, year)


@lru_cache(maxsize=4096)
def _wall_year(time_zone: str, year: int) -> tuple[tuple[int, int], ...]:
    zone = ZoneInfo(time_zone)
    return _pieces_of_year(lambda minute: _whole_minutes(_naive(minute).replace(tzinfo=zone).utcoffset()), year)


def _pieces_of_year(offset: Callable[[int], int], year: int) -> tuple[tuple[int, int], ...]:
    """Probe each day and halve the days in which the offset changes (once at most)."""
    first = (date(year, 1, 1) - _EPOCH.date()).days * MINUTES_PER_DAY
    end = (date(year, 12, 31) - _EPOCH.date()).days * MINUTES_PER_DAY + MINUTES_PER_DAY - 1
    pieces = [(first, offset(first))]
    for low in range(first, end, MINUTES_PER_DAY):
        high = min(low + MINUTES_PER_DAY, end)
        if offset(high) != pieces[-1][1]:
            pieces.append((_change(offset, low, high), offset(high)))
    return tuple(pieces)


def _change(offset: Callable[[int], int], low: int, high: int) -> int:
    """The first minute of (low, high] with the offset of `high`."""
    after = offset(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if offset(middle) == after else (middle, high)
    return high


def day_bounds(day: date, time_zone: str) -> tuple[int, int]:
    """The UTC epoch minutes [first, end) of a local day, which has 23 or 25 hours when the clocks change.

    A day begins when its midnight is first seen on the clock, so days follow each other without a gap; a day
    that a country skipped is empty.

    Example:
        >>> first, end = day_bounds(date(2024, 3, 31), "Europe/Berlin")
        >>> (end - first) / 60
        23.0
    """
    return _midnight(day, time_zone), _midnight(day + timedelta(days=1), time_zone)


def day_offsets(time_zone: str, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Like `utc_offsets`, but ``(minute + offset) // 1440`` is the day in the sense of `day_bounds`.

    They differ where a clock is put back over midnight (Newfoundland, until 2011) and shows the day before again.
    """
    starts, offsets = utc_offsets(time_zone, first, last)
    for i in range(1, len(starts)):
        day = (starts[i] - 1 + offsets[i - 1]) // MINUTES_PER_DAY
        if (starts[i] + offsets[i]) // MINUTES_PER_DAY < day:
            starts[i] = day * MINUTES_PER_DAY - offsets[i]
    return starts, offsets


def local_date(minute: int, time_zone: str) -> date:
    """The local day, in the sense of `day_bounds`, of a UTC epoch minute."""
    starts, offsets = day_offsets(time_zone, minute, minute)
    offset = offsets[np.searchsorted(starts, minute, side="right") - 1]
    return day_of_number((minute + int(offset)) // MINUTES_PER_DAY)


def day_of_number(number: int) -> date:
    """The date that is so many days after 1970-01-01."""
    return _EPOCH.date() + timedelta(days=number)


@lru_cache(maxsize=65536)
def _midnight(day: date, time_zone: str) -> int:
    wall = (day - _EPOCH.date()).days * MINUTES_PER_DAY
    if time_zone == "UTC":
        return wall
    return wall - _whole_minutes(_naive(wall).replace(tzinfo=ZoneInfo(time_zone)).utcoffset())


def parse_moment(value: object, time_zone: str, *, latest: bool = False) -> int:
    """Read a moment as epoch microseconds.

    Args:
        value: ISO 8601 text, a date (its local midnight), or a datetime; without a zone it is local time.
        time_zone: IANA name.
        latest: whether a local time that a clock shows twice is the later one, rather than the earlier one; a time that
            it skips is read with the offset before the jump in any case, which is the later reading.

    Raises:
        InputError: the text is not a moment, or it is of another type.

    Example:
        >>> first, last = (parse_moment("2024-10-27 02:30", "Europe/Berlin", latest=latest) for latest in (False, True))
        >>> (last - first) // MICROSECONDS
        3600
    """
    moment = _from_text(value) if isinstance(value, str) else value
    if not isinstance(moment, date):
        raise InputError(f"expected a date, a time or text, got {_TYPE_NAMES.get(type(value), type(value).__name__)}")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is not None:
        return _microseconds(moment)
    moment = moment.replace(tzinfo=ZoneInfo(time_zone))
    return max(_microseconds(moment.replace(fold=fold)) for fold in (0, 1)) if latest else _microseconds(moment)


def _microseconds(moment: datetime) -> int:
    return (moment.astimezone(UTC).replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1)


def _from_text(value: str) -> datetime:
    text = value.strip()
    try:
        return datetime.fromisoformat(f"{text[:-1]}Z" if text.endswith("z") else text)  # RFC 3339 has both
    except ValueError:
        raise InputError(
            f"{value!r} is not a moment; expected a date (2013-12-31) or a time (2013-12-31T23:59:00+01:00)"
        ) from None


def _naive(minute: int) -> datetime:
    return _EPOCH + timedelta(minutes=minute)


def _whole_minutes(offset: timedelta | None) -> int:
    assert offset is not None
    return offset // timedelta(minutes=1)
