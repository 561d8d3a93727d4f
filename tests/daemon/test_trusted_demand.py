"""What the daemon makes of readings that are repeated, have wrong times, or are missing."""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.types import Freshness, Reason, Stage
from autoscaler.daemon.observing import newest_of_each
from autoscaler.ports import FleetReadings
from tests.daemon.builders import Bench, policy, steady, virtual


def readings(*rows):
    ids, values, observed_at_s = zip(*rows, strict=True)
    return FleetReadings(tuple(ids), np.array(values), np.array(observed_at_s))


def test_of_readings_of_one_vm_the_newest_number_counts():
    got = newest_of_each(
        readings(
            ("a", 1.0, 10.0), ("b", 2.0, 10.0), ("a", 3.0, 20.0), ("b", math.nan, 30.0), ("a", 9.0, 20.0)
        )
    )
    assert got.vm_ids == ("b", "a")
    assert got.values.tolist() == [2.0, 3.0]
    once = readings(("a", 1.0, 10.0), ("b", 2.0, 10.0))
    assert newest_of_each(once) is once


class Twice:
    """A source that delivers every reading twice; the clock of one VM may be ahead."""

    def __init__(self, clock, per_vm, ahead_s=0.0):
        self.clock, self.per_vm, self.ahead_s = clock, per_vm, ahead_s

    async def read(self, vms):
        ids = tuple(vm.id for vm in vms)
        now_s = self.clock.now()
        stamps = np.full(len(ids), now_s)
        stamps[:1] += self.ahead_s
        return FleetReadings(
            ids * 2,
            np.full(2 * len(ids), self.per_vm),
            np.concatenate([stamps, stamps - 10.0]),
            received_at_s=np.full(2 * len(ids), now_s),
        )

    async def close(self):
        pass


@virtual
async def test_a_vm_that_is_delivered_twice_counts_once():
    bench = Bench(vms=4, running=4)
    bench.add(policy(), Twice(bench.clock, 100.0))
    await bench.run(60)
    assert bench.column("demand")[1:] == [400.0] * 6
    assert bench.column("coverage")[1:] == [1.0] * 6


@virtual
async def test_a_vm_whose_clock_is_ahead_counts_as_silent():
    bench = Bench(vms=0, running=4)
    bench.add(policy(guards={"minimum_coverage": "100%"}), Twice(bench.clock, 50.0, ahead_s=3600.0))
    await bench.run(120)
    row = bench.rows()[-1]
    # The three others are used for it, and three of four are too few to scale in.
    assert (row.demand, row.coverage, row.in_service) == (200.0, 0.75, 4)
    assert row.reasons[Stage.DATA] == Reason.LOW_COVERAGE


def blind_policy(**signal):
    return policy(
        signal={"loss_hold": "60s"} | signal,
        guards={"stabilisation": "0s", "cooldown_in": "150s"},
    )


@virtual
async def test_a_blind_fleet_comes_back_to_its_last_good_wish_and_no_lower():
    """Demand falls, the cooldown still holds the VMs, and then there are no readings for ten minutes."""
    bench = Bench(vms=10)
    demand = steady((0, 800.0), (100, 300.0), (120, math.nan), (720, 300.0))
    bench.add(blind_policy(kind="total"), demand)
    await bench.run(900)
    rows = bench.rows()
    blind = [row for row in rows if row.freshness != Freshness.FRESH]
    assert len(blind) == 60
    assert {row.in_service for row in blind[:6]} == {8}
    assert {row.in_service for row in blind[10:]} == {3}
    assert all(row.desired >= 3 for row in blind)
    assert blind[20].reasons[Stage.DATA] == Reason.DATA_FALLBACK
    assert "largest of the last good wish" in blind[20].sentence


@virtual
async def test_vms_that_all_report_nothing_at_once_are_not_stopped_for_a_while():
    bench = Bench(vms=6, running=6)
    bench.add(policy(signal={"zero_hold": "120s"}), steady((0, 600.0), (60, 0.0)))
    await bench.run(300)
    stops = [at_s for at_s, action, _, _ in bench.calls("StopInstances")]
    assert min(stops) == 180.0
    held = bench.rows()[10]
    assert held.reasons[Stage.DATA] == Reason.DEMAND_VANISHED


class Backlog:
    """A queue in the world: arriving work waits until the VMs in service have done it."""

    def __init__(self, bench, arrives):
        self.bench, self.arrives, self.waiting, self.at_s = bench, arrives, 0.0, None
        self.longest = 0.0

    async def read(self, vms):
        now_s = self.bench.clock.now()
        passed_s = 0.0 if self.at_s is None else now_s - self.at_s
        self.at_s = now_s
        serving = sum(t.phase == "in_service" for t in self.bench.daemon.fleets.all[0].inventory.vms.values())
        arrives = self.arrives(now_s - self.bench.began_s)
        self.waiting = max(self.waiting + passed_s * (arrives - 100.0 * serving), 0.0)
        self.longest = max(self.longest, self.waiting)
        return FleetReadings(("",), np.array([self.waiting]), np.array([now_s]))

    async def close(self):
        pass


@virtual
async def test_a_fleet_works_off_its_queue_comes_up_from_zero_and_goes_back_to_it():
    bench = Bench(vms=20)
    bench.began_s = bench.clock.now()
    queue = Backlog(bench, steady((0, 0.0), (300, 600.0), (1500, 0.0)))
    bench.add(policy(signal={"kind": "queue", "drain_time": "120s"}), queue)
    await bench.run(2 * 3600)
    rows = bench.rows()
    assert {row.in_service for row in rows[:30]} == {0}
    # Six VMs do what arrives; a start takes two ticks, and the backlog from that time is worked off.
    assert 6 <= max(row.in_service for row in rows) <= 14
    assert queue.longest < 600.0 * 90.0
    assert queue.waiting == 0.0
    assert rows[-1].in_service == 0
    served_s = sum(10.0 for row in rows[40:150] if row.demand > 0.0)
    assert served_s == 1100.0
