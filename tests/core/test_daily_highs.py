"""The demand noted for a time of day on each day of a week, by tick or by page, also after gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.objective.daily_highs import AROUND_S, DAYS, WIDELY_S, EarlierDays
from autoscaler.core.objective.habits import DAY_S, Habits, note, week_slot_s

MIDNIGHT_S = 20_000 * DAY_S
COLUMNS = 3


def plainly(slots, now_s, ahead_s, tick_s, oldest):
    """The average of days and the highest of any, of one column, from its highest by slot; NaN where unknown."""
    each_s, under_way = week_slot_s(tick_s), (now_s - tick_s) // week_slot_s(tick_s)
    widely, near = [], []
    for day in range(1, DAYS + 1):
        then_s = now_s - day * DAY_S
        for around_s, found in ((WIDELY_S, widely), (AROUND_S, near)):
            first = max((then_s - around_s) // each_s, oldest)
            end = min(math.ceil((then_s + ahead_s + around_s) / each_s - 1e-9), under_way)
            seen = [slots[slot] for slot in range(int(first), int(end)) if slot in slots]
            found.extend([max(seen)] if seen else [])
    return (sum(widely) / len(widely) if widely else math.nan), max(near, default=math.nan)


class Story:
    """Demand of columns noted tick by tick, with gaps, and the highest of each slot by column."""

    def __init__(self, tick_s, seed):
        self.tick_s, self.rng = tick_s, np.random.default_rng(seed)
        self.habits = Habits.empty(COLUMNS, 1, tick_s)
        self.now_s, self.slots = MIDNIGHT_S, [{} for _ in range(COLUMNS)]

    def tick(self):
        need, known = self.rng.uniform(0.0, 50.0, COLUMNS), self.rng.random(COLUMNS) < 0.9
        note(self.habits, self.now_s, need, known, self.tick_s)
        slot = int(self.now_s // week_slot_s(self.tick_s))
        for column in np.flatnonzero(known):
            of = self.slots[column]
            of[slot] = max(of.get(slot, 0.0), float(np.float32(need[column])))
        self.now_s += self.tick_s

    def expected(self, leads_s):
        under_way = (self.now_s - self.tick_s) // week_slot_s(self.tick_s)
        oldest = under_way - len(self.habits.week) + 1
        return np.array(
            [
                plainly(of, self.now_s, lead_s, self.tick_s, oldest)
                for of, lead_s in zip(self.slots, leads_s, strict=True)
            ]
        ).T


@pytest.mark.parametrize("tick_s", [10.0, 300.0, 450.0, 3600.0])
@pytest.mark.parametrize("longest_s", [700.0, 2.0 * DAY_S])
def test_it_is_what_was_noted_of_each_day(tick_s, longest_s):
    story = Story(tick_s, 3)
    mine = np.array([True, False, True])
    days = EarlierDays([(2.0 * tick_s, mine), (longest_s, ~mine)], tick_s)
    leads_s, known = np.where(mine, 2.0 * tick_s, longest_s), 0
    for _ in range(120):
        for _ in range(int(story.rng.integers(1, 8))):
            story.tick()
            asked = story.expected(leads_s)
            assert days.is_complete(story.habits, story.now_s)
            np.testing.assert_allclose(days.at(story.habits, story.now_s), asked, rtol=1e-12)
            known += int(np.count_nonzero(~np.isnan(asked)))
        # From gap to gap through ten days, so that days are forgotten.
        story.now_s += float(story.rng.integers(1, max(2.0, 20.0 * DAY_S / 120 / tick_s))) * tick_s
    assert known > 100


@pytest.mark.parametrize("tick_s", [60.0, 300.0, 3600.0])
@pytest.mark.parametrize("same", [True, False])
def test_a_page_is_what_its_ticks_are_to_the_bit(tick_s, same):
    story, everyone = Story(tick_s, 5), np.ones(COLUMNS, np.bool_)
    for _ in range(round(9 * DAY_S / tick_s)):
        story.tick()
    if same:
        story.habits.week[...] = story.habits.week[:, :1]
    alike = ColumnGroups(np.zeros(COLUMNS))
    times_s = [story.now_s + tick * tick_s for tick in range(int(max(2, 3600 // tick_s)))]
    found = EarlierDays([(tick_s, everyone)], tick_s).page(story.habits, times_s, alike)
    assert found.shape == (len(times_s), 2, 1 if same else COLUMNS)
    for at_s, each in zip(times_s, found, strict=True):
        days = EarlierDays([(tick_s, everyone)], tick_s)
        asked = days.at(story.habits, at_s)
        assert np.broadcast_to(each, asked.shape).tolist() == asked.tolist()
        story.tick()
        if same:
            story.habits.week[...] = story.habits.week[:, :1]


def test_what_is_not_noted_yet_is_asked_for_first():
    story = Story(60.0, 1)
    days = EarlierDays([(60.0, np.ones(COLUMNS, np.bool_))], 60.0)
    for _ in range(20):
        story.tick()
    later_s = story.now_s + DAY_S
    assert not days.is_complete(story.habits, later_s)
    assert days.page(story.habits, [later_s], ColumnGroups(np.zeros(COLUMNS))) is None


def test_other_habits_are_looked_at_anew():
    days, found = EarlierDays([(60.0, np.ones(COLUMNS, np.bool_))], 60.0), []
    for seed in (1, 2):
        story = Story(60.0, seed)
        for _ in range(round(DAY_S / 60.0)):
            story.tick()
        found.append(days.at(story.habits, story.now_s).tolist())
    assert found[0] != found[1]
