"""A rise in demand that has lasted as long as a start takes is ordered for, whichever model drives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoscaler.core.decide import decide
from autoscaler.core.objective.competition import ModelCompetition
from autoscaler.core.objective.competition_state import AS_THE_WHOLE, Trial
from autoscaler.core.objective.earlier_days import Before
from autoscaler.core.objective.models import CAREFUL, MODELS, Kind, Model
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness
from tests.core.builders import snapshot
from tests.core.laws import laws_of, whole
from tests.core.test_economic import objective

TICK_S = 10.0
ABSENT = None
NOT_FOLLOWING = [Model(kind, 0) for kind in (Kind.USUAL, Kind.HOUR, Kind.EVER)]


@pytest.fixture(autouse=True)
def _who_drives_drives_on(monkeypatch):
    monkeypatch.setattr(ModelCompetition, "chooses", lambda *_: False)


def wanted(demands, driver, state=None, *, first=1, censored=False, **given):
    """Up to and down to how many VMs are wanted at each tick of demand in VMs, within the first hour; None is no data."""
    params = objective(tick_s=TICK_S, minimum=0, **given)
    state = LaneState.empty(params) if state is None else state
    laws = whole(laws_of(np.full(4, 1.0)))
    for tick, demand in enumerate(demands, first):
        state.trial.driver[:] = MODELS.index(driver)
        fresh = demand is not ABSENT
        view = snapshot(
            tick=tick,
            now_s=tick * TICK_S,
            demand=demand if fresh else np.nan,
            freshness=int(Freshness.FRESH if fresh else Freshness.ABSENT),
            censored=censored,
            in_service=5,
        )
        found = decide(params, state, view, laws).economics
        yield int(found.low[0]), int(found.high[0])


@pytest.mark.parametrize("driver", NOT_FOLLOWING, ids=str)
@pytest.mark.parametrize("lead_ticks", [0, 1, 4])
@pytest.mark.parametrize("censored", [False, True])
def test_a_step_that_lasted_for_a_start_is_ordered_for(driver, lead_ticks, censored):
    before, after = [9.0] * 40, [14.0] * (lead_ticks + 1)
    low = [each for each, _ in wanted(before + after, driver, lead_ticks=lead_ticks, censored=censored)]
    assert low[39 - lead_ticks :] == [9] * (2 * lead_ticks + 1) + [14]


def test_what_yesterday_needed_is_no_less_than_a_step_that_lasted():
    params = objective(lead_ticks=4)
    trial, contest = LaneState.empty(params).trial, ModelCompetition(params, np.array([0]))
    before = Before(np.full((2, 1), 10.0), np.full((2, 1), 20.0), np.full((2, 1), np.nan))
    at = MODELS.index(Model(Kind.YESTERDAY, 0))
    found = []
    for tick in range(10):
        contest.plain(trial, tick, np.array([14.0 if tick > 4 else 9.0]), before)
        found.append(contest.want[:, at, 0].tolist())
    assert found == [[10, 10]] * 9 + [[14, 14]]


def test_a_crowd_that_is_over_sooner_is_not():
    found = list(wanted([9.0] * 40 + [90.0] * 4 + [9.0], NOT_FOLLOWING[0], lead_ticks=4))
    assert max(low for low, _ in found) == 9


def test_what_was_not_seen_did_not_last():
    found = list(wanted([9.0] * 40 + [14.0] * 4 + [ABSENT] + [14.0] * 5, NOT_FOLLOWING[0], lead_ticks=4))
    assert [low for low, _ in found[-11:]] == [9] * 5 + [0] + [9] * 4 + [14]


def test_it_is_what_is_written_here_in_plain_python():
    rng = np.random.default_rng(7)
    lead_ticks, most = 3, 11
    # Nothing is usual, since at the first tick, after which that is told for an hour, there was nothing.
    demands = [0.0, *(ABSENT if rng.random() < 0.05 else float(rng.gamma(8.0)) for _ in range(300))]
    found = list(wanted(demands, NOT_FOLLOWING[0], lead_ticks=lead_ticks, maximum=most))
    for at, demand in enumerate(demands):
        seen = demands[max(0, at - lead_ticks) : at + 1]
        lasted = min(0.0 if each is ABSENT else each for each in seen)
        if demand is not ABSENT:
            # A VM that does half of its work all along is worth it.
            assert found[at][0] == min(most, math.floor(math.ceil(lasted * 1024) / 1024 + 0.5))
            assert found[at][1] >= found[at][0]


def test_a_restart_while_it_lasts_changes_nothing():
    given = {"driver": NOT_FOLLOWING[0], "lead_ticks": 4}
    demands = [9.0] * 40 + [14.0] * 5
    state = LaneState.empty(objective(tick_s=TICK_S, minimum=0, lead_ticks=4))
    list(wanted(demands[:42], state=state, **given))
    after = LaneState.restore(state.dump())
    assert list(wanted(demands[42:], state=after, first=43, **given)) == list(wanted(demands, **given))[42:]


def test_models_that_were_remembered_before_are_read_and_those_by_days_have_done_as_the_careful_one():
    state = LaneState.empty(objective(tick_s=TICK_S, lead_ticks=4))
    list(wanted([9.0] * 5, MODELS[-1], state=state, lead_ticks=4))
    now = state.trial.dump()
    by_days = [at for at, model in enumerate(MODELS) if model.kind in (Kind.AVERAGE_DAY, Kind.ANY_DAY)]
    of_models = (
        "serving",
        "coming",
        "young",
        "ordered",
        "lately",
        "paid",
        "unserved",
        "nearly",
        "crowd",
        "below",
    )
    before = now | {name: np.delete(now[name], by_days, axis=-2) for name in of_models}
    before |= {"version": 8, "driver": now["driver"] - len(by_days)}
    before["drivers"] = np.array([[AS_THE_WHOLE], [3], [len(MODELS) - 1 - len(by_days)], [CAREFUL], [0], [1]])
    after = Trial.restore(before)
    for name in of_models:
        found, of = getattr(after, name), now[name]
        for model in range(len(MODELS)):
            careful = CAREFUL if model in by_days else model
            np.testing.assert_array_equal(found[..., model, :], of[..., careful, :], err_msg=name)
    assert after.driver.tolist() == [len(MODELS) - 1]
    assert after.drivers[:, 0].tolist() == [AS_THE_WHOLE, 3, len(MODELS) - 1, CAREFUL, 0, 1]
