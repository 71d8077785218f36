"""How large and how difficult the simulated market is; everything that decides it has a name here."""

from datetime import date
from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from infobehavior.data.clock import known_time_zone


class Kinds(BaseModel):
    """Shares of the kinds among abnormal sellers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bought: NonNegativeFloat = Field(
        0.3, description="accounts that another person took over: other places, hours and order, failed verification"
    )
    burst: NonNegativeFloat = Field(0.4, description="sellers whose tools post dozens of items at night, on some days")
    camouflaged: NonNegativeFloat = Field(
        0.1, description="slow ones that copy the counts of normal sellers and differ in order and timing only"
    )
    relapsing: NonNegativeFloat = Field(
        0.2, description="bought accounts that behave for weeks and then don't, for days"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.total <= 0:
            raise ValueError("the shares of all kinds are 0; expected at least one above")
        return self

    @property
    def total(self) -> float:
        """What the shares add up to."""
        return float(sum(self.model_dump().values()))


class MarketConfig(BaseModel):
    """The market; by default the paper's three months and its share of abnormal sellers (4.1.1, 4.2.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_sellers: PositiveInt = Field(10_000, description="sellers of the market")
    first_day: date = Field(date(2019, 8, 1), description="first local day")
    num_days: PositiveInt = Field(92, le=3_650, description="days of the log")
    time_zone: str = Field("Asia/Shanghai", description="IANA name of the market's time zone")
    seed: int = Field(0, ge=0, description="decides all that is random")

    # Habits of all sellers
    sessions_per_day: PositiveFloat = Field(0.9, description="sessions a day of the median seller")
    sessions_spread: NonNegativeFloat = Field(0.9, description="standard deviation of their logarithm among sellers")
    ops_per_session: PositiveFloat = Field(7.0, description="operations of a session of the median seller")
    habit: float = Field(0.6, ge=0, le=1, description="how often the next operation is the seller's usual next one")
    mix_concentration: PositiveFloat = Field(
        30.0, description="how alike the mixes of operations of sellers of one type are"
    )
    tool_share: float = Field(0.5, ge=0, le=1, description="share of normal sellers with a tool that works in bursts")
    staff_share: float = Field(0.3, ge=0, le=1, description="share of sellers with staff in several cities")
    moving_share: float = Field(0.3, ge=0, le=1, description="share of sellers that move to other cities, once")
    night_share: float = Field(0.3, ge=0, le=1, description="share of sellers who work at night")
    restless_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="share of sellers who verify often, of those who change passwords often, and likewise profiles",
    )
    restless_changes: PositiveFloat = Field(0.5, description="how often a day the median one of them does")
    failure_spread: NonNegativeFloat = Field(
        1.2, description="standard deviation, among sellers, of the logarithm of the odds that operations fail"
    )
    new_share: float = Field(0.06, ge=0, le=1, description="share of sellers that register and open within these days")

    # Abnormal sellers
    abnormal_share: float = Field(0.0047, ge=0, le=1, description="share of abnormal sellers; the paper's is 0.47 %")
    kinds: Kinds = Kinds()
    earliest_begin: PositiveInt = Field(35, description="days before the log's end, from which on sellers are abnormal")
    latest_begin: PositiveInt = Field(5, description="days before the log's end, by which all of those are")
    strength: float = Field(
        0.6, ge=0, le=1, description="how far bought and relapsing accounts move from old habits to new ones"
    )
    failure_factor: PositiveFloat = Field(2.0, description="how many times the odds to fail they have")
    changes: NonNegativeFloat = Field(
        1.0, description="verifications and changes of password and profile a day, when an account is taken over"
    )
    burst_days: float = Field(0.2, ge=0, le=1, description="share of days on which abnormal tools work")
    burst_size: PositiveFloat = Field(2.0, description="size of their bursts, of those of normal tools")
    missed_labels: float = Field(0.1, ge=0, le=1, description="share of abnormal sellers that are labelled normal")
    false_labels: float = Field(0.0001, ge=0, le=1, description="share of normal sellers that are labelled abnormal")

    # Products
    products_per_seller: NonNegativeFloat = Field(3.0, description="products of the log's sellers, at most, on average")
    violations: float = Field(0.6, ge=0, le=1, description="share of abnormal sellers' products that break the rules")
    honest_violations: float = Field(0.002, ge=0, le=1, description="likewise, of all others")
    rewriting: float = Field(0.6, ge=0, le=1, description="share of telling words that abnormal sellers rewrite")
    innocent_words: float = Field(0.05, ge=0, le=1, description="share of honest titles with a telling word")
    taken_pictures: float = Field(0.5, ge=0, le=1, description="share of violations with someone else's picture")

    @model_validator(mode="after")
    def _check_begins(self) -> Self:
        if self.latest_begin > self.earliest_begin:
            raise ValueError(
                f"latest_begin is {self.latest_begin} days before the end, and earliest_begin {self.earliest_begin}; "
                "expected the earliest to be as many days before it or more"
            )
        return self

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        return known_time_zone(name)
