"""Walk-forward evaluation: every candidate over one course, judged before and after each of several moments.

    |-- warm-up --|------- fold 1 is chosen on -------|embargo|--- and judged on ---|
                  |------------- fold 2 is chosen on ---------------|embargo|--- and judged on ---|

Candidates run once, from the beginning to the end: a policy knows no folds, and decides at each tick from what is known
then. A choice may use the time until its fold's embargo begins, because all figures up to there are final. The
embargo is at least as long as horizon, lead time and metric lag together, so nothing that was ordered or
measured within the first part is judged in the second (Lopez de Prado 2018, chapter 7).

Rules of this file: figures only, no choice (`recommending`). Memory per candidate grows with the
trace only by one value per cell of about an hour, which the intervals resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from autoscaler.core.types import Float
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.ledger import Amount, Block, Sums
from autoscaler.simulator.judging.score import LanePrices, Score, score
from autoscaler.simulator.lanes.engine import Lanes
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.search.executors import Executor, LostPart, SameProcess
from autoscaler.simulator.search.sweep import SweepCourse, Unfinished
from autoscaler.simulator.search.variants import Variant

FOLDS = 4
"""Number of choices that are judged if the trace is long enough."""
FEWEST_FOLDS = 2
_CELL_S = 3600.0
_SHORTEST_JUDGED_CELLS = 8
_EMBARGOES = 4
"""Least length of the judged part of a fold, in embargoes, so that effects at its edges do not dominate."""
_PARTS = ((7 * 86_400.0, "weeks"), (86_400.0, "days"), (3600.0, "hours"))


@dataclass(frozen=True, slots=True)
class Fold:
    """One choice and its judgement, in ticks from the beginning of the run.

    Attributes:
        chosen_to: End of the time on which the choice is made; it begins after the warm-up.
        judged_from, judged_to: Beginning and end of the time on which the choice is judged.
    """

    chosen_to: int
    judged_from: int
    judged_to: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a course is divided into folds.

    Attributes:
        folds: In time order; empty if the course is too short.
        embargo: Ticks between choosing and judging.
        cell: Ticks of a cell.
        why: The division and the reason for it, in words.
    """

    folds: tuple[Fold, ...]
    embargo: int
    cell: int
    why: str


@dataclass(frozen=True, slots=True)
class Cells:
    """Sums per cell, for K cells and V candidates; the cells cover the course from the warm-up on.

    Attributes:
        ends: Ticks at which each cell ends.
        cost: float64 (K, V), money.
        shortage: float64 (K, V), work per second not served, summed over the cell's known ticks.
        demand: float64 (K, V), work per second wanted, summed over the cell's known ticks.
    """

    ends: tuple[int, ...]
    cost: Float
    shortage: Float
    demand: Float


@dataclass(frozen=True, slots=True)
class WalkForwardResult:
    """Results of a walk-forward run.

    Attributes:
        variants: The V candidates that finished, in the order given.
        numbers: Their numbers.
        begin: Tick at which the figures begin.
        chosen_on, judged_on: For each fold, the figures of both parts, V candidates.
        whole: Figures of everything after the warm-up.
        cells: The sums that intervals are computed from.
        digests: Digests of the decisions.
        unfinished: The candidates that did not finish.
        interrupted: Whether Ctrl-C ended the run.
    """

    variants: tuple[Variant, ...]
    numbers: tuple[int, ...]
    begin: int
    chosen_on: tuple[Score, ...]
    judged_on: tuple[Score, ...]
    whole: Score
    cells: Cells
    digests: tuple[str, ...]
    unfinished: tuple[Unfinished, ...]
    interrupted: bool


def embargo_ticks(variants: Sequence[Variant], interval_s: float, tick_s: float) -> int:
    """Return the ticks between choosing and judging: horizon, lead time and metric lag of the slowest candidate.

    Args:
        variants: The candidates.
        interval_s: Interval of the trace: a value is known when its interval is over.
        tick_s: Length of a tick.
    """
    longest_s = 0.0
    for policy, plant in {
        (id(each.policy), id(each.plant)): (each.policy, each.plant) for each in variants
    }.values():
        vm = policy.vm
        # A forecast looks ahead until a VM stopped now could serve again.
        horizon_s = vm.start_time_s + vm.stop_time_s if policy.forecast else 0.0
        lead_s = max(
            vm.start_time_s, plant.start.longest_s, plant.provision.longest_s if policy.provision else 0.0
        )
        longest_s = max(longest_s, horizon_s + lead_s + _lag_s(plant, policy.signal.trace) + interval_s)
    return math.ceil(longest_s / tick_s - 1e-9)


