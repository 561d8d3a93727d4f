"""History of demand: a week of one-minute means (four weeks of longer ones), and what the same time of day predicts.

A slot is a minute, or a tick if that is longer. Its mean is stored in 16 bits: the logarithm of (mean + scale) / scale in steps
of 1/2048, which is 0.05 %, and 0 for unknown.

For each of several earlier days, the mean logarithm around this time is compared with today's. That day's demand at the target
time, shifted by today's difference, is one forecast: the season. Shifted by the difference just now, it is the step that those
days took next: it captures what happens by the clock, and is sharper but noisier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autoscaler.core.forecast.settings import FIRST_WEEK, MEDIAN_SLOTS, MOST_ALONE, NEAR_DAYS, Settings
from autoscaler.core.forecast.state import SEASONS, SeriesState, slots_first
from autoscaler.core.types import Bool, Code, Float, Int

_STEP = 1.0 / 2048.0
"""Step of the stored logarithms."""
_MOST_CODE = 65_535.0
_MOST_LOG = 32.0
_MANY = 64
"""From this many series on, adding day by day is faster than `np.add.accumulate`."""
_WINDOWS = np.arange(MOST_ALONE)[:, np.newaxis] + np.arange(MEDIAN_SLOTS)
"""Row t holds the places of the slots whose median is taken at tick t, in a run of slots."""


class _ReadCodes(NamedTuple):
    """Codes that are read at each of N beginnings of a slot.

    Attributes:
        recent: uint16 (N, S, MEDIAN_SLOTS), codes of the latest slots, in any order.
        others: uint16 (N, 1 + D + 3 * D, S), codes of the newest slot and of those on earlier days, in the order of
            `Settings.looks`.
    """

    recent: Code
    others: Code

    @classmethod
    def allocate(cls, settings: Settings, beginnings: int) -> _ReadCodes:
        """Allocate arrays, which `read` fills in."""
        series = len(settings.series)
        others = np.empty((beginnings, settings.looks.shape[1], series), np.uint16)
        return cls(np.empty((beginnings, series, MEDIAN_SLOTS), np.uint16), others)

    def read(self, at: int, settings: Settings, state: SeriesState, slot: int, places: Int) -> None:
        """Fill in the codes for beginning `at`, at which `slot` opens; `places` is from `_places`."""
        codes, recent, others = slots_first(state.codes), self.recent[at], self.others[at]
        end = (slot + settings.newest) % settings.slots + 1
        if end >= MEDIAN_SLOTS:
            recent[:] = codes[end - MEDIAN_SLOTS : end].T
        else:
            recent[:, :end] = codes[:end].T
            recent[:, end:] = codes[end - MEDIAN_SLOTS :].T
        _fetch(codes, places, others)


def _fetch(codes: Code, places: Int, found: Code) -> None:
    """Copy the codes at places from `_places` into `found`; codes are uint16 (slots, S)."""
    if places.ndim < found.ndim:
        codes.take(places, axis=0, out=found, mode="clip")
    else:
        codes.reshape(-1).take(places, out=found, mode="clip")


def encoded(ratio_log: Float) -> Code:
    """Return the codes of logarithms of (demand + scale) / scale, all known."""
    code = ratio_log * (1.0 / _STEP)
    code += 1.5
    np.minimum(code, _MOST_CODE, out=code)
    return code.astype(np.uint16)


def note(
    settings: Settings, state: SeriesState, now_s: Sequence[float], demand: Float, usable: Bool | None
) -> tuple[Float, Float]:
    """Add samples to their slots; when a slot begins, compute the median and the season again.

    Args:
        settings: The settings of the series.
        state: Updated in place, except for the season in its `track`.
        now_s: Times of the T ticks.
        demand: float64 (T, S), work per second.
        usable: bool (T, S), whether it may be learned from; None if it may everywhere.

    Returns:
        The medians before each tick, float64 (T, S), and the seasons after it, float64 (T, S, 3).
    """
    slots = [int(now // settings.slot_s) for now in now_s]
    before = [state.slot, *slots[:-1]]
    begins = [tick for tick, slot in enumerate(slots) if slot != before[tick]]
    median, season = state.median, state.track[:, SEASONS]
    add = _by_tick if settings.slot_s <= settings.params.tick_s else _by_slot
    found = add(settings, state, slots, demand, usable)
    if len(slots) == 1:
        if not begins:
            return median[np.newaxis], season[np.newaxis]
        medians, seasons = _medians_and_seasons(settings, state, found)
        return median[np.newaxis], seasons
    if not begins:
        return median[np.newaxis].repeat(len(slots), axis=0), season[np.newaxis].repeat(len(slots), axis=0)
    new_medians, new_seasons = _medians_and_seasons(settings, state, found)
    if len(begins) == len(slots):
        return np.concatenate([median[np.newaxis], new_medians[:-1]]), new_seasons
    # The number of slots that have begun by each tick.
    begun = np.array(begins).searchsorted(np.arange(len(slots)), side="right")
    medians = np.concatenate([median[np.newaxis], new_medians])
    seasons = np.concatenate([season[np.newaxis], new_seasons])
    return medians.take(np.append(0, begun[:-1]), axis=0), seasons.take(begun, axis=0)


def _by_tick(
    settings: Settings, state: SeriesState, slots: Sequence[int], demand: Float, usable: Bool | None
) -> _ReadCodes:
    """Add samples to slots of one tick each, and return what is read at the N beginnings of a slot."""
    code = encoded(
        np.log1p((demand if usable is None else np.where(usable, demand, 0.0)) / settings.params.scale)
    )
    if usable is not None:
        code *= usable
    if _are_independent(settings, state, slots):
        return _write_and_read(settings, state, slots, code)
    places, found, count = _places(settings, slots), _ReadCodes.allocate(settings, len(slots)), 0
    for tick, slot in enumerate(slots):
        begins = slot != state.slot
        if begins:
            _open(state, slot)
        slots_first(state.codes)[slot % settings.slots] = code[tick]
        if begins:
            found.read(count, settings, state, slot, places[tick])
            count += 1
    return _ReadCodes(found.recent[:count], found.others[:count])


def _are_independent(settings: Settings, state: SeriesState, slots: Sequence[int]) -> bool:
    """Return whether the slots follow the open one, and are so few that none reads another one as an earlier day's."""
    count = len(slots)
    if count == 1 or state.slot < 0 or slots[0] - state.slot != 1 or slots[-1] - state.slot != count:
        return False
    back = settings.looks[:, 1:]
    return bool(np.minimum.reduce(back, axis=None) > 0) and bool(
        np.maximum.reduce(back, axis=None) <= settings.slots - count
    )


