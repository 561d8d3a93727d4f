"""Which model drives: how much a change must save, computed by hand, and what is remembered of it."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective.bands import CHOICE_S
from autoscaler.core.objective.competition import HYSTERESIS, ModelCompetition
from autoscaler.core.objective.models import MODELS, Kind, Model, Window
from autoscaler.core.state import LaneState
from tests.core.builders import lane_params

TICK_S = 60.0
FIRST = MODELS.index(Model(Kind.WORTH, 0, Window.LONG))
DAY = 24 * 60
PRICE = 20.0


def lived(
    held, demand=lambda tick: 100.0, *, days=4, price=PRICE, minimum=0, known=lambda tick: True, first=FIRST
):
    """A trial whose models hold so many VMs, by model; all others as many as they may."""
    params = lane_params(
        1, economic=True, vm_capacity=1.0, start_cost=1.0, tick_s=TICK_S, maximum=300, minimum=minimum
    )
    trial, contest = LaneState.empty(params).trial, ModelCompetition(params, np.array([0]))
    trial.driver[:] = first
    for tick in range(1, days * DAY + 1):
        contest.want[...] = 300
        for model, vms in held.items():
            contest.want[:, model] = vms
        work, counts = np.array([float(demand(tick))]), np.array([known(tick)])
        contest.step(trial, tick, work, counts, contest.want, np.array([price]))
    trial.settle()
    return trial


def test_where_little_can_be_saved_who_saves_half_of_it_drives():
    # One VM of a hundred is 1 % of all that is paid, which is less than a change must save of what can be saved.
    assert HYSTERESIS > 0.01
    assert lived({FIRST: 102, 0: 101}).driver[0] == 0


@pytest.mark.parametrize(("vms", "driver"), [(199, FIRST), (190, 0)])
def test_where_much_can_be_saved_a_hundredth_of_it_is_no_reason(vms, driver):
    assert lived({FIRST: 200, 0: vms}).driver[0] == driver


def test_the_least_that_anybody_could_pay_is_whole_vms_and_for_the_rest_one_more_or_shortage(monkeypatch):
    monkeypatch.setattr("autoscaler.core.objective.competition.HALF_LIFE_S", 1e18)
    rng = np.random.default_rng(3)
    demands = rng.gamma(1.5, 2.0, DAY + 1)
    price, minimum = 4.0, 2
    trial = lived(
        {0: 8},
        lambda tick: demands[tick],
        days=1,
        price=price,
        minimum=minimum,
        known=lambda tick: tick % 7 > 0,
    )
    # The work of a tick is told at its end, so the first one is nobody's.
    charged = [work for tick, work in enumerate(demands) if tick > 1 and tick % 7 > 0]
    least = [min(vms + price * max(work - vms, 0.0) for vms in range(minimum, 300)) for work in charged]
    assert trial.needed[0] == pytest.approx(sum(least))
    assert (trial.needed <= trial.paid + price * trial.unserved).all()


@pytest.mark.parametrize(
    ("tick_s", "every_s"),
    [(1.0, 60.0), (10.0, 60.0), (20.0, 100.0), (30.0, 150.0), (45.0, 150.0), (60.0, 300.0), (300.0, 300.0)],
)
def test_where_ticks_are_short_models_are_compared_every_five_ticks_or_minute(tick_s, every_s):
    contest = ModelCompetition(lane_params(1, economic=True, tick_s=tick_s), np.array([0]))
    hour = round(3600.0 / tick_s)
    first = 500_000 * hour
    assert sum(contest.chooses(tick - 1, tick) for tick in range(first, first + hour)) == 3600.0 / every_s
    # An hour of the bands is over only when drivers may change.
    assert CHOICE_S % every_s == 0.0
