"""Inverts predictive distributions: finds the bin, and the demand in it, at which a probability is reached.

Bisection over bins finds the one at which a VM stops earning its price. That bin seldom changes from tick to tick, and two bins show
whether it has: distributions are convex, so if the bin before earns enough and this one does not, by more than rounding could hide,
bisection would end there. So the last answer is tried first, which affects nothing but the time taken. For few distributions, all
edges of each are computed and the answers looked up; if there are more queries than bins, all intermediate results are tabulated,
too. The results are bit-identical.

Rules of this file: element-wise, and accumulation along bins; the only state is where to look first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.alike import Alike
from autoscaler.core.laws import EDGES, MOST_LOG
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Bool, Horizon, Int, Laws, SmallFloat

_HALVES = tuple(LAW_BINS >> shift for shift in range(1, LAW_BINS.bit_length()))
_EACH_HALF: Int = np.array(_HALVES, np.int64)[:, np.newaxis]
_BINS: Int = np.arange(LAW_BINS)[:, np.newaxis]
_ENDS = _BINS.reshape(-1)
_LOOKED: Int = _ENDS - _ENDS % (2 * _EACH_HALF) + (_EACH_HALF - 1)
"""Which bins halving looks at, (halves, bins), where it ends before each bin; and what it finds there."""
_FOUND: Bool = _ENDS & _EACH_HALF > 0
_AROUND: Int = np.stack([np.maximum(_ENDS - 1, 0), _ENDS, _ENDS + 1])
"""The edges around it."""
_FEW, _MANY = 48, 64
"""Of so few questions it takes less to look at all bins than to halve: of those about a table, and of others."""
_MIDDLE = LAW_BINS // 2
_UPPER_BINS = LAW_BINS - _MIDDLE + 1
"""From the first bin that halving looks at upwards."""
# As arrays, since numpy takes a while to make one of a plain number, which is much where lanes are few.
_FEWEST, _NONE, _HALF, _ONE = (np.float32(number) for number in (1e-30, 0.0, 0.5, 1.0))
_MOST_LOG, _LOW, _STEP = (np.float32(number) for number in (MOST_LOG, LAW_LOW, LAW_STEP))
_LAST_BIN = np.float32(LAW_BINS - 1.0)
_EDGES: SmallFloat = EDGES.astype(np.float32)
_ROUGH = 256.0 * float(np.finfo(np.float32).eps)
"""What rounding may do to a law, in relation to its edges and what is beyond them; far more than it does."""
_NARROWEST = float(EDGES[_MIDDLE] - EDGES[_MIDDLE - 1])
"""From the first bin that halving looks at upwards, none is narrower, in spreads."""
_ROUGH_BINS = np.float32(_ROUGH / _NARROWEST)
_NARROW, _TINY = np.float32(1e-20), np.float32(1e-30)
_LESS, _MORE = np.float32(1.0 - 2.0**-19), np.float32(1.0 + 2.0**-19)
"""Far more than rounding does to a probability, or to what it is compared with."""


class Law(NamedTuple):
    """A law read for questions: excess flat, the rest of any shape that fits the questions.

    Attributes:
        excess: float32 (S * H * (LAW_BINS + 1),), all of them; (K * (LAW_BINS + 1),) in a table.
        base: Where the law's own begins.
        unit: What edges are multiples of, less `scale`.
        scale, spread: As in `Laws`.
        edged: float32 (K * (LAW_BINS + 1),), the edges in a table; None where there is none.
    """

    excess: SmallFloat
    base: Int
    unit: SmallFloat
    scale: SmallFloat
    spread: SmallFloat
    edged: SmallFloat | None = None

    def edges(self, spots: SmallFloat) -> SmallFloat:
        """The demands at these places, in spreads of the log ratio."""
        found = spots * self.spread
        np.minimum(found, _MOST_LOG, out=found)
        np.exp(found, out=found)
        found *= self.unit
        found -= self.scale
        np.maximum(found, _NONE, out=found)
        return found

    def of_kinds(self, kinds: Alike) -> Law:
        """Those of the lanes that stand for their kind."""
        of = kinds.of_first
        return Law(self.excess, of(self.base), of(self.unit), of(self.scale), of(self.spread), self.edged)

    def beyond(self, demand: SmallFloat) -> SmallFloat:
        """Expected work per second beyond a demand, straight from edge to edge."""
        place = demand + self.scale
        place /= self.unit
        np.log(place, out=place)
        place /= self.spread
        np.arcsinh(place, out=place)
        place -= _LOW
        place /= _STEP
        np.maximum(place, _NONE, out=place)
        np.minimum(place, _LAST_BIN, out=place)
        at = place.astype(np.int64)
        if self.edged is None:
            low, high = self.edges(_EDGES.take(at)), self.edges(_UPPER.take(at))
            at += self.base
        else:
            at += self.base
            low, high = self.edged.take(at), self.edged[1:].take(at)
        first = self.excess.take(at)
        at += 1
        found = np.subtract(self.excess.take(at), first)
        into = demand - low
        high -= low
        np.maximum(high, _FEWEST, out=high)
        into /= high
        np.minimum(into, _ONE, out=into)
        found *= into
        found += first
        under = demand < low
        if np.count_nonzero(under):
            # Below the first edge an outcome is certain.
            found[under] = first[under] + (low - demand)[under]
        return found

    def bins_over(self, share: SmallFloat) -> Int:
        """How many bins have outcomes that are exceeded with at least this probability, (k,), where halving would end."""
        if len(share) > _MANY:
            return self._halved(share)
        cell = _BINS + self.base
        fall = self.excess.take(cell)
        cell += 1
        fall -= self.excess.take(cell)
        edges = self.edges(_EDGES[:, np.newaxis])
        width = edges[1:] - edges[:-1]
        width *= share
        enough = fall >= width
        # Halving ends where the probability comes to be too low, if it does so once.
        if np.count_nonzero(enough[1:] > enough[:-1]):
            return self._halved(share)
        count: Int = np.add.reduce(enough, axis=0)
        return np.minimum(count, LAW_BINS - 1)

    def _halved(self, share: SmallFloat) -> Int:
        """The same by halving."""
        count = np.zeros(np.broadcast_shapes(share.shape, self.base.shape), np.int64)
        for half in _HALVES:
            at = count + (half - 1)
            cell = at + self.base
            fall = self.excess.take(cell)
            cell += 1
            fall -= self.excess.take(cell)
            width = self.edges(_UPPER.take(at))
            width -= self.edges(_EDGES.take(at))
            width *= share
            count += half * (fall >= width)
        return count


_UPPER = _EDGES[1:]


class _Around(NamedTuple):
    """The two bins around a place, of any shape; each array has them, or their edges, along its first axis.

    Attributes:
        edges: float32 (3, ...), demands.
        excess: float32 (3, ...), expected beyond them.
        odds: float32 (2, ...), probability that demand is above a bin's middle.
    """

    edges: SmallFloat
    excess: SmallFloat
    odds: SmallFloat

    @classmethod
    def of(cls, edges: SmallFloat, excess: SmallFloat) -> _Around:
        """Around three edges."""
        odds, width = excess[:2] - excess[1:], edges[1:] - edges[:2]
        # Bins below no demand have no width, and an outcome beyond them is certain.
        certain = ~(width[0] > _NONE)
        np.maximum(width, _FEWEST, out=width)
        odds /= width
        if np.count_nonzero(certain):
            odds[0][certain] = 1.0
        return cls(edges, excess, odds)

    def reached(self, count: Int, share: SmallFloat) -> SmallFloat:
        """The demand that is exceeded with this probability: within the bins around it falls evenly from middle to middle."""
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

    def tells(self, law: Law, share: SmallFloat) -> tuple[SmallFloat, SmallFloat]:
        """By how much the odds differ from a share, and by how much they must for that to say where halving would end."""
        gap = self.odds - share
        np.negative(gap[1], out=gap[1])
        rough = self.edges[1:] + law.scale
        rough *= self.odds
        rough += self.excess[:2]
        rough *= _ROUGH_BINS / (law.unit * law.spread)
        return gap, rough


def read(laws: Laws, series: Int, row: Int) -> tuple[SmallFloat, SmallFloat, SmallFloat, Bool]:
    """Laws as far as questions about them go.

    Args:
        laws: As issued.
        series: int64 (n,), of the laws that are asked.
        row: int64 (..., n), the laws, flat.

    Returns:
        What edges are multiples of, the scale, (n,), and the spread, float32 (..., n) as in `Law`, and bool (..., n), where the
        law is unknown.
    """
    scale, unit = laws.scale.take(series), laws.level.reshape(-1).take(row)
    unknown = np.isnan(unit)
    if np.count_nonzero(unknown):
        unit[unknown] = 1.0
    unit += scale
    spread = laws.spread.reshape(-1).take(row)
    return unit.astype(np.float32), scale.astype(np.float32), spread.astype(np.float32), unknown


class Last:
    """Where questions ended the last time.

    Args:
        row: int64 (laws, 1, lanes), the law of each question.
        shape: Of questions: laws x times x lanes.
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
        """Note where some questions ended; the places and the cells of three edges each, (3, k)."""
        at = _AROUND.take(count, axis=1)
        spots, cells = _EDGES.take(at), at + self._base.take(questions)
        self._count.reshape(-1)[questions] = count
        self._spots.reshape(3, -1)[:, questions] = spots
        self._cells.reshape(3, -1)[:, questions] = cells
        return spots, cells

    def around(self, law: Law, share: SmallFloat) -> tuple[Int, _Around]:
        """How many bins are exceeded with at least this probability, and the bins around: of all questions."""
        around = _Around.of(law.edges(self._spots), law.excess.take(self._cells))
        gap, rough = around.tells(law, share)
        told = gap >= rough
        sure = told[0] & told[1]
        sure &= self._count >= _MIDDLE
        # Whatever is asked is exceeded in a bin below no demand: halving never ends there.
        sure &= around.edges[2] > around.edges[1]
        rest = np.flatnonzero(~sure)
        if len(rest):
            mine = self._law.take(rest)
            some = Law(
                law.excess,
                self._base.take(rest),
                law.unit.take(mine),
                law.scale.take(self._lane.take(rest)),
                law.spread.take(mine),
            )
            spots, cells = self._ended_at(rest, some.bins_over(share.take(rest)))
            found = _Around.of(some.edges(spots), some.excess.take(cells))
            around.edges.reshape(3, -1)[:, rest] = found.edges
            around.odds.reshape(2, -1)[:, rest] = found.odds
        return self._count, around


