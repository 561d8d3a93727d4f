"""Quantiles at the lead time stay calibrated in all conditions; what is learned for this, and when nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.forecast import SampleRows, SeriesState, coverage, learn, step, steps
from autoscaler.core.forecast.coverage import LEVELS, STEP
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Samples
from tests.core.builders import series_params

TICK_S, LEAD = 300.0, 2
PARAMS = series_params(laws=True, tick_s=TICK_S, lead=LEAD, keep=3, hold=6, half_life=1440.0)


def covered(demand):
    """Which shares of outcomes lie below the quantiles, after a third of the time, and the shares at which these are read."""
    ticks = len(demand)
    samples = SampleRows(
        [float(at) for at in np.arange(ticks) * TICK_S],
        demand[:, np.newaxis], np.zeros((ticks, 1), np.int64), [np.zeros(1, np.bool_)] * ticks,
    )  # fmt: skip
    state, found, at = SeriesState.empty(PARAMS), [], 0
    come = np.append(demand[LEAD:], np.full(LEAD, np.nan))
    for outlook in steps(PARAMS, state, samples):
        count = len(outlook.evidence)
        found.append(outlook.stated.covers(come[at : at + count]))
        at += count
    return np.nanmean(np.concatenate(found)[ticks // 3 :], axis=0), state.read_at[0]


def lumps(ticks=9000, seed=3):
    """A VM's work or nothing, and work more and more seldom."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(ticks) < np.linspace(0.6, 0.02, ticks), 300.0, 0.0)


def test_demand_that_changes_its_ways_is_covered_as_is_said(monkeypatch):
    demand = lumps()
    kept, read_at = covered(demand)
    assert (np.abs(kept - LEVELS) < [0.01, 0.01, 0.015, 0.02]).all()
    assert (read_at != LEVELS).all()
    monkeypatch.setattr(coverage, "_STEPS", [0.0] * 4)
    plain, read_at = covered(demand)
    assert read_at.tolist() == LEVELS.tolist()
    assert (np.abs(plain - LEVELS) > [0.05, 0.05, 0.05, 0.025]).all()


def test_noise_that_stays_as_it_is_is_read_nearly_as_laws_have_it():
    demand = 500.0 * np.exp(0.2 * np.random.default_rng(4).standard_normal(9000))
    kept, read_at = covered(demand)
    assert np.abs(kept - LEVELS).max() < 0.02
    assert np.abs(read_at - LEVELS).max() < 0.06


def asked_of(series=1, **given):
    params = series_params(series, laws=True, tick_s=TICK_S, lead=LEAD, keep=3, **given)
    state = SeriesState.empty(params)
    state.settings = Settings.of(params)
    return state.settings, state


def first_asked(settings, at=0):
    return next(
        tick
        for tick in range(at, at + 1000)
        if coverage.is_asked(settings, np.array([tick]), np.array([-1])).item()
    )


def even_law(series=1, level=100.0):
    """Half of the outcomes are no demand, the others evenly in the bins that follow."""
    beyond = np.repeat(np.linspace(0.5, 0.0, LAW_BINS, dtype=np.float32)[:, np.newaxis], series, axis=1)
    beyond[1:] = np.linspace(0.5, 0.0, LAW_BINS, dtype=np.float32)[:-1, np.newaxis]
    beyond[0] = beyond[1]
    measures = np.full(series, np.log(level + 30.0)), np.full(series, 0.1), np.full(series, 30.0)
    return coverage.AtLead(beyond, *measures)


def demand_in(bin_, law):
    """In the middle of a bin."""
    place = LAW_LOW + LAW_STEP * (bin_ + 0.5)
    return np.exp(law.log_level + law.spread * np.sinh(place)) - law.offset


def test_places_of_quantiles_by_hand():
    """Odds fall from a half by 1/126 a bin, from the second bin on: a tenth is left 0.4 x 126 bins later."""
    found = coverage.places(even_law().beyond, coverage.thresholds(np.array([[0.25, 0.5, 0.9, 0.95]])))
    assert found[0] == pytest.approx([0.5, 1.0, 1.0 + 0.4 * 126.0, 1.0 + 0.45 * 126.0], abs=1e-3)


def test_an_outcome_above_a_quantile_raises_it_and_one_below_lowers_it():
    settings, state = asked_of()
    law, tick = even_law(), first_asked(asked_of()[0])
    coverage.ask(settings, state, tick, law)
    assert state.asked_at.tolist() == [tick]
    # Median and 90 % lie below bin 55, 95 and 99 % above.
    coverage.answer(settings, state, tick + LEAD, demand_in(55, law), None)
    expected = LEVELS + STEP * (LEVELS - [0.0, 0.0, 1.0, 1.0])
    assert state.read_at[0] == pytest.approx(expected, abs=1e-12)
    assert state.asked_at.tolist() == [-1]


def test_of_a_bin_that_a_quantile_cuts_the_part_below_it_counts():
    settings, state = asked_of()
    law, tick = even_law(), first_asked(asked_of()[0])
    # No demand has odds of a half, which the median covers just; a quarter would be half of it.
    state.read_at[0, 0] = 0.25
    coverage.ask(settings, state, tick, law)
    coverage.answer(settings, state, tick + LEAD, np.zeros(1), None)
    moved = state.read_at[0] - [0.25, *LEVELS[1:]]
    assert moved == pytest.approx(STEP * (LEVELS - [0.5, 1.0, 1.0, 1.0]), abs=1e-7)


