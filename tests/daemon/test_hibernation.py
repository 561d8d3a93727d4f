"""Hibernation: which VMs keep their memory, what follows a refusal, its cost, and memories that grow old."""

from dataclasses import replace

import pytest

from autoscaler.cloud.billing import Prices as WorldPrices
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Spread
from autoscaler.cloud.vms import LaunchData
from autoscaler.core.learned.lead_time import Span, StartSource
from autoscaler.daemon.vms.hibernation import Hibernation
from autoscaler.daemon.vms.holdings import Holdings
from autoscaler.daemon.vms.saved_memory import KEPT_S, resumes, saved_at_s
from autoscaler.daemon.vms.tracked import Phase, TrackedVm
from autoscaler.ports import HIBERNATED_REASON, Verb, Vm, VmState
from tests.daemon.builders import EXACT, ORIGIN_S, Bench, policy, steady, virtual
from tests.daemon.pools import PROVISION, TOTAL, chores

DAY = 86_400
PHYSICS = replace(EXACT, hibernate=Spread(60), resume=Spread(9), wake=Spread(1))
TWO_ONE_TWO = steady((0, 200), (100, 100), (400, 200))


def able_bench(demand, *, able=2, unable=0, state="running", hibernate=True, physics=PHYSICS, **changes):
    tick_s = changes.pop("tick_s", 10.0)
    bench = Bench(vms=0, physics=physics, tick_s=tick_s, zones="a", prices=WorldPrices(3600, 36, 5))
    bench.able = bench.world.provision(ORIGIN_S, "web", able, state=state, hibernation=True)
    bench.unable = bench.world.provision(ORIGIN_S, "web", unable, state="running") if unable else ()
    own = {"signal": TOTAL, **changes}
    if hibernate:
        own["warm_pool"] = {"hibernate": {}} | changes.get("warm_pool", {})
    bench.add(policy(**own), demand)
    return bench


def hibernating(bench):
    views = bench.world.views(bench.clock.now())
    return [vm.id for vm in views if vm.reason_code == HIBERNATED_REASON]


def stopped(bench):
    return [vm.id for vm in bench.world.views(bench.clock.now()) if vm.state == "stopped"]


def events(bench, *kinds):
    return [text for _, kind, text in bench.events() if kind in kinds]


@virtual
async def test_what_served_is_hibernated_and_comes_back_in_its_own_time():
    bench = able_bench(TWO_ONE_TWO)
    await bench.run(300)
    assert len(hibernating(bench)) == 1
    assert hibernating(bench) == stopped(bench)
    await bench.run(300)
    assert hibernating(bench) == []
    times = bench.daemon.fleets.learning.lead_times
    assert times.evidence(Span.WHOLE, StartSource.HIBERNATED)[0] == pytest.approx(1, abs=0.01)
    assert times.evidence(Span.WHOLE, StartSource.STOPPED)[0] == 0
    assert times.quantile(0.5, Span.WHOLE, StartSource.HIBERNATED)[0] == pytest.approx(10, rel=0.1)


@virtual
async def test_without_the_policys_word_nothing_is_hibernated():
    bench = able_bench(TWO_ONE_TWO, hibernate=False)
    await bench.run(300)
    assert (hibernating(bench), len(stopped(bench))) == ([], 1)


@virtual
async def test_what_was_not_launched_for_it_is_stopped_plainly_without_asking():
    bench = able_bench(steady((0, 400), (100, 0)), able=2, unable=2)
    await bench.run(300)
    assert sorted(hibernating(bench)) == sorted(bench.able)
    assert len(stopped(bench)) == 4
    assert {code for *_, code in bench.calls("StopInstances")} == {""}
    assert events(bench, "hibernate_refused") == []


