"""All fleets of one daemon as core sees them: lanes in a fixed order, parameters, state, and the arrays of a tick."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.config.policy import Policy
from autoscaler.core.decide import decide
from autoscaler.core.demand import fold
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.state import LaneState
from autoscaler.core.types import Decision, Freshness, Readings, Samples, Snapshot
from autoscaler.daemon.allowances import Allowances
from autoscaler.daemon.inventory import Counts, FleetInventory, Patience, Phase
from autoscaler.daemon.metering import Meter, Prices
from autoscaler.daemon.real_fleet import RealFleet
from autoscaler.ports import (
    FleetReadings,
    FleetTick,
    MetricSource,
    Provider,
    ProvisionSpec,
    ReadinessProbe,
    Vm,
)

START_TIMES_KEPT = 1000
"""Measured start times kept per fleet, for status and summaries."""
_RECOMPILE_S = 6 * 3600.0
"""Schedules are laid out for days ahead; compiled again well before they run out."""


@dataclass(frozen=True, slots=True)
class FleetSetup:
    """One fleet with its adapters, as the composition root wires it."""

    policy: Policy
    provider: Provider
    source: MetricSource
    probe: ReadinessProbe


class Fleet:
    """One fleet's part of the daemon: policy, adapters, inventory, meter."""

    def __init__(self, setup: FleetSetup) -> None:
        policy = setup.policy
        self.name = policy.fleet
        self.policy = policy
        self.provider = setup.provider
        self.source = setup.source
        self.probe = setup.probe
        p = policy.prices
        self.meter = Meter(Prices(p.in_service_per_h, p.stopped_per_h, p.start, p.provision))
        self.begin_anew()
        self.new_vms = 0
        self.start_times_s: deque[float] = deque(maxlen=START_TIMES_KEPT)
        self.source_error = ""
        self.listing_error = ""
        self.evaluated_at_s: float | None = None

    def begin_anew(self) -> None:
        """Know nothing of the VMs, as after a restart; the next listing tells."""
        vm = self.policy.vm
        patience = Patience(
            start_s=max(120.0, 5.0 * vm.start_time_s), stop_s=max(600.0, 10.0 * vm.stop_time_s)
        )
        self.inventory = FleetInventory(self.name, patience)
        self.real = None if self.policy.act else RealFleet(self.name, patience, self.meter.prices)
        self.held_until_s = self.provision_held_until_s = float("-inf")

    @property
    def setup(self) -> FleetSetup:
        """The policy and the adapters."""
        return FleetSetup(self.policy, self.provider, self.source, self.probe)

    def carry_on(self, before: Fleet) -> None:
        """Go on with what another setup of the same fleet knows; that one is not used any more.

        Between acting and shadow the VMs are not the same: real ones here, simulated ones there. So nothing
        is known of them then, as after a restart, and the next listing tells.
        """
        prices = self.meter.prices
        self.meter = before.meter
        self.meter.prices = prices
        self.new_vms = before.new_vms
        self.start_times_s = before.start_times_s
        self.source_error = before.source_error
        self.listing_error = before.listing_error
        self.evaluated_at_s = before.evaluated_at_s
        if self.policy.act == before.policy.act:
            patience = self.inventory.patience
            self.inventory = before.inventory
            self.inventory.patience = patience
            self.real = before.real
            if self.real is not None:
                self.real.change(patience, prices)
            self.held_until_s = before.held_until_s
            self.provision_held_until_s = before.provision_held_until_s

    def measured(self) -> list[Vm]:
        """The VMs that are asked for metrics: those that serve, in shadow those that really do."""
        if self.real is not None:
            return self.real.running
        return [t.vm for t in self.inventory.in_phase(Phase.IN_SERVICE)]

    def expected(self, reported: set[str], now_s: float) -> int:
        """How many of them should have reported by now, given which did; new ones count once they do."""
        grace_s = self.policy.signal.max_age_s
        if self.real is not None:
            return self.real.expected(reported, now_s, self.policy.vm.start_time_s + grace_s)
        count = 0
        for t in self.inventory.in_phase(Phase.IN_SERVICE):
            since_s = t.in_service_from_s if t.in_service_from_s is not None else now_s
            count += now_s - since_s > grace_s or t.vm.id in reported
        return count

    @property
    def spec(self) -> ProvisionSpec | None:
        """Where new VMs come from, if the policy allows them."""
        p = self.policy.provision
        if p is None:
            return None
        return ProvisionSpec(self.name, p.launch_template, p.version, p.vm_type, p.subnet)

    @property
    def minimum_on_time_s(self) -> float:
        """A VM is not stopped before it has served this long."""
        return self.policy.guards.minimum_on_time_s


