"""A policy's state in a form that can be compared between lanes that began at different times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import SmallInt
from autoscaler.core.windows import RollingMax


def lane_memory(params: LaneParams, state: LaneState, now_s: float) -> list[NDArray[Any]]:
    """Return arrays (n, L) of all that later decisions depend on, with times given as what is left of them.

    Args:
        params: Parameters with which the state came about.
        state: State after the tick before `now_s`.
        now_s: Time of the tick to come.
    """
    last_in_s = np.maximum(state.last_in_s, state.last_starting_s)
    left_s = np.stack([state.last_out_s + params.cooldown_out_s, last_in_s + params.cooldown_in_s]) - now_s
    tokens = np.stack([state.tokens_out, state.tokens_in])
    histories = [_history(state.wishes), _history(state.peaks)]
    return [*histories, np.maximum(left_s, 0.0), tokens, _trust(params, state, now_s)]


def _trust(params: LaneParams, state: LaneState, now_s: float) -> NDArray[np.float64]:
    """Return what is remembered of good data, float64 (5, L).

    The rows are the last good wish, the seconds left to hold after a loss of data, the last demand above zero, the seconds
    left to doubt that demand vanished, and those left to doubt data that has come back.
    """
    trusted = state.trusted

    def left(since_s: NDArray[np.float64], hold_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.isnan(since_s), -1.0, np.maximum(since_s + hold_s - now_s, 0.0))

    doubts = params.zero_hold_s > 0.0
    return np.stack(
        [
            trusted.good.astype(np.float64),
            left(trusted.lost_s, params.loss_hold_s),
            np.where(doubts, trusted.work, 0.0),
            np.where(doubts, left(trusted.gone_s, params.zero_hold_s), -1.0),
            np.maximum(trusted.returned_s - now_s, 0.0),
        ]
    )


def window_buckets(params: LaneParams) -> list[int]:
    """Return the distinct lengths, in ticks, of the buckets on the absolute grid in which windows are remembered."""
    windows = (RollingMax.empty(params.stabilisation_ticks), RollingMax.empty(params.warm_memory_ticks))
    return sorted({int(each) for window in windows for each in window.cut.per_bucket})


def longest_memory(params: LaneParams) -> int:
    """Return the number of ticks after which a window has forgotten everything."""
    windows = (RollingMax.empty(params.stabilisation_ticks), RollingMax.empty(params.warm_memory_ticks))
    return max(int((window.cut.per_bucket * window.cut.buckets).max()) for window in windows)


def _history(window: RollingMax) -> SmallInt:
    """Return int32 (slots, L), row k the highest of the current bucket and the k before it, within a lane's window.

    Nothing else of the buckets affects decisions. Single buckets of a full block are not kept, and where blocks begin
    depends on the tick.
    """
    cut, lanes = window.cut, len(window.window_ticks)
    column = np.arange(lanes) if cut.column is None else cut.column
    slots = np.empty(lanes, np.int64)
    for group in cut.groups:
        slots[group.first : group.end] = group.slots
    slots = slots[column]
    age = np.arange(len(window.ring))[:, np.newaxis]
    row = (window.tick // cut.per_bucket - age) % slots
    found = np.where((age > 0) & (age < cut.buckets), window.ring[row, column], 0)
    if len(found):
        found[0] = window.under_way[column]
    return np.maximum.accumulate(found, axis=0).astype(np.int32)
