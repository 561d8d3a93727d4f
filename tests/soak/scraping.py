"""An hour of a daemon that scrapes its VMs over HTTP: how much memory it holds, and what a round costs.

Real: the loop, the wiring, the scrape source with its connections, HTTP on loopback to a process that answers for all
VMs (each with its own address and so its own connection), the journal on a disk, the garbage collector between ticks.
Simulated: the time between two ticks, which is skipped, and the cloud. VMs come and go all the time, so that anything
that is kept for deleted VMs shows.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

from autoscaler.clock import SystemClock, give_way
from autoscaler.cloud.physics import Physics
from autoscaler.cloud.vms import State
from autoscaler.cloud.world import World
from autoscaler.config.policy import Policy, policy_from
from autoscaler.daemon import event_loop
from autoscaler.daemon.garbage_collection import GarbageCollection
from autoscaler.daemon.lifecycle import COLLECT_YOUNG_EVERY_S
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import Listing, TickRecord, Vm
from autoscaler.providers.memory import MemoryProvider
from autoscaler.store import SqliteJournal
from autoscaler.wiring import wire
from autoscaler.wiring_sources import Sources
from tests.soak.sizes import Sizes, measured

ORIGIN_S = 1_795_478_400.0
EVERY_S = 15.0
CPUS = 4
BUSY = 0.39
"""Share of CPU time that is not idle, on every VM."""
_WARM_AFTER = 8
_FAILURES = frozenset({"tick_failed", "act_failed", "journal_failed", "source_failed"})
SPARE = 4
"""Number of stopped VMs per fleet."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What to run.

    Attributes:
        vms: Number of VMs that serve and are scraped.
        fleets: Number of fleets that share them.
        minutes: Length of the run.
        sample_at: Minutes after which to measure.
        churn_every_s: Time after which one VM of each fleet is replaced by a new one.
        idle_s: A connection unused for this long, by the machine's clock, belongs to a deleted VM.
    """

    vms: int
    fleets: int
    minutes: float = 60.0
    sample_at: tuple[float, ...] = (10.0, 20.0, 40.0, 60.0)
    churn_every_s: float = 120.0
    idle_s: float = 60.0


@dataclass
class Scraped:
    """Results of a run."""

    samples: list[Sizes] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Wall time of each tick."""
    cpu_s: list[float] = field(default_factory=list)
    """This process's CPU time for each tick, including the garbage collection after it."""
    turns_s: list[float] = field(default_factory=list)
    """CPU time of the longest turn of the event loop of each tick."""
    coverage: list[float] = field(default_factory=list)
    """Lowest coverage of any fleet in each tick."""
    failures: list[str] = field(default_factory=list)


class SteppedClock:
    """A clock that is moved by hand; a sleep waits until it has been moved far enough."""

    def __init__(self, origin_s: float) -> None:
        self._origin_s = origin_s
        self._stepped_s = 0.0
        self._stepped = asyncio.Event()

    def now(self) -> float:
        """Epoch seconds."""
        return self._origin_s + self._stepped_s

    def monotonic(self) -> float:
        """Seconds since the origin."""
        return self._stepped_s

    async def sleep_until(self, monotonic_s: float) -> None:
        """Return once the clock has been moved this far."""
        while self._stepped_s < monotonic_s:
            await self._stepped.wait()

    def step(self, seconds: float) -> None:
        """Let time pass."""
        self._stepped_s += seconds
        self._stepped.set()
        self._stepped = asyncio.Event()


class Patient(LoopSettings):
    """Settings that let readings take as long as the machine needs, because the time between two ticks is skipped."""

    @property
    def reading_s(self) -> float:
        return self.observe_timeout_s

    observing_s = reading_s


