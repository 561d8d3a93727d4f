"""What an outcome teaches: where it fell in the law that was issued for it, how far from the level, and why."""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast import level, tables
from autoscaler.core.forecast.settings import Group, Pairs, Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.types import LAW_LOW, LAW_STEP, Bool, Float, Int

_MOST_SIZE = 2.0
"""A larger log error counts as this in the mean size."""
_HUBER = 12.0
"""The level is fitted to outcomes as if they were at most so many spreads from what was forecast."""


def judge(
    settings: Settings, group: Group, state: SeriesState, tick: int, demand: Float, usable: Bool | None
) -> None:
    """A block of this group ends with `tick`: close it, and judge the forecasts whose window ends with it.

    Args:
        settings: Of the series.
        group: Whose block ended.
        state: Updated in place.
        tick: Now.
        demand: float64 (S,), now.
        usable: bool (S,), where it may be learned from; None for everywhere.
    """
    number, ring = tick // group.stride, state.blocks.shape[1]
    _close(group, state, number % ring)
    at = group.at + ((number - group.blocks) % ring) * state.open.shape[1]
    was = state.issued.reshape(-1, 3).take(at, axis=0)
    outcome = _outcomes(group, state, number)
    if group.lead:
        outcome[:, 0] = demand if usable is None else np.where(usable, demand, np.nan)
    if group.columns.stop == 4:
        _remember_high(group, state, outcome)
    known = np.isfinite(outcome)
    known &= was[..., 0] == was[..., 0]
    if group.mine is not None:
        known &= group.mine
    count = np.count_nonzero(known)
    if not count:
        return
    outcome = np.where(known, outcome, 0.0)
    none = outcome <= 0.0
    error = outcome
    error += state.offset[:, np.newaxis]
    np.log(error, out=error)
    error -= was[..., 0]
    if count == known.size:
        _count(group.pairs, state, error.reshape(-1), was.reshape(-1, 3), none.reshape(-1))
    else:
        some = np.flatnonzero(known)
        _count(
            group.pairs.some(some),
            state,
            error.reshape(-1).take(some),
            was.reshape(-1, 3).take(some, axis=0),
            none.reshape(-1).take(some),
        )
    if group.lead and known[:, 0].any():
        _fit(settings, group, state, at[:, 0], error[:, 0], was[:, 0], known[:, 0])


def _close(group: Group, state: SeriesState, slot: int) -> None:
    open_ = state.open[:, group.columns]
    closed = state.blocks[:, slot, group.columns]
    if group.mine is None:
        closed[:] = open_
        open_.fill(np.nan)
    else:
        closed[:] = np.where(group.mine, open_, closed)
        open_[group.mine] = np.nan


def _outcomes(group: Group, state: SeriesState, number: int) -> Float:
    """The highest of the latest blocks, (S, C); NaN where one is unknown, infinite where one hides something."""
    ring = state.blocks.shape[1]
    recent = state.blocks[:, (number - np.arange(group.most)) % ring, group.columns]
    found: Float = np.maximum.reduce(np.where(group.within, recent, -np.inf), axis=1)
    return found


def _remember_high(group: Group, state: SeriesState, outcome: Float) -> None:
    if group.mine is None:
        state.high = outcome[:, -1].copy()
    else:
        state.high = np.where(group.mine[:, -1], outcome[:, -1], state.high)


