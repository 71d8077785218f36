import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from math import isfinite
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch

from infobehavior import InfoBehavior, aggregate, pretrain
from infobehavior.data.clock import MINUTES_PER_DAY, local_minutes
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import CONFIG_FILE
from infobehavior.pretraining.pretrain import TRAINING_LOG
from infobehavior.pretraining.processes import Processes
from infobehavior.pretraining.training import Training, prepare_training
from small_minutes import (
    FIRST_DAY,
    NUM_DAYS,
    TIME_ZONE,
    Event,
    folder_bytes,
    random_events,
    small_minutes,
    small_schema,
    tiny_config,
    write_csv,
    write_moments,
    write_parquet,
)

UNTIL = "2024-04-02"
UNTIL_END = datetime(2024, 4, 3, tzinfo=ZoneInfo(TIME_ZONE))


@pytest.fixture(scope="module")
def model_bytes(model_folder):
    return folder_bytes(model_folder)


def trained(minutes, out, until=None, as_of=None, **changes):
    """The files that a tiny pre-training writes."""
    pretrain(minutes.path, out, config=tiny_config(**changes), until=until, as_of=as_of)
    return folder_bytes(out)


def log_of(files):
    return [json.loads(line) for line in files[TRAINING_LOG].decode().splitlines()]


# ---------------------------------------------------------------------------------------------- what it makes


def test_what_is_in_the_folder(model_folder, minutes):
    card = json.loads((model_folder / CONFIG_FILE).read_text())
    assert set(folder_bytes(model_folder)) == {CONFIG_FILE, TRAINING_LOG, card["weights_file"], card["vocabulary_file"]}
    assert card["minutes_hash"] == minutes.hash
    assert card["pretraining"]["config"] == tiny_config().model_dump(mode="json")
    assert card["time_zone"] == TIME_ZONE


def test_the_log_has_each_step_and_each_task(model_bytes):
    log = log_of(model_bytes)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5]
    for row in log:
        assert set(row) == {"step", "loss", "coarse", "fine", "failures", "learning_rate"}
        assert row["loss"] == pytest.approx(row["coarse"] + row["fine"] + row["failures"], rel=1e-5)
        assert all(isfinite(value) for value in row.values())
    assert log[0]["learning_rate"] == pytest.approx(tiny_config().learning_rate)


