"""The price of shortage for a promised share: how it moves in a first week."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective.pricing import LEAST_AIM, PROMISED_S, Budget, ShortagePriceController
from tests.core.test_economic import objective

TICK_S = 60.0
WEEK = int(PROMISED_S / TICK_S)
TARGET = 0.001


class Fleet:
    """One fleet that is promised 99.9 %, with work of ten VMs; models say that the price is right."""

    def __init__(self):
        self.params = objective(unserved_target=TARGET, shortage_price=500.0, tick_s=TICK_S)
        self.state, self.tick, self.price = Budget.empty(self.params), 60, 500.0
        self.dearness = ShortagePriceController(self.params, np.array([0]))

    def live(self, ticks, serving=10, *, known=True, found=None):
        for _ in range(ticks):
            self.price = self.dearness.step(
                self.state, self.tick, np.array([10.0]), np.array([known]), np.array([serving]),
                lambda _: self.state.price.copy() if found is None else np.array([found]),
            ).item()  # fmt: skip
            self.tick += 1
        return self.price


def after(week, **given):
    """How far the price moves in ten hours in which more is missed than is allowed, at the beginning or after a week of which as much was."""
    fleet = Fleet()
    if week:
        for _ in range(WEEK // 1000):
            fleet.live(10, serving=9)
            fleet.live(990)
        fleet.live(100, serving=9)
    before = fleet.price
    fleet.live(51, serving=9)
    for _ in range(10):
        fleet.live(1, serving=9, **given)
        fleet.live(59, **given)
    return fleet.price / before


def test_what_a_first_hour_misses_is_believed_by_how_much_of_a_week_was_seen():
    """Fifty VM-ticks are missed, of 100 that a week allows."""
    assert 1.0 < after(False, found=None) < 1.4
    assert after(True, found=None) > 2.0


def test_what_models_would_have_missed_is_believed_likewise():
    """They leave as much as is allowed at a price of 5,000 only."""
    assert 1.0 < after(False, found=5000.0) < 1.4
    assert after(True, found=5000.0) > 5.0


def test_where_models_would_miss_nothing_the_price_falls_and_in_a_first_day_hardly():
    fleet = Fleet()
    assert 0.6 * 500.0 < fleet.live(600, found=2.0) < 500.0
    fleet.live(WEEK, found=500.0)
    assert fleet.live(600, found=2.0) < 0.1 * 500.0


def test_a_quiet_week_does_not_lower_the_price_that_models_say():
    fleet = Fleet()
    assert fleet.live(WEEK) == 500.0


def test_one_crowd_does_not_raise_the_price_for_weeks():
    """Half of the work of two hours is missed: seven times what is allowed in the weeks that are remembered."""
    fleet = Fleet()
    fleet.live(WEEK, found=500.0)
    raised = fleet.live(120, serving=5, found=800.0)
    assert raised > 520.0
    fleet.live(240, found=800.0)
    assert fleet.live(3 * 1440, found=800.0) == pytest.approx(800.0, rel=0.02)
    assert fleet.state.missed.item() > 3.0 * TARGET * fleet.state.wanted.item()


def test_while_more_is_missed_than_models_say_the_price_rises_beyond_what_they_say():
    fleet = Fleet()
    fleet.live(WEEK, found=800.0)
    for _ in range(48):
        fleet.live(59, found=800.0)
        fleet.live(1, serving=5, found=800.0)
    assert fleet.price > 1.5 * 800.0


@pytest.mark.parametrize(("missed", "aim"), [(0.5, 1.0), (1.25, 0.75), (1.5, 0.5), (3.0, LEAST_AIM)])
def test_who_missed_more_than_is_allowed_aims_lower_by_as_much_and_never_higher(missed, aim):
    fleet = Fleet()
    state = fleet.state
    state.seen[:], state.wanted[:], state.last_tick = WEEK, 1e6, 59
    state.missed[:], state.in_service[:] = missed * TARGET * 1e6, 10.0
    asked = []

    def price_for(share):
        asked.append(share.item())
        return state.price

    fleet.dearness.step(state, 60, np.array([10.0]), np.array([True]), np.array([10]), price_for)
    assert asked == pytest.approx([aim * TARGET], rel=1e-3)


def test_beside_a_given_price_one_is_found_only_where_a_share_is_promised():
    params = objective(2, unserved_target=np.array([0.0, TARGET]), shortage_price=500.0, tick_s=TICK_S)
    state, dearness = Budget.empty(params), ShortagePriceController(params, np.arange(2))
    state.seen[:] = WEEK
    for tick in range(60, 1500):
        prices = dearness.step(
            state, tick, np.full(2, 10.0), np.full(2, True), np.full(2, 10), lambda _: np.full(2, 900.0)
        )
    assert prices == pytest.approx([500.0, 900.0], rel=1e-2)
    assert prices[0] == 500.0
    # In a policy that starts at another price it is found anew.
    for given, found in ((500.0, prices[1]), (600.0, 600.0)):
        after = objective(2, unserved_target=TARGET, shortage_price=given, tick_s=TICK_S)
        assert state.carried_over(after, np.array([-1, 1])).price.tolist() == [given, found]
    moved = state.carried_over(params, np.array([1, 0]))
    assert moved.price.tolist() == prices[::-1].tolist()
    assert moved.seen.tolist() == state.seen.tolist()
    assert moved.last_tick == state.last_tick


def test_only_ticks_of_known_demand_count():
    fleet = Fleet()
    fleet.live(101)
    fleet.live(50, known=False)
    assert fleet.state.seen.item() == 100


def test_a_budget_of_the_version_before_has_seen_enough():
    fleet = Fleet()
    fleet.live(200)
    dumped = fleet.state.dump()
    del dumped["seen"], dumped["excess"]
    read = Budget.restore(dumped | {"version": 1})
    assert read.seen.item() * TICK_S > PROMISED_S
    assert read.missed.item() == fleet.state.missed.item()
    counted = Budget.restore(dumped | {"version": 2, "seen": fleet.state.seen})
    assert counted.seen.item() == fleet.state.seen.item()
    with pytest.raises(ValueError, match="Budget of version 0 cannot be read, only 3"):
        Budget.restore(dumped | {"version": 0})
