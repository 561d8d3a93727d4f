"""From journal to timeline, baselines and recoveries, each against cases computed by hand."""

import asyncio
import math

import numpy as np
import pytest

from autoscaler.config.guarding import GuardsSection
from autoscaler.core.types import Stage
from autoscaler.ports import ActionIntent, FleetTick, Outcome, OutcomeKind, Settled, TickRecord, Verb
from autoscaler.simulator.judging.baselines import always_on, describe, plain_reactive
from autoscaler.simulator.judging.recovery import recoveries
from autoscaler.simulator.replay.recording import demand_of, timeline
from autoscaler.simulator.replay.timeline import totals
from autoscaler.store import SqliteJournal
from tests.simulator.builders import BEGIN_S, policy, row

NAN = math.nan


def fleet_tick(fleet="web", **changes):
    ordinary = {
        "fleet": fleet, "demand": 250.0, "observed_at_s": BEGIN_S, "freshness": 0, "coverage": 1.0, "censored": False,
        "in_service": 3, "starting": 0, "draining": 0, "stopping": 0, "stopped": 7, "provisioned": 10, "stoppable": 3,
        "forecast": 250.0, "forecast_hi": 280.0, "wish": 3, "desired": 3, "start": 0, "provision": 0, "stop": 0,
        "warm_target": 2, "capacity": 300.0, "shortage": 0.0, "cost": 0.0, "stages": (3,) * len(Stage),
        "reasons": (0,) * len(Stage), "sentence": "holding 3", "source_error": "",
    }  # fmt: skip
    return FleetTick(**{**ordinary, **changes})


@pytest.fixture(name="journal")
def _journal():
    """Three ticks: 4 starts ordered in the first, of which the provider refused one, and 1 stop in the second."""
    journal = SqliteJournal(":memory:", inline=True)

    async def fill():
        start = ActionIntent("web", Verb.START, ("i-1", "i-2"), 2, "", "more")
        more = ActionIntent("web", Verb.START, ("i-3", "i-4"), 2, "", "more")
        other = ActionIntent("api", Verb.START, ("i-9",), 1, "", "more")
        ticks = [
            (fleet_tick(cost=9.0, start=4), [start, more, other]),
            (
                fleet_tick(cost=0.25, in_service=7, capacity=700.0, demand=NAN, stop=1),
                [ActionIntent("web", Verb.STOP, ("i-1",), 1, "", "")],
            ),
            (fleet_tick(cost=0.5), []),
        ]
        for number, (tick, intents) in enumerate(ticks):
            record = TickRecord(177_240_960 + number, BEGIN_S + 10.0 * number, (fleet_tick("api"), tick))
            for key, intent in zip(await journal.record_tick(record, intents), intents, strict=True):
                kinds = {"i-4": OutcomeKind.NO_CAPACITY}
                outcomes = [Outcome(vm, kinds.get(vm, OutcomeKind.ACCEPTED)) for vm in intent.vm_ids]
                await journal.record_outcomes([Settled(key, record.at_s + 1.0, outcomes)])

    asyncio.run(fill())
    yield journal
    asyncio.run(journal.close())


def test_a_row_takes_its_cost_from_the_tick_that_closes_it_and_its_starts_from_outcomes(journal):
    with journal.reader() as reader:
        rows = timeline(reader, "web", BEGIN_S, BEGIN_S + 100)
    assert [r.timestamp_s for r in rows] == [BEGIN_S, BEGIN_S + 10]
    assert [r.cost for r in rows] == [0.25, 0.5]
    assert [(r.starts, r.stops, r.provisions) for r in rows] == [(3, 0, 0), (0, 1, 0)]
    assert [r.capacity for r in rows] == [300.0, 600.0]
    assert [r.in_service for r in rows] == [3, 7]
    assert math.isnan(rows[1].demand)
    assert math.isnan(rows[1].shortage)


def test_shortage_is_of_the_true_demand_where_that_is_known(journal):
    def truth(start_s, end_s):
        assert end_s - start_s == 10.0
        return 400.0 + (start_s - BEGIN_S)

    with journal.reader() as reader:
        rows = timeline(reader, "web", BEGIN_S, BEGIN_S + 100, truth)
    assert [(r.demand, r.shortage) for r in rows] == [(400.0, 100.0), (410.0, 0.0)]


def test_the_range_is_half_open_and_one_tick_makes_no_row(journal):
    with journal.reader() as reader:
        assert len(timeline(reader, "web", BEGIN_S, BEGIN_S + 20)) == 1
        assert timeline(reader, "web", BEGIN_S, BEGIN_S + 10) == ()
        assert timeline(reader, "nobody", BEGIN_S, BEGIN_S + 100) == ()


