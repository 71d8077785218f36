"""docs/scale.md is what the measurements in the repository give."""

import scale


def test_the_page_is_that_of_the_json():
    assert scale.PAGE.read_text(encoding="utf-8") == scale.page(scale.read_rates())
