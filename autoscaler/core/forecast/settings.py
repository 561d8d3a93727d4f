"""The settings that `step` needs every tick, compiled once from `SeriesParams`.

A horizon longer than a few ticks is cut into blocks, each a power of two of ticks long, on the absolute grid. One forecast is kept
for judgement at the end of each block, and its outcome is the maximum of the blocks after it. So a horizon of a day costs as much
memory as one of a minute. Horizons and series with equally long blocks form a `Group`; a group has work only when one of its
blocks ends.

For few series, the time of a tick is the time of its numpy calls, whatever the arrays hold. So scalars that meet arrays every tick
are zero-dimensional arrays, here and in the neighbouring modules, and operands have the same shape: Python scalars and differing
shapes take numpy two to three times as long, with the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from autoscaler.core.forecast import level, tables
from autoscaler.core.params import SCALE_IN_VMS, SeriesParams
from autoscaler.core.types import Bool, Float, Horizon, Int

Kind = TypeVar("Kind", Float, Int)

MOST_BLOCKS, MOST_PEAK_BLOCKS = 64, 16
"""Most blocks per window: for the lead time, and for the windows of peaks."""
RING = MOST_BLOCKS + 1
"""Number of blocks, and of forecasts that wait for their outcome, that are remembered."""
SLOT_S = 60.0
"""Length of a slot of the history in seconds; a tick if that is longer."""
DAY_S = 86_400.0
DAYS_BACK: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 14, 21, 28)
"""Earlier days at whose same time of day the history is read: the last seven days, then weeks as far as the history goes."""
NEAR_DAYS, FIRST_WEEK = 3, 6
"""The first `NEAR_DAYS` of them give the season by days. Those from place `FIRST_WEEK` on give the season by weeks. All of
them give the next step."""
MOST_SLOTS = 10_084
"""Most slots of a history: a week of minutes and a little, or four weeks of slots of at least four minutes."""
MEANS_S: Float = np.array([60.0, 180.0, 600.0, 1800.0, 7200.0])
MEANS_TICKS: Float = np.array([1.5, 3.0, 8.0, 20.0, 50.0])
"""Time constants in seconds of the means that are features of the level, and their least values in ticks, which keep them
apart."""
PACE_S = 1800.0
"""Time constant of the means in which the present is compared with earlier days, in seconds."""
CLIP = 3.0
"""A sample moves a mean as if it were at most this many times the mean, plus this many VMs, so that one wild sample is soon
forgotten."""
MEDIAN_SLOTS = 30
"""Number of latest slots whose median is the reference of the burst detector."""
BASE_S, BASE_TICKS = 600.0, 10.0
"""Time constant of the mean without bursts, in seconds, and its least value in ticks."""
BURST_VMS = 1.5
"""VMs of work by which demand must exceed the usual, on top of a factor, to be a burst."""
QUIET_S = 60.0
"""A burst ends after this many seconds without high demand."""
SWIFT_S = 20.0
"""Time constant, in seconds, of the average in which bursts are detected, so that the noise of single seconds is not a burst."""
AGES_S: Float = np.array([0.0, 20.0, 40.0, 100.0, 300.0])
AGES_TICKS: Float = np.array([0.0, 1.0, 2.0, 3.0, 6.0])
"""Ages at which a burst enters the next regime, in seconds and in ticks; the larger of the two applies."""
REFIT_S, REFIT_TICKS = 900.0, 4
"""Seconds between two fits of the level, and the least number of ticks."""
SHORT_S, SHORT_TICKS = 600.0, 10.0
"""Time constant of the mean size of recent errors, in seconds, and its least value in ticks."""
DOUBT_S, DOUBT_TICKS = 600.0, 10.0
"""Time constant of the squared errors by which the fit of the level is compared with the last value, in seconds, and its
least value in ticks."""
LONG_S, TOP_S = 86_400.0, 7.0 * 86_400.0
"""Time constants of the usual demand, to which levels are compared, and of the decaying maximum of demand, in seconds."""
TOGETHER, MOST_TOGETHER, MOST_ALONE = 256, 64, 240
"""Limits of what is processed together: ticks times series, ticks, and ticks of a single series (`single_series`)."""
LEAST_WEIGHT = 1.0 / 16.0
"""Outcomes of overlapping windows are nearly the same, so each weighs 1 over the blocks in its window, and at least this."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of series and horizon. Indices are repeated three times for the three rows of a cell (`tables.ROWS_OF`).

    Attributes:
        series: int64 (N, 3), the series of each pair.
        at: int64 (N,), place in a flat (S, H).
        first_total: int64 (N, 3), place of row 0 in a flat (ROWS, S, H).
        first_parent: int64 (N,), place of parent 0 in a flat (PARENTS, S, H).
        weight: float64 (N, 3), weight of an outcome.
        stride: float64 (N,), ticks between two outcomes.
        short_alpha: float64 (N,), share of one outcome in the mean size of recent errors.
    """

    series: Int
    at: Int
    first_total: Int
    first_parent: Int
    weight: Float
    stride: Float
    short_alpha: Float

    def some(self, which: Int) -> Pairs:
        """Return a selection of the pairs, by position."""
        return Pairs(*(getattr(self, f.name).take(which, axis=0) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Group:
    """Horizons whose blocks are equally long.

    Attributes:
        stride: Ticks per block.
        columns: The C horizons that have such blocks for any series.
        most: Blocks in the longest of their windows.
        outside: bool (most, 1 or S, C), which of the latest blocks, the newest first, are outside each window.
        ahead: int64 (1 or S, C), blocks in each window.
        mine: bool (S, C), which series and horizons belong to this group; None if all do.
        pairs: The pairs of all series and the group's horizons.
        recent: int64 (RING, most * C), for each block of the ring, the places of the first series' latest blocks in a flat
            (RING, S, H), the newest first.
        issued: int64 (RING, S, C), for each block of the ring, the places in a flat (RING, S, H) of the forecasts whose
            windows end with it.
        lead: Whether the first column is the lead time.
        doubt_alpha: Share of one outcome at the lead time in the squared errors by which the fit is judged.
    """

    stride: int
    columns: slice[int, int, None]
    most: int
    outside: Bool
    ahead: Int
    mine: Bool | None
    pairs: Pairs
    recent: Int
    issued: Int
    lead: bool
    doubt_alpha: Float


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be computed from the parameters in advance.

    Attributes:
        params: The parameters.
        series: int64 (S,), 0, 1, 2 ...
        first_row: int64 (S, 3), place of row 0 of each series in a flat (ROWS, S), three times.
        rows_of: int64 (CELLS, 3), places of the first series' rows of each cell in a flat (ROWS, S).
        parent_of, regime_of: int64 (CELLS,), place of the first series' parent of each cell in a flat (PARENTS, S), and of
            its regime in a flat (REGIMES, S).
        totals_of: int64 (CELLS, 3), places of the rows of each cell in a flat (ROWS, S, H), for the first series and horizon.
        parents_of: int64 (CELLS,), the same of its parent in a flat (PARENTS, S, H).
        horizons: Number of horizons (`horizon_count`).
        groups: The horizons, grouped by the length of their blocks.
        slot_s: Length of a slot of the history.
        slots: Number of slots in the history.
        clip_room: float64 (S, 6), by how much a sample may exceed `CLIP` times each mean.
        vm: float64 (S,), work per second of a VM.
        burst_room: float64 (S,), by how much demand in a burst exceeds a multiple of the usual, work per second.
        growth: float64 (S,), factor by which the weight of outcomes grows in each tick.
        grown_ticks: Number of samples after which a series no longer counts as new, and nothing depends on their number.
        long_ago: float64 (S,), ticks after which everything is forgotten.
        alphas: float64 (S, 6), share of one tick in the usual demand and in the five means.
        base_alpha: Share of one tick in the mean without bursts.
        top_fade: Factor by which the highest demand decays in a tick.
        season_alpha: Share of one slot in the means in which earlier days are compared.
        ages_s: float64 (5,), ages at which the regimes of a burst begin.
        refit_ticks: Ticks between two fits of a series.
        reach_s: float64 (S, H), how far each horizon looks, in seconds.
        farthest_s: The largest of them.
        on_the_way: float64 (S, H), how far demand is expected to have moved from the last value to the level at the lead
            time, in the middle of each window, 0..1; 1 at the lead time, and if no laws are wanted.
        newest: The newest complete slot of the history, relative to the present one.
        looks: int64 (1 or S, 1 + D + 3 * D), slots of the history that are read, relative to the present one, modulo their
            number: the newest, this time on D earlier days, and three slots around the lead time from then on. One row if all
            series read the same slots.
        fit_weight: float64 (S,), weight of an outcome in the fit of the level: 1 over the lead time in ticks, because the
            outcomes of overlapping lead times are nearly the same.
        prior: float64 (S, FEATURES), weights of the level before any outcome.
        swift_alpha: Share of one tick in the average in which bursts are detected; None for ticks of at least `SWIFT_S`,
            which need no average.
        together: Most ticks that are processed together, such that no ring of blocks wraps around within them.
    """

    params: SeriesParams
    series: Int
    first_row: Int
    rows_of: Int
    parent_of: Int
    regime_of: Int
    totals_of: Int
    parents_of: Int
    horizons: int
    groups: tuple[Group, ...]
    slot_s: float
    slots: int
    clip_room: Float
    vm: Float
    burst_room: Float
    growth: Float
    grown_ticks: int
    long_ago: Float
    alphas: Float
    base_alpha: Float
    top_fade: Float
    season_alpha: Float
    ages_s: Float
    refit_ticks: int
    reach_s: Float
    farthest_s: float
    on_the_way: Float
    newest: int
    looks: Int
    fit_weight: Float
    prior: Float
    swift_alpha: Float | None
    together: int

    @classmethod
    def of(cls, params: SeriesParams) -> Settings:
        """Compile the settings for these parameters."""
        tick_s = params.tick_s
        slot_s = max(SLOT_S, tick_s)
        groups = _groups(params)
        unit = params.scale / SCALE_IN_VMS
        means_s = np.maximum(MEANS_S, MEANS_TICKS * tick_s)
        alphas = 1.0 - np.exp(-tick_s / np.append(LONG_S, means_s))
        series, horizons = np.arange(len(params.scale)), horizon_count(params)
        return cls(
            params=params,
            series=series,
            first_row=_three_times(series),
            rows_of=tables.ROWS_OF * len(series),
            parent_of=tables.PARENT_OF * len(series),
            regime_of=tables.REGIME_OF * len(series),
            totals_of=tables.ROWS_OF * (len(series) * horizons),
            parents_of=tables.PARENT_OF * (len(series) * horizons),
            horizons=horizons,
            groups=groups,
            slot_s=slot_s,
            slots=slot_count(params),
            clip_room=np.repeat((CLIP * unit)[:, np.newaxis], len(alphas), axis=1),
            vm=unit,
            burst_room=BURST_VMS * unit,
            growth=2.0 ** (1.0 / params.half_life_ticks),
            long_ago=60.0 * params.half_life_ticks,
            grown_ticks=math.ceil(
                max(params.half_life_ticks.max(initial=1.0) / math.log(2.0), 3.0 * LONG_S / tick_s)
            ),
            alphas=np.repeat(alphas[np.newaxis], len(unit), axis=0),
            base_alpha=np.array(_share(tick_s, BASE_S, BASE_TICKS)),
            top_fade=np.array(1.0 - _share(tick_s, TOP_S, 1.0)),
            season_alpha=np.array(_share(slot_s, PACE_S, 1.0)),
            ages_s=np.maximum(AGES_S, AGES_TICKS * tick_s),
            refit_ticks=max(REFIT_TICKS, math.ceil(REFIT_S / tick_s)),
            reach_s=horizon_ticks(params) * np.float64(tick_s),
            farthest_s=float(horizon_ticks(params).max(initial=1)) * tick_s,
            on_the_way=_on_the_way(params),
            newest=_newest(params, slot_s),
            looks=_looks(params, slot_s),
            fit_weight=1.0 / params.lead_ticks,
            prior=level.prior(params.lead_ticks * np.float64(tick_s), means_s),
            swift_alpha=None if tick_s >= SWIFT_S else np.array(_share(tick_s, SWIFT_S, 1.0)),
            together=min(
                MOST_TOGETHER,
                max(1, TOGETHER // max(1, len(params.scale))),
                *((RING - group.most) * group.stride for group in groups),
            ),
        )


def horizon_count(params: SeriesParams) -> int:
    """Return the number of horizons kept: LEAD and KEEP, HOLD if any series wants laws, and REFILL if asked for."""
    if params.refill_laws.any():
        return len(Horizon)
    return Horizon.HOLD + 1 if params.laws.any() else Horizon.KEEP + 1


def slot_count(params: SeriesParams) -> int:
    """Return the number of slots in the history: some weeks and a little."""
    return math.ceil(days_back(params)[-1] * DAY_S / max(SLOT_S, params.tick_s)) + 4


def days_back(params: SeriesParams) -> tuple[int, ...]:
    """Return the earlier days that the history covers, of `DAYS_BACK`."""
    slot_s = max(SLOT_S, params.tick_s)
    return tuple(days for days in DAYS_BACK if math.ceil(days * DAY_S / slot_s) + 4 <= MOST_SLOTS)


def horizon_ticks(params: SeriesParams) -> Int:
    """Return how far each horizon looks, in ticks, at least 1: int64 (S, H)."""
    every = (params.lead_ticks, params.keep_ticks, params.hold_ticks, params.refill_ticks)
    return np.maximum(np.stack(every[: horizon_count(params)], axis=1), 1)


def _on_the_way(params: SeriesParams) -> Float:
    """Return `Settings.on_the_way`."""
    ticks = horizon_ticks(params).astype(np.float64)
    share: Float = np.minimum(0.5 * (1.0 + ticks) / ticks[:, :1], 1.0)
    share[:, 0] = 1.0
    return np.where(params.laws[:, np.newaxis], share, 1.0)


def strides(params: SeriesParams) -> tuple[Int, Int]:
    """Return ticks per block and blocks per window of each series and horizon: int64 (S, H) each."""
    ticks = horizon_ticks(params)
    stride = np.ones_like(ticks)
    most = np.array([MOST_BLOCKS] + [MOST_PEAK_BLOCKS] * (ticks.shape[1] - 1))
    while (long := -(-ticks // stride) > most).any():
        stride[long] *= 2
    return stride, -(-ticks // stride)


def _newest(params: SeriesParams, slot_s: float) -> int:
    """Return `Settings.newest`: the present slot if slots are ticks, else the one before."""
    return 0 if slot_s <= params.tick_s else -1


def _looks(params: SeriesParams, slot_s: float) -> Int:
    """Return `Settings.looks`. If slots are longer than two minutes, the three slots around the lead time are the same one."""
    days = -np.round(np.array(days_back(params)) * DAY_S / slot_s).astype(np.int64)
    beside = np.array([-1, 0, 1] if slot_s <= 120.0 else [0, 0, 0])
    lead = np.floor(params.lead_ticks * params.tick_s / slot_s + 1e-9).astype(np.int64)
    ahead = lead[:, np.newaxis] + (days[:, np.newaxis] + beside).reshape(-1)
    if (ahead == ahead[:1]).all():
        ahead = ahead[:1]
    same = np.append(_newest(params, slot_s), days)
    looks = np.concatenate([np.repeat(same[np.newaxis], len(ahead), axis=0), ahead], axis=1)
    return looks % slot_count(params)


def _groups(params: SeriesParams) -> tuple[Group, ...]:
    """Group the horizons by the length of their blocks."""
    stride, blocks = strides(params)
    series, horizons = stride.shape
    ring = np.arange(RING)
    groups = []
    for length in sorted(set(stride.reshape(-1).tolist())):
        having = np.flatnonzero((stride == length).any(axis=0))
        columns = slice(int(having[0]), int(having[-1]) + 1)
        mine = stride[:, columns] == length
        ahead = np.where(mine, blocks[:, columns], 1)
        most = int(ahead.max())
        alike = ahead[:1] if (ahead == ahead[:1]).all() else ahead
        places = np.arange(horizons)[columns]
        place = np.arange(series)[:, np.newaxis] * horizons + places
        window = (ring[:, np.newaxis] - np.arange(most)) % RING
        groups.append(
            Group(
                stride=length,
                columns=columns,
                most=most,
                outside=np.arange(most)[:, np.newaxis, np.newaxis] >= alike,
                ahead=alike,
                mine=None if mine.all() else mine,
                pairs=_pairs(columns, ahead, length, horizons, params.tick_s),
                recent=(window[:, :, np.newaxis] * (series * horizons) + places).reshape(RING, -1),
                issued=place + ((ring[:, np.newaxis, np.newaxis] - ahead) % RING) * (series * horizons),
                lead=columns.start == 0,
                doubt_alpha=np.array(_share(params.tick_s * length, DOUBT_S, DOUBT_TICKS)),
            )
        )
    return tuple(groups)


def _pairs(columns: slice[int, int, None], blocks: Int, stride: int, horizons: int, tick_s: float) -> Pairs:
    """Return the pairs of all series and the horizons of a group."""
    weight = np.maximum(1.0 / blocks, LEAST_WEIGHT)
    if columns.start == 0:
        # Demand at the lead time is that of one tick, so its outcomes do not overlap.
        weight[:, 0] = 1.0
    series = np.repeat(np.arange(len(blocks)), blocks.shape[1])
    horizon = np.tile(np.arange(columns.start, columns.stop), len(blocks))
    return Pairs(
        series=_three_times(series),
        at=series * horizons + horizon,
        first_total=_three_times(series * horizons + horizon),
        first_parent=series * horizons + horizon,
        weight=_three_times(weight.reshape(-1)),
        stride=np.full(blocks.size, float(stride)),
        short_alpha=np.full(blocks.size, _share(tick_s * stride, SHORT_S, SHORT_TICKS)),
    )


def _three_times(values: Kind) -> Kind:
    """Repeat each value three times along a new last axis."""
    return np.repeat(values[:, np.newaxis], 3, axis=1)


def _share(tick_s: float, time_s: float, least_ticks: float) -> float:
    """Return the share of one tick in an exponential mean with this time constant, or with `least_ticks` if that is longer."""
    return 1.0 - math.exp(-tick_s / max(time_s, least_ticks * tick_s))
