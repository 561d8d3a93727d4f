"""What the stages of the decision chain share: their inputs and their outputs.

A stage is a function of the policies, called once for them: `stage(params, counts)` computes what the stage needs every tick, and
returns its rule, or None if no lane uses it, so that a switched-off stage costs nothing. The rule is `rule(seen, wish) -> (wish, why)`,
called every tick on all lanes; lanes that do not use it are masked. The rule does not compute the reason, because it is rarely read;
`Why` says how to.

Rules of this file: nothing here decides. Rules never change `wish` or the snapshot in place, and what they return belongs to them. They
note what they must remember in `seen.state`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from autoscaler.core.allocation import HeldBack
from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import (
    MOST_VMS,
    NO_CEILING,
    Array,
    Bool,
    CountType,
    Float,
    Freshness,
    Int,
    Outlook,
    Reason,
    Snapshot,
)

if TYPE_CHECKING:
    from autoscaler.core.objective.economics import Economics

Answer = TypeVar("Answer")

ROUNDING = 1e-9
"""Work that exceeds whole VMs by less than this share of a VM needs no further VM."""


@dataclass(slots=True)
class RuleInputs:
    """All inputs that the rules of one tick see.

    Attributes:
        state, snapshot, outlook: As given to `decide`.
        ordered: int (L,), VMs in service or starting.
        fresh: bool (L,), whether demand is fresh; None if it is in all lanes.
        censored: bool (L,), whether saturation hides demand; None if it does in no lane.
        operated: Whether an operator has paused or overridden anything in any lane.
        economics: The numbers behind the economic stage; None if no lane has an objective.
        held_back: Lanes that shared limits keep below their wish.
        settled: int (L,), the wish array after bounds if in all lanes it equals what is ordered; rules recognise it by
            identity. None if it differs or is not known.
        moving: int64 (m,), the lanes whose wish after bounds differs from what is ordered; None if not known.
    """

    state: LaneState
    snapshot: Snapshot
    outlook: Outlook | None
    ordered: Int
    fresh: Bool | None
    censored: Bool | None
    operated: bool
    economics: Economics | None = None
    held_back: tuple[HeldBack, ...] = ()
    settled: Int | None = None
    moving: Int | None = None

    def settle(self, wish: Int) -> None:
        """Note in which lanes the wish after bounds differs from what is ordered, unless an operator interferes."""
        if self.operated:
            return
        # Comparing bytes takes a quarter of the time of comparing numbers.
        if wish.tobytes() == self.ordered.tobytes():
            self.settled = wish
        else:
            self.moving = (wish != self.ordered).nonzero()[0]


Why: TypeAlias = "tuple[int, int] | Callable[[], Int]"
"""The reasons of a stage: one for lanes whose wish it raised and one for lanes whose wish it lowered, made by `pair`; or a
function that returns the reasons, int64 (L,), computed from arrays that do not change before the next tick."""
Rule: TypeAlias = Callable[[RuleInputs, Int], tuple[Int, Why]]
StageFunction: TypeAlias = Callable[[LaneParams, CountType], Rule | None]

FRESH = int(Freshness.FRESH)
_WIDE = 1024
"""From this many lanes on, memory traffic costs more than numpy calls."""
UNCHANGED: tuple[int, int] = (0, 0)


def pair(raised: Reason, lowered: Reason) -> tuple[int, int]:
    """The two reasons as plain ints, which numpy converts faster than enum members."""
    return int(raised), int(lowered)


def reasons(whys: Sequence[Why], values: Int) -> Int:
    """The reason of each stage in every lane: int64 (K, L).

    Args:
        whys: The reasons of the K stages.
        values: int (K + 1, L), the wish before the first stage and after each stage.
    """
    pairs = [UNCHANGED if callable(why) else why for why in whys]
    raised, lowered = np.array(pairs, np.int64).T[:, :, np.newaxis]
    before, after = values[:-1], values[1:]
    told = np.zeros(before.shape, np.int64)
    np.copyto(told, raised, where=after > before)
    np.copyto(told, lowered, where=after < before)
    for at, why in enumerate(whys):
        if callable(why):
            told[at] = why()
    return told


class WhileSame(Generic[Answer]):
    """A function of some arrays of a snapshot that is evaluated only if they may have changed.

    Live, the arrays are new in every tick. In a simulation in which nothing ever fails, they are the same read-only
    arrays as before, and so the last answer is returned. An array counts as read-only if it owns its memory and
    `flags.writeable` is off.

    Args:
        arrays: Returns the arrays that the answer depends on.
        question: Computes the answer.
    """

    __slots__ = ("_answer", "_arrays", "_known", "_question")

    def __init__(
        self, arrays: Callable[[Snapshot], tuple[Array, ...]], question: Callable[[Snapshot], Answer]
    ) -> None:
        self._arrays = arrays
        self._question = question
        self._known: tuple[Array, ...] = ()
        self._answer: Answer

    def __call__(self, snapshot: Snapshot) -> Answer:
        """The answer for this snapshot."""
        arrays = self._arrays(snapshot)
        if self._known and all(map(is_, arrays, self._known)):
            return self._answer
        self._answer = self._question(snapshot)
        self._known = () if arrays[0].flags.writeable or not all(map(is_fixed, arrays)) else arrays
        return self._answer


def is_fixed(array: Array) -> bool:
    """Whether nothing can change an array: it owns its memory and is read-only."""
    return array.base is None and not array.flags.writeable


def where_any(mask: Bool) -> Bool | None:
    """The mask, or None if it is False everywhere."""
    return mask if np.count_nonzero(mask) else None


def where_fresh(snapshot: Snapshot) -> Bool | None:
    """Whether demand is fresh: bool (L,); None if it is in all lanes."""
    return (snapshot.freshness == FRESH) if np.count_nonzero(snapshot.freshness) else None


def is_operated(snapshot: Snapshot) -> bool:
    """Whether an operator has paused or overridden anything in any lane."""
    lanes, count = len(snapshot.floor), np.count_nonzero
    paused = (
        count(snapshot.may_start) < lanes
        or count(snapshot.may_provision) < lanes
        or count(snapshot.may_stop) < lanes
    )
    return bool(paused or count(snapshot.floor) or count(snapshot.ceiling != NO_CEILING))


class InputCache:
    """Builds the `RuleInputs` of each tick, recomputing only what may have changed."""

    __slots__ = ("_answers", "_arrays", "_censored", "_fresh", "_operated")

    def __init__(self) -> None:
        self._fresh = WhileSame(lambda view: (view.freshness,), where_fresh)
        self._censored = WhileSame(lambda view: (view.censored,), lambda view: where_any(view.censored))
        self._operated = WhileSame(_by_operators, is_operated)
        self._arrays: tuple[Array, ...] | None = None
        self._answers: tuple[Bool | None, Bool | None, bool] = None, None, False

    def at(self, state: LaneState, snapshot: Snapshot, outlook: Outlook | None) -> RuleInputs:
        """What the rules see in this tick."""
        return RuleInputs(
            state, snapshot, outlook, snapshot.in_service + snapshot.starting, *self._answers_for(snapshot)
        )

    def _answers_for(self, view: Snapshot) -> tuple[Bool | None, Bool | None, bool]:
        """Where demand is fresh, where it is censored, and whether an operator interferes."""
        arrays = (view.freshness, view.censored, *_by_operators(view))
        known = self._arrays
        if known is None or not all(map(is_, arrays, known)):
            self._answers = self._fresh(view), self._censored(view), self._operated(view)
            self._arrays = arrays if all(map(is_fixed, arrays)) else None
        return self._answers


_by_operators = attrgetter("may_start", "may_provision", "may_stop", "floor", "ceiling")
"""The arrays of a snapshot that operators set."""


def most_of(counts: CountType) -> int:
    """The highest number of VMs for a type of counts, such that the sum of two fits."""
    return min(MOST_VMS, int(np.iinfo(counts).max) // 2)


def within(vms: Int, counts: CountType) -> Int:
    """A policy's bounds, limited to what the type of counts can hold: int (L,)."""
    return np.minimum(vms, most_of(counts)).astype(counts)


