"""VMs made or exercised for the pool that serve instead: corrects their tags to say that they were seen ready.

Why: tags are the pool's memory. A later run takes a VM whose tag says `preparing` for one that has never served, stops it
without draining it, and deletes it if the probe keeps failing; and one that returns from serving would lie in the pool unused
until it is deleted.

A VM that the daemon finds running with the tag `preparing`, for longer than preparing may take, has served: otherwise the
previous run would have deleted it. It is probed like any other VM that was found running.

Rules of this file: listings confirm the correction; until then the tag is written again in the background, once a minute.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from autoscaler.daemon.acts.fleet_drains import is_ours
from autoscaler.daemon.bounded import within
from autoscaler.daemon.vms.pool_tags import (
    EXERCISED_AT_TAG,
    POOL_TAG,
    PREPARED_TAG,
    READY,
    is_preparing,
    moment_of,
)
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.daemon.warm.refill import preparing_timeout_s
from autoscaler.ports import Vm, VmState

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

WRITE_WITHIN_S = 30.0
"""Longest wait for the tag, in seconds of the event loop."""
_AGAIN_S = 60.0


class Served:
    """The VMs of one fleet whose tags must be corrected."""

    def __init__(self) -> None:
        self.ids: dict[str, float] = {}
        """By VM, when it was seen ready, until listings show that its tags say so."""
        self._writing: asyncio.Task[None] | None = None
        self._next_s = float("-inf")

    def add(self, vm_id: str, now_s: float) -> None:
        """Add a ready VM that begins to serve."""
        self.ids[vm_id] = math.floor(now_s)
        self._next_s = float("-inf")

    def notice(self, serving: Iterable[TrackedVm], now_s: float) -> None:
        """Add VMs in service whose tags do not say that they were seen ready."""
        for t in serving:
            if is_preparing(t.vm) and t.vm.id not in self.ids:
                self.add(t.vm.id, now_s)

    def follow(self, fleet: Fleet, now_s: float) -> None:
        """After a listing, forget VMs that are gone or whose tags are correct, and begin to write the tags of the others.

        Where another daemon acts on the fleet, or may, the tags are left to it.
        """
        vms = fleet.inventory.vms
        if not is_ours(fleet):
            self.ids = {i: at_s for i, at_s in self.ids.items() if i in vms and is_preparing(vms[i].vm)}
            return
        self.ids = {
            vm_id: at_s
            for vm_id, at_s in self.ids.items()
            if vm_id in vms and not _is_told(vms[vm_id].vm, at_s)
        }
        # A clock that was set back must not delay the next write.
        waits = now_s < self._next_s <= now_s + _AGAIN_S
        if self.ids and not waits and (self._writing is None or self._writing.done()):
            self._next_s = now_s + _AGAIN_S
            self._writing = asyncio.create_task(_write(fleet, sorted(self.ids), now_s))


def recognise(fleet: Fleet, known: Container[str], now_s: float) -> None:
    """After a listing, let VMs serve that look as if they were being prepared, but must have served under an earlier run.

    Args:
        fleet: The fleet of the VMs.
        known: Ids of the VMs that this run prepares or tries.
        now_s: The current time.
    """
    section = fleet.policy.refill
    longest_s = preparing_timeout_s(fleet)
    for t in fleet.inventory.in_phase(Phase.PREPARING):
        if t.vm.id in known or t.order is not None or not is_preparing(t.vm):
            continue
        done = section is None or not section.prepared_tag or t.vm.tags.get(PREPARED_TAG) == "true"
        if done and t.vm.state is VmState.RUNNING and now_s - t.vm.launched_at_s >= longest_s:
            fleet.inventory.touch()
            t.move(Phase.RUNNING, now_s)


def _is_told(vm: Vm, at_s: float) -> bool:
    return not is_preparing(vm) and (moment_of(vm, EXERCISED_AT_TAG) or float("-inf")) >= at_s


async def _write(fleet: Fleet, vm_ids: list[str], now_s: float) -> None:
    tags = {POOL_TAG: READY, EXERCISED_AT_TAG: f"{now_s:.0f}"}
    try:
        await within(lambda: fleet.provider.tag(vm_ids, tags), WRITE_WITHIN_S)
    except Exception:  # noqa: BLE001  whatever an adapter raises: a listing shows that the tag is not written
        return
