"""Copies of the fleets that relive past demand: policies compiled for that time, and their states.

Rules of this file: nothing waits here, and nothing about the live fleets changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.config.section import whole_ticks
from autoscaler.core.forecast import SeriesState, learn
from autoscaler.core.past_replay import PastReplay
from autoscaler.core.state import LaneState
from autoscaler.core.types import Int, Samples
from autoscaler.daemon.fleets import RECOMPILE_S, Fleets


class PastFleets:
    """Copies of some fleets in the past: with an objective they decide there, others only learn.

    Args:
        fleets: The live fleets.
        lanes: int64 (N,), the lanes to copy; either all have an objective, or none.
        start_s: When the past begins, epoch seconds.
    """

    def __init__(self, fleets: Fleets, lanes: Int, start_s: float) -> None:
        self._policies = [fleets.planned[lane] for lane in lanes]
        self._tick_s = fleets.tick_s
        now = fleets.lanes
        self._measured = {
            name: getattr(now, name)[lanes] for name in ("start_success", "sooner_ticks", "unbilled_ticks")
        }
        self._compiled, self._compiled_at_s = self._compile(start_s), start_s
        compiled, on_s = self._compiled, [policy.guards.minimum_on_time_s for policy in self._policies]
        self._forecasts = SeriesState.empty(compiled.series)
        self._living: PastReplay | None = None
        if compiled.lanes.economic.any():
            on_ticks = np.array([whole_ticks(each, self._tick_s) for each in on_s], np.int64)
            self._living = PastReplay(compiled.series, compiled.lanes, on_ticks)

    @property
    def forecasts(self) -> SeriesState:
        """The state of the forecasts."""
        return self._forecasts if self._living is None else self._living.forecasts

    @property
    def decisions(self) -> LaneState | None:
        """The state of the decisions; None if these fleets do not decide."""
        return None if self._living is None else self._living.decisions

    def live(self, samples: Sequence[Samples]) -> None:
        """Live through ticks in order; each has samples of N series, and ticks may be missing."""
        now_s = samples[0].now_s
        if abs(now_s - self._compiled_at_s) > RECOMPILE_S:
            self._compiled, self._compiled_at_s = self._compile(now_s), now_s
        if self._living is None:
            learn(self._compiled.series, self._forecasts, *samples)
        else:
            self._living.live(self._compiled.series, self._compiled.lanes, samples)

    def _compile(self, at_s: float) -> CompiledPolicies:
        """Compile the policies for that time, each fleet without its group, with what is known of starts now."""
        compiled = compile_params(self._policies, self._tick_s, at_s)
        alone = np.full(len(self._policies), -1)
        return replace(compiled, lanes=replace(compiled.lanes, group=alone, **self._measured))
