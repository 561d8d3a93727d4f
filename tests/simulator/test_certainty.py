"""The difference of two runs: its interval, and whether it may be luck."""

import math

import numpy as np

from autoscaler.simulator.replay.certainty import certainty, certainty_json, in_words
from autoscaler.simulator.replay.timeline import TimelineRow, jsonable

TICK_S = 600.0
DAY = 144


def rows(cost, shortage, demand=100.0):
    numbers = np.broadcast_arrays(cost, shortage, demand)
    return [
        TimelineRow(
            i * TICK_S, needed, None, None, 1, 1, 0, 0, 0, 0, 100.0, short, 0, 0, 0, paid, "holding 1"
        )
        for i, (paid, short, needed) in enumerate(zip(*(each.tolist() for each in numbers), strict=True))
    ]


def said(one, other):
    return in_words(certainty(one, other, TICK_S, 1), "Policy new", "old")


def noise(seed, size):
    return np.random.Generator(np.random.PCG64(seed)).normal(0, size, 3 * DAY)


def test_a_clear_difference_is_said_with_its_interval():
    one = rows(np.full(3 * DAY, 1.0), 2.0)
    other = rows(1.5 + noise(1, 0.1), 1.0 + noise(2, 0.1))
    text = said(one, other)
    assert text.startswith("Policy new minus old, per day: cost +7")
    assert "(95% interval +69." in text
    assert "; work unserved −1.0" in text
    assert "luck" not in text


def test_a_difference_that_may_be_luck_is_called_that():
    one = rows(np.full(3 * DAY, 1.0), 0.0)
    assert said(one, rows(1.0 + noise(3, 0.5), 0.0)).endswith(
        "; work unserved the same. The difference in cost may be luck."
    )
    both = said(one, rows(1.0 + noise(3, 0.5), np.abs(noise(4, 1.0)) - 0.8))
    assert both.endswith("Both differences may be luck.")


def test_the_interval_covers_the_mean_per_day():
    one, other = rows(np.full(3 * DAY, 1.0), 2.0), rows(1.5 + noise(1, 0.1), 2.0)
    found = certainty(one, other, TICK_S, 1).cost_per_day
    assert math.isclose(found.mean, np.mean([row.cost for row in other]) * DAY - DAY)
    assert found.low < found.mean < found.high


def test_little_traffic_has_no_interval():
    one = rows(np.full(DAY // 2, 1.0), 0.0)
    assert said(one, rows(np.full(DAY // 2, 2.0), 0.0)) == (
        "How much of the difference is luck cannot be said: that takes at least 16 h of traffic, better several days."
    )


def test_no_difference_needs_no_words():
    one = rows(np.full(3 * DAY, 1.0), 2.0)
    assert said(one, one) == ""


def test_what_is_unknown_counts_for_neither():
    cost, short = np.full(3 * DAY, 1.0), np.full(3 * DAY, 2.0)
    cost[:DAY], short[:DAY] = math.nan, math.nan
    assert said(rows(cost, short), rows(np.full(3 * DAY, 2.0), 1.0)) == (
        "Policy new minus old, per day: cost +144.00 (95% interval +144.00 to +144.00); work unserved −1.00 points "
        "(−1.00 to −1.00)."
    )
    assert said(rows(math.nan * cost, short), rows(cost, short)) == ""
    idle = rows(cost[DAY:], 0.0, demand=0.0)
    assert "unserved" not in said(idle, rows(np.full(2 * DAY, 2.0), 0.0, demand=0.0))


def test_a_year_takes_no_more_periods_than_a_month():
    year = np.full(365 * DAY, 1.0)
    found = certainty(rows(year, 0.0), rows(year + 1.0, 0.0), TICK_S, 1)
    assert 999 <= found.cost_per_day.count <= 1000
    assert jsonable(certainty_json(found))["cost_per_day"]["low"] == 144.0
