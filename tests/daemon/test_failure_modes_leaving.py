"""Failure modes of stops and identity: stopped with work left, commanded by two daemons, asked at an old address."""

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.clock import run_virtual
from autoscaler.cloud.vms import State
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.ports import FleetReadings, OutcomeKind, VmState
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from tests.control.builders import START, STOP, Commands, asked
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy, steady, virtual

TOTAL = {"kind": "total"}
BALANCER = {"haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"}}


# ── 3: measurements that are lost at the peak ───────────────────────────────────────────────────────────


def _holes(second):
    """The readings of a source in trouble, for VMs `ids`, by name of the trouble."""
    return {
        "nobody answers": lambda ids, now_s: FleetReadings((), np.empty(0), np.empty(0), "nobody answers"),
        "not a number": lambda ids, now_s: _of(ids, math.nan, now_s),
        "negative": lambda ids, now_s: _of(ids, -1.0, now_s),
        "infinite": lambda ids, now_s: _of(ids, math.inf, now_s),
        "zero from one VM, nothing from the others": lambda ids, now_s: _of(ids[:1], 0.0, now_s),
        "zero, an hour old": lambda ids, now_s: _of(ids, 0.0, now_s - 3600.0),
        "zero, of the future": lambda ids, now_s: _of(ids, 0.0, now_s + 3600.0),
        "zero, frozen before the trouble": lambda ids, now_s: _of(ids, 0.0, now_s - second),
    }


class Troubled:
    """Demand of 600/s over the VMs in service, except for five minutes whose readings come from `hole`."""

    def __init__(self, clock, name):
        self.clock, self.name = clock, name

    async def read(self, vms):
        now_s = self.clock.now()
        second, ids = now_s - ORIGIN_S, tuple(vm.id for vm in vms)
        if 100 < second <= 400:
            return _holes(second - 50)[self.name](ids, now_s)
        return _of(ids, 600.0 / max(len(ids), 1), now_s)

    async def close(self):
        pass


def _of(ids, value, at_s):
    return FleetReadings(tuple(ids), np.full(len(ids), value), np.full(len(ids), at_s))


@pytest.mark.parametrize("name", _holes(0))
def test_whatever_is_heard_instead_of_the_peak_no_vm_is_stopped(name):
    @virtual
    async def run():
        bench = Bench(vms=4, running=6, zones="a")
        bench.add(policy(guards={"minimum_coverage": "80%"}), Troubled(bench.clock, name))
        await bench.run(500)
        assert bench.calls("StopInstances") == []
        assert min(bench.column("in_service")) == 6
        # The trouble had an effect: the true demand was not known.
        assert any(row.demand != 600.0 for row in bench.rows()[11:40])
        assert bench.rows()[-1].demand == pytest.approx(600.0)

    run()


# ── 4: work that comes between the look and the stop ────────────────────────────────────────────────────


class Sessions(SimulatedBalancer):
    """VMs with long work: when a VM is cordoned, its work ends after a random time, with idle moments before that."""

    def __init__(self, clock, lasting_s):
        super().__init__(clock)
        # (moment of idleness, end) after the cordon, given to VMs in the order of their cordons.
        self.lasting_s = lasting_s
        self.order: list[str] = []

    def ends_s(self, vm_id):
        return self._cordoned_at_s[vm_id] + self._times(vm_id)[1]

    def _times(self, vm_id):
        if vm_id not in self.order:
            self.order.append(vm_id)
        return self.lasting_s[self.order.index(vm_id) % len(self.lasting_s)]

    def _member(self, vm, now_s):
        member = super()._member(vm, now_s)
        since_s = self._cordoned_at_s.get(vm.id)
        if since_s is None:
            return member
        idle_at_s, end_s = self._times(vm.id)
        after_s = now_s - since_s
        idle = after_s >= end_s or abs(after_s - idle_at_s) < 5.0
        return replace(member, sessions=0 if idle else 2)


lasting = st.integers(0, 240).flatmap(lambda end: st.tuples(st.integers(0, max(end - 20, 0)), st.just(end)))


