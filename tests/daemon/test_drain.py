"""Leaving in steps: cordoned, idle at two looks, stopped; brought back before anything is started; after a crash."""

import asyncio
from dataclasses import replace

import pytest

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.cli.status import status_lines
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.vms.tracked import PROTECTED_TAG, Phase
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.ports import Member, Rotation, RotationView, Verb
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.web.status import status
from tests.control.builders import STOP, Commands, asked
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy, steady, virtual

TOTAL = {"kind": "total"}


class Checking(SimulatedBalancer):
    """A balancer that checks a VM's health for 15 s before it admits it, like a target group."""

    def __init__(self, clock, **more):
        super().__init__(clock, **more)
        self.admitted = {}

    async def admit(self, vms):
        for vm in vms:
            if vm.id in self._cordoned_at_s or vm.id not in self.admitted:
                self.admitted[vm.id] = self._clock.now()
        return await super().admit(vms)

    def _member(self, vm, now_s):
        found = super()._member(vm, now_s)
        checked = now_s - self.admitted.get(vm.id, -1000.0) >= 15.0
        return (
            found if checked or found.rotation is not Rotation.IN else Member(Rotation.OUT, None, "initial")
        )


BALANCER = {"haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"}}


def bench_of(demand, *, busy_s=0.0, running=4, vms=0, **changes):
    bench = Bench(running=running, vms=vms, zones="a")
    bench.balancer = SimulatedBalancer(bench.clock, busy_s=busy_s)
    put(bench, demand, **changes)
    return bench


def put(bench, demand, **changes):
    own = policy(signal=TOTAL, balancer=BALANCER, **changes)
    source = Demand(bench.clock, demand, total=True)
    bench.setups = [FleetSetup(own, bench.provider, source, StatusCheckProbe(bench.provider), bench.balancer)]


def verbs(bench):
    return [(round(a.at_s - ORIGIN_S), a.intent.verb, a.intent.count) for a in bench.actions()]


@virtual
async def test_a_vm_is_cordoned_then_seen_idle_twice_and_only_then_stopped():
    bench = bench_of(steady((0, 400), (20, 200)))
    await bench.run(70)
    assert verbs(bench) == [(20, Verb.DRAIN, 2), (40, Verb.STOP, 2)]
    assert bench.column("in_service")[:5] == [4, 4, 4, 2, 2]
    assert bench.column("draining")[:6] == [0, 0, 0, 2, 2, 0]
    assert bench.changes() == [(40, "StopInstances", 2, "")]
    stop = bench.actions()[1]
    assert stop.intent.reason == "idle at 2 looks after the cordon"


@virtual
async def test_work_that_arrived_before_the_cordon_is_finished():
    bench = bench_of(steady((0, 400), (20, 200)), busy_s=35)
    await bench.run(100)
    # Cordoned at 20, busy until 55, so idle at 60 and 70.
    assert verbs(bench) == [(20, Verb.DRAIN, 2), (70, Verb.STOP, 2)]


@virtual
async def test_one_idle_look_between_busy_ones_stops_nothing():
    bench = bench_of(steady((0, 200), (20, 100)), running=2, drain={"timeout": "60s"})

    def sessions(second):
        bench.balancer.sessions = dict.fromkeys(bench.ids, 0 if second % 20 == 0 else 3)
        return 100 if second >= 20 else 200

    put(bench, sessions, drain={"timeout": "60s"})
    await bench.run(100)
    assert verbs(bench) == [(20, Verb.DRAIN, 1), (80, Verb.STOP, 1)]
    assert "still busy 60 s after the cordon" in bench.actions()[1].intent.reason


class Forgetful(SimulatedBalancer):
    """A balancer whose looks are answered by `answered` until some second, from an idle member and its time."""

    def __init__(self, clock, until_s, answered):
        super().__init__(clock)
        self.until_s, self.answered = until_s, answered

    async def look(self, vms):
        now_s = self._clock.now() - ORIGIN_S
        if now_s >= self.until_s:
            return await super().look(vms)
        member, at_s = self.answered(Member(Rotation.CORDONED, 0), now_s)
        return RotationView({} if member is None else {vm.id: member for vm in vms}, ORIGIN_S + at_s)


