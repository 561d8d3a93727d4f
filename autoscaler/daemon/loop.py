"""The loop: one tick after the other, for all fleets at once.

    wake ─ observe ─ reconcile ─ fold, forecast, decide ─ select ─ record ─ act ─ account ─┐
      └──────────────────────────── the next point of the grid ◄───────────────────────────┘

Rules of this file: the order of a tick is the order of the lines in `tick`. Nothing is done that the journal
has not recorded. A failure is a value of one fleet; what still raises fails the tick, holds everything, and
the loop goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoscaler.daemon.actuator import Done, carry_out
from autoscaler.daemon.fleets import Fleet, Fleets, FleetSetup, fleet_tick
from autoscaler.daemon.inventory import Counts, Note, Phase
from autoscaler.daemon.observing import list_all, probe_all, read_all
from autoscaler.daemon.planning import Wanted, plan
from autoscaler.daemon.sentences import sentence
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import JournalError
from autoscaler.ports import (
    ActionIntent,
    ActionRecord,
    Clock,
    FleetReadings,
    FleetTick,
    Journal,
    Listing,
    Outcome,
    OutcomeKind,
    TickRecord,
    Verb,
    Vm,
    VmState,
)

_DENIED_HOLD_S = 60.0
"""After the provider denied us, the fleet's actions wait this long: repeating does not help, a person does."""
_PROVISION_HOLD_S = 180.0
"""After a provisioning failed for want of room or for its template, the next one waits this long."""
_GRID_TOLERANCE_S = 1e-6


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop runs.

    Attributes:
        tick_s: Length of a tick, in seconds of the clock.
        observe_timeout_s: Longest wait for listings and for readings, in seconds of the event loop.
        act_timeout_s: Longest wait for one provider call, likewise.
        act_wait_s: Longest time that a tick waits for its calls, likewise; later ones are settled when they
            come back, so that a slow account does not cost the other fleets their ticks.
    """

    tick_s: float = 10.0
    observe_timeout_s: float = 5.0
    act_timeout_s: float = 30.0
    act_wait_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Observed:
    """The raw inputs of one tick."""

    readings: dict[str, FleetReadings]
    listings: dict[int, Listing]


class Daemon:
    """Runs fleets.

    Args:
        clock: Time.
        setups: The fleets with their adapters.
        journal: Where ticks and intents are recorded.
        telemetry: Metrics and log.
        settings: Lengths and limits.
        on_tick: Called after each tick with its record, for displays and tests.
    """

    def __init__(
        self,
        clock: Clock,
        setups: Sequence[FleetSetup],
        journal: Journal,
        telemetry: Telemetry,
        settings: LoopSettings | None = None,
        on_tick: Callable[[TickRecord], None] | None = None,
    ) -> None:
        self.clock = clock
        self.settings = settings or LoopSettings()
        self.fleets = Fleets(setups, self.settings.tick_s, clock.now())
        self.journal = journal
        self.telemetry = telemetry
        self.began_at_s = clock.now()
        self.ticks_skipped = 0
        self.last_record: TickRecord | None = None
        self._on_tick = on_tick
        self._stopping = asyncio.Event()
        self._left_open: dict[int, ActionRecord] = {}
        self._acting: set[asyncio.Task[None]] = set()

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Tick until `stop` is called; the tick and the calls under way are finished."""
        await self._recall_open_actions()
        self._announce()
        done_tick = -1
        while not self._stopping.is_set():
            tick = self._tick_number()
            if tick < done_tick:
                self._clock_set_back(done_tick, tick)
                done_tick = tick - 1
            if tick > done_tick:
                self._count_skipped(done_tick, tick)
                await self._guarded_tick(tick)
                done_tick = tick
            await self._sleep_to(self.clock.monotonic() + self._to_next(done_tick))
        await self._finish_acting()

    def stop(self) -> None:
        """End the loop after the tick under way; VMs stay as they are."""
        if not self._stopping.is_set():
            self.telemetry.log.info("daemon_stopping", text="VMs in service stay as they are")
        self._stopping.set()

    async def tick(self, tick: int) -> TickRecord:
        """One turn of the loop, for all fleets."""
        seen = await self._observe()
        await self._reconcile(seen)
        now_s = self.clock.now()
        counts = [f.inventory.counts(now_s, f.minimum_on_time_s) for f in self.fleets.all]
        rows = self._decide(seen, counts, tick, now_s)
        record = TickRecord(tick, now_s, tuple(rows))
        intents = self._select(record)
        action_ids = await self._record(record, intents)
        await self._act(intents, action_ids)
        self._account(record, dict(zip(self.fleets.by_name, counts, strict=True)))
        return record

    # ── steps of a tick ────────────────────────────────────────────────────────────────────────────────

    async def _observe(self) -> Observed:
        serving = {f.name: [t.vm for t in f.inventory.in_phase(Phase.IN_SERVICE)] for f in self.fleets.all}
        timeout_s = self.settings.observe_timeout_s
        listings, readings = await asyncio.gather(
            list_all((f.provider for f in self.fleets.all), self.clock, timeout_s),
            read_all({f.name: f.source for f in self.fleets.all}, serving, timeout_s),
        )
        return Observed(readings, listings)

    async def _reconcile(self, seen: Observed) -> None:
        now_s = self.clock.now()
        for key, listing in seen.listings.items():
            if not listing.complete:
                self.telemetry.listing_errors.inc()
                self.telemetry.log.warning("listing_failed", text=listing.error)
            by_fleet: dict[str, list[Vm]] = {}
            for vm in listing.vms:
                by_fleet.setdefault(vm.fleet, []).append(vm)
            for fleet in self.fleets.all:
                if id(fleet.provider) == key:
                    notes = fleet.inventory.reconcile(listing, by_fleet.get(fleet.name, ()), now_s)
                    await self._note(notes, now_s)
        await self._settle_left_open(seen, now_s)
        running = {f.name: [t.vm for t in f.inventory.in_phase(Phase.RUNNING)] for f in self.fleets.all}
        ready = await probe_all(
            {f.name: f.probe for f in self.fleets.all}, running, self.settings.observe_timeout_s
        )
        for name, ids in ready.items():
            self.fleets.by_name[name].inventory.mark_ready(ids, self.clock.now())

    def _decide(self, seen: Observed, counts: Sequence[Counts], tick: int, now_s: float) -> list[FleetTick]:
        listed = {f.name: seen.listings[id(f.provider)].complete for f in self.fleets.all}
        samples, decision = self.fleets.decide(seen.readings, counts, tick, now_s, listed=listed)
        rows = []
        for lane, fleet in enumerate(self.fleets.all):
            self._hear_source(fleet, seen.readings[fleet.name].error)
            charge = fleet.meter.charge(
                fleet.inventory.vms.values(), counts[lane].provisioned, fleet.new_vms, now_s
            )
            fleet.new_vms = 0
            fleet.evaluated_at_s = now_s
            row = fleet_tick(lane, fleet, samples, decision, counts[lane], charge.money)
            rows.append(replace(row, sentence=_held(fleet, row, now_s) + sentence(row)))
        return rows

    def _select(self, record: TickRecord) -> list[ActionIntent]:
        intents: list[ActionIntent] = []
        for row in record.fleets:
            fleet = self.fleets.by_name[row.fleet]
            if record.at_s >= fleet.held_until_s:
                intents += plan(
                    fleet.inventory,
                    Wanted(row.start, row.stop, _provision(fleet, row, record.at_s), row.sentence),
                    tick=record.tick,
                    now_s=record.at_s,
                    minimum_on_time_s=fleet.minimum_on_time_s,
                )
        return intents

    async def _record(self, record: TickRecord, intents: list[ActionIntent]) -> tuple[int, ...]:
        """Make tick and intents durable. Where that fails, the intents are dropped: nothing unrecorded is done."""
        try:
            return await self.journal.record_tick(record, intents)
        except JournalError as error:
            self.telemetry.journal_errors.inc()
            self.telemetry.log.error("journal_failed", text=f"{error}; {len(intents)} actions are held")
            intents.clear()
            return ()

    async def _act(self, intents: Sequence[ActionIntent], action_ids: Sequence[int]) -> None:
        numbered = list(zip(action_ids, intents, strict=True))
        for verbs in ((Verb.START, Verb.PROVISION), (Verb.STOP,)):
            now_s = self.clock.now()
            calls = set()
            for number, intent in numbered:
                if intent.verb not in verbs:
                    continue
                inventory = self.fleets.by_name[intent.fleet].inventory
                inventory.sent(intent.verb, intent.vm_ids, intent.count, number, now_s)
                call = asyncio.create_task(self._carry_out(number, intent))
                call.add_done_callback(self._acted)
                calls.add(call)
            self._acting |= calls
            if calls:
                await asyncio.wait(calls, timeout=self.settings.act_wait_s)

    async def _carry_out(self, action_id: int, intent: ActionIntent) -> None:
        fleet = self.fleets.by_name[intent.fleet]
        done = await carry_out(
            fleet.provider,
            self.clock,
            action_id,
            intent,
            spec=fleet.spec,
            timeout_s=self.settings.act_timeout_s,
        )
        await self._settle(done)

    def _acted(self, call: asyncio.Task[None]) -> None:
        self._acting.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            text = f"{type(error).__name__}: {error}; a listing will tell what became of it, please report"
            self.telemetry.log.error("act_failed", text=text)

    async def _finish_acting(self) -> None:
        """Wait for the calls under way; what is open after that is settled by the next run."""
        if self._acting:
            await asyncio.wait(self._acting, timeout=self.settings.act_timeout_s)
        for call in self._acting:
            call.cancel()

    async def _settle(self, done: Done) -> None:
        fleet = self.fleets.by_name[done.intent.fleet]
        self.telemetry.acted(done)
        if done.intent.verb is Verb.PROVISION:
            accepted = [o for o in done.outcomes if o.kind is OutcomeKind.ACCEPTED and o.vm_id]
            fleet.new_vms += len(accepted)
            new = {o.vm_id: _new_vm(fleet, o.vm_id, done.received_s) for o in accepted}
            fleet.inventory.provisioned(done.outcomes, new, done.action_id, done.received_s)
            failed = [o for o in done.outcomes if o.kind is not OutcomeKind.ACCEPTED]
            if any(o.kind in (OutcomeKind.NO_CAPACITY, OutcomeKind.REFUSED) for o in failed):
                fleet.provision_held_until_s = done.received_s + _PROVISION_HOLD_S
            notes = [Note("provision_failed", fleet.name, f"{o.kind} {o.code}: {o.message}") for o in failed]
        else:
            notes = fleet.inventory.settle(done.intent.verb, done.outcomes, done.sent_s, done.received_s)
        denied = next((o for o in done.outcomes if o.kind is OutcomeKind.DENIED), None)
        if denied is not None:
            fleet.held_until_s = done.received_s + _DENIED_HOLD_S
            text = f"the provider denies us: {denied.code} {denied.message}"
            self.telemetry.log.error("acting_held", fleet=fleet.name, text=text)
        await self._note(notes, done.received_s)
        await self._record_outcomes(done.action_id, done.received_s, done.outcomes)

    async def _record_outcomes(self, action_id: int, at_s: float, outcomes: Sequence[Outcome]) -> None:
        try:
            await self.journal.record_outcomes(action_id, at_s, outcomes)
        except JournalError as error:
            self.telemetry.journal_errors.inc()
            self.telemetry.log.error("journal_failed", text=str(error))

    def _account(self, record: TickRecord, counts: dict[str, Counts]) -> None:
        for fleet in self.fleets.all:
            for seconds in fleet.inventory.take_start_times():
                self.telemetry.start_s.labels(fleet.name).observe(seconds)
                fleet.start_times_s.append(seconds)
        self.telemetry.ticked(record, counts)
        self.last_record = record
        if self._on_tick is not None:
            self._on_tick(record)

    # ── around the tick ────────────────────────────────────────────────────────────────────────────────

    async def _guarded_tick(self, tick: int) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        try:
            await self.tick(tick)
        except Exception as error:
            self.telemetry.ticks_failed.inc()
            self.telemetry.log.exception(
                "tick_failed",
                tick=tick,
                text=f"{type(error).__name__}: {error}; nothing is done, please report",
            )
        self.telemetry.tick_s.observe(loop.time() - before)

    def _tick_number(self) -> int:
        return int((self.clock.now() + _GRID_TOLERANCE_S) // self.settings.tick_s)

    def _to_next(self, done_tick: int) -> float:
        """Seconds to the next point of the grid; never longer than a tick, should the clock be set back."""
        wait_s = (done_tick + 1) * self.settings.tick_s - self.clock.now()
        return min(max(wait_s, 0.0), self.settings.tick_s)

    async def _sleep_to(self, monotonic_s: float) -> None:
        sleep = asyncio.ensure_future(self.clock.sleep_until(monotonic_s))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({sleep, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            stop.cancel()

    def _count_skipped(self, done_tick: int, tick: int) -> None:
        skipped = tick - done_tick - 1
        if done_tick >= 0 and skipped > 0:
            self.ticks_skipped += skipped
            self.telemetry.ticks_skipped.inc(skipped)
            self.telemetry.log.warning("tick_late", tick=tick, text=f"{skipped} ticks were skipped")

    def _clock_set_back(self, done_tick: int, tick: int) -> None:
        """Times noted by the old clock lie ahead and would hold everything until they come."""
        seconds = (done_tick - tick) * self.settings.tick_s
        text = f"the clock was set back by about {seconds:.0f} s; guards and orders in flight begin anew"
        self.telemetry.log.warning("clock_set_back", tick=tick, text=text)
        self.fleets.begin_anew(self.clock.now())

    async def _note(self, notes: Sequence[Note], at_s: float) -> None:
        for note in notes:
            self.telemetry.log.warning("vm", fleet=note.fleet, kind=note.kind, text=note.text)
            try:
                await self.journal.record_event(at_s, note.kind, note.fleet, note.text)
            except JournalError as error:
                self.telemetry.journal_errors.inc()
                self.telemetry.log.error("journal_failed", text=str(error))

    def _hear_source(self, fleet: Fleet, error: str) -> None:
        if error and error != fleet.source_error:
            self.telemetry.log.warning("source_failed", fleet=fleet.name, text=error)
        elif fleet.source_error and not error:
            self.telemetry.log.info("source_recovered", fleet=fleet.name, text="metrics are read again")
        fleet.source_error = error

    def _announce(self) -> None:
        acting = [f.name for f in self.fleets.all if f.policy.act]
        shadow = [f.name for f in self.fleets.all if not f.policy.act]
        for fleet in self.fleets.all:
            self.telemetry.acts.labels(fleet.name).set(fleet.policy.act)
        text = f"acting: {', '.join(acting) or 'none'}; in shadow: {', '.join(shadow) or 'none'}"
        self.telemetry.log.info("daemon_started", text=text)

    # ── what an earlier run left ───────────────────────────────────────────────────────────────────────

    async def _recall_open_actions(self) -> None:
        self._left_open = {action.id: action for action in await self.journal.open_actions()}

    async def _settle_left_open(self, seen: Observed, now_s: float) -> None:
        """Close actions of an earlier run by what a complete listing shows of their VMs.

        Until a listing cannot be older than the call, it is held like one of unknown outcome.
        """
        for action in list(self._left_open.values()):
            intent = action.intent
            fleet = self.fleets.by_name.get(intent.fleet)
            if fleet is not None:
                listing = seen.listings[id(fleet.provider)]
                may_lag = listing.requested_at_s < action.at_s + fleet.inventory.patience.consistency_s
                if may_lag and action.at_s <= now_s:
                    fleet.inventory.recall(intent.verb, intent.vm_ids, action.id, action.at_s)
                    continue
                if not listing.complete:
                    continue
            del self._left_open[action.id]
            text = f"{intent.verb} of {intent.count}: {_found(fleet, intent)}"
            self.telemetry.log.warning("action_settled", fleet=intent.fleet, text=text)
            await self._note([Note("action_settled", intent.fleet, text)], now_s)
            await self._record_outcomes(action.id, now_s, ())


def _held(fleet: Fleet, row: FleetTick, now_s: float) -> str:
    """Why the rest of the sentence is not done; empty where it is."""
    if now_s < fleet.held_until_s and (row.start or row.stop or row.provision):
        return "held, since the provider denies us: "
    if row.provision > _provision(fleet, row, now_s):
        return "no VM is provisioned, since it failed lately: "
    return ""


def _provision(fleet: Fleet, row: FleetTick, now_s: float) -> int:
    return row.provision if now_s >= fleet.provision_held_until_s else 0


def _found(fleet: Fleet | None, intent: ActionIntent) -> str:
    if fleet is None:
        return "the fleet is no longer in the policies"
    states = [f"{i} is {fleet.inventory.vms[i].vm.state}" for i in intent.vm_ids if i in fleet.inventory.vms]
    return ", ".join(states) or "none of its VMs is listed"


def _new_vm(fleet: Fleet, vm_id: str, now_s: float) -> Vm:
    p = fleet.policy.provision
    vm_type = (p.vm_type if p else None) or ""
    return Vm(vm_id, fleet.name, VmState.PENDING, vm_type, "", None, now_s, "")
