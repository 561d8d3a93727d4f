"""Checks that HAProxy knows a fleet's VMs and runs health checks on them, before a VM must enter rotation.

Rules of this file: nothing is changed; every request has a time limit; a failure is a finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.balancers.haproxy import JoinBy, key_of, rows_by_key
from autoscaler.balancers.haproxy_socket import HaproxyError, HaproxySocket
from autoscaler.ports import Vm, VmState
from autoscaler.ports.findings import Finding, Level
from autoscaler.words import counted

_CHECK = "balancer"
_NO_CHECK = "no check"


async def examine_haproxy(
    fleet: str, places: Sequence[str], backend: str, by: JoinBy, timeout_s: float, vms: Sequence[Vm]
) -> list[Finding]:
    """Return what each HAProxy process lacks; one finding for a process that lacks nothing.

    Args:
        fleet: Name of the fleet.
        places: The runtime sockets of the processes.
        backend: The fleet's backend.
        by: What matches an entry of the backend to a VM.
        timeout_s: Longest time of one request, in seconds of the event loop.
        vms: The fleet's VMs.
    """
    found: list[Finding] = []
    for place in places:
        found += await _examined(fleet, HaproxySocket(place, timeout_s), backend, by, vms)
    return found


async def _examined(
    fleet: str, socket: HaproxySocket, backend: str, by: JoinBy, vms: Sequence[Vm]
) -> list[Finding]:
    try:
        rows = rows_by_key(await socket.table(backend), by)
    except HaproxyError as error:
        fix = (
            "run as the daemon's user; that user must reach the socket (`stats socket PATH mode 660 group ... level "
            "admin`), and balancer.haproxy.backend must be the name of a backend"
        )
        return [Finding(_CHECK, Level.PROBLEM, str(error), fix, fleet)]
    found = []
    there = [vm for vm in vms if vm.state is not VmState.TERMINATED]
    if absent := [vm for vm in there if key_of(vm, by) not in rows]:
        shown = ", ".join(f"{vm.id} ({key_of(vm, by) or f'without {by}'})" for vm in absent[:3])
        count = counted(len(absent), "VM has", "VMs have")
        text = (
            f"{count} no entry in backend {backend} of HAProxy at {socket.place}: {shown}; none of them would ever get "
            "work"
        )
        fix = "add a `server` line for each, or correct balancer.haproxy.join (address, id or name)"
        found.append(Finding(_CHECK, Level.PROBLEM, text, fix, fleet))
    entries = [row for vm in there for row in rows.get(key_of(vm, by), ())]
    if unchecked := [row.name for row in entries if row.status == _NO_CHECK]:
        count = counted(len(unchecked), "entry", "entries")
        text = (
            f"{count} of backend {backend} of HAProxy at {socket.place} without health checks ({', '.join(unchecked[:3])}): "
            "work is sent to VMs that are stopped or still boot"
        )
        fix = "add `check` to the `server` lines (or to `default-server`), with `inter` and `rise` that fit vm.start_time"
        found.append(Finding(_CHECK, Level.WARNING, text, fix, fleet))
    if found:
        return found
    text = f"HAProxy at {socket.place} knows and checks all {len(there)} VMs in backend {backend}"
    return [Finding(_CHECK, Level.OK, text, "", fleet)]
