"""All fleets of the daemon in core's form: lanes in a fixed order, parameters, state, and the arrays of a tick."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import is_, is_not

import numpy as np

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.config.compiling_objective import unbilled_s
from autoscaler.config.policy import Policy
from autoscaler.core.decide import decide, decide_later
from autoscaler.core.demand import Folds
from autoscaler.core.forecast import SeriesState, step
from autoscaler.core.guards import NotCarriedOut
from autoscaler.core.params import LaneParams
from autoscaler.core.queues import QueueState, demand_of_queues
from autoscaler.core.state import LaneState
from autoscaler.core.state_base import Remembered
from autoscaler.core.types import Decision, Float, Int, Samples, Snapshot
from autoscaler.daemon.acts.arrival_command import Arrivals
from autoscaler.daemon.acts.drain import Drains, carry_on
from autoscaler.daemon.clock_back import state_after_set_back
from autoscaler.daemon.doubted_readings import ImpossibleReadings
from autoscaler.daemon.fleet_rows import CachedRow, LastSentence
from autoscaler.daemon.lane_inputs import SnapshotBuilder
from autoscaler.daemon.learned.learning import Learning, with_vm
from autoscaler.daemon.learned.measured import meaning, measure
from autoscaler.daemon.learned.patience import patience_of, update_patience
from autoscaler.daemon.operating.allowances import Allowances
from autoscaler.daemon.vms.hibernation import Hibernation, held
from autoscaler.daemon.vms.inventory import Counts, FleetInventory, Phase
from autoscaler.daemon.vms.metering import Meter, Prices
from autoscaler.daemon.vms.real_fleet import RealFleet
from autoscaler.daemon.vms.tracked import TrackedVm
from autoscaler.daemon.vms.weights import EVERY_S, Weights, types_of
from autoscaler.daemon.warm.missed import MissedStarts
from autoscaler.ports import (
    Balancer,
    FleetReadings,
    FleetTick,
    MetricSource,
    Note,
    Provider,
    ProvisionSpec,
    ReadinessProbe,
    Vm,
)
from autoscaler.ports.hooks import VmHook

START_TIMES_KEPT = 1000
"""Measured start times kept per fleet, for status and summaries."""
NOTABLE_MOVE = 0.05
"""Relative change of a learned capacity that is reported, or of the time that hibernated VMs save that is planned with."""
NOTABLE_ODDS = 0.02
"""Change in the odds of a successful start from which policies are compiled again (checked once an hour)."""
RECOMPILE_S = 6 * 3600.0
"""Time after which policies are compiled again: schedules are laid out for days ahead, and must not run out."""


@dataclass(frozen=True, slots=True)
class FleetSetup:
    """One fleet with its adapters, as the composition root wires it."""

    policy: Policy
    provider: Provider
    source: MetricSource
    probe: ReadinessProbe
    balancer: Balancer | None = None
    hook: VmHook | None = None
    arrivals: Arrivals | None = None


class Fleet:
    """What the daemon keeps for one fleet: policy, adapters, inventory, meter."""

    def __init__(self, setup: FleetSetup) -> None:
        policy = setup.policy
        self.name = policy.fleet
        self.policy = policy
        self.capacity_per_s = policy.vm.capacity_per_s
        """Work per second that one VM is planned with, learned or from the policy, for a VM of the fleet's mean weight."""
        self.weights = Weights(policy)
        self._told_capacity_per_s = self.capacity_per_s
        self.provider = setup.provider
        self.source = setup.source
        self.balancer = setup.balancer
        self.hook = setup.hook
        """The operator's hook for VMs that are being tried; None without one."""
        self.drains = None if setup.balancer is None else Drains(setup.balancer, policy)
        self.arrivals = setup.arrivals
        self.own_probe = setup.probe
        started = setup.probe if self.arrivals is None else self.arrivals.after(setup.probe)
        self.probe = started if self.drains is None else self.drains.admitting(started)
        self.balancer_error = ""
        self.hibernation = Hibernation(policy.warm_pool.hibernate)
        self.missed = MissedStarts()
        p = policy.prices
        self.meter = Meter(Prices(p.in_service_per_h, p.stopped_per_h, p.start, p.provision, p.memory_per_h))
        self.start_over()
        self.new_vms = 0
        self.start_times_s: deque[float] = deque(maxlen=START_TIMES_KEPT)
        self.source_error = self.listing_error = ""
        self.beyond: dict[str, float] = {}
        """By VM whose readings are left out because no VM can do so much work: when its readings were last left out."""
        self.evaluated_at_s: float | None = None
        self.last_sentence = LastSentence()
        self.row: CachedRow | None = None
        self.queue: QueueState | None = None
        """The state of the fleet's queue, for one lane; None before the first decision, and for other signals."""
        self.measured_since_s = -math.inf
        """When the fleet began to measure what it measures; demand recorded before may mean something else."""
        self._serving: list[TrackedVm] = []
        self._newest_s = math.inf

    def start_over(self) -> None:
        """Forget the VMs, as after a restart; the next listing reports them again."""
        patience = patience_of(self.policy)
        self.inventory = FleetInventory(self.name, patience)
        self.real = None if self.policy.act else RealFleet(self.name, patience, self.meter.prices)
        self.held_until_s = self.provision_held_until_s = float("-inf")
        self.leased_to = ""
        """Name of another daemon that acts on the fleet, so that this one does not; empty if there is none."""

    @property
    def setup(self) -> FleetSetup:
        """The fleet's policy and adapters, as they were wired."""
        adapters = self.provider, self.source, self.own_probe, self.balancer, self.hook, self.arrivals
        return FleetSetup(self.policy, *adapters)

    def carry_on(self, before: Fleet) -> None:
        """Take over the state of `before`, a fleet object of the same name that is no longer used.

        Between acting and shadow the VMs differ: real ones when acting, simulated ones in shadow. If that changes, what
        was known of the VMs is dropped, as after a restart, and the next listing reports them.
        """
        prices = self.meter.prices
        self.meter = before.meter
        self.meter.prices = prices
        self.new_vms = before.new_vms
        self.start_times_s = before.start_times_s
        self.source_error, self.beyond = before.source_error, before.beyond
        self.listing_error = before.listing_error
        self.evaluated_at_s = before.evaluated_at_s
        if self.policy.act == before.policy.act:
            patience = self.inventory.patience
            self.inventory = before.inventory
            self.inventory.patience = patience
            self.hibernation.carry_on(before.hibernation)
            self.missed = before.missed
            carry_on(self.drains, before.drains, self.inventory)
            self.real = before.real
            if self.real is not None:
                self.real.change(patience, prices)
            self.held_until_s = before.held_until_s
            self.provision_held_until_s = before.provision_held_until_s

    def replanned(self, before: Policy, after: Policy) -> str:
        """Say, for people, what is planned with from now on; empty if the change is not notable."""
        told = []
        was_s, now_s = before.vm.start_time_s, after.vm.start_time_s
        if was_s != now_s:
            told.append(f"a start takes {now_s:.0f} s ({was_s:.0f} s before)")
        was, now = self._told_capacity_per_s, after.vm.capacity_per_s
        # Capacity moves a little every hour; small moves add up until they are notable.
        if abs(now / was - 1.0) >= NOTABLE_MOVE:
            self._told_capacity_per_s = now
            told.append(f"a VM does {now:.4g}/s ({was:.4g}/s before)")
        return f"planned with from now on: {', and '.join(told)}" if told else ""

    def wants(self, row: FleetTick) -> None:
        """Pass the decided numbers to the inventory and to hibernation, which act on them."""
        self.inventory.wanted = row.desired
        self.hibernation.wanted = None if row.memories is None else row.memories.hibernated

    def charge(self, provisioned: int, now_s: float) -> float:
        """Charge everything up to now and return the cost as money.

        `provisioned` is the number of VMs that exist.
        """
        memories = held(self.inventory) if self.meter.prices.memory_per_h else 0
        new_vms, self.new_vms = self.new_vms, 0
        return self.meter.charge(self.inventory.metered(), provisioned, new_vms, now_s, memories).money

    def measured(self) -> Sequence[Vm]:
        """Return the VMs that are asked for metrics: those in service, or in shadow the real VMs that run."""
        if self.real is not None:
            return self.real.running
        return self.inventory.vms_in(Phase.IN_SERVICE)

    def expected(self, reported: Iterable[str], now_s: float) -> int:
        """Return how many of the measured VMs should have reported by now.

        A VM that has been in service for no longer than the signal's `max_age_s` counts only if it is among `reported`.
        """
        grace_s = self.policy.signal.max_age_s
        if self.real is not None:
            return self.real.expected(reported, now_s, self.policy.vm.start_time_s + grace_s)
        serving = self.inventory.in_phase(Phase.IN_SERVICE)
        if not serving:
            return 0
        if serving is not self._serving:
            self._serving = serving
            self._newest_s = max((_since_s(t, math.inf) for t in serving), default=math.inf)
        if now_s - self._newest_s > grace_s:
            return len(serving)
        known = set(reported)
        return sum(now_s - _since_s(t, now_s) > grace_s or t.vm.id in known for t in serving)

    @property
    def spec(self) -> ProvisionSpec | None:
        """What new VMs are made from; None if the policy does not allow new VMs."""
        p = self.policy.provision
        if p is None:
            return None
        return ProvisionSpec(self.name, p.launch_template, p.version, p.vm_type, p.subnet)

    @property
    def minimum_on_time_s(self) -> float:
        """Shortest time in service before a VM may be stopped."""
        return self.policy.guards.minimum_on_time_s


