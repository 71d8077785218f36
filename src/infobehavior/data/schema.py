"""What a log's columns mean, and where L ends and M and H begin for each behavior (section 3.1.1)."""

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from infobehavior.artefacts import definition_hash, write_text
from infobehavior.errors import InputError

BEHAVIORS_PER_WORD = 31
"""Two bits a behavior in a signed 64-bit word."""

BITS_PER_BEHAVIOR = 2
LEVEL_NAMES = ("", "L", "M", "H")
"""What the two bits of a behavior mean; 0 is "absent"."""

MAX_REPEATS = 2**31 - 1
"""The largest number of repeats that the minutes can hold."""

EARLIEST_DAY, LATEST_DAY = date(1900, 1, 1), date(2200, 1, 1)
"""No schema believes events before the first, or at or after the second."""

SET_SEPARATOR = "\x1f"
"""Stands between the members of a set of locations (or of an extra column) in the minutes."""

RESERVED_COLUMNS = frozenset({"entity_id", "minute", "num_events", "num_failures", "counts", "location", "ds"})
"""Columns of the minutes, which no extra column may be called (nor ``levels_0``, ``levels_1``, ...)."""


def normalized(name: str) -> str:
    """The NFC form of a name: an accented letter is the same whether it was typed as one character or two."""
    return unicodedata.normalize("NFC", name)


Name = Annotated[str, Field(min_length=1), AfterValidator(normalized)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Behavior(_Strict):
    """Where the levels of a behavior begin: 1 to `medium` - 1 repeats in a minute are L, below `high` M, else H.

    Both ``None`` is a one-time behavior, which has no level (footnote 1).
    """

    medium: int | None = None
    high: int | None = None

    @model_validator(mode="after")
    def _thresholds_rise(self) -> Self:
        if self.medium is None and self.high is None:
            return self
        if self.medium is None or self.high is None or not 2 <= self.medium < self.high:
            raise ValueError(
                f"expected 2 <= medium < high (or neither), got medium = {self.medium}, high = {self.high}"
            )
        if self.high > MAX_REPEATS:
            raise ValueError(f"expected high to be at most {MAX_REPEATS}, got {self.high}")
        return self

    @property
    def has_levels(self) -> bool:
        """True where repeats within a minute tell something."""
        return self.medium is not None


PAPER_FAST = Behavior(medium=2, high=3)
"""The paper's thresholds for login, verify, modify and buy."""

PAPER_SLOW = Behavior(medium=2, high=5)
"""The paper's thresholds for post, edit and sell."""

ONE_TIME = Behavior()
"""Registration, application for opening a shop: no level."""

PRESETS = {"paper-login": PAPER_FAST, "paper-post": PAPER_SLOW, "one-time": ONE_TIME}
"""The names that a schema file may use instead of thresholds."""


def _behavior_of_preset(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)} or {{ medium = ..., high = ... }}, got {value!r}")
    return PRESETS[value]


def known_zone(value: str) -> str:
    """A time zone's IANA name, if there is such a zone.

    Raises:
        ValueError: there is none.
    """
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no such time zone: {value!r}; expected an IANA name such as Europe/Berlin") from None
    return value


def _as_date(value: Any) -> Any:
    if isinstance(value, str):
        return date.fromisoformat(value)
    return value


class Columns(_Strict):
    """Which column of the events is what; the names are those of the events.

    Attributes:
        entity: who.
        timestamp: when.
        behavior: what.
        location: where.
        outcome: how it ended.
        extra: further columns (IP address, ID card) whose values are kept as a set per minute.
        entity_type: "integer" or "text"; by default what the column of the events is (a CSV's is text).
        timestamp_unit: the unit of an epoch number; by default judged once for the column by its magnitude.
    """

    entity: str = Field(min_length=1)
    timestamp: str = Field(min_length=1)
    behavior: str = Field(min_length=1)
    location: str | None = None
    outcome: str | None = None
    extra: list[str] = []
    entity_type: Literal["integer", "text"] | None = None
    timestamp_unit: Literal["s", "ms", "us"] | None = None

    @model_validator(mode="after")
    def _extra_names_are_free(self) -> Self:
        taken: set[str] = set()
        for name in self.extra:
            folded = name.casefold()
            if folded in RESERVED_COLUMNS or re.fullmatch(r"levels_\d+", folded):
                raise ValueError(f"extra column {name!r} has the name of a column of the minutes; rename it")
            if not name or folded in taken:
                raise ValueError(f"extra column {name!r} is empty or given twice (upper case doesn't matter)")
            taken.add(folded)
        return self

    def used(self) -> list[str]:
        """The events' columns that are read, each once."""
        named = [self.entity, self.timestamp, self.behavior, self.location, self.outcome, *self.extra]
        return list(dict.fromkeys(name for name in named if name is not None))


