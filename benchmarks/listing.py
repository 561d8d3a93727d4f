"""Listing 20,000 VMs through the EC2 endpoint: how long it takes and how long the event loop is held.

The peer is aiobotocore used plainly in the loop's own process, on the same endpoint in the same run. Both are
measured after `gc.freeze()`, which a program with deadlines calls once it is set up (`Ec2Provider.open`).
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable

from aiobotocore.session import get_session

from autoscaler.clock import SystemClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.ports import FLEET_TAG
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from benchmarks.calibration import Result

VMS = 20_000
ROUNDS = 3
TICK_S = 0.001
KEY = "embedded"


def run() -> list[Result]:
    return asyncio.run(_run())


async def _run() -> list[Result]:
    setup = CloudSetup(
        fleets=(FleetSetup("web", VMS, tags={"team": "shop", "env": "prod"}),), api_limits=False
    )
    async with EndpointProcess(setup) as endpoint:
        settings = Ec2Settings(setup.region, endpoint.url, access_key_id=KEY, secret_access_key=KEY)
        async with await Ec2Provider.open(settings, SystemClock()) as provider:
            gc.collect()
            gc.freeze()
            await _ours(provider)  # starts the listing process and finds out that there are many
            ours = [await _timed(_ours(provider)) for _ in range(ROUNDS)]
        plain = await _timed(_plain(endpoint.url, setup.region))
    seconds, stall = (max(each[at] for each in ours) for at in (0, 1))
    return [
        Result("list 20,000 VMs", seconds, "s", f"slowest of {ROUNDS}"),
        Result("worst loop stall meanwhile", stall * 1e3, "ms", f"worst of {ROUNDS} listings"),
        Result("list 20,000 VMs, plain aiobotocore in the loop", plain[0], "s", "the peer, once"),
        Result("worst loop stall meanwhile, plain", plain[1] * 1e3, "ms", "the peer, once"),
        Result("time of plain / ours", plain[0] / seconds, "x", "more is better"),
        Result("stall of plain / ours", plain[1] / stall, "x", "more is better"),
    ]


async def _ours(provider: Ec2Provider) -> None:
    listing = await provider.list_vms()
    assert listing.complete, listing.error
    assert len(listing.vms) == VMS


async def _plain(url: str, region: str) -> None:
    async with get_session().create_client(
        "ec2", region_name=region, endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=KEY
    ) as client:
        pages = client.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "tag-key", "Values": [FLEET_TAG]}], PaginationConfig={"PageSize": 1000}
        )
        found = [each["Instances"] async for page in pages for each in page["Reservations"]]
    assert sum(map(len, found)) == VMS


async def _timed(work: Awaitable[None]) -> tuple[float, float]:
    """Seconds that the work took, and the longest that a task waking every millisecond was late."""
    stalls = [0.0]
    ticker = asyncio.create_task(_tick(stalls))
    began = time.perf_counter()
    await work
    seconds = time.perf_counter() - began
    ticker.cancel()
    return seconds, max(stalls)


async def _tick(stalls: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        stalls.append(time.perf_counter() - before - TICK_S)