class Fleets:
    """All fleets in lane order, with core's parameters and state.

    Args:
        setups: One per fleet; their order is the order of lanes.
        tick_s: Length of a tick, in seconds.
        now_s: The current time, from which schedules are laid out.
        forecasts: Whether forecasts are made even if no policy decides by them.
    """

    def __init__(
        self, setups: Sequence[FleetSetup], tick_s: float, now_s: float, *, forecasts: bool = True
    ) -> None:
        self._forecasts = forecasts
        self.all = [Fleet(setup) for setup in setups]
        self.by_name = {fleet.name: fleet for fleet in self.all}
        self.providers = list({id(fleet.provider): fleet.provider for fleet in self.all}.values())
        """The distinct providers."""
        self.sources = {fleet.name: fleet.source for fleet in self.all}
        self.drain = any(fleet.drains is not None for fleet in self.all)
        """Whether VMs of any fleet are behind a load balancer."""
        self._policies = [fleet.policy for fleet in self.all]
        self.tick_s = self._tick_s = tick_s
        self.remembered: set[str] = set()
        """Fleets whose forecasts continue from an earlier run; `backfill` empties this."""
        self.experienced: set[str] = set()
        """Fleets whose models and warm pool continue from an earlier run; `backfill` empties this."""
        self.added: set[str] = set()
        """Fleets that a reload added, perhaps again; `backfill` empties this."""
        self.learning = Learning([fleet.name for fleet in self.all])
        self.planned = [fleet.policy for fleet in self.all]
        """The policies, with learned values in place of their guesses: what core decides with."""
        self._sooner_s: Float = np.zeros(0)
        self._compiled = self._compile(now_s)
        self._compiled_at_s = now_s
        self._series_state = SeriesState.empty(self._compiled.series)
        self._lane_state = LaneState.empty(self._compiled.lanes)
        self.overheard: list[Samples] | None = None
        """Samples that were forecast from while `backfill` learns in the background; None if it does not."""
        self.news: list[Note] = []
        """What deserves an event, until the loop records it."""
        self._queues = QueueState.empty(len(self.all))
        self._weighed_at_s = -math.inf
        self._has_queues = any(fleet.policy.signal.kind == "queue" for fleet in self.all)
        self._gathering = SnapshotBuilder(self.all, self._compiled.lanes.vm_capacity)
        self._folds, self._beyond = Folds(), ImpossibleReadings(self.all)
        self._seen: tuple[object, ...] = ()
        """The inputs of the last snapshot, compared by identity; empty if they must not be reused."""

    def carried_over(self, setups: Sequence[FleetSetup], now_s: float) -> Fleets:
        """Return fleets for other setups that continue with the state of the fleets of the same names.

        Forecasts keep what they learned as long as the policy measures the same thing. The present fleets must not be
        used afterwards. If this raises, they are unchanged.
        """
        new = Fleets(setups, self._tick_s, now_s, forecasts=self._forecasts)
        lane_of = {fleet.name: lane for lane, fleet in enumerate(self.all)}
        lanes = [lane_of.get(fleet.name, -1) for fleet in new.all]
        series = [
            lane if lane >= 0 and measure(self.all[lane].policy) == measure(fleet.policy) else -1
            for lane, fleet in zip(lanes, new.all, strict=True)
        ]
        new._queues = self._queues.carried_over(np.array(series))
        new.learning = self.learning.carried_over([fleet.name for fleet in new.all])
        planned = new._planned()
        if any(map(is_not, planned, new.planned)) or new._sooner_moved():
            new.planned = planned
            new._compiled = new._compile(now_s)
        new._lane_state = self._lane_state.carried_over(new._compiled.lanes, np.array(lanes))
        new._series_state = self._series_state.carried_over(new._compiled.series, np.array(series))
        for lane, fleet in zip(lanes, new.all, strict=True):
            if lane >= 0:
                fleet.carry_on(self.all[lane])
                same = meaning(self.all[lane].policy) == meaning(fleet.policy)
                fleet.measured_since_s = self.all[lane].measured_since_s if same else now_s
        added = new.by_name.keys() - self.by_name.keys()
        new.added = (self.added | added) & new.by_name.keys()
        return new

    def start_over(self, now_s: float, back_s: float) -> None:
        """Forget everything noted by a clock that was then set back by `back_s`; what was learned stays (`clock_back`)."""
        for fleet in self.all:
            fleet.start_over()
        self._planned()
        self._compiled, self._compiled_at_s = self._compile(now_s), now_s
        self._lane_state = state_after_set_back(self._lane_state, self._compiled.lanes, back_s)
        self._series_state.last_tick = -1

    def _compile(self, now_s: float) -> CompiledPolicies:
        compiled = compile_params(self.planned, self._tick_s, now_s)
        lanes = compiled.lanes
        self._steps = self._forecasts or bool(lanes.cover.any() or compiled.series.laws.any())
        success = self._start_success(now_s)
        if (success != 1.0).any():
            lanes = replace(lanes, start_success=success)
        if lanes.hibernate.any():
            self._sooner_s = self.learning.hibernation_saving_s(self._policies)
            unbilled = unbilled_s(self._policies, self._sooner_s) / self._tick_s
            lanes = replace(lanes, sooner_ticks=self._sooner_s / self._tick_s, unbilled_ticks=unbilled)
        return compiled if lanes is compiled.lanes else replace(compiled, lanes=lanes)

    def _start_success(self, now_s: float) -> Float:
        return np.array([fleet.inventory.start_success(now_s) for fleet in self.all])

    def plan_with_what_was_learned(self, now_s: float) -> None:
        """Put what was learned in place of the policies' guesses, and compile the policies again if that changes notably.

        What forecasts and guards remember stays, as when policies are reloaded.
        """
        planned = self._planned()
        odds_moved = np.abs(self._start_success(now_s) - self._compiled.lanes.start_success) >= NOTABLE_ODDS
        same_vms = [policy.vm for policy in planned] == [policy.vm for policy in self.planned]
        if same_vms and not odds_moved.any() and not self._sooner_moved():
            return
        for fleet, before, after in zip(self.all, self.planned, planned, strict=True):
            if text := fleet.replanned(before, after):
                self.news.append(Note("planned_anew", fleet.name, text))
        self.planned = planned
        self._compiled, self._compiled_at_s = self._compile(now_s), now_s
        same = np.arange(len(planned))
        self._lane_state = self._lane_state.carried_over(self._compiled.lanes, same)
        self._series_state = self._series_state.carried_over(self._compiled.series, same)

    def _sooner_moved(self) -> bool:
        """Return whether the time that hibernated VMs start sooner was learned, or has changed notably."""
        if not self._compiled.lanes.hibernate.any():
            return False
        now_s = self.learning.hibernation_saving_s(self._policies)
        moved = np.abs(now_s - self._sooner_s) > NOTABLE_MOVE * np.abs(self._sooner_s)
        return bool((moved | (np.isnan(now_s) != np.isnan(self._sooner_s))).any())

    def _planned(self) -> list[Policy]:
        """Return the policies with what was learned, each for a VM of its fleet's mean weight."""
        planned = self.learning.planned([fleet.policy for fleet in self.all])
        update_patience(((fleet.name, fleet.policy, fleet.inventory) for fleet in self.all), self.learning)
        self._gathering.plan_with(np.array([policy.vm.capacity_per_s for policy in planned]))
        for lane, fleet in enumerate(self.all):
            fleet.capacity_per_s = planned[lane].vm.capacity_per_s * fleet.weights.mean
            if fleet.weights.mean != 1.0:
                planned[lane] = with_vm(planned[lane], {"capacity_per_s": fleet.capacity_per_s})
        return planned

    def _weigh(self, now_s: float) -> None:
        """Update the mean weights of fleets whose VMs differ in size, and plan again if any has changed."""
        if not self._gathering.weighted or abs(now_s - self._weighed_at_s) < EVERY_S:
            return
        self._weighed_at_s = now_s
        changed = [f.weights.weigh([*types_of(f.inventory).values()]) for f in self.all if f.weights]
        if any(changed):
            self.plan_with_what_was_learned(now_s)

    @property
    def lanes(self) -> LaneParams:
        """The compiled policies in use."""
        return self._compiled.lanes

    def states(self) -> dict[str, Remembered]:
        """Return everything that core remembers, by name. It must not be changed."""
        return {"lanes": self._lane_state, "forecasts": self._series_state, "queues": self._queues}

    def go_on_from(self, state: Remembered, lanes: Int) -> None:
        """Continue with what core remembered in an earlier run; `lanes`, int64 (L,), maps lanes to earlier ones, -1 if
        new.
        """
        if isinstance(state, LaneState):
            self._lane_state = state.carried_over(self._compiled.lanes, lanes)
        elif isinstance(state, SeriesState):
            self._series_state = state.carried_over(self._compiled.series, lanes)
        elif isinstance(state, QueueState):
            self._queues = state.carried_over(lanes)

    def take_in(self, lanes: Int, learned: SeriesState, lived: LaneState | None, models: Int) -> None:
        """Put what was learned in the background into use.

        Args:
            lanes: int64 (N,), lanes of the fleets that learned.
            learned: Forecast state of N series with these fleets' settings, stepped through the last tick of these
                fleets.
            lived: State of N lanes with these fleets' policies, equally far; None if none of them decided.
            models: int64 (k,), lanes of the fleets whose models and warm pool continue from `lived`.

        Raises:
            ValueError: `learned` or `lived` is at another tick; nothing has changed then.
        """
        columns = np.full(len(self.all), -1)
        columns[lanes] = np.arange(len(lanes))
        # In a copy, everything that was computed ahead is computed again.
        decisions = self._lane_state
        if lived is not None and len(models):
            decisions = decisions.copy()
            decisions.take_in(models, lived.carried_over(self._compiled.lanes, columns))
        self._series_state.take_in(lanes, learned.carried_over(self._compiled.series, columns))
        self._lane_state, self._seen = decisions, ()

    def decide(
        self,
        readings: Mapping[str, FleetReadings],
        counts: Sequence[Counts],
        tick: int,
        now_s: float,
        *,
        listed: list[bool],
        allowed: Allowances,
    ) -> tuple[Samples, Decision]:
        """Fold, forecast and decide for all fleets; return the folded samples and the decision.

        Args:
            readings: The readings of each fleet.
            counts: VMs by phase, in lane order.
            tick: Number of the tick on the absolute grid.
            now_s: The current time.
            listed: In lane order, whether the counts rest on a complete listing of this tick.
            allowed: What operators allow, over lanes.
        """
        policies = self._policies
        self.learning.heard(policies, self._gathering.of_weight_1(readings), now_s)
        self._weigh(now_s)
        if self.learning.is_due(now_s):
            self.learning.move(policies)
            self.plan_with_what_was_learned(now_s)
        if abs(now_s - self._compiled_at_s) > RECOMPILE_S:
            self._compiled, self._compiled_at_s = self._compile(now_s), now_s
        compiled = self._compiled
        gathered, expected, capacity = self._gathering.readings(readings, now_s)
        samples = self._folds.fold(compiled.fold, gathered, expected, capacity, now_s)
        self.news += self._beyond.follow(samples, gathered.lane, readings)
        if self._has_queues:
            serving = self._gathering.columns(counts)["in_service"] * compiled.lanes.vm_capacity
            samples = demand_of_queues(compiled.fold, self._queues, samples, serving)
            for lane, fleet in enumerate(self.all):
                if fleet.policy.signal.kind == "queue":
                    fleet.queue = self._queues.carried_over(np.array([lane]))
        if self.overheard is not None:
            self.overheard.append(samples)
        outlook = step(compiled.series, self._series_state, samples) if self._steps else None
        columns = self._gathering.columns(counts)
        where_listed = self._gathering.listed(listed)
        arrays = samples.demand, samples.freshness, samples.coverage, samples.censored
        seen = (*arrays, columns, where_listed, allowed)
        if self._seen and all(map(is_, seen, self._seen)):
            later = decide_later(compiled.lanes, self._lane_state, now_s, tick, outlook)
            if later is not None:
                return samples, later
        self._seen = ()
        snapshot = Snapshot(
            now_s=now_s,
            tick=tick,
            demand=samples.demand,
            observed_at_s=samples.observed_at_s,
            freshness=samples.freshness,
            coverage=samples.coverage,
            censored=samples.censored,
            **columns,
            listed=where_listed,
            may_start=allowed.may_start,
            may_provision=allowed.may_provision,
            may_stop=allowed.may_stop,
            floor=allowed.floor,
            ceiling=allowed.ceiling,
        )
        held = np.array([n for n, f in enumerate(self.all) if now_s < f.held_until_s], np.int64)
        held_back = NotCarriedOut(self._lane_state, held)
        decision = decide(compiled.lanes, self._lane_state, snapshot, outlook)
        held_back.undo(compiled.lanes, self._lane_state, snapshot, decision)
        self._seen = seen
        return samples, decision


def _since_s(t: TrackedVm, unknown_s: float) -> float:
    return t.in_service_from_s if t.in_service_from_s is not None else unknown_s