class Fleets:
    """The fleets in lane order with core's parameters and state.

    Args:
        setups: One per fleet; their order is the order of lanes.
        tick_s: Length of a tick.
        now_s: The clock, for laying out schedules.
    """

    def __init__(self, setups: Sequence[FleetSetup], tick_s: float, now_s: float) -> None:
        self.all = [Fleet(setup) for setup in setups]
        self.by_name = {fleet.name: fleet for fleet in self.all}
        self._tick_s = tick_s
        self._compiled = self._compile(now_s)
        self._compiled_at_s = now_s
        self._series_state = SeriesState.empty(self._compiled.series)
        self._lane_state = LaneState.empty(self._compiled.lanes)
        self._capacity = self._compiled.lanes.vm_capacity

    def carried_over(self, setups: Sequence[FleetSetup], now_s: float) -> Fleets:
        """Fleets for other setups, which go on with what is known of the fleets of the same names.

        What forecasts have learned stays as long as the policy measures the same thing. These fleets are not
        used any more afterwards; where this raises, they are as they were.
        """
        new = Fleets(setups, self._tick_s, now_s)
        lane_of = {fleet.name: lane for lane, fleet in enumerate(self.all)}
        lanes = [lane_of.get(fleet.name, -1) for fleet in new.all]
        series = [
            lane if lane >= 0 and _same_measure(self.all[lane].policy, fleet.policy) else -1
            for lane, fleet in zip(lanes, new.all, strict=True)
        ]
        new._lane_state = self._lane_state.carried_over(
            self._compiled.lanes, new._compiled.lanes, np.array(lanes)
        )
        new._series_state = self._series_state.carried_over(new._compiled.series, np.array(series))
        for lane, fleet in zip(lanes, new.all, strict=True):
            if lane >= 0:
                fleet.carry_on(self.all[lane])
        return new

    def begin_anew(self, now_s: float) -> None:
        """Forget everything that is noted by the clock; what forecasts have learned stays."""
        for fleet in self.all:
            fleet.begin_anew()
        self._compiled, self._compiled_at_s = self._compile(now_s), now_s
        self._lane_state = LaneState.empty(self._compiled.lanes)
        self._series_state.last_tick = -1

    def _compile(self, now_s: float) -> CompiledPolicies:
        return compile_params([fleet.policy for fleet in self.all], self._tick_s, now_s)

    def decide(
        self,
        readings: Mapping[str, FleetReadings],
        counts: Sequence[Counts],
        tick: int,
        now_s: float,
        *,
        listed: Mapping[str, bool],
        allowed: Allowances,
    ) -> tuple[Samples, Decision]:
        """Fold, forecast and decide for all fleets.

        Args:
            readings: By fleet.
            counts: In lane order.
            tick: On the absolute grid.
            now_s: The clock.
            listed: By fleet, whether the counts rest on a complete listing of this tick.
            allowed: What operators leave to do, over lanes.
        """
        if abs(now_s - self._compiled_at_s) > _RECOMPILE_S:
            self._compiled, self._compiled_at_s = self._compile(now_s), now_s
        compiled = self._compiled
        gathered, expected, capacity = self._gather(readings, now_s)
        samples = fold(compiled.fold, gathered, expected, capacity, now_s)
        outlook = step(compiled.series, self._series_state, samples)

        def column(name: str) -> np.ndarray:
            return np.array([getattr(c, name) for c in counts], np.int64)

        snapshot = Snapshot(
            now_s=now_s,
            tick=tick,
            demand=samples.demand,
            observed_at_s=samples.observed_at_s,
            freshness=samples.freshness,
            coverage=samples.coverage,
            censored=samples.censored,
            in_service=column("in_service"),
            starting=column("starting"),
            draining=column("draining"),
            stopping=column("stopping"),
            stopped=column("startable"),
            provisioned=column("provisioned"),
            stoppable=column("stoppable"),
            listed=np.array([listed[fleet.name] for fleet in self.all], np.bool_),
            may_start=allowed.may_start,
            may_provision=allowed.may_provision,
            may_stop=allowed.may_stop,
            floor=allowed.floor,
            ceiling=allowed.ceiling,
        )
        return samples, decide(compiled.lanes, self._lane_state, snapshot, outlook)

    def _gather(
        self, readings: Mapping[str, FleetReadings], now_s: float
    ) -> tuple[Readings, np.ndarray, np.ndarray]:
        """Readings of all fleets in one set of arrays; VMs expected to report, and their capacity."""
        lane: list[np.ndarray] = []
        parts = []
        expected = np.zeros(len(self.all), np.int64)
        for index, fleet in enumerate(self.all):
            got = readings[fleet.name]
            parts.append(got)
            lane.append(np.full(len(got.values), index, np.int64))
            expected[index] = fleet.expected(set(got.vm_ids), now_s)
        lanes = np.concatenate(lane)
        gathered = Readings(
            lane=lanes,
            value=np.concatenate([p.values for p in parts]).astype(np.float64),
            observed_at_s=np.concatenate([p.observed_at_s for p in parts]).astype(np.float64),
            capacity=self._capacity[lanes],
        )
        return gathered, expected, expected * self._capacity


