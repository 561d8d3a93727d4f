"""The endpoint as a child process and as a command: it starts, reports its address, and never outlives its parent."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE

import aiohttp
import pytest

from autoscaler.clock import ScaledClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import ClockSetup, CloudSetup, FleetSetup
from autoscaler.errors import DaemonError

COMMAND = "import typer; from autoscaler.cli.cloud import cloud; typer.run(cloud)"
DEADLINE_S = 300


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_lives_as_long_as_its_context_and_shares_the_clock(open_client):
    clock = ScaledClock(2e9, 100)
    setup = CloudSetup(
        fleets=(FleetSetup("web", 3),),
        clock=ClockSetup(clock.speed, clock.origin_s, clock.origin_monotonic_s),
    )
    async with EndpointProcess(setup) as endpoint:
        pid = endpoint.pid
        assert alive(pid)
        async with aiohttp.ClientSession() as http, http.get(endpoint.url + "/_world/state") as reply:
            before_s = clock.now()
            state = await reply.json()
        assert state["counts"]["stopped"] == 3
        # The reply left the child a moment before; half a second of the machine is 50 s here.
        assert before_s - 50 < state["at_s"] <= clock.now()
        async with open_client(endpoint.url) as ec2:
            reply = await ec2.describe_instances()
            assert len(reply["Reservations"]) == 3
    assert not alive(pid)
    with pytest.raises(DaemonError, match="has not been started"):
        _ = endpoint.pid


async def test_a_child_ends_when_its_parent_dies():
    code = """
import asyncio, os, sys
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import CloudSetup

async def main():
    endpoint = await EndpointProcess(CloudSetup()).__aenter__()
    print(endpoint.pid, flush=True)
    os._exit(1)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    async with asyncio.timeout(DEADLINE_S):
        # The child holds the same output open; its end is seen when nothing holds it any more.
        pid = int(await parent.stdout.readline())
        assert await parent.wait() == 1
        pidfd = os.pidfd_open(pid) if alive(pid) else None
        if pidfd is not None:
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(pidfd, ended.set)
            try:
                await ended.wait()
            finally:
                asyncio.get_running_loop().remove_reader(pidfd)
                os.close(pidfd)


async def test_a_child_that_cannot_start_says_why(taken_port):
    with pytest.raises(DaemonError, match="address already in use"):
        await EndpointProcess(CloudSetup(port=taken_port)).__aenter__()
    with pytest.raises(DaemonError, match="has the zones"):
        await EndpointProcess(CloudSetup(fleets=(FleetSetup("web", 1, zones=("mars",)),))).__aenter__()


async def run_command(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, *arguments, stdout=PIPE, stderr=PIPE
    )


async def test_the_command_serves_until_interrupted_and_leaves_cleanly(open_client):
    process = await run_command("--port", "0", "--vms", "4", "--fleet", "shop", "--speed", "50", "--json")
    try:
        async with asyncio.timeout(DEADLINE_S):
            facts = json.loads(await process.stdout.readline())
            assert (facts["fleet"], facts["vms"], facts["speed"]) == ("shop", 4, 50)
            async with open_client(facts["url"]) as ec2:
                assert len((await ec2.describe_instances())["Reservations"]) == 4
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, out, err) == (0, b"", b"")


async def test_the_command_explains_how_to_use_it_and_the_example_names_its_address():
    process = await run_command("--port", "0")
    try:
        async with asyncio.timeout(DEADLINE_S):
            first = (await process.stdout.readline()).decode()
            process.send_signal(signal.SIGTERM)
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    url = first.split()[-1]
    assert process.returncode == 0
    assert f"aws --endpoint-url {url} ec2 describe-instances" in out.decode()
    assert f'endpoint_url="{url}"' in out.decode()


@pytest.mark.parametrize("wrong", ["port", "faults"])
async def test_the_command_fails_in_one_sentence(taken_port, tmp_path, wrong):
    path = tmp_path / "bad.yaml"
    path.write_text("- kind: throttel\n")
    arguments = {"port": ("--port", str(taken_port)), "faults": ("--port", "0", "--faults", str(path))}[wrong]
    process = await run_command(*arguments)
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    expected = {
        "port": f"port {taken_port} on 127.0.0.1 cannot be taken",
        "faults": f"{path}:1: unknown kind",
    }[wrong]
    assert expected in err.decode()
    assert err.count(b"\n") == 1
