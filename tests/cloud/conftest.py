"""An endpoint in this process, on a world whose time the test sets, and an SDK client that uses it."""

from contextlib import asynccontextmanager

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import web

from autoscaler.cloud.ec2_api import Endpoint
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import CloudSetup, FleetSetup

EXACT = Physics(
    start=Spread(16),
    boot=Spread(3),
    launch=Spread(18),
    first_boot=Spread(7),
    stop=Spread(25),
    shut_down=Spread(20),
)


class SetClock:
    """A Clock that shows the time to which it was last set. Sleeping sets it."""

    def __init__(self):
        self.time_s = 0.0

    def now(self):
        return self.time_s

    def monotonic(self):
        return self.time_s

    async def sleep_until(self, monotonic_s):
        self.time_s = max(self.time_s, monotonic_s)


class Served:
    """A world, the clock that drives it, and the URL of its endpoint."""

    def __init__(self, world, clock, url):
        self.world, self.clock, self.url = world, clock, url

    def at(self, now_s):
        self.clock.time_s = now_s


@pytest.fixture(name="session", scope="session")
def _session():
    """One session for all tests, since loading EC2's model takes a quarter of a second."""
    return get_session()


@asynccontextmanager
async def client(session, url):
    config = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    async with session.create_client("ec2", endpoint_url=url, config=config, **keys) as opened:
        yield opened


@pytest.fixture(name="open_client")
def _open_client(session):
    return lambda url: client(session, url)


@pytest.fixture(name="serve")
async def _serve():
    """Serve a set-up at a time that the test sets."""
    runners = []

    async def serve(**settings):
        settings = {"fleets": (FleetSetup("web", 6),), "physics": EXACT, **settings}
        clock = SetClock()
        world = CloudSetup(**settings).world(0)
        runner = web.AppRunner(Endpoint(world, clock).application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        return Served(world, clock, f"http://{host}:{port}")

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(name="served")
async def _served(serve):
    return await serve()


@pytest.fixture(name="ec2")
async def _ec2(served, open_client):
    async with open_client(served.url) as opened:
        yield opened
