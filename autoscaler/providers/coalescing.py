"""Shares listings: fleets of one account, acting or in shadow, use a single listing per tick."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from autoscaler.at_once import Begun, answers_at_once, begun
from autoscaler.ports import (
    Deferring,
    LaunchSpec,
    Listing,
    Outcome,
    Provider,
    ProvisionSpec,
    TemplateReader,
    UnreadableTemplate,
    Vm,
)
from autoscaler.ports.budget import budget_of


class SharedReader:
    """The reading half of a provider. Callers that ask while a listing is under way share its result.

    A listing that is available at once is shared by all callers of the same moment, until something is changed.

    Args:
        provider: The provider to read from.
        patience_s: A listing that takes longer than this is cancelled and replaced by a new one, in seconds of the event loop.
        name: Name of the place in the settings; empty if there is only one.
    """

    def __init__(self, provider: Provider, *, patience_s: float = 60.0, name: str = "") -> None:
        self.name = name
        self.answers_at_once = answers_at_once(provider)
        self._list = provider.list_vms
        self._checked = provider.checked
        self._patience_s = patience_s
        self._under_way: Begun[Listing] | None = None
        self._began_s = 0.0
        self._split: tuple[Vm, ...] = ()
        self._by_fleet: dict[str, tuple[Vm, ...]] = {}
        """The VMs in `_split`, by fleet."""

    async def list_vms(self) -> Listing:
        """See `Provider.list_vms`. A caller that gives up does not cancel the listing for the others."""
        now_s = asyncio.get_running_loop().time()
        under_way = self._under_way
        waiting = isinstance(under_way, asyncio.Future) and not under_way.done()
        if isinstance(under_way, asyncio.Future) and waiting and now_s - self._began_s >= self._patience_s:
            # Otherwise a listing that hangs would block all callers for ever.
            under_way.cancel()
            under_way = None
            waiting = False
        if under_way is None or not (waiting or (self.answers_at_once and now_s == self._began_s)):
            under_way = begun(self._list, at_once=self.answers_at_once)
            if isinstance(under_way, asyncio.Future):
                under_way.add_done_callback(self._heard)
                # Each such listing builds new values; free the old ones before they arrive.
                self._split, self._by_fleet = (), {}
            self._under_way, self._began_s = under_way, now_s
        if isinstance(under_way, asyncio.Future) and not under_way.done():
            return await asyncio.shield(under_way)
        return under_way.result()

    async def list_of(self, fleet: str) -> tuple[Listing, tuple[Vm, ...]]:
        """Return the current listing and the VMs in it that belong to `fleet`. The listing is split once for all callers."""
        listing = await self.list_vms()
        if self._split is not listing.vms:
            self._split, self._by_fleet = listing.vms, _by_fleet(listing.vms)
        return listing, self._by_fleet.get(fleet, ())

    def changed(self) -> None:
        """Make the next caller get a new listing, unless one is under way."""
        if self._under_way is not None and self._under_way.done():
            self._under_way = None

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """See `Provider.checked`."""
        return await self._checked(vm_ids)

    def _heard(self, task: asyncio.Future[Listing]) -> None:
        """Drop a listing that no caller can still share, and mark its exception as retrieved."""
        if self._under_way is task and not self.answers_at_once:
            self._under_way = None
        if not task.cancelled():
            task.exception()


def _by_fleet(vms: Sequence[Vm]) -> dict[str, tuple[Vm, ...]]:
    found: dict[str, list[Vm]] = {}
    for vm in vms:
        found.setdefault(vm.fleet, []).append(vm)
    return {fleet: tuple(own) for fleet, own in found.items()}


class SharedProvider:
    """A provider that makes changes itself and reads through a shared reader; implements the Provider port.

    Args:
        provider: The provider that makes the changes. Closed together with this one.
        reader: The reader that others share.
    """

    def __init__(self, provider: Provider, reader: SharedReader) -> None:
        self._provider = provider
        self._reader = reader
        self.name = reader.name
        self.budget = budget_of(provider)
        """The account's API budget, or None if the provider keeps none."""
        self.answers_at_once = answers_at_once(provider)

    async def list_vms(self) -> Listing:
        """See `Provider.list_vms`."""
        return await self._reader.list_vms()

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """See `Provider.checked`."""
        return await self._reader.checked(vm_ids)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """See `Provider.start`."""
        self._reader.changed()
        return await self._provider.start(vm_ids)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """See `Provider.stop`."""
        self._reader.changed()
        how = {"force": True} if force else {"hibernate": True} if hibernate else {}
        return await self._provider.stop(vm_ids, **how)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """See `Provider.retype`."""
        self._reader.changed()
        return await self._provider.retype(vm_ids, vm_type)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """See `Provider.provision`."""
        self._reader.changed()
        return await self._provider.provision(spec, count, token)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """See `Provider.terminate`."""
        self._reader.changed()
        return await self._provider.terminate(vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """See `Provider.tag`."""
        self._reader.changed()
        return await self._provider.tag(vm_ids, tags)

    def for_refills(self) -> Provider:
        """Return this provider for orders that can wait, if the provider gives them a lower priority; otherwise itself."""
        provider = self._provider
        return (
            SharedProvider(provider.for_refills(), self._reader) if isinstance(provider, Deferring) else self
        )

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate | None:
        """See `TemplateReader.launch_spec`; None if the provider does not implement it."""
        provider = self._provider
        return await provider.launch_spec(spec) if isinstance(provider, TemplateReader) else None

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._provider.close()
