"""After a restart, orders of the previous run count until a listing must show them, whatever their outcome."""

import math

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.ports import ActionIntent, Outcome, OutcomeKind, Settled, TickRecord, Verb
from autoscaler.providers.coalescing import SharedReader
from autoscaler.providers.shadow import ShadowProvider
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy, steady, virtual

TOTAL = {"kind": "total"}
PROVISION = {"launch_template": "web", "maximum": 10}
LAGGING = Fault(FaultKind.LISTING_LAG, delay_s=12.0)


async def ordered(bench, verb, vm_ids, at_s, outcomes=None, count=0):
    """Record an order of an earlier run, with its outcomes if the run still learned them."""
    intent = ActionIntent("web", verb, tuple(vm_ids), count or len(vm_ids), "", "an earlier run")
    record = TickRecord(TICK_0 + at_s, ORIGIN_S + at_s, ())
    (number,) = await bench.journal.record_tick(record, [intent])
    if outcomes is not None:
        await bench.journal.record_outcomes([Settled(number, ORIGIN_S + at_s, outcomes)])


def texts(bench, kind):
    return [(at, text) for at, each, text in bench.events() if each == kind]


@virtual
async def test_a_start_that_was_accepted_counts_while_listings_lag_and_a_refused_one_does_not():
    bench = Bench(vms=3, zones="a", faults=[LAGGING])
    done, bad, _ = bench.ids
    bench.world.start(ORIGIN_S + 15, [done])
    outcomes = [Outcome(done, OutcomeKind.ACCEPTED), Outcome(bad, OutcomeKind.REFUSED, "Bad")]
    await ordered(bench, Verb.START, [done, bad], 15, outcomes)
    await bench.clock.sleep_until(20)
    bench.add(policy(signal=TOTAL), 200)
    await bench.run(60)
    # Two wanted: one is on its way, although the first listing shows it as it was before.
    assert bench.rows()[0].starting == 1
    later = [action.intent.vm_ids for action in bench.actions()[1:]]
    assert len(later) == 1
    assert len(later[0]) == 1
    assert done not in later[0]
    assert bench.column("in_service")[-1] == 2
    # Its outcome was known, so nothing is reported.
    assert texts(bench, "action_settled") == []


@virtual
async def test_a_vm_that_was_made_counts_once_while_listings_lag():
    bench = Bench(vms=0, zones="a")
    await ordered(bench, Verb.PROVISION, (), 15, [Outcome("i-made", OutcomeKind.ACCEPTED)], count=1)
    await bench.clock.sleep_until(20)
    bench.add(policy(signal=TOTAL, provision=PROVISION), 100)
    await bench.run(20)
    assert [(row.starting, row.provisioned) for row in bench.rows()] == [(1, 1)] * 3
    assert bench.calls("RunInstances") == []


@virtual
async def test_what_was_left_open_is_settled_also_where_its_vms_or_its_fleet_are_gone():
    bench = Bench(vms=1, zones="a")
    await ordered(bench, Verb.START, ["i-gone"], 15)
    await bench.clock.sleep_until(300)
    bench.add(policy(signal=TOTAL), 0)
    await bench.run(20)
    await ordered(bench, Verb.START, bench.ids, 330)
    bench.setups.clear()
    bench.place("api", 1)
    bench.add(policy("api", signal=TOTAL), 0)
    await bench.clock.sleep_until(700)
    await bench.run(20)
    assert texts(bench, "tick_failed") == []
    assert [text for _, text in texts(bench, "action_settled")] == [
        "start of 1: none of its VMs is listed",
        "start of 1: the fleet is no longer in the policies",
    ]


