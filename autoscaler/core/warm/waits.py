"""State of the waiting VMs of lanes with an objective: current waits, how past waits ended, and which VMs are held.

Rules of this file: only what is kept between ticks, and how it passes from one state to another. `odds` and `returns` derive results
from it, and `stopped` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from autoscaler.core.alike import Alike
from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Dumped, Remembered, columns_before, take_columns
from autoscaler.core.types import Float, Int, SmallFloat, SmallInt
from autoscaler.core.warm.odds import Law
from autoscaler.core.warm.returns import GROUPS, HITS, HOURS, RUNGS, UNKNOWN, WAITS

_ARRAYS = (
    "ended",
    "asked",
    "odds",
    "lasts",
    "hours",
    "since",
    "cell",
    "highest",
    "ticks",
    "held",
    "wanted",
    "level",
    "peak",
)


@dataclass(slots=True)
class Together:
    """What columns remember that have had the same past, kept once for each group of them.

    Attributes:
        kept: One column for each group; its `last_tick` is not kept.
        alike: The groups.
    """

    kept: WarmPool
    alike: Alike


@dataclass(slots=True)
class WarmPool(Remembered):
    """What is remembered of n lanes that have an objective.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        ended: float32 (GROUPS, WAITS, HITS, n), waits that ended, as in `odds.Law`, forgotten slowly.
        asked: Likewise, waits that were of a bin at the beginning of an hour, or that outlasted an hour.
        odds, lasts: Likewise, what follows of them, as of the beginning of this hour.
            All four are up to date after `settle`.
        hours: int8 (HOURS, n), the highest rung wanted in each hour, by hour since the epoch modulo HOURS; -1 for none.
        since: int64 (RUNGS, n), tick at which a rung that is not wanted now was last wanted; -1 for never. Rungs that are
            wanted are not kept up to date.
        cell: int16 (RUNGS, n), where a rung that had waited for an hour or more at the beginning of this hour is counted, in
            (WAITS, HITS); where it had not, or was wanted since, -1 less the kind of time that this hour is.
        highest: int64 (n,), most VMs ever wanted.
        ticks: float64 (n,), ticks that were seen, forgotten as waits are.
        held: int64 (n,), the highest rung that is held; -1 for none.
        wanted: int64 (n,), VMs that should exist; -1 before the first hour is over.
        level: int64 (n,), the highest rung wanted at the last tick; -1 for none.
        peak: int64 (n,), the highest rung wanted in this hour.
        last_tick: That tick; -1 before the first.
        together: Where columns are kept once for many: all arrays but `lanes` and `wanted` are as of some tick before, until
            `settle` brings them up to now.
        known_law: What keeps `ended`, `asked`, `odds` and `lasts`, once somebody has asked for it.
    """

    version: ClassVar[int] = 3
    lanes: Int
    ended: SmallFloat
    asked: SmallFloat
    odds: SmallFloat
    lasts: SmallFloat
    hours: SmallInt
    since: Int
    cell: SmallInt
    highest: Int
    ticks: Float
    held: Int
    wanted: Int
    level: Int
    peak: Int
    last_tick: int
    together: Together | None = field(init=False, default=None, compare=False, repr=False)
    known_law: Law | None = field(init=False, default=None, compare=False, repr=False)

    @classmethod
    def empty(cls, params: LaneParams) -> WarmPool:
        """Nothing seen yet."""
        lanes = np.flatnonzero(params.economic)
        count = len(lanes)
        unknown = np.full(count, -1)
        shape = (GROUPS, WAITS, HITS, count)
        return cls(
            lanes=lanes,
            ended=np.zeros(shape, np.float32),
            asked=np.zeros(shape, np.float32),
            odds=np.zeros(shape, np.float32),
            lasts=np.zeros(shape, np.float32),
            hours=np.full((HOURS, count), UNKNOWN, np.int8),
            since=np.full((RUNGS, count), -1),
            cell=np.full((RUNGS, count), -1, np.int16),
            highest=np.zeros(count, np.int64),
            ticks=np.zeros(count),
            held=unknown,
            wanted=unknown.copy(),
            level=unknown.copy(),
            peak=unknown.copy(),
            last_tick=-1,
        )

    @property
    def law(self) -> Law:
        """The law of this hour, by which waits are counted, too."""
        if self.known_law is None:
            self.known_law = Law(self.ended, self.asked, self.odds, self.lasts)
        return self.known_law

    def carried_over(self, after: LaneParams, lanes: Int) -> WarmPool:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new.
        """
        self.settle()
        new = WarmPool.empty(after)
        was = columns_before(self.lanes, new.lanes, lanes)
        known = was >= 0
        for name in _ARRAYS:
            getattr(new, name)[..., known] = getattr(self, name)[..., was[known]]
        new.last_tick = self.last_tick
        return new

    def take_in(self, lanes: Int, other: WarmPool) -> None:
        """Take over some lanes, int64 (N,), from another state with the same parameters and at the same tick."""
        self.settle()
        other.settle()
        self.together = self.known_law = None
        at, theirs = (np.flatnonzero(np.isin(state.lanes, lanes)) for state in (self, other))
        take_columns(self, at, other, theirs, _ARRAYS, when=("last_tick",))

    def pasts(self) -> Int:
        """Equal numbers for columns that remember the same: int64 (n,)."""
        self.settle()
        parts = [getattr(self, name) for name in _ARRAYS]
        columns = [np.ascontiguousarray(part.reshape(-1, len(self.level)).T) for part in parts]
        known: dict[bytes, int] = {}
        pasts = (b"".join(row.tobytes() for row in rows) for rows in zip(*columns, strict=True))
        return np.array([known.setdefault(past, len(known)) for past in pasts], np.int64)

    def gather(self, alike: Alike) -> Together:
        """Keep groups of columns together from here on, all of which must remember the same."""
        self.settle()
        parts = {name: alike.of_first(getattr(self, name)) for name in ("lanes", *_ARRAYS)}
        self.together = Together(WarmPool(**parts, last_tick=self.last_tick), alike)
        return self.together

    def settle(self) -> None:
        """Bring the arrays of all columns up to now."""
        together = self.together
        if together is not None:
            together.kept.settle()
            self.known_law = None
            for name in _ARRAYS:
                setattr(self, name, together.alike.spread(getattr(together.kept, name)))
        elif self.known_law is not None:
            self.known_law.settle()

    def dump(self) -> Dumped:
        """As of every state."""
        self.settle()
        return Remembered.dump(self)
