"""The start path under any sequence of demand, bad days, hands from outside and crashes, step by step.

Hypothesis chooses the steps and looks for the shortest sequence that breaks a law: nothing beyond the ceiling, no stop of
a VM that is protected or has just come, no transient without end, no call beyond the budget; and once all is quiet, the
ledger is the cloud.
"""

import asyncio
from collections import Counter
from contextlib import suppress

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoscaler.clock import run_virtual, virtual_runner
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import State
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.vms.tracked import PROTECTED_TAG
from autoscaler.errors import ProviderError
from tests.daemon.builders import ORIGIN_S, Bench, policy
from tests.daemon.test_actuator_calls import budget
from tests.daemon.test_start_path_laws import MINIMUM_ON_S, Account, place, whole

TICK_S = 10
FLEETS = {"web": 10, "api": 5}
BAD_DAYS = (
    FaultKind.NO_CAPACITY,
    FaultKind.FALL_BACK,
    FaultKind.STUCK_PENDING,
    FaultKind.STUCK_STOPPING,
    FaultKind.UNREADY,
    FaultKind.THROTTLE,
    FaultKind.LOST_REPLY,
    FaultKind.LISTING_LAG,
)
CODES = {
    FaultKind.NO_CAPACITY: ["", "VcpuLimitExceeded", "InvalidParameterValue"],
    FaultKind.FALL_BACK: ["", "Client.InternalError", "Server.InternalError"],
}
QUIET_S = 2600
"""Longer than any transient, a quarantine, and a start after it."""


