"""Condition of a fleet: which VMs are slow or silent, and whether that affects a few of them or all.

A VM's speed is whichever of these is higher for a healthy VM: work at the same utilisation, its share of the work, or the inverse
of how busy an even share keeps it. It is slow if its speed is far below the others' or, if speeds can be compared over time, far
below its own past; twice in a row, since one reading means little.

The healthy VMs define the norm: the upper quartile finds them, so up to half of a fleet may be slow without hiding it, and their
median and spread (of absolute deviations) set the threshold. If all are slow together, only their own past can show it.

Rules of this file: lanes do not see each other. Nothing here acts; `Condition` says when too many VMs are slow to replace them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, TypeVar

import numpy as np

from autoscaler.core.state_base import Remembered
from autoscaler.core.types import Bool, Float, Int

HALF, ALL = 0.4, 0.8
"""Shares of slow VMs from which about half of the fleet, and nearly all of it, counts as degraded."""
FEWEST = 3
"""With fewer reporting VMs, VMs are not compared with each other."""
SPREADS = 4.0
"""A slow VM is at least this many robust standard deviations below the others' median."""
LEAST_SPREAD = 0.05
"""Lower bound on the robust standard deviation (of the logarithm of speed), for VMs that hardly differ."""
STRIKES, MOST_STRIKES = 2, 3
"""Slow readings after which a VM is slow, and the most that are counted. A good reading removes one; at zero it is well again."""
KNOWN_AFTER = 10.0
"""Readings after which a VM is also compared with its own past."""
_FIELDS = ("level", "seen", "strikes", "slow")
Kind = TypeVar("Kind", Float, Int)


class Condition(IntEnum):
    """State of the VMs of a fleet as a whole."""

    UNKNOWN = 0
    """Too few VMs reported to judge."""
    HEALTHY = 1
    DEGRADED_FEW = 2
    """Some VMs are slow or silent: the cause is probably in those VMs."""
    DEGRADED_HALF = 3
    """About half are: the cause is probably a zone, a version, or something they depend on."""
    DEGRADED_ALL = 4
    """Nearly all are: the cause is probably the region, or something they depend on. New VMs would be as slow."""


@dataclass(slots=True)
class VmPasts(Remembered):
    """What is remembered about V VMs.

    Attributes:
        level: float64 (V,), logarithm of the VM's recent speed while it did well.
        seen: float64 (V,), number of readings behind `level`.
        strikes: int64 (V,), slow readings minus good ones since, from 0 to `MOST_STRIKES`.
        slow: bool (V,), slow or silent.
    """

    version: ClassVar[int] = 1
    level: Float
    seen: Float
    strikes: Int
    slow: Bool

    @classmethod
    def empty(cls, vms: int) -> VmPasts:
        """A state in which nothing is known of these VMs."""
        return cls(np.zeros(vms), np.zeros(vms), np.zeros(vms, np.int64), np.zeros(vms, np.bool_))

    def carried_over(self, vms: Int) -> VmPasts:
        """Return the state for other VMs, each of which may be one of these.

        Args:
            vms: int64 (N,), the index of each among these VMs; -1 for a new one.
        """
        new = VmPasts.empty(len(vms))
        known = vms >= 0
        for name in _FIELDS:
            getattr(new, name)[known] = getattr(self, name)[vms[known]]
        return new

    @classmethod
    def together(cls, parts: Sequence[VmPasts]) -> VmPasts:
        """Concatenate the VMs of several states; a single state is returned as the same object."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))

    def apart(self, sizes: Sequence[int]) -> list[VmPasts]:
        """Undo `together`: split into states of these sizes; a single one is returned as the same object."""
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
        slow: int64 (L,), number of VMs that are slow or silent.
        judged: int64 (L,), number of VMs that were judged.
    """

    condition: Int
    slow: Int
    judged: Int


def _remember(pasts: VmPasts, value: Float, reported: Bool, bad: Bool, known: Bool) -> None:
    """Update what is remembered about VMs with a judgement.

    Args:
        pasts: State of the V VMs; updated in place.
        value: float64 (V,), logarithm of the speed.
        reported: bool (V,), whether the VM reported a speed.
        bad: bool (V,), whether it was judged slow or silent.
        known: bool (V,), whether it was judged at all.
    """
    everywhere = np.count_nonzero(known) == len(known)
    strikes = np.where(bad, _ONE_MORE, _ONE_LESS)
    strikes += pasts.strikes
    np.maximum(strikes, _NO_STRIKE, out=strikes)
    np.minimum(strikes, _MOST_STRIKES, out=strikes)
    pasts.strikes = strikes if everywhere else np.where(known, strikes, pasts.strikes)
    still = pasts.slow & (pasts.strikes > _NO_STRIKE)
    pasts.slow = still | (pasts.strikes >= _STRIKES)
    learns = reported & ~bad
    pasts.seen = pasts.seen + learns.astype(np.float64)
    rate = np.maximum(pasts.seen, _ONE)
    np.divide(_ONE, rate, out=rate)
    np.maximum(rate, _FASTEST, out=rate)
    level = value - pasts.level
    level *= rate
    level += pasts.level
    if np.count_nonzero(learns) < len(learns):
        np.copyto(level, pasts.level, where=~learns)
    pasts.level = level


