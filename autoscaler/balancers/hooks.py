"""Hooks of VMs that run here: a program of the operator's, and one for runs that touch nothing real.

    PROGRAM [ARGUMENT ...]        with AUTOSCALER_VM_ID, AUTOSCALER_VM_ADDRESS, AUTOSCALER_VM_PUBLIC_ADDRESS,
                                  AUTOSCALER_FLEET, and AUTOSCALER_ACTION, which is exercise or start

Exit code 0 means that the VM is well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from autoscaler.balancers.program import SHOWN, inherited, of_vm, run_program
from autoscaler.ports import Clock, Vm
from autoscaler.ports.hooks import HookResult


class CommandHook:
    """An VmHook that runs a program on this machine.

    Args:
        command: The program and its arguments.
        timeout_s: Longest time of one run, in seconds of the event loop.
        action: What it is run for.
        environment: What the program may inherit; None for this process's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        action: Literal["exercise", "start"] = "exercise",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = tuple(command)
        self._action = action
        self.timeout_s = timeout_s
        self._inherited = inherited(environment)

    async def run(self, vm: Vm) -> HookResult:
        """Run the program for this VM."""
        name = self._command[0]
        try:
            code, output = await run_program(
                self._command, self._inherited | of_vm(vm, self._action), self.timeout_s
            )
        except TimeoutError:
            return HookResult(
                well=False, said=f"{name} did not end within {self.timeout_s:g} s and was ended"
            )
        except OSError as error:
            return HookResult(
                well=None, said=f"{name} cannot be run: {(error.strerror or str(error)).lower()}"
            )
        said = " ".join(output.split())[-SHOWN:]
        if code:
            return HookResult(well=False, said=f"{name} ended with code {code}: {said or 'it said nothing'}")
        return HookResult(well=True, said=said)

    async def close(self) -> None:
        """Nothing is held between runs."""


class SimulatedHook:
    """An VmHook for the embedded cloud and for tests: it takes its time and answers what it is told to.

    Args:
        clock: Time.
        took_s: How long a run takes, in seconds of the clock.
        answer: What comes of it, by VM; by default all are well.
    """

    def __init__(
        self, clock: Clock, *, took_s: float = 5.0, answer: Callable[[Vm], HookResult] | None = None
    ) -> None:
        self._clock = clock
        self._took_s = took_s
        self._answer = answer or (lambda _: HookResult(well=True))
        self.timeout_s = took_s + 60.0
        self.runs: list[tuple[float, str]] = []
        """Beginning of each run by the clock, and the VM."""

    async def run(self, vm: Vm) -> HookResult:
        """Wait, and answer."""
        self.runs.append((self._clock.now(), vm.id))
        await self._clock.sleep_until(self._clock.monotonic() + self._took_s)
        return self._answer(vm)

    async def close(self) -> None:
        """Nothing is held."""
