"""A place that is not usable at startup: the others are served, and it joins as soon as it is usable."""

import asyncio

import pytest

from autoscaler.clock import VirtualClock
from autoscaler.daemon.lifecycle import run_to_the_end
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.place_retries import PlaceOpener
from autoscaler.errors import ConfigError, ProviderError
from autoscaler.ports import ProvisionSpec, UnreadableTemplate
from autoscaler.providers.pending_place import OPEN_WITHIN_S, LateProvider
from autoscaler.wiring import Wiring
from tests.daemon.builders import ORIGIN_S, Demand, virtual
from tests.daemon.test_several_providers import Two

NO_CREDENTIALS = "EC2: no credentials found. Give the machine an instance profile"


class LateTwo(Two):
    """`Two` clouds, the far one of which cannot be opened at first."""

    def __init__(self, demand, usable_from_s, **more):
        super().__init__(demand, **more)
        self.clock, self.usable_from_s, self.tried = self.bench.clock, usable_from_s, []
        self.late = self.providers["far"] = LateProvider(self._open, self.clock)
        self.wiring = Wiring(self.providers, self.clock, lambda _: Demand(self.clock, demand))
        self.bench.setups = list(self.wiring.wire(self.policies).setups)

    async def _open(self):
        self.tried.append(round(self.clock.now() - ORIGIN_S))
        if self.tried[-1] < self.usable_from_s:
            raise ConfigError(NO_CREDENTIALS)
        return self.far

    async def run(self, for_s):
        bench = self.bench
        await self.late.open()
        daemon = bench.daemon = Daemon(
            bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
        )
        opening = PlaceOpener(daemon, "far", self.late)
        await run_to_the_end(daemon, beside={"place far": opening.watch}, for_s=for_s)

    def usable(self):
        return self.bench.telemetry.registry.get_sample_value(
            "autoscaler_provider_usable", {"provider": "far"}
        )


@virtual
async def test_its_fleets_are_held_in_words_and_the_others_are_looked_after():
    two = LateTwo(500, usable_from_s=1e9)
    await two.run(95)
    assert two.bench.column("in_service", "web")[-1] == 5
    assert [*two.worlds["far"].api.calls] == []
    last = two.bench.rows("api")[-1]
    assert last.sentence.startswith("held until its VMs have been listed: ")
    told = f"far: the place cannot be used: {NO_CREDENTIALS} (it is tried again)"
    assert two.bench.daemon.fleets.by_name["api"].listing_error == told
    assert two.bench.log.texts("listing_failed") == [told]
    said = f"far cannot be used, so its fleets are held; it is being retried: {NO_CREDENTIALS}"
    assert two.bench.log.texts("provider_failed") == [said]
    assert [text for _, kind, text in two.bench.events() if kind == "provider_failed"] == [said]
    assert two.usable() == 0
    assert [record.at_s - ORIGIN_S for record in two.bench.records] == [*range(0, 100, 10)]


@virtual
async def test_it_comes_in_when_it_can_be_used():
    two = LateTwo(500, usable_from_s=60)
    await two.run(150)
    assert two.tried == [0, 5, 15, 35, 75]
    assert two.usable() == 1
    assert [kind for _, kind, _ in two.bench.events() if kind.startswith("provider_")] == [
        "provider_failed",
        "provider_recovered",
    ]
    assert two.bench.column("in_service", "api")[-1] == 5
    assert two.bench.daemon.fleets.by_name["api"].listing_error == ""
    assert "task_failed" not in two.bench.log.events()


@virtual
async def test_it_is_tried_ever_more_seldom():
    two = LateTwo(400, usable_from_s=1e9)
    await two.run(2000)
    gaps = [b - a for a, b in zip(two.tried, two.tried[1:], strict=False)]
    assert gaps == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300]
    assert len(two.bench.log.texts("provider_failed")) == 1


async def _hang():
    await asyncio.get_running_loop().create_future()


async def _break():
    raise RuntimeError("a bug")


@virtual
async def test_whatever_goes_wrong_in_opening_is_of_this_place_alone_and_takes_no_longer_than_it_may():
    clock = VirtualClock(ORIGIN_S)
    late = LateProvider(_hang, clock)
    assert await late.open() is False
    assert clock.now() - ORIGIN_S == OPEN_WITHIN_S
    assert late.trouble == "it could not be opened within 30 s"
    late = LateProvider(_break, clock)
    assert await late.open() is False
    assert late.trouble == "unexpected RuntimeError: a bug; please report"


@virtual
async def test_until_it_is_open_nothing_is_sent_and_then_everything_passes_through():
    two = LateTwo(0, usable_from_s=1)
    late, spec = two.late, ProvisionSpec("api", "lt")
    await late.open()
    for call in (
        late.start(["i-1"]),
        late.stop(["i-1"]),
        late.retype(["i-1"], "t"),
        late.provision(spec, 1, "token"),
        late.terminate(["i-1"]),
        late.tag(["i-1"], {}),
    ):
        with pytest.raises(
            ProviderError, match="nothing was sent, since the place cannot be used: EC2: no cred"
        ):
            await call
    assert await late.checked(["i-1"]) == frozenset()
    assert isinstance(await late.launch_spec(spec), UnreadableTemplate)
    await late.close()
    await two.clock.sleep_until(two.clock.monotonic() + 2)
    assert await late.open()
    running = [vm.id for vm in (await late.list_vms()).vms if vm.state == "running"]
    assert len(running) == 4
    assert await late.checked(running) == frozenset(running)
    assert [str(o.kind) for o in await late.stop(running[:1])] == ["accepted"]
    assert [str(o.kind) for o in await late.tag(running, {"a": "b"})] == ["accepted"] * 4
    await late.close()


@virtual
async def test_a_fleet_in_shadow_waits_too():
    two = LateTwo(500, usable_from_s=60, acts=False)
    await two.run(150)
    assert two.bench.column("in_service", "api")[0] == 0
    assert two.bench.rows("api")[-1].real.running == 4
