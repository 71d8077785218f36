"""What a fused classifier is made of: groups of columns, the network, its training, and what is asked of it.

A path of a table is relative to the working directory, of the training and of what comes after it: the model keeps it
as it is given, and `--table GROUP=PATH` names another. An `as_of` that is a date counts as the beginning of that day: a
table that has the totals of a day under its date needs `min_age_hours = 24` (25 where clocks change), or examples of
that day see its end.
"""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from infobehavior.data.clock import known_time_zone
from infobehavior.errors import InputError, one_line

Kind = Literal["representation", "vector", "numbers", "categories", "text"]
Share = Annotated[float, Field(gt=0, lt=1)]

MASKING = {"representation": 0.1, "vector": 0.3, "numbers": 0.3, "categories": 0.3, "text": 0.3}
"""How often the groups of a kind are masked in training, unless a group says so itself. The paper gives no numbers, but
that the representation's is "relatively small" (4.4.2)."""

PREDICTION_COLUMNS = ("entity_id", "as_of", "probability", "is_flagged", "model_id")
"""Of the table of predictions, beside those that name an example."""

GROUP_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
TEXT_DIM = 256
MOST_HOURS = 100 * 366 * 24
"""A hundred years: moments that are moved by so much still fit in 64 bits."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Group(_Frozen):
    """Columns that are encoded, and masked, together."""

    kind: Kind = Field(description="what the columns hold")
    columns: tuple[str, ...] = Field(
        (), description="one column of lists or several of numbers (vectors); by default of a table all but its keys"
    )
    table: Path | None = Field(
        None,
        description="joined by entity and moment, instead of columns of the examples: a file or a folder with "
        "entity_id and as_of, such as embeddings; relative to the working directory",
    )
    max_age_days: PositiveFloat | None = Field(None, description="rows of the table that are older aren't joined")
    min_age_hours: float = Field(
        0.0,
        ge=0,
        le=MOST_HOURS,
        description="so long after its as_of a row of the table is there, such as when a night's run has ended",
    )
    masking: float | None = Field(None, ge=0, lt=1, description="share of training rows that don't see the group")
    encoder: Literal["tfidf", "wordllama"] = Field(
        "tfidf", description="of text: character n-grams, or a sentence encoder (extra `sentences`)"
    )
    text_dim: PositiveInt = Field(TEXT_DIM, description="dimensions of text by tfidf")

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{repeated[0]!r} is named twice")
        return names

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.table is None and not self.columns:
            raise ValueError("neither columns nor table is given; expected one of them at least")
        if self.table is not None and self.kind in ("text", "categories") and not self.columns:
            raise ValueError(f"a table of {self.kind} needs columns: which of the table's")
        if self.table is None and (self.max_age_days is not None or self.min_age_hours):
            raise ValueError("max_age_days and min_age_hours are for what a table holds, but there is no table")
        if self.max_age_days is not None and self.min_age_hours > 24 * self.max_age_days:
            raise ValueError(f"min_age_hours is {self.min_age_hours:g}, more than max_age_days: no row could be joined")
        if self.kind != "text" and (self.encoder, self.text_dim) != ("tfidf", TEXT_DIM):
            raise ValueError(f"encoder and text_dim are for text, not for {self.kind}")
        return self

    @property
    def masking_probability(self) -> float:
        """Of its own, or its kind's."""
        return MASKING[self.kind] if self.masking is None else self.masking


class Network(_Frozen):
    """The fusion network and its training."""

    group_dim: PositiveInt = Field(64, description="dimensions of each group once it is encoded")
    hidden_dim: PositiveInt = Field(128, description="hidden units of the fusion network")
    dropout: float = Field(0.3, ge=0, lt=1, description="in the encoders and the fusion network")
    dynamic_masking: bool = Field(True, description="mask whole groups at random in training (4.4.2)")
    learning_rate: PositiveFloat = Field(1e-3, description="of AdamW")
    full_rate_inputs: PositiveInt = Field(
        16, description="of a group with more inputs the first layer learns slower, by this number over theirs"
    )
    weight_decay: NonNegativeFloat = Field(0.01, description="of AdamW")
    batch_size: PositiveInt = Field(
        256, description="examples a step, at most; of few examples, a thirty-second of them"
    )
    max_epochs: PositiveInt = Field(100, description="at most so many")
    patience: PositiveInt = Field(
        10, description="epochs without a lower calibrated loss of the validation part, then it ends"
    )
    positive_weight: PositiveFloat | Literal["balanced"] = Field(
        4.0,
        description="in how many copies a positive counts in training (4.2.3), or as many as make the classes equal",
    )
    calibration: Literal["platt", "isotonic", "none"] = Field(
        "platt", description="what turns scores into probabilities, on the validation part; all keep their order"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="decides all that is random")
    num_threads: PositiveInt = Field(1, description="of torch; the last digits depend on it")


