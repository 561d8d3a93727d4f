"""The saved memory of a hibernated VM: since when it exists, and how long it can be resumed.

Rules of this file: pure functions of a listing's row; time is an argument.
"""

from __future__ import annotations

from autoscaler.ports import Vm

DAY_S = 86400.0
KEPT_S = 60 * DAY_S
"""The provider keeps no memory for longer (EC2): such a VM boots from its disk."""
LAST_CALL_S = 57 * DAY_S
"""From this age on a memory is renewed outside of quiet windows, too, before it is lost."""


def saved_at_s(vm: Vm) -> float | None:
    """When the memory of a hibernated VM was saved, or before; None where none was.

    Where the provider does not tell when the VM was stopped its last start is taken, which was earlier.
    """
    if not vm.hibernates:
        return None
    return vm.launched_at_s if vm.stopped_at_s is None else vm.stopped_at_s


def resumes(vm: Vm, now_s: float) -> bool:
    """Whether a start of this VM now would go on from its memory."""
    saved_s = saved_at_s(vm)
    return saved_s is not None and now_s - saved_s < KEPT_S
