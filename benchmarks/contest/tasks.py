"""What is asked, of which events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from infobehavior.market.config import MarketConfig

MIN_MINUTES_OF_BOTS = 5

CHOOSING_MARKET = MarketConfig(num_sellers=20_000, abnormal_share=0.02)
"""More abnormal sellers than the paper's 0.47 %, so that differences can be told from chance. By sellers of this seed a
part of the recipe was chosen."""
MARKET = CHOOSING_MARKET.model_copy(update={"seed": 2})
"""Nothing was chosen by this one."""
MARKET_TRAINED_UNTIL = date(2019, 9, 30)


@dataclass(frozen=True)
class Corpus:
    """Events as the contestants see them; an encoder is trained once on each, for all questions that are asked of it.

    Attributes:
        name: names its files.
        log: folder of the log below `--data`, or of what is simulated.
        window_days: length of the windows.
        columns: what contestants see of an event, beside the entity and the time.
        is_cut: whether training sees nothing of a labelled account from its moment on.
        until: last local day that training sees, if it isn't the log's last one.
        market: what the log is simulated by; None if it is a real one.
    """

    name: str
    log: str
    window_days: int
    columns: Sequence[str] = ("behavior", "location", "outcome")
    is_cut: bool = False
    until: date | None = None
    market: MarketConfig | None = None

    @property
    def time_zone(self) -> str:
        """Of the log."""
        return self.market.time_zone if self.market else "UTC"


NOWHERE = ("behavior", "outcome")
WITHOUT_OUTCOME = ("behavior", "location")
"""A commit of git_activity has failed if it was reverted later, which nobody knew at its time."""

CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus("git-90", "git_activity", 90),
        Corpus("git-90-no-location", "git_activity", 90, NOWHERE),
        Corpus("git-30", "git_activity", 30),
        Corpus("git-30-no-location", "git_activity", 30, NOWHERE),
        Corpus("git-365-cut", "git_activity", 365, WITHOUT_OUTCOME, is_cut=True),
        Corpus("flights-365", "nyc_flights", 365),
        Corpus("market-30", "market", 30, until=MARKET_TRAINED_UNTIL, market=MARKET),
        Corpus("choosing-market-30", "choosing-market", 30, until=MARKET_TRAINED_UNTIL, market=CHOOSING_MARKET),
    )
}


@dataclass(frozen=True)
class Task:
    """A question about accounts.

    Attributes:
        name: names its results.
        corpus: name of what it is asked of.
        label: column of the answers; "" for linking, which has pairs instead.
        title: for the page.
        question: what is asked, in words.
        moments: SQL of the windows: entity_id, as_of, the label, the group and, where it is known, the kind; the log
            is there as `events`, its labels as `labels`, and what is only known of a simulated log as `truth`.
        group: column that keeps accounts of one person on one side of every split; "" if each stands alone.
        answered_by: domain-related task that asks the same of everyone's past, so that a model answers without any
            label, by the chance that its count is none; "" if there is none.
        chosen_by: task whose validation part is for choosing in this one; "" if it is its own.
    """

    name: str
    corpus: str
    label: str
    title: str
    question: str
    moments: str
    group: str
    answered_by: str = ""
    chosen_by: str = ""


def _at_last_event(label: str, window_days: int) -> str:
    """Windows that end with the minute of an account's last event, of accounts that did enough in them."""
    return f"""
        WITH last AS (
          SELECT entity_id, time_bucket(INTERVAL 1 minute, max(timestamp)) + INTERVAL 1 minute AS as_of
          FROM events GROUP BY entity_id
        )
        SELECT entity_id, as_of, {label}, person_id
        FROM events JOIN last USING (entity_id) JOIN labels USING (entity_id)
        WHERE {label} IS NOT NULL AND timestamp >= as_of - INTERVAL {window_days} day
        GROUP BY ALL HAVING count(DISTINCT time_bucket(INTERVAL 1 minute, timestamp)) >= {MIN_MINUTES_OF_BOTS}
        ORDER BY entity_id"""


_ENOUGH = f"accounts with at least {MIN_MINUTES_OF_BOTS} minutes with events in it"


def _bots(name: str, corpus: str, window_days: int, what: str) -> Task:
    return Task(
        name,
        corpus,
        "label_bot",
        f"git_activity, bots, {window_days} days{what}",
        f"Is the account a bot? A window ends with the account's last event; {_ENOUGH}.",
        _at_last_event("label_bot", window_days),
        "person_id",
    )


