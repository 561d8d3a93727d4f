"""The specification of a lane run: policies, plants and traces side by side, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoscaler.config.policy import Policy
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.traces.trace import Trace


class EnoughError(Exception):
    """Raised by a `look` callback to end a run early; the run then returns what is known."""


@dataclass(frozen=True, slots=True)
class LaneRun:
    """The policies, plants, traces and ticks of a run of lanes.

    Attributes:
        policies: One per lane.
        plants: One per lane.
        traces: One per lane.
        ticks: The ticks of the run; with shifts, counted from where each lane begins. Their number is the longest
            stretch that any lane may run.
        seed: Seed of all random draws; equal for all lanes, so that they face the same luck.
        shifts: Ticks that each lane begins after `ticks.first`; empty for none.
        forecasts: Whether forecasts are made even if no lane decides on them (for a timeline).
        blind: Whether the decider uses no forecast, whatever the policies say, so that none is made.
        until: Ticks from `ticks.first` after which results do not matter, so that neither forecasts nor recorded
            demand are needed there; 0 for as far as any lane goes.
    """

    policies: tuple[Policy, ...]
    plants: tuple[PlantSettings, ...]
    traces: tuple[Trace, ...]
    ticks: Ticks
    seed: int = 0
    shifts: tuple[int, ...] = ()
    forecasts: bool = False
    blind: bool = False
    until: int = 0

    @property
    def reach(self) -> int:
        """Number of ticks from `ticks.first` that some lane may see."""
        return self.ticks.count + max(self.shifts, default=0)

    def __post_init__(self) -> None:
        lanes = len(self.policies)
        if not lanes:
            raise ValueError("a run needs at least one lane")
        lengths = {len(self.plants), len(self.traces), len(self.shifts) or lanes}
        if lengths != {lanes}:
            raise ValueError("policies, plants, traces and shifts must have one entry per lane")

    def of_lanes(self, lanes: Sequence[int]) -> LaneRun:
        """Return the same run with only some of its lanes."""
        shifts = tuple(self.shifts[lane] for lane in lanes) if self.shifts else ()
        return replace(
            self,
            policies=tuple(self.policies[lane] for lane in lanes),
            plants=tuple(self.plants[lane] for lane in lanes),
            traces=tuple(self.traces[lane] for lane in lanes),
            shifts=shifts,
        )