class LoopbackProvider(MemoryProvider):
    """The embedded cloud, with a loopback address for each VM."""

    def __init__(self, world: World, clock: SteppedClock) -> None:
        super().__init__(world, clock)
        self._given = 0
        self._known: dict[str, tuple[Vm, Vm]] = {}
        self._as_listed: tuple[Vm, ...] = ()
        self._addressed: tuple[Vm, ...] = ()

    async def list_vms(self) -> Listing:
        listing = await super().list_vms()
        if listing.vms is not self._as_listed:
            self._as_listed = listing.vms
            # Unchanged VMs are the same objects as in the last listing, as with the provider itself.
            self._known = {vm.id: self._of(vm) for vm in listing.vms}
            self._addressed = tuple(made for _, made in self._known.values())
        return replace(listing, vms=self._addressed)

    def _of(self, vm: Vm) -> tuple[Vm, Vm]:
        known = self._known.get(vm.id)
        if known is not None and known[0] is vm:
            return known
        return vm, replace(vm, address=self._next_address() if known is None else known[1].address)

    def _next_address(self) -> str:
        number = self._given
        self._given += 1
        return f"127.{number // 62500 + 1}.{number // 250 % 250}.{number % 250 + 1}"


class Log:
    """Keeps the failures of the program itself."""

    def __init__(self, scraped: Scraped) -> None:
        self._scraped = scraped

    def info(self, event: str, **facts: object) -> None:
        text = str(facts.get("text", ""))
        if event in _FAILURES:
            self._scraped.failures.append(f"{event}: {text}")

    debug = warning = error = exception = info


def _tell_nobody(sample: Sizes) -> None:
    del sample


