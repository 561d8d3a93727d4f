"""What is to be expected: levels, spreads and cells, issued for now and kept to be judged; `saying` puts them into words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoscaler.core.forecast import bursts, lattice, level, tables
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import LAST, MEANS, SEASONS, TOP, USUAL, SeriesState
from autoscaler.core.types import Bool, Float, Horizon, Int

LEAST_SPREAD, MOST_SPREAD = 0.002, 1.0
GROWTH_BOUND = 8.0
"""Nothing is expected beyond this many times the highest demand of late (and as many scales)."""
_LOG_BOUND = float(np.log(GROWTH_BOUND))
_LEVELS: Float = np.array([-0.7, 0.0, 0.5])
_GROWTHS: Float = np.array([-0.14, 0.14])


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
