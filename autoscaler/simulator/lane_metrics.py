"""What every lane of a run wants and can know, tick by tick: `measuring`, laid out over lanes.

Rules of this file: element-wise over lanes, no look-ahead. What is the same for all lanes and ticks is one read-only
array, which core then looks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float, Freshness, Samples
from autoscaler.simulator.delays import Vms
from autoscaler.simulator.draws import Luck
from autoscaler.simulator.knobs import PlantSettings
from autoscaler.simulator.lane_run import LaneRun
from autoscaler.simulator.measuring import Pipeline, Seen, Ticks, seen, wanted

Array = TypeVar("Array", bound=NDArray[Any])


def fixed(array: Array) -> Array:
    """Read-only: what core asks of such an array it asks once."""
    array.flags.writeable = False
    return array


class LaneMetrics:
    """What every lane wants and sees, a block of ticks at a time.

    Args:
        run: The lanes.
        shifts: Ticks that each is ahead.

    Attributes:
        wanted: float64 (n, L), or (n, 1) where `shared`: work per second of each tick of the block.
        shared: All lanes want the same.
        watches: What is seen depends on the VMs that serve.
        keys: One per lane, naming trace and pipeline.
        shifts: int64 (L,), ticks that each lane is ahead.
    """

    def __init__(self, run: LaneRun, shifts: Sequence[int]) -> None:
        self._ticks = run.ticks
        reach = Ticks(run.ticks.first, run.reach, run.ticks.tick_s)
        traces = {trace.digest: trace for trace in run.traces}
        truth = {digest: wanted(trace, reach) for digest, trace in traces.items()}
        self.keys = tuple(
            (trace.digest, pipeline_of(policy, plant), policy.fleet)
            for policy, plant, trace in zip(run.policies, run.plants, run.traces, strict=True)
        )
        known = {
            key: seen(traces[key[0]], reach, key[1], Luck(run.seed, key[2]))
            for key in dict.fromkeys(self.keys)
        }
        self.seen_by_lane: list[Seen] = [known[key] for key in self.keys]
        moved = any(shifts)
        self.shared = len(traces) == 1 and not moved
        self._alike = len(known) == 1 and not moved
        self.shifts = np.array(shifts)
        self._truth = np.stack(list(truth.values()), axis=1)
        self._truth_of = np.array([list(truth).index(trace.digest) for trace in run.traces])
        columns = list(known)
        self._column_of = np.array([columns.index(key) for key in self.keys])
        self._demand = np.stack([known[key].demand for key in columns], axis=1)
        self._observed = np.stack([known[key].observed_at_s for key in columns], axis=1)
        self._freshness = np.stack([known[key].freshness for key in columns], axis=1)
        lanes = len(run.policies)
        self._ones = fixed(np.ones(lanes))
        self._no = fixed(np.zeros(lanes, np.bool_))
        self._fresh = fixed(np.zeros(lanes, np.int64))
        self._inside = np.array([policy.signal.kind != "total" for policy in run.policies])
        self._busy = np.array([policy.signal.kind == "utilisation" for policy in run.policies])
        self._capacity = np.array([policy.vm.capacity_per_s for policy in run.policies])
        self._saturation = np.array([policy.signal.saturation for policy in run.policies])
        self.saturates = bool(self._busy.any())
        """Whether saturated VMs hide demand."""
        self._never_empty = np.array([policy.bounds.minimum > 0 for policy in run.policies]) | ~self._inside
        pairs = zip(run.policies, run.plants, strict=True)
        self.may_be_empty = any(_may_be_empty(policy, plant) for policy, plant in pairs)
        """Whether some lane may have no VM in service that could tell its demand."""
        self.watches = self.saturates or self.may_be_empty
        self.wanted: Float = self._truth[:0]

    def load(self, first: int, count: int) -> None:
        """Come to the block that begins at this tick of the run."""
        lanes = len(self.shifts)
        rows = slice(first, first + count)
        at = np.arange(first, first + count)[:, np.newaxis] + self.shifts
        self.wanted = self._truth[rows] if self.shared else self._truth[at, self._truth_of]
        parts = (self._demand, self._observed, self._freshness)
        if self._alike:
            self._rows = tuple(np.broadcast_to(part[rows], (count, lanes)) for part in parts)
        else:
            self._rows = tuple(part[at, self._column_of] for part in parts)
        self._all_fresh = not self._freshness[rows].any() if self._alike else not self._rows[2].any()

    def samples(self, row: int, tick: int, serving: Vms | None) -> Samples:
        """What the lanes know at a tick.

        Args:
            row: Of the block.
            tick: Of the run.
            serving: int32 (L,), the VMs that could be read; None where that does not matter.
        """
        demand, observed, freshness = self._rows[0][row], self._rows[1][row], self._fresh
        if not self._all_fresh:
            freshness = self._rows[2][row]
        censored = self._no
        if serving is not None and self.may_be_empty:
            empty = self._inside & (serving <= 0)
            if empty.any():
                freshness = np.where(empty, int(Freshness.ABSENT), freshness)
                demand = np.where(empty, np.nan, demand)
                observed = np.where(empty, np.nan, observed)
            elif self._never_empty.all():
                self.may_be_empty = False
                self.watches = self.saturates
        if serving is not None and self.saturates:
            most = serving * self._capacity
            shown = np.where(self._busy, np.minimum(demand, most), demand)
            with np.errstate(divide="ignore", invalid="ignore"):
                censored = self._busy & (shown / most >= self._saturation)
            demand = shown
        return Samples(
            (self._ticks.first + tick) * self._ticks.tick_s, demand, observed, freshness, self._ones, censored
        )


def depends_on_vms(policy: Policy, plant: PlantSettings) -> bool:
    """Whether what is measured depends on the VMs that serve."""
    return policy.signal.kind == "utilisation" or _may_be_empty(policy, plant)


def _may_be_empty(policy: Policy, plant: PlantSettings) -> bool:
    """Whether a fleet whose VMs are read may be without one."""
    return policy.signal.kind != "total" and not (policy.bounds.minimum and plant.in_service)


def pipeline_of(policy: Policy, plant: PlantSettings) -> Pipeline:
    """How a lane's demand becomes its metric."""
    given = policy.signal.trace
    lag_s = plant.metric_lag_s
    if lag_s is None:
        lag_s = given.lag_s if given else 0.0
    return Pipeline(
        lag_s=lag_s,
        max_age_s=policy.signal.max_age_s,
        interval_s=plant.metric_interval_s,
        loss=plant.metric_loss,
        gaps=plant.metric_gaps,
        inside=policy.signal.kind != "total",
    )
