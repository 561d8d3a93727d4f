"""The condition of fleets: which VMs are slow or silent, and whether it is some of them or all.

A VM's speed is whatever of it is higher when it does well: work for the same utilisation, its share of the work, or the
inverse of how busy an even share keeps it. It is slow where its speed is far below the others' or, where speeds can
be compared over time, far below its own past; twice in a row, since one reading says little.

What the others do is told by those that do well: the upper quartile finds them, so up to half of a fleet may be slow
without hiding it, and their median and spread (of absolute deviations) set the bar. Where all are slow together only
their own past can tell.

Rules of this file: lanes do not see each other. Nothing here acts; that many slow VMs are no reason to replace them all
is said by the `Condition`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np

from autoscaler.core.remembered import Remembered
from autoscaler.core.types import Bool, Float, Int

HALF, ALL = 0.4, 0.8
"""Shares of slow VMs from which it is about half of the fleet, and all of it."""
FEWEST = 3
"""Fewer VMs cannot be compared with each other."""
SPREADS = 4.0
"""So many robust standard deviations below the others' median a VM must be to be slow."""
LEAST_SPREAD = 0.05
"""Robust standard deviation (of the logarithm) that even the most equal VMs are taken to have."""
STRIKES, MOST_STRIKES = 2, 3
"""Slow from so many slow readings on, and well again when none is left; a good reading takes one back."""
KNOWN_AFTER = 10.0
"""Readings after which a VM's own past counts."""
_FIELDS = ("level", "seen", "strikes", "slow")
_FASTEST = 0.02
_MAD_TO_DEVIATION = 1.4826


class Condition(IntEnum):
    """How the VMs of a fleet do."""

    UNKNOWN = 0
    """None reported what could be judged."""
    HEALTHY = 1
    DEGRADED_FEW = 2
    """Some VMs are slow or silent: a matter of those VMs."""
    DEGRADED_HALF = 3
    """About half of them: a matter of a zone, a version, or of what they depend on."""
    DEGRADED_ALL = 4
    """Nearly all: a matter of the region, or of what they depend on. Other VMs would be as slow."""


