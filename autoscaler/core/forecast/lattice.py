"""Bursts that recur on the clock (cron jobs, lessons, half-times): whether one is likely when a start ordered now serves.

Onsets of bursts are remembered. Now and then the phases of a few common periods are tested against chance: the gain in log
likelihood from one window with a share of the onsets over none, less a penalty for choosing the window. On the best accepted
period, each point has odds: how often a burst began at this time of day, and how often after that many quiet points, both shrunk
towards the overall frequency.

The hazard is a class on which distributions are learned, so it only has to rank: wrong odds, or a period that does not exist, cost
sample size but not calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.core.forecast.settings import DAY_S, Settings
from autoscaler.core.forecast.state import GAPS, POINTS, SeriesState
from autoscaler.core.types import Bool, BurstOdds, Float, Int

PERIODS_S = (300.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0)
"""Periods that are tested, in seconds."""
REMEMBERED_S = 14.0 * DAY_S
"""Onsets older than this are ignored."""
_BIN_S, _WINDOW_S = 20.0, 60.0
"""Width in seconds of a bin of phases, and of the window of phases that is tested; a tick if that is longer."""
_LEAST_ONSETS, _LEAST_GAIN, _PENALTY = 8, 6.0, 2.0
"""A lattice needs `_LEAST_ONSETS` onsets, and a gain in log likelihood of `_LEAST_GAIN` after `_PENALTY` and the logarithm of
the number of bins have been subtracted for choosing the window."""
_LEAST_WINDOWS = 4
"""A period must be at least this many windows long."""
_LEAN = 2.0
"""Pseudo-days with which the odds by time of day are shrunk towards the overall rate. The odds by gap are shrunk with eight
times as many pseudo-counts."""
_CERTAIN = np.array(1.0)
_CLASSES: Float = np.array([0.05, 0.3])
"""Odds from which on a point is in the next hazard class."""


def note(state: SeriesState, onset: Bool, now_s: float) -> None:
    """Remember that bursts begin now in some series, bool (S,)."""
    series = np.flatnonzero(onset)
    if len(series):
        ring = state.onsets.shape[1]
        state.onsets[series, state.onset_count[series] % ring] = now_s
        state.onset_count[series] += 1


@dataclass(slots=True)
class Marks:
    """For each of T ticks, the latest lattice point before a start ordered then serves; S series.

    Attributes:
        now_s: float64 (T,), times of the ticks.
        point: float64 (T, S), number of the point.
        begins_s: float64 (T, S), seconds from the phase to the point.
        of_day: int64 (T, S), place of that time of day in a flat (S, POINTS).
        near: bool (T, S), whether the start would serve within the point's window.
        any_near: For each tick, whether that is so for any series.
    """

    now_s: Float
    point: Float
    begins_s: Float
    of_day: Int
    near: Bool
    any_near: Sequence[bool]

    @classmethod
    def of(cls, settings: Settings, state: SeriesState, now_s: Sequence[float]) -> Marks | None:
        """Compute the points for these ticks; None if no series has a lattice."""
        if not state.lattices:
            return None
        some = state.period_s > 0.0
        length = np.where(some, state.period_s, DAY_S)
        times_s = np.array(now_s)[:, np.newaxis]
        served_s = times_s + settings.reach_s[:, 0] - state.phase_s
        point = np.floor(served_s / length)
        begins_s = point * length
        of_day = (point % np.round(DAY_S / length)).astype(np.int64)
        of_day += settings.series * POINTS
        near = served_s - begins_s < _window_s(settings.params.tick_s)
        near &= some
        return cls(times_s[:, 0], point, begins_s, of_day, near, np.logical_or.reduce(near, axis=1).tolist())

    def odds(self, settings: Settings, state: SeriesState, tick: int) -> Float:
        """Return the odds of a burst at the point of a tick, by time of day and points since the last burst: float64 (S,)."""
        logit = state.odds_of_day.reshape(-1).take(self.of_day[tick]).astype(np.float64)
        gap = np.minimum(np.maximum(self.point[tick] - state.last_point, 1.0), GAPS).astype(np.int64) - 1
        logit += state.odds_of_gap.reshape(-1).take(settings.series * GAPS + gap)
        found: Float = 1.0 / (1.0 + np.exp(-logit))
        return found


def hazard(settings: Settings, state: SeriesState, marks: Marks, tick: int) -> Int | None:
    """Return the hazard class at the time that a start ordered at a tick serves: int64 (S,); None if it is 0 everywhere."""
    if not marks.any_near[tick]:
        return None
    odds = np.where(marks.near[tick], marks.odds(settings, state, tick), 0.0)
    return _CLASSES.searchsorted(odds)


def burst_odds(settings: Settings, state: SeriesState, marks: Marks | None) -> BurstOdds:
    """Return how likely a burst is to run or begin by the time that a start ordered now serves.

    A running burst counts as certain. Otherwise, a burst at the next lattice point and one off the lattice, whose odds are
    its rate times the lead time, are taken as independent.

    Args:
        settings: The settings of the series.
        state: Holds the lattices and present bursts.
        marks: Lattice points of a single tick; None if no series has a lattice.
    """
    odds = state.stray * settings.reach_s[:, 0]
    stray = np.minimum(odds, _CERTAIN, out=odds)
    period = state.period_s.copy()
    if marks is None:
        at_s = np.empty(len(stray))
        at_s.fill(np.nan)
        if np.count_nonzero(state.age_s):
            np.copyto(stray, _CERTAIN, where=state.age_s > 0.0)
        return BurstOdds(stray, at_s, period)
    running = state.age_s > 0.0
    begins = marks.begins_s[0] + state.phase_s
    due = (period > 0.0) & (begins + _window_s(settings.params.tick_s) > marks.now_s[0])
    due &= (marks.point[0] > state.last_point) & ~running
    if np.count_nonzero(due):
        none = (1.0 - np.where(due, marks.odds(settings, state, 0), 0.0)) * (1.0 - stray)
    else:
        none = 1.0 - stray
    begins += state.behind_s
    return BurstOdds(np.where(running, 1.0, 1.0 - none), np.where(due, begins, np.nan), period)


def follow(settings: Settings, state: SeriesState, onset: Bool, now_s: float) -> None:
    """Record the lattice point of the bursts that begin now, bool (S,)."""
    if not state.lattices:
        return
    length = np.where(state.period_s > 0.0, state.period_s, DAY_S)
    early = _bin_s(settings.params.tick_s)
    since = now_s + early - state.phase_s
    point = np.floor(since / length)
    near = since - point * length < _window_s(settings.params.tick_s) + 3.0 * early
    state.last_point = np.where(onset & near & (state.period_s > 0.0), point, state.last_point)


def choose(settings: Settings, state: SeriesState, series: Int, now_s: float) -> None:
    """Look for lattices in the onsets of these series, int64 (N,), and learn the odds of their points."""
    tick_s = settings.params.tick_s
    onsets = state.onsets.take(series, axis=0)
    remembered = onsets > now_s - REMEMBERED_S
    count = np.add.reduce(remembered, axis=1)
    observed_s = np.minimum(state.ticks.take(series) * tick_s, REMEMBERED_S) + DAY_S
    state.period_s[series] = 0.0
    state.stray[series] = (count + 0.5) / observed_s
    enough = np.flatnonzero(count >= _LEAST_ONSETS)
    if len(enough):
        for place, (period_s, phase_s) in _best(onsets[enough], remembered[enough], tick_s).items():
            row = enough[place]
            at = int(series[row])
            state.period_s[at], state.phase_s[at] = period_s, phase_s
            times = np.sort(onsets[row][remembered[row]])
            _learn_odds(state, at, times, now_s, tick_s, float(observed_s[row]))
    state.lattices = int(np.count_nonzero(state.period_s))


def _best(onsets: Float, remembered: Bool, tick_s: float) -> dict[int, tuple[float, float]]:
    """Return the period and phase with the highest gain, by row, for the rows in which one is accepted.

    For each period, the window of phases with the most onsets is compared with chance. If a share q of m onsets lies in the
    window, and the window covers a share c of the period, the gain in log likelihood is

        m (q log(q / c) + (1 - q) log((1 - q) / (1 - c))) - log(bins) - _PENALTY

    Args:
        onsets: float64 (N, R), times of onsets.
        remembered: bool (N, R), which of them count; some in each row.
        tick_s: Length of a tick.
    """
    width, window = _bin_s(tick_s), _window_s(tick_s)
    count = np.add.reduce(remembered, axis=1)
    times, rows = np.where(remembered, onsets, 0.0), np.arange(len(onsets))[:, np.newaxis]
    best, most = dict[int, tuple[float, float]](), [_LEAST_GAIN] * len(count)
    for period_s in PERIODS_S:
        if period_s < _LEAST_WINDOWS * window:
            continue
        bins = round(period_s / width)
        phase = np.floor((times - np.floor(times / period_s) * period_s) / width).astype(np.int64)
        # Onsets that do not count go to an extra bin.
        cell = np.where(remembered, np.minimum(phase, bins - 1), bins) + rows * (bins + 1)
        found = np.bincount(cell.reshape(-1), minlength=len(count) * (bins + 1)).reshape(-1, bins + 1)[
            :, :bins
        ]
        within = found.copy()
        for after in range(1, round(window / width)):
            within += np.roll(found, -after, axis=1)
        first = within.argmax(axis=1)
        share, chance = within[rows[:, 0], first] / count, window / period_s
        penalty = math.log(bins) + _PENALTY
        rest = np.maximum(1.0 - share, 1e-300)
        rough = count * (share * np.log(share / chance) + rest * np.log(rest / (1.0 - chance))) - penalty
        # The exact sum is computed only for promising rows.
        for row in np.flatnonzero((share > chance) & (rough > _LEAST_GAIN - _ROUGH)).tolist():
            gain = _gain(int(count[row]), float(share[row]), chance) - math.log(bins) - _PENALTY
            if gain > most[row]:
                best[row], most[row] = (period_s, int(first[row]) * width), gain
    return best


_ROUGH = 1e-6
"""Bound of rounding errors of a gain; far more than they are."""


def _gain(count: int, share: float, chance: float) -> float:
    """Return the gain in log likelihood of a share of `count` onsets over the share expected by chance."""
    gain = count * share * math.log(share / chance)
    if share < 1.0:
        gain += count * (1.0 - share) * math.log((1.0 - share) / (1.0 - chance))
    return gain


def _learn_odds(
    state: SeriesState, at: int, times: Float, now_s: float, tick_s: float, observed_s: float
) -> None:
    """Learn the odds of the points of a series' lattice.

    With a rate r of bursts per lattice point overall, the odds at a time of day are (bursts + `_LEAN` r) / (days + `_LEAN`).
    The odds at a gap are those of a burst once that many points have passed since the last one, shrunk likewise; they are
    stored relative to r. `Marks.odds` adds both as log odds.

    Args:
        state: Updated in place.
        at: The series.
        times: float64, times of its onsets, ascending.
        now_s: The present time.
        tick_s: Length of a tick.
        observed_s: For how long onsets have been observed, in seconds.
    """
    period_s, phase_s = float(state.period_s[at]), float(state.phase_s[at])
    early = _bin_s(tick_s)
    since = times + early - phase_s
    point = np.floor(since / period_s)
    into = since - point * period_s
    on_lattice = into < _window_s(tick_s) + 3.0 * early
    points = np.unique(point[on_lattice])
    if len(points):
        state.behind_s[at] = max(float(np.median(into[on_lattice])) - early, 0.0)
    state.stray[at] = (np.count_nonzero(~on_lattice) + 0.5) / observed_s
    first, last = math.floor(times[0] / period_s), math.floor((now_s - phase_s) / period_s)
    tried = max(last - first + 1.0, len(points) + 1.0)
    rate = (len(points) + 0.5) / (tried + 1.0)
    of_day = round(DAY_S / period_s)
    fired = np.bincount((points % of_day).astype(np.int64), minlength=POINTS)[:POINTS]
    days = tried / of_day
    state.odds_of_day[at] = _logit((fired + _LEAN * rate) / (max(days, 1.0) + _LEAN), rate)
    state.odds_of_day[at] += math.log(rate / (1.0 - rate))
    gaps = np.minimum(np.diff(points), GAPS).astype(np.int64) - 1
    ended = np.bincount(gaps, minlength=GAPS)
    reached = len(gaps) - np.add.accumulate(ended) + ended
    state.odds_of_gap[at] = _logit((ended + 8.0 * _LEAN * rate) / (reached + 8.0 * _LEAN), rate)
    state.last_point[at] = points[-1] if len(points) else -GAPS


def _logit(odds: Float, rate: float) -> Float:
    """Return the log odds relative to those of `rate`."""
    odds = np.minimum(np.maximum(odds, 1e-3), 1.0 - 1e-3)
    found: Float = np.log(odds / (1.0 - odds)) - math.log(rate / (1.0 - rate))
    return found


def _bin_s(tick_s: float) -> float:
    """Return the width of a bin of phases, in seconds."""
    return max(_BIN_S, tick_s)


def _window_s(tick_s: float) -> float:
    """Return the width of the window of phases, in seconds: a whole number of bins."""
    width = _bin_s(tick_s)
    return width * max(1, math.ceil(_WINDOW_S / width))