def test_the_returned_model_is_the_one_on_disk(minutes, tmp_path):
    model = pretrain(minutes.path, tmp_path, config=tiny_config(num_steps=2))
    assert not model.training
    again = InfoBehavior.from_pretrained(tmp_path)
    assert again.model_id == model.model_id
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_bfloat16_trains_to_nearly_the_same(minutes, tmp_path):
    exact = log_of(trained(minutes, tmp_path / "float32", num_steps=20))
    files = trained(minutes, tmp_path / "bfloat16", num_steps=20, precision="bfloat16")
    assert log_of(files)[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.05)
    assert log_of(files)[-1]["loss"] != exact[-1]["loss"]
    model = InfoBehavior.from_pretrained(tmp_path / "bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_a_device_that_is_not_there_is_refused(minutes, tmp_path):
    with pytest.raises(InputError, match="there is no device cuda:64"):
        pretrain(minutes.path, tmp_path, config=tiny_config(device="cuda:64"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def training_on_gpu(minutes):
    """What reads for a GPU, without one."""
    training = prepare_training(minutes.path, tiny_config(), None, None)
    return replace(training, processes=Processes(torch.device("cuda")))


def test_on_a_gpu_a_step_is_read_while_the_one_before_is_computed(training_on_gpu, monkeypatch):
    begun = {step: threading.Event() for step in range(2, 5)}

    def read(_, step):
        begun[step].set()
        return f"what step {step} reads"

    monkeypatch.setattr(Training, "read", read)
    given = training_on_gpu.read_ahead(range(2, 5))
    assert next(given) == "what step 2 reads"
    assert begun[3].wait(timeout=60)  # though nobody has asked for it
    assert not begun[4].is_set()
    assert list(given) == ["what step 3 reads", "what step 4 reads"]
    assert list(training_on_gpu.read_ahead(range(5, 5))) == []


def test_what_fails_ahead_is_said_when_its_step_comes(training_on_gpu, monkeypatch):
    def read(_, step):
        if step == 4:
            raise InputError("the file of step 4 has vanished")
        return step

    monkeypatch.setattr(Training, "read", read)
    given = training_on_gpu.read_ahead(range(2, 6))
    assert [next(given), next(given)] == [2, 3]
    with pytest.raises(InputError, match="the file of step 4 has vanished"):
        next(given)


def test_a_training_that_fails_leaves_no_reader_behind(training_on_gpu, monkeypatch):
    monkeypatch.setattr(Training, "read", lambda _, step: step)
    before = set(threading.enumerate())
    given = training_on_gpu.read_ahead(range(2, 6))
    next(given)
    assert set(threading.enumerate()) - before
    given.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("device", "size"), [("cpu", 1), ("cuda", 2)])
def test_the_processor_and_several_processes_read_step_by_step(training_on_gpu, device, size):
    training = replace(training_on_gpu, processes=Processes(torch.device(device), 0, size))
    assert list(training.read_ahead(range(2, 5))) == [None, None, None]


def test_training_lowers_the_loss(minutes, tmp_path):
    changes = {"num_steps": 60, "similarity": "cosine", "temperature": 0.1, "learning_rate": 1e-2}
    losses = [row["loss"] for row in log_of(trained(minutes, tmp_path, **changes))]
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


# ---------------------------------------------------------------------------------------------- same bytes


def test_the_same_seed_makes_the_same_bytes(minutes, tmp_path, model_bytes):
    assert trained(minutes, tmp_path / "again") == model_bytes


def test_another_seed_makes_another_model(minutes, tmp_path, model_bytes):
    files = trained(minutes, tmp_path, seed=1)
    assert files[TRAINING_LOG] != model_bytes[TRAINING_LOG]
    assert not {name for name in files if name.startswith("weights-")} & set(model_bytes)
    begins = [
        prepare_training(minutes.path, tiny_config(seed=seed), None, None).model.transformer.cls for seed in (0, 1)
    ]
    assert not torch.equal(*begins)


def test_what_torch_drew_before_changes_nothing(minutes, tmp_path, model_bytes):
    torch.manual_seed(99)
    torch.rand(7)
    assert trained(minutes, tmp_path) == model_bytes


def reversed_parquet(events, folder):
    return write_parquet(events[::-1], folder / "events.parquet")


def many_files(events, folder):
    for i in range(3):
        write_parquet(events[i::3], folder / "events" / f"part={2 - i}" / "some.parquet")
    return folder / "events"


def one_csv(events, folder):
    return write_csv(sorted(events, key=lambda event: (event.what, event.at)), folder / "events.csv")


@pytest.mark.parametrize("write", [reversed_parquet, many_files, one_csv])
def test_order_files_format_and_time_zone_of_the_process_change_nothing(
    events, tmp_path, model_bytes, monkeypatch, write
):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    aggregate(write(events, tmp_path), small_schema(), tmp_path / "minutes", threads=2)
    pretrain(tmp_path / "minutes", tmp_path / "model", config=tiny_config())
    assert folder_bytes(tmp_path / "model") == model_bytes


# ---------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("changes", "tasks"),
    [
        ({"coarse_task": False}, {"fine", "failures"}),
        ({"fine_task": False}, {"coarse", "failures"}),
        ({"domain_task": ()}, {"coarse", "fine"}),
        ({"fine_task": False, "domain_task": ()}, {"coarse"}),
        ({"coarse_task": False, "domain_task": ()}, {"fine"}),
        ({"coarse_task": False, "fine_task": False}, {"failures"}),
        (
            {"domain_task": ("switches:location", "switches:address", "distinct:address", "count:edit.page")},
            {"coarse", "fine", "switches:location", "switches:address", "distinct:address", "count:edit.page"},
        ),
        (
            {"domain_task": tuple(f"histogram:{what}" for what in ("behavior", "hour", "weekday", "lag", "location"))},
            {"coarse", "fine", *(f"histogram:{what}" for what in ("behavior", "hour", "weekday", "lag", "location"))},
        ),
        (
            {"domain_task": ("events", "minutes", "distinct:location", "count:sign up")},
            {"coarse", "fine", "events", "minutes", "distinct:location", "count:sign up"},
        ),
    ],
)
def test_each_task_can_be_left_out_or_added(minutes, tmp_path, changes, tasks):
    for row in log_of(trained(minutes, tmp_path, num_steps=2, **changes)):
        assert set(row) == tasks | {"step", "loss", "learning_rate"}
        assert row["loss"] == pytest.approx(sum(row[task] for task in tasks), rel=1e-5)
        assert isfinite(row["loss"])


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs": "latest", "negatives": "both_months", "similarity": "cosine", "temperature": 0.1},
        {"fine_reduction": "mean", "mask_rate": 0.9},
        {"pairs": "latest", "lengths": "several"},
        {"pairs": "anywhere", "lengths": "several", "domain_task": ("next:1",), "span_scale": "window"},
        {"time_point": "minute_of_week", "behavior_rows": "composite_and_parts", "kernel_sizes": (1, 7)},
        {"window_days": 1, "span_minutes": 1_440, "stride_minutes": 1_440, "coarse_task": False, "domain_task": ()},
    ],
)
def test_other_settings(minutes, tmp_path, changes):
    """The last one has windows of one span, which is never masked, so the fine task has nothing to predict."""
    assert all(isfinite(row["loss"]) for row in log_of(trained(minutes, tmp_path, num_steps=2, **changes)))


