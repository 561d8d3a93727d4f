"""The score card computed by hand, and unknown figures."""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.judging.ledger import Block, Sums
from autoscaler.simulator.judging.score import FIGURES, Comparators, LanePrices, Score, score
from autoscaler.simulator.replay.timeline import TimelineRow, totals
from tests.simulator.test_ledger import random_block, sums_of

TICK_S = 60.0


def by_hand() -> Sums:
    """Ten minutes of one fleet of VMs that do 100/s, priced at 6 an hour, 1.2 stored, 1 a start and 5 a VM made."""
    block = Block.empty(10, 1, TICK_S)
    block.demand[:, 0] = [100, 100, 300, 300, 300, 0, 0, np.nan, 100, 100]
    block.desired[:, 0] = [1, 1, 3, 3, 3, 3, 1, 1, 2, 1]
    block.in_service[:, 0] = [1, 1, 1, 2, 3, 3, 3, 1, 1, 1]
    block.stops[:, 0] = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0]
    block.starts[:, 0] = [0, 0, 1, 0, 0, 0, 0, 0, 1, 0]
    block.provisions[:, 0] = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    block.failed_starts[:, 0] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    block.stopped[:, 0] = [4, 4, 3, 3, 3, 3, 5, 5, 4, 5]
    block.provisioned[:, 0] = [5, 5, 6, 6, 6, 6, 6, 6, 6, 6]
    serving = block.in_service - block.stops
    block.capacity[:] = serving * 100.0
    block.shortage[:] = np.maximum(block.demand - block.capacity, 0.0)
    block.billed_vm_s[:] = serving * TICK_S
    block.billed_vm_s[6] += 30.0
    block.cost[:] = block.billed_vm_s / 3600 * 6.0 + block.provisioned * 0.02
    block.cost[3] += 1.0
    block.cost[4] += 1.0 + 5.0
    sums = Sums(TICK_S, np.array([100.0]))
    sums.add(block)
    return sums


PRICES = LanePrices(np.array([6.0]), np.array([1.2]))


def test_the_card_by_hand() -> None:
    without = Sums(TICK_S, np.array([100.0]))
    worse = Block.empty(10, 1, TICK_S)
    worse.demand[:] = worse.shortage[:] = 50.0
    worse.cost[:] = 0.5
    without.add(worse)
    beside = Comparators(peak_cost=np.array([20.0]), optimum_cost=np.array([4.0]), without_pool=without)
    card = score(by_hand(), PRICES, beside).of_lane(0)

    billed_h = (15 * 60 + 30) / 3600
    cost = billed_h * 6 + 58 * 0.02 + 1 + 1 + 5
    day = 600 / 86400
    expected = {
        "cost": cost,
        "cost_per_day": cost / day,
        "running_cost": billed_h * 6,
        # Two starts and a VM made; one of the three failed.
        "start_cost": 2 * 1.0 + 5.0,
        "storage_cost": 58 * 0.02,
        "vm_hours": 17 / 60,
        "billed_vm_hours": billed_h,
        "pool_vm_hours": 39 / 60,
        # 1,300 wanted of which 300 unserved, over 1,500 that the VMs could do.
        "capacity_used": 1000 / 1500,
        "unserved_share": 300 / 1300,
        "unserved_work": 300 * 60.0,
        "shortage_s": 120.0,
        "unknown_s": 60.0,
        "episodes": 1.0,
        "longest_episode_s": 120.0,
        "mean_episode_s": 120.0,
        "worst_shortage": 200.0,
        # More wanted than present in minutes 3 and 4, and in minute 9.
        "mean_wait_s": 90.0,
        "longest_wait_s": 120.0,
        "warm_hits": 2 / 3,
        "failed_starts": 1 / 3,
        "starts_per_day": 2 / day,
        "churn_per_day": 5 / day,
        "reversals_per_day": 3 / day,
        # 1, 3, 1, 2, 1: up 3 and down 3 in one window, over a range of 2.
        "thrash_per_day": 1.5 / day,
        # Nine known minutes. Missing 2 of 3 and 1 of 3.
        "under_accuracy": (2 / 3 + 1 / 3) / 9,
        # Three VMs too many for nothing, then one.
        "over_accuracy": (3 + 1) / 9,
        "under_time": 2 / 9,
        "over_time": 2 / 9,
        # Of the seven steps between known minutes: need rises at once, supply one and two later, and so on.
        "instability": 5 / 7,
        "regret": cost / 4 - 1,
        "captured": (20 - cost) / 16,
        "pool_cost": cost - 5.0,
        "shortage_avoided_s": 480.0,
        "cost_per_avoided_s": (cost - 5.0) / 480.0,
    }
    assert card == pytest.approx(expected, rel=1e-12)
    assert list(card) == [figure.key for figure in FIGURES]


def test_what_cannot_be_known_is_unknown_and_not_zero() -> None:
    card = score(by_hand()).of_lane(0)
    unknown = {key for key, value in card.items() if math.isnan(value)}
    assert unknown == {
        *("running_cost", "start_cost", "storage_cost"),
        *("regret", "captured", "pool_cost", "shortage_avoided_s", "cost_per_avoided_s"),
    }
    idle = Sums(TICK_S, np.array([100.0]))
    idle.add(Block.empty(10, 1, TICK_S))
    quiet = score(idle, PRICES).of_lane(0)
    for key in (
        "unserved_share",
        "capacity_used",
        "mean_episode_s",
        "mean_wait_s",
        "warm_hits",
        "failed_starts",
    ):
        assert math.isnan(quiet[key]), key
    assert (quiet["cost"], quiet["shortage_s"], quiet["thrash_per_day"]) == (0.0, 0.0, 0.0)
    nothing = score(Sums(TICK_S, np.array([100.0]))).of_lane(0)
    assert math.isnan(nothing["cost_per_day"])


