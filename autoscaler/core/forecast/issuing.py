"""Issues forecasts: levels, spreads and cells for this tick, kept until their outcomes arrive. `readout` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from autoscaler.core.forecast import level, tables
from autoscaler.core.forecast.lattice import Marks, hazard
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import LAST, MEANS, SEASONS, TOP, USUAL, SeriesState, slots_first
from autoscaler.core.forecast.tracks import Tracks
from autoscaler.core.types import Bool, Float, Int

LEAST_SPREAD: Float = np.array(0.002)
MOST_SPREAD: Float = np.array(1.0)
"""Bounds of a spread, `LEAST_SPREAD` and `MOST_SPREAD`."""
GROWTH_BOUND = 8.0
"""No demand is expected beyond this many times the maximum of recent demand (both plus offset)."""
_LOG_BOUND: Float = np.array(np.log(GROWTH_BOUND))
_NOTHING, _ONE = np.array(0.0), np.array(1)
_ALL = slice(0, None)
LEVELS: Float = np.array([-0.7, 0.0, 0.5])
"""Bounds of the classes of the level: its log ratio to the usual demand."""
_GROWTHS: Float = np.array([-0.14, 0.14])
"""Bounds of the classes of growth in a burst: log ratio of the last value to its mean over three minutes."""


@dataclass(slots=True)
class Predictors:
    """Inputs of the forecasts of T ticks that stay valid as long as neither the fit nor the offset changes.

    Attributes:
        last, usual, top: float64 (T, S), logarithms of the last value, of the usual demand and of the highest demand that is
            expected, each plus offset.
        lately: float64 (T, S), logarithm of the highest demand in the farthest horizon's last window; (0, S) if that horizon
            is not kept.
        features: float64 (T, S, FEATURES), log ratios to the last value.
        means, seasons, fitted: float64 (T, S), the log ratio of the level to the last value by the fit, in parts
            (`level.parts`).
        within: int64 (T, S), the cell in a burst; -1 without one.
        bursting: For each tick, whether any series has a burst.
    """

    last: Float
    usual: Float
    top: Float
    lately: Float
    features: Float
    means: Float
    seasons: Float
    fitted: Float
    within: Int
    bursting: Sequence[bool]

    @classmethod
    def of(
        cls,
        settings: Settings,
        state: SeriesState,
        tracks: Tracks,
        ticks: slice[int, int | None, None] = _ALL,
        some: Int | None = None,
    ) -> Predictors:
        """Compute the inputs for all or some of the ticks, and for all or some of the series, int64 (N,)."""
        track, regime = tracks.track[ticks], tracks.regime[ticks]
        offset = state.offset
        if some is not None:
            track, regime = track[:, some], regime[:, some]
            offset = offset[some]
        logs = np.empty(track.shape)
        logs[:] = offset[:, np.newaxis]
        logs += track
        np.log(logs, out=logs)
        features = _features(logs)
        means, seasons, fitted = _parts(settings, state, regime, features, some)
        lately = np.empty((0, len(offset)))
        if tracks.lately is not None:
            high = tracks.lately[ticks] if some is None else tracks.lately[ticks, some]
            lately = np.log(np.where(high < np.inf, high, 0.0) + offset)
        if np.count_nonzero(regime):
            bursts = regime > 0
            burst_cell = regime * tables.GROWTHS + (tables.LEVELS * tables.HAZARDS - tables.GROWTHS)
            burst_cell += _GROWTHS.searchsorted(-features[..., 1])
            burst_cell = np.where(bursts, burst_cell, -1)
            bursting = np.logical_or.reduce(bursts, axis=1).tolist()
        else:
            burst_cell = regime - _ONE
            bursting = [False] * len(regime)
        return cls(
            last=logs[..., LAST],
            usual=logs[..., USUAL],
            top=logs[..., TOP] + _LOG_BOUND,
            lately=lately,
            features=features,
            means=means,
            seasons=seasons,
            fitted=fitted,
            within=burst_cell,
            bursting=bursting,
        )

    def fit(
        self, settings: Settings, state: SeriesState, tracks: Tracks, ticks: slice[int, int | None, None]
    ) -> None:
        """Recompute the parts of the fit for some ticks and all series."""
        found = _parts(settings, state, tracks.regime[ticks], self.features[ticks], None)
        self.means[ticks], self.seasons[ticks], self.fitted[ticks] = found

    def change(self, first: int, some: Int, new: Predictors) -> None:
        """Replace the inputs of some series from tick `first` on; whether there are bursts stays the same."""
        for f in fields(Predictors):
            mine = getattr(self, f.name)
            if f.name != "bursting" and len(mine):
                mine[first:, some] = getattr(new, f.name)


def _parts(
    settings: Settings, state: SeriesState, regime: Int, features: Float, some: Int | None
) -> tuple[Float, Float, Float]:
    """Return `level.parts` for regimes, int64 (T, N), and features, float64 (T, N, FEATURES), of all or some series."""
    fits = slots_first(state.fits)
    if not np.count_nonzero(regime):
        return level.parts(fits[0] if some is None else fits[0].take(some, axis=0), features)
    rows = regime * len(settings.series)
    rows += settings.series if some is None else some
    return level.parts(fits.reshape(-1, level.FEATURES).take(rows, axis=0), features)


def _features(logs: Float) -> Float:
    """Return log ratios to the last value, float64 (T, S, FEATURES), bounded; 0 for unknown seasons."""
    found = np.empty((*logs.shape[:-1], level.FEATURES))
    found[:] = logs[..., LAST, np.newaxis]
    ratios = found[..., :-1]
    np.subtract(logs[..., MEANS.start : SEASONS.stop], ratios, out=ratios)
    seasons = found[..., SEASONS.start - MEANS.start : -1]
    unknown = np.isnan(seasons)
    if np.count_nonzero(unknown):
        np.copyto(seasons, _NOTHING, where=unknown)
    found[..., -1] = 1.0
    np.minimum(found, level.MOST_LOG, out=found)
    np.maximum(found, level.LEAST_LOG, out=found)
    return found


def expect(
    settings: Settings,
    state: SeriesState,
    predictors: Predictors,
    marks: Marks | None,
    tick: int,
    hidden: Bool | None,
) -> Float:
    """Compute the forecast at a tick, and keep it in the state until its outcome arrives.

    The level at the lead time is the last value times the believed ratio (`level.believed`). The level of a peak is part of
    the way there if the middle of its window is before the lead time; the mean shift of peaks in the parent cell is added.
    The spread is the geometric mean of two mean sizes of the log error: that of the parent cell, and the recent one.

    Args:
        settings: The settings of the series.
        state: Its forecasts that wait for their outcome are updated.
        predictors: Inputs of the stretch's ticks.
        marks: Lattice points of the ticks; None if no series has a lattice.
        tick: The tick, counted from the first of the stretch; it must be the state's last tick.
        hidden: bool (S,), whether demand is censored, so that no fall from the last value is expected; None if it is nowhere.

    Returns:
        float64 (S, H, 3): logarithm of level plus offset, spread, cell.
    """
    ahead = level.believed(predictors.means[tick], predictors.seasons[tick], state.doubt)
    if hidden is not None:
        np.copyto(ahead, np.maximum(ahead, _NOTHING), where=hidden)
    last = predictors.last[tick]
    issued = np.empty((len(ahead), settings.horizons, 3))
    log_level = issued[..., 0]
    # Windows whose middle is before the lead time have gone part of the way.
    np.multiply(settings.on_the_way, ahead[:, np.newaxis], out=log_level)
    log_level += last[:, np.newaxis]
    ahead += last
    if len(predictors.lately):
        np.fmax(log_level[:, -1], predictors.lately[tick], out=log_level[:, -1])
    cell = _cell(settings, state, predictors, marks, tick, ahead)
    issued[..., 2] = cell[:, np.newaxis]
    parent = settings.parent_of.take(cell)
    parent += settings.series
    shifts = slots_first(state.shifts).reshape(-1, settings.horizons).take(parent, axis=0)
    log_level[:, 1:] += shifts[:, 1:]
    shifts[:] = predictors.top[tick][:, np.newaxis]
    np.minimum(log_level, shifts, out=log_level)
    spread = slots_first(state.sizes).reshape(-1, settings.horizons).take(parent, axis=0)
    spread *= state.short
    np.sqrt(spread, out=spread)
    np.maximum(spread, LEAST_SPREAD, out=spread)
    np.minimum(spread, MOST_SPREAD, out=issued[..., 1])
    _remember(settings, state, predictors, tick, issued)
    return issued


def _cell(
    settings: Settings,
    state: SeriesState,
    predictors: Predictors,
    marks: Marks | None,
    tick: int,
    log_level: Float,
) -> Int:
    """Return the cell of each series: by the regime and its growth in a burst, else by level and hazard class."""
    cell: Int = LEVELS.searchsorted(log_level - predictors.usual[tick])
    odds = None if marks is None else hazard(settings, state, marks, tick)
    if odds is not None:
        odds *= tables.LEVELS
        cell += odds
    if predictors.bursting[tick]:
        within = predictors.within[tick]
        cell = np.where(within >= 0, within, cell)
    return cell


def _remember(
    settings: Settings, state: SeriesState, predictors: Predictors, tick: int, issued: Float
) -> None:
    """Keep the forecast until its outcome arrives, for the groups whose block ends now."""
    now, ring = state.last_tick, state.issued.shape[1]
    for group in settings.groups:
        if (now + 1) % group.stride:
            continue
        slot, columns = (now // group.stride) % ring, group.columns
        kept = state.issued[:, slot, columns]
        if group.mine is None:
            kept[:] = issued[:, columns]
        else:
            np.copyto(kept, issued[:, columns], where=group.mine[..., np.newaxis])
        if group.lead:
            ahead = issued[:, 0, 0] - predictors.last[tick]
            if group.mine is None:
                state.features[:, slot] = predictors.features[tick]
                state.ahead[:, slot] = ahead
                state.fitted[:, slot] = predictors.fitted[tick]
            else:
                mine = group.mine[:, 0]
                state.features[mine, slot] = predictors.features[tick, mine]
                state.ahead[mine, slot] = ahead[mine]
                state.fitted[mine, slot] = predictors.fitted[tick, mine]
