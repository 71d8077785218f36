"""Which column of an event log says who, when, what, where and how it ended: by name, then by content."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from infobehavior.data.events import (
    FRACTION_TYPES,
    INTEGER_TYPES,
    NAIVE_TIME_TYPES,
    ZONED_TIME_TYPES,
    EventSource,
    only_row,
    quoted,
)
from infobehavior.errors import InputError

WIDE_TYPES = frozenset({"UBIGINT", "HUGEINT"})
"""Integers that may not fit in 64 bits with a sign, as the minutes have them."""

MAX_BEHAVIORS = 1000
MIN_ENTITIES = 50
SAMPLE_ROWS = 20_000

# Names that columns have, best first; two of one group can't be told apart.
_NAMES: dict[str, tuple[str, ...]] = {
    "entity": (
        "entity_id entity",
        "account_id account user_id user userid uid username customer_id customer seller_id seller buyer_id buyer "
        "member_id member client_id client player_id player person_id person actor_id actor subject_id subject who",
        "device_id device",
    ),
    "timestamp": (
        "timestamp event_timestamp",
        "event_time time datetime date_time ts event_datetime occurred_at created_at when epoch moment",
        "date event_date day",
    ),
    "behavior": (
        "behavior behaviour",
        "event event_type event_name action action_type activity operation op verb what",
        "type kind category",
    ),
    "location": ("location", "place where", "city", "airport site store", "region province state", "country geo"),
    "outcome": (
        "outcome",
        "result",
        "success succeeded is_success ok",
        "failed failure is_failure is_failed error is_error",
        "status status_code",
    ),
    "extra": ("ip", "ip_address", "id_card", "device_id", "device"),
}
_FAILURES = frozenset(
    {"fail", "failed", "failure", "unsuccessful", "error", "err", "denied", "deny", "reject", "rejected", "refused"}
    | {"declined", "invalid", "blocked", "timeout", "cancelled", "canceled", "aborted", "false", "f", "no", "n", "ko"}
)
_TRUE = frozenset({"true", "t", "yes", "y", "1"})


@dataclass(frozen=True)
class ColumnProfile:
    """What a column of the log holds; `num_distinct` is an estimate."""

    name: str
    type: str
    num_nulls: int
    num_distinct: int


def profile_columns(connection: duckdb.DuckDBPyConnection, source: EventSource) -> list[ColumnProfile]:
    asked = []
    for name in source.columns:
        column = quoted(name)
        asked += [f"count(*) FILTER (coalesce(CAST({column} AS VARCHAR), '') = '')", f"approx_count_distinct({column})"]
    found = only_row(connection, f"SELECT {', '.join(asked)} FROM {source.sql}")
    return [
        ColumnProfile(name, type_, found[2 * i], found[2 * i + 1])
        for i, (name, type_) in enumerate(source.columns.items())
    ]


def find_columns(
    connection: duckdb.DuckDBPyConnection,
    source: EventSource,
    profiles: Sequence[ColumnProfile],
    given: dict[str, Any],
) -> dict[str, Any]:
    """Which column is what: those given, then by name, then by content."""
    unknown = [name for name in _as_list(given.values()) if name not in source.columns]
    if unknown:
        raise InputError(f"{source.description} has no column {unknown[0]!r}; it has {', '.join(source.columns)}")
    roles = dict(given)
    times = _time_columns(connection, source, profiles)
    fits = {
        "timestamp": [p.name for p in profiles if p.name in times],
        "entity": [p.name for p in profiles if p.name not in times],
        "behavior": [p.name for p in profiles if p.name not in times],
    }
    for role in fits:
        if role not in roles:
            free = [name for name in fits[role] if name not in _as_list(roles.values())]
            roles[role] = _by_name(role, free) or _by_content(role, free, profiles, source)
    free = [p.name for p in profiles if p.name not in _as_list(roles.values())]
    for role in ("location", "outcome"):
        name = None if role in roles else _best_name(role, free)
        if name is not None:
            roles[role] = name
            free.remove(name)
    roles.setdefault("extra", [name for name in free if _folded(name) in _groups("extra")])
    return roles


def _as_list(values: Any) -> list[str]:
    return [name for value in values for name in (value if isinstance(value, list) else [value])]


def _is_fraction(profile: ColumnProfile) -> bool:
    return profile.type.startswith(FRACTION_TYPES)


def _folded(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _groups(role: str) -> dict[str, int]:
    """Each name that a column of this role may have, with the place of its group."""
    return {_folded(name): place for place, group in enumerate(_NAMES[role]) for name in group.split()}


def _best_name(role: str, free: Sequence[str]) -> str | None:
    places = _groups(role)
    named = [name for name in free if _folded(name) in places]
    return min(named, key=lambda name: (places[_folded(name)], free.index(name)), default=None)


def _by_name(role: str, free: Sequence[str]) -> str | None:
    places = _groups(role)
    best = _best_name(role, free)
    if best is None:
        return None
    equals = [name for name in free if places.get(_folded(name)) == places[_folded(best)]]
    if len(equals) > 1:
        raise _undecided(role, equals)
    return best


def _by_content(role: str, free: Sequence[str], profiles: Sequence[ColumnProfile], source: EventSource) -> str:
    """The only column that can have a role.

    What is done takes few values, and text ones; who does it takes many, each several times.
    """
    named_otherwise = {*_groups("location"), *_groups("outcome"), *_groups("extra")}
    candidates = [p for p in profiles if p.name in free and _folded(p.name) not in named_otherwise]
    if role == "behavior":
        fits = [p for p in candidates if p.type == "VARCHAR" and 2 <= p.num_distinct <= MAX_BEHAVIORS]
    elif role == "entity":
        fits = [p for p in candidates if MIN_ENTITIES <= p.num_distinct < 0.9 * source.num_rows]
    else:
        fits = candidates
    if role != "timestamp":
        fits = [p for p in fits if not _is_fraction(p)]
    if len(fits) == 1:
        return fits[0].name
    raise _undecided(role, [p.name for p in fits or profiles])


def _undecided(role: str, candidates: Sequence[str]) -> InputError:
    what = {"entity": "who", "timestamp": "when", "behavior": "what was done"}[role]
    return InputError(
        f"can't tell which column says {what}; it may be {', '.join(map(repr, candidates))}: give --{role}"
    )


def _time_columns(
    connection: duckdb.DuckDBPyConnection, source: EventSource, profiles: Sequence[ColumnProfile]
) -> set[str]:
    """Columns that can be times: of such a type, text that reads as times, numbers with a time's name."""
    typed = {p.name for p in profiles if p.type in ZONED_TIME_TYPES | NAIVE_TIME_TYPES}
    texts = [p.name for p in profiles if p.type == "VARCHAR"]
    sample = f"(SELECT * FROM {source.sql} LIMIT {SAMPLE_ROWS})"
    reads = [
        f"count(TRY_CAST({quoted(name)} AS TIMESTAMP)) > 0.9 * count(nullif(trim({quoted(name)}), ''))"
        for name in texts
    ]
    found = only_row(connection, f"SELECT {', '.join(reads)} FROM {sample}") if texts else ()
    read = {name for name, yes in zip(texts, found, strict=True) if yes}
    numbers = {p.name for p in profiles if p.type in INTEGER_TYPES or _is_fraction(p) or p.name in texts}
    return typed | read | {name for name in numbers if _folded(name) in _groups("timestamp")}