class VmsFor(Protocol):
    """A function that converts work per second to VMs."""

    def __call__(self, work_per_s: Float, *, spoil: bool = False) -> Int:
        """The fewest VMs that can do this work: int (L,); with `spoil`, `work_per_s` may be overwritten."""
        ...


def one_for_all(values: Float) -> Float:
    """A single value of shape (1,) if all are equal, else the values: numpy then has less to read."""
    return values[:1] if len(values) and (values == values[0]).all() else values


def whole_vms(capacity: Float, counts: CountType) -> VmsFor:
    """Return a function of work per second (L,): the fewest VMs that can do it, 0 if the work is NaN."""
    limit = float(most_of(counts))
    nothing, most = np.zeros_like(capacity), np.full_like(capacity, limit)
    rounding, highest = np.array(ROUNDING), np.array(limit).view(np.uint64)
    wide, each = len(capacity) >= _WIDE, one_for_all(capacity)

    def vms(work_per_s: Float, *, spoil: bool = False) -> Int:
        need = np.divide(work_per_s, each, out=work_per_s if spoil else None)
        need -= rounding
        np.ceil(need, out=need)
        if wide and np.maximum.reduce(need.view(np.uint64)) <= highest:
            # All values are between 0 and the limit: as bits, NaN, negative and larger values are all higher.
            # One reduction takes less time than two comparisons with arrays.
            return need.astype(counts)
        # Unlike maximum, fmax returns 0 for NaN.
        np.fmax(need, nothing, out=need)
        np.minimum(need, most, out=need)
        return need.astype(counts)

    return vms
