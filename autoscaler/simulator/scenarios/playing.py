"""Plays a scenario: the real daemon on virtual time, in a cloud with faults and with other actors.

The daemon knows only what it would know live. What happened is taken from the cloud itself, because a daemon that was dead,
or that read nothing, cannot tell.

Rules of this file: everything is deterministic. A killed daemon is cut off wherever it waits, without notice. The cloud and
the journal survive it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.billing import Prices
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from autoscaler.config.policy import Policy
from autoscaler.daemon.backfill import Backfill
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import InvariantError
from autoscaler.ports import ActionRecord, MetricSource, OutcomeKind, Verb, VmState
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.memory import MemoryProvider
from autoscaler.simulator.replay.loopback import Silent
from autoscaler.simulator.replay.recording import demand_of, timeline
from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.simulator.scenarios.figures import RunTicks
from autoscaler.simulator.scenarios.reading import Scenario
from autoscaler.simulator.scenarios.side_events import LossySource, MistakenSource, RecallingSource, roll_out
from autoscaler.store import SqliteJournal
from autoscaler.wiring import Wired, Wiring, simulated
from autoscaler.wiring_sources import trace_source


@dataclass(frozen=True, slots=True)
class CloudCounts:
    """The state of the cloud in the middle of one interval."""

    begin_s: float
    serving: int
    stopped: int


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """The result of a scenario.

    Attributes:
        scenario: The scenario.
        rows: The daemon's timeline. It has no rows for times in which no daemon ran for long.
        glances: The state of the cloud, one element per tick.
        demand: Mean demand in each tick, per second.
        actions: All actions with their outcomes.
        calls, refused_calls: Numbers of API calls that the cloud accepted and refused.
        cost: The cloud's bill, in money.
    """

    scenario: Scenario
    rows: tuple[TimelineRow, ...]
    glances: tuple[CloudCounts, ...]
    demand: tuple[float, ...]
    actions: tuple[ActionRecord, ...]
    calls: int
    refused_calls: int
    cost: float

    def seen(self, from_s: float, to_s: float) -> RunTicks:
        """Return what happened in a part of the run, given in seconds from its beginning."""
        scenario, tick_s = self.scenario, self.scenario.given.tick_s
        begin_s, end_s = scenario.begin_s + from_s, scenario.begin_s + to_s
        at = [number for number, glance in enumerate(self.glances) if begin_s <= glance.begin_s < end_s]
        glances = [self.glances[number] for number in at]
        at_s = np.array([glance.begin_s for glance in glances])
        serving = np.array([glance.serving for glance in glances], np.float64)
        accepted = [
            (action, outcome)
            for action in self.actions
            if begin_s <= action.at_s < end_s
            for outcome in action.outcomes
            if outcome.kind is OutcomeKind.ACCEPTED
        ]
        outcomes = [(action.intent.verb, outcome) for action, outcome in accepted]
        grown = Counter(
            action.tick for action, _ in accepted if action.intent.verb in (Verb.START, Verb.PROVISION)
        )
        running = (VmState.RUNNING, VmState.PENDING)
        repeated = [o for verb, o in outcomes if verb is Verb.START and o.previous_state in running]
        verbs = [verb for verb, _ in outcomes]
        return RunTicks(
            tick_s=tick_s,
            at_s=at_s,
            demand=np.array([self.demand[number] for number in at], np.float64),
            serving=serving,
            stopped=np.array([glance.stopped for glance in glances], np.float64),
            capacity=serving * scenario.policy.vm.capacity_per_s,
            desired=np.array(
                [
                    math.nan if row.desired is None else float(row.desired)
                    for row in self.rows
                    if begin_s <= row.timestamp_s < end_s
                ],
                np.float64,
            ),
            starts=verbs.count(Verb.START),
            stops=verbs.count(Verb.STOP),
            provisions=verbs.count(Verb.PROVISION),
            most_at_once=max(grown.values(), default=0),
            repeated_starts=len(repeated),
            calls=self.calls,
            refused_calls=self.refused_calls,
            cost=self.cost,
            peak_cost=self._peak_cost(),
        )

    def _peak_cost(self) -> float:
        """Return the cost of as many VMs as the highest demand needs, at least the minimum, always on."""
        given, policy = self.scenario.given, self.scenario.policy
        begin_s = self.scenario.begin_s
        peak = self.scenario.trace.cut(begin_s, begin_s + given.length_s).peak_per_s
        vms = max(math.ceil(peak / policy.vm.capacity_per_s - 1e-9), policy.bounds.minimum)
        per_h = policy.prices.in_service_per_h + policy.prices.stopped_per_h
        return vms * per_h * given.length_s / 3600.0


def play(scenario: Scenario, progress: Callable[[float], None] | None = None) -> ScenarioResult:
    """Play a scenario.

    Args:
        scenario: The scenario.
        progress: Called from time to time with the share that is done.

    Raises:
        InvariantError: A tick, the handling of an action or the journal failed, which is always a bug here.
    """
    return run_virtual(lambda: _Stage(scenario, progress).play())


@dataclass
class _Stage:
    """The surroundings of the daemon, which outlive it."""

    scenario: Scenario
    progress: Callable[[float], None] | None
    glances: list[CloudCounts] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def play(self) -> ScenarioResult:
        scenario, given = self.scenario, self.scenario.given
        self.clock = VirtualClock(scenario.begin_s)
        self.world = _cloud(scenario).world(scenario.begin_s)
        self.journal = SqliteJournal(":memory:", inline=True)
        self.policy = simulated(scenario.policy)
        around = [
            asyncio.create_task(self._watch()),
            *(
                asyncio.create_task(roll_out(self.world, self.clock, self.policy.fleet, rollout))
                for rollout in given.rollouts
            ),
        ]
        await self._run_daemons(frozenset(around))
        for task in around:
            task.cancel()
        await asyncio.gather(*around, return_exceptions=True)
        if self.failures:
            msg = f"{len(self.failures)} failures in {scenario.name}; the first: {self.failures[0]}"
            raise InvariantError(msg)
        return await self._result()

    async def _run_daemons(self, around: frozenset[asyncio.Task[None]]) -> None:
        """Run one daemon after the other, each until it is killed. The last one is stopped."""
        given, begin_s = self.scenario.given, self.scenario.begin_s
        deaths = sorted(given.kills, key=lambda kill: kill.at_s)
        since_s, tick_s = 0.0, given.tick_s
        for kill in (*deaths, None):
            provider = BudgetedProvider(
                MemoryProvider(self.world, self.clock), CallBudget(self.clock), self.clock, seed=given.seed
            )
            wiring = Wiring(provider, self.clock, self._source)
            wired = wiring.wire([self._policy_at(since_s)])
            daemon = self._daemon(wired, tick_s)
            end_s = given.length_s if kill is None else kill.at_s
            life = asyncio.create_task(daemon.run())
            edits = asyncio.create_task(self._edits(daemon, wiring, wired, since_s, end_s))
            learning = asyncio.create_task(Backfill(daemon).run()) if given.history else None
            await self._until(begin_s + end_s)
            if kill is None:
                daemon.stop()
                edits.cancel()
                if learning is not None:
                    learning.cancel()
                await life
                return
            _cut_off(asyncio.all_tasks() - around - {asyncio.current_task()})
            since_s, tick_s = kill.at_s + kill.back_after_s, kill.tick_s or tick_s
            await self._until(begin_s + since_s)

    def _policy_at(self, since_s: float) -> Policy:
        """Return the policy that is in the file at this time."""
        edited = [
            policy for at_s, policy in sorted(self.scenario.edits, key=lambda e: e[0]) if at_s <= since_s
        ]
        return simulated(edited[-1]) if edited else self.policy

    def _daemon(self, wired: Wired, tick_s: float) -> Daemon:
        telemetry = Telemetry(log=Silent(self.failures))
        settings = LoopSettings(tick_s=tick_s)
        return Daemon(self.clock, wired.setups, self.journal, telemetry, settings)

    async def _edits(
        self, daemon: Daemon, wiring: Wiring, wired: Wired, since_s: float, end_s: float
    ) -> None:
        for at_s, policy in sorted(self.scenario.edits, key=lambda edit: edit[0]):
            if since_s < at_s < end_s:
                await self._until(self.scenario.begin_s + at_s)
                wired = wiring.wire([simulated(policy)], wired.setups)
                await daemon.take_over(wired.setups)

    def _source(self, policy: Policy) -> MetricSource:
        scenario = self.scenario
        inner: MetricSource = trace_source(
            policy, self.clock, scenario.trace, seed=scenario.given.seed, offset_s=0.0
        )
        if scenario.given.misreadings:
            inner = MistakenSource(
                inner,
                self.clock,
                scenario.begin_s,
                scenario.given.misreadings,
                each=policy.signal.kind == "utilisation",
            )
        if scenario.given.losses:
            inner = LossySource(
                inner, self.clock, scenario.begin_s, scenario.given.losses, scenario.given.seed
            )
        return RecallingSource(inner, scenario.trace) if scenario.given.history else inner

    async def _watch(self) -> None:
        """Record the state of the cloud in the middle of each interval, whether or not a daemon runs."""
        given, begin_s = self.scenario.given, self.scenario.begin_s
        for number in range(int(given.length_s // given.tick_s)):
            at_s = begin_s + number * given.tick_s
            await self._until(at_s + given.tick_s / 2)
            now_s, fleet = self.clock.now(), self.policy.fleet
            views = self.world.views(now_s, fleet)
            serving = sum(view.ready(self.world.now_s) for view in views)
            stopped = sum(view.state is State.STOPPED for view in views)
            self.glances.append(CloudCounts(at_s, serving, stopped))
            if self.progress is not None:
                self.progress((number + 1) * given.tick_s / given.length_s)

    async def _until(self, at_s: float) -> None:
        await self.clock.sleep_until(self.clock.monotonic() + max(at_s - self.clock.now(), 0.0))

    async def _result(self) -> ScenarioResult:
        scenario, fleet = self.scenario, self.policy.fleet
        begin_s, end_s = scenario.begin_s, scenario.begin_s + scenario.given.length_s
        tick_s = scenario.given.tick_s
        reader = self.journal.reader()
        between = demand_of(scenario.trace.rate_at, 0.0, scenario.trace.interval_s)
        rows = timeline(reader, fleet, begin_s, end_s + 1.0, between)
        actions = reader.actions(fleet, begin_s, end_s + 1.0)
        bill = self.world.bill(end_s, fleet)
        counts = self.world.api.call_counts
        await self.journal.close()
        return ScenarioResult(
            scenario,
            rows,
            tuple(self.glances),
            tuple(between(glance.begin_s, glance.begin_s + tick_s) for glance in self.glances),
            actions,
            calls=sum(count for (_, code), count in counts.items() if not code),
            refused_calls=sum(count for (_, code), count in counts.items() if code),
            cost=bill.money,
        )


def _cut_off(tasks: Sequence[asyncio.Task[object]] | set[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()


def _cloud(scenario: Scenario) -> CloudSetup:
    given, policy = scenario.given, scenario.policy
    times, p = given.cloud, policy.prices
    hibernates = policy.warm_pool.hibernate is not None
    fleets = (
        FleetSetup(policy.fleet, given.fleet.running, state=State.RUNNING, hibernation=hibernates),
        FleetSetup(policy.fleet, given.fleet.stopped, hibernation=hibernates),
    )
    return CloudSetup(
        seed=given.seed,
        fleets=tuple(fleet for fleet in fleets if fleet.vms),
        physics=Physics(
            start=Spread(times.start_s, times.spread),
            boot=Spread(times.boot_s, times.spread),
            launch=Spread(times.launch_s, times.spread),
            first_boot=Spread(times.first_boot_s, times.spread),
            stop=Spread(times.stop_s, times.spread),
            hibernate=Spread(times.save_s, times.spread),
            resume=Spread(times.resume_s, times.spread),
            wake=Spread(times.wake_s, times.spread),
        ),
        faults=scenario.faults,
        prices=Prices(p.in_service_per_h, p.stopped_per_h, p.start, held_per_h=p.memory_per_h),
    )
