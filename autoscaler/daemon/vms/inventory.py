"""The daemon's view of each VM: the listing reconciled with its own orders in flight.

Rules of this file: the provider is the truth, but its listings lag, and one may be older than its predecessor. An order counts
at once and is settled by a listing. One that no listing confirms within `consistency_s` (`accepted_s` if it was accepted) has
failed; until then, a row that looks as it did before counts as outdated. A VM is gone only when several listings that are
complete for its zone do not show it. Time comes in as an argument; nothing here makes a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from autoscaler.daemon.vms.holdings import PART_VMS
from autoscaler.daemon.vms.lateness import Lateness
from autoscaler.daemon.vms.listing_parts import MANY_ABSENT, Parts, unlisted_words
from autoscaler.daemon.vms.metering import Run
from autoscaler.daemon.vms.orders import STATES_BEFORE
from autoscaler.daemon.vms.pool_tags import is_preparing
from autoscaler.daemon.vms.quarantine import OWN_SHUTDOWN, quarantine_s, verdict_of_state
from autoscaler.daemon.vms.set_aside import SetAsideVm, set_aside_rows, set_aside_vms_of
from autoscaler.daemon.vms.start_times import MeasuredStart, measured
from autoscaler.daemon.vms.tracked import (
    MADE_BY_TAG,
    ON_THE_WAY,
    PHASE_OF_STATE,
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
"""Time in service, in seconds, below which a VM that is shut down from within has served only briefly."""


class FleetInventory(Lateness):
    """The VMs of one fleet, as listings and our orders show them.

    Args:
        fleet: Its name.
        patience: How long to wait before giving up on VMs and orders; None uses the defaults.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        super().__init__(fleet, patience)
        self.started: list[MeasuredStart] = []
        """Phases of the starts that came into service since the last `take_started`."""
        self.start_times_s: list[float] = []
        """Seconds from order to in service of the starts that completed since the last `take_start_times`."""
        self._listed_at_s: float | None = None
        self._recalled: dict[str, SetAsideVm] = {}
        self.vanished, self.vanished_words = False, ""
        """Whether the last complete listing showed none of the VMs that should exist; for people, once that was reported."""
        self.acted_on_elsewhere = False
        """Whether another daemon starts and stops these VMs now; then that is nobody's deliberate intervention."""
        self.parts = Parts()
        self.unlisted = ""
        """For people, what the last listing lacked of the zones in which this fleet has or may have VMs; empty if nothing."""
        self._quiet: tuple[Vm, ...] | None = None
        """Rows that changed nothing when they were last applied, with no order of ours in flight."""

    # ── observing ──────────────────────────────────────────────────────────────────────────────────────

    def reconciling(
        self, listing: Listing, vms: Iterable[Vm], now_s: float, notes: list[Note]
    ) -> Iterator[int]:
        """Apply a listing part by part.

        Anything may happen between two parts that may happen between two listings.

        Args:
            listing: The whole listing. Only one that is complete for a VM's zone can show that the VM is absent.
            vms: Its rows that belong to this fleet.
            now_s: The current time.
            notes: What deserves an event is appended here.

        Yields:
            How many VMs were looked at.
        """
        self.unlisted = self.parts.follow(listing, self.zones, awaits=bool(self._expected))
        whole = not self.unlisted
        before = self.out_of_sight
        self.out_of_sight = {zone: before.get(zone, self.sighted_s) for zone in self.parts.missing_zones}
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
        # VMs that were changed from outside between two parts must be looked at again, and VMs that had vanished are
        # there again only once a complete listing shows them.
        quiet = quiet and whole and self.changes == changes
        quiet = quiet and seen >= self.vms.keys() and not self._expected
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
        """Apply these rows, and return whether they changed nothing."""
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
        """Discard all counts because something about a VM has changed; the next rows are applied one by one."""
        super().touch()
        self._quiet = None

    def await_vm(self, new: TrackedVm) -> None:
        """Add a VM that an earlier run made and no listing has shown yet."""
        self.touch()
        self.vms[new.vm.id] = new

    def set_aside_rows(self, now_s: float) -> list[list[object]]:
        """Return the VMs that are left alone, as rows to store across restarts."""
        return set_aside_rows(self.vms.values(), now_s)

    def recall_set_aside(self, rows: Sequence[Sequence[Any]], earlier_s: float = 0.0) -> None:
        """Restore what an earlier run remembered of VMs that were left alone; it applies once a listing shows the VM.

        Args:
            rows: Rows from `set_aside_rows`.
            earlier_s: By how much the clock was set back since, in seconds.

        Raises:
            ValueError: The rows are not from `set_aside_rows`.
            TypeError: The rows are not from `set_aside_rows`.
        """
        self._recalled = set_aside_vms_of(rows, earlier_s)

    @property
    def listed(self) -> bool:
        """Whether any listing so far was complete for this fleet."""
        return self._listed_at_s is not None

    @property
    def listed_at_s(self) -> float:
        """The time of the last such listing; minus infinity before the first."""
        return -math.inf if self._listed_at_s is None else self._listed_at_s

    def zones(self) -> list[str]:
        """Return the sorted zones of the fleet's VMs; an empty name stands for a zone that is not known yet."""
        return sorted({t.vm.zone for t in self.vms.values()})

    def _forget_expected(self, listing: Listing) -> None:
        over = [number for number, e in self._expected.items() if listing.requested_at_s >= e.until_s]
        if over:
            self.touch()
        for number in over:
            del self._expected[number]

    def _adopt(self, vm: Vm, now_s: float) -> TrackedVm:
        tracked = TrackedVm(vm, PHASE_OF_STATE[vm.state], now_s)
        if is_preparing(vm) and vm.state in (VmState.PENDING, VmState.RUNNING):
            tracked.phase = Phase.PREPARING
        if vm.state is VmState.RUNNING:
            # It was found running, and when it began is not known. So it is charged from now on, and its minimum
            # on-time counts from its launch.
            tracked.run = Run(now_s)
        if vm.state in (VmState.PENDING, VmState.RUNNING):
            # Whether it has run before is not known, but a VM that was launched longer ago would be ready.
            young = now_s - vm.launched_at_s < self.patience.made_s
            tracked.new = young and MADE_BY_TAG in vm.tags
            # It may be one of the VMs that we requested without getting an answer; then it is no longer expected.
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
        """Return whether the row is older than what is known: from before our last order, or from before the VM ran."""
        if vm.state is VmState.PENDING and t.run is not None and vm.launched_at_s <= t.vm.launched_at_s:
            # A VM goes from running back to pending only with a new launch.
            return True
        order = t.order
        if order is None:
            return False
        before = STATES_BEFORE[order.verb]
        if not self._may_lag(order, listing, shown=vm.state in before):
            if order.confirmed:
                t.order = None
            return False
        # A later launch time proves that the row is newer: the start was accepted and fell back.
        return vm.state in before and vm.launched_at_s <= order.launched_before_s

    def _may_lag(self, order: Order, listing: Listing, *, shown: bool = False) -> bool:
        """Return whether a listing may be older than the order; `shown` if it shows the VM as it was before."""
        if order.answered_at_s is None:
            return listing.requested_at_s < order.sent_at_s + self.patience.start_s
        lag_s = self.patience.consistency_s
        if not (order.unknown or order.confirmed) and (shown or order.verb is Verb.PROVISION):
            lag_s = max(lag_s, self.patience.accepted_s)
        return listing.requested_at_s < order.answered_at_s + lag_s

    def _seen_pending(self, t: TrackedVm, listing: Listing, now_s: float, notes: list[Note]) -> None:
        t.end_run(self._between(listing))
        if t.phase is Phase.LOST:
            # It was given up and is still pending; it is taken back only once it runs.
            return
        if t.order is not None and t.order.verb is not Verb.STOP:
            t.order.confirmed = True
        else:
            t.order = None
        if t.ordered_at_s is not None and t.pending_at_s is None:
            t.pending_at_s = self._between(listing, after_s=t.ordered_at_s)
        t.stop_doubted = False
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
                # A VM that is prepared for the pool does not serve, and is put into the pool by its own order.
                t.run, t.stop_doubted = t.run or Run(order.sent_at_s), not is_preparing(t.vm)
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
            # Someone else started it, or it runs after we gave it up: it serves like any other VM once it is ready.
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
            # The run is still open only if the call's outcome was unknown; then the stop took effect when the call
            # was sent.
            stopped_at_s = t.order.sent_at_s
        elif t.phase in (*ON_THE_WAY, Phase.PREPARING) and not (t.run is not None and _by_user(t.vm)):
            self._start_failed(t, now_s, notes)
        elif t.phase in (Phase.IN_SERVICE, Phase.DRAINING, Phase.RUNNING):
            late = self._note("stop_taken_late", f"{t.vm.id} was stopped by our order after all")
            notes.append(late if t.stop_doubted else self._stopped_outside(t, now_s))
        t.stop_doubted = False
        if t.order is not None and t.order.verb is not Verb.STOP:
            t.order = None
        if t.stopping_from_s is not None and t.vm.state is VmState.STOPPED:
            # Listings may show that the order was taken long before the VM has stopped.
            self.timers.stopping.add(self._between(listing, after_s=t.stopping_from_s) - t.stopping_from_s)
        if t.vm.hibernates:
            # It is billed until its memory is saved.
            stopped_at_s = self._between(listing)
        if not (t.vm.hibernates and t.vm.state is VmState.STOPPING):
            t.end_run(stopped_at_s)
        t.in_service_from_s = None
        t.ordered_at_s, t.new = None, False
        t.move(Phase.STOPPED if t.vm.state is VmState.STOPPED else Phase.STOPPING, now_s)

    @property
    def _hands_off_s(self) -> float:
        return 0.0 if self.acted_on_elsewhere else self.patience.hands_off_s

    def _started_outside(self, t: TrackedVm, now_s: float) -> Note:
        """Leave a VM alone for a while that someone else started, because they may want it on; it serves meanwhile."""
        hands_off_s = self._hands_off_s
        t.hands_off_until_s = now_s + hands_off_s
        alone = f"; it is not stopped within {hands_off_s:g} s" if hands_off_s else ""
        return self._note("started_outside", f"{t.vm.id} was started by somebody else{alone}")

    def _stopped_outside(self, t: TrackedVm, now_s: float) -> Note:
        """Note a stop that was not ours; if a person did it, leave the VM alone for a while, because they may want it off."""
        if t.vm.state_reason == OWN_SHUTDOWN:
            return self._note(
                "stopped_outside", f"{t.vm.id} was shut down from within{self._own_shutdown(t, now_s)}"
            )
        text, hands_off_s = f"{t.vm.id} was stopped by somebody else{_because(t.vm)}", self._hands_off_s
        if hands_off_s and _by_user(t.vm):
            t.quarantined_until_s = max(t.quarantined_until_s, now_s + hands_off_s)
            t.quarantine_reason = "a person stopped it, so it is left alone for a while"
            text += f"; it is not started within {hands_off_s:g} s"
        return self._note("stopped_outside", text)

    def _own_shutdown(self, t: TrackedVm, now_s: float) -> str:
        """Say what follows from a shutdown from within, and quarantine the VM if it repeats.

        Once may be chance, but soon after every start it costs more than it gives.
        """
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
        """Remove VMs at once that are listed as another fleet's, because orders here would affect that fleet's VMs.

        If all of them are, someone may have tagged them by mistake; that is treated like all VMs vanishing from the
        listing.
        """
        unseen = self.vms.keys() - seen
        if not unseen or not seen:
            return
        for vm in listing.all_real:
            # A VM with an empty tag belongs to no fleet: an operator gave it up, and may take it back.
            if vm.id in unseen and vm.fleet not in ("", self.fleet) and vm.state is not VmState.TERMINATED:
                self.touch()
                if self.vms.pop(vm.id).phase is not Phase.LOST:
                    notes.append(self._note("vm_moved", f"{vm.id} is tagged for the fleet {vm.fleet} now"))

    def _age_absent(self, seen: set[str], listing: Listing, notes: list[Note]) -> None:
        gone = [vm_id for vm_id in self.vms if vm_id not in seen]
        lacking = sum(self._is_missing(self.vms[vm_id], listing) for vm_id in gone)
        known = (
            lacking + sum(self.vms[i].phase is not Phase.LOST for i in seen & self.vms.keys())
            if lacking
            else 0
        )
        # EC2 lists a VM as terminated when it goes. If all VMs vanish without that, or most of them at once, somebody took
        # their tags away, or the listing is that of another account or region.
        self.vanished = lacking > 0 and (not seen or (lacking >= MANY_ABSENT and 2 * lacking > known))
        if self.vanished_words and not self.vanished:
            notes.append(self._note("vms_listed", "the VMs that were missing are in the list again"))
            self.vanished_words = ""
        absent_s = self.patience.all_absent_s if self.vanished else self.patience.absent_s
        given_up = False
        for vm_id in gone:
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
                self.vanished_words = unlisted_words(lacking, known, absent_s)
                notes.append(self._note("vms_unlisted", self.vanished_words))
            if t.missing >= self.patience.absent_listings and long_s >= absent_s:
                if t.phase is not Phase.LOST and not t.disowned:
                    notes.append(
                        self._note("vm_gone", f"{vm_id} is missing from {t.missing} complete listings")
                    )
                del self.vms[vm_id]
                given_up = True
        if given_up:
            self.vanished_words = ""

    def _is_missing(self, t: TrackedVm, listing: Listing) -> bool:
        """Whether a VM that this listing does not show should be in it, or was missing before and could not be in it."""
        if t.phase is Phase.LOST or t.disowned:
            return False
        lags = t.order is not None and self._may_lag(t.order, listing)
        return t.missing > 0 or (listing.is_whole_of(t.vm.zone) and not lags)

    def _between(self, listing: Listing, after_s: float | None = None) -> float:
        """Estimate when something happened that this listing shows and the previous one did not."""
        upper = _middle(listing)
        lower = upper if self._listed_at_s is None else self._listed_at_s
        if after_s is not None:
            lower = max(lower, after_s)
        return (min(lower, upper) + upper) / 2.0

    def mark_ready(self, ready: Iterable[str], now_s: float) -> None:
        """Put the VMs whose readiness probe passed into service."""
        for vm_id in ready:
            t = self.vms.get(vm_id)
            if t is None or t.phase is not Phase.RUNNING or t.dismissed:
                continue
            self.touch()
            if t.hedged:
                self.take_back(t)
            if t.run is not None and t.run.counts_start and t.ordered_at_s is not None:
                # A VM that served before and returns to the balancer has not been started.
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
        """Return the seconds from order to in service of the starts completed since the last call."""
        taken, self.start_times_s = self.start_times_s, []
        return taken

    def take_started(self) -> list[MeasuredStart]:
        """Return the phases of the starts completed since the last call."""
        taken, self.started = self.started, []
        return taken


def _middle(listing: Listing) -> float:
    return (listing.requested_at_s + listing.received_at_s) / 2.0


def _because(vm: Vm) -> str:
    return f" ({vm.state_reason})" if vm.state_reason else ""


def _by_user(vm: Vm) -> bool:
    return vm.state_reason.startswith("Client.UserInitiated")