def _same_measure(before: Policy, after: Policy) -> bool:
    """Whether demand is the same quantity under both policies, so that what was learned of it holds."""
    was, now = before.signal, after.signal
    same = (was.kind, was.source, was.scrape, was.trace) == (now.kind, now.source, now.scrape, now.trace)
    # Utilisation is turned into work by the capacity of a VM.
    return same and (now.kind != "utilisation" or before.vm.capacity_per_s == after.vm.capacity_per_s)


def fleet_tick(
    lane: int, fleet: Fleet, samples: Samples, decision: Decision, counts: Counts, cost: float
) -> FleetTick:
    """One lane of a tick as the journal records it; the sentence is added by the loop."""
    demand = float(samples.demand[lane])
    capacity = counts.in_service * fleet.policy.vm.capacity_per_s
    return FleetTick(
        fleet=fleet.name,
        demand=demand,
        observed_at_s=float(samples.observed_at_s[lane]),
        freshness=int(samples.freshness[lane]),
        coverage=float(samples.coverage[lane]),
        censored=bool(samples.censored[lane]),
        in_service=counts.in_service,
        starting=counts.starting,
        draining=counts.draining,
        stopping=counts.stopping,
        stopped=counts.stopped,
        provisioned=counts.provisioned,
        stoppable=counts.stoppable,
        forecast=float(decision.forecast[lane]),
        forecast_hi=float(decision.forecast_hi[lane]),
        wish=int(decision.wish[lane]),
        desired=int(decision.desired[lane]),
        start=int(decision.start[lane]),
        provision=int(decision.provision[lane]),
        stop=int(decision.stop[lane]),
        warm_target=int(decision.warm_target[lane]),
        capacity=capacity,
        shortage=max(demand - capacity, 0.0) if samples.freshness[lane] == Freshness.FRESH else float("nan"),
        cost=cost,
        stages=tuple(int(v) for v in decision.value[:, lane]),
        reasons=tuple(int(r) for r in decision.reason[:, lane]),
        sentence="",
        source_error=fleet.source_error,
    )