@pytest.mark.parametrize(
    ("answered", "stopped_at_s"),
    [
        # The answer was read before the cordon at 20, and is repeated.
        (lambda member, _: (member, 19.0), 110),
        (lambda member, _: (member, 20.0), 110),
        # Read once after the cordon: this is one look, however often it is repeated.
        (lambda member, _: (member, 25.0), 100),
        # Every other answer is missing, for whole VMs or only for their sessions.
        (lambda member, now_s: (member if now_s % 20 else None, now_s), 100),
        (lambda member, now_s: (member if now_s % 20 else replace(member, sessions=None), now_s), 100),
    ],
)
def test_two_looks_are_two_readings_after_the_cordon_in_a_row(answered, stopped_at_s):
    @virtual
    async def run():
        bench = bench_of(steady((0, 200), (20, 100)), running=2)
        bench.balancer = Forgetful(bench.clock, 100.0, answered)
        put(bench, steady((0, 200), (20, 100)), drain={"timeout": "10m"})
        await bench.run(150)
        assert verbs(bench) == [(20, Verb.DRAIN, 1), (stopped_at_s, Verb.STOP, 1)]

    run()


@virtual
async def test_a_busy_vm_serves_again_where_the_policy_says_so():
    bench = bench_of(
        steady((0, 200), (20, 100), (65, 200)),
        running=2,
        busy_s=1000,
        drain={"timeout": "40s", "on_timeout": "return"},
    )
    await bench.run(70)
    assert verbs(bench)[:2] == [(20, Verb.DRAIN, 1), (60, Verb.RETURN, 1)]
    assert bench.changes() == []


@virtual
async def test_a_vm_that_is_given_up_while_it_drains_serves_again_and_is_not_stopped():
    bench = bench_of(steady((0, 200), (20, 100)), running=2)
    answers = []

    async def give_up():
        (vm_id,) = (vm.id for vm in bench.daemon.fleets.by_name["web"].inventory.vms_in(Phase.DRAINING))
        word = PoolCommand("web", (vm_id,), "alice", "it is needed elsewhere")
        answers.append((vm_id, await PoolCommands(bench.daemon).disown(word)))

    asyncio.get_running_loop().call_later(25, lambda: answers.append(asyncio.ensure_future(give_up())))
    await bench.run(100)
    vm_id, answer = answers[1]
    assert "stay as they are" in answer
    assert verbs(bench)[:2] == [(20, Verb.DRAIN, 1), (30, Verb.RETURN, 1)]
    assert bench.actions()[1].intent.vm_ids == (vm_id,)
    assert bench.actions()[1].intent.reason == "given up by an operator while it was draining"
    assert vm_id not in bench.balancer.cordoned
    assert [call for call in bench.changes() if call[1] != "CreateTags"] == []


@virtual
async def test_draining_vms_come_back_before_any_is_started():
    bench = bench_of(steady((0, 400), (20, 200), (30, 500)), busy_s=1000, vms=3)
    await bench.run(60)
    assert verbs(bench)[:3] == [(20, Verb.DRAIN, 2), (30, Verb.RETURN, 2), (30, Verb.START, 1)]
    # They serve at once, without a lead time.
    assert bench.column("in_service")[:5] == [4, 4, 4, 2, 4]
    assert bench.balancer.cordoned == {}


@virtual
async def test_draining_vms_count_as_supply_where_the_warm_pool_is_empty():
    bench = bench_of(steady((0, 400), (20, 200), (30, 400)), busy_s=1000)
    await bench.run(40)
    assert bench.rows()[3].start == 2
    assert "empty" not in bench.rows()[3].sentence


@virtual
async def test_a_vm_that_cannot_be_cordoned_serves_on_and_it_is_said():
    bench = bench_of(steady((0, 400), (20, 200)))
    bench.balancer.failures["cordon"] = "the socket is gone"
    await bench.run(40)
    assert bench.column("in_service") == [4, 4, 4, 4, 4]
    assert bench.changes() == []
    (told,) = {text for _, kind, text in bench.events() if kind == "drain_failed"}
    assert told.endswith(": the socket is gone")
    assert bench.log.texts("balancer_failed") == ["the socket is gone"]
    assert status_lines(status(bench.daemon))["web load balancer"][1].endswith(": the socket is gone")


