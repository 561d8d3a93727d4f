"""Orders for the VMs of one fleet: what was requested, what the provider answered, and what is still pending.

Rules of this file: an order counts at once. `inventory` decides what a listing says about it; time comes in as an argument;
nothing here makes a call.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.learned.lead_time import StartSource
from autoscaler.daemon.vms.hedging import HedgeBudget
from autoscaler.daemon.vms.holdings import Holdings
from autoscaler.daemon.vms.quarantine import (
    FailureCause,
    Verdict,
    quarantine_s,
    stop_retry_wait_s,
    verdict_of,
)
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, Order, Patience, Phase, TrackedVm
from autoscaler.ports import NOT_YET, ROOM_REFUSED, Note, Outcome, OutcomeKind, Verb, Vm, VmState
from autoscaler.words import some

STATES_BEFORE = {
    Verb.START: frozenset({VmState.STOPPED, VmState.STOPPING}),
    Verb.STOP: frozenset({VmState.RUNNING, VmState.PENDING}),
    Verb.PROVISION: frozenset({VmState.STOPPED, VmState.STOPPING}),
}
"""By verb, the states in which a listing from before the order took effect shows a VM that is already known."""
_SHOWN_IDS = 5
_SAID_AGAIN_S = 600.0
"""Time after which the same failure, of calls that are repeated at each tick, is reported again."""
_BAD_SERVICE = 6.0
"""Weight of bad service in the length of a quarantine; a failed start has weight 1."""


@dataclass(slots=True)
class ExpectedVms:
    """VMs of a provisioning call whose answer has not arrived, or was lost.

    Attributes:
        count: How many VMs are still expected.
        until_s: A complete listing from then on that does not show them proves that they were not made.
        token: Client token of the call.
        since_s: When they were requested; infinite if a VM's age must not be used to recognise it.
    """

    count: int
    until_s: float
    token: str
    since_s: float

    def may_be(self, vm: Vm) -> bool:
        """Return whether the VM is one of these, by its token, or without one by its age."""
        made_by = vm.tags.get(MADE_BY_TAG)
        young = math.isfinite(self.since_s) and vm.launched_at_s >= math.floor(self.since_s)
        return made_by == self.token if made_by is not None else young


class Orders(Holdings):
    """The VMs of one fleet with our orders on them.

    Args:
        fleet: Its name.
        patience: How long to wait before giving up on VMs and orders; None uses the defaults.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        super().__init__()
        self.fleet = fleet
        self.patience = patience or Patience()
        self.hedges = HedgeBudget()
        """What overtaking late VMs may cost."""
        self._expected: dict[int, ExpectedVms] = {}
        self._said_s: dict[tuple[Verb, str], float] = {}
        """By verb and code, when a failure of calls that are repeated at each tick was last reported."""

    def _expected_vms(self) -> int:
        return sum(e.count for e in self._expected.values())

    def sent(
        self, verb: Verb, vm_ids: Sequence[str], count: int, action_id: int, now_s: float, token: str = ""
    ) -> None:
        """Count an order whose intent is recorded and whose call is about to be made."""
        self.touch()
        if verb is Verb.PROVISION:
            self._expected[action_id] = ExpectedVms(count, now_s + self.patience.start_s, token, now_s)
        for vm_id in vm_ids:
            t = self.vms[vm_id]
            t.order = Order(verb, now_s, action_id, t.vm.launched_at_s)
            t.at_rest = None
            if verb is Verb.START:
                t.start_ordered(now_s)
                self.places.claim(t.start_as or t.vm.vm_type, t.vm.zone, now_s)
                t.move(Phase.STARTING, now_s)
            else:
                # A VM that is now forced to stop was ordered to stop before.
                ordered_s = now_s if t.stopping_from_s is None else t.stopping_from_s
                t.move(Phase.STOPPING, now_s)
                t.stopping_from_s = ordered_s

    def expect(self, action_id: int, count: int, token: str, since_s: float, until_s: float) -> None:
        """Expect VMs that an earlier run may have requested; those not yet known count until `until_s`."""
        self.touch()
        expected = ExpectedVms(count, until_s, token, since_s)
        expected.count = max(count - len(self.made_by(token)), 0)
        self._expected[action_id] = expected

    def expected_earlier(self, by_s: float) -> dict[int, ExpectedVms]:
        """Return what is expected, by action, on a clock that was set back by `by_s` seconds.

        Which of the two clocks was right is not known, so these VMs are recognised by their token only.
        """
        return {
            number: replace(e, until_s=e.until_s - by_s, since_s=math.inf)
            for number, e in self._expected.items()
        }

    def add_in_flight(self, flying: Iterable[TrackedVm], expected: Mapping[int, ExpectedVms]) -> None:
        """Add orders in flight, with VMs that no listing has shown to this inventory yet."""
        self.touch()
        self.vms.update({t.vm.id: t for t in flying})
        self._expected.update(expected)

    def made_by(self, token: str) -> list[str]:
        """Return the VMs that carry the token of a provisioning call."""
        return sorted(i for i, t in self.vms.items() if t.vm.tags.get(MADE_BY_TAG) == token)

    def recall(
        self,
        verb: Verb,
        vm_ids: Sequence[str],
        action_id: int,
        sent_at_s: float,
        *,
        answered_at_s: float | None = None,
        unknown: bool = True,
    ) -> None:
        """Add an order of an earlier run whose effect no listing has shown yet.

        VMs are left alone that are not known, or whose listed state already shows that the order was carried out.
        """
        for vm_id in vm_ids:
            t = self.vms.get(vm_id)
            if t is None or t.order is not None or t.vm.state not in STATES_BEFORE[verb]:
                continue
            if verb is Verb.START and t.vm.launched_at_s >= sent_at_s:
                continue
            self.sent(verb, (vm_id,), 1, action_id, sent_at_s)
            answered_s = sent_at_s if answered_at_s is None else answered_at_s
            t.order = Order(verb, sent_at_s, action_id, t.vm.launched_at_s, answered_s, unknown)

    def settle(self, verb: Verb, outcomes: Iterable[Outcome], sent_s: float, received_s: float) -> list[Note]:
        """Apply the outcomes of orders with this verb; return one note per kind of failure.

        Orders that are repeated at each tick, because nothing was sent or the account is throttled, are reported once.
        """
        self.touch()
        failed: dict[str, list[str]] = {}
        said = self._said_lately(received_s)
        # What was accepted first, so that what was refused is what there is no room for beyond it.
        outcomes = sorted(outcomes, key=lambda each: each.kind is not OutcomeKind.ACCEPTED)
        refused = self._refused_together(outcomes) if verb is Verb.START else {}
        for outcome in outcomes:
            t = self.vms.get(outcome.vm_id)
            if t is None:
                continue
            if t.order is not None:
                t.order.answered_at_s = received_s
                t.order.unknown = outcome.kind is OutcomeKind.UNKNOWN
            if outcome.kind is OutcomeKind.UNKNOWN:
                continue
            if outcome.kind is not OutcomeKind.ACCEPTED:
                words = f"{outcome.kind} {outcome.code} {outcome.message}".strip()
                if verb is Verb.STOP and stop_retry_wait_s(outcome, 1):
                    words += "; asked again later, and others meanwhile"
                if (verb, outcome.code) not in said:
                    failed.setdefault(words, []).append(outcome.vm_id)
                if outcome.kind is OutcomeKind.THROTTLED:
                    self._said_s.setdefault((verb, outcome.code), received_s)
            else:
                self._said_s = {key: at_s for key, at_s in self._said_s.items() if key[0] is not verb}
            if verb is Verb.START:
                self._settle_start(t, outcome, sent_s, received_s, refused)
            else:
                self._settle_stop(t, outcome, sent_s, received_s)
        return [
            self._note(f"{verb}_not_accepted", f"{some(ids, _SHOWN_IDS)}: {why}")
            for why, ids in failed.items()
        ]

    def _refused_together(self, outcomes: Sequence[Outcome]) -> dict[tuple[str, str], int]:
        """Return, by place, for how many VMs at once a call was refused for lack of room, as far as the outcomes tell.

        A call that was refused for all of its VMs was repeated in halves.
        """
        accepted, refused = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for outcome in outcomes:
            t = self.vms.get(outcome.vm_id)
            if t is not None and outcome.kind in (OutcomeKind.ACCEPTED, OutcomeKind.NO_CAPACITY):
                counted = accepted if outcome.kind is OutcomeKind.ACCEPTED else refused
                counted[t.start_as or t.vm.vm_type, t.vm.zone] += 1
        return {place: vms if accepted[place] else max(vms // 2, 1) for place, vms in refused.items()}

    def _said_lately(self, now_s: float) -> frozenset[tuple[Verb, str]]:
        """The failures that are not reported again yet; others are forgotten."""
        # Times ahead of a clock that was set back would silence them until the clock reaches them.
        self._said_s = {key: at for key, at in self._said_s.items() if 0.0 <= now_s - at < _SAID_AGAIN_S}
        return frozenset(self._said_s)

    def _settle_start(
        self,
        t: TrackedVm,
        outcome: Outcome,
        sent_s: float,
        now_s: float,
        refused: Mapping[tuple[str, str], int],
    ) -> None:
        vm_type, t.start_as = t.start_as or t.vm.vm_type, ""
        t.denied = outcome.kind is OutcomeKind.DENIED
        if outcome.kind is OutcomeKind.ACCEPTED:
            self.places.found_room(vm_type, t.vm.zone)
            return
        if outcome.kind is not OutcomeKind.NO_CAPACITY:
            # The answer says nothing about the place, so another VM may try it.
            self.places.give_back(vm_type, t.vm.zone, sent_s, now_s)
        verdict = verdict_of(outcome)
        if verdict is not None:
            sent = outcome.code != ROOM_REFUSED
            why, vms = f"{outcome.code}: {outcome.message}", refused.get((vm_type, t.vm.zone), 1)
            self._failed(t, verdict, now_s, why, vm_type, sent=sent, vms=vms)
        if t.order is not None and not t.order.confirmed:
            t.order, t.ordered_at_s = None, None
            t.move(Phase.STOPPED, now_s)

    def _settle_stop(self, t: TrackedVm, outcome: Outcome, sent_s: float, received_s: float) -> None:
        if outcome.kind is OutcomeKind.ACCEPTED:
            if t.dismissed and t.hedged and t.run is not None:
                self.hedges.ran_idle(received_s - t.run.from_s)
            t.stops_refused = 0
            if not t.saves_memory:
                t.end_run((sent_s + received_s) / 2.0)
            t.in_service_from_s = None
        elif t.order is not None and not t.order.confirmed:
            t.order = None
            if not (t.saves_memory and outcome.code == NOT_YET) and stop_retry_wait_s(outcome, 1):
                t.stops_refused += 1
                alone_until_s = received_s + stop_retry_wait_s(outcome, t.stops_refused)
                t.hands_off_until_s = max(t.hands_off_until_s, alone_until_s)
            t.move(Phase.IN_SERVICE if t.in_service_from_s is not None else Phase.RUNNING, received_s)

    def provisioned(
        self, outcomes: Iterable[Outcome], vm_of: Mapping[str, Vm], action_id: int, now_s: float
    ) -> None:
        """Apply the outcomes of a provisioning call: its VMs count as on their way before any listing shows them.

        If the outcome is unknown, as many VMs as were requested, less those that are known, count until a listing can tell.
        """
        self.touch()
        expected = self._expected.pop(action_id, None)
        outcomes = tuple(outcomes)
        known = sum(outcome.kind is OutcomeKind.ACCEPTED for outcome in outcomes)
        for outcome in outcomes:
            if outcome.kind is OutcomeKind.UNKNOWN and expected is not None:
                expected.count = max(expected.count - known, 0)
                expected.until_s = now_s + self.patience.consistency_s
                self._expected[action_id] = expected
            if outcome.kind is not OutcomeKind.ACCEPTED or not outcome.vm_id:
                continue
            t = self.vms.get(outcome.vm_id)
            if t is None:
                t = self.vms[outcome.vm_id] = TrackedVm(vm_of[outcome.vm_id], Phase.PROVISIONING, now_s)
                t.order = Order(Verb.PROVISION, now_s, action_id, answered_at_s=now_s)
            t.ordered_at_s, t.source, t.new = now_s, StartSource.FRESH, True

    def _note(self, kind: str, text: str) -> Note:
        return Note(kind, self.fleet, text)

    def _failed(
        self,
        t: TrackedVm,
        verdict: Verdict,
        now_s: float,
        why: str,
        vm_type: str = "",
        *,
        sent: bool = True,
        vms: int = 1,
    ) -> None:
        """Apply a failed start: its place has no room, or the VM is left alone for a while, or neither is to blame.

        A start that was not sent does not count in the odds of its place.
        """
        place = vm_type or t.vm.vm_type, t.vm.zone
        if sent and verdict.blame is not FailureCause.PERSON:
            self.places.tell(*place, now_s, tried=1, failed=1)
        if verdict.blame in (FailureCause.PLACE, FailureCause.QUOTA, FailureCause.RESERVED):
            self.places.found_dry(*place, now_s, verdict.blame, vms)
        elif verdict.quarantines:
            self._quarantine(t, now_s, why, verdict.weight)

    def set_aside(self, vms: Iterable[TrackedVm], now_s: float, reason: str) -> None:
        """Quarantine VMs that served badly, for a long time, once they are stopped."""
        self.touch()
        for t in vms:
            self._quarantine(t, now_s, reason, weight=_BAD_SERVICE)

    def _quarantine(self, t: TrackedVm, now_s: float, reason: str, weight: float = 1.0) -> None:
        t.failures += 1
        until_s = now_s + quarantine_s(self.patience.quarantine_s, t.failures, weight)
        t.quarantined_until_s, t.quarantine_reason = until_s, reason
