"""Orders for the VMs of one fleet: what was requested, what the provider answered, and what is still pending.

Rules of this file: an order counts at once. `inventory` decides what a listing says about it; time comes in as an argument;
nothing here makes a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.learned.lead_time import StartSource
from autoscaler.daemon.vms.hedging import HedgeBudget
from autoscaler.daemon.vms.holdings import Holdings
from autoscaler.daemon.vms.quarantine import Blame, Verdict, quarantine_s, serves_on_s, verdict_of
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, Order, Patience, Phase, TrackedVm
from autoscaler.ports import NOT_YET, Note, Outcome, OutcomeKind, Verb, Vm, VmState
from autoscaler.words import some

STATES_BEFORE = {
    Verb.START: frozenset({VmState.STOPPED, VmState.STOPPING}),
    Verb.STOP: frozenset({VmState.RUNNING, VmState.PENDING}),
    Verb.PROVISION: frozenset({VmState.STOPPED, VmState.STOPPING}),
}
"""States in which a listing shows a VM that it has seen before our order was done."""
_SHOWN_IDS = 5
_BAD_SERVICE = 6.0
"""Weight of having served badly, beside a start that failed."""


@dataclass(slots=True)
class Expected:
    """VMs of a provisioning whose answer is not in, or was never heard."""

    count: int
    until_s: float
    """From then on a complete listing that does not show them means that they were not made."""
    token: str
    since_s: float
    """When they were asked for; infinite where no age tells."""

    def may_be(self, vm: Vm) -> bool:
        """Whether this is one of them: by the token it carries, or else by its age."""
        made_by = vm.tags.get(MADE_BY_TAG)
        young = math.isfinite(self.since_s) and vm.launched_at_s >= math.floor(self.since_s)
        return made_by == self.token if made_by is not None else young


class Orders(Holdings):
    """The VMs of one fleet with our orders on them.

    Args:
        fleet: Its name.
        patience: How long to wait for what.
    """

    def __init__(self, fleet: str, patience: Patience | None = None) -> None:
        super().__init__()
        self.fleet = fleet
        self.patience = patience or Patience()
        self.hedges = HedgeBudget()
        """What overtaking late VMs may cost."""
        self._expected: dict[int, Expected] = {}

    def _expected_vms(self) -> int:
        return sum(e.count for e in self._expected.values())

    def sent(
        self, verb: Verb, vm_ids: Sequence[str], count: int, action_id: int, now_s: float, token: str = ""
    ) -> None:
        """An intent is recorded and its call is about to be made: it counts from now on."""
        self.touch()
        if verb is Verb.PROVISION:
            self._expected[action_id] = Expected(count, now_s + self.patience.start_s, token, now_s)
        for vm_id in vm_ids:
            t = self.vms[vm_id]
            t.order = Order(verb, now_s, action_id, t.vm.launched_at_s)
            t.at_rest = None
            if verb is Verb.START:
                t.start_ordered(now_s)
                self.places.claim(t.start_as or t.vm.vm_type, t.vm.zone, now_s)
                t.move(Phase.STARTING, now_s)
            else:
                # One that is forced to stop now was ordered to before.
                ordered_s = now_s if t.stopping_from_s is None else t.stopping_from_s
                t.move(Phase.STOPPING, now_s)
                t.stopping_from_s = ordered_s

    def expect(self, action_id: int, count: int, token: str, since_s: float, until_s: float) -> None:
        """An earlier run asked for so many VMs, perhaps: those that are not known yet count until then."""
        self.touch()
        expected = Expected(count, until_s, token, since_s)
        expected.count = max(count - len(self.made_by(token)), 0)
        self._expected[action_id] = expected

    def expected_earlier(self, by_s: float) -> dict[int, Expected]:
        """What is expected by action, for so many seconds less by the clock.

        Which clock was right is not known, so that an age tells nothing: these VMs are known by their token.
        """
        return {
            number: replace(e, until_s=e.until_s - by_s, since_s=math.inf)
            for number, e in self._expected.items()
        }

    def go_on_with(self, flying: Iterable[TrackedVm], expected: Mapping[int, Expected]) -> None:
        """Orders in flight, of VMs that no listing has shown to this inventory yet."""
        self.touch()
        self.vms.update({t.vm.id: t for t in flying})
        self._expected.update(expected)

    def made_by(self, token: str) -> list[str]:
        """The VMs that carry the token of a provisioning."""
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
        """An earlier run made this call, and no listing has shown its effect: one must tell.

        VMs whose listed state already shows that it was done, or that are not known, are left alone.
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
        """Take in what came back from the provider for orders of this verb; one note per kind of failure."""
        self.touch()
        failed: dict[str, list[str]] = {}
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
                if verb is Verb.STOP and serves_on_s(outcome, 1):
                    words += "; asked again later, and others meanwhile"
                failed.setdefault(words, []).append(outcome.vm_id)
            if verb is Verb.START:
                self._settle_start(t, outcome, sent_s, received_s)
            else:
                self._settle_stop(t, outcome, sent_s, received_s)
        return [
            self._note(f"{verb}_not_accepted", f"{some(ids, _SHOWN_IDS)}: {why}")
            for why, ids in failed.items()
        ]

    def _settle_start(self, t: TrackedVm, outcome: Outcome, sent_s: float, now_s: float) -> None:
        vm_type, t.start_as = t.start_as or t.vm.vm_type, ""
        t.denied = outcome.kind is OutcomeKind.DENIED
        if outcome.kind is OutcomeKind.ACCEPTED:
            self.places.found_room(vm_type, t.vm.zone)
            return
        if outcome.kind is OutcomeKind.THROTTLED:
            self.places.give_back(vm_type, t.vm.zone, sent_s, now_s)
        verdict = verdict_of(outcome)
        if verdict is not None:
            self._failed(t, verdict, now_s, f"{outcome.code}: {outcome.message}", vm_type)
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
            if not (t.saves_memory and outcome.code == NOT_YET) and serves_on_s(outcome, 1):
                t.stops_refused += 1
                alone_until_s = received_s + serves_on_s(outcome, t.stops_refused)
                t.hands_off_until_s = max(t.hands_off_until_s, alone_until_s)
            t.move(Phase.IN_SERVICE if t.in_service_from_s is not None else Phase.RUNNING, received_s)

    def provisioned(
        self, outcomes: Iterable[Outcome], vm_of: Mapping[str, Vm], action_id: int, now_s: float
    ) -> None:
        """A provisioning came back: its VMs count as on their way before any listing shows them.

        Where the outcome is unknown, as many VMs as were asked for count until a listing can tell.
        """
        self.touch()
        expected = self._expected.pop(action_id, None)
        for outcome in outcomes:
            if outcome.kind is OutcomeKind.UNKNOWN and expected is not None:
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

    def _failed(self, t: TrackedVm, verdict: Verdict, now_s: float, why: str, vm_type: str = "") -> None:
        """A start came to nothing: its place is dry, or the VM is left alone for a while, or nobody is blamed."""
        place = vm_type or t.vm.vm_type, t.vm.zone
        if verdict.blame is not Blame.PERSON:
            self.places.tell(*place, now_s, tried=1, failed=1)
        if verdict.blame in (Blame.PLACE, Blame.QUOTA):
            self.places.found_dry(*place, now_s, quota=verdict.blame is Blame.QUOTA)
        elif verdict.quarantines:
            self._quarantine(t, now_s, why, verdict.weight)

    def set_aside(self, vms: Iterable[TrackedVm], now_s: float, reason: str) -> None:
        """VMs that did badly in service are left alone for long once they are stopped."""
        self.touch()
        for t in vms:
            self._quarantine(t, now_s, reason, weight=_BAD_SERVICE)

    def _quarantine(self, t: TrackedVm, now_s: float, reason: str, weight: float = 1.0) -> None:
        t.failures += 1
        until_s = now_s + quarantine_s(self.patience.quarantine_s, t.failures, weight)
        t.quarantined_until_s, t.quarantine_reason = until_s, reason
