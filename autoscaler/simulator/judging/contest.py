"""Runs policies and peers on one plant, side by side and in segments, and sums what is scored.

A long run is cut as in `segments`: every contestant runs all segments at once. Each segment is begun early enough for the
contestant to have forgotten how it began. At every seam, the state in which a segment begins must be the state in which the
one before it ended: of the plant, the policy and the peer. If a seam does not hold, all contestants go on through the next
segment. Contestants that still have such a seam after some rounds run again uncut. If the policies cannot be cut, they run
uncut, and only the peers, which use no forecast, are cut. So the result has the same bits as the uncut run.

Rules of this file: nothing is judged here, and no rule of a peer is known here. Lanes are ordered contestant by contestant,
with the segments of each in order, and all tick on the clock of the first segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.compiling import CompiledPolicies, compile_params
from autoscaler.config.policy import Policy
from autoscaler.core.params import LaneParams
from autoscaler.core.types import Decision, Int, Outlook, Snapshot
from autoscaler.simulator.judging.ledger import Sums, grid_ticks
from autoscaler.simulator.lanes.comparable_state import lane_memory, longest_memory, window_buckets
from autoscaler.simulator.lanes.engine import Lanes, PolicyDecider
from autoscaler.simulator.lanes.feeds import why_not_cut
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.lanes.run import LaneRun
from autoscaler.simulator.lanes.schedules import Schedules
from autoscaler.simulator.lanes.segments import SETTLING_TICKS
from autoscaler.simulator.peers.peer import CLOCK_S, DAY_S, Peer, answered, params_of
from autoscaler.traces.trace import Trace

_TICK_COST, _LANE_COST = 350.0, 0.3
"""Approximate microseconds that a tick costs, and that each lane adds to it; the number of segments is chosen by these."""

_MOST_SEGMENTS = 64
_ROUNDS = 2
"""Segments that lanes go through before contestants with an open seam run again uncut. A contestant that has not forgotten
its beginning over a day and one more segment, such as a rule with a wide dead zone on a calm trace, will not do so over a
third."""

_PART_TICKS = 256


_Memory: TypeAlias = list[tuple[int, int, NDArray[Any]]]
"""First contestant, number of contestants, and an array (n, their lanes) that is part of what their future depends on."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy or a peer that takes part, with its fleet.

    Attributes:
        policy: Gives bounds and prices, and decides everything unless a peer decides.
        plant: The fleet.
        make: Builds the peer that decides from the parameters of its lanes; None if the policy itself decides.
    """

    policy: Policy
    plant: PlantSettings
    make: Callable[[LaneParams], Peer] | None = None


@dataclass(frozen=True, slots=True)
class ContestCourse:
    """The demand and the ticks that all contestants run.

    Attributes:
        trace: The demand.
        ticks: The ticks of the run.
        warm_up_ticks: Ticks at the beginning that are not scored.
        seed: Seed of all random draws.
        cache: Forecasts of earlier runs of the same trace, which this run reads and extends; None for none.
    """

    trace: Trace
    ticks: Ticks
    warm_up_ticks: int
    seed: int
    cache: OutlookCache | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Results of a contest.

    Attributes:
        sums: Sums over the scored ticks, one lane per contestant; None if the run was stopped before its end.
        begins: VMs in service or starting of the first contestant when scoring began.
        segments: Number of segments (of the peers if only they were cut); 1 if the run was not cut.
        rounds: Segments that every lane went through; 1 if all seams held at once.
        again: Contestants that ran again uncut, because going on did not close their seams.
    """

    sums: Sums | None
    begins: int
    segments: int = 1
    rounds: int = 1
    again: tuple[int, ...] = ()