def test_what_rounding_leaves_of_a_large_cost_is_no_cost_of_starts() -> None:
    block = Block.empty(50, 40, TICK_S)
    prices = LanePrices(np.linspace(6e5, 7e5, 40), np.linspace(1e4, 2e4, 40))
    block.billed_vm_s[:] = 37.0
    block.provisioned[:] = 3
    block.cost[:] = 37.0 / 3600 * prices.in_service_per_h + 3 * TICK_S / 3600 * prices.stopped_per_h
    sums = Sums(TICK_S, np.full(40, 100.0))
    sums.add(block)
    card = score(sums, prices).values
    assert (card["cost"] - card["running_cost"] - card["storage_cost"]).any()
    assert not card["start_cost"].any()


def test_a_pool_that_avoids_nothing_has_no_price_per_second_and_one_that_pays_has_a_negative_cost() -> None:
    sums = by_hand()
    same = score(sums, beside=Comparators(without_pool=sums)).of_lane(0)
    assert (same["pool_cost"], same["shortage_avoided_s"]) == (0.0, 0.0)
    assert math.isnan(same["cost_per_avoided_s"])
    dearer = Sums(TICK_S, np.array([100.0]))
    block = Block.empty(10, 1, TICK_S)
    block.cost[:] = 9.0
    block.demand[:] = block.shortage[:] = 1.0
    dearer.add(block)
    assert score(sums, beside=Comparators(without_pool=dearer))["cost_per_avoided_s"][0] < 0


def test_elasticity_that_was_not_counted_is_unknown() -> None:
    lean = Sums(TICK_S, np.array([100.0]), elasticity=False)
    lean.add(random_block(2, 100, 1))
    card = score(lean).of_lane(0)
    for key in ("under_accuracy", "over_accuracy", "under_time", "over_time", "instability"):
        assert math.isnan(card[key]), key
    assert card["cost"] > 0


def test_savings_are_unknown_where_there_was_nothing_to_save() -> None:
    beside = Comparators(peak_cost=np.array([4.0]), optimum_cost=np.array([4.0]))
    assert math.isnan(score(by_hand(), beside=beside)["captured"][0])


@pytest.mark.parametrize("beside", [{"peak_cost": np.array([4.0])}, {"optimum_cost": np.array([4.0])}])
def test_savings_are_unknown_beside_one_end_of_the_way(beside: dict[str, np.ndarray]) -> None:
    assert math.isnan(score(by_hand(), beside=Comparators(**beside))["captured"][0])


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_card_agrees_with_the_totals_of_a_time_line(seed: int) -> None:
    block = random_block(seed, 130, 1)
    rows = [
        TimelineRow(
            timestamp_s=60.0 * tick,
            forecast=None,
            forecast_hi=None,
            reason="",
            **{
                name: getattr(block, name)[tick, 0].item()
                for name in (
                    *("demand", "desired", "in_service", "starting", "draining", "stopped", "warm_target"),
                    *("capacity", "shortage", "starts", "stops", "provisions", "cost"),
                )
            },
        )
        for tick in range(130)
    ]
    told, card = totals(rows, TICK_S), score(sums_of(block)).of_lane(0)
    days = told.span_s / 86400
    assert card["cost"] == pytest.approx(told.cost)
    assert card["vm_hours"] == pytest.approx(told.in_service_vm_s / 3600)
    assert card["pool_vm_hours"] == pytest.approx(told.stopped_vm_s / 3600)
    assert card["unserved_share"] == pytest.approx(told.unserved_share)
    assert card["unserved_work"] == pytest.approx(told.unserved_work)
    assert card["shortage_s"] == told.shortage_s
    assert card["unknown_s"] == told.unknown_s
    assert card["episodes"] == told.episodes
    assert card["longest_episode_s"] == told.longest_episode_s
    assert card["mean_episode_s"] == pytest.approx(told.shortage_s / told.episodes)
    assert card["churn_per_day"] == pytest.approx((told.starts + told.stops + told.provisions) / days)
    waits = [
        len(list(run)) for waits, run in groupby((block.desired > block.in_service)[:, 0].tolist()) if waits
    ]
    assert card["mean_wait_s"] == pytest.approx(TICK_S * sum(waits) / len(waits))
    assert card["longest_wait_s"] == TICK_S * max(waits)
    assert card["starts_per_day"] == pytest.approx(told.starts / days)
    assert card["reversals_per_day"] == pytest.approx(told.reversals / days)


def test_lanes_are_judged_each_by_itself() -> None:
    block = random_block(9, 200, 5)
    together: Score = score(sums_of(block))
    for lane in range(5):
        alone = score(sums_of(block).taken(slice(lane, lane + 1))).of_lane(0)
        np.testing.assert_equal(alone, together.of_lane(lane))


def test_every_figure_is_declared_once_with_words() -> None:
    keys = [figure.key for figure in FIGURES]
    assert len(set(keys)) == len(keys)
    assert all(figure.what.endswith(".") and figure.label and figure.group for figure in FIGURES)
