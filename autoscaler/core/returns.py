"""How likely a level of a fleet that is not wanted now is wanted within the next hour.

Level k is VM k. Levels that are alike are one rung: those between two powers of an eighth of an octave of (1 + VMs). What is
counted, for every rung that waits: how long it waited until it was wanted, where that was less than an hour; and at the
beginning of each hour, how long it has waited, on how many of the last days it was wanted at this time of the day, and
later whether it was wanted within the hour. So the law knows the burst that comes again after ten minutes, the morning of every
working day, and the crowd of last month, each by what came of its like in this very fleet. Groups of rungs an octave wide
have laws of their own, with a word of all groups where one has seen little; and where few such waits were seen at such a time,
one goes by such waits and by such times as if either did not matter to the other.

Rules of this file: element-wise, sums along bins in their order. Nothing is remembered here.
"""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.habits import BINS, EDGES, HOUR_S, PER_OCTAVE, bin_of
from autoscaler.core.types import Bool, Float, Int, SmallFloat, SmallInt

DAYS, DAY_H = 7, 24
HOURS = DAYS * DAY_H
"""Hours that are remembered."""
WAITS, SHORTEST = 12, 16
"""Bins of how long a rung waits, each twice as long as the one before; the first is up to a sixteenth of an hour."""
FRESH = 5
"""So many bins are of less than an hour."""
HITS = 6
"""Kinds of times of the day, by on how many of the last days a rung was wanted then."""
PRIOR_ENDS, PRIOR_WAITS = 0.3, 1.0
"""Waits of each length that one believes to have seen before any, and how many of them ended within the hour."""
MOST_ODDS = 0.98
ALL_TIMES, ALL_GROUPS = 10.0, 10.0
"""What is expected of a wait at a kind of time from either alone counts in one, and what all groups count in one, in waits."""

_LOWEST: Int = np.ceil(EDGES - 1e-9).astype(np.int64)
_BIN: Int = np.flatnonzero((_LOWEST[1:] > _LOWEST[:-1]) & (np.arange(BINS) > 0))
"""The bins that hold a VM: rungs are counted from 0, and -1 is none."""
RUNGS, GROUPS = len(_BIN), BINS // PER_OCTAVE
GROUP: Int = _BIN // PER_OCTAVE
"""int64 (RUNGS,), the group of each rung."""
LAST_VM: Int = np.append(_LOWEST[_BIN + 1] - 1, 0)
"""int64 (RUNGS + 1,), the last VM of each rung; of rung -1, none."""
_RUNG: Int = np.searchsorted(_BIN, np.arange(BINS), side="right") - 1
_KIND: SmallInt = np.array([0, 1, 2, 3, 3, 4, 4, 5], np.int8)
"""Kinds of times of the day: wanted then on none of the last days, on one, on two, on three or four, on five or six, on all."""
_MOST_TICKS = 2**20
"""Longer waits are all alike; of ticks of a quarter of a second or more, they are in any case."""
UNKNOWN = -2
"""The rung of an hour that was not seen."""


def rung_of(vms: Int) -> Int:
    """The highest rung that so many VMs need, any shape; -1 for none."""
    if np.maximum.reduce(vms, axis=None, initial=0) < len(_FEW_VMS):
        return _FEW_VMS.take(vms, mode="clip")
    return _rung_of(vms)


def _rung_of(vms: Int) -> Int:
    """As `rung_of`, worked out."""
    return _RUNG.take(bin_of(np.maximum(vms, 0).astype(np.float64)))


_FEW_VMS: Int = _rung_of(np.arange(4096))
"""The rungs of as many VMs as most fleets have."""


def waits_by_ticks(tick_s: float) -> SmallInt:
    """The bin of each wait by its ticks: int8 (N,), of which the last stands for all that are longer."""
    longest = math.ceil(2.0 ** (WAITS - 2) / SHORTEST * HOUR_S / tick_s)
    waits = np.log2(np.maximum(np.arange(min(longest, _MOST_TICKS) + 1), 1) * (SHORTEST * tick_s / HOUR_S))
    waits += 1.0 + 1e-9
    return np.minimum(np.maximum(waits, 0.0), WAITS - 1.0).astype(np.int8)


