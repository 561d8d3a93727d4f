"""Records a running fleet: reads its policy's source tick by tick, and makes a trace of the demand.

Before a daemon is trusted with a fleet, replays need its demand, measured in the same way. So the source, the bounds on
waiting and the fold are the daemon's own. Nothing is started, stopped or written elsewhere.

Rules of this file: a tick without a fresh reading is a gap. VMs that have never reported are not waited for. VMs that have
reported once and fall silent count with the mean of the others, as in the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from autoscaler.config.compiling import compile_params
from autoscaler.config.policy import Policy
from autoscaler.core.demand import fold
from autoscaler.core.types import Freshness, Readings, Samples
from autoscaler.daemon.observing import Observer
from autoscaler.errors import TraceError
from autoscaler.ports import Clock, FleetReadings, Listing, MetricSource, Provider, Vm, VmState
from autoscaler.traces.trace import Trace, TraceKind

OBSERVE_SHARE = 0.8
"""Share of a tick after which outstanding answers are no longer waited for, as in the daemon."""

Tell: TypeAlias = Callable[[str], None]
Observation: TypeAlias = tuple[Listing | None, dict[str, FleetReadings]]
"""The listing, if there is a provider, and the readings by fleet."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The result of a recording.

    Attributes:
        trace: Gauge of work per second; None if fewer than two ticks had a measurement.
        ticks: Number of ticks tried.
        unknown: Number of ticks without a fresh reading.
        error: The last error of the source or the listing; empty if there was none.
    """

    trace: Trace | None
    ticks: int
    unknown: int
    error: str


@dataclass(slots=True)
class Sampling:
    """A recording of one fleet in progress.

    Attributes:
        policy: The policy whose signal is read.
        source: Its source.
        clock: The clock that sets the ticks.
        every_s: Length of a tick, and of the trace's intervals.
        provider: Lists the VMs; None if `vms` are given.
        vms: The VMs, if they are given.
        tell: Called with a text when something goes wrong, and when all is well again.
    """

    policy: Policy
    source: MetricSource
    clock: Clock
    every_s: float
    provider: Provider | None = None
    vms: Sequence[Vm] = ()
    tell: Tell = print
    _reported: dict[str, None] = field(default_factory=dict)
    _ticks: list[tuple[int, float, bool]] = field(default_factory=list)
    _error: str = ""
    _last_told: str = ""

    async def run(self, for_s: float, stop: asyncio.Event) -> Sampled:
        """Sample on the absolute grid of ticks until `for_s` seconds are over or `stop` is set.

        Raises:
            TraceError: The time is shorter than two ticks, or the fleet measures a queue.
        """
        if self.policy.signal.kind == "queue":
            raise TraceError(
                "a trace holds demand, but a queue signal measures a backlog: record a fleet with another signal.kind"
            )
        if for_s < 2 * self.every_s:
            raise TraceError(
                f"{for_s:g} s are less than the two ticks of {self.every_s:g} s that a trace needs; record for longer"
            )
        observer = Observer(self.clock)
        stopping = asyncio.create_task(stop.wait())
        vms = tuple(self.vms)
        if self.provider is not None:
            vms = self._serving(await self._observed(observer, {}, ()))
        number = int(self.clock.now() // self.every_s) + 1
        end_s = number * self.every_s + for_s
        try:
            while number * self.every_s < end_s and await self._reached(number * self.every_s, stopping):
                listing, readings = await self._observed(observer, {self.policy.fleet: self.source}, vms)
                self._take(number, readings[self.policy.fleet], vms)
                if self.provider is not None:
                    vms = self._serving((listing, readings), vms)
                number = max(number + 1, int(self.clock.now() // self.every_s) + 1)
        finally:
            stopping.cancel()
        return self._sampled()

    async def _reached(self, at_s: float, stopping: asyncio.Task[bool]) -> bool:
        """Wait until a moment; return False if recording is to stop first."""
        until_s = self.clock.monotonic() + at_s - self.clock.now()
        waiting = asyncio.ensure_future(self.clock.sleep_until(until_s))
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return not stopping.done()

    async def _observed(
        self, observer: Observer, sources: Mapping[str, MetricSource], vms: Sequence[Vm]
    ) -> Observation:
        providers = [] if self.provider is None else [self.provider]
        listings, readings = await observer.observe(
            providers, sources, dict.fromkeys(sources, vms), OBSERVE_SHARE * self.every_s
        )
        return next(iter(listings.values()), None), readings

    def _serving(self, observed: Observation, before: tuple[Vm, ...] = ()) -> tuple[Vm, ...]:
        """Return the fleet's running VMs, or those of the last complete listing if this one is not complete."""
        listing, _ = observed
        if listing is None or not listing.complete:
            self._say(f"VMs cannot be listed: {listing.error if listing else 'no answer'}")
            return before
        return tuple(
            vm for vm in listing.vms if vm.state is VmState.RUNNING and vm.fleet == self.policy.fleet
        )

    def _take(self, number: int, got: FleetReadings, vms: Sequence[Vm]) -> None:
        now_s = self.clock.now()
        there = {vm.id for vm in vms}
        self._reported.update(dict.fromkeys(vm for vm in got.vm_ids if vm))
        expected = sum(vm in there for vm in self._reported)
        samples = self._folded(got, expected, now_s)
        fresh = samples.freshness[0] == Freshness.FRESH
        self._say(got.error or ("" if fresh else f"no fresh reading of {len(vms)} VMs"))
        self._ticks.append((number, float(samples.demand[0]), bool(samples.censored[0])))

    def _folded(self, got: FleetReadings, expected: int, now_s: float) -> Samples:
        params = compile_params([self.policy], self.every_s, now_s).fold
        capacity = self.policy.vm.capacity_per_s
        readings = Readings(
            lane=np.zeros(len(got.values), np.int64),
            value=got.values,
            observed_at_s=got.observed_at_s,
            capacity=np.full(len(got.values), capacity),
        )
        return fold(params, readings, np.array([expected]), np.array([expected * capacity]), now_s)

    def _say(self, text: str) -> None:
        """Report a problem once, and once that all is well again."""
        if text:
            self._error = text
        if text != self._last_told:
            self.tell(text or "readings arrive again")
            self._last_told = text

    def _sampled(self) -> Sampled:
        known = [tick for tick in self._ticks if np.isfinite(tick[1])]
        trace = None
        if len(known) >= 2:
            numbers, demand, censored = zip(*known, strict=True)
            trace = Trace.build(
                np.array(numbers) * self.every_s,
                demand,
                kind=TraceKind.GAUGE,
                name=self.policy.fleet,
                interval_s=self.every_s,
                censored=censored,
            )
        return Sampled(trace, len(self._ticks), len(self._ticks) - len(known), self._error)
