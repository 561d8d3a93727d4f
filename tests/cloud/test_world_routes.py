"""The routes that show and change the true state."""

import aiohttp
import pytest

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.setup import FleetSetup


@pytest.fixture(name="route")
async def _route(serve):
    served = await serve(
        fleets=(FleetSetup("web", 2), FleetSetup("api", 1, state="running")),
        prices=Prices(running_per_h=3600),
    )
    async with aiohttp.ClientSession() as http:

        async def call(path, body=None):
            request = http.get(served.url + path) if body is None else http.post(served.url + path, json=body)
            async with request as reply:
                return reply.status, await reply.json()

        call.served = served
        yield call


def bill_of(**parts):
    return {**parts, "memory_s": 0, "held_s": 0}


async def test_the_bill(route):
    route.served.at(100)
    _, bill = await route("/_world/bill")
    assert bill["at_s"] == 100
    assert bill["fleets"]["api"] == bill_of(running_s=100, storage_s=100, starts=1, money=100)
    assert bill["fleets"]["web"] == bill_of(running_s=0, storage_s=200, starts=0, money=0)
    assert bill["total"] == bill_of(running_s=100, storage_s=300, starts=1, money=100)


async def test_the_state_of_all_and_of_one_fleet(route):
    _, everything = await route("/_world/state")
    assert everything["counts"]["stopped"] == 2
    assert everything["counts"]["running"] == 1
    assert everything["fleets"] == ["api", "web"]
    assert sorted(everything["subnets"].values()) == ["us-east-1a", "us-east-1b", "us-east-1c"]
    _, web = await route("/_world/state?fleet=web")
    assert (web["serving"], web["counts"]["running"]) == ([], 0)
    _, api = await route("/_world/state?fleet=api")
    assert api["serving"] == [view.id for view in route.served.world.views(0, "api")]


async def test_provisioning_and_the_calls_that_were_accepted(route):
    status, made = await route("/_world/provision", {"fleet": "new", "count": 3, "tags": {"a": "b"}})
    assert status == 200
    world = route.served.world
    assert [view.id for view in world.views(0, "new")] == made["ids"]
    assert world.views(0, "new")[0].tags["a"] == "b"
    world.start(0, made["ids"])
    _, calls = await route("/_world/calls")
    assert calls["accepted"] == {"StartInstances": 1}
    assert calls["vms"] == {"StartInstances": 3}
    assert calls["refused"] == {}
    await route("/_world/faults", [{"kind": "throttle", "actions": ["StopInstances"]}])
    async with aiohttp.ClientSession(headers={"Authorization": "AWS4-HMAC-SHA256 x"}) as http:
        body = {"Action": "StopInstances", "InstanceId.1": made["ids"][0]}
        async with http.post(route.served.url, data=body) as reply:
            assert reply.status == 503
    _, calls = await route("/_world/calls")
    assert calls["refused"] == {"StopInstances": {"RequestLimitExceeded": 1}}
    assert [call["action"] for call in calls["latest"]] == ["StartInstances", "StopInstances"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/_world/provision", [1], "the body must be an object"),
        ("/_world/provision", {"count": 3}, "fleet"),
        ("/_world/provision", {"fleet": "web", "count": 1, "colour": "red"}, "unknown key 'colour'"),
        ("/_world/provision", {"fleet": "web", "count": "many"}, "vms"),
        ("/_world/provision", {"fleet": "web", "count": 1, "zones": ["mars"]}, "has the zones"),
        ("/_world/faults", [{"kind": "throttle"}, {"kind": "latency"}], "fault 2: latency needs delay_s"),
        ("/_world/faults", {"kind": "throttle", "actoins": []}, "did you mean 'actions'"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(route, path, body, message):
    status, answer = await route(path, body)
    assert status == 400
    assert message in answer["error"]
    assert route.served.world.faults == ()
