"""The loop engine: how many ticks of the whole daemon a second of this machine holds, on virtual time.

Everything of a tick is in it (observe, reconcile, decide, journal in memory, act, account) but HTTP and the disk.
Busy fleets follow a generated crowd and order by forecasts; an idle one has stopped VMs only, a load balancer that reports
no work, and a policy without a forecast.
The skeleton is an event loop on the same clock that wakes at each tick and does nothing: what is left when all
of the daemon is taken away. Times are those of the process on its CPU: everything is done in one thread, and other
processes of the machine do not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.policy import policy_from
from autoscaler.core.types import Signal
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import Listing
from autoscaler.providers.memory import MemoryProvider
from autoscaler.simulator.traffic.parts import DEFAULT_START_S
from autoscaler.simulator.traffic.synth import synth_day
from autoscaler.sources.trace import TraceSource
from autoscaler.store import SqliteJournal
from autoscaler.traces.trace import Trace, TraceKind
from autoscaler.wiring import simulated, wire
from benchmarks.calibration import Result, kernel_s
from benchmarks.quiet import Quiet

TICK_S = 10.0
BEGIN_S = DEFAULT_START_S + 9.5 * 3600.0
ROUNDS = 3
PER_VM = 120.0


@dataclass(frozen=True, slots=True)
class Case:
    """So many fleets of so many VMs over so many ticks; `idle`, `steady` or else `busy`.

    `told` is busy too, with demand that is measured elsewhere than on the VMs, as fleets in shadow need here, none of
    whose VMs really runs. All rows of listings are made anew there, as over a network; the time of that does not count.
    Forecasts that no policy decides on are made where `forecasts` says so, as the daemon does for its operators.
    """

    name: str
    fleets: int
    vms: int
    ticks: int
    traffic: str = "busy"
    forecasts: bool = False
    rounds: int = 3
    act: bool = True

    @property
    def total(self) -> bool:
        """Whether demand is told as a whole, not measured on VMs."""
        return self.traffic in ("idle", "told")


ACTING = Case("100 busy fleets of 10 VMs, demand told", 100, 10, 120, "told")
IN_SHADOW = replace(ACTING, name="100 such fleets in shadow", act=False)
CASES = (
    Case("one busy fleet of 50 VMs", 1, 50, 720, rounds=8),
    Case("one fleet of 50 VMs, demand never changes", 1, 50, 720, "steady", rounds=8),
    Case("one idle fleet of 50 stopped VMs", 1, 50, 2000, "idle", rounds=12),
    Case("one idle fleet of 50 stopped VMs, forecast", 1, 50, 2000, "idle", forecasts=True),
    Case("20 busy fleets of 10 VMs", 20, 10, 360),
    Case("20 idle fleets of 10 stopped VMs", 20, 10, 720, "idle"),
    Case("100 busy fleets of 10 VMs", 100, 10, 120),
    ACTING,
    IN_SHADOW,
    Case("1,000 busy fleets of 10 VMs", 1000, 10, 30),
)


class _Anew(MemoryProvider):
    """A provider whose listings hold equal rows, never the same."""

    spent_s = 0.0

    async def list_vms(self) -> Listing:
        listing = await super().list_vms()
        before_s = time.process_time()
        listing = replace(listing, vms=tuple([replace(vm) for vm in listing.vms]))
        self.spent_s += time.process_time() - before_s
        return listing


def _policy(name: str, case: Case) -> dict[str, object]:
    idle = case.traffic == "idle"
    return {
        "fleet": name,
        "signal": {
            "kind": "total" if case.total else "throughput",
            "source": "trace",
            "max_age": "150s",
            "trace": {},
        },
        "vm": {"capacity": f"{PER_VM:.0f}/s", "start_time": "30s", "stop_time": "30s"},
        "readiness": {"probe": "status_checks"},
        "bounds": {"minimum": 0 if idle else 2, "maximum": case.vms},
        "reactive": {"headroom": "20%"},
        # A forecast that has seen nothing yet keeps a VM, just in case, and then the fleet is not idle.
        **({} if idle else {"forecast": {}}),
    }


def _traces(case: Case) -> Iterator[Trace]:
    stamps = BEGIN_S + 60.0 * np.arange(round(case.ticks * TICK_S / 60.0) + 2)
    level = {"steady": case.vms / 2.0 * PER_VM, "idle": 0.0}.get(case.traffic)
    for seed in range(case.fleets):
        if level is None:
            # A day's crowd, for fleets of this size.
            yield synth_day(seed % 10 + 1).scaled_to_peak(0.8 * case.vms * PER_VM)
        else:
            values = np.full(len(stamps), level)
            yield Trace.build(stamps, values, kind=TraceKind.GAUGE, name=case.traffic, interval_s=60.0)


async def _seconds(case: Case, traces: dict[str, Trace]) -> float:
    """Seconds of one CPU that the daemon's own run takes."""
    clock = VirtualClock(BEGIN_S)
    cloud = CloudSetup(seed=1, fleets=tuple(FleetSetup(name, case.vms) for name in traces), api_limits=False)
    policies = [simulated(policy_from(_policy(name, case))) for name in traces]
    if not case.act:
        policies = [policy.model_copy(update={"act": False}) for policy in policies]
    signal = Signal.TOTAL if case.total else Signal.THROUGHPUT
    sources = {name: TraceSource(trace, clock, signal, PER_VM) for name, trace in traces.items()}
    world = cloud.world(BEGIN_S)
    anew = _Anew(world, clock)
    provider = anew if case.traffic == "told" else MemoryProvider(world, clock)
    wired = wire(policies, provider, clock, lambda policy: sources[policy.fleet])
    journal = SqliteJournal(":memory:", inline=True)
    settings = LoopSettings(tick_s=TICK_S, forecasts=case.forecasts)
    daemon = Daemon(clock, wired.setups, journal, Telemetry(log=Quiet()), settings)
    asyncio.get_running_loop().call_later(case.ticks * TICK_S - 0.5 * TICK_S, daemon.stop)
    before_s = time.process_time()
    await daemon.run()
    seconds = time.process_time() - before_s - anew.spent_s
    assert daemon.last_record is not None
    assert daemon.last_record.tick - int(BEGIN_S // TICK_S) == case.ticks - 1
    await journal.close()
    return seconds


async def _skeleton(ticks: int) -> float:
    clock = VirtualClock(BEGIN_S)
    before_s = time.process_time()
    for tick in range(ticks):
        await clock.sleep_until(tick * TICK_S)
    return time.process_time() - before_s


def run() -> list[Result]:
    """Best of three runs each, and of more where a run is so short that one disturbance is most of it."""
    unit_s = kernel_s()
    results = [Result("calibration: in-place add, 1,000 float64", unit_s * 1e6, "us")]
    ticks = 5000
    bare_s = min(run_virtual(partial(_skeleton, ticks)) for _ in range(ROUNDS)) / ticks
    results.append(
        Result(
            "skeleton: the event loop alone", 1.0 / bare_s, "tick/s", f"{bare_s / unit_s:,.0f} adds of 1,000"
        )
    )
    seconds_of: dict[Case, float] = {}
    for case in CASES:
        traces = {f"fleet-{number:04d}": trace for number, trace in enumerate(_traces(case))}
        seconds = min(run_virtual(partial(_seconds, case, traces)) for _ in range(case.rounds))
        seconds_of[case] = seconds
        per_tick_s = seconds / case.ticks
        note = f"{per_tick_s / unit_s:,.0f} adds of 1,000; {per_tick_s / bare_s:,.0f} skeletons"
        if case.fleets > 1:
            note += f"; {per_tick_s / case.fleets * 1e6:,.0f} us per fleet"
        results.append(Result(case.name, 1.0 / per_tick_s, "tick/s", note))
    ratio = seconds_of[IN_SHADOW] / seconds_of[ACTING]
    results.append(Result("time of a tick in shadow / acting, 100 fleets", ratio, "x", "less is better"))
    return results
