"""Bands of VMs in which another model drives: their cost computed by hand, and which model drives in each."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective.bands import EVERY_S, SAVED, Bands
from autoscaler.core.objective.charging import MORE
from autoscaler.core.objective.competition import ModelCompetition
from autoscaler.core.objective.competition_state import AS_THE_WHOLE as WHOLE
from autoscaler.core.objective.models import BAND_TOPS, MODELS
from autoscaler.core.state import LaneState
from tests.core.builders import lane_params

TICK_S = 60.0
TICKS = 4 * 24 * 60


def lived(demand, lows, highs, monkeypatch, *, price=20.0, most=600, promised=0.0):
    """A trial whose first models go up to and down to so many VMs by demand, all others to as many as they may.

    Bands are weighed at every tick, so that what they cost is had by hand.
    """
    monkeypatch.setattr("autoscaler.core.objective.bands.EVERY_S", TICK_S)
    monkeypatch.setattr("autoscaler.core.objective.competition.HALF_LIFE_S", 1e18)
    params = lane_params(
        1,
        economic=True,
        vm_capacity=1.0,
        start_cost=1.0,
        hold_ticks=5,
        tick_s=TICK_S,
        maximum=most,
        unserved_target=promised,
    )
    trial, contest = LaneState.empty(params).trial, ModelCompetition(params, np.array([0]))
    known, work = np.array([True]), np.zeros(1)
    for tick in range(1, TICKS + 1):
        work = np.array([float(demand(tick))])
        want = contest.want
        want[...] = most
        for model, (low, high) in enumerate(zip(lows, highs, strict=True)):
            want[:, model, 0] = low(work[0]), high(work[0])
        contest.step(trial, tick, work, known, want, np.array([price]))
    trial.settle()
    return trial, contest


def test_bands_add_up_to_the_whole_and_each_costs_what_its_vms_do(monkeypatch):
    rng = np.random.default_rng(5)
    demands = np.append(rng.gamma(2.0, 9.0, TICKS), 0.0)
    lows = [lambda need: int(np.ceil(need)), lambda _: 5, lambda _: 40]
    trial, _ = lived(lambda tick: demands[tick], lows, lows, monkeypatch)
    for whole, of in ((trial.paid, 0), (trial.unserved, 1)):
        np.testing.assert_allclose(trial.below[of, -1], whole, rtol=1e-5)
    assert (np.diff(trial.below, axis=1) >= -1e-6 * trial.below[:, -1:]).all()
    # Five VMs: two of them are in the first band, three in the next; what they miss is what demand takes of each.
    charged = demands[2 : TICKS + 1]
    for band, top in enumerate(BAND_TOPS):
        served = min(5.0, top)
        assert trial.below[0, band, 1, 0] == pytest.approx(served * len(charged), rel=1e-6)
        missed = np.maximum(np.minimum(charged, top) - 5.0, 0.0).sum()
        assert trial.below[1, band, 1, 0] == pytest.approx(missed, rel=1e-5)
        nearly = np.maximum(np.minimum(MORE * charged, top) - 5.0, 0.0).sum()
        assert trial.below[2, band, 1, 0] == pytest.approx(nearly, rel=1e-5)


@pytest.mark.parametrize("tick_s", [10.0, 60.0, 300.0, 900.0])
def test_bands_are_weighed_once_in_three_minutes_and_at_each_minute_of_an_hour_and_of_a_day_equally_often(
    tick_s,
):
    one = np.ones(1)
    bands = Bands(np.array([60]), one.astype(np.float32), one < 0.0, tick_s, len(MODELS))
    every, days, first = max(1, round(EVERY_S / tick_s)), 5, 1_700_006_400 // int(tick_s)
    ticks = first + np.arange(int(days * 86400 / tick_s))
    due = ticks[[bands.due(int(tick)) for tick in ticks]]
    assert (due // every == first // every + np.arange(len(due))).all()
    for period_s in (3600, 86400):
        # In so many parts as there are times of three minutes and a minute in each, or ticks where they are longer.
        parts, part_s = int(period_s // max(60.0, tick_s)), max(60.0, tick_s)
        count = np.bincount((due * tick_s % period_s // part_s).astype(int), minlength=parts)
        expected = len(due) / parts
        assert count.min() >= expected - max(1.0, 0.2 * expected)
        assert count.max() <= expected + max(1.0, 0.2 * expected)


def driver_of(trial, contest, vm):
    """The model that drives a VM of the only column."""
    return int(contest.bands.driving(trial).of(np.array([vm]), np.array([0]))[0])


@pytest.mark.parametrize(("held", "drives"), [(20, 0), (8, 1)])
def test_a_model_that_is_cheapest_in_a_band_drives_it_where_that_saves(held, drives, monkeypatch):
    # Six VMs are always needed: the first model has none, the second too many. What it holds above the eighth serves nothing.
    lows = [lambda _: 0, lambda _: held]
    trial, contest = lived(lambda _: 6.0, lows, lows, monkeypatch)
    assert trial.driver[0] == 1
    assert trial.drivers[:4, 0].tolist() == [WHOLE, WHOLE, drives if drives == 0 else WHOLE, WHOLE]
    contest.want[:, :2, 0] = [[0, held], [9, held + 2]]
    low, high = contest.bands.wishes(trial, contest.want)
    assert (low[0], high[0]) == ((8, 9) if drives == 0 else (held, held + 2))
    driving = [driver_of(trial, contest, vm) for vm in (1, 2, 3, 8, 9, 32, 33, 1000)]
    assert driving == [1, 1, 1, 1, drives, drives, 1, 1]


def test_where_a_share_is_promised_one_model_drives_all_bands(monkeypatch):
    lows = [lambda _: 0, lambda _: 20]
    trial, contest = lived(lambda _: 6.0, lows, lows, monkeypatch, promised=0.01)
    assert trial.driver[0] == 1
    assert (trial.drivers == WHOLE).all()
    assert contest.bands.wishes(trial, contest.want)[:, 0].tolist() == [20, 20]
    assert driver_of(trial, contest, 20) == 1


def test_a_fleet_that_is_promised_a_share_and_costs_nothing_is_no_trouble_to_one_with_a_price():
    params = lane_params(
        2,
        economic=True,
        vm_capacity=1.0,
        start_cost=1.0,
        tick_s=TICK_S,
        maximum=20,
        unserved_target=np.array([0.0, 0.01]),
    )
    trial, contest = LaneState.empty(params).trial, ModelCompetition(params, np.arange(2))
    idle, known = np.zeros(2), np.array([True, True])
    for tick in range(1, 24 * 60):
        contest.want[...] = 0
        contest.step(trial, tick, idle, known, contest.want, np.array([20.0, 20.0]))
    assert (trial.drivers == WHOLE).all()
    assert contest.bands.wishes(trial, contest.want).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("least", "drives"), [(SAVED, WHOLE), (0.0, 1)])
def test_what_saves_too_little_of_the_whole_changes_nothing(least, drives, monkeypatch):
    monkeypatch.setattr("autoscaler.core.objective.bands.SAVED", least)
    monkeypatch.setattr("autoscaler.core.objective.bands.EARLY_SAVED", 4.0 * least)
    # Two VMs above 512 for a minute once: to hold two more all the time is dearer, and none of them is up there.
    lows = [lambda need: 514 if need > 400 else 400, lambda _: 402]
    trial, _ = lived(lambda tick: 400.0 + (tick % 3000 == 0), lows, lows, monkeypatch)
    assert trial.driver[0] == 0
    assert trial.drivers[:, 0].tolist() == [WHOLE] * 5 + [drives]


def test_in_a_band_a_hundredth_of_the_whole_is_much_where_little_can_be_saved(monkeypatch):
    # The first model holds one VM of 121 for nothing; but above the 128th only it knows of the crowds of two hours.
    lows = [lambda need: 121 if need <= 120 else 200, lambda need: 120 if need <= 120 else 128]
    trial, _ = lived(lambda tick: 120.0 + 80.0 * (tick % 2000 < 120), lows, lows, monkeypatch)
    assert trial.driver[0] == 0
    assert trial.drivers[:, 0].tolist() == [WHOLE] * 3 + [1] + [WHOLE] * 2


def test_a_band_that_a_fleet_may_not_reach_is_none_of_its_own(monkeypatch):
    lows = [lambda _: 0, lambda _: 20]
    trial, contest = lived(lambda _: 6.0, lows, lows, monkeypatch, most=20)
    whole = trial.driver[0]
    assert whole != 0
    assert trial.drivers[:, 0].tolist() == [WHOLE, WHOLE, 0, WHOLE, WHOLE, WHOLE]
    # As of the last comparison.
    np.testing.assert_allclose(trial.below[:, -1], trial.below[:, 2], rtol=0.02)
    contest.want[:, [0, whole], 0] = [[20, 12], [20, 12]]
    assert contest.bands.wishes(trial, contest.want)[:, 0].tolist() == [20, 20]
    assert driver_of(trial, contest, 20) == 0
