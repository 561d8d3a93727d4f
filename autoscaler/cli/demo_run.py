"""The demo's run: sets up the cloud, plays the traffic, runs the daemon.

Not here: options (`demo`), the week before (`demo_week`), what is shown (`demo_screen`), the comparison (`demo_summary`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoscaler.cli import demo_week
from autoscaler.cli.demo import DemoOptions
from autoscaler.clock import ScaledClock, SystemClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.faults import Fault
from autoscaler.cloud.setup import ClockSetup, CloudSetup, read_faults
from autoscaler.config.loading import require_policy
from autoscaler.config.policy import Policy
from autoscaler.daemon.closing import close
from autoscaler.daemon.lifecycle import run_to_the_end
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import ConfigError, DaemonError
from autoscaler.ports import Learned, Note, TickRecord
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.simulator.replay.recording import demand_of, timeline
from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.store import JournalReader, SqliteJournal
from autoscaler.store.history import JournalHistory
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import Trace, TraceKind, describe_time
from autoscaler.web.site import Site
from autoscaler.wiring import simulated, wire
from autoscaler.wiring_sources import trace_source

if TYPE_CHECKING:
    from autoscaler.cli.demo_screen import Screen

WARM_UP_S = 300.0
"""Seconds at the start that are shown but not scored, while the fleet comes up from nothing; the same for the baselines."""
PROBES = 12
MAX_TICK_S = 3600.0
MARGIN = 2.0
"""A tick must take at most 1 / MARGIN of its real time on this machine."""
EASE = 2.0
"""A speed that the demo chooses must leave this many times more room, because decisions take time beyond what is measured."""
SPEEDS = 400.0, 240.0, 120.0, 60.0, 30.0
"""Speeds to try if the user gives none. The first that this machine can keep is used."""
SET_UP_S = 4.0
"""Real seconds from the start of the cloud and its clock to that of the daemon, so that the daemon starts exactly on time."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The checked and loaded inputs of a demo that has not started.

    Attributes:
        options: The options of the command line.
        policy: The fleet's policy.
        policy_file: The file it came from.
        trace: The traffic to play.
        begin_s: Start of the demo in the trace, epoch seconds.
        end_s: Its end, epoch seconds.
        cloud: The embedded cloud to start.
        learned: What the fleet learned in the week before; empty if it starts without one.
    """

    options: DemoOptions
    policy: Policy
    policy_file: Path
    trace: Trace
    begin_s: float
    end_s: float
    cloud: CloudSetup
    learned: tuple[Learned, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a demo, with the cloud's own account of it.

    Attributes:
        prepared: The inputs.
        rows: The timeline, one row per tick.
        started_at_s: When the daemon started, epoch seconds of the demo's clock.
        ended_at_s: Its last tick, epoch seconds of the same clock.
        speed: Seconds of the demo per real second.
        ticks_skipped: Ticks that came too late and were skipped.
        tick_cost_s: Measured real time of a tick's listing and journal write, seconds.
        start_times_s: Measured times of starts, seconds.
        signal_age_s: Largest age of a reading when it was used, seconds; NaN if there was none.
        journal_cost: Cost as the daemon counted it.
        billed: Cost as the cloud billed it.
        calls: The cloud's counts of calls and VMs.
        state_dir: Folder of the output; None if none was asked for.
    """

    prepared: Prepared
    rows: tuple[TimelineRow, ...]
    started_at_s: float
    ended_at_s: float
    speed: float
    ticks_skipped: int
    tick_cost_s: float
    start_times_s: tuple[float, ...]
    signal_age_s: float
    journal_cost: float
    billed: float
    calls: Mapping[str, Any]
    state_dir: Path | None


class TooFastError(ConfigError):
    """This machine cannot keep up with the requested speed."""


