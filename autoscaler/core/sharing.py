"""Allocates shared limits: which fleets get VMs when there are not enough for all.

Each fleet offers one more VM after another, and each offer has a worth: what that VM would earn, which never rises with the number of
VMs. The most valuable offers are taken until the limit is reached. Ties go to the lane that comes first, so that the result depends on
nothing else.

Rules of this file: pure functions, and their cached results. `shared_limits` knows which limits there are and what counts towards them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Remembered
from autoscaler.core.types import MOST_VMS, Float, Int

BLOCK = 32
"""Offers of each lane that are asked for at a time."""
_SLACK = 1e-9
"""Shares of a limit that rounding may take."""


class Limit(IntEnum):
    """What a limit counts."""

    VMS = 0
    """VMs that run or are on their way."""
    MONEY = 1
    """What these cost, in money per hour."""
    STARTS = 2
    """VMs started or made within a time."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A lane that a shared limit keeps below what it wants.

    Attributes:
        lane: Which.
        limit: The limit that leaves it least.
        wanted: VMs it would have.
        worth: What the first of the missing VMs would earn, as a multiple of its cost where the lane has an objective,
            else how busy VMs would be with it; NaN where that is not known.
        rival: Of the group's other lanes, the one whose last VM earns least; -1 where none has any.
        rival_vm: The number of that VM.
        rival_worth: What it earns, likewise.
    """

    lane: int
    limit: Limit
    wanted: int
    worth: float
    rival: int
    rival_vm: int
    rival_worth: float


@dataclass(slots=True)
class SharedState(Remembered):
    """What is remembered of L lanes for limits that they share.

    Attributes:
        demand: float64 (L,), last demand that was known, work per second; NaN before the first.
        tokens: float64 (L,), starts that the group of the lane still may make; `MOST_VMS` where it has no such limit.
        refilled_s: When the tokens were last refilled.
    """

    version: ClassVar[int] = 1
    demand: Float
    tokens: Float
    refilled_s: float

    @classmethod
    def empty(cls, params: LaneParams) -> SharedState:
        """A state without history: all starts are left."""
        return cls(np.full(len(params.series), np.nan), full_tokens(params), -1e18)

    def carried_over(self, after: LaneParams, lanes: Int) -> SharedState:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new.
        """
        new = SharedState.empty(after)
        known = lanes >= 0
        new.demand[known] = self.demand[lanes[known]]
        new.tokens[known] = np.minimum(new.tokens[known], self.tokens[lanes[known]])
        new.refilled_s = self.refilled_s
        return new


def full_tokens(params: LaneParams) -> Float:
    """Starts that each lane's group may make at once: float64 (L,)."""
    limited = (params.group >= 0) & np.isfinite(params.group_starts)
    return np.where(limited, params.group_starts, float(MOST_VMS))


def handed_out(have: Int, wanted: Int, takes: Float, left: float, worth: Callable[[Int], Float]) -> Int:
    """How many VMs each lane gets when there may be too few for all.

    Args:
        have: int64 (G,), VMs that each has in any case, at least 0: nothing is taken away here.
        wanted: int64 (G,), VMs that each wants, at least `have`.
        takes: float64 (G,), what one VM of each takes of the limit, above 0.
        left: What is left of the limit for VMs beyond `have`; nothing where it is below 0.
        worth: Of numbers of VMs, int64 (BLOCK, G), at least 1: what the last of them earns, float64 (BLOCK, G). A
            number that rises within a lane counts as the last one before; NaN comes last of all.

    Returns:
        int64 (G,), between have and wanted. No VM that is wanted and would fit into what is left is left out.
    """
    vms = have.copy()
    slack = _SLACK * max(abs(left), 1.0)
    if _taken(wanted - have, takes) <= left + slack:
        return wanted.copy()
    while True:
        fits = takes <= left + slack
        ahead = np.where(fits, np.minimum(wanted - vms, BLOCK), 0)
        if not ahead.any():
            return vms
        steps = np.arange(BLOCK)[:, np.newaxis]
        earned = worth(vms + 1 + steps)
        earned = np.minimum.accumulate(np.where(np.isnan(earned), -np.inf, earned), axis=0)
        offered = steps < ahead
        # Dearest first, then by lane, then by number: `nonzero` of lanes x steps is in that order, and the sort is stable.
        lane, step = np.nonzero(offered.T)
        order = np.argsort(-earned[step, lane], kind="stable")
        lane, step = lane[order], step[order]
        # What follows the last offer that was asked for is not known, so at that one it is asked again.
        more = (step == BLOCK - 1) & (wanted - vms > BLOCK)[lane]
        ends = np.flatnonzero(more)
        if len(ends):
            lane = lane[: ends[0] + 1]
        cost = np.add.accumulate(takes[lane])
        affordable = int(np.count_nonzero(cost <= left + slack))
        taken = lane[:affordable]
        left -= float(cost[affordable - 1]) if affordable else 0.0
        vms += np.bincount(taken, minlength=len(vms))


def _taken(vms: Int, takes: Float) -> float:
    """What all take together, added in the order of lanes."""
    together = np.add.accumulate(vms * takes)
    return float(together[-1]) if len(together) else 0.0
