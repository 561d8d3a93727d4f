"""Learning at startup: the result is as if the daemon had always been there, and the loop does not wait."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.daemon.backfill import Backfill, held_by_tick
from autoscaler.daemon.learned.restoring import FRESH_S
from autoscaler.daemon.loop import Daemon
from autoscaler.errors import JournalError, SourceError
from autoscaler.ports.sources import History
from autoscaler.store import SqliteJournal, recorded_demand, schema
from autoscaler.store.recorded_demand import RecordedPast
from autoscaler.store.rows import FORMAT, encode
from tests.core.builders import UNSAID
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, Demand, policy

FORECAST = {"signal": {"kind": "total", "source": "trace", "trace": {}, "zero_hold": "0s"}, "forecast": {}}


def demand(seconds):
    """Demand in whole numbers, so that no conversion loses digits."""
    tick = seconds // 10
    return float(300 + 200 * (tick % 37 > 20) + (tick * 7919) % 101)


class Recorded:
    """Recorded demand, read in the loop's own thread as virtual time requires."""

    def __init__(self, directory):
        self.past = RecordedPast(directory)
        self.asked = []

    async def demand(self, fleets, start_s, end_s):
        self.asked.append(tuple(fleets))
        return self.past._read(tuple(fleets), start_s, end_s)


async def lived(bench, ticks, recorded=None, source=None, learn=True, fleets=("web",)):
    """Run a daemon for some ticks, and return what its forecaster knows at the end."""
    for name in fleets:
        bench.add(policy(name, **FORECAST), source or Demand(bench.clock, demand, total=True))
    daemon = Daemon(
        bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
    )
    learning = asyncio.ensure_future(Backfill(daemon, recorded).run()) if learn else None
    asyncio.get_running_loop().call_later(ticks * 10.0 - 9.5, daemon.stop)
    await daemon.run()
    if learning:
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)
    await bench.journal.close()
    return daemon.fleets._series_state.dump()


def flat(dump):
    inner = {f"falls.{name}": value for name, value in dump["falls"].items()}
    return {name: value for name, value in dump.items() if name != "falls"} | inner


def same(left, right):
    left, right = map(flat, (left, right))
    assert left.keys() == right.keys()
    different = [
        key for key in left if key not in UNSAID and not np.array_equal(left[key], right[key], equal_nan=True)
    ]
    assert different == []


def on_disk(folder, clock_s):
    bench = Bench(vms=5, clock=VirtualClock(clock_s))
    bench.journal = SqliteJournal(folder, inline=True)
    return bench


def without_what_was_kept(folder):
    """Delete everything but ticks, as after a crash before anything else was saved."""
    with closing(sqlite3.connect(folder / schema.FILE_NAME)) as connection, connection:
        connection.execute("DELETE FROM learned")


def test_forecasts_that_were_kept_go_on_and_learn_nothing_twice(tmp_path):
    once = run_virtual(lambda: lived(on_disk(tmp_path / "once", ORIGIN_S), 180, learn=False))
    run_virtual(lambda: lived(on_disk(tmp_path / "twice", ORIGIN_S), 120, learn=False))
    again = on_disk(tmp_path / "twice", ORIGIN_S + 1200.0)
    recorded = Recorded(tmp_path / "twice")
    same(once, run_virtual(lambda: lived(again, 60, recorded)))
    assert recorded.asked == []
    assert again.log.texts("history_learned") == [
        "forecasts continue from what was saved at the end of the last run"
    ]
    # After a longer downtime, they learn the rest from the journal.
    late = on_disk(tmp_path / "twice", ORIGIN_S + 1800.0 + FRESH_S + 60.0)
    recorded = Recorded(tmp_path / "twice")
    run_virtual(lambda: lived(late, 60, recorded))
    assert len(recorded.asked) == 1


class SlowJournal(SqliteJournal):
    """A journal whose answer takes a while, as a thread's does."""

    takes_s = 1.0

    async def learned(self):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        loop.call_later(self.takes_s, answer.set_result, None)
        await answer
        return await super().learned()


