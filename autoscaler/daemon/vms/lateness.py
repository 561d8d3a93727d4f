"""Detects late VMs: those that take longer than usual here to start, become ready or stop.

Consequences: a late VM is overtaken by another one, within a budget; one that arrives after all and is not needed is stopped
before it serves; one that never becomes ready is stopped and left alone; one that never runs, or never stops, is written off.
So every transition ends, and none occupies a slot for ever. A VM that the daemon found running may be serving whatever its
probe says: it is stopped only if the probe passes on most others.

While no VM is listed, nothing is known about any: no stop is forced, nothing is written off or overtaken, and at most one
other VM is ordered in place of each that does not arrive.

Rules of this file: notes and marks only; orders follow from the counts and from `planning`.
"""

from __future__ import annotations

import math

from autoscaler.daemon.vms.hedging import Timers
from autoscaler.daemon.vms.holdings import is_stop_forbidden
from autoscaler.daemon.vms.orders import Orders
from autoscaler.daemon.vms.tracked import ON_THE_WAY, PROTECTED_TAG, Patience, Phase, TrackedVm
from autoscaler.ports import Note, Vm

_AWAITED = (*ON_THE_WAY, Phase.STOPPING)
UNSEEN_S = 60.0
"""A VM still counts as coming if the fleet's VMs were last listed more than this many seconds before its order."""
LATE_S = 15.0
"""Seconds before which no start is late, however fast starts usually are."""
NOT_NEEDED, NEVER_READY = "it came late and is not needed", "it does not become ready"
"""Reasons for stopping a VM before it serves."""


