"""The embedded cloud as an in-process provider, without HTTP: for virtual time, replays and tests.

Rules of this file: it uses the same world, API limits and faults as the EC2 endpoint, and the same table from EC2's codes to
outcomes as the EC2 provider. One contract suite runs on both, so results carry over. Faults are the world's (`World.add_fault`),
not switches here. A call waits only for a `latency` fault, on the Clock.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import is_
from typing import TypeVar

from autoscaler.cloud.rules import status_of
from autoscaler.cloud.vms import LaunchData, ListingPage, StateChange, VmView
from autoscaler.cloud.world import World
from autoscaler.errors import InvariantError, ProviderError
from autoscaler.ports import (
    BATCH_REFUSED,
    FLEET_TAG,
    Clock,
    LaunchSpec,
    Listing,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    UnreadableTemplate,
    Vm,
)
from autoscaler.providers.ec2.classify import failure, outcomes_of
from autoscaler.providers.ec2.wire import STATES, transition_s
from autoscaler.providers.failing import Failure, made_of

T = TypeVar("T")

PAGE_VMS = 1000
_TEMPLATE_ID = re.compile(r"lt-[0-9a-f]{8,17}")


class MemoryProvider:
    """A provider on a simulated world; implements the Provider port.

    If nothing has changed since the last listing, `Listing.vms` is the same object as before.

    Args:
        world: The simulated cloud. Others may use it at the same time.
        clock: Its `now` is the world's time.
        deadline_s: A call that takes longer than this has an unknown outcome, in seconds of the Clock.
    """

    answers_at_once = True
    """Calls wait for nothing but the Clock; see `autoscaler.at_once`."""

    def __init__(self, world: World, clock: Clock, *, deadline_s: float = 20.0) -> None:
        self._world = world
        self._clock = clock
        self._deadline_s = deadline_s
        self._listed: dict[int, tuple[VmView, Vm]] = {}
        self._pages: tuple[ListingPage, ...] = ()
        self._rows: tuple[Vm, ...] = ()

    async def list_vms(self) -> Listing:
        """List all VMs that carry the ownership tag; see `Provider.list_vms`."""
        requested_at_s = self._clock.now()
        pages: list[ListingPage] = []
        after, error = -1, ""
        while True:
            page = await self._call("DescribeInstances", (), self._page_after(after))
            if isinstance(page, Failure):
                error = f"{page} ({sum(len(each.vms) for each in pages)} VMs came)"
                break
            pages.append(page)
            if page.last is None:
                break
            after = page.last
        return Listing(
            self._vms(tuple(pages)),
            complete=not error,
            requested_at_s=requested_at_s,
            received_at_s=self._clock.now(),
            error=error,
        )

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Start stopped VMs in one call."""
        return await self._switch("StartInstances", vm_ids, self._world.start)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Stop running VMs in one call; they stay provisioned."""
        change = partial(self._world.stop, force=force, hibernate=hibernate and not force)
        return await self._switch("StopInstances", vm_ids, change)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Change the machine type of stopped VMs, with one call for each."""
        outcomes: list[Outcome] = []
        for vm_id in vm_ids:
            change = partial(self._retype, vm_id, vm_type)
            done = await self._call("ModifyInstanceAttribute", [vm_id], change)
            if isinstance(done, Failure):
                outcomes += outcomes_of(done, [vm_id])
            else:
                outcomes.append(Outcome(vm_id, OutcomeKind.ACCEPTED))
        return tuple(outcomes)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Delete VMs for good."""
        return await self._switch("TerminateInstances", vm_ids, self._world.terminate)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Write tags in one call."""
        if not vm_ids:
            return ()
        ids = _unique(vm_ids)
        done = await self._call("CreateTags", ids, lambda now_s: self._world.tag(now_s, ids, tags))
        if isinstance(done, Failure):
            return outcomes_of(done, vm_ids)
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Create `count` VMs, or as many as there is room for. A repeated token creates none and returns the same VMs."""
        if count < 1 or not token:
            raise InvariantError(
                f"provision needs a count of 1 or more and a token, got {count} and {token!r}"
            )
        tags = {"Name": spec.fleet, **spec.tags, FLEET_TAG: spec.fleet}
        own = LaunchData(vm_type=spec.vm_type or "", subnet=spec.subnet or "", tags=tags)
        by_id = _TEMPLATE_ID.fullmatch(spec.launch_template) is not None

        def launch(now_s: float) -> tuple[VmView, ...]:
            book = self._world.templates
            template = book.find(spec.launch_template) if by_id else book.find("", spec.launch_template)
            data = own.filled_from(template.version(spec.version).data)
            request = (
                spec.launch_template,
                spec.version,
                own.vm_type,
                own.subnet,
                *sorted(tags.items()),
                count,
            )
            return self._world.run(now_s, data, 1, count, token=token, request=request)

        made = await self._call("RunInstances", (), launch)
        if isinstance(made, Failure):
            return outcomes_of(made, [""])
        return made_of([view.id for view in made], count)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Return the running VMs whose status checks have passed. Ids that are refused are left out in a second call."""
        ids = _unique(vm_ids)
        page = await self._statuses(ids) if ids else None
        if isinstance(page, Failure):
            rest = [each.vm_id for each in outcomes_of(page, ids) if each.code == BATCH_REFUSED]
            page = await self._statuses(rest) if rest else None
        if page is None or isinstance(page, Failure):
            return frozenset()
        return frozenset(view.id for view in page.vms if view.ready(self._world.now_s))

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate:
        """What a VM of this spec would be made from now, or why that cannot be read."""
        by_id = _TEMPLATE_ID.fullmatch(spec.launch_template) is not None
        book = self._world.templates
        try:
            found = book.find(spec.launch_template) if by_id else book.find("", spec.launch_template)
            version = found.version(spec.version)
        except ProviderError as error:
            return UnreadableTemplate(f"{error.code}: {error}")
        text = f"{version.data!r} {spec.vm_type}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return LaunchSpec(digest, str(version.number), version.data.image or "")

    async def close(self) -> None:
        """Do nothing: no resources are held."""

    def _retype(self, vm_id: str, vm_type: str, now_s: float) -> None:
        self._world.retype(now_s, vm_id, vm_type)

    def _page_after(self, after: int) -> Callable[[float], ListingPage]:
        return lambda now_s: self._world.page(now_s, after=after, limit=PAGE_VMS, matches=_has_owner)

    async def _statuses(self, ids: Sequence[str]) -> ListingPage | Failure:
        return await self._call(
            "DescribeInstanceStatus",
            ids,
            lambda now_s: self._world.page(now_s, action="DescribeInstanceStatus", vm_ids=ids),
        )

    async def _switch(
        self,
        action: str,
        vm_ids: Sequence[str],
        change: Callable[[float, Sequence[str]], tuple[StateChange, ...]],
    ) -> tuple[Outcome, ...]:
        if not vm_ids:
            return ()
        ids = _unique(vm_ids)
        changes = await self._call(action, ids, lambda now_s: change(now_s, ids))
        if isinstance(changes, Failure):
            return outcomes_of(changes, vm_ids)
        before = {each.id: STATES[each.previous] for each in changes}
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED, previous_state=before[vm_id]) for vm_id in vm_ids)

    async def _call(self, action: str, vm_ids: Sequence[str], call: Callable[[float], T]) -> T | Failure:
        """Make a call now, and return once its answer arrives or the deadline has passed."""
        now_s = self._clock.now()
        answer: T | Failure
        try:
            answer = call(now_s)
        except ProviderError as error:
            answer = failure(error.code, str(error), status_of(error.code))
        latency_s = self._world.latency_s(now_s, action, vm_ids)
        if latency_s:
            await self._clock.sleep_until(self._clock.monotonic() + min(latency_s, self._deadline_s))
        if latency_s > self._deadline_s:
            return Failure(OutcomeKind.UNKNOWN, "NoAnswer", f"no answer within {self._deadline_s:g} s")
        return answer

    def _vms(self, pages: tuple[ListingPage, ...]) -> tuple[Vm, ...]:
        """Convert pages to the port's VMs. Values are rebuilt only for VMs that have changed since the last listing."""
        if len(pages) == len(self._pages) and all(map(is_, pages, self._pages)):
            return self._rows
        last = self._listed
        self._listed = {
            view.number: kept
            if (kept := last.get(view.number)) is not None and kept[0] is view
            else (view, _port_vm(view))
            for page in pages
            for view in page.vms
        }
        self._pages, self._rows = pages, tuple(vm for _, vm in self._listed.values())
        return self._rows


def _has_owner(view: VmView) -> bool:
    return FLEET_TAG in view.tags


def _port_vm(view: VmView) -> Vm:
    return Vm(
        id=view.id,
        fleet=view.fleet,
        state=STATES[view.state],
        vm_type=view.vm_type,
        zone=view.zone,
        address=view.address or None,
        # EC2 records whole seconds.
        launched_at_s=math.floor(view.launched_at_s),
        image=view.image,
        tags=view.tags,
        state_reason=view.reason_code,
        may_hibernate=view.hibernation,
        stopped_at_s=transition_s(view.transition),
        public_address=view.public_address or None,
    )


def _unique(vm_ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(vm_ids))
