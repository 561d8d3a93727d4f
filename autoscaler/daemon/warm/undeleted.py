"""VMs that the provider did not delete when asked: protected by somebody, or not permitted.

Why: the oldest VMs are deleted first, so a VM that cannot be deleted would block all others for ever, and replacements
would be made for a VM that never goes.

Rules of this file: pure values; time is an argument.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from autoscaler.ports import BATCH_REFUSED, Outcome, OutcomeKind

RETRY_AFTER_S = 24 * 3600.0
"""How long a VM that could not be deleted is not tried again, in seconds: protection usually lasts. `evict` tries at once."""


@dataclass(slots=True)
class FailedDeletions:
    """The VMs of one fleet that could not be deleted."""

    _until_s: dict[str, float] = field(default_factory=dict)

    def record_outcome(self, outcome: Outcome, now_s: float) -> None:
        """Note the outcome of an order to delete a VM."""
        if outcome.kind is OutcomeKind.DENIED or (
            outcome.kind is OutcomeKind.REFUSED and outcome.code != BATCH_REFUSED
        ):
            self._until_s[outcome.vm_id] = now_s + RETRY_AFTER_S

    def is_held(self, vm_id: str, now_s: float) -> bool:
        """Return whether the VM must not be ordered to be deleted yet. A clock that was set back does not prolong this."""
        until_s = self._until_s.get(vm_id)
        return until_s is not None and until_s - RETRY_AFTER_S <= now_s < until_s

    def keep(self, known: Container[str]) -> None:
        """Forget all VMs but these."""
        if self._until_s:
            self._until_s = {vm_id: at_s for vm_id, at_s in self._until_s.items() if vm_id in known}
