"""The clouds on which the provider contract is tested, each with what it cannot show and why.

`memory` is the world without HTTP; `several` is the same with everything that a daemon with several providers puts in
front of it; `endpoint` is such a world behind the EC2 protocol, in its own process; `moto` is another project's EC2;
`libvirt` is libvirt's own test driver, a host without guests. Each lives for one module and one event loop. Tests use
separate fleets to stay independent of each other.
"""

import itertools
import platform
from contextlib import AsyncExitStack
from typing import ClassVar

import aiohttp
import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from autoscaler.clock import ScaledClock, SystemClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import (
    CapacitySetup,
    ClockSetup,
    CloudSetup,
    FleetSetup,
    parse_fault,
    place_fleet,
)
from autoscaler.cloud.vms import State
from autoscaler.ports import FLEET_TAG
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.libvirt.provider import LibvirtProvider
from autoscaler.providers.memory import MemoryProvider
from autoscaler.wiring import Wiring
from tests.daemon.builders import policy
from tests.libvirt.driver import DriverHost

REGION = "us-east-1"
KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
SPEED = 200.0
ORIGIN_S = 1_795_514_400.0
POLLS = 2000
MOTO_IMAGE = "ami-12c6146b"  # one of those that it knows from the start


class Cloud:
    """A provider, and the means to prepare the cloud behind it.

    `lacks` maps each ability that this cloud does not have to the reason.
    """

    lacks: ClassVar[dict[str, str]] = {}
    vm_type, other_type, bigger_type = "m7i.large", "m6i.large", "m7i.xlarge"
    scarce_type, room = "x2iedn.large", 3
    """A type for which there is little room in the whole region: for how many VMs, all in one zone."""
    several = 3
    """How many VMs one call makes."""
    zone, image = "us-east-1", "ami-"
    """Prefixes of the names of its zones and images."""
    absent, malformed = "i-0fedcba9876543210", "i-not-an-id"
    # One counter for all modules, because moto's data belongs to the process and outlives each of its servers.
    _fleets: ClassVar = itertools.count(1)

    def __init__(self):
        self.clock = ScaledClock(ORIGIN_S, SPEED)
        self.provider = None
        self.stack = AsyncExitStack()

    def new_fleet(self):
        return f"fleet-{next(self._fleets)}"

    def needs(self, *abilities):
        for ability in abilities:
            if ability in self.lacks:
                pytest.skip(f"{type(self).__name__}: {self.lacks[ability]}")

    async def vms(self):
        listing = await self.provider.list_vms()
        assert listing.complete, listing.error
        return {vm.id: vm for vm in listing.vms}

    async def states(self, ids):
        vms = await self.vms()
        return [vms[each].state if each in vms else None for each in ids]

    async def until(self, reached):
        """Poll until an awaitable condition holds, with a few seconds of the cloud's time between polls."""
        for _ in range(POLLS):
            if await reached():
                return
            await self.clock.sleep_until(self.clock.monotonic() + 5)
        pytest.fail(f"not reached after {POLLS} polls")

    async def until_all(self, ids, state):
        async def reached():
            return await self.states(ids) == [state] * len(ids)

        await self.until(reached)

    async def close(self):
        await self.stack.aclose()

    @property
    def _setup(self):
        clock = ClockSetup(SPEED, ORIGIN_S, self.clock.origin_monotonic_s)
        room = {"a": self.room, "b": 0, "c": 0}
        scarce = tuple(CapacitySetup(self.scarce_type, f"{REGION}{zone}", vms) for zone, vms in room.items())
        return CloudSetup(region=REGION, clock=clock, api_limits=False, capacity=scarce)


class Memory(Cloud):
    async def open(self):
        self.world = self._setup.world(self.clock.now())
        self.provider = MemoryProvider(self.world, self.clock)

    async def seed(self, fleet, count, state="stopped", tags=None, **more):
        setup = FleetSetup(fleet, count, State(state), tags=tags or {}, **more)
        return place_fleet(self.world, self.clock.now(), setup)

    async def fault(self, kind, **fields):
        self.world.add_fault(parse_fault({"kind": kind, **fields}, "fault"))

    async def age_s(self):
        return self.clock.now() - self.world.start_s


class Several(Memory):
    """The provider as a fleet has it in a daemon with two providers, the other of which does not answer."""

    async def open(self):
        await super().open()
        settings = Ec2Settings(REGION, "http://127.0.0.1:9", **KEYS)
        away = await self.stack.enter_async_context(await Ec2Provider.open(settings, self.clock))
        near = BudgetedProvider(self.provider, CallBudget(self.clock), self.clock)
        wiring = Wiring({"near": near, "away": away}, self.clock, lambda _: None)
        fleets = wiring.wire([policy("one", provider="near"), policy("two", provider="away")]).setups
        self.provider = fleets[0].provider
        assert not (await fleets[1].provider.list_vms()).complete


