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

from dataclasses import dataclass

import numpy as np

from autoscaler.core.params import SeriesParams
from autoscaler.core.types import QUANTILE_LEVELS, Bool, Float, Freshness, Int, Outlook, Samples

BINS = 128
LOG_SPAN = float(np.log(8.0))
"""Errors beyond a factor of 8 count as 8: the histogram says no more than that of a larger jump."""
PRIOR_WEIGHT = 20.0
PRIOR_SCALE = 0.08
"""Laplace scale of the prior log error: 95 % of outcomes below 1.20 times the last value."""

_WIDTH = 2.0 * LOG_SPAN / BINS
_EDGES: Float = (-LOG_SPAN + _WIDTH * np.arange(BINS + 1)).astype(np.float64)
_LEVELS: Float = np.array(QUANTILE_LEVELS)[:, np.newaxis]
_STATE_VERSION = 1


def _prior() -> Float:
    def below(x: Float) -> Float:
        return np.where(x < 0, 0.5 * np.exp(x / PRIOR_SCALE), 1.0 - 0.5 * np.exp(-x / PRIOR_SCALE))

    cumulative = below(_EDGES)
    cumulative[0], cumulative[-1] = 0.0, 1.0
    return np.diff(cumulative) * PRIOR_WEIGHT


@dataclass(slots=True)
class SeriesState:
    """What the forecaster remembers, allocated once, updated in place by `step`.

    Attributes:
        last: float64 (S,), last fresh demand; NaN before the first.
        ring: float64 (W, S), demand by tick modulo W; NaN where unknown or censored.
        last_tick: Tick of the last step; -1 before the first.
        lead_errors, peak_errors: float64 (BINS, S), decayed outcome counts by log error.
        evidence: float64 (S,), decayed number of lead-time outcomes without the prior.
    """

    last: Float
    ring: Float
    last_tick: int
    lead_errors: Float
    peak_errors: Float
    evidence: Float

    @classmethod
    def empty(cls, params: SeriesParams) -> SeriesState:
        """A state without history for these series."""
        series = len(params.lead_ticks)
        longest = int(max(params.lead_ticks.max(initial=1), params.keep_ticks.max(initial=1)))
        prior = np.repeat(_prior()[:, np.newaxis], series, axis=1)
        return cls(
            last=np.full(series, np.nan),
            ring=np.full((longest + 1, series), np.nan),
            last_tick=-1,
            lead_errors=prior,
            peak_errors=prior.copy(),
            evidence=np.zeros(series),
        )

    def copy(self) -> SeriesState:
        """A state that shares nothing with this one."""
        return SeriesState(
            self.last.copy(),
            self.ring.copy(),
            self.last_tick,
            self.lead_errors.copy(),
            self.peak_errors.copy(),
            self.evidence.copy(),
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
        new.lead_errors[:, known] = self.lead_errors[:, was]
        new.peak_errors[:, known] = self.peak_errors[:, was]
        kept = min(len(self.ring), len(new.ring))
        for tick in range(max(self.last_tick - kept + 1, 0), self.last_tick + 1):
            new.ring[tick % len(new.ring), known] = self.ring[tick % len(self.ring), was]
        return new

    def dump(self) -> dict[str, Float | int]:
        """All fields and a version, for `restore`."""
        return {
            "version": _STATE_VERSION,
            "last": self.last.copy(),
            "ring": self.ring.copy(),
            "last_tick": self.last_tick,
            "lead_errors": self.lead_errors.copy(),
            "peak_errors": self.peak_errors.copy(),
            "evidence": self.evidence.copy(),
        }

    @classmethod
    def restore(cls, dumped: dict[str, Float | int]) -> SeriesState:
        """The state that was dumped.

        Raises:
            ValueError: If it was dumped by another version.
        """
        if dumped["version"] != _STATE_VERSION:
            msg = f"series state version {dumped['version']} cannot be read, only {_STATE_VERSION}"
            raise ValueError(msg)
        return cls(
            np.array(dumped["last"], np.float64),
            np.array(dumped["ring"], np.float64),
            int(np.int64(dumped["last_tick"])),
            np.array(dumped["lead_errors"], np.float64),
            np.array(dumped["peak_errors"], np.float64),
            np.array(dumped["evidence"], np.float64),
        )


def step(params: SeriesParams, state: SeriesState, samples: Samples) -> Outlook:
    """Learn from the new samples and issue the predictive distribution.

    Args:
        params: Horizons and forgetting, over S series.
        state: Updated in place.
        samples: One per series; called once a tick, ticks may be skipped. A second call within a tick
            replaces the sample and learns nothing more.

    Returns:
        The Outlook issued at `samples.now_s`.
    """
    tick = int(samples.now_s // params.tick_s)
    fresh = samples.freshness == Freshness.FRESH
    usable = fresh & ~samples.censored
    advanced = tick > state.last_tick
    _note(state, tick, np.where(usable, samples.demand, np.nan))
    if advanced:
        _learn(params, state, tick, samples.demand, usable)
    state.last = np.where(fresh, samples.demand, state.last)
    base = state.last + params.scale
    at_lead = np.maximum(base * np.exp(_quantiles(state.lead_errors)) - params.scale, 0.0)
    peak = np.maximum(base * np.exp(_quantiles(state.peak_errors)) - params.scale, 0.0)
    return Outlook(at_lead=at_lead, peak=np.maximum(peak, at_lead), evidence=state.evidence.copy())


def _note(state: SeriesState, tick: int, demand: Float) -> None:
    length = len(state.ring)
    for skipped in range(max(state.last_tick + 1, tick - length + 1), tick):
        state.ring[skipped % length] = np.nan
    state.ring[tick % length] = demand
    state.last_tick = max(state.last_tick, tick)


def _learn(params: SeriesParams, state: SeriesState, tick: int, demand: Float, usable: Bool) -> None:
    length, series = state.ring.shape
    columns = np.arange(series)
    decay = 0.5 ** (1.0 / params.half_life_ticks)

    before = state.ring[(tick - params.lead_ticks) % length, columns]
    known = usable & ~np.isnan(before)
    _add(state.lead_errors, demand, before, params.scale, known, decay)
    state.evidence = np.where(known, state.evidence * decay + 1.0, state.evidence)

    before = state.ring[(tick - params.keep_ticks) % length, columns]
    known = usable & ~np.isnan(before)
    age = (tick - np.arange(length)) % length
    window = np.where(age[:, np.newaxis] < params.keep_ticks, state.ring, np.nan)
    _add(state.peak_errors, np.fmax.reduce(window, axis=0), before, params.scale, known, decay)


def _add(table: Float, outcome: Float, before: Float, scale: Float, known: Bool, decay: Float) -> None:
    ratio = np.where(known, (outcome + scale) / (before + scale), 1.0)
    index: Int = np.clip((np.log(ratio) + LOG_SPAN) / _WIDTH, 0, BINS - 1).astype(np.int64)
    table *= np.where(known, decay, 1.0)
    table[index, np.arange(table.shape[1])] += known


def _quantiles(table: Float) -> Float:
    """Log-error quantiles (Q, S) of a histogram (BINS, S), linear within a bin."""
    cumulative = np.add.accumulate(table, axis=0)
    wanted = _LEVELS * cumulative[-1]
    columns = np.arange(table.shape[1])
    index = _first_reaching(cumulative, wanted)
    inside = table[index, columns]
    into = wanted - (cumulative[index, columns] - inside)
    found: Float = _EDGES[index] + _WIDTH * np.clip(into / np.maximum(inside, 1e-300), 0.0, 1.0)
    return found


def _first_reaching(cumulative: Float, wanted: Float) -> Int:
    """First bin (Q, S) whose cumulative count reaches `wanted`, by bisection: BINS is a power of two."""
    columns = np.arange(cumulative.shape[1])
    index = np.full(wanted.shape, -1, np.int64)
    half = BINS // 2
    while half:
        index += half * (cumulative[index + half, columns] < wanted)
        half //= 2
    return np.minimum(index + 1, BINS - 1)
