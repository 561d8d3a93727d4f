"""A balancer behind an operator's command: one program, run without a shell, that admits and cordons VMs.

    PROGRAM [ARGUMENT ...] admit|cordon|look

One run per VM, with the VM in the environment: AUTOSCALER_VM_ID, AUTOSCALER_VM_ADDRESS, AUTOSCALER_FLEET,
AUTOSCALER_ACTION. Exit code 0 means done. The first word of the output is the VM's rotation afterwards: in, cordoned or
out, or unknown if the balancer has no such VM. An optional second word is the number of its sessions. If the program
prints nothing, the requested rotation is assumed, and sessions are unknown. With any other exit code or word, nothing
is known of the VM.

`program` defines how a program is run and what it inherits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from autoscaler.balancers.program import SHOWN, inherited, of_vm, run_program
from autoscaler.ports import Clock, Member, Rotation, RotationView, Vm

UNKNOWN = "unknown"
"""Output of a program for a VM that its balancer does not have."""
AT_ONCE = 8
"""Most runs at the same time."""


class CommandBalancer:
    """A Balancer that runs an operator's command.

    Args:
        command: The program and its first arguments.
        clock: Gives the time of what is read.
        timeout_s: Longest time of one run, in seconds of the event loop.
        environment: The variables from which the program may inherit; None for those of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        clock: Clock,
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = tuple(command)
        self._clock = clock
        self._timeout_s = timeout_s
        self._inherited = inherited(environment)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def look(self, vms: Sequence[Vm]) -> RotationView:
        """Return the rotation and sessions of these VMs."""
        return await self._on_all(vms, "look", None)

    async def admit(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs new work."""
        return await self._on_all(vms, "admit", Rotation.IN)

    async def cordon(self, vms: Sequence[Vm]) -> RotationView:
        """Give these VMs no new work."""
        return await self._on_all(vms, "cordon", Rotation.CORDONED)

    async def close(self) -> None:
        """Do nothing: no resource is held between calls."""

    async def _on_all(self, vms: Sequence[Vm], action: str, silent: Rotation | None) -> RotationView:
        read_at_s = self._clock.now()
        found = await asyncio.gather(*(self._on_one(vm, action, silent) for vm in vms))
        members = {vm.id: member for vm, (member, _) in zip(vms, found, strict=True) if member is not None}
        errors = [error for _, error in found if error]
        more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        return RotationView(members, read_at_s, errors[0] + more if errors else "")

    async def _on_one(self, vm: Vm, action: str, silent: Rotation | None) -> tuple[Member | None, str]:
        what = f"{self._command[0]} {action} for {vm.id}"
        async with self._places:
            try:
                environment = self._inherited | of_vm(vm, action)
                code, output = await run_program((*self._command, action), environment, self._timeout_s)
            except TimeoutError:
                return None, f"{what} did not end within {self._timeout_s:g} s and was ended"
            except OSError as error:
                return None, f"{what} cannot be run: {(error.strerror or str(error)).lower()}"
        if code:
            said = output.strip()[-SHOWN:] or "it said nothing"
            return None, f"{what} ended with code {code}: {said}"
        return _read(output, what, silent)


def _read(output: str, what: str, silent: Rotation | None) -> tuple[Member | None, str]:
    words = output.split()
    if not words:
        if silent is None:
            return None, f"{what} printed nothing; it must print in, cordoned or out"
        return Member(silent, None), ""
    if words == [UNKNOWN]:
        # 0 sessions, because there is no entry that could have any; other balancers report the same.
        return Member(
            Rotation.OUT, 0, UNKNOWN, known=False
        ), f"{what} says that the balancer does not have it"
    rest = words[1:2]
    if words[0] not in tuple(Rotation) or not all(word.isdecimal() for word in rest):
        return None, (
            f"{what} printed {output.strip()[:SHOWN]!r}; it must print in, cordoned or out, and after it a number "
            "of sessions where it knows one, or unknown"
        )
    return Member(Rotation(words[0]), int(rest[0]) if rest else None), ""
