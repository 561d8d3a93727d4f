"""The endpoint's routes beyond EC2: the world's true state as JSON, and controls to change it.

Rules: for demonstrations, scores and tests; a daemon must not use them to decide. They bypass the API budget and the
faults. Errors are JSON with one sentence and status 400.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from autoscaler.cloud.setup import FleetSetup, parse_fault, place_fleet
from autoscaler.cloud.world import World
from autoscaler.errors import AutoscalerError, ConfigError
from autoscaler.ports import Clock


class WorldApi:
    """The routes under /_world/ of one world."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add all routes to a router."""
        router.add_get("/_world/bill", self._bill)
        router.add_get("/_world/state", self._state)
        router.add_get("/_world/calls", self._calls)
        router.add_post("/_world/provision", _told(self._provision))
        router.add_post("/_world/faults", _told(self._add_faults))

    async def _bill(self, _: web.Request) -> web.Response:
        now_s = self._clock.now()
        world = self._world
        total = asdict(world.bill(now_s))
        fleets = {fleet: asdict(bill) for fleet, bill in world.bills(now_s).items()}
        return web.json_response({"at_s": world.now_s, "total": total, "fleets": fleets})

    async def _state(self, request: web.Request) -> web.Response:
        now_s = self._clock.now()
        world = self._world
        fleet = request.query.get("fleet")
        serving = world.serving(now_s, fleet)
        return web.json_response(
            {
                "at_s": world.now_s,
                "start_s": world.start_s,
                "fleet": fleet,
                "fleets": world.fleets(),
                "counts": world.counts(now_s, fleet),
                "serving": serving,
                "subnets": world.places.subnets,
            }
        )

    async def _calls(self, _: web.Request) -> web.Response:
        api = self._world.api
        self._world.advance(self._clock.now())
        accepted = {action: count for (action, code), count in sorted(api.call_counts.items()) if not code}
        refused: dict[str, dict[str, int]] = {}
        for (action, code), count in sorted(api.call_counts.items()):
            if code:
                refused.setdefault(action, {})[code] = count
        return web.json_response(
            {
                "at_s": self._world.now_s,
                "accepted": accepted,
                "refused": refused,
                "vms": dict(sorted(api.vm_counts.items())),
                "latest": [asdict(call) for call in list(api.calls)[-100:]],
            }
        )

    def _provision(self, body: Any) -> dict[str, object]:
        if not isinstance(body, Mapping):
            raise ConfigError("the body must be an object like {'fleet': 'web', 'count': 10}")
        row = {("vms" if key == "count" else key): value for key, value in body.items()}
        unknown = sorted(set(row) - {one.name for one in fields(FleetSetup)})
        if unknown:
            raise ConfigError(f"unknown key {unknown[0]!r}")
        fleet = TypeAdapter(FleetSetup).validate_python(row)
        return {"ids": place_fleet(self._world, self._clock.now(), fleet)}

    def _add_faults(self, body: Any) -> dict[str, object]:
        rows = body if isinstance(body, list) else [body]
        faults = [parse_fault(row, f"fault {number}") for number, row in enumerate(rows, 1)]
        self._world.advance(self._clock.now())
        for fault in faults:
            self._world.add_fault(fault)
        return {"added": len(faults), "faults": len(self._world.faults)}


def _told(
    change: Callable[[Any], dict[str, object]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make a handler that reads JSON, makes the change, and answers with JSON in any case."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return web.json_response(change(await request.json()))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
            return web.json_response({"error": problems}, status=400)
        except (AutoscalerError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle
