"""The online evaluation (section 4.3): products that break the rules, by content, with and without behavior."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from infobehavior.artefacts import (
    DEFINITION_FILE,
    UNFINISHED_FILE,
    definition_hash,
    is_simulated,
    write_atomically,
)
from infobehavior.data.clock import MINUTES_PER_DAY, SECONDS_PER_MINUTE, day_bounds, day_of_number, local_minutes
from infobehavior.data.events import connect, open_events, readable
from infobehavior.data.minutes import MinuteTable, hash_of_day, open_minutes
from infobehavior.data.moments import MICROSECONDS_PER_MINUTE
from infobehavior.downstream.manual_features import features_hash, manual_features
from infobehavior.downstream.metrics import best_f1_threshold, recall_at_precision
from infobehavior.embedding.embed import embed
from infobehavior.errors import InputError
from infobehavior.experiments.folder import mark_folder, refuse_foreign_folder
from infobehavior.fusion.classifier import FusionClassifier, rows_of
from infobehavior.fusion.config import ExampleColumns, FusionConfig, Group, Network, Operating
from infobehavior.fusion.examples import Examples, read_examples
from infobehavior.fusion.fuse import entity_numbers, probabilities, split
from infobehavior.fusion.operating_point import at_threshold, choose_threshold
from infobehavior.model.infobehavior import InfoBehavior

Metrics = dict[str, float | None]
"""By name; None of what can't be told, as the precision of no alarm."""

PRODUCT_COLUMNS = ("product_id", "entity_id", "posted_at", "category", "title", "picture", "label_violation")
PERIOD_DAYS = 30
MAX_AGE_DAYS = 1.5
"""Of behavior: that of the day's own beginning, and no older one where an account had no events before it."""
HELD_OUT_SHARE = 0.3
"""Of the sellers, so many are never learnt from: on them known and new tricks are compared."""
LISTING = (
    *("title_length", "title_words", "title_signs", "title_foreign", "listings_before", "listings_of_week"),
    *("share_of_category", "days_since_first_listing"),
)
TRAIN, KNOWN, NEW, NEW_HELD_OUT = "train", "known tricks", "new tricks", "new tricks, sellers held out"


@dataclass(frozen=True)
class OnlineTask:
    """A category of products whose violations are looked for.

    Attributes:
        category: as the products have it.
        precision: that is required, and at which recall is told.
        paper: recall at that precision and F1 of the paper, for each setting.
    """

    category: str
    precision: float
    paper: dict[str, tuple[float, float]]


BASIC, WITH_MANUAL, WITH_BEHAVIOR = "basic feature set", "+ manual behavior features", "+ InfoBehavior representation"

ONLINE_TABLES = {
    "table3": (
        OnlineTask(
            "Accounts",
            0.95,
            {BASIC: (0.5210, 0.6729), WITH_MANUAL: (0.5378, 0.6868), WITH_BEHAVIOR: (0.5562, 0.7016)},
        ),
        OnlineTask(
            "Gamble",
            0.95,
            {BASIC: (0.7992, 0.8681), WITH_MANUAL: (0.8012, 0.8693), WITH_BEHAVIOR: (0.8398, 0.8915)},
        ),
    ),
    "table4": (
        OnlineTask(
            "Clothing & Accessories",
            0.5,
            {BASIC: (0.3697, 0.4251), WITH_MANUAL: (0.3765, 0.4295), WITH_BEHAVIOR: (0.4148, 0.4534)},
        ),
        OnlineTask(
            "Luggage",
            0.5,
            {BASIC: (0.2638, 0.3454), WITH_MANUAL: (0.2954, 0.3714), WITH_BEHAVIOR: (0.3091, 0.3820)},
        ),
        OnlineTask(
            "Cosmetics",
            0.5,
            {BASIC: (0.4632, 0.4809), WITH_MANUAL: (0.4839, 0.4918), WITH_BEHAVIOR: (0.5196, 0.5096)},
        ),
    ),
}
"""Tables 3 (4.3.1) and 4 (4.3.2)."""


@dataclass(frozen=True)
class Masking:
    """How groups are masked in training (4.4.2).

    Attributes:
        content: probability of each group of the basic feature set; None leaves masking off.
        behavior: of the representation, or of the manual behavior features.
    """

    content: float | None
    behavior: float

    @property
    def name(self) -> str:
        """For a table."""
        return "no masking" if self.content is None else f"content {self.content:g}, behavior {self.behavior:g}"


