"""How likely a level of a fleet that is idle now is wanted again within the next hour.

Level k is VM k. Similar levels form one rung: those between two powers of an eighth of an octave of (1 + VMs). For every waiting rung,
two things are counted: how long it waited until it was wanted, if that was less than an hour; and at the beginning of each hour, how
long it has waited, on how many of the last days it was wanted at this time of day, and later whether it was wanted within the hour. So
the distribution (`wait_odds`) knows the burst that returns after ten minutes, the morning of every working day, and last month's crowd, each
by what this very fleet has seen.

Rules of this file: element-wise, sums along bins in their order. No state is kept here.
"""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.objective.habits import BINS, EDGES, HOUR_S, PER_OCTAVE, bin_of
from autoscaler.core.types import Bool, Float, Int, SmallFloat, SmallInt

DAYS, DAY_H = 7, 24
HOURS = DAYS * DAY_H
"""Number of hours that are remembered."""
WAITS, SHORTEST = 12, 16
"""Number of bins for how long a rung has waited, each twice as long as the one before; the first ends at 1/16 of an hour."""
FRESH = 5
"""Number of bins for waits of less than an hour."""
HITS = 6
"""Number of kinds of time: classes of on how many of the last days a rung was wanted at this time of day."""

_LOWEST: Int = np.ceil(EDGES - 1e-9).astype(np.int64)
_BIN: Int = np.flatnonzero((_LOWEST[1:] > _LOWEST[:-1]) & (np.arange(BINS) > 0))
"""The bins that contain a whole number of VMs. Rungs are numbered from 0; -1 means no rung."""
RUNGS, GROUPS = len(_BIN), BINS // PER_OCTAVE
GROUP: Int = _BIN // PER_OCTAVE
"""int64 (RUNGS,), the group of each rung."""
LAST_VM: Int = np.append(_LOWEST[_BIN + 1] - 1, 0)
"""int64 (RUNGS + 1,), the last VM of each rung; the last entry, for rung -1, is 0."""
_RUNG: Int = np.searchsorted(_BIN, np.arange(BINS), side="right") - 1
_KIND: SmallInt = np.array([0, 1, 2, 3, 3, 4, 4, 5], np.int8)
"""The kind of time by days wanted: none, one, two, three or four, five or six, all seven."""
_MOST_TICKS = 2**20
"""Longest table of waits, in ticks; with ticks of a quarter of a second or more, it reaches the last bin."""
UNKNOWN = -2
"""Rung of an hour that was not observed."""


def rung_of(vms: Int) -> Int:
    """The highest rung that this many VMs reach, any shape; -1 for none."""
    if np.maximum.reduce(vms, axis=None, initial=0) < len(_RUNG_TABLE):
        return _RUNG_TABLE.take(vms, mode="clip")
    return _rung_of(vms)


def _rung_of(vms: Int) -> Int:
    """Compute `rung_of` without the table."""
    return _RUNG.take(bin_of(np.maximum(vms, 0).astype(np.float64)))


_RUNG_TABLE: Int = _rung_of(np.arange(4096))
"""Table of rungs for the numbers of VMs that most fleets have."""


def waits_by_ticks(tick_s: float) -> SmallInt:
    """The bin of a wait by its length in ticks: int8 (N,); the last entry is for all longer waits."""
    longest = math.ceil(2.0 ** (WAITS - 2) / SHORTEST * HOUR_S / tick_s)
    waits = np.log2(np.maximum(np.arange(min(longest, _MOST_TICKS) + 1), 1) * (SHORTEST * tick_s / HOUR_S))
    waits += 1.0 + 1e-9
    return np.minimum(np.maximum(waits, 0.0), WAITS - 1.0).astype(np.int8)


def due_by_wait(wait_of: SmallInt, hour_ticks: float, look_ticks: int) -> Bool:
    """Which waits of less than an hour a look has to evaluate again: bool (N,) by ticks; the last entry is for longer waits.

    A wait that is in the same bin as at the last look would get the same answer.
    """
    waited = np.arange(math.ceil(hour_ticks) + 1)
    due = wait_of.take(waited) != wait_of.take(np.maximum(waited - look_ticks, 0))
    due |= waited <= look_ticks
    found: Bool = due & (waited < hour_ticks)
    return found


def kinds_of(hours: SmallInt, hour: int, ahead: int, rungs: int) -> SmallInt:
    """The kind of time of some consecutive hours, for each rung.

    Args:
        hours: int8 (HOURS, n), the highest rung wanted in each hour, by hour since the epoch modulo HOURS.
        hour: The first hour, since the epoch.
        ahead: Number of hours, fewer than a day has.
        rungs: Number of rungs.

    Returns:
        int8 (ahead, rungs, n), by on how many of the last days the rung was wanted within that hour or the next.
    """
    rows = np.arange(rungs, dtype=np.int8)[:, np.newaxis]
    at = hour + np.arange(ahead)[:, np.newaxis] - np.arange(1, DAYS + 1) * DAY_H
    highest = np.maximum(hours.take(at % HOURS, axis=0), hours.take((at + 1) % HOURS, axis=0))
    wanted = highest[:, :, np.newaxis] >= rows
    days: SmallInt = np.add.reduce(wanted.view(np.int8), axis=1, dtype=np.int8)
    return _KIND.take(days)


def worth_having(
    odds: SmallFloat,
    lasts: SmallFloat,
    cells: Int,
    saved: Float,
    stopped: Float,
    made: Float,
    after: tuple[Float, Float] | None = None,
) -> tuple[Float, Float]:
    """Return what it is worth to have a stopped VM and to have none, if each hour makes the better choice for the next.

    The recursion runs backwards over the hours. With the odds h, the VM is wanted within the hour. Having it costs its price
    until then; having none costs what it would have saved. If it is not wanted, the choice is free again, but making a VM
    costs its price.

    Args:
        odds: As in `wait_odds.Law`.
        lasts: As in `wait_odds.Law`.
        cells: int64 (H, ..., m), flat indices of the coming hours' cells in them.
        saved: float64 (m,), what a stopped VM saves when it is wanted.
        stopped: float64 (m,), price of a stopped VM for an hour.
        made: float64 (m,), price of making a VM.
        after: What having a VM and having none are worth after these hours, float64 (..., m) each, overwritten; None: nothing.

    Returns:
        float64 (..., m) each.
    """
    having, none = (np.zeros(cells.shape[1:]), np.zeros(cells.shape[1:])) if after is None else after
    # Look up all hours at once: there are few hours, and often few cells.
    missed, holding_cost = odds.take(cells).astype(np.float64), lasts.take(cells) * stopped
    goes_on = 1.0 - missed
    missed *= saved
    for hour in reversed(range(len(cells))):
        next_none = np.maximum(having - made, none)
        np.maximum(having, none, out=having)
        having *= goes_on[hour]
        having -= holding_cost[hour]
        next_none *= goes_on[hour]
        next_none -= missed[hour]
        none = next_none
    return having, none


def rungs_between(low: Int, high: Int, lanes: Int) -> tuple[Int, Int]:
    """All rungs above `low` and up to `high`, int64 (k,) each, and the lane of each of these rungs."""
    count = high - low
    ends = np.add.accumulate(count)
    which = np.arange(len(count)).repeat(count)
    level = np.arange(len(which)) - (ends - count - low - 1).take(which)
    return level, lanes.take(which)
