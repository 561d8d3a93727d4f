"""The wanted number of stopped VMs: recomputing only what has changed gives the same as computing everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.warm_pool import WarmTarget
from tests.core.builders import lane_params

COUNTS = np.dtype(np.int64)
LANES = 6


def by_hand(params, peak, desired, worth):
    """The same in words, lane by lane; `worth` is of the lanes with an objective, in order."""
    known = dict(
        zip(np.flatnonzero(params.economic).tolist(), [] if worth is None else worth.tolist(), strict=False)
    )
    wanted = []
    for lane in range(LANES):
        exist = int(np.ceil(peak[lane] * (1.0 + params.warm_spare[lane]) - 1e-6))
        if known.get(lane, -1) >= 0:
            exist = known[lane]
        least, most = params.warm_minimum[lane], params.warm_maximum[lane]
        wanted.append(int(min(max(exist - desired[lane], least), most)))
    return wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["none", "some", "all"]))
def test_whatever_changed_the_target_is_that_of_a_rule_made_anew(seed, objectives):
    rng = np.random.default_rng(seed)
    economic = {"none": np.zeros(LANES), "some": np.arange(LANES) % 2, "all": np.ones(LANES)}[objectives] > 0
    params = lane_params(
        LANES,
        economic=economic,
        warm_spare=rng.choice([0.0, 0.1, 0.25], LANES),
        warm_minimum=rng.integers(0, 3, LANES),
        warm_maximum=rng.integers(3, 30, LANES),
    )
    rule = WarmTarget(params, COUNTS)

    def numbers(least, most, count=LANES):
        return rng.integers(least, most, count)

    peak, desired = numbers(0, 40).astype(np.int32), numbers(0, 20)
    worth = numbers(-1, 40, int(economic.sum())) if economic.any() else None
    for _ in range(12):
        # Now and then an array is the very same, an equal one, one that differs a little, or another one.
        peak = [
            peak,
            peak.copy(),
            peak + (np.arange(LANES) == 2).astype(np.int32),
            numbers(0, 40).astype(np.int32),
        ][rng.integers(4)]
        desired = desired if rng.random() < 0.4 else numbers(0, 20)
        desired.flags.writeable = bool(rng.random() < 0.5)
        if worth is not None and rng.random() < 0.4:
            worth = numbers(-1, 40, len(worth))
        got = rule.of(peak, desired, worth)
        assert got.dtype == COUNTS
        assert got.tolist() == by_hand(params, peak, desired, worth)
        assert got.tolist() == WarmTarget(params, COUNTS).of(peak, desired, worth).tolist()


@pytest.mark.parametrize(("worth", "wanted"), [(-1, 3), (0, 0), (7, 5)])
def test_what_is_worth_holding_counts_once_it_is_known(worth, wanted):
    params = lane_params(1, economic=True, warm_spare=0.25)
    rule = WarmTarget(params, COUNTS)
    assert rule.of(np.array([4], np.int32), np.array([2]), np.array([worth])).tolist() == [wanted]
