"""Bound for warm pools: the cost if the distribution of waits were known, between hindsight and any rule that learns.

At best, a rule that sizes a pool from what it has learned knows the law of waits: how likely a VM that has waited this long
is to be wanted again at this hour of the day. Here the law is not learned. It is fitted, for each level of the fleet, to the
very ticks that are judged, and then used as well as possible: for each cell (length of wait, hour of day), level k is either
held or not, whichever is cheaper in total. The bound therefore errs on the low side, most of all where a level waited only a
few times.

Choosing for all cells of a level at once is a labelling of a graph whose cost splits into terms of single nodes and pairs:
the cost of holding, the cost of missed starts, and the cost of making a VM where a wait passes from a cell that is not held
to one that is. A minimum cut finds the least cost (Picard 1976; Kolmogorov and Zabih 2004). The price of a missed start
beyond making the VM is raised until no more than a given share of all starts is missed (Everett 1963).

Rules of this file: THIS MODULE LOOKS AHEAD. It needs scipy, and gives no result without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Float, Int
from autoscaler.simulator.benchmark.warm_pools import PoolTerms, rises

MOST_MISSED = 0.01
"""Largest share of all starts that may be missed."""
WAITS_S: Float = np.array([900.0 * 2.0**doublings for doublings in range(11)])
"""Upper edges of the bins of waits, in seconds: a quarter of an hour to ten days. The last bin has none."""
_HOUR_S, _HOURS = 3600.0, 24
_CELLS = (len(WAITS_S) + 1) * _HOURS
_SOURCE, _SINK, _FIRST = 0, 1, 2
_LARGEST = 1e9
_HALVINGS = 6
_DEAREST = 2.0**40


@dataclass(frozen=True, slots=True)
class LawBooks:
    """The cost and the missed starts of the pool that follows the best law.

    Attributes:
        cost: VM-hours for stopped VMs and for making VMs.
        missed: Starts of VMs that had been wanted before and were not held.
    """

    cost: float
    missed: int


@dataclass(frozen=True, slots=True)
class _Level:
    """The waits of one level of the fleet, by cell (length of wait, hour of day).

    Attributes:
        held: float64 (N,), cost of holding in each cell, in VM-ticks.
        ended: float64 (N,), number of waits that ended in each cell.
        pairs: int64 (2, P), pairs of cells that followed each other.
        times: float64 (P,), how often each pair occurred.
    """

    held: Float
    ended: Float
    pairs: Int
    times: Float


def law_books(
    wanted: Int, terms: PoolTerms, scored_from: int, most_missed: float = MOST_MISSED
) -> LawBooks | None:
    """Return the least cost of a pool that follows a law of waits and hours and misses no more than a share of all starts.

    Args:
        wanted: int64 (T,), VMs wanted in service.
        terms: Prices and times.
        scored_from: First tick that counts. Waits that began earlier count from this tick on.
        most_missed: Largest share of all starts that may be missed. VMs that were never wanted before do not count as
            missed: they have to be made.

    Returns:
        The books of that pool. None if scipy is not installed.
    """
    try:
        import scipy.sparse.csgraph  # noqa: F401
    except ImportError:
        return None
    levels = [_level(wanted, terms, scored_from, level) for level in range(1, int(wanted.max(initial=0)) + 1)]
    highest = np.maximum.accumulate(wanted)
    anew = float(highest[-1] - highest[max(scored_from - 1, 0)])
    allowed = most_missed * rises(wanted, scored_from)
    low, high = 0.0, 1.0
    found = _summed(levels, terms, low)
    if found[1] > allowed:
        while (found := _summed(levels, terms, high))[1] > allowed and high < _DEAREST:
            low, high = high, 2.0 * high
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            tried = _summed(levels, terms, middle)
            if tried[1] > allowed:
                low = middle
            else:
                high, found = middle, tried
    ticks, missed = found
    return LawBooks((ticks + terms.per_provision * anew) * terms.tick_s / _HOUR_S, missed)


def _level(wanted: Int, terms: PoolTerms, scored_from: int, level: int) -> _Level:
    away = np.concatenate(([False], wanted < level, [False]))
    begins, ends = np.flatnonzero(~away[:-1] & away[1:]), np.flatnonzero(away[:-1] & ~away[1:])
    held, ended = np.zeros(_CELLS), np.zeros(_CELLS)
    followed: list[NDArray[np.int64]] = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        # A level that has never been wanted before is not waiting.
        if end <= scored_from or begin == 0:
            continue
        ticks = np.arange(max(begin, scored_from), end)
        waited = np.searchsorted(WAITS_S, (ticks - begin) * terms.tick_s, side="right")
        hours = (ticks * terms.tick_s // _HOUR_S).astype(np.int64) % _HOURS
        cells = waited * _HOURS + hours
        held += terms.stopped_share * np.bincount(cells, minlength=_CELLS)
        turns = np.flatnonzero(np.diff(cells))
        followed.append(np.stack((cells[turns], cells[turns + 1])))
        ended[cells[-1]] += end < len(wanted)
    if not followed:
        return _Level(held, ended, np.zeros((2, 0), np.int64), np.zeros(0))
    pairs, times = np.unique(np.concatenate(followed, axis=1), axis=1, return_counts=True)
    return _Level(held, ended, pairs, times.astype(np.float64))


def _summed(levels: list[_Level], terms: PoolTerms, missing: float) -> tuple[float, int]:
    """Return the VM-ticks and missed starts of all levels, with `missing` as the extra cost of a missed start, in VM-ticks."""
    each = [_cut(level, terms.per_provision, missing) for level in levels if level.held.any()]
    return sum(cost for cost, _ in each), sum(missed for _, missed in each)


def _cut(level: _Level, made: float, missing: float) -> tuple[float, int]:
    """Find the cheapest choice of cells to hold for one level, and return its VM-ticks and missed starts."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    cells = np.flatnonzero(level.held)
    place = np.zeros(_CELLS, np.int64)
    place[cells] = np.arange(_FIRST, _FIRST + len(cells))
    # A cell on the source's side of the cut is held: its edge to the sink is cut. Otherwise its edge from the source is cut.
    here, size = place[cells], _FIRST + len(cells)
    before, after = place[level.pairs]
    rows = np.concatenate((here, np.full(len(cells), _SOURCE), after))
    columns = np.concatenate((np.full(len(cells), _SINK), here, before))
    costs = np.concatenate(
        (level.held[cells], (made + missing) * level.ended[cells], made * level.times),
    )
    scale = _LARGEST / max(float(costs.max()), 1.0)
    capacities = np.round(costs * min(scale, 1000.0)).astype(np.int32)
    graph = csr_array((capacities, (rows, columns)), shape=(size, size))
    left = graph - maximum_flow(graph, _SOURCE, _SINK).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = np.zeros(size, np.bool_)
    reached[breadth_first_order(left, _SOURCE, return_predecessors=False)] = True
    held = np.zeros(_CELLS, np.bool_)
    held[cells] = reached[here]
    missed = int(level.ended[~held].sum())
    again = float(level.times[~held[level.pairs[0]] & held[level.pairs[1]]].sum())
    return float(level.held[held].sum()) + made * (missed + again), missed
