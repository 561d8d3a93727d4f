"""What the stages of the decision chain share: their inputs and their outputs.

A stage is a function of the policies, called once for them: `stage(params, counts)` computes what the stage needs every tick, and
returns its rule, or None if no lane uses it, so that a switched-off stage costs nothing. The rule is `rule(seen, wish) -> (wish, why)`,
called every tick on all lanes; lanes that do not use it are masked. The rule does not compute the reason, since it is seldom read;
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

from autoscaler.core.params import LaneParams
from autoscaler.core.sharing import HeldBack
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
"""Work that exceeds whole VMs by less than this share of a VM needs no other VM."""


@dataclass(slots=True)
class Seen:
    """All that the rules of one tick see.

    Attributes:
        state, snapshot, outlook: As given to `decide`.
        ordered: int (L,), VMs in service or on their way there.
        fresh: bool (L,), where demand is fresh; None where it is everywhere.
        censored: bool (L,), where saturation hides demand; None where it does nowhere.
        operated: Whether an operator has paused or overridden anything in any lane.
        economics: What the economic stage tells of its numbers; None where no lane has an objective.
        held_back: Lanes that shared limits keep below what they want.
        settled: int (L,), the very wish of which it is known that all lanes have what they want by it; None for none.
        moving: int64 (m,), after bounds, the only lanes that may not have what they want; None where nobody has looked.
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
        """Note which lanes do not have what they want after bounds."""
        if self.operated:
            return
        # As bytes, numbers are compared in a quarter of the time.
        if wish.tobytes() == self.ordered.tobytes():
            self.settled = wish
        else:
            self.moving = (wish != self.ordered).nonzero()[0]


Why: TypeAlias = "tuple[int, int] | Callable[[], Int]"
"""The reasons of a stage: where it raised the wish and where it lowered it, as `pair` makes them; or, where that is
not all, a function that gives the reasons, int64 (L,), from arrays that nothing changes before the next tick."""
Rule: TypeAlias = Callable[[Seen, Int], tuple[Int, Why]]
StageFunction: TypeAlias = Callable[[LaneParams, CountType], Rule | None]

FRESH = int(Freshness.FRESH)
_WIDE = 1024
"""Lanes from which on memory is dearer than calls."""
UNCHANGED: tuple[int, int] = (0, 0)


def pair(raised: Reason, lowered: Reason) -> tuple[int, int]:
    """Reasons as plain numbers, since numpy takes a while to see numbers in those of an enum."""
    return int(raised), int(lowered)


def reasons(whys: Sequence[Why], values: Int) -> Int:
    """The reason of each stage in every lane: int64 (K, L).

    Args:
        whys: K of them.
        values: int (K + 1, L), the wish before the first stage and after each.
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
    """A question about some arrays of a snapshot, not asked again while they cannot have changed.

    Live, the arrays are new every tick. Where they are the same read-only arrays as at the last call, as in a
    simulation in which nothing ever fails, the answer is too. Arrays count as read-only where they own their
    memory and `flags.writeable` is off.

    Args:
        arrays: What the question is about.
        question: It.
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
    """Whether nobody can change an array: it owns its memory and is read-only."""
    return array.base is None and not array.flags.writeable


def where_any(mask: Bool) -> Bool | None:
    """The mask, or None where it holds nowhere."""
    return mask if np.count_nonzero(mask) else None


def where_fresh(snapshot: Snapshot) -> Bool | None:
    """Where demand is fresh: bool (L,); None where it is everywhere."""
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


class Look:
    """Makes what the rules of a tick see, asking no more than it must."""

    __slots__ = ("_answers", "_arrays", "_censored", "_fresh", "_operated")

    def __init__(self) -> None:
        self._fresh = WhileSame(lambda view: (view.freshness,), where_fresh)
        self._censored = WhileSame(lambda view: (view.censored,), lambda view: where_any(view.censored))
        self._operated = WhileSame(_by_operators, is_operated)
        self._arrays: tuple[Array, ...] | None = None
        self._answers: tuple[Bool | None, Bool | None, bool] = None, None, False

    def at(self, state: LaneState, snapshot: Snapshot, outlook: Outlook | None) -> Seen:
        """What there is to see of this tick."""
        return Seen(
            state, snapshot, outlook, snapshot.in_service + snapshot.starting, *self._answers_for(snapshot)
        )

    def _answers_for(self, view: Snapshot) -> tuple[Bool | None, Bool | None, bool]:
        """What of the lanes is fresh, what is censored, and whether anything is operated."""
        arrays = (view.freshness, view.censored, *_by_operators(view))
        known = self._arrays
        if known is None or not all(map(is_, arrays, known)):
            self._answers = self._fresh(view), self._censored(view), self._operated(view)
            self._arrays = arrays if all(map(is_fixed, arrays)) else None
        return self._answers


_by_operators = attrgetter("may_start", "may_provision", "may_stop", "floor", "ceiling")
"""All arrays of a snapshot that say what operators have done."""


def most_of(counts: CountType) -> int:
    """The highest number of VMs of a type of counts: sums of two fit into it."""
    return min(MOST_VMS, int(np.iinfo(counts).max) // 2)


def within(vms: Int, counts: CountType) -> Int:
    """Bounds of a policy as the type of counts can hold them: int (L,)."""
    return np.minimum(vms, most_of(counts)).astype(counts)


class VmsFor(Protocol):
    """A function of work per second."""

    def __call__(self, work_per_s: Float, *, spoil: bool = False) -> Int:
        """VMs that can do it: int (L,)."""
        ...


def one_for_all(values: Float) -> Float:
    """The values, or one for all where they are equal: numpy need not read as many then."""
    return values[:1] if len(values) and (values == values[0]).all() else values


def whole_vms(capacity: Float, counts: CountType) -> VmsFor:
    """A function of work per second (L,): the fewest VMs that can do it, 0 where the work is unknown.

    With `spoil` it may overwrite what it is given.
    """
    limit = float(most_of(counts))
    nothing, most = np.zeros_like(capacity), np.full_like(capacity, limit)
    rounding, highest = np.array(ROUNDING), np.array(limit).view(np.uint64)
    wide, each = len(capacity) >= _WIDE, one_for_all(capacity)

    def vms(work_per_s: Float, *, spoil: bool = False) -> Int:
        need = np.divide(work_per_s, each, out=work_per_s if spoil else None)
        need -= rounding
        np.ceil(need, out=need)
        if wide and np.maximum.reduce(need.view(np.uint64)) <= highest:
            # Nothing is unknown, below zero or too much: as bits, all of these are higher than any number within. One
            # look tells so sooner than two arrays to compare with.
            return need.astype(counts)
        # fmax and not maximum: it answers 0 for NaN.
        np.fmax(need, nothing, out=need)
        np.minimum(need, most, out=need)
        return need.astype(counts)

    return vms
