"""Kills a daemon at each of its awaits: whatever would survive is copied there, and a new daemon begins with the copy.

Every task of the loop is stepped through a wrapper that inspects the world each time a task has given up
control. What `kill -9` would leave at that moment is the files of the state directory, the cloud, and calls
on their way to it. Nothing of the daemon is told of the end: no `finally` runs for what was copied.
"""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import shutil
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.faults import Fault
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.vms import DEFAULT_VM_TYPE, State
from autoscaler.cloud.world import World
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.pool_tags import TERMINABLE_TAG
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.errors import ProviderError
from autoscaler.ports import ChangeRecord, OutcomeKind, VmState
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import JournalReader, open_journal
from tests.daemon.builders import EXACT, ORIGIN_S, Demand, Log, policy, steady

HERE = "autoscaler/"
"""Part of the path of those frames that give a place its name."""
FILES = ("journal.sqlite", "journal.sqlite-wal", "journal.mark", "journal.operators")
OPERATORS = FILES[3]
OLD_IMAGE = "ami-0000000a"
"""Image of the VMs that are out of date."""


@dataclass(frozen=True)
class Scenario:
    """What happens around the daemon; seconds count from the origin.

    Attributes:
        stopped, running: VMs at the start.
        demand: (from second, work per second); one VM does 100.
        end_s: Time by which all has been quiet for long enough.
        vms: Number of VMs that must exist at the end.
        serving: Number of those that must serve.
        faults: Faults of the cloud.
        there_s, back_s: Time that a call takes to the cloud, and its answer back.
        provisions: Whether the policy has a launch template.
        commands: Commands of operators: (second, method of Operators, arguments…). Commands that a crash
            prevents are not repeated.
        words: Commands for the warm pool: (second, method of PoolWords). They concern a VM that is stopped at that
            time: the last one for `evict`, otherwise the first. `refresh` concerns the whole pool; the VMs that are
            stopped at the start are then made from an old image. Evicted VMs are not counted in `vms`.
        pool: Fewest VMs that the warm pool must hold.
        more: VMs that may exist beyond `vms`: a pool is refilled before all VMs are back that a crowd took from it.
        room: How many VMs may run at once; None for no limit.
        unread: First and last second of the time in which the launch template cannot be read.
    """

    stopped: int
    running: int
    demand: tuple[tuple[float, float], ...]
    end_s: float
    vms: int
    serving: int
    faults: tuple[Fault, ...] = ()
    there_s: float = 0.2
    back_s: float = 0.3
    provisions: bool = False
    commands: tuple[tuple, ...] = ()
    words: tuple[tuple[float, str], ...] = ()
    pool: int = 0
    more: int = 0
    room: int | None = None
    unread: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Call:
    """A call on its way to the cloud."""

    verb: str
    arguments: tuple
    due_s: float


@dataclass
class Outside:
    """What survives the death of the daemon: the cloud, and the calls on their way to it."""

    world: World
    on_the_way: list[Call] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    """Starts that arrived for VMs that were already starting or running; there must be none."""

    async def arrive(self, call: Call, clock):
        provider = MemoryProvider(self.world, clock)
        outcomes = await getattr(provider, call.verb)(*call.arguments)
        if call.verb == "start":
            self.doubles += [
                f"{o.vm_id} at {clock.now() - ORIGIN_S:.1f}"
                for o in outcomes
                if o.kind is OutcomeKind.ACCEPTED and o.previous_state in (VmState.PENDING, VmState.RUNNING)
            ]
        return outcomes


class Wire:
    """A provider whose calls take time to arrive, so that a call may be on its way when its caller dies."""

    def __init__(self, outside: Outside, clock, scenario: Scenario):
        self.outside, self.clock, self.scenario = outside, clock, scenario
        self.near = MemoryProvider(outside.world, clock)
        self.list_vms, self.checked = self.near.list_vms, self.near.checked

    async def start(self, vm_ids):
        return await self._send("start", tuple(vm_ids))

    async def stop(self, vm_ids):
        return await self._send("stop", tuple(vm_ids))

    async def provision(self, spec, count, token):
        return await self._send("provision", spec, count, token)

    async def terminate(self, vm_ids):
        return await self._send("terminate", tuple(vm_ids))

    async def tag(self, vm_ids, tags):
        return await self._send("tag", tuple(vm_ids), dict(tags))

    async def launch_spec(self, spec):
        start_s, end_s = self.scenario.unread
        if start_s <= self.clock.now() - ORIGIN_S < end_s:
            raise ProviderError("UnauthorizedOperation", "the launch template cannot be read")
        return await self.near.launch_spec(spec)

    async def _send(self, verb, *arguments):
        call = Call(verb, arguments, self.clock.now() + self.scenario.there_s)
        self.outside.on_the_way.append(call)
        await self.clock.sleep_until(self.clock.monotonic() + self.scenario.there_s)
        self.outside.on_the_way.remove(call)
        outcomes = await self.outside.arrive(call, self.clock)
        await self.clock.sleep_until(self.clock.monotonic() + self.scenario.back_s)
        return outcomes


