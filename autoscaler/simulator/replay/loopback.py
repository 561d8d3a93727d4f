"""The loop engine: the real daemon on the virtual clock, against the embedded cloud in memory.

Loop, core, journal and provider mapping are the same as live. Only real time and HTTP are missing. A day of ticks runs in
seconds. Baselines are replayed with this engine, and tests assert exact times on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.billing import Bill
from autoscaler.cloud.setup import CloudSetup
from autoscaler.config.policy import Policy
from autoscaler.daemon.learned.restoring import RestartStateStore
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import ConfigError, InvariantError
from autoscaler.ports import Learned, TickRecord
from autoscaler.providers.memory import MemoryProvider
from autoscaler.simulator.replay.recording import demand_of, timeline
from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.store import SqliteJournal
from autoscaler.traces.trace import Trace
from autoscaler.wiring import simulated, wire
from autoscaler.wiring_sources import trace_source


@dataclass(frozen=True, slots=True)
class LoopRun:
    """The settings of a run by the loop engine.

    Attributes:
        policy: Policy of one fleet. It acts on the simulated cloud, whatever its `act` says.
        trace: The demand.
        cloud: The simulated cloud, which must contain the fleet's VMs.
        start_s: Moment of the recording at which the run begins, epoch seconds.
        duration_s: Length of the run in seconds.
        tick_s: Length of a tick in seconds.
        seed: Seed of the uneven spread of work over VMs.
        imbalance: How uneven that spread is, as in `sources.trace`. At 0 all VMs do the same, as in lanes.
        journal_dir: Directory to keep the journal in, for example for `explain`. None discards it.
        learned: Core's states at the end of an earlier run, to continue from.
        remembers: Whether to return core's states at the end of this run.
    """

    policy: Policy
    trace: Trace
    cloud: CloudSetup
    start_s: float
    duration_s: float
    tick_s: float = 10.0
    seed: int = 0
    imbalance: float = 0.05
    journal_dir: Path | None = None
    learned: tuple[Learned, ...] = ()
    remembers: bool = False


@dataclass(frozen=True, slots=True)
class LoopResult:
    """The result of a run by the loop engine.

    Attributes:
        rows: The timeline.
        bill: The bill of the simulated cloud.
        calls: Number of API calls that the cloud accepted, by action.
        start_times_s: Measured seconds from each order to start a VM until it served.
        whole: Whether the run reached its end.
        learned: Core's states at the end, if they were asked for.
    """

    rows: tuple[TimelineRow, ...]
    bill: Bill
    calls: dict[str, int]
    start_times_s: tuple[float, ...]
    whole: bool = True
    learned: tuple[Learned, ...] = ()


def run_loop(
    run: LoopRun,
    on_tick: Callable[[TickRecord], None] | None = None,
    enough: Callable[[], bool] | None = None,
) -> LoopResult:
    """Run the daemon over the trace on virtual time.

    Args:
        run: The settings.
        on_tick: Called after each tick.
        enough: Asked after each tick. True ends the run, and the part that was run is returned.

    Raises:
        InvariantError: A tick, the handling of an action or the journal failed, which is always a bug here.
        JournalError: The journal cannot be written to `journal_dir`.
        ConfigError: The learned states of an earlier run cannot be read.
    """
    return run_virtual(lambda: _run(run, on_tick, enough))


async def _run(
    run: LoopRun, on_tick: Callable[[TickRecord], None] | None, enough: Callable[[], bool] | None
) -> LoopResult:
    clock = VirtualClock(run.start_s)
    world = run.cloud.world(run.start_s)
    journal = SqliteJournal(":memory:", inline=True)
    policy = simulated(run.policy)
    source = trace_source(policy, clock, run.trace, seed=run.seed, offset_s=0.0, imbalance=run.imbalance)
    wired = wire([policy], MemoryProvider(world, clock), clock, lambda _: source)
    failures: list[str] = []
    telemetry = Telemetry(log=Silent(failures))
    ended_early = False

    def after_tick(record: TickRecord) -> None:
        nonlocal ended_early
        if on_tick is not None:
            on_tick(record)
        if enough is not None and enough():
            ended_early = True
            daemon.stop()

    daemon = Daemon(clock, wired.setups, journal, telemetry, LoopSettings(tick_s=run.tick_s), after_tick)
    if wrong := RestartStateStore().take_up_states(daemon.fleets, run.learned, run.start_s):
        raise ConfigError("; ".join(wrong))
    asyncio.get_running_loop().call_later(run.duration_s, daemon.stop)
    await daemon.run()
    if failures:
        msg = f"{len(failures)} failures in a virtual run; the first: {failures[0]}"
        raise InvariantError(msg)
    end_s = clock.now()
    between = demand_of(run.trace.rate_at, 0.0, run.trace.interval_s)
    rows = timeline(journal.reader(), policy.fleet, run.start_s, end_s + 1.0, between)
    bill = world.bill(end_s, policy.fleet)
    if run.journal_dir is not None:
        journal.reader().copy_to(run.journal_dir)
    await journal.close()
    learned = tuple(await RestartStateStore().states(daemon.fleets, end_s)) if run.remembers else ()
    calls = {action: count for (action, code), count in sorted(world.api.call_counts.items()) if not code}
    started = tuple(daemon.fleets.all[0].start_times_s)
    return LoopResult(rows, bill, calls, started, not ended_early, learned)


class Silent:
    """A logger that keeps failures of the program itself and drops the rest, because a virtual run has no operator."""

    _FAILURES = frozenset({"tick_failed", "act_failed", "journal_failed"})

    def __init__(self, failures: list[str]) -> None:
        self._failures = failures

    def debug(self, event: str, **facts: object) -> None:
        """Keep the event if it is a failure."""
        if event in self._FAILURES:
            self._failures.append(f"{event}: {facts.get('text', '')}")

    info = warning = error = exception = debug