def _lag_s(plant: PlantSettings, given: object) -> float:
    """Return the longest delay until a measured value is known, in seconds."""
    lag_s = plant.metric_lag_s
    return float(getattr(given, "lag_s", 0.0) if lag_s is None else lag_s) + (plant.metric_interval_s or 0.0)


def plan_folds(course: SweepCourse, embargo: int, folds: int = FOLDS) -> Plan:
    """Divide a course: the first part is only chosen on, and the equally long parts after it are judged one after the other.

    Parts are whole weeks, days or hours if the course is long enough, so that each contains the same hours of the day.
    """
    tick_s = course.ticks.tick_s
    first, end = course.warm_up_ticks, course.ticks.count
    cell = max(round(_CELL_S / tick_s), 1)
    shortest = max(_EMBARGOES * embargo, _SHORTEST_JUDGED_CELLS * cell)
    for count in range(folds, FEWEST_FOLDS - 1, -1):
        length = (end - first) // (count + 1)
        if length < shortest:
            continue
        name = "ticks"
        for part_s, word in _PARTS:
            part = round(part_s / tick_s)
            if part >= 1 and length // part >= 1 and length // part * part >= shortest:
                length, name = length // part * part, word
                break
        begins = [end - (count - number) * length for number in range(count)]
        made = tuple(Fold(begin, begin + embargo, begin + length) for begin in begins)
        return Plan(
            made,
            embargo,
            cell,
            f"{count} folds of whole {name}: chosen on what lies before, judged on {length} ticks after an embargo "
            f"of {embargo}",
        )
    need = (FEWEST_FOLDS + 1) * shortest
    return Plan(
        (),
        embargo,
        cell,
        f"{end - first} scored ticks are too few for {FEWEST_FOLDS} folds, which need {need}: candidates are chosen and "
        "judged on the same time, and the interval is widened for each one that was tried",
    )


def walk(
    variants: Sequence[Variant],
    course: SweepCourse,
    plan: Plan,
    *,
    executor: Executor | None = None,
    part_variants: int = 1000,
    cache: OutlookCache | None = None,
    progress: Callable[[float], None] | None = None,
) -> WalkForwardResult:
    """Run candidates over a course and keep what choosing and judging needs.

    Args:
        variants: The candidates.
        course: The trace and the ticks.
        plan: The folds.
        executor: Runs the parts; None for this process.
        part_variants: Candidates per part; no number depends on it.
        cache: Forecasts of earlier runs over the same trace, which this process reads and extends. Not used by other
            processes.
        progress: Called with the share that is done.

    Raises:
        ConfigError: Lanes cannot express a candidate, or none finished.
    """
    firsts = range(0, len(variants), part_variants)
    parts = [tuple(variants[first : first + part_variants]) for first in firsts]
    found: dict[int, _Part] = {}
    lost: dict[int, str] = {}
    interrupted = False
    told = progress or (lambda _: None)
    work: Callable[[_Shared, tuple[Variant, ...]], _Part] = _walk_part
    if executor is None:
        work = partial(_walk_part, on_share=lambda share: told((len(found) + share) / len(parts)))
    kept = OutlookCache() if cache is None or executor is not None else cache
    try:
        for each in (executor or SameProcess()).run(work, _Shared(course, plan, kept), parts):
            if isinstance(each.result, LostPart):
                lost[each.number] = each.result.why
            else:
                found[each.number] = each.result
            told(len(found) / len(parts))
    except KeyboardInterrupt:
        interrupted = True
    unfinished = tuple(
        Unfinished(firsts[number], firsts[number] + len(part), lost.get(number, "it was interrupted"))
        for number, part in enumerate(parts)
        if number not in found
    )
    if not found:
        if interrupted:
            raise KeyboardInterrupt
        raise ConfigError("; ".join(map(str, unfinished)) + ". Run these again.")
    done = sorted(found)
    return _laid_out(
        parts,
        firsts,
        [found[number] for number in done],
        done,
        unfinished,
        begin=course.warm_up_ticks,
        interrupted=interrupted,
    )


