"""The measured part of docs/market.md is what the JSON beside it says."""

import json

import market


def test_the_page_is_that_of_the_json():
    described = json.loads(market.RESULT.read_text(encoding="utf-8"))
    page = market.PAGE.read_text(encoding="utf-8")
    assert page.partition(market.BEGIN)[2].partition(market.END)[0] == market._part(described)