def test_no_task_is_left(minutes, tmp_path):
    with pytest.raises(InputError, match="no pretext task is left"):
        trained(minutes, tmp_path / "model", coarse_task=False, fine_task=False, domain_task=())
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("count:log out", "'log out' is not known to the minutes' schema; count takes edit.page, log_in"),
        ("switches:city", "switches takes location, address"),
        ("histogram:second", "histogram takes behavior, token, hour, minute, weekday, lag, location, age"),
        ("failures:x", "failures takes nothing after it"),
        ("sum:events", "unknown kind 'sum'; one of failures, events, minutes, days, weeks"),
    ],
)
def test_a_domain_task_that_the_minutes_do_not_have(minutes, tmp_path, line, message):
    with pytest.raises(InputError, match=f"domain task '{line}': .*{message}"):
        trained(minutes, tmp_path / "model", domain_task=(line,))
    assert not (tmp_path / "model").exists()


# ---------------------------------------------------------------------------------------------- point in time

EVERY_TASK = ("failures", "count:login", "switches:location", "distinct:address", "histogram:location")


def later_events(start, who):
    """Events of new kinds, of a new entity too, that a training which may not see them must not feel."""
    new = [
        Event(
            name, start + timedelta(minutes=7 * i, microseconds=i), "login" if i % 3 else "sign up", place, "no", "::1"
        )
        for i in range(20)
        for name in who
        for place in ("Aachen", "Zürich")
    ]
    return new + [replace(event, what="never seen", at=event.at + timedelta(seconds=1)) for event in new]


@pytest.mark.parametrize("pairs", ["anywhere", "latest"])
def test_events_after_the_last_day_change_no_byte(events, tmp_path, pairs):
    seen = [event for event in events if event.at < UNTIL_END]
    later = later_events(UNTIL_END, ["aaron", "user 1", "user 3", "zoe"])
    unseen = [event for event in events if event.at >= UNTIL_END] + later
    assert unseen != later
    changes = {"until": UNTIL, "pairs": pairs, "domain_task": EVERY_TASK}
    without = trained(small_minutes(tmp_path / "a", seen), tmp_path / "a" / "model", **changes)
    assert trained(small_minutes(tmp_path / "b", seen + unseen), tmp_path / "b" / "model", **changes) == without
    changes["until"] = "2024-04-01"
    assert trained(small_minutes(tmp_path / "c", seen), tmp_path / "c" / "model", **changes) != without


@pytest.mark.parametrize("pairs", ["anywhere", "latest"])
def test_events_of_an_entity_after_its_moment_change_no_byte(events, tmp_path, pairs):
    """Whatever comes after the first moment of an entity, also within the minute that holds the moment."""
    moments = {f"user {i}": FIRST_DAY + timedelta(days=9, hours=i, seconds=30) for i in range(0, 10, 2)}
    moments |= {"aaron": FIRST_DAY + timedelta(days=4), "zoe": FIRST_DAY + timedelta(days=4)}
    rows = [*moments.items(), ("user 2", FIRST_DAY + timedelta(days=11)), ("nobody", FIRST_DAY)]
    far = FIRST_DAY + timedelta(days=NUM_DAYS)
    seen = [event for event in events if event.at < moments.get(event.who, far)]
    unseen = [event for event in events if event.at >= moments.get(event.who, far)]
    assert len(unseen) > 10
    unseen += [event for who, moment in moments.items() for event in later_events(moment, [who])]
    changes = {"until": "2024-04-05", "pairs": pairs, "domain_task": EVERY_TASK}
    changes["as_of"] = write_moments(rows, tmp_path / "moments.parquet")
    without = trained(small_minutes(tmp_path / "a", seen), tmp_path / "a" / "model", **changes)
    assert trained(small_minutes(tmp_path / "b", unseen + seen), tmp_path / "b" / "model", **changes) == without
    changes["as_of"] = None
    assert trained(small_minutes(tmp_path / "c", unseen + seen), tmp_path / "c" / "model", **changes) != without


