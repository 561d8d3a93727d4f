"""Several providers in one daemon: their fleets are independent, and each fails alone."""

import asyncio

import pytest

from autoscaler.clock import VirtualClock
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.vms import State
from autoscaler.cloud.world import World
from autoscaler.daemon.fleets import Fleet, FleetSetup
from autoscaler.daemon.vms.lease import RENEW_S
from autoscaler.daemon.vms.leasing import AT_ONCE, Leasing
from autoscaler.errors import ConfigError, ProviderError
from autoscaler.ports import Listing, Outcome, OutcomeKind, VmState, name_of
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.settings import ProviderSettings, Settings
from autoscaler.wiring import Wiring, simulated
from autoscaler.wiring_providers import clouds_of, provider_of
from tests.daemon.builders import EXACT, ORIGIN_S, Bench, Demand, policy, steady, virtual, vm


class Troubled:
    """A provider that hangs or fails on demand."""

    def __init__(self, provider):
        self._provider, self.trouble = provider, ""

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def _met(self):
        if self.trouble == "hangs":
            await asyncio.get_running_loop().create_future()
        if self.trouble:
            raise ProviderError(f"DescribeInstances: {self.trouble}")

    async def list_vms(self):
        await self._met()
        return await self._provider.list_vms()

    async def checked(self, vm_ids):
        await self._met()
        return await self._provider.checked(vm_ids)

    async def start(self, vm_ids):
        await self._met()
        return await self._provider.start(vm_ids)


class Two:
    """A daemon with a fleet in each of two clouds: `web` in the near one, `api` in the far one."""

    def __init__(self, demand, *, acts=True, api=None, budgets=False):
        self.bench = bench = Bench()
        self.worlds = {name: World(start_s=ORIGIN_S, physics=EXACT) for name in ("near", "far")}
        self.providers = {}
        for name, fleet in (("near", "web"), ("far", "api")):
            place_fleet(self.worlds[name], ORIGIN_S, WorldFleet(fleet, 4, State.RUNNING))
            place_fleet(self.worlds[name], ORIGIN_S, WorldFleet(fleet, 2))
            provider = MemoryProvider(self.worlds[name], bench.clock)
            if budgets:
                provider = BudgetedProvider(provider, CallBudget(bench.clock), bench.clock)
            self.providers[name] = Troubled(provider)
        self.far = self.providers["far"]
        self.far.answers_at_once = False
        sources = {"web": demand, "api": demand if api is None else api}
        self.wiring = Wiring(
            self.providers, bench.clock, lambda each: Demand(bench.clock, sources[each.fleet])
        )
        self.policies = [
            policy(f, provider=p, act=acts, readiness=PROBED) for f, p in (("web", "near"), ("api", "far"))
        ]
        bench.setups = list(self.wiring.wire(self.policies).setups)

    def later(self, second, trouble):
        asyncio.get_running_loop().call_later(second, lambda: setattr(self.far, "trouble", trouble))


PLACES = {"web": "near", "api": "far"}
PROBED = {"probe": "status_checks"}
FALLING = steady((0, 400), (60, 100))


@pytest.mark.parametrize("trouble", ["hangs", "UnauthorizedOperation", "RequestLimitExceeded"])
def test_one_that_fails_holds_its_own_fleets_and_no_others(trouble):
    @virtual
    async def lived():
        two = Two(FALLING)
        bench = two.bench
        two.later(31, trouble)
        two.later(101, "")
        await bench.run(200)
        assert bench.column("in_service", "web")[:9] == [4] * 7 + [1] * 2
        assert max(bench.column("stop", "api")[:10]) == 0
        assert bench.column("in_service", "api")[-1] == 1
        failed = bench.log.texts("listing_failed")
        told = "no answer within 5 s" if trouble == "hangs" else trouble
        assert len(failed) == 1
        assert failed[0].startswith("far: ")
        assert told in failed[0]
        assert [text.partition(" of VMs")[0] for text in bench.log.texts("listing_recovered")] == [
            "far: the list"
        ]
        # One tick has waited for it.
        late = [record.at_s - ORIGIN_S for record in bench.records if record.at_s % 10.0]
        assert late == ([45.0] if trouble == "hangs" else [])
        assert len(bench.records) == 21

    lived()