def _market(name: str, corpus: str, market: MarketConfig, title: str, chosen_by: str = "") -> Task:
    return Task(
        name,
        corpus,
        "label_abnormal",
        title,
        f"Is the seller abnormal? Simulated: {market.num_sellers:,} sellers of seed {market.seed}, "
        f"{market.abnormal_share:.0%} of them abnormal. Windows are the third month, training saw the two before.",
        "SELECT entity_id, TIMESTAMPTZ '2019-10-31 16:00:00+00' AS as_of, label_abnormal, kind "
        "FROM labels JOIN truth USING (entity_id) "
        "WHERE entity_id IN (SELECT entity_id FROM events WHERE timestamp >= '2019-10-01 16:00:00+00') "
        "ORDER BY entity_id",
        "",
        chosen_by=chosen_by,
    )


CHOSEN_BY = ("bots-90", "churn", "old-aircraft", "choosing-market")
"""Of a third of the groups of each of these the accounts are for choosing a recipe, in all tasks of the same log: the
validation part. What is reported is of all others, the test part; a market by which nothing was chosen is all test."""
PARTS = 3
PART_SEED = 12_345

TASKS = (
    _bots("bots-90", "git-90", 90, ""),
    _bots("bots-90-no-location", "git-90-no-location", 90, ", no location"),
    _bots("bots-30", "git-30", 30, ""),
    _bots("bots-30-no-location", "git-30-no-location", 30, ", no location"),
    Task(
        "churn",
        "git-365-cut",
        "label_churn",
        "git_activity, churn",
        "Will the person never come back? Windows end at the label's own split date, from which on training saw "
        "nothing of the account. Nobody is told outcomes, since a commit fails when it is reverted, later.",
        "SELECT entity_id, split_date AS as_of, label_churn, person_id FROM labels "
        "WHERE label_churn IS NOT NULL ORDER BY entity_id",
        "person_id",
        "next:180",
    ),
    Task(
        "corp",
        "git-90-no-location",
        "label_corp",
        "git_activity, company accounts, no location",
        f"Is the account's address a company's? A window ends with the account's last event; {_ENOUGH}.",
        _at_last_event("label_corp", 90),
        "person_id",
    ),
    Task(
        "aliases",
        "git-90",
        "",
        "git_activity, same-account linking",
        "Of two accounts of one person in one repository: given one, at which rank among all accounts of the "
        "repository is the other? By cosine similarity of standardised vectors; a window ends with the account's "
        "last event.",
        """
        SELECT entity_id, time_bucket(INTERVAL 1 minute, max(timestamp)) + INTERVAL 1 minute AS as_of,
               any_value(events.repo) AS repo, any_value(person_id) AS person_id
        FROM events JOIN labels USING (entity_id) GROUP BY entity_id ORDER BY entity_id""",
        "person_id",
    ),
    Task(
        "old-aircraft",
        "flights-365",
        "label_old",
        "nyc_flights, old aircraft",
        "Was the aircraft built in 2000 or before? Windows end with 2013.",
        "SELECT entity_id, TIMESTAMPTZ '2014-01-01 00:00:00+00' AS as_of, label_old FROM labels "
        "WHERE label_old IS NOT NULL ORDER BY entity_id",
        "",
    ),
    _market("market", "market-30", MARKET, "market (simulated), abnormal sellers", chosen_by="choosing-market"),
    _market("choosing-market", "choosing-market-30", CHOOSING_MARKET, "market (simulated) of the seed of choice"),
)


@dataclass(frozen=True)
class NotUnseen:
    """Why the test part of a task isn't all that unseen.

    Attributes:
        mark: in a few words.
        sentence: in more.
    """

    mark: str
    sentence: str


NOT_UNSEEN = {
    "corp": NotUnseen(
        "this label chose `two-cores`, on which ours builds",
        "Not unseen: the preset `two-cores`, on which `recommended` builds, was chosen by this label of all accounts.",
    ),
    "choosing-market": NotUnseen(
        "sellers by whom a part of ours was chosen",
        "Not unseen: the statistics of spans of `recommended` were found on markets of the same seed, 0 "
        "(docs/paper_map.md). A seller's habits, dates and, but for a few, kind are drawn from the seed, so sellers of "
        "the test part share them with sellers by whom a part of the recipe was chosen.",
    ),
}
"""By the names of tasks."""
