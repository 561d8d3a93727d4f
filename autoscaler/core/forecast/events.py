"""Known events from the policy: prior odds that demand reaches a multiple of its level without bursts.

Before an event begins, and for some minutes afterwards, when its demand may still be on the way, the distribution is a mixture:
with the event's odds, demand lies around `factor` times the demand without bursts; otherwise it is as expected without the event.
Once that demand has arrived, the forecaster sees it itself, and the event no longer lowers anything.

A distribution is fine only near its level: a bin there is a tenth of a spread; at four times the demand one bin covers a quarter
of that demand, and beyond 500 spreads there are no bins. So the level moves to the likelier outcome, and the distribution's unit
is wide enough to hold both.

Rules of this file: no calendar; `config` compiles days and time zones to epoch seconds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import LAST, SeriesState
from autoscaler.core.law_grid import EDGES
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Bool, Float, Horizon, SmallFloat

STILL_COMING_S = 600.0
"""For this many seconds after its beginning, an event may still not show in demand."""
_MOST_SHIFT = 7.0
"""Most that an event shifts the logarithm of demand: a factor of about a thousand, the most that a policy may state."""
_MOST_SPREADS = 100.0
"""Demand with an event and without is at most this many units of the law apart; its lowest edge is at 122."""
_GROWN = 1.25
"""Largest factor by which ordinary growth, as from hour to hour, raises demand within some minutes."""


class Measure(NamedTuple):
    """What laws are measured by.

    Attributes:
        log_level: float64 (S, H), logarithm of level plus offset.
        spread: float64 (S, H), unit of the log ratio.
        room: float64 (S, H), how far above the level demand is expected at most, as a log ratio.
    """

    log_level: Float
    spread: Float
    room: Float


def mix(settings: Settings, state: SeriesState, now_s: float, beyond: SmallFloat, usual: Measure) -> Measure:
    """Mix the distributions with those of the known events ahead, in place.

    Args:
        settings: The settings of the series, with their events.
        state: Holds the demand without bursts.
        now_s: Time of the forecast.
        beyond: float32 (S, H, LAW_BINS), probability of more than each lower edge, from `tables.survival`.
        usual: Measures of the distributions without events; not changed.

    Returns:
        Measures of the mixtures.
    """
    params = settings.params
    found = Measure(*(each.copy() for each in usual))
    for row in _coming(settings, now_s):
        rows, columns = np.nonzero(_concerned_horizons(settings, now_s, row) & ~np.isnan(usual.log_level))
        at = rows, columns
        level = np.log(_demand_with_event(settings, state, now_s, row, usual) + state.offset)
        shift = level[rows] - usual.log_level[at]
        # An event that raises demand never lowers what is expected without it, and one that lowers demand never raises
        # it.
        raises = params.event_factor[row, rows] > 1.0
        shift = np.where(raises, np.maximum(shift, 0.0), np.minimum(shift, 0.0))
        np.minimum(np.maximum(shift, -_MOST_SHIFT), _MOST_SHIFT, out=shift)
        share, spread = params.event_odds[row, rows], found.spread[at]
        unit = np.maximum(spread, np.abs(shift) / _MOST_SPREADS)
        move = np.where(share >= 0.5, shift, 0.0)
        beyond[at] = _mixed(
            beyond[at].astype(np.float64), share, shift / spread, move / spread, unit / spread
        )
        found.log_level[at] += move
        found.spread[at] = unit
        found.room[at] += np.maximum(shift, 0.0) - move
    return found


def has_event_at_lead(settings: Settings, now_s: float) -> Bool:
    """Return whether the policy announces an event at the lead time: bool (S,)."""
    found = np.zeros(len(settings.series), np.bool_)
    for row in _coming(settings, now_s):
        found |= _concerned_horizons(settings, now_s, row)[:, Horizon.LEAD]
    return found


def _coming(settings: Settings, now_s: float) -> list[int]:
    """Return the events that may concern some horizon, as rows."""
    params = settings.params
    end_s = now_s + settings.farthest_s + params.tick_s
    coming = (now_s < _counts_until_s(settings)) & (params.event_start_s < end_s)
    found: list[int] = np.unique(np.nonzero(coming)[0]).tolist()
    return found


def _counts_until_s(settings: Settings) -> Float:
    """Return when events stop counting, because they have ended or surely show in demand: float64 (E, S)."""
    params = settings.params
    return np.minimum(params.event_end_s, params.event_start_s + STILL_COMING_S)


def _concerned_horizons(settings: Settings, now_s: float, row: int) -> Bool:
    """Return which horizons an event concerns: bool (S, H).

    The sample at the end of a horizon describes the tick before. With whole laws, LEAD concerns the tick that a start serves
    first, and peaks end one tick later than their horizon (`SeriesParams`). Without laws, it is LEAD that reaches one tick
    further.
    """
    params, tick_s = settings.params, settings.params.tick_s
    end_s = now_s + settings.reach_s + np.where(params.laws, tick_s, 0.0)[:, np.newaxis]
    end_s[:, Horizon.LEAD] = now_s + settings.reach_s[:, Horizon.LEAD] + np.where(params.laws, 0.0, tick_s)
    first_s = np.full_like(end_s, now_s)
    first_s[:, Horizon.LEAD] = end_s[:, Horizon.LEAD] - tick_s
    begins_s, ends_s = params.event_start_s[row, :, np.newaxis], params.event_end_s[row, :, np.newaxis]
    may_come: Bool = (begins_s < end_s) & (first_s < ends_s)
    may_come &= ((now_s < _counts_until_s(settings)[row]) & (params.event_odds[row] > 0.0))[:, np.newaxis]
    return may_come


def _demand_with_event(
    settings: Settings, state: SeriesState, now_s: float, row: int, usual: Measure
) -> Float:
    """Return the demand that is expected with an event: float64 (S,), work per second."""
    params, last = settings.params, state.track[:, LAST]
    factor = params.event_factor[row]
    # Once the event has begun, the mean without bursts follows it, and the median does later. The factor must not apply twice.
    calm = np.where(factor > 1.0, np.minimum(state.base, state.median), np.maximum(state.base, state.median))
    # Both lag by minutes. Before an event begins, no sample shows it, though the time of day may. If demand is measured
    # at one moment, the event may show in the tick in which it begins: then demand has gone more than half of the way.
    present = np.minimum(np.exp(usual.log_level[:, Horizon.LEAD]) - state.offset, last)
    half = np.sqrt(factor) * calm
    has_arrived = np.where(factor > 1.0, last >= half, last <= half)
    begins_s = params.event_start_s[row]
    unseen = ((begins_s > now_s) | ((begins_s == now_s) & ~has_arrived)) & ~(state.age_s > 0.0)
    expected = factor * np.where(unseen, np.fmax(calm, present), calm)
    # Once it has begun, no less is expected than what has come, as far as growth since then can explain it.
    at_least_arrived: Float = np.fmax(expected, np.minimum(last, _GROWN * expected))
    return np.where(unseen, expected, at_least_arrived)


def _mixed(beyond: Float, share: Float, shift: Float, move: Float, unit: Float) -> Float:
    """Mix distributions with shifted copies of themselves, and read the mixtures from a new level in a new unit.

    Args:
        beyond: float64 (N, LAW_BINS), probability of more than each lower edge.
        share: float64 (N,), weight of the shifted copy.
        shift: float64 (N,), how far up it is shifted, in spreads of the log ratio.
        move: float64 (N,), how far up the level moves, in these spreads.
        unit: float64 (N,), the new unit, in these spreads.
    """
    edges = EDGES[:-1] * unit[:, np.newaxis] + move[:, np.newaxis]
    without, with_event = _read_at(beyond, edges), _read_at(beyond, edges - shift[:, np.newaxis])
    found = without + share[:, np.newaxis] * (with_event - without)
    # Outcomes below the first edge are in the first bin; only no demand at all stays as it was.
    found[:, 0] = beyond[:, 0]
    return found


def _read_at(beyond: Float, spreads: Float) -> Float:
    """Return the probability of more than the given log ratios, in spreads: float64 (N, LAW_BINS), interpolated linearly."""
    place = np.arcsinh(spreads)
    place -= LAW_LOW
    place /= LAW_STEP
    np.minimum(place, LAW_BINS - 1.0, out=place)
    np.maximum(place, 0.0, out=place)
    lower = place.astype(np.int64)
    rows = np.arange(len(beyond))[:, np.newaxis]
    low = beyond[rows, lower]
    high = beyond[rows, np.minimum(lower + 1, LAW_BINS - 1)]
    found: Float = low + (place - lower) * (high - low)
    return found