@virtual
async def test_while_one_hangs_with_vms_on_their_way_the_others_keep_their_cadence():
    two = Two(200, api=steady((0, 400), (20, 500)))
    bench = two.bench
    # The start is accepted; whether the VM is ready is never answered.
    two.later(25, "hangs")
    await bench.run(200)
    late = [record.at_s - ORIGIN_S for record in bench.records if record.at_s % 10.0]
    assert late == [35.0]
    assert bench.column("in_service", "web")[-1] == 2


@virtual
async def test_starts_that_one_does_not_answer_make_no_tick_wait():
    two = Two(200, api=steady((0, 400), (60, 500), (80, 600)))
    bench = two.bench
    two.later(35, "hangs")
    two.later(131, "")
    await bench.run(300)
    late = [record.at_s - ORIGIN_S for record in bench.records if record.at_s % 10.0]
    assert late == [45.0]
    assert bench.log.events().count("tick_late") == 0
    # They were ordered, and their fate is unknown until the next listing.
    assert [row.start for row in bench.rows("api") if row.start][:2] == [1, 1]
    assert bench.column("in_service", "api")[-1] == 6


@virtual
async def test_vms_with_the_same_ids_in_both_are_not_taken_for_each_other():
    two = Two(FALLING, api=400)
    ids = [{vm.id for vm in (await p.list_vms()).vms} for p in two.providers.values()]
    assert ids[0] == ids[1]
    await two.bench.run(100)
    running = [world.counts(two.bench.clock.now(), None)["running"] for world in two.worlds.values()]
    assert running == [1, 4]


@virtual
async def test_shadows_see_what_is_real_in_their_own():
    two = Two(200, acts=False)
    two.worlds["far"].stop(
        ORIGIN_S, [vm.id for vm in (await two.far.list_vms()).vms if vm.state == "running"][:3]
    )
    await two.bench.run(60)
    real = {fleet: row.real.running for fleet in ("web", "api") for row in two.bench.rows(fleet)[-1:]}
    assert real == {"web": 4, "api": 1}
    assert {name_of(setup.provider) for setup in two.bench.setups} == {"near", "far"}


@virtual
async def test_each_has_a_budget_of_its_own():
    two = Two(FALLING, budgets=True)
    await two.bench.run(100)
    shown = {
        (sample.name, sample.labels.get("provider"))
        for metric in two.bench.telemetry.registry.collect()
        for sample in metric.samples
        if "provider" in sample.labels and "_api_" in sample.name
    }
    names = "budget_tokens", "budget_refill_per_second", "budget_refusals", "burst_seconds"
    assert shown == {(f"autoscaler_api_{name}", whose) for name in names for whose in ("near", "far")}


@virtual
async def test_what_is_recorded_says_where_the_vms_are():
    for acts in (True, False):
        two = Two(200, acts=acts)
        await two.bench.run(20)
        assert {row.fleet: row.provider for row in two.bench.records[-1].fleets} == PLACES
        with two.bench.journal.reader() as reader:
            assert {fleet: reader.last(fleet).recorded.provider for fleet in PLACES} == PLACES


@virtual
async def test_a_fleet_stays_where_it_is_until_the_daemon_is_restarted():
    two = Two(200)
    before = two.bench.setups
    moved = [two.policies[0], policy("api", provider="near")]
    with pytest.raises(ConfigError, match=r"`provider` was far and is near.*restart the daemon"):
        two.wiring.wire(moved, before)
    for act in (True, False):
        again = two.wiring.wire([policy("web", provider="near", act=act), two.policies[1]], before)
        assert [name_of(setup.provider) for setup in again.setups] == ["near", "far"]


def test_one_cloud_takes_all_fleets_whatever_their_policies_name():
    clock = VirtualClock(ORIGIN_S)
    wiring = Wiring(MemoryProvider(World(), clock), clock, lambda _: Demand(clock, 0))
    first, second = wiring.wire([policy("a", provider="near"), policy("b", provider="far", act=False)]).setups
    assert (name_of(first.provider), name_of(second.provider)) == ("", "")
    assert simulated(policy(provider="near")).provider is None


# ── leases ─────────────────────────────────────────────────────────────────────────────────────────────


class Tags:
    """A provider for tags only, which may never answer."""

    def __init__(self, name):
        self.name, self.hangs, self.asked = name, False, 0

    async def tag(self, vm_ids, _tags):
        self.asked += 1
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        return tuple(Outcome(each, OutcomeKind.ACCEPTED) for each in vm_ids)