def test_what_is_being_restored_is_not_learned_meanwhile(tmp_path):
    run_virtual(lambda: lived(on_disk(tmp_path, ORIGIN_S), 40, learn=False))
    again = Bench(vms=5, clock=VirtualClock(ORIGIN_S + 400.0))
    again.journal = SlowJournal(tmp_path, inline=True)
    recorded = Recorded(tmp_path)
    run_virtual(lambda: lived(again, 10, recorded))
    assert recorded.asked == []
    assert again.log.texts("history_learned") == [
        "forecasts continue from what was saved at the end of the last run"
    ]


def test_a_journal_that_hangs_while_a_fleet_is_added_costs_no_tick(tmp_path):
    bench = Bench(vms=5, clock=VirtualClock(ORIGIN_S))
    bench.journal = SlowJournal(tmp_path, inline=True)

    async def life():
        for name in ("api", "web"):
            bench.add(policy(name, **FORECAST), Demand(bench.clock, demand, total=True))
        daemon = bench.daemon = Daemon(
            bench.clock,
            bench.setups[:1],
            bench.journal,
            bench.telemetry,
            bench.settings,
            bench.records.append,
        )
        tasks = []
        later = asyncio.get_running_loop().call_later
        later(50.0, setattr, bench.journal, "takes_s", 1000.0)
        later(51.0, lambda: tasks.append(asyncio.ensure_future(daemon.take_over(bench.setups))))
        later(101.0, daemon.stop)
        await daemon.run()
        await bench.journal.close()

    run_virtual(life)
    assert bench.daemon.ticks_skipped == 0
    assert [row.fleet for row in bench.records[-1].fleets] == ["api", "web"]
    first = bench.log.texts("journal_failed")[0]
    assert first.startswith("no answer from the journal within 5 s; ")
    assert first.endswith("; what was learned of web before must be learned again")


def test_a_restarted_daemon_knows_what_one_knows_that_never_ended(tmp_path):
    once = run_virtual(lambda: lived(on_disk(tmp_path / "once", ORIGIN_S), 180, learn=False))
    run_virtual(lambda: lived(on_disk(tmp_path / "twice", ORIGIN_S), 120, learn=False))
    without_what_was_kept(tmp_path / "twice")
    again = on_disk(tmp_path / "twice", ORIGIN_S + 1200.0)
    recorded = Recorded(tmp_path / "twice")
    twice = run_virtual(lambda: lived(again, 60, recorded))
    same(once, twice)
    assert twice["last_tick"] == TICK_0 + 179
    (text,) = again.log.texts("history_learned")
    assert text == "forecasts have learned from 20.0 minutes from the journal"
    # Without learning, the result would have been different.
    run_virtual(lambda: lived(on_disk(tmp_path / "other", ORIGIN_S), 120, learn=False))
    without_what_was_kept(tmp_path / "other")
    forgot = run_virtual(lambda: lived(on_disk(tmp_path / "other", ORIGIN_S + 1200.0), 60, learn=False))
    assert not np.array_equal(once["totals"], forgot["totals"])


def other_signal(bench, **changed):
    """Add the fleet as its policy measures after a change."""
    signal = FORECAST["signal"] | {"trace": {"start_at": "2026-03-02T08:00:00Z"}} | changed
    bench.add(policy("web", **FORECAST | {"signal": signal}), Demand(bench.clock, demand, total=True))
    return bench


def test_demand_that_was_recorded_of_another_signal_is_not_learned_after_a_restart(tmp_path):
    run_virtual(lambda: lived(on_disk(tmp_path, ORIGIN_S), 120, learn=False))
    changed = other_signal(on_disk(tmp_path, ORIGIN_S + 1200.0))
    run_virtual(lambda: lived(changed, 60, Recorded(tmp_path), fleets=()))
    assert changed.log.texts("history_learned") == []
    assert changed.log.texts("history_failed") == [
        "20.0 minutes in the journal are of another signal and were left out; forecasts learn from now on only"
    ]
    # From then on the journal is of this signal, however it is read, and a later run knows since when.
    late = other_signal(on_disk(tmp_path, ORIGIN_S + 1800.0 + FRESH_S + 60.0), max_age="45s")
    run_virtual(lambda: lived(late, 20, Recorded(tmp_path), fleets=()))
    (text,) = late.log.texts("history_learned")
    assert text == (
        "forecasts have learned from 10.0 minutes from the journal; "
        "20.0 minutes in the journal are of another signal and were left out"
    )


