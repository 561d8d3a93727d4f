"""The conditions of the benchmark: what every contestant runs on, one trace on one plant, favouring none of them.

The terms: demand is scaled so that its 99.9 % quantile needs a given number of VMs; a tick is one interval of the
trace; an interval is known when it is over, whatever the trace's kind; a start takes 60 s and is billed for all of
them, so it costs a VM-minute (and what is left of the tick, since VMs come at ticks); VMs wait stopped in any
number and cost nothing there; no VM need run. The first third of the trace is there to learn from and is not scored.
Every knob is swept over settings that are chosen by hand, and over one more between each two of them (`finer`).

Rules of this file: values only; no rule of a policy and no figure.
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
"""From an order to service, from stopped and from nothing; from an order to stop until it is stopped."""

WORK_PER_S = 1000.0
"""The 99.9 % quantile of demand in the benchmark's unit of work."""

PEAK_LEVEL = 0.999
LEARN_SHARE = 1 / 3
WEEK_S, DAY_S = 7 * 86_400.0, 86_400.0
LONGEST_TICK_S = 3600.0

_ROOM = 3
"""So many times the VMs that the highest demand needs exist: nobody's bound tells where the peak is."""

FLEET = "benchmark"


def finer(values: Sequence[float]) -> tuple[float, ...]:
    """Settings of a knob with one more between each two, their geometric mean to four digits.

    Who is read between two settings that are far apart is judged by where these happen to lie, not by its rule. So all
    knobs are made finer alike, whoever they belong to.

    Args:
        values: Settings above 0, ascending.
    """
    between = [float(f"{math.sqrt(low * high):.4g}") for low, high in itertools.pairwise(values)]
    return tuple(sorted({*values, *between}))


@dataclass(frozen=True, slots=True)
class Course:
    """One trace as it is run.

    Attributes:
        trace: Demand in work per second, scaled, known when an interval is over.
        ticks: The run.
        learn_ticks: Ticks at the beginning that are not scored.
        week_ticks: Ticks after which a week has passed, at least `learn_ticks`; those of the run where it is shorter.
    """

    trace: Trace
    ticks: Ticks
    learn_ticks: int
    week_ticks: int

    @property
    def scored_ticks(self) -> int:
        """Ticks that count."""
        return self.ticks.count - self.learn_ticks

    @property
    def scored_days(self) -> float:
        """The same in days."""
        return self.scored_ticks * self.ticks.tick_s / DAY_S

    @property
    def long(self) -> bool:
        """Whether at least seven days are scored: shorter ones are reported apart."""
        return self.scored_ticks * self.ticks.tick_s >= WEEK_S

    def demand(self) -> Float:
        """float64 (scored ticks,), work per second; NaN where unknown."""
        return wanted(self.trace, self.ticks)[self.learn_ticks :]


def course_of(trace: Trace) -> Course:
    """Prepare a trace.

    Raises:
        TraceError: Its intervals are not between 1 s and 1 h, it is too short to be cut in thirds, or it wants too little.
    """
    tick_s = trace.interval_s
    if not 1.0 <= tick_s <= LONGEST_TICK_S:
        raise TraceError(f"trace {trace.name}: its intervals of {tick_s:g} s are not between 1 s and 1 h")
    peak = float(np.quantile(trace.rates, PEAK_LEVEL))
    if not peak > 0:
        raise TraceError(f"trace {trace.name} is zero in all but one in a thousand intervals")
    # Stamps between two points of the clock's grid move to the earlier one; all move alike.
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
    return Course(known, ticks, learn, week)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet of one size on a course.

    Attributes:
        size: VMs that the 99.9 % quantile of demand needs.
        tick_s: Length of a tick.
        vms: VMs that exist: more than anybody has use for.
    """

    size: int
    tick_s: float
    vms: int

    @classmethod
    def on(cls, course: Course, size: int) -> Fleet:
        """The fleet of a size."""
        highest = course.trace.peak_per_s / (WORK_PER_S / size)
        return cls(size, course.ticks.tick_s, min(_ROOM * max(math.ceil(highest), size), 100_000))

    @property
    def vm_capacity(self) -> float:
        """Work per second of one VM."""
        return WORK_PER_S / self.size

    @property
    def plant(self) -> PlantSettings:
        """As the lane engine has it."""
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
        """Ticks from an order until it serves."""
        return max(math.ceil(START_S / self.tick_s - 1e-9), 1)

    def data(self) -> dict[str, object]:
        """What every policy says on this fleet: signal, VMs, bounds and prices, as in YAML."""
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
        """What peers are bounded and billed by: no rule of its own, and no guard in a peer's way."""
        return policy_from({**self.data(), "guards": {"minimum_on_time": "0s"}})

    def terms(self, demand: Float) -> Terms:
        """What the clairvoyant is held to. The VMs that serve when scoring begins are its to choose, and free."""
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