def _write_and_read(settings: Settings, state: SeriesState, slots: Sequence[int], code: Code) -> _ReadCodes:
    """Write the codes of slots that are apart, uint16 (T, S), and return what is read at their beginnings."""
    count, newest = len(slots), np.arange(slots[0] + 1 - MEDIAN_SLOTS, slots[-1] + 1) % settings.slots
    found, places = _ReadCodes.allocate(settings, count), _places(settings, slots)
    codes = slots_first(state.codes)
    _fetch(codes, places, found.others)
    found.others[:, 0] = code
    codes[newest[MEDIAN_SLOTS - 1 :]] = code
    recent = codes.take(newest, axis=0).take(_WINDOWS[:count], axis=0)
    found = _ReadCodes(recent.swapaxes(1, 2).copy(), found.others)
    state.slot = slots[-1]
    return found


def _by_slot(
    settings: Settings, state: SeriesState, slots: Sequence[int], demand: Float, usable: Bool | None
) -> _ReadCodes:
    """Add samples to slots longer than a tick, and return what is read at the beginnings of slots."""
    if usable is not None:
        demand = np.where(usable, demand, 0.0)
    ends = [tick for tick in range(1, len(slots)) if slots[tick] != slots[tick - 1]]
    found, count = _ReadCodes.allocate(settings, 1 + len(ends)), 0
    for first, end in zip([0, *ends], [*ends, len(slots)], strict=True):
        slot = slots[first]
        if slot != state.slot:
            if state.slot >= 0:
                _write(settings, state)
            _open(state, slot)
            state.slot_sum.fill(0.0)
            state.slot_count.fill(0.0)
            found.read(count, settings, state, slot, _places(settings, [slot])[0])
            count += 1
        for tick in range(first, end):
            state.slot_sum += demand[tick]
            state.slot_count += 1.0 if usable is None else usable[tick]
    return _ReadCodes(found.recent[:count], found.others[:count])


