from market_parameters_page import part, part_of_page


def test_the_page_lists_each_parameter_with_its_default() -> None:
    assert part_of_page() == part(), "run `make features`"