@dataclass(slots=True)
class VmPasts(Remembered):
    """What is remembered of V VMs.

    Attributes:
        level: float64 (V,), logarithm of the speed it had lately while it did well.
        seen: float64 (V,), readings behind it.
        strikes: int64 (V,), slow readings not yet made good.
        slow: bool (V,), slow or silent.
    """

    version: ClassVar[int] = 1
    level: Float
    seen: Float
    strikes: Int
    slow: Bool

    @classmethod
    def empty(cls, vms: int) -> VmPasts:
        """VMs of which nothing is known."""
        return cls(np.zeros(vms), np.zeros(vms), np.zeros(vms, np.int64), np.zeros(vms, np.bool_))

    def carried_over(self, vms: Int) -> VmPasts:
        """The same of other VMs, each of which may be one of these.

        Args:
            vms: int64 (N,), the VM that each is; -1 for a new one.
        """
        new = VmPasts.empty(len(vms))
        known = vms >= 0
        for name in _FIELDS:
            getattr(new, name)[known] = getattr(self, name)[vms[known]]
        return new

    @classmethod
    def together(cls, parts: Sequence[VmPasts]) -> VmPasts:
        """The VMs of several, one after the other; the very value where it is one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))

    def apart(self, sizes: Sequence[int]) -> list[VmPasts]:
        """Undo `together`: so many VMs each; the very value where it is one."""
        if len(sizes) == 1:
            return [self]
        ends = np.add.accumulate(np.array(sizes, np.int64))
        return [
            VmPasts(*(getattr(self, name)[end - size : end] for name in _FIELDS))
            for size, end in zip(sizes, ends.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Judged:
    """The condition of L fleets.

    Attributes:
        condition: int64 (L,) of `Condition`.
        slow: int64 (L,), VMs that are slow or silent.
        judged: int64 (L,), VMs that were looked at.
    """

    condition: Int
    slow: Int
    judged: Int


def judging(
    pasts: VmPasts, lane: Int, speed: Float, silent: Bool, slow_below: Float, comparable: Bool
) -> Generator[None, None, Judged]:
    """Judge every VM by one reading, and its fleet by its VMs, in steps of a few passes over the VMs each.

    In steps, for who must not be held for all of them. The pasts are updated in the last one; nothing of the arguments may
    change until then.

    Args:
        pasts: Of the V VMs; updated in place.
        lane: int64 (V,), the fleet of each.
        speed: float64 (V,), NaN where nothing can be said of it now.
        silent: bool (V,), the VM should have reported and did not.
        slow_below: float64 (L,), share of the others' speed, or of its own past, below which a VM is slow.
        comparable: bool (L,), speeds of a VM at different times can be compared.
    """
    lanes = len(slow_below)
    reported = (speed > 0.0) & (speed < np.inf)
    value = np.zeros(len(speed))
    np.log(speed, out=value, where=reported)
    vms = np.bincount(lane, minlength=lanes)
    heard = np.bincount(lane[~silent], minlength=lanes)
    counted = np.bincount(lane[reported], minlength=lanes)
    low = np.log(slow_below).take(lane)
    yield

    slow_among = yield from _slow_among(lane, value, reported, low, lanes)
    among = slow_among & (counted >= FEWEST).take(lane)
    past = comparable.take(lane) & (pasts.seen >= KNOWN_AFTER) & (value < pasts.level + low)
    # Silence of most is an outage of measuring, and says nothing of the VMs.
    out = silent & (2 * heard > vms).take(lane)
    bad = (reported & (among | past)) | out
    known = reported | out
    yield

    strikes = np.where(bad, np.minimum(pasts.strikes + 1, MOST_STRIKES), np.maximum(pasts.strikes - 1, 0))
    pasts.strikes = np.where(known, strikes, pasts.strikes)
    pasts.slow = (pasts.strikes >= STRIKES) | (pasts.slow & (pasts.strikes > 0))
    learns = reported & ~bad
    pasts.seen = pasts.seen + learns
    rate = np.maximum(1.0 / np.maximum(pasts.seen, 1.0), _FASTEST)
    pasts.level = np.where(learns, pasts.level + rate * (value - pasts.level), pasts.level)

    slow = np.bincount(lane[pasts.slow], minlength=lanes)
    share = slow / np.maximum(vms, 1)
    few_or_more = np.where(share >= ALL, int(Condition.DEGRADED_ALL), int(Condition.DEGRADED_FEW))
    few_or_more = np.where((share >= HALF) & (share < ALL), int(Condition.DEGRADED_HALF), few_or_more)
    condition = np.where(slow > 0, few_or_more, int(Condition.HEALTHY))
    unknown = (2 * heard <= vms) | ((counted == 0) & (slow == 0))
    return Judged(np.where(unknown, int(Condition.UNKNOWN), condition), slow, vms)


def _slow_among(
    lane: Int, value: Float, reported: Bool, low: Float, lanes: int
) -> Generator[None, None, Bool]:
    """Which VMs are far below the others of their lane: bool (V,)."""
    high = _ranked(lane[reported], value[reported], 0.75, lanes)
    yield
    well = reported & (value >= high.take(lane) + low)
    median = _ranked(lane[well], value[well], 0.5, lanes)
    yield
    off = np.abs(value - median.take(lane))
    spread = np.maximum(_MAD_TO_DEVIATION * _ranked(lane[well], off[well], 0.5, lanes), LEAST_SPREAD)
    yield
    bar = np.minimum(median.take(lane) + low, (median - SPREADS * spread).take(lane))
    return reported & (value < bar)


def _ranked(lane: Int, value: Float, level: float, lanes: int) -> Float:
    """The value of this rank among those of each lane, the lower one of two: float64 (L,), 0 where there is none."""
    count = np.bincount(lane, minlength=lanes)
    first = np.add.accumulate(count) - count
    ordered = value[np.lexsort((value, lane))]
    found = np.zeros(lanes)
    some = count > 0
    at = first + (level * np.maximum(count - 1, 0)).astype(np.int64)
    found[some] = ordered[at[some]]
    return found