@dataclass
class Acknowledged:
    """What the journal has acknowledged as durable."""

    ticks: list[int] = field(default_factory=list)
    actions: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    events: list[tuple[str, str]] = field(default_factory=list)
    changes: list[ChangeRecord] = field(default_factory=list)
    answered: int = 0
    """Number of changes whose operator has been answered."""
    words: list[tuple[str, str]] = field(default_factory=list)
    """Commands for the warm pool that were answered: method and VM, which is empty for the whole pool."""

    def require(self, state: Path) -> None:
        """Assert that everything acknowledged is in the journal."""
        with JournalReader(state) as reader:
            connection = reader._connection
            ticks = [number for (number,) in connection.execute("SELECT tick FROM ticks ORDER BY id")]
            assert ticks[: len(self.ticks)] == self.ticks
            found = dict(connection.execute("SELECT id, settled_at_s FROM actions"))
            assert self.actions <= set(found)
            assert all(found[number] is not None for number in self.settled)
            events = list(connection.execute("SELECT kind, text FROM events ORDER BY id"))
            assert events[: len(self.events)] == self.events
            changes = list(
                connection.execute("SELECT id, at_s, kind, verb, who, expires_at_s FROM operator_changes")
            )
            assert changes[: len(self.changes)] == [
                (r.id, r.at_s, r.change.kind, r.change.verb or "", r.change.who, r.change.expires_at_s)
                for r in self.changes
            ]


class Watched:
    """Wraps the journal, and notes what it acknowledged and the state of its files around each write."""

    def __init__(self, journal, acknowledged: Acknowledged, around):
        self.journal, self.said, self.around = journal, acknowledged, around
        self.prune, self.close, self.recent_actions = journal.prune, journal.close, journal.recent_actions
        self.changes_in_force, self.learned = journal.changes_in_force, journal.learned
        self.record_learned = journal.record_learned

    async def record_tick(self, record, intents, events):
        before = self.around()
        ids = await self.journal.record_tick(record, intents, events)
        self.around(before)
        self.said.ticks.append(record.tick)
        self.said.actions |= set(ids)
        self.said.events += [(event.kind, event.text) for event in events]
        return ids

    async def record_intents(self, tick, at_s, intents):
        before = self.around()
        ids = await self.journal.record_intents(tick, at_s, intents)
        self.around(before)
        self.said.actions |= set(ids)
        return ids

    async def record_outcomes(self, settled):
        before = self.around()
        await self.journal.record_outcomes(settled)
        self.around(before)
        self.said.settled |= {each.action_id for each in settled}
        self.said.events += [(event.kind, event.text) for each in settled for event in each.events]

    async def record_changes(self, at_s, changes, events):
        before = self.around()
        records = await self.journal.record_changes(at_s, changes, events)
        self.around(before)
        self.said.changes += records
        self.said.events += [(event.kind, event.text) for event in events]
        return records

    async def record_events(self, at_s, events):
        before = self.around()
        await self.journal.record_events(at_s, events)
        self.around(before)
        self.said.events += [(event.kind, event.text) for event in events]


@dataclass(frozen=True)
class Crash:
    """What is left after a crash.

    Attributes:
        place: Where in the code the daemon waited.
        now_s: Time of the crash.
        files: Contents of the state directory.
        calls: Number of calls on their way to the cloud.
        kept: The rest, pickled, which is copied in a quarter of the time that `deepcopy` takes.
    """

    place: str
    now_s: float
    files: dict[str, bytes]
    calls: int
    kept: bytes

    def rest(self) -> tuple[Outside, Acknowledged]:
        """A copy of the cloud with the calls on their way to it, and of what must be in the journal."""
        return pickle.loads(self.kept)

    def restore(self, state: Path) -> None:
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        for name, content in self.files.items():
            (state / name).write_bytes(content)