@pytest.mark.parametrize(
    ("stop", "draining", "verbs", "capacity"),
    [
        (2, 0, {Verb.STOP: 2}, 500.0),
        (2, 0, {Verb.STOP: 1}, 600.0),
        (0, 0, {Verb.STOP: 1}, 700.0),
        (2, 0, {Verb.DRAIN: 2}, 500.0),
        (1, 3, {Verb.DRAIN: 1, Verb.STOP: 2}, 600.0),
        (1, 3, {Verb.STOP: 3}, 700.0),
    ],
    ids=["stopped", "one refused", "never in service", "drained", "drained, and two that had", "only those that had"],
)  # fmt: skip
def test_the_capacity_of_a_row_is_without_the_vms_that_leave_at_its_start(stop, draining, verbs, capacity):
    async def fill():
        journal = SqliteJournal(":memory:", inline=True)
        seen = fleet_tick(in_service=7, capacity=700.0, demand=650.0, stop=stop, draining=draining)
        vms = {verb: tuple(f"i-{verb}-{at}" for at in range(many)) for verb, many in verbs.items()}
        intents = [ActionIntent("web", verb, ids, len(ids), "", "") for verb, ids in vms.items()]
        keys = await journal.record_tick(TickRecord(1, BEGIN_S, (seen,)), intents)
        for key, ids in zip(keys, vms.values(), strict=True):
            await journal.record_outcomes(
                [Settled(key, BEGIN_S, [Outcome(vm, OutcomeKind.ACCEPTED) for vm in ids])]
            )
        await journal.record_tick(TickRecord(3, BEGIN_S + 20.0, (seen,)), [])
        return journal

    journal = asyncio.run(fill())
    with journal.reader() as reader:
        rows = timeline(reader, "web", BEGIN_S, BEGIN_S + 1000)
    asyncio.run(journal.close())
    assert [row.capacity for row in rows] == pytest.approx([capacity] * 2)
    assert rows[0].shortage == pytest.approx(max(650.0 - capacity, 0.0))


@pytest.mark.parametrize(("skipped", "rows"), [(0, 1), (2, 3), (30, 1)])
def test_skipped_ticks_have_rows_of_the_same_state_and_a_daemon_that_was_down_has_none(skipped, rows):
    async def fill():
        journal = SqliteJournal(":memory:", inline=True)
        start = ActionIntent("web", Verb.START, ("i-1",), 1, "", "more")
        for number, cost in ((0, 0.0), (1 + skipped, 0.6)):
            record = TickRecord(
                100 + number, BEGIN_S + 10.0 * number, (fleet_tick(cost=cost, start=1 - bool(number)),)
            )
            intents = [] if number else [start]
            for key in await journal.record_tick(record, intents):
                await journal.record_outcomes(
                    [Settled(key, record.at_s, [Outcome("i-1", OutcomeKind.ACCEPTED)])]
                )
        return journal

    journal = asyncio.run(fill())
    with journal.reader() as reader:
        got = timeline(reader, "web", BEGIN_S, BEGIN_S + 1000)
    asyncio.run(journal.close())
    assert len(got) == rows
    assert [r.starts for r in got] == [1] + [0] * (rows - 1)
    assert sum(r.cost for r in got) == pytest.approx(0.6)
    assert {r.in_service for r in got} == {3}
    if rows > 1:
        assert np.diff([r.timestamp_s for r in got]).tolist() == [10.0] * (rows - 1)


def test_demand_between_two_moments_is_the_mean_over_the_recording():
    between = demand_of(lambda at_s: at_s - BEGIN_S, 100.0, 10.0)
    assert between(BEGIN_S, BEGIN_S + 10) == pytest.approx(105.0)
    assert between(BEGIN_S, BEGIN_S + 1000) == pytest.approx(600.0)
    unknown = demand_of(lambda at_s: np.where(at_s < BEGIN_S + 5, 1.0, NAN), 0.0, 10.0)
    assert math.isnan(unknown(BEGIN_S, BEGIN_S + 10))


