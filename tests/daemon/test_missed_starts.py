"""Missed warm starts: counted by hand, reported once per spell with advice, and shown for a day."""

from __future__ import annotations

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.vms import LaunchData
from autoscaler.daemon.fleets import Fleet, FleetSetup
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.daemon.warm.missed import MissedStarts
from autoscaler.web.status import status
from tests.daemon.builders import ORIGIN_S, Bench, policy, steady, virtual, vm
from tests.daemon.pools import PROVISION, TOTAL

DAY = 86_400.0


def bench_of(demand, *, vms=1, faults=(), **changes):
    bench = Bench(vms=0, zones="a", faults=faults, limits=None)
    data = LaunchData(image="ami-0000000a", vm_type="m7i.large")
    bench.world.templates.create(bench.world.new_id("lt"), "web", data, ORIGIN_S)
    bench.world.provision(ORIGIN_S, "web", vms)
    bench.add(policy(**{"signal": TOTAL, "provision": PROVISION, **changes}), demand)
    return bench


def counted(bench):
    value = bench.telemetry.registry.get_sample_value("autoscaler_missed_warm_starts_total", {"fleet": "web"})
    (fleet,) = status(bench.daemon)["fleets"]
    return value or 0.0, fleet["missed_warm_starts_day"]


def pool_events(bench):
    return [(at_s, text) for at_s, kind, text in bench.events() if kind == "pool_exhausted"]


@virtual
async def test_what_the_pool_cannot_give_is_counted_told_of_once_and_shown():
    bench = bench_of(steady((0, 300), (100, 400)))
    await bench.run(200)
    # One from the pool, two made; a hundred seconds later another one.
    assert counted(bench) == (3, 3)
    ((at_s, text),) = pool_events(bench)
    assert at_s == 0
    assert text.startswith(
        "2 VMs had to be made from nothing, since the warm pool was empty. Nothing refills"
    )


@virtual
async def test_what_the_pool_gives_is_not_missed():
    bench = bench_of(300, vms=3)
    await bench.run(100)
    assert counted(bench) == (0, 0)
    assert pool_events(bench) == []


@virtual
async def test_a_fleet_that_wants_no_pool_misses_none():
    bench = bench_of(300, vms=0, warm_pool={"maximum": 0})
    await bench.run(100)
    assert bench.column("in_service")[-1] == 3
    assert counted(bench) == (0, 0)
    assert pool_events(bench) == []


@virtual
async def test_what_fell_to_provisioning_for_want_of_room_is_missed_once():
    fault = Fault(FaultKind.NO_CAPACITY, vm_type="m7i.large")
    bench = bench_of(200, vms=2, faults=(fault,), provision={**PROVISION, "vm_type": "m7i.xlarge"})
    await bench.run(100)
    assert bench.column("in_service")[-1] == 2
    assert counted(bench) == (2, 2)
    ((_, text),) = pool_events(bench)
    assert "2 stopped, 2 in places without room" in text
    assert "vm.types" in text


def fleet_of(*stopped, **changes):
    own = Fleet(FleetSetup(policy(**changes), None, None, None))
    for number, until_s in enumerate(stopped):
        t = TrackedVm(vm(f"i-{number}"), Phase.STOPPED, 0.0)
        t.quarantined_until_s = until_s
        own.inventory.vms[t.vm.id] = t
    return own


def test_a_day_is_counted_and_a_new_spell_is_told_of_anew():
    fleet, missed = fleet_of(), MissedStarts()
    said = [len(missed.made(fleet, 1, at_s)) for at_s in (0.0, 30.0, 3000.0, 6599.0, 10_200.0)]
    assert said == [1, 0, 0, 0, 1]
    assert missed.in_day(10_200.0) == 5
    assert missed.in_day(DAY) == 3  # the two of the first minute are a day old
    assert missed.in_day(10_200.0 + DAY) == 0


@pytest.mark.parametrize(
    ("stopped", "changes", "words"),
    [
        (
            (),
            {"provision": PROVISION, "refill": {}},
            "Raise warm_pool.minimum (0 now) or warm_pool.spare (10%)",
        ),
        (
            (),
            {"provision": PROVISION, "refill": {"at_once": 1}, "warm_pool": {"minimum": 8}},
            "refill.at_once",
        ),
        ((1e9, 1e9), {}, "2 stopped, 2 in quarantine. See `autoscaler pool list --fleet web`"),
    ],
)
def test_the_words_say_what_to_do(stopped, changes, words):
    (note,) = MissedStarts().made(fleet_of(*stopped, **changes), 1, 0.0)
    assert words in note.text
