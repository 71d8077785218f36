import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from infobehavior import InputError, aggregate, daily, embed, pretrain
from infobehavior.cli import main
from infobehavior.data import ledger
from infobehavior.data.schema import ONE_TIME, write_schema
from infobehavior.embedding import bundles
from infobehavior.errors import BusyError
from infobehavior.nightly import daily as nightly
from infobehavior.nightly.daily import AGGREGATION
from small_minutes import (
    TIME_ZONE,
    Event,
    folder_bytes,
    random_events,
    small_schema,
    tiny_config,
    write_csv,
    write_parquet,
)

DAY = date(2024, 3, 31)
NEXT = DAY + timedelta(days=1)


def local_day(event):
    return event.at.astimezone(ZoneInfo(TIME_ZONE)).date()


def write_log(events, folder):
    """A file for each local day of a log."""
    for day in sorted({local_day(event) for event in events}):
        write_parquet([event for event in events if local_day(event) == day], folder / f"{day}.parquet")
    return folder


@pytest.fixture(scope="module")
def events():
    return random_events(seed=3)


@pytest.fixture(scope="module")
def model(events, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    aggregate(write_log(events, folder / "log"), small_schema(), folder / "minutes", threads=1)
    pretrain(folder / "minutes", folder / "model", config=tiny_config())
    return folder / "model"


@pytest.fixture
def night(model, tmp_path, monkeypatch):
    """Runs a night in this test's folders."""
    monkeypatch.setattr(bundles, "ENTITIES_PER_BUNDLE", 2)

    def run(folder=tmp_path, day=DAY, **given):
        return daily(
            folder / "log", small_schema(), model, folder / "minutes", folder / "out", date=day, threads=1, **given
        )

    return run


def artefacts(folder):
    """What nights leave, without what tells of the run and of the files that it read."""
    untold = ("_daily.jsonl", ".lock", "_events.json", "_minutes.json", "_summary.json", "_reference.json")
    return {
        f"{part}/{name}": content
        for part in ("minutes", "out")
        for name, content in folder_bytes(folder / part).items()
        if not name.endswith(untold)
    }


def told(folder):
    return [json.loads(line) for line in (folder / "out" / "_daily.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------ what a night does


def test_a_night_does_what_aggregate_and_embed_do(events, night, model, tmp_path):
    write_log(events, tmp_path / "log")
    summary = night()
    up_to_date = [event for event in events if local_day(event) <= DAY]
    other = tmp_path / "other"
    aggregate(write_log(up_to_date, other / "log"), small_schema(), other / "minutes")
    expected = embed(other / "minutes", model, other / "out", date=DAY)
    assert artefacts(tmp_path) == artefacts(other)
    assert replace(summary.embedded[0], out=expected.out, num_reused=None) == expected
    assert summary.days_aggregated == tuple(sorted({local_day(event) for event in up_to_date}))
    assert [line["stage"] for line in told(tmp_path)] == ["look through", "aggregate", "embed", "drift", "find stale"]
    assert all(line["date"] == str(DAY) and line["seconds"] >= 0 and "error" not in line for line in told(tmp_path))


def test_a_night_by_spark_leaves_the_same_bytes(events, night, tmp_path, spark):
    """And so does the next one, after late events."""
    late = random_events(seed=8, num_entities=2)
    for folder, how in ((tmp_path / "duckdb", {}), (tmp_path / "spark", {"engine": "spark"})):
        write_log(events, folder / "log")
        night(folder, **how)
        write_parquet(late, folder / "log" / "late.parquet")
        again = night(folder, **how)
        assert 0 < again.embedded[0].num_reused < again.embedded[0].num_embedded
    assert artefacts(tmp_path / "duckdb") == artefacts(tmp_path / "spark")
    with pytest.raises(InputError, match="keep_spans is for the engine duckdb"):
        night(tmp_path / "spark", engine="spark", keep_spans=True)


def test_a_second_run_reads_and_encodes_nothing_and_leaves_the_same_bytes(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    first, before = night(), folder_bytes(tmp_path)
    again = night()
    changed = {name for name, content in folder_bytes(tmp_path).items() if before.get(name) != content}
    assert changed == {"out/_daily.jsonl"}
    assert (again.num_files_read, again.days_aggregated) == (0, ())
    assert again.embedded[0].num_reused == again.embedded[0].num_embedded == first.embedded[0].num_embedded > 0


def test_late_events_change_their_day_and_what_it_touches_alone(events, night, tmp_path):
    late = Event("user 4", datetime(2024, 3, 30, 12, tzinfo=UTC), "login", "Berlin")
    log = write_log(events, tmp_path / "log")
    before = night()
    minutes = folder_bytes(tmp_path / "minutes")
    write_parquet([late], log / "late.parquet")
    summary = night()
    assert (summary.num_files_read, summary.days_aggregated) == (1, (date(2024, 3, 30),))
    assert 0 < summary.embedded[0].num_reused < before.embedded[0].num_embedded
    after = folder_bytes(tmp_path / "minutes")
    changed = {name for name in after if after[name] != minutes.get(name)}
    assert changed == {"ds=2024-03-30/minutes.parquet", "_events.json", "_summary.json"}
    write_log([*events, late], tmp_path / "anew" / "log")
    night(tmp_path / "anew")
    assert artefacts(tmp_path) == artefacts(tmp_path / "anew")
    aggregated, embedded = told(tmp_path)[-4:-2]
    assert aggregated["days"] == ["2024-03-30"]
    assert embedded["reused"] == summary.embedded[0].num_reused


def test_missed_nights_are_caught_up(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night()
    caught_up = night(day=DAY + timedelta(days=3))
    assert caught_up.dates == tuple(DAY + timedelta(days=i) for i in (1, 2, 3))
    write_log(events, tmp_path / "anew" / "log")
    for i in range(4):
        night(tmp_path / "anew", day=DAY + timedelta(days=i))
    assert artefacts(tmp_path) == artefacts(tmp_path / "anew")


def test_days_that_late_events_made_stale_are_told_and_made_again_since_one(events, night, tmp_path):
    log = write_log(events, tmp_path / "log")
    for i in range(4):
        night(day=DAY + timedelta(days=i))
    write_parquet([Event("user 4", datetime(2024, 3, 31, 12, tzinfo=UTC), "login")], log / "late.parquet")
    last = DAY + timedelta(days=3)
    summary = night(day=last)
    assert summary.stale == (DAY, NEXT, NEXT + timedelta(days=1))  # the window of three days of the last has gone by
    assert "late events lie in the windows of 3 days, 2024-03-31 to 2024-04-02, too" in "\n".join(summary.lines())
    assert "give --since 2024-03-31 to make them again" in "\n".join(summary.lines())
    assert told(tmp_path)[-1]["days"] == [str(day) for day in summary.stale]
    assert night(day=last).stale == ()  # told once
    summary = night(day=last, since=DAY)
    assert (summary.dates, summary.stale) == (tuple(DAY + timedelta(days=i) for i in range(4)), ())
    shutil.copytree(log, tmp_path / "anew" / "log")
    night(tmp_path / "anew", day=last, since=DAY)
    assert artefacts(tmp_path) == artefacts(tmp_path / "anew")


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("first", ["a night that is interrupted", "another table's night"])
def test_days_that_are_stale_are_told_whoever_made_the_minutes(events, night, model, tmp_path, monkeypatch, first):
    """The minutes are up to date then, and nothing is made again in the night that has to tell."""
    log, last = write_log(events, tmp_path / "log"), DAY + timedelta(days=3)
    night(day=last, since=DAY)
    write_parquet([Event("user 4", datetime(2024, 3, 31, 12, tzinfo=UTC), "login")], log / "late.parquet")
    if first == "another table's night":
        daily(log, small_schema(), model, tmp_path / "minutes", tmp_path / "other", date=last, threads=1)
    else:
        with monkeypatch.context() as patched:
            patched.setattr(nightly, "measure_drift", interrupt)
            with pytest.raises(KeyboardInterrupt):
                night(day=last)
    summary = night(day=last)
    assert summary.days_aggregated == ()
    assert summary.stale == (DAY, NEXT, NEXT + timedelta(days=1))
    assert night(day=last).stale == ()


def test_a_log_that_was_written_again_with_the_same_events_changes_nothing(events, night, tmp_path):
    log = write_log(events, tmp_path / "log")
    night()
    before = artefacts(tmp_path)
    for file in log.iterdir():
        file.unlink()
    write_parquet(events[::-1], log / "all.parquet")
    summary = night()
    assert (summary.num_files_read, summary.days_aggregated) == (1, ())
    assert summary.num_files_gone > 5
    assert artefacts(tmp_path) == before


LATE = Event("user 4", datetime(2024, 3, 30, 12, tzinfo=UTC), "login")


def lose_two_days(log, night, folder):
    """A night, after which the files of two days are gone, and of one of them something comes late."""
    night()
    (log / "2024-03-29.parquet").unlink()
    (log / "2024-03-30.parquet").unlink()
    write_parquet([LATE], log / "late.parquet")
    return artefacts(folder)


def test_minutes_outlive_their_log_unless_a_day_is_meant_to_lose_events(events, night, tmp_path):
    log = write_log(events, tmp_path / "log")
    before = lose_two_days(log, night, tmp_path)
    summary = night()
    assert (summary.num_files_gone, summary.days_aggregated, summary.num_days_kept) == (2, (), 1)
    assert summary.days_left == (date(2024, 3, 30),)
    said = "\n".join(summary.lines())
    assert "minutes of 1 days stay, of which the log has no events any more" in said
    assert "events of 2024-03-30 have changed, but the log lacks some that the minutes hold" in said
    assert artefacts(tmp_path) == before
    summary = night(allow_fewer=["2024-03-30"])
    assert (summary.days_removed, summary.days_aggregated) == ((), (date(2024, 3, 30),))
    summary = night(allow_fewer=[date(2024, 3, 29)])
    assert (summary.days_removed, summary.days_aggregated) == ((date(2024, 3, 29),), ())
    assert "minutes of 2024-03-29 are gone" in "\n".join(summary.lines())
    shutil.copytree(log, tmp_path / "anew" / "log")
    night(tmp_path / "anew")
    assert artefacts(tmp_path) == artefacts(tmp_path / "anew")


@pytest.mark.parametrize("loss", ["another path", "a damaged ledger", "no ledger", "many late events"])
def test_no_events_are_lost_where_less_is_known(events, night, model, tmp_path, loss):
    log = write_log(events, tmp_path / "log")
    before = lose_two_days(log, night, tmp_path)
    path = tmp_path / "log"
    if loss == "another path":
        path = tmp_path / "linked"
        path.symlink_to(log)
    elif loss == "many late events":  # more than the day had, but of one account
        write_parquet([replace(LATE, at=LATE.at + timedelta(seconds=i)) for i in range(500)], log / "late.parquet")
    else:
        ledger_file = tmp_path / "minutes" / "_events.json"
        ledger_file.unlink() if loss == "no ledger" else ledger_file.write_text("{")
    folders = (path, small_schema(), model, tmp_path / "minutes", tmp_path / "out")
    summary = daily(*folders, date=DAY, threads=1)
    assert summary.days_left == (date(2024, 3, 30),)
    assert date(2024, 3, 30) not in summary.days_aggregated
    assert artefacts(tmp_path) == before
    assert summary.stale == ()


def test_late_events_of_a_log_that_was_moved_are_not_taken_for_a_loss(events, night, model, tmp_path):
    log = write_log(events, tmp_path / "log")
    night()
    moved = log.rename(tmp_path / "moved")
    write_parquet([LATE], moved / "late.parquet")
    folders = (moved, small_schema(), model, tmp_path / "minutes", tmp_path / "out")
    summary = daily(*folders, date=DAY, threads=1)
    assert (summary.days_aggregated, summary.days_left) == ((date(2024, 3, 30),), ())


def test_files_whose_times_are_read_otherwise_are_refused_together(events, night, tmp_path):
    """One by one each could be read; together the times of one would be set aside."""
    log = tmp_path / "log"
    write_csv(events, log / "zoned.csv")
    lines = (log / "zoned.csv").read_text().splitlines()
    (log / "naive.csv").write_text("\n".join(line.replace("+00:00", "") for line in lines[:5]) + "\n")
    with pytest.raises(
        InputError, match=r"naive\.csv has text in local time|zoned\.csv has text in local time|text with a time zone"
    ):
        night()
    assert not list((tmp_path / "minutes").glob("ds=*"))


def test_an_interrupted_aggregation_that_has_nothing_left_to_do_is_ended(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night(day=NEXT)
    (tmp_path / "minutes" / "_unfinished.json").write_text(json.dumps({"what": AGGREGATION}))
    assert night(day=NEXT).days_aggregated == ()
    assert not (tmp_path / "minutes" / "_unfinished.json").exists()
    (tmp_path / "minutes" / "_unfinished.json").write_text(json.dumps({"what": "the aggregation of another log"}))
    with pytest.raises(InputError, match="the aggregation of another log was interrupted"):
        night(day=NEXT)


def test_days_without_any_events_in_their_windows_are_passed_over(events, night, tmp_path):
    write_log([event for event in events if local_day(event) <= DAY], tmp_path / "log")
    night()
    late = [replace(event, at=event.at + timedelta(days=25)) for event in events if local_day(event) <= DAY]
    write_log(late, tmp_path / "log")
    last = DAY + timedelta(days=24)
    summary = night(day=last)
    assert summary.dates[-1] == last
    assert len(summary.skipped) > 10
    assert "can't be caught up: no account has events in those windows" in "\n".join(summary.lines())


def test_duplicates_that_minutes_can_not_tell_apart_are_known(night, tmp_path):
    """Twice in a minute, and later once in each of two files: as many rows of the same minute."""
    first = Event("user 1", datetime(2024, 3, 30, 12, 0, 1, tzinfo=UTC), "login")
    second = replace(first, at=first.at + timedelta(seconds=1))
    write_parquet([first, second], tmp_path / "log" / "x.parquet")
    night(drop_duplicates=True)
    write_parquet([first], tmp_path / "log" / "x.parquet")
    write_parquet([first], tmp_path / "log" / "y.parquet")
    summary = night(drop_duplicates=True, allow_fewer=["2024-03-30"])
    assert (summary.days_aggregated, summary.num_duplicates) == ((date(2024, 3, 30),), 1)
    assert "1 duplicate rows dropped" in "\n".join(summary.lines())


def test_minutes_that_are_made_again_to_the_same_bytes_make_nothing_stale(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night(day=NEXT, since=DAY)
    for file in (tmp_path / "minutes").glob("ds=*/*.parquet"):
        file.touch()
    summary = night(day=NEXT)
    assert len(summary.days_aggregated) > 3
    assert summary.stale == ()


def test_minutes_that_something_else_wrote_are_made_again(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night()
    before = artefacts(tmp_path)
    one = write_parquet([min(events, key=lambda event: event.at)], tmp_path / "one.parquet")
    aggregate(one, small_schema(), tmp_path / "minutes")
    assert artefacts(tmp_path) != before
    assert night().days_aggregated == (min(map(local_day, events)),)
    assert artefacts(tmp_path) == before


def test_days_that_would_be_dropped_are_not_made(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night()
    for given in ({}, {"since": DAY}):
        summary = night(day=DAY + timedelta(days=5), keep_days=2, **given)
        assert summary.dates == (DAY + timedelta(days=4), DAY + timedelta(days=5))
    assert night(day=DAY + timedelta(days=5), keep_days=10**9).dropped == ()
    assert sorted(path.name for path in (tmp_path / "out").glob("ds=*")) == ["ds=2024-04-04", "ds=2024-04-05"]


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more"])
def test_minutes_that_are_damaged_are_made_again_but_not_of_less(events, night, tmp_path, damage):
    log = write_log(events, tmp_path / "log")
    night()
    before = artefacts(tmp_path)
    minutes = tmp_path / "minutes" / "ds=2024-03-30" / "minutes.parquet"
    minutes.write_bytes(damage)
    assert night().days_aggregated == (date(2024, 3, 30),)
    assert artefacts(tmp_path) == before
    minutes.write_bytes(damage)
    write_parquet([LATE], log / "2024-03-30.parquet")
    with pytest.raises(InputError, match=r"minutes\.parquet"):
        night()
    assert minutes.read_bytes() == damage
    assert night(allow_fewer=["2024-03-30"]).days_aggregated == (date(2024, 3, 30),)


def test_what_a_kill_left_of_a_day_that_is_not_made_again_goes(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night()
    before = set(tmp_path.rglob("*"))
    for folder, name in ((tmp_path / "out", DAY - timedelta(days=2)), (tmp_path / "minutes" / f"ds={DAY}", "minutes")):
        (folder / f".{name}.parquet.1-00000000.{'0' * 32}.tmp").write_text("half")
        os.utime(folder / f".{name}.parquet.1-00000000.{'0' * 32}.tmp", (0, 0))
    night()
    assert set(tmp_path.rglob("*")) == before


def test_old_embeddings_are_dropped_by_the_rule(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night(day=DAY + timedelta(days=3), since=DAY)
    summary = night(day=DAY + timedelta(days=4), keep_days=2)
    assert summary.dropped == (DAY, NEXT, DAY + timedelta(days=2))
    left = {name.split("/")[1] for name in artefacts(tmp_path) if name.startswith("out/ds=")}
    assert left == {"ds=2024-04-03", "ds=2024-04-04"}
    listed = sorted(file.name for file in (tmp_path / "out" / "_no_events").iterdir())
    assert listed == ["ds=2024-04-03.csv", "ds=2024-04-04.csv"]


def test_csv_files_bad_rows_and_empty_files(events, night, tmp_path):
    log = tmp_path / "log"
    for part in range(3):
        write_csv(events[part::3], log / f"{part}.csv")
    header = (log / "0.csv").read_text().splitlines()[0]
    (log / "bad.csv").write_text(
        f"{header}\nuser 1,not a time,login,Bonn,ok,\nuser 1,2024-03-30T10:00:00+00:00,,Bonn,ok,\n"
    )
    (log / "none.csv").write_text(f"{header}\n")
    summary = night()
    assert summary.num_files_read == summary.num_files == 5
    assert summary.quarantined == {"no behavior": 1, "time doesn't parse": 1}
    write_log(events, tmp_path / "other" / "log")
    night(tmp_path / "other")
    assert artefacts(tmp_path) == artefacts(tmp_path / "other")
    assert night().num_files_read == 0


# ------------------------------------------------------------------------------------------------------- bad input


def test_what_can_not_be_done_is_told_in_a_line(events, night, model, tmp_path, capsys):
    with pytest.raises(InputError, match="no events at"):
        night()
    log = write_log(events, tmp_path / "log")
    for given, message in (
        ({"day": "yesterday"}, "'yesterday' is not a date"),
        ({"since": NEXT}, "--since 2024-04-01 is after --date 2024-03-31"),
        ({"keep_days": 0}, "keep_days must be 1 or more"),
        ({"day": date(2020, 1, 1)}, "has no events up to 2020-01-01: the first are of 2024-03-25"),
    ):
        with pytest.raises(InputError, match=message):
            night(**given)
    (log / "half.parquet").write_bytes((log / "2024-03-30.parquet").read_bytes()[:300])
    write_schema(small_schema(), tmp_path / "schema.toml")
    parts = {
        "--schema": tmp_path / "schema.toml",
        "--model": model,
        "--minutes": tmp_path / "minutes",
        "--out": tmp_path / "out",
    }
    line = ["daily", str(log), *(str(part) for option in parts.items() for part in option), "--date", str(DAY)]
    assert main(line) == 2
    assert "half.parquet is not a whole Parquet file" in capsys.readouterr().err
    assert told(tmp_path)[-1]["error"].startswith(f"{log / 'half.parquet'} is not a whole Parquet file")
    (log / "half.parquet").unlink()
    assert main(line) == 0
    assert "embeddings of model" in capsys.readouterr().out


def test_what_does_not_belong_together_is_refused_before_anything_is_made(events, night, model, tmp_path):
    log = write_log(events, tmp_path / "log")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("not a table")
    with pytest.raises(InputError, match="has files that aren't embeddings"):
        night()
    (tmp_path / "out" / "notes.txt").unlink()
    other = small_schema(behaviors={"login": ONE_TIME})
    with pytest.raises(InputError, match=f"but the schema given is {other.hash}: give the model's schema"):
        daily(log, other, model, tmp_path / "minutes", tmp_path / "out", date=DAY)
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "minutes").exists()


def test_a_log_of_which_no_row_can_be_used_says_why(night, tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "bad.csv").write_text("who,at,what,place,result,address\nuser 1,noon,login,Bonn,ok,\n")
    with pytest.raises(InputError, match="has no events up to 2024-03-31: set aside: 1 rows, time doesn't parse"):
        night()


def test_a_day_whose_events_have_not_come_is_told(events, night, tmp_path):
    """It is embedded all the same, and a naive reader would take it for a day like any other."""
    log = write_log([event for event in events if local_day(event) <= DAY], tmp_path / "log")
    assert "there are no events" not in "\n".join(night().lines())
    assert "there are no events of 2024-04-01: the last up to then are of 2024-03-31" in night(day=NEXT).lines()
    assert told(tmp_path)[-4]["last_with_events"] == str(DAY)
    write_log(events, log)
    assert "there are no events" not in "\n".join(night(day=NEXT).lines())


@pytest.mark.parametrize("name", ["ds=backup", "ds=backup/embeddings.parquet", "ds=20240330/embeddings.parquet"])
@pytest.mark.parametrize("given", [{}, {"keep_days": 2}])
def test_a_table_with_a_folder_that_is_not_a_day_is_refused(events, night, tmp_path, name, given):
    """Another form of a date too: its partition would be looked for in the folder of the usual one."""
    write_log(events, tmp_path / "log")
    night()
    before = artefacts(tmp_path)
    odd = tmp_path / "out" / name
    if odd.suffix:
        odd.parent.mkdir()
        shutil.copy(tmp_path / "out" / f"ds={DAY}" / "embeddings.parquet", odd)
    else:
        odd.mkdir()
    with pytest.raises(InputError, match=f"has {name.split('/')[0]}, which isn't a day, ds=YYYY-MM-DD"):
        night(day=NEXT, **given)
    shutil.rmtree(tmp_path / "out" / name.split("/")[0])
    assert artefacts(tmp_path) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minutes": "log/minutes"}, "--minutes .*log/minutes lies in the log, .*log, where the next night"),
        ({"out": "log"}, "--out .*log lies in the log"),
        ({"minutes": "one", "out": "x/../one"}, "--minutes .*one and --out .*one lie in each other: give each"),
        ({"minutes": "out/minutes"}, "lie in each other"),
        ({"minutes": "one", "out": "one/out"}, "lie in each other"),
    ],
)
def test_folders_that_lie_in_each_other_are_refused(events, model, tmp_path, given, message):
    log = write_log(events, tmp_path / "log")
    (tmp_path / "x").mkdir()
    folders = {"minutes": "minutes", "out": "out", **given}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        daily(log, small_schema(), model, **{name: tmp_path / one for name, one in folders.items()}, date=DAY)
    assert sorted(tmp_path.rglob("*")) == before


def test_minutes_may_lie_in_a_part_of_the_log_that_is_not_read(events, model, tmp_path):
    log = write_log(events, tmp_path / "log")
    for _ in range(2):
        daily(log, small_schema(), model, log / "_minutes", tmp_path / "out", date=DAY)


def test_a_limit_of_memory_is_looked_at_though_nothing_is_new(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night()
    with pytest.raises(InputError, match="memory_limit"):
        night(memory_limit="plenty")


def test_files_that_go_or_shrink_between_listing_and_reading(events, night, tmp_path, monkeypatch):
    """Whatever was listed: a line, and nothing but the log tells of it."""
    log = write_log(events, tmp_path / "log")
    night()
    before = artefacts(tmp_path)
    find_files = ledger.find_files
    for damage, message in (
        (lambda file: file.unlink(), "has gone since the log's files were listed; run again"),
        (lambda file: file.write_bytes(file.read_bytes()[:100]), "is not a whole Parquet file"),
    ):
        victim = write_parquet(events[:50], log / "victim.parquet")

        def list_then_lose(source, victim=victim, damage=damage):
            files = find_files(source)
            damage(victim)
            return files

        with monkeypatch.context() as patched:
            patched.setattr(ledger, "find_files", list_then_lose)
            with pytest.raises(InputError, match=message):
                night()
        victim.unlink(missing_ok=True)
        assert artefacts(tmp_path) == before
    assert night().days_aggregated == ()


def test_files_that_shrink_between_looking_through_and_aggregation(events, night, tmp_path, monkeypatch):
    """The night says so and doesn't take what it made for the whole; the next one makes it again."""
    log = tmp_path / "log"
    write_csv(events, log / "all.csv")
    late = [Event("user 4", datetime(2024, 3, day, 12, tzinfo=UTC), "login") for day in (29, 30)]
    aggregate_days = nightly.aggregate_days
    for damage, message in (
        (
            lambda file, lines: file.write_text("".join(lines[:2])),
            "late.csv has shrunk from .* bytes while the log was",
        ),
        (lambda file, lines: file.write_text(lines[0]), "late.csv has shrunk from"),
        (lambda file, lines: file.unlink(), "No such file or directory"),
        (
            lambda file, lines: file.write_bytes(file.read_bytes().replace(b"2024-03-29", b"2024-03-30")),
            "lost 1 of .* events while they .* all of them of 2024-03-29",
        ),
    ):
        shutil.rmtree(tmp_path / "minutes", ignore_errors=True)
        (log / "late.csv").unlink(missing_ok=True)
        write_csv([event for event in events if local_day(event) != date(2024, 3, 30)], log / "all.csv")
        write_csv(late, log / "late.csv")
        whole = (log / "late.csv").read_text()

        def lose_then_aggregate(*given, damage=damage, **options):
            damage(log / "late.csv", (log / "late.csv").read_text().splitlines(keepends=True))
            return aggregate_days(*given, **options)

        with monkeypatch.context() as patched:
            patched.setattr(nightly, "aggregate_days", lose_then_aggregate)
            with pytest.raises((InputError, FileNotFoundError), match=message):
                night()
        (log / "late.csv").write_text(whole)
        night()
        shutil.rmtree(tmp_path / "anew", ignore_errors=True)
        shutil.copytree(log, tmp_path / "anew" / "log")
        night(tmp_path / "anew")
        assert artefacts(tmp_path) == artefacts(tmp_path / "anew")


@pytest.mark.parametrize("how", [{}, {"drop_duplicates": True}])
def test_a_file_that_shrinks_while_it_is_aggregated_costs_no_event(events, night, tmp_path, monkeypatch, how):
    """Neither at once nor in the nights that follow, if nobody makes it whole."""
    log, minutes = tmp_path / "log", tmp_path / "minutes" / f"ds={DAY}" / "minutes.parquet"
    write_csv(events, log / "all.csv")
    night(**how)
    before = minutes.read_bytes()
    write_csv([Event("user 4", datetime(2024, 3, 31, 12, tzinfo=UTC), "login")], log / "late.csv")
    of_other_days = [event for event in events if local_day(event) != DAY]
    kept = [event for event in events if local_day(event) == DAY][:2]
    aggregate_days = nightly.aggregate_days

    def shrink_then_aggregate(*given, **options):
        write_csv([*of_other_days, *kept], log / "all.csv")
        return aggregate_days(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(nightly, "aggregate_days", shrink_then_aggregate)
        with pytest.raises(InputError, match=r"has shrunk from .* bytes while the log was read"):
            night(**how)
    assert minutes.read_bytes() == before
    for _ in range(2):
        assert night(**how).days_left == (DAY,)
        assert minutes.read_bytes() == before
    assert night(allow_fewer=[DAY], **how).days_aggregated == (DAY,)


def test_minutes_that_another_hand_made_poorer_are_made_whole_again_and_never_believed(events, night, tmp_path):
    log, minutes = tmp_path / "log", tmp_path / "minutes" / f"ds={DAY}" / "minutes.parquet"
    write_csv(events, log / "all.csv")
    night()
    whole, poorer = minutes.read_bytes(), [event for event in events if local_day(event) != DAY]
    poorer += [event for event in events if local_day(event) == DAY][:2]
    write_csv(poorer, log / "all.csv")
    aggregate(log, small_schema(), tmp_path / "minutes")
    assert minutes.read_bytes() != whole
    assert night().days_left == (DAY,)
    write_csv(events, log / "all.csv")
    assert DAY in night().days_aggregated
    assert minutes.read_bytes() == whole


# ------------------------------------------------------------------------------------------------- real processes


FULL_DISK = """
import resource, sys
from infobehavior.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("room", [500, 3_000, 6_000])
def test_a_full_disk_ends_in_a_line_and_leaves_the_table(events, night, model, tmp_path, room):
    """Files can't grow beyond some size, as if no more were left; afterwards the same night goes on."""
    write_log(events, tmp_path / "log")
    night()
    before = artefacts(tmp_path)
    write_schema(small_schema(), tmp_path / "schema.toml")
    parts = {"schema": tmp_path / "schema.toml", "minutes": tmp_path / "minutes", "out": tmp_path / "out", "date": NEXT}
    options = [text for name, value in {**parts, "model": model}.items() for text in (f"--{name}", str(value))]
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(room), "daily", str(tmp_path / "log"), *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == 2, process.stderr
    (line,) = [line for line in process.stderr.splitlines() if "error:" in line]
    assert "File too large" in line or "too large" in line
    left = artefacts(tmp_path)
    assert {name: left[name] for name in before} == before
    assert not list(tmp_path.rglob("*.tmp"))
    night(day=NEXT)
    write_log(events, tmp_path / "anew" / "log")
    for day in (DAY, NEXT):
        night(tmp_path / "anew", day=day)
    assert artefacts(tmp_path) == artefacts(tmp_path / "anew")


HOLD = (
    "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)


def test_a_second_night_at_once_leaves_or_waits(events, night, tmp_path):
    write_log(events, tmp_path / "log")
    night()
    other = [sys.executable, "-c", HOLD, str(tmp_path / "out" / ".lock")]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(
            BusyError, match=f"another nightly run is at work in {tmp_path / 'out'}: let it end, or give"
        ):
            night()
        process.stdin.close()
        assert night(wait=60).num_files_read == 0
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert night().num_files_read == 0


KILLED_NIGHTS = """
import json, os, signal, sys
from pathlib import Path
from infobehavior import artefacts, daily
from infobehavior.data import embedded_log
from infobehavior.embedding import bundles
from small_minutes import small_schema

bundles.ENTITIES_PER_BUNDLE = 2
embedded_log.NUM_WRITERS = 1
calls, number, ends = 0, 0, []

def dying(call):
    def run(*given, **options):
        global calls
        calls += 1
        return os.kill(os.getpid(), signal.SIGKILL) if calls == number else call(*given, **options)
    return run

# Before a file is flushed, before it is moved, and before one is removed.
artefacts._flush, Path.replace, Path.unlink = map(dying, (artefacts._flush, Path.replace, Path.unlink))
for folder, model, since, day, number in json.loads(sys.stdin.read()):
    child = os.fork()
    if child == 0:
        folder = Path(folder)
        daily(
            folder / "log", small_schema(), model, folder / "minutes", folder / "out", date=day, since=since, threads=1
        )
        os._exit(0 if number else min(calls, 255))
    ends.append(os.waitpid(child, 0)[1])
print(json.dumps(ends))
"""


def run_killed(jobs):
    """Run nights in processes of their own, each killed at the call of its number; gives how each ended."""
    process = subprocess.run(
        [sys.executable, "-c", KILLED_NIGHTS],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return json.loads(process.stdout)


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_and_a_rerun_ends_alike(events, night, model, tmp_path):
    """A night with late events and two days to make; a reader finds each partition as it was or as it will be."""
    old, new = tmp_path / "old", tmp_path / "new"
    log = write_log(events, old / "log")
    night(old)
    write_parquet([Event("user 4", datetime(2024, 3, 30, 12, tzinfo=UTC), "login")], log / "late.parquet")
    shutil.copytree(old, new)
    (end,) = run_killed([(str(new), str(model), str(DAY), str(NEXT), 0)])
    num_calls = os.waitstatus_to_exitcode(end)
    assert 20 < num_calls < 255
    numbers = range(1, num_calls + 1, 11)
    for number in numbers:
        shutil.copytree(old, tmp_path / str(number))
    ends = run_killed([(str(tmp_path / str(n)), str(model), str(DAY), str(NEXT), n) for n in numbers])
    assert [os.waitstatus_to_exitcode(end) for end in ends] == [-signal.SIGKILL] * len(numbers)
    before, after = artefacts(old), artefacts(new)
    for number in numbers:
        folder = tmp_path / str(number)
        left = {name: content for name, content in artefacts(folder).items() if name.endswith("s.parquet")}
        assert all(content in (before.get(name), after.get(name)) for name, content in left.items())
        assert left.keys() >= {name for name in before if name.endswith("s.parquet")}
        night(folder, day=NEXT, since=DAY)
        assert artefacts(folder) == after, number
