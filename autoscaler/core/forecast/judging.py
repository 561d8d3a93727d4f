"""Learns from outcomes: where each fell in its predictive distribution, how far from the level, and why.

The next forecast needs mean sizes, shifts, and the trust in the fit, so these are learned at once. The tables are needed when
distributions are read, and the sums of the fit when it is fitted: updates to them are queued in `Updates`, and applied for many
ticks together. Updates for the fit may wait from one step to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from autoscaler.core.forecast import level, tables
from autoscaler.core.forecast.settings import Group, Pairs, Settings
from autoscaler.core.forecast.state import SeriesState, slots_first
from autoscaler.core.forecast.tracks import ClosedBlocks, stacked
from autoscaler.core.types import LAW_LOW, LAW_STEP, Bool, Float, Int, SmallFloat

_NOTHING, _ONE = np.array(0.0), np.array(1.0)
MOST_SIZE, LEAST_SHIFT = np.array(2.0), np.array(-2.0)
"""Bounds of a log error in the mean sizes and shifts."""
MOST_SQUARE = np.array(2.0)
"""Bound of a squared log error in `SeriesState.doubt`, not of the error itself, which therefore counts as at most 1.41, a factor of 4."""
HUBER = np.array(12.0)
"""The level is fitted to outcomes as if they were at most this many spreads from the forecast (bounded influence, Huber
1964)."""
_LAW_LOW, _LAW_STEP = np.array(LAW_LOW), np.array(LAW_STEP)


@dataclass(slots=True)
class Place:
    """Outcomes to count in the tables: N pairs of series and horizon. Those of one tick are different pairs.

    Attributes:
        totals: int64 (N, 3), places of their rows in the flat sums of the tables.
        spread, error: float64 (N,), spread of the forecast, and log of outcome over level.
        weight: float64 (N, 3), weight of each outcome, three times.
        none: bool (N,), whether there was no demand.
    """

    totals: Int
    spread: Float
    error: Float
    weight: Float
    none: Bool


@dataclass(slots=True)
class FitOutcome:
    """Outcomes at the lead time of one tick, for the fit of the level.

    Attributes:
        place: int64 (S,), place of the forecast's features in a flat (RING, S).
        error: float64 (S,), log of outcome over level.
        forecast: float64 (S, 3), the forecast: logarithm of the level, spread, cell.
        known: bool (S,), whether there is an outcome; None if there is everywhere.
        size: float64 (S,), mean size of the log error without a burst.
        evidence: float64 (S,), weight of all outcomes so far.
        weight: float64 (S,), weight of this outcome.
    """

    place: Int
    error: Float
    forecast: Float
    known: Bool | None
    size: Float
    evidence: Float
    weight: Float


@dataclass(slots=True)
class Updates:
    """Outcomes that were put off. They must be applied before the ring overwrites the forecasts they judge.

    Attributes:
        places: For the tables: tick of the stretch, and its outcomes.
        fits: For the fit of the level.
        begun: The tick of the first entry of `fits`.
    """

    places: list[tuple[int, Place]] = field(default_factory=list)
    fits: list[FitOutcome] = field(default_factory=list)
    begun: int = -1

    def settle(self, settings: Settings, state: SeriesState) -> None:
        """Apply the outcomes for the fit."""
        learn_fit(settings, state, self)


@dataclass(slots=True)
class Outcomes:
    """The blocks of a group that end within a stretch, to be judged in turn.

    Attributes:
        closed: The blocks and their outcomes.
        logs: float64 (N, S, C), logarithms of outcome plus offset.
    """

    closed: ClosedBlocks
    logs: Float


def logs(state: SeriesState, closed: ClosedBlocks) -> Float:
    """Return the logarithms of outcomes plus offset, float64 (N, S, C)."""
    found = np.where(closed.known, closed.outcome, 0.0)
    found += state.offset[:, np.newaxis]
    np.log(found, out=found)
    return found


def judge(
    settings: Settings, group: Group, state: SeriesState, lessons: Updates, outcomes: Outcomes, tick: int
) -> None:
    """Judge the forecasts of a group whose windows end at a tick.

    Totals, mean sizes and the trust in the fit are updated at once; everything else is put off.

    Args:
        settings: The settings of the series.
        group: The group whose block ended.
        state: Updated in place.
        lessons: Gets the outcomes that are put off.
        outcomes: The blocks of the group that end in this stretch.
        tick: The tick, counted from the first of the stretch.
    """
    closed = outcomes.closed
    at = (tick - closed.first) // group.stride
    places = closed.issued[at]
    forecast = slots_first(state.issued).reshape(-1, 3).take(places, axis=0)
    known = forecast[..., 0] == forecast[..., 0]
    known &= closed.known[at]
    count = np.count_nonzero(known)
    if not count:
        return
    error = outcomes.logs[at] - forecast[..., 0]
    none = closed.outcome[at] <= _NOTHING
    if count == known.size:
        pairs, errors, issued, nothing = (
            group.pairs,
            error.reshape(-1),
            forecast.reshape(-1, 3),
            none.reshape(-1),
        )
    else:
        some = np.flatnonzero(known)
        pairs, errors, issued, nothing = (
            group.pairs.some(some),
            error.reshape(-1).take(some),
            forecast.reshape(-1, 3).take(some, axis=0),
            none.reshape(-1).take(some),
        )
    lessons.places.append((tick, _count(settings, pairs, state, errors, issued, nothing)))
    at_lead = 0
    if group.lead:
        at_lead = len(known) if count == known.size else int(np.count_nonzero(known[:, 0]))
    if at_lead:
        fit_outcome = FitOutcome(
            place=places[:, 0] // state.open.shape[1],
            error=error[:, 0],
            forecast=forecast[:, 0],
            known=None if at_lead == len(known) else known[:, 0],
            size=state.sizes[:, 0, 0].copy(),
            evidence=state.totals[:, -1, 0].copy(),
            weight=state.weight,
        )
        _compare(group, state, fit_outcome)
        if not lessons.fits:
            lessons.begun = state.last_tick
        lessons.fits.append(fit_outcome)


def _count(
    settings: Settings, pairs: Pairs, state: SeriesState, error: Float, forecast: Float, none: Bool
) -> Place:
    """Add outcomes of different pairs of series and horizon to totals, mean sizes and mean shifts.

    Returns:
        The outcomes, to be counted in the tables.
    """
    at, cell = pairs.at, forecast[:, 2].astype(np.int64)
    outcome_weight = state.weight.take(pairs.series)
    weight = outcome_weight * pairs.weight
    places = settings.totals_of.take(cell, axis=0)
    places += pairs.first_total
    totals = slots_first(state.totals).reshape(-1)
    found = totals.take(places)
    found += weight
    totals.put(places, found)

    size = np.abs(error)
    np.minimum(size, MOST_SIZE, out=size)
    short = state.short.reshape(-1)
    alpha = pairs.short_alpha
    if not state.grown:
        # The first outcomes are averaged with equal weights.
        count = state.ticks.take(pairs.series[:, 0]).astype(np.float64)
        count /= pairs.stride
        count += FIRST_WEIGHT
        np.divide(_ONE, count, out=count)
        alpha = np.maximum(alpha, count)
    was_size = short.take(at)
    moved = size - was_size
    moved *= alpha
    moved += was_size
    short.put(at, moved)
    sizes, shifts = slots_first(state.sizes).reshape(-1), slots_first(state.shifts).reshape(-1)
    at = settings.parents_of.take(cell)
    at += pairs.first_parent
    # The initial sizes weigh as much as `FIRST_WEIGHT` outcomes.
    share = FIRST_WEIGHT * outcome_weight[:, 0]
    share += found[:, 1]
    np.divide(weight[:, 0], share, out=share)
    was_size = sizes.take(at)
    size -= was_size
    size *= share
    size += was_size
    sizes.put(at, size)
    shift = np.maximum(error, LEAST_SHIFT)
    np.minimum(shift, MOST_SIZE, out=shift)
    shift *= share
    shift += shifts.take(at)
    shifts.put(at, shift)
    return Place(places, forecast[:, 1], error, weight, none)


FIRST_WEIGHT = np.array(5.0)
"""Weight of the initial sizes, in outcomes."""


def _compare(group: Group, state: SeriesState, fit_outcome: FitOutcome) -> None:
    """Update the mean squared errors of the fit alone and of the last value, in log ratios to the last value."""
    outcome = slots_first(state.ahead).reshape(-1).take(fit_outcome.place)
    outcome += fit_outcome.error
    squares = np.empty((len(outcome), 2))
    np.subtract(outcome, slots_first(state.fitted).reshape(-1).take(fit_outcome.place), out=squares[:, 0])
    squares[:, 1] = outcome
    squares *= squares
    np.minimum(squares, MOST_SQUARE, out=squares)
    squares -= state.doubt
    squares *= group.doubt_alpha
    if fit_outcome.known is not None:
        squares = np.where(fit_outcome.known[:, np.newaxis], squares, 0.0)
    state.doubt += squares


def count_in(lessons: Updates) -> list[tuple[int, Int, SmallFloat]]:
    """Return what to add to the flat tables, tick by tick: tick, places and weights, (N, 3) each. Nothing stays put off."""
    if not lessons.places:
        return []
    some, lessons.places = lessons.places, []
    if len(some) == 1:
        tick, place = some[0]
        return [(tick, *counted(place))]
    parts = [place for _, place in some]
    together = Place(*(np.concatenate([getattr(each, f.name) for each in parts]) for f in fields(Place)))
    ends = np.add.accumulate([len(each.weight) for each in parts]).tolist()
    return updates_by_tick([tick for tick, _ in some], ends, together)


def updates_by_tick(
    ticks: Sequence[int], ends: Sequence[int], place: Place
) -> list[tuple[int, Int, SmallFloat]]:
    """Split outcomes by tick, and return what to add to the flat tables at each.

    Args:
        ticks: The ticks.
        ends: The end of each tick's outcomes.
        place: The outcomes of all ticks.
    """
    flat, weight = counted(place)
    return [
        (tick, flat[first:end], weight[first:end])
        for tick, first, end in zip(ticks, [0, *ends], ends, strict=False)
    ]


def counted(place: Place) -> tuple[Int, SmallFloat]:
    """Return the places in the flat tables at which outcomes are counted, and their weights: (N, 3) each."""
    at = place.error / place.spread
    np.arcsinh(at, out=at)
    at -= _LAW_LOW
    at /= _LAW_STEP
    return tables.flat(place.totals, at, place.none), place.weight.astype(np.float32)


def learn_fit(settings: Settings, state: SeriesState, lessons: Updates) -> None:
    """Apply outcomes that were put off to the sums of the fit and to the mean distance from the level."""
    if not lessons.fits:
        return
    some, lessons.fits = lessons.fits, []
    known = None
    if any(each.known is not None for each in some):
        everywhere = np.ones(len(settings.series), np.bool_)
        known = np.array([everywhere if each.known is None else each.known for each in some])
    together = FitOutcome(
        place=stacked([each.place for each in some]),
        error=stacked([each.error for each in some]),
        forecast=stacked([each.forecast for each in some]),
        known=known,
        size=stacked([each.size for each in some]),
        evidence=stacked([each.evidence for each in some]),
        weight=stacked([each.weight for each in some]),
    )
    learn(settings, state, together)


def learn(settings: Settings, state: SeriesState, fit_outcomes: FitOutcome) -> None:
    """Apply outcomes to the sums of the fit and to the mean distance from the level.

    Outcomes are bounded by `HUBER`. They are weighted by the inverse square of the spread at that time, relative to the mean
    size of the error without a burst, at most `MOST_WEIGHT`.

    Args:
        settings: The settings of the series.
        state: Updated in place.
        fit_outcomes: Outcomes of T ticks in order, with arrays (T, ...).
    """
    known, error, forecast = fit_outcomes.known, fit_outcomes.error, fit_outcomes.forecast
    features = (
        slots_first(state.features).reshape(-1, level.FEATURES).take(fit_outcomes.place.reshape(-1), axis=0)
    )
    outcome = slots_first(state.ahead).reshape(-1).take(fit_outcomes.place)
    if known is not None:
        # The features of a series without a sample are NaN, which no weight would remove.
        features = np.where(known.reshape(-1)[:, np.newaxis], features, 0.0)
        forecast = np.where(known[..., np.newaxis], forecast, _HARMLESS)
        error = np.where(known, error, 0.0)
        outcome = np.where(known, outcome, 0.0)
    spread = forecast[..., 1]
    # The log of outcome over last value: that of level over last value, plus the error.
    limit = HUBER * spread
    bounded = np.minimum(np.maximum(error, -limit), limit)
    outcome += bounded
    share = fit_outcomes.evidence + _ONE
    np.divide(fit_outcomes.weight, share, out=share)
    np.minimum(share, _ONE, out=share)
    weight = fit_outcomes.size / spread
    weight *= weight
    np.minimum(weight, MOST_WEIGHT, out=weight)
    weight *= settings.fit_weight
    weight *= fit_outcomes.weight
    if known is not None:
        share *= known
        weight *= known
    cells = forecast[..., 2].astype(np.int64)
    updates = FitUpdates(
        forecast[..., 0], error, share, cells, features, outcome.reshape(-1), weight.reshape(-1)
    )
    apply_fit_updates(settings, state, updates)


class FitUpdates(NamedTuple):
    """What the outcomes of T ticks add.

    Attributes:
        log_level, error, share: float64 (T, S), logarithm of the level, log of outcome over level, and the outcome's share in
            the mean distance.
        cell: int64 (T, S), cell of the forecast.
        features: float64 (T * S, FEATURES), features of the level.
        outcome, weight: float64 (T * S,), log ratio of the outcome to the last value, and its weight in the fit.
    """

    log_level: Float
    error: Float
    share: Float
    cell: Int
    features: Float
    outcome: Float
    weight: Float


def apply_fit_updates(settings: Settings, state: SeriesState, updates: FitUpdates) -> None:
    """Add outcomes to the sums of their regimes and to the mean distance from the level."""
    distance = np.exp(updates.log_level)
    distance *= np.expm1(updates.error)
    np.abs(distance, out=distance)
    _miss(state, distance, updates.share)
    row = settings.regime_of.take(updates.cell)
    row += settings.series
    products = level.products(updates.features, updates.outcome, updates.weight)
    _sum_up(state, row, products.reshape(*row.shape, -1))


def _miss(state: SeriesState, off: Float, share: Float) -> None:
    """Move the mean distance from the level towards the distances of some ticks, by a share each: float64 (T, S) both."""
    if len(state.miss) == 1:
        miss = state.miss.item()
        for distance, part in zip(off[:, 0].tolist(), share[:, 0].tolist(), strict=True):
            miss += (distance - miss) * part
        state.miss[0] = miss
        return
    for distances, shares in zip(off, share, strict=True):
        far = distances - state.miss
        far *= shares
        state.miss += far


def _sum_up(state: SeriesState, rows: Int, products: Float) -> None:
    """Add the products of some ticks, float64 (T, S, PRODUCTS), to the sums at the given flat rows, int64 (T, S), in order."""
    sums = slots_first(state.sums).reshape(-1, level.PRODUCTS)
    if rows.shape[1] == 1:
        regimes = set(rows[:, 0].tolist())
        for row in regimes:
            mine = products[:, 0] if len(regimes) == 1 else products[rows == row]
            mine[0] += sums[row]
            sums[row] = np.add.accumulate(mine, axis=0)[-1]
        return
    for row, both in zip(rows, products, strict=True):
        found = sums.take(row, axis=0)
        found += both
        sums[row] = found


MOST_WEIGHT = np.array(4.0)
"""Most that an outcome weighs in the fit because of a small spread."""
_HARMLESS: Float = np.array([0.0, 1.0, 0.0])
"""A forecast that replaces unknown ones, and from which nothing is learned."""