def run(hour: Hour, told: Callable[[Sizes], None] = _tell_nobody) -> Scraped:
    """Run it, with the journal on an in-memory disk if there is one. `told` is called with each sample at once."""
    memory = Path("/dev/shm")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with (
            answering(hour.idle_s) as port,
            tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder,
        ):
            return event_loop.run(_scraping(hour, port, Path(folder), told))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _scraping(hour: Hour, port: int, state_dir: Path, told: Callable[[Sizes], None]) -> Scraped:
    scraped = Scraped()
    clock = SteppedClock(ORIGIN_S)
    # Deleted VMs stay listed only briefly, so that the number of listed VMs is steady after minutes.
    world = World(start_s=ORIGIN_S, zones="abc", physics=Physics(terminated_listed_s=120.0))
    names = [f"fleet-{number:03d}" for number in range(hour.fleets)]
    each = hour.vms // hour.fleets
    for name in names:
        world.provision(ORIGIN_S, name, each, state=State.RUNNING)
        world.provision(ORIGIN_S, name, SPARE)
    provider = LoopbackProvider(world, clock)
    sources = Sources(clock, state_dir)
    policies = [_policy(name, each, port) for name in names]
    wired = wire(policies, provider, clock, sources.source_for)
    journal = SqliteJournal(state_dir)

    def ticked(record: TickRecord) -> None:
        scraped.coverage.append(min(row.coverage for row in record.fleets))

    settings = Patient(tick_s=EVERY_S, observe_timeout_s=60.0)
    daemon = Daemon(clock, wired.setups, journal, Telemetry(log=Log(scraped)), settings, ticked)
    collecting = GarbageCollection()
    collecting.begin()
    longest = _Longest()
    looking = asyncio.create_task(_look(collecting))
    try:
        for number in range(round(hour.minutes * 60.0 / EVERY_S)):
            began_s, before_s = time.perf_counter(), time.process_time()
            await daemon.tick(int(ORIGIN_S // EVERY_S) + number)
            scraped.seconds.append(time.perf_counter() - began_s)
            collecting.between_ticks(clock.monotonic())
            scraped.cpu_s.append(time.process_time() - before_s)
            clock.step(EVERY_S)
            await give_way()
            scraped.turns_s.append(longest.taken())
            if clock.monotonic() % hour.churn_every_s < EVERY_S:
                _churn(world, clock.now(), names, number)
            if number == _WARM_AFTER:
                # Measuring itself takes memory, which the process keeps: take it before the first sample.
                measured(clock.monotonic(), daemon, 0, (World, LoopbackProvider, Scraped))
                await give_way()
                longest.taken()
            if any(abs(clock.monotonic() - minutes * 60.0) < EVERY_S / 2 for minutes in hour.sample_at):
                await give_way()
                apart = World, LoopbackProvider, Scraped
                sample = measured(clock.monotonic(), daemon, await journal.size_bytes(), apart)
                scraped.samples.append(sample)
                told(sample)
                await give_way()
                longest.taken()
    finally:
        looking.cancel()
        collecting.end()
        for fleet in daemon.fleets.all:
            await fleet.source.close()
        await journal.close()
    return scraped


async def _look(collecting: GarbageCollection) -> None:
    """Collect garbage as `daemon.lifecycle` does."""
    clock = SystemClock()
    while True:
        await clock.sleep_until(clock.monotonic() + COLLECT_YOUNG_EVERY_S)
        collecting.within_a_tick()


def _policy(name: str, vms: int, port: int) -> Policy:
    return policy_from(
        {
            "fleet": name,
            "act": True,
            "signal": {
                "kind": "utilisation",
                "source": "scrape",
                "max_age": "60s",
                "scrape": {"type": "cpu", "url": f"http://{{address}}:{port}/cpu", "timeout": "40s"},
            },
            "vm": {"capacity": "100/s", "start_time": "30s", "stop_time": "60s"},
            "readiness": {"probe": "running", "after": "0s"},
            "bounds": {"minimum": vms, "maximum": vms + SPARE},
        }
    )


def _churn(world: World, now_s: float, names: Sequence[str], number: int) -> None:
    """Replace one VM of every fleet."""
    for name in names:
        running = [view.id for view in world.views(now_s, name) if view.state is State.RUNNING]
        world.terminate(now_s, [running[number % len(running)]])
        world.provision(now_s, name, 1, state=State.RUNNING)


class _Longest:
    """Measures the longest turn of the running event loop, in CPU time of the process."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._longest_s = 0.0
        self._runs = loop._run_once
        loop._run_once = self._timed

    def taken(self) -> float:
        """Longest turn since the last call, in seconds."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

    def _timed(self) -> None:
        before_s = time.process_time()
        self._runs()
        self._longest_s = max(self._longest_s, time.process_time() - before_s)


# ── the VMs ─────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def answering(idle_s: float) -> Iterator[int]:
    """Run a process that answers for every loopback address and no other; gives its port."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    listening.bind(("0.0.0.0", 0))
    listening.listen(4096)
    process = get_context("fork").Process(target=_answer, args=(listening, idle_s), daemon=True)
    process.start()
    try:
        yield listening.getsockname()[1]
    finally:
        process.kill()
        process.join(10)
        listening.close()


def _answer(listening: socket.socket, idle_s: float) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        opened: set[_Exporter] = set()
        server = await loop.create_server(lambda: _Exporter(opened), sock=listening, backlog=4096)

        def sweep() -> None:
            before_s = time.perf_counter() - idle_s
            for each in [one for one in opened if one.asked_at_s < before_s]:
                each.transport.close()
            loop.call_later(idle_s / 4.0, sweep)

        sweep()
        await server.serve_forever()

    asyncio.run(serve())


class _Exporter(asyncio.Protocol):
    """Exposes the CPU counters of one VM, which advance with the machine's time."""

    def __init__(self, opened):
        self._opened = opened
        self.asked_at_s = time.perf_counter()

    def connection_made(self, transport):
        self.transport = transport
        self._opened.add(self)

    def connection_lost(self, exc):
        del exc
        self._opened.discard(self)

    def data_received(self, data):
        now_s = self.asked_at_s = time.perf_counter()
        modes = {"idle": 1.0 - BUSY, "system": 0.1, "user": BUSY - 0.1}
        lines = ["# TYPE node_cpu_seconds_total counter"]
        lines += [
            f'node_cpu_seconds_total{{cpu="{cpu}",mode="{mode}"}} {now_s * share:.6f}'
            for cpu in range(CPUS)
            for mode, share in modes.items()
        ]
        body = ("\n".join(lines) + "\n").encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