def prepare(options: DemoOptions) -> Prepared:
    """Load and check everything that the options name.

    Raises:
        ConfigError: A policy, a fault file or a range is wrong, or the week before cannot be read.
        TraceError: The trace cannot be used.
    """
    if not 1.0 <= options.tick_s <= MAX_TICK_S:
        raise ConfigError(f"--tick {options.tick_s:g}s must be from 1 s to {MAX_TICK_S / 3600:g} h")
    file = options.policy or demo_week.policy_file()
    policy = require_policy(file, tick_s=options.tick_s)
    if options.trace is None:
        trace = demo_week.played_day(options.seed)
        first_s = demo_week.BEGIN_S
    else:
        trace = read_trace(options.trace, kind=TraceKind(options.kind) if options.kind else None)
        # A count is known at the end of its interval, so nothing can be read during the first one.
        first_s = trace.start_s + trace.interval_s
    begin_s = options.begin_s if options.begin_s is not None else first_s
    end_s = options.end_s if options.end_s is not None else trace.end_s
    if not trace.start_s <= begin_s < end_s <= trace.end_s:
        raise ConfigError(
            f"trace {trace.name} covers {describe_time(trace.start_s)} to {describe_time(trace.end_s)}; "
            f"begin {describe_time(begin_s)} and end {describe_time(end_s)} must lie within it, in this order (--begin, --end)"
        )
    if options.trace is not None:
        played = trace.cut(max(begin_s - 2 * trace.interval_s, trace.start_s), end_s)
        trace = played.scaled_to_peak(options.scale_to_vms * policy.vm.capacity_per_s)
    cloud = demo_week.cloud_of(policy, options.vms, options.seed)
    if options.faults:
        cloud = replace(cloud, faults=read_faults(options.faults))
    # The stored week fits only the default policy, traffic and time of day.
    usual = options.policy is None and options.trace is None and options.begin_s is None
    knows = usual and not options.cold and options.tick_s == demo_week.TICK_S
    learned = demo_week.remembered(policy) if knows else ()
    return Prepared(options, policy, file, trace, begin_s, end_s, cloud, learned)


async def run(prepared: Prepared, screen: Screen) -> Finished:
    """Run the demo to its end.

    Raises:
        TooFastError: This machine cannot keep up with the requested speed.
        ConfigError: The output folder contains an earlier run.
        DaemonError: The embedded cloud or the web server did not start.
    """
    options = prepared.options
    if options.out is not None:
        _refuse_used(options.out)
    screen.begins()
    if options.speed is not None:
        return await _played(prepared, screen, options.speed, MARGIN)
    for speed in SPEEDS[:-1]:
        with suppress(TooFastError):
            return await _played(prepared, screen, speed, EASE * MARGIN)
    return await _played(prepared, screen, SPEEDS[-1], MARGIN)


async def _played(prepared: Prepared, screen: Screen, speed: float, margin: float) -> Finished:
    options, policy = prepared.options, prepared.policy
    async with AsyncExitStack() as stack:
        state_dir = options.out or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="autoscaler-"))
        )
        before_s = SET_UP_S * speed
        origin_s, origin_monotonic_s = prepared.begin_s - before_s, SystemClock().monotonic()
        clock = ScaledClock(origin_s, speed, origin_monotonic_s)
        clocked = ClockSetup(speed, origin_s, origin_monotonic_s)
        cloud = replace(prepared.cloud, clock=clocked, faults=())
        endpoint = await stack.enter_async_context(EndpointProcess(cloud))
        settings = Ec2Settings(
            region=cloud.region,
            endpoint_url=endpoint.url,
            access_key_id="demo",
            secret_access_key="demo",  # noqa: S106  the embedded cloud takes any
        )
        telemetry, provider = Telemetry(), await Ec2Provider.open(settings, clock)
        stack.push_async_callback(close, provider, telemetry)
        tick_cost_s = await _measure_tick(provider, state_dir, telemetry)
        _refuse_too_fast(tick_cost_s, options.tick_s, speed, margin)
        journal = SqliteJournal(state_dir)
        stack.push_async_callback(close, journal, telemetry)
        await journal.record_learned(prepared.begin_s, prepared.learned)
        await clock.sleep_until(before_s)
        # If the setup took longer, the clock is ahead. The offset keeps the trace in step with the daemon.
        started_at_s = clock.now()
        offset_s = prepared.begin_s - started_at_s
        await _schedule(prepared.cloud.faults, endpoint.url, started_at_s)
        source = trace_source(policy, clock, prepared.trace, seed=options.seed, offset_s=offset_s)
        budgeted = BudgetedProvider(provider, CallBudget(clock), clock, seed=options.seed)
        wired = wire([simulated(policy)], budgeted, clock, lambda _: source)
        for adapter in wired.closables:
            stack.push_async_callback(close, adapter, telemetry)
        ages: list[float] = []

        def on_tick(record: TickRecord) -> None:
            ages.extend(
                record.at_s - row.observed_at_s for row in record.fleets if math.isfinite(row.observed_at_s)
            )
            screen.ticked(record)
            if record.at_s + options.tick_s + offset_s >= prepared.end_s:
                daemon.stop()

        daemon = Daemon(clock, wired.setups, journal, telemetry, LoopSettings(options.tick_s), on_tick)
        fleet = daemon.fleets.all[0]
        # Both meters begin at the same moment: the cloud bills storage from the moment it is created.
        before = await _ask_cloud(endpoint.url, "bill")
        fleet.meter.charge((), 0, 0, float(before["at_s"]))
        history = JournalHistory(state_dir)
        stack.callback(history.close)
        web = await stack.enter_async_context(Site(daemon, "127.0.0.1", options.http_port, history=history))
        screen.begun(daemon, web.url, endpoint.url, speed)
        try:
            await run_to_the_end(daemon, for_s=options.for_s)
        finally:
            screen.ended()
        ended_at_s = daemon.last_record.at_s if daemon.last_record else clock.now()
        truth = demand_of(prepared.trace.rate_at, offset_s, prepared.trace.interval_s)
        bill = await _ask_cloud(endpoint.url, "bill")
        fleet.meter.charge(
            fleet.inventory.vms.values(), len(fleet.inventory.vms), fleet.new_vms, float(bill["at_s"])
        )
        with JournalReader(state_dir) as reader:
            rows = timeline(reader, policy.fleet, started_at_s - 1.0, ended_at_s + 1.0, truth)
        return Finished(
            prepared=prepared,
            rows=rows,
            started_at_s=started_at_s,
            ended_at_s=ended_at_s,
            speed=speed,
            ticks_skipped=daemon.ticks_skipped,
            tick_cost_s=tick_cost_s,
            start_times_s=tuple(fleet.start_times_s),
            signal_age_s=max(ages, default=math.nan),
            journal_cost=fleet.meter.total.money,
            billed=_money(bill, policy.fleet) - _money(before, policy.fleet),
            calls=await _ask_cloud(endpoint.url, "calls"),
            state_dir=options.out,
        )


