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
from autoscaler.daemon.vms.holdings import is_left_alone
from autoscaler.daemon.vms.orders import Orders
from autoscaler.daemon.vms.tracked import ON_THE_WAY, PROTECTED_TAG, Patience, Phase, TrackedVm
from autoscaler.ports import Note, Vm

_AWAITED = (*ON_THE_WAY, Phase.STOPPING)
UNSEEN_S = 60.0
"""A VM that is ordered so long after any VM of the fleet was listed is not given up before one is."""
LATE_S = 15.0
"""No start is late before that, however fast starts are here."""
NOT_NEEDED, NEVER_READY = "it came late and is not needed", "it does not become ready"
"""Why a VM is stopped before it serves."""


class Lateness(Orders):
    """The VMs of one fleet with our orders, and what is late of them.

    Args:
        fleet: Its name.
        patience: How long to wait at most.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        super().__init__(fleet, patience)
        self.timers = Timers()
        self.wanted: int | None = None
        """VMs that the last decision wanted in service; None before the first."""
        self.sighted_s = -math.inf
        """When VMs of the fleet were last listed, or a whole listing showed none."""
        self.out_of_sight: dict[str, float] = {}
        """Zones that the last listing lacked, and when VMs of them were last listed."""
        self.unasked = ""
        """For a person, why VMs that run cannot come into service, which is no fault of theirs; empty where they can."""

    def hear(self, unasked: str, now_s: float) -> None:
        """Whether VMs that run can come into service; for as long as they could not they were not waited for."""
        if self.unasked and not unasked:
            self.touch()
            for t in self._phases()[Phase.RUNNING]:
                t.phase_since_s, t.spared = now_s, False
        self.unasked = unasked

    def _looked_s(self, t: TrackedVm) -> float:
        """For how long a VM has been looked at in its phase."""
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
        # What is not listed may have come: those in whose place others are ordered are no more than were ordered in sight.
        looked_s = self._looked_s(t)
        most_s = self.patience.coming_s(new=t.new)
        if not runs and looked_s > self.patience.written_off_s(new=t.new):
            # Before it runs it cannot even be stopped.
            self.touch()
            notes.append(
                self._note("vm_written_off", f"{t.vm.id} is {t.phase} for {waited_s:.0f} s; it is abandoned")
            )
            self._never_ran(t)
            t.order = None
            t.move(Phase.LOST, now_s)
        elif runs and self.unasked and waited_s > most_s and not t.dismissed:
            # Another one would wait for the same.
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
                # One that runs is near: it is overtaken like one that does not run yet.
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
        """Why a VM that is not ready is not stopped for it; empty where it is."""
        if is_left_alone(t, now_s):
            return "it is protected, in an Auto Scaling group, given up, or was recently started by somebody else"
        if not _was_found(t):
            return ""
        # It may have served for days. Where half of them or more fail, what asks them is as likely to be wrong.
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
        """Which VMs that were overtaken and run now are needed after all, and which are stopped again."""
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
        """A VM that was overtaken is needed after all."""
        self.touch()
        if t.hedged:
            self.hedges.give_back()
        t.late = t.hedged = t.overdue = False
        t.dismissed = ""

    def _never_ran(self, t: TrackedVm) -> None:
        """A VM that may have been overtaken ends without having run."""
        if t.hedged and t.run is None:
            self.hedges.give_back()
            t.hedged = False

    def dismissed(self) -> list[TrackedVm]:
        """VMs that run, never served and are to be stopped, in the order of their ids."""
        return [t for t in self.in_phase(Phase.RUNNING) if t.dismissed]

    def arriving(self) -> tuple[Vm, ...]:
        """VMs that run and may come to serve, in the order of their ids, but for those that are about to be stopped.

        A balancer that was asked to admit one would give it work at once.
        """
        running = self.vms_in(Phase.RUNNING)
        if not any(t.dismissed for t in self._phases()[Phase.RUNNING]):
            return running
        return tuple(t.vm for t in self.in_phase(Phase.RUNNING) if not t.dismissed)

    def stuck(self) -> list[TrackedVm]:
        """VMs that do not stop and were not forced to yet, in the order of their ids."""
        return [t for t in self.in_phase(Phase.STOPPING) if t.overdue and not t.forced]


def _was_found(t: TrackedVm) -> bool:
    """Whether it runs without having been started or made by this run."""
    return t.ordered_at_s is None
