"""Products of simulated sellers: titles, pictures as vectors, categories, and which of them break the rules (4.3).

Content tells of violations, and is confronted: abnormal sellers rewrite the words that give them away, leave them out,
and take other people's pictures. From the last month on they have new tricks, which no earlier title has.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infobehavior.market.config import MarketConfig
from infobehavior.market.habits import Indices, Numbers
from infobehavior.market.operations import OPERATIONS
from infobehavior.market.sellers import Sellers
from infobehavior.market.sessions import SECONDS_PER_DAY, Events

PICTURE_DIM = 32
NEW_TRICKS_DAYS = 30
"""So many days before the end of the log the tricks change."""


@dataclass(frozen=True)
class Category:
    """A category of products.

    Attributes:
        name: as in tables 3 and 4 of the paper.
        words: what its titles are made of.
        telling: words that most violations need, and honest titles seldom have.
        veiled: share of violations whose titles do without them.
    """

    name: str
    words: tuple[str, ...]
    telling: tuple[str, ...]
    veiled: float = 0.0


CATEGORIES = (
    Category(
        "Accounts",
        ("game", "skin", "card", "top-up", "level", "server", "gift", "points", "code", "member", "video", "music"),
        ("account", "password", "login", "verified", "bulk"),
        0.1,
    ),
    Category(
        "Gamble",
        ("dice", "table", "cloth", "set", "party", "club", "chips", "deck", "shuffler", "box", "marker", "lamp"),
        ("casino", "jackpot", "marked", "lens", "winner"),
    ),
    Category(
        "Clothing & Accessories",
        ("dress", "cotton", "summer", "jacket", "sneaker", "slim", "belt", "scarf", "casual", "size", "hat", "wool"),
        ("logo", "original", "1:1", "factory", "tag"),
        0.7,
    ),
    Category(
        "Luggage",
        ("suitcase", "wheel", "cabin", "travel", "lock", "zipper", "hard", "shell", "trolley", "strap", "bag", "inch"),
        ("monogram", "original", "replica", "tag", "leather-code"),
        0.6,
    ),
    Category(
        "Cosmetics",
        ("cream", "serum", "lip", "mask", "skin", "sun", "powder", "brush", "set", "ml", "perfume", "gel"),
        ("sample", "tester", "original", "unboxed", "batch"),
        0.4,
    ),
    Category(
        "Home",
        ("cup", "plate", "lamp", "towel", "pillow", "shelf", "hook", "bowl", "mat", "vase", "clock", "basket"),
        (),
    ),
)

CATEGORY_SHARES = (0.1, 0.08, 0.27, 0.12, 0.18, 0.25)
WORDS_OF_TITLE = (4, 9)
LOOKALIKES = (
    {"a": "\u0430", "o": "0", "e": "\u0435", "i": "1", "s": "5"},
    {"a": "@", "o": "\u25cb", "e": "3", "i": "|", "s": "$"},
)
"""Letters that rewritten words have instead, before the tricks change and after; two letters are Cyrillic."""


@dataclass(frozen=True)
class Products:
    """Products of some sellers, in order of seller and time.

    Attributes:
        seller: row of each product's seller.
        day: local day on which it was posted, from 0.
        second: of that day.
        category: place in `CATEGORIES`.
        title: words.
        picture: (products, PICTURE_DIM).
        is_violation: whether it is restricted or counterfeit.
    """

    seller: Indices
    day: Indices
    second: Numbers
    category: Indices
    title: list[str]
    picture: NDArray[np.float32]
    is_violation: NDArray[np.bool_]


def draw_products(config: MarketConfig, sellers: Sellers, events: Events, random: np.random.Generator) -> Products:
    """Some of the products that sellers posted, at the times at which they did.

    Args:
        config: the market.
        sellers: a row each.
        events: of them, by seller and time.
        random: draws everything.
    """
    is_posted = events.operation == OPERATIONS.index("post_product")
    posted = np.flatnonzero(
        is_posted & (events.day * SECONDS_PER_DAY + events.second < config.num_days * SECONDS_PER_DAY)
    )
    per_seller = np.bincount(events.seller[posted], minlength=len(sellers.kind))
    chance = np.minimum(config.products_per_seller / np.maximum(per_seller, 1), 1)
    posted = posted[random.random(len(posted)) < chance[events.seller[posted]]]
    seller, day = events.seller[posted], events.day[posted] + (events.second[posted] // SECONDS_PER_DAY).astype(int)
    main = random.choice(len(CATEGORIES), len(sellers.kind), p=CATEGORY_SHARES)
    is_main = random.random(len(posted)) < 0.85
    category = np.where(is_main, main[seller], random.choice(len(CATEGORIES), len(posted), p=CATEGORY_SHARES))
    has_rules = np.array([bool(c.telling) for c in CATEGORIES])[category]
    by_abnormal = sellers.kind[seller] > 0
    rate = np.where(by_abnormal & (day >= sellers.since[seller]), config.violations, config.honest_violations)
    is_violation = has_rules & (random.random(len(posted)) < rate)
    is_new = day >= config.num_days - NEW_TRICKS_DAYS
    return Products(
        seller,
        day,
        np.mod(events.second[posted], SECONDS_PER_DAY),
        category,
        _titles(config, category, is_violation, is_new, random),
        _pictures(config, category, is_violation, random),
        is_violation,
    )


def _titles(
    config: MarketConfig,
    category: Indices,
    is_violation: NDArray[np.bool_],
    is_new: NDArray[np.bool_],
    random: np.random.Generator,
) -> list[str]:
    """Words of the category; most violations have one or two that give them away, often rewritten."""
    titles = []
    for number, violates, new in zip(category.tolist(), is_violation.tolist(), is_new.tolist(), strict=True):
        of_category = CATEGORIES[number]
        words = random.choice(of_category.words, random.integers(*WORDS_OF_TITLE)).tolist()
        if random.random() < config.styled:
            place = int(random.integers(len(words)))
            words[place] = _rewritten(words[place], new, random)
        is_open = violates and random.random() >= of_category.veiled * config.veiled
        num_telling = random.integers(1, 3) if is_open else int(random.random() < config.innocent_words)
        for word in random.choice(of_category.telling, num_telling).tolist() if of_category.telling else ():
            rewritten = is_open and random.random() < config.rewriting
            words.insert(int(random.integers(len(words) + 1)), _rewritten(word, new, random) if rewritten else word)
        titles.append(" ".join(words))
    return titles


def _rewritten(word: str, is_new: bool, random: np.random.Generator) -> str:
    """The word with some letters replaced, or with something between them."""
    if random.random() < 0.3:
        return ("." if is_new else " ").join(word)
    lookalikes = LOOKALIKES[int(is_new)]
    return "".join(lookalikes.get(letter, letter) if random.random() < 0.7 else letter for letter in word)


def _pictures(
    config: MarketConfig, category: Indices, is_violation: NDArray[np.bool_], random: np.random.Generator
) -> NDArray[np.float32]:
    """The category's direction, that of its violations where the picture isn't someone else's, and noise."""
    fixed = np.random.default_rng(0)  # what pictures show is the same in all markets
    of_category = fixed.normal(size=(len(CATEGORIES), PICTURE_DIM))
    of_violation = fixed.normal(size=(len(CATEGORIES), PICTURE_DIM))
    shows = is_violation & (random.random(len(category)) >= config.taken_pictures)
    noise = random.normal(size=(len(category), PICTURE_DIM))
    picture = of_category[category] + 0.5 * shows[:, None] * of_violation[category] + noise
    return picture.astype(np.float32)
