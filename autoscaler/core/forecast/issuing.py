"""What is to be expected: levels, cells, laws and their quantiles, issued for now and kept to be judged."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np

from autoscaler.core.forecast import bursts, events, lattice, level, tables
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import LAST, MEANS, SEASONS, TOP, USUAL, SeriesState
from autoscaler.core.laws import EDGES, MOST_LOG
from autoscaler.core.types import (
    LAW_BINS,
    LAW_LOW,
    LAW_STEP,
    QUANTILE_LEVELS,
    Bool,
    BurstOdds,
    Float,
    Horizon,
    Int,
    Laws,
    Outlook,
    SmallFloat,
)

LEAST_SPREAD, MOST_SPREAD = 0.002, 1.0
GROWTH_BOUND = 8.0
"""Nothing is expected beyond this many times the highest demand of late (and as many scales)."""
_LOG_BOUND = float(np.log(GROWTH_BOUND))
_LEVELS: Float = np.array([-0.7, 0.0, 0.5])
_GROWTHS: Float = np.array([-0.14, 0.14])
_BEYOND: SmallFloat = (1.0 - np.array(QUANTILE_LEVELS)).astype(np.float32)
_EDGES = EDGES.astype(np.float32)
AT_ONCE, _FEW = 512, 256
"""Series whose laws are worked out together, since more do not fit the cache of one core; laws that are few."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected before it is put into words.

    Attributes:
        log_level: float64 (S, H), logarithm of level and offset.
        spread: float64 (S, H).
        room: float64 (S, H), how far above the level anything is expected, in logarithms.
        rows: int64 (S, 3), rows of the tables that speak.
    """

    log_level: Float
    spread: Float
    room: Float
    rows: Int


def expect(settings: Settings, state: SeriesState, hidden: Bool, now_s: float) -> Expected:
    """What is to be expected now, and its trace in the state for when its outcomes come.

    Args:
        settings: Of the series.
        state: Of which the forecasts that wait for their outcome are updated.
        hidden: bool (S,), where demand is at least the last value: no fall from there is expected.
        now_s: Time of the forecast.
    """
    logs = np.log(state.track + state.offset[:, np.newaxis])
    features = _features(state, logs)
    regime = bursts.regime(settings, state)
    fit = state.fits.reshape(-1, level.FEATURES).take(level.rows_of(settings.series, regime), axis=0)
    ahead, fitted = level.combined(fit, features, state.doubt)
    if np.count_nonzero(hidden):
        np.copyto(ahead, np.maximum(ahead, 0.0), where=hidden)
    top = logs[:, TOP] + _LOG_BOUND
    log_level = np.empty((len(logs), settings.horizons))
    log_level[:] = (logs[:, LAST] + ahead)[:, np.newaxis]
    if settings.horizons > Horizon.REFILL:
        high = np.fmax(state.high, state.open[:, Horizon.REFILL])
        lately = np.log(np.where(high < np.inf, high, 0.0) + state.offset)
        np.fmax(log_level[:, -1], lately, out=log_level[:, -1])
    cell = _cell(regime, logs, log_level[:, 0], features)
    hazard = lattice.hazard(settings, state, now_s)
    if hazard is not None:
        cell += np.where(regime > 0, 0, hazard * tables.LEVELS)
    parent = tables.PARENT_OF.take(cell)
    parent += settings.series * tables.PARENTS
    log_level[:, 1:] += state.shifts.reshape(-1, settings.horizons).take(parent, axis=0)[:, 1:]
    spread = _spread(settings, state, parent)
    np.minimum(log_level, top[:, np.newaxis], out=log_level)
    rows = tables.ROWS_OF.take(cell, axis=0)
    rows += (settings.series * tables.ROWS)[:, np.newaxis]
    _remember(settings, state, log_level, spread, cell, features, log_level[:, 0] - logs[:, LAST], fitted)
    return Expected(log_level, spread, top[:, np.newaxis] - log_level, rows)


def say(settings: Settings, state: SeriesState, expected: Expected, now_s: float) -> Outlook:
    """The Outlook of what is expected at this time."""
    likely = lattice.by_then(settings, state, now_s)
    count = len(settings.series)
    # Events are looked up by series, so all of them are worked out together.
    once = count if len(settings.params.event_odds) else AT_ONCE
    parts = [
        _said(settings, state, expected, slice(first, first + once), now_s) for first in range(0, count, once)
    ]
    return _outlook(state, parts, likely)


Part: TypeAlias = "tuple[Float, Laws | None]"
"""Quantiles (S, 2, Q) and laws of some of the series."""


def _said(
    settings: Settings,
    state: SeriesState,
    expected: Expected,
    some: slice[int, int, None],
    now_s: float,
) -> Part:
    """What is said of some of the series: so many that what it takes stays near the processor."""
    beyond = tables.survival(
        state.tables.reshape(-1, settings.horizons, LAW_BINS),
        state.totals.reshape(-1, settings.horizons),
        expected.rows[some],
        state.weight[some],
    )
    if len(settings.params.event_odds):
        by_series = np.moveaxis(beyond, 0, -1)
        events.mix(settings, state, now_s, by_series, expected.log_level, expected.spread)
    spread, log_level, room = expected.spread[some], expected.log_level[some], expected.room[some]
    quantiles = _quantiles(beyond, log_level[:, :2], spread[:, :2], room[:, :2])
    quantiles -= state.offset[some, np.newaxis, np.newaxis]
    np.maximum(quantiles, 0.0, out=quantiles)
    laws = None
    if settings.horizons > Horizon.KEEP + 1:
        laws = _laws(state.offset[some], beyond, log_level, spread, room)
    return quantiles, laws


def _outlook(state: SeriesState, parts: list[Part], likely: BurstOdds) -> Outlook:
    quantiles, laws = parts[0]
    if len(parts) > 1:
        quantiles = np.concatenate([part for part, _ in parts])
        if laws is not None:
            laws = Laws(*(np.concatenate([getattr(part, f.name) for _, part in parts]) for f in fields(Laws)))
    at_lead = quantiles[:, 0].T.copy()
    return Outlook(
        at_lead=at_lead,
        peak=np.maximum(quantiles[:, 1].T, at_lead),
        evidence=state.evidence,
        laws=laws,
        bursts=likely,
    )


def _features(state: SeriesState, logs: Float) -> Float:
    """(S, FEATURES), log ratios to the last value."""
    last = logs[:, LAST, np.newaxis]
    found = np.empty((len(logs), level.FEATURES))
    np.subtract(logs[:, MEANS.start : SEASONS.stop], last, out=found[:, :-1])
    if state.unseasoned:
        seasons = found[:, SEASONS.start - MEANS.start : -1]
        np.copyto(seasons, 0.0, where=np.isnan(seasons))
    found[:, -1] = 1.0
    np.minimum(found, level.MOST_LOG, out=found)
    np.maximum(found, -level.MOST_LOG, out=found)
    return found


def _cell(regime: Int, logs: Float, log_level: Float, features: Float) -> Int:
    height = _LEVELS.searchsorted(log_level - logs[:, USUAL])
    growth = _GROWTHS.searchsorted(-features[:, 1])
    within = regime * tables.GROWTHS + (tables.LEVELS * tables.HAZARDS - tables.GROWTHS)
    within += growth
    return np.where(regime > 0, within, height)


def _spread(settings: Settings, state: SeriesState, parent: Int) -> Float:
    spread = state.sizes.reshape(-1, settings.horizons).take(parent, axis=0)
    spread *= state.short
    np.sqrt(spread, out=spread)
    np.maximum(spread, LEAST_SPREAD, out=spread)
    np.minimum(spread, MOST_SPREAD, out=spread)
    return spread


def _remember(
    settings: Settings,
    state: SeriesState,
    log_level: Float,
    spread: Float,
    cell: Int,
    features: Float,
    ahead: Float,
    fitted: Float,
) -> None:
    """Keep what was issued until its outcome comes, for the groups whose block ends now."""
    tick, ring = state.last_tick, state.issued.shape[1]
    for group in settings.groups:
        if (tick + 1) % group.stride:
            continue
        slot, columns = (tick // group.stride) % ring, group.columns
        kept = state.issued[:, slot, columns]
        if group.mine is None:
            kept[..., 0] = log_level[:, columns]
            kept[..., 1] = spread[:, columns]
            kept[..., 2] = cell[:, np.newaxis]
        else:
            kept[..., 0] = np.where(group.mine, log_level[:, columns], kept[..., 0])
            kept[..., 1] = np.where(group.mine, spread[:, columns], kept[..., 1])
            kept[..., 2] = np.where(group.mine, cell[:, np.newaxis], kept[..., 2])
        if group.lead:
            if group.mine is None:
                state.features[:, slot] = features
                state.ahead[:, slot] = ahead
                state.fitted[:, slot] = fitted
            else:
                mine = group.mine[:, 0]
                state.features[mine, slot] = features[mine]
                state.ahead[mine, slot] = ahead[mine]
                state.fitted[mine, slot] = fitted[mine]


def _quantiles(beyond: SmallFloat, log_level: Float, spread: Float, room: Float) -> Float:
    """Demand plus scale, (S, 2, Q), at the lead time and over the keep window: linear in place within a bin."""
    count = 2 * beyond.shape[1]
    first = np.zeros((LAW_BINS + 1, count), np.float32)
    first[:-1] = beyond[:, :, :2].reshape(LAW_BINS, count)
    index = np.empty((count, len(_BEYOND)), np.int64)
    if count <= _FEW:
        above = (first[:, np.newaxis] > _BEYOND[:, np.newaxis]).view(np.uint8)
        index[:] = np.add.reduce(above, axis=0, dtype=np.uint8).T
    else:
        for at, level in enumerate(_BEYOND):
            index[:, at] = np.add.reduce((first > level).view(np.uint8), axis=0, dtype=np.uint8)
    # No edge is exceeded by that much: none of that demand is there.
    none = index == 0
    index -= ~none
    flat = index * count
    flat += np.arange(count)[:, np.newaxis]
    values = first.reshape(-1)
    upper = values.take(flat)
    flat += count
    place = ((upper - _BEYOND) / np.maximum(upper - values.take(flat), 1e-30)).astype(np.float64)
    np.maximum(place, 0.0, out=place)
    place += index
    place *= LAW_STEP
    place += LAW_LOW
    np.sinh(place, out=place)
    found: Float = place.reshape(-1, 2, len(_BEYOND))
    found *= spread[:, :, np.newaxis]
    np.minimum(found, room[:, :, np.newaxis], out=found)
    found += log_level[:, :, np.newaxis]
    np.exp(found, out=found)
    found *= ~none.reshape(found.shape)
    return found


def _laws(scale: Float, beyond: SmallFloat, log_level: Float, spread: Float, room: Float) -> Laws:
    series, horizons = spread.shape
    # Edges along the first axis, series and horizons along the other.
    width = _EDGES[:, np.newaxis] * spread.astype(np.float32).reshape(-1)
    np.minimum(width, np.minimum(room, MOST_LOG).astype(np.float32).reshape(-1), out=width)
    np.exp(width, out=width)
    level_and_scale = np.exp(log_level)
    width *= level_and_scale.astype(np.float32).reshape(-1)
    width.reshape(-1, series, horizons)[...] -= scale.astype(np.float32)[:, np.newaxis]
    np.maximum(width, 0.0, out=width)
    # Between two edges the probability of more falls evenly.
    area = width[1:] - width[:-1]
    area *= 0.5
    flat = beyond.reshape(LAW_BINS, -1)
    mean = flat.copy()
    mean[:-1] += flat[1:]
    area *= mean
    tables.sum_up(area)
    excess = np.zeros((series, horizons, LAW_BINS + 1), np.float32)
    excess.reshape(-1, LAW_BINS + 1)[:, :-1] = area.T
    level_and_scale -= scale[:, np.newaxis]
    return Laws(level=level_and_scale, spread=spread.copy(), scale=scale.copy(), excess=excess)
