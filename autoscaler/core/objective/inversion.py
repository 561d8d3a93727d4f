"""Inverts predictive distributions: finds the bin, and the demand in it, at which a probability is reached.

Bisection over bins finds the one at which a VM stops earning its price. That bin seldom changes from tick to tick, and two bins show
whether it has: distributions are convex, so if the bin before earns enough and this one does not, by more than rounding could hide,
bisection would end there. So the last answer is tried first, which affects nothing but the time taken. For few distributions, all
edges of each are computed and the answers looked up; if there are more queries than bins, all intermediate results are tabulated,
too. The results are bit-identical.

The odds of a bin are the mean probability over the bin that demand is higher: the fall in expected excess over the bin, divided by its
width. Bisection counts the bins with at least the odds asked for, and ends at bin b if there are b of them.

Rules of this file: element-wise, and accumulation along bins; the only state is where to look first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.law_grid import EDGES
from autoscaler.core.objective.prepared_law import BINS, HALVES, SPOTS, Law, read
from autoscaler.core.types import LAW_BINS, Bool, Horizon, Int, Laws, SmallFloat

_EACH_HALF: Int = np.array(HALVES, np.int64)[:, np.newaxis]
_ENDS = BINS.reshape(-1)
_PROBES: Int = _ENDS - _ENDS % (2 * _EACH_HALF) + (_EACH_HALF - 1)
_PROBE_ANSWERS: Bool = _ENDS & _EACH_HALF > 0
"""`_PROBES` are the bins that bisection looks at if it ends at each bin, (steps, bins); `_PROBE_ANSWERS` is whether their odds
suffice."""
_AROUND: Int = np.stack([np.maximum(_ENDS - 1, 0), _ENDS, _ENDS + 1])
"""The edges around the place where bisection ends: those of the bin before it and of the bin itself, (3, bins)."""
_FEW = 48
"""Up to this many questions of a table, evaluating all bins is faster than bisection."""
_MIDDLE = LAW_BINS // 2
_UPPER_BINS = LAW_BINS - _MIDDLE + 1
"""Number of bins from the first one that bisection looks at."""
# As float32, because converting a plain number takes numpy a while if there are few lanes.
_FEWEST, _NONE, _HALF, _ONE = (np.float32(number) for number in (1e-30, 0.0, 0.5, 1.0))
_ROUGH = 256.0 * float(np.finfo(np.float32).eps)
"""Bound of a law's rounding errors relative to its edges and excess; far more than they are."""
_NARROWEST = float(EDGES[_MIDDLE] - EDGES[_MIDDLE - 1])
"""Width of the narrowest bin from the first one that bisection looks at upwards, in spreads."""
_ROUGH_BINS = np.float32(_ROUGH / _NARROWEST)
_NARROW, _TINY = np.float32(1e-20), np.float32(1e-30)
_ROUND_DOWN, _ROUND_UP = np.float32(1.0 - 2.0**-19), np.float32(1.0 + 2.0**-19)
"""Factors that cover rounding errors of odds and of the probabilities they are compared with; far more than these are."""


class _Around(NamedTuple):
    """The two bins around the places where questions end; along the first axis of each array are their edges, or the bins.

    Attributes:
        edges: float32 (3, ...), demands at the edges.
        excess: float32 (3, ...), expected excess over the edges.
        odds: float32 (2, ...), odds of the bins.
    """

    edges: SmallFloat
    excess: SmallFloat
    odds: SmallFloat

    @classmethod
    def of(cls, edges: SmallFloat, excess: SmallFloat) -> _Around:
        """Return the bins between three edges with these excesses."""
        odds, width = excess[:2] - excess[1:], edges[1:] - edges[:2]
        # Bins of demand below 0 have no width, and demand is certain to be higher.
        certain = ~(width[0] > _NONE)
        np.maximum(width, _FEWEST, out=width)
        odds /= width
        if np.count_nonzero(certain):
            odds[0][certain] = 1.0
        return cls(edges, excess, odds)

    def reached(self, count: Int, share: SmallFloat) -> SmallFloat:
        """Return the demand exceeded with probability `share`: odds are linear from one bin's middle to the other's."""
        first, middle, last = self.edges
        above, below = self.odds
        into = above - share
        between = above - below
        np.maximum(between, _FEWEST, out=between)
        into /= between
        np.maximum(into, _NONE, out=into)
        np.minimum(into, _ONE, out=into)
        into *= _HALF
        into *= last - first
        found: SmallFloat = first + middle
        found *= _HALF
        found += into
        if np.count_nonzero(count) < count.size:
            found = np.where(count > 0, found, first)
        return found

    def certainty(self, law: Law, share: SmallFloat) -> tuple[SmallFloat, SmallFloat]:
        """Return how far the two bins' odds are above and below `share`, and how far they must be to exclude rounding errors."""
        gap = self.odds - share
        np.negative(gap[1], out=gap[1])
        rough = self.edges[1:] + law.scale
        rough *= self.odds
        rough += self.excess[:2]
        rough *= _ROUGH_BINS / (law.unit * law.spread)
        return gap, rough


