"""Demand and measurements of every lane of a run, tick by tick: `measuring`, laid out over lanes.

Rules of this file: element-wise over lanes, no look-ahead. A value that is the same for all lanes and ticks is one read-only
array, which core then examines only once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float, Freshness, Int, Samples
from autoscaler.simulator.lanes.delays import Vms
from autoscaler.simulator.lanes.draws import Luck
from autoscaler.simulator.lanes.measuring import Metrics, Pipeline, Ticks, seen, wanted
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.lanes.run import LaneRun

Array = TypeVar("Array", bound=NDArray[Any])
Name = TypeVar("Name", bound=Hashable)
Key = tuple[str, Pipeline, str, int]
"""Digest of a trace, its metric pipeline, and the fleet and seed whose draws decide which windows are lost."""

_PAGE_CELLS = 1 << 20
"""Numbers of one kind that are measured at once, over ticks and distinct lanes."""


def fixed(array: Array) -> Array:
    """Make an array read-only and return it; core examines a read-only array only once."""
    array.flags.writeable = False
    return array


class LaneMetrics:
    """What every lane wants and sees, a block of ticks at a time.

    Args:
        run: The lanes.
        shifts: Ticks that each lane is ahead.
        times: Whether samples carry their observation times, in each lane's own time. No decision depends on them (samples
            that are too old are marked stale), so a sweep goes without.

    Attributes:
        wanted: float64 (n, C), work per second of each tick of the block.
        demands: C, the number of lanes, or fewer if neighbouring lanes want the same (see `Block`).
        watches: Whether what is seen depends on the VMs that serve.
        may_be_empty: Whether some lane may have no VM in service that could measure its demand.
        keys: For each lane, a key that names trace and pipeline.
        shifts: int64 (L,), ticks that each lane is ahead.
    """

    def __init__(self, run: LaneRun, shifts: Sequence[int], *, times: bool) -> None:
        self._run = run
        self._times = times or not any(shifts)
        self._traces = {trace.digest: trace for trace in run.traces}
        self.keys = tuple(
            (trace.digest, pipeline_of(policy, plant), policy.fleet, run.seed)
            for policy, plant, trace in zip(run.policies, run.plants, run.traces, strict=True)
        )
        self.shifts = np.array(shifts)
        self._truths, truth_of = _distinct(
            [(trace.digest, shift) for trace, shift in zip(run.traces, shifts, strict=True)]
        )
        self._truth_of = None if _side_by_side(truth_of) else truth_of
        self.demands = len(self._truths) if self._truth_of is None else len(truth_of)
        self._columns, column_of = _distinct([*zip(self.keys, shifts, strict=True)])
        self._spread = _Spread(column_of)
        together = max(len(self._columns), len(self._truths))
        self._page_ticks = max(min(_PAGE_CELLS // together, run.ticks.count), 64)
        self._page: range = range(0)
        lanes = len(run.policies)
        self._ones = fixed(np.ones(lanes))
        self._no = fixed(np.zeros(lanes, np.bool_))
        self._fresh = fixed(np.zeros(lanes, np.int64))
        self._untimed = fixed(np.full(lanes, np.nan))
        self._inside = np.array([policy.signal.kind != "total" for policy in run.policies])
        self._busy = np.array([policy.signal.kind == "utilisation" for policy in run.policies])
        self._capacity = np.array([policy.vm.capacity_per_s for policy in run.policies])
        self._saturation = np.array([policy.signal.saturation for policy in run.policies])
        self._saturates = bool(self._busy.any())
        self._never_empty = np.array([policy.bounds.minimum > 0 for policy in run.policies]) | ~self._inside
        pairs = zip(run.policies, run.plants, strict=True)
        self.may_be_empty = any(_may_be_empty(policy, plant) for policy, plant in pairs)
        self.watches = self._saturates or self.may_be_empty
        self.wanted: Float = np.empty((0, lanes))

    def seen(self, key: Key, ticks: Ticks) -> Metrics:
        """Return what one of the pipelines shows over some ticks to a lane without a shift."""
        digest, pipeline, fleet, seed = key
        begins_s = self._run.ticks.start_s
        return seen(self._traces[digest], ticks, pipeline, Luck(seed, fleet), begins_s)

    def load(self, first: int, count: int) -> None:
        """Load the block of `count` ticks that begins at tick `first` of the run; blocks must be loaded in order."""
        if first not in self._page or first + count > self._page.stop:
            self._turn_page(first)
        rows = slice(first - self._page.start, first - self._page.start + count)
        truth = self._truth[rows]
        self.wanted = truth if self._truth_of is None else truth.take(self._truth_of, axis=1)
        demand, freshness, *observed = (part[rows] for part in self._parts)
        self._demand = self._spread.block(demand)
        self._observed = self._spread.block(observed[0]) if observed else None
        self._freshness = self._spread.block(freshness) if freshness.any() else None

    def wanted_by_lane(self, row: int) -> Float:
        """Return float64 (L,), or (1,) if all lanes want the same: work per second of one tick of the block."""
        wanted: Float = self.wanted[row]
        lanes = len(self.shifts)
        return wanted if self.demands in (1, lanes) else np.repeat(wanted, lanes // self.demands)

    def _turn_page(self, first: int) -> None:
        """Measure the next page of ticks for all lanes; page by page, so that memory does not grow with the run."""
        ticks = self._run.ticks
        count = min(self._page_ticks, ticks.count - first)
        self._page = range(first, first + count)

        def page(shift: int) -> Ticks:
            return Ticks(ticks.first + first + shift, count, ticks.tick_s)

        self._truth = np.stack(
            [wanted(self._traces[digest], page(shift)) for digest, shift in self._truths], axis=1
        )
        found = [self.seen(key, page(shift)) for key, shift in self._columns]
        names = ("demand", "freshness", "observed_at_s")[: 3 if self._times else 2]
        demand, freshness, *observed = (
            np.stack([getattr(each, name) for each in found], axis=1) for name in names
        )
        if self._run.until:
            # Lanes that run beyond the end only accompany others. Filling in known values there keeps the rare handling of
            # unknown demand from running for all lanes.
            at = np.arange(first, first + count)[:, np.newaxis]
            self._truth[at + [shift for _, shift in self._truths] >= self._run.until] = 1.0
            over = at + [shift for _, shift in self._columns] >= self._run.until
            demand[over], freshness[over] = 1.0, int(Freshness.FRESH)
        self._parts = demand, freshness, *observed

    def samples(self, row: int, tick: int, serving: Vms | None) -> Samples:
        """Return what the lanes know at a tick.

        Args:
            row: Row of the tick in the block.
            tick: Number of the tick in the run.
            serving: int32 (L,), VMs in service, which can be read; None if that makes no difference.
        """
        spread = self._spread.row
        demand = spread(self._demand[row])
        observed = self._untimed if self._observed is None else spread(self._observed[row])
        freshness = self._fresh if self._freshness is None else spread(self._freshness[row])
        censored = self._no
        if serving is not None and self.may_be_empty:
            empty = self._inside & (serving <= 0)
            if empty.any():
                freshness = np.where(empty, int(Freshness.ABSENT), freshness)
                demand = np.where(empty, np.nan, demand)
                observed = np.where(empty, np.nan, observed)
            elif self._never_empty.all():
                self.may_be_empty = False
                self.watches = self._saturates
        if serving is not None and self._saturates:
            most = serving * self._capacity
            shown = np.where(self._busy, np.minimum(demand, most), demand)
            with np.errstate(divide="ignore", invalid="ignore"):
                censored = self._busy & (shown / most >= self._saturation)
            demand = shown
        return Samples(
            (self._run.ticks.first + tick) * self._run.ticks.tick_s,
            demand,
            observed,
            freshness,
            self._ones,
            censored,
        )


def _distinct(names: Sequence[Name]) -> tuple[list[Name], Int]:
    """Return the distinct names, and for each name its index among them."""
    place = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return list(place), np.array([place[name] for name in names])


def _side_by_side(column_of: Int) -> bool:
    """Whether every column has equally many lanes, and these follow one another."""
    lanes, columns = len(column_of), int(column_of.max()) + 1
    each = lanes // columns
    return lanes == columns * each and bool((column_of == np.repeat(np.arange(columns), each)).all())


class _Spread:
    """Lays columns out over lanes.

    Args:
        column_of: int64 (L,), the column of each lane.
    """

    def __init__(self, column_of: Int) -> None:
        self._column_of = column_of
        self._lanes, self._columns = len(column_of), int(column_of.max()) + 1
        self._by_row = self._columns > 1 and self._columns < self._lanes and _side_by_side(column_of)

    def block(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return rows (n, C) as (n, L), or unchanged if it is cheaper to lay out each row when it is needed."""
        if self._by_row:
            return rows
        if self._columns == 1:
            return np.broadcast_to(rows, (len(rows), self._lanes))
        return rows if _side_by_side(self._column_of) else rows.take(self._column_of, axis=1)

    def row(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return a row of the block, laid out as (L,)."""
        if not self._by_row:
            return row
        # Filling is several times as fast as indexing, and a row that is read at once is still in the processor's cache.
        laid_out = np.empty(self._lanes, row.dtype)
        laid_out.reshape(self._columns, -1)[...] = row[:, np.newaxis]
        return fixed(laid_out)


def depends_on_vms(policy: Policy, plant: PlantSettings) -> bool:
    """Whether what is measured depends on the VMs that serve."""
    return policy.signal.kind == "utilisation" or _may_be_empty(policy, plant)


def _may_be_empty(policy: Policy, plant: PlantSettings) -> bool:
    """Whether a fleet whose VMs are read may have no VM in service."""
    return policy.signal.kind != "total" and not (policy.bounds.minimum and plant.in_service)


def pipeline_of(policy: Policy, plant: PlantSettings) -> Pipeline:
    """Return how a lane's demand becomes its metric."""
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
