"""The demand of an earlier day is the same whether it was kept or is looked up, for any ticks."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective.earlier_days import EarlierDay, WholeVms, whole
from autoscaler.core.objective.habits import (
    DAY_S,
    WEEK_S,
    Habits,
    last_week,
    note,
    slot_s,
    week_slot_s,
    yesterday,
)

MIDNIGHT_S = 20_000 * DAY_S
HEADROOM = np.array([[1.0], [1.5]])


@pytest.mark.parametrize("tick_s", [10.0, 60.0, 450.0])
@pytest.mark.parametrize("longest_s", [900.0, 2.0 * WEEK_S])
def test_it_is_what_is_looked_up_at_every_tick_also_after_gaps(tick_s, longest_s):
    rng = np.random.default_rng(0)
    habits = Habits.empty(2, 1, tick_s)
    mine = np.array([True, False])
    windows_s = [((tick_s, 600.0), mine), ((3.0 * tick_s, longest_s), ~mine)]
    day = EarlierDay(yesterday, DAY_S, slot_s(tick_s), windows_s, tick_s)
    week = EarlierDay(last_week, WEEK_S, week_slot_s(tick_s), windows_s, tick_s)
    now_s, known = MIDNIGHT_S, 0
    # From gap to gap through eight days, with some minutes of each tick between them.
    for _ in range(150):
        for _ in range(int(rng.integers(1, 12))):
            now_s += tick_s
            note(habits, now_s - tick_s, rng.uniform(0.0, 50.0, 2), rng.random(2) < 0.9, tick_s)
            for then, kept, ring, slot in (
                (yesterday, day, habits.day, habits.slot),
                (last_week, week, habits.week, habits.week_slot),
            ):
                first, second = (then(habits, now_s, pair_s, tick_s) for pair_s, _ in windows_s)
                asked = np.where(mine, first, second)
                np.testing.assert_array_equal(kept.at(habits, ring, slot, now_s), asked)
                known += int(np.count_nonzero(~np.isnan(asked)))
        now_s += float(rng.integers(1, 2.0 * 8 * DAY_S / 150 / tick_s)) * tick_s
    assert known > 100


def test_it_is_not_what_other_habits_knew():
    then, windows_s = MIDNIGHT_S + DAY_S, [((60.0, 600.0), np.array([True]))]
    day = EarlierDay(yesterday, DAY_S, 60.0, windows_s, 60.0)
    for need in (3.0, 7.0):
        habits = Habits.empty(1, 1, 60.0)
        for tick in range(1441):
            note(habits, MIDNIGHT_S + 60.0 * tick - 60.0, np.array([need]), np.array([True]), 60.0)
        found = day.at(habits, habits.day, habits.slot, then)
        assert found.tolist() == [[need], [need]]


def test_whole_vms_are_those_of_now_where_a_day_is_unknown_and_never_fewer_in_the_longer_window():
    vms, out = WholeVms(HEADROOM, 3, 40), np.zeros((2, 2, 3), np.int16)
    of = np.array([[3.0, np.nan, 90.0], [5.2, 1.0, np.nan]])
    for now in (4, 9):
        vms.fill(of, np.full((5, 3), now), out)
        # Of no more than 40 VMs; with headroom it is for others to bring down.
        assert out[0].tolist() == [[3, now, 40], [5, now, 60]]
        assert out[1].tolist() == [[6, now, 40], [8, now, 60]]


def test_whole_vms_follow_what_is_known_and_the_type_that_is_asked_for():
    vms, now = WholeVms(HEADROOM, 2, 40), np.full((2, 2), 7)
    for of in (np.full((2, 2), np.nan), np.array([[1.0, 2.0], [2.0, 2.0]]), np.full((2, 2), np.nan)):
        for kind in (np.int8, np.int32):
            out = np.zeros((2, 2, 2), kind)
            vms.fill(of, now, out)
            plain = np.zeros((2, 2, 2), np.int64)
            whole(of, HEADROOM, np.zeros((2, 2)), np.full((2, 2), 40.0), plain)
            unknown = np.isnan(of)[:, np.newaxis]
            expected = np.where(unknown, now, plain)
            assert out.tolist() == expected.tolist()