def test_always_on_has_the_vms_of_the_peak_and_pays_for_those():
    rows = always_on([row(0, demand=250.0), row(1, demand=NAN), row(2, demand=801.0)], policy(), 10.0)
    assert {(r.in_service, r.capacity, r.starts, r.stops, r.stopped) for r in rows} == {(9, 900.0, 0, 0, 0)}
    # 9 VMs for 10 s at 3.60 in service and 0.36 of storage an hour.
    assert [r.cost for r in rows] == pytest.approx([0.099] * 3)
    assert [r.shortage for r in rows][::2] == [0.0, 0.0]
    assert math.isnan(rows[1].shortage)
    assert totals(rows, 10.0).cost == pytest.approx(0.297)


def test_always_on_needs_no_more_for_an_exact_fit_and_no_fewer_than_the_minimum():
    assert always_on([row(0, demand=900.0)], policy(), 10.0)[0].in_service == 9
    assert always_on([row(0, demand=900.1)], policy(), 10.0)[0].in_service == 10
    assert always_on([row(0, demand=0.0)], policy(bounds={"minimum": 4}), 10.0)[0].in_service == 4
    assert always_on([], policy(), 10.0) == ()


def test_plain_reactive_is_the_same_fleet_without_looking_ahead():
    mine = policy(steps=[{"above": "80%", "change": "+1"}], guards={"cooldown_in": "10m"})
    plain = plain_reactive(mine)
    assert (plain.forecast, plain.steps, plain.schedule) == (None, (), ())
    assert (plain.reactive.headroom, plain.reactive.tolerance) == (0.3, 0.1)
    assert (plain.bounds, plain.guards, plain.prices, plain.vm) == (
        mine.bounds,
        mine.guards,
        mine.prices,
        mine.vm,
    )
    assert describe(plain) == "demand + 30%"
    assert describe(mine) == "demand + 20%, forecast 95%, steps"


def test_plain_reactive_of_a_policy_with_an_objective_goes_by_demand_with_the_usual_guards():
    plain = plain_reactive(policy(objective={"served": "99.9%"}, guards={"minimum_on_time": "90s"}))
    assert plain.objective is None
    usual = GuardsSection()
    assert plain.guards.stabilisation_s == usual.stabilisation_s == 300.0
    assert (plain.guards.rate_in, plain.guards.cooldown_in_s) == (usual.rate_in, usual.cooldown_in_s)
    assert plain.guards.minimum_on_time_s == 90.0


def short(number, demand, in_service=3, **changes):
    capacity = 100.0 * in_service
    shortage = max(demand - capacity, 0.0)
    return row(number, demand=demand, in_service=in_service, capacity=capacity, shortage=shortage, **changes)


def test_a_recovery_runs_from_the_last_rise_above_what_was_ordered():
    rows = [
        short(0, 250.0),
        short(1, 500.0, starts=0),  # above the 3 in service, nothing ordered
        short(2, 500.0, starts=2),  # 2 ordered: 500 is within what is ordered
        short(3, 600.0, starting=2),  # above the 5 ordered: the last rise
        short(4, 600.0, starting=2, starts=1),
        short(5, 600.0, in_service=5, starting=1),
        short(6, 600.0, in_service=6),
    ]
    (found,) = recoveries(rows, 100.0, 10.0)
    assert (found.episode.start_s, found.episode.end_s) == (BEGIN_S + 10, BEGIN_S + 60)
    assert found.last_rise_s == BEGIN_S + 30
    assert found.took_s == 30.0


def test_vms_made_from_nothing_are_ordered_too():
    rows = [
        short(0, 500.0),
        short(1, 500.0, provisions=2),
        short(2, 500.0, starting=2),
        short(3, 500.0, in_service=5),
    ]
    (found,) = recoveries(rows, 100.0, 10.0)
    assert (found.last_rise_s, found.took_s) == (BEGIN_S, 30.0)


def test_without_a_rise_an_episode_counts_from_its_start():
    rows = [short(0, 250.0), short(1, 250.0, in_service=2, starting=1), short(2, 250.0)]
    (found,) = recoveries(rows, 100.0, 10.0)
    assert (found.last_rise_s, found.took_s) == (BEGIN_S + 10, 10.0)
    assert recoveries([short(0, 250.0), short(1, 300.0)], 100.0, 10.0) == ()


def test_each_episode_has_its_own_rise():
    rows = [
        short(0, 400.0),
        short(1, 400.0, starts=1),
        short(2, 250.0, in_service=4),
        short(3, 900.0, in_service=4),
        short(4, 250.0),
    ]
    first, second = recoveries(rows, 100.0, 10.0)
    assert (first.last_rise_s, first.took_s) == (BEGIN_S, 20.0)
    assert (second.last_rise_s, second.took_s) == (BEGIN_S + 30, 10.0)