@virtual
async def test_what_the_provider_refuses_to_hibernate_is_stopped_at_once_and_never_asked_again():
    bench = able_bench(steady((0, 300), (100, 0), (300, 300), (600, 0)), able=3)
    odd = bench.able[1]
    bench.world.add_fault(Fault(FaultKind.NO_HIBERNATION, vm_ids=(odd,)))
    await bench.run(900)
    assert sorted(hibernating(bench)) == sorted(set(bench.able) - {odd})
    assert sorted(stopped(bench)) == sorted(bench.able)
    code = "UnsupportedHibernationConfiguration"
    asked = [(s < 300, c) for s, *_, c in bench.calls("StopInstances")]
    # The first time it is removed from the batch; the second time it is stopped without hibernation.
    assert asked == [(True, code), (True, ""), (True, ""), (False, ""), (False, "")]
    (told,) = events(bench, "hibernate_refused")
    assert odd in told
    assert "replace the VM" in told
    assert not any(events(bench, "stop_not_accepted"))


@virtual
async def test_one_that_never_served_or_served_badly_is_stopped_plainly():
    served, late, slow = (TrackedVm(_row(name), Phase.IN_SERVICE, 0.0) for name in ("i-1", "i-2", "i-3"))
    late.phase, slow.quarantined_until_s = Phase.RUNNING, 100.0
    own = Hibernation(policy(warm_pool={"hibernate": {}}).warm_pool.hibernate)
    assert own.of_stops(Holdings(), [served, late, slow], 50.0) == {"i-1"}
    assert own.of_stops(Holdings(), [served, late, slow], 100.0) == {"i-1", "i-3"}
    assert Hibernation(None).of_stops(Holdings(), [served], 50.0) == frozenset()


def _row(vm_id, state=VmState.RUNNING, **fields):
    return Vm(vm_id, "web", state, "m", "a", None, 0.0, "ami", may_hibernate=True, **fields)


@virtual
async def test_the_bill_of_the_daemon_is_the_worlds_to_the_end_of_saving():
    bench = able_bench(steady((0, 200), (100, 0)), tick_s=1.0)
    await bench.run(300)
    world = bench.world.bill(bench.clock.now())
    ours = bench.daemon.fleets.by_name["web"].meter.total
    assert world.running_s == pytest.approx(2 * 160, abs=6)  # a minute longer than an ordinary stop
    assert ours.running_s == pytest.approx(world.running_s, abs=4)


# ── into the pool ───────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_new_vm_waits_until_it_can_hibernate_before_it_enters_the_pool():
    bench = able_bench(0, able=0, provision=PROVISION, refill={"calm": "0s"}, warm_pool={"minimum": 1})
    data = LaunchData(image="ami-0000000a", vm_type="m7i.large", hibernation=True)
    bench.world.templates.create(bench.world.new_id("lt"), "web", data, ORIGIN_S)
    await bench.run(500)
    assert hibernating(bench) == stopped(bench)
    assert len(stopped(bench)) == 1
    codes = [c for *_, c in bench.calls("StopInstances")]
    assert codes[-1] == ""
    assert set(codes[:-1]) == {"UnsupportedOperation"}
    assert len(codes) <= 4
    assert events(bench, "stop_not_accepted") == []
    assert len(events(bench, "hibernate_refused")) == 1


@virtual
async def test_one_that_never_becomes_able_enters_the_pool_without_its_memory():
    physics = replace(PHYSICS, may_hibernate_after_s=1e9)
    bench = able_bench(
        0, able=0, physics=physics, provision=PROVISION, refill={"calm": "0s"}, warm_pool={"minimum": 1}
    )
    data = LaunchData(image="ami-0000000a", vm_type="m7i.large", hibernation=True)
    bench.world.templates.create(bench.world.new_id("lt"), "web", data, ORIGIN_S)
    await bench.run(900)
    assert hibernating(bench) == []
    assert len(stopped(bench)) == 1
    refused_s = [s for s, _, _, c in bench.calls("StopInstances") if c]
    assert 600 <= refused_s[-1] - refused_s[0] <= 680


