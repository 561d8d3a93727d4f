"""VMs of different size: a weight per machine type, and the fleet's mean weight.

Readings count with the weight of the VM that they come from. Decisions count VMs as if all were alike: each is planned with
the mean weight of the fleet's VMs, so the plan is right for the fleet as a whole, and off by a VM or two if the next ones are
larger or smaller than the mean.

Rules of this file: a type without a weight has weight 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float
from autoscaler.daemon.vms.holdings import Holdings
from autoscaler.daemon.vms.tracked import Phase

NOTABLE = 0.02
"""Relative change of the mean weight from which plans change."""
EVERY_S = 60.0
"""Time between two looks at the mean weight, in seconds."""


class Weights:
    """The weights of one fleet's VMs.

    Args:
        policy: The fleet's policy.
    """

    def __init__(self, policy: Policy) -> None:
        self._of: Mapping[str, float] = {each.type: each.weight for each in policy.vm.weights}
        self.mean = 1.0
        """Mean weight that is planned with."""

    def __bool__(self) -> bool:
        """Return whether VMs may differ in weight."""
        return bool(self._of)

    def of(self, vm_ids: Iterable[str], types: Mapping[str, str]) -> Float:
        """Return the weight of each of these VMs, float64 (N,).

        Args:
            vm_ids: The VMs; unknown ones have weight 1.
            types: Machine type by VM.
        """
        return np.array([self._of.get(types.get(vm_id, ""), 1.0) for vm_id in vm_ids], np.float64)

    def weigh(self, vm_types: Sequence[str]) -> bool:
        """Update the mean over the VMs of the fleet, and return whether it has changed notably."""
        if not vm_types:
            return False
        mean = sum(self._of.get(vm_type, 1.0) for vm_type in vm_types) / len(vm_types)
        if abs(mean / self.mean - 1.0) <= NOTABLE:
            return False
        self.mean = mean
        return True


def types_of(holdings: Holdings) -> dict[str, str]:
    """Return the machine type of each VM that exists, by id, in the order of ids."""
    return {vm_id: t.vm.vm_type for vm_id, t in sorted(holdings.vms.items()) if t.phase is not Phase.LOST}
