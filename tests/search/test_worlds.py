"""Other worlds: each is what it says, and regrets follow from their losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import Duration
from autoscaler.simulator.search.executors import Processes, SameProcess
from autoscaler.simulator.search.variants import Axis, grid
from autoscaler.simulator.search.walkforward import embargo_ticks, plan_folds, walk
from autoscaler.simulator.search.worlds import price_of_unserved, weather, worlds_of
from autoscaler.traces.trace import Trace
from tests.search.builders import BASE, COURSE, TRACE
from tests.simulator.builders import policy

COURSE = replace(COURSE, ticks=Ticks.over(TRACE.start_s, 86_400.0, 60.0))
VARIANTS = [BASE.variant({}), *grid(BASE, [Axis("reactive.headroom", ("0%", "100%"))])]
WORLDS = {world.name: world for world in worlds_of(COURSE)}


@pytest.fixture(name="weathered", scope="module")
def _weathered():
    return {each.world: each for each in weather(VARIANTS, COURSE, 0.001)}


def test_every_world_is_what_it_says():
    assert list(WORLDS) == [
        "as recorded", "demand x 1.5", "bursts", "metric gap", "provider dry", "lead time x 2",
    ]  # fmt: skip
    assert WORLDS["as recorded"].trace is TRACE
    assert WORLDS["demand x 1.5"].trace.values == pytest.approx(1.5 * TRACE.values)
    more = WORLDS["bursts"].trace.rates - TRACE.rates
    assert more.max() == pytest.approx(0.5 * TRACE.peak_per_s, rel=0.05)
    assert (more >= -1e-9).all()
    # A crowd is over within hours.
    assert np.count_nonzero(more > 0.01 * TRACE.peak_per_s) < 0.2 * len(more)
    busiest_s = TRACE.timestamps[np.argmax(TRACE.rates[: COURSE.ticks.count])] + 30.0 - TRACE.start_s
    assert WORLDS["metric gap"].gaps == ((busiest_s - 900.0, busiest_s + 900.0),)
    assert WORLDS["provider dry"].dry == ((busiest_s - 1800.0, busiest_s + 1800.0),)
    slow = WORLDS["lead time x 2"].plant(BASE.plant)
    assert (slow.start.mean_s, slow.start.p95_s) == (80.0, 140.0)
    assert slow.provision.mean_s == 2 * BASE.plant.provision.mean_s
    assert WORLDS["as recorded"].plant(BASE.plant) == BASE.plant
    with pytest.raises(ConfigError, match="cannot take 2 times as long"):
        WORLDS["lead time x 2"].plant(replace(BASE.plant, start=Duration(4 * 3600.0)))


def test_gaps_of_a_recording_stay_gaps_in_every_world():
    keep = np.ones(len(TRACE.timestamps), bool)
    keep[100:160] = False
    gappy = Trace.build(TRACE.timestamps[keep], TRACE.values[keep], kind=TRACE.kind, interval_s=60.0)
    for world in worlds_of(replace(COURSE, trace=gappy)):
        assert world.trace.missing == gappy.missing
        assert world.trace.timestamps.tolist() == gappy.timestamps.tolist()


def test_crowds_come_with_the_seed():
    again, other = worlds_of(COURSE)[2], worlds_of(replace(COURSE, seed=4))[2]
    assert again.trace.digest == WORLDS["bursts"].trace.digest != other.trace.digest


def test_bad_worlds_cost_service_and_regret_is_the_loss_above_the_least(weathered):
    assert list(weathered) == list(WORLDS)
    calm = weathered["as recorded"]
    for name in ("bursts", "metric gap", "provider dry", "lead time x 2"):
        # Of the policy without any headroom, which has nothing to spare.
        assert weathered[name].unserved[1] > calm.unserved[1], name
    assert (weathered["demand x 1.5"].cost > calm.cost).all()
    for each in weathered.values():
        assert each.regret.min() == 0.0
        assert (each.regret >= 0).all()
    # By hand: cost and priced work of both, from the score card's own figures.
    demand = float(np.add.reduce(TRACE.rates[COURSE.warm_up_ticks : COURSE.ticks.count]) * 60.0)
    loss = calm.cost + 0.001 * calm.unserved * demand
    assert calm.regret == pytest.approx(loss - loss.min(), rel=1e-3, abs=1e-3)


def test_the_price_of_unserved_work_turns_the_choice(weathered):
    cheap = {each.world: each for each in weather(VARIANTS, COURSE, 0.0)}
    dear = {each.world: each for each in weather(VARIANTS, COURSE, 1.0)}
    assert int(np.argmin(cheap["bursts"].regret)) == 1
    assert int(np.argmin(dear["bursts"].regret)) == 2
    assert weathered["bursts"].cost.tolist() == dear["bursts"].cost.tolist()


def test_who_computes_changes_no_bit(weathered):
    for each in weather(VARIANTS, COURSE, 0.001, executor=Processes(2)):
        assert each.regret.tolist() == weathered[each.world].regret.tolist()
        assert each.unserved.tolist() == weathered[each.world].unserved.tolist()


class Interrupted:
    """As if Ctrl-C came in the third world."""

    def __init__(self):
        self.worlds = 0

    def run(self, work, shared, parts):
        self.worlds += 1
        if self.worlds == 3:
            raise KeyboardInterrupt
        yield from SameProcess().run(work, shared, parts)


def test_forecasts_of_the_same_demand_are_made_once_and_change_no_figure():
    """Only the world without metrics sees something else; where demand differs, nothing is kept."""
    ahead = replace(
        BASE, policy=policy(vm={"capacity": "120/s"}, bounds={"minimum": 2, "maximum": 60}, reactive="off")
    )
    variants = [ahead.variant({}), *grid(ahead, [Axis("guards.stabilisation", ("1m", "10m"))])]
    looks = []
    cache = OutlookCache()
    cache.look = lambda: looks.append(1)
    walk(variants, COURSE, plan_folds(COURSE, embargo_ticks(variants, 60.0, 60.0)), cache=cache)
    of_one = len(looks)
    assert of_one
    again = weather(variants, COURSE, 0.001, cache=cache)
    assert len(looks) == 2 * of_one
    for each, alone in zip(again, weather(variants, COURSE, 0.001), strict=True):
        assert each.cost.tolist() == alone.cost.tolist(), each.world
        assert each.regret.tolist() == alone.regret.tolist(), each.world


def test_worlds_that_had_finished_before_ctrl_c_are_kept(weathered):
    kept = weather(VARIANTS, COURSE, 0.001, executor=Interrupted())
    assert [each.world for each in kept] == ["as recorded", "demand x 1.5"]
    assert kept[1].cost.tolist() == weathered["demand x 1.5"].cost.tolist()


def test_unserved_work_costs_ten_times_what_serving_does():
    # 3.6 an hour for 100 a second: 0.00001 a unit of work.
    assert price_of_unserved(policy()) == pytest.approx(1e-4)
    assert price_of_unserved(policy(prices={"in_service": 0})) == 1.0
