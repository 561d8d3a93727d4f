"""Whatever a call to an adapter of one fleet does, the other fleet decides the same, and no tick fails."""

from __future__ import annotations

import asyncio

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.daemon.acts.arrival_command import Arrivals
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.ports import Verb
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import Bench, Demand, SimulatedHook, policy, steady, virtual
from tests.daemon.pools import pool_bench, pool_policy

BALANCER = {"haproxy": {"sockets": ["/run/h.sock"], "backend": "web"}}
DEMAND = steady((0, 200), (100, 500), (250, 100))


async def hang():
    await asyncio.Event().wait()


async def nothing():
    return None


async def number():
    return 7


async def raising():
    raise KeyError("a bug")


async def cancelled():
    raise asyncio.CancelledError


HOW = {each.__name__: each for each in (hang, nothing, number, raising, cancelled)}
CALLS = {
    "provider": ("list_vms", "start", "stop", "provision", "tag", "terminate", "checked", "launch_spec"),
    "balancer": ("look", "admit", "cordon"),
    "hook": ("run",),
    "arrival": ("run",),
    "probe": ("ready",),
    "source": ("read",),
}
ALL = [(part, call) for part, calls in CALLS.items() for call in calls]


class Broken:
    """An adapter, one of whose calls fails from some second on. It counts the failures."""

    def __init__(self, inner, clock, call="", how=None):
        self._inner, self._clock, self._call, self._how = inner, clock, call, how
        self.met = 0

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name != self._call or self._clock.monotonic() < 50:
            return found

        async def wrong(*_given, **_more):
            self.met += 1
            return await self._how()

        return wrong

    async def launch_spec(self, spec):
        """Defined here, because since Python 3.12 a method from `__getattr__` does not make a TemplateReader."""
        return await self.__getattr__("launch_spec")(spec)


def lived(broken="", call="", how=""):
    """The other fleet's rows, the bench, and how often the broken call was made."""
    found = {}

    @virtual
    async def run():
        bench = pool_bench(0, vms=6, running=2)
        bench.setups.clear()
        clock, parts = bench.clock, {}

        def part(name, inner):
            own = (call, HOW[how]) if name == broken else ()
            parts[name] = Broken(inner, clock, *own)
            return parts[name]

        own = pool_policy(
            balancer=BALANCER,
            drain={"timeout": "30s"},
            refill={"calm": "20s", "timeout": "60s"},
            warm_pool={"minimum": 5},
            bounds={"minimum": 1},
        )
        provider = part("provider", bench.provider)
        arrivals = Arrivals(part("arrival", SimulatedHook(clock, took_s=5.0)), clock)
        setup = FleetSetup(
            own,
            provider,
            part("source", Demand(clock, DEMAND, total=True)),
            part("probe", StatusCheckProbe(provider)),
            part("balancer", SimulatedBalancer(clock)),
            part("hook", SimulatedHook(clock, took_s=15.0)),
            arrivals,
        )
        bench.setups = [setup]
        bench.place("api", 8, running=1)
        bench.add(policy("api", signal={"kind": "total"}), DEMAND)
        loop = asyncio.get_running_loop()

        def asked():
            pool = bench.daemon.warm_pools.by_name["web"]
            ids = [t.vm.id for t in bench.daemon.fleets.by_name["web"].inventory.startable(clock.now())]
            pool.asked.exercise.update(ids[:1])
            pool.asked.evict.update(ids[1:2])

        loop.call_later(55.0, asked)
        loop.call_later(400.0, asked)
        await bench.run(600)
        found.update(bench=bench, met=parts[broken].met if broken else 0)

    run()
    return found


def decided(bench: Bench):
    return [
        (record.tick, row.desired, row.start, row.stop, row.in_service)
        for record in bench.records
        for row in record.fleets
        if row.fleet == "api"
    ]


@pytest.fixture(scope="module")
def healthy():
    found = lived()
    verbs = {action.intent.verb for action in found["bench"].actions()}
    assert verbs >= {
        Verb.START,
        Verb.STOP,
        Verb.DRAIN,
        Verb.EXERCISE,
        Verb.STORE,
        Verb.TERMINATE,
        Verb.REFILL,
    }
    return decided(found["bench"])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("broken", "call"), ALL)
def test_the_other_fleet_decides_as_if_nothing_were(broken, call, how, healthy):
    found = lived(broken, call, how)
    bench = found["bench"]
    assert found["met"]
    assert bench.telemetry.registry.get_sample_value("autoscaler_ticks_failed_total") == 0
    assert [text for event in ("tick_failed", "act_failed") for text in bench.log.texts(event)] == []
    if how == "hang":
        # Waiting delays a tick by seconds, and with it its orders and their outcomes.
        assert [row[:2] for row in decided(bench)] == [row[:2] for row in healthy]
    else:
        assert decided(bench) == healthy
    assert bench.column("in_service", "api")[-1] == 1