def _places(settings: Settings, slots: Sequence[int]) -> Int:
    """Return the places to read at these slots: int64 (N, K), the same for all series, or (N, K, S) in a flat (slots, S)."""
    if len(slots) == 1:
        places = settings.looks[np.newaxis] + slots[0] % settings.slots
    else:
        places = settings.looks + (np.array(slots) % settings.slots)[:, np.newaxis, np.newaxis]
    places -= (places >= settings.slots) * settings.slots
    if len(settings.looks) == 1:
        return places[:, 0]
    places *= len(settings.series)
    places += settings.series[:, np.newaxis]
    return places.swapaxes(1, 2)


def _open(state: SeriesState, slot: int) -> None:
    """Open a slot: it is unknown so far, as are slots that were skipped."""
    codes = slots_first(state.codes)
    length = len(codes)
    if state.slot < 0 or not 0 < slot - state.slot < length:
        if state.slot >= 0 and slot < state.slot and state.slot - slot < length:
            # The clock went back, so slots after the present one are not of the past.
            codes[np.arange(slot, state.slot + 1) % length] = 0
        elif state.slot >= 0:
            codes.fill(0)
    elif slot - state.slot == 1:
        codes[slot % length] = 0
    else:
        codes[np.arange(state.slot + 1, slot + 1) % length] = 0
    state.slot = slot


def _write(settings: Settings, state: SeriesState) -> None:
    """Write the mean of the open slot to the history."""
    scale = settings.params.scale
    ratio = state.slot_sum / np.maximum(state.slot_count, 1.0)
    ratio /= scale
    code = encoded(np.log1p(ratio))
    if np.count_nonzero(state.slot_count) < len(code):
        code[state.slot_count == 0.0] = 0
    slots_first(state.codes)[state.slot % settings.slots] = code


