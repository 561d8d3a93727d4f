"""The arrival command: run for a VM after each start, before the VM gets work.

    runs ─► its probe passes ─► command, once per start ─► in service, or admitted by the balancer
                                   │ failed: reported, and tried again; until it succeeds, the VM is not ready

Why: a VM that was off for long returns with another public address, a wrong clock, and expired tokens.

Rules of this file: commands run in the background, each within its own time limit. If a command cannot be run at all,
that is reported and the VM serves: it is not at fault, and a fleet without VMs serves no work. A VM that was started
long before the daemon counts as arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.daemon.bounded import within
from autoscaler.ports import Clock, Note, ReadinessProbe, Vm
from autoscaler.ports.hooks import HookResult, VmHook

AGAIN_S = 30.0
"""Time after which a failed command is run again for the VM, in seconds of the clock."""
ARRIVED_S = 300.0
"""A VM that was started at least this many seconds before this object was made counts as arrived."""
_SLACK_S = 30.0


@dataclass(slots=True)
class _Run:
    """The command for one start of one VM.

    Attributes:
        launched_at_s: Launch time of the VM in that start.
        task: The running command; None between two attempts.
        again_at_s: When to try again.
    """

    launched_at_s: float
    task: asyncio.Task[HookResult] | None
    again_at_s: float = 0.0


class Arrivals:
    """Runs the arrival command for the VMs of one fleet.

    Args:
        hook: The command.
        clock: The source of time.
    """

    def __init__(self, hook: VmHook, clock: Clock) -> None:
        self.hook = hook
        self._clock = clock
        self._began_at_s = clock.now()
        self._runs: dict[str, _Run] = {}
        self._arrived: dict[str, float] = {}
        """By id, the launch for which the command has been run."""
        self._news: list[Note] = []

    def after(self, probe: ReadinessProbe) -> ReadinessProbe:
        """Return a probe that reports a VM ready once `probe` does and the command has been run."""
        return _Arrival(probe, self)

    def take_news(self) -> list[Note]:
        """Return what deserves an event since the last call."""
        news, self._news = self._news, []
        return news

    async def close(self) -> None:
        """Cancel the running commands and close the hook."""
        for run in self._runs.values():
            if run.task is not None:
                run.task.cancel()
        self._runs.clear()
        await self.hook.close()

    def arrived(self, asked: Sequence[Vm], ready: frozenset[str]) -> frozenset[str]:
        """Return the ready VMs for which the command has been run since their start; begin it for the others.

        Args:
            asked: VMs that run and do not serve yet; what is known of other VMs is forgotten.
            ready: Ids of those that are ready apart from the command.
        """
        ids = {vm.id for vm in asked}
        for vm_id in self._runs.keys() - ids:
            if (task := self._runs.pop(vm_id).task) is not None:
                task.cancel()
        self._arrived = {vm_id: at_s for vm_id, at_s in self._arrived.items() if vm_id in ids}
        return frozenset(vm.id for vm in asked if vm.id in ready and self._has_arrived(vm))

    def _has_arrived(self, vm: Vm) -> bool:
        if vm.launched_at_s <= self._began_at_s - ARRIVED_S or self._arrived.get(vm.id) == vm.launched_at_s:
            return True
        now_s = self._clock.now()
        run = self._runs.get(vm.id)
        if run is None or run.launched_at_s != vm.launched_at_s:
            if run is not None and run.task is not None:
                run.task.cancel()
            self._runs[vm.id] = _Run(vm.launched_at_s, asyncio.create_task(self._run(vm)))
            return False
        if run.task is None:
            if now_s >= run.again_at_s:
                run.task = asyncio.create_task(self._run(vm))
            return False
        if not run.task.done():
            return False
        result = HookResult(well=None, message="it was ended") if run.task.cancelled() else run.task.result()
        if result.well is False:
            run.task, run.again_at_s = None, now_s + AGAIN_S
            text = f"{vm.id} does not serve yet: {result.message}; tried again in {AGAIN_S:g} s"
            self._news.append(Note("arrival_failed", vm.fleet, text))
            return False
        if result.well is None:
            text = f"{vm.id} serves without the command after its start, since {result.message}"
            self._news.append(Note("arrival_not_run", vm.fleet, text))
        del self._runs[vm.id]
        self._arrived[vm.id] = vm.launched_at_s
        return True

    async def _run(self, vm: Vm) -> HookResult:
        limit_s = self.hook.timeout_s + _SLACK_S
        try:
            answer: object = await within(lambda: self.hook.run(vm), limit_s)
        except TimeoutError:
            return HookResult(well=None, message=f"it did not end within {limit_s:g} s")
        except Exception as error:  # noqa: BLE001  an adapter's bug is not the VM's fault
            return HookResult(well=None, message=f"unexpected {type(error).__name__}: {error}; please report")
        if isinstance(answer, HookResult):
            return answer
        return HookResult(well=None, message=f"it answers {answer!r:.50}")


class _Arrival:
    """A ReadinessProbe that asks another probe, and then for the arrival command."""

    def __init__(self, probe: ReadinessProbe, arrivals: Arrivals) -> None:
        self._probe = probe
        self._arrivals = arrivals

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Return the ids of the VMs that may get work now."""
        return self._arrivals.arrived(vms, await self._probe.ready(vms))
