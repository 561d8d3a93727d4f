"""Every wait in a tick is bounded: a journal, source, listing or probe that hangs costs its bound and no more."""

import asyncio
import math
from dataclasses import replace

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.clock import run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.loop import LoopSettings
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import Note
from autoscaler.errors import JournalError
from autoscaler.ports import ActionIntent, TickRecord, Verb
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import ORIGIN_S, Bench, Demand, Log, policy, steady, virtual
from tests.daemon.test_loop_isolation import BadListing, BadProbe, Source, hang

TOTAL = {"kind": "total"}


class Hung:
    """The real journal on a disk that hangs from one second to another for the named calls.

    Every call in progress is completed when the disk comes back.
    """

    def __init__(self, journal, clock, from_s, to_s, *names):
        self.journal, self.clock, self.from_s, self.to_s, self.names = journal, clock, from_s, to_s, names
        self.under_way = 0
        self.most_under_way = 0

    def __getattr__(self, name):
        call = getattr(self.journal, name)
        if name not in self.names:
            return call

        async def hung(*given):
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            if self.from_s <= self.clock.monotonic() < self.to_s:
                await self.clock.sleep_until(self.to_s)
            self.under_way -= 1
            return await call(*given)

        return hung


class SlowDisk:
    """The real journal on a disk that takes its time for each write, and does one after the other."""

    def __init__(self, journal, clock, write_s):
        self.journal, self.clock, self.write_s = journal, clock, write_s
        self.turn = asyncio.Lock()
        self.written = []
        """Seconds since the origin and the name of each write."""

    def __getattr__(self, name):
        call = getattr(self.journal, name)
        if not name.startswith("record_"):
            return call

        async def slow(*given):
            async with self.turn:
                await self.clock.sleep_until(self.clock.monotonic() + self.write_s)
                self.written.append((self.clock.monotonic(), name))
                return await call(*given)

        return slow


class Loses:
    """A provider whose listings show none but the first VMs from some second on."""

    def __init__(self, bench, lost, from_s):
        self.bench, self.lost, self.from_s = bench, lost, from_s

    def __getattr__(self, name):
        return getattr(self.bench.provider, name)

    async def list_vms(self):
        found = await self.bench.provider.list_vms()
        if self.bench.clock.monotonic() < self.from_s:
            return found
        return replace(found, vms=found.vms[: -self.lost])


def at(bench):
    return [record.at_s - ORIGIN_S for record in bench.records]


def errors(bench):
    return bench.telemetry.registry.get_sample_value("autoscaler_journal_errors_total")


@virtual
async def test_a_hung_disk_holds_acts_while_deciding_goes_on_and_acts_follow_when_it_is_back():
    bench = Bench(vms=4, zones="a")
    bench.journal = Hung(bench.journal, bench.clock, 15, 57, "record_tick")
    bench.add(policy(signal=TOTAL), steady((0, 100), (20, 300)))
    await bench.run(80)
    assert at(bench) == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert bench.daemon.ticks_skipped == 0
    # Decided every tick while the disk hung, done only in the first tick after it came back.
    assert [r.start for r in bench.rows()][2:7] == [2, 2, 2, 2, 2]
    assert bench.calls("StartInstances") == [(0, "StartInstances", 1, ""), (60, "StartInstances", 2, "")]
    assert errors(bench) == 4
    assert bench.journal.most_under_way == 1
    texts = bench.log.texts("journal_failed")
    assert texts[0] == (
        "no answer from the journal within 5 s; is the disk of state_dir hung?; 1 action held back"
    )
    assert texts[1].startswith("an earlier write has not come back; ")


@virtual
async def test_an_intent_that_became_durable_too_late_is_settled_as_not_done():
    bench = Bench(vms=4, zones="a")
    bench.journal = Hung(bench.journal, bench.clock, 15, 57, "record_tick")
    bench.add(policy(signal=TOTAL), steady((0, 100), (20, 300)))
    await bench.run(80)
    assert await bench.journal.recent_actions(math.inf) == ()
    late = [action for action in bench.actions() if action.at_s == ORIGIN_S + 20]
    assert len(late) == 1
    assert {(o.kind, o.code, o.message) for o in late[0].outcomes} == {
        ("throttled", "NotSent", "recorded too late, so it was not done")
    }
    assert late[0].settled_at_s == ORIGIN_S + 60