def contest(
    contestants: Sequence[Contestant],
    course: ContestCourse,
    *,
    progress: Callable[[float], None] | None = None,
    enough: Callable[[], bool] | None = None,
    segments: int | None = None,
) -> Result:
    """Run all contestants.

    Args:
        contestants: Policies first, then peers; at least one.
        course: What they run.
        progress: Called with the share of the run that is done.
        enough: Called now and then; the run stops if it returns True.
        segments: Number of segments; None for the number that makes the run fastest.

    Raises:
        ConfigError: Lanes cannot express the run.
    """
    cut = None if segments == 1 else _cut_for(contestants, course, segments)
    if cut is None and segments != 1:
        ours = sum(one.make is None for one in contestants)
        theirs = _cut_for(contestants[ours:], course, segments) if 0 < ours < len(contestants) else None
        if theirs is not None:
            return _parted(contestants, ours, theirs, course, progress, enough)
    if cut is None:
        return _Run(contestants, course, None).uncut(progress, enough)
    return _cut(contestants, course, cut, progress, enough)


def _parted(
    contestants: Sequence[Contestant],
    ours: int,
    cut: _Cut,
    course: ContestCourse,
    progress: Callable[[float], None] | None,
    enough: Callable[[], bool] | None,
) -> Result:
    """Run the policies, which cannot be cut, uncut, and then the peers in segments."""
    whole = course.ticks.count / (course.ticks.count + cut.warm + cut.stride)

    def first(share: float) -> None:
        if progress:
            progress(whole * share)

    def then(share: float) -> None:
        if progress:
            progress(whole + (1.0 - whole) * share)

    policies = _Run(contestants[:ours], course, None).uncut(first, enough)
    if policies.sums is None:
        return policies
    peers = _cut(contestants[ours:], course, cut, then, enough)
    if peers.sums is None:
        return replace(peers, begins=policies.begins)
    both = Sums.side_by_side([policies.sums, peers.sums])
    again = tuple(ours + at for at in peers.again)
    return replace(peers, sums=both, begins=policies.begins, again=again)


