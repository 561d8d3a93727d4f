"""The adapters of a daemon in long lives: a provider, a balancer and a source, each with random troubles.

Rules of this file: each call is checked by the laws before it is carried out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from autoscaler.ports import FleetReadings, Member, Rotation, RotationView
from autoscaler.providers.memory import MemoryProvider
from tests.soak.households import DRAIN_S

if TYPE_CHECKING:
    from tests.soak.lives import House

KINDS = (
    "the balancer hangs",
    "the balancer is gone",
    "the balancer says nothing of some",
    "the balancer's answers are lost",
    "metrics hang",
    "metrics are lost",
    "listings hang",
    "answers are lost",
    "the balancer does not say of one VM",
)
HOUR_S = 3600.0


class Troubles:
    """Random windows of time in which something does not work."""

    def __init__(self, rng, span_s: float, kinds: tuple[str, ...], met: Counter[str]) -> None:
        self._windows = {
            kind: [
                (start, start + float(rng.uniform(20.0, 400.0)))
                for start in sorted(rng.uniform(600.0, span_s, max(1, round(span_s / (2.5 * HOUR_S)))))
            ]
            for kind in kinds
        }
        self._met = met

    def on(self, kind: str, second: float) -> bool:
        found = any(start <= second < end for start, end in self._windows[kind])
        self._met[kind] += found
        return found

    def mute(self, vm_id: str, second: float) -> bool:
        """Whether the balancer omits this VM in the current window: about a third of all, different ones in each window."""
        kind = "the balancer does not say of one VM"
        for start, end in self._windows[kind]:
            if start <= second < end and crc32(f"{vm_id} {start}".encode()) % 3 == 0:
                self._met[kind] += 1
                return True
        return False


class Front:
    """A balancer: a VM in rotation gets work as soon as it is ready; a cordoned VM takes a random time to finish its work."""

    def __init__(self, house: House, fleet: str) -> None:
        self._house, self._fleet = house, fleet
        self._rng = np.random.default_rng((house.seed, len(fleet)))
        self.within: set[str] = set()
        self.out_s: dict[str, tuple[float, float]] = {}
        """By cordoned VM: when it was cordoned, and until when it has work."""

    def works(self, vm_id: str) -> bool:
        """Whether the VM gets work now."""
        return vm_id in self.within and vm_id in self._house.ready(self._fleet)

    def busy(self, vm_id: str) -> bool:
        """Whether the VM has work left."""
        now_s = self._house.true.now()
        left = (
            vm_id in self.out_s and now_s < self.out_s[vm_id][1] and vm_id in self._house.ready(self._fleet)
        )
        return left or self.works(vm_id)

    async def look(self, vms):
        return await self._view("look", vms)

    async def admit(self, vms):
        return await self._view("admit", vms)

    async def cordon(self, vms):
        return await self._view("cordon", vms)

    async def close(self):
        pass

    async def _view(self, what, vms):
        house, second = self._house, self._house.clock.monotonic()
        house.lived.met[what] += len(vms)
        if house.troubles.on("the balancer hangs", second):
            await asyncio.Event().wait()
        if house.troubles.on("the balancer is gone", second):
            return RotationView({}, house.clock.now(), "the socket is gone")
        silent = house.troubles.on("the balancer says nothing of some", second)
        members = {}
        for vm in vms:
            if (silent and self._rng.random() < 0.5) or house.troubles.mute(vm.id, second):
                continue
            self._change(what, vm.id)
            rotation = Rotation.IN if self.works(vm.id) else Rotation.OUT
            if vm.id in self.out_s:
                rotation = Rotation.CORDONED
            members[vm.id] = Member(rotation, 3 if self.busy(vm.id) else 0)
        if house.troubles.on("the balancer's answers are lost", second):
            return RotationView({}, house.clock.now(), "no answer")
        return RotationView(members, house.clock.now(), "of some nothing is known" if silent else "")

    def _change(self, what, vm_id):
        now_s = self._house.true.now()
        if what == "admit":
            self.within.add(vm_id)
            self.out_s.pop(vm_id, None)
        elif what == "cordon" and (vm_id in self.within or vm_id not in self.out_s):
            had = self.works(vm_id)
            self.within.discard(vm_id)
            longest_s = 3.0 * DRAIN_S if self._rng.random() < 0.1 else 0.6 * DRAIN_S
            self.out_s[vm_id] = (now_s, now_s + float(self._rng.uniform(0.0, longest_s)) if had else now_s)


class Source:
    """A fleet's demand as a function of time, with troubles."""

    def __init__(self, house: House, demand) -> None:
        self._house, self._demand = house, demand

    async def read(self, vms):
        del vms
        clock, troubles = self._house.clock, self._house.troubles
        if troubles.on("metrics hang", clock.monotonic()):
            await asyncio.Event().wait()
        if troubles.on("metrics are lost", clock.monotonic()):
            return FleetReadings((), np.empty(0), np.empty(0), "the exporter is down")
        value = self._demand(clock.monotonic())
        return FleetReadings(("",), np.full(1, value), np.full(1, clock.now()))

    async def close(self):
        pass


class Provider(MemoryProvider):
    """The in-process provider, with each call checked by the laws."""

    def __init__(self, house: House) -> None:
        super().__init__(house.world, house.true)
        self._house = house

    async def list_vms(self):
        house = self._house
        if house.troubles.on("listings hang", house.clock.monotonic()):
            await asyncio.Event().wait()
        found = await super().list_vms()
        if found.complete:
            house.listed_s = found.requested_at_s
        ahead_s = house.clock.now() - house.true.now()
        return replace(
            found,
            requested_at_s=found.requested_at_s + ahead_s,
            received_at_s=found.received_at_s + ahead_s,
        )

    async def start(self, vm_ids):
        self._house.laws.starting(vm_ids)
        return await self._lost(await super().start(vm_ids))

    async def stop(self, vm_ids, *, force=False, hibernate=False):
        if not force:
            self._house.laws.stopping(vm_ids)
        return await self._lost(await super().stop(vm_ids, force=force, hibernate=hibernate))

    async def terminate(self, vm_ids):
        self._house.laws.terminating(vm_ids)
        return await self._lost(await super().terminate(vm_ids))

    async def provision(self, spec, count, token):
        self._house.laws.provisioning(spec, count, token)
        return await self._lost(await super().provision(spec, count, token))

    async def _lost(self, outcomes):
        self._house.lived.met.update(str(outcome.kind) for outcome in outcomes)
        if self._house.troubles.on("answers are lost", self._house.clock.monotonic()):
            await asyncio.Event().wait()
        return outcomes
