"""How many VMs earn more than they cost: a predictive law read as a number of VMs.

The k-th VM of capacity c serves `W_k = (E[(D - (k-1)c)+] - E[(D - kc)+]) / c` of a VM's work, so at a price p of
unserved work it is worth p * W_k VM-ticks a tick. W falls in k, so the VMs that earn more than a price are
counted, not searched for: the newsvendor's rule for whole VMs, which loses nothing to rounding in small fleets.

Bins are halved to find the one where a VM stops to earn its price. That bin seldom changes from tick to tick, and two
bins tell whether it has: laws are convex, so where the one before earns enough and it itself does not, by more than
rounding could hide, halving would end there. So the last answer is tried first, and changes nothing but the time taken.
Where laws are few, which is to say where many lanes read the same or where there are few lanes, all edges of each are worked
out, and the answers are looked up, of a whole page of ticks at once where there is one; these are the same to the bit.

Rules of this file: element-wise only, no state. A law is unknown where its level is NaN; nothing is worth a VM there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.alike import Alike
from autoscaler.core.laws import EDGES, MOST_LOG, Page
from autoscaler.core.rules import ROUNDING
from autoscaler.core.types import (
    LAW_BINS,
    LAW_LOW,
    LAW_STEP,
    MOST_VMS,
    Bool,
    Float,
    Horizon,
    Int,
    Laws,
    SmallFloat,
)

_MOST_TABLED = 64
"""So many laws are worked out whole at most: more take longer than looking for what is asked."""
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
# As arrays, since numpy takes a while to make one of a plain number, which is much where lanes are few.
_FEWEST, _NONE, _HALF, _ONE = (np.array(number) for number in (1e-300, 0.0, 0.5, 1.0))
_MOST_LOG, _LOW, _STEP = (np.array(number) for number in (MOST_LOG, LAW_LOW, LAW_STEP))
_LAST_BIN, _LAST_VM, _ROUNDING = (np.array(number) for number in (LAW_BINS - 1.0, MOST_VMS - 1.0, ROUNDING))
_ROUGH = 256.0 * float(np.finfo(np.float32).eps)
"""What rounding may do to a law, in relation to its edges and what is beyond them; far more than it does."""
_NARROWEST = float(EDGES[_MIDDLE] - EDGES[_MIDDLE - 1])
"""From the first bin that halving looks at upwards, none is narrower, in spreads."""


class _Law(NamedTuple):
    """A law read for questions: excess flat, the rest of any shape that fits the questions.

    Attributes:
        excess: float32 (S * H * (LAW_BINS + 1),), all of them; float64 (K * (LAW_BINS + 1),) in a table.
        base: Where the law's own begins.
        unit: What edges are multiples of, less `scale`.
        scale, spread: As in `Laws`.
        edged: float64 (K * (LAW_BINS + 1),), the edges in a table; None where there is none.
    """

    excess: SmallFloat | Float
    base: Int
    unit: Float
    scale: Float
    spread: Float
    edged: Float | None = None

    def edges(self, spots: Float) -> Float:
        """The demands at these places, in spreads of the log ratio."""
        found = spots * self.spread
        np.minimum(found, _MOST_LOG, out=found)
        np.exp(found, out=found)
        found *= self.unit
        found -= self.scale
        np.maximum(found, _NONE, out=found)
        return found

    def of_kinds(self, kinds: Alike) -> _Law:
        """Those of the lanes that stand for their kind."""
        of = kinds.of_first
        return _Law(self.excess, of(self.base), of(self.unit), of(self.scale), of(self.spread), self.edged)

    def beyond(self, demand: Float) -> Float:
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
            low, high = self.edges(EDGES.take(at)), self.edges(_UPPER.take(at))
            at += self.base
        else:
            at += self.base
            low, high = self.edged.take(at), self.edged[1:].take(at)
        first = self.excess.take(at).astype(np.float64, copy=False)
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

    def bins_over(self, share: Float) -> Int:
        """How many bins have outcomes that are exceeded with at least this probability, (k,), where halving would end."""
        if len(share) > _MANY:
            return self._halved(share)
        cell = _BINS + self.base
        fall = self.excess.take(cell).astype(np.float64)
        cell += 1
        fall -= self.excess.take(cell)
        edges = self.edges(EDGES[:, np.newaxis])
        width = edges[1:] - edges[:-1]
        width *= share
        enough = fall >= width
        # Halving ends where the probability comes to be too low, if it does so once.
        if np.count_nonzero(enough[1:] > enough[:-1]):
            return self._halved(share)
        count: Int = np.add.reduce(enough, axis=0)
        return np.minimum(count, LAW_BINS - 1)

    def _halved(self, share: Float) -> Int:
        """The same by halving."""
        count = np.zeros(np.broadcast_shapes(share.shape, self.base.shape), np.int64)
        for half in _HALVES:
            at = count + (half - 1)
            cell = at + self.base
            fall = self.excess.take(cell).astype(np.float64)
            cell += 1
            fall -= self.excess.take(cell)
            width = self.edges(_UPPER.take(at))
            width -= self.edges(EDGES.take(at))
            width *= share
            count += half * (fall >= width)
        return count


_UPPER = EDGES[1:]


class _Around(NamedTuple):
    """The two bins around a place, of any shape; each array has them, or their edges, along its first axis.

    Attributes:
        edges: float64 (3, ...), demands.
        excess: float64 (3, ...), expected beyond them.
        odds: float64 (2, ...), probability that demand is above a bin's middle.
    """

    edges: Float
    excess: Float
    odds: Float

    @classmethod
    def of(cls, edges: Float, excess: Float) -> _Around:
        """Around three edges."""
        odds, width = excess[:2] - excess[1:], edges[1:] - edges[:2]
        # Bins below no demand have no width, and an outcome beyond them is certain.
        certain = ~(width[0] > _NONE)
        np.maximum(width, _FEWEST, out=width)
        odds /= width
        if np.count_nonzero(certain):
            odds[0][certain] = 1.0
        return cls(edges, excess, odds)

    def tells(self, law: _Law, share: Float) -> tuple[Float, Float]:
        """By how much the odds differ from a share, and by how much they must for that to say where halving would end."""
        gap = self.odds - share
        np.negative(gap[1], out=gap[1])
        rough = self.edges[1:] + law.scale
        rough *= self.odds
        rough += self.excess[:2]
        rough *= _ROUGH / _NARROWEST / (law.unit * law.spread)
        return gap, rough


class Worth:
    """What VMs are worth under some laws, for lanes that read them.

    Args:
        series: int64 (L,), the series of each lane.
        capacity: float64 (L,), work per second of one VM.
        horizons: (Q,), the law of each question; several questions may be about one law.
    """

    def __init__(self, series: Int, capacity: Float, horizons: tuple[Horizon, ...]) -> None:
        self._series, self._capacity = series, capacity
        asked = tuple(dict.fromkeys(horizons))
        times = len(horizons) // len(asked)
        if horizons != tuple(horizon for horizon in asked for _ in range(times)):
            asked, times = horizons, 1
        self._questions = len(horizons), len(series)
        # Questions are laws x times x lanes, so that what is about a law is worked out once.
        self._shape = len(asked), times, len(series)
        self._row = (series * len(Horizon) + np.array(asked, np.int64)[:, np.newaxis])[:, np.newaxis]
        self._base = self._row * (LAW_BINS + 1)
        self._kinds, self._each_most = Alike(series, capacity), 0
        self._last: _Last | None = None
        own = Alike(series)
        few = len(asked) * len(own.first) <= _MOST_TABLED
        self._table = _Table(own, series, asked, self._shape) if few else None
        self._horizons = horizons
        self._by_page: tuple[int, Worth] | None = None

    def vms(self, laws: Laws, share: Float) -> Int:
        """Of how many VMs each serves at least this share of its work: int64 (Q, L).

        Args:
            laws: As issued.
            share: float64 (Q, L), 0..1; above 1 for no VM.
        """
        share = share.reshape(self._shape)
        if self._table is not None:
            law, unknown = self._table.read(laws)
            count, around = self._table.around(law, share)
        else:
            law, unknown = self._read(laws)
            if self._last is None:
                self._last = _Last(self._row, self._shape)
            count, around = self._last.around(law, share)
        first, middle, last = around.edges
        above, below = around.odds
        # Within the bins around, the probability falls evenly from middle to middle.
        into = above - share
        between = above - below
        np.maximum(between, _FEWEST, out=between)
        into /= between
        np.maximum(into, _NONE, out=into)
        np.minimum(into, _ONE, out=into)
        into *= _HALF
        into *= last - first
        reached = first + middle
        reached *= _HALF
        reached += into
        if np.count_nonzero(count) < count.size:
            reached = np.where(count > 0, reached, first)
        surely = reached
        surely /= self._capacity
        surely += _ROUNDING
        np.floor(surely, out=surely)
        np.minimum(surely, _LAST_VM, out=surely)
        # One VM more reaches over that point, and is worth it or not by all that it would serve.
        surely += self._work_of_next(law, surely) >= share * self._capacity
        if np.count_nonzero(unknown):
            surely *= ~unknown
        found: Int = surely.astype(np.int64).reshape(self._questions)
        return found

    def vms_of_page(self, page: Page, share: Float) -> Int:
        """The same at each tick of a page: int64 (T, Q, L)."""
        ticks = page.ticks
        if self._by_page is None or self._by_page[0] != ticks:
            series = self._series + np.arange(ticks)[:, np.newaxis] * (len(page.laws.scale) // ticks)
            by_page = Worth(series.reshape(-1), np.tile(self._capacity, ticks), self._horizons)
            self._by_page = ticks, by_page
        found = self._by_page[1].vms(page.laws, np.tile(share, ticks)).reshape(len(share), ticks, -1)
        return found.swapaxes(0, 1).copy()

    def _work_of_next(self, law: _Law, vms: Float) -> Float:
        """Work per second that the VM after so many serves, float64 (laws, times, lanes)."""
        kinds, most = len(self._kinds.first), 0
        if self._kinds.few:
            most = int(vms.max()) + 2
        if not most or most * kinds > self._shape[2]:
            ends = np.empty((2, *vms.shape))
            ends[0] = vms
            np.add(vms, _ONE, out=ends[1])
            ends *= self._capacity
            beyond = law.beyond(ends)
            served: Float = beyond[0] - beyond[1]
            return served
        # Many lanes of few kinds: every number of VMs once.
        if most != self._each_most:
            self._each_most = most
            each = np.arange(float(most))[:, np.newaxis] * self._kinds.of_first(self._capacity)
            self._each = np.broadcast_to(each, (self._shape[0], most, kinds))
            self._offset = np.arange(self._shape[0])[:, np.newaxis, np.newaxis] * (kinds * (most - 1))
            self._offset = self._offset + self._kinds.group
        beyond = law.of_kinds(self._kinds).beyond(self._each)
        by_kind = beyond[:, :-1] - beyond[:, 1:]
        at = vms.astype(np.int64)
        at *= kinds
        at += self._offset
        return by_kind.reshape(-1).take(at)

    def share(self, laws: Laws, vms: Int) -> Float:
        """What the last of so many VMs serves of its work: float64 (Q, L); NaN where the law is unknown.

        Args:
            laws: As issued.
            vms: int (Q, L), at least 1.
        """
        law, unknown = self._read(laws)
        vms = vms.reshape(self._shape)
        served = law.beyond((vms - 1.0) * self._capacity)
        served -= law.beyond(vms * self._capacity)
        served /= self._capacity
        return np.where(unknown, np.nan, served).reshape(self._questions)

    def _read(self, laws: Laws) -> tuple[_Law, Bool]:
        """The laws that are asked, laws x 1 x lanes, and where they are unknown."""
        scale = laws.scale.take(self._series)
        unit = laws.level.reshape(-1).take(self._row)
        unknown = np.isnan(unit)
        if np.count_nonzero(unknown):
            unit[unknown] = 1.0
        unit += scale
        spread = laws.spread.reshape(-1).take(self._row)
        return _Law(laws.excess.reshape(-1), self._base, unit, scale, spread), unknown


class _Last:
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
        self._spots, self._cells = np.zeros((3, *shape)), np.zeros((3, *shape), np.int64)
        self._ended_at(np.arange(len(self._base)), np.full(len(self._base), _MIDDLE))

    def _ended_at(self, questions: Int, count: Int) -> tuple[Float, Int]:
        """Note where some questions ended; the places and the cells of three edges each, (3, k)."""
        at = _AROUND.take(count, axis=1)
        spots, cells = EDGES.take(at), at + self._base.take(questions)
        self._count.reshape(-1)[questions] = count
        self._spots.reshape(3, -1)[:, questions] = spots
        self._cells.reshape(3, -1)[:, questions] = cells
        return spots, cells

    def around(self, law: _Law, share: Float) -> tuple[Int, _Around]:
        """How many bins are exceeded with at least this probability, and the bins around: of all questions."""
        around = _Around.of(law.edges(self._spots), law.excess.take(self._cells).astype(np.float64))
        gap, rough = around.tells(law, share)
        told = gap >= rough
        sure = told[0] & told[1]
        sure &= self._count >= _MIDDLE
        rest = np.flatnonzero(~sure)
        if len(rest):
            mine = self._law.take(rest)
            some = _Law(
                law.excess,
                self._base.take(rest),
                law.unit.take(mine),
                law.scale.take(self._lane.take(rest)),
                law.spread.take(mine),
            )
            spots, cells = self._ended_at(rest, some.bins_over(share.take(rest)))
            found = _Around.of(some.edges(spots), some.excess.take(cells).astype(np.float64))
            around.edges.reshape(3, -1)[:, rest] = found.edges
            around.odds.reshape(2, -1)[:, rest] = found.odds
        return self._count, around


class _Table:
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
        self._base = (np.arange(shape[0])[:, np.newaxis, np.newaxis] * groups + own.group) * edges
        self._first = np.broadcast_to(self._base, shape).reshape(-1)
        self._shape = shape
        questions = len(self._first)
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

    def read(self, laws: Laws) -> tuple[_Law, Bool]:
        """The laws that are asked, laws x 1 x lanes, and where they are unknown."""
        own, row = self._own, self._row
        scale, unit = laws.scale.take(self._mine), laws.level.reshape(-1).take(row)
        unknown = np.isnan(unit)
        if np.count_nonzero(unknown):
            unit[unknown] = 1.0
        unit += scale
        spread = laws.spread.reshape(-1).take(row)
        excess = laws.excess.reshape(-1, LAW_BINS + 1).take(self._rows, axis=0).astype(np.float64).reshape(-1)
        whole = _Law(excess, row, unit[..., np.newaxis], scale[:, np.newaxis], spread[..., np.newaxis])
        edged = whole.edges(EDGES).reshape(-1)
        if not self._each:
            unit, spread, unknown = own.spread(unit), own.spread(spread), own.spread(unknown)
            scale = own.spread(scale)
        return _Law(excess, self._base, unit, scale, spread, edged), unknown

    def around(self, law: _Law, share: Float) -> tuple[Int, _Around]:
        """How many bins are exceeded with at least this probability, and the bins around: of all questions."""
        assert law.edged is not None
        share = share.reshape(-1)
        fall: Float = np.subtract(law.excess[:-1], law.excess[1:], dtype=np.float64)
        width = law.edged[1:] - law.edged[:-1]
        least = width.take(self._looked)
        least *= share
        # Halving would look at the same bins again, and end there, where it finds the same in all of them.
        other = (fall.take(self._looked) >= least) != self._found
        if np.count_nonzero(other):
            rest = np.flatnonzero(np.logical_or.reduce(other, axis=0))
            self._ended_at(rest, _counted(fall, width, self._first.take(rest), share.take(rest)))
        shape = 3, *self._shape
        edges = law.edged.take(self._cells)
        excess = law.excess.take(self._cells).astype(np.float64, copy=False)
        return self._count, _Around.of(edges.reshape(shape), excess.reshape(shape))


def _counted(fall: Float, width: Float, first: Int, share: Float) -> Int:
    """How many bins are exceeded with at least this probability, where halving would end: (k,).

    Args:
        fall: float64, how much less is expected beyond the end of each bin than beyond its beginning.
        width: float64, how wide each is.
        first: int64 (k,), the first bin of each question's law.
        share: float64 (k,), the probability.
    """
    if len(first) <= _FEW:
        at = _BINS + first
        enough = fall.take(at) >= width.take(at) * share
        # Halving ends where the probability comes to be too low, if it does so once.
        if not np.count_nonzero(enough[1:] > enough[:-1]):
            count: Int = np.add.reduce(enough, axis=0)
            return np.minimum(count, LAW_BINS - 1)
    cell = first.copy()
    for half in _HALVES:
        at = cell + (half - 1)
        cell += half * (fall.take(at) >= width.take(at) * share)
    cell -= first
    return cell
