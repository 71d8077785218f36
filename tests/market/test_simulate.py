import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import annotated_types
import duckdb
import numpy as np
import pytest

from infobehavior import InputError, aggregate, artefacts, inspect
from infobehavior.cli import main
from infobehavior.market import simulate as module
from infobehavior.market.block import simulate_block
from infobehavior.market.config import Kinds, MarketConfig
from infobehavior.market.operations import CITIES, FAILURE_RATES, OPERATIONS, REGULAR
from infobehavior.market.sellers import KINDS, Sellers
from infobehavior.market.sessions import chance_to_fail
from infobehavior.market.simulate import simulate
from small_minutes import folder_bytes

SMALL = {"num_sellers": 90, "first_day": date(2019, 9, 20), "num_days": 25, "abnormal_share": 0.3}

QUIET = {"staff_share": 0.0, "moving_share": 0.0, "restless_share": 0.0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "SELLERS_PER_BLOCK", 40)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SELLERS_PER_BLOCK", 40)
        return simulate(tmp_path_factory.mktemp("market") / "out", MarketConfig(**SMALL))


def rows(sql):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(sql).fetchall()


def block(**changes):
    return simulate_block(MarketConfig(**(SMALL | changes)), 3, 60)


def test_a_log_has_what_logs_have(market):
    found = rows(f"DESCRIBE FROM '{market.events}/*.parquet'")
    assert [(name, kind) for name, kind, *_ in found] == [
        ("entity_id", "BIGINT"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("behavior", "VARCHAR"),
        ("location", "VARCHAR"),
        ("outcome", "VARCHAR"),
    ]
    ((first, last, sellers, count),) = rows(
        f"SELECT min(timestamp), max(timestamp), count(DISTINCT entity_id), count(*) FROM '{market.events}/*.parquet'"
    )
    zone = ZoneInfo("Asia/Shanghai")
    assert datetime(2019, 9, 20, tzinfo=zone) <= first < datetime(2019, 9, 21, tzinfo=zone)
    assert datetime(2019, 10, 14, tzinfo=zone) <= last < datetime(2019, 10, 15, tzinfo=zone)
    assert 80 < sellers <= 90
    assert count == market.num_events > 5_000
    names = rows(f"SELECT DISTINCT behavior, location, outcome FROM '{market.events}/*.parquet'")
    assert {behavior for behavior, _, _ in names} <= set(OPERATIONS)
    assert {place for _, place, _ in names} <= set(CITIES)
    failing = {behavior for behavior, _, outcome in names if outcome == "failure"}
    assert failing == {"login", "verify", "modify_profile", "modify_password"}


def test_the_number_of_workers_changes_no_byte(tmp_path, monkeypatch):
    monkeypatch.undo()  # other processes have the usual size of a block
    config = MarketConfig(**(SMALL | {"num_sellers": 2_050, "num_days": 2}))
    one, two = simulate(tmp_path / "one", config), simulate(tmp_path / "two", config, workers=2)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")
    assert one.num_events == two.num_events
    assert len(list(one.events.glob("*.parquet"))) == 3


def test_a_run_again_and_an_interrupted_one_give_the_same_bytes(market, tmp_path, monkeypatch):
    whole = folder_bytes(market.events.parent)

    simulated = []

    def simulate_two(config, number, count):
        if number == 2:
            raise KeyboardInterrupt
        return simulate_block(config, number, count)

    monkeypatch.setattr(module, "simulate_block", simulate_two)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, MarketConfig(**SMALL))
    monkeypatch.setattr(
        module,
        "simulate_block",
        lambda config, number, count: simulated.append(number) or simulate_block(config, number, count),
    )
    for _ in range(2):
        again = simulate(tmp_path, MarketConfig(**SMALL))
        assert folder_bytes(tmp_path) == whole
        assert again.num_events == market.num_events
    assert simulated == [2], "what is there isn't simulated again"