def _medians_and_seasons(settings: Settings, state: SeriesState, found: _ReadCodes) -> tuple[Float, Float]:
    """Compute medians, (N, S), and seasons, (N, S, 3), from the codes that were read."""
    recent = found.recent
    recent.sort(axis=-1)
    if recent[..., 0].all():
        median = _demand(settings, recent[..., MEDIAN_SLOTS // 2])
    else:
        unknown = np.add.reduce(recent == 0, axis=-1)
        middle = np.minimum((unknown + MEDIAN_SLOTS) // 2, MEDIAN_SLOTS - 1)
        rows = np.arange(middle.size).reshape(middle.shape)
        code = recent.reshape(-1).take(rows * MEDIAN_SLOTS + middle)
        median = _demand(settings, code)
        was = state.median
        for at, known in enumerate(code > 0):
            was = median[at] = np.where(known, median[at], was)
    state.median = median[-1].copy()

    count = state.paces.shape[1]
    days = _days_known(found.others, count - 1)
    others = found.others if days == count - 1 else _first_days(found.others, count, days)
    logs = others.astype(np.float64)
    known = logs > 0.0
    logs -= 1.0
    logs *= _STEP
    pace, seen = logs[:, : 1 + days], known[:, : 1 + days]
    paces = _paces(settings, state, pace, seen)
    season = _expected(
        settings, paces, logs[:, 1 + days :], known[:, 1 + days :], np.where(seen, pace, np.nan)
    )
    return median, season


def _days_known(others: Code, days: int) -> int:
    """Return the number of earlier days, of `days`, up to the last one that is known for any series."""
    end = others.shape[1]
    while days and not (np.count_nonzero(others[:, days]) or np.count_nonzero(others[:, end - 3 : end])):
        days, end = days - 1, end - 3
    return days


def _first_days(others: Code, count: int, days: int) -> Code:
    """Return the part of `_ReadCodes.others` that concerns the first `days` of the earlier days."""
    return np.concatenate([others[:, : 1 + days], others[:, count : count + 3 * days]], axis=1)


def _paces(settings: Settings, state: SeriesState, pace: Float, seen: Bool) -> Float:
    """Move the means of the logarithm of demand towards what was read, and return them: float64 (N, 1 + D, S).

    Args:
        settings: The settings of the series.
        state: Its `paces` are updated; those of days beyond D stay.
        pace: float64 (N, 1 + D, S), logarithms of the newest slot, and of the same time on D earlier days.
        seen: bool (N, 1 + D, S), whether they are known.
    """
    found = np.empty(pace.shape)
    was = state.paces[:, : pace.shape[1]].T.copy()
    if len(pace) > 1 and pace.shape[2] == 1:
        # On plain numbers, because numpy calls take far longer.
        alpha, means = settings.season_alpha.item(), was[:, 0].tolist()
        for column, mean in enumerate(means):
            moved = []
            for now, is_seen in zip(pace[:, column, 0].tolist(), seen[:, column, 0].tolist(), strict=True):
                if is_seen:
                    # A mean that is not known yet (NaN) begins at the first value.
                    mean = mean + (now - mean) * alpha if mean == mean else now  # noqa: PLR0124, PLW2901
                moved.append(mean)
            found[:, column, 0] = moved
        state.paces[:, : pace.shape[1]] = found[-1].T
        return found
    everything = np.count_nonzero(seen) == seen.size and not np.count_nonzero(np.isnan(was))
    for at, now in enumerate(pace):
        moved = np.subtract(now, was, out=found[at])
        moved *= settings.season_alpha
        moved += was
        if not everything:
            found[at] = np.where(seen[at], np.where(np.isnan(was), now, moved), was)
        was = found[at]
    state.paces[:, : pace.shape[1]] = was.T
    return found


def _demand(settings: Settings, code: Code) -> Float:
    """Return the demand that codes stand for."""
    ratio = code - 1.0
    ratio *= _STEP
    found: Float = settings.params.scale * np.expm1(ratio)
    return found


def _expected(settings: Settings, paces: Float, logs: Float, known: Bool, pace: Float) -> Float:
    """Return what earlier days say about demand at the lead time, float64 (N, S, 3): by days, by weeks, and the next step.

    The demand of an earlier day at that time is shifted, in logarithms, by today's difference from that day. The seasons take
    the difference over some time (`paces`), the next step takes the difference just now.

    Args:
        settings: The settings of the series.
        paces: float64 (N, 1 + D, S), means of logarithms: of today, and of each earlier day.
        logs: float64 (N, 3 * D, S), logarithms of three slots around the target time on each earlier day.
        known: bool (N, 3 * D, S), whether they are known.
        pace: float64 (N, 1 + D, S), logarithms just now, and at this time on each earlier day; NaN if unknown.
    """
    if np.count_nonzero(known) == known.size:
        ahead = logs[:, 0::3] + logs[:, 1::3]
        ahead += logs[:, 2::3]
        ahead /= 3.0
    else:
        logs = np.where(known, logs, 0.0)
        count = np.where(known, 1.0, 0.0)
        total = logs[:, 0::3] + logs[:, 1::3] + logs[:, 2::3]
        count = count[:, 0::3] + count[:, 1::3] + count[:, 2::3]
        ahead = np.where(count > 0.0, total / np.maximum(count, 1.0), np.nan)
    season = np.empty((len(ahead), 3, ahead.shape[2]))
    _mean(ahead + pace[:, :1] - pace[:, 1:], season[:, 2])
    ahead += paces[:, :1]
    ahead -= paces[:, 1:]
    _mean(ahead[:, :NEAR_DAYS], season[:, 0])
    _mean(ahead[:, FIRST_WEEK:], season[:, 1])
    np.minimum(season, _MOST_LOG, out=season)
    np.expm1(season, out=season)
    season *= settings.params.scale
    np.maximum(season, 0.0, out=season)
    return season.swapaxes(1, 2)


def _mean(logs: Float, found: Float) -> None:
    """Write the mean of the known values along the second axis to `found`; NaN if none is known."""
    if not logs.shape[1]:
        found.fill(np.nan)
        return
    known = ~np.isnan(logs)
    count = np.count_nonzero(known)
    if count == known.size:
        np.multiply(_total(logs), 1.0 / logs.shape[1], out=found)
    elif not count:
        found.fill(np.nan)
    else:
        total = _total(np.where(known, logs, 0.0))
        each = np.add.reduce(known, axis=1)
        total *= 1.0 / np.maximum(each, 1)
        found[...] = np.where(each > 0, total, np.nan)


def _total(logs: Float) -> Float:
    """Return the sums along the second axis, added in order: float64 (N, S)."""
    if logs.shape[2] < _MANY:
        total: Float = np.add.accumulate(logs, axis=1)[:, -1]
        return total
    # numpy's accumulate goes through the days series by series.
    total = logs[:, 0].copy()
    for each in range(1, logs.shape[1]):
        total += logs[:, each]
    return total
