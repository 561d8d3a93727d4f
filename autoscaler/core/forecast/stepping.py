"""`step`: learn from the new samples, then say what is to be expected.

Rules of this file: a sample is judged against forecasts made before it, then it may change what is expected. Missing and
impossible samples teach nothing; nor does what saturation hides, or a window in which it hid something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from autoscaler.core.forecast import bursts, history, lattice, level
from autoscaler.core.forecast.issuing import expect
from autoscaler.core.forecast.judging import judge
from autoscaler.core.forecast.saying import Kept, said, say
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.state import LAST, MEANS, SEASONS, TOP, USUAL, SeriesState
from autoscaler.core.params import SeriesParams
from autoscaler.core.types import Bool, Float, Freshness, Int, Outlook, Samples

BACK_S = 300.0
"""A clock that goes back by less holds still for the forecaster; by more, time begins anew there."""
YOUNG, YOUNG_TICKS = 8, 8
"""A series is fitted so many times as often until it is as many fits old, where that is not more often than so many ticks."""
CHOICE_FITS = 4
"""Fits of the level to one look for a lattice, about once an hour."""
TOGETHER = 256
"""Outlooks, of ticks times series, that are put into words together."""
_MOST_DEMAND = 1e15
_HEAVY = 2.0**40
_CHILDHOOD = 20.0
_MOST_GRAIN = 2.0
"""The grain of the noise is at most this many times the usual demand."""
_CLIP = 3.0
"""A sample moves a mean as if it were at most this many times the mean (and as many VMs), so that one wild sample is
soon forgotten."""


def step(params: SeriesParams, state: SeriesState, samples: Samples) -> Outlook:
    """Learn from the new samples and issue the predictive distribution.

    Args:
        params: Horizons and forgetting, over S series; not to be changed afterwards.
        state: Updated in place.
        samples: One per series; called once a tick, ticks may be skipped. A second call within a tick
            replaces the sample and learns nothing more. Values that are no demand (negative, not a number)
            count as missing.

    Returns:
        The Outlook issued at `samples.now_s`.
    """
    settings = note(params, state, samples)
    expected = expect(settings, state, samples.censored, samples.now_s)
    return say(settings, state, expected, samples.now_s)


def steps(params: SeriesParams, state: SeriesState, samples: Iterable[Samples]) -> Iterator[Outlook]:
    """What `step` says tick by tick, to the bit, of many ticks together, for less than half of its time.

    Samples must be known beforehand, so this is for replays.

    Args:
        params: As for `step`.
        state: Updated in place as the Outlooks are taken.
        samples: As for `step`, one tick after the other.

    Yields:
        Outlooks of a tick or of some, which follow each other along their axis of series: as many for each tick as
        there are series. They do not tell of bursts.
    """
    if len(params.event_odds):
        for each in samples:
            yield step(params, state, each)
        return
    kept, most = None, max(1, TOGETHER // max(1, len(params.scale)))
    for each in samples:
        settings = note(params, state, each)
        expected = expect(settings, state, each.censored, each.now_s)
        kept = Kept(settings, most) if kept is None else kept
        kept.keep(state, expected)
        if len(kept) == most:
            yield said(settings, kept.taken())
    if kept:
        yield said(settings, kept.taken())


def learn(params: SeriesParams, state: SeriesState, samples: Samples) -> None:
    """Learn from samples of the past as if they had been lived through, without saying what was expected then.

    The state is to the bit what `step` would have left, for about half of its time, and less where there are laws. Many
    series are learned side by side in hardly more time than one.

    Args:
        params: As for `step`.
        state: Updated in place.
        samples: As for `step`, one tick after the other; ticks may be missing.
    """
    expect(note(params, state, samples), state, samples.censored, samples.now_s)


def note(params: SeriesParams, state: SeriesState, samples: Samples) -> Settings:
    """Learn from the new samples, without saying anything; the other half of `step`."""
    settings = state.settings
    if settings is None or settings.params is not params:
        settings = state.settings = Settings.of(params)
    tick = int(samples.now_s // params.tick_s)
    demand, known, usable = _read(state, samples)
    since = tick - state.last_tick if state.last_tick >= 0 else 1
    if since < 0 and -since * params.tick_s > BACK_S:
        _begin_anew(state)
        since = 1
    if state.unborn:
        _bear(settings, state, demand)
    if since <= 0:
        _replace(settings, state, demand)
        return settings
    _grow(settings, state, since)
    if since > 1:
        _skip(settings, state, tick)
    state.last_tick = tick
    _note_block(state, demand, known, usable)
    for group in settings.groups:
        if (tick + 1) % group.stride == 0:
            judge(settings, group, state, tick, demand, usable)
    _follow(settings, state, demand, since)
    _watch(settings, state, demand, since, samples.now_s)
    history.note(settings, state, samples.now_s, demand, usable)
    _refit(settings, state, tick, samples.now_s)
    if state.weight[0] > _HEAVY or (tick % 4096 == 0 and (state.weight > _HEAVY).any()):
        _lighten(state)
    return settings


def _grow(settings: Settings, state: SeriesState, ticks: int) -> None:
    """Let older outcomes weigh less. What was learned in a short life is forgotten over about half of that life."""
    growth: Float = settings.growth if ticks == 1 else settings.growth ** np.minimum(ticks, settings.long_ago)
    if not state.grown:
        state.grown = int(state.ticks.min(initial=settings.grown_ticks)) >= settings.grown_ticks
        growth = np.maximum(growth, 1.0 + 1.0 / (state.ticks + _CHILDHOOD))
    state.weight *= growth


def _read(state: SeriesState, samples: Samples) -> tuple[Float, Bool | None, Bool | None]:
    """Demand with the last value where it is not known, where it is, and where it may be learned from; None: everywhere."""
    demand = samples.demand
    possible = demand >= 0.0
    possible &= demand < _MOST_DEMAND
    if np.count_nonzero(samples.freshness):
        possible &= samples.freshness == int(Freshness.FRESH)
    known = None if np.count_nonzero(possible) == len(possible) else possible
    if known is not None:
        demand = np.where(known, demand, state.track[:, LAST])
    usable = known
    if np.count_nonzero(samples.censored):
        usable = ~samples.censored if known is None else known & ~samples.censored
    return demand, known, usable


def _watch(settings: Settings, state: SeriesState, demand: Float, ticks: int, now_s: float) -> None:
    """Look out for bursts."""
    if settings.swift_alpha < 1.0:
        state.swift += settings.swift_alpha * (demand - state.swift)
    else:
        state.swift = demand
    onset = bursts.note(settings, state, state.swift, ticks)
    if np.count_nonzero(onset):
        lattice.note(state, onset, now_s)
        lattice.follow(settings, state, onset, now_s)


def _bear(settings: Settings, state: SeriesState, demand: Float) -> None:
    """First samples are their own means, and by their digits decide when a series is fitted, so that not all are at once."""
    new = np.flatnonzero(np.isnan(state.track[:, LAST]) & ~np.isnan(demand))
    if len(new):
        unseasoned = state.track[new, SEASONS]
        state.track[new] = demand[new, np.newaxis]
        state.track[new, SEASONS] = unseasoned
        state.base[new] = state.median[new] = state.swift[new] = demand[new]
        state.phase[new] = (demand[new] * 7919.0 % settings.refit_ticks).astype(np.int64)
        state.unborn -= len(new)


def _replace(settings: Settings, state: SeriesState, demand: Float) -> None:
    """Another sample of the tick that was noted last."""
    del settings
    state.track[:, LAST] = demand
    np.maximum(state.track[:, TOP], demand, out=state.track[:, TOP])


def _note_block(state: SeriesState, demand: Float, known: Bool | None, usable: Bool | None) -> None:
    value = demand
    if usable is not None:
        hidden = np.nan if known is None else np.where(known, np.inf, np.nan)
        value = np.where(usable, demand, np.inf if known is None else hidden)
    np.fmax(state.open, value[:, np.newaxis], out=state.open)


def _skip(settings: Settings, state: SeriesState, tick: int) -> None:
    """Ticks that never came: blocks that ended within them are unknown, and nothing was issued in them."""
    ring = state.blocks.shape[1]
    for group in settings.groups:
        first, end = (state.last_tick + 1) // group.stride, tick // group.stride
        if end == first:
            continue
        rows = np.arange(max(first, end - ring), end) % ring
        mine = np.True_ if group.mine is None else group.mine[:, np.newaxis]
        blocks = state.blocks[:, :, group.columns]
        blocks[:, rows] = np.where(mine, np.nan, blocks[:, rows])
        issued = state.issued[:, :, group.columns]
        where = mine if group.mine is None else group.mine[:, np.newaxis, :, np.newaxis]
        issued[:, rows] = np.where(where, np.nan, issued[:, rows])
        column = state.open[:, group.columns]
        column[:] = np.where(True if group.mine is None else group.mine, np.nan, column)


def _begin_anew(state: SeriesState) -> None:
    """The clock went back: what waits for its outcome waits in vain."""
    for array in (state.issued, state.blocks, state.open):
        array.fill(np.nan)
    state.last_tick = -1


def _follow(settings: Settings, state: SeriesState, demand: Float, ticks: int) -> None:
    """Move the means towards the sample."""
    track = state.track
    track[:, LAST] = demand
    means = track[:, USUAL : MEANS.stop]
    room = means * _CLIP
    room += (_CLIP * settings.unit)[:, np.newaxis]
    np.minimum(room, demand[:, np.newaxis], out=room)
    room -= means
    state.ticks += 1
    alphas: Float = settings.alphas if ticks == 1 else 1.0 - (1.0 - settings.alphas) ** ticks
    if not state.grown:
        # The first samples make a plain mean.
        alphas = np.maximum(alphas, 1.0 / (state.ticks + 1.0)[:, np.newaxis])
    room *= alphas
    means += room
    top = track[:, TOP]
    top *= 1.0 - settings.top_alpha if ticks == 1 else (1.0 - settings.top_alpha) ** ticks
    np.maximum(top, demand, out=top)


def _refit(settings: Settings, state: SeriesState, tick: int, now_s: float) -> None:
    is_due = state.phase == tick % settings.refit_ticks
    often = settings.refit_ticks // YOUNG
    if often >= YOUNG_TICKS and not state.grown:
        # What was learned from little is soon known better, and until then a poor fit would stay for long.
        is_due |= (state.ticks < YOUNG * settings.refit_ticks) & (state.phase % often == tick % often)
        is_due &= state.phase >= 0
    due = np.flatnonzero(is_due)
    if len(due):
        state.fits[due] = level.fitted(
            state.sums[due] / state.weight[due, np.newaxis, np.newaxis], settings.prior[due]
        )
        _regrain(settings, state, due)
        if tick // settings.refit_ticks % CHOICE_FITS == 0:
            lattice.choose(settings, state, due, now_s)


def _regrain(settings: Settings, state: SeriesState, due: Int) -> None:
    """Set what is added to both sides of a ratio by the grain of the noise.

    Where demand comes in lumps, as requests that each occupy a VM do, its spread grows as the root of demand and not
    with demand. Ratios of demand plus the grain (mean distance squared over mean demand; for a Poisson law of
    lumps, about two thirds of a lump) have the same spread at all levels. In steps of two, so that it seldom changes.
    """
    scale = settings.params.scale[due]
    miss = state.miss[due]
    usual = np.maximum(state.track[due, USUAL], 1e-300)
    grain = np.minimum(miss * miss / usual, _MOST_GRAIN * usual)
    wanted = np.log2(np.maximum(grain / scale, 1.0))
    steps = np.log2(state.offset[due] / scale)
    off = np.flatnonzero(np.abs(wanted - steps) > 0.75)
    if len(off):
        moved = due[off]
        state.offset[moved] = scale[off] * 2.0 ** np.floor(wanted[off] + 0.5)
        state.issued[moved] = np.nan


def _lighten(state: SeriesState) -> None:
    """Weigh all that was learned anew, so that no weight overflows."""
    weight = np.where(state.weight > _HEAVY, state.weight, 1.0)
    state.tables /= weight.astype(np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    state.totals /= weight[:, np.newaxis, np.newaxis]
    state.sums /= weight[:, np.newaxis, np.newaxis]
    state.weight /= weight
