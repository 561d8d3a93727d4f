"""The lane engine: thousands of simulated fleets at once, decided on by the very function that the daemon calls.

A lane is one fleet under one policy on one plant: a variant, a segment of a long trace, or both. All lanes of a run
tick together; per tick the plant advances, what is known becomes a Snapshot, the decider decides, the plant
acts (the order is told and fixed in `plant`). Sums stream into the ledger a block of ticks at a time, so memory
does not grow with the trace.

Rules of this file: a lane's numbers do not depend on the other lanes, their order or their number, nor on how a
run is cut into calls of `Lanes.run`. Nothing here knows a policy's rules: any object that turns a Snapshot
and an Outlook into a Decision may decide. What lanes cannot express is refused (`refusals`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.config.policy import Policy
from autoscaler.core.decide import decide
from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import (
    NO_CEILING,
    Decision,
    Float,
    Freshness,
    Outlook,
    Samples,
    Snapshot,
)
from autoscaler.simulator.accounts import Accounts
from autoscaler.simulator.delays import Vms
from autoscaler.simulator.draws import Luck
from autoscaler.simulator.fingerprints import Fingerprints
from autoscaler.simulator.knobs import PlantSettings
from autoscaler.simulator.ledger import Block, Sums
from autoscaler.simulator.measuring import Pipeline, Seen, Ticks, seen, wanted
from autoscaler.simulator.memory import lane_memory
from autoscaler.simulator.outlooks import Blind, Feed, Lockstep, OutlookCache, Table
from autoscaler.simulator.plant import Plant
from autoscaler.simulator.refusals import refuse
from autoscaler.simulator.schedules import Schedules
from autoscaler.simulator.witness import Witness
from autoscaler.traces.trace import Trace

Array = TypeVar("Array", bound=NDArray[Any])

BLOCK_TICKS = 64


class Decider(Protocol):
    """Decides for all lanes of a run, tick by tick; the Decision is valid until the next call."""

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """One decision per lane."""
        ...


class PolicyDecider:
    """The policies themselves: `core.decide`, the function that the daemon calls.

    Args:
        params: Compiled policies.
        schedules: Lays their windows out as time goes on.
    """

    def __init__(self, params: LaneParams, schedules: Schedules) -> None:
        self.params = params
        self.state = LaneState.empty(params)
        self._schedules = schedules

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """As in `Decider`."""
        if self._schedules.due(snapshot.now_s):
            self.params = self._schedules.laid_out(self.params, snapshot.now_s)
        return decide(self.params, self.state, snapshot, outlook)


@dataclass(frozen=True, slots=True)
class LaneRun:
    """What to run.

    Attributes:
        policies: One per lane.
        plants: One per lane.
        traces: One per lane.
        ticks: From when to when; with shifts, counted from where each lane begins.
        seed: Of everything random; equal for all lanes, so that they face the same luck.
        shifts: Ticks that each lane begins after `ticks.first`; empty for none. `ticks` is the longest
            stretch that any lane may run.
        forecasts: Whether forecasts are wanted even where no lane decides on them (for a timeline).
        until: Ticks from `ticks.first` after which forecasts do not matter; 0 for as far as any lane goes.
    """

    policies: tuple[Policy, ...]
    plants: tuple[PlantSettings, ...]
    traces: tuple[Trace, ...]
    ticks: Ticks
    seed: int = 0
    shifts: tuple[int, ...] = ()
    forecasts: bool = False
    until: int = 0

    @property
    def reach(self) -> int:
        """Ticks from `ticks.first` that some lane may see."""
        return self.ticks.count + max(self.shifts, default=0)

    def __post_init__(self) -> None:
        lanes = len(self.policies)
        if not lanes:
            raise ValueError("a run needs at least one lane")
        lengths = {len(self.plants), len(self.traces), len(self.shifts) or lanes}
        if lengths != {lanes}:
            raise ValueError("policies, plants, traces and shifts must have one entry per lane")

    @classmethod
    def of(
        cls,
        policy: Policy,
        plant: PlantSettings,
        trace: Trace,
        *,
        start_s: float,
        duration_s: float,
        tick_s: float,
        seed: int = 0,
    ) -> LaneRun:
        """One lane."""
        return cls((policy,), (plant,), (trace,), Ticks.over(start_s, duration_s, tick_s), seed)


class Lanes:
    """A run in progress.

    Args:
        run: What to run.
        decider: Who decides, made from the compiled policies; None for the policies themselves.
        cache: Outlooks of earlier runs, to be used and added to.
        witness: Keeps every tick of some lanes; None keeps none.

    Raises:
        ConfigError: Lanes cannot express it.
    """

    def __init__(
        self,
        run: LaneRun,
        decider: Callable[[CompiledPolicies], Decider] | None = None,
        cache: OutlookCache | None = None,
        witness: Witness | None = None,
    ) -> None:
        refuse(run.policies, run.plants, run.ticks.tick_s)
        self.run_of = run
        self.tick = 0
        self._tick_s = run.ticks.tick_s
        shifts = run.shifts or (0,) * len(run.policies)
        compiled = compile_params(run.policies, self._tick_s, run.ticks.start_s)
        self.plant = Plant(run.plants, run.policies, run.ticks, run.seed, shifts)
        self.accounts = Accounts(self.plant, run.plants, run.policies, BLOCK_TICKS, self._tick_s)
        self._metrics = _Metrics(run, shifts)
        self._cache = OutlookCache() if cache is None else cache
        self._feed = _feed(run, compiled, self._metrics, self._cache, forecasts=run.forecasts)
        schedules = Schedules(run.policies, [shift * self._tick_s for shift in shifts])
        params = replace(schedules_free(compiled.lanes), series=self._feed.series)
        compiled = replace(compiled, lanes=params)
        self.decider = PolicyDecider(params, schedules) if decider is None else decider(compiled)
        self._witness = witness
        lanes = len(run.policies)
        self._block = Block.empty(BLOCK_TICKS, lanes, self._tick_s, shared_demand=self._metrics.shared)
        self._makes = self.plant.made is not None
        self._yes = _fixed(np.ones(lanes, np.bool_))
        self._none: Vms = _fixed(np.zeros(lanes, np.int32))
        self._endless: Vms = _fixed(np.full(lanes, NO_CEILING, np.int32))

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return len(self.run_of.policies)

    def sums(self) -> Sums:
        """Empty sums for these lanes."""
        return Sums(self._tick_s, self.accounts.capacity)

    def run(self, ticks: int, sums: Sums | None = None, fingerprints: Fingerprints | None = None) -> None:
        """Go on for so many ticks.

        Args:
            ticks: At most what is left of the run.
            sums: Take in every tick.
            fingerprints: Likewise.

        Raises:
            ValueError: The run is not as long.
        """
        end = self.tick + ticks
        if end > self.run_of.ticks.count:
            raise ValueError(f"the run has {self.run_of.ticks.count - self.tick} ticks left, not {ticks}")
        while self.tick < end:
            first = self.tick
            count = min(BLOCK_TICKS, end - first)
            self._metrics.load(first, count)
            for row in range(count):
                self._tick(row)
            self._close(first, count, sums, fingerprints)

    def continued(self, lanes: Sequence[int], ticks: int, witness: Witness | None = None) -> Lanes:
        """Some of these lanes, going on from here for so many ticks; these are not changed.

        Only for lanes on which the policies themselves decide, by forecasts that do not depend on the plant.
        """
        assert isinstance(self.decider, PolicyDecider)
        run, which = self.run_of, np.array(lanes)
        ticks_left = Ticks(run.ticks.first, self.tick + ticks, self._tick_s)
        new = Lanes(
            LaneRun(
                tuple(run.policies[lane] for lane in lanes),
                tuple(run.plants[lane] for lane in lanes),
                tuple(run.traces[lane] for lane in lanes),
                ticks_left,
                run.seed,
                tuple(run.shifts[lane] for lane in lanes) if run.shifts else (),
                forecasts=run.forecasts,
                until=run.until,
            ),
            cache=self._cache,
            witness=witness,
        )
        assert isinstance(new.decider, PolicyDecider)
        new.tick = self.tick
        new.plant.go_on_from(self.plant, which, self.tick)
        new.accounts.backlog = self.accounts.backlog[which]
        new.decider.state = self.decider.state.carried_over(new.decider.params, which)
        return new

    def state(self) -> list[NDArray[Any]]:
        """All that the future of each lane depends on: arrays (n, L), equal where the futures are."""
        assert isinstance(self.decider, PolicyDecider)
        now_s = (self.run_of.ticks.first + self.tick) * self._tick_s
        return [
            *self.plant.state(self.tick),
            *lane_memory(self.decider.params, self.decider.state, now_s),
            self.accounts.backlog[np.newaxis],
        ]

    def _tick(self, row: int) -> None:
        tick, plant, block = self.tick, self.plant, self._block
        serving = plant.in_service.copy() if self._metrics.watches else None
        plant.advance(tick)
        samples = self._metrics.samples(row, tick, serving)
        outlook = self._feed.at(tick, samples)
        decision = self.decider.decide(self._snapshot(samples, tick), outlook)
        block.desired[row] = decision.desired
        block.warm_target[row] = decision.warm_target
        block.in_service[row] = plant.in_service
        block.starting[row] = plant.starting
        block.stopped[row] = plant.stopped
        if plant.any_drains:
            block.draining[row] = plant.draining
        if plant.failed is not None:
            block.failed_starts[row] = plant.failed
        if self._witness is not None:
            self._witness.see(samples, decision, plant)
        plant.act(tick, decision.start, decision.provision, decision.stop)
        block.starts[row] = plant.starts
        block.stops[row] = plant.stops
        if self._makes:
            block.provisions[row] = plant.provisions
        self.accounts.note(row)
        self.tick = tick + 1

    def _snapshot(self, samples: Samples, tick: int) -> Snapshot:
        plant = self.plant
        return Snapshot(
            now_s=samples.now_s,
            tick=self.run_of.ticks.first + tick,
            demand=samples.demand,
            observed_at_s=samples.observed_at_s,
            freshness=samples.freshness,
            coverage=samples.coverage,
            censored=samples.censored,
            in_service=plant.in_service,
            starting=plant.starting,
            draining=plant.draining,
            stopping=plant.stopping,
            stopped=plant.startable,
            provisioned=plant.provisioned,
            stoppable=plant.stoppable,
            listed=self._yes,
            may_start=self._yes,
            may_provision=self._yes,
            may_stop=self._yes,
            floor=self._none,
            ceiling=self._endless,
        )

    def _close(self, first: int, count: int, sums: Sums | None, fingerprints: Fingerprints | None) -> None:
        block = self._block
        block.first_tick = self.run_of.ticks.first + first
        if sums is not None or self._witness is not None or self.accounts.queues:
            block.demand[:count] = self._metrics.wanted
            self.accounts.close(block, count)
        if sums is not None:
            sums.add(block, slice(0, count))
        if fingerprints is not None:
            provisions = block.provisions[:count] if self._makes else None
            fingerprints.add(block.desired[:count], block.starts[:count], block.stops[:count], provisions)
        if self._witness is not None:
            self._witness.close(block, count, first, self._metrics.shifts)


def schedules_free(params: LaneParams) -> LaneParams:
    """The parameters without windows, which `Schedules` lays out as the run goes on."""
    lanes = len(params.series)
    none = np.zeros((0, lanes))
    return replace(params, window_start_s=none, window_end_s=none, window_floor=none.astype(np.int64))


def _fixed(array: Array) -> Array:
    """Read-only: what core asks of such an array it asks once."""
    array.flags.writeable = False
    return array


class _Metrics:
    """What every lane wants and sees, a block of ticks at a time.

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
            (trace.digest, _pipeline(policy, plant), policy.fleet)
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
        self._ones = _fixed(np.ones(lanes))
        self._no = _fixed(np.zeros(lanes, np.bool_))
        self._fresh = _fixed(np.zeros(lanes, np.int64))
        self._inside = np.array([policy.signal.kind != "total" for policy in run.policies])
        self._busy = np.array([policy.signal.kind == "utilisation" for policy in run.policies])
        self._capacity = np.array([policy.vm.capacity_per_s for policy in run.policies])
        self._saturation = np.array([policy.signal.saturation for policy in run.policies])
        self.saturates = bool(self._busy.any())
        """Whether saturated VMs hide demand."""
        self._never_empty = np.array([policy.bounds.minimum > 0 for policy in run.policies]) | ~self._inside
        filled = np.array([plant.in_service > 0 for plant in run.plants])
        self.may_be_empty = not bool((self._never_empty & (filled | ~self._inside)).all())
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


def _pipeline(policy: Policy, plant: PlantSettings) -> Pipeline:
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


def _feed(
    run: LaneRun, compiled: CompiledPolicies, metrics: _Metrics, cache: OutlookCache, *, forecasts: bool
) -> Feed:
    """The cheapest feed that gives every lane the Outlook that the daemon would have."""
    if not forecasts and not compiled.lanes.cover.any():
        return Blind(len(run.policies))
    if metrics.watches:
        if run.shifts:
            raise ValueError(
                "a run cannot be cut into segments where what is measured depends on the VMs in service: forecasts "
                "must then be made in step with the plant"
            )
        return Lockstep(compiled.series)
    reach = Ticks(run.ticks.first, min(run.reach, run.until or run.reach), run.ticks.tick_s)
    keys = [(*key, run.seed) for key in metrics.keys]
    outlooks, series = cache.table(keys, metrics.seen_by_lane, compiled.series, reach)
    return Table(outlooks, series, np.array(run.shifts) if run.shifts else None)
