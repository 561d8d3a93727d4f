"""A fleet that relives its past knows what a fleet that lived it knows: models, prices and pool, not only forecasts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.daemon.backfill import Backfill, Pace, begin_of
from autoscaler.daemon.learned.restoring import FRESH_S, RestartStateStore
from autoscaler.daemon.loop import Daemon
from autoscaler.errors import SourceError
from autoscaler.ports.sources import History
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy

TICK_S = 60.0
HOURS = 30
NOW_S = ORIGIN_S + HOURS * 3600.0
OBJECTIVE = {
    "signal": {"kind": "total", "source": "trace", "trace": {}, "zero_hold": "0s", "max_age": "120s"},
    "reactive": None,
    "objective": {"shortage_price": "36000/h"},
    "vm": {"capacity": "100/s", "start_time": "20s", "stop_time": "60s"},
    "bounds": {"minimum": 1, "maximum": 40},
}


def demand(seconds):
    """Demand with a daily swing, lumps, and an occasional crowd."""
    tick = int(seconds // TICK_S)
    swing = 700.0 + 500.0 * np.sin(2.0 * np.pi * seconds / 86_400.0)
    return float(round(swing + (tick * 7919) % 101 + 1500.0 * (tick % 401 < 12)))


class Telling(Demand):
    """A source with a past."""

    def __init__(self, clock, told):
        super().__init__(clock, demand, total=True)
        self.told = told

    async def history(self, start_s, end_s, step_s):
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def history(hours, *, without=range(0)):
    times = NOW_S - np.arange(int(hours * 3600 / TICK_S), 0, -1) * TICK_S
    times = times[[at not in without for at in range(len(times))]]
    return History(times, np.array([demand(at - ORIGIN_S) for at in times]), ())


async def lived(bench, ticks, told=None, fleets=("web",), policies=None, kept=(), then=None):
    """Run a daemon for some ticks, half of them under another policy if one is given."""
    for name in fleets:
        source = Telling(bench.clock, told) if told is not None else Demand(bench.clock, demand, total=True)
        bench.add((policies or {}).get(name) or policy(name, **OBJECTIVE), source)
    daemon = Daemon(
        bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
    )
    assert RestartStateStore().take_up_states(daemon.fleets, kept, bench.clock.now()) == []
    daemon.bench = bench
    learning = asyncio.ensure_future(Backfill(daemon).run()) if told is not None else None
    asyncio.get_running_loop().call_later((ticks - 0.95) * TICK_S, daemon.stop)
    if then is not None:
        loop, tasks = asyncio.get_running_loop(), []
        setups = [replace(setup, policy=then) for setup in bench.setups]
        loop.call_later(
            (ticks // 2 - 0.95) * TICK_S,
            lambda: tasks.append(asyncio.ensure_future(daemon.take_over(setups))),
        )
    await daemon.run()
    if learning:
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)
    await bench.journal.close()
    return daemon


def bench_at(start_s):
    return Bench(vms=40, clock=VirtualClock(start_s), tick_s=TICK_S)


def flat(dumped, prefix=""):
    for key, value in dumped.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differing(left, right):
    """Names of the fields in which two states differ."""
    right = dict(flat(right.dump()))
    return {key for key, value in flat(left.dump()) if not np.array_equal(value, right[key], equal_nan=True)}


@pytest.fixture(scope="module", name="veteran")
def a_fleet_that_lived_through_it():
    """A fleet whose daemon ran all the time."""
    return run_virtual(lambda: lived(bench_at(ORIGIN_S), HOURS * 60 + 300))


def test_models_and_decisions_are_those_of_who_lived_through_it(veteran):
    bench = bench_at(NOW_S)
    new = run_virtual(lambda: lived(bench, 300, history(HOURS)))
    assert bench.log.texts("history_learned") == [
        "forecasts and models have learned from 30.0 hours from the source's history"
    ]
    assert [record.tick for record in bench.records] == list(range(int(NOW_S // 60), int(NOW_S // 60) + 300))
    assert differing(new.fleets.states()["forecasts"], veteran.fleets.states()["forecasts"]) == set()
    # Its VMs were stopped at the beginning, so its wishes in the first ticks may differ by one VM.
    others = differing(new.fleets.states()["lanes"], veteran.fleets.states()["lanes"])
    assert others <= {"peaks.ring", "warm_pool.ended", "warm_pool.odds", "warm_pool.lasts"}
    desired = {record.tick: record.fleets[0].desired for record in veteran.bench.records}
    after = bench.records[60:]
    assert [record.fleets[0].desired for record in after] == [desired[record.tick] for record in after]
    pool = [record.fleets[0].warm_target for record in after]
    old = {record.tick: record.fleets[0].warm_target for record in veteran.bench.records}
    assert np.abs(np.array(pool) - [old[record.tick] for record in after]).max() <= 1


def test_without_it_they_are_not(veteran):
    new = run_virtual(lambda: lived(bench_at(NOW_S), 300))
    assert differing(new.fleets.states()["lanes"], veteran.fleets.states()["lanes"]) >= {
        "trial.paid",
        "warm_pool.ended",
    }


@pytest.mark.parametrize("told", [SourceError("the past is away"), History(np.empty(0), np.empty(0), ())])
def test_no_past_changes_nothing(told):
    bench = bench_at(NOW_S)
    new = run_virtual(lambda: lived(bench, 100, told))
    cold = run_virtual(lambda: lived(bench_at(NOW_S), 100))
    for name, state in new.fleets.states().items():
        assert differing(state, cold.fleets.states()[name]) == set()
    failed = bench.log.texts("history_failed")
    assert [text.endswith("; forecasts and models learn from now on only") for text in failed] == [True] * (
        isinstance(told, Exception)
    )


def test_a_past_with_holes_counts_for_what_is_known():
    holes = range(400, 900)
    told = history(HOURS, without=holes)
    told.demand[1000:1100] = np.nan
    new = run_virtual(lambda: lived(bench_at(NOW_S), 100, told))
    trial = new.fleets.states()["lanes"].trial
    known = HOURS * 60 - len(holes) - 100
    # The first tick, and the one after a gap in which all fleets are unknown, are charged to no model.
    assert trial.ticks[0] / trial.weight[0] == pytest.approx(known + 100 - 2, abs=15)
    assert trial.habits.highest[0] == pytest.approx(26.0, abs=3.0)


def test_fleets_begin_together_and_each_with_its_own_past():
    plain = policy("plain", signal=OBJECTIVE["signal"], forecast={}, bounds=OBJECTIVE["bounds"])
    bench = bench_at(NOW_S)
    for name in ("other", "plain"):
        bench.place(name, 40)
    fleets, policies = ("web", "plain", "other"), {"plain": plain}
    new = run_virtual(lambda: lived(bench, 100, history(HOURS), fleets, policies))
    alone = run_virtual(lambda: lived(bench_at(NOW_S), 100, history(HOURS)))
    ours, theirs = new.fleets.states()["lanes"].trial, alone.fleets.states()["lanes"].trial
    for name in ("paid", "unserved", "crowd", "ticks", "driver"):
        found, known = getattr(ours, name), getattr(theirs, name)
        assert np.array_equal(found[..., :1], known), name
        assert np.array_equal(found[..., 1:], known), name
    assert sorted(bench.log.texts("history_learned")) == [
        "forecasts and models have learned from 30.0 hours from the source's history",
        "forecasts and models have learned from 30.0 hours from the source's history",
        "forecasts have learned from 30.0 hours from the source's history",
    ]


def test_a_fleet_that_is_stopped_meanwhile_has_learned_nothing():
    bench = bench_at(NOW_S)
    new = run_virtual(lambda: lived(bench, 0.952, history(HOURS)))
    assert not bench.log.texts("history_learned")
    cold = run_virtual(lambda: lived(bench_at(NOW_S), 0.952))
    for name, state in new.fleets.states().items():
        assert differing(state, cold.fleets.states()[name]) == set()


def test_what_models_have_cost_before_is_kept_over_a_restart():
    bench = bench_at(NOW_S)
    told = history(HOURS)

    async def again():
        first = await lived(bench, 100, told)
        kept = await RestartStateStore().states(first.fleets, bench.clock.now())
        before = first.fleets.states()["lanes"].trial.copy()
        # With another demand, and after so long that forecasts learn again.
        later = bench_at(bench.clock.now() + 2 * FRESH_S)
        other = History(told.times_s + 100 * TICK_S, told.demand + 900.0, ())
        second = await lived(later, 100, other, kept=kept)
        return before, second, later

    before, second, later = run_virtual(again)
    trial = second.fleets.states()["lanes"].trial
    assert trial.habits.highest[0] == pytest.approx(before.habits.highest[0], rel=0.01)
    assert before.ticks[0] < trial.ticks[0] < before.ticks[0] + 105
    assert len(later.log.texts("history_learned")) == 1


def test_a_fleet_that_gets_an_objective_lives_the_past_then():
    plain = policy("web", signal=OBJECTIVE["signal"], forecast={}, bounds=OBJECTIVE["bounds"])
    bench = bench_at(NOW_S)

    then = policy("web", **OBJECTIVE)
    new = run_virtual(lambda: lived(bench, 100, history(HOURS), policies={"web": plain}, then=then))
    trial = new.fleets.states()["lanes"].trial
    assert trial.ticks[0] / trial.weight[0] > HOURS * 60 - 20
    assert len(bench.log.texts("history_learned")) == 2


def test_pauses_are_as_long_as_the_work_before_them():
    async def run():
        clock = VirtualClock(0.0)
        pace, found = Pace(clock), []
        for takes_s in (0.0, 0.0, 0.02, 0.08, 0.0):
            await clock.sleep_until(clock.monotonic() + takes_s)
            before_s = clock.monotonic()
            await pace.rest()
            found.append((pace.ticks, round(clock.monotonic() - before_s, 6)))
        return found

    assert run_virtual(run) == [(2, 0.01), (4, 0.01), (2, 0.02), (1, 0.08), (2, 0.01)]


@pytest.mark.parametrize("tick_s", [0.1, 0.3, 1.0, 7.0, 60.0])
def test_the_first_moment_of_a_tick_is_in_it(tick_s):
    for tick in range(int(NOW_S // tick_s), int(NOW_S // tick_s) + 1000):
        assert int(begin_of(tick, tick_s) // tick_s) == tick
