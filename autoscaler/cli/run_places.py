"""The daemon's places: opened at startup or retried until they can be, and watched for hints.

Rules of this file: of several places each fails alone; a daemon none of whose places can be used does not start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoscaler.daemon.loop import Daemon
    from autoscaler.daemon.opening import Opening
    from autoscaler.daemon.telemetry import Telemetry
    from autoscaler.ports import Clock, Provider
    from autoscaler.ports.hints import HintSource
    from autoscaler.providers.late import LateProvider
    from autoscaler.wiring_providers import Clouds

Body = Callable[[], Awaitable[object]]
"""Of a task beside the loop."""


class OpenPlaces:
    """The places that settings name.

    Args:
        clouds: Those.
        clock: Time.
        telemetry: Metrics and log.
        stack: Whatever is opened here is closed with it.
    """

    def __init__(self, clouds: Clouds, clock: Clock, telemetry: Telemetry, stack: AsyncExitStack) -> None:
        self._clouds = clouds
        self._clock = clock
        self._telemetry = telemetry
        self._stack = stack
        self._late: dict[str, LateProvider] = {}
        self._news: dict[str, HintSource | None] = {}

    async def open(self) -> dict[str, Provider]:
        """What the fleets are on, by name; those that cannot be used yet are stood in for.

        Raises:
            ConfigError: None of them can be used; says why of each.
        """
        import asyncio

        from autoscaler.daemon.closing import close
        from autoscaler.errors import ConfigError
        from autoscaler.providers.late import LateProvider
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
        """What runs beside the loop, by name: places are tried again, and the clouds' own news are heard."""
        from autoscaler.daemon.hinting import Hinting
        from autoscaler.daemon.opening import Opening

        found: dict[str, Body] = {}
        for name, late in self._late.items():
            daemon.telemetry.provider_usable.labels(name).set(not late.trouble)
            if late.trouble:
                opening = Opening(daemon, name, late)
                found[f"place {name}"] = opening.watch
                if self._clouds.by_name[name].tells:
                    found[f"hints {name}"] = partial(self._hear_later, name, opening, daemon)
            elif (source := await self._hints(name)) is not None:
                found[f"hints {name}".rstrip()] = Hinting(daemon, source).watch
        return found

    async def _hear_later(self, name: str, opening: Opening, daemon: Daemon) -> None:
        """Hear a cloud's own news once its place is open."""
        from autoscaler.daemon.hinting import Hinting

        await opening.opened()
        source = await self._hints(name)
        if source is not None:
            await Hinting(daemon, source).watch()

    async def _hints(self, name: str) -> HintSource | None:
        """The news of a cloud whose place is open; None where there are none."""
        from autoscaler.daemon.closing import close
        from autoscaler.wiring_providers import open_hints

        provider = self._late[name].provider
        if name not in self._news and provider is not None:
            source = self._news[name] = await open_hints(self._clouds.by_name[name], provider)
            if source is not None:
                self._stack.push_async_callback(close, source, self._telemetry)
        return self._news.get(name)
