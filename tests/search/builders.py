"""Small courses and policies for tests of sweeps and recommendations."""

from __future__ import annotations

from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.search.executors import SameProcess
from autoscaler.simulator.search.sweep import SweepCourse
from autoscaler.simulator.search.variants import Base
from autoscaler.simulator.traffic.synth import synth_day
from tests.simulator.builders import policy

TRACE = synth_day(2, days=1.0, interval_s=60.0)
BASE = Base(
    policy(vm={"capacity": "120/s"}, bounds={"minimum": 2, "maximum": 60}, forecast="off"),
    PlantSettings(vms=60, in_service=4, start=Duration(40.0, 70.0)),
    60.0,
)
COURSE = SweepCourse(TRACE, Ticks.over(TRACE.start_s, 43_200.0, 60.0), seed=3, warm_up_ticks=10)


def figures(result):
    """All results of a sweep, as values that can be compared."""
    sums = result.sums
    return (
        [sums.amount(w).tolist() for w in Amount] + [sums.count(w).tolist() for w in Count] + [result.digests]
    )


class Interrupted:
    """Computes in this process, and raises KeyboardInterrupt after some parts."""

    def __init__(self, after=2):
        self.after = after

    def run(self, work, shared, parts):
        yield from list(SameProcess().run(work, shared, parts[: self.after]))
        raise KeyboardInterrupt
