"""The shadow provider: reads the real one and cannot change anything; fleets without `act` run on it.

Each fleet has its own instance, which shows only that fleet's VMs: in a new installation all fleets are in shadow, and if each
searched the VMs of all, the cost of a tick would be quadratic.

Starts and stops are simulated on top of the real listing with the policy's own start and stop times, so that cooldowns,
in-flight counts and forecasts proceed as they would, and the journal shows what would have been done. Once a VM was seen at
rest, running or stopped, changes by others are no longer followed: only the policy's own orders move it, so that a schedule that
is still in force elsewhere does not do half of the policy's work. The type has no way to reach the real provider's changing
calls: it holds only a reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from autoscaler.at_once import answers_at_once
from autoscaler.ports import (
    FLEET_TAG,
    Clock,
    Listing,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    Vm,
    VmState,
    name_of,
)

FORGET_AFTER_S = 3600.0
"""A VM that no whole listing has shown for so long is forgotten; listings may lag, but not by that."""
TOKENS_KEPT = 1000
"""A client token is answered the same for as long as it is among so many."""
RUNNING_SHARE = 0.7
"""Share of the start time after which a simulated VM runs; the rest is its boot."""


class VmReader(Protocol):
    """The reading half of a provider."""

    async def list_of(self, fleet: str) -> tuple[Listing, tuple[Vm, ...]]:
        """A listing as in the Provider port, and its rows that belong to this fleet."""
        ...

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port."""
        ...


@dataclass(frozen=True, slots=True)
class _Simulated:
    """A state that we pretend a VM to be in since a moment; True is started, False is stopped."""

    started: bool
    since_s: float
    launched_at_s: float | None
    """When we last pretended to start it; None where it only ever was stopped."""


@dataclass(slots=True)
class _Shown:
    """Rows as listed, all of them as they were shown, and when that was last so."""

    listed: tuple[Vm, ...]
    vms: tuple[Vm, ...]
    at_s: float = 0.0


