"""Shadows that go through many ticks at once give the same as tick by tick, and only identical ones are merged."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.decide import decide
from autoscaler.core.law_grid import PagedLaws
from autoscaler.core.objective.charging import CHARGES
from autoscaler.core.objective.models import MODELS
from autoscaler.core.objective.shadow_fleets import Cells, Shadows
from autoscaler.core.state import LaneState
from tests.core.builders import DECIDED, arrays_of
from tests.core.laws import whole
from tests.core.test_ahead import LANES, story, variants

ONE_SERIES = {"series": np.zeros(LANES, np.int64), "unserved_target": 0.0}


@pytest.mark.parametrize("troubles", [False, True])
@pytest.mark.parametrize(
    ("tick_s", "ticks", "changed"),
    [
        (20.0, 400, {}),
        (60.0, 400, {"lead_ticks": 1, "billed_ticks": 1, "minimum": 1 + np.arange(LANES) % 2}),
        (
            60.0,
            300,
            {"lead_ticks": 1, "billed_ticks": 0, "start_cost": 1.0, "maximum": 3 + np.arange(LANES) // 6},
        ),
        (300.0, 300, {"lead_ticks": 5, "billed_ticks": 1, "start_cost": 0.0, "maximum": 500}),
        (900.0, 300, {"start_cost": np.where(np.arange(LANES) < 4, 0.3, 2.0)}),
    ],
)
def test_shadows_are_what_they_are_tick_by_tick(tick_s, ticks, changed, troubles):
    params = variants(tick_s, **(ONE_SERIES | changed))
    foreseen, alone = LaneState.empty(params), LaneState.empty(params)
    rng, through = np.random.default_rng(7), 0
    for view, laws, page, row in story(3, ticks, tick_s, troubles=troubles, series=1):
        paged = PagedLaws(laws.level, laws.spread, laws.scale, laws.excess, page, row)
        a, b = decide(params, foreseen, view, whole(paged)), decide(params, alone, view, whole(laws))
        for name in set(DECIDED) - {"forecast", "forecast_hi"}:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        through += isinstance(foreseen.trial.owed.get(CHARGES), Shadows)
        if rng.random() < 0.03:
            theirs = arrays_of(alone.trial)
            for name, array in arrays_of(foreseen.trial).items():
                np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert through > ticks // 3


def test_shadows_that_are_not_alike_are_not_taken_for_one():
    """In one column a plain model has cost what it has not in others."""
    params = variants(60.0, **ONE_SERIES)
    foreseen, alone = LaneState.empty(params), LaneState.empty(params)
    for at, (view, laws, page, row) in enumerate(story(3, 120, 60.0, troubles=False, series=1)):
        if at == 45:
            for state in (foreseen, alone):
                state.trial.settle()
                state.trial.paid[20, 1] += 1.0
        paged = PagedLaws(laws.level, laws.spread, laws.scale, laws.excess, page, row)
        decide(params, foreseen, view, whole(paged))
        decide(params, alone, view, whole(laws))
        assert isinstance(foreseen.trial.owed.get(CHARGES), Shadows) == (0 < at < 45)
    theirs = arrays_of(alone.trial)
    for name, array in arrays_of(foreseen.trial).items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_cells_are_few_where_columns_differ_in_prices_alone():
    least, most, cost = np.array([1, 2, 1, 1]), np.full(4, 60), np.ones(4, np.float32)
    cells, own = Cells(least, most, cost), Cells(np.arange(4), most, cost)
    value = np.arange(len(MODELS) * 4, dtype=np.float64).reshape(len(MODELS), 4)
    assert not cells.all_apart
    assert own.all_apart
    np.testing.assert_array_equal(own.spread(own.few(value)), value)
    before, plain, after = cells.parts(cells.few(value))
    assert (before.shape[1], plain.shape[1], after.shape[1]) == (4, 2, 4)
    spread = cells.spread(cells.few(value))
    np.testing.assert_array_equal(spread[20], value[20, [0, 1, 0, 0]])
    np.testing.assert_array_equal(spread[0], value[0])
