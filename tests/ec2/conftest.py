"""A scripted EC2, which answers each operation as the test prescribes and records the requests."""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from urllib.parse import parse_qsl

import pytest
import pytest_asyncio
from aiohttp import web

from autoscaler.clock import SystemClock
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings

NS = 'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'

DROP = "drop the connection after reading the request"
HANG = "never answer"


def vm_id(number):
    return f"i-{number:017x}"


def record(number, state="stopped", extra=""):
    return f"""<item><reservationId>r-{number:017x}</reservationId><ownerId>123456789012</ownerId><groupSet/>
<instancesSet><item><instanceId>{vm_id(number)}</instanceId><imageId>ami-0123456789abcdef0</imageId>
<instanceState><code>80</code><name>{state}</name></instanceState><instanceType>m7i.large</instanceType>
<launchTime>2026-11-24T10:00:00.000Z</launchTime><placement><availabilityZone>eu-central-1a</availabilityZone>
<tenancy>default</tenancy></placement><privateIpAddress>10.0.0.{number % 250}</privateIpAddress>{extra}
<tagSet><item><key>autoscaler:fleet</key><value>web</value></item><item><key>Name</key><value>web {number}</value>
</item></tagSet></item></instancesSet></item>"""


def page(numbers, next_token=None, **kwargs):
    token = f"<nextToken>{next_token}</nextToken>" if next_token else ""
    records = "".join(record(number, **kwargs) for number in numbers)
    return reply("DescribeInstances", f"<reservationSet>{records}</reservationSet>{token}")


def reply(operation, inner=""):
    return 200, f"<{operation}Response {NS}><requestId>req-1</requestId>{inner}</{operation}Response>"


def changed(operation, name, ids, previous="stopped", current="pending"):
    items = "".join(
        f"<item><instanceId>{each}</instanceId><currentState><code>0</code><name>{current}</name></currentState>"
        f"<previousState><code>80</code><name>{previous}</name></previousState></item>"
        for each in ids
    )
    return reply(operation, f"<{name}>{items}</{name}>")


def error(status, code, message="no words"):
    body = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
    return status, f"{body}<RequestID>req-1</RequestID></Response>"


class ScriptedEc2:
    """Answers from `script[operation]` in order; the last answer repeats."""

    def __init__(self):
        self.url = ""
        self._ends = asyncio.Event()
        self.reset()

    def reset(self):
        self.release()
        self.script = {}
        self.requests = defaultdict(list)
        self.hanging = asyncio.Event()
        self._ends = asyncio.Event()

    def parameters(self, operation):
        return self.requests[operation][-1]

    def release(self):
        self._ends.set()

    async def handle(self, request):
        parameters = dict(parse_qsl(await request.text(), keep_blank_values=True))
        operation = parameters["Action"]
        answers = self.script[operation]
        answer = answers[min(len(self.requests[operation]), len(answers) - 1)]
        self.requests[operation].append(parameters)
        if callable(answer):
            answer = answer(parameters)
        if answer is DROP:
            request.transport.abort()
            return web.Response()
        if answer is HANG:
            self.hanging.set()
            await self._ends.wait()
            return web.Response()
        status, body = answer
        kind = "text/html" if "<html" in body else "text/xml"
        return web.Response(status=status, text=body, content_type=kind)


@pytest_asyncio.fixture(name="_scripted", scope="module", loop_scope="module")
async def _scripted_ec2():
    scripted = ScriptedEc2()
    app = web.Application()
    app.router.add_post("/", scripted.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    scripted.url = f"http://{host}:{port}"
    yield scripted
    scripted.release()
    await runner.cleanup()


@pytest.fixture(name="ec2")
def _ec2(_scripted):
    _scripted.reset()
    return _scripted


async def opened(url, **settings):
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
    made = Ec2Settings(region="eu-central-1", endpoint_url=url, **keys, **settings)
    return await Ec2Provider.open(made, SystemClock())


@pytest_asyncio.fixture(name="provider", scope="module", loop_scope="module")
async def _provider(_scripted):
    """One provider for all tests of a module, because opening one takes a third of a second."""
    async with await opened(_scripted.url) as provider:
        yield provider


@pytest_asyncio.fixture(name="open_provider", loop_scope="module")
async def _open_provider():
    """Open a new provider, for tests that need their own settings or state."""
    async with AsyncExitStack() as stack:

        async def open_provider(url, **settings):
            return await stack.enter_async_context(await opened(url, **settings))

        yield open_provider


@pytest.fixture(name="say")
def _say():
    """The functions that build replies, since test files do not import each other."""

    class Say:
        DROP, HANG = DROP, HANG
        vm_id = staticmethod(vm_id)
        record = staticmethod(record)
        page = staticmethod(page)
        reply = staticmethod(reply)
        changed = staticmethod(changed)
        error = staticmethod(error)

    return Say
