"""Slow and silent VMs are reported, not counted, and replaced within limits, but not if all are slow."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.learned.condition import Condition
from autoscaler.ports import FleetReadings
from autoscaler.web.status import status
from tests.daemon.builders import Bench, policy, virtual

VERBS = "StartInstances", "StopInstances"


class Uneven:
    """VMs that share the demand by their speed. `slow` and `silent` give VMs and the second from which they are so."""

    def __init__(self, bench, demand, *, slow=None, silent=None, from_s=120.0, to_s=1e9, busy=False):
        self.bench, self.demand = bench, demand
        self.slow, self.silent = set(slow or ()), set(silent or ())
        self.from_s, self.to_s, self.busy = from_s, to_s, busy

    async def read(self, vms):
        now_s = self.bench.clock.now()
        bad = self.from_s <= now_s - self.bench.settings_origin_s < self.to_s
        heard = [vm for vm in vms if not (bad and vm.id in self.silent)]
        speed = np.array([0.2 if bad and vm.id in self.slow else 1.0 for vm in heard])
        work = self.demand * speed / max(speed.sum(), 1e-9)
        # All VMs are equally busy, but the slow ones do less work.
        busy = np.full(len(heard), 0.6) if self.busy else None
        return FleetReadings(tuple(vm.id for vm in heard), work, np.full(len(heard), now_s), utilisation=busy)

    async def close(self):
        pass


def bench_of(vms, running, demand, *, condition=None, more=None, **uneven):
    bench = Bench(vms=vms, running=running)
    bench.settings_origin_s = bench.clock.now()
    picked = {name: bench.ids[:count] for name, count in uneven.items() if name in ("slow", "silent")}
    source = Uneven(bench, demand, **{**uneven, **picked})
    bench.add(policy(condition=condition or {}, **(more or {})), source)
    return bench


def kinds(bench):
    return [(at_s, kind) for at_s, kind, _ in bench.events() if kind.startswith(("vms_", "vm_replaced"))]


@virtual
async def test_slow_vms_are_told_once_and_again_when_they_are_well():
    bench = bench_of(0, 10, 1000.0, slow=2, to_s=300.0)
    await bench.run(600)
    assert [kind for _, kind in kinds(bench)] == ["vms_slow", "vms_well"]
    assert bench.log.texts("vm")[0] == f"2 of 10 VMs are slow or silent: {', '.join(sorted(bench.ids[:2]))}"
    # Two readings half a minute apart.
    assert 150.0 <= kinds(bench)[0][0] <= 190.0
    assert bench.changes() == []


@virtual
async def test_nine_of_eighteen_are_shown_and_none_of_them_is_replaced():
    bench = bench_of(10, 18, 1800.0, slow=9, condition={"replace": "20%"})
    await bench.run(600)
    shown = status(bench.daemon)["fleets"][0]["condition"]
    assert (shown["condition"], shown["judged"], len(shown["slow"])) == ("degraded_half", 18, 9)
    assert shown["sentence"].startswith("9 of 18 VMs are slow or silent: ")
    assert "about half of the fleet: none is replaced" in shown["sentence"]
    assert shown["replacing"] == []
    assert bench.changes() == []
    gauge = bench.telemetry.registry.get_sample_value
    assert gauge("autoscaler_slow_vms", {"fleet": "web"}) == 9
    assert gauge("autoscaler_condition", {"fleet": "web"}) == Condition.DEGRADED_HALF


@virtual
async def test_a_region_that_is_slow_is_not_answered_by_replacing_everything():
    bench = bench_of(10, 8, 800.0, slow=8, condition={"replace": "50%"}, busy=True, from_s=600.0)
    # Their work falls with their speed, which a demand that is shared among them would hide.
    read = bench.setups[0].source.read

    async def slower(vms):
        got = await read(vms)
        late = bench.clock.now() - bench.settings_origin_s >= 600.0
        return FleetReadings(
            got.vm_ids, got.values * (0.2 if late else 1.0), got.observed_at_s, utilisation=got.utilisation
        )

    bench.setups[0].source.read = slower
    bench.setups[0].policy.__dict__["bounds"] = bench.setups[0].policy.bounds.model_copy(
        update={"minimum": 8}
    )
    await bench.run(1200)
    assert bench.daemon.conditions.of("web").condition is Condition.DEGRADED_ALL
    assert bench.daemon.conditions.of("web").replacing == ()
    assert bench.changes() == []


@pytest.mark.parametrize("kind", ["slow", "silent"])
def test_a_bad_vm_is_replaced_by_one_of_the_warm_pool_before_it_is_stopped(kind):
    @virtual
    async def scenario():
        bench = bench_of(5, 10, 1000.0, condition={"replace": "10%"}, **{kind: 1})
        bad = bench.ids[0]
        await bench.run(900)
        assert [kind for _, kind in kinds(bench)][:2] == ["vms_slow", "vm_replaced"]
        # A silent VM's work is taken to be that of the others until it is replaced, so more are started for it.
        starts, stops = ([vms for _, action, vms, _ in bench.changes() if action == verb] for verb in VERBS)
        assert sum(starts) == sum(stops) == (1 if kind == "slow" else 2)
        first_stop = next(at_s for at_s, action, _, _ in bench.changes() if action == VERBS[1])
        assert first_stop >= bench.changes()[0][0] + 19.0
        assert bench.daemon.fleets.all[0].inventory.vms[bad].phase == "stopped"
        row = bench.rows()[-1]
        assert (row.in_service, row.desired, row.draining) == (10, 10, 0)

    scenario()


@virtual
async def test_at_most_the_stated_share_is_replaced_at_once():
    bench = bench_of(10, 20, 2000.0, slow=6, condition={"replace": "10%"})
    await bench.run(1200)
    assert max(row.draining for row in bench.rows()) == 2
    stops = [vms for _, action, vms, _ in bench.changes() if action == "StopInstances"]
    assert sum(stops) == 6
    assert {bench.daemon.fleets.all[0].inventory.vms[vm].phase for vm in bench.ids[:6]} == {"stopped"}
    assert min(row.in_service + row.draining for row in bench.rows()) >= 20


@virtual
async def test_an_empty_warm_pool_stops_no_slow_vm():
    bench = bench_of(0, 10, 1000.0, slow=1, condition={"replace": "10%"})
    await bench.run(900)
    assert bench.daemon.conditions.of("web").replacing == (bench.ids[0],)
    assert bench.changes() == []