def _count(pairs: Pairs, state: SeriesState, error: Float, was: Float, none: Bool) -> None:
    """Add outcomes of pairs of series and horizon, each at most once, to tables and mean sizes."""
    series, columns, at = pairs.series, pairs.horizon, pairs.at
    cell = was[:, 2].astype(np.int64)
    one = state.weight.take(series)
    weight = one * pairs.weight
    place = error / was[:, 1]
    np.arcsinh(place, out=place)
    place -= LAW_LOW
    place /= LAW_STEP
    rows = tables.ROWS_OF.take(cell, axis=0)
    flat = rows + (series * tables.ROWS)[:, np.newaxis]
    tables.add(
        state.tables.reshape(-1, *state.tables.shape[2:]),
        state.totals.reshape(-1, state.totals.shape[2]),
        flat,
        columns,
        place,
        weight,
        none,
    )

    size = np.minimum(np.abs(error), _MOST_SIZE)
    horizons = state.short.shape[1]
    short = state.short.reshape(-1)
    alpha = pairs.short_alpha
    if not state.grown:
        # The first outcomes make a plain mean.
        count = state.ticks.take(series) / pairs.stride
        count += _FIRST_WEIGHT
        alpha = np.maximum(alpha, 1.0 / count)
    short[at] += alpha * (size - short.take(at))
    total = state.totals.reshape(-1).take(flat[:, 1] * horizons + columns)
    sizes = state.sizes.reshape(-1)
    at = (series * tables.PARENTS + tables.PARENT_OF.take(cell)) * horizons + columns
    # The first sizes weigh as some outcomes.
    share = weight / (total + _FIRST_WEIGHT * one)
    sizes[at] += share * (size - sizes.take(at))
    state.shifts.reshape(-1)[at] += share * np.minimum(np.maximum(error, -_MOST_SIZE), _MOST_SIZE)


_FIRST_WEIGHT = 5.0


def _fit(
    settings: Settings, group: Group, state: SeriesState, at: Int, error: Float, was: Float, known: Bool
) -> None:
    """Add an outcome at the lead time to the sums of its regime."""
    place = at // state.open.shape[1]
    features = state.features.reshape(-1, level.FEATURES).take(place, axis=0)
    outcome = state.ahead.reshape(-1).take(place)
    _compare(group, state, outcome + error, state.fitted.reshape(-1).take(place), known)
    everywhere = np.count_nonzero(known) == len(known)
    if not everywhere:
        # What a series without a sample had for features is no number, and no weight would make it nothing.
        features = np.where(known[:, np.newaxis], features, 0.0)
        was = np.where(known[:, np.newaxis], was, _HARMLESS)
        error = np.where(known, error, 0.0)
        outcome = np.where(known, outcome, 0.0)
    spread = was[:, 1]
    # The log of outcome over the last value then: its level's share is what was forecast, the rest the error.
    limit = _HUBER * spread
    outcome += np.minimum(np.maximum(error, -limit), limit)
    share = np.minimum(state.weight / (state.totals[:, -1, 0] + 1.0), 1.0)
    far = np.abs(np.exp(was[:, 0]) * np.expm1(error))
    far -= state.miss
    far *= share
    weight = state.sizes[:, 0, 0] / spread
    weight *= weight
    np.minimum(weight, 4.0, out=weight)
    weight *= settings.fit_weight
    weight *= state.weight
    if not everywhere:
        far *= known
        weight *= known
    state.miss += far
    rows = tables.REGIME_OF.take(was[:, 2].astype(np.int64))
    rows += settings.series * tables.REGIMES
    state.sums.reshape(-1, level.PRODUCTS)[rows] += level.products(features, outcome, weight)


def _compare(group: Group, state: SeriesState, outcome: Float, fitted: Float, known: Bool) -> None:
    """Note how far the fit alone and the last value were from an outcome, as its log ratio to the last value."""
    squares = np.empty((len(outcome), 2))
    np.subtract(outcome, fitted, out=squares[:, 0])
    squares[:, 1] = outcome
    squares *= squares
    np.minimum(squares, _MOST_SIZE, out=squares)
    squares -= state.doubt
    squares *= group.doubt_alpha
    if np.count_nonzero(known) < len(known):
        squares = np.where(known[:, np.newaxis], squares, 0.0)
    state.doubt += squares


_HARMLESS: Float = np.array([0.0, 1.0, 0.0])
"""A forecast of which nothing is learned."""
