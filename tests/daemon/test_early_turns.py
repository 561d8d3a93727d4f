"""Early turns: what is decided within a tick, for which fleets, how often, and what stays the same for the others."""

import asyncio

import numpy as np
import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.core.types import Signal
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.waking import Cause, LoopSleep, needs_more
from autoscaler.ports.pushing import Intake, PushedSample
from autoscaler.simulator.replay.recording import timeline
from autoscaler.sources.push import PushedSamples
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy, steady, virtual

TOTAL = {"kind": "total", "source": "push", "trace": "off"}


def pushing(bench, fleet="web"):
    pushed = PushedSamples(bench.clock)
    bench.pushed = pushed
    return pushed.source(Intake(fleet, Signal.TOTAL, 30.0))


async def push_at(bench, at_s, value, fleet="web"):
    """Push one value, and wake the daemon if it needs more VMs, as the site does."""
    await bench.clock.sleep_until(at_s)
    bench.pushed.take([PushedSample(fleet, "", value, bench.clock.now())], {fleet})
    if needs_more(bench.daemon.fleets.by_name[fleet], *bench.pushed.sum_of(fleet), bench.clock.now()):
        bench.daemon.waking.ask([fleet], Cause.PUSH)


async def lived(bench, for_s, *pushes):
    bench.daemon = Daemon(
        bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, bench.records.append
    )
    asyncio.get_running_loop().call_later(for_s + 0.5, bench.daemon.stop)
    tasks = [asyncio.create_task(each) for each in pushes]
    await bench.daemon.run()
    await asyncio.gather(*tasks)


def turns(bench):
    return [
        (round(r.at_s - ORIGIN_S, 3), r.tick - TICK_0, [row.fleet for row in r.fleets]) for r in bench.records
    ]


@virtual
async def test_a_pushed_burst_starts_vms_at_once_and_the_grid_stays():
    bench = Bench(vms=6, zones="a")
    bench.add(policy(signal=TOTAL), pushing(bench))
    await lived(bench, 30, push_at(bench, 5, 0.0), push_at(bench, 13.25, 250.0))
    assert turns(bench) == [
        (0, 0, ["web"]), (10, 1, ["web"]), (13.25, 1, ["web"]), (20, 2, ["web"]), (30, 3, ["web"])
    ]  # fmt: skip
    assert bench.calls("StartInstances") == [(13.25, "StartInstances", 3, "")]
    assert bench.telemetry.registry.get_sample_value("autoscaler_early_turns_total", {"cause": "push"}) == 1
    # The burst's orders count: no regular tick repeats them.
    assert bench.column("starting") == [0, 0, 0, 3, 3]


@virtual
async def test_an_early_turn_asks_the_provider_nothing_and_stops_nothing():
    bench = Bench(vms=2, running=4)
    bench.add(policy(signal=TOTAL), pushing(bench))
    listed = []
    listing = bench.provider.list_vms

    async def counted():
        listed.append(bench.clock.now() - ORIGIN_S)
        return await listing()

    bench.provider.list_vms = counted

    async def drop():
        await push_at(bench, 9, 400.0)
        await push_at(bench, 12, 100.0)
        bench.daemon.waking.ask(["web"], Cause.PUSH)

    await lived(bench, 20, drop())
    assert turns(bench)[2] == (12, 1, ["web"])
    assert listed == [0, 10, 20]
    assert [row.stop for row in bench.rows()][:3] == [0, 0, 0]
    assert bench.rows()[-1].stop == 3


def lives(with_push):
    """Run a fleet with step rules and a forecast next to a pushed one; return its rows, and its forecaster at the end."""
    kept = []

    @virtual
    async def run():
        bench = Bench(vms=6)
        bench.place("api", 12, 1)
        bench.add(policy("web", signal=TOTAL), pushing(bench))
        steps = [{"above": "80%", "change": "+2"}]
        other = policy("api", steps=steps, bounds={"minimum": 1}, guards={"cooldown_out": "15s"})
        bench.add(other.model_copy(update={"reactive": None}), steady((0, 90), (25, 900)))
        pushes = [push_at(bench, 9, 0.0)] + ([push_at(bench, 47, 300.0)] if with_push else [])
        await lived(bench, 60, *pushes)
        kept.append((bench.column("start", "api"), bench.column("forecast_hi", "api"), bench.records))

    run()
    return kept[0]


