"""Hooks on VMs, during an exercise or after a start: a patch, a custom check; and their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaler.ports.provider import Vm


@dataclass(frozen=True, slots=True)
class HookResult:
    """Result of one run of a hook.

    Attributes:
        well: True if the run succeeded, False if the VM failed it, None if it could not be run, which is no fault of the VM.
        message: For people, the end of its output, or why it was not run.
    """

    well: bool | None
    message: str = ""


class VmHook(Protocol):
    """Acts on a running, ready VM that gets no work.

    Contract: a run ends within its own time limit and never raises; errors are in the result.
    """

    @property
    def timeout_s(self) -> float:
        """Time limit of one run, in seconds of the event loop."""
        ...

    async def run(self, vm: Vm) -> HookResult:
        """Run the hook for this VM."""
        ...

    async def close(self) -> None:
        """Release resources."""
        ...
