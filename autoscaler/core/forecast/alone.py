"""One series over many ticks, number by number: what `judging` and `issuing` do with arrays of series, to the bit.

What depends on what was forecast goes tick by tick, and a call of numpy takes as long for one number as for a hundred.
So where there is one series, and its ticks are known beforehand, the same operations on plain numbers take a fifth of the
time. All that may run ahead, or may wait, still is done with arrays, of many ticks.

Rules of this file: the operations of `judging.judge` and `issuing.expect`, in their order, and nothing else: what
changes there changes here, and `steps` is held to `step` by the tests. No function of numbers but the root, which
is exact; logarithms are numpy's, of many ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from autoscaler.core.forecast import issuing, judging, level, tables
from autoscaler.core.forecast.issuing import Grounds
from autoscaler.core.forecast.judging import Lesson, Outcomes, Place, in_turn, learn
from autoscaler.core.forecast.settings import RING, Group, Settings
from autoscaler.core.forecast.state import SeriesState, as_it_lies
from autoscaler.core.types import Bool, Float, Int, SmallFloat

_PARENT_OF: list[int] = tables.PARENT_OF.tolist()
_CELLS, _ROWS, _LEVELS = tables.CELLS, tables.ROWS, tables.LEVELS
_LOW, _MIDDLE, _HIGH = issuing.LEVELS.tolist()
_LEAST_SPREAD, _MOST_SPREAD = float(issuing.LEAST_SPREAD), float(issuing.MOST_SPREAD)
_LEAST_LOG, _MOST_LOG, _QUIET = float(level.LEAST_LOG), float(level.MOST_LOG), float(level.QUIET)
_MOST_SIZE, _LEAST_SHIFT = float(judging.MOST_SIZE), float(judging.LEAST_SHIFT)
_FIRST_WEIGHT = float(judging.FIRST_WEIGHT)


@dataclass(slots=True)
class _Blocks:
    """A group of horizons and those of its blocks that end in the stretch, N of them.

    Attributes:
        stride: Ticks per block.
        first: The first tick of the stretch at which one ends; none does before.
        horizons: Those of the group.
        columns: Their places among its columns.
        weight: Of an outcome of each.
        short_alpha: Share of one outcome in the size of recent errors.
        lead: Whether the first horizon is the lead time.
        doubt_alpha: The same of what is held against the fit of the level.
        places: Of the forecasts whose window ends with each block, N lists of them, in flat (RING, H).
        logs: Of outcomes and offset, likewise; NaN where there is no outcome.
        none: Whether there was no demand, likewise.
    """

    stride: int
    first: int
    horizons: list[int]
    columns: list[int]
    weight: list[float]
    short_alpha: float
    lead: bool
    doubt_alpha: float
    places: list[list[int]]
    logs: list[list[float]]
    none: list[list[bool]]

    @classmethod
    def of(cls, group: Group, first_tick: int) -> _Blocks:
        """Without outcomes."""
        count = group.columns.stop - group.columns.start
        mine = [True] * count if group.mine is None else group.mine[0].tolist()
        columns = [column for column, is_mine in enumerate(mine) if is_mine]
        horizons = [group.columns.start + column for column in columns]
        return cls(
            stride=group.stride,
            first=(-first_tick - 1) % group.stride,
            horizons=horizons,
            columns=columns,
            weight=[group.pairs.weight[column, 0].item() for column in columns],
            short_alpha=group.pairs.short_alpha[0].item(),
            lead=horizons[0] == 0,
            doubt_alpha=float(group.doubt_alpha),
            places=[],
            logs=[],
            none=[],
        )

    def hear(self, outcomes: Outcomes) -> None:
        """Take what came."""
        closed, columns = outcomes.closed, self.columns
        logs = np.where(closed.known, outcomes.logs, np.nan)
        self.places = closed.issued[:, 0, columns].tolist()
        self.logs = logs[:, 0, columns].tolist()
        self.none = (closed.outcome[:, 0, columns] <= 0.0).tolist()


class Alone:
    """The one series of a state, through the T ticks of a stretch.

    Args:
        settings: Of the series.
        state: What `judging` and `issuing` change of it is brought up to date by `write`, and not before; but what the fit
            learns from, by `settle`.
        tick: Number of the first.
        weight: float64 (T, 1), of a present outcome at each.
    """

    def __init__(self, settings: Settings, state: SeriesState, tick: int, weight: Float) -> None:
        self._settings, self._state, self._tick = settings, state, tick
        self._horizons = settings.horizons
        self._groups = [_Blocks.of(group, tick) for group in settings.groups]
        self._weight: list[float] = weight[:, 0].tolist()
        self._samples: int | None = None if state.grown else state.ticks.item()
        self._totals: list[float] = as_it_lies(state.totals).reshape(-1).tolist()
        self._sizes: list[float] = as_it_lies(state.sizes).reshape(-1).tolist()
        self._shifts: list[float] = as_it_lies(state.shifts).reshape(-1).tolist()
        self._short: list[float] = state.short[0].tolist()
        self._on_the_way: list[float] = settings.on_the_way[0].tolist()
        self._doubt: list[float] = state.doubt[0].tolist()
        # Rings of blocks, and of blocks times horizons.
        self._ahead: list[float] = state.ahead[0].tolist()
        self._fitted: list[float] = state.fitted[0].tolist()
        self._log_level, self._spread, self._cell = as_it_lies(state.issued).reshape(-1, 3).T.tolist()
        # What came, one after the other, and the ticks with the number of outcomes up to each.
        self._came: list[float] = []
        self._ticks: list[int] = []
        self._ends: list[int] = []
        self._lessons: list[float] = []
        # What was issued, and the totals that spoke, of all ticks.
        self._issued: list[float] = []
        self._spoke: list[float] = []

    def hear(self, outcomes: Sequence[Outcomes | None]) -> None:
        """Take what came in the windows that end within the stretch, of each group, by the offset of now."""
        for group, mine in zip(self._groups, outcomes, strict=True):
            if mine is not None:
                group.hear(mine)

    def go(
        self, first: int, end: int, grounds: Grounds, hazard: dict[int, int], hidden: Sequence[Bool | None]
    ) -> None:
        """Forecast at some ticks, the first of which was judged, and judge at all after it, the next one included.

        Args:
            first: The first of the ticks.
            end: The one after the last.
            grounds: Of these ticks.
            hazard: Class of the odds that a burst begins on the clock, by tick; 0 where there is none.
            hidden: Of all ticks of the stretch, as in `seeing.Read`.
        """
        rests_on = zip(
            grounds.means[:, 0].tolist(),
            grounds.seasons[:, 0].tolist(),
            grounds.fitted[:, 0].tolist(),
            grounds.last[:, 0].tolist(),
            grounds.usual[:, 0].tolist(),
            grounds.top[:, 0].tolist(),
            grounds.lately[:, 0].tolist() if len(grounds.lately) else [None] * (end - first),
            grounds.within[:, 0].tolist(),
            strict=True,
        )
        for at, (means, seasons, fitted, last, usual, top, lately, within) in enumerate(rests_on, first):
            if at > first:
                self.judge(at)
            way = self._believed(means, seasons)
            if hidden[at] is not None and way < 0.0:
                way = 0.0
            above = way + last - usual
            if within >= 0:
                cell = within
            else:
                cell = (above > _LOW) + (above > _MIDDLE) + (above > _HIGH) + hazard.get(at, 0) * _LEVELS
            self._issue(cell, way, last, top, lately)
            self._remember(at, last, fitted)
        self._keep_features(first, end, grounds.features)
        if end < len(self._weight):
            self.judge(end)

    def judge(self, at: int) -> None:
        """Judge the forecasts whose window ends at a tick: `judging.judge`."""
        before = len(self._came)
        for group in self._groups:
            after = at - group.first
            if after >= 0 and not after % group.stride:
                self._count(group, after // group.stride, at)
        if len(self._came) > before:
            self._ticks.append(at)
            self._ends.append(len(self._came) // _NUMBERS)

    def _count(self, group: _Blocks, block: int, at: int) -> None:
        """Add the outcomes of a group to totals and mean sizes: `judging._count`."""
        one, horizons, alpha = self._weight[at], self._horizons, group.short_alpha
        if self._samples is not None:
            alpha = max(alpha, 1.0 / ((self._samples + at) / group.stride + _FIRST_WEIGHT))
        totals, sizes, shifts, short = self._totals, self._sizes, self._shifts, self._short
        log_level, spread, cells, came = self._log_level, self._spread, self._cell, self._came
        first_weight, parents, whole = _FIRST_WEIGHT * one, _CELLS * horizons, (_ROWS - 1) * horizons
        for horizon, place, log, none, weight in zip(
            group.horizons,
            group.places[block],
            group.logs[block],
            group.none[block],
            group.weight,
            strict=True,
        ):
            error = log - log_level[place]
            if error != error:  # noqa: PLR0124 - the quickest way to ask whether it is a number
                continue
            cell, mine = int(cells[place]), one * weight
            own, parent = cell * horizons + horizon, _PARENT_OF[cell] * horizons + horizon
            beside, every = parents + parent, whole + horizon
            totals[own] += mine
            totals[every] += mine
            total = totals[beside] = totals[beside] + mine
            came += (own, beside, every, spread[place], error, mine, none)
            size = min(abs(error), _MOST_SIZE)
            was = short[horizon]
            short[horizon] = (size - was) * alpha + was
            share = mine / (first_weight + total)
            was = sizes[parent]
            sizes[parent] = (size - was) * share + was
            shifts[parent] += min(max(error, _LEAST_SHIFT), _MOST_SIZE) * share
            if not horizon:
                self._compare(group, place, error, one)

    def _compare(self, group: _Blocks, place: int, error: float, one: float) -> None:
        """What an outcome at the lead time says of the fit: `judging._compare`, and what `judging.learn` needs."""
        horizons, doubt, alpha = self._horizons, self._doubt, group.doubt_alpha
        slot = place // horizons
        outcome = self._ahead[slot] + error
        off = outcome - self._fitted[slot]
        doubt[0] += (min(off * off, _MOST_SIZE) - doubt[0]) * alpha
        doubt[1] += (min(outcome * outcome, _MOST_SIZE) - doubt[1]) * alpha
        self._lessons += (
            slot,
            error,
            self._log_level[place],
            self._spread[place],
            self._cell[place],
            self._sizes[0],
            self._totals[(_ROWS - 1) * horizons],
            one,
        )

    def _believed(self, means: float, seasons: float) -> float:
        """`level.believed`."""
        by_fit, by_last = self._doubt
        ratio = (by_last + _QUIET) / (by_fit + _QUIET)
        ahead = means * min(ratio * ratio, 1.0) + seasons
        return min(max(ahead, _LEAST_LOG), _MOST_LOG)

    def _issue(self, cell: int, way: float, last: float, top: float, lately: float | None) -> None:
        """Level, spread and cell of each horizon: `issuing.expect`."""
        horizons, issued = self._horizons, self._issued
        parent, farthest = _PARENT_OF[cell] * horizons, horizons - 1
        sizes, shifts = self._sizes, self._shifts
        for horizon, (short, share) in enumerate(zip(self._short, self._on_the_way, strict=True)):
            log_level = share * way + last
            if horizon:
                if horizon == farthest and lately is not None and lately > log_level:
                    log_level = lately
                log_level += shifts[parent + horizon]
            spread = min(max(sqrt(sizes[parent + horizon] * short), _LEAST_SPREAD), _MOST_SPREAD)
            issued += (min(log_level, top), spread, cell)
        totals, own, beside = self._totals, cell * horizons, _CELLS * horizons + parent
        self._spoke += totals[own : own + horizons]
        self._spoke += totals[beside : beside + horizons]
        self._spoke += totals[-horizons:]

    def _remember(self, at: int, last: float, fitted: float) -> None:
        """Keep what was issued until its outcome comes: `issuing._remember`."""
        horizons, issued = self._horizons, self._issued
        now, begin = self._tick + at, len(issued) - 3 * horizons
        for group in self._groups:
            if (now + 1) % group.stride:
                continue
            slot = now // group.stride % RING
            first, mine = slot * horizons, group.horizons
            if len(mine) == horizons:
                end = first + horizons
                self._log_level[first:end] = issued[begin::3]
                self._spread[first:end] = issued[begin + 1 :: 3]
                self._cell[first:end] = issued[begin + 2 :: 3]
            else:
                for horizon in mine:
                    at_3 = begin + 3 * horizon
                    self._log_level[first + horizon], self._spread[first + horizon] = issued[at_3 : at_3 + 2]
                    self._cell[first + horizon] = issued[at_3 + 2]
            if group.lead:
                self._ahead[slot] = issued[begin] - last
                self._fitted[slot] = fitted

    def _keep_features(self, first: int, end: int, features: Float) -> None:
        """Keep what the levels of some ticks were made of: float64 (n, 1, FEATURES)."""
        for group in self._groups:
            if group.lead:
                ends = np.arange(first + (group.first - first) % group.stride, end, group.stride)
                slots = (self._tick + ends) // group.stride % RING
                self._state.features[0, slots] = features[ends - first, 0]

    def settle(self) -> None:
        """Learn for the fit what was judged since the last time."""
        if not self._lessons:
            return
        found = np.array(self._lessons).reshape(-1, _LESSON)
        self._lessons = []
        self._state.ahead[0] = self._ahead
        lesson = Lesson(
            place=found[:, :1].astype(np.int64),
            error=found[:, 1:2].copy(),
            was=found[:, np.newaxis, 2:5].copy(),
            known=None,
            size=found[:, 5:6].copy(),
            evidence=found[:, 6:7].copy(),
            weight=found[:, 7:].copy(),
        )
        learn(self._settings, self._state, lesson)

    def forget(self) -> None:
        """What waits for its outcome waits in vain, since the offset has changed."""
        self._log_level = [nan] * len(self._log_level)
        self._spread, self._cell = self._log_level.copy(), self._log_level.copy()

    def issued(self) -> Float:
        """What was issued: float64 (T, 1, H, 3)."""
        return np.array(self._issued).reshape(-1, 1, self._horizons, 3)

    def spoke(self) -> Float:
        """The sums of the rows that spoke: float64 (T, 1, 3, H)."""
        return np.array(self._spoke).reshape(-1, 1, 3, self._horizons)

    def added(self) -> list[tuple[int, Int, SmallFloat]]:
        """What is to be added to the flat tables in turn, as `judging.count_in` has it."""
        if not self._came:
            return []
        came = np.array(self._came).reshape(-1, _NUMBERS)
        place = Place(
            totals=came[:, :3].astype(np.int64),
            spread=came[:, 3].copy(),
            error=came[:, 4].copy(),
            weight=np.repeat(came[:, 5:6], 3, axis=1),
            none=came[:, 6] > 0.0,
        )
        return in_turn(self._ticks, self._ends, place)

    def write(self) -> None:
        """Bring the state up to the last tick, but for its tables."""
        self.settle()
        state = self._state
        as_it_lies(state.totals).reshape(-1)[:] = self._totals
        as_it_lies(state.sizes).reshape(-1)[:] = self._sizes
        as_it_lies(state.shifts).reshape(-1)[:] = self._shifts
        state.short[0], state.doubt[0] = self._short, self._doubt
        state.ahead[0], state.fitted[0] = self._ahead, self._fitted
        as_it_lies(state.issued).reshape(-1, 3).T[:] = self._log_level, self._spread, self._cell


_NUMBERS, _LESSON = 7, 8
"""Numbers that are put by of an outcome, and of a lesson for the fit."""