def _laid_out(
    parts: Sequence[tuple[Variant, ...]],
    firsts: Sequence[int],
    found: Sequence[_Part],
    done: Sequence[int],
    unfinished: tuple[Unfinished, ...],
    *,
    begin: int,
    interrupted: bool,
) -> WalkForwardResult:
    """Join the results of all finished parts in the order of the candidates."""
    variants = tuple(variant for number in done for variant in parts[number])
    prices = LanePrices.of([each.policy for each in variants])

    def beside(sums: Sequence[Sums]) -> Score:
        return score(Sums.side_by_side(list(sums)), prices)

    folds = range(len(found[0].chosen_on))
    return WalkForwardResult(
        variants=variants,
        numbers=tuple(firsts[number] + at for number in done for at in range(len(parts[number]))),
        begin=begin,
        chosen_on=tuple(beside([part.chosen_on[fold] for part in found]) for fold in folds),
        judged_on=tuple(beside([part.judged_on[fold] for part in found]) for fold in folds),
        whole=beside([part.whole for part in found]),
        cells=Cells(
            found[0].ends,
            *(np.concatenate([part.cells[which] for part in found], axis=1) for which in range(len(_KEPT))),
        ),
        digests=tuple(digest for part in found for digest in part.digests),
        unfinished=unfinished,
        interrupted=interrupted,
    )


_KEPT = (Amount.COST, Amount.SHORTAGE, Amount.DEMAND)


@dataclass(frozen=True, slots=True)
class _Shared:
    course: SweepCourse
    plan: Plan
    cache: OutlookCache


@dataclass(frozen=True, slots=True)
class _Part:
    """Results of some candidates: sums by fold, sums of everything, and K cells of the `_KEPT` sums, float64 (3, K, V)."""

    chosen_on: tuple[Sums, ...]
    judged_on: tuple[Sums, ...]
    whole: Sums
    ends: tuple[int, ...]
    cells: Float
    digests: tuple[str, ...]


class _Both(Sums):
    """Sums of everything that also add each block to the sums of the current part."""

    __slots__ = ("part",)

    part: Sums | None

    def add(self, block: Block, rows: slice = slice(None)) -> None:
        """Add rows of a block to both (see `Sums.add`)."""
        super().add(block, rows)
        if self.part is not None:
            self.part.add(block, rows)


def _walk_part(
    shared: _Shared, part: tuple[Variant, ...], on_share: Callable[[float], None] | None = None
) -> _Part:
    """Run some candidates over the course, and sum by fold and by cell."""
    course, plan = shared.course, shared.plan
    lanes, prints = Lanes(course.run_of(part), cache=shared.cache), Fingerprints(len(part))
    empty = lanes.sums(elasticity=True)
    whole = _Both(empty.tick_s, empty.vm_capacity, elasticity=True, tariff=empty.tariff)
    whole.part = None
    chosen: list[Sums] = []
    judged: list[Sums] = []
    cells: list[Float] = [np.zeros((len(_KEPT), len(part)))]
    ends: list[int] = []
    lanes.run(course.warm_up_ticks, None, prints)
    for end in _stops(course, plan):
        lanes.run(end - lanes.tick, whole, prints)
        for fold in plan.folds:
            if end == fold.chosen_to:
                # A copy, because the sums of everything go on growing.
                chosen.append(whole.taken(slice(None)))
                whole.part = None
            if end == fold.judged_from:
                whole.part = lanes.sums(elasticity=True)
                judged.append(whole.part)
        cells.append(np.stack([whole.amount(which) for which in _KEPT]))
        ends.append(end)
        if on_share is not None:
            on_share(end / course.ticks.count)
    return _Part(
        tuple(chosen),
        tuple(judged),
        whole.taken(slice(None)),
        tuple(ends),
        np.diff(np.stack(cells, axis=1), axis=1),
        tuple(prints.digests()),
    )


def _stops(course: SweepCourse, plan: Plan) -> list[int]:
    """Return the ticks at which something ends: cells (counted back from the end of the run), folds, embargoes, the run."""
    first, end = course.warm_up_ticks, course.ticks.count
    stops = set(range(end, first, -plan.cell))
    for fold in plan.folds:
        stops |= {fold.chosen_to, fold.judged_from, fold.judged_to}
    return sorted(stops)