class ExampleColumns(_Frozen):
    """Which columns of the table of examples say what."""

    label: str = Field(description="column of the answer: 0 and 1, or two texts")
    positive: str | None = Field(
        None,
        description="which class is looked for; needed where they are texts, else it is 1",
        coerce_numbers_to_str=True,
    )
    entity: str = Field("entity_id", description="column of the account behind an example")
    moment: str = Field(description="column of the moment at which an example is judged: nothing later is joined")
    time_zone: str | None = Field(
        None, description="of moments without one, which then need it, and of the days of predictions (else UTC)"
    )
    id: tuple[str, ...] = Field(
        (), description="columns that name an example, so that no two have one name; predictions have them"
    )
    where: dict[str, str] = Field({}, description="only examples with these values, by column, are of the task")

    @field_validator("id")
    @classmethod
    def _check_id(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if taken := [name for name in names if name in PREDICTION_COLUMNS]:
            raise ValueError(f"{taken[0]} is a column that predictions have anyway; leave it out of id")
        if len(set(names)) < len(names):
            raise ValueError("a column is named twice")
        return names

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str | None) -> str | None:
        return name if name is None else known_time_zone(name)

    @property
    def zone(self) -> str:
        """Of local days."""
        return self.time_zone or "UTC"


class Validation(_Frozen):
    """The part of the training examples that is for stopping, calibrating and choosing the threshold."""

    by: Literal["entity", "moment"] = Field(
        "entity", description="all examples of some entities, drawn by the seed, or the last examples"
    )
    share: Share = Field(0.2, description="of the entities, or of the examples")


class Operating(_Frozen):
    """What the threshold has to do."""

    precision: Share | None = Field(
        None, description="share of alarms that must be right; recall is then as high as can be"
    )
    certainty: Share = Field(
        0.8,
        description="with which the precision must be reached, by a lower bound that knows that the examples of an "
        "account go together; at 0.5 about the precision that the validation part shows, were there one more account "
        "with wrong alarms only",
    )
    cost_of_false_alarm: NonNegativeFloat | None = Field(None, description="of an example that is flagged and is fine")
    cost_of_miss: NonNegativeFloat | None = Field(None, description="of an example that isn't flagged and isn't fine")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cost_of_false_alarm is None) != (self.cost_of_miss is None):
            raise ValueError("one of cost_of_false_alarm and cost_of_miss is given; expected both or none")
        return self


class FusionConfig(_Frozen):
    """All of it; a TOML file has one table for each field."""

    examples: ExampleColumns
    groups: dict[Annotated[str, Field(pattern=GROUP_NAME)], Group] = Field(min_length=1)
    network: Network = Network()
    validation: Validation = Validation()
    operating_point: Operating = Operating()

    @field_validator("groups")
    @classmethod
    def _in_order(cls, groups: dict[str, Group]) -> dict[str, Group]:
        """By name: the order in a file decides nothing."""
        return dict(sorted(groups.items()))

    @model_validator(mode="after")
    def _check_leaks(self) -> Self:
        for name, group in self.groups.items():
            if group.table is None and self.examples.label in group.columns:
                raise ValueError(f"groups.{name} has the label {self.examples.label!r} among its columns; remove it")
        return self


TABLES: dict[str, type[BaseModel]] = {
    "examples": ExampleColumns,
    "groups": Group,
    "network": Network,
    "validation": Validation,
    "operating_point": Operating,
}
"""What the tables of a TOML file hold; of groups, each."""


def groups_without_columns(groups: Mapping[str, Group], there: Collection[str]) -> list[str]:
    """The groups of which no column is there; one of which some are isn't among them."""
    return [name for name, group in groups.items() if not group.table and not set(group.columns) & set(there)]


def read_fusion_config(file: Path) -> FusionConfig:
    """Read a TOML file.

    Raises:
        InputError: there is none, it isn't TOML, or it has faults; all those of single settings are named.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} is not TOML: {one_line(error)}") from None
    return checked_config(content, str(file))


def checked_config(content: object, where: str) -> FusionConfig:
    """A configuration from what a file holds.

    Raises:
        InputError: it has faults.
    """
    try:
        return FusionConfig.model_validate(content)
    except ValidationError as error:
        faults = (_fault(fault) for fault in error.errors(include_url=False))
        raise InputError(f"{where}: {one_line('; '.join(faults))}") from None


def _fault(fault: ErrorDetails) -> str:
    """What is wrong, and where; of a key that nobody knows, those that there are."""
    *tables, _ = loc = fault["loc"] or ("",)
    said = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        table = TABLES[str(tables[0])] if tables else FusionConfig
        said = f"there is no such setting; expected one of {', '.join(table.model_fields)}"
    return f"{'.'.join(map(str, loc))}: {said}".removeprefix(": ")
