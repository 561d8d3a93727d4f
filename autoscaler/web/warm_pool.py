"""Commands for the warm pool on the operators' socket.

    GET  /v1/pool                              every VM, or with ?fleet=NAME those of one fleet
    POST /v1/pool/{what}                       fleet, vms, reason; what is one of exercise, refresh, evict, quarantine,
                                               release, adopt, disown

The rules of `control`, which serves these commands, apply here too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands

MOST_VMS = 2000
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Word(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    fleet: Name
    vms: Annotated[list[Name], Field(max_length=MOST_VMS)] = []
    reason: str


def routes(daemon: Daemon, version: int, who: Callable[[web.Request], Awaitable[str]]) -> list[web.RouteDef]:
    """Return the routes that `control` adds to its own.

    Args:
        daemon: The daemon whose pools they are for.
        version: Version of the API, which answers contain.
        who: Returns the user at the other end of a request.
    """
    words = PoolCommands(daemon)

    async def shown(request: web.Request) -> web.Response:
        fleet = request.query.get("fleet")
        return web.json_response({"version": version, "at_s": daemon.clock.now(), "vms": words.shown(fleet)})

    async def changed(request: web.Request) -> web.Response:
        what = request.match_info["what"]
        change = words.by_name.get(what)
        if change is None:
            raise web.HTTPNotFound
        try:
            body = _Word.model_validate_json(await request.read())
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, found["loc"])) or "body"
            raise web.HTTPBadRequest(
                reason="Bad Request", text=f"the request is not one of this API: {place}: {in_words(found)}"
            ) from None
        vms = tuple(dict.fromkeys(body.vms))
        sentence = await change(PoolCommand(body.fleet, vms, await who(request), body.reason))
        return web.json_response({"version": version, "sentences": [sentence]})

    return [web.get("/v1/pool", shown), web.post("/v1/pool/{what}", changed)]


def in_words(found: ErrorDetails) -> str:
    """Return what is wrong with a field of a request, without pydantic's prefix."""
    return found["msg"].removeprefix("Value error, ")
