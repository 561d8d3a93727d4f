"""Bills computed by hand, and the daemon's bill compared with the world's over random days."""

import numpy as np
import pytest

from autoscaler.cloud.billing import Prices as WorldPrices
from autoscaler.cloud.physics import Physics
from autoscaler.daemon.vms.inventory import FleetInventory
from autoscaler.daemon.vms.metering import Meter, Prices, Run
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import Outcome, OutcomeKind, Verb, VmState
from tests.daemon.builders import ORIGIN_S, Bench, listing, policy, reconcile, virtual, vm

PRICES = Prices(in_service_per_h=3600.0, stopped_per_h=36.0, start=5.0, provision=7.0)


def tracked(run=None, *closed):
    found = TrackedVm(vm(), Phase.RUNNING, 0.0)
    found.run, found.closed_runs = run, list(closed)
    return found


def test_a_start_costs_its_minimum_at_once_and_seconds_after_that():
    meter, one = Meter(PRICES), tracked(Run(100.0, counts_start=True))
    charges = [meter.charge([one], 1, 0, at).money for at in (100.0, 130.0, 160.0, 175.0)]
    assert charges == pytest.approx([60 + 5, 0.3, 0.3, 15 + 0.15])
    assert (meter.total.running_s, meter.total.starts) == (75.0, 1)


def test_a_short_run_costs_the_minimum_and_a_long_one_its_seconds():
    short, long = Run(0.0, to_s=20.0, counts_start=True), Run(0.0, to_s=90.0, counts_start=True)
    one = tracked(None, short, long)
    charge = Meter(PRICES).charge([one], 1, 0, 100.0)
    assert (charge.running_s, charge.starts, charge.money) == (150.0, 2, 150 + 10)
    assert one.closed_runs == []


def test_a_run_that_was_found_has_no_price_of_a_start_and_no_minimum():
    charge = Meter(PRICES).charge([tracked(None, Run(0.0, to_s=20.0))], 1, 0, 100.0)
    assert (charge.running_s, charge.starts) == (20.0, 0)


def test_storage_is_charged_between_ticks_for_all_that_is_provisioned_and_new_vms_have_a_price():
    meter = Meter(PRICES)
    assert meter.charge([], 10, 0, 100.0).money == 0
    assert meter.charge([], 10, 2, 160.0).money == pytest.approx(60 * 10 * 0.01 + 14)
    assert meter.total.stored_s == 600


def test_a_stop_is_charged_to_the_middle_of_its_call():
    inventory, meter = FleetInventory("web"), Meter(PRICES)
    shown = vm(state=VmState.RUNNING)
    reconcile(inventory, listing(shown, at=0), [shown], 0)
    inventory.mark_ready(["i-1"], 0)
    meter.charge(inventory.vms.values(), 1, 0, 100)
    inventory.sent(Verb.STOP, ["i-1"], 1, 1, 104)
    inventory.settle(Verb.STOP, [Outcome("i-1", OutcomeKind.ACCEPTED)], 104, 106)
    assert meter.charge(inventory.vms.values(), 1, 0, 110).running_s == 5
    assert meter.total.running_s == 105


def test_a_stop_of_unknown_outcome_that_was_done_is_charged_to_its_call():
    inventory, meter = FleetInventory("web"), Meter(PRICES)
    shown = vm(state=VmState.RUNNING)
    reconcile(inventory, listing(shown, at=0), [shown], 0)
    inventory.sent(Verb.STOP, ["i-1"], 1, 1, 100)
    inventory.settle(Verb.STOP, [Outcome("i-1", OutcomeKind.UNKNOWN)], 100, 130)
    assert meter.charge(inventory.vms.values(), 1, 0, 135).running_s == 135
    gone = vm(state=VmState.STOPPED)
    reconcile(inventory, listing(gone, at=140), [gone], 140)
    assert inventory.vms["i-1"].run is None
    meter.charge(inventory.vms.values(), 1, 0, 140)
    assert meter.total.running_s == 135  # what was charged is not given back


def test_a_stop_that_was_not_taken_is_charged_without_a_gap():
    inventory, meter = FleetInventory("web"), Meter(PRICES)
    shown = vm(state=VmState.RUNNING)
    reconcile(inventory, listing(shown, at=0), [shown], 0)
    inventory.sent(Verb.STOP, ["i-1"], 1, 1, 100)
    inventory.settle(Verb.STOP, [Outcome("i-1", OutcomeKind.ACCEPTED)], 100, 100)
    reconcile(inventory, listing(shown, at=191), [shown], 191)
    charge = meter.charge(inventory.vms.values(), 1, 0, 200)
    assert (charge.running_s, charge.starts) == (200, 0)


def test_a_start_between_two_listings_began_in_the_middle_and_not_before_its_order():
    inventory = FleetInventory("web")
    off, on = vm(), vm(state=VmState.RUNNING, launched=104)
    reconcile(inventory, listing(off, at=100), [off], 100)
    inventory.sent(Verb.START, ["i-1"], 1, 1, 104)
    inventory.settle(Verb.START, [Outcome("i-1", OutcomeKind.ACCEPTED)], 104, 104)
    reconcile(inventory, listing(on, at=110), [on], 110)
    assert inventory.vms["i-1"].run == Run(107.0, counts_start=True)


SPAN_S = 3600


def busy_span(seed, span_s=SPAN_S, step_s=120):
    """Errors of the daemon's bill over a span with many starts and stops at random times."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, 16, span_s // step_s) * 100.0
    found = {}

    @virtual
    async def run():
        bench = Bench(vms=20, physics=Physics(), seed=seed, limits=None, prices=WorldPrices(3600, 36, 5))
        bench.add(
            policy(signal={"kind": "total"}),
            lambda second: levels[min(int(second // step_s), len(levels) - 1)],
        )
        await bench.run(span_s)
        ours = bench.daemon.fleets.all[0].meter.total
        theirs = bench.world.bill(ORIGIN_S + span_s, "web")
        found.update(
            running=ours.running_s / theirs.running_s - 1,
            money=ours.money / theirs.money - 1,
            stored=ours.stored_s / theirs.storage_s - 1,
            starts=(ours.starts, theirs.starts),
            rows=sum(bench.column("cost")) - ours.money,
        )

    run()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_span_is_billed_as_the_world_bills_it(seed):
    found = busy_span(seed)
    assert found["starts"][0] == found["starts"][1] > 40
    assert abs(found["running"]) < 0.005
    assert abs(found["money"]) < 0.005
    assert abs(found["stored"]) < 1e-9
    assert found["rows"] == pytest.approx(0, abs=1e-6)