class Endpoint(Cloud):
    async def open(self):
        process = await self.stack.enter_async_context(EndpointProcess(self._setup))
        self.http = await self.stack.enter_async_context(aiohttp.ClientSession(process.url))
        settings = Ec2Settings(REGION, process.url, **KEYS)
        self.provider = await self.stack.enter_async_context(await Ec2Provider.open(settings, self.clock))

    async def _post(self, path, body):
        async with self.http.post(path, json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    async def seed(self, fleet, count, state="stopped", tags=None, **more):
        body = {"fleet": fleet, "count": count, "state": state, "tags": tags or {}, **more}
        return (await self._post("/_world/provision", body))["ids"]

    async def fault(self, kind, **fields):
        await self._post("/_world/faults", {"kind": kind, **fields})

    async def age_s(self):
        async with self.http.get("/_world/state") as response:
            state = await response.json()
            return state["at_s"] - state["start_s"]


class Moto(Cloud):
    lacks: ClassVar[dict[str, str]] = {
        "faults": "it has no capacity errors, throttling or slow states to switch on",
        "time": "its clock is the machine's, in whole seconds",
        "counts": "it makes MinCount instances, whatever the MaxCount",
        "tokens": "it makes new instances for a client token it has seen",
        "terminated": "it starts terminated instances",
        "tags of absent VMs": "it accepts tags for instances that do not exist",
        "templates by id": "it answers 500 for a launch template id that does not exist",
        "types": "it changes the type of running instances too",
        "public addresses": "its VMs keep their public address",
        "hibernation": "it neither refuses to hibernate nor tells what was launched for it",
        "checks": "its status checks are ok at once, whatever the instance does",
    }
    several = 1

    async def open(self):
        self.clock = SystemClock()
        self.templates = set()
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        self.stack.callback(server.stop)
        host, port = server.get_host_and_port()
        settings = Ec2Settings(REGION, f"http://{host}:{port}", **KEYS)
        names = {f"aws_{name}": value for name, value in KEYS.items()}
        plain = get_session().create_client(
            "ec2", region_name=REGION, endpoint_url=settings.endpoint_url, **names
        )
        self.client = await self.stack.enter_async_context(plain)
        self.provider = await self.stack.enter_async_context(await Ec2Provider.open(settings, self.clock))

    async def seed(self, fleet, count, state="stopped", tags=None):
        every = {"Name": fleet, **(tags or {}), **({FLEET_TAG: fleet} if fleet else {})}
        data = {"ImageId": MOTO_IMAGE, "InstanceType": "m7i.large"}
        made = await self.client.run_instances(
            MinCount=count,
            MaxCount=count,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in every.items()]}
            ],
            **data,
        )
        ids = [each["InstanceId"] for each in made["Instances"]]
        if state == "stopped":
            await self.client.stop_instances(InstanceIds=ids)
        if fleet and fleet not in self.templates:
            self.templates.add(fleet)
            await self.client.create_launch_template(LaunchTemplateName=fleet, LaunchTemplateData=data)
        return ids


class Libvirt(Cloud):
    lacks: ClassVar[dict[str, str]] = {
        "faults": "its test driver has no troubles to switch on; tests/libvirt makes some of its own",
        "scarce room": "its test driver does not run out of memory; tests/libvirt says how much it has",
        "templates by id": "a template is a domain, by its name",
        "public addresses": "its VMs have one address",
        "hibernation that must wait": "a memory can be saved as soon as its VM runs",
    }
    vm_type, other_type, bigger_type = "2x512", "1x256", "2x1024"
    zone, image = platform.node(), ""
    absent, malformed = "0fedcba9-8765-4321-8fed-cba987654321", "i-not-an-id"

    async def open(self):
        self.host = DriverHost.open()
        self.stack.callback(self.host.close)
        self.provider = LibvirtProvider(self.host.settings, self.clock, self.host.connect)
        self.stack.push_async_callback(self.provider.close)

    async def seed(self, fleet, count, state="stopped", tags=None, *, hibernation=False):
        tags = {"Name": fleet, **(tags or {}), **({FLEET_TAG: fleet} if fleet else {})}
        made = [
            self.host.define(tags, state=state, memory_mib=512, host_device=not hibernation, template=fleet)
            for _ in range(count)
        ]
        if fleet:
            self.host.define_template(fleet)
        return made


CLOUDS = {"memory": Memory, "several": Several, "endpoint": Endpoint, "moto": Moto, "libvirt": Libvirt}


@pytest_asyncio.fixture(name="cloud", scope="module", loop_scope="module", params=CLOUDS)
async def _cloud(request):
    cloud = CLOUDS[request.param]()
    try:
        await cloud.open()
        yield cloud
    finally:
        await cloud.close()
