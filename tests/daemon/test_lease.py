"""Two daemons on one fleet: one acts, the other waits and takes over, whatever lags, fails or stops in between."""

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.world import World
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.lease import (
    LEASE_TAG,
    RENEW_S,
    RETRY_S,
    SETTLE_S,
    SKEW_S,
    UNSEEN_S,
    VALID_S,
    Lease,
    Mark,
)
from autoscaler.daemon.vms.leasing import Leasing
from autoscaler.ports import Outcome, OutcomeKind, VmState
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import SqliteJournal
from autoscaler.web.status import status
from tests.daemon.builders import EXACT, ORIGIN_S, Demand, Log, policy, steady, virtual, vm
from tests.daemon.test_loop_time import SetClock

TICK_S = 10.0


def marked(*texts):
    return [vm(f"i-{n}", tags={} if text is None else {LEASE_TAG: text}) for n, text in enumerate(texts)]


# ── one lease ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at_s", [0.0, ORIGIN_S])
def test_a_fleet_that_is_nobodys_is_claimed_and_acted_on_once_the_own_tag_is_seen(at_s):
    lease = Lease("a", "1")
    lease.see(marked(None, None, None), at_s, at_s)
    assert not lease.may_act(at_s)
    assert lease.due(at_s) == ("i-0", "i-1")
    mark = lease.mark(at_s)
    assert str(mark) == f"a 1 1 {at_s:.0f}"
    lease.wrote(at_s + 1.0, done=True)
    assert lease.due(at_s + 5.0) == ()
    lease.see(marked(str(mark), str(mark)), at_s + 10.0, at_s + 10.0)
    assert not lease.may_act(at_s + 10.0)
    lease.see(marked(str(mark), str(mark)), at_s + 20.0, at_s + 20.0)
    assert lease.may_act(at_s + 20.0)
    assert lease.due(at_s + RENEW_S - 1.0) == ()
    assert lease.due(at_s + RENEW_S) == ("i-0", "i-1")


def test_a_tag_that_could_not_be_written_is_due_again_soon():
    lease = Lease("a", "1")
    lease.see(marked(None), 0.0, 0.0)
    lease.mark(0.0)
    lease.wrote(5.0, done=False)
    assert lease.due(4.0 + RETRY_S) == ()
    assert lease.due(5.0 + RETRY_S) == ("i-0",)


def test_anothers_tag_holds_until_it_has_not_changed_for_as_long_as_it_is_valid():
    lease, other = Lease("b", "2"), Mark("a", "1", 7, 95.0)
    for at_s in (100.0, 100.0 + VALID_S - 1.0):
        lease.see(marked(str(other)), at_s, at_s)
        assert lease.held_by == "a"
        assert not lease.may_act(at_s)
        assert lease.due(at_s) == ()
    renewed = Mark("a", "1", 8, 95.0 + RENEW_S)
    at_s = 100.0 + VALID_S - 0.5
    lease.see(marked(str(renewed)), at_s, at_s)
    lease.see(marked(str(renewed)), at_s + VALID_S - 1.0, at_s + VALID_S - 1.0)
    assert lease.held_by == "a"
    lease.see(marked(str(renewed)), at_s + VALID_S, at_s + VALID_S)
    assert lease.held_by == ""
    # Free, and claimed like any other: the old tags are overwritten where they are.
    assert not lease.may_act(at_s + VALID_S)
    assert lease.due(at_s + VALID_S) == ("i-0",)


def test_a_restarted_daemon_goes_on_at_once_and_one_that_was_away_for_long_claims_anew():
    mark = str(Mark("a", "1", 3, 1000.0))
    soon, late = Lease("a", "2"), Lease("a", "3")
    soon.see(marked(mark), 1100.0, 1100.0)
    assert soon.may_act(1100.0)
    late.see(marked(mark), 1000.0 + VALID_S, 1000.0 + VALID_S)
    assert not late.may_act(1000.0 + VALID_S)
    assert late.due(1000.0 + VALID_S)


