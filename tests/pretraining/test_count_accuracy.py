"""The count tasks on entities that training never saw, beside plain loops."""

import numpy as np
import pytest
import torch

from infobehavior import InputError, pretrain
from infobehavior.data.moments import end_of_day
from infobehavior.data.store import load_store
from infobehavior.data.windows import Windows
from infobehavior.pretext.labels import count_classes
from infobehavior.pretraining.count_accuracy import count_accuracy
from infobehavior.pretraining.training import prepare_training
from small_minutes import tiny_config

DAY = "2024-04-04"
TASKS = ("failures", "histogram:hour", "count:edit.page")


@pytest.fixture(scope="module")
def folder(minutes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "out"
    pretrain(minutes.path, folder, config=tiny_config(domain_task=TASKS), until="2024-04-01")
    return folder


def windows_of(minutes, model):
    end = end_of_day(DAY, minutes.schema)
    store = load_store(minutes, end - model.config.window_minutes, end, with_counts=True)
    count = len(store.entities)
    return store, Windows.cut(store, np.arange(count), np.full(count, end), model.config.window_minutes)


def test_each_count_task_is_asked_about_each_window(folder, minutes):
    training = prepare_training(minutes.path, tiny_config(domain_task=TASKS), "2024-04-01", None)
    for step in range(training.config.num_steps):
        training.step(step)
    model = training.model.eval()
    store, windows = windows_of(minutes, model)
    found = {one.task: one for one in count_accuracy(folder, minutes.path, store.entities, DAY)}
    assert list(found) == ["failures", "count:edit.page"]
    code, counted = minutes.schema.behavior_code("edit.page"), store.behavior_counts
    edits = np.add.reduceat(np.where(counted.code == code, counted.count, 0), counted.offsets[:-1])
    for task, counts in (("failures", store.num_failures), ("count:edit.page", edits)):
        right, classes = 0, []
        layer = training.model.readouts.layer(task)
        for place in range(len(windows)):
            window = windows.take(np.array([place]))
            with torch.inference_mode():
                predicted = int(layer(model(model.tokenizer(store).batch(window)).global_repr).argmax())
            classes.append(int(count_classes(counts[window.first_row[0] : window.end_row[0]].sum(keepdims=True))[0]))
            right += predicted == classes[-1]
        assert found[task].num_windows == len(windows) > 5
        assert found[task].accuracy == pytest.approx(right / len(windows))
        assert found[task].most_frequent == pytest.approx(max(np.bincount(classes)) / len(windows))


def test_only_the_entities_that_are_named(folder, minutes):
    two = load_store(minutes).entities[:2]
    assert [one.num_windows for one in count_accuracy(folder, minutes.path, two, DAY)] == [2, 2]
    with pytest.raises(InputError, match="none of 1 entities has events in the window up to 2024-04-04"):
        count_accuracy(folder, minutes.path, np.array(["nobody"]), DAY)
