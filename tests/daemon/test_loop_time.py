"""The loop and time: the grid, late ticks, clocks that are set, the end."""

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.ports import Clock, Verb
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, Demand, OwnTime, policy, steady, virtual
from tests.daemon.pools import pool_bench, pool_policy, states

PATIENT = LoopSettings(journal_wait_s=60.0)
"""Settings that wait for the slow journal instead of abandoning it."""


class SetClock(VirtualClock):
    """A clock that is set: `offsets` are pairs of virtual second and seconds ahead of true time."""

    def __init__(self, *offsets):
        super().__init__(ORIGIN_S)
        self.offsets = steady((0, 0), *offsets)

    def now(self):
        return super().now() + self.offsets(self.monotonic())


class SlowJournal:
    """The real journal, whose ticks take long where `delays` (tick number from 0 to seconds) says so."""

    def __init__(self, journal, clock, delays):
        self.journal, self.clock, self.delays = journal, clock, delays

    def __getattr__(self, name):
        return getattr(self.journal, name)

    async def record_tick(self, record, intents, events):
        delay_s = self.delays.get(record.tick - TICK_0, 0.0)
        if delay_s:
            await self.clock.sleep_until(self.clock.monotonic() + delay_s)
        return await self.journal.record_tick(record, intents, events)


def at(bench):
    return [record.at_s - ORIGIN_S for record in bench.records]


@virtual
async def test_ticks_are_at_the_points_of_the_grid():
    bench = Bench(clock=VirtualClock(ORIGIN_S + 3.25))
    bench.add(policy(), 100)
    await bench.run(50)
    assert at(bench) == [3.25, 10, 20, 30, 40, 50]
    assert [r.tick - TICK_0 for r in bench.records] == [0, 1, 2, 3, 4, 5]
    assert bench.daemon.ticks_skipped == 0


@virtual
async def test_work_within_a_tick_does_not_move_the_grid():
    bench = Bench()
    bench.settings = PATIENT
    bench.journal = SlowJournal(bench.journal, bench.clock, {1: 4.0, 2: 9.5})
    bench.add(policy(), 100)
    await bench.run(40)
    assert at(bench) == [0, 10, 20, 30, 40]


@virtual
async def test_a_late_tick_is_counted_and_skipped_forward_never_queued():
    bench = Bench()
    bench.settings = PATIENT
    bench.journal = SlowJournal(bench.journal, bench.clock, {1: 25.0})
    bench.add(policy(), 100)
    await bench.run(60)
    # The tick of 10 ends at 35: that of 20 is skipped, that of 30 is made up for at once, then the grid continues.
    assert at(bench) == [0, 10, 35, 40, 50, 60]
    assert [r.tick - TICK_0 for r in bench.records] == [0, 1, 3, 4, 5, 6]
    assert bench.daemon.ticks_skipped == 1
    assert bench.telemetry.registry.get_sample_value("autoscaler_ticks_skipped_total") == 1
    assert bench.log.texts("tick_late") == ["1 ticks were skipped"]


@pytest.mark.parametrize("jump_s", [3600.0, 7.0])
def test_a_clock_that_jumps_ahead_keeps_the_loop_ticking(jump_s):
    @virtual
    async def run():
        bench = Bench(clock=SetClock((35, jump_s)))
        bench.add(policy(), 100)
        await bench.run(80)
        monotonic = [a - (jump_s if a > 35 else 0) for a in at(bench)]
        assert monotonic[:4] == [0, 10, 20, 30]
        assert max(b - a for a, b in itertools.pairwise(monotonic)) <= 10
        assert [r.tick for r in bench.records] == sorted({r.tick for r in bench.records})
        assert bench.daemon.ticks_skipped == (0 if jump_s < 10 else 360)

    run()


@virtual
async def test_a_clock_set_back_by_an_hour_neither_stops_the_loop_nor_holds_a_scale_out():
    truth = VirtualClock(ORIGIN_S)
    bench = Bench(running=2, clock=SetClock((0, 3600), (45, 0)))
    bench.provider._clock = truth
    source = bench.add(policy(guards={"cooldown_out": "60s"}), steady((0, 200), (20, 400), (60, 600)))
    source.clock = truth
    bench.clock.origin_s = ORIGIN_S
    await bench.run(110)
    assert bench.log.events().count("clock_set_back") == 1
    assert bench.log.texts("clock_set_back") == [
        "set back by about 3590 s; guards start over, orders in flight and what was learned are kept"
    ]
    assert len(bench.records) == 12
    after = [(r.at_s - ORIGIN_S, r.fleets[0].in_service, r.fleets[0].start) for r in bench.records[5:]]
    assert after[0][0] == 50
    assert (60, 2, 4) in after or (60, 4, 2) in after
    assert after[-1][1] == 6
    assert bench.daemon.telemetry.registry.get_sample_value("autoscaler_ticks_failed_total") == 0