# ── memories that grow old ──────────────────────────────────────────────────────────────────────────────

WINDOW = {"windows": [{"from": "03:00", "to": "04:00", "time_zone": "UTC"}]}


def old_bench(**changes):
    """A bench with ticks of five minutes, in which one VM serves and one hibernates for two days."""
    own = {"hibernate": {"renew_after": "2d"}}
    return able_bench(steady((0, 200), (900, 100)), tick_s=300.0, warm_pool=own, **changes)


def days(rows):
    return [at_s / DAY for at_s, *_ in rows]


@virtual
async def test_a_memory_is_renewed_in_time_and_the_vm_hibernates_again():
    bench = old_bench()
    await bench.run(2.5 * DAY)
    tried = chores(bench, Verb.EXERCISE)
    assert days(tried) == pytest.approx([2], abs=0.1)
    assert "2 days ago" in tried[0][3]
    assert hibernating(bench) == stopped(bench)
    assert len(stopped(bench)) == 1
    (vm,) = [v for v in bench.daemon.fleets.by_name["web"].inventory.vms.values() if v.vm.hibernates]
    assert bench.clock.now() - saved_at_s(vm.vm) < 0.6 * DAY


@virtual
async def test_it_waits_for_a_quiet_window():
    bench = old_bench(freshness={"exercise": {"every": "59d", **WINDOW}})
    await bench.run(3.3 * DAY)
    ((at_s, *_),) = chores(bench, Verb.EXERCISE)
    assert 2 <= at_s / DAY < 3.2
    assert 3 <= (ORIGIN_S + at_s) % DAY / 3600 < 4


def test_what_is_about_to_be_lost_waits_for_no_window():
    own = Hibernation(policy(warm_pool={"hibernate": {"renew_after": "40d"}}).warm_pool.hibernate)

    def renewed(age_days, *, quiet):
        row = _row("i-1", VmState.STOPPED, state_reason=HIBERNATED_REASON, stopped_at_s=0.0)
        return list(own.to_renew([TrackedVm(row, Phase.STOPPED, 0.0)], age_days * DAY, quiet=quiet))

    assert [renewed(age, quiet=True) for age in (39.9, 40)] == [[], ["i-1"]]
    assert [renewed(age, quiet=False) for age in (40, 56.9, 57)] == [[], [], ["i-1"]]


def test_a_memory_older_than_sixty_days_is_none_and_that_is_told_once():
    row = _row("i-1", VmState.STOPPED, state_reason=HIBERNATED_REASON, stopped_at_s=1000.0)
    assert [resumes(row, 1000 + s) for s in (KEPT_S - 1, KEPT_S)] == [True, False]
    assert saved_at_s(replace(row, stopped_at_s=None)) == row.launched_at_s
    assert saved_at_s(replace(row, state_reason="Client.UserInitiatedShutdown")) is None
    t = TrackedVm(row, Phase.STOPPED, 0.0)
    t.start_ordered(1000 + KEPT_S)
    assert t.source is StartSource.STOPPED
    own = Hibernation(policy(warm_pool={"hibernate": {}}).warm_pool.hibernate)
    told = [len(own.lost("web", [t], 1000 + KEPT_S + s)) for s in (-1, 0, 10)]
    assert told == [0, 1, 0]


def test_a_hibernated_vm_is_not_started_as_another_type():
    row = _row("i-1", VmState.STOPPED, state_reason=HIBERNATED_REASON, stopped_at_s=0.0)
    for vm, wanted in ((row, []), (replace(row, state_reason=""), ["n"])):
        holdings = Holdings()
        holdings.types = ("m", "n")
        holdings.vms[vm.id] = TrackedVm(vm, Phase.STOPPED, 0.0)
        holdings.places.found_dry("m", "a", 0.0)
        assert [vm_type for _, vm_type in holdings.startable_as(1.0)] == wanted
