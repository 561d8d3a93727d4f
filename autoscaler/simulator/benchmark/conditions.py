"""The conditions of the benchmark: what every contestant runs on, one trace on one plant, favouring none of them.

The terms:

- Demand is scaled so that its 99.9 % quantile needs a given number of VMs.
- A tick is one interval of the trace. The demand of an interval is known when the interval is over, whatever the trace's
  kind.
- A start takes 60 s and is billed for all of them, so it costs a VM-minute, plus the rest of the tick, because VMs enter
  service at ticks.
- Any number of VMs may wait stopped, at no cost. No VM has to run.
- The first third of the trace is for learning and is not scored.
- Every knob is swept over settings that were chosen by hand, and over one more between each two neighbours (`finer`).

Rules of this file: values only. It contains no policy rule and computes no result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.policy import Policy, policy_from
from autoscaler.core.types import Float
from autoscaler.errors import TraceError
from autoscaler.simulator.judging.clairvoyant import Terms
from autoscaler.simulator.lanes.measuring import Ticks, wanted
from autoscaler.simulator.lanes.plant_settings import Duration, PlantSettings
from autoscaler.traces.trace import Trace, TraceKind

START_S, PROVISION_S, STOP_S = 60.0, 300.0, 25.0
"""Seconds until a VM serves after a start (`START_S`) or a provision (`PROVISION_S`), and until it is stopped (`STOP_S`)."""

WORK_PER_S = 1000.0
"""The 99.9 % quantile of demand after scaling, in the benchmark's unit of work per second."""

PEAK_LEVEL = 0.999
LEARN_SHARE = 1 / 3
WEEK_S, DAY_S = 7 * 86_400.0, 86_400.0
LONGEST_TICK_S = 3600.0

_ROOM = 3
"""A fleet has this many times the VMs that its highest demand needs, so that the upper bound does not reveal the peak."""

FLEET = "benchmark"


def finer(values: Sequence[float]) -> tuple[float, ...]:
    """Return the settings of a knob with one more between each two neighbours: their geometric mean, to four digits.

    If settings are far apart, a rule that is read between two of them is judged by where they happen to lie. The knobs of
    all rules are therefore refined in the same way.

    Args:
        values: Settings above 0, in ascending order.
    """
    between = [float(f"{math.sqrt(low * high):.4g}") for low, high in itertools.pairwise(values)]
    return tuple(sorted({*values, *between}))


@dataclass(frozen=True, slots=True)
class BenchmarkCourse:
    """One trace, prepared for the benchmark.

    Attributes:
        trace: Scaled demand as work per interval. The value of an interval is known when the interval is over.
        ticks: The ticks of the run.
        learn_ticks: Number of ticks at the beginning that are not scored.
        week_ticks: Number of ticks until a week has passed and learning is over, at most all ticks of the run.
    """

    trace: Trace
    ticks: Ticks
    learn_ticks: int
    week_ticks: int

    @property
    def scored_ticks(self) -> int:
        """Number of ticks that are scored."""
        return self.ticks.count - self.learn_ticks

    @property
    def scored_days(self) -> float:
        """Length of the scored time in days."""
        return self.scored_ticks * self.ticks.tick_s / DAY_S

    @property
    def long(self) -> bool:
        """Whether at least seven days are scored. Shorter traces are reported separately."""
        return self.scored_ticks * self.ticks.tick_s >= WEEK_S

    def demand(self) -> Float:
        """Return the demand of the scored ticks: float64 (scored ticks,), work per second, NaN where unknown."""
        return wanted(self.trace, self.ticks)[self.learn_ticks :]


