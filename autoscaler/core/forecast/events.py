"""Known events: what the policy says is coming, as prior odds that demand will be some times what it is without bursts.

Before an event begins, and for some minutes after, when demand may still be on its way, a law becomes a mixture: with the
event's odds demand lies around `factor` times the demand without bursts, else it is as expected without the event. Once
demand has come, the forecaster sees it itself.

Rules of this file: no calendar; `config` compiles days and time zones to epoch seconds.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.laws import EDGES
from autoscaler.core.types import LAW_BINS, LAW_LOW, LAW_STEP, Float, SmallFloat

STILL_COMING_S = 600.0
"""So long after its beginning an event may not have shown in demand yet."""
_MOST_SHIFT = 5.0


def mix(
    settings: Settings,
    state: SeriesState,
    now_s: float,
    beyond: SmallFloat,
    log_level: Float,
    spread: Float,
) -> None:
    """Let what is expected beyond each edge, (S, H, LAW_BINS), take the events ahead into account, in place.

    Args:
        settings: Of the series, with their events.
        state: For the demand without bursts.
        now_s: Time of the forecast.
        beyond: As `tables.survival` gives it.
        log_level: float64 (S, H), logarithm of level and offset.
        spread: float64 (S, H).
    """
    params = settings.params
    until = np.minimum(params.event_end_s, params.event_start_s + STILL_COMING_S)
    coming = (now_s < until) & (params.event_start_s <= now_s + settings.farthest_s)
    for row in np.unique(np.nonzero(coming)[0]).tolist():
        start_s, until_s, factor, odds = (
            each[row] for each in (params.event_start_s, until, params.event_factor, params.event_odds)
        )
        ahead = start_s[:, np.newaxis] <= now_s + settings.reach_s
        ahead &= (now_s < until_s)[:, np.newaxis]
        ahead &= ~np.isnan(log_level)
        rows, columns = np.nonzero(ahead)
        # The mean without bursts follows an event that has begun, the median only later: twice would be too much.
        calm = np.where(
            factor > 1.0, np.minimum(state.base, state.median), np.maximum(state.base, state.median)
        )
        level = np.log(factor * calm + state.offset)[rows] - log_level[rows, columns]
        shift = np.minimum(np.maximum(level, -_MOST_SHIFT), _MOST_SHIFT)
        share = odds[rows, np.newaxis]
        usual = beyond[rows, columns].astype(np.float64)
        moved = _moved(usual, shift / spread[rows, columns])
        beyond[rows, columns] = usual + share * (moved - usual)


def _moved(beyond: Float, spreads: Float) -> Float:
    """The same laws (N, LAW_BINS), all outcomes moved up by so many spreads (N,) of the log ratio."""
    place = np.arcsinh(EDGES[:-1] - spreads[:, np.newaxis])
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
