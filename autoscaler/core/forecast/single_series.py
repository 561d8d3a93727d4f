"""A scalar fast path for one series over many ticks: bit-identical to `judging` and `issuing`.

Work that depends on earlier forecasts must go tick by tick, and a numpy call takes as long for one number as for a hundred. For
a single series whose ticks are known in advance, the same operations on Python floats take a tenth of the time. Everything that
can run ahead, or can wait, is still done with arrays over many ticks.

Rules of this file: the operations of `judging.judge` and `issuing.expect`, in their order, and nothing else: a change there must
be made here, and tests compare `steps` with `step`. The square root is the only function applied to single numbers, since it
is exact; logarithms are numpy's, over many ticks. The work of a tick is in nested functions whose lists are local names:
attribute look-ups took a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import nan, sqrt
from typing import TypeAlias

import numpy as np

from autoscaler.core.forecast import issuing, judging, level, tables
from autoscaler.core.forecast.issuing import Predictors
from autoscaler.core.forecast.judging import FitUpdates, Outcomes, Place, apply_fit_updates, updates_by_tick
from autoscaler.core.forecast.settings import RING, Group, Settings
from autoscaler.core.forecast.state import SeriesState, slots_first
from autoscaler.core.forecast.tracks import ends
from autoscaler.core.types import Bool, Float, Int, SmallFloat

_PARENT_OF: list[int] = tables.PARENT_OF.tolist()
_CELLS, _ROWS, _LEVELS = tables.CELLS, tables.ROWS, tables.LEVELS
_LOW, _MIDDLE, _HIGH = issuing.LEVELS.tolist()
_LEAST_SPREAD, _MOST_SPREAD = float(issuing.LEAST_SPREAD), float(issuing.MOST_SPREAD)
_LEAST_LOG, _MOST_LOG, _QUIET = float(level.LEAST_LOG), float(level.MOST_LOG), float(level.QUIET)
_MOST_SIZE, _LEAST_SHIFT = float(judging.MOST_SIZE), float(judging.LEAST_SHIFT)
_MOST_SQUARE = float(judging.MOST_SQUARE)
_FIRST_WEIGHT, _MOST_WEIGHT = float(judging.FIRST_WEIGHT), float(judging.MOST_WEIGHT)
_HUBER = float(judging.HUBER)

_Outcome: TypeAlias = tuple[int, int, float, float, float, float]
"""An outcome: its horizon, counted from the end; the place of its forecast; its logarithm; its weight; its share in the mean size
of recent errors; the weight of a present outcome."""
_Inputs: TypeAlias = tuple[float, float, float, float, float, float | None, int, int, Bool | None]
"""The inputs of a tick (`issuing.Predictors`): the parts of means and seasons, last value, usual demand, top, recent maximum of
the farthest horizon or None, cell in a burst; then the hazard class, and whether demand is hidden, or None."""


@dataclass(slots=True)
class _Numbers:
    """Everything that changes from tick to tick, as plain numbers.

    There are RING * H forecasts that waited for their outcome before the stretch, as in the state, followed by H forecasts
    for each tick of the stretch. A forecast's place is its place in this sequence.

    Attributes:
        totals, sizes, shifts: As in the state, flat: (ROWS, H), and (PARENTS, H) twice.
        short, doubt: As in the state.
        levels, spreads: Logarithm of the level and spread of each forecast; a level is NaN if there is no forecast.
        cell_places, parent_places: Where each forecast's outcome counts in `totals`, and in `sizes` and `shifts`.
        aheads, fitted: `SeriesState.ahead` and `fitted` of RING slots, followed by those of each tick of the stretch.
        rows: The outcomes of each tick, and an empty list for the tick after the last.
        errors: Errors of all outcomes so far; NaN if there was no forecast.
        lessons: Outcomes at the lead time that the fit has not learned, `_LESSON_SIZE` numbers each: slot of the forecast in
            `aheads`, its entry of `cell_places`, level, error, outcome for the fit, share in the mean distance, weight.
        row_totals: Totals of the rows that each tick's forecast uses, (3, H) per tick.
    """

    totals: list[float]
    sizes: list[float]
    shifts: list[float]
    short: list[float]
    doubt: list[float]
    levels: list[float]
    spreads: list[float]
    cell_places: list[int]
    parent_places: list[int]
    aheads: list[float]
    fitted: list[float]
    rows: list[list[_Outcome]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    lessons: list[float] = field(default_factory=list)
    row_totals: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, state: SeriesState) -> _Numbers:
        """Read the numbers from a state."""
        horizons = state.open.shape[1]
        log_level, spread, cell = slots_first(state.issued).reshape(-1, 3).T
        cells = np.where(cell >= 0.0, cell, 0.0).astype(np.int64)
        horizon = np.arange(len(cells)) % horizons
        return cls(
            totals=slots_first(state.totals).reshape(-1).tolist(),
            sizes=slots_first(state.sizes).reshape(-1).tolist(),
            shifts=slots_first(state.shifts).reshape(-1).tolist(),
            short=state.short[0].tolist(),
            doubt=state.doubt[0].tolist(),
            levels=log_level.tolist(),
            spreads=spread.tolist(),
            cell_places=(cells * horizons + horizon).tolist(),
            parent_places=(tables.PARENT_OF.take(cells) * horizons + horizon).tolist(),
            aheads=state.ahead[0].tolist(),
            fitted=state.fitted[0].tolist(),
        )


def _judging(numbers: _Numbers, settings: Settings) -> Callable[[int], None]:
    """Return a function that judges the forecasts whose windows end at a tick, as `judging.judge`."""
    horizons, fit_weight = settings.horizons, settings.fit_weight.item()
    doubt_alpha = next(float(group.doubt_alpha) for group in settings.groups if group.lead)
    totals, sizes, shifts, short, doubt = (
        numbers.totals,
        numbers.sizes,
        numbers.shifts,
        numbers.short,
        numbers.doubt,
    )
    levels, spreads, cell_places, parent_places = (
        numbers.levels,
        numbers.spreads,
        numbers.cell_places,
        numbers.parent_places,
    )
    rows, lessons, aheads, fitted = numbers.rows, numbers.lessons, numbers.aheads, numbers.fitted
    first_beside, lead, note = _CELLS * horizons, -horizons, numbers.errors.append

    def compare(place: int, error: float, present_weight: float) -> None:
        """Update the errors of the fit (`judging._compare`), and keep what the fit learns from the outcome (`judging.learn`)."""
        slot, spread = place // horizons, spreads[place]
        outcome = aheads[slot] + error
        off = outcome - fitted[slot]
        by_fit, by_last = doubt
        doubt[0] = by_fit + (min(off * off, _MOST_SQUARE) - by_fit) * doubt_alpha
        doubt[1] = by_last + (min(outcome * outcome, _MOST_SQUARE) - by_last) * doubt_alpha
        limit = _HUBER * spread
        outcome = aheads[slot] + min(max(error, -limit), limit)
        share = min(present_weight / (totals[lead] + 1.0), 1.0)
        weight = sizes[0] / spread
        weight = min(weight * weight, _MOST_WEIGHT) * fit_weight * present_weight
        lessons.extend((slot, cell_places[place], levels[place], error, outcome, share, weight))

    def judge(at: int) -> None:
        # Horizons are counted from the end, so they index the last row of the totals, that of all outcomes.
        for horizon, place, log, outcome_weight, alpha, present_weight in rows[at]:
            error = log - levels[place]
            note(error)
            if error != error:  # noqa: PLR0124 - the quickest way to ask whether it is a number
                continue
            parent = parent_places[place]
            beside = first_beside + parent
            totals[cell_places[place]] += outcome_weight
            totals[horizon] += outcome_weight
            total = totals[beside] = totals[beside] + outcome_weight
            size, shift = abs(error), error
            if size > _MOST_SIZE:
                size, shift = _MOST_SIZE, min(max(error, _LEAST_SHIFT), _MOST_SIZE)
            was = short[horizon]
            short[horizon] = (size - was) * alpha + was
            share = outcome_weight / (_FIRST_WEIGHT * present_weight + total)
            was = sizes[parent]
            sizes[parent] = (size - was) * share + was
            shifts[parent] += shift * share
            if horizon == lead:
                compare(place, error, present_weight)

    return judge


def _forecasting(
    numbers: _Numbers, settings: Settings, judge: Callable[[int], None]
) -> Callable[[int, Iterable[_Inputs]], None]:
    """Return a function that forecasts at some ticks, as `issuing.expect`, and judges at the tick after each."""
    totals, sizes, shifts, short, doubt = (
        numbers.totals,
        numbers.sizes,
        numbers.shifts,
        numbers.short,
        numbers.doubt,
    )
    levels, horizons, farthest = numbers.levels, settings.horizons, settings.horizons - 1
    add_level, add_spread, add_ahead = levels.append, numbers.spreads.append, numbers.aheads.append
    add_cells, add_parents, add_totals = (
        numbers.cell_places.extend,
        numbers.parent_places.extend,
        numbers.row_totals.extend,
    )
    # The places of each cell's forecasts: as tuples, because iterating over them is faster than over ranges.
    cell_places = [tuple(range(cell * horizons, (cell + 1) * horizons)) for cell in range(_CELLS)]
    parent_places = [tuple(range(parent * horizons, (parent + 1) * horizons)) for parent in _PARENT_OF]
    cell_rows = [slice(places[0], places[-1] + 1) for places in cell_places]
    parent_rows = [
        slice(_CELLS * horizons + places[0], _CELLS * horizons + places[-1] + 1) for places in parent_places
    ]
    total_row = slice(-horizons, None)
    shares: list[float] = settings.on_the_way[0].tolist()

    def forecast(first: int, inputs: Iterable[_Inputs]) -> None:
        for at, (means, seasons, last, usual, top, lately, within, odds, hidden) in enumerate(inputs, first):
            by_fit, by_last = doubt
            ratio = (by_last + _QUIET) / (by_fit + _QUIET)
            way = (means if ratio >= 1.0 else means * min(ratio * ratio, 1.0)) + seasons
            if not _LEAST_LOG <= way <= _MOST_LOG:
                way = min(max(way, _LEAST_LOG), _MOST_LOG)
            if hidden is not None and way < 0.0:
                way = 0.0
            cell = within
            if cell < 0:
                above = way + last - usual
                cell = (above > _LOW) + (above > _MIDDLE) + (above > _HIGH) + odds * _LEVELS
            mine = parent_places[cell]
            for horizon, parent in enumerate(mine):
                log_level = shares[horizon] * way + last
                if horizon:
                    if horizon == farthest and lately is not None and lately > log_level:
                        log_level = lately
                    log_level += shifts[parent]
                add_level(log_level if log_level < top else min(log_level, top))
                spread = sqrt(sizes[parent] * short[horizon])
                if not _LEAST_SPREAD <= spread <= _MOST_SPREAD:
                    spread = min(max(spread, _LEAST_SPREAD), _MOST_SPREAD)
                add_spread(spread)
            add_ahead(levels[-horizons] - last)
            add_cells(cell_places[cell])
            add_parents(mine)
            add_totals(totals[cell_rows[cell]] + totals[parent_rows[cell]] + totals[total_row])
            judge(at + 1)

    return forecast


@dataclass(slots=True)
class _ArrivedOutcomes:
    """N outcomes of a stretch, in the order in which they are judged.

    Attributes:
        tick: int64 (N,), tick of the stretch at which each is judged.
        horizon: int64 (N,), its horizon.
        place: int64 (N,), place of the forecast, as in `_Numbers`.
        log: float64 (N,), logarithm of outcome plus offset.
        weight: float64 (N,), its weight.
        alpha: float64 (N,), its share in the mean size of recent errors.
        none: bool (N,), whether there was no demand.
    """

    tick: Int
    horizon: Int
    place: Int
    log: Float
    weight: Float
    alpha: Float
    none: Bool

    @classmethod
    def nothing(cls) -> _ArrivedOutcomes:
        """Return an empty list of outcomes."""
        no, nothing = np.empty(0, np.int64), np.empty(0)
        return cls(no, no, no, nothing, nothing, nothing, np.empty(0, np.bool_))

    @classmethod
    def merged(cls, parts: Sequence[_ArrivedOutcomes]) -> _ArrivedOutcomes:
        """Merge the outcomes of several groups, which are judged in turn at each tick."""
        order = np.argsort(np.concatenate([each.tick for each in parts]), kind="stable")
        names = [f.name for f in fields(cls)]
        return cls(*(np.concatenate([getattr(each, name) for each in parts]).take(order) for name in names))

    def rows(self, weight: Float, horizons: int) -> list[list[_Outcome]]:
        """Return the outcomes tick by tick, with an empty list for the tick after the last.

        Args:
            weight: float64 (T,), weight of an outcome at each tick.
            horizons: Number of horizons.
        """
        present_weight = weight.take(self.tick)
        columns = self.horizon - horizons, self.place, self.log, self.weight, self.alpha, present_weight
        rows: list[_Outcome] = list(zip(*(each.tolist() for each in columns), strict=True))
        first = self.tick.searchsorted(np.arange(len(weight) + 2)).tolist()
        return [rows[begin:end] for begin, end in pairwise(first)]


class Alone:
    """The only series of a state, through the T ticks of a stretch.

    Args:
        settings: The settings of the series.
        state: What `judging` and `issuing` change in it is updated only by `write`, and the sums of the fit by `settle`.
        tick: Number of the first tick.
        weight: float64 (T, 1), weight of an outcome at each tick.
    """

    def __init__(self, settings: Settings, state: SeriesState, tick: int, weight: Float) -> None:
        self._settings, self._state, self._tick, self._weight = settings, state, tick, weight[:, 0]
        self._horizons = settings.horizons
        self._samples: int | None = None if state.grown else state.ticks.item()
        self._numbers = _Numbers.of(state)
        self.judge = _judging(self._numbers, settings)
        self._forecast = _forecasting(self._numbers, settings, self.judge)
        self._features = np.empty((RING + len(weight), level.FEATURES))
        self._features[:RING] = state.features[0]
        self._arrived = _ArrivedOutcomes.nothing()
        # Levels issued before the last change of the offset, which the list of levels no longer holds.
        self._earlier_levels: list[float] = []

    def take_in(self, outcomes: Sequence[Outcomes | None]) -> None:
        """Take in the outcomes of the windows that end within the stretch, for each group, by the present offset."""
        found = [
            self._of_group(group, mine)
            for group, mine in zip(self._settings.groups, outcomes, strict=True)
            if mine is not None
        ]
        if found:
            self._arrived = found[0] if len(found) == 1 else _ArrivedOutcomes.merged(found)
        self._numbers.rows[:] = self._arrived.rows(self._weight, self._horizons)

    def _of_group(self, group: Group, outcomes: Outcomes) -> _ArrivedOutcomes:
        """Collect the outcomes of one group."""
        closed, horizons = outcomes.closed, self._horizons
        known = closed.known[:, 0]
        block, column = known.nonzero()
        tick, horizon = block * group.stride, column + group.columns.start
        tick += closed.first
        # Forecasts issued within the stretch are not in the ring yet.
        place = closed.issued[:, 0][known]
        issued_at = tick - group.ahead[0].take(column) * group.stride
        place = np.where(issued_at < 0, place, (issued_at + RING) * horizons + horizon)
        alpha = np.full(len(tick), group.pairs.short_alpha[0])
        if self._samples is not None:
            # The first outcomes are averaged with equal weights.
            count = (tick + self._samples) / group.stride
            count += _FIRST_WEIGHT
            np.maximum(alpha, 1.0 / count, out=alpha)
        return _ArrivedOutcomes(
            tick=tick,
            horizon=horizon,
            place=place,
            log=outcomes.logs[:, 0][known],
            weight=self._weight.take(tick) * group.pairs.weight[:, 0].take(column),
            alpha=alpha,
            none=closed.outcome[:, 0][known] <= 0.0,
        )

    def forecast(
        self,
        first: int,
        end: int,
        predictors: Predictors,
        hazard: dict[int, int],
        hidden: Sequence[Bool | None],
    ) -> None:
        """Forecast at some ticks, the first of which was judged already, and judge at the tick after each.

        Args:
            first: The first of the ticks.
            end: The tick after the last.
            predictors: Inputs of all ticks of the stretch, by the present fit and offset.
            hazard: Hazard class by tick, where it is not 0.
            hidden: For all ticks of the stretch, as in `tracks.Stretch`.
        """
        some, count = slice(first, end), end - first
        self._features[RING + first : RING + end] = predictors.features[some, 0]
        self._numbers.fitted += predictors.fitted[some, 0].tolist()
        names = predictors.means, predictors.seasons, predictors.last, predictors.usual, predictors.top
        mine = zip(
            *(each[some, 0].tolist() for each in names),
            predictors.lately[some, 0].tolist() if len(predictors.lately) else [None] * count,
            predictors.within[some, 0].tolist(),
            [hazard.get(at, 0) for at in range(first, end)] if hazard else [0] * count,
            hidden[some],
            strict=True,
        )
        self._forecast(first, mine)

    def settle(self) -> None:
        """Let the fit learn the outcomes judged since the last call."""
        numbers = self._numbers
        if not numbers.lessons:
            return
        found = np.array(numbers.lessons).reshape(-1, _LESSON_SIZE)
        numbers.lessons.clear()
        places = found[:, :2].astype(np.int64)
        cells = places[:, 1:] // self._horizons
        features = self._features.take(places[:, 0], axis=0)
        updates = FitUpdates(
            found[:, 2:3], found[:, 3:4], found[:, 5:6], cells, features, found[:, 4], found[:, 6]
        )
        apply_fit_updates(self._settings, self._state, updates)

    def forget(self) -> None:
        """Drop all forecasts that wait for their outcome, because the offset has changed."""
        self._earlier_levels = self._levels()
        self._numbers.levels[:] = [nan] * len(self._numbers.levels)

    def _levels(self) -> list[float]:
        """Return the logarithms of all levels issued in the stretch."""
        return (
            self._earlier_levels + self._numbers.levels[RING * self._horizons + len(self._earlier_levels) :]
        )

    def issued(self) -> Float:
        """Return all forecasts of the stretch: float64 (T, 1, H, 3)."""
        first, horizons = RING * self._horizons, self._horizons
        found = np.empty((len(self._weight), 1, horizons, 3))
        found[:, 0, :, 0] = np.array(self._levels()).reshape(-1, horizons)
        found[:, 0, :, 1] = np.array(self._numbers.spreads[first:]).reshape(-1, horizons)
        found[:, 0, :, 2] = (np.array(self._numbers.cell_places[first::horizons]) // horizons)[:, np.newaxis]
        return found

    def row_totals(self) -> Float:
        """Return the sums of the rows that the forecasts use: float64 (T, 1, 3, H)."""
        return np.array(self._numbers.row_totals).reshape(-1, 1, 3, self._horizons)

    def added(self) -> list[tuple[int, Int, SmallFloat]]:
        """Return what to add to the flat tables, tick by tick, as `judging.count_in`."""
        numbers, arrived, horizons = self._numbers, self._arrived, self._horizons
        error = np.array(numbers.errors)
        some = np.flatnonzero(~np.isnan(error))
        if not len(some):
            return []
        place, tick = arrived.place.take(some), arrived.tick.take(some)
        totals = np.empty((len(some), 3), np.int64)
        totals[:, 0] = np.array(numbers.cell_places).take(place)
        totals[:, 1] = np.array(numbers.parent_places).take(place)
        totals[:, 1] += _CELLS * horizons
        totals[:, 2] = arrived.horizon.take(some)
        totals[:, 2] += (_ROWS - 1) * horizons
        together = Place(
            totals=totals,
            spread=np.array(numbers.spreads).take(place),
            error=error.take(some),
            weight=np.repeat(arrived.weight.take(some)[:, np.newaxis], 3, axis=1),
            none=arrived.none.take(some),
        )
        last = np.flatnonzero(np.append(tick[1:] != tick[:-1], True))
        return updates_by_tick(tick.take(last).tolist(), (last + 1).tolist(), together)

    def write(self) -> None:
        """Bring the state up to the last tick, except for its tables."""
        self.settle()
        state, numbers, settings = self._state, self._numbers, self._settings
        slots_first(state.totals).reshape(-1)[:] = numbers.totals
        slots_first(state.sizes).reshape(-1)[:] = numbers.sizes
        slots_first(state.shifts).reshape(-1)[:] = numbers.shifts
        state.short[0], state.doubt[0] = numbers.short, numbers.doubt
        issued, valid = self.issued()[:, 0], len(self._earlier_levels) // self._horizons
        for group in settings.groups:
            # Of the forecasts for the same place, the last one stays.
            at = np.array(ends(group, self._tick, len(issued)), np.int64)[-RING:]
            slot = (self._tick + at) // group.stride % RING
            if group.lead:
                state.features[0, slot] = self._features[RING + at]
                state.ahead[0, slot] = np.array(numbers.aheads[RING:])[at]
                state.fitted[0, slot] = np.array(numbers.fitted[RING:])[at]
            if valid:
                slot, at = slot[at >= valid], at[at >= valid]
            mine = np.arange(group.columns.start, group.columns.stop)
            if group.mine is not None:
                mine = mine[group.mine[0]]
            state.issued[0, slot[:, np.newaxis], mine] = issued[at[:, np.newaxis], mine]


_LESSON_SIZE = 7
"""Numbers per entry of `_Numbers.lessons`."""
