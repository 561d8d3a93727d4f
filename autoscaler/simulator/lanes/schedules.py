"""Schedules in lanes: windows are recompiled as a run advances, for each lane at its own moment.

The daemon compiles schedules for days ahead, again every few hours. Lanes do so once a day of the run, and keep only the
windows of that day, so that each decision looks at few. Both find the same windows in force at any moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscaler.config.calendar import spans
from autoscaler.config.policy import Policy
from autoscaler.config.section import DAY_S
from autoscaler.config.wishes import ScheduleWindow
from autoscaler.core.params import LaneParams

Windows = list[tuple[float, float, int]]


class Schedules:
    """Compiles the schedule windows of L lanes.

    Args:
        policies: One per lane.
        shifts_s: float64 (L,), seconds that each lane is ahead of the run's time.
    """

    def __init__(self, policies: Sequence[Policy], shifts_s: Sequence[float]) -> None:
        self._lanes = [(policy.schedule, shift) for policy, shift in zip(policies, shifts_s, strict=True)]
        self._any = any(policy.schedule for policy in policies)
        self._until_s = -np.inf

    def due(self, now_s: float) -> bool:
        """Whether the windows must be compiled again before deciding at this time of the run."""
        return self._any and now_s >= self._until_s

    def laid_out(self, params: LaneParams, now_s: float) -> LaneParams:
        """Return the parameters with the windows of one day from now on."""
        self._until_s = now_s + DAY_S
        known: dict[tuple[tuple[ScheduleWindow, ...], float], Windows] = {}
        lanes: list[Windows] = []
        for key in self._lanes:
            if key not in known:
                known[key] = _windows(*key, now_s)
            lanes.append(known[key])
        shape = (max(map(len, lanes), default=0), len(lanes))
        starts, ends, floors = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
        for lane, windows in enumerate(lanes):
            for at, (start_s, end_s, floor) in enumerate(windows):
                starts[at, lane], ends[at, lane], floors[at, lane] = start_s, end_s, floor
        return replace(params, window_start_s=starts, window_end_s=ends, window_floor=floors)


def _windows(schedule: tuple[ScheduleWindow, ...], shift_s: float, now_s: float) -> Windows:
    """Return the windows of a day from now on, in the run's time."""
    return [
        (start - shift_s, end - shift_s, window.at_least)
        for window in schedule
        for start, end in spans(window, now_s + shift_s)
        if end - shift_s > now_s and start - shift_s < now_s + DAY_S
    ]
