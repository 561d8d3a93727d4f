"""The daemon's places: opened at startup or retried until they can be, and watched for hints.

Rules of this file: a place that cannot be opened does not affect the others. If no place can be used, the daemon does not start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoscaler.daemon.loop import Daemon
    from autoscaler.daemon.place_retries import PlaceOpener
    from autoscaler.daemon.telemetry import Telemetry
    from autoscaler.ports import Clock, Provider
    from autoscaler.ports.hints import HintSource
    from autoscaler.providers.pending_place import LateProvider
    from autoscaler.wiring_providers import Clouds

Body = Callable[[], Awaitable[object]]
"""A coroutine function to run beside the loop."""


class OpenPlaces:
    """Opens the places of the settings and keeps retrying those that cannot be opened at startup.

    Args:
        clouds: The places of the settings, by name.
        clock: Time.
        telemetry: Metrics and log.
        stack: Closes everything opened here when it ends.
    """

    def __init__(self, clouds: Clouds, clock: Clock, telemetry: Telemetry, stack: AsyncExitStack) -> None:
        self._clouds = clouds
        self._clock = clock
        self._telemetry = telemetry
        self._stack = stack
        self._late: dict[str, LateProvider] = {}
        self._news: dict[str, HintSource | None] = {}

    async def open(self) -> dict[str, Provider]:
        """Return the provider of each place by name; a stand-in for a place that cannot be opened yet.

        Raises:
            ConfigError: No place can be opened; the message has the reason for each.
        """
        import asyncio

        from autoscaler.daemon.closing import close
        from autoscaler.errors import ConfigError
        from autoscaler.providers.pending_place import LateProvider
        from autoscaler.wiring_providers import budgeted, open_provider

        clouds = self._clouds.by_name
        self._late = {
            name: LateProvider(partial(open_provider, cloud, self._clock), self._clock)
            for name, cloud in clouds.items()
        }
        for late in self._late.values():
            self._stack.push_async_callback(close, late, self._telemetry)
        opened = await asyncio.gather(*(late.open() for late in self._late.values()))
        if not any(opened):
            if "" in clouds:
                raise ConfigError(self._late[""].trouble)
            told = "; ".join(f"[providers.{name}]: {late.trouble}" for name, late in self._late.items())
            raise ConfigError(f"none of the places in the settings can be used: {told}")
        return {
            name: budgeted(cloud, self._late[name].provider or self._late[name], self._clock)
            for name, cloud in clouds.items()
        }

    async def beside(self, daemon: Daemon) -> dict[str, Body]:
        """Return the tasks that run beside the loop, by name: reopening places, and listening for hints from the clouds."""
        from autoscaler.daemon.hint_intake import HintReader
        from autoscaler.daemon.place_retries import PlaceOpener

        found: dict[str, Body] = {}
        for name, late in self._late.items():
            daemon.telemetry.provider_usable.labels(name).set(not late.trouble)
            if late.trouble:
                opening = PlaceOpener(daemon, name, late)
                found[f"place {name}"] = opening.watch
                if self._clouds.by_name[name].may_give_hints:
                    found[f"hints {name}"] = partial(self._hear_later, name, opening, daemon)
            elif (source := await self._hints(name)) is not None:
                found[f"hints {name}".rstrip()] = HintReader(daemon, source).watch
        return found

    async def _hear_later(self, name: str, opening: PlaceOpener, daemon: Daemon) -> None:
        """Wait until a place is open, then listen for its hints."""
        from autoscaler.daemon.hint_intake import HintReader

        await opening.opened()
        source = await self._hints(name)
        if source is not None:
            await HintReader(daemon, source).watch()

    async def _hints(self, name: str) -> HintSource | None:
        """Return the source of hints of a place; None if the place is not open or gives no hints."""
        from autoscaler.daemon.closing import close
        from autoscaler.wiring_providers import open_hints

        provider = self._late[name].provider
        if name not in self._news and provider is not None:
            source = self._news[name] = await open_hints(self._clouds.by_name[name], provider)
            if source is not None:
                self._stack.push_async_callback(close, source, self._telemetry)
        return self._news.get(name)
