"""A clock that is set back: what was learned over weeks stays, and VMs that are left alone stay so."""

import math
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.clock_back import RESTS_S
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.ports import Verb
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import ORIGIN_S, Bench, Demand, OwnTime, policy, steady
from tests.daemon.test_loop_time import SetClock

OBJECTIVE = {
    "signal": {"kind": "total"},
    "objective": {"shortage_price": "36000/h"},
    "reactive": None,
}


class DatedByUs(Demand):
    """Demand on true time, dated by the daemon's clock."""

    def __init__(self, truth, ours, demand):
        super().__init__(truth, demand, total=True)
        self.ours = ours

    async def read(self, vms):
        found = await super().read(vms)
        return replace(found, observed_at_s=np.full(len(found.vm_ids), self.ours.now()))


def bench_with(offsets, own, demand, *, running, vms):
    truth = VirtualClock(ORIGIN_S)
    bench = Bench(running=running, vms=vms, zones="a", clock=SetClock(*offsets), limits=None)
    bench.provider._clock = truth
    provider = OwnTime(bench.provider, bench.clock)
    source = DatedByUs(truth, bench.clock, demand)
    bench.setups = [FleetSetup(own, provider, source, StatusCheckProbe(provider))]
    return bench


def lived(back_s, at_s=1805, until_s=1860):
    """What a fleet with an objective remembers around the set-back: (ticks its models were charged for, warm target) by tick."""
    seen = []

    async def main():
        demand = lambda second: 600.0 + 400.0 * math.sin(second / 200.0)  # noqa: E731
        # The clock is ahead at first, so that it is right after the set-back.
        bench = bench_with([(0, back_s), (at_s, 0)], policy(**OBJECTIVE), demand, running=6, vms=14)

        def note(record):
            trial = bench.daemon.fleets.states()["lanes"].trial
            seen.append((float(trial.ticks[0]), record.fleets[0].warm_target))

        class Noted(list):
            def append(self, record):
                note(record)

        bench.records = Noted()
        await bench.run(until_s)
        assert bench.log.events().count("clock_set_back") == 1
        assert bench.log.texts("tick_failed") == []

    run_virtual(main)
    return seen


def test_what_an_objective_has_learned_rests_until_the_clock_is_as_late_again():
    seen = lived(60)
    before, after = seen[180], seen[181]
    assert before[0] > 170
    assert after[0] == before[0]
    assert after[1] >= before[1] - 1 > 0
    later = lived(60, until_s=1960)
    assert later[-1][0] == pytest.approx(before[0] + 9, abs=6)
    assert later[-1][0] > before[0]


def test_after_a_long_way_back_it_begins_anew_rather_than_rest_for_days():
    seen = lived(RESTS_S + 600)
    assert seen[180][0] > 170
    assert seen[181][0] == 0


@pytest.mark.parametrize("back_s", [60, 3600])
def test_a_vm_that_a_person_stopped_is_left_alone_as_long_as_before(back_s):
    async def main():
        done = []

        def demand(second):
            if second >= 30 and not done:
                done.append(bench.world.stop(ORIGIN_S + second, [bench.ids[0]]))
            return 200

        own = policy(signal={"kind": "total"}, guards={"hands_off": "5m"})
        bench = bench_with([(0, back_s), (125, 0)], own, demand, running=2, vms=0)
        await bench.run(500)
        assert bench.log.events().count("clock_set_back") == 1
        (stopped,) = [text for _, kind, text in bench.events() if kind == "stopped_outside"]
        assert "not started within 300 s" in stopped
        starts = [
            (round(a.at_s - ORIGIN_S), a.intent.vm_ids)
            for a in bench.actions()
            if a.intent.verb is Verb.START
        ]
        assert starts == [(340, (bench.ids[0],))]

    run_virtual(main)


def test_a_shortage_before_ends_in_time_and_has_lasted_no_less_than_nothing():
    async def main():
        bench = bench_with([(0, 3600), (125, 0)], policy(signal={"kind": "total"}), 100, running=0, vms=1)
        bench.world.add_fault(Fault(FaultKind.NO_CAPACITY, end_s=200))
        await bench.run(500)
        assert bench.log.events().count("clock_set_back") == 1
        told = [(at, kind, text) for at, kind, text in bench.events() if kind.startswith("shortage")]
        assert [kind for _, kind, _ in told] == ["shortage_began", "shortage_ended"]
        assert told[1] == (
            360,
            "shortage_ended",
            "all wanted VMs are available again; up to 1 were missing for 170 s",
        )

    run_virtual(main)


def test_permissions_that_lack_later_are_waited_for_though_starts_were_accepted_by_the_clock_before():
    async def main():
        demand = steady((0, 100), (200, 200))
        bench = bench_with([(0, 3600), (125, 0)], policy(signal={"kind": "total"}), demand, running=0, vms=2)
        denied = Fault(
            FaultKind.API_ERROR, start_s=150, code="UnauthorizedOperation", actions=("StartInstances",)
        )
        bench.world.add_fault(denied)
        await bench.run(330)
        assert bench.log.events().count("clock_set_back") == 1
        assert len(bench.log.texts("acting_held")) == 3

    run_virtual(main)
