"""The demo's run: set up the cloud, play the traffic, run the daemon, compare with baselines.

Not here: options (`demo`), what is shown (`demo_screen`).
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import autoscaler
from autoscaler.clock import ScaledClock, SystemClock
from autoscaler.cloud.billing import Prices
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.setup import ClockSetup, CloudSetup, FleetSetup, read_faults
from autoscaler.config.loading import require_policy
from autoscaler.config.policy import Policy
from autoscaler.daemon.lifecycle import close, run_to_the_end
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import ConfigError, DaemonError
from autoscaler.ports import TickRecord
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.simulator.judging.baselines import always_on, describe, plain_reactive
from autoscaler.simulator.judging.recovery import recoveries
from autoscaler.simulator.replay.identity import identity_of
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.replay.recording import demand_of, timeline
from autoscaler.simulator.replay.timeline import (
    REPORT_NAME,
    REPORT_VERSION,
    TIMELINE_NAME,
    TimelineRow,
    Totals,
    totals,
    write_report,
    write_timeline,
)
from autoscaler.simulator.traffic.synth import DEFAULT_START_S, synth_day
from autoscaler.store import JournalReader, SqliteJournal
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import Trace, TraceKind
from autoscaler.web.site import Site
from autoscaler.wiring import simulated, wire
from autoscaler.wiring_sources import trace_source

WARM_UP_S = 300.0
"""The fleet comes up from nothing at the start; this much is shown and not scored, for baselines likewise."""
PROBES = 12
MAX_TICK_S = 3600.0
MARGIN = 2.0
"""A tick must take at most this fraction (1 / MARGIN) of its time on this machine."""
BEGIN_OF_DAY_S = 9 * 3600.0 + 40 * 60.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """As on the command line."""

    trace: Path | None
    kind: str | None
    scale_to_vms: int
    begin_s: float | None
    end_s: float | None
    policy: Path | None
    vms: int
    speed: float
    tick_s: float
    for_s: float | None
    out: Path | None
    faults: Path | None
    seed: int
    http_port: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything checked and loaded, nothing started."""

    options: DemoOptions
    policy: Policy
    policy_file: Path
    trace: Trace
    begin_s: float
    end_s: float
    cloud: CloudSetup


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, with what the cloud itself says of it."""

    prepared: Prepared
    rows: tuple[TimelineRow, ...]
    started_at_s: float
    ended_at_s: float
    ticks_skipped: int
    tick_cost_s: float
    start_times_s: tuple[float, ...]
    signal_age_s: float
    journal_cost: float
    billed: float
    calls: Mapping[str, Any]
    state_dir: Path | None


class Watcher(Protocol):
    """What looks on while the demo runs."""

    def begun(self, daemon: Daemon, url: str, endpoint: str) -> None:
        """The daemon is about to tick."""
        ...

    def ticked(self, record: TickRecord) -> None:
        """A tick is done."""
        ...

    def ended(self) -> None:
        """No tick follows."""
        ...


def prepare(options: DemoOptions) -> Prepared:
    """Load and check everything that the options name.

    Raises:
        ConfigError: A policy, fault file or range is wrong.
        TraceError: The trace cannot be used.
    """
    if not 1.0 <= options.tick_s <= MAX_TICK_S:
        raise ConfigError(f"--tick {options.tick_s:g}s must be from 1 s to {MAX_TICK_S / 3600:g} h")
    file = options.policy or example_policies() / "web.yaml"
    policy = require_policy(file, tick_s=options.tick_s)
    if options.trace is None:
        trace = synth_day(options.seed, interval_s=10.0)
        first_s = DEFAULT_START_S + BEGIN_OF_DAY_S
    else:
        trace = read_trace(options.trace, kind=TraceKind(options.kind) if options.kind else None)
        # A count is known once its interval is over, so the first one passes before anything can be read.
        first_s = trace.start_s + trace.interval_s
    begin_s = options.begin_s if options.begin_s is not None else first_s
    end_s = options.end_s if options.end_s is not None else trace.end_s
    if not trace.start_s <= begin_s < end_s <= trace.end_s:
        raise ConfigError(
            f"trace {trace.name} covers {_time(trace.start_s)} to {_time(trace.end_s)}; "
            f"begin {_time(begin_s)} and end {_time(end_s)} must lie within it, in this order (--begin, --end)"
        )
    if options.trace is not None:
        played = trace.cut(max(begin_s - 2 * trace.interval_s, trace.start_s), end_s)
        trace = played.scaled_to_peak(options.scale_to_vms * policy.vm.capacity_per_s)
    prices = policy.prices
    cloud = CloudSetup(
        seed=options.seed,
        fleets=(FleetSetup(policy.fleet, options.vms),),
        faults=read_faults(options.faults) if options.faults else (),
        prices=Prices(prices.in_service_per_h, prices.stopped_per_h, prices.start),
    )
    return Prepared(options, policy, file, trace, begin_s, end_s, cloud)


def example_policies() -> Path:
    """The example policies: beside the code in a checkout, within the package where it is installed."""
    package = Path(autoscaler.__file__).parent
    inside = package / "policies"
    return inside if inside.is_dir() else package.parent / "policies"


async def run(prepared: Prepared, watcher: Watcher) -> Finished:
    """Run the demo to its end.

    Raises:
        ConfigError: This machine does not keep up with the speed asked for.
        DaemonError: The embedded cloud or the web server did not start.
    """
    options, policy = prepared.options, prepared.policy
    async with AsyncExitStack() as stack:
        state_dir = options.out or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="autoscaler-"))
        )
        _refuse_used(state_dir)
        origin_monotonic_s = SystemClock().monotonic()
        clock = ScaledClock(prepared.begin_s, options.speed, origin_monotonic_s)
        cloud = replace(prepared.cloud, clock=ClockSetup(options.speed, prepared.begin_s, origin_monotonic_s))
        endpoint = await stack.enter_async_context(EndpointProcess(cloud))
        settings = Ec2Settings(
            region=cloud.region,
            endpoint_url=endpoint.url,
            access_key_id="demo",
            secret_access_key="demo",  # noqa: S106  the embedded cloud takes any
        )
        telemetry, journal = Telemetry(), SqliteJournal(state_dir)
        stack.push_async_callback(close, journal, telemetry)
        provider = await Ec2Provider.open(settings, clock)
        stack.push_async_callback(close, provider, telemetry)
        # The clock ran while things started; the trace begins when the daemon does.
        tick_cost_s = await _measure_tick(provider, journal)
        _refuse_too_fast(tick_cost_s, options)
        started_at_s = clock.now()
        offset_s = prepared.begin_s - started_at_s
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
            watcher.ticked(record)
            if record.at_s + options.tick_s + offset_s >= prepared.end_s:
                daemon.stop()

        daemon = Daemon(clock, wired.setups, journal, telemetry, LoopSettings(options.tick_s), on_tick)
        fleet = daemon.fleets.all[0]
        # Both meters begin at the same moment: the cloud has stored the VMs since it was made.
        before = await _ask(endpoint.url, "bill")
        fleet.meter.charge((), 0, 0, float(before["at_s"]))
        web = await stack.enter_async_context(Site(daemon, "127.0.0.1", options.http_port))
        watcher.begun(daemon, web.url, endpoint.url)
        try:
            await run_to_the_end(daemon, for_s=options.for_s)
        finally:
            watcher.ended()
        ended_at_s = daemon.last_record.at_s if daemon.last_record else clock.now()
        truth = demand_of(prepared.trace.rate_at, offset_s, prepared.trace.interval_s)
        bill = await _ask(endpoint.url, "bill")
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
            ticks_skipped=daemon.ticks_skipped,
            tick_cost_s=tick_cost_s,
            start_times_s=tuple(fleet.start_times_s),
            signal_age_s=max(ages, default=math.nan),
            journal_cost=fleet.meter.total.money,
            billed=_money(bill, policy.fleet) - _money(before, policy.fleet),
            calls=await _ask(endpoint.url, "calls"),
            state_dir=options.out,
        )


def _refuse_used(state_dir: Path) -> None:
    if (state_dir / "journal.sqlite").exists():
        raise ConfigError(
            f"{state_dir} holds the journal of an earlier run; name another --out, or remove it"
        )


async def _measure_tick(provider: Ec2Provider, journal: SqliteJournal) -> float:
    """Seconds of this machine that the slow parts of a tick take: listing through HTTP, and the disk."""
    watch, times = SystemClock(), []
    for number in range(PROBES):
        before = watch.monotonic()
        listing = await provider.list_vms()
        if not listing.complete:
            raise DaemonError(f"the embedded cloud does not list its VMs: {listing.error}")
        await journal.record_event(0.0, "calibration", "", f"probe {number}")
        times.append(watch.monotonic() - before)
    await journal.prune(
        before_s=1.0, max_bytes=sys.maxsize
    )  # what was measured with is nothing to look back at
    return float(np.median(times[2:]))


def _refuse_too_fast(tick_cost_s: float, options: DemoOptions) -> None:
    room_s = options.tick_s / options.speed
    if room_s < MARGIN * tick_cost_s:
        highest = math.floor(options.tick_s / (MARGIN * tick_cost_s))
        raise ConfigError(
            f"--speed {options.speed:g} leaves {room_s * 1e3:.1f} ms for a tick of {options.tick_s:g} s, and this "
            f"machine needs about {tick_cost_s * 1e3:.1f} ms for the listing and the journal alone (measured "
            f"just now; twice that is asked for). The highest speed here is about {max(highest, 1)}, "
            "or more with a longer --tick."
        )


async def _ask(endpoint: str, what: str) -> dict[str, Any]:
    from aiohttp import ClientSession, ClientTimeout

    async with (
        ClientSession(timeout=ClientTimeout(total=10.0)) as session,
        session.get(f"{endpoint}/_world/{what}") as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


def _money(bill: Mapping[str, Any], fleet: str) -> float:
    return float(bill["fleets"][fleet]["money"])


# ── the summary ─────────────────────────────────────────────────────────────────────────────────────────


def summarise(finished: Finished, progress: Callable[[str], None]) -> dict[str, Any]:
    """Compare with the baselines, and write the files where an output directory was named.

    Returns:
        The report, as in report.json, but with NaN where that has null.

    Raises:
        ConfigError: The output cannot be written.
    """
    prepared, options = finished.prepared, finished.prepared.options
    scored = _scored(finished.rows)
    run_totals = totals(scored, options.tick_s)
    baselines: dict[str, Totals] = {}
    if scored:
        progress("replaying the baselines on the same traffic …")
        baselines["always on at peak"] = totals(
            always_on(scored, prepared.policy, options.tick_s), options.tick_s
        )
        for name, policy in (
            ("plain reactive", plain_reactive(prepared.policy)),
            ("same, on virtual time", prepared.policy),
        ):
            baselines[name] = totals(_scored(_replayed(finished, policy)), options.tick_s)
    identity = identity_of(prepared.policy, prepared.trace, asdict(prepared.cloud), options.seed)
    details = _details(finished, scored)
    if options.out is not None:
        write_timeline(options.out / TIMELINE_NAME, finished.rows)
        write_report(options.out / REPORT_NAME, identity, run_totals, baselines, details)
    return {
        "version": REPORT_VERSION,
        "identity": asdict(identity),
        "totals": asdict(run_totals),
        "baselines": {name: asdict(t) for name, t in baselines.items()},
        "details": details,
    }


def _replayed(finished: Finished, policy: Policy) -> tuple[TimelineRow, ...]:
    """The same span under a policy on virtual time: the same traffic and cloud, without this machine's delays."""
    prepared, options = finished.prepared, finished.prepared.options
    return run_loop(
        LoopRun(
            policy,
            prepared.trace,
            prepared.cloud,
            prepared.begin_s,
            finished.ended_at_s - finished.started_at_s,
            options.tick_s,
            options.seed,
        )
    ).rows


