"""A rest that continues is what all stages would decide again, and the next hour alone decides like all hours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decide import decide
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Freshness
from autoscaler.core.warm.returns import worth_having
from tests.core.builders import DECIDED, arrays_of, snapshot
from tests.core.laws import joined, laws_of, whole
from tests.core.test_economic import objective

SEEDS = st.integers(0, 2**32 - 1)


def any_lanes(rng, lanes):
    def pick(*values):
        return rng.choice(values, lanes)

    return objective(
        lanes,
        shortage_price=pick(3.0, 40.0),
        minimum=pick(0, 1, 4),
        maximum=pick(6, 30),
        cooldown_in_s=pick(0.0, 900.0, 2400.0),
        cooldown_out_s=pick(0.0, 0.0, 900.0),
        rate_out_vms=pick(2.0, np.inf),
        rate_in_vms=pick(1.0, 8.0, np.inf),
        stabilisation_ticks=np.full(lanes, rng.choice([1, 4])),
        zero_hold_s=pick(0.0, 900.0),
        provision=np.full(lanes, rng.random() < 0.3),
        max_provisioned=pick(5, 40),
    )


def any_ticks(rng, lanes, ticks):
    """Demand in stretches, in which all come to rest; now and then something happens to a lane."""
    demand = rng.gamma(2.0, 3.0, lanes)
    for tick in range(ticks):
        if rng.random() < 0.15:
            demand = np.where(rng.random(lanes) < 0.5, rng.gamma(2.0, 3.0, lanes), demand)
        fresh = (rng.random(lanes) < 0.5) | (rng.random() < 0.95)
        operated = rng.random() < 0.05
        floor = np.where(operated & (rng.random(lanes) < 0.3), 7, 0)
        ceiling = np.where(operated & (rng.random(lanes) < 0.3), 2, NO_CEILING)
        yield tick, np.where(fresh, demand, np.nan), fresh, floor, ceiling


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_a_rest_that_goes_on_is_what_all_stages_say_again(seed):
    rng = np.random.default_rng(seed)
    lanes, ticks = int(rng.choice([1, 3, 6])), 80
    params = any_lanes(rng, lanes)
    resting, asked = LaneState.empty(params), LaneState.empty(params)
    serving, coming = np.full(lanes, 3), np.zeros(lanes, np.int64)
    for tick, demand, fresh, floor, ceiling in any_ticks(rng, lanes, ticks):
        laws = whole(
            joined([laws_of(np.full(20, max(each, 0.1)), spread=0.1) for each in np.nan_to_num(demand)])
        )
        view = snapshot(
            lanes,
            now_s=1e6 + tick * 400.0,
            tick=10**5 + tick,
            demand=demand,
            freshness=np.where(fresh, 0, int(Freshness.ABSENT)),
            in_service=serving,
            starting=coming,
            stopped=np.maximum(30 - serving - coming, 0),
            stoppable=np.maximum(serving - (rng.random(lanes) < 0.1), 0),
            floor=floor,
            ceiling=ceiling,
        )
        found = decide(params, resting, view, laws)
        # Other parameters, if equal ones, are compiled anew, and so know of no rest.
        expected = decide(replace(params), asked, view, laws)
        for name in DECIDED:
            assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name
        serving = serving + coming - found.stop
        coming = np.asarray(found.start + found.provision, np.int64)
    before, after = (arrays_of(LaneState.restore(each.dump())) for each in (resting, asked))
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert np.array_equal(array, after[name], equal_nan=True), name


@pytest.mark.parametrize("making", [0.0, 1.0])
@given(SEEDS)
def test_who_pays_within_the_hour_is_worth_having_whatever_comes_after_it(making, seed):
    rng = np.random.default_rng(seed)
    count = 200
    odds, lasts = (rng.uniform(0.001, 0.98, count).astype(np.float32) for _ in range(2))
    saved, price = rng.gamma(1.0, 20.0, count), rng.gamma(1.0, 5.0, count)
    made = making * rng.gamma(1.0, 10.0, count)
    after = rng.normal(0.0, 50.0, count), rng.normal(0.0, 50.0, count)
    # Half of them such that only rounding can tell.
    price[::2] = (odds.astype(np.float64) * saved / lasts)[::2]
    having, none = worth_having(odds, lasts, np.arange(count)[np.newaxis], saved, price, made, after)
    gain = odds.astype(np.float64) * saved - lasts * price
    assert (having - none)[gain >= 0.0].min(initial=0.0) >= 0.0
    if not making:
        clear = gain < -1e-9 * (saved + price)
        assert (having - none)[clear].max(initial=-1.0) < 0.0
