"""Judging the warm pool: accounts by hand, and the three-state programme compared with every schedule."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.benchmark.warm_pools import (
    PoolTerms,
    break_even_target,
    clairvoyant_books,
    day_target,
    foreseen_target,
    kept_books,
    least_cost,
    peak_target,
    rises,
    worth_of,
)

TERMS = PoolTerms(tick_s=60.0, provision_s=120.0, start_s=60.0, stopped_share=0.25)
"""Two ticks to make a VM, at the price of two; a stopped one costs a quarter; one tick late where it is made."""


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_books_by_hand() -> None:
    # One VM and one spare. The jump to 3 finds one stopped: one is missed and made, and the spare is ordered again,
    # which comes two ticks later. Going back to 1 leaves 3 stopped, of which one is wanted.
    found = kept_books(ints(1, 3, 3, 3, 1, 1), ints(1, 1, 1, 1, 1, 1), TERMS, 0)
    assert (found.missed, found.provisions) == (1, 2)
    # Stopped: 1, 0, 0, 1, 1, 1.
    assert found.mean_stopped == pytest.approx(4 / 6)
    assert found.cost * 60.0 == pytest.approx(0.25 * 4 + 2.0 * 2)
    # 3 had not been wanted before.
    assert found.missed_known == 0
    assert kept_books(ints(3, 1, 3), ints(0, 0, 0), TERMS, 0).missed_known == 2
    # What is on its way counts once: another spare is ordered, and no more.
    assert kept_books(ints(1, 3, 3, 3), ints(1, 1, 2, 2), TERMS, 0).provisions == 3


def test_only_scored_ticks_are_in_the_books() -> None:
    found = kept_books(ints(1, 4, 4, 4), ints(0, 0, 0, 0), TERMS, 2)
    assert (found.missed, found.provisions, found.cost) == (0, 0, 0.0)
    # The first of them is, and means are over them alone.
    first = kept_books(ints(1, 1, 4, 4), ints(0, 0, 0, 0), TERMS, 2)
    assert (first.missed, first.provisions) == (3, 3)
    held = kept_books(ints(1, 1, 1, 1), ints(2, 2, 2, 2), TERMS, 1)
    assert (held.mean_stopped, held.cost * 60.0) == (2.0, pytest.approx(0.25 * 6))


def test_people_hold_the_peak_or_for_a_day_or_until_break_even() -> None:
    wanted = ints(1, 3, 1, 1, *[1] * 8, 2)
    assert peak_target(wanted).tolist() == [0, 0, 2, 2, *[2] * 8, 1]
    # Making costs 2 VM-ticks, holding a quarter a tick: 8 ticks.
    assert TERMS.break_even_ticks == 8
    assert break_even_target(wanted, TERMS).tolist() == [0, 0, *[2] * 8, 0, 0, 0]
    hourly = replace(TERMS, tick_s=6 * 3600.0)
    assert day_target(wanted, hourly).tolist() == [0, 0, *[2] * 4, *[0] * 6, 0]


def test_hindsight_holds_across_short_gaps_only() -> None:
    # Four ticks idle at a quarter cost 1, making anew costs 2; twelve would cost 3.
    short, long = ints(2, *[1] * 4, 2), ints(2, *[1] * 12, 2)
    assert clairvoyant_books(short, TERMS, 0) * 60.0 == pytest.approx(1.0)
    assert clairvoyant_books(long, TERMS, 0) * 60.0 == pytest.approx(2.0)
    own = kept_books(short, ints(0, 1, 1, 1, 1, 0), TERMS, 0)
    assert (own.missed, own.cost * 60.0) == (0, pytest.approx(1.0))


def test_who_knows_what_comes_holds_that_and_nothing_else() -> None:
    wanted = ints(1, 1, 1, 1, 3, 1, 1, 1, 1, 1)
    assert foreseen_target(wanted, TERMS, 180.0).tolist() == [0, 2, 2, 2, 0, 0, 0, 0, 0, 0]
    # Who sees a minute only still sees as far as making a VM takes, two ticks.
    assert foreseen_target(wanted, TERMS, 60.0).tolist() == [0, 0, 2, 2, 0, 0, 0, 0, 0, 0]
    own = kept_books(wanted, foreseen_target(wanted, TERMS, 60.0), TERMS, 0)
    assert (own.missed, own.provisions) == (0, 2)


@given(
    wanted=st.lists(st.integers(0, 6), min_size=3, max_size=40),
    ahead_s=st.sampled_from([0.0, 120.0, 600.0]),
)
@settings(max_examples=60, deadline=None)
def test_who_knows_what_comes_misses_nothing_and_does_not_beat_hindsight(
    wanted: list[int], ahead_s: float
) -> None:
    series = np.array([wanted[0]] * 3 + wanted, np.int64)
    own = kept_books(series, foreseen_target(series, TERMS, ahead_s), TERMS, 3)
    assert own.missed == 0
    least = clairvoyant_books(series, TERMS, 3)
    # The least cost begins with as many VMs as are wanted; what waits already when scoring begins is not in its books.
    waiting = foreseen_target(series, TERMS, ahead_s)[3]
    assert own.cost * 60.0 >= least * 60.0 - 2.0 * waiting - 1e-9


def test_starts_are_what_is_asked_for_beyond_the_tick_before() -> None:
    assert rises(ints(1, 4, 2, 3, 3, 5), 0) == 3 + 1 + 2
    assert rises(ints(1, 4, 2, 3, 3, 5), 2) == 1 + 2
    assert rises(ints(1, 4), 1) == 3
    assert rises(ints(7), 0) == 0


def cheapest_by_trying(needed: list[float], price: float, *, pool: bool) -> float:
    """One level: the least cost of all schedules of cold (0), stopped (1) and running (2)."""
    best = math.inf
    for states in itertools.product(range(3) if pool else (0, 2), repeat=len(needed)):
        # It begins in the state that it has in the first tick.
        cost, before = 0.0, states[0]
        for state, want in zip(states, needed, strict=True):
            lost = price * min(max(want, 0.0), 1.0)
            if before == 0 and state > 0:
                cost += 2.0 + (1.0 * lost if state == 2 else 0.0)
            if before == 1 and state == 2:
                cost += 1.0
            cost += (lost, 0.25 + lost, 1.0)[state]
            before = state
        best = min(best, cost)
    return best


@given(
    needed=st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=1, max_size=7),
    price=st.sampled_from([0.5, 3.0, 20.0]),
    pool=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_three_state_programme_finds_the_cheapest_schedule(
    needed: list[float], price: float, *, pool: bool
) -> None:
    found = least_cost(np.array(needed), TERMS, price, with_stopped=pool)
    assert found == pytest.approx(cheapest_by_trying(needed, price, pool=pool))
    # A second level that is never needed costs nothing, and one above a full one what it costs alone.
    above = least_cost(np.array(needed) + 1.0, TERMS, price, with_stopped=pool)
    alone = least_cost(np.ones(len(needed)), TERMS, price, with_stopped=pool)
    assert above == pytest.approx(found + alone)


def test_a_pool_pays_for_bursts_and_not_for_what_always_runs() -> None:
    bursts = np.tile(np.repeat([0.0, 5.0], [20, 3]), 12).astype(float)
    terms = PoolTerms(tick_s=60.0, provision_s=300.0, start_s=60.0)
    assert worth_of(bursts, terms, 40.0).pays
    assert worth_of(bursts, terms, 40.0).saving > 0.2
    steady = worth_of(np.full(300, 5.0), terms, 40.0)
    assert not steady.pays
    assert 0.0 <= steady.saving < 0.01
    assert worth_of(np.full(10, math.nan), terms, 40.0).saving == 0.0
