"""Readiness by the provider's own status checks."""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.at_once import answers_at_once
from autoscaler.ports import Provider, Vm


class StatusCheckProbe:
    """Reports a running VM as ready once its status checks have passed; implements the ReadinessProbe port.

    Args:
        provider: The provider whose checks are read, in one call for all VMs asked about.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.answers_at_once = answers_at_once(provider)

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """See `ReadinessProbe.ready`."""
        return await self._provider.checked([vm.id for vm in vms])
