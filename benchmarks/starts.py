"""The start path on a bad cloud day, on virtual time, against the embedded cloud with EC2's published API buckets.

Seconds are those of the virtual clock, where computing takes none: what is measured is what the daemon makes of the
provider's rules. The analytic minimum of a burst is what the buckets alone would allow to a caller that knows what
others spend. Others use half of every refill: they start a VM of their own each second, of the two that flow back.
Only the quiet tick is timed, in CPU time of the process.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from autoscaler.clock import VirtualClock, give_way, run_virtual
from autoscaler.cloud.buckets import PUBLISHED
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.vms import State
from autoscaler.cloud.world import World
from autoscaler.config.policy import Policy, policy_from
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.garbage_collection import GarbageCollection
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import FleetReadings, Listing, TickRecord, Vm
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.budgeted import BudgetedProvider
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import SqliteJournal
from autoscaler.wiring import wire
from benchmarks.calibration import Result, kernel_s
from benchmarks.quiet import Quiet

ORIGIN_S = 1_795_514_400.0
PER_VM = 100.0
TYPES = ("m7i.large", "m6i.large", "c7i.large", "r7i.large")
PLAIN = Physics(start=Spread(16), boot=Spread(3), launch=Spread(18), first_boot=Spread(7), stop=Spread(25))
FIRST, TICKS = 4, 20
"""Ticks of a daemon that has just begun, which are not looked at, and those that are."""
LONGEST, WANTED = "    and its longest turn of the event loop", "wanted: 20 or less, better 12"
Demand = Callable[[float], float]


class _Source:
    """Demand as a function of the seconds since the origin, told by one reading."""

    def __init__(self, clock: VirtualClock, demand: Demand) -> None:
        self._clock, self._demand = clock, demand

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        del vms
        now_s = self._clock.now()
        return FleetReadings(("",), np.array([self._demand(now_s - ORIGIN_S)]), np.array([now_s]))

    async def close(self) -> None:
        """Nothing is held."""


def _policy(name: str, most: int, **more: object) -> Policy:
    return policy_from(
        {
            "fleet": name,
            "act": True,
            "signal": {"kind": "total", "source": "trace", "max_age": "60s", "trace": {}},
            "vm": {"capacity": f"{PER_VM:.0f}/s", "start_time": "20s", "stop_time": "30s"},
            "readiness": {"probe": "status_checks"},
            "bounds": {"minimum": 0, "maximum": most},
            "reactive": {"headroom": "0%", "tolerance": "0%"},
            "guards": {
                "stabilisation": "0s",
                "cooldown_in": "60s",
                "minimum_on_time": "60s",
                "rate_out": {"vms": 10_000, "per": "1s"},
                "rate_in": {"vms": 10_000, "per": "1s"},
            },
            **more,
        }
    )


@dataclass
class _Run:
    """One fleet on one world, as it went."""

    world: World
    ids: tuple[str, ...]
    records: list[TickRecord]
    daemon: Daemon
    budget: CallBudget

    def started_at(self) -> list[float]:
        """For each VM whose start was accepted, seconds since the origin."""
        return [
            call.at_s - ORIGIN_S
            for call in self.world.api.calls
            if call.action == "StartInstances" and not call.code and call.vms
            for _ in range(call.vms)
        ]

    def in_service_at(self, vms: int) -> float:
        """Seconds since the origin until so many were seen in service."""
        return next(r.at_s - ORIGIN_S for r in self.records if r.fleets[0].in_service >= vms)


async def _play(
    demand: Demand,
    for_s: float,
    *,
    vms: int,
    types: tuple[str, ...] = TYPES[:1],
    zones: str = "abc",
    physics: Physics = PLAIN,
    faults: tuple[Fault, ...] = (),
    others: bool = False,
    drained: int = 0,
    seed: int = 1,
    tick_s: float = 10.0,
) -> _Run:
    clock = VirtualClock(ORIGIN_S)
    world = World(seed=seed, start_s=ORIGIN_S, physics=physics, faults=faults, zones=zones)
    ids: tuple[str, ...] = ()
    for vm_type in types:
        ids += place_fleet(world, ORIGIN_S, WorldFleet("web", vms // len(types), vm_type=vm_type))
    foreign = place_fleet(world, ORIGIN_S, WorldFleet("", 1, state=State.RUNNING))
    beside = MemoryProvider(world, clock)
    if drained:
        world.api.spend_vms(ORIGIN_S, "StartInstances", drained)

    async def use_half() -> None:
        while True:
            await beside.start(foreign)
            await clock.sleep_until(clock.monotonic() + 1.0)

    budget = CallBudget(clock)
    provider = BudgetedProvider(MemoryProvider(world, clock), budget, clock, seed=seed)
    journal = SqliteJournal(":memory:", inline=True)
    setup = FleetSetup(_policy("web", vms), provider, _Source(clock, demand), StatusCheckProbe(provider))
    records: list[TickRecord] = []
    daemon = Daemon(
        clock, [setup], journal, Telemetry(log=Quiet()), LoopSettings(tick_s=tick_s), records.append
    )
    using = asyncio.create_task(use_half()) if others else None
    asyncio.get_running_loop().call_later(for_s + 0.5, daemon.stop)
    await daemon.run()
    if using is not None:
        using.cancel()
    await journal.close()
    return _Run(world, ids, records, daemon, budget)


def _minimum_s(vms: int, calls: int, tokens: float) -> float:
    """When the last start could have been ordered: others leave one call and one VM a second of the two."""
    request = PUBLISHED.requests["StartInstances"]
    return max(max(calls - request.size, 0.0) / 1.0, max(vms - tokens, 0.0) / 1.0)


def _bursts() -> list[Result]:
    results = []
    for name, drained in (("a full bucket", 0), ("a bucket of 700 VMs", 300)):
        drawn = partial(
            _play, lambda _: 1000 * PER_VM, 420.0, types=TYPES, vms=1008, others=True, drained=drained
        )
        run = run_virtual(drawn)
        took_s = _when(run, 1000)
        minimum_s = _minimum_s(1000, 12, 1000.0 - drained)
        note = f"analytic minimum {minimum_s:.1f} s; {run.budget.refusals} refused calls"
        results.append(Result(f"1,000 starts of 12 kinds, {name}, others use half", took_s, "s", note))
    return results


def _when(run: _Run, vms: int) -> float:
    """Seconds until so many starts of the fleet were ordered, by the launch times of its VMs."""
    views = run.world.views(run.world.now_s, "web")
    times = sorted(v.launched_at_s - ORIGIN_S for v in views if v.state is not State.STOPPED)
    return times[vms - 1]


def _one_bad() -> list[Result]:
    bad = run_virtual(partial(_play, lambda _: 0.0, 1.0, vms=120, zones="a")).ids[37]
    faults = (Fault(FaultKind.NO_CAPACITY, vm_ids=(bad,), code="InvalidParameterValue"),)
    run = run_virtual(partial(_play, lambda _: 100 * PER_VM, 60.0, vms=120, zones="a", faults=faults))
    at_s = run.started_at()
    early = sum(at <= 1.5 for at in at_s)
    return [
        Result("100 starts, one VM broken: ordered within 1.5 s", early, "VMs", "wanted: 85 or more"),
        Result(
            "  and the last of the 100, the replacement included", sorted(at_s)[99], "s", "wanted: 6 or less"
        ),
    ]


def _dry_zone() -> list[Result]:
    def demand(second: float) -> float:
        return PER_VM * (10 if second < 60 else 60)

    dry = (Fault(FaultKind.NO_CAPACITY, zone="us-east-1a", start_s=50, end_s=650),)
    plain = run_virtual(partial(_play, demand, 300.0, vms=150))
    faulty = run_virtual(partial(_play, demand, 300.0, vms=150, faults=dry))
    later_s = faulty.in_service_at(60) - plain.in_service_at(60)
    refused = sum(
        call.code == "InsufficientInstanceCapacity" and call.action == "StartInstances"
        for call in faulty.world.api.calls
    )
    note = f"{plain.in_service_at(60) - 60:.0f} s without the fault; {refused} refused calls; wanted: one start + 2 s at most"
    return [Result("one zone dry for ten minutes: capacity later by", later_s, "s", note)]


def _hedging() -> list[Result]:
    def demand(second: float) -> float:
        return PER_VM * (40 + 20 * math.sin(second / 600.0 * 2 * math.pi))

    physics = Physics(start=Spread(16, 0.2), boot=Spread(3, 0.3), stop=Spread(25, 0.2))
    late = (Fault(FaultKind.STUCK_PENDING, start_s=1800, probability=0.1, delay_s=150),)
    run = run_virtual(partial(_play, demand, 4 * 3600.0, vms=90, physics=physics, faults=late))
    hedges = run.daemon.fleets.all[0].inventory.hedges
    short = sum(max(r.fleets[0].desired - r.fleets[0].in_service, 0) for r in run.records)
    note = f"{hedges.idle_s:,.0f} of {hedges.served_s:,.0f} VM-seconds; {short} VM-ticks of desired not in service"
    return [
        Result(
            "every tenth start 150 s late: run for nothing", 100 * hedges.idle_s / hedges.served_s, "%", note
        )
    ]


class _MadeAnew(MemoryProvider):
    """Lists as EC2 does: page by page, every row a new value; in each listing one VM of so many has another tag."""

    changed_every = 0

    async def list_vms(self) -> Listing:
        listing = await super().list_vms()
        turn, rows = int(listing.requested_at_s) // 10, []
        for at, vm in enumerate(listing.vms):
            if at % 200 == 199:
                await give_way()
            changed = self.changed_every and (at + turn) % self.changed_every == 0
            rows.append(replace(vm, tags={**vm.tags, "seen": str(turn)} if changed else dict(vm.tags)))
        await give_way()
        return replace(listing, vms=tuple(rows))


async def _quiet(
    fleets: int, vms: int, lists: type[MemoryProvider] = MemoryProvider, changed_every: int = 0
) -> tuple[float, float, int]:
    """CPU time and longest turn of the event loop of a quiet tick, in ms, and listings of all `TICKS`."""
    clock = VirtualClock(ORIGIN_S)
    world = World(start_s=ORIGIN_S, physics=PLAIN, zones="abc")
    names = [f"fleet-{number:03d}" for number in range(fleets)]
    for name in names:
        place_fleet(world, ORIGIN_S, WorldFleet(name, vms // fleets // 2))
        place_fleet(world, ORIGIN_S, WorldFleet(name, vms // fleets // 2, state=State.RUNNING))
    lister = lists(world, clock)
    if isinstance(lister, _MadeAnew):
        lister.changed_every = changed_every
    provider = BudgetedProvider(lister, CallBudget(clock), clock)
    running = vms // fleets // 2
    policies = [_policy(name, vms // fleets, readiness={"probe": "running", "after": "0s"}) for name in names]
    wired = wire(policies, provider, clock, lambda _: _Source(clock, lambda _: running * PER_VM))
    journal = SqliteJournal(":memory:", inline=True)
    ticks: list[float] = []
    daemon = Daemon(clock, wired.setups, journal, Telemetry(log=Quiet()), LoopSettings(), lambda _: None)
    loop = asyncio.get_running_loop()
    slices: list[float] = []
    runs = loop._run_once  # type: ignore[attr-defined]  # noqa: SLF001  one turn of the event loop is the slice

    def timed() -> None:
        before_s = time.process_time()
        runs()
        slices.append(time.process_time() - before_s)

    loop._run_once = timed  # type: ignore[attr-defined]  # noqa: SLF001  as above
    at_each = world.api.call_counts["DescribeInstances", ""]
    collecting = GarbageCollection()
    collecting.begin()
    try:
        for number in range(FIRST + TICKS):
            if number == FIRST:
                slices.clear()
                at_each = world.api.call_counts["DescribeInstances", ""]
            before_s = time.process_time()
            await daemon.tick(int(ORIGIN_S // 10) + number)
            ticks.append(time.process_time() - before_s)
            # As `daemon.lifecycle` does, in a turn of its own, which counts.
            await clock.sleep_until(clock.monotonic() + 9.0)
            collecting.between_ticks(clock.monotonic())
            await clock.sleep_until(clock.monotonic() + 1.0)
    finally:
        collecting.end()
    listings = world.api.call_counts["DescribeInstances", ""] - at_each
    await journal.close()
    return float(np.median(ticks[FIRST:])) * 1e3, max(slices) * 1e3, listings


def run() -> list[Result]:
    """One run each; the quiet tick is the median of `TICKS`."""
    unit_s = kernel_s()
    results = [Result("calibration: in-place add, 1,000 float64", unit_s * 1e6, "us")]
    results += [*_bursts(), *_one_bad(), *_dry_zone(), *_hedging()]
    pages = 20
    for fleets, of in ((200, "in 200 fleets"), (1, "in one fleet")):
        tick_ms, slice_ms, listings = run_virtual(partial(_quiet, fleets, 20_000))
        note = f"{tick_ms / 1e3 / unit_s:,.0f} adds of 1,000; {listings / TICKS / pages:.2f} listings of {pages} pages a tick"
        results.append(Result(f"a quiet tick of 20,000 VMs {of}", tick_ms, "ms", note))
        results.append(Result(LONGEST, slice_ms, "ms", WANTED))
        for every, name in (
            (0, "  all rows made anew, as EC2 lists"),
            (100, "  and one VM in a hundred changed"),
        ):
            tick_ms, slice_ms, _ = run_virtual(partial(_quiet, fleets, 20_000, _MadeAnew, every))
            results.append(Result(name, tick_ms, "ms", "making the rows included"))
            results.append(Result(LONGEST, slice_ms, "ms", WANTED))
    return results
