"""libvirt hosts behind the Provider port.

Rules: each change of a VM is one bounded call in one thread (`host`); retries belong to the caller. `classify` turns libvirt's
errors into Outcomes, and `domains` its domains into Vms. If a host does not answer, its part of the listing is incomplete; other
hosts do not wait for it. No libvirt type goes in or out.

A VM here is a persistent domain with the tag `autoscaler:fleet` in its metadata. Its id is the domain's UUID, its zone is the
host, and its type is written `2x2048` (processors x MiB).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self

from autoscaler.errors import InvariantError
from autoscaler.ports import (
    Clock,
    LaunchSpec,
    Listing,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    UnreadableTemplate,
    Vm,
    VmState,
)
from autoscaler.providers.failing import Failure
from autoscaler.providers.libvirt import changes
from autoscaler.providers.libvirt.binding import binding, connect
from autoscaler.providers.libvirt.changes import HostContext
from autoscaler.providers.libvirt.classify import (
    ABSENT,
    MALFORMED,
    NO_ANSWER,
    UNREACHED,
    RefusedError,
    refuse_all,
)
from autoscaler.providers.libvirt.domains import DomainView
from autoscaler.providers.libvirt.hints import LifecycleHints
from autoscaler.providers.libvirt.host import FailedError, Host, Kind, UnansweredError, UnreachedError
from autoscaler.providers.libvirt.listing import Known, Part, ask_agents, list_host, look_at
from autoscaler.providers.libvirt.memory import Room
from autoscaler.providers.libvirt.provisioning import Provisioning
from autoscaler.providers.libvirt.settings import LibvirtSettings

Check = Callable[[DomainView], None]
Change = Callable[..., Outcome]

_OUT_OF_REACH: Final = (UnreachedError, UnansweredError)


class LibvirtProvider:
    """VMs on hosts with libvirt; implements the Provider port. Created by `open`.

    All VMs of a call are checked before the first is changed. Each VM is then changed by a call of its own, so some changes
    may fail while others succeed, and each VM has an Outcome of its own.

    Args:
        settings: The hosts, and how long to wait for them.
        clock: Clock for the times of listings and marks.
        opener: Opens a connection to a URI, in a thread.
    """

    def __init__(
        self, settings: LibvirtSettings, clock: Clock, opener: Callable[[str], Any] = connect
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.hints = LifecycleHints(clock)
        """Events from all hosts. Their only effect is that the next listing comes sooner."""
        greet = self.hints.listen
        self._hosts = {name: Host(name, uri, opener, clock, greet) for name, uri in settings.hosts.items()}
        self._desks = {
            name: HostContext(Known(), Room(clock, heeds=settings.heed_memory), clock, host.tagging)
            for name, host in self._hosts.items()
        }
        self._where: dict[str, str] = {}
        """The host of each VM by id, as last listed."""
        self._asking: dict[str, asyncio.Task[None]] = {}
        """By host, the task that asks its guests for their addresses."""
        self._provisioning = Provisioning(settings, self._hosts, self._desks)

    @classmethod
    async def open(cls, settings: LibvirtSettings, clock: Clock) -> Self:
        """Load libvirt. No host is contacted yet, because an absent one must not delay the others.

        Raises:
            ConfigError: libvirt-python is not installed.
        """
        binding()
        return cls(settings, clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def list_vms(self) -> Listing:
        """List the VMs that carry the ownership tag on all hosts. The listing is complete for each host that answers in time."""
        requested_at_s = self._clock.now()
        parts = await asyncio.gather(*(self._part(name) for name in self._hosts))
        found: dict[str, tuple[bool, Vm]] = {}
        for name, part in zip(self._hosts, parts, strict=True):
            for seen in part.seen:
                before = found.get(seen.described.uuid)
                # A domain that was moved may have left its configuration behind. Prefer the host on which it is on.
                if before is None or (seen.active and not before[0]):
                    found[seen.described.uuid] = seen.active, seen.vm(name)
        self._where |= {vm_id: vm.zone for vm_id, (_, vm) in found.items()}
        problems = [part.problem for part in parts if part.problem]
        if not problems:
            self._where = {vm_id: vm.zone for vm_id, (_, vm) in found.items()}
        return Listing(
            vms=tuple(vm for _, vm in found.values()),
            complete=not problems,
            requested_at_s=requested_at_s,
            received_at_s=self._clock.now(),
            error=f"{'; '.join(problems)} ({len(found)} VMs came)" if problems else "",
            parts={name: part.problem for name, part in zip(self._hosts, parts, strict=True)},
        )

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Start stopped VMs. The outcome is NO_CAPACITY if their host lacks memory or cannot be reached."""
        return await self._change(vm_ids, changes.check_start, changes.start, away=OutcomeKind.NO_CAPACITY)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Ask guests to shut down (ACPI, or their agent). `force` ends a VM at once; `hibernate` saves its memory and ends it.

        Saving memory takes seconds to minutes: it is accepted once it has begun and was not refused within `saving_s`.
        """
        check = partial(changes.check_stop, hibernate=hibernate and not force)
        if hibernate and not force:
            return await self._change(vm_ids, check, changes.save, saves=True)
        return await self._change(vm_ids, check, partial(changes.stop, force=force))

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Change the machine type of VMs that are off, one by one."""
        outcomes: list[Outcome] = []
        for vm_id in vm_ids:
            outcomes += await self._change(
                [vm_id], changes.check_retype, partial(changes.retype, vm_type=vm_type)
            )
        return tuple(outcomes)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """End VMs and delete their domains. Volumes are deleted only if `provision` made them."""
        return await self._change(vm_ids, lambda _: None, changes.terminate)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Write tags into the metadata of VMs."""
        return await self._change(vm_ids, lambda _: None, partial(changes.tag, tags=dict(tags)))

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Clone the template `count` times, or as often as the hosts have room, and start the clones; see `provisioning`."""
        if count < 1 or not token:
            raise InvariantError(
                f"provision needs a count of 1 or more and a token, got {count} and {token!r}"
            )
        return await self._provisioning.provision(spec, count, token)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate:
        """What a VM of this spec would be made from now, or why that cannot be read; see `provisioning`."""
        return await self._provisioning.launch_spec(spec)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Return the running VMs whose guest agent is connected, or that have no channel for an agent."""
        found, _ = await self._look(list(dict.fromkeys(vm_ids)))
        return frozenset(
            vm_id
            for vm_id, (_, seen) in found.items()
            if seen.vm_state is VmState.RUNNING
            and not seen.state_reason
            and seen.described.agent is not False
        )

    async def close(self) -> None:
        """Close all connections, within a few seconds. Hosts continue to save memory that they have begun to save."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*(host.close() for host in self._hosts.values()))

    async def _part(self, name: str) -> Part:
        known = self._desks[name].known
        call = partial(list_host, known=known, clock=self._clock)
        try:
            part = await self._hosts[name].ask(call, self._settings.listing_s)
        except _OUT_OF_REACH as error:
            words = str(error)
            return Part((), words if words.startswith(f"{name} has") else f"{name}: {words}")
        except FailedError as error:
            return Part((), f"{name}: {error.failure}")
        self._ask_guests(name, known)
        return part

    def _ask_guests(self, name: str, known: Known) -> None:
        """Ask guest agents in the background for addresses that the next listing needs."""
        uuids = sorted(known.ask_agents)
        known.ask_agents.clear()
        if not uuids or name in self._asking:
            return
        call = partial(ask_agents, uuids=uuids, known=known, clock=self._clock)
        task = asyncio.create_task(self._hosts[name].ask(call, self._settings.call_s, Kind.GUEST, turn_s=0.1))
        self._asking[name] = task
        task.add_done_callback(lambda done: self._guests_asked(name, done))

    def _guests_asked(self, name: str, task: asyncio.Task[None]) -> None:
        self._asking.pop(name, None)
        if not task.cancelled():
            # The error needs no report: the address stays unknown and is asked for again.
            task.exception()

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────

    async def _change(
        self,
        vm_ids: Sequence[str],
        check: Check,
        change: Change,
        *,
        away: OutcomeKind = OutcomeKind.THROTTLED,
        saves: bool = False,
    ) -> tuple[Outcome, ...]:
        """Check all VMs, then change each. If one is refused, none is changed.

        Args:
            vm_ids: The VMs. Repeated ids are changed once.
            check: Raises RefusedError if a VM cannot be changed in its present state.
            change: Makes the change, in a thread.
            away: Kind of the outcome if a host cannot be asked.
            saves: Whether the change saves memory, which may continue after it is accepted.
        """
        if not vm_ids:
            return ()
        ids = list(dict.fromkeys(vm_ids))
        found, failed = await self._look(ids)
        for vm_id, (_, seen) in found.items():
            try:
                check(seen)
            except RefusedError as error:
                failed[vm_id] = error.failure
        refused = {i: each for i, each in failed.items() if each.kind is OutcomeKind.REFUSED}
        if refused:
            return refuse_all(vm_ids, refused)
        made = await asyncio.gather(
            *(
                self._save(i, found[i][0]) if saves else self._one(i, found[i][0], change, away)
                for i in ids
                if i in found
            )
        )
        outcomes = {each.vm_id: each for each in made}
        outcomes |= {i: _away(each, away).of(i) for i, each in failed.items()}
        return tuple(outcomes[vm_id] for vm_id in vm_ids)

    async def _one(self, vm_id: str, name: str, change: Change, away: OutcomeKind) -> Outcome:
        limits = self._settings
        call = partial(change, uuid=vm_id, desk=self._desks[name])
        try:
            return await self._hosts[name].ask(call, limits.call_s, Kind.CHANGE, turn_s=limits.batch_s)
        except (RefusedError, FailedError, *_OUT_OF_REACH) as error:
            return _away(failure_of(error), away).of(vm_id)

    async def _save(self, vm_id: str, name: str) -> Outcome:
        """Save a VM's memory. Accepted once saving has begun and was not refused at once."""
        limits, loop = self._settings, asyncio.get_running_loop()
        begun: asyncio.Future[DomainView] = loop.create_future()

        def note(seen: DomainView) -> None:
            if not begun.done():
                begun.set_result(seen)

        def told(seen: DomainView) -> None:
            # The loop may be closed by the time an abandoned save gets its turn.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(note, seen)

        call = partial(changes.save, uuid=vm_id, desk=self._desks[name], begun=told)
        try:
            return await self._hosts[name].ask(call, limits.saving_s, Kind.SAVE, turn_s=limits.saving_s)
        except UnansweredError as error:
            if begun.done():
                return Outcome(vm_id, OutcomeKind.ACCEPTED, previous_state=begun.result().vm_state)
            return failure_of(error).of(vm_id)
        except (RefusedError, FailedError, UnreachedError) as error:
            return _away(failure_of(error), OutcomeKind.THROTTLED).of(vm_id)

    async def _look(self, ids: Sequence[str]) -> tuple[dict[str, tuple[str, DomainView]], dict[str, Failure]]:
        """Look VMs up: by id, the host and state of those found, and the failure for each of the others."""
        failed: dict[str, Failure] = {}
        by_host: dict[str, list[str]] = {}
        for vm_id in ids:
            if not _is_uuid(vm_id):
                failed[vm_id] = Failure(OutcomeKind.REFUSED, MALFORMED, f"Invalid id: {vm_id!r}")
                continue
            where = self._where.get(vm_id)
            for name in [where] if where in self._hosts else list(self._hosts):
                by_host.setdefault(str(name), []).append(vm_id)
        answers = await asyncio.gather(*(self._look_at(name, its) for name, its in by_host.items()))
        found: dict[str, tuple[str, DomainView]] = {}
        for name, answer in zip(by_host, answers, strict=True):
            for vm_id, each in answer.items():
                if isinstance(each, Failure):
                    before = failed.get(vm_id)
                    # A host that cannot be asked may have the VM, whatever the others say.
                    failed[vm_id] = each if before is None or before.code == ABSENT else before
                elif vm_id not in found or (each.active and not found[vm_id][1].active):
                    found[vm_id] = name, each
        return found, {i: each for i, each in failed.items() if i not in found}

    async def _look_at(self, name: str, ids: Sequence[str]) -> Mapping[str, DomainView | Failure]:
        desk = self._desks[name]

        def look(connection: Any) -> Mapping[str, DomainView | Failure]:
            answers: dict[str, DomainView | Failure] = {}
            for vm_id in ids:
                try:
                    answers[vm_id] = look_at(connection, vm_id, desk.known, desk.clock)[1]
                except RefusedError as error:
                    answers[vm_id] = error.failure
            return answers

        try:
            return await self._hosts[name].ask(look, self._settings.listing_s)
        except (FailedError, *_OUT_OF_REACH) as error:
            failed = failure_of(error)
            if isinstance(error, UnansweredError) or failed.kind is OutcomeKind.UNKNOWN:
                # The VM was only read: nothing was done.
                failed = Failure(OutcomeKind.THROTTLED, UNREACHED, str(error))
            return dict.fromkeys(ids, failed)


def failure_of(error: Exception) -> Failure:
    """The Failure for an exception of a call."""
    if isinstance(error, RefusedError | FailedError):
        return error.failure
    if isinstance(error, UnansweredError):
        return Failure(OutcomeKind.UNKNOWN, NO_ANSWER, str(error))
    denied = isinstance(error, UnreachedError) and error.denied
    return Failure(OutcomeKind.DENIED if denied else OutcomeKind.THROTTLED, UNREACHED, str(error))


def _away(failed: Failure, kind: OutcomeKind) -> Failure:
    """Give the failure of a host that cannot be asked another kind. For starts that is no capacity, so they go elsewhere."""
    if failed.code == UNREACHED and failed.kind is OutcomeKind.THROTTLED:
        return Failure(kind, failed.code, failed.message)
    return failed


def _is_uuid(vm_id: str) -> bool:
    try:
        return str(uuid.UUID(vm_id)) == vm_id
    except ValueError:
        return False