def test_a_clock_that_is_set_back_puts_off_neither_the_next_tag_nor_the_end_of_anothers():
    lease, other = Lease("a", "1"), Mark("b", "2", 7, 10_000.0)
    lease.see(marked(str(other)), 10_000.0, 10_000.0)
    for at_s in (1000.0, 999.0 + VALID_S):
        lease.see(marked(str(other)), at_s, at_s)
        assert lease.held_by == "b"
    lease.see(marked(str(other)), 1000.0 + VALID_S, 1000.0 + VALID_S)
    assert lease.held_by == ""
    # It is claimed, and the clock is set back again before the claim is seen.
    mark = str(lease.mark(1000.0 + VALID_S))
    lease.wrote(1001.0 + VALID_S, done=True)
    for at_s in (100.0, 100.0 + SETTLE_S):
        assert not lease.may_act(at_s)
        lease.see(marked(mark), at_s, at_s)
    assert lease.may_act(100.0 + SETTLE_S)
    assert lease.due(99.0 + RENEW_S) == ()
    assert lease.due(100.0 + RENEW_S) == ("i-0",)


def test_a_copy_of_the_state_directory_in_use_elsewhere_is_another_daemon():
    lease = Lease("a", "2")
    lease.see(marked(str(Mark("a", "1", 3, 1000.0))), 1100.0, 1100.0)
    assert lease.may_act(1100.0)
    lease.see(marked(str(Mark("a", "1", 4, 1150.0))), 1160.0, 1160.0)
    assert not lease.may_act(1160.0)
    assert lease.held_by == "a"


def test_a_tag_older_than_any_clock_may_be_wrong_by_holds_nobody():
    lease = Lease("b", "2")
    lease.see(marked(str(Mark("a", "1", 3, 0.0))), VALID_S + SKEW_S, VALID_S + SKEW_S)
    assert lease.held_by == ""


@pytest.mark.parametrize(
    "text", ["", "nonsense", "a b c d", "a 1 x 3", "a 1 2 nan", "a 1 2 inf", "a 1 2 3 4"]
)
def test_what_is_no_mark_holds_nobody(text):
    lease = Lease("b", "2")
    lease.see(marked(text), 0.0, 0.0)
    assert lease.held_by == ""


def test_a_tag_that_cannot_be_written_holds_for_a_while_and_then_nobody():
    lease = Lease("a", "1")
    for at_s in range(0, int(UNSEEN_S), 10):
        lease.see(marked(None), at_s, at_s)
        if lease.due(at_s):
            lease.mark(float(at_s))
            lease.wrote(float(at_s), done=False)
        assert not lease.may_act(at_s)
    assert lease.may_act(UNSEEN_S)
    # A fleet without VMs has nothing to write on.
    empty = Lease("a", "1")
    empty.see([vm("i-0", VmState.TERMINATED)], 0.0, 0.0)
    assert empty.may_act(0.0)
    assert empty.due(0.0) == ()


# ── two of them, in any weather ─────────────────────────────────────────────────────────────────────────


class Tags:
    """The tags of a fleet as listings show them: late by a bounded time, and never going back for the same daemon."""

    def __init__(self, lag_s):
        self.lag_s, self.writes = lag_s, [(-math.inf, None)]

    def write(self, at_s, text):
        self.writes.append((at_s, text))

    def shown(self, at_s):
        return [text for written_s, text in self.writes if written_s <= at_s - self.lag_s][-1]


