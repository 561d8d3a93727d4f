"""The warm pool of one fleet, as the daemon maintains it: VMs are made, prepared, exercised, replaced and deleted.

    refill ─► pending ─► running ─► seen ready ─ tag pool=ready ─► stopping ─► stopped: in the pool
                                        ▲
    exercise: a stopped VM started ─────┘         a VM that is not ready in time never enters

Rules of this file: demand comes first. A VM enters the pool once it was seen fully ready: it runs, the provider's
checks and the policy's probe pass, and its image has reported readiness if the policy asks for that. A VM that the
daemon made and that never became ready is deleted. A VM that someone else made is deleted only if its tags allow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autoscaler.config.policy import Policy
from autoscaler.core.types import Freshness
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.holdings import PART_VMS
from autoscaler.daemon.vms.inventory import FleetInventory
from autoscaler.daemon.vms.pool_tags import GROUP_TAG, QUARANTINED_TAG, is_kept, is_preparing, may_be_deleted
from autoscaler.daemon.vms.saved_memory import DAY_S, LAST_CALL_S
from autoscaler.daemon.vms.tracked import MADE_BY_TAG, Phase, TrackedVm
from autoscaler.daemon.warm import exercise, freshness, refill, serving_instead
from autoscaler.daemon.warm.exercise_hooks import PreparingVm, Trials
from autoscaler.daemon.warm.operator_requests import PoolRequests
from autoscaler.daemon.warm.preparing import ready
from autoscaler.daemon.warm.served import Served
from autoscaler.daemon.warm.template import Template
from autoscaler.daemon.warm.undeleted import FailedDeletions
from autoscaler.ports import (
    ActionIntent,
    FleetTick,
    Note,
    Outcome,
    ProvisionSpec,
    Verb,
    VmState,
)

FOREVER = float("inf")
NEVER_READY = "it was made for the pool and never seen ready"
BY_OPERATOR = "quarantined by "
DELETED = "it is being deleted"
IN_GROUP = (
    "it is in an Auto Scaling group, which replaces VMs that are stopped; take it out of one or the other"
)
ORPHAN_S = 900.0
"""How long a VM that never became ready may lie stopped before it is deleted, in seconds."""
_DELETED_WITHIN_S = 300.0
_RETRY_S = 60.0


@dataclass(slots=True)
class Expected:
    """VMs that were requested and are not known one by one yet."""

    count: int
    until_s: float
    token: str


class WarmPool:
    """The state of one fleet's warm pool, and its work in progress.

    Args:
        now_s: The current time: VMs are first made as long from now as after a burst.
    """

    def __init__(self, now_s: float) -> None:
        self.preparing: dict[str, PreparingVm] = {}
        self.expected: dict[int, Expected] = {}
        self.specs_by_token: dict[str, ProvisionSpec] = {}
        """By client token, what the VMs of a refill are made from."""
        self.deleting: dict[str, float] = {}
        self.undeleted = FailedDeletions()
        self.asked = PoolRequests()
        self.trials = Trials()
        self.served = Served()
        self.template = Template()
        self.stale: list[freshness.Stale] = []
        self.failures = 0
        self.held_until_s = float("-inf")
        self._busy_s = now_s
        self._excess_since_s: float | None = None
        self._deletions: list[float] = []
        self._marked: list[TrackedVm] = []
        self._looked = -1
        self._told: set[str] = set()
        self.unready: list[TrackedVm] = []
        """Stopped VMs that were made for the pool and never seen ready."""

    # ── observing ──────────────────────────────────────────────────────────────────────────────────────

    def has_questions(self, fleet: Fleet, now_s: float) -> bool:
        """Return whether the provider or the probe has something to be asked, as far as listings show."""
        return bool(self._waiting(fleet)) or self.template.is_due(fleet, now_s)

    def _waiting(self, fleet: Fleet) -> list[TrackedVm]:
        """Return the VMs that run for the pool and have not been seen ready."""
        return [
            t
            for t in fleet.inventory.in_phase(Phase.PREPARING)
            if t.vm.state is VmState.RUNNING and self._is_open(t.vm.id)
        ]

    async def ask(self, fleet: Fleet, now_s: float, timeout_s: float) -> list[Note]:
        """Read the launch template and find the VMs that have become ready; return what deserves an event.

        Args:
            fleet: The fleet of the pool.
            now_s: The current time.
            timeout_s: Longest wait for each request, in seconds of the event loop.
        """
        notes = await self.template.read(fleet, now_s, timeout_s)
        waiting = self._waiting(fleet)
        for vm_id in await ready(fleet, waiting, self._running_s(), now_s, timeout_s) if waiting else ():
            each = self.preparing[vm_id]
            if each.trying and self.trials.begins(fleet, fleet.inventory.vms[vm_id].vm):
                continue
            each.ready = True
            notes.append(_note("pool_ready", fleet, f"{vm_id} is ready after {now_s - each.since_s:.0f} s"))
            self.failures = 0
        return notes

    def _is_open(self, vm_id: str) -> bool:
        """Return whether it is not known how this VM does, and nothing is in progress to find out."""
        each = self.preparing[vm_id]
        return not each.ready and not each.failed and not self.trials.has(vm_id)

    def _running_s(self) -> dict[str, float]:
        """Return when each VM was first seen running."""
        return {i: each.running_s for i, each in self.preparing.items() if each.running_s is not None}

    def taking_in(self, fleet: Fleet, now_s: float, notes: list[Note]) -> Iterator[int]:
        """Apply a listing to the pool part by part; yields how many VMs were looked at."""
        if fleet.inventory.changes != self._looked:
            yield from self._grouping(fleet, now_s, notes)
        vms = fleet.inventory.vms
        for t in fleet.inventory.in_phase(Phase.PREPARING):
            each = self.preparing.setdefault(
                t.vm.id, PreparingVm(t.phase_since_s, trying=not is_preparing(t.vm))
            )
            if t.vm.state is VmState.RUNNING and each.running_s is None:
                each.running_s = now_s
        stopped = fleet.inventory.in_phase(Phase.STOPPED)
        if stopped is not self._marked:
            yield from self._marking(fleet, stopped)
        notes += fleet.hibernation.lost(fleet.name, self._marked, now_s)
        notes += self.trials.settle(fleet, self.preparing, now_s)
        if self.served.ids:
            self.served.follow(fleet, now_s)
        if self.preparing:
            self._drop_gone(fleet, now_s, notes)
        if self.expected:
            self._drop_made(fleet.inventory)
        self.undeleted.keep(vms)
        if self.deleting:
            self.deleting = {
                vm_id: until_s
                for vm_id, until_s in self.deleting.items()
                if vm_id in vms and vms[vm_id].phase is not Phase.LOST and now_s < until_s
            }

    def _drop_gone(self, fleet: Fleet, now_s: float, notes: list[Note]) -> None:
        """Stop waiting for VMs that are no longer being prepared."""
        vms = fleet.inventory.vms
        for vm_id, each in list(self.preparing.items()):
            gone = vms.get(vm_id)
            if gone is not None and gone.phase is Phase.PREPARING:
                continue
            del self.preparing[vm_id]
            if gone is not None and gone.phase is Phase.STOPPED and not each.ready:
                why = gone.quarantine_reason or "it stopped by itself"
                notes.append(self._failed(fleet, vm_id, why, trying=each.trying, now_s=now_s))

    def _drop_made(self, inventory: FleetInventory) -> None:
        """Stop expecting VMs that were made, or that a complete listing should show by now."""
        vms = inventory.vms
        for number, asked in list(self.expected.items()):
            known = sum(t.vm.tags.get(MADE_BY_TAG) == asked.token for t in vms.values())
            if known >= asked.count or inventory.listed_at_s >= asked.until_s:
                del self.expected[number]
                self.specs_by_token.pop(asked.token, None)

    def _grouping(self, fleet: Fleet, now_s: float, notes: list[Note]) -> Iterator[int]:
        """Notice VMs in service, and report once each VM that an Auto Scaling group owns too; such a VM is left alone."""
        inventory = fleet.inventory
        self._looked = inventory.changes
        found = []
        for phase in (Phase.IN_SERVICE, Phase.STOPPED):
            resting = inventory.known_in(phase)
            for begin in range(0, len(resting), PART_VMS):
                part = resting[begin : begin + PART_VMS]
                if phase is Phase.IN_SERVICE:
                    self.served.notice(part, now_s)
                found += [t.vm.id for t in part if GROUP_TAG in t.vm.tags and t.vm.id not in self._told]
                yield len(part) // 4
        self._told.update(found)
        notes += [
            _note("vm_in_group", fleet, f"{vm_id} is left alone: {IN_GROUP}") for vm_id in sorted(found)
        ]

    def _marking(self, fleet: Fleet, stopped: list[TrackedVm]) -> Iterator[int]:
        """Look at the stopped VMs after any of them has changed."""
        for begin in range(0, len(stopped), PART_VMS):
            part = stopped[begin : begin + PART_VMS]
            for t in part:
                self._mark_stopped(fleet, t)
            yield len(part)
        after = fleet.inventory.in_phase(Phase.STOPPED)
        # VMs that stopped between two parts are looked at in the next tick.
        self._marked = after if after == stopped else stopped
        self.unready = [t for t in after if self._was_never_ready(t)]
        yield len(after) // 4

    def _mark_stopped(self, fleet: Fleet, t: TrackedVm) -> None:
        """Begin or end the quarantine of a stopped VM: never ready, taken out by an operator, or in an Auto Scaling group."""
        said = t.vm.tags.get(QUARANTINED_TAG, "")
        by_operator = t.quarantine_reason.startswith(BY_OPERATOR)
        if GROUP_TAG in t.vm.tags:
            if t.quarantine_reason != IN_GROUP:
                _quarantine(fleet, t, FOREVER, IN_GROUP)
            return
        if said and not by_operator:
            _quarantine(fleet, t, FOREVER, BY_OPERATOR + said)
        elif by_operator and not said:
            _quarantine(fleet, t, float("-inf"), "")
        elif self._was_never_ready(t) and t.quarantined_until_s != FOREVER:
            _quarantine(fleet, t, FOREVER, NEVER_READY)
        elif t.quarantine_reason == NEVER_READY and not is_preparing(t.vm):
            _quarantine(fleet, t, float("-inf"), "")

    def _was_never_ready(self, t: TrackedVm) -> bool:
        return is_preparing(t.vm) and t.vm.id not in self.served.ids

    def _failed(self, fleet: Fleet, vm_id: str, why: str, *, trying: bool, now_s: float) -> Note:
        if trying:
            return _note("exercise_failed", fleet, f"{vm_id} would not have served: {why}")
        self.failures += 1
        self.held_until_s = now_s + refill.hold_s(self.failures)
        return _note("prepare_failed", fleet, f"{vm_id} did not become ready: {why}")

    # ── what came back ─────────────────────────────────────────────────────────────────────────────────

    def begin_deleting(self, inventory: FleetInventory, ids: Sequence[str], now_s: float) -> None:
        """Note that these VMs are about to be deleted, so that nothing else is done with them."""
        inventory.touch()
        for vm_id in ids:
            t = inventory.vms[vm_id]
            self.deleting[vm_id] = now_s + _DELETED_WITHIN_S
            if t.phase is Phase.STOPPED:
                t.quarantined_until_s, t.quarantine_reason = now_s + _DELETED_WITHIN_S, DELETED
            if vm_id in self.preparing:
                self.preparing[vm_id].not_before_s = now_s + _RETRY_S
                self.failures += 1
                self.held_until_s = now_s + refill.hold_s(self.failures)

    def deleted(self, fleet: Fleet, outcomes: Sequence[Outcome], now_s: float) -> list[Note]:
        """Apply the outcomes of a deletion; VMs that were not deleted are members as before."""
        failed: dict[str, list[str]] = {}
        for outcome in outcomes:
            if outcome.kind.perhaps_done:
                # An operator's request stays until the VM is gone: an unknown outcome may mean that no call was made.
                continue
            words = f"{outcome.kind} {outcome.code} {outcome.message}".strip()
            failed.setdefault(words, []).append(outcome.vm_id)
            self.undeleted.record_outcome(outcome, now_s)
            if outcome.vm_id not in self.asked.evict:  # evictions are tried again when their time is over
                self.deleting.pop(outcome.vm_id, None)
            t = fleet.inventory.vms.get(outcome.vm_id)
            if t is not None and t.quarantine_reason == DELETED:
                _quarantine(fleet, t, float("-inf"), "")
        return [
            _note("terminate_not_accepted", fleet, f"{', '.join(ids)}: {why}") for why, ids in failed.items()
        ]

    def try_again(self, inventory: FleetInventory, t: TrackedVm, now_s: float, *, refused: bool) -> None:
        """Let a VM that could not be stopped into the pool (or not yet) run for the pool, and try again later."""
        inventory.touch()
        t.move(Phase.PREPARING, now_s)
        guarded = t.vm.id in self.preparing and self.preparing[t.vm.id].guarded
        each = PreparingVm(now_s, trying=not is_preparing(t.vm), running_s=now_s, ready=True, guarded=guarded)
        each.refused = refused + (self.preparing[t.vm.id].refused if t.vm.id in self.preparing else 0)
        each.not_before_s = now_s + refill.hold_s(each.refused)
        self.preparing[t.vm.id] = each

    # ── what is to be done in a tick ───────────────────────────────────────────────────────────────────

    def chores(
        self, fleet: Fleet, row: FleetTick, tick: int, now_s: float, *, may_refill: bool
    ) -> list[ActionIntent]:
        """Return what to do for the pool, given what the decision does for demand.

        Args:
            fleet: The fleet of the pool.
            row: The decision.
            tick: Number of the tick.
            now_s: The current time.
            may_refill: Whether operators allow VMs to be made.
        """
        if refill.is_busy(row):
            self._busy_s = now_s
        if self._is_idle(fleet.policy):
            return []
        if refill.is_busy(row):
            serving_instead.serve_demand(fleet, self, row, now_s)
        # A deletion cannot be undone, so it needs a present and complete listing, and stops that are allowed.
        may_delete = row.may_stop and not fleet.listing_error and not fleet.inventory.vanished
        found = self._ends(fleet, now_s, may_stop=row.may_stop, may_delete=may_delete)
        inventory = fleet.inventory
        ready = [t for t in inventory.startable(now_s) if t.vm.id not in self.deleting]
        self.stale = freshness.stale(ready, fleet.policy.freshness, self.template.current, now_s)
        found += self._evictions(fleet)
        if now_s - self._busy_s < self.calm_s(fleet) or refill.is_busy(row):
            return found
        fresh = fleet.policy.freshness
        open_now = fresh.refresh is not None and freshness.within(fresh.refresh.windows, now_s)
        leaving = freshness.to_replace(self.stale, self._still_asked(fleet, ready), open_now=open_now)
        leaving = [each for each in leaving if not self.undeleted.is_held(each.tracked.vm.id, now_s)]
        more = freshness.surge(fresh, leaving, row.warm_target)
        found += self._makes(fleet, row, tick, now_s, more) if may_refill else []
        if row.freshness != Freshness.FRESH and row.in_service:
            # The wanted number follows from demand: after a restart without metrics it is hardly any. If no VM
            # serves, there may be none to ask for metrics.
            self._excess_since_s = None
        elif may_delete:
            found += self._replaces(fleet, row, leaving, ready) if leaving and may_refill else []
            found += self._trims(fleet, row, ready, now_s)
        if row.may_start and not self.trials.waits(now_s):
            found += self._tries(fleet, row, ready, now_s)
        return found

    def calm_s(self, fleet: Fleet) -> float:
        """Return how long no VM must have been on its way for demand before any is made or tried, in seconds."""
        section = fleet.policy.refill
        return section.calm_s if section is not None else 120.0

    def _is_idle(self, policy: Policy) -> bool:
        """Return whether there is nothing to do: neither policy nor operators ask for it, and nothing is in progress."""
        fresh, asked = policy.freshness, self.asked
        wanted = policy.refill or fresh.refresh or fresh.exercise or policy.warm_pool.hibernate
        under_way = self.preparing or self.unready or self.deleting
        return not (wanted or under_way or asked.exercise or asked.evict or asked.refresh)

    def _open_to_us(self, fleet: Fleet) -> dict[str, PreparingVm]:
        """Return the VMs that run for the pool and may be stopped."""
        vms = fleet.inventory.vms
        return {i: each for i, each in self.preparing.items() if not serving_instead.must_run(vms[i], each)}

    def _ends(self, fleet: Fleet, now_s: float, *, may_stop: bool, may_delete: bool) -> list[ActionIntent]:
        """Store ready VMs in the pool; delete VMs that are not ready in time, or stop them if they were being tried."""
        timeout_s, vms = refill.preparing_timeout_s(fleet), fleet.inventory.vms
        found = []
        open_to_us = self._open_to_us(fleet)
        stored = tuple(i for i, each in open_to_us.items() if each.ready and now_s >= each.not_before_s)
        if stored and may_stop:
            found.append(_intent(fleet, Verb.STORE, stored, "ready: stopped into the warm pool"))
        late = [
            (i, each.trying)
            for i, each in open_to_us.items()
            if self._is_open(i) and now_s - each.since_s >= timeout_s and now_s >= each.not_before_s
        ]
        for i, each in open_to_us.items():
            if each.failed and may_stop and vms[i].phase is Phase.PREPARING:
                found.append(_intent(fleet, Verb.STOP, (i,), each.failed))
        made = tuple(i for i, trying in late if not trying and _is_spare(vms[i]))
        tried = tuple(i for i, _ in late if i not in made)
        if made and may_delete:
            found.append(
                _intent(fleet, Verb.TERMINATE, made, f"not ready within {timeout_s:g} s (refill.timeout)")
            )
        if tried and may_stop:
            found.append(_intent(fleet, Verb.STOP, tried, f"tried, and not ready within {timeout_s:g} s"))
        orphans = tuple(
            t.vm.id
            for t in self.unready
            if t.phase is Phase.STOPPED
            and _is_spare(t)
            and now_s - t.phase_since_s >= ORPHAN_S
            and t.vm.id not in self.deleting
            and not self.undeleted.is_held(t.vm.id, now_s)
        )
        if orphans and may_delete:
            found.append(_intent(fleet, Verb.TERMINATE, orphans, f"{NEVER_READY}, {ORPHAN_S:g} s ago"))
        return found

    def _evictions(self, fleet: Fleet) -> list[ActionIntent]:
        """Delete what operators asked for, once it is stopped; not VMs that they have protected or given up since."""
        vms = fleet.inventory.vms
        self.asked.evict = {
            i
            for i in self.asked.evict
            if i in vms and vms[i].phase is not Phase.LOST and not is_kept(vms[i].vm) and not vms[i].disowned
        }
        ids = tuple(
            sorted(i for i in self.asked.evict if vms[i].phase is Phase.STOPPED and i not in self.deleting)
        )
        return [_intent(fleet, Verb.TERMINATE, ids, "evicted by an operator")] if ids else []

    def _still_asked(self, fleet: Fleet, ready: Sequence[TrackedVm]) -> set[str]:
        """Return the ids that operators want replaced, until they are gone or up to date; VMs in service stay listed."""
        if self.asked.refresh:
            self.asked.refresh &= {i for i, t in fleet.inventory.vms.items() if t.phase is not Phase.LOST}
            if self.template.is_known(fleet):
                self.asked.refresh -= {t.vm.id for t in ready} - {each.tracked.vm.id for each in self.stale}
        return self.asked.refresh

    def _makes(self, fleet: Fleet, row: FleetTick, tick: int, now_s: float, more: int) -> list[ActionIntent]:
        if now_s < self.held_until_s or now_s < fleet.provision_held_until_s:
            return []
        expected = sum(each.count for each in self.expected.values())
        # VMs that this tick stops enter the pool as well.
        staying = len(self.preparing) - len(self._open_to_us(fleet))
        count = refill.vms_to_make(fleet, row.warm_target + more, expected + row.stop, staying)
        held = f"the warm pool holds {row.stopped} of {row.warm_target}"
        why = f"{held}, and {len(self.stale)} are out of date" if more else held
        made = refill.batches(fleet, count, why, tick, now_s)
        for batch in made:
            self.specs_by_token[batch.intent.token] = batch.spec
        return [batch.intent for batch in made]

    def _replaces(
        self, fleet: Fleet, row: FleetTick, leaving: Sequence[freshness.Stale], ready: Sequence[TrackedVm]
    ) -> list[ActionIntent]:
        exist = sum(t.phase is not Phase.LOST for t in fleet.inventory.vms.values())
        # Without room to make a new one first, only the policy's own minimum must stay.
        room = exist < fleet.policy.max_provisioned
        floor = max(row.warm_target, 0) if room else fleet.policy.warm_pool.minimum
        going = freshness.going(fleet.policy.freshness, leaving, len(ready), floor, row.warm_target)
        return [_intent(fleet, Verb.TERMINATE, ids, f"out of date: {why}") for why, ids in going.items()]

    def _trims(
        self, fleet: Fleet, row: FleetTick, ready: Sequence[TrackedVm], now_s: float
    ) -> list[ActionIntent]:
        section = fleet.policy.refill
        if section is None or section.trim_after_s is None:
            return []
        excess = len(ready) - max(row.warm_target, fleet.policy.warm_pool.minimum)
        if excess <= 0:
            self._excess_since_s = None
            return []
        self._excess_since_s = now_s if self._excess_since_s is None else self._excess_since_s
        rate = section.trim_rate
        self._deletions = [at_s for at_s in self._deletions if now_s - at_s < rate.per_s]
        count = min(excess, rate.vms - len(self._deletions))
        if now_s - self._excess_since_s < section.trim_after_s or count <= 0:
            return []
        may_go = [t for t in ready if may_be_deleted(t.vm) and not self.undeleted.is_held(t.vm.id, now_s)]
        oldest = sorted(may_go, key=lambda t: (freshness.made_at_s(t), t.vm.id))[:count]
        self._deletions += [now_s] * len(oldest)
        ids = tuple(t.vm.id for t in oldest)
        why = f"{excess} more than the {row.warm_target} wanted for long, oldest first"
        return [_intent(fleet, Verb.TERMINATE, ids, why)] if ids else []

    def _tries(
        self, fleet: Fleet, row: FleetTick, ready: Sequence[TrackedVm], now_s: float
    ) -> list[ActionIntent]:
        section = fleet.policy.freshness.exercise
        open_now = section is not None and freshness.within(section.windows, now_s)
        trying = sum(each.trying for each in self._open_to_us(fleet).values())
        ids = {t.vm.id for t in ready}
        self.asked.exercise &= ids
        renewed = fleet.hibernation.to_renew(ready, now_s, quiet=open_now or section is None)
        spare = len(ready) - fleet.policy.warm_pool.minimum if not self.asked.exercise else len(ready)
        if any(age_s >= LAST_CALL_S for age_s in renewed.values()):
            # One VM less for some minutes is better than a VM that has lost its memory.
            spare = max(spare, 1)
        del row
        quiet = section if open_now else None
        due = exercise.due(ready, quiet, self.asked.exercise, renewed, trying, spare, now_s)
        self.asked.exercise -= {t.vm.id for t in due}
        return [_intent(fleet, Verb.EXERCISE, (t.vm.id,), _why_tried(renewed.get(t.vm.id))) for t in due]


def _why_tried(memory_age_s: float | None) -> str:
    if memory_age_s is None:
        return "tried: would it serve?"
    return f"tried, since its memory was saved {memory_age_s / DAY_S:.0f} days ago"


def _is_spare(t: TrackedVm) -> bool:
    """Return whether a VM that never became ready may be deleted: not if people examine it or have given it up."""
    return may_be_deleted(t.vm) and not t.vm.tags.get(QUARANTINED_TAG) and not t.disowned


def _quarantine(fleet: Fleet, t: TrackedVm, until_s: float, why: str) -> None:
    t.quarantined_until_s, t.quarantine_reason = until_s, why
    fleet.inventory.touch()


def _intent(fleet: Fleet, verb: Verb, ids: Iterable[str], why: str) -> ActionIntent:
    chosen = tuple(ids)
    return ActionIntent(fleet.name, verb, chosen, len(chosen), "", why)


def _note(kind: str, fleet: Fleet, text: str) -> Note:
    return Note(kind, fleet.name, text)
