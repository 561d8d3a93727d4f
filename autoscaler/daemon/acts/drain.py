"""Drains before stopping: a VM gets no new work, is seen idle twice, and only then is stopped.

    in service ─ DRAIN recorded ─ cordoned at the balancer ─ idle at two looks ─ STOP ─► stopping
         ▲                                │                        or its time is over
         └──────── RETURN recorded ───────┘   demand came back: it serves at once, before any VM is started

Why: seconds pass between a reading that shows an idle VM and the order to stop it, and work that arrives in between would be
lost. After the cordon no work arrives, so a VM that two looks find idle is idle.

Rules of this file: the balancer is the truth; a cordon counts only once it was read back. A VM that cannot be checked is not
idle. A VM that cannot be cordoned continues to serve, and so does one that a doubtful balancer (`membership`) does not have.
Nothing is done without an intent in the journal, from which a later run knows which VMs this one was draining.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autoscaler.config.policy import Policy
from autoscaler.daemon.acts.membership import Membership
from autoscaler.daemon.acts.refusals import OTHERS_FIRST_S, RETRY_S, Refusals
from autoscaler.daemon.bounded import within
from autoscaler.daemon.vms.holdings import is_stop_forbidden
from autoscaler.daemon.vms.inventory import FleetInventory, Phase, TrackedVm
from autoscaler.ports import (
    ActionIntent,
    ActionRecord,
    Balancer,
    Note,
    Outcome,
    OutcomeKind,
    ReadinessProbe,
    Rotation,
    RotationView,
    Verb,
    Vm,
)

IDLE_LOOKS = 2
"""Number of looks in a row, all after the cordon, that must find a VM idle."""
NOT_CORDONED = "NotCordoned"
"""Our own code: the balancer still gives the VM work, or does not say."""
NOT_ADMITTED = "NotAdmitted"
"""Our own code: the balancer gives the VM no work."""
NOT_YET_IN = "NotYetIn"
"""Our own code: the balancer has taken the VM back, and checks its health before giving it work."""


@dataclass(slots=True)
class Leaving:
    """One VM on its way out.

    Attributes:
        since_s: When its drain was ordered.
        cordoned_at_s: When the balancer was first seen to give it no more work; None before.
        looked_at_s: When it was last looked at after the cordon.
        idle_looks: Looks in a row that found it idle.
        sessions: Its sessions at the last look; None if unknown.
        undone: Whether it was reported that someone else put it back into the balancer.
    """

    since_s: float
    cordoned_at_s: float | None = None
    looked_at_s: float = float("-inf")
    idle_looks: int = 0
    sessions: int | None = None
    undone: bool = False


class Drains:
    """Drains VMs of one fleet before they stop, and has the balancer admit VMs before they are in service.

    Args:
        balancer: The fleet's load balancer; in shadow, a simulated one.
        policy: The fleet's policy.
    """

    def __init__(self, balancer: Balancer, policy: Policy) -> None:
        self.balancer = balancer
        self.section = policy.drain
        self.members = Membership(policy.fleet)
        self._acts = policy.act
        self.leaving: dict[str, Leaving] = {}
        self.error = ""
        """The last error that the balancer reported; empty if the last call succeeded."""
        self.silent = ""
        """Why it is not known whether ready VMs get work; empty if the balancer reports on any of them."""
        self.let_go_of: tuple[str, ...] = ()
        """Cordoned VMs that this daemon no longer drains, and that must be put back."""
        self._recalled: dict[str, float] = {}
        self._watches = False
        self.refusals = Refusals()

    def carry_on(self, before: Drains, inventory: FleetInventory) -> None:
        """Take over the drains of the fleet's previous object."""
        self.leaving, self._recalled, self._watches = before.leaving, before._recalled, before._watches
        if before.balancer is self.balancer:
            self.members, self.refusals = before.members, before.refusals
        else:
            self.begin_with_balancer(inventory)

    def begin_with_balancer(self, inventory: FleetInventory) -> None:
        """Have a balancer that is new to the fleet admit the VMs in service, and cordon the draining ones."""
        self.members.to_admit.update(t.vm.id for t in inventory.in_phase(Phase.IN_SERVICE))
        for each in self.leaving.values():
            each.cordoned_at_s, each.idle_looks, each.sessions = None, 0, None

    def stop_draining(self, inventory: FleetInventory) -> None:
        """Stop draining: the draining VMs are in service again, and listed in `let_go_of`."""
        found = [t for vm_id in self.leaving if (t := inventory.vms.get(vm_id)) and t.phase is Phase.DRAINING]
        self.let_go_of += tuple(t.vm.id for t in found)
        for t in found:
            t.move(Phase.IN_SERVICE, t.phase_since_s)
        self.leaving, inventory.unasked = {}, ""
        inventory.touch()

    @property
    def open(self) -> bool:
        """Whether VMs are draining or must be put back."""
        return bool(self.leaving or self.let_go_of)

    def trouble(self, now_s: float) -> str:
        """Return, for people, what is wrong with the balancer; empty if nothing is."""
        return self.members.doubt or self.error or self.refusals.trouble(now_s)

    # ── the way in ─────────────────────────────────────────────────────────────────────────────────────

    def admitting(self, probe: ReadinessProbe) -> ReadinessProbe:
        """Return a probe that reports a VM ready once `probe` does and the balancer has admitted it."""
        return _Admission(probe, self, "admit")

    def watching(self, probe: ReadinessProbe) -> ReadinessProbe:
        """Return a probe that reports a VM ready once it is in rotation, and admits none: another daemon may act."""
        return _Admission(probe, self, "look")

    # ── the way out ────────────────────────────────────────────────────────────────────────────────────

    def recall(self, actions: Iterable[ActionRecord]) -> None:
        """Read from the journal, oldest action first, which VMs an earlier run was draining."""
        self._recalled = drained(actions)

    def watch(self, another: str) -> None:
        """Note that this daemon does not act on the fleet; if another daemon does, VMs that were draining are its concern."""
        self._watches = True
        if another:
            self._recalled = {}

    def go_on(self, now_s: float) -> None:
        """Keep the present drains across a clock that was set back, before everything known of VMs is forgotten."""
        self._recalled = dict.fromkeys(self.leaving, now_s)

    def resume(self, inventory: FleetInventory, now_s: float) -> list[Note]:
        """Resume the drains of an earlier run for VMs that run; forget VMs that are gone or stopped."""
        notes = []
        if self._watches:
            # Other daemons may have changed the rotation of VMs meanwhile.
            self._watches = False
            self.begin_with_balancer(inventory)
        for vm_id, since_s in list(self._recalled.items()):
            t = inventory.vms.get(vm_id)
            if t is None and not inventory.listed:
                continue
            del self._recalled[vm_id]
            if t is None or t.phase is not Phase.RUNNING:
                continue
            if not self._acts:
                text = f"{vm_id} was draining when the daemon ended, and the fleet is in shadow: put it back into the load balancer by hand"
                notes.append(Note("drain_left", inventory.fleet, text))
                continue
            # If the drain's time ran out meanwhile, no one has watched the VM, and someone may have put it back.
            over = not 0.0 <= now_s - since_s < self.section.timeout_s
            self._leave(inventory, t, now_s if over else since_s, now_s)
            notes.append(
                Note("drain_resumed", inventory.fleet, f"{vm_id} was draining before, and drains on")
            )
        for vm_id in list(self.leaving):
            t = inventory.vms.get(vm_id)
            if t is None or t.phase is not Phase.DRAINING:
                del self.leaving[vm_id]
        self.members.keep(inventory.vms)
        return notes

    async def admit_in_service(self, inventory: FleetInventory, now_s: float, timeout_s: float) -> None:
        """Have the balancer admit VMs in service where needed, and check which it knows; `timeout_s` bounds each request."""
        serving = inventory.vms_in(Phase.IN_SERVICE)
        self.members.to_admit &= {vm.id for vm in serving}
        new = [vm for vm in serving if vm.id in self.members.to_admit]
        found = dict((await self._asked("admit", new, timeout_s)).members) if new else {}
        if self.members.doubt or not all(member.known for member in found.values()):
            rest = [vm for vm in serving if vm.id not in found]
            found |= (await self._asked("look", rest, timeout_s)).members if rest else {}
        self.members.judge(found, len(serving), now_s)

    async def look(self, inventory: FleetInventory, now_s: float, timeout_s: float) -> list[Note]:
        """Look at the draining VMs in the balancer, and cordon those again that are not confirmed as cordoned.

        Args:
            inventory: The fleet's VMs.
            now_s: The current time.
            timeout_s: Longest wait for each of the two requests, in seconds of the event loop.
        """
        vms = inventory.vms_in(Phase.DRAINING)
        open_vms = [vm for vm in vms if self.leaving[vm.id].cordoned_at_s is None]
        cordoned = [vm for vm in vms if self.leaving[vm.id].cordoned_at_s is not None]
        if open_vms:
            self._note_cordon(await self._cordoned(inventory, open_vms, now_s, timeout_s), now_s)
        if not cordoned:
            return []
        view = await self._asked("look", cordoned, timeout_s)
        notes = []
        for vm in cordoned:
            leaving, member = self.leaving.get(vm.id), view.members.get(vm.id)
            if leaving is None:
                # A call of an earlier tick returned meanwhile, and the VM serves again.
                continue
            if member is None or member.sessions is None:
                leaving.idle_looks, leaving.sessions = 0, None
                continue
            if member.rotation is Rotation.IN:
                # Someone put it back, or a reload did, and it may have taken work since.
                leaving.cordoned_at_s, leaving.idle_looks = None, 0
                text = f"{vm.id} was put back into the balancer, by somebody or by a reload; it is cordoned again"
                notes += [] if leaving.undone else [Note("drain_undone", inventory.fleet, text)]
                leaving.undone = True
                continue
            leaving.sessions = member.sessions
            if view.read_at_s > max(leaving.looked_at_s, leaving.cordoned_at_s or 0.0):
                idle = member.sessions <= self.section.idle_sessions
                leaving.idle_looks = leaving.idle_looks + 1 if idle else 0
                leaving.looked_at_s = view.read_at_s
        return notes

    def finished(self, now_s: float) -> tuple[list[str], list[str], list[str]]:
        """Return the VMs whose drain is over: those idle, those still busy at the timeout, and those never cordoned."""
        idle = sorted(vm_id for vm_id, each in self.leaving.items() if each.idle_looks >= IDLE_LOOKS)
        late = sorted(
            vm_id
            for vm_id, each in self.leaving.items()
            if each.idle_looks < IDLE_LOOKS and now_s - each.since_s >= self.section.timeout_s
        )
        busy = [vm_id for vm_id in late if self.leaving[vm_id].cordoned_at_s is not None]
        return idle, busy, [vm_id for vm_id in late if self.leaving[vm_id].cordoned_at_s is None]

    async def cordon_for_trial(self, vms: Sequence[Vm], timeout_s: float) -> frozenset[str]:
        """Cordon VMs that are started for a trial, and return those to which the balancer gives work, or may give it.

        A VM that someone else stopped, or whose entry was written again, is in rotation as soon as it answers.
        """
        error = self.error
        members = (await self._asked("cordon", vms, timeout_s)).members
        if members:
            # A balancer that does not have a VM which must not serve is no error.
            self.error = error
        kept = {vm_id for vm_id, member in members.items() if member.rotation is not Rotation.IN}
        return frozenset(vm.id for vm in vms) - kept

    # ── what is to be done in a tick ───────────────────────────────────────────────────────────────────

    def returns(self, inventory: FleetInventory, count: int, now_s: float, why: str) -> list[ActionIntent]:
        """Put back up to `count` draining VMs; returns at most one intent."""
        ids = tuple(t.vm.id for t in inventory.returnable(now_s)[: max(count, 0)])
        if not ids:
            return []
        return [
            ActionIntent(
                inventory.fleet, Verb.RETURN, ids, len(ids), "", f"taken back before any is started; {why}"
            )
        ]

    def replace_stops(self, inventory: FleetInventory, intents: Sequence[ActionIntent]) -> list[ActionIntent]:
        """Return the same intents, with stops of VMs in service replaced by drains."""

        def drained(intent: ActionIntent) -> ActionIntent:
            serving = all(inventory.vms[i].phase is Phase.IN_SERVICE for i in intent.vm_ids)
            return replace(intent, verb=Verb.DRAIN) if intent.verb is Verb.STOP and serving else intent

        return [drained(intent) for intent in intents]

    def ends(
        self, inventory: FleetInventory, now_s: float, taken_back: frozenset[str], *, may_stop: bool
    ) -> list[ActionIntent]:
        """Stop the VMs that are idle; those whose time is over are stopped or serve again, as the policy says.

        A VM that may still get new work serves again whatever the policy says. VMs that must not be stopped any more
        (an operator protected them, or gave them up) are put back.
        """
        vms = inventory.vms
        kept = sorted(i for i in self.leaving if i not in taken_back and is_stop_forbidden(vms[i], now_s))
        taken_back |= frozenset(kept)
        # If the balancer did not take a VM back, that is not tried again at once.
        kept = [i for i in kept if vms[i].quarantined_until_s <= now_s]
        given_up = [i for i in kept if vms[i].disowned]
        protected = [i for i in kept if not vms[i].disowned]
        idle, late, uncordoned = self.finished(now_s)
        fleet, found = inventory.fleet, []
        for back, why in (
            (given_up, "given up by an operator while it was draining"),
            (protected, "protected while it was draining"),
        ):
            if back:
                found.append(ActionIntent(fleet, Verb.RETURN, tuple(back), len(back), "", why))
        stays = self.section.on_timeout == "return"
        for verb, ids, why in (
            (Verb.STOP, idle, f"idle at {IDLE_LOOKS} looks after the cordon"),
            (
                Verb.RETURN if stays else Verb.STOP,
                late,
                f"still busy {self.section.timeout_s:g} s after the cordon (drain.timeout)",
            ),
            (
                Verb.RETURN,
                uncordoned,
                f"not seen cordoned within {self.section.timeout_s:g} s (drain.timeout), so that it serves on",
            ),
        ):
            chosen = tuple(i for i in ids if i not in taken_back)
            if chosen and (may_stop or verb is Verb.RETURN):
                if verb is Verb.STOP:
                    # If the stop fails, the balancer must admit them before they serve again.
                    for vm_id in chosen:
                        inventory.vms[vm_id].in_service_from_s = None
                found.append(ActionIntent(fleet, verb, chosen, len(chosen), "", why))
        return found

    # ── doing it ───────────────────────────────────────────────────────────────────────────────────────

    def sent(self, inventory: FleetInventory, intent: ActionIntent, now_s: float) -> None:
        """Count an intent that is recorded and about to be sent to the balancer."""
        inventory.touch()
        for vm_id in intent.vm_ids:
            t = inventory.vms[vm_id]
            if intent.verb is Verb.DRAIN:
                self._leave(inventory, t, now_s, now_s)
            else:
                self.leaving.pop(vm_id, None)
                if t.in_service_from_s is None:
                    t.in_service_from_s = now_s
                t.move(Phase.IN_SERVICE, now_s)

    async def carry_out(
        self, inventory: FleetInventory, intent: ActionIntent, now_s: float, timeout_s: float
    ) -> tuple[Outcome, ...]:
        """Send the intent to the balancer, and return one outcome per VM."""
        vms = [inventory.vms[vm_id].vm for vm_id in intent.vm_ids if vm_id in inventory.vms]
        wanted = Rotation.IN if intent.verb is Verb.RETURN else None
        if wanted is None:
            view = await self._cordoned(inventory, vms, now_s, timeout_s)
        else:
            view = await self._asked("admit", vms, timeout_s)
        return tuple(_outcome(vm_id, view, wanted) for vm_id in intent.vm_ids)

    def settle(
        self, inventory: FleetInventory, intent: ActionIntent, outcomes: Sequence[Outcome], now_s: float
    ) -> list[Note]:
        """Apply the balancer's answers; failures with the same words are reported once."""
        inventory.touch()
        failed: dict[str, list[str]] = {}
        out = intent.verb is Verb.DRAIN
        for outcome in outcomes:
            t = inventory.vms.get(outcome.vm_id)
            if t is None:
                continue
            accepted = outcome.kind is OutcomeKind.ACCEPTED
            if not accepted:
                failed.setdefault(outcome.message, []).append(outcome.vm_id)
            if out:
                self._settle_drain(t, now_s, accepted=accepted)
            elif outcome.code == NOT_YET_IN and t.phase is Phase.IN_SERVICE:
                # It will serve once it is admitted, like a VM that was started.
                t.in_service_from_s = None
                t.move(Phase.RUNNING, now_s)
            elif not accepted and t.phase is Phase.IN_SERVICE:
                self._leave(inventory, t, now_s, now_s)
                t.quarantined_until_s, t.quarantine_reason = (
                    now_s + RETRY_S,
                    "the balancer does not take it back",
                )
        if out:
            none = not any(o.kind is OutcomeKind.ACCEPTED for o in outcomes)
            self.refusals.cordoned(next(iter(failed), ""), now_s, none=none)
        return [
            Note("drain_failed" if out else "return_failed", inventory.fleet, f"{', '.join(ids)}: {why}")
            for why, ids in self.refusals.news_of(intent.verb, failed).items()
        ]

    def _settle_drain(self, t: TrackedVm, now_s: float, *, accepted: bool) -> None:
        leaving = self.leaving.get(t.vm.id)
        if leaving is None or t.phase is not Phase.DRAINING:
            return
        if accepted:
            leaving.cordoned_at_s = now_s
        else:
            # It gets work, or may, so it serves. If the cordon took effect all the same, the VM must be admitted
            # again.
            self.members.to_admit.add(t.vm.id)
            del self.leaving[t.vm.id]
            t.hands_off_until_s = max(t.hands_off_until_s, now_s + OTHERS_FIRST_S)
            t.move(Phase.IN_SERVICE, now_s)

    def _leave(self, inventory: FleetInventory, t: TrackedVm, since_s: float, now_s: float) -> None:
        inventory.touch()
        self.leaving[t.vm.id] = Leaving(since_s)
        t.at_rest = None
        if t.in_service_from_s is None:
            t.in_service_from_s = since_s
        t.move(Phase.DRAINING, now_s)

    def _note_cordon(self, view: RotationView, now_s: float) -> None:
        for vm_id, member in view.members.items():
            leaving = self.leaving.get(vm_id)
            # It may have returned to service while the balancer was asked.
            if leaving is not None and member.rotation is not Rotation.IN:
                leaving.cordoned_at_s = max(now_s, view.read_at_s)

    async def _cordoned(
        self, inventory: FleetInventory, vms: Sequence[Vm], now_s: float, timeout_s: float
    ) -> RotationView:
        """Cordon VMs; VMs whose absence from the balancer does not prove that they are drained are left out of the answer."""
        view = await self._asked("cordon", vms, timeout_s)
        absent = {vm_id for vm_id, member in view.members.items() if not member.known}
        if not absent:
            return view
        serving = inventory.vms_in(Phase.IN_SERVICE)
        said = await self._asked("look", serving, timeout_s) if serving else RotationView()
        doubted = self.members.doubted(absent, said.members, len(serving), now_s)
        # If the balancer reports on none of the VMs in service, its reason for that matters more.
        error = self.error = view.error if said.members or not serving else said.error
        kept = {vm_id: member for vm_id, member in view.members.items() if vm_id not in doubted}
        return replace(view, members=kept, error=self.members.doubt or error)

    async def _asked(self, what: str, vms: Sequence[Vm], timeout_s: float) -> RotationView:
        """Return the balancer's answer; any failure is in its `error`."""
        try:
            view: RotationView = await within(lambda: getattr(self.balancer, what)(vms), timeout_s)
            self.members.hear(view)
        except TimeoutError:
            view = RotationView(error=f"the balancer did not answer within {timeout_s:g} s")
        except Exception as error:  # noqa: BLE001  an adapter's bug holds its own fleet only
            view = RotationView(error=f"unexpected {type(error).__name__}: {error}; please report")
        self.error = view.error
        return view