@given(
    lag_s=st.sampled_from([0.0, 2.0, 8.0]),
    skew_s=st.sampled_from([-600.0, -5.0, 0.0, 5.0, 600.0]),
    later_s=st.integers(0, 400),
    away=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3600), st.integers(60, 1500)), max_size=3),
    lost=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20)), max_size=6),
)
def test_two_daemons_never_act_on_one_fleet_for_longer_than_listings_lag(lag_s, skew_s, later_s, away, lost):
    tags = Tags(lag_s)
    leases = {"a": Lease("a", "1"), "b": Lease("b", "2")}
    writes = Counter()
    acted = dict.fromkeys("ab", -math.inf)
    together = 0
    for step in range(1, 7200):
        now_s = float(step)
        for name, offset in (("a", 0), ("b", later_s % 10)):
            if (step - offset) % 10 or (name == "b" and step < later_s):
                continue
            if any(who == name and begin <= step < begin + long for who, begin, long in away):
                continue
            lease, clock_s = leases[name], now_s + (skew_s if name == "b" else 0.0)
            lease.see(marked(tags.shown(now_s), tags.shown(now_s)), clock_s, clock_s)
            if lease.due(clock_s):
                text = str(lease.mark(clock_s))
                writes[name] += 1
                failed = (name, writes[name]) in lost
                if not failed:
                    tags.write(now_s + 0.5, text)
                lease.wrote(clock_s + 0.5, done=not failed)
            if lease.may_act(clock_s):
                acted[name] = now_s
        both = now_s - min(acted.values()) < TICK_S
        together = together + 1 if both else 0
        assert together <= SETTLE_S + lag_s + 2 * TICK_S, now_s
    # At the end, one of the daemons acts, if any is running.
    assert 7200 - max(acted.values()) < 2 * VALID_S + UNSEEN_S or away


# ── two daemons ─────────────────────────────────────────────────────────────────────────────────────────


class Two:
    """Two daemons with their own journals on one world."""

    def __init__(self, demand, *, vms=20, faults=()):
        self.clock = VirtualClock(ORIGIN_S)
        self.world = World(start_s=ORIGIN_S, physics=EXACT, faults=faults, limits=None)
        place_fleet(self.world, ORIGIN_S, WorldFleet("web", vms))
        self.demand = demand
        self.logs, self.journals, self.tasks, self.daemons, self.providers = {}, {}, {}, {}, {}
        self.began = Counter()
        self.calls = []
        """(seconds since the origin, daemon, start or stop, VMs)"""

    def begin(self, name, *, leases=True, provider=None, own=(), clock=None, source=None, **adapters):
        self.began[name] += 1
        clock = clock or self.clock
        self.logs[name] = log = Log()
        self.journals.setdefault(name, SqliteJournal(":memory:", inline=True))
        provider = provider or _Named(MemoryProvider(self.world, self.clock), self, name)
        telemetry = Telemetry(log=log)
        leasing = Leasing(clock, name, f"run{self.began[name]}") if leases else None
        setup = FleetSetup(
            policy(signal={"kind": "total"}, bounds={"maximum": 20}, **dict(own)),
            provider,
            source or Demand(clock, self.demand, total=True),
            StatusCheckProbe(provider),
            **adapters,
        )
        daemon = Daemon(clock, [setup], self.journals[name], telemetry, LoopSettings(TICK_S), leasing=leasing)
        self.daemons[name], self.tasks[name] = daemon, asyncio.create_task(daemon.run())

    async def kill(self, name):
        self.tasks[name].cancel()
        await asyncio.wait({self.tasks[name]})

    async def run_until(self, second):
        await self.clock.sleep_until(second)

    def kinds(self, name):
        return [facts["kind"] for _, event, facts in self.logs[name].lines if event == "vm"]

    def ordered(self, name):
        return [made for made in self.calls if made[1] == name]


class _Named:
    """A provider that notes which daemon starts and stops VMs."""

    def __init__(self, inner, two, name):
        self._inner, self._two, self._name = inner, two, name
        self.answers_at_once = True

    def __getattr__(self, attribute):
        return getattr(self._inner, attribute)

    async def start(self, vm_ids):
        self._two.calls.append((self._two.clock.now() - ORIGIN_S, self._name, "start", len(vm_ids)))
        return await self._inner.start(vm_ids)

    async def stop(self, vm_ids, **more):
        self._two.calls.append((self._two.clock.now() - ORIGIN_S, self._name, "stop", len(vm_ids)))
        return await self._inner.stop(vm_ids, **more)