@pytest.mark.parametrize(
    ("late", "usable"), [(0, np.array([False])), (1, None), (40, None)], ids=["hidden", "skipped", "later"]
)
def test_what_is_not_known_of_that_very_tick_teaches_nothing(late, usable):
    settings, state = asked_of()
    law, tick = even_law(), first_asked(asked_of()[0])
    coverage.ask(settings, state, tick, law)
    coverage.answer(settings, state, tick + LEAD + late, demand_in(55, law), usable)
    assert state.read_at[0].tolist() == LEVELS.tolist()
    assert state.asked_at.tolist() == [-1]


def test_one_forecast_waits_at_a_time():
    settings, state = asked_of()
    first = first_asked(settings)
    coverage.ask(settings, state, first, even_law())
    asked = state.asked.copy()
    coverage.ask(settings, state, first_asked(settings, first + 1), even_law(level=900.0))
    np.testing.assert_array_equal(state.asked, asked)
    assert state.asked_at.tolist() == [first]


def test_ticks_are_drawn_evenly_and_on_no_clock():
    """At one of two ticks of five minutes, whatever the hour; at one of thirty of ten seconds."""
    for tick_s, share in ((300.0, 0.5), (10.0, 1.0 / 30.0)):
        settings = Settings.of(series_params(tick_s=tick_s))
        drawn = coverage.is_asked(settings, 5_000_000 + np.arange(60_000), np.array([7]))
        assert drawn.mean() == pytest.approx(share, rel=0.03)
        by_place = drawn.reshape(-1, 12).mean(axis=0)
        assert by_place == pytest.approx(share, rel=0.25)
        others = coverage.is_asked(settings, 5_000_000 + np.arange(60_000), np.array([8]))
        assert (drawn & others).mean() == pytest.approx(share**2, rel=0.2)


def test_quantiles_stay_in_order_where_shares_have_crossed():
    _, state = asked_of()
    state.read_at[0] = [0.5, 0.96, 0.95, 0.99]
    place = coverage.places(even_law().beyond, coverage.thresholds(state.read_at))[0]
    assert place[0] < place[1] == place[2] < place[3]


def test_nothing_is_asked_of_a_series_without_a_sample():
    settings, state = asked_of(2)
    law = even_law(2)
    law.log_level[0] = np.nan
    coverage.ask(settings, state, first_asked(settings), law)
    assert (state.asked_at >= 0).tolist() == [False, True]


def test_shares_stay_within_bounds_whatever_comes():
    """More than ever said, and then nothing, of which the median and the 90 % quantile cut the bin of half of the law."""
    settings, state = asked_of()
    law, tick = even_law(), 0
    ends = (
        (LEVELS, demand_in(63, law), coverage.HIGHEST),
        ([0.3, 0.5, 0.501, 0.901], np.zeros(1), [0.25, 0.45, 0.5, 0.9]),
    )
    for begin, demand, end in ends:
        state.read_at[0] = begin
        for _ in range(4000):
            tick = first_asked(settings, tick + LEAD)
            coverage.ask(settings, state, tick, law)
            coverage.answer(settings, state, tick + LEAD, demand, None)
        assert state.read_at[0] == pytest.approx(end, abs=1e-6)


def sample(tick, demand):
    one = np.array([demand])
    return Samples(tick * TICK_S, one, one, np.zeros(1, np.int64), np.ones(1), np.zeros(1, np.bool_))


def test_what_waits_is_void_where_the_lead_time_changes_or_the_clock_goes_back():
    state, tick = SeriesState.empty(PARAMS), 0
    while tick < 50 or state.asked_at[0] < 0:
        tick += 1
        step(PARAMS, state, sample(tick, 500.0 + tick % 7))
    state.read_at[0] = [0.4, 0.88, 0.94, 0.98]
    same = state.carried_over(PARAMS, np.array([0]))
    assert same.asked_at.tolist() == state.asked_at.tolist()
    other = state.carried_over(
        series_params(laws=True, tick_s=TICK_S, lead=5, keep=6, hold=9, half_life=1440.0), np.array([0])
    )
    assert (other.asked_at.tolist(), other.read_at.tolist()) == ([-1], state.read_at.tolist())
    learn(PARAMS, state, sample(tick - 20, 500.0))
    assert state.asked_at.tolist() == [-1]


def test_a_state_of_version_8_reads_quantiles_as_laws_have_them():
    state = SeriesState.empty(PARAMS)
    for tick in range(300):
        step(PARAMS, state, sample(tick, 100.0 * (tick % 3)))
    dump = state.dump()
    before = {name: value for name, value in dump.items() if name not in ("read_at", "asked_at", "asked")}
    found = SeriesState.restore(before | {"version": 8})
    assert found.read_at.tolist() == [LEVELS.tolist()]
    assert found.asked_at.tolist() == [-1]
    np.testing.assert_array_equal(found.tables, state.tables)


def test_a_state_of_version_9_keeps_its_corrections():
    state = SeriesState.empty(PARAMS)
    for tick in range(300):
        step(PARAMS, state, sample(tick, 100.0 * (tick % 3)))
    state.read_at[0, 1] = 0.7
    found = SeriesState.restore(state.dump() | {"version": 9, "unseasoned": 0})
    assert found.read_at.tolist() == state.read_at.tolist()
    assert found.asked_at.tolist() == state.asked_at.tolist()