@virtual
async def test_a_balancer_that_does_not_say_is_not_idle():
    bench = bench_of(steady((0, 400), (20, 200)), drain={"timeout": "10m"})
    bench.balancer.failures["look"] = "the socket is gone"
    await bench.run(90)
    assert verbs(bench) == [(20, Verb.DRAIN, 2)]


@virtual
async def test_a_vm_is_in_service_once_the_balancer_has_admitted_it():
    bench = bench_of(100, running=0, vms=1)
    bench.balancer.failures["admit"] = "no entry for it"
    told = []
    bench.balancer.admit, admit = None, bench.balancer.admit

    async def late(vms):
        told.append([vm.id for vm in vms])
        if len(told) == 2:
            bench.balancer.failures.clear()
        return await admit(vms)

    bench.balancer.admit = late
    await bench.run(60)
    # Ready at 19, refused at 20, admitted at 30.
    assert bench.column("in_service") == [0, 0, 0, 1, 1, 1, 1]
    assert told == [list(bench.ids)] * 2


@virtual
async def test_a_share_of_those_that_serve_leaves_at_a_time_and_one_always():
    bench = bench_of(steady((0, 800), (20, 100)), running=8, guards={"stop_share": "25%"})
    await bench.run(300)
    drains = [(at, count) for at, verb, count in verbs(bench) if verb is Verb.DRAIN]
    # Two of eight; the next ones once these have stopped: 20 s until idle twice, 25 s to stop.
    assert drains == [(20, 2), (70, 1), (120, 1), (170, 1), (220, 1), (270, 1)]


@virtual
async def test_a_share_of_those_that_serve_stops_at_a_time_where_there_is_no_balancer():
    bench = Bench(running=8, zones="a")
    bench.add(policy(signal=TOTAL, guards={"stop_share": "25%"}), steady((0, 800), (20, 400)))
    await bench.run(100)
    # Two of eight, and of six one, once those have stopped.
    assert bench.changes() == [
        (20, "StopInstances", 2, ""),
        (50, "StopInstances", 1, ""),
        (80, "StopInstances", 1, ""),
    ]


@virtual
async def test_a_look_that_was_taken_before_the_cordon_says_nothing():
    bench = bench_of(steady((0, 400), (20, 200)))
    look = bench.balancer.look

    async def late(vms):
        return replace(await look(vms), read_at_s=bench.clock.now() - 15.0)

    bench.balancer.look = late
    await bench.run(70)
    # That of 30 is from 15; those of 40 and 50 count.
    assert verbs(bench) == [(20, Verb.DRAIN, 2), (50, Verb.STOP, 2)]


@virtual
async def test_a_vm_that_the_balancer_does_not_take_back_does_not_serve_and_is_tried_again_in_a_minute():
    bench = bench_of(steady((0, 400), (20, 200), (30, 400)), busy_s=1000)
    loop = asyncio.get_running_loop()
    loop.call_later(22, lambda: bench.balancer.failures.update(admit="the socket is gone"))
    loop.call_later(45, bench.balancer.failures.clear)
    await bench.run(110)
    returns = [at for at, verb, _ in verbs(bench) if verb is Verb.RETURN]
    assert returns == [30, 90]
    assert bench.column("in_service") == [4, 4, 4, *[2] * 7, 4, 4]
    told = [(at, text) for at, kind, text in bench.events() if kind == "return_failed"]
    assert [at for at, _ in told] == [30]
    assert told[0][1].endswith(": the socket is gone")


@virtual
async def test_a_new_vm_that_the_balancer_does_not_admit_is_told_of():
    bench = bench_of(100, running=0, vms=1)
    bench.balancer.failures["admit"] = "the socket is gone"
    await bench.run(60)
    assert set(bench.column("in_service")) == {0}
    assert bench.log.texts("balancer_failed") == ["the socket is gone"]
    assert bench.log.texts("balancer_recovered") == []
    assert status_lines(status(bench.daemon))["web load balancer"][1].endswith(": the socket is gone")
    bench.balancer.failures.clear()
    bench.records.clear()
    await bench.run(20)
    assert bench.column("in_service")[-1] == 1