@given(st.lists(lasting, min_size=1, max_size=5), st.lists(st.integers(1, 6), min_size=2, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_vm_is_stopped_with_work_that_came_before_its_cordon(lasting_s, demand):
    async def run():
        bench = Bench(running=6, zones="a", limits=None)
        balancer = Sessions(bench.clock, lasting_s)
        stop, wrong = bench.world.stop, []

        def watched(now_s, vm_ids, **options):
            for vm_id in vm_ids:
                if vm_id not in balancer.cordoned:
                    wrong.append(f"{vm_id} was not cordoned")
                # An idle moment can be mistaken for the end once, but not twice.
                elif now_s < balancer.ends_s(vm_id):
                    wrong.append(f"{vm_id} has work until {balancer.ends_s(vm_id) - ORIGIN_S:.0f}")
            return stop(now_s, vm_ids, **options)

        bench.world.stop = watched
        own = policy(signal=TOTAL, balancer=BALANCER, drain={"timeout": "1h"})

        def wanted(s):
            # At the end, demand is low for long, so that VMs that were brought back leave again.
            return 100.0 * (demand[int(s // 120) % len(demand)] if s < 600 else 1)

        source = Demand(bench.clock, wanted, total=True)
        bench.setups = [FleetSetup(own, bench.provider, source, StatusCheckProbe(bench.provider), balancer)]
        await bench.run(1200)
        assert wrong == []
        failures = ("tick_failed", "act_failed", "balancer_failed")
        assert [text for event in failures for text in bench.log.texts(event)] == []
        # They are stopped eventually, because work lasts at most 240 s.
        assert bench.calls("StopInstances")

    run_virtual(run)


# ── 23: another address after each start ────────────────────────────────────────────────────────────────


class Moving(MemoryProvider):
    """A cloud in which a VM has another private address after each start."""

    def __init__(self, world, clock, late):
        super().__init__(world, clock)
        self.addresses = {}
        self.late = late
        """Whether the address is known only once the VM runs, as if the network assigned it."""

    async def start(self, vm_ids):
        outcomes = await super().start(vm_ids)
        for number, outcome in enumerate(outcomes):
            if outcome.kind is OutcomeKind.ACCEPTED:
                self.addresses[outcome.vm_id] = f"10.9.{len(self.addresses)}.{number}"
        return outcomes

    async def list_vms(self):
        found = await super().list_vms()
        return replace(found, vms=tuple(replace(vm, address=self._address(vm)) for vm in found.vms))

    def _address(self, vm):
        if vm.id in self.addresses and self.late and vm.state is not VmState.RUNNING:
            return None
        return self.addresses.get(vm.id, vm.address)


class Seen:
    """Records when each VM was passed to a port, and with which address."""

    def __init__(self, clock):
        self.clock = clock
        self.rows: list[tuple[float, str, str]] = []

    def note(self, vms):
        self.rows += [(self.clock.now() - ORIGIN_S, vm.id, vm.address) for vm in vms]


@pytest.mark.parametrize("late", [False, True])
def test_after_a_start_probe_balancer_and_source_are_given_the_new_address_before_the_vm_serves(late):
    run_virtual(lambda: _started_elsewhere(late))


async def _started_elsewhere(late):
    bench = Bench(vms=1, running=1, zones="a")
    bench.provider = Moving(bench.world, bench.clock, late)
    mine = bench.ids[1]
    (old,) = [vm.address for vm in (await bench.provider.list_vms()).vms if vm.id == mine]
    probe, admitted, read = Seen(bench.clock), Seen(bench.clock), Seen(bench.clock)

    class Probe(StatusCheckProbe):
        async def ready(self, vms):
            probe.note(vms)
            return await super().ready(vms)

    class Balancer(SimulatedBalancer):
        async def admit(self, vms):
            admitted.note(vms)
            return await super().admit(vms)

    class Source(Demand):
        async def read(self, vms):
            read.note(vms)
            return await super().read(vms)

    source = Source(bench.clock, steady((0, 100), (20, 200)))
    bench.setups = [
        FleetSetup(
            policy(balancer=BALANCER), bench.provider, source, Probe(bench.provider), Balancer(bench.clock)
        )
    ]
    await bench.run(100)
    new = bench.provider.addresses[mine]
    assert new != old
    serving_from_s = next(10 * n for n, vms in enumerate(bench.column("in_service")) if vms == 2)
    for seen in (probe, admitted, read):
        given_s = [at for at, vm_id, _ in seen.rows if vm_id == mine]
        assert given_s
        assert {address for at, vm_id, address in seen.rows if vm_id == mine and at > 20} == {new}
    assert (
        min(at for at, vm_id, address in admitted.rows if vm_id == mine and address == new) <= serving_from_s
    )


# ── 28: two daemons, and pauses ─────────────────────────────────────────────────────────────────────────


def _second(bench):
    """A second daemon on the same cloud, with a journal of its own, as on another machine."""
    other = Bench(vms=0, clock=bench.clock)
    other.world, other.provider = bench.world, MemoryProvider(bench.world, bench.clock)
    return other


@pytest.mark.parametrize("provisions", [False, True])
def test_two_daemons_that_see_the_same_choose_the_same_vms_and_make_none_twice(provisions):
    @virtual
    async def run():
        bench = Bench(vms=2 if provisions else 8, zones="ab", limits=None)
        changes = {"provision": {"launch_template": "web", "maximum": 8}} if provisions else {}
        needed = [1 + (tick // 9) % 6 for tick in range(361)]
        others = [bench, _second(bench)]
        for each in others:
            each.add(policy(signal=TOTAL, **changes), lambda s: 100.0 * needed[int(s // 10)])
        too_many = []

        def look(record):
            tick = round((record.at_s - ORIGIN_S) / 10)
            views = bench.world.views(bench.clock.now())
            on = sum(view.state in (State.PENDING, State.RUNNING) for view in views)
            if on > max(needed[max(tick - 4, 0) : tick + 1]):
                too_many.append((10 * tick, on, needed[tick]))

        bench.records = _Each(look)
        await asyncio.gather(*(each.run(3600) for each in others))
        assert too_many == []
        assert [each.log.texts("tick_failed") for each in others] == [[], []]
        assert len(bench.world.views(bench.clock.now())) == (6 if provisions else 8)

    run()


class _Each(list):
    """A list of records that passes each one to a function."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def append(self, record):
        super().append(record)
        self.look(record)


@virtual
async def test_a_pause_holds_from_the_next_tick_on():
    bench = Bench(vms=9, zones="a", limits=None)
    bench.add(policy(signal=TOTAL), lambda s: 100.0 * (1 + (s // 10) % 7))
    Commands(bench).at(203, "pause", asked(reason="x", until_s=403), (*START, *STOP))
    await bench.run(600)
    acted = [at for at, *_ in bench.changes()]
    assert any(at < 203 for at in acted)
    assert [at for at in acted if 203 < at < 403] == []
    assert any(at > 403 for at in acted)