def test_the_last_day_is_the_default(minutes, tmp_path):
    last = minutes.days[-1].isoformat()
    one = trained(minutes, tmp_path / "one", pairs="latest", num_steps=2)
    assert trained(minutes, tmp_path / "other", pairs="latest", num_steps=2, until=last) == one


# ---------------------------------------------------------------------------------------------- input


def test_a_day_before_all_events(minutes, tmp_path):
    with pytest.raises(InputError, match="nothing is left to train on up to 2024-01-01"):
        trained(minutes, tmp_path / "model", until="2024-01-01")
    assert not (tmp_path / "model").exists()


def test_windows_that_are_too_long(minutes, tmp_path):
    with pytest.raises(InputError, match=r"two adjacent windows of 365 days .* use a shorter --window-days"):
        trained(minutes, tmp_path, pairs="latest", window_days=365)


def test_a_day_that_is_none(minutes, tmp_path):
    with pytest.raises(InputError, match="'April' is not a date"):
        trained(minutes, tmp_path, until="April")


def test_what_is_no_folder_of_minutes(model_folder, tmp_path):
    with pytest.raises(InputError, match=r"is not a folder of minutes: it has no _definition.json"):
        pretrain(model_folder, tmp_path, config=tiny_config())


def test_twelve_months_and_200_kinds_of_behavior(tmp_path):
    kinds = [f"kind.{i}" for i in range(200)]
    events = random_events(seed=4, num_entities=6, minutes_each=80, behaviors=kinds, days=730)
    schema = small_schema(dict.fromkeys(kinds, "paper-post"))
    minutes = small_minutes(tmp_path, events, schema)
    changes = {"window_days": 365, "domain_task": ("count:kind.7", "histogram:behavior"), "min_count": 1}
    log = log_of(trained(minutes, tmp_path / "model", num_steps=2, **changes))
    assert all(isfinite(row["count:kind.7"]) and isfinite(row["histogram:behavior"]) for row in log)
    assert InfoBehavior.from_pretrained(tmp_path / "model").grid.num_spans == 1_546


def test_what_comes_next_is_learnt_where_training_may_see_it(minutes, caplog):
    config = tiny_config(domain_task=("failures", "next:1", "next:300"))
    with caplog.at_level("INFO"):
        training = prepare_training(minutes.path, config, None, None)
    assert [one.name for one in training.model.readouts.readouts] == ["failures", "next:1"]
    assert [label.name for label in training.labels] == ["failures", "next:1"]
    assert "next:300 is left out: no second window is followed by 300 days that training may see" in caplog.text


def test_a_later_cut_without_events_between_is_another_training_if_it_says_what_came_next(minutes, tmp_path):
    """Nothing happens between the two cuts, but of the later one it is known that nothing did."""
    last = FIRST_DAY + timedelta(days=NUM_DAYS)
    keys = {}
    for lines in (("failures",), ("failures", "next:1")):
        for days in (1, 2):
            moments = write_moments([("user 3", last + timedelta(days=days))], tmp_path / f"{days}.parquet")
            until = (last + timedelta(days=5)).date().isoformat()
            keys[lines, days] = prepare_training(minutes.path, tiny_config(domain_task=lines), until, moments).key
    assert keys[("failures",), 1] == keys[("failures",), 2]
    assert keys[("failures", "next:1"), 1] != keys[("failures", "next:1"), 2]


def test_any_day_ends_by_the_clock_of_the_log(minutes):
    training = prepare_training(minutes.path, tiny_config(pairs="any_day"), None, None)
    windows = [training.sampler.windows(step) for step in range(5)]
    borders = np.concatenate([of_step.end[: len(of_step) // 2] for of_step in windows])
    assert minutes.schema.time.time_zone != "UTC"
    assert (local_minutes(borders, minutes.schema.time.time_zone) % MINUTES_PER_DAY == 0).all()
