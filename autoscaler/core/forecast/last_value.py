"""The last value as forecast, with the distribution of the errors it really made.

For each series a histogram of `log((outcome + scale) / (last + scale))` is kept with exponential forgetting,
once for demand at the lead time and once for the highest demand within the keep window. Quantiles of the
forecast are the last value moved by quantiles of that error, so they are calibrated by construction once
outcomes have come, whatever the shape of the errors (empirical error quantiles: Gardner 1988; exponential
forgetting of a histogram as in Rzadca et al. 2020). Before that, a prior of `PRIOR_WEIGHT` outcomes
(Laplace in the log error) speaks, and fades as evidence comes.

Censored and missing samples teach nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from autoscaler.core.params import SeriesParams
from autoscaler.core.remembered import Remembered
from autoscaler.core.types import QUANTILE_LEVELS, Bool, Float, Freshness, Int, Outlook, Samples

BINS = 128
LOG_SPAN = float(np.log(8.0))
"""Errors beyond a factor of 8 count as 8: the histogram says no more than that of a larger jump."""
PRIOR_WEIGHT = 20.0
PRIOR_SCALE = 0.08
"""Laplace scale of the prior log error: 95 % of outcomes below 1.20 times the last value."""

_WIDTH = 2.0 * LOG_SPAN / BINS
_EDGES: Float = (-LOG_SPAN + _WIDTH * np.arange(BINS + 1)).astype(np.float64)
_LEVELS: Float = np.array(QUANTILE_LEVELS)[:, np.newaxis, np.newaxis]
_FEW = 16
_LEAD, _PEAK = 0, 1
"""The two things forecast, in this order where an array has both: demand at the lead time, and the highest demand
within the keep window."""


def _prior() -> Float:
    def below(x: Float) -> Float:
        return np.where(x < 0, 0.5 * np.exp(x / PRIOR_SCALE), 1.0 - 0.5 * np.exp(-x / PRIOR_SCALE))

    cumulative = below(_EDGES)
    cumulative[0], cumulative[-1] = 0.0, 1.0
    return np.diff(cumulative) * PRIOR_WEIGHT


@dataclass(frozen=True, slots=True)
class Horizons:
    """What `step` needs of `SeriesParams` every tick, worked out once.

    Attributes:
        params: Whose they are.
        ticks: int64 (2, S), how far each forecast looks.
        columns: int64 (2, S), where each series' errors begin in a flat (BINS, 2, S).
        series: int64 (S,), 0, 1, 2 ...
        decay: float64 (2, S), what one outcome leaves of older ones.
        within: bool (2 * W, S), which rows of the ring are in the keep window: those from W - s to 2 * W - s where
            row s holds the present.
    """

    params: SeriesParams
    ticks: Int
    columns: Int
    series: Int
    decay: Float
    within: Bool

    @classmethod
    def of(cls, params: SeriesParams) -> Horizons:
        """For these series."""
        series, length = len(params.lead_ticks), ring_length(params)
        decay = 0.5 ** (1.0 / params.half_life_ticks)
        age = (length - np.arange(2 * length)) % length
        return cls(
            params=params,
            ticks=np.stack([params.lead_ticks, params.keep_ticks]),
            columns=np.arange(2 * series).reshape(2, series),
            series=np.arange(series),
            decay=np.stack([decay, decay]),
            within=age[:, np.newaxis] < params.keep_ticks,
        )


def ring_length(params: SeriesParams) -> int:
    """Ticks of demand that must be remembered: W."""
    return int(max(params.lead_ticks.max(initial=1), params.keep_ticks.max(initial=1))) + 1


@dataclass(slots=True)
class SeriesState(Remembered):
    """What the forecaster remembers, allocated once, updated in place by `step`.

    Attributes:
        last: float64 (S,), last fresh demand; NaN before the first.
        ring: float64 (W, S), demand by tick modulo W; NaN where unknown or censored.
        last_tick: Tick of the last step; -1 before the first.
        errors: float64 (BINS, 2, S), decayed outcome counts by log error: at the lead time, and of the peak.
        evidence: float64 (S,), decayed number of lead-time outcomes without the prior.
        horizons: The settings as `step` last compiled them; not remembered.
    """

    version: ClassVar[int] = 2
    last: Float
    ring: Float
    last_tick: int
    errors: Float
    evidence: Float
    horizons: Horizons | None = field(init=False, default=None, compare=False, repr=False)

    @classmethod
    def empty(cls, params: SeriesParams) -> SeriesState:
        """A state without history for these series."""
        series = len(params.lead_ticks)
        return cls(
            last=np.full(series, np.nan),
            ring=np.full((ring_length(params), series), np.nan),
            last_tick=-1,
            errors=np.tile(_prior()[:, np.newaxis, np.newaxis], (1, 2, series)),
            evidence=np.zeros(series),
        )

    def carried_over(self, params: SeriesParams, columns: Int) -> SeriesState:
        """The state for other series, each of which may have been one of these; this one is not changed.

        The ring takes as much of the past as the new horizons need and the old ones kept.

        Args:
            params: Of the other series, N of them.
            columns: int64 (N,), the series that each was; -1 for one that is new and so starts without history.
        """
        new = SeriesState.empty(params)
        known = columns >= 0
        was = columns[known]
        new.last_tick = self.last_tick
        new.last[known] = self.last[was]
        new.evidence[known] = self.evidence[was]
        new.errors[:, :, known] = self.errors[:, :, was]
        kept = min(len(self.ring), len(new.ring))
        for tick in range(max(self.last_tick - kept + 1, 0), self.last_tick + 1):
            new.ring[tick % len(new.ring), known] = self.ring[tick % len(self.ring), was]
        return new


def step(params: SeriesParams, state: SeriesState, samples: Samples) -> Outlook:
    """Learn from the new samples and issue the predictive distribution.

    Args:
        params: Horizons and forgetting, over S series; not to be changed afterwards.
        state: Updated in place.
        samples: One per series; called once a tick, ticks may be skipped. A second call within a tick
            replaces the sample and learns nothing more.

    Returns:
        The Outlook issued at `samples.now_s`.
    """
    horizons = state.horizons
    if horizons is None or horizons.params is not params:
        horizons = state.horizons = Horizons.of(params)
    tick = int(samples.now_s // params.tick_s)
    demand, fresh, usable = samples.demand, None, None
    if np.count_nonzero(samples.freshness):
        fresh = usable = samples.freshness == int(Freshness.FRESH)
    if np.count_nonzero(samples.censored):
        usable = ~samples.censored if fresh is None else fresh & ~samples.censored
    advanced = tick > state.last_tick
    _note(state, tick, demand if usable is None else np.where(usable, demand, np.nan))
    if advanced:
        _learn(horizons, state, tick, demand, usable)
    state.last = demand.copy() if fresh is None else np.where(fresh, demand, state.last)

    forecast = np.exp(_quantiles(state.errors, horizons.columns))
    forecast *= state.last + params.scale
    forecast -= params.scale
    np.maximum(forecast, 0.0, out=forecast)
    at_lead = forecast[:, _LEAD]
    return Outlook(
        at_lead=at_lead, peak=np.maximum(forecast[:, _PEAK], at_lead), evidence=state.evidence.copy()
    )


def _note(state: SeriesState, tick: int, demand: Float) -> None:
    length = len(state.ring)
    for skipped in range(max(state.last_tick + 1, tick - length + 1), tick):
        state.ring[skipped % length] = np.nan
    state.ring[tick % length] = demand
    state.last_tick = max(state.last_tick, tick)


def _learn(horizons: Horizons, state: SeriesState, tick: int, demand: Float, usable: Bool | None) -> None:
    """Count the errors that the present demand shows of the forecasts made before it."""
    ring, scale = state.ring, horizons.params.scale
    length, series = ring.shape
    row = (tick - horizons.ticks) % length
    row *= series
    row += horizons.series
    before = ring.take(row)
    known = ~np.isnan(before)
    if usable is not None:
        known &= usable
    ratio = np.empty_like(before)
    ratio[_LEAD] = demand
    slot = tick % length
    window = np.where(horizons.within[length - slot : 2 * length - slot], ring, np.nan)
    np.fmax.reduce(window, axis=0, out=ratio[_PEAK])
    ratio += scale
    before += scale
    ratio /= before
    decay, count = horizons.decay, 1.0
    if np.count_nonzero(known) < known.size:
        ratio = np.where(known, ratio, 1.0)
        decay, count = np.where(known, decay, 1.0), known.astype(np.float64)
    _add(state.errors, ratio, horizons.columns, decay, count)
    state.evidence = np.where(known[_LEAD], state.evidence * horizons.decay[_LEAD] + 1.0, state.evidence)


def _add(errors: Float, ratio: Float, columns: Int, decay: Float, count: Float | float) -> None:
    """Forget a little, and count each outcome (2, S) in its bin."""
    place = np.log(ratio)
    place += LOG_SPAN
    place /= _WIDTH
    np.maximum(place, 0.0, out=place)
    np.minimum(place, BINS - 1.0, out=place)
    cell = place.astype(np.int64)
    cell *= columns.size
    cell += columns
    errors *= decay
    errors.reshape(-1)[cell] += count


def _quantiles(errors: Float, columns: Int) -> Float:
    """Log-error quantiles (Q, 2, S) of histograms (BINS, 2, S), linear within a bin."""
    cumulative = np.add.accumulate(errors, axis=0)
    wanted = _LEVELS * cumulative[-1]
    index = _first_reaching(cumulative, columns, wanted)
    cell = index * columns.size
    cell += columns
    inside = errors.take(cell)
    into = inside - cumulative.take(cell)
    into += wanted
    into /= np.maximum(inside, 1e-300)
    np.maximum(into, 0.0, out=into)
    np.minimum(into, 1.0, out=into)
    into *= _WIDTH
    into += _EDGES.take(index)
    return into


def _first_reaching(cumulative: Float, columns: Int, wanted: Float) -> Int:
    """First bin (Q, 2, S) whose cumulative count reaches `wanted`.

    That is as many bins as stay below it, which counting finds in the fewest operations, and for many series
    bisection in the least work; BINS is a power of two.
    """
    stride = columns.size
    if stride <= _FEW:
        below: Int = np.add.reduce(cumulative[:, np.newaxis] < wanted, axis=0)
        return np.minimum(below, BINS - 1)
    cumulative = cumulative.reshape(-1)
    at = np.empty(wanted.shape, np.int64)
    at[:] = columns - stride
    half = BINS // 2 * stride
    while half >= stride:
        at += half * (cumulative.take(at + half) < wanted)
        half //= 2
    at -= columns
    at //= stride
    at += 1
    return np.minimum(at, BINS - 1)