class Last:
    """Remembers where each question ended the last time, and looks there first.

    Args:
        row: int64 (laws, 1, lanes), the law of each question.
        shape: Shape of the questions: laws x times x lanes.
    """

    def __init__(self, row: Int, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._base = np.broadcast_to(row * (LAW_BINS + 1), shape).reshape(-1)
        self._lane = np.broadcast_to(np.arange(shape[2]), shape).reshape(-1)
        self._law = np.broadcast_to(np.arange(row.size).reshape(row.shape), shape).reshape(-1)
        self._count = np.zeros(shape, np.int64)
        self._spots, self._cells = np.zeros((3, *shape), np.float32), np.zeros((3, *shape), np.int64)
        self._ended_at(np.arange(len(self._base)), np.full(len(self._base), _MIDDLE))

    def _ended_at(self, questions: Int, count: Int) -> tuple[SmallFloat, Int]:
        """Record where some questions ended; return the positions and the places of three edges each, (3, k)."""
        at = _AROUND.take(count, axis=1)
        spots, cells = SPOTS.take(at), at + self._base.take(questions)
        self._count.reshape(-1)[questions] = count
        self._spots.reshape(3, -1)[:, questions] = spots
        self._cells.reshape(3, -1)[:, questions] = cells
        return spots, cells

    def around(self, law: Law, share: SmallFloat) -> tuple[Int, _Around]:
        """Return where all questions end, int64, and the bins around these places."""
        around = _Around.of(law.edges(self._spots), law.excess.take(self._cells))
        gap, rough = around.certainty(law, share)
        certain = gap >= rough
        sure = certain[0] & certain[1]
        sure &= self._count >= _MIDDLE
        # Bisection never ends in a bin of demand below 0, because any probability is reached there.
        sure &= around.edges[2] > around.edges[1]
        rest = np.flatnonzero(~sure)
        if len(rest):
            laws = self._law.take(rest)
            uncertain = Law(
                law.excess,
                self._base.take(rest),
                law.unit.take(laws),
                law.scale.take(self._lane.take(rest)),
                law.spread.take(laws),
            )
            spots, cells = self._ended_at(rest, uncertain.bins_over(share.take(rest)))
            found = _Around.of(uncertain.edges(spots), uncertain.excess.take(cells))
            around.edges.reshape(3, -1)[:, rest] = found.edges
            around.odds.reshape(2, -1)[:, rest] = found.odds
        return self._count, around


class Table:
    """A few laws computed in full, for many questions about them.

    Args:
        own: Groups of lanes that read the same series, G of them.
        series: int64 (L,), the series of each lane.
        horizons: The horizons of the laws.
        shape: Shape of the questions: laws x times x lanes.
    """

    def __init__(
        self, groups: ColumnGroups, series: Int, horizons: tuple[Horizon, ...], shape: tuple[int, int, int]
    ) -> None:
        self._groups, self._series = groups, groups.of_first(series)
        self._row = self._series * len(Horizon) + np.array(horizons, np.int64)[:, np.newaxis, np.newaxis]
        self._rows = self._row.reshape(-1)
        count, edges = len(groups.first), LAW_BINS + 1
        self._one_per_lane = count == shape[2]
        law = np.arange(shape[0])[:, np.newaxis, np.newaxis] * count + groups.group
        self._base, self._shape = law * edges, shape
        questions = shape[0] * shape[1] * shape[2]
        # If there are many questions compared to bins, results are tabulated by bin.
        self._by_bin = 2 * questions > len(self._rows) * LAW_BINS
        if self._by_bin:
            self._law_of_question = np.broadcast_to(law, shape).reshape(-1)
            # Places in tables of all bins, and in tables of the bins from the first one that bisection looks at
            # upwards.
            self._begins = self._law_of_question * LAW_BINS, self._law_of_question * _UPPER_BINS
            self._last_ends = self._begins[0] + _MIDDLE, self._begins[1] + 1
            return
        self._first = np.broadcast_to(self._base, shape).reshape(-1)
        self._count = np.zeros(shape, np.int64)
        self._probes = np.zeros((len(HALVES), questions), np.int64)
        self._probe_answers = np.zeros(self._probes.shape, np.bool_)
        self._cells = np.zeros((3, questions), np.int64)
        self._ended_at(np.arange(questions), np.full(questions, _MIDDLE))

    def _ended_at(self, questions: Int, count: Int) -> None:
        """Record where some questions ended: the bins that bisection looked at, what it found there, and three edges."""
        first = self._first.take(questions)
        self._count.reshape(-1)[questions] = count
        self._probes[:, questions] = _PROBES.take(count, axis=1) + first
        self._probe_answers[:, questions] = _PROBE_ANSWERS.take(count, axis=1)
        self._cells[:, questions] = _AROUND.take(count, axis=1) + first

    def read(self, laws: Laws) -> tuple[Law, Bool]:
        """Read the laws, laws x 1 x lanes, and compute their edges; also return which are unknown."""
        groups, row = self._groups, self._row
        unit, scale, spread, unknown = read(laws, self._series, row)
        excess = laws.excess.reshape(-1, LAW_BINS + 1).take(self._rows, axis=0).reshape(-1)
        whole = Law(excess, row, unit[..., np.newaxis], scale[:, np.newaxis], spread[..., np.newaxis])
        edged = whole.edges(SPOTS).reshape(-1)
        if not self._one_per_lane:
            unit, spread, unknown = groups.spread(unit), groups.spread(spread), groups.spread(unknown)
            scale = groups.spread(scale)
        return Law(excess, self._base, unit, scale, spread, edged), unknown

    def reached(self, law: Law, share: SmallFloat) -> SmallFloat:
        """Return the demands that are exceeded with these probabilities, for all questions."""
        assert law.edged is not None
        if self._by_bin:
            return self._by_bins(law.edged, law.excess, share.reshape(-1)).reshape(self._shape)
        count, around = self._around(law.edged, law.excess, share.reshape(-1))
        return around.reached(count, share)

    def _around(self, edged: SmallFloat, excess: SmallFloat, share: SmallFloat) -> tuple[Int, _Around]:
        """Return where all questions end, int64, and the bins around these places."""
        fall, width = excess[:-1] - excess[1:], edged[1:] - edged[:-1]
        least = width.take(self._probes)
        least *= share
        # If the bins that bisection looked at last time give the same answers, it ends at the same place.
        changed = (fall.take(self._probes) >= least) != self._probe_answers
        if np.count_nonzero(changed):
            rest = np.flatnonzero(np.logical_or.reduce(changed, axis=0))
            self._ended_at(rest, _count_bins(fall, width, self._first.take(rest), share.take(rest)))
        shape = 3, *self._shape
        found = _Around.of(edged.take(self._cells).reshape(shape), excess.take(self._cells).reshape(shape))
        return self._count, found

    def _by_bins(self, edged: SmallFloat, excess: SmallFloat, share: SmallFloat) -> SmallFloat:
        """Return the demands that are exceeded with these probabilities, (k,), from results tabulated by bin."""
        edges, excess = edged.reshape(-1, LAW_BINS + 1), excess.reshape(-1, LAW_BINS + 1)
        high = _all_above_middle(edges, excess, share)
        if high:
            edges, excess = edges[:, _MIDDLE - 1 :], excess[:, _MIDDLE - 1 :]
        of, at, begins = _Bins.of(edges, excess), self._last_ends[high], self._begins[high]
        certain = of.least.take(at) > share
        certain &= of.most.take(at) < share
        if np.count_nonzero(certain) < certain.size:
            rest = np.flatnonzero(~certain)
            first, wanted = begins.take(rest), share.take(rest)
            at[rest], sure = of.ends(first, wanted, high=high)
            if np.count_nonzero(sure) < len(sure):
                left = np.flatnonzero(~sure)
                first = first.take(left)
                at[rest[left]] = first + _count_bins(*of.bins, first, wanted.take(left), high=high)
        into = of.above.take(at)
        into -= share
        into /= of.between.take(at)
        np.fmax(into, _NONE, out=into)
        np.minimum(into, _ONE, out=into)
        into *= of.half.take(at)
        into += of.middle.take(at)
        return into


class _Bins(NamedTuple):
    """Results for questions that end at each bin of K laws; float32 (K * LAW_BINS,), flat.

    Attributes:
        least: The least odds of the bins before it, minus an allowance for rounding.
        most: The highest odds from it on, plus an allowance; without the last bin, at which bisection never looks.
        above: Odds of the bin before it.
        between: By how much its own odds are less.
        half: Half the width of both bins together.
        middle: Middle of the bin before it.
        bins: The fall in expected excess over each bin, and the width of the bin.
    """

    least: SmallFloat
    most: SmallFloat
    above: SmallFloat
    between: SmallFloat
    half: SmallFloat
    middle: SmallFloat
    bins: tuple[SmallFloat, SmallFloat]

    @classmethod
    def of(cls, edges: SmallFloat, excess: SmallFloat) -> _Bins:
        """Tabulate laws with these edges and expected excesses, (K, LAW_BINS + 1) each."""
        fall, width = excess[:, :-1] - excess[:, 1:], edges[:, 1:] - edges[:, :-1]
        odds = np.maximum(width, _FEWEST)
        with np.errstate(over="ignore"):
            np.divide(fall, odds, out=odds)
        likely = odds.copy()
        # Bins of demand below 0 have no width, and any probability is reached there. For bins that are nearly as
        # narrow, nothing is certain.
        narrow = width < _NARROW
        likely[narrow] = np.where((width[narrow] == 0.0) & (odds[narrow] >= 0.0), np.inf, np.nan)
        least, most = np.empty_like(odds), np.empty_like(odds)
        least[:, 0] = np.inf
        np.minimum.accumulate(likely[:, :-1], axis=1, out=least[:, 1:])
        most[:, -1] = -np.inf
        np.maximum.accumulate(likely[:, -2::-1], axis=1, out=most[:, -2::-1])
        least *= _ROUND_DOWN
        most *= _ROUND_UP
        most += _TINY
        above = np.empty_like(odds)
        above[:, 0] = 1.0
        above[:, 1:] = odds[:, :-1]
        np.copyto(above[:, 1:], _ONE, where=~(width[:, :-1] > _NONE))
        between = above - odds
        np.maximum(between, _FEWEST, out=between)
        half, middle = np.empty_like(odds), np.empty_like(odds)
        half[:, 0], middle[:, 0] = 0.0, edges[:, 0]
        np.subtract(edges[:, 2:], edges[:, :-2], out=half[:, 1:])
        half[:, 1:] *= _HALF
        np.add(edges[:, :-2], edges[:, 1:-1], out=middle[:, 1:])
        middle[:, 1:] *= _HALF
        least, most, above, between, half, middle, fall, width = (
            each.reshape(-1) for each in (least, most, above, between, half, middle, fall, width)
        )
        return cls(least, most, above, between, half, middle, (fall, width))

    def ends(self, first: Int, share: SmallFloat, *, high: bool) -> tuple[Int, Bool]:
        """Return the places of the bins at which bisection ends, and whether this is certain: (k,) each.

        The arguments are those of `_count_bins`.
        """
        at = first + high
        for half in HALVES[high:]:
            at += half * (self.least.take(at + half) > share)
        return at, self.most.take(at) < share


def _all_above_middle(edges: SmallFloat, excess: SmallFloat, share: SmallFloat) -> bool:
    """Return whether the first bin that bisection looks at has odds of at least all shares, so that it goes up from there.

    Args:
        edges: float32 (K, LAW_BINS + 1), the edges of the laws.
        excess: float32 (K, LAW_BINS + 1), expected excess over them.
        share: float32 (k,), the probabilities asked for.
    """
    at = slice(_MIDDLE - 1, _MIDDLE + 1)
    (low, high), (more, less) = edges[:, at].T, excess[:, at].T
    return bool((more - less >= (high - low) * np.maximum.reduce(share, initial=0.0)).all())


def _count_bins(
    fall: SmallFloat, width: SmallFloat, first: Int, share: SmallFloat, *, high: bool = False
) -> Int:
    """Return how many bins have at least these odds, int64 (k,): where bisection would end.

    Args:
        fall: float32, fall in expected excess over each bin.
        width: float32, width of each bin.
        first: int64 (k,), place of the first bin of each question's law.
        share: float32 (k,), the probabilities.
        high: Whether laws begin at the first bin that bisection looks at, and it ends above that bin.
    """
    if len(first) <= _FEW:
        bins = _UPPER_BINS if high else LAW_BINS
        at = BINS[:bins] + first
        enough = fall.take(at) >= width.take(at) * share
        # If the odds pass the share only once, bisection ends there.
        if not np.count_nonzero(enough[1:] > enough[:-1]):
            count: Int = np.add.reduce(enough, axis=0)
            return np.minimum(count, bins - 1)
    cell = first + high
    for half in HALVES[high:]:
        at = cell + (half - 1)
        cell += half * (fall.take(at) >= width.take(at) * share)
    cell -= first
    return cell
