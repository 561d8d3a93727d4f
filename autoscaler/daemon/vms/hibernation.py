"""Hibernation in one fleet: which VMs save their memory on stop, which cannot, and when a saved memory is renewed.

    stop wanted ─ launched for it, served, never refused, and a memory more is worth it ─► stop with its memory saved
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
from autoscaler.daemon.vms.memory import DAY_S, KEPT_S, LAST_CALL_S, resumes, saved_at_s
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import NO_HIBERNATION, NOT_YET, Note, Outcome, OutcomeKind
from autoscaler.words import some

PLAINLY = frozenset({NO_HIBERNATION, NOT_YET})
"""Codes of a refusal after which a plain stop is accepted."""
READY_WITHIN_S = 600.0
"""A new VM that cannot hibernate yet is waited for so long, before it enters the warm pool without."""
_SERVED = frozenset({Phase.IN_SERVICE, Phase.DRAINING})


def memories(holdings: Holdings, now_s: float) -> int:
    """VMs that wait, or soon will, and would go on from their memory if they were started; they may be started."""
    stopped = holdings.known_in(Phase.STOPPED)
    waiting = sum(resumes(t.vm, now_s) and t.quarantined_until_s <= now_s for t in stopped)
    return waiting + sum(t.saves_memory or t.vm.hibernates for t in holdings.known_in(Phase.STOPPING))


def held(holdings: Holdings) -> int:
    """VMs whose memory is saved, too old to be resumed from or not."""
    return sum(t.vm.hibernates for t in holdings.known_in(Phase.STOPPED))


class Hibernation:
    """What one fleet knows of its VMs' memories.

    Args:
        section: As the policy has it; None where VMs do not hibernate.
    """

    def __init__(self, section: HibernationSection | None) -> None:
        self._section = section
        self.wanted: int | None = None
        """So many of the VMs that wait should be hibernated; None where all that may are."""
        self._never: set[str] = set()
        """VMs that the provider said cannot hibernate."""
        self._not_yet_since_s: dict[str, float] = {}
        self._told: set[str] = set()
        self._news: list[Note] = []

    def carry_on(self, before: Hibernation) -> None:
        """Go on with what another setup of the same fleet knows."""
        self._never, self._not_yet_since_s, self._told = before._never, before._not_yet_since_s, before._told
        self.wanted = before.wanted if self._section is not None else None

    def may(self, t: TrackedVm, now_s: float) -> bool:
        """Whether its memory may be saved, for all that is known, and is worth it."""
        if self._section is None or not t.vm.may_hibernate or t.vm.id in self._never:
            return False
        return not t.dismissed and t.quarantined_until_s <= now_s

    def of_stops(self, holdings: Holdings, vms: Iterable[TrackedVm], now_s: float) -> frozenset[str]:
        """Those of the VMs about to be stopped, in the phase that they are in before, that save their memory."""
        able = [t.vm.id for t in vms if t.phase in _SERVED and self.may(t, now_s)]
        return frozenset(able[: self._room(holdings, now_s)] if able else ())

    def of_stored(self, holdings: Holdings, vms: Iterable[TrackedVm], now_s: float) -> frozenset[str]:
        """Those of the VMs on their way into the pool that save their memory; they are in no order to stop yet."""
        able = [t.vm.id for t in vms if self.may(t, now_s)]
        return frozenset(able[: self._room(holdings, now_s)] if able else ())

    def _room(self, holdings: Holdings, now_s: float) -> int | None:
        """How many more memories are wanted; None for no limit."""
        return None if self.wanted is None else max(self.wanted - memories(holdings, now_s), 0)

    def is_waited_for(self, vm_id: str, now_s: float) -> bool:
        """Whether a VM on its way into the pool may still become able to."""
        return now_s - self._not_yet_since_s.get(vm_id, now_s) < READY_WITHIN_S

    def refused(self, holdings: Holdings, fleet: str, refusals: Sequence[Outcome], now_s: float) -> None:
        """Take in what the provider refused to hibernate; `take_news` tells of it."""
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
        """These stops came back: who was not able yet begins anew next time."""
        for outcome in outcomes:
            if outcome.kind is OutcomeKind.ACCEPTED:
                self._not_yet_since_s.pop(outcome.vm_id, None)

    def take_news(self) -> list[Note]:
        """What deserves an event since the last call."""
        news, self._news = self._news, []
        return news

    def to_renew(self, ready: Iterable[TrackedVm], now_s: float, *, quiet: bool) -> dict[str, float]:
        """VMs to be tried, so that their memory is saved anew, with the age of the one they have in seconds.

        Args:
            ready: Stopped VMs that could be started.
            now_s: The clock.
            quiet: Whether it is time for such work; what is about to be lost does not wait for that.
        """
        if self._section is None:
            return {}
        least_s = self._section.renew_after_s if quiet else max(self._section.renew_after_s, LAST_CALL_S)
        ages = {t.vm.id: now_s - saved_s for t in ready if (saved_s := saved_at_s(t.vm)) is not None}
        return {vm_id: age_s for vm_id, age_s in ages.items() if age_s >= least_s}

    def lost(self, fleet: str, stopped: Iterable[TrackedVm], now_s: float) -> list[Note]:
        """Tell once of each VM whose memory is too old to be resumed from."""
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
