from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident

import pytest

from infobehavior.data.stages import ahead, in_order


def test_items_come_in_order_from_another_thread() -> None:
    made_by = []

    def make() -> Iterator[int]:
        for i in range(50):
            made_by.append(get_ident())
            yield i

    with ahead(make(), 3) as items:
        assert list(items) == list(range(50))
    assert len(set(made_by)) == 1
    assert made_by[0] != get_ident()


def test_no_more_are_made_than_asked_for() -> None:
    made, all_made = [], Event()

    def make() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            if len(made) == 4:
                all_made.set()
            yield i

    with ahead(make(), 3) as items:
        assert next(items) == 0
        assert all_made.wait(10)
        assert len(made) == 4
    assert len(made) == 4, "those that nobody takes are not made"


def test_an_error_comes_where_its_item_would() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with ahead(make(), 3) as items:
        assert next(items) == 1
        with pytest.raises(ZeroDivisionError):
            next(items)


def test_stages_after_each_other_end_after_an_error_in_the_last() -> None:
    def take_one_and_fail() -> None:
        with ahead(iter(range(1_000)), 2) as numbers, ahead(map(str, numbers), 2) as texts:
            assert next(texts) == "0"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_one_and_fail()


def test_an_error_in_the_first_stage_comes_through_the_second() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with ahead(fail(), 2) as numbers, ahead(map(str, numbers), 2) as texts:
        assert next(texts) == "1"
        with pytest.raises(ZeroDivisionError):
            next(texts)


def test_a_generator_is_closed_before_its_end() -> None:
    closed = []

    def count() -> Iterator[int]:
        try:
            yield from range(1_000)
        finally:
            closed.append(True)

    with ahead(count(), 2) as numbers:
        assert next(numbers) == 0
    assert closed == [True]


def test_results_come_in_order_and_few_are_pending() -> None:
    started: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        results = in_order(pool, 3, lambda i: (started.append(i), -i)[1], range(20))
        assert next(results) == 0
        assert len(started) <= 3
        assert list(results) == [-i for i in range(1, 20)]


def test_nothing_is_nothing() -> None:
    with ahead(iter([]), 2) as items:
        assert list(items) == []