@virtual
async def test_an_outcome_that_cannot_be_written_in_time_costs_its_bound_only():
    bench = Bench(vms=4, zones="a")
    bench.journal = Hung(bench.journal, bench.clock, 0, 25, "record_outcomes")
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(50)
    assert at(bench) == [0, 10, 20, 30, 40, 50]
    assert bench.column("in_service")[-1] == 1
    # The write of tick 0 hung, and ticks until 25 were not written; that write ended when the disk came back.
    assert errors(bench) == 3
    assert await bench.journal.recent_actions(math.inf) == ()


@virtual
async def test_many_events_together_are_one_write():
    bench = Bench()
    log = Log()
    written = []

    class Slow:
        async def record_events(self, at_s, events):
            await bench.clock.sleep_until(bench.clock.monotonic() + 1.5)
            written.append((at_s, [event.text for event in events]))

    names = [f"i-{i}" for i in range(40)]
    recorder = Recorder(Slow(), Telemetry(log=log), 5.0)
    await recorder.note([Note("vm_gone", "web", name) for name in names], ORIGIN_S)
    assert bench.clock.monotonic() == 1.5
    assert written == [(ORIGIN_S, names)]
    assert log.events() == ["vm"] * 40


@virtual
async def test_news_of_hundreds_of_vms_at_once_hold_no_start_back_on_a_slow_disk():
    bench = Bench(vms=800, running=2, zones="a")
    bench.journal = SlowDisk(bench.journal, bench.clock, 0.02)
    bench.add(policy(signal=TOTAL), steady((0, 100), (50, 300)), provider=Loses(bench, 390, from_s=25))
    await bench.run(100)
    gone = [at_s for at_s, kind, _ in bench.events() if kind == "vm_gone"]
    assert (len(gone), set(gone)) == (390, {50.0})
    assert [round(a.at_s - ORIGIN_S) for a in bench.actions() if a.intent.verb is Verb.START] == [50]


@virtual
async def test_what_came_of_hundreds_of_calls_at_once_holds_no_start_back_on_a_slow_disk():
    bench = Bench(zones="ab", limits=None, faults=[Fault(FaultKind.NO_CAPACITY, zone="us-east-1a")])
    disk = bench.journal = SlowDisk(bench.journal, bench.clock, 0.1)
    for number in range(100):
        bench.place(f"fleet-{number}", 6, running=1)
        bench.add(policy(f"fleet-{number}", signal=TOTAL), steady((0, 100), (20, 300)))
    await bench.run(40)
    # Every fleet is short of a VM in the zone without room, and all of them try elsewhere before the next decision.
    failed = [at_s for at_s, *_, code in bench.calls("StartInstances") if code]
    started = [(at_s, vms) for at_s, _, vms, code in bench.calls("StartInstances") if not code]
    assert (min(failed), max(failed)) == pytest.approx((20.1, 20.1))
    assert sum(vms for _, vms in started) == 200
    assert max(at_s for at_s, _ in started) < 21.0
    assert len([name for at_s, name in disk.written if 20.0 < at_s < 30.0]) <= 9
    assert errors(bench) == 0
    assert await bench.journal.recent_actions(math.inf) == ()


@virtual
async def test_a_restart_with_hundreds_of_open_calls_decides_in_time_on_a_slow_disk():
    bench = Bench(limits=None, zones="a")
    fleets = [f"fleet-{number}" for number in range(100)]
    ids = [bench.place(name, 2)[0] for name in fleets]
    intents = [
        ActionIntent(name, Verb.START, (vm_id,), 1, "", "before")
        for name, vm_id in zip(fleets, ids, strict=True)
    ]
    await bench.journal.record_tick(TickRecord(1, ORIGIN_S - 15.0, ()), intents)
    disk = bench.journal = SlowDisk(bench.journal, bench.clock, 0.1)
    for name in fleets:
        bench.add(policy(name, signal=TOTAL), steady((0, 0), (20, 100)))
    await bench.run(60)
    assert at(bench) == pytest.approx([0.1, 10, 20, 30, 40, 50, 60])
    assert {round(at_s, 3) for at_s, *_ in bench.calls("StartInstances")} == {20.1}
    assert [kind for _, kind, _ in bench.events()] == ["action_settled"] * 100
    assert await bench.journal.recent_actions(math.inf) == ()
    assert len(disk.written) < 20


