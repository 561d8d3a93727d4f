"""An EC2 endpoint on loopback: the query protocol (2016-11-15) over HTTP, on one embedded world.

Rules: this module is HTTP and time; `ec2_actions` interprets calls, and `world` carries them out. It runs in a process
of its own (`python -m autoscaler.cloud.ec2_api`, started by `endpoint_process`). It reads one line of JSON with the
set-up from standard input and writes one line with its address. It ends on SIGTERM, on SIGINT, or when standard input
closes, so it cannot outlive its parent. A request must look signed; the signature is not checked. Routes under
/_world/ are not EC2's: they show and change the true state.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from aiohttp import web

from autoscaler.cloud.ec2_actions import Actions
from autoscaler.cloud.ec2_form import Form
from autoscaler.cloud.ec2_xml import error as error_xml
from autoscaler.cloud.ec2_xml import response as response_xml
from autoscaler.cloud.rules import status_of
from autoscaler.cloud.setup import CloudSetup
from autoscaler.cloud.world import World
from autoscaler.cloud.world_api import WorldApi
from autoscaler.errors import ConfigError, ProviderError
from autoscaler.ports import Clock

LOOPBACK = "127.0.0.1"
REQUEST_BYTES = 4 * 1024 * 1024


class Endpoint:
    """Serves one world over HTTP, at the time of one clock."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._actions = Actions(world)
        self._requests = 0

    def application(self) -> web.Application:
        """Build the web application."""
        application = web.Application(client_max_size=REQUEST_BYTES)
        application.router.add_route("*", "/", self._ec2)
        WorldApi(self._world, self._clock).add_routes(application.router)
        return application

    async def _ec2(self, request: web.Request) -> web.Response:
        body = await request.text() if request.method == "POST" else request.query_string
        self._requests += 1
        request_id = f"{self._requests:08x}-0000-4000-8000-{self._world.seed & 0xFFFFFFFFFFFF:012x}"
        now_s = self._clock.now()
        action, vm_ids = "", []
        try:
            _check_signed(request)
            form = Form.parse(body)
            action, vm_ids = form.text("Action"), form.one_or_more("InstanceId")
            if not action:
                raise ProviderError("The request must contain Action", code="MissingAction")  # noqa: TRY301
            payload = response_xml(action, request_id, self._actions.perform(now_s, action, form))
            status = 200
        except ProviderError as error:
            payload = error_xml(error.code, str(error), request_id)
            status = status_of(error.code)
        latency_s = self._world.latency_s(now_s, action, vm_ids)
        if latency_s:
            await self._clock.sleep_until(self._clock.monotonic() + latency_s)
        return web.Response(body=payload, status=status, content_type="text/xml", charset="UTF-8")


def _check_signed(request: web.Request) -> None:
    header = request.headers.get("Authorization", "")
    if not header and "X-Amz-Signature" not in request.query:
        raise ProviderError(
            "The request is not signed; any credentials will do here", code="MissingAuthenticationToken"
        )
    if header and not header.startswith("AWS4-HMAC-SHA256 "):
        raise ProviderError("Only signature version 4 is understood", code="AuthFailure")


async def serve(setup: CloudSetup) -> web.AppRunner:
    """Start the endpoint on the set-up's port. The caller must clean up the returned runner.

    Raises:
        OSError: The port is not available.
    """
    clock = setup.clock.clock()
    world = setup.world(clock.now())
    runner = web.AppRunner(Endpoint(world, clock).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, setup.port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def address(runner: web.AppRunner) -> str:
    """The URL at which a started runner listens."""
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _until_told(stdin: asyncio.StreamReader) -> None:
    """Return on SIGTERM or SIGINT, or when standard input closes."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)

    async def watch() -> None:
        while await stdin.read(4096):
            pass
        told.set()

    watching = asyncio.create_task(watch())
    await told.wait()
    watching.cancel()


async def _main() -> int:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    line = (await stdin.readline()).decode()
    try:
        setup = CloudSetup.load(line)
        runner = await serve(setup)
    except (ConfigError, ValueError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201 -- this line is the protocol
        return 1
    url = address(runner)
    print(json.dumps({"url": url}), flush=True)  # noqa: T201 -- likewise
    await _until_told(stdin)
    await runner.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
