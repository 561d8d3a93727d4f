"""The bill of a run, added up VM by VM from what was decided, as the design has it: against the sums of counts.

A VM is billed from running until stopping begins, at least the minimum per start; disks of all VMs that exist are paid; starts
that come into service and VMs that are made may have a price. Of VMs that still run at the end, the time until then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.config.policy import Policy
from autoscaler.ports import FleetTick
from autoscaler.simulator.judging.ledger import Amount
from autoscaler.simulator.judging.score import LanePrices, score
from autoscaler.simulator.lanes.engine import Lanes
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from tests.simulator.builders import lane_of, levels, policy


@dataclass(slots=True)
class Bill:
    """What a fleet is billed for."""

    running_s: float = 0.0
    starts: int = 0
    made: int = 0
    stored_s: float = 0.0


def by_vm(ticks: list[FleetTick], plant: PlantSettings, tick_s: float, end_s: float) -> Bill:
    """One VM after the other; those that came first are stopped first."""
    bill, exist = Bill(), plant.vms
    serving = [0.0] * plant.in_service
    """When each began to run, in the order in which they came into service."""
    coming: list[tuple[int, float]] = []
    """The tick at which each is in service, and when it begins to run."""
    for number, tick in enumerate(ticks):
        now_s = number * tick_s
        serving += [began_s for at, began_s in coming if at == number]
        bill.starts += sum(at == number for at, _ in coming)
        coming = [each for each in coming if each[0] > number]
        assert (len(serving), len(coming)) == (tick.in_service, tick.starting)
        for takes_s, count in ((plant.start.mean_s, tick.start), (plant.provision.mean_s, tick.provision)):
            ready = number + max(math.ceil(takes_s / tick_s - 1e-9), 1)
            coming += [(ready, now_s + takes_s - min(plant.boot_s, takes_s))] * count
        bill.made += tick.provision
        exist += tick.provision
        bill.stored_s += exist * tick_s
        stops_s = now_s + math.ceil(plant.drain_s / tick_s - 1e-9) * tick_s
        for began_s in serving[: tick.stop]:
            # What drains at the end of the run has not been charged for the rest of that.
            bill.running_s += max(stops_s - began_s, plant.minimum_billed_s) - max(stops_s - end_s, 0.0)
        del serving[: tick.stop]
    bill.running_s += sum(end_s - began_s for began_s in serving)
    return bill


@settings(max_examples=60, deadline=None)
@given(
    work=st.lists(st.sampled_from([0, 40, 180, 260, 700, 1500]), min_size=3, max_size=7),
    tick_s=st.sampled_from([7.5, 10.0, 30.0]),
    vms=st.integers(0, 9),
    serving=st.integers(0, 4),
    start_s=st.sampled_from([3.0, 20.0, 33.0, 95.0]),
    made_s=st.sampled_from([10.0, 80.0]),
    boot_s=st.sampled_from([0.0, 3.0, 20.0]),
    drain_s=st.sampled_from([0.0, 0.0, 40.0]),
    minimum_s=st.sampled_from([0.0, 60.0, 200.0]),
    on_s=st.sampled_from([0, 61]),
    makes=st.booleans(),
)
def test_a_bill_is_that_of_its_vms(
    *,
    work: list[int], tick_s: float, vms: int, serving: int, start_s: float, made_s: float, boot_s: float, drain_s: float,
    minimum_s: float, on_s: int, makes: bool,
) -> None:  # fmt: skip
    fleet: Policy = policy(
        forecast="off",
        guards={"minimum_on_time": f"{on_s}s", "stabilisation": "0s", "cooldown_in": "0s"},
        provision={"launch_template": "web", "maximum": 14} if makes else "off",
        prices={"in_service": "3.6/h", "stopped": "0.36/h", "start": 0.01, "provision": 0.5},
    )
    plant = PlantSettings(
        vms=vms, in_service=min(serving, vms), start=Duration(start_s), provision=Duration(made_s), boot_s=boot_s,
        drain_s=drain_s, stop_s=15.0, minimum_billed_s=minimum_s,
    )  # fmt: skip
    trace = levels(*work, each_s=150.0)
    run = lane_of(
        fleet, plant, trace, start_s=trace.start_s, duration_s=trace.end_s - trace.start_s, tick_s=tick_s
    )
    witness = Witness([0])
    lanes = Lanes(run, witness=witness)
    sums = lanes.sums()
    lanes.run(run.ticks.count, sums)
    bill = by_vm(witness.fleet_ticks(0, "web"), plant, tick_s, run.ticks.count * tick_s)
    card = score(sums, LanePrices.of([fleet])).of_lane(0)
    assert sums.amount(Amount.BILLED_VM_S)[0] == pytest.approx(bill.running_s, rel=1e-9, abs=1e-6)
    parts = {
        "running_cost": bill.running_s * 3.6 / 3600.0,
        "start_cost": bill.starts * 0.01 + bill.made * 0.5,
        "storage_cost": bill.stored_s * 0.36 / 3600.0,
    }
    assert {key: card[key] for key in parts} == pytest.approx(parts, rel=1e-9, abs=1e-9)
    assert card["cost"] == pytest.approx(sum(parts.values()), rel=1e-9)