def proposed_entity_type(connection: duckdb.DuckDBPyConnection, source: EventSource, name: str) -> str:
    """Whole numbers are integers also where a CSV has them as text, or pandas as fractions."""
    column, type_ = quoted(name), source.columns[name]
    if type_ in INTEGER_TYPES - WIDE_TYPES:
        return "integer"
    if type_ in WIDE_TYPES or type_.startswith(FRACTION_TYPES):
        odd = f"{column} <> floor({column}) OR ({column} IS NOT NULL AND TRY_CAST({column} AS BIGINT) IS NULL)"
    else:
        odd = f"{column} <> '' AND NOT regexp_full_match(CAST({column} AS VARCHAR), '0|-?[1-9][0-9]{{0,17}}')"
    return "text" if only_row(connection, f"SELECT count(*) FILTER ({odd}) FROM {source.sql}")[0] else "integer"


def failing_outcomes(column: str, values: Sequence[str]) -> list[str]:
    """The outcomes that are failures, by their wording; numbers only as flags or as HTTP codes."""
    if _folded(column) in {"failed", "failure", "isfailure", "isfailed", "error", "iserror"}:
        return sorted(value for value in values if value.casefold() in _TRUE | _FAILURES - {"false", "f", "no", "n"})
    failing = {value for value in values if value.strip().casefold() in _FAILURES}
    if set(values) <= {"0", "1"}:
        failing |= {"0"} & set(values)
    if all(re.fullmatch(r"[1-5]\d\d", value) for value in values):
        failing |= {value for value in values if value >= "400"}
    return sorted(failing)
