"""Provisions VMs on libvirt hosts: chooses the host, and turns failures into outcomes.

The fields of a policy's `provision` mean: `launch_template` is the name of a domain that is shut off, `subnet` the name of a
host, and `vm_type` processors x MiB. Without `subnet`, the host with the most free memory among those with the template is
used. All VMs of one call are made on one host.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from functools import partial

from autoscaler.ports import LaunchSpec, Outcome, OutcomeKind, ProvisionSpec, UnreadableTemplate
from autoscaler.providers.failing import Failure, made_of
from autoscaler.providers.libvirt.changes import HostContext
from autoscaler.providers.libvirt.classify import MISMATCH, NO_ANSWER, NO_TEMPLATE, UNREACHED, RefusedError
from autoscaler.providers.libvirt.cloning import Offer, Request, clone, offer
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
        self._tried: dict[str, str] = {}
        """The host of each recent token. A repeated request goes to the same host and nowhere else."""

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Make VMs on one host, as many as it has room for; see `Provider.provision`."""
        request = Request(spec, count, token)
        name = await self._choose(request)
        if isinstance(name, Failure):
            return (name.of(""),)
        self._tried[token] = name
        if len(self._tried) > _TOKENS_KEPT:
            del self._tried[next(iter(self._tried))]
        call = partial(clone, request=request, desk=self._desks[name])
        limits = self._settings
        # One call makes all VMs, and each takes about as long as a start.
        limit_s = limits.call_s * (1 + count / 10)
        try:
            made = await self._hosts[name].ask(call, limit_s, Kind.CHANGE, turn_s=limits.batch_s)
        except (RefusedError, FailedError) as error:
            return (error.failure.of(""),)
        except UnansweredError as error:
            return (Failure(OutcomeKind.UNKNOWN, NO_ANSWER, str(error)).of(""),)
        except UnreachedError as error:
            return (_away(error).of(""),)
        return made_of(made.ids, count, made.why)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate:
        """What new VMs would be made from. The template's name stands for its contents.

        The disks of clones depend on the template's, so it may never change; a new template needs a new name.
        """
        name = await self._choose(Request(spec, 1, _NOBODYS))
        if isinstance(name, Failure):
            return UnreadableTemplate(str(name))
        said = repr((spec.launch_template, spec.vm_type)).encode()
        return LaunchSpec(hashlib.blake2b(said, digest_size=8).hexdigest(), "1", spec.launch_template)

    async def _choose(self, request: Request) -> str | Failure:
        """Choose the host to make the VMs on, or return why there is none."""
        wanted = self._tried.get(request.token) or request.spec.subnet
        if wanted is not None and wanted not in self._hosts:
            known = ", ".join(self._hosts)
            text = f"provision.subnet names the host {wanted!r}, which is not one of libvirt_uris: {known}"
            return Failure(OutcomeKind.REFUSED, "InvalidSubnetID.NotFound", text)
        asked = [wanted] if wanted is not None else list(self._hosts)
        answers = dict(
            zip(asked, await asyncio.gather(*(self._offer(n, request) for n in asked)), strict=True)
        )
        offers = {name: each for name, each in answers.items() if isinstance(each, Offer)}
        failed = [each for each in answers.values() if isinstance(each, Failure)]
        if mismatch := [each for each in failed if each.code == MISMATCH]:
            return mismatch[0]
        if made := [name for name, each in offers.items() if each.made]:
            return made[0]
        able = [name for name, each in offers.items() if each.template]
        if able:
            return max(able, key=lambda name: offers[name].free_mib)
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


def _away(error: UnansweredError | UnreachedError) -> Failure:
    """The Failure for a host that could not be asked. It was only read, so nothing was done."""
    denied = isinstance(error, UnreachedError) and error.denied
    return Failure(OutcomeKind.DENIED if denied else OutcomeKind.NO_CAPACITY, UNREACHED, str(error))
