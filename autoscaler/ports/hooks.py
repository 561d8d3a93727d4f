"""Hooks on VMs, during an exercise or after a start: a patch, a custom check; and their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaler.ports.provider import Vm


@dataclass(frozen=True, slots=True)
class HookResult:
    """What came of one run.

    Attributes:
        well: True where it went well, False where the VM failed it, None where it could not be run at all, which is no
            fault of the VM.
        said: For a person, the end of what it said, or why it was not run.
    """

    well: bool | None
    said: str = ""


class VmHook(Protocol):
    """Does something on or for a VM that runs, is ready, and gets no work.

    Contract: it ends within a time of its own and never raises; what goes wrong is in the result.
    """

    @property
    def timeout_s(self) -> float:
        """Longest time of one run, in seconds of the event loop."""
        ...

    async def run(self, vm: Vm) -> HookResult:
        """Do it."""
        ...

    async def close(self) -> None:
        """Release what is held."""
        ...