@virtual
async def test_stop_ends_after_the_tick_under_way_and_at_once_while_asleep():
    bench = Bench()
    bench.settings = PATIENT
    bench.journal = SlowJournal(bench.journal, bench.clock, {2: 6.0})
    bench.add(policy(), 100)
    bench.daemon = Daemon(
        bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
    )
    running = asyncio.create_task(bench.daemon.run())
    await bench.clock.sleep_until(23.0)
    bench.daemon.stop()
    bench.daemon.stop()
    await running
    assert at(bench) == [0, 10, 20]
    assert bench.clock.monotonic() == 26
    assert bench.log.events().count("daemon_stopping") == 1

    second = Bench(clock=VirtualClock(ORIGIN_S))
    second.add(policy(), 100)
    began_s = second.clock.monotonic()
    await second.run(12)
    assert second.clock.monotonic() - began_s == 12.5


@virtual
async def test_a_call_under_way_at_the_end_is_waited_for_and_recorded():
    bench = Bench()
    bench.add(policy(signal={"kind": "total"}), 100, provider=Slow(bench.provider, bench.clock, 20.0))
    await bench.run(2)
    assert bench.clock.monotonic() == 20
    (action,) = bench.actions()
    assert action.settled_at_s == ORIGIN_S + 20
    assert bench.daemon.fleets.all[0].inventory.counts(ORIGIN_S + 20, 0).starting == 1


@virtual
async def test_a_slow_call_of_one_fleet_does_not_cost_another_its_ticks():
    bench = Bench()
    bench.place("api", 5)
    slow = Slow(bench.provider, bench.clock, 1e9)
    bench.add(policy("web", signal={"kind": "total"}), 100, provider=slow)
    bench.add(policy("api", signal={"kind": "total"}), 200)
    await bench.run(90)
    assert bench.daemon.ticks_skipped == 0
    assert bench.column("in_service", "api")[-1] == 2
    # One start is under way for 30 s, counts as starting, and is held for 30 s more as unknown.
    starts = [a for a in bench.actions() if a.intent.fleet == "web"]
    assert [a.at_s - ORIGIN_S for a in starts] == [0, 60]
    assert [o.kind for o in starts[0].outcomes] == ["unknown"]
    assert bench.column("starting")[1:6] == [1] * 5
    assert [text for _, kind, text in bench.events() if kind == "start_not_taken"] != []


class Slow:
    """A provider whose starts take long."""

    def __init__(self, provider, clock, delay_s):
        self.provider, self.clock, self.delay_s = provider, clock, delay_s

    def __getattr__(self, name):
        return getattr(self.provider, name)

    async def start(self, vm_ids):
        await self.clock.sleep_until(self.clock.monotonic() + self.delay_s)
        return await self.provider.start(vm_ids)


def test_the_clock_double_is_a_clock():
    assert isinstance(SetClock(), Clock)


class SlowlyAsked(SimulatedBalancer):
    """A balancer that takes a second for an answer."""

    answers_at_once = False

    async def look(self, vms):
        await self._clock.sleep_until(self._clock.monotonic() + 1.0)
        return await super().look(vms)


class SlowlyRead(Demand):
    """A source that takes three seconds for an answer."""

    async def read(self, vms):
        await self.clock.sleep_until(self.clock.monotonic() + 3.0)
        return await super().read(vms)


# Between two ticks; while the tick of 40 waits for metrics; and while it asks the balancer.
@pytest.mark.parametrize("second", [36, 42, 43.5])
def test_a_clock_set_ahead_ends_no_drain_before_its_time(second):
    run_virtual(lambda: _drained_on(second))


async def _drained_on(second):
    bench = Bench(running=4, zones="a", clock=SetClock((second, 3600)))
    balancer = SlowlyAsked(bench.clock, busy_s=1e6)
    source = SlowlyRead(bench.clock, steady((0, 400), (20, 200)), total=True)
    own = policy(
        signal={"kind": "total"}, balancer={"haproxy": {"sockets": ["/run/h.sock"], "backend": "web"}}
    )
    bench.setups = [FleetSetup(own, bench.provider, source, StatusCheckProbe(bench.provider), balancer)]
    await bench.run(130)
    assert [(round(a.at_s - ORIGIN_S), a.intent.verb) for a in bench.actions()] == [(23, Verb.DRAIN)]
    assert bench.log.texts("clock_set_ahead") == [
        "the clock was set ahead by about 3600 s; waits last as long as before"
    ]


