"""Lists one host: all domains with the ownership tag, or one of them again.

Rules: runs in a thread, on one connection; changes nothing. What libvirt forgets or does not report is kept in `Known`. Each
entry is read and written as a whole, so threads need no lock. Transient domains are ignored: they would be gone once they are
stopped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from autoscaler.ports import Clock
from autoscaler.providers.libvirt.binding import error_of
from autoscaler.providers.libvirt.classify import ABSENT, NO_DOMAIN, refused
from autoscaler.providers.libvirt.domains import (
    ADDRESS_TAG,
    TAGS_URI,
    Description,
    DomainView,
    UnreadableError,
    describe,
)

_STATS_STATE: Final = 1
_STATS_PERSISTENT: Final = 4
_LIST_SAVED: Final = 256
_FROM_LEASES, _FROM_AGENT, _FROM_ARP = 0, 1, 2
_ADDRESS_KEPT_S: Final = 300.0
"""Seconds after which a known address is asked for again; a DHCP lease may move."""
_NO_ADDRESS_KEPT_S: Final = 5.0
"""The same if no address was found, as while the guest boots. For many bridged VMs, it never is."""
_LOOKING_S: Final = 1.5
"""Most seconds that one listing spends on addresses. The next listing looks up the rest."""


@dataclass(slots=True)
class Known:
    """What we know about a host's domains in addition to libvirt, by id.

    Attributes:
        launches: Our last start: libvirt's number of the run (None until it is known), and the time in epoch seconds.
        saving: Domains whose memory we are saving.
        troubles: libvirt's number of the run, and the code of what went wrong when saving its memory.
        first_seen: For runs without a recorded start: the number of the run, and when we first saw it.
        addresses: Number of the run, its address (None if there was none), and until when that is kept.
        ask_agents: Domains whose address only their guest agent may know.
        described: The XML of a domain, and its description.
    """

    launches: dict[str, tuple[int | None, float]] = field(default_factory=dict)
    saving: set[str] = field(default_factory=set)
    troubles: dict[str, tuple[int, str]] = field(default_factory=dict)
    first_seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    addresses: dict[str, tuple[int, str | None, float]] = field(default_factory=dict)
    ask_agents: set[str] = field(default_factory=set)
    described: dict[str, tuple[str, Description]] = field(default_factory=dict)

    def launched_at_s(self, it: Description, run: int, now_s: float) -> float:
        """When a domain was last started, as far as is known, in epoch seconds. The value stays the same until the next start."""
        ours = self.launches.get(it.uuid)
        if ours is not None and (run < 0 or ours[0] in (None, run)):
            return ours[1]
        if it.marks.launched_at_s is not None and it.marks.run in (None if run < 0 else run, run):
            return it.marks.launched_at_s
        seen = self.first_seen.get(it.uuid)
        if seen is None or seen[0] != run:
            seen = self.first_seen[it.uuid] = run, now_s
        return seen[1]

    def forget_others(self, uuids: set[str]) -> None:
        """Forget all domains except those with the given ids."""
        known: tuple[dict[str, Any], ...]
        known = self.launches, self.troubles, self.first_seen, self.addresses, self.described
        for each in known:
            # Copied to a list first, in one step, because other threads add to it.
            for uuid in [uuid for uuid in list(each) if uuid not in uuids]:
                each.pop(uuid, None)


@dataclass(frozen=True, slots=True)
class Part:
    """One host's part of a listing.

    Attributes:
        seen: Its domains that carry the ownership tag.
        problem: What is missing, for a person; empty if nothing is.
    """

    seen: tuple[DomainView, ...]
    problem: str = ""


def list_host(connection: Any, known: Known, clock: Clock) -> Part:
    """List all domains of a host that carry the ownership tag."""
    looking_until_s = clock.monotonic() + _LOOKING_S
    saved = {each.UUIDString() for each in connection.listAllDomains(_LIST_SAVED)}
    found, bad = [], []
    for domain, stats in connection.getAllDomainStats(_STATS_STATE, _STATS_PERSISTENT):
        uuid = domain.UUIDString()
        try:
            described = _described(domain, uuid, known)
            if described is None:
                continue
            state = int(stats["state.state"]), int(stats["state.reason"])
            may_look = clock.monotonic() < looking_until_s
            found.append(_seen(domain, described, state, uuid in saved, known, clock, may_look=may_look))
        except UnreadableError as error:
            bad.append(f"{uuid} ({error})")
        except Exception as error:
            # It was deleted during the listing, which then shows it as gone.
            if (told := error_of(error)) is None or told[0] != NO_DOMAIN:
                raise
    known.forget_others({seen.described.uuid for seen in found})
    problem = f"{len(bad)} domains with XML that cannot be read, first: {bad[0]}" if bad else ""
    return Part(tuple(found), problem)


def look_at(connection: Any, uuid: str, known: Known, clock: Clock) -> tuple[Any, DomainView]:
    """Read the current state of one of our domains, and return it with libvirt's handle of the domain.

    Raises:
        RefusedError: There is no domain with this id, or it does not carry the ownership tag.
    """
    try:
        domain = connection.lookupByUUIDString(uuid)
        described = _described(domain, uuid, known)
        persistent = domain.isPersistent()
        state, reason = domain.state()
        saved = bool(domain.hasManagedSaveImage())
    except UnreadableError as error:
        raise refused("UnreadableAnswer", f"the domain '{uuid}': {error}") from error
    except Exception as error:
        if (told := error_of(error)) is None or told[0] != NO_DOMAIN:
            raise
        raise refused(ABSENT, f"the domain '{uuid}' does not exist") from None
    if described is None or not persistent:
        raise refused(ABSENT, f"the domain '{uuid}' does not carry the ownership tag, so it is not ours")
    return domain, _seen(domain, described, (state, reason), saved, known, clock, may_look=False)


def _described(domain: Any, uuid: str, known: Known) -> Description | None:
    """Describe a domain from its XML; None if it does not carry the ownership tag."""
    xml: str = domain.XMLDesc(0)
    if TAGS_URI not in xml:
        return None
    before = known.described.get(uuid)
    if before is None or before[0] != xml:
        before = known.described[uuid] = xml, describe(xml)
    return before[1] if before[1].fleet else None


def _seen(
    domain: Any,
    described: Description,
    state: tuple[int, int],
    saved: bool,
    known: Known,
    clock: Clock,
    *,
    may_look: bool,
) -> DomainView:
    uuid, run = described.uuid, int(domain.ID())
    now_s = clock.now()
    trouble = known.troubles.get(uuid, (None, ""))
    return DomainView(
        described,
        *state,
        run=run,
        saved=saved and run < 0,
        saving=uuid in known.saving,
        trouble=trouble[1] if trouble[0] == run else "",
        launched_at_s=known.launched_at_s(described, run, now_s),
        address=_address(domain, described, run, known, now_s, may_look=may_look),
    )


def _address(
    domain: Any, it: Description, run: int, known: Known, now_s: float, *, may_look: bool
) -> str | None:
    if run < 0:
        return None
    if named := it.tags.get(ADDRESS_TAG):
        return named
    if not it.interfaces:
        return None
    kept = known.addresses.get(it.uuid)
    # A clock that was set back must not prolong this.
    if kept is not None and kept[0] == run and 0.0 < kept[2] - now_s <= _ADDRESS_KEPT_S:
        return kept[1]
    last = kept[1] if kept is not None and kept[0] == run else None
    if not may_look:
        return last
    found = _asked(domain, _FROM_LEASES) or _asked(domain, _FROM_ARP) or last
    if found is None and it.agent:
        known.ask_agents.add(it.uuid)
    known.addresses[it.uuid] = run, found, now_s + (_ADDRESS_KEPT_S if found else _NO_ADDRESS_KEPT_S)
    return found


def ask_agents(connection: Any, uuids: Sequence[str], known: Known, clock: Clock) -> None:
    """Ask guest agents for addresses that are not known otherwise. A guest may take its time to answer."""
    for uuid in uuids:
        try:
            domain = connection.lookupByUUIDString(uuid)
            run, address = int(domain.ID()), _asked(domain, _FROM_AGENT)
        except Exception as error:
            if error_of(error) is None:
                raise
            continue
        if address is not None:
            known.addresses[uuid] = run, address, clock.now() + _ADDRESS_KEPT_S


def _asked(domain: Any, source: int) -> str | None:
    try:
        interfaces: Mapping[str, Mapping[str, Any]] = domain.interfaceAddresses(source)
    except Exception as error:
        if error_of(error) is None:
            raise
        return None
    return best_address(interfaces)


def best_address(interfaces: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first address that others can reach: IPv4 before IPv6, without loopback and link-local addresses."""
    found = []
    for name, interface in interfaces.items():
        for each in interface.get("addrs") or ():
            address = ipaddress.ip_address(str(each["addr"]).partition("%")[0])
            if name != "lo" and not (address.is_loopback or address.is_link_local or address.is_unspecified):
                found.append((address.version, str(address)))
    return min(found, key=lambda each: each[0])[1] if found else None
