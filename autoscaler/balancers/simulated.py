"""The embedded cloud's balancer: it obeys at once, and a cordoned VM finishes its work.

For replays, the demo and tests: nothing real stands in front of simulated VMs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoscaler.ports import Clock, Member, Rotation, RotationView, Vm


class SimulatedBalancer:
    """A Balancer in memory.

    Args:
        clock: Gives the time of what is read.
        busy_s: How long a VM is busy after it was cordoned.
    """

    answers_at_once = True

    def __init__(self, clock: Clock, *, busy_s: float = 0.0) -> None:
        self._clock = clock
        self._busy_s = busy_s
        self._cordoned_at_s: dict[str, float] = {}
        self.sessions: dict[str, int] = {}
        """Fixed numbers of sessions by VM id; for tests."""
        self.lacks: set[str] = set()
        """Ids of VMs that the balancer does not have; for tests."""
        self.failures: dict[str, str] = {}
        """By action (look, admit, cordon), the error with which it fails; for tests."""

    async def look(self, vms: Sequence[Vm]) -> RotationView:
        """Return the rotation and sessions of these VMs."""
        return self._view(vms, "look")

    async def admit(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs new work."""
        if "admit" not in self.failures:
            for vm in vms:
                self._cordoned_at_s.pop(vm.id, None)
        return self._view(vms, "admit")

    async def cordon(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs no new work."""
        if "cordon" not in self.failures:
            for vm in vms:
                self._cordoned_at_s.setdefault(vm.id, self._clock.now())
        return self._view(vms, "cordon")

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    @property
    def cordoned(self) -> Mapping[str, float]:
        """By VM id, when it was cordoned."""
        return self._cordoned_at_s

    def _view(self, vms: Sequence[Vm], action: str) -> RotationView:
        now_s = self._clock.now()
        if action in self.failures:
            return RotationView({}, now_s, self.failures[action])
        return RotationView({vm.id: self._member(vm, now_s) for vm in vms}, now_s)

    def _member(self, vm: Vm, now_s: float) -> Member:
        if vm.id in self.lacks:
            return Member(Rotation.OUT, 0, "no entry", known=False)
        since_s = self._cordoned_at_s.get(vm.id)
        busy = since_s is None or now_s < since_s + self._busy_s
        rotation = Rotation.IN if since_s is None else Rotation.CORDONED
        return Member(rotation, self.sessions.get(vm.id, int(busy)), str(rotation))
