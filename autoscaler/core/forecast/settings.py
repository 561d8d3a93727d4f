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
"""Blocks that the lead time is cut into at most, and the window of a peak."""
RING = MOST_BLOCKS + 1
"""Blocks, and forecasts to be judged, that are remembered."""
SLOT_S = 60.0
"""Slots of the history, or a tick where that is longer."""
DAY_S = 86_400.0
DAYS_BACK: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 14, 21, 28)
"""Days before, of which the same time of day is looked at: days, and weeks as far as the history goes."""
NEAR_DAYS, FIRST_WEEK = 3, 6
"""The first so many of them say what a day looks like; from this place on they are weeks; all say what the next step is."""
MOST_SLOTS = 10_084
"""Slots of a history at most: a week of minutes and a little, four weeks of slots of four minutes and more."""
MEANS_S: Float = np.array([60.0, 180.0, 600.0, 1800.0, 7200.0])
MEANS_TICKS: Float = np.array([1.5, 3.0, 8.0, 20.0, 50.0])
"""Time constants of the means that the level is made of, and the least of them in ticks, so that they differ."""
PACE_S = 1800.0
"""Time constant of the mean by which the present is compared with earlier days."""
CLIP = 3.0
"""A sample moves a mean as if it were at most this many times the mean (and as many VMs), so that one wild sample is
soon forgotten."""
MEDIAN_SLOTS = 30
"""Slots whose median is the level of a burst detector."""
BASE_S, BASE_TICKS = 600.0, 10.0
"""Time constant of the mean without bursts, and the least of it in ticks."""
BURST_VMS = 1.5
"""By so much, and in proportion, demand exceeds what is usual in a burst."""
QUIET_S = 60.0
"""A burst is over after so long without high demand."""
SWIFT_S = 20.0
"""Bursts are seen in demand averaged over about this, so that noise of single seconds is none."""
AGES_S: Float = np.array([0.0, 20.0, 40.0, 100.0, 300.0])
AGES_TICKS: Float = np.array([0.0, 1.0, 2.0, 3.0, 6.0])
"""A burst older than these is in the next regime; the larger of the two counts."""
REFIT_S, REFIT_TICKS = 900.0, 4
"""The level is fitted anew so often, and not more often than so many ticks."""
SHORT_S, SHORT_TICKS = 600.0, 10.0
"""Time constant of recent errors, and the least of it in ticks."""
DOUBT_S, DOUBT_TICKS = 600.0, 10.0
"""The same of the errors by which the fit of the level is held against the last value."""
LONG_S, TOP_S = 86_400.0, 7.0 * 86_400.0
"""Time constants of the usual demand that levels are compared with, and of the highest demand remembered."""
TOGETHER, MOST_TOGETHER, MOST_ALONE = 256, 64, 240
"""Ticks times series that are gone through together at most, ticks, and ticks of one series (`alone`)."""
LEAST_WEIGHT = 1.0 / 16.0
"""Outcomes of overlapping windows say little new: one counts as its block's share of the window, at least this."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of series and horizon.

    Attributes:
        series: int64 (N, 3), of each, three times.
        at: int64 (N,), their place in a flat (S, H).
        first_total: int64 (N, 3), place of the first row of each in a flat (ROWS, S, H), three times.
        first_parent: int64 (N,), place of the first parent of each in a flat (PARENTS, S, H).
        weight: float64 (N, 3), of an outcome, three times.
        stride: float64 (N,), ticks between two outcomes.
        short_alpha: float64 (N,), share of one outcome in the size of recent errors.
    """

    series: Int
    at: Int
    first_total: Int
    first_parent: Int
    weight: Float
    stride: Float
    short_alpha: Float

    def some(self, which: Int) -> Pairs:
        """Some of them, by position."""
        return Pairs(*(getattr(self, f.name).take(which, axis=0) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Group:
    """Horizons with blocks of one length.

    Attributes:
        stride: Ticks per block.
        columns: The horizons that have such blocks for any series.
        most: Blocks that the farthest of them looks ahead.
        outside: bool (most, 1 or S, C), which of the latest blocks, the newest first, are not in the window.
        ahead: int64 (1 or S, C), blocks that each looks ahead.
        mine: bool (S, C), series and horizons of this group; None where all are.
        pairs: All series with all of its horizons.
        recent: int64 (RING, most * C), places in a flat (RING, S, H) of the first series' latest blocks at each block of the
            ring, the newest first.
        issued: int64 (RING, S, C), place in a flat (RING, S, H) of the forecasts whose window ends with each.
        lead: Whether the first column is the lead time.
        doubt_alpha: Share of one outcome at the lead time in what is held against the fit of the level.
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
    """Everything that follows from the parameters.

    Attributes:
        params: Whose they are.
        series: int64 (S,), 0, 1, 2 ...
        first_row: int64 (S, 3), the first row of each in flat tables, (ROWS, S), three times.
        rows_of: int64 (CELLS, 3), the rows of a cell of the first series there.
        parent_of, regime_of: int64 (CELLS,), likewise its parent in a flat (PARENTS, S), and its regime in a flat (REGIMES, S).
        totals_of: int64 (CELLS, 3), places of its rows in a flat (ROWS, S, H).
        parents_of: int64 (CELLS,), place of its parent in a flat (PARENTS, S, H).
        horizons: Number of horizons (`horizon_count`).
        groups: Horizons by the length of their blocks.
        slot_s: Length of a slot of the history.
        slots: Slots of the history.
        clip_room: float64 (S, 6), what a sample may be above `CLIP` times each mean.
        vm: float64 (S,), work per second of a VM.
        burst_room: float64 (S,), what demand in a burst is above what is usual, beside its share of that.
        growth: float64 (S,), by which the weight of outcomes grows each tick.
        grown_ticks: After so many samples nothing depends on their number any more.
        long_ago: float64 (S,), ticks after which there is nothing left to forget.
        alphas: float64 (S, 6), share of one tick in the usual demand and in the means.
        base_alpha: The same for demand without bursts.
        top_fade: What one tick leaves of the highest demand.
        season_alpha: The same of a slot in the mean that earlier days are compared by.
        ages_s: float64 (5,), ages at which the regimes of a burst begin.
        refit_ticks: Ticks between two fits of a series.
        reach_s: float64 (S, H), how far each horizon looks.
        farthest_s: The farthest of them.
        on_the_way: float64 (S, H), how much of the way from the last value to the level at the lead time has been gone in the middle of
            each window, 0..1; 1 at the lead time, and where no laws are wanted.
        newest: The newest slot of the history that is whole, relative to the present one.
        looks: int64 (1 or S, 1 + D + 3 * D), slots of the history that are looked at, relative to the present one and modulo
            their number: the newest, this time on earlier days, and around the lead time from then on. One row where all series
            look at the same.
        fit_weight: float64 (S,), of an outcome in the fit of the level: those of overlapping lead times say little new.
        prior: float64 (S, FEATURES), weights of the level before any outcome.
        swift_alpha: Share of one tick in the demand that bursts are seen in; None for all of it, in ticks of `SWIFT_S` and
            more.
        together: Ticks that may be gone through together: few enough that no ring of blocks comes round within them.
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
        """For these series."""
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
    """Horizons that are kept: lead and keep, with laws hold, and refill where that is asked for."""
    if params.refill_laws.any():
        return len(Horizon)
    return Horizon.HOLD + 1 if params.laws.any() else Horizon.KEEP + 1


def slot_count(params: SeriesParams) -> int:
    """Slots of the history: some weeks and a little."""
    return math.ceil(days_back(params)[-1] * DAY_S / max(SLOT_S, params.tick_s)) + 4


def days_back(params: SeriesParams) -> tuple[int, ...]:
    """Days before that the history reaches."""
    slot_s = max(SLOT_S, params.tick_s)
    return tuple(days for days in DAYS_BACK if math.ceil(days * DAY_S / slot_s) + 4 <= MOST_SLOTS)


def horizon_ticks(params: SeriesParams) -> Int:
    """How far each horizon looks, int64 (S, H)."""
    every = (params.lead_ticks, params.keep_ticks, params.hold_ticks, params.refill_ticks)
    return np.maximum(np.stack(every[: horizon_count(params)], axis=1), 1)


def _on_the_way(params: SeriesParams) -> Float:
    ticks = horizon_ticks(params).astype(np.float64)
    share: Float = np.minimum(0.5 * (1.0 + ticks) / ticks[:, :1], 1.0)
    share[:, 0] = 1.0
    return np.where(params.laws[:, np.newaxis], share, 1.0)


def strides(params: SeriesParams) -> tuple[Int, Int]:
    """Ticks per block and blocks per window of each series and horizon, int64 (S, H)."""
    ticks = horizon_ticks(params)
    stride = np.ones_like(ticks)
    most = np.array([MOST_BLOCKS] + [MOST_PEAK_BLOCKS] * (ticks.shape[1] - 1))
    while (long := -(-ticks // stride) > most).any():
        stride[long] *= 2
    return stride, -(-ticks // stride)


def _newest(params: SeriesParams, slot_s: float) -> int:
    return 0 if slot_s <= params.tick_s else -1


def _looks(params: SeriesParams, slot_s: float) -> Int:
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
    weight = np.maximum(1.0 / blocks, LEAST_WEIGHT)
    if columns.start == 0:
        # Demand at one moment: outcomes do not overlap.
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
    return np.repeat(values[:, np.newaxis], 3, axis=1)


def _share(tick_s: float, time_s: float, least_ticks: float) -> float:
    return 1.0 - math.exp(-tick_s / max(time_s, least_ticks * tick_s))