def seesaw(second):
    """Demand for five more VMs and five less, alternating every three minutes."""
    return 500.0 if second // 180 % 2 else 1000.0


@virtual
async def test_one_acts_the_other_says_so_and_takes_over_when_the_first_is_gone():
    two = Two(seesaw)
    two.begin("a")
    await two.run_until(60)
    two.begin("b")
    await two.run_until(900)
    assert {name for _, name, *_ in two.calls} == {"a"}
    assert two.kinds("b")[0] == "lease_of_another"
    shown = status(two.daemons["b"])["fleets"][0]
    assert shown["leased_to"] == "a"
    held = "held, since another daemon acts on the fleet (a): "
    assert any(held in text for text in two.logs["b"].texts("tick"))
    assert two.daemons["b"].unhealthy() == []
    # Tags: two VMs, one call every few minutes.
    tagged = [call for call in two.world.api.calls if call.action == "CreateTags"]
    assert len(tagged) == 1 + 900 // RENEW_S - 1
    await two.kill("a")
    await two.run_until(900 + VALID_S + RENEW_S + 60)
    taken = [at_s for at_s, name, *_ in two.calls if name == "b"]
    assert 900 + VALID_S - RENEW_S <= taken[0] <= 900 + VALID_S + SETTLE_S + 20
    assert "lease_free" in two.kinds("b")
    # The first comes back, and now waits for the second.
    before = len(two.ordered("a"))
    two.begin("a")
    await two.run_until(900 + 2 * VALID_S + 700)
    assert len(two.ordered("a")) == before
    assert len([call for call in two.ordered("b") if call[0] > 1600]) > 2
    for name in "ab":
        assert two.logs[name].texts("tick_failed") == []
        await two.kill(name)


# Between two ticks; while the tick of 400 waits for metrics.
@pytest.mark.parametrize("second", [396.0, 400.5])
@pytest.mark.parametrize("ahead_s", [600.0, 3600.0])
def test_one_that_waits_takes_nothing_over_since_its_clock_was_set_ahead(second, ahead_s):
    class SlowlyRead(Demand):
        async def read(self, vms):
            await self.clock.sleep_until(self.clock.monotonic() + 1.0)
            return await super().read(vms)

    async def main():
        two = Two(seesaw)
        two.begin("a")
        await two.run_until(60)
        clock = SetClock((second, ahead_s))
        two.begin(
            "b", clock=clock, source=SlowlyRead(clock, lambda _: seesaw(two.clock.monotonic()), total=True)
        )
        await two.run_until(1200)
        assert two.logs["b"].events().count("clock_set_ahead") == 1
        assert {name for _, name, *_ in two.calls} == {"a"}
        assert two.daemons["a"].fleets.all[0].leased_to == ""
        for name in "ab":
            await two.kill(name)

    run_virtual(main)


@pytest.mark.parametrize("late_s", [5.0, 12.0, 14.0])
def test_of_two_that_begin_at_the_same_moment_only_one_acts_though_the_others_tag_comes_late(late_s):
    async def main():
        two = Two(300)

        class WritesLate(_Named):
            async def tag(self, vm_ids, tags):
                await two.run_until(two.clock.monotonic() + late_s)
                return await self._inner.tag(vm_ids, tags)

        two.begin("a")
        two.begin("b", provider=WritesLate(MemoryProvider(two.world, two.clock), two, "b"))
        await two.run_until(200)
        assert {name for _, name, *_ in two.calls} == {"b"}
        assert two.daemons["a"].fleets.all[0].leased_to == "b"
        for name in "ab":
            await two.kill(name)

    run_virtual(main)


@virtual
async def test_a_restart_does_not_wait_and_a_daemon_without_leases_is_held_by_nobody():
    two = Two(steady((0, 300), (400, 900)))
    two.begin("a")
    await two.run_until(395)
    await two.kill("a")
    two.begin("a")
    await two.run_until(460)
    # Started again at 395: the demand of 400 is met in the first tick that sees it.
    after = [(at_s, what) for at_s, _, what, _ in two.calls if at_s >= 395]
    assert set(after) == {(400, "start")}
    assert sum(vms for at_s, *_, vms in two.calls if at_s >= 395) == 6
    two.begin("c", leases=False)
    await two.run_until(500)
    assert not two.daemons["c"].fleets.all[0].leased_to
    for name in "ac":
        await two.kill(name)


