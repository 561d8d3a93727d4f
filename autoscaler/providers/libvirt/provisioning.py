"""Provisions VMs on libvirt hosts: chooses the host, and turns failures into outcomes.

The fields of a policy's `provision` mean: `launch_template` is the name of a domain that is shut off, `subnet` the name of a
host, and `vm_type` processors x MiB. Without `subnet`, the hosts with the template are used, the one with the most free memory
first: what it has no room for is made on the next.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from autoscaler.ports import LaunchSpec, Outcome, OutcomeKind, ProvisionSpec, UnreadableTemplate
from autoscaler.providers.failing import Failure, made_of
from autoscaler.providers.libvirt.changes import HostContext
from autoscaler.providers.libvirt.classify import (
    MISMATCH,
    NO_ANSWER,
    NO_ROOM,
    NO_TEMPLATE,
    UNREACHED,
    RefusedError,
)
from autoscaler.providers.libvirt.cloning import Cloned, Offer, Request, clone, offer
from autoscaler.providers.libvirt.host import FailedError, Host, Kind, UnansweredError, UnreachedError
from autoscaler.providers.libvirt.settings import LibvirtSettings

_NOBODYS = "-"
_TOKENS_KEPT = 1000
"""Number of recent tokens that are remembered; a request is repeated within minutes or never."""


class Provisioning:
    """Makes VMs on one of several hosts.

    Args:
        settings: How long to wait.
        hosts: The hosts by name.
        desks: By host, what its changes share.
    """

    def __init__(
        self, settings: LibvirtSettings, hosts: Mapping[str, Host], desks: Mapping[str, HostContext]
    ) -> None:
        self._settings = settings
        self._hosts = hosts
        self._desks = desks
        self._tried: dict[str, tuple[str, ...]] = {}
        """The hosts of each recent token. A repeated request goes to the same hosts and nowhere else."""

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Make VMs, as many as there is room for; see `Provider.provision`."""
        request = Request(spec, count, token)
        offers = await self._choose(request)
        if isinstance(offers, Failure):
            return (offers.of(""),)
        exist = {vm_id for each in offers.values() for vm_id in each.made}
        left = [vm_id for vm_id in request.ids if vm_id not in exist]
        done: set[str] = set()
        failed: Failure | None = None
        for name, each in offers.items():
            ids = [vm_id for vm_id in request.ids if vm_id in each.made or vm_id in left]
            if not ids:
                continue
            self._note_host(token, name)
            made = await self._clone(name, request, ids)
            if isinstance(made, Failure):
                # What may have been made must not be hidden by what certainly was not.
                failed = made if failed is None or made.kind is OutcomeKind.UNKNOWN else failed
                if made.kind is OutcomeKind.NO_CAPACITY:
                    continue
                break
            done.update(made.ids)
            left = [vm_id for vm_id in left if vm_id not in done]
            if made.why:
                failed = Failure(OutcomeKind.NO_CAPACITY, NO_ROOM, made.why)
        return _outcomes(request, done, failed)

    def _note_host(self, token: str, name: str) -> None:
        hosts = self._tried.get(token, ())
        self._tried[token] = hosts if name in hosts else (*hosts, name)
        if len(self._tried) > _TOKENS_KEPT:
            del self._tried[next(iter(self._tried))]

    async def _clone(self, name: str, request: Request, ids: Sequence[str]) -> Cloned | Failure:
        """Make these VMs of a request on one host, or return why none was made."""
        call = partial(clone, request=request, desk=self._desks[name], ids=ids)
        limits = self._settings
        # One call makes all VMs, and each takes about as long as a start.
        limit_s = limits.call_s * (1 + len(ids) / 10)
        try:
            return await self._hosts[name].ask(call, limit_s, Kind.CHANGE, turn_s=limits.batch_s)
        except (RefusedError, FailedError) as error:
            return error.failure
        except UnansweredError as error:
            return Failure(OutcomeKind.UNKNOWN, NO_ANSWER, str(error))
        except UnreachedError as error:
            return _away(error)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate:
        """What new VMs would be made from. The template's name stands for its contents.

        The disks of clones depend on the template's, so it may never change; a new template needs a new name.
        """
        offers = await self._choose(Request(spec, 1, _NOBODYS))
        if isinstance(offers, Failure):
            return UnreadableTemplate(str(offers))
        said = repr((spec.launch_template, spec.vm_type)).encode()
        return LaunchSpec(hashlib.blake2b(said, digest_size=8).hexdigest(), "1", spec.launch_template)

    async def _choose(self, request: Request) -> dict[str, Offer] | Failure:
        """Choose the hosts to make the VMs on, in order, with their offers, or return why there is none."""
        tried, wanted = self._tried.get(request.token), request.spec.subnet
        if tried is None and wanted is not None and wanted not in self._hosts:
            known = ", ".join(self._hosts)
            text = f"provision.subnet names the host {wanted!r}, which is not one of libvirt_uris: {known}"
            return Failure(OutcomeKind.REFUSED, "InvalidSubnetID.NotFound", text)
        asked = [*tried] if tried is not None else [wanted] if wanted is not None else list(self._hosts)
        answers = dict(
            zip(asked, await asyncio.gather(*(self._offer(n, request) for n in asked)), strict=True)
        )
        offers = {name: each for name, each in answers.items() if isinstance(each, Offer)}
        failed = [each for each in answers.values() if isinstance(each, Failure)]
        if mismatch := [each for each in failed if each.code == MISMATCH]:
            return mismatch[0]
        if tried is not None and failed:
            # A host that does not answer may have made these VMs.
            return failed[0]
        able = [name for name, each in offers.items() if each.made or each.template]
        if able:
            first = tried or sorted(able, key=lambda name: (not offers[name].made, -offers[name].free_mib))
            return {name: offers[name] for name in first}
        if failed:
            return failed[0]
        text = f"there is no domain {request.spec.launch_template!r} to clone on {', '.join(asked)}"
        return Failure(OutcomeKind.REFUSED, NO_TEMPLATE, text)

    async def _offer(self, name: str, request: Request) -> Offer | Failure:
        try:
            return await self._hosts[name].ask(partial(offer, request=request), self._settings.listing_s)
        except (RefusedError, FailedError) as error:
            return error.failure
        except (UnansweredError, UnreachedError) as error:
            return _away(error)


def _outcomes(request: Request, done: Collection[str], failed: Failure | None) -> tuple[Outcome, ...]:
    made = [vm_id for vm_id in request.ids if vm_id in done]
    if failed is None or len(made) == request.count:
        return made_of(made, request.count)
    if made and failed.kind is OutcomeKind.NO_CAPACITY:
        return made_of(made, request.count, failed.message)
    return (*made_of(made, len(made)), failed.of(""))


def _away(error: UnansweredError | UnreachedError) -> Failure:
    """The Failure for a host that could not be asked. It was only read, so nothing was done."""
    denied = isinstance(error, UnreachedError) and error.denied
    return Failure(OutcomeKind.DENIED if denied else OutcomeKind.NO_CAPACITY, UNREACHED, str(error))