def kinds_of(hours: SmallInt, hour: int, ahead: int, rungs: int) -> SmallInt:
    """The kind of time that an hour and those after it are, for each rung.

    Args:
        hours: int8 (HOURS, n), the highest rung wanted in each hour, by hour since the epoch modulo HOURS.
        hour: The first, since the epoch.
        ahead: How many, fewer than a day has.
        rungs: How many rungs are asked for.

    Returns:
        int8 (ahead, rungs, n): by on how many of the last days a rung was wanted within that hour or the next one.
    """
    rows = np.arange(rungs, dtype=np.int8)[:, np.newaxis]
    at = hour + np.arange(ahead)[:, np.newaxis] - np.arange(1, DAYS + 1) * DAY_H
    highest = np.maximum(hours.take(at % HOURS, axis=0), hours.take((at + 1) % HOURS, axis=0))
    wanted = highest[:, :, np.newaxis] >= rows
    days: SmallInt = np.add.reduce(wanted.view(np.int8), axis=1, dtype=np.int8)
    return _KIND.take(days)


def work_out(ended: SmallFloat, asked: SmallFloat, odds: SmallFloat, lasts: SmallFloat) -> None:
    """How likely waits end within an hour from the beginning of their bin on, and how much of it they last.

    Args:
        ended: float32 (G, WAITS, HITS, n), waits that ended, forgotten slowly: in a bin of less than an hour, or else in the
            hour after they were of a bin.
        asked: Likewise, hours in which waits were of a bin; in the last bin of less than an hour, waits that outlasted it.
        odds: Likewise, set to the odds, above 0 and below 1.
        lasts: Likewise, set to the mean share of the hour.
    """
    reached = lasts
    np.copyto(reached, asked)
    reached[:, FRESH - 1] += ended[:, FRESH - 1]
    for wait in reversed(range(FRESH - 1)):
        np.add(ended[:, wait], reached[:, wait + 1], out=reached[:, wait])
    counted = np.empty((2, *ended.shape[1:]), np.float32)
    ends, waits = counted
    np.add.reduce(ended, axis=0, out=ends)
    np.add.reduce(reached, axis=0, out=waits)
    expected = _expected(counted)
    expected *= np.float32(ALL_TIMES)
    ends += expected
    waits += np.float32(ALL_TIMES)
    ends /= waits
    ends *= np.float32(ALL_GROUPS)
    np.add(ended, ends, out=odds)
    reached += np.float32(ALL_GROUPS)
    odds /= reached
    # Who was asked in no whole hour counts for the part of it, and may so seem to end more than once.
    np.minimum(odds, np.float32(MOST_ODDS), out=odds)
    np.multiply(odds, np.float32(-0.5), out=lasts)
    lasts += np.float32(1.0)
    _within_the_hour(odds, lasts)


def _expected(counted: SmallFloat) -> SmallFloat:
    """The odds of each wait at each kind of time, as if one did not depend on the other: float32 (WAITS, HITS, n).

    Args:
        counted: float32 (2, WAITS, HITS, n), waits that ended, of all groups, and of how many.
    """
    by_wait = counted[:, :, 0].copy()
    for kind in range(1, HITS):
        by_wait += counted[:, :, kind]
    expected = np.empty_like(counted[0])
    odds_of_wait = _odds(by_wait)[:, np.newaxis]
    for first, end in ((0, FRESH), (FRESH, WAITS)):
        by_kind = counted[:, first].copy()
        for wait in range(first + 1, end):
            by_kind += counted[:, wait]
        everything = by_kind[:, 0].copy()
        for kind in range(1, HITS):
            everything += by_kind[:, kind]
        usual, (ended, asked) = _odds(everything), by_kind
        ended += usual
        asked += np.float32(1.0)
        ended /= asked
        ended /= usual
        np.multiply(odds_of_wait[first:end], ended, out=expected[first:end])
    found: SmallFloat = np.minimum(expected, np.float32(MOST_ODDS), out=expected)
    return found


