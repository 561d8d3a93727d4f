"""How many waiting VMs are worth a saved memory: thresholds by hand, levels by counting, lanes alone and together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import decide
from autoscaler.core.objective.bands import Drivers
from autoscaler.core.objective.economics import Economics
from autoscaler.core.state import LaneState
from autoscaler.core.types import MOST_VMS, Freshness, Horizon, TierReason
from autoscaler.core.warm.starting import AT_FIRST, AT_FIRST_WEIGHT, HALF_LIFE_S, Starting
from autoscaler.core.warm.tiers import Tiering
from tests.core.builders import DECIDED, lane_params, snapshot
from tests.core.laws import joined, laws_of, whole

PRICED = {
    "economic": True,
    "hibernate": True,
    "vm_capacity": 1.0,
    "sooner_ticks": 2.0,
    "unbilled_ticks": 2.0,
    "saving_cost": 6.0,
    "memory_cost": 20.0,
}


def economics(laws, lanes, price):
    count = len(lanes)
    none, drivers = (
        np.zeros(count, np.int64),
        Drivers(np.zeros(count, np.int64), *(np.zeros((1, count), np.int64),) * 2),
    )
    return Economics(
        np.asarray(lanes), np.arange(count), np.arange(count), drivers, np.full(count, float(price)), np.zeros(count),
        np.ones(count), none, none, none, laws,
    )  # fmt: skip


def tiers(laws, *, price=100.0, desired=0, lanes=1, **changed):
    params = lane_params(lanes, **(PRICED | changed))
    found = Tiering(params, np.flatnonzero(params.hibernate))
    at_first = Starting.empty(params).at_first()
    told = economics(laws, np.flatnonzero(params.economic), price)
    return found.tiers(laws, np.full(lanes, desired), told, at_first)


def test_the_share_that_pays_by_hand():
    # 2 ticks sooner at a quarter of its work and a price of 100 are 50 VM-ticks, and are billed anyway; saving costs 6: 44 are
    # left to hold it. A horizon costs 20, and half of that in the one in which it is wanted.
    laws = laws_of(np.full(50, 5.0))
    assert tiers(laws).least.tolist() == pytest.approx([20 / (44 + 10)])
    assert tiers(laws, start_success=0.5).least.tolist() == pytest.approx([20 / (19 + 10)])
    # Little is left to hold it, and holding it costs as little.
    assert tiers(laws, saving_cost=49.9, memory_cost=0.1).least.tolist() == pytest.approx([0.1 / 0.15])
    # Where starts are not billed, who serves sooner is billed sooner.
    assert tiers(laws, unbilled_ticks=0.5).least.tolist() == pytest.approx([20 / (42.5 + 10)])


@pytest.mark.parametrize("changed", [{}, {"memory_cost": 3.0}, {"saving_cost": 12.0}, {"sooner_ticks": 1.6}])
def test_as_many_as_by_reckoning_each_level(changed):
    rng = np.random.default_rng(7)
    peaks = rng.gamma(4.0, 4.0, 3000)
    at = PRICED | changed
    found = tiers(laws_of(peaks, spread=0.4), desired=3, **changed)
    level = 3
    while True:
        w = np.clip(peaks - level, 0.0, 1.0).mean()
        gain = (100.0 * AT_FIRST - 1.0) * at["sooner_ticks"] + at["unbilled_ticks"]
        if gain < at["saving_cost"] + at["memory_cost"] * (1.0 - w / 2.0) / w:
            break
        level += 1
    assert level > 3
    assert abs(found.first[0] - (level - 3)) <= 1
    assert found.reason.tolist() == [TierReason.WEIGHED]
    last, following = found.shares()
    # Between bins a law is read straight, and counted from middle to middle; in the tail they are wide.
    assert last[0] >= 0.8 * found.least[0]
    assert following[0] <= 1.2 * found.least[0]
    assert last[0] >= following[0] * (1.0 - 1e-9)


def test_it_looks_at_the_refill_horizon_and_not_at_the_lead_time():
    laws = laws_of({h: np.full(50, 20.0 if h is Horizon.REFILL else 5.0) for h in Horizon})
    assert tiers(laws, desired=5).first.tolist() == [15]


def test_it_tells_the_shares_of_the_last_that_waits_and_of_the_next_one():
    laws = laws_of(np.full(50, 20.0))
    assert tiers(laws, desired=5).shares()[:, 0].tolist() == pytest.approx([1.0, 0.0], abs=0.1)
    assert tiers(laws, desired=30).shares()[:, 0].tolist() == pytest.approx([0.0, 0.0])


def test_of_starts_that_fail_more_must_be_ready():
    laws = laws_of(np.full(50, 20.0))
    assert tiers(laws, desired=10, start_success=0.5).first.tolist() == [20]


def test_a_start_that_is_not_enough_quicker_is_worth_no_memory():
    laws = laws_of(np.full(50, 20.0))
    for own in ({"sooner_ticks": 0.0}, {"sooner_ticks": -3.0}, {"saving_cost": 200.0}):
        for memory_cost in (0.0, 20.0, 1e6):
            found = tiers(laws, **({"unbilled_ticks": 0.0, "memory_cost": memory_cost} | own))
            assert found.first.tolist() == [0]
            assert found.least[0] > 1.0
            assert found.reason.tolist() == [TierReason.WEIGHED]


def test_a_memory_that_costs_nothing_to_hold_is_worth_it_for_all():
    found = tiers(laws_of(np.full(50, 20.0)), memory_cost=0.0, desired=3)
    assert (found.first.tolist(), found.least.tolist()) == ([MOST_VMS], [0.0])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"economic": False}, TierReason.UNPRICED),
        ({"sooner_ticks": np.nan}, TierReason.UNMEASURED),
    ],
)
def test_where_nothing_can_be_weighed_all_that_may_hibernate_do(changed, reason):
    found = tiers(laws_of(np.full(50, 20.0)), **changed)
    assert (found.first.tolist(), found.reason.tolist()) == ([MOST_VMS], [reason])
    assert np.isnan(found.least).all()
    assert np.isnan(found.shares()).all()


def test_without_a_forecast_all_that_may_hibernate_do():
    laws = laws_of(np.full(50, 20.0))
    laws.level[:] = np.nan
    found = tiers(laws)
    assert (found.first.tolist(), found.reason.tolist()) == ([MOST_VMS], [TierReason.NO_FORECAST])
    assert np.isnan(found.shares()).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_dearer_shortage_the_more_and_the_dearer_memory_the_fewer(seed):
    rng = np.random.default_rng(seed)
    laws = laws_of(
        rng.gamma(rng.uniform(0.5, 5.0), rng.uniform(0.5, 8.0), 400), spread=rng.uniform(0.05, 0.5)
    )
    prices = [tiers(laws, price=p).first[0] for p in np.geomspace(1.0, 3000.0, 8)]
    assert prices == sorted(prices)
    held = [tiers(laws, memory_cost=m).first[0] for m in np.geomspace(0.1, 1000.0, 8)]
    assert held == sorted(held, reverse=True)


def _world(lanes, seed):
    rng = np.random.default_rng(seed)
    laws = joined([laws_of(rng.gamma(3.0, 3.0 + lane, 300) * 100.0, spread=0.3) for lane in range(lanes)])
    own = {
        "economic": rng.random(lanes) < 0.7,
        "hibernate": rng.random(lanes) < 0.7,
        "sooner_ticks": np.where(rng.random(lanes) < 0.2, np.nan, rng.uniform(0.0, 3.0, lanes)),
        "saving_cost": rng.uniform(0.0, 20.0, lanes),
        "memory_cost": np.where(rng.random(lanes) < 0.2, 0.0, rng.uniform(0.0, 50.0, lanes)),
        "shortage_price": rng.uniform(5.0, 300.0, lanes),
    }
    seen = {
        "demand": rng.uniform(0.0, 3000.0, lanes),
        "in_service": rng.integers(0, 30, lanes),
        "starting": rng.integers(0, 9, lanes),
    }
    return laws, own, seen


@pytest.mark.parametrize("seed", range(6))
def test_a_lane_decides_alone_as_among_others(seed):
    lanes = 7
    laws, own, seen = _world(lanes, seed)
    params = lane_params(lanes, reactive=True, **own)
    together = decide(params, LaneState.empty(params), snapshot(lanes, **seen), whole(laws))
    for lane in range(lanes):
        alone = lane_params(
            1, reactive=True, series=np.array([lane]), **{name: column[lane] for name, column in own.items()}
        )
        view = snapshot(1, **{name: column[lane] for name, column in seen.items()})
        decision = decide(alone, LaneState.empty(alone), view, whole(laws))
        if not own["hibernate"][lane]:
            assert decision.tiers is None
            continue
        at = together.tiers.lanes.tolist().index(lane)
        for name in ("first", "reason", "least"):
            one, many = getattr(decision.tiers, name)[:1], getattr(together.tiers, name)[at : at + 1]
            assert one.tobytes() == many.tobytes(), name
        assert decision.tiers.shares()[:, 0].tobytes() == together.tiers.shares()[:, at].tobytes()


def test_hibernation_changes_nothing_else_of_a_decision():
    lanes = 7
    laws, own, seen = _world(lanes, 3)
    found = []
    for may in (own["hibernate"], False):
        params = lane_params(lanes, reactive=True, **(own | {"hibernate": may}))
        found.append(decide(params, LaneState.empty(params), snapshot(lanes, **seen), whole(laws)))
    for name in DECIDED:
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
    assert found[0].tiers is not None
    assert found[1].tiers is None


# ── while VMs start ─────────────────────────────────────────────────────────────────────────────────────


def test_what_there_is_to_do_for_vms_that_start_is_measured():
    params = lane_params(1, tick_s=60.0, lead_ticks=2, **PRICED)
    tiering, starting = Tiering(params, np.array([0])), Starting.empty(params)
    assert starting.at_first().tolist() == [AT_FIRST]

    def at(tick, **seen):
        return tiering.step(starting, snapshot(1, tick=tick, **seen))[0]

    # Who was there before is not new. Of 4 new ones 3 have work, the next tick 2 of them count on, and have 1.
    at(1, demand=5.0, in_service=5)
    at(2, demand=8.0, in_service=5, starting=4)
    found = at(3, demand=8.0, in_service=5, starting=4)
    believed = AT_FIRST * AT_FIRST_WEIGHT
    assert found == pytest.approx((believed + 3 + 1) / (AT_FIRST_WEIGHT + 4 + 2), rel=1e-3)
    assert at(3, demand=99.0, in_service=0, starting=99) == found
    blind = at(4, demand=np.nan, freshness=int(Freshness.ABSENT), in_service=9)
    assert blind == pytest.approx(found, rel=1e-3)
    for tick in range(5, 3000):
        last = at(tick, demand=0.0, in_service=1 + 2 * (tick % 2))
    assert last < 0.02


@pytest.mark.parametrize("capacity", [1.0, 20.0])
@pytest.mark.parametrize("quick", [False, True])
def test_it_does_not_matter_whether_they_serve_already(quick, capacity):
    params = lane_params(1, tick_s=60.0, lead_ticks=2, **(PRICED | {"vm_capacity": capacity}))
    tiering, starting = Tiering(params, np.array([0])), Starting.empty(params)
    for tick, ordered in enumerate((5, 9, 9, 9, 6, 8, 8)):
        serving = ordered if quick else 5
        view = snapshot(1, tick=tick, demand=7.5 * capacity, in_service=serving, starting=ordered - serving)
        found = tiering.step(starting, view)
    believed = AT_FIRST * AT_FIRST_WEIGHT
    # 2.5 of 4, 0.5 of 2, none of 1; at 6 half a VM is left and has all to do; of 2.25 1.75, of 1.125 0.625.
    worked, passed = 2.5 + 0.5 + 0.5 + 1.75 + 0.625, 4 + 2 + 1 + 0.5 + 2.25 + 1.125
    assert found[0] == pytest.approx((believed + worked) / (AT_FIRST_WEIGHT + passed), rel=1e-3)


def test_vms_that_start_within_a_tick_are_new_for_one_tick():
    params = lane_params(1, lead_ticks=1, **PRICED)
    tiering, starting = Tiering(params, np.array([0])), Starting.empty(params)
    for tick, ordered in enumerate((5, 9, 9)):
        tiering.step(starting, snapshot(1, tick=tick, demand=9.0, in_service=ordered))
    assert (starting.recent.tolist(), starting.passed[0]) == ([0.0], pytest.approx(4.0, rel=1e-3))


def test_what_was_measured_long_ago_counts_less():
    params = lane_params(1, tick_s=HALF_LIFE_S, **PRICED)
    starting = Starting.empty(params)
    starting.worked[:], starting.passed[:] = 60.0, 80.0
    found = Tiering(params, np.array([0])).step(starting, snapshot(1, tick=1, demand=1.0, in_service=1))
    assert found[0] == pytest.approx((AT_FIRST * AT_FIRST_WEIGHT + 30.0) / (AT_FIRST_WEIGHT + 40.0))


def test_what_was_measured_is_carried_over_and_restored():
    params = lane_params(3, **(PRICED | {"hibernate": np.array([True, False, True])}))
    starting = Starting.empty(params)
    Tiering(params, np.array([0, 2])).step(
        starting, snapshot(3, tick=9, demand=9.0, in_service=1, starting=5)
    )
    assert starting.lanes.tolist() == [0, 2]
    again = Starting.restore(starting.dump())
    assert again.at_first().tobytes() == starting.at_first().tobytes()
    after = lane_params(2, **PRICED)
    moved = starting.carried_over(after, np.array([-1, 2]))
    assert moved.at_first().tolist() == [AT_FIRST, starting.at_first()[1]]
    assert moved.last_tick == 9


def test_a_lane_that_is_ordered_ahead_of_demand_is_worth_fewer_memories():
    laws = laws_of(np.random.default_rng(3).gamma(4.0, 4.0, 3000), spread=0.4)
    params = lane_params(1, **PRICED)
    found = []
    for worked in (60.0, 400.0):
        starting = Starting.empty(params)
        starting.worked[:], starting.passed[:] = worked, 500.0
        told = economics(laws, [0], 100.0)
        tiering = Tiering(params, np.array([0]))
        found.append(int(tiering.tiers(laws, np.array([3]), told, starting.at_first()).first[0]))
    assert found[0] < found[1]
