"""Features that depend on demand alone, computed for several ticks at once: weights, means, bursts, season, outcomes.

Nothing here depends on earlier forecasts, so it may run ahead of learning and forecasting, which go tick by tick. A live tick is a
stretch of one; a replay, which knows its demand in advance, takes longer stretches and gets bit-identical results with the numpy
calls of one tick.

Rules of this file: computations that depend on their own past go tick by tick, or by numpy's accumulation along ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from autoscaler.core.forecast import bursts, history
from autoscaler.core.forecast.settings import CLIP, Group, Settings
from autoscaler.core.forecast.state import LAST, MEANS, SEASONS, TOP, USUAL, SeriesState, slots_first
from autoscaler.core.types import Bool, Float, Freshness, Horizon, Int, Samples

CHILDHOOD = 20.0
"""In a young series, weights grow by a factor of 1 + 1 / (samples + this) per tick, so that about the last half of its life
counts."""
_MANY = 64
"""From this many series on, going block by block is faster."""
_ZERO, _ONE, _TWO = np.array(0.0), np.array(1.0), np.array(2.0)
_MOST_DEMAND, _CHILDHOOD, _CLIP = np.array(1e15), np.array(CHILDHOOD), np.array(CLIP)
_MINUS_INFINITY, _UNKNOWN = np.array(-np.inf), np.array(np.nan)


class SampleRows(NamedTuple):
    """Samples of S series at T ticks, in order.

    Attributes:
        now_s: Times of the ticks.
        demand: float64 (T, S), as in `Samples`, like the other fields.
        freshness: int64 (T, S).
        censored: bool (S,) for each tick.
    """

    now_s: Sequence[float]
    demand: Float
    freshness: Int
    censored: Sequence[Bool]

    @classmethod
    def of(cls, samples: Sequence[Samples]) -> SampleRows:
        """Collect samples, one per tick."""
        return cls(
            [each.now_s for each in samples],
            stacked([each.demand for each in samples]),
            stacked([each.freshness for each in samples]),
            [each.censored for each in samples],
        )

    def some(self, first: int, end: int) -> SampleRows:
        """Return the ticks from `first` to before `end`."""
        some = slice(first, end)
        return SampleRows(self.now_s[some], self.demand[some], self.freshness[some], self.censored[some])


@dataclass(slots=True)
class Stretch:
    """Checked samples of T consecutive ticks.

    Attributes:
        tick: Number of the first tick.
        now_s: Times of the ticks.
        demand: float64 (T, S), work per second; the last known value where it is unknown.
        known: bool (T, S), whether it is known; None if it is everywhere.
        usable: bool (T, S), whether it may be learned from, being known and not censored; None if it is everywhere.
        hidden: For each tick bool (S,), whether demand is censored, so that it is at least the last value; None if it is
            nowhere.
    """

    tick: int
    now_s: Sequence[float]
    demand: Float
    known: Bool | None
    usable: Bool | None
    hidden: Sequence[Bool | None]


@dataclass(slots=True)
class ClosedBlocks:
    """The N blocks of a group that end within a stretch.

    Attributes:
        first: The first tick of the stretch at which one ends.
        issued: int64 (N, S, C), places in a flat (RING, S, H) of the forecasts whose windows end with each block.
        outcome: float64 (N, S, C), their outcomes: highest demand in the window; NaN if unknown, infinite if partly hidden.
        known: bool (N, S, C), whether the outcome is known and not hidden.
    """

    first: int
    issued: Int
    outcome: Float
    known: Bool


@dataclass(slots=True)
class Tracks:
    """What follows from the demand of T ticks.

    Attributes:
        track: float64 (T, S, 11), `SeriesState.track` after each tick.
        regime: int64 (T, S), 0 without a burst, else 1 to 5 by the burst's age.
        onset: bool (T, S), whether a burst begins; None if none does.
        lately: float64 (T, S), highest demand of the last window of the farthest horizon; None if that horizon is not kept.
        closed: The blocks that end, for each group of horizons; None if none ends.
    """

    track: Float
    regime: Int
    onset: Bool | None
    lately: Float | None
    closed: tuple[ClosedBlocks | None, ...]


def read(state: SeriesState, tick: int, samples: SampleRows) -> Stretch:
    """Check the samples of consecutive ticks."""
    demand, freshness = samples.demand, samples.freshness
    possible = demand >= _ZERO
    possible &= demand < _MOST_DEMAND
    if np.count_nonzero(freshness):
        possible &= freshness == int(Freshness.FRESH)
    known = None if np.count_nonzero(possible) == possible.size else possible
    if known is not None:
        last, demand = state.track[:, LAST], demand.copy()
        for at, is_known in enumerate(known):
            last = demand[at] = np.where(is_known, demand[at], last)
    usable = known
    hidden: list[Bool | None] = []
    latest: Bool | None = None
    any_censored = False
    for each in samples.censored:
        # In a replay, all ticks often share one array.
        if each is not latest:
            latest = each
            any_censored = bool(np.count_nonzero(latest))
        hidden.append(latest if any_censored else None)
    if any(each is not None for each in hidden):
        uncensored = ~np.array(samples.censored)
        usable = uncensored if known is None else known & uncensored
    return Stretch(tick, samples.now_s, demand, known, usable, hidden)


def weights(settings: Settings, state: SeriesState, ticks: int, since: int) -> Float:
    """Return the weight of an outcome at each of the ticks: float64 (T, S).

    Weights grow from tick to tick, so that older outcomes fade. In a young series they grow faster: about half of its life
    counts.

    Args:
        settings: The settings of the series.
        state: Not changed.
        ticks: Number of ticks.
        since: Ticks from the last step to the first of these.
    """
    growth: Float = settings.growth if since == 1 else settings.growth ** np.minimum(since, settings.long_ago)
    if ticks == 1:
        if not state.grown:
            young = state.ticks.astype(np.float64)
            young += _CHILDHOOD
            np.divide(_ONE, young, out=young)
            young += _ONE
            growth = np.maximum(growth, young)
        return (state.weight * growth)[np.newaxis]
    found = np.empty((1 + ticks, len(growth)))
    found[0] = state.weight
    found[1:] = growth
    if not state.grown:
        age = state.ticks + np.arange(ticks)[:, np.newaxis]
        np.maximum(found[1:], 1.0 + 1.0 / (age + CHILDHOOD), out=found[1:])
    np.multiply.accumulate(found, axis=0, out=found)
    return found[1:]


def track_demand(settings: Settings, state: SeriesState, samples: Stretch, since: int) -> Tracks:
    """Compute what follows from demand alone.

    Args:
        settings: The settings of the series.
        state: Updated in place, except for `track` and `ticks`.
        samples: Consecutive ticks.
        since: Ticks since the last step; more than 1 only if there is one tick.
    """
    value = _learnable(samples)
    far = settings.horizons > Horizon.REFILL
    under_way = state.open[:, Horizon.REFILL].copy() if far else None
    closed = tuple(_close_blocks(group, state, samples, value) for group in settings.groups)
    lately = None if under_way is None else _recent_highest(settings, state, under_way, closed, value)
    track = _advance_means(settings, state, samples.demand, since)
    medians, seasons = history.note(settings, state, samples.now_s, samples.demand, samples.usable)
    track[..., SEASONS] = seasons
    regime, onset = bursts.note(
        settings, state, _short_average(settings, state, samples.demand), medians, since
    )
    return Tracks(track, regime, onset, lately, closed)


def retrack(settings: Settings, state: SeriesState, samples: Stretch) -> Tracks:
    """Return what is seen if another sample replaces that of the last tick; only the last value and the maximum change."""
    demand, track = samples.demand[0], state.track
    track[:, LAST] = demand
    np.maximum(track[:, TOP], demand, out=track[:, TOP])
    lately = None
    if settings.horizons > Horizon.REFILL:
        lately = np.fmax(state.high, state.open[:, Horizon.REFILL])[np.newaxis]
    return Tracks(
        track[np.newaxis].copy(), bursts.regime(settings, state.age_s)[np.newaxis], None, lately, ()
    )


def _learnable(samples: Stretch) -> Float:
    """Return demand for learning, float64 (T, S): NaN if unknown, infinite if hidden."""
    if samples.usable is None:
        return samples.demand
    hidden = np.inf if samples.known is None else np.where(samples.known, np.inf, np.nan)
    return np.where(samples.usable, samples.demand, hidden)


def ends(group: Group, tick: int, ticks: int) -> range:
    """Return at which of the ticks a block ends, as offsets from the first."""
    return range((-tick - 1) % group.stride, ticks, group.stride)


def _close_blocks(group: Group, state: SeriesState, samples: Stretch, value: Float) -> ClosedBlocks | None:
    """Record the blocks that end, and find the highest demand of each window that ends with them."""
    last, ring = ends(group, samples.tick, len(value)), state.blocks.shape[1]
    if not last:
        _record_blocks(group, state, value, last, 0)
        return None
    number = (samples.tick + last.start) // group.stride
    if len(last) == 1:
        row = number % ring
        _record_blocks(group, state, value, last, row)
        places, issued = group.recent[row : row + 1], group.issued[row : row + 1]
        outcome = _highest_in_windows(group, state, places)
    else:
        at = (number + np.arange(len(last))) % ring
        issued = group.issued[at]
        if value.shape[1] == 1:
            outcome = _close_blocks_of_one(group, state, value[:, 0], last, number)[:, np.newaxis]
        else:
            _record_blocks(group, state, value, last, at)
            outcome = _highest_in_windows(group, state, group.recent[at])
    if group.lead:
        ends_at = slice(last.start, None, last.step)
        outcome[..., 0] = samples.demand[ends_at]
        if samples.usable is not None:
            np.copyto(outcome[..., 0], _UNKNOWN, where=~samples.usable[ends_at])
    known = np.isfinite(outcome)
    if group.mine is not None:
        known &= group.mine
    return ClosedBlocks(last.start, issued, outcome, known)


def _close_blocks_of_one(group: Group, state: SeriesState, value: Float, last: range, number: int) -> Float:
    """Record the blocks of a single series that end within a stretch; there may be more than the ring holds.

    Args:
        group: The group of the blocks.
        state: Updated in place.
        value: float64 (T,), demand as from `_learnable`.
        last: The N ticks at which blocks end.
        number: Number of the first of these blocks.

    Returns:
        float64 (N, C), the highest demand of the windows that end with each block.
    """
    ring, columns = state.blocks.shape[1], np.arange(group.columns.start, group.columns.stop)
    count, older = len(last), group.most - 1
    every = np.empty((older + count, len(columns)))
    every[:older] = state.blocks[0, np.arange(number - older, number) % ring, group.columns]
    new, end = every[older:], last[-1] + 1
    if group.stride == 1:
        # With one tick per block, no block is open between ticks.
        new[:] = value[:, np.newaxis]
    else:
        begins = np.append(0, np.arange(last.start + 1, end - 1, group.stride))
        new[:] = np.fmax.reduceat(value[:end], begins)[:, np.newaxis]
        np.fmax(new[0], state.open[0, group.columns], out=new[0])
    mine = np.ones(len(columns), np.bool_) if group.mine is None else group.mine[0]
    kept = min(count, ring)
    rows = (number + np.arange(count - kept, count)) % ring
    state.blocks[0, rows[:, np.newaxis], columns[mine]] = new[count - kept :, mine]
    if group.stride > 1:
        state.open[0, columns[mine]] = np.fmax.reduce(value[end:]) if end < len(value) else np.nan
    recent = every.take(np.arange(count)[:, np.newaxis] + (older - np.arange(group.most)), axis=0)
    np.copyto(recent, _MINUS_INFINITY, where=group.outside[:, 0])
    found: Float = np.maximum.reduce(recent, axis=1)
    return found


def _record_blocks(group: Group, state: SeriesState, value: Float, last: range, at: int | Int) -> None:
    """Record the blocks that end at the given ticks, at their places in the ring, and the open block."""
    blocks = slots_first(state.blocks)[..., group.columns]
    if len(last) == len(value) > 1:
        # With one tick per block, no block is open between ticks.
        rows = value[..., np.newaxis]
        blocks[at] = rows if group.mine is None else np.where(group.mine, rows, blocks[at])
        return
    highest, first = state.open[:, group.columns], 0
    for place, end in zip([at] if isinstance(at, int) else at.tolist(), last, strict=False):
        _write_columns(group, blocks[place], np.fmax(highest, _highest(value, first, end + 1)))
        first, highest = end + 1, _NOTHING
    under_way = highest if first == len(value) else np.fmax(highest, _highest(value, first, len(value)))
    _write_columns(group, state.open[:, group.columns], under_way)


_NOTHING: Float = np.full((1, 1), np.nan)


def _highest_in_windows(group: Group, state: SeriesState, places: Int) -> Float:
    """Return the highest demand of the windows that end with N blocks, float64 (N, S, C).

    Args:
        group: The group of the blocks.
        state: Holds the blocks.
        places: int64 (N, most * C), rows of `Group.recent`.
    """
    series, _, horizons = state.blocks.shape
    blocks, outcomes = slots_first(state.blocks).reshape(-1), group.issued.shape[2]
    places = places.reshape(len(places), group.most, outcomes)
    if series < _MANY or group.outside.shape[1] > 1:
        places = places[:, :, np.newaxis]
        if series > 1:
            places = places + (np.arange(series) * horizons)[:, np.newaxis]
        recent = blocks.take(places)
        np.copyto(recent, _MINUS_INFINITY, where=group.outside)
        found: Float = np.maximum.reduce(recent, axis=1)
        return found
    # Block by block, because numpy takes far longer for the maximum of a few numbers than for that of two arrays.
    found = np.empty((len(places), series, outcomes))
    within = np.count_nonzero(~group.outside[:, 0], axis=0).tolist()
    step, end = horizons, (series - 1) * horizons + 1
    for each, at in zip(found, places.tolist(), strict=True):
        for outcome, count in enumerate(within):
            first = at[0][outcome]
            highest = blocks[first : first + end : step].copy()
            for block in range(1, count):
                first = at[block][outcome]
                np.maximum(highest, blocks[first : first + end : step], out=highest)
            each[:, outcome] = highest
    return found


def _highest(value: Float, first: int, end: int) -> Float:
    """Return the highest demand from tick `first` to before `end`: float64 (S, 1)."""
    found: Float = value[first] if end == first + 1 else np.fmax.reduce(value[first:end], axis=0)
    return found[:, np.newaxis]


def _write_columns(group: Group, columns: Float, value: Float) -> None:
    """Write values to the columns of the series that belong to the group."""
    if group.mine is None:
        columns[:] = value
    else:
        np.copyto(columns, value, where=group.mine)


def _recent_highest(
    settings: Settings,
    state: SeriesState,
    under_way: Float,
    closed: Sequence[ClosedBlocks | None],
    value: Float,
) -> Float:
    """Return the highest demand of the farthest horizon's last window and the block after it: float64 (T, S), by tick."""
    found = np.empty(value.shape)
    for tick, here in enumerate(value):
        under_way = np.fmax(under_way, here)
        for group, each in zip(settings.groups, closed, strict=True):
            if each is None or tick < each.first or group.columns.stop <= Horizon.REFILL:
                continue
            at, rest = divmod(tick - each.first, group.stride)
            if not rest:
                mine = True if group.mine is None else group.mine[:, -1]
                state.high = np.where(mine, each.outcome[at, :, -1], state.high)
                np.copyto(under_way, np.nan, where=mine)
        np.fmax(state.high, under_way, out=found[tick])
    return found


