"""Metrics: what a source read for one fleet, and readiness probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoscaler.ports.provider import Vm


@dataclass(frozen=True, slots=True)
class FleetReadings:
    """What a source read for one fleet.

    Attributes:
        vm_ids: One per reading; empty string for a reading of the whole fleet (Signal.TOTAL).
        values: float64 (n,), in the unit of the fleet's signal; NaN allowed, it counts as invalid.
        observed_at_s: float64 (n,), end of the window that the value describes.
        error: For a person, what went wrong or is missing; empty when all is well.
        received_at_s: float64 (n,), when the reading came in, by our clock; None where that is now. A reading that
            was observed after it came in has a clock of its own and counts as invalid.
        utilisation: float64 (n,), the share of the VM's capacity that was in use meanwhile, 0..1, NaN where it is
            not known; None where the source does not measure it beside the signal. What capacities are learned from.
    """

    vm_ids: tuple[str, ...]
    values: NDArray[np.float64]
    observed_at_s: NDArray[np.float64]
    error: str = ""
    received_at_s: NDArray[np.float64] | None = None
    utilisation: NDArray[np.float64] | None = None

    @classmethod
    def none(cls, why: str = "") -> FleetReadings:
        """Nothing was read, and why."""
        return cls((), np.empty(0), np.empty(0), why)


class MetricSource(Protocol):
    """Reads one fleet's metrics.

    Contract: returns what it has within its own time limit; raises SourceError where it has nothing; never
    invents a value, and never turns a failure into zero.
    """

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read the VMs in service (they may have changed since the last call)."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class ReadinessProbe(Protocol):
    """Says which running VMs are ready to serve. Failure and silence mean not ready."""

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Ids of those of the given running VMs that are ready."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """What demand a fleet had before now.

    Attributes:
        times_s: float64 (n,), ascending; end of the window that each value describes.
        demand: float64 (n,), work per second; NaN where it is unknown or was hidden by saturation.
        warnings: For a person, what to know of it.
    """

    times_s: NDArray[np.float64]
    demand: NDArray[np.float64]
    warnings: tuple[str, ...] = ()


@runtime_checkable
class HistorySource(Protocol):
    """A metric source that can tell of the past as well, for learning from it at the start.

    Contract: bounded in time and memory; raises SourceError where it has nothing; a gap stays a gap.
    """

    async def history(self, start_s: float, end_s: float, step_s: float) -> History:
        """Demand of the fleet in work per second, a value each step where it is known, `start_s <= time < end_s`."""
        ...


class RecordedDemand(Protocol):
    """The demand that earlier ticks have recorded; the journal has it."""

    async def demand(
        self, fleets: Sequence[str], start_s: float, end_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Times of the ticks within the range, float64 (n,), and demand, float32 (n, fleets).

        NaN where a fleet was not there, or its demand was not fresh or was hidden by saturation. Raises
        JournalError where it cannot be read.
        """
        ...
