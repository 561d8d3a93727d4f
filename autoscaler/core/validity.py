"""How long a decision stays valid: the moment until which the passing of time alone changes nothing.

Why: a fleet at rest is decided on tick by tick like any other, although most of what a stage reads is unchanged. If a snapshot has
the same array objects as the last two, the decision equals the last one until a moment that the stages name, and need not be
computed again.

Rules of this file: a stage that is not named here never lasts, so forgetting one costs only time. What is stated here must follow
from the stage alone: the stage has run at least twice with these arrays, so it has already noted whatever it remembers of them.
`tests/core/test_validity.py` compares every decision and every state with those computed without this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter, is_
from typing import TypeAlias

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import RuleInputs, Why, is_fixed
from autoscaler.core.state import full_buckets
from autoscaler.core.types import Array, Int, Snapshot, Stage

Lasts: TypeAlias = Callable[[RuleInputs, Int, Int], float]
"""A function of what a stage sees and of the wish before and after it, (L,) each: the time (epoch seconds) until which the
stage gives the same answer and has nothing new to remember if only time passes; -inf if not known."""

AFTER_DATA = int(Stage.DATA) + 1
"""Index of the wish after the data guard, in a list of the wish before the first stage and after each stage."""
_ARRAYS = attrgetter(
    "demand",
    "in_service",
    "starting",
    "stopped",
    "stoppable",
    "freshness",
    "coverage",
    "censored",
    "draining",
    "stopping",
    "provisioned",
    "listed",
    "may_start",
    "may_provision",
    "may_stop",
    "floor",
    "ceiling",
)
"""The arrays of a snapshot that stages read; no stage reads how old a reading is."""


class Inputs:
    """The arrays of the last snapshot.

    Attributes:
        fixed: Whether nothing can change those arrays.
    """

    __slots__ = ("_arrays", "_demand", "fixed")

    def __init__(self) -> None:
        self._demand: Array | None = None
        self._arrays: tuple[Array, ...] = ()
        self.fixed = False

    def are_those_of(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot has the same unchangeable arrays as the last one; remembers them for the next call."""
        demand = snapshot.demand
        if demand is not self._demand:
            self._demand, self._arrays, self.fixed = demand, (), False
            return False
        arrays = _ARRAYS(snapshot)
        if self._arrays and all(map(is_, arrays, self._arrays)):
            return self.fixed
        self._arrays, self.fixed = arrays, all(map(is_fixed, arrays))
        return False


def _timeless(params: LaneParams) -> Lasts:
    """Lasts forever: for stages that do not depend on time and remember nothing."""
    del params
    return lambda _seen, _before, _after: math.inf


def _schedule(params: LaneParams) -> Lasts:
    edges = np.unique(np.concatenate([params.window_start_s.ravel(), params.window_end_s.ravel()])).tolist()

    def lasts(seen: RuleInputs, before: Int, after: Int) -> float:
        del before, after
        return min((edge for edge in edges if edge > seen.snapshot.now_s), default=math.inf)

    return lasts


def _stabilisation(params: LaneParams) -> Lasts:
    """Lasts forever if the window's highest wish raises nothing now: it never will while the same wish repeats."""
    del params

    def lasts(seen: RuleInputs, before: Int, after: Int) -> float:
        return math.inf if seen.fresh is None and not np.count_nonzero(before != after) else -math.inf

    return lasts


def _unheld(params: LaneParams) -> Lasts:
    """Lasts forever if nothing is held: such guards hold ever less as time passes, and return the same wish object if they hold nothing."""
    del params
    return lambda _seen, before, after: math.inf if after is before else -math.inf


def _rate(params: LaneParams) -> Lasts:
    """Lasts forever if all buckets are full, because full buckets stay full."""
    full_out, full_in = full_buckets(params)

    def lasts(seen: RuleInputs, before: Int, after: Int) -> float:
        del before, after
        state = seen.state
        fuller = np.count_nonzero(state.tokens_out < full_out) or np.count_nonzero(state.tokens_in < full_in)
        return -math.inf if fuller else math.inf

    return lasts


LASTS: dict[Stage, Callable[[LaneParams], Lasts]] = {
    Stage.REACTIVE: _timeless,
    Stage.STEPS: _timeless,
    Stage.SCHEDULE: _schedule,
    Stage.STABILISATION: _stabilisation,
    Stage.DATA: _unheld,
    Stage.COOLDOWN: _unheld,
    Stage.BOUNDS: _timeless,
    Stage.RATE: _rate,
    Stage.ON_TIME: _timeless,
    Stage.PAUSE: _timeless,
    Stage.SUPPLY: _timeless,
}
"""For each stage, how long it lasts under given policies. Stages that read forecasts are missing, so they never last."""


def never(params: LaneParams) -> Lasts:
    """Never lasts: for stages about which nothing is known."""
    del params
    return lambda _seen, _before, _after: -math.inf


class Rest:
    """Results of the stages after the data guard in a tick at rest, to be repeated while the lanes stay at rest.

    At rest, every lane has what it wants, no VM is starting, and no cooldown holds a lane. Besides wishes and counts, these
    stages depend only on time, and time only makes them hold less. So they repeat their results while wishes and counts are
    unchanged.

    Attributes:
        settled: int (L,), the wish after bounds.
        values: int (L,) each, the wish after each of these stages; None if it equals the wish after the data guard.
        whys: The reasons of each of these stages.
    """

    __slots__ = ("_now_s", "_ordered", "_starting", "_wish", "settled", "values", "whys")

    def __init__(self, seen: RuleInputs, values: list[Int], whys: list[Why], starting: bytes) -> None:
        settled, wish = values[-1], values[AFTER_DATA]
        settled.flags.writeable = False
        self.settled = settled
        self.values = [None if each is wish else each for each in values[AFTER_DATA + 1 :]]
        self.whys = whys[AFTER_DATA:]
        self._now_s = seen.snapshot.now_s
        self._wish, self._ordered, self._starting = wish.tobytes(), seen.ordered.tobytes(), starting

    @classmethod
    def of(cls, seen: RuleInputs, values: list[Int], whys: list[Why]) -> Rest | None:
        """The rest of a tick, from the wish after each stage and their reasons; None if the lanes are not at rest."""
        held = values[Stage.COOLDOWN + 1] is not values[Stage.COOLDOWN]
        if seen.settled is None or values[-1] is not seen.settled or held:
            return None
        starting = seen.snapshot.starting
        return None if np.count_nonzero(starting) else cls(seen, values, whys, starting.tobytes())

    def goes_on(self, seen: RuleInputs, wish: Int) -> bool:
        """Whether the rest continues in another tick, in which `wish` is the wish after the data guard."""
        if seen.operated or wish.tobytes() != self._wish or seen.ordered.tobytes() != self._ordered:
            return False
        return seen.snapshot.starting.tobytes() == self._starting and seen.snapshot.now_s >= self._now_s