def _advance_means(settings: Settings, state: SeriesState, demand: Float, since: int) -> Float:
    """Return `track` after each tick, float64 (T, S, 11), without the seasons: means and maximum move towards the samples."""
    track = np.empty((*demand.shape, TOP + 1))
    track[..., LAST] = demand
    alphas: Float = settings.alphas if since == 1 else 1.0 - (1.0 - settings.alphas) ** since
    fade = settings.top_fade if since == 1 else np.array(float(settings.top_fade) ** since)
    if len(demand) > 1 and demand.shape[1] == 1:
        _advance_means_of_one(settings, state, demand, track)
        return track
    age = None if state.grown else state.ticks.astype(np.float64)
    means, top = state.track[:, USUAL : MEANS.stop], state.track[:, TOP]
    sample, room, faded = np.empty(means.shape), np.empty(means.shape), np.empty(top.shape)
    alpha = alphas
    for value, next_means, next_top in zip(
        demand, track[..., USUAL : MEANS.stop], track[..., TOP], strict=True
    ):
        if age is not None:
            # The first samples are averaged with equal weights.
            sample[:] = (_ONE / (age + _TWO))[:, np.newaxis]
            alpha = np.maximum(alphas, sample)
            age += _ONE
        sample[:] = value[:, np.newaxis]
        np.multiply(means, _CLIP, out=room)
        room += settings.clip_room
        np.minimum(room, sample, out=room)
        room -= means
        room *= alpha
        means = np.add(means, room, out=next_means)
        np.multiply(top, fade, out=faded)
        top = np.maximum(faded, value, out=next_top)
    return track


