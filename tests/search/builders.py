"""Small courses and policies for tests of sweeps and recommendations."""

from __future__ import annotations

import numpy as np

from autoscaler.simulator.judging.ledger import Amount, Count
from autoscaler.simulator.lanes.knobs import Duration, PlantSettings
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.search.sweep import Course
from autoscaler.simulator.search.variants import Base
from autoscaler.simulator.traffic.synth import synth_day
from autoscaler.traces.trace import Trace, TraceKind
from tests.simulator.builders import BEGIN_S, policy

TRACE = synth_day(2, days=1.0, interval_s=60.0)
BASE = Base(
    policy(vm={"capacity": "120/s"}, bounds={"minimum": 2, "maximum": 60}, forecast="off"),
    PlantSettings(vms=60, in_service=4, start=Duration(40.0, 70.0)),
    60.0,
)
COURSE = Course(TRACE, Ticks.over(TRACE.start_s, 43_200.0, 60.0), seed=3, warm_up_ticks=10)


def figures(result):
    """All that a sweep found, as values that can be compared."""
    sums = result.sums
    return (
        [sums.amount(w).tolist() for w in Amount] + [sums.count(w).tolist() for w in Count] + [result.digests]
    )


def gauge(values, interval_s=60.0):
    """A trace of these values, one a minute."""
    stamps = BEGIN_S + interval_s * np.arange(len(values))
    return Trace.build(stamps, values, kind=TraceKind.GAUGE, name="made", interval_s=interval_s)