@virtual
async def test_a_stop_that_was_accepted_is_not_taken_for_somebody_elses():
    """Neither for a VM that served, nor for one that was exercised and goes back into the warm pool."""
    for verb in (Verb.STOP, Verb.STORE):
        bench = Bench(running=2, zones="a", faults=[LAGGING])
        gone = bench.ids[0]
        await bench.clock.sleep_until(bench.clock.monotonic() + 20)
        now_s = round(bench.clock.now() - ORIGIN_S)
        bench.world.stop(bench.clock.now() - 5, [gone])
        await ordered(bench, verb, [gone], now_s - 5, [Outcome(gone, OutcomeKind.ACCEPTED)])
        bench.add(policy(signal=TOTAL), 100)
        await bench.run(60)
        assert set(bench.column("in_service")) == {1}
        assert texts(bench, "stopped_outside") == texts(bench, "tick_failed") == []
        assert [action.intent.verb for action in bench.actions()] == [verb]


@virtual
async def test_only_a_whole_listing_settles_what_was_left_open_and_other_chores_are_not_waited_for():
    bench = Bench(vms=1, running=1, zones="a")
    serving, lost = bench.ids
    bench.world.add_fault(
        Fault(FaultKind.API_ERROR, start_s=35, end_s=75, code="Unavailable", actions=("DescribeInstances",))
    )
    await ordered(bench, Verb.START, [lost], 15)
    await ordered(bench, Verb.DRAIN, [serving], 16)
    await bench.clock.sleep_until(20)
    bench.add(policy(signal=TOTAL), 100)
    await bench.run(80)
    # Until 50 a listing may be older than the order; those at 50, 60 and 70 fail.
    assert texts(bench, "action_settled") == [
        (20, f"drain of 1: {serving} is running"),
        (80, f"start of 1: {lost} is stopped"),
    ]
    assert await bench.journal.recent_actions(math.inf) == ()


def in_shadow(bench, demand, **changes):
    provider = ShadowProvider(
        SharedReader(bench.provider), bench.clock, "web", start_time_s=20.0, stop_time_s=30.0
    )
    bench.add(policy(act=False, signal=TOTAL, **changes), demand, provider=provider)


@virtual
async def test_what_shadow_ordered_is_not_under_way_for_a_daemon_that_acts():
    bench = Bench(vms=1, running=0, zones="a")
    in_shadow(bench, 200, provision=PROVISION)
    await bench.run(5)
    assert [action.intent.verb for action in bench.actions()] == [Verb.START, Verb.PROVISION]
    assert bench.changes() == []
    bench.setups.clear()
    bench.records.clear()
    bench.add(policy(signal=TOTAL, provision=PROVISION), 200)
    await bench.run(40)
    assert (bench.rows()[0].starting, bench.rows()[0].provisioned) == (0, 1)
    assert [call[:3] for call in bench.changes()] == [(5.5, "StartInstances", 1), (5.5, "RunInstances", 1)]
    assert texts(bench, "action_settled") == texts(bench, "start_not_taken") == []


@virtual
async def test_a_stop_that_shadow_ordered_is_not_under_way_for_a_daemon_that_acts():
    bench = Bench(running=3, zones="a")
    in_shadow(bench, steady((0, 300), (20, 100)))
    await bench.run(25)
    assert [action.intent.verb for action in bench.actions()] == [Verb.STOP]
    bench.setups.clear()
    bench.records.clear()
    bench.add(policy(signal=TOTAL), 300)
    await bench.run(20)
    assert set(bench.column("in_service")) == {3}
    assert texts(bench, "stop_not_taken") == []


def test_what_shadow_asks_for_says_so_and_a_fleet_of_that_name_is_not_in_shadow():
    assert ActionIntent("web", Verb.STOP, ("i-1",), 1, "", "why").in_shadow().simulated
    real = ActionIntent("shadow", Verb.PROVISION, (), 1, "shadow-0a1b2c-17-1", "why")
    assert not real.simulated
    assert real.in_shadow().token == "shadow:shadow-0a1b2c-17-1"
    assert real.in_shadow().in_shadow() == real.in_shadow()
    assert not ActionIntent("web", Verb.REFILL, (), 1, "web-r0a1b2c-17-1", "why").in_shadow().simulated
