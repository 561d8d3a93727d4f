"""Small traces, clouds and runs for tests of the loop engine."""

import numpy as np

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.policy import policy_from
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.run import LaneRun
from autoscaler.simulator.replay.loopback import LoopRun
from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.traces.trace import Trace, TraceKind

BEGIN_S = 1_772_409_600.0  # 2026-03-02T00:00:00Z, a point of every grid used here


def policy(**changes):
    """A fleet whose VMs do 100/s each, sized by demand and forecast, with prices that matter."""
    data = {
        "fleet": "web",
        "signal": {"kind": "throughput", "source": "trace", "max_age": "30s", "trace": {}},
        "vm": {"capacity": "100/s", "start_time": "30s", "stop_time": "30s"},
        "readiness": {"probe": "status_checks"},
        "bounds": {"minimum": 1, "maximum": 20},
        "reactive": {"headroom": "20%"},
        "forecast": {},
        "prices": {"in_service": "3.6/h", "stopped": "0.36/h", "start": 0.01},
    }
    for key, value in changes.items():
        data[key] = (
            {**data[key], **value} if isinstance(data.get(key), dict) and isinstance(value, dict) else value
        )
    return policy_from(data)


def levels(*per_s, each_s=300.0):
    """A gauge that holds each level for `each_s`, with a value every 10 s."""
    values = np.repeat(np.array(per_s, dtype=np.float64), round(each_s / 10))
    stamps = BEGIN_S + 10.0 * np.arange(len(values))
    return Trace.build(stamps, values, kind=TraceKind.GAUGE, name="levels", interval_s=10.0)


def cloud_of(policy, vms=20, **more):
    """A cloud with the fleet's VMs stopped, at the policy's prices."""
    p = policy.prices
    prices = Prices(p.in_service_per_h, p.stopped_per_h, p.start)
    return CloudSetup(seed=3, fleets=(FleetSetup(policy.fleet, vms),), prices=prices, **more)


def run_of(policy, trace, *, duration_s=None, vms=20, **more):
    length_s = trace.end_s - trace.start_s if duration_s is None else duration_s
    return LoopRun(policy, trace, cloud_of(policy, vms), trace.start_s, length_s, **more)


def lane_of(policy, plant, trace, *, start_s, duration_s, tick_s, seed=0):
    """A run with a single lane."""
    return LaneRun((policy,), (plant,), (trace,), Ticks.over(start_s, duration_s, tick_s), seed)


def row(number, **changes):
    """An ordinary row of a timeline: 3 VMs serve 250/s."""
    ordinary = {
        "timestamp_s": BEGIN_S + 10.0 * number, "demand": 250.0, "forecast": 250.0, "forecast_hi": 280.0, "desired": 3,
        "in_service": 3, "starting": 0, "draining": 0, "stopped": 7, "warm_target": 2, "capacity": 300.0, "shortage": 0.0,
        "starts": 0, "stops": 0, "provisions": 0, "cost": 0.03, "reason": "",
    }  # fmt: skip
    return TimelineRow(**{**ordinary, **changes})
