from manual_features_page import PAGE, page


def test_the_page_names_each_feature_that_is_made():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make features`"
