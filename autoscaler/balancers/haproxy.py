"""HAProxy as a Balancer, over its runtime socket; needs `level admin`.

A fleet may be behind several HAProxy processes: a VM is out of rotation when all of them say so, and its sessions are
the sum over all. If one process cannot be reached, nothing is known of the VMs, because it may still send them work.

VMs are matched to entries of the backend by their private address, or by the name of the entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

from autoscaler.balancers.haproxy_socket import HaproxyError, HaproxySocket, StatRow
from autoscaler.ports import Clock, Member, Rotation, RotationView, Vm
from autoscaler.words import some

JoinBy = Literal["address", "id", "name"]

_NAME_TAG = "Name"
_SHOWN = 3


def key_of(vm: Vm, by: JoinBy) -> str:
    """Return what the VM is matched by in a backend; empty if it has none."""
    if by == "address":
        return vm.address or ""
    return vm.id if by == "id" else vm.tags.get(_NAME_TAG, "")


def rows_by_key(rows: Sequence[StatRow], by: JoinBy) -> dict[str, list[StatRow]]:
    """Return the entries of a backend by what VMs are matched by; one address may have several entries."""
    found: dict[str, list[StatRow]] = {}
    for row in rows:
        if row.name != "BACKEND":
            found.setdefault(row.address if by == "address" else row.name, []).append(row)
    return found


class HaproxyBalancer:
    """A Balancer over one or several HAProxy processes.

    Args:
        places: Their runtime sockets: paths, or host:port.
        backend: The fleet's backend.
        by: What matches an entry of the backend to a VM.
        clock: Gives the time of what is read.
        timeout_s: Longest time of one request to one process, in seconds of the event loop.
    """

    def __init__(
        self, places: Sequence[str], backend: str, by: JoinBy, clock: Clock, *, timeout_s: float = 2.0
    ) -> None:
        self._sockets = [HaproxySocket(place, timeout_s) for place in places]
        self._backend = backend
        self._by = by
        self._clock = clock

    async def look(self, vms: Sequence[Vm]) -> RotationView:
        """Return the rotation and sessions of these VMs."""
        return await self._on_all(vms, "")

    async def admit(self, vms: Sequence[Vm]) -> RotationView:
        """Set the VMs' entries to ready; entries with health checks are in rotation once these pass."""
        return await self._on_all(vms, "ready")

    async def cordon(self, vms: Sequence[Vm]) -> RotationView:
        """Set the VMs' entries to drain."""
        return await self._on_all(vms, "drain")

    async def close(self) -> None:
        """Do nothing: no resource is held between calls."""

    async def _on_all(self, vms: Sequence[Vm], state: str) -> RotationView:
        read_at_s = self._clock.now()
        views = await asyncio.gather(*(self._on_one(each, vms, state) for each in self._sockets))
        errors = [error for _, error in views if error]
        members = {}
        for vm in vms:
            seen = [found[vm.id] for found, _ in views if vm.id in found]
            if len(seen) == len(self._sockets):
                members[vm.id] = _joined(seen)
        return RotationView(members, read_at_s, "; ".join(dict.fromkeys(errors)))

    async def _on_one(
        self, socket: HaproxySocket, vms: Sequence[Vm], state: str
    ) -> tuple[dict[str, Member], str]:
        """Set the state of the VMs' entries, if one is given; return the VMs as one process then sees them, and any error."""
        try:
            rows = rows_by_key(await socket.table(self._backend), self._by)
            if not state:
                return self._members(vms, rows, socket.place)
            names = [row.name for vm in vms for row in rows.get(key_of(vm, self._by), ())]
            refused = await self._set(socket, names, state)
            rows = rows_by_key(await socket.table(self._backend), self._by)
        except HaproxyError as error:
            return {}, str(error)
        members, error_text = self._members(vms, rows, socket.place)
        return members, "; ".join(filter(None, (refused, error_text)))

    async def _set(self, socket: HaproxySocket, names: Sequence[str], state: str) -> str:
        if not names:
            return ""
        answers = await socket.ask([f"set server {self._backend}/{name} state {state}" for name in names])
        refused = [(name, said) for name, said in zip(names, answers, strict=True) if said]
        if not refused:
            return ""
        name, said = refused[0]
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        return f"HAProxy at {socket.place} refuses state {state} for {name}: {said}{more}"

    def _members(
        self, vms: Sequence[Vm], rows: Mapping[str, list[StatRow]], place: str
    ) -> tuple[dict[str, Member], str]:
        found, unknown = {}, []
        for vm in vms:
            entries = rows.get(key_of(vm, self._by))
            if entries:
                found[vm.id] = _joined([_member(row) for row in entries])
            else:
                unknown.append(f"{vm.id} ({key_of(vm, self._by) or f'without {self._by}'})")
                found[vm.id] = Member(Rotation.OUT, 0, "not in the backend", known=False)
        if not unknown:
            return found, ""
        there = ", ".join(sorted(rows)[:_SHOWN]) or "none"
        return found, (
            f"backend {self._backend} of HAProxy at {place} has no entry for {some(unknown, _SHOWN)} by "
            f"{self._by}; it has {there}{' ...' if len(rows) > _SHOWN else ''}"
        )


def _member(row: StatRow) -> Member:
    status = row.status
    if status.startswith("UP") or status == "no check":
        rotation = Rotation.IN
    elif status.startswith(("DRAIN", "NOLB")):
        rotation = Rotation.CORDONED
    else:
        # MAINT, DOWN, and DOWN 1/2 on its way up.
        rotation = Rotation.OUT
    return Member(rotation, row.sessions + row.queued, status)


def _joined(members: Sequence[Member]) -> Member:
    """Combine what several entries or processes report of one VM."""
    if len(members) == 1:
        return members[0]
    rotations = {member.rotation for member in members}
    # A VM is in rotation if any entry still sends work, and out only if all are.
    rotation = next(r for r in (Rotation.IN, Rotation.CORDONED, Rotation.OUT) if r in rotations)
    sessions = [member.sessions for member in members if member.sessions is not None]
    total = sum(sessions) if len(sessions) == len(members) else None
    said = ", ".join(dict.fromkeys(member.detail for member in members))
    return Member(rotation, total, said, any(member.known for member in members))
