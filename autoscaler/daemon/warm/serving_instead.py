"""VMs running for the pool that serve instead of entering it: demand needs them, or they may no longer be stopped.

A VM that operators protect while it is made or exercised keeps running, like any other protected VM: once it is ready it
serves, so that it is out of the balancer no longer than necessary. One that failed, or does not become ready, keeps running
unused, which is reported once. When the protection ends it is treated like any other.

Rules of this file: nothing here makes a call. An abandoned VM disappears from the listings by itself, and is only kept as it
is until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoscaler.daemon.vms.pool_tags import is_kept
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import FleetTick, Note

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet
    from autoscaler.daemon.warm.exercise_hooks import PreparingVm
    from autoscaler.daemon.warm.warm_pool import WarmPool


def must_run(t: TrackedVm, each: PreparingVm) -> bool:
    """Return whether a VM that runs for the pool must not be stopped: it is protected, in an Auto Scaling group, or given
    up.

    A VM that was already protected when its trial began returns to the pool.
    """
    return t.disowned or (is_kept(t.vm) and not each.guarded)


def ready_for_demand(fleet: Fleet, warm_pool: WarmPool, row: FleetTick) -> list[str]:
    """Return the VMs that are ready to enter the pool and serve instead, as many as demand lacks, so that none is made."""
    missing = max(row.desired - row.in_service - row.starting - row.start, 0)
    vms = fleet.inventory.vms
    ready = [i for i, each in warm_pool.preparing.items() if each.ready and not each.failed]
    return [i for i in ready if i in vms and vms[i].phase is Phase.PREPARING][:missing]


def serve_demand(fleet: Fleet, warm_pool: WarmPool, row: FleetTick, now_s: float) -> None:
    """If the pool cannot give what demand needs, let VMs serve that are ready to enter it."""
    for vm_id in ready_for_demand(fleet, warm_pool, row):
        _serve(fleet, warm_pool, vm_id, now_s)


def serve_kept_vms(fleet: Fleet, warm_pool: WarmPool, timeout_s: float, now_s: float) -> list[Note]:
    """Let VMs serve that people keep from being stopped, once they are ready; report others once.

    Args:
        fleet: The fleet of the pool.
        warm_pool: The pool.
        timeout_s: How long preparing may take.
        now_s: The current time.
    """
    notes = []
    for vm_id, each in list(warm_pool.preparing.items()):
        t = fleet.inventory.vms.get(vm_id)
        if t is None or t.phase is not Phase.PREPARING or t.disowned or not must_run(t, each):
            each.kept = False
            continue
        late = now_s - each.since_s >= timeout_s and not warm_pool.trials.has(vm_id)
        if each.ready and not each.failed:
            _serve(fleet, warm_pool, vm_id, now_s)
            text = f"{vm_id} is protected, or in an Auto Scaling group, and ready: it serves and is not stopped into the pool"
            notes.append(Note("pool_kept", fleet.name, text))
        elif not each.kept and (each.failed or late):
            each.kept = True
            why = each.failed or f"not ready within {timeout_s:g} s"
            text = f"{vm_id} is protected, or in an Auto Scaling group: it keeps running and does not serve, although {why}"
            notes.append(Note("pool_kept", fleet.name, text))
    return notes


def _serve(fleet: Fleet, warm_pool: WarmPool, vm_id: str, now_s: float) -> None:
    t = fleet.inventory.vms[vm_id]
    t.move(Phase.RUNNING, now_s)
    # It was not started for demand, so the length of its trial says nothing about how long starts take.
    t.ordered_at_s = None
    fleet.inventory.touch()
    warm_pool.served.add(vm_id, now_s)
    del warm_pool.preparing[vm_id]