class Table:
    """Few laws worked out whole, and where questions about them ended the last time.

    Args:
        own: The lanes in groups that read one series each, G of them.
        series: int64 (L,), the series of each lane.
        horizons: Of the laws.
        shape: Of questions: laws x times x lanes.
    """

    def __init__(
        self, own: Alike, series: Int, horizons: tuple[Horizon, ...], shape: tuple[int, int, int]
    ) -> None:
        self._own, self._mine = own, own.of_first(series)
        self._row = self._mine * len(Horizon) + np.array(horizons, np.int64)[:, np.newaxis, np.newaxis]
        self._rows = self._row.reshape(-1)
        groups, edges = len(own.first), LAW_BINS + 1
        self._each = groups == shape[2]
        law = np.arange(shape[0])[:, np.newaxis, np.newaxis] * groups + own.group
        self._base, self._shape = law * edges, shape
        questions = shape[0] * shape[1] * shape[2]
        # What questions have in common is worked out where that is less than what is asked.
        self._many = 2 * questions > len(self._rows) * LAW_BINS
        if self._many:
            self._of_each = np.broadcast_to(law, shape).reshape(-1)
            # For all bins, and for those from the first that halving looks at upwards.
            self._begins = self._of_each * LAW_BINS, self._of_each * _UPPER_BINS
            self._ended = self._begins[0] + _MIDDLE, self._begins[1] + 1
            return
        self._first = np.broadcast_to(self._base, shape).reshape(-1)
        self._count = np.zeros(shape, np.int64)
        self._looked = np.zeros((len(_HALVES), questions), np.int64)
        self._found = np.zeros(self._looked.shape, np.bool_)
        self._cells = np.zeros((3, questions), np.int64)
        self._ended_at(np.arange(questions), np.full(questions, _MIDDLE))

    def _ended_at(self, questions: Int, count: Int) -> None:
        """Note where some questions ended: which bins halving looked at, what it found there, and three edges."""
        first = self._first.take(questions)
        self._count.reshape(-1)[questions] = count
        self._looked[:, questions] = _LOOKED.take(count, axis=1) + first
        self._found[:, questions] = _FOUND.take(count, axis=1)
        self._cells[:, questions] = _AROUND.take(count, axis=1) + first

    def read(self, laws: Laws) -> tuple[Law, Bool]:
        """The laws that are asked, laws x 1 x lanes, and where they are unknown."""
        own, row = self._own, self._row
        unit, scale, spread, unknown = read(laws, self._mine, row)
        excess = laws.excess.reshape(-1, LAW_BINS + 1).take(self._rows, axis=0).reshape(-1)
        whole = Law(excess, row, unit[..., np.newaxis], scale[:, np.newaxis], spread[..., np.newaxis])
        edged = whole.edges(_EDGES).reshape(-1)
        if not self._each:
            unit, spread, unknown = own.spread(unit), own.spread(spread), own.spread(unknown)
            scale = own.spread(scale)
        return Law(excess, self._base, unit, scale, spread, edged), unknown

    def reached(self, law: Law, share: SmallFloat) -> SmallFloat:
        """The demand that is exceeded with this probability: of all questions."""
        assert law.edged is not None
        if self._many:
            return self._by_bins(law.edged, law.excess, share.reshape(-1)).reshape(self._shape)
        count, around = self._around(law.edged, law.excess, share.reshape(-1))
        return around.reached(count, share)

    def _around(self, edged: SmallFloat, excess: SmallFloat, share: SmallFloat) -> tuple[Int, _Around]:
        """How many bins are exceeded with at least this probability, and the bins around."""
        fall, width = excess[:-1] - excess[1:], edged[1:] - edged[:-1]
        least = width.take(self._looked)
        least *= share
        # Halving would look at the same bins again, and end there, where it finds the same in all of them.
        other = (fall.take(self._looked) >= least) != self._found
        if np.count_nonzero(other):
            rest = np.flatnonzero(np.logical_or.reduce(other, axis=0))
            self._ended_at(rest, _counted(fall, width, self._first.take(rest), share.take(rest)))
        shape = 3, *self._shape
        found = _Around.of(edged.take(self._cells).reshape(shape), excess.take(self._cells).reshape(shape))
        return self._count, found

    def _by_bins(self, edged: SmallFloat, excess: SmallFloat, share: SmallFloat) -> SmallFloat:
        """The same by what questions that end at the same bin have in common: (k,)."""
        edges, excess = edged.reshape(-1, LAW_BINS + 1), excess.reshape(-1, LAW_BINS + 1)
        high = _all_above(edges, excess, share)
        if high:
            edges, excess = edges[:, _MIDDLE - 1 :], excess[:, _MIDDLE - 1 :]
        of, at, begins = _Bins.of(edges, excess), self._ended[high], self._begins[high]
        told = of.least.take(at) > share
        told &= of.most.take(at) < share
        if np.count_nonzero(told) < told.size:
            rest = np.flatnonzero(~told)
            first, wanted = begins.take(rest), share.take(rest)
            at[rest], sure = of.ends(first, wanted, high=high)
            if np.count_nonzero(sure) < len(sure):
                left = np.flatnonzero(~sure)
                first = first.take(left)
                at[rest[left]] = first + _counted(*of.bins, first, wanted.take(left), high=high)
        into = of.above.take(at)
        into -= share
        into /= of.between.take(at)
        np.fmax(into, _NONE, out=into)
        np.minimum(into, _ONE, out=into)
        into *= of.half.take(at)
        into += of.middle.take(at)
        return into