def _odds(counted: SmallFloat) -> SmallFloat:
    """The odds by what ended and of how many, float32 (2, ..., n), with what one believes before any was seen: (..., n)."""
    ended, asked = counted
    found: SmallFloat = (ended + np.float32(PRIOR_ENDS)) / (asked + np.float32(PRIOR_WAITS))
    return found


def _within_the_hour(odds: SmallFloat, lasts: SmallFloat) -> None:
    """For the bins of less than an hour: from what ends within a bin to what ends within an hour, in place."""
    one = np.float32(1.0)
    stays = np.ones_like(odds[:, FRESH])
    lasted, beyond = np.zeros_like(stays), one - odds[:, FRESH]
    goes_on, part = np.empty_like(stays), np.empty_like(stays)
    for wait in reversed(range(FRESH)):
        length, begins = (np.float32(2.0 ** (at - 1) / SHORTEST) for at in (max(wait, 1), wait))
        np.subtract(one, odds[:, wait], out=goes_on)
        lasted *= goes_on
        lasted += np.multiply(length, lasts[:, wait], out=part)
        stays *= goes_on
        if not wait:
            np.subtract(one, stays, out=odds[:, wait])
            lasts[:, wait] = lasted
            continue
        # The hour goes on for as long beyond the last of these bins as this one began after the first.
        np.sqrt(beyond, out=beyond)
        np.multiply(np.float32(0.5) * begins, stays, out=part)
        part *= np.add(one, beyond, out=goes_on)
        np.add(lasted, part, out=lasts[:, wait])
        np.subtract(one, np.multiply(stays, beyond, out=part), out=odds[:, wait])


def worth_having(
    odds: SmallFloat,
    lasts: SmallFloat,
    cells: Int,
    saved: Float,
    stopped: Float,
    made: Float,
    after: tuple[Float, Float] | None = None,
) -> tuple[Float, Float]:
    """What it is worth to have a stopped VM, and to have none, at best giving it up and making it anew from hour to hour.

    Backwards over the hours, where a VM is wanted within the hour with odds h: having it costs its price until then, not
    having it costs what it saves, and where it is not wanted one may change one's mind, which costs making it where one has none.

    Args:
        odds: Of `work_out`.
        lasts: Likewise.
        cells: int64 (H, ..., m), where the hours to come are in them, flat.
        saved: float64 (m,), what a stopped VM saves that is wanted.
        stopped: float64 (m,), its price for an hour.
        made: float64 (m,), of making it.
        after: What both are worth after these hours, float64 (..., m) each, which are overwritten; None for nothing.

    Returns:
        float64 (..., m) each.
    """
    having, none = (np.zeros(cells.shape[1:]), np.zeros(cells.shape[1:])) if after is None else after
    for cell in cells[::-1]:
        ends, lost = odds.take(cell).astype(np.float64), lasts.take(cell) * stopped
        anew = np.maximum(having - made, none)
        np.maximum(having, none, out=having)
        goes_on = 1.0 - ends
        having *= goes_on
        having -= lost
        anew *= goes_on
        ends *= saved
        anew -= ends
        none = anew
    return having, none


def rows_up_to(top: Int, mine: Bool) -> Int:
    """How many rows, from the first on without a gap, are true: int64 (n,).

    Args:
        top: int64 (n,), rows up to and with this one count as true.
        mine: bool (R, n), the others.
    """
    unbroken = np.zeros((len(mine) + 1, len(top)), np.bool_)
    np.less_equal(np.arange(len(mine))[:, np.newaxis], top, out=unbroken[:-1])
    unbroken[:-1] |= mine
    # The row beyond the last is the first that is false, if no other is.
    found: Int = unbroken.argmin(axis=0)
    return found
