"""Hibernation in one fleet: which VMs save their memory on stop, which cannot, and when a saved memory is renewed.

    stop wanted ─ launched for it, served, never refused, and one more memory is worth it ─► stop with its memory saved
                                     │ refused
                                     └─► plain stop at once; never asked again, or again in some minutes

Core decides how many saved memories are worth their cost (`core.warm.tiers`). No VM is started only for that: a waiting VM
keeps its tier until it is started for demand or exercised.

Rules of this file: choice and state only; nothing here makes a call. A VM that did not serve, or served badly, is stopped
without hibernation: its memory is not worth keeping.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autoscaler.config.vms import HibernationSection
from autoscaler.daemon.vms.holdings import Holdings
from autoscaler.daemon.vms.saved_memory import DAY_S, KEPT_S, LAST_CALL_S, resumes, saved_at_s
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import NO_HIBERNATION, NOT_YET, Note, Outcome, OutcomeKind
from autoscaler.words import some

PLAINLY = frozenset({NO_HIBERNATION, NOT_YET})
"""Codes of a refused hibernation after which a plain stop is accepted."""
READY_WITHIN_S = 600.0
"""Longest wait for a new VM that cannot hibernate yet, in seconds; after that it enters the warm pool without a saved
memory.
"""
_SERVED = frozenset({Phase.IN_SERVICE, Phase.DRAINING})


def memories(holdings: Holdings, now_s: float) -> int:
    """Return how many startable VMs wait, or soon will, with a memory from which they would resume."""
    stopped = holdings.known_in(Phase.STOPPED)
    waiting = sum(resumes(t.vm, now_s) and t.quarantined_until_s <= now_s for t in stopped)
    return waiting + sum(t.saves_memory or t.vm.hibernates for t in holdings.known_in(Phase.STOPPING))


def held(holdings: Holdings) -> int:
    """Return how many stopped VMs have a saved memory, even if it is too old to resume from."""
    return sum(t.vm.hibernates for t in holdings.known_in(Phase.STOPPED))


class Hibernation:
    """Decides which VMs of one fleet save their memory.

    Args:
        section: The policy's section; None if VMs do not hibernate.
    """

    def __init__(self, section: HibernationSection | None) -> None:
        self._section = section
        self.wanted: int | None = None
        """How many waiting VMs should be hibernated; None means all that may be."""
        self._never: set[str] = set()
        """VMs that the provider said can never hibernate."""
        self._not_yet_since_s: dict[str, float] = {}
        self._told: set[str] = set()
        self._news: list[Note] = []

    def carry_on(self, before: Hibernation) -> None:
        """Take over the state of the same fleet's previous object."""
        self._never, self._not_yet_since_s, self._told = before._never, before._not_yet_since_s, before._told
        self.wanted = before.wanted if self._section is not None else None

    def may(self, t: TrackedVm, now_s: float) -> bool:
        """Return whether the VM's memory may be saved, as far as is known, and is worth it."""
        if self._section is None or not t.vm.may_hibernate or t.vm.id in self._never:
            return False
        return not t.dismissed and t.quarantined_until_s <= now_s

    def of_stops(self, holdings: Holdings, vms: Iterable[TrackedVm], now_s: float) -> frozenset[str]:
        """Return the ids of those VMs that should save their memory on the coming stop; called before they change phase."""
        able = [t.vm.id for t in vms if t.phase in _SERVED and self.may(t, now_s)]
        return frozenset(able[: self._room(holdings, now_s)] if able else ())

    def of_stored(self, holdings: Holdings, vms: Iterable[TrackedVm], now_s: float) -> frozenset[str]:
        """Return the ids of those VMs that should save their memory on entering the warm pool; called before they are
        stopped.
        """
        able = [t.vm.id for t in vms if self.may(t, now_s)]
        return frozenset(able[: self._room(holdings, now_s)] if able else ())

    def _room(self, holdings: Holdings, now_s: float) -> int | None:
        """Return how many more memories are wanted; None for no limit."""
        return None if self.wanted is None else max(self.wanted - memories(holdings, now_s), 0)

    def is_waited_for(self, vm_id: str, now_s: float) -> bool:
        """Return whether a VM on its way into the warm pool may still become able to hibernate."""
        return now_s - self._not_yet_since_s.get(vm_id, now_s) < READY_WITHIN_S

    def refused(self, holdings: Holdings, fleet: str, refusals: Sequence[Outcome], now_s: float) -> None:
        """Note which VMs the provider refused to hibernate; `take_news` reports it."""
        by_code: dict[str, list[Outcome]] = {}
        for outcome in refusals:
            t = holdings.vms.get(outcome.vm_id)
            if t is not None:
                t.saves_memory = False
            if outcome.code == NO_HIBERNATION:
                self._never.add(outcome.vm_id)
            elif outcome.vm_id not in self._not_yet_since_s:
                self._not_yet_since_s[outcome.vm_id] = now_s
            else:
                continue
            by_code.setdefault(outcome.code, []).append(outcome)
        self._never &= holdings.vms.keys()
        for code, found in by_code.items():
            ids = some([outcome.vm_id for outcome in found], 5)
            then = (
                "stopped without saving memory, now and later; replace the VM to keep its memory, or ask `autoscaler doctor` why"
                if code == NO_HIBERNATION
                else "not yet: tried again in a minute where the warm pool waits for it, else stopped plainly"
            )
            text = f"{ids}: {then} ({code}: {found[0].message})"
            self._news.append(Note("hibernate_refused", fleet, text))

    def stopped(self, outcomes: Iterable[Outcome]) -> None:
        """Note which stops were accepted: a VM that could not hibernate yet gets a new waiting time at its next stop."""
        for outcome in outcomes:
            if outcome.kind is OutcomeKind.ACCEPTED:
                self._not_yet_since_s.pop(outcome.vm_id, None)

    def take_news(self) -> list[Note]:
        """Return what deserves an event since the last call."""
        news, self._news = self._news, []
        return news

    def to_renew(self, ready: Iterable[TrackedVm], now_s: float, *, quiet: bool) -> dict[str, float]:
        """Return the VMs whose memory should be saved again by exercising them, with the age of the memory in seconds.

        Args:
            ready: Stopped VMs that could be started.
            now_s: The current time.
            quiet: Whether this is a quiet window. A memory that is about to be lost does not wait for one.
        """
        if self._section is None:
            return {}
        least_s = self._section.renew_after_s if quiet else max(self._section.renew_after_s, LAST_CALL_S)
        ages = {t.vm.id: now_s - saved_s for t in ready if (saved_s := saved_at_s(t.vm)) is not None}
        return {vm_id: age_s for vm_id, age_s in ages.items() if age_s >= least_s}

    def lost(self, fleet: str, stopped: Iterable[TrackedVm], now_s: float) -> list[Note]:
        """Report, once per VM, memories that are too old to resume from."""
        if self._section is None:
            return []
        old = [t.vm.id for t in stopped if now_s - (saved_at_s(t.vm) or now_s) >= KEPT_S]
        new = [vm_id for vm_id in old if vm_id not in self._told]
        self._told = set(old)
        return [
            Note(
                "memory_lost",
                fleet,
                f"{vm_id} was hibernated more than {KEPT_S / DAY_S:.0f} days ago, and the provider keeps no memory for "
                "longer: it boots from its disk like a stopped one, and is exercised as soon as no VM is on its way for demand",
            )
            for vm_id in new
        ]
