"""Metrics: what a source read for one fleet, and readiness probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoscaler.ports.provider import Vm

ADDRESS = "{address}"
"""Placeholder for a VM's private address in the URL templates of policies."""


@dataclass(frozen=True, slots=True)
class FleetReadings:
    """What a source read for one fleet.

    Attributes:
        vm_ids: One per reading; empty string for a reading of the whole fleet (Signal.TOTAL).
        values: float64 (n,), in the unit of the fleet's signal; NaN is allowed and counts as invalid.
        observed_at_s: float64 (n,), end of the window that the value describes.
        error: What went wrong or is missing, for people; empty if all is well.
        received_at_s: float64 (n,), when the reading arrived, by our clock; None means now. A reading observed clearly
            after it arrived comes from a wrong clock and counts as invalid.
        utilisation: float64 (n,), share of the VM's capacity in use at the same time, 0..1, NaN if not known; None if the
            source does not measure it. Capacities are learned from it.
    """

    vm_ids: tuple[str, ...]
    values: NDArray[np.float64]
    observed_at_s: NDArray[np.float64]
    error: str = ""
    received_at_s: NDArray[np.float64] | None = None
    utilisation: NDArray[np.float64] | None = None

    @classmethod
    def none(cls, why: str = "") -> FleetReadings:
        """No readings, with the reason."""
        return cls((), np.empty(0), np.empty(0), why)


class MetricSource(Protocol):
    """Reads one fleet's metrics.

    Contract: returns what it has within its own time limit; raises SourceError if it has nothing; never
    invents a value, and never turns a failure into zero.
    """

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read the metrics of the VMs in service (which may have changed since the last call)."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class ReadinessProbe(Protocol):
    """Tells which running VMs are ready to serve. Failure and silence mean not ready."""

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Ids of the VMs that are ready, among the given running VMs."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """The past demand of a fleet.

    Attributes:
        times_s: float64 (n,), ascending; end of the window that each value describes.
        demand: float64 (n,), work per second; NaN if unknown or hidden by saturation.
        warnings: What people should know about it.
    """

    times_s: NDArray[np.float64]
    demand: NDArray[np.float64]
    warnings: tuple[str, ...] = ()


@runtime_checkable
class HistorySource(Protocol):
    """A metric source that can also read the past, which fleets learn from at startup.

    Contract: bounded in time and memory; raises SourceError if it has nothing; a gap stays a gap.
    """

    async def history(self, start_s: float, end_s: float, step_s: float) -> History:
        """Demand in work per second, one value per step where known, for `start_s <= time < end_s`."""
        ...


class RecordedDemand(Protocol):
    """The demand that earlier ticks have recorded, read from the journal."""

    async def demand(
        self, fleets: Sequence[str], start_s: float, end_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Times of the ticks in the range, float64 (n,), and demand, float32 (n, fleets).

        Demand is NaN if the fleet did not exist, or its demand was not fresh or hidden by saturation.

        Raises:
            JournalError: The journal cannot be read.
        """
        ...