@virtual
async def test_one_that_hangs_does_not_keep_other_leases_from_being_renewed():
    clock, far, near = VirtualClock(ORIGIN_S), Tags("far"), Tags("near")
    far.hangs = True
    fleets = [
        Fleet(FleetSetup(policy(f"{p.name}-{n}"), p, Demand(clock, 0), StatusCheckProbe(p)))
        for p in (far, near)
        for n in range(3 * AT_ONCE)
    ]
    leasing = Leasing(clock, "me", "1")
    rows = {fleet.name: (vm(f"i-{fleet.name}", VmState.RUNNING),) for fleet in fleets}
    for tick in range(4):
        now_s = ORIGIN_S + 10.0 * tick
        whole = Listing((), True, now_s, now_s)
        leasing.follow(fleets, {id(far): whole, id(near): whole}, lambda _: rows, now_s)
        await clock.sleep_until(10.0 * (tick + 1) - 0.001)
    assert near.asked == 3 * AT_ONCE
    assert RENEW_S > 10.0 * 4
    await leasing.finish()


# ── settings ───────────────────────────────────────────────────────────────────────────────────────────


def named(**providers):
    return Settings(providers={name: ProviderSettings(**given) for name, given in providers.items()})


REGION, HOSTS = {"aws_region": "eu-central-1"}, {"libvirt_uris": ("qemu:///system",)}


def test_each_place_is_reached_by_its_own_settings():
    clouds = clouds_of(
        named(
            frankfurt={**REGION, "aws_profile": "prod", "aws_hint_queue_url": "https://sqs.example/1/q"},
            ohio={"aws_region": "us-east-2", "aws_cloudwatch_endpoint_url": "http://127.0.0.1:1"},
            rack=HOSTS,
        )
    )
    frankfurt, ohio, rack = clouds.by_name.values()
    assert (frankfurt.ec2.region, frankfurt.ec2.profile) == ("eu-central-1", "prod")
    assert (frankfurt.hint_queue_url, ohio.hint_queue_url) == ("https://sqs.example/1/q", None)
    assert (ohio.cloudwatch.region, ohio.cloudwatch.endpoint_url) == ("us-east-2", "http://127.0.0.1:1")
    assert (rack.ec2, rack.cloudwatch, rack.libvirt.uris) == (None, None, ("qemu:///system",))
    web = policy(provider="ohio")
    assert (clouds.of(web), clouds.ec2_of(web), clouds.cloudwatch_of(web)) == (
        ohio,
        ohio.ec2,
        ohio.cloudwatch,
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (named(a=REGION | HOSTS), r"\[providers.a\]: libvirt_uris and aws_region are set"),
        (
            named(a={**REGION, "aws_access_key_id": "x"}),
            r"\[providers.a\]: EC2: the settings aws_access_key_id and",
        ),
        (named(a={}), r"\[providers.a\]: no AWS Region is set; name it by aws_region, or"),
        (named(a=REGION, b=REGION), r"\[providers.a\] and \[providers.b\] name the same Region"),
        (named(a=HOSTS, b=HOSTS), r"\[providers.a\] and \[providers.b\] name qemu:///system both"),
        (
            Settings(aws_region="x", libvirt_heed_memory=False, providers={"a": ProviderSettings(**REGION)}),
            r"aws_region, libvirt_heed_memory and \[providers.…\] are set",
        ),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        clouds_of(settings)


def test_the_same_region_of_two_accounts_is_two_providers():
    assert len(clouds_of(named(a=REGION, b={**REGION, "aws_profile": "other"})).by_name) == 2


@pytest.mark.parametrize(
    ("provider", "names", "found"),
    [
        (None, [""], ""),
        (None, ["near"], "near"),
        ("near", ["near", "far"], "near"),
        (None, ["near", "far"], "the settings have several providers; write `provider: NAME` in its policy, one of far, near"),
        ("nera", ["near", "far"], r"`provider` is nera, which is not in the settings; did you mean near\? They have far, near"),
        ("near", [""], r"write a table \[providers.near\], or leave `provider` out"),
    ],
)  # fmt: skip
def test_which_provider_a_policy_means(provider, names, found):
    own = policy(provider=provider)
    if found in names:
        assert provider_of(own, names) == found
        return
    with pytest.raises(ConfigError, match=f"fleet web: .*{found}"):
        provider_of(own, names)
