"""The shadow provider: reads the real one and cannot change anything; fleets without `act` run on it.

Each fleet has its own instance, which shows only that fleet's VMs: in a new installation all fleets are in shadow, and if each
searched the VMs of all, the cost of a tick would be quadratic.

Starts and stops are simulated on top of the real listing with the policy's own start and stop times, so that cooldowns,
in-flight counts and forecasts proceed as they would, and the journal shows what would have been done. Once a VM has been listed as
running or stopped, changes made by others are ignored: only the policy's own orders move it. Otherwise a schedule that is still in
force elsewhere would do half of the policy's work. The type has no way to reach the real provider's changing calls: it holds only a
reader.
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
"""A VM that complete listings have not shown for this long is forgotten, in seconds; far more than listings lag."""
TOKENS_KEPT = 1000
"""Number of recent client tokens for which a repeated provision returns the same VMs."""
RUNNING_SHARE = 0.7
"""Share of the start time after which a simulated VM is running; it boots in the rest."""


class VmReader(Protocol):
    """The reading half of a provider."""

    async def list_of(self, fleet: str) -> tuple[Listing, tuple[Vm, ...]]:
        """A listing as in `Provider.list_vms`, and the VMs in it that belong to `fleet`."""
        ...

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """See `Provider.checked`."""
        ...


@dataclass(frozen=True, slots=True)
class _Simulated:
    """The last simulated order of a VM, and when it was given: a start if `started`, otherwise a stop."""

    started: bool
    since_s: float
    launched_at_s: float | None
    """Time of the last simulated start; None if the VM was only stopped."""


@dataclass(slots=True)
class _Shown:
    """A real listing of the fleet, the VMs shown instead, and the time of the last listing that agreed with it."""

    listed: tuple[Vm, ...]
    vms: tuple[Vm, ...]
    at_s: float = 0.0


class ShadowProvider:
    """Simulates the outcomes of its fleet's orders over real listings; implements the Provider port.

    Args:
        reader: Lists the real VMs.
        clock: Clock for simulated times.
        fleet: The fleet whose VMs are shown.
        start_time_s: Seconds from an order to start until the VM is ready.
        stop_time_s: Seconds from an order to stop until the VM is stopped.
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
        """By VM id: the VM as listed, and as it is shown instead."""
        self._last: _Shown | None = None
        self._moving_until_s = float("-inf")
        """Time after which no simulated VM changes state by itself."""
        self._moves = True

    async def list_vms(self) -> Listing:
        """List the fleet's VMs in their simulated states. The real VMs are in `Listing.real`."""
        listing, own = await self._reader.list_of(self._fleet)
        now_s = self._clock.now()
        last = self._last
        if last is not None and last.listed == own:
            # A provider may build new values for each listing; reusing the earlier objects saves computing the view again.
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
        """Simulate a start."""
        return self._pretend(vm_ids, started=True)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Simulate a stop. `force` and `hibernate` make no difference: no VM hangs or has memory to save."""
        del force, hibernate
        return self._pretend(vm_ids, started=False)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Accept and change nothing: simulated starts never lack room."""
        del vm_type
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Simulate new VMs, which exist in this shadow only."""
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
        """Forget VMs of this shadow; real VMs are refused."""
        self._last = None
        return tuple(
            Outcome(vm_id, OutcomeKind.ACCEPTED)
            if self._made.pop(vm_id, None)
            else Outcome(vm_id, OutcomeKind.REFUSED, "Shadow", "a shadow cannot terminate a real VM")
            for vm_id in vm_ids
        )

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Accept and write nothing."""
        del tags
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Check real VMs by their real checks, and simulated ones by whether their start time has passed."""
        now_s = self._clock.now()
        ours = {i: s for i in vm_ids if (s := self._simulated.get(i)) is not None}
        ready = {i for i, s in ours.items() if s.started and now_s - s.since_s >= self._start_time_s}
        rest = [i for i in vm_ids if i not in ours]
        return frozenset(ready) | (await self._reader.checked(rest) if rest else frozenset())

    async def close(self) -> None:
        """Do nothing: no resources of its own are held."""

    def at_pace(self, *, start_time_s: float, stop_time_s: float) -> ShadowProvider:
        """Return this shadow with other start and stop times. The two share state: do not use this one afterwards."""
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
        """Compute the view anew for each listing until the change ordered now is complete."""
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
        """State, launch time and state reason that the VM would have if only this shadow had acted on it."""
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