def test_a_fleet_that_was_removed_and_is_back_knows_again_what_it_learned(tmp_path):
    bench, seen = on_disk(tmp_path, ORIGIN_S), {}

    async def life():
        for name in ("api", "web"):
            bench.add(policy(name, **FORECAST), Demand(bench.clock, demand, total=True))
        daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
        learning = asyncio.ensure_future(Backfill(daemon, Recorded(tmp_path)).run())

        async def reload(setups):
            seen[len(seen)] = dict.fromkeys(name for name, *_ in daemon.fleets.learning.start_times())
            await daemon.take_over(setups)
            seen[len(seen)] = dict.fromkeys(name for name, *_ in daemon.fleets.learning.start_times())

        tasks = []
        for at_s, setups in ((605.0, bench.setups[:1]), (1205.0, bench.setups)):
            later = asyncio.get_running_loop().call_later
            later(at_s, lambda setups=setups: tasks.append(asyncio.ensure_future(reload(setups))))
        later(1500.0, daemon.stop)
        await daemon.run()
        learning.cancel()
        await asyncio.gather(*tasks, learning, return_exceptions=True)
        await bench.journal.close()

    run_virtual(life)
    assert [set(names) for names in seen.values()] == [{"web"}, set(), set(), {"web"}]
    assert bench.log.texts("history_learned") == ["forecasts have learned from 10.2 minutes from the journal"]


class Telling(Demand):
    """A source that can read the past, too, with a delay."""

    def __init__(self, clock, told, takes_s=25.0):
        super().__init__(clock, demand, total=True)
        self.told, self.takes_s = told, takes_s
        self.history_asked = []

    async def history(self, start_s, end_s, step_s):
        self.history_asked.append((start_s, end_s, step_s))
        await self.clock.sleep_until(self.clock.monotonic() + self.takes_s)
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def test_the_sources_history_is_learned_beside_the_loop(tmp_path):
    times = ORIGIN_S - np.arange(180, 0, -1) * 10.0
    told = History(times, np.array([demand(at - ORIGIN_S) for at in times]), ("some are late",))
    bench = on_disk(tmp_path / "beside", ORIGIN_S)
    source = Telling(bench.clock, told)
    found = run_virtual(lambda: lived(bench, 60, Recorded(tmp_path / "beside"), source))
    assert bench.log.texts("history_learned") == [
        "forecasts have learned from 30.0 minutes from the source's history; the source warns: some are late"
    ]
    assert source.history_asked == [(ORIGIN_S - 691_200.0, ORIGIN_S, 10.0)]
    assert len(bench.records) == 60
    assert [record.tick for record in bench.records] == list(range(TICK_0, TICK_0 + 60))
    earlier = on_disk(tmp_path / "before", ORIGIN_S - 1800.0)
    same(found, run_virtual(lambda: lived(earlier, 240, learn=False)))


@pytest.mark.parametrize("error", [SourceError("the past is away"), ValueError("bug")])
def test_a_history_that_fails_is_told_and_changes_nothing(tmp_path, error):
    bench = on_disk(tmp_path, ORIGIN_S)
    found = run_virtual(lambda: lived(bench, 60, None, Telling(bench.clock, error)))
    (text,) = bench.log.texts("history_failed")
    assert str(error) in text
    assert text.endswith("forecasts learn from now on only")
    same(found, run_virtual(lambda: lived(on_disk(tmp_path / "alone", ORIGIN_S), 60, learn=False)))


