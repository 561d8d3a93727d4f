"""The lane engine: thousands of simulated fleets at once, with the same decision function that the daemon calls.

A lane is one fleet under one policy on one plant: a variant, a segment of a long trace, or both. All lanes of a run tick
together. In each tick the plant advances, what is known becomes a Snapshot, the decider decides, and the plant acts (`plant`
explains and fixes this order). Sums stream into the ledger in blocks of ticks, so memory does not grow with the trace.

Rules of this file: a lane's numbers do not depend on the other lanes, their order or their number, nor on how a run is split
into calls of `Lanes.run`. This module knows no policy's rules: any object that turns a Snapshot and an Outlook into a
Decision may decide. Runs that lanes cannot express are refused (`refusals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.core.decide import decide
from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Decision, Outlook, Samples, Snapshot
from autoscaler.core.windows import RollingMax
from autoscaler.simulator.judging.block import Block
from autoscaler.simulator.judging.ledger import Sums
from autoscaler.simulator.lanes.accounts import Accounts
from autoscaler.simulator.lanes.comparable_state import lane_memory
from autoscaler.simulator.lanes.delays import INT16, INT32, Kind, Vms
from autoscaler.simulator.lanes.feeds import feed_of
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.metrics import LaneMetrics, fixed
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant import Plant
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.lanes.refusals import refuse
from autoscaler.simulator.lanes.run import LaneRun
from autoscaler.simulator.lanes.schedules import Schedules
from autoscaler.simulator.lanes.start_luck import has_luck
from autoscaler.simulator.lanes.totals import NARROW, Totals

__all__ = ["BLOCK_TICKS", "Decider", "LaneRun", "Lanes", "PolicyDecider"]

BLOCK_TICKS = 64
_FREED_BYTES = 24 << 20


class Decider(Protocol):
    """Decides for all lanes of a run, tick by tick."""

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """Return the decision of this tick for every lane; it is valid until the next call."""
        ...


class PolicyDecider:
    """Decides as the policies say, by `core.decide`, the function that the daemon calls.

    Args:
        params: Compiled policies.
        schedules: Recompiles the windows of the policies' schedules as the run advances.
        kind: Integer type of the counts, including those that the state remembers.
    """

    def __init__(self, params: LaneParams, schedules: Schedules, kind: Kind = INT32) -> None:
        self.params = params
        self.state = LaneState.empty(params)
        if kind != INT32:
            self.state.wishes = RollingMax.empty(params.stabilisation_ticks, kind)
            self.state.peaks = RollingMax.empty(params.warm_memory_ticks, kind)
        self._schedules = schedules

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """Decide with the schedule windows that hold at this tick (see `Decider.decide`)."""
        if self._schedules.due(snapshot.now_s):
            self.params = self._schedules.laid_out(self.params, snapshot.now_s)
        return decide(self.params, self.state, snapshot, outlook)


class Lanes:
    """A run in progress.

    Args:
        run: The lanes to run.
        decider: Builds the object that decides from the compiled policies; None to decide as the policies say.
        cache: Outlooks of earlier runs, which this run reads and extends.
        witness: Records every tick of some lanes; None to record no single ticks.

    Raises:
        ConfigError: Lanes cannot express the run.
    """

    def __init__(
        self,
        run: LaneRun,
        decider: Callable[[CompiledPolicies], Decider] | None = None,
        cache: OutlookCache | None = None,
        witness: Witness | None = None,
    ) -> None:
        refuse(run.policies, run.plants, run.ticks.tick_s)
        keep_freed_memory()
        self.run_of = run
        self.tick = 0
        self._tick_s = run.ticks.tick_s
        shifts = run.shifts or (0,) * len(run.policies)
        compiled = compile_params(run.policies, self._tick_s, run.ticks.start_s, run.reach * self._tick_s)
        # Counts are 16 bits wide only if nothing but the policies decides and no witness reads single ticks.
        plain = decider is None and witness is None
        most = _most_vms(compiled.lanes, run.plants) if decider is None else math.inf
        kind = INT16 if plain and most < NARROW and fits_narrow(compiled.lanes, run) else INT32
        self.plant = Plant(run.plants, run.policies, run.ticks, run.seed, shifts, kind)
        self.accounts = Accounts(self.plant, run.plants, run.policies, self._tick_s)
        self._metrics = LaneMetrics(run, shifts, times=witness is not None)
        self._cache = OutlookCache() if cache is None else cache
        self._feed = feed_of(run, compiled, self._metrics, self._cache, forecasts=run.forecasts)
        schedules = Schedules(run.policies, [shift * self._tick_s for shift in shifts])
        params = replace(schedules_free(compiled.lanes), series=self._feed.series)
        compiled = replace(compiled, lanes=params)
        self.decider = PolicyDecider(params, schedules, kind) if decider is None else decider(compiled)
        self._witness = witness
        # `core.decide` keeps no reference to the snapshot, so one object serves all ticks. Other deciders may keep it.
        self._view: Snapshot | None = None
        self._one_view = isinstance(self.decider, PolicyDecider)
        self._accounted = True
        lanes = len(run.policies)
        self._block = Block.empty(
            BLOCK_TICKS, lanes, self._tick_s, demands=self._metrics.demands, narrow=kind == INT16
        )
        if self.plant.has_extras:
            self._block.extra_s = np.zeros((BLOCK_TICKS, lanes))
        self._starts_in, self._stops_in = [False] * BLOCK_TICKS, [False] * BLOCK_TICKS
        self._makes = self.plant.made is not None
        self._totals = Totals(self.plant, most, arrivals=self.accounts.counts_arrivals)
        self._block.totals, self._block.most_vms = self._totals.of, most
        if self.accounts.loses and witness is None:
            self._block.shortage = None
        self._yes = fixed(np.ones(lanes, np.bool_))
        self._none: Vms = fixed(np.zeros(lanes, np.int32))
        self._endless: Vms = fixed(np.full(lanes, NO_CEILING, np.int32))

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return len(self.run_of.policies)

    def sums(self, *, elasticity: bool = True) -> Sums:
        """Return empty sums for these lanes.

        Args:
            elasticity: Whether to include the figures that compare supply with need tick by tick.
        """
        return Sums(self._tick_s, self.accounts.capacity, elasticity=elasticity, tariff=self.accounts.tariff)

    def run(self, ticks: int, sums: Sums | None = None, fingerprints: Fingerprints | None = None) -> None:
        """Advance the run by `ticks` ticks.

        Args:
            ticks: At most the number of ticks that the run has left.
            sums: Totals to which every tick is added; None to add them nowhere.
            fingerprints: Digests to which every tick is added; None to add them nowhere.

        Raises:
            ValueError: The run has fewer ticks left.
        """
        end = self.tick + ticks
        if end > self.run_of.ticks.count:
            raise ValueError(f"the run has {self.run_of.ticks.count - self.tick} ticks left, not {ticks}")
        told = self._block.shortage is not None or self._block.extra_s is not None
        self._accounted = told and (sums is not None or self.accounts.queues)
        while self.tick < end:
            first = self.tick
            # Blocks end where cells of the ledger end, so that the ledger never has to split one.
            count = min(BLOCK_TICKS - first % BLOCK_TICKS, end - first)
            self._metrics.load(first, count)
            self._block.demand[:count] = self._metrics.wanted
            self._totals.begin(count)
            for row in range(count):
                self._tick(row)
            self._totals.end()
            self._close(first, count, sums, fingerprints)

    def continued(self, lanes: Sequence[int], ticks: int, witness: Witness | None = None) -> Lanes:
        """Return a copy of some of these lanes that continues from here for `ticks` more ticks.

        Only possible if the policies themselves decide, with forecasts that do not depend on the plant.
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
        """Return everything that the future of each lane depends on: arrays (n, L), equal where the futures are equal."""
        assert isinstance(self.decider, PolicyDecider)
        now_s = (self.run_of.ticks.first + self.tick) * self._tick_s
        return [
            *self.plant.state(self.tick),
            *lane_memory(self.decider.params, self.decider.state, now_s),
            self.accounts.backlog[np.newaxis],
        ]

    def _tick(self, row: int) -> None:
        """Run one tick and write it to a row of the block."""
        tick, plant, block = self.tick, self.plant, self._block
        serving = plant.in_service.copy() if self._metrics.watches else None
        plant.advance(tick)
        samples = self._metrics.samples(row, tick, serving)
        outlook = self._feed.at(tick, samples)
        decision = self.decider.decide(self._snapshot(samples, tick), outlook)
        block.desired[row] = decision.desired
        block.in_service[row] = plant.in_service
        self._totals.decided(decision)
        if self._witness is not None:
            self._keep(row, decision)
            self._witness.see(samples, decision, plant)
        plant.act(tick, decision.start, decision.provision, decision.stop)
        self._note_acts(row)
        if self._makes:
            block.provisions[row] = plant.provisions
        self._totals.acted()
        if self._witness is not None:
            block.provisioned[row] = plant.provisioned
            self.accounts.enter(block, row, self._metrics.wanted_by_lane(row))
        elif self._accounted:
            self.accounts.lack(block, row, self._metrics.wanted_by_lane(row))
        self.tick = tick + 1

    def _note_acts(self, row: int) -> None:
        """Write the accepted starts and stops of this tick into the block."""
        plant, block = self.plant, self._block
        # A row still holds what an earlier block wrote, so it is cleared only if that was not zero. The plant returns the
        # array of provisions itself as starts or stops if both are zero.
        if plant.starts is not plant.provisions:
            block.starts[row] = plant.starts
            self._starts_in[row] = True
        elif self._starts_in[row]:
            block.starts[row] = 0
            self._starts_in[row] = False
        if plant.stops is not plant.provisions:
            block.stops[row] = plant.stops
            self._stops_in[row] = True
        elif self._stops_in[row]:
            block.stops[row] = 0
            self._stops_in[row] = False

    def _keep(self, row: int, decision: Decision) -> None:
        """Write into the block the counts that only a witness reads tick by tick."""
        plant, block = self.plant, self._block
        block.warm_target[row] = decision.warm_target
        block.starting[row] = plant.starting
        block.stopped[row] = plant.stopped
        block.draining[row] = plant.draining
        if plant.failed is not None:
            block.failed_starts[row] = plant.failed

    def _snapshot(self, samples: Samples, tick: int) -> Snapshot:
        """Return what is known at a tick, in the same object each time if the decider allows it."""
        view, plant = self._view, self.plant
        if view is not None:
            note = object.__setattr__
            note(view, "now_s", samples.now_s)
            note(view, "tick", self.run_of.ticks.first + tick)
            note(view, "demand", samples.demand)
            note(view, "observed_at_s", samples.observed_at_s)
            note(view, "freshness", samples.freshness)
            note(view, "coverage", samples.coverage)
            note(view, "censored", samples.censored)
            note(view, "stopped", plant.startable)
            note(view, "stoppable", plant.stoppable)
            # The plant changes all other arrays in place.
            return view
        view = Snapshot(
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
        self._view = view if self._one_view else None
        return view

    def _close(self, first: int, count: int, sums: Sums | None, fingerprints: Fingerprints | None) -> None:
        """Add the finished rows of the block to sums, fingerprints and witness."""
        block = self._block
        block.first_tick = self.run_of.ticks.first + first
        if sums is not None:
            sums.add(block, slice(0, count))
        if fingerprints is not None:
            provisions = block.provisions[:count] if self._makes else None
            fingerprints.add(block.desired[:count], block.starts[:count], block.stops[:count], provisions)
        if self._witness is not None:
            self._witness.close(block, count, first, self._metrics.shifts)


def keep_freed_memory() -> None:
    """Keep freed memory for the next tick.

    glibc returns the end of its heap to the system once the free part exceeds twice the largest separately mapped block freed so
    far, up to 32 MB. A tick of thousands of series frees about that much at first. Mapping it again page by page in every
    tick takes up to a fifth of a run, depending on how blocks happen to lie. So this frees one large block that was never
    touched, and therefore never took any memory. With other C libraries it does nothing.
    """
    np.empty(_FREED_BYTES, np.uint8)


def _most_vms(params: LaneParams, plants: Sequence[PlantSettings]) -> float:
    """Return an upper bound on the count of VMs in any of these lanes."""
    wanted = np.maximum(params.maximum, params.minimum) * (1.0 + params.warm_spare) + 1.0
    held = max(float(bound.max()) for bound in (params.warm_minimum, params.max_provisioned))
    return max(float(wanted.max()), held, *(float(plant.vms) for plant in plants))


def fits_narrow(params: LaneParams, run: LaneRun) -> bool:
    """Whether 16-bit counts suffice: no lane may be sized by prices, and no start may have a random time or outcome."""
    return not params.economic.any() and not has_luck(run.plants, run.policies)


def schedules_free(params: LaneParams) -> LaneParams:
    """Return the parameters without schedule windows, which `Schedules` adds as the run advances."""
    lanes = len(params.series)
    none = np.zeros((0, lanes))
    return replace(params, window_start_s=none, window_end_s=none, window_floor=none.astype(np.int64))
