"""Operators' commands over a Unix socket: JSON over HTTP, under /v1/.

    GET  /v1/operations          pauses and overrides in force
    POST /v1/pause               verbs, fleets or all_fleets, reason, and one of for_s, until_s, no_expiry
    POST /v1/resume              verbs, fleets or all_fleets, reason
    POST /v1/override            fleet, floor, ceiling, reason, and one of for_s, until_s, no_expiry
    POST /v1/clear               fleet, reason
    GET  /v1/pool                every VM, or with ?fleet=NAME those of one fleet
    POST /v1/pool/{what}         fleet, vms, reason; what is one of exercise, refresh, evict, quarantine, release, adopt,
                                 disown

Rules of this file: the kernel identifies the caller; what callers say about themselves does not count. Status 200 means that
the change is on disk. Requests are bounded in size, connections in time and number, so that no client of the socket can harm
the daemon. Errors are `{"error": sentence}`.
"""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from autoscaler.daemon.bounded import in_thread, within
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.operating.operators import ChangeAnswer, ChangeRequest
from autoscaler.daemon.waking import Cause
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.errors import ChangeRefusedError, JournalError, JournalLateError
from autoscaler.ports import ALL_FLEETS, PAUSABLE, Verb
from autoscaler.web.control_socket import BoundSocket, bind, user_id
from autoscaler.web.operations import change_json, operations

VERSION = 1
LARGEST_BODY = 64 * 1024
CONNECTION_S = 20.0
"""A connection is closed after this many seconds, even during a request. A command uses one connection."""
MOST_CONNECTIONS = 32
LOOK_EVERY_S = 30.0
_NAME_WITHIN_S = 2.0

_DAEMON = web.AppKey("daemon", Daemon)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


Name = Annotated[str, Field(min_length=1, max_length=200)]


def _may_be_paused(verb: Verb) -> Verb:
    if verb not in PAUSABLE:
        raise ValueError(f"{verb} cannot be paused; {', '.join(PAUSABLE)} can")
    return verb


_PausableVerb = Annotated[Verb, AfterValidator(_may_be_paused)]


