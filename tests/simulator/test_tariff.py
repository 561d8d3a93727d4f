"""Costs from counts by a tariff equal the sum over single ticks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from autoscaler.simulator.judging.block import Amount, Block, Count
from autoscaler.simulator.judging.ledger import Sums
from autoscaler.simulator.judging.score import LanePrices, score
from autoscaler.simulator.judging.stretches import sums_of_one
from autoscaler.simulator.lanes.engine import Lanes
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from tests.simulator.builders import lane_of, levels, policy

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
    run = lane_of(fleet, PLANTS[name], trace, start_s=trace.start_s, duration_s=3600.0, tick_s=TICK_S)
    witness = Witness([0])
    lanes = Lanes(run, witness=witness)
    sums = lanes.sums()
    lanes.run(run.ticks.count, sums)
    pages = witness.of(0)
    exist = sum(int(page.block["provisioned"].sum()) for page in pages)
    assert sums.count(Count.PROVISIONED)[0] == exist
    booked = {Amount.CAPACITY: "capacity", Amount.BILLED_VM_S: "billed_vm_s", Amount.COST: "cost"}
    assert sums.count(Count.STARTS)[0] > 5
    assert sums.count(Count.STOPS)[0] > 5
    for which, row in booked.items():
        by_tick = sum(float(page.block[row].sum()) for page in pages)
        assert sums.amount(which)[0] == pytest.approx(by_tick, rel=1e-11), which


@pytest.mark.parametrize(("begin", "end"), [(0, 12), (11, 92), (14, 120)])
@pytest.mark.parametrize("told", ["by counts", "tick by tick"])
def test_the_parts_of_the_cost_are_those_of_what_came_whatever_is_under_way_at_the_ends(
    begin: int, end: int, told: str
) -> None:
    fleet = policy(prices=PRICES, forecast="off", provision={"launch_template": "web", "maximum": 14})
    plant = PlantSettings(vms=6, in_service=2, start=Duration(34.0), provision=Duration(55.0))
    trace = levels(*[150, 900, 300, 1200, 80, 700, 90] * 2, each_s=90.0)
    run = lane_of(fleet, plant, trace, start_s=trace.start_s, duration_s=end * TICK_S, tick_s=TICK_S)
    witness = Witness([0])
    lanes = Lanes(run, witness=witness)
    lanes.run(begin)
    sums = lanes.sums()
    lanes.run(end - begin, sums)
    if told == "tick by tick":
        pages = witness.of(0)
        rows = {name: np.concatenate([page.block[name] for page in pages])[begin:] for name in pages[0].block}
        sums = sums_of_one(Block(TICK_S, run.ticks.first + begin, **rows), 100.0)
    card = score(sums, LanePrices.of([fleet])).of_lane(0)

    ticks = witness.fleet_ticks(0, "web")
    assert (bool(ticks[begin].starting), bool(ticks[-1].starting)) == (begin > 0, end < 120)
    came = [was.starting + was.start + was.provision - now.starting for was, now in pairwise(ticks)]
    arrived = sum([0, *came][begin:])
    made = sum(tick.provision for tick in ticks[begin:])
    exist = sum(tick.provisioned + tick.provision for tick in ticks[begin:])
    assert card["start_cost"] == pytest.approx(0.01 * arrived + 0.02 * made, rel=1e-9, abs=1e-12)
    assert card["storage_cost"] == pytest.approx(0.36 * exist * TICK_S / 3600.0, rel=1e-9)
    parts = card["running_cost"] + card["start_cost"] + card["storage_cost"]
    assert card["cost"] == pytest.approx(parts, rel=1e-12)


def test_sums_billed_differently_are_not_put_side_by_side() -> None:
    fleet, trace = policy(), levels(100, each_s=600.0)
    run = lane_of(fleet, PLANTS["plain"], trace, start_s=trace.start_s, duration_s=600.0, tick_s=TICK_S)
    with pytest.raises(ValueError, match="billed alike"):
        Sums.side_by_side([Lanes(run).sums(), Sums(TICK_S, np.array([100.0]))])
