"""A week of minute means, or four weeks of longer ones, and what the same time on earlier days says about now.

A slot is a minute, or a tick where that is longer. Its mean is kept as a number of 16 bits: the logarithm of (mean +
scale) / scale in steps of 1/2048, which is 0.05 %, and 0 for unknown.

For each of some earlier days the mean logarithm around this time is kept beside that of today, so that the demand then
at the time to come, moved by how today compares, is a forecast: the season. Moved by how just now compares, it is the
step that those days took next: what happens by the clock, sharper and noisier.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.settings import FIRST_WEEK, MEDIAN_SLOTS, NEAR_DAYS, Settings
from autoscaler.core.forecast.state import SEASONS, SeriesState
from autoscaler.core.types import Bool, Code, Float

_STEP = 1.0 / 2048.0
_MOST_CODE = 65_535.0
_MOST_LOG = 32.0


def encoded(ratio_log: Float) -> Code:
    """Codes of logarithms of (demand + scale) / scale, all known."""
    code = ratio_log * (1.0 / _STEP)
    code += 1.5
    np.minimum(code, _MOST_CODE, out=code)
    return code.astype(np.uint16)


def note(settings: Settings, state: SeriesState, now_s: float, demand: Float, usable: Bool | None) -> None:
    """Add a sample to its slot; where a slot ends, look at the median and the season anew."""
    slot = int(now_s // settings.slot_s)
    begins = slot != state.slot
    if settings.slot_s <= settings.params.tick_s:
        # A tick is a slot.
        if begins:
            _open(state, slot)
        code = encoded(
            np.log1p((demand if usable is None else np.where(usable, demand, 0.0)) / settings.params.scale)
        )
        if usable is not None:
            code *= usable
        state.codes[:, slot % state.codes.shape[1]] = code
    else:
        if begins:
            if state.slot >= 0:
                _write(settings, state)
            _open(state, slot)
            state.slot_sum.fill(0.0)
            state.slot_count.fill(0.0)
        if usable is None:
            state.slot_sum += demand
            state.slot_count += 1.0
        else:
            state.slot_sum += np.where(usable, demand, 0.0)
            state.slot_count += usable
    if begins:
        _look_back(settings, state)


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


def _look_back(settings: Settings, state: SeriesState) -> None:
    codes, length = state.codes, state.codes.shape[1]
    places = settings.looks + state.slot % length
    places -= (places >= length) * length
    places += (settings.series * length)[:, np.newaxis]
    found = codes.reshape(-1).take(places)
    recent = found[:, :MEDIAN_SLOTS].copy()
    recent.sort(axis=1)
    if recent[:, 0].all():
        state.median = _demand(settings, recent[:, MEDIAN_SLOTS // 2])
    else:
        unknown = np.add.reduce(recent == 0, axis=1)
        middle = np.minimum((unknown + MEDIAN_SLOTS) // 2, MEDIAN_SLOTS - 1)
        median = recent.reshape(-1).take(settings.series * MEDIAN_SLOTS + middle)
        state.median = np.where(median > 0, _demand(settings, median), state.median)

    logs = found[:, MEDIAN_SLOTS:].astype(np.float64)
    known = logs > 0.0
    logs -= 1.0
    logs *= _STEP
    paces = state.paces
    count = paces.shape[1]
    pace = logs[:, :count]
    moved = pace - paces
    moved *= settings.season_alpha
    moved += paces
    seen = known[:, :count]
    if state.unseasoned or np.count_nonzero(seen) < seen.size:
        moved = np.where(seen, np.where(np.isnan(paces), pace, moved), paces)
    state.paces = moved
    _expect(settings, state, logs[:, count:], known[:, count:], np.where(seen, pace, np.nan))


def _demand(settings: Settings, code: Code) -> Float:
    ratio = code - 1.0
    ratio *= _STEP
    found: Float = settings.params.scale * np.expm1(ratio)
    return found


def _expect(settings: Settings, state: SeriesState, logs: Float, known: Bool, pace: Float) -> None:
    """What earlier days and weeks say about the lead time: the logarithms (S, D * 3) then, moved by today's pace.

    Moved by the pace of some time it is what the day looks like, moved by that of just now it is the next step.
    """
    if not state.unseasoned and np.count_nonzero(known) == known.size:
        ahead = logs[:, 0::3] + logs[:, 1::3]
        ahead += logs[:, 2::3]
        ahead /= 3.0
    else:
        logs = np.where(known, logs, 0.0)
        count = np.where(known, 1.0, 0.0)
        total = logs[:, 0::3] + logs[:, 1::3] + logs[:, 2::3]
        count = count[:, 0::3] + count[:, 1::3] + count[:, 2::3]
        ahead = np.where(count > 0.0, total / np.maximum(count, 1.0), np.nan)
    season = state.track[:, SEASONS]
    _mean(ahead + pace[:, :1] - pace[:, 1:], season[:, 2])
    paces = state.paces
    ahead += paces[:, :1]
    ahead -= paces[:, 1:]
    _mean(ahead[:, :NEAR_DAYS], season[:, 0])
    _mean(ahead[:, FIRST_WEEK:], season[:, 1])
    np.minimum(season, _MOST_LOG, out=season)
    np.expm1(season, out=season)
    season *= settings.params.scale[:, np.newaxis]
    np.maximum(season, 0.0, out=season)
    state.unseasoned = int(np.count_nonzero(np.isnan(season)))


def _mean(logs: Float, found: Float) -> None:
    """The mean of what is known along the last axis into `found`, NaN where nothing is."""
    known = ~np.isnan(logs)
    count = np.count_nonzero(known)
    if count == known.size:
        found[:] = np.add.accumulate(logs, axis=1)[:, -1] * (1.0 / logs.shape[1])
    elif not count:
        found.fill(np.nan)
    else:
        total = np.add.accumulate(np.where(known, logs, 0.0), axis=1)[:, -1]
        each = np.add.reduce(known, axis=1)
        total *= 1.0 / np.maximum(each, 1)
        found[:] = np.where(each > 0, total, np.nan)
