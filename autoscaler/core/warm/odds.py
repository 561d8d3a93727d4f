"""Probability that a wait ends within the next hour, by how long it has lasted and by the time of day.

Groups of rungs, an octave wide, have their own distributions, which borrow from all groups if one has seen little. If few such waits
were seen at such a time, waits and times are combined as if they were independent.

All queries within an hour use the distribution as it was when the hour began. So counts are noted, and added when the next hour begins,
or when the state is read. The distribution of a cell (a group's wait at a kind of time) is computed on first use, since few are used
in an hour.

Rules of this file: element-wise, sums along bins in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.types import Int, SmallFloat
from autoscaler.core.warm.returns import FRESH, GROUPS, HITS, SHORTEST, WAITS

PRIOR_ENDS, PRIOR_WAITS = 0.3, 1.0
"""Waits of each length that one believes to have seen before any, and how many of them ended within the hour."""
MOST_ODDS = 0.98
ALL_TIMES, ALL_GROUPS = 10.0, 10.0
"""What is expected of a wait at a kind of time from either alone counts in one, and what all groups count in one, in waits."""
FEW = 64
"""Fewer columns are gone through in as few calls as can be."""
_ONE = np.float32(1.0)


class Law:
    """What was counted of waits, and what follows of it as of the beginning of this hour.

    Args:
        ended: float32 (GROUPS, WAITS, HITS, n), waits that ended, forgotten slowly: in a bin of less than an hour, or else in
            the hour after they were of a bin.
        asked: Likewise, hours in which waits were of a bin; in the last bin of less than an hour, waits that outlasted it.
        odds: Likewise, how likely waits end within an hour from the beginning of their bin on, above 0 and below 1.
        lasts: Likewise, the mean share of the hour that they last.

    All are updated in place. What follows must be that of what was counted.
    """

    def __init__(self, ended: SmallFloat, asked: SmallFloat, odds: SmallFloat, lasts: SmallFloat) -> None:
        self._ended, self._asked = ended, asked
        self.odds, self.lasts = odds, lasts
        self._noted: tuple[list[Int], list[Int], list[SmallFloat]] = [], [], []
        self._unknown = np.zeros(GROUPS * WAITS * HITS, np.bool_)
        self._all_known = True
        self._counted: SmallFloat = np.empty((2, *ended.shape[1:]), np.float32)
        self._groups = range(1, GROUPS)
        self._few = ended.shape[-1] < FEW
        self._alone: tuple[SmallFloat, SmallFloat, SmallFloat] | None = None

    def note_ended(self, cells: Int) -> None:
        """Count waits that ended, each in a cell of the counts, flat: int64 (k,)."""
        self._noted[0].append(cells)

    def note_asked(self, cells: Int, weight: SmallFloat) -> None:
        """Count waits that were asked, likewise, each with a weight: float32 (k,)."""
        self._noted[1].append(cells)
        self._noted[2].append(weight)

    def turn(self, forgotten: float, groups: range) -> None:
        """Begin an hour.

        Args:
            forgotten: What was counted before counts as much.
            groups: Those in which anything was ever counted; at least one.
        """
        self._add()
        self._groups = groups
        fades = np.float32(forgotten)
        counted = self._counted
        counted.fill(0.0)
        ends, waits = counted
        for some in self._apart(groups):
            within = slice(some.start, some.stop)
            ended, asked = self._ended[within], self._asked[within]
            ended *= fades
            asked *= fades
            ends += _summed(ended)
            waits[FRESH:] += _summed(asked[:, FRESH:])
            reached = asked[:, FRESH - 1] + ended[:, FRESH - 1]
            waits[FRESH - 1] += _summed(reached)
            for wait in reversed(range(FRESH - 1)):
                reached += ended[:, wait]
                waits[wait] += _summed(reached)
        self._alone = _alone(counted)
        self._unknown.fill(True)
        self._all_known = False

    def know(self, cells: Int) -> None:
        """Have the law of some cells, int64 (..., m) of (GROUPS, WAITS, HITS), flat."""
        if self._all_known:
            return
        if self._few:
            self._know_all()
            return
        asked = np.zeros(len(self._unknown), np.bool_)
        asked[cells] = True
        asked &= self._unknown
        for group in dict.fromkeys((asked.nonzero()[0] // (WAITS * HITS)).tolist()):
            waits = asked.reshape(GROUPS, WAITS, HITS)[group]
            fresh = np.logical_or.reduce(waits[:FRESH], axis=0).nonzero()[0]
            if len(fresh):
                # What ends within the hour is told by all of these waits together.
                self._work_out(range(group, group + 1), range(FRESH + 1), range(fresh[0], fresh[-1] + 1))
            for wait in range(FRESH, WAITS):
                kinds = waits[wait].nonzero()[0]
                if len(kinds):
                    which = range(kinds[0], kinds[-1] + 1)
                    self._work_out(range(group, group + 1), range(wait, wait + 1), which)

    def settle(self) -> None:
        """Have all that was counted in what is counted, and the laws of all groups."""
        if not self._all_known:
            self._know_all()
        self._add()

    def _know_all(self) -> None:
        """Have the laws of all groups."""
        # The group before the first is one of those in which nothing was ever counted, which are all alike.
        empty, unknown = self._groups.start - 1, self._unknown.reshape(GROUPS, -1)
        for some in self._apart(range(empty, self._groups.stop)):
            if np.count_nonzero(unknown[some.start : some.stop]):
                self._work_out(some, range(WAITS), range(HITS))
        for group in np.logical_or.reduce(unknown, axis=1).nonzero()[0].tolist():
            self.odds[group], self.lasts[group] = self.odds[empty], self.lasts[empty]
        self._unknown.fill(False)
        self._all_known = True

    def _apart(self, groups: range) -> Sequence[range]:
        """Groups that are best gone through together: few numbers take as long as calls do, and many do not stay in the cache."""
        return [groups] if self._few else [range(group, group + 1) for group in groups]

    def _add(self) -> None:
        """Add what was noted, in the order of notes."""
        ends, asks, weights = self._noted
        if ends:
            np.add.at(self._ended.reshape(-1), np.concatenate(ends), _ONE)
        if asks:
            np.add.at(self._asked.reshape(-1), np.concatenate(asks), np.concatenate(weights))
        self._noted = [], [], []

    def _expected(self, waits: range, kinds: range) -> SmallFloat:
        """How many of `ALL_GROUPS` waits of some bins are expected to end at some kinds of times: float32 (w, h, n)."""
        assert self._alone is not None
        some = slice(waits.start, waits.stop), slice(kinds.start, kinds.stop)
        by_wait, fresh, old = self._alone
        expected = np.empty((len(waits), len(kinds), by_wait.shape[-1]), np.float32)
        parts = (waits.start, min(waits.stop, FRESH), fresh), (max(waits.start, FRESH), waits.stop, old)
        for first, end, by_kind in parts:
            if first < end:
                out = expected[first - waits.start : end - waits.start]
                np.multiply(by_wait[first:end, np.newaxis], by_kind[some[1]], out=out)
        np.minimum(expected, np.float32(MOST_ODDS), out=expected)
        expected *= np.float32(ALL_TIMES)
        ends, asked = (counted[some] for counted in self._counted)
        expected += ends
        expected /= asked + np.float32(ALL_TIMES)
        expected *= np.float32(ALL_GROUPS)
        return expected

    def _work_out(self, groups: range, waits: range, kinds: range) -> None:
        """Have the laws of some groups, waits and kinds of times; of waits of less than an hour all, and the next one."""
        some = tuple(slice(each.start, each.stop) for each in (groups, waits, kinds))
        self._unknown.reshape(GROUPS, WAITS, HITS)[some] = False
        ended, asked, odds, lasts = self._ended[some], self._asked[some], self.odds[some], self.lasts[some]
        reached, groups_count = lasts, np.float32(ALL_GROUPS)
        fresh = max(FRESH - waits.start, 0)
        np.add(asked[:, fresh:], groups_count, out=reached[:, fresh:])
        if fresh:
            np.add(asked[:, FRESH - 1], ended[:, FRESH - 1], out=reached[:, FRESH - 1])
            for wait in reversed(range(FRESH - 1)):
                np.add(ended[:, wait], reached[:, wait + 1], out=reached[:, wait])
            reached[:, :FRESH] += groups_count
        np.add(ended, self._expected(waits, kinds), out=odds)
        odds /= reached
        # Who was asked in no whole hour counts for the part of it, and may so seem to end more than once.
        np.minimum(odds, np.float32(MOST_ODDS), out=odds)
        np.multiply(odds, np.float32(-0.5), out=lasts)
        lasts += _ONE
        if fresh:
            _within_the_hour(odds, lasts)


def _summed(groups: SmallFloat) -> SmallFloat:
    """The sum along groups, one after the other: float32 (...) of (G, ...)."""
    total: SmallFloat = groups[0] if len(groups) == 1 else np.add.reduce(groups, axis=0)
    return total


def _alone(counted: SmallFloat) -> tuple[SmallFloat, SmallFloat, SmallFloat]:
    """The odds of each wait, and how many times as likely it ends at each kind of time, as if one did not depend on the other.

    Args:
        counted: float32 (2, WAITS, HITS, n), waits that ended, of all groups, and of how many.

    Returns:
        float32 (WAITS, n), and float32 (HITS, n) of waits of less than an hour, and of longer ones.
    """
    # Fewer than eight numbers numpy adds one after the other, wherever they lie.
    by_wait = np.add.reduce(counted, axis=2)
    found = []
    for first, end in ((0, FRESH), (FRESH, WAITS)):
        by_kind = np.add.reduce(counted[:, first:end], axis=1)
        usual, (ended, asked) = _odds(np.add.reduce(by_kind, axis=1)), by_kind
        ended += usual
        asked += _ONE
        ended /= asked
        ended /= usual
        found.append(ended)
    return _odds(by_wait), found[0], found[1]


def _odds(counted: SmallFloat) -> SmallFloat:
    """The odds by what ended and of how many, float32 (2, ..., n), with what one believes before any was seen: (..., n)."""
    ended, asked = counted
    found: SmallFloat = (ended + np.float32(PRIOR_ENDS)) / (asked + np.float32(PRIOR_WAITS))
    return found


def _within_the_hour(odds: SmallFloat, lasts: SmallFloat) -> None:
    """For the bins of less than an hour: from what ends within a bin to what ends within an hour, in place.

    Args:
        odds: float32 (G, WAITS, HITS, n).
        lasts: Likewise.
    """
    stays = np.ones_like(odds[:, FRESH])
    lasted, beyond = np.zeros_like(stays), _ONE - odds[:, FRESH]
    goes_on, part = np.empty_like(stays), np.empty_like(stays)
    for wait in reversed(range(FRESH)):
        length, begins = (np.float32(2.0 ** (at - 1) / SHORTEST) for at in (max(wait, 1), wait))
        np.subtract(_ONE, odds[:, wait], out=goes_on)
        lasted *= goes_on
        lasted += np.multiply(length, lasts[:, wait], out=part)
        stays *= goes_on
        if not wait:
            np.subtract(_ONE, stays, out=odds[:, wait])
            lasts[:, wait] = lasted
            continue
        # The hour goes on for as long beyond the last of these bins as this one began after the first.
        np.sqrt(beyond, out=beyond)
        np.multiply(np.float32(0.5) * begins, stays, out=part)
        part *= np.add(_ONE, beyond, out=goes_on)
        np.add(lasted, part, out=lasts[:, wait])
        np.subtract(_ONE, np.multiply(stays, beyond, out=part), out=odds[:, wait])
