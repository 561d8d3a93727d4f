"""The usual demand of a fleet: histograms by hour, and the day before."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective.habits import (
    CROWD,
    DAY_S,
    EVER_HALF_LIFE_S,
    HOUR_S,
    WEEK_S,
    Habits,
    bin_of,
    last_week,
    note,
    note_page,
    revise,
    yesterday,
)

KNOWN = np.array([True])
MIDNIGHT_S = 20_000 * DAY_S


def lived(demand_at, hours, tick_s=60.0, share=(0.5, 0.01)):
    """Habits after so many hours of a demand in VMs, by seconds since midnight of the first day."""
    habits = Habits.empty(1, len(share), tick_s)
    for tick in range(int(hours * HOUR_S / tick_s)):
        now_s = MIDNIGHT_S + tick * tick_s
        note(habits, now_s, np.array([demand_at(tick * tick_s)]), KNOWN, tick_s)
        revise(habits, now_s + tick_s, np.zeros(1), np.array(share)[:, np.newaxis])
    return habits


def test_the_usual_number_covers_the_share_of_ticks_that_pays():
    # Four VMs in 90 of 100 ticks, 30 in the others: worth 30 where 1 % pays, 4 where 50 % must.
    habits = lived(lambda at: 30.0 if at % 6000 < 600 else 4.0, 100)
    few, many = habits.wanted[0, :, 0]
    assert few == pytest.approx(4, abs=1)
    assert many == pytest.approx(30, abs=3)


def test_an_hour_of_the_day_has_habits_of_its_own():
    def busy_from_nine_to_ten(at):
        return 40.0 if 9 <= at % DAY_S / HOUR_S < 10 else 4.0

    before, within = (lived(busy_from_nine_to_ten, 24 * 6 + hour).wanted[1, 0, 0] for hour in (8.5, 9.5))
    assert before == pytest.approx(4, abs=1)
    assert within == pytest.approx(40, abs=4)


def test_yesterday_is_read_from_now_on_and_holds_what_comes():
    def burst_at_noon(at):
        return 20.0 if 12 * HOUR_S <= at % DAY_S < 12 * HOUR_S + 300 else 2.0

    habits = lived(burst_at_noon, 24 + 11.9)
    now_s = MIDNIGHT_S + DAY_S + 11.9 * HOUR_S
    soon, later = yesterday(habits, now_s, (120.0, 600.0), 60.0)
    assert (soon[0], later[0]) == (2.0, 20.0)
    soon, later = yesterday(habits, now_s + 300.0, (120.0, 600.0), 60.0)
    assert (soon[0], later[0]) == (20.0, 20.0)


def test_a_week_ago_is_read_to_five_minutes_and_a_day_ago_is_another_day():
    def burst_at_noon_of_the_first_day(at):
        return 20.0 if 12 * HOUR_S <= at < 12 * HOUR_S + 60 else 2.0

    habits = lived(burst_at_noon_of_the_first_day, 7 * 24 + 11.9)
    now_s = MIDNIGHT_S + WEEK_S + 11.9 * HOUR_S
    assert last_week(habits, now_s, (120.0, 600.0), 60.0)[:, 0].tolist() == [2.0, 20.0]
    assert last_week(habits, now_s + 300.0, (120.0, 600.0), 60.0)[:, 0].tolist() == [20.0, 20.0]
    assert yesterday(habits, now_s, (120.0, 600.0), 60.0)[:, 0].tolist() == [2.0, 2.0]
    assert np.isnan(
        last_week(lived(lambda _: 2.0, 5 * 24), MIDNIGHT_S + 5 * DAY_S, (120.0, 600.0), 60.0)
    ).all()


def test_a_window_ends_where_it_says():
    habits = lived(lambda at: 20.0 if 12 * HOUR_S <= at % DAY_S < 13 * HOUR_S else 2.0, 34, tick_s=3600.0)
    now_s = MIDNIGHT_S + 34 * HOUR_S
    assert yesterday(habits, now_s, (7200.0, 10800.0), 3600.0)[:, 0].tolist() == [2.0, 20.0]


def test_what_is_not_known_of_yesterday_is_not_zero():
    habits = Habits.empty(1, 1, 60.0)
    assert np.isnan(yesterday(habits, MIDNIGHT_S, (60.0, 600.0), 60.0)[0][0])
    note(habits, MIDNIGHT_S, np.array([np.nan]), np.array([False]), 60.0)
    assert habits.seen.sum() == 0
    assert np.isnan(yesterday(habits, MIDNIGHT_S + DAY_S, (60.0, 600.0), 60.0)[0][0])


@pytest.mark.parametrize("tick_s", [1.0, 10.0, 300.0, 3600.0])
def test_a_day_of_any_tick_takes_little(tick_s):
    assert Habits.empty(1, 2, tick_s).day.nbytes <= 6_000
    assert Habits.empty(1, 2, tick_s).week.nbytes <= 8_100
    assert Habits.empty(1, 2, tick_s).seen.nbytes <= 10_000


def test_whole_numbers_of_vms_have_bins_of_their_own_while_they_are_few():
    assert len(set(bin_of(np.arange(12.0)).tolist())) == 12


def test_what_was_ever_needed_is_not_forgotten_in_a_week():
    habits = lived(lambda at: 40.0 if at < 3600 else 4.0, 24 * 14, tick_s=300.0, share=(0.01, 0.001))
    usual, ever = habits.wanted[0, :, 0], habits.wanted[2, :, 0]
    assert usual[0] < 10
    assert ever == pytest.approx([4, 37], abs=3)


@pytest.mark.parametrize(("times_rarer", "most"), [(1, 30), (2, 60), (10, 300), (16, 480), (1000, 480)])
def test_beyond_the_highest_ever_rarer_is_higher_up_to_a_bound(times_rarer, most):
    ticks = 120
    habits = Habits.empty(1, 1, 60.0)
    for tick in range(ticks):
        note(habits, MIDNIGHT_S + tick * 60.0, np.array([30.0 if tick == 7 else 2.0]), KNOWN, 60.0)
    revise(habits, MIDNIGHT_S + ticks * 60.0, np.zeros(1), np.array([[1.0 / (ticks * times_rarer)]]))
    assert habits.wanted[2, 0, 0] == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize(("ticks", "highest"), [(1, 2.0), (5, 2.0), (6, 90.0), (20, 90.0)])
def test_what_does_not_last_a_minute_is_not_the_highest_ever(ticks, highest):
    habits = Habits.empty(1, 1, 10.0)
    load = [2.0] * 20 + [1000.0] + [90.0] * (ticks - 1) + [2.0] * 20
    for tick, need in enumerate(load):
        note(habits, MIDNIGHT_S + tick * 10.0, np.array([need]), KNOWN, 10.0)
    assert habits.highest[0] == highest


CLIMBING = [10.0] * 3 + [5.0] * 2 + [20.0, 40.0, 30.0] + [30.0, 5.0] + [1e9, 5.0]
"""VMs tick by tick: what is new counts in full, then once, three and two times more than ten, half more than 20, and without bound."""


@pytest.mark.parametrize(
    ("ticks", "above"), [(3, 0.0), (5, 0.0), (8, 6.0), (10, 6.5), (12, 6.5 + CROWD)], ids=str
)
def test_what_is_above_the_highest_ever_is_added_up_until_it_lasts(ticks, above):
    each, page = Habits.empty(1, 1, 20.0), Habits.empty(1, 1, 20.0)
    now_s = [MIDNIGHT_S + tick * 20.0 for tick in range(ticks)]
    for at_s, need in zip(now_s, CLIMBING, strict=False):
        note(each, at_s, np.array([need]), KNOWN, 20.0)
    note_page(page, now_s, np.array(CLIMBING[:ticks])[:, np.newaxis], 20.0)
    assert each.beyond[0] == pytest.approx(3 * CROWD + above)
    assert page.beyond[0] == each.beyond[0]


def test_what_was_above_the_highest_ever_is_forgotten_as_that_is():
    habits = Habits.empty(1, 1, 20.0)
    revise(habits, MIDNIGHT_S, np.zeros(1), np.full((1, 1), 0.5))
    habits.highest[:], habits.beyond[:], habits.allowed[:] = 8.0, 4.0, 2.0
    revise(habits, MIDNIGHT_S + EVER_HALF_LIFE_S, np.zeros(1), np.full((1, 1), 0.5))
    assert [habits.highest[0], habits.beyond[0], habits.allowed[0]] == pytest.approx([4.0, 2.0, 1.0])


def test_a_gap_within_a_crowd_neither_counts_nor_ends_it():
    habits = Habits.empty(1, 1, 20.0)
    for tick, need in enumerate([50.0, np.nan, 40.0, np.nan, 60.0]):
        known = np.array([not np.isnan(need)])
        note(habits, MIDNIGHT_S + tick * 20.0, np.array([need]), known, 20.0)
    assert habits.highest[0] == 40.0