def test_another_fleet_lives_as_if_there_had_been_no_early_turn():
    starts, forecasts, regular = lives(with_push=False)
    # It would step again in the early turn at 47 s, and its cooldown would then hold the tick at 50 s.
    assert starts == [0, 2, 0, 2, 0, 2, 0]
    with_push = lives(with_push=True)
    early = [record for record in with_push[2] if record.at_s - ORIGIN_S == 47]
    assert [[row.fleet for row in record.fleets] for record in early] == [["web"]]
    assert len(with_push[2]) == len(regular) + 1
    assert with_push[0] == starts
    np.testing.assert_array_equal(with_push[1], forecasts)


@virtual
async def test_a_flood_of_bursts_makes_two_early_turns_and_then_one_every_half_tick():
    bench = Bench(vms=40)
    bench.add(policy(signal=TOTAL, bounds={"maximum": 40}), pushing(bench))
    flood = [push_at(bench, 10.5 + number / 10, 100.0 * (number + 1)) for number in range(35)]
    await lived(bench, 40, push_at(bench, 9.0, 0.0), *flood)
    early = [at for at, _, _ in turns(bench) if at % 10]
    assert early == [10.5, 10.6, 15.5]
    # The flood ends at 13.9; the last request is served together with all others.
    assert sum(vms for _, _, vms, _ in bench.calls("StartInstances")) == 35


@virtual
async def test_each_turn_provisions_under_a_token_of_its_own():
    bench = Bench(vms=1, zones="a")
    bench.add(policy(signal=TOTAL, provision={"launch_template": "web", "maximum": 9}), pushing(bench))
    pushes = [push_at(bench, at, value) for at, value in ((9, 100.0), (12, 200.0), (12.5, 300.0))]
    await lived(bench, 15, *pushes)
    tokens = [action.intent.token for action in bench.actions() if action.intent.verb == "provision"]
    assert bench.calls("RunInstances") == [(12, "RunInstances", 1, ""), (14, "RunInstances", 1, "")]
    assert len(set(tokens)) == 2
    assert all(len(token) <= 64 for token in tokens)


@virtual
async def test_an_operator_woken_turn_lists_and_may_stop():
    bench = Bench(vms=2, running=3)
    bench.add(policy(signal=TOTAL, bounds={"maximum": 3}), pushing(bench))

    async def lower():
        await push_at(bench, 9.0, 300.0)
        await push_at(bench, 14.0, 100.0)
        bench.daemon.waking.ask(["web"], Cause.OPERATOR)

    await lived(bench, 16, lower())
    assert [(at, tick) for at, tick, _ in turns(bench)] == [(0, 0), (10, 1), (14, 1)]
    assert bench.rows()[-1].stop == 2


@virtual
async def test_stop_ends_a_sleep_that_waits_for_the_bucket():
    bench = Bench()
    waking = LoopSleep(bench.clock, 10.0)
    for number in (1, 2):
        waking.ask(["web"], Cause.PUSH)
        assert waking.take().number == number
    waking.ask(None, Cause.PUSH)
    assert waking.take() is None
    asyncio.get_running_loop().call_later(1.0, waking.stop)
    await waking.sleep_to(100.0)
    assert bench.clock.monotonic() == 1.0
    waking.stopping = False
    await waking.sleep_to(100.0)
    assert bench.clock.monotonic() == 5.0
    early = waking.take()
    assert (early.fleets, early.has("any")) == (frozenset(), True)


