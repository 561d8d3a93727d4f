"""`shadow report`: arithmetic against cases computed by hand, and a whole fleet in shadow on virtual time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cli import shadow as words
from autoscaler.ports import (
    ActionIntent,
    ActionRecord,
    Outcome,
    OutcomeKind,
    RealVms,
    Verb,
)
from autoscaler.providers.coalescing import SharedReader
from autoscaler.providers.shadow import ShadowProvider
from autoscaler.simulator.replay.shadow_report import shadow_report
from autoscaler.simulator.replay.timeline import Episode
from autoscaler.store import TickRow
from tests.contracts.test_journal_contract import fleet_tick
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual

START_S = 1_772_323_200.0  # 2026-03-01T00:00:00Z
NAN = math.nan
CAPACITY = 100.0


def tick(
    number,
    demand=300.0,
    *,
    policy_vms=4,
    real=10,
    cost=4.0,
    real_cost=10.0,
    at_s=None,
    censored=False,
    draining=0,
):
    """A tick of 10 s: the policy has 4 VMs for 400/s while 10 really run, and each VM costs 1 per tick."""
    capacity = policy_vms * CAPACITY
    row = fleet_tick(
        demand=demand, censored=censored, in_service=policy_vms, draining=draining, capacity=capacity, cost=cost,
        shortage=NAN if math.isnan(demand) else max(demand - capacity, 0.0),
        real=None if real is None else RealVms(real, 12, real_cost),
    )  # fmt: skip
    return TickRow(int(START_S / 10) + number, START_S + 10 * number if at_s is None else at_s, row)


def report(*ticks, actions=(), starts=()):
    return shadow_report("web", ticks, actions, starts)


def test_both_sides_by_hand():
    found = report(tick(0), tick(1, 500.0, policy_vms=4), tick(2, 1200.0, policy_vms=8), tick(3))
    t = found.total
    # Three intervals of 10 s with a demand of 300, 500 and 1200/s; the policy has 400, 400, 800/s, the real fleet 1000/s.
    assert (t.span_s, t.known_s, t.demand_work) == (30.0, 30.0, 20_000.0)
    assert t.policy.unserved_work == pytest.approx(10 * (100 + 400))
    assert t.real.unserved_work == pytest.approx(10 * 200)
    assert (t.policy.cost, t.real.cost) == (12.0, 30.0)
    assert t.policy.vm_hours == pytest.approx((4 + 4 + 8) * 10 / 3600)
    assert t.real.vm_hours == pytest.approx(30 * 10 / 3600)
    assert t.missed_share(t.policy) == pytest.approx(0.25)
    assert found.episodes == 1
    assert found.longest == Episode(START_S + 10, START_S + 30, pytest.approx(5000.0), 400.0)


def test_the_cost_of_an_interval_is_what_the_tick_after_it_closed():
    found = report(tick(0, cost=99.0, real_cost=99.0), tick(1, cost=1.0, real_cost=2.0))
    assert (found.total.policy.cost, found.total.real.cost) == (1.0, 2.0)


@pytest.mark.parametrize(("cost", "real_cost"), [(0.0, 0.0), (0.02, 0.0), (0.0, 0.02)])
def test_prices_of_one_side_are_prices(cost, real_cost):
    assert report(tick(0), tick(1, cost=cost, real_cost=real_cost)).priced == (cost + real_cost > 0.0)


def test_unknown_demand_is_left_out_of_what_was_missed_and_not_of_what_was_paid():
    found = report(tick(0, NAN), tick(1, 500.0), tick(2))
    assert (found.total.span_s, found.total.known_s, found.total.demand_work) == (20.0, 10.0, 5000.0)
    assert (found.total.policy.unserved_work, found.total.policy.cost) == (1000.0, 8.0)


def test_an_outage_and_times_of_acting_are_left_out_of_both_sides():
    ticks = [
        tick(0),
        tick(1),
        tick(2, real=None),
        tick(3, real=None),
        tick(4),
        tick(5),
        tick(1000),
        tick(1001),
    ]
    found = report(*ticks)
    assert found.total.span_s == 30.0
    assert found.left_out_s == 10_010.0 - 30.0
    assert found.total.real.cost == 30.0


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_by_an_hour_costs_one_interval(jump_s):
    first = [tick(n) for n in range(10)]
    moved = [tick(n + int(jump_s / 10), 500.0) for n in range(10, 20)]
    found = report(*first, *moved)
    assert found.total.span_s == 180.0
    assert found.episodes == 1
    assert found.total.policy.unserved_work == pytest.approx(9 * 1000.0)


def test_a_skipped_tick_is_lived_through_as_decided_before():
    found = report(tick(0, 500.0), tick(3), tick(4))
    assert found.total.span_s == 40.0
    assert found.total.policy.unserved_work == pytest.approx(3000.0)


def test_what_a_vm_can_do_is_known_where_the_shadow_has_one():
    found = report(tick(0, 1200.0, policy_vms=0), tick(1, 1200.0), tick(2, 1200.0, policy_vms=0), tick(3))
    assert found.total.real.unserved_work == pytest.approx(30 * 200.0)
    assert found.capacity_unknown_s == 0.0
    never = report(tick(0, 50.0, policy_vms=0), tick(1, 50.0, policy_vms=0))
    assert never.capacity_unknown_s == 10.0
    assert never.total.real.unserved_work == 0.0


def test_days_add_up_to_the_whole():
    found = report(*[tick(n * 30, at_s=START_S + 300 * n) for n in range(600)])
    assert [day.name for day in found.days] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert sum(day.real.cost for day in found.days) == pytest.approx(found.total.real.cost)
    assert sum(day.span_s for day in found.days) == found.total.span_s == 599 * 300


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([10.0, 10.0, 10.0, 25.0, 7000.0, 86_000.0]),  # until the next tick
            st.sampled_from([NAN, 0.0, 0.4, 250.0, 800.0, 1300.0]),  # demand
            st.integers(0, 6),  # the policy's VMs
            st.sampled_from([None, 0, 3, 10]),  # those that really run
            st.integers(0, 2),  # draining
            st.sampled_from([0.0, 1.5]),  # money of both
        ),
        min_size=2,
        max_size=30,
    )
)
def test_a_comparison_is_what_its_intervals_add_up_to(rows):
    """Added up interval by interval, as by hand."""
    at_s, ticks = START_S + 100.0, []
    for number, (until_s, demand, vms, real, draining, cost) in enumerate(rows):
        ticks.append(
            tick(
                number, demand, policy_vms=vms, real=real, cost=cost, real_cost=2 * cost, at_s=at_s, draining=draining
            )
        )  # fmt: skip
        at_s += until_s
    intervals = [
        (one, after)
        for one, after in pairwise(ticks)
        if one.recorded.real is not None and after.recorded.real is not None
    ]
    found = report(*ticks)
    if not intervals:
        assert found is None
        return
    per_vm_known = any(one.recorded.in_service for one, _ in intervals)
    real = policy = work = known_s = hours = real_hours = 0.0
    episodes = []
    for one, after in intervals:
        now, length_s = one.recorded, after.at_s - one.at_s
        hours += (now.in_service + now.draining) * length_s / 3600.0
        real_hours += now.real.running * length_s / 3600.0
        if math.isnan(now.demand):
            continue
        known_s += length_s
        work += now.demand * length_s
        short = max(now.demand - now.in_service * CAPACITY, 0.0)
        policy += short * length_s
        real += max(now.demand - now.real.running * CAPACITY, 0.0) * length_s if per_vm_known else 0.0
        if short and episodes and episodes[-1][1] == one.at_s:
            begun, _, so_far, worst = episodes[-1]
            episodes[-1] = (begun, after.at_s, so_far + short * length_s, max(worst, short))
        elif short:
            episodes.append((one.at_s, after.at_s, short * length_s, short))
    total, span_s = found.total, sum(after.at_s - one.at_s for one, after in intervals)
    assert (total.span_s, total.known_s, total.demand_work) == pytest.approx((span_s, known_s, work))
    assert (total.policy.unserved_work, total.real.unserved_work) == pytest.approx((policy, real))
    assert (total.policy.vm_hours, total.real.vm_hours) == pytest.approx((hours, real_hours))
    paid = sum(after.recorded.cost for _, after in intervals)
    assert (total.policy.cost, total.real.cost) == pytest.approx((paid, 2 * paid))
    assert found.priced == (paid > 0)
    assert found.conclusive == (known_s >= 86_400.0)
    share = total.missed_share(total.policy)
    assert share == pytest.approx(policy / work) if work else math.isnan(share)
    whole_s = intervals[-1][1].at_s - intervals[0][0].at_s
    assert found.left_out_s == pytest.approx(whole_s - span_s)
    assert sum(day.policy.unserved_work for day in found.days) == pytest.approx(policy)
    assert found.episodes == len(episodes)
    told = [(e.start_s, e.end_s, pytest.approx(e.unserved_work), e.worst_per_s) for e in found.worst]
    assert sorted(episodes, key=lambda e: -e[2])[:5] == told
    lengths = [end_s - start_s for start_s, end_s, _, _ in episodes]
    assert max(lengths, default=0.0) == (found.longest.end_s - found.longest.start_s if episodes else 0.0)


def test_accepted_orders_of_ticks_in_shadow_are_counted():
    def action(number, verb, outcomes):
        row = tick(number)
        intent = ActionIntent("web", verb, tuple("ab"[: len(outcomes)]), len(outcomes), "", "because")
        said = tuple(Outcome("a", kind) for kind in outcomes)
        return ActionRecord(number + 1, row.at_s, row.tick, intent, row.at_s, said)

    yes, no = OutcomeKind.ACCEPTED, OutcomeKind.REFUSED
    actions = [
        action(0, Verb.START, (yes, yes)),
        action(1, Verb.STOP, (yes, no)),
        action(1, Verb.PROVISION, (yes,)),
        action(7, Verb.START, (yes,)),
    ]
    found = report(tick(0), tick(1), tick(2), actions=actions)
    assert (found.total.starts, found.total.stops, found.total.provisions) == (2, 1, 1)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1e-6, "<0.01 %"), (0.00123, "0.12 %"), (0.0996, "10 %"), (0.613, "61 %"), (0.9996, "100 %"), (1, "100 %")],
)  # fmt: skip
def test_a_share_is_written_as_people_write_it(share, text):
    assert words.share_text(share) == text


@pytest.mark.parametrize("ticks", [(), (tick(0),), (tick(0, real=None), tick(1, real=None))])
def test_nothing_to_compare(ticks):
    assert report(*ticks) is None


# ── in words ────────────────────────────────────────────────────────────────────────────────────────────


def long_report(days=3, **changes):
    short = {500: 900.0, 501: 900.0, 2000: 450.0}
    count = days * 288
    ticks = [tick(n * 30, short.get(n, 300.0), at_s=START_S + 300 * n, **changes) for n in range(count + 1)]
    return report(*ticks)


def test_the_conclusion_comes_first():
    text = words.conclusion(long_report())
    assert text.startswith(
        "Over 3 d the policy would have cost 3,456.00 instead of 8,640.00 (60 % less) and would have missed "
    )
    assert (
        "0.38 % of the work in 1 episode; it lasted 10 min from 2026-03-02T17:40:00Z, short by up to 500/s."
        in text
    )
    assert text.endswith("What really ran missed 0 %.")


def test_a_policy_that_costs_more_says_so():
    assert "(50 % more)" in words.conclusion(long_report(cost=15.0))


def test_less_than_a_day_concludes_nothing():
    found = report(*[tick(n * 30, at_s=START_S + 300 * n) for n in range(60)])
    assert not found.conclusive
    text = words.conclusion(found)
    assert text.startswith("Too little to conclude: only 4 h 55 min with known demand; let it run for a week")
    assert "missed no work" in text


def test_without_prices_it_speaks_of_vm_hours():
    found = long_report(cost=0.0, real_cost=0.0)
    assert "run 288.0 VM-hours instead of 720.0 (60 % less)" in words.conclusion(found)
    assert any("write them under `prices`" in caveat for caveat in words.caveats(found))


def test_demand_that_was_never_known():
    found = report(*[tick(n, NAN) for n in range(5)])
    assert words.conclusion(found).endswith(
        "Demand was never known, so neither is what it would have missed."
    )


def test_caveats_say_what_is_not_known():
    ticks = [tick(0, NAN), tick(1, censored=True), tick(2), tick(900), tick(901)]
    said = " ".join(words.caveats(report(*ticks, starts=(START_S + 15,))))
    for part in (
        "Demand is unknown for 10 s",
        "nothing was recorded or the fleet was not in shadow",
        "In 10 s VMs were saturated",
        "The daemon began once in that time",
    ):
        assert part in said


# ── the whole way ───────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_fleet_that_is_always_on_beside_a_policy_that_follows_a_wave():
    bench = Bench(vms=0, running=10, zones="a")
    own = ShadowProvider(
        SharedReader(bench.provider), bench.clock, "web", start_time_s=20.0, stop_time_s=30.0
    )
    quiet = policy(act=False, guards={"stabilisation": "60s"}, bounds={"minimum": 1, "maximum": 20})
    bench.add(quiet, lambda second: 500 + 400 * math.sin(second / 300), provider=own)
    await bench.run(3600)
    with bench.journal.reader() as reader:
        found = shadow_report("web", reader.each_tick("web", 0, 1e12), reader.actions("web", 0, 1e12))
    assert bench.changes() == []
    assert found.start_s == ORIGIN_S
    assert found.total.span_s == 3600.0
    assert found.total.real.vm_hours == pytest.approx(10.0, rel=0.01)
    # Always on: 3600 money a VM-hour, and storage.
    assert found.total.real.cost == pytest.approx(10 * 3600 + 10 * 36, rel=0.01)
    assert 0.5 < found.total.policy.cost / found.total.real.cost < 0.8
    assert found.total.real.unserved_work == 0.0
    assert found.total.policy.vm_hours < 8.0
    assert found.total.starts > 10
    assert found.total.demand_work == pytest.approx(
        sum(10 * (500 + 400 * math.sin(10 * n / 300)) for n in range(1, 360)), rel=0.01
    )
