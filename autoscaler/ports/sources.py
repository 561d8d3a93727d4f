"""Metrics: what a source read for one fleet, and probes of readiness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
