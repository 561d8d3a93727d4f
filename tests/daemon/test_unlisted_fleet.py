"""A fleet of which complete listings show nothing at all: this is doubted before its VMs are replaced."""

from dataclasses import replace

import pytest

from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.inventory import FleetInventory
from autoscaler.web.status import status
from tests.daemon.builders import ORIGIN_S, listing, reconcile, steady, virtual, vm
from tests.daemon.pools import PROVISION, chores, pool_bench


class Hides:
    """A provider whose listings are complete but empty for some seconds."""

    def __init__(self, bench, from_s, to_s, shown=0):
        self._bench, self._provider = bench, bench.provider
        self._from_s, self._to_s, self._shown = from_s, to_s, shown

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def list_vms(self):
        found = await self._provider.list_vms()
        hidden = self._from_s <= self._bench.clock.now() - ORIGIN_S < self._to_s
        if not hidden:
            return found
        if isinstance(self._shown, int):
            return replace(found, vms=found.vms[: self._shown])
        return replace(found, vms=tuple(vm for vm in found.vms if vm.id in self._shown))


def hiding(from_s, to_s, demand=400, shown=0):
    bench = pool_bench(
        demand,
        running=4,
        vms=2,
        warm_pool={"minimum": 0},
        refill=None,
        provision={**PROVISION, "maximum": 10},
    )
    bench.setups = [replace(bench.setups[0], provider=Hides(bench, from_s, to_s, shown))]
    return bench


@virtual
async def test_vms_that_vanish_together_are_taken_to_be_there_for_ten_minutes():
    bench = hiding(100, 600)
    await bench.run(900)
    assert chores(bench) == []
    assert set(bench.column("in_service")) == {4}
    (told,) = [(at, text) for at, kind, text in bench.events() if kind == "vms_unlisted"]
    assert told[0] == 120
    assert told[1].startswith("none of its 6 VMs is in the list any more; counted as unchanged for 10 min")
    assert "vm_gone" not in {kind for _, kind, _ in bench.events()}


@virtual
async def test_most_that_vanish_together_are_too_and_it_is_told_when_they_are_back():
    bench = hiding(100, 600, shown=2)
    await bench.run(900)
    assert chores(bench) == []
    assert set(bench.column("in_service")) == {4}
    told = [
        (at, kind, text) for at, kind, text in bench.events() if kind.startswith("vms_") or kind == "vm_gone"
    ]
    assert [(at, kind) for at, kind, _ in told] == [(120, "vms_unlisted"), (600, "vms_listed")]
    assert told[0][2].startswith(
        "4 of its 6 VMs are not in the list any more; counted as unchanged for 10 min"
    )


def test_one_that_is_still_listed_is_started_before_those_that_are_not():
    def started(shown):
        @virtual
        async def run():
            demand = steady((0, 100), (150, 200))
            bench = pool_bench(
                demand, running=1, vms=6, warm_pool={"minimum": 0}, refill=None, provision=None
            )
            views = bench.world.views(ORIGIN_S)
            if shown:
                bench.setups = [replace(bench.setups[0], provider=Hides(bench, 100, 400, shown))]
            await bench.run(200)
            starts = [action.intent for action in bench.actions() if action.at_s >= ORIGIN_S + 100]
            runs = {view.id for view in views if view.state is State.RUNNING}
            return starts[0].vm_ids, runs, {view.id for view in views} - runs

        return run()

    first, runs, stopped = started(None)
    other = max(stopped - set(first))
    assert started(runs | {other})[0] == (other,)


@virtual
async def test_a_few_that_vanish_are_gone_soon():
    bench = hiding(100, 600, shown=4)
    await bench.run(200)
    assert [kind for _, kind, _ in bench.events()].count("vm_gone") == 2


@virtual
async def test_after_that_they_are_gone_and_it_is_told_again_when_it_happens_again():
    bench = hiding(100, 760)
    await bench.run(760)
    # Missing since 100.
    assert next(at for at, *_ in chores(bench)) == 700
    assert [kind for _, kind, _ in bench.events()].count("vm_gone") == 6


@pytest.mark.parametrize(("run_s", "told"), [(110, ""), (300, "none of its 6 VMs is in the list"), (450, "")])
def test_the_status_says_so_for_as_long_as_they_are_missing(run_s, told):
    @virtual
    async def run():
        bench = hiding(100, 400)
        await bench.run(run_s)
        error = status(bench.daemon)["fleets"][0]["listing_error"]
        assert error.partition(" any more")[0] == told

    run()


@virtual
async def test_none_of_them_is_stopped_meanwhile():
    bench = hiding(100, 400, steady((0, 400), (150, 100)))
    await bench.run(450)
    assert [(at, verb, count) for at, verb, count, _ in chores(bench)] == [(400, "stop", 3)]


def test_vms_that_come_back_in_incomplete_listings_are_there_again_with_the_next_complete_one():
    inventory, rows = FleetInventory("web"), (vm("i-1"),)
    reconcile(inventory, listing(*rows, at=0), rows, 0)
    reconcile(inventory, listing(at=10), (), 10)
    for at in (20, 30):
        reconcile(inventory, listing(*rows, at=at, complete=False), rows, at)
        assert inventory.vanished
    reconcile(inventory, listing(*rows, at=40), rows, 40)
    assert not inventory.vanished