@pytest.mark.parametrize("busy_s", [1e6, 60.0])
def test_a_clock_set_back_gives_no_work_to_what_is_draining_and_counts_none_of_it(busy_s):
    @virtual
    async def run():
        truth = VirtualClock(ORIGIN_S)
        bench = Bench(running=4, zones="a", clock=SetClock((0, 3600), (45, 0)))
        bench.provider._clock = truth
        balancer = SimulatedBalancer(truth, busy_s=busy_s)
        source = Demand(truth, steady((0, 400), (20, 200)), total=True)
        read, seen = source.read, []

        async def as_of_now(vms):
            found = await read(vms)
            seen.append((round(truth.monotonic()), set(balancer.cordoned)))
            return replace(found, observed_at_s=np.full(len(found.vm_ids), bench.clock.now()))

        source.read = as_of_now
        own = policy(
            signal={"kind": "total"}, balancer={"haproxy": {"sockets": ["/run/h.sock"], "backend": "web"}}
        )
        bench.setups = [FleetSetup(own, bench.provider, source, StatusCheckProbe(bench.provider), balancer)]
        await bench.run(130)
        assert bench.log.events().count("clock_set_back") == 1
        # Two of them have work left; the others serve all the time.
        assert {len(cordoned) for second, cordoned in seen if second > 25} == {2}
        assert bench.column("in_service")[3:] == [2] * (len(bench.records) - 3)
        stops = bench.calls("StopInstances")
        assert len(stops) == (0 if busy_s > 1000 else 1)

    run()


@pytest.mark.parametrize("second", [25, 38])
def test_a_clock_set_ahead_gives_up_no_start_and_nothing_that_is_made(second):
    @virtual
    async def run():
        truth = VirtualClock(ORIGIN_S)
        bench = Bench(vms=4, zones="a", clock=SetClock((second, 3600)))
        bench.provider._clock = truth
        source = bench.add(policy(signal={"kind": "total"}), steady((0, 100), (20, 400)))
        source.clock = truth
        source.read, read = None, source.read

        async def now(vms):
            found = await read(vms)
            return replace(found, observed_at_s=np.full(len(found.vm_ids), bench.clock.now()))

        source.read = now
        await bench.run(80)
        assert bench.events() == []
        assert bench.column("in_service")[-1] == 4
        assert sum(vms for _, _, vms, _ in bench.calls("StartInstances")) == 4

    run()


LAG = Fault(FaultKind.LISTING_LAG, 15.0, 60.0, delay_s=14.0)
LOST = Fault(FaultKind.LOST_REPLY, 20.0, 24.0, actions=("RunInstances", "StartInstances", "StopInstances"))


@pytest.mark.parametrize("back_s", [15.0, 3600.0])
@pytest.mark.parametrize("faults", [(LAG,), (LAG, LOST)])
@pytest.mark.parametrize(("vms", "running", "demand"), [(0, 1, 300), (4, 1, 300), (0, 4, 200)])
def test_a_clock_set_back_repeats_no_order_that_is_not_listed_yet(back_s, faults, vms, running, demand):
    """With three VMs too few or two too many, each is made, started or stopped once, whatever listings still show."""

    @virtual
    async def run():
        truth = VirtualClock(ORIGIN_S)
        bench = pool_bench(0, vms=vms, running=running, faults=faults, refill=None, warm_pool={"minimum": 0})
        bench.setups.clear()
        bench.clock = SetClock((25, -back_s))
        bench.provider._clock = truth
        source = Demand(bench.clock, None, total=True)
        levels = steady((0, 100 * running), (20, demand))
        source.demand = lambda _: levels(truth.monotonic())
        own = pool_policy(refill=None, warm_pool={"minimum": 0})
        bench.add(own, source, provider=OwnTime(bench.provider, bench.clock))
        await bench.run(110)
        assert bench.log.events().count("clock_set_back") == 1
        bench.clock = truth
        assert states(bench).get("running", 0) == demand // 100
        calls = [
            (action, vms) for _, action, vms, code in bench.changes() if not code or code == "InternalError"
        ]
        assert sum(vms for _, vms in calls) == abs(running - demand // 100), calls
        assert bench.column("in_service")[-1] == demand // 100

    run()
