"""Days of the whole daemon with a dozen or more fleets and random troubles, on virtual time, and checks that must always hold.

Real: the loop, its background tasks, wiring, reloads between ticks, operators' pauses, the journal on a disk with its
retention, shadow fleets, traces as sources, the world with faults. Only the provider and the sources are replaced, by
ones with troubles of their own.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.calls import CALLS_KEPT, CallRecord
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from autoscaler.cloud.world import World
from autoscaler.config.policy import Policy, policy_from
from autoscaler.core.types import Reason, Stage
from autoscaler.daemon.fleets import START_TIMES_KEPT
from autoscaler.daemon.lifecycle import Retention, run_to_the_end
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.tracked import Phase
from autoscaler.errors import ProviderError
from autoscaler.ports import PAUSABLE, FleetReadings, FleetTick, OutcomeKind, TickRecord, VmState
from autoscaler.providers.memory import MemoryProvider
from autoscaler.store import SqliteJournal
from autoscaler.traces.trace import Trace, TraceKind
from autoscaler.wiring import Wiring
from autoscaler.wiring_sources import trace_source
from tests.soak.sizes import HOURS, Sizes, measured
from tests.soak.troubles import DAY_S, BadDays, Kind, Trouble, bad_days

ORIGIN_S = 1_795_478_400.0  # a midnight
PER_VM = 100.0
VMS = 10
TRACE_STEP_S = 60.0
ZONES = "abc"
FAILURES = frozenset({"tick_failed", "act_failed", "journal_failed", "task_failed", "journal_recovered"})
"""Events that no trouble of this soak may cause."""


@dataclass(frozen=True, slots=True)
class Soak:
    """What to run.

    Attributes:
        days: Length of the run.
        seed: Seed of troubles, traffic and cloud.
        fleets: Number of fleets. Every fifth is in shadow, every fourth may make new VMs.
        tick_s: Length of a tick.
        retention_s: How long the journal keeps ticks.
        sample_s: Time between two measurements.
        flat_from_s: Time after which nothing may grow.
    """

    days: float
    seed: int = 1
    fleets: int = 20
    tick_s: float = 10.0
    retention_s: float = 6 * 3600.0
    sample_s: float = 3600.0
    flat_from_s: float = DAY_S

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fleets."""
        return tuple(f"fleet-{number:02d}" for number in range(self.fleets))


