import pytest

from infobehavior.data.clock import day_of_number
from infobehavior.data.survey import Survey, chunks, survey_of
from infobehavior.errors import InputError
from small_minutes import small_schema


def test_days_are_read_together_up_to_a_number_of_events() -> None:
    survey = Survey(num_rows=60, first_day=100, events_of_day=[0, 10, 10, 0, 11, 9, 20, 0])
    assert list(chunks(survey, 20)) == [range(100, 104), range(104, 106), range(106, 108)]


def test_a_day_of_more_events_is_a_chunk_of_its_own() -> None:
    survey = Survey(num_rows=40, first_day=0, events_of_day=[5, 30, 5])
    assert list(chunks(survey, 10)) == [range(1), range(1, 2), range(2, 3)]


def test_days_that_are_not_wanted_are_not_read() -> None:
    survey = Survey(num_rows=60, first_day=100, events_of_day=[0, 10, 10, 0, 11, 9, 20, 0])
    some = survey.only({day_of_number(number) for number in (101, 103, 104, 105, 107)})
    assert list(chunks(some, 20)) == [range(101, 102), range(103, 105), range(105, 106), range(107, 108)]
    assert some.days == {day_of_number(number) for number in (101, 103, 104, 105, 107)}
    assert survey.only(None) == survey
    assert list(chunks(survey.only(set()), 20)) == []


@pytest.mark.parametrize("slot", [-1, 10**9])
def test_times_that_no_event_can_have_tell_of_a_damaged_file(slot) -> None:
    """DuckDB believes the statistics of a file, and so lets through what its rows say otherwise."""
    with pytest.raises(InputError, match="a file is damaged; write it again"):
        survey_of({5: 1, slot: 1}, small_schema())
