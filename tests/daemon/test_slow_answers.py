"""What can wait is not asked again at once where it took long, so that decisions do not wait for it tick after tick."""

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.clock import VirtualClock
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.slow_answers import REST_S, SlowAnswers
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy, steady, virtual
from tests.daemon.pools import chores, pool_bench
from tests.daemon.test_loop_bounds import TOTAL, Takes, at

BALANCER = {"haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"}}


@virtual
async def test_what_takes_as_long_as_one_question_may_rests_and_is_asked_nothing_more_in_this_tick():
    clock, slow = VirtualClock(ORIGIN_S), SlowAnswers()
    found = []
    for took_s in (1.9, 2.0):
        with slow.timed(2.0):
            await clock.sleep_until(clock.monotonic() + took_s)
            found.append(slow.is_over())
        found.append(slow.rests())
    await clock.sleep_until(clock.monotonic() + REST_S)
    assert found == [False, False, True, True]
    assert not slow.rests()


@virtual
async def test_decisions_do_not_wait_tick_after_tick_for_a_balancer_that_hangs_while_vms_drain():
    bench = Bench(limits=None, zones="a")
    bench.place("web", 0, running=4)
    bench.place("api", 4, running=1)
    hangs = Takes(SimulatedBalancer(bench.clock, busy_s=1000), bench.clock, 600.0, "look")
    demand = Demand(bench.clock, steady((0, 400), (20, 200)), total=True)
    web = policy("web", signal=TOTAL, balancer=BALANCER)
    bench.setups = [FleetSetup(web, bench.provider, demand, StatusCheckProbe(bench.provider), hangs)]
    bench.add(policy("api", signal=TOTAL), steady((0, 100), (40, 300)))
    await bench.run(80)
    assert at(bench) == [0, 10, 20, 32, 40, 50, 60, 72, 80]
    assert bench.column("draining", "web")[3:] == [2] * 6
    assert bench.calls("StartInstances") == [(40, "StartInstances", 2, "")]


@virtual
async def test_vms_that_drain_leave_once_the_balancer_answers_again():
    bench = Bench(limits=None, zones="a", running=4)
    slow = Takes(SimulatedBalancer(bench.clock), bench.clock, 600.0, "look")
    demand = Demand(bench.clock, steady((0, 400), (20, 200)), total=True)
    web = policy("web", signal=TOTAL, balancer=BALANCER)
    bench.setups = [FleetSetup(web, bench.provider, demand, StatusCheckProbe(bench.provider), slow)]
    bench.records = Mending(slow, from_s=ORIGIN_S + 45)
    await bench.run(120)
    assert at(bench)[:5] == [0, 10, 20, 32, 40]
    # Asked again at 70, half a minute after it did not answer, and found idle by that and the next look.
    assert [at_s for at_s, *_ in bench.calls("StopInstances")] == [80]


class Mending(list):
    """Records; the adapter answers at once from some time on."""

    def __init__(self, slow, from_s):
        super().__init__()
        self.slow, self.from_s = slow, from_s

    def append(self, record):
        super().append(record)
        if record.at_s >= self.from_s:
            self.slow.seconds = 0.0


@virtual
async def test_decisions_do_not_wait_tick_after_tick_for_checks_of_vms_for_the_pool():
    bench = pool_bench(100, running=1)
    (setup,) = bench.setups
    slow = Takes(bench.provider, bench.clock, 600.0, "checked")
    bench.setups = [FleetSetup(setup.policy, slow, setup.source, StatusCheckProbe(bench.provider))]
    bench.records = Mending(slow, from_s=ORIGIN_S + 105)
    await bench.run(150)
    # The two VMs run from 78 on; both are seen ready half a minute after the first question had no answer.
    assert at(bench) == pytest.approx([0, 10, 20, 30, 40, 50, 60, 70, 82, 90, 100, 110, 120, 130, 140, 150])
    assert [(at_s, verb) for at_s, verb, *_ in chores(bench)] == [(60, "refill"), (120, "store")]
