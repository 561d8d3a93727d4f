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
    Unread,
    Vm,
)
from autoscaler.ports.budget import budget_of


class SharedReader:
    """The reading half of a provider; calls made while a listing is under way share its result.

    An answer that comes at once is shared with those who ask at the same moment, until something is changed.

    Args:
        provider: The one that is really asked.
        patience_s: A listing under way for so long is given up for a new one, in seconds of the event loop.
        name: What the settings call it; empty where it is the only one.
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
        """The rows of `_split` by owner."""

    async def list_vms(self) -> Listing:
        """As in the Provider port; a caller that gives up does not cancel it for the others."""
        now_s = asyncio.get_running_loop().time()
        under_way = self._under_way
        waiting = isinstance(under_way, asyncio.Future) and not under_way.done()
        if isinstance(under_way, asyncio.Future) and waiting and now_s - self._began_s >= self._patience_s:
            # A listing that never ends would be everybody's listing for ever.
            under_way.cancel()
            under_way = None
            waiting = False
        if under_way is None or not (waiting or (self.answers_at_once and now_s == self._began_s)):
            under_way = begun(self._list, at_once=self.answers_at_once)
            if isinstance(under_way, asyncio.Future):
                under_way.add_done_callback(self._heard)
                # Rows that are rebuilt for each listing are not kept beside the new ones.
                self._split, self._by_fleet = (), {}
            self._under_way, self._began_s = under_way, now_s
        if isinstance(under_way, asyncio.Future) and not under_way.done():
            return await asyncio.shield(under_way)
        return under_way.result()

    async def list_of(self, fleet: str) -> tuple[Listing, tuple[Vm, ...]]:
        """The listing, and its rows that belong to this fleet; split once for all callers."""
        listing = await self.list_vms()
        if self._split is not listing.vms:
            self._split, self._by_fleet = listing.vms, _by_fleet(listing.vms)
        return listing, self._by_fleet.get(fleet, ())

    def changed(self) -> None:
        """The next one who asks gets a new listing, unless one is under way."""
        if self._under_way is not None and self._under_way.done():
            self._under_way = None

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port."""
        return await self._checked(vm_ids)

    def _heard(self, task: asyncio.Future[Listing]) -> None:
        """Keep no listing that nobody may ask for any more, nor let the event loop complain of a failure unheard."""
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
    """Changes through the provider, reads through a reader that others use too; a Provider.

    Args:
        provider: Makes the changes; closed with this one.
        reader: Shared.
    """

    def __init__(self, provider: Provider, reader: SharedReader) -> None:
        self._provider = provider
        self._reader = reader
        self.name = reader.name
        self.budget = budget_of(provider)
        """The account's, where the provider keeps one."""
        self.answers_at_once = answers_at_once(provider)

    async def list_vms(self) -> Listing:
        """As in the Provider port."""
        return await self._reader.list_vms()

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port."""
        return await self._reader.checked(vm_ids)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        self._reader.changed()
        return await self._provider.start(vm_ids)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        self._reader.changed()
        how = {"force": True} if force else {"hibernate": True} if hibernate else {}
        return await self._provider.stop(vm_ids, **how)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        self._reader.changed()
        return await self._provider.retype(vm_ids, vm_type)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        self._reader.changed()
        return await self._provider.provision(spec, count, token)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        self._reader.changed()
        return await self._provider.terminate(vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        self._reader.changed()
        return await self._provider.tag(vm_ids, tags)

    def for_refills(self) -> Provider:
        """The same for what can wait, where the provider tells the two apart."""
        provider = self._provider
        return (
            SharedProvider(provider.for_refills(), self._reader) if isinstance(provider, Deferring) else self
        )

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | Unread | None:
        """As in the TemplateReader port; None where the provider cannot tell."""
        provider = self._provider
        return await provider.launch_spec(spec) if isinstance(provider, TemplateReader) else None

    async def close(self) -> None:
        """As in the Provider port."""
        await self._provider.close()
