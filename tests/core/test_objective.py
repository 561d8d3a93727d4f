"""The price of shortage where a share is promised: how it moves in a first week."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective import PROMISED_S, Budget, Dearness
from tests.core.test_economic import objective

TICK_S = 60.0
WEEK = int(PROMISED_S / TICK_S)
TARGET = 0.001


class Fleet:
    """One fleet that is promised 99.9 %, with work of ten VMs; models say that the price is right."""

    def __init__(self):
        self.params = objective(unserved_target=TARGET, shortage_price=500.0, tick_s=TICK_S)
        self.state, self.tick, self.price = Budget.empty(self.params), 60, 500.0
        self.dearness = Dearness(self.params, np.array([0]))

    def live(self, ticks, serving=10, *, known=True):
        for _ in range(ticks):
            self.price = self.dearness.step(
                self.state, self.tick, np.array([10.0]), np.array([known]), np.array([serving]),
                lambda _: self.state.price.copy(),
            ).item()  # fmt: skip
            self.tick += 1
        return self.price


def test_what_a_first_hour_misses_is_held_against_what_a_week_allows():
    """A week allows 10 x 10,080 x 0.1 % = 100 VM-ticks. Fifty of them at once raise nothing, 150 do."""
    some, many = Fleet(), Fleet()
    for fleet, missing in ((some, 50), (many, 150)):
        fleet.live(missing + 1, serving=9)
        fleet.live(600)
    assert some.price == 500.0
    assert many.price > 550.0


def test_what_a_week_allows_is_not_there_to_be_used_up_on_its_first_day():
    """More was missed than allowed so far: the price does not fall, as it does where nothing was."""
    some, none = Fleet(), Fleet()
    for fleet, missing in ((some, 10), (none, 0)):
        fleet.live(missing + 1, serving=9)
        fleet.live(600)
    assert some.price == 500.0
    assert none.price < 450.0


def test_after_a_week_what_was_allowed_so_far_counts():
    fleet = Fleet()
    fleet.live(WEEK + 1)
    assert fleet.state.seen.item() == WEEK
    before = fleet.live(120, serving=7)
    assert fleet.live(180) > before


def test_only_ticks_of_known_demand_count():
    fleet = Fleet()
    fleet.live(101)
    fleet.live(50, known=False)
    assert fleet.state.seen.item() == 100


def test_a_budget_of_the_version_before_has_seen_enough():
    fleet = Fleet()
    fleet.live(200)
    dumped = fleet.state.dump()
    del dumped["seen"]
    read = Budget.restore(dumped | {"version": 1})
    assert read.seen.item() * TICK_S > PROMISED_S
    assert read.missed.item() == fleet.state.missed.item()
    with pytest.raises(ValueError, match="Budget of version 0 cannot be read, only 2"):
        Budget.restore(dumped | {"version": 0})