def drained(actions: Iterable[ActionRecord]) -> dict[str, float]:
    """Return the VMs of one fleet whose last action was a drain, with its time; actions must be in order, oldest first."""
    found: dict[str, float] = {}
    for action in actions:
        refused = {o.vm_id for o in action.outcomes if not o.kind.perhaps_done}
        for vm_id in action.intent.vm_ids:
            real = action.intent.verb is Verb.DRAIN and not action.intent.simulated
            if real and vm_id not in refused:
                found[vm_id] = action.at_s
            else:
                found.pop(vm_id, None)
    return found


def carry_on(drains: Drains | None, before: Drains | None, inventory: FleetInventory) -> None:
    """Continue with the same VMs after a reload, behind the same balancer, another one, a first one, or none."""
    if drains is not None and before is not None:
        drains.carry_on(before, inventory)
    elif drains is not None:
        drains.begin_with_balancer(inventory)
    elif before is not None:
        before.stop_draining(inventory)


class _Admission:
    """A ReadinessProbe that asks another probe, and then has the balancer admit, or only look at, the ready VMs."""

    def __init__(self, probe: ReadinessProbe, drains: Drains, what: str) -> None:
        self._probe = probe
        self._drains = drains
        self._what = what

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Return the ids of the VMs to which the balancer gives work now."""
        passed = await self._probe.ready(vms)
        ready = [vm for vm in vms if vm.id in passed]
        self._drains.silent = "it does not answer in time" if ready else ""
        if not ready:
            return frozenset()
        view: RotationView = await getattr(self._drains.balancer, self._what)(ready)
        self._drains.error = view.error
        self._drains.silent = "" if view.members else view.error or "it says nothing of them"
        self._drains.members.hear(view)
        return frozenset(i for i, member in view.members.items() if member.rotation is Rotation.IN)


def _outcome(vm_id: str, view: RotationView, wanted: Rotation | None) -> Outcome:
    member = view.members.get(vm_id)
    rotation = None if member is None else member.rotation
    if (wanted is None and rotation in (Rotation.CORDONED, Rotation.OUT)) or (wanted and rotation is wanted):
        return Outcome(vm_id, OutcomeKind.ACCEPTED)
    if wanted and member is not None and member.known and rotation is Rotation.OUT and not view.error:
        return Outcome(vm_id, OutcomeKind.ACCEPTED, NOT_YET_IN, member.detail)
    said = view.error or (member.detail if member else "") or "the balancer says nothing of it"
    return Outcome(vm_id, OutcomeKind.REFUSED, NOT_ADMITTED if wanted else NOT_CORDONED, said)
