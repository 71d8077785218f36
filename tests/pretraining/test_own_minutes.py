"""What each of several processes reads. (That they train to the same is in test_processes.)"""

from datetime import timedelta

import numpy as np
import pytest
import torch

from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import read_moments
from infobehavior.data.store import load_store
from infobehavior.pretraining.own_minutes import MemoryLimit, load_own
from infobehavior.pretraining.processes import Processes
from small_minutes import FIRST_DAY, Event, random_events, small_minutes, small_schema, write_moments

MOMENT = FIRST_DAY + timedelta(days=5)


def log(number):
    """Events of ten entities, the last of which does nothing before the moment."""
    events = [Event(number(event.who), event.at, event.what, event.place) for event in random_events()]
    last = number("user 9")
    return [event for event in events if event.who != last or event.at > MOMENT]


@pytest.fixture(scope="module", params=["text", "integer"])
def minutes(request, tmp_path_factory):
    is_text = request.param == "text"
    events = log((lambda who: who) if is_text else (lambda who: int(who[5:]) - 3))
    schema = small_schema(entity_type=request.param)
    return open_minutes(small_minutes(tmp_path_factory.mktemp(request.param), events, schema).path)


@pytest.mark.parametrize("most", [None, 1, 60])
@pytest.mark.parametrize("size", [1, 2, 12])
@pytest.mark.parametrize("cut", [False, True])
def test_each_minute_is_read_by_one_process(minutes, tmp_path, most, size, cut):
    whole = load_store(minutes)
    end = int(whole.minute.max()) + 1
    moments = None
    if cut:
        rows = [(who, MOMENT) for who in whole.entities.tolist()[::3]]
        moments = read_moments(write_moments(rows, tmp_path / "moments.parquet"), minutes)
        moment = int(MOMENT.timestamp()) // 60
        whole = whole.select((whole.minute < moment) | (whole.row_entity % 3 != 0))
    limit = None if most is None else MemoryLimit(most, tmp_path)
    parts = [
        load_own(minutes, None, end, moments, with_counts=True, processes=processes, limit=limit)
        for processes in (Processes(torch.device("cpu"), rank, size) for rank in range(size))
    ]
    found = [
        (who, minute)
        for part in parts
        for who, minute in zip(part.entities[part.row_entity].tolist(), part.minute.tolist(), strict=True)
    ]
    assert found == list(zip(whole.entities[whole.row_entity].tolist(), whole.minute.tolist(), strict=True))
    num_minutes = [part.num_minutes for part in parts]
    assert max(num_minutes) <= np.ceil(sum(num_minutes) / size) + max(np.diff(whole.offsets))
    if most == 1:
        assert all(part.folder == tmp_path for part in parts if part.num_minutes > 1)