USUAL_MASKING = Masking(0.3, 0.1)
MASKINGS = (
    Masking(None, 0.0),
    Masking(0.15, 0.05),
    USUAL_MASKING,
    Masking(0.3, 0.3),
    Masking(0.5, 0.1),
    Masking(0.1, 0.5),
)
"""What is tried with the representation; the first is a network without the layer, the last turns the advice around."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        task: whose products are learnt from.
        setting: which features.
        masking: in training.
        seed: of the validation part, the network and the trees.
    """

    task: OnlineTask
    setting: str
    masking: Masking
    seed: int


@dataclass(frozen=True)
class OnlineData:
    """Products, and the behavior of their sellers until the day on which they were posted.

    Attributes:
        folder: of the tables of examples and of behavior.
        parts: the table of each part.
        embeddings: table of representations.
        manual: table of hand-made features.
        time_zone: of the market.
        test_since: first local day of the new tricks' part.
        counts: products and violations, by part and category.
        hash: names the products, the minutes and the model.
        simulated: whether products or minutes lie in the folder of a simulated market.
    """

    folder: Path
    parts: dict[str, Path]
    embeddings: Path
    manual: Path
    time_zone: str
    test_since: date
    counts: dict[str, dict[str, tuple[int, int]]]
    hash: str
    simulated: bool

    def lines(self) -> list[str]:
        """For the terminal."""
        told = (_told(part, of_category) for part, of_category in self.counts.items())
        first = "simulated: " if self.simulated else ""
        return [f"{first}the last part begins {self.test_since}", *told]


def _told(part: str, of_category: dict[str, tuple[int, int]]) -> str:
    count, bad = (sum(numbers) for numbers in zip(*of_category.values(), strict=True))
    each = ", ".join(f"{category} {bad:,} of {count:,}" for category, (count, bad) in of_category.items())
    return f"{part}: {count:,} products, {bad:,} violations ({each})"


def read_online_data(
    products: str | Path, minutes: str | Path, model: str | Path, folder: str | Path, categories: Sequence[str]
) -> OnlineData:
    """Make examples of products, and what is known of their sellers' behavior at the beginning of each product's day.

    That is what a system has that embeds each night: the representation of a window that ends with the day before.
    Products of the last 30 days are the test; those of the 30 days before are learnt from, but for those of some
    sellers that are held out.

    Args:
        products: table of products with their labels, see `market.simulate`.
        minutes: of their sellers.
        model: pre-trained without labels, on days before the last 30.
        folder: for everything that is made on the way.
        categories: which products.

    Raises:
        InputError: these parts don't belong together, the model has seen the test, or `folder` can't be written or
            holds something else.
    """
    folder, table = Path(folder), open_minutes(minutes)
    refuse_foreign_folder(folder)
    encoder = InfoBehavior.from_pretrained(model)
    encoder.check_minutes(table)
    zone = table.schema.time.time_zone
    test_since = table.days[-1] - timedelta(days=PERIOD_DAYS - 1)
    begins = [test_since - timedelta(days=PERIOD_DAYS), test_since, table.days[-1] + timedelta(days=1)]
    found = _listed(products, categories)
    day = _local_days(found, zone)
    found = found.append_column("as_of", pa.array(day, pa.timestamp("us", "UTC")))
    _refuse_seen(encoder, test_since, zone)
    first, middle, end = (day_bounds(one, zone)[0] * MICROSECONDS_PER_MINUTE for one in begins)
    is_held_out = _held_out(found["entity_id"])
    is_old, is_new = (day >= first) & (day < middle), (day >= middle) & (day < end)
    masks = {
        TRAIN: is_old & ~is_held_out,
        KNOWN: is_old & is_held_out,
        NEW: is_new,
        NEW_HELD_OUT: is_new & is_held_out,
    }
    for name in (TRAIN, NEW):
        if not masks[name].any():
            raise InputError(
                f"{products} has no products of {', '.join(categories)} from {begins[0]} or from {begins[1]} on, "
                f"{PERIOD_DAYS} days each, the last {table.days[-1]}"
            )
    parts = {name: folder / f"{name.replace(', ', '-').replace(' ', '-')}.parquet" for name in masks}
    counts = {}
    mark_folder(folder)
    for name, mask in masks.items():
        part = found.filter(pa.array(mask))
        write_atomically(parts[name], partial(pq.write_table, part))
        counts[name] = {category: _counted(part, category) for category in categories}
    windows = found.filter(pa.array(is_old | is_new)).select(["entity_id", "as_of"]).group_by(["entity_id", "as_of"])
    asked = windows.aggregate([]).sort_by([("entity_id", "ascending"), ("as_of", "ascending")])
    columns = [asked["entity_id"].cast(pa.string()).to_pylist(), asked["as_of"].cast(pa.int64()).to_pylist()]
    contents = [hash_of_day(table, one) for one in table.days]
    key = definition_hash([encoder.model_id, table.hash, contents, *columns])
    embeddings = _embedded(folder, key, asked, table, model)
    manual = _hand_made(folder, key, asked, table, encoder.config.window_minutes)
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in parts.values()]
    return OnlineData(
        folder,
        parts,
        embeddings,
        manual,
        zone,
        test_since,
        counts,
        definition_hash([key, features_hash(), *hashes]),
        is_simulated(products, minutes),
    )


