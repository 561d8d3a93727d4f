"""Exercise: starts stopped VMs in quiet hours, to find those that would fail before they are needed.

What it finds: a missing grant on a key, a lost volume, a machine type that no longer exists, an image whose service no
longer starts. A VM that fails is quarantined and reported; it is not deleted, because someone may want to examine it.

Rules of this file: choice only; nothing here makes a call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from autoscaler.config.freshness import ExerciseSection
from autoscaler.daemon.vms.pool_tags import EXERCISED_AT_TAG, moment_of
from autoscaler.daemon.vms.tracked import TrackedVm


def last_well_s(t: TrackedVm) -> float:
    """Return when a stopped VM last ran: at its last start, or at its last trial."""
    return max(t.vm.launched_at_s, moment_of(t.vm, EXERCISED_AT_TAG) or float("-inf"))


def due(
    candidates: Iterable[TrackedVm],
    section: ExerciseSection | None,
    asked: Collection[str],
    renewed: Mapping[str, float],
    trying: int,
    spare: int,
    now_s: float,
) -> list[TrackedVm]:
    """Return the VMs to try now: first those an operator asked for, then those with old memories, then the longest
    untried.

    Args:
        candidates: Stopped VMs that could be started.
        section: How often to try VMs; None if only operators ask for it.
        asked: Ids that operators asked for.
        renewed: Ids of hibernated VMs that should save their memory again, with its age in seconds.
        trying: How many VMs are being tried now.
        spare: How many startable VMs may be missing meanwhile.
        now_s: The current time.
    """
    at_once = section.at_once if section is not None else 1
    every_s = section.every_s if section is not None else float("inf")
    found = sorted(
        (
            t
            for t in candidates
            if t.vm.id in asked or t.vm.id in renewed or now_s - last_well_s(t) >= every_s
        ),
        key=lambda t: (t.vm.id not in asked, -renewed.get(t.vm.id, 0.0), last_well_s(t), t.vm.id),
    )
    return found[: max(min(at_once - trying, spare), 0)]
