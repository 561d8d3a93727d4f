"""Limits that fleets share: against trying every division, and by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.sharing import shared_out


def by_table(table):
    """The worth of the k-th VM of each lane, from rows of falling numbers; nothing beyond their end."""
    padded = np.array([[*row, *[0.0] * 40][:40] for row in table])
    return lambda vms: padded[np.arange(len(padded)), np.minimum(vms, 40) - 1]


def test_the_dearest_offers_are_taken():
    # Worth of VMs one after the other; six may be had in all.
    worth = by_table([[9.0, 5.0, 1.0], [8.0, 7.0, 6.0, 2.0], [4.0, 3.0]])
    got = shared_out(np.zeros(3, np.int64), np.array([3, 4, 2]), np.ones(3), 6.0, worth)
    assert got.tolist() == [2, 3, 1]


def test_nothing_is_shared_out_where_there_is_enough():
    got = shared_out(np.array([1, 0]), np.array([3, 4]), np.ones(2), 7.0, by_table([[1.0] * 9] * 2))
    assert got.tolist() == [3, 4]


def test_what_runs_is_not_taken_away():
    worth = by_table([[1.0] * 9, [50.0] * 9])
    got = shared_out(np.array([5, 0]), np.array([6, 4]), np.ones(2), 6.0, worth)
    assert got.tolist() == [5, 1]
    assert shared_out(np.array([5, 3]), np.array([6, 4]), np.ones(2), 6.0, worth).tolist() == [5, 3]


def test_what_is_worth_the_same_goes_to_the_first():
    got = shared_out(np.zeros(3, np.int64), np.full(3, 4), np.ones(3), 6.0, by_table([[2.0] * 4] * 3))
    assert got.tolist() == [4, 2, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0.01, 99.0), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(0, 12),
)
def test_no_other_division_earns_more(table, limit):
    table = [sorted(row, reverse=True) for row in table]
    most = np.array([len(row) for row in table])
    got = shared_out(np.zeros(len(table), np.int64), most, np.ones(len(table)), float(limit), by_table(table))
    assert got.sum() == min(limit, most.sum())

    def earned(vms):
        return sum(sum(row[:count]) for row, count in zip(table, vms, strict=True))

    best = max(earned(vms) for vms in product(*(range(len(row) + 1) for row in table)) if sum(vms) <= limit)
    assert earned(got.tolist()) >= best - 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_money_is_never_overspent_and_a_higher_limit_takes_nothing_away(seed):
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(1, 6))
    worth = by_table(np.sort(rng.exponential(5.0, (lanes, 12)), axis=1)[:, ::-1].tolist())
    price, most = rng.uniform(0.1, 3.0, lanes), rng.integers(0, 12, lanes)
    none = np.zeros(lanes, np.int64)
    spent = []
    for limit in (3.0, 6.0, 30.0):
        got = shared_out(none, most, price, limit, worth)
        assert (got <= most).all()
        assert (got * price).sum() <= limit + 1e-9
        spent.append((got * price).sum())
    assert spent == sorted(spent)
