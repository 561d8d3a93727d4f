"""Stands in for a provider whose place cannot be used yet, and forwards all calls once it can.

Why: if one of several places has no credentials, or lacks its library, the daemon must still look after the fleets elsewhere. The
fleets of that place are treated as if the place did not answer: it lists nothing, so they hold.

Rules of this file: until the place is usable, nothing is sent and every answer says why. The caller decides when to retry.
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
    UnreadableTemplate,
)

OPEN_WITHIN_S = 30.0
"""Longest time of one attempt to open a place, in seconds of the event loop: a program that supplies credentials may hang."""
NOT_OPEN = "PlaceNotOpen"
"""Our own code on a ProviderError: the place cannot be used yet, so nothing was sent."""


class LateProvider:
    """A provider that is opened later; implements the Provider port.

    Args:
        open_: Opens the real provider. The text of its exception says why it cannot.
        clock: Clock for the times of listings.
    """

    def __init__(self, open_: Callable[[], Awaitable[Provider]], clock: Clock) -> None:
        self._open = open_
        self._clock = clock
        self.provider: Provider | None = None
        """The real provider, once it is open."""
        self.trouble = "it has not been tried yet"
        """Why the provider is not open, for a person; empty once it is."""

    async def open(self) -> bool:
        """Try to open the provider unless it is open, and return whether it is open now."""
        if self.provider is not None:
            return True
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                self.provider = await self._open()
        except TimeoutError:
            self.trouble = f"it could not be opened within {OPEN_WITHIN_S:g} s"
        except AutoscalerError as error:
            self.trouble = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001  whatever fails here concerns this place alone
            self.trouble = f"unexpected {type(error).__name__}: {error}; please report"
        else:
            self.trouble = ""
        return self.provider is not None

    async def list_vms(self) -> Listing:
        """See `Provider.list_vms`; empty and incomplete until the provider is open."""
        if self.provider is not None:
            return await self.provider.list_vms()
        now_s = self._clock.now()
        why = f"the place cannot be used: {self.trouble} (it is tried again)"
        return Listing((), complete=False, requested_at_s=now_s, received_at_s=now_s, error=why)

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """See `Provider.start`."""
        return await self._opened().start(vm_ids)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """See `Provider.stop`."""
        return await self._opened().stop(vm_ids, force=force, hibernate=hibernate)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """See `Provider.retype`."""
        return await self._opened().retype(vm_ids, vm_type)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """See `Provider.provision`."""
        return await self._opened().provision(spec, count, token)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """See `Provider.terminate`."""
        return await self._opened().terminate(vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """See `Provider.tag`."""
        return await self._opened().tag(vm_ids, tags)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """See `Provider.checked`; empty until the provider is open."""
        return frozenset() if self.provider is None else await self.provider.checked(vm_ids)

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate | None:
        """See `TemplateReader.launch_spec`; `UnreadableTemplate` until the provider is open."""
        if self.provider is None:
            return UnreadableTemplate(f"the place cannot be used: {self.trouble}")
        return await self.provider.launch_spec(spec) if isinstance(self.provider, TemplateReader) else None

    async def close(self) -> None:
        """See `Provider.close`."""
        if self.provider is not None:
            await self.provider.close()

    def _opened(self) -> Provider:
        if self.provider is None:
            raise ProviderError(
                f"nothing was sent, since the place cannot be used: {self.trouble}", code=NOT_OPEN
            )
        return self.provider