@virtual
async def test_news_of_a_tick_costs_no_write_before_its_starts():
    bench = Bench(vms=9, running=2, zones="a")
    disk = bench.journal = SlowDisk(bench.journal, bench.clock, 2.0)
    bench.add(policy(signal=TOTAL), steady((0, 100), (50, 300)), provider=Loses(bench, 5, from_s=25))
    await bench.run(100)
    assert [kind for at_s, kind, _ in bench.events() if at_s == 50.0] == ["vm_gone"] * 5
    assert min(at_s for at_s, name in disk.written if at_s > 50.0) == 52.0
    assert [at_s for at_s, *_ in bench.calls("StartInstances")] == [52.0]


@virtual
async def test_what_a_failing_journal_missed_is_made_up_for_in_one_write_after_the_starts():
    bench = Bench(limits=None, zones="a")
    disk = bench.journal = SlowDisk(bench.journal, bench.clock, 0.5)
    for number in range(20):
        bench.place(f"fleet-{number}", 2)
        bench.add(policy(f"fleet-{number}", signal=TOTAL), steady((0, 100), (20, 200)))
    settle, full = disk.journal.record_outcomes, JournalError("the disk is full")

    async def failing(settled):
        if bench.clock.monotonic() < 20.0:
            raise full
        await settle(settled)

    disk.journal.record_outcomes = failing
    await bench.run(30)
    assert {at_s for at_s, *_ in bench.calls("StartInstances")} == {1.0, 20.5}
    assert len([name for at_s, name in disk.written if at_s > 20.0 and name == "record_outcomes"]) <= 4
    assert await bench.journal.recent_actions(math.inf) == ()


class Takes:
    """An adapter whose named calls take their time."""

    def __init__(self, adapter, clock, seconds, *names):
        self.adapter, self.clock, self.seconds, self.names = adapter, clock, seconds, names

    def __getattr__(self, name):
        call = getattr(self.adapter, name)
        if name not in self.names:
            return call

        async def slow(*given, **more):
            await self.clock.sleep_until(self.clock.monotonic() + self.seconds)
            return await call(*given, **more)

        return slow


@virtual
async def test_starts_do_not_wait_for_a_balancer_that_takes_vms_back():
    bench = Bench(limits=None, zones="a")
    bench.place("web", 0, running=4)
    bench.place("api", 4, running=1)
    balancer = Takes(SimulatedBalancer(bench.clock, busy_s=1000), bench.clock, 0, "admit")
    asyncio.get_running_loop().call_later(35, setattr, balancer, "seconds", 60.0)
    named = {"haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"}}
    web = policy("web", signal=TOTAL, balancer=named)
    demand = Demand(bench.clock, steady((0, 400), (20, 200), (40, 400)), total=True)
    bench.setups = [FleetSetup(web, bench.provider, demand, StatusCheckProbe(bench.provider), balancer)]
    bench.add(policy("api", signal=TOTAL), steady((0, 100), (40, 300)))
    await bench.run(60)
    assert bench.actions()[-1].intent.verb is Verb.RETURN
    assert bench.actions()[-1].at_s == ORIGIN_S + 40
    assert bench.calls("StartInstances") == [(40, "StartInstances", 2, "")]


@pytest.mark.parametrize("tick_s", [10.0, 4.0])
def test_a_slow_account_delays_no_tick_even_if_it_starts_and_stops(tick_s):
    async def life():
        bench = Bench(limits=None, zones="a", tick_s=tick_s)
        slow = Takes(bench.provider, bench.clock, 60.0, "start", "stop")
        slow = Takes(slow, bench.clock, 0.3 * tick_s, "list_vms")
        for number, levels in enumerate([((0, 300), (2, 100)), ((0, 100), (2, 300))]):
            bench.place(f"fleet-{number}", 3, running=3 - 2 * number)
            own = steady(*((each * tick_s, level) for each, level in levels))
            bench.add(policy(f"fleet-{number}", signal=TOTAL), own, provider=slow)
        await bench.run(4 * tick_s)
        starts = [action.intent.verb for action in bench.actions("fleet-1")]
        stops = [action.intent.verb for action in bench.actions("fleet-0")]
        assert (starts, stops) == ([Verb.START], [Verb.STOP])
        return at(bench)

    assert run_virtual(life) == pytest.approx([(0.3 + number) * tick_s for number in range(5)])


