"""What follows from counts by a tariff is what the books of single ticks add up to."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.simulator.judging.block import Amount, Count
from autoscaler.simulator.judging.ledger import Sums
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.knobs import Duration, PlantSettings
from autoscaler.simulator.lanes.witness import Witness
from tests.simulator.builders import levels, policy

TICK_S = 10.0
PLANTS = {
    "plain": PlantSettings(vms=9, in_service=2, start=Duration(14.0), boot_s=4.0, stop_s=15.0),
    "drains": PlantSettings(vms=9, in_service=2, start=Duration(14.0), stop_s=15.0, drain_s=25.0),
    "minimum": PlantSettings(vms=9, in_service=2, start=Duration(14.0), stop_s=15.0, minimum_billed_s=90.0),
    "drawn": PlantSettings(
        vms=9, in_service=2, start=Duration(14.0, 28.0), boot_s=4.0, stop_s=15.0, start_failure=0.2
    ),
}
PRICES = {"in_service": "3.6/h", "stopped": "0.36/h", "start": 0.01, "provision": 0.02}


@pytest.mark.parametrize("makes", [False, True])
@pytest.mark.parametrize("name", PLANTS)
def test_a_tariff_adds_up_to_the_books_of_single_ticks(name: str, makes: bool) -> None:
    extra = {"provision": {"launch_template": "web", "maximum": 14}} if makes else {}
    guards = {"minimum_on_time": "0s", "cooldown_in": "0s", "stabilisation": "0s"}
    fleet = policy(prices=PRICES, guards=guards, forecast="off", **extra)
    trace = levels(*[150, 900, 300, 1200, 80, 700, 90] * 6, each_s=90.0)
    run = LaneRun.of(fleet, PLANTS[name], trace, start_s=trace.start_s, duration_s=3600.0, tick_s=TICK_S)
    witness = Witness([0])
    lanes = Lanes(run, witness=witness)
    sums = lanes.sums()
    lanes.run(run.ticks.count, sums)
    pages = witness.of(0)
    booked = {Amount.CAPACITY: "capacity", Amount.BILLED_VM_S: "billed_vm_s", Amount.COST: "cost"}
    assert sums.count(Count.STARTS)[0] > 5
    assert sums.count(Count.STOPS)[0] > 5
    for which, row in booked.items():
        by_tick = sum(float(page.block[row].sum()) for page in pages)
        assert sums.amount(which)[0] == pytest.approx(by_tick, rel=1e-11), which


def test_sums_billed_differently_are_not_put_side_by_side() -> None:
    fleet, trace = policy(), levels(100, each_s=600.0)
    run = LaneRun.of(fleet, PLANTS["plain"], trace, start_s=trace.start_s, duration_s=600.0, tick_s=TICK_S)
    with pytest.raises(ValueError, match="billed alike"):
        Sums.side_by_side([Lanes(run).sums(), Sums(TICK_S, np.array([100.0]))])
