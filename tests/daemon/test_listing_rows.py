"""Rows of listings: unchanged ones are the same objects as before, large listings yield to the loop, none counts in part."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.clock import give_way, run_virtual
from autoscaler.daemon.vms.listing_rows import SLICE_ROWS, Rows
from autoscaler.ports import Listing, VmState
from tests.daemon.builders import Bench, policy, virtual, vm

rows = st.lists(
    st.builds(
        lambda number, state, fleet: replace(vm(f"i-{number}", state), fleet=fleet),
        st.integers(0, 6),
        st.sampled_from([VmState.STOPPED, VmState.RUNNING]),
        st.sampled_from(["web", "api"]),
    ),
    max_size=8,
    unique_by=lambda each: each.id,
).map(tuple)


def anew(vms):
    return tuple(replace(each, tags=dict(each.tags)) for each in vms)


@given(rows, rows)
def test_rows_are_those_listed_and_equal_ones_are_the_values_of_before(first, second):
    async def main():
        before = await Rows().followed_by(first)
        after = await before.followed_by(anew(second))
        return before, after

    before, after = run_virtual(main)
    fleets = {each.fleet for each in second}
    assert after.by_fleet == {f: tuple(each for each in second if each.fleet == f) for f in fleets}
    known = {each: each for own in before.by_fleet.values() for each in map(Same, own)}
    for own in after.by_fleet.values():
        for each in own:
            was = known.get(Same(each))
            assert was is None or was.vm is each
    for fleet in fleets:
        if after.by_fleet[fleet] == before.by_fleet.get(fleet):
            assert after.by_fleet[fleet] is before.by_fleet[fleet]


class Same:
    """A hashable wrapper for a row, which is not hashable itself because of its tags."""

    def __init__(self, each):
        self.vm = each

    def __hash__(self):
        return hash(self.vm.id)

    def __eq__(self, other):
        return self.vm == other.vm


@pytest.mark.parametrize("vms", [SLICE_ROWS // 2 - 1, 10 * SLICE_ROWS])
def test_a_large_listing_gives_way_once_a_slice_and_a_small_one_never(vms):
    async def main():
        turns = 0

        async def beside():
            nonlocal turns
            while True:
                turns += 1
                await give_way()

        other = asyncio.create_task(beside())
        given_rows = tuple(replace(vm(f"i-{n}"), fleet=f"f-{n % 7}") for n in range(vms))
        first = await Rows().followed_by(given_rows)
        second = await first.followed_by(anew(given_rows))
        other.cancel()
        assert all(second.by_fleet[f] is first.by_fleet[f] for f in first.by_fleet)
        return turns

    # Grouped in slices and compared in slices, twice.
    slices = vms // SLICE_ROWS
    assert run_virtual(main) == 4 * slices


@virtual
async def test_a_listing_that_is_taken_in_in_slices_decides_only_as_a_whole():
    """While the rows of a fleet are compared, a call returns; no tick sees a fleet in part."""
    bench = Bench(vms=0, limits=None)
    fleets = [f"fleet-{n:02d}" for n in range(12)]
    for name in fleets:
        bench.place(name, 500)

    class Anew:
        """A provider that builds all VMs anew for each listing."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        async def list_vms(self):
            got = await self.inner.list_vms()
            return Listing(anew(got.vms), got.complete, got.requested_at_s, got.received_at_s, got.error)

    provider = Anew(bench.provider)
    for name in fleets:
        bench.add(
            policy(name, signal={"kind": "total"}, bounds={"maximum": 500}),
            lambda second: 2000.0 if second < 60 else 500.0,
            provider=provider,
        )
    await bench.run(240)
    assert bench.log.texts("tick_failed") == []
    for name in fleets:
        for row in bench.rows(name):
            assert row.provisioned == 500
            assert row.in_service + row.starting + row.stopping + row.stopped == 500
    assert bench.rows(fleets[-1])[-1].in_service == 5