def course_of(trace: Trace) -> BenchmarkCourse:
    """Scale a trace and align it to a grid of ticks.

    Raises:
        TraceError: The intervals are not between 1 s and 1 h long, there are too few intervals to learn from a third of
            them, or the 99.9 % quantile of demand is zero.
    """
    tick_s = trace.interval_s
    if not 1.0 <= tick_s <= LONGEST_TICK_S:
        raise TraceError(f"trace {trace.name}: its intervals of {tick_s:g} s are not between 1 s and 1 h")
    peak = float(np.quantile(trace.rates, PEAK_LEVEL))
    if not peak > 0:
        raise TraceError(f"trace {trace.name} is zero in all but one in a thousand intervals")
    # Time stamps between two grid points all move back by the same amount, to the grid.
    stamps = trace.timestamps - trace.start_s % tick_s
    values = trace.rates * (WORK_PER_S / peak * tick_s)
    known = Trace.build(stamps, values, kind=TraceKind.COUNT, name=trace.name, interval_s=tick_s)
    ticks = Ticks.over(known.start_s, known.end_s - known.start_s, tick_s)
    learn = int(ticks.count * LEARN_SHARE)
    if learn < 3:
        raise TraceError(
            f"trace {trace.name} has only {ticks.count} intervals, too few to learn from a third of them"
        )
    week = min(max(learn, math.ceil(WEEK_S / tick_s)), ticks.count)
    return BenchmarkCourse(known, ticks, learn, week)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet of one size on a course.

    Attributes:
        size: Number of VMs that the 99.9 % quantile of demand needs.
        tick_s: Length of a tick in seconds.
        vms: Number of VMs that exist, which is more than any rule can use.
    """

    size: int
    tick_s: float
    vms: int

    @classmethod
    def on(cls, course: BenchmarkCourse, size: int) -> Fleet:
        """Build the fleet of a size for a course."""
        highest = course.trace.peak_per_s / (WORK_PER_S / size)
        return cls(size, course.ticks.tick_s, min(_ROOM * max(math.ceil(highest), size), 100_000))

    @property
    def vm_capacity(self) -> float:
        """Capacity of one VM, in work per second."""
        return WORK_PER_S / self.size

    @property
    def plant(self) -> PlantSettings:
        """The fleet's plant settings for the lane engine."""
        return PlantSettings(
            vms=self.vms,
            in_service=0,
            start=Duration(START_S),
            provision=Duration(PROVISION_S),
            boot_s=START_S,
            stop_s=STOP_S,
            metric_lag_s=0.0,
        )

    @property
    def lead_ticks(self) -> int:
        """Number of ticks from a start order until the VM serves, at least 1."""
        return max(math.ceil(START_S / self.tick_s - 1e-9), 1)

    def data(self) -> dict[str, object]:
        """Return the policy sections that every policy gets on this fleet (signal, VM, bounds, prices), as in policy YAML."""
        return {
            "fleet": FLEET,
            "signal": {
                "kind": "total",
                "source": "trace",
                "max_age": f"{max(2 * self.tick_s, 60.0):g}s",
                "trace": {},
            },
            "vm": {
                "capacity": f"{self.vm_capacity!r}/s",
                "start_time": f"{START_S:g}s",
                "stop_time": f"{STOP_S:g}s",
            },
            "bounds": {"minimum": 0, "maximum": self.vms},
            "prices": {"in_service": "1/h", "stopped": "0/h", "start": 0, "provision": 0},
        }

    def plain_policy(self) -> Policy:
        """Return the policy that bounds and bills the peers: no scaling rule, and no guard in a peer's way."""
        return policy_from({**self.data(), "guards": {"minimum_on_time": "0s"}})

    def terms(self, demand: Float) -> Terms:
        """Return the clairvoyant's terms: the VMs that serve when scoring begins are its choice, and free."""
        needed = math.ceil(float(np.fmax.reduce(demand, initial=0.0)) / self.vm_capacity)
        return Terms(
            tick_s=self.tick_s,
            vm_capacity=self.vm_capacity,
            in_service_per_h=1.0,
            start_billed_s=self.lead_ticks * self.tick_s,
            minimum_billing_s=60.0,
            lead_ticks=self.lead_ticks,
            initial=needed,
            ceiling=self.vms,
        )
