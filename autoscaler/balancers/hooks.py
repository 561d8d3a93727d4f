"""VM hooks that run on this machine: an operator's program.

    PROGRAM [ARGUMENT ...]        with AUTOSCALER_VM_ID, AUTOSCALER_VM_ADDRESS, AUTOSCALER_VM_PUBLIC_ADDRESS,
                                  AUTOSCALER_FLEET, and AUTOSCALER_ACTION, which is exercise or start

Exit code 0 means that the VM is well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from autoscaler.balancers.program import SHOWN, inherited, of_vm, run_program
from autoscaler.ports import Vm
from autoscaler.ports.hooks import HookResult


class CommandHook:
    """A `VmHook` that runs a program on this machine.

    Args:
        command: The program and its arguments.
        timeout_s: Longest time of one run, in seconds of the event loop.
        action: What the program is run for.
        environment: The variables from which the program may inherit; None for those of this process.
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
        """Run the program for this VM, and return the result."""
        name = self._command[0]
        try:
            code, output = await run_program(
                self._command, self._inherited | of_vm(vm, self._action), self.timeout_s
            )
        except TimeoutError:
            return HookResult(
                well=False, message=f"{name} did not end within {self.timeout_s:g} s and was ended"
            )
        except OSError as error:
            return HookResult(
                well=None, message=f"{name} cannot be run: {(error.strerror or str(error)).lower()}"
            )
        said = " ".join(output.split())[-SHOWN:]
        if code:
            return HookResult(
                well=False, message=f"{name} ended with code {code}: {said or 'it said nothing'}"
            )
        return HookResult(well=True, message=said)

    async def close(self) -> None:
        """Do nothing: no resource is held between runs."""
