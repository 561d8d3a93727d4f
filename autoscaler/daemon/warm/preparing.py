"""Readiness of pool VMs: every check that the policy asks for, so that no VM enters the pool half prepared.

The VM runs, its image has reported that it is done (if the policy asks for that), the provider's status checks have passed
(if asked for), and the policy's probe finds it ready. Silence and failure mean not ready.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from autoscaler.daemon.bounded import within
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.pool_tags import PREPARED_TAG, is_preparing
from autoscaler.daemon.vms.tracked import TrackedVm


async def ready(
    fleet: Fleet,
    running: Sequence[TrackedVm],
    running_s: Mapping[str, float],
    now_s: float,
    timeout_s: float,
) -> list[str]:
    """Return the ids of the VMs that are ready to enter the pool.

    Args:
        fleet: The fleet of the pool.
        running: VMs that run for the pool.
        running_s: By id, when each was first seen running.
        now_s: The current time.
        timeout_s: Longest wait for each of the two requests, in seconds of the event loop.
    """
    section, readiness = fleet.policy.refill, fleet.policy.readiness
    vms = [t.vm for t in running]
    if section is not None and section.prepared_tag:
        # A VM that is exercised was prepared before, and its image reports that only once.
        vms = [vm for vm in vms if vm.tags.get(PREPARED_TAG) == "true" or not is_preparing(vm)]
    if vms and (section is None or section.status_checks):
        ids = [vm.id for vm in vms]
        passed = await _asked(lambda: fleet.provider.checked(ids), timeout_s)
        vms = [vm for vm in vms if vm.id in passed]
    if readiness.probe == "running":
        # The fleet's own probe is not used here: it remembers only the VMs that it was last asked about.
        return [vm.id for vm in vms if now_s - running_s.get(vm.id, now_s) >= readiness.after_s]
    if not vms:
        return []
    passed = await _asked(lambda: fleet.own_probe.ready(vms), timeout_s)
    return [vm.id for vm in vms if vm.id in passed]


async def _asked(call: Callable[[], Awaitable[frozenset[str]]], timeout_s: float) -> frozenset[str]:
    """Return the answer of an adapter; empty if the call fails."""
    try:
        return frozenset(await within(call, timeout_s))
    except Exception:  # noqa: BLE001  a VM that is not known to be ready is not ready
        return frozenset()