def judging(
    pasts: VmPasts, lane: Int, speed: Float, silent: Bool, slow_below: Float, comparable: Bool
) -> Generator[None, None, Judged]:
    """Judge every VM by one reading, and its fleet by its VMs. A generator: each step makes a few passes over the VMs.

    The steps let a caller do other work in between. `pasts` is updated in the last step, and no argument may change before it.

    Args:
        pasts: State of the V VMs; updated in place.
        lane: int64 (V,), the fleet of each VM.
        speed: float64 (V,), speed of each VM; NaN if it cannot be judged now.
        silent: bool (V,), whether the VM should have reported and did not.
        slow_below: float64 (L,), share of the others' speed, or of its own past speed, below which a VM is slow.
        comparable: bool (L,), whether speeds of a VM at different times can be compared.

    Returns:
        The condition of the L fleets.
    """
    lanes = len(slow_below)
    reported = speed > _NOTHING
    reported &= speed < _MOST
    value = np.zeros(len(speed))
    np.log(speed, out=value, where=reported)
    vms = np.bincount(lane, minlength=lanes)
    is_silent = bool(np.count_nonzero(silent))
    heard = np.bincount(lane[~silent], minlength=lanes) if is_silent else vms
    counted = np.bincount(_some(lane, reported), minlength=lanes)
    low = np.log(slow_below).take(lane)
    yield

    bad = yield from _slow_among(lane, value, reported, low, lanes)
    bad &= (counted >= FEWEST).take(lane)
    if np.count_nonzero(comparable):
        past = comparable.take(lane) & (pasts.seen >= KNOWN_AFTER)
        past &= value < pasts.level + low
        bad |= past
        bad &= reported
    known = reported
    if is_silent:
        # If most VMs are silent, measuring has failed, which says nothing about the VMs.
        out = silent & (2 * heard > vms).take(lane)
        bad |= out
        known = reported | out
    yield

    _remember(pasts, value, reported, bad, known)
    slow = np.bincount(lane[pasts.slow], minlength=lanes)
    condition = _condition_of(slow, vms)
    unknown = (2 * heard <= vms) | ((counted == 0) & (slow == 0))
    if np.count_nonzero(unknown):
        condition[unknown] = int(Condition.UNKNOWN)
    return Judged(condition, slow, vms)


_NOTHING, _ONE, _MOST, _FASTEST = np.array(0.0), np.array(1.0), np.array(np.inf), np.array(0.02)
_ONE_MORE, _ONE_LESS, _NO_STRIKE = np.array(1), np.array(-1), np.array(0)
_STRIKES, _MOST_STRIKES = np.array(STRIKES), np.array(MOST_STRIKES)
"""0-d arrays, because numpy takes longer to convert Python numbers."""


def _condition_of(slow: Int, vms: Int) -> Int:
    """The condition of fleets with `vms` VMs, `slow` of them slow: int64 (L,) of `Condition`."""
    found = np.empty(len(slow), np.int64)
    found.fill(int(Condition.HEALTHY))
    if np.count_nonzero(slow):
        share = slow / np.maximum(vms, 1)
        found[slow > 0] = int(Condition.DEGRADED_FEW)
        found[share >= HALF] = int(Condition.DEGRADED_HALF)
        found[share >= ALL] = int(Condition.DEGRADED_ALL)
    return found


def _slow_among(
    lane: Int, value: Float, reported: Bool, low: Float, lanes: int
) -> Generator[None, None, Bool]:
    """Which reporting VMs are far slower than the others of their lane: bool (V,)."""
    of, values = _some(lane, reported), _some(value, reported)
    high = _Ranks(of, lanes).of(values, 0.75)
    yield
    bar = high.take(lane)
    bar += low
    well = reported & (value >= bar)
    of, values = _some(lane, well), _some(value, well)
    ranks = _Ranks(of, lanes)
    median = ranks.of(values, 0.5)
    yield
    spread = ranks.of(np.abs(values - median.take(of)), 0.5)
    spread *= _MAD_TO_DEVIATION
    np.maximum(spread, _LEAST_SPREAD, out=spread)
    yield
    bar = median.take(lane)
    bar += low
    spread *= _SPREADS
    np.minimum(bar, (median - spread).take(lane), out=bar)
    below = value < bar
    below &= reported
    return below


_MAD_TO_DEVIATION, _LEAST_SPREAD, _SPREADS = np.array(1.4826), np.array(LEAST_SPREAD), np.array(SPREADS)


def _some(of: Kind, where: Bool) -> Kind:
    """The values selected by a mask; the same array if all are."""
    return of if np.count_nonzero(where) == len(where) else of[where]


class _Ranks:
    """Computes quantiles of values per lane.

    Args:
        lane: int64 (n,), the lane of each value.
        lanes: Number of lanes.
    """

    __slots__ = ("_before", "_first", "_lane", "_lanes", "_some")

    def __init__(self, lane: Int, lanes: int) -> None:
        count = np.bincount(lane, minlength=lanes)
        self._lane, self._lanes = lane, lanes
        self._some = count.nonzero()[0]
        self._first = (np.add.accumulate(count) - count).take(self._some)
        self._before = (count.take(self._some) - 1).astype(np.float64)

    def of(self, value: Float, level: float) -> Float:
        """The quantile of each lane's values, the lower of two neighbours: float64 (L,), 0 for a lane without values."""
        ordered = value.take(np.lexsort((value, self._lane)))
        at = (level * self._before).astype(np.int64)
        at += self._first
        found = np.zeros(self._lanes)
        found[self._some] = ordered.take(at)
        return found
