"""The memory of a lane or series survives when lanes are added, removed, moved, or change their horizons."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core import windows
from autoscaler.core.decide import decide
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness
from tests.core.builders import DECIDED, arrays_of, lane_params, samples, series_params, snapshot

TICK_S = 10.0
SWITCH = 60


def demand(lane, tick):
    """A bumpy day of its own for each lane."""
    return 400.0 + 50.0 * lane + 200.0 * np.sin(tick / (5.0 + lane)) + 13.0 * ((tick * 7 + lane) % 11)


def arrays(lanes, **changed):
    """Parameters of the lanes with these numbers, each with windows of its own."""
    numbers = np.array(lanes)
    given = {
        "reactive": True,
        "headroom": 0.2,
        "cover": True,
        "stabilisation_ticks": 3 + 17 * numbers,
        "warm_memory_ticks": 40 + numbers,
        "cooldown_in_s": 30.0,
        "rate_out_vms": 2.0,
        "rate_in_vms": 1.0,
        "rate_in_period_s": 25.0,
    } | changed
    params = lane_params(len(lanes), **given)
    series = series_params(len(lanes), half_life=50.0)
    series.lead_ticks[:] = 2 + numbers
    series.keep_ticks[:] = 4 + 3 * numbers
    return params, series


def rows(lanes, params, series, lane_state, series_state, ticks):
    """The decisions of these lanes, which are obeyed at once."""
    in_service = rows.in_service
    found = []
    for tick in ticks:
        now_s = tick * TICK_S
        values = np.array([demand(lane, tick) for lane in lanes])
        outlook = step(series, series_state, samples(now_s, values))
        serving = np.array([in_service.get(lane, 3) for lane in lanes])
        seen = snapshot(
            len(lanes), now_s=now_s, demand=values, in_service=serving, freshness=int(Freshness.FRESH)
        )
        decision = decide(params, lane_state, seen, outlook)
        for at, lane in enumerate(lanes):
            in_service[lane] = int(serving[at] + decision.start[at] - decision.stop[at])
        found.append(
            {
                lane: tuple(getattr(decision, name)[..., at].tobytes() for name in DECIDED)
                for at, lane in enumerate(lanes)
            }
        )
    return found


def begun(lanes, **changed):
    params, series = arrays(lanes, **changed)
    return params, series, LaneState.empty(params), SeriesState.empty(series)


def undisturbed(lane, until):
    rows.in_service = {}
    return [row[lane] for row in rows([lane], *begun([lane]), range(1_000, 1_000 + until))]


@pytest.mark.parametrize("later", [[2, 0], [0, 1, 2], [5, 2, 9], [2], [9, 0, 1, 2, 3]])
def test_lanes_that_stay_decide_to_the_bit_as_if_nothing_had_changed(later):
    first = [0, 1, 2]
    rows.in_service = {}
    params, series, lane_state, series_state = begun(first)
    before = rows(first, params, series, lane_state, series_state, range(1_000, 1_000 + SWITCH))
    columns = np.array([first.index(lane) if lane in first else -1 for lane in later])
    new_params, new_series = arrays(later)
    lane_state = lane_state.carried_over(new_params, columns)
    series_state = series_state.carried_over(new_series, columns)
    after = rows(
        later, new_params, new_series, lane_state, series_state, range(1_000 + SWITCH, 1_000 + 2 * SWITCH)
    )
    for lane in set(first) & set(later):
        told = [row[lane] for row in (*before, *after)]
        assert told == undisturbed(lane, 2 * SWITCH)


def test_a_lane_that_is_new_starts_as_if_it_were_the_first():
    params, series, lane_state, series_state = begun([0, 1])
    rows.in_service = {}
    rows([0, 1], params, series, lane_state, series_state, range(1_000, 1_050))
    new_params, new_series = arrays([7, 0])
    columns = np.array([-1, 0])
    carried, cold = lane_state.carried_over(new_params, columns), LaneState.empty(new_params)
    for name, array in arrays_of(carried).items():
        if not array.size:
            continue  # of the lanes that have an objective, of which there is none
        lane = 0
        if name.partition(".")[2] in {"ring", "under_way", "block", "before"}:
            lane, _ = getattr(cold, name.partition(".")[0]).cut.column_of(0)
        np.testing.assert_array_equal(array[..., lane], arrays_of(cold)[name][..., lane], err_msg=name)
    carried, cold = series_state.carried_over(new_series, columns), SeriesState.empty(new_series)
    for name, array in arrays_of(carried).items():
        np.testing.assert_array_equal(array[0], arrays_of(cold)[name][0], err_msg=name)


def test_nothing_is_shared_and_what_was_is_left_as_it_was():
    params, series, lane_state, series_state = begun([0, 1])
    rows.in_service = {}
    rows([0, 1], params, series, lane_state, series_state, range(1_000, 1_050))
    kept, kept_series = lane_state.copy(), series_state.copy()
    columns = np.array([1, 0])
    new_lane_state = lane_state.carried_over(params, columns)
    new_series_state = series_state.carried_over(series, columns)
    rows([0, 1], params, series, new_lane_state, new_series_state, range(1_050, 1_100))
    for name, array in arrays_of(lane_state).items():
        np.testing.assert_array_equal(array, arrays_of(kept)[name], err_msg=name)
    for name, array in arrays_of(series_state).items():
        np.testing.assert_array_equal(array, arrays_of(kept_series)[name], err_msg=name)


@pytest.mark.parametrize(("before", "after"), [(5, 9), (9, 5), (5, 200), (200, 5), (100, 300), (300, 40)])
def test_a_window_that_changes_keeps_its_highest_value_for_the_new_window_at_least(before, after):
    rolling = windows.RollingMax.empty(np.array([before]))
    for tick in range(1_000, 1_000 + before):
        rolling.push_and_max(tick, np.array([50 if tick == 1_000 + before - 1 else 3]))
    rolling = rolling.carried_over(np.array([after]), np.array([0]))
    held = [
        int(rolling.push_and_max(tick, np.array([3]))[0])
        for tick in range(1_000 + before, 1_000 + before + 2 * after + 20)
    ]
    coarse = max(1, -(-before // (windows.SLOTS - 1)) if before > windows.SLOTS else 1)
    slot = max(1, -(-after // (windows.SLOTS - 1)) if after > windows.SLOTS else 1)
    # Noted at the beginning of its old bucket, held for the new window and at most two buckets more.
    assert after - 1 - coarse <= held.count(50) <= after + 2 * slot
    assert held == sorted(held, reverse=True)


def test_a_horizon_that_changes_loses_what_waits_for_its_outcome_and_nothing_else():
    params = series_params(1, lead=2, keep=4)
    state = SeriesState.empty(params)
    for tick in range(1_000, 1_200):
        step(params, state, samples(tick * TICK_S, demand(0, tick)))
    longer = state.carried_over(series_params(1, lead=2, keep=9), np.array([0]))
    assert np.isnan(longer.issued[0, :, 1]).all()
    assert np.isnan(longer.blocks[0, :, 1]).all()
    for name, array in arrays_of(state).items():
        carried = arrays_of(longer)[name]
        if name in {"issued", "blocks", "open"}:
            only = (slice(None), 0) if name == "open" else (slice(None), slice(None), 0)
            np.testing.assert_array_equal(carried[only], array[only], err_msg=name)
        elif name != "horizons":
            np.testing.assert_array_equal(carried, array, err_msg=name)


def test_another_length_of_tick_keeps_what_was_learned():
    params = series_params(1, laws=True)
    state = SeriesState.empty(params)
    for tick in range(1_000, 1_400):
        step(params, state, samples(tick * TICK_S, demand(0, tick)))
    slower = series_params(1, laws=True, tick_s=30.0, lead=1, keep=2, hold=10, refill=120)
    carried = state.carried_over(slower, np.array([0]))
    before = step(params, state.copy(), samples(14_000.0, 500.0))
    after = step(slower, carried, samples(14_010.0, 500.0))
    assert after.evidence[0] == pytest.approx(before.evidence[0], rel=0.05)
    np.testing.assert_allclose(after.at_lead, before.at_lead, rtol=0.15)
    for tick in range(468, 700):
        step(slower, carried, samples(tick * 30.0, demand(0, 3 * tick)))
    assert np.isfinite(arrays_of(carried)["tables"]).all()


def test_laws_that_are_asked_for_later_begin_where_the_quantiles_are():
    params = series_params(1)
    state = SeriesState.empty(params)
    for tick in range(1_000, 1_400):
        step(params, state, samples(tick * TICK_S, demand(0, tick)))
    with_laws = series_params(1, laws=True)
    carried = state.carried_over(with_laws, np.array([0]))
    before = step(params, state, samples(14_000.0, 500.0))
    after = step(with_laws, carried, samples(14_000.0, 500.0))
    np.testing.assert_array_equal(after.at_lead, before.at_lead)
    assert after.laws.excess.shape == (1, 4, 65)


def test_a_smaller_token_bucket_holds_no_more_than_it_can():
    params = lane_params(1, rate_out_vms=10.0, rate_in_vms=8.0)
    state = LaneState.empty(params)
    smaller = lane_params(1, rate_out_vms=3.0, rate_in_vms=20.0)
    carried = state.carried_over(smaller, np.array([0]))
    assert (carried.tokens_out[0], carried.tokens_in[0]) == (3.0, 8.0)


def test_a_state_before_its_first_tick_is_carried_too():
    series = series_params(1)
    state = SeriesState.empty(series).carried_over(series_params(2), np.array([0, -1]))
    assert state.last_tick == -1
    assert np.isnan(state.track).all()
    assert state.unborn == 2
