from collections import Counter
from datetime import date

import numpy as np
import pytest

from infobehavior.market.block import simulate_block
from infobehavior.market.config import MarketConfig
from infobehavior.market.operations import OPERATIONS
from infobehavior.market.products import CATEGORIES

LARGE = {"first_day": date(2019, 8, 1), "num_days": 60, "abnormal_share": 0.4, "products_per_seller": 8.0}


def products(**changes):
    made = simulate_block(MarketConfig(**(LARGE | changes)), 0, 300)
    return made, made.products


def telling(made, number):
    """How many words of a title are the category's own telling ones."""
    words = made.products.title[number].split(" ")
    return sum(word in CATEGORIES[made.products.category[number]].telling for word in words)


def test_products_are_posted_when_their_seller_posts():
    made, found = products()
    posts = made.events.operation == OPERATIONS.index("post_product")
    moments = [
        set(zip(e.seller.tolist(), (e.day * 86_400 + e.second).round(3).tolist(), strict=True))
        for e in (made.events.take(posts), found)
    ]
    assert moments[1] <= moments[0]
    assert 300 < len(found.title) == len(found.picture) < 8 * 300 * 1.2


def test_a_seller_keeps_mostly_to_one_category():
    _, found = products()
    most = [Counter(found.category[found.seller == seller]).most_common(1)[0][1] for seller in np.unique(found.seller)]
    assert sum(most) / len(found.category) > 0.8


def test_violations_are_abnormal_sellers_from_their_day_on():
    made, found = products(honest_violations=0.0)
    since = made.sellers.since[found.seller]
    assert (found.day >= since)[found.is_violation].all()
    assert (made.sellers.kind[found.seller] > 0)[found.is_violation].all()
    has_rules = np.array([bool(category.telling) for category in CATEGORIES])[found.category]
    assert not found.is_violation[~has_rules].any()
    could = has_rules & (found.day >= since) & (made.sellers.kind[found.seller] > 0)
    assert found.is_violation[could].mean() == pytest.approx(0.6, abs=0.08)


def test_rewriting_hides_words_and_tricks_change():
    plain, _ = products(rewriting=0.0, honest_violations=0.3, veiled=0.0, styled=0.0)
    hidden, found = products(rewriting=1.0, honest_violations=0.3, veiled=0.0, styled=0.0)
    shown = [
        np.mean([telling(made, i) > 0 for i in np.flatnonzero(made.products.is_violation)]) for made in (plain, hidden)
    ]
    assert shown[0] == 1.0
    assert shown[1] < 0.3, "a word may have no such letter"
    texts = [
        "".join(found.title[i] for i in np.flatnonzero(found.is_violation & part))
        for part in (found.day < 30, found.day >= 30)
    ]
    old, new = (set(text) for text in texts)
    assert "$" in new - old
    assert "\u0430" in old - new


def test_some_violations_say_nothing():
    for veiled in (1.0, 0.5, 0.0):
        made, found = products(
            veiled=veiled,
            rewriting=0.0,
            honest_violations=0.4,
            innocent_words=0.0,
            styled=0.0,
            products_per_seller=30.0,
        )
        says = np.array([telling(made, number) > 0 for number in range(len(found.title))])
        for number, category in enumerate(CATEGORIES):
            of_category = found.is_violation & (found.category == number)
            if category.telling:
                assert 1 - says[of_category].mean() == pytest.approx(veiled * category.veiled, abs=0.07)
        assert not says[~found.is_violation].any()


def test_honest_titles_have_rewritten_words_too():
    for styled, expected in ((0.0, 0.0), (0.5, 0.48)):
        _, found = products(styled=styled, honest_violations=0.0, innocent_words=0.0)
        known = {word for category in CATEGORIES for word in category.words}
        honest = [title for title, is_bad in zip(found.title, found.is_violation, strict=True) if not is_bad]
        is_styled = [not set(title.split(" ")) <= known for title in honest]
        assert np.mean(is_styled) == pytest.approx(expected, abs=0.05)


def test_pictures_tell_violations_apart_unless_they_are_taken():
    gaps = []
    for share in (0.0, 1.0):
        _, found = products(taken_pictures=share, honest_violations=0.4)
        of = found.category == 2
        means = [found.picture[of & is_bad].mean(axis=0) for is_bad in (found.is_violation, ~found.is_violation)]
        gaps.append(np.linalg.norm(means[0] - means[1]))
    assert gaps[0] > 1.5 * gaps[1]


def test_events_do_not_depend_on_products():
    one, other = products()[0].events, products(products_per_seller=0.0)[0].events
    assert (one.second == other.second).all()
