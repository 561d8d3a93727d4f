"""Freshness: which VMs of the pool are out of date, which of them may be replaced now, and whether it is time.

A VM is out of date if it was made from something other than what the launch template says today, or is older than the policy
allows. The replacement comes first: while some are out of date, more VMs are wanted than the warm target, and one that is out
of date goes only if the wanted number stays ready.

Rules of this file: choice only; nothing here makes a call.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from autoscaler.config.calendar import spans
from autoscaler.config.freshness import FreshnessSection, QuietWindow
from autoscaler.daemon.vms.pool_tags import MADE_AT_TAG, SPEC_TAG, may_be_deleted, moment_of
from autoscaler.daemon.vms.tracked import TrackedVm
from autoscaler.daemon.warm.exercise import last_well_s
from autoscaler.ports import LaunchSpec


@dataclass(frozen=True, slots=True)
class Stale:
    """A VM that is out of date, and why."""

    tracked: TrackedVm
    why: str


def made_at_s(t: TrackedVm) -> float:
    """Return when the VM was made; without a tag that says so, its last start, which is no earlier."""
    made_s = moment_of(t.vm, MADE_AT_TAG)
    return t.vm.launched_at_s if made_s is None else made_s


def stale(
    stopped: Iterable[TrackedVm], section: FreshnessSection, current: LaunchSpec | None, now_s: float
) -> list[Stale]:
    """Return the stopped VMs that are out of date, oldest first."""
    found = []
    for t in stopped:
        why = _why(t, section, current, now_s)
        if why:
            found.append(Stale(t, why))
    return sorted(found, key=lambda each: (made_at_s(each.tracked), each.tracked.vm.id))


def _why(t: TrackedVm, section: FreshnessSection, current: LaunchSpec | None, now_s: float) -> str:
    if current is not None:
        spec = t.vm.tags.get(SPEC_TAG)
        if spec is not None and spec != current.digest:
            return f"made from another version of the launch template (now {current.version})"
        if current.image and t.vm.image and t.vm.image != current.image:
            return f"image {t.vm.image} instead of {current.image}"
    if section.max_age_s is not None and now_s - made_at_s(t) > section.max_age_s:
        return "older than freshness.max_age"
    if section.max_stopped_age_s is not None and now_s - last_well_s(t) > section.max_stopped_age_s:
        return "stopped for longer than freshness.max_stopped_age"
    return ""


def to_replace(stale_vms: Sequence[Stale], asked: Collection[str], *, open_now: bool) -> list[Stale]:
    """Return the VMs to replace: all of them in a quiet window, else those that an operator asked for.

    VMs that may not be deleted are left out: their replacements would be surplus, be deleted, and be made again.
    """
    return [
        each
        for each in stale_vms
        if (open_now or each.tracked.vm.id in asked) and may_be_deleted(each.tracked.vm)
    ]


def surge(section: FreshnessSection, leaving: Sequence[Stale], wanted: int) -> int:
    """Return how many VMs to hold beyond the wanted number, so that new VMs exist before old ones go."""
    if not leaving:
        return 0
    share = section.refresh.share if section.refresh is not None else 0.1
    return min(len(leaving), max(math.floor(share * wanted), 1))


def going(
    section: FreshnessSection, leaving: Sequence[Stale], ready: int, floor: int, wanted: int
) -> dict[str, list[str]]:
    """Return the ids of the VMs to delete now, by reason, so that ready VMs never fall below the floor.

    Args:
        section: How many VMs may go at a time.
        leaving: The VMs to replace, oldest first.
        ready: How many VMs could be started now, including these.
        floor: How many of them must stay.
        wanted: The warm target, in VMs.
    """
    now = leaving[: max(ready - floor, 0)]
    by_why: dict[str, list[str]] = {}
    for each in now[: surge(section, now, wanted)]:
        by_why.setdefault(each.why, []).append(each.tracked.vm.id)
    return by_why


def within(windows: Sequence[QuietWindow], now_s: float) -> bool:
    """Return whether one of the windows is open; without windows, always True."""
    return not windows or any(
        start <= now_s < end for window in windows for start, end in spans(window, now_s)
    )