class Time(_Strict):
    """How moments are read; events outside [`earliest`, `latest`) (local midnights) are quarantined.

    Attributes:
        time_zone: IANA name. Local days and times of day, and how timestamps without a zone are read.
        earliest: first day that is believed, not before 1900.
        latest: first day that isn't believed any more, not after 2200-01-01.
    """

    time_zone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    earliest: Annotated[date, BeforeValidator(_as_date)] = date(1990, 1, 1)
    latest: Annotated[date, BeforeValidator(_as_date)] = date(2100, 1, 1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.earliest >= self.latest:
            raise ValueError(f"earliest ({self.earliest}) must be before latest ({self.latest})")
        if self.earliest < EARLIEST_DAY or self.latest > LATEST_DAY:
            raise ValueError(
                f"expected earliest and latest between {EARLIEST_DAY} and {LATEST_DAY}, got {self.earliest} and "
                f"{self.latest}"
            )
        return self


class Failures(_Strict):
    """Which events are failed operations.

    Attributes:
        outcomes: values of the outcome column that are failures, as text.
        behaviors: only these behaviors can fail; all if empty.
    """

    outcomes: list[Name] = []
    behaviors: list[Name] = []


class Schema(_Strict):
    """Decides the minute tokens of a log: its columns, time zone, failures, and the levels of its behaviors."""

    columns: Columns
    time: Time = Time()
    failures: Failures = Failures()
    behaviors: dict[str, Annotated[Behavior, BeforeValidator(_behavior_of_preset)]]

    @model_validator(mode="before")
    @classmethod
    def _normalize_names(cls, content: Any) -> Any:
        behaviors = content.get("behaviors") if isinstance(content, dict) else None
        if not isinstance(behaviors, dict):
            return content
        names = [normalized(str(name)) for name in behaviors]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"behaviors: {twice[0]!r} is there twice (the names are the same in NFC form)")
        return {**content, "behaviors": dict(zip(names, behaviors.values(), strict=True))}

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if not self.behaviors or "" in self.behaviors:
            raise ValueError("behaviors: expected at least one behavior, none with an empty name")
        if self.columns.outcome is None and (self.failures.outcomes or self.failures.behaviors):
            raise ValueError("failures: set columns.outcome too, the column that says how an event ended")
        unknown = [name for name in self.failures.behaviors if name not in self.behaviors]
        if unknown:
            raise ValueError(f"failures.behaviors: {unknown[0]!r} is not among the behaviors")
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A checked copy; pydantic's own would keep the codes and the hash of the original."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(fields | dict(update or {}))

    @cached_property
    def behavior_names(self) -> tuple[str, ...]:
        """The behaviors by ascending code; the first has code 1."""
        return tuple(sorted(self.behaviors))

    @property
    def num_words(self) -> int:
        """How many words (columns ``levels_0``, ...) hold a minute's behaviors."""
        return len(self.behaviors) // BEHAVIORS_PER_WORD + 1

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.behavior_names, start=1)}

    def behavior_code(self, name: str) -> int:
        """The code of a behavior; 0 if the schema doesn't list it."""
        return self._codes.get(normalized(name), 0)

    def definition(self) -> dict[str, Any]:
        """All that decides the tokens, as plain JSON values; ``Schema.model_validate`` reads it back."""
        return self.model_dump(mode="json")

    @cached_property
    def hash(self) -> str:
        """Sixteen digits that name the definition."""
        return definition_hash(self.definition())

    def display(self, words: Sequence[int]) -> str:
        """The paper's way of writing a token.

        Example:
            >>> columns = Columns(entity="who", timestamp="when", behavior="what")
            >>> Schema(columns=columns, behaviors={"Post": PAPER_SLOW, "Edit": PAPER_SLOW}).display([0b111000])
            'EditM_PostH'
        """
        return "_".join(self._display_one(code, level) for code, level in decode_behaviors(words))

    def _display_one(self, code: int, level: int) -> str:
        if code == 0 or code > len(self.behavior_names):
            return "?"
        name = self.behavior_names[code - 1]
        return name + (LEVEL_NAMES[level] if self.behaviors[name].has_levels else "")


