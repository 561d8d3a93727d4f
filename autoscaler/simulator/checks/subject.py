"""The input of a check: the decisions of every tick and lane, from runs that differ in one respect only.

Rules of this file: nothing is judged here. Guards compare integers and no floats, because actions depend on integers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.compiling import CompiledPolicies
from autoscaler.config.policy import Policy
from autoscaler.simulator.lanes.engine import Decider, LaneRun, Lanes
from autoscaler.simulator.lanes.lane_timeline import Witness
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.traces.trace import Trace, describe_time

Ints: TypeAlias = NDArray[np.int64]
MakesDecider: TypeAlias = Callable[[CompiledPolicies, tuple[Trace, ...]], Decider]
"""Builds a decider from the compiled policies and the lanes' traces; an honest one uses the policies only."""

DECIDED = ("desired", "start", "provision", "stop", "warm_target")
COUNTED = ("in_service", "starting", "draining", "stopping", "stopped", "provisioned", "freshness")


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy to be checked, and what it is run on.

    Attributes:
        policy: The policy, in a form that a simulation can carry out.
        plant: The fleet.
        trace: The demand.
        ticks: The ticks of the run.
        seed: Seed of all random draws.
        decider: Builds the decider to check instead of the policy; None for the policy itself.
    """

    policy: Policy
    plant: PlantSettings
    trace: Trace
    ticks: Ticks
    seed: int = 1
    decider: MakesDecider | None = None

    def run_of(
        self,
        traces: Sequence[Trace],
        *,
        plants: Sequence[PlantSettings] | None = None,
        shifts: Sequence[int] = (),
    ) -> LaneRun:
        """Return lanes of this policy, one per trace, that differ only in the given traces, plants and shifts."""
        lanes = len(traces)
        ticks = replace(self.ticks, count=self.ticks.count - max(shifts, default=0))
        return LaneRun(
            (self.policy,) * lanes,
            tuple(plants or (self.plant,) * lanes),
            tuple(traces),
            ticks,
            self.seed,
            tuple(shifts),
        )

    def time_of(self, tick: int) -> str:
        """Return the time of a tick in words."""
        return describe_time((self.ticks.first + tick) * self.ticks.tick_s)

    def lanes(self, run: LaneRun, witness: Witness | None = None) -> Lanes:
        """Return the run, ready to tick."""
        decider = self.decider
        made = None if decider is None else (lambda compiled: decider(compiled, run.traces))
        return Lanes(run, made, witness=witness)


@dataclass(frozen=True, slots=True)
class Trail:
    """All decisions of a run and the counts that they were based on, by name: int64 (T, L)."""

    columns: dict[str, Ints]

    def __getitem__(self, name: str) -> Ints:
        return self.columns[name]

    @property
    def decided(self) -> Ints:
        """int64 (T, D, L), the decisions."""
        return np.stack([self.columns[name] for name in DECIDED], axis=1)


def trail(subject: Subject, run: LaneRun, cuts: int = 0) -> Trail:
    """Run to the end in calls of `cuts` ticks (0 for one call), and return the trail."""
    witness = Witness(range(len(run.policies)))
    lanes = subject.lanes(run, witness)
    while lanes.tick < run.ticks.count:
        left = run.ticks.count - lanes.tick
        lanes.run(min(cuts, left) if cuts else left)
    return trail_of(witness)


def trail_of(witness: Witness) -> Trail:
    """Return the trail that a witness has recorded."""
    return Trail(
        {
            name: np.concatenate([page.ticks[name] for page in witness.pages]).astype(np.int64)
            for name in (*DECIDED, *COUNTED)
        }
    )


def first_difference(one: Ints, other: Ints) -> int | None:
    """Return the first tick at which two trails of decisions, (T, D) each, differ; None if they do not."""
    apart = np.flatnonzero((one != other).reshape(len(one), -1).any(axis=1))
    return int(apart[0]) if apart.size else None


def spread_over(count: int, points: int) -> list[int]:
    """Return this many ticks, evenly spread over a run of `count`, without its first and last."""
    return sorted({max(1, round(count * (at + 1) / (points + 1))) for at in range(points)} - {count})
