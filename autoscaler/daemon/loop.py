"""The loop: one tick after another, for all fleets at once.

    wake ─ observe ─ reconcile ─ fold, forecast, decide ─ select ─ record ─ act ─ account ─┐
      └──────────────────────────── the next point of the grid ◄───────────────────────────┘

A tick may contain early turns (`waking`) for the fleets that ask for one. An early turn reads, decides, records and acts
like a tick; forecasts treat its samples as samples of the current tick.

Rules of this file: the order of a tick is the order of the lines in `tick`. Nothing is done that the journal
has not recorded. A failure is a value of one fleet. If something still raises, the tick fails, everything is held, and
the loop continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autoscaler.clock import give_way
from autoscaler.daemon.acts.calls import TickWait
from autoscaler.daemon.acts.fallbacks import provision_options
from autoscaler.daemon.acts.fleet_drains import choose, follow, probe_of, recall
from autoscaler.daemon.acts.intent_executor import IntentExecutor
from autoscaler.daemon.acts.open_actions import OpenActions
from autoscaler.daemon.acts.planning import WantedVms, marked, plan
from autoscaler.daemon.clock_ahead import ClockAdvance
from autoscaler.daemon.clock_back import carry_over_orders
from autoscaler.daemon.doubted_readings import VanishedDemand, complaint
from autoscaler.daemon.failures import FailedListings, FailedSources, FailedTicks, stale
from autoscaler.daemon.fleet_rows import LaneValues, fleet_tick
from autoscaler.daemon.fleets import Fleets, FleetSetup
from autoscaler.daemon.hold_reasons import full_sentence, provisioned, unrecorded
from autoscaler.daemon.learned.condition import Conditions
from autoscaler.daemon.learned.learned_state_store import LearnedStateStore
from autoscaler.daemon.notify import Notifier
from autoscaler.daemon.observing import Observer
from autoscaler.daemon.operating.operators import Operators
from autoscaler.daemon.policies import PolicyStatus
from autoscaler.daemon.reconciling import reconcile
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import Counts, Phase
from autoscaler.daemon.vms.leasing import Leasing
from autoscaler.daemon.vms.listing_rows import FLEET_ROWS, MANY_FLEETS, SLICE_ROWS, Turns
from autoscaler.daemon.waking import EarlyTurn, LoopSleep
from autoscaler.daemon.warm.chores import FIRST, LAST, ChoreExecutor
from autoscaler.daemon.warm.serving_instead import ready_for_demand
from autoscaler.daemon.warm.upkeep import WarmPools
from autoscaler.ports import (
    ActionIntent,
    Clock,
    FleetReadings,
    FleetTick,
    Journal,
    Listing,
    TickRecord,
)
from autoscaler.ports.budget import budgets_among
from autoscaler.words import counted

_GRID_TOLERANCE_S = 1e-6
_READING_SHARE, _OBSERVING_SHARE, _ACTING_SHARE = 0.6, 0.8, 0.5
"""Largest shares of a tick for listing and reading, for all observing, and for the wait for calls."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop runs.

    Attributes:
        tick_s: Length of a tick, in seconds of the clock.
        observe_timeout_s: Longest wait for listings and for readings, in seconds of the event loop.
        act_timeout_s: Longest wait for one provider call, in seconds of the event loop.
        act_wait_s: Longest time that a tick waits for all its calls together, in seconds of the event loop. Later calls
            are settled when they return, so that a slow account does not cost the other fleets their ticks.
        journal_wait_s: Longest wait for one write to the journal, in seconds of the event loop.
        forecasts: Whether forecasts are made, shown and recorded even if no policy uses them, so that a policy written
            later starts with a trained forecaster. Without forecasts, a virtual run takes less than half the time.
    """

    tick_s: float = 10.0
    observe_timeout_s: float = 5.0
    act_timeout_s: float = 30.0
    act_wait_s: float = 5.0
    journal_wait_s: float = 5.0
    forecasts: bool = True

    @property
    def reading_s(self) -> float:
        """Longest wait for listings and readings: the setting, limited so that probes keep a part of the tick."""
        return min(self.observe_timeout_s, _READING_SHARE * self.tick_s)

    @property
    def observing_s(self) -> float:
        """Longest time for all observing, including probes, so that a tick ends before the next one begins."""
        return _OBSERVING_SHARE * self.tick_s

    @property
    def acting_s(self) -> float:
        """Longest wait for all calls of a tick: the setting, limited so that short ticks are not skipped for it."""
        return min(self.act_wait_s, _ACTING_SHARE * self.tick_s)


@dataclass(frozen=True, slots=True)
class Observation:
    """Readings by fleet, listings by `id(provider)`, and the event-loop time by which observing must end."""

    readings: dict[str, FleetReadings]
    listings: dict[int, Listing]
    until_s: float

    def left_s(self) -> float:
        """Time left for observing, in seconds of the event loop."""
        return max(self.until_s - asyncio.get_running_loop().time(), 0.0)


class Daemon:
    """Runs all fleets: observes, decides, records and acts once per tick.

    Args:
        clock: The source of time, and what the loop sleeps on.
        setups: The fleets with their adapters.
        journal: Where ticks and intents are recorded.
        telemetry: Metrics and log.
        settings: Tick length and time limits; None uses the defaults.
        on_tick: Called after each tick with its record, for displays and tests.
        notifier: Reports to the service manager; None reports nothing.
        leasing: Keeps this daemon from acting on fleets that another daemon manages; None acts on all fleets.
    """

    def __init__(
        self,
        clock: Clock,
        setups: Sequence[FleetSetup],
        journal: Journal,
        telemetry: Telemetry,
        settings: LoopSettings | None = None,
        on_tick: Callable[[TickRecord], None] | None = None,
        notifier: Notifier | None = None,
        leasing: Leasing | None = None,
    ) -> None:
        self.clock = clock
        self.settings = settings or LoopSettings()
        self.fleets = Fleets(setups, self.settings.tick_s, clock.now(), forecasts=self.settings.forecasts)
        self.journal = journal
        self.telemetry = telemetry
        self.recorder = Recorder(journal, telemetry, self.settings.journal_wait_s)
        self.operators = Operators(clock, self.recorder, telemetry, self.settings.tick_s)
        self.operators.govern(self.fleets.by_name)
        self.notifier = notifier or Notifier()
        self._leasing = leasing
        self.began_at_s = clock.now()
        self.policies = PolicyStatus()
        self.ticks_skipped = 0
        self.last_record: TickRecord | None = None
        self._on_tick = on_tick
        self.waking = LoopSleep(clock, self.settings.tick_s)
        self._tick_lock = asyncio.Lock()
        self._observer = Observer(clock)
        self.unlisted, self._unread = FailedListings(telemetry, self.began_at_s), FailedSources(telemetry)
        self._readings: dict[str, FleetReadings] = {}
        self._lane_values, self._vanished = LaneValues(), VanishedDemand()
        self._left_open = OpenActions(self.recorder, telemetry, self.began_at_s)
        self.conditions = Conditions(telemetry)
        call_s, again = self.settings.act_timeout_s, self.waking.ask_again
        self.acting = IntentExecutor(clock, self.recorder, telemetry, call_s, again)
        self.acting.govern(self.fleets.by_name)
        self.warm_pools = WarmPools(clock)
        self.warm_pools.govern(self.fleets.by_name)
        self.keeping = LearnedStateStore(self.recorder, telemetry, self.warm_pools)
        self.chores = ChoreExecutor(clock, self.recorder, telemetry, self.settings.act_timeout_s)
        self._budgets = budgets_among(fleet.provider for fleet in self.fleets.all)
        self._failed_ticks, self._set_ahead = FailedTicks(telemetry), ClockAdvance(clock, telemetry, leasing)

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Tick until `stop` is called; then finish the current tick and the calls in flight."""
        await self._left_open.load(self._longest_lag_s())
        await recall(self.fleets.all, self.recorder, self.began_at_s)
        await self.warm_pools.resuming.load(self.fleets.all, self.recorder, self.began_at_s)
        await self.operators.load()
        await self.keeping.load(self.fleets, self.clock.now())
        await self._announce()
        done_tick = -1
        while not self.waking.stopping:
            tick = self._tick_number()
            if tick < done_tick:
                self._clock_set_back(done_tick, tick)
                done_tick = tick - 1
            self._set_ahead.follow(tick, self.fleets.all, self.warm_pools.by_name)
            if tick > done_tick:
                self._count_skipped(done_tick, tick)
                self.waking.served()
                async with self._tick_lock:
                    await self._guarded_tick(tick)
                done_tick = tick
            elif early := self.waking.take():
                async with self._tick_lock:
                    await self._guarded_tick(tick, early)
            await self.waking.sleep_to(self.clock.monotonic() + self._until_next_s(done_tick))
        await self.acting.finish()
        await self.keeping.keep(self.fleets, self.clock.now(), at_once=True)
        await self.chores.finish()

    def stop(self) -> None:
        """End the loop after the current tick; VMs stay as they are."""
        if not self.waking.stopping:
            self.telemetry.log.info("daemon_stopping", text="VMs in service stay as they are")
            self.notifier.stopping()
        self.waking.stop()

    @property
    def is_ticking(self) -> bool:
        """Whether a tick or an early turn is in progress."""
        return self._tick_lock.locked()

    async def take_over(self, setups: Sequence[FleetSetup]) -> None:
        """Replace the fleets by those of `setups` between two ticks; fleets that remain keep their state.

        Calls in flight are finished and recorded as usual. The VMs of fleets that are not among `setups` stay as they
        are. If this raises, the fleets are unchanged.
        """
        async with self._tick_lock:
            await self.keeping.before_reload(self.fleets, [s.policy.fleet for s in setups], self.clock.now())
            before, self.fleets = self.fleets, self.fleets.carried_over(setups, self.clock.now())
            self.operators.govern(self.fleets.by_name)
            self.acting.govern(self.fleets.by_name)
            self.warm_pools.govern(self.fleets.by_name)
            self._budgets = budgets_among(fleet.provider for fleet in self.fleets.all)
            await self.keeping.after_reload(self.fleets, before.by_name, self.clock.now())
        self._unread.keep(self.fleets.by_name)
        for fleet in self.fleets.all:
            self.telemetry.acts.labels(fleet.name).set(fleet.policy.act)
        for name in before.by_name.keys() - self.fleets.by_name.keys():
            self.telemetry.forget(name)

    def unhealthy(self) -> list[str]:
        """Return one sentence, for people, per fleet without current decisions; empty if every fleet is decided on."""
        return stale(
            self.fleets.all,
            now_s=self.clock.now(),
            began_at_s=self.began_at_s,
            tick_s=self.settings.tick_s,
        )

    async def tick(self, tick: int, early: EarlyTurn | None = None) -> TickRecord:
        """Run one turn of the loop.

        Args:
            tick: Number of the tick on the absolute grid.
            early: An early turn, for the fleets that asked for it; None runs a regular tick for all fleets.
        """
        if early is None or early.lists:
            seen = await self._observe()
            self._set_ahead.within(tick, self.fleets.all, self.warm_pools.by_name)
            await self._reconcile(seen)
        else:
            seen = await self._read(early)
        self._set_ahead.within(tick, self.fleets.all, self.warm_pools.by_name)
        now_s = self.clock.now()
        names: Iterable[str] = self.fleets.by_name
        self.acting.begin_turn(names if early is None else [name for name in names if early.has(name)])
        if self.conditions.is_due(now_s):
            self.recorder.note_with_tick(await self.conditions.judge(self.fleets.all, seen.readings, now_s))
        counts = await self.conditions.count(self.fleets.all, now_s)
        rows = await self._decide(seen, counts, tick, now_s, early)
        if self.fleets.news:
            self.recorder.note_with_tick(self.fleets.news)
            self.fleets.news = []
        record = TickRecord(tick, now_s, tuple(rows))
        intents = self._select(record, early)
        action_ids = await self.recorder.tick(record, intents)
        if self.recorder.trouble:
            self.acting.not_recorded(record)
        wait = TickWait(self.settings.acting_s)
        chores = partial(self.chores.begin, self.fleets.by_name, self.warm_pools.by_name, intents, action_ids)
        returning = chores(FIRST)
        await self.acting.act(record, intents, action_ids, wait)
        await wait.on(returning | chores(LAST))
        await self.recorder.settle_rest(now_s)
        await self.operators.record_ended(now_s)
        self._account(record, dict(zip(self.fleets.by_name, counts, strict=True)), early)
        await self.keeping.keep(self.fleets, now_s)
        return record

    # ── steps of a tick ────────────────────────────────────────────────────────────────────────────────

    async def _observe(self) -> Observation:
        serving = {f.name: f.measured() for f in self.fleets.all}
        until_s = asyncio.get_running_loop().time() + self.settings.observing_s
        listings, readings = await self._observer.observe(
            self.fleets.providers, self.fleets.sources, serving, self.settings.reading_s
        )
        return Observation(readings, listings, until_s)

    async def _read(self, early: EarlyTurn) -> Observation:
        """Read the fleets of an early turn without listing VMs; other fleets keep their last readings."""
        asked = [f for f in self.fleets.all if early.has(f.name)]
        _, readings = await self._observer.observe(
            (),
            {f.name: f.source for f in asked},
            {f.name: f.measured() for f in asked},
            self.settings.reading_s,
        )
        unread = FleetReadings.none()
        last = {f.name: self._readings.get(f.name, unread) for f in self.fleets.all}
        return Observation(last | readings, {}, 0.0)

    async def _reconcile(self, seen: Observation) -> None:
        now_s = self.clock.now()
        self.unlisted.follow(self._observer.named(seen.listings), now_s)
        notes = await reconcile(self.fleets.all, seen.listings, self._observer, now_s)
        if self._leasing is not None:
            notes += self._leasing.follow(self.fleets.all, seen.listings, self._observer.rows_by_fleet, now_s)
        if self._left_open:
            self._left_open.settle(self.fleets.by_name, seen.listings, now_s)
        # Each of these two makes two requests in a row, and the probes below need a part of the time as well.
        if self.fleets.drain:
            notes += await follow(self.fleets.all, self.clock, seen.left_s() / 4.0, self.telemetry)
        notes += await self.warm_pools.follow(self.fleets.all, seen.left_s() / 4.0)
        running = {f: vms for f in self.fleets.all if (vms := f.inventory.arriving())}
        if running:
            ready = await self._observer.ready(
                {f.name: probe_of(f) for f in running},
                {f.name: vms for f, vms in running.items()},
                min(seen.left_s(), self.settings.observe_timeout_s),
            )
            for fleet in running:
                fleet.inventory.mark_ready(ready[fleet.name], self.clock.now())
        self.recorder.note_with_tick(notes)

    async def _decide(
        self, seen: Observation, counts: Sequence[Counts], tick: int, now_s: float, early: EarlyTurn | None
    ) -> list[FleetTick]:
        many = len(counts) >= MANY_FLEETS or sum(each.provisioned for each in counts) >= SLICE_ROWS
        if many:
            await give_way()
        # Without a listing, nothing is scaled in.
        lists = bool(seen.listings)
        listed = [lists and not (f.listing_error or f.inventory.vanished) for f in self.fleets.all]
        allowed = decided = self.operators.allowed(now_s)
        if early is not None:
            decided = allowed.only([early.has(f.name) for f in self.fleets.all])
        samples, decision = self.fleets.decide(
            seen.readings, counts, tick, now_s, listed=listed, allowed=decided
        )
        self._readings = seen.readings
        rows, turns = [], Turns()
        if many:
            await give_way()
        values = self._lane_values.of(samples, decision, self.fleets.all)
        for lane, fleet in enumerate(self.fleets.all):
            if early is not None and not early.has(fleet.name):
                continue
            got, max_age_s = seen.readings[fleet.name], fleet.policy.signal.max_age_s
            told = complaint(got, values[lane], now_s, max_age_s, fleet.beyond)
            self._unread.follow(fleet, told, now_s)
            cost = fleet.charge(counts[lane].provisioned, now_s)
            fleet.evaluated_at_s = now_s
            real = fleet.real.charge(now_s) if fleet.real is not None else None
            row = fleet_tick(fleet, values[lane], counts[lane], cost, real)
            if (told := full_sentence(fleet, row, now_s)) is not row.sentence:
                row = replace(row, sentence=told)
            self.fleets.news += self._vanished.follow(row)
            rows.append(allowed.noted(row, lane))
            if turns.spent(FLEET_ROWS):
                await give_way()
        if many:
            await give_way()
        return rows

    def _select(self, record: TickRecord, early: EarlyTurn | None) -> list[ActionIntent]:
        intents: list[ActionIntent] = []
        may_refill = self.operators.allowed(record.at_s).may_refill
        for lane, row in enumerate(record.fleets):
            fleet = self.fleets.by_name[row.fleet]
            # Before the first complete listing the VMs are unknown, and the plan would provision all of them again.
            fleet.wants(row)
            pool = self.warm_pools.by_name[fleet.name]
            ending = bool(fleet.inventory.dismissed() or fleet.inventory.stuck())
            leaving = fleet.drains is not None and bool(fleet.drains.leaving)
            replaced = self.conditions.replacements(fleet, row.desired, row.in_service)
            asked = row.start or row.stop or row.provision or ending or leaving or replaced
            if asked and fleet.inventory.listed and record.at_s >= fleet.held_until_s:
                planned = partial(
                    plan,
                    fleet.inventory,
                    tick=record.tick,
                    now_s=record.at_s,
                    minimum_on_time_s=fleet.minimum_on_time_s,
                    early=0 if early is None else early.number,
                    may_stop=row.may_stop,
                    specs=partial(provision_options, fleet),
                )
                made = provisioned(fleet, row, record.at_s) - len(ready_for_demand(fleet, pool, row))
                wanted = WantedVms(row.start, row.stop, max(made, 0), row.sentence, replaced)
                chosen = choose(fleet, wanted, record.at_s, planned, may_stop=row.may_stop)
                intents += marked(chosen, acts=fleet.policy.act)
            if early is None and fleet.inventory.listed and record.at_s >= fleet.held_until_s:
                kept = pool.chores(fleet, row, record.tick, record.at_s, may_refill=bool(may_refill[lane]))
                intents += marked(kept, acts=fleet.policy.act)
        return intents

    def _account(self, record: TickRecord, counts: dict[str, Counts], early: EarlyTurn | None) -> None:
        learned = {}
        for fleet in self.fleets.all:
            if not fleet.inventory.start_times_s:
                continue
            started = fleet.inventory.take_started()
            if fleet.policy.act:
                learned[fleet.name] = started
            for seconds in fleet.inventory.take_start_times():
                self.telemetry.start_s.labels(fleet.name).observe(seconds)
                fleet.start_times_s.append(seconds)
        self.fleets.learning.started(learned, record.at_s)
        record = unrecorded(record) if self.recorder.trouble else record
        self.telemetry.ticked(record, counts)
        for name, budget in self._budgets:
            self.telemetry.budget(name, budget)
        if early is not None:
            self.telemetry.early_turns.labels(str(early.cause)).inc()
        self.last_record = record if early is None else _merged(self.last_record, record)
        if self._on_tick is not None:
            self._on_tick(record)

    # ── around the tick ────────────────────────────────────────────────────────────────────────────────

    async def _guarded_tick(self, tick: int, early: EarlyTurn | None = None) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        try:
            await self.tick(tick, early)
        except Exception as error:  # noqa: BLE001  one bug must not end the daemon; it is told in full below
            self._failed_ticks.tell(tick, error)
        else:
            self.notifier.ticked(self._sentence)
        self.telemetry.tick_s.observe(loop.time() - before)

    def _sentence(self) -> str:
        """Return the state of the daemon as one sentence for the service manager."""
        serving = sum(len(f.inventory.in_phase(Phase.IN_SERVICE)) for f in self.fleets.all)
        acting = sum(f.policy.act for f in self.fleets.all)
        stale_fleets = self.unhealthy()
        more = f"; {stale_fleets[0]}" if stale_fleets else ""
        fleets = counted(len(self.fleets.all), "fleet")
        return f"{fleets} ({acting} acting), {counted(serving, 'VM')} in service{more}"

    def _tick_number(self) -> int:
        return int((self.clock.now() + _GRID_TOLERANCE_S) // self.settings.tick_s)

    def _until_next_s(self, done_tick: int) -> float:
        """Return the seconds to the next point of the grid: at most one tick, even if the clock was set back."""
        wait_s = (done_tick + 1) * self.settings.tick_s - self.clock.now()
        return min(max(wait_s, 0.0), self.settings.tick_s)

    def _count_skipped(self, done_tick: int, tick: int) -> None:
        skipped = tick - done_tick - 1
        if done_tick >= 0 and skipped > 0:
            self.ticks_skipped += skipped
            self.telemetry.ticks_skipped.inc(skipped)
            self.telemetry.log.warning("tick_late", tick=tick, text=f"{skipped} ticks were skipped")

    def _clock_set_back(self, done_tick: int, tick: int) -> None:
        """Start over after the clock was set back: times noted before lie ahead, and would hold everything until then."""
        seconds = (done_tick - tick) * self.settings.tick_s
        text = f"set back by about {seconds:.0f} s; guards start over, orders in flight and what was learned are kept"
        self.telemetry.log.warning("clock_set_back", tick=tick, text=text)
        self.warm_pools.resuming.go_on(self.fleets.all, self.warm_pools.by_name, self.clock.now())
        for fleet in self.fleets.all:
            if fleet.drains is not None:
                fleet.drains.go_on(self.clock.now())
        before, by_s = [fleet.inventory for fleet in self.fleets.all], self._set_ahead.set_back_by_s()
        self.fleets.start_over(self.clock.now(), by_s)
        carry_over_orders([fleet.inventory for fleet in self.fleets.all], before, by_s, self.clock.now())
        self.acting.govern(self.fleets.by_name, anew=True)
        self.warm_pools.govern(self.fleets.by_name, anew=True)

    async def _announce(self) -> None:
        acting = [f.name for f in self.fleets.all if f.policy.act]
        shadow = [f.name for f in self.fleets.all if not f.policy.act]
        for fleet in self.fleets.all:
            self.telemetry.acts.labels(fleet.name).set(fleet.policy.act)
        text = f"acting: {', '.join(acting) or 'none'}; in shadow: {', '.join(shadow) or 'none'}"
        self.telemetry.log.info("daemon_started", text=text)
        await self.recorder.event("daemon_started", text, self.began_at_s)

    def _longest_lag_s(self) -> float:
        return max((f.inventory.patience.consistency_s for f in self.fleets.all), default=0.0)


def _merged(last: TickRecord | None, early: TickRecord) -> TickRecord:
    """Return the last record, with the rows of an early turn in place of its own."""
    rows = {row.fleet: row for record in (last, early) if record is not None for row in record.fleets}
    return replace(early, fleets=tuple(rows.values()))
