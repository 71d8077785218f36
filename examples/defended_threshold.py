"""From embeddings to a threshold that can be defended: which new products break the rules?

    python examples/defended_threshold.py

All data here are simulated: 1,000 sellers of a small market, some of them abnormal, all of whose titles tell. With a
log of your own, begin with `infobehavior inspect`; its products are any table of examples with an account, a moment, a
label and some columns.
"""

import sys
import tempfile
from pathlib import Path

import infobehavior
from infobehavior.fusion.config import FusionConfig
from infobehavior.market.config import MarketConfig
from infobehavior.market.simulate import simulate

ZONE = "Asia/Shanghai"
LAST_DAYS = ("2019-09-25", "2019-10-02", "2019-10-09", "2019-10-16", "2019-10-23", "2019-10-30")


def main(folder: Path) -> None:
    # 1. Events to embeddings, without labels. A night job writes a day each night; here it is one a week.
    config = MarketConfig(
        num_sellers=1_000, abnormal_share=0.3, earliest_begin=60, products_per_seller=20, veiled=0, time_zone=ZONE
    )
    market = simulate(folder / "market", config)
    schema = infobehavior.inspect(market.events, columns={"time_zone": ZONE}).schema
    infobehavior.aggregate(market.events, schema, folder / "minutes")
    tiny = infobehavior.PretrainConfig.model_validate(
        {"num_steps": 20, "batch_size": 16, "num_threads": 1, "pairs": "anywhere", "encoder": {"num_layers": 1}}
    )
    infobehavior.pretrain(folder / "minutes", folder / "model", config=tiny, until="2019-09-24")
    for day in LAST_DAYS:
        infobehavior.embed(folder / "minutes", folder / "model", folder / "embeddings", date=day)

    # 2. Name the groups of columns. The representation is joined by account, as of each product's moment.
    fusion = FusionConfig.model_validate(
        {
            "examples": {"label": "label_violation", "moment": "posted_at", "time_zone": ZONE, "id": ["product_id"]},
            "groups": {
                "title": {"kind": "text", "columns": ["title"]},
                "picture": {"kind": "vector", "columns": ["picture"]},
                "category": {"kind": "categories", "columns": ["category"]},
                "behavior": {"kind": "representation", "table": folder / "embeddings", "max_age_days": 8},
            },
            # Seven of ten alarms must be right, with a certainty of 0.8, since auditors look at each.
            "operating_point": {"precision": 0.7, "certainty": 0.8},
        }
    )

    # 3. Learn from products until 15 October; a fifth of the sellers is kept aside to choose the threshold by.
    trained = infobehavior.fuse_train(market.products, fusion, folder / "fused", since=LAST_DAYS[0], until="2019-10-15")
    print(*trained.lines(), sep="\n")

    # 4. What is the threshold worth on products that came later? The report has the intervals. Its lines also say how
    # many are of sellers that were learnt from, what is lost without a group, and what LightGBM finds: 20 steps are
    # too few for the representation to add anything here. docs/results.md has markets on which it does.
    found = infobehavior.fuse_evaluate(market.products, folder / "fused", folder / "report", since="2019-10-16")
    print(*found.lines(), sep="\n")

    # 5. Every night: the day's products with a probability and a flag, a partition a day.
    predicted = infobehavior.fuse_predict(
        market.products, folder / "fused", folder / "predictions", since="2019-10-31", until="2019-10-31"
    )
    print(*predicted.lines(), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="defended-threshold-")))
