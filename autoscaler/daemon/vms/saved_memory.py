"""The saved memory of a hibernated VM: since when it exists, and how long it can be resumed.

Rules of this file: pure functions of a listing's row; time is an argument.
"""

from __future__ import annotations

from autoscaler.ports import Vm

DAY_S = 86400.0
KEPT_S = 60 * DAY_S
"""Time for which the provider (EC2) keeps a memory, in seconds; after that the VM boots from its disk."""
LAST_CALL_S = 57 * DAY_S
"""Age from which a memory is renewed even outside of quiet windows, in seconds, before it is lost."""


def saved_at_s(vm: Vm) -> float | None:
    """Return when the memory of a hibernated VM was saved, or an earlier time; None without a saved memory.

    If the provider does not report when the VM was stopped, this is its last start, which was earlier.
    """
    if not vm.hibernates:
        return None
    return vm.launched_at_s if vm.stopped_at_s is None else vm.stopped_at_s


def resumes(vm: Vm, now_s: float) -> bool:
    """Return whether a start now would resume from the VM's memory."""
    saved_s = saved_at_s(vm)
    return saved_s is not None and now_s - saved_s < KEPT_S