class ShadowProvider:
    """Simulates the outcome of its own decisions; implements the Provider port.

    Args:
        reader: Lists the real VMs.
        clock: Time.
        fleet: Whose VMs are shown.
        start_time_s: From an order to start until ready.
        stop_time_s: From an order to stop until stopped.
    """

    def __init__(
        self, reader: VmReader, clock: Clock, fleet: str, *, start_time_s: float, stop_time_s: float
    ) -> None:
        self.answers_at_once = answers_at_once(reader)
        self.name = name_of(reader)
        self._reader = reader
        self._clock = clock
        self._fleet = fleet
        self._start_time_s = start_time_s
        self._stop_time_s = stop_time_s
        self._simulated: dict[str, _Simulated] = {}
        self._first: dict[str, Vm] = {}
        self._listed_at_s: dict[str, float] = {}
        self._made: dict[str, Vm] = {}
        self._tokens: dict[str, tuple[str, ...]] = {}
        self._views: dict[str, tuple[Vm, Vm]] = {}
        """By id: a VM as listed, and as it is shown instead."""
        self._last: _Shown | None = None
        self._moving_until_s = float("-inf")
        """From then on no simulated VM changes by itself."""
        self._moves = True

    async def list_vms(self) -> Listing:
        """The fleet's VMs with simulated states instead of the real ones; the real VMs are attached."""
        listing, own = await self._reader.list_of(self._fleet)
        now_s = self._clock.now()
        last = self._last
        if last is not None and last.listed == own:
            # A provider may rebuild all rows for each listing; with the earlier objects nothing has to be shown anew.
            own = last.listed
        if last is None or self._moves or last.listed is not own:
            last = self._last = _Shown(own, self._view(own, now_s, whole=listing.complete))
            self._moves = now_s < self._moving_until_s
        last.at_s = now_s
        return replace(listing, vms=last.vms, real=listing.vms)

    def _view(self, own: tuple[Vm, ...], now_s: float, *, whole: bool) -> tuple[Vm, ...]:
        last = self._last
        for vm in last.listed if last is not None else ():
            self._listed_at_s[vm.id] = last.at_s if last is not None else now_s
        for vm in own:
            self._listed_at_s[vm.id] = now_s
            if vm.state in (VmState.RUNNING, VmState.STOPPED):
                self._first.setdefault(vm.id, vm)
        if whole:
            self._forget(now_s)
        return tuple([self._seen(vm, now_s) for vm in (*own, *self._made.values())])

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Pretend to start."""
        return self._pretend(vm_ids, started=True)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Pretend to stop; here nothing gets stuck and nothing is in memory, so it makes no difference how."""
        del force, hibernate
        return self._pretend(vm_ids, started=False)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Nothing is changed: in a shadow there is room everywhere."""
        del vm_type
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Pretend to make new VMs; they exist in this shadow only."""
        if token not in self._tokens:
            now_s = self._clock.now()
            ids = tuple(f"shadow-{token}-{number}" for number in range(count))
            for vm_id in ids:
                tags = {**spec.tags, FLEET_TAG: spec.fleet}
                self._made[vm_id] = Vm(
                    vm_id, spec.fleet, VmState.PENDING, spec.vm_type or "", "", None, now_s, "", tags
                )
            self._pretend(ids, started=True)
            self._tokens[token] = ids
            if len(self._tokens) > TOKENS_KEPT:
                del self._tokens[next(iter(self._tokens))]
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in self._tokens[token])

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Forget VMs of this shadow; real ones cannot be touched."""
        self._last = None
        return tuple(
            Outcome(vm_id, OutcomeKind.ACCEPTED)
            if self._made.pop(vm_id, None)
            else Outcome(vm_id, OutcomeKind.REFUSED, "Shadow", "a shadow cannot terminate a real VM")
            for vm_id in vm_ids
        )

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Nothing is written."""
        del tags
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Real VMs by their real checks, simulated ones once their start time has passed."""
        now_s = self._clock.now()
        ours = {i: s for i in vm_ids if (s := self._simulated.get(i)) is not None}
        ready = {i for i, s in ours.items() if s.started and now_s - s.since_s >= self._start_time_s}
        rest = [i for i in vm_ids if i not in ours]
        return frozenset(ready) | (await self._reader.checked(rest) if rest else frozenset())

    async def close(self) -> None:
        """Nothing of its own to release."""

    def at_pace(self, *, start_time_s: float, stop_time_s: float) -> ShadowProvider:
        """This shadow with other start and stop times; this one is not used any more afterwards."""
        other = ShadowProvider(
            self._reader, self._clock, self._fleet, start_time_s=start_time_s, stop_time_s=stop_time_s
        )
        other._simulated, other._first, other._listed_at_s = self._simulated, self._first, self._listed_at_s
        other._made, other._tokens = self._made, self._tokens
        other._hold_still_later()
        return other

    def _forget(self, now_s: float) -> None:
        gone = [i for i, at_s in self._listed_at_s.items() if now_s - at_s > FORGET_AFTER_S]
        for vm_id in gone:
            for known in (self._listed_at_s, self._first, self._simulated, self._views):
                known.pop(vm_id, None)

    def _hold_still_later(self) -> None:
        """Something is on its way from now on; rows are shown anew until it has arrived."""
        self._moves = True
        self._moving_until_s = self._clock.now() + max(self._start_time_s, self._stop_time_s) + 1.0

    def _pretend(self, vm_ids: Sequence[str], *, started: bool) -> tuple[Outcome, ...]:
        now_s = self._clock.now()
        self._hold_still_later()
        for vm_id in vm_ids:
            before = self._simulated.get(vm_id)
            launched_at_s = now_s if started else None if before is None else before.launched_at_s
            self._simulated[vm_id] = _Simulated(started, now_s, launched_at_s)
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    def _seen(self, vm: Vm, now_s: float) -> Vm:
        if vm.state is VmState.TERMINATED:
            return vm
        state, launched_at_s, reason = self._looks(vm, now_s)
        if (state, launched_at_s, reason) == (vm.state, vm.launched_at_s, vm.state_reason):
            return vm
        listed, view = self._views.get(vm.id, (None, vm))
        looks = view.state, view.launched_at_s, view.state_reason
        if listed is not vm or looks != (state, launched_at_s, reason):
            view = replace(vm, state=state, launched_at_s=launched_at_s, state_reason=reason)
            self._views[vm.id] = vm, view
        return view

    def _looks(self, vm: Vm, now_s: float) -> tuple[VmState, float, str]:
        """State, launch and reason as they would be, had only this shadow acted since it began."""
        first = self._first.get(vm.id, vm)
        simulated = self._simulated.get(vm.id)
        if simulated is None:
            return first.state, first.launched_at_s, first.state_reason
        elapsed_s = now_s - simulated.since_s
        if simulated.started:
            running = elapsed_s >= RUNNING_SHARE * self._start_time_s
            state = VmState.RUNNING if running else VmState.PENDING
        else:
            state = VmState.STOPPED if elapsed_s >= self._stop_time_s else VmState.STOPPING
        launched_at_s = simulated.launched_at_s
        return state, first.launched_at_s if launched_at_s is None else launched_at_s, ""
