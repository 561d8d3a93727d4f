"""Checks libvirt hosts in advance for what the daemon needs on a bad day. Changes nothing.

Rules: every call is bounded; a host that does not answer becomes a finding and never ends the examination. Each host is read in
one call, in a thread (`_facts`); the other functions judge the results, without I/O.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from autoscaler.ports import Clock, ProvisionSpec, Vm, VmState
from autoscaler.ports.findings import Finding, Level
from autoscaler.providers.failing import Failure
from autoscaler.providers.libvirt.binding import binding, connect, error_of
from autoscaler.providers.libvirt.classify import RefusedError
from autoscaler.providers.libvirt.cloning import VOLUME_PREFIX, find_template, volume_behind
from autoscaler.providers.libvirt.host import FailedError, Host, UnansweredError, UnreachedError
from autoscaler.providers.libvirt.listing import Known, list_host
from autoscaler.providers.libvirt.memory import RESERVE_MIB, free_mib
from autoscaler.providers.libvirt.settings import LibvirtSettings

ANSWER_S: Final = 15.0
"""Longest time for all questions to one host, in seconds. A host that has just started first probes its own QEMU."""
_LITTLE_SPACE: Final = 0.1
_GIB: Final = 2.0**30


@dataclass(frozen=True, slots=True)
class Examined:
    """The parts of a policy that an examination needs.

    Attributes:
        fleet: Name of the fleet.
        spec: What new VMs are made from; None if the fleet makes none.
        subnets: Hosts that may hold new VMs; empty if any may.
        hibernates: Whether its stopped VMs should keep their memory.
        only_on_aws: Fields of the policy that only work on AWS.
    """

    fleet: str
    spec: ProvisionSpec | None
    subnets: tuple[str, ...] = ()
    hibernates: bool = False
    only_on_aws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoragePool:
    """A storage pool that holds disks of a template."""

    name: str
    available_bytes: int
    size_bytes: int
    clone_bytes: int
    """Most bytes that one clone may use in this pool."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one host reports.

    Attributes:
        version: Version of its libvirt.
        vms: Its VMs with the ownership tag.
        problem: Which of those VMs could not be read; empty if all were.
        free_mib: Free memory in MiB; None if the host does not say.
        templates: By fleet, the storage pools of its template, or why it cannot be cloned.
        leftovers: Paths of our volumes that no domain uses.
    """

    version: str
    vms: tuple[Vm, ...]
    problem: str
    free_mib: int | None
    templates: Mapping[str, tuple[StoragePool, ...] | Failure]
    leftovers: tuple[str, ...]


async def examine(
    settings: LibvirtSettings,
    fleets: Sequence[Examined],
    clock: Clock,
    opener: Callable[[str], Any] = connect,
) -> tuple[list[Finding], list[Vm]]:
    """Run all checks on all hosts.

    Args:
        settings: Which hosts to examine.
        fleets: The fleets of all policies.
        clock: Clock for the times of readings.
        opener: Opens a connection to a URI, in a thread.

    Returns:
        The findings, and the VMs of all hosts that answered.

    Raises:
        ConfigError: libvirt-python is not installed.
    """
    binding()
    hosts = [Host(name, uri, opener, clock) for name, uri in settings.hosts.items()]
    try:
        answers = await asyncio.gather(*(_asked(host, fleets, clock) for host in hosts))
    finally:
        await asyncio.gather(*(host.close() for host in hosts))
    facts = {host.name: each for host, each in zip(hosts, answers, strict=True) if isinstance(each, Facts)}
    found = [each for each in answers if isinstance(each, Finding)]
    vms = [vm for each in facts.values() for vm in each.vms]
    for name, each in facts.items():
        found += _of_host(name, each, heeds_memory=settings.heed_memory)
    found += _twice(vms)
    found += _without_policy(vms, {each.fleet for each in fleets})
    for fleet in fleets:
        found += _of_fleet(fleet, facts, [vm for vm in vms if vm.fleet == fleet.fleet])
    return found, vms


async def _asked(host: Host, fleets: Sequence[Examined], clock: Clock) -> Facts | Finding:
    try:
        return await host.ask(partial(_facts, name=host.name, fleets=fleets, clock=clock), ANSWER_S)
    except (UnreachedError, UnansweredError, FailedError, RefusedError) as error:
        text = f"{host.name} cannot be asked: {error}"
        fix = "check the URI in libvirt_uris, libvirtd there, and that the daemon's user may reach it"
        return Finding("reach", Level.PROBLEM, text, fix)


def _facts(connection: Any, name: str, fleets: Sequence[Examined], clock: Clock) -> Facts:
    part = list_host(connection, Known(), clock)
    templates: dict[str, tuple[StoragePool, ...] | Failure] = {}
    for fleet in fleets:
        if fleet.spec is not None and (not fleet.subnets or name in fleet.subnets):
            try:
                templates[fleet.fleet] = _pools(connection, fleet.spec)
            except RefusedError as error:
                templates[fleet.fleet] = error.failure
    number = int(connection.getLibVersion())
    return Facts(
        version=f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}",
        vms=tuple(seen.vm(name) for seen in part.seen),
        problem=part.problem,
        free_mib=free_mib(connection),
        templates=templates,
        leftovers=tuple(_leftovers(connection)),
    )


def _pools(connection: Any, spec: ProvisionSpec) -> tuple[StoragePool, ...]:
    found: dict[str, StoragePool] = {}
    for disk in find_template(connection, spec).described.disks:
        volume = volume_behind(connection, disk)
        pool = volume.storagePoolLookupByVolume()
        _, size, _, available = pool.info()
        before = found.get(pool.name(), StoragePool(pool.name(), int(available), int(size), 0))
        found[before.name] = replace(before, clone_bytes=before.clone_bytes + int(volume.info()[1]))
    return tuple(found.values())


def _leftovers(connection: Any) -> list[str]:
    try:
        paths = {
            path
            for pool in connection.listAllStoragePools(0)
            if pool.isActive()
            for volume in pool.listAllVolumes(0)
            if volume.name().startswith(VOLUME_PREFIX) and (path := str(volume.path()))
        }
        used = "".join(each.XMLDesc(0) for each in connection.listAllDomains(0)) if paths else ""
    except Exception as error:
        if error_of(error) is None:
            raise
        return []
    return sorted(path for path in paths if path not in used)


def _of_host(name: str, facts: Facts, *, heeds_memory: bool) -> list[Finding]:
    text = f"{name} answers (libvirt {facts.version}); {_count(len(facts.vms))} with the tag autoscaler:fleet"
    found = [Finding("reach", Level.OK, text)]
    if facts.problem:
        found.append(Finding("listing", Level.PROBLEM, f"{name}: {facts.problem}", "correct its XML"))
    found += _memory(name, facts) if heeds_memory else []
    if facts.leftovers:
        text = f"{name} has {len(facts.leftovers)} volumes that were made for VMs and belong to none now: {facts.leftovers[0]}"
        found.append(Finding("storage", Level.WARNING, text, "delete them: virsh vol-delete PATH"))
    held = [vm for vm in facts.vms if vm.state_reason.startswith("Libvirt.")]
    if held:
        text = (
            f"{_count(len(held))} on {name} held, and serving nobody: {held[0].id} ({held[0].state_reason})"
        )
        found.append(
            Finding("state", Level.WARNING, text, "see `virsh domstate --reason`; resume or destroy it")
        )
    return found


def _memory(name: str, facts: Facts) -> list[Finding]:
    if facts.free_mib is None:
        return [
            Finding("memory", Level.UNKNOWN, f"{name} does not tell how much memory is free", "look there")
        ]
    stopped = sorted(int(vm.vm_type.partition("x")[2]) for vm in facts.vms if vm.state is VmState.STOPPED)
    left, fit = facts.free_mib - RESERVE_MIB, 0
    for mib in stopped:
        left -= mib
        fit += left >= 0
    text = f"{facts.free_mib} MiB are free on {name}; to start all that is off ({_count(len(stopped))}) takes {sum(stopped)}"
    if fit == len(stopped):
        return [Finding("memory", Level.OK, text)]
    fix = "move some to other hosts, or give them less memory: the others are refused for lack of room"
    return [Finding("memory", Level.WARNING, f"{text}, so at most {fit} can be started", fix)]


def _twice(vms: Sequence[Vm]) -> list[Finding]:
    twice = [vm_id for vm_id, count in Counter(vm.id for vm in vms).items() if count > 1]
    if not twice:
        return []
    zones = " and ".join(vm.zone for vm in vms if vm.id == twice[0])
    text = f"{_count(len(twice))} defined on more than one host: {twice[0]} on {zones}"
    return [
        Finding(
            "listing",
            Level.WARNING,
            text,
            "undefine it on the host where it does not belong (migrate --undefinesource)",
        )
    ]


def _without_policy(vms: Sequence[Vm], fleets: set[str]) -> list[Finding]:
    others = Counter(vm.fleet for vm in vms if vm.fleet not in fleets)
    running = Counter(vm.fleet for vm in vms if vm.state in (VmState.PENDING, VmState.RUNNING))
    return [
        Finding(
            "strays",
            Level.WARNING,
            f"{_count(count)} with the tag autoscaler:fleet={fleet}, for which there is no policy"
            + (f"; {running[fleet]} running, until somebody stops them" if running[fleet] else ""),
            "add a policy for the fleet, or correct the tag",
        )
        for fleet, count in sorted(others.items())
    ]


def _of_fleet(fleet: Examined, facts: Mapping[str, Facts], vms: Sequence[Vm]) -> list[Finding]:
    name = fleet.fleet
    found = []
    if not vms:
        text = f"no VM carries autoscaler:fleet={name}"
        found.append(Finding("fleet", Level.WARNING, text, "tag its domains (README, On libvirt)", name))
    unable = [vm for vm in vms if not vm.may_hibernate]
    if fleet.hibernates and unable:
        text = f"{_count(len(unable))} have devices of their host, so their memory cannot be saved: {unable[0].id}"
        found.append(Finding("hibernation", Level.WARNING, text, "they are stopped plainly", name))
    if fleet.only_on_aws:
        text = (
            f"{', '.join(fleet.only_on_aws)}: AWS's, and the VMs are not there, so the daemon does not start"
        )
        fix = "use balancer.haproxy or a command, freshness.exercise.command, and another source"
        found.append(Finding("policy", Level.PROBLEM, text, fix, name))
    return found + _template(fleet, facts)


def _template(fleet: Examined, facts: Mapping[str, Facts]) -> list[Finding]:
    spec = fleet.spec
    if spec is None:
        return []
    found = []
    if unknown := [host for host in fleet.subnets if host not in facts]:
        text = (
            f"provision names hosts that are not among libvirt_uris, or do not answer: {', '.join(unknown)}"
        )
        found.append(Finding("template", Level.PROBLEM, text, "correct subnet or subnets", fleet.fleet))
    asked = {
        host: each.templates[fleet.fleet] for host, each in facts.items() if fleet.fleet in each.templates
    }
    able = {host: each for host, each in asked.items() if not isinstance(each, Failure)}
    for host, each in asked.items():
        if isinstance(each, Failure) and (fleet.subnets or not able):
            found.append(
                Finding(
                    "template",
                    Level.PROBLEM,
                    f"{host}: {each.message}",
                    "see README, On libvirt",
                    fleet.fleet,
                )
            )
    for host, pools in able.items():
        text = f"{spec.launch_template} can be cloned on {host}"
        found.append(Finding("template", Level.OK, text, "", fleet.fleet))
        found += [_space(fleet.fleet, host, pool) for pool in pools]
    return found


def _space(fleet: str, host: str, pool: StoragePool) -> Finding:
    text = (
        f"{pool.available_bytes / _GIB:.1f} GiB of {pool.size_bytes / _GIB:.1f} are free in the pool {pool.name} on {host}, and a "
        f"clone may grow to {pool.clone_bytes / _GIB:.1f}"
    )
    if pool.available_bytes < max(pool.clone_bytes, _LITTLE_SPACE * pool.size_bytes):
        return Finding("storage", Level.WARNING, text, "make room: clones that find none are paused", fleet)
    return Finding("storage", Level.OK, text, "", fleet)


def _count(count: int) -> str:
    return "1 VM" if count == 1 else f"{count} VMs"
