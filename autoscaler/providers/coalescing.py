"""One listing for many askers: fleets of one account, acting or in shadow, share a single listing per tick."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from autoscaler.ports import Listing, Outcome, Provider, ProvisionSpec


class SharedReader:
    """The reading half of a provider; calls made while a listing is under way share its result.

    Args:
        provider: The one that is really asked.
    """

    def __init__(self, provider: Provider) -> None:
        self._list = provider.list_vms
        self._checked = provider.checked
        self._under_way: asyncio.Task[Listing] | None = None

    async def list_vms(self) -> Listing:
        """As in the Provider port; a caller that gives up does not cancel it for the others."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._list())
        return await asyncio.shield(self._under_way)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port."""
        return await self._checked(vm_ids)


class SharedProvider:
    """Changes through the provider, reads through a reader that others use too; a Provider.

    Args:
        provider: Makes the changes; closed with this one.
        reader: Shared.
    """

    def __init__(self, provider: Provider, reader: SharedReader) -> None:
        self._provider = provider
        self._reader = reader

    async def list_vms(self) -> Listing:
        """As in the Provider port."""
        return await self._reader.list_vms()

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port."""
        return await self._reader.checked(vm_ids)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._provider.start(vm_ids)

    async def stop(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._provider.stop(vm_ids)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._provider.provision(spec, count, token)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._provider.terminate(vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._provider.tag(vm_ids, tags)

    async def close(self) -> None:
        """As in the Provider port."""
        await self._provider.close()
