"""Hooks on exercised VMs (a patch, an operator's own check), and what follows from the result.

    tried ─ ready ─► hook under way ─► well, or it could not be run: back into the pool
                                  └──► failed: a tag says so, stopped, not started until an operator releases it

Rules of this file: a hook runs in the background, within a time limit, and holds up nothing else. Information that must outlive
the daemon is a tag on the VM. A VM is not blamed for a hook that could not be run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.daemon.bounded import within
from autoscaler.daemon.vms.pool_tags import QUARANTINED_TAG
from autoscaler.ports import Note, OutcomeKind, Vm
from autoscaler.ports.hooks import HookResult

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

SLACK_S = 30.0
"""Time beyond its own limit after which a hook that has not ended is left behind, in seconds."""
_TAG_WITHIN_S = 10.0
_LONGEST_TAG = 200
FAILED = "its exercise failed: "
AGAIN_S = 600.0
"""Time for which no trial is begun after one could not begin, in seconds."""


@dataclass(slots=True)
class PreparingVm:
    """One VM that runs for the pool and not for demand.

    Attributes:
        since_s: When it was made or started.
        trying: Whether it was in the pool before and is exercised.
        running_s: When it was first seen running; None before.
        ready: Whether it may enter the pool.
        not_before_s: It is left alone until this time because a call for it failed.
        failed: Why it is stopped and not started again; empty if it is well.
        guarded: Whether it was protected before its trial.
        kept: Whether it was reported that it is not stopped although its time is over.
        refused: How many times in a row it could not be stopped into the pool.
    """

    since_s: float
    trying: bool
    running_s: float | None = None
    ready: bool = False
    not_before_s: float = float("-inf")
    failed: str = ""
    guarded: bool = False
    kept: bool = False
    refused: int = 0


class Trials:
    """The hooks in progress on the VMs of one fleet."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[HookResult]] = {}
        self._refused_at_s = float("-inf")

    def refused(self, now_s: float) -> None:
        """Note that a trial could not begin."""
        self._refused_at_s = now_s

    def waits(self, now_s: float) -> bool:
        """Return whether a trial could not begin recently, so that none is begun now."""
        # A clock that was set back must not hold trials for as long as it was set back.
        return 0.0 <= now_s - self._refused_at_s < AGAIN_S

    def has(self, vm_id: str) -> bool:
        """Return whether a hook is in progress on this VM, or its result has not been applied yet."""
        return vm_id in self._under_way

    def begins(self, fleet: Fleet, vm: Vm) -> bool:
        """Begin the fleet's hook on a ready VM; return False if the fleet has none."""
        if fleet.hook is None:
            return False
        self._under_way[vm.id] = asyncio.create_task(_run(fleet, vm))
        return True

    def settle(self, fleet: Fleet, preparing: Mapping[str, PreparingVm], now_s: float) -> list[Note]:
        """Apply the results of hooks that have ended, and cancel the hooks of VMs that are no longer tried."""
        notes: list[Note] = []
        for vm_id, task in list(self._under_way.items()):
            each = preparing.get(vm_id)
            if each is None:
                task.cancel()
                del self._under_way[vm_id]
            elif task.done():
                del self._under_way[vm_id]
                notes.append(_settled(fleet, vm_id, each, task, now_s))
        return notes


def _settled(
    fleet: Fleet, vm_id: str, each: PreparingVm, task: asyncio.Task[HookResult], now_s: float
) -> Note:
    result = HookResult(well=None, message="it was ended from outside") if task.cancelled() else task.result()
    if result.well is False:
        each.failed = FAILED + result.message
        t = fleet.inventory.vms.get(vm_id)
        if t is not None:
            t.quarantined_until_s, t.quarantine_reason = float("inf"), each.failed
            # If the stop fails, the VM must not serve.
            t.dismissed = each.failed
            fleet.inventory.touch()
        text = (
            f"{vm_id} failed its exercise and is not started again: {result.message}. Look at it, then `autoscaler pool "
            f"release {fleet.name} {vm_id}` or `autoscaler pool evict {fleet.name} {vm_id}`"
        )
        return Note("exercise_failed", fleet.name, text)
    each.ready = True
    if result.well is None:
        text = f"{vm_id} goes back into the pool unchecked, since {result.message}"
        return Note("exercise_not_run", fleet.name, text)
    said = f"; it said: {result.message}" if result.message else ""
    return Note("pool_ready", fleet.name, f"{vm_id} is ready after {now_s - each.since_s:.0f} s{said}")


async def _run(fleet: Fleet, vm: Vm) -> HookResult:
    """Run the hook and return its result; if the VM failed it, a tag says so, or the result says why the tag is missing."""
    hook = fleet.hook
    assert hook is not None
    try:
        answer: object = await within(lambda: hook.run(vm), hook.timeout_s + SLACK_S)
    except TimeoutError:
        return HookResult(well=None, message=f"it did not end within {hook.timeout_s + SLACK_S:g} s")
    except Exception as error:  # noqa: BLE001  an adapter's bug is not the VM's fault
        return HookResult(well=None, message=f"unexpected {type(error).__name__}: {error}; please report")
    result = (
        answer
        if isinstance(answer, HookResult)
        else HookResult(well=None, message=f"it answers {answer!r:.50}")
    )
    if result.well is not False:
        return result
    trouble = await _tagged(fleet, vm, f"its exercise: {result.message}"[:_LONGEST_TAG])
    return HookResult(well=False, message=result.message + trouble)


async def _tagged(fleet: Fleet, vm: Vm, value: str) -> str:
    try:
        outcomes = await within(lambda: fleet.provider.tag([vm.id], {QUARANTINED_TAG: value}), _TAG_WITHIN_S)
    except Exception as error:  # noqa: BLE001  the VM is quarantined until the daemon ends, and that is reported
        why = f"{type(error).__name__} {error}".rstrip()
    else:
        failed = [o for o in outcomes if o.kind is not OutcomeKind.ACCEPTED]
        if not failed:
            return ""
        why = f"{failed[0].code} {failed[0].message}".rstrip()
    return f" (the tag {QUARANTINED_TAG} could not be written, so a restart forgets it: {why})"
