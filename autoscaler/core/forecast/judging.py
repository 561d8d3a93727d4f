"""What an outcome teaches: where it fell in the law that was issued for it, how far from the level, and why.

Mean sizes and shifts, and how far the fit is believed, are wanted by the next forecast, so they are learned at
once. The tables are wanted when laws are said, the sums of the fit when it is fitted: what goes there is put by in
`Lessons`, and worked out for many ticks together. What waits for the fit may wait from one step to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from autoscaler.core.forecast import level, tables
from autoscaler.core.forecast.seeing import Closed, stacked
from autoscaler.core.forecast.settings import Group, Pairs, Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.types import LAW_LOW, LAW_STEP, Bool, Float, Int, SmallFloat

_NOTHING, _ONE = np.array(0.0), np.array(1.0)
_MOST_SIZE, _LEAST_SHIFT = np.array(2.0), np.array(-2.0)
"""A larger log error counts as this in the mean size."""
_HUBER = np.array(12.0)
_LAW_LOW, _LAW_STEP = np.array(LAW_LOW), np.array(LAW_STEP)
"""The level is fitted to outcomes as if they were at most so many spreads from what was forecast."""


@dataclass(slots=True)
class Place:
    """Outcomes of one tick, to be counted in the tables: N pairs of series and horizon, each at most once.

    Attributes:
        tick: Of the stretch.
        totals: int64 (N, 3), where they are counted in the flat sums of the tables.
        spread, error: float64 (N,).
        weight: float64 (N, 3), of each, three times.
        none: bool (N,), where there was no demand.
    """

    tick: int
    totals: Int
    spread: Float
    error: Float
    weight: Float
    none: Bool


@dataclass(slots=True)
class Lesson:
    """Outcomes at the lead time of one tick, for the fit of the level.

    Attributes:
        place: int64 (S,), of what the forecast was made of, in flat (S, RING).
        error: float64 (S,), log of outcome over forecast.
        was: float64 (S, 3), what was issued.
        known: bool (S,), where there is an outcome; None for everywhere.
        size: float64 (S,), mean size of the error without a burst.
        evidence: float64 (S,), weight of all outcomes.
        weight: float64 (S,), of this one.
    """

    place: Int
    error: Float
    was: Float
    known: Bool | None
    size: Float
    evidence: Float
    weight: Float


@dataclass(slots=True)
class Lessons:
    """What was put by: at most so many ticks of it that no forecast judged has been overwritten.

    Attributes:
        places: For the tables.
        fits: For the fit of the level.
        begun: The tick of the first of those.
    """

    places: list[Place] = field(default_factory=list)
    fits: list[Lesson] = field(default_factory=list)
    begun: int = -1

    def settle(self, settings: Settings, state: SeriesState) -> None:
        """Learn what was put by for the fit."""
        learn_fit(settings, state, self)


@dataclass(slots=True)
class Outcomes:
    """The blocks of a group that end within a stretch, to be judged one after the other.

    Attributes:
        closed: What came.
        logs: float64 (N, S, C), of `logs`.
    """

    closed: Closed
    logs: Float


def logs(state: SeriesState, closed: Closed) -> Float:
    """Logarithms (N, S, C) of outcomes and offset."""
    found = np.where(closed.known, closed.outcome, 0.0)
    found += state.offset[:, np.newaxis]
    np.log(found, out=found)
    return found


def judge(
    settings: Settings, group: Group, state: SeriesState, lessons: Lessons, outcomes: Outcomes, tick: int
) -> None:
    """Judge the forecasts of a group whose window ends at a tick.

    Args:
        settings: Of the series.
        group: Whose block ended.
        state: Updated in place.
        lessons: Where the rest of it is put by.
        outcomes: Of the blocks that end in this stretch.
        tick: Of the stretch.
    """
    closed = outcomes.closed
    at = (tick - closed.first) // group.stride
    places = closed.issued[at]
    was = state.issued.reshape(-1, 3).take(places, axis=0)
    known = was[..., 0] == was[..., 0]
    known &= closed.known[at]
    count = np.count_nonzero(known)
    if not count:
        return
    error = outcomes.logs[at] - was[..., 0]
    none = closed.outcome[at] <= _NOTHING
    if count == known.size:
        pairs, errors, issued, nothing = group.pairs, error.reshape(-1), was.reshape(-1, 3), none.reshape(-1)
    else:
        some = np.flatnonzero(known)
        pairs, errors, issued, nothing = (
            group.pairs.some(some),
            error.reshape(-1).take(some),
            was.reshape(-1, 3).take(some, axis=0),
            none.reshape(-1).take(some),
        )
    lessons.places.append(_count(settings, pairs, state, errors, issued, nothing, tick))
    at_lead = 0
    if group.lead:
        at_lead = len(known) if count == known.size else int(np.count_nonzero(known[:, 0]))
    if at_lead:
        lesson = Lesson(
            place=places[:, 0] // state.open.shape[1],
            error=error[:, 0],
            was=was[:, 0],
            known=None if at_lead == len(known) else known[:, 0],
            size=state.sizes[:, 0, 0].copy(),
            evidence=state.totals[:, -1, 0].copy(),
            weight=state.weight,
        )
        _compare(group, state, lesson)
        if not lessons.fits:
            lessons.begun = state.last_tick
        lessons.fits.append(lesson)


def _count(
    settings: Settings, pairs: Pairs, state: SeriesState, error: Float, was: Float, none: Bool, tick: int
) -> Place:
    """Add outcomes of pairs of series and horizon, each at most once, to totals and mean sizes."""
    at, cell = pairs.at, was[:, 2].astype(np.int64)
    one = state.weight.take(pairs.series)
    weight = one * pairs.weight
    places = settings.totals_of.take(cell, axis=0)
    places += pairs.first_total
    totals = state.totals.reshape(-1)
    found = totals.take(places)
    found += weight
    totals.put(places, found)

    size = np.abs(error)
    np.minimum(size, _MOST_SIZE, out=size)
    short = state.short.reshape(-1)
    alpha = pairs.short_alpha
    if not state.grown:
        # The first outcomes make a plain mean.
        count = state.ticks.take(pairs.series[:, 0]).astype(np.float64)
        count /= pairs.stride
        count += _FIRST_WEIGHT
        np.divide(_ONE, count, out=count)
        alpha = np.maximum(alpha, count)
    was_size = short.take(at)
    moved = size - was_size
    moved *= alpha
    moved += was_size
    short.put(at, moved)
    sizes, shifts = state.sizes.reshape(-1), state.shifts.reshape(-1)
    at = settings.parents_of.take(cell)
    at += pairs.first_parent
    # The first sizes weigh as some outcomes.
    share = _FIRST_WEIGHT * one[:, 0]
    share += found[:, 1]
    np.divide(weight[:, 0], share, out=share)
    was_size = sizes.take(at)
    size -= was_size
    size *= share
    size += was_size
    sizes.put(at, size)
    shift = np.maximum(error, _LEAST_SHIFT)
    np.minimum(shift, _MOST_SIZE, out=shift)
    shift *= share
    shift += shifts.take(at)
    shifts.put(at, shift)
    return Place(tick, places, was[:, 1], error, weight, none)


_FIRST_WEIGHT = np.array(5.0)


def _compare(group: Group, state: SeriesState, lesson: Lesson) -> None:
    """Note how far the fit alone and the last value were from an outcome, as its log ratio to the last value."""
    outcome = state.ahead.reshape(-1).take(lesson.place)
    outcome += lesson.error
    squares = np.empty((len(outcome), 2))
    np.subtract(outcome, state.fitted.reshape(-1).take(lesson.place), out=squares[:, 0])
    squares[:, 1] = outcome
    squares *= squares
    np.minimum(squares, _MOST_SIZE, out=squares)
    squares -= state.doubt
    squares *= group.doubt_alpha
    if lesson.known is not None:
        squares = np.where(lesson.known[:, np.newaxis], squares, 0.0)
    state.doubt += squares


def count_in(lessons: Lessons) -> list[tuple[int, Int, SmallFloat]]:
    """What is to be added to the flat tables in turn: ticks, places and weights (N, 3); it is put by no more."""
    if not lessons.places:
        return []
    some, lessons.places = lessons.places, []
    together = some[0]
    if len(some) > 1:
        together = Place(
            -1, *(np.concatenate([getattr(each, f.name) for each in some]) for f in fields(Place)[1:])
        )
    place = together.error / together.spread
    np.arcsinh(place, out=place)
    place -= _LAW_LOW
    place /= _LAW_STEP
    flat = tables.flat(together.totals, place, together.none)
    weight = together.weight.astype(np.float32)
    if len(some) == 1:
        return [(together.tick, flat, weight)]
    ends = np.add.accumulate([len(each.weight) for each in some]).tolist()
    return [
        (each.tick, flat[first:end], weight[first:end])
        for each, first, end in zip(some, [0, *ends], ends, strict=False)
    ]


def learn_fit(settings: Settings, state: SeriesState, lessons: Lessons) -> None:
    """Add what was put by to the sums of the regimes, and to the mean distance from the level."""
    if not lessons.fits:
        return
    some, lessons.fits = lessons.fits, []
    count, series = len(some), len(settings.series)
    place, error, was = (
        stacked([each.place for each in some]),
        stacked([each.error for each in some]),
        stacked([each.was for each in some]),
    )
    weights = stacked([each.weight for each in some])
    features = state.features.reshape(-1, level.FEATURES).take(place.reshape(-1), axis=0)
    outcome = state.ahead.reshape(-1).take(place)
    known = None
    if any(each.known is not None for each in some):
        known = np.array([np.ones(series, np.bool_) if each.known is None else each.known for each in some])
        # What a series without a sample had for features is no number, and no weight would make it nothing.
        features = np.where(known.reshape(-1)[:, np.newaxis], features, 0.0)
        was = np.where(known[..., np.newaxis], was, _HARMLESS)
        error = np.where(known, error, 0.0)
        outcome = np.where(known, outcome, 0.0)
    spread = was[..., 1]
    # The log of outcome over the last value then: its level's share is what was forecast, the rest the error.
    limit = _HUBER * spread
    bounded = np.minimum(np.maximum(error, -limit), limit)
    outcome += bounded
    share = stacked([each.evidence for each in some]) + _ONE
    np.divide(weights, share, out=share)
    np.minimum(share, _ONE, out=share)
    off = np.exp(was[..., 0])
    off *= np.expm1(error)
    np.abs(off, out=off)
    weight = stacked([each.size for each in some]) / spread
    weight *= weight
    np.minimum(weight, _MOST_WEIGHT, out=weight)
    weight *= settings.fit_weight
    weight *= weights
    if known is not None:
        weight *= known
    for at in range(count):
        far = off[at]
        far -= state.miss
        far *= share[at]
        if known is not None:
            far *= known[at]
        state.miss += far
    rows = tables.REGIME_OF.take(was[..., 2].astype(np.int64))
    rows += settings.first_regime
    both = level.products(features, outcome.reshape(-1), weight.reshape(-1)).reshape(count, series, -1)
    sums = state.sums.reshape(-1, level.PRODUCTS)
    for at in range(count):
        found = sums.take(rows[at], axis=0)
        found += both[at]
        sums[rows[at]] = found


_MOST_WEIGHT = np.array(4.0)
_HARMLESS: Float = np.array([0.0, 1.0, 0.0])
"""A forecast of which nothing is learned."""