class Crashes:
    """Collects what a crash at each point would leave, without duplicates."""

    def __init__(self, state: Path, outside: Outside, clock, rng, until_s: float):
        self.state, self.outside, self.clock, self.rng, self.until_s = state, outside, clock, rng, until_s
        self.acknowledged = Acknowledged()
        self.points = 0
        self.places: set[str] = set()
        self.found: dict[bytes, Crash] = {}

    def point(self, place: str) -> None:
        """Keep what a crash would leave now. Called when a task has given up control at `place`."""
        if self.clock.now() > self.until_s:
            return
        self.points += 1
        self.places.add(place)
        self._keep(place, self.files(), self.acknowledged)

    def around_write(self, before: dict[str, bytes] | None = None) -> dict[str, bytes] | None:
        """Keep what a crash during a write would leave: the log as before, with a torn part of what was being written."""
        if self.clock.now() > self.until_s:
            return None
        now = dict(self.files())
        if before is None:
            return now
        log, was = now.get(FILES[1], b""), before.get(FILES[1], b"")
        same = _same_beginning(was, log)
        if same < len(log) and len(log) > len(was):
            cut = int(self.rng.integers(same, len(log)))
            rest = self.rng.bytes(len(log) - cut) if self.rng.random() < 0.5 else b""
            self.points += 1
            self._keep("inside a write", {**before, FILES[1]: log[:cut] + rest}, self.acknowledged)
        if now.get(OPERATORS) != before.get(OPERATORS):
            self.points += 1
            behind = {OPERATORS: before[OPERATORS]} if OPERATORS in before else {}
            files = {name: content for name, content in now.items() if name != OPERATORS}
            self._keep("between journal and file", files | behind, self.acknowledged)
        return None

    def files(self) -> dict[str, bytes]:
        return {name: (self.state / name).read_bytes() for name in FILES if (self.state / name).exists()}

    def _keep(self, place: str, files: dict[str, bytes], acknowledged: Acknowledged) -> None:
        outside = self.outside
        changes = [(c.action, c.at_s) for c in outside.world.api.calls if not c.action.startswith("Desc")]
        digest = hashlib.sha256(repr((changes, outside.on_the_way)).encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + content)
        key = digest.digest()
        if key not in self.found:
            kept = pickle.dumps((outside, acknowledged), pickle.HIGHEST_PROTOCOL)
            self.found[key] = Crash(place, self.clock.now(), dict(files), len(outside.on_the_way), kept)


def _same_beginning(was: bytes, log: bytes) -> int:
    """Length of the common beginning of two contents."""
    shorter = min(len(was), len(log))
    kept, now = (np.frombuffer(content, dtype=np.uint8, count=shorter) for content in (was, log))
    differ = np.flatnonzero(kept != now)
    return int(differ[0]) if differ.size else shorter


class _Stepped(Coroutine):
    """Wraps a coroutine, and reports each time it gives up control, and where."""

    def __init__(self, inner, told):
        self.inner, self.told = inner, told

    def send(self, value):
        try:
            return self.inner.send(value)
        finally:
            self.told(_place(self.inner))

    def throw(self, *error):
        return self.inner.throw(*error)

    def close(self):
        self.inner.close()

    def __await__(self):
        return (yield from self.inner.__await__())


def _place(coroutine) -> str:
    place = f"end of {getattr(coroutine, '__qualname__', '?')}"
    while coroutine is not None and (frame := getattr(coroutine, "cr_frame", None)) is not None:
        _, found, name = frame.f_code.co_filename.rpartition(HERE)
        if found:
            place = f"{name}:{frame.f_lineno}"
        coroutine = coroutine.cr_await
    return place


@dataclass
class Ended:
    """How a run ended."""

    crashes: Crashes
    daemon: Daemon
    log: Log
    now_s: float
    in_force: tuple[ChangeRecord, ...]


def refreshes(scenario: Scenario) -> bool:
    """Whether operators refresh the warm pool."""
    return any(what == "refresh" for _, what in scenario.words)


def outside_of(scenario: Scenario) -> Outside:
    """The cloud at the origin."""
    room = {} if scenario.room is None else {(DEFAULT_VM_TYPE, f"us-east-1{z}"): 0 for z in "bc"}
    if scenario.room is not None:
        room[DEFAULT_VM_TYPE, "us-east-1a"] = scenario.room
    world = World(start_s=ORIGIN_S, physics=EXACT, faults=scenario.faults, limits=None, capacity=room)
    place_fleet(world, ORIGIN_S, WorldFleet("web", scenario.running, state=State.RUNNING))
    old = {"image": OLD_IMAGE, "tags": {TERMINABLE_TAG: "true"}} if refreshes(scenario) else {}
    place_fleet(world, ORIGIN_S, WorldFleet("web", scenario.stopped, **old))
    return Outside(world)