def _cut(
    contestants: Sequence[Contestant],
    course: ContestCourse,
    cut: _Cut,
    progress: Callable[[float], None] | None,
    enough: Callable[[], bool] | None,
) -> Result:
    """Run in segments, then run the contestants with open seams again uncut."""
    found, torn = _Run(contestants, course, cut).cut(progress, enough)
    if found.sums is None or not torn:
        return found
    second = _Run([contestants[at] for at in torn], course, None).uncut(None, enough)
    if second.sums is None:
        return replace(found, sums=None)
    kept = [at for at in range(len(contestants)) if at not in torn]
    places = np.argsort(np.array([*kept, *torn]))
    both = Sums.side_by_side([found.sums.taken(np.array(kept, np.int64)), second.sums])
    return replace(found, sums=both.taken(places), again=torn)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Segments of `stride` ticks, each begun `warm` ticks early. The first is longer by `warm` ticks, the last has `rest`."""

    segments: int
    warm: int
    stride: int
    rest: int


def _cut_for(contestants: Sequence[Contestant], course: ContestCourse, segments: int | None) -> _Cut | None:
    """Return the fastest cut; None if the run cannot be cut, or is faster uncut."""
    ticks, policies = course.ticks, tuple(each.policy for each in contestants)
    plants, traces = tuple(each.plant for each in contestants), (course.trace,) * len(policies)
    run = LaneRun(policies, plants, traces, ticks, blind=_blind(contestants))
    if ticks.tick_s != round(ticks.tick_s) or why_not_cut(run):
        return None
    params = compile_params(policies, ticks.tick_s, ticks.start_s).lanes
    grid = grid_ticks(ticks.tick_s)
    # Shifts must be multiples of the clock's minutes and of the windows' buckets, so that these begin at the same ticks in
    # all lanes.
    clock = math.lcm(round(CLOCK_S), round(ticks.tick_s)) // round(ticks.tick_s)
    unit = math.lcm(grid, clock, *window_buckets(params))
    needed = SETTLING_TICKS + max(longest_memory(params), round(DAY_S / ticks.tick_s)) - course.warm_up_ticks
    warm = course.warm_up_ticks + max(-(-needed // grid), 1) * grid
    left = ticks.count - warm
    cuts = []
    for wanted in [segments] if segments else range(2, _MOST_SEGMENTS + 1):
        stride = -(-left // (unit * wanted)) * unit
        count = -(-left // stride) if stride > 0 else 0
        if count > 1:
            cuts.append(_Cut(count, warm, stride, left - (count - 1) * stride))

    def cost(length: int, count: int) -> float:
        return length * (_TICK_COST + _LANE_COST * len(policies) * count)

    best = min(cuts, key=lambda cut: cost(cut.warm + cut.stride, cut.segments), default=None)
    if best is None or (
        segments is None and cost(best.warm + best.stride, best.segments) > cost(ticks.count, 1)
    ):
        return None
    return best


def _blind(contestants: Sequence[Contestant]) -> bool:
    """Whether all contestants are peers, which use no forecast."""
    return all(each.make is not None for each in contestants)


class _Run:
    """A run of some contestants, on one or several segments each.

    Open seams are closed by going on. If seams do not hold, every lane runs on through the segment after its own, which it
    begins in the state in which it ended its own. In round r, the figures of segment k come from lane k - r + 1, and the
    first r segments are certainly right.
    """

    def __init__(self, contestants: Sequence[Contestant], course: ContestCourse, cut: _Cut | None) -> None:
        self._contestants, self._course, self._cut = tuple(contestants), course, cut
        self._segments = cut.segments if cut else 1
        ticks = course.ticks
        length = cut.warm + _ROUNDS * cut.stride if cut else ticks.count
        shifts = tuple(at * cut.stride for at in range(cut.segments)) if cut else (0,)
        each = [one for one in self._contestants for _ in shifts]
        run = LaneRun(
            tuple(one.policy for one in each),
            tuple(one.plant for one in each),
            (course.trace,) * len(each),
            Ticks(ticks.first, length, ticks.tick_s),
            course.seed,
            shifts * len(self._contestants) if cut else (),
            blind=_blind(contestants),
            until=ticks.count,
        )
        self._lanes = Lanes(run, lambda compiled: self._decider(compiled, run), course.cache)

    def _decider(self, compiled: CompiledPolicies, run: LaneRun) -> _SideBySide:
        shifts = run.shifts or (0,) * len(run.policies)
        self._side_by_side = _SideBySide(
            compiled.lanes,
            self._contestants,
            self._segments,
            run.policies,
            [shift * run.ticks.tick_s for shift in shifts],
        )
        return self._side_by_side

    def uncut(self, progress: Callable[[float], None] | None, enough: Callable[[], bool] | None) -> Result:
        """Run to the end without segments."""
        lanes, total = self._lanes, self._course.ticks.count
        told = _Watch(lanes, total, progress, enough)
        whole = told.go(min(self._course.warm_up_ticks, total), None)
        begins, sums = self._ordered(), lanes.sums()
        whole = whole and told.go(total, sums)
        return Result(sums if whole else None, begins)

    def cut(
        self, progress: Callable[[float], None] | None, enough: Callable[[], bool] | None
    ) -> tuple[Result, tuple[int, ...]]:
        """Run all segments; return the result and the contestants with seams that still do not hold, whose sums mean nothing."""
        lanes, cut = self._lanes, self._cut
        assert cut is not None
        told = _Watch(lanes, cut.warm + cut.stride, progress, enough)
        whole = told.go(self._course.warm_up_ticks, None)
        begins, head = self._ordered(), lanes.sums()
        whole = whole and told.go(cut.warm, head)
        state, rounds = self._memories(), list[tuple[Sums, Sums]]()
        accepted: dict[int, Sums] = {}
        everybody = range(len(self._contestants))
        while whole and len(accepted) < len(everybody) and len(rounds) < _ROUNDS:
            sums, begun = lanes.sums(), lanes.tick
            whole = told.go(begun + cut.rest, sums)
            last = sums.taken(slice(None))
            whole = whole and told.go(begun + cut.stride, sums)
            rounds.append((sums, last))
            before, state = state, self._memories()
            torn = self._torn(before, state, len(rounds))
            for at in everybody:
                if whole and at not in accepted and not torn[at]:
                    accepted[at] = self._joined(at, head, rounds)
            self._side_by_side.leave_out(accepted)
        if not whole:
            return Result(None, begins, cut.segments), ()
        left = tuple(at for at in everybody if at not in accepted)
        filler = {at: self._joined(at, head, rounds) for at in left}
        lined_up = [accepted[at] if at in accepted else filler[at] for at in everybody]
        return Result(Sums.side_by_side(lined_up), begins, cut.segments, len(rounds)), left

    def _joined(self, contestant: int, head: Sums, rounds: Sequence[tuple[Sums, Sums]]) -> Sums:
        """Join the segments of a contestant as far as the rounds so far have run them."""
        first = contestant * self._segments
        joined = head.taken(slice(first, first + 1))
        for segment in range(self._segments):
            number = min(segment, len(rounds) - 1)
            whole, shorter = rounds[number]
            lane = first + segment - number
            part = shorter if segment == self._segments - 1 else whole
            joined = joined.followed_by(part.taken(slice(lane, lane + 1)))
        return joined

    def _torn(self, before: _Memory, after: _Memory, rounds: int) -> NDArray[np.bool_]:
        """Return, per contestant, whether some segment began in another state than the one before it ended in."""
        torn = np.zeros(len(self._contestants), np.bool_)
        for (first, count, begun), (_, _, ended) in zip(before, after, strict=True):
            begins = begun.reshape(len(begun), count, self._segments)[:, :, 1 : self._segments - rounds + 1]
            ends = ended.reshape(len(ended), count, self._segments)[:, :, : self._segments - rounds]
            differs = begins != ends
            if begins.dtype.kind == "f":
                differs &= ~(np.isnan(begins) & np.isnan(ends))
            torn[first : first + count] |= differs.any(axis=(0, 2))
        return torn

    def _ordered(self) -> int:
        return int(self._lanes.plant.in_service[0] + self._lanes.plant.starting[0])

    def _memories(self) -> _Memory:
        """Return all that the future of each contestant depends on."""
        lanes, everybody = self._lanes, len(self._contestants)
        now_s = (lanes.run_of.ticks.first + lanes.tick) * lanes.run_of.ticks.tick_s
        found: _Memory = [(0, everybody, part.copy()) for part in lanes.plant.state(lanes.tick)]
        found.append((0, everybody, lanes.accounts.backlog[np.newaxis].copy()))
        return found + self._side_by_side.memories(now_s)


class _Watch:
    """Runs lanes a part at a time, reports progress and asks whether to stop."""

    def __init__(
        self,
        lanes: Lanes,
        total: int,
        progress: Callable[[float], None] | None,
        enough: Callable[[], bool] | None,
    ) -> None:
        self._lanes, self._total, self._progress, self._enough = lanes, total, progress, enough

    def go(self, until: int, sums: Sums | None) -> bool:
        """Run up to a tick; return False if the run was stopped."""
        while self._lanes.tick < until:
            if self._enough and self._enough():
                return False
            self._lanes.run(min(_PART_TICKS, until - self._lanes.tick), sums)
            if self._progress:
                self._progress(min(self._lanes.tick / self._total, 1.0))
        return True


class _SideBySide:
    """Decides for the policies' lanes by the policies, and for each peer's lanes by that peer.

    Every peer computes sizes for all peers' lanes, and only those of its own lanes are used: for few lanes this costs less
    than splitting the snapshot for each peer.
    """

    def __init__(
        self,
        params: LaneParams,
        contestants: Sequence[Contestant],
        segments: int,
        policies: Sequence[Policy],
        shifts_s: Sequence[float],
    ) -> None:
        ours = sum(one.make is None for one in contestants)
        self._segments, self._ours = segments, slice(0, ours * segments)
        self._theirs = slice(ours * segments, len(params.series))
        self._policies: PolicyDecider | None = None
        if ours:
            schedules = Schedules(policies[self._ours], shifts_s[self._ours])
            self._policies = PolicyDecider(params_of(params, self._ours), schedules)
        self._params = params_of(params, self._theirs)
        self._peers = [one.make(self._params) for one in contestants if one.make is not None]
        self._part_ours, self._part_theirs = _Part(self._ours), _Part(self._theirs)
        self._all = params
        self._left_out: set[int] = set()
        self._resting = False

    def decide(self, snapshot: Snapshot, outlook: Outlook) -> Decision:
        """Decide for all lanes (see `Decider.decide`)."""
        if self._policies is None:
            return self._by_peers(snapshot)
        if self._resting:
            here = self._part_ours.of(snapshot)
            sizes = np.concatenate(
                (here.in_service + here.starting, *self._sizes(self._part_theirs.of(snapshot)))
            )
            return answered(self._all, snapshot, sizes)
        ours = self._policies.decide(self._part_ours.of(snapshot), outlook)
        if not self._peers:
            return ours
        theirs = self._by_peers(self._part_theirs.of(snapshot))
        return Decision(
            wish=np.concatenate((ours.wish, theirs.wish)),
            desired=np.concatenate((ours.desired, theirs.desired)),
            start=np.concatenate((ours.start, theirs.start)),
            provision=np.concatenate((ours.provision, theirs.provision)),
            stop=np.concatenate((ours.stop, theirs.stop)),
            warm_target=np.concatenate((ours.warm_target, theirs.warm_target)),
            # The reasons of these runs are never read.
            forecast=theirs.forecast,
            forecast_hi=theirs.forecast_hi,
            reason=theirs.reason,
            value=theirs.value,
        )

    def leave_out(self, contestants: Collection[int]) -> None:
        """Stop asking these peers, and the policies if all of them are included; their lanes mean nothing from here on."""
        first = self._ours.stop // self._segments
        self._left_out = {at - first for at in contestants if at >= first}
        self._resting = set(range(first)) <= set(contestants)

    def _by_peers(self, view: Snapshot) -> Decision:
        return answered(self._params, view, np.concatenate(self._sizes(view)))

    def _sizes(self, view: Snapshot) -> list[Int]:
        """Return the size that each peer wants for its own lanes."""
        width = self._segments
        there = view.in_service + view.starting
        return [
            (there if at in self._left_out else peer.sized(view))[at * width : (at + 1) * width]
            for at, peer in enumerate(self._peers)
        ]

    def memories(self, now_s: float) -> _Memory:
        """Return what the deciders remember."""
        found: _Memory = []
        ours = self._ours.stop // self._segments
        if self._policies is not None:
            parts = lane_memory(self._policies.params, self._policies.state, now_s)
            found += [(0, ours, part.copy()) for part in parts]
        for at, peer in enumerate(self._peers):
            own = slice(at * self._segments, (at + 1) * self._segments)
            found += [(ours + at, 1, part[:, own].copy()) for part in peer.memory(now_s)]
        return found


_ARRAYS = tuple(field.name for field in fields(Snapshot) if field.name not in ("now_s", "tick"))


class _Part:
    """Takes a range of lanes out of snapshots.

    Args:
        lanes: The lanes.
    """

    def __init__(self, lanes: slice) -> None:
        self._lanes = lanes
        self._known: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}

    def of(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot of these lanes; read-only arrays are copied once, so that core sees that they are the same."""
        parts: dict[str, Any] = {name: self._part(name, getattr(snapshot, name)) for name in _ARRAYS}
        return Snapshot(now_s=snapshot.now_s, tick=snapshot.tick, **parts)

    def _part(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.flags.writeable or array.base is not None:
            return array[self._lanes]
        whole, part = self._known.get(name, (None, array))
        if whole is not array:
            part = array[self._lanes].copy()
            part.flags.writeable = False
            self._known[name] = array, part
        return part