@pytest.mark.parametrize(
    ("kind", "pushed", "vms", "wakes"),
    [
        ("total", 200.0, 1, False), ("total", 201.0, 1, True),
        ("throughput", 200.0, 2, False), ("throughput", 101.0, 1, True),
        ("utilisation", 1.6, 2, False), ("utilisation", 1.8, 2, True),
    ],
)  # fmt: skip
def test_what_needs_more_vms(kind, pushed, vms, wakes):
    """Computed by hand for two VMs of 100/s in service, without headroom."""

    @virtual
    async def run():
        bench = Bench(vms=3, running=2)
        bench.add(policy(signal={"kind": kind}), 1.6 if kind == "utilisation" else 200)
        await bench.run(1)
        assert needs_more(bench.daemon.fleets.by_name["web"], pushed, vms, bench.clock.now()) is wakes

    run()


@virtual
async def test_nothing_wakes_where_no_vm_could_be_had():
    bench = Bench(vms=0, running=2)
    bench.add(policy(), 200)
    await bench.run(1)
    assert not needs_more(bench.daemon.fleets.by_name["web"], 1e6, 2, bench.clock.now())


@virtual
async def test_a_time_line_counts_each_start_once():
    bench = Bench(vms=6, zones="a")
    bench.add(policy(signal=TOTAL), pushing(bench))
    await lived(bench, 30, push_at(bench, 5, 0.0), push_at(bench, 9.5, 100.0), push_at(bench, 13.25, 250.0))
    with bench.journal.reader() as reader:
        found = [
            (row.timestamp_s - ORIGIN_S, row.starts) for row in timeline(reader, "web", 0, ORIGIN_S + 100)
        ]
    assert found == [(0, 0), (9.5, 1), (10, 0), (13.25, 2), (20, 0)]


QUEUE = {"kind": "queue", "source": "push", "drain_time": "300s", "trace": "off"}


@virtual
async def test_a_pushed_backlog_beyond_what_is_ordered_starts_vms_at_once():
    """By hand: in 8.25 s 90,000 came on top of what two VMs of 100/s worked off, of which a part is believed; and the
    backlog is to be gone in 300 s."""
    bench = Bench(vms=10, running=2, zones="a")
    bench.add(policy(signal=QUEUE, bounds={"minimum": 2}), pushing(bench))
    await lived(bench, 20, push_at(bench, 5, 0.0), push_at(bench, 13.25, 90_000.0))
    believed = (200.0 + 90_000.0 / 8.25) * (1.0 - np.exp(-8.25 / 150.0))
    assert turns(bench)[2] == (13.25, 1, ["web"])
    early = bench.rows()[2]
    assert early.demand == pytest.approx(believed + 300.0)
    assert bench.calls("StartInstances")[0] == (13.25, "StartInstances", 7, "")


@virtual
async def test_a_pushed_backlog_that_those_in_service_work_off_in_time_wakes_nobody():
    bench = Bench(vms=10, running=2, zones="a")
    bench.add(policy(signal=QUEUE, bounds={"minimum": 2}), pushing(bench))
    await lived(bench, 20, push_at(bench, 5, 0.0), push_at(bench, 13.25, 9_000.0))
    assert [at_s for at_s, _, _ in turns(bench)] == [0, 10, 20]


@virtual
async def test_before_the_first_decision_nobody_knows_what_a_backlog_means():
    bench = Bench(vms=10, running=2)
    bench.add(policy(signal=QUEUE), pushing(bench))
    bench.daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    assert not needs_more(bench.daemon.fleets.by_name["web"], 1e9, 1, bench.clock.now())


@virtual
async def test_vms_that_fail_after_a_decision_has_counted_on_them_are_started_elsewhere_at_once():
    slow = Fault(FaultKind.LATENCY, actions=("StartInstances",), delay_s=12, end_s=65)
    dry = Fault(FaultKind.NO_CAPACITY, zone="us-east-1a")
    bench = Bench(vms=4, zones="ab", limits=None, faults=(slow, dry))
    bench.add(policy(signal={"kind": "total"}), steady((0, 0), (60, 200)))
    await bench.run(120)
    started = [(at, vms) for at, _, vms, code in bench.calls("StartInstances") if not code]
    # One in each zone at 60; the one without room is known at 72, and halves do not apply to a single VM.
    assert started == [(60, 1), (72, 1)]
    assert bench.telemetry.early_turns.labels("retry")._value.get() == 1
