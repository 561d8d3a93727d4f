"""Ticks in which nothing happens: the plant skips work, and the run stays the same."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.types import Decision, Stage
from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Budget, Duration, PlantSettings
from tests.simulator.builders import levels, policy

TICK_S = 10.0


class Restless:
    """Decides now and then, by its own luck, and says by one array for all where nothing is to be done, or does not say it."""

    def __init__(self, lanes, *, says):
        self.lanes, self.says, self.rng = lanes, says, np.random.default_rng(5)

    def decide(self, snapshot, outlook):
        none = np.zeros(self.lanes, np.int64)
        start = provision = stop = none
        some = self.rng.integers(0, 4, (3, self.lanes)) * (self.rng.random((3, self.lanes)) < 0.5)
        if self.rng.random() < 0.3:
            start, provision, stop = some
            start, stop = np.minimum(start, snapshot.stopped), np.minimum(stop, snapshot.stoppable)
        elif not self.says:
            start, provision = none.copy(), none.copy()
        unknown = np.full(self.lanes, np.nan)
        rows = np.zeros((len(Stage), self.lanes), np.int64)
        desired = snapshot.in_service + snapshot.starting + start - stop
        return Decision(
            desired, desired, start, provision, stop, snapshot.stopped * 0, unknown, unknown, rows, rows
        )


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"drain_s": 25.0},
        {"start_failure": 0.2},
        {"start_budget": Budget(vms=3, vms_per_s=0.1)},
        {"minimum_billed_s": 90.0},
    ],
    ids=["plain", "drain", "luck", "budget", "young"],
)
@pytest.mark.parametrize("makes", [False, True], ids=["pool", "makes"])
@pytest.mark.parametrize("alike", [True, False], ids=["alike", "apart"])
def test_a_tick_in_which_nothing_is_done_is_the_same_whether_somebody_says_so(knobs, makes, alike):
    lanes, ticks = 5, 400
    trace = levels(300.0, each_s=ticks * TICK_S)
    plants = tuple(
        PlantSettings(
            vms=40, in_service=8, start=Duration(25.0 + 10.0 * lane * (not alike)), stop_s=15.0, **knobs
        )
        for lane in range(lanes)
    )
    more = {"provision": {"maximum": 60, "launch_template": "lt-1"}} if makes else {}
    fleet = policy(guards={"minimum_on_time": "0s"}, **more)
    run = LaneRun(
        (fleet,) * lanes, plants, (trace,) * lanes, Ticks.over(trace.start_s, ticks * TICK_S, TICK_S)
    )
    told = []
    for says in (True, False):
        found = Lanes(run, lambda _, says=says: Restless(lanes, says=says))
        sums, prints = found.sums(), Fingerprints(lanes)
        found.run(ticks, sums, prints)
        told.append(
            (
                prints.digests(),
                [sums.count(which).tolist() for which in Count],
                [sums.amount(which).tolist() for which in Amount],
                [each.tolist() for each in found.plant.state(found.tick)],
            )
        )
    assert told[0] == told[1]
    assert np.array(told[0][1])[Count.STARTS].all()