def test_a_journal_that_cannot_be_read_is_told(tmp_path):
    class Broken:
        async def demand(self, fleets, start_s, end_s):
            raise JournalError("it is damaged")

    bench = on_disk(tmp_path, ORIGIN_S)
    run_virtual(lambda: lived(bench, 10, Broken()))
    assert "the journal could not be read (it is damaged)" in bench.log.texts("history_failed")[0]


def test_nothing_to_learn_from_is_no_event_and_off_is_off(tmp_path):
    bench = on_disk(tmp_path, ORIGIN_S)
    run_virtual(lambda: lived(bench, 10, None))
    assert not {"history_learned", "history_failed"} & set(bench.log.events())


# ── What the journal has recorded ───────────────────────────────────────────────────────────────────────


async def test_recorded_demand_of_several_fleets_and_its_gaps(tmp_path):
    def run():
        bench = on_disk(tmp_path, ORIGIN_S)
        values = {3: None, 5: float("nan")}
        bench.add(
            policy("web", **FORECAST), Demand(bench.clock, lambda s: values.get(s // 10, s), total=True)
        )
        return lived(bench, 8, learn=False, fleets=("other",))

    await asyncio.to_thread(lambda: run_virtual(run))
    times, found = await RecordedPast(tmp_path).demand(
        ("other", "missing", "web"), ORIGIN_S + 10, ORIGIN_S + 70
    )
    assert times.tolist() == [ORIGIN_S + 10 * tick for tick in range(1, 7)]
    assert found[:, 0].tolist() == [demand(10 * tick) for tick in range(1, 7)]
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(found[:, 2]).tolist() == [False, False, True, False, True, False]
    assert found[0, 2] == 10.0
    times, found = await RecordedPast(tmp_path).demand(("web",), 0.0, 1.0)
    assert (times.shape, found.shape) == ((0,), (0, 1))
    with pytest.raises(JournalError):
        await RecordedPast(tmp_path / "nowhere").demand(("web",), 0.0, 1.0)


def test_hidden_demand_and_damaged_ticks_are_unknown(tmp_path):
    bench = on_disk(tmp_path, ORIGIN_S)
    run_virtual(lambda: lived(bench, 2, learn=False))
    (row,) = bench.records[-1].fleets
    both = encode([row, replace(row, fleet="other", censored=True)])
    rosters = {7: (np.array([0, 1]), np.array([1, 0]))}
    found = recorded_demand.demand_of([(1, 0.0, FORMAT, both, 7), (2, 1.0, FORMAT, both[:-9], 7)], rosters, 2)
    assert found[0, 1] == row.demand == demand(10)
    assert np.isnan(found[[0, 1, 1], [0, 0, 1]]).all()


# ── From values to ticks ────────────────────────────────────────────────────────────────────────────────


def test_values_hold_for_their_step_and_no_longer():
    times = np.array([100.0, 160.0, 340.0])
    found = held_by_tick(times, np.array([1.0, 2.0, 3.0]), 9, 30, 10.0, 60.0)
    by_tick = dict(zip(range(90, 390, 10), found.tolist(), strict=True))
    assert np.isnan(by_tick[90])
    assert [by_tick[at] for at in (100, 150, 160, 210)] == [1.0, 1.0, 2.0, 2.0]
    assert np.isnan([by_tick[at] for at in range(220, 340, 10)]).all()
    assert by_tick[340] == by_tick[380] == 3.0


@given(
    gaps=st.lists(st.integers(1, 200), min_size=1, max_size=30),
    tick_s=st.sampled_from([1.0, 10.0, 0.5, 300.0]),
    step=st.integers(1, 20),
)
def test_no_tick_knows_what_came_later_or_more_than_a_step_before(gaps, tick_s, step):
    times, step_s = np.cumsum(gaps).astype(float), tick_s * step
    first, ticks = int(times[0] // tick_s) - 3, int((times[-1] - times[0]) // tick_s) + 30
    found = held_by_tick(times, times, first, ticks, tick_s, step_s)
    for tick, value in enumerate(found.tolist()):
        at_s = (first + tick) * tick_s
        last = times[times <= at_s]
        known = len(last) > 0 and at_s - last[-1] < step_s
        assert (value == last[-1]) if known else np.isnan(value)
