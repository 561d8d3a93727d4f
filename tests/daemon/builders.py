"""A daemon on virtual time in which everything but the demand is real: world, provider, journal, loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import FleetSetup as WorldFleet
from autoscaler.cloud.setup import place_fleet
from autoscaler.cloud.vms import State
from autoscaler.cloud.world import World
from autoscaler.config.policy import policy_from
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.ports import FleetReadings, Listing, Vm, VmState
from autoscaler.ports.hooks import HookResult
from autoscaler.providers.memory import MemoryProvider
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.store import SqliteJournal

ORIGIN_S = 1_795_514_400.0  # a point of every grid used here
TICK_0 = int(ORIGIN_S // 10)
EXACT = Physics(start=Spread(16), boot=Spread(3), launch=Spread(18), first_boot=Spread(7), stop=Spread(25))
"""Durations without randomness: a started VM runs after 16 s and is ready after 19 s; a stop takes 25 s."""


def reconcile(inventory, listing, vms, now_s):
    """Reconcile an inventory with a complete listing, and return the notes that deserve an event."""
    notes = []
    for _ in inventory.reconciling(listing, vms, now_s, notes):
        pass
    return notes


def policy(fleet="web", **changes):
    """A policy that follows demand at once, with 100/s per VM. Changed sections are merged key by key; None removes one."""
    data = {
        "fleet": fleet,
        "act": True,
        "signal": {"kind": "throughput", "source": "trace", "max_age": "30s", "zero_hold": "0s", "trace": {}},
        "vm": {"capacity": "100/s", "start_time": "20s", "stop_time": "30s"},
        "bounds": {"minimum": 0, "maximum": 20},
        "reactive": {"headroom": "0%", "tolerance": "0%"},
        "guards": {
            "stabilisation": "0s",
            "cooldown_in": "0s",
            "minimum_on_time": "0s",
            "rate_out": {"vms": 1000, "per": "1s"},
            "rate_in": {"vms": 1000, "per": "1s"},
        },
        "prices": {"in_service": "3600/h", "stopped": "36/h", "start": 5, "provision": 7},
    }
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(data.get(key), dict) and value is not None else value
    return policy_from({key: value for key, value in data.items() if value is not None})


class Demand:
    """A source whose demand is a function of the seconds since the origin, spread evenly over VMs. None gives no reading.

    `asked` holds the number of VMs of each read.
    """

    def __init__(self, clock, demand, *, total=False):
        self.clock, self.demand, self.total = clock, demand, total
        self.asked: list[int] = []

    async def read(self, vms):
        self.asked.append(len(vms))
        now_s = self.clock.now()
        value = self.demand(now_s - ORIGIN_S) if callable(self.demand) else self.demand
        ids = ("",) if self.total else tuple(vm.id for vm in vms)
        if value is None or not ids:
            return FleetReadings((), np.empty(0), np.empty(0), "" if ids else "nobody to ask")
        share = float(value) / len(ids)
        return FleetReadings(ids, np.full(len(ids), share), np.full(len(ids), now_s))

    async def close(self):
        pass


class Log:
    """A logger that keeps its lines."""

    def __init__(self):
        self.lines: list[tuple[str, str, dict]] = []

    def debug(self, event, **facts):
        self.lines.append(("debug", event, facts))

    def info(self, event, **facts):
        self.lines.append(("info", event, facts))

    def warning(self, event, **facts):
        self.lines.append(("warning", event, facts))

    def error(self, event, **facts):
        self.lines.append(("error", event, facts))

    def exception(self, event, **facts):
        self.lines.append(("exception", event, facts))

    def events(self):
        return [event for _, event, _ in self.lines]

    def texts(self, event):
        return [facts["text"] for _, name, facts in self.lines if name == event]


class Bench:
    """A world and a daemon that acts on it. Must be created inside `run_virtual`."""

    def __init__(self, *, vms=10, running=0, faults=(), clock=None, physics=EXACT, tick_s=10.0, **world):
        self.clock = clock or VirtualClock(ORIGIN_S)
        self.world = World(start_s=ORIGIN_S, physics=physics, faults=faults, **world)
        self.provider = MemoryProvider(self.world, self.clock)
        self.journal = SqliteJournal(":memory:", inline=True)
        self.log = Log()
        self.telemetry = Telemetry(log=self.log)
        self.settings = LoopSettings(tick_s=tick_s)
        self.records = []
        self.setups = []
        self.ids = self.place("web", vms, running) if vms or running else ()
        self.daemon = None

    def place(self, fleet, vms, running=0):
        on = place_fleet(self.world, ORIGIN_S, WorldFleet(fleet, running, state=State.RUNNING))
        return (*on, *place_fleet(self.world, ORIGIN_S, WorldFleet(fleet, vms)))

    def add(self, policy, source, *, provider=None, probe=None):
        provider = provider or self.provider
        if not hasattr(source, "read"):
            source = Demand(self.clock, source, total=policy.signal.kind == "total")
        self.setups.append(FleetSetup(policy, provider, source, probe or StatusCheckProbe(provider)))
        return source

    async def run(self, for_s):
        """Run the daemon for `for_s`, with ticks at 0, `tick_s`, …, both ends included, and return their records."""
        self.daemon = Daemon(
            self.clock, self.setups, self.journal, self.telemetry, self.settings, self.records.append
        )
        asyncio.get_running_loop().call_later(for_s + 0.5, self.daemon.stop)
        await self.daemon.run()
        return self.records

    def rows(self, fleet="web"):
        return [row for record in self.records for row in record.fleets if row.fleet == fleet]

    def column(self, name, fleet="web"):
        return [getattr(row, name) for row in self.rows(fleet)]

    def calls(self, *actions):
        """The world's calls of these actions, as (seconds since the origin, action, VMs, code)."""
        return [
            (call.at_s - ORIGIN_S, call.action, call.vms, call.code)
            for call in self.world.api.calls
            if call.action in actions
        ]

    def changes(self):
        return self.calls(
            "StartInstances", "StopInstances", "RunInstances", "TerminateInstances", "CreateTags"
        )

    def events(self):
        """The events after the start of the daemon, as (seconds since the origin, kind, text)."""
        with self.journal.reader() as reader:
            events = [e for e in reader.events(0, 1e12) if e.kind != "daemon_started"]
        return [(e.at_s - ORIGIN_S, e.kind, e.text) for e in events]

    def actions(self, fleet="web"):
        with self.journal.reader() as reader:
            return reader.actions(fleet, 0, 1e12)


