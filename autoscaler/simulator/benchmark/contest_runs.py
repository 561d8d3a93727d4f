"""Runs all contestants on one course: the cost and unserved work of each setting of each rule.

Peers run as lanes of one engine and policies as lanes of another, on the same plant and from the same samples. Each fleet
size has lanes of its own.

Rules of this file: it contains no rule of a peer or a policy, and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np

from autoscaler.config.compiling import CompiledPolicies
from autoscaler.config.policy import Policy
from autoscaler.core.params import LaneParams
from autoscaler.core.types import Decision, Float, Int, Outlook, Snapshot
from autoscaler.simulator.benchmark.conditions import WORK_PER_S, BenchmarkCourse, Fleet
from autoscaler.simulator.benchmark.curves import Curve
from autoscaler.simulator.benchmark.peer_entries import Rival, Settings
from autoscaler.simulator.judging.ledger import Amount, Count, Sums
from autoscaler.simulator.lanes.engine import Decider, Lanes
from autoscaler.simulator.lanes.measuring import wanted
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.lanes.run import LaneRun
from autoscaler.simulator.peers.peer import Peer, answered, params_of

_SECONDS_PER_H = 3600.0

Deciding = Callable[[CompiledPolicies], Decider]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """The results of L lanes in the scored time. Ticks T are those of the whole run.

    Attributes:
        unserved: float64 (L,), share of the work that stayed unserved.
        cost: float64 (L,), VM-hours billed.
        starts: int64 (L,), number of starts.
        turns: int64 (L,), how often the desired number of VMs turned from rising to falling or back.
        late_unserved: float64 (L,), `unserved` after the first week only. NaN if there is no such time.
        wanted: int64 (T, W), VMs that the W watched lanes wanted in service.
        warm: int64 (T, W), warm target of the watched lanes.
    """

    unserved: Float
    cost: Float
    starts: Int
    turns: Int
    late_unserved: Float
    wanted: Int
    warm: Int

    def curve(self, lanes: slice, key: str, knob: str, values: Sequence[str]) -> Curve:
        """Return the curve of one rule on one fleet from the slice of its lanes."""
        return Curve(
            key, knob, tuple(values), self.unserved[lanes], self.cost[lanes], self.starts[lanes],
            self.turns[lanes], self.late_unserved[lanes],
        )  # fmt: skip


def raced(
    course: BenchmarkCourse,
    policies: Sequence[Policy],
    plants: Sequence[PlantSettings],
    decider: Deciding | None = None,
    watched: Sequence[int] = (),
) -> Tally:
    """Run lanes over a course and measure them.

    Args:
        course: The course.
        policies: One policy per lane.
        plants: One plant per lane.
        decider: Builds the decider of all lanes. None lets the policies decide.
        watched: Lanes whose decisions are kept for every tick.

    Raises:
        ConfigError: The lane engine cannot express a policy.
    """
    run = LaneRun(tuple(policies), tuple(plants), (course.trace,) * len(policies), course.ticks)
    lanes = Lanes(run, decider)
    watch = _Watch(lanes.decider, watched, course.ticks.count)
    if watched:
        lanes.decider = watch
    lanes.run(course.learn_ticks)
    early, late = lanes.sums(elasticity=False), lanes.sums(elasticity=False)
    lanes.run(course.week_ticks - course.learn_ticks, early)
    lanes.run(course.ticks.count - course.week_ticks, late)
    parts = (early, late)
    asked, left = (_total(parts, which) for which in (Amount.DEMAND, Amount.SHORTAGE))
    return Tally(
        unserved=_share(left, asked),
        cost=_total(parts, Amount.BILLED_VM_S) / _SECONDS_PER_H,
        starts=sum((part.count(Count.STARTS) for part in parts), np.zeros(lanes.lanes, np.int64)),
        turns=sum((part.desired.turns for part in parts), np.zeros(lanes.lanes, np.int64)),
        late_unserved=_share(late.amount(Amount.SHORTAGE), late.amount(Amount.DEMAND)),
        wanted=watch.wanted,
        warm=watch.warm,
    )


class _Watch:
    """A decider that passes decisions on and keeps those of some lanes, tick by tick."""

    def __init__(self, decider: Decider, lanes: Sequence[int], ticks: int) -> None:
        self._decider, self._lanes, self._tick = decider, np.array(lanes, np.int64), 0
        self.wanted: Int = np.zeros((ticks, len(lanes)), np.int64)
        self.warm: Int = np.zeros((ticks, len(lanes)), np.int64)

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """Decide as `Decider` defines it, and keep the wishes of the watched lanes."""
        decision = self._decider.decide(snapshot, outlook)
        self.wanted[self._tick] = decision.desired[self._lanes]
        self.warm[self._tick] = decision.warm_target[self._lanes]
        self._tick += 1
        return decision


def _total(parts: Sequence[Sums], which: Amount) -> Float:
    return sum((part.amount(which) for part in parts if part.ticks), np.zeros(parts[0].lanes))


def _share(part: Float, whole: Float) -> Float:
    found = np.full(len(whole), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def race_peers(
    course: BenchmarkCourse, fleets: Sequence[Fleet], rivals: Sequence[Rival]
) -> dict[int, list[Curve]]:
    """Run all settings of all peers on every fleet. Returns curves by fleet size, in the order of the peers."""
    policies, plants = [fleet.plain_policy() for fleet in fleets], [fleet.plant for fleet in fleets]
    pattern = [at for rival in rivals for at in range(len(fleets)) for _ in rival.values]
    tally = raced(
        course,
        [policies[at] for at in pattern],
        [plants[at] for at in pattern],
        lambda compiled: SideBySide(compiled.lanes, rivals, len(fleets), course),
    )
    found: dict[int, list[Curve]] = {fleet.size: [] for fleet in fleets}
    first = 0
    for rival in rivals:
        labels = [f"{value:g}" for value in rival.values]
        for fleet in fleets:
            lanes = slice(first, first + len(labels))
            found[fleet.size].append(tally.curve(lanes, rival.key, rival.knob, labels))
            first += len(labels)
    return found


class SideBySide:
    """A decider in which each peer decides for its own lanes.

    Args:
        params: All lanes, ordered by peer, then fleet, then setting.
        rivals: The peers.
        fleets: Number of fleets that each peer runs.
        course: The course. Rules with hindsight read its demand.
    """

    def __init__(
        self, params: LaneParams, rivals: Sequence[Rival], fleets: int, course: BenchmarkCourse
    ) -> None:
        self._params = params
        nothing, everything = np.empty(0), wanted(course.trace, course.ticks)
        self._peers: list[tuple[slice, Peer]] = []
        first = 0
        for rival in rivals:
            lanes = slice(first, first + len(rival.values) * fleets)
            demand = everything if rival.hindsight else nothing
            knob = np.tile(np.array(rival.values), fleets)
            settings = Settings(knob, WORK_PER_S, demand, course.ticks.first)
            self._peers.append((lanes, rival.make(params_of(params, lanes), settings)))
            first = lanes.stop

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """Decide as `Decider` defines it. Peers do not use the outlook."""
        del outlook
        arrays = _arrays_of(snapshot)
        sizes = [
            peer.sized(Snapshot(snapshot.now_s, snapshot.tick, *[array[lanes] for array in arrays]))
            for lanes, peer in self._peers
        ]
        return answered(self._params, snapshot, np.concatenate(sizes))


# The first two fields of a snapshot are not arrays.
_arrays_of = attrgetter(*(field.name for field in fields(Snapshot)[2:]))