def _refuse_seen(encoder: InfoBehavior, test_since: date, time_zone: str) -> None:
    """Refuse a model that has seen the days of the test, or of which nobody knows."""
    until = encoder.pretraining.get("trained_until")
    if not until:
        raise InputError(
            f"the model doesn't say until when it learnt, and the test begins with {test_since}: pre-train one with "
            f"--until {test_since - timedelta(days=1)}"
        )
    if datetime.fromisoformat(until).timestamp() > day_bounds(test_since, time_zone)[0] * SECONDS_PER_MINUTE:
        raise InputError(
            f"the model learnt from events until {until}, and the test begins with {test_since}: pre-train it with "
            f"--until {test_since - timedelta(days=1)}"
        )


def _listed(products: str | Path, categories: Sequence[str]) -> pa.Table:
    """Products of some categories, with what is told of a listing by itself and by the seller's earlier ones."""
    with connect(threads=1) as connection:
        source = open_events(connection, products)
        if missing := [name for name in PRODUCT_COLUMNS if name not in source.columns]:
            raise InputError(f"{products} has no column {missing[0]!r}; it has {', '.join(source.columns)}")
        connection.register("categories", pa.table({"name": list(categories)}))
        with readable(str(products)):
            found = _execute(connection, source.sql)
    if len(found) == 0:
        raise InputError(f"{products} has no products of {', '.join(categories)}")
    return found


def _execute(connection: duckdb.DuckDBPyConnection, source: str) -> pa.Table:
    return connection.sql(f"""
        WITH products AS (SELECT *, epoch_us(posted_at) AS moment FROM {source}),
        counted AS (
          SELECT *,
            count(*) OVER before AS before,
            count(*) OVER week AS of_week,
            count(*) OVER alike AS alike,
            moment - min(moment) OVER (PARTITION BY entity_id) AS since_first
          FROM products
          WINDOW
            before AS (
              PARTITION BY entity_id ORDER BY moment RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
            week AS (
              PARTITION BY entity_id ORDER BY moment RANGE BETWEEN 604800000000 PRECEDING AND 1 PRECEDING),
            alike AS (
              PARTITION BY entity_id, category ORDER BY moment RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        )
        SELECT product_id, entity_id, posted_at, category, title, picture, label_violation::TINYINT AS label_violation,
          length(title)::DOUBLE AS title_length,
          len(string_split(title, ' '))::DOUBLE AS title_words,
          length(regexp_replace(title, '[A-Za-z ]', '', 'g')) / greatest(length(title), 1) AS title_signs,
          (length(title) - length(regexp_replace(title, '[^ -~]', '', 'g'))) / greatest(length(title), 1)
            AS title_foreign,
          ln(1 + before) AS listings_before,
          ln(1 + of_week) AS listings_of_week,
          alike / greatest(before, 1) AS share_of_category,
          since_first / 86400000000 AS days_since_first_listing
        FROM counted WHERE category IN (FROM categories) ORDER BY moment, product_id""").to_arrow_table()


def _counted(products: pa.Table, category: str) -> tuple[int, int]:
    """Products of a category, and how many of them break the rules."""
    violation = products.filter(pc.equal(products["category"], category))["label_violation"]
    return len(violation), int(pc.sum(violation).as_py() or 0)


