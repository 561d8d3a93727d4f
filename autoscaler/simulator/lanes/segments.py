"""Segmented replay: a long trace cut into segments that run side by side as lanes, exact by construction.

A policy's control state forgets: some time after a cold start it equals the state of the uncut run. So every segment begins
early, warms up on the ticks before it, and is then compared: its state at the seam must equal the state in which the segment
before it ended, in everything that later ticks depend on. A segment whose state differs is run again from the true state,
until every seam holds. The first segment begins where the run does, so by induction every segment equals that part of the
uncut run, to the bit.

Rules of this file: all lanes tick on the clock of the first segment, each `shift` ticks ahead of it. Nothing in core can
tell: it remembers relative times, schedules are compiled per lane, and shifts are multiples of every bucket that lies on the
absolute grid. Sums and digests are joined segment by segment, in order. Forecasts come from a table. A run whose forecasts
depend on the plant cannot be cut (`feeds.why_not_cut`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.compiling import compile_params
from autoscaler.config.patience import made_patience_s, start_patience_s
from autoscaler.config.policy import Policy
from autoscaler.config.section import whole_ticks
from autoscaler.core.types import Int
from autoscaler.simulator.judging.ledger import Sums, grid_ticks
from autoscaler.simulator.lanes.comparable_state import longest_memory, window_buckets
from autoscaler.simulator.lanes.engine import LaneRun, Lanes
from autoscaler.simulator.lanes.feeds import why_not_cut
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.lane_timeline import KeptTicks, Witness
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.lanes.run import EnoughError
from autoscaler.simulator.lanes.start_luck import has_luck

SETTLING_TICKS = 720
"""Ticks of warm-up for the number of VMs itself to settle, before windows start to remember it. Measured on random policies:
the median is below 50, the highest 197. With a tolerance, two runs can differ in VMs for half a swing of demand: of months
of three generated kinds of days, each in 14 segments, 256 ticks left a seam open in all three, 512 in one, these in none.
Too few cost a second run, never a wrong number."""
_LEAST_SETTLING_TICKS, _SETTLING_PART = 256, 8
"""In short runs the warm-up is 1 / `_SETTLING_PART` of the run, but no fewer ticks than the first number, so that something
is left to be cut."""

SETTLING_S = 86_400.0
SETTLING_SHARE = 1 / 32
"""With long segments the warm-up is a day, up to this share of a segment. A tolerance can keep two numbers of VMs apart
until demand has been through its daily swing, and running a long segment again is expensive."""

MOST_LANES = 16_384
"""Most lanes that run at once: segments times the lanes of the run. A lane's tick gets cheaper up to about this number (a
year of a thousand variants: 18.5 s at 8,192 lanes, 16.8 at 12,288, 14.2 here, 14.3 at 24,576), and memory grows with it."""

MOST_KINDS = 16
"""A run with lanes of up to this many shapes (`_shape_of`) is cut shape by shape. With more there are too few lanes of each, and
the run is not cut."""

_PART_TICKS = 512
"""Ticks between two calls of `look`."""

Look: TypeAlias = Callable[[float], None]

_TICK_COST = 60.0
_LANE_COST = 0.045
"""Microseconds that a tick costs, and that each lane adds to it; the number of segments is chosen by these."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a run is cut into segments.

    Attributes:
        segments: Number of segments.
        warm: Ticks of warm-up: ticks that are not counted at all, plus a multiple of the ledger's grid. The first segment
            needs no warm-up, so it is longer by this many ticks.
        stride: Ticks from one segment's beginning to the next; a multiple of the ledger's grid and of every bucket.
        rest: Ticks of the last segment, at most `stride`.
    """

    segments: int
    warm: int
    stride: int
    rest: int

    @property
    def shifts(self) -> tuple[int, ...]:
        """Ticks by which the beginning of each segment, warm-up included, lies after that of the run."""
        return tuple(segment * self.stride for segment in range(self.segments))

    @classmethod
    def of(cls, run: LaneRun, segments: int | None = None, skipped: int = 0) -> Cut | None:
        """Return the cut of a run, or None if it is not worth cutting.

        Args:
            run: The uncut run.
            segments: Number of segments; None for the number that makes the run fastest.
            skipped: Ticks at the beginning that are run but not counted.
        """
        params = compile_params(run.policies, run.ticks.tick_s, run.ticks.start_s).lanes
        grid, lanes, total = grid_ticks(run.ticks.tick_s), len(run.policies), run.ticks.count
        unit = math.lcm(grid, *window_buckets(params))
        day = round(SETTLING_S / run.ticks.tick_s)
        least = max(min(SETTLING_TICKS, total // _SETTLING_PART), _LEAST_SETTLING_TICKS)

        def warm(segments: int) -> int:
            settling = max(least, min(day, round(SETTLING_SHARE * total / segments)))
            return -(-(settling + longest_memory(params)) // grid) * grid + skipped

        most = min(-(-total // unit), MOST_LANES // lanes)
        wanted = [segments] if segments else range(2, most + 1)
        cuts = [cls._into(each, unit, warm(each), total) for each in wanted if warm(each) + unit < total]
        best = min(cuts, key=lambda cut: cut.cost(lanes), default=None)
        if best is None or best.segments == 1:
            return None
        worth = segments or best.cost(lanes) < cls(1, 0, total, total).cost(lanes)
        return best if worth else None

    @classmethod
    def _into(cls, segments: int, unit: int, warm: int, total: int) -> Cut:
        """Return a cut into about this many segments, whose stride is a multiple of `unit`."""
        left = total - warm
        units = -(-left // unit)
        stride = -(-units // min(segments, units)) * unit
        count = -(-left // stride)
        return cls(count, warm, stride, left - (count - 1) * stride)

    def cost(self, lanes: int) -> float:
        """Return the estimated microseconds that this cut takes with `lanes` lanes per segment."""
        return (self.warm + self.stride) * (_TICK_COST + _LANE_COST * lanes * self.segments)


@dataclass(slots=True)
class Segmented:
    """Results of a run, cut or not.

    Attributes:
        sums, fingerprints: Of the whole run, one lane per lane of the run.
        pages: Recorded ticks of each witnessed lane, in time order, stamped with the true ticks.
        cut: How the run was cut. If lanes of several shapes were cut separately, the cut of the first; None if not cut.
        reruns: Number of segments that were run again, in all rounds.
        whole: Whether the run came to its end. If not, pages hold its beginning, as far as that is known, and sums and
            fingerprints mean nothing.
        begins: int (V,), VMs in service or starting in each lane when counting began; None if the run was cut.
    """

    sums: Sums
    fingerprints: Fingerprints
    pages: dict[int, list[KeptTicks]]
    cut: Cut | None
    reruns: int
    whole: bool = True
    begins: Int | None = None


def run_segmented(
    run: LaneRun,
    *,
    segments: int | None = None,
    cache: OutlookCache | None = None,
    witnessed: Sequence[int] = (),
    elasticity: bool = True,
    skipped: int = 0,
    look: Look | None = None,
) -> Segmented:
    """Run all lanes from beginning to end, cut into segments if that is faster.

    Args:
        run: A run without shifts, decided by its policies.
        segments: Number of segments; None for the number that makes the run fastest, 1 for an uncut run.
        cache: Outlooks of earlier runs, which this run reads and extends.
        witnessed: Lanes of which every tick is recorded.
        elasticity: Whether the sums compare supply with need tick by tick, which is a tenth of the work.
        skipped: Ticks at the beginning that are included in digests and recorded ticks, but not in the sums.
        look: Called now and then with the share of the run that is done, not counting forecasts. If it raises EnoughError,
            the run ends with what is known.

    Raises:
        ConfigError: Lanes cannot express the run.
        ValueError: `segments` were asked for and the forecasts depend on the plant.
    """
    wanted = segments != 1 and (segments is not None or not why_not_cut(run))
    kinds = alike(run) if wanted else []
    if wanted and 1 < len(kinds) <= MOST_KINDS:
        parts = [
            run_segmented(
                run.of_lanes(lanes),
                segments=segments,
                cache=cache,
                witnessed=[at for at, lane in enumerate(lanes) if lane in witnessed],
                elasticity=elasticity,
                skipped=skipped,
                look=look,
            )
            for lanes in kinds
        ]
        return _side_by_side(parts, kinds)
    cut = Cut.of(run, segments, skipped) if len(kinds) == 1 else None
    if cut is None:
        return _uncut(run, cache, witnessed, elasticity=elasticity, skipped=skipped, look=look)
    return _Segments(run, cut, cache, witnessed, elasticity=elasticity, look=look).result(skipped)


def _go(lanes: Lanes, ticks: int, sums: Sums | None, prints: Fingerprints, look: Look | None) -> None:
    """Advance by `ticks` ticks, calling `look` now and then."""
    end = lanes.tick + ticks
    while lanes.tick < end:
        lanes.run(min(_PART_TICKS if look else ticks, end - lanes.tick), sums, prints)
        if look:
            look(lanes.tick / lanes.run_of.ticks.count)


def alike(run: LaneRun) -> list[list[int]]:
    """Group lanes whose plants keep the same arrays of the same lengths, so that some of them can be continued alone."""
    found: dict[tuple[object, ...], list[int]] = {}
    for lane, (plant, policy) in enumerate(zip(run.plants, run.policies, strict=True)):
        found.setdefault(_shape_of(plant, policy, run.ticks.tick_s), []).append(lane)
    return list(found.values())


def _side_by_side(parts: Sequence[Segmented], kinds: Sequence[Sequence[int]]) -> Segmented:
    """Join results of separate groups of lanes in the order of the run."""
    order = np.argsort([lane for lanes in kinds for lane in lanes])
    prints = Fingerprints(len(order))
    prints.words = np.concatenate([part.fingerprints.words for part in parts])[order]
    prints.ticks = parts[0].fingerprints.ticks
    return Segmented(
        Sums.side_by_side([part.sums for part in parts]).taken(order),
        prints,
        {
            lanes[at]: kept
            for part, lanes in zip(parts, kinds, strict=True)
            for at, kept in part.pages.items()
        },
        parts[0].cut,
        sum(part.reruns for part in parts),
        all(part.whole for part in parts),
    )


def _uncut(
    run: LaneRun,
    cache: OutlookCache | None,
    witnessed: Sequence[int],
    *,
    elasticity: bool,
    skipped: int,
    look: Look | None,
) -> Segmented:
    """Run all lanes from beginning to end without cutting."""
    witness = Witness(witnessed) if witnessed else None
    lanes = Lanes(run, cache=cache, witness=witness)
    sums, fingerprints = lanes.sums(elasticity=elasticity), Fingerprints(lanes.lanes)
    whole, begins = True, None
    try:
        _go(lanes, min(skipped, run.ticks.count), None, fingerprints, look)
        begins = lanes.plant.in_service + lanes.plant.starting
        _go(lanes, run.ticks.count - lanes.tick, sums, fingerprints, look)
    except EnoughError:
        whole = False
    pages = {lane: witness.of(lane) for lane in witnessed} if witness else {}
    return Segmented(sums, fingerprints, pages, None, 0, whole, begins)


@dataclass(slots=True)
class _Segment:
    """One segment of all V lanes of the run, as far as it has been run.

    Attributes:
        sums, fingerprints: Of V lanes.
        pages: Recorded ticks by witnessed lane.
        entry, exit: States at its first and last seam: arrays (n, V).
        ended: For each lane, the run that reached the segment's end, and the lane's place in that run.
    """

    sums: Sums
    fingerprints: Fingerprints
    pages: dict[int, list[KeptTicks]]
    entry: list[NDArray[Any]]
    exit: list[NDArray[Any]]
    ended: list[tuple[Lanes, int]]

    def replace(self, lanes: Sequence[int], by: _Segment, at: Sequence[int]) -> None:
        """Replace `lanes` of this segment by the lanes `at` of another version of it."""
        kept = [lane for lane in range(self.sums.lanes) if lane not in set(lanes)]
        parts = [self.sums.taken(np.array(kept, np.int64)), by.sums.taken(np.array(at))]
        places = np.argsort(np.array([*kept, *lanes]))
        self.sums = Sums.side_by_side(parts).taken(places)
        self.fingerprints.words[list(lanes)] = by.fingerprints.words[list(at)]
        for mine, theirs in (*zip(self.entry, by.entry, strict=True), *zip(self.exit, by.exit, strict=True)):
            mine[:, list(lanes)] = _as_long(theirs, len(mine))[:, list(at)]
        for lane, place in zip(lanes, at, strict=True):
            self.ended[lane] = by.ended[place]
            if lane in self.pages:
                self.pages[lane] = by.pages[place]


class _Segments:
    """A cut run of V lanes times S segments; lane s * V + v is segment s of lane v."""

    def __init__(
        self,
        run: LaneRun,
        cut: Cut,
        cache: OutlookCache | None,
        witnessed: Sequence[int],
        *,
        elasticity: bool,
        look: Look | None,
    ) -> None:
        self._look = look
        self._cut = cut
        self._lanes = len(run.policies)
        self._witnessed = witnessed
        self._elasticity = elasticity
        self._reruns = 0
        whole = LaneRun(
            run.policies * cut.segments,
            run.plants * cut.segments,
            run.traces * cut.segments,
            Ticks(run.ticks.first, cut.warm + cut.stride, run.ticks.tick_s),
            run.seed,
            tuple(shift for shift in cut.shifts for _ in range(self._lanes)),
            forecasts=run.forecasts,
            until=run.ticks.count,
        )
        everywhere = [s * self._lanes + v for s in range(cut.segments) for v in witnessed]
        self._witness = Witness(everywhere) if witnessed else None
        self._run = Lanes(whole, cache=cache, witness=self._witness)
        self._segments: list[_Segment] = []

    def result(self, skipped: int) -> Segmented:
        """Run all segments, run those again that do not join, and return the joined results."""
        try:
            sums, fingerprints = self._begun(skipped)
            pages = self._first_pages()
            groups = [[s * self._lanes + v for v in range(self._lanes)] for s in range(self._cut.segments)]
            self._segments = self._stretch(self._run, groups, self._witness, last=self._cut.segments - 1)
            while self._mend():
                pass
        except EnoughError:
            # Only the first segment is known to be part of the run, because it begins where the run does.
            empty = self._run.sums(elasticity=self._elasticity), Fingerprints(self._run.lanes)
            return Segmented(*empty, self._first_pages(), self._cut, self._reruns, whole=False)
        for segment in self._segments:
            sums = sums.followed_by(segment.sums)
            fingerprints = fingerprints.followed_by(segment.fingerprints)
            for lane, kept in segment.pages.items():
                pages[lane] += kept
        return Segmented(sums, fingerprints, pages, self._cut, self._reruns)

    def _begun(self, skipped: int) -> tuple[Sums, Fingerprints]:
        """Run the warm-up, which belongs to the first segment, and return the first segment's sums and digests."""
        lanes = self._run
        sums, prints = lanes.sums(elasticity=self._elasticity), Fingerprints(lanes.lanes)
        _go(lanes, skipped, None, prints, self._look)
        _go(lanes, self._cut.warm - skipped, sums, prints, self._look)
        return sums.taken(np.arange(self._lanes)), prints.taken(range(self._lanes))

    def _first_pages(self) -> dict[int, list[KeptTicks]]:
        """Return the recorded ticks of the first segment so far."""
        return {v: self._witness.of(v) for v in self._witnessed} if self._witness else {}

    def _stretch(
        self, lanes: Lanes, groups: list[list[int]], witness: Witness | None, *, last: int
    ) -> list[_Segment]:
        """Run all lanes for the length of a segment.

        Args:
            lanes: The run, at the beginning of the segment.
            groups: For each segment, the places of its lanes in that run.
            witness: Records ticks of that run; None if no lane is witnessed.
            last: Index into `groups` of the run's last segment, which is shorter; -1 if it is not among them.
        """
        cut, begun = self._cut, lanes.tick
        sums, fingerprints = lanes.sums(elasticity=self._elasticity), Fingerprints(lanes.lanes)
        entry = lanes.state()
        _go(lanes, cut.rest, sums, fingerprints, self._look)
        tail = None
        if last >= 0:
            at = np.array(groups[last], np.int64)
            tail = sums.taken(at), fingerprints.taken(groups[last])
        if last < 0 or len(groups) > 1:
            _go(lanes, cut.stride - cut.rest, sums, fingerprints, self._look)
        ended = lanes.state()
        made = []
        for number, places in enumerate(groups):
            at = np.array(places, np.int64)
            length = cut.rest if number == last else cut.stride
            counted = tail if number == last and tail else (sums.taken(at), fingerprints.taken(places))
            made.append(
                _Segment(
                    *counted,
                    pages={} if witness is None else self._kept(witness, places, begun, length),
                    entry=[part[:, at] for part in entry],
                    exit=[part[:, at] for part in ended],
                    ended=[(lanes, place) for place in places],
                )
            )
        return made

    def _kept(
        self, witness: Witness, places: list[int], begun: int, length: int
    ) -> dict[int, list[KeptTicks]]:
        """Return the recorded ticks of a stretch, by place within the group."""
        watched = set(witness.lanes.tolist())
        return {at: witness.of(place, begun, length) for at, place in enumerate(places) if place in watched}

    def _mend(self) -> bool:
        """Run segments again that do not begin where the one before ended, from that end; return whether there were any."""
        torn = {
            number: _differing(self._segments[number].entry, self._segments[number - 1].exit)
            for number in range(1, len(self._segments))
        }
        torn = {number: lanes for number, lanes in torn.items() if lanes}
        jobs: dict[int, list[tuple[int, int]]] = {}
        runs: dict[int, Lanes] = {}
        for number, lanes in torn.items():
            for lane in lanes:
                run, _ = self._segments[number - 1].ended[lane]
                jobs.setdefault(id(run), []).append((number, lane))
                runs[id(run)] = run
        mended = [self._again(runs[key], pieces) for key, pieces in jobs.items()]
        for pieces, segments in mended:
            for number, segment in segments.items():
                lanes = [lane for which, lane in pieces if which == number]
                self._segments[number].replace(lanes, segment, range(len(lanes)))
        return bool(torn)

    def _again(
        self, run: Lanes, pieces: list[tuple[int, int]]
    ) -> tuple[list[tuple[int, int]], dict[int, _Segment]]:
        """Continue a run from where it stands, to run the given (segment, lane) pieces again."""
        self._reruns += len(pieces)
        pieces = sorted(pieces)
        places = [self._segments[number - 1].ended[lane][1] for number, lane in pieces]
        watched = [at for at, (_, lane) in enumerate(pieces) if lane in self._witnessed]
        witness = Witness(watched) if watched else None
        lanes = run.continued(places, self._cut.stride, witness)
        numbers = sorted({number for number, _ in pieces})
        groups = [[at for at, (number, _) in enumerate(pieces) if number == each] for each in numbers]
        last = len(numbers) - 1 if numbers[-1] == self._cut.segments - 1 else -1
        return pieces, dict(zip(numbers, self._stretch(lanes, groups, witness, last=last), strict=True))