def decode_behaviors(words: Sequence[int]) -> list[tuple[int, int]]:
    """Take a token apart into (behavior code, level), by ascending code.

    Example:
        >>> decode_behaviors([0b1101])
        [(0, 1), (1, 3)]
    """
    parts = []
    for index, word in enumerate(words):
        for position in range(BEHAVIORS_PER_WORD):
            level = int(word) >> (BITS_PER_BEHAVIOR * position) & 3
            if level:
                parts.append((index * BEHAVIORS_PER_WORD + position, level))
    return parts


def read_schema(path: Path | str) -> Schema:
    """Read a schema file.

    Raises:
        InputError: there is no such file, it isn't TOML, or a field is wrong; all faults are in one line.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"there is no schema file {path}; `infobehavior inspect` makes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the schema file {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    return parse_schema(content, str(path))


def parse_schema(content: Any, where: str) -> Schema:
    """Check a schema that was read from the file `where`, which the message names."""
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(_fault(fault["loc"], fault["msg"]) for fault in error.errors())
        raise InputError(f"{where}: {faults}") from None


def _fault(location: tuple[int | str, ...], message: str) -> str:
    message = " ".join(message.removeprefix("Value error, ").split())
    return f"{'.'.join(map(str, location))}: {message}" if location else message


def write_schema(schema: Schema, path: Path | str) -> None:
    """Write a schema as a TOML file with comments, for a person to edit."""
    text = schema_text(schema)
    write_text(Path(path), text)


def schema_text(schema: Schema) -> str:
    """The TOML text of a schema."""
    sections = [_HEADER]
    for name, comment in _COMMENTS.items():
        content = getattr(schema, name).model_dump(exclude_none=True)
        sections.append(f"{comment}[{name}]\n{tomli_w.dumps(content)}")
    lines = [_behavior_line(name, schema.behaviors[name]) for name in schema.behavior_names]
    sections.append(f"{_BEHAVIORS_COMMENT}[behaviors]\n" + "".join(lines))
    return "\n".join(sections)


def _behavior_line(name: str, behavior: Behavior) -> str:
    key = tomli_w.dumps({name: True}).removesuffix(" = true\n")
    preset = next((preset for preset, value in PRESETS.items() if value == behavior), None)
    value = f'"{preset}"' if preset else f"{{ medium = {behavior.medium}, high = {behavior.high} }}"
    return f"{key} = {value}\n"


_HEADER = """\
# The schema of an event log: what its columns mean and how its events become minute tokens.
# Edit it freely before `infobehavior aggregate`; afterwards minutes, models and embeddings depend on it.
"""
_COMMENTS = {
    "columns": """\
# Which column is what. location, outcome and extra (further columns, such as an IP address, whose values are
# kept as a set per minute) may be left out. entity_type: "integer" or "text". timestamp_unit, for epoch
# numbers: "s", "ms" or "us".
""",
    "time": """\
# time_zone: local days and times of day, and how timestamps without a time zone are read.
# Events before earliest, or at or after latest, are set aside and counted.
""",
    "failures": """\
# outcomes: values of the outcome column that are failed operations.
# behaviors: only these behaviors can fail; all, if empty.
""",
}
_BEHAVIORS_COMMENT = """\
# Repeats of a behavior within a minute: 1 .. medium-1 are L, medium .. high-1 are M, high and more are H.
# Instead of { medium = 2, high = 9 }: "paper-login" (2, 3), "paper-post" (2, 5), "one-time" (no level).
# Behaviors that aren't listed are counted together as one unknown behavior.
"""