@virtual
async def test_a_balancer_that_is_well_again_is_told_of():
    bench = bench_of(100, running=0, vms=1)
    bench.balancer.failures["admit"] = "the socket is gone"
    asyncio.get_running_loop().call_later(35, bench.balancer.failures.clear)
    await bench.run(60)
    assert bench.column("in_service")[-1] == 1
    assert bench.log.texts("balancer_failed") == ["the socket is gone"]
    assert bench.log.texts("balancer_recovered") == ["the balancer does what it is asked again"]
    assert "web load balancer" not in status_lines(status(bench.daemon))


@virtual
async def test_paused_stops_hold_those_that_are_idle_too():
    bench = bench_of(steady((0, 400), (20, 200)))
    Commands(bench).at(25, "pause", asked("web", reason="x"), STOP)
    await bench.run(100)
    assert verbs(bench) == [(20, Verb.DRAIN, 2)]
    assert bench.column("draining")[-1] == 2


@pytest.mark.parametrize("busy_s", [0, 300])
def test_after_a_crash_draining_goes_on_and_nothing_is_put_back(busy_s):
    @virtual
    async def lives():
        bench = bench_of(steady((0, 400), (20, 200)), busy_s=busy_s)
        await bench.run(25)
        assert verbs(bench) == [(20, Verb.DRAIN, 2)]
        put(bench, 200)
        bench.records.clear()
        await bench.run(400)
        assert [kind for _, kind, _ in bench.events()].count("drain_resumed") == 2
        assert bench.column("draining")[0] == 2
        stops = [(at, count) for at, verb, count in verbs(bench) if verb is Verb.STOP]
        assert stops == ([(40, 2)] if busy_s == 0 else [(140, 2)])
        assert Verb.RETURN not in {verb for _, verb, _ in verbs(bench)}

    lives()


@virtual
async def test_draining_goes_on_after_a_restart_whose_first_listings_fail():
    bench = bench_of(steady((0, 400), (20, 200)), busy_s=300)
    await bench.run(25)
    broken = Fault(
        FaultKind.API_ERROR, start_s=25, end_s=45, code="Unavailable", actions=("DescribeInstances",)
    )
    bench.world.add_fault(broken)
    put(bench, 200)
    await bench.run(100)
    assert [(at, kind) for at, kind, _ in bench.events() if kind == "drain_resumed"] == [
        (50, "drain_resumed")
    ] * 2


@virtual
async def test_a_stop_that_is_refused_brings_the_vm_back_through_the_balancer():
    bench = bench_of(steady((0, 400), (20, 200), (41, 400)))
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, end_s=45, code="OperationNotPermitted", actions=("StopInstances",))
    )
    await bench.run(80)
    assert bench.column("in_service")[-1] == 4
    assert bench.balancer.cordoned == {}


@virtual
async def test_somebody_who_puts_a_draining_vm_back_is_noticed_and_it_is_not_stopped_with_work():
    bench = bench_of(steady((0, 400), (20, 200)), busy_s=1000, drain={"timeout": "10m"})

    def undone(second):
        if second == 40:
            bench.balancer._cordoned_at_s.clear()
        return 200 if second >= 20 else 400

    put(bench, undone, drain={"timeout": "10m"})
    await bench.run(80)
    assert [at for at, kind, _ in bench.events() if kind == "drain_undone"] == [40, 40]
    assert len(bench.balancer.cordoned) == 2
    assert bench.changes() == []


@virtual
async def test_after_a_restart_vms_that_could_not_be_cordoned_serve_on():
    bench = bench_of(steady((0, 400), (20, 200)))
    bench.balancer.failures["cordon"] = "permission denied"
    await bench.run(40)
    assert [verb for _, verb, _ in verbs(bench)] == [Verb.DRAIN]
    await bench.clock.sleep_until(bench.clock.monotonic() + 130)
    put(bench, 200)
    bench.records.clear()
    await bench.run(300)
    assert bench.column("in_service")[1:] == [4] * 30
    assert {verb for _, verb, _ in verbs(bench)} == {Verb.DRAIN}
    assert bench.changes() == []


@virtual
async def test_a_draining_vm_that_somebody_put_back_and_that_cannot_be_cordoned_again_is_not_stopped():
    bench = bench_of(0, running=2, busy_s=1000)

    def undone(second):
        if second == 40:
            bench.balancer._cordoned_at_s.clear()
            bench.balancer.failures["cordon"] = "permission denied"
        return 100 if second >= 20 else 200

    put(bench, undone)
    await bench.run(145)
    assert verbs(bench)[:2] == [(20, Verb.DRAIN, 1), (140, Verb.RETURN, 1)]
    assert bench.actions()[1].intent.reason.startswith("not seen cordoned within 120 s")
    assert bench.changes() == []


