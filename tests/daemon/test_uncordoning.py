"""Draining VMs are put back when the daemon ceases to act on their fleet; those drained in shadow are not resumed."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.daemon.acts.uncordoning import give_back
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.ports import Verb
from autoscaler.ports.hooks import HookResult
from autoscaler.providers.coalescing import SharedReader
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.providers.shadow import ShadowProvider
from tests.control.builders import STOP, Commands, asked
from tests.daemon.builders import Demand, SimulatedHook, policy, steady, virtual
from tests.daemon.test_drain import BALANCER, TOTAL, bench_of, put, verbs
from tests.daemon.test_exercise_hooks import trial_bench
from tests.daemon.test_reload import Life

TWO_AT_ONCE = {"exercise": {"every": "1h", "at_once": 2}}
DEMAND = steady((0, 400), (20, 200))


def shadow(bench, demand):
    own = policy(act=False, signal=TOTAL, balancer=BALANCER)
    provider = ShadowProvider(
        SharedReader(bench.provider), bench.clock, "web", start_time_s=20.0, stop_time_s=30.0
    )
    source = Demand(bench.clock, demand, total=True)
    balancer = SimulatedBalancer(bench.clock, busy_s=1000)
    return FleetSetup(own, provider, source, StatusCheckProbe(provider), balancer)


def unbalanced(bench, demand):
    own = policy(signal=TOTAL)
    source = Demand(bench.clock, demand, total=True)
    return FleetSetup(own, bench.provider, source, StatusCheckProbe(bench.provider))


def other(bench, demand):
    """Another fleet, and no `web` any more."""
    own = policy("api", signal=TOTAL)
    source = Demand(bench.clock, 0.0 * demand(0), total=True)
    return FleetSetup(own, bench.provider, source, StatusCheckProbe(bench.provider))


class SlowFromTheSecondOn(SimulatedHook):
    """A hook whose first run finds the VM well after 40 s; later runs take `took_s`."""

    async def run(self, vm):
        if self.runs:
            return await super().run(vm)
        self.runs.append((self._clock.now(), vm.id))
        await self._clock.sleep_until(self._clock.monotonic() + 40.0)
        return HookResult(well=True)


def changed_at(bench, second, setups):
    """Change the fleets at this second, and return the messages about it."""
    said = []

    async def change():
        before = bench.daemon.fleets.all
        await bench.daemon.take_over(setups)
        said.extend(await give_back(bench.daemon, before))

    asyncio.get_running_loop().call_later(second, lambda: said.append(asyncio.ensure_future(change())))
    return said


@pytest.mark.parametrize(
    ("after", "why"), [(shadow, "the fleet is in shadow now"), (other, "the fleet's policy is gone")]
)
def test_going_to_shadow_or_out_of_the_policies_leaves_the_service_whole(after, why):
    @virtual
    async def lives():
        bench = bench_of(DEMAND, busy_s=1000)
        said = changed_at(bench, 35, [after(bench, DEMAND)])
        await bench.run(300)
        assert verbs(bench)[:2] == [(20, Verb.DRAIN, 2), (35, Verb.RETURN, 2)]
        assert bench.actions()[1].intent.reason == f"put back, since {why}"
        assert bench.actions()[1].settled_at_s is not None
        assert bench.balancer.cordoned == {}
        assert bench.changes() == []
        assert said[1].startswith("put i-")
        assert said[1].endswith(" of web back into the load balancer")

    lives()


@virtual
async def test_without_a_balancer_from_now_on_they_serve_and_are_stopped_like_any_other():
    demand = steady((0, 400), (20, 200), (33, 400), (60, 200))
    bench = bench_of(demand, busy_s=1000)
    changed_at(bench, 31, [unbalanced(bench, demand)])
    await bench.run(120)
    assert verbs(bench) == [(20, Verb.DRAIN, 2), (31, Verb.RETURN, 2), (60, Verb.STOP, 2)]
    assert bench.balancer.cordoned == {}
    assert bench.column("in_service")[3:8] == [2, 4, 4, 4, 2]
    assert bench.column("draining")[4:] == [0] * 9


@virtual
async def test_without_a_balancer_none_is_waited_for_since_it_was_not_heard():
    demand = steady((0, 100), (20, 200))
    bench = bench_of(demand, running=1, vms=3)
    bench.balancer.failures["admit"] = "the socket is gone"
    changed_at(bench, 205, [unbalanced(bench, demand)])
    seen = []
    for second in (203, 240):
        loop = asyncio.get_running_loop()
        loop.call_later(second, lambda: seen.append(bench.daemon.fleets.by_name["web"].inventory.unasked))
    await bench.run(300)
    assert seen == ["its load balancer does not answer: the socket is gone", ""]
    assert bench.column("in_service")[-1] == 2


@virtual
async def test_those_that_cannot_be_put_back_are_named():
    bench = bench_of(DEMAND, busy_s=1000)
    changed_at(bench, 35, [other(bench, DEMAND)])
    loop = asyncio.get_running_loop()
    loop.call_later(33, lambda: bench.balancer.failures.update(admit="the socket is gone"))
    await bench.run(60)
    (text,) = [text for _, kind, text in bench.events() if kind == "return_failed"]
    assert text.startswith("i-")
    assert text.endswith("and the fleet's policy is gone; not put back, do it by hand: the socket is gone")


@virtual
async def test_a_daemon_that_begins_in_shadow_names_what_was_draining():
    bench = bench_of(DEMAND, busy_s=1000)
    await bench.run(25)
    bench.setups = [shadow(bench, 400)]
    await bench.run(50)
    told = [text for _, kind, text in bench.events() if kind == "drain_left"]
    assert len(told) == 2
    assert all("put it back into the load balancer by hand" in text for text in told)
    assert len(bench.balancer.cordoned) == 2


@pytest.mark.parametrize(
    ("after", "why"),
    [(other, "the fleet has no policy any more"), (unbalanced, "its policy names no load balancer any more")],
)
def test_what_was_draining_and_is_nobodys_any_more_after_a_restart_is_named(after, why):
    @virtual
    async def lives():
        bench = bench_of(DEMAND, busy_s=1000)
        await bench.run(25)
        cordoned = ", ".join(sorted(bench.balancer.cordoned))
        bench.setups = [after(bench, lambda _: 400)]
        await bench.clock.sleep_until(bench.clock.monotonic() + 20 * 3600)
        await bench.run(50)
        (told,) = [text for _, kind, text in bench.events() if kind == "drain_left"]
        assert told.startswith(f"{cordoned}: draining when the daemon ended, and {why}; put those")
        await bench.clock.sleep_until(bench.clock.monotonic() + 20 * 3600)
        await bench.run(50)
        assert [kind for _, kind, _ in bench.events()].count("drain_left") == 1

    lives()


@pytest.mark.parametrize(
    ("after", "why"), [(other, "the fleet has no policy any more"), (shadow, "the fleet is in shadow")]
)
def test_what_was_tried_and_is_not_acted_on_after_a_restart_is_named(after, why):
    @virtual
    async def lives():
        bench = trial_bench(vms=2, took_s=4000.0, balancer=BALANCER)
        bench.setups = [replace(bench.setups[0], balancer=SimulatedBalancer(bench.clock))]
        await bench.run(3700)
        ((_, tried),) = bench.hook.runs
        acting, bench.setups = bench.setups, [after(bench, lambda _: 100)]
        await bench.run(50)
        (told,) = [text for _, kind, text in bench.events() if kind == "exercise_left"]
        assert told.startswith(f"{tried}: being tried when the daemon ended, and {why}; ")
        # A daemon that acts on it again within the time of an exercise continues it.
        bench.setups = acting
        await bench.run(50)
        kinds = [kind for _, kind, _ in bench.events()]
        assert (kinds.count("exercise_left"), kinds.count("exercise_resumed")) == (1, 1)

    lives()


@virtual
async def test_what_had_been_put_back_or_stopped_before_a_restart_is_not_named():
    bench = bench_of(DEMAND)
    await bench.run(100)
    assert Verb.STOP in [verb for _, verb, _ in verbs(bench)]
    bench.setups = [other(bench, lambda _: 400)]
    await bench.run(50)
    assert [kind for _, kind, _ in bench.events() if kind == "drain_left"] == []


@virtual
async def test_what_shadow_was_draining_is_not_drained_by_a_daemon_that_acts():
    bench = bench_of(DEMAND, busy_s=1000)
    bench.setups = [shadow(bench, DEMAND)]
    await bench.run(25)
    assert verbs(bench) == [(20, Verb.DRAIN, 2)]
    put(bench, 400)
    bench.records.clear()
    await bench.run(50)
    assert [kind for _, kind, _ in bench.events()] == []
    assert bench.balancer.cordoned == {}
    assert bench.column("draining") == [0] * len(bench.records)


@pytest.mark.parametrize(
    ("after", "why"), [(shadow, "the fleet is in shadow now"), (other, "the fleet's policy is gone")]
)
def test_what_was_tried_and_found_well_is_put_back_and_what_is_still_tried_is_named(after, why):
    @virtual
    async def lives():
        bench = trial_bench(vms=2, balancer=BALANCER, freshness=TWO_AT_ONCE)
        front = SimulatedBalancer(bench.clock)
        hook = SlowFromTheSecondOn(bench.clock, took_s=4000.0)
        bench.setups = [replace(bench.setups[0], balancer=front, hook=hook)]
        changed_at(bench, 3705, [after(bench, steady((0, 100)))])
        # A VM that is ready is not stopped into the pool in the meantime.
        Commands(bench).at(3640, "pause", asked(until_s=9000), STOP)
        await bench.run(3760)
        assert len(hook.runs) == 2
        (well, tried) = (vm_id for _, vm_id in hook.runs)
        assert set(front.cordoned) == {tried}
        (told,) = [text for _, kind, text in bench.events() if kind == "exercise_left"]
        assert told.startswith(f"{tried}: made for the warm pool or tried, and {why}; running on out of the")
        assert [a.intent.vm_ids for a in bench.actions() if a.intent.verb is Verb.RETURN] == [(well,)]

    lives()


def test_a_reload_puts_them_back_before_the_balancer_is_closed(tmp_path):
    life = Life(tmp_path, web=steady((0, 200), (60, 100)))
    used = []

    def write(act):
        life.write("web", stabilisation="0s", act=act)
        path = tmp_path / "web.yaml"
        text = path.read_text().replace("forecast: {cover: 95%}\n", "")
        path.write_text(text + "balancer: {haproxy: {sockets: [/run/h.sock], backend: web}}\n")

    def look():
        fleet = life.daemon.fleets.by_name["web"]
        used.append((fleet.balancer, dict(fleet.balancer.cordoned)))

    write("true")
    life.when(65, look).when(65, write, "false").when(66, life.ask).run(100)
    ((balancer, before),) = used
    assert before
    assert balancer.cordoned == {}
    (said,) = life.logged("policies_reloaded")
    assert said.startswith("changed web; put i-")
