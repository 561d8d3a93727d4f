"""Small courses and policies for tests of sweeps and recommendations."""

from __future__ import annotations

import os
import signal
from functools import partial

from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.simulator.search.executors import Processes, SameProcess
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


class Dying:
    """Computes in processes. Those with certain variants are killed, as the kernel does when memory is short.

    Args:
        work: The function that computes a part. It must belong to a module, so that processes can import it.
        dies: Whether a variant, given by its values, kills its process.
    """

    def __init__(self, work, dies):
        self.work, self.dies = work, dies

    def run(self, work, shared, parts):
        return Processes(2).run(partial(_or_dies, self.work, self.dies), shared, parts)


def _or_dies(work, dies, shared, part):
    if any(dies(each.values) for each in part):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(shared, part)