@virtual
async def test_one_whose_time_went_by_while_no_daemon_ran_gets_it_anew():
    bench = bench_of(steady((0, 400), (20, 200)), busy_s=1000)
    await bench.run(25)
    await bench.clock.sleep_until(bench.clock.monotonic() + 400)
    put(bench, 200)
    began = bench.clock.now() - ORIGIN_S
    await bench.run(150)
    (stop,) = [at for at, verb, _ in verbs(bench) if verb is Verb.STOP]
    assert stop >= began + 120


@virtual
async def test_those_that_come_back_are_waited_for_while_the_balancer_checks_their_health():
    demand = steady((0, 400), (60, 200), (90, 400))
    bench = bench_of(demand, running=0, vms=7)
    bench.balancer = Checking(bench.clock, busy_s=1000)
    put(bench, demand)
    await bench.run(200)
    assert verbs(bench) == [(0, Verb.START, 4), (60, Verb.DRAIN, 2), (90, Verb.RETURN, 2)]
    assert bench.column("in_service")[9:13] == [2, 2, 4, 4]
    assert bench.column("starting")[9:13] == [0, 2, 0, 0]
    assert [kind for _, kind, _ in bench.events()] == []
    # Being brought back is not a start, so no start time is learned from it.
    timers = bench.daemon.fleets.by_name["web"].inventory.timers
    assert len(timers.unready.times_s) == 4
    assert max(timers.unready.times_s) < 40


@virtual
async def test_a_vm_that_is_protected_while_it_drains_serves_again_and_is_not_stopped():
    bench = bench_of(steady((0, 400), (20, 200)), busy_s=40)

    async def protect():
        first = min(vm.id for vm in bench.daemon.fleets.by_name["web"].inventory.vms_in(Phase.DRAINING))
        await bench.provider.tag([first], {PROTECTED_TAG: "alice"})

    protecting = []
    loop = asyncio.get_running_loop()
    loop.call_later(35, lambda: protecting.append(asyncio.ensure_future(protect())))
    await bench.run(120)
    assert verbs(bench) == [
        (20, Verb.DRAIN, 2),
        (40, Verb.RETURN, 1),
        (50, Verb.DRAIN, 1),
        (70, Verb.STOP, 1),
        (100, Verb.STOP, 1),
    ]
    serving = bench.daemon.fleets.by_name["web"].inventory.vms_in(Phase.IN_SERVICE)
    assert any(PROTECTED_TAG in vm.tags for vm in serving)


class Unheard(SimulatedBalancer):
    """A balancer that carries out orders, but whose answers to the first cordons are lost or late."""

    answers_at_once = False
    late_s, lost = 0.0, 0

    async def cordon(self, vms):
        self.lost -= 1
        lost = self.lost >= 0
        if self.late_s:
            await self._clock.sleep_until(self._clock.monotonic() + (self.late_s if lost else 1.0))
        view = await super().cordon(vms)
        return RotationView({}, view.read_at_s, "no answer") if lost else view


@virtual
async def test_a_vm_that_was_cordoned_though_nobody_heard_of_it_is_taken_back():
    demand = steady((0, 400), (20, 200), (25, 400))
    bench = bench_of(demand)
    bench.balancer = Unheard(bench.clock)
    bench.balancer.lost = 1
    put(bench, demand)
    await bench.run(60)
    assert [(at, verb) for at, verb, _ in verbs(bench)] == [(20, Verb.DRAIN)]
    assert bench.column("in_service") == [4] * 7
    assert bench.balancer.cordoned == {}


@virtual
async def test_an_answer_that_comes_back_while_the_next_tick_asks_again_fails_no_tick():
    bench = bench_of(steady((0, 400), (20, 200)))
    bench.balancer = Unheard(bench.clock)
    bench.balancer.lost, bench.balancer.late_s = 1, 10.3
    put(bench, steady((0, 400), (20, 200)))
    await bench.run(140)
    assert "tick_failed" not in bench.log.events()
    assert bench.column("in_service")[-1] == 2