@virtual
async def test_what_happens_while_an_earlier_write_hangs_is_recorded_once_the_disk_is_back():
    bench = Bench(zones="a")
    bench.place("api", 4, running=1)
    bench.place("web", 9, running=2)
    bench.journal = Hung(bench.journal, bench.clock, 15, 47, "record_outcomes")
    # The write of 20 hangs. Meanwhile another call returns, at 34, and at 40 a VM is missing for the third time.
    slow = Takes(bench.provider, bench.clock, 14, "start")
    bench.add(policy("web", signal=TOTAL), steady((0, 200), (20, 300)), provider=Loses(bench, 1, from_s=15))
    bench.add(policy("api", signal=TOTAL), steady((0, 100), (20, 200)), provider=slow)
    await bench.run(70)
    assert [(at_s, kind) for at_s, kind, _ in bench.events()] == [(40, "vm_gone")]
    assert await bench.journal.recent_actions(math.inf) == ()
    assert bench.actions("api")[0].settled_at_s == ORIGIN_S + 34


@virtual
async def test_a_journal_that_does_not_answer_at_the_start_is_an_error_in_words():
    bench = Bench(vms=1)
    bench.journal = Hung(bench.journal, bench.clock, 0, 1e6, "recent_actions")
    bench.add(policy(), 100)
    with pytest.raises(JournalError, match="no answer from the journal within 60 s"):
        await bench.run(100)


@virtual
async def test_listing_reading_and_probing_share_four_fifths_of_a_tick():
    bench = Bench(vms=2, running=1)
    bench.place("api", 2, running=1)
    listings = BadListing(bench.provider, lambda _: hang())
    bench.add(policy("web"), Source(lambda _: hang()), provider=listings)
    bench.add(policy("api"), 100, probe=BadProbe(lambda _: hang()))
    await bench.run(40)
    # 5 s for listings and readings, then 3 s are left of 8 for the probes. What hung is not waited for again.
    assert at(bench) == [8, 10, 20, 30, 40]
    assert bench.daemon.ticks_skipped == 0


@pytest.mark.parametrize(("tick_s", "reading_s", "observing_s"), [(10, 5, 8), (1, 0.6, 0.8), (300, 5, 240)])
def test_bounds_follow_the_tick(tick_s, reading_s, observing_s):
    settings = LoopSettings(tick_s=tick_s)
    assert (settings.reading_s, settings.observing_s) == pytest.approx((reading_s, observing_s))


@virtual
async def test_a_failing_tick_tells_its_traceback_once_per_place_and_then_a_line():
    bench = Bench(vms=1)
    bench.records = Failing(bench.clock)
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(60)
    told = [
        (facts["text"], facts.get("exc_info"))
        for _, event, facts in bench.log.lines
        if event == "tick_failed"
    ]
    assert [text for text, _ in told] == [
        "ZeroDivisionError: at 0; nothing is done, please report",
        "ZeroDivisionError: at 10; nothing is done, 2 times so far",
        "ZeroDivisionError: at 20; nothing is done, 3 times so far",
        "KeyError: 'at 30'; nothing is done, please report",
        "KeyError: 'at 40'; nothing is done, 2 times so far",
    ]
    assert [type(error).__name__ for _, error in told] == [
        "ZeroDivisionError", "NoneType", "NoneType", "KeyError", "NoneType",
    ]  # fmt: skip
    assert bench.telemetry.registry.get_sample_value("autoscaler_ticks_failed_total") == 5


class Failing:
    """A list of records that fails in two places."""

    def __init__(self, clock):
        self.clock = clock

    def append(self, _):
        at_s = self.clock.monotonic()
        if at_s < 30:
            raise ZeroDivisionError(f"at {at_s:g}")
        if at_s < 50:
            raise KeyError(f"at {at_s:g}")


@virtual
async def test_the_daemon_ends_while_the_disk_hangs():
    bench = Bench(vms=1)
    bench.journal = Hung(
        bench.journal, bench.clock, 5, 1e6, "record_tick", "record_outcomes", "record_events"
    )
    bench.add(policy(signal=TOTAL), 100)
    await asyncio.wait_for(bench.run(22), 60)
    assert at(bench) == [0, 10, 20]
