"""What is learned from starts: measured part by part, kept over restarts, and used for planning if the policy says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoscaler.core.learned.lead_time import ENOUGH, LeadTimes, Span, StartSource
from autoscaler.daemon.learned.benefit import pool_benefit
from autoscaler.daemon.learned.learned_state_store import KEEP_EVERY_S
from autoscaler.daemon.learned.learning import START_TIMES, Learning
from autoscaler.daemon.vms.metering import Prices
from autoscaler.daemon.vms.start_times import MeasuredStart
from autoscaler.ports import FleetReadings, Learned
from autoscaler.web.status import status
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual

WEB_API = ("web", "api")


def start(whole_s, source=StartSource.STOPPED, ready_s=5.0):
    return MeasuredStart(source, float("nan"), float("nan"), ready_s, whole_s)


def taught(count=30, whole_s=70.0, fleets=WEB_API):
    learning = Learning(fleets)
    learning.started({"web": [start(whole_s)] * count}, 0.0)
    return learning


def test_starts_of_many_fleets_are_learned_in_one_call_to_the_bit_as_one_after_the_other():
    class Counted:
        def __init__(self, lead_times):
            self.times, self._take, self.calls = lead_times.times, lead_times.take, []

        def take(self, lane, source, seconds):
            self.calls.append(lane.tolist())
            self._take(lane, source, seconds)

    together, apart = Learning(WEB_API), Learning(WEB_API)
    counted = together.lead_times = Counted(together.lead_times)
    for seconds in (20.0, 35.0, 90.0):
        came = {
            "web": [start(seconds), start(2.0 * seconds)],
            "api": [start(3.0 * seconds, StartSource.FRESH)],
        }
        together.started(came, 0.0)
        for fleet, own in came.items():
            apart.started({fleet: own}, 0.0)
    together.started({"web": []}, 0.0)
    assert counted.calls == [[0, 0, 1]] * 3
    assert np.array_equal(counted.times.weight, apart.lead_times.times.weight)


def asking(fleet="web", **vm):
    return policy(fleet, vm={"start_time": "40s", "learn_start_time": True} | vm)


def test_only_policies_that_ask_for_it_are_planned_with_what_was_learned():
    learning = taught()
    plain = policy()
    web, api = learning.planned([asking(), asking("api")])
    assert web.vm.start_time_s == pytest.approx(70.0, rel=0.11)
    assert api.vm.start_time_s == 40.0
    assert learning.planned([plain, plain])[0] is plain


def test_it_is_applied_at_most_once_an_hour_also_by_a_clock_that_was_set_back():
    learning = taught()
    assert [learning.is_due(at_s) for at_s in (0.0, 10.0, 3599.0, 3600.0, 3700.0)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert learning.is_due(-4000.0)


def test_what_was_kept_is_taken_up_by_other_lanes():
    learning = taught()
    (kept,) = learning.to_keep()
    assert (kept.fleet, kept.name) == ("web", START_TIMES)
    learning.kept()
    assert learning.to_keep() == ()
    other = Learning(("db", "web"))
    assert other.take_up((kept, Learned("gone", START_TIMES, 1, b""), Learned("db", "weather", 1, b""))) == []
    np.testing.assert_array_equal(other.lead_times.of_lane(1), learning.lead_times.of_lane(0))
    assert other.lead_times.evidence(Span.WHOLE, StartSource.STOPPED)[0] == 0.0


@pytest.mark.parametrize(
    "row",
    [
        Learned("web", START_TIMES, LeadTimes.version + 1, b""),
        Learned("web", START_TIMES, LeadTimes.version, b"no zlib"),
        Learned("web", START_TIMES, LeadTimes.version, taught().to_keep()[0].body[:-4]),
    ],
    ids=["newer", "damaged", "cut"],
)
def test_what_cannot_be_read_is_said_and_learned_anew(row):
    learning = Learning(("web",))
    (text,) = learning.take_up((row,))
    assert text == "what was learned of the start_times of web cannot be read and is learned again"
    assert learning.lead_times.evidence(Span.WHOLE, StartSource.STOPPED)[0] == 0.0


@virtual
async def test_a_start_is_measured_part_by_part():
    """It runs after 16 s and is ready after 19 s, as far as listings every ten seconds show."""
    bench = Bench(vms=1)
    bench.add(policy(signal={"kind": "total"}), 100.0)
    await bench.run(60)
    times = bench.daemon.fleets.learning.lead_times
    found = [times.quantile(0.5, span, StartSource.STOPPED)[0] for span in Span]
    # Pending between 0 and 10 s, running between 10 and 20 s, in service at 20 s.
    assert found == pytest.approx([5.0, 10.0, 5.0, 20.0], rel=0.11)
    assert np.isnan(times.quantile(0.5, Span.WHOLE, StartSource.FRESH)[0])


def swinging(second):
    """Demand for one more VM and one less, alternating every two minutes."""
    return 200.0 if int(second) // 120 % 2 else 100.0


@virtual
async def test_a_daemon_plans_with_what_it_learned_and_a_restarted_one_at_once():
    bench = Bench(vms=3, running=1)
    bench.add(policy(signal={"kind": "total"}, vm={"start_time": "90s", "learn_start_time": True}), swinging)
    await bench.run(2.6 * 3600)
    fleets = bench.daemon.fleets
    assert fleets.learning.lead_times.evidence(Span.WHOLE, StartSource.STOPPED)[0] > ENOUGH
    # Half of the guess is the least.
    assert fleets.planned[0].vm.start_time_s == 45.0
    assert fleets.all[0].policy.vm.start_time_s == 90.0
    (told,) = [text for _, kind, text in bench.events() if kind == "planned_anew"]
    assert told == "planned with from now on: a start takes 45 s (90 s before)"
    assert fleets._compiled.series.lead_ticks.tolist() == [5]
    labels = {"fleet": "web", "source": "stopped"}
    shown = bench.telemetry.registry.get_sample_value("autoscaler_learned_start_seconds", labels)
    assert shown == pytest.approx(20.0, rel=0.11)
    before = fleets.learning.lead_times.of_lane(0)
    await bench.run(20)
    assert bench.daemon.fleets is not fleets
    assert bench.daemon.fleets.planned[0].vm.start_time_s == 45.0
    np.testing.assert_array_equal(bench.daemon.fleets.learning.lead_times.of_lane(0), before)


@virtual
async def test_what_was_learned_is_kept_every_ten_minutes_and_changes_nothing_unasked():
    bench = Bench(vms=3, running=1)
    bench.add(policy(signal={"kind": "total"}), swinging)
    writes = []
    record = bench.journal.record_learned

    async def record_learned(at_s, learned):
        writes.append((at_s - bench.world_start_s, len(learned)))
        await record(at_s, learned)

    bench.world_start_s = bench.clock.now()
    bench.journal.record_learned = record_learned
    await bench.run(1500)
    assert writes == [(KEEP_EVERY_S, 1), (2 * KEEP_EVERY_S, 1), (1500.5, 1)]
    assert bench.daemon.fleets.planned == [bench.daemon.fleets.all[0].policy]


def test_the_rate_of_starts_from_the_pool_needs_an_hour_and_looks_back_a_day():
    learning = Learning(WEB_API)
    fresh = start(90.0, StartSource.FRESH)
    for hour in range(48):
        learning.started({"web": [start(20.0), start(20.0), fresh]}, 3600.0 * hour + 60.0)
    assert learning.pool_starts_per_h("web", 0.0, 3599.0) is None
    assert learning.pool_starts_per_h("web", 0.0, 48 * 3600.0) == 2.0
    assert learning.pool_starts_per_h("api", 0.0, 48 * 3600.0) == 0.0
    assert learning.carried_over(("web",)).pool_starts_per_h("web", 0.0, 48 * 3600.0) == 2.0


def test_the_worth_of_the_pool_is_what_was_measured():
    learning = Learning(("web",))
    prices = Prices(in_service_per_h=3.6, stopped_per_h=0.01, start=0.0, provision=0.02)
    none = pool_benefit(learning.lead_times, 0, prices, 12, None)
    assert none.sentence() == "its worth is not known: no start from the warm pool has been measured"
    learning.started({"web": [start(25.0, ready_s=5.0)] * 50}, 0.0)
    half = pool_benefit(learning.lead_times, 0, prices, 12, None)
    assert (half.saved_s, half.saved_money) == (None, None)
    assert half.sentence() == "its worth is not known: no VM made from nothing has been measured"
    learning.started({"web": [start(120.0, StartSource.FRESH, ready_s=80.0)] * 50}, 0.0)
    known = pool_benefit(learning.lead_times, 0, prices, 12, 2.0)
    assert known.saved_s == pytest.approx(95.0, rel=0.15)
    # 75 s of a VM at 0.001 a second, and the price of making one.
    assert known.saved_money == pytest.approx(0.095, rel=0.15)
    assert known.pool_per_h == pytest.approx(0.12)
    assert known.sentence().endswith("cheaper; it costs 0.12/h and gives 2 starts/h")


# ── capacity ────────────────────────────────────────────────────────────────────────────────────────────


class Busy:
    """Demand that is shared evenly by VMs with this capacity, together with their utilisation."""

    def __init__(self, clock, demand, capacity):
        self.clock, self.demand, self.capacity = clock, demand, capacity
        self.rng = np.random.default_rng(1)

    async def read(self, vms):
        now_s = self.clock.now()
        share = self.demand(now_s - ORIGIN_S) / len(vms) * np.exp(0.1 * self.rng.standard_normal(len(vms)))
        done = np.minimum(share, self.capacity)
        stamps = np.full(len(vms), now_s)
        return FleetReadings(
            tuple(vm.id for vm in vms), done, stamps, utilisation=np.minimum(share / self.capacity, 1.0)
        )

    async def close(self):
        pass


def waving(second):
    """Demand that varies between 300 and 900/s over two hours."""
    return 600.0 + 300.0 * math.sin(second / 7200.0 * 2.0 * math.pi)


LEARNS = {"vm": {"capacity": "100/s", "learn_capacity": {"most_per_day": "30%"}}}


@virtual
async def test_a_capacity_is_learned_in_bounded_steps_kept_and_planned_with():
    """Each VM can do 140/s although the policy says 100/s."""
    bench = Bench(vms=10, running=4, tick_s=60.0)
    bench.add(policy(signal={"max_age": "120s"}, **LEARNS), Busy(bench.clock, waving, 140.0))
    await bench.run(12 * 3600)
    fleets = bench.daemon.fleets
    # After each of twelve hours a step of at most the hour's share of the day's 30 %.
    half_a_day = 100.0 * 1.3 ** (12 / 24)
    assert fleets.all[0].capacity_per_s == pytest.approx(half_a_day, rel=0.005)
    shown = status(bench.daemon)["fleets"][0]["learned"]["capacity"]
    assert shown["learned_per_s"] == pytest.approx(140.0, rel=0.05)
    assert shown["planned_per_s"] == fleets.all[0].capacity_per_s
    assert fleets.all[0].policy.vm.capacity_per_s == 100.0
    told = [text for _, kind, text in bench.events() if kind == "planned_anew"]
    assert [text[:37] for text in told] == ["planned with from now on: a VM does 1"] * 2
    row = bench.rows()[-1]
    assert row.capacity == pytest.approx(row.in_service * half_a_day, rel=0.005)
    # A restarted daemon continues from there.
    await bench.run(60)
    assert bench.daemon.fleets.all[0].capacity_per_s == pytest.approx(half_a_day, rel=0.005)
    assert bench.daemon.fleets._compiled.lanes.vm_capacity[0] == bench.daemon.fleets.all[0].capacity_per_s


@virtual
async def test_a_learned_capacity_is_shown_and_not_used_unasked():
    bench = Bench(vms=10, running=4, tick_s=60.0)
    bench.add(policy(signal={"max_age": "120s"}), Busy(bench.clock, waving, 140.0))
    await bench.run(3 * 3600)
    shown = status(bench.daemon)["fleets"][0]["learned"]["capacity"]
    assert shown["learned_per_s"] == pytest.approx(140.0, rel=0.05)
    assert shown["planned_per_s"] == 100.0
    assert {row.capacity / max(row.in_service, 1) for row in bench.rows()} == {100.0}
