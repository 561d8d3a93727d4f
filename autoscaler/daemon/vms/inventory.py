"""The daemon's view of each VM: the listing reconciled with its own orders in flight.

Rules of this file: the provider is the truth, but its listings lag, and one may be older than its predecessor. An order counts
at once and is settled by a listing. An order that no listing confirms within `consistency_s` has failed; until then, a row
that looks as it did before the order counts as outdated. A VM is gone only when several listings that are complete for its
zone do not show it. Time comes in as an argument; nothing here makes a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from autoscaler.daemon.vms.holdings import PART_VMS
from autoscaler.daemon.vms.lateness import Lateness
from autoscaler.daemon.vms.marks import is_preparing
from autoscaler.daemon.vms.metering import Run
from autoscaler.daemon.vms.orders import STATES_BEFORE
from autoscaler.daemon.vms.parts import Parts
from autoscaler.daemon.vms.quarantine import OWN_SHUTDOWN, quarantine_s, verdict_of_state
from autoscaler.daemon.vms.set_aside import Aside, aside_of, aside_rows
from autoscaler.daemon.vms.start_times import MeasuredStart, measured
from autoscaler.daemon.vms.tracked import (
    MADE_BY_TAG,
    ON_THE_WAY,
    PROTECTED_TAG,
    Counts,
    Order,
    Patience,
    Phase,
    TrackedVm,
)
from autoscaler.ports import Listing, Note, Verb, Vm, VmState

__all__ = [
    "ON_THE_WAY",
    "PROTECTED_TAG",
    "Counts",
    "FleetInventory",
    "Note",
    "Patience",
    "Phase",
    "TrackedVm",
]

BRIEF_S = 120.0
"""A VM that is shut down from within before it has served for so long served briefly."""


class FleetInventory(Lateness):
    """The VMs of one fleet.

    Args:
        fleet: Its name.
        patience: How long to wait for what.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        super().__init__(fleet, patience)
        self.started: list[MeasuredStart] = []
        """Starts that came into service since the last `take_started`, part by part."""
        self.start_times_s: list[float] = []
        """Seconds from order to in service of the starts that completed since the last `take_start_times`."""
        self._listed_at_s: float | None = None
        self._recalled: dict[str, Aside] = {}
        self.vanished, self.vanished_words = False, ""
        """Whether the last whole listing showed none of the VMs that are taken to be there, and that this was told."""
        self.parts = Parts()
        self.unlisted = ""
        """For a person, what the last listing lacked of what this fleet has or may have; empty where nothing."""
        self._quiet: tuple[Vm, ...] | None = None
        """Rows that changed nothing when they were last taken in, with nothing of ours in flight."""

    # ── observing ──────────────────────────────────────────────────────────────────────────────────────

    def reconciling(
        self, listing: Listing, vms: Iterable[Vm], now_s: float, notes: list[Note]
    ) -> Iterator[int]:
        """Take in a listing part by part; yields how many VMs were looked at, and adds what deserves an event to the notes.

        `listing` is the whole view; only one that is whole for its zone can show that a VM is absent. `vms` are those of it that
        belong to this fleet.
        Anything may happen between two parts that may happen between two listings.
        """
        self.unlisted = self.parts.follow(listing, self.zones, awaits=bool(self._expected))
        whole = not self.unlisted
        before = self.out_of_sight
        self.out_of_sight = {zone: before.get(zone, self.sighted_s) for zone in self.parts.lacking}
        if vms is self._quiet and whole:
            self._listed_at_s, self.looked_at, self.sighted_s = _middle(listing), 0, now_s
            return
        self.hedges.serve(len(self.in_phase(Phase.IN_SERVICE)), now_s)
        seen: set[str] = set()
        quiet = True
        changes = self.changes
        rows = vms if isinstance(vms, tuple) else tuple(vms)
        for begin in range(0, len(rows), PART_VMS):
            part = rows[begin : begin + PART_VMS]
            quiet = self._take_in(part, seen, listing, now_s, notes) and quiet
            yield len(part)
        # What was changed from outside between two parts is looked at again.
        quiet = quiet and self.changes == changes and seen >= self.vms.keys() and not self._expected
        self._quiet = vms if quiet and isinstance(vms, tuple) else None
        self._give_away(seen, listing, notes)
        if listing.complete or listing.parts:
            self._age_absent(seen, listing, notes)
        if whole:
            self._listed_at_s = _middle(listing)
            self._forget_expected(listing)
        if rows or whole:
            self.sighted_s = now_s
        self._give_up_late(now_s, notes)
        self._judge_arrivals(notes)
        self.looked_at = len(rows)

    def _take_in(
        self, rows: Iterable[Vm], seen: set[str], listing: Listing, now_s: float, notes: list[Note]
    ) -> bool:
        """Take in these rows; whether they changed nothing."""
        quiet = True
        for vm in rows:
            seen.add(vm.id)
            tracked = self.vms.get(vm.id)
            if tracked is None:
                if vm.state is not VmState.TERMINATED:
                    quiet = False
                    self.vms[vm.id] = self._adopt(vm, now_s)
                    self.touch()
                continue
            if tracked.at_rest is vm and tracked.order is None:
                continue
            quiet = False
            tracked.missing, tracked.missing_since_s = 0, float("inf")
            was = tracked.vm, tracked.phase, tracked.run
            self._update(tracked, vm, listing, now_s, notes)
            if was[0] is not tracked.vm or was[1] is not tracked.phase or was[2] is not tracked.run:
                self.touch()
            tracked.at_rest = vm if tracked.vm is vm and tracked.rests else None
        return quiet

    def touch(self) -> None:
        """As of `Holdings`; the next rows are taken in one by one."""
        super().touch()
        self._quiet = None

    def await_vm(self, new: TrackedVm) -> None:
        """An earlier run made this VM, and no listing has shown it yet."""
        self.touch()
        self.vms[new.vm.id] = new

    def aside_rows(self, now_s: float) -> list[list[object]]:
        """The VMs that are left alone, to be remembered over a restart."""
        return aside_rows(self.vms.values(), now_s)

    def recall_aside(self, rows: Sequence[Sequence[Any]], earlier_s: float = 0.0) -> None:
        """What an earlier run remembered of VMs, which holds for those that listings show.

        Args:
            rows: Of `aside_rows`.
            earlier_s: By how much the clock was set back since, in seconds.

        Raises:
            ValueError: These are no rows of `aside_rows`.
            TypeError: Likewise.
        """
        self._recalled = aside_of(rows, earlier_s)

    @property
    def listed(self) -> bool:
        """Whether a listing has been seen yet that was whole for this fleet."""
        return self._listed_at_s is not None

    @property
    def listed_at_s(self) -> float:
        """Of when the last such listing is; before all time where there was none."""
        return -math.inf if self._listed_at_s is None else self._listed_at_s

    def zones(self) -> list[str]:
        """The zones that its VMs are in, in order; an empty name is one that is not known yet."""
        return sorted({t.vm.zone for t in self.vms.values()})

    def _forget_expected(self, listing: Listing) -> None:
        over = [number for number, e in self._expected.items() if listing.requested_at_s >= e.until_s]
        if over:
            self.touch()
        for number in over:
            del self._expected[number]

    def _adopt(self, vm: Vm, now_s: float) -> TrackedVm:
        tracked = TrackedVm(vm, _PHASE_OF_STATE[vm.state], now_s)
        if is_preparing(vm) and vm.state in (VmState.PENDING, VmState.RUNNING):
            tracked.phase = Phase.PREPARING
        if vm.state is VmState.RUNNING:
            # Found running: when it began is not known, so it is charged from now, and its minimum on-time
            # counts from its launch.
            tracked.run = Run(now_s)
        if vm.state in (VmState.PENDING, VmState.RUNNING):
            # Nobody says whether it ran before; one that was launched longer ago would be ready.
            young = now_s - vm.launched_at_s < self.patience.made_s
            tracked.new = young and MADE_BY_TAG in vm.tags
            # Perhaps one of those that we asked for without hearing an answer: it is not expected any more.
            expected = next((e for e in self._expected.values() if e.count and e.may_be(vm)), None)
            if expected is not None:
                expected.count -= 1
        if (recalled := self._recalled.pop(vm.id, None)) is not None:
            recalled.onto(tracked)
        return tracked

    def _update(self, t: TrackedVm, vm: Vm, listing: Listing, now_s: float, notes: list[Note]) -> None:
        if self._is_old(t, vm, listing):
            return
        t.vm = vm
        match vm.state:
            case VmState.TERMINATED:
                if t.phase is not Phase.LOST:
                    notes.append(self._note("vm_terminated", f"{vm.id} was terminated{_because(vm)}"))
                t.end_run(self._between(listing))
                t.order = None
                t.move(Phase.LOST, now_s)
            case VmState.PENDING:
                self._seen_pending(t, listing, now_s, notes)
            case VmState.RUNNING:
                self._seen_running(t, listing, now_s, notes)
            case VmState.STOPPING | VmState.STOPPED:
                self._seen_stopped(t, listing, now_s, notes)

    def _is_old(self, t: TrackedVm, vm: Vm, listing: Listing) -> bool:
        """Whether the row is older than what is known: as before our last order, or before it ran."""
        if vm.state is VmState.PENDING and t.run is not None and vm.launched_at_s <= t.vm.launched_at_s:
            # Nothing goes from running back to pending without being launched anew.
            return True
        order = t.order
        if order is None:
            return False
        if not self._may_lag(order, listing):
            if order.confirmed:
                t.order = None
            return False
        before = STATES_BEFORE[order.verb]
        # A later launch time proves that the row is newer: the start was taken and fell back.
        return vm.state in before and vm.launched_at_s <= order.launched_before_s

    def _may_lag(self, order: Order, listing: Listing) -> bool:
        if order.answered_at_s is None:
            return listing.requested_at_s < order.sent_at_s + self.patience.start_s
        return listing.requested_at_s < order.answered_at_s + self.patience.consistency_s

    def _seen_pending(self, t: TrackedVm, listing: Listing, now_s: float, notes: list[Note]) -> None:
        t.end_run(self._between(listing))
        if t.phase is Phase.LOST:
            # Given up, and still where it was; one that runs after all is taken back.
            return
        if t.order is not None and t.order.verb is not Verb.STOP:
            t.order.confirmed = True
        else:
            t.order = None
        if t.ordered_at_s is not None and t.pending_at_s is None:
            t.pending_at_s = self._between(listing, after_s=t.ordered_at_s)
        if t.phase not in ON_THE_WAY and t.phase is not Phase.PREPARING:
            notes.append(self._started_outside(t, now_s))
            t.in_service_from_s = None
            t.move(Phase.STARTING, now_s)

    def _seen_running(self, t: TrackedVm, listing: Listing, now_s: float, notes: list[Note]) -> None:
        order = t.order
        if order is not None and order.verb is Verb.STOP:
            t.order = None
            if not order.confirmed and t.vm.launched_at_s <= order.launched_before_s:
                notes.append(self._note("stop_not_taken", f"{t.vm.id} still runs after an order to stop"))
                t.run = t.run or Run(order.sent_at_s)
                t.move(Phase.IN_SERVICE if t.in_service_from_s is not None else Phase.RUNNING, now_s)
                return
        elif order is not None:
            order.confirmed = True
        if t.run is None:
            # It was not running when last seen, so this is a start that the provider bills as one.
            t.run = Run(self._between(listing, after_s=t.ordered_at_s), counts_start=True)
            if t.ordered_at_s is not None:
                self.timers.until_running(new=t.new).add(t.run.from_s - t.ordered_at_s)
        if t.phase not in (Phase.IN_SERVICE, Phase.RUNNING, Phase.DRAINING, Phase.PREPARING):
            # Started by somebody else, or after we gave it up: it serves like any other once it is ready.
            if t.phase in (Phase.STOPPED, Phase.STOPPING):
                notes.append(self._started_outside(t, now_s))
            t.in_service_from_s = None
            t.move(Phase.RUNNING, now_s)

    def _seen_stopped(self, t: TrackedVm, listing: Listing, now_s: float, notes: list[Note]) -> None:
        if t.phase is Phase.LOST and t.vm.state is VmState.STOPPING:
            return
        stopped_at_s = self._between(listing)
        if t.order is not None and t.order.verb is Verb.STOP:
            t.order.confirmed = True
            # Still unbilled only where the call's outcome was unknown; it was taken when it was sent.
            stopped_at_s = t.order.sent_at_s
        elif t.phase in (*ON_THE_WAY, Phase.PREPARING) and not (t.run is not None and _by_user(t.vm)):
            self._start_failed(t, now_s, notes)
        elif t.phase in (Phase.IN_SERVICE, Phase.DRAINING, Phase.RUNNING):
            notes.append(self._stopped_outside(t, now_s))
        if t.order is not None and t.order.verb is not Verb.STOP:
            t.order = None
        if t.stopping_from_s is not None and t.vm.state is VmState.STOPPED:
            # Listings may show the order done long before the VM has stopped.
            self.timers.stopping.add(self._between(listing, after_s=t.stopping_from_s) - t.stopping_from_s)
        if t.vm.hibernates:
            # Billed until its memory is saved.
            stopped_at_s = self._between(listing)
        if not (t.vm.hibernates and t.vm.state is VmState.STOPPING):
            t.end_run(stopped_at_s)
        t.in_service_from_s = None
        t.ordered_at_s, t.new = None, False
        t.move(Phase.STOPPED if t.vm.state is VmState.STOPPED else Phase.STOPPING, now_s)

    def _started_outside(self, t: TrackedVm, now_s: float) -> Note:
        """A person may want it on: it serves, and is left alone for a while."""
        t.hands_off_until_s = now_s + self.patience.hands_off_s
        alone = (
            f"; it is not stopped within {self.patience.hands_off_s:g} s" if self.patience.hands_off_s else ""
        )
        return self._note("started_outside", f"{t.vm.id} was started by somebody else{alone}")

    def _stopped_outside(self, t: TrackedVm, now_s: float) -> Note:
        """Where a person did it, they may want it off: it is left alone for a while."""
        if t.vm.state_reason == OWN_SHUTDOWN:
            return self._note(
                "stopped_outside", f"{t.vm.id} was shut down from within{self._own_shutdown(t, now_s)}"
            )
        text, hands_off_s = (
            f"{t.vm.id} was stopped by somebody else{_because(t.vm)}",
            self.patience.hands_off_s,
        )
        if hands_off_s and _by_user(t.vm):
            t.quarantined_until_s = max(t.quarantined_until_s, now_s + hands_off_s)
            t.quarantine_reason = "a person stopped it, so it is left alone for a while"
            text += f"; it is not started within {hands_off_s:g} s"
        return self._note("stopped_outside", text)

    def _own_shutdown(self, t: TrackedVm, now_s: float) -> str:
        """What follows, for a person: once may be chance, but soon after each start it costs more than it gives."""
        served_s = now_s - (t.phase_since_s if t.in_service_from_s is None else t.in_service_from_s)
        t.brief = t.brief + 1 if served_s < BRIEF_S else 0
        if t.brief < 2:
            return f" after {served_s:.0f} s in service"
        alone_s = quarantine_s(self.patience.quarantine_s, t.brief - 1)
        t.quarantined_until_s = max(t.quarantined_until_s, now_s + alone_s)
        t.quarantine_reason = f"it was shut down from inside soon after {t.brief} starts in a row"
        return f" soon after {t.brief} starts in a row; it is not started within {alone_s:.0f} s"

    def _start_failed(self, t: TrackedVm, now_s: float, notes: list[Note]) -> None:
        order, vm = t.order, t.vm
        if order and order.unknown and not order.confirmed and vm.launched_at_s <= order.launched_before_s:
            # The call never arrived, which is no fault of the VM.
            notes.append(
                self._note("start_not_taken", f"{vm.id} is stopped after an order of unknown outcome")
            )
            return
        why = "" if _by_user(vm) else _because(vm)
        verdict = verdict_of_state("" if _by_user(vm) else vm.state_reason)
        self._failed(t, verdict, now_s, f"its start fell back to stopped{why}")
        advice = f": {verdict.advice}" if verdict.advice else ""
        notes.append(self._note("start_fell_back", f"{vm.id} fell back to stopped{why}{advice}"))

    def _give_away(self, seen: set[str], listing: Listing, notes: list[Note]) -> None:
        """VMs that are listed as another fleet's are that fleet's at once: what is ordered here would be done to its VMs.

        Where all are, somebody may have tagged them by mistake: that is doubted like any fleet that vanishes.
        """
        unseen = self.vms.keys() - seen
        if not unseen or not seen:
            return
        for vm in listing.all_real:
            # One whose tag is empty belongs to nobody: an operator gave it up, and it may have to be put back.
            if vm.id in unseen and vm.fleet not in ("", self.fleet) and vm.state is not VmState.TERMINATED:
                self.touch()
                if self.vms.pop(vm.id).phase is not Phase.LOST:
                    notes.append(self._note("vm_moved", f"{vm.id} is tagged for the fleet {vm.fleet} now"))

    def _age_absent(self, seen: set[str], listing: Listing, notes: list[Note]) -> None:
        # Whose last VM goes is told that it was terminated; where all vanish at once, it is rather somebody else's listing.
        known = 0 if seen else sum(self._should_be_listed(t, listing) for t in self.vms.values())
        self.vanished = known > 0
        if not self.vanished:
            self.vanished_words = ""
        absent_s = self.patience.all_absent_s if self.vanished else self.patience.absent_s
        for vm_id in [vm_id for vm_id in self.vms if vm_id not in seen]:
            t = self.vms[vm_id]
            if not listing.is_whole_of(t.vm.zone):
                continue
            if t.order is not None and self._may_lag(t.order, listing):
                continue
            self.touch()
            t.at_rest = None
            t.missing += 1
            t.missing_since_s = min(t.missing_since_s, listing.requested_at_s)
            long_s = listing.requested_at_s - t.missing_since_s
            if self.vanished and not self.vanished_words and t.missing >= self.patience.absent_listings:
                self.vanished_words = _none_of(known, absent_s)
                notes.append(self._note("vms_unlisted", self.vanished_words))
            if t.missing >= self.patience.absent_listings and long_s >= absent_s:
                if t.phase is not Phase.LOST and not t.disowned:
                    notes.append(
                        self._note("vm_gone", f"{vm_id} is missing from {t.missing} complete listings")
                    )
                del self.vms[vm_id]

    def _should_be_listed(self, t: TrackedVm, listing: Listing) -> bool:
        lags = t.order is not None and self._may_lag(t.order, listing)
        told = listing.is_whole_of(t.vm.zone)
        return told and t.phase is not Phase.LOST and not t.disowned and not lags

    def _between(self, listing: Listing, after_s: float | None = None) -> float:
        """Best guess of when something happened that this listing shows and the one before did not."""
        upper = _middle(listing)
        lower = upper if self._listed_at_s is None else self._listed_at_s
        if after_s is not None:
            lower = max(lower, after_s)
        return (min(lower, upper) + upper) / 2.0

    def mark_ready(self, ready: Iterable[str], now_s: float) -> None:
        """VMs whose readiness probe passed come into service."""
        for vm_id in ready:
            t = self.vms.get(vm_id)
            if t is None or t.phase is not Phase.RUNNING or t.dismissed:
                continue
            self.touch()
            if t.hedged:
                self.take_back(t)
            if t.run is not None and t.run.counts_start and t.ordered_at_s is not None:
                # One that served before, and comes back to the balancer, has not started.
                self.timers.until_ready(new=t.new).add(now_s - t.run.from_s)
            if t.failures or t.ordered_at_s is not None:
                t.failures = 0
                self.places.tell(t.vm.vm_type, t.vm.zone, now_s, tried=1, failed=0)
            t.in_service_from_s, t.new = now_s, False
            t.move(Phase.IN_SERVICE, now_s)
            if t.ordered_at_s is not None:
                self.start_times_s.append(now_s - t.ordered_at_s)
                self.started.append(measured(t, t.ordered_at_s, now_s))
                t.ordered_at_s = None

    def take_start_times(self) -> list[float]:
        """Seconds from order to in service of the starts completed since the last call."""
        taken, self.start_times_s = self.start_times_s, []
        return taken

    def take_started(self) -> list[MeasuredStart]:
        """The same starts part by part, of those completed since the last call of this."""
        taken, self.started = self.started, []
        return taken


_PHASE_OF_STATE = {
    VmState.PENDING: Phase.STARTING,
    VmState.RUNNING: Phase.RUNNING,
    VmState.STOPPING: Phase.STOPPING,
    VmState.STOPPED: Phase.STOPPED,
    VmState.TERMINATED: Phase.LOST,
}


def _middle(listing: Listing) -> float:
    return (listing.requested_at_s + listing.received_at_s) / 2.0


def _none_of(vms: int, for_s: float) -> str:
    which = "its only VM is not" if vms == 1 else f"none of its {vms} VMs is"
    return (
        f"{which} in the list any more; counted as unchanged for {for_s / 60.0:.0f} min. Check the account, the region "
        "and the tags by which its VMs are found"
    )


def _because(vm: Vm) -> str:
    return f" ({vm.state_reason})" if vm.state_reason else ""


def _by_user(vm: Vm) -> bool:
    return vm.state_reason.startswith("Client.UserInitiated")
