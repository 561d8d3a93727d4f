"""State of the waiting VMs of lanes with an objective: current waits, how past waits ended, and which VMs are held.

Rules of this file: only what is kept between ticks, and how it passes from one state to another. `wait_odds` and `returns` derive results
from it, and `provisioned_target` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.params import LaneParams
from autoscaler.core.state_base import Dumped, Remembered, columns_before, take_columns
from autoscaler.core.types import Float, Int, SmallFloat, SmallInt
from autoscaler.core.warm.returns import GROUPS, HITS, HOURS, RUNGS, UNKNOWN, WAITS
from autoscaler.core.warm.wait_odds import Law

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
class GroupedPoolState:
    """The state of columns with the same past, kept once for each group of them.

    Attributes:
        state: A state with one column per group; its `last_tick` is not maintained.
        groups: The groups.
    """

    state: WarmPool
    groups: ColumnGroups


@dataclass(slots=True)
class WarmPool(Remembered):
    """What is remembered of the n lanes with an objective.

    Attributes:
        lanes: int64 (n,), the lane of each column.
        ended: float32 (GROUPS, WAITS, HITS, n), fading counts of waits that ended, as in `wait_odds.Law`.
        asked: float32 of the same shape, fading counts of waits that were in a bin at the beginning of an hour, or that
            outlasted an hour.
        odds, lasts: float32 of the same shape, what followed from the counts at the beginning of this hour.
            All four are up to date after `settle`.
        hours: int8 (HOURS, n), the highest rung wanted in each hour, by hour since the epoch modulo HOURS; -1 for none.
        since: int64 (RUNGS, n), tick at which a rung that is not wanted now was last wanted; -1 for never. Not maintained
            while a rung is wanted.
        cell: int16 (RUNGS, n), for a rung that had waited for an hour or more at the beginning of this hour, its cell in
            (WAITS, HITS); otherwise, or if it was wanted since, -1 minus the kind of time of this hour.
        highest: int64 (n,), most VMs ever wanted.
        ticks: float64 (n,), fading count of ticks observed.
        held: int64 (n,), the highest rung that is held; -1 for none.
        wanted: int64 (n,), VMs that should exist; -1 before the first hour is over.
        level: int64 (n,), the highest rung wanted at the last tick; -1 for none.
        peak: int64 (n,), the highest rung wanted in this hour.
        last_tick: The last tick; -1 before the first.
        together: The state by groups of equal columns, if it is kept that way. All arrays but `lanes` and `wanted` are then
            those of an earlier tick, until `settle` brings them up to date.
        known_law: The object that maintains `ended`, `asked`, `odds` and `lasts`, once it has been asked for.
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
    together: GroupedPoolState | None = field(init=False, default=None, compare=False, repr=False)
    known_law: Law | None = field(init=False, default=None, compare=False, repr=False)

    @classmethod
    def empty(cls, params: LaneParams) -> WarmPool:
        """A state that has seen nothing."""
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
        """The law of this hour, which also counts waits."""
        if self.known_law is None:
            self.known_law = Law(self.ended, self.asked, self.odds, self.lasts)
        return self.known_law

    def carried_over(self, after: LaneParams, lanes: Int) -> WarmPool:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            after: The parameters of the N other lanes.
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
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
        """Copy some lanes, int64 (N,), from another state with the same parameters and at the same tick."""
        self.settle()
        other.settle()
        self.together = self.known_law = None
        at, theirs = (np.flatnonzero(np.isin(state.lanes, lanes)) for state in (self, other))
        take_columns(self, at, other, theirs, _ARRAYS, when=("last_tick",))

    def pasts(self) -> Int:
        """A number per column that is equal for columns with equal state: int64 (n,)."""
        self.settle()
        parts = [getattr(self, name) for name in _ARRAYS]
        columns = [np.ascontiguousarray(part.reshape(-1, len(self.level)).T) for part in parts]
        known: dict[bytes, int] = {}
        pasts = (b"".join(row.tobytes() for row in rows) for rows in zip(*columns, strict=True))
        return np.array([known.setdefault(past, len(known)) for past in pasts], np.int64)

    def gather(self, groups: ColumnGroups) -> GroupedPoolState:
        """From now on keep one column per group; all columns of a group must have equal state."""
        self.settle()
        parts = {name: groups.of_first(getattr(self, name)) for name in ("lanes", *_ARRAYS)}
        self.together = GroupedPoolState(WarmPool(**parts, last_tick=self.last_tick), groups)
        return self.together

    def settle(self) -> None:
        """Bring the arrays of all columns up to date."""
        grouped = self.together
        if grouped is not None:
            grouped.state.settle()
            self.known_law = None
            for name in _ARRAYS:
                setattr(self, name, grouped.groups.spread(getattr(grouped.state, name)))
        elif self.known_law is not None:
            self.known_law.settle()

    def dump(self) -> Dumped:
        """Return all fields, as `Remembered.dump` does, after `settle`."""
        self.settle()
        return Remembered.dump(self)
