"""What VMs are said to earn is what the driving model weighs: what it orders or keeps earns its cost, one more does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.core.decide import decide
from autoscaler.core.objective.competition import ModelCompetition
from autoscaler.core.objective.models import MODELS, PRICE_FACTORS, Kind, Model, Window
from autoscaler.core.state import LaneState
from autoscaler.core.types import Horizon
from tests.core.builders import snapshot
from tests.core.laws import joined, laws_of, whole
from tests.core.test_economic import objective

LANES = 60
NEARLY = 1e-4
"""Rounding in 32 bits."""
DRIVERS = [
    Model(Kind.WORTH, knob, window)
    for knob in range(len(PRICE_FACTORS))
    for window in (Window.NOW, Window.SHORT, Window.LONG)
]


@pytest.fixture(autouse=True)
def _who_drives_drives_on(monkeypatch):
    monkeypatch.setattr(ModelCompetition, "chooses", lambda *_: False)


def economics(laws, driver, ordered, **changed):
    """What a decision tells where this model drives and so many VMs serve."""
    params = objective(len(ordered), minimum=0, maximum=1000, **changed)
    params = replace(params, series=np.arange(len(ordered)))
    state = LaneState.empty(params)
    state.trial.driver[:] = MODELS.index(driver)
    view = snapshot(len(ordered), in_service=np.asarray(ordered), demand=np.full(len(ordered), 1.0))
    return decide(params, state, view, whole(laws)).economics


def some_laws(seed):
    """Laws with thin and with thick tails, and with gaps, one for each lane: higher over longer horizons."""
    rng = np.random.default_rng(seed)
    laws = []
    for _ in range(LANES):
        outcomes = rng.gamma(rng.uniform(0.5, 9.0), rng.uniform(0.3, 6.0), 200)
        outcomes[rng.random(200) < 0.02] *= rng.uniform(1.0, 8.0)
        rises = np.cumprod([1.0, *rng.uniform(1.0, 1.3, len(Horizon) - 1)])
        laws.append(laws_of({h: outcomes * rises[h] for h in Horizon}, spread=rng.uniform(0.02, 0.5)))
    return joined(laws)


@pytest.mark.parametrize("driver", DRIVERS, ids=str)
@pytest.mark.parametrize("start_cost", [0.0, 3.0])
def test_the_last_vm_earns_its_cost_and_one_more_does_not(driver, start_cost):
    laws, given = some_laws(DRIVERS.index(driver)), {"start_cost": start_cost}
    few = economics(laws, driver, np.zeros(LANES, np.int64), **given)
    last, following = few.worth(few.low)
    assert (last[few.low > 0] > 1.0 - NEARLY).all()
    assert (following < 1.0 + NEARLY).all()

    many = economics(laws, driver, np.full(LANES, 900), **given)
    assert many.high.tolist() == few.high.tolist()
    last, following = many.worth(many.high)
    assert (last[many.high > 0] > 1.0 - NEARLY).all()
    assert (following < 1.0 + NEARLY).all()

    # Between the two: the last VM is worth keeping, and one more would not be worth starting.
    between = few.low + (few.high - few.low) // 2
    between += between == few.low
    some = between < few.high
    last, following = economics(laws, driver, between, **given).worth(between)
    assert (last[some] > 1.0 - NEARLY).all()
    assert (following[some] < 1.0 + NEARLY).all()


def test_by_hand():
    # 19.8 VMs of work for certain, at a price of 100: the 20th serves 0.8 of a VM's work, and bears 3 VM-ticks over 30.
    laws = laws_of(np.full(100, 19.8))
    plain = Model(Kind.WORTH, 0, Window.NOW)
    found = economics(laws, plain, [0])
    assert found.worth(np.array([20]))[0] == pytest.approx(80.0 / 1.1, rel=0.05)
    twice = Model(Kind.WORTH, 1, Window.NOW)
    assert economics(laws, twice, [0]).worth(np.array([20]))[0] == pytest.approx(160.0 / 1.1, rel=0.05)
    # A VM that is only worth keeping needs no start: in one of ten hold windows demand is higher.
    rises = laws_of(
        {
            h: np.array([19.8] * (90 if h is Horizon.HOLD else 100) + [23.0] * 10 * (h is Horizon.HOLD))
            for h in Horizon
        }
    )
    longer = Model(Kind.WORTH, 0, Window.LONG)
    assert economics(rises, longer, [25]).worth(np.array([22]))[0] == pytest.approx(10.0, rel=0.2)
    laws.level[:] = np.nan
    assert np.isnan(economics(laws, plain, [0]).worth(np.array([20]))).all()
