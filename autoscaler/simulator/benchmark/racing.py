"""Runs all contestants on one course: the cost and unserved work of each setting of each rule.

Peers run as lanes of one engine, policies as lanes of another, on the same plant and from the same samples. Sizes of
fleet are further lanes.

Rules of this file: no rule of a peer or a policy, and no verdict.
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
from autoscaler.simulator.benchmark.course import WORK_PER_S, Course, Fleet
from autoscaler.simulator.benchmark.curves import Curve
from autoscaler.simulator.benchmark.rivals import Rival, Settings
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
    """What lanes came to in the scored time. Arrays over lanes.

    Attributes:
        unserved, cost, starts, turns, late_unserved: As in `Curve`.
        wanted: int64 (T, W), VMs that the watched lanes wanted in service, in every tick of the run.
        warm: int64 (T, W), stopped VMs that they wanted beside them.
    """

    unserved: Float
    cost: Float
    starts: Int
    turns: Int
    late_unserved: Float
    wanted: Int
    warm: Int

    def curve(self, lanes: slice, key: str, knob: str, values: Sequence[str]) -> Curve:
        """The lanes of one rule on one fleet."""
        return Curve(
            key, knob, tuple(values), self.unserved[lanes], self.cost[lanes], self.starts[lanes],
            self.turns[lanes], self.late_unserved[lanes],
        )  # fmt: skip


def raced(
    course: Course,
    policies: Sequence[Policy],
    plants: Sequence[PlantSettings],
    decider: Deciding | None = None,
    watched: Sequence[int] = (),
) -> Tally:
    """Run lanes over a course.

    Args:
        course: The course.
        policies: One per lane.
        plants: One per lane.
        decider: Who decides; None for the policies themselves.
        watched: Lanes of which every tick is kept.

    Raises:
        ConfigError: Lanes cannot express a policy.
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
    """Keeps what some lanes want, tick by tick."""

    def __init__(self, decider: Decider, lanes: Sequence[int], ticks: int) -> None:
        self._decider, self._lanes, self._tick = decider, np.array(lanes, np.int64), 0
        self.wanted: Int = np.zeros((ticks, len(lanes)), np.int64)
        self.warm: Int = np.zeros((ticks, len(lanes)), np.int64)

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """As in `Decider`."""
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


def race_peers(course: Course, fleets: Sequence[Fleet], rivals: Sequence[Rival]) -> dict[int, list[Curve]]:
    """All settings of all peers on fleets of all sizes: curves by size, in the order of the peers."""
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
    """All peers as one decider, each on its own lanes.

    Args:
        params: All lanes: peer by peer, fleet by fleet, setting by setting.
        rivals: The peers.
        fleets: How many fleets each runs.
        course: What is run, for who has hindsight.
    """

    def __init__(self, params: LaneParams, rivals: Sequence[Rival], fleets: int, course: Course) -> None:
        self._params = params
        nothing, everything = np.empty(0), wanted(course.trace, course.ticks)
        self._peers: list[tuple[slice, Peer]] = []
        first = 0
        for rival in rivals:
            lanes = slice(first, first + len(rival.values) * fleets)
            told = everything if rival.hindsight else nothing
            knob = np.tile(np.array(rival.values), fleets)
            settings = Settings(knob, WORK_PER_S, told, course.ticks.first)
            self._peers.append((lanes, rival.make(params_of(params, lanes), settings)))
            first = lanes.stop

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """As in `Decider`."""
        del outlook
        arrays = _arrays_of(snapshot)
        sizes = [
            peer.sized(Snapshot(snapshot.now_s, snapshot.tick, *[array[lanes] for array in arrays]))
            for lanes, peer in self._peers
        ]
        return answered(self._params, snapshot, np.concatenate(sizes))


# A snapshot's fields begin with the two that are no arrays.
_arrays_of = attrgetter(*(field.name for field in fields(Snapshot)[2:]))
