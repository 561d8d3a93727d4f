"""Calibrated quantiles by adaptive conformal inference (Gibbs and Candès 2021).

The tables remember days, so when demand changes its behaviour, or comes in lumps, more or fewer outcomes lie below a quantile
than it states. So each quantile is read from the distribution at a level of its own (`SeriesState.read_at`), which is raised a
little when an outcome lies above it, and lowered when not, by steps that balance if the stated share lies below it. In the long
run it does, for the forecasts that are sampled and within bounds. Large steps would follow noise and make quantiles worse: these
take days.

Now and then a forecast is kept until its outcome arrives, one at a time. The ticks are chosen pseudo-randomly from their number
and the series' phase, since fixed times would always meet clock-driven demand in the same phase. Lumpy demand has no exact
quantile: if one lies in the bin of the outcome, its share of the bin counts as below it (the expectation of the randomised
transform of Czado, Gneiting and Held 2009).

Only quantiles at the lead time are adjusted. Full distributions (`Outlook.laws`) stay as the tables give them: the models that
order by them compete on cost, and adjusting did not make them cheaper.

Rules of this file: learning from many ticks together is bit-identical to learning from them one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, QUANTILE_LEVELS, Bool, Float, Int, SmallFloat

LEVELS: Float = np.array(QUANTILE_LEVELS)
STEP: Float = 0.01 * np.sqrt(LEVELS * (1.0 - LEVELS)) * np.array([1.0, 1.0, 1.0, 1.0 / 3.0])
"""How far one outcome moves each probability: in proportion to its noise, and less for the last, because outcomes beyond it
are far away."""
LOWEST: Float = np.array([0.05, 0.3, 0.5, 0.9])
HIGHEST: Float = np.array([0.95, 0.995, 0.998, 0.9998])
"""Bounds of the probabilities. Only demand that is unrelated to the past comes near them."""
ASK_S, MOST_ODDS = 300.0, 0.5
"""On average one forecast in `ASK_S` seconds is kept, and at most one in 1 / `MOST_ODDS`, as soon as none waits."""
_COUNT = len(QUANTILE_LEVELS)
_LEVELS, _STEPS, _LOWEST, _HIGHEST = (each.tolist() for each in (LEVELS, STEP, LOWEST, HIGHEST))
_LAST_BIN = LAW_BINS - 1.0
_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(32)
_LOTS = 2.0**64


@dataclass(frozen=True, slots=True)
class ArrivedDemand:
    """Samples of T ticks, in order.

    Attributes:
        tick: int64 (T,), numbers of the ticks, ascending.
        demand: float64 (T, S), work per second.
        usable: bool (T, S), whether it may be learned from.
    """

    tick: Int
    demand: Float
    usable: Bool


class AtLead(NamedTuple):
    """N laws of demand at the lead time.

    Attributes:
        beyond: float32 (LAW_BINS, N), probability of more than each lower edge, from `tables.survival`.
        log_level, spread, offset: float64 (N,), logarithm of level plus offset, spread, and offset.
    """

    beyond: SmallFloat
    log_level: Float
    spread: Float
    offset: Float


class StatedQuantiles(NamedTuple):
    """N laws, and the probabilities at which their quantiles are read, float64 (N, Q)."""

    law: AtLead
    read_at: Float

    def covers(self, outcome: Float) -> Float:
        """Return how much of its bin each outcome has at or below each quantile: float64 (N, Q), 0..1; NaN if unknown.

        Args:
            outcome: float64 (N,), demand; NaN if unknown.
        """
        beyond, *measures = self.law
        known = ~np.isnan(outcome) & ~np.isnan(measures[0])
        found = np.full(self.read_at.shape, np.nan)
        bins = _bins(np.where(known, outcome, 0.0), *measures)
        found[known] = below_each(places(beyond, thresholds(self.read_at)), bins)[known]
        return found


def is_asked(settings: Settings, tick: Int, phase: Int) -> Bool:
    """Return whether a forecast is kept at these ticks if none waits: a pseudo-random bool.

    Tick and phase of the series are mixed as in SplitMix64 (Steele, Lea and Flood 2014), so that series draw different ticks.

    Args:
        settings: The settings of the series.
        tick: int64 (T,), or (1,) for several series.
        phase: int64 (S,), `SeriesState.phase`; (1,) for several ticks.
    """
    golden, factor, half = _MIX
    mixed = phase.astype(np.uint64) * factor + tick.astype(np.uint64)
    mixed *= golden
    mixed ^= mixed >> half
    mixed *= factor
    mixed ^= mixed >> half
    found: Bool = mixed < np.uint64(min(settings.params.tick_s / ASK_S, MOST_ODDS) * _LOTS)
    return found


def answer(settings: Settings, state: SeriesState, tick: int, demand: Float, usable: Bool | None) -> None:
    """Correct the quantiles by the outcomes of the forecasts that waited for this tick.

    Each probability moves by `STEP` times the difference between the quantile's level and the share of the outcome's bin
    below the quantile.

    Args:
        settings: The settings of the series.
        state: Its `read_at` and `asked_at` are updated.
        tick: The current tick.
        demand: float64 (S,), work per second.
        usable: bool (S,), whether it may be learned from; None if it may everywhere.
    """
    waits = state.asked_at + settings.params.lead_ticks
    waits -= tick
    expired = np.flatnonzero((waits <= 0) & (state.asked_at >= 0))
    if not len(expired):
        return
    state.asked_at[expired] = -1
    known = waits.take(expired) == 0
    if usable is not None:
        known &= usable.take(expired)
    some = expired[known]
    if not len(some):
        return
    asked = state.asked.take(some, axis=0)
    bins = _bins(demand.take(some), asked[:, _COUNT], asked[:, _COUNT + 1], asked[:, _COUNT + 2])
    below = below_each(asked[:, :_COUNT], bins)
    moved = LEVELS - below
    moved *= STEP
    moved += state.read_at.take(some, axis=0)
    np.maximum(moved, LOWEST, out=moved)
    np.minimum(moved, HIGHEST, out=moved)
    # Earlier Outlooks keep their own array.
    state.read_at = state.read_at.copy()
    state.read_at[some] = moved


def ask(settings: Settings, state: SeriesState, tick: int, law: AtLead) -> Float:
    """Keep the forecasts of this tick for the series that draw it and have none waiting.

    Args:
        settings: The settings of the series.
        state: Its `asked` and `asked_at` are updated.
        tick: The current tick.
        law: The laws of the S series; those with an unknown level are not kept.

    Returns:
        float64 (S, Q), the probabilities at which quantiles are read from their laws; not to be changed.
    """
    found = state.read_at
    drawn = is_asked(settings, np.array([tick]), state.phase)
    drawn &= state.asked_at < 0
    some = np.flatnonzero(drawn)
    if len(some):
        some = some[~np.isnan(law.log_level.take(some))]
    if len(some):
        asked = np.empty((len(some), state.asked.shape[1]))
        asked[:, :_COUNT] = places(law.beyond[:, some], thresholds(found.take(some, axis=0)))
        for at, measure in enumerate(law[1:], _COUNT):
            asked[:, at] = measure.take(some)
        state.asked[some], state.asked_at[some] = asked, tick
    return found


def thresholds(read_at: Float) -> SmallFloat:
    """Return the probability of more than each quantile, float32 (N, Q), as laws are stored.

    Quantiles stay in order even if their probabilities have crossed.
    """
    odds = np.maximum.accumulate(read_at, axis=1)
    np.subtract(1.0, odds, out=odds)
    return odds.astype(np.float32)


def places(beyond: SmallFloat, threshold: SmallFloat) -> Float:
    """Return the positions of quantiles in bins, interpolated linearly: float64 (S, Q); below 1 for no demand at all.

    Args:
        beyond: float32 (LAW_BINS, S), from `tables.survival`.
        threshold: float32 (S, Q), probability of more than each quantile.
    """
    columns = _columns(beyond)
    index = np.empty(threshold.shape, np.int64)
    for at in range(_COUNT):
        more = columns[:-1] > threshold[:, at]
        index[:, at] = np.add.reduce(more.view(np.uint8), axis=0, dtype=np.uint8)
    index -= 1
    flat, width = columns.reshape(-1), np.array(columns.shape[1])
    at_edge = index * width
    at_edge += np.arange(len(threshold))[:, np.newaxis]
    upper = flat.take(at_edge).astype(np.float64)
    at_edge += width
    found: Float = upper - threshold
    found /= upper - flat.take(at_edge)
    found += index
    return found


def _columns(beyond: SmallFloat) -> SmallFloat:
    """Return the probability of more at all edges, float32 (LAW_BINS + 1, S).

    No demand at all is a bin of its own, at whose lower edge the probability is 1.
    """
    columns = np.zeros((LAW_BINS + 1, beyond.shape[1]), np.float32)
    columns[:-1] = beyond
    columns[0] = 1.0
    return columns


def _bins(demand: Float, log_level: Float, spread: Float, offset: Float) -> Float:
    """Return the bin of the law in which each outcome lies, as in `tables.flat`: float64 (N,)."""
    at = demand + offset
    np.log(at, out=at)
    at -= log_level
    at /= spread
    np.arcsinh(at, out=at)
    at -= LAW_LOW
    at /= LAW_STEP
    np.floor(at, out=at)
    np.maximum(at, 1.0, out=at)
    np.minimum(at, _LAST_BIN, out=at)
    at *= demand > 0.0
    return at


def below_each(place: Float, bins: Float) -> Float:
    """Return how much of its bin each outcome has at or below each quantile: float64 (N, Q), 0..1.

    Args:
        place: float64 (N, Q), positions of the quantiles in bins.
        bins: float64 (N,), bins of the outcomes.
    """
    found = place - bins[:, np.newaxis]
    np.maximum(found, 0.0, out=found)
    np.minimum(found, 1.0, out=found)
    return found


def process_ticks(settings: Settings, state: SeriesState, arrived: ArrivedDemand, law: AtLead) -> Float:
    """Do the work of `answer` and `ask` for T ticks, and return the probabilities at each: float64 (T * S, Q).

    Args:
        settings: The settings of the series.
        state: The state before the first tick; updated in place.
        arrived: The samples of the ticks.
        law: The laws of T * S series: those of the first tick, then those of the next.
    """
    ticks, series = arrived.demand.shape
    read_at = np.empty((ticks, series, _COUNT))
    for one in range(series):
        drawn = np.flatnonzero(is_asked(settings, arrived.tick, state.phase[one : one + 1]))
        mine = slice(one, None, series)
        past = _Past(
            int(settings.params.lead_ticks[one]),
            arrived.tick,
            arrived.demand[:, one],
            arrived.usable[:, one],
            AtLead(law.beyond[:, mine], *(each[mine] for each in law[1:])),
        )
        _process_series(state, one, past, drawn, read_at[:, one])
    return read_at.reshape(-1, _COUNT)


@dataclass(frozen=True, slots=True)
class _Past:
    """One series at T ticks.

    Attributes:
        lead: Lead time in ticks.
        tick: int64 (T,), numbers of the ticks.
        demand, usable: (T,), as in `ArrivedDemand`.
        law: Its laws at the ticks.
    """

    lead: int
    tick: Int
    demand: Float
    usable: Bool
    law: AtLead

    def asked(self, drawn: Int, waits_until: int) -> list[int]:
        """Return the places of the ticks at which a forecast is kept, of those drawn; none is kept while another one waits."""
        found: list[int] = []
        no_law = np.isnan(self.law.log_level[drawn]).tolist()
        for at, tick, unknown in zip(drawn.tolist(), self.tick[drawn].tolist(), no_law, strict=True):
            if tick >= waits_until and not unknown:
                found.append(at)
                waits_until = tick + self.lead
        return found

    def places(self, at: int, read_at: list[float]) -> list[float]:
        """Return the positions of the quantiles of one tick, as the function `places` does."""
        odds = thresholds(np.array([read_at]))[0]
        rising = np.zeros(LAW_BINS + 1, np.float32)
        np.negative(self.law.beyond[:, at], out=rising[:-1])
        rising[0] = -1.0
        index = rising[:-1].searchsorted(np.negative(odds))
        found = rising.take(index).astype(np.float64)
        index -= 1
        upper = rising.take(index).astype(np.float64)
        found -= upper
        upper += odds
        np.divide(np.negative(upper, out=upper), found, out=found)
        found += index
        places: list[float] = found.tolist()
        return places


def _process_series(state: SeriesState, one: int, past: _Past, drawn: Int, read_at: Float) -> None:
    """Do the work of `process_ticks` for one series, and fill in the probabilities, float64 (T, Q)."""
    before = int(state.asked_at[one])
    asked = past.asked(drawn, before + past.lead if before >= 0 else -1)
    # When each kept forecast's outcome arrives: first that of an earlier stretch, if there is one.
    ends = [before + past.lead] if before >= 0 else []
    ends += (past.tick[asked] + past.lead).tolist()
    at_end = past.tick.searchsorted(ends).tolist()
    measures = np.stack([each[asked] for each in past.law[1:]], axis=1)
    if before >= 0:
        measures = np.concatenate([state.asked[one, np.newaxis, _COUNT:], measures])
    come = np.minimum(np.array(at_end, np.int64), len(past.tick) - 1)
    bins = _bins(past.demand[come], *measures.T).tolist()
    is_known = (past.usable[come] & (past.tick[come] == ends)).tolist()
    shares, since = state.read_at[one].tolist(), 0
    waiting = state.asked[one, :_COUNT].tolist() if before >= 0 else []
    for number, at in enumerate(at_end):
        mine = number - (before >= 0)
        if mine >= 0:
            waiting = past.places(asked[mine], shares)
        if at >= len(past.tick):
            break
        if not is_known[number]:
            continue
        read_at[since:at], since = shares, at
        for each, place in enumerate(waiting):
            below = min(max(place - bins[number], 0.0), 1.0)
            moved = (_LEVELS[each] - below) * _STEPS[each] + shares[each]
            shares[each] = min(max(moved, _LOWEST[each]), _HIGHEST[each])
    read_at[since:] = shares
    if any(is_known):
        state.read_at = state.read_at.copy()
        state.read_at[one] = shares
    if ends:
        state.asked_at[one] = ends[-1] - past.lead if ends[-1] > past.tick[-1] else -1
        state.asked[one, :_COUNT], state.asked[one, _COUNT:] = waiting, measures[-1]
