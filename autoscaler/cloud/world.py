"""The embedded cloud: a pure, seeded model of single VMs that obeys EC2's rules.

Rules: no I/O, no clock, no event loop; time is the first argument of every call and never goes back. The same seed
and sequence of calls give the same world. Calls are all or nothing: a call either does everything or raises
ProviderError with EC2's error code; only under a `lost_reply` fault does it do both. Durations and state changes are
in `lifecycle`, the wire format in `ec2_api`, and the Provider port in `providers.memory`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from autoscaler.cloud.billing import Bill, Meter, Prices
from autoscaler.cloud.buckets import PUBLISHED, ApiBudget, Limits
from autoscaler.cloud.calls import Gateway
from autoscaler.cloud.faults import Fault, FaultKind, FaultPlan, Scope
from autoscaler.cloud.lifecycle import Lifecycle, user_stop
from autoscaler.cloud.physics import Physics
from autoscaler.cloud.places import Places, hex_id
from autoscaler.cloud.rules import (
    absent,
    check_changeable,
    check_ids,
    check_launch,
    check_startable,
    check_stoppable,
    check_tags,
    check_terminable,
)
from autoscaler.cloud.templates import TemplateBook
from autoscaler.cloud.vms import (
    DEFAULT_IMAGE,
    DEFAULT_VM_TYPE,
    LaunchData,
    ListingPage,
    Record,
    State,
    StateChange,
    VmView,
)
from autoscaler.errors import ProviderError
from autoscaler.ports import FLEET_TAG

TOKENS_KEPT = 100_000


class World:
    """A cloud of single VMs.

    Args:
        seed: Seed of all random draws; zero or more.
        start_s: Epoch seconds at which the world and its fault schedule begin.
        physics: How long things take.
        faults: Schedule of faults.
        capacity: Most VMs that may run at once, by type and zone. Other combinations have no limit.
        prices: Prices for the bill.
        limits: Limits of the API budget; None switches them off.
        region: Name of the region.
        zones: Last letters of its zones.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        start_s: float = 0.0,
        physics: Physics = Physics(),  # noqa: B008 -- frozen
        faults: Sequence[Fault] = (),
        capacity: Mapping[tuple[str, str], int] | None = None,
        prices: Prices = Prices(),  # noqa: B008 -- frozen
        limits: Limits | None = PUBLISHED,
        region: str = "us-east-1",
        zones: str = "abc",
    ) -> None:
        if seed < 0:
            raise ValueError(f"the seed of a world must be zero or more, not {seed}")
        self.seed = seed
        self.start_s = start_s
        self.places = Places(seed, region, zones, capacity or {})
        self.templates = TemplateBook()
        self._faults = FaultPlan(faults, seed=seed, start_s=start_s)
        self._vms = Lifecycle(
            seed=seed, start_s=start_s, physics=physics, faults=self._faults, meter=Meter(prices)
        )
        self.api = Gateway(ApiBudget(limits, start_s), self._faults)
        self._tokens: dict[str, tuple[Hashable, tuple[str, ...]]] = {}
        self._ids = 0
        self._pages = 0

    # ── time, faults, identity ──────────────────────────────────────────────────────────────────────────

    @property
    def now_s(self) -> float:
        """The latest time that the world was advanced to."""
        return self._vms.now_s

    def advance(self, now_s: float) -> None:
        """Carry out everything that is due by `now_s`."""
        self._vms.advance(now_s)

    def add_fault(self, fault: Fault) -> None:
        """Append a fault to the schedule. Its window is relative to the start of the world."""
        self._faults.add(fault)
        self._vms.watch(len(self._faults.faults) - 1, fault)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All faults in the schedule."""
        return tuple(self._faults.faults)

    def new_id(self, kind: str) -> str:
        """A new id in EC2's form for an object other than a VM; `kind` is its prefix (lt)."""
        self._ids += 1
        return f"{kind}-{hex_id(self.seed, kind, str(self._ids))}"

    # ── calls ───────────────────────────────────────────────────────────────────────────────────────────

    def latency_s(self, now_s: float, action: str, vm_ids: Sequence[str] = ()) -> float:
        """Extra time that the answer takes to a call which arrives now, in seconds."""
        self.advance(now_s)
        scopes = self._scopes(vm_ids) if vm_ids else None
        fault = self.api.strike(FaultKind.LATENCY, self.now_s, action, scopes)
        return 0.0 if fault is None else fault.delay_s or 0.0

    def _scopes(self, vm_ids: Sequence[str]) -> tuple[Scope, ...]:
        found = (self._vms.find(vm_id) for vm_id in vm_ids)
        return tuple(record.view.scope for record in found if record is not None)

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────

    def start(self, now_s: float, vm_ids: Sequence[str], *, dry_run: bool = False) -> tuple[StateChange, ...]:
        """Start stopped VMs. A VM that is pending or running is accepted and not changed."""
        return self._on_vms(now_s, "StartInstances", vm_ids, self._start, dry_run=dry_run)

    def stop(
        self,
        now_s: float,
        vm_ids: Sequence[str],
        *,
        force: bool = False,
        hibernate: bool = False,
        dry_run: bool = False,
    ) -> tuple[StateChange, ...]:
        """Stop running VMs. A VM that is stopping or stopped is accepted and not changed, unless the stop is forced."""

        def operation(records: list[Record]) -> None:
            self._stop(records, force=force, hibernate=hibernate)

        return self._on_vms(now_s, "StopInstances", vm_ids, operation, dry_run=dry_run)

    def terminate(
        self, now_s: float, vm_ids: Sequence[str], *, dry_run: bool = False
    ) -> tuple[StateChange, ...]:
        """Delete VMs, whatever their state."""
        return self._on_vms(now_s, "TerminateInstances", vm_ids, self._terminate, dry_run=dry_run)

    def tag(
        self, now_s: float, vm_ids: Sequence[str], tags: Mapping[str, str], *, dry_run: bool = False
    ) -> None:
        """Write tags on VMs."""

        def operation(records: list[Record]) -> None:
            check_tags((record.view for record in records), tags)
            for record in records:
                self._vms.tag(record, dict(tags))

        self._on_vms(now_s, "CreateTags", vm_ids, operation, dry_run=dry_run)

    def retype(self, now_s: float, vm_id: str, vm_type: str, *, dry_run: bool = False) -> None:
        """Change the machine type of a stopped VM."""

        def operation(records: list[Record]) -> None:
            check_changeable((record.view for record in records), vm_type)
            for record in records:
                self._vms.retype(record, vm_type)

        self._on_vms(now_s, "ModifyInstanceAttribute", [vm_id], operation, dry_run=dry_run)

    def _on_vms(
        self,
        now_s: float,
        action: str,
        vm_ids: Sequence[str],
        operation: Callable[[list[Record]], None],
        *,
        dry_run: bool,
    ) -> tuple[StateChange, ...]:
        self.advance(now_s)

        def change() -> tuple[StateChange, ...]:
            records = self._lookup(vm_ids)
            before = [record.view.state for record in records]
            operation(records)
            return tuple(
                StateChange(record.view.id, previous, record.view.state)
                for record, previous in zip(records, before, strict=True)
            )

        return self.api.call(
            now_s, action, change, vms=len(vm_ids), scopes=self._scopes(vm_ids), dry_run=dry_run
        )

    def _start(self, records: list[Record]) -> None:
        check_startable(record.view for record in records)
        # An id that is named twice is started once.
        stopped = {r.view.id: r for r in records if r.view.state is State.STOPPED}
        scopes = [record.view.scope for record in stopped.values()]
        for (vm_type, zone), count in Counter((scope.vm_type, scope.zone) for scope in scopes).items():
            self._require_room(vm_type, zone, count, scopes)
        self.api.spend_vms(self.now_s, "StartInstances", len(records))
        for record in stopped.values():
            self._vms.start(record)

    def _stop(self, records: list[Record], *, force: bool, hibernate: bool) -> None:
        check_stoppable((record.view for record in records), hibernate=hibernate)
        for record in records if hibernate else ():
            if record.view.state is State.RUNNING:
                self._vms.check_hibernation(record)
        self.api.spend_vms(self.now_s, "StopInstances", len(records))
        for record in records:
            if record.view.state is State.RUNNING:
                self._vms.stop(record, user_stop(self.now_s, hibernate=hibernate))
            elif record.view.state is State.STOPPING and force:
                self._vms.force_stop(record)

    def _terminate(self, records: list[Record]) -> None:
        check_terminable(record.view for record in records)
        self.api.spend_vms(self.now_s, "TerminateInstances", len(records))
        for record in records:
            if not self._vms.ended(record):
                self._vms.terminate(record)

    def run(
        self,
        now_s: float,
        data: LaunchData,
        minimum: int,
        maximum: int,
        *,
        token: str = "",
        request: Hashable = None,
        dry_run: bool = False,
    ) -> tuple[VmView, ...]:
        """Make VMs: at most `maximum`, as many as fit, or none if fewer than `minimum` fit.

        Args:
            now_s: Time at which the call arrives.
            data: What to make the VMs from. Everything but the zone or subnet must be given.
            minimum: Fewest VMs.
            maximum: Most VMs.
            token: Client token. A repeated token makes no VMs and returns those of the first call.
            request: Value that must be equal for calls with the same token; by default built from the other arguments.
            dry_run: Whether only to test if the call would be allowed.
        """
        if request is None:
            request = (data.image, data.vm_type, data.subnet, data.zone, tuple(data.tags.items()), maximum)
        self.advance(now_s)
        zone = self.places.zone_of(data, lambda name: self._vms.in_use[data.vm_type, name])
        scope = Scope("", data.tags.get(FLEET_TAG, ""), data.vm_type, zone)
        return self.api.call(
            self.now_s,
            "RunInstances",
            lambda: self._run(data, scope, minimum, maximum, token, request),
            vms=maximum,
            scopes=(scope,),
            dry_run=dry_run,
        )

    def _run(
        self, data: LaunchData, scope: Scope, minimum: int, maximum: int, token: str, request: Hashable
    ) -> tuple[VmView, ...]:
        if token in self._tokens:
            return self._again(token, request)
        check_launch(data, minimum, maximum, token)
        count = self._require_room(scope.vm_type, scope.zone, minimum, [scope], at_most=maximum)
        self.api.spend_vms(self.now_s, "RunInstances", count)
        reservation = f"r-{hex_id(self.seed, 'reservation', str(self._vms.created))}"
        made = tuple(
            self._vms.add(self._new_view(data, scope.zone, reservation, index, token)).view
            for index in range(count)
        )
        if token:
            self._tokens[token] = (request, tuple(view.id for view in made))
            if len(self._tokens) > TOKENS_KEPT:
                del self._tokens[next(iter(self._tokens))]
        return made

    def _again(self, token: str, request: Hashable) -> tuple[VmView, ...]:
        first_request, ids = self._tokens[token]
        if first_request != request:
            raise ProviderError(
                "This client token was used before with different parameters",
                code="IdempotentParameterMismatch",
            )
        found = (self._vms.find(vm_id) for vm_id in ids)
        return tuple(record.view for record in found if record is not None)

    def provision(
        self,
        now_s: float,
        fleet: str,
        count: int,
        *,
        state: State = State.STOPPED,
        vm_type: str = DEFAULT_VM_TYPE,
        image: str = DEFAULT_IMAGE,
        zones: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        hibernation: bool = False,
        public: bool = False,
    ) -> tuple[str, ...]:
        """Place VMs in the world at once, without a call, a budget or a fault, and return their ids.

        They are stopped, or running and ready, and are distributed over the zones in turn.
        """
        self.advance(now_s)
        if state not in {State.STOPPED, State.RUNNING}:
            raise ValueError(f"VMs can be put in the world stopped or running, not {state}")
        places = tuple(zones) or self.places.zones
        for zone in places:
            self.places.check_zone(zone, f"VMs for fleet {fleet!r}")
        all_tags = {"Name": fleet, **(tags or {}), **({FLEET_TAG: fleet} if fleet else {})}
        data = LaunchData(image=image, vm_type=vm_type, hibernation=hibernation, public=public, tags=all_tags)
        ids = []
        for index in range(count):
            zone = places[index % len(places)]
            reservation = f"r-{hex_id(self.seed, 'reservation', str(self._vms.created))}"
            view = self._new_view(data, zone, reservation, 0, "", State(state))
            ids.append(self._vms.add(view).view.id)
        return tuple(ids)

    def _new_view(
        self,
        data: LaunchData,
        zone: str,
        reservation: str,
        index: int,
        token: str,
        state: State = State.PENDING,
    ) -> VmView:
        number = self._vms.created
        return VmView(
            number=number,
            id=f"i-{hex_id(self.seed, 'vm', str(number))}",
            reservation=reservation,
            index=index,
            state=state,
            vm_type=data.vm_type,
            zone=zone,
            subnet=self.places.subnet_of(zone),
            image=data.image,
            address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            launched_at_s=self.now_s,
            ready_at_s=self.now_s if state is State.RUNNING else math.inf,
            hibernation=bool(data.hibernation),
            public=bool(data.public),
            stop_protection=bool(data.stop_protection),
            termination_protection=bool(data.termination_protection),
            client_token=token,
            tags=dict(data.tags),
        )

    # ── capacity ────────────────────────────────────────────────────────────────────────────────────────

    def room(self, vm_type: str, zone: str) -> int | None:
        """How many more VMs of this type the zone could run, apart from faults; None if there is no limit."""
        return self.places.room(vm_type, zone, self._vms.in_use[vm_type, zone])

    def _require_room(
        self, vm_type: str, zone: str, count: int, scopes: Sequence[Scope], at_most: int | None = None
    ) -> int:
        here = [s for s in scopes if (s.vm_type, s.zone) == (vm_type, zone)]
        fault = self.api.strike(FaultKind.NO_CAPACITY, self.now_s, "", here)
        room = self.room(vm_type, zone)
        if fault is not None or (room is not None and room < count):
            code = "InsufficientInstanceCapacity" if fault is None else fault.reason_code
            raise ProviderError(f"There is no capacity for {count} {vm_type} in {zone} now", code=code)
        most = count if at_most is None else at_most
        return most if room is None else min(room, most)

    # ── listings ────────────────────────────────────────────────────────────────────────────────────────

    def page(
        self,
        now_s: float,
        *,
        action: str = "DescribeInstances",
        vm_ids: Sequence[str] = (),
        after: int = -1,
        limit: int | None = None,
        matches: Callable[[VmView], bool] = lambda _: True,
        plain: bool = False,
        dry_run: bool = False,
    ) -> ListingPage:
        """Return a part of a listing as a caller sees it now. Terminated VMs are included while they are listed.

        Args:
            now_s: Time at which the call arrives.
            action: DescribeInstances or DescribeInstanceStatus.
            vm_ids: Return only these VMs, all of which must be visible. Empty means all.
            after: Number of the last VM on the previous page.
            limit: Most VMs to return.
            matches: Selects the VMs to return.
            plain: Whether the call is without filters, ids and paging.
            dry_run: Whether only to test if the call would be allowed.
        """
        self.advance(now_s)

        def operation() -> ListingPage:
            self._pages += 1
            if vm_ids:
                seen = (self._vms.seen(record) for record in self._lookup(vm_ids))
                return ListingPage(tuple(view for view in seen if view is not None and matches(view)), None)
            return self._vms.page(after, limit, matches, self._pages)

        scopes = self._scopes(vm_ids) if vm_ids else None
        return self.api.call(
            self.now_s, action, operation, vms=len(vm_ids), scopes=scopes, plain=plain, dry_run=dry_run
        )

    def _lookup(self, vm_ids: Sequence[str]) -> list[Record]:
        check_ids(vm_ids)
        found: list[Record] = []
        missing: list[str] = []
        for vm_id in vm_ids:
            record = self._vms.find(vm_id)
            if record is None or self._vms.seen(record) is None:
                missing.append(vm_id)
            else:
                found.append(record)
        if missing:
            raise absent(missing)
        return found

    # ── the truth, for demonstrations, scores and tests ─────────────────────────────────────────────────

    def fleets(self) -> tuple[str, ...]:
        """Names of the fleets that own a listed VM, sorted."""
        return self._vms.fleets()

    def views(self, now_s: float, fleet: str | None = None) -> tuple[VmView, ...]:
        """All listed VMs in their true states."""
        self.advance(now_s)
        return tuple(record.view for record in self._vms.fleet(fleet))

    def serving(self, now_s: float, fleet: str | None = None) -> tuple[str, ...]:
        """Ids of the VMs that are running and ready."""
        return tuple(view.id for view in self.views(now_s, fleet) if view.ready(self.now_s))

    def counts(self, now_s: float, fleet: str | None = None) -> dict[State, int]:
        """Number of VMs in each state, including zeros."""
        found = Counter(view.state for view in self.views(now_s, fleet))
        return {state: found[state] for state in State}

    def bill(self, now_s: float, fleet: str | None = None) -> Bill:
        """The bill of one fleet up to now, or of all fleets together."""
        self.advance(now_s)
        return self._vms.meter.bill(self.now_s, fleet)

    def bills(self, now_s: float) -> dict[str, Bill]:
        """The bill of every fleet that ever owned a VM. The empty name stands for VMs without a fleet."""
        self.advance(now_s)
        return self._vms.meter.bills(self.now_s)