class Lateness(Orders):
    """The VMs of one fleet with our orders, and which of them are late.

    Args:
        fleet: Its name.
        patience: The longest times to wait; None uses the defaults.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        super().__init__(fleet, patience)
        self.timers = Timers()
        self.wanted: int | None = None
        """VMs that the last decision wanted in service; None before the first decision."""
        self.sighted_s = -math.inf
        """When VMs of the fleet were last listed, or a complete listing showed that there are none."""
        self.out_of_sight: dict[str, float] = {}
        """By zone that the last listing lacked: when its VMs were last listed."""
        self.unasked = ""
        """For people, why running VMs cannot come into service through no fault of theirs; empty if they can."""

    def hear(self, unasked: str, now_s: float) -> None:
        """Note whether running VMs can come into service. The time during which they cannot does not count as waiting."""
        if self.unasked and not unasked:
            self.touch()
            for t in self._phases()[Phase.RUNNING]:
                t.phase_since_s, t.spared = now_s, False
        self.unasked = unasked

    def _looked_s(self, t: TrackedVm) -> float:
        """Return the seconds from the beginning of the VM's phase to the last listing of its zone; may be negative."""
        at_s = self.out_of_sight.get(t.vm.zone, self.sighted_s)
        if not t.vm.zone:
            at_s = min(self.out_of_sight.values(), default=self.sighted_s)
        return at_s - t.phase_since_s

    def _give_up_late(self, now_s: float, notes: list[Note]) -> None:
        of = self._phases()
        if not any(of[phase] for phase in _AWAITED):
            return
        for t in self.vms.values():
            if t.phase in ON_THE_WAY:
                self._await_start(t, now_s, notes)
            elif t.phase is Phase.STOPPING:
                self._await_stop(t, now_s, notes)

    def _await_start(self, t: TrackedVm, now_s: float, notes: list[Note]) -> None:
        waited_s, runs = now_s - t.phase_since_s, t.phase is Phase.RUNNING
        # VMs that are not listed may have arrived, so no more of them are replaced than were ordered while they were
        # in sight.
        looked_s = self._looked_s(t)
        most_s = self.patience.coming_s(new=t.new)
        if not runs and looked_s > self.patience.written_off_s(new=t.new):
            # A VM that does not run yet cannot even be stopped.
            self.touch()
            notes.append(
                self._note("vm_written_off", f"{t.vm.id} is {t.phase} for {waited_s:.0f} s; it is abandoned")
            )
            self._never_ran(t)
            t.order = None
            t.move(Phase.LOST, now_s)
        elif runs and self.unasked and waited_s > most_s and not t.dismissed:
            # Another VM would wait for the same thing.
            if not t.spared:
                t.spared = True
                text = f"{t.vm.id} runs for {waited_s:.0f} s and is not in service; the daemon waits for it: {self.unasked}"
                notes.append(self._note("not_ready", text))
        elif runs and waited_s > self.patience.never_ready_s(new=t.new) and not t.dismissed:
            self._never_ready(t, waited_s, now_s, notes)
        elif not t.overdue and waited_s > most_s and looked_s > -UNSEEN_S:
            t.overdue = True
            self.touch()
            notes.append(
                self._note("start_overdue", f"{t.vm.id} is {t.phase} for {waited_s:.0f} s; not counted on")
            )
        elif not t.overdue and not t.late and not t.dismissed and not (runs and self.unasked):
            timer = self.timers.until_ready(new=t.new) if runs else self.timers.until_running(new=t.new)
            if looked_s > timer.late_after_s(LATE_S, most_s) and self.hedges.take():
                t.hedged = t.late = True
                # A running VM that is only late still counts as coming; once it is overdue, another one is ordered in
                # its place.
                t.overdue = runs
                self.touch()
                text = f"{t.vm.id} is {t.phase} for {waited_s:.0f} s, longer than usual; another may take its place"
                notes.append(self._note("start_late", text))

    def _never_ready(self, t: TrackedVm, waited_s: float, now_s: float, notes: list[Note]) -> None:
        text = f"{t.vm.id} runs for {waited_s:.0f} s and is not ready; "
        if kept := self._why_kept(t, now_s):
            if not t.spared:
                t.spared = True
                notes.append(self._note("not_ready", f"{text}it is not stopped: {kept}"))
            return
        self.touch()
        t.dismissed = NEVER_READY
        self._quarantine(t, now_s, f"{NEVER_READY} within {waited_s:.0f} s")
        notes.append(self._note("never_ready", f"{text}stopped again"))

    def _why_kept(self, t: TrackedVm, now_s: float) -> str:
        """Return why a VM that is not ready must not be stopped for that; empty if it may be."""
        if is_stop_forbidden(t, now_s):
            return "it is protected, in an Auto Scaling group, given up, or was recently started by somebody else"
        if not _was_found(t):
            return ""
        # It may have served for days. If half of these VMs or more fail, the probe is as likely to be at fault.
        found = sum(_was_found(other) for other in self._phases()[Phase.RUNNING])
        if found < len(self._phases()[Phase.IN_SERVICE]):
            return ""
        return "the daemon did not start it, and half of the fleet or more is not ready; check the policy's `readiness`"

    def _await_stop(self, t: TrackedVm, now_s: float, notes: list[Note]) -> None:
        waited_s = self._looked_s(t)
        if waited_s > self.patience.stuck_s:
            self.touch()
            notes.append(
                self._note("vm_written_off", f"{t.vm.id} is stopping for {waited_s:.0f} s; it is abandoned")
            )
            t.order = None
            t.move(Phase.LOST, now_s)
        elif not t.overdue and waited_s > self.timers.stopping.late_after_s(
            0.5 * self.patience.stop_s, self.patience.stop_s
        ):
            t.overdue = True
            self.touch()
            notes.append(self._note("stop_overdue", f"{t.vm.id} is stopping for {waited_s:.0f} s"))

    def _judge_arrivals(self, notes: list[Note]) -> None:
        """Decide which overtaken VMs that run now are needed after all, and which are stopped again."""
        running = self._phases()[Phase.RUNNING]
        arrived = [t for t in running if t.late and not t.overdue and not t.dismissed]
        if not arrived:
            return
        self.touch()
        of = self._phases()
        counted = len(of[Phase.IN_SERVICE]) + sum(t.coming for phase in ON_THE_WAY for t in of[phase])
        counted += self._expected_vms()
        for t in sorted(arrived, key=lambda each: each.vm.id):
            if self.wanted is not None and counted > self.wanted and PROTECTED_TAG not in t.vm.tags:
                t.dismissed = NOT_NEEDED
                counted -= 1
                notes.append(self._note("late_not_needed", f"{t.vm.id} came late and is no longer needed"))
            else:
                self.take_back(t)

    def take_back(self, t: TrackedVm) -> None:
        """Count on an overtaken VM again."""
        self.touch()
        if t.hedged:
            self.hedges.give_back()
        t.late = t.hedged = t.overdue = False
        t.dismissed = ""

    def _never_ran(self, t: TrackedVm) -> None:
        """Refund the advance for a VM that may have been overtaken and ended without having run."""
        if t.hedged and t.run is None:
            self.hedges.give_back()
            t.hedged = False

    def dismissed(self) -> list[TrackedVm]:
        """Return the running VMs that never served and are to be stopped, in the order of ids."""
        return [t for t in self.in_phase(Phase.RUNNING) if t.dismissed]

    def arriving(self) -> tuple[Vm, ...]:
        """Return the running VMs that may come into service, in the order of ids.

        VMs that are about to be stopped are left out, because a balancer that is asked to admit one would give it work
        at once.
        """
        running = self.vms_in(Phase.RUNNING)
        if not any(t.dismissed for t in self._phases()[Phase.RUNNING]):
            return running
        return tuple(t.vm for t in self.in_phase(Phase.RUNNING) if not t.dismissed)

    def stuck(self) -> list[TrackedVm]:
        """Return the VMs that do not stop and have not been forced to yet, in the order of ids."""
        return [t for t in self.in_phase(Phase.STOPPING) if t.overdue and not t.forced]


def _was_found(t: TrackedVm) -> bool:
    """Return whether the VM runs without having been started or made by this run."""
    return t.ordered_at_s is None
