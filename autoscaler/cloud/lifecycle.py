"""The lifecycle of every VM in the world: which state change follows an order, and when.

Rules: pure and event-driven. An order draws its duration at once and puts the resulting event on a heap; `advance`
carries out the events that are due, ordered by time. Every transient state ends within `Spread.longest_s` unless a
fault prolongs it. Whether an order is allowed is decided in `world`, which implements EC2's rules.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum

from autoscaler.cloud.billing import Meter
from autoscaler.cloud.faults import Fault, FaultKind, FaultPlan
from autoscaler.cloud.physics import Physics, Purpose, Spread, normal
from autoscaler.cloud.vms import ENDED, ListingPage, Record, State, VmView
from autoscaler.errors import ProviderError

PAGES_KEPT = 100
"""Most pages of an unchanged listing that are kept."""
FALL_BACK_AFTER_S = 10.0
"""Seconds until a start falls back, if the fault gives no delay."""


class _Due(IntEnum):
    """Kind of an event on the heap."""

    RUNNING = 0
    FALLEN_BACK = 1
    STOPPED = 2
    TERMINATED = 3
    UNLISTED = 4
    HOST_STOP = 5


@dataclass(frozen=True, slots=True)
class StopOrder:
    """How a VM is stopped, and on whose order.

    Attributes:
        code, message: The state reason to show.
        transition: EC2's sentence about the change.
        hibernate: Whether to save the memory first; the provider bills that time.
    """

    code: str
    message: str
    transition: str
    hibernate: bool = False


def user_stop(now_s: float, *, hibernate: bool = False) -> StopOrder:
    """The order that results from a StopInstances call."""
    code = "Client.UserInitiatedHibernate" if hibernate else "Client.UserInitiatedShutdown"
    return StopOrder(code, f"{code}: asked for through the API", _by_user(now_s), hibernate=hibernate)


def _by_user(now_s: float) -> str:
    return f"User initiated ({datetime.fromtimestamp(now_s, tz=UTC):%Y-%m-%d %H:%M:%S} GMT)"


def _public_address(number: int, starts: int) -> str:
    """A public address that differs at each start, as on EC2. The range is reserved for network benchmarks."""
    place = (number * 31 + starts * 7919) % 131_072
    return f"198.{18 + (place >> 16)}.{place >> 8 & 255}.{place & 255}"


class Lifecycle:
    """The states of all VMs, the events that are due, the capacity in use and the meter."""

    def __init__(
        self, *, seed: int, start_s: float, physics: Physics, faults: FaultPlan, meter: Meter
    ) -> None:
        self._seed = seed
        self._start_s = start_s
        self._physics = physics
        self._faults = faults
        self._heap: list[tuple[float, int, int, int, _Due]] = []
        self._pushed = 0
        self._records: list[Record | None] = []
        self._by_id: dict[str, Record] = {}
        self._by_fleet: dict[str, dict[int, Record]] = {}
        self.meter = meter
        self.now_s = start_s
        self._changes = 0
        """Number of changes of any VM so far. While it is the same, so are all VMs."""
        self._changed_at_s = start_s
        self._pages: dict[tuple[int, int | None, Callable[[VmView], bool]], ListingPage] = {}
        self._pages_of = 0
        self.in_use: Counter[tuple[str, str]] = Counter()
        """Number of VMs that hold capacity, by type and zone."""
        for place, fault in enumerate(faults.faults):
            self.watch(place, fault)

    # ── looking ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def created(self) -> int:
        """Number of VMs ever made, which is also the next VM's number."""
        return len(self._records)

    def find(self, vm_id: str) -> Record | None:
        """Find a listed VM by id; None if there is none."""
        return self._by_id.get(vm_id)

    def after(self, number: int) -> Iterator[Record]:
        """Listed VMs with a higher number, in order of creation."""
        for position in range(number + 1, len(self._records)):
            record = self._records[position]
            if record is not None:
                yield record

    def fleet(self, name: str | None) -> Iterator[Record]:
        """Listed VMs of one fleet, or of all fleets if `name` is None."""
        return self.after(-1) if name is None else iter(self._by_fleet.get(name, {}).values())

    def fleets(self) -> tuple[str, ...]:
        """Names of the fleets that own a listed VM, sorted."""
        return tuple(sorted(name for name, records in self._by_fleet.items() if records))

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now_s: float) -> None:
        """Carry out the events that are due. Time never goes back: an earlier `now_s` has no effect."""
        if math.isnan(now_s):
            raise ValueError("now_s must be a number of seconds, not NaN")
        while self._heap and self._heap[0][0] <= now_s:
            at_s, _, number, generation, due = heapq.heappop(self._heap)
            self.now_s = max(self.now_s, at_s)
            if due is _Due.HOST_STOP:
                self._host_stop(number)
                continue
            record = self._records[number]
            if record is not None and record.generation == generation:
                self._play(record, due)
        self.now_s = max(self.now_s, now_s)

    def watch(self, place: int, fault: Fault) -> None:
        """Schedule a fault that strikes without an order or call. `place` is its index in the schedule."""
        over = self._start_s + fault.end_s <= self.now_s
        if fault.kind == FaultKind.HOST_STOP and not over:
            self._push(max(self.now_s, self._start_s + fault.start_s), place, 0, _Due.HOST_STOP)

    def _push(self, at_s: float, number: int, generation: int, due: _Due) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at_s, self._pushed, number, generation, due))

    def _play(self, record: Record, due: _Due) -> None:
        number = record.view.number
        if due is _Due.RUNNING:
            self.meter.run(number, self.now_s)
            record.first_ran_at_s = min(record.first_ran_at_s, self.now_s)
            record.memory_saved_at_s = None
            self.meter.release(number, self.now_s)
            self._change(record, state=State.RUNNING, ready_at_s=self.now_s + record.boot_s)
        elif due is _Due.FALLEN_BACK:
            self._release(record)
            code = record.fall_back_code
            self._change(
                record,
                state=State.STOPPED,
                public_address="",
                reason_code=code,
                reason_message=f"{code}: the start failed",
            )
        elif due is _Due.STOPPED:
            self.meter.halt(number, self.now_s)
            self._release(record)
            if record.saves_memory:
                record.memory_saved_at_s, record.saves_memory = self.now_s, False
                self.meter.hold(number, self.now_s)
            self._change(record, state=State.STOPPED, public_address="")
        elif due is _Due.TERMINATED:
            self.meter.end(number, self.now_s)
            self._release(record)
            self._change(record, state=State.TERMINATED, address="", public_address="")
            self._push(
                self.now_s + self._physics.terminated_listed_s, number, record.generation, _Due.UNLISTED
            )
        else:
            self._unlist(record)

    def _unlist(self, record: Record) -> None:
        view = record.view
        self._note_change()
        self.meter.forget(view.number)
        self._records[view.number] = None
        del self._by_id[view.id]
        del self._by_fleet[view.fleet][view.number]

    def _host_stop(self, place: int) -> None:
        fault = self._faults.faults[place]
        code = fault.reason_code
        order = StopOrder(code, f"{code}: the provider stopped this VM", "")
        for record in self.after(-1):
            view = record.view
            if view.state is not State.RUNNING or not fault.covers(view.scope):
                continue
            if self._faults.strikes(place + 1, fault, view.number, record.starts):
                self.stop(record, order)

    # ── orders ──────────────────────────────────────────────────────────────────────────────────────────

    def add(self, view: VmView) -> Record:
        """Add a VM in the state that its view gives: pending (it will run), running and ready, or stopped."""
        self._note_change()
        if view.public and view.state is not State.STOPPED:
            view = replace(view, public_address=_public_address(view.number, 0))
        record = Record(view, [(self.now_s, view)], created_at_s=self.now_s)
        self._records.append(record)
        self._by_id[view.id] = record
        self._by_fleet.setdefault(view.fleet, {})[view.number] = record
        self.meter.open(view.number, view.fleet, self.now_s, memory=view.hibernation)
        if view.state is not State.PENDING:
            record.first_ran_at_s = -math.inf
        if view.state is State.PENDING:
            self._hold(record)
            self._await_running(record, self._physics.launch, self._physics.first_boot)
        elif view.state is State.RUNNING:
            self._hold(record)
            record.starts = 1
            self.meter.run(view.number, self.now_s)
        return record

    def start(self, record: Record) -> None:
        """Start a stopped VM. It becomes pending and later running, unless a fault prevents it."""
        self._hold(record)
        record.generation += 1
        self._change(
            record,
            state=State.PENDING,
            launched_at_s=self.now_s,
            public_address=_public_address(record.view.number, record.starts) if record.view.public else "",
            ready_at_s=math.inf,
            reason_code="",
            reason_message="",
            transition="",
        )
        fault = self._strike(FaultKind.FALL_BACK, record, record.starts + 1)
        if fault is None:
            physics = self._physics
            resumes = self._has_memory(record)
            pending, boot = (physics.resume, physics.wake) if resumes else (physics.start, physics.boot)
            self._await_running(record, pending, boot)
            return
        record.starts += 1
        record.fall_back_code = fault.reason_code
        delay_s = FALL_BACK_AFTER_S if fault.delay_s is None else fault.delay_s
        self._push(self.now_s + delay_s, record.view.number, record.generation, _Due.FALLEN_BACK)

    def stop(self, record: Record, order: StopOrder) -> None:
        """Stop a running VM. It becomes stopping and later stopped, unless a fault keeps it from that."""
        record.generation += 1
        record.saves_memory = order.hibernate
        if not order.hibernate:
            self.meter.halt(record.view.number, self.now_s)
        self._change(
            record,
            state=State.STOPPING,
            ready_at_s=math.inf,
            reason_code=order.code,
            reason_message=order.message,
            transition=order.transition,
        )
        fault = self._strike(FaultKind.STUCK_STOPPING, record, record.stops + 1)
        held_s = 0.0
        if fault is not None:
            held_s = math.inf if fault.delay_s is None else fault.delay_s
        takes = self._physics.hibernate if order.hibernate else self._physics.stop
        self._await_stopped(record, self._stop_s(record, takes) + held_s)

    def check_hibernation(self, record: Record) -> None:
        """Raise ProviderError if the VM cannot save its memory: because of a fault, or too soon after it first ran."""
        fault = self._strike(FaultKind.NO_HIBERNATION, record, record.stops + 1)
        if fault is not None:
            raise ProviderError(f"Not supported for hibernation: {record.view.id}", code=fault.reason_code)
        if self.now_s < record.first_ran_at_s + self._physics.may_hibernate_after_s:
            # As on EC2, the message does not name the VM.
            raise ProviderError(
                "Instance is not ready to hibernate yet, retry in a few minutes", code="UnsupportedOperation"
            )

    def _has_memory(self, record: Record) -> bool:
        saved_s = record.memory_saved_at_s
        return saved_s is not None and self.now_s - saved_s <= self._physics.hibernated_for_s

    def force_stop(self, record: Record) -> None:
        """Force a stopping VM to stop within an ordinary stop time from now, or when it would anyway. Its memory is lost."""
        record.generation += 1
        record.saves_memory = False
        left_s = record.stopped_at_s - self.now_s
        self._await_stopped(record, min(left_s, self._stop_s(record, self._physics.stop)))

    def terminate(self, record: Record) -> None:
        """Terminate a VM in any state. It is later terminated, and then leaves the listings."""
        record.generation += 1
        number = record.view.number
        self.meter.halt(number, self.now_s)
        self._change(
            record,
            state=State.SHUTTING_DOWN,
            ready_at_s=math.inf,
            reason_code="Client.UserInitiatedShutdown",
            reason_message="Client.UserInitiatedShutdown: asked for through the API",
            transition=_by_user(self.now_s),
        )
        duration_s = self._physics.shut_down.at(normal(self._seed, Purpose.SHUT_DOWN, number, 0))
        self._push(self.now_s + duration_s, number, record.generation, _Due.TERMINATED)

    def retype(self, record: Record, vm_type: str) -> None:
        """Change the machine type of a VM that holds no capacity."""
        self._change(record, vm_type=vm_type)

    def tag(self, record: Record, tags: dict[str, str]) -> None:
        """Write tags. If they change the owner, the VM's whole account moves to the new one."""
        before = record.view.fleet
        self._change(record, tags={**record.view.tags, **tags})
        after = record.view.fleet
        if after != before:
            del self._by_fleet[before][record.view.number]
            self._by_fleet.setdefault(after, {})[record.view.number] = record
            self.meter.move(record.view.number, after)

    def _await_running(self, record: Record, pending: Spread, boot: Spread) -> None:
        record.starts += 1
        number, count = record.view.number, record.starts
        pending_s = pending.at(normal(self._seed, Purpose.START, number, count))
        record.boot_s = boot.at(normal(self._seed, Purpose.BOOT, number, count))
        unready = self._strike(FaultKind.UNREADY, record, count)
        if unready is not None:
            record.boot_s += math.inf if unready.delay_s is None else unready.delay_s
        stuck = self._strike(FaultKind.STUCK_PENDING, record, count)
        if stuck is not None:
            pending_s += math.inf if stuck.delay_s is None else stuck.delay_s
        if math.isfinite(pending_s):
            self._push(self.now_s + pending_s, number, record.generation, _Due.RUNNING)

    def _stop_s(self, record: Record, takes: Spread) -> float:
        record.stops += 1
        return takes.at(normal(self._seed, Purpose.STOP, record.view.number, record.stops))

    def _await_stopped(self, record: Record, delay_s: float) -> None:
        record.stopped_at_s = self.now_s + delay_s
        if math.isfinite(delay_s):
            self._push(record.stopped_at_s, record.view.number, record.generation, _Due.STOPPED)

    def _strike(self, kind: FaultKind, record: Record, count: int) -> Fault | None:
        return self._faults.on_vm(kind, self.now_s, record.view.scope, record.view.number, count)

    def _hold(self, record: Record) -> None:
        record.holds_capacity = True
        self.in_use[record.view.vm_type, record.view.zone] += 1

    def _release(self, record: Record) -> None:
        if record.holds_capacity:
            record.holds_capacity = False
            self.in_use[record.view.vm_type, record.view.zone] -= 1

    def _note_change(self) -> None:
        self._changes += 1
        self._changed_at_s = self.now_s

    def _change(self, record: Record, **changes: object) -> None:
        self._note_change()
        record.view = replace(record.view, **changes)  # type: ignore[arg-type]
        record.history.append((self.now_s, record.view))
        horizon_s = self.now_s - self._physics.listing_lag_s - self._faults.longest_lag_s
        while len(record.history) > 1 and record.history[1][0] <= horizon_s:
            del record.history[0]

    # ── what a caller sees ──────────────────────────────────────────────────────────────────────────────

    def page(
        self, after: int, limit: int | None, matches: Callable[[VmView], bool], number: int
    ) -> ListingPage:
        """Return a part of the `number`-th listing. While it shows the same, the same object is returned.

        Args:
            after: Number of the last VM on the previous page.
            limit: Most VMs to return.
            matches: Selects the VMs to return.
            number: Number of the listing, which addresses the draws for missing rows.
        """
        if not self._all_seen_as_they_are():
            return self._new_page(after, limit, matches, number)
        if self._pages_of != self._changes:
            self._pages_of, self._pages = self._changes, {}
        key = after, limit, matches
        page = self._pages.get(key)
        if page is None:
            if len(self._pages) >= PAGES_KEPT:
                self._pages.clear()
            page = self._pages[key] = self._new_page(after, limit, matches, number)
        return page

    def _new_page(
        self, after: int, limit: int | None, matches: Callable[[VmView], bool], number: int
    ) -> ListingPage:
        found: list[VmView] = []
        for view in self._visible(after, number):
            if matches(view):
                if len(found) == limit:
                    return ListingPage(tuple(found), found[-1].number)
                found.append(view)
        return ListingPage(tuple(found), None)

    def _visible(self, after: int, number: int) -> Iterator[VmView]:
        missing = self._faults.active(FaultKind.MISSING_ROWS, self.now_s)
        for record in self.after(after):
            view = self.seen(record)
            if view is None:
                continue
            if missing and any(
                fault.covers(view.scope) and self._faults.strikes_listing(place, fault, view.number, number)
                for place, fault in missing
            ):
                continue
            yield view

    def _all_seen_as_they_are(self) -> bool:
        """Whether a listing shows all VMs in their present states, so that it stays the same until the next change."""
        if self._faults.active(FaultKind.MISSING_ROWS, self.now_s):
            return False
        lag_s = self._physics.listing_lag_s
        if lags := self._faults.active(FaultKind.LISTING_LAG, self.now_s):
            lag_s += sum(fault.delay_s or 0.0 for _, fault in lags)
        return self.now_s - self._changed_at_s >= lag_s

    def seen(self, record: Record) -> VmView | None:
        """The VM as a listing shows it now, perhaps in an earlier state; None if it does not appear yet."""
        lag_s = self._physics.listing_lag_s
        for place, fault in self._faults.active(FaultKind.LISTING_LAG, self.now_s):
            view = record.view
            if fault.covers(view.scope) and self._faults.strikes(place, fault, view.number, 0):
                lag_s += fault.delay_s or 0.0
        return self._as_of(record, lag_s)

    def _as_of(self, record: Record, lag_s: float) -> VmView | None:
        at_s = self.now_s - lag_s
        if lag_s <= 0:
            return record.view
        if at_s < record.created_at_s:
            return None
        for changed_at_s, view in reversed(record.history):
            if changed_at_s <= at_s:
                return view
        return record.history[0][1]

    def ended(self, record: Record) -> bool:
        """Whether the VM is terminated or shutting down."""
        return record.view.state in ENDED
