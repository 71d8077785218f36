import json
import math
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from infobehavior import InfoBehavior, daily, pretrain
from infobehavior.cli import main
from infobehavior.data.schema import write_schema
from infobehavior.data.store import count_composites, count_locations
from infobehavior.nightly.drift import REFERENCE_FILE, stability_index
from infobehavior.nightly.profile import NUM_TOKENS, Profile
from small_minutes import (
    joined,
    plain_minutes,
    random_events,
    small_minutes,
    small_schema,
    tiny_config,
    write_parquet,
)

UNTIL = date(2024, 4, 1)
LAST = date(2024, 4, 4)


@pytest.fixture(scope="module")
def events():
    return random_events(seed=8, num_entities=40, minutes_each=40)


@pytest.fixture(scope="module")
def model(events, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    minutes = small_minutes(folder, events)
    pretrain(minutes.path, folder / "model", config=tiny_config(), until=str(UNTIL))
    return folder / "model"


def night(folder, model, day, **given):
    parts = (folder / "events.parquet", small_schema(), model, folder / "minutes", folder / "out")
    return daily(*parts, date=day, threads=1, **given).drift


def moved(event):
    """Another place, in the same minute, from the day after the training on."""
    return replace(event, place="Nowhere") if event.at.date() > UNTIL + timedelta(days=1) else event


# ----------------------------------------------------------------------------------------------------- the parts


def test_the_index_is_that_of_plain_loops():
    then, now = [0.5, 0.3, 0.2, 0.0], [0.1, 0.4, 0.4, 0.1]
    expected = 0.0
    for a, b in zip(then, now, strict=True):
        a, b = max(a, 1e-4), max(b, 1e-4)
        expected += (b - a) * math.log(b / a)
    assert stability_index(then, now) == pytest.approx(expected)
    assert stability_index(then, then) == 0


def test_tokens_are_counted_as_plain_loops_do(events, tmp_path):
    minutes = small_minutes(tmp_path, events)
    plain = plain_minutes(events)
    all_minutes = sorted(minute for _, minute in plain)
    first, end = all_minutes[100], all_minutes[900]
    inside = [content for (_, minute), content in plain.items() if first <= minute < end]
    places = Counter(joined(content.places) for content in inside)
    known = ["Berlin", joined({"Köln", "Łódź"}), "not there"]
    counts = count_locations(minutes, first, end, known)
    assert counts.nowhere == places[None]
    assert counts.of_known.tolist() == [places[name] for name in known]
    others = [content.places for content in inside if content.places and joined(content.places) not in known]
    assert counts.from_parts == sum("Berlin" in names for names in others) > 0
    assert counts.unknown == sum("Berlin" not in names for names in others) > 0
    composites, of_composite = count_composites(minutes, first, end)
    assert of_composite.sum() == len(inside)
    assert len(np.unique(composites, axis=0)) == len(composites) > 10
    assert count_locations(minutes, 0, 1, known).of_known.tolist() == [0, 0, 0]
    assert count_locations(minutes, first, end, []).of_known.tolist() == []
    assert len(count_composites(minutes, 0, 1)[0]) == 0


def test_a_profile_is_of_shares(events, model, tmp_path):
    minutes, encoder = small_minutes(tmp_path, events), InfoBehavior.from_pretrained(model)
    embedding = np.random.default_rng(0).normal(size=(1_000, encoder.embedding_dim)).astype(np.float32)
    lengths = np.array([1, 1, 2, 3, 4, 9_000_000])
    profile = Profile.of(LAST, minutes, encoder, lengths, embedding)
    for shares in (profile.behaviors.values(), profile.locations.values(), profile.lengths, *profile.embedding):
        assert sum(shares) == pytest.approx(1)
    assert profile.lengths[:4] == pytest.approx((2 / 6, 2 / 6, 1 / 6, 0))
    assert profile.lengths[-1] == pytest.approx(1 / 6)
    assert np.array(profile.embedding) == pytest.approx(np.full((encoder.embedding_dim, 10), 0.1))
    assert len(profile.behaviors) == len(profile.locations) == NUM_TOKENS + 3
    apart = Profile.of(LAST, minutes, encoder, lengths, embedding + 100, profile.edges)
    assert all(shares[-1] == 1 for shares in apart.embedding)


# ------------------------------------------------------------------------------------------------------- of nights


def test_the_end_of_training_is_the_reference_and_is_kept(events, model, tmp_path):
    write_parquet(events, tmp_path / "events.parquet")
    drift = night(tmp_path, model, UNTIL)
    assert (drift.reference, drift.is_training) == (UNTIL, True)
    assert (drift.behaviors, drift.locations, drift.lengths) == (0, 0, 0)
    assert drift.embedding < 0.01
    kept = (tmp_path / "out" / REFERENCE_FILE).read_bytes()
    later = night(tmp_path, model, LAST)
    assert later.reference == UNTIL
    assert 0 < later.behaviors < 0.5
    assert 0 < later.locations < 0.1
    assert (tmp_path / "out" / REFERENCE_FILE).read_bytes() == kept
    (tmp_path / "out" / REFERENCE_FILE).write_text("{}")
    assert night(tmp_path, model, LAST) == later
    assert (tmp_path / "out" / REFERENCE_FILE).read_bytes() == kept


DAMAGES = {
    "a class": lambda profile: profile["behaviors"].pop("unknown"),
    "another class": lambda profile: profile["locations"].update({"21": 0.1}),
    "lengths": lambda profile: profile["lengths"].pop(),
    "a dimension": lambda profile: (profile["edges"].pop(), profile["embedding"].pop()),
    "an edge": lambda profile: profile["edges"][0].pop(),
    "edges in order": lambda profile: profile["edges"][0].reverse(),
    "a tenth": lambda profile: profile["embedding"][0].pop(),
    "a share": lambda profile: profile["lengths"].__setitem__(0, -1),
    "windows": lambda profile: profile.update(num_windows=0),
}


def test_a_reference_that_is_damaged_anywhere_is_made_anew(events, model, tmp_path):
    write_parquet(events, tmp_path / "events.parquet")
    expected = night(tmp_path, model, LAST)
    reference = tmp_path / "out" / REFERENCE_FILE
    kept = reference.read_text()
    for damage in DAMAGES.values():
        content = json.loads(kept)
        damage(content["profile"])
        reference.write_text(json.dumps(content))
        assert night(tmp_path, model, LAST) == expected
        assert reference.read_text() == kept


def test_the_first_night_is_the_reference_where_training_is_not_there(events, model, tmp_path):
    late = [event for event in events if event.at.date() >= UNTIL]
    write_parquet(late, tmp_path / "events.parquet")
    first = night(tmp_path, model, LAST - timedelta(days=1))
    assert (first.reference, first.is_training, first.largest) == (LAST - timedelta(days=1), False, 0)
    assert "since the first night, 2024-04-03" in first.lines()[0]
    assert night(tmp_path, model, LAST).reference == first.reference


def test_places_that_the_model_does_not_know_are_told_and_end_in_a_code(events, model, tmp_path, capsys):
    write_parquet([moved(event) for event in events], tmp_path / "events.parquet")
    write_schema(small_schema(), tmp_path / "schema.toml")
    parts = {"schema": "schema.toml", "minutes": "minutes", "out": "out"}
    options = [text for name, file in parts.items() for text in (f"--{name}", str(tmp_path / file))]
    line = ["daily", str(tmp_path / "events.parquet"), *options, "--model", str(model), "--date"]
    assert main([*line, str(UNTIL), "--max-drift", "0.25"]) == 0
    assert main([*line, str(LAST + timedelta(days=1))]) == 0
    capsys.readouterr()
    assert main([*line, str(LAST + timedelta(days=1)), "--max-drift", "0.25"]) == 3
    told = capsys.readouterr()
    assert "the data have drifted" in told.err
    assert "location: 97.66% (0.00%)" in told.out
    (stage,) = [
        json.loads(text)
        for text in (tmp_path / "out" / "_daily.jsonl").read_text().splitlines()
        if json.loads(text)["stage"] == "drift"
    ][-1:]
    assert stage["unknown_locations"] == [0, pytest.approx(0.9766, abs=1e-4)]
    assert stage["largest"] == stage["locations"] > 1
