"""HAProxy as a Balancer, over its runtime socket; needs `level admin`.

A fleet may be behind several HAProxy processes: a VM is out of rotation when all of them say so, and its sessions are
the sum over all. If one process cannot be reached, nothing is known of the VMs, because it may still send them work.

VMs are matched to entries of the backend by their private address, or by the name of the entry.

After a reload, the process before serves its sessions to their end, but nobody can ask it. Sessions that a draining VM had there still
count as its own, until it is admitted again: otherwise it would look idle, and be stopped under them. How long such a VM is waited
for is up to the drain's timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autoscaler.balancers.haproxy_socket import HaproxyError, HaproxySocket, Process, StatRow
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


@dataclass(slots=True)
class _Seen:
    """What one place showed last.

    Attributes:
        process: Who answered; None if it never said.
        draining: Sessions of entries out of rotation, by name.
        left: Sessions that entries had in processes before a reload, by name; only of entries out of rotation at that time.
    """

    process: Process | None = None
    draining: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def note(self, rows: Iterable[StatRow], process: Process | None) -> None:
        """Note an answer."""
        if process is not None and self.process is not None and process.follows(self.process):
            for name, sessions in self.draining.items():
                self.left[name] = self.left.get(name, 0) + sessions
        self.process = process or self.process
        busy = {row.name: row.sessions + row.queued for row in rows if _rotation(row) is not Rotation.IN}
        self.draining = {name: sessions for name, sessions in busy.items() if sessions}


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
        self._seen = {place: _Seen() for place in places}

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
            rows = await self._rows(socket)
            if not state:
                return self._members(vms, rows, socket.place)
            names = [row.name for vm in vms for row in rows.get(key_of(vm, self._by), ())]
            refused = await self._set(socket, names, state)
            rows = await self._rows(socket)
        except HaproxyError as error:
            return {}, str(error)
        members, error_text = self._members(vms, rows, socket.place)
        return members, "; ".join(filter(None, (refused, error_text)))

    async def _rows(self, socket: HaproxySocket) -> dict[str, list[StatRow]]:
        """Return the entries of one process by what VMs are matched by."""
        rows, process = await socket.table_and_process(self._backend)
        self._seen[socket.place].note(rows, process)
        return rows_by_key(rows, self._by)

    async def _set(self, socket: HaproxySocket, names: Sequence[str], state: str) -> str:
        if not names:
            return ""
        answers = await socket.ask([f"set server {self._backend}/{name} state {state}" for name in names])
        if state == "ready":
            for name in names:
                self._seen[socket.place].left.pop(name, None)
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
                left = self._seen[place].left
                found[vm.id] = _joined([_member(row, left.get(row.name, 0)) for row in entries])
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


def _member(row: StatRow, left: int) -> Member:
    """Return what an entry shows, and the sessions that it left behind in a process before a reload."""
    detail = f"{row.status}, with {left} from before a reload" if left else row.status
    return Member(_rotation(row), row.sessions + row.queued + left, detail)


def _rotation(row: StatRow) -> Rotation:
    if row.status.startswith("UP") or row.status == "no check":
        return Rotation.IN
    if row.status.startswith(("DRAIN", "NOLB")):
        return Rotation.CORDONED
    # MAINT, DOWN, and DOWN 1/2 on its way up.
    return Rotation.OUT


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
