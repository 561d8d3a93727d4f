"""Shortages: VMs that a fleet wants and does not get, with a beginning, an end, and the reason.

Two ways lead into one. Nothing can supply the VMs now: stopped ones and new ones have no room, or are left alone because they
failed. Or VMs were ordered, for longer than a start takes, and none of them is on its way: calls are throttled or denied.

Rules of this file: nothing is decided here. A fleet is judged after its calls, when it is known what came of them. A warm pool
that the policy made too small is a reason of the decision, and no shortage.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass

from autoscaler.core.types import Reason, Stage
from autoscaler.daemon.acts.fallbacks import provision_options, provisionable_now
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.places import ANYWHERE, family
from autoscaler.daemon.vms.tracked import Phase
from autoscaler.ports import FleetTick, Note, Outcome, OutcomeKind
from autoscaler.words import counted, some

SETTLED_S = 60.0
"""Time without missing VMs after which a shortage has ended, in seconds."""


@dataclass(slots=True)
class Shortage:
    """VMs that one fleet wants and cannot get from anywhere.

    Attributes:
        since_s: When it began.
        seen_s: When VMs were last missing.
        missing: How many VMs were missing then.
        most: The most VMs that have been missing since it began.
        why: For people, why they cannot be had.
    """

    since_s: float
    seen_s: float
    missing: int
    most: int
    why: str


class Shortages:
    """The shortages of all fleets.

    Args:
        telemetry: Where the number of missing VMs is published.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._open: dict[str, Shortage] = {}
        self._nothing_coming_s: dict[str, float] = {}
        """By fleet, since when VMs have been wanted of which none serves or is on its way."""
        self._failed: dict[str, tuple[float, Outcome]] = {}
        """By fleet, the last start or provisioning that failed, and when."""
        self._published: dict[str, int] = {}

    def of(self, fleet: str) -> Shortage | None:
        """Return the shortage of a fleet while VMs are missing; None if it has what it wants."""
        found = self._open.get(fleet)
        return found if found is not None and found.missing else None

    def waits(self, fleet: str) -> bool:
        """Return whether the last turn left a fleet without VMs that it wants."""
        return fleet in self._nothing_coming_s or self.of(fleet) is not None

    def answered(self, fleet: str, outcomes: Iterable[Outcome], now_s: float) -> None:
        """Note what the cloud answered to starts or to a provisioning."""
        for outcome in outcomes:
            if outcome.kind is not OutcomeKind.ACCEPTED:
                self._failed[fleet] = now_s, outcome

    def keep(self, fleets: Container[str]) -> None:
        """Forget all fleets but these."""
        for kept in (self._open, self._nothing_coming_s, self._failed, self._published):
            for name in [name for name in kept if name not in fleets]:
                del kept[name]

    def set_back(self, now_s: float) -> None:
        """Count from now on at the latest, because the clock was set back."""
        for shortage in self._open.values():
            shortage.since_s, shortage.seen_s = min(shortage.since_s, now_s), min(shortage.seen_s, now_s)
        self._nothing_coming_s.clear()
        self._failed.clear()

    def follow(self, fleet: Fleet, row: FleetTick, now_s: float) -> Note | None:
        """Judge a fleet after the calls of a turn; return the event if a shortage begins or ends.

        Args:
            fleet: The fleet.
            row: Its decision.
            now_s: The time of the decision.
        """
        if fleet.leased_to:
            return self._given_up(fleet, now_s)
        if fleet.held_until_s == math.inf or not fleet.inventory.listed:
            return None
        missing, why = self._missing(fleet, row, now_s)
        shortage = self._open.get(fleet.name)
        self._publish(fleet.name, missing if why or shortage is not None else 0)
        if shortage is None:
            if not missing or not why:
                return None
            self._open[fleet.name] = Shortage(now_s, now_s, missing, missing, why)
            return Note("shortage_began", fleet.name, f"{counted(missing, 'VM')} not available now: {why}")
        shortage.missing, shortage.why = missing, why or shortage.why
        if missing:
            shortage.most, shortage.seen_s = max(shortage.most, missing), now_s
        if missing or now_s - shortage.seen_s < SETTLED_S:
            return None
        return self._ended(fleet.name, "all wanted VMs are available again")

    def _missing(self, fleet: Fleet, row: FleetTick, now_s: float) -> tuple[int, str]:
        """Return how many VMs are missing, and why; no reason if the cloud is not to blame, or not yet."""
        pool_lacks = 0
        if Reason.WARM_POOL_EMPTY in row.reasons:
            pool_lacks = max(row.stages[Stage.SUPPLY - 1] - row.stages[Stage.SUPPLY], 0)
        nothing_came = 0
        if row.start or row.provision:
            counts = fleet.inventory.counts(now_s, fleet.minimum_on_time_s)
            nothing_came = max(row.desired - counts.in_service - counts.starting, 0)
        if not nothing_came:
            self._nothing_coming_s.pop(fleet.name, None)
            return pool_lacks, self._why(fleet, now_s) if pool_lacks else ""
        since_s = self._nothing_coming_s.setdefault(fleet.name, now_s)
        no_supply = pool_lacks or row.provision > provisionable_now(fleet, now_s)
        if no_supply and (why := self._why(fleet, now_s)):
            return pool_lacks + nothing_came, why
        if now_s - since_s < fleet.policy.vm.start_time_s and fleet.name not in self._open:
            return 0, ""
        return pool_lacks + nothing_came, self._answer(fleet.name, since_s)

    def _why(self, fleet: Fleet, now_s: float) -> str:
        """Return, for people, what keeps a fleet from VMs; empty if nothing does."""
        dry = _dry_for(fleet, now_s)
        room = [f"{vm_type} in {zone}" for vm_type, zone in dry if zone != ANYWHERE]
        quotas = [vm_type for vm_type, zone in dry if zone == ANYWHERE]
        held = sum(t.quarantined_until_s > now_s for t in fleet.inventory.vms.values())
        parts = [f"no room for {', '.join(room)}"] if room else []
        parts += [f"the account's quota of {some(quotas)} VMs is used up"] if quotas else []
        parts += [f"{held} in quarantine"] if held else []
        if now_s < fleet.provision_held_until_s:
            _, refused = self._failed.get(fleet.name, (now_s, None))
            told = refused is not None and refused.kind is OutcomeKind.REFUSED
            said = f": {refused.code} {refused.message}" if refused is not None and told else ""
            parts.append(f"provisioning failed recently{said}")
        return "; ".join(parts)

    def _answer(self, name: str, since_s: float) -> str:
        """Return what the cloud answered last, if it was since VMs have been missing."""
        at_s, outcome = self._failed.get(name, (-math.inf, None))
        if outcome is None or at_s < since_s:
            return ""
        return f"the last request came to nothing: {outcome.kind} {outcome.code} {outcome.message}"

    def _given_up(self, fleet: Fleet, now_s: float) -> Note | None:
        """End what another daemon takes care of now."""
        self._publish(fleet.name, 0)
        self._nothing_coming_s.pop(fleet.name, None)
        if fleet.name not in self._open:
            return None
        self._open[fleet.name].seen_s = now_s
        return self._ended(fleet.name, f"the daemon {fleet.leased_to} acts on the fleet now")

    def _ended(self, name: str, how: str) -> Note:
        over = self._open.pop(name)
        lasted_s = over.seen_s - over.since_s
        return Note("shortage_ended", name, f"{how}; up to {over.most} were missing for {lasted_s:.0f} s")

    def _publish(self, name: str, missing: int) -> None:
        if self._published.get(name) != missing:
            self._published[name] = missing
            self._telemetry.missing_vms.labels(name).set(missing)


def _dry_for(fleet: Fleet, now_s: float) -> list[tuple[str, str]]:
    """Return the places without room in which this fleet could have VMs; its account may know others."""
    dry = fleet.inventory.dry(now_s)
    if not dry:
        return []
    places = {spec.place for spec in provision_options(fleet)}
    for t in fleet.inventory.in_phase(Phase.STOPPED):
        places |= {(vm_type, t.vm.zone) for vm_type in (t.vm.vm_type, *fleet.inventory.types)}
    places |= {(family(vm_type), ANYWHERE) for vm_type, _ in places}
    return [place for place in dry if place in places]
