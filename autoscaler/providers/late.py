"""Stands in for a provider whose place cannot be used yet, and forwards all calls once it can.

Why: among several places, one without credentials, or without its library, must not keep the daemon from looking after the others'
fleets. Its own fleets are treated as if the place did not answer: nothing of theirs is listed, so they hold.

Rules of this file: until the place is usable nothing is sent, and every answer says why; the caller decides when to retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from autoscaler.errors import AutoscalerError, ProviderError
from autoscaler.ports import (
    Clock,
    LaunchSpec,
    Listing,
    Outcome,
    Provider,
    ProvisionSpec,
    TemplateReader,
    Unread,
)

OPEN_WITHIN_S = 30.0
"""Longest time of one attempt, in seconds of the event loop: a program that gives credentials may hang."""
NOT_OPEN = "PlaceNotOpen"
"""Code of ours on a ProviderError: the place cannot be used yet, so nothing was sent."""


class LateProvider:
    """Implements the Provider port.

    Args:
        open_: Opens the real one; what it raises says why it cannot.
        clock: Dates listings.
    """

    def __init__(self, open_: Callable[[], Awaitable[Provider]], clock: Clock) -> None:
        self._open = open_
        self._clock = clock
        self.provider: Provider | None = None
        """The real one, once it is open."""
        self.trouble = "it has not been tried yet"
        """For a person, why it is not open; empty once it is."""

    async def open(self) -> bool:
        """Try to open it, where it is not; whether it is open now."""
        if self.provider is not None:
            return True
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                self.provider = await self._open()
        except TimeoutError:
            self.trouble = f"it could not be opened within {OPEN_WITHIN_S:g} s"
        except AutoscalerError as error:
            self.trouble = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001  whatever it is, it is of this place alone
            self.trouble = f"unexpected {type(error).__name__}: {error}; please report"
        else:
            self.trouble = ""
        return self.provider is not None

    async def list_vms(self) -> Listing:
        """As in the Provider port; empty and not whole until it is open."""
        if self.provider is not None:
            return await self.provider.list_vms()
        now_s = self._clock.now()
        why = f"the place cannot be used: {self.trouble} (it is tried again)"
        return Listing((), complete=False, requested_at_s=now_s, received_at_s=now_s, error=why)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._opened().start(vm_ids)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._opened().stop(vm_ids, force=force, hibernate=hibernate)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._opened().retype(vm_ids, vm_type)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._opened().provision(spec, count, token)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._opened().terminate(vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """As in the Provider port."""
        return await self._opened().tag(vm_ids, tags)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """As in the Provider port; none until it is open."""
        return frozenset() if self.provider is None else await self.provider.checked(vm_ids)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | Unread | None:
        """As in the TemplateReader port; unread until it is open."""
        if self.provider is None:
            return Unread(f"the place cannot be used: {self.trouble}")
        return await self.provider.launch_spec(spec) if isinstance(self.provider, TemplateReader) else None

    async def close(self) -> None:
        """As in the Provider port."""
        if self.provider is not None:
            await self.provider.close()

    def _opened(self) -> Provider:
        if self.provider is None:
            raise ProviderError(
                f"nothing was sent, since the place cannot be used: {self.trouble}", code=NOT_OPEN
            )
        return self.provider