class _Change(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    reason: str


class _Fleets(_Change):
    fleets: Annotated[list[Name], Field(max_length=2000)] = []
    all_fleets: bool = False
    verbs: Annotated[list[_PausableVerb], Field(min_length=1, max_length=len(PAUSABLE))]

    def names(self) -> tuple[str, ...]:
        if bool(self.fleets) == self.all_fleets:
            raise ChangeRefusedError("name fleets, or all of them with all_fleets, and not both")
        return (ALL_FLEETS,) if self.all_fleets else tuple(dict.fromkeys(self.fleets))


class _Term(_Change):
    for_s: float | None = None
    until_s: float | None = None
    no_expiry: bool = False

    def end_s(self, now_s: float) -> float | None:
        """Return when the change ends, epoch seconds of the daemon's clock; None if it has no end.

        Raises:
            ChangeRefusedError: Not exactly one of the three fields is given.
        """
        if (self.for_s is not None) + (self.until_s is not None) + self.no_expiry != 1:
            raise ChangeRefusedError("say until when it holds: one of for_s, until_s and no_expiry")
        return self.until_s if self.for_s is None else now_s + self.for_s


class _Pause(_Term, _Fleets):
    pass


class _Resume(_Fleets):
    pass


class _Override(_Term):
    fleet: Name
    floor: int | None = None
    ceiling: int | None = None


class _Clear(_Change):
    fleet: Name


class _OfPool(_Change):
    fleet: Name
    vms: Annotated[list[Name], Field(max_length=2000)] = []


_Body = TypeVar("_Body", bound=BaseModel)


class Control:
    """Serves operators' commands on a Unix socket while its context is open.

    Args:
        daemon: The daemon to operate.
        path: Path of the socket.
        group: Group that may use it besides the daemon's own user; empty for the daemon's own group.
        connection_s: Longest life of a connection, in seconds of the event loop.
    """

    def __init__(
        self, daemon: Daemon, path: Path, group: str = "", *, connection_s: float = CONNECTION_S
    ) -> None:
        self.path = path
        self._daemon = daemon
        self._group = group
        self._connection_s = connection_s
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_errors_as_json])
        app[_DAEMON] = daemon
        app.add_routes(
            [
                web.get("/v1/operations", _operations),
                web.post("/v1/pause", _pause),
                web.post("/v1/resume", _resume),
                web.post("/v1/override", _override),
                web.post("/v1/clear", _clear),
                *_pool_routes(daemon),
            ]
        )
        # aiohttp would log a traceback for every malformed line that a client sends.
        quiet = logging.Logger("control")  # noqa: LOG001  must stand outside the hierarchy of loggers
        quiet.addHandler(logging.NullHandler())
        self._runner = web.AppRunner(
            app, access_log=None, logger=quiet, shutdown_timeout=2.0, auto_decompress=False
        )
        self._bound: BoundSocket | None = None
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Start to listen.

        Raises:
            DaemonError: The socket cannot be made, or another daemon listens on it.
        """
        await self._runner.setup()
        try:
            await self._listen()
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def watch(self) -> None:
        """Check repeatedly that the socket file is in place, and make it again if it was removed or replaced.

        While its folder is missing, nothing can be done; that is logged once.
        """
        clock, log, waits = self._daemon.clock, self._daemon.telemetry.log, False
        while True:
            await clock.sleep_until(clock.monotonic() + LOOK_EVERY_S)
            waited, waits = waits, not self.path.absolute().parent.is_dir()
            if waits and not waited:
                text = f"the control socket {self.path} is gone with its folder; it is made again once that is there"
                log.error("site_silent", text=text)
            elif not waits and (self._bound is None or not self._bound.is_in_place):
                text = f"the control socket {self.path} was removed or replaced; it is being made again"
                log.error("site_silent", text=text)
                self._stop_listening()
                await self._listen()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; requests in progress are answered."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()
        self._stop_listening()

    async def _listen(self) -> None:
        bound = bind(self.path.absolute(), self._group)
        try:
            loop = asyncio.get_running_loop()
            self._listening = await loop.create_unix_server(self._connected, sock=bound.socket)
        except BaseException:
            bound.remove()
            raise
        self._bound = bound

    def _stop_listening(self) -> None:
        """Stop listening; requests in progress are still answered."""
        if self._listening is not None:
            self._listening.close()
        if self._bound is not None:
            self._bound.remove()
        self._listening = self._bound = None

    def _connected(self) -> asyncio.Protocol:
        serving = self._runner.server
        assert serving is not None
        loop = asyncio.get_running_loop()
        protocol = serving()
        crowded = len(serving.connections) >= MOST_CONNECTIONS
        loop.call_later(0.0 if crowded else self._connection_s, protocol.force_close)
        return protocol


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────


async def _operations(request: web.Request) -> web.Response:
    daemon = request.app[_DAEMON]
    return web.json_response(
        {"version": VERSION, "at_s": daemon.clock.now(), "tick_s": daemon.settings.tick_s}
        | operations(daemon)
    )


async def _pause(request: web.Request) -> web.Response:
    daemon, body = request.app[_DAEMON], await _read(request, _Pause)
    asked = ChangeRequest(body.names(), await _user_of(request), body.reason, body.end_s(daemon.clock.now()))
    return _answered(daemon, await daemon.operators.pause(asked, _in_order(body.verbs)))


async def _resume(request: web.Request) -> web.Response:
    daemon, body = request.app[_DAEMON], await _read(request, _Resume)
    asked = ChangeRequest(body.names(), await _user_of(request), body.reason)
    return _answered(daemon, await daemon.operators.resume(asked, _in_order(body.verbs)))


async def _override(request: web.Request) -> web.Response:
    daemon, body = request.app[_DAEMON], await _read(request, _Override)
    asked = ChangeRequest((body.fleet,), await _user_of(request), body.reason, body.end_s(daemon.clock.now()))
    return _answered(daemon, await daemon.operators.override(asked, body.floor, body.ceiling))


async def _clear(request: web.Request) -> web.Response:
    daemon, body = request.app[_DAEMON], await _read(request, _Clear)
    asked = ChangeRequest((body.fleet,), await _user_of(request), body.reason)
    return _answered(daemon, await daemon.operators.clear(asked))


def _pool_routes(daemon: Daemon) -> list[web.RouteDef]:
    pool = PoolCommands(daemon)

    async def shown(request: web.Request) -> web.Response:
        vms = pool.shown(request.query.get("fleet"))
        return web.json_response({"version": VERSION, "at_s": daemon.clock.now(), "vms": vms})

    async def changed(request: web.Request) -> web.Response:
        change = pool.by_name.get(request.match_info["what"])
        if change is None:
            raise web.HTTPNotFound
        body = await _read(request, _OfPool)
        vms = tuple(dict.fromkeys(body.vms))
        sentence = await change(PoolCommand(body.fleet, vms, await _user_of(request), body.reason))
        return web.json_response({"version": VERSION, "sentences": [sentence]})

    return [web.get("/v1/pool", shown), web.post("/v1/pool/{what}", changed)]


def _in_order(verbs: list[Verb]) -> list[Verb]:
    return [verb for verb in PAUSABLE if verb in verbs]


async def _read(request: web.Request, model: type[_Body]) -> _Body:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_input=False)[:5]
        )
        raise web.HTTPBadRequest(
            reason="Bad Request", text=f"the request is not one of this API: {said}"
        ) from None


def _answered(daemon: Daemon, answer: ChangeAnswer) -> web.Response:
    fleets = {record.change.fleet for record in answer.changes}
    if fleets:
        # The change is recorded and in force, so an early turn acts on it.
        daemon.waking.ask(None if ALL_FLEETS in fleets else fleets, Cause.OPERATOR)
    return web.json_response(
        {
            "version": VERSION,
            "sentences": list(answer.sentences),
            "changes": [change_json(daemon, record) for record in answer.changes],
            "in_force": operations(daemon)["in_force"],
        }
    )


async def _user_of(request: web.Request) -> str:
    """Return the name of the user at the other end, or the number if the name cannot be found in time."""
    assert request.transport is not None
    user = user_id(request.transport.get_extra_info("socket"))
    try:
        # The lookup may ask a directory service on the network.
        name = in_thread(lambda: pwd.getpwuid(user).pw_name, "user")
        return await within(lambda: asyncio.wrap_future(name), _NAME_WITHIN_S)
    except (KeyError, OSError):
        return f"uid {user}"


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ChangeRefusedError as error:
        return _failed(409, str(error))
    except JournalLateError as error:
        late = (
            "it is not in force; should the disk still take it, it will be, and `autoscaler operations` tells"
        )
        return _failed(503, f"the change could not be recorded in time: {error}; {late}")
    except JournalError as error:
        return _failed(503, f"the change could not be recorded, so it is not in force: {error}")
    except web.HTTPBadRequest as error:
        return _failed(400, error.text or error.reason)
    except web.HTTPException as error:
        return _failed(
            error.status,
            f"{request.method} {request.path} is not in version {VERSION} of this API: {error.reason}",
        )
    except Exception as error:  # noqa: BLE001  the operator must hear of it, and the daemon goes on
        text = f"unexpected {type(error).__name__}: {error}; please report"
        request.app[_DAEMON].telemetry.log.error("operator", kind="failed", text=text, exc_info=error)
        return _failed(500, text)


def _failed(status: int, text: str) -> web.Response:
    return web.json_response({"version": VERSION, "error": text}, status=status)
