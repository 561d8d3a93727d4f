"""`step`: learn from the new samples, then issue a forecast.

Rules of this file: earlier forecasts are first judged by a sample, and only then does the sample change the forecast. Nothing is
learned from missing and impossible samples, from demand hidden by saturation, or from a window that contains hidden demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autoscaler.core.demand_falls import Falls
from autoscaler.core.forecast import coverage, demand_outages, lattice, level
from autoscaler.core.forecast.issuing import Predictors, expect
from autoscaler.core.forecast.judging import Outcomes, Updates, count_in, judge, logs
from autoscaler.core.forecast.lattice import Marks
from autoscaler.core.forecast.readout import ReadoutBasis, Readouts, issue_outlook
from autoscaler.core.forecast.settings import Settings
from autoscaler.core.forecast.single_series import Alone
from autoscaler.core.forecast.state import LAST, SEASONS, USUAL, SeriesState, slots_first
from autoscaler.core.forecast.tick_runs import HEAVY, split_rows, split_stream
from autoscaler.core.forecast.tracks import SampleRows, Stretch, Tracks, read, retrack, track_demand, weights
from autoscaler.core.params import SeriesParams
from autoscaler.core.types import Float, Int, Outlook, Samples, SmallFloat

BACK_S = 300.0
"""If the clock goes back by up to this many seconds, the forecaster waits until it has caught up; if by more, it starts over
from that time."""
YOUNG, YOUNG_TICKS = 8, 8
"""A young series is fitted `YOUNG` times as often, until it is `YOUNG` periods of fits old, but at most once in `YOUNG_TICKS`
ticks."""
CHOICE_FITS = 4
"""Number of fits of the level per search for a lattice: about one search an hour."""
READ_TOGETHER = 480
"""Most ticks times series whose quantiles and laws are computed together, if their samples are known in advance."""
_ONE_MORE = np.array(1)
_MOST_GRAIN = 2.0
"""The grain of the noise is at most this many times the usual demand."""


@dataclass(slots=True)
class Steps:
    """Results of T ticks.

    Attributes:
        facts: Their samples, checked.
        top: float64 (T, S), logarithm of the highest expected demand at each tick.
        marks: Lattice points ahead of each tick; None if no series has a lattice.
        issued: float64 (S, H, 3), the forecast at the last tick, from `issuing.expect`.
    """

    facts: Stretch
    top: Float
    marks: Marks | None
    issued: Float


def step(params: SeriesParams, state: SeriesState, samples: Samples) -> Outlook:
    """Learn from the new samples and issue the predictive distributions.

    Args:
        params: Horizons and forgetting, over S series; not to be changed afterwards.
        state: Updated in place.
        samples: One per series. Call once per tick; ticks may be skipped. A second call within a tick replaces the sample and
            learns nothing more. Values that cannot be demand (negative, not a number) count as missing.

    Returns:
        The Outlook issued at `samples.now_s`.
    """
    demand, freshness = samples.demand[np.newaxis], samples.freshness[np.newaxis]
    rows = SampleRows([samples.now_s], demand, freshness, [samples.censored])
    return _step(_settings(params, state), state, rows)


def _step(settings: Settings, state: SeriesState, samples: SampleRows) -> Outlook:
    """Do the work of `step` for one tick."""
    result = _process(settings, state, samples)
    tick, (demand,), usable = result.facts.tick, result.facts.demand, result.facts.usable
    coverage.answer(settings, state, tick, demand, None if usable is None else usable[0])
    basis = ReadoutBasis.present(settings, state, result.issued, result.top[0])
    return issue_outlook(settings, state, basis, result.marks, samples.now_s[0], tick)


def steps(
    params: SeriesParams, state: SeriesState, samples: Iterable[Samples] | SampleRows
) -> Iterator[Outlook]:
    """Issue the Outlooks of many ticks together, bit-identical to those of `step`.

    This takes a third of the time of `step` for few series, and a seventh for one. Samples must be known in advance, so it is
    for replays.

    Args:
        params: As for `step`.
        state: Updated in place as the Outlooks are taken, some ticks ahead of them.
        samples: As for `step`, one tick after another. If all samples are known, `SampleRows` takes less time.

    Yields:
        Outlooks of one tick or several. Ticks follow each other along the axis of series, with as many entries per tick as
        there are series. They contain no odds of bursts.
    """
    settings = _settings(params, state)
    if isinstance(samples, SampleRows):
        stretches, most = split_rows(settings, state, samples), READ_TOGETHER // max(1, len(settings.series))
    else:
        stretches, most = split_stream(settings, state, samples), 0
    readouts: Readouts | None = None
    for stretch in stretches:
        ticks = len(stretch.now_s)
        is_single = ticks == 1 or len(params.event_odds) > 0
        if readouts is not None and (is_single or not readouts.has_room(ticks)):
            yield readouts.outlook(state)
            readouts = None
        if is_single:
            for at in range(ticks):
                yield _step(settings, state, stretch.some(at, at + 1))
            continue
        readouts = readouts or Readouts(settings, max(most, ticks))
        _process_stretch(settings, state, stretch, readouts)
        if not readouts.has_room(1):
            yield readouts.outlook(state)
            readouts = None
    if readouts is not None:
        yield readouts.outlook(state)


def learn(params: SeriesParams, state: SeriesState, *samples: Samples) -> None:
    """Learn from past samples as if they had been lived through, without issuing forecasts.

    The state is bit-identical to what `step` would have left, except for the quantile correction (`coverage`), which needs
    issued forecasts. This takes half to two thirds of the time of `step`, and far less for many ticks of few series at once.
    Many series together take hardly more time than one.

    Args:
        params: As for `step`.
        state: Updated in place.
        samples: As for `step`, one tick after another; ticks may be missing.
    """
    settings = _settings(params, state)
    for stretch in split_stream(settings, state, samples):
        _process_stretch(settings, state, stretch)


def _settings(params: SeriesParams, state: SeriesState) -> Settings:
    """Return the compiled settings, compiling them again if the parameters are other ones."""
    settings = state.settings
    if settings is None or settings.params is not params:
        state.settle()
        settings = state.settings = Settings.of(params)
    return settings


def _process_stretch(
    settings: Settings, state: SeriesState, samples: SampleRows, out: Readouts | None = None
) -> None:
    """Process a stretch of ticks, in parts that begin where demand falls unusually deep or returns."""
    first, end = 0, len(samples.now_s)
    while first < end:
        first += len(_process(settings, state, samples.some(first, end), out).top)


def _process(
    settings: Settings, state: SeriesState, samples: SampleRows, out: Readouts | None = None
) -> Steps:
    """Process consecutive ticks: learn from each, and then compute what is expected.

    Args:
        settings: The settings of the series.
        state: Updated in place.
        samples: One tick, or as many as `tick_runs` allows.
        out: Where to keep what is expected at each tick; None if the last one is enough.

    Returns:
        The results of the ticks that could be processed together, which may be fewer than were given.
    """
    tick = int(samples.now_s[0] // settings.params.tick_s)
    facts, ticks = read(state, tick, samples), len(samples.now_s)
    if ticks == 1:
        state.fit_bursts()
    since = tick - state.last_tick if state.last_tick >= 0 else 1
    if since < 0 and -since * settings.params.tick_s > BACK_S:
        _forget_pending(state)
        since = 1
    if state.unborn:
        _initialise(settings, state, facts.demand[0])
    if since <= 0:
        inputs = Predictors.of(settings, state, retrack(settings, state, facts))
        marks = Marks.of(settings, state, facts.now_s)
        return Steps(facts, inputs.top, marks, expect(settings, state, inputs, marks, 0, facts.hidden[0]))
    count = demand_outages.note(settings, state, facts)
    if count == ticks:
        return _process_uneventful(settings, state, facts, since, out)
    if count == 1:
        state.fit_bursts()
    return _process_uneventful(settings, state, read(state, tick, samples.some(0, count)), since, out)


def _process_uneventful(
    settings: Settings, state: SeriesState, facts: Stretch, since: int, out: Readouts | None
) -> Steps:
    """Do the work of `_process` for ticks of which only the first may follow skipped ticks, a deep fall or a return."""
    ticks = len(facts.now_s)
    # For a single tick, fetching the plain numbers takes as long as it saves.
    run = _run_single_series if ticks > 1 and len(settings.series) == 1 else _run_tick_by_tick
    if ticks > 1 or facts.tick != state.last_tick + 1:
        state.apply_pending_updates()
    if not state.grown:
        _note_grown(settings, state, ticks)
    weight = weights(settings, state, ticks, since)
    if since > 1:
        _skip(settings, state, facts.tick)
    seen = track_demand(settings, state, facts, since)
    if out is not None:
        out.begin(facts)
    found = run(settings, state, facts, seen, weight, out)
    state.track[:], state.weight = seen.track[-1], weight[-1].copy()
    if out is not None:
        out.end(found.top)
    return found


def _note_grown(settings: Settings, state: SeriesState, more: int) -> None:
    """Update `SeriesState.grown`, before this many more samples are added."""
    if state.young_for <= 0:
        youngest = int(state.ticks.min(initial=settings.grown_ticks))
        state.young_for = settings.grown_ticks - youngest
        state.grown = youngest >= settings.grown_ticks
    state.young_for -= more


def _run_tick_by_tick(
    settings: Settings, state: SeriesState, facts: Stretch, seen: Tracks, weight: Float, out: Readouts | None
) -> Steps:
    """Judge, learn, fit and forecast, tick by tick: everything that depends on earlier forecasts."""
    lessons, outcomes = state.lessons or Updates(), _outcomes_with_logs(state, seen)
    state.lessons = lessons
    inputs: Predictors | None = None
    marks: Marks | None = None
    for at in range(len(weight)):
        state.last_tick = facts.tick + at
        state.weight = weight[at]
        _judge(settings, state, lessons, outcomes, at)
        state.ticks += _ONE_MORE
        _note_onset(settings, state, facts, seen, at)
        due = _due(settings, state, state.last_tick)
        if due is not None:
            lessons.settle(settings, state)
            if _refit(settings, state, due, seen.track[at], facts.now_s[at]):
                outcomes = _outcomes_with_logs(state, seen)
        _rescale(settings, state, lessons)
        if inputs is None:
            inputs, marks = Predictors.of(settings, state, seen), Marks.of(settings, state, facts.now_s)
        elif due is not None:
            inputs.change(at, due, Predictors.of(settings, state, seen, slice(at, None), due))
            marks = Marks.of(settings, state, facts.now_s)
        issued = expect(settings, state, inputs, marks, at, facts.hidden[at])
        if out is not None:
            out.keep(state, at, issued)
    assert inputs is not None
    if out is not None:
        out.fill(state, count_in(lessons))
    _apply_counts(state, lessons)
    if len(weight) > 1 or state.last_tick - lessons.begun + 1 >= settings.together:
        lessons.settle(settings, state)
    return Steps(facts, inputs.top, marks, issued)


def _run_single_series(
    settings: Settings, state: SeriesState, facts: Stretch, seen: Tracks, weight: Float, out: Readouts | None
) -> Steps:
    """Do the work of `_run_tick_by_tick` for a single series, on plain numbers (`single_series`), from fit to fit."""
    ticks = len(weight)
    dues = _dues(settings, state, facts.tick, ticks)
    single = Alone(settings, state, facts.tick, weight)
    single.take_in(_outcomes_with_logs(state, seen))
    single.judge(0)
    if np.count_nonzero(seen.regime):
        state.fit_bursts()
    top, offset = np.empty(weight.shape), np.empty(weight.shape)
    inputs, marks, done = Predictors.of(settings, state, seen), Marks.of(settings, state, facts.now_s), 0
    for first, end in pairwise(sorted({0, *dues, ticks})):
        state.last_tick, state.weight = facts.tick + first, weight[first]
        state.ticks += first + 1 - done
        done = first + 1
        _note_onset(settings, state, facts, seen, first)
        if first in dues:
            single.settle()
            # Fits for bursts are needed only in bursts; without one they are put off.
            whole = bool(np.count_nonzero(seen.regime[first:end]))
            if _refit(settings, state, settings.series, seen.track[first], facts.now_s[first], whole=whole):
                single.forget()
                single.take_in(_outcomes_with_logs(state, seen))
                inputs = Predictors.of(settings, state, seen)
            else:
                inputs.fit(settings, state, seen, slice(first, end))
            marks = Marks.of(settings, state, facts.now_s)
        hazards = _hazards(settings, state, facts, seen, marks, first, end)
        single.forecast(first, end, inputs, hazards, facts.hidden)
        top[first:end], offset[first:end] = inputs.top[first:end], state.offset
    state.last_tick = facts.tick + ticks - 1
    state.ticks += ticks - done
    single.write()
    issued, added = single.issued(), single.added()
    if out is None:
        _add_weights(state, added)
    else:
        out.keep_all(issued, single.row_totals(), offset, weight)
        out.fill(state, added)
    return Steps(facts, top, marks, issued[-1])


def _dues(settings: Settings, state: SeriesState, tick: int, ticks: int) -> set[int]:
    """Return at which of the ticks the single series is fitted, as offsets, by the rules of `_due`."""
    since, period = tick - state.phase.item(), settings.refit_ticks
    found = set(range(-since % period, ticks, period))
    young_period = period // YOUNG
    if young_period >= YOUNG_TICKS and not state.grown:
        end = min(ticks, YOUNG * period - state.ticks.item() - 1)
        found |= set(range(-since % young_period, end, young_period))
    return found


def _hazards(
    settings: Settings,
    state: SeriesState,
    facts: Stretch,
    seen: Tracks,
    marks: Marks | None,
    first: int,
    end: int,
) -> dict[int, int]:
    """Return the hazard class of a single series by tick, where it is not 0; onsets after the first tick are recorded."""
    found: dict[int, int] = {}
    if marks is None and seen.onset is None:
        return found
    for at in range(first, end):
        if at > first:
            _note_onset(settings, state, facts, seen, at)
        odds = None if marks is None else lattice.hazard(settings, state, marks, at)
        if odds is not None:
            found[at] = odds.item()
    return found


def _judge(
    settings: Settings, state: SeriesState, lessons: Updates, outcomes: Sequence[Outcomes | None], at: int
) -> None:
    """Judge the forecasts of all groups whose block ends at a tick."""
    for group, mine in zip(settings.groups, outcomes, strict=True):
        if mine is not None and (state.last_tick + 1) % group.stride == 0:
            judge(settings, group, state, lessons, mine, at)


def _note_onset(settings: Settings, state: SeriesState, facts: Stretch, seen: Tracks, at: int) -> None:
    """Record the bursts that begin at a tick."""
    if seen.onset is not None and np.count_nonzero(seen.onset[at]):
        lattice.note(state, seen.onset[at], facts.now_s[at])
        lattice.follow(settings, state, seen.onset[at], facts.now_s[at])


def _outcomes_with_logs(state: SeriesState, seen: Tracks) -> list[Outcomes | None]:
    """Return the outcomes of each group with their logarithms, by the present offset."""
    return [None if each is None else Outcomes(each, logs(state, each)) for each in seen.closed]


def _apply_counts(state: SeriesState, lessons: Updates) -> None:
    """Apply the outcomes that were put off to the tables."""
    _add_weights(state, count_in(lessons))


def _add_weights(state: SeriesState, added: Sequence[tuple[int, Int, SmallFloat]]) -> None:
    """Add weights to the flat tables at the given places, tick by tick."""
    flat = slots_first(state.tables).reshape(-1)
    for _, places, weight in added:
        found = flat.take(places)
        found += weight
        flat.put(places, found)


def _initialise(settings: Settings, state: SeriesState, demand: Float) -> None:
    """Initialise series at their first sample: all means equal it, and its digits spread the fits of series over ticks."""
    new = np.flatnonzero(np.isnan(state.track[:, LAST]) & ~np.isnan(demand))
    if len(new):
        unseasoned = state.track[new, SEASONS]
        state.track[new] = demand[new, np.newaxis]
        state.track[new, SEASONS] = unseasoned
        state.base[new] = state.median[new] = state.swift[new] = demand[new]
        state.phase[new] = (demand[new] * 7919.0 % settings.refit_ticks).astype(np.int64)
        state.unborn -= len(new)
        state.turns = None


def _skip(settings: Settings, state: SeriesState, tick: int) -> None:
    """Mark blocks that ended in skipped ticks as unknown, and drop the forecasts that would have been issued in them."""
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


def _forget_pending(state: SeriesState) -> None:
    """Start over after the clock went back: forecasts that wait for their outcome are dropped."""
    for array in (state.issued, state.blocks, state.open):
        array.fill(np.nan)
    state.last_tick, state.falls = -1, Falls.empty(len(state.base))
    state.asked_at.fill(-1)


def _due(settings: Settings, state: SeriesState, tick: int) -> Int | None:
    """Return the series that are fitted at a tick; None if there are none."""
    turns = state.turns
    if turns is None:
        phases = set(state.phase.tolist())
        turns = state.turns = {phase: np.flatnonzero(state.phase == phase) for phase in phases}
    due = turns.get(tick % settings.refit_ticks)
    young_period = settings.refit_ticks // YOUNG
    if young_period >= YOUNG_TICKS and not state.grown:
        # While little has been seen, every outcome improves the fit a lot, and a poor fit would stay for long.
        young_phases = range(tick % young_period, settings.refit_ticks, young_period)
        some = [turns[phase] for phase in young_phases if phase in turns and turns[phase] is not due]
        if some:
            others = np.concatenate(some)
            young = others[state.ticks.take(others) < YOUNG * settings.refit_ticks]
            if len(young):
                due = young if due is None else np.concatenate([due, young])
    return due


def _refit(
    settings: Settings, state: SeriesState, due: Int, track: Float, now_s: float, *, whole: bool = True
) -> bool:
    """Fit the level of the due series, int64 (N,), and now and then look for lattices.

    Unless `whole`, only the regime without a burst is fitted, for a single series. Returns whether any offset has changed.
    """
    prior, sums = settings.prior[due], state.sums[due] / state.weight[due, np.newaxis, np.newaxis]
    if whole:
        state.fits[due], state.unfitted = level.fitted(sums, prior), None
    else:
        state.fits[due, 0], state.unfitted = level.calm(sums[:, 0], prior), sums
    is_changed = _update_offsets(settings, state, due, track)
    if state.last_tick // settings.refit_ticks % CHOICE_FITS == 0:
        lattice.choose(settings, state, due, now_s)
    return is_changed


def _update_offsets(settings: Settings, state: SeriesState, due: Int, track: Float) -> bool:
    """Set the offset of the due series by the grain of their noise; return whether any offset has changed.

    If demand comes in lumps, as requests that each occupy a VM do, its spread grows as the square root of demand. Ratios of
    demand plus the grain then have the same spread at all levels. The grain is the squared mean distance from the level over
    mean demand; for a Poisson distribution of lumps, about two thirds of a lump. Offsets are powers of two times the scale,
    so that they seldom change.
    """
    if len(due) == len(settings.series) == 1 and _keeps_offset(settings, state, track):
        return False
    scale = settings.params.scale[due]
    miss = state.miss[due]
    usual = np.maximum(track[due, USUAL], 1e-300)
    grain = np.minimum(miss * miss / usual, _MOST_GRAIN * usual)
    wanted = np.log2(np.maximum(grain / scale, 1.0))
    steps = np.log2(state.offset[due] / scale)
    changed = np.flatnonzero(np.abs(wanted - steps) > 0.75)
    if len(changed):
        moved = due[changed]
        state.offset[moved] = scale[changed] * 2.0 ** np.floor(wanted[changed] + 0.5)
        state.issued[moved] = np.nan
    return len(changed) > 0


def _keeps_offset(settings: Settings, state: SeriesState, track: Float) -> bool:
    """Return whether a single series' grain is below its scale, and was before, so that its offset stays the same."""
    scale, miss = settings.params.scale.item(), state.miss.item()
    return state.offset.item() == scale and miss * miss / max(track[0, USUAL].item(), 1e-300) <= scale


def _rescale(settings: Settings, state: SeriesState, lessons: Updates) -> None:
    """Divide everything weighted by the weight of a present outcome, before any weight overflows."""
    if state.weight[0] <= HEAVY and (state.last_tick % 4096 or not (state.weight > HEAVY).any()):
        return
    _apply_counts(state, lessons)
    lessons.settle(settings, state)
    weight = np.where(state.weight > HEAVY, state.weight, 1.0)
    state.tables /= weight.astype(np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    state.totals /= weight[:, np.newaxis, np.newaxis]
    state.sums /= weight[:, np.newaxis, np.newaxis]
    state.weight /= weight
