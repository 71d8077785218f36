from infobehavior.data.survey import Chunk, Survey, chunks


def test_days_are_read_together_up_to_a_number_of_events() -> None:
    survey = Survey(num_rows=60, first_day=100, events_of_day=[0, 10, 10, 0, 11, 9, 20, 0])
    assert list(chunks(survey, chunk_events=20, share_events=1000)) == [
        Chunk(100, 104),
        Chunk(104, 106),
        Chunk(106, 108),
    ]


def test_a_day_of_many_events_is_read_in_shares() -> None:
    survey = Survey(num_rows=35, first_day=0, events_of_day=[5, 30])
    assert list(chunks(survey, chunk_events=10, share_events=12)) == [
        Chunk(0, 1),
        *(Chunk(1, 2, share, 3) for share in range(3)),
    ]


def test_shares_are_a_partition_in_sql() -> None:
    assert Chunk(0, 1).share_sql == "true"
    assert Chunk(0, 1, 2, 3).share_sql == "hash(entity_id) % 3 = 2"
