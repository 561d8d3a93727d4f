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
from autoscaler.core.laws import EDGES
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Bool, Float, Horizon, SmallFloat

STILL_COMING_S = 600.0
"""So long after its beginning an event may not have shown in demand yet."""
_MOST_SHIFT = 7.0
"""Of a logarithm: a thousand times, which is the most that a policy may say."""
_MOST_SPREADS = 100.0
"""What is expected with an event and what without are at most so many units of the law apart; its lowest edge is at 122."""
_GROWN = 1.25
"""Demand that rises by the hour is at most so many times what it was some minutes ago."""


class Measure(NamedTuple):
    """What a law is measured by.

    Attributes:
        log_level: float64 (S, H), logarithm of level and offset.
        spread: float64 (S, H).
        room: float64 (S, H), how far above the level anything is expected, in logarithms.
    """

    log_level: Float
    spread: Float
    room: Float


def mix(settings: Settings, state: SeriesState, now_s: float, beyond: SmallFloat, usual: Measure) -> Measure:
    """Let what is expected beyond each edge, (S, H, LAW_BINS), take the events ahead into account, in place.

    Args:
        settings: Of the series, with their events.
        state: For the demand without bursts.
        now_s: Time of the forecast.
        beyond: As `tables.survival` gives it.
        usual: Of the laws without events; stays as it is.

    Returns:
        Of the laws with them.
    """
    params = settings.params
    found = Measure(*(each.copy() for each in usual))
    for row in _coming(settings, now_s):
        rows, columns = np.nonzero(_ahead(settings, now_s, row) & ~np.isnan(usual.log_level))
        at = rows, columns
        level = np.log(_with(settings, state, now_s, row, usual) + state.offset)
        shift = level[rows] - usual.log_level[at]
        # What is seen or known to be more already is not made less of, nor what is less made more of.
        more = params.event_factor[row, rows] > 1.0
        shift = np.where(more, np.maximum(shift, 0.0), np.minimum(shift, 0.0))
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


def told_at_lead(settings: Settings, now_s: float) -> Bool:
    """Where people have told of demand at the lead time: bool (S,)."""
    found = np.zeros(len(settings.series), np.bool_)
    for row in _coming(settings, now_s):
        found |= _ahead(settings, now_s, row)[:, Horizon.LEAD]
    return found


def _coming(settings: Settings, now_s: float) -> list[int]:
    """Events within what any horizon is about."""
    params = settings.params
    end_s = now_s + settings.farthest_s + params.tick_s
    coming = (now_s < _until(settings)) & (params.event_start_s < end_s)
    found: list[int] = np.unique(np.nonzero(coming)[0]).tolist()
    return found


def _until(settings: Settings) -> Float:
    """When events have ended or have surely shown, (E, S)."""
    params = settings.params
    return np.minimum(params.event_end_s, params.event_start_s + STILL_COMING_S)


def _ahead(settings: Settings, now_s: float, row: int) -> Bool:
    """Where an event lies within what a horizon is about, (S, H).

    The sample at the end of a horizon tells of the tick before. With whole laws that is at the lead time the tick which a start serves
    first, and of peaks one short of what comes before a stopped VM serves again (`SeriesParams`); without, it is one short at the
    lead time.
    """
    params, tick_s = settings.params, settings.params.tick_s
    end_s = now_s + settings.reach_s + np.where(params.laws, tick_s, 0.0)[:, np.newaxis]
    end_s[:, Horizon.LEAD] = now_s + settings.reach_s[:, Horizon.LEAD] + np.where(params.laws, 0.0, tick_s)
    first_s = np.full_like(end_s, now_s)
    first_s[:, Horizon.LEAD] = end_s[:, Horizon.LEAD] - tick_s
    begins_s, ends_s = params.event_start_s[row, :, np.newaxis], params.event_end_s[row, :, np.newaxis]
    may_come: Bool = (begins_s < end_s) & (first_s < ends_s)
    may_come &= ((now_s < _until(settings)[row]) & (params.event_odds[row] > 0.0))[:, np.newaxis]
    return may_come


def _with(settings: Settings, state: SeriesState, now_s: float, row: int, usual: Measure) -> Float:
    """Demand that is expected with an event, (S,)."""
    params, last = settings.params, state.track[:, LAST]
    factor = params.event_factor[row]
    # The mean without bursts follows an event that has begun, the median only later: twice would be too much.
    calm = np.where(factor > 1.0, np.minimum(state.base, state.median), np.maximum(state.base, state.median))
    # Both are minutes behind. Of an event that begins from now on no sample tells yet, though its time of the day may; one
    # that begins now is told of where demand is measured at this moment: then it has gone more than half of the way.
    present = np.minimum(np.exp(usual.log_level[:, Horizon.LEAD]) - state.offset, last)
    half = np.sqrt(factor) * calm
    has_come = np.where(factor > 1.0, last >= half, last <= half)
    begins_s = params.event_start_s[row]
    unseen = ((begins_s > now_s) | ((begins_s == now_s) & ~has_come)) & ~(state.age_s > 0.0)
    expected = factor * np.where(unseen, np.fmax(calm, present), calm)
    # Nor is what has come of one that has begun less than it is, as far as that may be by growing meanwhile.
    come: Float = np.fmax(expected, np.minimum(last, _GROWN * expected))
    return np.where(unseen, expected, come)


def _mixed(beyond: Float, share: Float, shift: Float, move: Float, unit: Float) -> Float:
    """Laws (N, LAW_BINS), mixed with the same moved up by so many spreads (N,), read from a new level in a new unit.

    Args:
        beyond: What is expected beyond each edge.
        share: float64 (N,), of what is moved.
        shift: float64 (N,), how far it is moved, in spreads of the log ratio.
        move: float64 (N,), how far the level moves, likewise.
        unit: float64 (N,), the new unit, likewise.
    """
    edges = EDGES[:-1] * unit[:, np.newaxis] + move[:, np.newaxis]
    without, with_event = _read(beyond, edges), _read(beyond, edges - shift[:, np.newaxis])
    found = without + share[:, np.newaxis] * (with_event - without)
    # What lies below the first edge lies within the first bin: only what was none is none.
    found[:, 0] = beyond[:, 0]
    return found


def _read(beyond: Float, spreads: Float) -> Float:
    """What is expected beyond so many spreads of the log ratio, (N, LAW_BINS), by laws (N, LAW_BINS)."""
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
