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
from autoscaler.core.state_base import Remembered
from autoscaler.core.types import MOST_VMS, Float, Int

BLOCK = 32
"""Number of offers of each lane that are evaluated at a time."""
_SLACK = 1e-9
"""Share of a limit that rounding may exceed."""


class Limit(IntEnum):
    """What a limit counts."""

    VMS = 0
    """VMs in service, starting or draining."""
    MONEY = 1
    """Cost of these VMs, in money per hour."""
    STARTS = 2
    """VMs started or provisioned within a period."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A lane that a shared limit keeps below its wish.

    Attributes:
        lane: The lane.
        limit: The limit that leaves it least.
        wanted: VMs it would have.
        worth: What the first of the missing VMs would earn: a multiple of its cost if the lane has an objective, else how
            busy VMs would be with it; NaN if not known.
        rival: Of the group's other lanes, the one whose last VM earns least; -1 if none has any.
        rival_vm: The number of that VM.
        rival_worth: What that VM earns, in the unit of `worth`; NaN if there is no rival.
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
    """What is remembered of L lanes for the limits that they share.

    Attributes:
        demand: float64 (L,), last known demand, work per second; NaN before the first.
        tokens: float64 (L,), starts that the lane's group may still make; `MOST_VMS` if it has no such limit.
        refilled_s: When the tokens were last refilled.
    """

    version: ClassVar[int] = 1
    demand: Float
    tokens: Float
    refilled_s: float

    @classmethod
    def empty(cls, params: LaneParams) -> SharedState:
        """A state without history: the group may make all its starts."""
        return cls(np.full(len(params.series), np.nan), full_tokens(params), -1e18)

    def carried_over(self, after: LaneParams, lanes: Int) -> SharedState:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            after: The parameters of the N other lanes.
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
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
        have: int64 (G,), VMs that each lane keeps in any case, at least 0.
        wanted: int64 (G,), VMs that each lane wants, at least `have`.
        takes: float64 (G,), what one VM of each lane takes of the limit, above 0.
        left: What is left of the limit for VMs beyond `have`; below 0: nothing.
        worth: Function of numbers of VMs, int64 (BLOCK, G), at least 1: what the last of them earns, float64 (BLOCK, G).
            A value that rises within a lane counts as the one before it; NaN ranks last.

    Returns:
        int64 (G,), between `have` and `wanted`. Any wanted VM that fits into what is left is granted.
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
        # Most valuable first, then by lane, then by number: `nonzero` yields lanes x steps in that order; the sort is stable.
        lane, step = np.nonzero(offered.T)
        order = np.argsort(-earned[step, lane], kind="stable")
        lane, step = lane[order], step[order]
        # What follows the last offer of a lane's block is not known yet, so evaluation starts again there.
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
    """The sum over lanes, added in their order."""
    together = np.add.accumulate(vms * takes)
    return float(together[-1]) if len(together) else 0.0
