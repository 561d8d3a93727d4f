"""Work on many VMs that is done in short parts gives the same as at once, whatever happens in between."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.world import World
from autoscaler.daemon.fleets import Fleet, FleetSetup
from autoscaler.daemon.learned import condition, measurements
from autoscaler.daemon.learned.condition import Conditions
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.holdings import PART_VMS
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.ports import FleetReadings, Listing, Outcome, OutcomeKind, Verb, Vm, VmState
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import ORIGIN_S, Log, policy, reconcile

MANY = 3 * PART_VMS + 7
STATES = (VmState.RUNNING, VmState.STOPPED, VmState.PENDING, VmState.STOPPING)


def rows(count: int, *, state=None, prefix: str = "i") -> tuple[Vm, ...]:
    return tuple(
        Vm(f"{prefix}-{n:05d}", "web", state or STATES[n % 4], "m", "a", "10.0.0.1", 0.0, "")
        for n in range(count)
    )


def whole(vms: tuple[Vm, ...], at_s: float) -> Listing:
    return Listing(vms, True, at_s, at_s)


def seen(inventory: FleetInventory) -> list[tuple[object, ...]]:
    return [(i, t.phase, t.phase_since_s, t.missing, t.order) for i, t in inventory.vms.items()]


def test_a_listing_taken_in_part_by_part_means_what_it_means_at_once():
    first = rows(MANY)
    gone = first[10:]
    changed = tuple(replace(vm, state=STATES[(n // 7) % 4]) for n, vm in enumerate(gone))
    at_once, in_parts = FleetInventory("web"), FleetInventory("web")
    for number, vms in enumerate((first, gone, changed, changed)):
        at_s = 10.0 * number
        notes: list[object] = []
        parts = list(in_parts.reconciling(whole(vms, at_s), vms, at_s, notes))
        assert reconcile(at_once, whole(vms, at_s), vms, at_s) == notes
        assert seen(at_once) == seen(in_parts)
        assert max(parts) <= PART_VMS
        assert sum(parts) == len(vms)


def test_an_order_between_two_parts_is_not_forgotten_where_the_rows_stay_the_same():
    vms = rows(MANY, state=VmState.STOPPED)
    inventory = FleetInventory("web")
    for at_s in (0.0, 5.0, 10.0):
        reconcile(inventory, whole(vms, at_s), vms, at_s)
    assert list(inventory.reconciling(whole(vms, 15.0), vms, 15.0, [])) == []
    # Rows of a listing that changes nothing, so that the next time the very same rows need not be looked at.
    again = (*vms[:1], *vms[1:])
    under_way = inventory.reconciling(whole(again, 20.0), again, 20.0, [])
    next(under_way)
    inventory.sent(Verb.START, (vms[3].id,), 1, 1, 20.0)
    inventory.settle(Verb.START, [Outcome(vms[3].id, OutcomeKind.ACCEPTED)], 20.0, 20.5)
    for _ in under_way:
        pass
    assert inventory.vms[vms[3].id].phase is Phase.STARTING
    # It never starts; listings go on showing the very same rows, and each must be looked at.
    for at_s in np.arange(30.0, 2000.0, 60.0):
        reconcile(inventory, whole(again, at_s), again, at_s)
    assert inventory.vms[vms[3].id].phase is Phase.STOPPED


@pytest.mark.parametrize("touched", [False, True])
def test_counts_worked_out_part_by_part_are_the_counts_whatever_changes_in_between(touched):
    vms = rows(MANY)
    inventory, like_it = FleetInventory("web"), FleetInventory("web")
    for one in (inventory, like_it):
        reconcile(one, whole(vms, 0.0), vms, 0.0)
    under_way = inventory.counting(5.0, 60.0)
    parts = [next(under_way)]
    if touched:
        for one in (inventory, like_it):
            one.mark_ready([vm.id for vm in vms if vm.state is VmState.RUNNING], 4.0)
    parts += list(under_way)
    assert max(parts) <= PART_VMS
    inventory.looked_at = 0
    assert inventory.counts(5.0, 60.0) == like_it.counts(5.0, 60.0)
    assert inventory.looked_at == (MANY if touched else 0)
    assert inventory.counts(5.0, 60.0).in_service == (len(vms[::4]) if touched else 0)


def fleets_of(sizes: list[int]) -> list[Fleet]:
    clock = VirtualClock(ORIGIN_S)
    provider = MemoryProvider(World(start_s=ORIGIN_S), clock)
    found = []
    for number, size in enumerate(sizes):
        setup = FleetSetup(
            policy(f"fleet-{number}", condition={"replace": "20%"}),
            provider,
            None,
            StatusCheckProbe(provider),
        )
        fleet = Fleet(setup)
        vms = rows(size, state=VmState.RUNNING, prefix=f"i-{number}")
        reconcile(fleet.inventory, whole(vms, ORIGIN_S), vms, ORIGIN_S)
        fleet.inventory.mark_ready([vm.id for vm in vms], ORIGIN_S)
        found.append(fleet)
    return found


async def judged(sizes: list[int], seed: int, group: int, part: int) -> list[object]:
    """The messages of ten judgements of VMs, some of which are slow, silent, or absent for a while."""
    story: list[object] = []
    conditions = Conditions(Telemetry(log=Log()))
    fleets, rng = fleets_of(sizes), np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(condition, "GROUP_VMS", group)
        patch.setattr(condition, "_PART_VMS", part)
        patch.setattr(measurements, "_PART_VMS", part)
        for number in range(10):
            now_s = ORIGIN_S + 1000.0 + 30.0 * number
            readings = {}
            for lane, fleet in enumerate(fleets):
                ids = [t.vm.id for t in fleet.inventory.in_phase(Phase.IN_SERVICE)]
                heard = [vm for at, vm in enumerate(ids) if at % 5 != lane or rng.random() < 0.5]
                work = np.where(np.arange(len(heard)) % 4 == 1, 10.0, 60.0) * rng.uniform(
                    0.9, 1.1, len(heard)
                )
                stamps = np.where(rng.random(len(heard)) < 0.1, now_s - 900.0, now_s)
                readings[fleet.name] = FleetReadings(tuple(heard), work, stamps)
            story.append(await conditions.judge(fleets, readings, now_s))
            story.append([conditions.of(fleet.name) for fleet in fleets])
    return story


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.integers(0, 2**31),
    st.integers(1, 30),
    st.integers(1, 7),
)
def test_fleets_judged_in_groups_and_parts_are_judged_as_all_at_once(sizes, seed, group, part):
    at_once = run_virtual(lambda: judged(sizes, seed, 10**9, 10**9))
    assert run_virtual(lambda: judged(sizes, seed, group, part)) == at_once


def test_the_story_of_those_judgements_is_one():
    story = run_virtual(lambda: judged([12, 9], 1, 5, 3))
    assert any(notes for notes in story[::2])
    assert any(each.slow for found in story[1::2] for each in found)


def test_others_run_while_many_vms_are_judged(monkeypatch):
    async def main() -> int:
        turns = [0]

        async def count() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)  # noqa: TID251  one turn of the loop, no time

        counting = asyncio.ensure_future(count())
        await judged([9000], 1, condition.GROUP_VMS, measurements._PART_VMS)
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting
        return turns[0]

    assert run_virtual(main) > 20