def _local_days(products: pa.Table, time_zone: str) -> NDArray[np.int64]:
    """When the local day of each product began, in microseconds since the epoch."""
    moment = products["posted_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    number = local_minutes(moment // MICROSECONDS_PER_MINUTE, time_zone) // MINUTES_PER_DAY
    days, place = np.unique(number, return_inverse=True)
    begins = [day_bounds(day_of_number(int(day)), time_zone)[0] * MICROSECONDS_PER_MINUTE for day in days]
    return np.array(begins, dtype=np.int64)[place]


def _held_out(entity: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Sellers that are never learnt from, drawn once for all seeds."""
    entities = pc.unique(entity).sort()
    chosen = np.random.default_rng(0).random(len(entities)) < HELD_OUT_SHARE
    return np.asarray(chosen[pc.index_in(entity, entities).to_numpy()])


def _embedded(folder: Path, key: str, asked: pa.Table, minutes: MinuteTable, model: str | Path) -> Path:
    out, moments = folder / f"embeddings-{key}", folder / f"moments-{key}.parquet"
    if not (out / DEFINITION_FILE).exists() or (out / UNFINISHED_FILE).exists():
        write_atomically(moments, partial(pq.write_table, asked))
        embed(minutes.path, model, out, as_of=moments)
    return out


def _hand_made(folder: Path, key: str, asked: pa.Table, minutes: MinuteTable, window_minutes: int) -> Path:
    file = folder / f"manual-{definition_hash([key, features_hash()])}.parquet"
    if not file.exists():
        features = manual_features(minutes, asked, window_minutes)
        plain = pa.table({name: features[name] for name in features.column_names})
        for name in reversed(asked.column_names):
            plain = plain.add_column(0, name, asked[name])
        write_atomically(file, partial(pq.write_table, plain))
    return file


def fusion_config(data: OnlineData, run: Run) -> FusionConfig:
    """The configuration of a training: what a user would write into a file."""
    masking = {} if run.masking.content is None else {"masking": run.masking.content}
    groups = {
        "listing": Group(kind="numbers", columns=LISTING, **masking),
        "picture": Group(kind="vector", columns=("picture",), **masking),
        "title": Group(kind="text", columns=("title",), **masking),
    }
    masked = run.masking.behavior
    if run.setting == WITH_MANUAL:
        groups["behavior"] = Group(kind="numbers", table=data.manual, max_age_days=MAX_AGE_DAYS, masking=masked)
    if run.setting == WITH_BEHAVIOR:
        groups["behavior"] = Group(
            kind="representation", table=data.embeddings, max_age_days=MAX_AGE_DAYS, masking=masked
        )
    return FusionConfig(
        examples=ExampleColumns(
            label="label_violation",
            moment="posted_at",
            time_zone=data.time_zone,
            id=("product_id",),
            where={"category": run.task.category},
        ),
        groups=groups,
        network=Network(seed=run.seed, dynamic_masking=run.masking.content is not None),
        operating_point=Operating(precision=run.task.precision),
    )


def judge_run(data: OnlineData, run: Run) -> dict[str, dict[str, Metrics]]:
    """Train, and measure on each part that wasn't learnt from.

    LightGBM knows no masking, so it is trained where that is as usual, and not again for each way of masking.

    Returns:
        Metrics by classifier and part.
    """
    config = fusion_config(data, run)
    learnt = read_examples(data.parts[TRAIN], config, labelled=True)
    assert learnt.positive is not None
    parts = split(learnt, config.validation, run.seed)
    classifier = FusionClassifier(config.groups, config.network, gbdt=run.masking == USUAL_MASKING)
    classifier.fit_tables(learnt.tables, learnt.positive, parts)
    validation = probabilities(classifier, classifier.arrays(rows_of(learnt.tables, parts.validation)))
    positive, entity = learnt.positive[parts.validation], entity_numbers(learnt)[parts.validation]
    chosen = {
        name: (
            choose_threshold(positive, of, config.operating_point, entity).threshold,
            best_f1_threshold(positive, of),
        )
        for name, of in validation.items()
    }
    found: dict[str, dict[str, Metrics]] = {name: {} for name in validation}
    for part in (KNOWN, NEW, NEW_HELD_OUT):
        examples = read_examples(data.parts[part], config, labelled=True)
        for name, scores in probabilities(classifier, classifier.arrays(examples.tables)).items():
            found[name][part] = _metrics(examples, scores, *chosen[name], config)
    return found


def _metrics(
    examples: Examples,
    scores: NDArray[np.float64],
    threshold: float,
    f1_threshold: float,
    config: FusionConfig,
) -> Metrics:
    """As the paper has it, and by the thresholds that were chosen on the validation part."""
    positive, operating = examples.positive, config.operating_point
    assert positive is not None
    assert operating.precision is not None
    told = at_threshold(positive, scores, operating, threshold)
    recall = recall_at_precision(positive, scores, operating.precision)
    return {
        "recall": recall,
        "f1": 2 * operating.precision * recall / (operating.precision + recall),
        "best f1": at_threshold(positive, scores, operating, f1_threshold)["f1"],
        "auc": float(roc_auc_score(positive, scores)),
        "average precision": float(average_precision_score(positive, scores)),
        "recall by threshold": told["recall"],
        "precision by threshold": told["precision"],
    }


def described(run: Run) -> dict[str, Any]:
    """What decides a run's scores, beside the data."""
    config = {"content": run.masking.content, "behavior": run.masking.behavior}
    about = {"category": run.task.category, "precision": run.task.precision, "setting": run.setting}
    return {**about, "masking": config, "seed": run.seed}