@dataclass
class Soaked:
    """Results of a run."""

    ticks: int = 0
    skipped: int = 0
    seconds: float = 0.0
    samples: list[Sizes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Decisions that no trouble justifies, and differences between ledger and cloud at the end."""
    doubles: list[str] = field(default_factory=list)
    """Starts of VMs that were already starting or running."""
    met: Counter[str] = field(default_factory=Counter)
    """How often each trouble occurred."""
    outcomes: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    wanted: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)


class JumpingClock(VirtualClock):
    """A clock that is set now and then."""

    def __init__(self, jumps: tuple[Trouble, ...]) -> None:
        super().__init__(ORIGIN_S)
        self._jumps = jumps

    def now(self) -> float:
        at_s = self.monotonic()
        ahead_s = 0.0
        for jump in self._jumps:
            if at_s >= jump.start_s:
                ahead_s += jump.draw if jump.kind is Kind.CLOCK_AHEAD else -jump.draw
        return ORIGIN_S + at_s + ahead_s


class Windows:
    """Looks up the troubles of one adapter, in order of time."""

    def __init__(self, troubles: tuple[Trouble, ...], met: Counter[str]) -> None:
        self._waiting = troubles
        self._next = 0
        self._open: list[Trouble] = []
        self._met = met

    def at(self, second: float) -> Trouble | None:
        """The trouble at this time, or None."""
        while self._next < len(self._waiting) and self._waiting[self._next].start_s <= second:
            self._open.append(self._waiting[self._next])
            self._next += 1
        if self._open:
            self._open = [trouble for trouble in self._open if trouble.end_s > second]
        if not self._open:
            return None
        self._met[self._open[0].kind.value] += 1
        return self._open[0]


class MoodySource:
    """A source that plays a trace, with troubles."""

    answers_at_once = True

    def __init__(self, source, clock, windows: Windows) -> None:
        self._source, self._clock, self._windows = source, clock, windows

    async def read(self, vms):
        trouble = self._windows.at(self._clock.monotonic())
        if trouble is None:
            return await self._source.read(vms)
        match trouble.kind:
            case Kind.SOURCE_HANGS:
                await asyncio.Event().wait()
            case Kind.SOURCE_DEAF:
                await _deaf(self._clock, 20.0)
            case Kind.SOURCE_RAISES:
                raise ZeroDivisionError("a source with a bug")
            case Kind.SOURCE_NONSENSE:
                ids = tuple(vm.id for vm in vms)
                number = (np.nan, np.inf, -1.0)[int(trouble.draw * 3)]
                return FleetReadings(ids, np.full(len(ids), number), np.full(len(ids), self._clock.now()))
        return FleetReadings((), np.empty(0), np.empty(0), "the exporter is down")

    async def close(self) -> None:
        await self._source.close()


async def _deaf(clock, seconds: float) -> None:
    """Continue for this long and ignore cancellation."""
    until_s = clock.monotonic() + seconds
    while clock.monotonic() < until_s:
        with suppress(asyncio.CancelledError):
            await clock.sleep_until(until_s)


class MoodyProvider(MemoryProvider):
    """The in-process provider with troubles. It notes starts of VMs that were already on."""

    def __init__(self, world: World, clock, days: BadDays, soaked: Soaked) -> None:
        super().__init__(world, clock)
        self._listings = Windows(days.of(Kind.LISTING_HANGS, Kind.LISTING_RAISES), soaked.met)
        self._calls = Windows(days.of(Kind.CALLS_HANG), soaked.met)
        self._soaked = soaked

    async def list_vms(self):
        trouble = self._listings.at(self._clock.monotonic())
        if trouble is not None and trouble.kind is Kind.LISTING_HANGS:
            await asyncio.Event().wait()
        if trouble is not None:
            raise ConnectionResetError("a provider with a bug")
        return await super().list_vms()

    async def start(self, vm_ids):
        outcomes = await super().start(vm_ids)
        self._soaked.doubles += [
            f"{o.vm_id} at {self._clock.monotonic():.0f}"
            for o in outcomes
            if o.kind is OutcomeKind.ACCEPTED and o.previous_state in (VmState.PENDING, VmState.RUNNING)
        ]
        return await self._noted(outcomes)

    async def stop(self, vm_ids):
        return await self._noted(await super().stop(vm_ids))

    async def provision(self, spec, count, token):
        return await self._noted(await super().provision(spec, count, token))

    async def _noted(self, outcomes):
        self._soaked.outcomes.update(str(outcome.kind) for outcome in outcomes)
        if self._calls.at(self._clock.monotonic()) is not None:
            # The call was carried out, but its answer is lost.
            await asyncio.Event().wait()
        return outcomes


class Log:
    """Counts events, and keeps the failures of the program itself."""

    def __init__(self, soaked: Soaked) -> None:
        self._soaked = soaked

    def info(self, event: str, **facts: object) -> None:
        self._soaked.events[event] += 1
        if event in FAILURES:
            self._soaked.failures.append(f"{event}: {facts.get('text', '')}")

    debug = warning = error = exception = info


def policy_of(name: str, number: int, *, changed: float = 0.0) -> Policy:
    """The policy of a fleet, as an operator may have changed it."""
    data: dict[str, object] = {
        "fleet": name,
        "act": number % 5 != 4,
        "signal": {
            "kind": "throughput" if number % 2 else "total",
            "source": "trace",
            "max_age": "150s",
            "trace": {},
        },
        "vm": {"capacity": f"{PER_VM:.0f}/s", "start_time": "30s", "stop_time": "60s"},
        "readiness": {"probe": "status_checks"},
        "bounds": {"minimum": 1, "maximum": VMS - round(3.0 * changed)},
        "reactive": {"headroom": f"{10 + round(40 * changed)}%"},
        "forecast": {},
    }
    if number % 4 == 1:
        data["provision"] = {"launch_template": name, "maximum": VMS}
    return policy_from(data)


def traffic(soak: Soak, number: int) -> Trace:
    """Make a trace in work per second, with two peaks a day and crowds."""
    rng = np.random.default_rng((soak.seed, number))
    # Longer than the run, by as much as jumps of the clock may add.
    steps = round((soak.days * DAY_S + 2 * 3600.0) / TRACE_STEP_S)
    at_s = TRACE_STEP_S * np.arange(steps)
    level = 2.0 + 1.2 * np.sin(2 * np.pi * (at_s / DAY_S + number / soak.fleets))
    for start in rng.integers(0, steps, max(1, round(8 * soak.days))):
        length = int(rng.integers(3, 40))
        level[start : start + length] += rng.uniform(0.5, 4.0)
    work = np.clip(PER_VM * level * rng.uniform(0.95, 1.05, steps), 0.0, PER_VM * (VMS - 2))
    return Trace.build(
        ORIGIN_S - 3600.0 + at_s, work, kind=TraceKind.GAUGE, name=f"{number}", interval_s=TRACE_STEP_S
    )


class Watch:
    """Checks at every tick what must hold for each fleet, whatever goes wrong elsewhere."""

    def __init__(self, soak: Soak, soaked: Soaked) -> None:
        self._soak, self._soaked = soak, soaked
        self._last_wish: dict[str, int] = {}

    def __call__(self, record: TickRecord) -> None:
        soaked = self._soaked
        soaked.ticks += 1
        for row in record.fleets:
            sane = (
                (not row.start or row.start <= row.stopped)
                and row.stop <= row.stoppable <= row.in_service
                and row.desired >= 0
                and row.in_service + row.starting + row.stopping + row.stopped <= row.provisioned
                # Without metrics nothing is stopped, except under a lowered maximum. After a while, the fleet may fall back
                # to what the last good metrics asked for.
                and (
                    row.stop == 0
                    or row.freshness == 0
                    or Reason.MAXIMUM in row.reasons
                    or self._given_back(row)
                )
                and not (row.stop and row.start)
            )
            if not sane:
                soaked.wrong.append(
                    f"tick {record.tick}: {row}, after a wish of {self._last_wish.get(row.fleet)}"
                )
            if row.freshness == 0 and row.coverage >= 1.0:
                self._last_wish[row.fleet] = row.stages[Stage.STABILISATION]
            if row.freshness == 0:
                soaked.wanted[row.fleet] += row.demand
                soaked.served[row.fleet] += min(row.demand, row.capacity)

    def _given_back(self, row: FleetTick) -> bool:
        last = self._last_wish.get(row.fleet, row.in_service)
        return Reason.DATA_FALLBACK in row.reasons and row.in_service - row.stop >= last


async def _soaking(soak: Soak, state_dir: Path) -> Soaked:
    soaked = Soaked()
    days = bad_days(soak.seed, soak.days, soak.names, ZONES)
    clock = JumpingClock(days.of(Kind.CLOCK_AHEAD, Kind.CLOCK_BACK))
    cloud = CloudSetup(
        seed=soak.seed,
        fleets=tuple(FleetSetup(name, VMS) for name in soak.names),
        faults=days.faults,
        zones=ZONES,
    )
    world = cloud.world(ORIGIN_S)
    # Fill the log of calls at once, so that it cannot look like growth.
    for number in range(CALLS_KEPT):
        world.api.calls.append(CallRecord(ORIGIN_S - number, "DescribeInstances", 0))
    provider = MoodyProvider(world, clock, days, soaked)
    number_of = {name: number for number, name in enumerate(soak.names)}

    def source_of(policy: Policy) -> MoodySource:
        trace = traffic(soak, number_of[policy.fleet])
        played = trace_source(policy, clock, trace, seed=soak.seed, offset_s=0.0)
        windows = Windows(
            days.of(*(k for k in Kind if k.name.startswith("SOURCE_")), fleet=policy.fleet), soaked.met
        )
        return MoodySource(played, clock, windows)

    policies = {name: policy_of(name, number) for name, number in number_of.items()}
    wiring = Wiring(provider, clock, source_of)
    wired = wiring.wire(tuple(policies.values()))
    journal = SqliteJournal(state_dir, inline=True)
    telemetry = Telemetry(log=Log(soaked))
    settings = LoopSettings(tick_s=soak.tick_s)
    daemon = Daemon(clock, wired.setups, journal, telemetry, settings, Watch(soak, soaked))
    for fleet in daemon.fleets.all:
        # The same for start times, which would take weeks to fill up.
        fleet.start_times_s.extend(30.0 + 0.001 * number for number in range(START_TIMES_KEPT))
    beside = [
        asyncio.create_task(part)
        for part in (
            _reloaded(daemon, wiring, policies, number_of, days, clock, soaked),
            _paused(daemon, days, clock, soaked),
            _by_hand(world, days, clock, soaked),
            _sampled(soak, daemon, journal, clock, soaked),
        )
    ]
    began_s = time.perf_counter()
    retention = Retention(soak.retention_s, 2**40)
    await run_to_the_end(daemon, retention=retention, for_s=soak.days * DAY_S + 0.5 * soak.tick_s)
    soaked.seconds = time.perf_counter() - began_s
    soaked.skipped = daemon.ticks_skipped
    await asyncio.gather(*beside)
    _compare(daemon, world, clock.now(), soaked)
    soaked.wrong += [f"action {action.id} was left open" for action in await journal.recent_actions(math.inf)]
    await journal.close()
    return soaked


def run(soak: Soak) -> Soaked:
    """Run it on virtual time, with the journal on an in-memory disk if there is one.

    Every tick waits for the disk, which would take most of the time and is not the subject here.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        return run_virtual(partial(_soaking, soak, Path(folder)))


async def _until(clock, trouble: Trouble, soaked: Soaked) -> None:
    await clock.sleep_until(trouble.start_s)
    soaked.met[trouble.kind.value] += 1


async def _reloaded(daemon, wiring, policies, number_of, days, clock, soaked) -> None:
    """Change policies. Sometimes a fleet moves from shadow to acting or back, or is absent until the next reload."""
    for reload in days.of(Kind.RELOAD) or _all(days, Kind.RELOAD):
        await _until(clock, reload, soaked)
        name = reload.fleet
        changed = policy_of(name, number_of[name], changed=reload.draw)
        for fleet, policy in policies.items():
            # Undo earlier moves, so that only one fleet is moved at a time and the load stays the same from day to day.
            act = policy_of(fleet, number_of[fleet]).act
            if policy.act != act:
                policies[fleet] = policy.model_copy(update={"act": act})
        flips = reload.draw < 0.2
        policies[name] = changed.model_copy(update={"act": changed.act != flips})
        away = name if 0.2 <= reload.draw < 0.3 else None
        wired = wiring.wire(
            tuple(p for fleet, p in policies.items() if fleet != away), [f.setup for f in daemon.fleets.all]
        )
        await daemon.take_over(wired.setups)
        for adapter in wired.retired:
            await adapter.close()
    await clock.sleep_until(_quiet_from_s(days))
    final = {name: policy_of(name, number) for name, number in number_of.items()}
    wired = wiring.wire(tuple(final.values()), [f.setup for f in daemon.fleets.all])
    await daemon.take_over(wired.setups)


def _quiet_from_s(days: BadDays) -> float:
    ends = [trouble.end_s for trouble in days.troubles] + [fault.end_s for fault in days.faults]
    return max(ends) + 60.0


def _all(days: BadDays, kind: Kind) -> tuple[Trouble, ...]:
    return tuple(sorted((t for t in days.troubles if t.kind is kind), key=lambda t: t.start_s))


async def _paused(daemon, days, clock, soaked) -> None:
    for pause in _all(days, Kind.PAUSE):
        await _until(clock, pause, soaked)
        if pause.fleet not in daemon.fleets.by_name:
            continue
        verb = PAUSABLE[int(pause.draw * len(PAUSABLE))]
        ends_s = clock.now() + 300.0 + 1500.0 * pause.draw
        await daemon.operators.pause(ChangeRequest((pause.fleet,), "soak", "an exercise", ends_s), [verb])


async def _by_hand(world, days, clock, soaked) -> None:
    """Change VMs as a person would in the console."""
    hands = sorted(
        (*_all(days, Kind.TERMINATED), *_all(days, Kind.STOPPED)), key=lambda trouble: trouble.start_s
    )
    for hand in hands:
        await _until(clock, hand, soaked)
        stopping = hand.kind is Kind.STOPPED
        number = int(hand.fleet.rpartition("-")[2])
        # Only fleets that may make new VMs lose some permanently.
        fleet = hand.fleet if stopping else f"fleet-{number - number % 4 + 1:02d}"
        state = State.RUNNING if stopping else State.STOPPED
        found = [view.id for view in world.views(clock.now(), fleet) if view.state is state]
        if found:
            with suppress(ProviderError):
                call = world.stop if stopping else world.terminate
                call(clock.now(), [found[int(hand.draw * len(found))]])


async def _sampled(soak: Soak, daemon, journal, clock, soaked: Soaked) -> None:
    for number in range(1, round(soak.days * DAY_S / soak.sample_s)):
        # In the middle between two ticks, when nothing is in progress.
        at_s = number * soak.sample_s + 0.5 * soak.tick_s
        await clock.sleep_until(at_s)
        sample = measured(at_s, daemon, await journal.size_bytes(), (Soaked, World))
        # The notes of earlier hours must not look like growth themselves.
        if len(soaked.samples) > HOURS and not _near(soak, soaked.samples[-HOURS].at_s):
            soaked.samples[-HOURS].containers.clear()
        soaked.samples.append(sample)


def _near(soak: Soak, at_s: float) -> bool:
    return soak.flat_from_s - HOURS * soak.sample_s <= at_s <= soak.flat_from_s + soak.sample_s


def _compare(daemon: Daemon, world: World, now_s: float, soaked: Soaked) -> None:
    """Check, at the end, that ledger and cloud agree for the fleets that act."""
    for fleet in daemon.fleets.all:
        if not fleet.policy.act:
            continue
        truth: Mapping[str, State] = {v.id: v.state for v in world.views(now_s, fleet.name)}
        truth = {vm_id: state for vm_id, state in truth.items() if state is not State.TERMINATED}
        known = {
            vm_id: _STATES[t.phase] for vm_id, t in fleet.inventory.vms.items() if t.phase is not Phase.LOST
        }
        soaked.wrong += [
            f"{fleet.name}: {vm_id} is {known.get(vm_id)} in the ledger and {truth.get(vm_id)} in the cloud"
            for vm_id in sorted(known.keys() | truth.keys())
            if truth.get(vm_id) not in (known.get(vm_id) or ())
        ]
        if fleet.inventory.unsettled_actions():
            soaked.wrong.append(f"{fleet.name} has unsettled actions")


_STATES = {
    Phase.PROVISIONING: (State.PENDING, State.RUNNING),
    Phase.STARTING: (State.PENDING, State.RUNNING),
    Phase.RUNNING: (State.RUNNING,),
    Phase.IN_SERVICE: (State.RUNNING,),
    Phase.DRAINING: (State.RUNNING,),
    Phase.STOPPING: (State.RUNNING, State.STOPPING, State.STOPPED),
    Phase.STOPPED: (State.STOPPED,),
}