def _differing(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> list[int]:
    """Return the lanes in which two states differ."""
    differs = np.zeros(one[0].shape[1], np.bool_)
    for mine, theirs in zip(one, other, strict=True):
        rows = max(len(mine), len(theirs))
        differs |= (_as_long(mine, rows) != _as_long(theirs, rows)).any(axis=0)
    lanes: list[int] = np.flatnonzero(differs).tolist()
    return lanes


def _as_long(state: NDArray[Any], rows: int) -> NDArray[Any]:
    """Extend a state to `rows` rows by repeating its last row, the highest that a shorter window remembers."""
    if len(state) == rows:
        return state
    return np.concatenate([state, np.repeat(state[-1:], rows - len(state), axis=0)])


def _shape_of(plant: PlantSettings, policy: Policy, tick_s: float) -> tuple[object, ...]:
    """Return the key that decides which arrays a plant keeps for a lane, and how long they are."""
    lucky = has_luck((plant,), (policy,))
    budgets = (plant.start_budget, plant.provision_budget, plant.stop_budget)
    return (
        whole_ticks(plant.start.longest_s, tick_s),
        whole_ticks(plant.provision.longest_s, tick_s),
        whole_ticks(plant.stop_s, tick_s),
        math.ceil(plant.drain_s / tick_s - 1e-9),
        math.ceil(policy.guards.minimum_on_time_s / tick_s - 1e-9),
        plant.minimum_billed_s,
        policy.provision is not None,
        plant.can_run_dry,
        tuple(budget is not None for budget in budgets),
        (plant.failure_s, plant.quarantine_s, plant.stuck_s, bool(plant.stuck)) if lucky else None,
        bool(plant.start_failure),
        (start_patience_s(policy), made_patience_s(policy)) if lucky else None,
    )
