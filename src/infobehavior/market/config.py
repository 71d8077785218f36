"""How large and how difficult the simulated market is: what differs from market to market has a name here.

What is the same in all markets are constants beside their use: days of promotion and holidays (`block.PROMOTIONS`,
`HOLIDAYS`), types of sellers, how often operations fail (`operations.TYPES`, `FAILURE_RATES`), how long accounts that
were taken over are changed and how long relapses last (`sellers.TAKEOVER_DAYS`, `EPISODE_DAYS`, `PAUSE_DAYS`), when new
tricks come (`products.NEW_TRICKS_DAYS`), what share of a category's violations has titles that say nothing
(`products.CATEGORIES`), and tools' bursts, 0.15 a day of 60 operations (`habits.Habits.draw`).
"""

from datetime import date, timedelta
from math import exp
from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from infobehavior.data.clock import known_time_zone

EARLIEST_DAY, LATEST_DAY = date(1970, 1, 1), date(2200, 1, 1)
"""A log begins on the first or later, when clocks went by whole minutes, and ends before the second, from which on no
schema believes anything."""

MAX_OPS = 120
"""No session has more operations."""

MAX_EVENTS_PER_SELLER = 30_000
"""On average. A thousand sellers are simulated at once, and a million events take about 0.2 GB."""


class Kinds(BaseModel):
    """Shares of the kinds among abnormal sellers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bought: NonNegativeFloat = Field(
        0.3,
        le=1e6,
        description="share, among abnormal sellers, of accounts that another person took over: other places, hours and "
        "order, failed verification",
    )
    burst: NonNegativeFloat = Field(
        0.4, le=1e6, description="likewise, of sellers whose tools post dozens of items at night, on some days"
    )
    camouflaged: NonNegativeFloat = Field(
        0.1,
        le=1e6,
        description="likewise, of slow ones that copy the counts of normal sellers and differ in order and timing only",
    )
    relapsing: NonNegativeFloat = Field(
        0.2, le=1e6, description="likewise, of bought accounts that behave for weeks and then don't, for days"
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

    num_sellers: PositiveInt = Field(10_000, le=100_000_000, description="sellers of the market")
    first_day: date = Field(
        date(2019, 8, 1), ge=EARLIEST_DAY, lt=LATEST_DAY, description="first local day; the last one is before 2200"
    )
    num_days: PositiveInt = Field(92, le=3_650, description="days of the log")
    time_zone: str = Field("Asia/Shanghai", description="IANA name of the market's time zone")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="decides all that is random")

    # Habits of all sellers
    sessions_per_day: float = Field(0.9, ge=0.001, le=100, description="sessions a day of the median seller")
    sessions_spread: NonNegativeFloat = Field(
        0.9, le=2, description="standard deviation of their logarithm among sellers"
    )
    ops_per_session: float = Field(
        7.0, ge=0.001, le=MAX_OPS, description="operations of a session of the median seller"
    )
    habit: float = Field(0.6, ge=0, le=1, description="how often the next operation is the seller's usual next one")
    mix_concentration: float = Field(
        30.0, ge=0.001, le=1e6, description="how alike the mixes of operations of sellers of one type are"
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
    restless_changes: float = Field(0.5, ge=0.001, le=100, description="how often a day the median one of them does")
    failure_spread: NonNegativeFloat = Field(
        1.2, le=5, description="standard deviation, among sellers, of the logarithm of the odds that operations fail"
    )
    new_share: float = Field(0.06, ge=0, le=1, description="share of sellers that register and open within these days")

    # Abnormal sellers
    abnormal_share: float = Field(0.0047, ge=0, le=1, description="share of abnormal sellers; the paper's is 0.47 %")
    kinds: Kinds = Kinds()
    earliest_begin: PositiveInt = Field(
        35, le=3_650, description="days before the log's end, from which on sellers are abnormal"
    )
    latest_begin: PositiveInt = Field(5, le=3_650, description="days before the log's end, by which all of those are")
    strength: float = Field(
        0.6, ge=0, le=1, description="how far bought and relapsing accounts move from old habits to new ones"
    )
    failure_factor: float = Field(2.0, ge=0.001, le=1_000, description="how many times the odds to fail they have")
    changes: NonNegativeFloat = Field(
        1.0,
        le=100,
        description="changes of the profile a day, when an account is taken over, 0.8 times as many of the password "
        "and 2.0 times as many verifications",
    )
    burst_days: float = Field(0.2, ge=0, le=1, description="share of days on which abnormal tools work")
    burst_size: float = Field(2.0, ge=0.001, le=100, description="size of their bursts, of those of normal tools")
    missed_labels: float = Field(0.1, ge=0, le=1, description="share of abnormal sellers that are labelled normal")
    false_labels: float = Field(0.0001, ge=0, le=1, description="share of normal sellers that are labelled abnormal")

    # Products
    products_per_seller: NonNegativeFloat = Field(
        3.0, le=1_000, description="products of the log's sellers, at most, on average"
    )
    violations: float = Field(0.6, ge=0, le=1, description="share of abnormal sellers' products that break the rules")
    honest_violations: float = Field(0.002, ge=0, le=1, description="likewise, of all others")
    rewriting: float = Field(0.6, ge=0, le=1, description="share of telling words that abnormal sellers rewrite")
    veiled: float = Field(
        1.0,
        ge=0,
        le=1,
        description="times each category's share of violations whose titles say nothing, up to 0.7",
    )
    styled: float = Field(0.05, ge=0, le=1, description="share of titles with an innocent word in look-alike letters")
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

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        last_day = self.first_day + timedelta(days=self.num_days - 1)
        if last_day >= LATEST_DAY:
            raise ValueError(
                f"first_day is {self.first_day} and num_days {self.num_days}, so the last day is {last_day}; expected "
                f"one before {LATEST_DAY}"
            )
        return self

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.events_per_seller > MAX_EVENTS_PER_SELLER:
            raise ValueError(
                f"a seller would have about {self.events_per_seller:,.0f} events in {self.num_days} days; expected "
                f"{MAX_EVENTS_PER_SELLER:,} at most on average: give less of num_days, sessions_per_day, "
                "sessions_spread, ops_per_session, restless_changes, changes or burst_size"
            )
        return self

    @property
    def events_per_seller(self) -> float:
        """About how many events the log has of a seller, on average; rather too many than too few."""
        sessions = self.sessions_per_day * exp(self.sessions_spread**2 / 2)
        a_day = sessions * (1 + min(1.5 * self.ops_per_session, MAX_OPS)) + 16 * self.tool_share
        a_day += 5 * self.restless_share * self.restless_changes
        of_bursts = 180 * self.burst_days * self.burst_size * self.kinds.burst / self.kinds.total
        abnormal_days = self.abnormal_share * min((self.earliest_begin + self.latest_begin) / 2, self.num_days)
        return self.num_days * a_day + abnormal_days * (of_bursts + self.changes)

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        return known_time_zone(name)