def _refuse_used(state_dir: Path) -> None:
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{state_dir} cannot be written to: {(error.strerror or str(error)).lower()}"
        ) from None
    if (state_dir / "journal.sqlite").exists():
        raise ConfigError(
            f"{state_dir} holds the journal of an earlier run; name another --out, or remove it"
        )


async def _measure_tick(provider: Ec2Provider, state_dir: Path, telemetry: Telemetry) -> float:
    """Return the real seconds that the slow parts of a tick take: listing over HTTP, and writing to disk (median of the probes).

    The probes are written to a journal of their own on the same disk, so that nothing of a demo that is refused stays there.
    """
    watch, times = SystemClock(), []
    with tempfile.TemporaryDirectory(prefix="probes-", dir=state_dir) as probes:
        journal = SqliteJournal(Path(probes))
        try:
            for number in range(PROBES):
                before = watch.monotonic()
                listing = await provider.list_vms()
                if not listing.complete:
                    raise DaemonError(f"the embedded cloud does not list its VMs: {listing.error}")
                await journal.record_events(0.0, [Note("calibration", "", f"probe {number}")])
                times.append(watch.monotonic() - before)
        finally:
            await close(journal, telemetry)
    return float(np.median(times[2:]))


def _refuse_too_fast(tick_cost_s: float, tick_s: float, speed: float, margin: float) -> None:
    room_s = tick_s / speed
    if room_s < margin * tick_cost_s:
        highest = math.floor(tick_s / (MARGIN * tick_cost_s))
        raise TooFastError(
            f"--speed {speed:g} leaves {room_s * 1e3:.1f} ms for a tick of {tick_s:g} s, and this "
            f"machine needs about {tick_cost_s * 1e3:.1f} ms for the listing and the journal alone (measured "
            f"just now; twice that is asked for). The highest speed here is about {max(highest, 1)}, "
            "or more with a longer --tick."
        )


async def _ask_cloud(endpoint: str, what: str) -> dict[str, Any]:
    from aiohttp import ClientSession, ClientTimeout

    async with (
        ClientSession(timeout=ClientTimeout(total=10.0)) as session,
        session.get(f"{endpoint}/_world/{what}") as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


async def _schedule(faults: Sequence[Fault], endpoint: str, begin_s: float) -> None:
    """Give the cloud its faults, whose times count from `begin_s`, when the daemon starts.

    The cloud counts from its own start, which is earlier by however long this machine took to set everything up.
    """
    from aiohttp import ClientSession, ClientTimeout

    if not faults:
        return
    later_s = begin_s - float((await _ask_cloud(endpoint, "state"))["start_s"])
    rows = [asdict(replace(f, start_s=f.start_s + later_s, end_s=f.end_s + later_s)) for f in faults]
    async with (
        ClientSession(timeout=ClientTimeout(total=10.0), raise_for_status=True) as session,
        session.post(f"{endpoint}/_world/faults", json=rows),
    ):
        return


def _money(bill: Mapping[str, Any], fleet: str) -> float:
    return float(bill["fleets"][fleet]["money"])
