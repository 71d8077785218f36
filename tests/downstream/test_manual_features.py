import math
import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from downstream.examples import AS_OF, SCHEMA, START, WINDOW_DAYS, aggregated, random_events, windows_of, with_counts
from infobehavior.data.schema import Behavior, Schema, Time
from infobehavior.downstream.manual_features import as_matrix, describe_features, manual_features, window_counts
from infobehavior.errors import InputError

WINDOW = WINDOW_DAYS * 1440
ZONE = ZoneInfo("Europe/Berlin")


def entropy(counts):
    total = sum(counts)
    return -sum(n / total * math.log(n / total) for n in counts)


def share(part, whole):
    return part / whole if whole else 0.0


def level(schema, behavior, count):
    thresholds = schema.behaviors.get(behavior, Behavior())
    if not thresholds.has_levels:
        return "L"
    return "L" if count < thresholds.medium else "M" if count < thresholds.high else "H"


def shift(late, before):
    """Half of the sum of differences of shares of two counters."""
    sums = late.total(), before.total()
    return sum(abs(late[k] / sums[0] - before[k] / sums[1]) for k in {*late, *before}) / 2 if all(sums) else 0.0


def expected(events, as_of, schema=SCHEMA):
    """A good part of the features of one entity's window, with loops over its events."""
    end = int(as_of.timestamp() // 60)
    by_minute = {}
    for event in events:
        minute = int(event["when"].timestamp() // 60)
        if end - WINDOW <= minute < end:
            by_minute.setdefault(minute, []).append(event)
    minutes = sorted(by_minute)
    inside = [event for minute in minutes for event in by_minute[minute]]
    local = {
        minute: (START + timedelta(seconds=60 * minute - START.timestamp())).astimezone(ZONE) for minute in minutes
    }
    days = sorted({local[minute].date() for minute in minutes})
    steps = [b - a for a, b in pairwise(minutes)]
    known = [b if b in schema.behaviors else "?" for b in (event["what"] for event in inside)]
    per_minute = {
        m: Counter(e["what"] if e["what"] in schema.behaviors else "?" for e in by_minute[m]) for m in minutes
    }
    tokens = [frozenset((b, level(schema, b, n)) for b, n in per_minute[m].items()) for m in minutes]
    places = [frozenset(e["where"] for e in by_minute[m] if e["where"]) for m in minutes]
    seen_places = [place for place in places if place]
    failures = [sum(e["ended"] == "failure" for e in by_minute[m]) for m in minutes]
    runs = [[m for _, m in run] for _, run in groupby(enumerate(minutes), lambda pair: pair[1] - pair[0])]
    hours = Counter(local[minute].hour for minute in minutes)
    n = len(minutes)
    post_levels = [level(schema, "post", c["post"]) for c in per_minute.values() if c["post"]]
    late = [m for m in minutes if end - m - 1 < WINDOW / 4]
    gaps = [(b - a).days for a, b in pairwise(days)]
    is_late = [end - m - 1 < WINDOW / 4 for m in minutes]
    parts = {name: [i for i in range(n) if is_late[i] == (name == "late")] for name in ("late", "before")}
    late_failures = sum(failures[i] for i in parts["late"])
    late_events = sum(len(by_minute[minutes[i]]) for i in parts["late"])
    usual = share(sum(failures), len(inside))
    recency = math.log1p((end - minutes[-1]) / 1440 if n else WINDOW_DAYS)
    pairs = Counter(pairwise(tokens))

    def halves(value):
        """Counters of what `value` says of each minute (a list of things), late and before."""
        return [Counter(one for i in rows for one in value(i)) for rows in parts.values()]

    token_halves = halves(lambda i: [tokens[i]])
    place_halves = halves(lambda i: [places[i]] if places[i] else [])
    known_places = [(place, is_late[i]) for i, place in enumerate(places) if place]
    late_switches = sum(a[0] != b[0] and b[1] for a, b in pairwise(known_places))
    behavior_halves = halves(lambda i: list(per_minute[minutes[i]].elements()))
    post_ages = [end - m for m in minutes if per_minute[m]["post"]]
    return {
        "night_share": share(sum(local[m].hour < 6 for m in minutes), n),
        "weekend_share": share(sum(local[m].weekday() > 4 for m in minutes), n),
        "hour_shift": shift(*halves(lambda i: [local[minutes[i]].hour])),
        "weekday_shift": shift(*halves(lambda i: [local[minutes[i]].weekday()])),
        "failure_trend": math.log((late_failures + usual) / (1 + late_events))
        - math.log((sum(failures) - late_failures + usual) / (1 + len(inside) - late_events))
        if usual
        else 0.0,
        "recency_per_gap": recency - math.log1p(math.exp(np.mean(np.log(gaps))) if gaps else WINDOW_DAYS),
        "recency_per_longest_gap": recency - math.log1p(max(gaps, default=WINDOW_DAYS)),
        "token_pair_top_share": share(max(pairs.values(), default=0), n - 1),
        "token_pair_entropy": entropy(pairs.values()) if pairs else 0.0,
        "token_next_entropy": max(0.0, entropy(pairs.values()) - entropy(Counter(tokens).values())) if pairs else 0.0,
        "behavior_shift": shift(*behavior_halves),
        "log_new_behaviors": math.log1p(len(set(behavior_halves[0]) - set(behavior_halves[1]))),
        "token_shift": shift(*token_halves),
        "new_token_share": share(
            sum(count for token, count in token_halves[0].items() if token not in token_halves[1]), len(late)
        ),
        "late_share[post]": share(behavior_halves[0]["post"], known.count("post")),
        "log_recency_of[post]": math.log1p(min(post_ages, default=WINDOW)),
        "late_switch_share[location]": share(late_switches, place_halves[0].total()),
        "shift[location]": shift(*place_halves),
        "log_new[location]": math.log1p(len(set(place_halves[0]) - set(place_halves[1]))),
        "new_share[location]": share(
            sum(count for place, count in place_halves[0].items() if place not in place_halves[1]),
            place_halves[0].total(),
        ),
        "log_events": math.log1p(len(inside)),
        "log_minutes": math.log1p(n),
        "log_days": math.log1p(len(days)),
        "log_weeks": math.log1p(len({day.isocalendar()[:2] for day in days})),
        "minute_events_max": math.log1p(max((len(by_minute[m]) for m in minutes), default=0)),
        "minute_log_events_mean": float(np.mean([math.log(len(by_minute[m])) for m in minutes])) if n else 0.0,
        "single_minute_share": share(sum(len(by_minute[m]) == 1 for m in minutes), n),
        "day_gap_max": math.log1p(max(gaps, default=WINDOW_DAYS)),
        "log_recency": math.log1p(end - minutes[-1] if n else WINDOW),
        "log_age": math.log1p(end - minutes[0] if n else WINDOW),
        "log_events_last_7": math.log1p(sum(len(by_minute[m]) for m in minutes if end - m <= 7 * 1440)),
        "minutes_quarter_0": share(len(late), n),
        "log_events_quarter_0": math.log1p(sum(len(by_minute[m]) for m in late)),
        **{f"hour_{hour:02d}": share(hours[hour], n) for hour in range(24)},
        "weekday_sun": share(sum(local[m].weekday() == 6 for m in minutes), n),
        "weekday_mon": share(sum(local[m].weekday() == 0 for m in minutes), n),
        "hour_entropy": entropy(hours.values()) if n else 0.0,
        "full_hour_share": share(sum(local[m].minute == 0 for m in minutes), n),
        "step_q50": math.log1p(float(np.median(steps)) if steps else WINDOW),
        "step_log_mean": float(np.mean(np.log(steps))) if steps else math.log(WINDOW),
        "step_log_std": float(np.std(np.log(steps))) if steps else 0.0,
        "step_share_1": share(sum(step == 1 for step in steps), len(steps)),
        "step_share_1440": share(sum(360 < step <= 1440 for step in steps), len(steps)),
        "run_longest": math.log1p(max((len(run) for run in runs), default=0)),
        "log_runs": math.log1p(len(runs)),
        "log_sessions": math.log1p(sum(step > 30 for step in steps) + bool(n)),
        "log_failures": math.log1p(sum(failures)),
        "failure_share": share(sum(failures), len(inside)),
        "failure_minute_share": share(sum(f > 0 for f in failures), n),
        "failures_per_day": math.log1p(share(sum(failures), len(days))),
        "behavior_entropy": entropy(Counter(known).values()) if n else 0.0,
        "behavior_top_share": share(max(Counter(known).values(), default=0), len(inside)),
        "behaviors_per_minute": share(sum(len(c) for c in per_minute.values()), n),
        "log_tokens": math.log1p(len(set(tokens))),
        "token_change_share": share(sum(a != b for a, b in zip(tokens, [None, *tokens], strict=False)), n),
        "log_count[post]": math.log1p(known.count("post")),
        "share[]": share(known.count("?"), len(inside)),
        "max[post]": math.log1p(max((c["post"] for c in per_minute.values()), default=0)),
        "minute_share[register]": share(sum(c["register"] > 0 for c in per_minute.values()), n),
        "alone_share[post]": share(sum(set(c) == {"post"} for c in per_minute.values()), n),
        "log_m[post]": math.log1p(post_levels.count("M")),
        "h_share[post]": share(post_levels.count("H"), len(post_levels)),
        "known_share[location]": share(len(seen_places), n),
        "log_distinct[location]": math.log1p(len(set(seen_places))),
        "top_share[location]": share(max(Counter(seen_places).values(), default=0), len(seen_places)),
        "entropy[location]": entropy(Counter(seen_places).values()) if seen_places else 0.0,
        "log_switches[location]": math.log1p(sum(a != b for a, b in pairwise(seen_places))),
        "place FR": share(sum("FR" in place for place in places), n),
        "log_distinct[ip]": math.log1p(len({frozenset(e["ip"] for e in by_minute[m]) for m in minutes})),
    }


def named_rows(table):
    """Rows as dictionaries; a feature about a place goes by "place" and its name."""
    names = [
        f"place {field.metadata[b'place'].decode()}" if b"place" in field.metadata else field.name
        for field in table.schema
    ]
    return [dict(zip(names, row, strict=True)) for row in as_matrix(table).tolist()]


def test_features_equal_loops_over_the_events(account_minutes, account_events):
    entities = [*range(60), 999]
    rows = named_rows(manual_features(account_minutes, windows_of(entities), WINDOW))
    for entity, row in zip(entities, rows, strict=True):
        wanted = expected([event for event in account_events if event["who"] == entity], AS_OF)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=1e-9), entity


def test_each_row_of_windows_has_its_own_end(account_minutes, account_events):
    moments = [AS_OF - timedelta(days=days, seconds=seconds) for days, seconds in [(0, 0), (9, 1), (3, 59), (40, 0)]]
    windows = pa.concat_tables([windows_of([8, 4, 8], moment) for moment in moments])
    rows = named_rows(manual_features(account_minutes, windows, WINDOW))
    for window, row in zip(windows.to_pylist(), rows, strict=True):
        wanted = expected([e for e in account_events if e["who"] == window["entity_id"]], window["as_of"])
        assert {name: row[name] for name in wanted if name in row} == pytest.approx(
            {name: value for name, value in wanted.items() if name in row}, abs=1e-9
        )


def test_the_order_of_windows_changes_nothing_else(account_minutes):
    shuffled = np.random.default_rng(0).permutation(60)
    straight = as_matrix(manual_features(account_minutes, windows_of(list(range(60))), WINDOW))
    crossed = as_matrix(manual_features(account_minutes, windows_of(shuffled.tolist()), WINDOW))
    assert np.array_equal(crossed, straight[shuffled])


@pytest.mark.parametrize("second", [0, 59])
def test_nothing_at_or_after_as_of_changes_a_feature(account_events, account_minutes, tmp_path, second):
    as_of = AS_OF + timedelta(seconds=second)
    end = as_of.replace(second=0)
    later = [dict(event, when=end + timedelta(seconds=7 * i)) for i, event in enumerate(account_events)]
    kept = [event for event in account_events if event["when"] < end]
    changed = aggregated(kept + later, tmp_path)
    windows = windows_of(list(range(60)), as_of)
    before = manual_features(account_minutes, windows, WINDOW)
    assert manual_features(changed, windows, WINDOW).equals(before)


def test_what_is_before_the_window_changes_nothing(account_events, tmp_path):
    start = AS_OF - timedelta(days=WINDOW_DAYS)
    inside = aggregated([event for event in account_events if event["when"] >= start], tmp_path / "inside")
    everything = aggregated(account_events, tmp_path / "all")
    windows = windows_of(list(range(60)))
    assert manual_features(inside, windows, WINDOW).equals(manual_features(everything, windows, WINDOW))


def test_a_window_without_minutes_is_finite(account_minutes):
    features = manual_features(account_minutes, windows_of([5], START - timedelta(days=300)), WINDOW)
    assert np.isfinite(as_matrix(features)).all()
    assert features["log_events"].to_pylist() == [0.0]


def test_no_windows_give_no_rows(account_minutes):
    features = manual_features(account_minutes, windows_of([]), WINDOW)
    assert features.num_rows == 0
    assert features.column_names == [feature.name for feature in describe_features(SCHEMA)]


def test_two_hundred_behaviors(tmp_path):
    schema = Schema(columns=SCHEMA.columns, behaviors={f"b{i:03d}": Behavior(medium=2, high=3) for i in range(200)})
    example = random_events(1)[0]
    events = [
        dict(example, who=1, what=f"b{i:03d}", when=AS_OF - timedelta(days=1, minutes=i // 50))
        for i in range(200)
        for _ in range(1 + i % 3)
    ]
    features = manual_features(aggregated(events, tmp_path, schema), windows_of([1]), WINDOW)
    counts = [features[f"log_count[b{i:03d}]"][0].as_py() for i in range(200)]
    assert counts == pytest.approx([math.log1p(1 + i % 3) for i in range(200)])
    highs = [features[f"log_h[b{i:03d}]"][0].as_py() for i in range(200)]
    assert highs == pytest.approx([math.log1p(i % 3 == 2) for i in range(200)])


def test_before_1970_hours_and_weekdays_are_right_too(tmp_path):
    schema = SCHEMA.model_copy(update={"time": Time(time_zone="UTC", earliest=date(1950, 1, 1))})
    saturday = datetime(1960, 1, 2, 23, 30, tzinfo=UTC)
    minutes = aggregated([dict(random_events(1)[0], who=1, when=saturday)], tmp_path, schema)
    (row,) = named_rows(manual_features(minutes, windows_of([1], saturday + timedelta(days=1)), WINDOW))
    assert (row["hour_23"], row["weekday_sat"], row["log_weeks"]) == (1.0, 1.0, pytest.approx(math.log(2)))


def test_the_description_names_each_column_once(account_minutes):
    described = describe_features(account_minutes.schema)
    names = [feature.name for feature in described]
    assert manual_features(account_minutes, windows_of([1]), WINDOW).column_names == names
    assert len(set(names)) == len(names)
    assert all(feature.meaning for feature in described)


def test_a_folder_of_minutes_is_as_good_as_an_open_one(account_minutes):
    opened = manual_features(account_minutes, windows_of([1, 2]), WINDOW)
    assert manual_features(account_minutes.path, windows_of([1, 2]), WINDOW).equals(opened)


@pytest.mark.parametrize("moment", [AS_OF, AS_OF - timedelta(days=9, seconds=1), START - timedelta(days=300)])
def test_counts_of_windows(account_minutes, moment):
    windows = windows_of([7, 3, 9, 999], moment)
    counts = window_counts(account_minutes, windows, WINDOW)
    wanted = with_counts(windows, account_minutes)
    for name in ("num_events", "num_minutes"):
        assert counts[name].to_pylist() == wanted[name].to_pylist()


def test_a_day_in_the_folder_of_another(account_events, tmp_path):
    minutes = aggregated(account_events, tmp_path)
    shutil.copyfile(minutes.file(minutes.days[9]), minutes.file(minutes.days[8]))
    with pytest.raises(InputError, match=r"minutes has a minute of entity \d+ twice, so a day's file may be in the"):
        manual_features(minutes, windows_of(list(range(60))), WINDOW)


def test_a_damaged_day_is_named(account_events, tmp_path):
    minutes = aggregated(account_events, tmp_path)
    minutes.file(minutes.days[9]).write_bytes(b"PAR1")
    for make in (manual_features, window_counts):
        with pytest.raises(InputError, match=rf"ds={minutes.days[9]}/minutes.parquet is missing or damaged"):
            make(minutes, windows_of([1]), WINDOW)
