"""How many of the VMs that wait are worth a saved memory: thresholds by hand, levels by counting, lanes alone and together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import decide
from autoscaler.core.economics import Economics
from autoscaler.core.state import LaneState
from autoscaler.core.tiers import AT_FIRST, Tiering
from autoscaler.core.types import MOST_VMS, Horizon, TierReason
from tests.core.builders import DECIDED, lane_params, snapshot
from tests.core.laws import joined, laws_of, whole

PRICED = {
    "economic": True,
    "hibernate": True,
    "vm_capacity": 1.0,
    "sooner_ticks": 2.0,
    "unbilled_ticks": 2.0,
    "saving_cost": 6.0,
    "memory_cost": 0.0,
}


def economics(lanes, price):
    count = len(lanes)
    return Economics(
        np.asarray(lanes), np.zeros(count, np.int64), np.full(count, float(price)), *(np.zeros(count, np.int64),) * 2,
        lambda vms: np.full((2, count), np.nan),
    )  # fmt: skip


def tiers(laws, *, price=100.0, desired=0, lanes=1, **changed):
    params = lane_params(lanes, **(PRICED | changed))
    found = Tiering(params, np.flatnonzero(params.hibernate))
    return found.tiers(laws, np.full(lanes, desired), economics(np.flatnonzero(params.economic), price))


def test_the_share_that_pays_by_hand():
    # 2 ticks sooner at half its work and a price of 100 are 100 VM-ticks, 2 ticks less are billed, saving costs 6.
    laws = laws_of(np.full(50, 5.0))
    assert tiers(laws).least.tolist() == pytest.approx([6 / 102])
    # Held for the whole horizon it costs 20 more, and 10 less of that where it is wanted at some moment of it.
    assert tiers(laws, memory_cost=20.0).least.tolist() == pytest.approx([26 / 112])
    assert tiers(laws, memory_cost=20.0, start_success=0.5).least.tolist() == pytest.approx([26 / 61])


@pytest.mark.parametrize("changed", [{}, {"memory_cost": 30.0}, {"saving_cost": 60.0}, {"sooner_ticks": 0.5}])
def test_as_many_as_by_reckoning_each_level(changed):
    rng = np.random.default_rng(7)
    peaks = rng.gamma(4.0, 4.0, 3000)
    at = PRICED | {"memory_cost": 0.0} | changed
    found = tiers(laws_of(peaks, spread=0.4), desired=3, **changed)
    level = 3
    while True:
        w = np.clip(peaks - level, 0.0, 1.0).mean()
        gain = w * (100.0 * AT_FIRST * at["sooner_ticks"] + at["unbilled_ticks"])
        if gain < at["saving_cost"] + at["memory_cost"] * (1.0 - w / 2.0):
            break
        level += 1
    assert level > 3
    assert abs(found.first[0] - (level - 3)) <= 1
    assert found.reason.tolist() == [TierReason.WEIGHED]
    last, following = found.shares()
    # Between bins a law is read straight, and counted from middle to middle.
    assert last[0] >= 0.9 * found.least[0]
    assert following[0] <= 1.1 * found.least[0]
    assert last[0] >= following[0]


def test_it_looks_at_the_refill_horizon_and_not_at_the_lead_time():
    laws = laws_of({h: np.full(50, 20.0 if h is Horizon.REFILL else 5.0) for h in Horizon})
    assert tiers(laws, desired=5).first.tolist() == [15]


def test_of_starts_that_fail_more_must_be_ready():
    laws = laws_of(np.full(50, 20.0))
    assert tiers(laws, desired=10, start_success=0.5).first.tolist() == [20]


def test_a_start_that_is_no_quicker_is_worth_no_memory():
    laws = laws_of(np.full(50, 20.0))
    for sooner in (0.0, -3.0):
        found = tiers(laws, sooner_ticks=sooner, unbilled_ticks=0.0)
        assert found.first.tolist() == [0]
        assert found.least[0] > 1.0
    # A memory that costs nothing is worth whatever it saves, and nothing where it saves nothing.
    free = {"saving_cost": 0.0, "memory_cost": 0.0}
    assert tiers(laws, **free).first[0] >= 20
    assert tiers(laws, sooner_ticks=0.0, unbilled_ticks=0.0, **free).first.tolist() == [0]


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
        "memory_cost": rng.uniform(0.0, 50.0, lanes),
        "shortage_price": rng.uniform(5.0, 300.0, lanes),
    }
    seen = {"demand": rng.uniform(0.0, 3000.0, lanes), "in_service": rng.integers(0, 30, lanes)}
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
