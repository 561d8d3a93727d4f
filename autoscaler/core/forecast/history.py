"""A week of minute means, and what the same time on earlier days says about now.

A slot is a minute, or a tick where that is longer. Its mean is kept as a number of 16 bits: the logarithm of (mean +
scale) / scale in steps of 1/2048, which is 0.05 %, and 0 for unknown.

For each of some earlier days the mean logarithm around this time is kept beside that of today, so that the demand then
at the time to come, moved by how today compares, is a forecast: the season.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.settings import DAY_S, DAYS_BACK, MEDIAN_SLOTS, Settings
from autoscaler.core.forecast.state import SEASONS, SeriesState
from autoscaler.core.types import Bool, Code, Float

_STEP = 1.0 / 2048.0
_MOST_CODE = 65_535.0
_MOST_LOG = 32.0
_BACK_S: Float = DAY_S * np.array(DAYS_BACK)


def encoded(ratio_log: Float) -> Code:
    """Codes of logarithms of (demand + scale) / scale, all known."""
    code = ratio_log * (1.0 / _STEP)
    code += 1.5
    np.minimum(code, _MOST_CODE, out=code)
    return code.astype(np.uint16)


def note(settings: Settings, state: SeriesState, now_s: float, demand: Float, usable: Bool | None) -> None:
    """Add a sample to its slot; where a slot ends, look at the median and the season anew."""
    slot = int(now_s // settings.slot_s)
    if slot != state.slot:
        if state.slot >= 0 and settings.slot_s > settings.params.tick_s:
            _write(settings, state)
        _open(state, slot)
        state.slot_sum.fill(0.0)
        state.slot_count.fill(0.0)
        fresh = True
    else:
        fresh = False
    if usable is None:
        state.slot_sum += demand
        state.slot_count += 1.0
    else:
        state.slot_sum += np.where(usable, demand, 0.0)
        state.slot_count += usable
    if settings.slot_s <= settings.params.tick_s:
        _write(settings, state)
    if fresh:
        _look_back(settings, state, now_s)


def _open(state: SeriesState, slot: int) -> None:
    """Slots that were skipped are unknown, as is the one that begins."""
    length = state.codes.shape[1]
    if state.slot < 0 or not 0 < slot - state.slot < length:
        if state.slot >= 0 and slot < state.slot and state.slot - slot < length:
            # The clock went back: what was noted after now is not of the past.
            state.codes[:, np.arange(slot, state.slot + 1) % length] = 0
        elif state.slot >= 0:
            state.codes.fill(0)
    elif slot - state.slot == 1:
        state.codes[:, slot % length] = 0
    else:
        state.codes[:, np.arange(state.slot + 1, slot + 1) % length] = 0
    state.slot = slot


def _write(settings: Settings, state: SeriesState) -> None:
    scale = settings.params.scale
    ratio = state.slot_sum / np.maximum(state.slot_count, 1.0)
    ratio /= scale
    code = encoded(np.log1p(ratio))
    if np.count_nonzero(state.slot_count) < len(code):
        code[state.slot_count == 0.0] = 0
    state.codes[:, state.slot % state.codes.shape[1]] = code


def _look_back(settings: Settings, state: SeriesState, now_s: float) -> None:
    codes, length = state.codes, state.codes.shape[1]
    # The newest slot that is complete.
    newest = state.slot - (settings.slot_s > settings.params.tick_s)
    recent = np.sort(codes[:, (newest - np.arange(MEDIAN_SLOTS)) % length], axis=1)
    unknown = np.add.reduce(recent == 0, axis=1)
    middle = np.minimum((unknown + MEDIAN_SLOTS) // 2, MEDIAN_SLOTS - 1)
    found = recent.reshape(-1).take(settings.series * MEDIAN_SLOTS + middle)
    state.median = np.where(found > 0, settings.params.scale * np.expm1((found - 1.0) * _STEP), state.median)

    back_s = now_s - _BACK_S
    then = np.empty((1 + len(DAYS_BACK),), np.int64)
    then[0] = newest
    then[1:] = back_s // settings.slot_s
    pace = codes[:, then % length].astype(np.float64)
    known = pace > 0.0
    pace -= 1.0
    pace *= _STEP
    paces = state.paces
    moved = paces + settings.season_alpha * (pace - paces)
    state.paces = paces = np.where(known, np.where(np.isnan(paces), pace, moved), paces)

    place = ((back_s + settings.lead_s[:, np.newaxis]) // settings.slot_s).astype(np.int64)
    ahead = _around(settings, codes, place)
    ahead += paces[:, :1]
    ahead -= paces[:, 1:]
    season = state.track[:, SEASONS]
    days = ahead[:, :3]
    there = ~np.isnan(days)
    count = np.add.accumulate(there, axis=1, dtype=np.float64)[:, -1]
    days = np.add.accumulate(np.where(there, days, 0.0), axis=1)[:, -1]
    season[:, 0] = np.where(count > 0, days / np.maximum(count, 1.0), np.nan)
    season[:, 1] = ahead[:, 3]
    np.expm1(np.minimum(season, _MOST_LOG), out=season)
    season *= settings.params.scale[:, np.newaxis]
    np.maximum(season, 0.0, out=season)
    state.unseasoned = int(np.count_nonzero(np.isnan(season)))


def _around(settings: Settings, codes: Code, place: Float) -> Float:
    """Logarithms at these slots (S, D), over the neighbours too where slots are short; NaN where unknown."""
    length = codes.shape[1]
    rows = (settings.series * length)[:, np.newaxis]
    flat = codes.reshape(-1)
    total, count = np.zeros(place.shape), np.zeros(place.shape)
    for beside in (-1, 0, 1) if settings.slot_s <= 120.0 else (0,):
        code = flat.take((place + beside) % length + rows).astype(np.float64)
        total += code
        count += code > 0.0
    found: Float = np.where(count > 0.0, (total / np.maximum(count, 1.0) - 1.0) * _STEP, np.nan)
    return found
