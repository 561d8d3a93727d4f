"""A law read as a number of VMs, compared with counting outcomes one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.law_grid import LawPage
from autoscaler.core.objective.prepared_law import Law
from autoscaler.core.objective.worth import Worth
from autoscaler.core.types import LAW_BINS, Horizon
from tests.core.builders import samples, series_params
from tests.core.laws import joined, laws_of

seeds = st.integers(0, 2**32 - 1)


def vms(laws, share, capacity=1.0, horizon=Horizon.LEAD):
    share = np.atleast_1d(np.asarray(share, np.float64))
    series = np.zeros(len(share), np.int64)
    return Worth(series, np.full(len(share), capacity), (horizon,)).vms(laws, share[np.newaxis])[0].tolist()


def counted(outcomes, share, capacity=1.0):
    """VMs that each serve at least the share of their work, counted one by one."""
    count = 0
    while np.clip(outcomes - count * capacity, 0, capacity).mean() >= share * capacity:
        count += 1
    return count


def test_demand_that_is_sure_is_served_by_as_many_vms_as_it_needs():
    # 20.3 VMs for certain: the 21st serves 0.3 of its work, so it is worth it at a price of shortage above 1/0.3.
    laws = laws_of(np.full(100, 20.3))
    assert vms(laws, [0.5, 0.31, 0.25, 0.01]) == [20, 20, 21, 21]


def test_a_burst_that_comes_seldom_is_worth_as_many_vms_as_its_odds_pay():
    # 5 VMs in 99 cases of 100, 12 in the other: VMs 6 to 12 each serve 1 % of their work.
    laws = laws_of(np.array([5.0] * 99 + [12.0]), level=5.0)
    few, many = vms(laws, [0.02, 0.008])
    # So far from the level a bin is two VMs wide.
    assert 5 <= few <= 6
    assert 11 <= many <= 12


def test_nothing_is_worth_a_vm_that_is_not_known():
    laws = laws_of(np.ones(5))
    laws.level[:] = np.nan
    assert vms(laws, [0.001]) == [0]


def test_no_demand_is_worth_no_vm():
    assert vms(laws_of(np.zeros(50)), [0.001, 0.5]) == [0, 0]


@pytest.mark.parametrize("capacity", [0.25, 1.0, 40.0])
@settings(max_examples=40, deadline=None)
@given(seed=seeds, mean=st.floats(0.2, 60.0), sigma=st.floats(0.01, 0.8))
def test_as_many_vms_as_counting_would_find(seed, mean, sigma, capacity):
    outcomes = mean * np.exp(sigma * np.random.default_rng(seed).standard_normal(4000)) * capacity
    law = laws_of(outcomes, spread=sigma, scale=0.3 * capacity)
    shares = np.array([0.5, 0.1, 0.03, 0.01])
    for share, found in zip(shares, vms(law, shares, capacity), strict=True):
        # A bin's width is the precision of a law: a tenth of a spread at the level, more in the tail.
        room = 1 + 0.25 * sigma * counted(outcomes, share, capacity)
        assert abs(found - counted(outcomes, share, capacity)) <= room


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_the_dearer_shortage_and_the_higher_demand_the_more_vms(seed):
    rng = np.random.default_rng(seed)
    outcomes = rng.gamma(rng.uniform(0.2, 5.0), rng.uniform(0.5, 8.0), 300)
    shares = 1.0 / np.geomspace(1.5, 3000.0, 30)
    spread = rng.uniform(0.02, 0.5)
    low = np.array(vms(laws_of(outcomes, spread=spread), shares))
    assert (np.diff(low) >= 0).all()
    # The same law at a higher level, scale and all.
    more = laws_of(outcomes * 1.5, spread=spread, scale=0.45)
    assert (np.array(vms(more, shares)) >= low).all()


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_lanes_do_not_depend_on_their_company(seed):
    rng = np.random.default_rng(seed)
    laws = joined([laws_of(rng.gamma(2.0, 3.0, 50), spread=rng.uniform(0.02, 0.5)) for _ in range(5)])
    series, capacity = rng.integers(0, 5, 7), rng.uniform(0.3, 3.0, 7)
    share = rng.uniform(0.001, 0.9, (1, 7))
    together = Worth(series, capacity, (Horizon.HOLD,)).vms(laws, share)
    for lane in range(7):
        at = slice(lane, lane + 1)
        alone = Worth(series[at], capacity[at], (Horizon.HOLD,)).vms(laws, share[:, at])
        assert alone.tobytes() == together[:, at].tobytes()


@pytest.mark.parametrize("capacities", [2, 200])
def test_lanes_that_are_alike_are_worked_out_together_and_do_not_see_each_other(capacities):
    rng = np.random.default_rng(capacities)
    outcomes = [{horizon: rng.gamma(2.0, 3.0 + horizon, 50) for horizon in Horizon} for _ in range(2)]
    laws = joined([laws_of(each, spread=rng.uniform(0.02, 0.5)) for each in outcomes])
    lanes = np.arange(200)
    series, capacity = lanes % 2, rng.uniform(0.8, 3.0, capacities)[lanes // 2 % capacities]
    share = rng.uniform(0.001, 0.9, (4, 200))
    asked = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
    together = Worth(series, capacity, asked).vms(laws, share)
    for lane in range(12):
        at = slice(lane, lane + 1)
        alone = Worth(series[at], capacity[at], asked).vms(laws, share[:, at])
        assert alone.tobytes() == together[:, at].tobytes()


def forecasts(seed, series, ticks):
    """The laws of a forecaster that learns demand in jumps, tick by tick."""
    params = series_params(series, laws=True, half_life=300.0)
    state, rng = SeriesState.empty(params), np.random.default_rng(seed)
    level = rng.gamma(2.0, 100.0, series)
    for tick in range(ticks):
        level = np.where(rng.random(series) < 0.03, rng.gamma(2.0, 100.0, series), level)
        noise = np.exp(np.linspace(0.003, 0.6, series) * rng.standard_normal(series))
        laws = step(params, state, samples(1e6 + 10.0 * tick, level * noise)).laws
        assert laws is not None
        yield laws


def test_where_nothing_was_worth_it_below_no_demand_is_no_place_to_stay():
    """Where bins were that told, there is no demand in the next tick; one outcome in twenty-five is far above it."""
    calm = laws_of(np.full(100, 5.0), spread=0.1, scale=30.0, level=2.0)
    crowd = laws_of(np.append(np.zeros(96), np.full(4, 500.0)), spread=0.1, scale=30.0, level=-8.0)
    own, capacity, share = np.zeros(2, np.int64), np.full(2, 20.0), np.full((1, 2), 0.03)
    looking = Worth(own, capacity, (Horizon.LEAD,), most_tabled=0)
    assert looking.vms(calm, share).max() <= 1
    found = looking.vms(crowd, share)
    assert (found > 15).all()
    np.testing.assert_array_equal(found, Worth(own, capacity, (Horizon.LEAD,)).vms(crowd, share))


@pytest.mark.parametrize("seed", range(3))
def test_the_last_answer_is_only_where_to_look_first(seed, monkeypatch):
    series = 8
    each = np.arange(6 * series)
    share = 1.0 / np.exp(np.random.default_rng(seed).uniform(0.1, 8.0, (4, len(each))))
    asked = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
    trying, halving = (Worth(each % series, np.full(len(each), 9.0), asked, most_tabled=0) for _ in range(2))
    looked = []
    searched = Law.bins_over
    monkeypatch.setattr(Law, "bins_over", lambda law, of: looked.append(of.size) or searched(law, of))
    for laws in forecasts(seed, series, 150):
        found = trying.vms(laws, share)
        with monkeypatch.context() as never:
            never.setattr("autoscaler.core.objective.inversion._ROUGH_BINS", np.float32(1e30))
            np.testing.assert_array_equal(found, halving.vms(laws, share))
    assert sum(looked[0::2]) < 0.6 * sum(looked[1::2])


@pytest.mark.parametrize("rough", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_few_questions_look_at_all_bins_and_end_where_halving_does(seed, rough):
    rng, laws = np.random.default_rng(seed), 40
    # Sums of what is never negative are convex; a law that was bent is not, and probabilities rise and fall in it.
    excess = np.cumsum(np.cumsum(rng.gamma(0.3, 1.0, (laws, LAW_BINS + 1)), axis=1), axis=1)[:, ::-1]
    excess *= 1.0 + rough * rng.random(excess.shape) * (rng.random((laws, 1)) < 0.5)
    law = Law(
        excess.astype(np.float32).reshape(-1),
        np.arange(laws) * (LAW_BINS + 1),
        rng.gamma(2.0, 100.0, laws),
        rng.gamma(2.0, 3.0, laws),
        rng.uniform(0.01, 0.5, laws),
    )
    share = 1.0 / np.exp(rng.uniform(-0.1, 8.0, laws))
    halved = law.bisected(share)
    np.testing.assert_array_equal(law.bins_over(share), halved)
    assert len(np.unique(halved)) > 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lanes", [4, 60, 900])
def test_few_laws_worked_out_whole_give_the_same_answers_to_the_bit(seed, lanes):
    series, rng = 4, np.random.default_rng(seed)
    each = rng.integers(0, series, lanes)
    capacity = rng.choice([3.0, 9.0, 31.0], lanes)
    share = 1.0 / np.exp(rng.uniform(-0.1, 8.0, (4, lanes)))
    asked = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
    whole, looked_for = Worth(each, capacity, asked), Worth(each, capacity, asked, most_tabled=0)
    for tick, laws in enumerate(forecasts(seed, series, 80)):
        if tick % 7 == 3:
            share = 1.0 / np.exp(rng.uniform(-0.1, 8.0, (4, lanes)))
        if tick % 9 == 4:
            laws.level[1] = np.nan
        np.testing.assert_array_equal(whole.vms(laws, share), looked_for.vms(laws, share))


@pytest.mark.parametrize("seed", range(3))
def test_many_questions_about_laws_that_are_not_convex_end_where_few_do(seed):
    series, lanes, rng = 3, 400, np.random.default_rng(seed)
    each, capacity = np.arange(lanes) % series, rng.choice([3.0, 9.0, 31.0], lanes)
    asked, few = (Horizon.LEAD, Horizon.HOLD), 16
    many = Worth(each, capacity, asked)
    parts = [
        (mine, Worth(each[mine], capacity[mine], asked))
        for mine in (slice(first, first + few) for first in range(0, lanes, few))
    ]
    for laws in forecasts(seed, series, 20):
        # A law that was bent rises and falls in its odds, and has bins of no width with something in them.
        laws.excess[:2] *= (1.0 + 0.3 * rng.random(laws.excess[:2].shape)).astype(np.float32)
        share = 1.0 / np.exp(rng.uniform(-0.1, 8.0, (2, lanes)))
        share[:, :3] = 0.0, 1e-300, 2.0
        found = many.vms(laws, share)
        for mine, some in parts:
            np.testing.assert_array_equal(found[:, mine], some.vms(laws, share[:, mine]))


@pytest.mark.parametrize(("series", "lanes"), [(1, 1), (1, 90), (3, 40), (9, 20)])
def test_a_page_of_ticks_asked_at_once_answers_what_each_of_them_would(series, lanes):
    rng = np.random.default_rng(lanes)
    each, capacity = np.arange(lanes) % series, rng.choice([3.0, 9.0, 31.0], lanes)
    asked = (Horizon.LEAD, Horizon.LEAD, Horizon.HOLD, Horizon.HOLD)
    paged, alone = (Worth(each, capacity, asked) for _ in range(2))
    made = list(forecasts(lanes, series, 80))
    for number, ticks in enumerate((8, 8, 8, 3, 3, 8)):
        mine = made[8 * number : 8 * number + ticks]
        mine[1].level[0] = np.nan
        share = 1.0 / np.exp(rng.uniform(-0.1, 8.0, (4, lanes)))
        found = paged.vms_of_page(LawPage(joined(mine), ticks), share)
        np.testing.assert_array_equal(found, np.stack([alone.vms(laws, share) for laws in mine]))
        some = paged.vms_of_page(LawPage(joined(mine), ticks), share, 1, 2)
        np.testing.assert_array_equal(some, found[1:3])


def test_what_the_last_vm_serves():
    laws = laws_of(np.full(10, 2.5))
    worth = Worth(np.zeros(3, np.int64), np.ones(3), (Horizon.LEAD,))
    np.testing.assert_allclose(worth.share(laws, np.array([[1, 3, 4]])), [[1.0, 0.5, 0.0]], atol=0.02)
