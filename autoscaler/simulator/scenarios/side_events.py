"""Events beside the daemon during a scenario: lost readings, and others who change VMs.

Rules of this file: random draws depend on (seed, VM), never on a running stream, so that one event does not change another's
draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscaler.cloud.setup import FleetSetup, place_fleet
from autoscaler.cloud.vms import State, VmView
from autoscaler.cloud.world import World
from autoscaler.errors import ProviderError
from autoscaler.ports import Clock, FleetReadings, MetricSource, Vm
from autoscaler.ports.sources import History
from autoscaler.simulator.scenarios.model import LossSection, MisreadingSection, RolloutSection
from autoscaler.traces.trace import Trace, TraceKind

_OURS = (State.PENDING, State.RUNNING, State.STOPPING, State.STOPPED)


class _WrappedSource:
    """A source that wraps another source."""

    answers_at_once = True
    """It never waits; see `autoscaler.at_once`."""

    def __init__(self, inner: MetricSource) -> None:
        self._inner = inner

    async def close(self) -> None:
        """Close the inner source."""
        await self._inner.close()


class MistakenSource(_WrappedSource):
    """A source whose readings are sometimes wrong.

    Args:
        inner: The wrapped source.
        clock: The clock.
        begin_s: Epoch seconds from which the times of the misreadings count.
        misreadings: When readings are wrong, and what is read instead.
        each: Whether `shows` is the reading of each VM rather than the sum over all VMs.
    """

    def __init__(
        self,
        inner: MetricSource,
        clock: Clock,
        begin_s: float,
        misreadings: Sequence[MisreadingSection],
        *,
        each: bool,
    ) -> None:
        super().__init__(inner)
        self._clock, self._begin_s = clock, begin_s
        self._misreadings, self._each = tuple(misreadings), each

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read the inner source, and replace its values during a misreading."""
        got = await self._inner.read(vms)
        since_s = self._clock.now() - self._begin_s
        now = next((one for one in self._misreadings if one.from_s <= since_s < one.to_s), None)
        if now is None or not len(got.values):
            return got
        if now.shows is None:
            return replace(got, values=got.values * now.times)
        shown = now.shows if self._each else now.shows / len(got.values)
        return replace(got, values=np.full(len(got.values), shown))


class RecallingSource(_WrappedSource):
    """A source that can also be asked for the past.

    Args:
        inner: The wrapped source.
        trace: The recording to answer from.
    """

    def __init__(self, inner: MetricSource, trace: Trace) -> None:
        super().__init__(inner)
        self._trace = trace

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read the inner source."""
        return await self._inner.read(vms)

    async def history(self, start_s: float, end_s: float, step_s: float) -> History:
        """Return the demand that was known at each step, from the recording; see `HistorySource`."""
        trace = self._trace
        known_s = trace.timestamps + (trace.interval_s if trace.kind is TraceKind.COUNT else 0.0)
        times = np.arange(start_s, end_s, step_s)
        last = np.searchsorted(known_s, times, side="right") - 1
        told = (last >= 0) & (times - known_s[np.maximum(last, 0)] < trace.interval_s)
        return History(times[told], trace.rates[last[told]], ())


class LossySource(_WrappedSource):
    """A source whose readings are sometimes lost.

    Args:
        inner: The wrapped source.
        clock: The clock.
        begin_s: Epoch seconds from which the times of the losses count.
        losses: When readings are lost, and for which share of the VMs.
        seed: Seed of the choice of VMs.
    """

    def __init__(
        self, inner: MetricSource, clock: Clock, begin_s: float, losses: Sequence[LossSection], seed: int
    ) -> None:
        super().__init__(inner)
        self._clock, self._begin_s, self._seed = clock, begin_s, seed
        self._losses = tuple(losses)

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read the inner source, and drop the readings that are lost now."""
        got = await self._inner.read(vms)
        since_s = self._clock.now() - self._begin_s
        share = max((loss.share for loss in self._losses if loss.from_s <= since_s < loss.to_s), default=0.0)
        if share == 0.0:
            return got
        kept = np.array([self._draw(vm_id) >= share for vm_id in got.vm_ids], np.bool_)
        lost = len(kept) - int(kept.sum())
        return FleetReadings(
            tuple(vm_id for vm_id, keep in zip(got.vm_ids, kept, strict=True) if keep),
            got.values[kept],
            got.observed_at_s[kept],
            f"{lost} of {len(kept)} VMs gave no reading" if lost else got.error,
        )

    def _draw(self, vm_id: str) -> float:
        """Draw uniformly from [0, 1). A VM gets the same number in all losses."""
        digest = hashlib.blake2b(f"{self._seed} loss {vm_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2.0**64


async def roll_out(world: World, clock: Clock, fleet: str, rollout: RolloutSection) -> None:
    """Replace the fleet's VMs batch by batch, stopped ones first, as an independent deployment tool would."""
    await clock.sleep_until(clock.monotonic() + rollout.at_s)
    while True:
        now_s = clock.now()
        old = [vm for vm in world.views(now_s, fleet) if vm.state in _OURS and vm.image != rollout.image]
        if not old:
            return
        batch = sorted(old, key=_first)[: rollout.batch]
        try:
            world.terminate(now_s, [vm.id for vm in batch])
        except ProviderError:
            pass  # such a tool tries again with its next batch
        else:
            new = FleetSetup(fleet, len(batch), State.STOPPED, batch[0].vm_type, rollout.image)
            place_fleet(world, now_s, new)
        await clock.sleep_until(clock.monotonic() + rollout.every_s)


def _first(vm: VmView) -> tuple[bool, str]:
    return vm.state is not State.STOPPED, vm.id