@pytest.mark.parametrize("folder", ["events", "products"])
@pytest.mark.parametrize("damage", [lambda all: all[:100], lambda all: all[:-60] + b"\xff" * 52 + all[-8:]])
def test_a_block_that_was_cut_or_has_a_damaged_end_is_made_again(market, tmp_path, folder, damage):
    whole = folder_bytes(market.events.parent)
    shutil.copytree(market.events.parent, tmp_path / "market")
    block = tmp_path / "market" / folder / module.BLOCK_FILE.format(1)
    block.write_bytes(damage(block.read_bytes()))
    assert simulate(tmp_path / "market", MarketConfig(**SMALL)).num_events == market.num_events
    assert folder_bytes(tmp_path / "market") == whole


def test_sellers_of_a_block_do_not_depend_on_the_size_of_the_market(market, tmp_path):
    larger = simulate(tmp_path, MarketConfig(**(SMALL | {"num_sellers": 120})))
    for number in (0, 1):
        name = module.BLOCK_FILE.format(number)
        assert (larger.events / name).read_bytes() == (market.events / name).read_bytes()


def test_other_seeds_give_other_markets(market, tmp_path):
    other = simulate(tmp_path, MarketConfig(**(SMALL | {"seed": 1})))
    assert folder_bytes(other.events).keys() == folder_bytes(market.events).keys()
    assert not set(folder_bytes(other.events).values()) & set(folder_bytes(market.events).values())


def test_labels_know_most_of_the_truth():
    config = MarketConfig(num_days=92, abnormal_share=0.1, missed_labels=0.2, false_labels=0.02)
    sellers = Sellers.draw(config, 40_000, np.random.default_rng(0))
    abnormal = sellers.kind > 0
    assert abnormal.mean() == pytest.approx(0.1, abs=0.005)
    assert sellers.label[abnormal].mean() == pytest.approx(0.8, abs=0.03)
    assert sellers.label[~abnormal].mean() == pytest.approx(0.02, abs=0.004)
    shares = [float((sellers.kind[abnormal] == i).mean()) for i in range(1, len(KINDS))]
    assert shares == pytest.approx([0.3, 0.4, 0.1, 0.2], abs=0.03)
    assert set(np.unique(92 - sellers.since[abnormal])) == set(range(5, 36))
    assert not sellers.is_abnormal[~abnormal].any()
    first = np.where(sellers.is_abnormal, np.arange(92), 92).min(axis=1)
    assert (first >= sellers.since).all()
    assert (first[abnormal] < 92).all(), "whoever is abnormal does something abnormal within the log"


def test_sellers_move_after_they_opened_and_open_before_they_are_abnormal():
    config = MarketConfig(num_days=40, abnormal_share=0.5, new_share=0.5, moving_share=1.0)
    sellers = Sellers.draw(config, 5_000, np.random.default_rng(0))
    assert set(np.unique(sellers.moved - np.maximum(sellers.opened, 0))) == set(range(1, 41))
    assert (sellers.opened < sellers.since).all()
    assert (sellers.opened >= 0).mean() == pytest.approx(0.45, abs=0.05)


def test_new_sellers_begin_with_opening_their_shop():
    made = block(new_share=1.0, abnormal_share=0.0)
    opened = made.sellers.opened
    for seller in range(60):
        own = made.events.seller == seller
        names = [OPERATIONS[i] for i in made.events.operation[own]]
        assert {"register", "open_shop"} <= set(names)
        assert Counter(names)["register"] == Counter(names)["open_shop"] == 1
        assert names[0] == "register"
        first_day = [name for name, day in zip(names, made.events.day[own], strict=True) if day == opened[seller]]
        assert first_day == ["register", "verify", "open_shop"]