def _advance_means_of_one(settings: Settings, state: SeriesState, demand: Float, track: Float) -> None:
    """Do the work of `_advance_means` for a single series, on plain numbers, because numpy calls take far longer."""
    values: list[float] = demand[:, 0].tolist()
    clip, fade = _CLIP.item(), settings.top_fade.item()
    share = None if state.grown else _ONE / (state.ticks + np.arange(2.0, len(values) + 2.0))
    rows = track[:, 0]
    for column, (alpha, room) in enumerate(
        zip(settings.alphas[0].tolist(), settings.clip_room[0].tolist(), strict=True), USUAL
    ):
        alphas = [alpha] * len(values) if share is None else np.maximum(alpha, share).tolist()
        mean, found = state.track[0, column].item(), []
        for value, part in zip(values, alphas, strict=True):
            most = mean * clip + room
            if value < most:
                mean += (value - mean) * part
            else:
                mean += (most - mean) * part
            found.append(mean)
        rows[:, column] = found
    top, found = state.track[0, TOP].item(), []
    for value in values:
        top = max(top * fade, value)
        found.append(top)
    rows[:, TOP] = found


def _short_average(settings: Settings, state: SeriesState, demand: Float) -> Float:
    """Return demand averaged over some seconds, in which bursts are detected: float64 (T, S)."""
    if settings.swift_alpha is None:
        state.swift = demand[-1].copy()
        return demand
    found, was = np.empty(demand.shape), state.swift
    for value, swift in zip(demand, found, strict=True):
        moved = np.subtract(value, was, out=swift)
        moved *= settings.swift_alpha
        moved += was
        was = moved
    state.swift = was.copy()
    return found


Numbers = TypeVar("Numbers", Float, Int)


def stacked(rows: Sequence[Numbers]) -> Numbers:
    """Stack N rows of (S,) into (N, S); a single row becomes a view."""
    return rows[0][np.newaxis] if len(rows) == 1 else np.concatenate(rows).reshape(len(rows), *rows[0].shape)