class OwnTime:
    """A provider on true time as the daemon sees it: its listings are dated by the daemon's own clock."""

    def __init__(self, provider, clock):
        self.provider, self.clock = provider, clock

    def __getattr__(self, name):
        return getattr(self.provider, name)

    async def list_vms(self):
        found = await self.provider.list_vms()
        return replace(found, requested_at_s=self.clock.now(), received_at_s=self.clock.now())


def virtual(test: Callable[[], Awaitable[None]]):
    """Decorator that runs a coroutine test on virtual time."""

    def run():
        return run_virtual(test)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


def steady(*levels):
    """Demand as a step function, given as pairs of (from second, value)."""

    def at(second):
        value = math.nan
        for begin, level in levels:
            if second >= begin:
                value = level
        return value

    return at


def vm(vm_id="i-1", state=VmState.STOPPED, *, launched=0.0, zone="a", vm_type="m", reason="", tags=None):
    return Vm(vm_id, "web", state, vm_type, zone, None, launched, "ami", tags or {}, reason)


def listing(*vms, at, took=0.0, complete=True):
    return Listing(tuple(vms), complete, at, at + took, "" if complete else "a page is missing")


class Watched(list):
    """A list of records that passes each one to a watch. If the watch raises, the run ends."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def append(self, record):
        super().append(record)
        self.watch(record)


class SimulatedHook:
    """A `VmHook` that takes `took_s` and returns what `answer` says for the VM; by default, all VMs are well."""

    def __init__(self, clock, *, took_s=5.0, answer=None):
        self._clock, self._took_s = clock, took_s
        self._answer = answer or (lambda _: HookResult(well=True))
        self.timeout_s = took_s + 60.0
        self.runs = []
        """For each run, the time at which it began, and the VM."""

    async def run(self, vm):
        self.runs.append((self._clock.now(), vm.id))
        await self._clock.sleep_until(self._clock.monotonic() + self._took_s)
        return self._answer(vm)

    async def close(self):
        pass