def test_camouflaged_sellers_copy_counts_and_change_order_and_timing(monkeypatch):
    changes = {"abnormal_share": 1.0, "kinds": {"bought": 0, "burst": 0, "camouflaged": 1, "relapsing": 0}}
    made = block(**changes).events
    monkeypatch.setattr("infobehavior.market.block._camouflaged", lambda events, *_: events)
    before = block(**changes).events
    counts = [Counter(zip(e.seller, e.day, e.operation, e.failed, strict=True)) for e in (made, before)]
    assert counts[0] == counts[1]
    places = [Counter(zip(e.seller, e.day, e.city, strict=True)) for e in (made, before)]
    assert places[0] == places[1]
    minutes = [set(zip(e.seller, e.day, e.second // 60, e.city, strict=True)) for e in (made, before)]
    assert minutes[0] == minutes[1]
    sizes = [Counter(zip(e.seller, e.day, e.second // 60, strict=True)) for e in (made, before)]
    assert sizes[0] == sizes[1]
    assert _done_within_minutes(made) == _done_within_minutes(before)
    followed = [_repeats_of_routine(events) for events in (made, before)]
    assert followed[0] < 0.9 * followed[1]


def _done_within_minutes(events):
    """How often each seller does the same things within a minute of a day."""
    done = defaultdict(list)
    for seller, day, second, operation in zip(events.seller, events.day, events.second, events.operation, strict=True):
        done[seller, day, second // 60].append(operation)
    return Counter((seller, day, tuple(sorted(operations))) for (seller, day, _), operations in done.items())


def _repeats_of_routine(events):
    """How often an operation is followed by what follows it most, in the same seller."""
    pairs = Counter(zip(events.seller[:-1], events.operation[:-1], events.operation[1:], strict=True))
    best = {}
    for (seller, one, _), count in pairs.items():
        best[seller, one] = max(best.get((seller, one), 0), count)
    return sum(best.values()) / sum(pairs.values())


def test_accounts_that_were_taken_over_change_places_and_fail_more():
    changes = {
        "abnormal_share": 1.0,
        "kinds": {"bought": 1, "burst": 0, "camouflaged": 0, "relapsing": 0},
        "num_days": 92,
    }
    made = simulate_block(MarketConfig(**(SMALL | changes | QUIET)), 0, 60)
    events = made.events
    after = events.day >= made.sellers.since[events.seller]
    assert not _cities(events, after) & _cities(events, ~after)
    can_fail = np.isin(events.operation, [OPERATIONS.index(name) for name in ("login", "verify", "modify_profile")])
    assert events.failed[after & can_fail].mean() > 1.5 * events.failed[~after & can_fail].mean()
    changed = events.operation == OPERATIONS.index("modify_password")
    per_day = [
        changed[where].sum() / len(set(zip(events.seller[where], events.day[where], strict=True)))
        for where in (after, ~after)
    ]
    assert 0.002 < per_day[1] < 0.05, "everybody changes a password now and then"
    assert per_day[0] > 2 * per_day[1]


def test_relapsing_accounts_are_changed_in_each_episode():
    kinds = {"bought": 0, "burst": 0, "camouflaged": 0, "relapsing": 1}
    made = simulate_block(
        MarketConfig(**(SMALL | QUIET | {"abnormal_share": 1.0, "kinds": kinds, "num_days": 92})), 0, 60
    )
    begins = np.diff(made.sellers.is_abnormal.astype(int), axis=1, prepend=0) == 1
    assert begins.sum(axis=1).max() > 1
    seller, day = np.nonzero(begins)
    assert made.sellers.is_early[seller, day].all()
    assert not made.sellers.is_early[~made.sellers.is_abnormal].any()
    assert (made.sellers.is_early.sum(axis=1) <= 3 * begins.sum(axis=1)).all()


def test_normal_sellers_move_once():
    made = block(abnormal_share=0.0, **(QUIET | {"moving_share": 1.0}))
    events = made.events
    after = events.day >= made.sellers.moved[events.seller]
    assert not _cities(events, after) & _cities(events, ~after)
    assert Counter(seller for seller, _ in _cities(events, after)).most_common(1)[0][1] == 1
    assert len({seller for seller, _ in _cities(events, after)}) > 40


def test_a_seller_who_has_moved_and_is_taken_over_has_three_cities():
    kinds = {"bought": 0, "burst": 0, "camouflaged": 0, "relapsing": 1}
    changes = {"abnormal_share": 1.0, "kinds": kinds, "num_days": 92, "new_share": 0.0, "moving_share": 1.0}
    made = simulate_block(MarketConfig(**(SMALL | QUIET | changes)), 0, 60)
    events, has_moved = made.events, made.events.day >= made.sellers.moved[made.events.seller]
    is_theirs = made.sellers.is_abnormal[events.seller, events.day]
    before, after = _cities(events, ~has_moved & ~is_theirs), _cities(events, has_moved & ~is_theirs)
    theirs, theirs_after = _cities(events, is_theirs), _cities(events, has_moved & is_theirs)
    for cities in (before, after, theirs):
        assert len({seller for seller, _ in cities}) == len(cities) > 20, "of each seller, one"
    assert not before & (after | theirs)
    assert len(theirs_after) > 20
    assert len(theirs_after & after) < len(theirs_after) / 2, "it isn't where the owner has moved to"


def _cities(events, which):
    """Of each seller, in some events."""
    return set(zip(events.seller[which].tolist(), events.city[which].tolist(), strict=True))


def test_no_operation_fails_always():
    events = block(failure_spread=3.0, abnormal_share=0.0, restless_share=1.0).events
    can_fail = np.isin(events.operation, [OPERATIONS.index(name) for name in FAILURE_RATES])
    assert not events.failed[~can_fail].any()
    chances = [chance_to_fail(OPERATIONS.index(name), np.array([1.0, 2.0, 1e3])) for name in FAILURE_RATES]
    assert np.allclose([chance[0] for chance in chances], list(FAILURE_RATES.values())), "the median seller's"
    assert all((np.diff(chance) > 0.02).all() and chance[-1] < 1 for chance in chances)


def test_some_normal_sellers_verify_often():
    often = []
    for share in (0.0, 1.0):
        events = block(abnormal_share=0.0, restless_share=share).events
        often.append(np.mean(events.operation == OPERATIONS.index("verify")))
    assert often[1] > 2 * often[0]


def test_some_normal_sellers_work_at_night():
    at_night = []
    for share in (0.0, 1.0):
        events = block(abnormal_share=0.0, night_share=share, tool_share=0.0).events
        at_night.append(np.mean(events.second % 86_400 < 6 * 3_600))
    assert at_night[0] < 0.2 < 0.6 < at_night[1]


def test_tools_of_abnormal_sellers_work_in_bursts():
    kinds = {"bought": 0, "burst": 1, "camouflaged": 0, "relapsing": 0}
    most = []
    for share in (0.0, 1.0):
        events = block(abnormal_share=share, kinds=kinds, tool_share=0.0).events
        minutes = Counter(zip(events.seller, events.day, events.second // 60, strict=True))
        most.append(max(minutes.values()))
    assert most[0] < 20 < most[1]


def test_promotions_and_holidays_are_seen():
    events = simulate_block(MarketConfig(num_sellers=500, first_day=date(2019, 9, 1), num_days=40), 0, 500).events
    per_day = np.bincount(events.day, minlength=40)
    usual = np.median(per_day)
    assert per_day[8] > 1.3 * usual, "9 September"
    assert per_day[30:37].mean() < 0.8 * usual, "1 to 7 October"


def test_the_path_goes_on_from_it(market, tmp_path):
    schema = inspect(market.events).schema
    assert set(REGULAR) <= set(schema.behavior_names)
    summary = aggregate(market.events, schema, tmp_path / "minutes")
    assert summary.num_kept == market.num_events


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-sellers", "0"], "num_sellers: Input should be greater than 0"),
        (["--abnormal-share", "2"], "abnormal_share: Input should be less than or equal to 1"),
        (["--time-zone", "Mars/Base"], "no time zone is called Mars/Base"),
        (["--burst", "inf"], "kinds.burst: Input should be a finite number"),
        (["--bought", "nan"], "kinds.bought: Input should be a finite number"),
        (["--sessions-per-day", "1e6"], "sessions_per_day: Input should be less than or equal to 100"),
        (["--sessions-spread", "1e3"], "sessions_spread: Input should be less than or equal to 2"),
        (["--burst-size", "1e300"], "burst_size: Input should be less than or equal to 100"),
        (["--failure-spread", "1000"], "failure_spread: Input should be less than or equal to 5"),
        (["--failure-factor", "1e-320"], "failure_factor: Input should be greater than or equal to 0.001"),
        (["--first-day", "9999-12-20"], "first_day: Input should be less than 2200-01-01"),
        (["--first-day", "1969-12-31"], "first_day: Input should be greater than or equal to 1970-01-01"),
        (["--first-day", "2199-12-20"], "first_day is 2199-12-20 and num_days 92, so the last day is 2200-03-21"),
        (
            ["--sessions-per-day", "90", "--num-days", "3650"],
            "a seller would have about 5,696,843 events in 3650 days; expected 30,000 at most on average",
        ),
        (["--latest-begin", "40"], "latest_begin is 40 days before the end, and earliest_begin 35"),
        (["--bought", "0", "--burst", "0", "--camouflaged", "0", "--relapsing", "0"], "the shares of all kinds are 0"),
    ],
)
def test_bad_values_are_one_line(tmp_path, capsys, flags, said):
    assert main(["simulate", "--out", str(tmp_path / "market"), *flags]) == 2
    said_there = capsys.readouterr().err
    assert said in said_there
    assert said_there.count("\n") == 1
    assert not (tmp_path / "market").exists()


def test_all_numbers_are_bounded():
    for model in (MarketConfig, Kinds):
        for name, field in model.model_fields.items():
            bounds = [one for one in field.metadata if isinstance(one, annotated_types.Le | annotated_types.Lt)]
            assert bool(bounds) == (field.annotation in (int, float, date)), name


@pytest.mark.parametrize("side", [annotated_types.Ge, annotated_types.Le])
def test_at_its_bounds_every_number_makes_a_market(side):
    few = {"num_days": 3, "abnormal_share": 0.5, "earliest_begin": 3, "latest_begin": 1}
    for model, within in ((MarketConfig, None), (Kinds, "kinds")):
        for name, field in model.model_fields.items():
            for bound in field.metadata:
                if isinstance(bound, side) and name not in {"num_days", "latest_begin"}:
                    value = getattr(bound, side.__name__.lower())
                    config = MarketConfig.model_validate(few | ({within: {name: value}} if within else {name: value}))
                    assert len(simulate_block(config, 0, 20).events.day), name


def test_days_at_the_ends_of_the_calendar(tmp_path):
    for first_day in (date(1970, 1, 1), date(2199, 12, 30)):
        made = simulate(tmp_path / str(first_day), MarketConfig(**(SMALL | {"first_day": first_day, "num_days": 2})))
        ((first, last),) = rows(f"SELECT min(timestamp), max(timestamp) FROM '{made.events}/*.parquet'")
        zone = ZoneInfo("Asia/Shanghai")
        assert {one.astimezone(zone).date() - first_day for one in (first, last)} <= {timedelta(0), timedelta(1)}


def test_about_how_many_events_there_are_is_known_before():
    bursts = {"bought": 0, "burst": 1, "camouflaged": 0, "relapsing": 0}
    for changes in (
        {},
        {"sessions_per_day": 5.0, "ops_per_session": 20.0},
        {"restless_share": 1.0, "restless_changes": 20.0},
        {"abnormal_share": 1.0, "burst_days": 1.0, "burst_size": 5.0, "kinds": bursts},
    ):
        config = MarketConfig(num_days=30, **changes)
        made = len(simulate_block(config, 0, 300).events.day) / 300
        assert made < config.events_per_seller < 2 * made, changes


def fail_at(number):
    def simulate_some(config, at, count):
        if at == number:
            raise KeyboardInterrupt
        return simulate_block(config, at, count)

    return simulate_some


def test_a_run_that_ended_before_its_first_block_leaves_the_folder_to_another_market(market, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "simulate_block", fail_at(0))
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path, MarketConfig(**(SMALL | {"seed": 1})))
    assert {path.name for path in tmp_path.iterdir()} == {"_market.json", "_unfinished.json"}
    simulate(tmp_path, MarketConfig(**SMALL))
    assert folder_bytes(tmp_path) == folder_bytes(market.events.parent)


@pytest.mark.parametrize("last", ["a temporary file", "the definition", "the mark", "a temporary block"])
def test_a_kill_before_the_first_block_leaves_the_folder_to_another_market(market, tmp_path, last):
    """A kill runs nothing afterwards, so temporary files stay as well."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    writer = artefacts._writer().replace(str(os.getpid()), gone.stdout.decode().strip())
    names = {
        "a temporary file": [f"._market.json.{writer}.{'0' * 32}.tmp"],
        "the definition": ["_market.json"],
        "the mark": ["_market.json", "_unfinished.json"],
        "a temporary block": [
            *("_market.json", "_unfinished.json"),
            f"events/.part-000007.parquet.{writer}.{'0' * 32}.tmp",
        ],
    }
    contents = {
        "_market.json": json.dumps(module._definition(MarketConfig(**(SMALL | {"seed": 1})))),
        "_unfinished.json": json.dumps({"what": "the simulation of market 0123456789abcdef"}),
    }
    for name in names[last]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(contents.get(name, "half"))
    simulate(tmp_path, MarketConfig(**SMALL))
    assert folder_bytes(tmp_path) == folder_bytes(market.events.parent)


def test_a_market_with_a_block_is_gone_on_with_by_itself_only(market, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "simulate_block", fail_at(1))
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path, MarketConfig(**SMALL))
    kept = folder_bytes(tmp_path)
    with pytest.raises(InputError, match="holds another market"):
        simulate(tmp_path, MarketConfig(**(SMALL | {"seed": 1})))
    assert folder_bytes(tmp_path) == kept
    simulate(tmp_path, MarketConfig(**SMALL))
    assert folder_bytes(tmp_path) == folder_bytes(market.events.parent)


def test_a_run_whose_folder_another_one_took_writes_no_block(market, tmp_path, monkeypatch):
    def simulate_after_another(config, number, count):
        monkeypatch.undo()
        monkeypatch.setattr(module, "SELLERS_PER_BLOCK", 40)
        simulate(tmp_path, MarketConfig(**SMALL))
        return simulate_block(config, number, count)

    monkeypatch.setattr(module, "simulate_block", simulate_after_another)
    with pytest.raises(InputError, match="holds another market"):
        simulate(tmp_path, MarketConfig(**(SMALL | {"seed": 1})))
    assert folder_bytes(tmp_path) == folder_bytes(market.events.parent)


def test_a_folder_that_another_command_left_unfinished_stays_as_it_is(tmp_path):
    (tmp_path / "_unfinished.json").write_text('{"what": "the aggregation"}')
    kept = folder_bytes(tmp_path)
    with pytest.raises(InputError, match="the aggregation was interrupted"):
        simulate(tmp_path, MarketConfig(**SMALL))
    assert folder_bytes(tmp_path) == kept


def test_a_folder_of_something_else_is_refused(market, tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(InputError, match=r"has files that aren't a market's"):
        simulate(tmp_path, MarketConfig(**SMALL))
    with pytest.raises(InputError, match="holds another market"):
        simulate(market.events.parent, MarketConfig(**(SMALL | {"seed": 5})))


def test_a_market_of_another_version_is_refused(tmp_path, monkeypatch):
    simulate(tmp_path, MarketConfig(num_sellers=5, num_days=1))
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with pytest.raises(InputError, match="holds another market, or one of another version of the simulator"):
        simulate(tmp_path, MarketConfig(num_sellers=5, num_days=1))


def test_the_command(tmp_path, capsys):
    arguments = ["simulate", "--out", str(tmp_path / "market"), "--num-sellers", "20", "--num-days", "3"]
    assert main([*arguments, "--first-day", "2020-02-28", "--bought", "1"]) == 0
    assert "simulated: " in capsys.readouterr().out
    ((first, last),) = rows(f"SELECT min(timestamp), max(timestamp) FROM '{tmp_path}/market/events/*.parquet'")
    assert datetime(2020, 2, 27, tzinfo=UTC) < first < last < datetime(2020, 3, 1, 16, tzinfo=UTC)