def _scored(rows: tuple[TimelineRow, ...]) -> tuple[TimelineRow, ...]:
    return tuple(row for row in rows if row.timestamp_s >= rows[0].timestamp_s + WARM_UP_S)


def _details(finished: Finished, scored: tuple[TimelineRow, ...]) -> dict[str, Any]:
    """Facts beside the totals: the bill of the cloud itself, calls, recoveries."""
    prepared, options = finished.prepared, finished.prepared.options
    times = sorted(finished.start_times_s)
    start_p95_s = times[math.ceil(0.95 * len(times)) - 1] if times else math.nan
    limit_s = finished.signal_age_s + start_p95_s + 2.0 * options.tick_s
    found = recoveries(scored, prepared.policy.vm.capacity_per_s, options.tick_s)
    return {
        "policy_file": str(prepared.policy_file),
        "policy_in_words": describe(prepared.policy),
        "trace": prepared.trace.name,
        "begin": _time(prepared.begin_s),
        "clock_ahead_of_trace_s": finished.started_at_s - prepared.begin_s,
        "span_s": finished.ended_at_s - finished.started_at_s,
        "not_scored_s": WARM_UP_S,
        "speed": options.speed,
        "tick_s": options.tick_s,
        "ticks_skipped": finished.ticks_skipped,
        "machine_ms_per_tick": 1e3 * finished.tick_cost_s,
        "starts_measured": len(times),
        "start_p95_s": start_p95_s,
        "signal_age_max_s": finished.signal_age_s,
        "recovery_limit_s": limit_s,
        "recoveries": [
            {
                "start": _time(r.episode.start_s),
                "end": _time(r.episode.end_s),
                "unserved_work": r.episode.unserved_work,
                "last_rise": _time(r.last_rise_s),
                "took_s": r.took_s,
                "within_limit": None if math.isnan(limit_s) else r.took_s <= limit_s,
            }
            for r in found
        ],
        "bill_of_the_cloud": finished.billed,
        "bill_of_the_journal": finished.journal_cost,
        "calls": finished.calls["accepted"],
        "calls_refused": finished.calls["refused"],
        "vms_by_call": finished.calls["vms"],
    }


def _time(at_s: float) -> str:
    from autoscaler.traces.trace import describe_time

    return describe_time(at_s)