def policy_of(scenario: Scenario):
    changes = {"provision": {"launch_template": "web", "maximum": 9}} if scenario.provisions else {}
    if scenario.words:
        changes["refill"] = {"calm": "20s"}
        changes["provision"] = {"launch_template": "web", "maximum": 9}
        changes["warm_pool"] = {"minimum": scenario.pool, "spare": "0%"}
    return policy(signal={"kind": "total"}, **changes)


def run(
    scenario: Scenario,
    outside: Outside,
    state: Path,
    *,
    from_s: float = ORIGIN_S,
    lost: bool = False,
    collect_until_s: float = 0.0,
    seed: int = 0,
    acknowledged: Acknowledged | None = None,
) -> Ended:
    """Run a daemon with a state directory and a cloud, from a given time to the end of the scenario.

    Args:
        scenario: The scenario.
        outside: The cloud. Calls on their way to it arrive, or are lost.
        state: The state directory.
        from_s: Time at which the daemon begins.
        lost: Whether calls that are on their way never arrive.
        collect_until_s: Collect crashes up to this second after the origin.
        seed: Seed for the points at which writes are torn.
        acknowledged: What is already in the journal.
    """
    said = acknowledged or Acknowledged()
    return run_virtual(lambda: _run(scenario, outside, state, from_s, lost, collect_until_s, seed, said))


async def _run(scenario, outside, state, from_s, lost, collect_until_s, seed, said) -> Ended:
    clock = VirtualClock(min(from_s, *(call.due_s for call in outside.on_the_way), from_s))
    loop = asyncio.get_running_loop()
    pending, outside.on_the_way = outside.on_the_way, []
    arriving = [] if lost else [asyncio.create_task(_late(outside, call, clock)) for call in pending]
    log = Log()
    crashes = Crashes(state, outside, clock, np.random.default_rng(seed), ORIGIN_S + collect_until_s)
    await clock.sleep_until(from_s - clock.origin_s)
    crashes.acknowledged = said
    journal = open_journal(
        state, clock.now, lambda text: log.error("journal_recovered", text=text), inline=True
    )
    provider = Wire(outside, clock, scenario)
    source = Demand(clock, steady(*scenario.demand), total=True)
    setups = [FleetSetup(policy_of(scenario), provider, source, StatusCheckProbe(provider))]
    watched = Watched(journal, crashes.acknowledged, crashes.around_write)
    daemon = Daemon(clock, setups, watched, Telemetry(log=log), LoopSettings())
    loop.call_later(max(ORIGIN_S + scenario.end_s - from_s, 1.0), daemon.stop)
    asking = set()
    for second, *command in scenario.commands:
        wait_s = ORIGIN_S + second - from_s
        if wait_s > 0:
            loop.call_later(
                wait_s, lambda c=command: asking.add(asyncio.ensure_future(_ask(daemon, said, *c)))
            )
    for second, what in scenario.words:
        wait_s = ORIGIN_S + second - from_s
        if wait_s > 0:
            loop.call_later(wait_s, lambda w=what: asking.add(asyncio.ensure_future(_say(daemon, said, w))))
    if collect_until_s:
        loop.set_task_factory(
            lambda loop, coro, **options: asyncio.Task(_Stepped(coro, crashes.point), loop=loop, **options)
        )
    await asyncio.create_task(daemon.run())
    loop.set_task_factory(None)
    await asyncio.gather(*arriving)
    await journal.close()
    return Ended(crashes, daemon, log, clock.now(), daemon.operators.in_force())


async def _ask(daemon: Daemon, said: Acknowledged, command: str, *arguments) -> None:
    answer = await getattr(daemon.operators, command)(*arguments)
    said.answered += len(answer.changes)


async def _say(daemon: Daemon, said: Acknowledged, what: str) -> None:
    stopped = daemon.fleets.all[0].inventory.in_phase(Phase.STOPPED)
    vm_id = "" if what == "refresh" else stopped[-1 if what == "evict" else 0].vm.id
    await PoolCommands(daemon).by_name[what](
        PoolCommand("web", (vm_id,) if vm_id else (), "alice", "patched")
    )
    said.words.append((what, vm_id))


async def _late(outside: Outside, call: Call, clock) -> None:
    await clock.sleep_until(clock.monotonic() + max(call.due_s - clock.now(), 0.0))
    await outside.arrive(call, clock)


def restart(scenario: Scenario, crash: Crash, state: Path, *, down_s: float = 1.0, **options) -> Ended:
    """Run a new daemon with what a crash has left."""
    crash.restore(state)
    outside, acknowledged = crash.rest()
    from_s = crash.now_s + down_s
    return run(scenario, outside, state, from_s=from_s, acknowledged=acknowledged, **options)
