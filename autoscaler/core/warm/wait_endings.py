"""Counts how stopped VMs' waits end: when they end, and hourly for those still waiting.

`returns` defines what is counted, and in which cells; `wait_odds` stores it.

Rules of this file: exact positions and weights; the distribution forms the sums.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.objective.habits import HOUR_S
from autoscaler.core.types import Int, SmallInt
from autoscaler.core.warm.returns import FRESH, GROUP, HITS, RUNGS, WAITS, rungs_between, waits_by_ticks
from autoscaler.core.warm.waits import WarmPool

ROWS: SmallInt = np.array([[rung] for rung in range(RUNGS)], np.int8)
"""int8 (RUNGS, 1), the rungs as a column."""
START: Int = GROUP * (WAITS * HITS)
"""int64 (RUNGS,), flat index at which the group of each rung begins in the counts."""


class Endings:
    """Counts the ends of waits, for a given tick length.

    Args:
        tick_s: Length of a tick.

    Attributes:
        wait_of: int8 (N,), the bin of a wait by its length in ticks; see `waits_by_ticks`.
    """

    def __init__(self, tick_s: float) -> None:
        self.wait_of = waits_by_ticks(tick_s)
        self._hour_ticks = HOUR_S / tick_s
        self._old_ticks = int(self.wait_of.searchsorted(FRESH))

    def note(
        self, warm_pool: WarmPool, tick: int, last: int, lanes: Int, level: Int, *, timely: bool
    ) -> None:
        """Count the waits of rungs that are wanted again, and note when rungs that are no longer wanted were wanted last.

        Args:
            warm_pool: Updated in place.
            tick: Now.
            last: The tick before.
            lanes: int64 (k,), the columns whose highest wanted rung has changed.
            level: int64 (k,), the highest rung wanted now.
            timely: Whether this hour is that of the tick before, or the next one.
        """
        columns, before = len(warm_pool.level), warm_pool.level.take(lanes)
        rose, fell = (level > before).nonzero()[0], (level < before).nonzero()[0]
        if len(fell):
            rung, lane = _left(level.take(fell), before.take(fell), lanes.take(fell))
            warm_pool.since.reshape(-1)[rung * columns + lane] = last
        if not len(rose):
            return
        rung, lane = _left(before.take(rose), level.take(rose), lanes.take(rose))
        place = rung * columns
        place += lane
        since = warm_pool.since.reshape(-1).take(place)
        known = since >= 0
        if np.count_nonzero(known) < len(known):
            rung, lane, place, since = (each[known] for each in (rung, lane, place, since))
        cells, law = warm_pool.cell.reshape(-1), warm_pool.law
        cell = cells.take(place).astype(np.int64)
        wait = self.wait_of.take(tick - since, mode="clip")
        target = wait * np.int64(HITS)
        target -= cell
        target -= 1
        start = START.take(rung)
        old = (wait >= FRESH).nonzero()[0]
        recorded = cell.take(old)
        # Only rungs that had waited for an hour were counted when this hour began.
        counted = old[recorded >= 0]
        if len(counted):
            then = cell[counted]
            cells[place[counted]] = -1 - then % HITS
            target[counted] = then
        target += start
        target *= columns
        target += lane
        if not len(old):
            law.note_ended(target)
            return
        law.note_ended(target if timely else target[wait < FRESH])
        # The others have passed the one-hour mark since then.
        late = old[recorded < 0]
        if timely and len(late):
            part = np.minimum((tick - since[late]) / self._hour_ticks - 1.0, 1.0).astype(np.float32)
            law.note_asked(target[late], part)
            outlasted = start[late] + (FRESH - 1) * HITS - 1 - cell[late]
            law.note_asked(outlasted * columns + lane[late], np.ones(len(late), np.float32))

    def count(self, warm_pool: WarmPool, tick: int, kinds: SmallInt) -> None:
        """Count the current waits at the beginning of an hour, given the kind of time of each rung: int8 (rows, k)."""
        rows, columns = kinds.shape
        since, cells = warm_pool.since.reshape(-1), warm_pool.cell
        np.subtract(-1, kinds, out=cells[:rows])
        cells[rows:] = -1
        # Viewed as unsigned, -1 (never wanted) is later than any tick.
        waits = since.view(np.uint64)[: kinds.size] <= np.uint64(max(tick - self._old_ticks, 0))
        waits &= (ROWS[:rows] > warm_pool.level.astype(np.int8)).reshape(-1)
        place = waits.nonzero()[0]
        since = since.take(place)
        cell = self.wait_of.take(tick - since, mode="clip") * np.int16(HITS)
        cell += kinds.reshape(-1).take(place)
        cells.reshape(-1)[place] = cell
        rung = place // columns
        lane = place - rung * columns
        start = START.take(rung)
        asked = np.ones(len(place), np.float32)
        new = (since > tick - 2.0 * self._hour_ticks - 1.0).nonzero()[0]
        waited_h = (tick - since[new]) / self._hour_ticks
        new, waited_h = new[waited_h < 2.0], waited_h[waited_h < 2.0]
        asked[new] = waited_h
        warm_pool.law.note_asked((start + cell) * columns + lane, asked)
        outlasted = start[new] + ((FRESH - 1) * HITS + cell[new] % HITS)
        warm_pool.law.note_asked(outlasted * columns + lane[new], np.ones(len(new), np.float32))


def _left(low: Int, high: Int, lanes: Int) -> tuple[Int, Int]:
    """Same as `rungs_between`, for lanes with at least one rung each; usually it is exactly one."""
    if np.add.reduce(high - low) == len(low):
        return high, lanes
    return rungs_between(low, high, lanes)