class StartPath(RuleBasedStateMachine):
    """An account with two fleets, a daemon that is killed now and then, and other programs and people."""

    @initialize(seed=st.integers(0, 2**31))
    def begin(self, seed):
        self.runner = virtual_runner()
        self.demand = dict.fromkeys(FLEETS, 0)
        self.hands = 0
        self.rested = False
        self.faulty_until_s = 0.0
        self.running = None
        self.runner.run(self._begin(seed))

    async def _begin(self, seed):
        self.bench = bench = Account((), seed)
        bench.records = _Told(bench.watch)
        self.ids = []
        for name, vms in FLEETS.items():
            self.ids += bench.place(name, vms)
            bounds = {"maximum": vms - 2}
            guards = {"minimum_on_time": f"{MINIMUM_ON_S:.0f}s"}
            bench.add(
                policy(name, signal={"kind": "total"}, bounds=bounds, guards=guards),
                lambda _, name=name: 100.0 * self.demand[name],
            )
        self._start_daemon()

    def _start_daemon(self):
        bench = self.bench
        bench.daemon = Daemon(
            bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
        )
        self.running = asyncio.ensure_future(bench.daemon.run())

    @property
    def second(self):
        return self.runner.run(self._second())

    async def _second(self):
        return self.bench.clock.now() - ORIGIN_S

    # ── steps ──────────────────────────────────────────────────────────────────────────────────────────

    @rule(ticks=st.integers(1, 12))
    def time_passes(self, ticks):
        self.runner.run(self._pass(ticks * TICK_S))

    async def _pass(self, seconds):
        clock = self.bench.clock
        await clock.sleep_until(clock.monotonic() + seconds)

    @rule(fleet=st.sampled_from(sorted(FLEETS)), vms=st.integers(0, 12))
    def demand_changes(self, fleet, vms):
        self.demand[fleet] = vms
        self.runner.run(self._pass(TICK_S))

    @rule(
        kind=st.sampled_from(BAD_DAYS),
        where=place,
        for_s=st.integers(10, 300),
        chance=st.sampled_from([0.3, 1.0]),
        delay_s=st.one_of(st.none(), st.integers(5, 200)),
        data=st.data(),
    )
    def a_bad_day_begins(self, kind, where, for_s, chance, delay_s, data):
        now_s = self.second
        more = {"probability": chance}
        if kind in CODES:
            more |= {"code": data.draw(st.sampled_from(CODES[kind])), **where}
        elif kind is FaultKind.LISTING_LAG:
            more = {"delay_s": min(delay_s or 10, 20)}
        elif kind in (FaultKind.STUCK_PENDING, FaultKind.STUCK_STOPPING, FaultKind.UNREADY):
            more |= {"delay_s": delay_s}
        fault = Fault(kind, start_s=now_s, end_s=now_s + for_s, **more)
        self.faulty_until_s = max(self.faulty_until_s, now_s + for_s)
        self.bench.world.add_fault(fault)

    @rule(
        number=st.integers(0, sum(FLEETS.values()) - 1), verb=st.sampled_from(["start", "stop", "terminate"])
    )
    def somebody_does_something(self, number, verb):
        self.runner.run(self._by_hand(verb, self.ids[number]))

    async def _by_hand(self, verb, vm_id):
        self.hands += 1
        world = self.bench.world
        act = self.bench.stop_by_hand if verb == "stop" else getattr(world, verb)
        with suppress(ProviderError):  # too late, or met by the same faults
            act(self.bench.clock.now(), [vm_id])

    @rule(number=st.integers(0, sum(FLEETS.values()) - 1), protected=st.booleans())
    def a_vm_is_protected(self, number, protected):
        self.runner.run(self._protect(self.ids[number], protected))

    async def _protect(self, vm_id, protected):
        world, now_s = self.bench.world, self.bench.clock.now()
        view = next((v for v in world.views(now_s) if v.id == vm_id), None)
        if protected and view is not None and view.state is not State.TERMINATED:
            with suppress(ProviderError):
                world.tag(now_s, [vm_id], {PROTECTED_TAG: "yes"})
                self.hands += 1
            # Seen by the next listing, which may lag.
            self.bench.protected_from[vm_id] = now_s + 3 * TICK_S + 20

    @rule()
    def the_daemon_is_killed_and_comes_back(self):
        self.runner.run(self._crash())

    async def _crash(self):
        self.running.cancel()
        await asyncio.wait({self.running})
        await self._pass(3)
        self._start_daemon()

    @precondition(lambda self: not self.rested)
    @rule()
    def all_is_quiet_for_long(self):
        """Once between other steps, and in the end: it takes as long as a hundred of those."""
        self.rested = True
        self.runner.run(self._calm())

    async def _calm(self):
        self.demand = dict.fromkeys(FLEETS, 2)
        wait_s = max(self.faulty_until_s - await self._second(), 0.0)
        await self._pass(wait_s + QUIET_S)
        whole(self.bench, self.bench.clock.now())

    # ── laws ───────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def no_law_is_broken(self):
        bench = getattr(self, "bench", None)
        if bench is None:
            return
        assert bench.wrong == []
        assert not self.running.done()
        assert [text for event in ("tick_failed", "act_failed") for text in bench.log.texts(event)] == []

    @invariant()
    def calls_stay_within_the_budget(self):
        """Calls are refused only during a throttling fault, or because another program used the same bucket."""
        bench = getattr(self, "bench", None)
        if bench is None or self.faulty_until_s > 0.0:
            return
        refused = sum(call.code == "RequestLimitExceeded" for call in bench.world.api.calls)
        assert refused <= self.hands

    def teardown(self):
        runner = getattr(self, "runner", None)
        if runner is None:
            return
        try:
            if self.running is not None and not self.running.done():
                self.runner.run(self._calm())
        finally:
            self.running.cancel()
            runner.close()


class _Told(list):
    """A list of records that passes each one to a watch, without keeping it."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def append(self, record):
        self.watch(record)


StartPath.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    # Sequences are short anyway, and shrinking would replay hours of virtual time hundreds of times.
    phases=[each for each in Phase if each is not Phase.shrink],
)
TestStartPath = StartPath.TestCase


# ── a batch with bad ones ───────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 40), st.data())
@settings(max_examples=25, deadline=None)
def test_every_good_vm_of_a_batch_is_started_exactly_once_within_the_bound(vms, data):
    """With the real loop and world; `test_actuator_calls` tests the same for the actuator alone."""

    async def main():
        bench = Bench(vms=vms, zones="a", limits=None)
        ids = sorted(bench.ids)
        bad = data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=vms))
        fault = Fault(FaultKind.NO_CAPACITY, vm_ids=tuple(bad), code="InvalidParameterValue")
        if bad:
            bench.world.add_fault(fault)
        taken = Counter()
        start = bench.world.start

        def noted(now_s, vm_ids):
            changes = start(now_s, vm_ids)
            taken.update(vm_ids)
            return changes

        bench.world.start = noted
        bench.add(policy(signal={"kind": "total"}, bounds={"maximum": vms}), 100 * vms)
        await bench.run(0)
        assert taken == Counter(set(ids) - set(bad))
        assert len(bench.calls("StartInstances")) <= budget(vms, len(bad))

    run_virtual(main)
