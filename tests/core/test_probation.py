"""While little has been seen the careful model drives, until others have proved themselves."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.objective.competition import TRIAL_VM_TICKS, ModelCompetition
from autoscaler.core.objective.models import CAREFUL, MODELS, Kind, Model
from autoscaler.core.objective.probation import AGAIN, PREMIUM, change_driver, unproven
from autoscaler.core.state import LaneState
from tests.core.builders import lane_params
from tests.core.test_driving import DAY, TICK_S, lived

DEAR = 2000.0
PLAIN = MODELS.index(Model(Kind.DEMAND, 4))


@pytest.mark.parametrize(("days", "driver"), [(2, CAREFUL), (4, PLAIN)])
def test_who_only_insures_what_was_never_seen_drives_after_some_days(days, driver):
    """Demand was 10 throughout; 16 VMs cost more than was shown to be needed, and less than what may yet be."""
    held = {CAREFUL: 11, PLAIN: 16}
    assert lived(held, lambda tick: 10.0, days=days, price=DEAR, first=CAREFUL).driver[0] == driver


def test_who_saves_drives_on_the_first_day():
    assert lived({CAREFUL: 15, 0: 11}, lambda tick: 5.0, days=1, price=5.0, first=CAREFUL).driver[0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_all_that_drive_together_cost_little_more_than_the_careful_one(seed, monkeypatch):
    monkeypatch.setattr("autoscaler.core.objective.competition.HALF_LIFE_S", 1e18)
    rng = np.random.default_rng(seed)
    params = lane_params(1, economic=True, vm_capacity=1.0, start_cost=1.0, tick_s=TICK_S, maximum=60)
    trial, contest = LaneState.empty(params).trial, ModelCompetition(params, np.array([0]))
    price, most, own, drove = np.array([DEAR]), 60.0, 0.0, set()

    def shown():
        trial.settle()
        lately = trial.lately.astype(np.float64) * trial.weight
        return (trial.paid + lately[0] + DEAR * (trial.unserved + lately[1]))[:, 0]

    margin = rng.uniform(0.8, 3.0, (len(MODELS), 6))
    before = shown()
    for tick in range(1, 3 * DAY):
        crowd = 25.0 if tick % 487 < 20 else 8.0
        demand = crowd + rng.gamma(2.0, 1.0)
        want = np.minimum(np.ceil(demand * margin[:, tick // 720]), most)
        want[CAREFUL] = np.ceil(1.25 * demand)
        contest.want[...] = want[:, np.newaxis]
        drives = int(trial.driver[0])
        contest.step(trial, tick, np.array([demand]), np.array([True]), contest.want, price)
        after = shown()
        own += after[drives] - before[drives]
        before = after
        drove.add(int(trial.driver[0]))
        careful = after[CAREFUL]
        # Until the next choice, five ticks, it may be off by all that they cost and lose.
        assert own <= (1.0 + PREMIUM) * careful + TRIAL_VM_TICKS + 5 * (most + DEAR * 40.0)
    assert own <= (1.0 + PREMIUM) * careful + TRIAL_VM_TICKS + 5 * most
    assert len(drove) > 1
    found = trial.spent + after[trial.driver[0]]
    assert found[0] == pytest.approx(own, rel=1e-5)


def test_by_hand_what_is_spent_and_when_it_may_be_spent_again():
    params = lane_params(1, economic=True, vm_capacity=1.0, tick_s=TICK_S)
    trial = LaneState.empty(params).trial
    price = np.array([10.0])
    trial.paid[:], trial.unserved[:] = 10_000.0, 50.0
    trial.paid[0], trial.unserved[0] = 9_000.0, 100.0
    shown, young = trial.paid + price * trial.unserved, np.array([True])
    assert not unproven(trial, shown, 0.0, young).any()
    shown[1] = 10_500.0 * (1.0 + PREMIUM) + 1.0
    assert np.flatnonzero(unproven(trial, shown, 0.0, young)).tolist() == [1]
    assert not unproven(trial, shown, 0.0, ~young).any()
    change_driver(trial, np.array([0]), price)
    # The careful one drove until now and the other would have saved 500, so that much more was spent than by it.
    assert trial.spent.tolist() == [500.0]
    trial.spent[:] += PREMIUM * 10_500.0
    assert not unproven(trial, shown, 0.0, young)[0, 0]
    trial.spent[:] += 1.0
    assert np.flatnonzero(~unproven(trial, shown, 0.0, young)).tolist() == [CAREFUL]
    change_driver(trial, np.array([CAREFUL]), price)
    assert unproven(trial, shown, 0.0, young)[0, 0]
    trial.spent[:] = AGAIN * PREMIUM * 10_500.0
    assert not unproven(trial, shown, 0.0, young)[0, 0]