class _Bins(NamedTuple):
    """What questions that end before each bin of some laws, K of them, have in common; flat (K * LAW_BINS,) float32.

    Attributes:
        least: The least probability in the bins before it, a little less than it is.
        most: The highest from it on, a little more than it is; none of the last bin, at which halving never looks.
        above, between: Probability in the bin before it, and how much less it is in it.
        half: Half of how wide both are.
        middle: In the middle of the bin before it.
        bins: How much less is expected beyond the end of a bin than beyond its beginning, and how wide it is.
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
        """Of laws with these edges, and what is expected beyond each: (K, LAW_BINS + 1) both."""
        fall, width = excess[:, :-1] - excess[:, 1:], edges[:, 1:] - edges[:, :-1]
        odds = np.maximum(width, _FEWEST)
        with np.errstate(over="ignore"):
            np.divide(fall, odds, out=odds)
        likely = odds.copy()
        # Below no demand bins have no width, and whatever is asked is exceeded; nothing is said where one is hardly a bin.
        narrow = width < _NARROW
        likely[narrow] = np.where((width[narrow] == 0.0) & (odds[narrow] >= 0.0), np.inf, np.nan)
        least, most = np.empty_like(odds), np.empty_like(odds)
        least[:, 0] = np.inf
        np.minimum.accumulate(likely[:, :-1], axis=1, out=least[:, 1:])
        most[:, -1] = -np.inf
        np.maximum.accumulate(likely[:, -2::-1], axis=1, out=most[:, -2::-1])
        least *= _LESS
        most *= _MORE
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
        """Before which bins halving would end, and where that is sure, (k,): of questions about laws that begin at a bin."""
        at = first + high
        for half in _HALVES[high:]:
            at += half * (self.least.take(at + half) > share)
        return at, self.most.take(at) < share


def _all_above(edges: SmallFloat, excess: SmallFloat, share: SmallFloat) -> bool:
    """Whether the first bin that halving looks at is exceeded with more than all shares, so that it looks at none below it again.

    Args:
        edges: float32 (K, LAW_BINS + 1), demands, of laws.
        excess: float32 (K, LAW_BINS + 1), expected beyond them.
        share: float32 (k,), the questions' probabilities.
    """
    at = slice(_MIDDLE - 1, _MIDDLE + 1)
    (low, high), (more, less) = edges[:, at].T, excess[:, at].T
    return bool((more - less >= (high - low) * np.maximum.reduce(share, initial=0.0)).all())


def _counted(
    fall: SmallFloat, width: SmallFloat, first: Int, share: SmallFloat, *, high: bool = False
) -> Int:
    """How many bins are exceeded with at least this probability, where halving would end: (k,).

    Args:
        fall: float32, how much less is expected beyond the end of each bin than beyond its beginning.
        width: float32, how wide each is.
        first: int64 (k,), the first bin of each question's law.
        share: float32 (k,), the probability.
        high: Laws begin at the first bin that halving looks at, and it ends above that.
    """
    if len(first) <= _FEW:
        bins = _UPPER_BINS if high else LAW_BINS
        at = _BINS[:bins] + first
        enough = fall.take(at) >= width.take(at) * share
        # Halving ends where the probability comes to be too low, if it does so once.
        if not np.count_nonzero(enough[1:] > enough[:-1]):
            count: Int = np.add.reduce(enough, axis=0)
            return np.minimum(count, bins - 1)
    cell = first + high
    for half in _HALVES[high:]:
        at = cell + (half - 1)
        cell += half * (fall.take(at) >= width.take(at) * share)
    cell -= first
    return cell
