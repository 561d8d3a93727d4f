"""One decision for all lanes: the fixed chain of stages, then the counts to act on.

This is the function that the daemon and every simulation call. It never asks what time it is, whether it is
live, or how many lanes there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from autoscaler.core import guards, sizing
from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import QUANTILE_LEVELS, Decision, Int, Outlook, Snapshot, Stage
from autoscaler.core.warm_pool import warm_target

StageFunction: TypeAlias = Callable[[LaneParams, LaneState, Snapshot, Outlook, Int], tuple[Int, Int]]

CHAIN: dict[Stage, StageFunction] = {
    Stage.REACTIVE: sizing.reactive,
    Stage.STEPS: sizing.steps,
    Stage.SCHEDULE: sizing.schedule,
    Stage.COVER: sizing.cover,
    Stage.STABILISATION: guards.stabilisation,
    Stage.DATA: guards.data,
    Stage.COOLDOWN: guards.cooldown,
    Stage.BOUNDS: guards.bounds,
    Stage.RATE: guards.rate,
    Stage.ON_TIME: guards.on_time,
    Stage.PAUSE: guards.pause,
    Stage.SUPPLY: guards.supply,
}
"""Every stage in order, the same objects live and simulated."""

_MEDIAN = QUANTILE_LEVELS.index(0.5)
_HIGH = QUANTILE_LEVELS.index(0.95)


def decide(params: LaneParams, state: LaneState, snapshot: Snapshot, outlook: Outlook) -> Decision:
    """Decide for every lane.

    Args:
        params: Compiled policies, L lanes.
        state: Updated in place.
        snapshot: Inputs of this tick, L lanes.
        outlook: Forecasts over series; lanes read theirs through `params.series`.

    Returns:
        The decision with one reason per stage. Starting VMs are never stopped, and `stop` never brings the
        VMs in service below `desired`. What an operator has paused is zero.
    """
    lanes = len(params.series)
    reason = np.empty((len(CHAIN), lanes), np.int64)
    value = np.empty((len(CHAIN), lanes), np.int64)
    wish = np.zeros(lanes, np.int64)
    for stage, function in CHAIN.items():
        wish, reason[stage] = function(params, state, snapshot, outlook, wish)
        value[stage] = wish

    desired = value[Stage.PAUSE]
    start = guards.startable(snapshot, desired)
    provision = np.maximum(value[Stage.SUPPLY] - sizing.ordered(snapshot) - start, 0)
    stop = np.minimum(np.maximum(snapshot.in_service - desired, 0), snapshot.stoppable)
    _remember(state, snapshot, start + provision, stop)
    return Decision(
        wish=value[Stage.COVER],
        desired=desired,
        start=start,
        provision=provision,
        stop=stop,
        warm_target=warm_target(params, state, snapshot, desired),
        forecast=outlook.at_lead[_MEDIAN].take(params.series),
        forecast_hi=outlook.at_lead[_HIGH].take(params.series),
        reason=reason,
        value=value,
    )


def _remember(state: LaneState, snapshot: Snapshot, out: Int, stop: Int) -> None:
    state.tokens_out = state.tokens_out - out
    state.tokens_in = state.tokens_in - stop
    state.last_out_s = np.where(out > 0, snapshot.now_s, state.last_out_s)
    state.last_in_s = np.where(stop > 0, snapshot.now_s, state.last_in_s)
    state.last_starting_s = np.where(snapshot.starting + out > 0, snapshot.now_s, state.last_starting_s)
