"""The loop engine: how many ticks of the whole daemon a second of this machine holds, on virtual time.

Everything of a tick is in it (observe, decide, journal in memory, act, account) but HTTP and the disk: one
fleet of 50 VMs that is kept busy by a generated crowd, and one whose demand never changes.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.policy import policy_from
from autoscaler.simulator.loopback import LoopRun, run_loop
from autoscaler.simulator.synth import DEFAULT_START_S, synth_day
from autoscaler.traces.trace import Trace, TraceKind
from benchmarks.calibration import Result, kernel_s, timed

VMS = 50
TICK_S = 10.0
SPAN_S = 2 * 3600.0
BEGIN_S = DEFAULT_START_S + 9.5 * 3600.0
ROUNDS = 3
POLICY = {
    "fleet": "web",
    "signal": {"kind": "throughput", "source": "trace", "max_age": "150s", "trace": {}},
    "vm": {"capacity": "120/s", "start_time": "30s", "stop_time": "30s"},
    "readiness": {"probe": "status_checks"},
    "bounds": {"minimum": 2, "maximum": VMS},
    "reactive": {"headroom": "20%"},
    "forecast": {},
}


def _steady() -> Trace:
    """As many VMs as the busy fleet has on average, never changing."""
    stamps = BEGIN_S + 60.0 * np.arange(round(SPAN_S / 60.0) + 1)
    level = np.full(len(stamps), 25.0 * 120.0)
    return Trace.build(stamps, level, kind=TraceKind.GAUGE, name="steady", interval_s=60.0)


def run() -> list[Result]:
    """Best of three runs over two hours each."""
    unit_s = kernel_s()
    results = [Result("calibration: in-place add, 1,000 float64", unit_s * 1e6, "us")]
    cloud = CloudSetup(seed=1, fleets=(FleetSetup("web", VMS),), prices=Prices())
    for name, trace in (("busy", synth_day(1)), ("idle", _steady())):
        one = LoopRun(policy_from(POLICY), trace, cloud, BEGIN_S, SPAN_S, TICK_S)
        per_tick_s = min(timed(partial(run_loop, one)) for _ in range(ROUNDS)) / (SPAN_S / TICK_S)
        note = f"{per_tick_s / unit_s:,.0f} adds of 1,000; a day in {86_400 / TICK_S * per_tick_s:.0f} s"
        results.append(Result(f"one {name} fleet of {VMS} VMs", 1.0 / per_tick_s, "tick/s", note))
    return results
