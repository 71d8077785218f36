import pytest

from infobehavior.fusion.missing import GroupCounts, added, reasons, warnings_of


def test_what_never_happened_is_not_told():
    counts = {
        "price": GroupCounts(10, 2, not_finite=1),
        "look": GroupCounts(10, 0, unknown=3),
        "title": GroupCounts(9, 0),
    }
    assert reasons(counts) == {
        "without price, which counts as masked": 2,
        "values of price that are infinite or NaN, which count as missing": 1,
        "values of look that training doesn't know": 3,
    }


def test_days_are_added_up():
    total = added({}, {"price": GroupCounts(10, 2, 1, 0)})
    assert added(total, {"price": GroupCounts(5, 1, 1, 4)}) == {"price": GroupCounts(15, 3, 2, 4)}
    empty = added({"price": GroupCounts(9, 1, empty={"x": 2})}, {"price": GroupCounts(9, 1, empty={"x": 1, "y": 4})})
    assert empty == {"price": GroupCounts(18, 2, empty={"x": 3, "y": 4})}


@pytest.mark.parametrize(
    ("now", "trained", "is_told"),
    [(0, 0, False), (5, 0, False), (6, 0, True), (20, 10, False), (21, 10, True), (9, 4, False), (100, 40, True)],
)
def test_a_group_that_is_missing_more_often_is_told(now, trained, is_told):
    told = warnings_of({"price": GroupCounts(100, now)}, {"price": GroupCounts(100, trained)})
    assert bool(told) == is_told
    if told:
        assert told[0].startswith(
            f"warning: price is missing in {now}.0 % of the examples, in the training in {trained}.0 %"
        )


def test_a_column_that_is_missing_more_often_is_told():
    trained = {"price": GroupCounts(100, 0, empty={"rare": 50})}
    now = GroupCounts(100, 20, empty={"views": 80, "likes": 8, "few": 4, "rare": 60})
    told = warnings_of({"price": now}, trained)
    assert len(told) == 2
    assert told[0].startswith("warning: price is missing in 20.0 %")
    assert told[1].startswith(
        "warning: column 'views' of price and 1 more of its columns are missing in 100.0 % of the examples, in the "
        "training in 0.0 %"
    )
    assert warnings_of({"price": GroupCounts(100, 0, empty={"views": 6})}, trained)[0].startswith(
        "warning: column 'views' of price is missing in 6.0 %"
    )
    assert not warnings_of({"price": GroupCounts(100, 0, empty={"views": 5, "rare": 100})}, trained)


def test_categories_that_are_unknown_more_often_are_told():
    trained = {"look": GroupCounts(100, 20, unknown=2)}
    (told,) = warnings_of({"look": GroupCounts(50, 10, unknown=40)}, trained)
    assert told.startswith(
        "warning: look has 40 values in 50 examples that training doesn't know, in the training 2 in 100; what the"
    )
    assert not warnings_of({"look": GroupCounts(100, 20, unknown=4)}, trained)
