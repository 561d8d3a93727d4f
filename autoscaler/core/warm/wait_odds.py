"""Probability that a wait ends within the next hour, by how long it has lasted and by the time of day.

Groups of rungs, an octave wide, have their own distributions, which borrow from all groups if one has seen little. If few such waits
were seen at such a time, waits and times are combined as if they were independent.

All queries within an hour use the distribution as it was when the hour began. So counts are noted, and added when the next hour begins,
or when the state is read. The distribution of a cell (a group's wait at a kind of time) is computed on first use, because few are used
in an hour.

Rules of this file: element-wise, sums along bins in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaler.core.types import Int, SmallFloat
from autoscaler.core.warm.returns import FRESH, GROUPS, HITS, SHORTEST, WAITS

PRIOR_ENDS, PRIOR_WAITS = 0.3, 1.0
"""Every bin starts with `PRIOR_WAITS` waits, of which `PRIOR_ENDS` ended within the hour."""
MOST_ODDS = 0.98
ALL_TIMES, ALL_GROUPS = 10.0, 10.0
"""Weights of prior odds, in waits: `ALL_TIMES` for what length of wait and kind of time suggest independently, against what was
counted for both combined; `ALL_GROUPS` for the odds over all groups, against what was counted in one group."""
FEW = 64
"""With fewer columns than this, all groups are processed together, because numpy calls then cost more than the arithmetic."""
_ONE = np.float32(1.0)


class Law:
    """Counts of how waits ended, and the probabilities that followed from them when this hour began.

    All arrays are updated in place. `odds` and `lasts` must be those that follow from `ended` and `asked`.

    Args:
        ended: float32 (GROUPS, WAITS, HITS, n), fading counts of waits that ended: within a bin of less than an hour, or in
            the hour after the wait was found in a longer bin.
        asked: float32 of the same shape, fading counts of hours in which waits were in a bin; in the last bin of less than
            an hour, waits that outlasted it.
        odds: float32 of the same shape, probability that a wait ends within an hour from the beginning of its bin, in (0, 1).
        lasts: float32 of the same shape, the mean share of that hour that the wait lasts.
    """

    def __init__(self, ended: SmallFloat, asked: SmallFloat, odds: SmallFloat, lasts: SmallFloat) -> None:
        self._ended, self._asked = ended, asked
        self.odds, self.lasts = odds, lasts
        self._buffered: tuple[list[Int], list[Int], list[SmallFloat]] = [], [], []
        self._unknown = np.zeros(GROUPS * WAITS * HITS, np.bool_)
        self._all_known = True
        self._counted: SmallFloat = np.empty((2, *ended.shape[1:]), np.float32)
        self._groups = range(1, GROUPS)
        self._few_columns = ended.shape[-1] < FEW
        self._independent: tuple[SmallFloat, SmallFloat, SmallFloat] | None = None

    def note_ended(self, cells: Int) -> None:
        """Count waits that ended, by the flat index of their cells: int64 (k,)."""
        self._buffered[0].append(cells)

    def note_asked(self, cells: Int, weight: SmallFloat) -> None:
        """Count hours of waiting, by the flat index of their cells, int64 (k,), each with a weight, float32 (k,)."""
        self._buffered[1].append(cells)
        self._buffered[2].append(weight)

    def begin_hour(self, forgotten: float, groups: range) -> None:
        """Begin an hour.

        Args:
            forgotten: Factor on all earlier counts.
            groups: The groups in which anything was ever counted; at least one.
        """
        self._add()
        self._groups = groups
        fades = np.float32(forgotten)
        counted = self._counted
        counted.fill(0.0)
        ends, waits = counted
        for some in self._batches(groups):
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
        self._independent = _independent(counted)
        self._unknown.fill(True)
        self._all_known = False

    def ensure_known(self, cells: Int) -> None:
        """Compute the law of some cells, int64 (..., m), flat indices into (GROUPS, WAITS, HITS), unless it is known."""
        if self._all_known:
            return
        if self._few_columns:
            self._compute_all()
            return
        needed = np.zeros(len(self._unknown), np.bool_)
        needed[cells] = True
        needed &= self._unknown
        for group in dict.fromkeys((needed.nonzero()[0] // (WAITS * HITS)).tolist()):
            waits = needed.reshape(GROUPS, WAITS, HITS)[group]
            fresh = np.logical_or.reduce(waits[:FRESH], axis=0).nonzero()[0]
            if len(fresh):
                # The odds of ending within the hour depend on all bins of less than an hour together.
                self._compute(range(group, group + 1), range(FRESH + 1), range(fresh[0], fresh[-1] + 1))
            for wait in range(FRESH, WAITS):
                kinds = waits[wait].nonzero()[0]
                if len(kinds):
                    kind_range = range(kinds[0], kinds[-1] + 1)
                    self._compute(range(group, group + 1), range(wait, wait + 1), kind_range)

    def settle(self) -> None:
        """Add all noted counts, and compute the laws of all groups."""
        if not self._all_known:
            self._compute_all()
        self._add()

    def _compute_all(self) -> None:
        """Compute the laws of all groups."""
        # Nothing was ever counted in the group before the first, and all groups without counts have the same law.
        empty, unknown = self._groups.start - 1, self._unknown.reshape(GROUPS, -1)
        for some in self._batches(range(empty, self._groups.stop)):
            if np.count_nonzero(unknown[some.start : some.stop]):
                self._compute(some, range(WAITS), range(HITS))
        for group in np.logical_or.reduce(unknown, axis=1).nonzero()[0].tolist():
            self.odds[group], self.lasts[group] = self.odds[empty], self.lasts[empty]
        self._all_known = True

    def _batches(self, groups: range) -> Sequence[range]:
        """How to split groups into calls: few columns in one call, many by group, so that the data fits in the cache."""
        return [groups] if self._few_columns else [range(group, group + 1) for group in groups]

    def _add(self) -> None:
        """Add the noted counts, in the order in which they were noted."""
        ends, asks, weights = self._buffered
        if ends:
            np.add.at(self._ended.reshape(-1), np.concatenate(ends), _ONE)
        if asks:
            np.add.at(self._asked.reshape(-1), np.concatenate(asks), np.concatenate(weights))
        self._buffered = [], [], []

    def _expected(self, waits: range, kinds: range) -> SmallFloat:
        """How many of `ALL_GROUPS` waits in some bins are expected to end at some kinds of time: float32 (w, h, n)."""
        assert self._independent is not None
        some = slice(waits.start, waits.stop), slice(kinds.start, kinds.stop)
        by_wait, fresh, old = self._independent
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

    def _compute(self, groups: range, waits: range, kinds: range) -> None:
        """Compute the laws of some groups, waits and kinds of time; waits must include all bins up to FRESH, or none below."""
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
        # A wait that was counted for only part of an hour may otherwise seem to end more than once.
        np.minimum(odds, np.float32(MOST_ODDS), out=odds)
        np.multiply(odds, np.float32(-0.5), out=lasts)
        lasts += _ONE
        if fresh:
            _odds_within_hour(odds, lasts)


def _summed(groups: SmallFloat) -> SmallFloat:
    """The sum over groups, in their order: float32 (...) from (G, ...)."""
    total: SmallFloat = groups[0] if len(groups) == 1 else np.add.reduce(groups, axis=0)
    return total


def _independent(counted: SmallFloat) -> tuple[SmallFloat, SmallFloat, SmallFloat]:
    """Return the odds of each wait, and the factor of each kind of time on them, as if the two were independent.

    Args:
        counted: float32 (2, WAITS, HITS, n), waits that ended, in all groups, and waits in total.

    Returns:
        float32 (WAITS, n), the odds; float32 (HITS, n), the factors for waits of less than an hour; the same for longer waits.
    """
    # numpy adds fewer than eight numbers in order, whatever their layout in memory.
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
    """Odds from ended and total counts, float32 (2, ..., n), including the prior counts: float32 (..., n)."""
    ended, asked = counted
    found: SmallFloat = (ended + np.float32(PRIOR_ENDS)) / (asked + np.float32(PRIOR_WAITS))
    return found


def _odds_within_hour(odds: SmallFloat, lasts: SmallFloat) -> None:
    """For the bins of less than an hour, turn the odds of ending within the bin into those of ending within an hour, in place.

    Args:
        odds: float32 (G, WAITS, HITS, n).
        lasts: float32 of the same shape.
    """
    not_ended = np.ones_like(odds[:, FRESH])
    lasted, beyond = np.zeros_like(not_ended), _ONE - odds[:, FRESH]
    goes_on, part = np.empty_like(not_ended), np.empty_like(not_ended)
    for wait in reversed(range(FRESH)):
        length, begins = (np.float32(2.0 ** (at - 1) / SHORTEST) for at in (max(wait, 1), wait))
        np.subtract(_ONE, odds[:, wait], out=goes_on)
        lasted *= goes_on
        lasted += np.multiply(length, lasts[:, wait], out=part)
        not_ended *= goes_on
        if not wait:
            np.subtract(_ONE, not_ended, out=odds[:, wait])
            lasts[:, wait] = lasted
            continue
        # An hour from the beginning of this bin ends past the last of these bins, by as much as this bin begins after zero.
        np.sqrt(beyond, out=beyond)
        np.multiply(np.float32(0.5) * begins, not_ended, out=part)
        part *= np.add(_ONE, beyond, out=goes_on)
        np.add(lasted, part, out=lasts[:, wait])
        np.subtract(_ONE, np.multiply(not_ended, beyond, out=part), out=odds[:, wait])
