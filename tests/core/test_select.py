"""Selection spreads over zones and is stable."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.select import start_order, stop_order


def test_starts_fill_the_emptiest_zone_first():
    zone = np.array([0, 0, 0, 1, 1, 2])
    order = start_order(zone, np.arange(6), np.array([2, 0, 1]))
    # zone levels: 1 (0), then 1 and 2 share level 1, ...
    assert zone[order].tolist() == [1, 1, 2, 0, 0, 0]


def test_stops_drain_the_fullest_zone_first():
    zone = np.array([0, 0, 0, 1, 1, 2])
    order = stop_order(zone, np.arange(6), np.array([3, 2, 1]))
    assert order.tolist() == [0, 1, 3, 2, 4, 5]


def test_rank_decides_within_a_zone():
    assert start_order(np.zeros(3, np.int64), np.array([2, 0, 1]), np.array([5])).tolist() == [1, 2, 0]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_any_prefix_is_as_even_as_it_can_be_and_order_does_not_depend_on_input_order(
    zones: list[int], seed: int
):
    rng = np.random.default_rng(seed)
    zone = np.array(zones)
    rank = rng.permutation(len(zones))
    ordered = rng.integers(0, 5, 3)
    order = start_order(zone, rank, ordered)
    assert sorted(order.tolist()) == list(range(len(zones)))
    counts, left = ordered.copy(), np.bincount(zone, minlength=3)
    for index in order:
        chosen = zone[index]
        with_candidates = [counts[z] for z in range(3) if left[z] > 0]
        assert counts[chosen] == min(with_candidates)
        counts[chosen] += 1
        left[chosen] -= 1
    shuffle = rng.permutation(len(zones))
    again = start_order(zone[shuffle], rank[shuffle], ordered)
    assert rank[shuffle][again].tolist() == rank[order].tolist()