@virtual
async def test_tags_that_are_denied_are_told_once_and_hold_nobody():
    two = Two(300)

    class Denies(_Named):
        async def tag(self, vm_ids, tags):
            del tags
            return tuple(Outcome(i, OutcomeKind.DENIED, "UnauthorizedOperation", "no") for i in vm_ids)

    two.begin("a", provider=Denies(MemoryProvider(two.world, two.clock), two, "a"))
    await two.run_until(700)
    assert {(at_s, what) for at_s, _, what, _ in two.calls} == {(UNSEEN_S, "start")}
    assert sum(vms for *_, vms in two.calls) == 3
    assert two.kinds("a").count("lease_not_written") == 1
    await two.kill("a")


def unwritten_s(faults):
    """Longest time for which no tag may be writable."""
    return sum(fault.end_s - fault.start_s for fault in faults if fault.kind is FaultKind.THROTTLE)


weather = st.lists(
    st.one_of(
        st.builds(
            lambda begin, long, chance: Fault(
                FaultKind.THROTTLE, start_s=begin, end_s=begin + long, probability=chance
            ),
            # Not from the start: where neither of two new daemons can write for `UNSEEN_S`, both act, in doubt.
            st.integers(60, 2000),
            st.integers(30, 600),
            st.floats(0.2, 1.0),
        ),
        st.builds(
            lambda begin, long, lag: Fault(
                FaultKind.LISTING_LAG, start_s=begin, end_s=begin + long, delay_s=lag
            ),
            st.integers(0, 2000),
            st.integers(30, 600),
            st.integers(1, 10),
        ),
    ),
    max_size=3,
).filter(lambda faults: unwritten_s(faults) < VALID_S - RENEW_S - 2.0 * RETRY_S)
"""Where a tag cannot be renewed for longer, the other takes over from one that still acts, as it should; and where neither can
be written, both act, in doubt."""


@given(
    weather,
    st.integers(0, 300),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(100, 2000), st.integers(1, 900)), max_size=3),
)
@settings(max_examples=8, deadline=None)
def test_no_shortage_is_answered_twice_beyond_the_takeover(faults, later_s, killed):
    async def main():
        two = Two(seesaw, faults=faults)

        async def live(name, from_s):
            await two.run_until(from_s)
            two.begin(name)
            for who, at_s, for_s in sorted(killed, key=lambda each: each[1]):
                if who == name and at_s > two.clock.monotonic():
                    await two.run_until(at_s)
                    await two.kill(name)
                    await two.run_until(at_s + for_s)
                    two.begin(name)

        lives = [asyncio.create_task(live(*each)) for each in (("a", 0), ("b", later_s))]
        running = []
        for second in range(0, 3600, 10):
            await two.run_until(second + 5)
            views = two.world.views(two.clock.now())
            running.append(sum(view.state.value in ("pending", "running") for view in views))
        await asyncio.gather(*lives)
        for name in "ab":
            await two.kill(name)
            assert two.logs[name].texts("tick_failed") == []
        # Never more VMs on than the highest demand needs, and the daemons never both order for longer than it takes to notice.
        assert max(running) <= 10
        by_tick = {}
        for at_s, name, *_ in two.calls:
            by_tick.setdefault(int(at_s // TICK_S), set()).add(name)
        last = {}
        swaps = []
        for tick, names in sorted(by_tick.items()):
            for name in names:
                other = "b" if name == "a" else "a"
                if other in last and tick - last[other] < (VALID_S - RENEW_S) / TICK_S:
                    swaps.append((tick, name))
                last[name] = tick
        assert swaps == []

    run_virtual(main)
